"""A server that asks for a password or for answers, and says to every command who it let in."""
import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return True

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        return (username, password) == ("batch", "right horse")

    def kbdint_auth_supported(self):
        return True

    def get_kbdint_challenge(self, username, lang, submethods):
        return "Two questions", "From the server", "en", [("Colour: ", True), ("Code: ", False)]

    def validate_kbdint_response(self, username, responses):
        return responses == ["blue", "4711"]


async def main():
    await asyncssh.create_server(
        Server, "127.0.0.1", int(sys.argv[1]), server_host_keys=[sys.argv[2]],
        process_factory=lambda process: (process.stdout.write("let in\n"), process.exit(0)),
    )
    print("listens", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())

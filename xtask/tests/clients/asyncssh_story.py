"""asyncssh: several commands on one connection at once, a terminal, files; it knows the gate's CA."""
import asyncio
import sys

import asyncssh

port, known_hosts, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]


async def main():
    async with asyncssh.connect(
        "127.0.0.1", port, username="root", known_hosts=known_hosts, client_keys=None, password="x"
    ) as connection:
        said = await asyncio.gather(*(connection.run(f"echo {n}; exit {n}") for n in range(5)))
        assert [(one.stdout, one.exit_status) for one in said] == [(f"{n}\n", n) for n in range(5)]
        terminal = await connection.run("tty; stty size", term_type="xterm", term_size=(100, 30))
        assert terminal.stdout.startswith("/dev/pts/") and "30 100" in terminal.stdout, terminal.stdout
        ended = await connection.run("kill -TERM $$")
        assert ended.exit_signal and ended.exit_signal[0] == "TERM", ended
        async with connection.start_sftp_client() as sftp:
            async with sftp.open(f"{directory}/asyncssh", "wb") as file:
                await file.write(b"x" * 1_000_000)
            assert (await sftp.stat(f"{directory}/asyncssh")).size == 1_000_000
            await sftp.remove(f"{directory}/asyncssh")
    print("done")


asyncio.run(main())

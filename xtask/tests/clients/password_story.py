"""paramiko: a wrong password, then the right one; and the server's own questions."""
import sys

import paramiko

port, known_hosts = int(sys.argv[1]), sys.argv[2]


def transport():
    found = paramiko.Transport(("127.0.0.1", port))
    found.start_client()
    keys = paramiko.HostKeys(known_hosts)
    assert keys.check(f"[127.0.0.1]:{port}", found.get_remote_server_key())
    return found


def runs(transport):
    channel = transport.open_session()
    channel.exec_command("anything")
    assert channel.makefile().read() == b"let in\n"
    transport.close()


one = transport()
try:
    one.auth_password("batch", "wrong horse")
    sys.exit("a wrong password was taken")
except paramiko.AuthenticationException:
    one.close()
one = transport()
one.auth_password("batch", "right horse")
runs(one)

two = transport()
asked = []


def answers(title, instructions, prompts):
    asked.append((title, instructions, [tuple(prompt) for prompt in prompts]))
    return ["blue", "4711"] if prompts else []


two.auth_interactive("batch", answers)
assert asked[0] == ("Two questions", "From the server", [("Colour: ", True), ("Code: ", False)]), asked
runs(two)

three = transport()
try:
    three.auth_none("batch")
    sys.exit("nothing was needed")
except paramiko.BadAuthenticationType as error:
    assert "password" in error.allowed_types, error
three.close()
print("done")

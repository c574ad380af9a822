"""paramiko: a command with its streams and status, and files; it knows the server's own key, and no certificates."""
import sys

import paramiko

port, known_hosts, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = paramiko.SSHClient()
client.load_host_keys(known_hosts)
client.set_missing_host_key_policy(paramiko.RejectPolicy())
client.connect("127.0.0.1", port, "root", password="anything", look_for_keys=False, allow_agent=False)
stdin, stdout, stderr = client.exec_command("cat; echo err >&2; exit 4")
stdin.write("in\n")
stdin.channel.shutdown_write()
assert stdout.read() == b"in\n" and stderr.read() == b"err\n"
assert stdout.channel.recv_exit_status() == 4
sftp = client.open_sftp()
with sftp.open(f"{directory}/paramiko", "w") as file:
    file.set_pipelined(True)
    for number in range(1000):
        file.write(b"%06d\n" % number)
assert sftp.stat(f"{directory}/paramiko").st_size == 7000
with sftp.open(f"{directory}/paramiko") as file:
    file.prefetch()
    assert file.read() == b"".join(b"%06d\n" % number for number in range(1000))
sftp.rename(f"{directory}/paramiko", f"{directory}/renamed")
assert "renamed" in sftp.listdir(directory)
sftp.remove(f"{directory}/renamed")
try:
    sftp.open("/etc/hostname")
    sys.exit("it was let read what is not permitted")
except OSError as error:
    assert "tidegate" in str(error), error
client.close()
print("done")

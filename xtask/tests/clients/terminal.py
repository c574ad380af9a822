"""A person's terminal around OpenSSH's client: types what the steps say, once what they wait for is there.

Reads from its arguments the columns and rows to begin with and the client's command line; prints as JSON what the terminal
was sent (base64), and where in it the size changed.
"""
import base64
import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

STEPS = [
    # What to wait for, what to type, the size from then on.
    (b"# ", "export LC_ALL=C.UTF-8; bind 'set enable-bracketed-paste off'; PS1='rea''dy> '; cd /tmp\r", None),
    (b"ready> ", r"printf 'gr\303\266\303\237e \342\234\223 \360\237\214\212\n'" + "\r", None),
    ("größe ✓ 🌊\r\nready> ".encode(), r"printf '\033]52;c;ZXZpbA==\007\033]0;evil\007\033[6n\033[1;31mred\033[0m\n'" + "\r", None),
    (b"red\x1b[0m\r\nready> ", "stty -echo; echo 'ar''med'; read hidden; stty echo; printf 'was %s\\n' ${#hidden}\r", None),
    (b"armed\r\n", "hunter2hunter2\r", None),
    (b"was 14\r\nready> ", "top -d 60\r", None),
    (b"Tasks:", "q", None),
    (b"ready> ", "vi -u NONE -N -n story\r", None),
    (b"[New]", "ihello größe\x1b:set number\r", None),
    (b"  1 ", "", (100, 30)),
    (b"\x1b[29;1H~", ":set columns?\r", None),
    (b"columns=100", ":q!\r", None),
    (b"ready> ", "tput cols\r", None),
    (b"100\r\nready> ", "exit 5\r", None),
]
LIMIT_SECONDS = 60


def main():
    columns, rows = int(sys.argv[1]), int(sys.argv[2])
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[3], sys.argv[3:])
    size(terminal, columns, rows)
    seen, sizes, at = b"", [], 0
    deadline = time.monotonic() + LIMIT_SECONDS
    for wanted, typed, changed in STEPS:
        while wanted not in seen[at:]:
            if time.monotonic() > deadline:
                sys.exit(f"waiting for {wanted!r}; the terminal has {seen[-2000:]!r}")
            more = read(terminal)
            if more is None:
                sys.exit(f"it ended while waiting for {wanted!r}; the terminal has {seen[-2000:]!r}")
            seen += more
        at = seen.index(wanted, at) + len(wanted)
        if changed:
            sizes.append((len(seen), *changed))
            size(terminal, *changed)
        os.write(terminal, typed.encode())
    while (more := read(terminal)) is not None:
        seen += more
    _, status = os.waitpid(pid, 0)
    print(json.dumps({
        "seen": base64.b64encode(seen).decode(),
        "sizes": sizes,
        "status": os.waitstatus_to_exitcode(status),
    }))


def size(terminal, columns, rows):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read(terminal):
    if not select.select([terminal], [], [], 1)[0]:
        return b""
    try:
        return os.read(terminal, 65536) or None
    except OSError:
        return None


main()

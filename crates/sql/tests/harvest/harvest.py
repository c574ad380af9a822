"""Harvests the SQL that object mappers and pgbench really send, for ../data/benign_mappers.txt.

It starts a private PostgreSQL below a temporary directory (`log_statement = all`), runs each of the
scripts beside it against a fresh database, reads the statements back from the server's own log, and
prints corpus lines: statement ;; what it does ;; where from. What a statement does is told by the
server, not by the analyser under test: whether the statement, run again in a read-only transaction
after its program has ended, fails with SQLSTATE 25006 (or begins with a word that such a transaction
refuses). No mapper's script is edited for the analyser's sake; a statement that differs from an earlier
one by its values only is left out.

    python3 -m venv venv
    venv/bin/pip install -r requirements.txt
    venv/bin/python harvest.py > ../data/benign_mappers.txt

It has to run as an account that isn't root, or as root where the account `postgres` exists. Node's
Sequelize is harvested where `node_modules` beside this file, or `NODE_PATH`, has it (`npm install
sequelize@6.37.8 pg@8.23.1`), and named on standard error where it hasn't.
"""

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import psycopg

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = pathlib.Path(os.environ.get("PGBIN", "/usr/lib/postgresql/15/bin"))
PORT = int(os.environ.get("HARVEST_PORT", "5598"))
HOST = "127.0.0.1"
SOURCES = [
    ("sqlalchemy", "with_sqlalchemy.py"),
    ("django", "with_django.py"),
    ("peewee", "with_peewee.py"),
    ("sequelize", "with_sequelize.js"),
    ("pgbench", None),
]
# What a read-only transaction refuses whatever it is about, or what can't be tried twice.
CHANGES = re.compile(
    r"\s*(insert|update|delete|merge|create|alter|drop|truncate|copy\s+\S+\s*(\([^)]*\)\s*)?from|"
    r"vacuum|analyze|grant|revoke|comment|cluster|reindex|refresh|do\b|call|notify|listen|lock)\b",
    re.IGNORECASE,
)
# What speaks of the session; tried again it would say nothing.
TALKS = re.compile(
    r"\s*(begin|start|commit|rollback|savepoint|release|end|abort|set|show|reset|discard|close|"
    r"deallocate|declare|fetch|move|prepare)\b",
    re.IGNORECASE,
)
LINE = re.compile(r"^@(\w*)@\S* LOG:  (?:statement|execute [^:]*): (.*)$")


class Server:
    """A private server; its directory goes away with it."""

    def __init__(self):
        self.at = pathlib.Path(tempfile.mkdtemp(prefix="harvest-"))
        self.log = self.at / "log"
        self.as_postgres = os.geteuid() == 0
        if self.as_postgres:
            shutil.chown(self.at, "postgres", "postgres")
        self.run("initdb", "-D", self.at / "data", "-A", "trust", "-U", "postgres")
        options = [
            f"-p {PORT}",
            f"-k {self.at}",
            "-c listen_addresses=127.0.0.1",
            "-c fsync=off",
            "-c log_statement=all",
            "-c log_line_prefix=@%d@%p\\ ",
            "-c lc_messages=C",
        ]
        self.run("pg_ctl", "-D", self.at / "data", "-l", self.log, "-w", "-o", " ".join(options), "start")

    def run(self, program, *arguments):
        command = [str(PROGRAMS / program), *map(str, arguments)]
        if self.as_postgres:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def stop(self):
        self.run("pg_ctl", "-D", self.at / "data", "-m", "immediate", "stop")
        shutil.rmtree(self.at)

    def statements(self, database):
        """What was sent to a database, in order."""
        time.sleep(0.3)
        found, mine = [], False
        for line in self.log.read_text(errors="replace").splitlines():
            begins = LINE.match(line)
            if begins:
                mine = begins[1] == database
                if mine:
                    found.append(begins[2])
            elif line.startswith("\t") and mine:
                found[-1] += "\n" + line[1:]
            else:
                mine = False
        return found


def modules():
    return pathlib.Path(os.environ.get("NODE_PATH", HERE / "node_modules"))


def drive(name, script):
    """Runs one program against its database; `False` where it isn't installed."""
    environment = dict(os.environ, HARVEST_PORT=str(PORT), HARVEST_HOST=HOST, HARVEST_DB=name)
    if name == "pgbench":
        base = [str(PROGRAMS / "pgbench"), "-h", HOST, "-p", str(PORT), "-U", "postgres"]
        runs = [["-i", "-q", "--foreign-keys"], ["-i", "-q", "-I", "dtGvp", "--partitions=2"]]
        for mode in ("simple", "extended", "prepared"):
            runs += [["-b", script, "-t", "2", "-M", mode] for script in
                     ("tpcb-like", "simple-update", "select-only")]
        runs.append(["-C", "-S", "-t", "2"])
        for run in runs:
            subprocess.run([*base, *run, name], check=True, capture_output=True)
        return True
    if script.endswith(".js"):
        if not (modules() / "sequelize").exists():
            print(f"{name} is not installed: left out", file=sys.stderr)
            return False
        command = ["node", str(HERE / script)]
    else:
        command = [sys.executable, str(HERE / script)]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return True


def mark(connection, text):
    """What the corpus says of it. A FETCH alone doesn't say what it reads: the session's cursor does. Nor
    does a block or function that is made on the spot."""
    if re.match(r"\s*fetch\b", text, re.IGNORECASE):
        return "reads"
    if re.search(r"\bdo '|\bcreate (or replace )?function\b", text, re.IGNORECASE):
        return "writes reads"
    return "writes" if changes(connection, text) else "-"


def changes(connection, text):
    """Whether a read-only transaction refuses it."""
    if CHANGES.match(text):
        return True
    if TALKS.match(text):
        return False
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("set transaction read only")
            numbers = [int(number) for number in re.findall(r"\$(\d+)", text)]
            raw = psycopg.RawCursor(connection)
            raw.execute(text, [None] * max(numbers, default=0))
    except psycopg.errors.ReadOnlySqlTransaction:
        # Locks of rows are refused there too, and change nothing.
        return not re.search(r"\bfor\s+(no\s+key\s+)?(update|share|key\s+share)\b", text, re.IGNORECASE)
    except psycopg.Error:
        pass
    return False


def shape(text):
    """The text without its values."""
    # Cursors and savepoints are named after threads and counters.
    text = re.sub(r'"?\b(c_|_django_curs_|s)[0-9a-f]+_\w+"?', "?", text)
    text = re.sub(r"'(?:[^']|'')*'", "'?'", text)
    text = re.sub(r"\b\d+(\.\d+)?\b", "?", text)
    text = re.sub(r"\(\s*(\$?\?|'\?'|NULL)(\s*,\s*(\$?\?|'\?'|NULL))*\s*\)", "(?)", text)
    return re.sub(r"\s+", " ", re.sub(r"(\(\?\)\s*,\s*)+\(\?\)", "(?)", text)).strip()


def version(name):
    if name == "pgbench":
        return subprocess.run([PROGRAMS / "pgbench", "-V"], capture_output=True, text=True).stdout.split()[2]
    if name == "sequelize":
        path = modules() / "sequelize/package.json"
        return re.search(r'"version": "([^"]+)"', path.read_text())[1]
    from importlib.metadata import version as of
    return of(name)


def main():
    server = Server()
    counts = collections.Counter()
    seen = set()
    print("# What object mappers and pgbench sent to a PostgreSQL, as `harvest/harvest.py` read it back from")
    print("# the server's log: statement ;; what it does, by the server's word ;; where from.")
    try:
        for name, script in SOURCES:
            with psycopg.connect(host=HOST, port=PORT, user="postgres", dbname="postgres", autocommit=True) as own:
                own.execute(f"create database {name}")
            if not drive(name, script):
                continue
            texts = server.statements(name)
            of = f"{name} {version(name)}"
            with psycopg.connect(host=HOST, port=PORT, user="postgres", dbname=name, autocommit=True) as own:
                for text in texts:
                    key = shape(text)
                    if key in seen or not key or len(text) > 8000 or " ;; " in text or "⏎" in text:
                        continue
                    seen.add(key)
                    does = mark(own, text)
                    counts[name, does] += 1
                    print(text.strip().replace("\n", "⏎"), ";;", does, ";;", of)
    finally:
        server.stop()
    for (name, does), count in sorted(counts.items()):
        print(f"{name}: {count} of {does}", file=sys.stderr)


if __name__ == "__main__":
    main()

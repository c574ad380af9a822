"""Chooses from PostgreSQL's own regression suite what a reading account must not be refused.

    venv/bin/python regress.py postgresql-15.18/src/test/regress > ../data/benign_regress.txt

Chosen is what a server says is harmless, whatever our analyser thinks of it: each statement of the suite
that begins with SELECT, VALUES, TABLE, WITH, SHOW, EXPLAIN or a parenthesis is run on its own, by an
account that has nothing but `pg_read_all_data`, in a read-only transaction, in a database with the tables
of `test_setup.sql` and without any function, operator or type of its own. Those that succeed within two
seconds are chosen, but for statements that differ from an earlier one by their values only, those over
1,000 characters, and those that REFUSED and MASKED name: a read-only transaction lets them pass, and
the policy refuses them all the same.
"""

import collections
import os
import pathlib
import re
import subprocess
import sys

import psycopg

from harvest import HOST, PORT, Server, shape

READS = re.compile(r"\s*(\(\s*)*(select|values|table|with|show|explain)\b", re.IGNORECASE)
# Columns with other columns' values or other sessions' statements leave masked; a cast to a table's row
# type may be one to a domain; `array_in` calls whichever type's input.
MASKED = re.compile(
    r"histogram_bounds|most_common_vals|stxdmcv|pg_cursors|pg_prepared_statements|pg_prepared_xacts|::int8_tbl|"
    r"\barray_in\b",
    re.IGNORECASE,
)
# What a policy that denies `execute`, `set_role`, `notify`, files and what it can't look into refuses.
REFUSED = re.compile(
    r"\b(query_to_xml\w*|cursor_to_xml\w*|schema_to_xml\w*|database_to_xml\w*|ts_stat|ts_rewrite|pg_sleep\w*|"
    r"pg_notify|pg_stat_force_next_flush|pg_stat_clear_snapshot|pg_log_backend_memory_contexts|lo_\w+|loread|pg_ls_\w+|"
    r"pg_\w*file\w*|pg_hba_file_rules|pg_ident_file_mappings|pg_export_snapshot|currtid2?|nextval|setval)\b",
    re.IGNORECASE,
)
TOKEN = re.compile(
    r"--[^\n]*|/\*|\*/|\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(\$\w*\$)|;|\\[^\n]*|[^;]",
    re.DOTALL,
)


def split(text):
    """The statements of a script, without psql's commands and the rows of COPY FROM STDIN."""
    text = re.sub(r"(?im)^(copy\b[^;]*from stdin[^;]*;)\n.*?^\\\.$", r"\1", text, flags=re.DOTALL)
    at, begins, depth = 0, 0, 0
    while at < len(text):
        found = TOKEN.match(text, at)
        token = found[0]
        if found[1]:
            end = text.find(token, found.end())
            at = len(text) if end < 0 else end + len(token)
            continue
        at = found.end()
        depth += {"/*": 1, "*/": -1}.get(token, 0)
        if depth > 0:
            continue
        if token == ";" or token.startswith("\\"):
            if token == ";":
                yield text[begins : at - 1]
            begins = at


def prepare(suite):
    address = ["-h", HOST, "-p", str(PORT), "-U", "postgres"]
    subprocess.run(["psql", *address, "-qc", "create database regress", "postgres"], check=True)
    environment = dict(os.environ, PG_ABS_SRCDIR=str(suite), PG_LIBDIR=".", PG_DLSUFFIX=".so")
    setup = [*address, "-q", "-f", str(suite / "sql/test_setup.sql"), "regress"]
    subprocess.run(["psql", *setup], env=environment, capture_output=True, check=True)
    with psycopg.connect(host=HOST, port=PORT, user="postgres", dbname="regress", autocommit=True) as own:
        own.execute("create role reader login in role pg_read_all_data")
        own.execute(
            "do $$ declare t text; begin "
            "for t in select oid::regtype from pg_type where oid >= 16384 and typtype in ('r', 'e', 'd') loop "
            "execute 'drop type ' || t || ' cascade'; end loop; "
            "for t in select oid::regprocedure from pg_proc where oid >= 16384 loop "
            "execute 'drop function ' || t || ' cascade'; end loop; end $$"
        )


def harmless(connection, text):
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("set transaction read only")
            psycopg.RawCursor(connection).execute(text)
        return True
    except (psycopg.Error, UnicodeError):
        return False


def main():
    suite = pathlib.Path(sys.argv[1]).resolve()
    server, seen, counts = Server(), set(), collections.Counter()
    print("# Statements of PostgreSQL 15.18's regression suite that a reading account must not be refused, as")
    print("# `harvest/regress.py` chose them: statement ;; `-` ;; the suite's file.")
    try:
        prepare(suite)
        address = f"host={HOST} port={PORT} user=reader dbname=regress options='-c statement_timeout=2s'"
        with psycopg.connect(address, autocommit=True) as connection:
            for path in sorted((suite / "sql").glob("*.sql")):
                for text in split(path.read_text(errors="replace")):
                    # Comments between statements are the suite's, not the statement's.
                    text = re.sub(r"^(\s|--[^\n]*\n|/\*([^*]|\*(?!/))*\*/)+", "", text).strip()
                    key = shape(text)
                    odd = len(text) > 1000 or " ;; " in text or "⏎" in text
                    if key in seen or odd or not READS.match(text) or REFUSED.search(text) or MASKED.search(text):
                        continue
                    seen.add(key)
                    counts["tried"] += 1
                    if connection.closed:
                        connection = psycopg.connect(address, autocommit=True)
                    if harmless(connection, text):
                        counts["chosen"] += 1
                        print(text.replace("\n", "⏎"), ";; - ;; regression suite:", path.stem)
    finally:
        server.stop()
    print(dict(counts), file=sys.stderr)


if __name__ == "__main__":
    main()

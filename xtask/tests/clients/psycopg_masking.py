"""Reads a protected table in every way that psycopg has, and prints whatever comes.

Usage: psycopg_masking.py DSN TYPED..   TYPED are values that statements hold.
"""
import sys

import psycopg

dsn, typed = sys.argv[1], sys.argv[2:]
QUERIES = [
    "SELECT * FROM customers",
    "SELECT ssn, card, email, iban, account FROM customers",
    "SELECT c.ssn AS a, c.card AS b FROM customers AS c",
    "SELECT upper(email), ssn || '', substr(card, 1, 12), account + 0 FROM customers",
    "SELECT c FROM customers c",
    "SELECT c::text FROM customers c",
    "SELECT row_to_json(c) FROM customers c",
    "SELECT to_jsonb(c) FROM customers c",
    "SELECT array_agg(ssn), string_agg(card, ','), json_agg(email) FROM customers",
    "SELECT x.s FROM (SELECT ssn AS s FROM customers) x",
    "WITH w AS (SELECT iban, account FROM customers) SELECT * FROM w",
    "SELECT ssn FROM customers UNION ALL SELECT card FROM customers",
    "SELECT CASE WHEN true THEN ssn ELSE name END FROM customers",
    "SELECT coalesce(ssn, name), greatest(card, '') FROM customers",
    "SELECT (SELECT ssn FROM customers WHERE id = o.id) FROM orders o",
    "SELECT o.words, c.* FROM orders o JOIN customers c ON c.id = o.id",
    "SELECT encode(ssn::bytea, 'base64'), md5(card) FROM customers",
    "SELECT reverse(reverse(ssn)) FROM customers",
    "SELECT min(ssn), max(card) FROM customers",
    "SELECT DISTINCT ssn FROM customers",
    "SELECT ssn FROM customers ORDER BY ssn",
    "SELECT name FROM customers GROUP BY name, ssn",
    "SELECT ssn::int FROM customers",
    "SELECT 1/(account - account) FROM customers",
    "SELECT number FROM people",
    "SELECT * FROM people",
    "SELECT * FROM named",
    "SELECT * FROM everybody()",
    "SELECT everybody()",
    "SELECT * FROM parted",
    "SELECT ssn FROM parted_1",
    "TABLE customers",
    "SELECT query_to_xml('SELECT * FROM customers', true, false, '')",
    "SELECT table_to_xml('customers', true, false, '')",
    "SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'customers'",
    "SELECT query FROM pg_stat_activity",
    "INSERT INTO customers SELECT id + 1000, name, ssn || 'x', card, email, iban, account "
    "FROM customers WHERE id = 1 RETURNING *",
    "UPDATE customers SET name = name WHERE id < 50 RETURNING ssn, card, email, iban, account",
    "DELETE FROM customers WHERE id = 199 RETURNING *",
    "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM customers",
]


def attempt(what, action):
    """One way in a transaction of its own; errors are what a client receives, too."""
    with psycopg.connect(dsn) as conn:
        notices = []
        conn.add_notice_handler(lambda said: notices.append((said.message_primary, said.message_detail)))
        try:
            print(what, repr(action(conn)))
        except psycopg.Error as error:
            said = error.diag
            print(what, repr((str(error), said.message_detail, said.message_hint, said.context)))
        conn.rollback()
        print(notices)


def query(text, binary, prepare):
    def action(conn):
        with conn.cursor(binary=binary) as cur:
            return cur.execute(text, prepare=prepare).fetchall()
    return action


def server_cursor(conn):
    with conn.cursor("named") as cur:
        cur.execute("SELECT ssn, card, email, iban, account FROM customers")
        return cur.fetchmany(7), cur.fetchall()


def sql_cursor(conn):
    conn.execute("DECLARE c CURSOR FOR SELECT * FROM customers")
    first = conn.execute("FETCH 3 FROM c").fetchall()
    with conn.cursor(binary=True) as cur:
        return first, cur.execute("FETCH ALL FROM c").fetchall()


def sql_prepared(conn):
    conn.execute("PREPARE p (int) AS SELECT ssn, card FROM customers WHERE id > $1")
    return conn.execute("EXECUTE p (3)").fetchall()


def pipeline(conn):
    with conn.pipeline():
        cursors = [conn.execute("SELECT ssn, account FROM customers WHERE id = %s", [n]) for n in range(9)]
    return [cur.fetchall() for cur in cursors]


def copy(text):
    def action(conn):
        with conn.cursor() as cur, cur.copy(text) as out:
            return [bytes(data) for data in out]
    return action


def notify(conn):
    conn.autocommit = True
    conn.execute("LISTEN told")
    for text in ("SELECT pg_notify('told', ssn) FROM customers",
                 "SELECT pg_notify('told', c.card) FROM customers c"):
        try:
            conn.execute(text)
        except psycopg.Error as error:
            print(error)
    return [n.payload for n in conn.notifies(timeout=0.5)]


for text in QUERIES:
    for binary in (False, True):
        for prepare in (False, True):
            attempt(text, query(text, binary, prepare))
attempt("server cursor", server_cursor)
attempt("sql cursor", sql_cursor)
attempt("sql prepared", sql_prepared)
attempt("pipeline", pipeline)
for form in ("text", "csv", "binary"):
    attempt("copy table", copy(f"COPY customers TO STDOUT (FORMAT {form})"))
    attempt("copy columns", copy(f"COPY customers (ssn, iban) TO STDOUT (FORMAT {form})"))
    attempt("copy query", copy(f"COPY (SELECT * FROM customers) TO STDOUT (FORMAT {form})"))
    attempt("copy cte", copy(f"COPY (WITH w AS (SELECT card FROM customers) TABLE w) TO STDOUT (FORMAT {form})"))
attempt("copy quoted", copy("COPY customers TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *, DELIMITER ';')"))
attempt("notify", notify)

# What statements hold is not to be recorded; the client knows it already.
values = iter(typed)
for text in (
    "SELECT name FROM customers WHERE ssn = '{}'",
    "SELECT name FROM customers WHERE ssn IN ('{}', 'x')",
    "UPDATE customers SET ssn = '{}' WHERE id = 3",
    "INSERT INTO customers (id, ssn) VALUES (5000, '{}')",
    "INSERT INTO customers VALUES (5001, 'n', '{}', 'c', 'e', 'i', 1)",
    "SELECT name FROM people WHERE number = '{}'",
    "SELEKT '{}' FROM customers",
    "SELECT ssn = '{}' FROM customers",
    "DO $$ BEGIN PERFORM 1 FROM customers WHERE ssn = '{}'; END $$",
    "PREPARE q AS SELECT name FROM customers WHERE ssn = '{}'",
    "DECLARE c CURSOR FOR SELECT name FROM customers WHERE ssn LIKE '{}%'",
    "COPY (SELECT name FROM customers WHERE ssn = '{}') TO STDOUT",
    "WITH w AS (SELECT '{}'::text AS t) SELECT name FROM customers, w WHERE ssn = t",
    "SELECT name FROM customers WHERE ssn = 'a' -- '",
    "EXPLAIN SELECT name FROM customers WHERE ssn = '{}'",
    "MERGE INTO customers c USING orders o ON c.id = o.id AND c.ssn = '{}' WHEN MATCHED THEN DO NOTHING",
):
    statement = text.format(next(values))
    # Not in `with`: what psycopg leaves unfinished (a COPY by execute) goes with its connection.
    conn = psycopg.connect(dsn)
    try:
        conn.execute(statement)
    except psycopg.Error:
        pass
    conn.close()
for text in (
    "SELECT name FROM customers WHERE ssn = %s",
    "UPDATE customers SET ssn = %s WHERE id = 3",
    "INSERT INTO customers (id, ssn) VALUES (5000, %s)",
    "SELECT name FROM customers WHERE ssn = %s::text || ''",
):
    for binary in (False, True):
        with psycopg.connect(dsn) as conn:
            try:
                cursor = conn.cursor(binary=binary)
                cursor.execute(text.replace("%s", "%b") if binary else text, [next(values)], prepare=True)
            except psycopg.Error:
                pass
            conn.rollback()
print("done")

"""Reads a protected table with three drivers in their ways, and prints whatever comes; then how many rows were seen.

Usage: mysql_canary.py PORT USER PASSWORD TYPED..   TYPED are values that statements hold.
"""
import itertools
import sys

import mariadb
import mysql.connector
import pymysql
from mariadb.constants import CURSOR

port, user, password, typed = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
where = dict(host="127.0.0.1", port=port, user=user, password=password, database="app")
QUERIES = [
    "SELECT * FROM customers",
    "SELECT ssn, card, email, iban, account FROM customers",
    "SELECT c.ssn AS a, concat(c.card, '') AS b, c.account + 1 FROM customers c",
    "SELECT number FROM people",
    "SELECT group_concat(ssn), max(account) FROM customers",
    "SELECT json_object('all', iban) FROM customers",
    "SELECT ssn FROM customers UNION ALL SELECT email FROM customers",
    "SELECT number_of(7)",
    "CALL everybody()",
    "INSERT INTO customers (id, ssn) SELECT id + 5000, ssn FROM customers WHERE id = 1 RETURNING ssn",
    "DELETE FROM customers WHERE id >= 5000 RETURNING *",
]
seen = 0


def attempt(what, work):
    """Prints all rows, or the error with all that the driver knows of it."""
    global seen
    try:
        for row in work():
            seen += 1
            print(what, row)
    except (pymysql.err.MySQLError, mysql.connector.Error, mariadb.Error) as error:
        print(what, "error", error.args, getattr(error, "msg", ""))


def plain(cursor, *statement):
    cursor.execute(*statement)
    return cursor.fetchall() if cursor.description else []


lines = pymysql.connect(autocommit=True, **where)
streamed = pymysql.connect(autocommit=True, cursorclass=pymysql.cursors.SSDictCursor, **where)
pure = mysql.connector.connect(use_pure=True, ssl_disabled=True, autocommit=True, **where)
native = mariadb.connect(autocommit=True, **where)
# Words of their own, so that results in text and in binary can be told apart in what is printed.
for query in QUERIES:
    attempt("pymysql", lambda: plain(lines.cursor(), query))
    with streamed.cursor() as cursor:
        attempt("streamed", lambda: plain(cursor, query))
    for prepared in [False, True]:
        cursor = pure.cursor(prepared=prepared)
        attempt("connector", lambda: plain(cursor, query))
        cursor.close()
    for settings in [{}, {"binary": True}, {"binary": True, "cursor_type": CURSOR.READ_ONLY, "prefetch_size": 7}]:
        if "cursor_type" in settings and "RETURNING" in query:
            continue  # MariaDB 10.11 itself crashes at a cursor over what DELETE returns.
        cursor = native.cursor(**settings)
        attempt("mariadb", lambda: plain(cursor, query))
        cursor.close()

for at, value in zip(itertools.count(7000), typed):
    for statement in [
        f"SELECT name FROM customers WHERE ssn = '{value}'",
        f"SELECT ssn = '{value}', '{value}' = ssn FROM customers WHERE id = 1",
        f"SELECT nullif(ssn, \"{value}\"), if(ssn IN ('{value}'), 1, 2) FROM customers WHERE id = 1",
        f"INSERT INTO customers (id, ssn) VALUES ({at}, '{value}')",
        f"INSERT INTO customers (id, ssn) VALUES ({at}, '{value}')",
        f"UPDATE customers SET ssn = '{value}' WHERE id = {at}",
        f"REPLACE INTO customers (id, ssn) VALUES ({at}, concat('', '{value}'))",
        f"PREPARE p FROM 'UPDATE customers SET ssn = ''{value}'' WHERE id = {at}'",
        f"EXECUTE IMMEDIATE 'SELECT ssn = ''{value}'' FROM customers'",
        f"SET STATEMENT max_statement_time = 9 FOR UPDATE customers SET ssn = '{value}' WHERE id = {at}",
    ]:
        attempt("typed", lambda: plain(lines.cursor(), statement))
    for statement in [
        "INSERT INTO customers (id, ssn) VALUES (%s, %s) ON DUPLICATE KEY UPDATE name = 'twice'",
        "SELECT name FROM customers WHERE id = %s OR ssn = %s",
    ]:
        attempt("typed", lambda: plain(lines.cursor(), statement, (at, value)))
        cursor = pure.cursor(prepared=True)
        attempt("parameter", lambda: plain(cursor, statement, (at, value)))
        cursor.close()
    cursor = native.cursor(binary=True)
    attempt("parameter", lambda: plain(cursor, "SELECT ssn <=> ? FROM customers WHERE id = 2", (value,)))
    cursor.close()
rows = [(at, value) for at, value in zip(itertools.count(8000), typed)]
attempt("bulk", lambda: native.cursor().executemany("INSERT INTO customers (id, ssn) VALUES (?, ?)", rows) or [])
attempt("many", lambda: lines.cursor().executemany("UPDATE customers SET ssn = concat(%s, %s)", [(value, at) for at, value in rows]) and [])
attempt("many", lambda: lines.cursor().executemany("INSERT INTO customers (id, ssn) VALUES (%s + 500, %s)", rows) and [])
print("rows seen:", seen)

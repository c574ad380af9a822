"""Reads protected columns with two drivers in all of their ways; prints what came, one line each."""
import sys

import mysql.connector
import pymysql

port, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
SELECTS = [
    "SELECT * FROM customers ORDER BY id",
    "SELECT id, ssn, card, email, account FROM customers ORDER BY id",
    "SELECT c.ssn AS number, upper(c.email) FROM customers c ORDER BY c.id",
    "SELECT number, id FROM people ORDER BY id",
    "WITH x AS (SELECT ssn AS s FROM customers) SELECT s FROM x",
    "SELECT ssn FROM customers UNION ALL SELECT name FROM customers",
    "SELECT group_concat(ssn) FROM customers",
]


def show(label, rows):
    for row in rows:
        print(label, "|".join("" if value is None else str(value) for value in row))


lines = pymysql.connect(host="127.0.0.1", port=port, user=user, password=password, database="app")
with lines, lines.cursor() as cursor:
    for select in SELECTS:
        cursor.execute(select)
        show("pymysql", cursor.fetchall())
    for refused in ["SELECT number_of(1)", "SELECT @x", "CALL everybody()"]:
        try:
            cursor.execute(refused)
            show("pymysql", cursor.fetchall())
        except pymysql.err.MySQLError as error:
            print("refused", refused, error.args[0], error.args[1])
    cursor.execute("SELECT 'alive'")
    show("pymysql", cursor.fetchall())

arguments = dict(host="127.0.0.1", port=port, user=user, password=password, database="app")
connection = mysql.connector.connect(use_pure=True, ssl_disabled=True, **arguments)
for select in SELECTS:
    cursor = connection.cursor()
    cursor.execute(select)
    show("connector", cursor.fetchall())
    cursor.close()
    prepared = connection.cursor(prepared=True)
    prepared.execute(select)
    show("prepared", prepared.fetchall())
    prepared.close()
prepared = connection.cursor(prepared=True)
prepared.execute("SELECT id, ssn FROM customers WHERE id = %s", (1,))
show("parameter", prepared.fetchall())
prepared.close()
connection.close()
print("done")

"""MySQL Connector/Python, unmodified: TLS by itself, prepared statements, cursors. Prints "ok"."""

import sys
from datetime import datetime
from decimal import Decimal

import mysql.connector
from mysql.connector import errorcode

port, tls = int(sys.argv[1]), sys.argv[2] == "tls"

connection = mysql.connector.connect(
    host="127.0.0.1", port=port, user="app", password="app-lab-password", database="app",
    use_pure=True, ssl_disabled=not tls,
)
cursor = connection.cursor()
cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
cursor.fetchall()
prepared = connection.cursor(prepared=True)
for n in range(100, 120):
    prepared.execute("INSERT INTO notes (id, note) VALUES (?, ?)", (n, f"note {n}"))
prepared.execute("SELECT id, note FROM notes WHERE id >= ? ORDER BY id", (100,))
rows = prepared.fetchall()
assert len(rows) == 20 and rows[0] == (100, "note 100"), rows
prepared.execute(
    "SELECT ?, ?, ?, ?, ?",
    (7, 1.5, Decimal("12.34"), datetime(2026, 2, 28, 23, 59, 1), None),
)
row = prepared.fetchall()[0]
assert row[0] == 7 and row[1] == 1.5 and row[4] is None, row
connection.commit()
try:
    prepared.execute("DELETE FROM notes WHERE ? = ?", (1, 1))
except mysql.connector.Error as error:
    assert error.errno == errorcode.ER_TABLEACCESS_DENIED_ERROR, error
    assert "refused by tidegate" in error.msg, error
else:
    raise AssertionError("not refused")
prepared.close()
cursor = connection.cursor(buffered=True)
cursor.execute("SELECT count(*) FROM notes WHERE id >= 100")
assert cursor.fetchone() == (20,)
connection.cmd_change_user("app", "app-lab-password", "app")
connection.cmd_reset_connection()
cursor = connection.cursor(buffered=True)
cursor.execute("SELECT database(), connection_id()")
assert cursor.fetchone() == ("app", connection.connection_id)
connection.close()
print("ok")

"""MySQL Connector/Python, unmodified, against MySQL 9: query attributes, prepared statements with and without cursor, a
change of user, a reset. Arguments: the port, the password, "pure" or "c", and TLS "on" or "off". Prints "ok"."""

import sys

import mysql.connector
from mysql.connector import errorcode

port, password, implementation, tls = sys.argv[1:5]

connection = mysql.connector.connect(
    host="127.0.0.1", port=int(port), user="app", password=password, database="app",
    use_pure=implementation == "pure", ssl_disabled=tls == "off",
)
if implementation == "c":
    from mysql.connector.connection_cext import CMySQLConnection

    assert isinstance(connection, CMySQLConnection)
cursor = connection.cursor(buffered=True)
cursor.add_attribute("trace", "4711")
cursor.add_attribute("number", 12)
cursor.execute("SELECT note FROM notes WHERE id = %s", (2,))
assert cursor.fetchall() == [("note 2",)]
try:
    cursor.execute("DELETE FROM notes")
except mysql.connector.Error as error:
    assert error.errno == errorcode.ER_TABLEACCESS_DENIED_ERROR, error
    assert "refused by tidegate" in error.msg, error
else:
    raise AssertionError("not refused")
cursor.clear_attributes()
prepared = connection.cursor(prepared=True)
prepared.add_attribute("trace", "4712")
for n in range(100, 120):
    prepared.execute("INSERT INTO notes (id, note) VALUES (?, ?)", (n, f"note {n}"))
prepared.execute("SELECT id, note FROM notes WHERE id >= ? ORDER BY id", (100,))
rows = prepared.fetchall()
assert len(rows) == 20 and rows[0] == (100, "note 100"), rows
prepared.close()
connection.commit()
connection.cmd_change_user("app", password, "app")
connection.cmd_reset_connection()
cursor = connection.cursor(buffered=True)
cursor.execute("SELECT count(*), database(), connection_id() FROM notes")
assert cursor.fetchone() == (23, "app", connection.connection_id)
connection.close()
print("ok")

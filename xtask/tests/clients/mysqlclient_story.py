"""mysqlclient (MariaDB's library in C under Python), unmodified. Arguments: the port, then "plain" or "compressed".
Prints "ok"."""

import sys

import MySQLdb
import MySQLdb.cursors

port, compressed = int(sys.argv[1]), sys.argv[2] == "compressed"

connection = MySQLdb.connect(
    host="127.0.0.1", port=port, user="app", password="app-lab-password", database="app",
    charset="utf8mb4", **({"compress": True} if compressed else {}),
)
cursor = connection.cursor()
cursor.execute("SHOW STATUS LIKE 'Compression'")
assert cursor.fetchone() == ("Compression", "ON" if compressed else "OFF")
cursor.executemany("INSERT INTO notes VALUES (%s, %s)", [(n, f"größe {n}") for n in range(100, 200)])
assert cursor.rowcount == 100
connection.commit()
# SQL's own prepared statements: this driver has no others.
cursor.execute("PREPARE one FROM 'SELECT note FROM notes WHERE id = ?'")
cursor.execute("SET @id = 150")
cursor.execute("EXECUTE one USING @id")
assert cursor.fetchall() == (("größe 150",),)
cursor.execute("DEALLOCATE PREPARE one")
try:
    cursor.execute("DELETE FROM notes")
except MySQLdb.MySQLError as error:
    assert error.args[0] == 1142 and "refused by tidegate" in error.args[1], error
else:
    raise AssertionError("not refused")
data = bytes(range(256)) * 8192
cursor.execute("INSERT INTO blobs VALUES (1, %s)", (data,))
cursor.execute("SELECT data FROM blobs WHERE id = 1")
assert cursor.fetchone() == (data,)
connection.commit()
stream = connection.cursor(MySQLdb.cursors.SSCursor)
stream.execute("SELECT a.id FROM notes a, notes b")
assert sum(1 for _ in stream) == 103**2
stream.close()
connection.ping()
connection.select_db("app")
cursor.execute("SELECT count(*), database() FROM notes")
assert cursor.fetchone() == (103, "app")
connection.close()
print("ok")

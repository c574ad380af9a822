"""MariaDB Connector/Python, unmodified, against MySQL: prepared statements with server-side cursors, a refusal, a change of
user. Arguments: the port. Prints "ok"."""

import sys

import mariadb
from mariadb.constants import CURSOR

connection = mariadb.connect(
    host="127.0.0.1", port=int(sys.argv[1]), user="app", password="app-lab-password", database="app",
)
for prefetch in [1, 2, 10]:
    reader = connection.cursor(cursor_type=CURSOR.READ_ONLY, prefetch_size=prefetch, binary=True)
    reader.execute("SELECT id, note FROM notes WHERE id >= ? ORDER BY id", (1,))
    assert list(reader) == [(1, "note 1"), (2, "note 2"), (3, "note 3")]
    reader.close()
cursor = connection.cursor()
try:
    cursor.execute("DELETE FROM notes WHERE ? = ?", (1, 1))
except mariadb.Error as error:
    assert error.errno == 1142 and "refused by tidegate" in str(error), error
else:
    raise AssertionError("not refused")
connection.change_user("app", "app-lab-password", "app")
connection.reset()
cursor = connection.cursor()
cursor.execute("SELECT count(*), database() FROM notes")
assert cursor.fetchone() == (3, "app")
connection.close()
print("ok")

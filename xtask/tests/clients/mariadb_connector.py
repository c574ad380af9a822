"""MariaDB Connector/Python (MariaDB's library in C), unmodified: bulk execution, server-side cursors, a change of user.
Arguments: the port. Prints "ok"."""

import sys

import mariadb
from mariadb.constants import CURSOR, INDICATOR

connection = mariadb.connect(
    host="127.0.0.1", port=int(sys.argv[1]), user="app", password="app-lab-password", database="app",
    ssl=False,
)
cursor = connection.cursor()
# More than one row is one COM_STMT_BULK_EXECUTE.
rows = [(n, f"note {n}") for n in range(100, 200)] + [(200, None), (201, INDICATOR.NULL)]
cursor.executemany("INSERT INTO notes (id, note) VALUES (?, ?)", rows)
assert cursor.rowcount == 102, cursor.rowcount
connection.commit()
prepared = connection.cursor(prepared=True)
for n in range(100, 120):
    prepared.execute("SELECT note FROM notes WHERE id = ?", (n,))
    assert prepared.fetchall() == [(f"note {n}",)], n
prepared.close()
for text in ["DELETE FROM notes", "DELETE FROM notes WHERE ? = ?"]:
    try:
        cursor.execute(text, (1, 1) if "?" in text else ())
    except mariadb.Error as error:
        assert error.errno == 1142 and "refused by tidegate" in str(error), error
    else:
        raise AssertionError("not refused: " + text)
reader = connection.cursor(cursor_type=CURSOR.READ_ONLY, prefetch_size=10, binary=True)
reader.execute("SELECT id, note FROM notes WHERE id >= ? ORDER BY id", (100,))
assert [row[0] for row in reader] == list(range(100, 202))
reader.close()
connection.change_user("app", "app-lab-password", "app")
connection.reset()
cursor = connection.cursor()
cursor.execute("SELECT count(*), database() FROM notes")
assert cursor.fetchone() == (105, "app")
connection.close()
print("ok")

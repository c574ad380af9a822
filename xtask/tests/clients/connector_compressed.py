"""MySQL Connector/Python, unmodified, over a compressed connection: large values both ways, prepared statements, a local
file, a refusal. Arguments: the port, a file to load, the password, and who compresses what ("pure" or "c", then what
SHOW STATUS must say the algorithm is, or "-"). Prints "ok"."""

import sys

import mysql.connector
from mysql.connector import errorcode

port, file, password, implementation, algorithm = sys.argv[1:6]
LARGE = 20 * 1024 * 1024

connection = mysql.connector.connect(
    host="127.0.0.1", port=int(port), user="app", password=password, database="app",
    use_pure=implementation == "pure", compress=True, allow_local_infile=True,
)
cursor = connection.cursor(buffered=True)
cursor.execute("SHOW STATUS LIKE 'Compression'")
assert cursor.fetchone() == ("Compression", "ON")
if algorithm != "-":
    cursor.execute("SHOW STATUS LIKE 'Compression_algorithm'")
    row = cursor.fetchone()
    assert row == ("Compression_algorithm", algorithm), row
for text in ["DELETE FROM notes", "DELETE FROM notes WHERE note = '" + "long " * 100 + "'"]:
    try:
        cursor.execute(text)
    except mysql.connector.Error as error:
        assert error.errno == errorcode.ER_TABLEACCESS_DENIED_ERROR, error
        assert "refused by tidegate" in error.msg, error
    else:
        raise AssertionError("not refused")
# A part that packs well, and one that packs badly.
state, noise = 1, bytearray()
while len(noise) < 1024 * 1024:
    state = state * 6364136223846793005 + 1442695040888963407 & 0xFFFFFFFFFFFFFFFF
    noise += state.to_bytes(8, "big").hex().encode()
large = (bytes(noise) + bytes(19 * 1024 * 1024))[:LARGE]
cursor.execute("INSERT INTO blobs VALUES (1, %s)", (large,))
cursor.execute("SELECT data FROM blobs WHERE id = 1")
assert cursor.fetchone() == (large,)
prepared = connection.cursor(prepared=True)
prepared.execute("INSERT INTO blobs VALUES (?, ?)", (2, large[:100_000]))
prepared.execute("SELECT id, data FROM blobs WHERE id = ?", (2,))
row = prepared.fetchall()[0]
assert row[0] == 2 and bytes(row[1]) == large[:100_000]
connection.commit()
cursor.execute(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE notes")
assert cursor.rowcount == 50_000, cursor.rowcount
connection.commit()
cursor.execute("SELECT count(*), sum(length(note)) FROM notes")
count, length = cursor.fetchone()
assert count == 50_003, count
cursor.execute("SELECT id, note FROM notes ORDER BY id")
rows = cursor.fetchall()
assert len(rows) == count and sum(len(note) for _, note in rows) == length
connection.cmd_reset_connection()
cursor = connection.cursor(buffered=True)
cursor.execute("SHOW STATUS LIKE 'Compression'")
assert cursor.fetchone() == ("Compression", "ON")
connection.ping()
connection.close()
print("ok")

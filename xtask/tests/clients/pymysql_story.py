"""PyMySQL, unmodified: text protocol, multi-statements, a refusal, large values. Prints "ok"."""

import sys

import pymysql
from pymysql.constants import CLIENT

port = int(sys.argv[1])


def connect(**more):
    return pymysql.connect(
        host="127.0.0.1", port=port, user="app", password="app-lab-password", database="app", **more
    )


def refused(cursor, text):
    try:
        cursor.execute(text)
    except pymysql.err.MySQLError as error:
        number, message = error.args
        assert number == 1142 and message.startswith("refused by tidegate: "), error
        return
    raise AssertionError("not refused: " + text)


with connect(client_flag=CLIENT.MULTI_STATEMENTS) as connection:
    cursor = connection.cursor()
    cursor.execute("INSERT INTO notes (id, note) VALUES (%s, %s)", (10, "größe \\ ' \" `"))
    cursor.execute("SELECT note FROM notes WHERE id = %s", (10,))
    assert cursor.fetchone() == ("größe \\ ' \" `",)
    cursor.executemany("INSERT INTO notes VALUES (%s, %s)", [(n, "x" * n) for n in range(20, 40)])
    assert cursor.rowcount == 20
    connection.commit()
    refused(cursor, "DELETE FROM notes")
    refused(cursor, "SELECT 1; DELETE FROM notes; SELECT 2")
    refused(cursor, "/*!50000 DELETE FROM notes */")
    refused(cursor, "/*M! DROP TABLE notes */")
    cursor.execute("SELECT 1; SELECT 2; UPDATE notes SET note = 'y' WHERE id = 20")
    assert cursor.fetchall() == ((1,),)
    assert cursor.nextset() and cursor.fetchall() == ((2,),)
    assert cursor.nextset() and cursor.rowcount == 1 and not cursor.nextset()
    connection.rollback()
    cursor.execute("SELECT count(*) FROM notes")
    assert cursor.fetchone() == (24,)
    connection.select_db("app")
    connection.ping(reconnect=False)
    cursor.execute("INSERT INTO blobs VALUES (1, %s)", (bytes(range(256)) * 4096,))
    cursor.execute("SELECT data FROM blobs WHERE id = 1")
    assert cursor.fetchone() == (bytes(range(256)) * 4096,)
    connection.commit()
    stream = pymysql.cursors.SSCursor(connection)
    stream.execute("SELECT a.id FROM notes a, notes b, notes c")
    assert sum(1 for _ in stream) == 24**3
print("ok")

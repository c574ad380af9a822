"""PyMySQL, unmodified: KILL QUERY from a second connection ends what the first one runs. Prints "ok"."""

import sys
import threading
import time

import pymysql


def connect():
    return pymysql.connect(
        host="127.0.0.1", port=int(sys.argv[1]), user="app", password="app-lab-password"
    )


killed = connect()
ended = []


def run():
    cursor = killed.cursor()
    try:
        cursor.execute("SELECT SLEEP(60)")
        ended.append("not interrupted")
    except pymysql.err.OperationalError as error:
        ended.append(error.args[0])


with connect() as killer:
    thread = threading.Thread(target=run)
    thread.start()
    cursor = killer.cursor()
    for _ in range(600):
        cursor.execute("SHOW PROCESSLIST")
        if any(row[0] == killed.thread_id() and row[7] == "SELECT SLEEP(60)" for row in cursor):
            break
        time.sleep(0.05)
    cursor.execute(f"KILL QUERY {killed.thread_id()}")
    thread.join(30)
    assert ended == [1317], ended
    killer.kill(killed.thread_id())
print("ok")

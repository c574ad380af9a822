"""Runs each statement of a file (JSON, one a line) in two databases that differ in protected values alone, and
prints each that a client can tell apart; then how many were answered, refused and withheld."""
import collections
import json
import sys

import pymysql

port, password = int(sys.argv[1]), sys.argv[2]
DATABASES = ["alphadb", "omegadb"]


def connect(database):
    return pymysql.connect(
        host="127.0.0.1", port=port, user="app", password=password, database=database, autocommit=False
    )


def seen(connection, database, statement):
    """All that a client can see of the answer."""
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        columns = [field[0] for field in cursor.description or []]
        rows = sorted(repr(row).replace(database, "DB") for row in cursor.fetchall())
        answer = {
            "columns": columns, "rows": rows, "count": cursor.rowcount,
            "warnings": cursor._result.warning_count if cursor._result else None,
        }
    except pymysql.err.MySQLError as error:
        answer = {"error": [str(part).replace(database, "DB") for part in error.args]}
    finally:
        cursor.close()
    connection.rollback()
    return answer


connections = {database: connect(database) for database in DATABASES}
told, differing = collections.Counter(), 0
for line in open(sys.argv[3]):
    statement = json.loads(line)
    answers = [seen(connections[database], database, statement) for database in DATABASES]
    error = " ".join(answers[0].get("error", []))
    if not error:
        told["answered"] += 1
        if any("****" in row for row in answers[0]["rows"]):
            told["masked"] += 1
    elif "refused by tidegate" in error:
        told["refused"] += 1
    elif "withheld" in error:
        told["withheld"] += 1
    else:
        told["failed"] += 1
        told["error " + error.split(" ")[0]] += 1
    if answers[0] != answers[1]:
        differing += 1
        if differing <= 20:
            print("DIFFERS", statement, json.dumps(answers)[:600], sep="\n    ")
print(json.dumps(told))
print("differing:", differing)

# Stories of psycopg through the gate: `python3 - STORY DSN` prints "ok" when all was as it must.
import sys
import threading

import psycopg


def pipeline(dsn):
    with psycopg.connect(dsn) as conn:
        try:
            with conn.pipeline():
                conn.execute("INSERT INTO numbers VALUES (-1)")
                conn.execute("DELETE FROM numbers")
                conn.execute("INSERT INTO numbers VALUES (-2)")
            raise AssertionError("the pipeline did not fail")
        except psycopg.errors.InsufficientPrivilege as error:
            assert error.sqlstate == "42501"
        conn.rollback()
        count = conn.execute("SELECT count(*) FROM numbers WHERE n < 0").fetchone()
        assert count == (0,), count
        conn.commit()
    # Without a transaction block: what one Sync spans is one transaction.
    with psycopg.connect(dsn, autocommit=True) as conn:
        try:
            with conn.pipeline() as pipe:
                conn.execute("INSERT INTO numbers VALUES (-3)")
                pipe.sync()
                conn.execute("INSERT INTO numbers VALUES (-4)")
                conn.execute("DELETE FROM numbers")
                conn.execute("INSERT INTO numbers VALUES (-5)")
            raise AssertionError("the pipeline did not fail")
        except psycopg.errors.InsufficientPrivilege:
            pass
        rows = conn.execute("SELECT n FROM numbers WHERE n < 0").fetchall()
        assert rows == [(-3,)], rows


def cursor(dsn):
    with psycopg.connect(dsn) as conn:
        with conn.cursor(name="pieces") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT n FROM numbers ORDER BY n")
            assert [row[0] for row in cursor] == list(range(1, 1001))
        with conn.cursor() as cursor:
            rows = [row[0] for row in cursor.stream("SELECT n FROM numbers ORDER BY n")]
            assert rows == list(range(1, 1001))


def prepared(dsn):
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=2) as conn:
        for n in range(1, 21):
            row = conn.execute("SELECT n FROM numbers WHERE n = %s", (str(n),)).fetchone()
            assert row == (n,), row
        try:
            conn.execute("DELETE FROM numbers", prepare=True)
            raise AssertionError("the DELETE was not refused")
        except psycopg.errors.InsufficientPrivilege as error:
            assert error.diag.message_primary
        assert conn.execute("SELECT 1").fetchone() == (1,)


def cancel(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        timer = threading.Timer(0.5, conn.cancel)
        timer.start()
        try:
            conn.execute("SELECT pg_sleep(60)")
            raise AssertionError("nothing was cancelled")
        except psycopg.errors.QueryCanceled:
            pass
        timer.join()
        assert conn.execute("SELECT 1").fetchone() == (1,)


def large_rows(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        size = 8 * 1024 * 1024
        for binary in (False, True):
            value = conn.cursor(binary=binary).execute(
                "SELECT decode(repeat('ab', %s), 'hex')", (size,)
            ).fetchone()[0]
            assert len(value) == size and set(value) == {0xAB}
        # A statement longer than what is analysed is unknown, and so refused; the session lives on.
        row = conn.execute("SELECT length(%s)", ("x" * size,)).fetchone()
        assert row == (size,), row


def copy(dsn):
    with psycopg.connect(dsn) as conn:
        with conn.cursor() as cursor:
            with cursor.copy("COPY numbers FROM STDIN") as sink:
                for n in range(1000):
                    sink.write_row((6000 + n,))
            with cursor.copy("COPY numbers TO STDOUT (FORMAT binary)") as source:
                source.set_types(["int4"])
                total = sum(row[0] for row in source.rows())
            assert total == sum(range(1, 1001)) + sum(range(6000, 7000)), total


name, dsn = sys.argv[1:]
globals()[name](dsn)
print("ok")

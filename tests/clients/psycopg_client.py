"""psycopg 3: parameters, binary rows, prepared statements, server-side cursors, COPY, savepoints, over TLS with a token."""

import datetime
import os

import psycopg


def check(holds, what):
    if not holds:
        raise AssertionError(what)
    print("ok", what)


def connect():
    return psycopg.connect(
        host="localhost",
        port=os.environ["CAIRN_POSTGRES_PORT"],
        user="analyst",
        password=os.environ["CAIRN_TOKEN"],
        dbname="cairn",
        sslmode="verify-full",
        sslrootcert=os.environ["CAIRN_ROOT"],
    )


def values(connection, expected):
    rows = connection.execute("SELECT n FROM test.reading ORDER BY n").fetchall()
    check([n for (n,) in rows] == list(range(expected)), f"{len(rows)} rows, each one once")
    since = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    counting = "SELECT count(*) FROM test.reading WHERE n < %s AND sensor <> %s AND at > %s AND _partition = ANY(%s)"
    for bound in [10, 100, 200, 300, 400, 500, 600]:
        found = connection.execute(counting, (bound, "nobody's", since, [0, 1, 2, 3])).fetchone()
        check(found == (bound,), f"count of {bound}")
    for stream in ["traffic.flow", "energy.meter_reading", "emergency.incident", "cairn.anchors"]:
        text = connection.execute(f"SELECT * FROM {stream} LIMIT 50").fetchall()
        binary = connection.cursor(binary=True).execute(f"SELECT * FROM {stream} LIMIT 50").fetchall()
        check(len(text) > 0 and len(text) == len(binary), f"{len(text)} rows of {stream}, as text and binary")


def transactions(connection, expected):
    connection.rollback()
    with connection.transaction():
        height = connection.execute("SELECT cairn_height()").fetchone()
        try:
            with connection.transaction():
                connection.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            pass
        check(connection.execute("SELECT cairn_height()").fetchone() == height, "an error goes back to a savepoint")
        with connection.cursor(name="readings") as cursor:
            cursor.itersize = 64
            cursor.execute("SELECT n FROM test.reading ORDER BY n")
            check(sum(1 for _ in cursor) == expected, "a cursor on the server, in pieces")


def copy(connection, expected):
    with connection.cursor() as cursor:
        with cursor.copy("COPY (SELECT n, note, value FROM test.reading ORDER BY n) TO STDOUT") as rows:
            found = list(rows.rows())
        check(len(found) == expected and found[0] == ("0", "note, 0", None), f"COPY: {found[:2]}")
        with cursor.copy("COPY test.reading (n, note) TO STDOUT (FORMAT csv, HEADER)") as lines:
            text = b"".join(bytes(line) for line in lines).decode()
        check(text.splitlines()[0] == "n,note" and '"note, 3"' in text, "COPY as CSV")
        try:
            with cursor.copy("COPY (SELECT 1 / n FROM test.reading) TO STDOUT") as lines:
                list(lines)
            raise AssertionError("a COPY that fails ends as if it were all")
        except psycopg.errors.DivisionByZero as error:
            check(True, f"a COPY that fails says so: {error}")


with connect() as connection:
    rows = int(os.environ["CAIRN_ROWS"])
    values(connection, rows)
    transactions(connection, rows)
    copy(connection, rows)

"""ADBC's Flight SQL driver with pyarrow: catalogue, rows as Arrow, parameters, settings, over TLS with a token."""

import os

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import pyarrow as pa


def check(holds, what):
    if not holds:
        raise AssertionError(what)
    print("ok", what)


def connect():
    with open(os.environ["CAIRN_ROOT"], encoding="ascii") as file:
        root = file.read()
    options = adbc_driver_flightsql.DatabaseOptions
    return flight_sql.connect(
        f"grpc+tls://localhost:{os.environ['CAIRN_FLIGHT_PORT']}",
        db_kwargs={
            options.AUTHORIZATION_HEADER.value: f"Bearer {os.environ['CAIRN_TOKEN']}",
            options.TLS_ROOT_CERTS.value: root,
        },
        autocommit=True,
    )


def catalogue(connection):
    info = connection.adbc_get_info()
    check(info["vendor_name"] == "Cairn", f"vendor {info}")
    check(sorted(connection.adbc_get_table_types()) == ["SYSTEM TABLE", "TABLE"], "types of tables")
    objects = connection.adbc_get_objects(depth="all", db_schema_filter="test").read_all().to_pylist()
    check([found["catalog_name"] for found in objects] == ["cairn"], "the catalogue")
    [schema] = objects[0]["catalog_db_schemas"]
    [table] = schema["db_schema_tables"]
    columns = [column["column_name"] for column in table["table_columns"]]
    check(table["table_name"] == "reading" and columns[:5] == ["n", "sensor", "at", "value", "note"], f"{columns}")
    schema = connection.adbc_get_table_schema("reading", db_schema_filter="test")
    check(schema.field("n").type == pa.int64() and schema.field("note").type == pa.string(), "a table's schema")


def rows(connection, expected):
    with connection.cursor() as cursor:
        cursor.execute("SELECT n, sensor, at, value, note FROM test.reading ORDER BY n")
        table = cursor.fetch_arrow_table()
        check(table.column("n").to_pylist() == list(range(expected)), f"{table.num_rows} rows, each one once")
        height = int(table.schema.metadata[b"cairn.height"])
        check(height > 1, f"the rows are of block {height}")
        for stream in ["traffic.flow", "energy.meter_reading", "emergency.incident", "cairn.anchors"]:
            cursor.execute(f"SELECT * FROM {stream}")
            table = cursor.fetch_arrow_table()
            table.validate(full=True)
            check(table.num_rows > 0, f"{table.num_rows} rows of {stream}")
        cursor.execute("SELECT count(*) FROM test.reading WHERE n < ? AND sensor <> ?", parameters=(100, "nobody's"))
        check(cursor.fetchone() == (100,), "parameters")
        cursor.execute("SET cairn.as_of = 1")
        cursor.execute("SELECT cairn_height()")
        check(cursor.fetchone() == (1,), "a connection stands at a block")
        cursor.execute("SET cairn.as_of = latest")
        try:
            cursor.execute("SELECT nothing FROM test.reading")
            raise AssertionError("a column that is not there was read")
        except adbc_driver_manager.Error as error:
            check("42703" in str(error), f"an error has its SQLSTATE: {error}")


with connect() as connection:
    catalogue(connection)
    rows(connection, int(os.environ["CAIRN_ROWS"]))

"""SQLAlchemy over psycopg 3: schemas, tables and views, and queries that it builds."""

import os

import sqlalchemy as sa


def check(holds, what):
    if not holds:
        raise AssertionError(what)
    print("ok", what)


engine = sa.create_engine(
    sa.URL.create(
        "postgresql+psycopg",
        username="analyst",
        password=os.environ["CAIRN_TOKEN"],
        host="localhost",
        port=int(os.environ["CAIRN_POSTGRES_PORT"]),
        database="cairn",
        query={"sslmode": "verify-full", "sslrootcert": os.environ["CAIRN_ROOT"]},
    )
)
inspector = sa.inspect(engine)
check(engine.dialect.server_version_info >= (16,), f"version {engine.dialect.server_version_info}")
schemas = inspector.get_schema_names()
check({"cairn", "energy", "emergency", "test", "traffic"} <= set(schemas), f"schemas {schemas}")
check(inspector.get_table_names("traffic") == ["flow"], "tables")
check("anchors" in inspector.get_view_names("cairn"), "views")
check(inspector.has_table("reading", schema="test"), "a table that is there")
check(not inspector.has_table("readings", schema="test"), "a table that is not there")
reading = sa.table("reading", sa.column("n", sa.BIGINT), sa.column("sensor", sa.TEXT), sa.column("value"), schema="test")
with engine.connect() as connection:
    counting = sa.select(sa.func.count()).select_from(reading).where(reading.c.n < 100, reading.c.sensor != "nobody's")
    check(connection.execute(counting).scalar() == 100, "a query")
    first = connection.execute(sa.select(reading).order_by(reading.c.n).limit(1)).mappings().one()
    check((first["n"], first["sensor"], first["value"]) == (0, "sensor-0", None), f"a row {dict(first)}")
    streamed = connection.execution_options(stream_results=True).execute(sa.select(reading.c.n))
    check(sum(1 for _ in streamed) == int(os.environ["CAIRN_ROWS"]), "streamed rows")

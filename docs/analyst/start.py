"""A start for analysts: a notebook as a script. Editors that know `# %%` run it cell by cell; Python runs it whole.

    pip install adbc-driver-flightsql pyarrow psycopg[binary] cryptography
    python3 start.py

Rows come as Arrow over Flight SQL. Every answer names the block that it was computed at, and every record has a receipt that
a court, a citizen or a colleague verifies without asking anybody.
"""

# %% Where the query role is, and how to get in
import importlib.util
import os
import pathlib

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow.compute as pc

PORT = os.environ.get("CAIRN_FLIGHT_PORT", "26604")
ROOT = os.environ.get("CAIRN_ROOT")  # the PEM file of the root, if the port speaks TLS
TOKEN = os.environ.get("CAIRN_TOKEN")  # of `cairn login`, if the port asks for one
GENESIS = os.environ.get("CAIRN_GENESIS", "city/genesis.json")  # from somebody whom you trust, not from the server

options = adbc_driver_flightsql.DatabaseOptions
how = {}
if ROOT:
    how[options.TLS_ROOT_CERTS.value] = pathlib.Path(ROOT).read_text(encoding="ascii")
if TOKEN:
    how[options.AUTHORIZATION_HEADER.value] = f"Bearer {TOKEN}"
uri = f"grpc{'+tls' if ROOT else ''}://localhost:{PORT}"
connection = flight_sql.connect(uri, db_kwargs=how, autocommit=True)


def ask(sql, parameters=None):
    """The rows of a statement as a pyarrow.Table, and the block that they were computed at."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters=parameters)
        table = cursor.fetch_arrow_table()
    height = (table.schema.metadata or {}).get(b"cairn.height")
    return table, int(height) if height else None


# %% Which streams there are
streams, height = ask("SELECT stream, records, quarantined FROM cairn.streams ORDER BY stream")
print(f"streams at block {height}:")
for row in streams.to_pylist():
    print(f"  {row['stream']:<24} {row['records']:>8} records, {row['quarantined']} of them in quarantine")

# %% What a stream holds
flow, height = ask("SELECT * FROM traffic.flow LIMIT 0")
print("traffic.flow has", ", ".join(flow.schema.names))

# %% A question, answered by the server; parameters are question marks
slow, height = ask(
    """
    SELECT road, count(*) AS measurements, avg(speed_km_per_hour) AS mean_speed
    FROM traffic.flow WHERE vehicle_count >= ? GROUP BY road ORDER BY mean_speed LIMIT 5
    """,
    parameters=(1,),
)
print(f"slowest roads, at block {height}:")
for row in slow.to_pylist():
    print(f"  {row['road']:<24} {row['mean_speed']:.1f} km/h over {row['measurements']} measurements")

# %% The same question here, over rows in memory
rows, height = ask("SELECT road, vehicle_count, speed_km_per_hour, _partition, _offset, _block FROM traffic.flow")
rows = rows.filter(pc.greater_equal(rows["vehicle_count"], 1))
here = rows.group_by("road").aggregate([("speed_km_per_hour", "mean")]).sort_by("speed_km_per_hour_mean")
print(f"{rows.num_rows} rows; slowest: {here['road'][0]}")

# %% Time travel: the stream as it stood at an earlier block, and the number that a report of that day gave
blocks = ask("SELECT DISTINCT block FROM cairn.anchors WHERE stream = 'traffic.flow' ORDER BY block")[0]["block"].to_pylist()
with connection.cursor() as cursor:
    cursor.execute(f"SET cairn.as_of = {blocks[0]}")
then, height = ask("SELECT count(*) AS records FROM traffic.flow")
with connection.cursor() as cursor:
    cursor.execute("SET cairn.as_of = latest")
now, newest = ask("SELECT count(*) AS records FROM traffic.flow")
print(f"{then['records'][0]} records at block {height}, {now['records'][0]} at block {newest}")
assert height == blocks[0] and then["records"][0].as_py() <= now["records"][0].as_py()

# %% Where one row comes from
row = rows.slice(0, 1).to_pylist()[0]
place = ("traffic.flow", row["_partition"], row["_offset"])
lineage, height = ask(f"SELECT what, id, name, detail FROM cairn.lineage('{'/'.join(map(str, place))}') ORDER BY step")
for step in lineage.to_pylist():
    print(f"  {step['what']:<10} {step['name'] or step['id']}: {step['detail']}")

# %% Its receipt, verified here by a program that shares no code with Cairn, against the genesis alone
receipt = ask(f"SELECT cairn_receipt('{place[0]}', {place[1]}, {place[2]}) AS receipt")[0]["receipt"][0].as_py()
folder = pathlib.Path(__file__).resolve().parent if "__file__" in globals() else pathlib.Path("docs/analyst").resolve()
spec = importlib.util.spec_from_file_location("verify", folder.parent / "verifiers/python/verify.py")
verifier = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verifier)
verifier.check_library()
genesis = verifier.read_genesis(pathlib.Path(GENESIS).read_bytes())
for line in verifier.verify(receipt.encode(), genesis):
    print(" ", line)

# %% One changed letter of the record, and it does not verify
where = receipt.index('"record": "') + 100
changed = receipt[:where] + ("A" if receipt[where] != "A" else "B") + receipt[where + 1 :]
try:
    verifier.verify(changed.encode(), genesis)
    raise AssertionError("a changed receipt verifies")
except (verifier.DoesNotVerify, verifier.Refused) as reason:
    print("  a changed receipt does not verify:", reason)

# %% The end
connection.close()

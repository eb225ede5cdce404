"""Makes the headers of the records in a file of test vectors, and prints them, for the test that compares them.

    python3 vectors.py proof/tests/golden/signed-records.json
"""

import json
import sys

from cairn_publisher import Publisher, partition_of


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        vectors = json.load(file)
    publisher = Publisher(bytes.fromhex(vectors["seed"]), bytes.fromhex(vectors["chain_tag"]), vectors["stream"])
    unhex = lambda text: None if text is None else bytes.fromhex(text)
    runs = []
    for given in vectors["runs"]:
        run = publisher.run()
        for record in given["records"]:
            run.add(partition=record["partition"], timestamp_ms=record["timestamp_ms"], key=unhex(record["key"]),
                    value=unhex(record["value"]), sequence=int(record["sequence"]))
        runs.append([[[name, value.hex()] for name, value in record.headers] for record in run.sign()])
    partitions = [partition_of(key.encode(), 1 << 31) for key in vectors["partitions"]["keys"]]
    assert publisher.next_sequence() < publisher.next_sequence()
    print(json.dumps({"public_key": publisher.public_key.hex(), "runs": runs, "partitions": partitions}))


main()

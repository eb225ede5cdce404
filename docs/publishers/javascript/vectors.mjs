// Makes the headers of the records in a file of test vectors, and prints them, for the test that compares them.
//
//     node vectors.mjs proof/tests/golden/signed-records.json

import { readFileSync } from "node:fs";
import { Publisher, partitionOf } from "./cairn-publisher.mjs";

const vectors = JSON.parse(readFileSync(process.argv[2], "utf8"));
const unhex = (text) => (text === null ? null : Buffer.from(text, "hex"));
const publisher = new Publisher(unhex(vectors.seed), unhex(vectors.chain_tag), vectors.stream);
const runs = vectors.runs.map((given) => {
  const run = publisher.run();
  for (const { partition, sequence, timestamp_ms: timestampMs, key, value } of given.records) {
    run.add({ partition, sequence: BigInt(sequence), timestampMs, key: unhex(key), value: unhex(value) });
  }
  return run.sign().map((record) => record.headers.map(([name, bytes]) => [name, bytes.toString("hex")]));
});
const partitions = vectors.partitions.keys.map((key) => partitionOf(key, 2 ** 31));
if (publisher.nextSequence() >= publisher.nextSequence()) throw new Error("sequences must ascend");
console.log(JSON.stringify({ public_key: publisher.publicKey.toString("hex"), runs, partitions }));

// Signs records for Cairn: gives the Kafka headers that a producer adds to its messages.
//
// Written from docs/formats.md, "Signed record", without any code of Cairn and without a dependency: SHA-256 and Ed25519
// are those of node:crypto (Node 20 or later). It does not talk to Kafka: any client will do that can set partition,
// timestamp and headers.
//
//     const publisher = new Publisher(seed, chainTag, "traffic.flow");
//     const run = publisher.run();
//     for (const { key, value } of rows) {
//       run.add({ partition: partitionOf(key, partitions), timestampMs: Date.now(), key, value });
//     }
//     const messages = run.sign().map((record) => ({          // nothing is sent before the run is signed
//       partition: record.partition, timestamp: String(record.timestampMs), key: record.key, value: record.value,
//       headers: Object.fromEntries(record.headers) }));
//
// One key signs in one process at a time for a stream, and its records are sent in the order of their sequences.

import { createHash, createPrivateKey, createPublicKey, sign } from "node:crypto";

export const RUN_RECORDS_MAX = 65_536;
export const SEQUENCE_MAX = 2n ** 63n - 1n;

// Deterministic CBOR (RFC 8949, section 4.2.1), as far as it is needed here. Integers are numbers or BigInts.

function head(major, value) {
  const number = BigInt(value);
  if (number < 24n) return Buffer.from([(major << 5) | Number(number)]);
  const width = [1, 2, 4, 8].find((bytes) => number < 1n << BigInt(8 * bytes));
  const out = Buffer.alloc(9);
  out.writeBigUInt64BE(number, 1);
  out[8 - width] = (major << 5) | (24 + Math.log2(width));
  return out.subarray(8 - width);
}

function cbor(item) {
  if (item === null) return Buffer.from([0xf6]);
  if (typeof item === "number" || typeof item === "bigint") {
    return BigInt(item) >= 0n ? head(0, item) : head(1, -1n - BigInt(item));
  }
  if (typeof item === "string") return Buffer.concat([head(3, Buffer.byteLength(item)), Buffer.from(item)]);
  if (Array.isArray(item)) return Buffer.concat([head(4, item.length), ...item.map(cbor)]);
  return Buffer.concat([head(2, item.length), item]);
}

// Trees of RFC 9162, section 2.1.

const sha256 = (...parts) => createHash("sha256").update(Buffer.concat(parts)).digest();

/** The root over the leaves, and the inclusion path of each, from the leaf up. */
function paths(leaves) {
  if (leaves.length === 1) return [leaves[0], [[]]];
  const width = 2 ** (31 - Math.clz32(leaves.length - 1));
  const [left, leftPaths] = paths(leaves.slice(0, width));
  const [right, rightPaths] = paths(leaves.slice(width));
  const all = [...leftPaths.map((path) => [...path, right]), ...rightPaths.map((path) => [...path, left])];
  return [sha256(Buffer.from([1]), left, right), all];
}

function place(index, count, path) {
  const numbers = Buffer.alloc(8);
  numbers.writeUInt32BE(index, 0);
  numbers.writeUInt32BE(count, 4);
  return Buffer.concat([numbers, ...path]);
}

function sequenceBytes(sequence) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(sequence);
  return bytes;
}

/**
 * Signs the records of one stream on one chain. `seed` is the 32-byte seed of the Ed25519 key, `chainTag` the 32 bytes of
 * the genesis' tag, `stream` the stream's name, `schema.table`.
 */
export class Publisher {
  #key;
  #chainTag;
  #stream;
  #last = 0n;

  constructor(seed, chainTag, stream) {
    if (seed.length !== 32 || chainTag.length !== 32) {
      throw new RangeError(`seed and chain tag have 32 bytes each, not ${seed.length} and ${chainTag.length}`);
    }
    // PKCS #8 of an Ed25519 key (RFC 8410, section 7): a fixed beginning, then the seed.
    const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
    this.#key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    this.publicKey = Buffer.from(createPublicKey(this.#key).export({ format: "jwk" }).x, "base64url");
    this.#chainTag = Buffer.from(chainTag);
    this.#stream = stream;
  }

  /** Microseconds since 1970, or one more than the last: it needs no memory over a restart. */
  nextSequence() {
    const now = BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1000));
    this.#last = now > this.#last ? now : this.#last + 1n;
    return this.#last;
  }

  /** A run of records that get one signature. */
  run() {
    return new Run(this);
  }

  /** What the tree of a run holds of a record. */
  leaf({ partition, sequence, timestampMs, key, value }) {
    const mark = "cairn/signed-record/v1";
    const entry = [mark, this.#chainTag, this.#stream, partition, this.publicKey, sequence, timestampMs, key, value];
    return sha256(Buffer.from([0]), cbor(entry));
  }

  /** What is signed for a run. */
  message(count, root) {
    return cbor(["cairn/signed-run/v1", this.#chainTag, this.publicKey, count, root]);
  }

  /** Gives the records of a run their headers. */
  sign(records) {
    const count = records.length;
    if (count < 1 || count > RUN_RECORDS_MAX) {
      throw new RangeError(`a run has 1 to ${RUN_RECORDS_MAX} records, not ${count}`);
    }
    const [root, all] = paths(records.map((record) => this.leaf(record)));
    const signature = sign(null, this.message(count, root), this.#key);
    return records.map((record, index) => {
      const headers = [
        ["cn-key", this.publicKey],
        ["cn-seq", sequenceBytes(record.sequence)],
        ["cn-sig", signature],
      ];
      if (count > 1) headers.push(["cn-run", place(index, count, all[index])]);
      return { ...record, headers };
    });
  }
}

/** Records that wait for their signature. */
export class Run {
  #publisher;
  #records = [];

  constructor(publisher) {
    this.#publisher = publisher;
  }

  get length() {
    return this.#records.length;
  }

  /** Adds a record. Key and value are bytes or null; without a sequence it gets the next one. */
  add({ partition, timestampMs, key, value, sequence = this.#publisher.nextSequence() }) {
    if (sequence < 1n || sequence > SEQUENCE_MAX) throw new RangeError(`sequence ${sequence}: from 1 to 2^63 - 1`);
    const bytes = (part) => (part === null || part === undefined ? null : Buffer.from(part));
    this.#records.push({ partition, timestampMs, key: bytes(key), value: bytes(value), sequence });
  }

  /** Signs the run and empties it; returns its records in their order. */
  sign() {
    const records = this.#records.splice(0);
    return records.length === 0 ? [] : this.#publisher.sign(records);
  }
}

/** The partition that Kafka's Java client chooses for a key: murmur2. */
export function partitionOf(key, partitions) {
  const bytes = Buffer.from(key);
  const multiplier = 0x5bd1e995;
  const whole = bytes.length & ~3;
  let value = 0x9747b28c ^ bytes.length;
  for (let at = 0; at < whole; at += 4) {
    let word = Math.imul(bytes.readInt32LE(at), multiplier);
    word = Math.imul(word ^ (word >>> 24), multiplier);
    value = Math.imul(value, multiplier) ^ word;
  }
  if (whole < bytes.length) {
    const rest = bytes.subarray(whole).reduce((sum, byte, at) => sum | (byte << (8 * at)), 0);
    value = Math.imul(value ^ rest, multiplier);
  }
  value = Math.imul(value ^ (value >>> 13), multiplier);
  return ((value ^ (value >>> 15)) & 0x7fffffff) % partitions;
}

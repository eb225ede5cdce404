"""Signs records for Cairn: gives the Kafka headers that a producer adds to its messages.

Written from docs/formats.md, "Signed record", without any code of Cairn. Needs the package `cryptography` for Ed25519.
It does not talk to Kafka: any client will do that can set partition, timestamp and headers.

    publisher = Publisher(seed, chain_tag, "traffic.flow")
    run = publisher.run()
    for key, value in rows:
        partition = partition_of(key, partitions)
        run.add(partition=partition, timestamp_ms=now_ms, key=key, value=value)
    for record in run.sign():                      # nothing is sent before the run is signed
        producer.produce("traffic.flow", record.value, record.key, record.partition,
                         timestamp=record.timestamp_ms, headers=record.headers)

One key signs in one process at a time for a stream, and its records are sent in the order of their sequences.
"""

import hashlib
import struct
import time
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RUN_RECORDS_MAX = 65_536
SEQUENCE_MAX = 2**63 - 1


# Deterministic CBOR (RFC 8949, section 4.2.1), as far as it is needed here.


def _head(major, value):
    for extra, form in ((24, None), (2**8, ">B"), (2**16, ">H"), (2**32, ">I"), (2**64, ">Q")):
        if value < extra:
            if form is None:
                return bytes([major << 5 | value])
            return bytes([major << 5 | {">B": 24, ">H": 25, ">I": 26, ">Q": 27}[form]]) + struct.pack(form, value)
    raise ValueError(f"{value} does not fit 64 bits")


def _cbor(item):
    if item is None:
        return b"\xf6"
    if isinstance(item, int):
        return _head(0, item) if item >= 0 else _head(1, -1 - item)
    if isinstance(item, bytes):
        return _head(2, len(item)) + item
    if isinstance(item, str):
        return _head(3, len(item.encode())) + item.encode()
    return _head(4, len(item)) + b"".join(_cbor(one) for one in item)


# Trees of RFC 9162, section 2.1.


def _sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def _paths(leaves):
    """The root over the leaves, and the inclusion path of each, from the leaf up."""
    if len(leaves) == 1:
        return leaves[0], [[]]
    width = 1 << (len(leaves) - 1).bit_length() - 1
    left, left_paths = _paths(leaves[:width])
    right, right_paths = _paths(leaves[width:])
    paths = [path + [right] for path in left_paths] + [path + [left] for path in right_paths]
    return _sha256(b"\x01", left, right), paths


@dataclass
class Record:
    """A record, and once its run is signed, its headers: a list of (name, bytes)."""

    partition: int
    sequence: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list = field(default_factory=list)


class Publisher:
    """Signs the records of one stream on one chain.

    `seed` is the 32-byte seed of the Ed25519 key, `chain_tag` the 32 bytes of the genesis' tag (`cairn status` shows it),
    `stream` the stream's name, `schema.table`.
    """

    def __init__(self, seed, chain_tag, stream):
        if len(seed) != 32 or len(chain_tag) != 32:
            raise ValueError(f"seed and chain tag have 32 bytes each, not {len(seed)} and {len(chain_tag)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._chain_tag, self._stream, self._last = chain_tag, stream, 0

    def next_sequence(self):
        """Microseconds since 1970, or one more than the last: it needs no memory over a restart."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last

    def run(self):
        """A run of records that get one signature."""
        return Run(self)

    def leaf(self, record):
        """What the tree of a run holds of a record."""
        entry = ["cairn/signed-record/v1", self._chain_tag, self._stream, record.partition, self.public_key,
                 record.sequence, record.timestamp_ms, record.key, record.value]
        return _sha256(b"\x00", _cbor(entry))

    def message(self, count, root):
        """What is signed for a run."""
        return _cbor(["cairn/signed-run/v1", self._chain_tag, self.public_key, count, root])

    def sign(self, records):
        """Gives the records of a run their headers."""
        if not 1 <= len(records) <= RUN_RECORDS_MAX:
            raise ValueError(f"a run has 1 to {RUN_RECORDS_MAX} records, not {len(records)}")
        root, paths = _paths([self.leaf(record) for record in records])
        signature = self._key.sign(self.message(len(records), root))
        for index, (record, path) in enumerate(zip(records, paths)):
            record.headers = [("cn-key", self.public_key), ("cn-seq", struct.pack(">Q", record.sequence)),
                              ("cn-sig", signature)]
            if len(records) > 1:
                record.headers.append(("cn-run", struct.pack(">II", index, len(records)) + b"".join(path)))
        return records


class Run:
    """Records that wait for their signature."""

    def __init__(self, publisher):
        self._publisher, self._records = publisher, []

    def __len__(self):
        return len(self._records)

    def add(self, *, partition, timestamp_ms, key, value, sequence=None):
        """Adds a record. Key and value are bytes or None; without a sequence it gets the next one."""
        for name, part in (("key", key), ("value", value)):
            if part is not None and not isinstance(part, bytes):
                raise TypeError(f"{name} must be bytes or None, not {type(part).__name__}")
        sequence = self._publisher.next_sequence() if sequence is None else sequence
        if not 1 <= sequence <= SEQUENCE_MAX:
            raise ValueError(f"sequence {sequence}: from 1 to 2^63 - 1")
        self._records.append(Record(partition, sequence, timestamp_ms, key, value))

    def sign(self):
        """Signs the run and empties it; returns its records in their order."""
        records, self._records = self._records, []
        return self._publisher.sign(records) if records else []


def partition_of(key, partitions):
    """The partition that Kafka's Java client chooses for a key: murmur2."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for (word,) in struct.iter_unpack("<I", key[:whole]):
        word = word * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ word
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return ((value ^ value >> 15) & 0x7FFFFFFF) % partitions

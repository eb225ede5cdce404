#!/usr/bin/env python3
"""Verifies receipts of Cairn: one file that proves one record, with the genesis of the chain alone.

    python3 verify.py receipt.json --genesis genesis.json

Written from docs/formats.md, without any code of Cairn. Needs Python 3.9 and the package `cryptography`, for Ed25519.
It follows the file from the record up:

    record > leaf > batch path > anchor (COSE_Sign1) > leaf > log path > header > certificate > committees > genesis

Exit codes: 0 verified, 3 does not verify (the first step that does not hold is named), 2 usage, 1 another failure.
"""

import base64
import hashlib
import json
import re
import sys

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    sys.stderr.write("error: the Python package 'cryptography' is missing: pip install cryptography\n")
    sys.exit(1)

RECEIPT_BYTES_MAX = 96 * 1024 * 1024
STATEMENT_BYTES_MAX = 65_535
HEADER_BYTES_MAX = 512
PATH_MAX = 64
COMMITTEE_MAX = 128
NOTE_BYTES_MAX = 256 * 1024
NOTE_LINES_MAX = 100
STATE_PROOF_MARK = "cairn/state-proof/v1"
STATE_PROOF_BYTES_MAX = 16 * 1024 * 1024
U32, U63, U64 = 2**32 - 1, 2**63 - 1, 2**64 - 1


class Refused(Exception):
    """Something does not hold; says what was expected and what was found."""


class DoesNotVerify(Exception):
    """The first step that does not hold, and why."""


def need(condition, reason):
    if not condition:
        raise Refused(reason)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# Ed25519, strictly: what libraries leave open is checked here (docs/verifiers/README.md has the table).

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
# y of the eight points of small order: of order 1, 2, 4 and 8.
Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER = {1, P - 1, 0, Y8, P - Y8}


def canonical_y(data):
    """The y of an encoded point that is below p and not of small order; None for all others."""
    y = int.from_bytes(data, "little") & (2**255 - 1)
    return y if y < P and y not in SMALL_ORDER else None


def check_key(key):
    """32 bytes that are the one encoding of a point of the curve, not of small order (RFC 8032, section 5.1.3)."""
    y = canonical_y(key)
    # x*x = (y*y - 1) / (d*y*y + 1) has a root when the product of both is a square (Euler's criterion).
    on_curve = y is not None and pow((y * y - 1) * (D * y * y + 1), (P - 1) // 2, P) == 1
    need(on_curve, f"{key.hex()} is not a usable Ed25519 public key")
    return key


def signed_by(key, message, signature):
    """Whether a checked key signed the message: s below the order, R canonical, no cofactor."""
    if int.from_bytes(signature[32:], "little") >= ORDER or canonical_y(signature[:32]) is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except InvalidSignature:
        return False


def check_library():
    """That the library multiplies without the cofactor: the pair of docs/formats.md that only laxer rules accept."""
    key = bytes.fromhex("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")
    lax = "e5aba7668cce60d30fc06651ca9fde51f82db5662d468476a9acd9df136498ddc1c9f3675020330a6e1440e2d5a5c8c7e3162623778c73e209f4f36bd06bbb08"
    strict = "f2c82f8db1bd4ea389feaf108fb3441faaa7cc1e8a076f6d4835981bf1307f3d4a142931b54ad1315f4f120c66808043042deba426689184ce4a40146908a401"
    accepted = [signed_by(key, b"cairn/zip215/v1", bytes.fromhex(signature)) for signature in (strict, lax)]
    need(accepted == [True, False], "this library's Ed25519 is not that of RFC 8032 without cofactor")


# Deterministic CBOR (RFC 8949, section 4.2.1): shortest heads, definite lengths, nothing left over.


class Cbor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        need(length <= len(self.data) - self.at, f"CBOR at byte {self.at}: {length} more bytes were expected")
        self.at += length
        return self.data[self.at - length : self.at]

    def head(self):
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        need(info < 28, f"CBOR at byte {self.at - 1}: an indefinite or reserved head")
        length = 1 << (info - 24)
        value = int.from_bytes(self.take(length), "big")
        least = 24 if length == 1 else 1 << (4 * length)
        need(value >= least, f"CBOR at byte {self.at}: {value} is not in its shortest form")
        return major, value

    def expect(self, want, what):
        at = self.at
        major, value = self.head()
        need(major == want, f"CBOR at byte {at}: expected {what}, found major type {major}")
        return value

    def uint(self, most=U64):
        value = self.expect(0, "an unsigned integer")
        need(value <= most, f"CBOR at byte {self.at}: {value} is larger than {most}")
        return value

    def int(self):
        major, value = self.head()
        need(major <= 1 and value <= U63, f"CBOR at byte {self.at}: expected an integer of 64 bits")
        return value if major == 0 else -1 - value

    def bytes(self, length=None):
        data = self.take(self.expect(2, "a byte string"))
        need(length is None or len(data) == length, f"CBOR at byte {self.at}: expected {length} bytes")
        return data

    def bytes_or_null(self):
        if self.data[self.at : self.at + 1] == b"\xf6":
            self.at += 1
            return None
        return self.bytes()

    def text(self, want=None):
        try:
            text = self.take(self.expect(3, "a text string")).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(f"CBOR at byte {self.at}: not UTF-8") from None
        need(want is None or text == want, f"CBOR at byte {self.at}: expected {want!r}, found {text!r}")
        return text

    def array(self, length):
        found = self.expect(4, "an array")
        need(found == length, f"CBOR at byte {self.at}: expected an array of {length} items, found {found}")

    def list(self, most, item):
        count = self.expect(4, "an array")
        need(count <= most, f"CBOR at byte {self.at}: expected at most {most} items, found {count}")
        return [item() for _ in range(count)]

    def literal(self, want, what):
        need(self.take(len(want)) == want, f"CBOR before byte {self.at}: expected {what}")

    def end(self):
        need(self.at == len(self.data), f"CBOR at byte {self.at}: bytes are left over")


def cbor_head(major, value):
    """The shortest head, for what is hashed or signed rather than read."""
    if value < 24:
        return bytes([major << 5 | value])
    size = next(size for size in (1, 2, 4, 8) if value < 1 << (8 * size))
    return bytes([major << 5 | 23 + size.bit_length()]) + value.to_bytes(size, "big")


def cbor(value):
    if type(value) is int:
        return cbor_head(0, value)
    if isinstance(value, list):
        return cbor_head(4, len(value)) + b"".join(map(cbor, value))
    data = value.encode() if isinstance(value, str) else value
    return cbor_head(3 if isinstance(value, str) else 2, len(data)) + data


# Trees (RFC 9162, section 2.1).


def leaf_hash(entry):
    return sha256(b"\x00", entry)


def check_inclusion(leaf, index, size, path, root):
    """That the leaf stands at this index of the tree of this size and root; from the leaf up, section 2.1.3.2."""
    need(index < size, f"leaf {index} lies outside of a tree of {size} leaves")
    node, at, last = leaf, index, size - 1
    for sibling in path:
        need(last > 0, f"the path has more hashes than leaf {index} of {size} needs")
        if at & 1 or at == last:
            node = sha256(b"\x01", sibling, node)
            while not at & 1:
                at, last = at >> 1, last >> 1
        else:
            node = sha256(b"\x01", node, sibling)
        at, last = at >> 1, last >> 1
    need(last == 0, f"the path has fewer hashes than leaf {index} of {size} needs")
    need(node == root, f"the path leads to root {node.hex()}, expected {root.hex()}")


# The parts of a receipt.


def read_record(data):
    c = Cbor(data)
    c.array(9)
    c.text("cairn/record/v1")
    record = {"topic": c.text(), "partition": c.uint(U32), "offset": c.uint(), "timestamp": c.int()}
    record["key"], record["value"] = c.bytes_or_null(), c.bytes_or_null()
    record["headers"] = c.list(1024, lambda: (c.array(2), c.text(), c.bytes_or_null())[1:])
    c.bytes(16)  # the salt
    c.end()
    return record


ANCHOR_TYPE = "application/vnd.cairn.anchor.v1+cbor"
ANCHORS_TYPE = "application/vnd.cairn.anchors.v1+cbor"
ANCHORS_MIN, ANCHORS_MAX = 2, 256
ONE_OF_SEVERAL = b"\xa1" + b"\x3a\x00\x01\x00\x01"  # a map of 1, label -65538
STREAM_NAME = re.compile(r"([a-z][a-z0-9_]{0,62})\.[a-z][a-z0-9_]{0,62}")
RESERVED = ("cairn", "information_schema", "pg_catalog", "public", "datafusion")
SEGMENT_PATH = re.compile(r"[A-Za-z0-9._=/-]{1,512}")


def read_anchor(entry, key, tag):
    """The COSE_Sign1 envelope (RFC 9052, section 4.2) around an anchor: its form, its fields, its signature.

    Returns the anchor, the signer, and where it is out of several its place: leaf, index, count, path and root.
    """
    need(len(entry) <= STATEMENT_BYTES_MAX, f"a statement has at most {STATEMENT_BYTES_MAX} bytes")
    c = Cbor(entry)
    c.literal(b"\xd2\x84", "tag 18 and an array of 4 items")
    protected, carried = c.bytes(), None
    if c.data[c.at : c.at + 1] == b"\xa1":
        c.literal(ONE_OF_SEVERAL, "one anchor at its place, as the only unprotected header")
        c.array(3)
        carried = c.uint(), c.list(PATH_MAX, lambda: c.bytes(32)), c.bytes()
    else:
        c.literal(b"\xa0", "an empty map of unprotected headers")
    payload, signature = c.bytes(), c.bytes(64)
    c.end()
    p = Cbor(protected)
    p.literal(b"\xa3\x01\x27\x03", "a map of 3 headers, algorithm EdDSA, content type")
    p.text(ANCHORS_TYPE if carried else ANCHOR_TYPE)
    p.literal(b"\x04", "the key id")
    signer = p.bytes(32)
    p.end()
    anchor = check_anchor(read_anchor_map(carried[2], 2) if carried else read_anchor_map(payload, 1))
    place = read_place(carried, payload) if carried else None
    message = b"\x84" + cbor("Signature1") + cbor(protected) + cbor(tag) + cbor(payload)
    need(signed_by(key, message, signature), f"the signature does not verify for identity {signer.hex()}")
    return anchor, signer, place


def read_place(carried, payload):
    """Where an anchor stands among those that were signed together."""
    c = Cbor(payload)
    c.literal(b"\xa3\x01", "a map of 3 pairs, map key 1")
    c.uint()  # the sequence
    c.literal(b"\x02", "map key 2")
    count = c.uint()
    c.literal(b"\x03", "map key 3")
    root = c.bytes(32)
    c.end()
    need(ANCHORS_MIN <= count <= ANCHORS_MAX, f"{count} anchors in one statement")
    index, path, anchor = carried
    return leaf_hash(anchor), index, count, path, root


def read_anchor_map(data, first_key):
    """An anchor's map: from key 1, the sequence, or without it from key 2."""
    c, anchor = Cbor(data), {}
    fields = {
        "sequence": c.uint, "stream": c.text, "partition": lambda: c.uint(U32), "first": c.uint, "last": c.uint,
        "gaps": lambda: c.list(1024, lambda: (c.array(2), c.uint(), c.uint())[1:]), "count": c.uint,
        "quarantined": c.uint, "root": lambda: c.bytes(32), "least": c.int, "greatest": c.int,
        "schema": lambda: c.bytes(32), "segment": lambda: (c.array(3), c.text(), c.uint(), c.bytes(32))[1],
        "previous": lambda: c.bytes(32),
    }  # fmt: skip
    c.literal(bytes([0xA0 + 15 - first_key]), f"a map of {15 - first_key} pairs")
    for number, (name, read) in enumerate(fields.items(), 1):
        if number >= first_key:
            c.literal(bytes([number]), f"map key {number}")
            anchor[name] = read()
    c.end()
    return anchor


def check_anchor(a):
    name = STREAM_NAME.fullmatch(a["stream"])
    need(name and name[1] not in RESERVED, f"{a['stream']!r} is not the name of a stream")
    need(a["first"] <= a["last"] <= U63, f"offsets {a['first']} to {a['last']}")
    missing, least = 0, a["first"]
    for first, last in a["gaps"]:
        need(least <= first <= last <= a["last"], f"the gap {first} to {last} is out of order or out of the batch")
        missing, least = missing + last - first + 1, last + 2
    count = a["last"] - a["first"] + 1 - missing
    need(a["count"] == count, f"expected {count} records, as offsets and gaps say, found {a['count']}")
    need(a["quarantined"] <= a["count"], f"{a['quarantined']} of {a['count']} records are quarantined")
    need(a["least"] <= a["greatest"], f"timestamps {a['least']} to {a['greatest']}")
    relative = not {"", ".", ".."} & set(a["segment"].split("/"))
    need(SEGMENT_PATH.fullmatch(a["segment"]) and relative, f"{a['segment']!r} is not the path of a segment")
    return a


def leaf_index(anchor, offset):
    """Place of the offset among the batch's leaves; None outside of the batch and in a gap."""
    if not anchor["first"] <= offset <= anchor["last"] or any(a <= offset <= b for a, b in anchor["gaps"]):
        return None
    return offset - anchor["first"] - sum(b - a + 1 for a, b in anchor["gaps"] if b < offset)


def check_batch(record_bytes, record, anchor, index, path):
    need(record["partition"] == anchor["partition"], f"the anchor is about partition {anchor['partition']}")
    need(leaf_index(anchor, record["offset"]) == index, f"offset {record['offset']} is not leaf {index} of the batch")
    need(anchor["least"] <= record["timestamp"] <= anchor["greatest"], "the timestamp lies outside of the batch's")
    check_inclusion(leaf_hash(record_bytes), index, anchor["count"], path, anchor["root"])


def read_header(data):
    need(len(data) <= HEADER_BYTES_MAX, f"a header has at most {HEADER_BYTES_MAX} bytes, this one has {len(data)}")
    c = Cbor(data)
    c.array(16)
    c.text("cairn/header/v2")
    header = {"chain_id": c.text(), "epoch": c.uint(), "view": c.uint(), "parent_view": c.uint()}
    c.bytes(32)  # the proposer
    header["height"] = c.uint()
    c.uint(), c.bytes(32), c.bytes(32), c.uint()  # timestamp, parent, statements root and count
    header["state_root"], header["log_root"], header["log_size"] = c.bytes(32), c.bytes(32), c.uint()
    header["validators_hash"], header["next_validators_hash"] = c.bytes(32), c.bytes(32)
    c.end()
    header["digest"] = sha256(data)
    return header


# The chain: genesis, committees, certificates.


def varint(data, at):
    """Unsigned LEB128 of at most 64 bits in its shortest form; returns the value and the place behind it."""
    value = 0
    for shift in range(0, 64, 7):
        need(at < len(data), "the certificate ends too early")
        byte, at = data[at], at + 1
        need(byte or not shift, "a number of the certificate is not in its shortest form")
        value |= (byte & 127) << shift
        if byte < 128:
            need(value <= U64, "a number of the certificate is larger than 64 bits")
            return value, at
    raise Refused("a number of the certificate is larger than 64 bits")


def check_certificate(data, header, keys, tag):
    """That more than two thirds of the keys (ascending) signed the header; returns how many."""
    epoch, at = varint(data, 0)
    view, at = varint(data, at)
    parent_view, at = varint(data, at)
    proposal, (payload, count) = data[: at + 32], (data[at : at + 32], data[at + 32 : at + 40])
    n, at = len(keys), at + 40
    need(count == n.to_bytes(8, "big"), f"the certificate is not of a set of {n} validators")
    bitmap, at = int.from_bytes(data[at : at + (n + 7) // 8], "little"), at + (n + 7) // 8
    need(bitmap < 1 << n, "the certificate counts a validator beyond the last one")
    signers = [key for i, key in enumerate(keys) if bitmap >> i & 1]
    stated, at = varint(data, at)
    need(stated == len(signers), f"{stated} signatures are stated, {len(signers)} bits are set")
    need(len(data) - at == 64 * stated, f"{stated} signatures need {64 * stated} bytes, found {len(data) - at}")
    need(payload == header["digest"], f"the certificate is about {payload.hex()}, not {header['digest'].hex()}")
    same_views = (view, parent_view) == (header["view"], header["parent_view"])
    need(epoch == header["epoch"] and (same_views or view > header["view"]), "epoch or view are not the header's")
    quorum = n - (n - 1) // 3
    need(stated >= quorum, f"{stated} validators signed, {quorum} are needed")
    domain = b"cairn/consensus/v1/" + tag + b"_FINALIZE"
    for i, key in enumerate(signers):
        signature = data[at + 64 * i : at + 64 * i + 64]
        valid = signed_by(key, bytes([len(domain)]) + domain + proposal, signature)
        need(valid, f"the signature of validator {key.hex()} does not verify")
    return stated


def validators_hash(keys):
    return sha256(cbor(["cairn/validators/v1", keys]))


def check_walk(changes, genesis):
    """From the validators of the genesis to those of the receipt; returns them and the first epoch they certify."""
    keys, first_epoch = genesis["keys"], 0
    for header_bytes, certificate, validators in changes:
        header = read_header(header_bytes)
        height = header["height"]
        need((height + 1) % genesis["epoch_blocks"] == 0, f"height {height} is not the last of an epoch")
        check_header(header, genesis, keys, first_epoch)
        check_certificate(certificate, header, keys, genesis["tag"])
        ascending = all(a < b for a, b in zip(validators, validators[1:]))
        need(ascending and 1 <= len(validators) <= COMMITTEE_MAX, "expected 1 to 128 ascending keys")
        named = validators_hash(validators)
        need(header["next_validators_hash"] == named, f"height {height} names another committee")
        need(header["validators_hash"] != named, f"the committee does not change at height {height}")
        keys, first_epoch = validators, header["epoch"] + 1
    return keys, first_epoch


def check_header(header, genesis, keys, first_epoch):
    """That it is of this chain, of an epoch of this committee, and names this committee."""
    chain_id, epoch, height = header["chain_id"], header["epoch"], header["height"]
    need(chain_id == genesis["chain_id"], f"the genesis is of chain {genesis['chain_id']!r}, the header of {chain_id!r}")
    need(epoch == height // genesis["epoch_blocks"], f"height {height} does not lie in epoch {epoch}")
    need(epoch >= first_epoch, f"epoch {epoch} is before epoch {first_epoch}, with which the committee begins")
    need(header["validators_hash"] == validators_hash(keys), f"height {height} is of another committee")


# The file: JSON in exactly one form, so what was read is written again and compared.


def fields(value, *names):
    need(isinstance(value, dict) and list(value) == list(names), f"expected the fields {', '.join(names)}, in this order")
    return value.values()


def text_of(value):
    need(isinstance(value, str), "expected a text")
    return value


def items(value, read, most=None):
    need(isinstance(value, list) and (most is None or len(value) <= most), f"expected a list of at most {most}")
    return [read(item) for item in value]


def digest(value):
    need(re.fullmatch("[0-9a-f]{64}", text_of(value)), f"expected 64 lower-case hexadecimal digits, found {value!r}")
    return bytes.fromhex(value)


def key(value):
    return check_key(digest(value))


def base64_bytes(value):
    try:
        data = base64.b64decode(text_of(value), validate=True)
    except ValueError:
        raise Refused("not base64") from None
    need(base64.b64encode(data).decode() == value, "not the one base64 of its bytes")
    return data


def tree_path(value):
    index, path = fields(value, "index", "path")
    need(type(index) is int and 0 <= index <= U64, "an index is a number of 64 bits")
    return index, items(path, digest, PATH_MAX)


def change(value):
    header, certificate, validators = fields(value, "header", "certificate", "validators")
    return base64_bytes(header), base64_bytes(certificate), items(validators, key)


def read_form(data, most):
    need(len(data) <= most, f"expected at most {most} bytes, found {len(data)}")
    try:
        text = data.decode("utf-8")
        value = json.loads(text)
        again = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {error}") from None
    need(again == text, "not the one form of its content")
    return value


def read_receipt(data):
    mark, record, batch, anchor, anchorer, log, committees, header, certificate, checkpoint = fields(
        read_form(data, RECEIPT_BYTES_MAX), "format", "record", "batch", "anchor", "anchorer", "log", "committees", "header", "certificate",
        "checkpoint")  # fmt: skip
    need(mark == "cairn/receipt/v2", f"expected format 'cairn/receipt/v2', found {mark!r}")
    return {
        "record": base64_bytes(record), "batch": tree_path(batch), "anchor": base64_bytes(anchor),
        "anchorer": key(anchorer), "log": tree_path(log), "committees": items(committees, change),
        "header": base64_bytes(header), "certificate": base64_bytes(certificate),
        "checkpoint": None if checkpoint is None else text_of(checkpoint),
    }  # fmt: skip


# The checkpoint: a C2SP signed note over the log, signed by validators and perhaps by others, who are not known here.

NOT_IN_NAMES = re.compile("[\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+]")


def note_keys(origin, keys):
    """Every validator signs as the log (type 1) and as a cosigner (type 4); by name and the first 4 bytes of a hash."""
    known = {}
    for key in keys:
        for name, kind in (origin, 1), (f"{origin}/validator/{key.hex()}", 4):
            key_id = sha256(name.encode(), b"\n", bytes([kind]), key)[:4]
            known.setdefault((name, key_id), []).append((key, kind))
    return known


def signed_note(key, kind, text, signature):
    if kind == 1:
        return len(signature) == 64 and signed_by(key, text.encode(), signature)
    seconds = int.from_bytes(signature[:8], "big")
    message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
    return len(signature) == 72 and seconds <= U63 and signed_by(key, message, signature[8:])


def check_checkpoint(note, header, keys):
    """That it is over the header's log and no line by a validator is wrong; returns how many validators signed, and other lines."""
    need(len(note.encode()) <= NOTE_BYTES_MAX, f"a note has at most {NOTE_BYTES_MAX} bytes")
    need(not re.search("[\x00-\x09\x0b-\x1f]", note), "a note holds no control character but newlines")
    text, blank, lines = note.rpartition("\n\n")
    need(blank and lines.endswith("\n"), "a note is a text, an empty line, and signature lines")
    text, lines = text + "\n", lines[:-1].split("\n")
    need(len(lines) <= NOTE_LINES_MAX, f"a note has at most {NOTE_LINES_MAX} signature lines")
    origin, root = f"cairn/{header['chain_id']}", base64.b64encode(header["log_root"]).decode()
    want = f"{origin}\n{header['log_size']}\n{root}\n"
    need(text == want, f"the checkpoint says {text!r}, the header {want!r}")
    known, signers, others = note_keys(origin, keys), set(), 0
    for line in lines:
        name, space, encoded = line[2:].partition(" ")
        usable = 1 <= len(name.encode()) <= 256 and not NOT_IN_NAMES.search(name)
        need(line.startswith("— ") and space and usable, f"{line!r} is no signature line")
        data = base64_bytes(encoded)
        need(len(data) > 4, "a signature line holds a key id of 4 bytes and a signature")
        candidates = known.get((name, data[:4]), [])
        by = [key for key, kind in candidates if signed_note(key, kind, text, data[4:])]
        need(by or not candidates, f"the signature line of {name} does not verify")
        signers.update(by)
        others += not by
    need(signers, f"none of the {len(lines)} signature lines is by a validator")
    return len(signers), others


# The genesis: what a verifier has to be given, and trusts. Its nodes check names, addresses and ranges.

KINDS = {"organisation": 1, "person": 2, "device": 3, "node": 4}
PARAMETERS = {
    "epoch_blocks": 200, "heartbeat_ms": 3000, "block_statements_max": 4096, "block_bytes_max": 2_097_152,
    "batch_records_max": 10_000_000, "absence_epochs": 3, "vote_epochs": 10,
}  # fmt: skip


def read_genesis(data):
    """Chain id, tag, keys in ascending order and blocks of an epoch. White space in the file does not matter."""

    def row(value, *names):
        need(set(value) == set(names), f"expected an object of {', '.join(names)}")
        return [{"public_key": key, "name": text_of, "address": text_of}.get(name, lambda x: x)(value[name]) for name in names]

    try:
        given = {"parameters": {}, **json.loads(data)}
        mark, *rest = row(given, "format", "chain_id", "timestamp_ms", "validators", "identities", "parameters")
        need(mark == "cairn/genesis/v2", f"expected format 'cairn/genesis/v2', found {mark!r}")
        chain_id, timestamp, validators, identities, parameters = rest
        validators = [row(entry, "name", "public_key", "address") for entry in validators]
        identities = [row(entry, "name", "kind", "public_key") for entry in identities]
        identities = [[name, KINDS[kind], public_key] for name, kind, public_key in identities]
        parameters = row({**PARAMETERS, **parameters}, *PARAMETERS)
        need(all(type(number) is int for number in [timestamp, *parameters]), "expected numbers")
        tag = sha256(cbor([mark, text_of(chain_id), timestamp, validators, identities, parameters]))
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        raise Refused(f"{type(error).__name__}: {error}") from None
    keys = sorted(validator[1] for validator in validators)
    need(1 <= len(set(keys)) == len(keys) <= COMMITTEE_MAX, "expected 1 to 128 validators, each key once")
    need(parameters[0] >= 2, f"epochs of {parameters[0]} blocks")
    return {"chain_id": chain_id, "tag": tag, "keys": keys, "epoch_blocks": parameters[0]}


# State proofs: what the state says about a subject, or that it says nothing.

SUBJECTS = {  # kind: what is hashed in front, the fields in the order of the file, the fields in the order of the hash
    "identity": ("identity/", "id", "id"), "key": ("key/", "key", "key"), "sequence": ("sequence/", "id", "id"),
    "stream": ("stream/", "name", "name"), "topic": ("topic/", "topic", "topic"),
    "role": ("role/", "stream role identity", "role identity stream"),
    "head": ("head/", "stream partition", "partition stream"), "anchor": ("anchor/", "id", "id"),
    "validator": ("validator/", "key", "key"), "proposal": ("proposal/", "id", "id"),
    "evidence": ("evidence/", "validator epoch view", "validator epoch view"), "committee": ("committee/current", "", ""),
    "next_committee": ("committee/next", "", ""), "parameters": ("parameters/current", "", ""),
    "next_parameters": ("parameters/next", "", ""), "attested": ("attested", "", ""),
}  # fmt: skip
ROLES = {"anchorer": b"\x01", "publisher": b"\x02"}


def subject_part(name, value):
    """The bytes of one field of a subject, as they are hashed."""
    if name in ("name", "topic", "stream"):
        return text_of(value).encode()
    if name in ("partition", "epoch", "view"):
        length = 4 if name == "partition" else 8
        need(type(value) is int and 0 <= value < 1 << (8 * length), f"{name} is a number of {length} bytes")
        return value.to_bytes(length, "big")
    if name == "role":
        need(text_of(value) in ROLES, f"{value!r} is no role")
        return ROLES[value]
    return key(value) if name in ("key", "validator") else digest(value)


def subject_key(subject):
    kind = subject.get("kind") if isinstance(subject, dict) else None
    need(isinstance(kind, str) and kind in SUBJECTS, f"{kind!r} is no kind of subject")
    front, in_file, in_hash = SUBJECTS[kind]
    fields(subject, "kind", *in_file.split())
    parts = {name: subject_part(name, subject[name]) for name in in_file.split()}
    return sha256(front.encode(), *(parts[name] for name in in_hash.split()))


def read_step(value):
    need(isinstance(value, list) and len(value) == 2, "a step is a bit and a hash")
    need(type(value[0]) is int and 0 <= value[0] < 1 << 16, "a bit is a number of 16 bits")
    return value[0], digest(value[1])


def read_state_proof(data):
    mark, subject, value, path, neighbour, committees, header, certificate = fields(
        read_form(data, STATE_PROOF_BYTES_MAX), "format", "subject", "value", "path", "neighbour", "committees", "header",
        "certificate")  # fmt: skip
    need(mark == STATE_PROOF_MARK, f"expected format {STATE_PROOF_MARK!r}, found {mark!r}")
    if neighbour is not None:
        neighbour = items(neighbour, digest)
        need(len(neighbour) == 2, "a neighbour is a key and a hash")
    return {
        "key": subject_key(subject), "kind": subject["kind"], "value": None if value is None else base64_bytes(value),
        "path": items(path, read_step, 256), "neighbour": neighbour, "committees": items(committees, change),
        "header": base64_bytes(header), "certificate": base64_bytes(certificate),
    }  # fmt: skip


def bit_of(key, bit):
    return key[bit // 8] >> (7 - bit % 8) & 1


def check_state(key, value, path, neighbour, root):
    """That the path leads from the root to the key's value, or to a neighbour where the key would be."""
    bits = [bit for bit, _ in path]
    need(all(a < b for a, b in zip([-1, *bits], [*bits, 256])), "the bits of the path do not grow from 0 to 255")
    if value is not None:
        need(neighbour is None, "expected a value or a neighbour, found both")
        node = sha256(b"\x00", key, sha256(value))
    elif neighbour is not None:
        other, hashed = neighbour
        on_path = other != key and all(bit_of(other, bit) == bit_of(key, bit) for bit in bits)
        need(on_path, f"the neighbour {other.hex()} is no other key at the end of the path of {key.hex()}")
        node = sha256(b"\x00", other, hashed)
    else:
        need(not path, "an empty state has no path")
        node = bytes(32)
    for bit, sibling in reversed(path):
        left, right = (sibling, node) if bit_of(key, bit) else (node, sibling)
        node = sha256(b"\x01", bit.to_bytes(2, "big"), left, right)
    need(node == root, f"the path leads to {node.hex()}, expected {root.hex()}")


# The whole, step by step.


class Steps:
    """The step that is being taken, and a line for each that held."""

    def __init__(self):
        self.name, self.lines = "form", []

    def held(self, detail):
        self.lines.append(f"ok  {self.name:<12} {detail}")


def verify(data, genesis):
    """The lines of a receipt or state proof that verifies; raises DoesNotVerify for one that does not."""
    steps = Steps()
    try:
        is_state_proof = data.startswith(b'{\n  "format": "%s"' % STATE_PROOF_MARK.encode())
        (verify_state_proof if is_state_proof else verify_receipt)(steps, data, genesis)
    except Refused as refused:
        raise DoesNotVerify(f"step {steps.name}: {refused}") from None
    return steps.lines


def verify_receipt(steps, data, genesis):
    r = read_receipt(data)
    steps.name = "record"
    record = read_record(r["record"])
    key, value = ("none" if part is None else f"{len(part)} bytes" for part in (record["key"], record["value"]))
    place = f"partition {record['partition']} offset {record['offset']}"
    steps.held(f"topic {record['topic']} {place}, timestamp {record['timestamp']} ms, key {key}, value {value}")
    steps.name = "anchor"
    anchor, signer, place_in = read_anchor(r["anchor"], r["anchorer"], genesis["tag"])
    steps.held(f"{anchor['stream']} partition {anchor['partition']} offsets {anchor['first']}–{anchor['last']}, "
               f"{anchor['count']} records, signed by identity {signer.hex()}")  # fmt: skip
    if place_in is not None:
        steps.name, (_, index, count, _, root) = "statement", place_in
        check_inclusion(*place_in)
        steps.held(f"anchor {index} of {count} signed together leads to root {root.hex()}")
    steps.name = "batch"
    index, path = r["batch"]
    check_batch(r["record"], record, anchor, index, path)
    steps.held(f"leaf {index} of {anchor['count']} leads to root {anchor['root'].hex()}")
    steps.name = "log"
    header, (index, path) = read_header(r["header"]), r["log"]
    check_inclusion(leaf_hash(r["anchor"]), index, header["log_size"], path, header["log_root"])
    steps.held(f"anchor {index} of {header['log_size']} leads to root {header['log_root'].hex()}")
    keys = verify_chain(steps, header, r["committees"], r["certificate"], genesis)
    steps.name = "checkpoint"
    if r["checkpoint"] is not None:
        by, others = check_checkpoint(r["checkpoint"], header, keys)
        steps.held(f"log of {header['log_size']} anchors, signed by {by} of {len(keys)} validators, {others} lines by others")
    steps.lines.append(f"VERIFIED: the record at {anchor['stream']} {place} is final in chain {header['chain_id']} "
                       f"at height {header['height']}")  # fmt: skip


def verify_chain(steps, header, committees, certificate, genesis):
    """The steps that receipts and state proofs share: from the header to the genesis."""
    steps.name = "committees"
    keys, first_epoch = check_walk(committees, genesis)
    changes, n = len(committees), len(keys)
    since = f"{changes} changes since the genesis lead to {n} validators"
    steps.held(since if changes else f"the {n} validators of the genesis")
    steps.name = "header"
    check_header(header, genesis, keys, first_epoch)
    steps.held(f"chain {header['chain_id']}, height {header['height']}, digest {header['digest'].hex()}")
    steps.name = "certificate"
    signed = check_certificate(certificate, header, keys, genesis["tag"])
    steps.held(f"{signed} of {n} validators signed")
    return keys


def verify_state_proof(steps, data, genesis):
    proof = read_state_proof(data)
    steps.name = "header"
    header = read_header(proof["header"])
    verify_chain(steps, header, proof["committees"], proof["certificate"], genesis)
    steps.name = "state"
    check_state(proof["key"], proof["value"], proof["path"], proof["neighbour"], header["state_root"])
    found = "nothing" if proof["value"] is None else f"value {sha256(proof['value']).hex()}"
    steps.held(f"{len(proof['path'])} steps lead to {found} in root {header['state_root'].hex()}")
    verb = "is not" if proof["value"] is None else "is"
    steps.lines.append(f"VERIFIED: the {proof['kind']} with key {proof['key'].hex()} {verb} in the state of chain "
                       f"{header['chain_id']} at height {header['height']}")  # fmt: skip


def main(arguments):
    at = arguments.index("--genesis") if "--genesis" in arguments[:-1] else len(arguments)
    files = arguments[:at] + arguments[at + 2 :]
    if at == len(arguments) or not files or any(file.startswith("-") for file in files):
        sys.stderr.write("usage: verify.py RECEIPT... --genesis GENESIS\n")
        return 2
    code, name = 0, arguments[at + 1]
    try:
        check_library()
        with open(name, "rb") as file:
            genesis = read_genesis(file.read())
        for name in files:
            with open(name, "rb") as file:
                data = file.read(RECEIPT_BYTES_MAX + 1)
            prefix = f"{name}: " if len(files) > 1 else ""
            try:
                lines = verify(data, genesis)
            except DoesNotVerify as reason:
                code, lines = 3, [f"DOES NOT VERIFY: {reason}"]
            sys.stdout.write("".join(f"{prefix}{line}\n" for line in lines))
    except (OSError, Refused) as error:
        sys.stderr.write(f"error: {name}: {error}\n")
        return 1
    return code


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    sys.exit(main(sys.argv[1:]))

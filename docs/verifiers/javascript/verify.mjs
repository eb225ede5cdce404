// Verifies receipts of Cairn: one file that proves one record, with the genesis of the chain alone.
//
// Written from docs/formats.md, without any code of Cairn and without a dependency: SHA-256 and Ed25519 are those of
// WebCrypto, in Node 20 and in browsers. It reads and fetches nothing. It follows the file from the record up:
//
//     record > leaf > batch path > anchor (COSE_Sign1) > leaf > log path > header > certificate > committees > genesis
//
//     const lines = await verify(receiptBytes, await readGenesis(genesisBytes));      // throws DoesNotVerify

export const RECEIPT_BYTES_MAX = 96 * 1024 * 1024;
const STATE_PROOF_MARK = "cairn/state-proof/v1";
const STATE_PROOF_BYTES_MAX = 16 * 1024 * 1024;
const STATEMENT_BYTES_MAX = 65_535;
const HEADER_BYTES_MAX = 512;
const PATH_MAX = 64;
const COMMITTEE_MAX = 128;
const NOTE_BYTES_MAX = 256 * 1024;
const NOTE_LINES_MAX = 100;
const U32 = 2n ** 32n - 1n, U63 = 2n ** 63n - 1n, U64 = 2n ** 64n - 1n;

/** Something does not hold; says what was expected and what was found. */
export class Refused extends Error {}

/** The first step that does not hold, and why. */
export class DoesNotVerify extends Error {}

function need(condition, reason) {
  if (!condition) throw new Refused(reason);
}

const utf8 = (text) => new TextEncoder().encode(text);
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);
const bigEndian = (bytes) => BigInt("0x0" + hex(bytes));
const littleEndian = (bytes) => bigEndian(bytes.slice().reverse());

function concat(...parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}

function decodeText(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refused("not UTF-8");
  }
}

async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", concat(...parts)));
}

// Ed25519, strictly: what libraries leave open is checked here (docs/verifiers/README.md has the table).

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

function power(base, exponent) {
  let result = 1n;
  for (base %= P; exponent > 0n; exponent >>= 1n, base = (base * base) % P) {
    if (exponent & 1n) result = (result * base) % P;
  }
  return result;
}

const D = ((P - 121665n) * power(121666n, P - 2n)) % P;
// y of the eight points of small order: of order 1, 2, 4 and 8.
const Y8 = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n;
const SMALL_ORDER = [1n, P - 1n, 0n, Y8, P - Y8];

/** The y of an encoded point that is below p and not of small order; null for all others. */
function canonicalY(bytes) {
  const y = littleEndian(bytes) & (2n ** 255n - 1n);
  return y < P && !SMALL_ORDER.includes(y) ? y : null;
}

/** 32 bytes that are the one encoding of a point of the curve, not of small order (RFC 8032, section 5.1.3). */
function checkKey(key) {
  const y = canonicalY(key);
  // x*x = (y*y - 1) / (d*y*y + 1) has a root when the product of both is a square (Euler's criterion).
  const onCurve = y !== null && power((y * y - 1n) * (D * y * y + 1n), (P - 1n) / 2n) === 1n;
  need(onCurve, `${hex(key)} is not a usable Ed25519 public key`);
  return key;
}

/** Whether a checked key signed the message: s below the order, R canonical, no cofactor. */
async function signedBy(key, message, signature) {
  if (littleEndian(signature.slice(32)) >= ORDER || canonicalY(signature.slice(0, 32)) === null) return false;
  const imported = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, message);
}

/** That the engine multiplies without the cofactor: the pair of docs/formats.md that only laxer rules accept. */
export async function checkEngine() {
  const key = unhex("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
  const strict = "f2c82f8db1bd4ea389feaf108fb3441faaa7cc1e8a076f6d4835981bf1307f3d4a142931b54ad1315f4f120c66808043042deba426689184ce4a40146908a401";
  const lax = "e5aba7668cce60d30fc06651ca9fde51f82db5662d468476a9acd9df136498ddc1c9f3675020330a6e1440e2d5a5c8c7e3162623778c73e209f4f36bd06bbb08";
  const accepts = (signature) => signedBy(key, utf8("cairn/zip215/v1"), unhex(signature));
  const right = (await accepts(strict)) && !(await accepts(lax));
  need(right, "this engine's Ed25519 is not that of RFC 8032 without cofactor");
}

// Deterministic CBOR (RFC 8949, section 4.2.1): shortest heads, definite lengths, nothing left over.

class Cbor {
  constructor(bytes) {
    this.bytes_ = bytes;
    this.at = 0;
  }

  take(length) {
    const left = this.bytes_.length - this.at;
    need(length <= left, `CBOR at byte ${this.at}: ${length} more bytes were expected, ${left} are left`);
    this.at += Number(length);
    return this.bytes_.subarray(this.at - Number(length), this.at);
  }

  head() {
    const first = this.take(1)[0];
    const major = first >> 5, info = first & 31;
    if (info < 24) return [major, BigInt(info)];
    need(info < 28, `CBOR at byte ${this.at - 1}: an indefinite or reserved head`);
    const length = 1 << (info - 24);
    const value = bigEndian(this.take(length));
    const least = length === 1 ? 24n : 1n << BigInt(4 * length);
    need(value >= least, `CBOR at byte ${this.at}: ${value} is not in its shortest form`);
    return [major, value];
  }

  expect(want, what) {
    const at = this.at, [major, value] = this.head();
    need(major === want, `CBOR at byte ${at}: expected ${what}, found major type ${major}`);
    return value;
  }

  uint(most = U64) {
    const value = this.expect(0, "an unsigned integer");
    need(value <= most, `CBOR at byte ${this.at}: ${value} is larger than ${most}`);
    return value;
  }

  int() {
    const [major, value] = this.head();
    need(major <= 1 && value <= U63, `CBOR at byte ${this.at}: expected an integer of 64 bits`);
    return major === 0 ? value : -1n - value;
  }

  bytes(length) {
    const bytes = this.take(this.expect(2, "a byte string"));
    need(length === undefined || bytes.length === length, `CBOR at byte ${this.at}: expected ${length} bytes`);
    return bytes;
  }

  bytesOrNull() {
    if (this.bytes_[this.at] !== 0xf6) return this.bytes();
    this.at += 1;
    return null;
  }

  text(want) {
    const text = decodeText(this.take(this.expect(3, "a text string")));
    need(want === undefined || text === want, `CBOR at byte ${this.at}: expected "${want}", found ${JSON.stringify(text)}`);
    return text;
  }

  array(length) {
    const found = this.expect(4, "an array");
    need(found === BigInt(length), `CBOR at byte ${this.at}: expected an array of ${length} items, found ${found}`);
  }

  list(most, item) {
    const count = this.expect(4, "an array");
    need(count <= most, `CBOR at byte ${this.at}: expected at most ${most} items, found ${count}`);
    return Array.from({ length: Number(count) }, item);
  }

  literal(want, what) {
    need(same(this.take(want.length), want), `CBOR before byte ${this.at}: expected ${what}`);
  }

  end() {
    need(this.at === this.bytes_.length, `CBOR at byte ${this.at}: bytes are left over`);
  }
}

/** The shortest head, for what is hashed or signed rather than read. */
function cborHead(major, value) {
  if (value < 24n) return Uint8Array.of((major << 5) | Number(value));
  const size = [1, 2, 4, 8].find((size) => value < 1n << BigInt(8 * size));
  return concat([(major << 5) | (24 + Math.log2(size))], unhex(value.toString(16).padStart(2 * size, "0")));
}

function cbor(value) {
  if (typeof value === "bigint") return cborHead(0, value);
  if (Array.isArray(value)) return concat(cborHead(4, BigInt(value.length)), ...value.map(cbor));
  const bytes = typeof value === "string" ? utf8(value) : value;
  return concat(cborHead(typeof value === "string" ? 3 : 2, BigInt(bytes.length)), bytes);
}

// Trees (RFC 9162, section 2.1).

const leafHash = (entry) => sha256([0], entry);

/** That the leaf stands at this index of the tree of this size and root; from the leaf up, section 2.1.3.2. */
async function checkInclusion(leaf, index, size, path, root) {
  need(index < size, `leaf ${index} lies outside of a tree of ${size} leaves`);
  let node = leaf, at = index, last = size - 1n;
  for (const sibling of path) {
    need(last > 0n, `the path has more hashes than leaf ${index} of ${size} needs`);
    if (at & 1n || at === last) {
      node = await sha256([1], sibling, node);
      for (; !(at & 1n); at >>= 1n) last >>= 1n;
    } else {
      node = await sha256([1], node, sibling);
    }
    at >>= 1n;
    last >>= 1n;
  }
  need(last === 0n, `the path has fewer hashes than leaf ${index} of ${size} needs`);
  need(same(node, root), `the path leads to root ${hex(node)}, expected ${hex(root)}`);
}

// The parts of a receipt.

function readRecord(bytes) {
  const c = new Cbor(bytes);
  c.array(9);
  c.text("cairn/record/v1");
  const record = { topic: c.text(), partition: c.uint(U32), offset: c.uint(), timestamp: c.int() };
  record.key = c.bytesOrNull();
  record.value = c.bytesOrNull();
  record.headers = c.list(1024, () => (c.array(2), [c.text(), c.bytesOrNull()]));
  c.bytes(16); // the salt
  c.end();
  return record;
}

const ANCHOR_TYPE = "application/vnd.cairn.anchor.v1+cbor";
const ANCHORS_TYPE = "application/vnd.cairn.anchors.v1+cbor";
const ANCHORS_MIN = 2n, ANCHORS_MAX = 256n;
const ONE_OF_SEVERAL = [0xa1, 0x3a, 0x00, 0x01, 0x00, 0x01]; // a map of 1, label -65538
const STREAM_NAME = /^([a-z][a-z0-9_]{0,62})\.[a-z][a-z0-9_]{0,62}$/;
const RESERVED = ["cairn", "information_schema", "pg_catalog", "public", "datafusion"];
const SEGMENT_PATH = /^[A-Za-z0-9._=/-]{1,512}$/;

/**
 * The COSE_Sign1 envelope (RFC 9052, section 4.2) around an anchor: its form, its fields, its signature. Where the anchor
 * is out of several, `placed` says where it stands among them; that is yet to be checked.
 */
async function readAnchor(entry, key, tag) {
  need(entry.length <= STATEMENT_BYTES_MAX, `a statement has at most ${STATEMENT_BYTES_MAX} bytes`);
  const c = new Cbor(entry);
  c.literal([0xd2, 0x84], "tag 18 and an array of 4 items");
  const protectedHeader = c.bytes();
  let carried = null;
  if (c.bytes_[c.at] === ONE_OF_SEVERAL[0]) {
    c.literal(ONE_OF_SEVERAL, "one anchor at its place, as the only unprotected header");
    c.array(3);
    carried = { index: c.uint(), path: c.list(PATH_MAX, () => c.bytes(32)), anchor: c.bytes() };
  } else {
    c.literal([0xa0], "an empty map of unprotected headers");
  }
  const payload = c.bytes(), signature = c.bytes(64);
  c.end();
  const p = new Cbor(protectedHeader);
  p.literal([0xa3, 0x01, 0x27, 0x03], "a map of 3 headers, algorithm EdDSA, content type");
  p.text(carried ? ANCHORS_TYPE : ANCHOR_TYPE);
  p.literal([0x04], "the key id");
  const signer = p.bytes(32);
  p.end();
  const anchor = carried ? readAnchorMap(carried.anchor, 2) : readAnchorMap(payload, 1);
  checkAnchor(anchor);
  const placed = carried && { ...carried, ...readSummary(payload), leaf: await leafHash(carried.anchor) };
  const message = cbor(["Signature1", protectedHeader, tag, payload]);
  need(await signedBy(key, message, signature), `the signature does not verify for identity ${hex(signer)}`);
  return { ...anchor, signer, placed };
}

/** What is signed about several anchors: how many, and the root over them. */
function readSummary(payload) {
  const c = new Cbor(payload);
  c.literal([0xa3, 0x01], "a map of 3 pairs, map key 1");
  c.uint(); // the sequence
  c.literal([0x02], "map key 2");
  const count = c.uint();
  c.literal([0x03], "map key 3");
  const root = c.bytes(32);
  c.end();
  need(ANCHORS_MIN <= count && count <= ANCHORS_MAX, `${count} anchors in one statement`);
  return { count, root };
}

/** An anchor's map: from key 1, the sequence, or without it from key 2. */
function readAnchorMap(bytes, firstKey) {
  const c = new Cbor(bytes), anchor = {};
  const fields = {
    sequence: () => c.uint(), stream: () => c.text(), partition: () => c.uint(U32), first: () => c.uint(),
    last: () => c.uint(), gaps: () => c.list(1024, () => (c.array(2), [c.uint(), c.uint()])), count: () => c.uint(),
    quarantined: () => c.uint(), root: () => c.bytes(32), least: () => c.int(), greatest: () => c.int(),
    schema: () => c.bytes(32), segment: () => (c.array(3), [c.text(), c.uint(), c.bytes(32)][0]),
    previous: () => c.bytes(32),
  };
  c.literal([0xa0 + 15 - firstKey], `a map of ${15 - firstKey} pairs`);
  for (const [place, [name, read]] of Object.entries(fields).entries()) {
    if (place + 1 < firstKey) continue;
    c.literal([place + 1], `map key ${place + 1}`);
    anchor[name] = read();
  }
  c.end();
  return anchor;
}

function checkAnchor(a) {
  const name = STREAM_NAME.exec(a.stream);
  need(name && !RESERVED.includes(name[1]), `${JSON.stringify(a.stream)} is not the name of a stream`);
  need(a.first <= a.last && a.last <= U63, `offsets ${a.first} to ${a.last}`);
  let missing = 0n, least = a.first;
  for (const [first, last] of a.gaps) {
    const inOrder = least <= first && first <= last && last <= a.last;
    need(inOrder, `the gap ${first} to ${last} is out of order or out of the batch`);
    missing += last - first + 1n;
    least = last + 2n;
  }
  const count = a.last - a.first + 1n - missing;
  need(a.count === count, `expected ${count} records, as offsets and gaps say, found ${a.count}`);
  need(a.quarantined <= a.count, `${a.quarantined} of ${a.count} records are quarantined`);
  need(a.least <= a.greatest, `timestamps ${a.least} to ${a.greatest}`);
  const relative = !a.segment.split("/").some((part) => ["", ".", ".."].includes(part));
  need(SEGMENT_PATH.test(a.segment) && relative, `${JSON.stringify(a.segment)} is not the path of a segment`);
}

/** Place of the offset among the batch's leaves; null outside of the batch and in a gap. */
function leafIndex(anchor, offset) {
  if (offset < anchor.first || offset > anchor.last) return null;
  if (anchor.gaps.some(([first, last]) => first <= offset && offset <= last)) return null;
  const before = anchor.gaps.filter(([, last]) => last < offset);
  return offset - anchor.first - before.reduce((sum, [first, last]) => sum + last - first + 1n, 0n);
}

async function checkBatch(recordBytes, record, anchor, { index, path }) {
  need(record.partition === anchor.partition, `the anchor is about partition ${anchor.partition}`);
  need(leafIndex(anchor, record.offset) === index, `offset ${record.offset} is not leaf ${index} of the batch`);
  const within = anchor.least <= record.timestamp && record.timestamp <= anchor.greatest;
  need(within, "the timestamp lies outside of the batch's");
  await checkInclusion(await leafHash(recordBytes), index, anchor.count, path, anchor.root);
}

async function readHeader(bytes) {
  need(bytes.length <= HEADER_BYTES_MAX, `a header has at most ${HEADER_BYTES_MAX} bytes, this one ${bytes.length}`);
  const c = new Cbor(bytes), header = {};
  c.array(16);
  c.text("cairn/header/v2");
  header.chainId = c.text();
  for (const name of ["epoch", "view", "parentView"]) header[name] = c.uint();
  header.proposer = c.bytes(32);
  for (const name of ["height", "timestamp"]) header[name] = c.uint();
  for (const name of ["parent", "statementsRoot"]) header[name] = c.bytes(32);
  header.statementsCount = c.uint();
  for (const name of ["stateRoot", "logRoot"]) header[name] = c.bytes(32);
  header.logSize = c.uint();
  for (const name of ["validatorsHash", "nextValidatorsHash"]) header[name] = c.bytes(32);
  c.end();
  header.digest = await sha256(bytes);
  return header;
}

// The chain: committees and certificates.

/** Unsigned LEB128 of at most 64 bits in its shortest form; returns the value and the place behind it. */
function varint(bytes, at) {
  let value = 0n;
  for (let shift = 0n; shift < 64n; shift += 7n) {
    need(at < bytes.length, "the certificate ends too early");
    const byte = bytes[at++];
    need(byte !== 0 || shift === 0n, "a number of the certificate is not in its shortest form");
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) {
      need(value <= U64, "a number of the certificate is larger than 64 bits");
      return [value, at];
    }
  }
  throw new Refused("a number of the certificate is larger than 64 bits");
}

/** That more than two thirds of the keys (ascending) signed the header; returns how many. */
async function checkCertificate(bytes, header, keys, tag) {
  let epoch, view, parentView, stated, at = 0;
  [epoch, at] = varint(bytes, at);
  [view, at] = varint(bytes, at);
  [parentView, at] = varint(bytes, at);
  const proposal = bytes.slice(0, at + 32), payload = bytes.slice(at, at + 32), count = bytes.slice(at + 32, at + 40);
  const n = keys.length, width = Math.ceil(n / 8);
  need(count.length === 8 && bigEndian(count) === BigInt(n), `the certificate is not of a set of ${n} validators`);
  const bitmap = littleEndian(bytes.slice(at + 40, at + 40 + width));
  need(bitmap < 1n << BigInt(n), "the certificate counts a validator beyond the last one");
  const signers = keys.filter((_, i) => (bitmap >> BigInt(i)) & 1n);
  [stated, at] = varint(bytes, at + 40 + width);
  need(stated === BigInt(signers.length), `${stated} signatures are stated, ${signers.length} bits are set`);
  const signatures = bytes.slice(at), length = 64 * signers.length;
  need(signatures.length === length, `${stated} signatures need ${length} bytes, found ${signatures.length}`);
  need(same(payload, header.digest), `the certificate is about ${hex(payload)}, not ${hex(header.digest)}`);
  const sameViews = view === header.view && parentView === header.parentView;
  need(epoch === header.epoch && (sameViews || view > header.view), "epoch or view are not the header's");
  const quorum = n - Math.floor((n - 1) / 3);
  need(signers.length >= quorum, `${stated} validators signed, ${quorum} are needed`);
  const domain = concat(utf8("cairn/consensus/v1/"), tag, utf8("_FINALIZE"));
  const message = concat([domain.length], domain, proposal);
  for (const [i, key] of signers.entries()) {
    const valid = await signedBy(key, message, signatures.slice(64 * i, 64 * i + 64));
    need(valid, `the signature of validator ${hex(key)} does not verify`);
  }
  return signers.length;
}

const validatorsHash = (keys) => sha256(cbor(["cairn/validators/v1", keys]));

/** From the validators of the genesis to those of the receipt; returns them and the first epoch that they certify. */
async function checkWalk(changes, genesis) {
  let trusted = { keys: genesis.keys, firstEpoch: 0n };
  for (const { header: headerBytes, certificate, validators } of changes) {
    const header = await readHeader(headerBytes), height = header.height;
    need((height + 1n) % genesis.epochBlocks === 0n, `height ${height} is not the last of an epoch`);
    await checkHeader(header, genesis, trusted);
    await checkCertificate(certificate, header, trusted.keys, genesis.tag);
    const names = validators.map(hex), ascending = names.every((name, i) => i === 0 || names[i - 1] < name);
    need(ascending && names.length >= 1 && names.length <= COMMITTEE_MAX, "expected 1 to 128 ascending keys");
    const named = await validatorsHash(validators);
    need(same(header.nextValidatorsHash, named), `height ${height} names another committee`);
    need(!same(header.validatorsHash, named), `the committee does not change at height ${height}`);
    trusted = { keys: validators, firstEpoch: header.epoch + 1n };
  }
  return trusted;
}

/** That the header is of this chain, of an epoch of this committee, and names this committee. */
async function checkHeader(header, genesis, { keys, firstEpoch }) {
  const { chainId, epoch, height } = header;
  need(chainId === genesis.chainId, `the genesis is of chain ${genesis.chainId}, the header of ${JSON.stringify(chainId)}`);
  need(epoch === height / genesis.epochBlocks, `height ${height} does not lie in epoch ${epoch}`);
  need(epoch >= firstEpoch, `epoch ${epoch} is before epoch ${firstEpoch}, with which the committee begins`);
  need(same(header.validatorsHash, await validatorsHash(keys)), `height ${height} is of another committee`);
}

// The file: JSON in exactly one form, so what was read is written again and compared.

function fields(value, ...names) {
  const found = value !== null && typeof value === "object" && !Array.isArray(value) ? Object.keys(value) : [];
  need(found.join() === names.join(), `expected the fields ${names.join(", ")}, in this order`);
  return value;
}

function textOf(value) {
  need(typeof value === "string" && !/\p{Surrogate}/u.test(value), "expected a text");
  return value;
}

function items(value, read, most = Infinity) {
  need(Array.isArray(value) && value.length <= most, `expected a list of at most ${most}`);
  return value.map(read);
}

function digest(value) {
  need(/^[0-9a-f]{64}$/.test(textOf(value)), `expected 64 lower-case hexadecimal digits, found ${JSON.stringify(value)}`);
  return unhex(value);
}

function whole(value, most) {
  need(/^[0-9]+$/.test(textOf(value)) && BigInt(value) <= most, `expected a number of at most ${most}`);
  return BigInt(value);
}

const readKey = (value) => checkKey(digest(value));

function base64Bytes(value) {
  const wrong = textOf(value).length % 4 || /[^A-Za-z0-9+/]/.test(value.replace(/={1,2}$/, ""));
  need(!wrong, "not base64");
  const binary = atob(value);
  need(btoa(binary.slice(-3 - (binary.length % 3))).slice(-4) === value.slice(-4), "not the one base64 of its bytes");
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

function treePath(value) {
  const { index, path } = fields(value, "index", "path");
  return { index: whole(index, U64), path: items(path, digest, PATH_MAX) };
}

function readChange(value) {
  const { header, certificate, validators } = fields(value, "header", "certificate", "validators");
  const keys = items(validators, readKey);
  return { header: base64Bytes(header), certificate: base64Bytes(certificate), validators: keys };
}

function readForm(bytes, most) {
  need(bytes.length <= most, `expected at most ${most} bytes, found ${bytes.length}`);
  const text = decodeText(bytes);
  let value, again;
  try {
    // Numbers of 64 bits do not fit into those of JSON.parse: they are read as texts, and written as numbers again.
    value = JSON.parse(text.replace(/^( *"(?:index|partition|epoch|view)": )(0|[1-9][0-9]{0,19})(,?)$/gm, '$1"$2"$3'));
    again = JSON.stringify(value, null, 2).replace(/^( *"(?:index|partition|epoch|view)": )"([0-9]+)"(,?)$/gm, "$1$2$3") + "\n";
  } catch (error) {
    throw new Refused(`not JSON: ${JSON.stringify(error.message)}`);
  }
  need(again === text, "not the one form of its content");
  return value;
}

function readReceipt(bytes) {
  const names = "format record batch anchor anchorer log committees header certificate checkpoint".split(" ");
  const value = fields(readForm(bytes, RECEIPT_BYTES_MAX), ...names);
  need(value.format === "cairn/receipt/v2", `expected format "cairn/receipt/v2", found ${JSON.stringify(value.format)}`);
  return {
    record: base64Bytes(value.record), batch: treePath(value.batch), anchor: base64Bytes(value.anchor),
    anchorer: readKey(value.anchorer), log: treePath(value.log),
    committees: items(value.committees, readChange), header: base64Bytes(value.header),
    certificate: base64Bytes(value.certificate), checkpoint: value.checkpoint === null ? null : textOf(value.checkpoint),
  };
}

// The checkpoint: a C2SP signed note over the log, signed by validators and perhaps by others, who are not known here.

const CONTROL = /[\u0000-\u0009\u000b-\u001f]/;
const NOT_IN_NAMES = /[\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+]/;

/** Every validator signs as the log (type 1) and as a cosigner (type 4); by name and the first 4 bytes of a hash. */
async function noteKeys(origin, keys) {
  const known = new Map();
  for (const key of keys) {
    for (const [name, kind] of [[origin, 1], [`${origin}/validator/${hex(key)}`, 4]]) {
      const place = name + " " + hex((await sha256(utf8(name + "\n"), [kind], key)).slice(0, 4));
      known.set(place, [...(known.get(place) ?? []), { key, kind }]);
    }
  }
  return known;
}

async function signedNote({ key, kind }, text, signature) {
  if (kind === 1) return signature.length === 64 && signedBy(key, utf8(text), signature);
  const seconds = bigEndian(signature.slice(0, 8));
  const message = utf8(`cosignature/v1\ntime ${seconds}\n${text}`);
  return signature.length === 72 && seconds <= U63 && signedBy(key, message, signature.slice(8));
}

/** That it is over the header's log and no line by a validator is wrong; returns how many validators signed, and other lines. */
async function checkCheckpoint(note, header, keys) {
  need(utf8(note).length <= NOTE_BYTES_MAX, `a note has at most ${NOTE_BYTES_MAX} bytes`);
  need(!CONTROL.test(note), "a note holds no control character but newlines");
  const blank = note.lastIndexOf("\n\n");
  need(blank >= 0 && note.endsWith("\n"), "a note is a text, an empty line, and signature lines");
  const text = note.slice(0, blank + 1), lines = note.slice(blank + 2, -1).split("\n");
  need(lines.length <= NOTE_LINES_MAX, `a note has at most ${NOTE_LINES_MAX} signature lines`);
  const origin = `cairn/${header.chainId}`, root = btoa(String.fromCharCode(...header.logRoot));
  const want = `${origin}\n${header.logSize}\n${root}\n`;
  need(text === want, `the checkpoint says ${JSON.stringify(text)}, the header ${JSON.stringify(want)}`);
  const known = await noteKeys(origin, keys), signers = new Set();
  let others = 0;
  for (const line of lines) {
    const space = line.indexOf(" ", 2), name = line.slice(2, space), length = utf8(name).length;
    const usable = length >= 1 && length <= 256 && !NOT_IN_NAMES.test(name);
    need(line.startsWith("\u2014 ") && space >= 0 && usable, `${JSON.stringify(line)} is no signature line`);
    const bytes = base64Bytes(line.slice(space + 1));
    need(bytes.length > 4, "a signature line holds a key id of 4 bytes and a signature");
    const candidates = known.get(name + " " + hex(bytes.slice(0, 4))) ?? [];
    const valid = await Promise.all(candidates.map((candidate) => signedNote(candidate, text, bytes.slice(4))));
    need(valid.includes(true) || candidates.length === 0, `the signature line of ${name} does not verify`);
    candidates.filter((_, i) => valid[i]).forEach(({ key }) => signers.add(hex(key)));
    others += valid.includes(true) ? 0 : 1;
  }
  need(signers.size > 0, `none of the ${lines.length} signature lines is by a validator`);
  return { by: signers.size, others };
}

// The genesis: what a verifier has to be given, and trusts. Its nodes check names, addresses and ranges.

const KINDS = { organisation: 1n, person: 2n, device: 3n, node: 4n };
const PARAMETERS = {
  epoch_blocks: 200, heartbeat_ms: 3000, block_statements_max: 4096, block_bytes_max: 2_097_152,
  batch_records_max: 10_000_000, absence_epochs: 3, vote_epochs: 10,
};

/** Chain id, tag, keys in ascending order and blocks of an epoch. White space in the file does not matter. */
export async function readGenesis(bytes) {
  const row = (value, names) => {
    const found = Object.keys(value ?? {}).sort().join();
    need(found === [...names].sort().join(), `expected an object of ${names.join(", ")}`);
    return names.map((name) => (name === "public_key" ? readKey(value[name]) : textOf(value[name])));
  };
  const number = (value) => {
    need(Number.isSafeInteger(value) && value >= 0, `expected a number below 2^53, found ${value}`);
    return BigInt(value);
  };
  let file;
  try {
    file = { parameters: {}, ...JSON.parse(decodeText(bytes)) };
  } catch (error) {
    throw new Refused(`not JSON: ${JSON.stringify(error.message)}`);
  }
  const names = "chain_id format identities parameters timestamp_ms validators";
  need(Object.keys(file).sort().join(" ") === names, `expected an object of ${names}`);
  need(file.format === "cairn/genesis/v2", `expected format "cairn/genesis/v2", found ${JSON.stringify(file.format)}`);
  const validators = items(file.validators, (entry) => row(entry, ["name", "public_key", "address"]), COMMITTEE_MAX);
  const identities = items(file.identities, (entry) => {
    const [name, kind, key] = row(entry, ["name", "kind", "public_key"]);
    need(Object.hasOwn(KINDS, kind), `${JSON.stringify(kind)} is no kind of identity`);
    return [name, KINDS[kind], key];
  });
  need(file.parameters?.constructor === Object, "expected an object of parameters");
  const known = Object.keys(PARAMETERS), given = { ...PARAMETERS, ...file.parameters };
  need(Object.keys(given).join() === known.join(), `expected parameters out of ${known.join(", ")}`);
  const parameters = known.map((name) => number(given[name]));
  const canonical = [file.format, textOf(file.chain_id), number(file.timestamp_ms), validators, identities, parameters];
  const keys = validators.map(([, key]) => hex(key)).sort();
  need(keys.length >= 1 && new Set(keys).size === keys.length, "expected 1 to 128 validators, each key once");
  need(parameters[0] >= 2n, `epochs of ${parameters[0]} blocks`);
  const tag = await sha256(cbor(canonical));
  return { chainId: file.chain_id, tag, keys: keys.map(unhex), epochBlocks: parameters[0] };
}

// State proofs: what the state says about a subject, or that it says nothing.

const SUBJECTS = { // kind: what is hashed in front, the fields in the order of the file, those in the order of the hash
  identity: ["identity/", "id", "id"], key: ["key/", "key", "key"], sequence: ["sequence/", "id", "id"],
  stream: ["stream/", "name", "name"], topic: ["topic/", "topic", "topic"],
  role: ["role/", "stream role identity", "role identity stream"],
  head: ["head/", "stream partition", "partition stream"], anchor: ["anchor/", "id", "id"],
  validator: ["validator/", "key", "key"], proposal: ["proposal/", "id", "id"],
  evidence: ["evidence/", "validator epoch view", "validator epoch view"], committee: ["committee/current", "", ""],
  next_committee: ["committee/next", "", ""], parameters: ["parameters/current", "", ""],
  next_parameters: ["parameters/next", "", ""], attested: ["attested", "", ""],
};
const ROLES = { anchorer: [1], publisher: [2] };

/** The bytes of one field of a subject, as they are hashed. */
function subjectPart(name, value) {
  if (["name", "topic", "stream"].includes(name)) return utf8(textOf(value));
  if (name === "partition") return unhex(whole(value, U32).toString(16).padStart(8, "0"));
  if (["epoch", "view"].includes(name)) return unhex(whole(value, U64).toString(16).padStart(16, "0"));
  if (name === "role") {
    need(Object.hasOwn(ROLES, textOf(value)), `${JSON.stringify(value)} is no role`);
    return ROLES[value];
  }
  return ["key", "validator"].includes(name) ? readKey(value) : digest(value);
}

async function subjectKey(subject) {
  const kind = textOf(subject?.kind);
  need(Object.hasOwn(SUBJECTS, kind), `${JSON.stringify(kind)} is no kind of subject`);
  const [front, inFile, inHash] = SUBJECTS[kind].map((names) => names.split(" ").filter((name) => name));
  fields(subject, "kind", ...inFile);
  const parts = Object.fromEntries(inFile.map((name) => [name, subjectPart(name, subject[name])]));
  return sha256(utf8(front[0]), ...inHash.map((name) => parts[name]));
}

function readStep(value) {
  need(Array.isArray(value) && value.length === 2, "a step is a bit and a hash");
  need(Number.isInteger(value[0]) && value[0] >= 0 && value[0] < 65536, "a bit is a number of 16 bits");
  return { bit: value[0], sibling: digest(value[1]) };
}

async function readStateProof(bytes) {
  const names = "format subject value path neighbour committees header certificate".split(" ");
  const value = fields(readForm(bytes, STATE_PROOF_BYTES_MAX), ...names);
  need(value.format === STATE_PROOF_MARK, `expected format "${STATE_PROOF_MARK}", found ${JSON.stringify(value.format)}`);
  const neighbour = value.neighbour === null ? null : items(value.neighbour, digest);
  need(neighbour === null || neighbour.length === 2, "a neighbour is a key and a hash");
  return {
    key: await subjectKey(value.subject), kind: value.subject.kind, neighbour,
    value: value.value === null ? null : base64Bytes(value.value), path: items(value.path, readStep, 256),
    committees: items(value.committees, readChange), header: base64Bytes(value.header),
    certificate: base64Bytes(value.certificate),
  };
}

const bitOf = (key, bit) => (key[bit >> 3] >> (7 - (bit & 7))) & 1;

/** That the path leads from the root to the key's value, or to a neighbour where the key would be. */
async function checkState({ key, value, path, neighbour }, root) {
  const grows = path.every(({ bit }, i) => bit < 256 && (i === 0 || path[i - 1].bit < bit));
  need(grows, "the bits of the path do not grow from 0 to 255");
  let node = new Uint8Array(32);
  if (value !== null) {
    need(neighbour === null, "expected a value or a neighbour, found both");
    node = await sha256([0], key, await sha256(value));
  } else if (neighbour !== null) {
    const [other, hashed] = neighbour;
    const onPath = !same(other, key) && path.every(({ bit }) => bitOf(other, bit) === bitOf(key, bit));
    need(onPath, `the neighbour ${hex(other)} is no other key at the end of the path of ${hex(key)}`);
    node = await sha256([0], other, hashed);
  } else {
    need(path.length === 0, "an empty state has no path");
  }
  for (const { bit, sibling } of path.slice().reverse()) {
    const [left, right] = bitOf(key, bit) ? [sibling, node] : [node, sibling];
    node = await sha256([1, bit >> 8, bit & 255], left, right);
  }
  need(same(node, root), `the path leads to ${hex(node)}, expected ${hex(root)}`);
}

// The whole, step by step.

/** The step that is being taken, and a line for each that held. */
class Steps {
  name = "form";
  lines = [];

  held(detail) {
    this.lines.push(`ok  ${this.name.padEnd(12)} ${detail}`);
  }
}

/** The lines of a receipt or state proof that verifies; throws DoesNotVerify for one that does not. */
export async function verify(bytes, genesis) {
  const steps = new Steps(), front = utf8(`{\n  "format": "${STATE_PROOF_MARK}"`);
  try {
    const isStateProof = same(bytes.slice(0, front.length), front);
    await (isStateProof ? verifyStateProof : verifyReceipt)(steps, bytes, genesis);
  } catch (error) {
    throw error instanceof Refused ? new DoesNotVerify(`step ${steps.name}: ${error.message}`) : error;
  }
  return steps.lines;
}

async function verifyReceipt(steps, bytes, genesis) {
  const r = readReceipt(bytes);
  steps.name = "record";
  const record = readRecord(r.record);
  const [key, value] = [record.key, record.value].map((part) => (part === null ? "none" : `${part.length} bytes`));
  const place = `partition ${record.partition} offset ${record.offset}`;
  steps.held(`topic ${record.topic} ${place}, timestamp ${record.timestamp} ms, key ${key}, value ${value}`);
  steps.name = "anchor";
  const anchor = await readAnchor(r.anchor, r.anchorer, genesis.tag);
  steps.held(`${anchor.stream} partition ${anchor.partition} offsets ${anchor.first}\u2013${anchor.last}, ` +
    `${anchor.count} records, signed by identity ${hex(anchor.signer)}`);
  if (anchor.placed) {
    steps.name = "statement";
    const { leaf, index, count, path, root } = anchor.placed;
    await checkInclusion(leaf, index, count, path, root);
    steps.held(`anchor ${index} of ${count} signed together leads to root ${hex(root)}`);
  }
  steps.name = "batch";
  await checkBatch(r.record, record, anchor, r.batch);
  steps.held(`leaf ${r.batch.index} of ${anchor.count} leads to root ${hex(anchor.root)}`);
  steps.name = "log";
  const header = await readHeader(r.header), { logSize, logRoot } = header;
  await checkInclusion(await leafHash(r.anchor), r.log.index, logSize, r.log.path, logRoot);
  steps.held(`anchor ${r.log.index} of ${logSize} leads to root ${hex(logRoot)}`);
  const keys = await verifyChain(steps, header, r, genesis);
  steps.name = "checkpoint";
  if (r.checkpoint !== null) {
    const { by, others } = await checkCheckpoint(r.checkpoint, header, keys);
    steps.held(`log of ${logSize} anchors, signed by ${by} of ${keys.length} validators, ${others} lines by others`);
  }
  steps.lines.push(`VERIFIED: the record at ${anchor.stream} ${place} is final in chain ${header.chainId} ` +
    `at height ${header.height}`);
}

/** The steps that receipts and state proofs share: from the header to the genesis. */
async function verifyChain(steps, header, { committees, certificate }, genesis) {
  steps.name = "committees";
  const trusted = await checkWalk(committees, genesis), changes = committees.length, n = trusted.keys.length;
  const since = `${changes} changes since the genesis lead to ${n} validators`;
  steps.held(changes ? since : `the ${n} validators of the genesis`);
  steps.name = "header";
  await checkHeader(header, genesis, trusted);
  steps.held(`chain ${header.chainId}, height ${header.height}, digest ${hex(header.digest)}`);
  steps.name = "certificate";
  const signed = await checkCertificate(certificate, header, trusted.keys, genesis.tag);
  steps.held(`${signed} of ${n} validators signed`);
  return trusted.keys;
}

async function verifyStateProof(steps, bytes, genesis) {
  const proof = await readStateProof(bytes), { key, kind, value, path } = proof;
  steps.name = "header";
  const header = await readHeader(proof.header), root = header.stateRoot;
  await verifyChain(steps, header, proof, genesis);
  steps.name = "state";
  await checkState(proof, root);
  const found = value === null ? "nothing" : `value ${hex(await sha256(value))}`;
  steps.held(`${path.length} steps lead to ${found} in root ${hex(root)}`);
  const verb = value === null ? "is not" : "is";
  steps.lines.push(`VERIFIED: the ${kind} with key ${hex(key)} ${verb} in the state of chain ${header.chainId} ` +
    `at height ${header.height}`);
}

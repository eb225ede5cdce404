package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	receiptBytesMax   = 96 << 20
	statementBytesMax = 65_535
	headerBytesMax    = 512
	pathMax           = 64
	committeeMax      = 128
	noteBytesMax      = 256 << 10
	noteLinesMax      = 100
)

// refused says that something does not hold: what was expected and what was found. It is thrown by need, from any depth
// below verify and readGenesis, and caught by attempt.
type refused string

func need(condition bool, format string, details ...any) {
	if !condition {
		panic(refused(fmt.Sprintf(format, details...)))
	}
}

func attempt(run func()) (err error) {
	defer func() {
		switch thrown := recover().(type) {
		case nil:
		case refused:
			err = fmt.Errorf("%s", string(thrown))
		default:
			panic(thrown)
		}
	}()
	run()
	return nil
}

// digest is a hash or a key: 32 bytes, 64 lower-case hexadecimal digits in a file.
type digest [32]byte

func (d digest) String() string               { return hex.EncodeToString(d[:]) }
func (d digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
func (d *digest) UnmarshalText(text []byte) error {
	data, err := hex.DecodeString(string(text))
	if err == nil && len(data) != len(d) {
		err = fmt.Errorf("expected 64 hexadecimal digits, found %d", len(text))
	}
	copy(d[:], data)
	return err
}

func sha(parts ...[]byte) digest { return sha256.Sum256(bytes.Join(parts, nil)) }

// Ed25519, strictly: what crypto/ed25519 leaves open is checked here (docs/verifiers/README.md has the table).

func number(text string, base int) *big.Int {
	value, _ := new(big.Int).SetString(text, base)
	return value
}

var (
	one   = big.NewInt(1)
	prime = number("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed", 16)
	order = number("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	d     = number("37095705934669439343138083508754565189542113879843219016388785533085940283555", 10)
	// y of the eight points of small order: of order 1, 2, 4 and 8.
	y8         = number("7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7", 16)
	smallOrder = []*big.Int{one, new(big.Int).Sub(prime, one), new(big.Int), y8, new(big.Int).Sub(prime, y8)}
)

func littleEndian(data []byte) *big.Int {
	reversed := slices.Clone(data)
	slices.Reverse(reversed)
	return new(big.Int).SetBytes(reversed)
}

// canonicalY is the y of an encoded point that is below p and not of small order; nil for all others.
func canonicalY(data []byte) *big.Int {
	y := littleEndian(data)
	y.SetBit(y, 255, 0)
	if y.Cmp(prime) >= 0 || slices.ContainsFunc(smallOrder, func(small *big.Int) bool { return small.Cmp(y) == 0 }) {
		return nil
	}
	return y
}

// checkKey takes the one encoding of a point of the curve, not of small order (RFC 8032, section 5.1.3).
func checkKey(key digest) digest {
	y := canonicalY(key[:])
	need(y != nil, "%s is not a usable Ed25519 public key", key)
	// x*x = (y*y - 1) / (d*y*y + 1) has a root when the product of both is a square.
	square := new(big.Int).Mul(y, y)
	below := new(big.Int).Mul(d, square)
	product := below.Add(below, one).Mul(below, square.Sub(square, one))
	need(big.Jacobi(product, prime) == 1, "%s is not a usable Ed25519 public key", key)
	return key
}

// signedBy tells whether a checked key signed the message: s below the order, R canonical, no cofactor.
func signedBy(key digest, message, signature []byte) bool {
	strict := littleEndian(signature[32:]).Cmp(order) < 0 && canonicalY(signature[:32]) != nil
	return strict && ed25519.Verify(key[:], message, signature)
}

// checkLibrary: the library multiplies without the cofactor, shown by the pair of docs/formats.md.
func checkLibrary() {
	accepts := func(signature string) bool {
		key, _ := hex.DecodeString("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")
		data, _ := hex.DecodeString(signature)
		return signedBy(digest(key), []byte("cairn/zip215/v1"), data)
	}
	strict := "f2c82f8db1bd4ea389feaf108fb3441faaa7cc1e8a076f6d4835981bf1307f3d4a142931b54ad1315f4f120c66808043042deba426689184ce4a40146908a401"
	lax := "e5aba7668cce60d30fc06651ca9fde51f82db5662d468476a9acd9df136498ddc1c9f3675020330a6e1440e2d5a5c8c7e3162623778c73e209f4f36bd06bbb08"
	need(accepts(strict) && !accepts(lax), "this library's Ed25519 is not that of RFC 8032 without cofactor")
}

// reader reads deterministic CBOR (RFC 8949, section 4.2.1): shortest heads, definite lengths, nothing left over.
type reader struct {
	data []byte
	at   int
}

func (r *reader) take(length uint64) []byte {
	left := uint64(len(r.data) - r.at)
	need(length <= left, "CBOR at byte %d: %d more bytes were expected, %d are left", r.at, length, left)
	r.at += int(length)
	return r.data[r.at-int(length) : r.at]
}

func (r *reader) head() (major byte, value uint64) {
	first := r.take(1)[0]
	major, info := first>>5, first&31
	if info < 24 {
		return major, uint64(info)
	}
	need(info < 28, "CBOR at byte %d: an indefinite or reserved head", r.at-1)
	for _, next := range r.take(1 << (info - 24)) {
		value = value<<8 | uint64(next)
	}
	least := map[byte]uint64{24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}[info]
	need(value >= least, "CBOR at byte %d: %d is not in its shortest form", r.at, value)
	return major, value
}

func (r *reader) expect(want byte, what string) uint64 {
	at := r.at
	major, value := r.head()
	need(major == want, "CBOR at byte %d: expected %s, found major type %d", at, what, major)
	return value
}

func (r *reader) uint() uint64 { return r.expect(0, "an unsigned integer") }

func (r *reader) uint32() uint64 {
	value := r.uint()
	need(value < 1<<32, "CBOR at byte %d: %d is larger than 32 bits", r.at, value)
	return value
}

func (r *reader) int() int64 {
	major, value := r.head()
	need(major <= 1 && value < 1<<63, "CBOR at byte %d: expected an integer of 64 bits", r.at)
	if major == 1 {
		return -1 - int64(value)
	}
	return int64(value)
}

func (r *reader) bytes() []byte { return r.take(r.expect(2, "a byte string")) }

func (r *reader) fixed(length int) []byte {
	data := r.bytes()
	need(len(data) == length, "CBOR at byte %d: expected %d bytes, found %d", r.at, length, len(data))
	return data
}

func (r *reader) digest() digest { return digest(r.fixed(32)) }

// bytesOrNil is nil for null, and not nil for an empty byte string.
func (r *reader) bytesOrNil() []byte {
	if r.at < len(r.data) && r.data[r.at] == 0xf6 {
		r.at++
		return nil
	}
	return append([]byte{}, r.bytes()...)
}

func (r *reader) text() string {
	data := r.take(r.expect(3, "a text string"))
	need(utf8.Valid(data), "CBOR at byte %d: not UTF-8", r.at)
	return string(data)
}

func (r *reader) mark(want string) {
	found := r.text()
	need(found == want, "CBOR at byte %d: expected %q, found %q", r.at, want, found)
}

func (r *reader) array(length uint64) {
	found := r.expect(4, "an array")
	need(found == length, "CBOR at byte %d: expected an array of %d items, found %d", r.at, length, found)
}

func (r *reader) list(most uint64, item func()) {
	count := r.expect(4, "an array")
	need(count <= most, "CBOR at byte %d: expected at most %d items, found %d", r.at, most, count)
	for range count {
		item()
	}
}

func (r *reader) literal(want, what string) {
	need(string(r.take(uint64(len(want)))) == want, "CBOR before byte %d: expected %s", r.at, what)
}

func (r *reader) end() { need(r.at == len(r.data), "CBOR at byte %d: bytes are left over", r.at) }

// cborHead is the shortest head, for what is hashed or signed rather than read.
func cborHead(major byte, value uint64) []byte {
	wide := binary.BigEndian.AppendUint64(nil, value)
	switch {
	case value < 24:
		return []byte{major<<5 | byte(value)}
	case value < 1<<8:
		return append([]byte{major<<5 | 24}, wide[7:]...)
	case value < 1<<16:
		return append([]byte{major<<5 | 25}, wide[6:]...)
	case value < 1<<32:
		return append([]byte{major<<5 | 26}, wide[4:]...)
	}
	return append([]byte{major<<5 | 27}, wide...)
}

// cbor writes an array of numbers, texts, byte strings and arrays.
func cbor(items ...any) []byte {
	out := cborHead(4, uint64(len(items)))
	for _, item := range items {
		switch value := item.(type) {
		case uint64:
			out = append(out, cborHead(0, value)...)
		case []byte:
			out = append(append(out, cborHead(2, uint64(len(value)))...), value...)
		case string:
			out = append(append(out, cborHead(3, uint64(len(value)))...), value...)
		case []any:
			out = append(out, cbor(value...)...)
		}
	}
	return out
}

// Trees (RFC 9162, section 2.1).

func leafHash(entry []byte) digest { return sha([]byte{0}, entry) }

func nodeHash(left, right digest) digest { return sha([]byte{1}, left[:], right[:]) }

// checkInclusion: the leaf stands at this index of the tree of this size and root; from the leaf up, section 2.1.3.2.
func checkInclusion(leaf digest, index, size uint64, path []digest, root digest) {
	need(index < size, "leaf %d lies outside of a tree of %d leaves", index, size)
	node, at, last := leaf, index, size-1
	for _, sibling := range path {
		need(last > 0, "the path has more hashes than leaf %d of %d needs", index, size)
		if at&1 == 1 || at == last {
			node = nodeHash(sibling, node)
			for ; at&1 == 0; at >>= 1 {
				last >>= 1
			}
		} else {
			node = nodeHash(node, sibling)
		}
		at, last = at>>1, last>>1
	}
	need(last == 0, "the path has fewer hashes than leaf %d of %d needs", index, size)
	need(node == root, "the path leads to root %s, expected %s", node, root)
}

// The parts of a receipt.

type record struct {
	topic             string
	partition, offset uint64
	timestamp         int64
	key, value        []byte
}

func readRecord(data []byte) (rec record) {
	r := &reader{data: data}
	r.array(9)
	r.mark("cairn/record/v1")
	rec = record{topic: r.text(), partition: r.uint32(), offset: r.uint(), timestamp: r.int()}
	rec.key, rec.value = r.bytesOrNil(), r.bytesOrNil()
	r.list(1024, func() { r.array(2); r.text(); r.bytesOrNil() }) // headers
	r.fixed(16)                                                   // the salt
	r.end()
	return rec
}

const (
	anchorType  = "application/vnd.cairn.anchor.v1+cbor"
	anchorsType = "application/vnd.cairn.anchors.v1+cbor"
	anchorsMin  = 2
	anchorsMax  = 256
	// A map of 1, label -65538.
	oneOfSeveral = "\xa1\x3a\x00\x01\x00\x01"
)

var (
	streamName  = regexp.MustCompile(`^([a-z][a-z0-9_]{0,62})\.[a-z][a-z0-9_]{0,62}$`)
	reserved    = []string{"cairn", "information_schema", "pg_catalog", "public", "datafusion"}
	segmentPath = regexp.MustCompile(`^[A-Za-z0-9._=/-]{1,512}$`)
)

type gap struct{ first, last uint64 }

type anchor struct {
	stream, segment                            string
	partition, first, last, count, quarantined uint64
	gaps                                       []gap
	least, greatest                            int64
	root, signer                               digest
	placed                                     *placed
}

// placed is where an anchor stands among those that were signed together.
type placed struct {
	index, count uint64
	path         []digest
	leaf, root   digest
}

// readAnchor reads the COSE_Sign1 envelope (RFC 9052, section 4.2) around an anchor: form, fields, signature. Where the
// anchor is out of several, placed is yet to be checked.
func readAnchor(entry []byte, key, tag digest) anchor {
	need(len(entry) <= statementBytesMax, "a statement has at most %d bytes", statementBytesMax)
	r := &reader{data: entry}
	r.literal("\xd2\x84", "tag 18 and an array of 4 items")
	protected := r.bytes()
	var place *placed
	var carried []byte
	if r.at < len(r.data) && r.data[r.at] == oneOfSeveral[0] {
		r.literal(oneOfSeveral, "one anchor at its place, as the only unprotected header")
		r.array(3)
		place = &placed{index: r.uint()}
		r.list(pathMax, func() { place.path = append(place.path, r.digest()) })
		carried = r.bytes()
		place.leaf = leafHash(carried)
	} else {
		r.literal("\xa0", "an empty map of unprotected headers")
	}
	payload, signature := r.bytes(), r.fixed(64)
	r.end()
	contentType, data, firstKey := anchorType, payload, 1
	if place != nil {
		contentType, data, firstKey = anchorsType, carried, 2
	}
	p := &reader{data: protected}
	p.literal("\xa3\x01\x27\x03", "a map of 3 headers, algorithm EdDSA, content type")
	p.mark(contentType)
	p.literal("\x04", "the key id")
	signer := p.digest()
	p.end()
	a := readAnchorMap(data, firstKey)
	a.signer, a.placed = signer, place
	a.check()
	if place != nil {
		place.count, place.root = readSummary(payload)
	}
	message := cbor("Signature1", protected, tag[:], payload)
	need(signedBy(key, message, signature), "the signature does not verify for identity %s", signer)
	return a
}

// readSummary reads what is signed about several anchors: how many, and the root over them.
func readSummary(payload []byte) (count uint64, root digest) {
	r := &reader{data: payload}
	r.literal("\xa3\x01", "a map of 3 pairs, map key 1")
	r.uint() // sequence
	r.literal("\x02", "map key 2")
	count = r.uint()
	r.literal("\x03", "map key 3")
	root = r.digest()
	r.end()
	need(anchorsMin <= count && count <= anchorsMax, "%d anchors in one statement", count)
	return count, root
}

// readAnchorMap reads an anchor's map: from key 1, the sequence, or without it from key 2.
func readAnchorMap(data []byte, firstKey int) (a anchor) {
	r := &reader{data: data}
	fields := []func(){
		func() { r.uint() }, // sequence
		func() { a.stream = r.text() },
		func() { a.partition = r.uint32() },
		func() { a.first = r.uint() },
		func() { a.last = r.uint() },
		func() {
			r.list(1024, func() { r.array(2); a.gaps = append(a.gaps, gap{r.uint(), r.uint()}) })
		},
		func() { a.count = r.uint() },
		func() { a.quarantined = r.uint() },
		func() { a.root = r.digest() },
		func() { a.least = r.int() },
		func() { a.greatest = r.int() },
		func() { r.digest() }, // schema
		func() { r.array(3); a.segment = r.text(); r.uint(); r.digest() },
		func() { r.digest() }, // previous
	}
	pairs := len(fields) + 1 - firstKey
	r.literal(string([]byte{0xa0 + byte(pairs)}), fmt.Sprintf("a map of %d pairs", pairs))
	for place, read := range fields {
		if place+1 < firstKey {
			continue
		}
		r.literal(string(rune(place+1)), fmt.Sprintf("map key %d", place+1))
		read()
	}
	r.end()
	return a
}

func (a anchor) check() {
	name := streamName.FindStringSubmatch(a.stream)
	need(name != nil && !slices.Contains(reserved, name[1]), "%q is not the name of a stream", a.stream)
	need(a.first <= a.last && a.last < 1<<63, "offsets %d to %d", a.first, a.last)
	missing, least := uint64(0), a.first
	for _, g := range a.gaps {
		inOrder := least <= g.first && g.first <= g.last && g.last <= a.last
		need(inOrder, "the gap %d to %d is out of order or out of the batch", g.first, g.last)
		missing, least = missing+g.last-g.first+1, g.last+2
	}
	count := a.last - a.first + 1 - missing
	need(a.count == count, "expected %d records, as offsets and gaps say, found %d", count, a.count)
	need(a.quarantined <= a.count, "%d of %d records are quarantined", a.quarantined, a.count)
	need(a.least <= a.greatest, "timestamps %d to %d", a.least, a.greatest)
	absolute := slices.ContainsFunc(strings.Split(a.segment, "/"), func(part string) bool {
		return part == "" || part == "." || part == ".."
	})
	need(segmentPath.MatchString(a.segment) && !absolute, "%q is not the path of a segment", a.segment)
}

// leafIndex is the place of the offset among the batch's leaves; false outside of the batch and in a gap.
func (a anchor) leafIndex(offset uint64) (uint64, bool) {
	if offset < a.first || offset > a.last {
		return 0, false
	}
	place := offset - a.first
	for _, g := range a.gaps {
		if g.first <= offset && offset <= g.last {
			return 0, false
		}
		if g.last < offset {
			place -= g.last - g.first + 1
		}
	}
	return place, true
}

func checkBatch(data []byte, rec record, a anchor, batch treePath) {
	need(rec.partition == a.partition, "the anchor is about partition %d", a.partition)
	index, found := a.leafIndex(rec.offset)
	need(found && index == batch.Index, "offset %d is not leaf %d of the batch", rec.offset, batch.Index)
	need(a.least <= rec.timestamp && rec.timestamp <= a.greatest, "the timestamp lies outside of the batch's")
	checkInclusion(leafHash(data), batch.Index, a.count, batch.Path, a.root)
}

type header struct {
	chainID                                                              string
	epoch, view, parentView, height, logSize                             uint64
	stateRoot, logRoot, validatorsHash, nextValidatorsHash, headerDigest digest
}

func readHeader(data []byte) (h header) {
	need(len(data) <= headerBytesMax, "a header has at most %d bytes, this one has %d", headerBytesMax, len(data))
	r := &reader{data: data}
	r.array(16)
	r.mark("cairn/header/v2")
	h.chainID, h.epoch, h.view, h.parentView = r.text(), r.uint(), r.uint(), r.uint()
	r.digest() // the proposer
	h.height = r.uint()
	r.uint()   // timestamp
	r.digest() // parent
	r.digest()
	r.uint() // statements root and count
	h.stateRoot, h.logRoot, h.logSize = r.digest(), r.digest(), r.uint()
	h.validatorsHash, h.nextValidatorsHash = r.digest(), r.digest()
	r.end()
	h.headerDigest = sha(data)
	return h
}

// The chain: committees and certificates.

// varint takes unsigned LEB128 of at most 64 bits in its shortest form from the front of data.
func varint(data *[]byte) (value uint64) {
	for shift := 0; shift < 64; shift += 7 {
		next := front(data, 1)[0]
		need(next != 0 || shift == 0, "a number of the certificate is not in its shortest form")
		need(shift < 63 || next < 2, "a number of the certificate is larger than 64 bits")
		value |= uint64(next&127) << shift
		if next < 128 {
			break
		}
	}
	return value
}

func front(data *[]byte, length int) []byte {
	need(length <= len(*data), "the certificate ends too early")
	taken := (*data)[:length]
	*data = (*data)[length:]
	return taken
}

// checkCertificate: more than two thirds of the keys (ascending) signed the header; returns how many.
func checkCertificate(data []byte, h header, keys []digest, tag digest) int {
	rest, n := data, len(keys)
	epoch, view, parentView := varint(&rest), varint(&rest), varint(&rest)
	payload := digest(front(&rest, 32))
	proposal := data[:len(data)-len(rest)]
	count := binary.BigEndian.Uint64(front(&rest, 8))
	need(count == uint64(n), "the certificate is of a set of %d validators, not of %d", count, n)
	var signers []digest
	for place, bits := range front(&rest, (n+7)/8) {
		for bit := range 8 {
			if bits>>bit&1 == 1 {
				need(8*place+bit < n, "the certificate counts a validator beyond the last one")
				signers = append(signers, keys[8*place+bit])
			}
		}
	}
	stated := varint(&rest)
	need(stated == uint64(len(signers)), "%d signatures are stated, %d bits are set", stated, len(signers))
	need(len(rest) == 64*len(signers), "%d signatures need %d bytes, found %d", stated, 64*len(signers), len(rest))
	need(payload == h.headerDigest, "the certificate is about %s, not %s", payload, h.headerDigest)
	sameViews := view == h.view && parentView == h.parentView
	need(epoch == h.epoch && (sameViews || view > h.view), "epoch or view are not the header's")
	quorum := n - (n-1)/3
	need(len(signers) >= quorum, "%d validators signed, %d are needed", stated, quorum)
	domain := bytes.Join([][]byte{[]byte("cairn/consensus/v1/"), tag[:], []byte("_FINALIZE")}, nil)
	message := bytes.Join([][]byte{{byte(len(domain))}, domain, proposal}, nil)
	for _, key := range signers {
		need(signedBy(key, message, front(&rest, 64)), "the signature of validator %s does not verify", key)
	}
	return len(signers)
}

func validatorsHash(keys []digest) digest {
	var items []any
	for _, key := range keys {
		items = append(items, key[:])
	}
	return sha(cbor("cairn/validators/v1", items))
}

func compare(a, b digest) int { return bytes.Compare(a[:], b[:]) }

// trusted is a committee and the first epoch that it certifies.
type trusted struct {
	keys       []digest
	firstEpoch uint64
}

// checkWalk goes from the validators of the genesis to those of the receipt.
func checkWalk(changes []change, g genesis) trusted {
	t := trusted{keys: g.keys}
	for _, c := range changes {
		h := readHeader(c.Header)
		need(h.height%g.epochBlocks == g.epochBlocks-1, "height %d is not the last of an epoch", h.height)
		checkHeader(h, g, t)
		checkCertificate(c.Certificate, h, t.keys, g.tag)
		n := len(c.Validators)
		ascending := len(slices.Compact(slices.Clone(c.Validators))) == n && slices.IsSortedFunc(c.Validators, compare)
		need(ascending && 1 <= n && n <= committeeMax, "expected 1 to 128 ascending keys")
		named := validatorsHash(c.Validators)
		need(h.nextValidatorsHash == named, "height %d names another committee", h.height)
		need(h.validatorsHash != named, "the committee does not change at height %d", h.height)
		t = trusted{keys: c.Validators, firstEpoch: h.epoch + 1}
	}
	return t
}

// checkHeader: it is of this chain, of an epoch of this committee, and names this committee.
func checkHeader(h header, g genesis, t trusted) {
	need(h.chainID == g.chainID, "the genesis is of chain %q, the header of %q", g.chainID, h.chainID)
	need(h.epoch == h.height/g.epochBlocks, "height %d does not lie in epoch %d", h.height, h.epoch)
	need(h.epoch >= t.firstEpoch, "epoch %d is before epoch %d, with which the committee begins", h.epoch, t.firstEpoch)
	need(h.validatorsHash == validatorsHash(t.keys), "height %d is of another committee", h.height)
}

// The file: JSON in exactly one form, so what was read is written again and compared.

type blob []byte

func (b blob) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, b), nil }
func (b *blob) UnmarshalText(text []byte) (err error) {
	*b, err = base64.StdEncoding.Strict().AppendDecode(nil, text)
	return err
}

type treePath struct {
	Index uint64   `json:"index"`
	Path  []digest `json:"path"`
}

type change struct {
	Header      blob     `json:"header"`
	Certificate blob     `json:"certificate"`
	Validators  []digest `json:"validators"`
}

type receipt struct {
	Format      string   `json:"format"`
	Record      blob     `json:"record"`
	Batch       treePath `json:"batch"`
	Anchor      blob     `json:"anchor"`
	Anchorer    digest   `json:"anchorer"`
	Log         treePath `json:"log"`
	Committees  []change `json:"committees"`
	Header      blob     `json:"header"`
	Certificate blob     `json:"certificate"`
	Checkpoint  *string  `json:"checkpoint"`
}

func readForm(data []byte, most int, into any) {
	need(len(data) <= most, "expected at most %d bytes, found %d", most, len(data))
	err := json.Unmarshal(data, into)
	need(err == nil, "not JSON of this form: %v", err)
	var again bytes.Buffer
	writer := json.NewEncoder(&again)
	writer.SetEscapeHTML(false)
	writer.SetIndent("", "  ")
	need(writer.Encode(into) == nil, "not JSON of this form")
	written := escape.ReplaceAllFunc(again.Bytes(), unescape)
	need(bytes.Equal(written, data), "not the one form of its content")
}

// escape finds every escape of a text, so that unescape meets none of them halfway.
var escape = regexp.MustCompile(`\\(?:u2028|u2029|.)`)

// unescape undoes what encoding/json escapes and others do not.
func unescape(text []byte) []byte {
	switch string(text) {
	case `\u2028`:
		return []byte("\u2028")
	case `\u2029`:
		return []byte("\u2029")
	}
	return text
}

func checkList[T any](list []T, most int) []T {
	need(list != nil && len(list) <= most, "expected a list of at most %d", most)
	return list
}

func checkChanges(changes []change) {
	for _, c := range checkList(changes, math.MaxInt) {
		for _, key := range checkList(c.Validators, math.MaxInt) {
			checkKey(key)
		}
	}
}

func readReceipt(data []byte) (r receipt) {
	readForm(data, receiptBytesMax, &r)
	need(r.Format == "cairn/receipt/v2", "expected format \"cairn/receipt/v2\", found %q", r.Format)
	checkKey(r.Anchorer)
	checkList(r.Batch.Path, pathMax)
	checkList(r.Log.Path, pathMax)
	checkChanges(r.Committees)
	return r
}

// The checkpoint: a C2SP signed note over the log, signed by validators and perhaps by others, who are not known here.

var (
	control    = regexp.MustCompile(`[\x00-\x09\x0b-\x1f]`)
	notInNames = regexp.MustCompile(`[\x00-\x20\x7f-\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}+]`)
)

type noteKey struct {
	key  digest
	kind byte
}

// noteKeys: every validator signs as the log (type 1) and as a cosigner (type 4); by name and four bytes of a hash.
func noteKeys(origin string, keys []digest) map[string][]noteKey {
	known := map[string][]noteKey{}
	for _, key := range keys {
		for kind, name := range map[byte]string{1: origin, 4: origin + "/validator/" + key.String()} {
			id := sha([]byte(name+"\n"), []byte{kind}, key[:])
			place := name + " " + string(id[:4])
			known[place] = append(known[place], noteKey{key, kind})
		}
	}
	return known
}

func (k noteKey) signed(text string, signature []byte) bool {
	if k.kind == 1 {
		return len(signature) == 64 && signedBy(k.key, []byte(text), signature)
	}
	if len(signature) != 72 {
		return false
	}
	seconds := binary.BigEndian.Uint64(signature)
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", seconds, text)
	return seconds < 1<<63 && signedBy(k.key, []byte(message), signature[8:])
}

// checkCheckpoint: it is over the header's log and no line by a validator is wrong; returns how many validators signed, and the
// number of other lines.
func checkCheckpoint(note string, h header, keys []digest) (by, others int) {
	need(len(note) <= noteBytesMax, "a note has at most %d bytes", noteBytesMax)
	need(!control.MatchString(note), "a note holds no control character but newlines")
	blank := strings.LastIndex(note, "\n\n")
	need(blank >= 0 && strings.HasSuffix(note[blank+2:], "\n"), "a note is a text, an empty line, and signature lines")
	text, lines := note[:blank+1], strings.Split(note[blank+2:len(note)-1], "\n")
	need(len(lines) <= noteLinesMax, "a note has at most %d signature lines", noteLinesMax)
	origin := "cairn/" + h.chainID
	want := fmt.Sprintf("%s\n%d\n%s\n", origin, h.logSize, base64.StdEncoding.EncodeToString(h.logRoot[:]))
	need(text == want, "the checkpoint says %q, the header %q", text, want)
	known, signers := noteKeys(origin, keys), map[digest]bool{}
	for _, line := range lines {
		rest, dash := strings.CutPrefix(line, "— ")
		name, encoded, space := strings.Cut(rest, " ")
		usable := 1 <= len(name) && len(name) <= 256 && !notInNames.MatchString(name)
		need(dash && space && usable, "%q is no signature line", line)
		var data blob
		need(data.UnmarshalText([]byte(encoded)) == nil, "%q is no signature line", line)
		need(len(data) > 4, "a signature line holds a key id of 4 bytes and a signature")
		candidates, valid := known[name+" "+string(data[:4])], false
		for _, candidate := range candidates {
			if candidate.signed(text, data[4:]) {
				signers[candidate.key], valid = true, true
			}
		}
		if !valid {
			others++
		}
		need(valid || len(candidates) == 0, "the signature line of %s does not verify", name)
	}
	need(len(signers) > 0, "none of the %d signature lines is by a validator", len(lines))
	return len(signers), others
}

// The genesis: what a verifier has to be given, and trusts. Its nodes check names, addresses and ranges.

type genesis struct {
	chainID     string
	tag         digest
	keys        []digest
	epochBlocks uint64
}

var kinds = map[string]uint64{"organisation": 1, "person": 2, "device": 3, "node": 4}

type genesisFile struct {
	Format      string `json:"format"`
	ChainID     string `json:"chain_id"`
	TimestampMs uint64 `json:"timestamp_ms"`
	Validators  []struct {
		Name      string `json:"name"`
		PublicKey digest `json:"public_key"`
		Address   string `json:"address"`
	} `json:"validators"`
	Identities []struct {
		Name      string `json:"name"`
		Kind      string `json:"kind"`
		PublicKey digest `json:"public_key"`
	} `json:"identities"`
	Parameters struct {
		EpochBlocks        uint64 `json:"epoch_blocks"`
		HeartbeatMs        uint64 `json:"heartbeat_ms"`
		BlockStatementsMax uint64 `json:"block_statements_max"`
		BlockBytesMax      uint64 `json:"block_bytes_max"`
		BatchRecordsMax    uint64 `json:"batch_records_max"`
		AbsenceEpochs      uint64 `json:"absence_epochs"`
		VoteEpochs         uint64 `json:"vote_epochs"`
	} `json:"parameters"`
}

// readGenesis reads chain id, tag, keys in ascending order and blocks of an epoch. White space does not matter.
func readGenesis(data []byte) (g genesis) {
	var file genesisFile
	p := &file.Parameters
	p.EpochBlocks, p.HeartbeatMs, p.BlockStatementsMax, p.BlockBytesMax = 200, 3000, 4096, 2_097_152
	p.BatchRecordsMax, p.AbsenceEpochs, p.VoteEpochs = 10_000_000, 3, 10
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&file)
	need(err == nil && !decoder.More(), "not JSON of this form: %v", err)
	need(file.Identities != nil && isWhole(data, file), "a field is missing, null or misspelt")
	need(file.Format == "cairn/genesis/v2", "expected format \"cairn/genesis/v2\", found %q", file.Format)
	validators, identities := []any{}, []any{}
	for _, v := range file.Validators {
		g.keys = append(g.keys, checkKey(v.PublicKey))
		validators = append(validators, []any{v.Name, v.PublicKey[:], v.Address})
	}
	for _, i := range file.Identities {
		need(kinds[i.Kind] > 0, "%q is no kind of identity", i.Kind)
		checkKey(i.PublicKey)
		identities = append(identities, []any{i.Name, kinds[i.Kind], i.PublicKey[:]})
	}
	slices.SortFunc(g.keys, compare)
	once := len(slices.Compact(slices.Clone(g.keys))) == len(g.keys)
	need(once && 1 <= len(g.keys) && len(g.keys) <= committeeMax, "expected 1 to 128 validators, each key once")
	need(p.EpochBlocks >= 2, "epochs of %d blocks", p.EpochBlocks)
	parameters := []any{p.EpochBlocks, p.HeartbeatMs, p.BlockStatementsMax, p.BlockBytesMax, p.BatchRecordsMax,
		p.AbsenceEpochs, p.VoteEpochs}
	g.tag = sha(cbor(file.Format, file.ChainID, file.TimestampMs, validators, identities, parameters))
	g.chainID, g.epochBlocks = file.ChainID, p.EpochBlocks
	return g
}

// isWhole: nothing was left out or passed over, as encoding/json does with null and with names in other case.
func isWhole(data []byte, file genesisFile) bool {
	again, _ := json.Marshal(file)
	var given, written map[string]any
	if json.Unmarshal(data, &given) != nil || json.Unmarshal(again, &written) != nil {
		return false
	}
	parameters, some := given["parameters"]
	if !some {
		parameters = map[string]any{}
	}
	if set, isMap := parameters.(map[string]any); isMap {
		for name, value := range written["parameters"].(map[string]any) {
			if _, some := set[name]; !some {
				set[name] = value
			}
		}
	}
	given["parameters"] = parameters
	return reflect.DeepEqual(given, written)
}

// steps is the step that is being taken, and a line for each that held.
type steps struct {
	name  string
	lines []string
}

func (s *steps) held(format string, details ...any) {
	s.lines = append(s.lines, fmt.Sprintf("ok  %-12s "+format, append([]any{s.name}, details...)...))
}

// verify returns the lines of a receipt or state proof that verifies; the error names the first step that does not hold.
func verify(data []byte, g genesis) ([]string, error) {
	s := &steps{name: "form"}
	err := attempt(func() {
		if bytes.HasPrefix(data, []byte("{\n  \"format\": \""+stateProofMark+"\"")) {
			verifyStateProof(s, data, g)
		} else {
			verifyReceipt(s, data, g)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("step %s: %w", s.name, err)
	}
	return s.lines, nil
}

func verifyReceipt(s *steps, data []byte, g genesis) {
	r := readReceipt(data)
	s.name = "record"
	rec := readRecord(r.Record)
	place := fmt.Sprintf("partition %d offset %d", rec.partition, rec.offset)
	s.held("topic %s %s, timestamp %d ms, key %s, value %s", rec.topic, place, rec.timestamp, length(rec.key),
		length(rec.value))
	s.name = "anchor"
	a := readAnchor(r.Anchor, r.Anchorer, g.tag)
	s.held("%s partition %d offsets %d–%d, %d records, signed by identity %s", a.stream, a.partition, a.first, a.last,
		a.count, a.signer)
	if p := a.placed; p != nil {
		s.name = "statement"
		checkInclusion(p.leaf, p.index, p.count, p.path, p.root)
		s.held("anchor %d of %d signed together leads to root %s", p.index, p.count, p.root)
	}
	s.name = "batch"
	checkBatch(r.Record, rec, a, r.Batch)
	s.held("leaf %d of %d leads to root %s", r.Batch.Index, a.count, a.root)
	s.name = "log"
	h := readHeader(r.Header)
	checkInclusion(leafHash(r.Anchor), r.Log.Index, h.logSize, r.Log.Path, h.logRoot)
	s.held("anchor %d of %d leads to root %s", r.Log.Index, h.logSize, h.logRoot)
	keys := verifyChain(s, h, r.Committees, r.Certificate, g)
	s.name = "checkpoint"
	if r.Checkpoint != nil {
		by, others := checkCheckpoint(*r.Checkpoint, h, keys)
		s.held("log of %d anchors, signed by %d of %d validators, %d lines by others", h.logSize, by, len(keys), others)
	}
	s.lines = append(s.lines, fmt.Sprintf("VERIFIED: the record at %s %s is final in chain %s at height %d", a.stream,
		place, h.chainID, h.height))
}

// verifyChain takes the steps that receipts and state proofs share: from the header to the genesis.
func verifyChain(s *steps, h header, changes []change, certificate []byte, g genesis) []digest {
	s.name = "committees"
	t := checkWalk(changes, g)
	n := len(t.keys)
	if len(changes) == 0 {
		s.held("the %d validators of the genesis", n)
	} else {
		s.held("%d changes since the genesis lead to %d validators", len(changes), n)
	}
	s.name = "header"
	checkHeader(h, g, t)
	s.held("chain %s, height %d, digest %s", h.chainID, h.height, h.headerDigest)
	s.name = "certificate"
	signed := checkCertificate(certificate, h, t.keys, g.tag)
	s.held("%d of %d validators signed", signed, n)
	return t.keys
}

func length(value []byte) string {
	if value == nil {
		return "none"
	}
	return fmt.Sprintf("%d bytes", len(value))
}

package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// State proofs: what the state says about a subject, or that it says nothing.

const (
	stateProofMark     = "cairn/state-proof/v1"
	stateProofBytesMax = 16 << 20
)

// subjects: kind, what is hashed in front, the fields in the file, the fields in the order of the hash.
var subjects = map[string]struct{ front, inFile, inHash string }{
	"identity": {"identity/", "id", "id"}, "key": {"key/", "key", "key"}, "sequence": {"sequence/", "id", "id"},
	"stream": {"stream/", "name", "name"}, "topic": {"topic/", "topic", "topic"},
	"role":   {"role/", "stream role identity", "role identity stream"},
	"head":   {"head/", "stream partition", "partition stream"},
	"anchor": {"anchor/", "id", "id"}, "validator": {"validator/", "key", "key"},
	"proposal": {"proposal/", "id", "id"}, "evidence": {"evidence/", "validator epoch view", "validator epoch view"},
	"committee": {"committee/current", "", ""}, "next_committee": {"committee/next", "", ""},
	"parameters": {"parameters/current", "", ""}, "next_parameters": {"parameters/next", "", ""},
	"attested": {"attested", "", ""},
}

var roles = map[string]byte{"anchorer": 1, "publisher": 2}

// subject has the fields of all kinds; each kind has its own of them, in this order.
type subject struct {
	Kind      string  `json:"kind"`
	ID        *digest `json:"id,omitempty"`
	Key       *digest `json:"key,omitempty"`
	Name      *string `json:"name,omitempty"`
	Topic     *string `json:"topic,omitempty"`
	Stream    *string `json:"stream,omitempty"`
	Role      *string `json:"role,omitempty"`
	Identity  *digest `json:"identity,omitempty"`
	Partition *uint32 `json:"partition,omitempty"`
	Validator *digest `json:"validator,omitempty"`
	Epoch     *uint64 `json:"epoch,omitempty"`
	View      *uint64 `json:"view,omitempty"`
}

// parts are the bytes of the fields that are there, as they are hashed.
func (s subject) parts() map[string][]byte {
	parts := map[string][]byte{}
	for name, value := range map[string]*digest{"id": s.ID, "key": s.Key, "identity": s.Identity, "validator": s.Validator} {
		if value != nil {
			parts[name] = value[:]
		}
	}
	for name, value := range map[string]*string{"name": s.Name, "topic": s.Topic, "stream": s.Stream} {
		if value != nil {
			parts[name] = []byte(*value)
		}
	}
	for name, value := range map[string]*uint64{"epoch": s.Epoch, "view": s.View} {
		if value != nil {
			parts[name] = binary.BigEndian.AppendUint64(nil, *value)
		}
	}
	if s.Partition != nil {
		parts["partition"] = binary.BigEndian.AppendUint32(nil, *s.Partition)
	}
	if s.Role != nil {
		need(roles[*s.Role] > 0, "%q is no role", *s.Role)
		parts["role"] = []byte{roles[*s.Role]}
	}
	return parts
}

// hash is the state's key for the subject.
func (s subject) hash() digest {
	kind, known := subjects[s.Kind]
	need(known, "%q is no kind of subject", s.Kind)
	parts, expected := s.parts(), strings.Fields(kind.inFile)
	need(len(parts) == len(expected), "expected the fields %q of a subject", expected)
	for _, key := range []*digest{s.Key, s.Validator} {
		if key != nil {
			checkKey(*key)
		}
	}
	hashed := [][]byte{[]byte(kind.front)}
	for _, name := range strings.Fields(kind.inHash) {
		need(parts[name] != nil, "expected the fields %q of a subject", expected)
		hashed = append(hashed, parts[name])
	}
	return sha(hashed...)
}

// step is a branch's bit, and the hash of the side not taken.
type step struct {
	bit     uint16
	sibling digest
}

func (s *step) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[2]any{&s.bit, &s.sibling})
}
func (s step) MarshalJSON() ([]byte, error) { return json.Marshal([2]any{s.bit, s.sibling}) }

type stateProof struct {
	Format      string     `json:"format"`
	Subject     subject    `json:"subject"`
	Value       *blob      `json:"value"`
	Path        []step     `json:"path"`
	Neighbour   *[2]digest `json:"neighbour"`
	Committees  []change   `json:"committees"`
	Header      blob       `json:"header"`
	Certificate blob       `json:"certificate"`
}

func bitOf(key digest, bit uint16) byte { return key[bit/8] >> (7 - bit%8) & 1 }

// checkState: the path leads from the root to the key's value, or to a neighbour where the key would be.
func (p stateProof) checkState(key, root digest) {
	for i, s := range p.Path {
		need(s.bit < 256 && (i == 0 || p.Path[i-1].bit < s.bit), "the bits of the path do not grow from 0 to 255")
	}
	var node digest
	switch {
	case p.Value != nil:
		need(p.Neighbour == nil, "expected a value or a neighbour, found both")
		value := sha(*p.Value)
		node = sha([]byte{0}, key[:], value[:])
	case p.Neighbour != nil:
		other, value := p.Neighbour[0], p.Neighbour[1]
		turns := slices.ContainsFunc(p.Path, func(s step) bool { return bitOf(other, s.bit) != bitOf(key, s.bit) })
		need(other != key && !turns, "the neighbour %s is no other key at the end of the path of %s", other, key)
		node = sha([]byte{0}, other[:], value[:])
	default:
		need(len(p.Path) == 0, "an empty state has no path")
	}
	for _, s := range slices.Backward(p.Path) {
		left, right := node, s.sibling
		if bitOf(key, s.bit) == 1 {
			left, right = right, left
		}
		node = sha([]byte{1, byte(s.bit >> 8), byte(s.bit)}, left[:], right[:])
	}
	need(node == root, "the path leads to %s, expected %s", node, root)
}

func verifyStateProof(s *steps, data []byte, g genesis) {
	var p stateProof
	readForm(data, stateProofBytesMax, &p)
	need(p.Format == stateProofMark, "expected format %q, found %q", stateProofMark, p.Format)
	key := p.Subject.hash()
	checkList(p.Path, 256)
	checkChanges(p.Committees)
	s.name = "header"
	h := readHeader(p.Header)
	verifyChain(s, h, p.Committees, p.Certificate, g)
	s.name = "state"
	p.checkState(key, h.stateRoot)
	found, verb := "nothing", "is not"
	if p.Value != nil {
		found, verb = "value "+sha(*p.Value).String(), "is"
	}
	s.held("%d steps lead to %s in root %s", len(p.Path), found, h.stateRoot)
	s.lines = append(s.lines, fmt.Sprintf("VERIFIED: the %s with key %s %s in the state of chain %s at height %d",
		p.Subject.Kind, key, verb, h.chainID, h.height))
}

// Checks a served Cairn log with nothing of Cairn's: golang.org/x/mod/sumdb/note opens its checkpoints, and
// golang.org/x/mod/sumdb/tlog reads its tiles and proves an anchor and the consistency of two checkpoints from them.
//
//	go run . -log URL -vkeys FILE -quorum N -index I -anchor FILE -older FILE
//
// FILE of -vkeys has one verifier key a line, those of log keys (0x01) and of cosigners (0x04). It prints one line that
// starts with "ok", or says what does not hold and exits with code 1.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	answerMax  = 32 << 20
)

func main() {
	log := flag.String("log", "", "address before /checkpoint")
	vkeys := flag.String("vkeys", "", "file of verifier keys")
	quorum := flag.Int("quorum", 0, "cosigners and log keys that must have signed, each")
	index := flag.Int64("index", 0, "place of the anchor")
	anchor := flag.String("anchor", "", "file of the anchor's bytes")
	older := flag.String("older", "", "file of an older checkpoint")
	flag.Parse()
	said, err := check(*log, *vkeys, *quorum, *index, *anchor, *older)
	if err != nil {
		fmt.Fprintln(os.Stderr, "does not verify:", err)
		os.Exit(1)
	}
	fmt.Println("ok", said)
}

func check(log, vkeys string, quorum int, index int64, anchorFile, olderFile string) (string, error) {
	known, err := readKeys(vkeys)
	if err != nil {
		return "", err
	}
	served, err := get(log+"/checkpoint", "text/plain; charset=utf-8")
	if err != nil {
		return "", err
	}
	tree, err := open(served, known, quorum)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	saved, err := os.ReadFile(olderFile)
	if err != nil {
		return "", err
	}
	before, err := open(saved, known, quorum)
	if err != nil {
		return "", fmt.Errorf("older checkpoint: %w", err)
	}
	anchor, err := os.ReadFile(anchorFile)
	if err != nil {
		return "", err
	}
	// TileHashReader checks every tile against the root of the checkpoint.
	reader := tlog.TileHashReader(tree, &tiles{log: log})
	if err := checkInclusion(tree, reader, index, anchor); err != nil {
		return "", err
	}
	if err := checkEntry(log, tree.N, index, anchor); err != nil {
		return "", err
	}
	if err := checkConsistency(tree, before, reader); err != nil {
		return "", err
	}
	return fmt.Sprintf("size %d, anchor %d, consistent with size %d", tree.N, index, before.N), nil
}

func checkInclusion(tree tlog.Tree, reader tlog.HashReader, index int64, anchor []byte) error {
	path, err := tlog.ProveRecord(tree.N, index, reader)
	if err != nil {
		return fmt.Errorf("tiles: %w", err)
	}
	if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(anchor)); err != nil {
		return fmt.Errorf("inclusion: %w", err)
	}
	return nil
}

func checkConsistency(tree, before tlog.Tree, reader tlog.HashReader) error {
	path, err := tlog.ProveTree(tree.N, before.N, reader)
	if err != nil {
		return fmt.Errorf("tiles: %w", err)
	}
	if err := tlog.CheckTree(path, tree.N, tree.Hash, before.N, before.Hash); err != nil {
		return fmt.Errorf("consistency: %w", err)
	}
	return nil
}

// checkEntry looks for the anchor's own bytes in its bundle.
func checkEntry(log string, size, index int64, anchor []byte) error {
	tile := tlog.Tile{H: tileHeight, L: -1, N: index >> tileHeight, W: width(size, index>>tileHeight)}
	bundle, err := get(log+"/"+strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1), "application/octet-stream")
	if err != nil {
		return err
	}
	for at := index &^ (1<<tileHeight - 1); ; at++ {
		if len(bundle) < 2 {
			return errors.New("the bundle ends before the anchor")
		}
		length := int(binary.BigEndian.Uint16(bundle))
		if len(bundle) < 2+length {
			return errors.New("the bundle's last entry is cut")
		}
		if at == index {
			if !bytes.Equal(bundle[2:2+length], anchor) {
				return errors.New("another entry stands at the anchor's place")
			}
			return nil
		}
		bundle = bundle[2+length:]
	}
}

func width(size, tile int64) int {
	return int(min(1<<tileHeight, size-tile<<tileHeight))
}

// open verifies a checkpoint and counts who signed it.
func open(text []byte, known note.Verifiers, quorum int) (tlog.Tree, error) {
	var tree tlog.Tree
	opened, err := note.Open(text, known)
	if err != nil {
		return tree, err
	}
	logs, cosigners := 0, 0
	origin, rest, _ := strings.Cut(opened.Text, "\n")
	for _, signature := range opened.Sigs {
		if signature.Name == origin {
			logs++
		} else {
			cosigners++
		}
	}
	if logs < quorum || cosigners < quorum {
		return tree, fmt.Errorf("signed by %d log keys and %d cosigners, expected %d of each", logs, cosigners, quorum)
	}
	lines := strings.Split(rest, "\n")
	if len(lines) != 3 || lines[2] != "" {
		return tree, fmt.Errorf("expected size and root, found %q", rest)
	}
	if tree.N, err = strconv.ParseInt(lines[0], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[1])
	return tree, err
}

// tiles fetches tiles over HTTP.
type tiles struct{ log string }

func (t *tiles) Height() int { return tileHeight }

func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range wanted {
		// The specification's paths leave out the height, which is always 8.
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		hashes, err := get(t.log+"/"+path, "application/octet-stream")
		if err != nil {
			return nil, err
		}
		data = append(data, hashes)
	}
	return data, nil
}

func get(url, kind string) ([]byte, error) {
	response, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerMax))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != kind {
		return nil, fmt.Errorf("%s: %s, %s: %s", url, response.Status, response.Header.Get("Content-Type"), body)
	}
	return body, nil
}

func readKeys(file string) (note.Verifiers, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys []note.Verifier
	for _, vkey := range strings.Fields(string(text)) {
		key, err := note.NewVerifier(vkey)
		if err != nil {
			// The standard library of notes knows 0x01 alone.
			key, err = newCosigner(vkey)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", vkey, err)
		}
		keys = append(keys, key)
	}
	return note.VerifierList(keys...), nil
}

// cosigner verifies cosignature/v1 lines (C2SP tlog-cosignature).
type cosigner struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("expected name+id+key")
	}
	id, err := hex.DecodeString(parts[1])
	if err != nil || len(id) != 4 {
		return nil, errors.New("expected an id of 8 digits")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return nil, errors.New("expected a key of algorithm 4")
	}
	return &cosigner{parts[0], binary.BigEndian.Uint32(id), key[1:]}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.id }

func (c *cosigner) Verify(message, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(signature)
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", seconds, message)
	return ed25519.Verify(c.key, []byte(signed), signature[8:])
}

// Package proof checks consistency proofs with golang.org/x/mod/sumdb/tlog.
package proof

import (
	"errors"
	"fmt"
	"math"

	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

// VerifyConsistency checks that the tree of size2 leaves begins with that of size1 leaves.
func VerifyConsistency(_ rfc6962.Hasher, size1, size2 uint64, path [][]byte, root1, root2 []byte) error {
	if size1 == 0 {
		// The witness asks this of its first checkpoint: every tree begins with the empty one, and no path is needed.
		if len(path) != 0 {
			return errors.New("a path from the empty tree")
		}
		return nil
	}
	if size1 > size2 || size2 > math.MaxInt64 {
		return fmt.Errorf("sizes %d and %d", size1, size2)
	}
	var hashes tlog.TreeProof
	for _, bytes := range path {
		hash, err := toHash(bytes)
		if err != nil {
			return err
		}
		hashes = append(hashes, hash)
	}
	older, err := toHash(root1)
	if err != nil {
		return err
	}
	newer, err := toHash(root2)
	if err != nil {
		return err
	}
	return tlog.CheckTree(hashes, int64(size2), newer, int64(size1), older)
}

// VerifySubtreeConsistency is not asked for: the witness signs no subtrees here.
func VerifySubtreeConsistency(rfc6962.Hasher, uint64, uint64, uint64, [][]byte, []byte, []byte) error {
	return errors.New("subtrees are not signed here")
}

func toHash(bytes []byte) (tlog.Hash, error) {
	if len(bytes) != tlog.HashSize {
		return tlog.Hash{}, fmt.Errorf("a hash of %d bytes", len(bytes))
	}
	return tlog.Hash(bytes), nil
}

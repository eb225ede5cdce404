// Package rfc6962 has the one hash that the witness asks for.
package rfc6962

import "crypto/sha256"

// Hasher is that of RFC 6962.
type Hasher struct{}

// DefaultHasher is the only one.
var DefaultHasher = Hasher{}

// EmptyRoot is the root of a tree without leaves.
func (Hasher) EmptyRoot() []byte {
	root := sha256.Sum256(nil)
	return root[:]
}

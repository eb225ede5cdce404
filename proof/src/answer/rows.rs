//! The canonical form of an answer's rows, and the roots over them.
//!
//! ```text
//! row  = CBOR [value…], a value for each column
//! leaf = SHA-256(0x00 ‖ row)                                        (RFC 9162, section 2.1.1)
//! rows root    = RFC 9162 root over the leaves in ascending order of their bytes, equal ones as often as they occur
//! ordered root = RFC 9162 root over the leaves in the order of the rows
//! ```
//!
//! SQL gives no order to rows unless it is asked for one, so the first root does not depend on it. Where the statement ends
//! with an `ORDER BY` the second one is given too; rows that it does not tell apart may still change places.
//!
//! | type | value |
//! | --- | --- |
//! | `null` | always null |
//! | `bool` | false or true |
//! | `int8` … `int64`, `uint8` … `uint64` | integer |
//! | `float32`, `float64` | 8 bytes: IEEE 754 binary64, big-endian; each NaN is 7ff8000000000000; −0 is not 0 |
//! | `decimal(p,s)` | text: digits with exactly s after the point, a `-` before negative ones |
//! | `text` | text |
//! | `bytes` | byte string |
//! | `date` | integer: days since 1970-01-01 |
//! | `time(unit)`, `timestamp(unit)`, `timestamp(unit,zone)`, `duration(unit)` | integer in the unit: `s`, `ms`, `us`, `ns`; a timestamp since 1970-01-01 UTC if it has a zone |
//! | `interval` | [months, days, nanoseconds] |
//! | `list(type)` | array of values |
//! | `struct(name type, …)` | array of values, in the order of the fields |
//! | `map(key type,value type)` | array of [key, value], in their order |
//!
//! Null stands for a missing value of any type. How values of an engine come into this form is the engine's part; here is
//! what is hashed.

use crate::digest::Digest;
use crate::tree::{self, Frontier};
use crate::units::TreeSize;

/// The bytes of a 64-bit float in canonical form.
#[must_use]
pub const fn float_bytes(value: f64) -> [u8; 8] {
    if value.is_nan() { [0x7f, 0xf8, 0, 0, 0, 0, 0, 0] } else { value.to_be_bytes() }
}

/// Hashes rows as they come. Holds 32 bytes for each of them.
#[derive(Debug, Clone, Default)]
pub struct RowsHasher {
    leaves: Vec<Digest>,
    /// Only where the order counts.
    ordered: Option<Frontier>,
}

/// What a [`RowsHasher`] has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsHash {
    /// How many rows there are.
    pub rows: TreeSize,
    /// The root that does not depend on their order.
    pub rows_root: Digest,
    /// The root in their order, if it was asked for.
    pub ordered_root: Option<Digest>,
}

impl RowsHasher {
    /// For the rows of an answer that is ordered, or not.
    #[must_use]
    pub fn new(ordered: bool) -> Self {
        Self { leaves: Vec::new(), ordered: ordered.then(Frontier::new) }
    }

    /// Takes the next row's canonical bytes.
    pub fn row(&mut self, row: &[u8]) {
        let leaf = tree::leaf_hash(row);
        if let Some(ordered) = &mut self.ordered {
            ordered.append(leaf);
        }
        self.leaves.push(leaf);
    }

    /// The roots over all rows.
    #[must_use]
    pub fn finish(mut self) -> RowsHash {
        self.leaves.sort_unstable();
        RowsHash {
            rows: TreeSize(self.leaves.len() as u64),
            rows_root: tree::root(&self.leaves),
            ordered_root: self.ordered.map(|ordered| ordered.root()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(ordered: bool, rows: &[&[u8]]) -> RowsHash {
        let mut hasher = RowsHasher::new(ordered);
        rows.iter().for_each(|row| hasher.row(row));
        hasher.finish()
    }

    #[test]
    fn the_rows_root_does_not_depend_on_their_order_and_the_ordered_one_does() {
        let (there, back) = (hash(true, &[b"a", b"b", b"c"]), hash(true, &[b"c", b"b", b"a"]));
        assert_eq!(there.rows_root, back.rows_root);
        assert_ne!(there.ordered_root, back.ordered_root);
        assert_eq!(hash(false, &[b"b", b"a", b"c"]).rows_root, there.rows_root);
        assert_eq!(hash(false, &[b"a"]).ordered_root, None);
    }

    #[test]
    fn equal_rows_count_as_often_as_they_occur() {
        let (once, twice) = (hash(false, &[b"a", b"b"]), hash(false, &[b"a", b"b", b"b"]));
        assert_ne!(once.rows_root, twice.rows_root);
        assert_eq!(twice.rows, TreeSize(3));
        assert_ne!(hash(false, &[b"a", b"a", b"b"]).rows_root, twice.rows_root);
        assert_eq!(hash(false, &[]).rows_root, tree::empty_root());
    }

    #[test]
    fn floats_have_one_form() {
        let quiet = f64::from_bits(0x7ff8_0000_0000_0001);
        assert_eq!(float_bytes(-quiet), float_bytes(f64::NAN));
        assert_ne!(float_bytes(0.0), float_bytes(-0.0));
        assert_eq!(hex::encode(float_bytes(1.5)), "3ff8000000000000");
    }
}

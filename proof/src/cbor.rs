//! Deterministic CBOR: a writer that can only produce it and a reader that accepts nothing else.
//!
//! Source: RFC 8949, section 4.2.1 (core deterministic encoding): shortest heads, definite lengths, map keys
//! in bytewise order. Cairn uses unsigned and negative integers, byte strings, UTF-8 text strings, arrays,
//! maps with unsigned integer keys, `null`, `false` and `true`. No floats and no tags appear in our payloads.
//! Not a general CBOR library: COSE envelopes go through `coset`.

/// Why bytes are not what the reader was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CBOR at byte {at}: expected {expected}, found {found}")]
pub struct CborError {
    /// Byte position at which reading failed.
    pub at: usize,
    /// What was asked for.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SIMPLE_FALSE: u8 = 0xf4;
const SIMPLE_TRUE: u8 = 0xf5;
const SIMPLE_NULL: u8 = 0xf6;

/// Appends deterministic CBOR items to a buffer. The caller keeps the order of map keys.
///
/// ```
/// let mut bytes = Vec::new();
/// let mut writer = cairn_proof::cbor::Writer::new(&mut bytes);
/// writer.array(2);
/// writer.text("a");
/// writer.unsigned(500);
/// assert_eq!(bytes, [0x82, 0x61, b'a', 0x19, 0x01, 0xf4]);
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    #[inline]
    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        // Each branch is taken only where the value fits: the shortest head is the only one.
        #[allow(clippy::cast_possible_truncation)]
        if value < 24 {
            self.out.push(major | value as u8);
        } else if value <= 0xff {
            self.out.extend_from_slice(&[major | 24, value as u8]);
        } else if value <= 0xffff {
            self.out.push(major | 25);
            self.out.extend_from_slice(&(value as u16).to_be_bytes());
        } else if value <= 0xffff_ffff {
            self.out.push(major | 26);
            self.out.extend_from_slice(&(value as u32).to_be_bytes());
        } else {
            self.out.push(major | 27);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    }

    /// An unsigned integer.
    #[inline]
    pub fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    /// A signed integer.
    #[inline]
    pub fn signed(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            Err(_) => self.head(NEGATIVE, !value as u64),
        }
    }

    /// A byte string.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) {
        self.head(BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// A byte string or `null`.
    #[inline]
    pub fn bytes_or_null(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bytes(value),
            None => self.null(),
        }
    }

    /// An unsigned integer or `null`.
    #[inline]
    pub fn unsigned_or_null(&mut self, value: Option<u64>) {
        match value {
            Some(value) => self.unsigned(value),
            None => self.null(),
        }
    }

    /// A text string.
    #[inline]
    pub fn text(&mut self, value: &str) {
        self.head(TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
    }

    /// The head of an array of `length` items, which follow.
    #[inline]
    pub fn array(&mut self, length: usize) {
        self.head(ARRAY, length as u64);
    }

    /// The head of a map of `length` pairs, which follow in bytewise order of their keys.
    #[inline]
    pub fn map(&mut self, length: usize) {
        self.head(MAP, length as u64);
    }

    /// `null`.
    #[inline]
    pub fn null(&mut self) {
        self.out.push(SIMPLE_NULL);
    }

    /// `true` or `false`.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { SIMPLE_TRUE } else { SIMPLE_FALSE });
    }
}

/// Reads deterministic CBOR from bytes that nobody vouches for. Never allocates on the word of a length.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// An error at the current position.
    #[must_use]
    pub fn error(&self, expected: impl Into<String>, found: impl Into<String>) -> CborError {
        CborError { at: self.at, expected: expected.into(), found: found.into() }
    }

    /// Ends reading.
    ///
    /// # Errors
    /// When bytes are left over.
    pub fn end(&self) -> Result<(), CborError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            rest => Err(self.error("the end", format!("{rest} more bytes"))),
        }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], CborError> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..length)) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.error(format!("{what} of {length} bytes"), format!("{} bytes", self.remaining()))),
        }
    }

    fn head(&mut self, what: &str) -> Result<(u8, u64), CborError> {
        let start = self.at;
        let first = self.take(1, what)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        let (value, least) = match info {
            0..=23 => return Ok((major, u64::from(info))),
            24 => (u64::from(self.take(1, what)?[0]), 24),
            25 => (self.big_endian(2, what)?, 0x100),
            26 => (self.big_endian(4, what)?, 0x1_0000),
            27 => (self.big_endian(8, what)?, 0x1_0000_0000),
            _ => {
                self.at = start;
                return Err(self.error(what, format!("an indefinite or reserved head 0x{first:02x}")));
            }
        };
        if value < least {
            self.at = start;
            return Err(self.error(format!("{what} with the shortest head"), format!("{value} in a longer one")));
        }
        Ok((major, value))
    }

    fn big_endian(&mut self, length: usize, what: &str) -> Result<u64, CborError> {
        Ok(self.take(length, what)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn expect(&mut self, major: u8, what: &str) -> Result<u64, CborError> {
        let start = self.at;
        let (found, value) = self.head(what)?;
        if found == major {
            return Ok(value);
        }
        self.at = start;
        Err(self.error(what, format!("major type {found}")))
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// When something else stands there, or the head is not the shortest.
    pub fn unsigned(&mut self) -> Result<u64, CborError> {
        self.expect(UNSIGNED, "an unsigned integer")
    }

    /// An unsigned integer of at most 32 bits.
    ///
    /// # Errors
    /// As [`Reader::unsigned`], and when it is larger.
    pub fn unsigned32(&mut self) -> Result<u32, CborError> {
        let value = self.unsigned()?;
        u32::try_from(value).map_err(|_| self.error("an integer of 32 bits", value.to_string()))
    }

    /// An unsigned integer or `null`.
    ///
    /// # Errors
    /// As [`Reader::unsigned`].
    pub fn unsigned_or_null(&mut self) -> Result<Option<u64>, CborError> {
        if self.null() { Ok(None) } else { self.unsigned().map(Some) }
    }

    /// A signed integer of 64 bits.
    ///
    /// # Errors
    /// When something else stands there, or it does not fit.
    pub fn signed(&mut self) -> Result<i64, CborError> {
        let (major, value) = self.head("an integer")?;
        let magnitude = i64::try_from(value).map_err(|_| self.error("an integer of 64 bits", value.to_string()))?;
        match major {
            UNSIGNED => Ok(magnitude),
            NEGATIVE => Ok(!magnitude),
            other => Err(self.error("an integer", format!("major type {other}"))),
        }
    }

    /// A byte string, borrowed.
    ///
    /// # Errors
    /// When something else stands there, or it is longer than the input.
    pub fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let length = self.expect(BYTES, "a byte string")?;
        let length = usize::try_from(length).map_err(|_| self.error("a byte string", "a length beyond memory"))?;
        self.take(length, "a byte string")
    }

    /// A byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes`], and when the length differs.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], CborError> {
        let bytes = self.bytes()?;
        bytes
            .try_into()
            .map_err(|_| self.error(format!("a byte string of {N} bytes"), format!("{} bytes", bytes.len())))
    }

    /// A text string, borrowed.
    ///
    /// # Errors
    /// When something else stands there, it is longer than the input, or it is not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, CborError> {
        let length = self.expect(TEXT, "a text string")?;
        let length = usize::try_from(length).map_err(|_| self.error("a text string", "a length beyond memory"))?;
        let bytes = self.take(length, "a text string")?;
        std::str::from_utf8(bytes).map_err(|_| self.error("UTF-8", "other bytes"))
    }

    /// A text string that must be `want`: the format mark at the start of each of our formats.
    ///
    /// # Errors
    /// When another text, or something else, stands there.
    pub fn mark(&mut self, want: &str) -> Result<(), CborError> {
        let found = self.text()?;
        if found == want { Ok(()) } else { Err(self.error(format!("{want:?}"), format!("{found:?}"))) }
    }

    /// The head of an array with at most `most` items; returns how many follow.
    ///
    /// # Errors
    /// When something else stands there, or there are more.
    pub fn array(&mut self, most: usize) -> Result<usize, CborError> {
        let length = self.expect(ARRAY, "an array")?;
        self.bounded(length, most, "items")
    }

    /// The head of an array of exactly `length` items.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn array_of(&mut self, length: usize) -> Result<(), CborError> {
        match self.array(length)? {
            found if found == length => Ok(()),
            found => Err(self.error(format!("an array of {length} items"), format!("{found} items"))),
        }
    }

    /// The head of a map of exactly `length` pairs.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn map_of(&mut self, length: usize) -> Result<(), CborError> {
        let found = self.expect(MAP, "a map")?;
        match self.bounded(found, length, "pairs")? {
            found if found == length => Ok(()),
            found => Err(self.error(format!("a map of {length} pairs"), format!("{found} pairs"))),
        }
    }

    /// The next key of a map with integer keys, which must be `want`.
    ///
    /// # Errors
    /// When another key, or something else, stands there.
    pub fn key(&mut self, want: u64) -> Result<(), CborError> {
        match self.unsigned()? {
            found if found == want => Ok(()),
            found => Err(self.error(format!("map key {want}"), format!("map key {found}"))),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn bool(&mut self) -> Result<bool, CborError> {
        match self.take(1, "a boolean")?[0] {
            SIMPLE_FALSE => Ok(false),
            SIMPLE_TRUE => Ok(true),
            other => {
                self.at -= 1;
                Err(self.error("a boolean", format!("0x{other:02x}")))
            }
        }
    }

    /// Whether `null` stands next; if so it is consumed.
    pub fn null(&mut self) -> bool {
        let is_null = self.bytes.get(self.at) == Some(&SIMPLE_NULL);
        self.at += usize::from(is_null);
        is_null
    }

    fn bounded(&self, found: u64, most: usize, what: &str) -> Result<usize, CborError> {
        // Each item takes one byte at least, so a count beyond the input is refused before anything is reserved.
        let limit = most.min(self.remaining());
        match usize::try_from(found) {
            Ok(found) if found <= limit => Ok(found),
            _ => Err(self.error(format!("at most {limit} {what}"), format!("{found} {what}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut bytes = Vec::new();
        write(&mut Writer::new(&mut bytes));
        hex::encode(bytes)
    }

    #[test]
    fn examples_of_rfc_8949_appendix_a() {
        for (value, want) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (100, "1864"),
            (1000, "1903e8"),
            (1_000_000, "1a000f4240"),
            (1_000_000_000_000, "1b000000e8d4a51000"),
            (u64::MAX, "1bffffffffffffffff"),
        ] {
            assert_eq!(written(|w| w.unsigned(value)), want);
        }
        for (value, want) in [(-1, "20"), (-10, "29"), (-100, "3863"), (-1000, "3903e7")] {
            assert_eq!(written(|w| w.signed(value)), want);
        }
        assert_eq!(written(|w| w.bytes(&[1, 2, 3, 4])), "4401020304");
        assert_eq!(written(|w| w.text("ü")), "62c3bc");
        assert_eq!(written(|w| w.bool(false)), "f4");
        assert_eq!(written(|w| w.null()), "f6");
    }

    #[test]
    fn refuses_what_is_not_deterministic() {
        for hex_text in ["1817", "190018", "1a0000ffff", "1b00000000ffffffff", "1f", "1c"] {
            let bytes = hex::decode(hex_text).unwrap();
            assert!(Reader::new(&bytes).unsigned().is_err(), "{hex_text}");
        }
        assert!(Reader::new(&[0x5f, 0x41, 0x00, 0xff]).bytes().is_err(), "indefinite length");
        assert!(Reader::new(&[0x61, 0xff]).text().is_err(), "not UTF-8");
    }

    #[test]
    fn lengths_beyond_the_input_take_no_memory() {
        let huge = hex::decode("5bffffffffffffffff").unwrap();
        assert!(Reader::new(&huge).bytes().is_err());
        let huge = hex::decode("9bffffffffffffffff").unwrap();
        assert!(Reader::new(&huge).array(usize::MAX).is_err());
    }

    proptest! {
        #[test]
        fn integers_round_trip(unsigned in any::<u64>(), signed in any::<i64>()) {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes);
            writer.unsigned(unsigned);
            writer.signed(signed);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.unsigned().unwrap(), unsigned);
            prop_assert_eq!(reader.signed().unwrap(), signed);
            reader.end().unwrap();
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.signed();
            let _ = reader.array(4);
            let _ = reader.text();
            let _ = reader.bytes();
        }
    }
}

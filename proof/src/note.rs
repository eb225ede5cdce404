//! Signed notes: text with one signature a line below it, and the keys that verify them (C2SP `signed-note`).
//!
//! ```text
//! note      = text ‖ "\n" ‖ line…              text ends in a newline; the last empty line ends it
//! line      = "— " ‖ key name ‖ " " ‖ base64(key id[4] ‖ signature) ‖ "\n"
//! key id    = SHA-256(key name ‖ "\n" ‖ algorithm ‖ public key)[..4]
//! vkey      = key name ‖ "+" ‖ hex(key id) ‖ "+" ‖ base64(algorithm ‖ public key)
//! 0x01      Ed25519 over the text
//! 0x04      u64 BE(time) ‖ Ed25519 over "cosignature/v1\ntime " ‖ time ‖ "\n" ‖ text      (C2SP `tlog-cosignature`)
//! ```
//!
//! A note has one form: what [`Note::parse`] takes is what [`Note::to_text`] writes, byte for byte. That is stricter
//! than the specification in one point: base64 whose unused bits are not zero is refused. A text means nothing before
//! a signature of a known key verified. This module knows nothing of logs; [`crate::checkpoint`] does.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::sha256;
use crate::identity::{KeyError, PublicKey, SIGNATURE_BYTES, SigningKey};

/// No note that is read here is longer. A note of 16 post-quantum signatures takes half of it.
pub const NOTE_BYTES_MAX: usize = 256 * 1024;
/// Most signature lines of a note; stock verifiers refuse more as well.
pub const SIGNATURES_MAX: usize = 100;
/// Longest name of a key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 256;
/// Latest time that a cosignature may name, in seconds since 1970-01-01 UTC.
pub const COSIGNATURE_TIME_MAX: u64 = i64::MAX as u64;

const DASH: &str = "— ";
const KEY_ID_BYTES: usize = 4;
const TIME_BYTES: usize = 8;

/// Why a note, a line or a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The bytes are no signed note.
    #[error("not a signed note: expected {expected}, found {found}")]
    Form {
        /// What belongs there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// The text is no verifier key.
    #[error("not a verifier key (name+id+base64): expected {expected}, found {found}")]
    Key {
        /// What belongs there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A line of a known key does not verify: the note is refused as a whole.
    #[error("the signature line of {name} with key id {id} does not verify")]
    Signature {
        /// The key's name.
        name: String,
        /// The key's id.
        id: KeyId,
    },
    /// No line is by a known key.
    #[error("none of the {lines} signature lines is by a known key")]
    Unsigned {
        /// How many lines there are.
        lines: usize,
    },
}

impl NoteError {
    fn form(expected: &'static str, found: impl Into<String>) -> Self {
        Self::Form { expected, found: found.into() }
    }

    fn key(expected: &'static str, found: impl Into<String>) -> Self {
        Self::Key { expected, found: found.into() }
    }
}

/// The first four bytes of a hash over name, algorithm and key: it tells keys apart and proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; KEY_ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a signature is over, and what its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Ed25519 over the note's text.
    Ed25519,
    /// Ed25519 over the note's text and a time, for checkpoints alone.
    CosignatureV1,
}

impl Algorithm {
    /// The byte that stands for it.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x01 => Some(Self::Ed25519),
            0x04 => Some(Self::CosignatureV1),
            _ => None,
        }
    }
}

/// Checks a key's name: 1 to 256 bytes without white space, control characters and '+'.
fn check_name(name: &str) -> bool {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    (1..=KEY_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed)
}

/// At most 60 characters of a text, for an error.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    format!("{cut:?}")
}

/// A key that verifies signature lines: name, algorithm, public key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifierKey {
    name: String,
    algorithm: Algorithm,
    key: PublicKey,
}

impl VerifierKey {
    /// The key with this name.
    ///
    /// # Errors
    /// When the name is empty, too long, or holds white space, a control character or '+'.
    pub fn new(name: &str, algorithm: Algorithm, key: PublicKey) -> Result<Self, NoteError> {
        if !check_name(name) {
            let expected = "a name of 1 to 256 bytes without white space and '+'";
            return Err(NoteError::key(expected, shown(name)));
        }
        Ok(Self { name: name.to_owned(), algorithm, key })
    }

    /// Reads `name+id+base64`, the form in which operators hand keys to each other.
    ///
    /// ```
    /// use cairn_proof::note::VerifierKey;
    /// let vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    /// assert_eq!(VerifierKey::parse(vkey)?.to_string(), vkey);
    /// # Ok::<(), cairn_proof::note::NoteError>(())
    /// ```
    ///
    /// # Errors
    /// When it has another form, an id that is not the key's, or an algorithm other than 0x01 and 0x04.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::key("three parts with '+' between them", shown(text)));
        };
        let bytes =
            STANDARD.decode(encoded).map_err(|error| NoteError::key("base64 after the id", error.to_string()))?;
        let Some((code, key)) = bytes.split_first() else {
            return Err(NoteError::key("an algorithm and a key", "nothing"));
        };
        let algorithm = Algorithm::from_code(*code).ok_or_else(|| {
            NoteError::key("algorithm 0x01 (Ed25519) or 0x04 (cosignature/v1)", format!("0x{code:02x}"))
        })?;
        let key: [u8; 32] =
            key.try_into().map_err(|_| NoteError::key("a key of 32 bytes", format!("{} bytes", key.len())))?;
        let key = PublicKey::from_bytes(key)
            .map_err(|error: KeyError| NoteError::key("a usable Ed25519 key", error.to_string()))?;
        let made = Self::new(name, algorithm, key)?;
        if made.id().to_string() != id {
            return Err(NoteError::key("the id that follows from name and key", format!("{id:?}")));
        }
        Ok(made)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The id that stands in this key's lines.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[self.algorithm.code()], self.key.as_bytes()]);
        let [a, b, c, d, ..] = hash.0;
        KeyId([a, b, c, d])
    }

    /// Whether name and id of `line` are this key's.
    #[must_use]
    pub fn names(&self, line: &SignatureLine) -> bool {
        self.name == line.name && self.id() == line.id
    }

    /// Signs `text` with the secret half of this key; a cosignature says `seconds` (since 1970-01-01 UTC).
    ///
    /// # Errors
    /// When `signer` is another key, or the time is beyond 2^63 − 1.
    pub fn sign(&self, signer: &SigningKey, text: &str, seconds: u64) -> Result<SignatureLine, NoteError> {
        if signer.public() != self.key {
            return Err(NoteError::key("the secret half of the key", format!("that of {}", signer.public())));
        }
        let signature = match self.algorithm {
            Algorithm::Ed25519 => signer.sign(text.as_bytes()).to_vec(),
            Algorithm::CosignatureV1 => {
                if seconds > COSIGNATURE_TIME_MAX {
                    return Err(NoteError::form("a time of at most 2^63 − 1 seconds", seconds.to_string()));
                }
                let signature = signer.sign(cosigned_message(seconds, text).as_bytes());
                [&seconds.to_be_bytes()[..], &signature].concat()
            }
        };
        Ok(SignatureLine { name: self.name.clone(), id: self.id(), signature })
    }

    /// Whether `line` is this key's signature of `text`, strictly; a cosignature tells its time in seconds.
    fn check(&self, text: &str, line: &SignatureLine) -> Option<Option<u64>> {
        match self.algorithm {
            Algorithm::Ed25519 => {
                let signature: &[u8; SIGNATURE_BYTES] = line.signature.as_slice().try_into().ok()?;
                self.key.verify(text.as_bytes(), signature).then_some(None)
            }
            Algorithm::CosignatureV1 => {
                let (time, signature) = line.signature.split_first_chunk::<TIME_BYTES>()?;
                let signature: &[u8; SIGNATURE_BYTES] = signature.try_into().ok()?;
                let seconds = u64::from_be_bytes(*time);
                let holds = seconds <= COSIGNATURE_TIME_MAX
                    && self.key.verify(cosigned_message(seconds, text).as_bytes(), signature);
                holds.then_some(Some(seconds))
            }
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let material = [&[self.algorithm.code()][..], self.key.as_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, self.id(), STANDARD.encode(material))
    }
}

impl std::str::FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        Self::parse(text)
    }
}

fn cosigned_message(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// One line below a note: who claims to have signed, and the bytes. Not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    name: String,
    id: KeyId,
    signature: Vec<u8>,
}

impl SignatureLine {
    /// A line of `key` with a signature that was made elsewhere; nothing is verified.
    #[must_use]
    pub fn new(key: &VerifierKey, signature: Vec<u8>) -> Self {
        Self { name: key.name.clone(), id: key.id(), signature }
    }

    /// Reads one line, without its newline.
    ///
    /// # Errors
    /// When it has another form than the module's picture shows.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let rest =
            line.strip_prefix(DASH).ok_or_else(|| NoteError::form("a line that starts with \"— \"", shown(line)))?;
        let (name, encoded) =
            rest.split_once(' ').ok_or_else(|| NoteError::form("key name, space, base64", shown(line)))?;
        if !check_name(name) {
            return Err(NoteError::form("a key name of 1 to 256 bytes without white space and '+'", shown(name)));
        }
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|error| NoteError::form("base64 after the key name", error.to_string()))?;
        match bytes.split_first_chunk::<KEY_ID_BYTES>() {
            Some((id, signature)) if !signature.is_empty() => {
                Ok(Self { name: name.to_owned(), id: KeyId(*id), signature: signature.to_vec() })
            }
            _ => Err(NoteError::form("a key id of 4 bytes and a signature", format!("{} bytes", bytes.len()))),
        }
    }

    /// Name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the key.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What the key made; its form is the algorithm's.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

impl fmt::Display for SignatureLine {
    /// The line, without its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.id.0[..], &self.signature].concat();
        write!(f, "{DASH}{} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A line that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Place of the line in the note, from 0.
    pub line: usize,
    /// Place of the key among those that were given, from 0.
    pub key: usize,
    /// When a cosignature says that it was made, in seconds since 1970-01-01 UTC.
    pub seconds: Option<u64>,
}

/// A text and the lines below it. Reading one verifies nothing: [`Note::verify`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// A note of `text` and `signatures`.
    ///
    /// # Errors
    /// When the text does not end in a newline or holds another control character, there is no signature or too many,
    /// or the whole is too long.
    pub fn new(text: &str, signatures: Vec<SignatureLine>) -> Result<Self, NoteError> {
        check_characters(text)?;
        if !text.ends_with('\n') {
            return Err(NoteError::form("a text that ends in a newline", shown(text)));
        }
        if signatures.is_empty() || signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::form("1 to 100 signature lines", signatures.len().to_string()));
        }
        let note = Self { text: text.to_owned(), signatures };
        let length = note.to_text().len();
        if length > NOTE_BYTES_MAX {
            return Err(NoteError::form("at most 262,144 bytes", length.to_string()));
        }
        Ok(note)
    }

    /// Reads a note, strictly.
    ///
    /// # Errors
    /// When the text is not what [`Note::to_text`] writes for its content.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::form("at most 262,144 bytes", note.len().to_string()));
        }
        check_characters(note)?;
        let (text, lines) = note
            .rsplit_once("\n\n")
            .ok_or_else(|| NoteError::form("an empty line between text and signatures", shown(note)))?;
        let lines = lines
            .strip_suffix('\n')
            .ok_or_else(|| NoteError::form("signature lines, each with a newline", shown(lines)))?;
        if lines.bytes().filter(|byte| *byte == b'\n').count() >= SIGNATURES_MAX {
            return Err(NoteError::form("1 to 100 signature lines", "more"));
        }
        let signatures = lines.split('\n').map(SignatureLine::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// The note as it is written.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("{}\n", self.text);
        for line in &self.signatures {
            out.push_str(&line.to_string());
            out.push('\n');
        }
        out
    }

    /// The text, its last newline included.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines, in order.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Checks every line that is by one of `keys`; lines by others are left out.
    ///
    /// The lines that verified come in their order, a key's second line too. A key id is short: where several keys have
    /// the same name and id, one of them has to verify the line.
    ///
    /// # Errors
    /// When a line by a known key does not verify, or no line is by a known key.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Vec<Signed>, NoteError> {
        let ids: Vec<KeyId> = keys.iter().map(VerifierKey::id).collect();
        let mut signed = Vec::new();
        for (at, line) in self.signatures.iter().enumerate() {
            let mut known = false;
            let by = keys.iter().enumerate().find_map(|(place, key)| {
                let candidate = key.name == line.name && ids[place] == line.id;
                known |= candidate;
                let seconds = if candidate { key.check(&self.text, line) } else { None };
                seconds.map(|seconds| Signed { line: at, key: place, seconds })
            });
            match by {
                Some(by) => signed.push(by),
                None if known => return Err(NoteError::Signature { name: line.name.clone(), id: line.id }),
                None => {}
            }
        }
        if signed.is_empty() { Err(NoteError::Unsigned { lines: self.signatures.len() }) } else { Ok(signed) }
    }
}

/// No control character below U+0020 but newlines.
fn check_characters(text: &str) -> Result<(), NoteError> {
    match text.chars().find(|c| *c < ' ' && *c != '\n') {
        Some(control) => Err(NoteError::form("no control character but newlines", format!("{control:?}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

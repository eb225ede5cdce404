//! Checkpoints: the log's origin, size and root as a signed note, signed by validators and perhaps by witnesses
//! (C2SP `tlog-checkpoint`, `tlog-cosignature`).
//!
//! ```text
//! text      = origin ‖ "\n" ‖ size ‖ "\n" ‖ base64(root) ‖ "\n" ‖ (extension ‖ "\n")…      origin = "cairn/" ‖ chain id
//! validator = log key   name origin, algorithm 0x01                            what stock verifiers of notes know
//!           + cosigner  name origin ‖ "/validator/" ‖ hex(key), algorithm 0x04  what verifiers of cosignatures know
//! ```
//!
//! Each validator signs in both ways with its consensus key. Cairn's own checkpoints have no extension lines, and
//! [`verify`] refuses a text that has some; [`Checkpoint`] reads those of other logs too.
//!
//! # Why no such signature can be taken for another
//!
//! The same key signs consensus messages, statements and proofs of possession. A message signed here begins with
//! `cairn/` (0x63 0x61, log key) or `cosignature/v1` and a newline (0x63 0x6f, cosigner).
//!
//! - A consensus message begins with the length of its namespace as a varint and goes on with the namespace, which
//!   begins with `cairn/consensus/v1/`. Its first byte is 0x3b or 0x3c for votes (namespaces of 59 and 60 bytes). Even one
//!   of 99 bytes (0x63) would have 0x63 as its second byte, where a message signed here has 0x61 or 0x6f.
//! - A statement is signed over a `COSE Sig_structure`, a CBOR array of four: its first byte is 0x84.
//! - A proof of possession begins with `cairn/possession/v1`, and every other domain of Cairn's likewise with `cairn/`, a
//!   word and `/`. In a checkpoint, the chain id (of a–z, 0–9, '.' and '-') follows `cairn/`, and then a newline.
//!
//! This module does not say how many validators must have signed: its callers compare with
//! [`quorum`](crate::certificate::quorum). What a signature by a witness is worth is said in `docs/operations.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;
use crate::header::Header;
use crate::identity::{PublicKey, SigningKey};
use crate::note::{Algorithm, KeyId, Note, NoteError, SignatureLine, VerifierKey};
use crate::tree;
use crate::units::TreeSize;

/// Most extension lines that are read.
const EXTENSIONS_MAX: usize = 16;
/// Longest origin or extension line, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it, or a signature.
    #[error("checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The text is no checkpoint, or not the one that was expected.
    #[error("checkpoint, {field}: expected {expected}, found {found}")]
    Field {
        /// Which line.
        field: &'static str,
        /// What belongs there.
        expected: String,
        /// What stands there.
        found: String,
    },
}

fn wrong(field: &'static str, expected: impl Into<String>, found: impl Into<String>) -> CheckpointError {
    CheckpointError::Field { field, expected: expected.into(), found: found.into() }
}

/// At most 80 characters of a line, for an error.
fn shown(line: &str) -> String {
    let cut: String = line.chars().take(80).collect();
    format!("{cut:?}")
}

/// The origin of a chain's log: `cairn/` and the chain id.
#[must_use]
pub fn origin(chain_id: &str) -> String {
    format!("cairn/{chain_id}")
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries.
    pub size: TreeSize,
    /// RFC 9162 root over them.
    pub root: Digest,
    /// Lines of the log's own meaning; Cairn's log has none.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// The checkpoint of the log as it is after `header`'s block.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        Self { origin: origin(&header.chain_id), size: header.log_size, root: header.log_root, extensions: Vec::new() }
    }

    /// The text that is signed.
    ///
    /// ```
    /// use cairn_proof::checkpoint::{Checkpoint, origin};
    /// use cairn_proof::{TreeSize, tree};
    /// let none = Checkpoint { origin: origin("city"), size: TreeSize(0), root: tree::empty_root(), extensions: vec![] };
    /// assert_eq!(none.text(), "cairn/city\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
    /// ```
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Reads the text of a checkpoint, strictly: what [`Checkpoint::text`] writes.
    ///
    /// # Errors
    /// When it has other lines, a size that is not the one decimal form of a number, or a root that is not 32 bytes.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let whole = text.strip_suffix('\n').ok_or_else(|| wrong("text", "lines that end in a newline", shown(text)))?;
        let lines: Vec<&str> = whole.split('\n').take(4 + EXTENSIONS_MAX).collect();
        let [origin, size, root, extensions @ ..] = lines.as_slice() else {
            return Err(wrong("text", "three lines at least", lines.len().to_string()));
        };
        if extensions.len() > EXTENSIONS_MAX {
            return Err(wrong("extensions", "at most 16 lines", "more"));
        }
        if let Some(line) = lines.iter().find(|line| line.is_empty() || line.len() > LINE_BYTES_MAX) {
            return Err(wrong("text", "lines of 1 to 1,024 bytes", format!("one of {}", line.len())));
        }
        let bytes = STANDARD.decode(root).map_err(|error| wrong("root", "base64 of 32 bytes", error.to_string()))?;
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| wrong("root", "base64 of 32 bytes", format!("{} bytes", bytes.len())))?;
        let checkpoint = Self {
            origin: (*origin).to_owned(),
            size: TreeSize(decimal(size).ok_or_else(|| wrong("size", "a decimal number below 2^64", shown(size)))?),
            root: Digest(bytes),
            extensions: extensions.iter().map(|line| (*line).to_owned()).collect(),
        };
        if checkpoint.size.0 == 0 && checkpoint.root != tree::empty_root() {
            return Err(wrong("root", "the hash of nothing for size 0", checkpoint.root.to_string()));
        }
        Ok(checkpoint)
    }

    /// Signs as `key`'s validator in both ways: as the log and as a cosigner at `seconds` since 1970-01-01 UTC.
    ///
    /// # Errors
    /// When the time is beyond 2^63 − 1.
    pub fn sign(&self, key: &SigningKey, seconds: u64) -> Result<[SignatureLine; 2], NoteError> {
        let text = self.text();
        let [log, cosigner] = validator_keys(&self.origin, key.public())?;
        Ok([log.sign(key, &text, seconds)?, cosigner.sign(key, &text, seconds)?])
    }
}

/// Reads the one decimal form of a number: no sign, no leading zero.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}

/// The two keys as which a validator signs checkpoints of the log `origin`: log key and cosigner.
///
/// # Errors
/// When the origin is no usable key name; a chain's is.
pub fn validator_keys(origin: &str, key: PublicKey) -> Result<[VerifierKey; 2], NoteError> {
    Ok([
        VerifierKey::new(origin, Algorithm::Ed25519, key)?,
        VerifierKey::new(&format!("{origin}/validator/{key}"), Algorithm::CosignatureV1, key)?,
    ])
}

/// Who signed a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// Validators of the committee with a line that verified, ascending, each once.
    pub validators: Vec<PublicKey>,
    /// Name and key id of every other line. They are not verified: whoever knows such a key calls [`witnessed`].
    pub others: Vec<(String, KeyId)>,
}

/// Checks that `text` is a checkpoint of the log `origin` and that every line by a validator of `committee` verifies.
///
/// ```
/// use cairn_proof::checkpoint::{Checkpoint, origin, verify};
/// use cairn_proof::identity::SigningKey;
/// use cairn_proof::note::Note;
/// use cairn_proof::{TreeSize, tree};
/// let keys = [1, 2, 3, 4].map(|seed| SigningKey::from_seed(&[seed; 32]));
/// let committee = keys.each_ref().map(SigningKey::public);
/// let root = tree::leaf_hash(b"an entry");
/// let checkpoint = Checkpoint { origin: origin("city"), size: TreeSize(1), root, extensions: vec![] };
/// let mut lines = Vec::new();
/// for key in &keys[..3] {
///     lines.extend(checkpoint.sign(key, 1_700_000_000)?);
/// }
/// let note = Note::new(&checkpoint.text(), lines)?.to_text();
/// let (found, cosigned) = verify("cairn/city", &committee, &note).unwrap();
/// assert_eq!((found, cosigned.validators.len()), (checkpoint, 3));
/// # Ok::<(), cairn_proof::note::NoteError>(())
/// ```
///
/// # Errors
/// When it is no signed note in its one form, no checkpoint of that log, has extension lines, a validator's line does not
/// verify, or no validator signed. How many did is for the caller to judge.
pub fn verify(origin: &str, committee: &[PublicKey], text: &str) -> Result<(Checkpoint, Cosigned), CheckpointError> {
    let note = Note::parse(text)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    if checkpoint.origin != origin {
        return Err(wrong("origin", format!("{origin:?}"), shown(&checkpoint.origin)));
    }
    if let Some(line) = checkpoint.extensions.first() {
        return Err(wrong("extensions", "none: Cairn's log has no extension lines", shown(line)));
    }
    let mut keys = Vec::with_capacity(2 * committee.len());
    for key in committee {
        keys.extend(validator_keys(origin, *key)?);
    }
    let signed = note.verify(&keys)?;
    let mut validators: Vec<PublicKey> = signed.iter().map(|signed| *keys[signed.key].key()).collect();
    validators.sort();
    validators.dedup();
    let ours = |at: usize| signed.iter().any(|signed| signed.line == at);
    let others = note.signatures().iter().enumerate().filter(|(at, _)| !ours(*at));
    let others = others.map(|(_, line)| (line.name().to_owned(), line.id())).collect();
    Ok((checkpoint, Cosigned { validators, others }))
}

/// Checks that `text` is the checkpoint of `header`, signed by validators of its committee.
///
/// # Errors
/// As [`verify`], and when size or root are not the header's.
pub fn verify_for(header: &Header, committee: &[PublicKey], text: &str) -> Result<Cosigned, CheckpointError> {
    let (checkpoint, cosigned) = verify(&origin(&header.chain_id), committee, text)?;
    if checkpoint.size != header.log_size {
        return Err(wrong("size", header.log_size.to_string(), checkpoint.size.to_string()));
    }
    if checkpoint.root != header.log_root {
        return Err(wrong("root", header.log_root.to_string(), checkpoint.root.to_string()));
    }
    Ok(cosigned)
}

/// When `witness` cosigned the checkpoint in `text`, in seconds since 1970-01-01 UTC; `None` when it did not.
///
/// Whether the log is the right one and who else signed is for [`verify`].
///
/// # Errors
/// When the text is no checkpoint, the key is not one for cosignatures, or a line by it does not verify.
pub fn witnessed(witness: &VerifierKey, text: &str) -> Result<Option<u64>, CheckpointError> {
    if witness.algorithm() != Algorithm::CosignatureV1 {
        return Err(wrong("witness key", "algorithm 0x04 (cosignature/v1)", format!("{:?}", witness.algorithm())));
    }
    let note = Note::parse(text)?;
    Checkpoint::parse(note.text())?;
    match note.verify(std::slice::from_ref(witness)) {
        Ok(signed) => Ok(signed.iter().filter_map(|signed| signed.seconds).max()),
        Err(NoteError::Unsigned { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;

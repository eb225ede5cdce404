//! Proofs that an entry stands in a log, as one text file (C2SP `tlog-proof@v1`).
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>                       left out when there is none
//! index <decimal>
//! <base64 of a hash>…                  RFC 9162 inclusion path, from the leaf up
//!
//! <checkpoint, a signed note>
//! ```
//!
//! The file has one form: what [`TlogProof::parse`] takes is what [`TlogProof::to_text`] writes. It does not hold the
//! entry, unless `extra` does. Cairn's files do, so that they verify with the genesis alone:
//!
//! ```text
//! extra = CBOR ["cairn/tlog-proof-extra/v1", anchor's entry, [[header, certificate, [key…]]…]]
//! ```
//!
//! The last item holds the committee changes up to the committee that signed the checkpoint, as in a receipt. Nobody
//! signs `extra`: the anchor is checked against the leaf, and the changes from the genesis on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Base64Bytes;
use crate::cbor::{CborError, Reader, Writer};
use crate::checkpoint::{self, Checkpoint, CheckpointError, Cosigned, decimal, origin};
use crate::committee::{Committee, CommitteeChange, CommitteeError, VALIDATORS_MAX, walk};
use crate::digest::Digest;
use crate::genesis::Genesis;
use crate::identity::{IdentityId, PublicKey};
use crate::note::{NOTE_BYTES_MAX, Note, NoteError};
use crate::statement::{Anchor, LoggedAnchor, StatementError};
use crate::tree::{self, PATH_MAX, TreeError};
use crate::units::LeafIndex;

/// The first line.
pub const TLOG_PROOF_MARK: &str = "c2sp.org/tlog-proof@v1";
/// The mark at the start of Cairn's extra data.
pub const EXTRA_MARK: &str = "cairn/tlog-proof-extra/v1";
/// Most committee changes in it.
const CHANGES_MAX: usize = 65_536;
/// Most bytes of extra data: a statement and the changes of 1,000 committees of some size.
pub const EXTRA_BYTES_MAX: usize = 8 * 1024 * 1024;
/// No file is longer.
pub const TLOG_PROOF_BYTES_MAX: usize = EXTRA_BYTES_MAX / 3 * 4 + NOTE_BYTES_MAX + 8 * 1024;

/// Why a proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// The text is no proof.
    #[error("not a tlog-proof, {line}: expected {expected}, found {found}")]
    Form {
        /// Which line.
        line: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// Its checkpoint is none.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its extra data is not Cairn's.
    #[error("extra data: {0}")]
    Extra(#[from] CborError),
    /// A committee change on the way from the genesis does not hold.
    #[error(transparent)]
    Committee(#[from] CommitteeError),
    /// The entry is not an anchor.
    #[error("the entry: expected an anchor, found {found}")]
    Entry {
        /// What it is.
        found: String,
    },
    /// Too few validators signed the checkpoint.
    #[error("{found} validators signed the checkpoint, {expected} are needed")]
    Quorum {
        /// How many are needed.
        expected: usize,
        /// How many signed.
        found: usize,
    },
    /// The entry does not stand there.
    #[error("inclusion: {0}")]
    Inclusion(#[from] TreeError),
}

impl From<NoteError> for TlogProofError {
    fn from(error: NoteError) -> Self {
        Self::Checkpoint(error.into())
    }
}

fn form(line: &'static str, expected: &'static str, found: &str) -> TlogProofError {
    let found: String = found.chars().take(80).collect();
    TlogProofError::Form { line, expected, found: format!("{found:?}") }
}

/// A proof as it stands in the file; nothing of it is verified by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Data beside the proof, signed by nobody. Not empty.
    pub extra: Option<Vec<u8>>,
    /// Place of the entry.
    pub index: LeafIndex,
    /// Hashes from the leaf up.
    pub path: Vec<Digest>,
    /// The checkpoint's note.
    pub checkpoint: Note,
}

impl TlogProof {
    /// Reads a file's text, strictly.
    ///
    /// # Errors
    /// When it is not what [`TlogProof::to_text`] writes for its content, or longer than the bounds.
    pub fn parse(text: &str) -> Result<Self, TlogProofError> {
        if text.len() > TLOG_PROOF_BYTES_MAX {
            return Err(form("file", "at most 11,458,219 bytes", &text.len().to_string()));
        }
        let (head, note) =
            text.split_once("\n\n").ok_or_else(|| form("file", "an empty line before the checkpoint", text))?;
        let mut lines = head.split('\n');
        match lines.next() {
            Some(TLOG_PROOF_MARK) => {}
            other => return Err(form("first line", TLOG_PROOF_MARK, other.unwrap_or_default())),
        }
        let mut line = lines.next().unwrap_or_default();
        let mut extra = None;
        if let Some(encoded) = line.strip_prefix("extra ") {
            extra = Some(read_extra(encoded)?);
            line = lines.next().unwrap_or_default();
        }
        let index = line.strip_prefix("index ").and_then(decimal);
        let index = index.ok_or_else(|| form("index", "\"index \" and a decimal number below 2^64", line))?;
        let path = lines.take(PATH_MAX + 1).map(read_hash).collect::<Result<Vec<_>, _>>()?;
        if path.len() > PATH_MAX {
            return Err(form("path", "at most 64 hashes", "more"));
        }
        let checkpoint = Note::parse(note)?;
        Checkpoint::parse(checkpoint.text())?;
        Ok(Self { extra, index: LeafIndex(index), path, checkpoint })
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("{TLOG_PROOF_MARK}\n");
        if let Some(extra) = &self.extra {
            out.push_str(&format!("extra {}\n", STANDARD.encode(extra)));
        }
        out.push_str(&format!("index {}\n", self.index));
        for hash in &self.path {
            out.push_str(&STANDARD.encode(hash.0));
            out.push('\n');
        }
        out.push('\n');
        out.push_str(&self.checkpoint.to_text());
        out
    }

    /// Checks that the entry with hash `leaf` stands at the index, in the tree of the checkpoint.
    ///
    /// Who signed the checkpoint is for [`crate::checkpoint::verify`]: without that, this proves nothing.
    ///
    /// # Errors
    /// When the path leads to another root, or is none for that place.
    pub fn verify_inclusion(&self, leaf: &Digest) -> Result<Checkpoint, TlogProofError> {
        let checkpoint = Checkpoint::parse(self.checkpoint.text())?;
        tree::verify_inclusion(leaf, self.index, checkpoint.size, &self.path, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

/// What an anchor's proof says once it verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAnchor {
    /// The anchor.
    pub anchor: Anchor,
    /// Who signed the anchor, as its envelope says; the chain checked that signature before it logged the anchor.
    pub anchorer: IdentityId,
    /// Its place in the log.
    pub index: LeafIndex,
    /// The log's head.
    pub checkpoint: Checkpoint,
    /// Who signed it.
    pub cosigned: Cosigned,
    /// The committee whose validators are counted.
    pub committee: Committee,
}

/// Cairn's extra data: what makes a proof stand alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// The log's entry: the anchor's envelope, or that of its statement with this one anchor.
    pub anchor: Vec<u8>,
    /// Every change of the committee since the genesis, oldest first.
    pub committees: Vec<CommitteeChange>,
}

impl Extra {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.array(3);
        writer.text(EXTRA_MARK);
        writer.bytes(&self.anchor);
        writer.array(self.committees.len());
        for change in &self.committees {
            writer.array(3);
            writer.bytes(&change.header.0);
            writer.bytes(&change.certificate.0);
            writer.array(change.validators.len());
            for key in &change.validators {
                writer.bytes(key.as_bytes());
            }
        }
        out
    }

    /// Reads the bytes, strictly.
    ///
    /// # Errors
    /// When they are not deterministic CBOR of the shape above.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        reader.array_of(3)?;
        reader.mark(EXTRA_MARK)?;
        let anchor = reader.bytes()?.to_vec();
        let count = reader.array(CHANGES_MAX)?;
        let mut committees = Vec::new();
        for _ in 0..count {
            reader.array_of(3)?;
            let header = Base64Bytes(reader.bytes()?.to_vec());
            let certificate = Base64Bytes(reader.bytes()?.to_vec());
            let mut validators = Vec::new();
            for _ in 0..reader.array(VALIDATORS_MAX)? {
                let key = PublicKey::from_bytes(reader.fixed()?);
                validators.push(key.map_err(|error| reader.error("a usable key", error.to_string()))?);
            }
            committees.push(CommitteeChange { header, certificate, validators });
        }
        reader.end()?;
        Ok(Self { anchor, committees })
    }
}

impl TlogProof {
    /// Checks a proof that Cairn wrote: the anchor in it stands in the log of the genesis' chain, whose head more than
    /// two thirds of the validators signed.
    ///
    /// # Errors
    /// Says what does not hold. A line by somebody unknown is no error: [`checkpoint::witnessed`] asks for witnesses.
    pub fn verify(&self, genesis: &Genesis) -> Result<VerifiedAnchor, TlogProofError> {
        let Some(extra) = &self.extra else {
            return Err(form("extra", "the anchor, as Cairn writes it", "none"));
        };
        let extra = Extra::decode(extra)?;
        let checkpoint = self.verify_inclusion(&tree::leaf_hash(&extra.anchor))?;
        let committee = walk(genesis, &extra.committees)?.committee;
        let log = origin(&genesis.chain_id);
        let (_, cosigned) = checkpoint::verify(&log, committee.keys(), &self.checkpoint.to_text())?;
        let (expected, found) = (committee.quorum(), cosigned.validators.len());
        if found < expected {
            return Err(TlogProofError::Quorum { expected, found });
        }
        let entry = |error: StatementError| TlogProofError::Entry { found: error.to_string() };
        let logged = LoggedAnchor::decode(&extra.anchor).map_err(entry)?;
        logged.verify_place().map_err(entry)?;
        let (anchorer, index) = (logged.signer(), self.index);
        let anchor = logged.into_anchor();
        Ok(VerifiedAnchor { anchor, anchorer, index, checkpoint, cosigned, committee })
    }
}

fn read_extra(encoded: &str) -> Result<Vec<u8>, TlogProofError> {
    let bytes = STANDARD.decode(encoded).map_err(|error| form("extra", "base64", &error.to_string()))?;
    if bytes.is_empty() || bytes.len() > EXTRA_BYTES_MAX {
        return Err(form("extra", "1 to 8,388,608 bytes", &bytes.len().to_string()));
    }
    Ok(bytes)
}

fn read_hash(line: &str) -> Result<Digest, TlogProofError> {
    let bytes = STANDARD.decode(line).map_err(|error| form("path", "base64 of 32 bytes", &error.to_string()))?;
    let bytes = bytes.try_into().map_err(|_| form("path", "base64 of 32 bytes", line))?;
    Ok(Digest(bytes))
}

#[cfg(test)]
mod tests;

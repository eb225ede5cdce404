//! A receipt: one file that proves one record, with the genesis alone.
//!
//! ```text
//! record ─leaf─▶ batch root in the anchor ─leaf─▶ log root in the header ─hash─▶ certificate ─keys─▶ committees ─▶ genesis
//! ```
//!
//! The anchor is an entry of the log. One that was signed together with others carries its path to the root that was signed.
//!
//! The file is JSON in exactly one form: what [`Receipt::to_json`] writes. Bytes that parse but are not that
//! form are refused, so that no bit of a receipt can be changed without notice; there are no comments in it. The one
//! exception lies in a checkpoint, where lines by keys that the verifier does not know mean nothing to it.
//!
//! The anchor is signed by `anchorer`, which need not be the first key of the identity that the anchor names: keys are
//! rotated. That it was the identity's key is what the chain checked before it took the anchor into its certified log.

mod checkpoint;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Cosigned;
use crate::committee::{Committee, CommitteeChange, Trusted, walk};
use crate::digest::Digest;
use crate::form;
use crate::genesis::Genesis;
use crate::header::Header;
use crate::identity::{IdentityId, PublicKey};
use crate::record::OwnedRecord;
use crate::statement::{Anchor, LoggedAnchor, StatementError};
use crate::tree::{self, PATH_MAX};
use crate::units::{LeafIndex, TreeSize};

pub use crate::base64_bytes::Base64Bytes;

/// The mark of the format.
pub const RECEIPT_MARK: &str = "cairn/receipt/v2";
/// No receipt file is longer: a record of 64 MiB in base64 and the proofs.
pub const RECEIPT_BYTES_MAX: usize = 96 * 1024 * 1024;

/// A place in a tree and the hashes from there to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreePath {
    /// Place of the leaf.
    pub index: LeafIndex,
    /// Hashes from the leaf up.
    pub path: Vec<Digest>,
}

/// Everything that proves one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`RECEIPT_MARK`].
    pub format: String,
    /// The record's canonical bytes, its salt among them.
    pub record: Base64Bytes,
    /// From the record's leaf to the anchor's records root.
    pub batch: TreePath,
    /// The anchor's entry in the log: its envelope, or the envelope of its statement with this one anchor.
    pub anchor: Base64Bytes,
    /// The key by which the anchor is signed.
    pub anchorer: PublicKey,
    /// From the anchor's leaf to the header's log root.
    pub log: TreePath,
    /// The ends of epochs at which the committee changed before the header, oldest first.
    pub committees: Vec<CommitteeChange>,
    /// The header's canonical bytes.
    pub header: Base64Bytes,
    /// The certificate over that header.
    pub certificate: Base64Bytes,
    /// The header's log as a signed note (C2SP `tlog-checkpoint`), where the maker had one.
    pub checkpoint: Option<String>,
}

/// A step of the verification, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepName {
    /// The file has the one form that a receipt has.
    Form,
    /// The record's canonical bytes decode.
    Record,
    /// The anchor's envelope decodes and is signed by the key that the receipt names.
    Anchor,
    /// The anchor is one of those that were signed together; taken only where there are several.
    Statement,
    /// The record lies in the anchor's offsets, and its leaf leads to the anchor's records root.
    Batch,
    /// The anchor leads to the log root of the header.
    Log,
    /// Each committee since the genesis was named by the one before it.
    Committees,
    /// The header is of the genesis' chain, and of the committee that was walked to.
    Header,
    /// More than two thirds of that committee signed the header.
    Certificate,
    /// The checkpoint is the header's, and validators signed it.
    Checkpoint,
}

impl StepName {
    /// The name in text output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Record => "record",
            Self::Anchor => "anchor",
            Self::Statement => "statement",
            Self::Batch => "batch",
            Self::Log => "log",
            Self::Committees => "committees",
            Self::Header => "header",
            Self::Certificate => "certificate",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// A step that held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which step.
    pub name: StepName,
    /// What was checked, in a sentence.
    pub detail: String,
}

/// The step that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {}: {reason}", step.name())]
pub struct ReceiptError {
    /// Which step.
    pub step: StepName,
    /// What was expected and what was found.
    pub reason: String,
}

/// What a receipt that verified says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The record.
    pub record: OwnedRecord,
    /// The anchor of its batch.
    pub anchor: Anchor,
    /// The identity that the anchor is by.
    pub anchorer: IdentityId,
    /// The certified header.
    pub header: Header,
    /// The committee that certified it.
    pub committee: Committee,
    /// Who signed the checkpoint, if there is one.
    pub checkpoint: Option<Cosigned>,
    /// Every step that was taken.
    pub steps: Vec<Step>,
}

impl Receipt {
    /// The file's bytes.
    ///
    /// # Errors
    /// Never for a receipt that fits into memory; the error is the serialiser's.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        form::write(self)
    }

    /// Reads a file's bytes, strictly.
    ///
    /// # Errors
    /// When they are not what [`Receipt::to_json`] writes for their content.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let fail = |reason: String| ReceiptError { step: StepName::Form, reason };
        let receipt: Self = form::read(bytes, RECEIPT_BYTES_MAX, "receipt").map_err(fail)?;
        if receipt.format != RECEIPT_MARK {
            return Err(fail(format!("expected format {RECEIPT_MARK:?}, found {:?}", receipt.format)));
        }
        if receipt.batch.path.len() > PATH_MAX || receipt.log.path.len() > PATH_MAX {
            return Err(fail(format!("a path has more than {PATH_MAX} hashes")));
        }
        Ok(receipt)
    }

    /// Checks every link from the record to the genesis' validators. Needs nothing else.
    ///
    /// # Errors
    /// Names the first step that does not hold, what was expected and what was found.
    pub fn verify(&self, genesis: &Genesis) -> Result<Verified, ReceiptError> {
        let mut steps = vec![];
        let mut held = |name, detail| steps.push(Step { name, detail });
        let record = self.check_record()?;
        held(StepName::Record, describe_record(&record));
        let logged = self.check_anchor(genesis)?;
        let (anchor, anchorer) = (logged.anchor(), logged.signer());
        let detail =
            format!("{} partition {} offsets {}–{}, ", anchor.stream, anchor.partition, anchor.first, anchor.last);
        held(StepName::Anchor, detail + &format!("{} records, signed by identity {anchorer}", anchor.count));
        if let Some(place) = logged.place() {
            let detail =
                format!("anchor {} of {} signed together leads to root {}", place.index, place.count, place.root);
            held(StepName::Statement, detail);
        }
        self.check_batch(&record, anchor)?;
        let detail = format!("leaf {} of {} leads to root {}", self.batch.index, anchor.count, anchor.records_root);
        held(StepName::Batch, detail);
        let header = self.check_log()?;
        held(
            StepName::Log,
            format!("anchor {} of {} leads to root {}", self.log.index, header.log_size, header.log_root),
        );
        let (trusted, mut ends) = self.check_final(&header, genesis)?;
        steps.append(&mut ends);
        let mut cosigned = None;
        if let Some(text) = &self.checkpoint {
            let (by, detail) = checkpoint::check(&header, &trusted.committee, text)?;
            steps.push(Step { name: StepName::Checkpoint, detail });
            cosigned = Some(by);
        }
        let committee = trusted.committee;
        let anchor = logged.into_anchor();
        Ok(Verified { record, anchor, anchorer, header, committee, checkpoint: cosigned, steps })
    }

    /// Walks to the header's committee, and checks that it certified the header.
    fn check_final(&self, header: &Header, genesis: &Genesis) -> Result<(Trusted, Vec<Step>), ReceiptError> {
        let trusted = walk(genesis, &self.committees).map_err(failed(StepName::Committees))?;
        trusted.check_header(genesis, header).map_err(failed(StepName::Header))?;
        let signed =
            trusted.check_certificate(genesis, header, &self.certificate.0).map_err(failed(StepName::Certificate))?;
        let of = trusted.committee.len();
        let walked = match self.committees.len() {
            0 => format!("the {of} validators of the genesis"),
            changes => format!("{changes} changes since the genesis lead to {of} validators"),
        };
        let place = format!("chain {}, height {}, digest {}", header.chain_id, header.height, header.digest());
        let steps = [
            (StepName::Committees, walked),
            (StepName::Header, place),
            (StepName::Certificate, format!("{signed} of {of} validators signed")),
        ];
        Ok((trusted, steps.map(|(name, detail)| Step { name, detail }).into()))
    }

    fn check_record(&self) -> Result<OwnedRecord, ReceiptError> {
        OwnedRecord::decode(&self.record.0).map_err(failed(StepName::Record))
    }

    fn check_anchor(&self, genesis: &Genesis) -> Result<LoggedAnchor, ReceiptError> {
        let logged = LoggedAnchor::decode(&self.anchor.0).map_err(failed(StepName::Anchor))?;
        match logged.verify(&self.anchorer, &genesis.tag()) {
            Ok(()) => Ok(logged),
            Err(error @ StatementError::Place(_)) => Err(failed(StepName::Statement)(error)),
            Err(error) => Err(failed(StepName::Anchor)(error)),
        }
    }

    fn check_batch(&self, record: &OwnedRecord, anchor: &Anchor) -> Result<(), ReceiptError> {
        let fail = |reason: String| ReceiptError { step: StepName::Batch, reason };
        if record.partition != anchor.partition {
            let (expected, found) = (anchor.partition, record.partition);
            return Err(fail(format!("the anchor is about partition {expected}, the record is of {found}")));
        }
        if anchor.leaf_index(record.offset) != Some(self.batch.index) {
            let reason = format!("offset {} is not leaf {} of the batch", record.offset, self.batch.index);
            return Err(fail(reason));
        }
        if !(anchor.timestamp_min_ms..=anchor.timestamp_max_ms).contains(&record.timestamp_ms) {
            let range = format!("{} to {}", anchor.timestamp_min_ms, anchor.timestamp_max_ms);
            return Err(fail(format!("timestamp {} lies outside of the batch's {range}", record.timestamp_ms)));
        }
        let leaf = tree::leaf_hash(&self.record.0);
        let size = TreeSize(anchor.count);
        tree::verify_inclusion(&leaf, self.batch.index, size, &self.batch.path, &anchor.records_root)
            .map_err(failed(StepName::Batch))
    }

    fn check_log(&self) -> Result<Header, ReceiptError> {
        let header = Header::decode(&self.header.0).map_err(failed(StepName::Log))?;
        let leaf = tree::leaf_hash(&self.anchor.0);
        tree::verify_inclusion(&leaf, self.log.index, header.log_size, &self.log.path, &header.log_root)
            .map_err(failed(StepName::Log))?;
        Ok(header)
    }
}

fn describe_record(record: &OwnedRecord) -> String {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or("none".to_owned(), |b| format!("{} bytes", b.len()));
    let place = format!("topic {} partition {} offset {}", record.topic, record.partition, record.offset);
    format!(
        "{place}, timestamp {} ms, key {}, value {}",
        record.timestamp_ms,
        length(&record.key),
        length(&record.value)
    )
}

fn failed<E: std::fmt::Display>(step: StepName) -> impl Fn(E) -> ReceiptError {
    move |error| ReceiptError { step, reason: error.to_string() }
}

#[cfg(test)]
mod tests;

//! What a stored segment says, recomputed: the common ground of proving one record and auditing all of them.

use crate::raw::{RawBatch, RawError};
use crate::roots::{AnchoredObject, PathError};
use crate::schema;
use crate::secrets::{SecretError, SecretStore};
use crate::segment::{self, Columns, SegmentError};
use crate::verified::{OpenError, VerifiedStore, VerifyError};
use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use cairn_chain_client::AnchorEntry;
use cairn_proof::record::BatchSecret;
use cairn_proof::signed_record::Sequences;
use cairn_proof::statement::Anchor;
use cairn_proof::{Digest, tree};
use std::sync::Arc;

/// Of a segment's end so much is read first: most footers are smaller.
const FOOTER_BYTES_GUESS: u64 = 64 << 10;

/// Why an anchor's evidence is not to be had, or says something else than the anchor.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The anchor names an object that cannot be its own.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The stored object, or its hash tree, is missing or altered.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The store cannot be read at all.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The object is what was anchored, and no segment.
    #[error("the segment {path} is what was anchored, but: {source}")]
    Segment {
        /// The object.
        path: String,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// The object is what was anchored, and does not hold the anchor's records.
    #[error("the segment {path} is what was anchored, but: {source}")]
    Rows {
        /// The object.
        path: String,
        /// What is wrong with it.
        source: RawError,
    },
    /// The batch secret is not to be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The leaves do not lead to the anchored root.
    #[error(
        "the records of segment {path} lead to the root {found}, anchored is {expected}: wrong secret, or a dishonest anchorer"
    )]
    Root {
        /// The object.
        path: String,
        /// The anchor's records root.
        expected: Digest,
        /// What the stored records lead to.
        found: Digest,
    },
    /// A task of ours ended before its work.
    #[error("the work on segment {path} ended early: {reason}")]
    Ended {
        /// The object.
        path: String,
        /// How.
        reason: String,
    },
}

/// The whole segment of an anchor, every byte of it verified.
pub(crate) async fn verified_segment(entry: &AnchorEntry, store: &VerifiedStore) -> Result<Bytes, EvidenceError> {
    let object = Arc::new(AnchoredObject::from_anchor(&entry.anchor, entry.block_timestamp_ms)?);
    let whole = 0..object.size;
    Ok(store.read(&object, std::slice::from_ref(&whole)).await?.swap_remove(0))
}

/// The partition's last sequence numbers after an anchor's batch, from the end of its segment, verified.
pub(crate) async fn sequences(entry: &AnchorEntry, store: &VerifiedStore) -> Result<Sequences, EvidenceError> {
    let object = Arc::new(AnchoredObject::from_anchor(&entry.anchor, entry.block_timestamp_ms)?);
    let wrong = |source| EvidenceError::Segment { path: entry.anchor.segment.path.clone(), source };
    let mut wanted = FOOTER_BYTES_GUESS;
    loop {
        let range = object.size.saturating_sub(wanted)..object.size;
        let end = store.read(&object, std::slice::from_ref(&range)).await?.swap_remove(0);
        let footer = segment::footer_bytes(&end).map_err(wrong)? as u64;
        if footer <= range.end - range.start || range.start == 0 {
            return segment::sequences(&end).map_err(wrong);
        }
        wanted = footer;
    }
}

/// The rows of a verified segment, and its records.
pub(crate) async fn records(
    anchor: &Anchor,
    segment: Bytes,
    columns: Columns,
) -> Result<(RecordBatch, RawBatch), EvidenceError> {
    let path = || anchor.segment.path.clone();
    let rows = segment::decode(segment, anchor.count, columns).await;
    let rows = rows.map_err(|source| EvidenceError::Segment { path: path(), source })?;
    let raw = RawBatch::from_rows(anchor.partition, anchor.first, anchor.last, &rows);
    Ok((rows, raw.map_err(|source| EvidenceError::Rows { path: path(), source })?))
}

/// Why the rows of a segment are quarantined; null where they are not.
pub(crate) fn reasons(anchor: &Anchor, rows: &RecordBatch) -> Result<StringArray, EvidenceError> {
    let found = rows.column_by_name(schema::ERROR);
    let reasons = found.and_then(|column| column.as_string_opt::<i32>()).cloned();
    reasons.ok_or_else(|| EvidenceError::Rows {
        path: anchor.segment.path.clone(),
        source: RawError::Column {
            column: schema::ERROR,
            expected: DataType::Utf8,
            found: found.map_or_else(|| "missing".to_owned(), |column| column.data_type().to_string()),
        },
    })
}

/// The batch secret of an anchor.
pub(crate) async fn secret(anchor: &Anchor, secrets: &SecretStore) -> Result<BatchSecret, EvidenceError> {
    let (secrets, path, root) = (secrets.clone(), anchor.segment.path.clone(), anchor.records_root);
    blocking(&anchor.segment.path, move || Ok(secrets.get(&path, &root)?)).await
}

/// The leaves of an anchor's records, if they lead to its root.
pub(crate) async fn leaves(
    anchor: &Anchor,
    topic: &str,
    raw: &RawBatch,
    secret: &BatchSecret,
) -> Result<Vec<Digest>, EvidenceError> {
    let (topic, raw, secret, expected) = (topic.to_owned(), raw.clone(), secret.clone(), anchor.records_root);
    let path = anchor.segment.path.clone();
    blocking(&anchor.segment.path, move || {
        let leaves = raw.leaves(&topic, &secret);
        let found = tree::root(&leaves);
        if found == expected { Ok(leaves) } else { Err(EvidenceError::Root { path, expected, found }) }
    })
    .await
}

/// Runs work that blocks or computes for long.
pub(crate) async fn blocking<T: Send + 'static>(
    path: &str,
    work: impl FnOnce() -> Result<T, EvidenceError> + Send + 'static,
) -> Result<T, EvidenceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|ended| Err(EvidenceError::Ended { path: path.to_owned(), reason: ended.to_string() }))
}

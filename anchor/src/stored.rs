//! One stored record, as its anchor has it: for whoever shows where a row comes from, and needs no proof of it.
//!
//! The record's segment is read whole and verified, so that what is shown is what was anchored. A proof that stands
//! alone is a receipt ([`crate::prove`]), which needs the batch secret too; this does not.

use crate::evidence::{self, EvidenceError};
use crate::segment::Columns;
use crate::verified::VerifiedStore;
use arrow::array::{Array, AsArray as _};
use cairn_chain_client::AnchorEntry;
use cairn_proof::{LeafIndex, Offset};

/// A record of a verified segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place among the leaves of its batch.
    pub leaf: LeafIndex,
    /// Kafka's timestamp, in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value, as it came.
    pub value: Option<Vec<u8>>,
    /// The headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Why it is quarantined, if it is.
    pub quarantined: Option<String>,
}

/// The record at `offset` of the batch that `entry` anchors; `None` where the topic holds none.
///
/// # Errors
/// The segment is missing, altered, or does not hold the anchor's records.
pub async fn stored_record(
    store: &VerifiedStore,
    entry: &AnchorEntry,
    offset: Offset,
) -> Result<Option<StoredRecord>, EvidenceError> {
    let anchor = &entry.anchor;
    let Some(leaf) = anchor.leaf_index(offset) else { return Ok(None) };
    let segment = evidence::verified_segment(entry, store).await?;
    let (rows, raw) = evidence::records(anchor, segment, Columns::Own).await?;
    let Some(row) = usize::try_from(leaf.0).ok().filter(|row| *row < raw.len()) else { return Ok(None) };
    let errors = rows.column_by_name(crate::schema::ERROR).and_then(|column| column.as_string_opt::<i32>());
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    Ok(Some(StoredRecord {
        leaf,
        timestamp_ms: raw.timestamps_ms()[row],
        key: owned(raw.key(row)),
        value: owned(raw.value(row)),
        headers: raw.headers(row).map(|(name, value)| (name.to_owned(), owned(value))).collect(),
        quarantined: errors.filter(|errors| errors.is_valid(row)).map(|errors| errors.value(row).to_owned()),
    }))
}

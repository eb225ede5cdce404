//! Everything stored, recomputed against the chain.
//!
//! For each anchor, in the order of the log:
//!
//! | check | recomputed | against |
//! | --- | --- | --- |
//! | `chain` | first offset, `previous` | the partition's anchor before |
//! | `object` | BLAKE3 of every byte of hash tree and segment | the anchor |
//! | `rows` | number of rows, offsets, gaps, partition | the anchor |
//! | `root` | rows → leaves → records root (needs the batch secret) | the anchor |
//! | `facts` | least and greatest timestamp, quarantined records, schema | the anchor, the stream |
//! | `columns` | `_raw` decoded again, signatures checked again, by a decoder that the caller brings | the stored columns |
//!
//! Not recomputed: whether the holder of a key had the right to publish when the record was checked, and whether a
//! sequence number had been used before. Records that are stored as quarantined for such a reason are taken as that; those
//! that are stored as good must have a signature that holds. The anchorer answers for the rest with its own signature.
//!
//! A single changed bit of a segment or a hash tree fails `object`. A batch whose secret was destroyed on purpose is noted
//! as such, and is no problem; nor is an object in the store that no anchor names (see [`crate::gc`]).

use crate::evidence::{self, EvidenceError};
use crate::prove::Sources;
use crate::raw::RawBatch;
use crate::roots::{Roots, SEGMENTS_FOLDER, outboard_path};
use crate::schema;
use crate::seal::DecodedColumns;
use crate::secrets::{SecretError, SecretStore};
use crate::segment::Columns;
use crate::store::{SegmentStore, StoreError, is_unfinished};
use crate::verified::OpenError;
use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use bytes::Bytes;
use cairn_chain_client::{AnchorEntry, Follower};
use cairn_proof::statement::{Anchor, ChainTag, StreamDefinition};
use cairn_proof::writer_schemas::WriterSchemas;
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most problems that a report spells out; further ones are counted.
pub const PROBLEMS_MAX: usize = 10_000;
/// Most orphans that a report names; further ones are counted.
pub const ORPHANS_MAX: usize = 1_000;
/// How many anchors are checked at a time.
const PARALLEL: usize = 2;

/// Decodes raw values again, as ingest did: the same values under the same definition give the same columns.
pub trait ValueDecoder: Send + Sync {
    /// The columns of a batch, nulls and a reason for each record that does not decode or is not authentic.
    ///
    /// `stored` are the reasons in the segment. Those that hang on the chain's state at the time, or on the records
    /// before, can be taken from there; all others follow from the records and the chain's tag. `writers` are the schemas
    /// in the segment's footer: those of framed values that the stream itself does not have.
    ///
    /// # Errors
    /// If the stream's definition cannot be decoded by at all.
    fn decode(
        &self,
        stream: &StreamDefinition,
        raw: &RawBatch,
        chain: &ChainTag,
        stored: &StringArray,
        writers: &WriterSchemas,
    ) -> Result<DecodedColumns, String>;
}

/// What was compared when a problem showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The anchor follows the one before.
    Chain,
    /// The stored bytes are those that were anchored.
    Object,
    /// The rows are the records that the anchor counts.
    Rows,
    /// The batch secret is there.
    Secret,
    /// The records lead to the anchored root.
    Root,
    /// Timestamps, quarantined records and schema are as anchored.
    Facts,
    /// The columns are what the raw values decode to.
    Columns,
}

/// Something that is not as the chain says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which check failed.
    pub check: Check,
    /// The stream.
    pub stream: String,
    /// The partition.
    pub partition: Partition,
    /// The anchor's first offset.
    pub first: Offset,
    /// The anchor's last offset.
    pub last: Offset,
    /// The stored object.
    pub object: String,
    /// The block that the anchor is in.
    pub block: Height,
    /// The anchor's place in the log.
    pub log_index: LeafIndex,
    /// What was expected and what was found.
    pub detail: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stream, partition, first, last, object, block, detail, .. } = self;
        write!(
            f,
            "stream {stream}, partition {partition}, offsets {first} to {last}, block {block}, {object}: {detail}"
        )
    }
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Anchors checked.
    pub anchors: u64,
    /// Anchors to check.
    pub anchors_total: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their segments.
    pub bytes: u64,
    /// Problems found.
    pub problems: u64,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The height that everything was compared with.
    pub height: Height,
    /// What was checked.
    pub checked: Progress,
    /// What is wrong, at most [`PROBLEMS_MAX`] of it; `checked.problems` counts all.
    pub problems: Vec<Problem>,
    /// Batches whose secret was destroyed: their roots cannot be recomputed any more, all else was.
    pub destroyed: Vec<String>,
    /// Objects that no anchor names, at most [`ORPHANS_MAX`] of them: left by a crash or a lost race, harmless.
    pub orphans: Vec<String>,
    /// How many such objects there are.
    pub orphans_total: u64,
}

impl Report {
    /// Whether everything is as the chain says.
    pub fn is_clean(&self) -> bool {
        self.checked.problems == 0
    }
}

/// Why there was no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The stream is not registered.
    #[error("stream {stream} is not registered; registered are: {known}")]
    UnknownStream {
        /// The stream.
        stream: String,
        /// Those that are.
        known: String,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listing broke off.
    #[error("the store cannot be listed: {0}")]
    List(#[from] object_store::Error),
}

/// What the anchors of the ledger are checked by.
struct Plan {
    height: Height,
    streams: BTreeMap<String, Arc<StreamDefinition>>,
    /// Each anchor with the one before it in its partition.
    anchors: Vec<(Arc<AnchorEntry>, Option<Arc<AnchorEntry>>)>,
    /// Paths that an anchor names, hash trees included.
    named: BTreeSet<Path>,
}

/// What one anchor's check brought.
#[derive(Default)]
struct Checked {
    problems: Vec<Problem>,
    destroyed: Option<String>,
}

/// Checks every anchor up to the height that the follower has reached, or those of one stream.
///
/// Reads everything anew, whatever other readers have cached. `progress` is called after each anchor.
///
/// # Errors
/// [`AuditError`], if it could not be done. What it finds wrong is in the report.
pub async fn audit(
    follower: &Follower,
    segments: &SegmentStore,
    secrets: &SecretStore,
    stream: Option<&str>,
    decoder: Arc<dyn ValueDecoder>,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, AuditError> {
    let plan = plan(follower, stream)?;
    // A store of its own: a hash tree that another one has verified and kept could have changed on disk since.
    let store = segments.verified(Arc::new(Roots::new()))?;
    let sources = Sources { follower, store: &store, secrets };
    let mut report = Report { height: plan.height, ..Report::default() };
    report.checked.anchors_total = plan.anchors.len() as u64;
    let checks = plan.anchors.iter().map(|(entry, before)| {
        let definition = plan.streams.get(&entry.anchor.stream).cloned();
        let decoder = Arc::clone(&decoder);
        async move { (entry, check(sources, entry, before.as_deref(), definition, decoder).await) }
    });
    let mut checks = stream::iter(checks).buffered(PARALLEL);
    while let Some((entry, checked)) = checks.next().await {
        report.checked.anchors += 1;
        report.checked.records += entry.anchor.count;
        report.checked.bytes += entry.anchor.segment.size;
        report.checked.problems += checked.problems.len() as u64;
        let room = PROBLEMS_MAX.saturating_sub(report.problems.len());
        report.problems.extend(checked.problems.into_iter().take(room));
        report.destroyed.extend(checked.destroyed);
        progress(&report.checked);
    }
    find_orphans(segments, stream, &plan.named, &mut report).await?;
    Ok(report)
}

fn plan(follower: &Follower, stream: Option<&str>) -> Result<Plan, AuditError> {
    let ledger = follower.ledger();
    if let Some(stream) = stream.filter(|stream| ledger.stream(stream).is_none()) {
        let known = ledger.streams().keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(AuditError::UnknownStream { stream: stream.to_owned(), known });
    }
    let mut last = BTreeMap::new();
    let (mut anchors, mut named) = (Vec::new(), BTreeSet::new());
    for entry in ledger.all_anchors().iter().filter(|entry| stream.is_none_or(|stream| entry.anchor.stream == stream)) {
        let place = (entry.anchor.stream.clone(), entry.anchor.partition);
        let before = last.insert(place, Arc::clone(entry));
        let path = Path::from(entry.anchor.segment.path.as_str());
        named.insert(outboard_path(&path));
        named.insert(path);
        anchors.push((Arc::clone(entry), before));
    }
    let definitions = ledger.streams().iter();
    let streams = definitions.map(|(name, entry)| (name.clone(), Arc::new(entry.definition.clone()))).collect();
    Ok(Plan { height: ledger.height(), streams, anchors, named })
}

/// All checks of one anchor.
async fn check(
    sources: Sources<'_>,
    entry: &Arc<AnchorEntry>,
    before: Option<&AnchorEntry>,
    definition: Option<Arc<StreamDefinition>>,
    decoder: Arc<dyn ValueDecoder>,
) -> Checked {
    let mut checked = Checked::default();
    let anchor = &entry.anchor;
    let mut wrong = |check, detail: String| checked.problems.push(problem(entry, check, detail));
    for detail in check_chain(anchor, before) {
        wrong(Check::Chain, detail);
    }
    let Some(definition) = definition else {
        wrong(Check::Chain, "the anchor's stream is not registered".to_owned());
        return checked;
    };
    let segment = match evidence::verified_segment(entry, sources.store).await {
        Ok(segment) => segment,
        Err(error) => {
            wrong(Check::Object, error.to_string());
            return checked;
        }
    };
    let (rows, raw) = match evidence::records(anchor, segment.clone(), Columns::All).await {
        Ok(records) => records,
        Err(error) => {
            wrong(Check::Rows, error.to_string());
            return checked;
        }
    };
    for detail in check_facts(anchor, &raw, &rows) {
        wrong(Check::Facts, detail);
    }
    let chain = *sources.follower.ledger().state().chain();
    match columns(entry, &definition, decoder, Stored { segment, rows, raw: raw.clone(), chain }).await {
        Ok(()) => {}
        Err((check, detail)) => wrong(check, detail),
    }
    match root(sources, anchor, &definition.topic, &raw).await {
        Ok(()) => {}
        Err(EvidenceError::Secret(SecretError::Destroyed { segment })) => checked.destroyed = Some(segment),
        Err(error @ EvidenceError::Secret(_)) => wrong(Check::Secret, error.to_string()),
        Err(error) => wrong(Check::Root, error.to_string()),
    }
    checked
}

async fn root(sources: Sources<'_>, anchor: &Anchor, topic: &str, raw: &RawBatch) -> Result<(), EvidenceError> {
    let secret = evidence::secret(anchor, sources.secrets).await?;
    evidence::leaves(anchor, topic, raw, &secret).await.map(drop)
}

/// That the anchor follows the one before, as the chain enforces (I1).
fn check_chain(anchor: &Anchor, before: Option<&AnchorEntry>) -> Vec<String> {
    let (next, previous) = before.map_or((Offset(0), Digest::ZERO), |entry| (entry.anchor.last.next(), entry.id));
    let mut wrong = Vec::new();
    if anchor.first != next {
        wrong.push(format!("the anchor begins at offset {}, the one before ends ahead of {next}", anchor.first));
    }
    if anchor.previous != previous {
        wrong.push(format!("the anchor names {} as the one before, it is {previous}", anchor.previous));
    }
    wrong
}

/// What an anchor says about its records, apart from their root.
fn check_facts(anchor: &Anchor, raw: &RawBatch, rows: &RecordBatch) -> Vec<String> {
    let mut wrong = Vec::new();
    if raw.gaps() != anchor.gaps {
        wrong.push(format!(
            "{} gaps are anchored, the stored offsets have {} or other ones",
            anchor.gaps.len(),
            raw.gaps().len()
        ));
    }
    let (least, greatest) = raw.timestamp_range_ms();
    if (least, greatest) != (anchor.timestamp_min_ms, anchor.timestamp_max_ms) {
        let anchored = format!("{} to {}", anchor.timestamp_min_ms, anchor.timestamp_max_ms);
        wrong.push(format!("timestamps {anchored} are anchored, the records have {least} to {greatest}"));
    }
    let quarantined = rows.column_by_name(schema::ERROR).map_or(0, |errors| errors.len() - errors.null_count());
    if quarantined as u64 != anchor.quarantined {
        wrong.push(format!(
            "{} records are anchored as quarantined, {quarantined} are stored as such",
            anchor.quarantined
        ));
    }
    wrong
}

/// A batch as it is stored, to be decoded again.
struct Stored {
    segment: Bytes,
    rows: RecordBatch,
    raw: RawBatch,
    chain: ChainTag,
}

/// Decodes the raw values again and compares with the stored columns.
async fn columns(
    entry: &AnchorEntry,
    definition: &Arc<StreamDefinition>,
    decoder: Arc<dyn ValueDecoder>,
    stored: Stored,
) -> Result<(), (Check, String)> {
    let Some(definition) = definition_at(definition, entry.anchor.schema_fingerprint) else {
        let found = entry.anchor.schema_fingerprint;
        return Err((
            Check::Facts,
            format!("the anchor was decoded by the schema {found}, which the stream does not have"),
        ));
    };
    let path = entry.anchor.segment.path.clone();
    let task = tokio::task::spawn_blocking(move || compare_columns(&definition, decoder.as_ref(), &stored));
    let result = task.await.unwrap_or_else(|ended| Err(format!("decoding the records of {path} ended with {ended}")));
    result.map_err(|detail| (Check::Columns, detail))
}

/// The definition as it was when its last schema had this fingerprint.
fn definition_at(definition: &Arc<StreamDefinition>, fingerprint: Digest) -> Option<Arc<StreamDefinition>> {
    let at = definition.schemas.iter().rposition(|version| version.fingerprint() == fingerprint)?;
    if at + 1 == definition.schemas.len() {
        return Some(Arc::clone(definition));
    }
    let mut older = definition.as_ref().clone();
    older.schemas.truncate(at + 1);
    Some(Arc::new(older))
}

fn compare_columns(definition: &StreamDefinition, decoder: &dyn ValueDecoder, stored: &Stored) -> Result<(), String> {
    let Stored { segment, rows, raw, chain } = stored;
    let writers = crate::segment::writer_schemas(segment).map_err(|error| error.to_string())?;
    let table = schema::table_schema(definition).map_err(|error| error.to_string())?;
    let errors = rows.column_by_name(schema::ERROR).and_then(|errors| errors.as_string_opt::<i32>());
    let errors = errors.ok_or_else(|| format!("column {} is missing, or holds no text", schema::ERROR))?;
    let decoded = decoder.decode(definition, raw, chain, errors, &writers)?;
    let columns = schema::conform(&decoded.batch, &table).map_err(|error| error.to_string())?;
    let expected = columns.schema_ref().fields().iter().map(|field| field.name().as_str()).zip(columns.columns());
    for (name, expected) in expected {
        let Some(found) = rows.column_by_name(name) else {
            return Err(format!("column {name} is missing"));
        };
        if found.data_type() != expected.data_type() {
            return Err(format!("column {name} is {}, it must be {}", found.data_type(), expected.data_type()));
        }
        if let Some(row) = first_difference(found.as_ref(), expected.as_ref()) {
            let offset = raw.offsets().get(row).copied().unwrap_or_default();
            return Err(format!("column {name} at offset {offset} is not what the raw value decodes to"));
        }
    }
    compare_quarantine(raw, rows, &decoded.errors)?;
    let expected = columns.num_columns() + schema::own_columns().len();
    if rows.num_columns() != expected {
        return Err(format!("the segment has {} columns, the stream and Cairn have {expected}", rows.num_columns()));
    }
    Ok(())
}

/// That the same records are quarantined. The reasons are for people and may be worded anew by a later version.
fn compare_quarantine(raw: &RawBatch, rows: &RecordBatch, expected: &StringArray) -> Result<(), String> {
    let found = rows.column_by_name(schema::ERROR).ok_or_else(|| format!("column {} is missing", schema::ERROR))?;
    let differs = |row: &usize| row >= &expected.len() || found.is_null(*row) != expected.is_null(*row);
    let Some(row) = (0..found.len()).find(differs) else {
        return Ok(());
    };
    let offset = raw.offsets().get(row).copied().unwrap_or_default();
    let is = |quarantined| if quarantined { "quarantined" } else { "not quarantined" };
    let (stored, decodes) = (is(found.is_valid(row)), is(row < expected.len() && expected.is_valid(row)));
    Err(format!("the record at offset {offset} is stored as {stored}; by its raw value it is {decodes}"))
}

/// The first row in which two arrays of one type differ.
fn first_difference(found: &dyn Array, expected: &dyn Array) -> Option<usize> {
    if found.len() != expected.len() {
        return Some(found.len().min(expected.len()));
    }
    if found == expected {
        return None;
    }
    // Halves: the difference is in the first unequal one.
    let (mut start, mut length) = (0, found.len());
    while length > 1 {
        let half = length / 2;
        if found.slice(start, half).as_ref() == expected.slice(start, half).as_ref() {
            start += half;
            length -= half;
        } else {
            length = half;
        }
    }
    Some(start)
}

/// Objects in the store that no anchor names.
async fn find_orphans(
    segments: &SegmentStore,
    stream: Option<&str>,
    named: &BTreeSet<Path>,
    report: &mut Report,
) -> Result<(), AuditError> {
    let folder = stream.map(|stream| Path::from(format!("{SEGMENTS_FOLDER}/{stream}")));
    let mut listed = segments.list()?;
    loop {
        let meta = match listed.try_next().await {
            Ok(Some(meta)) => meta,
            Ok(None) => return Ok(()),
            // A store without a single segment has no folder yet.
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let within = folder.as_ref().is_none_or(|folder| meta.location.prefix_matches(folder));
        if !within || named.contains(&meta.location) {
            continue;
        }
        report.orphans_total += 1;
        if report.orphans.len() < ORPHANS_MAX {
            let kind = if is_unfinished(&meta.location) { " (unfinished)" } else { "" };
            report.orphans.push(format!("{}{kind}", meta.location));
        }
    }
}

fn problem(entry: &AnchorEntry, check: Check, detail: String) -> Problem {
    let anchor = &entry.anchor;
    Problem {
        check,
        stream: anchor.stream.clone(),
        partition: anchor.partition,
        first: anchor.first,
        last: anchor.last,
        object: anchor.segment.path.clone(),
        block: entry.height,
        log_index: entry.log_index,
        detail,
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;

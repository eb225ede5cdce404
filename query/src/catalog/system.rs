//! The system tables of schema `cairn` that show the chain's own facts: no segment is read for them.
//!
//! `cairn.anchors`, one row for each finalized batch:
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `stream`, `partition` | text, int4 | whose records |
//! | `first_offset`, `last_offset` | int8 | the offsets that the batch accounts for, both included |
//! | `records`, `quarantined`, `missing` | int8 | records; of these, how many are quarantined; offsets in declared gaps |
//! | `timestamp_min`, `timestamp_max` | timestamptz | bounds of the records' timestamps; null for a batch without records |
//! | `records_root` | text | RFC 9162 root over the records' leaves, hexadecimal |
//! | `schema_fingerprint` | text | SHA-256 of the schema by which the columns were decoded |
//! | `segment`, `segment_bytes`, `segment_blake3` | text, int8, text | the stored object |
//! | `anchor`, `previous` | text | id of the anchor, and of the partition's previous one (null for the first) |
//! | `statement`, `place` | text, int4 | id of the statement that it came in; its place among that statement's anchors, null when it is the only one |
//! | `signer`, `log_index` | text, int8 | who anchored it; its place in the chain's log |
//! | `block`, `block_time` | int8, timestamptz | the block that finalized it |
//!
//! `cairn.blocks`, one row for each block: `block`, `time`, `hash` (of its header), `proposer` (the validator's key),
//! `statements` (how many), `state_root`, `log_size` (anchors in the log after it).
//!
//! `cairn.streams`: `stream`, `schema_name`, `table_name`, `topic`, `partitions`, `format`, `schema_id`,
//! `schema_versions`, `schema` (Avro, as JSON text), `key_fields`, `event_time`, `batch_records_max`,
//! `batch_bytes_max`, `batch_age_ms_max`, `gaps_allowed`, `anchorers`, `owner`, `block`; and of its anchors `anchored`
//! (batches), `records`, `quarantined`.
//!
//! `cairn.validators`, one row for each validator there ever was: `name`, `public_key`, `address`, `status` (active,
//! suspended, removed), `since` (the block of that status), `position` (its place in the committee that certifies the
//! next block, as certificates count; null if it is not in it), `proposals_made`, `proposals_missed`, `votes_seen` (in
//! attested certificates), `equivocations` (proven), `absent_epochs` (in a row).
//!
//! `cairn.committees`, one row for each member of each committee: `epoch` (its first), `block` (the first that it
//! certifies), `position`, `name`, `public_key`.
//!
//! `cairn.proposals`: `proposal`, `change`, `detail`, `status` (open, passed, expired), `votes` (names, in their order),
//! `missing` (votes, while it is open), `expires_epoch` (the last in which votes count), `opened` and `passed` (blocks).
//!
//! `cairn.parameters`: `name`, `value`.
//!
//! `cairn.identities`: `identity`, `did` (of its first key), `name`, `kind`, `status` (active, expired, revoked),
//! `public_key` (it signs with now), `controller` (null for those of the genesis and for validators), `block`, `revoked`
//! (block), `expires`.
//!
//! `cairn.keys`, one row for each key that an identity has or had: `public_key`, `identity`, `current` (it signs with it
//! now), `since` (the block from which on it was the identity's). It joins `cairn.records.publisher_key`.
//!
//! `cairn.schemas`, one row for each version of each stream's schema: `stream`, `version` (from 1), `schema_id` (in
//! Confluent framing), `fingerprint` (SHA-256 of the text, as anchors name it), `current`, `schema` (Avro, as JSON text).
//!
//! `cairn.problems`, one row for each batch that statements of this process found not to verify ([`crate::problems`]); no
//! fact of the chain, and the same at every height: `stream`, `partition`, `first_offset`, `last_offset`, `part` (segment,
//! hash tree, anchor), `object`, `block` (that finalized it), `what` (was expected and found), `since` and `last_seen`
//! (this machine's clock), `times` (that statements met it).
//!
//! `cairn.roles`: `stream`, `role`, `identity`, `granted`, `block` (in which that was said last).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, ListBuilder, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use cairn_anchor::schema::UTC;
use cairn_chain_client::{AnchorEntry, BlockSummary, KeyAt, RoleAt};
use cairn_proof::digest::Digest;
use cairn_proof::identity::PublicKey;
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::{Anchor, Change, StreamDefinition};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::facts::{signed, signed32};
use crate::problems::{Listed, Problems};
use crate::snapshot::{IdentityAt, ProposalAt, Snapshot, StreamAt, ValidatorAt};

/// How many rows go into one batch.
const BATCH_ROWS: usize = 8_192;

/// Which system table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SystemKind {
    Anchors,
    Blocks,
    Streams,
    Validators,
    Committees,
    Proposals,
    Parameters,
    Identities,
    Keys,
    Schemas,
    Roles,
    Problems,
}

/// A column: its name, its type, whether it may be null, and how its values come from rows.
struct Column<R: 'static> {
    name: &'static str,
    data_type: DataType,
    nullable: bool,
    values: fn(&[R]) -> ArrayRef,
}

fn text<R>(name: &'static str, values: fn(&[R]) -> ArrayRef) -> Column<R> {
    column(name, DataType::Utf8, values)
}

fn long<R>(name: &'static str, values: fn(&[R]) -> ArrayRef) -> Column<R> {
    column(name, DataType::Int64, values)
}

fn column<R>(name: &'static str, data_type: DataType, values: fn(&[R]) -> ArrayRef) -> Column<R> {
    Column { name, data_type, nullable: false, values }
}

impl<R> Column<R> {
    fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }
}

fn texts<T: ToString>(values: impl Iterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values.map(|value| value.to_string())))
}

fn optional_texts<T: ToString>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.map(|value| value.map(|value| value.to_string())).collect::<StringArray>())
}

fn longs(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(signed)))
}

fn optional_longs(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.map(|value| value.map(signed)).collect::<Int64Array>())
}

fn ints(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values.map(signed32)))
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMillisecondArray>().with_timezone(UTC))
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()))
}

fn text_list_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

fn text_lists<T: ToString>(values: impl Iterator<Item = Vec<T>>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for list in values {
        for text in list {
            lists.values().append_value(text.to_string());
        }
        lists.append(true);
    }
    let lists: ListArray = lists.finish();
    Arc::new(lists)
}

fn missing(anchor: &Anchor) -> u64 {
    anchor.gaps.iter().map(|gap| gap.last.0.saturating_sub(gap.first.0).saturating_add(1)).sum()
}

/// Ids of the statements that anchors came in. Those of one statement stand one after the other: it is hashed once.
fn statement_ids(rows: &[Arc<AnchorEntry>]) -> impl Iterator<Item = Digest> {
    let mut last: Option<(&Arc<[u8]>, Digest)> = None;
    rows.iter().map(move |row| match last {
        Some((statement, id)) if Arc::ptr_eq(statement, &row.statement) => id,
        _ => {
            let id = row.statement_id();
            last = Some((&row.statement, id));
            id
        }
    })
}

fn anchor_columns() -> Vec<Column<Arc<AnchorEntry>>> {
    fn time_bounds(rows: &[Arc<AnchorEntry>], of: fn(&Anchor) -> i64) -> ArrayRef {
        times(rows.iter().map(|row| (row.anchor.count > 0).then(|| of(&row.anchor))))
    }
    vec![
        text("stream", |rows| texts(rows.iter().map(|row| &row.anchor.stream))),
        column("partition", DataType::Int32, |rows| ints(rows.iter().map(|row| row.anchor.partition.0))),
        long("first_offset", |rows| longs(rows.iter().map(|row| row.anchor.first.0))),
        long("last_offset", |rows| longs(rows.iter().map(|row| row.anchor.last.0))),
        long("records", |rows| longs(rows.iter().map(|row| row.anchor.count))),
        long("quarantined", |rows| longs(rows.iter().map(|row| row.anchor.quarantined))),
        long("missing", |rows| longs(rows.iter().map(|row| missing(&row.anchor)))),
        column("timestamp_min", time_type(), |rows| time_bounds(rows, |anchor| anchor.timestamp_min_ms)).nullable(),
        column("timestamp_max", time_type(), |rows| time_bounds(rows, |anchor| anchor.timestamp_max_ms)).nullable(),
        text("records_root", |rows| texts(rows.iter().map(|row| row.anchor.records_root))),
        text("schema_fingerprint", |rows| texts(rows.iter().map(|row| row.anchor.schema_fingerprint))),
        text("segment", |rows| texts(rows.iter().map(|row| &row.anchor.segment.path))),
        long("segment_bytes", |rows| longs(rows.iter().map(|row| row.anchor.segment.size))),
        text("segment_blake3", |rows| texts(rows.iter().map(|row| row.anchor.segment.blake3))),
        text("anchor", |rows| texts(rows.iter().map(|row| row.id))),
        text("previous", |rows: &[Arc<AnchorEntry>]| {
            let previous = rows.iter().map(|row| row.anchor.previous);
            optional_texts(previous.map(|digest| (digest != Digest::ZERO).then_some(digest)))
        })
        .nullable(),
        text("statement", |rows: &[Arc<AnchorEntry>]| texts(statement_ids(rows))),
        column("place", DataType::Int32, |rows: &[Arc<AnchorEntry>]| {
            let places = rows.iter().map(|row| row.place.and_then(|place| i32::try_from(place.0).ok()));
            Arc::new(Int32Array::from_iter(places))
        })
        .nullable(),
        text("signer", |rows| texts(rows.iter().map(|row| row.signer))),
        long("log_index", |rows| longs(rows.iter().map(|row| row.log_index.0))),
        long("block", |rows| longs(rows.iter().map(|row| row.height.0))),
        column("block_time", time_type(), |rows| times(rows.iter().map(|row| Some(signed(row.block_timestamp_ms))))),
    ]
}

fn block_columns() -> Vec<Column<BlockSummary>> {
    vec![
        long("block", |rows| longs(rows.iter().map(|row| row.height.0))),
        column("time", time_type(), |rows| times(rows.iter().map(|row| Some(signed(row.timestamp_ms))))),
        text("hash", |rows| texts(rows.iter().map(|row| row.digest))),
        text("proposer", |rows| texts(rows.iter().map(|row| hex::encode(row.proposer)))),
        long("statements", |rows| longs(rows.iter().map(|row| row.statements))),
        text("state_root", |rows| texts(rows.iter().map(|row| row.state_root))),
        long("log_size", |rows| longs(rows.iter().map(|row| row.log_size.0))),
    ]
}

fn stream_columns() -> Vec<Column<StreamAt>> {
    fn sum(row: &StreamAt, of: fn(&Anchor) -> u64) -> u64 {
        row.anchors.iter().map(|entry| of(&entry.anchor)).sum()
    }
    vec![
        text("stream", |rows| texts(rows.iter().map(|row| &row.definition.name))),
        text("schema_name", |rows| texts(rows.iter().map(|row| row.definition.sql_name().0))),
        text("table_name", |rows| texts(rows.iter().map(|row| row.definition.sql_name().1))),
        text("topic", |rows| texts(rows.iter().map(|row| &row.definition.topic))),
        column("partitions", DataType::Int32, |rows| ints(rows.iter().map(|row| row.definition.partitions))),
        text("format", |rows| texts(rows.iter().map(|row| row.definition.format.name()))),
        long("schema_id", |rows| {
            longs(rows.iter().map(|row| row.definition.table_schema().map_or(0, |schema| u64::from(schema.id))))
        }),
        column("schema_versions", DataType::Int32, |rows| {
            ints(rows.iter().map(|row| u32::try_from(row.definition.schemas.len()).unwrap_or(u32::MAX)))
        }),
        text("schema", |rows: &[StreamAt]| {
            optional_texts(rows.iter().map(|row| row.definition.table_schema().map(|schema| &schema.text)))
        })
        .nullable(),
        column("key_fields", text_list_type(), |rows| {
            text_lists(rows.iter().map(|row| row.definition.key_fields.clone()))
        }),
        text("event_time", |rows: &[StreamAt]| {
            optional_texts(rows.iter().map(|row| row.definition.event_time.as_ref()))
        })
        .nullable(),
        long("batch_records_max", |rows| longs(rows.iter().map(|row| u64::from(row.definition.limits.records_max)))),
        long("batch_bytes_max", |rows| longs(rows.iter().map(|row| u64::from(row.definition.limits.bytes_max)))),
        long("batch_age_ms_max", |rows| longs(rows.iter().map(|row| u64::from(row.definition.limits.age_ms_max)))),
        column("gaps_allowed", DataType::Boolean, |rows| {
            Arc::new(rows.iter().map(|row| Some(row.definition.gaps_allowed)).collect::<BooleanArray>())
        }),
        column("anchorers", text_list_type(), |rows| {
            text_lists(rows.iter().map(|row| row.definition.anchorers.clone()))
        }),
        text("owner", |rows| texts(rows.iter().map(|row| row.owner))),
        long("block", |rows| longs(rows.iter().map(|row| row.registered.0))),
        long("anchored", |rows| longs(rows.iter().map(|row| row.anchors.len() as u64))),
        long("records", |rows| longs(rows.iter().map(|row| sum(row, |anchor| anchor.count)))),
        long("quarantined", |rows| longs(rows.iter().map(|row| sum(row, |anchor| anchor.quarantined)))),
    ]
}

fn validator_columns() -> Vec<Column<ValidatorAt>> {
    vec![
        text("name", |rows| texts(rows.iter().map(|row| &row.entry.name))),
        text("public_key", |rows| texts(rows.iter().map(|row| row.entry.public_key))),
        text("address", |rows| texts(rows.iter().map(|row| &row.entry.address))),
        text("status", |rows| texts(rows.iter().map(|row| row.entry.status.name()))),
        long("since", |rows| longs(rows.iter().map(|row| row.entry.since.0))),
        column("position", DataType::Int32, |rows: &[ValidatorAt]| {
            Arc::new(rows.iter().map(|row| row.position.map(signed32)).collect::<Int32Array>())
        })
        .nullable(),
        long("proposals_made", |rows| longs(rows.iter().map(|row| row.entry.proposals_made))),
        long("proposals_missed", |rows| longs(rows.iter().map(|row| row.entry.proposals_missed))),
        long("votes_seen", |rows| longs(rows.iter().map(|row| row.entry.votes_seen))),
        long("equivocations", |rows| longs(rows.iter().map(|row| row.entry.equivocations))),
        long("absent_epochs", |rows| longs(rows.iter().map(|row| row.entry.absent_epochs))),
    ]
}

/// A member of a committee.
struct Member {
    epoch: u64,
    block: u64,
    position: u32,
    name: String,
    key: PublicKey,
}

fn members(snapshot: &Snapshot) -> Vec<Member> {
    let names = names(snapshot);
    let mut rows = Vec::new();
    for at in &snapshot.committees {
        for (position, key) in (0..).zip(at.committee.keys()) {
            let name = names.get(key).copied().unwrap_or_default().to_owned();
            rows.push(Member { epoch: at.epoch, block: at.first.0, position, name, key: *key });
        }
    }
    rows
}

fn names(snapshot: &Snapshot) -> HashMap<PublicKey, &str> {
    snapshot.validators.iter().map(|row| (row.entry.public_key, row.entry.name.as_str())).collect()
}

fn committee_columns() -> Vec<Column<Member>> {
    vec![
        long("epoch", |rows| longs(rows.iter().map(|row| row.epoch))),
        long("block", |rows| longs(rows.iter().map(|row| row.block))),
        column("position", DataType::Int32, |rows| ints(rows.iter().map(|row| row.position))),
        text("name", |rows| texts(rows.iter().map(|row| &row.name))),
        text("public_key", |rows| texts(rows.iter().map(|row| row.key))),
    ]
}

/// A proposal, with the names of those whom it is about.
struct Proposal {
    at: ProposalAt,
    detail: String,
    voters: Vec<String>,
}

fn proposals(snapshot: &Snapshot) -> Vec<Proposal> {
    let names = names(snapshot);
    let name = |key: &PublicKey| names.get(key).map_or_else(|| key.to_string(), |name| (*name).to_owned());
    let proposal = |at: &ProposalAt| Proposal {
        detail: detail(&at.entry.change, name),
        voters: at.entry.votes.iter().map(name).collect(),
        at: at.clone(),
    };
    let mut rows: Vec<_> = snapshot.proposals.iter().map(proposal).collect();
    rows.sort_by_key(|row| (row.at.entry.height, row.at.entry.id));
    rows
}

fn detail(change: &Change, name: impl Fn(&PublicKey) -> String) -> String {
    match change {
        Change::AddValidator { public_key, name, address, .. } => format!("{name} at {address}, key {public_key}"),
        Change::RemoveValidator { public_key } | Change::Reinstate { public_key } => name(public_key),
        Change::SetAddress { public_key, address } => format!("{} at {address}", name(public_key)),
        Change::SetParameters(parameters) => {
            values(parameters).map(|(name, value)| format!("{name} = {value}")).join(", ")
        }
    }
}

fn proposal_columns() -> Vec<Column<Proposal>> {
    vec![
        text("proposal", |rows| texts(rows.iter().map(|row| row.at.entry.id))),
        text("change", |rows| texts(rows.iter().map(|row| row.at.entry.change.name()))),
        text("detail", |rows| texts(rows.iter().map(|row| &row.detail))),
        text("status", |rows| texts(rows.iter().map(|row| row.at.status))),
        column("votes", text_list_type(), |rows| text_lists(rows.iter().map(|row| row.voters.clone()))),
        column("missing", DataType::Int32, |rows| ints(rows.iter().map(|row| row.at.missing))),
        long("expires_epoch", |rows| longs(rows.iter().map(|row| row.at.entry.expires_epoch))),
        long("opened", |rows| longs(rows.iter().map(|row| row.at.entry.height.0))),
        long("passed", |rows: &[Proposal]| {
            optional_longs(rows.iter().map(|row| row.at.entry.passed.map(|height| height.0)))
        })
        .nullable(),
    ]
}

fn values(parameters: &Parameters) -> [(&'static str, u64); 7] {
    [
        ("epoch_blocks", parameters.epoch_blocks),
        ("heartbeat_ms", parameters.heartbeat_ms),
        ("block_statements_max", parameters.block_statements_max.into()),
        ("block_bytes_max", parameters.block_bytes_max.into()),
        ("batch_records_max", parameters.batch_records_max.into()),
        ("absence_epochs", parameters.absence_epochs.into()),
        ("vote_epochs", parameters.vote_epochs.into()),
    ]
}

fn parameter_columns() -> Vec<Column<(&'static str, u64)>> {
    vec![
        text("name", |rows| texts(rows.iter().map(|row| row.0))),
        long("value", |rows| longs(rows.iter().map(|row| row.1))),
    ]
}

fn identity_columns() -> Vec<Column<IdentityAt>> {
    vec![
        text("identity", |rows| texts(rows.iter().map(|row| row.entry.id))),
        text("did", |rows| texts(rows.iter().map(|row| row.entry.first_key.did()))),
        text("name", |rows| texts(rows.iter().map(|row| &row.entry.name))),
        text("kind", |rows| texts(rows.iter().map(|row| row.entry.kind.name()))),
        text("status", |rows| texts(rows.iter().map(|row| row.status))),
        text("public_key", |rows| texts(rows.iter().map(|row| row.entry.public_key))),
        text("controller", |rows: &[IdentityAt]| optional_texts(rows.iter().map(|row| row.entry.controller)))
            .nullable(),
        long("block", |rows| longs(rows.iter().map(|row| row.entry.height.0))),
        long("revoked", |rows: &[IdentityAt]| {
            optional_longs(rows.iter().map(|row| row.entry.revoked.map(|height| height.0)))
        })
        .nullable(),
        column("expires", time_type(), |rows: &[IdentityAt]| {
            times(rows.iter().map(|row| row.entry.expires_ms.map(signed)))
        })
        .nullable(),
    ]
}

/// A key, and whether its identity signs with it at this height.
type Key = (KeyAt, bool);

fn keys(snapshot: &Snapshot) -> Vec<Key> {
    let signs_with: HashMap<_, _> =
        snapshot.identities.iter().map(|row| (row.entry.id, row.entry.public_key)).collect();
    snapshot.keys.iter().map(|key| (*key, signs_with.get(&key.identity) == Some(&key.key))).collect()
}

fn key_columns() -> Vec<Column<Key>> {
    vec![
        text("public_key", |rows| texts(rows.iter().map(|row| row.0.key))),
        text("identity", |rows| texts(rows.iter().map(|row| row.0.identity))),
        column("current", DataType::Boolean, |rows: &[Key]| {
            Arc::new(rows.iter().map(|row| Some(row.1)).collect::<BooleanArray>())
        }),
        long("since", |rows| longs(rows.iter().map(|row| row.0.since.0))),
    ]
}

/// A stream, and the place of one of its schema's versions.
type Version = (Arc<StreamDefinition>, usize);

fn schemas(snapshot: &Snapshot) -> Vec<Version> {
    let of = |stream: &StreamAt| {
        let definition = Arc::clone(&stream.definition);
        (0..definition.schemas.len()).map(move |at| (Arc::clone(&definition), at)).collect::<Vec<_>>()
    };
    snapshot.streams.iter().flat_map(of).collect()
}

fn schema_columns() -> Vec<Column<Version>> {
    vec![
        text("stream", |rows| texts(rows.iter().map(|row| &row.0.name))),
        column("version", DataType::Int32, |rows| {
            ints((rows.iter()).map(|row| u32::try_from(row.1 + 1).unwrap_or(u32::MAX)))
        }),
        long("schema_id", |rows| longs(rows.iter().map(|row| u64::from(row.0.schemas[row.1].id)))),
        text("fingerprint", |rows| texts(rows.iter().map(|row| row.0.schemas[row.1].fingerprint()))),
        column("current", DataType::Boolean, |rows: &[Version]| {
            Arc::new(rows.iter().map(|row| Some(row.1 + 1 == row.0.schemas.len())).collect::<BooleanArray>())
        }),
        text("schema", |rows| texts(rows.iter().map(|row| &row.0.schemas[row.1].text))),
    ]
}

fn role_columns() -> Vec<Column<RoleAt>> {
    vec![
        text("stream", |rows| texts(rows.iter().map(|row| &row.stream))),
        text("role", |rows| texts(rows.iter().map(|row| row.role.name()))),
        text("identity", |rows| texts(rows.iter().map(|row| row.identity))),
        column("granted", DataType::Boolean, |rows| {
            Arc::new(rows.iter().map(|row| Some(row.granted)).collect::<BooleanArray>())
        }),
        long("block", |rows| longs(rows.iter().map(|row| row.height.0))),
    ]
}

fn problem_columns() -> Vec<Column<Listed>> {
    vec![
        text("stream", |rows| texts(rows.iter().map(|row| &row.problem.stream))),
        column("partition", DataType::Int32, |rows| ints(rows.iter().map(|row| row.problem.partition))),
        long("first_offset", |rows| longs(rows.iter().map(|row| row.problem.first))),
        long("last_offset", |rows| longs(rows.iter().map(|row| row.problem.last))),
        text("part", |rows| texts(rows.iter().map(|row| &row.problem.part))),
        text("object", |rows| texts(rows.iter().map(|row| &row.problem.object))),
        long("block", |rows: &[Listed]| optional_longs(rows.iter().map(|row| row.problem.block.map(|block| block.0))))
            .nullable(),
        text("what", |rows| texts(rows.iter().map(|row| &row.problem.what))),
        column("since", time_type(), |rows| times(rows.iter().map(|row| Some(row.since_ms)))),
        column("last_seen", time_type(), |rows| times(rows.iter().map(|row| Some(row.last_ms)))),
        long("times", |rows| longs(rows.iter().map(|row| row.times))),
    ]
}

fn schema_of<R>(columns: &[Column<R>]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|column| Field::new(column.name, column.data_type.clone(), column.nullable)).collect();
    Arc::new(Schema::new(fields))
}

fn batches_of<R>(columns: &[Column<R>], wanted: &[usize], rows: &[R]) -> Result<Vec<RecordBatch>> {
    let schema = project_schema(&schema_of(columns), Some(&wanted.to_vec()))?;
    rows.chunks(BATCH_ROWS)
        .map(|chunk| {
            let arrays: Vec<ArrayRef> = wanted.iter().map(|at| (columns[*at].values)(chunk)).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(chunk.len()));
            RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options).map_err(DataFusionError::from)
        })
        .collect()
}

/// One system table at one height.
#[derive(Debug)]
pub(crate) struct SystemTable {
    kind: SystemKind,
    schema: SchemaRef,
    snapshot: Arc<Snapshot>,
    problems: Arc<Problems>,
}

impl SystemTable {
    pub(crate) fn new(kind: SystemKind, snapshot: Arc<Snapshot>, problems: Arc<Problems>) -> Self {
        let schema = match kind {
            SystemKind::Anchors => schema_of(&anchor_columns()),
            SystemKind::Blocks => schema_of(&block_columns()),
            SystemKind::Streams => schema_of(&stream_columns()),
            SystemKind::Validators => schema_of(&validator_columns()),
            SystemKind::Committees => schema_of(&committee_columns()),
            SystemKind::Proposals => schema_of(&proposal_columns()),
            SystemKind::Parameters => schema_of(&parameter_columns()),
            SystemKind::Identities => schema_of(&identity_columns()),
            SystemKind::Keys => schema_of(&key_columns()),
            SystemKind::Schemas => schema_of(&schema_columns()),
            SystemKind::Roles => schema_of(&role_columns()),
            SystemKind::Problems => schema_of(&problem_columns()),
        };
        Self { kind, schema, snapshot, problems }
    }

    fn batches(&self, wanted: &[usize]) -> Result<Vec<RecordBatch>> {
        match self.kind {
            SystemKind::Anchors => {
                let mut rows: Vec<_> =
                    self.snapshot.streams.iter().flat_map(|stream| stream.anchors.iter().cloned()).collect();
                rows.sort_unstable_by_key(|row| row.log_index);
                batches_of(&anchor_columns(), wanted, &rows)
            }
            SystemKind::Blocks => batches_of(&block_columns(), wanted, &(self.snapshot.blocks)()),
            SystemKind::Streams => batches_of(&stream_columns(), wanted, &self.snapshot.streams),
            SystemKind::Validators => batches_of(&validator_columns(), wanted, &self.snapshot.validators),
            SystemKind::Committees => batches_of(&committee_columns(), wanted, &members(&self.snapshot)),
            SystemKind::Proposals => batches_of(&proposal_columns(), wanted, &proposals(&self.snapshot)),
            SystemKind::Parameters => {
                let rows: Vec<_> = self.snapshot.parameters.iter().flat_map(values).collect();
                batches_of(&parameter_columns(), wanted, &rows)
            }
            SystemKind::Keys => batches_of(&key_columns(), wanted, &keys(&self.snapshot)),
            SystemKind::Schemas => batches_of(&schema_columns(), wanted, &schemas(&self.snapshot)),
            SystemKind::Roles => batches_of(&role_columns(), wanted, &self.snapshot.roles),
            SystemKind::Identities => batches_of(&identity_columns(), wanted, &self.snapshot.identities),
            SystemKind::Problems => batches_of(&problem_columns(), wanted, &self.problems.all()),
        }
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let batches = self.batches(&wanted)?;
        let schema = project_schema(&self.schema, Some(&wanted))?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
    }
}

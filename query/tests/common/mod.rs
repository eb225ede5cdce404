//! A small city of sealed segments on disk, as a chain would have anchored them, without a chain.
//!
//! | stream | what | where |
//! | --- | --- | --- |
//! | `traffic.flow` | flat and nullable; two schema versions; partitions 0 to 3, the last one empty; a gap in 1; quarantined records in 2 | blocks 2, 4, 6 |
//! | `energy.meter_reading` | records within records, lists, a map | block 3 |
//! | `emergency.incident` | registered, nothing anchored | block 5 |
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::StringArray;
use arrow::json::ReaderBuilder;
use cairn_anchor::raw::RawBatchBuilder;
use cairn_anchor::roots::Roots;
use cairn_anchor::schema::table_schema;
use cairn_anchor::seal::{DecodedColumns, Sealed, seal};
use cairn_anchor::store::SegmentStore;
use cairn_proof::committee::Committee;
use cairn_proof::digest::sha256;
use cairn_proof::identity::{IdentityId, IdentityKind, SigningKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::record::BatchSecret;
use cairn_proof::signed_record::{EntryHasher, SignedRun};
use cairn_proof::statement::{BatchLimits, ChainTag, Change, Format, Role, SchemaVersion, StreamDefinition};
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition, TreeSize};
use cairn_query::{
    AnchorEntry, BlockSummary, CommitteeAt, Engine, EpochCounts, FixedSnapshots, IdentityAt, IdentityEntry, KeyAt,
    ProposalAt, ProposalEntry, QueryConfig, RoleAt, Snapshot, SnapshotSource, StreamAt, ValidatorAt, ValidatorEntry,
    ValidatorStatus,
};
use prometheus::Registry;
use tempfile::TempDir;

/// 2026-01-01T00:00:00Z in milliseconds.
pub(crate) const NEW_YEAR: i64 = 1_767_225_600_000;

/// The chain that the city's facts are on.
pub(crate) const CHAIN: ChainTag = ChainTag(Digest([9; 32]));

pub(crate) const FLOW_V1: &str = r#"{"type":"record","name":"Flow","fields":[
    {"name":"detector","type":"string"},
    {"name":"vehicles","type":"int"}]}"#;
pub(crate) const FLOW_V2: &str = r#"{"type":"record","name":"Flow","fields":[
    {"name":"detector","type":"string"},
    {"name":"vehicles","type":"int"},
    {"name":"speed_kmh","type":["null","double"],"default":null},
    {"name":"measured_at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null}]}"#;
pub(crate) const READING: &str = r#"{"type":"record","name":"Reading","fields":[
    {"name":"meter","type":{"type":"record","name":"Meter","fields":[
        {"name":"id","type":"string"},
        {"name":"place","type":["null",{"type":"record","name":"Place","fields":[
            {"name":"lat","type":"double"},{"name":"lon","type":"double"}]}],"default":null}]}},
    {"name":"watt_hours","type":["null","long"],"default":null},
    {"name":"flags","type":{"type":"array","items":"string"}},
    {"name":"registers","type":{"type":"map","values":"long"}}]}"#;
pub(crate) const INCIDENT: &str = r#"{"type":"record","name":"Incident","fields":[
    {"name":"id","type":"string"},{"name":"severity","type":"int"}]}"#;

pub(crate) fn stream(name: &str, schemas: &[&str], partitions: u32) -> StreamDefinition {
    StreamDefinition {
        name: name.to_owned(),
        topic: name.to_owned(),
        partitions,
        format: Format::Json,
        schemas: (1..).zip(schemas).map(|(id, text)| SchemaVersion { id, text: (*text).to_owned() }).collect(),
        key_fields: vec![],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: true,
        anchorers: vec![owner()],
        signatures: cairn_proof::statement::Signatures::default(),
    }
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub(crate) fn owner() -> IdentityId {
    key(2).identity()
}

/// A record of a batch: its offset, and its value as JSON, or why it is quarantined.
pub(crate) type Row = (u64, Result<String, &'static str>);

/// Records with one value each.
pub(crate) fn rows(first: u64, values: &[&str]) -> Vec<Row> {
    (first..).zip(values).map(|(offset, value)| (offset, Ok((*value).to_owned()))).collect()
}

/// The headers of a record.
pub(crate) type Headers = Vec<(String, Vec<u8>)>;

fn time_of(offset: u64) -> i64 {
    NEW_YEAR + i64::try_from(offset).unwrap() * 1_000
}

/// Seals a batch that accounts for the offsets from `first` to `last`.
pub(crate) fn sealed(
    definition: &StreamDefinition,
    partition: u32,
    first: u64,
    last: u64,
    rows: &[Row],
    previous: Digest,
) -> Sealed {
    let headers = |_: &Row| vec![("source".to_owned(), b"test".to_vec())];
    sealed_with(definition, partition, first, last, rows, previous, headers)
}

/// Seals a batch whose records have these headers.
#[allow(clippy::too_many_arguments)]
fn sealed_with(
    definition: &StreamDefinition,
    partition: u32,
    first: u64,
    last: u64,
    rows: &[Row],
    previous: Digest,
    headers: impl Fn(&Row) -> Headers,
) -> Sealed {
    let mut raw = RawBatchBuilder::new(Partition(partition), Offset(first));
    let mut texts = Vec::new();
    let mut errors: Vec<Option<&str>> = Vec::new();
    for row in rows {
        let (offset, value) = row;
        let time = time_of(*offset);
        let key = format!("key-{offset}");
        let bytes = match value {
            Ok(text) => text.clone(),
            Err(_) => format!("broken {offset}"),
        };
        let headers = headers(row);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice()))).collect();
        raw.append(Offset(*offset), time, Some(key.as_bytes()), Some(bytes.as_bytes()), &headers).unwrap();
        texts.push(value.clone().unwrap_or_else(|_| "{}".to_owned()));
        errors.push(value.as_ref().err().copied());
    }
    raw.end_at(Offset(last)).unwrap();
    let schema = table_schema(definition).unwrap();
    let mut decoder =
        ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(rows.len().max(1)).build_decoder().unwrap();
    decoder.decode(texts.join("\n").as_bytes()).unwrap();
    let batch = decoder.flush().unwrap().unwrap_or_else(|| arrow::array::RecordBatch::new_empty(schema));
    let decoded = DecodedColumns { batch, errors: StringArray::from(errors) };
    seal(definition, &raw.finish().unwrap(), &decoded, BatchSecret([7; 32]), previous).unwrap()
}

/// Collects what a chain would know, block by block.
pub(crate) struct City {
    pub(crate) folder: TempDir,
    store: SegmentStore,
    streams: Vec<(StreamDefinition, Height)>,
    entries: Vec<Arc<AnchorEntry>>,
    newest: Height,
}

impl City {
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SegmentStore::on_disk(&folder.path().join("objects")).unwrap();
        Self { folder, store, streams: vec![], entries: vec![], newest: Height(1) }
    }

    pub(crate) fn register(&mut self, definition: StreamDefinition, height: u64) {
        self.streams.push((definition, Height(height)));
        self.newest = self.newest.max(Height(height));
    }

    /// Seals, stores and "anchors" a batch in block `height`. `definition` may be an older version of the stream.
    pub(crate) async fn anchor(
        &mut self,
        definition: &StreamDefinition,
        partition: u32,
        first: u64,
        last: u64,
        rows: &[Row],
        height: u64,
    ) {
        let previous = self
            .entries
            .iter()
            .rfind(|entry| entry.anchor.stream == definition.name && entry.anchor.partition.0 == partition)
            .map_or(Digest::ZERO, |entry| entry.id);
        let sealed = sealed(definition, partition, first, last, rows, previous);
        self.store.put(&sealed).await.unwrap();
        self.take(sealed, height);
    }

    /// As [`City::anchor`], with records that the holder of `signer` signed in one run, in the order of their offsets.
    pub(crate) async fn anchor_signed(
        &mut self,
        definition: &StreamDefinition,
        first: u64,
        rows: &[Row],
        signer: &SigningKey,
        height: u64,
    ) {
        let mut hasher = EntryHasher::new(&CHAIN, &definition.name, Partition(0));
        let mut leaf = |(offset, value): &Row| {
            let (key, value) = (format!("key-{offset}"), value.clone().unwrap());
            let publisher = signer.public();
            hasher.leaf(
                publisher.as_bytes(),
                offset + 1,
                time_of(*offset),
                Some(key.as_bytes()),
                Some(value.as_bytes()),
            )
        };
        let leaves: Vec<_> = rows.iter().map(&mut leaf).collect();
        let run = SignedRun::sign(signer, &CHAIN, &leaves).unwrap();
        let headers = |(offset, _): &Row| {
            let headers = run.headers(u32::try_from(offset - first).unwrap(), offset + 1).unwrap();
            headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let last = first + rows.len() as u64 - 1;
        let sealed = sealed_with(definition, 0, first, last, rows, Digest::ZERO, headers);
        self.store.put(&sealed).await.unwrap();
        self.take(sealed, height);
    }

    pub(crate) fn take(&mut self, sealed: Sealed, height: u64) {
        let index = self.entries.len() as u64;
        let statement = format!("statement {index}");
        self.entries.push(Arc::new(AnchorEntry {
            anchor: sealed.anchor,
            id: sha256(&[statement.as_bytes()]),
            statement: Arc::from(statement.into_bytes()),
            place: None,
            signer: owner(),
            log_index: LeafIndex(index),
            height: Height(height),
            block_timestamp_ms: block_time(height),
        }));
        self.newest = self.newest.max(Height(height));
    }

    fn snapshot(&self, height: Height) -> Snapshot {
        let streams = self
            .streams
            .iter()
            .filter(|(_, registered)| *registered <= height)
            .map(|(definition, registered)| StreamAt {
                definition: Arc::new(definition.clone()),
                owner: owner(),
                registered: *registered,
                anchors: self
                    .entries
                    .iter()
                    .filter(|entry| entry.anchor.stream == definition.name && entry.height <= height)
                    .cloned()
                    .collect(),
            })
            .collect();
        Snapshot {
            height,
            streams,
            validators: validators(height),
            identities: identities(height),
            keys: keys(height),
            roles: vec![RoleAt {
                stream: "traffic.flow".to_owned(),
                role: Role::Anchorer,
                identity: owner(),
                granted: height < Height(6),
                height: if height < Height(6) { Height(1) } else { Height(6) },
            }],
            proposals: proposals(height),
            committees: committees(height),
            parameters: Some(Parameters { epoch_blocks: 3, heartbeat_ms: 500, ..Parameters::default() }),
            block: Some(block(height.0)),
            blocks: Arc::new(move || (0..=height.0).map(block).collect()),
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine_with(QueryConfig::default())
    }

    pub(crate) fn engine_with(&self, config: QueryConfig) -> Engine {
        self.try_engine_with(config).unwrap()
    }

    pub(crate) fn try_engine_with(&self, config: QueryConfig) -> Result<Engine, cairn_query::StartError> {
        self.engine_over(config, Arc::new(self.snapshots()))
    }

    pub(crate) fn snapshots(&self) -> FixedSnapshots {
        FixedSnapshots::new((0..=self.newest.0).map(|height| self.snapshot(Height(height))).collect()).of_chain(CHAIN)
    }

    pub(crate) fn engine_over(
        &self,
        config: QueryConfig,
        source: Arc<dyn SnapshotSource>,
    ) -> Result<Engine, cairn_query::StartError> {
        let store = self.store.verified(Arc::new(Roots::new())).unwrap();
        Engine::new(config, source, store, &Registry::new())
    }

    /// The file of the segment that holds `offset`.
    pub(crate) fn segment(&self, stream: &str, partition: u32, offset: u64) -> PathBuf {
        let entry = self
            .entries
            .iter()
            .find(|entry| {
                let anchor = &entry.anchor;
                anchor.stream == stream
                    && anchor.partition.0 == partition
                    && (anchor.first.0..=anchor.last.0).contains(&offset)
            })
            .unwrap();
        self.folder.path().join("objects").join(&entry.anchor.segment.path)
    }

    pub(crate) fn entries(&self) -> &[Arc<AnchorEntry>] {
        &self.entries
    }

    pub(crate) fn edit(&mut self, at: usize, change: impl FnOnce(&mut AnchorEntry)) {
        change(Arc::make_mut(&mut self.entries[at]));
    }
}

fn validator(seed: u8, height: Height) -> ValidatorEntry {
    ValidatorEntry {
        public_key: key(seed).public(),
        name: format!("validator-{seed}"),
        address: format!("10.0.0.{seed}:7000"),
        status: if seed == 11 && height >= Height(5) { ValidatorStatus::Suspended } else { ValidatorStatus::Active },
        since: if seed == 11 && height >= Height(5) { Height(5) } else { Height(0) },
        proposals_made: height.0,
        proposals_missed: 2,
        votes_seen: 3,
        equivocations: u64::from(seed == 11 && height >= Height(5)),
        absent_epochs: 0,
        running: EpochCounts::default(),
    }
}

/// Two validators, of which one is suspended in block 5 and out of the committee from block 6 on.
fn validators(height: Height) -> Vec<ValidatorAt> {
    let committee = committees(height).pop().unwrap().committee;
    let mut all: Vec<_> = [10, 11].map(|seed| validator(seed, height)).to_vec();
    all.sort_by_key(|entry| entry.public_key);
    let at = |entry: ValidatorEntry| {
        let position = committee.place(&entry.public_key).map(|place| u32::try_from(place).unwrap());
        ValidatorAt { entry, position }
    };
    all.into_iter().map(at).collect()
}

fn committees(height: Height) -> Vec<CommitteeAt> {
    let of = |seeds: &[u8]| {
        let mut keys: Vec<_> = seeds.iter().map(|seed| key(*seed).public()).collect();
        keys.sort();
        Arc::new(Committee::new(keys).unwrap())
    };
    let mut all = vec![CommitteeAt { epoch: 0, first: Height(0), committee: of(&[10, 11]) }];
    if height >= Height(5) {
        all.push(CommitteeAt { epoch: 2, first: Height(6), committee: of(&[10]) });
    }
    all
}

/// A device that is revoked in block 6, and one whose time is over with block 4.
fn identities(height: Height) -> Vec<IdentityAt> {
    let entry = |seed: u8, name: &str, kind| IdentityEntry {
        id: key(seed).identity(),
        first_key: key(seed).public(),
        public_key: key(seed).public(),
        kind,
        name: name.to_owned(),
        controller: (seed != 2).then(owner),
        height: Height(0),
        revoked: None,
        expires_ms: None,
    };
    let revoked = (height >= Height(6)).then_some(Height(6));
    let all = [
        entry(2, "the city", IdentityKind::Organisation),
        IdentityEntry { revoked, ..entry(20, "meter-1", IdentityKind::Device) },
        IdentityEntry { expires_ms: Some(block_time(4)), ..entry(21, "meter-2", IdentityKind::Device) },
    ];
    all.into_iter().map(|entry| IdentityAt::new(Arc::new(entry), block_time(height.0))).collect()
}

/// The keys of the identities; the first device had another one up to block 3.
fn keys(height: Height) -> Vec<KeyAt> {
    let at = |of: u8, signer: u8, since: u64| KeyAt {
        identity: key(of).identity(),
        key: key(signer).public(),
        since: Height(since),
    };
    let all = [at(2, 2, 0), at(20, 22, 0), at(20, 20, 4), at(21, 21, 0)];
    all.into_iter().filter(|key| key.since <= height).collect()
}

fn proposals(height: Height) -> Vec<ProposalAt> {
    let (ten, eleven) = (key(10).public(), key(11).public());
    let entry = |change: Change, votes: Vec<_>, passed| ProposalEntry {
        id: sha256(&[&change.encode()]),
        expires_epoch: 1,
        change,
        height: Height(2),
        votes,
        passed,
    };
    let committee = committees(height).pop().unwrap().committee;
    let all = [
        entry(Change::RemoveValidator { public_key: eleven }, vec![ten], None),
        entry(
            Change::SetAddress { public_key: ten, address: "10.0.0.10:7000".to_owned() },
            vec![eleven, ten],
            Some(Height(3)),
        ),
    ];
    all.into_iter().map(|entry| ProposalAt::new(Arc::new(entry), height.next().0 / 3, &committee)).collect()
}

/// The outboard file beside a segment.
pub(crate) fn outboard(segment: &Path) -> PathBuf {
    PathBuf::from(format!("{}.obao", segment.display()))
}

/// The time of a block: one every ten seconds since an hour after the new year.
pub(crate) fn block_time(height: u64) -> u64 {
    u64::try_from(NEW_YEAR).unwrap() + 3_600_000 + height * 10_000
}

fn block(height: u64) -> BlockSummary {
    BlockSummary {
        height: Height(height),
        digest: sha256(&[b"block", &height.to_be_bytes()]),
        timestamp_ms: block_time(height),
        proposer: *key(1).public().as_bytes(),
        statements: 1,
        state_root: Digest::ZERO,
        log_size: TreeSize(height),
    }
}

/// A city whose devices sign: `air.quality`, two records in a run by a device, one by a key that nobody has.
pub(crate) async fn signed_city() -> City {
    let mut city = City::empty();
    let air = stream("air.quality", &[INCIDENT], 1);
    city.register(air.clone(), 1);
    let pair = rows(0, &[r#"{"id":"a","severity":1}"#, r#"{"id":"b","severity":2}"#]);
    city.anchor_signed(&air, 0, &pair, &key(20), 4).await;
    city.anchor_signed(&air, 2, &rows(2, &[r#"{"id":"c","severity":3}"#]), &key(77), 5).await;
    city
}

/// The city that most tests query.
pub(crate) async fn city() -> City {
    let mut city = City::empty();
    let old_flow = stream("traffic.flow", &[FLOW_V1], 4);
    let flow = stream("traffic.flow", &[FLOW_V1, FLOW_V2], 4);
    let reading = stream("energy.meter_reading", &[READING], 1);
    city.register(flow.clone(), 1);
    city.register(reading.clone(), 1);
    city.register(stream("emergency.incident", &[INCIDENT], 2), 5);

    // Partition 0: two batches under the old schema and the new one.
    let old: Vec<Row> = rows(
        0,
        &[
            r#"{"detector":"D1","vehicles":10}"#,
            r#"{"detector":"D2","vehicles":20}"#,
            r#"{"detector":"D1","vehicles":30}"#,
        ],
    );
    city.anchor(&old_flow, 0, 0, 2, &old, 2).await;
    let new = rows(
        3,
        &[
            r#"{"detector":"D1","vehicles":40,"speed_kmh":51.5,"measured_at":1767225603000}"#,
            r#"{"detector":"D2","vehicles":50,"speed_kmh":null,"measured_at":1767225604000}"#,
        ],
    );
    city.anchor(&flow, 0, 3, 4, &new, 4).await;

    // Partition 1: a batch that begins with a gap and has one in the middle.
    let gapped = vec![
        (2, Ok(r#"{"detector":"D3","vehicles":1,"speed_kmh":30.0}"#.to_owned())),
        (5, Ok(r#"{"detector":"D3","vehicles":2,"speed_kmh":31.0}"#.to_owned())),
    ];
    city.anchor(&flow, 1, 0, 6, &gapped, 4).await;

    // Partition 2: valid and quarantined records side by side, then nothing but quarantined ones.
    let mixed = vec![
        (0, Ok(r#"{"detector":"D4","vehicles":7,"speed_kmh":70.0}"#.to_owned())),
        (1, Err("not an Avro datum")),
        (2, Ok(r#"{"detector":"D4","vehicles":8,"speed_kmh":80.0}"#.to_owned())),
        (3, Err("no value")),
    ];
    city.anchor(&flow, 2, 0, 3, &mixed, 4).await;
    city.anchor(&flow, 2, 4, 4, &[(4, Err("unknown schema id 9"))], 6).await;

    let readings = rows(
        0,
        &[
            r#"{"meter":{"id":"M1","place":{"lat":48.1,"lon":11.5}},"watt_hours":500,"flags":["a","b"],"registers":{"day":1,"night":2}}"#,
            r#"{"meter":{"id":"M2","place":null},"watt_hours":null,"flags":[],"registers":{}}"#,
        ],
    );
    city.anchor(&reading, 0, 0, 1, &readings, 3).await;
    city
}

//! Signed records of the golden chain: forms for the documentation, and vectors for publishers in other languages.

use cairn_proof::signed_record::{EntryHasher, Sequences, SignedRun, run_message};
use cairn_proof::{Digest, Partition, tree};
use serde_json::{Value as Json, json};

use super::{DEVICE, SHOWN, genesis, key, record, stream};

/// One record as its publisher sees it.
struct Given {
    partition: Partition,
    sequence: u64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Given {
    /// The record of the golden chain at `index`.
    fn golden(index: u64) -> Self {
        let record = record(index);
        let sequence = 1_700_000_000_000_000 + index;
        Self {
            partition: record.partition,
            sequence,
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            value: record.value,
        }
    }

    fn entry(&self) -> Vec<u8> {
        let mut hasher = EntryHasher::new(&genesis().tag(), &stream().name, self.partition);
        let publisher = key(DEVICE).public();
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        hasher.entry(publisher.as_bytes(), self.sequence, self.timestamp_ms, key, value).to_vec()
    }

    fn leaf(&self) -> Digest {
        tree::leaf_hash(&self.entry())
    }
}

fn leaves(records: &[Given]) -> Vec<Digest> {
    records.iter().map(Given::leaf).collect()
}

fn run(records: &[Given]) -> SignedRun {
    SignedRun::sign(&key(DEVICE), &genesis().tag(), &leaves(records)).unwrap()
}

fn message(records: &[Given]) -> Vec<u8> {
    let count = u32::try_from(records.len()).unwrap();
    run_message(&genesis().tag(), key(DEVICE).public().as_bytes(), count, &tree::root(&leaves(records)))
}

fn golden_run() -> Vec<Given> {
    (0..5).map(Given::golden).collect()
}

pub(super) fn forms() -> Vec<(&'static str, Vec<u8>)> {
    let records = golden_run();
    let shown = usize::try_from(SHOWN).unwrap();
    let headers = run(&records).headers(u32::try_from(SHOWN).unwrap(), records[shown].sequence).unwrap();
    let mut sequences = Sequences::new();
    for record in &records {
        sequences.take(key(DEVICE).public().as_bytes(), record.sequence).unwrap();
    }
    vec![
        ("signed-record", records[shown].entry()),
        ("signed-run", message(&records)),
        ("signed-headers", headers.into_iter().flat_map(|(_, value)| value).collect()),
        ("sequences", sequences.encode()),
    ]
}

fn vector(name: &str, records: &[Given]) -> Json {
    let signed = run(records);
    let record = |(index, record): (u32, &Given)| {
        let headers = signed.headers(index, record.sequence).unwrap();
        let headers: Vec<_> = headers.iter().map(|(name, value)| json!([name, hex::encode(value)])).collect();
        json!({
            "partition": record.partition,
            // As text: beyond what a number of JavaScript holds.
            "sequence": record.sequence.to_string(),
            "timestamp_ms": record.timestamp_ms,
            "key": record.key.as_ref().map(hex::encode),
            "value": record.value.as_ref().map(hex::encode),
            "leaf": record.leaf(),
            "headers": headers,
        })
    };
    let (root, message) = (tree::root(&leaves(records)), hex::encode(message(records)));
    let records: Vec<_> = (0..).zip(records).map(record).collect();
    json!({ "name": name, "records": records, "root": root, "message": message })
}

/// What a publisher library must make of the same records, in hexadecimal.
pub(crate) fn vectors() -> String {
    let given = |partition, sequence, timestamp_ms, key: Option<&[u8]>, value: Option<&[u8]>| Given {
        partition: Partition(partition),
        sequence,
        timestamp_ms,
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
    };
    let bare = given(0, 1, -1, None, None);
    let empty = given(4_095, u64::MAX >> 1, 1_700_000_000_000, Some(b""), Some(b""));
    let long = given(24, 256, 65_536, Some(&[7; 24]), Some(&[9; 300]));
    let nine = (0..9).map(|n| given(n % 3, 1_000 + u64::from(n), i64::from(n), None, Some(&[0xff, n as u8]))).collect();
    let runs: Vec<(&str, Vec<Given>)> = vec![
        ("a record by itself", vec![Given::golden(SHOWN)]),
        ("everything missing that may be", vec![bare]),
        ("empty key and value, the largest sequence", vec![empty]),
        ("long key and value", vec![long]),
        ("a run of two", (0..2).map(Given::golden).collect()),
        ("a run of three", (0..3).map(Given::golden).collect()),
        ("the run of the documentation", golden_run()),
        ("a run of nine over three partitions", nine),
    ];
    let runs: Vec<_> = runs.iter().map(|(name, records)| vector(name, records)).collect();
    let hashes = [-973_932_308, -790_332_482, -985_981_536, -1_486_304_829, 479_470_107].map(|hash| hash & 0x7fff_ffff);
    let vectors = json!({
        "chain_tag": genesis().tag().0,
        "seed": hex::encode(key(DEVICE).seed()),
        "public_key": key(DEVICE).public(),
        "stream": stream().name,
        "runs": runs,
        // What Kafka's Java client hashes keys to, without the sign: the values of its own tests.
        "partitions": {
            "keys": ["21", "foobar", "a-little-bit-long-string", "a-little-bit-longer-string", "abc"],
            "hashes": hashes,
        },
    });
    serde_json::to_string_pretty(&vectors).unwrap() + "\n"
}

//! Sealing, and the small batches that other modules' tests seal.

use super::*;
use crate::raw::RawBatchBuilder;
use crate::segment::Columns;
use arrow::array::{Float64Builder, Int64Builder, StringBuilder};
use cairn_proof::identity::IdentityId;
use cairn_proof::statement::{BatchLimits, Format, SchemaVersion};
use cairn_proof::{Offset, Partition};

pub(crate) const SCHEMA: &str = r#"{"type":"record","name":"Flow","fields":[
    {"name":"sensor","type":"string"},
    {"name":"count","type":["null","long"]},
    {"name":"speed","type":"double"}]}"#;

/// A stream whose values are texts of the form `sensor,count,speed`.
pub(crate) fn stream() -> StreamDefinition {
    StreamDefinition {
        name: "traffic.flow".into(),
        topic: "city.traffic.flow".into(),
        partitions: 4,
        format: Format::Json,
        schemas: vec![SchemaVersion { id: 1, text: SCHEMA.into() }],
        key_fields: vec!["sensor".into()],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: true,
        anchorers: vec![IdentityId(Digest([1; 32]))],
        signatures: cairn_proof::statement::Signatures::default(),
    }
}

/// `count` records of partition 1 from offset `first` on; every tenth has headers, every hundredth does not decode.
pub(crate) fn raw(count: u64, first: u64) -> RawBatch {
    raw_of(1, count, first)
}

/// The same, of another partition.
pub(crate) fn raw_of(partition: u32, count: u64, first: u64) -> RawBatch {
    let mut builder = RawBatchBuilder::new(Partition(partition), Offset(first));
    for offset in first..first + count {
        let value = if offset % 100 == 99 {
            "broken".to_owned()
        } else {
            format!("sensor-{:03},{},{:.2}", offset % 37, offset * 3, (offset % 90) as f64 * 1.25)
        };
        let key = format!("sensor-{:03}", offset % 37);
        let headers: &[(&str, Option<&[u8]>)] =
            if offset % 10 == 0 { &[("source", Some(b"test")), ("empty", None)] } else { &[] };
        let timestamp = 1_700_000_000_000 + offset as i64 * 10;
        builder.append(Offset(offset), timestamp, Some(key.as_bytes()), Some(value.as_bytes()), headers).unwrap();
    }
    builder.finish().unwrap()
}

/// Decodes the texts that [`raw`] makes.
pub(crate) fn decode(raw: &RawBatch) -> DecodedColumns {
    let (mut sensors, mut counts, mut speeds, mut errors) =
        (StringBuilder::new(), Int64Builder::new(), Float64Builder::new(), StringBuilder::new());
    for value in raw.values() {
        let text = value.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("");
        let parts: Vec<_> = text.split(',').collect();
        match parts[..] {
            [sensor, count, speed] if speed.parse::<f64>().is_ok() => {
                sensors.append_value(sensor);
                counts.append_option(count.parse().ok());
                speeds.append_option(speed.parse().ok());
                errors.append_null();
            }
            _ => {
                sensors.append_null();
                counts.append_null();
                speeds.append_null();
                errors.append_value(format!("not three parts: {text:?}"));
            }
        }
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(sensors.finish()), Arc::new(counts.finish()), Arc::new(speeds.finish())];
    let table = schema::table_schema(&stream()).unwrap();
    DecodedColumns { batch: RecordBatch::try_new(table, columns).unwrap(), errors: errors.finish() }
}

pub(crate) fn sealed(count: u64, first: u64) -> Sealed {
    let raw = raw(count, first);
    seal(&stream(), &raw, &decode(&raw), BatchSecret([7; 32]), Digest::ZERO).unwrap()
}

/// The rows of the segment of such a batch.
pub(crate) fn rows(count: u64, first: u64) -> RecordBatch {
    let raw = raw(count, first);
    segment_rows(&stream(), &raw, &decode(&raw)).unwrap()
}

#[test]
fn an_anchor_says_what_the_batch_holds() {
    let sealed = sealed(1000, 500);
    let anchor = &sealed.anchor;
    anchor_is_valid(anchor);
    assert_eq!((anchor.first, anchor.last, anchor.count, anchor.quarantined), (Offset(500), Offset(1499), 1000, 10));
    assert_eq!((anchor.timestamp_min_ms, anchor.timestamp_max_ms), (1_700_000_005_000, 1_700_000_014_990));
    assert_eq!(anchor.schema_fingerprint, cairn_proof::digest::sha256(&[SCHEMA.as_bytes()]));
    assert_eq!(anchor.segment.size, sealed.segment.len() as u64);
    assert_eq!(anchor.segment.blake3.0, *blake3::hash(&sealed.segment).as_bytes());
    let tree = Outboard::decode(&sealed.outboard, anchor.segment.size, anchor.segment.blake3);
    assert!(tree.is_ok(), "{tree:?}");
}

fn anchor_is_valid(anchor: &Anchor) {
    cairn_proof::statement::Body::Anchor(anchor.clone()).check().unwrap();
}

#[test]
fn a_segment_is_its_own_evidence() {
    let sealed = sealed(300, 40);
    let rows = segment::read(sealed.segment.clone(), 300, Columns::Own).unwrap();
    let back = RawBatch::from_rows(Partition(1), Offset(40), Offset(339), &rows).unwrap();
    let leaves = back.leaves(&stream().topic, &sealed.secret);
    assert_eq!(tree::root(&leaves), sealed.anchor.records_root);
    let other = back.leaves(&stream().topic, &BatchSecret([8; 32]));
    assert_ne!(tree::root(&other), sealed.anchor.records_root, "the secret counts");
    let renamed = back.leaves("another.topic", &sealed.secret);
    assert_ne!(tree::root(&renamed), sealed.anchor.records_root, "the topic counts");
}

#[test]
fn a_batch_of_gaps_alone_is_sealed() {
    let mut builder = RawBatchBuilder::new(Partition(1), Offset(5));
    builder.end_at(Offset(8)).unwrap();
    let raw = builder.finish().unwrap();
    let sealed = seal(&stream(), &raw, &decode(&raw), BatchSecret([7; 32]), Digest::ZERO).unwrap();
    anchor_is_valid(&sealed.anchor);
    assert_eq!((sealed.anchor.count, sealed.anchor.records_root), (0, tree::empty_root()));
    assert_eq!(segment::read(sealed.segment, 0, Columns::All).unwrap().num_rows(), 0);
}

#[test]
fn columns_of_another_batch_or_table_are_refused() {
    let raw = raw(10, 0);
    let mut decoded = decode(&raw);
    decoded.errors = StringArray::new_null(9);
    let refused = seal(&stream(), &raw, &decoded, BatchSecret([7; 32]), Digest::ZERO).unwrap_err();
    assert!(matches!(refused, SealError::Rows { records: 10, rows: 10, errors: 9, .. }), "{refused}");
    let mut decoded = decode(&raw);
    decoded.batch = decoded.batch.project(&[0, 1]).unwrap();
    let refused = seal(&stream(), &raw, &decoded, BatchSecret([7; 32]), Digest::ZERO).unwrap_err();
    assert!(matches!(refused, SealError::Columns { .. }), "{refused}");
}

#[test]
fn secrets_differ() {
    assert_ne!(new_secret().unwrap(), new_secret().unwrap());
}

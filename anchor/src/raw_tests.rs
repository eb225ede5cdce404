//! Batches of raw records: order, gaps, bounds, leaves.

use super::*;
use cairn_proof::tree;
use proptest::prelude::*;

/// A record as a test writes it: step from the last offset, timestamp, key, value, headers.
type Sketch = (u64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn build(first: u64, records: &[Sketch]) -> RawBatch {
    let mut builder = RawBatchBuilder::new(Partition(2), Offset(first));
    for (step, timestamp, key, value, headers) in records {
        let offset = Offset(builder.next().0 + step);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        builder.append(offset, *timestamp, key.as_deref(), value.as_deref(), &headers).unwrap();
    }
    builder.finish().unwrap()
}

fn rows(batch: &RawBatch) -> RecordBatch {
    let fields: Vec<_> = schema::own_columns().into_iter().take(6).collect();
    RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), batch.columns().to_vec()).unwrap()
}

fn plain(step: u64) -> Sketch {
    (step, 5, None, Some(b"v".to_vec()), vec![])
}

#[test]
fn gaps_at_the_start_in_the_middle_and_at_the_end() {
    let mut builder = RawBatchBuilder::new(Partition(0), Offset(10));
    for offset in [12, 13, 20] {
        builder.append(Offset(offset), 0, None, None, &[]).unwrap();
    }
    builder.end_at(Offset(22)).unwrap();
    builder.end_at(Offset(24)).unwrap();
    let batch = builder.finish().unwrap();
    let gaps: Vec<_> = batch.gaps().iter().map(|gap| (gap.first.0, gap.last.0)).collect();
    assert_eq!(gaps, [(10, 11), (14, 19), (21, 24)]);
    assert_eq!((batch.first(), batch.last(), batch.len()), (Offset(10), Offset(24), 3));
}

#[test]
fn offsets_ascend_or_are_refused_and_nothing_changes() {
    let mut builder = RawBatchBuilder::new(Partition(0), Offset(10));
    builder.append(Offset(10), 0, None, None, &[]).unwrap();
    for wrong in [9, 10, u64::MAX, i64::MAX as u64] {
        let refused = builder.append(Offset(wrong), 0, None, None, &[]);
        assert!(matches!(refused, Err(RawError::Offset { expected: Offset(11), .. })), "{wrong}");
    }
    assert!(builder.end_at(Offset(9)).is_err());
    assert_eq!(builder.end_at(Offset(10)), Ok(()), "already there");
    assert_eq!((builder.len(), builder.next()), (1, Offset(11)));
}

#[test]
fn a_batch_holds_no_more_gaps_than_an_anchor_may_declare() {
    let mut builder = RawBatchBuilder::new(Partition(0), Offset(0));
    for index in 0..GAPS_MAX as u64 {
        builder.append(Offset(2 * index + 1), 0, None, None, &[]).unwrap();
    }
    let full = builder.append(Offset(2 * GAPS_MAX as u64 + 1), 0, None, None, &[]);
    assert!(matches!(full, Err(RawError::Full { what: "gaps", .. })));
    builder.append(Offset(2 * GAPS_MAX as u64), 0, None, None, &[]).unwrap();
    assert_eq!(builder.finish().unwrap().gaps().len(), GAPS_MAX);
}

#[test]
fn a_batch_without_records_needs_an_end() {
    let empty = RawBatchBuilder::new(Partition(4), Offset(7)).finish();
    assert!(matches!(empty, Err(RawError::Empty { partition: Partition(4) })));
    let mut builder = RawBatchBuilder::new(Partition(4), Offset(7));
    builder.end_at(Offset(9)).unwrap();
    let batch = builder.finish().unwrap();
    assert_eq!((batch.len(), batch.gaps().len(), batch.timestamp_range_ms()), (0, 1, (0, 0)));
    assert_eq!(tree::root(&batch.leaves("t", &BatchSecret([1; 32]))), tree::empty_root());
}

#[test]
fn rows_of_another_partition_or_out_of_order_are_refused() {
    let batch = build(0, &[plain(0), plain(0), plain(3)]);
    let good = rows(&batch);
    assert!(RawBatch::from_rows(Partition(2), Offset(0), Offset(5), &good).is_ok());
    let partition = RawBatch::from_rows(Partition(3), Offset(0), Offset(5), &good).unwrap_err();
    assert!(matches!(partition, RawError::Row { column: schema::PARTITION, row: 0, .. }), "{partition}");
    let outside = RawBatch::from_rows(Partition(2), Offset(0), Offset(4), &good).unwrap_err();
    assert!(matches!(outside, RawError::Row { column: schema::OFFSET, row: 2, .. }), "{outside}");
    let before = RawBatch::from_rows(Partition(2), Offset(1), Offset(5), &good).unwrap_err();
    assert!(matches!(before, RawError::Row { column: schema::OFFSET, row: 0, .. }), "{before}");
    let missing = good.project(&[0, 1, 2, 3, 4]).unwrap();
    let missing = RawBatch::from_rows(Partition(2), Offset(0), Offset(5), &missing).unwrap_err();
    assert!(matches!(missing, RawError::Column { column: schema::RAW, .. }), "{missing}");
    let backwards = arrow::compute::take_record_batch(&good, &arrow::array::UInt32Array::from(vec![1, 0, 2])).unwrap();
    assert!(RawBatch::from_rows(Partition(2), Offset(0), Offset(5), &backwards).is_err());
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
    let headers = proptest::collection::vec((".{0,6}", bytes()), 0..3);
    (prop_oneof![4 => Just(0u64), 1 => 1u64..50], any::<i64>(), bytes(), bytes(), headers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn leaves_are_those_of_the_records_and_survive_the_columns(
        first in 0u64..1_000_000, records in proptest::collection::vec(sketch(), 1..30), secret: [u8; 32],
    ) {
        let secret = BatchSecret(secret);
        let batch = build(first, &records);
        let leaves = batch.leaves("city.traffic", &secret);
        prop_assert_eq!(leaves.len(), records.len());
        for (row, leaf) in leaves.iter().enumerate() {
            let record = batch.record(row, "city.traffic", &secret).unwrap();
            let (_, timestamp, key, value, headers) = &records[row];
            prop_assert_eq!((&record.key, &record.value, &record.headers), (key, value, headers));
            prop_assert_eq!(record.timestamp_ms, *timestamp);
            prop_assert_eq!(tree::leaf_hash(&record.encode()), *leaf);
        }
        prop_assert!(batch.record(records.len(), "city.traffic", &secret).is_none());
        let back = RawBatch::from_rows(Partition(2), batch.first(), batch.last(), &rows(&batch)).unwrap();
        prop_assert_eq!(back.leaves("city.traffic", &secret), leaves);
        prop_assert_eq!(back.gaps(), batch.gaps());
        prop_assert_eq!(back.bytes(), batch.bytes());
    }
}

//! The canonical form does not depend on how the engine keeps a value, and tells values apart.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date64Array, DictionaryArray, Float32Array, Float64Array, Int32Array, IntervalDayTimeArray,
    LargeStringArray, ListArray, MapBuilder, NullArray, StringArray, StringBuilder, StringViewArray, StructArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Int32Type as Key, IntervalDayTime, UnionFields};
use cairn_proof::units::TreeSize;

use super::*;

fn cbor(array: &dyn Array, row: usize) -> String {
    let mut bytes = Vec::new();
    write(array, row, &mut Writer::new(&mut bytes)).expect("it has a canonical form");
    hex::encode(bytes)
}

fn kind(array: &dyn Array) -> String {
    type_name(array.data_type()).expect("it has a canonical form")
}

#[test]
fn a_text_is_a_text_however_it_is_kept() {
    let texts = ["a", "long enough to lie outside of a view"];
    let dictionary: DictionaryArray<Key> = texts.into_iter().collect();
    let kept: [ArrayRef; 4] = [
        Arc::new(StringArray::from_iter_values(texts)),
        Arc::new(LargeStringArray::from_iter_values(texts)),
        Arc::new(StringViewArray::from_iter_values(texts)),
        Arc::new(dictionary),
    ];
    for array in kept {
        assert_eq!(kind(array.as_ref()), "text");
        assert_eq!(cbor(array.as_ref(), 0), "6161");
        assert!(cbor(array.as_ref(), 1).starts_with("7824"), "{array:?}");
    }
}

#[test]
fn numbers_nulls_and_times_have_the_documented_form() {
    assert_eq!(cbor(&Int32Array::from(vec![Some(-1), None]), 0), "20");
    assert_eq!(cbor(&Int32Array::from(vec![Some(-1), None]), 1), "f6");
    assert_eq!(cbor(&NullArray::new(1), 0), "f6");
    assert_eq!(cbor(&BooleanArray::from(vec![true]), 0), "f5");
    // A float of 32 bits is the float of 64 bits of the same value.
    assert_eq!(cbor(&Float32Array::from(vec![1.5]), 0), cbor(&Float64Array::from(vec![1.5]), 0));
    assert_ne!(cbor(&Float64Array::from(vec![0.0]), 0), cbor(&Float64Array::from(vec![-0.0]), 0));
    assert_eq!(cbor(&Date64Array::from(vec![-1]), 0), "20", "a millisecond before the first day is the day before it");
    let at = TimestampMillisecondArray::from(vec![500]).with_timezone("UTC");
    assert_eq!((kind(&at), cbor(&at, 0)), ("timestamp(ms,UTC)".to_owned(), "1901f4".to_owned()));
    let interval = IntervalDayTimeArray::from(vec![IntervalDayTime::new(2, 3)]);
    assert_eq!((kind(&interval), cbor(&interval, 0)), ("interval".to_owned(), "8300021a002dc6c0".to_owned()));
}

#[test]
fn decimals_keep_their_digits() {
    let decimals = Decimal128Array::from(vec![-5, 1_234]).with_precision_and_scale(10, 2).expect("in range");
    assert_eq!(kind(&decimals), "decimal(10,2)");
    assert_eq!(cbor(&decimals, 0), format!("65{}", hex::encode("-0.05")));
    assert_eq!(cbor(&decimals, 1), format!("65{}", hex::encode("12.34")));
}

#[test]
fn what_nests_nests() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), Some(vec![])]);
    assert_eq!((kind(&list), cbor(&list, 0), cbor(&list, 1)), ("list(int32)".into(), "8201f6".into(), "80".into()));
    let fields = vec![
        (Arc::new(Field::new("a", DataType::Int32, true)), Arc::new(Int32Array::from(vec![7])) as ArrayRef),
        (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(StringArray::from(vec!["x"])) as ArrayRef),
    ];
    let record = StructArray::from(fields);
    assert_eq!((kind(&record), cbor(&record, 0)), ("struct(a int32,b text)".to_owned(), "82076178".to_owned()));
    let mut map = MapBuilder::new(None, StringBuilder::new(), arrow::array::Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(9);
    map.append(true).expect("as many keys as values");
    let map = map.finish();
    assert_eq!((kind(&map), cbor(&map, 0)), ("map(text,int64)".to_owned(), "8182616b09".to_owned()));
}

#[test]
fn what_has_no_form_is_named() {
    let union = DataType::Union(UnionFields::empty(), arrow::datatypes::UnionMode::Sparse);
    let schema = Schema::new(vec![Field::new("odd", union, true)]);
    let error = columns(&schema).expect_err("a union");
    assert!(error.contains("\"odd\"") && error.contains("no canonical form"), "{error}");
}

#[test]
fn rows_are_hashed_in_their_order() {
    let batch = |values: Vec<i32>| {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int32Array::from(values))]).expect("one column")
    };
    let hash = |batches: &[RecordBatch]| {
        let (mut hasher, mut buffer) = (RowsHasher::new(true), Vec::new());
        batches.iter().for_each(|batch| hash_rows(batch, &mut hasher, &mut buffer).expect("integers"));
        hasher.finish()
    };
    let (whole, cut) = (hash(&[batch(vec![1, 2, 3])]), hash(&[batch(vec![1]), batch(vec![2, 3])]));
    assert_eq!(whole, cut, "how rows are cut into batches does not matter");
    let turned = hash(&[batch(vec![3, 2, 1])]);
    assert_eq!((whole.rows, whole.rows_root), (TreeSize(3), turned.rows_root));
    assert_ne!(whole.ordered_root, turned.ordered_root);
}

//! Avro schemas to columns, and what has no column.

use super::*;
use arrow::array::Int64Array;

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Test","namespace":"city","fields":[{fields}]}}"#)
}

fn refused(fields: &str) -> SchemaError {
    avro_to_arrow(&record(fields)).expect_err("the schema should be refused")
}

#[test]
fn avro_types_become_columns() {
    let cases = [
        (r#""string""#, DataType::Utf8),
        (r#"["null","string"]"#, DataType::Utf8),
        (r#"["string","null"]"#, DataType::Utf8),
        (r#""int""#, DataType::Int32),
        (r#"["null","long"]"#, DataType::Int64),
        (r#""float""#, DataType::Float32),
        (r#""double""#, DataType::Float64),
        (r#""boolean""#, DataType::Boolean),
        (r#""bytes""#, DataType::Binary),
        (r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, DataType::Utf8),
        (r#"["null",{"type":"enum","name":"E","symbols":["A","B"]}]"#, DataType::Utf8),
        (r#"{"type":"int","logicalType":"date"}"#, DataType::Date32),
        (r#"{"type":"int","logicalType":"time-millis"}"#, DataType::Time32(TimeUnit::Millisecond)),
        (
            r#"{"type":"long","logicalType":"timestamp-millis"}"#,
            DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
        ),
        (
            r#"["null",{"type":"long","logicalType":"timestamp-micros"}]"#,
            DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        ),
        (r#"{"type":"long","logicalType":"local-timestamp-millis"}"#, DataType::Timestamp(TimeUnit::Millisecond, None)),
        (r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#, DataType::Decimal128(10, 2)),
        (r#"{"type":"fixed","name":"F","size":4}"#, DataType::FixedSizeBinary(4)),
    ];
    for (avro, expected) in cases {
        let schema = avro_to_arrow(&record(&format!(r#"{{"name":"x","type":{avro}}}"#))).unwrap();
        assert_eq!(schema.fields().len(), 1);
        assert_eq!(schema.field(0), &Field::new("x", expected, true), "{avro}");
    }
}

#[test]
fn nested_types_lose_their_metadata_and_keep_their_shape() {
    let text = record(
        r#"{"name":"where","type":{"type":"record","name":"Where","fields":[
              {"name":"lat","type":"double","default":1.5},
              {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["POINT","LINE"]}}]}},
           {"name":"tags","type":{"type":"array","items":["null","string"]}},
           {"name":"values","type":{"type":"map","values":"double"}}"#,
    );
    let schema = avro_to_arrow(&text).unwrap();
    let DataType::Struct(parts) = schema.field(0).data_type() else { panic!("{schema}") };
    assert_eq!(parts[0].as_ref(), &Field::new("lat", DataType::Float64, false));
    assert_eq!(parts[1].as_ref(), &Field::new("kind", DataType::Utf8, false));
    let DataType::List(item) = schema.field(1).data_type() else { panic!("{schema}") };
    assert_eq!((item.data_type(), item.is_nullable()), (&DataType::Utf8, true));
    assert!(matches!(schema.field(2).data_type(), DataType::Map(..)));
    assert!(schema.fields().iter().all(|field| field.is_nullable() && field.metadata().is_empty()));
}

#[test]
fn what_a_segment_cannot_hold_is_refused_by_name() {
    let reserved = refused(r#"{"name":"_offset","type":"long"}"#);
    assert!(matches!(&reserved, SchemaError::Reserved { column } if column == "_offset"), "{reserved}");
    let union = refused(r#"{"name":"x","type":["null","string","long"]}"#);
    assert!(matches!(&union, SchemaError::Unsupported { column, .. } if column == "x"), "{union}");
    let duration = refused(
        r#"{"name":"a","type":{"type":"record","name":"A","fields":[
             {"name":"d","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}}]}}"#,
    );
    assert!(matches!(&duration, SchemaError::Unsupported { column, .. } if column == "a.d"), "{duration}");
    let empty = refused(r#"{"name":"a","type":{"type":"record","name":"A","fields":[]}}"#);
    assert!(matches!(&empty, SchemaError::Unsupported { .. }), "{empty}");
    let twice = refused(r#"{"name":"a","type":"int"},{"name":"a","type":"int"}"#);
    assert!(matches!(twice, SchemaError::Duplicate { .. } | SchemaError::Avro(_)), "{twice}");
    for text in ["", "{}", r#""string""#, r#"{"type":"record"}"#, r#"{"type":"array","items":"int"}"#] {
        assert!(matches!(avro_to_arrow(text), Err(SchemaError::Avro(_))), "{text}");
    }
}

#[test]
fn a_type_that_contains_itself_is_refused() {
    let error = refused(r#"{"name":"next","type":["null","city.Test"]}"#);
    assert!(matches!(error, SchemaError::Avro(_) | SchemaError::TooLarge { .. }), "{error}");
}

#[test]
fn a_schema_of_too_many_columns_is_refused() {
    let fields: Vec<_> = (0..=COLUMNS_MAX).map(|i| format!(r#"{{"name":"c{i}","type":"int"}}"#)).collect();
    let error = refused(&fields.join(","));
    assert!(matches!(error, SchemaError::TooLarge { .. }), "{error}");
}

#[test]
fn decoded_rows_conform_to_the_table() {
    let text = record(
        r#"{"name":"id","type":"long"},
           {"name":"level","type":{"type":"enum","name":"Level","symbols":["LOW","HIGH"]}},
           {"name":"at","type":{"type":"record","name":"At","fields":[
              {"name":"x","type":"int"},{"name":"level","type":"Level"}]}},
           {"name":"tags","type":{"type":"array","items":"Level"}}"#,
    );
    // zig-zag: id 1, level HIGH, at {x: 2, level: LOW}, tags [HIGH], end.
    let message: &[u8] = &[0, 0, 0, 0, 7, 2, 2, 4, 0, 2, 2, 0];
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(7), AvroSchema::new(text.clone())).unwrap();
    let mut decoder = ReaderBuilder::new().with_writer_schema_store(store).build_decoder().unwrap();
    assert_eq!(decoder.decode(message).unwrap(), message.len());
    let decoded = decoder.flush().unwrap().unwrap();
    let table = avro_to_arrow(&text).unwrap();
    let rows = conform(&decoded, &table).unwrap();
    assert_eq!(rows.schema(), table);
    assert_eq!(rows.column(1).as_string::<i32>().value(0), "HIGH");
    assert_eq!(rows.column(2).as_struct().column(1).as_string::<i32>().value(0), "LOW");
    let other = avro_to_arrow(&record(r#"{"name":"id","type":"long"}"#)).unwrap();
    assert!(conform(&decoded, &other).is_err());
    let renamed = RecordBatch::try_from_iter([("ident", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert!(conform(&renamed, &other).unwrap_err().to_string().contains("ident"));
}

#[test]
fn own_columns_follow_the_table() {
    let table = avro_to_arrow(&record(r#"{"name":"id","type":"long"}"#)).unwrap();
    let segment = with_own_columns(&table);
    let names: Vec<_> = segment.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", PARTITION, OFFSET, TIMESTAMP, KEY, HEADERS, RAW, ERROR]);
}

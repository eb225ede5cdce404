//! Rows become values that the decoder reads back; what does not fit is named.

use super::*;
use crate::decode::StreamDecoder;
use crate::testing::{ALL_TYPES, ALL_TYPES_ROW, definition, one_field};
use arrow::array::Array;
use proptest::prelude::*;

const READING: &str = r#"{"type":"record","name":"Reading","fields":[
    {"name":"sensor","type":"string"},
    {"name":"lane","type":"int"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"speed","type":["null","double"],"default":null},
    {"name":"unit","type":"string","default":"km/h"}]}"#;

fn encoder(format: Format) -> Encoder {
    let mut stream = definition(format, &[READING]);
    stream.key_fields = vec!["sensor".into(), "lane".into()];
    stream.event_time = Some("at".into());
    Encoder::new(&stream).unwrap()
}

#[test]
fn columns_are_mapped_by_name() {
    let encoder = encoder(Format::Json);
    let binding = encoder.bind(&["at", "lane", "\u{feff}sensor"]).unwrap();
    let mut message = Message::default();
    let row = [Cell::Text("2026-01-31T08:15:00Z"), Cell::Text(" 2 "), Cell::Text("A|1")];
    encoder.encode(&binding, &row, &mut message).unwrap();
    let text = std::str::from_utf8(&message.value).unwrap();
    assert_eq!(text, r#"{"sensor":"A|1","lane":2,"at":"2026-01-31T08:15:00Z","unit":"km/h"}"#);
    assert_eq!(message.key.as_deref(), Some("A|1|2"));
    assert_eq!(message.event_time_ms, Some(1_769_847_300_000));
}

#[test]
fn wrong_columns_list_the_right_ones() {
    let encoder = encoder(Format::Avro);
    let text = encoder.bind(&["sensor", "lane", "at", "sped"]).unwrap_err().to_string();
    assert!(text.contains("\"sped\"") && text.contains("sensor, lane, at, speed, unit"), "{text}");
    let text = encoder.bind(&["sensor", "speed"]).unwrap_err().to_string();
    assert!(text.contains("needs the columns lane, at too"), "{text}");
    assert!(encoder.bind(&["sensor", "sensor"]).unwrap_err().to_string().contains("twice"));
    let row = serde_json::json!({"sensor": "x", "lane": 1, "at": 0, "sped": 1});
    let error = encoder.encode_object(row.as_object().unwrap(), &mut Message::default()).unwrap_err();
    assert!(error.to_string().contains("column sped") && error.expected.contains("speed"), "{error}");
}

#[test]
fn wrong_cells_name_line_column_value_and_type() {
    let encoder = encoder(Format::Avro);
    let binding = encoder.bind(&["sensor", "lane", "at", "speed"]).unwrap();
    for (lane, at, speed, expected) in [
        ("two", "0", "", "line 7, column lane: expected int (a whole number of 32 bits), found \"two\""),
        ("1.5", "0", "", "line 7, column lane: expected int (a whole number of 32 bits), found \"1.5\""),
        ("", "0", "", "line 7, column lane: expected int (a whole number of 32 bits), found \"\""),
        ("1", "yesterday", "", "column at: expected timestamp"),
        ("1", "2026-01-31T08:15:00", "", "(it has no zone: Z or an offset such as +01:00)"),
        ("1", "0", "fast", "column speed: expected double, found \"fast\""),
    ] {
        let row = [Cell::Text("s"), Cell::Text(lane), Cell::Text(at), Cell::Text(speed)];
        let error = encoder.encode(&binding, &row, &mut Message::default()).unwrap_err().at_line(7).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let long = "x".repeat(500);
    let row = [Cell::Text("s"), Cell::Text(&long), Cell::Text("0"), Cell::Null];
    let error = encoder.encode(&binding, &row, &mut Message::default()).unwrap_err();
    assert!(error.value.len() < 100, "{error}");
}

#[test]
fn keys_and_times() {
    let mut stream = definition(Format::Json, &[&one_field(r#"["null","string"]"#)]);
    stream.key_fields = vec!["v".into()];
    stream.event_time = Some("v".into());
    let encoder = Encoder::new(&stream).unwrap();
    let mut message = Message::default();
    let binding = encoder.bind(&["v"]).unwrap();
    encoder.encode(&binding, &[Cell::Text("2026-01-31T08:15:00.1234567Z")], &mut message).unwrap();
    assert_eq!(message.event_time_ms, Some(1_769_847_300_123));
    assert!(encoder.encode(&binding, &[Cell::Text("soon")], &mut message).is_err());
    encoder.encode(&binding, &[Cell::Null], &mut message).unwrap();
    assert_eq!((message.key, message.value.as_slice(), message.event_time_ms), (None, b"{}".as_slice(), None));
    stream.schemas[0].text = one_field(r#""boolean""#);
    assert!(Encoder::new(&stream).unwrap_err().to_string().contains("needs a timestamp"));
}

#[test]
fn what_json_cannot_hold_is_refused() {
    let encoder = Encoder::new(&definition(Format::Json, &[&one_field(r#""double""#)])).unwrap();
    let binding = encoder.bind(&["v"]).unwrap();
    let error = encoder.encode(&binding, &[Cell::Text("NaN")], &mut Message::default()).unwrap_err();
    assert!(error.to_string().contains("no NaN"), "{error}");
    let avro = Encoder::new(&definition(Format::Avro, &[&one_field(r#""double""#)])).unwrap();
    let mut message = Message::default();
    avro.encode(&binding, &[Cell::Text("NaN")], &mut message).unwrap();
    assert!(f64::from_le_bytes(message.value.try_into().unwrap()).is_nan());
}

#[test]
fn the_confluent_header_has_the_last_schemas_id() {
    let encoder = Encoder::new(&definition(Format::AvroConfluent, &[READING, &one_field(r#""long""#)])).unwrap();
    let mut message = Message::default();
    encoder.encode_object(serde_json::json!({"v": -1}).as_object().unwrap(), &mut message).unwrap();
    assert_eq!(message.value, [0, 0, 0, 0, 2, 1]);
}

#[test]
fn one_message_serves_many_rows() {
    let encoder = Encoder::new(&definition(Format::Avro, &[ALL_TYPES])).unwrap();
    let row: Map<String, Json> = serde_json::from_str(ALL_TYPES_ROW).unwrap();
    let (mut reused, mut fresh) = (Message::default(), Message::default());
    for _ in 0..3 {
        encoder.encode_object(&row, &mut reused).unwrap();
    }
    encoder.encode_object(&row, &mut fresh).unwrap();
    assert_eq!(reused, fresh);
}

proptest! {
    /// Whatever text a cell accepts, the decoder reads back, in every format and with the same value.
    #[test]
    fn accepted_cells_decode(
        ty in prop::sample::select(vec![
            r#""long""#, r#""int""#, r#""double""#, r#""float""#, r#""string""#, r#""boolean""#, r#"["null","string"]"#,
            r#"{"type":"long","logicalType":"timestamp-micros"}"#, r#"{"type":"int","logicalType":"date"}"#,
            r#"{"type":"int","logicalType":"time-millis"}"#, r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}"#,
            r#"{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":9,"scale":3}"#, r#""bytes""#,
        ]),
        text in prop_oneof!["-?[0-9]{1,20}", "-?[0-9]{1,5}\\.[0-9]{1,6}", "\\PC{0,12}", "[0-9]{4}-[01][0-9]-[0-3][0-9]", "true"],
    ) {
        let schema = one_field(ty);
        let mut batches = Vec::new();
        for format in [Format::Avro, Format::AvroConfluent, Format::Json] {
            let stream = definition(format, &[&schema]);
            let encoder = Encoder::new(&stream).unwrap();
            let binding = encoder.bind(&["v"]).unwrap();
            let mut message = Message::default();
            if encoder.encode(&binding, &[Cell::Text(&text)], &mut message).is_ok() {
                let decoded = StreamDecoder::new(&stream).unwrap().decode([Some(message.value.as_slice())]).unwrap();
                prop_assert!(decoded.errors.is_null(0), "{} {} {:?}", ty, text, decoded.errors);
                batches.push(decoded.batch);
            }
        }
        prop_assert!(batches.windows(2).all(|pair| pair[0] == pair[1]), "{} {:?} {:?}", ty, text, batches);
    }
}

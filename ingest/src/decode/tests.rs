//! Good values become columns; bad, hostile and random ones are quarantined with a reason.

use super::*;
use crate::encode::{Encoder, Message};
use crate::testing::{ALL_TYPES, ALL_TYPES_ROW, definition, one_field};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use arrow::util::pretty::pretty_format_batches;
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use proptest::prelude::*;

fn decoder(format: Format, schemas: &[&str]) -> StreamDecoder {
    StreamDecoder::new(&definition(format, schemas)).unwrap()
}

fn encoded(format: Format, schema: &str, row: &str) -> Vec<u8> {
    let encoder = Encoder::new(&definition(format, &[schema])).unwrap();
    let mut message = Message::default();
    encoder.encode_object(&serde_json::from_str(row).unwrap(), &mut message).unwrap();
    message.value
}

fn decode(decoder: &StreamDecoder, values: &[&[u8]]) -> Decoded {
    decoder.decode(values.iter().map(|value| Some(*value))).unwrap()
}

/// The reason for which one JSON message with the field `v` is quarantined.
fn json_reason(ty: &str, message: &str) -> Option<String> {
    let decoded = decode(&decoder(Format::Json, &[&one_field(ty)]), &[message.as_bytes()]);
    assert_eq!(decoded.batch.num_rows(), 1);
    (!decoded.errors.is_null(0)).then(|| decoded.errors.value(0).to_owned())
}

#[test]
fn all_types_are_the_same_in_every_format() {
    let expected = decode(&decoder(Format::Json, &[ALL_TYPES]), &[ALL_TYPES_ROW.as_bytes()]);
    assert_eq!(expected.errors.null_count(), 1, "{:?}", expected.errors);
    for format in [Format::Avro, Format::AvroConfluent, Format::Json] {
        let value = encoded(format, ALL_TYPES, ALL_TYPES_ROW);
        let found = decode(&decoder(format, &[ALL_TYPES]), &[&value]);
        assert_eq!(found.errors.null_count(), 1, "{format:?}: {:?}", found.errors);
        assert_eq!(found.batch, expected.batch, "{format:?}");
    }
    let table = pretty_format_batches(&[expected.batch]).unwrap().to_string();
    for cell in
        ["9007199254740993", "Zürich \"Nord\" 🚀", "2026-01-31T08:15:00.250Z", "-12.50", "{x: 1, y: -2}", "closed"]
    {
        assert!(table.contains(cell), "{cell} in\n{table}");
    }
}

#[test]
fn columns_are_those_of_arrow_avro() {
    let rows: Vec<_> = (0..50)
        .map(|at| ALL_TYPES_ROW.replace("-7", &at.to_string()).replace("0.1", &format!("{at}.37e-3")))
        .map(|row| encoded(Format::AvroConfluent, ALL_TYPES, &row))
        .collect();
    let ours =
        decode(&decoder(Format::AvroConfluent, &[ALL_TYPES]), &rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(1), AvroSchema::new(ALL_TYPES.to_owned())).unwrap();
    let mut theirs = ReaderBuilder::new().with_writer_schema_store(store).build_decoder().unwrap();
    for row in &rows {
        assert_eq!(theirs.decode(row).unwrap(), row.len());
    }
    let theirs = theirs.flush().unwrap().unwrap();
    let theirs = cairn_anchor::schema::conform(&theirs, ours.batch.schema_ref()).unwrap();
    assert_eq!(ours.batch, theirs);
}

#[test]
fn exactly_the_bad_records_are_quarantined() {
    for format in [Format::Avro, Format::AvroConfluent, Format::Json] {
        let decoder = decoder(format, &[ALL_TYPES]);
        let good: Vec<_> =
            (0..20).map(|at| encoded(format, ALL_TYPES, &ALL_TYPES_ROW.replace("-7", &at.to_string()))).collect();
        let bad = &good[0][..good[0].len() - 1];
        let mut mixed: Vec<Option<&[u8]>> = Vec::new();
        for value in &good {
            mixed.extend([Some(value.as_slice()), Some(bad), None, Some(b"")]);
        }
        let found = decoder.decode(mixed.iter().copied()).unwrap();
        let alone = decode(&decoder, &good.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(found.errors.null_count(), good.len(), "{format:?}");
        for (at, value) in mixed.iter().enumerate() {
            let row = found.batch.slice(at, 1);
            if found.errors.is_null(at) {
                assert_eq!(row, alone.batch.slice(at / 4, 1));
            } else {
                assert!(row.columns().iter().all(|column| column.is_null(0)), "{format:?}: {value:?}");
            }
        }
        assert_eq!(found.quarantined.iter().map(|(_, count)| count).sum::<u64>(), 60);
        assert!(found.quarantined.contains(&(ReasonCode::NoValue, 20)));
    }
}

#[test]
fn json_never_changes_a_value() {
    for (ty, value, part) in [
        (r#""long""#, "1.5", "fraction"),
        (r#""long""#, "1.0", "fraction"),
        (r#""long""#, "1e3", "exponent"),
        (r#""long""#, r#""7""#, "string"),
        (r#""long""#, "9223372036854775808", "range"),
        (r#""long""#, "true", "boolean"),
        (r#""int""#, "2147483648", "range"),
        (r#""int""#, "-2147483649", "range"),
        (r#""double""#, r#""1.5""#, "string"),
        (r#""double""#, "1e999", "range"),
        (r#""double""#, "NaN", "not JSON"),
        (r#""float""#, "1e39", "range"),
        (r#""string""#, "7", "number"),
        (r#""string""#, "true", "boolean"),
        (r#""string""#, "{}", "object"),
        (r#""boolean""#, "1", "number"),
        (r#""boolean""#, r#""true""#, "string"),
        (r#""bytes""#, r#""Ā""#, "U+00FF"),
        (r#"{"type":"fixed","name":"F","size":2}"#, r#""abc""#, "3 bytes"),
        (r#"{"type":"enum","name":"E","symbols":["a"]}"#, r#""b""#, "one of a"),
        (r#"{"type":"array","items":"long"}"#, "[1,2.5]", "fraction"),
        (r#"{"type":"array","items":"long"}"#, "[1,null]", "null"),
        (r#"{"type":"array","items":"long"}"#, "7", "array"),
        (r#"{"type":"map","values":"long"}"#, r#"{"a":1,"a":2}"#, "twice"),
        (r#"{"type":"record","name":"R","fields":[{"name":"x","type":"long"}]}"#, "{}", "v.x: it is missing"),
        (r#"{"type":"record","name":"R","fields":[{"name":"x","type":"long"}]}"#, r#"{"x":"1"}"#, "field v.x"),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, r#""2026-01-31""#, "time of day"),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "9223372036854775807", "years"),
        (r#"{"type":"int","logicalType":"date"}"#, r#""31.01.2026""#, "date"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#, "1.005", "more digits"),
        (r#"{"type":"string","logicalType":"uuid"}"#, r#""abc""#, "uuid"),
    ] {
        let reason = json_reason(ty, &format!(r#"{{"v":{value}}}"#));
        let reason = reason.unwrap_or_else(|| panic!("{ty} took {value}"));
        assert!(reason.contains(part), "{ty}, {value}: {reason}");
        assert!(reason.starts_with("field v") || reason.starts_with("not JSON"), "{ty}, {value}: {reason}");
    }
}

#[test]
fn json_framing() {
    for (message, part) in [
        ("", "the end where a JSON object belongs"),
        ("  ", "the end"),
        ("[1]", "an array where a JSON object belongs"),
        ("null", "null where a JSON object belongs"),
        (r#"{"v":1}{"v":2}"#, "an object after the message's end"),
        (r#"{"v":1}x"#, "after the message's end"),
        (r#"{"v":1,}"#, "a name belongs"),
        (r#"{"v":01}"#, "leading zero"),
        (r#"{"v":1"#, "the end"),
        (r#"{"v":1,"v":1}"#, "twice"),
        (r#"{"v":1,"other":[1,}"#, "not JSON"),
        (r#"{"v":1,"other":"\x"}"#, "escape"),
        (r#"{"v":1,"other":"\ud800"}"#, "surrogate"),
        ("{\"v\":1,\"other\":\"a\nb\"}", "control character"),
        (r#"{'v':1}"#, "a string belongs"),
        ("\u{feff}{\"v\":1}", "something else"),
    ] {
        let reason = json_reason(r#""long""#, message);
        assert!(reason.as_deref().is_some_and(|reason| reason.contains(part)), "{message}: {reason:?}");
    }
    for message in
        [r#"{"v":1}"#, " {\n\"v\" : 1 , \"w\" : [ {\"a\":{}} , -0.5e+3, \"\\u00e9\" ] }\r\n", "{}", r#"{"v":null}"#]
    {
        assert_eq!(json_reason(r#""long""#, message), None, "{message}");
    }
    let deep = format!(r#"{{"w":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    assert!(json_reason(r#""long""#, &deep).unwrap().contains("nests more than"));
    let decoded = decode(&decoder(Format::Json, &[&one_field(r#""long""#)]), &[b"{\"v\":1,\"w\":\"\xff\"}"]);
    assert!(decoded.errors.value(0).contains("UTF-8 after 12 bytes"));
}

#[test]
fn hostile_avro() {
    let array = one_field(
        r#"{"type":"array","items":["null",{"type":"record","name":"W","fields":[
        {"name":"a","type":"long"},{"name":"b","type":"long"},{"name":"c","type":"long"},{"name":"d","type":"long"},
        {"name":"e","type":"long"},{"name":"f","type":"long"},{"name":"g","type":"long"},{"name":"h","type":"long"}]}]}"#,
    );
    let mut bomb = vec![0x80, 0xe2, 0x09]; // 80,000 items, each the null branch of one byte
    bomb.extend(std::iter::repeat_n(0, 80_001));
    for (schema, bytes, part) in [
        (
            one_field(r#""string""#),
            vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            "bytes are needed",
        ),
        (one_field(r#""string""#), vec![0x01], "a length of -1"),
        (one_field(r#""string""#), vec![0xfe, 0xff, 0xff, 0xff, 0x0f], "bytes are needed"),
        (one_field(r#""string""#), vec![0x02, 0xff], "not UTF-8"),
        (one_field(r#""long""#), vec![0xff; 11], "64 bits"),
        (one_field(r#""long""#), vec![0xff; 3], "ends within a number"),
        (one_field(r#""long""#), vec![2, 2], "1 bytes are left over"),
        (one_field(r#""int""#), vec![0x80, 0x80, 0x80, 0x80, 0x10], "32 bits"),
        (one_field(r#""boolean""#), vec![2], "boolean of 2"),
        (one_field(r#"["null","long"]"#), vec![4], "branch 2"),
        (one_field(r#"{"type":"enum","name":"E","symbols":["a"]}"#), vec![2], "symbol 1"),
        (
            one_field(r#"{"type":"array","items":"long"}"#),
            vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0x0f],
            "items are claimed",
        ),
        (one_field(r#"{"type":"array","items":"long"}"#), vec![1, 4, 2, 0], "states another length"),
        (
            one_field(r#"{"type":"long","logicalType":"timestamp-millis"}"#),
            vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "years",
        ),
        (array, bomb, "claims more values"),
    ] {
        let decoded = decode(&decoder(Format::Avro, &[&schema]), &[&bytes]);
        let reason = if decoded.errors.is_null(0) { "none" } else { decoded.errors.value(0) };
        assert!(reason.contains(part), "{schema}: {reason}");
    }
}

#[test]
fn confluent_versions_resolve_to_the_last() {
    let first = r#"{"type":"record","name":"R","fields":[
        {"name":"id","type":"int"},{"name":"gone","type":{"type":"array","items":"string"}},{"name":"old","type":"string"}]}"#;
    let last = r#"{"type":"record","name":"R","fields":[
        {"name":"new","type":"string","default":"none"},{"name":"id","type":"long"},
        {"name":"renamed","aliases":["old"],"type":["null","string"]},{"name":"extra","type":["null","double"],"default":null},
        {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":6,"scale":2},"default":"\u0001\u0000"}]}"#;
    let decoder = decoder(Format::AvroConfluent, &[first, last]);
    let one = encoded(Format::AvroConfluent, first, r#"{"id":7,"gone":["x","y"],"old":"o"}"#);
    let mut two =
        encoded(Format::AvroConfluent, last, r#"{"new":"n","id":8,"renamed":"r","extra":1.5,"price":"3.20"}"#);
    two[4] = 2;
    let mut unknown = one.clone();
    unknown[4] = 9;
    let decoded = decode(&decoder, &[&one, &two, &unknown, &[1, 0, 0, 0, 1], &[0, 0]]);
    let text = pretty_format_batches(&[decoded.batch.slice(0, 2)]).unwrap().to_string();
    for line in ["| none | 7  | o       |       | 2.56  |", "| n    | 8  | r       | 1.5   | 3.20  |"] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(decoded.errors.is_null(0) && decoded.errors.is_null(1));
    assert!(decoded.errors.value(2).contains("schema id 9"), "{:?}", decoded.errors);
    assert!(decoded.errors.value(3).contains("byte 1, not 0"));
    assert!(decoded.errors.value(4).contains("2 bytes"));
    assert_eq!(decoded.quarantined, [(ReasonCode::UnknownSchema, 3)]);
}

#[test]
fn a_version_that_does_not_resolve_is_refused_by_field() {
    for (first, last, part) in [
        (r#""string""#, r#""long""#, "written as string"),
        (r#""double""#, r#""long""#, "written as double"),
        (
            r#"{"type":"long","logicalType":"timestamp-micros"}"#,
            r#"{"type":"long","logicalType":"timestamp-millis"}"#,
            "microseconds",
        ),
    ] {
        let error = StreamDecoder::new(&definition(Format::AvroConfluent, &[&one_field(first), &one_field(last)]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("field v") && text.contains("schema id 1") && text.contains(part), "{text}");
    }
    let mut wrong = definition(Format::Json, &[&one_field(r#""long""#)]);
    wrong.key_fields = vec!["w".into()];
    assert!(StreamDecoder::new(&wrong).unwrap_err().to_string().contains("names w"));
}

#[test]
fn oversize_and_promotions() {
    let mut stream = definition(Format::AvroConfluent, &[&one_field(r#""int""#), &one_field(r#""double""#)]);
    stream.limits.bytes_max = 1_024;
    let decoder = StreamDecoder::new(&stream).unwrap();
    let large = vec![0; 1_025];
    let decoded = decode(&decoder, &[&large, &[0, 0, 0, 0, 1, 14]]);
    assert!(decoded.errors.value(0).contains("1025 bytes"));
    assert_eq!(decoded.batch.column(0).as_primitive::<Float64Type>().value(1), 7.0);
}

#[test]
fn an_empty_batch_has_the_tables_columns() {
    let decoder = decoder(Format::Json, &[ALL_TYPES]);
    let decoded = decoder.decode(std::iter::empty()).unwrap();
    assert_eq!((decoded.batch.num_rows(), decoded.errors.len()), (0, 0));
    assert_eq!(decoded.batch.schema_ref(), decoder.table());
    let _ = (decoded.batch.column(1).as_primitive::<Int32Type>(), decoded.batch.column(2).as_primitive::<Int64Type>());
}

/// Decodes twice and beside good records: never a panic, always the same, and the neighbours are untouched.
fn check_hostile(format: Format, bytes: &[u8]) {
    let decoder = decoder(format, &[ALL_TYPES]);
    let good = encoded(format, ALL_TYPES, ALL_TYPES_ROW);
    let once = decode(&decoder, &[&good, bytes, &good]);
    let twice = decode(&decoder, &[&good, bytes, &good]);
    assert_eq!(once.batch, twice.batch);
    assert_eq!(once.errors, twice.errors);
    assert!(once.errors.is_null(0) && once.errors.is_null(2));
    let alone = decode(&decoder, &[&good]);
    assert_eq!(once.batch.slice(0, 1), alone.batch);
    assert_eq!(once.batch.slice(2, 1), alone.batch);
    let single = decode(&decoder, &[bytes]);
    assert_eq!(single.batch, once.batch.slice(1, 1));
    assert_eq!(single.errors.is_null(0), once.errors.is_null(1));
    if !single.errors.is_null(0) {
        assert_eq!(single.errors.value(0), once.errors.value(1));
        assert!(single.errors.value(0).len() <= REASON_BYTES_MAX);
    }
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Avro), Just(Format::AvroConfluent), Just(Format::Json)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_do_no_harm(format in formats(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_hostile(format, &bytes);
    }

    #[test]
    fn mutated_records_do_no_harm(
        format in formats(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut bytes = encoded(format, ALL_TYPES, ALL_TYPES_ROW);
        for (at, byte, kind) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
        }
        check_hostile(format, &bytes);
    }

    /// What serde_json takes for an object, this reader takes, and nothing else.
    #[test]
    fn json_agrees_with_serde(text in r#"[ {}\[\]:,"abtrufalsn\\u0-9.eE+-]{0,24}"#, inner in r#"[{}\[\]:,"a1\\n .-]{0,12}"#) {
        for text in [text, format!(r#"{{"a":{inner}}}"#)] {
            let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
            let ours = json_reason(r#""long""#, &text);
            if theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range")) {
                continue;
            }
            prop_assert_eq!(theirs.is_ok(), ours.is_none(), "{} {:?} {:?}", text, theirs, ours);
        }
    }

    #[test]
    fn doubles_are_the_nearest(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
        let message = format!(r#"{{"v":{value:e}}}"#);
        let decoded = decode(&decoder(Format::Json, &[&one_field(r#""double""#)]), &[message.as_bytes()]);
        prop_assert_eq!(decoded.batch.column(0).as_primitive::<Float64Type>().value(0).to_bits(), value.to_bits());
    }
}

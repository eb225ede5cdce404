//! Files of rows in every form and compression; bad lines are named.

use std::io::Write;
use std::path::PathBuf;

use cairn_proof::statement::{BatchLimits, Format, SchemaVersion};
use serde_json::json;

use super::*;

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"id","type":"string"},
    {"name":"speed","type":["null","double"],"default":null},
    {"name":"source","type":"string","default":"none"}]}"#;

/// A file that is there until the test is over.
struct Temporary {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, bytes: &[u8]) -> Temporary {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    Temporary { _folder: folder, path }
}

fn stream() -> StreamDefinition {
    StreamDefinition {
        name: "test.rows".to_owned(),
        topic: "rows".to_owned(),
        partitions: 1,
        format: Format::Json,
        schemas: vec![SchemaVersion { id: 1, text: SCHEMA.to_owned() }],
        key_fields: vec!["id".to_owned()],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: false,
        anchorers: Vec::new(),
        signatures: cairn_proof::statement::Signatures::default(),
    }
}

fn open(file: &Temporary, maps: &[&str], constants: &[&str], options: &ReadOptions) -> Result<RowReader> {
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mapping = Mapping::parse(&strings(maps), &strings(constants), false)?;
    RowReader::open(&Input::parse(&file.path), &stream(), &mapping, options)
}

/// The values of all messages, which are JSON; their keys are checked on the way.
fn all(reader: &mut RowReader) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    let mut message = Message::default();
    while reader.next_message(&mut message)? {
        let value: Value = serde_json::from_slice(&message.value)?;
        assert_eq!(value["id"].as_str(), message.key.as_deref());
        values.push(value);
    }
    Ok(values)
}

const SKIP: ReadOptions = ReadOptions { format: None, delimiter: b',', skip_bad: true };

#[test]
fn csv_with_quotes_empty_cells_and_a_constant() {
    let file = file("a.csv", b"speed, id ,note\r\n12.5,\"D,1\",x\r\n\r\n,\"say \"\"hi\"\"\ntwice\",y\r\n");
    let mut reader = open(&file, &["note="], &["source=cam"], &ReadOptions::default()).unwrap();
    let rows = all(&mut reader).unwrap();
    assert_eq!(
        rows,
        [json!({"id": "D,1", "speed": 12.5, "source": "cam"}), json!({"id": "say \"hi\"\ntwice", "source": "cam"})]
    );
    assert_eq!((reader.good_count(), reader.bad_count()), (2, 0));
    assert_eq!(reader.progress().total_bytes(), Some(reader.progress().read_bytes()));
}

#[test]
fn ndjson_with_nested_objects() {
    let lines = concat!(
        r#"{"at":"2026","record":{"id":"D1","speed":12.5,"extra":{"deep":1}}}"#,
        "\n \n",
        r#"{"record":{"id":"D2","speed":null,"source":"loop"},"at":"2027"}"#,
    );
    let file = file("a.json", lines.as_bytes());
    let maps = ["at=", "record.*=*", "record.extra="];
    let rows = all(&mut open(&file, &maps, &[], &ReadOptions::default()).unwrap()).unwrap();
    assert_eq!(
        rows,
        [json!({"id": "D1", "speed": 12.5, "source": "none"}), json!({"id": "D2", "source": "loop"})],
        "a missing field gets its default, a null none"
    );
    let maps = ["at=source", "record.id=id", "record.extra.deep=speed", "record.speed=", "record.source="];
    let rows = all(&mut open(&file, &maps, &[], &ReadOptions::default()).unwrap()).unwrap();
    assert_eq!(rows, [json!({"id": "D1", "speed": 1.0, "source": "2026"}), json!({"id": "D2", "source": "2027"})]);
}

#[test]
fn compressed_input_is_the_same_input() {
    let csv = b"id,speed\nD1,1\nD2,2\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv).unwrap();
    for (name, bytes) in [
        ("a.csv", csv.to_vec()),
        ("a.csv.gz", gzip.finish().unwrap()),
        ("a.csv.zst", zstd::encode_all(csv.as_slice(), 1).unwrap()),
    ] {
        let file = file(name, &bytes);
        let mut reader = open(&file, &[], &[], &ReadOptions::default()).unwrap();
        assert_eq!(all(&mut reader).unwrap().len(), 2, "{name}");
        assert_eq!(reader.progress().read_bytes(), bytes.len() as u64);
    }
}

#[test]
fn a_bad_csv_record_stops_with_its_place_or_is_counted() {
    let file = file("a.csv", b"id,speed\nD1,1\nD2\n\"D\n3\",3\nD4,\xff\nD5,5\n");
    let mut reader = open(&file, &[], &[], &ReadOptions::default()).unwrap();
    let error = all(&mut reader).unwrap_err();
    let bad = error.downcast_ref::<BadRecord>().unwrap();
    assert_eq!((bad.line, bad.column.as_deref()), (3, None));
    assert!(error.to_string().ends_with("a.csv, line 3: 1 columns, the header has 2"), "{error}");

    let mut reader = open(&file, &[], &[], &SKIP).unwrap();
    assert_eq!(all(&mut reader).unwrap().len(), 3);
    assert_eq!((reader.good_count(), reader.bad_count()), (3, 2));
    let last = reader.bad()[1].to_string();
    assert!(last.ends_with("a.csv, line 6, column speed: not UTF-8 text"), "{last}");
}

#[test]
fn a_bad_json_line_stops_with_its_place_or_is_counted() {
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(2_000_000));
    let lines = [
        r#"{"id":"D1"}"#,
        r#"{"id":"#,
        r#"[1]"#,
        r#"{"id":"D2","colour":"red"}"#,
        r#"{"speed":1}"#,
        r#"{"id":"D3","id":"D4"}"#,
        r#"{"id":"D5"} x"#,
        &long,
        r#"{"id":"D6"}"#,
    ];
    let file = file("a.ndjson", lines.join("\n").as_bytes());
    let mut reader = open(&file, &[], &[], &SKIP).unwrap();
    assert_eq!(all(&mut reader).unwrap().len(), 2);
    assert_eq!(reader.bad_count(), 7);
    let reasons: Vec<String> = reader.bad().iter().map(ToString::to_string).collect();
    for (reason, part) in reasons.iter().zip([
        "line 2: EOF while parsing",
        "line 3: invalid type: sequence, expected a JSON object",
        "line 4: the schema has no field for colour\nthe file has:     colour, id\nthe schema wants: id*",
        "line 5: nothing for id",
        "line 6: \"id\" is there twice",
        "line 7: trailing characters",
        "line 8: longer than 1048576 bytes",
    ]) {
        assert!(reason.contains(part), "{part:?} is missing in {reason:?}");
    }
    let error = all(&mut open(&file, &[], &[], &ReadOptions::default()).unwrap()).unwrap_err();
    assert_eq!(error.downcast_ref::<BadRecord>().unwrap().line, 2);
}

#[test]
fn a_row_that_the_encoder_refuses_counts_as_bad() {
    let file = file("a.csv", b"id,speed\nD1,fast\nD2,2\n");
    let mut reader = open(&file, &[], &[], &SKIP).unwrap();
    assert_eq!(all(&mut reader).unwrap(), [json!({"id": "D2", "speed": 2.0, "source": "none"})]);
    assert_eq!((reader.good_count(), reader.bad_count()), (1, 1));
    let bad = reader.bad()[0].to_string();
    assert!(bad.ends_with("a.csv, line 2, column speed: expected double, found \"fast\""), "{bad}");
    let error = all(&mut open(&file, &[], &[], &ReadOptions::default()).unwrap()).unwrap_err();
    assert_eq!(error.downcast_ref::<BadRecord>().unwrap().column.as_deref(), Some("speed"));
}

#[test]
fn an_endless_record_ends_the_reading_without_taking_memory() {
    let endless = [b"id,speed\nD1,1\n\"".as_slice(), &b"x".repeat(3_000_000)].concat();
    let file = file("a.csv", &endless);
    let mut reader = open(&file, &[], &[], &SKIP).unwrap();
    let text = format!("{:#}", all(&mut reader).unwrap_err());
    assert!(text.contains("after line 2") && text.contains("closing quote"), "{text}");
}

#[test]
fn what_cannot_be_rows_is_refused_when_opened() {
    let refusal = |bytes: &[u8], options: &ReadOptions| {
        format!("{:#}", open(&file("a.csv", bytes), &[], &[], options).err().unwrap())
    };
    let text = refusal(b"ident,speed\nD1,1\n", &ReadOptions::default());
    assert!(text.contains("a.csv: no column") || text.contains("a.csv: the schema has no field"), "{text}");
    assert!(refusal(b"[{\"id\":1}]", &ReadOptions::default()).contains("one JSON object in each line"));
    let semicolons = b"id;speed\nD1;1\n";
    assert!(refusal(semicolons, &ReadOptions::default()).contains("id;speed"));
    let options = ReadOptions { delimiter: b';', ..ReadOptions::default() };
    assert_eq!(all(&mut open(&file("a.csv", semicolons), &[], &[], &options).unwrap()).unwrap().len(), 1);
    for nothing in [b"".as_slice(), b"\n \n"] {
        let mut reader = open(&file("a.csv", nothing), &[], &[], &ReadOptions::default()).unwrap();
        assert_eq!(all(&mut reader).unwrap().len(), 0);
    }
    let options = ReadOptions { format: Some(InputFormat::Ndjson), ..ReadOptions::default() };
    let error = all(&mut open(&file("a.csv", b"id\nD1\n"), &[], &[], &options).unwrap()).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}

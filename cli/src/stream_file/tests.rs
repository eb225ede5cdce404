//! Definitions in files: the built-in ones, and each mistake with its answer.

use super::*;

const SCHEMA: &str = r#"{"type": "record", "name": "Station", "fields": [
    {"name": "station", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "ozone", "type": ["null", "double"], "default": null},
    {"name": "parts", "type": {"type": "array", "items": "double"}}]}"#;

const DEFINITION: &str = r#"
name = "air.quality"
topic = "sensors.air"
partitions = 3
format = "json"
schema = "air.avsc"
key_fields = ["station"]
event_time = "at"
"#;

fn parsed(text: &str) -> Result<StreamDefinition> {
    parse("air.toml", text, |file| {
        ensure!(file == Path::new("air.avsc"), "no such file");
        Ok(SCHEMA.to_owned())
    })
}

fn refusal(text: &str) -> String {
    format!("{:#}", parsed(text).unwrap_err())
}

#[test]
fn the_built_in_streams_are_valid_and_are_what_the_simulator_publishes() {
    let streams = built_in().unwrap();
    let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names, BUILT_IN.map(|stream| stream.name));
    assert_eq!(names, crate::city::CityStream::ALL.map(crate::city::CityStream::name));
    let formats: Vec<Format> = streams.iter().map(|stream| stream.format).collect();
    assert_eq!(formats, FORMATS[..3]);
    for stream in &streams {
        assert_eq!(stream.partitions, 4);
        assert_eq!(stream.limits, BatchLimits::default());
        assert!(stream.anchorers.is_empty() && stream.event_time.is_some() && !stream.gaps_allowed);
        assert_eq!(stream.key_fields.len(), 1);
    }
}

#[test]
fn every_field_of_the_built_in_schemas_says_what_it_is() {
    for stream in BUILT_IN {
        let schema: serde_json::Value = serde_json::from_str(stream.schema).unwrap();
        let fields = schema["fields"].as_array().unwrap();
        assert!(schema["doc"].as_str().unwrap().contains("Follows"), "{}", stream.name);
        for field in fields {
            let doc = field["doc"].as_str().unwrap_or_default();
            assert!(doc.len() > 30 && doc.ends_with('.'), "{}.{}: {doc:?}", stream.name, field["name"]);
        }
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let stream = parsed(DEFINITION).unwrap();
    assert_eq!((stream.name.as_str(), stream.topic.as_str()), ("air.quality", "sensors.air"));
    assert_eq!(stream.limits, BatchLimits::default());
    assert_eq!(stream.schemas, [SchemaVersion { id: 1, text: SCHEMA.to_owned() }]);
    assert!(!stream.gaps_allowed);
    let stream = parsed(&DEFINITION.replace("topic = \"sensors.air\"", "")).unwrap();
    assert_eq!(stream.topic, "air.quality");
    let limits = parsed(&format!("{DEFINITION}[limits]\nage_ms_max = 250\n")).unwrap().limits;
    assert_eq!(limits, BatchLimits { age_ms_max: 250, ..BatchLimits::default() });
}

#[test]
fn several_schema_versions_keep_their_ids_and_order() {
    let versions = "[[schemas]]\nid = 7\nfile = \"air.avsc\"\n[[schemas]]\nid = 9\nfile = \"air.avsc\"\n";
    let several = format!("{}{versions}", DEFINITION.replace("schema = \"air.avsc\"", ""));
    let ids: Vec<u32> = parsed(&several).unwrap().schemas.iter().map(|schema| schema.id).collect();
    assert_eq!(ids, [7, 9]);
    assert!(refusal(&format!("{DEFINITION}{versions}")).contains("both schema and [[schemas]]"));
    assert!(refusal(&several.replace("id = 9", "id = 7")).contains("each one once"));
    let with_id = several.replace("partitions", "schema_id = 3\npartitions");
    assert!(refusal(&with_id).contains("schema_id belongs to a single schema"));
}

#[test]
fn errors_name_file_key_value_and_what_is_allowed() {
    let change = |from: &str, to: &str| refusal(&DEFINITION.replace(from, to));
    for (text, parts) in [
        (change("partitions = 3", "partitions = 0"), ["air.toml", "partitions = 0", "1 to 4096"]),
        (change("partitions = 3", "partitions = \"three\""), ["air.toml", "partitions", "u32"]),
        (change("\"json\"", "\"xml\""), ["air.toml", "format = \"xml\"", "avro, avro-confluent, json"]),
        (change("air.quality", "Air"), ["air.toml", "name = \"Air\"", "schema.table"]),
        (change("air.quality", "cairn.blocks"), ["air.toml", "cairn.blocks", "none of"]),
        (change("sensors.air", "a b"), ["air.toml", "topic = \"a b\"", "a–z"]),
        (change("[\"station\"]", "[\"place\"]"), ["air.toml", "`key_fields` names place", "station, at, ozone, parts"]),
        (change("[\"station\"]", "[\"parts\"]"), ["air.toml", "key_fields: \"parts\"", "plain fields"]),
        (change("\"at\"", "\"when\""), ["air.toml", "`event_time` names when", "station, at, ozone, parts"]),
        (change("\"at\"", "\"ozone\""), ["air.toml", "`event_time` names ozone", "timestamp"]),
        (change("air.avsc", "gone.avsc"), ["air.toml", "schema = \"gone.avsc\"", "no such file"]),
        (change("schema = \"air.avsc\"", ""), ["air.toml", "no schema", "add schema ="]),
        (change("topic =", "topik ="), ["air.toml", "topik", "expected one of"]),
        (change("partitions = 3", ""), ["air.toml", "missing field", "partitions"]),
        (
            refusal(&format!("{DEFINITION}[limits]\nbytes_max = 5\n")),
            ["air.toml", "limits.bytes_max = 5", "1024 to 268435456"],
        ),
    ] {
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }
}

#[test]
fn schemas_are_found_beside_the_file_and_files_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("air.toml");
    std::fs::write(&path, DEFINITION).unwrap();
    let text = format!("{:#}", read(&path).unwrap_err());
    assert!(text.contains("air.avsc") && text.contains("cannot open"), "{text}");
    std::fs::write(folder.path().join("air.avsc"), SCHEMA).unwrap();
    assert_eq!(read(&path).unwrap(), parsed(DEFINITION).unwrap());
    std::fs::write(folder.path().join("air.avsc"), SCHEMA.replace("double", "unknown")).unwrap();
    assert!(format!("{:#}", read(&path).unwrap_err()).contains("air.toml: schema: "));
    std::fs::write(&path, "#".repeat(70_000)).unwrap();
    assert!(format!("{:#}", read(&path).unwrap_err()).contains("longer than 65536 bytes"));
    let gone = folder.path().join("gone.toml");
    assert!(format!("{:#}", read(&gone).unwrap_err()).contains("gone.toml"));
}

#[test]
fn signatures_are_optional_unless_the_file_says_otherwise() {
    assert_eq!(parsed(DEFINITION).unwrap().signatures, Signatures::Optional);
    let with = |value: &str| format!("{DEFINITION}\nsignatures = {value:?}\n");
    assert_eq!(parsed(&with("required")).unwrap().signatures, Signatures::Required);
    assert_eq!(parsed(&with("refused")).unwrap().signatures, Signatures::Refused);
    let text = refusal(&with("maybe"));
    assert!(text.contains("air.toml") && text.contains("maybe") && text.contains("required"), "{text}");
}

#[test]
fn a_protobuf_stream_names_a_file_and_a_message() {
    let parsed = |lines: &str| {
        let text =
            format!("name = \"air.quality\"\npartitions = 3\nkey_fields = [\"station\"]\nevent_time = \"at\"\n{lines}");
        parse("air.toml", &text, |file| match file.to_str() {
            Some("air.proto") => Ok("syntax = \"proto3\"; package air; import \"google/protobuf/timestamp.proto\"; \
                message Station { string station = 1; google.protobuf.Timestamp at = 2; }"
                .to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        })
    };
    let stream = parsed("format = \"protobuf\"\nschema = \"air.proto\"\nmessage = \"air.Station\"").unwrap();
    assert_eq!((stream.format, stream.schemas.len(), stream.schemas[0].id), (Format::Protobuf, 1, SCHEMA_ID_DEFAULT));
    let decoder = StreamDecoder::new(&stream).unwrap();
    let columns: Vec<_> = decoder.table().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(columns, ["station", "at"]);
    let framed = "format = \"protobuf-confluent\"\nschema = \"air.proto\"\nschema_id = 9\nmessage = \"air.Station\"";
    assert_eq!(parsed(framed).unwrap().schemas[0].id, 9);
    for (lines, words) in [
        ("format = \"protobuf\"\nschema = \"air.proto\"", "message = "),
        ("format = \"protobuf\"\nmessage = \"air.Station\"", "schema = "),
        ("format = \"protobuf\"\nschema = \"air.proto\"\nmessage = \"air.Station2\"", "air.Station"),
        ("format = \"protobuf\"\nschema = \"other.proto\"\nmessage = \"air.Station\"", "other.proto"),
        ("format = \"json\"\nschema = \"air.proto\"\nmessage = \"air.Station\"", "message belongs to"),
    ] {
        let error = format!("{:#}", parsed(lines).unwrap_err());
        assert!(error.contains(words), "{lines}: {error}");
    }
}

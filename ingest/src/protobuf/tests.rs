//! What a message becomes, what is refused, and that any message decodes to what was put in.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampNanosecondType,
};
use cairn_proof::statement::{Format, StreamDefinition};
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MapKey, Value};
use serde_json::json;

use super::*;
use crate::decode::{Decoded, StreamDecoder};
use crate::testing::definition;

const READING: &str = r#"syntax = "proto3";
package city;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "place.proto";
enum State { UNKNOWN = 0; OPEN = 1; SHUT = 2; }
message Other { int32 x = 1; }
message Reading {
  int32 count = 1;
  uint64 total = 2;
  bool good = 3;
  string name = 4;
  bytes blob = 5;
  State state = 6;
  Place place = 7;
  repeated sint64 counts = 8;
  repeated Place path = 9;
  map<string, int32> levels = 10;
  map<uint32, Place> places = 11;
  oneof value { string text = 12; float number = 13; }
  google.protobuf.Timestamp at = 14;
  google.protobuf.Int64Value perhaps = 15;
  optional bool flag = 16;
  fixed32 bits = 17;
  repeated State states = 18;
  double ratio = 19;
  message Inner { uint32 z = 1; }
  Inner inner = 20;
}"#;
const PLACE: &str = r#"syntax = "proto3"; package city; message Place { double lat = 1; sint32 level = 2; optional string label = 3; }"#;

fn load(files: &[(&str, &str)]) -> impl Fn(&str) -> std::io::Result<String> + Send + Sync + 'static {
    let files: BTreeMap<String, String> = files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    move |name| files.get(name).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into())
}

fn reading() -> String {
    compile("reading.proto", "city.Reading", load(&[("reading.proto", READING), ("place.proto", PLACE)])).unwrap()
}

fn stream(format: Format) -> StreamDefinition {
    definition(format, &[&reading()])
}

fn decode(format: Format, values: &[&[u8]]) -> Decoded {
    let decoder = StreamDecoder::new(&stream(format)).unwrap();
    decoder.decode(values.iter().map(|value| Some(*value))).unwrap()
}

/// Compiles one message of one file.
fn refused(fields: &str) -> String {
    let source = format!("syntax = \"proto3\"; message M {{ {fields} }} message Empty {{}}");
    compile("m.proto", "M", load(&[("m.proto", &source)])).unwrap_err().to_string()
}

/// A value of a column as JSON.
fn json_of(array: &dyn Array, row: usize) -> Json {
    if array.is_null(row) {
        return Json::Null;
    }
    let list = |items: &dyn Array| (0..items.len()).map(|item| json_of(items, item)).collect::<Vec<_>>();
    match array.data_type() {
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => json!(array.as_primitive::<Float32Type>().value(row).to_bits()),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Decimal128(20, 0) => json!(array.as_primitive::<Decimal128Type>().value(row).to_string()),
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Binary => json!(array.as_binary::<i32>().value(row)),
        DataType::Timestamp(..) => json!(array.as_primitive::<TimestampNanosecondType>().value(row)),
        DataType::List(_) => json!(list(&array.as_list::<i32>().value(row))),
        DataType::Map(..) => json!(list(&array.as_map().value(row))),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), json_of(column, row))).collect()
        }
        other => panic!("a column of type {other}"),
    }
}

fn row_of(decoded: &Decoded, row: usize) -> Json {
    let fields = decoded.batch.schema();
    let columns = fields.fields().iter().zip(decoded.batch.columns());
    columns.map(|(field, column)| (field.name().clone(), json_of(column, row))).collect()
}

/// What a message without anything becomes.
fn nothing() -> Json {
    json!({
        "count": 0, "total": "0", "good": false, "name": "", "blob": [], "state": "UNKNOWN", "place": null,
        "counts": [], "path": [], "levels": [], "places": [], "text": null, "number": null, "at": null,
        "perhaps": null, "flag": null, "bits": 0, "states": [], "ratio": 0, "inner": null
    })
}

#[test]
fn a_schema_names_its_message_and_is_refused_when_it_was_changed() {
    let text = reading();
    assert_eq!(message(&text).unwrap().full_name(), "city.Reading");
    let mut schema: Schema = serde_json::from_str(&text).unwrap();
    schema.columns["fields"][0]["type"] = json!("long");
    let error = message(&serde_json::to_string(&schema).unwrap()).unwrap_err().to_string();
    assert!(error.contains("columns are not those"), "{error}");
    let other = text.replace("\"message\":\"city.Reading\"", "\"message\":\"city.Other\"");
    assert!(message(&other).is_err());
    for text in ["", "{}", "[]", r#"{"message":"M","columns":{},"descriptors":"AAAA"}"#] {
        assert!(message(text).is_err(), "{text}");
        assert!(StreamDecoder::new(&definition(Format::Protobuf, &[text])).is_err(), "{text}");
    }
}

#[test]
fn what_has_no_column_is_refused_by_name() {
    let missing = compile("m.proto", "M", load(&[])).unwrap_err().to_string();
    assert!(missing.contains("m.proto"), "{missing}");
    let wrong = compile("p.proto", "city.Reading", load(&[("p.proto", PLACE)])).unwrap_err().to_string();
    assert!(wrong.contains("city.Place"), "it says what there is: {wrong}");
    for (fields, words) in [
        ("M next = 1;", "contains itself"),
        ("repeated M next = 1;", "contains itself"),
        ("map<string, M> next = 1;", "contains itself"),
        ("Empty e = 1;", "has no fields"),
        ("", "has no fields"),
        ("int32 x = 1", "does not compile"),
    ] {
        let error = refused(fields);
        assert!(error.contains(words), "{fields}: {error}");
    }
    let deep = format!("syntax = \"proto3\"; {}{}", "message A {".repeat(5_000), "}".repeat(5_000));
    assert!(compile("d.proto", "A", load(&[("d.proto", &deep)])).is_err(), "and does not overflow the stack");
    let own =
        compile("m.proto", "M", load(&[("m.proto", "syntax = \"proto3\"; message M { int32 _x = 1; }")])).unwrap();
    let error = StreamDecoder::new(&definition(Format::Protobuf, &[&own])).unwrap_err().to_string();
    assert!(error.contains("_x"), "{error}");
}

#[test]
fn an_empty_message_is_all_defaults_and_unknown_fields_are_passed_over() {
    // Field 99: a varint, a text, a group with a text in it.
    let unknown: &[u8] = &[0x98, 0x06, 0x05, 0x9a, 0x06, 0x01, b'x', 0x9b, 0x06, 0x0a, 0x01, b'y', 0x9c, 0x06];
    let decoded = decode(Format::Protobuf, &[b"", unknown]);
    for row in 0..2 {
        assert!(decoded.errors.is_null(row), "{}", decoded.errors.value(row));
        assert_eq!(row_of(&decoded, row), nothing());
    }
}

#[test]
fn what_does_not_decode_is_quarantined_with_a_reason_and_the_others_go_on() {
    let seconds = |seconds: u64, nanos: i64| {
        let mut at = DynamicMessage::new(message(&reading()).unwrap());
        let kind = at.descriptor_of("at");
        let mut inner = DynamicMessage::new(kind);
        inner.set_field_by_number(1, Value::I64(seconds.cast_signed()));
        inner.set_field_by_number(2, Value::I32(i32::try_from(nanos).unwrap()));
        at.set_field_by_name("at", Value::Message(inner));
        at.encode_to_vec()
    };
    let (late, negative) = (seconds(1 << 60, 0), seconds(1, -1));
    let large = [&[0x22][..], &[0x80, 0x80, 0x80, 0x02], &vec![b'x'; 4 << 20]].concat();
    let deep = [0x9b, 0x06].repeat(10_000);
    let bad: [(&[u8], &str); 7] = [
        (&[0x08], "not a Protobuf message of the type city.Reading"),
        (&[0x22, 0x02, 0xff, 0xfe], "not a Protobuf message of the type city.Reading"),
        (&[0x22, 0x7f, b'x'], "not a Protobuf message of the type city.Reading"),
        (&deep, "not a Protobuf message of the type city.Reading"),
        (&late, "field at: a timestamp outside"),
        (&negative, "field at: a timestamp whose nanoseconds"),
        (&large, "more than"),
    ];
    let values: Vec<&[u8]> = bad.iter().map(|(value, _)| *value).chain([&[0x08, 0x07][..]]).collect();
    let decoded = decode(Format::Protobuf, &values);
    for (row, (_, reason)) in bad.iter().enumerate() {
        assert!(
            decoded.errors.value(row).starts_with(reason) || decoded.errors.value(row).contains(reason),
            "{row}: {}",
            decoded.errors.value(row)
        );
    }
    assert!(decoded.errors.is_null(bad.len()));
    assert_eq!(row_of(&decoded, bad.len())["count"], 7);
}

/// A short message cannot claim rows without end: a list of records that take two bytes each.
#[test]
fn what_a_message_may_append_is_bounded_by_its_length() {
    let wide: String = (1..=200).map(|n| format!("int32 f{n} = {n};")).collect();
    let source = format!("syntax = \"proto3\"; message M {{ repeated W w = 1; }} message W {{ {wide} }}");
    let text = compile("m.proto", "M", load(&[("m.proto", &source)])).unwrap();
    let decoder = StreamDecoder::new(&definition(Format::Protobuf, &[&text])).unwrap();
    let (few, many) = ([0x0a, 0x00].repeat(5), [0x0a, 0x00].repeat(50_000));
    let decoded = decoder.decode([Some(&few[..]), Some(&many[..])]).unwrap();
    assert!(decoded.errors.is_null(0) && decoded.errors.value(1).contains("claims more values"));
}

#[test]
fn framed_values_name_the_schema_and_the_message() {
    let inner = |header: &[u8]| [header, &[0x08, 0x07]].concat();
    // `Other` is message 0 of the file, `Reading` 1.
    let good = inner(&[0, 0, 0, 0, 1, 0x02, 0x02]);
    let bad = [
        (inner(&[0, 0, 0, 0, 2, 0x02, 0x02]), "schema id 2 is not one of the stream's"),
        (inner(&[1, 0, 0, 0, 1, 0x02, 0x02]), "begins with byte 1"),
        (inner(&[0, 0, 0, 0, 1, 0x00]), "message index [0], city.Reading is [1]"),
        (inner(&[0, 0, 0, 0, 1, 0x04, 0x02, 0x00]), "message index [1, 0], city.Reading is [1]"),
        (inner(&[0, 0, 0, 0, 1, 0x01]), "more than 16 message indexes"),
        (inner(&[0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff]), "beyond 32 bits"),
        (vec![0, 0, 0, 0, 1, 0x02], "it ends too early"),
        (vec![0, 0, 0, 0], "the header with the schema id alone has 5"),
    ];
    let values: Vec<&[u8]> = bad.iter().map(|(value, _)| &value[..]).chain([&good[..]]).collect();
    let decoded = decode(Format::ProtobufConfluent, &values);
    for (row, (_, reason)) in bad.iter().enumerate() {
        assert!(decoded.errors.value(row).contains(reason), "{row}: {}", decoded.errors.value(row));
    }
    assert!(decoded.errors.is_null(bad.len()), "{}", decoded.errors.value(bad.len()));
    assert_eq!(row_of(&decoded, bad.len())["count"], 7);
    // The first message of a file may be written as a single 0.
    let first = compile("p.proto", "city.Place", load(&[("p.proto", PLACE)])).unwrap();
    let decoder = StreamDecoder::new(&definition(Format::ProtobufConfluent, &[&first])).unwrap();
    let (short, long) = ([0, 0, 0, 0, 1, 0x00, 0x10, 0x02], [0, 0, 0, 0, 1, 0x02, 0x00, 0x10, 0x02]);
    let decoded = decoder.decode([Some(&short[..]), Some(&long[..])]).unwrap();
    assert!(decoded.errors.is_null(0) && decoded.errors.is_null(1));
    assert_eq!(row_of(&decoded, 0), json!({ "lat": 0, "level": 1, "label": null }));
    assert_eq!(row_of(&decoded, 0), row_of(&decoded, 1));
}

trait Descriptors {
    /// The message of a field, or of a map's values.
    fn descriptor_of(&self, field: &str) -> MessageDescriptor;
}

impl Descriptors for DynamicMessage {
    fn descriptor_of(&self, field: &str) -> MessageDescriptor {
        use prost_reflect::ReflectMessage as _;
        let field = self.descriptor().get_field_by_name(field).unwrap();
        let kind = match field.kind() {
            prost_reflect::Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        kind.as_message().unwrap().clone()
    }
}

/// A place as it is put in, and as it must come out.
fn place(of: &MessageDescriptor, (lat, level, label): &(f64, i32, Option<String>)) -> (Value, Json) {
    let mut place = DynamicMessage::new(of.clone());
    place.set_field_by_name("lat", Value::F64(*lat));
    place.set_field_by_name("level", Value::I32(*level));
    if let Some(label) = label {
        place.set_field_by_name("label", Value::String(label.clone()));
    }
    (Value::Message(place), json!({ "lat": lat.to_bits(), "level": level, "label": label }))
}

type Place = (f64, i32, Option<String>);

/// Everything that a reading may hold; what is `None` is not set.
#[derive(Debug, Clone)]
struct Row {
    numbers: (i32, u64, bool, u32, f64),
    texts: (String, Vec<u8>),
    state: i32,
    place: Option<Place>,
    counts: Vec<i64>,
    path: Vec<Place>,
    levels: BTreeMap<String, i32>,
    places: BTreeMap<u32, Place>,
    value: Option<Result<String, u32>>,
    at: Option<(i64, i32)>,
    perhaps: Option<i64>,
    flag: Option<bool>,
    states: Vec<i32>,
}

/// What encodes here leaves out -0.0 as if it were 0.
fn not_minus_zero() -> impl Strategy<Value = f64> {
    any::<f64>().prop_map(|number| if number == 0.0 { 0.0 } else { number })
}

fn any_place() -> impl Strategy<Value = Place> {
    (not_minus_zero(), any::<i32>(), proptest::option::of(".{0,6}"))
}

fn any_row() -> impl Strategy<Value = Row> {
    use proptest::collection::{btree_map, vec};
    use proptest::option::of;
    let first = (
        (any::<i32>(), any::<u64>(), any::<bool>(), any::<u32>(), not_minus_zero()),
        (".{0,9}", vec(any::<u8>(), 0..9)),
        -1..4i32,
        of(any_place()),
        vec(any::<i64>(), 0..5),
        vec(any_place(), 0..4),
    );
    let second = (
        btree_map(".{0,4}", any::<i32>(), 0..4),
        btree_map(any::<u32>(), any_place(), 0..4),
        of(prop_oneof![".{0,4}".prop_map(Ok), any::<u32>().prop_map(Err)]),
        of((-9_223_372_036..9_223_372_036i64, 0..1_000_000_000i32)),
        of(any::<i64>()),
        of(any::<bool>()),
        vec(-1..4i32, 0..4),
    );
    (first, second).prop_map(|(first, second)| {
        let (numbers, texts, state, place, counts, path) = first;
        let (levels, places, value, at, perhaps, flag, states) = second;
        Row { numbers, texts, state, place, counts, path, levels, places, value, at, perhaps, flag, states }
    })
}

fn state(number: i32) -> Json {
    let names = ["UNKNOWN", "OPEN", "SHUT"];
    usize::try_from(number)
        .ok()
        .and_then(|at| names.get(at))
        .map_or_else(|| json!(number.to_string()), |name| json!(name))
}

/// A row as a message, and as the columns that it must become.
fn message_of(row: &Row) -> (DynamicMessage, Json) {
    let mut message = DynamicMessage::new(message(&reading()).unwrap());
    let mut want = nothing();
    let place_type = message.descriptor_of("place");
    let mut set = |message: &mut DynamicMessage, name: &str, value: Value, json: Json| {
        message.set_field_by_name(name, value);
        want[name] = json;
    };
    let (count, total, good, bits, ratio) = row.numbers;
    set(&mut message, "count", Value::I32(count), json!(count));
    set(&mut message, "total", Value::U64(total), json!(total.to_string()));
    set(&mut message, "good", Value::Bool(good), json!(good));
    set(&mut message, "bits", Value::U32(bits), json!(bits));
    set(&mut message, "ratio", Value::F64(ratio), json!(ratio.to_bits()));
    set(&mut message, "name", Value::String(row.texts.0.clone()), json!(row.texts.0));
    set(&mut message, "blob", Value::Bytes(row.texts.1.clone().into()), json!(row.texts.1));
    set(&mut message, "state", Value::EnumNumber(row.state), state(row.state));
    if let Some(at) = &row.place {
        let (value, json) = place(&place_type, at);
        set(&mut message, "place", value, json);
    }
    let counts = row.counts.iter().map(|count| Value::I64(*count)).collect();
    set(&mut message, "counts", Value::List(counts), json!(row.counts));
    let (values, jsons): (Vec<_>, Vec<_>) = row.path.iter().map(|at| place(&place_type, at)).unzip();
    set(&mut message, "path", Value::List(values), json!(jsons));
    let levels: HashMap<_, _> =
        row.levels.iter().map(|(key, value)| (MapKey::String(key.clone()), Value::I32(*value))).collect();
    let entries: Vec<_> = row.levels.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    set(&mut message, "levels", Value::Map(levels), json!(entries));
    let mut places: Vec<(String, Json)> = Vec::new();
    let mut values = HashMap::new();
    for (key, at) in &row.places {
        let (value, json) = place(&place_type, at);
        values.insert(MapKey::U32(*key), value);
        places.push((key.to_string(), json));
    }
    // In the order of the texts, not of the numbers.
    places.sort_by(|a, b| a.0.cmp(&b.0));
    let places: Vec<_> = places.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    set(&mut message, "places", Value::Map(values), json!(places));
    match &row.value {
        Some(Ok(text)) => set(&mut message, "text", Value::String(text.clone()), json!(text)),
        Some(Err(bits)) => set(&mut message, "number", Value::F32(f32::from_bits(*bits)), json!(bits)),
        None => {}
    }
    if let Some((seconds, nanos)) = row.at {
        let mut at = DynamicMessage::new(message.descriptor_of("at"));
        at.set_field_by_number(1, Value::I64(seconds));
        at.set_field_by_number(2, Value::I32(nanos));
        set(&mut message, "at", Value::Message(at), json!(seconds * 1_000_000_000 + i64::from(nanos)));
    }
    if let Some(perhaps) = row.perhaps {
        let mut wrapper = DynamicMessage::new(message.descriptor_of("perhaps"));
        wrapper.set_field_by_number(1, Value::I64(perhaps));
        set(&mut message, "perhaps", Value::Message(wrapper), json!(perhaps));
    }
    if let Some(flag) = row.flag {
        set(&mut message, "flag", Value::Bool(flag), json!(flag));
    }
    let states = row.states.iter().map(|number| Value::EnumNumber(*number)).collect();
    set(&mut message, "states", Value::List(states), row.states.iter().map(|number| state(*number)).collect());
    (message, want)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn messages_decode_to_the_values_put_in(rows in proptest::collection::vec(any_row(), 1..4)) {
        let (values, wanted): (Vec<_>, Vec<_>) =
            rows.iter().map(message_of).map(|(message, want)| (message.encode_to_vec(), want)).unzip();
        let plain = decode(Format::Protobuf, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let framed: Vec<_> = values.iter().map(|value| [&[0, 0, 0, 0, 1, 0x02, 0x02], &value[..]].concat()).collect();
        let framed = decode(Format::ProtobufConfluent, &framed.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for (row, want) in wanted.iter().enumerate() {
            prop_assert!(plain.errors.is_null(row), "{}", plain.errors.value(row));
            prop_assert_eq!(&row_of(&plain, row), want);
        }
        prop_assert_eq!(plain.batch, framed.batch);
    }

    /// Bytes that nobody vouches for: a row or a reason, and the same again.
    #[test]
    fn hostile_bytes_give_a_row_or_a_reason(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Protobuf, Format::ProtobufConfluent] {
            let (once, again) = (decode(format, &[&value]), decode(format, &[&value]));
            prop_assert_eq!(&once.errors, &again.errors);
            prop_assert_eq!(row_of(&once, 0), row_of(&again, 0));
        }
    }
}

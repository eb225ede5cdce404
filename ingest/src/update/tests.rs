//! Which schemas may follow which, and that what may is read alike by both readers.

use arrow::array::Array as _;
use arrow::compute::cast;
use cairn_anchor::schema::defaults;
use proptest::prelude::*;

use super::*;
use crate::encode::Message;
use crate::testing::definition;

fn record(fields: &[&str]) -> String {
    let fields = fields.join(",");
    format!(r#"{{"type":"record","name":"Row","fields":[{fields}]}}"#)
}

fn field(name: &str, ty: &str) -> String {
    format!(r#"{{"name":"{name}","type":{ty}}}"#)
}

fn followed(format: Format, old: &[&str], new: &[&str]) -> Result<StreamDefinition> {
    let next = SchemaVersion { id: 2, text: record(new) };
    followed_by(&definition(format, &[&record(old)]), next)
}

const PLACE: &str = r#"{"type":"record","name":"P","fields":[{"name":"x","type":"int"}]}"#;
const PLACE_MORE: &str = r#"{"type":"record","name":"P","fields":[{"name":"x","type":"int"},{"name":"y","type":["null","int"],"default":null}]}"#;

#[test]
fn what_may_follow() {
    let e = |symbols: &str| format!(r#"{{"type":"enum","name":"E","symbols":[{symbols}]}}"#);
    let d = |digits: u8, scale: u8| {
        format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{digits},"scale":{scale}}}"#)
    };
    let (two, three) = (e(r#""a","b""#), e(r#""c","a","b""#));
    for (old, new, allowed) in [
        (r#""int""#, r#""int""#, true),
        (r#""int""#, r#""long""#, true),
        (r#""int""#, r#""double""#, true),
        (r#""long""#, r#""float""#, true),
        (r#""long""#, r#""int""#, false),
        (r#""double""#, r#""float""#, false),
        (r#""int""#, r#""string""#, false),
        (r#""string""#, r#""bytes""#, false),
        (r#""int""#, r#"{"type":"int","logicalType":"date"}"#, false),
        (r#""int""#, r#"["null","int"]"#, true),
        (r#"["null","int"]"#, r#"["long","null"]"#, true),
        (r#"["null","int"]"#, r#""int""#, false),
        (&two, &three, true),
        (&three, &two, false),
        (&d(8, 2), &d(10, 2), true),
        (&d(8, 2), &d(10, 3), false),
        (&d(8, 2), &d(7, 2), false),
        (PLACE, PLACE, true),
        (PLACE, PLACE_MORE, false),
        (r#"{"type":"array","items":"int"}"#, r#"{"type":"array","items":"long"}"#, false),
        (r#"{"type":"array","items":"int"}"#, r#"{"type":"array","items":["null","int"]}"#, false),
        (r#"{"type":"map","values":"int"}"#, r#"{"type":"map","values":"int"}"#, true),
    ] {
        for format in [Format::AvroConfluent, Format::Json] {
            let outcome = followed(format, &[&field("v", old)], &[&field("v", new)]);
            assert_eq!(outcome.is_ok(), allowed, "{format:?}: {old} to {new}: {outcome:?}");
            if let Err(error) = outcome {
                assert!(error.to_string().contains("field v"), "{error}");
            }
        }
    }
}

#[test]
fn fields_come_and_go_but_do_not_change_their_names() {
    let (a, b) = (field("a", r#""int""#), field("b", r#""int""#));
    assert!(followed(Format::Json, &[&a, &b], &[&b]).is_ok(), "left out");
    assert!(followed(Format::AvroConfluent, &[&a], &[&b, &a]).is_ok(), "added, null before");
    let renamed = r#"{"name":"c","type":"int","aliases":["a"]}"#;
    let error = followed(Format::AvroConfluent, &[&a], &[renamed]).unwrap_err().to_string();
    assert!(error.contains("field c") && error.contains("leave a out"), "{error}");
    for (ty, default, allowed) in [
        (r#""int""#, "7", true),
        (r#""int""#, "3000000000", false),
        (r#""string""#, r#""none""#, true),
        (r#""boolean""#, "false", true),
        (r#"["double","null"]"#, "0", true),
        (r#"["null","string"]"#, "null", true),
        (r#""bytes""#, r#""x""#, false),
        (r#"{"type":"array","items":"int"}"#, "[]", false),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "0", false),
    ] {
        let added = format!(r#"{{"name":"d","type":{ty},"default":{default}}}"#);
        let outcome = followed(Format::AvroConfluent, &[&a], &[&a, &added]);
        assert_eq!(outcome.is_ok(), allowed, "{ty} = {default}: {outcome:?}");
    }
    // A name that comes back must fit what is stored of the first time.
    let mut stream = definition(Format::Json, &[&record(&[&a, &b]), &record(&[&b])]);
    stream.schemas[1].id = 2;
    let again = |ty: &str| SchemaVersion { id: 3, text: record(&[&field("a", ty), &b]) };
    assert!(followed_by(&stream, again(r#""long""#)).is_ok());
    assert!(followed_by(&stream, again(r#""string""#)).unwrap_err().to_string().contains("cannot follow id 1"));
}

#[test]
fn keys_and_event_time_stay_and_plain_avro_has_one_schema() {
    let (a, b) = (field("a", r#""int""#), field("b", r#""int""#));
    let mut stream = definition(Format::Json, &[&record(&[&a, &b])]);
    stream.key_fields = vec!["a".into()];
    let next = SchemaVersion { id: 2, text: record(&[&b]) };
    assert!(followed_by(&stream, next).unwrap_err().to_string().contains("key_fields"));
    let error = followed(Format::Avro, &[&a], &[&a, &b]).unwrap_err().to_string();
    assert!(error.contains("avro-confluent"), "{error}");
}

/// Fields of an old and a new schema, and a row of the old one.
fn any_change() -> impl Strategy<Value = (Vec<String>, Vec<String>, serde_json::Map<String, serde_json::Value>)> {
    let kinds = ["int", "long", "float", "double", "string", "boolean"];
    let one = (0..kinds.len(), 0..kinds.len() + 2, any::<[bool; 3]>(), -1_000..1_000i32);
    proptest::collection::vec(one, 1..8).prop_map(move |fields| {
        let (mut old, mut new, mut row) = (Vec::new(), Vec::new(), serde_json::Map::new());
        for (at, (was, is, [null, null_then, added], number)) in fields.into_iter().enumerate() {
            let name = format!("f{at}");
            let ty = |kind: &str, null| if null { format!(r#"["null","{kind}"]"#) } else { format!(r#""{kind}""#) };
            let value = |kind: &str| match kind {
                "string" => serde_json::json!(number.to_string()),
                "boolean" => serde_json::json!(number > 0),
                _ => serde_json::json!(number),
            };
            if !added {
                old.push(field(&name, &ty(kinds[was], null)));
                row.insert(
                    name.clone(),
                    if null && number % 2 == 0 { serde_json::Value::Null } else { value(kinds[was]) },
                );
            }
            match kinds.get(is) {
                Some(kind) if added && !null => {
                    new.push(format!(r#"{{"name":"{name}","type":{},"default":{}}}"#, ty(kind, false), value(kind)))
                }
                Some(kind) => new.push(field(&name, &ty(kind, null_then))),
                None => {}
            }
        }
        (old, new, row)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever may follow: an old writer's record that the new schema decodes is the row that its old columns, cast and
    /// filled as a query does, are.
    #[test]
    fn both_readers_say_the_same((old, new, row) in any_change(), framed in any::<bool>()) {
        let texts = |fields: &[String]| record(&fields.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assume!(!old.is_empty() && !new.is_empty());
        let format = if framed { Format::AvroConfluent } else { Format::Json };
        let before = definition(format, &[&texts(&old)]);
        let Ok(after) = followed_by(&before, SchemaVersion { id: 2, text: texts(&new) }) else { return Ok(()) };
        let mut message = Message::default();
        Encoder::new(&before).unwrap().encode_object(&row, &mut message).unwrap();
        let stored = StreamDecoder::new(&before).unwrap().decode([Some(&message.value[..])]).unwrap();
        prop_assert!(stored.errors.is_null(0), "{}", stored.errors.value(0));
        let decoded = StreamDecoder::new(&after).unwrap().decode([Some(&message.value[..])]).unwrap();
        prop_assert!(decoded.errors.is_null(0), "{}", decoded.errors.value(0));
        let defaults = defaults(&after).unwrap();
        for (field, found) in decoded.batch.schema().fields().iter().zip(decoded.batch.columns()) {
            match (stored.batch.column_by_name(field.name()), defaults.get(field.name())) {
                (Some(column), _) => prop_assert_eq!(&cast(column, field.data_type()).unwrap(), found),
                (None, Some(default)) => prop_assert_eq!(default, found),
                (None, None) => prop_assert!(found.is_null(0), "{}", field),
            }
        }
    }
}

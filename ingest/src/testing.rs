//! Definitions that several tests use.

use cairn_proof::Digest;
use cairn_proof::identity::IdentityId;
use cairn_proof::statement::{BatchLimits, Format, SchemaVersion, StreamDefinition};

/// Every type that becomes a column.
pub(crate) const ALL_TYPES: &str = r#"{"type":"record","name":"All","namespace":"t","fields":[
    {"name":"flag","type":"boolean"},
    {"name":"small","type":"int"},
    {"name":"large","type":["null","long"],"default":null},
    {"name":"ratio","type":"float"},
    {"name":"exact","type":["double","null"]},
    {"name":"name","type":["null","string"]},
    {"name":"blob","type":"bytes"},
    {"name":"mac","type":{"type":"fixed","name":"Mac","size":6}},
    {"name":"state","type":{"type":"enum","name":"State","symbols":["open","closed"]}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"local","type":["null",{"type":"long","logicalType":"local-timestamp-micros"}]},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"clock","type":{"type":"long","logicalType":"time-micros"}},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},
    {"name":"tags","type":{"type":"array","items":["null","string"]}},
    {"name":"counts","type":["null",{"type":"map","values":"long"}]},
    {"name":"place","type":["null",{"type":"record","name":"Place","fields":[
        {"name":"lat","type":"double"},{"name":"lon","type":"double"},{"name":"label","type":["null","string"]}]}]},
    {"name":"path","type":{"type":"array","items":"Place"}}
]}"#;

/// A row of [`ALL_TYPES`].
pub(crate) const ALL_TYPES_ROW: &str = r#"{"flag":true,"small":-7,"large":9007199254740993,"ratio":0.1,"exact":0.1,
    "name":"Zürich \"Nord\" \ud83d\ude80","blob":"\u0000\u00ff","mac":"\u0001\u0002\u0003\u0004\u0005\u0006","state":"closed",
    "at":"2026-01-31T08:15:00.250Z","local":"2026-01-31T08:15:00.000001","day":"2026-01-31","clock":"08:15:00.5",
    "price":"-12.50","tags":["a",null,""],"counts":{"x":1,"y":-2},"place":{"lat":47.4,"lon":8.5,"label":null},
    "path":[{"lat":1.0,"lon":2.0,"label":"p"},{"lat":3.0,"lon":4.0}]}"#;

/// A stream with the given schema versions; their ids count from 1.
pub(crate) fn definition(format: Format, schemas: &[&str]) -> StreamDefinition {
    StreamDefinition {
        name: "test.stream".into(),
        topic: "test-stream".into(),
        partitions: 2,
        format,
        schemas: (1..).zip(schemas).map(|(id, text)| SchemaVersion { id, text: (*text).to_owned() }).collect(),
        key_fields: Vec::new(),
        event_time: None,
        limits: BatchLimits { records_max: 1_000, bytes_max: 1 << 20, age_ms_max: 200 },
        gaps_allowed: false,
        anchorers: vec![IdentityId(Digest::ZERO)],
        signatures: cairn_proof::statement::Signatures::default(),
    }
}

/// A schema of one field named `v`.
pub(crate) fn one_field(ty: &str) -> String {
    format!(r#"{{"type":"record","name":"One","fields":[{{"name":"v","type":{ty}}}]}}"#)
}

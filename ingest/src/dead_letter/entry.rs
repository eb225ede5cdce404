//! One dead letter: the record as it was, and headers that say where it lay and why it is there.
//!
//! The names are those of Kafka Connect (`DeadLetterQueueReporter`), so that tools for its dead letters read these too. All
//! values are text. What Connect says of a Java class says here which part of ingest refused the record.
//!
//! | header | value |
//! | --- | --- |
//! | `__connect.errors.topic`, `.partition`, `.offset` | where the record lies |
//! | `__connect.errors.connector.name` | the stream |
//! | `__connect.errors.task.id` | the partition: one is read by one task |
//! | `__connect.errors.stage` | `HEADER_CONVERTER`, `TRANSFORMATION` (signatures) or `VALUE_CONVERTER` |
//! | `__connect.errors.class.name` | `cairn.ingest.Headers`, `.Signatures` or `.Decode` |
//! | `__connect.errors.exception.class.name` | `cairn.quarantine.Headers`, `.Signature` or `.Value` |
//! | `__connect.errors.exception.message` | the reason, as in `_error` |
//! | `cairn.anchor` | id of the anchor, hexadecimal |
//!
//! `__connect.errors.exception.stacktrace` is left out: there is none.

use cairn_anchor::raw::RawBatch;
use cairn_proof::Digest;
use cairn_proof::statement::StreamDefinition;
use rdkafka::message::{Header, OwnedHeaders};

use crate::decode::UNREADABLE_HEADER;

const PREFIX: &str = "__connect.errors.";
/// Header that names the anchor.
pub(super) const ANCHOR_HEADER: &str = "cairn.anchor";
/// How each reason about a signature begins.
const SIGNATURE: &str = "signature ";

/// Which part of ingest refused a record: Connect's stage, the part, the kind of reason.
fn refused_by(raw: &RawBatch, row: usize, reason: &str) -> [&'static str; 3] {
    if raw.headers(row).any(|(name, _)| name == UNREADABLE_HEADER) && !reason.starts_with(SIGNATURE) {
        return ["HEADER_CONVERTER", "cairn.ingest.Headers", "cairn.quarantine.Headers"];
    }
    match reason.starts_with(SIGNATURE) {
        true => ["TRANSFORMATION", "cairn.ingest.Signatures", "cairn.quarantine.Signature"],
        false => ["VALUE_CONVERTER", "cairn.ingest.Decode", "cairn.quarantine.Value"],
    }
}

/// The headers of a dead letter: the record's own, in their order, then those above.
pub(super) fn headers(
    definition: &StreamDefinition,
    raw: &RawBatch,
    row: usize,
    reason: &str,
    anchor: &Digest,
) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(raw.headers(row).count() + 10);
    for (key, value) in raw.headers(row) {
        headers = headers.insert(Header { key, value });
    }
    let [stage, class, exception] = refused_by(raw, row, reason);
    let partition = raw.partition().to_string();
    let offset = raw.offsets().get(row).copied().unwrap_or_default().to_string();
    for (name, value) in [
        ("topic", definition.topic.as_str()),
        ("partition", &partition),
        ("offset", &offset),
        ("connector.name", &definition.name),
        ("task.id", &partition),
        ("stage", stage),
        ("class.name", class),
        ("exception.class.name", exception),
        ("exception.message", reason),
    ] {
        headers = headers.insert(Header { key: &format!("{PREFIX}{name}"), value: Some(value) });
    }
    headers.insert(Header { key: ANCHOR_HEADER, value: Some(&anchor.to_string()) })
}

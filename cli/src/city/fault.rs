//! Bad records, as devices and gateways really send them. Each is bad for certain: no reader of the stream's format
//! can take it for a valid record, so that a test or a demo knows how many must end in quarantine.

use super::random::Random;
use super::{IncidentMessage, Payload, Reading};

/// A payload that cannot be decoded, in place of `reading`.
pub(super) fn spoil(reading: &Reading, random: &mut Random) -> Payload {
    if random.chance(0.2) {
        // A tombstone where a value is due.
        return Payload::Null;
    }
    let bytes = match reading {
        Reading::Traffic(flow) => plain_avro(&flow.detector_id, random),
        Reading::Energy(reading) => confluent_avro(&reading.meter_id, random),
        Reading::Emergency(message) => json(message, random),
    };
    Payload::Bytes(bytes)
}

/// Not an Avro datum of a record that begins with a string.
fn plain_avro(id: &str, random: &mut Random) -> Vec<u8> {
    match random.below(4) {
        0 => first_field_alone(id),
        // JSON where Avro is due: '{' is the length -62.
        1 => format!(r#"{{"detector_id":"{id}","lane":1,"vehicle_count":12}}"#).into_bytes(),
        // A string of 40 bytes of which the line lost all but 7.
        2 => [vec![80], random.bytes(7)].concat(),
        // Noise; 0x01 is the length -1.
        _ => {
            let length = 8 + random.below(56);
            [vec![1], random.bytes(length)].concat()
        }
    }
}

/// Not a Confluent-framed Avro datum.
fn confluent_avro(id: &str, random: &mut Random) -> Vec<u8> {
    match random.below(4) {
        // A schema that nobody registered.
        0 => [vec![0, 0xff, 0xff, 0xff, 0xfe], random.bytes(48)].concat(),
        // Cut within the header.
        1 => vec![0, 0, 0],
        2 => [vec![0, 0, 0, 0, 1], first_field_alone(id)].concat(),
        // Noise without the zero byte of the framing.
        _ => {
            let length = 8 + random.below(56);
            [vec![0xa5], random.bytes(length)].concat()
        }
    }
}

/// The Avro encoding of a record's first field, a string, and none of the other fields.
fn first_field_alone(id: &str) -> Vec<u8> {
    // A zigzag varint; identifiers are shorter than 64 bytes, so that it is one byte.
    let length = u8::try_from(id.len().min(63) * 2).unwrap_or(0);
    [&[length], &id.as_bytes()[..id.len().min(63)]].concat()
}

/// Not a JSON object of the schema. (A missing field would not do: as a column may be null, it reads as null.)
fn json(message: &IncidentMessage, random: &mut Random) -> Vec<u8> {
    let id = &message.incident_id;
    match random.below(4) {
        // Cut in the middle.
        0 => format!(r#"{{"message_id":"{}","incident_id":"{id}","update_no":"#, message.message_id).into_bytes(),
        // A number that became a word.
        1 => format!(r#"{{"incident_id":"{id}","update_no":"third","stage":"{}"}}"#, message.stage).into_bytes(),
        // Several messages packed into one.
        2 => format!(r#"[{{"incident_id":"{id}","update_no":0}},{{"incident_id":"{id}","update_no":1}}]"#).into_bytes(),
        // An older encoding of the control room's computer: bytes that are not UTF-8.
        _ => [br#"{"incident_id":"INC-"#.to_vec(), vec![0xe9, 0xff], br#""}"#.to_vec()].concat(),
    }
}

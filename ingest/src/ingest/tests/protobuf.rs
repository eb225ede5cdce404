//! Protobuf records through the whole of ingest, in both framings, and audited from what is stored.

use super::*;
use crate::protobuf::compile;

const PROTO: &str = r#"syntax = "proto3"; package city;
message Place { double lat = 1; }
message Reading { int64 v = 1; repeated Place path = 2; map<string, int32> levels = 3; }"#;

fn stream(format: Format) -> StreamDefinition {
    let text = compile("reading.proto", "city.Reading", |name| match name {
        "reading.proto" => Ok(PROTO.to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    });
    StreamDefinition { partitions: 1, ..definition(format, &[&text.unwrap()]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_records_are_anchored_and_audited() {
    for (format, header) in [(Format::Protobuf, &[][..]), (Format::ProtobufConfluent, &[0, 0, 0, 0, 1, 2, 2])] {
        let stream = stream(format);
        let city = City::new(&stream).await;
        let worker = city.ingest(0);
        let producer: ThreadedProducer<DefaultProducerContext> = city.kafka.client_config().create().unwrap();
        // v = 7; a place with the latitude 1.0; two levels, of which the second comes first in the row.
        let good = [
            0x08, 7, 0x12, 9, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x1a, 5, 0x0a, 1, b'z', 0x10, 1, 0x1a, 5, 0x0a, 1,
            b'a', 0x10, 2,
        ];
        for value in [&good[..], &good[..3], b"", &[0x08]] {
            let value = [header, value].concat();
            let record = BaseRecord::<[u8], _>::to(&stream.topic).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        assert_eq!(city.wait_anchored(&stream).await, 4);
        let quarantined: u64 =
            city.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.quarantined).sum();
        assert_eq!(quarantined, 2, "{format:?}");
        assert_eq!(city.audit().await, 4);
        worker.running.stop().await;
    }
}

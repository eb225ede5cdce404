//! The main job with real processes: publish, anchor, query, prove, audit, stop, start again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::time::Duration;

use common::apache::Apache;
use common::streams::{STREAM, csv, every_record_is_there_once, register};
use common::{Network, cairn, describe, run};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

fn produce(brokers: &str, topic: &str, values: &[Option<&[u8]>]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    for value in values {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).key(b"k");
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

#[test]
fn records_are_anchored_queried_proven_and_audited() {
    main_job(&Network::new(false));
}

#[test]
fn records_on_apache_kafka_are_anchored_queried_proven_and_audited() {
    let Some(kafka) = Apache::start(1, false) else { return };
    main_job(&Network::with_kafka(&kafka.bootstrap()));
}

fn main_job(network: &Network) {
    let mut up = network.up();
    register(network, "avro");
    let listed = run(network.command_at(&["stream", "list"]).args(["--format", "csv"]));
    assert!(listed.contains("test.reading,test.reading,4,avro,sensor,at,"), "{listed}");

    let said = run(network.command("publish").args(["--stream", STREAM]).arg(csv(network, 0..4000)));
    assert!(said.contains("4000 records published"), "{said}");
    network.wait_anchored(60);
    assert_eq!(every_record_is_there_once(network, &network.brokers()), 4000);
    let nulls = network.number(&format!("SELECT count(*) FROM {STREAM} WHERE value IS NULL AND n % 10 = 0"));
    assert_eq!(nulls, 400);
    assert_eq!(network.number(&format!("SELECT count(*) FROM {STREAM} WHERE note LIKE 'note, %'")), 1334);

    // A snapshot at a height does not change when more records come.
    let height = network.status()["height"].as_u64().unwrap().to_string();
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(network, 4000..5000)));
    network.wait_anchored(60);
    let count = format!("SELECT count(*) AS rows FROM {STREAM}");
    assert_eq!(network.number(&count), 5000);
    let before = run(network.command("sql").args(["--format", "csv", "--as-of", &height, &count]));
    assert_eq!(before, "rows\n4000\n");

    prove_and_verify(network);
    sql_gives_receipts_that_verify(network);
    bad_records_are_quarantined(network);
    network.audit_is_clean();

    up.terminate(Duration::from_secs(30));
    let _up = network.up();
    network.wait_anchored(60);
    assert_eq!(network.number(&count), 5001, "the good one among the bad records came after the first 5000");
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(network, 5000..5500)));
    network.wait_anchored(60);
    assert_eq!(network.number(&count), 5501);
    network.audit_is_clean();
}

fn prove_and_verify(network: &Network) {
    let genesis = network.dir().join("genesis.json");
    for offset in [0, 7, 500] {
        let receipt = network.scratch(&format!("receipt-{offset}.json"));
        let place = ["--stream", STREAM, "--partition", "1", "--offset", &offset.to_string(), "--out"];
        run(network.command("prove").args(place).arg(&receipt));
        let said = run(cairn().arg("verify").arg(&receipt).arg("--genesis").arg(&genesis));
        assert!(said.contains("VERIFIED") && said.contains(&format!("offset {offset}")), "{said}");
        let mut bytes = std::fs::read(&receipt).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&receipt, bytes).unwrap();
        let output = cairn().arg("verify").arg(&receipt).arg("--genesis").arg(&genesis).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", describe(&output));
        assert!(describe(&output).contains("DOES NOT VERIFY: step "), "{}", describe(&output));
    }
}

/// The way of one record in SQL, and its receipt.
fn sql_gives_receipts_that_verify(network: &Network) {
    let rows = network.sql(&format!(
        "SELECT cairn_receipt('{STREAM}', _partition, _offset) AS receipt, _partition AS p, _offset AS o FROM {STREAM} \
         WHERE n IN (3, 400)"
    ));
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let file = network.scratch("receipt-of-sql.json");
        std::fs::write(&file, row["receipt"].as_str().unwrap()).unwrap();
        let genesis = network.dir().join("genesis.json");
        let said = run(cairn().arg("verify").arg(&file).arg("--genesis").arg(genesis));
        assert!(said.contains(&format!("partition {} offset {} is final", row["p"], row["o"])), "{said}");
    }
    let nothing = network.sql(&format!("SELECT cairn_receipt('{STREAM}', 1, 99999999) AS receipt"));
    assert!(nothing[0]["receipt"].is_null(), "{nothing:?}");

    let steps = network.sql(&format!("SELECT what, name FROM cairn.lineage('{STREAM}/1/7') ORDER BY step"));
    let what: Vec<_> = steps.iter().map(|step| step["what"].as_str().unwrap()).collect();
    assert_eq!(what[..7], ["record", "publisher", "schema", "batch", "segment", "anchor", "block"]);
    assert_eq!(what[7..], ["validator"; 4], "{steps:?}");
    assert_eq!(steps[5]["name"], "ingest");
}

fn bad_records_are_quarantined(network: &Network) {
    // n = 1, sensor "a", at = 0, two nulls: one good record among bad ones, so the partition goes on.
    let good = [0x02, 0x02, b'a', 0x00, 0x00, 0x00];
    let bad: [Option<&[u8]>; 4] =
        [Some(b""), Some(&good[..4]), Some(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None];
    let mut values = bad.to_vec();
    values.push(Some(&good));
    produce(&network.brokers(), STREAM, &values);
    network.wait_anchored(60);
    let rows = network.sql("SELECT stream, reason FROM cairn.quarantine ORDER BY \"offset\"");
    assert_eq!(rows.len(), 4, "{rows:?}");
    for row in &rows {
        assert_eq!(row["stream"], STREAM);
        assert!(!row["reason"].as_str().unwrap().is_empty());
    }
    assert_eq!(network.number(&format!("SELECT count(*) FROM {STREAM} WHERE sensor = 'a'")), 1);
    let quarantined: u64 =
        network.status()["partitions"].as_array().unwrap().iter().map(|p| p["quarantined"].as_u64().unwrap()).sum();
    assert_eq!(quarantined, 4);
}

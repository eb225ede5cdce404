//! Validators that die, a whole network that is killed, and storage that lies: nothing wrong is ever said.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_anchor::audit::audit;
use cairn_anchor::secrets::SecretStore;
use cairn_anchor::store::SegmentStore;
use cairn_chain_client::{Client, Follower, FollowerConfig};
use cairn_ingest::AuditDecoder;
use cairn_ingest::broker::EmbeddedBroker;
use cairn_proof::genesis::Genesis;
use common::s3::{self, S3};
use common::streams::{STREAM, csv, every_record_is_there_once, register};
use common::{Network, Process, free_base_port, run};
use rand::{RngExt as _, SeedableRng as _};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many records are anchored, as the chain says.
fn anchored(network: &Network) -> u64 {
    network.status()["partitions"].as_array().unwrap().iter().map(|p| p["records"].as_u64().unwrap()).sum()
}

fn publish(network: &Network, numbers: std::ops::Range<u64>) {
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(network, numbers)));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_validator_is_tolerated_two_stop_anchoring_but_not_queries() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_base_port()).parse().unwrap();
    let broker = EmbeddedBroker::start(folder.path(), listen).await.unwrap();
    let brokers = broker.bootstrap();
    tokio::task::spawn_blocking(move || {
        let network = Network::with_kafka(&brokers);
        let mut nodes: Vec<Process> = (0..4).map(|index| network.node_starting(index)).collect();
        nodes.iter_mut().for_each(|node| node.wait_ready(PATIENCE));
        let _ingest = network.role("ingest");
        let _query = network.role("query");
        register(&network, "avro");
        publish(&network, 0..1000);
        network.wait_anchored(60);

        nodes[3].kill_alone();
        publish(&network, 1000..2000);
        network.wait_anchored(60);
        assert_eq!(anchored(&network), 2000, "three of four go on");

        nodes[2].kill_alone();
        publish(&network, 2000..3000);
        std::thread::sleep(Duration::from_secs(4));
        let stalled = anchored(&network);
        assert_eq!(stalled, 2000, "two of four cannot finalize anything");
        let count = format!("SELECT count(*) FROM {STREAM}");
        assert_eq!(network.number(&count), 2000, "queries go on, over what is final");
        assert_eq!(network.number("SELECT count(*) FROM cairn.validators"), 4);

        nodes[2] = network.node(2);
        network.wait_anchored(90);
        assert_eq!(every_record_is_there_once(&network, &brokers), 3000);
        network.audit_is_clean();
    })
    .await
    .unwrap();
    broker.stop().await;
}

#[test]
fn a_network_that_is_killed_while_publishing_anchors_every_record_once() {
    let network = Network::new(false);
    let mut random = rand::rngs::StdRng::seed_from_u64(20_261_122);
    let mut up = network.up();
    register(&network, "avro");
    for round in 0..10u64 {
        let file = csv(&network, round * 3000..(round + 1) * 3000);
        let mut publishing = network
            .command("publish")
            .args(["--stream", STREAM])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(200..2500)));
        up.kill();
        let _ = publishing.kill();
        let _ = publishing.wait();
        up = network.up();
    }
    // One round in peace: what the kills left behind must not stand in its way.
    publish(&network, 30_000..33_000);
    network.wait_anchored(120);
    let total = every_record_is_there_once(&network, &network.brokers());
    assert!(total > 3000, "the kills came before anything was published in all ten rounds");
    eprintln!("{total} records, {} of them published in the ten rounds that were killed", total - 3000);
    network.audit_is_clean();
}

/// Flips `count` random bits, one at a time, over segments and hash trees; the audit must name each.
#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_is_found_and_named() {
    let network = Arc::new(Network::new(false));
    let prepared = network.clone();
    let _up = tokio::task::spawn_blocking(move || {
        let up = prepared.up();
        register(&prepared, "avro-confluent");
        publish(&prepared, 0..6000);
        prepared.wait_anchored(60);
        up
    })
    .await
    .unwrap();
    let genesis = Arc::new(Genesis::from_json(&std::fs::read(network.dir().join("genesis.json")).unwrap()).unwrap());
    let nodes = network.status_async().await["validators"]
        .as_array()
        .unwrap()
        .iter()
        .map(|validator| validator["api"].as_str().unwrap().parse().unwrap())
        .collect();
    let follower = Follower::spawn(FollowerConfig { genesis, client: Client::new(nodes).unwrap() });
    follower.catch_up(PATIENCE).await.unwrap();
    let segments = SegmentStore::on_disk(&network.dir().join("objects")).unwrap();
    let mut key = [0; 32];
    let text = std::fs::read_to_string(network.dir().join("keys/secrets.key")).unwrap();
    hex::decode_to_slice(text.trim(), &mut key).unwrap();
    let secrets = SecretStore::open(&network.dir().join("secrets"), &key).unwrap();
    let check = || audit(&follower, &segments, &secrets, None, Arc::new(AuditDecoder), |_| {});
    assert!(check().await.unwrap().is_clean());

    let objects = network.objects();
    assert!(objects.len() >= 8, "{objects:?}");
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for flip in 0..200 {
        let file = &objects[random.random_range(0..objects.len())];
        let good = std::fs::read(file).unwrap();
        let bit = random.random_range(0..good.len() * 8);
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(file, &bad).unwrap();
        let report = check().await.unwrap();
        std::fs::write(file, &good).unwrap();
        let name = file.strip_prefix(network.dir().join("objects")).unwrap().to_string_lossy().into_owned();
        let segment = name.trim_end_matches(".obao");
        assert!(!report.is_clean(), "flip {flip}: bit {bit} of {name} was not found");
        for problem in &report.problems {
            assert!(problem.object.starts_with(segment), "flip {flip} in {name} was named {problem}");
            assert_eq!(problem.stream, STREAM);
        }
    }
    assert!(check().await.unwrap().is_clean(), "all bits are back");
}

#[test]
fn a_changed_shortened_or_missing_segment_is_refused_by_name() {
    let network = Network::new(false);
    let mut up = network.up();
    register(&network, "avro");
    publish(&network, 0..2000);
    network.wait_anchored(60);
    let statement = format!("SELECT count(DISTINCT n), count(DISTINCT sensor), count(DISTINCT value) FROM {STREAM}");
    let segment = network.objects().into_iter().find(|path| path.extension().unwrap() == "parquet").unwrap();
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    let good = std::fs::read(&segment).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 3] ^= 4;
    type Change<'a> = Box<dyn Fn() + 'a>;
    let changes: Vec<(&str, Change<'_>)> = vec![
        ("flipped", Box::new(|| std::fs::write(&segment, &flipped).unwrap())),
        ("shortened", Box::new(|| std::fs::write(&segment, &good[..good.len() / 2]).unwrap())),
        ("missing", Box::new(|| std::fs::remove_file(&segment).unwrap())),
    ];
    for (what, change) in changes {
        // A fresh query role has nothing of the segment in memory.
        up.terminate(Duration::from_secs(30));
        change();
        up = network.up();
        let output = network.command("sql").arg(&statement).output().unwrap();
        let said = common::describe(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(said.contains(STREAM) && said.contains(&name) && said.contains("offsets"), "{what}: {said}");
        assert_eq!(network.number("SELECT count(*) FROM cairn.streams"), 1, "the service lives on");
        let audit = network.command("audit").output().unwrap();
        assert_eq!(audit.status.code(), Some(3), "{what}: {}", common::describe(&audit));
        std::fs::write(&segment, &good).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while !network.command("sql").arg(&statement).output().unwrap().status.success() {
        assert!(Instant::now() < deadline, "the segment is back, the query still fails");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Keeps a network's segments in a bucket of the server at `port`.
fn use_bucket(network: &Network, port: u16) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let credentials = "aws_access_key_id = city\naws_secret_access_key = not a real one\n";
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(network.dir().join("s3.credentials")).unwrap();
    std::io::Write::write_all(&mut file, credentials.as_bytes()).unwrap();
    let file = network.dir().join("cairn.toml");
    let mut config: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    let store = format!(
        "objects = \"s3://{BUCKET}/{FOLDER}\"\n[s3]\nendpoint = \"http://127.0.0.1:{port}\"\nregion = \"eu-central-1\"\n\
         timeout_ms = 2000\ncredentials_file = \"s3.credentials\"\n"
    );
    config.insert("store".into(), store.parse::<toml::Table>().unwrap().into());
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
}

const BUCKET: &str = "city-records";
const FOLDER: &str = "anchored";

#[test]
fn a_bucket_that_is_out_of_reach_is_waited_for_and_one_that_lies_is_refused() {
    if !s3::is_available() {
        return;
    }
    let network = Network::new(false);
    let port = s3::free_port();
    use_bucket(&network, port);
    let _up = network.up();
    register(&network, "avro");
    publish(&network, 0..2000);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(anchored(&network), 0, "nothing listens at the store's address, so nothing can be durable");
    let server = S3::start_at(port, BUCKET);
    network.wait_anchored(60);
    assert_eq!(every_record_is_there_once(&network, &network.brokers()), 2000);

    server.signal("STOP");
    publish(&network, 2000..4000);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(anchored(&network), 2000, "the store takes connections and does not answer");
    server.signal("CONT");
    network.wait_anchored(60);
    assert_eq!(every_record_is_there_once(&network, &network.brokers()), 4000);
    network.audit_is_clean();
    assert_eq!(network.objects(), Vec::<std::path::PathBuf>::new(), "nothing lies in the folder");
    let receipt = network.scratch("receipt.json");
    let place = ["--stream", STREAM, "--partition", "0", "--offset", "7", "--out"];
    run(network.command("prove").args(place).arg(&receipt));
    run(common::cairn().arg("verify").arg(&receipt).arg("--genesis").arg(network.dir().join("genesis.json")));

    let segments = network.sql("SELECT segment FROM cairn.anchors ORDER BY segment LIMIT 1");
    let segment = segments[0]["segment"].as_str().unwrap();
    let place = format!("{BUCKET}/{FOLDER}/{segment}");
    let good = server.get(&place);
    let mut bad = good.clone();
    bad[good.len() / 3] ^= 4;
    server.replace(&place, &bad);
    let statement = format!("SELECT count(DISTINCT n), count(DISTINCT sensor), count(DISTINCT value) FROM {STREAM}");
    let output = network.command("sql").arg(&statement).output().unwrap();
    let said = common::describe(&output);
    assert!(output.status.code() == Some(1) && said.contains(segment) && said.contains("offsets"), "{said}");
    assert_eq!(network.command("audit").output().unwrap().status.code(), Some(3));
    server.replace(&place, &good);
    network.audit_is_clean();

    // What a crash before the anchor leaves behind.
    let orphan = format!("segments/{STREAM}/0/{:020}-{}.parquet", 0, "ab".repeat(32));
    server.replace(&format!("{BUCKET}/{FOLDER}/{orphan}"), b"sealed, and never anchored");
    let said = run(network.command("gc").args(["--older-than", "0s", "--dry-run"]));
    assert!(said.contains(&orphan) && said.contains("1 orphans of 26 bytes would be removed"), "{said}");
    let said = run(network.command("gc").args(["--older-than", "0s"]));
    assert!(said.contains("1 orphans of 26 bytes removed"), "{said}");
    let said = run(network.command("gc").args(["--older-than", "0s"]));
    assert!(said.contains("0 orphans of 0 bytes removed"), "{said}");
    assert_eq!(every_record_is_there_once(&network, &network.brokers()), 4000);
    network.audit_is_clean();
    for file in common::files(&network.dir().join("logs")) {
        let text = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("not a real one"), "{}", file.display());
    }
}

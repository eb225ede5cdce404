//! Apache Kafka as a city runs it: TLS and passwords, producers in other languages, a paused ingest that comes back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::apache::{Apache, cache, java};
use common::streams::{STREAM, csv, every_record_is_there_once, register, register_with};
use common::{Network, Process, cairn, describe, free_base_port, run};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

const PATIENCE: Duration = Duration::from_secs(90);

/// Puts lines into the section `[kafka]` of cairn.toml, in place of what an earlier call put there.
fn set_kafka(network: &Network, settings: &[(&str, &str)]) {
    let file = network.dir().join("cairn.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut config: toml::Table = text.parse().unwrap();
    let kafka = config["kafka"].as_table_mut().unwrap();
    kafka.insert("settings_file".into(), "kafka.properties".into());
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    kafka.insert("settings".into(), toml::Value::Table(settings));
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
}

fn set_password(network: &Network, password: &str, mode: u32) {
    let file = network.dir().join("kafka.properties");
    std::fs::write(&file, format!("sasl.username=city\nsasl.password={password}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn status(network: &Network) -> Output {
    network.command("status").output().unwrap()
}

#[test]
fn tls_and_passwords() {
    let Some(kafka) = Apache::start(1, true) else { return };
    let network = Network::with_kafka(&kafka.secure_bootstrap());
    std::fs::copy(kafka.root_certificate(), network.dir().join("city-ca.pem")).unwrap();
    let with = |mechanism| {
        let common = [("security.protocol", "sasl_ssl"), ("ssl.ca.location", "city-ca.pem")];
        set_kafka(&network, &[common[0], common[1], ("sasl.mechanisms", mechanism), ("message.timeout.ms", "20000")]);
    };
    with("SCRAM-SHA-512");
    set_password(&network, &kafka.password(), 0o600);
    let up = network.up();
    register(&network, "avro");
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(&network, 0..500)));
    network.wait_anchored(60);
    assert_eq!(network.number(&format!("SELECT count(*) FROM {STREAM}")), 500);

    for (mechanism, numbers) in [("PLAIN", 500..700), ("SCRAM-SHA-256", 700..900)] {
        with(mechanism);
        run(network.command("publish").args(["--stream", STREAM]).arg(csv(&network, numbers)));
    }
    network.wait_anchored(60);
    assert_eq!(network.number(&format!("SELECT count(DISTINCT n) FROM {STREAM}")), 900);
    what_is_wrong_is_told(&network, &kafka.password());
    drop(up);
    nobody_sees_the_password(&network, &kafka.password());
}

fn what_is_wrong_is_told(network: &Network, password: &str) {
    set_password(network, "wrong", 0o600);
    let said = describe(&status(network));
    assert!(said.contains("SASL authentication error"), "{said}");
    let published = network.command("publish").args(["--stream", STREAM]).arg(csv(network, 900..901)).output().unwrap();
    let said = describe(&published);
    assert!(!published.status.success() && said.contains("SASL authentication error"), "{said}");

    set_password(network, password, 0o644);
    let output = status(network);
    let said = describe(&output);
    assert!(!output.status.success() && said.contains("mode 0644") && said.contains("chmod 600"), "{said}");
    set_password(network, password, 0o600);

    let trusting = [("security.protocol", "sasl_ssl"), ("sasl.mechanisms", "PLAIN")];
    set_kafka(network, &trusting);
    let said = describe(&status(network));
    assert!(said.contains("certificate verify failed"), "a certificate of an unknown root: {said}");
    set_kafka(network, &[trusting[0], trusting[1], ("sasl.password", password)]);
    let output = status(network);
    let said = describe(&output);
    assert!(!output.status.success() && said.contains("settings_file") && !said.contains(password), "{said}");
}

fn nobody_sees_the_password(network: &Network, password: &str) {
    for file in common::files(&network.dir().join("logs")) {
        let text = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(password), "{}", file.display());
    }
}

/// A second folder of the same ingest, as on another machine: the same keys, stores and chain.
fn second_ingest(network: &Network) -> PathBuf {
    let (first, second) = (network.dir(), network.scratch("second"));
    for folder in ["keys", "data", "logs", "streams"] {
        std::fs::create_dir_all(second.join(folder)).unwrap();
    }
    for file in ["genesis.json", "keys/ingest.key", "keys/secrets.key"] {
        std::fs::copy(first.join(file), second.join(file)).unwrap();
    }
    let text = std::fs::read_to_string(first.join("cairn.toml")).unwrap();
    let mut config: toml::Table = text.parse().unwrap();
    let store = config.entry("store").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
    for folder in ["objects", "secrets"] {
        store.insert(folder.into(), first.join(folder).to_string_lossy().into_owned().into());
    }
    let metrics = format!("127.0.0.1:{}", free_base_port());
    config["ingest"].as_table_mut().unwrap().insert("metrics".into(), metrics.into());
    std::fs::write(second.join("cairn.toml"), toml::to_string(&config).unwrap()).unwrap();
    second
}

#[test]
fn an_ingest_that_was_paused_comes_back_beside_another_and_each_record_is_anchored_once() {
    let Some(kafka) = Apache::start(1, false) else { return };
    let network = Network::with_kafka(&kafka.bootstrap());
    let mut nodes: Vec<Process> = (0..4).map(|index| network.node_starting(index)).collect();
    nodes.iter_mut().for_each(|node| node.wait_ready(PATIENCE));
    let first = network.role("ingest");
    let _query = network.role("query");
    register(&network, "avro");
    let publish = |numbers| {
        run(network.command("publish").args(["--stream", STREAM]).arg(csv(&network, numbers)));
    };
    publish(0..1_000);
    network.wait_anchored(60);
    let mut second = None;
    for round in 0..3u64 {
        publish(round * 3_000 + 1_000..round * 3_000 + 3_000);
        // In the middle of its work, with batches read, sealed or submitted.
        std::thread::sleep(Duration::from_millis(150 * round));
        first.signal("STOP");
        second.get_or_insert_with(|| {
            Process::start(cairn().args(["ingest", "--dir"]).arg(second_ingest(&network)), PATIENCE)
        });
        publish(round * 3_000 + 3_000..round * 3_000 + 4_000);
        network.wait_anchored(60);
        first.signal("CONT");
    }
    publish(10_000..11_000);
    network.wait_anchored(60);
    assert_eq!(every_record_is_there_once(&network, &kafka.bootstrap()), 11_000);
    network.audit_is_clean();
}

/// Runs a producer that publishes the readings of these numbers; `false`, aloud, if it cannot be had.
fn produce(name: &str, program: Option<Command>, brokers: &str, numbers: std::ops::Range<u64>) -> bool {
    let Some(mut program) = program else {
        eprintln!("skipped: the producer {name} cannot be had");
        return false;
    };
    let count = numbers.end - numbers.start;
    let numbers = [numbers.start.to_string(), numbers.end.to_string()];
    let said = run(program.args([brokers, STREAM]).args(numbers));
    assert!(said.contains(&format!("{count} sent")), "{name}: {said}");
    true
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka").join(name)
}

/// Whether a command that installs something succeeded.
fn installs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn python(package: &str, file: &str) -> Option<Command> {
    let folder = cache("producers").join(package);
    if !folder.exists() {
        let unfinished = folder.with_extension("unfinished");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--timeout", "15", "--retries", "1", "--target"]);
        if !installs(pip.arg(&unfinished).arg(package)) {
            return None;
        }
        std::fs::rename(&unfinished, &folder).ok()?;
    }
    let mut command = Command::new("python3");
    command.arg(script(file)).env("PYTHONPATH", folder);
    Some(command)
}

fn node(package: &str, file: &str) -> Option<Command> {
    let folder = cache("producers").join(package);
    if !folder.join("node_modules").exists() {
        std::fs::create_dir_all(&folder).ok()?;
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--fetch-timeout=15000",
            "--fetch-retries=1",
            "--prefix",
        ]);
        if !installs(npm.arg(&folder).arg(package)) {
            return None;
        }
    }
    let mut command = Command::new("node");
    command.arg(script(file)).env("NODE_PATH", folder.join("node_modules"));
    Some(command)
}

fn abort_a_transaction(brokers: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("transactional.id", "changes its mind");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    for partition in 0..2 {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(STREAM).partition(partition).payload(b"{}");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
}

#[test]
fn producers_in_other_languages() {
    let Some(kafka) = Apache::start(1, false) else { return };
    let network = Network::with_kafka(&kafka.bootstrap());
    let _up = network.up();
    register_with(&network, "json", "gaps_allowed = true\n");
    let mut from_java = java();
    from_java.arg(script("Producer.java"));
    let producers = [
        ("java", Some(from_java)),
        ("confluent", python("confluent-kafka", "producer_confluent.py")),
        ("kafka-python", python("kafka-python", "producer_kafka_python.py")),
        ("kafkajs", node("kafkajs", "producer_kafkajs.js")),
    ];
    let mut sent = vec![];
    for (at, (name, program)) in (0u64..).zip(producers) {
        if produce(name, program, &kafka.bootstrap(), at * 1_000..at * 1_000 + 250) {
            sent.push(name);
        }
    }
    network.wait_anchored(60);
    let counts = format!("SELECT count(*) AS rows, count(DISTINCT n) AS numbers, sum(n % 1000) AS sum FROM {STREAM}");
    let (rows, senders) = (network.sql(&counts), sent.len() as u64);
    assert_eq!((rows[0]["rows"].as_u64(), rows[0]["numbers"].as_u64()), (Some(250 * senders), Some(250 * senders)));
    assert_eq!(rows[0]["sum"].as_u64(), Some(250 * 249 / 2 * senders));
    assert_eq!(network.number("SELECT count(*) FROM cairn.quarantine"), 0);
    // Nothing but offsets without records follows: anchors, rows and receipts are as before.
    abort_a_transaction(&kafka.bootstrap());
    network.wait_anchored(60);
    assert_eq!(network.sql(&counts), rows);
    for name in sent {
        let rows = network.sql(&format!(
            "SELECT _partition AS p, _offset AS o, count(*) OVER () AS rows FROM {STREAM} WHERE sensor LIKE '{name}-%' \
             ORDER BY n LIMIT 1"
        ));
        assert_eq!(rows[0]["rows"], 250, "{name}");
        let receipt = network.scratch(&format!("{name}.json"));
        let place = ["--partition", &rows[0]["p"].to_string(), "--offset", &rows[0]["o"].to_string()];
        run(network.command("prove").args(["--stream", STREAM]).args(place).arg("--out").arg(&receipt));
        run(cairn().arg("verify").arg(&receipt).arg("--genesis").arg(network.dir().join("genesis.json")));
    }
    network.audit_is_clean();
}

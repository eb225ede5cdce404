//! The embedded broker with real clients: topics, restarts, ports in use.

use super::*;

#[test]
fn absolute_folder_survives_the_url() {
    let url = storage_url(Path::new("/var/lib/cairn/broker")).unwrap();
    assert_eq!(url.path(), "//var/lib/cairn/broker/broker.db");
    assert_eq!(url.domain(), None);
    // What tansu does with it.
    let mut path = PathBuf::from("/somewhere/else");
    path.push(url.path().strip_prefix('/').unwrap());
    assert_eq!(path, Path::new("/var/lib/cairn/broker/broker.db"));
}

#[test]
fn a_folder_that_a_url_would_change_is_refused() {
    for dir in ["/tmp/with space", "/tmp/über", "/tmp/a?b", "/tmp/a#b"] {
        let error = storage_url(Path::new(dir)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Input, "{dir}");
        assert!(error.to_string().contains(dir), "{error}");
    }
}

#[test]
fn a_folder_below_the_working_directory_may_have_any_parent() {
    let here = std::env::current_dir().unwrap();
    let url = storage_url(&here.join("state")).unwrap();
    assert!(url.path().ends_with("state/broker.db"));
}

use crate::kafka::KafkaConfig;
use crate::topics::{TopicSpec, ensure_topics, probe};
use crate::{Publisher, testing};
use cairn_proof::statement::Format;
use cairn_proof::{Offset, Partition};

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_an_abrupt_end() {
    let folder = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(folder.path(), local()).await.unwrap();
    let kafka = KafkaConfig::new(broker.bootstrap());
    let definition = testing::definition(Format::Json, &[&testing::one_field(r#""long""#)]);
    let topic = TopicSpec { topic: definition.topic.clone(), partitions: definition.partitions };
    ensure_topics(&kafka, std::slice::from_ref(&topic)).await.unwrap();
    ensure_topics(&kafka, std::slice::from_ref(&topic)).await.expect("a topic that is there already is fine");
    let more = TopicSpec { partitions: 3, ..topic.clone() };
    let text = ensure_topics(&kafka, &[more]).await.unwrap_err().to_string();
    assert!(text.contains("test-stream has 2 partitions") && text.contains("with 3"), "{text}");

    let mut publisher = Publisher::new(&kafka, &definition).unwrap();
    for v in 0..2_000 {
        publisher.send_object(serde_json::json!({ "v": v }).as_object().unwrap()).await.unwrap();
    }
    let counts = publisher.flush().await.unwrap();
    assert_eq!((counts.queued, counts.sent, counts.failed), (2_000, 2_000, 0));
    drop(publisher);
    let address = broker.address();
    drop(broker); // no orderly end: all its tasks are cut where they are

    let mut again = EmbeddedBroker::start(folder.path(), address).await;
    for _ in 0..50 {
        if again.is_ok() {
            break;
        }
        // Its port is freed a moment after.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        again = EmbeddedBroker::start(folder.path(), address).await;
    }
    let again = again.unwrap();
    let ends = probe(&kafka, &[topic]).await.unwrap();
    let total: u64 = ends.values().map(|ends| ends.end.0 - ends.start.0).sum();
    assert_eq!((ends.len(), total), (2, 2_000), "{ends:?}");
    let missing = TopicSpec { topic: "no-such-topic".into(), partitions: 2 };
    assert!(probe(&kafka, &[missing]).await.unwrap().is_empty());
    again.stop().await;
    std::net::TcpListener::bind(address).expect("its port is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_says_which_role_and_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = EmbeddedBroker::start(folder.path(), address).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), crate::ErrorKind::Input);
    assert!(
        text.contains(&address.port().to_string()) && text.contains("broker") && text.contains("another"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_is_an_error_that_names_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut kafka = KafkaConfig::new(free.to_string());
    kafka.settings.insert("socket.connection.setup.timeout.ms".into(), "1000".into());
    let topic = TopicSpec { topic: "t".into(), partitions: 1 };
    let error = probe(&kafka, &[topic]).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Retry);
    assert!(error.to_string().contains(&free.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_one_key_share_the_partition_that_java_chooses() {
    let folder = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(folder.path(), local()).await.unwrap();
    let kafka = KafkaConfig::new(broker.bootstrap());
    let mut definition = testing::definition(Format::Json, &[&testing::one_field(r#""string""#)]);
    (definition.partitions, definition.key_fields) = (8, vec!["v".into()]);
    let topic = TopicSpec { topic: definition.topic.clone(), partitions: 8 };
    ensure_topics(&kafka, std::slice::from_ref(&topic)).await.unwrap();
    let mut publisher = Publisher::new(&kafka, &definition).unwrap();
    for _ in 0..100 {
        publisher.send_object(serde_json::json!({ "v": "foobar" }).as_object().unwrap()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let ends = probe(&kafka, &[topic]).await.unwrap();
    // Utils.murmur2("foobar") is -790332482 in Kafka's own tests; made positive, modulo 8.
    let expected = Partition(u32::try_from((-790_332_482_i32 & 0x7fff_ffff) % 8).unwrap());
    let filled: Vec<_> = ends.iter().filter(|(_, ends)| ends.end > Offset(0)).map(|((_, at), _)| *at).collect();
    assert_eq!(filled, [expected]);
    broker.stop().await;
}

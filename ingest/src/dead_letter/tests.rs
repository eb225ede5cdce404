//! Settings and cursors; delivery is tested with brokers, in `ingest`'s tests.

use cairn_proof::Digest;
use cairn_proof::statement::{ChainTag, Format};

use super::*;
use crate::testing::{definition, one_field};

const CHAIN: ChainTag = ChainTag(Digest([7; 32]));

#[test]
fn patterns_give_topics_and_never_a_streams_own() {
    let stream = definition(Format::Json, &[&one_field(r#""long""#)]);
    for (pattern, topic) in [
        ("{topic}.dlq", "test-stream.dlq"),
        ("dead.{stream}", "dead.test.stream"),
        ("dead-letters", "dead-letters"),
        ("{stream}_{topic}", "test.stream_test-stream"),
    ] {
        let config = DeadLetterConfig::new(pattern, "x");
        config.check().unwrap();
        assert_eq!(config.topic_of(&stream).unwrap(), topic);
    }
    for pattern in ["{topic}", "test-stream", "{stream}{stream}{stream}{stream}{stream}{stream}{stream}{stream}..."] {
        let config = DeadLetterConfig::new(pattern.replace("...", &"x".repeat(200)), "x");
        assert!(config.topic_of(&stream).is_err(), "{pattern}");
    }
    for pattern in ["", "{partition}", "a b", "Zürich"] {
        let text = DeadLetterConfig::new(pattern, "x").check().unwrap_err().to_string();
        assert!(text.contains("`topic`") && text.contains("{stream}"), "{text}");
    }
    let config = DeadLetterConfig { partitions: 0, ..DeadLetterConfig::new("x", "x") };
    assert!(config.check().unwrap_err().to_string().contains("partitions"));
}

#[tokio::test]
async fn cursors_are_kept_and_begin_where_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/dead-letters.json");
    let cursors = Cursors::open(&file, &CHAIN).unwrap();
    cursors.begin(5).await.unwrap();
    cursors.advance("a.b", 9).await.unwrap();
    cursors.begin(70).await.unwrap();
    let again = Cursors::open(&file, &CHAIN).unwrap();
    assert_eq!((again.of("a.b"), again.of("other.one")), (9, 5));
    let other = Cursors::open(&file, &ChainTag(Digest([8; 32]))).unwrap_err().to_string();
    assert!(other.contains("a file of its own"), "{other}");
}

#[tokio::test]
async fn a_file_that_is_none_is_refused_and_one_that_cannot_be_written_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dead-letters.json");
    for text in ["", "{}", "[]", r#"{"format":"cairn/dead-letters/v1","chain":"","from":-1,"delivered":{}}"#] {
        std::fs::write(&file, text).unwrap();
        let error = Cursors::open(&file, &CHAIN).unwrap_err().to_string();
        assert!(error.contains("dead-letters.json") && error.contains("remove it"), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
    let cursors = Cursors::open(&folder.path().join("in/the/way.json"), &CHAIN).unwrap();
    std::fs::write(folder.path().join("in"), "").unwrap();
    assert_eq!(cursors.begin(1).await.unwrap_err().kind(), crate::ErrorKind::Retry);
    assert_eq!(cursors.of("a.b"), 0, "what is not written is not kept");
}

//! What all Kafka clients here share: settings, logs that go to `tracing`, and wording of errors.
//!
//! Settings that users pass through are librdkafka's own names. The ones that Cairn's guarantees rest on cannot be
//! overridden: a consumer that commits offsets or skips a hole in silence would break exactly-once. Passwords among them
//! are never shown: not in a log line, not in an error, not in debug output.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// How long one request to the broker may take.
pub(crate) const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// Settings that Cairn sets itself, and why nobody else may.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "give the brokers as `brokers`"),
    ("group.id", "the chain, not a consumer group, says where ingest resumes"),
    ("group.instance.id", "the chain, not a consumer group, says where ingest resumes"),
    ("enable.auto.commit", "committed offsets are not trusted"),
    ("enable.auto.offset.store", "committed offsets are not trusted"),
    ("auto.offset.reset", "a reset must be seen and declared, not done in silence"),
    ("isolation.level", "what was aborted or is not committed yet is no record"),
    ("check.crcs", "each fetched batch is checked"),
    ("enable.idempotence", "the publisher must not double records"),
    ("enable.partition.eof", "ingest finds the end itself"),
    ("partitioner", "records are spread as Java's default partitioner does"),
];

/// Settings that hold a secret.
const SECRET: &[&str] = &[
    "sasl.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// Whether a setting of librdkafka holds a secret: a password, or a key itself.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    SECRET.contains(&key)
}

/// Where the brokers are and how to talk to them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated: librdkafka's `bootstrap.servers`.
    pub brokers: String,
    /// Further librdkafka settings by their own names, such as `security.protocol` or `sasl.mechanisms`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    /// Without the values of secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, value)| (key, if is_secret(key) { "(secret)" } else { value });
        let settings: BTreeMap<&str, &str> =
            self.settings.iter().map(|(key, value)| shown((key.as_str(), value.as_str()))).collect();
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers).field("settings", &settings).finish()
    }
}

impl KafkaConfig {
    /// The given brokers, with librdkafka's defaults.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), settings: BTreeMap::new() }
    }

    /// Refuses settings that are Cairn's own to set, and ones that librdkafka does not know.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input), naming the key, the value and what to do.
    pub fn check(&self) -> Result<()> {
        if self.brokers.trim().is_empty() {
            return Err(Error::input("`brokers` is empty: give at least one host:port"));
        }
        for key in self.settings.keys() {
            if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| reserved == key) {
                return Err(Error::input(format!("the Kafka setting `{key}` is Cairn's own: {why}; remove it")));
            }
        }
        self.client_config()
            .create_native_config()
            .map(drop)
            .map_err(|error| Error::input(format!("a Kafka setting is wrong: {}", reason(&error))))
    }

    /// librdkafka's configuration with what every client here shares.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "cairn").set("socket.keepalive.enable", "true");
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }
}

/// librdkafka's messages as `tracing` events, never on standard error; and what only its messages tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quiet {
    /// Why the brokers' door stays closed: TLS or SASL failed. Errors of requests do not say so.
    refused: Arc<Mutex<Option<String>>>,
    /// How many messages came.
    heard: Arc<AtomicU64>,
    topics: Option<TopicIds>,
}

impl Quiet {
    /// Notes the ids of topics too; wants [`TopicIds::listen`] on the client's configuration.
    pub(crate) fn noting(topics: &TopicIds) -> Self {
        Self { topics: Some(topics.clone()), ..Self::default() }
    }

    /// Why TLS or SASL failed, if they did since this was asked last.
    pub(crate) fn refusal(&self) -> Option<String> {
        locked(&self.refused).take()
    }

    /// Whether it notes the ids of topics.
    pub(crate) fn notes_topics(&self) -> bool {
        self.topics.is_some()
    }

    /// An error of a request of this client in a sentence that says what to do.
    pub(crate) fn explain(&self, doing: &str, brokers: &str, error: &KafkaError) -> Error {
        let explained = kafka_error(doing, brokers, error);
        match (explained.kind(), self.refusal()) {
            (ErrorKind::Retry, Some(why)) => {
                Error::not_allowed(format!("{doing}: {brokers} cannot be talked to: {why}"))
            }
            _ => explained,
        }
    }

    /// Keeps what says that TLS or SASL failed, and says it once in the log for as long as it stays the same.
    fn note_refusal(&self, message: &str) {
        if !["SASL", "SSL", "ssl://", "sasl_ssl://"].iter().any(|word| message.contains(word)) {
            return;
        }
        // Without librdkafka's thread and how long it took, which differ each time.
        let text = message.split_once("]: ").map_or(message, |(_, text)| text);
        let text = text.split(" (after ").next().unwrap_or(text).to_owned();
        let mut refused = locked(&self.refused);
        if refused.as_ref() != Some(&text) {
            tracing::warn!(target: "cairn_ingest::librdkafka", "Kafka: {text}");
            *refused = Some(text);
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "cairn_ingest::librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                if facility == "FAIL" {
                    self.note_refusal(message);
                }
                tracing::debug!(target: "cairn_ingest::librdkafka", facility, "{message}");
            }
            _ => {
                if let Some(topics) = &self.topics {
                    topics.note(message);
                }
                tracing::trace!(target: "cairn_ingest::librdkafka", facility, "{message}");
            }
        }
    }

    fn error(&self, error: KafkaError, message: &str) {
        tracing::debug!(target: "cairn_ingest::librdkafka", %error, "{message}");
    }
}

impl ConsumerContext for Quiet {}

/// What comes next out of a consumer's queue. librdkafka's own messages wait in that queue too: all that lie before it, or
/// all there are, are taken in when this returns.
pub(crate) fn next_event(
    consumer: &BaseConsumer<Quiet>,
) -> Option<std::result::Result<BorrowedMessage<'_>, KafkaError>> {
    loop {
        let heard = consumer.context().heard.load(Ordering::Relaxed);
        let event = consumer.poll(Duration::ZERO);
        // A message of librdkafka ends polling as an empty queue does.
        if event.is_some() || consumer.context().heard.load(Ordering::Relaxed) == heard {
            return event;
        }
    }
}

/// The ids of topics as the clients of this process learn them: a topic that is deleted and made anew has another one.
///
/// librdkafka goes on reading at the same offset when a topic's id changes, and tells ids only in a message of its
/// `metadata` debugging. It writes that message before it asks the new topic for records, so whoever reads a record, then
/// takes in all of [`next_event`], and then looks here knows whether it may be of another topic than the one before. Brokers before 2.8 have no ids, and
/// before 3.1 records can be fetched without naming one; then nothing is noted here.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicIds(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    ids: Mutex<BTreeMap<String, String>>,
    changed: Mutex<BTreeSet<String>>,
    /// Whether `changed` holds anything: looked at very often.
    any_changed: AtomicBool,
}

impl TopicIds {
    /// Makes librdkafka tell.
    pub(crate) fn listen(config: &mut ClientConfig) {
        let debug = match config.get("debug") {
            Some(others) if !others.is_empty() => format!("{others},metadata"),
            _ => "metadata".to_owned(),
        };
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
    }

    /// Whether a topic got another id since the first that was seen.
    pub(crate) fn has_changed(&self, topic: &str) -> bool {
        self.any_changed() && locked(&self.0.changed).contains(topic)
    }

    /// Whether any topic did.
    pub(crate) fn any_changed(&self) -> bool {
        self.0.any_changed.load(Ordering::SeqCst)
    }

    /// Takes in a message of librdkafka, most of which are about something else.
    fn note(&self, message: &str) {
        let Some((topic, id)) = parse_id(message) else { return };
        let before = locked(&self.0.ids).insert(topic.to_owned(), id.to_owned());
        if let Some(before) = before.filter(|before| before != id) {
            tracing::error!(topic, before, id, "the topic was deleted and made anew");
            locked(&self.0.changed).insert(topic.to_owned());
            self.0.any_changed.store(true, Ordering::SeqCst);
        }
    }
}

/// The topic and its id in `Topic NAME changed id from ID to ID`. The id of no topic is all zeros.
fn parse_id(message: &str) -> Option<(&str, &str)> {
    let (start, ids) = message.split_once(" changed id from ")?;
    let topic = start.rsplit_once("Topic ")?.1;
    let id = ids.rsplit_once(" to ")?.1.trim();
    (id.chars().any(|c| !matches!(c, 'A' | '=')) && !topic.contains(' ')).then_some((topic, id))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error of librdkafka in a sentence that says what to do.
pub(crate) fn kafka_error(doing: &str, brokers: &str, error: &KafkaError) -> Error {
    let why = reason(error);
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::RequestTimedOut,
        ) => Error::retry(format!(
            "{doing}: no broker answered at {brokers} ({why}); is it running, and is the address right?"
        )),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication,
        ) => Error::not_allowed(format!("{doing}: the broker at {brokers} refused: {why}")),
        _ => Error::retry(format!("{doing}: {why}")),
    }
}

/// librdkafka's own words for an error.
pub(crate) fn reason(error: &KafkaError) -> String {
    match (error, error.rdkafka_error_code()) {
        (KafkaError::ClientConfig(_, description, key, _), _) if is_secret(key) => format!("`{key}`: {description}"),
        (KafkaError::ClientConfig(_, description, key, value), _) => format!("`{key}` = `{value}`: {description}"),
        (_, Some(code)) => code.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_cairn_cannot_be_overridden() {
        let mut config = KafkaConfig::new("127.0.0.1:9092");
        config.check().unwrap();
        config.settings.insert("auto.offset.reset".into(), "latest".into());
        let text = config.check().unwrap_err().to_string();
        assert!(text.contains("auto.offset.reset") && text.contains("remove it"), "{text}");
    }

    #[test]
    fn unknown_settings_are_named() {
        let mut config = KafkaConfig::new("127.0.0.1:9092");
        config.settings.insert("fetch.mni.bytes".into(), "1".into());
        let text = config.check().unwrap_err().to_string();
        assert!(text.contains("fetch.mni.bytes"), "{text}");
        assert!(KafkaConfig::new(" ").check().is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = KafkaConfig::new("127.0.0.1:9092");
        config.settings.insert("sasl.password".into(), "hunter2".into());
        config.settings.insert("sasl.username".into(), "city".into());
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && shown.contains("sasl.password") && shown.contains("city"), "{shown}");
        let wrong = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "not a key".into(),
            "ssl.key.pem".into(),
            "hunter2".into(),
        );
        assert_eq!(reason(&wrong), "`ssl.key.pem`: not a key");
    }

    #[test]
    fn a_topic_with_another_id_is_another_topic() {
        let ids = TopicIds::default();
        let zero = "AAAAAAAAAAAAAAAAAAAAAA";
        for (line, changed) in [
            (format!("[thrd:main]: Topic city.flow changed id from {zero} to q8rl0QyCRoy3h1ZpvvJ8gA"), false),
            ("Topic city.flow [0] broker 1".into(), false),
            (format!("Topic city.flow changed id from q8rl0QyCRoy3h1ZpvvJ8gA to {zero}"), false),
            (format!("Topic other changed id from {zero} to 11111111111111111111AA"), false),
            (format!("Topic city.flow changed id from {zero} to q8rl0QyCRoy3h1ZpvvJ8gA"), false),
            ("Topic city.flow changed id from q8rl0QyCRoy3h1ZpvvJ8gA to 2_8lnQyCRoy3h1ZpvvJ8gQ".into(), true),
        ] {
            ids.note(&line);
            assert_eq!(ids.has_changed("city.flow"), changed, "{line}");
        }
        assert!(!ids.has_changed("other"));
    }

    #[test]
    fn a_refusal_is_told_in_the_error_of_a_request() {
        let quiet = Quiet::default();
        let failed = KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure);
        assert_eq!(quiet.explain("asking", "b:1", &failed).kind(), ErrorKind::Retry);
        let line = "[thrd:sasl_ssl://b:1/bootstrap]: sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication \
                    failed (after 3ms in state AUTH_REQ)";
        quiet.log(RDKafkaLogLevel::Error, "FAIL", line);
        let error = quiet.explain("asking", "b:1", &failed);
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
        assert!(error.to_string().ends_with("SASL authentication error: Authentication failed"), "{error}");
    }
}

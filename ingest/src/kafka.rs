//! What all Kafka clients here share: settings, logs that go to `tracing`, and wording of errors.
//!
//! Settings that users pass through are librdkafka's own names. The ones that Cairn's guarantees rest on cannot be
//! overridden: a consumer that commits offsets or skips a hole in silence would break exactly-once.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
    ("check.crcs", "each fetched batch is checked"),
    ("enable.idempotence", "the publisher must not double records"),
    ("enable.partition.eof", "ingest finds the end itself"),
    ("partitioner", "records are spread as Java's default partitioner does"),
];

/// Where the brokers are and how to talk to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated: librdkafka's `bootstrap.servers`.
    pub brokers: String,
    /// Further librdkafka settings by their own names, such as `security.protocol` or `sasl.mechanisms`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
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

/// librdkafka's messages as `tracing` events, never on standard error.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "cairn_ingest::librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::debug!(target: "cairn_ingest::librdkafka", facility, "{message}");
            }
            _ => tracing::trace!(target: "cairn_ingest::librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, message: &str) {
        tracing::debug!(target: "cairn_ingest::librdkafka", %error, "{message}");
    }
}

impl ConsumerContext for Quiet {}

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
}

//! Settings of ingest, checked once at the start.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::dead_letter::DeadLetterConfig;
use crate::error::{Error, Result};
use crate::kafka::KafkaConfig;
use crate::registry::RegistryConfig;

/// How ingest reads and how much it may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestConfig {
    /// The brokers, and further librdkafka settings.
    pub kafka: KafkaConfig,
    /// Bytes of records that are read and not yet anchored, over all partitions; 1 MiB to 64 GiB. What librdkafka
    /// fetched ahead and what one sealing takes for columns comes on top.
    #[serde(default = "default_memory_bytes_max")]
    pub memory_bytes_max: u64,
    /// Bytes that librdkafka may fetch ahead, over all partitions; 1 MiB to 16 GiB.
    #[serde(default = "default_fetch_bytes_max")]
    pub fetch_bytes_max: u64,
    /// How many batches may be decoded and sealed at the same time, 1 to 256; as many as there are cores, if left out.
    #[serde(default = "default_seal_tasks_max")]
    pub seal_tasks_max: usize,
    /// How often the ends of the topics are asked for, 100 to 60,000 ms.
    #[serde(default = "default_probe_interval_ms")]
    pub probe_interval_ms: u64,
    /// How long a stop waits for batches that are on their way to the chain, 0 to 60,000 ms. Nothing is lost without.
    #[serde(default = "default_stop_grace_ms")]
    pub stop_grace_ms: u64,
    /// Where schemas of writers are looked up that a stream with Confluent framing does not have; nowhere, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryConfig>,
    /// Where quarantined records go besides; nowhere, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetterConfig>,
}

fn default_memory_bytes_max() -> u64 {
    256 << 20
}

fn default_fetch_bytes_max() -> u64 {
    64 << 20
}

fn default_seal_tasks_max() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(256)
}

fn default_probe_interval_ms() -> u64 {
    1_000
}

fn default_stop_grace_ms() -> u64 {
    2_000
}

impl IngestConfig {
    /// The defaults, for the given brokers.
    pub fn new(kafka: KafkaConfig) -> Self {
        Self {
            kafka,
            memory_bytes_max: default_memory_bytes_max(),
            fetch_bytes_max: default_fetch_bytes_max(),
            seal_tasks_max: default_seal_tasks_max(),
            probe_interval_ms: default_probe_interval_ms(),
            stop_grace_ms: default_stop_grace_ms(),
            registry: None,
            dead_letter: None,
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input), naming the key, the value and the allowed range.
    pub fn check(&self) -> Result<()> {
        self.kafka.check()?;
        in_range("memory_bytes_max", self.memory_bytes_max, 1 << 20..=64 << 30)?;
        in_range("fetch_bytes_max", self.fetch_bytes_max, 1 << 20..=16 << 30)?;
        in_range("seal_tasks_max", self.seal_tasks_max as u64, 1..=256)?;
        in_range("probe_interval_ms", self.probe_interval_ms, 100..=60_000)?;
        in_range("stop_grace_ms", self.stop_grace_ms, 0..=60_000)?;
        self.registry.as_ref().map_or(Ok(()), RegistryConfig::check)?;
        self.dead_letter.as_ref().map_or(Ok(()), DeadLetterConfig::check)
    }
}

pub(crate) fn in_range(key: &str, value: u64, allowed: RangeInclusive<u64>) -> Result<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Error::input(format!("`{key}` = {value}: it must be from {} to {}", allowed.start(), allowed.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_allowed_and_wrong_values_named() {
        let mut config = IngestConfig::new(KafkaConfig::new("127.0.0.1:9092"));
        config.check().unwrap();
        config.memory_bytes_max = 7;
        let text = config.check().unwrap_err().to_string();
        assert!(text.contains("memory_bytes_max") && text.contains('7') && text.contains("1048576"), "{text}");
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = r#"{"kafka": {"brokers": "x:1"}, "memory_bytes": 1}"#;
        assert!(serde_json::from_str::<IngestConfig>(text).unwrap_err().to_string().contains("memory_bytes"));
        let text = r#"{"kafka": {"brokers": "x:1", "settings": {"security.protocol": "plaintext"}}}"#;
        let config: IngestConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.memory_bytes_max, default_memory_bytes_max());
    }
}

//! The configuration of the query role: typed, with units in the names, checked once at start.
//!
//! Reading the file it comes from is the command line's job; this module only knows the values.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use cairn_proof::login::AUDIENCE_BYTES_MAX;
use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;
/// The audience of login tokens, unless configured otherwise.
const AUDIENCE: &str = "cairn-query";

/// How the query role runs. Every field has a default, so an empty table is a valid configuration.
///
/// ```
/// use cairn_query::QueryConfig;
///
/// let config = QueryConfig { port: 0, ..QueryConfig::default() };
/// config.check().expect("the defaults are in range");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// The address that the Postgres port listens on. Only a loopback address, unless `allow_remote_clients`.
    pub host: IpAddr,
    /// The Postgres port; 0 lets the system choose one, which is then in [`crate::RunningQuery::addr`].
    pub port: u16,
    /// Listen on an address that other machines reach.
    pub allow_remote_clients: bool,
    /// Who needs no password; everybody else logs in as an identity on the chain, with a token of `cairn login`.
    pub without_password: WithoutPassword,
    /// The name of this service in login tokens: one that is for another is refused.
    pub audience: String,
    /// How long to try again to listen on a port that is in use, in milliseconds.
    pub bind_retry_ms: u64,
    /// How many clients may be connected at once; the next one is told so and turned away.
    pub connections_max: u32,
    /// How much memory all running statements may use together for sorting, grouping and joining, in MiB.
    pub memory_limit_mib: u64,
    /// How much memory the cache of verified segment footers may use, in MiB.
    pub footer_cache_mib: u64,
    /// How much memory segment bytes may use that were verified and are kept for statements that read them again, in
    /// MiB. 0, the default, keeps none: then each read of a statement looks at the stored bytes.
    pub verified_cache_mib: u64,
    /// How long a statement may run, in milliseconds. A client may choose a shorter time, never a longer one.
    pub statement_timeout_ms_max: u64,
    /// The length of a statement's text, in bytes.
    pub statement_bytes_max: usize,
    /// The length of one message of a Postgres client, in bytes: a statement's text, or the values of its parameters.
    pub message_bytes_max: usize,
    /// The size of an answer that is gathered in memory ([`crate::Engine::sql`]), in MiB. The Postgres port streams
    /// its answers and has no such limit.
    pub answer_mib_max: u64,
    /// How many statements may run at once; the next ones wait, for as long as they may run.
    pub statements_max: u32,
    /// How many rows one statement may hand out.
    pub rows_out_max: u64,
    /// How much one statement may hand out, in MiB of memory before it is encoded for the client.
    pub mib_out_max: u64,
    /// Where statements may put what does not fit into memory: an absolute path of a folder that exists and that only
    /// this user can enter. None, the default: what does not fit is refused. What is put there is records in plain
    /// text, outside of the store, and is read back as it is: no root stands for it.
    pub spill_folder: Option<PathBuf>,
    /// How much all running statements may put into `spill_folder` together, in MiB.
    pub spill_mib_max: u64,
    /// How many threads' worth of work one statement is split into.
    pub parallelism: usize,
    /// How many rows are handed on at a time.
    pub batch_rows: usize,
    /// What the Postgres port is served with over TLS; without it clients are told that there is none.
    pub tls: Option<TlsFiles>,
}

/// The Flight SQL port. Who may connect, TLS and all limits are those of the [`QueryConfig`] beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlightConfig {
    /// Where it listens. Only a loopback address, unless `allow_remote_clients`. Port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// How many calls one connection may have open at once.
    #[serde(default = "calls_max")]
    pub calls_max: u32,
}

fn calls_max() -> u32 {
    64
}

impl FlightConfig {
    /// A Flight SQL port with the default limits.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, calls_max: calls_max() }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// Names the first key that is out of range, its value and the range.
    pub fn check(&self, query: &QueryConfig) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && !query.allow_remote_clients {
            return Err(ConfigError {
                key: "listen",
                value: self.listen.to_string(),
                allowed: "the Flight SQL port listens on a loopback address (127.0.0.1 or ::1) unless \
                          allow_remote_clients = true under [query.postgres]"
                    .to_owned(),
            });
        }
        in_range("calls_max", self.calls_max, 1..=1_000)
    }
}

/// PEM files that the ports are served with over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and behind it those that it rests on.
    pub certificate: PathBuf,
    /// Its private key, of mode 0600.
    pub key: PathBuf,
}

/// Which clients need no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithoutPassword {
    /// None: everybody logs in.
    #[default]
    None,
    /// Those on this machine.
    Loopback,
    /// All: for containers and private networks that keep strangers out by other means.
    Any,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 5433,
            allow_remote_clients: false,
            without_password: WithoutPassword::None,
            audience: AUDIENCE.to_owned(),
            bind_retry_ms: 3_000,
            connections_max: 64,
            memory_limit_mib: 1_024,
            footer_cache_mib: 128,
            verified_cache_mib: 0,
            statement_timeout_ms_max: 300_000,
            statement_bytes_max: 1_048_576,
            message_bytes_max: 16_777_216,
            answer_mib_max: 512,
            statements_max: 32,
            rows_out_max: 1_000_000_000,
            mib_out_max: 1_048_576,
            spill_folder: None,
            spill_mib_max: 16_384,
            parallelism: std::thread::available_parallelism().map_or(2, |n| n.get().min(16)),
            batch_rows: 8_192,
            tls: None,
        }
    }
}

/// A value of the configuration is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("query configuration: {key} = {value} is not allowed; {allowed}")]
pub struct ConfigError {
    /// The field's name.
    pub key: &'static str,
    /// The value found.
    pub value: String,
    /// What would be allowed.
    pub allowed: String,
}

// By value, so that a caller writes a number as it is.
#[allow(clippy::needless_pass_by_value)]
fn in_range<T>(key: &'static str, value: T, range: RangeInclusive<T>) -> Result<(), ConfigError>
where
    T: PartialOrd + std::fmt::Display,
{
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError {
        key,
        value: value.to_string(),
        allowed: format!("allowed is {} to {}", range.start(), range.end()),
    })
}

impl QueryConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// Names the first key that is out of range, its value and the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.host.is_loopback() && !self.allow_remote_clients {
            return Err(ConfigError {
                key: "host",
                value: self.host.to_string(),
                allowed: "the Postgres port listens on a loopback address (127.0.0.1 or ::1) unless \
                          allow_remote_clients = true"
                    .to_owned(),
            });
        }
        if self.audience.is_empty()
            || self.audience.len() > AUDIENCE_BYTES_MAX
            || !self.audience.chars().all(|c| c.is_ascii_graphic())
        {
            return Err(ConfigError {
                key: "audience",
                value: self.audience.clone(),
                allowed: format!("allowed are 1 to {AUDIENCE_BYTES_MAX} printable ASCII characters without spaces"),
            });
        }
        in_range("bind_retry_ms", self.bind_retry_ms, 0..=60_000)?;
        in_range("connections_max", self.connections_max, 1..=10_000)?;
        in_range("memory_limit_mib", self.memory_limit_mib, 16..=1_048_576)?;
        in_range("footer_cache_mib", self.footer_cache_mib, 1..=65_536)?;
        in_range("verified_cache_mib", self.verified_cache_mib, 0..=1_048_576)?;
        in_range("statement_timeout_ms_max", self.statement_timeout_ms_max, 1..=86_400_000)?;
        in_range("statement_bytes_max", self.statement_bytes_max, 1_024..=16_777_216)?;
        in_range("message_bytes_max", self.message_bytes_max, 1_024..=1_073_741_824)?;
        in_range("answer_mib_max", self.answer_mib_max, 1..=1_048_576)?;
        in_range("statements_max", self.statements_max, 1..=10_000)?;
        in_range("rows_out_max", self.rows_out_max, 1..=u64::MAX)?;
        in_range("mib_out_max", self.mib_out_max, 1..=1_073_741_824)?;
        in_range("spill_mib_max", self.spill_mib_max, 1..=1_073_741_824)?;
        self.check_spill_folder()?;
        in_range("parallelism", self.parallelism, 1..=256)?;
        in_range("batch_rows", self.batch_rows, 64..=1_048_576)
    }

    fn check_spill_folder(&self) -> Result<(), ConfigError> {
        match &self.spill_folder {
            Some(folder) if !folder.is_absolute() => Err(ConfigError {
                key: "spill_folder",
                value: folder.display().to_string(),
                allowed: "allowed is an absolute path".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The longest time a statement may run.
    pub fn statement_timeout_max(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms_max)
    }

    pub(crate) fn memory_limit_bytes(&self) -> usize {
        usize::try_from(self.memory_limit_mib.saturating_mul(MIB)).unwrap_or(usize::MAX)
    }

    pub(crate) fn footer_cache_bytes(&self) -> usize {
        usize::try_from(self.footer_cache_mib.saturating_mul(MIB)).unwrap_or(usize::MAX)
    }

    pub(crate) fn verified_cache_bytes(&self) -> u64 {
        self.verified_cache_mib.saturating_mul(MIB)
    }

    pub(crate) fn spill_bytes_max(&self) -> u64 {
        self.spill_mib_max.saturating_mul(MIB)
    }

    pub(crate) fn bytes_out_max(&self) -> u64 {
        self.mib_out_max.saturating_mul(MIB)
    }

    pub(crate) fn answer_bytes_max(&self) -> usize {
        usize::try_from(self.answer_mib_max.saturating_mul(MIB)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(QueryConfig::default().check(), Ok(()));
    }

    #[test]
    fn a_remote_address_needs_to_be_wanted() {
        let remote = QueryConfig { host: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ..QueryConfig::default() };
        let error = remote.check().expect_err("0.0.0.0 is not loopback");
        assert_eq!(error.key, "host");
        let wanted = QueryConfig { allow_remote_clients: true, ..remote };
        assert_eq!(wanted.check(), Ok(()));
    }

    #[test]
    fn a_remote_flight_port_needs_to_be_wanted_too() {
        let flight = FlightConfig::new("0.0.0.0:0".parse().expect("an address"));
        let error = flight.check(&QueryConfig::default()).expect_err("0.0.0.0 is not loopback");
        assert_eq!(error.key, "listen");
        let wanted = QueryConfig { allow_remote_clients: true, ..QueryConfig::default() };
        assert_eq!(flight.check(&wanted), Ok(()));
        assert!(FlightConfig { calls_max: 0, ..flight }.check(&wanted).is_err());
    }

    #[test]
    fn an_error_names_key_value_and_range() {
        let config = QueryConfig { batch_rows: 1, ..QueryConfig::default() };
        let error = config.check().expect_err("1 is below the range");
        assert_eq!(error.to_string(), "query configuration: batch_rows = 1 is not allowed; allowed is 64 to 1048576");
    }
}

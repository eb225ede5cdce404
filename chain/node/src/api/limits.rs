//! What is refused before it is looked at, and in which words: connections, rates, sizes and times.
//!
//! An address is an IPv4 address, or an IPv6 network of 64 bits, because whoever has one IPv6 address has that many.
//! Memory: one small entry for each address that has a connection or asked within the last seconds; at most
//! [`ADDRESSES_MAX`] addresses are told apart, those beyond share one allowance.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::{AddressLimits, ApiConfig},
    metrics::Metrics,
};

/// Addresses that are told apart at one time.
const ADDRESSES_MAX: usize = 16_384;

/// A limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Open connections of everybody.
    Connections { most: usize },
    /// Open connections of one address.
    AddressConnections { most: usize },
    /// Requests of one address.
    AddressRequests { per_second: u32, burst: u32, wait: Duration },
    /// Requests that wait.
    Waiting { most: usize },
    /// Bytes of a request's head.
    HeadBytes { most: usize },
    /// Time of a request's head.
    HeadTime { ms: u64 },
    /// Bytes of a request's body.
    BodyBytes { most: usize },
    /// Time of a request's body.
    BodyTime { ms: u64 },
    /// The client does not take its answer.
    AnswerTime,
    /// A TLS handshake that failed.
    Handshake,
    /// A request without TLS where TLS is expected.
    NotTls,
    /// HTTP/2, which is not spoken here.
    Http2,
}

impl Refused {
    /// The code in answers and metrics.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Connections { .. } => "connections",
            Self::AddressConnections { .. } => "address_connections",
            Self::AddressRequests { .. } => "address_requests",
            Self::Waiting { .. } => "waiting",
            Self::HeadBytes { .. } => "head_bytes",
            Self::HeadTime { .. } => "head_time",
            Self::BodyBytes { .. } => "too_large",
            Self::BodyTime { .. } => "body_time",
            Self::AnswerTime => "answer_time",
            Self::Handshake => "tls_handshake",
            Self::NotTls => "not_tls",
            Self::Http2 => "http2",
        }
    }

    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Connections { .. } | Self::Waiting { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::AddressConnections { .. } | Self::AddressRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadBytes { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyBytes { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTime { .. } | Self::BodyTime { .. } | Self::AnswerTime => StatusCode::REQUEST_TIMEOUT,
            Self::Handshake | Self::NotTls => StatusCode::BAD_REQUEST,
            Self::Http2 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// The limit, for people.
    pub(super) fn message(self) -> String {
        match self {
            Self::Connections { most } => format!("this node serves at most {most} connections at one time"),
            Self::AddressConnections { most } => format!("an address may have at most {most} connections open"),
            Self::AddressRequests { per_second, burst, .. } => {
                format!("an address may make {per_second} requests per second, {burst} at once")
            }
            Self::Waiting { most } => format!("at most {most} requests may wait at one time"),
            Self::HeadBytes { most } => format!("a request's head has at most {most} bytes"),
            Self::HeadTime { ms } => format!("a request's head must arrive within {ms} ms"),
            Self::BodyBytes { most } => format!("this body has at most {most} bytes"),
            Self::BodyTime { ms } => format!("a request's body must arrive within {ms} ms"),
            Self::AnswerTime => "the answer was not taken in time".into(),
            Self::Handshake => "the TLS handshake failed".into(),
            Self::NotTls => "this port speaks TLS: use https".into(),
            Self::Http2 => "this port speaks HTTP/1.1".into(),
        }
    }

    /// Seconds after which it is worth trying again.
    pub(super) fn retry_after(self) -> Option<u64> {
        match self {
            Self::AddressRequests { wait, .. } => Some(wait.as_secs() + 1),
            Self::Connections { .. } | Self::AddressConnections { .. } | Self::Waiting { .. } => Some(1),
            _ => None,
        }
    }

    /// The whole answer, for a connection on which nobody speaks HTTP yet or any more.
    pub(super) fn answer(self) -> Vec<u8> {
        let body = serde_json::json!({ "code": self.code(), "message": self.message() }).to_string();
        let retry = self.retry_after().map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let (status, length) = (self.status(), body.len());
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{retry}connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Who asks, for the limits: see the module's first lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    One(IpAddr),
    /// All that are beyond [`ADDRESSES_MAX`].
    Others,
}

impl Address {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments();
                Self::One(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            address => Self::One(address),
        }
    }

    fn is_loopback(self) -> bool {
        matches!(self, Self::One(address) if address.is_loopback())
    }
}

type Rates = DefaultKeyedRateLimiter<Address>;

/// The limits of a node's API, and who uses how much of them.
pub(super) struct Limits {
    config: ApiConfig,
    connections: Arc<Semaphore>,
    addresses: Mutex<HashMap<Address, usize>>,
    waiting: Arc<Semaphore>,
    remote: Rates,
    loopback: Rates,
    clock: DefaultClock,
}

/// A place among the open connections; given back when it is dropped.
pub(super) struct Place {
    limits: Arc<Limits>,
    address: Address,
    _permit: OwnedSemaphorePermit,
    metrics: Arc<crate::shared::Shared>,
}

impl Place {
    fn metrics(&self) -> &Metrics {
        &self.metrics.metrics
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.limits.lock();
        if let Some(open) = addresses.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&self.address);
            }
        }
        self.metrics().api_connections.dec();
    }
}

fn rates(limits: &AddressLimits) -> Rates {
    let at_least_one = |value: u32| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_second(at_least_one(limits.requests_per_second));
    Rates::keyed(quota.allow_burst(at_least_one(limits.requests_burst)))
}

impl Limits {
    pub(super) fn new(config: &ApiConfig) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(config.connections_max)),
            addresses: Mutex::new(HashMap::new()),
            waiting: Arc::new(Semaphore::new(config.waiting_max)),
            remote: rates(&config.remote),
            loopback: rates(&config.loopback),
            clock: DefaultClock::default(),
            config: config.clone(),
        }
    }

    pub(super) const fn config(&self) -> &ApiConfig {
        &self.config
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Address, usize>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn of(&self, loopback: bool) -> &AddressLimits {
        if loopback { &self.config.loopback } else { &self.config.remote }
    }

    /// A place for a new connection.
    pub(super) fn connect(
        self: &Arc<Self>,
        shared: &Arc<crate::shared::Shared>,
        address: IpAddr,
    ) -> Result<Place, Refused> {
        let address = Address::of(address);
        let permit = Arc::clone(&self.connections).try_acquire_owned();
        let permit = permit.map_err(|_| Refused::Connections { most: self.config.connections_max })?;
        // There are no more addresses in here than connections.
        let mut addresses = self.lock();
        let open = addresses.entry(address).or_default();
        let most = self.of(address.is_loopback()).connections_max;
        if *open >= most {
            return Err(Refused::AddressConnections { most });
        }
        *open += 1;
        drop(addresses);
        shared.metrics.api_connections.inc();
        Ok(Place { limits: Arc::clone(self), address, _permit: permit, metrics: Arc::clone(shared) })
    }

    /// Counts a request against its address' rate.
    pub(super) fn request(&self, address: IpAddr) -> Result<(), Refused> {
        let mut address = Address::of(address);
        let loopback = address.is_loopback();
        let rates = if loopback { &self.loopback } else { &self.remote };
        if rates.len() >= ADDRESSES_MAX {
            rates.retain_recent();
            if rates.len() >= ADDRESSES_MAX {
                address = Address::Others;
            }
        }
        rates.check_key(&address).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            let limits = self.of(loopback);
            Refused::AddressRequests { per_second: limits.requests_per_second, burst: limits.requests_burst, wait }
        })
    }

    /// A place among the requests that wait; given back when it is dropped.
    pub(super) fn wait(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let permit = Arc::clone(&self.waiting).try_acquire_owned();
        permit.map_err(|_| Refused::Waiting { most: self.config.waiting_max })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn limits(change: impl FnOnce(&mut ApiConfig)) -> Limits {
        let mut config = ApiConfig::default();
        change(&mut config);
        Limits::new(&config)
    }

    #[test]
    fn an_address_is_an_ipv4_address_or_an_ipv6_network() {
        let of = |text: &str| Address::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
        assert!(of("::1").is_loopback() && of("127.0.0.9").is_loopback() && !of("10.0.0.1").is_loopback());
    }

    #[test]
    fn each_address_has_its_own_rate_and_is_told_it() {
        let limits = limits(|config| (config.remote.requests_per_second, config.remote.requests_burst) = (1, 3));
        let ask = |text: &str| limits.request(text.parse().unwrap());
        for _ in 0..3 {
            ask("10.0.0.1").unwrap();
        }
        let refused = ask("10.0.0.1").unwrap_err();
        assert!(matches!(refused, Refused::AddressRequests { per_second: 1, burst: 3, .. }), "{refused:?}");
        assert_eq!((refused.status().as_u16(), refused.retry_after()), (429, Some(1)));
        ask("10.0.0.2").unwrap();
        ask("127.0.0.1").unwrap();
    }

    #[test]
    fn addresses_beyond_the_bound_share_one_allowance() {
        let limits = limits(|config| (config.remote.requests_per_second, config.remote.requests_burst) = (1, 1));
        let ask = |at: u32| limits.request(Ipv4Addr::from_bits(0x0a00_0000 + at).into());
        for at in 0..ADDRESSES_MAX as u32 {
            ask(at).unwrap();
        }
        let beyond = (0..3_u32).filter(|at| ask(0x0010_0000 + at).is_ok()).count();
        assert!(beyond <= 1 || limits.remote.len() < ADDRESSES_MAX, "only those that had been quiet made room");
        assert!(limits.remote.len() <= ADDRESSES_MAX + 1);
    }

    #[test]
    fn answers_are_whole_and_say_the_limit() {
        let text = String::from_utf8(Refused::AddressConnections { most: 7 }.answer()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{head}");
        assert!(head.contains("retry-after: 1") && head.contains(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "address_connections");
        assert!(body["message"].as_str().unwrap().contains('7'));
    }
}

//! The two clocks: the runtime's (real, or simulated in tests) for consensus, the system's for the HTTP API.

use std::time::{SystemTime, UNIX_EPOCH};

use commonware_runtime::Clock;

fn since_epoch(time: SystemTime) -> u64 {
    let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970 by the runtime's clock.
pub(crate) fn milliseconds(clock: &impl Clock) -> u64 {
    since_epoch(clock.current())
}

/// Milliseconds since 1970 by the system's clock.
pub(crate) fn system_milliseconds() -> u64 {
    since_epoch(SystemTime::now())
}

//! Network addresses of validators as text: what may stand in a genesis and in a vote.
//!
//! `ip:port`, with an IPv6 address in brackets, or `name:port` with a host name (RFC 1123, section 2.1). This module
//! resolves nothing and connects to nothing.

use std::net::SocketAddr;

/// No address is longer, in bytes: a name of 253, a colon, a port of 5.
pub const ADDRESS_BYTES_MAX: usize = 259;
/// What an address may be, for error messages.
pub const ADDRESS_RULE: &str = "ip:port or host:port, the port 1 to 65535, the host of a–z, A–Z, 0–9, '-' and '.'";

/// Whether `text` is an address of the form above.
///
/// ```
/// use cairn_proof::address::is_address;
/// assert!(is_address("validator-1:7000") && is_address("[::1]:7000"));
/// assert!(!is_address("validator-1") && !is_address("validator-1:0"));
/// ```
#[must_use]
pub fn is_address(text: &str) -> bool {
    if text.len() > ADDRESS_BYTES_MAX {
        return false;
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return socket.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    plain && port.parse::<u16>().is_ok() && is_host_name(host)
}

fn is_host_name(host: &str) -> bool {
    let letters = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && letters(label) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_an_ip_or_a_name_with_a_port() {
        let longest = format!("{}.{}.{}.{}:65535", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        for good in ["127.0.0.1:7000", "[::1]:7000", "validator-1:1", "v1.city.example:65535", &longest] {
            assert!(is_address(good), "{good}");
        }
        let long_label = format!("{}:1", "a".repeat(64));
        for bad in [
            "",
            ":1",
            "host",
            "host:0",
            "host:00",
            "host:01",
            "host:+1",
            "host:65536",
            "127.0.0.1:0",
            "::1:7000",
            "bad_name:1",
            "a..b:1",
            "-a:1",
            "a-:1",
            "a b:1",
            "é:1",
            "host:1 ",
            " host:1",
            &long_label,
            &format!("x{longest}"),
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}

//! Where a validator is reached: an IP address, or a host name that is looked up at every dial.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use commonware_p2p::{Address, Ingress};
use commonware_utils::Hostname;

/// A checked `host:port` or `ip:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerAddress {
    /// A literal IP address.
    Socket(SocketAddr),
    /// A name, as in a container network.
    Host(Hostname, u16),
}

impl PeerAddress {
    /// Reads `text`.
    ///
    /// # Errors
    /// The text itself, when it is no address.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return if socket.port() == 0 { Err(text.to_owned()) } else { Ok(Self::Socket(socket)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| text.to_owned())?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| text.to_owned())?;
        let host = Hostname::new(host).map_err(|_| text.to_owned())?;
        Ok(Self::Host(host, port))
    }
}

impl From<PeerAddress> for Address {
    fn from(address: PeerAddress) -> Self {
        match address {
            PeerAddress::Socket(socket) => Self::Symmetric(socket),
            // The source address of a named host is not known beforehand; the handshake proves the key anyway.
            PeerAddress::Host(host, port) => Self::Asymmetric {
                ingress: Ingress::Dns { host, port },
                egress: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ip_or_name_with_a_port() {
        assert!(matches!(PeerAddress::parse("127.0.0.1:7000"), Ok(PeerAddress::Socket(_))));
        assert!(matches!(PeerAddress::parse("[::1]:7000"), Ok(PeerAddress::Socket(_))));
        assert!(matches!(PeerAddress::parse("validator-1:7000"), Ok(PeerAddress::Host(_, 7000))));
        for bad in ["", "host", "host:0", "host:99999", "127.0.0.1:0", "bad_name:1", ":1"] {
            assert_eq!(PeerAddress::parse(bad), Err(bad.to_owned()), "{bad}");
        }
    }
}

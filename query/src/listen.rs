//! Listening on a port, for the wires that do.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::engine::StartError;

/// How long to wait between two attempts to listen.
pub(crate) const BIND_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen, and what to say if that is not possible.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listening {
    pub(crate) addr: SocketAddr,
    /// Who is served.
    pub(crate) clients: &'static str,
    /// The key of the configuration that holds the address.
    pub(crate) key: &'static str,
    /// How long to try again if the port is in use, in milliseconds.
    pub(crate) retry_ms: u64,
}

/// Listens, trying again for a while if the port is in use: the last owner may be on its way out.
pub(crate) async fn listen(wanted: Listening) -> Result<(TcpListener, SocketAddr), StartError> {
    let Listening { addr, clients, key, retry_ms } = wanted;
    let patience = Instant::now() + Duration::from_millis(retry_ms);
    loop {
        let bound = TcpListener::bind(addr).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((addr, listener)) => return Ok((listener, addr)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < patience => {
                tokio::time::sleep(BIND_PAUSE).await;
            }
            Err(source) => {
                let advice = match source.kind() {
                    io::ErrorKind::AddrInUse => format!(
                        "port {} is in use: stop the process that has it, or set another port under {key}",
                        addr.port()
                    ),
                    io::ErrorKind::PermissionDenied => {
                        format!("ports below 1024 need special rights: set another one under {key}")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        format!("this machine has no such address: set another one under {key}")
                    }
                    _ => format!("set another address under {key}"),
                };
                return Err(StartError::Listen { clients, addr, source, advice });
            }
        }
    }
}

//! A connection's bytes: plain or under TLS, ended from here when its time to begin is over or the port stops.
//!
//! What HTTP/2 bounds itself (frames, headers, streams, windows) is set where the server is built; this only sees to
//! clients that connect and then say nothing, or nothing that lets them in.

use std::fmt;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::sessions::Connection;
use crate::metrics::{ConnectionCount, Wire};

/// How long a client may take until a call of it is let in.
pub(super) const STARTUP_PATIENCE: Duration = Duration::from_secs(30);

/// What a client is connected by.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One client's socket.
pub(super) struct FlightSocket {
    io: Box<dyn Io>,
    connection: Arc<Connection>,
    patience: Pin<Box<Sleep>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
    _count: Option<ConnectionCount>,
}

impl fmt::Debug for FlightSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FlightSocket").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl FlightSocket {
    pub(super) fn new(
        io: Box<dyn Io>,
        connection: Connection,
        permit: OwnedSemaphorePermit,
        count: Option<ConnectionCount>,
    ) -> Self {
        let closed = Box::pin(connection.close.clone().cancelled_owned());
        let patience = Box::pin(tokio::time::sleep(STARTUP_PATIENCE));
        Self { io, connection: Arc::new(connection), patience, closed, _permit: permit, _count: count }
    }

    /// Fails when the connection is to end.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.closed.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let begun = self.connection.begun.load(Ordering::Relaxed);
        if !begun && self.patience.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Drop for FlightSocket {
    fn drop(&mut self) {
        if !self.connection.begun.load(Ordering::Relaxed) && !self.connection.full {
            // Whatever it was, it was no call that anybody was let in by.
            self.connection.engine.metrics().could_not_read(Wire::Flight);
        }
    }
}

impl Connected for FlightSocket {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(&self.connection)
    }
}

impl AsyncRead for FlightSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for FlightSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

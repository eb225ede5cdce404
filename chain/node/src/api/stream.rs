//! Bytes of a connection, plain or within TLS. The handshake is done by whoever first reads or writes, so that a slow
//! one delays nobody else's connection.
//!
//! ```text
//! plain port: Plain          TLS port: Sniffed ──first byte 0x16──▶ Handshake ──▶ Tls
//!                                          └── another: NotTls, told in plain words
//! ```

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use super::limits::Refused;

/// The first byte of a TLS record that holds a handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// A connection's bytes.
pub(super) enum Stream {
    Plain(TcpStream),
    Sniffed(TcpStream, TlsAcceptor),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    Closed,
}

impl Stream {
    /// A connection that was just accepted.
    pub(super) fn new(stream: TcpStream, tls: Option<&TlsAcceptor>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(acceptor) => Self::Sniffed(stream, acceptor.clone()),
        }
    }

    /// What an answer can be written to, even if the handshake was not done.
    pub(super) fn release(&mut self) -> Self {
        match std::mem::replace(self, Self::Closed) {
            Self::Sniffed(stream, _) => Self::Plain(stream),
            other => other,
        }
    }

    /// Goes on with the handshake, if there is one to do.
    pub(super) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Self::Sniffed(stream, _) = self {
            let mut first = [0];
            let mut peeked = ReadBuf::new(&mut first);
            let read = ready!(stream.poll_peek(context, &mut peeked)).map_err(Failure::Io)?;
            if read == 0 {
                return Poll::Ready(Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())));
            }
            if first != [HANDSHAKE_RECORD] {
                return Poll::Ready(Err(Failure::Refused(Refused::NotTls)));
            }
            if let Self::Sniffed(stream, acceptor) = std::mem::replace(self, Self::Closed) {
                *self = Self::Handshake(Box::new(acceptor.accept(stream)));
            }
        }
        if let Self::Handshake(accept) = self {
            match ready!(Pin::new(accept.as_mut()).poll(context)) {
                Ok(stream) => *self = Self::Tls(Box::new(stream)),
                Err(_) => {
                    *self = Self::Closed;
                    return Poll::Ready(Err(Failure::Refused(Refused::Handshake)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Why a connection cannot be spoken on.
pub(super) enum Failure {
    Io(io::Error),
    Refused(Refused),
}

fn closed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

/// Once [`Stream::poll_ready`] was ready.
impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buf),
            _ => closed(),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, buf),
            _ => closed(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, bufs),
            _ => closed(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            // Nothing was written yet.
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            _ => Poll::Ready(Ok(())),
        }
    }
}

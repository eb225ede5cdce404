//! One connection: its messages, in order, each no longer than allowed.
//!
//! The loop is that of `pgwire::tokio::process_socket`, over a socket that knows where messages begin and
//! end: pgwire alone would hold up to 1 GiB of a message before it looks at it. A message that says it is longer than
//! `message_bytes_max` ends the connection before its body is read.
//!
//! While a statement runs nobody reads the socket, so a client that is gone would not be noticed until rows are sent. The
//! connection therefore looks, a few times a second, whether the peer has closed its end; if so, the statement is dropped,
//! which stops it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use datafusion_postgres::pgwire::api::{ClientInfo, DefaultClient, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use datafusion_postgres::pgwire::messages::response::{GssEncResponse, SslResponse};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage, SslNegotiationMetaMessage};
use datafusion_postgres::pgwire::tokio::server::{PgWireMessageServerCodec, process_error, process_message};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::codec::Framed;

use super::errors;
use super::handlers::{Handlers, Prepared};
use crate::auth;
use crate::error::{QueryError, SqlState};
use crate::metrics::Wire;
use crate::session::Session;

/// How long a client may take to say who it is.
const STARTUP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a message may be before the session has begun.
const STARTUP_BYTES_MAX: usize = 10_000;

/// How often to look whether the client of a running statement is still there.
const GONE_CHECK_PAUSE: Duration = Duration::from_millis(250);

type Socket = Framed<BoundedSocket, PgWireMessageServerCodec<Prepared>>;

/// Serves one client until it leaves.
pub(super) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    handlers: Handlers,
    tls: Option<TlsAcceptor>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // The same socket under a second descriptor, to be watched while the first is read and written.
    let socket = socket.into_std()?;
    let watched = TcpStream::from_std(socket.try_clone()?)?;
    let plain = BoundedSocket::new(Stream::Plain(TcpStream::from_std(socket)?));
    let mut socket = Framed::new(plain, PgWireMessageServerCodec::new(DefaultClient::new(peer, false)));
    let message_bytes_max = handlers.startup.engine.config().message_bytes_max;
    let patience = tokio::time::sleep(STARTUP_PATIENCE);
    tokio::pin!(patience);
    loop {
        let beginning = is_beginning(&socket);
        if !beginning {
            socket.get_mut().frames.most = message_bytes_max;
        }
        let session = socket.session_extensions().get::<Session>();
        let message = tokio::select! {
            () = &mut patience, if beginning => return Ok(()),
            error = revoked(session.as_deref(), &handlers) => return dismiss(&mut socket, error).await,
            message = socket.next() => message,
        };
        match message {
            None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Some(Err(error)) => {
                handlers.startup.engine.metrics().could_not_read(Wire::Postgres);
                return give_up(&mut socket, error.into()).await;
            }
            Some(Ok(PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::PostgresSsl(_))))
                if tls.is_some() && !socket.is_secure() =>
            {
                let encrypted = tokio::time::timeout(STARTUP_PATIENCE, encrypt(socket, peer, tls.as_ref()));
                socket = encrypted.await??;
            }
            Some(Ok(PgWireFrontendMessage::SslNegotiation(asked))) => negotiate(&mut socket, asked).await?,
            Some(Ok(message)) => {
                let ended = tokio::select! {
                    biased;
                    answered = answer(&mut socket, message, &handlers) => Ended::Answered(answered),
                    () = gone(&watched) => Ended::Gone,
                    error = revoked(session.as_deref(), &handlers) => Ended::Revoked(error),
                };
                match ended {
                    Ended::Answered(answered) => answered?,
                    Ended::Gone => return Err(io::ErrorKind::ConnectionAborted.into()),
                    Ended::Revoked(error) => return dismiss(&mut socket, error).await,
                }
            }
        }
    }
}

/// How the answer to a message ended.
enum Ended {
    Answered(io::Result<()>),
    Gone,
    Revoked(QueryError),
}

/// Ends when the identity of a session is no longer good, and never for one that speaks for nobody.
async fn revoked(session: Option<&Session>, handlers: &Handlers) -> QueryError {
    match session.and_then(Session::principal) {
        Some(principal) => auth::watch(&handlers.startup.engine, principal).await,
        None => std::future::pending().await,
    }
}

/// Tells the client why its session ends.
async fn dismiss(socket: &mut Socket, error: QueryError) -> io::Result<()> {
    let text = error.message.clone();
    process_error(socket, errors::fatal(error), false).await?;
    Err(io::Error::other(text))
}

/// Goes on with the connection under TLS.
async fn encrypt(mut socket: Socket, peer: SocketAddr, tls: Option<&TlsAcceptor>) -> io::Result<Socket> {
    socket.send(PgWireBackendMessage::SslResponse(SslResponse::Accept)).await?;
    let parts = socket.into_parts();
    let (Stream::Plain(plain), Some(tls)) = (parts.io.socket, tls) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    if !parts.read_buf.is_empty() {
        // Sent before the handshake, so by whoever stands in between: it must not count as said under TLS.
        return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes came before the TLS handshake"));
    }
    let encrypted = BoundedSocket::new(Stream::Tls(Box::new(tls.accept(plain).await?)));
    let mut socket = Framed::new(encrypted, PgWireMessageServerCodec::new(DefaultClient::new(peer, true)));
    socket.set_state(PgWireConnectionState::AwaitingStartup);
    Ok(socket)
}

fn is_beginning(socket: &Socket) -> bool {
    matches!(
        socket.state(),
        PgWireConnectionState::AwaitingSslRequest
            | PgWireConnectionState::AwaitingStartup
            | PgWireConnectionState::AuthenticationInProgress
    )
}

/// Waits until the peer has closed its end, whether what it sent before was read or not.
async fn gone(socket: &TcpStream) {
    loop {
        tokio::time::sleep(GONE_CHECK_PAUSE).await;
        match socket.ready(Interest::READABLE).now_or_never() {
            Some(Ok(ready)) if ready.is_read_closed() => return,
            Some(Err(_)) => return,
            Some(Ok(_)) | None => {}
        }
    }
}

/// Declines encryption (where there is none to be had); the client may go on without it.
async fn negotiate(socket: &mut Socket, asked: SslNegotiationMetaMessage) -> io::Result<()> {
    match asked {
        SslNegotiationMetaMessage::PostgresSsl(_) => {
            socket.send(PgWireBackendMessage::SslResponse(SslResponse::Refuse)).await
        }
        SslNegotiationMetaMessage::PostgresGss(_) => {
            socket.send(PgWireBackendMessage::GssEncResponse(GssEncResponse::Refuse)).await
        }
        SslNegotiationMetaMessage::None => {
            socket.set_state(PgWireConnectionState::AwaitingStartup);
            Ok(())
        }
    }
}

async fn answer(socket: &mut Socket, message: PgWireFrontendMessage, handlers: &Handlers) -> io::Result<()> {
    let extended = message.is_extended_query();
    let processed = process_message(
        message,
        socket,
        Arc::clone(&handlers.startup),
        Arc::clone(&handlers.queries),
        Arc::clone(&handlers.queries),
        Arc::new(NoopHandler),
        Arc::clone(&handlers.startup.cancels),
    )
    .await;
    let Err(error) = processed else {
        return Ok(());
    };
    let error = ErrorInfo::from(error);
    let last = error.is_fatal();
    let text = error.message.clone();
    process_error(socket, PgWireError::UserError(Box::new(error)), extended).await?;
    if last { Err(io::Error::other(text)) } else { Ok(()) }
}

/// Tells the client why the connection ends, if it still listens.
async fn give_up(socket: &mut Socket, error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::InvalidData {
        let refused = QueryError::limit(SqlState::PROGRAM_LIMIT, error.to_string());
        process_error(socket, errors::fatal(refused), false).await?;
    }
    Err(error)
}

/// What a client is connected by.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket whose peer cannot send a message longer than allowed, and before its session has begun only short ones.
struct BoundedSocket {
    socket: Stream,
    frames: Frames,
}

impl BoundedSocket {
    fn new(socket: Stream) -> Self {
        Self { socket, frames: Frames::new(STARTUP_BYTES_MAX) }
    }
}

impl AsyncRead for BoundedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(match &mut self.socket {
            Stream::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Stream::Tls(socket) => Pin::new(socket).poll_read(context, buffer),
        })?;
        self.frames.check(&buffer.filled()[before..])?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BoundedSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Stream::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Stream::Tls(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(context),
            Stream::Tls(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Stream::Tls(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

/// Follows the lengths of messages in a stream of bytes.
///
/// ```text
/// before the session: length u32 BE (with itself), code u32 BE, body    SSL and GSS requests, cancel, startup
/// in the session:     type u8, length u32 BE (with itself, without type), body
/// ```
struct Frames {
    most: usize,
    begun: bool,
    header: [u8; 8],
    have: usize,
    body_left: usize,
}

impl Frames {
    /// Requests for encryption, which the startup message still follows (PostgreSQL protocol 3.0, section "Message Formats").
    const NEGOTIATIONS: [u32; 2] = [80_877_103, 80_877_104];

    fn new(most: usize) -> Self {
        Self { most, begun: false, header: [0; 8], have: 0, body_left: 0 }
    }

    fn check(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let skipped = self.body_left.min(bytes.len());
                self.body_left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = if self.begun { 5 } else { 8 };
            let taken = (wanted - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == wanted {
                self.have = 0;
                self.body_left = self.begin_message()?;
            }
        }
        Ok(())
    }

    /// The bytes that follow the header that is complete now.
    fn begin_message(&mut self) -> io::Result<usize> {
        let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        let (length, counted, most) = if self.begun {
            (number(&self.header[1..5]), 4, self.most)
        } else {
            let code = number(&self.header[4..8]);
            self.begun = !Self::NEGOTIATIONS.iter().any(|negotiation| *negotiation as usize == code);
            (number(&self.header[..4]), 8, STARTUP_BYTES_MAX)
        };
        if length > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message of {length} bytes was announced; at most {most} are read"),
            ));
        }
        length
            .checked_sub(counted)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("a message cannot have {length} bytes")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup() -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 8];
        bytes.extend(80_877_103_u32.to_be_bytes());
        bytes.extend([0, 0, 0, 13, 0, 3, 0, 0]);
        bytes.extend(b"user\0");
        bytes
    }

    fn message(kind: u8, length: u32) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(length.to_be_bytes());
        bytes
    }

    #[test]
    fn lengths_are_followed_however_bytes_are_cut() {
        let mut stream = startup();
        for body in [0_u32, 1, 7, 300] {
            stream.extend(message(b'Q', body + 4));
            stream.extend(std::iter::repeat_n(0xff, body as usize));
        }
        for cut in 1..20 {
            let mut frames = Frames::new(304);
            for piece in stream.chunks(cut) {
                frames.check(piece).unwrap();
            }
            assert_eq!((frames.have, frames.body_left), (0, 0), "pieces of {cut}");
        }
    }

    #[test]
    fn a_long_message_is_refused_by_its_header() {
        let mut frames = Frames::new(100);
        frames.check(&startup()).unwrap();
        frames.check(&message(b'Q', 100)).unwrap();
        frames.check(&[0; 96]).unwrap();
        let error = frames.check(&message(b'Q', 101)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(Frames::new(100).check(&[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0]).is_err());
        assert!(Frames::new(100).check(&[0, 0, 0, 4, 0, 3, 0, 0]).is_err());
    }
}

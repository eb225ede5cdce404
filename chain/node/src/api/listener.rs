//! A listener that keeps the number of connections within bounds, and closes those on which nothing moves.
//!
//! What a connection is waited for depends on where it stands. The middleware ([`Connection::progress`]) says when a
//! request's head is complete and when it is answered; the rest is seen from the bytes.
//!
//! ```text
//! Waiting ──first byte──▶ Head ──head complete──▶ Working ──answered and written──▶ Waiting …
//!  idle_ms_max             head_ms_max             by the handler (body_ms_max, wait_ms_max)
//!                          head_bytes_max          writes that block: answer_ms_max
//! ```

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::{
    limits::{Limits, Place, Refused},
    stream::{Failure, Stream},
};
use crate::shared::Shared;

/// Pause after the system refuses a connection (no descriptors left).
const PAUSE: Duration = Duration::from_millis(50);

/// Connections beyond the bound that are told so, at one time; others are closed without a word.
const FAREWELLS_MAX: usize = 64;

/// How long one of them may take to read it. Closing at once would discard what it has not read yet.
const FAREWELL: Duration = Duration::from_millis(500);

/// Bytes that are read, and ignored, from one of them meanwhile.
const FAREWELL_BYTES_MAX: u64 = 1 << 20;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4), as far as no HTTP/1 request does.
const HTTP2_PREFACE: &[u8] = b"PRI";

/// Accepts a bounded number of connections at a time; others are told so and closed.
pub(super) struct Bounded {
    listener: TcpListener,
    context: Arc<ListenerContext>,
}

struct ListenerContext {
    limits: Arc<Limits>,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    farewells: Arc<Semaphore>,
}

impl ListenerContext {
    /// Tells a client why its connection is closed, if it has a place, which it keeps meanwhile, or there is room.
    fn farewell(&self, mut stream: Stream, refused: Refused, place: Option<Place>) {
        self.shared.metrics.refused_api(refused.code());
        // Who has a place is counted already.
        let permit = Arc::clone(&self.farewells).try_acquire_owned().ok();
        if permit.is_none() && place.is_none() {
            return;
        }
        tokio::spawn(async move {
            let telling = async {
                stream.write_all(&refused.answer()).await?;
                stream.shutdown().await?;
                let mut rest = stream.take(FAREWELL_BYTES_MAX);
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
            };
            // It was refused; whether it learns why is its own affair.
            let _ = timeout(FAREWELL, telling).await;
            drop((permit, place));
        });
    }
}

impl Bounded {
    pub(super) fn new(
        listener: TcpListener,
        limits: Arc<Limits>,
        shared: Arc<Shared>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let farewells = Arc::new(Semaphore::new(FAREWELLS_MAX));
        Self { listener, context: Arc::new(ListenerContext { limits, shared, tls, farewells }) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Without it answers are only slower.
                    let _ = stream.set_nodelay(true);
                    let context = &self.context;
                    match context.limits.connect(&context.shared, address.ip()) {
                        Ok(place) => {
                            let stream = Stream::new(stream, context.tls.as_ref());
                            return (Connection::new(stream, Arc::clone(context), place), address);
                        }
                        // Within TLS a word would cost a handshake.
                        Err(refused) if context.tls.is_some() => context.shared.metrics.refused_api(refused.code()),
                        Err(refused) => context.farewell(Stream::Plain(stream), refused, None),
                    }
                }
                Err(error) => {
                    debug!(%error, "connection not accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

const WAITING: u8 = 0;
const HEAD: u8 = 1;
const WORKING: u8 = 2;
const ANSWERED: u8 = 3;

/// Where a connection stands; shared with the requests that come on it.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

impl Progress {
    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    /// A request's head is complete.
    pub(super) fn working(&self) {
        self.set(WORKING);
    }

    /// The answer is there, to be written.
    pub(super) fn answered(&self) {
        self.set(ANSWERED);
    }
}

/// Who sent a request.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) progress: Progress,
}

impl Connected<IncomingStream<'_, Bounded>> for Client {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self { address: *stream.remote_addr(), progress: stream.io().progress.clone() }
    }
}

/// A connection that fails when it keeps the node waiting.
pub(super) struct Connection {
    stream: Stream,
    context: Arc<ListenerContext>,
    place: Option<Place>,
    progress: Progress,
    /// The stage that `reading` is set for, and when the connection is closed if it stays there.
    stage: u8,
    reading: Pin<Box<Sleep>>,
    /// Since when a write has been waiting for the client.
    writing: Option<Pin<Box<Sleep>>>,
    /// Bytes of this request's head so far, and how many of them are an HTTP/2 preface's.
    head: usize,
    preface: usize,
    /// Whether a head that is no HTTP was counted.
    malformed: bool,
}

impl Connection {
    fn new(stream: Stream, context: Arc<ListenerContext>, place: Place) -> Self {
        // Whoever connects is about to ask.
        let config = context.limits.config();
        let reading = Box::pin(sleep(Duration::from_millis(config.head_ms_max.min(config.idle_ms_max))));
        let progress = Progress::default();
        Self {
            stream,
            context,
            place: Some(place),
            progress,
            stage: WAITING,
            reading,
            writing: None,
            head: 0,
            preface: 0,
            malformed: false,
        }
    }

    /// Sets the clock for the stage that the connection is in now.
    fn stage(&mut self) -> u8 {
        let stage = self.progress.get();
        if stage != self.stage {
            let config = self.context.limits.config();
            let most = match stage {
                WAITING => config.idle_ms_max,
                _ => config.head_ms_max,
            };
            self.reading.as_mut().reset(Instant::now() + Duration::from_millis(most));
            if stage != HEAD {
                (self.head, self.preface) = (0, 0);
            }
            self.stage = stage;
        }
        stage
    }

    /// Closes the connection, and says why if somebody may be listening.
    fn refuse<T>(&mut self, refused: Refused) -> Poll<io::Result<T>> {
        let stream = self.stream.release();
        self.context.farewell(stream, refused, self.place.take());
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stream.poll_ready(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Failure::Io(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Err(Failure::Refused(refused))) => self.refuse(refused),
            Poll::Pending => {
                ready!(self.reading.as_mut().poll(context));
                self.refuse(Refused::Handshake)
            }
        }
    }

    /// Reads a part of a head, within its bounds.
    fn poll_head(&mut self, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let config = self.context.limits.config();
        let (bytes_max, ms) = (config.head_bytes_max, config.head_ms_max);
        let room = bytes_max.saturating_sub(self.head).min(buf.remaining());
        if room == 0 {
            return self.refuse(Refused::HeadBytes { most: bytes_max });
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        match Pin::new(&mut self.stream).poll_read(context, &mut part) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.reading.as_mut().poll(context));
                if self.stage == HEAD {
                    return self.refuse(Refused::HeadTime { ms });
                }
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let read = part.filled();
        let preface =
            HTTP2_PREFACE.iter().skip(self.preface).zip(read).take_while(|(want, found)| want == found).count();
        if self.head == self.preface {
            self.preface += preface;
        }
        let read = read.len();
        self.head += read;
        if self.preface == HTTP2_PREFACE.len() {
            return self.refuse(Refused::Http2);
        }
        if read > 0 && self.stage == WAITING {
            self.progress.set(HEAD);
            self.stage = HEAD;
            self.reading.as_mut().reset(Instant::now() + Duration::from_millis(ms));
        }
        buf.advance(read);
        Poll::Ready(Ok(()))
    }

    /// Before a write: whoever answers before a head is complete has found that it is none.
    fn poll_before_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(context))?;
        if matches!(self.progress.get(), WAITING | HEAD) && !self.malformed {
            self.malformed = true;
            self.context.shared.metrics.refused_api("malformed_head");
        }
        Poll::Ready(Ok(()))
    }

    /// `progress` of a write, unless the client has let it wait for too long.
    fn within<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            return progress;
        }
        let most = Duration::from_millis(self.context.limits.config().answer_ms_max);
        let writing = self.writing.get_or_insert_with(|| Box::pin(sleep(most)));
        ready!(writing.as_mut().poll(context));
        // Nobody reads what would be said.
        self.context.shared.metrics.refused_api(Refused::AnswerTime.code());
        self.stream = Stream::Closed;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stage = self.stage();
        ready!(self.poll_ready(context))?;
        match stage {
            WAITING | HEAD => self.poll_head(context, buf),
            // The handler has a clock of its own.
            _ => Pin::new(&mut self.stream).poll_read(context, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_before_write(context))?;
        let progress = Pin::new(&mut self.stream).poll_write(context, buf);
        self.within(context, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before_write(context))?;
        let progress = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.within(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.writing = None;
            if self.progress.get() == ANSWERED {
                self.progress.set(WAITING);
                // The clock starts anew.
                self.stage = ANSWERED;
            }
        }
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(context, progress)
    }
}

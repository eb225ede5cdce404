//! The computer that one validator runs on: the simulated runtime, with a disk that can fail and tasks that can panic.
//!
//! It stands between a validator and the runtime that all of them share, so that what goes wrong is known to be that
//! validator's. A panic in any of its tasks ends the validator, as it ends the process of a real one; what it had not
//! synchronised to its disk is lost then, because each opening of a file reads what is durable.
//!
//! A disk that fails does so at one operation, counted from when the failure was ordered: the operation has no effect and
//! returns an error, and so does every later one, until the validator is started again.

use std::{
    any::Any,
    future::{Future, pending},
    io,
    ops::RangeInclusive,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use commonware_runtime::{
    Blob, BlobVersion, Clock, Error, Handle, IoBufs, IoBufsMut, Metrics, Name, Network, ReadOptions, SinkOf, Spawner,
    Storage, StreamOf, Supervisor, WriteOptions, deterministic,
    signal::Signal,
    telemetry::metrics::{Metric, Registered},
};
use futures::FutureExt as _;
use rand_core::{TryCryptoRng, TryRng};

type Context = deterministic::Context;
type Inner = <Context as Storage>::Blob;

/// Why a validator ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its disk had failed.
    Disk,
    /// It gave up by itself: always a fault of ours.
    Gave(String),
}

/// What is known of one computer; shared by all its tasks.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Operations until the disk fails.
    fails_in: Option<u64>,
    disk_failed: bool,
    end: Option<End>,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk fails at the operation that comes after so many others.
    pub(crate) fn fail_disk_after(&self, operations: u64) {
        self.state().fails_in = Some(operations);
    }

    /// The disk does not fail after all, if it has not yet.
    pub(crate) fn repair_disk(&self) {
        self.state().fails_in = None;
    }

    /// Why the validator ended, if it did.
    pub(crate) fn end(&self) -> Option<End> {
        self.state().end.clone()
    }

    /// The validator has ended because of this.
    pub(crate) fn ended(&self, why: String) {
        let mut state = self.state();
        let end = if state.disk_failed { End::Disk } else { End::Gave(why) };
        // The first is the cause; what follows from it is not of interest.
        state.end.get_or_insert(end);
    }

    /// Counts an operation of the disk.
    fn operate(&self) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(left) = state.fails_in {
            state.fails_in = left.checked_sub(1);
            state.disk_failed |= left == 0;
        }
        if state.disk_failed { Err(io::Error::other("the simulated disk has failed").into()) } else { Ok(()) }
    }
}

/// The runtime as one validator sees it.
pub(crate) struct Machine {
    inner: Context,
    health: Health,
}

impl Machine {
    pub(crate) const fn new(inner: Context, health: Health) -> Self {
        Self { inner, health }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}

impl Supervisor for Machine {
    fn name(&self) -> Name {
        self.inner.name()
    }

    fn child(&self, label: &'static str) -> Self {
        Self { inner: self.inner.child(label), health: self.health.clone() }
    }

    fn with_attribute(self, key: &'static str, value: impl std::fmt::Display) -> Self {
        Self { inner: self.inner.with_attribute(key, value), health: self.health }
    }
}

impl Spawner for Machine {
    fn shared(self, blocking: bool) -> Self {
        Self { inner: self.inner.shared(blocking), health: self.health }
    }

    fn dedicated(self) -> Self {
        Self { inner: self.inner.dedicated(), health: self.health }
    }

    fn spawn<F, Fut, T>(self, f: F) -> Handle<T>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let health = self.health;
        self.inner.spawn(move |inner| async move {
            let machine = Self { inner, health: health.clone() };
            match AssertUnwindSafe(f(machine)).catch_unwind().await {
                Ok(output) => output,
                Err(panic) => {
                    health.ended(text_of(&*panic));
                    pending().await
                }
            }
        })
    }

    async fn stop(self, value: i32, timeout: Option<Duration>) -> Result<(), Error> {
        self.inner.stop(value, timeout).await
    }

    fn stopped(&self) -> Signal {
        self.inner.stopped()
    }
}

impl Metrics for Machine {
    fn register<N: Into<String>, H: Into<String>, M: Metric>(&self, name: N, help: H, metric: M) -> Registered<M> {
        self.inner.register(name, help, metric)
    }

    fn encode(&self) -> String {
        self.inner.encode()
    }
}

impl governor::clock::Clock for Machine {
    type Instant = SystemTime;

    fn now(&self) -> SystemTime {
        self.inner.current()
    }
}

impl governor::clock::ReasonablyRealtime for Machine {}

impl Clock for Machine {
    fn current(&self) -> SystemTime {
        self.inner.current()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.inner.sleep(duration)
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.inner.sleep_until(deadline)
    }
}

impl TryRng for Machine {
    type Error = <Context as TryRng>::Error;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.inner.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.inner.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.inner.try_fill_bytes(bytes)
    }
}

impl TryCryptoRng for Machine {}

impl Network for Machine {
    type Listener = <Context as Network>::Listener;

    async fn bind(&self, socket: std::net::SocketAddr) -> Result<Self::Listener, Error> {
        self.inner.bind(socket).await
    }

    async fn dial(&self, socket: std::net::SocketAddr) -> Result<(SinkOf<Self>, StreamOf<Self>), Error> {
        self.inner.dial(socket).await
    }
}

impl Storage for Machine {
    type Blob = File;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(File, u64, BlobVersion), Error> {
        self.health.operate()?;
        let (inner, size, version) = self.inner.open_versioned(partition, name, versions).await?;
        Ok((File { inner, health: self.health.clone() }, size, version))
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.health.operate()?;
        self.inner.remove(partition, name).await
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.health.operate()?;
        self.inner.scan(partition).await
    }
}

/// A file on the computer's disk.
pub(crate) struct File {
    inner: Inner,
    health: Health,
}

impl Blob for File {
    async fn read_at_buf(
        &self,
        offset: u64,
        length: usize,
        bufs: impl Into<IoBufsMut> + Send,
        options: ReadOptions,
    ) -> Result<IoBufsMut, Error> {
        self.health.operate()?;
        self.inner.read_at_buf(offset, length, bufs, options).await
    }

    async fn read_at(&self, offset: u64, length: usize, options: ReadOptions) -> Result<IoBufsMut, Error> {
        self.health.operate()?;
        self.inner.read_at(offset, length, options).await
    }

    async fn write_at(&self, offset: u64, bufs: impl Into<IoBufs> + Send, options: WriteOptions) -> Result<(), Error> {
        self.health.operate()?;
        self.inner.write_at(offset, bufs, options).await
    }

    async fn resize(&self, length: u64) -> Result<(), Error> {
        self.health.operate()?;
        self.inner.resize(length).await
    }

    async fn sync(&self) -> Result<(), Error> {
        self.health.operate()?;
        self.inner.sync().await
    }

    async fn start_sync(&self) -> Handle<()> {
        match self.health.operate() {
            Ok(()) => self.inner.start_sync().await,
            Err(error) => Handle::ready(Err(error)),
        }
    }
}

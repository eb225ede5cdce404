//! The height of the chain, and waiting for it to change.
//!
//! It is no `watch` channel of tokio: that wakes those who wait in an order drawn at random, so that the same seed would
//! not be the same simulated run. A `Notify` wakes them in the order in which they came.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cairn_proof::Height;
use tokio::sync::Notify;

/// A height that many wait on.
#[derive(Debug)]
pub(crate) struct Watched(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    height: AtomicU64,
    changed: Notify,
}

impl Watched {
    pub(crate) fn new(height: Height) -> Self {
        Self(Arc::new(Inner { height: AtomicU64::new(height.0), changed: Notify::new() }))
    }

    pub(crate) fn get(&self) -> Height {
        self.0.get()
    }

    /// Changes the height and wakes all that wait.
    pub(crate) fn set(&self, height: Height) {
        self.0.height.store(height.0, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Someone who waits, to whom the present height is no news.
    pub(crate) fn subscribe(&self) -> Heights {
        Heights { seen: self.get(), watched: Arc::clone(&self.0) }
    }
}

impl Inner {
    fn get(&self) -> Height {
        Height(self.height.load(Ordering::Acquire))
    }
}

/// One who waits for the height to change.
#[derive(Debug)]
pub(crate) struct Heights {
    seen: Height,
    watched: Arc<Inner>,
}

impl Heights {
    /// The height as it is; it is no news from now on.
    pub(crate) fn latest(&mut self) -> Height {
        self.seen = self.watched.get();
        self.seen
    }

    /// Waits until the height is another than was last seen here. May be dropped and called again.
    pub(crate) async fn changed(&mut self) {
        loop {
            // Made before the look, it hears of every change after it.
            let changed = self.watched.changed.notified();
            let height = self.watched.get();
            if height != self.seen {
                self.seen = height;
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, executor::block_on, future::join, stream::FuturesUnordered};

    use super::*;

    #[test]
    fn a_change_is_seen_once_and_never_missed() {
        let watched = Watched::new(Height(1));
        let mut heights = watched.subscribe();
        assert!(heights.changed().now_or_never().is_none());
        watched.set(Height(2));
        assert!(heights.changed().now_or_never().is_some());
        assert!(heights.changed().now_or_never().is_none());
        watched.set(Height(3));
        assert_eq!(heights.latest(), Height(3));
        assert!(heights.changed().now_or_never().is_none());
    }

    #[test]
    fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let watched = Watched::new(Height(1));
        let (woken, mut order) = tokio::sync::mpsc::unbounded_channel();
        let waits = (0..20).map(|who| {
            let (mut heights, woken) = (watched.subscribe(), woken.clone());
            async move {
                heights.changed().await;
                woken.send(who).unwrap();
            }
        });
        let change = async { watched.set(Height(2)) };
        // Each is polled again only when it is woken, in that order.
        let waits: FuturesUnordered<_> = waits.collect();
        block_on(join(waits.collect::<Vec<()>>(), change));
        let found: Vec<u32> = std::iter::from_fn(|| order.try_recv().ok()).collect();
        assert_eq!(found, (0..20).collect::<Vec<_>>());
    }
}

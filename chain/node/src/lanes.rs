//! One network channel shared by the epochs' engines, each on a subchannel of its own.
//!
//! ```text
//! channel ──▶ muxer ──▶ subchannel of the present epoch ──▶ its engine
//!               └─────▶ other epochs: a message of the next one waits for its engine;
//!                       one of any later epoch only tells that its sender is ahead
//! ```
//!
//! Validators do not finish an epoch at the same instant. Consensus does not repeat its votes, so without this the first
//! votes of an epoch would be lost on whoever is some milliseconds late, and the first view would run into its timeout.

use std::collections::{BTreeMap, VecDeque};

use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    Message, Receiver, Sender,
    utils::mux::{Builder as _, Error, MuxHandle, Muxer, SubReceiver, SubSender},
};
use commonware_runtime::Spawner;
use commonware_utils::channel::mpsc;

/// Messages of one sender that wait for the next epoch; more are dropped, as the network may drop any.
const EARLY_MESSAGES_MAX: usize = 32;
/// Bytes of a message that may wait: votes and certificates are much smaller.
const EARLY_BYTES_MAX: usize = 32 << 10;

/// A message of an epoch whose engine does not run.
pub(crate) type Stranger = (u64, Message<PublicKey>);

/// One channel.
pub(crate) struct Lane<S: Sender<PublicKey = PublicKey>> {
    handle: MuxHandle<S>,
    strangers: mpsc::Receiver<Stranger>,
    early: Early,
}

/// Messages of the next epoch.
#[derive(Debug, Default)]
struct Early {
    epoch: u64,
    messages: VecDeque<Message<PublicKey>>,
    by_sender: BTreeMap<PublicKey, usize>,
}

impl Early {
    fn of(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    fn keep(&mut self, (epoch, (sender, bytes)): Stranger) {
        if epoch != self.epoch || bytes.len() > EARLY_BYTES_MAX {
            return;
        }
        let count = self.by_sender.entry(sender.clone()).or_default();
        if *count < EARLY_MESSAGES_MAX {
            *count += 1;
            self.messages.push_back((sender, bytes));
        }
    }
}

impl<S: Sender<PublicKey = PublicKey>> Lane<S> {
    /// Starts to sort the channel's messages.
    pub(crate) fn start<E: Spawner, R: Receiver<PublicKey = PublicKey>>(
        context: E,
        (sender, receiver): (S, R),
    ) -> Self {
        let (muxer, handle, strangers) = Muxer::builder(context, sender, receiver).with_backup().build();
        muxer.start();
        Self { handle, strangers, early: Early::default() }
    }

    /// The next message of an epoch that is not open; nothing when the network has ended.
    pub(crate) async fn stranger(&mut self) -> Option<Stranger> {
        self.strangers.recv().await
    }

    /// Keeps the message if it is of the next epoch.
    pub(crate) fn keep(&mut self, stranger: Stranger) {
        self.early.keep(stranger);
    }

    /// Opens an epoch's subchannel, whose messages begin with those that came early.
    ///
    /// # Errors
    /// When the network has ended.
    pub(crate) async fn open(&mut self, epoch: u64) -> Result<(SubSender<S>, Messages), Error> {
        let (sender, receiver) = self.handle.register(epoch).await?;
        // From here on the muxer puts them into the subchannel; what it put elsewhere before is still to be sorted.
        while let Ok(stranger) = self.strangers.try_recv() {
            self.early.keep(stranger);
        }
        let early = std::mem::replace(&mut self.early, Early::of(epoch + 1));
        let early = if early.epoch == epoch { early.messages } else { VecDeque::new() };
        Ok((sender, Messages { early, receiver }))
    }
}

/// The messages of one epoch's subchannel.
#[derive(Debug)]
pub(crate) struct Messages {
    early: VecDeque<Message<PublicKey>>,
    receiver: SubReceiver<PublicKey>,
}

impl Receiver for Messages {
    type Error = Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, Error> {
        match self.early.pop_front() {
            Some(message) => Ok(message),
            None => self.receiver.recv().await,
        }
    }

    fn capacity(&self) -> std::num::NonZeroUsize {
        self.receiver.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{city::validator_key, network};
    use commonware_runtime::IoBuf;

    #[test]
    fn what_waits_is_of_the_next_epoch_and_bounded_for_each_sender() {
        let sender = |index| network::public_key(&validator_key(index).public()).unwrap();
        let message = |index, length| (sender(index), IoBuf::from(vec![0_u8; length]));
        let mut early = Early::of(5);
        for epoch in [4, 6, u64::MAX] {
            early.keep((epoch, message(0, 1)));
        }
        early.keep((5, message(0, EARLY_BYTES_MAX + 1)));
        assert!(early.messages.is_empty());
        for _ in 0..2 * EARLY_MESSAGES_MAX {
            early.keep((5, message(0, EARLY_BYTES_MAX)));
        }
        early.keep((5, message(1, 1)));
        assert_eq!(early.messages.len(), EARLY_MESSAGES_MAX + 1, "one sender does not take another's room");
        assert_eq!(early.messages.back(), Some(&message(1, 1)));
    }
}

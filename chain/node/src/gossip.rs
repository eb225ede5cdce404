//! Statements between validators: what one accepts over HTTP, all of them pool, so that any leader can include it.
//!
//! A validator sends only what was handed to itself; nobody passes on what it received, so a message costs n − 1
//! sends and cannot circle. What is lost on the way (a restart, a rate limit) is sent again after some seconds.
//!
//! ```text
//! message = count ‖ count × (length ‖ statement)      LEB128; count ≤ 256, statements ≤ 128 KiB together
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proof::statement::STATEMENT_BYTES_MAX;
use commonware_codec::{Buf, Error as CodecError, RangeCfg, Read as _, Write as _};
use commonware_cryptography::ed25519::PublicKey;
use commonware_macros::select;
use commonware_p2p::{Blocker, Receiver, Recipients, Sender};
use commonware_runtime::{Clock, Spawner};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::{
    clock,
    limits::{GOSSIP_BYTES_MAX, GOSSIP_MESSAGES_PER_SECOND, GOSSIP_STATEMENTS_MAX},
    shared::Shared,
};

/// Statements that this validator accepted and the others have not seen.
pub(crate) type Outbox = mpsc::Receiver<Bytes>;

/// Statements that may wait to be sent; those beyond are sent by the next repetition.
pub(crate) const OUTBOX_STATEMENTS_MAX: usize = 4_096;

/// Bytes of the largest message.
pub(crate) const MESSAGE_BYTES_MAX: usize = GOSSIP_BYTES_MAX + 5 * (GOSSIP_STATEMENTS_MAX + 1);

/// Least time between two messages, so that a burst stays within the channel's rate.
const PACE: Duration = Duration::from_millis(1_000 / GOSSIP_MESSAGES_PER_SECOND as u64 + 1);

/// How often the pool is looked through for statements to send again.
const REPEAT: Duration = Duration::from_millis(500);

/// Messages of repeated statements in one go.
const REPEAT_MESSAGES_MAX: usize = 8;

/// Starts sending and receiving.
pub(crate) fn start<E, B, S, R>(
    context: &E,
    shared: Arc<Shared>,
    blocker: B,
    (sender, receiver): (S, R),
    outbox: Outbox,
) where
    E: Spawner + Clock,
    B: Blocker<PublicKey = PublicKey>,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    let receiving = Arc::clone(&shared);
    context.child("gossip_send").spawn(move |context| send(context, shared, sender, outbox));
    context.child("gossip_receive").spawn(move |context| receive(context, receiving, blocker, receiver));
}

async fn send<E: Spawner + Clock, S: Sender<PublicKey = PublicKey>>(
    context: E,
    shared: Arc<Shared>,
    mut sender: S,
    mut outbox: Outbox,
) {
    loop {
        select! {
            first = outbox.recv() => {
                let Some(first) = first else { return };
                let mut batch = Batch::default();
                let mut next = Some(first);
                while let Some(statement) = next {
                    if let Some(full) = batch.push(statement) {
                        sender.send(Recipients::All, full.encode(), false);
                        context.sleep(PACE).await;
                    }
                    next = outbox.try_recv().ok();
                }
                sender.send(Recipients::All, batch.encode(), false);
                context.sleep(PACE).await;
            },
            _ = context.sleep(REPEAT) => {
                let mut batch = Batch::default();
                let mut messages = 0;
                for statement in shared.mempool.to_repeat(clock::milliseconds(&context)) {
                    if let Some(full) = batch.push(statement) {
                        sender.send(Recipients::All, full.encode(), false);
                        context.sleep(PACE).await;
                        messages += 1;
                    }
                    if messages == REPEAT_MESSAGES_MAX {
                        break;
                    }
                }
                if !batch.statements.is_empty() {
                    sender.send(Recipients::All, batch.encode(), false);
                }
            },
        }
    }
}

async fn receive<E, B, R>(context: E, shared: Arc<Shared>, mut blocker: B, mut receiver: R)
where
    E: Spawner + Clock,
    B: Blocker<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    while let Ok((peer, message)) = receiver.recv().await {
        let statements = match decode(message) {
            Ok(statements) => statements,
            Err(error) => {
                // An honest validator's software cannot make such a message.
                warn!(%peer, %error, "gossip message does not decode, peer is blocked");
                shared.metrics.gossip.with_label_values(&["undecodable"]).inc();
                blocker.block(peer);
                continue;
            }
        };
        for statement in statements {
            let outcome = shared.receive(statement, clock::milliseconds(&context));
            shared.metrics.gossip.with_label_values(&[outcome]).inc();
            debug!(%peer, outcome, "statement received");
        }
    }
}

/// Statements for one message.
#[derive(Default)]
struct Batch {
    statements: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    /// Adds a statement; returns the batch before it when that was full.
    fn push(&mut self, statement: Bytes) -> Option<Self> {
        let full = self.statements.len() == GOSSIP_STATEMENTS_MAX || self.bytes + statement.len() > GOSSIP_BYTES_MAX;
        let before = if full { Some(std::mem::take(self)) } else { None };
        self.bytes += statement.len();
        self.statements.push(statement);
        before
    }

    fn encode(&self) -> Bytes {
        let mut message = Vec::with_capacity(self.bytes + 5 * (self.statements.len() + 1));
        self.statements.len().write(&mut message);
        for statement in &self.statements {
            statement.write(&mut message);
        }
        message.into()
    }
}

fn decode(mut buf: impl Buf) -> Result<Vec<Bytes>, CodecError> {
    let count = usize::read_cfg(&mut buf, &(1..=GOSSIP_STATEMENTS_MAX).into())?;
    let mut statements = Vec::with_capacity(count);
    let mut room = GOSSIP_BYTES_MAX;
    for _ in 0..count {
        let range: RangeCfg<usize> = (1..=STATEMENT_BYTES_MAX.min(room)).into();
        let statement = Bytes::read_cfg(&mut buf, &range)?;
        room -= statement.len();
        statements.push(Bytes::copy_from_slice(&statement));
    }
    if buf.has_remaining() { Err(CodecError::ExtraData(buf.remaining())) } else { Ok(statements) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch_of(lengths: &[usize]) -> Batch {
        let mut batch = Batch::default();
        for length in lengths {
            assert!(batch.push(vec![7; *length].into()).is_none());
        }
        batch
    }

    #[test]
    fn a_message_holds_what_was_put_in() {
        let message = batch_of(&[1, 65_535, 300]).encode();
        let lengths: Vec<usize> = decode(message).unwrap().iter().map(Bytes::len).collect();
        assert_eq!(lengths, [1, 65_535, 300]);
    }

    #[test]
    fn a_full_batch_is_handed_back() {
        let mut batch = batch_of(&[65_535, 65_535]);
        let full = batch.push(vec![1; 100].into()).unwrap();
        assert_eq!((full.statements.len(), batch.statements.len(), batch.bytes), (2, 1, 100));
        assert!(full.encode().len() <= MESSAGE_BYTES_MAX);
        let mut batch = batch_of(&[1; GOSSIP_STATEMENTS_MAX]);
        assert_eq!(batch.push(vec![1].into()).unwrap().statements.len(), GOSSIP_STATEMENTS_MAX);
    }

    #[test]
    fn hostile_messages_are_refused() {
        let good = batch_of(&[3, 4]).encode().to_vec();
        for cut in 0..good.len() {
            assert!(decode(Bytes::copy_from_slice(&good[..cut])).is_err(), "cut at {cut}");
        }
        assert!(decode(Bytes::from([good.clone(), vec![0]].concat())).is_err(), "a byte too many");
        assert!(decode(Bytes::from(vec![0])).is_err(), "no statement");
        assert!(decode(Bytes::from(vec![1, 0])).is_err(), "an empty statement");
        assert!(decode(Bytes::from(vec![0xff, 0xff, 0xff, 0xff, 0x0f])).is_err(), "a count beyond the bound");
        assert!(decode(Bytes::from(vec![1, 0x80, 0x80, 0x04, 0])).is_err(), "a length beyond the bound");
    }
}

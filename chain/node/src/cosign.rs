//! Signatures of checkpoints between validators: each sends its own, to all; nobody passes on another's.
//!
//! ```text
//! message = 1 … 16 × item
//! item    = u64 BE(log size) ‖ log root[32] ‖ u64 BE(seconds) ‖ signature as the log[64] ‖ as a cosigner[64]
//! ```
//!
//! Who signed is who sent: the network authenticates peers by the same keys. What does not decode or verify, or names
//! another root than the finalized log has, is no honest validator's, and its sender is blocked. A validator repeats its
//! newest signature every few seconds, for those that were not there. See `cairn_proof::checkpoint` for why these
//! signatures mean nothing elsewhere.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proof::{
    Digest, TreeSize,
    checkpoint::validator_keys,
    identity::{self, SIGNATURE_BYTES, SigningKey},
    note::{SignatureLine, VerifierKey},
};
use commonware_codec::Buf;
use commonware_cryptography::ed25519::PublicKey;
use commonware_macros::select;
use commonware_p2p::{Blocker, Receiver, Recipients, Sender};
use commonware_runtime::{Clock, Spawner};
use tracing::{debug, warn};

use crate::{
    checkpoints::{Checkpoints, Outcome, Signed, sign, verify},
    clock,
    limits::COSIGN_MESSAGES_PER_SECOND,
    shared::Shared,
};

const ITEM_BYTES: usize = 8 + 32 + 8 + 2 * SIGNATURE_BYTES;
const ITEMS_MAX: usize = 16;

/// Bytes of the largest message.
pub(crate) const MESSAGE_BYTES_MAX: usize = ITEMS_MAX * ITEM_BYTES;

/// Least time between two messages, so that a burst of blocks stays within the channel's rate.
const PACE: Duration = Duration::from_millis(1_000 / COSIGN_MESSAGES_PER_SECOND as u64 + 1);

/// How often the newest signature is sent again.
const REPEAT: Duration = Duration::from_secs(2);

/// Starts receiving and, with the key of a validator, signing.
pub(crate) fn start<E, B, S, R>(
    context: &E,
    shared: Arc<Shared>,
    blocker: B,
    (sender, receiver): (S, R),
    key: Option<SigningKey>,
) where
    E: Spawner + Clock,
    B: Blocker<PublicKey = PublicKey>,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    let receiving = Arc::clone(&shared);
    context.child("cosign_receive").spawn(move |_| receive(receiving, blocker, receiver));
    if let Some(key) = key {
        context.child("cosign_send").spawn(move |context| send(context, shared, sender, key));
    }
}

async fn send<E: Spawner + Clock, S: Sender<PublicKey = PublicKey>>(
    context: E,
    shared: Arc<Shared>,
    mut sender: S,
    key: SigningKey,
) {
    let mut height = shared.ledger.subscribe();
    // What was replayed was signed before the stop; of all that, only the tip is of use to anybody.
    let mut after = shared.checkpoints.newest();
    let mut repeat_at = context.current() + REPEAT;
    loop {
        let seconds = clock::milliseconds(&context) / 1_000;
        let mut message = Vec::new();
        for checkpoint in shared.checkpoints.to_sign(&key.public(), after) {
            let Some(signed) = sign(&checkpoint, &key, seconds) else { continue };
            encode(&signed, &mut message);
            shared.checkpoints.insert(key.public(), signed);
            after = Some(checkpoint.size);
            if message.len() == MESSAGE_BYTES_MAX {
                sender.send(Recipients::All, Bytes::from(std::mem::take(&mut message)), false);
                context.sleep(PACE).await;
            }
        }
        if !message.is_empty() {
            sender.send(Recipients::All, Bytes::from(message), false);
            context.sleep(PACE).await;
        }
        select! {
            _ = height.changed() => {},
            // A time and not a pause: blocks come more often than that.
            _ = context.sleep_until(repeat_at) => {
                repeat_at = context.current() + REPEAT;
                let mut message = Vec::new();
                if let Some(newest) = shared.checkpoints.newest_by(&key.public()) {
                    encode(&newest, &mut message);
                    sender.send(Recipients::All, Bytes::from(message), false);
                }
            },
        }
    }
}

async fn receive<B, R>(shared: Arc<Shared>, mut blocker: B, mut receiver: R)
where
    B: Blocker<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    while let Ok((peer, message)) = receiver.recv().await {
        let outcome = take(&shared.checkpoints, &peer, message, |outcome| {
            shared.metrics.cosignatures.with_label_values(&[outcome]).inc();
        });
        if let Err(reason) = outcome {
            // An honest validator's software cannot send such a message.
            warn!(%peer, reason, "checkpoint signatures refused, peer is blocked");
            blocker.block(peer);
        }
    }
}

/// Takes a peer's message in, item by item.
fn take(
    checkpoints: &Checkpoints,
    peer: &PublicKey,
    message: impl Buf,
    mut count: impl FnMut(&'static str),
) -> Result<(), &'static str> {
    let taken = take_items(checkpoints, peer, message, &mut count);
    if let Err(reason) = taken {
        count(reason);
    }
    taken
}

fn take_items(
    checkpoints: &Checkpoints,
    peer: &PublicKey,
    message: impl Buf,
    count: &mut impl FnMut(&'static str),
) -> Result<(), &'static str> {
    let items = decode(message)?;
    let key = <[u8; 32]>::try_from(peer.as_ref()).ok().and_then(|key| identity::PublicKey::from_bytes(key).ok());
    let key = key.ok_or("unusable key")?;
    let keys = validator_keys(checkpoints.origin(), key).map_err(|_| "unusable key")?;
    for item in items {
        let mut outcome = checkpoints.judge(&key, item.size, &item.root);
        let verified = || Some(item.signed(&keys)).filter(|signed| verify(checkpoints.origin(), key, signed));
        if outcome == Outcome::Taken {
            outcome = checkpoints.insert(key, verified().ok_or("does not verify")?);
        }
        if outcome == Outcome::Conflict {
            // A signature that verifies is proof of the lie: it is worth being kept in the log file.
            let (size, root, proof) = (item.size, item.root, verified());
            warn!(validator = %key, %size, %root, ?proof, "a signature for another root than the finalized log has");
            return Err(outcome.name());
        }
        debug!(%peer, size = %item.size, outcome = outcome.name(), "checkpoint signature");
        count(outcome.name());
    }
    Ok(())
}

/// What stands in a message.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    size: TreeSize,
    root: Digest,
    seconds: u64,
    log: [u8; SIGNATURE_BYTES],
    cosigner: [u8; SIGNATURE_BYTES],
}

impl Item {
    /// The item as the lines of the validator with these keys.
    fn signed(&self, [log, cosigner]: &[VerifierKey; 2]) -> Signed {
        let cosignature = [&self.seconds.to_be_bytes()[..], &self.cosigner].concat();
        let lines = [SignatureLine::new(log, self.log.to_vec()), SignatureLine::new(cosigner, cosignature)];
        Signed { size: self.size, root: self.root, seconds: self.seconds, lines }
    }
}

fn encode(signed: &Signed, out: &mut Vec<u8>) {
    let [log, cosigner] = &signed.lines;
    out.extend_from_slice(&signed.size.0.to_be_bytes());
    out.extend_from_slice(signed.root.as_ref());
    // The cosignature begins with its time; the signature as the log follows the time here.
    let (seconds, signature) = cosigner.signature().split_at(8);
    out.extend_from_slice(seconds);
    out.extend_from_slice(log.signature());
    out.extend_from_slice(signature);
}

fn decode(mut message: impl Buf) -> Result<Vec<Item>, &'static str> {
    let length = message.remaining();
    if length == 0 || length > MESSAGE_BYTES_MAX || !length.is_multiple_of(ITEM_BYTES) {
        return Err("undecodable");
    }
    let mut items = Vec::with_capacity(length / ITEM_BYTES);
    while message.has_remaining() {
        let mut item = Item {
            size: TreeSize(message.get_u64()),
            root: Digest::ZERO,
            seconds: 0,
            log: [0; SIGNATURE_BYTES],
            cosigner: [0; SIGNATURE_BYTES],
        };
        message.copy_to_slice(&mut item.root.0);
        item.seconds = message.get_u64();
        message.copy_to_slice(&mut item.log);
        message.copy_to_slice(&mut item.cosigner);
        items.push(item);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        city::{genesis, validator_key},
        network,
    };
    use cairn_proof::{Height, checkpoint::Checkpoint, header::Header};

    fn header(size: u64) -> Header {
        let log_root = Digest([u8::try_from(size).unwrap() + 1; 32]);
        Header { height: Height(size), log_size: TreeSize(size), log_root, ..genesis(4).header() }
    }

    fn checkpoints() -> Checkpoints {
        let checkpoints = Checkpoints::new("test", false);
        checkpoints.advance(&header(1), &genesis(4).validator_keys());
        checkpoints
    }

    fn peer(index: usize) -> PublicKey {
        network::public_key(&validator_key(index).public()).unwrap()
    }

    fn message(index: usize, headers: &[Header]) -> Vec<u8> {
        let mut out = Vec::new();
        for header in headers {
            encode(&sign(&Checkpoint::of(header), &validator_key(index), 1_700_000_000).unwrap(), &mut out);
        }
        out
    }

    fn taken(
        checkpoints: &Checkpoints,
        index: usize,
        message: Vec<u8>,
    ) -> (Result<(), &'static str>, Vec<&'static str>) {
        let mut outcomes = Vec::new();
        let result = take(checkpoints, &peer(index), Bytes::from(message), |outcome| outcomes.push(outcome));
        (result, outcomes)
    }

    #[test]
    fn signatures_travel_and_make_a_checkpoint() {
        let checkpoints = checkpoints();
        for index in 0..3 {
            let sent = message(index, &[header(1), header(2)]);
            assert_eq!(taken(&checkpoints, index, sent.clone()), (Ok(()), vec!["taken", "taken"]));
            assert_eq!(taken(&checkpoints, index, sent), (Ok(()), vec!["known", "known"]));
        }
        let published = checkpoints.published().unwrap();
        assert_eq!(published.size, TreeSize(1));
        let keys = genesis(4).validator_keys();
        let cosigned = cairn_proof::checkpoint::verify_for(&header(1), &keys, &published.note).unwrap();
        assert_eq!((cosigned.validators.len(), cosigned.others.len()), (3, 0));
    }

    #[test]
    fn who_sends_another_ones_signature_or_a_fork_is_blocked() {
        let checkpoints = checkpoints();
        assert_eq!(taken(&checkpoints, 1, message(0, &[header(1)])).0, Err("does not verify"));
        let forked = Header { log_root: Digest([9; 32]), ..header(1) };
        assert_eq!(taken(&checkpoints, 1, message(1, &[forked])).0, Err("conflict"));
        // Somebody who is in no committee (any more) may be honest.
        assert_eq!(taken(&checkpoints, 9, message(9, &[header(1)])), (Ok(()), vec!["stranger"]));
        assert!(checkpoints.published().is_none());
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let good = message(0, &[header(2)]);
        for bit in 0..good.len() * 8 {
            let mut changed = good.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let (result, _) = taken(&checkpoints(), 0, changed);
            // A size below what is final is not looked into.
            assert!(result.is_err() || bit / 8 == 7, "bit {bit}: {result:?}");
        }
    }

    #[test]
    fn hostile_messages_are_refused() {
        let one = message(0, &[header(1)]);
        for cut in (0..one.len()).chain([one.len() + 1]) {
            assert_eq!(decode(Bytes::from(one.repeat(2)[..cut].to_vec())), Err("undecodable"), "{cut} bytes");
        }
        assert_eq!(decode(Bytes::from(one.repeat(ITEMS_MAX))).unwrap().len(), ITEMS_MAX);
        assert_eq!(decode(Bytes::from(one.repeat(ITEMS_MAX + 1))), Err("undecodable"));
    }
}

//! Only two messages that honest software never signs both prove an equivocation, and only under their signatures.

use super::*;
use crate::identity::SigningKey;
use proptest::prelude::*;

const EPOCH: u64 = 3;
const VIEW: u64 = 300;

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn chain() -> ChainTag {
    ChainTag(Digest([7; 32]))
}

fn notarize(payload: u8) -> Message {
    Message::Notarize { parent_view: VIEW - 1, payload: Digest([payload; 32]) }
}

fn finalize(payload: u8) -> Message {
    Message::Finalize { parent_view: VIEW - 1, payload: Digest([payload; 32]) }
}

fn signed(message: Message) -> SignedMessage {
    forge::message(&key(), EPOCH, VIEW, message, &chain())
}

fn pair(one: Message, other: Message) -> Equivocation {
    Equivocation::new(key().public(), EPOCH, VIEW, signed(one), signed(other))
}

#[test]
fn the_three_conflicts_are_proven_in_either_order() {
    let other_parent = Message::Notarize { parent_view: 1, payload: Digest([1; 32]) };
    for (one, other, kind) in [
        (notarize(1), notarize(2), EquivocationKind::Notarizes),
        (notarize(1), other_parent, EquivocationKind::Notarizes),
        (finalize(1), finalize(2), EquivocationKind::Finalizes),
        (Message::Nullify, finalize(2), EquivocationKind::NullifyAndFinalize),
    ] {
        assert_eq!(pair(one, other).verify(&chain()), Ok(kind));
        assert_eq!(pair(other, one), pair(one, other), "one equivocation has one form");
    }
}

#[test]
fn what_an_honest_validator_signs_proves_nothing() {
    for (one, other) in [
        (notarize(1), notarize(1)),
        (finalize(1), finalize(1)),
        (Message::Nullify, Message::Nullify),
        (notarize(1), finalize(1)),
        (notarize(1), finalize(2)),
        (notarize(1), Message::Nullify),
    ] {
        assert_eq!(pair(one, other).verify(&chain()), Err(EvidenceError::NoConflict), "{one:?} {other:?}");
    }
    let good = pair(notarize(1), notarize(2));
    let swapped = Equivocation { first: good.second, second: good.first, ..good };
    assert_eq!(swapped.verify(&chain()), Err(EvidenceError::NoConflict), "in the wrong order");
}

#[test]
fn signatures_are_bound_to_validator_chain_epoch_view_and_message() {
    let good = pair(Message::Nullify, finalize(2));
    let validator = SigningKey::from_seed(&[2; 32]).public();
    let mut other_payload = good;
    other_payload.second.message = finalize(3);
    for broken in [
        Equivocation { validator, ..good },
        Equivocation { epoch: EPOCH + 1, ..good },
        Equivocation { view: VIEW + 1, ..good },
        other_payload,
    ] {
        assert!(matches!(broken.verify(&chain()), Err(EvidenceError::Signature { .. })));
    }
    assert!(good.verify(&ChainTag(Digest([8; 32]))).is_err());
    let mut broken = good;
    broken.second.signature[0] ^= 1;
    assert_eq!(broken.verify(&chain()), Err(EvidenceError::Signature { place: "second", validator: key().public() }));
    // A notarize is no finalize: the same proposal under another suffix.
    let mut relabelled = pair(notarize(1), notarize(2));
    relabelled.first.message = finalize(1);
    relabelled.second.message = finalize(2);
    assert!(relabelled.verify(&chain()).is_err());
}

proptest! {
    #[test]
    fn messages_round_trip(kind in 0..3, parent_view in any::<u64>(), payload in any::<[u8; 32]>(), half in any::<[u8; 32]>()) {
        let payload = Digest(payload);
        let message = match kind {
            0 => Message::Notarize { parent_view, payload },
            1 => Message::Nullify,
            _ => Message::Finalize { parent_view, payload },
        };
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&half);
        let signed = SignedMessage { message, signature };
        let mut bytes = Vec::new();
        signed.write(&mut Writer::new(&mut bytes));
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(SignedMessage::read(&mut reader).unwrap(), signed);
        reader.end().unwrap();
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Reader::new(&bytes);
        if let Ok(signed) = SignedMessage::read(&mut reader) {
            let mut again = Vec::new();
            signed.write(&mut Writer::new(&mut again));
            prop_assert_eq!(&again[..], &bytes[..bytes.len() - reader.remaining()]);
        }
    }
}

//! Identities from registration to their end, and who may say what about them and about streams.

use super::*;
use cairn_proof::statement::{RevokeIdentity, RotateKey, SetExpiry, SetRole, TransferStream};

const FRESH: u8 = 4;
const FRESHER: u8 = 5;
const OTHER_OWNER: u8 = 6;

fn register(seed: u8, kind: IdentityKind) -> Body {
    let (controller, chain) = (key(OWNER).identity(), genesis().tag());
    Body::RegisterIdentity(RegisterIdentity::new(&key(seed), kind, "someone".into(), controller, &chain))
}

fn rotate(seed: u8, to: u8) -> Body {
    Body::RotateKey(RotateKey::new(key(seed).identity(), &key(to), &genesis().tag()))
}

fn revoke(seed: u8) -> Body {
    Body::RevokeIdentity(RevokeIdentity { identity: key(seed).identity(), reason: "stolen".into() })
}

fn expire(seed: u8, expires_ms: Option<u64>) -> Body {
    Body::SetExpiry(SetExpiry { identity: key(seed).identity(), expires_ms })
}

fn role(seed: u8, role: Role, granted: bool) -> Body {
    Body::SetRole(SetRole { stream: "traffic.flow".into(), identity: key(seed).identity(), role, granted })
}

fn transfer(to: u8) -> Body {
    Body::TransferStream(TransferStream { stream: "traffic.flow".into(), owner: key(to).identity() })
}

/// Signed by the key of `by` in the name of the identity of `seed`.
fn signed_by(by: u8, seed: u8, sequence: u64, body: Body) -> Vec<u8> {
    let statement = Statement { signer: key(seed).identity(), sequence: Sequence(sequence), body };
    statement.sign(&key(by), &genesis().tag()).unwrap()
}

/// The state with one anchor, a device STRANGER and an organisation OTHER_OWNER, both controlled by OWNER (sequence 10).
fn peopled() -> (State, Digest) {
    let (mut state, id) = anchored();
    let say = |state: &mut State, sequence, body| {
        state.apply(&at(3), &signed(OWNER, sequence, body), &StrictSignatures).unwrap();
    };
    say(&mut state, 9, register(STRANGER, IdentityKind::Device));
    say(&mut state, 10, register(OTHER_OWNER, IdentityKind::Organisation));
    (state, id)
}

fn done(state: &mut State, height: u64, envelope: &[u8]) {
    state.apply(&at(height), envelope, &StrictSignatures).unwrap();
}

#[test]
fn a_rotated_key_replaces_the_old_one_and_no_key_is_used_twice() {
    let (mut state, _) = peopled();
    let id = key(STRANGER).identity();
    done(&mut state, 4, &signed(STRANGER, 1, rotate(STRANGER, FRESH)));
    let entry = state.identity(&id).unwrap();
    assert_eq!((entry.first_key, entry.public_key), (key(STRANGER).public(), key(FRESH).public()));
    for seed in [STRANGER, FRESH] {
        assert_eq!(state.identity_of_key(&key(seed).public()), Some(&id), "its keys stay its own");
    }
    // The old key is refused from the next statement on; the new one is taken.
    assert_eq!(refused(&mut state, &signed(STRANGER, 2, rotate(STRANGER, FRESHER))), RefusalCode::Signature);
    done(&mut state, 5, &signed_by(FRESH, STRANGER, 2, rotate(STRANGER, FRESHER)));
    // A key that was ever used is not used again: not the own old one, not another's, not for a new identity.
    for to in [STRANGER, FRESH, OWNER] {
        let again = signed_by(FRESHER, STRANGER, 3, rotate(STRANGER, to));
        assert_eq!(refused(&mut state, &again), RefusalCode::Duplicate, "key {to}");
    }
    let taken = signed(OWNER, 11, register(FRESH, IdentityKind::Person));
    assert_eq!(refused(&mut state, &taken), RefusalCode::Duplicate);
    // The controller rotates too, for instance when the key is lost; who is neither does not.
    done(&mut state, 6, &signed(OWNER, 11, rotate(STRANGER, 7)));
    assert_eq!(refused(&mut state, &signed(INGEST, 5, rotate(STRANGER, 8))), RefusalCode::NotAllowed);
    assert_eq!(refused(&mut state, &signed(OWNER, 12, rotate(99, 8))), RefusalCode::UnknownIdentity);
    // Nobody rotates to a key that they do not hold.
    let Body::RotateKey(mut unheld) = rotate(STRANGER, 8) else { unreachable!() };
    unheld.public_key = key(9).public();
    assert_eq!(refused(&mut state, &signed(OWNER, 12, Body::RotateKey(unheld))), RefusalCode::Signature);
}

#[test]
fn what_was_anchored_before_stays_and_nothing_comes_after_revocation() {
    let (mut state, id) = peopled();
    let next = |sequence| signed(INGEST, sequence, Body::Anchor(anchor(100, 149, id)));
    // INGEST is of the genesis: nobody but itself may revoke it.
    assert_eq!(refused(&mut state, &signed(OWNER, 11, revoke(INGEST))), RefusalCode::NotAllowed);
    assert_eq!(refused(&mut state, &signed(OTHER_OWNER, 1, revoke(STRANGER))), RefusalCode::NotAllowed);
    done(&mut state, 4, &signed(INGEST, 2, revoke(INGEST)));
    assert_eq!(state.identity(&key(INGEST).identity()).unwrap().revoked, Some(Height(4)));
    assert_eq!(refused(&mut state, &next(3)), RefusalCode::Revoked);
    assert_eq!(refused(&mut state, &signed(INGEST, 3, rotate(INGEST, FRESH))), RefusalCode::Revoked);
    assert_eq!(state.anchor(&id), Some(AnchorEntry { log_index: LeafIndex(0), height: Height(2) }));
    assert_eq!(state.head("traffic.flow", Partition(0)).unwrap().next, Offset(100));
    // The controller revokes a device; for ever means that it gets no key and no time either.
    done(&mut state, 5, &signed(OWNER, 11, revoke(STRANGER)));
    for body in [rotate(STRANGER, FRESH), expire(STRANGER, None), revoke(STRANGER)] {
        assert_eq!(refused(&mut state, &signed(OWNER, 12, body)), RefusalCode::Revoked);
    }
}

#[test]
fn an_expired_identity_is_refused_by_the_blocks_own_time() {
    let (mut state, _) = peopled();
    // Blocks are a second apart; it expires with block 6. Block 5 still takes its word, block 6 does not.
    done(&mut state, 4, &signed(OWNER, 11, expire(STRANGER, Some(6000))));
    done(&mut state, 5, &signed(STRANGER, 1, rotate(STRANGER, FRESH)));
    let late = signed_by(FRESH, STRANGER, 2, rotate(STRANGER, FRESHER));
    let root = state.root();
    assert_eq!(state.apply(&at(6), &late, &StrictSignatures).unwrap_err().code, RefusalCode::Expired);
    assert_eq!(state.root(), root);
    // The controller alone prolongs it, not itself; after that it is taken again.
    assert_eq!(refused(&mut state, &signed_by(FRESH, STRANGER, 2, expire(STRANGER, None))), RefusalCode::NotAllowed);
    assert_eq!(refused(&mut state, &signed(OTHER_OWNER, 1, expire(STRANGER, None))), RefusalCode::NotAllowed);
    done(&mut state, 7, &signed(OWNER, 12, expire(STRANGER, None)));
    done(&mut state, 8, &late);
    // Registered with an end from the start.
    let Body::RegisterIdentity(body) = register(8, IdentityKind::Person) else { unreachable!() };
    let body = RegisterIdentity { expires_ms: Some(9_000), ..body };
    done(&mut state, 8, &signed(OWNER, 13, Body::RegisterIdentity(body)));
    let said = signed(8, 1, revoke(8));
    assert_eq!(state.apply(&at(9), &said, &StrictSignatures).unwrap_err().code, RefusalCode::Expired);
}

#[test]
fn roles_are_the_owners_to_give_and_to_take() {
    let (mut state, id) = peopled();
    let ingest = key(INGEST).identity();
    assert!(state.has_role("traffic.flow", Role::Anchorer, &ingest), "the definition's anchorers are the first grants");
    assert!(!state.has_role("traffic.flow", Role::Publisher, &ingest), "one role is not the other");
    let by_stranger = |sequence| signed(STRANGER, sequence, Body::Anchor(anchor(100, 149, id)));
    assert_eq!(refused(&mut state, &by_stranger(1)), RefusalCode::NotAllowed);
    assert_eq!(
        refused(&mut state, &signed(STRANGER, 1, role(STRANGER, Role::Anchorer, true))),
        RefusalCode::NotAllowed
    );
    done(&mut state, 4, &signed(OWNER, 11, role(STRANGER, Role::Publisher, true)));
    assert_eq!(refused(&mut state, &by_stranger(1)), RefusalCode::NotAllowed, "a publisher does not anchor");
    done(&mut state, 4, &signed(OWNER, 12, role(STRANGER, Role::Anchorer, true)));
    done(&mut state, 4, &signed(OWNER, 13, role(INGEST, Role::Anchorer, false)));
    assert_eq!(refused(&mut state, &signed(INGEST, 2, Body::Anchor(anchor(100, 149, id)))), RefusalCode::NotAllowed);
    done(&mut state, 5, &by_stranger(1));
    for (body, code) in [
        (role(STRANGER, Role::Anchorer, true), RefusalCode::Duplicate),
        (role(INGEST, Role::Anchorer, false), RefusalCode::Duplicate),
        (role(99, Role::Anchorer, true), RefusalCode::UnknownIdentity),
    ] {
        assert_eq!(refused(&mut state, &signed(OWNER, 14, body)), code);
    }
    let Body::SetRole(elsewhere) = role(INGEST, Role::Anchorer, true) else { unreachable!() };
    let elsewhere = SetRole { stream: "no.such".into(), ..elsewhere };
    assert_eq!(refused(&mut state, &signed(OWNER, 14, Body::SetRole(elsewhere))), RefusalCode::UnknownStream);
}

#[test]
fn a_stream_goes_to_another_organisation_with_its_rights() {
    let (mut state, _) = peopled();
    for (body, code) in [(transfer(STRANGER), RefusalCode::NotAllowed), (transfer(99), RefusalCode::UnknownIdentity)] {
        assert_eq!(refused(&mut state, &signed(OWNER, 11, body)), code);
    }
    assert_eq!(refused(&mut state, &signed(OTHER_OWNER, 1, transfer(OTHER_OWNER))), RefusalCode::NotAllowed);
    done(&mut state, 4, &signed(OWNER, 11, transfer(OTHER_OWNER)));
    assert_eq!(state.stream("traffic.flow").unwrap().owner, key(OTHER_OWNER).identity());
    let grant = role(STRANGER, Role::Anchorer, true);
    assert_eq!(refused(&mut state, &signed(OWNER, 12, grant.clone())), RefusalCode::NotAllowed);
    done(&mut state, 5, &signed(OTHER_OWNER, 1, grant));
    assert!(state.has_role("traffic.flow", Role::Anchorer, &key(INGEST).identity()), "grants stay");
    // Nor does it go to an organisation that was revoked.
    done(&mut state, 6, &signed(OWNER, 12, register(FRESH, IdentityKind::Organisation)));
    done(&mut state, 6, &signed(OWNER, 13, revoke(FRESH)));
    assert_eq!(refused(&mut state, &signed(OTHER_OWNER, 2, transfer(FRESH))), RefusalCode::Revoked);
}

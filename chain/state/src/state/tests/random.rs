//! Any sequence of statements: invariants hold, and replay gives the same roots.

use super::*;
use cairn_proof::statement::{RevokeIdentity, RotateKey, SetExpiry, SetRole, TransferStream, UpdateStream};
use proptest::prelude::*;

/// Statements of a small world, of which many are refused: four actors, one stream, any order.
#[derive(Debug, Clone)]
enum Said {
    Register {
        by: u8,
        who: u8,
    },
    Rotate {
        by: u8,
        who: u8,
        to: u8,
    },
    Revoke {
        by: u8,
        who: u8,
    },
    Expire {
        by: u8,
        who: u8,
        at_ms: Option<u64>,
    },
    Stream {
        by: u8,
    },
    Role {
        by: u8,
        who: u8,
        granted: bool,
    },
    Transfer {
        by: u8,
        who: u8,
    },
    Update {
        by: u8,
        id: u32,
        wrong: bool,
    },
    Anchor {
        by: u8,
        length: u64,
        wrong: bool,
    },
    /// Both partitions at once; the second one may be wrong.
    Anchors {
        by: u8,
        length: u64,
        wrong: bool,
    },
}

fn any_said() -> impl Strategy<Value = Said> {
    let actor = || 1u8..6;
    prop_oneof![
        (actor(), actor()).prop_map(|(by, who)| Said::Register { by, who }),
        (actor(), actor(), 1u8..12).prop_map(|(by, who, to)| Said::Rotate { by, who, to }),
        (actor(), actor()).prop_map(|(by, who)| Said::Revoke { by, who }),
        (actor(), actor(), proptest::option::of(0u64..60_000)).prop_map(|(by, who, at_ms)| Said::Expire {
            by,
            who,
            at_ms
        }),
        actor().prop_map(|by| Said::Stream { by }),
        (actor(), actor(), any::<bool>()).prop_map(|(by, who, granted)| Said::Role { by, who, granted }),
        (actor(), actor()).prop_map(|(by, who)| Said::Transfer { by, who }),
        (actor(), 2u32..9, prop::bool::weighted(0.2)).prop_map(|(by, id, wrong)| Said::Update { by, id, wrong }),
        (actor(), 1u64..20, prop::bool::weighted(0.2)).prop_map(|(by, length, wrong)| Said::Anchor {
            by,
            length,
            wrong
        }),
        (actor(), 1u64..20, prop::bool::weighted(0.2)).prop_map(|(by, length, wrong)| Said::Anchor {
            by,
            length,
            wrong
        }),
        (actor(), 1u64..20, prop::bool::weighted(0.2)).prop_map(|(by, length, wrong)| Said::Anchors {
            by,
            length,
            wrong
        }),
    ]
}

fn body(said: &Said, state: &State) -> (u8, Body) {
    let chain = genesis().tag();
    let id = |seed: u8| key(seed).identity();
    let stream = || definition().name;
    match *said {
        Said::Register { by, who } => {
            let body = RegisterIdentity::new(&key(who), IdentityKind::Organisation, "x".into(), id(by), &chain);
            (by, Body::RegisterIdentity(body))
        }
        Said::Rotate { by, who, to } => (by, Body::RotateKey(RotateKey::new(id(who), &key(to), &chain))),
        Said::Revoke { by, who } => {
            (by, Body::RevokeIdentity(RevokeIdentity { identity: id(who), reason: "r".into() }))
        }
        Said::Expire { by, who, at_ms } => (by, Body::SetExpiry(SetExpiry { identity: id(who), expires_ms: at_ms })),
        Said::Stream { by } => (by, Body::RegisterStream(definition())),
        Said::Role { by, who, granted } => {
            let body = SetRole { stream: stream(), identity: id(who), role: Role::Anchorer, granted };
            (by, Body::SetRole(body))
        }
        Said::Transfer { by, who } => (by, Body::TransferStream(TransferStream { stream: stream(), owner: id(who) })),
        Said::Update { by, id, wrong } => {
            let versions = state.stream(&stream()).map_or(1, |entry| entry.definition.schemas.len());
            let schema = SchemaVersion { id, text: format!("{{\"v\":{id}}}") };
            let versions = u32::try_from(versions).unwrap() + u32::from(wrong);
            (by, Body::UpdateStream(UpdateStream { stream: stream(), format: Format::Json, versions, schema }))
        }
        Said::Anchor { by, length, wrong } => {
            let head = state.head("traffic.flow", Partition(0)).unwrap_or_default();
            let first = head.next.0 + u64::from(wrong);
            (by, Body::Anchor(anchor(first, first + length - 1, head.anchor)))
        }
        Said::Anchors { by, length, wrong } => {
            let next = |partition: u32| {
                let head = state.head("traffic.flow", Partition(partition)).unwrap_or_default();
                let first = head.next.0 + u64::from(wrong && partition == 1);
                Anchor { partition: Partition(partition), ..anchor(first, first + length - 1, head.anchor) }
            };
            (by, Body::Anchors(vec![next(0), next(1)]))
        }
    }
}

/// What must hold whatever was said: offsets are contiguous, the log holds every anchor once, keys belong to who has them.
fn check(state: &State, anchors: &[(Digest, Anchor)]) {
    assert_eq!(state.log_size().0, anchors.len() as u64);
    for partition in [Partition(0), Partition(1)] {
        let mut next = 0;
        let mut previous = Digest::ZERO;
        for (index, (id, anchor)) in anchors.iter().enumerate().filter(|(_, (_, it))| it.partition == partition) {
            assert_eq!((anchor.first.0, anchor.previous), (next, previous));
            assert_eq!(state.anchor(id).unwrap().log_index, LeafIndex(index as u64));
            (next, previous) = (anchor.last.0 + 1, *id);
        }
        if let Some(head) = state.head("traffic.flow", partition) {
            assert_eq!((head.next.0, head.anchor, head.records), (next, previous, next));
        }
    }
    for seed in 1..6 {
        if let Some(entry) = state.identity(&key(seed).identity()) {
            assert_eq!(entry.id, IdentityId::of(&entry.first_key));
            assert_eq!(state.identity_of_key(&entry.public_key), Some(&entry.id));
            assert_eq!(state.identity_of_key(&entry.first_key), Some(&entry.id));
        }
    }
    assert!(!state.committee().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn invariants_hold_and_replay_gives_the_same_roots(said in proptest::collection::vec(any_said(), 1..60)) {
        let (mut header, mut state) = (genesis().header(), State::genesis(&genesis()));
        let mut keys: BTreeMap<u8, u8> = BTreeMap::new();
        let mut blocks = Vec::new();
        let mut anchors = Vec::new();
        for (number, said) in said.iter().enumerate() {
            let (by, body) = body(said, &state);
            let rotation = match said { Said::Rotate { who, to, .. } => Some((*who, *to)), _ => None };
            let signer = key(by).identity();
            let statement = Statement { signer, sequence: Sequence(number as u64 + 1), body: body.clone() };
            let envelope = statement.sign(&key(keys.get(&by).copied().unwrap_or(by)), &genesis().tag()).unwrap();
            let root = state.root();
            let time = BlockTime { height: header.height.next(), timestamp_ms: header.timestamp_ms + 1 };
            let mut fork = state.clone();
            match fork.apply(&time, &envelope, &StrictSignatures) {
                Ok(applied) => {
                    match body {
                        Body::Anchor(anchor) => anchors.push((applied.id, anchor)),
                        Body::Anchors(all) => {
                            anchors.extend(applied.entries.iter().map(|entry| entry.id).zip(all));
                        }
                        _ => {}
                    }
                    if let Some((who, to)) = rotation {
                        keys.insert(who, to);
                    }
                    let block = block_on(&header, &state, vec![envelope]);
                    let executed = execute(&header, &state, &block, &StrictSignatures).unwrap();
                    (header, state) = (executed.header, executed.state);
                    blocks.push(block);
                }
                Err(_) => prop_assert_eq!(fork.root(), root, "a refused statement changes nothing"),
            }
            check(&state, &anchors);
        }
        let (mut again, mut replayed) = (genesis().header(), State::genesis(&genesis()));
        for block in &blocks {
            let executed = execute(&again, &replayed, block, &StrictSignatures).unwrap();
            (again, replayed) = (executed.header, executed.state);
        }
        prop_assert_eq!((again.digest(), replayed.root(), replayed.log_root()), (header.digest(), state.root(), state.log_root()));
    }
}

//! Order, bounds and what becomes of statements as blocks become final.

use std::collections::HashSet;

use super::*;
use cairn_chain_state::Applied;
use cairn_proof::statement::{Body, Role, SetRole, Statement};

use crate::city::{City, INGEST, OTHER_INGEST, OWNER, key};

/// A pool on the state in which the stream is registered (height 1).
struct Pool {
    city: City,
    pool: Mempool,
    state: State,
    last: Height,
    finals: HashSet<Digest>,
}

impl Pool {
    fn new(change: impl FnOnce(&mut MempoolConfig)) -> Self {
        let mut config = MempoolConfig::default();
        change(&mut config);
        let city = City::new(1);
        let state = State::genesis(&city.genesis);
        let pool = Mempool::new(config, state.clone(), 0, Signatures::default());
        let mut this = Self { city, pool, state, last: Height(0), finals: HashSet::new() };
        let stream = this.city.register_stream(1);
        this.finalize(&[stream], 0);
        this
    }

    /// Makes statements final in the next block.
    fn finalize(&mut self, statements: &[Vec<u8>], now_ms: u64) -> Vec<(Digest, Refusal)> {
        let applied = self.block(statements);
        self.pool.advance(at(self.last), &self.state, &applied, now_ms, |id| self.finals.contains(id))
    }

    /// Applies a block's statements to the state alone.
    fn block(&mut self, statements: &[Vec<u8>]) -> Vec<Applied> {
        self.last = self.last.next();
        let apply = |statement: &Vec<u8>| {
            let applied = self.state.apply(&at(self.last), statement, &Signatures::default()).unwrap();
            self.finals.insert(applied.id);
            applied
        };
        statements.iter().map(apply).collect()
    }

    fn submit(&self, statement: &[u8]) -> Admission {
        self.pool.submit(Bytes::copy_from_slice(statement), 0)
    }

    fn pooled(&self, statement: &[u8]) {
        assert!(matches!(self.submit(statement), Admission::Pooled(_)));
    }

    fn refused(&self, statement: &[u8]) -> RefusalCode {
        match self.submit(statement) {
            Admission::Refused(refusal) => refusal.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn receive(&self, statement: &[u8]) -> &'static str {
        self.pool.receive(Bytes::copy_from_slice(statement), 0, |id| self.finals.contains(id))
    }

    fn candidates(&self, bounds: (usize, usize)) -> Vec<Vec<u8>> {
        let found = self.pool.candidates(&self.state, &Digest::ZERO, bounds);
        found.iter().map(|statement| statement.to_vec()).collect()
    }
}

/// A block at `height`, a second after the one before it.
const fn at(height: Height) -> BlockTime {
    BlockTime { height, timestamp_ms: height.0 * 1000 }
}

const AMPLE: (usize, usize) = (1_000, 1 << 20);

#[test]
fn candidates_come_in_signer_and_sequence_order() {
    let pool = Pool::new(|_| ());
    let mut want = Vec::new();
    for (seed, partition) in [(INGEST, 0), (OTHER_INGEST, 1)] {
        let (first, id) = pool.city.anchor(seed, 1, partition, 0, Digest::ZERO);
        let (second, _) = pool.city.anchor(seed, 5, partition, 10, id);
        pool.pooled(&first);
        pool.pooled(&second);
        want.push((key(seed).identity(), vec![first, second]));
    }
    want.sort();
    let want: Vec<Vec<u8>> = want.into_iter().flat_map(|(_, statements)| statements).collect();
    assert_eq!(pool.candidates(AMPLE), want);
    assert_eq!(pool.candidates((1, 1 << 20)).len(), 2, "twice the bound, for not all may apply");

    // Another turn begins with another signer, and still holds everything.
    let first_signer = if key(INGEST).identity() < key(OTHER_INGEST).identity() { INGEST } else { OTHER_INGEST };
    let mut turn = key(first_signer).identity().0;
    turn.0[31] = turn.0[31].wrapping_add(1);
    let turned = pool.pool.candidates(&pool.state, &turn, AMPLE);
    assert_eq!(turned[0], want[2]);
    assert_eq!(turned.len(), 4);
}

#[test]
fn candidates_and_readiness_leave_out_what_the_state_holds() {
    let pool = Pool::new(|_| ());
    let (first, id) = pool.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    let (second, _) = pool.city.anchor(INGEST, 2, 0, 10, id);
    pool.pooled(&first);
    // An un-finalized block holds the first: nothing is left to propose on top of it.
    let mut ahead = pool.state.clone();
    ahead.apply(&at(Height(2)), &first, &Signatures::default()).unwrap();
    assert!(pool.pool.has_ready(&pool.state));
    assert!(!pool.pool.has_ready(&ahead));
    pool.pooled(&second);
    assert!(pool.pool.has_ready(&ahead));
    assert_eq!(pool.pool.candidates(&ahead, &Digest::ZERO, AMPLE), [Bytes::from(second)]);
}

#[test]
fn the_pool_is_bounded() {
    let anchors = |city: &City, count: u32| -> Vec<Vec<u8>> {
        (0..count).map(|at| city.anchor(INGEST, 1 + u64::from(at), at, 0, Digest::ZERO).0).collect()
    };
    let pool = Pool::new(|config| config.signer_statements_max = 2);
    let statements = anchors(&pool.city, 3);
    pool.pooled(&statements[0]);
    pool.pooled(&statements[1]);
    assert!(matches!(pool.submit(&statements[2]), Admission::SignerFull { most: 2 }));
    assert_eq!(pool.receive(&statements[2]), "full");
    assert!(matches!(pool.submit(&statements[0]), Admission::Known(_)));
    pool.pooled(&pool.city.anchor(OTHER_INGEST, 1, 9, 0, Digest::ZERO).0);

    let pool = Pool::new(|config| config.statements_max = 2);
    pool.pooled(&statements[0]);
    pool.pooled(&statements[1]);
    assert!(matches!(pool.submit(&statements[2]), Admission::Full));

    let room = statements[0].len() + statements[1].len();
    let mut pool = Pool::new(|config| config.bytes_max = room);
    pool.pooled(&statements[0]);
    pool.pooled(&statements[1]);
    assert!(matches!(pool.submit(&statements[2]), Admission::Full));
    assert_eq!(pool.pool.size(), (2, room));
    pool.finalize(&statements[..1], 0);
    assert_eq!(pool.pool.size(), (1, statements[1].len()));
    pool.pooled(&statements[2]);
}

#[test]
fn a_submitted_statement_must_apply_on_top_of_the_pool() {
    let pool = Pool::new(|_| ());
    let (first, id) = pool.city.anchor(INGEST, 3, 0, 0, Digest::ZERO);
    pool.pooled(&first);
    assert_eq!(pool.refused(&pool.city.anchor(INGEST, 3, 1, 0, Digest::ZERO).0), RefusalCode::Sequence);
    assert_eq!(pool.refused(&pool.city.anchor(OTHER_INGEST, 1, 0, 0, Digest::ZERO).0), RefusalCode::Overlap);
    assert_eq!(pool.refused(&pool.city.anchor(INGEST, 4, 0, 20, id).0), RefusalCode::Gap);
    assert_eq!(pool.refused(&pool.city.anchor(INGEST, 4, 0, 10, Digest::ZERO).0), RefusalCode::Previous);
    assert_eq!(pool.refused(&pool.city.register_stream(2)), RefusalCode::Duplicate);
    assert_eq!(pool.refused(b"nonsense"), RefusalCode::Malformed);
    assert_eq!(pool.refused(&vec![0; 70_000]), RefusalCode::Malformed);
    assert_eq!(pool.pool.size().0, 1);
    assert!(pool.pool.refusal(&id).is_none());
}

#[test]
fn what_arrives_too_early_is_parked_and_applies_later() {
    let mut pool = Pool::new(|_| ());
    let (first, id) = pool.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    let (second, second_id) = pool.city.anchor(INGEST, 2, 0, 10, id);
    assert_eq!(pool.receive(&second), "parked");
    assert_eq!(pool.receive(&second), "known");
    assert!(pool.pool.contains(&second_id));
    assert!(!pool.pool.has_ready(&pool.state), "a parked statement alone is no reason to propose");
    assert_eq!(pool.receive(&first), "pooled");
    assert!(pool.finalize(std::slice::from_ref(&first), 1).is_empty());
    assert_eq!(pool.receive(&first), "final");
    assert!(pool.pool.has_ready(&pool.state));
    assert_eq!(pool.candidates(AMPLE), [second]);
}

#[test]
fn a_signers_statements_may_arrive_in_any_order() {
    let mut pool = Pool::new(|_| ());
    let (first, _) = pool.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    let (second, _) = pool.city.anchor(INGEST, 2, 1, 0, Digest::ZERO);
    assert_eq!(pool.receive(&second), "pooled");
    assert_eq!(pool.receive(&first), "parked");
    pool.finalize(&[], 1);
    assert_eq!(pool.candidates(AMPLE), [first, second], "and are put in order with the next block");
    assert!(pool.pool.has_ready(&pool.state));
}

#[test]
fn a_parked_statement_is_given_up_after_a_time() {
    let mut pool = Pool::new(|config| config.parked_ms_max = 1_000);
    let (early, id) = pool.city.anchor(INGEST, 2, 0, 10, Digest([7; 32]));
    assert_eq!(pool.receive(&early), "parked");
    assert!(pool.finalize(&[], 999).is_empty());
    let refused = pool.finalize(&[], 1_000);
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].0, refused[0].1.code), (id, RefusalCode::Gap));
    assert_eq!(pool.pool.refusal(&id).unwrap().code, RefusalCode::Gap);
    assert_eq!(pool.pool.size(), (0, 0));
}

#[test]
fn parked_statements_cannot_fill_the_pool() {
    let mut pool = Pool::new(|config| config.statements_max = 16);
    // Signed by nobody whom the chain knows: the signatures cannot be checked.
    let strangers: Vec<Vec<u8>> =
        (0..3).map(|at| pool.city.anchor(50 + at, 1, u32::from(at), 0, Digest::ZERO).0).collect();
    assert_eq!(strangers.iter().map(|one| pool.receive(one)).collect::<Vec<_>>(), ["parked", "parked", "full"]);
    for at in 0..14 {
        pool.pooled(&pool.city.anchor(INGEST, 1 + u64::from(at), at, 0, Digest::ZERO).0);
    }
    assert!(pool.finalize(&[], 60_000).iter().all(|(_, refusal)| refusal.code == RefusalCode::UnknownIdentity));
    assert_eq!(pool.pool.size().0, 14);
    assert_eq!(pool.receive(&strangers[2]), "parked", "room again");
}

#[test]
fn a_rival_is_refused_only_once_the_other_is_final() {
    let mut pool = Pool::new(|_| ());
    let (ours, _) = pool.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    let (rival, rival_id) = pool.city.anchor(OTHER_INGEST, 1, 0, 0, Digest::ZERO);
    pool.pooled(&ours);
    // Another validator may have pooled the rival first: it may yet become final instead.
    assert_eq!(pool.receive(&rival), "parked");
    assert!(pool.finalize(&[], 1).is_empty());
    let refused = pool.finalize(std::slice::from_ref(&ours), 2);
    assert_eq!((refused[0].0, refused[0].1.code), (rival_id, RefusalCode::Overlap));
    assert_eq!(pool.pool.refusal(&rival_id).unwrap().code, RefusalCode::Overlap);
    assert_eq!(pool.receive(&rival), "refused");
    assert_eq!(pool.pool.size(), (0, 0));
}

#[test]
fn a_used_sequence_number_is_refused() {
    let mut pool = Pool::new(|_| ());
    let (pooled, pooled_id) = pool.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    let (other, _) = pool.city.anchor(INGEST, 1, 1, 0, Digest::ZERO);
    pool.pooled(&pooled);
    assert_eq!(pool.receive(&other), "rival");
    // The other one becomes final, through another validator.
    let refused = pool.finalize(&[other], 1);
    assert_eq!((refused[0].0, refused[0].1.code), (pooled_id, RefusalCode::Sequence));
}

#[test]
fn refusals_are_bounded_and_forgotten_oldest_first() {
    let pool = Pool::new(|config| config.refusals_max = 2);
    let ids: Vec<Digest> = (2..5)
        .map(|sequence| {
            let duplicate = pool.city.register_stream(sequence);
            assert_eq!(pool.receive(&duplicate), "refused");
            cairn_proof::statement::statement_id(&duplicate)
        })
        .collect();
    let known: Vec<bool> = ids.iter().map(|id| pool.pool.refusal(id).is_some()).collect();
    assert_eq!(known, [false, true, true]);
}

#[test]
fn what_is_not_final_after_a_time_is_sent_again() {
    let mut pool = Pool::new(|config| config.gossip_again_ms = 3_000);
    let (statement, _) = pool.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    pool.pooled(&statement);
    assert!(pool.pool.to_repeat(2_999).is_empty());
    assert_eq!(pool.pool.to_repeat(3_000), [Bytes::from(statement.clone())]);
    assert!(pool.pool.to_repeat(3_001).is_empty(), "once per interval");
    assert_eq!(pool.pool.to_repeat(6_000).len(), 1);
    pool.finalize(&[statement], 6_001);
    assert!(pool.pool.to_repeat(60_000).is_empty());
}

#[test]
fn statements_of_several_signers_that_build_on_each_other_all_apply() {
    let mut pool = Pool::new(|_| ());
    let (mut previous, mut statements) = (Digest::ZERO, Vec::new());
    for at in 0..6_u64 {
        let seed = if at % 2 == 0 { INGEST } else { OTHER_INGEST };
        let (statement, id) = pool.city.anchor(seed, 1 + at, 0, 10 * at, previous);
        pool.pooled(&statement);
        previous = id;
        statements.push(statement);
    }
    // Rebuilt in signer order, some have to wait for the next pass or block; none is lost.
    assert!(pool.finalize(&statements[..1], 1).is_empty());
    assert_eq!(pool.pool.size().0, 5);
    assert!(pool.finalize(&statements[1..], 2).is_empty());
    assert_eq!(pool.pool.size(), (0, 0));
    assert_eq!(pool.state.sequence(&key(OWNER).identity()), Sequence(1));
}

/// A grant may be on its way here while the statement that needs it is there already.
#[test]
fn who_has_no_right_yet_is_parked_and_who_asks_is_told() {
    let pool = Pool::new(|_| ());
    let (anchor, _) = pool.city.anchor(OWNER, 2, 0, 0, Digest::ZERO);
    assert_eq!(pool.refused(&anchor), RefusalCode::NotAllowed);
    assert_eq!(pool.receive(&anchor), "parked");
    let grant = SetRole {
        stream: pool.state.streams()[0].definition.name.clone(),
        identity: key(OWNER).identity(),
        role: Role::Anchorer,
        granted: true,
    };
    let statement = Statement { signer: key(OWNER).identity(), sequence: Sequence(2), body: Body::SetRole(grant) };
    let grant = statement.sign(&key(OWNER), &pool.city.genesis.tag()).unwrap();
    assert_eq!(pool.receive(&grant), "rival", "one statement for each number of a signer");
    let (later, _) = pool.city.anchor(OWNER, 3, 0, 0, Digest::ZERO);
    let mut pool = Pool::new(|_| ());
    assert_eq!(pool.receive(&later), "parked");
    pool.finalize(&[grant], 0);
    assert_eq!(pool.candidates(AMPLE), [later]);
    assert!(pool.pool.has_ready(&pool.state));
}

/// The heads that count are those of every partition in it; one that moved on takes the statement out of the pool.
#[test]
fn several_anchors_wait_and_fall_together() {
    let mut pool = Pool::new(|_| ());
    let none = Digest::ZERO;
    let (several, ids) = pool.city.anchors(INGEST, 1, &[(0, 0, none), (1, 0, none), (2, 0, none)]);
    pool.pooled(&several);
    // What follows one of them applies on top of it, and who wants the same offsets is told so.
    let (next, _) = pool.city.anchor(INGEST, 2, 1, 10, ids[1]);
    pool.pooled(&next);
    let (rival, _) = pool.city.anchor(OTHER_INGEST, 1, 2, 0, none);
    assert_eq!(pool.refused(&rival), RefusalCode::Overlap);
    let (early, _) = pool.city.anchors(OTHER_INGEST, 1, &[(2, 20, ids[2]), (3, 0, none)]);
    assert_eq!(pool.refused(&early), RefusalCode::Gap);
    assert_eq!(pool.candidates(AMPLE), [several.clone(), next.clone()]);

    // The rival is final first: none of the three may be, nor what follows them.
    let gone = pool.finalize(&[rival], 0);
    let codes: Vec<_> = gone.iter().map(|(id, refusal)| (*id, refusal.code)).collect();
    assert_eq!(codes, [(cairn_proof::statement::statement_id(&several), RefusalCode::Overlap)]);
    assert!(gone[0].1.message.starts_with("anchor 2 of 3, none of which is taken: "), "{}", gone[0].1);
    assert!(pool.pool.candidates(&pool.state, &Digest::ZERO, AMPLE).iter().all(|it| *it != several));

    // Without the one that was lost, the others are taken.
    let (others, _) = pool.city.anchors(INGEST, 3, &[(0, 0, none), (1, 0, none)]);
    pool.pooled(&others);
    pool.finalize(std::slice::from_ref(&others), 0);
    assert_eq!(pool.receive(&others), "final");
}

/// A statement, and why it is parked if it is.
type Waiting = (Key, Digest, Option<RefusalCode>);

/// What a pool tells: its statements and which of them are parked; and the sequence numbers that it goes on from.
fn told(pool: &Pool, sorted: bool) -> (Vec<Waiting>, Vec<Sequence>) {
    let inner = pool.pool.lock();
    // What is parked behind statements of its own signer is put in order by sorting alone.
    let code = |entry: &Entry| entry.parked.as_ref().map(|refusal| refusal.code);
    let shown = |entry: &Entry| code(entry).filter(|code| sorted || *code != RefusalCode::Sequence);
    let entries = inner.entries.iter().map(|(key, entry)| (*key, entry.id, shown(entry))).collect();
    let signers = [INGEST, OTHER_INGEST, OWNER];
    (entries, signers.map(|seed| inner.ready.sequence(&key(seed).identity())).to_vec())
}

mod advancing_tells_what_sorting_would {
    use super::*;
    use proptest::prelude::*;

    /// An anchor of one of two signers and four partitions, at the pool's head of that partition or off it.
    #[derive(Debug, Clone)]
    enum Step {
        Submit {
            signer: bool,
            partition: u32,
            sequence_skipped: u64,
        },
        Receive {
            signer: bool,
            partition: u32,
            ahead: u64,
        },
        /// Of the candidates, how many become final, from which.
        Block {
            count: usize,
            from: usize,
        },
        /// An anchor that the pool never saw.
        Foreign {
            partition: u32,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<bool>(), 0..4u32, 0..2u64)
                .prop_map(|(signer, partition, sequence_skipped)| Step::Submit { signer, partition, sequence_skipped }),
            2 => (any::<bool>(), 0..4u32, 0..3u64).prop_map(|(signer, partition, ahead)| Step::Receive { signer, partition, ahead }),
            3 => (0..6usize, 0..3usize).prop_map(|(count, from)| Step::Block { count, from }),
            1 => (0..4u32).prop_map(|partition| Step::Foreign { partition }),
        ]
    }

    /// One pool that advances beside one that is sorted at every block.
    fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
        let (mut advancing, mut sorting) = (Pool::new(|_| ()), Pool::new(|_| ()));
        let mut sequences = [0_u64; 2];
        let mut heads = [(0_u64, Digest::ZERO); 4];
        for step in steps {
            // Each signer has two partitions to itself: of rivals, either may rightly be the one that is ready.
            let own = |signer: bool, partition: u32| partition % 2 + 2 * u32::from(signer);
            let mut made = |signer: bool, partition: u32, skipped: u64, first: u64, previous: Digest| {
                let sequence = &mut sequences[usize::from(signer)];
                *sequence += 1 + skipped;
                let seed = if signer { OTHER_INGEST } else { INGEST };
                advancing.city.anchor(seed, *sequence, partition, first, previous)
            };
            match step {
                Step::Submit { signer, partition, sequence_skipped } => {
                    let partition = own(signer, partition);
                    let (first, previous) = heads[partition as usize];
                    let (statement, id) = made(signer, partition, sequence_skipped, first, previous);
                    let outcome = |admission: Admission| match admission {
                        Admission::Refused(refusal) => Err(refusal.code),
                        _ => Ok(()),
                    };
                    let (one, other) = (outcome(advancing.submit(&statement)), outcome(sorting.submit(&statement)));
                    prop_assert_eq!(one, other);
                    if one.is_ok() {
                        heads[partition as usize] = (first + 10, id);
                    }
                }
                Step::Receive { signer, partition, ahead } => {
                    let partition = own(signer, partition);
                    let (first, previous) = heads[partition as usize];
                    let (statement, _) = made(signer, partition, 0, first + 10 * ahead, previous);
                    prop_assert_eq!(advancing.receive(&statement), sorting.receive(&statement));
                }
                Step::Block { count, from } => {
                    // What a proposer would take of the candidates: each that applies.
                    let mut state = advancing.state.clone();
                    let mut taken = Vec::new();
                    for statement in advancing.candidates(AMPLE).into_iter().skip(from) {
                        if taken.len() < count
                            && state.apply(&at(advancing.last.next()), &statement, &Signatures::default()).is_ok()
                        {
                            taken.push(statement);
                        }
                    }
                    both(&mut advancing, &mut sorting, &taken)?;
                }
                Step::Foreign { partition } => {
                    let partition = own(true, partition);
                    let head = advancing.state.head("traffic.flow", cairn_proof::Partition(partition)).unwrap();
                    let sequence = advancing.state.sequence(&key(OTHER_INGEST).identity()).0.max(sequences[1]) + 1;
                    sequences[1] = sequence;
                    let (statement, _) =
                        advancing.city.anchor(OTHER_INGEST, sequence, partition, head.next.0, head.anchor);
                    both(&mut advancing, &mut sorting, &[statement])?;
                }
            }
        }
        while advancing.last.0 % 32 != 31 {
            both(&mut advancing, &mut sorting, &[])?;
        }
        both(&mut advancing, &mut sorting, &[])?;
        prop_assert_eq!(told(&advancing, true), told(&sorting, true));
        Ok(())
    }

    fn both(advancing: &mut Pool, sorting: &mut Pool, statements: &[Vec<u8>]) -> Result<(), TestCaseError> {
        let codes = |refused: Vec<(Digest, Refusal)>| -> HashSet<_> {
            refused.into_iter().map(|(id, why)| (id, why.code)).collect()
        };
        let one = codes(advancing.finalize(statements, 0));
        sorting.block(statements);
        let other = codes(sorting.pool.rebase(at(sorting.last), &sorting.state, 0, |id| sorting.finals.contains(id)));
        prop_assert_eq!(one, other);
        prop_assert_eq!(told(advancing, false), told(sorting, false));
        Ok(())
    }

    proptest! {
        #[test]
        fn at_every_block(steps in proptest::collection::vec(step(), 0..40)) {
            check(steps)?;
        }
    }
}

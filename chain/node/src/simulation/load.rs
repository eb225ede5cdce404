//! The statements of a run, and the clients that submit them.
//!
//! A client behaves as ours do: it asks what became of a statement, and submits it again, to anybody, while nobody knows.
//!
//! | client | says | must be |
//! | --- | --- | --- |
//! | owner | the stream, identities; one after the other | final |
//! | two steady ingest nodes | anchors of partitions of their own, of one or several in a statement, one statement after the other | final |
//! | two rivals | anchors of the same partitions, several at once, some on heads of long ago, some of all partitions in a statement | final or refused |
//! | operators | votes for changes of the committee ([`super::governor`]) | final or refused |
//! | vandals | unregistered signers, anchors that leave out offsets, changed bytes, statements of before | as above |

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use cairn_proof::{
    Digest, Partition,
    genesis::{Genesis, GenesisIdentity},
    identity::IdentityKind,
    statement::{Body, SignedStatement, StreamDefinition, statement_id},
};

use super::{Plan, Violation, draw::Draw, governor::Governor};
use crate::{
    city::{City, INGEST, OTHER_INGEST, OWNER, STRANGER, definition, key},
    mempool::{Admission, may_lift},
    shared::Shared,
};

const STREAM: &str = "traffic.flow";
const RIVALS: [u8; 2] = [5, 6];
/// Partitions that both rivals want.
const CONTESTED: u64 = 3;
/// Seeds of the keys of identities that the owner registers.
const REGISTERED: std::ops::Range<u8> = 20..90;
/// A client asks again after this long.
const ASK_MS: u64 = 700;

/// A validator that can be asked.
pub(crate) struct Desk<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) honest: bool,
}

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    Final,
    Refused,
}

struct Submitted {
    id: Digest,
    bytes: Bytes,
    /// The statement is rightful, and its client waits for it before it says more: it may not be refused.
    rightful: bool,
    /// It holds anchors of several partitions.
    several: bool,
    fate: Fate,
    ask_ms: u64,
}

/// One that says one thing after the other.
struct Steady {
    seed: u8,
    sequence: u64,
    /// Partitions of its own: where the next anchor of each begins, and the name of the last.
    heads: Vec<(u32, u64, Digest)>,
    waits_for: Option<usize>,
}

struct Rival {
    seed: u8,
    sequence: u64,
    /// What it said last of each contested partition: where the next begins, and the anchor's name.
    last: BTreeMap<u32, (u64, Digest)>,
}

/// All clients of a run.
pub(crate) struct Load {
    city: City,
    governor: Option<Governor>,
    draw: Draw,
    left: u64,
    /// Of 1,000 ticks, in how many somebody says something.
    permille: u64,
    owner: Steady,
    registered: u8,
    steady: Vec<Steady>,
    rivals: Vec<Rival>,
    submitted: Vec<Submitted>,
    refused_at_once: u64,
    pub(crate) violations: Vec<Violation>,
}

/// How often [`Load::tick`] is called.
pub(crate) const TICK_MS: u64 = 100;

impl Load {
    /// Of all places for validators, the first `validators` are validators from the beginning.
    pub(crate) fn new(validators: usize, honest: Vec<bool>, plan: &Plan, seed: u64) -> Self {
        let cheats = honest.iter().filter(|honest| !**honest).count();
        let mut city = City::new(validators);
        city.genesis.parameters.heartbeat_ms = plan.heartbeat_ms;
        city.genesis.parameters.epoch_blocks = plan.epoch_blocks;
        // Suspensions for absence leave four validators, which bear one that cheats.
        city.genesis.parameters.absence_epochs = if cheats <= 1 { 3 } else { 0 };
        for seed in RIVALS {
            let (name, public_key) = (format!("rival {seed}"), key(seed).public());
            city.genesis.identities.push(GenesisIdentity { name, kind: IdentityKind::Node, public_key });
        }
        let steady = |(seed, partitions): (u8, std::ops::Range<u32>)| Steady {
            seed,
            sequence: 0,
            heads: partitions.map(|partition| (partition, 0, Digest::ZERO)).collect(),
            waits_for: None,
        };
        city.genesis.parameters.vote_epochs = 500;
        Self {
            city,
            governor: plan.votes.then(|| Governor::new(honest, seed ^ 1)),
            draw: Draw::new(seed),
            left: plan.statements,
            permille: (1_000 * plan.statements * TICK_MS / plan.fault_ms.max(1)).min(5_000),
            owner: steady((OWNER, 0..0)),
            registered: REGISTERED.start,
            steady: [(INGEST, 10..13), (OTHER_INGEST, 20..23)].map(steady).into(),
            rivals: RIVALS.map(|seed| Rival { seed, sequence: 0, last: BTreeMap::new() }).into(),
            submitted: Vec::new(),
            refused_at_once: 0,
            violations: Vec::new(),
        }
    }

    pub(crate) const fn genesis(&self) -> &Genesis {
        &self.city.genesis
    }

    /// How many statements came to which end.
    pub(crate) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let mut outcomes = BTreeMap::from([("refused at once", self.refused_at_once)]);
        for statement in &self.submitted {
            let name = match statement.fate {
                Fate::Waiting => "waiting",
                Fate::Final => "final",
                Fate::Refused => "refused",
            };
            *outcomes.entry(name).or_default() += 1;
            if statement.several && statement.fate == Fate::Final {
                *outcomes.entry("of several anchors, final").or_default() += 1;
            }
        }
        outcomes
    }

    /// Whether every statement is final or refused.
    pub(crate) fn all_resolved(&self) -> bool {
        self.submitted.iter().all(|one| one.fate != Fate::Waiting)
    }

    /// Statements that are neither final nor refused, and what each validator knows of them.
    pub(crate) fn waiting(&self, desks: &[Desk<'_>]) -> Vec<String> {
        let waiting = self.submitted.iter().filter(|one| one.fate == Fate::Waiting);
        let told = |one: &Submitted| {
            let known: Vec<String> = desks.iter().map(|desk| known(desk.shared, &one.id)).collect();
            let decoded = SignedStatement::decode(&one.bytes);
            let what = decoded.map_or_else(
                |error| error.to_string(),
                |signed| {
                    let statement = signed.statement();
                    format!("sequence {} of {}", statement.sequence, statement.signer)
                },
            );
            format!("{} ({what}): {}", one.id, known.join("; "))
        };
        waiting.map(told).collect()
    }

    /// The clients go on; `more` is false once they only wait for what they said.
    pub(crate) fn tick(&mut self, desks: &[Desk<'_>], now_ms: u64, more: bool) {
        if desks.is_empty() {
            return;
        }
        let mut budget = self.permille;
        while more && self.left > 0 && (budget >= 1_000 || self.draw.within(0, 999) < budget) {
            budget = budget.saturating_sub(1_000);
            self.say(desks, now_ms);
        }
        let honest: Vec<&Desk<'_>> = desks.iter().filter(|desk| desk.honest).collect();
        if honest.is_empty() {
            return;
        }
        if more {
            self.govern(&honest, desks, now_ms);
        }
        self.ask(&honest, now_ms);
    }

    fn govern(&mut self, honest: &[&Desk<'_>], desks: &[Desk<'_>], now_ms: u64) {
        let tips = honest.iter().map(|desk| desk.shared.ledger.tip());
        let Some((governor, tip)) = self.governor.as_mut().zip(tips.max_by_key(|tip| tip.header.height)) else {
            return;
        };
        for vote in governor.votes(&tip, now_ms) {
            let left = self.left;
            self.submit(desks, vote, false, now_ms);
            self.left = left;
        }
    }

    fn say(&mut self, desks: &[Desk<'_>], now_ms: u64) {
        // The owner speaks first, and nobody else before its stream is registered.
        let started = self.submitted.first().is_some_and(|stream| stream.fate == Fate::Final);
        match self.draw.within(0, 99) {
            _ if !started => self.owner_says(desks, now_ms),
            0..=14 => self.owner_says(desks, now_ms),
            15..=44 => self.steady_says(desks, now_ms),
            45..=79 => self.rival_says(desks, now_ms),
            _ => self.vandal_says(desks, now_ms),
        }
    }

    fn fate(&self, waits_for: Option<usize>) -> Fate {
        waits_for.map_or(Fate::Final, |index| self.submitted[index].fate)
    }

    fn owner_says(&mut self, desks: &[Desk<'_>], now_ms: u64) {
        if self.fate(self.owner.waits_for) != Fate::Final {
            return;
        }
        self.owner.sequence += 1;
        let statement = if self.owner.sequence == 1 {
            let anchorers = [INGEST, OTHER_INGEST].iter().chain(&RIVALS).map(|seed| key(*seed).identity()).collect();
            let stream = StreamDefinition { anchorers, ..definition(STREAM) };
            self.city.sign(OWNER, 1, Body::RegisterStream(stream))
        } else if self.registered < REGISTERED.end {
            self.registered += 1;
            self.city.register_identity(self.owner.sequence, self.registered - 1)
        } else {
            return;
        };
        self.owner.waits_for = self.submit(desks, statement.into(), true, now_ms);
    }

    fn steady_says(&mut self, desks: &[Desk<'_>], now_ms: u64) {
        let index = self.draw.index(self.steady.len());
        let steady = &self.steady[index];
        if self.fate(steady.waits_for) != Fate::Final {
            return;
        }
        let (seed, sequence) = (steady.seed, steady.sequence + 1);
        // Some of its partitions, from a drawn one on.
        let (count, from) = (self.draw.index(steady.heads.len()) + 1, self.draw.index(steady.heads.len()));
        let mut heads = steady.heads.clone();
        heads.rotate_left(from);
        heads.truncate(count);
        heads.sort_by_key(|head| head.0);
        let (statement, ids) = self.anchors(seed, sequence, &heads);
        let waits_for = self.submit(desks, statement.into(), true, now_ms);
        let steady = &mut self.steady[index];
        steady.sequence = sequence;
        steady.waits_for = waits_for;
        for ((partition, next, _), id) in heads.into_iter().zip(ids) {
            if let Some(head) = steady.heads.iter_mut().find(|head| head.0 == partition) {
                *head = (partition, next + 10, id);
            }
        }
    }

    /// A statement of one anchor or of several.
    fn anchors(&self, seed: u8, sequence: u64, batches: &[(u32, u64, Digest)]) -> (Vec<u8>, Vec<Digest>) {
        match batches {
            [(partition, first, previous)] => {
                let (statement, id) = self.city.anchor(seed, sequence, *partition, *first, *previous);
                (statement, vec![id])
            }
            several => self.city.anchors(seed, sequence, several),
        }
    }

    fn rival_says(&mut self, desks: &[Desk<'_>], now_ms: u64) {
        let index = self.draw.index(self.rivals.len());
        let several = self.draw.percent(25);
        let drawn = self.draw.within(0, CONTESTED - 1) as u32;
        let partitions = if several { 0..CONTESTED as u32 } else { drawn..drawn + 1 };
        let state = &desks[self.draw.index(desks.len())].shared.ledger.tip().state;
        let mut batches = Vec::new();
        for partition in partitions {
            let head = state.head(STREAM, Partition(partition)).unwrap_or_default();
            let own = self.rivals[index].last.get(&partition).copied();
            let (first, previous) = match own {
                Some(own) if own.0 > head.next.0 && self.draw.percent(70) => own,
                _ => (head.next.0, head.anchor),
            };
            batches.push((partition, first, previous));
        }
        self.rivals[index].sequence += 1;
        let (seed, sequence) = (self.rivals[index].seed, self.rivals[index].sequence);
        let (statement, ids) = self.anchors(seed, sequence, &batches);
        for ((partition, first, _), id) in batches.into_iter().zip(ids) {
            self.rivals[index].last.insert(partition, (first + 10, id));
        }
        self.submit(desks, statement.into(), false, now_ms);
    }

    fn vandal_says(&mut self, desks: &[Desk<'_>], now_ms: u64) {
        let rival = self.draw.index(self.rivals.len());
        let statement = match self.draw.within(0, 4) {
            0 => self.city.anchor(STRANGER, 1, 0, 0, Digest::ZERO).0.into(),
            1 => {
                let rival = &mut self.rivals[rival];
                rival.sequence += 1;
                self.city.anchor(rival.seed, rival.sequence, 0, 1_000_000, Digest::ZERO).0.into()
            }
            2 if !self.submitted.is_empty() => self.draw.one(&self.submitted).bytes.clone(),
            3 if !self.submitted.is_empty() => {
                let mut bytes = self.draw.one(&self.submitted).bytes.to_vec();
                let at = self.draw.index(bytes.len());
                bytes[at] ^= 1 << self.draw.index(8);
                bytes.into()
            }
            _ => vec![0x5a; self.draw.index(70_000) + 1].into(),
        };
        self.submit(desks, statement, false, now_ms);
    }

    /// Submits to a random validator. Returns the statement's index, unless it was refused at once.
    fn submit(&mut self, desks: &[Desk<'_>], bytes: Bytes, rightful: bool, now_ms: u64) -> Option<usize> {
        let id = statement_id(&bytes);
        self.left = self.left.saturating_sub(1);
        let admission = desks[self.draw.index(desks.len())].shared.submit(&bytes, now_ms);
        if let Some(known) = self.submitted.iter().position(|one| one.id == id) {
            return Some(known);
        }
        if !rightful && matches!(admission, Admission::Refused(_)) {
            self.refused_at_once += 1;
            return None;
        }
        // Somebody who lags may refuse what is rightful; its client tries again elsewhere.
        let several = SignedStatement::decode(&bytes)
            .is_ok_and(|signed| matches!(&signed.statement().body, Body::Anchors(anchors) if anchors.len() > 1));
        self.submitted.push(Submitted { id, bytes, rightful, several, fate: Fate::Waiting, ask_ms: now_ms + ASK_MS });
        Some(self.submitted.len() - 1)
    }

    fn ask(&mut self, desks: &[&Desk<'_>], now_ms: u64) {
        for statement in &mut self.submitted {
            if statement.fate != Fate::Waiting || statement.ask_ms > now_ms {
                continue;
            }
            statement.ask_ms = now_ms + ASK_MS;
            let shared = desks[self.draw.index(desks.len())].shared;
            let refusal = if shared.ledger.locate(&statement.id).is_some() {
                statement.fate = Fate::Final;
                continue;
            } else if let Some(refusal) = shared.mempool.refusal(&statement.id) {
                refusal
            } else if shared.mempool.contains(&statement.id) {
                continue;
            } else {
                match shared.submit(&statement.bytes, now_ms) {
                    Admission::Refused(refusal) => refusal,
                    _ => continue,
                }
            };
            if !statement.rightful {
                statement.fate = Fate::Refused;
            } else if !may_lift(refusal.code) {
                statement.fate = Fate::Refused;
                let message = format!("statement {}: {refusal}", statement.id);
                self.violations.push(Violation::new("rightful statements are not refused", message));
            }
        }
    }
}

/// What one validator knows of a statement.
fn known(shared: &Arc<Shared>, id: &Digest) -> String {
    match (shared.ledger.locate(id), shared.mempool.refusal(id)) {
        (Some(location), _) => format!("final at {}", location.height),
        (None, Some(refusal)) => refusal.to_string(),
        (None, None) if shared.mempool.contains(id) => "waits".into(),
        (None, None) => "unknown".into(),
    }
}

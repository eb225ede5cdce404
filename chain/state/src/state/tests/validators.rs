//! Committees, votes, reputation: each rule kept and broken once.

use super::*;
use cairn_proof::certificate::forge as certificates;
use cairn_proof::evidence::forge as messages;
use cairn_proof::evidence::{Equivocation, Message};
use cairn_proof::statement::{Attest, Change, Vote};
use proptest::prelude::*;

/// Epochs of that many blocks: frozen at the sixth, ended at the tenth.
const EPOCH: u64 = 10;
const FIRST: u8 = 101;

/// A chain of validators FIRST, FIRST + 1, … whose blocks are made one after the other.
struct Chain {
    genesis: Genesis,
    header: Header,
    state: State,
    sequences: BTreeMap<u8, u64>,
}

impl Chain {
    fn new(count: u8, parameters: Parameters) -> Self {
        let validator = |seed: u8| GenesisValidator {
            name: format!("v{seed}"),
            public_key: key(seed).public(),
            address: format!("v{seed}:7000"),
        };
        let validators = (FIRST..FIRST + count).map(validator).collect();
        let genesis = Genesis { validators, parameters, ..genesis() };
        genesis.check().unwrap();
        let (header, state) = (genesis.header(), State::genesis(&genesis));
        Self { genesis, header, state, sequences: BTreeMap::new() }
    }

    fn of(count: u8) -> Self {
        Self::new(count, Parameters { epoch_blocks: EPOCH, ..Parameters::default() })
    }

    fn sign(&mut self, seed: u8, body: Body) -> Vec<u8> {
        let sequence = self.sequences.entry(seed).or_default();
        *sequence += 1;
        let statement = Statement { signer: key(seed).identity(), sequence: Sequence(*sequence), body };
        statement.sign(&key(seed), &self.genesis.tag()).unwrap()
    }

    /// Makes the next block, `skipped` views after its parent, by whom the turn is.
    fn block(&mut self, skipped: u64, statements: Vec<Vec<u8>>) -> Result<(), RefusalCode> {
        let height = self.header.height.next();
        let timestamp_ms = self.header.timestamp_ms + 1;
        let mut after = self.state.clone();
        for statement in &statements {
            let applied = after.apply(&BlockTime { height, timestamp_ms }, statement, &StrictSignatures);
            applied.map_err(|refusal| refusal.code)?;
        }
        let epoch = epoch::epoch_of(height, EPOCH);
        let parent_view = if epoch == self.header.epoch { self.header.view } else { 0 };
        let view = parent_view + 1 + skipped;
        let keys = self.state.committee().keys();
        let proposer = *keys[epoch::leader(epoch, view, keys.len())].as_bytes();
        let round = Round { epoch, view, parent_view, proposer };
        let envelopes = statements.iter().map(Vec::as_slice);
        let header = seal(&self.header, &self.state, &mut after, &round, timestamp_ms, envelopes);
        let block = SignedBlock { header: header.encode(), statements, certificate: None };
        let executed = execute(&self.header, &self.state, &block, &StrictSignatures).unwrap();
        assert_eq!(executed.state.root(), after.root());
        (self.header, self.state) = (executed.header, executed.state);
        Ok(())
    }

    fn empty_blocks_to(&mut self, height: u64) {
        while self.header.height.0 < height {
            self.block(0, vec![]).unwrap();
        }
    }

    fn say(&mut self, seed: u8, body: Body) -> Result<(), RefusalCode> {
        let statement = self.sign(seed, body);
        self.block(0, vec![statement])
    }

    fn vote(&mut self, seed: u8, change: &Change) -> Result<(), RefusalCode> {
        self.say(seed, Body::Vote(Vote { expires_epoch: 9, change: change.clone() }))
    }

    /// Votes of all given validators in one block.
    fn votes(&mut self, seeds: impl IntoIterator<Item = u8>, change: &Change) {
        let vote =
            |chain: &mut Self, seed| chain.sign(seed, Body::Vote(Vote { expires_epoch: 9, change: change.clone() }));
        let statements = seeds.into_iter().map(|seed| vote(self, seed)).collect();
        self.block(0, statements).unwrap();
    }

    fn add(&self, seed: u8) -> Change {
        Change::add(&key(seed), format!("v{seed}"), format!("v{seed}:7000"), &self.genesis.tag())
    }

    fn entry(&self, seed: u8) -> ValidatorEntry {
        (**self.state.validator(&key(seed).public()).unwrap()).clone()
    }

    fn committee(&self) -> Vec<PublicKey> {
        self.state.committee().keys().to_vec()
    }

    fn equivocation(&self, seed: u8, epoch: u64, view: u64) -> Equivocation {
        let sign = |payload: u8| {
            let message = Message::Notarize { parent_view: 0, payload: Digest([payload; 32]) };
            messages::message(&key(seed), epoch, view, message, &self.genesis.tag())
        };
        Equivocation::new(key(seed).public(), epoch, view, sign(1), sign(2))
    }
}

fn keys(seeds: impl IntoIterator<Item = u8>) -> Vec<PublicKey> {
    let mut keys: Vec<_> = seeds.into_iter().map(|seed| key(seed).public()).collect();
    keys.sort();
    keys
}

#[test]
fn genesis_validators_are_nodes_and_the_first_committee() {
    let chain = Chain::of(4);
    assert_eq!(chain.committee(), keys(FIRST..FIRST + 4));
    assert_eq!(chain.state.next_committee(), chain.state.committee());
    let identity = chain.state.identity(&key(FIRST).identity()).unwrap();
    assert_eq!((identity.kind, identity.controller), (IdentityKind::Node, None));
    assert_eq!(chain.entry(FIRST).status, ValidatorStatus::Active);
    assert_eq!(chain.state.committee().hash(), chain.header.validators_hash);
}

#[test]
fn a_vote_of_more_than_two_thirds_grows_the_committee_at_the_epochs_end() {
    let mut chain = Chain::of(4);
    let add = chain.add(120);
    chain.votes([FIRST, FIRST + 1], &add);
    assert!(chain.state.validator(&key(120).public()).is_none(), "two of four are not more than two thirds");
    assert_eq!(chain.vote(FIRST, &add), Err(RefusalCode::Duplicate), "one vote each");
    chain.vote(FIRST + 2, &add).unwrap();
    assert_eq!(chain.entry(120).status, ValidatorStatus::Active);
    assert_eq!(chain.vote(FIRST + 3, &add), Err(RefusalCode::Duplicate), "it passed");
    assert_eq!(chain.state.identity(&key(120).identity()).unwrap().kind, IdentityKind::Node);
    let proposals = chain.state.proposals();
    assert_eq!((proposals.len(), proposals[0].passed, proposals[0].votes.len()), (1, Some(Height(2)), 3));
    // Not of the committee yet: it has no vote.
    assert_eq!(chain.vote(120, &add), Err(RefusalCode::NotAllowed));
    chain.empty_blocks_to(EPOCH / 2 - 1);
    assert_eq!(chain.state.next_committee(), chain.state.committee());
    chain.empty_blocks_to(EPOCH / 2);
    assert_eq!(chain.state.next_committee().len(), 5, "frozen");
    let before = chain.header.validators_hash;
    chain.empty_blocks_to(EPOCH - 2);
    assert_eq!(chain.header.next_validators_hash, before);
    chain.empty_blocks_to(EPOCH - 1);
    let mut all = keys(FIRST..FIRST + 4);
    all.push(key(120).public());
    all.sort();
    assert_eq!(chain.committee(), all, "the last block of the epoch hands over");
    assert_eq!(chain.header.validators_hash, before);
    assert_eq!(chain.header.next_validators_hash, chain.state.committee().hash());
    chain.empty_blocks_to(EPOCH);
    assert_eq!((chain.header.epoch, chain.header.view), (1, 1));
    assert_eq!(chain.header.validators_hash, chain.header.next_validators_hash);
}

#[test]
fn what_passes_after_the_freeze_waits_for_the_epoch_after() {
    let mut chain = Chain::of(4);
    chain.empty_blocks_to(EPOCH / 2);
    let remove = Change::RemoveValidator { public_key: key(FIRST).public() };
    chain.votes(FIRST + 1..FIRST + 4, &remove);
    assert_eq!(chain.entry(FIRST).status, ValidatorStatus::Removed);
    chain.empty_blocks_to(EPOCH);
    assert_eq!(chain.committee().len(), 4);
    // It is of the committee until the end of that epoch, and votes.
    let remove_another = Change::RemoveValidator { public_key: key(FIRST + 1).public() };
    chain.vote(FIRST, &remove_another).unwrap();
    chain.empty_blocks_to(2 * EPOCH - 1);
    assert_eq!(chain.committee(), keys(FIRST + 1..FIRST + 4));
    assert_eq!(chain.vote(FIRST, &chain.add(120)), Err(RefusalCode::NotAllowed));
    // Its vote for the other one no longer counts: two of three, with it, would be three.
    chain.votes([FIRST + 2, FIRST + 3], &remove_another);
    assert_eq!(chain.entry(FIRST + 1).status, ValidatorStatus::Active);
    chain.vote(FIRST + 1, &remove_another).unwrap();
    assert_eq!(chain.entry(FIRST + 1).status, ValidatorStatus::Removed);
    // A removed one comes back by vote and keeps its record.
    let add = chain.add(FIRST);
    let made = chain.entry(FIRST).proposals_made;
    chain.votes(FIRST + 1..FIRST + 4, &add);
    assert_eq!((chain.entry(FIRST).status, chain.entry(FIRST).proposals_made), (ValidatorStatus::Active, made));
}

#[test]
fn votes_that_break_a_rule_are_refused() {
    let mut chain = Chain::of(4);
    let first = key(FIRST).public();
    let unknown = key(77).public();
    let Change::AddValidator { name, address, possession, .. } = chain.add(120) else { unreachable!() };
    let unheld = Change::AddValidator { public_key: unknown, name, address, possession };
    let parameters = Parameters { epoch_blocks: EPOCH, ..Parameters::default() };
    let cases = [
        (chain.add(FIRST), RefusalCode::Duplicate),
        // The key of an organisation.
        (chain.add(OWNER), RefusalCode::Duplicate),
        (unheld, RefusalCode::Signature),
        (Change::RemoveValidator { public_key: unknown }, RefusalCode::UnknownIdentity),
        (Change::SetAddress { public_key: unknown, address: "v:1".into() }, RefusalCode::UnknownIdentity),
        (Change::SetAddress { public_key: first, address: format!("v{FIRST}:7000") }, RefusalCode::Duplicate),
        (Change::Reinstate { public_key: first }, RefusalCode::NotAllowed),
        (Change::SetParameters(Parameters { epoch_blocks: 20, ..parameters }), RefusalCode::NotAllowed),
        (Change::SetParameters(parameters), RefusalCode::Duplicate),
    ];
    for (change, code) in cases {
        assert_eq!(chain.vote(FIRST, &change), Err(code), "{change:?}");
    }
    let add = chain.add(120);
    for expires_epoch in [11, u64::MAX] {
        let late = Body::Vote(Vote { expires_epoch, change: add.clone() });
        assert_eq!(chain.say(FIRST, late), Err(RefusalCode::Limit), "{expires_epoch}");
    }
    assert_eq!(chain.vote(OWNER, &add), Err(RefusalCode::NotAllowed), "an organisation has no vote");
    // Too many proposals of one validator; another may still open one, and votes for open ones are taken.
    for seed in 120..128 {
        chain.vote(FIRST, &chain.add(seed)).unwrap();
    }
    assert_eq!(chain.vote(FIRST, &chain.add(128)), Err(RefusalCode::Limit));
    chain.vote(FIRST + 1, &chain.add(128)).unwrap();
    chain.vote(FIRST, &chain.add(128)).unwrap();
    // The epoch is over that it was meant for.
    chain.empty_blocks_to(EPOCH);
    let early = Body::Vote(Vote { expires_epoch: 0, change: add });
    assert_eq!(chain.say(FIRST, early), Err(RefusalCode::Limit));
}

#[test]
fn the_last_validator_stays() {
    let mut chain = Chain::of(1);
    let remove = Change::RemoveValidator { public_key: key(FIRST).public() };
    assert_eq!(chain.vote(FIRST, &remove), Err(RefusalCode::Limit));
    let evidence = Body::Evidence(chain.equivocation(FIRST, 0, 7).into());
    chain.say(FIRST, evidence).unwrap();
    assert_eq!(chain.entry(FIRST).status, ValidatorStatus::Active, "nobody else is there");
    assert_eq!(chain.entry(FIRST).equivocations, 1);
}

#[test]
fn addresses_and_parameters_change_by_vote_parameters_with_the_epoch() {
    let mut chain = Chain::of(4);
    let address = Change::SetAddress { public_key: key(FIRST).public(), address: "elsewhere:7001".into() };
    chain.votes(FIRST..FIRST + 3, &address);
    assert_eq!(chain.entry(FIRST).address, "elsewhere:7001");
    let parameters = Parameters { heartbeat_ms: 500, ..*chain.state.parameters() };
    chain.votes(FIRST..FIRST + 3, &Change::SetParameters(parameters));
    assert_eq!((chain.state.parameters().heartbeat_ms, chain.state.next_parameters().heartbeat_ms), (3000, 500));
    chain.empty_blocks_to(EPOCH - 2);
    assert_eq!(chain.state.parameters().heartbeat_ms, 3000);
    chain.empty_blocks_to(EPOCH - 1);
    assert_eq!(chain.state.parameters(), &parameters);
}

#[test]
fn proposals_made_and_missed_are_counted_by_turn() {
    let mut chain = Chain::of(4);
    // View 1 is missed, view 2 brings block 1; then whole turns are missed.
    chain.block(1, vec![]).unwrap();
    let at = |view: u64| chain.state.committee().keys()[epoch::leader(0, view, 4)];
    let (first, second) = (at(1), at(2));
    let counts = |chain: &Chain, key: &PublicKey| {
        let entry = chain.state.validator(key).unwrap();
        (entry.proposals_made, entry.proposals_missed)
    };
    assert_eq!((counts(&chain, &first), counts(&chain, &second)), ((0, 1), (1, 0)));
    chain.block(4 * 1_000_000 + 1, vec![]).unwrap();
    let total: u64 = chain.state.validators().iter().map(|entry| entry.proposals_missed).sum();
    assert_eq!(total, 1 + 4_000_001);
    assert!(chain.state.validators().iter().all(|entry| entry.proposals_missed >= 1_000_000));
    // However far a hostile header skips, counting ends.
    let mut state = chain.state.clone();
    let round = Round { epoch: 0, view: u64::MAX, parent_view: 0, proposer: [0; 32] };
    state.end_block(&round, Height(3));
    assert!(state.root() != chain.state.root());
}

#[test]
fn the_absent_are_suspended_within_limits_and_come_back_by_vote() {
    let parameters = Parameters { epoch_blocks: EPOCH, absence_epochs: 2, ..Parameters::default() };
    let run = |count: u8, absent: u8, epochs: u64| {
        let mut chain = Chain::new(count, parameters);
        let absent = keys(FIRST..FIRST + absent);
        while chain.header.height.0 < epochs * EPOCH - 1 {
            // Views of absent leaders are skipped.
            let height = chain.header.height.next();
            let epoch = epoch::epoch_of(height, EPOCH);
            let parent_view = if epoch == chain.header.epoch { chain.header.view } else { 0 };
            let members = chain.committee();
            let gone =
                |skipped| absent.contains(&members[epoch::leader(epoch, parent_view + 1 + skipped, members.len())]);
            let skipped = (0..).take_while(|skipped| gone(*skipped)).count() as u64;
            chain.block(skipped, vec![]).unwrap();
        }
        chain
    };
    let suspended = |chain: &Chain| {
        chain.state.validators().iter().filter(|entry| entry.status == ValidatorStatus::Suspended).count()
    };
    // One of five: suspended after two epochs, out of the committee after the next freeze.
    assert_eq!(suspended(&run(5, 1, 1)), 0);
    let mut chain = run(5, 1, 2);
    assert_eq!((suspended(&chain), chain.entry(FIRST).absent_epochs), (1, 2));
    assert_eq!(chain.committee().len(), 5);
    chain = run(5, 1, 3);
    assert_eq!(chain.committee(), keys(FIRST + 1..FIRST + 5));
    let reinstate = Change::Reinstate { public_key: key(FIRST).public() };
    chain.votes(FIRST + 1..FIRST + 4, &reinstate);
    assert_eq!((chain.entry(FIRST).status, chain.entry(FIRST).absent_epochs), (ValidatorStatus::Active, 0));
    chain.empty_blocks_to(4 * EPOCH - 1);
    assert_eq!(chain.committee().len(), 5);
    // One of four stays: less than four could bear no fault. Three of eight: two at once, at most.
    assert_eq!(suspended(&run(4, 1, 5)), 0);
    assert_eq!(suspended(&run(8, 3, 2)), 2);
    assert_eq!(suspended(&run(8, 3, 3)), 3);
}

/// An attestation by `by` of the chain's last block, certified by `signers`.
fn attestation(chain: &Chain, signers: &[u8]) -> Attest {
    let members = keys(FIRST..FIRST + 4);
    let place = |seed: &u8| members.iter().position(|member| *member == key(*seed).public()).unwrap();
    let mut all: Vec<_> = (FIRST..FIRST + 4).map(key).collect();
    all.sort_by_key(SigningKey::public);
    let mut places: Vec<usize> = signers.iter().map(place).collect();
    places.sort_unstable();
    let certificate = certificates::certificate(&chain.header, &all, &places, &chain.genesis.tag());
    Attest { header: chain.header.encode(), certificate }
}

#[test]
fn votes_are_seen_in_attested_certificates() {
    let mut chain = Chain::of(4);
    chain.block(0, vec![]).unwrap();
    let attest = attestation(&chain, &[FIRST, FIRST + 1, FIRST + 2]);
    assert_eq!(chain.say(OWNER, Body::Attest(attest.clone())), Err(RefusalCode::NotAllowed));
    chain.say(FIRST + 3, Body::Attest(attest.clone())).unwrap();
    let seen: Vec<_> = (FIRST..FIRST + 4).map(|seed| chain.entry(seed).votes_seen).collect();
    assert_eq!((seen, chain.state.attested()), (vec![1, 1, 1, 0], Height(1)));
    assert_eq!(chain.say(FIRST, Body::Attest(attest.clone())), Err(RefusalCode::Duplicate));
    // Too few signers, a changed certificate, a header that is not the certified one.
    let few = attestation(&chain, &[FIRST, FIRST + 1]);
    let good = attestation(&chain, &[FIRST, FIRST + 1, FIRST + 2]);
    let mut broken = good.clone();
    *broken.certificate.last_mut().unwrap() ^= 1;
    let header = Header { timestamp_ms: 77, ..chain.header.clone() };
    let other = Attest { header: header.encode(), ..good.clone() };
    for body in [few, broken, other] {
        assert_eq!(chain.say(FIRST, Body::Attest(body)), Err(RefusalCode::Evidence));
    }
    // Of an epoch that is over: its committee need not be this one.
    chain.empty_blocks_to(EPOCH);
    assert_eq!(chain.say(FIRST, Body::Attest(good)), Err(RefusalCode::Evidence));
}

#[test]
fn proven_equivocation_suspends_once() {
    let mut chain = Chain::of(4);
    let evidence = chain.equivocation(FIRST, 0, 7);
    let forged = Equivocation { validator: key(FIRST + 1).public(), ..evidence };
    assert_eq!(chain.say(OWNER, Body::Evidence(forged.into())), Err(RefusalCode::Evidence));
    let of_nobody = chain.equivocation(77, 0, 7);
    assert_eq!(chain.say(OWNER, Body::Evidence(of_nobody.into())), Err(RefusalCode::UnknownIdentity));
    chain.say(OWNER, Body::Evidence(evidence.into())).unwrap();
    assert_eq!((chain.entry(FIRST).status, chain.entry(FIRST).equivocations), (ValidatorStatus::Suspended, 1));
    assert_eq!(chain.say(INGEST, Body::Evidence(evidence.into())), Err(RefusalCode::Duplicate));
    chain.empty_blocks_to(EPOCH);
    assert_eq!(chain.committee(), keys(FIRST + 1..FIRST + 4), "three are left: equivocation is always answered");
    // Reinstated in epoch 1. What it did in epoch 0 is counted, and not punished again; what it does now is.
    chain.votes(FIRST + 1..FIRST + 4, &Change::Reinstate { public_key: key(FIRST).public() });
    let old = chain.equivocation(FIRST, 0, 8);
    chain.say(OWNER, Body::Evidence(old.into())).unwrap();
    assert_eq!((chain.entry(FIRST).status, chain.entry(FIRST).equivocations), (ValidatorStatus::Active, 2));
    let new = chain.equivocation(FIRST, 1, 3);
    chain.say(OWNER, Body::Evidence(new.into())).unwrap();
    assert_eq!((chain.entry(FIRST).status, chain.entry(FIRST).equivocations), (ValidatorStatus::Suspended, 3));
}

#[test]
fn as_many_absentees_go_as_the_committee_bears_and_four_stay() {
    let most: Vec<_> = (0..12).map(crate::rules::absentees_suspended_max).collect();
    assert_eq!(most, [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3]);
}

/// One thing that may happen in a block: by a validator, about another one.
#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing { skipped: u64 },
    Vote { by: u8, kind: u8, about: u8 },
    Evidence { about: u8, view: u64 },
    Attest { by: u8 },
}

fn any_event() -> impl Strategy<Value = Event> {
    let validator = || FIRST..FIRST + 7;
    prop_oneof![
        (0u64..9).prop_map(|skipped| Event::Nothing { skipped }),
        (validator(), 0u8..5, validator()).prop_map(|(by, kind, about)| Event::Vote { by, kind, about }),
        (validator(), 0u8..5, FIRST..FIRST + 2).prop_map(|(by, kind, about)| Event::Vote { by, kind, about }),
        (validator(), 0u64..4).prop_map(|(about, view)| Event::Evidence { about, view }),
        validator().prop_map(|by| Event::Attest { by }),
    ]
}

impl Chain {
    fn change(&self, kind: u8, about: u8) -> Change {
        let public_key = key(about).public();
        match kind {
            0 => self.add(about),
            1 => Change::RemoveValidator { public_key },
            2 => Change::SetAddress { public_key, address: "elsewhere:1".into() },
            3 => Change::Reinstate { public_key },
            _ => {
                Change::SetParameters(Parameters { heartbeat_ms: 1000 + u64::from(about), ..*self.state.parameters() })
            }
        }
    }

    /// Whether it happened, or was refused.
    fn happen(&mut self, event: Event) -> bool {
        match event {
            Event::Nothing { skipped } => self.block(skipped, vec![]).is_ok(),
            Event::Vote { by, kind, about } => {
                let expires_epoch = self.header.epoch + 3;
                let change = self.change(kind, about);
                self.say(by, Body::Vote(Vote { expires_epoch, change })).is_ok()
            }
            Event::Evidence { about, view } => {
                let evidence = self.equivocation(about, self.header.epoch, view);
                self.say(OWNER, Body::Evidence(evidence.into())).is_ok()
            }
            Event::Attest { by } => {
                let members: Vec<_> =
                    (FIRST..FIRST + 7).filter(|seed| self.state.committee().contains(&key(*seed).public())).collect();
                let keys: Vec<_> = members.iter().map(|seed| key(*seed)).collect();
                let all: Vec<usize> = (0..keys.len()).collect();
                let certificate = certificates::certificate(&self.header, &keys, &all, &self.genesis.tag());
                self.say(by, Body::Attest(Attest { header: self.header.encode(), certificate })).is_ok()
            }
        }
    }
}

/// What must hold between a block and the one after it, whatever happened in it.
fn check(before: &Chain, after: &Chain) {
    let (old, new) = (&before.state, &after.state);
    let height = after.header.height;
    let last = epoch::is_last(height, EPOCH);
    assert!(!new.committee().is_empty() && new.all_validators().any(|it| it.status == ValidatorStatus::Active));
    assert!(last || new.committee() == old.committee(), "committees change at the ends of epochs alone");
    assert!(last || new.parameters() == old.parameters());
    let frozen = height.0 % EPOCH == EPOCH / 2;
    assert!(frozen || new.next_committee() == old.next_committee(), "the next one is fixed at the freeze");
    if last {
        assert_eq!(new.committee(), old.next_committee());
        let active = |state: &State| state.all_validators().filter(|it| it.status == ValidatorStatus::Active).count();
        assert!(active(old).saturating_sub(active(new)) <= crate::rules::absentees_suspended_max(active(old)) + 1);
    }
    let made: u64 = new.all_validators().map(|it| it.proposals_made).sum();
    assert_eq!(made, height.0, "each block has one proposer");
    for proposal in new.proposals().iter().filter(|it| it.passed == Some(height)) {
        let counted = proposal.votes.iter().filter(|key| old.committee().contains(key)).count();
        assert!(counted >= old.committee().quorum(), "more than two thirds voted for what passes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn whatever_validators_do_the_rules_of_committees_hold(events in proptest::collection::vec(any_event(), 1..80)) {
        let parameters = Parameters { epoch_blocks: EPOCH, absence_epochs: 1, ..Parameters::default() };
        let mut chain = Chain::new(5, parameters);
        for event in events {
            let before = Chain {
                genesis: chain.genesis.clone(),
                header: chain.header.clone(),
                state: chain.state.clone(),
                sequences: BTreeMap::new(),
            };
            if chain.happen(event) {
                check(&before, &chain);
            } else {
                prop_assert_eq!(chain.state.root(), before.state.root());
            }
        }
    }
}

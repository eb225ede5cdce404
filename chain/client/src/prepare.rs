//! Statements of fetched blocks, decoded and verified on all processors ahead of their execution.
//!
//! ```text
//! blocks ─▶ groups of statements ─▶ workers: decode, verify under the signer's key ─▶ in order, to the one who executes
//! ```
//!
//! The keys are those of the state that the blocks build on. A statement whose signer came or changed keys within these
//! blocks is checked again when it is applied; so what is accepted is the same as without preparation. Each signature is
//! verified by itself and strictly: checking many as one batch would accept others than that. Nothing here decides
//! anything, and no more than a few groups are in memory beside the blocks.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use cairn_chain_state::{Prepared, State};
use cairn_proof::block::SignedBlock;
use cairn_proof::identity::{IdentityId, PublicKey};

/// Statements of one group: enough to outweigh handing it over.
const GROUP_STATEMENTS: usize = 64;
/// Groups that wait for the one who executes, for each worker.
const GROUPS_WAITING: usize = 4;
/// No more workers are started, however many processors there are.
const WORKERS_MAX: usize = 8;

/// Runs `execute` with the prepared statements of `blocks`, in the order of the blocks.
pub fn with_prepared<T>(
    blocks: &[SignedBlock],
    state: &State,
    execute: impl FnOnce(&mut dyn Iterator<Item = Prepared>) -> T,
) -> T {
    let envelopes: Vec<&[u8]> = blocks.iter().flat_map(|block| &block.statements).map(Vec::as_slice).collect();
    let groups: Vec<&[&[u8]]> = envelopes.chunks(GROUP_STATEMENTS).collect();
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS_MAX).min(groups.len());
    if workers < 2 {
        // At the head of the chain there is a block at a time: a thread would cost more than it saves.
        let mut keys = Keys { state, known: HashMap::new() };
        return execute(&mut envelopes.into_iter().map(|envelope| keys.prepare(envelope)));
    }
    thread::scope(|scope| {
        // Worker w prepares groups w, w + workers, …; taking from the workers in turn restores the order.
        let receivers: Vec<Receiver<Vec<Prepared>>> = (0..workers)
            .map(|worker| {
                let (sender, receiver) = sync_channel(GROUPS_WAITING);
                let groups = groups.iter().skip(worker).step_by(workers).copied();
                scope.spawn(move || prepare_groups(groups, state, &sender));
                receiver
            })
            .collect();
        let groups = (0..).map_while(|number: usize| receivers[number % workers].recv().ok());
        execute(&mut groups.flatten())
    })
}

/// Prepares groups until all are, or nobody takes them any more.
fn prepare_groups<'a>(groups: impl Iterator<Item = &'a [&'a [u8]]>, state: &State, sender: &SyncSender<Vec<Prepared>>) {
    let mut keys = Keys { state, known: HashMap::new() };
    for group in groups {
        if sender.send(group.iter().map(|envelope| keys.prepare(envelope)).collect()).is_err() {
            return;
        }
    }
}

/// The keys of signers, each looked up once.
struct Keys<'a> {
    state: &'a State,
    known: HashMap<IdentityId, Option<PublicKey>>,
}

impl Keys<'_> {
    fn prepare(&mut self, envelope: &[u8]) -> Prepared {
        let mut prepared = Prepared::decode(envelope);
        if let Some(signer) = prepared.signer() {
            let state = self.state;
            let key = self.known.entry(signer).or_insert_with(|| state.identity(&signer).map(|entry| entry.public_key));
            if let Some(key) = key {
                prepared.verify(key, state.chain());
            }
        }
        prepared
    }
}

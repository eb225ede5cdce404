//! What consensus asks this chain: make a block, check a block.
//!
//! A leader with nothing to say waits inside [`Application::propose`] until a statement comes or the heartbeat
//! fires; declining instead would make views spin. Statements that an un-finalized ancestor already holds do not
//! count, or an empty block would follow each statement. A vote is never refused because of the local clock: a
//! block from the future is voted for once the clock has come to it, or consensus gives the view up.

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

use commonware_consensus::{
    Application, Epochable as _,
    marshal::ancestry::Ancestry,
    simplex::{scheme::ed25519::Scheme, types::Context},
};
use commonware_cryptography::{Digested, Digestible as _, ed25519::PublicKey, sha256};
use commonware_runtime::{Clock, Metrics, Spawner};
use futures::{
    StreamExt as _,
    future::{Either, select},
};
use tracing::{debug, warn};

use crate::{
    block::Block,
    clock,
    config::NodeConfig,
    executor::{Executed, Round},
    limits::SPECULATION_BLOCKS_MAX,
    shared::{Shared, heartbeat},
};

/// How consensus names a block's place.
pub(crate) type Place = Context<sha256::Digest, PublicKey>;

/// How often a leader that must catch up first looks whether it has.
const CATCH_UP_POLL: Duration = Duration::from_millis(50);

/// Makes and checks blocks for one validator.
#[derive(Clone)]
pub(crate) struct Proposer {
    shared: Arc<Shared>,
    coalesce: Duration,
    drift_ms_max: u64,
    bounds: (usize, usize),
}

/// What became of a search for the state that a block builds on.
enum Base {
    Known(Box<Executed>),
    /// The last finalized block here is too far behind.
    Behind,
    /// The ancestors do not lead to the last finalized block, or one of them is not valid.
    Conflict(String),
    /// An ancestor could not be had.
    Missing,
}

impl Proposer {
    pub(crate) fn new(shared: Arc<Shared>, config: &NodeConfig) -> Self {
        Self {
            shared,
            coalesce: Duration::from_millis(config.coalesce_ms),
            drift_ms_max: config.clock_drift_ms_max,
            bounds: (config.block.statements_max, config.block.bytes_max),
        }
    }

    /// The executed block at the head of `ancestry`; executes what is missing below it.
    async fn base(&self, mut ancestry: impl Ancestry<Block>) -> Base {
        let executor = &self.shared.executor;
        let mut missing = Vec::new();
        let mut executed = loop {
            let Some(block) = ancestry.next().await else { return Base::Missing };
            let (id, height) = (block.inner().id(), block.inner().height());
            if let Some(executed) = executor.get(&id) {
                break executed;
            }
            let finalized = executor.finalized();
            if height <= finalized {
                return Base::Conflict(format!("ancestor {id} at height {height} is not the final one"));
            }
            if height.0 - finalized.0 > SPECULATION_BLOCKS_MAX || missing.len() as u64 > SPECULATION_BLOCKS_MAX {
                return Base::Behind;
            }
            missing.push(block);
        };
        for block in missing.into_iter().rev() {
            let block = block.inner();
            match executor.execute(&executed, block, &Round::of(block.header())) {
                Ok(next) => {
                    executor.keep(next.clone());
                    executed = next;
                }
                Err(invalid) => return Base::Conflict(format!("ancestor {}: {invalid}", block.id())),
            }
        }
        Base::Known(Box::new(executed))
    }

    /// As [`Self::base`], but waits while this validator is far behind.
    async fn base_when_near<E: Clock>(&self, runtime: &E, ancestry: impl Ancestry<Block>) -> Base {
        loop {
            match self.base(ancestry.clone()).await {
                Base::Behind => runtime.sleep(CATCH_UP_POLL).await,
                other => return other,
            }
        }
    }

    /// Waits for statements that `parent` does not hold, or for the heartbeat, and builds on `parent`.
    async fn build<E: Clock>(&self, runtime: &E, parent: &Executed, round: &Round) -> Block {
        let mempool = &self.shared.mempool;
        let mut heartbeat = pin!(runtime.sleep(heartbeat(&parent.state)));
        let mut over = false;
        loop {
            // Registered before the pool is looked at, so that nothing that comes between is missed.
            let mut changed = pin!(mempool.changed());
            changed.as_mut().enable();
            let waiting = mempool.has_ready(&parent.state);
            if waiting && !over && !self.coalesce.is_zero() {
                runtime.sleep(self.coalesce).await;
            }
            if waiting || over {
                let block = self.assemble(parent, round, clock::milliseconds(runtime));
                if over || !block.statements().is_empty() {
                    return block;
                }
            }
            over = matches!(select(changed, heartbeat.as_mut()).await, Either::Right(_));
        }
    }

    fn assemble(&self, parent: &Executed, round: &Round, now_ms: u64) -> Block {
        let executor = &self.shared.executor;
        let timestamp_ms = now_ms.max(parent.header.timestamp_ms.saturating_add(1));
        let candidates = self.shared.mempool.candidates(&parent.state, &parent.id, self.bounds);
        let (mut state, statements, applied) = executor.build(parent, timestamp_ms, candidates, self.bounds);
        let header = executor.header(parent, round, timestamp_ms, &statements, &mut state);
        let block = Block::new(header.clone(), statements);
        executor.keep(Executed { header, id: block.id(), state, applied: applied.into() });
        block
    }

    /// Executes `block` and checks it against its place; never answers when its ancestors cannot be had.
    async fn verify_unknown<E: Clock>(
        &self,
        runtime: &E,
        place: &Place,
        ancestry: impl Ancestry<Block>,
        block: &Block,
    ) -> bool {
        let parent = match self.base_when_near(runtime, ancestry).await {
            Base::Known(parent) => parent,
            Base::Conflict(reason) => {
                warn!(id = %block.id(), reason, "block refused");
                return false;
            }
            // Without its ancestors nothing can be said about a block: no vote, until consensus moves on.
            Base::Behind | Base::Missing => return pending().await,
        };
        match self.shared.executor.execute(&parent, block, &round_of(place)) {
            Ok(executed) => {
                self.shared.executor.keep(executed);
                true
            }
            Err(invalid) => {
                warn!(id = %block.id(), height = %block.height(), %invalid, "block refused");
                self.shared.metrics.blocks_refused.inc();
                false
            }
        }
    }
}

fn round_of(place: &Place) -> Round {
    let mut proposer = [0; 32];
    proposer.copy_from_slice(place.leader.as_ref());
    Round { epoch: place.epoch().get(), view: place.round.view().get(), parent_view: place.parent.0.get(), proposer }
}

impl<E: Spawner + Metrics + Clock> Application<E> for Proposer {
    type SigningScheme = Scheme;
    type Context = Place;
    type Block = Block;
    type Input = ();

    async fn propose(
        &mut self,
        (runtime, place): (E, Place),
        ancestry: impl Ancestry<Block>,
        (): (),
    ) -> Option<Digested<Block>> {
        let parent = match self.base_when_near(&runtime, ancestry).await {
            Base::Known(parent) => parent,
            Base::Conflict(reason) => {
                warn!(view = place.round.view().get(), reason, "cannot propose on this parent");
                return None;
            }
            Base::Behind | Base::Missing => return None,
        };
        let block = self.build(&runtime, &parent, &round_of(&place)).await;
        debug!(height = %block.height(), statements = block.statements().len(), "block proposed");
        let digest = block.digest();
        Some(Digested::precomputed(block, digest))
    }

    async fn verify(&mut self, (runtime, place): (E, Place), mut ancestry: impl Ancestry<Block>) -> bool {
        let Some(block) = ancestry.next().await else { return pending().await };
        let block = block.inner_shared();
        let id = block.id();
        let known = self.shared.executor.get(&id).is_some_and(|known| Round::of(&known.header) == round_of(&place));
        if !known && !self.verify_unknown(&runtime, &place, ancestry, &block).await {
            return false;
        }
        let early = block.header().timestamp_ms.saturating_sub(clock::milliseconds(&runtime));
        if early > self.drift_ms_max {
            runtime.sleep(Duration::from_millis(early - self.drift_ms_max)).await;
        }
        true
    }
}

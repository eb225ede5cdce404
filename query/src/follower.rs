//! Snapshots out of the followed chain.
//!
//! The follower's ledger only grows, and each entry knows its block, so "as of height H" is a filter over it. The lock
//! is held while pointers are copied, never while a statement runs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_chain_client::Follower;
use cairn_proof::epoch::epoch_of;
use cairn_proof::identity::PublicKey;
use cairn_proof::statement::{ChainTag, StreamDefinition};
use cairn_proof::units::Height;

use crate::error::{QueryError, Result};
use crate::snapshot::{BlockList, IdentityAt, ProposalAt, Snapshot, SnapshotSource, StreamAt, ValidatorAt};

/// Snapshots of the chain that a [`Follower`] follows.
pub struct FollowedChain {
    follower: Follower,
    chain: ChainTag,
    /// Definitions by the statement that registered them and how many schemas they have, so that snapshots share them.
    definitions: Mutex<HashMap<(cairn_proof::Digest, usize), Arc<StreamDefinition>>>,
}

impl fmt::Debug for FollowedChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FollowedChain").field("height", &self.follower.height()).finish_non_exhaustive()
    }
}

impl FollowedChain {
    /// Over a follower, which goes on following.
    pub fn new(follower: Follower) -> Self {
        let chain = follower.ledger().genesis().tag();
        Self { follower, chain, definitions: Mutex::default() }
    }

    fn blocks(&self, up_to: Height) -> BlockList {
        let follower = self.follower.clone();
        Arc::new(move || {
            let ledger = follower.ledger();
            let blocks = ledger.blocks();
            blocks[..blocks.partition_point(|block| block.height <= up_to)].to_vec()
        })
    }
}

impl SnapshotSource for FollowedChain {
    fn chain(&self) -> Option<ChainTag> {
        Some(self.chain)
    }

    fn newest(&self) -> Height {
        self.follower.ledger().height()
    }

    fn snapshot(&self, at: Height) -> Result<Arc<Snapshot>> {
        let ledger = self.follower.ledger();
        if at > ledger.height() {
            return Err(QueryError::height_not_known(at, ledger.height()));
        }
        let mut definitions = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = ledger
            .streams_at(at)
            .into_iter()
            .map(|stream| StreamAt {
                definition: Arc::clone(
                    definitions
                        .entry((stream.statement, stream.definition.schemas.len()))
                        .or_insert_with(|| Arc::new(stream.definition.clone())),
                ),
                owner: stream.owner,
                registered: stream.height,
                anchors: ledger.anchors(&stream.definition.name, at).into(),
            })
            .collect();
        let block = ledger.blocks().get(usize::try_from(at.0).unwrap_or(usize::MAX)).cloned();
        let time_ms = block.as_ref().map_or(0, |block| block.timestamp_ms);
        let identities = ledger.identities_at(at).into_iter().map(|entry| IdentityAt::new(entry, time_ms)).collect();
        let committees = ledger.committees_at(at).to_vec();
        let committee = committees.last().map(|last| Arc::clone(&last.committee));
        let position = |key: &PublicKey| committee.as_ref()?.place(key).and_then(|place| u32::try_from(place).ok());
        let validators = ledger
            .validators_at(at)
            .into_iter()
            .map(|entry| ValidatorAt { position: position(&entry.public_key), entry })
            .collect();
        let parameters = ledger.parameters_at(at);
        let epoch = epoch_of(at.next(), parameters.epoch_blocks);
        let proposals = committee.iter().flat_map(|committee| {
            ledger.proposals_at(at).into_iter().map(|entry| ProposalAt::new(entry, epoch, committee))
        });
        Ok(Arc::new(Snapshot {
            height: at,
            streams,
            validators,
            identities,
            keys: ledger.keys_at(at),
            roles: ledger.roles_at(at),
            proposals: proposals.collect(),
            committees,
            parameters: Some(parameters),
            block,
            blocks: self.blocks(at),
        }))
    }
}

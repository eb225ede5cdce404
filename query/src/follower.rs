//! Snapshots out of the followed chain.
//!
//! The follower's ledger only grows, and each entry knows its block, so "as of height H" is a filter over it. The lock
//! is held while pointers are copied, never while a statement runs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_chain_client::Follower;
use cairn_proof::statement::StreamDefinition;
use cairn_proof::units::Height;

use crate::error::{QueryError, Result};
use crate::snapshot::{BlockList, IdentityAt, Snapshot, SnapshotSource, StreamAt, ValidatorAt};

/// Snapshots of the chain that a [`Follower`] follows.
pub struct FollowedChain {
    follower: Follower,
    /// Definitions by the statement that registered them, so that snapshots share them.
    definitions: Mutex<HashMap<cairn_proof::Digest, Arc<StreamDefinition>>>,
}

impl fmt::Debug for FollowedChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FollowedChain").field("height", &self.follower.height()).finish_non_exhaustive()
    }
}

impl FollowedChain {
    /// Over a follower, which goes on following.
    pub fn new(follower: Follower) -> Self {
        Self { follower, definitions: Mutex::default() }
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
            .streams()
            .values()
            .filter(|stream| stream.height <= at)
            .map(|stream| StreamAt {
                definition: Arc::clone(
                    definitions.entry(stream.statement).or_insert_with(|| Arc::new(stream.definition.clone())),
                ),
                owner: stream.owner,
                registered: stream.height,
                anchors: ledger.anchors(&stream.definition.name, at).into(),
            })
            .collect();
        let validators = ledger
            .validators()
            .into_iter()
            .map(|validator| ValidatorAt { name: validator.name.clone(), public_key: validator.public_key })
            .collect();
        let identities = ledger
            .identities()
            .values()
            .filter(|identity| identity.height <= at)
            .map(|identity| IdentityAt {
                id: identity.id,
                kind: identity.kind,
                name: identity.name.clone(),
                public_key: identity.public_key,
                controller: identity.controller,
                registered: identity.height,
            })
            .collect();
        Ok(Arc::new(Snapshot { height: at, streams, validators, identities, blocks: self.blocks(at) }))
    }
}

//! What statements see: the chain's facts at one block height.
//!
//! A [`Snapshot`] is plain data. The query role takes it from the chain follower ([`crate::follower`]); tests build
//! one from sealed segments, without a chain. Nothing in a snapshot changes once it is made, so the same statement at
//! the same height gives the same rows.

use std::fmt;
use std::sync::Arc;

use cairn_chain_client::{AnchorEntry, BlockSummary};
use cairn_proof::identity::{IdentityId, IdentityKind, PublicKey};
use cairn_proof::statement::StreamDefinition;
use cairn_proof::units::Height;

use crate::error::{QueryError, Result};

/// The chain's facts at one height.
#[derive(Clone)]
pub struct Snapshot {
    /// The height.
    pub height: Height,
    /// The registered streams, by name.
    pub streams: Vec<StreamAt>,
    /// The validators that certify blocks at this height, in the order in which certificates count them: by key.
    pub validators: Vec<ValidatorAt>,
    /// The registered identities.
    pub identities: Vec<IdentityAt>,
    /// The blocks from genesis up to and with this height; asked for only when a statement reads them.
    pub blocks: BlockList,
}

/// Gives all blocks up to a snapshot's height, genesis first.
pub type BlockList = Arc<dyn Fn() -> Vec<BlockSummary> + Send + Sync>;

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Snapshot")
            .field("height", &self.height)
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

/// A stream and its anchors, as of a height.
#[derive(Debug, Clone)]
pub struct StreamAt {
    /// What the owner registered.
    pub definition: Arc<StreamDefinition>,
    /// Who registered it.
    pub owner: IdentityId,
    /// The block that registered it.
    pub registered: Height,
    /// Its finalized anchors, each partition's in the order of offsets.
    pub anchors: Arc<[Arc<AnchorEntry>]>,
}

/// A validator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorAt {
    /// A name for people; empty where the chain knows none.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
}

/// A registered identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityAt {
    /// Its id, the hash of its first key.
    pub id: IdentityId,
    /// What it stands for.
    pub kind: IdentityKind,
    /// A name for people.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Who registered it; none for those in the genesis.
    pub controller: Option<IdentityId>,
    /// The block that registered it.
    pub registered: Height,
}

impl Snapshot {
    /// The snapshot of a chain that holds nothing yet.
    pub fn empty(height: Height) -> Self {
        Self { height, streams: Vec::new(), validators: Vec::new(), identities: Vec::new(), blocks: Arc::new(Vec::new) }
    }
}

/// Where snapshots come from: the chain follower, or a fixed series of them in tests.
pub trait SnapshotSource: fmt::Debug + Send + Sync {
    /// The newest finalized height that is known here.
    fn newest(&self) -> Height;

    /// The snapshot at a height of at most [`newest`](Self::newest).
    ///
    /// # Errors
    /// The height is not known here.
    fn snapshot(&self, at: Height) -> Result<Arc<Snapshot>>;
}

/// A fixed series of snapshots: what a chain looked like after each block.
#[derive(Debug, Clone)]
pub struct FixedSnapshots(Vec<Arc<Snapshot>>);

impl FixedSnapshots {
    /// Takes the snapshots in any order. A height between two of them sees the lower one.
    pub fn new(mut snapshots: Vec<Snapshot>) -> Self {
        snapshots.sort_by_key(|snapshot| snapshot.height);
        Self(snapshots.into_iter().map(Arc::new).collect())
    }
}

impl SnapshotSource for FixedSnapshots {
    fn newest(&self) -> Height {
        self.0.last().map_or(Height(0), |snapshot| snapshot.height)
    }

    fn snapshot(&self, at: Height) -> Result<Arc<Snapshot>> {
        if at > self.newest() {
            return Err(QueryError::height_not_known(at, self.newest()));
        }
        let known = self.0.partition_point(|snapshot| snapshot.height <= at);
        match known.checked_sub(1).and_then(|last| self.0.get(last)) {
            Some(snapshot) if snapshot.height == at => Ok(Arc::clone(snapshot)),
            Some(snapshot) => Ok(Arc::new(Snapshot { height: at, ..Snapshot::clone(snapshot) })),
            None => Ok(Arc::new(Snapshot::empty(at))),
        }
    }
}

//! What statements see: the chain's facts at one block height.
//!
//! A [`Snapshot`] is plain data. The query role takes it from the chain follower ([`crate::follower`]); tests build
//! one from sealed segments, without a chain. Nothing in a snapshot changes once it is made, so the same statement at
//! the same height gives the same rows.

use std::fmt;
use std::sync::Arc;

use cairn_chain_client::{
    AnchorEntry, BlockSummary, CommitteeAt, IdentityEntry, KeyAt, ProposalEntry, RoleAt, ValidatorEntry,
};
use cairn_proof::committee::Committee;
use cairn_proof::identity::IdentityId;
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::{ChainTag, StreamDefinition};
use cairn_proof::units::Height;

use crate::error::{QueryError, Result};

/// The chain's facts at one height.
#[derive(Clone)]
pub struct Snapshot {
    /// The height.
    pub height: Height,
    /// The registered streams, by name.
    pub streams: Vec<StreamAt>,
    /// The validators there ever were, by key.
    pub validators: Vec<ValidatorAt>,
    /// The registered identities, by id.
    pub identities: Vec<IdentityAt>,
    /// The keys that identities have, or had: by identity, oldest first.
    pub keys: Vec<KeyAt>,
    /// Who has, or had, which role for which stream.
    pub roles: Vec<RoleAt>,
    /// What validators vote on, or voted on.
    pub proposals: Vec<ProposalAt>,
    /// The committees up to this height, oldest first.
    pub committees: Vec<CommitteeAt>,
    /// The parameters in force; none before the chain is known.
    pub parameters: Option<Parameters>,
    /// The block at this height; none before the chain is known.
    pub block: Option<BlockSummary>,
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
    /// Who owns it.
    pub owner: IdentityId,
    /// The block that registered it.
    pub registered: Height,
    /// Its finalized anchors, each partition's in the order of offsets.
    pub anchors: Arc<[Arc<AnchorEntry>]>,
}

/// A validator: who, where, and how it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorAt {
    /// Its entry in the state.
    pub entry: ValidatorEntry,
    /// Its place in the committee that certifies the next block, as certificates count; none if it is not in it.
    pub position: Option<u32>,
}

/// A registered identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityAt {
    /// Its entry in the state.
    pub entry: Arc<IdentityEntry>,
    /// Whether it may sign at this height's time: `active`, `expired` or `revoked`.
    pub status: &'static str,
}

impl IdentityAt {
    /// An identity at the time of a block, in milliseconds since 1970-01-01 UTC.
    pub fn new(entry: Arc<IdentityEntry>, time_ms: u64) -> Self {
        let status = match *entry {
            IdentityEntry { revoked: Some(_), .. } => "revoked",
            IdentityEntry { expires_ms: Some(expires), .. } if expires <= time_ms => "expired",
            _ => "active",
        };
        Self { entry, status }
    }
}

/// A change that validators vote on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalAt {
    /// Its entry in the state.
    pub entry: Arc<ProposalEntry>,
    /// `open`, `passed` or `expired`.
    pub status: &'static str,
    /// How many votes of the committee are still missing; 0 unless it is open.
    pub missing: u32,
}

impl ProposalAt {
    /// A proposal in an epoch with a committee.
    pub fn new(entry: Arc<ProposalEntry>, epoch: u64, committee: &Committee) -> Self {
        let votes = entry.votes.iter().filter(|key| committee.contains(key)).count();
        let status = match entry.passed {
            Some(_) => "passed",
            None if entry.expires_epoch < epoch => "expired",
            None => "open",
        };
        let missing = if status == "open" { committee.quorum().saturating_sub(votes) } else { 0 };
        Self { entry, status, missing: u32::try_from(missing).unwrap_or(u32::MAX) }
    }
}

impl Snapshot {
    /// The identity that has, or had, a key.
    pub(crate) fn identity_of_key(&self, key: &[u8; 32]) -> Option<IdentityId> {
        self.keys.iter().find(|known| known.key.as_bytes() == key).map(|known| known.identity)
    }

    /// The snapshot of a chain that holds nothing yet.
    pub fn empty(height: Height) -> Self {
        Self {
            height,
            streams: Vec::new(),
            validators: Vec::new(),
            identities: Vec::new(),
            keys: Vec::new(),
            roles: Vec::new(),
            proposals: Vec::new(),
            committees: Vec::new(),
            parameters: None,
            block: None,
            blocks: Arc::new(Vec::new),
        }
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

    /// What binds signatures to this chain; none if it is not known, and then nobody can log in.
    fn chain(&self) -> Option<ChainTag>;
}

/// A fixed series of snapshots: what a chain looked like after each block.
#[derive(Debug, Clone)]
pub struct FixedSnapshots(Vec<Arc<Snapshot>>, Option<ChainTag>);

impl FixedSnapshots {
    /// Takes the snapshots in any order. A height between two of them sees the lower one.
    pub fn new(mut snapshots: Vec<Snapshot>) -> Self {
        snapshots.sort_by_key(|snapshot| snapshot.height);
        Self(snapshots.into_iter().map(Arc::new).collect(), None)
    }

    /// Says which chain they are of.
    #[must_use]
    pub fn of_chain(mut self, chain: ChainTag) -> Self {
        self.1 = Some(chain);
        self
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

    fn chain(&self) -> Option<ChainTag> {
        self.1
    }
}

//! What is final, for whoever asks: the tip, the log over all anchors, where each statement stands, recent blocks.
//!
//! It is written by the finalizer alone, one block at a time, and read by the HTTP API. Older blocks are read from
//! marshal's archive. Memory: 64 bytes an anchor for the log, about 100 bytes a statement for the index, 16 bytes a block
//! with anchors for finding their statements.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use cairn_chain_state::State;
use cairn_proof::{
    Digest, Height, LeafIndex, TreeSize,
    block::SignedBlock,
    committee::Committee,
    epoch,
    header::Header,
    tile::{Kind, Tile},
    tree::{Log, TreeError},
};

use crate::{
    block::Block,
    executor::Executed,
    height::{Heights, Watched},
};

/// Blocks that are kept in memory for followers.
const RECENT_BLOCKS_MAX: usize = 512;
/// Bytes of statements in those blocks.
const RECENT_BYTES_MAX: usize = 16 << 20;

/// The last finalized block.
#[derive(Clone)]
pub(crate) struct Tip {
    pub(crate) header: Header,
    pub(crate) state: State,
}

/// Where a finalized statement stands, or an anchor of one with several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) height: Height,
    /// Its place in the log, for an anchor; of several, that of the first.
    pub(crate) log_index: Option<LeafIndex>,
}

/// A finalized block with its own certificate, if this validator has it.
#[derive(Debug)]
pub(crate) struct FinalBlock {
    pub(crate) block: Block,
    pub(crate) certificate: Option<Vec<u8>>,
}

impl FinalBlock {
    /// The form in which blocks travel over HTTP.
    pub(crate) fn signed(&self) -> SignedBlock {
        self.block.signed(self.certificate.clone())
    }

    fn bytes(&self) -> usize {
        self.block.statements().iter().map(bytes::Bytes::len).sum()
    }
}

/// A proof that an anchor stands in the log.
#[derive(Debug)]
pub(crate) struct LogProof {
    pub(crate) leaf: Digest,
    pub(crate) path: Vec<Digest>,
}

/// The end of an epoch at which the committee changed.
#[derive(Clone, Debug)]
pub(crate) struct CommitteeChanged {
    pub(crate) epoch: u64,
    /// Of the epoch's last block.
    pub(crate) height: Height,
    /// Who certifies from the next epoch on.
    pub(crate) next: Arc<Committee>,
}

/// What is final.
pub(crate) struct Ledger {
    epoch_blocks: u64,
    inner: RwLock<Inner>,
    height: Watched,
}

struct Inner {
    tip: Tip,
    boundary: Header,
    log: Log,
    statements: HashMap<Digest, Location>,
    /// Every block with anchors, and the place of its first one; ascending.
    anchored: Vec<(LeafIndex, Height)>,
    recent: VecDeque<Arc<FinalBlock>>,
    recent_bytes: usize,
    /// Oldest first; one for each vote of the validators that changed them, so there are few.
    committees: Vec<CommitteeChanged>,
}

impl Ledger {
    /// Genesis alone.
    pub(crate) fn new(header: Header, state: State, epoch_blocks: u64) -> Self {
        let height = Watched::new(header.height);
        let inner = Inner {
            boundary: header.clone(),
            tip: Tip { header, state },
            log: Log::new(),
            statements: HashMap::new(),
            anchored: Vec::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            committees: Vec::new(),
        };
        Self { epoch_blocks, inner: RwLock::new(inner), height }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Height of the last finalized block.
    pub(crate) fn height(&self) -> Height {
        self.height.get()
    }

    /// Tells of each new height.
    pub(crate) fn subscribe(&self) -> Heights {
        self.height.subscribe()
    }

    /// The last finalized block.
    pub(crate) fn tip(&self) -> Tip {
        self.read().tip.clone()
    }

    /// The block that the epoch of the next block builds on: the last one of the epoch before, or genesis.
    pub(crate) fn boundary(&self) -> Header {
        self.read().boundary.clone()
    }

    /// Where a finalized statement stands, or an anchor by its own id.
    pub(crate) fn locate(&self, id: &Digest) -> Option<Location> {
        self.read().statements.get(id).copied()
    }

    /// The first `most` changes of the committee at the ends of `epoch` and later ones, oldest first.
    pub(crate) fn committee_changes(&self, epoch: u64, most: usize) -> Vec<CommitteeChanged> {
        let inner = self.read();
        let first = inner.committees.partition_point(|change| change.epoch < epoch);
        inner.committees[first..].iter().take(most).cloned().collect()
    }

    /// A block of the last few hundred.
    pub(crate) fn recent(&self, height: Height) -> Option<Arc<FinalBlock>> {
        let inner = self.read();
        let first = inner.recent.front()?.block.height();
        let index = usize::try_from(height.0.checked_sub(first.0)?).ok()?;
        inner.recent.get(index).cloned()
    }

    /// Proves that the anchor at `index` stands in the log of `size` anchors.
    ///
    /// # Errors
    /// When the log has not grown to `size`, or `index` lies outside.
    pub(crate) fn prove(&self, index: LeafIndex, size: TreeSize) -> Result<LogProof, TreeError> {
        let inner = self.read();
        let path = inner.log.inclusion_path(index, size)?;
        let outside = TreeError::Outside { index: index.0, size: size.0 };
        Ok(LogProof { leaf: inner.log.leaf(index).ok_or(outside)?, path })
    }

    /// The consistency path between the log of `older` and that of `newer` anchors.
    ///
    /// # Errors
    /// When `older` is 0 or larger than `newer`, or the log has not grown to that.
    pub(crate) fn consistency(&self, older: TreeSize, newer: TreeSize) -> Result<Vec<Digest>, TreeError> {
        self.read().log.consistency_path(older, newer)
    }

    /// The hashes of a tile, one after the other; `None` when the log has not grown to them.
    pub(crate) fn tile(&self, tile: &Tile) -> Option<Vec<u8>> {
        let Kind::Hashes(level) = tile.kind else { return None };
        let (level, start) = (Tile::subtree_level(level)?, tile.range()?.start);
        let inner = self.read();
        let hashes = inner.log.subtrees(level, start, usize::try_from(tile.width).ok()?)?;
        Some(hashes.iter().flat_map(|hash| hash.0).collect())
    }

    /// The leaves at these places; `None` when the log has not grown to them.
    pub(crate) fn leaves(&self, places: &Range<u64>) -> Option<Vec<Digest>> {
        let width = usize::try_from(places.end.checked_sub(places.start)?).ok()?;
        Some(self.read().log.subtrees(0, places.start, width)?.to_vec())
    }

    /// The blocks that hold the anchors at these places, in order.
    pub(crate) fn anchored(&self, places: &Range<u64>) -> Vec<Height> {
        let inner = self.read();
        let first = inner.anchored.partition_point(|(index, _)| index.0 <= places.start).saturating_sub(1);
        let within = inner.anchored[first..].iter().take_while(|(index, _)| index.0 < places.end);
        within.map(|(_, height)| *height).collect()
    }

    /// Takes the next finalized block in.
    pub(crate) fn append(&self, executed: &Executed, block: FinalBlock) {
        let mut inner = self.write();
        let before = LeafIndex(inner.log.size().0);
        let height = block.block.height();
        for applied in executed.applied.iter() {
            inner.statements.insert(applied.id, Location { height, log_index: applied.log_index });
            for entry in applied.entries.iter() {
                // An anchor is found by its own id too, also where it came in a statement with others.
                let log_index = Some(inner.log.append(entry.leaf));
                inner.statements.insert(entry.id, Location { height, log_index });
            }
        }
        if inner.log.size().0 > before.0 {
            inner.anchored.push((before, block.block.height()));
        }
        debug_assert_eq!(inner.log.size(), executed.header.log_size, "the log and the state count anchors alike");
        inner.tip = Tip { header: executed.header.clone(), state: executed.state.clone() };
        let header = &executed.header;
        if header.next_validators_hash != header.validators_hash {
            let next = Arc::clone(executed.state.committee());
            inner.committees.push(CommitteeChanged { epoch: header.epoch, height: header.height, next });
        }
        if epoch::is_last(executed.header.height, self.epoch_blocks) {
            inner.boundary = executed.header.clone();
        }
        inner.recent_bytes += block.bytes();
        inner.recent.push_back(Arc::new(block));
        while inner.recent.len() > RECENT_BLOCKS_MAX
            || (inner.recent_bytes > RECENT_BYTES_MAX && inner.recent.len() > 1)
        {
            let bytes = inner.recent.pop_front().map_or(0, |oldest| oldest.bytes());
            inner.recent_bytes -= bytes;
        }
        drop(inner);
        self.height.set(executed.header.height);
    }
}

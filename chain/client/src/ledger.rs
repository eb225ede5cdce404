//! What the followed chain says, in memory and indexed: blocks, streams, identities, anchors.
//!
//! Only [`crate::follow`] writes to it, and only what a certificate proves final. Everything is append-only and knows
//! its block, so that "as of height H" is a filter. Costs about 150 bytes a block and 900 bytes an anchor.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_chain_state::transition::Executed;
use cairn_chain_state::{IdentityEntry, State, StreamEntry};
use cairn_proof::genesis::Genesis;
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::statement::{Anchor, Body};
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition, TreeSize};

/// A final block, without its statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSummary {
    /// Its height.
    pub height: Height,
    /// Digest of its header.
    pub digest: Digest,
    /// The proposer's clock in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: u64,
    /// Key of the validator that proposed it.
    pub proposer: [u8; 32],
    /// How many statements it holds.
    pub statements: u64,
    /// Root of the state after it.
    pub state_root: Digest,
    /// Size of the log after it.
    pub log_size: TreeSize,
}

/// An anchor in a final block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorEntry {
    /// The anchor.
    pub anchor: Anchor,
    /// Its id.
    pub id: Digest,
    /// The envelope, whole.
    pub statement: Arc<[u8]>,
    /// Who signed it.
    pub signer: IdentityId,
    /// Its place in the log.
    pub log_index: LeafIndex,
    /// Its block.
    pub height: Height,
    /// The block's time in milliseconds since 1970-01-01 UTC.
    pub block_timestamp_ms: u64,
}

/// The chain as far as it was followed.
#[derive(Debug)]
pub struct Ledger {
    genesis: Arc<Genesis>,
    header: Header,
    state: State,
    blocks: Vec<BlockSummary>,
    anchors: Vec<Arc<AnchorEntry>>,
    /// Anchors of each partition in offset order, which is also the order of their blocks.
    partitions: BTreeMap<String, BTreeMap<Partition, Vec<Arc<AnchorEntry>>>>,
    streams: BTreeMap<String, Arc<StreamEntry>>,
    identities: BTreeMap<IdentityId, Arc<IdentityEntry>>,
}

impl Ledger {
    /// The ledger at height 0.
    #[must_use]
    pub fn new(genesis: Arc<Genesis>) -> Self {
        let state = State::genesis(&genesis);
        let header = genesis.header();
        let mut ledger = Self {
            blocks: vec![summary(&header)],
            header,
            anchors: vec![],
            partitions: BTreeMap::new(),
            streams: BTreeMap::new(),
            identities: BTreeMap::new(),
            state,
            genesis,
        };
        for identity in &ledger.genesis.identities {
            let id = IdentityId::of(&identity.public_key);
            if let Some(entry) = ledger.state.identity(&id) {
                ledger.identities.insert(id, Arc::new(entry.clone()));
            }
        }
        ledger
    }

    /// Takes in a block that was executed on this ledger's state and is final.
    pub(crate) fn extend(&mut self, executed: Executed, statements: Vec<Vec<u8>>) {
        let Executed { header, state, applied } = executed;
        assert!(header.height == self.header.height.next(), "blocks are taken in one after the other");
        for (applied, envelope) in applied.into_iter().zip(statements) {
            match applied.statement.body {
                Body::Anchor(anchor) => {
                    let entry = Arc::new(AnchorEntry {
                        anchor,
                        id: applied.id,
                        statement: envelope.into(),
                        signer: applied.statement.signer,
                        log_index: applied.log_index.unwrap_or_default(),
                        height: header.height,
                        block_timestamp_ms: header.timestamp_ms,
                    });
                    self.partitions
                        .entry(entry.anchor.stream.clone())
                        .or_default()
                        .entry(entry.anchor.partition)
                        .or_default()
                        .push(entry.clone());
                    self.anchors.push(entry);
                }
                Body::RegisterStream(definition) => {
                    if let Some(entry) = state.stream(&definition.name) {
                        self.streams.insert(definition.name, entry.clone());
                    }
                }
                Body::RegisterIdentity(body) => {
                    let id = IdentityId::of(&body.public_key);
                    if let Some(entry) = state.identity(&id) {
                        self.identities.insert(id, Arc::new(entry.clone()));
                    }
                }
                // The state refuses these, so no block that was executed holds one.
                Body::RotateKey(_)
                | Body::RevokeIdentity(_)
                | Body::SetExpiry(_)
                | Body::SetRole(_)
                | Body::TransferStream(_)
                | Body::Vote(_)
                | Body::Attest(_)
                | Body::Evidence(_) => {}
            }
        }
        self.blocks.push(summary(&header));
        self.header = header;
        self.state = state;
    }

    /// The genesis that everything follows from.
    #[must_use]
    pub fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    /// The height that was followed to.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.header.height
    }

    /// The header at that height.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The state at that height.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// All blocks from height 0, in order.
    #[must_use]
    pub fn blocks(&self) -> &[BlockSummary] {
        &self.blocks
    }

    /// The validators, in ascending order of their keys.
    #[must_use]
    pub fn validators(&self) -> Vec<PublicKey> {
        self.genesis.validator_keys()
    }

    /// All streams by name.
    #[must_use]
    pub const fn streams(&self) -> &BTreeMap<String, Arc<StreamEntry>> {
        &self.streams
    }

    /// The stream with that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Arc<StreamEntry>> {
        self.streams.get(name)
    }

    /// All identities by id.
    #[must_use]
    pub const fn identities(&self) -> &BTreeMap<IdentityId, Arc<IdentityEntry>> {
        &self.identities
    }

    /// All anchors in the order of the log.
    #[must_use]
    pub fn all_anchors(&self) -> &[Arc<AnchorEntry>] {
        &self.anchors
    }

    /// The anchors of one partition in offset order.
    #[must_use]
    pub fn partition(&self, stream: &str, partition: Partition) -> &[Arc<AnchorEntry>] {
        self.partitions.get(stream).and_then(|all| all.get(&partition)).map_or(&[], Vec::as_slice)
    }

    /// The anchors of a stream, partition by partition, in blocks up to `up_to`.
    #[must_use]
    pub fn anchors(&self, stream: &str, up_to: Height) -> Vec<Arc<AnchorEntry>> {
        let all = self.partitions.get(stream).into_iter().flat_map(BTreeMap::values);
        all.flat_map(|entries| &entries[..entries.partition_point(|entry| entry.height <= up_to)]).cloned().collect()
    }

    /// The anchor that accounts for `offset` of a partition.
    #[must_use]
    pub fn anchor_of(&self, stream: &str, partition: Partition, offset: Offset) -> Option<&Arc<AnchorEntry>> {
        let entries = self.partition(stream, partition);
        let after = entries.partition_point(|entry| entry.anchor.first <= offset);
        entries[..after].last().filter(|entry| entry.anchor.last >= offset)
    }
}

fn summary(header: &Header) -> BlockSummary {
    BlockSummary {
        height: header.height,
        digest: header.digest(),
        timestamp_ms: header.timestamp_ms,
        proposer: header.proposer,
        statements: header.statements_count,
        state_root: header.state_root,
        log_size: header.log_size,
    }
}

//! What the followed chain says, in memory and indexed: blocks, streams, identities, anchors.
//!
//! Only [`crate::follow`] writes to it, and only what a certificate proves final. Everything is append-only and knows
//! its block, so that "as of height H" is a filter; what changes in place (an identity's key, a stream's owner, a
//! validator's record) is kept in versions ([`crate::history`]). Costs about 190 bytes a block and 900 bytes an anchor.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_chain_state::transition::Executed;
use cairn_chain_state::{Applied, IdentityEntry, LogEntry, ProposalEntry, State, StreamEntry, ValidatorEntry};
use cairn_proof::Base64Bytes;
use cairn_proof::block::SignedBlock;
use cairn_proof::committee::CommitteeChange;
use cairn_proof::epoch;
use cairn_proof::genesis::Genesis;
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::{Anchor, Body, Change, log_entry, statement_id};
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition, TreeSize};

use crate::history::{CommitteeAt, History, KeyAt, RoleAt};

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
    /// Its id: SHA-256 of its entry in the log.
    pub id: Digest,
    /// The statement that it came in, whole; shared by all anchors of that statement.
    pub statement: Arc<[u8]>,
    /// Its place among the anchors of that statement, from 0; `None` when it is the only one.
    pub place: Option<LeafIndex>,
    /// Who signed it.
    pub signer: IdentityId,
    /// Its place in the log.
    pub log_index: LeafIndex,
    /// Its block.
    pub height: Height,
    /// The block's time in milliseconds since 1970-01-01 UTC.
    pub block_timestamp_ms: u64,
}

impl AnchorEntry {
    /// Its entry in the log: what a receipt carries, and who signed it is told by.
    #[must_use]
    pub fn log_entry(&self) -> Vec<u8> {
        let entry = log_entry(&self.statement, self.place.unwrap_or_default());
        entry.map(Cow::into_owned).unwrap_or_default()
    }

    /// Id of the statement that it came in; its own id when it is the only one there.
    #[must_use]
    pub fn statement_id(&self) -> Digest {
        self.place.map_or(self.id, |_| statement_id(&self.statement))
    }
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
    /// Every key that an identity ever had, oldest first.
    keys: BTreeMap<IdentityId, Vec<PublicKey>>,
    committee_changes: Vec<Arc<CommitteeChange>>,
    history: History,
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
            keys: BTreeMap::new(),
            committee_changes: vec![],
            history: History::default(),
            state,
            genesis,
        };
        let genesis = ledger.genesis.clone();
        let identities = genesis.identities.iter().map(|identity| identity.public_key);
        for key in identities.chain(genesis.validator_keys()) {
            ledger.refresh_identity(&IdentityId::of(&key));
        }
        ledger.history = History::of_genesis(&ledger.state, ledger.identities.keys().copied());
        ledger
    }

    /// Takes in a block that was executed on this ledger's state and is final. The last block of an epoch comes with a
    /// certificate of its own, which proofs across a change of the committee need.
    pub(crate) fn extend(&mut self, executed: Executed, block: &SignedBlock) {
        let Executed { header, state, applied } = executed;
        assert!(header.height == self.header.height.next(), "blocks are taken in one after the other");
        self.blocks.push(summary(&header));
        self.header = header;
        self.state = state;
        for (applied, envelope) in applied.into_iter().zip(&block.statements) {
            self.take_in(applied, envelope);
        }
        self.history.note_block(self.header.height, &self.state);
        if let Some(certificate) = &block.certificate
            && self.header.next_validators_hash != self.header.validators_hash
        {
            self.committee_changes.push(Arc::new(CommitteeChange {
                header: Base64Bytes(self.header.encode()),
                certificate: Base64Bytes(certificate.clone()),
                validators: self.state.committee().keys().to_vec(),
            }));
        }
    }

    /// Indexes what one statement of the last block changed.
    fn take_in(&mut self, applied: Applied, envelope: &[u8]) {
        let Applied { statement, log_index, entries, .. } = applied;
        self.history.note_statement(self.header.height, &self.state, &statement.body);
        let anchors =
            Anchored { signer: statement.signer, log_index: log_index.unwrap_or_default(), entries: &entries };
        match statement.body {
            Body::Anchor(anchor) => self.take_anchors(vec![anchor], anchors, envelope),
            Body::Anchors(bodies) => self.take_anchors(bodies, anchors, envelope),
            Body::RegisterStream(definition) => self.refresh_stream(definition.name),
            Body::TransferStream(body) => self.refresh_stream(body.stream),
            Body::UpdateStream(body) => self.refresh_stream(body.stream),
            Body::RegisterIdentity(body) => self.refresh_identity(&IdentityId::of(&body.public_key)),
            Body::RotateKey(body) => self.refresh_identity(&body.identity),
            Body::RevokeIdentity(body) => self.refresh_identity(&body.identity),
            Body::SetExpiry(body) => self.refresh_identity(&body.identity),
            Body::Vote(body) => {
                if let Change::AddValidator { public_key, .. } = body.change {
                    self.refresh_identity(&IdentityId::of(&public_key));
                }
            }
            // Roles, reputation and proposals are asked of the state.
            Body::SetRole(_) | Body::Attest(_) | Body::Evidence(_) => {}
        }
    }

    fn take_anchors(&mut self, bodies: Vec<Anchor>, anchored: Anchored<'_>, envelope: &[u8]) {
        let statement: Arc<[u8]> = envelope.into();
        let several = bodies.len() > 1;
        for (index, (anchor, entry)) in (0..).zip(bodies.into_iter().zip(anchored.entries)) {
            self.index_anchor(Arc::new(AnchorEntry {
                anchor,
                id: entry.id,
                statement: statement.clone(),
                place: several.then_some(LeafIndex(index)),
                signer: anchored.signer,
                log_index: LeafIndex(anchored.log_index.0 + index),
                height: self.header.height,
                block_timestamp_ms: self.header.timestamp_ms,
            }));
        }
    }

    fn index_anchor(&mut self, entry: Arc<AnchorEntry>) {
        // Looked up by reference first: a stream's name is copied once, not for each of its anchors.
        let stream = &entry.anchor.stream;
        if !self.partitions.contains_key(stream) {
            self.partitions.insert(stream.clone(), BTreeMap::new());
        }
        if let Some(partitions) = self.partitions.get_mut(stream) {
            partitions.entry(entry.anchor.partition).or_default().push(entry.clone());
        }
        self.anchors.push(entry);
    }

    fn refresh_stream(&mut self, name: String) {
        if let Some(entry) = self.state.stream(&name) {
            self.streams.insert(name, entry.clone());
        }
    }

    fn refresh_identity(&mut self, id: &IdentityId) {
        if let Some(entry) = self.state.identity(id) {
            let keys = self.keys.entry(*id).or_default();
            if keys.last() != Some(&entry.public_key) {
                keys.push(entry.public_key);
            }
            self.identities.insert(*id, entry.clone());
        }
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

    /// All validators there ever were, in ascending order of their keys, as they stand now.
    #[must_use]
    pub fn validators(&self) -> Vec<Arc<ValidatorEntry>> {
        self.state.validators()
    }

    /// All changes there ever were a vote for, in ascending order of their ids.
    #[must_use]
    pub fn proposals(&self) -> Vec<Arc<ProposalEntry>> {
        self.state.proposals()
    }

    /// Every end of an epoch at which the committee changed, oldest first: what a proof walks from the genesis.
    #[must_use]
    pub fn committee_changes(&self) -> &[Arc<CommitteeChange>] {
        &self.committee_changes
    }

    /// The committee changes before `epoch` begins: those that a proof under a header of that epoch needs.
    #[must_use]
    pub fn committee_changes_before(&self, epoch: u64) -> &[Arc<CommitteeChange>] {
        let blocks = self.genesis.parameters.epoch_blocks;
        let ends_before = |change: &Arc<CommitteeChange>| {
            Header::decode(&change.header.0).is_ok_and(|header| epoch::epoch_of(header.height, blocks) < epoch)
        };
        &self.committee_changes[..self.committee_changes.partition_point(ends_before)]
    }

    /// The identities after the block at `height`, by id.
    #[must_use]
    pub fn identities_at(&self, height: Height) -> Vec<Arc<IdentityEntry>> {
        self.history.identities_at(height)
    }

    /// The keys that identities had up to the block at `height`: by identity, oldest first.
    #[must_use]
    pub fn keys_at(&self, height: Height) -> Vec<KeyAt> {
        self.history.keys_at(height)
    }

    /// The streams after the block at `height`, by name.
    #[must_use]
    pub fn streams_at(&self, height: Height) -> Vec<Arc<StreamEntry>> {
        self.history.streams_at(height)
    }

    /// The roles that were ever given, as they stood after the block at `height`.
    #[must_use]
    pub fn roles_at(&self, height: Height) -> Vec<RoleAt> {
        self.history.roles_at(height)
    }

    /// The proposals after the block at `height`, by id.
    #[must_use]
    pub fn proposals_at(&self, height: Height) -> Vec<Arc<ProposalEntry>> {
        self.history.proposals_at(height)
    }

    /// The validators there were after the block at `height`, by key. What is counted within an epoch is left out.
    #[must_use]
    pub fn validators_at(&self, height: Height) -> Vec<ValidatorEntry> {
        self.history.validators_at(height)
    }

    /// The committees up to the one that certifies the block after `height`, oldest first.
    #[must_use]
    pub fn committees_at(&self, height: Height) -> &[CommitteeAt] {
        self.history.committees_at(height)
    }

    /// The parameters in force after the block at `height`.
    #[must_use]
    pub fn parameters_at(&self, height: Height) -> Parameters {
        self.history.parameters_at(height).unwrap_or(self.genesis.parameters)
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

    /// Every key that the identity ever had, oldest first: an old statement of it verifies with the key of its time.
    #[must_use]
    pub fn keys_of(&self, id: &IdentityId) -> &[PublicKey] {
        self.keys.get(id).map_or(&[], Vec::as_slice)
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

/// What executing a statement told about its anchors.
#[derive(Clone, Copy)]
struct Anchored<'a> {
    signer: IdentityId,
    /// Of the first.
    log_index: LeafIndex,
    entries: &'a [LogEntry],
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

//! The chain's state: identities, streams, heads of partitions, the log; and how a statement changes it.

use std::sync::Arc;

use cairn_proof::genesis::Genesis;
use cairn_proof::identity::{IdentityId, IdentityKind, PublicKey};
use cairn_proof::statement::{
    Anchor, Body, ChainTag, RegisterIdentity, SignedStatement, Statement, StatementError, StreamDefinition,
};
use cairn_proof::tree::{self, Frontier};
use cairn_proof::{Digest, Height, LeafIndex, Partition, Sequence, TreeSize};

use crate::entry::{
    AnchorEntry, Entry, Head, IdentityEntry, StreamEntry, anchor_key, head_key, identity_key, sequence_key, stream_key,
    topic_key,
};
use crate::invariants;
use crate::refusal::{Refusal, RefusalCode};
use crate::trie::Trie;

/// How a signature is checked. A node may remember the statements whose signature it has checked already.
pub trait SignatureCheck {
    /// Whether `key` signed this statement for `chain`.
    fn holds(&self, statement: &SignedStatement, key: &PublicKey, chain: &ChainTag) -> bool;
}

/// Checks each signature, strictly.
#[derive(Debug, Clone, Copy, Default)]
pub struct StrictSignatures;

impl SignatureCheck for StrictSignatures {
    fn holds(&self, statement: &SignedStatement, key: &PublicKey, chain: &ChainTag) -> bool {
        statement.verify(key, chain).is_ok()
    }
}

/// What an applied statement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The statement's id.
    pub id: Digest,
    /// The statement.
    pub statement: Statement,
    /// Its place in the log, if it is an anchor.
    pub log_index: Option<LeafIndex>,
}

/// The state at one height. Cloning it costs a few hundred bytes, however large it is.
#[derive(Debug, Clone)]
pub struct State {
    chain: ChainTag,
    entries: Trie<Entry>,
    log: Frontier,
}

impl State {
    /// The state before the first block.
    #[must_use]
    pub fn genesis(genesis: &Genesis) -> Self {
        let mut state = Self { chain: genesis.tag(), entries: Trie::new(), log: Frontier::new() };
        for identity in &genesis.identities {
            state.put_identity(IdentityEntry {
                id: IdentityId::of(&identity.public_key),
                public_key: identity.public_key,
                kind: identity.kind,
                name: identity.name.clone(),
                controller: None,
                height: Height(0),
            });
        }
        state
    }

    /// Root over all entries.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.entries.root()
    }

    /// RFC 9162 root over all anchors.
    #[must_use]
    pub fn log_root(&self) -> Digest {
        self.log.root()
    }

    /// How many anchors there are.
    #[must_use]
    pub const fn log_size(&self) -> TreeSize {
        self.log.size()
    }

    /// How many entries the state holds.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries.len()
    }

    /// The identity with that id.
    #[must_use]
    pub fn identity(&self, id: &IdentityId) -> Option<&IdentityEntry> {
        match self.entries.get(&identity_key(id)) {
            Some(Entry::Identity(entry)) => Some(entry),
            _ => None,
        }
    }

    /// The last sequence number that the identity used; 0 when it has said nothing yet.
    #[must_use]
    pub fn sequence(&self, id: &IdentityId) -> Sequence {
        match self.entries.get(&sequence_key(id)) {
            Some(Entry::Sequence(sequence)) => *sequence,
            _ => Sequence(0),
        }
    }

    /// The stream with that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Arc<StreamEntry>> {
        match self.entries.get(&stream_key(name)) {
            Some(Entry::Stream(entry)) => Some(entry),
            _ => None,
        }
    }

    /// The stream that a topic belongs to.
    #[must_use]
    pub fn stream_of_topic(&self, topic: &str) -> Option<&str> {
        match self.entries.get(&topic_key(topic)) {
            Some(Entry::Topic(stream)) => Some(stream),
            _ => None,
        }
    }

    /// How far a partition is anchored; offset 0 and no anchor when it is not. `None` for an unknown stream or partition.
    #[must_use]
    pub fn head(&self, stream: &str, partition: Partition) -> Option<Head> {
        let entry = self.stream(stream)?;
        (partition.0 < entry.definition.partitions).then(|| self.head_or_start(stream, partition))
    }

    fn head_or_start(&self, stream: &str, partition: Partition) -> Head {
        match self.entries.get(&head_key(stream, partition)) {
            Some(Entry::Head(head)) => **head,
            _ => Head::default(),
        }
    }

    /// Where an anchor stands in the log.
    #[must_use]
    pub fn anchor(&self, id: &Digest) -> Option<AnchorEntry> {
        match self.entries.get(&anchor_key(id)) {
            Some(Entry::Anchor(entry)) => Some(*entry),
            _ => None,
        }
    }

    /// All streams, in no meaningful order.
    #[must_use]
    pub fn streams(&self) -> Vec<Arc<StreamEntry>> {
        let mut found = Vec::new();
        self.entries.for_each(|_, entry| {
            if let Entry::Stream(stream) = entry {
                found.push(stream.clone());
            }
        });
        found
    }

    /// Applies one statement in the block at `height`.
    ///
    /// # Errors
    /// When it does not decode, is not signed by its signer, or the rules do not allow it. Nothing has changed then.
    pub fn apply(
        &mut self,
        height: Height,
        envelope: &[u8],
        signatures: &dyn SignatureCheck,
    ) -> Result<Applied, Refusal> {
        let signed = SignedStatement::decode(envelope).map_err(|error| malformed(&error))?;
        let statement = signed.statement();
        let signer = self.signer(&statement.signer)?.clone();
        let last = self.sequence(&signer.id);
        if statement.sequence <= last {
            let message = format!("the sequence number must be greater than {last}, it is {}", statement.sequence);
            return Err(Refusal::new(RefusalCode::Sequence, message));
        }
        // The costly check comes after the cheap ones; nothing is written before all have passed.
        if !signatures.holds(&signed, &signer.public_key, &self.chain) {
            let message = format!("the signature does not verify for identity {} on this chain", signer.id);
            return Err(Refusal::new(RefusalCode::Signature, message));
        }
        let id = signed.id();
        let log_index = match &statement.body {
            Body::RegisterIdentity(body) => self.register_identity(height, &signer, body).map(|()| None),
            Body::RegisterStream(body) => self.register_stream(height, &signer, body, id).map(|()| None),
            Body::Anchor(body) => self.anchor_batch(height, &signer, body, id, envelope).map(Some),
            Body::RotateKey(_)
            | Body::RevokeIdentity(_)
            | Body::SetExpiry(_)
            | Body::SetRole(_)
            | Body::TransferStream(_)
            | Body::Vote(_)
            | Body::Attest(_)
            | Body::Evidence(_) => {
                let message = format!("the chain does not support {} yet", statement.body.content_type());
                Err(Refusal::new(RefusalCode::NotAllowed, message))
            }
        }?;
        self.entries.insert(sequence_key(&signer.id), Entry::Sequence(statement.sequence));
        Ok(Applied { id, statement: signed.into_statement(), log_index })
    }

    fn signer(&self, id: &IdentityId) -> Result<&IdentityEntry, Refusal> {
        self.identity(id).ok_or_else(|| {
            let message = format!("the signer {id} is not a registered identity");
            Refusal::new(RefusalCode::UnknownIdentity, message)
        })
    }

    fn put_identity(&mut self, entry: IdentityEntry) {
        self.entries.insert(identity_key(&entry.id), Entry::Identity(Arc::new(entry)));
    }

    fn register_identity(
        &mut self,
        height: Height,
        signer: &IdentityEntry,
        body: &RegisterIdentity,
    ) -> Result<(), Refusal> {
        must_be_organisation(signer, "registers identities")?;
        if !body.possession_holds(signer.id, &self.chain) {
            let message = format!("the proof that key {} is held does not verify", body.public_key);
            return Err(Refusal::new(RefusalCode::Signature, message));
        }
        let id = IdentityId::of(&body.public_key);
        if self.identity(&id).is_some() {
            return Err(Refusal::new(RefusalCode::Duplicate, format!("identity {id} is registered already")));
        }
        self.put_identity(IdentityEntry {
            id,
            public_key: body.public_key,
            kind: body.kind,
            name: body.name.clone(),
            controller: Some(signer.id),
            height,
        });
        Ok(())
    }

    fn register_stream(
        &mut self,
        height: Height,
        signer: &IdentityEntry,
        definition: &StreamDefinition,
        statement: Digest,
    ) -> Result<(), Refusal> {
        must_be_organisation(signer, "registers streams")?;
        if self.stream(&definition.name).is_some() {
            let message = format!("stream {} is registered already", definition.name);
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        if let Some(stream) = self.stream_of_topic(&definition.topic) {
            let message = format!("topic {} belongs to stream {stream} already", definition.topic);
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        if let Some(unknown) = definition.anchorers.iter().find(|id| self.identity(id).is_none()) {
            let message = format!("anchorer {unknown} is not a registered identity");
            return Err(Refusal::new(RefusalCode::UnknownIdentity, message));
        }
        self.entries.insert(topic_key(&definition.topic), Entry::Topic(definition.name.as_str().into()));
        let entry = StreamEntry { definition: definition.clone(), owner: signer.id, height, statement };
        self.entries.insert(stream_key(&definition.name), Entry::Stream(Arc::new(entry)));
        Ok(())
    }

    fn anchor_batch(
        &mut self,
        height: Height,
        signer: &IdentityEntry,
        anchor: &Anchor,
        id: Digest,
        envelope: &[u8],
    ) -> Result<LeafIndex, Refusal> {
        let stream = self.stream(&anchor.stream).ok_or_else(|| {
            let message = format!("stream {} is not registered", anchor.stream);
            Refusal::new(RefusalCode::UnknownStream, message)
        })?;
        check_against_stream(stream, signer, anchor)?;
        let head = self.head_or_start(&anchor.stream, anchor.partition);
        invariants::begins_at_head(&head, anchor)?;
        invariants::follows_head(&head, anchor)?;
        invariants::gaps_are_allowed(stream, anchor)?;
        let log_index = LeafIndex(self.log.size().0);
        self.log.append(tree::leaf_hash(envelope));
        let head = Head {
            next: anchor.last.next(),
            anchor: id,
            log_index,
            records: head.records.saturating_add(anchor.count),
            quarantined: head.quarantined.saturating_add(anchor.quarantined),
        };
        self.entries.insert(head_key(&anchor.stream, anchor.partition), Entry::Head(Arc::new(head)));
        self.entries.insert(anchor_key(&id), Entry::Anchor(AnchorEntry { log_index, height }));
        Ok(log_index)
    }
}

fn malformed(error: &StatementError) -> Refusal {
    Refusal::new(RefusalCode::Malformed, error.to_string())
}

fn must_be_organisation(signer: &IdentityEntry, what: &str) -> Result<(), Refusal> {
    if signer.kind == IdentityKind::Organisation {
        return Ok(());
    }
    let message = format!("only an organisation {what}; {} is a {}", signer.id, signer.kind.name());
    Err(Refusal::new(RefusalCode::NotAllowed, message))
}

fn check_against_stream(stream: &StreamEntry, signer: &IdentityEntry, anchor: &Anchor) -> Result<(), Refusal> {
    let definition = &stream.definition;
    if !definition.anchorers.contains(&signer.id) {
        let message = format!("identity {} is not an anchorer of stream {}", signer.id, definition.name);
        return Err(Refusal::new(RefusalCode::NotAllowed, message));
    }
    if anchor.partition.0 >= definition.partitions {
        let message = format!(
            "stream {} has {} partitions, the anchor is about partition {}",
            definition.name, definition.partitions, anchor.partition
        );
        return Err(Refusal::new(RefusalCode::Limit, message));
    }
    if anchor.count > u64::from(definition.limits.records_max) {
        let message = format!(
            "stream {} allows {} records a batch, the anchor has {}",
            definition.name, definition.limits.records_max, anchor.count
        );
        return Err(Refusal::new(RefusalCode::Limit, message));
    }
    if !definition.schemas.iter().any(|schema| schema.fingerprint() == anchor.schema_fingerprint) {
        let message =
            format!("stream {} has no schema with fingerprint {}", definition.name, anchor.schema_fingerprint);
        return Err(Refusal::new(RefusalCode::Malformed, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

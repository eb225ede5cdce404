//! Streams: registering, roles, another owner, and the anchors of their partitions.

use std::sync::Arc;

use cairn_proof::statement::{Anchor, Role, SchemaVersion, SetRole, StreamDefinition, TransferStream, UpdateStream};
use cairn_proof::{Digest, LeafIndex};

use super::{BlockTime, State};
use crate::entry::{
    AnchorEntry, Entry, Head, IdentityEntry, RoleEntry, SchemaEntry, StreamEntry, anchor_key, head_key, role_key,
    schema_key, stream_key, topic_key,
};
use crate::prepared::LogEntry;
use crate::refusal::{Refusal, RefusalCode};
use crate::{invariants, rules};

impl State {
    fn registered_stream(&self, name: &str) -> Result<&Arc<StreamEntry>, Refusal> {
        self.stream(name).ok_or_else(|| {
            let message = format!("stream {name} is not registered");
            Refusal::new(RefusalCode::UnknownStream, message)
        })
    }

    pub(super) fn register_stream(
        &mut self,
        at: &BlockTime,
        signer: &IdentityEntry,
        definition: &StreamDefinition,
        statement: Digest,
    ) -> Result<(), Refusal> {
        rules::is_organisation(signer, "registers streams")?;
        if self.stream(&definition.name).is_some() {
            let message = format!("stream {} is registered already", definition.name);
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        if let Some(stream) = self.stream_of_topic(&definition.topic) {
            let message = format!("topic {} belongs to stream {stream} already", definition.topic);
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        if let Some(unknown) = definition.anchorers.iter().find(|id| self.identity(id).is_none()) {
            return Err(rules::unknown_identity("the anchorer", unknown));
        }
        let granted = RoleEntry { granted: true, height: at.height };
        for id in &definition.anchorers {
            self.entries.insert(role_key(&definition.name, Role::Anchorer, id), Entry::Role(granted));
        }
        self.entries.insert(topic_key(&definition.topic), Entry::Topic(definition.name.as_str().into()));
        let fingerprints = definition.schemas.iter().map(SchemaVersion::fingerprint).collect();
        let entry = StreamEntry {
            definition: definition.clone(),
            owner: signer.id,
            height: at.height,
            statement,
            fingerprints,
        };
        self.entries.insert(stream_key(&definition.name), Entry::Stream(Arc::new(entry)));
        Ok(())
    }

    pub(super) fn set_role(&mut self, at: &BlockTime, signer: &IdentityEntry, body: &SetRole) -> Result<(), Refusal> {
        rules::is_owner(signer, self.registered_stream(&body.stream)?)?;
        if self.identity(&body.identity).is_none() {
            return Err(rules::unknown_identity("the subject", &body.identity));
        }
        if self.has_role(&body.stream, body.role, &body.identity) == body.granted {
            let has = if body.granted { "has" } else { "has not" };
            let message = format!("identity {} {has} that role for stream {} already", body.identity, body.stream);
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        let entry = RoleEntry { granted: body.granted, height: at.height };
        self.entries.insert(role_key(&body.stream, body.role, &body.identity), Entry::Role(entry));
        Ok(())
    }

    pub(super) fn transfer_stream(&mut self, signer: &IdentityEntry, body: &TransferStream) -> Result<(), Refusal> {
        let stream = self.registered_stream(&body.stream)?;
        rules::is_owner(signer, stream)?;
        let owner = self.identity(&body.owner).ok_or_else(|| rules::unknown_identity("the new owner", &body.owner))?;
        rules::is_not_revoked(owner)?;
        rules::is_organisation(owner, "owns streams")?;
        let entry = StreamEntry { owner: body.owner, ..(**stream).clone() };
        self.entries.insert(stream_key(&body.stream), Entry::Stream(Arc::new(entry)));
        Ok(())
    }

    /// Adds a version to a stream's schemas. Whether it reads what the older ones wrote is not looked at: that is the
    /// owner's to know before, and who decodes by it finds out.
    pub(super) fn update_stream(
        &mut self,
        at: &BlockTime,
        signer: &IdentityEntry,
        body: &UpdateStream,
        statement: Digest,
    ) -> Result<(), Refusal> {
        let stream = self.registered_stream(&body.stream)?;
        rules::is_owner(signer, stream)?;
        rules::follows_schemas(stream, body)?;
        rules::versions_can_be_told(stream)?;
        rules::is_a_new_version(stream, &body.schema)?;
        rules::schemas_are_bounded(stream, &body.schema)?;
        let fingerprint = body.schema.fingerprint();
        let mut entry = (**stream).clone();
        entry.definition.schemas.push(body.schema.clone());
        entry.fingerprints.push(fingerprint);
        let version = SchemaEntry { id: body.schema.id, fingerprint, statement, height: at.height };
        self.entries.insert(schema_key(&body.stream, body.versions), Entry::Schema(Arc::new(version)));
        self.entries.insert(stream_key(&body.stream), Entry::Stream(Arc::new(entry)));
        Ok(())
    }

    /// Takes the anchors of a statement in, all or none; returns the place of the first in the log, where the others follow.
    ///
    /// Each is of another partition, so that none changes what another one is checked against.
    pub(super) fn anchor_batches(
        &mut self,
        at: &BlockTime,
        signer: &IdentityEntry,
        anchors: &[Anchor],
        entries: &[LogEntry],
    ) -> Result<LeafIndex, Refusal> {
        assert!(anchors.len() == entries.len(), "every anchor of a statement has its entry for the log");
        for (index, anchor) in anchors.iter().enumerate() {
            self.check_anchor(signer, anchor).map_err(|refusal| match anchors.len() {
                1 => refusal,
                count => refusal.within(&format!("anchor {index} of {count}, none of which is taken")),
            })?;
        }
        let first = LeafIndex(self.log.size().0);
        for (anchor, entry) in anchors.iter().zip(entries) {
            self.put_anchor(at, anchor, entry);
        }
        Ok(first)
    }

    fn check_anchor(&self, signer: &IdentityEntry, anchor: &Anchor) -> Result<(), Refusal> {
        let stream = self.registered_stream(&anchor.stream)?;
        self.check_against_stream(stream, signer, anchor)?;
        let head = self.head_at(&head_key(&anchor.stream, anchor.partition));
        invariants::begins_at_head(&head, anchor)?;
        invariants::follows_head(&head, anchor)?;
        invariants::gaps_are_allowed(stream, anchor)
    }

    /// Writes an anchor that was checked.
    fn put_anchor(&mut self, at: &BlockTime, anchor: &Anchor, entry: &LogEntry) {
        let log_index = LeafIndex(self.log.size().0);
        self.log.append(entry.leaf);
        let head_key = head_key(&anchor.stream, anchor.partition);
        let before = self.head_at(&head_key);
        let head = Head {
            next: anchor.last.next(),
            anchor: entry.id,
            log_index,
            records: before.records.saturating_add(anchor.count),
            quarantined: before.quarantined.saturating_add(anchor.quarantined),
        };
        self.entries.insert(head_key, Entry::Head(Arc::new(head)));
        self.entries.insert(anchor_key(&entry.id), Entry::Anchor(AnchorEntry { log_index, height: at.height }));
    }

    fn check_against_stream(
        &self,
        stream: &StreamEntry,
        signer: &IdentityEntry,
        anchor: &Anchor,
    ) -> Result<(), Refusal> {
        let definition = &stream.definition;
        if !self.has_role(&definition.name, Role::Anchorer, &signer.id) {
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
        let most = definition.limits.records_max.min(self.parameters.batch_records_max);
        if anchor.count > u64::from(most) {
            let message = format!(
                "stream {} and chain allow {most} records a batch, the anchor has {}",
                definition.name, anchor.count
            );
            return Err(Refusal::new(RefusalCode::Limit, message));
        }
        if !stream.fingerprints.contains(&anchor.schema_fingerprint) {
            let message =
                format!("stream {} has no schema with fingerprint {}", definition.name, anchor.schema_fingerprint);
            return Err(Refusal::new(RefusalCode::Malformed, message));
        }
        Ok(())
    }
}

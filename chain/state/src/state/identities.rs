//! The life of an identity: registered by an organisation, given other keys, ended by time or by word.
//!
//! What an identity signed before it ended stays valid; nothing is ever taken back.

use std::sync::Arc;

use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::statement::{RegisterIdentity, RevokeIdentity, RotateKey, SetExpiry};

use super::{BlockTime, State};
use crate::entry::{Entry, IdentityEntry, identity_key, key_key};
use crate::refusal::{Refusal, RefusalCode};
use crate::rules;

impl State {
    /// The signer, if it may sign in the block at `at`.
    pub(super) fn usable_signer(&self, id: &IdentityId, at: &BlockTime) -> Result<&Arc<IdentityEntry>, Refusal> {
        let signer = self.identity(id).ok_or_else(|| rules::unknown_identity("the signer", id))?;
        rules::is_usable(signer, at)?;
        Ok(signer)
    }

    /// The identity that a statement is about.
    fn subject(&self, id: &IdentityId) -> Result<IdentityEntry, Refusal> {
        let entry = self.identity(id).ok_or_else(|| rules::unknown_identity("the subject", id))?;
        rules::is_not_revoked(entry)?;
        Ok((**entry).clone())
    }

    /// Writes an identity and, so that nobody else takes it, its key.
    pub(super) fn put_identity(&mut self, entry: IdentityEntry) {
        if self.identity_of_key(&entry.public_key).is_none() {
            self.entries.insert(key_key(&entry.public_key), Entry::Key(Arc::new(entry.id)));
        }
        self.entries.insert(identity_key(&entry.id), Entry::Identity(Arc::new(entry)));
    }

    fn key_is_new(&self, key: &PublicKey) -> Result<(), Refusal> {
        match self.identity_of_key(key) {
            None => Ok(()),
            Some(id) => {
                let message = format!("key {key} is, or was, a key of identity {id}; a key is used once");
                Err(Refusal::new(RefusalCode::Duplicate, message))
            }
        }
    }

    pub(super) fn register_identity(
        &mut self,
        at: &BlockTime,
        signer: &IdentityEntry,
        body: &RegisterIdentity,
    ) -> Result<(), Refusal> {
        rules::is_organisation(signer, "registers identities")?;
        self.key_is_new(&body.public_key)?;
        if !body.possession_holds(signer.id, &self.chain) {
            return Err(not_held(&body.public_key));
        }
        self.put_identity(IdentityEntry {
            id: IdentityId::of(&body.public_key),
            first_key: body.public_key,
            public_key: body.public_key,
            kind: body.kind,
            name: body.name.clone(),
            controller: Some(signer.id),
            height: at.height,
            revoked: None,
            expires_ms: body.expires_ms,
        });
        Ok(())
    }

    pub(super) fn rotate_key(&mut self, signer: &IdentityEntry, body: &RotateKey) -> Result<(), Refusal> {
        let mut entry = self.subject(&body.identity)?;
        rules::is_self_or_controller(signer, &entry)?;
        self.key_is_new(&body.public_key)?;
        if !body.possession_holds(&self.chain) {
            return Err(not_held(&body.public_key));
        }
        entry.public_key = body.public_key;
        self.put_identity(entry);
        Ok(())
    }

    pub(super) fn revoke_identity(
        &mut self,
        at: &BlockTime,
        signer: &IdentityEntry,
        body: &RevokeIdentity,
    ) -> Result<(), Refusal> {
        let mut entry = self.subject(&body.identity)?;
        rules::is_self_or_controller(signer, &entry)?;
        entry.revoked = Some(at.height);
        self.put_identity(entry);
        Ok(())
    }

    pub(super) fn set_expiry(&mut self, signer: &IdentityEntry, body: &SetExpiry) -> Result<(), Refusal> {
        let mut entry = self.subject(&body.identity)?;
        rules::is_controller(signer, &entry)?;
        entry.expires_ms = body.expires_ms;
        self.put_identity(entry);
        Ok(())
    }
}

fn not_held(key: &PublicKey) -> Refusal {
    Refusal::new(RefusalCode::Signature, format!("the proof that key {key} is held does not verify"))
}

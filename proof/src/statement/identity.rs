//! The statements about identities: register, rotate the key, revoke, set an expiry.
//!
//! ```text
//! register-identity  {1: sequence, 2: public key, 3: kind, 4: name, 5: proof of possession, 6: expires_ms|null}
//! rotate-key         {1: sequence, 2: identity, 3: public key, 4: proof of possession}
//! revoke-identity    {1: sequence, 2: identity, 3: reason}
//! set-expiry         {1: sequence, 2: identity, 3: expires_ms|null}
//!
//! possession at registration = signature over "cairn/possession/v1" ‖ chain tag ‖ controller's id ‖ key
//! possession at rotation     = signature over "cairn/rotation/v1" ‖ chain tag ‖ identity's id ‖ new key
//! ```

use super::{ChainTag, StatementError, check_text, read_public_key};
use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::identity::{IdentityId, IdentityKind, PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::units::Sequence;

pub(super) const REGISTER: &str = "application/vnd.cairn.register-identity.v2+cbor";
pub(super) const ROTATE: &str = "application/vnd.cairn.rotate-key.v1+cbor";
pub(super) const REVOKE: &str = "application/vnd.cairn.revoke-identity.v1+cbor";
pub(super) const EXPIRE: &str = "application/vnd.cairn.set-expiry.v1+cbor";
const POSSESSION_DOMAIN: &[u8] = b"cairn/possession/v1";
const ROTATION_DOMAIN: &[u8] = b"cairn/rotation/v1";
const REASON_BYTES_MAX: usize = 256;

/// A new identity. The signer of the statement becomes its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterIdentity {
    /// The identity's first key.
    pub public_key: PublicKey,
    /// What it stands for.
    pub kind: IdentityKind,
    /// A name for people, 1 to 128 bytes. Never personal data: it stands on the chain for ever.
    pub name: String,
    /// Signature by the new key, so that nobody registers a key that is not theirs.
    pub possession: [u8; SIGNATURE_BYTES],
    /// Milliseconds since 1970-01-01 UTC from which on the chain refuses what it signs; `None`: never.
    pub expires_ms: Option<u64>,
}

impl RegisterIdentity {
    /// Builds the statement's body, with the proof that `key` is held. The identity does not expire: set
    /// [`expires_ms`](Self::expires_ms) where it shall.
    #[must_use]
    pub fn new(key: &SigningKey, kind: IdentityKind, name: String, controller: IdentityId, chain: &ChainTag) -> Self {
        let public_key = key.public();
        let possession = key.sign(&possession_message(POSSESSION_DOMAIN, &public_key, controller, chain));
        Self { public_key, kind, name, possession, expires_ms: None }
    }

    /// Whether the new key signed that `controller` registers it on `chain`.
    #[must_use]
    pub fn possession_holds(&self, controller: IdentityId, chain: &ChainTag) -> bool {
        let message = possession_message(POSSESSION_DOMAIN, &self.public_key, controller, chain);
        self.public_key.verify(&message, &self.possession)
    }

    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(6);
        writer.unsigned(1);
        writer.unsigned(sequence.0);
        writer.unsigned(2);
        writer.bytes(self.public_key.as_bytes());
        writer.unsigned(3);
        writer.unsigned(self.kind.code());
        writer.unsigned(4);
        writer.text(&self.name);
        writer.unsigned(5);
        writer.bytes(&self.possession);
        writer.unsigned(6);
        writer.unsigned_or_null(self.expires_ms);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), StatementError> {
        reader.map_of(6)?;
        reader.key(1)?;
        let sequence = Sequence(reader.unsigned()?);
        reader.key(2)?;
        let public_key = read_public_key(reader)?;
        reader.key(3)?;
        let kind = read_kind(reader)?;
        reader.key(4)?;
        let name = reader.text()?.to_owned();
        reader.key(5)?;
        let possession = reader.fixed()?;
        reader.key(6)?;
        let expires_ms = reader.unsigned_or_null()?;
        Ok((sequence, Self { public_key, kind, name, possession, expires_ms }))
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("name", &self.name, 128, |c| !c.is_control(), "text without control characters")
    }
}

/// Another key for an identity, which keeps its id. Signed by the identity itself or by its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateKey {
    /// Whose key changes.
    pub identity: IdentityId,
    /// The key it signs with from then on.
    pub public_key: PublicKey,
    /// Signature by the new key.
    pub possession: [u8; SIGNATURE_BYTES],
}

impl RotateKey {
    /// Builds the statement's body, with the proof that the new `key` is held.
    #[must_use]
    pub fn new(identity: IdentityId, key: &SigningKey, chain: &ChainTag) -> Self {
        let public_key = key.public();
        let possession = key.sign(&possession_message(ROTATION_DOMAIN, &public_key, identity, chain));
        Self { identity, public_key, possession }
    }

    /// Whether the new key signed that it becomes the key of this identity on `chain`.
    #[must_use]
    pub fn possession_holds(&self, chain: &ChainTag) -> bool {
        let message = possession_message(ROTATION_DOMAIN, &self.public_key, self.identity, chain);
        self.public_key.verify(&message, &self.possession)
    }

    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(4);
        write_subject(sequence, self.identity, writer);
        writer.unsigned(3);
        writer.bytes(self.public_key.as_bytes());
        writer.unsigned(4);
        writer.bytes(&self.possession);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), StatementError> {
        reader.map_of(4)?;
        let (sequence, identity) = read_subject(reader)?;
        reader.key(3)?;
        let public_key = read_public_key(reader)?;
        reader.key(4)?;
        let possession = reader.fixed()?;
        Ok((sequence, Self { identity, public_key, possession }))
    }
}

/// The end of an identity, for ever. Signed by the identity itself or by its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeIdentity {
    /// Whose statements are refused from then on.
    pub identity: IdentityId,
    /// Why, for people, 1 to 256 bytes. Never personal data: it stands on the chain for ever.
    pub reason: String,
}

impl RevokeIdentity {
    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(3);
        write_subject(sequence, self.identity, writer);
        writer.unsigned(3);
        writer.text(&self.reason);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), StatementError> {
        reader.map_of(3)?;
        let (sequence, identity) = read_subject(reader)?;
        reader.key(3)?;
        let reason = reader.text()?.to_owned();
        Ok((sequence, Self { identity, reason }))
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        let rule = "text without control characters";
        check_text("reason", &self.reason, REASON_BYTES_MAX, |c| !c.is_control(), rule)
    }
}

/// Another expiry of an identity. Signed by its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetExpiry {
    /// Whose expiry changes.
    pub identity: IdentityId,
    /// Milliseconds since 1970-01-01 UTC from which on the chain refuses what it signs; `None`: never.
    pub expires_ms: Option<u64>,
}

impl SetExpiry {
    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(3);
        write_subject(sequence, self.identity, writer);
        writer.unsigned(3);
        writer.unsigned_or_null(self.expires_ms);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), StatementError> {
        reader.map_of(3)?;
        let (sequence, identity) = read_subject(reader)?;
        reader.key(3)?;
        let expires_ms = reader.unsigned_or_null()?;
        Ok((sequence, Self { identity, expires_ms }))
    }
}

/// Keys 1 and 2 of every statement about one identity.
fn write_subject(sequence: Sequence, identity: IdentityId, writer: &mut Writer<'_>) {
    writer.unsigned(1);
    writer.unsigned(sequence.0);
    writer.unsigned(2);
    writer.bytes(identity.0.as_ref());
}

fn read_subject(reader: &mut Reader<'_>) -> Result<(Sequence, IdentityId), CborError> {
    reader.key(1)?;
    let sequence = Sequence(reader.unsigned()?);
    reader.key(2)?;
    Ok((sequence, IdentityId(Digest(reader.fixed()?))))
}

fn read_kind(reader: &mut Reader<'_>) -> Result<IdentityKind, CborError> {
    let code = reader.unsigned()?;
    IdentityKind::from_code(code).ok_or_else(|| reader.error("an identity kind, 1 to 4", code.to_string()))
}

fn possession_message(domain: &[u8], key: &PublicKey, bound_to: IdentityId, chain: &ChainTag) -> Vec<u8> {
    [domain, chain.0.as_ref(), bound_to.0.as_ref(), key.as_bytes()].concat()
}

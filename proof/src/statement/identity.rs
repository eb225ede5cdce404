//! The statement that registers an identity.
//!
//! ```text
//! {1: sequence, 2: public key, 3: kind, 4: name, 5: proof of possession}
//! ```

use super::{ChainTag, StatementError, check_text};
use crate::cbor::{CborError, Reader, Writer};
use crate::identity::{IdentityId, IdentityKind, KeyError, PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::units::Sequence;

pub(super) const CONTENT_TYPE: &str = "application/vnd.cairn.register-identity.v1+cbor";
const POSSESSION_DOMAIN: &[u8] = b"cairn/possession/v1";

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
}

impl RegisterIdentity {
    /// Builds the statement's body, with the proof that `key` is held.
    #[must_use]
    pub fn new(key: &SigningKey, kind: IdentityKind, name: String, controller: IdentityId, chain: &ChainTag) -> Self {
        let public_key = key.public();
        let possession = key.sign(&possession_message(&public_key, controller, chain));
        Self { public_key, kind, name, possession }
    }

    /// Whether the new key signed that `controller` registers it on `chain`.
    #[must_use]
    pub fn possession_holds(&self, controller: IdentityId, chain: &ChainTag) -> bool {
        self.public_key.verify(&possession_message(&self.public_key, controller, chain), &self.possession)
    }

    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(5);
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
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), StatementError> {
        reader.map_of(5)?;
        reader.key(1)?;
        let sequence = Sequence(reader.unsigned()?);
        reader.key(2)?;
        let public_key = PublicKey::from_bytes(reader.fixed()?)
            .map_err(|error: KeyError| StatementError::field("public key", "a usable key", error))?;
        reader.key(3)?;
        let kind = read_kind(reader)?;
        reader.key(4)?;
        let name = reader.text()?.to_owned();
        reader.key(5)?;
        let possession = reader.fixed()?;
        Ok((sequence, Self { public_key, kind, name, possession }))
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("name", &self.name, 128, |c| !c.is_control(), "text without control characters")
    }
}

fn read_kind(reader: &mut Reader<'_>) -> Result<IdentityKind, CborError> {
    let code = reader.unsigned()?;
    IdentityKind::from_code(code).ok_or_else(|| reader.error("an identity kind, 1 to 4", code.to_string()))
}

fn possession_message(key: &PublicKey, controller: IdentityId, chain: &ChainTag) -> Vec<u8> {
    [POSSESSION_DOMAIN, chain.0.as_ref(), controller.0.as_ref(), key.as_bytes()].concat()
}

//! Statements: everything that anybody says to the chain, in one signed envelope with one replay rule.
//!
//! ```text
//! envelope  = 18([protected, {}, payload, signature])                COSE_Sign1, tagged (RFC 9052, section 4.2)
//! protected = {1: -8 (EdDSA), 3: content type, 4: key id = the signer's identity id, 32 bytes}
//! payload   = deterministic CBOR map; key 1 is the sequence number, the others depend on the content type
//! signed    = Sig_structure with external_aad = the chain's tag, 32 bytes (RFC 9052, section 4.4)
//! ```
//!
//! One kind has an unprotected header that is not empty ([`log_entries`]): what it carries is bound by the payload.
//!
//! The content type separates purposes, the chain's tag separates chains. A statement has exactly one encoding:
//! decoding refuses every other. Whether a statement is *allowed* is not decided here but in the chain's state.

mod anchor;
mod anchors;
mod consensus;
mod envelope;
mod identity;
mod rights;
mod stream;
mod update;
mod vote;

pub use anchor::{Anchor, GAPS_MAX, Gap, SegmentRef};
pub use anchors::{
    ANCHOR_HEAD_BYTES, ANCHORS_MAX, ANCHORS_MIN, ANCHORS_OVERHEAD_BYTES, AnchorPlace, LoggedAnchor, log_entries,
    log_entry,
};
pub use consensus::Attest;
pub use envelope::{SignedStatement, statement_id};
pub use identity::{RegisterIdentity, RevokeIdentity, RotateKey, SetExpiry};
pub use rights::{Role, SetRole, TransferStream};
pub use stream::{BatchLimits, Format, SCHEMAS_MAX, SchemaVersion, Signatures, StreamDefinition};
pub use update::UpdateStream;
pub use vote::{Change, Vote};

use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::evidence::Equivocation;
use crate::identity::{IdentityId, KeyError, PublicKey, SigningKey};
use crate::tree::TreeError;
use crate::units::Sequence;

/// A statement is smaller than an entry of a C2SP tiled log may be.
pub const STATEMENT_BYTES_MAX: usize = 65_535;

/// Binds signatures to one chain: SHA-256 of the genesis encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainTag(pub Digest);

/// Why bytes are not a statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Longer than allowed.
    #[error("a statement has at most {STATEMENT_BYTES_MAX} bytes, this one has {found}")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// The envelope is not one of ours.
    #[error("not a COSE_Sign1 envelope of Cairn: {0}")]
    Envelope(String),
    /// The payload is not what the content type says.
    #[error("the payload does not decode: {0}")]
    Payload(#[from] CborError),
    /// A field holds what it may not hold.
    #[error("field {field}: expected {expected}, found {found}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is allowed.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The signature is not by that key over these bytes on this chain.
    #[error("the signature does not verify for identity {signer}: wrong key, wrong chain, or changed bytes")]
    Signature {
        /// The identity that is said to have signed.
        signer: IdentityId,
    },
    /// The anchor is not one of those that were signed together.
    #[error("the anchor's place in its statement: {0}")]
    Place(#[from] TreeError),
}

impl StatementError {
    // By value, so that a caller writes a number or a text as it is.
    #[allow(clippy::needless_pass_by_value)]
    fn field(field: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        let found: String = found.to_string().chars().take(120).collect();
        Self::Field { field, expected: expected.into(), found }
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A new identity, registered by its controller.
    RegisterIdentity(RegisterIdentity),
    /// A new stream, registered by its owner.
    RegisterStream(StreamDefinition),
    /// One batch of a partition.
    Anchor(Anchor),
    /// One batch each of several partitions, in ascending order of stream and partition.
    Anchors(Vec<Anchor>),
    /// Another key for an identity.
    RotateKey(RotateKey),
    /// The end of an identity.
    RevokeIdentity(RevokeIdentity),
    /// Another expiry of an identity.
    SetExpiry(SetExpiry),
    /// A right on a stream, given or taken by its owner.
    SetRole(SetRole),
    /// Another owner of a stream.
    TransferStream(TransferStream),
    /// Another version of a stream's schema.
    UpdateStream(UpdateStream),
    /// A validator's vote.
    Vote(Vote),
    /// A finality certificate, reported by a validator.
    Attest(Attest),
    /// Proof that a validator equivocated.
    Evidence(Box<Equivocation>),
}

impl Body {
    /// The content type in the protected header.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::RegisterIdentity(_) => identity::REGISTER,
            Self::RegisterStream(body) => body.content_type(),
            Self::Anchor(_) => anchor::CONTENT_TYPE,
            Self::Anchors(_) => anchors::CONTENT_TYPE,
            Self::RotateKey(_) => identity::ROTATE,
            Self::RevokeIdentity(_) => identity::REVOKE,
            Self::SetExpiry(_) => identity::EXPIRE,
            Self::SetRole(_) => rights::ROLE,
            Self::TransferStream(_) => rights::TRANSFER,
            Self::UpdateStream(_) => update::UPDATE,
            Self::Vote(_) => vote::CONTENT_TYPE,
            Self::Attest(_) => consensus::ATTEST,
            Self::Evidence(_) => consensus::EVIDENCE,
        }
    }

    fn write(&self, sequence: Sequence, out: &mut Vec<u8>) {
        let writer = &mut Writer::new(out);
        match self {
            Self::RegisterIdentity(body) => body.write(sequence, writer),
            Self::RegisterStream(body) => body.write(sequence, writer),
            Self::Anchor(body) => body.write(sequence, writer),
            Self::Anchors(body) => anchors::write(body, sequence, writer),
            Self::RotateKey(body) => body.write(sequence, writer),
            Self::RevokeIdentity(body) => body.write(sequence, writer),
            Self::SetExpiry(body) => body.write(sequence, writer),
            Self::SetRole(body) => body.write(sequence, writer),
            Self::TransferStream(body) => body.write(sequence, writer),
            Self::UpdateStream(body) => body.write(sequence, writer),
            Self::Vote(body) => body.write(sequence, writer),
            Self::Attest(body) => body.write(sequence, writer),
            Self::Evidence(body) => consensus::write_evidence(body, sequence, writer),
        }
    }

    fn read(content_type: &str, payload: &[u8]) -> Result<(Sequence, Self), StatementError> {
        let mut reader = Reader::new(payload);
        let read = Self::read_as(content_type, &mut reader)?;
        reader.end()?;
        Ok(read)
    }

    fn read_as(content_type: &str, reader: &mut Reader<'_>) -> Result<(Sequence, Self), StatementError> {
        fn with<T>(body: fn(T) -> Body) -> impl Fn((Sequence, T)) -> (Sequence, Body) {
            move |(sequence, read)| (sequence, body(read))
        }
        match content_type {
            identity::REGISTER => RegisterIdentity::read(reader).map(with(Self::RegisterIdentity)),
            stream::CONTENT_TYPE => Ok(StreamDefinition::read(reader).map(with(Self::RegisterStream))?),
            stream::CONTENT_TYPE_2 => Ok(StreamDefinition::read_2(reader).map(with(Self::RegisterStream))?),
            anchor::CONTENT_TYPE => Ok(Anchor::read(reader).map(with(Self::Anchor))?),
            identity::ROTATE => RotateKey::read(reader).map(with(Self::RotateKey)),
            identity::REVOKE => RevokeIdentity::read(reader).map(with(Self::RevokeIdentity)),
            identity::EXPIRE => SetExpiry::read(reader).map(with(Self::SetExpiry)),
            rights::ROLE => Ok(SetRole::read(reader).map(with(Self::SetRole))?),
            rights::TRANSFER => Ok(TransferStream::read(reader).map(with(Self::TransferStream))?),
            update::UPDATE => Ok(UpdateStream::read(reader).map(with(Self::UpdateStream))?),
            vote::CONTENT_TYPE => Vote::read(reader).map(with(Self::Vote)),
            consensus::ATTEST => Ok(Attest::read(reader).map(with(Self::Attest))?),
            consensus::EVIDENCE => {
                let (sequence, evidence) = consensus::read_evidence(reader)?;
                Ok((sequence, Self::Evidence(Box::new(evidence))))
            }
            anchors::CONTENT_TYPE => {
                Err(StatementError::field("unprotected header", "the anchors that are signed", "an empty one"))
            }
            other => Err(StatementError::field("content type", "one that Cairn knows", other)),
        }
    }

    /// Checks what can be checked without the chain's state: lengths, names, ranges, counts that must agree.
    ///
    /// # Errors
    /// Names the first field that holds what it may not hold.
    pub fn check(&self) -> Result<(), StatementError> {
        match self {
            Self::RegisterIdentity(body) => body.check(),
            Self::RegisterStream(body) => body.check(),
            Self::Anchor(body) => body.check(),
            Self::Anchors(body) => anchors::check(body),
            Self::RevokeIdentity(body) => body.check(),
            Self::SetRole(body) => body.check(),
            Self::TransferStream(body) => body.check(),
            Self::UpdateStream(body) => body.check(),
            Self::Vote(body) => body.change.check(),
            Self::Attest(body) => body.check(),
            Self::Evidence(body) => consensus::check_evidence(body),
            // All that they hold has its shape from the types: ids, keys, signatures, times.
            Self::RotateKey(_) | Self::SetExpiry(_) => Ok(()),
        }
    }
}

/// A statement before it is signed, or after it was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who says it.
    pub signer: IdentityId,
    /// Greater than the signer's last one on the chain.
    pub sequence: Sequence,
    /// What is said.
    pub body: Body,
}

impl Statement {
    /// Signs the statement and returns the envelope's bytes.
    ///
    /// # Errors
    /// When a field holds what it may not hold, or the whole is too long.
    pub fn sign(&self, key: &SigningKey, chain: &ChainTag) -> Result<Vec<u8>, StatementError> {
        envelope::sign(self, key, chain)
    }
}

/// Returns bytes that are no longer than a statement may be.
fn check_length(bytes: &[u8]) -> Result<&[u8], StatementError> {
    if bytes.len() > STATEMENT_BYTES_MAX {
        return Err(StatementError::TooLong { found: bytes.len() });
    }
    Ok(bytes)
}

/// Checks a text's length and characters.
fn check_text(
    field: &'static str,
    text: &str,
    longest: usize,
    allowed: impl Fn(char) -> bool,
    rule: &str,
) -> Result<(), StatementError> {
    if text.is_empty() || text.len() > longest || !text.chars().all(allowed) {
        return Err(StatementError::field(field, format!("1 to {longest} bytes of {rule}"), format!("{text:?}")));
    }
    Ok(())
}

/// Reads a public key as a byte string of 32 bytes.
fn read_public_key(reader: &mut Reader<'_>) -> Result<PublicKey, StatementError> {
    PublicKey::from_bytes(reader.fixed()?)
        .map_err(|error: KeyError| StatementError::field("public key", "a usable key", error))
}

#[cfg(test)]
mod tests;

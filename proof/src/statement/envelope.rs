//! The COSE_Sign1 envelope (RFC 9052, section 4.2): signing, strict decoding, verifying.

use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};

use super::{Body, ChainTag, Statement, StatementError, anchors, check_length};
use crate::digest::{Digest, sha256};
use crate::identity::{IdentityId, PublicKey, SIGNATURE_BYTES, SigningKey};

/// Names a statement: SHA-256 of its envelope's bytes.
#[must_use]
pub fn statement_id(envelope: &[u8]) -> Digest {
    sha256(&[envelope])
}

fn unsigned_envelope(signer: &IdentityId, content_type: &str, payload: Vec<u8>) -> CoseSign1Builder {
    let protected = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .content_type(content_type.to_owned())
        .key_id(signer.0.0.to_vec())
        .build();
    CoseSign1Builder::new().protected(protected).payload(payload)
}

pub(super) fn sign(statement: &Statement, key: &SigningKey, chain: &ChainTag) -> Result<Vec<u8>, StatementError> {
    statement.body.check()?;
    let mut payload = Vec::with_capacity(512);
    statement.body.write(statement.sequence, &mut payload);
    let envelope = unsigned_envelope(&statement.signer, statement.body.content_type(), payload)
        .create_signature(chain.0.as_ref(), |message| key.sign(message).to_vec())
        .build();
    let mut bytes = envelope.to_tagged_vec().map_err(|error| StatementError::Envelope(error.to_string()))?;
    if let Body::Anchors(anchors) = &statement.body {
        bytes = anchors::with_all(&bytes, anchors);
    }
    check_length(&bytes)?;
    Ok(bytes)
}

/// Signs any payload, as a signer that keeps to no rule would.
#[cfg(test)]
pub(super) fn forge(key: &SigningKey, content_type: &str, payload: Vec<u8>, chain: &ChainTag) -> Vec<u8> {
    let envelope = unsigned_envelope(&key.identity(), content_type, payload)
        .create_signature(chain.0.as_ref(), |message| key.sign(message).to_vec())
        .build();
    envelope.to_tagged_vec().unwrap_or_default()
}

/// An envelope without an unprotected header: who signed which payload, of which type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sealed {
    envelope: CoseSign1,
    signer: IdentityId,
    signature: [u8; SIGNATURE_BYTES],
}

impl Sealed {
    /// Opens an envelope, strictly: bytes that are not the one encoding of its content are refused.
    pub(super) fn open(bytes: &[u8]) -> Result<Self, StatementError> {
        let wrong = |what: &str| StatementError::Envelope(what.to_owned());
        let envelope =
            CoseSign1::from_tagged_slice(bytes).map_err(|error| StatementError::Envelope(error.to_string()))?;
        let header = &envelope.protected.header;
        let Some(coset::ContentType::Text(content_type)) = &header.content_type else {
            return Err(wrong("the protected header must hold a content type as text"));
        };
        let kid: [u8; 32] =
            header.key_id.as_slice().try_into().map_err(|_| wrong("the key id must be an identity id of 32 bytes"))?;
        let signer = IdentityId(Digest(kid));
        let signature: [u8; SIGNATURE_BYTES] =
            envelope.signature.as_slice().try_into().map_err(|_| wrong("the signature must have 64 bytes"))?;
        let payload = envelope.payload.as_deref().ok_or_else(|| wrong("the payload must be in the envelope"))?;
        // The one encoding: what we would write ourselves. It also refuses unknown headers and another algorithm.
        let again = unsigned_envelope(&signer, content_type, payload.to_vec()).signature(signature.to_vec()).build();
        if again.to_tagged_vec().ok().as_deref() != Some(bytes) {
            return Err(wrong("not the deterministic encoding of its content, or a header that Cairn does not use"));
        }
        Ok(Self { envelope, signer, signature })
    }

    /// Opens an envelope and reads its payload by its content type.
    pub(super) fn open_statement(bytes: &[u8]) -> Result<(Statement, Self), StatementError> {
        let sealed = Self::open(bytes)?;
        let (sequence, body) = Body::read(sealed.content_type(), sealed.payload())?;
        body.check()?;
        Ok((Statement { signer: sealed.signer, sequence, body }, sealed))
    }

    fn content_type(&self) -> &str {
        match &self.envelope.protected.header.content_type {
            Some(coset::ContentType::Text(text)) => text,
            // It was opened, so it has one.
            _ => "",
        }
    }

    pub(super) fn expect_type(&self, expected: &'static str) -> Result<(), StatementError> {
        match self.content_type() {
            found if found == expected => Ok(()),
            found => Err(StatementError::field("content type", expected, found)),
        }
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.envelope.payload.as_deref().unwrap_or_default()
    }

    pub(super) const fn signer(&self) -> IdentityId {
        self.signer
    }

    pub(super) fn verify(&self, key: &PublicKey, chain: &ChainTag) -> Result<(), StatementError> {
        let message = self.envelope.tbs_data(chain.0.as_ref());
        if key.verify(&message, &self.signature) {
            Ok(())
        } else {
            Err(StatementError::Signature { signer: self.signer })
        }
    }
}

/// A statement that was decoded, with what is needed to verify its signature.
///
/// That it decoded says nothing about who signed it: [`SignedStatement::verify`] does.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedStatement {
    statement: Statement,
    sealed: Sealed,
    id: Digest,
}

impl SignedStatement {
    /// Decodes an envelope, strictly: bytes that are not the one encoding of their content are refused.
    ///
    /// # Errors
    /// When they are too long, no envelope of ours, or a field holds what it may not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let (statement, sealed) = match anchors::take_apart(check_length(bytes)?)? {
            None => Sealed::open_statement(bytes)?,
            Some(parts) => {
                let sealed = Sealed::open(&parts.bare)?;
                let (sequence, body) = anchors::read_body(&parts, &sealed)?;
                body.check()?;
                (Statement { signer: sealed.signer(), sequence, body }, sealed)
            }
        };
        Ok(Self { statement, sealed, id: statement_id(bytes) })
    }

    /// What is said. Not yet verified.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Takes what is said. Not yet verified.
    #[must_use]
    pub fn into_statement(self) -> Statement {
        self.statement
    }

    /// SHA-256 of the envelope.
    #[must_use]
    pub const fn id(&self) -> Digest {
        self.id
    }

    /// Checks that `key` signed these bytes for `chain`.
    ///
    /// # Errors
    /// When it did not.
    pub fn verify(&self, key: &PublicKey, chain: &ChainTag) -> Result<(), StatementError> {
        self.sealed.verify(key, chain)
    }
}

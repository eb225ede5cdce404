//! Equivocations: two consensus messages of one validator that honest software never signs both.
//!
//! ```text
//! signed   = varint(len(NS)) ‖ NS ‖ body,   NS = "cairn/consensus/v1/" ‖ chain tag ‖ suffix
//! notarize   suffix "_NOTARIZE"   body = varint(epoch) ‖ varint(view) ‖ varint(parent view) ‖ payload[32]
//! nullify    suffix "_NULLIFY"    body = varint(epoch) ‖ varint(view)
//! finalize   suffix "_FINALIZE"   body = as of notarize
//! ```
//!
//! Proof of equivocation are two notarizes or two finalizes of one view for different proposals, or a nullify and a
//! finalize of one view. The two stand in one order, so that an equivocation has one encoding. Signatures are checked
//! strictly, as everywhere: a validator that signs by the wider ZIP-215 rules alone escapes this proof, not the quorum.

use crate::cbor::{CborError, Reader, Writer};
use crate::certificate::{consensus_namespace, write_varint};
use crate::digest::Digest;
use crate::identity::{PublicKey, SIGNATURE_BYTES};
use crate::statement::ChainTag;

/// What a validator says about one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// It would accept this proposal.
    Notarize {
        /// View of the proposal's parent.
        parent_view: u64,
        /// Digest of the proposed header.
        payload: Digest,
    },
    /// It gives the view up.
    Nullify,
    /// It takes this proposal for decided.
    Finalize {
        /// View of the proposal's parent.
        parent_view: u64,
        /// Digest of the proposed header.
        payload: Digest,
    },
}

impl Message {
    const fn code(&self) -> u64 {
        match self {
            Self::Notarize { .. } => 1,
            Self::Nullify => 2,
            Self::Finalize { .. } => 3,
        }
    }

    const fn suffix(&self) -> &'static [u8] {
        match self {
            Self::Notarize { .. } => b"_NOTARIZE",
            Self::Nullify => b"_NULLIFY",
            Self::Finalize { .. } => b"_FINALIZE",
        }
    }

    /// The bytes that a validator of `chain` signs to say this in `view` of `epoch`.
    #[must_use]
    pub fn signed_bytes(&self, epoch: u64, view: u64, chain: &ChainTag) -> Vec<u8> {
        let domain = [&consensus_namespace(chain), self.suffix()].concat();
        let mut out = Vec::with_capacity(domain.len() + 64);
        write_varint(domain.len() as u64, &mut out);
        out.extend_from_slice(&domain);
        write_varint(epoch, &mut out);
        write_varint(view, &mut out);
        if let Self::Notarize { parent_view, payload } | Self::Finalize { parent_view, payload } = self {
            write_varint(*parent_view, &mut out);
            out.extend_from_slice(payload.as_ref());
        }
        out
    }
}

/// A message and the signature under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedMessage {
    /// What is said.
    pub message: Message,
    /// Signature over [`Message::signed_bytes`].
    pub signature: [u8; SIGNATURE_BYTES],
}

/// Which two messages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EquivocationKind {
    /// Two notarizes for different proposals.
    Notarizes,
    /// Two finalizes for different proposals.
    Finalizes,
    /// A nullify and a finalize.
    NullifyAndFinalize,
}

impl EquivocationKind {
    /// The name in text output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notarizes => "two notarizes",
            Self::Finalizes => "two finalizes",
            Self::NullifyAndFinalize => "nullify and finalize",
        }
    }
}

/// Why two messages prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// An honest validator may sign both, or they stand in the wrong order.
    #[error(
        "expected two notarizes or two finalizes for different proposals, the lesser first, or a nullify and then a finalize"
    )]
    NoConflict,
    /// One of them is not by the validator on this chain.
    #[error("the signature under the {place} message is not by validator {validator} for this epoch, view and chain")]
    Signature {
        /// "first" or "second".
        place: &'static str,
        /// Who is said to have signed.
        validator: PublicKey,
    },
}

/// Two messages of one validator about one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Equivocation {
    /// Who signed both.
    pub validator: PublicKey,
    /// Epoch of the view.
    pub epoch: u64,
    /// The view.
    pub view: u64,
    /// The lesser message: by kind (notarize, nullify, finalize), then parent view, then payload.
    pub first: SignedMessage,
    /// The greater message.
    pub second: SignedMessage,
}

impl Equivocation {
    /// Puts two messages, in any order, into the order that the encoding asks for.
    #[must_use]
    pub fn new(validator: PublicKey, epoch: u64, view: u64, one: SignedMessage, other: SignedMessage) -> Self {
        let (first, second) = if one.message <= other.message { (one, other) } else { (other, one) };
        Self { validator, epoch, view, first, second }
    }

    /// Which two messages they are; `None` when an honest validator may sign both, or in the wrong order.
    #[must_use]
    pub fn kind(&self) -> Option<EquivocationKind> {
        let (first, second) = (&self.first.message, &self.second.message);
        match (first, second) {
            (Message::Notarize { .. }, Message::Notarize { .. }) if first < second => Some(EquivocationKind::Notarizes),
            (Message::Finalize { .. }, Message::Finalize { .. }) if first < second => Some(EquivocationKind::Finalizes),
            (Message::Nullify, Message::Finalize { .. }) => Some(EquivocationKind::NullifyAndFinalize),
            _ => None,
        }
    }

    /// Checks that the validator signed both on `chain`, and that no honest one does.
    ///
    /// Whether the key was a validator of that epoch is not told by the messages: the chain's state knows.
    ///
    /// # Errors
    /// Says which message does not prove it.
    pub fn verify(&self, chain: &ChainTag) -> Result<EquivocationKind, EvidenceError> {
        let kind = self.kind().ok_or(EvidenceError::NoConflict)?;
        for (place, signed) in [("first", &self.first), ("second", &self.second)] {
            let message = signed.message.signed_bytes(self.epoch, self.view, chain);
            if !self.validator.verify(&message, &signed.signature) {
                return Err(EvidenceError::Signature { place, validator: self.validator });
            }
        }
        Ok(kind)
    }
}

impl SignedMessage {
    /// Appends CBOR `[kind, parent view, payload, signature]`, of a nullify `[2, signature]`.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match &self.message {
            Message::Nullify => {
                writer.array(2);
                writer.unsigned(self.message.code());
            }
            Message::Notarize { parent_view, payload } | Message::Finalize { parent_view, payload } => {
                writer.array(4);
                writer.unsigned(self.message.code());
                writer.unsigned(*parent_view);
                writer.bytes(payload.as_ref());
            }
        }
        writer.bytes(&self.signature);
    }

    /// Reads what [`SignedMessage::write`] wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let items = reader.array(4)?;
        let code = reader.unsigned()?;
        let message = match (items, code) {
            (2, 2) => Message::Nullify,
            (4, 1) => Message::Notarize { parent_view: reader.unsigned()?, payload: Digest(reader.fixed()?) },
            (4, 3) => Message::Finalize { parent_view: reader.unsigned()?, payload: Digest(reader.fixed()?) },
            _ => {
                let found = format!("{items} items of kind {code}");
                return Err(
                    reader.error("a notarize (4 items, 1), nullify (2 items, 2) or finalize (4 items, 3)", found)
                );
            }
        };
        Ok(Self { message, signature: reader.fixed()? })
    }
}

/// Makes messages for tests and for tools that check verifiers; validators make theirs in consensus.
#[cfg(any(test, feature = "forge"))]
pub mod forge {
    use super::{ChainTag, Message, SignedMessage};
    use crate::identity::SigningKey;

    /// `message` about `view` of `epoch`, signed by `key`.
    #[must_use]
    pub fn message(key: &SigningKey, epoch: u64, view: u64, message: Message, chain: &ChainTag) -> SignedMessage {
        SignedMessage { message, signature: key.sign(&message.signed_bytes(epoch, view, chain)) }
    }
}

#[cfg(test)]
mod tests;

//! The statement by which a validator votes for a change of the committee or of the parameters.
//!
//! ```text
//! vote   = {1: sequence, 2: expires_epoch, 3: change}
//! change = [1, key, name, address, proof of possession]     add a validator
//!        | [2, key]                                         remove one
//!        | [3, key, address]                                give one another address
//!        | [4, key]                                         bring a suspended one back
//!        | [5, parameters]                                  set the parameters, docs/formats.md
//!
//! proposal id = SHA-256(CBOR ["cairn/proposal/v1", expires_epoch, change])
//! possession  = signature over "cairn/validator/v1" ‖ chain tag ‖ key
//! ```
//!
//! Votes for the same id are counted together; counting is not done here but in the chain's state.

use super::{ChainTag, StatementError, check_text, read_public_key};
use crate::address::{ADDRESS_RULE, is_address};
use crate::cbor::{Reader, Writer};
use crate::digest::{Digest, sha256};
use crate::identity::{PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::parameters::Parameters;
use crate::units::Sequence;

pub(super) const CONTENT_TYPE: &str = "application/vnd.cairn.vote.v1+cbor";
const POSSESSION_DOMAIN: &[u8] = b"cairn/validator/v1";

/// What is voted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Takes a validator in.
    AddValidator {
        /// The key it votes with.
        public_key: PublicKey,
        /// A name for people, 1 to 128 bytes.
        name: String,
        /// Where the others reach it, `host:port`.
        address: String,
        /// Signature by that key: see [`Change::add`].
        possession: [u8; SIGNATURE_BYTES],
    },
    /// Takes a validator out.
    RemoveValidator {
        /// Its key.
        public_key: PublicKey,
    },
    /// Gives a validator another address.
    SetAddress {
        /// Its key.
        public_key: PublicKey,
        /// Where the others reach it, `host:port`.
        address: String,
    },
    /// Brings a suspended validator back.
    Reinstate {
        /// Its key.
        public_key: PublicKey,
    },
    /// Sets the parameters; the length of an epoch stays.
    SetParameters(Parameters),
}

impl Change {
    /// The change that takes the validator with `key` in, with the proof that the key is held.
    #[must_use]
    pub fn add(key: &SigningKey, name: String, address: String, chain: &ChainTag) -> Self {
        let public_key = key.public();
        let possession = key.sign(&possession_message(&public_key, chain));
        Self::AddValidator { public_key, name, address, possession }
    }

    /// Whether a validator that is to be added signed with its key for `chain`. Holds for every other change.
    #[must_use]
    pub fn possession_holds(&self, chain: &ChainTag) -> bool {
        match self {
            Self::AddValidator { public_key, possession, .. } => {
                public_key.verify(&possession_message(public_key, chain), possession)
            }
            Self::RemoveValidator { .. }
            | Self::SetAddress { .. }
            | Self::Reinstate { .. }
            | Self::SetParameters(_) => true,
        }
    }

    /// The name in text output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AddValidator { .. } => "add_validator",
            Self::RemoveValidator { .. } => "remove_validator",
            Self::SetAddress { .. } => "set_address",
            Self::Reinstate { .. } => "reinstate",
            Self::SetParameters(_) => "set_parameters",
        }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut Writer::new(&mut out));
        out
    }

    /// Appends the canonical bytes.
    pub fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::AddValidator { public_key, name, address, possession } => {
                writer.array(5);
                writer.unsigned(1);
                writer.bytes(public_key.as_bytes());
                writer.text(name);
                writer.text(address);
                writer.bytes(possession);
            }
            Self::RemoveValidator { public_key } => {
                writer.array(2);
                writer.unsigned(2);
                writer.bytes(public_key.as_bytes());
            }
            Self::SetAddress { public_key, address } => {
                writer.array(3);
                writer.unsigned(3);
                writer.bytes(public_key.as_bytes());
                writer.text(address);
            }
            Self::Reinstate { public_key } => {
                writer.array(2);
                writer.unsigned(4);
                writer.bytes(public_key.as_bytes());
            }
            Self::SetParameters(parameters) => {
                writer.array(2);
                writer.unsigned(5);
                parameters.write(writer);
            }
        }
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are not of one of the shapes above, or a key is not usable.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, StatementError> {
        let items = reader.array(5)?;
        let code = reader.unsigned()?;
        match (code, items) {
            (1, 5) => Ok(Self::AddValidator {
                public_key: read_public_key(reader)?,
                name: reader.text()?.to_owned(),
                address: reader.text()?.to_owned(),
                possession: reader.fixed()?,
            }),
            (2, 2) => Ok(Self::RemoveValidator { public_key: read_public_key(reader)? }),
            (3, 3) => Ok(Self::SetAddress { public_key: read_public_key(reader)?, address: reader.text()?.to_owned() }),
            (4, 2) => Ok(Self::Reinstate { public_key: read_public_key(reader)? }),
            (5, 2) => Ok(Self::SetParameters(Parameters::read(reader)?)),
            _ => {
                let found = format!("kind {code} with {items} items");
                Err(reader.error("a change of kind 1 to 5 with its items", found).into())
            }
        }
    }

    /// Checks name, address and ranges.
    ///
    /// # Errors
    /// Names the first field that holds what it may not hold.
    pub fn check(&self) -> Result<(), StatementError> {
        match self {
            Self::AddValidator { name, address, .. } => {
                check_text("name", name, 128, |c| !c.is_control(), "text without control characters")?;
                check_address(address)
            }
            Self::SetAddress { address, .. } => check_address(address),
            Self::SetParameters(parameters) => parameters.check().map_err(|error| {
                StatementError::field(error.field, format!("{} to {}", error.least, error.most), error.found)
            }),
            Self::RemoveValidator { .. } | Self::Reinstate { .. } => Ok(()),
        }
    }
}

/// A validator's vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The last epoch in which the proposal may still pass.
    pub expires_epoch: u64,
    /// What it is for.
    pub change: Change,
}

impl Vote {
    /// Names what is voted for: the same for every validator that votes for the same.
    #[must_use]
    pub fn proposal_id(&self) -> Digest {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.array(3);
        writer.text("cairn/proposal/v1");
        writer.unsigned(self.expires_epoch);
        self.change.write(&mut writer);
        sha256(&[&out])
    }

    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(3);
        writer.unsigned(1);
        writer.unsigned(sequence.0);
        writer.unsigned(2);
        writer.unsigned(self.expires_epoch);
        writer.unsigned(3);
        self.change.write(writer);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), StatementError> {
        reader.map_of(3)?;
        reader.key(1)?;
        let sequence = Sequence(reader.unsigned()?);
        reader.key(2)?;
        let expires_epoch = reader.unsigned()?;
        reader.key(3)?;
        let change = Change::read(reader)?;
        Ok((sequence, Self { expires_epoch, change }))
    }
}

fn check_address(address: &str) -> Result<(), StatementError> {
    if is_address(address) {
        Ok(())
    } else {
        Err(StatementError::field("address", ADDRESS_RULE, format!("{address:?}")))
    }
}

fn possession_message(key: &PublicKey, chain: &ChainTag) -> Vec<u8> {
    [POSSESSION_DOMAIN, chain.0.as_ref(), key.as_bytes()].concat()
}

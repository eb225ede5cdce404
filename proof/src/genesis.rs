//! Genesis: what a chain starts from, and all that a verifier has to be given.
//!
//! ```text
//! canonical = CBOR ["cairn/genesis/v2", chain id, timestamp_ms, [[name, key, address]…], [[name, kind, key]…], parameters]
//! tag       = SHA-256(canonical)
//! ```
//!
//! The file is JSON for people; what is hashed is the CBOR, so that white space in the file does not matter.

use serde::{Deserialize, Serialize};

use crate::address::{ADDRESS_RULE, is_address};
use crate::cbor::Writer;
use crate::committee::{Committee, VALIDATORS_MAX};
use crate::digest::{Digest, sha256};
use crate::header::Header;
use crate::identity::{IdentityKind, PublicKey};
use crate::parameters::Parameters;
use crate::statement::ChainTag;
use crate::tree;
use crate::units::{Height, TreeSize};

/// The mark of the format, in the file and in the canonical bytes.
pub const GENESIS_MARK: &str = "cairn/genesis/v2";
const IDENTITIES_MAX: usize = 4096;

/// A validator at genesis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisValidator {
    /// A name for people.
    pub name: String,
    /// The key it votes with.
    pub public_key: PublicKey,
    /// Where the other validators reach it, `host:port`.
    pub address: String,
}

/// An identity at genesis; it has no controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisIdentity {
    /// A name for people.
    pub name: String,
    /// What it stands for.
    pub kind: IdentityKind,
    /// Its first key.
    pub public_key: PublicKey,
}

/// What a chain starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// [`GENESIS_MARK`].
    pub format: String,
    /// The chain's name: 1 to 64 of a–z, 0–9, '.' and '-'.
    pub chain_id: String,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: u64,
    /// The validators of epoch 0.
    pub validators: Vec<GenesisValidator>,
    /// The identities that exist from the start.
    pub identities: Vec<GenesisIdentity>,
    /// What the validators agree on; what is not said is as [`Parameters::default`].
    #[serde(default)]
    pub parameters: Parameters,
}

/// Why a genesis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("genesis, {field}: expected {expected}, found {found}")]
pub struct GenesisError {
    /// Which field.
    pub field: &'static str,
    /// What is allowed.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl Genesis {
    /// Reads a genesis file and checks it.
    ///
    /// # Errors
    /// When it is no JSON of this shape, or a field holds what it may not hold.
    pub fn from_json(text: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = serde_json::from_slice(text).map_err(|error| GenesisError {
            field: "file",
            expected: format!("JSON of the form {GENESIS_MARK}"),
            found: error.to_string(),
        })?;
        genesis.check()?;
        Ok(genesis)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the first field that holds what it may not hold.
    pub fn check(&self) -> Result<(), GenesisError> {
        let wrong =
            |field, expected: &str, found: String| Err(GenesisError { field, expected: expected.into(), found });
        if self.format != GENESIS_MARK {
            return wrong("format", GENESIS_MARK, format!("{:?}", self.format));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        if self.chain_id.is_empty() || self.chain_id.len() > 64 || !self.chain_id.chars().all(allowed) {
            return wrong("chain_id", "1 to 64 of a–z, 0–9, '.' and '-'", format!("{:?}", self.chain_id));
        }
        if self.validators.is_empty() || self.validators.len() > VALIDATORS_MAX {
            return wrong("validators", "1 to 128 of them", self.validators.len().to_string());
        }
        if self.identities.len() > IDENTITIES_MAX {
            return wrong("identities", "at most 4096 of them", self.identities.len().to_string());
        }
        let names = self.validators.iter().map(|v| &v.name).chain(self.identities.iter().map(|i| &i.name));
        for name in names {
            if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                return wrong("name", "1 to 128 bytes without control characters", format!("{name:?}"));
            }
        }
        if let Some(validator) = self.validators.iter().find(|validator| !is_address(&validator.address)) {
            return wrong("address", ADDRESS_RULE, format!("{:?}", validator.address));
        }
        // A validator is an identity too, so a key stands once in both lists together.
        let keys = self.validators.iter().map(|v| v.public_key).chain(self.identities.iter().map(|i| i.public_key));
        let mut sorted: Vec<_> = keys.collect();
        let count = sorted.len();
        sorted.sort();
        sorted.dedup();
        if sorted.len() != count {
            return wrong("public_key", "each key once", "a key that is there twice".into());
        }
        self.parameters.check().map_err(|error| GenesisError {
            field: error.field,
            expected: format!("{} to {}", error.least, error.most),
            found: error.found.to_string(),
        })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.array(6);
        writer.text(GENESIS_MARK);
        writer.text(&self.chain_id);
        writer.unsigned(self.timestamp_ms);
        writer.array(self.validators.len());
        for validator in &self.validators {
            writer.array(3);
            writer.text(&validator.name);
            writer.bytes(validator.public_key.as_bytes());
            writer.text(&validator.address);
        }
        writer.array(self.identities.len());
        for identity in &self.identities {
            writer.array(3);
            writer.text(&identity.name);
            writer.unsigned(identity.kind.code());
            writer.bytes(identity.public_key.as_bytes());
        }
        self.parameters.write(&mut writer);
        out
    }

    /// SHA-256 of the canonical bytes: binds signatures to this chain.
    #[must_use]
    pub fn tag(&self) -> ChainTag {
        ChainTag(sha256(&[&self.encode()]))
    }

    /// The validators' keys in ascending order, as certificates count them.
    #[must_use]
    pub fn validator_keys(&self) -> Vec<PublicKey> {
        self.committee().keys().to_vec()
    }

    /// The committee of epoch 0. The genesis is a checked one; of another, no certificate holds under the result.
    #[must_use]
    pub fn committee(&self) -> Committee {
        Committee::of_genesis(self.validators.iter().map(|validator| validator.public_key).collect())
    }

    /// The header of height 0. Nobody signs it: it follows from the genesis, whose tag stands in `parent`.
    #[must_use]
    pub fn header(&self) -> Header {
        let committee = self.committee();
        // A checked genesis has a validator; the proposer of a block that nobody proposed is the first key.
        let proposer = committee.keys().first().copied();
        let validators_hash = committee.hash();
        Header {
            chain_id: self.chain_id.clone(),
            epoch: 0,
            view: 0,
            parent_view: 0,
            proposer: proposer.map_or([0; 32], |key| *key.as_bytes()),
            height: Height(0),
            timestamp_ms: self.timestamp_ms,
            parent: self.tag().0,
            statements_root: tree::empty_root(),
            statements_count: 0,
            state_root: Digest::ZERO,
            log_root: tree::empty_root(),
            log_size: TreeSize(0),
            validators_hash,
            next_validators_hash: validators_hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SigningKey;

    fn key(seed: u8) -> PublicKey {
        SigningKey::from_seed(&[seed; 32]).public()
    }

    fn genesis() -> Genesis {
        let validator =
            |seed| GenesisValidator { name: "v".into(), public_key: key(seed), address: "v.example:7000".into() };
        let kind = IdentityKind::Organisation;
        Genesis {
            format: GENESIS_MARK.into(),
            chain_id: "city".into(),
            timestamp_ms: 1,
            validators: (1..=4).map(validator).collect(),
            identities: vec![GenesisIdentity { name: "city".into(), kind, public_key: key(8) }],
            parameters: Parameters::default(),
        }
    }

    #[test]
    fn fields_out_of_range_are_named() {
        type Change = fn(&mut Genesis);
        let changes: [(&str, Change); 11] = [
            ("format", |g| g.format = "cairn/genesis/v1".into()),
            ("chain_id", |g| g.chain_id = "City".into()),
            ("chain_id", |g| g.chain_id = "a".repeat(65)),
            ("validators", |g| g.validators.clear()),
            ("identities", |g| g.identities = vec![g.identities[0].clone(); 4097]),
            ("name", |g| g.validators[1].name = "a\u{1}".into()),
            ("address", |g| g.validators[1].address = "v.example".into()),
            ("address", |g| g.validators[1].address.clear()),
            ("public_key", |g| g.validators[1].public_key = g.validators[0].public_key),
            ("public_key", |g| g.identities[0].public_key = g.validators[0].public_key),
            ("parameters.vote_epochs", |g| g.parameters.vote_epochs = 0),
        ];
        genesis().check().unwrap();
        for (field, change) in changes {
            let mut genesis = genesis();
            change(&mut genesis);
            let error = genesis.check().unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
    }

    #[test]
    fn parameters_may_be_left_out_of_the_file_and_stand_in_the_tag() {
        let mut json = serde_json::to_value(genesis()).unwrap();
        json.as_object_mut().unwrap().remove("parameters");
        let read = Genesis::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(read, genesis());
        json["parameters"] = serde_json::json!({ "epoch_blocks": 10 });
        let other = Genesis::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(other.parameters, Parameters { epoch_blocks: 10, ..Parameters::default() });
        assert_ne!(other.tag(), genesis().tag());
        json["parameters"] = serde_json::json!({ "epoch_blocks": 1 });
        assert_eq!(Genesis::from_json(json.to_string().as_bytes()).unwrap_err().field, "parameters.epoch_blocks");
    }

    #[test]
    fn every_field_of_a_validator_stands_in_the_tag() {
        for change in
            [(|v| v.name.push('x')) as fn(&mut GenesisValidator), |v| v.address.push('1'), |v| v.public_key = key(9)]
        {
            let mut other = genesis();
            change(&mut other.validators[2]);
            assert_ne!(other.tag(), genesis().tag());
        }
    }
}

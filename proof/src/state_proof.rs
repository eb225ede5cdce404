//! A state proof: one file that proves what the state says about one subject, or that it says nothing, with the genesis alone.
//!
//! ```text
//! subject ─key─▶ value or another leaf ─path─▶ state root in the header ─hash─▶ certificate ─keys─▶ committees ─▶ genesis
//! ```
//!
//! The file is JSON in exactly one form, as receipts are. The value is canonical CBOR, described in docs/formats.md,
//! section "State"; this module checks that it stands in the state and does not interpret it.

use serde::{Deserialize, Serialize};

use crate::base64_bytes::Base64Bytes;
use crate::committee::{CommitteeChange, walk};
use crate::digest::{Digest, sha256};
use crate::form;
use crate::genesis::Genesis;
use crate::header::Header;
use crate::identity::{IdentityId, PublicKey};
use crate::statement::Role;
use crate::trie::{self, PATH_MAX, PathEnd};
use crate::units::Partition;

/// The mark of the format.
pub const STATE_PROOF_MARK: &str = "cairn/state-proof/v1";
/// No file is longer: a value, 256 steps, and the committees.
pub const STATE_PROOF_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the state is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Subject {
    /// An identity.
    Identity {
        /// Its id.
        id: IdentityId,
    },
    /// Which identity has, or had, a key.
    Key {
        /// The key.
        key: PublicKey,
    },
    /// The last sequence number of an identity.
    Sequence {
        /// The identity's id.
        id: IdentityId,
    },
    /// A stream.
    Stream {
        /// Its name.
        name: String,
    },
    /// Which stream a Kafka topic belongs to.
    Topic {
        /// The topic.
        topic: String,
    },
    /// Whether an identity has a role for a stream.
    Role {
        /// The stream's name.
        stream: String,
        /// Which role.
        role: Role,
        /// The identity's id.
        identity: IdentityId,
    },
    /// How far a partition is anchored.
    Head {
        /// The stream's name.
        stream: String,
        /// The partition.
        partition: Partition,
    },
    /// An anchor.
    Anchor {
        /// Id of the statement.
        id: Digest,
    },
    /// A validator.
    Validator {
        /// The key it votes with.
        key: PublicKey,
    },
    /// A change that validators vote on.
    Proposal {
        /// Its id.
        id: Digest,
    },
    /// Evidence of an equivocation.
    Evidence {
        /// The validator's key.
        validator: PublicKey,
        /// Epoch of the view.
        epoch: u64,
        /// The view.
        view: u64,
    },
    /// The committee that certifies the next block.
    Committee {},
    /// The committee of the next epoch.
    NextCommittee {},
    /// The parameters in force.
    Parameters {},
    /// The parameters from the next epoch on.
    NextParameters {},
    /// The height of the last attested certificate.
    Attested {},
}

impl Subject {
    /// The state's key for it: SHA-256 of a name.
    #[must_use]
    pub fn key(&self) -> Digest {
        match self {
            Self::Identity { id } => sha256(&[b"identity/", id.0.as_ref()]),
            Self::Key { key } => sha256(&[b"key/", key.as_bytes()]),
            Self::Sequence { id } => sha256(&[b"sequence/", id.0.as_ref()]),
            Self::Stream { name } => sha256(&[b"stream/", name.as_bytes()]),
            Self::Topic { topic } => sha256(&[b"topic/", topic.as_bytes()]),
            Self::Role { stream, role, identity } => {
                let [.., code] = role.code().to_be_bytes();
                sha256(&[b"role/", &[code], identity.0.as_ref(), stream.as_bytes()])
            }
            Self::Head { stream, partition } => sha256(&[b"head/", &partition.0.to_be_bytes(), stream.as_bytes()]),
            Self::Anchor { id } => sha256(&[b"anchor/", id.as_ref()]),
            Self::Validator { key } => sha256(&[b"validator/", key.as_bytes()]),
            Self::Proposal { id } => sha256(&[b"proposal/", id.as_ref()]),
            Self::Evidence { validator, epoch, view } => {
                sha256(&[b"evidence/", validator.as_bytes(), &epoch.to_be_bytes(), &view.to_be_bytes()])
            }
            Self::Committee {} => sha256(&[b"committee/current"]),
            Self::NextCommittee {} => sha256(&[b"committee/next"]),
            Self::Parameters {} => sha256(&[b"parameters/current"]),
            Self::NextParameters {} => sha256(&[b"parameters/next"]),
            Self::Attested {} => sha256(&[b"attested"]),
        }
    }
}

/// What the state alone can say about a subject: everything of a proof but what ties the state's root to the genesis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateProofParts {
    /// The entry's canonical bytes; `None` when it is not in the state.
    pub value: Option<Vec<u8>>,
    /// From the root down: a branch's bit, and the hash of the side not taken.
    pub path: Vec<(u16, Digest)>,
    /// Key and value hash of the leaf at the end of an absent key's path; `None` for a present key, and in an empty state.
    pub neighbour: Option<(Digest, Digest)>,
}

/// Everything that proves one entry of the state, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateProof {
    /// [`STATE_PROOF_MARK`].
    pub format: String,
    /// What is proven.
    pub subject: Subject,
    /// The entry's canonical bytes; null: it is not in the state.
    pub value: Option<Base64Bytes>,
    /// From the root down: a branch's bit, and the hash of the side not taken.
    pub path: Vec<(u16, Digest)>,
    /// Key and value hash of the leaf at the end of an absent key's path.
    pub neighbour: Option<(Digest, Digest)>,
    /// The ends of epochs at which the committee changed before the header, oldest first.
    pub committees: Vec<CommitteeChange>,
    /// The header's canonical bytes.
    pub header: Base64Bytes,
    /// The certificate over that header.
    pub certificate: Base64Bytes,
}

/// Why a state proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step}: {reason}")]
pub struct StateProofError {
    /// Which step: form, committees, header, certificate or state.
    pub step: &'static str,
    /// What was expected and what was found.
    pub reason: String,
}

/// What a state proof that verified says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The subject.
    pub subject: Subject,
    /// Its canonical value after the header's block; `None`: the state has no such entry.
    pub value: Option<Vec<u8>>,
    /// The certified header.
    pub header: Header,
    /// How many validators signed, of how many.
    pub signed: (usize, usize),
}

impl StateProof {
    /// Puts a proof together.
    #[must_use]
    pub fn new(
        subject: Subject,
        parts: StateProofParts,
        committees: Vec<CommitteeChange>,
        header: Vec<u8>,
        certificate: Vec<u8>,
    ) -> Self {
        Self {
            format: STATE_PROOF_MARK.to_owned(),
            subject,
            value: parts.value.map(Base64Bytes),
            path: parts.path,
            neighbour: parts.neighbour,
            committees,
            header: Base64Bytes(header),
            certificate: Base64Bytes(certificate),
        }
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// Never for a proof that fits into memory; the error is the serialiser's.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        form::write(self)
    }

    /// Reads a file's bytes, strictly.
    ///
    /// # Errors
    /// When they are not what [`StateProof::to_json`] writes for their content.
    pub fn from_json(bytes: &[u8]) -> Result<Self, StateProofError> {
        let fail = |reason| StateProofError { step: "form", reason };
        let proof: Self = form::read(bytes, STATE_PROOF_BYTES_MAX, "state proof").map_err(fail)?;
        if proof.format != STATE_PROOF_MARK {
            return Err(fail(format!("expected format {STATE_PROOF_MARK:?}, found {:?}", proof.format)));
        }
        if proof.path.len() > PATH_MAX {
            return Err(fail(format!("the path has {} steps, a key has {PATH_MAX} bits", proof.path.len())));
        }
        Ok(proof)
    }

    /// Checks every link from the subject to the genesis' validators. Needs nothing else.
    ///
    /// # Errors
    /// Names the first step that does not hold, what was expected and what was found.
    pub fn verify(&self, genesis: &Genesis) -> Result<Proven, StateProofError> {
        fn failed<E: std::fmt::Display>(step: &'static str) -> impl Fn(E) -> StateProofError {
            move |error| StateProofError { step, reason: error.to_string() }
        }
        let trusted = walk(genesis, &self.committees).map_err(failed("committees"))?;
        let header = Header::decode(&self.header.0).map_err(failed("header"))?;
        trusted.check_header(genesis, &header).map_err(failed("header"))?;
        let signed = trusted.check_certificate(genesis, &header, &self.certificate.0).map_err(failed("certificate"))?;
        let end = self.path_end()?;
        trie::verify(&header.state_root, &self.subject.key(), &self.path, &end).map_err(failed("state"))?;
        let value = self.value.as_ref().map(|value| value.0.clone());
        Ok(Proven { subject: self.subject.clone(), value, header, signed: (signed, trusted.committee.len()) })
    }

    fn path_end(&self) -> Result<PathEnd, StateProofError> {
        match (&self.value, &self.neighbour) {
            (Some(value), None) => Ok(PathEnd::Present { value: sha256(&[&value.0]) }),
            (None, Some((key, value))) => Ok(PathEnd::Absent { key: *key, value: *value }),
            (None, None) => Ok(PathEnd::Empty),
            (Some(_), Some(_)) => Err(StateProofError {
                step: "state",
                reason: "expected a value, or a neighbour that shows that there is none; found both".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;

//! Why a statement is not applied: a code for programs, a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of refusal it is. The caller acts on it: see each variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Does not decode, or a field holds what it may not: fix the input.
    Malformed,
    /// The signature is not by the signer's key: fix the key or the chain.
    Signature,
    /// The sequence number is not greater than the signer's last: sign again with a greater one.
    Sequence,
    /// No such identity: register it first.
    UnknownIdentity,
    /// No such stream: register it first.
    UnknownStream,
    /// The signer has no right to say this.
    NotAllowed,
    /// The name, key or topic is taken.
    Duplicate,
    /// Offsets that are anchored already (I1): resume from the partition's head.
    Overlap,
    /// Offsets are left out, or gaps are declared where the stream allows none (I1).
    Gap,
    /// The previous anchor that it names is not the partition's head: resume from the head.
    Previous,
    /// A limit of the stream or the chain is passed.
    Limit,
    /// The identity, or the one that the statement is about, was revoked: for ever.
    Revoked,
    /// The identity's time is over: its controller may prolong it.
    Expired,
    /// What is submitted does not prove what it says.
    Evidence,
}

impl RefusalCode {
    /// Every code, for counters by reason.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::Signature,
        Self::Sequence,
        Self::UnknownIdentity,
        Self::UnknownStream,
        Self::NotAllowed,
        Self::Duplicate,
        Self::Overlap,
        Self::Gap,
        Self::Previous,
        Self::Limit,
        Self::Revoked,
        Self::Expired,
        Self::Evidence,
    ];

    /// The name in JSON, metrics and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Sequence => "sequence",
            Self::UnknownIdentity => "unknown_identity",
            Self::UnknownStream => "unknown_stream",
            Self::NotAllowed => "not_allowed",
            Self::Duplicate => "duplicate",
            Self::Overlap => "overlap",
            Self::Gap => "gap",
            Self::Previous => "previous",
            Self::Limit => "limit",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Evidence => "evidence",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A statement that is not applied. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("refused ({code}): {message}")]
pub struct Refusal {
    /// What kind.
    pub code: RefusalCode,
    /// What was expected, what was found.
    pub message: String,
}

impl Refusal {
    /// A refusal of that kind.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The same, about a part of the statement.
    #[must_use]
    pub(crate) fn within(self, part: &str) -> Self {
        Self { message: format!("{part}: {}", self.message), ..self }
    }
}

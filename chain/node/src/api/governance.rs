//! Reading who validates and by which rules: validators, committees, parameters, proposals.

use axum::{
    Json,
    extract::{Query, State},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_chain_state::{ProposalEntry, ValidatorEntry};
use cairn_proof::{Digest, Height, identity::PublicKey, parameters, statement::Change};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    error::ApiError,
    openapi::{Base64, Hash},
};

/// Committee changes in one answer.
const CHANGES_MAX: usize = 32;

/// A validator: who, where, and how it did.
#[derive(Serialize, ToSchema)]
pub(super) struct Validator {
    /// The key it votes with in consensus.
    #[schema(value_type = Hash)]
    public_key: PublicKey,
    name: String,
    /// `host:port` of its listener for other nodes.
    address: String,
    /// `active`, `suspended` or `removed`.
    status: &'static str,
    /// Since which block it has that status.
    since: u64,
    /// Whether it is in the committee that certifies the next block.
    in_committee: bool,
    /// Whether it is in the committee of the next epoch, as far as that is known.
    in_next_committee: bool,
    /// Blocks it proposed.
    proposals_made: u64,
    /// Views it led that brought no block.
    proposals_missed: u64,
    /// Attested certificates in which its vote was seen.
    votes_seen: u64,
    /// Proven equivocations.
    equivocations: u64,
    /// Epochs in a row in which it was absent.
    absent_epochs: u64,
}

/// All validators there ever were.
#[derive(Serialize, ToSchema)]
pub(super) struct Validators {
    /// The block at which this holds.
    height: u64,
    epoch: u64,
    validators: Vec<Validator>,
}

/// All validators there ever were, in ascending order of their keys.
#[utoipa::path(get, path = "/v1/validators", tag = "governance", responses((status = 200, body = Validators)))]
pub(super) async fn validators(State(api): State<Api>) -> Json<Validators> {
    let tip = api.shared.ledger.tip();
    let validator = |entry: &ValidatorEntry| Validator {
        public_key: entry.public_key,
        name: entry.name.clone(),
        address: entry.address.clone(),
        status: entry.status.name(),
        since: entry.since.0,
        in_committee: tip.state.committee().contains(&entry.public_key),
        in_next_committee: tip.state.next_committee().contains(&entry.public_key),
        proposals_made: entry.proposals_made,
        proposals_missed: entry.proposals_missed,
        votes_seen: entry.votes_seen,
        equivocations: entry.equivocations,
        absent_epochs: entry.absent_epochs,
    };
    Json(Validators {
        height: tip.header.height.0,
        epoch: tip.header.epoch,
        validators: tip.state.validators().iter().map(|entry| validator(entry)).collect(),
    })
}

/// What the validators agree on.
#[derive(Serialize, ToSchema)]
pub(super) struct Parameters {
    /// Blocks of an epoch; fixed for ever.
    epoch_blocks: u64,
    /// Milliseconds after which a block without statements is proposed.
    heartbeat_ms: u64,
    block_statements_max: u32,
    block_bytes_max: u32,
    batch_records_max: u32,
    /// Epochs in a row of absence after which a validator is suspended; 0: nobody is.
    absence_epochs: u32,
    /// How many epochs ahead of its own a vote may say that it expires.
    vote_epochs: u32,
}

impl From<&parameters::Parameters> for Parameters {
    fn from(found: &parameters::Parameters) -> Self {
        Self {
            epoch_blocks: found.epoch_blocks,
            heartbeat_ms: found.heartbeat_ms,
            block_statements_max: found.block_statements_max,
            block_bytes_max: found.block_bytes_max,
            batch_records_max: found.batch_records_max,
            absence_epochs: found.absence_epochs,
            vote_epochs: found.vote_epochs,
        }
    }
}

/// The parameters in force, and those to come.
#[derive(Serialize, ToSchema)]
pub(super) struct ParametersInForce {
    /// The block at which this holds.
    height: u64,
    epoch: u64,
    /// For the next block.
    current: Parameters,
    /// From the next epoch on, as far as it is known.
    next: Parameters,
}

/// The parameters in force, and those of the next epoch.
#[utoipa::path(get, path = "/v1/parameters", tag = "governance", responses((status = 200, body = ParametersInForce)))]
pub(super) async fn parameters(State(api): State<Api>) -> Json<ParametersInForce> {
    let tip = api.shared.ledger.tip();
    Json(ParametersInForce {
        height: tip.header.height.0,
        epoch: tip.header.epoch,
        current: tip.state.parameters().into(),
        next: tip.state.next_parameters().into(),
    })
}

/// What is voted for.
#[derive(Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum ProposedChange {
    AddValidator {
        #[schema(value_type = Hash)]
        public_key: PublicKey,
        name: String,
        address: String,
    },
    RemoveValidator {
        #[schema(value_type = Hash)]
        public_key: PublicKey,
    },
    SetAddress {
        #[schema(value_type = Hash)]
        public_key: PublicKey,
        address: String,
    },
    Reinstate {
        #[schema(value_type = Hash)]
        public_key: PublicKey,
    },
    SetParameters {
        parameters: Parameters,
    },
}

impl From<&Change> for ProposedChange {
    fn from(change: &Change) -> Self {
        match change {
            Change::AddValidator { public_key, name, address, .. } => {
                Self::AddValidator { public_key: *public_key, name: name.clone(), address: address.clone() }
            }
            Change::RemoveValidator { public_key } => Self::RemoveValidator { public_key: *public_key },
            Change::SetAddress { public_key, address } => {
                Self::SetAddress { public_key: *public_key, address: address.clone() }
            }
            Change::Reinstate { public_key } => Self::Reinstate { public_key: *public_key },
            Change::SetParameters(parameters) => Self::SetParameters { parameters: parameters.into() },
        }
    }
}

/// A change that validators vote on, or did.
#[derive(Serialize, ToSchema)]
pub(super) struct Proposal {
    #[schema(value_type = Hash)]
    id: Digest,
    change: ProposedChange,
    /// The last epoch in which it can be voted for.
    expires_epoch: u64,
    /// `open`, `passed` or `expired`.
    status: &'static str,
    /// Block of the first vote.
    height: u64,
    /// Block in which it passed, if it did.
    passed: Option<u64>,
    /// Keys of those who voted for it, in the order of their votes.
    #[schema(value_type = Vec<Hash>)]
    votes: Vec<PublicKey>,
}

/// All proposals there ever were.
#[derive(Serialize, ToSchema)]
pub(super) struct Proposals {
    /// The block at which this holds.
    height: u64,
    epoch: u64,
    /// How many votes of the committee pass a proposal.
    quorum: usize,
    proposals: Vec<Proposal>,
}

/// Everything that validators vote or voted on, in ascending order of the ids.
#[utoipa::path(get, path = "/v1/proposals", tag = "governance", responses((status = 200, body = Proposals)))]
pub(super) async fn proposals(State(api): State<Api>) -> Json<Proposals> {
    let tip = api.shared.ledger.tip();
    let status = |entry: &ProposalEntry| match entry.passed {
        Some(_) => "passed",
        None if entry.expires_epoch < tip.header.epoch => "expired",
        None => "open",
    };
    let proposal = |entry: &ProposalEntry| Proposal {
        id: entry.id,
        change: (&entry.change).into(),
        expires_epoch: entry.expires_epoch,
        status: status(entry),
        height: entry.height.0,
        passed: entry.passed.map(|height| height.0),
        votes: entry.votes.clone(),
    };
    Json(Proposals {
        height: tip.header.height.0,
        epoch: tip.header.epoch,
        quorum: tip.state.committee().quorum(),
        proposals: tip.state.proposals().iter().map(|entry| proposal(entry)).collect(),
    })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FromEpoch {
    /// The first epoch whose change is asked for; 0 when it is left out.
    #[serde(default)]
    from_epoch: u64,
}

/// The end of an epoch at which the committee changed.
#[derive(Serialize, ToSchema)]
pub(super) struct Changed {
    epoch: u64,
    height: u64,
    /// Canonical bytes of the epoch's last header, which the committee before signed.
    #[schema(value_type = Base64)]
    header: String,
    /// The certificate over it.
    #[schema(value_type = Base64)]
    certificate: String,
    /// The committee that certifies from the next epoch on, ascending.
    #[schema(value_type = Vec<Hash>)]
    validators: Vec<PublicKey>,
}

/// The committees that lead to the present one.
#[derive(Serialize, ToSchema)]
pub(super) struct Committees {
    /// The block at which this holds.
    height: u64,
    epoch: u64,
    /// The committee that certifies the next block, ascending.
    #[schema(value_type = Vec<Hash>)]
    committee: Vec<PublicKey>,
    /// Oldest first.
    changes: Vec<Changed>,
    /// Where to go on, when there are more than one answer holds.
    next_epoch: Option<u64>,
}

/// The committee changes from an epoch on, each with what proves it: a verifier walks them from the genesis.
#[utoipa::path(
    get, path = "/v1/committees", tag = "governance", params(FromEpoch),
    responses((status = 200, body = Committees))
)]
pub(super) async fn committees(
    State(api): State<Api>,
    Query(from): Query<FromEpoch>,
) -> Result<Json<Committees>, ApiError> {
    let tip = api.shared.ledger.tip();
    let mut found = api.shared.ledger.committee_changes(from.from_epoch, CHANGES_MAX + 1);
    let next_epoch = (found.len() > CHANGES_MAX).then(|| found.pop().map(|change| change.epoch)).flatten();
    let mut changes = Vec::with_capacity(found.len());
    for change in found {
        let (header, certificate) = api.boundary(change.height).await?;
        changes.push(Changed {
            epoch: change.epoch,
            height: change.height.0,
            header: STANDARD.encode(header),
            certificate: STANDARD.encode(certificate),
            validators: change.next.keys().to_vec(),
        });
    }
    Ok(Json(Committees {
        height: tip.header.height.0,
        epoch: tip.header.epoch,
        committee: tip.state.committee().keys().to_vec(),
        changes,
        next_epoch,
    }))
}

impl Api {
    /// Header and certificate of an epoch's last block; it always has a certificate of its own.
    pub(super) async fn boundary(&self, height: Height) -> Result<(Vec<u8>, Vec<u8>), ApiError> {
        let found = self.block(height).await;
        let found = found.and_then(|block| Some((block.block.header_bytes().to_vec(), block.certificate.clone()?)));
        found.ok_or_else(|| {
            let message = format!("the certificate of block {height}, an epoch's last, has not arrived here yet");
            ApiError::unavailable("no_certificate", message)
        })
    }
}

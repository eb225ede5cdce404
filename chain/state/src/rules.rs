//! Who may do what, and how far governance may go: one predicate for each rule.
//!
//! I1 has its predicates in [`crate::invariants`]. These here are about identities, streams, votes and committees; each
//! is one comparison, and why it is that one stands beside it.

use cairn_proof::committee::VALIDATORS_MAX;
use cairn_proof::identity::{IdentityId, IdentityKind};
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::{Format, SchemaVersion, UpdateStream};

use crate::entry::{IdentityEntry, ProposalEntry, StreamEntry, ValidatorEntry, ValidatorStatus};
use crate::refusal::{Refusal, RefusalCode};
use crate::state::BlockTime;

/// Proposals that one validator may have opened and that are still open: a faulty one cannot fill the state with them.
pub const PROPOSALS_OPEN_MAX: usize = 8;
/// Bytes of all schemas that a stream can ever have.
pub const SCHEMAS_BYTES_MAX: usize = 512 * 1024;
/// Suspensions that nobody voted for leave at least that many validators: what is needed to bear one faulty one.
pub const COMMITTEE_KEPT: usize = 4;

/// The identity may sign: it was not revoked, and its time is not over.
///
/// `>=` and not `>`: from the block on whose time is the expiry, nothing is taken.
///
/// # Errors
/// [`RefusalCode::Revoked`] or [`RefusalCode::Expired`].
pub fn is_usable(identity: &IdentityEntry, at: &BlockTime) -> Result<(), Refusal> {
    is_not_revoked(identity)?;
    match identity.expires_ms {
        Some(expires_ms) if at.timestamp_ms >= expires_ms => {
            let message = format!(
                "identity {} expired at {expires_ms} ms, the block's time is {}; its controller may prolong it",
                identity.id, at.timestamp_ms
            );
            Err(Refusal::new(RefusalCode::Expired, message))
        }
        _ => Ok(()),
    }
}

/// The identity was not revoked. An expired one may still be given another key or a longer time.
///
/// # Errors
/// [`RefusalCode::Revoked`].
pub fn is_not_revoked(identity: &IdentityEntry) -> Result<(), Refusal> {
    match identity.revoked {
        Some(height) => {
            let message = format!("identity {} was revoked in block {height}, for ever", identity.id);
            Err(Refusal::new(RefusalCode::Revoked, message))
        }
        None => Ok(()),
    }
}

/// The update is of this stream as it stands: its format, after all the versions that it has.
///
/// `==` and not `<=`: what the signer compared the new schema with must be what it follows.
///
/// # Errors
/// [`RefusalCode::Malformed`] for another format, [`RefusalCode::Previous`] for another number of versions.
pub fn follows_schemas(stream: &StreamEntry, update: &UpdateStream) -> Result<(), Refusal> {
    let definition = &stream.definition;
    if update.format != definition.format {
        let message = format!(
            "stream {} has the format {}, which no update changes, not {}; register another stream",
            definition.name,
            definition.format.name(),
            update.format.name()
        );
        return Err(Refusal::new(RefusalCode::Malformed, message));
    }
    if update.versions as usize != definition.schemas.len() {
        let message = format!(
            "stream {} has {} versions of its schema, the update follows {}; compare with those that it has",
            definition.name,
            definition.schemas.len(),
            update.versions
        );
        return Err(Refusal::new(RefusalCode::Previous, message));
    }
    Ok(())
}

/// The stream's records can tell which version wrote them, or need not.
///
/// A plain Avro datum says nothing about its schema, and read by another one it gives other values without a sign.
///
/// # Errors
/// [`RefusalCode::NotAllowed`].
pub fn versions_can_be_told(stream: &StreamEntry) -> Result<(), Refusal> {
    match stream.definition.format {
        Format::Avro => {
            let message = format!(
                "stream {} is of format avro, whose records do not name their schema: it has one for ever; register a \
                 stream of format avro-confluent",
                stream.definition.name
            );
            Err(Refusal::new(RefusalCode::NotAllowed, message))
        }
        Format::AvroConfluent | Format::Json | Format::Protobuf | Format::ProtobufConfluent => Ok(()),
    }
}

/// The version is none that the stream has: neither its id, by which records name it, nor its text, by which anchors do.
///
/// # Errors
/// [`RefusalCode::Duplicate`].
pub fn is_a_new_version(stream: &StreamEntry, schema: &SchemaVersion) -> Result<(), Refusal> {
    let name = &stream.definition.name;
    if stream.definition.schemas.iter().any(|version| version.id == schema.id) {
        let message = format!("stream {name} has a schema with id {} already", schema.id);
        return Err(Refusal::new(RefusalCode::Duplicate, message));
    }
    let fingerprint = schema.fingerprint();
    if stream.fingerprints.contains(&fingerprint) {
        let message = format!("stream {name} has this schema already, fingerprint {fingerprint}");
        return Err(Refusal::new(RefusalCode::Duplicate, message));
    }
    Ok(())
}

/// All schemas of a stream together stay within what every node holds of it in memory.
///
/// # Errors
/// [`RefusalCode::Limit`].
pub fn schemas_are_bounded(stream: &StreamEntry, schema: &SchemaVersion) -> Result<(), Refusal> {
    let held: usize = stream.definition.schemas.iter().map(|version| version.text.len()).sum();
    let total = held + schema.text.len();
    if total <= SCHEMAS_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the schemas of stream {} would have {total} bytes in all, at most {SCHEMAS_BYTES_MAX}; register another stream",
        stream.definition.name
    );
    Err(Refusal::new(RefusalCode::Limit, message))
}

/// The signer is an organisation: only those register identities and streams.
///
/// # Errors
/// [`RefusalCode::NotAllowed`].
pub fn is_organisation(signer: &IdentityEntry, what: &str) -> Result<(), Refusal> {
    if signer.kind == IdentityKind::Organisation {
        return Ok(());
    }
    let message = format!("only an organisation {what}; {} is a {}", signer.id, signer.kind.name());
    Err(Refusal::new(RefusalCode::NotAllowed, message))
}

/// The signer is the identity's controller.
///
/// # Errors
/// [`RefusalCode::NotAllowed`].
pub fn is_controller(signer: &IdentityEntry, identity: &IdentityEntry) -> Result<(), Refusal> {
    if identity.controller == Some(signer.id) {
        return Ok(());
    }
    let controller = identity.controller.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
    let message = format!("identity {} is controlled by {controller}, not by {}", identity.id, signer.id);
    Err(Refusal::new(RefusalCode::NotAllowed, message))
}

/// The signer is the identity itself, or its controller.
///
/// # Errors
/// [`RefusalCode::NotAllowed`].
pub fn is_self_or_controller(signer: &IdentityEntry, identity: &IdentityEntry) -> Result<(), Refusal> {
    if signer.id == identity.id { Ok(()) } else { is_controller(signer, identity) }
}

/// The signer owns the stream.
///
/// # Errors
/// [`RefusalCode::NotAllowed`].
pub fn is_owner(signer: &IdentityEntry, stream: &StreamEntry) -> Result<(), Refusal> {
    if stream.owner == signer.id {
        return Ok(());
    }
    let message = format!("stream {} is owned by {}, not by {}", stream.definition.name, stream.owner, signer.id);
    Err(Refusal::new(RefusalCode::NotAllowed, message))
}

/// A vote names an epoch that is neither over nor too far away.
///
/// # Errors
/// [`RefusalCode::Limit`].
pub fn vote_is_in_time(expires_epoch: u64, epoch: u64, parameters: &Parameters) -> Result<(), Refusal> {
    let last = epoch.saturating_add(u64::from(parameters.vote_epochs));
    if (epoch..=last).contains(&expires_epoch) {
        return Ok(());
    }
    let message = format!("a vote in epoch {epoch} expires in epochs {epoch} to {last}, this one in {expires_epoch}");
    Err(Refusal::new(RefusalCode::Limit, message))
}

/// The voter has not too many proposals open.
///
/// # Errors
/// [`RefusalCode::Limit`].
pub fn may_open_another<'a>(
    voter: &ValidatorEntry,
    proposals: impl Iterator<Item = &'a ProposalEntry>,
    epoch: u64,
) -> Result<(), Refusal> {
    let open = |proposal: &&ProposalEntry| {
        proposal.passed.is_none()
            && proposal.expires_epoch >= epoch
            && proposal.votes.first() == Some(&voter.public_key)
    };
    if proposals.filter(open).count() < PROPOSALS_OPEN_MAX {
        return Ok(());
    }
    let message = format!("validator {} has {PROPOSALS_OPEN_MAX} proposals open already", voter.public_key);
    Err(Refusal::new(RefusalCode::Limit, message))
}

/// A validator stays when this one leaves: a committee is never empty.
///
/// # Errors
/// [`RefusalCode::Limit`].
pub fn somebody_stays<'a>(
    leaving: &ValidatorEntry,
    mut validators: impl Iterator<Item = &'a ValidatorEntry>,
) -> Result<(), Refusal> {
    let other = |it: &ValidatorEntry| it.status == ValidatorStatus::Active && it.public_key != leaving.public_key;
    if validators.any(other) {
        return Ok(());
    }
    let message = format!("validator {} is the last active one; add another first", leaving.public_key);
    Err(Refusal::new(RefusalCode::Limit, message))
}

/// There is room for one more active validator.
///
/// # Errors
/// [`RefusalCode::Limit`].
pub fn there_is_room<'a>(validators: impl Iterator<Item = &'a ValidatorEntry>) -> Result<(), Refusal> {
    if validators.filter(|it| it.status == ValidatorStatus::Active).count() < VALIDATORS_MAX {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::Limit,
        format!("there are {VALIDATORS_MAX} active validators, the most there can be"),
    ))
}

/// How many of `active` validators may be suspended for absence at once.
///
/// Never more than the faulty ones that the committee bears, f = (n − 1) / 3, and never so many that less than
/// [`COMMITTEE_KEPT`] stay: a network that is cut in two must not lock half of itself out.
#[must_use]
pub fn absentees_suspended_max(active: usize) -> usize {
    (active.saturating_sub(1) / 3).min(active.saturating_sub(COMMITTEE_KEPT))
}

/// The refusal for an identity that is not there.
pub(crate) fn unknown_identity(what: &str, id: &IdentityId) -> Refusal {
    Refusal::new(RefusalCode::UnknownIdentity, format!("{what} {id} is not a registered identity"))
}

//! `cairn vote`: the validators decide who validates, and by which parameters.
//!
//! A change passes once more than two thirds of the committee voted for it. Votes are counted together when change and
//! last epoch are the same, so a vote joins an open proposal for the same change and takes over its last epoch. Each
//! operator signs with the validator's own key, on the machine where it lies; only public values are passed around.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use cairn_chain_client::Ledger;
use cairn_chain_state::ProposalEntry;
use cairn_proof::epoch::epoch_of;
use cairn_proof::identity::{PublicKey, SIGNATURE_BYTES, SigningKey};
use cairn_proof::statement::{Body, Change, Vote};
use serde_json::json;

use crate::chain::Chain;
use crate::output::{Format, Table};
use crate::reference;
use crate::validators::named;

/// Vote on validators and parameters, with the validators' own keys; list what is voted on.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum VoteCommand {
    /// Vote to take a validator in. `cairn init --join` prints the line for it.
    #[command(
        after_help = "Example:\n  cairn vote add-validator --dir city --public-key 9f… --name harbour --address 10.0.0.7:26610 --possession 5a…"
    )]
    AddValidator {
        #[command(flatten)]
        ballot: Ballot,
        /// The key it will vote with.
        #[arg(long, value_name = "HEX")]
        public_key: String,
        /// Its name for people.
        #[arg(long)]
        name: String,
        /// Where the other validators reach it.
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
        /// Its signature over this chain and its key: proof that the key is held.
        #[arg(long, value_name = "HEX")]
        possession: String,
    },
    /// Vote to take a validator out.
    #[command(after_help = "Example:\n  cairn vote remove-validator --dir city --validator validator-3 --as all")]
    RemoveValidator {
        #[command(flatten)]
        ballot: Ballot,
        /// Its name or its public key.
        #[arg(long, value_name = "NAME|KEY")]
        validator: String,
    },
    /// Vote for another address of a validator.
    #[command(
        after_help = "Example:\n  cairn vote set-address --dir city --validator validator-3 --address 10.0.0.9:26610"
    )]
    SetAddress {
        #[command(flatten)]
        ballot: Ballot,
        /// Its name or its public key.
        #[arg(long, value_name = "NAME|KEY")]
        validator: String,
        /// Where the other validators reach it from then on.
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
    },
    /// Vote to bring a suspended validator back.
    #[command(after_help = "Example:\n  cairn vote reinstate --dir city --validator validator-3")]
    Reinstate {
        #[command(flatten)]
        ballot: Ballot,
        /// Its name or its public key.
        #[arg(long, value_name = "NAME|KEY")]
        validator: String,
    },
    /// Vote for other parameters; what is left out stays as it is.
    #[command(
        after_help = "Example:\n  cairn vote set-parameters --dir city --heartbeat-ms 2000 --absence-epochs 5\n\n`cairn parameters` shows those in force. The length of an epoch is fixed for ever."
    )]
    SetParameters {
        #[command(flatten)]
        ballot: Ballot,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Vote for an open proposal, whatever it is.
    #[command(after_help = "Example:\n  cairn vote for --dir city 4be1…")]
    For {
        #[command(flatten)]
        ballot: Ballot,
        /// The proposal's id, as `cairn vote list` shows it.
        proposal: String,
    },
    /// List what is voted on: who voted, how many votes are missing, until when.
    #[command(after_help = "Example:\n  cairn vote list --dir city --all --format json")]
    List {
        /// Folder of the network.
        #[arg(long, default_value = "cairn-data")]
        dir: PathBuf,
        /// Also those that passed or expired.
        #[arg(long)]
        all: bool,
        /// How to write the list.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

/// Who votes, and until when votes are counted.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Ballot {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Vote with keys/VALIDATOR.key, one or several, or `all` that the folder holds; the only one, if left out.
    #[arg(long = "as", value_name = "VALIDATOR", value_delimiter = ',')]
    voters: Vec<String>,
    /// A new proposal is open for this many epochs after the current one; as many as the parameters allow, if left out.
    #[arg(long, value_name = "COUNT")]
    epochs: Option<u64>,
}

/// Parameters that shall change.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Wanted {
    /// An idle chain makes a block this often, 50 to 60,000.
    #[arg(long)]
    heartbeat_ms: Option<u64>,
    /// Most statements of a block, 1 to 4,096.
    #[arg(long)]
    block_statements_max: Option<u32>,
    /// Most bytes of a block's statements, 65,535 to 2,097,152.
    #[arg(long)]
    block_bytes_max: Option<u32>,
    /// Most records of a batch, 1 to 10,000,000.
    #[arg(long)]
    batch_records_max: Option<u32>,
    /// Epochs without a sign of a validator after which it is suspended; 0: never.
    #[arg(long)]
    absence_epochs: Option<u32>,
    /// How many epochs a proposal may be open, 1 to 1,000.
    #[arg(long)]
    vote_epochs: Option<u32>,
}

/// Runs `cairn vote`.
pub(crate) async fn vote(command: &VoteCommand) -> Result<()> {
    match command {
        VoteCommand::AddValidator { ballot, public_key, name, address, possession } => {
            let change = add_validator(public_key, name, address, possession)?;
            cast(ballot, |_| Ok(change)).await
        }
        VoteCommand::RemoveValidator { ballot, validator } => {
            cast(ballot, |ledger| Ok(Change::RemoveValidator { public_key: key_of(ledger, validator)? })).await
        }
        VoteCommand::SetAddress { ballot, validator, address } => {
            let change = |ledger: &Ledger| {
                Ok(Change::SetAddress { public_key: key_of(ledger, validator)?, address: address.clone() })
            };
            cast(ballot, change).await
        }
        VoteCommand::Reinstate { ballot, validator } => {
            cast(ballot, |ledger| Ok(Change::Reinstate { public_key: key_of(ledger, validator)? })).await
        }
        VoteCommand::SetParameters { ballot, wanted } => {
            cast(ballot, |ledger| Ok(Change::SetParameters(wanted.over(*ledger.state().next_parameters())))).await
        }
        VoteCommand::For { ballot, proposal } => {
            let id = reference::digest(proposal).context("the proposal: expected an id of 64 hexadecimal digits")?;
            let change = |ledger: &Ledger| {
                let all = ledger.state().proposals();
                let found = all.iter().find(|entry| entry.id == id);
                found.map(|entry| entry.change.clone()).context("no such proposal; `cairn vote list` shows them")
            };
            cast(ballot, change).await
        }
        VoteCommand::List { dir, all, format } => list(dir, *all, *format).await,
    }
}

fn key_of(ledger: &Ledger, text: &str) -> Result<PublicKey> {
    Ok(reference::validator(ledger, text)?.public_key)
}

fn add_validator(public_key: &str, name: &str, address: &str, possession: &str) -> Result<Change> {
    let mut signature = [0; SIGNATURE_BYTES];
    hex::decode_to_slice(possession, &mut signature)
        .map_err(|_| anyhow::anyhow!("--possession: expected {} hexadecimal digits", 2 * SIGNATURE_BYTES))?;
    Ok(Change::AddValidator {
        public_key: reference::public_key(public_key).context("--public-key")?,
        name: name.to_owned(),
        address: address.to_owned(),
        possession: signature,
    })
}

impl Wanted {
    fn over(&self, now: cairn_proof::parameters::Parameters) -> cairn_proof::parameters::Parameters {
        cairn_proof::parameters::Parameters {
            epoch_blocks: now.epoch_blocks,
            heartbeat_ms: self.heartbeat_ms.unwrap_or(now.heartbeat_ms),
            block_statements_max: self.block_statements_max.unwrap_or(now.block_statements_max),
            block_bytes_max: self.block_bytes_max.unwrap_or(now.block_bytes_max),
            batch_records_max: self.batch_records_max.unwrap_or(now.batch_records_max),
            absence_epochs: self.absence_epochs.unwrap_or(now.absence_epochs),
            vote_epochs: self.vote_epochs.unwrap_or(now.vote_epochs),
        }
    }
}

/// Votes for a change with each key that was asked for.
async fn cast(ballot: &Ballot, change: impl FnOnce(&Ledger) -> Result<Change>) -> Result<()> {
    let chain = Chain::open(&ballot.dir).await?;
    let voters = voters(&chain, &ballot.voters)?;
    let vote = {
        let ledger = chain.follower.ledger();
        let change = change(&ledger)?;
        change.check().context("the change")?;
        ensure!(change.possession_holds(&ledger.genesis().tag()), "--possession is not by this key for this chain");
        Vote { expires_epoch: expires_epoch(&ledger, &change, ballot.epochs)?, change }
    };
    let id = vote.proposal_id();
    for (name, key) in voters {
        let known = proposal(&chain.follower.ledger(), &vote);
        if let Some(passed) = known.as_ref().and_then(|entry| entry.passed) {
            crate::say!("{name}: no vote needed, the proposal passed at height {passed}")?;
            continue;
        }
        if known.is_some_and(|entry| entry.votes.contains(&key.public())) {
            crate::say!("{name}: voted for it before")?;
            continue;
        }
        let submitter = chain.submitter_of(key).with_context(|| format!("the key of {name}"))?;
        let done = chain.say(&submitter, &Body::Vote(vote.clone())).await;
        let done = done.with_context(|| format!("{name}'s vote"))?;
        crate::say!("{name}: voted at height {}", done.height)?;
    }
    crate::say!("proposal {id}: {}", outcome(&chain.follower.ledger(), &vote))
}

/// The keys to vote with: those named, all of the folder's that may vote, or the only one of them.
fn voters(chain: &Chain, names: &[String]) -> Result<Vec<(String, SigningKey)>> {
    if !names.is_empty() && names != ["all"] {
        return names.iter().map(|name| Ok((name.clone(), chain.home.signing_key(name)?))).collect();
    }
    let committee = Arc::clone(chain.follower.ledger().state().committee());
    let mut found = vec![];
    for name in chain.home.key_names()? {
        let key = chain.home.signing_key(&name)?;
        if committee.contains(&key.public()) {
            found.push((name, key));
        }
    }
    let list = || found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    match found.len() {
        0 => bail!("keys/ holds no key of a validator that votes now; `cairn validator list` shows who does"),
        1 => Ok(found),
        _ if names == ["all"] => Ok(found),
        _ => bail!("keys/ holds several validators' keys: say --as all, or --as with one of {}", list()),
    }
}

/// The last epoch of an open proposal for the same change, else of a new one.
fn expires_epoch(ledger: &Ledger, change: &Change, epochs: Option<u64>) -> Result<u64> {
    let parameters = ledger.state().parameters();
    let epoch = epoch_of(ledger.height().next(), parameters.epoch_blocks);
    let most = u64::from(parameters.vote_epochs);
    let all = ledger.state().proposals();
    let open = all.iter().filter(|entry| entry.passed.is_none() && entry.expires_epoch >= epoch);
    if let Some(same) = open.filter(|entry| entry.change == *change).max_by_key(|entry| entry.votes.len()) {
        return Ok(same.expires_epoch);
    }
    let ahead = epochs.unwrap_or(most);
    ensure!(ahead <= most, "--epochs {ahead}: expected 0 to {most}, the parameter vote_epochs");
    let expires = epoch + ahead;
    // The same change may have passed before: an id of its own keeps the two apart.
    let taken = all.iter().filter(|entry| entry.change == *change).map(|entry| entry.expires_epoch);
    let taken: std::collections::BTreeSet<_> = taken.collect();
    let free = (epoch..=expires).rev().find(|candidate| !taken.contains(candidate));
    free.context("this change was voted on in every epoch that a new proposal may name; wait an epoch")
}

fn proposal(ledger: &Ledger, vote: &Vote) -> Option<Arc<ProposalEntry>> {
    let id = vote.proposal_id();
    ledger.state().proposals().into_iter().find(|entry| entry.id == id)
}

/// How a proposal stands, in words.
fn outcome(ledger: &Ledger, vote: &Vote) -> String {
    let Some(entry) = proposal(ledger, vote) else { return "not on the chain".to_owned() };
    let parameters = ledger.state().parameters();
    if let Some(passed) = entry.passed {
        return format!("passed at height {passed}; {}", effect(passed, parameters.epoch_blocks, &entry.change));
    }
    let (votes, needed) = counted(ledger, &entry);
    let last = cairn_proof::epoch::last_of(entry.expires_epoch, parameters.epoch_blocks);
    format!("{votes} of {needed} votes; open until height {last}")
}

/// When a passed change takes effect.
fn effect(passed: cairn_proof::Height, epoch_blocks: u64, change: &Change) -> String {
    let epoch = epoch_of(passed, epoch_blocks);
    let first_of_next = |epoch| cairn_proof::epoch::last_of(epoch, epoch_blocks).next();
    match change {
        Change::SetAddress { .. } => "validators use the new address from now on".to_owned(),
        Change::SetParameters(_) => format!("in force from height {}", first_of_next(epoch)),
        _ if passed > cairn_proof::epoch::freeze_of(epoch, epoch_blocks) => {
            format!("the committee changes at height {}", first_of_next(epoch + 1))
        }
        _ => format!("the committee changes at height {}", first_of_next(epoch)),
    }
}

/// Votes of the current committee, and how many are needed.
fn counted(ledger: &Ledger, entry: &ProposalEntry) -> (usize, usize) {
    let committee = ledger.state().committee();
    (entry.votes.iter().filter(|key| committee.contains(key)).count(), committee.quorum())
}

async fn list(dir: &Path, all: bool, format: Format) -> Result<()> {
    let chain = Chain::open(dir).await?;
    let table = proposals(&chain.follower.ledger(), all);
    table.print(format)
}

fn proposals(ledger: &Ledger, all: bool) -> Table {
    let parameters = ledger.state().parameters();
    let epoch = epoch_of(ledger.height().next(), parameters.epoch_blocks);
    let names: std::collections::BTreeMap<_, _> =
        ledger.state().validators().into_iter().map(|entry| (entry.public_key, entry.name.clone())).collect();
    let name = |key: &PublicKey| names.get(key).cloned().unwrap_or_else(|| key.to_string());
    let mut table =
        Table::new(&["proposal", "change", "what", "status", "voted", "votes", "missing", "last_height", "opened"]);
    let mut entries = ledger.state().proposals();
    entries.sort_by_key(|entry| (entry.height, entry.id));
    for entry in entries {
        let status = match entry.passed {
            Some(_) => "passed",
            None if entry.expires_epoch < epoch => "expired",
            None => "open",
        };
        if status != "open" && !all {
            continue;
        }
        let (votes, needed) = counted(ledger, &entry);
        let missing = if status == "open" { needed.saturating_sub(votes) } else { 0 };
        table.row(vec![
            entry.id.to_string().into(),
            entry.change.name().into(),
            describe(&entry.change, &name).into(),
            status.into(),
            json!(entry.votes.iter().map(name).collect::<Vec<_>>()),
            votes.into(),
            missing.into(),
            cairn_proof::epoch::last_of(entry.expires_epoch, parameters.epoch_blocks).0.into(),
            entry.height.0.into(),
        ]);
    }
    table
}

/// A change in words.
pub(crate) fn describe(change: &Change, name: &impl Fn(&PublicKey) -> String) -> String {
    match change {
        Change::AddValidator { public_key, name, address, .. } => format!("{name} at {address}, key {public_key}"),
        Change::RemoveValidator { public_key } | Change::Reinstate { public_key } => name(public_key),
        Change::SetAddress { public_key, address } => format!("{} at {address}", name(public_key)),
        Change::SetParameters(parameters) => {
            named(parameters).map(|(name, value)| format!("{name} = {value}")).join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::parameters::Parameters;

    #[test]
    fn parameters_that_are_not_named_stay() {
        let wanted = Wanted {
            heartbeat_ms: Some(500),
            block_statements_max: None,
            block_bytes_max: None,
            batch_records_max: None,
            absence_epochs: Some(0),
            vote_epochs: None,
        };
        let now = Parameters { epoch_blocks: 7, ..Parameters::default() };
        assert_eq!(wanted.over(now), Parameters { heartbeat_ms: 500, absence_epochs: 0, ..now });
    }

    #[test]
    fn what_passes_after_the_freeze_waits_an_epoch_more() {
        let key = SigningKey::from_seed(&[1; 32]).public();
        let (remove, set) = (Change::RemoveValidator { public_key: key }, Change::SetParameters(Parameters::default()));
        let at = cairn_proof::Height;
        assert!(effect(at(24), 10, &remove).ends_with("height 30"));
        assert!(effect(at(25), 10, &remove).ends_with("height 30"), "the freeze counts what its own block decides");
        assert!(effect(at(26), 10, &remove).ends_with("height 40"));
        assert!(effect(at(29), 10, &set).ends_with("height 30"));
    }

    #[test]
    fn a_possession_of_the_wrong_length_is_named() {
        let key = SigningKey::from_seed(&[1; 32]).public().to_string();
        let error = add_validator(&key, "n", "h:1", "ab").unwrap_err().to_string();
        assert!(error.contains("--possession") && error.contains("128"), "{error}");
        let error = format!("{:#}", add_validator("xy", "n", "h:1", &"ab".repeat(64)).unwrap_err());
        assert!(error.contains("--public-key"), "{error}");
    }
}

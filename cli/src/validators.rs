//! `cairn validator`: who votes, and how each did. `cairn parameters`: what the validators agree on.

use std::path::PathBuf;

use anyhow::Result;
use cairn_chain_client::Ledger;
use cairn_chain_state::ValidatorEntry;
use cairn_proof::epoch;
use cairn_proof::parameters::Parameters;
use serde_json::Value;

use crate::chain::Chain;
use crate::output::{Format, Table};
use crate::reference;

/// Show the validators and their reputation.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum ValidatorCommand {
    /// List them: status, address, proposals made and missed, votes seen, equivocations.
    #[command(after_help = "Example:\n  cairn validator list --dir city --format json")]
    List {
        /// Folder of the network.
        #[arg(long, default_value = "cairn-data")]
        dir: PathBuf,
        /// How to write the list.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Show everything about one.
    #[command(after_help = "Example:\n  cairn validator show --dir city validator-2")]
    Show {
        /// Folder of the network.
        #[arg(long, default_value = "cairn-data")]
        dir: PathBuf,
        /// Its name or its public key.
        validator: String,
        /// How to write it.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

/// Show the parameters: those in force, and those of the next epoch.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cairn parameters --dir city\n\n`cairn vote set-parameters` changes them.")]
pub(crate) struct ParametersArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// How to write them.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Every parameter by its name in the genesis.
pub(crate) fn named(parameters: &Parameters) -> [(&'static str, u64); 7] {
    let Parameters {
        epoch_blocks,
        heartbeat_ms,
        block_statements_max,
        block_bytes_max,
        batch_records_max,
        absence_epochs,
        vote_epochs,
    } = *parameters;
    [
        ("epoch_blocks", epoch_blocks),
        ("heartbeat_ms", heartbeat_ms),
        ("block_statements_max", block_statements_max.into()),
        ("block_bytes_max", block_bytes_max.into()),
        ("batch_records_max", batch_records_max.into()),
        ("absence_epochs", absence_epochs.into()),
        ("vote_epochs", vote_epochs.into()),
    ]
}

/// Runs `cairn validator`.
pub(crate) async fn validator(command: &ValidatorCommand) -> Result<()> {
    match command {
        ValidatorCommand::List { dir, format } => {
            let chain = Chain::open(dir).await?;
            let table = list(&chain.follower.ledger());
            table.print(*format)
        }
        ValidatorCommand::Show { dir, validator, format } => {
            let chain = Chain::open(dir).await?;
            let table = {
                let ledger = chain.follower.ledger();
                let entry = reference::validator(&ledger, validator)?;
                show(&ledger, &entry, *format)
            };
            table.print(*format)
        }
    }
}

fn list(ledger: &Ledger) -> Table {
    let entries = ledger.state().validators();
    let rows: Vec<_> = entries.iter().map(|entry| fields(ledger, entry)).collect();
    let names: Vec<_> = rows.first().into_iter().flatten().map(|(name, _)| *name).collect();
    let mut table = Table::new(&names);
    for row in rows {
        table.row(row.into_iter().map(|(_, value)| value).collect());
    }
    table
}

fn show(ledger: &Ledger, entry: &ValidatorEntry, format: Format) -> Table {
    let fields = fields(ledger, entry);
    if format == Format::Table {
        let mut table = Table::new(&["field", "value"]);
        fields.into_iter().for_each(|(name, value)| table.row(vec![name.into(), value]));
        return table;
    }
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let mut table = Table::new(&names);
    table.row(values);
    table
}

fn fields(ledger: &Ledger, entry: &ValidatorEntry) -> Vec<(&'static str, Value)> {
    let state = ledger.state();
    vec![
        ("name", entry.name.clone().into()),
        ("status", entry.status.name().into()),
        ("votes_now", state.committee().contains(&entry.public_key).into()),
        ("votes_next_epoch", state.next_committee().contains(&entry.public_key).into()),
        ("address", entry.address.clone().into()),
        ("since_height", entry.since.0.into()),
        ("proposals_made", entry.proposals_made.into()),
        ("proposals_missed", entry.proposals_missed.into()),
        ("votes_seen", entry.votes_seen.into()),
        ("equivocations", entry.equivocations.into()),
        ("absent_epochs", entry.absent_epochs.into()),
        ("public_key", entry.public_key.to_string().into()),
    ]
}

/// Runs `cairn parameters`.
pub(crate) async fn parameters(args: &ParametersArgs) -> Result<()> {
    let chain = Chain::open(&args.dir).await?;
    let (table, height, parameters) = {
        let ledger = chain.follower.ledger();
        let (now, next) = (*ledger.state().parameters(), *ledger.state().next_parameters());
        let mut table = Table::new(&["parameter", "now", "next_epoch"]);
        for ((name, now), (_, next)) in named(&now).into_iter().zip(named(&next)) {
            table.row(vec![name.into(), now.into(), next.into()]);
        }
        (table, ledger.height(), now)
    };
    if args.format == Format::Table {
        let epoch = epoch::epoch_of(height, parameters.epoch_blocks);
        let last = epoch::last_of(epoch, parameters.epoch_blocks);
        crate::say!("height {height} is in epoch {epoch}, which ends with height {last}")?;
    }
    table.print(args.format)
}

//! `cairn identity list` and `show`: what the chain says of identities.

use std::path::PathBuf;

use anyhow::Result;
use cairn_chain_client::Ledger;
use cairn_chain_state::IdentityEntry;
use cairn_proof::identity::IdentityKind;
use cairn_proof::statement::Role;
use serde_json::{Value, json};

use super::Kind;
use crate::chain::Chain;
use crate::output::{Format, Table};
use crate::reference;

/// List the identities.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cairn identity list --dir city --kind device --format csv")]
pub(crate) struct ListArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Only those of this kind.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// How to write the list.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Show everything about one identity.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cairn identity show --dir city did:key:z6Mk… --format json")]
pub(crate) struct ShowArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Its id, its did:key, or its name.
    identity: String,
    /// How to write it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Whether an identity may sign, as of a block time.
pub(crate) fn status(entry: &IdentityEntry, now_ms: u64) -> &'static str {
    match entry {
        IdentityEntry { revoked: Some(_), .. } => "revoked",
        IdentityEntry { expires_ms: Some(expires), .. } if *expires <= now_ms => "expired",
        _ => "active",
    }
}

/// Runs `cairn identity list`.
pub(super) async fn list(args: &ListArgs) -> Result<()> {
    let chain = Chain::open(&args.dir).await?;
    let ledger = chain.follower.ledger();
    let now_ms = ledger.header().timestamp_ms;
    let mut table = Table::new(&["identity", "did", "name", "kind", "status", "expires", "controller", "height"]);
    for entry in ledger.identities().values() {
        if args.kind.is_some_and(|kind| entry.kind != IdentityKind::from(kind)) {
            continue;
        }
        table.row(vec![
            entry.id.to_string().into(),
            reference::did(&entry.first_key).into(),
            entry.name.clone().into(),
            entry.kind.name().into(),
            status(entry, now_ms).into(),
            entry.expires_ms.map(reference::time).into(),
            entry.controller.map(|id| id.to_string()).into(),
            entry.height.0.into(),
        ]);
    }
    drop(ledger);
    table.print(args.format)
}

/// Runs `cairn identity show`.
pub(super) async fn show(args: &ShowArgs) -> Result<()> {
    let chain = Chain::open(&args.dir).await?;
    let ledger = chain.follower.ledger();
    let entry = reference::identity(&ledger, &args.identity)?;
    let fields = fields(&ledger, &entry);
    drop(ledger);
    if args.format == Format::Table {
        let mut table = Table::new(&["field", "value"]);
        fields.into_iter().for_each(|(name, value)| table.row(vec![name.into(), value]));
        return table.print(args.format);
    }
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let mut table = Table::new(&names);
    table.row(values);
    table.print(args.format)
}

fn fields(ledger: &Ledger, entry: &IdentityEntry) -> Vec<(&'static str, Value)> {
    let state = ledger.state();
    let owned: Vec<_> = ledger.streams().values().filter(|stream| stream.owner == entry.id).collect();
    let with = |role: Role| -> Vec<_> {
        let names = ledger.streams().keys();
        names.filter(|stream| state.has_role(stream, role, &entry.id)).cloned().collect()
    };
    vec![
        ("identity", entry.id.to_string().into()),
        ("did", reference::did(&entry.first_key).into()),
        ("name", entry.name.clone().into()),
        ("kind", entry.kind.name().into()),
        ("status", status(entry, ledger.header().timestamp_ms).into()),
        ("public_key", entry.public_key.to_string().into()),
        ("rotated", (entry.public_key != entry.first_key).into()),
        ("controller", entry.controller.map(|id| id.to_string()).into()),
        ("registered_height", entry.height.0.into()),
        ("revoked_height", entry.revoked.map(|height| height.0).into()),
        ("expires", entry.expires_ms.map(reference::time).into()),
        ("sequence", state.sequence(&entry.id).0.into()),
        ("owns", json!(owned.iter().map(|stream| &stream.definition.name).collect::<Vec<_>>())),
        ("anchorer_of", json!(with(Role::Anchorer))),
        ("publisher_of", json!(with(Role::Publisher))),
    ]
}

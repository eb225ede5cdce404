//! `cairn prove`, `cairn verify`, `cairn audit`: receipts, checking them offline, recomputing everything stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cairn_anchor::audit::{Report, audit as run_audit};
use cairn_anchor::prove::{Sources, prove as make_receipt};
use cairn_anchor::roots::Roots;
use cairn_ingest::decode::AuditDecoder;
use cairn_proof::receipt::{Receipt, Verified};
use cairn_proof::{Offset, Partition};
use indicatif::{ProgressBar, ProgressStyle};

use crate::home::{Home, read_genesis};
use crate::output::{Format, Table, write_out};
use crate::roles::{CHAIN_PATIENCE, follow, secret_store, segment_store};

/// Exit code of `verify` and `audit` when something does not verify.
pub(crate) const DOES_NOT_VERIFY: u8 = 3;

/// Write the receipt of one record: it proves the record offline, with genesis.json alone.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:\n  cairn prove --dir city --stream traffic.flow --partition 0 --offset 42 --out receipt.json"
)]
pub(crate) struct ProveArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    pub(crate) dir: PathBuf,
    /// The stream's name.
    #[arg(long)]
    pub(crate) stream: String,
    /// The record's partition.
    #[arg(long)]
    pub(crate) partition: u32,
    /// The record's offset.
    #[arg(long)]
    pub(crate) offset: u64,
    /// The file to write; `-` is standard output.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// Check a receipt, offline: nothing but the receipt and the genesis is read.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:\n  cairn verify receipt.json --genesis genesis.json\n\nExit code 3 when it does not verify; the failed step is named."
)]
pub(crate) struct VerifyArgs {
    /// The receipt.
    pub(crate) file: PathBuf,
    /// The genesis of the chain, from a source that you trust.
    #[arg(long)]
    pub(crate) genesis: PathBuf,
}

/// Recompute everything stored against the chain.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn audit --dir city\n  cairn audit --dir city --stream traffic.flow --format json\n\nExit code 3 when something does not verify; each problem names stream, partition, offsets, object and block."
)]
pub(crate) struct AuditArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    pub(crate) dir: PathBuf,
    /// Only this stream.
    #[arg(long)]
    pub(crate) stream: Option<String>,
    /// How to write the report.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// Runs `cairn prove`.
pub(crate) async fn prove(args: &ProveArgs) -> Result<()> {
    let home = Home::open(&args.dir)?;
    let config = home.config()?;
    let follower = follow(&home, &config, CHAIN_PATIENCE).await?;
    let store = segment_store(&home, &config)?.verified(Arc::new(Roots::new()))?;
    let secrets = secret_store(&home, &config)?;
    let sources = Sources { follower: &follower, store: &store, secrets: &secrets };
    let receipt = make_receipt(sources, &args.stream, Partition(args.partition), Offset(args.offset)).await?;
    let bytes = receipt.to_json()?;
    if args.out == Path::new("-") {
        return write_out(&bytes);
    }
    std::fs::write(&args.out, &bytes).with_context(|| format!("writing {}", args.out.display()))?;
    let genesis = home.genesis_file();
    crate::say!("{} bytes written to {}", bytes.len(), args.out.display())?;
    crate::say!("check it with: cairn verify {} --genesis {}", args.out.display(), genesis.display())
}

/// Runs `cairn verify`. Returns the exit code.
pub(crate) fn verify(args: &VerifyArgs) -> Result<u8> {
    let genesis = read_genesis(&args.genesis)?;
    let bytes =
        std::fs::read(&args.file).with_context(|| format!("the receipt {} cannot be read", args.file.display()))?;
    match Receipt::from_json(&bytes).and_then(|receipt| receipt.verify(&genesis)) {
        Ok(verified) => {
            for line in describe(&verified) {
                crate::say!("{line}")?;
            }
            Ok(0)
        }
        Err(error) => {
            crate::say!("DOES NOT VERIFY: {error}")?;
            Ok(DOES_NOT_VERIFY)
        }
    }
}

/// One line for each step that held, then what was proven.
pub(crate) fn describe(verified: &Verified) -> Vec<String> {
    let mut lines: Vec<_> =
        verified.steps.iter().map(|step| format!("ok  {:<12} {}", step.name.name(), step.detail)).collect();
    let record = &verified.record;
    lines.push(format!(
        "VERIFIED: the record at {} partition {} offset {} is final in chain {} at height {}",
        verified.anchor.stream, record.partition, record.offset, verified.header.chain_id, verified.header.height
    ));
    lines
}

/// Runs `cairn audit`. Returns the exit code.
pub(crate) async fn audit(args: &AuditArgs) -> Result<u8> {
    let home = Home::open(&args.dir)?;
    let config = home.config()?;
    let follower = follow(&home, &config, CHAIN_PATIENCE).await?;
    let segments = segment_store(&home, &config)?;
    let secrets = secret_store(&home, &config)?;
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("audit [{bar:30}] {pos}/{len} anchors {msg} {eta}") {
        bar.set_style(style);
    }
    let decoder = Arc::new(AuditDecoder);
    let report = run_audit(&follower, &segments, &secrets, args.stream.as_deref(), decoder, |progress| {
        bar.set_length(progress.anchors_total);
        bar.set_position(progress.anchors);
        bar.set_message(format!("{} records, {} problems", progress.records, progress.problems));
    })
    .await?;
    bar.finish_and_clear();
    print(&report, args.format)?;
    Ok(if report.is_clean() { 0 } else { DOES_NOT_VERIFY })
}

fn print(report: &Report, format: Format) -> Result<()> {
    if format == Format::Json {
        let mut bytes = serde_json::to_vec_pretty(report)?;
        bytes.push(b'\n');
        return write_out(&bytes);
    }
    let names = ["stream", "partition", "first", "last", "block", "object", "check", "detail"];
    let mut problems = Table::new(&names);
    for problem in &report.problems {
        let value = serde_json::to_value(problem)?;
        problems.row(names.iter().map(|name| value[*name].clone()).collect());
    }
    if format == Format::Csv {
        return problems.print(format);
    }
    if problems.len() > 0 {
        problems.print(format)?;
    }
    let checked = &report.checked;
    crate::say!(
        "{} anchors, {} records, {} bytes checked against height {}: {} problems",
        checked.anchors,
        checked.records,
        checked.bytes,
        report.height,
        checked.problems
    )?;
    if !report.destroyed.is_empty() {
        crate::say!(
            "{} batches whose secret was destroyed: their roots cannot be recomputed, all else was",
            report.destroyed.len()
        )?;
    }
    if report.orphans_total > 0 {
        crate::say!("{} objects that no anchor names: left by a crash or a lost race, harmless", report.orphans_total)?;
    }
    Ok(())
}

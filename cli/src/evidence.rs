//! `cairn prove`, `cairn verify`, `cairn audit`: receipts and state proofs, checking them and evidence of answers offline,
//! recomputing everything stored.

mod answer;
mod public_log;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cairn_anchor::audit::{Report, audit as run_audit};
use cairn_anchor::prove::{Sources, prove as make_receipt};
use cairn_anchor::roots::Roots;
use cairn_ingest::decode::AuditDecoder;
use cairn_proof::answer::file::ANSWER_EVIDENCE_MARK;
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::PublicKey;
use cairn_proof::receipt::{RECEIPT_MARK, Receipt, Verified};
use cairn_proof::state_proof::{STATE_PROOF_MARK, StateProof};
use cairn_proof::tlog_proof::TLOG_PROOF_MARK;
use cairn_proof::{Offset, Partition};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use crate::chain::Chain;
use crate::home::read_genesis;
use crate::output::{Format, Table, write_out};
use crate::roles::{secret_store, segment_store};
pub(crate) use answer::public_key;
use public_log::Witnesses;

/// Exit code of `verify` and `audit` when something does not verify.
pub(crate) const DOES_NOT_VERIFY: u8 = 3;

/// Write a file that proves something offline, with genesis.json alone: a record (its receipt), or an entry of the
/// chain's state, or that there is none.
#[derive(Debug, Clone, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "Examples:\n  cairn prove --dir city --stream traffic.flow --partition 0 --offset 42 --out receipt.json\n  cairn prove --dir city --stream traffic.flow --partition 0 --offset 42 --out receipt.json --tlog-proof anchor.tlog-proof\n  cairn prove --dir city --identity did:key:z6Mk… --out identity.json\n  cairn prove --dir city --key 9f… --absent --out unknown-key.json\n  cairn prove --dir city --stream traffic.flow --partition 0 --out head.json\n\nWith --stream: and --partition and --offset, the record's receipt; and --partition, how far the partition is anchored;\nalone, that the stream is registered."
)]
pub(crate) struct ProveArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    pub(crate) dir: PathBuf,
    /// A stream's name.
    #[arg(long, group = "what")]
    pub(crate) stream: Option<String>,
    /// The partition of the stream.
    #[arg(long, requires = "stream")]
    pub(crate) partition: Option<u32>,
    /// The record's offset in the partition.
    #[arg(long, requires = "partition")]
    pub(crate) offset: Option<u64>,
    #[command(flatten)]
    pub(crate) entry: state::EntryArgs,
    /// Prove that the state has no such entry.
    #[arg(long, conflicts_with = "offset")]
    pub(crate) absent: bool,
    /// The file to write; `-` is standard output.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Write, beside the receipt, that its anchor stands in the log, in the form that other tools read (C2SP tlog-proof).
    #[arg(long, value_name = "FILE", requires = "offset")]
    pub(crate) tlog_proof: Option<PathBuf>,
}

/// Check a receipt, a state proof, a tlog-proof or evidence of an answer, offline: nothing but the file and the genesis is read.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn verify receipt.json --genesis genesis.json\n  cairn verify anchor.tlog-proof --genesis genesis.json --witness witness.vkey --require-witness witness.example/one\n  cairn verify answer.json --genesis genesis.json\n\nThe file says what it is. Exit code 3 when it does not verify; the failed step is named."
)]
pub(crate) struct VerifyArgs {
    /// The receipt or the proof.
    pub(crate) file: PathBuf,
    /// The genesis of the chain, from a source that you trust.
    #[arg(long)]
    pub(crate) genesis: PathBuf,
    /// The key of an outside witness as it publishes it (name+id+base64), or a file that holds it; may be repeated.
    #[arg(long, value_name = "KEY|FILE")]
    pub(crate) witness: Vec<String>,
    /// Refuse a checkpoint that this witness has not cosigned: the name of one given by --witness, or a key; may be
    /// repeated.
    #[arg(long, value_name = "NAME|KEY")]
    pub(crate) require_witness: Vec<String>,
    /// The public key of a query node that you know, beside those that the genesis names, for evidence of answers; may be
    /// repeated.
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pub(crate) node_key: Vec<PublicKey>,
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
    let chain = Chain::open(&args.dir).await?;
    let bytes = match (&args.stream, args.partition, args.offset) {
        (Some(stream), Some(partition), Some(offset)) => {
            let receipt = receipt(&chain, stream, Partition(partition), Offset(offset)).await?;
            if let Some(file) = &args.tlog_proof {
                public_log::write(file, &receipt)?;
            }
            receipt.to_json()?
        }
        _ => state::prove(&chain, args).await?,
    };
    if args.out == Path::new("-") {
        return write_out(&bytes);
    }
    std::fs::write(&args.out, &bytes).with_context(|| format!("writing {}", args.out.display()))?;
    let genesis = chain.home.genesis_file();
    crate::say!("{} bytes written to {}", bytes.len(), args.out.display())?;
    crate::say!("check it with: cairn verify {} --genesis {}", args.out.display(), genesis.display())
}

async fn receipt(chain: &Chain, stream: &str, partition: Partition, offset: Offset) -> Result<Receipt> {
    let store = segment_store(&chain.home, &chain.config)?.verified(Arc::new(Roots::new()))?;
    let secrets = secret_store(&chain.home, &chain.config)?;
    let sources = Sources { follower: &chain.follower, store: &store, secrets: &secrets };
    Ok(make_receipt(sources, stream, partition, offset).await?)
}

/// What a file says that it is.
#[derive(Deserialize)]
struct Marked {
    format: Option<String>,
}

/// Runs `cairn verify`. Returns the exit code.
pub(crate) fn verify(args: &VerifyArgs) -> Result<u8> {
    let genesis = read_genesis(&args.genesis)?;
    let bytes =
        std::fs::read(&args.file).with_context(|| format!("the file {} cannot be read", args.file.display()))?;
    let witnesses = Witnesses::read(&args.witness, &args.require_witness)?;
    match checked(&bytes, &genesis, &witnesses, &args.node_key) {
        Ok(lines) => {
            for line in lines {
                crate::say!("{line}")?;
            }
            Ok(0)
        }
        Err(reason) => {
            crate::say!("DOES NOT VERIFY: {reason}")?;
            Ok(DOES_NOT_VERIFY)
        }
    }
}

/// What the file proves, line by line; or why it does not.
fn checked(bytes: &[u8], genesis: &Genesis, witnesses: &Witnesses, nodes: &[PublicKey]) -> Result<Vec<String>, String> {
    if bytes.starts_with(TLOG_PROOF_MARK.as_bytes()) {
        let (lines, checkpoint) = public_log::verify(bytes, genesis)?;
        return witnesses.check(lines, Some(&checkpoint));
    }
    let marked = serde_json::from_slice::<Marked>(bytes).map_err(|error| format!("step form: not JSON: {error}"))?;
    match marked.format.as_deref() {
        Some(STATE_PROOF_MARK) => {
            let proven = StateProof::from_json(bytes).and_then(|proof| proof.verify(genesis));
            let lines = proven.map(|proven| state::describe(&proven)).map_err(|error| error.to_string())?;
            witnesses.check(lines, None)
        }
        Some(RECEIPT_MARK) => {
            let receipt = Receipt::from_json(bytes).map_err(|error| error.to_string())?;
            let lines = receipt.verify(genesis).map(|it| describe(&it)).map_err(|error| error.to_string())?;
            witnesses.check(lines, receipt.checkpoint.as_deref())
        }
        Some(ANSWER_EVIDENCE_MARK) => witnesses.check(answer::verify(bytes, genesis, nodes)?, None),
        other => {
            let found: String = other.unwrap_or("none").chars().take(80).collect();
            Err(format!(
                "step form: expected {RECEIPT_MARK}, {STATE_PROOF_MARK}, {ANSWER_EVIDENCE_MARK} or {TLOG_PROOF_MARK}, found \
                 the format {found}"
            ))
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
    let Chain { home, config, follower } = Chain::open(&args.dir).await?;
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

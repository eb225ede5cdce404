//! Measured ratios: two things in turn, several rounds, medians. Machines are noisy, so a figure without its control
//! says little; nothing here is asserted.
//!
//! ```text
//! cargo run --release -p cairn-bench -- records [--format json]   leaves and tree against bare SHA-256 of the same bytes
//! cargo run --release -p cairn-bench -- replay  [--format json]   anchors executed by a follower against bare signature checks
//! cargo run --release -p cairn-bench -- together [--format json] anchors that share a statement against anchors alone
//! cargo run --release -p cairn-bench -- sim     --seeds N [--from N] | --seed N   many simulated validators, faults and lies
//! cargo run --release -p cairn-bench -- state-proofs [--format json]   size and time of proofs about the state
//! cargo run --release -p cairn-bench -- chain   [--format json]   four validators as processes: latency, rate, disk, replay
//! cargo run --release -p cairn-bench -- ingest [--format json] [--records N]   Apache Kafka onto the chain against a bare consumer
//! cargo run --release -p cairn-bench -- query   [--format json] [--scale N]   verified SQL against plain DataFusion: TPC-H, look-ups, planning
//! cargo run --release -p cairn-bench -- differential [--queries N] [--seed N]   generated statements: the rows of plain DataFusion
//! cargo run --release -p cairn-bench -- chaos   [--kills N] [--kafka embedded|apache] [--seed N]   kills, pauses and restarts of every role
//! ```
//!
//! `sim`, `chaos` and `differential` measure nothing: they fail when something that must hold did not.
//!
//! The rate of the whole path over real data is printed by `tests/real_data.rs`.

mod chain;
mod chaos;
mod differential;
mod ingest;
mod query;
mod records;
mod replay;
mod sim;
mod state_proofs;
mod together;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Map, Value};

#[derive(Debug, Parser)]
#[command(name = "cairn-bench", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// How to write the result.
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    format: Format,
    /// Rounds; each runs every contender once, in turn.
    #[arg(long, default_value_t = 7, global = true)]
    rounds: usize,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Salted leaves and batch tree, against SHA-256 of the same bytes.
    Records,
    /// Anchors executed as a follower does, against their signature checks alone.
    Replay,
    /// Anchors of many partitions in one statement, against one statement for each: bytes, and time to apply.
    Together,
    /// Validators under a deterministic runtime, some of which cheat, with faults of all kinds.
    Sim(sim::Seeds),
    /// Proofs that an anchor is in a state of 100,000 keys, or is not.
    StateProofs,
    /// Four validators as processes: submit to final, finalized a second, one dead, idle disk, replay.
    Chain {
        /// Length of the open load.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// TPC-H over streams: verified SQL against plain DataFusion on the same files; look-ups; planning.
    Query(query::Options),
    /// Generated statements over the built-in streams: Cairn's rows against plain DataFusion's.
    Differential(differential::Options),
    /// Records of Apache Kafka onto the chain, against a bare consumer: rate, lag, processor time, bytes at rest.
    Ingest(ingest::Options),
    /// Ingest of `ingest`, in its process.
    #[command(hide = true)]
    IngestWorker {
        /// What it is told.
        file: PathBuf,
    },
    /// Random kills, pauses and restarts of every role while records are published: nothing is lost, doubled or changed.
    Chaos(chaos::Options),
    /// The broker of `chaos`, in its process.
    #[command(hide = true)]
    EmbeddedBroker {
        /// Its folder.
        folder: PathBuf,
        /// Where it listens.
        listen: std::net::SocketAddr,
    },
    /// One validator of `chain`, in its process.
    #[command(hide = true)]
    Validator {
        /// What it is told.
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Median time of each contender over rounds that run all of them in turn.
pub(crate) fn medians(rounds: usize, contenders: &mut [&mut dyn FnMut()]) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds.max(1) {
        for (times, run) in times.iter_mut().zip(contenders.iter_mut()) {
            let started = Instant::now();
            run();
            times.push(started.elapsed());
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort();
            times[times.len() / 2]
        })
        .collect()
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let figures: Map<String, Value> = match &arguments.what {
        What::Records => records::run(arguments.rounds),
        What::Replay => replay::run(arguments.rounds)?,
        What::Together => together::run(arguments.rounds)?,
        What::Sim(seeds) => sim::run(seeds)?,
        What::StateProofs => state_proofs::run(arguments.rounds)?,
        What::Chain { seconds } => chain::run(*seconds, arguments.rounds)?,
        What::Query(options) => query::run(options, arguments.rounds)?,
        What::Differential(options) => differential::run(options)?,
        What::Chaos(options) => chaos::run(options)?,
        What::EmbeddedBroker { folder, listen } => return chaos::embedded_broker(folder, *listen),
        What::Ingest(options) => ingest::run(options, arguments.rounds)?,
        What::IngestWorker { file } => return ingest::worker(file),
        What::Validator { file } => return chain::validator(file),
    };
    let mut out = std::io::stdout().lock();
    match arguments.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&figures)?)?,
        Format::Table => {
            for (name, value) in figures {
                writeln!(out, "{name:40} {value}")?;
            }
        }
    }
    Ok(())
}

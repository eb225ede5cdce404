//! The simulation of `cairn_chain_node`, over many seeds: a table of outcomes, and for each failure the command that
//! repeats it.
//!
//! Progress goes to standard error, the outcome to standard output. A single seed is told in full.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cairn_chain_node::simulation::{self, Plan, Report};
use clap::Args;
use serde_json::{Map, Value, json};

/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Which seeds are run, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Seeds {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One seed alone, told in full; as the tests run it.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Longer runs with more statements than those of the tests.
    #[arg(long)]
    long: bool,
    /// Threads; all processors by default.
    #[arg(long)]
    threads: Option<usize>,
}

impl Seeds {
    fn plan(&self) -> Plan {
        if self.long { Plan::full() } else { Plan::small() }
    }
}

/// What many runs came to.
#[derive(Debug, Default)]
struct Total {
    runs: u64,
    validators: BTreeMap<usize, u64>,
    kinds: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
    statements: BTreeMap<&'static str, u64>,
    blocks: u64,
    committee_changes: u64,
    equivocations: u64,
    suspended: u64,
    simulated_ms: u64,
    failed: Vec<Report>,
}

impl Total {
    fn add(&mut self, report: Report) {
        self.runs += 1;
        *self.validators.entry(report.validators).or_default() += 1;
        let kinds: BTreeSet<&str> = report.byzantine.iter().map(|kind| kind.name()).collect();
        if kinds.is_empty() {
            *self.kinds.entry("none").or_default() += 1;
        }
        for kind in &report.byzantine {
            *self.kinds.entry(kind.name()).or_default() += 1;
        }
        for (name, count) in &report.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, count) in &report.statements {
            *self.statements.entry(name).or_default() += count;
        }
        self.blocks += report.blocks;
        self.committee_changes += report.committee_changes;
        self.equivocations += report.reputation.iter().map(|validator| validator.equivocations).sum::<u64>();
        self.suspended += report.reputation.iter().filter(|validator| validator.status == "suspended").count() as u64;
        self.simulated_ms += report.simulated_ms;
        if !report.violations.is_empty() {
            self.failed.push(report);
        }
    }

    fn figures(&self, took: Duration) -> Map<String, Value> {
        let mut figures = Map::new();
        figures.insert("seeds".into(), self.runs.into());
        figures.insert("seeds_failed".into(), self.failed.len().into());
        figures.insert("seconds".into(), json!(took.as_secs_f64().round()));
        figures.insert("simulated_seconds".into(), (self.simulated_ms / 1_000).into());
        figures.insert("final_blocks".into(), self.blocks.into());
        figures.insert("committee_changes".into(), self.committee_changes.into());
        figures.insert("equivocations_proven".into(), self.equivocations.into());
        figures.insert("validators_suspended_at_the_end".into(), self.suspended.into());
        for (count, runs) in &self.validators {
            figures.insert(format!("runs with {count:2} validators"), (*runs).into());
        }
        for (title, counts) in
            [("validators, ", &self.kinds), ("faults, ", &self.faults), ("statements, ", &self.statements)]
        {
            for (name, count) in counts {
                figures.insert(format!("{title}{name}"), (*count).into());
            }
        }
        figures
    }
}

fn tell(line: &str) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn tell_failure(report: &Report) {
    for found in &report.violations {
        tell(&format!("seed {}: {}: {}", report.seed, found.check, found.message));
    }
    tell(&format!("repeat it with: {}", report.command()));
}

/// Runs the seeds. Returns figures.
///
/// # Errors
/// When something that must hold did not, in any of them.
pub(crate) fn run(seeds: &Seeds) -> Result<Map<String, Value>> {
    // What panics in a run is part of its report; the tasks of a simulated validator panic when its disk fails.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = seeds.seed {
        return one(seed, &seeds.plan(), seeds.long);
    }
    let (started, next, end) = (Instant::now(), AtomicU64::new(seeds.from), seeds.from.saturating_add(seeds.seeds));
    let total = Mutex::new((Total::default(), Instant::now()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let report = simulation::run(seed, &seeds.plan());
            if !report.violations.is_empty() {
                tell_failure(&report);
            }
            let mut guard = total.lock().unwrap_or_else(PoisonError::into_inner);
            guard.0.add(report);
            if guard.1.elapsed() > TELL_EVERY {
                guard.1 = Instant::now();
                tell(&format!("{} of {} seeds, {} failed", guard.0.runs, seeds.seeds, guard.0.failed.len()));
            }
        }
    };
    let threads = seeds.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (total, _) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let figures = total.figures(started.elapsed());
    if let Some(first) = total.failed.first() {
        tell(&serde_json::to_string_pretty(&figures)?);
        bail!("{} of {} seeds failed, the first of them {}", total.failed.len(), total.runs, first.seed);
    }
    Ok(figures)
}

fn one(seed: u64, plan: &Plan, long: bool) -> Result<Map<String, Value>> {
    let started = Instant::now();
    let report = simulation::run(seed, plan);
    tell(&format!("{report:#?}"));
    if !report.violations.is_empty() {
        tell_failure(&report);
        bail!("seed {seed} failed{}", if long { " (with --long)" } else { "" });
    }
    let mut total = Total::default();
    total.add(report);
    Ok(total.figures(started.elapsed()))
}

//! Many validators under the deterministic runtime, some of which cheat, while the network, the disks and the processes
//! of the others fail: the state machine and the wiring are those of a real node.
//!
//! ```text
//! seed ──▶ scenario: validators, who cheats and how, what breaks when        (scenario.rs)
//!            │
//!            ▼
//!          world: simulated network ── machines ── engine, marshal, executor, mempool, gossip of each   (world.rs)
//!            ▲         │ final blocks
//!          load        ▼
//!   (load.rs)        observed ──▶ checks on what must hold whatever happened  (checks.rs)
//! ```
//!
//! The same seed gives the same run, event for event. Once the faults stop, everything must come right within a bounded
//! simulated time. What is not simulated: TCP, the HTTP API, real disks; the tests of whole nodes cover them.
//!
//! It is no part of a node: it is compiled for tests, and for the bench under the feature `simulation`. Its own failures
//! are panics, which a run reports like any other violation.

#![allow(clippy::unwrap_used)]

mod byzantine;
mod checks;
mod draw;
mod governor;
mod load;
mod machine;
mod observed;
mod scenario;
#[cfg(test)]
mod tests;
mod world;

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use cairn_chain_state::State;
use commonware_runtime::deterministic::{Config, FaultConfig, PartialWriteMode, Runner, WriteConfig};
use commonware_utils::probability;

use crate::city::validator_key;
use draw::Draw;
use load::Load;
use observed::Observed;
use scenario::{Role, Scenario};
use world::{Progress, World};

/// How a validator misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Votes for what is proposed and for something random as well.
    Conflicter,
    /// As a leader, proposes one thing to one validator and another thing to the rest.
    Equivocator,
    /// Two whole validators with one key, each of which speaks with a part of the others.
    Twins,
    /// Gives up the views that it votes to finalize.
    Nuller,
    /// Signs, for each validator alone, whatever that validator signs.
    Flatterer,
    /// Votes for proposals of long ago.
    Outdated,
    /// Says nothing.
    Silent,
    /// Proposes blocks that are wrong in each part of the header, votes for anything, and gossips garbage.
    Liar,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Conflicter,
        Self::Equivocator,
        Self::Twins,
        Self::Nuller,
        Self::Flatterer,
        Self::Outdated,
        Self::Silent,
        Self::Liar,
    ];

    /// Whether it is more than votes in answer to votes.
    const fn is_node(self) -> bool {
        matches!(self, Self::Twins | Self::Liar)
    }

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflicter => "conflicter",
            Self::Equivocator => "equivocator",
            Self::Twins => "twins",
            Self::Nuller => "nuller",
            Self::Flatterer => "flatterer",
            Self::Outdated => "outdated",
            Self::Silent => "silent",
            Self::Liar => "liar",
        }
    }
}

/// Bounds within which a seed's scenario is drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Fewest and most validators.
    pub validators: (u64, u64),
    /// For how long things break, in simulated milliseconds.
    pub fault_ms: u64,
    /// Within which time after that everything must have come right, in simulated milliseconds.
    pub settle_ms: u64,
    /// An empty block is made after this long, in simulated milliseconds.
    pub heartbeat_ms: u64,
    /// Blocks of an epoch.
    pub epoch_blocks: u64,
    /// About how many statements are submitted.
    pub statements: u64,
    /// Whether network, disks and processes fail; without it, only validators misbehave.
    pub faults: bool,
    /// Whether committee and parameters change by votes; up to two more nodes follow the chain and may be voted in.
    pub votes: bool,
    /// The kinds of the first validators instead of drawn ones. More than a third may break what must hold.
    pub byzantine: Option<Vec<Kind>>,
}

impl Plan {
    /// For a test suite: seconds in a debug build.
    #[must_use]
    pub fn small() -> Self {
        Self { fault_ms: 15_000, statements: 80, ..Self::full() }
    }

    /// For a long search.
    #[must_use]
    pub const fn full() -> Self {
        Self {
            validators: (4, 10),
            fault_ms: 30_000,
            settle_ms: 60_000,
            heartbeat_ms: 500,
            epoch_blocks: 8,
            statements: 150,
            faults: true,
            votes: true,
            byzantine: None,
        }
    }
}

/// Something that must hold and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check found it.
    pub check: &'static str,
    /// What was expected, what was found.
    pub message: String,
}

impl Violation {
    fn new(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, message: message.into() }
    }
}

/// What the chain says of a validator at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reputation {
    /// Which of the validators it is.
    pub index: usize,
    /// `active`, `suspended` or `removed`.
    pub status: &'static str,
    /// Its votes in attested certificates.
    pub votes_seen: u64,
    /// Proven equivocations.
    pub equivocations: u64,
}

/// What came of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many validators there were.
    pub validators: usize,
    /// How those that misbehaved did.
    pub byzantine: Vec<Kind>,
    /// How often what went wrong.
    pub faults: BTreeMap<&'static str, u64>,
    /// Final blocks.
    pub blocks: u64,
    /// What became of the statements: `final` (of these, `of several anchors, final`), `refused`, `refused at once`.
    pub statements: BTreeMap<&'static str, u64>,
    /// How often the committee changed.
    pub committee_changes: u64,
    /// What the chain says of each validator at the end.
    pub reputation: Vec<Reputation>,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Hash over every event of the run, in order.
    pub events: String,
    /// What must hold and does not; empty when all is well.
    pub violations: Vec<Violation>,
}

impl Report {
    /// The command that repeats the run.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo run --release -p cairn-bench -- sim --seed {}", self.seed)
    }
}

/// Everything of a run that outlives a power loss.
struct Run {
    plan: Plan,
    scenario: Scenario,
    draw: Draw,
    load: Load,
    observed: Observed,
    progress: Progress,
    report: Report,
}

impl Run {
    fn new(seed: u64, plan: &Plan) -> Self {
        let mut draw = Draw::new(seed);
        let scenario = Scenario::draw(&mut draw, plan);
        let byzantine = scenario.roles.iter().filter_map(|role| match role {
            Role::Byzantine(kind) => Some(*kind),
            Role::Honest => None,
        });
        let validators = scenario.validators;
        let report = Report { seed, validators, byzantine: byzantine.collect(), ..Report::default() };
        let honest: Vec<bool> = scenario.roles.iter().map(|role| *role == Role::Honest).collect();
        let nodes = honest.len();
        let load = Load::new(validators, honest, plan, draw.within(0, u64::MAX - 1));
        let observed = Observed::new(load.genesis().clone(), nodes);
        let progress = Progress::new(nodes);
        Self { plan: plan.clone(), scenario, draw, load, observed, progress, report }
    }

    /// What becomes of unsynchronised writes at a power loss: a beginning or any part of them may be on the disk.
    fn disk(&mut self) -> FaultConfig {
        let kept = *self.draw.one(&[
            (probability!(0.5), PartialWriteMode::Subset),
            (probability!(0.99), PartialWriteMode::Subset),
            (probability!(0.99), PartialWriteMode::Prefix),
            (probability!(1.0), PartialWriteMode::Prefix),
        ]);
        let (retention_rate, mode) = kept;
        FaultConfig::default().write(WriteConfig { failure_rate: probability!(0.0), retention_rate, mode })
    }

    /// Runs until all is checked, through as many power losses as the scenario has.
    fn finish(&mut self) {
        let deadline = Duration::from_millis(10 * (self.plan.fault_ms + self.plan.settle_ms));
        let config = Config::new().with_seed(self.report.seed).with_timeout(Some(deadline));
        let disk = self.disk();
        let mut runner = Runner::new(config.with_storage_fault_config(disk));
        loop {
            let (again, checkpoint) =
                runner.start_and_recover(|context| async { Box::pin(World::run(context, self)).await });
            if !again {
                self.report.events = checkpoint.auditor().state();
                break;
            }
            runner = Runner::from(checkpoint);
        }
        self.report.blocks = self.observed.height();
        self.report.statements = self.load.outcomes();
        let checked = checks::all(&self.observed);
        self.report.violations.extend(checked.violations);
        self.report.committee_changes = checked.committee_changes;
        self.report.reputation = reputation(&checked.state, self.scenario.roles.len());
    }
}

fn reputation(state: &State, validators: usize) -> Vec<Reputation> {
    let of = |index: usize| {
        let entry = state.validator(&validator_key(index).public())?;
        let (status, votes_seen, equivocations) = (entry.status.name(), entry.votes_seen, entry.equivocations);
        Some(Reputation { index, status, votes_seen, equivocations })
    };
    (0..validators).filter_map(of).collect()
}

/// Runs what `seed` says within `plan`, and checks all that must hold.
#[must_use]
pub fn run(seed: u64, plan: &Plan) -> Report {
    let mut run = Run::new(seed, plan);
    // Debug builds of the consensus library overflow the default stack.
    let ended = thread::scope(|scope| {
        let body = || {
            let ended = catch_unwind(AssertUnwindSafe(|| run.finish()));
            if let Err(panic) = ended {
                run.report.violations.push(Violation::new("the run comes to its end", text(&*panic)));
            }
        };
        let thread = thread::Builder::new().name(format!("seed {seed}")).stack_size(crate::validator::STACK_BYTES);
        thread.spawn_scoped(scope, body).map(thread::ScopedJoinHandle::join)
    });
    if !matches!(ended, Ok(Ok(()))) {
        run.report.violations.push(Violation::new("the run comes to its end", "its thread did not"));
    }
    run.report
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}

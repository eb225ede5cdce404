//! What happens in one run: who misbehaves and how, what breaks and when. All of it follows from the seed.

use super::{Kind, Plan, draw::Draw};

/// What one validator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs our software as it is.
    Honest,
    /// Does not.
    Byzantine(Kind),
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes between those marked and the others.
    Partition { side: Vec<bool>, for_ms: u64 },
    /// What one sends to another is late or lost.
    Link { from: usize, to: usize, latency_ms: u64, jitter_ms: u64, lost_percent: u64, for_ms: u64 },
    /// Everything that everybody sends is late or lost.
    Weather { latency_ms: u64, jitter_ms: u64, lost_percent: u64, for_ms: u64 },
    /// A process ends at once.
    Crash { index: usize, down_ms: u64 },
    /// A disk fails at one of its next operations, and the process with it.
    Disk { index: usize, operations: u64, down_ms: u64 },
    /// All machines go off at once; of what was being written, any part may have reached the disks.
    PowerLoss,
}

impl Fault {
    /// The name in reports.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::Link { .. } => "link",
            Self::Weather { .. } => "weather",
            Self::Crash { .. } => "crash",
            Self::Disk { .. } => "disk",
            Self::PowerLoss => "power loss",
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// How many of the roles are validators from the beginning; the others follow.
    pub(crate) validators: usize,
    pub(crate) roles: Vec<Role>,
    /// Whether a validator that another has found to cheat can no longer reach it.
    pub(crate) disconnects: bool,
    /// In order of time, in milliseconds from the start.
    pub(crate) faults: Vec<(u64, Fault)>,
    /// When a lying validator sends garbage.
    pub(crate) garbage_ms: u64,
}

impl Scenario {
    /// Draws a run within the plan's bounds.
    pub(crate) fn draw(draw: &mut Draw, plan: &Plan) -> Self {
        let (least, most) = plan.validators;
        // Small committees are the likelier ones: a run costs as the square of its size.
        let large = draw.percent(35);
        let validators =
            if large { draw.within(least, most) } else { draw.within(least, most.min(least + 1)) } as usize;
        let mut roles = roles(draw, plan, validators);
        if plan.votes {
            roles.resize(validators + draw.index(3), Role::Honest);
        }
        let nodes = roles.len();
        let honest: Vec<usize> = (0..nodes).filter(|index| roles[*index] == Role::Honest).collect();
        let mut faults = Vec::new();
        if plan.faults {
            for _ in 0..draw.within(2, 2 + plan.fault_ms / 2_000) {
                let at = draw.within(500, plan.fault_ms.max(1_000) - 500);
                faults.push((at, fault(draw, plan, &honest, nodes)));
            }
            if draw.percent(30) {
                faults.push((draw.within(plan.fault_ms / 4, plan.fault_ms), Fault::PowerLoss));
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        Self {
            validators,
            roles,
            disconnects: draw.percent(50),
            faults,
            garbage_ms: draw.within(plan.fault_ms / 2, plan.fault_ms),
        }
    }

    /// The validators that do as they should.
    pub(crate) fn honest(&self) -> impl Iterator<Item = usize> + use<'_> {
        (0..self.roles.len()).filter(|index| self.roles[*index] == Role::Honest)
    }
}

fn roles(draw: &mut Draw, plan: &Plan, validators: usize) -> Vec<Role> {
    let mut roles = vec![Role::Honest; validators];
    if let Some(forced) = &plan.byzantine {
        for (role, kind) in roles.iter_mut().zip(forced) {
            *role = Role::Byzantine(*kind);
        }
        return roles;
    }
    let most = (validators - 1) / 3;
    let count = if draw.percent(75) { most } else { draw.index(most + 1) };
    for index in draw.several(count, validators) {
        roles[index] = Role::Byzantine(*draw.one(&Kind::ALL));
    }
    roles
}

fn fault(draw: &mut Draw, plan: &Plan, honest: &[usize], validators: usize) -> Fault {
    let for_ms = draw.within(500, (plan.fault_ms / 3).max(501));
    match draw.within(0, 99) {
        0..=24 => Fault::Partition { side: (0..validators).map(|_| draw.percent(50)).collect(), for_ms },
        25..=39 => {
            let (from, to) = (draw.index(validators), draw.index(validators));
            let (latency_ms, jitter_ms, lost_percent) = trouble(draw);
            Fault::Link { from, to, latency_ms, jitter_ms, lost_percent, for_ms }
        }
        40..=54 => {
            let (latency_ms, jitter_ms, lost_percent) = trouble(draw);
            Fault::Weather { latency_ms, jitter_ms, lost_percent, for_ms }
        }
        55..=84 => Fault::Crash { index: *draw.one(honest), down_ms: draw.within(50, 5_000) },
        _ => Fault::Disk { index: *draw.one(honest), operations: draw.within(0, 200), down_ms: draw.within(50, 3_000) },
    }
}

fn trouble(draw: &mut Draw) -> (u64, u64, u64) {
    (draw.within(5, 400), draw.within(0, 200), if draw.percent(50) { draw.within(1, 40) } else { 0 })
}

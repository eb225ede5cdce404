//! Thirty seeds, the same seed twice, and runs that are bound to fail.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Seeds of every test run. Another range is a longer search: `cairn-bench sim`.
const SEEDS: u64 = 30;

fn told(report: &Report) -> String {
    let mut lines = vec![format!("seed {} ({:?}, {:?}):", report.seed, report.byzantine, report.faults)];
    lines.extend(report.violations.iter().map(|found| format!("  {}: {}", found.check, found.message)));
    lines.push(format!("  repeat it with: {}", report.command()));
    lines.join("\n")
}

fn checks(report: &Report) -> Vec<&'static str> {
    report.violations.iter().map(|found| found.check).collect()
}

#[test]
fn thirty_seeds_hold() {
    let next = AtomicU64::new(0);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return reports;
            }
            reports.push(run(seed, &Plan::small()));
        }
    };
    let reports: Vec<Report> = thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(reports.len() as u64, SEEDS);
    let failed: Vec<String> = reports.iter().filter(|report| !report.violations.is_empty()).map(told).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // The seeds are worth something only if they show every kind of misbehaviour and of fault.
    for kind in Kind::ALL {
        assert!(reports.iter().any(|report| report.byzantine.contains(&kind)), "no seed has a {}", kind.name());
    }
    for fault in ["partition", "link", "weather", "crash", "disk", "power loss"] {
        assert!(reports.iter().any(|report| report.faults.contains_key(fault)), "no seed has a {fault}");
    }
    assert!(reports.iter().filter(|report| report.committee_changes > 1).count() > 5, "few committees change");
    for outcome in ["final", "of several anchors, final", "refused", "refused at once"] {
        assert!(reports.iter().any(|report| report.statements.contains_key(outcome)), "no statement is {outcome}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let (one, again) = (run(7, &Plan::small()), run(7, &Plan::small()));
    assert_eq!(one, again);
    assert_ne!(run(8, &Plan::small()).events, one.events);
}

/// Two of four validators agree with each of the others: while those two do not hear each other, each of them has a
/// quorum for what it proposes.
#[test]
fn more_flatterers_than_a_third_fork_the_chain_and_that_is_seen() {
    let byzantine = Some(vec![Kind::Flatterer, Kind::Flatterer]);
    let plan = Plan { validators: (4, 4), byzantine, votes: false, settle_ms: 5_000, ..Plan::small() };
    let found = (0..20).find(|seed| checks(&run(*seed, &plan)).contains(&"one final block at each height"));
    assert!(found.is_some(), "no fork among twenty seeds");
}

/// Three of four validators vote for anything: the fourth must not take in what they decide.
#[test]
fn more_liars_than_a_third_stop_the_honest_one() {
    let byzantine = Some(vec![Kind::Liar, Kind::Liar, Kind::Liar]);
    let plan = Plan { validators: (4, 4), byzantine, faults: false, votes: false, settle_ms: 5_000, ..Plan::small() };
    let report = run(1, &plan);
    assert!(checks(&report).contains(&"honest validators keep running"), "{}", told(&report));
    assert!(checks(&report).contains(&"progress once faults stop"), "{}", told(&report));
}

#[test]
fn silence_of_more_than_a_third_is_seen_as_no_progress() {
    let byzantine = Some(vec![Kind::Silent, Kind::Silent]);
    let plan = Plan { validators: (4, 4), byzantine, faults: false, votes: false, settle_ms: 5_000, ..Plan::small() };
    let report = run(1, &plan);
    assert!(checks(&report).contains(&"progress once faults stop"), "{}", told(&report));
    assert!(checks(&report).contains(&"every statement is final or refused"), "{}", told(&report));
}

#[test]
fn whoever_contradicts_itself_is_suspended_by_evidence_on_the_chain() {
    for kind in [Kind::Conflicter, Kind::Nuller] {
        let plan =
            Plan { validators: (5, 5), byzantine: Some(vec![kind]), faults: false, votes: false, ..Plan::small() };
        let report = run(3, &plan);
        assert!(report.violations.is_empty(), "{}", told(&report));
        let [cheat, honest @ ..] = report.reputation.as_slice() else { panic!("no validators") };
        assert_eq!(cheat.status, "suspended", "{}: {report:?}", kind.name());
        assert!(cheat.equivocations > 0);
        assert!(report.committee_changes > 0);
        for validator in honest {
            assert_eq!((validator.status, validator.equivocations), ("active", 0));
            assert!(validator.votes_seen > 0, "{report:?}");
        }
    }
}

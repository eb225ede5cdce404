//! What this process has used: processor time, also by the kind of its threads, and its greatest memory. From `/proc`;
//! nothing where there is none.

use std::collections::BTreeMap;
use std::fs;

/// Ticks of `/proc` a second, on every Linux that there is.
const TICKS: f64 = 100.0;

/// User and system time in seconds from a `stat` file.
fn seconds(stat: &str) -> Option<f64> {
    // The name in parentheses may hold anything; the fields after it do not.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    Some((user + system) / TICKS)
}

/// Processor time of the whole process so far, in seconds.
pub(super) fn cpu_seconds() -> f64 {
    fs::read_to_string("/proc/self/stat").ok().and_then(|stat| seconds(&stat)).unwrap_or_default()
}

/// Greatest resident memory so far, in KiB.
pub(super) fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Processor time of the threads that are there now, by what they do.
pub(super) fn threads() -> BTreeMap<String, f64> {
    let mut used = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let what = match name.trim() {
            "cairn-ingest" => "taking in",
            name if name.starts_with("rdk:") => "fetch",
            "sealing" | "tokio-rt-worker" => "decode, seal, store, submit",
            _ => "other",
        };
        *used.entry(what.to_owned()).or_insert(0.0) += seconds(&stat).unwrap_or_default();
    }
    used
}

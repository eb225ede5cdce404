//! Who may import whom, held against `cargo metadata`; and that each module opens with what it is.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The table of ARCHITECTURE.md. A crate that is not in it fails the test.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cairn-proof", &[]),
    ("cairn-chain-state", &["cairn-proof"]),
    ("cairn-chain-client", &["cairn-proof", "cairn-chain-state"]),
    ("cairn-chain-node", &["cairn-proof", "cairn-chain-state"]),
    ("cairn-anchor", &["cairn-proof", "cairn-chain-client", "cairn-chain-state"]),
    ("cairn-ingest", &["cairn-proof", "cairn-anchor", "cairn-chain-client"]),
    ("cairn-query", &["cairn-proof", "cairn-anchor", "cairn-chain-client"]),
    (
        "cairn-cli",
        &[
            "cairn-proof",
            "cairn-chain-state",
            "cairn-chain-node",
            "cairn-chain-client",
            "cairn-anchor",
            "cairn-ingest",
            "cairn-query",
        ],
    ),
    (
        "cairn-bench",
        &[
            "cairn-proof",
            "cairn-chain-state",
            "cairn-chain-node",
            "cairn-chain-client",
            "cairn-anchor",
            "cairn-ingest",
            "cairn-query",
        ],
    ),
];

/// Crates that must stay pure: nothing that does I/O, tells time or spawns tasks may be among their dependencies.
const PURE: &[&str] = &["cairn-proof", "cairn-chain-state"];
const IMPURE: &[&str] =
    &["tokio", "reqwest", "rand", "axum", "object_store", "rdkafka", "tracing", "chrono", "futures"];
/// What only these crates may use, so that its releases and its types stay there. `bench` runs plain DataFusion beside
/// `query`, as that which verified SQL is compared with.
const CONFINED: &[(&str, &[&str])] =
    &[("commonware-", &["cairn-chain-node"]), ("datafusion", &["cairn-query", "cairn-bench"])];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

#[test]
fn crates_import_only_what_the_table_allows() {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ALLOWED.iter().map(|(name, list)| (*name, list.iter().copied().collect())).collect();
    assert!(metadata.packages.len() >= ALLOWED.len());
    for package in &metadata.packages {
        let name = package.name.as_str();
        let list = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the import table"));
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let imported = dependency.name.as_str();
            assert!(!imported.starts_with("cairn-") || list.contains(imported), "{name} may not import {imported}");
            assert!(!PURE.contains(&name) || !IMPURE.contains(&imported), "{name} is pure and may not use {imported}");
            for (prefix, homes) in CONFINED {
                let at_home = homes.contains(&name);
                assert!(!imported.starts_with(prefix) || at_home, "{imported} belongs in {homes:?}, not in {name}");
            }
        }
    }
}

#[test]
fn each_module_opens_with_what_it_is() {
    let mut checked = 0;
    for folder in ["proof", "chain", "anchor", "ingest", "query", "cli", "bench", "tests"] {
        for file in rust_files(&root().join(folder)) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} files were looked at");
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "corpus" {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

//! The publisher libraries in other languages (`docs/publishers`) against this crate: the same records, the same headers.
//!
//! Each runs as a process of its own over `golden/signed-records.json`, and prints the headers that it makes. A language
//! whose tool or package is missing is left out, and a line on standard error says so. Nothing is written but into the
//! target folder.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_proof::identity::PublicKey;
use cairn_proof::signed_record::{EntryHasher, RunHead, RunRoots, SignedHeaders};
use cairn_proof::statement::ChainTag;
use cairn_proof::{Digest, Partition};
use serde_json::Value as Json;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/signed-records.json")
}

fn vectors() -> Json {
    serde_json::from_slice(&std::fs::read(file()).unwrap()).unwrap()
}

fn skip(language: &str, why: &str) {
    // Not by a macro: a test's own output is shown of failed tests only.
    let line = format!("SKIPPED: the {language} publisher is not tested: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs a tool; says why it cannot be used when it is missing or fails.
fn tool(command: &mut Command) -> Result<String, String> {
    match command.output() {
        Err(error) => Err(format!("{}: {error}", command.get_program().to_string_lossy())),
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(output) => Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// Compares what a library printed with what this crate makes.
fn compare(language: &str, program: &str, script: &str) {
    let mut command = Command::new(program);
    command.arg(root().join("docs/publishers").join(script)).arg(file()).env("PYTHONDONTWRITEBYTECODE", "1");
    // With the tool at hand, a library that does not run is a failure and not a skip.
    let printed: Json = serde_json::from_str(&tool(&mut command).unwrap()).unwrap();
    let vectors = vectors();
    assert_eq!(printed["public_key"], vectors["public_key"], "{language}");
    assert_eq!(printed["partitions"], vectors["partitions"]["hashes"], "{language}");
    let runs = vectors["runs"].as_array().unwrap();
    assert_eq!(printed["runs"].as_array().unwrap().len(), runs.len());
    for (run, printed) in runs.iter().zip(printed["runs"].as_array().unwrap()) {
        let records = run["records"].as_array().unwrap();
        let expected: Vec<_> = records.iter().map(|record| record["headers"].clone()).collect();
        assert_eq!(printed, &Json::from(expected), "{language}: {}", run["name"]);
    }
}

#[test]
fn python_makes_the_same_headers() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("publishers");
    match tool(Command::new("sh").arg(root().join("docs/verifiers/setup.sh")).arg(folder)) {
        Ok(python) => compare("python", &python, "python/vectors.py"),
        Err(why) => skip("Python", &why),
    }
}

#[test]
fn javascript_makes_the_same_headers() {
    let version = tool(Command::new("node").arg("--version"));
    let major = |version: &str| version.trim_start_matches('v').split('.').next()?.parse::<u32>().ok();
    match version {
        Ok(version) if major(&version).is_some_and(|major| major >= 20) => {
            compare("javascript", "node", "javascript/vectors.mjs");
        }
        Ok(version) => skip("JavaScript", &format!("Node 20 or later is needed, found {version}")),
        Err(why) => skip("JavaScript", &why),
    }
}

/// The headers of each vector verify, as ingest checks them, and none does for another record.
#[test]
fn the_vectors_verify() {
    let vectors = vectors();
    let unhex = |value: &Json| value.as_str().map(|text| hex::decode(text).unwrap());
    let chain = ChainTag(Digest(unhex(&vectors["chain_tag"]).unwrap().try_into().unwrap()));
    let stream = vectors["stream"].as_str().unwrap();
    for run in vectors["runs"].as_array().unwrap() {
        for record in run["records"].as_array().unwrap() {
            let named = |header: &Json| (header[0].as_str().unwrap().to_owned(), unhex(&header[1]).unwrap());
            let headers: Vec<_> = record["headers"].as_array().unwrap().iter().map(named).collect();
            let borrowed = headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice())));
            let signed = SignedHeaders::read(borrowed).unwrap().unwrap();
            assert_eq!(signed.sequence.to_string(), record["sequence"].as_str().unwrap());
            let partition = Partition(u32::try_from(record["partition"].as_u64().unwrap()).unwrap());
            let (key, value) = (unhex(&record["key"]), unhex(&record["value"]));
            let timestamp_ms = record["timestamp_ms"].as_i64().unwrap();
            let verifies = |partition, timestamp_ms| {
                let mut hasher = EntryHasher::new(&chain, stream, partition);
                let (key, value) = (key.as_deref(), value.as_deref());
                let leaf = hasher.leaf(signed.publisher, signed.sequence, timestamp_ms, key, value);
                let root = RunRoots::new().root(&leaf, &signed);
                let publisher = PublicKey::from_bytes(*signed.publisher).unwrap();
                RunHead { publisher, signature: *signed.signature, count: signed.count, root }.verify(&chain)
            };
            assert!(verifies(partition, timestamp_ms), "{}", run["name"]);
            assert!(!verifies(partition.next(), timestamp_ms), "{}", run["name"]);
            assert!(!verifies(partition, timestamp_ms + 1), "{}", run["name"]);
        }
    }
}

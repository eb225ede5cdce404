//! Receipts for verifiers in any language: valid ones, and ones that are broken in one place each.
//!
//! `golden/receipts/` holds `genesis.json`, the valid receipts, and `cases.json`: an array of
//!
//! ```text
//! {"name", "base", "verifies", "step", "at", "remove", "insert"}
//! ```
//!
//! A case's receipt is the file `base` with `remove` bytes from byte `at` on taken out and the UTF-8 of `insert` put there.
//! It must verify, or not, as `verifies` says; `step` is where this crate stops, which is no rule for others.
//! `CAIRN_WRITE_GOLDEN=1` writes the files anew.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures, clippy::type_complexity)]

mod broken;
mod certificates;
mod chain;
mod several;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cairn_proof::genesis::Genesis;
use cairn_proof::receipt::Receipt;
use serde::{Deserialize, Serialize};

/// One line of `cases.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    base: String,
    verifies: bool,
    step: Option<String>,
    at: usize,
    remove: usize,
    insert: String,
}

impl Case {
    /// The case whose receipt is `content`.
    fn of(made: &broken::Made, base: &[u8]) -> Self {
        let content = &made.content;
        let mut at = base.iter().zip(content).take_while(|(a, b)| a == b).count();
        let rest = base.len().min(content.len()) - at;
        let mut same = base.iter().rev().zip(content.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
        // What is put in is text, so both ends lie between two characters.
        while at > 0 && content.get(at).is_some_and(|byte| byte & 0xc0 == 0x80) {
            at -= 1;
        }
        while content.get(content.len() - same).is_some_and(|byte| byte & 0xc0 == 0x80) {
            same -= 1;
        }
        Self {
            name: made.name.clone(),
            base: made.base.clone(),
            verifies: made.step.is_none(),
            step: made.step.map(|step| step.name().to_owned()),
            at,
            remove: base.len() - same - at,
            insert: String::from_utf8(content[at..content.len() - same].to_vec()).unwrap(),
        }
    }

    /// The receipt that the case is about.
    fn content(&self, base: &[u8]) -> Vec<u8> {
        [&base[..self.at], self.insert.as_bytes(), &base[self.at + self.remove..]].concat()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/receipts")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every file of the folder, and what belongs in it.
fn files() -> Vec<(String, Vec<u8>)> {
    let genesis = serde_json::to_string_pretty(&chain::genesis()).unwrap() + "\n";
    let mut files = vec![("genesis.json".to_owned(), genesis.into_bytes())];
    let receipts: Vec<(String, Vec<u8>)> =
        chain::receipts().into_iter().map(|(name, receipt)| (name.to_owned(), receipt.to_json().unwrap())).collect();
    let cases: Vec<String> = broken::all()
        .iter()
        .map(|made| {
            let (_, base) = receipts.iter().find(|(name, _)| *name == made.base).unwrap();
            serde_json::to_string(&Case::of(made, base)).unwrap()
        })
        .collect();
    files.extend(receipts);
    files.push(("cases.json".to_owned(), format!("[\n{}\n]\n", cases.join(",\n")).into_bytes()));
    files
}

#[test]
fn the_files_are_what_the_code_writes() {
    for (name, made) in files() {
        let path = folder().join(&name);
        if std::env::var_os("CAIRN_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(kept == made, "{name}: a changed golden file is a format change: say so in docs/formats.md");
    }
}

#[test]
fn every_receipt_verifies_and_says_what_it_is_about() {
    let genesis = Genesis::from_json(&read("genesis.json")).unwrap();
    for (name, receipt) in chain::receipts() {
        let verified =
            Receipt::from_json(&read(name)).unwrap().verify(&genesis).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(verified.record.encode(), receipt.record.0, "{name}");
        assert_eq!(verified.anchorer, chain::key(chain::INGEST).identity(), "{name}");
    }
}

/// Every bit of a receipt with a committee change, one after the other: nothing in it is unsigned.
#[test]
fn any_flipped_bit_after_a_committee_change_is_refused() {
    let genesis = Genesis::from_json(&read("genesis.json")).unwrap();
    let good = read("change.json");
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let accepted = Receipt::from_json(&changed).and_then(|receipt| receipt.verify(&genesis));
        assert!(accepted.is_err(), "bit {} of byte {} ({:?})", bit % 8, bit / 8, char::from(good[bit / 8]));
    }
}

/// The same for an anchor out of several: neither its place nor what was signed can change.
#[test]
fn any_flipped_bit_of_a_receipt_out_of_several_is_refused() {
    let genesis = Genesis::from_json(&read("genesis.json")).unwrap();
    let good = read("several.json");
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let accepted = Receipt::from_json(&changed).and_then(|receipt| receipt.verify(&genesis));
        assert!(accepted.is_err(), "bit {} of byte {} ({:?})", bit % 8, bit / 8, char::from(good[bit / 8]));
    }
}

#[test]
fn every_case_is_judged_as_it_says() {
    let genesis = Genesis::from_json(&read("genesis.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&read("cases.json")).unwrap();
    let (mut names, mut wrong) = (BTreeSet::new(), Vec::new());
    for case in &cases {
        assert!(names.insert(&case.name), "{}: twice", case.name);
        let content = case.content(&read(&case.base));
        let judged = Receipt::from_json(&content).and_then(|receipt| receipt.verify(&genesis));
        let step = judged.as_ref().err().map(|error| error.step.name().to_owned());
        if step != case.step || judged.is_ok() != case.verifies {
            let judged = judged.map_or_else(|error| error.to_string(), |_| "it verifies".into());
            wrong.push(format!("{}: expected {:?}: {judged}", case.name, case.step));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.iter().filter(|case| case.verifies).count() > 5, "some verify");
    // Each field is broken in the form of the file and in what it says, and each step stops something.
    for field in chain::FIELDS {
        let about = |case: &&Case| case.name.starts_with(&format!("{field}: ")) && !case.verifies;
        assert!(cases.iter().filter(about).count() > 2, "{field}");
    }
    let steps: BTreeSet<_> = cases.iter().filter_map(|case| case.step.as_deref()).collect();
    assert_eq!(steps.into_iter().collect::<Vec<_>>(), chain::STEPS);
}

//! The verifiers in other languages (`docs/verifiers`) against this crate: the same verdict, file by file.
//!
//! Each runs as a process of its own over every golden receipt and state proof, valid and broken, and over valid ones with
//! a bit flipped. A file that verifies must be described in the same words; of one that does not, the same step must be
//! named. A language whose tool or package is missing is left out, and a line on standard error says so. Nothing is
//! written but into the target folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::type_complexity)]

mod hostile;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use cairn_proof::digest::sha256;
use cairn_proof::genesis::Genesis;
use cairn_proof::receipt::{Receipt, Verified};
use cairn_proof::state_proof::{Proven, StateProof};

use hostile::Hostile;
use hostile::chains::Chain;

/// What a verifier says about a file: the lines that it prints, or the step that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Verified(Vec<String>),
    Refused(String),
}

/// A file to verify against a genesis, and what this crate says about it.
struct Case {
    name: String,
    bytes: Vec<u8>,
    genesis: PathBuf,
    verdict: Verdict,
}

fn describe_receipt(verified: &Verified) -> Vec<String> {
    let mut lines: Vec<_> =
        verified.steps.iter().map(|step| format!("ok  {:<12} {}", step.name.name(), step.detail)).collect();
    let (record, header) = (&verified.record, &verified.header);
    let place = format!("{} partition {} offset {}", verified.anchor.stream, record.partition, record.offset);
    lines.push(format!(
        "VERIFIED: the record at {place} is final in chain {} at height {}",
        header.chain_id, header.height
    ));
    lines
}

fn describe_state_proof(proof: &StateProof, proven: &Proven) -> Vec<String> {
    let header = &proven.header;
    let kind = serde_json::to_value(&proven.subject).unwrap()["kind"].as_str().unwrap().to_owned();
    let value = proven.value.as_ref().map(|value| sha256(&[value]));
    let found = value.map_or("nothing".to_owned(), |hash| format!("value {hash}"));
    let verb = if value.is_some() { "is" } else { "is not" };
    let (steps, root, key) = (proof.path.len(), header.state_root, proven.subject.key());
    let (changes, of) = (proof.committees.len(), proven.signed.1);
    let walked = match changes {
        0 => format!("the {of} validators of the genesis"),
        _ => format!("{changes} changes since the genesis lead to {of} validators"),
    };
    vec![
        format!("ok  committees   {walked}"),
        format!("ok  header       chain {}, height {}, digest {}", header.chain_id, header.height, header.digest()),
        format!("ok  certificate  {} of {of} validators signed", proven.signed.0),
        format!("ok  state        {steps} steps lead to {found} in root {root}"),
        format!(
            "VERIFIED: the {kind} with key {key} {verb} in the state of chain {} at height {}",
            header.chain_id, header.height
        ),
    ]
}

/// What this crate says.
fn verdict(bytes: &[u8], genesis: &Genesis) -> Verdict {
    if bytes.starts_with(b"{\n  \"format\": \"cairn/state-proof/v1\"") {
        let proven = StateProof::from_json(bytes).and_then(|proof| Ok((proof.verify(genesis)?, proof)));
        return match proven {
            Ok((proven, proof)) => Verdict::Verified(describe_state_proof(&proof, &proven)),
            Err(error) => Verdict::Refused(error.step.to_owned()),
        };
    }
    match Receipt::from_json(bytes).and_then(|receipt| receipt.verify(genesis)) {
        Ok(verified) => Verdict::Verified(describe_receipt(&verified)),
        Err(error) => Verdict::Refused(error.step.name().to_owned()),
    }
}

/// What a verifier printed about each file, by the file's name in front of each line.
fn verdicts(printed: &str, files: &[PathBuf]) -> BTreeMap<PathBuf, Verdict> {
    let mut lines: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
    for line in printed.split_terminator('\n') {
        let (file, line) = line.split_once(": ").unwrap_or_else(|| panic!("a line without its file: {line:?}"));
        lines.entry(Path::new(file)).or_default().push(line.to_owned());
    }
    let verdict = |file: &PathBuf| {
        let lines = lines.get(file.as_path()).unwrap_or_else(|| panic!("nothing was said about {}", file.display()));
        let refused = lines[0].strip_prefix("DOES NOT VERIFY: step ");
        let verdict = match refused {
            Some(reason) => Verdict::Refused(reason.split(':').next().unwrap().to_owned()),
            None => Verdict::Verified(lines.clone()),
        };
        (file.clone(), verdict)
    };
    files.iter().map(verdict).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A folder of this test alone, in the target folder.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verifiers").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn skip(language: &str, why: &str) {
    // Not by a macro: a test's own output is shown of failed tests only.
    let line = format!("SKIPPED: the {language} verifier is not tested: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a tool; says why it cannot be used when it is missing or fails.
fn tool(command: &mut Command) -> Result<String, String> {
    match command.output() {
        Err(error) => Err(format!("{}: {error}", command.get_program().to_string_lossy())),
        Ok(output) if output.status.success() => Ok(text(&output.stdout).trim().to_owned()),
        Ok(output) => Err(format!("{command:?}: {}\n{}", output.status, text(&output.stderr))),
    }
}

/// How a language's verifier is called.
type Verifier = Vec<PathBuf>;

fn javascript() -> Result<Verifier, String> {
    let version = tool(Command::new("node").arg("--version"))?;
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 20) {
        return Err(format!("Node 20 or later is needed, found {version}"));
    }
    Ok(vec!["node".into(), root().join("docs/verifiers/javascript/cli.mjs")])
}

fn python() -> Result<Verifier, String> {
    let setup = root().join("docs/verifiers/setup.sh");
    let python = tool(Command::new("sh").arg(setup).arg(folder("python")))?;
    Ok(vec![python.into(), root().join("docs/verifiers/python/verify.py")])
}

fn go() -> Result<Verifier, String> {
    let binary = folder("go").join("cairn-verify");
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&binary).arg(".").current_dir(root().join("docs/verifiers/go"));
    build.env("GOCACHE", folder("go-cache")).env("GOPATH", folder("go-path")).env("GOFLAGS", "-mod=readonly");
    build.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("GOENV", "off");
    tool(Command::new("go").arg("version"))?;
    // With the tool at hand, a program that does not build is a failure and not a skip.
    let built = build.output().unwrap();
    assert!(built.status.success(), "the Go verifier does not build:\n{}", text(&built.stderr));
    Ok(vec![binary])
}

fn run(verifier: &Verifier, arguments: &[PathBuf]) -> Output {
    let mut command = Command::new(&verifier[0]);
    command.args(&verifier[1..]).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap()
}

/// Compares a language's verdicts with this crate's, one by one.
fn compare(language: &str, verifier: &Verifier) {
    let (here, mut wrong) = (folder(&format!("cases-{language}")), vec![]);
    let mut chains: BTreeMap<&Path, Vec<(PathBuf, &Case)>> = BTreeMap::new();
    for (place, case) in cases().iter().enumerate() {
        let file = here.join(format!("{place}.json"));
        std::fs::write(&file, &case.bytes).unwrap();
        chains.entry(&case.genesis).or_default().push((file, case));
    }
    for (genesis, cases) in chains {
        let files: Vec<_> = cases.iter().map(|(file, _)| file.clone()).collect();
        let output = run(verifier, &[files.clone(), vec!["--genesis".into(), genesis.into()]].concat());
        assert!(output.stderr.is_empty() || output.status.code() == Some(3), "{language}: {}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "some of the files do not verify");
        let said = verdicts(&text(&output.stdout), &files);
        for (file, case) in cases {
            if said[&file] != case.verdict {
                wrong.push(format!("{}:\n  {language}: {:?}\n  here: {:?}", case.name, said[&file], case.verdict));
            }
        }
    }
    std::fs::remove_dir_all(&here).unwrap();
    assert!(wrong.is_empty(), "{} verdicts differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Files that are made here, and the genesis that they are verified against.
fn hostile_cases() -> Vec<Case> {
    let genesis = hostile::genesis();
    let file = folder("hostile").join("genesis.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&genesis).unwrap()).unwrap();
    hostile::all()
        .into_iter()
        .map(|hostile| {
            let verdict = verdict(&hostile.bytes, &genesis);
            Case { name: hostile.name, bytes: hostile.bytes, genesis: file.clone(), verdict }
        })
        .collect()
}

/// One line of `cases.json`: a golden receipt with some bytes taken out and others put in.
#[derive(serde::Deserialize)]
struct Golden {
    name: String,
    base: String,
    verifies: bool,
    at: usize,
    remove: usize,
    insert: String,
}

/// The golden receipts, valid and broken, and some of them with bits flipped.
fn golden_cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/receipts");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let file = folder.join("genesis.json");
    let genesis = Genesis::from_json(&read("genesis.json")).unwrap();
    let golden: Vec<Golden> = serde_json::from_slice(&read("cases.json")).unwrap();
    let mut cases = vec![];
    for golden in golden {
        let base = read(&golden.base);
        let bytes = [&base[..golden.at], golden.insert.as_bytes(), &base[golden.at + golden.remove..]].concat();
        let verdict = verdict(&bytes, &genesis);
        assert_eq!(golden.verifies, matches!(verdict, Verdict::Verified(_)), "{}", golden.name);
        cases.push(Case { name: golden.name, bytes, genesis: file.clone(), verdict });
    }
    for (name, step) in [("change.json", 11), ("checkpoint.json", 11), ("one.json", 5)] {
        cases.extend(flipped(name, &read(name), step, &genesis, &file));
    }
    cases
}

/// The golden state proofs, as they are and with bits flipped.
fn golden_state_proofs() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let file = folder.join("city.json");
    let genesis = Genesis::from_json(&read("city.json")).unwrap();
    let mut cases = vec![];
    for name in ["state-proof-present.json", "state-proof-absent.json"] {
        let bytes = read(name);
        let verdict = verdict(&bytes, &genesis);
        assert!(matches!(verdict, Verdict::Verified(_)), "{name}: {verdict:?}");
        cases.extend(flipped(name, &bytes, 7, &genesis, &file));
        cases.push(Case { name: name.into(), bytes, genesis: file.clone(), verdict });
    }
    cases
}

/// The file with one bit flipped in each `step`th byte.
fn flipped(name: &str, bytes: &[u8], step: usize, genesis: &Genesis, file: &Path) -> Vec<Case> {
    let flip = |at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let verdict = verdict(&bytes, genesis);
        Case { name: format!("{name}: bit {} of byte {at} flipped", at % 8), bytes, genesis: file.to_owned(), verdict }
    };
    (0..bytes.len()).step_by(step).map(flip).collect()
}

/// The receipts of the chains whose geneses are at the ends of what they may hold.
fn chain_cases() -> Vec<Case> {
    let folder = folder("chains");
    let chains = hostile::chains::all().into_iter().enumerate();
    let cases = |(place, chain): (usize, Chain)| {
        let genesis = folder.join(format!("{place}.json"));
        std::fs::write(&genesis, &chain.file).unwrap();
        let verdict = verdict(&chain.receipt.bytes, &chain.genesis);
        assert!(matches!(verdict, Verdict::Verified(_)), "{}: {verdict:?}", chain.name);
        let Hostile { name, bytes, .. } = chain.receipt;
        let mut cases = flipped(&name, &bytes, 400, &chain.genesis, &genesis);
        cases.push(Case { name, bytes, genesis, verdict });
        cases
    };
    chains.flat_map(cases).collect()
}

/// All files, judged here once for all languages.
fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        [golden_cases(), golden_state_proofs(), hostile_cases(), chain_cases()].into_iter().flatten().collect()
    })
}

#[test]
fn each_hostile_file_is_what_it_is_expected_to_be() {
    let genesis = hostile::genesis();
    let judged = |case: &Hostile| match verdict(&case.bytes, &genesis) {
        Verdict::Verified(_) => None,
        Verdict::Refused(step) => Some(step),
    };
    let mut wrong = vec![];
    for case in hostile::all() {
        let (found, expected) = (judged(&case), case.expected.step());
        if found.as_deref() != expected {
            wrong.push(format!("{}: expected {expected:?}, found {found:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn javascript_says_the_same() {
    match javascript() {
        Ok(verifier) => {
            exit_codes(&verifier);
            wrong_geneses(&verifier);
            compare("javascript", &verifier);
        }
        Err(why) => skip("JavaScript", &why),
    }
}

#[test]
fn python_says_the_same() {
    match python() {
        Ok(verifier) => {
            exit_codes(&verifier);
            wrong_geneses(&verifier);
            compare("python", &verifier);
        }
        Err(why) => skip("Python", &why),
    }
}

#[test]
fn go_says_the_same() {
    match go() {
        Ok(verifier) => {
            exit_codes(&verifier);
            wrong_geneses(&verifier);
            compare("go", &verifier);
        }
        Err(why) => skip("Go", &why),
    }
}

/// Runs on one file or none: exit codes, and what goes to which output.
fn exit_codes(verifier: &Verifier) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/receipts");
    let (receipt, genesis) = (golden.join("one.json"), golden.join("genesis.json"));
    let option = PathBuf::from("--genesis");
    let code = |arguments: &[&PathBuf]| {
        let output = run(verifier, &arguments.iter().map(|argument| (*argument).clone()).collect::<Vec<_>>());
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (ok, said, _) = code(&[&receipt, &option, &genesis]);
    let (first, last) = (said.lines().next().unwrap(), said.lines().last().unwrap());
    assert!(ok == 0 && first.starts_with("ok  record  ") && last.starts_with("VERIFIED: "), "{ok}: {said}");
    assert_eq!(code(&[&option, &genesis, &receipt]).0, 0, "the option may come first");
    let (refused, said, _) = code(&[&genesis, &option, &genesis]);
    assert!(refused == 3 && said.starts_with("DOES NOT VERIFY: step form: "), "{refused}: {said}");
    let missing = golden.join("missing.json");
    for arguments in
        [&[&missing, &option, &genesis][..], &[&receipt, &option, &missing], &[&receipt, &option, &receipt]]
    {
        let (failed, said, error) = code(arguments);
        assert!(failed == 1 && said.is_empty() && error.starts_with("error: "), "{failed}: {said}{error}");
    }
    let other = PathBuf::from("--help");
    for arguments in
        [&[][..], &[&receipt], &[&receipt, &option], &[&option, &genesis], &[&receipt, &other, &option, &genesis]]
    {
        let (usage, said, error) = code(arguments);
        assert!(usage == 2 && said.is_empty() && error.starts_with("usage: "), "{usage}: {said}{error}");
    }
}

/// A genesis that a node refuses is refused by a verifier too, as another failure than that of a receipt.
fn wrong_geneses(verifier: &Verifier) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/receipts");
    let right: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden.join("genesis.json")).unwrap()).unwrap();
    let file = folder("geneses").join(format!("{:?}.json", std::thread::current().id()));
    let small = format!("01{}", "00".repeat(31));
    let edits: Vec<(&str, serde_json::Value)> = vec![
        ("/format", "cairn/genesis/v1".into()),
        ("/chain_id", 7.into()),
        ("/timestamp_ms", (-1).into()),
        ("/timestamp_ms", 0.5.into()),
        ("/timestamp_ms", "0".into()),
        ("/validators", serde_json::json!([])),
        ("/validators", serde_json::Value::Null),
        ("/validators/1", right["validators"][0].clone()),
        ("/validators/0/name", 7.into()),
        ("/validators/0/address", serde_json::Value::Null),
        ("/validators/0/public_key", small.into()),
        ("/validators/0/public_key", right["validators"][0]["public_key"].as_str().unwrap().to_uppercase().into()),
        ("/validators/0/comment", "".into()),
        ("/identities/0/kind", "robot".into()),
        ("/identities/0/kind", 1.into()),
        ("/parameters/epoch_blocks", 1.into()),
        ("/parameters/epoch_blocks", 0.into()),
        ("/parameters/epoch_blocks", "10".into()),
        ("/parameters/vote_epochs", serde_json::Value::Null),
        ("/parameters/comment", 1.into()),
        ("/comment", "".into()),
        ("/identities", serde_json::Value::Null),
        ("/parameters", serde_json::Value::Null),
        ("/validators/0", serde_json::json!({"name": "v", "public_key": right["validators"][0]["public_key"]})),
    ];
    for (place, value) in edits {
        let mut wrong = right.clone();
        let (above, name) = place.rsplit_once('/').unwrap();
        match wrong.pointer_mut(above).unwrap() {
            serde_json::Value::Array(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
            object => object[name] = value.clone(),
        }
        let bytes = serde_json::to_vec(&wrong).unwrap();
        assert!(Genesis::from_json(&bytes).is_err(), "{place}: {value}");
        std::fs::write(&file, &bytes).unwrap();
        let output = run(verifier, &[golden.join("one.json"), "--genesis".into(), file.clone()]);
        assert_eq!(output.status.code(), Some(1), "{place}: {value}: {}", text(&output.stdout));
    }
}

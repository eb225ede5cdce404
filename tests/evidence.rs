//! Evidence of an answer, end to end: a node signs what it answers over real anchored records, the file verifies with the
//! genesis alone, and the statement gives the same again; a changed file is refused, and so are changed segments.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use cairn_proof::Base64Bytes;
use cairn_proof::answer::SignedAnswer;
use cairn_proof::answer::file::AnswerEvidence;
use cairn_proof::identity::SigningKey;
use common::streams::{STREAM, csv, register};
use common::{Network, cairn, describe, run};
use tokio_postgres::NoTls;

/// The signing key in a file of the network.
fn key(network: &Network, name: &str) -> SigningKey {
    let text = std::fs::read_to_string(network.dir().join(format!("keys/{name}.key"))).unwrap();
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).unwrap();
    SigningKey::from_seed(&seed)
}

fn read(file: &Path) -> AnswerEvidence {
    AnswerEvidence::from_json(&std::fs::read(file).unwrap()).unwrap()
}

fn verify(network: &Network, file: &Path) -> Output {
    let genesis = network.dir().join("genesis.json");
    cairn().arg("verify").arg(file).arg("--genesis").arg(genesis).output().unwrap()
}

fn replay(network: &Network, file: &Path) -> Output {
    cairn().arg("replay").arg(file).arg("--dir").arg(network.dir()).output().unwrap()
}

/// It must end with 3, and say why.
fn refused(output: &Output, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(3), "{}", describe(output));
    let said = String::from_utf8_lossy(&output.stdout);
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
}

fn evidence(network: &Network, name: &str, arguments: &[&str]) -> PathBuf {
    let file = network.scratch(name);
    run(network.command("sql").arg("--evidence").arg(&file).args(arguments));
    file
}

#[test]
fn an_answer_is_signed_verified_offline_and_replayed() {
    let network = Network::new(false);
    let mut up = network.up();
    register(&network, "avro");
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(&network, 0..2000)));
    network.wait_anchored(60);
    let totals =
        format!("SELECT sensor, count(*) AS n, avg(value) AS mean FROM {STREAM} GROUP BY sensor ORDER BY sensor");
    let file = evidence(&network, "totals.json", &[&totals]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);

    // More records come; the evidence is of its height, and so is the replay.
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(&network, 2000..2500)));
    network.wait_anchored(60);
    let output = verify(&network, &file);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", describe(&output));
    for part in [
        "ok  form",
        "ok  answer",
        "ok  signer       the genesis names it query",
        "ok  headers",
        "ok  committees",
        "ok  certificate",
        &totals,
        "rows         97 in 3 columns",
        "VERIFIED",
    ] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    let output = replay(&network, &file);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("REPLAYED: the same 97 rows"), "{}", describe(&output));
    assert!(said.contains("equal    rows root") && !said.contains("DIFFERS"), "{said}");
    // What a limit takes, in no order, at a height that the client names.
    let height = network.status()["height"].as_u64().unwrap().to_string();
    let file = evidence(&network, "some.json", &["--as-of", &height, &format!("SELECT * FROM {STREAM} LIMIT 50")]);
    assert!(replay(&network, &file).status.success());

    changed_files_are_refused(&network);
    nothing_on_the_chain_has_no_evidence(&network);
    prepared_statements_are_replayed(&network);
    what_the_key_may_lie_about_shows_in_a_replay(&network);
    changed_segments_are_refused(&network);
    up.kill();
    let keys = network.dir().join("keys/query.key");
    std::fs::rename(&keys, network.scratch("query.key")).unwrap();
    events_go_to_a_file(&network);
    let mut up = network.up();
    let output = network.command("sql").arg("--evidence").arg(network.scratch("none")).arg(&totals).output().unwrap();
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no key to sign answers with") && said.contains("cairn identity add"), "{said}");
    run(network.command("sql").arg(&totals));
    up.terminate(Duration::from_secs(30));
    events_were_written(&network, &totals);
}

/// Tells the query role to write OpenLineage events.
fn events_go_to_a_file(network: &Network) {
    let file = network.dir().join("cairn.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str("\n[query.openlineage]\nfile = \"lineage.ndjson\"\n");
    std::fs::write(file, text).unwrap();
}

/// What was asked is told, to its end, in a file that nobody else may read.
fn events_were_written(network: &Network, sql: &str) {
    let file = network.dir().join("lineage.ndjson");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(file).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["eventType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["START", "COMPLETE"]);
    assert_eq!(events[1]["job"]["facets"]["sql"]["query"], sql);
    assert_eq!(
        (&events[1]["inputs"][0]["namespace"], &events[1]["inputs"][0]["name"]),
        (&"cairn://test".into(), &STREAM.into())
    );
}

/// Every other byte than those that were signed is refused, by name of the step.
fn changed_files_are_refused(network: &Network) {
    let good = read(&network.scratch("totals.json"));
    let write = |name: &str, evidence: &AnswerEvidence| {
        let file = network.scratch(name);
        std::fs::write(&file, evidence.to_json().unwrap()).unwrap();
        file
    };
    // Whoever changes the count, the root or the statement cannot sign it with the node's key.
    let genesis = cairn_proof::genesis::Genesis::from_json(&std::fs::read(network.dir().join("genesis.json")).unwrap());
    let tag = genesis.unwrap().tag();
    let answer = SignedAnswer::decode(&good.answer.0).unwrap().into_answer();
    let forger = SigningKey::from_seed(&[99; 32]);
    let mut count = answer.clone();
    count.rows += 1;
    let mut root = answer.clone();
    root.rows_root.0[0] ^= 1;
    let mut statement = answer.clone();
    statement.statement.push_str(" LIMIT 1");
    for (name, changed) in [("count", count), ("root", root), ("statement", statement)] {
        let signed = Base64Bytes(changed.sign(&forger, &tag).unwrap());
        let kept = AnswerEvidence { answer: signed.clone(), ..good.clone() };
        refused(&verify(network, &write(name, &kept)), &["DOES NOT VERIFY", "step answer"]);
        let own = AnswerEvidence { answer: signed, signer: forger.public(), ..good.clone() };
        refused(&verify(network, &write(name, &own)), &["step signer", "--node-key"]);
        refused(&replay(network, &write(name, &own)), &["DOES NOT VERIFY", "step signer"]);
    }
    let mut bytes = std::fs::read(network.scratch("totals.json")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(network.scratch("flipped"), bytes).unwrap();
    refused(&verify(network, &network.scratch("flipped")), &["DOES NOT VERIFY"]);
}

fn nothing_on_the_chain_has_no_evidence(network: &Network) {
    let output =
        network.command("sql").arg("--evidence").arg(network.scratch("none")).arg("SELECT 1").output().unwrap();
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("only a SELECT over streams"), "{said}");
    assert!(!network.scratch("none").exists());
}

/// Through a driver, with parameters of several types.
fn prepared_statements_are_replayed(network: &Network) {
    let text = std::fs::read_to_string(network.dir().join("cairn.toml")).unwrap();
    let config: toml::Table = text.parse().unwrap();
    let port = config["query"]["postgres"]["port"].as_integer().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let file = runtime.block_on(async {
        let options = format!("host=127.0.0.1 port={port} user=a dbname=cairn");
        let (client, connection) = tokio_postgres::connect(&options, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("SET cairn.evidence = on; SET timezone = 'Europe/Berlin'").await.unwrap();
        let sql = format!("SELECT n, at, note FROM {STREAM} WHERE n < $1 AND sensor <> $2 AND value > $3 ORDER BY n");
        let rows = client.query(&sql, &[&40_i64, &"it's no sensor", &3.25_f64]).await.unwrap();
        assert!(!rows.is_empty());
        client.query_one("SELECT cairn_evidence('last')", &[]).await.unwrap().get::<_, String>(0)
    });
    let path = network.scratch("prepared.json");
    std::fs::write(&path, file).unwrap();
    let output = verify(network, &path);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("parameter    $2 text it's no sensor") && said.contains("Europe/Berlin"), "{said}");
    let output = replay(network, &path);
    assert!(output.status.success(), "{}", describe(&output));
}

/// The node's key can sign what is not so. Then the file verifies, and the replay says that it is not so.
fn what_the_key_may_lie_about_shows_in_a_replay(network: &Network) {
    let good = read(&network.scratch("totals.json"));
    let genesis = cairn_proof::genesis::Genesis::from_json(&std::fs::read(network.dir().join("genesis.json")).unwrap());
    let mut answer = SignedAnswer::decode(&good.answer.0).unwrap().into_answer();
    answer.rows_root.0[3] ^= 1;
    let signed = answer.sign(&key(network, "query"), &genesis.unwrap().tag()).unwrap();
    let file = network.scratch("lie.json");
    let lie = AnswerEvidence { answer: Base64Bytes(signed), ..good };
    std::fs::write(&file, lie.to_json().unwrap()).unwrap();
    assert!(verify(network, &file).status.success());
    refused(&replay(network, &file), &["DIFFERS  rows root", "DOES NOT REPLAY: the rows are others"]);
}

/// One bit of one of the segments that the answer was computed from.
fn changed_segments_are_refused(network: &Network) {
    let good = SignedAnswer::decode(&read(&network.scratch("totals.json")).answer.0).unwrap().into_answer();
    let segment = good.segments.iter().find(|segment| segment.bytes_verified > 0).unwrap();
    let file = network.dir().join("objects").join(&segment.path);
    let sound = std::fs::read(&file).unwrap();
    let mut altered = sound.clone();
    altered[sound.len() / 3] ^= 1;
    std::fs::write(&file, altered).unwrap();
    let output = replay(network, &network.scratch("totals.json"));
    refused(&output, &["DOES NOT REPLAY: what is stored does not verify", STREAM]);
    assert!(verify(network, &network.scratch("totals.json")).status.success(), "the evidence itself still stands");
    std::fs::write(&file, sound).unwrap();
    assert!(replay(network, &network.scratch("totals.json")).status.success());
}

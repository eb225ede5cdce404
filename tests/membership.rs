//! Who may take part: identities that are revoked, keys that are rotated, one validator's key in two processes, and votes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::time::Duration;

use common::chain::{json, validators, wait_until};
use common::streams::{STREAM, csv, register};
use common::{Network, cairn, describe, run};

fn publish(network: &Network, numbers: std::ops::Range<u64>) {
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(network, numbers)));
}

fn anchored(network: &Network) -> u64 {
    network.status()["partitions"].as_array().unwrap().iter().map(|p| p["records"].as_u64().unwrap()).sum()
}

#[test]
fn a_revoked_key_anchors_nothing_more_and_its_receipts_stay_valid() {
    let network = Network::new(false);
    let mut up = network.up();
    register(&network, "avro");
    publish(&network, 0..1_000);
    network.wait_anchored(60);
    let receipt = network.scratch("receipt.json");
    let place = ["--stream", STREAM, "--partition", "1", "--offset", "3", "--out"];
    run(network.command("prove").args(place).arg(&receipt));
    let genesis = network.dir().join("genesis.json");
    let verifies = || {
        let said = run(cairn().arg("verify").arg(&receipt).arg("--genesis").arg(&genesis));
        assert!(said.contains("VERIFIED"), "{said}");
    };
    verifies();

    // The genesis' identities have no controller: they revoke themselves.
    let revoke = ["--reason", "key lost", "--controller-key", "ingest", "ingest"];
    run(network.command_at(&["identity", "revoke"]).args(revoke));
    publish(&network, 1_000..2_000);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(anchored(&network), 1_000, "nothing is anchored by a revoked key");
    verifies();
    let rows = network.sql("SELECT status, revoked FROM cairn.identities WHERE name = 'ingest'");
    assert_eq!(rows[0]["status"], "revoked");

    // Another identity takes over, by the owner's grant.
    run(network.command_at(&["identity", "add"]).args(["--kind", "node", "--name", "ingest-2"]));
    let grant = ["--identity", "ingest-2", "--role", "anchorer", STREAM];
    run(network.command_at(&["stream", "grant"]).args(grant));
    up.terminate(Duration::from_secs(60));
    let keys = network.dir().join("keys");
    std::fs::rename(keys.join("ingest.key"), keys.join("ingest-lost.key")).unwrap();
    std::fs::rename(keys.join("ingest-2.key"), keys.join("ingest.key")).unwrap();
    let _up = network.up();
    network.wait_anchored(120);
    assert_eq!(anchored(&network), 2_000);
    network.audit_is_clean();
    verifies();
}

#[test]
fn identities_are_registered_in_masses_rotated_expired_and_proven() {
    let network = Network::new(false);
    let _nodes = validators(&network, 4);
    let meters = network.scratch("meters");
    let add = |arguments: &[&str]| {
        let mut command = network.command_at(&["identity", "add"]);
        run(command.args(["--kind", "device", "--keys"]).arg(&meters).args(arguments))
    };
    let said = add(&["--make", "300", "--prefix", "meter-"]);
    assert!(said.contains("300 keys made, 300 identities registered"), "{said}");
    let said = add(&[]);
    assert!(said.contains("0 identities registered, 300 were registered already"), "{said}");
    let devices = json(network.command_at(&["identity", "list"]).args(["--kind", "device"]));
    assert_eq!(devices.len(), 300);
    let device = &devices[7];
    let (name, did) = (device["name"].as_str().unwrap(), device["did"].as_str().unwrap());
    assert!(did.starts_with("did:key:z6Mk"), "{did}");

    run(network.command_at(&["identity", "expire"]).args([did, "--at", "2020-01-01"]));
    let shown = json(network.command_at(&["identity", "show"]).arg(name));
    assert_eq!((&shown[0]["status"], &shown[0]["did"]), (&"expired".into(), &did.into()));
    run(network.command_at(&["identity", "rotate"]).args([name, "--key", "replaced"]));
    let shown = json(network.command_at(&["identity", "show"]).arg(did));
    assert_eq!(shown[0]["rotated"], true, "the did of the first key still names it: {shown:?}");

    // Its entry is in the state, and a key that nobody registered is not: both verify offline.
    let genesis = network.dir().join("genesis.json");
    let proof = network.scratch("proof.json");
    let nobody = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
    for what in [&["--identity", did][..], &["--key", nobody, "--absent"], &["--parameters"], &["--committee"]] {
        run(network.command("prove").args(what).arg("--out").arg(&proof));
        let said = run(cairn().arg("verify").arg(&proof).arg("--genesis").arg(&genesis));
        assert!(said.contains("VERIFIED"), "{said}");
        let mut bytes = std::fs::read(&proof).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&proof, bytes).unwrap();
        let output = cairn().arg("verify").arg(&proof).arg("--genesis").arg(&genesis).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", describe(&output));
    }
    let output = network.command("prove").args(["--key", nobody, "--out"]).arg(&proof).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(describe(&output).contains("--absent"), "{}", describe(&output));
}

#[test]
fn votes_are_counted_and_parameters_change_at_the_end_of_an_epoch() {
    let network = Network::with(&["--heartbeat-ms", "500", "--epoch-blocks", "8", "--absence-epochs", "0"]);
    let _nodes = validators(&network, 4);
    let vote = |voters: &str| {
        let arguments = ["--heartbeat-ms", "400", "--as", voters];
        run(network.command_at(&["vote", "set-parameters"]).args(arguments))
    };
    let said = vote("validator-0,validator-1");
    assert!(said.contains("2 of 3 votes"), "{said}");
    let open = json(&mut network.command_at(&["vote", "list"]));
    assert_eq!((open.len(), &open[0]["missing"]), (1, &1.into()), "{open:?}");
    assert_eq!(open[0]["voted"], serde_json::json!(["validator-0", "validator-1"]));
    let said = vote("all");
    assert!(said.contains("voted for it before") && said.contains("passed at height"), "{said}");
    assert!(said.contains("no vote needed"), "three of four are enough: {said}");
    wait_until("the new heartbeat", || {
        let rows = json(&mut network.command("parameters"));
        rows.iter().any(|row| row["parameter"] == "heartbeat_ms" && row["now"] == 400)
    });
    let validators = json(&mut network.command_at(&["validator", "list"]));
    assert_eq!(validators.len(), 4);
    let made: u64 = validators.iter().map(|row| row["proposals_made"].as_u64().unwrap()).sum();
    assert!(made >= 7, "{validators:?}");

    // A parameter out of its range, a stranger's vote, and a key in the wrong place are answered before anything is sent.
    let fails = |arguments: &[&str], said: &str| {
        let output = network.command_at(&["vote", "set-parameters"]).args(arguments).output().unwrap();
        let text = describe(&output);
        assert!(!output.status.success() && text.contains(said), "{arguments:?}: {text}");
    };
    fails(&["--heartbeat-ms", "1", "--as", "all"], "50 to 60000");
    fails(&["--heartbeat-ms", "900"], "--as all");
    fails(&["--heartbeat-ms", "900", "--as", "owner"], "only a validator");
    fails(&["--heartbeat-ms", "900", "--as", "nobody"], "nobody.key");
}

#[test]
fn a_second_process_on_a_validators_folder_refuses_to_start() {
    let network = Network::new(false);
    let _nodes = validators(&network, 4);
    let output = network.command("node").args(["--index", "0"]).output().unwrap();
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another validator process uses it") && said.contains("data/validator-0"), "{said}");
}

//! Wrong flags, files, keys and ports: each is answered with what is right, and with the documented exit code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use common::{Network, cairn, describe, run};

/// Runs a command that must fail with `code` and say each of `said`.
fn fails(command: &mut std::process::Command, code: i32, said: &[&str]) {
    let output = command.output().unwrap();
    let text = describe(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    for part in said {
        assert!(text.contains(part), "{command:?} does not say {part:?}: {text}");
    }
}

#[test]
fn a_wrong_flag_is_answered_with_the_right_one() {
    fails(cairn().args(["sql", "--formt", "json", "SELECT 1"]), 2, &["--format"]);
    fails(cairn().args(["sql", "--format", "yaml", "SELECT 1"]), 2, &["table, csv, json"]);
    fails(cairn().args(["publsh"]), 2, &["publish"]);
    let help = run(cairn().args(["publish", "--help"]));
    assert!(help.contains("Examples:") && help.contains("--skip-bad"), "{help}");
}

#[test]
fn a_folder_that_is_none_names_init() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["up", "status", "audit"] {
        fails(cairn().arg(name).arg("--dir").arg(folder.path()), 1, &["not a Cairn folder", "cairn init"]);
    }
}

#[test]
fn a_wrong_key_in_the_configuration_is_named() {
    let network = Network::new(false);
    let file = network.dir().join("cairn.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("chain_id =", "chain_ident =")).unwrap();
    fails(&mut network.command("status"), 1, &["chain_ident", "chain_id"]);
    std::fs::write(&file, format!("{good}\n[[peers]]\npublic_key = \"00\"\naddress = \"x\"\n")).unwrap();
    fails(&mut network.command("status"), 1, &["public_key"]);
    std::fs::write(&file, good.replacen("name = \"validator-0\"", "name = \"../0\"", 1)).unwrap();
    fails(&mut network.command("status"), 1, &["../0", "A–Z"]);
    std::fs::write(&file, good).unwrap();
    fails(network.command("node").args(["--index", "9"]), 1, &["--index 9", "0 to 3"]);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let network = Network::new(false);
    let key = network.dir().join("keys/validator-0.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    fails(network.command("node").args(["--index", "0"]), 1, &["validator-0.key", "0644", "chmod 600"]);
    assert_eq!(std::fs::metadata(network.dir().join("keys/owner.key")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_port_in_use_names_role_port_and_what_to_change() {
    let network = Network::new(false);
    let text = std::fs::read_to_string(network.dir().join("cairn.toml")).unwrap();
    let address =
        text.lines().find_map(|line| line.strip_prefix("api_listen = ")).unwrap().trim_matches('"').to_owned();
    let port = address.rsplit(':').next().unwrap().to_owned();
    let _taken = TcpListener::bind(&address).unwrap();
    fails(network.command("node").args(["--index", "0"]), 1, &["HTTP API", &port, "api_listen"]);
}

#[test]
fn a_network_is_never_overwritten() {
    let network = Network::new(false);
    fails(cairn().args(["init", "--dir"]).arg(network.dir()), 1, &["holds a network already", "--dir"]);
    fails(cairn().args(["init", "--validators", "0", "--dir"]).arg(network.scratch("x")), 2, &["1..=64"]);
    fails(cairn().args(["init", "--chain-id", "A B", "--dir"]).arg(network.scratch("y")), 1, &["chain_id", "a–z"]);
}

#[test]
fn a_receipt_that_is_none_exits_with_3_and_a_missing_file_with_1() {
    let network = Network::new(false);
    let genesis = network.dir().join("genesis.json");
    let file = network.scratch("receipt.json");
    fails(cairn().arg("verify").arg(&file).arg("--genesis").arg(&genesis), 1, &["cannot be read"]);
    std::fs::write(&file, "{}").unwrap();
    fails(cairn().arg("verify").arg(&file).arg("--genesis").arg(&genesis), 3, &["DOES NOT VERIFY: step form"]);
    fails(cairn().arg("verify").arg(&file).arg("--genesis").arg(&file), 1, &["genesis"]);
}

#[test]
fn a_stream_definition_that_is_wrong_is_refused_before_anything_is_sent() {
    let network = Network::new(false);
    let file = network.scratch("wrong.toml");
    std::fs::write(&file, "name = \"a.b\"\npartitions = 1\nformat = \"xml\"\nschema = \"a.avsc\"\nkey_fields = []\n")
        .unwrap();
    std::fs::write(network.scratch("a.avsc"), "{\"type\":\"record\",\"name\":\"A\",\"fields\":[]}").unwrap();
    fails(network.command_at(&["stream", "add"]).arg(&file), 1, &["format", "avro, avro-confluent, json"]);
}

#[test]
fn rows_streams_and_statements_that_do_not_fit_are_answered_with_what_does() {
    let network = Network::new(true);
    let _up = network.up();
    let rows = network.scratch("rows.csv");
    std::fs::write(&rows, "detector,speed\n1,2\n").unwrap();
    fails(
        network.command("publish").args(["--stream", "traffic.flow"]).arg(&rows),
        1,
        &["detector", "detector_id", "measured_at"],
    );
    fails(
        network.command("publish").args(["--stream", "traffic.flw"]).arg(&rows),
        1,
        &["traffic.flow", "energy.meter_reading"],
    );
    fails(network.command("sql").arg("SELECT nothing FROM traffic.flow"), 1, &["nothing", "SQLSTATE 42703"]);
    fails(network.command("sql").arg("SELECT * FROM traffic.flo"), 1, &["flo", "SQLSTATE 42P01", "traffic.flow"]);
    fails(network.command("sql").arg("SELEC 1"), 1, &["SQLSTATE 42601"]);
    fails(network.command("sql").arg("DROP TABLE traffic.flow"), 1, &["SQLSTATE"]);
    fails(network.command("sql").args(["--as-of", "99999999", "SELECT 1 FROM traffic.flow"]), 1, &["99999999"]);
    let place = ["--stream", "traffic.flow", "--partition", "0", "--offset", "5", "--out", "-"];
    fails(network.command("prove").args(place), 1, &["offset 5", "not anchored"]);
    fails(network.command("audit").args(["--stream", "no.such"]), 1, &["no.such", "traffic.flow"]);
}

//! A node that starts late from the genesis alone: it has the same state at the same height, answers SQL and proofs, and
//! votes on nothing; validators are killed one after the other meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::sync::Arc;

use common::chain::{Joined, PATIENCE, apis, command, followed, height, json, validators, wait_for_heights};
use common::{Network, Process, cairn, run};

/// Lets the node connect: each validator takes the key up when it starts.
fn admit(network: &Network, joined: &Joined) {
    let file = network.dir().join("cairn.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str(&format!(
        "\n[[observers]]\npublic_key = \"{}\"\naddress = \"{}\"\n",
        joined.public_key, joined.address
    ));
    std::fs::write(file, text).unwrap();
}

fn add_devices(network: &Network, folder: &str, count: &str) {
    let keys = network.scratch(folder);
    let mut add = network.command_at(&["identity", "add"]);
    run(add.args(["--kind", "device", "--make", count, "--prefix", folder, "--keys"]).arg(keys));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_follower_has_the_same_state_and_answers_sql_and_proofs() {
    let network = Arc::new(Network::with(&["--heartbeat-ms", "500", "--epoch-blocks", "10", "--absence-epochs", "0"]));
    let prepared = network.clone();
    let (nodes, joined, follower) = tokio::task::spawn_blocking(move || {
        let mut nodes = validators(&prepared, 4);
        add_devices(&prepared, "first", "40");
        let joined = Joined::new(&prepared, "observer");
        admit(&prepared, &joined);
        let mut follower = joined.start();
        // One after the other is killed and comes back; three are always there.
        for (index, node) in nodes.iter_mut().enumerate() {
            node.kill();
            add_devices(&prepared, &format!("round{index}"), "10");
            *node = prepared.node(index);
        }
        follower.wait_ready(PATIENCE);
        (nodes, joined, follower)
    })
    .await
    .unwrap();
    let validator = apis(&network.dir())[0].clone();
    let goal = height(&validator).await.unwrap() + 5;
    wait_for_heights(&[validator.clone(), joined.api.parse().unwrap()], goal).await;
    let by_validator = followed(&network.dir(), validator).await;
    let by_follower = followed(&joined.dir, joined.api.parse().unwrap()).await;
    let at = usize::try_from(goal).unwrap();
    assert_eq!(by_validator.ledger().blocks()[..=at], by_follower.ledger().blocks()[..=at]);
    assert_eq!(by_follower.ledger().identities().len(), 7 + 40 + 4 * 10);

    tokio::task::spawn_blocking(move || {
        serves(&network, &joined);
        drop((nodes, follower));
    })
    .await
    .unwrap();
}

/// Everything below asks the follower alone.
fn serves(network: &Network, joined: &Joined) {
    let members = json(&mut command(&joined.dir, &["validator", "list"]));
    assert_eq!(members.len(), 4, "a follower is no validator: {members:?}");
    let proof = network.scratch("identity.json");
    run(command(&joined.dir, &["prove"]).args(["--identity", "owner", "--out"]).arg(&proof));
    let said = run(cairn().arg("verify").arg(&proof).arg("--genesis").arg(network.dir().join("genesis.json")));
    assert!(said.contains("VERIFIED"), "{said}");
    let _query = Process::start(&mut command(&joined.dir, &["query"]), PATIENCE);
    let statement = "SELECT count(*) AS devices FROM cairn.identities WHERE kind = 'device'";
    let rows = json(command(&joined.dir, &["sql"]).arg(statement));
    assert_eq!(rows[0]["devices"], 80);
}

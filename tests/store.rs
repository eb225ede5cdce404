//! A validator whose stored blocks are damaged: it says which and what to do, and after that it is back with the same
//! state; it never votes on a history that is lost.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::chain::{apis, followed, height, validators, wait_for_heights};
use common::{Network, describe, files, run};

/// What the last validator stores of blocks, certificates and the way through them: what the documentation names.
fn stored(network: &Network) -> Vec<PathBuf> {
    let storage = network.dir().join("data/validator-3/storage");
    let of_blocks = |path: &PathBuf| {
        let place = path.strip_prefix(&storage).unwrap().to_string_lossy().into_owned();
        ["cairn-blocks", "cairn-finalizations", "cairn-marshal"].iter().any(|prefix| place.starts_with(prefix))
    };
    files(&storage).into_iter().filter(of_blocks).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blocks_are_named_and_the_documented_steps_bring_the_validator_back() {
    let network = Arc::new(Network::with(&["--heartbeat-ms", "500", "--epoch-blocks", "10", "--absence-epochs", "0"]));
    let prepared = network.clone();
    let nodes = tokio::task::spawn_blocking(move || {
        let nodes = validators(&prepared, 4);
        let mut add = prepared.command_at(&["identity", "add"]);
        let keys = prepared.scratch("devices");
        run(add.args(["--kind", "device", "--make", "60", "--keys"]).arg(keys));
        nodes
    });
    let mut nodes = nodes.await.unwrap();
    let apis = apis(&network.dir());
    wait_for_heights(&apis, 25).await;

    let damaged = network.clone();
    let nodes = tokio::task::spawn_blocking(move || {
        nodes[3].terminate(Duration::from_secs(60));
        let blocks: Vec<_> =
            stored(&damaged).into_iter().filter(|path| path.to_string_lossy().contains("cairn-blocks")).collect();
        assert!(!blocks.is_empty(), "{:?}", files(&damaged.dir().join("data/validator-3")));
        for file in &blocks {
            let mut bytes = std::fs::read(file).unwrap();
            bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::write(file, bytes).unwrap();
        }
        let output = damaged.command("node").args(["--index", "3"]).output().unwrap();
        let said = describe(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cairn-blocks") && said.contains("never cairn-simplex"), "{said}");

        // The steps of docs/operations.md. The voting history stays.
        stored(&damaged).iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let votes = |path: &PathBuf| path.to_string_lossy().contains("cairn-simplex");
        assert!(files(&damaged.dir().join("data/validator-3")).iter().any(votes));
        nodes[3] = damaged.node(3);
        nodes
    });
    let nodes = nodes.await.unwrap();
    let goal = height(&apis[0]).await.unwrap() + 15;
    wait_for_heights(&apis, goal).await;
    let (one, back) =
        (followed(&network.dir(), apis[0].clone()).await, followed(&network.dir(), apis[3].clone()).await);
    let at = usize::try_from(goal).unwrap();
    assert_eq!(one.ledger().blocks()[..=at], back.ledger().blocks()[..=at], "the same state at every height");
    tokio::task::spawn_blocking(move || drop(nodes)).await.unwrap();
}

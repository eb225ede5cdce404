//! The committee grows from four to seven and shrinks to five while records are published: nothing is lost or doubled,
//! and receipts from before, between and after verify offline with the genesis alone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_ingest::broker::EmbeddedBroker;
use common::chain::{Joined, PATIENCE, command, validators, wait_until};
use common::streams::{STREAM, csv, every_record_is_there_once, register};
use common::{Network, Process, cairn, free_base_port, run};

/// Publishes batches one after the other until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Load {
    fn start(network: &Arc<Network>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (network, stopped) = (network.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut published = 1_000;
            while !stopped.load(Ordering::Relaxed) {
                let file = csv(&network, published..published + 500);
                run(network.command("publish").args(["--stream", STREAM]).arg(&file));
                std::fs::remove_file(file).unwrap();
                published += 500;
            }
            published
        });
        Self { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn receipt(network: &Network, name: &str, offset: u64) -> PathBuf {
    let file = network.scratch(name);
    let place = ["--stream", STREAM, "--partition", "1", "--offset", &offset.to_string(), "--out"];
    run(network.command("prove").args(place).arg(&file));
    file
}

/// How many members each committee had, oldest first.
fn committees(network: &Network) -> Vec<u64> {
    let rows = network.sql("SELECT count(*) AS members FROM cairn.committees GROUP BY epoch ORDER BY epoch");
    rows.iter().map(|row| row["members"].as_u64().unwrap()).collect()
}

fn newest_offset(network: &Network) -> u64 {
    network.number(&format!("SELECT max(_offset) FROM {STREAM} WHERE _partition = 1"))
}

#[tokio::test(flavor = "multi_thread")]
async fn four_validators_become_seven_and_then_five_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_base_port()).parse().unwrap();
    let broker = EmbeddedBroker::start(folder.path(), listen).await.unwrap();
    let brokers = broker.bootstrap();
    tokio::task::spawn_blocking(move || grow_and_shrink(&brokers)).await.unwrap();
    broker.stop().await;
}

fn grow_and_shrink(brokers: &str) {
    let parameters = ["--heartbeat-ms", "500", "--epoch-blocks", "16", "--absence-epochs", "0"];
    let network = Arc::new(Network::with(&[&["--kafka", brokers], &parameters[..]].concat()));
    let mut nodes = validators(&network, 4);
    let _roles = [network.role("ingest"), network.role("query")];
    register(&network, "avro");
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(&network, 0..1_000)));
    network.wait_anchored(60);
    let before = receipt(&network, "before.json", 0);
    let load = Load::start(&network);

    let joined: Vec<_> = (0..3).map(|number| Joined::new(&network, &format!("new-{number}"))).collect();
    let mut started: Vec<Process> = joined.iter().map(Joined::start).collect();
    for node in &joined {
        let said = run(network.command_at(&["vote", "add-validator"]).args(&node.vote).args(["--as", "all"]));
        assert!(said.contains("passed at height"), "{said}");
    }
    started.iter_mut().for_each(|node| node.wait_ready(PATIENCE));
    wait_until("a committee of seven", || committees(&network).last() == Some(&7));
    // A receipt of what was anchored while seven voted.
    let offset = newest_offset(&network);
    wait_until("anchors under seven", || newest_offset(&network) > offset);
    let between = receipt(&network, "between.json", newest_offset(&network));

    for leaving in ["validator-0", "validator-1"] {
        let vote = ["vote", "remove-validator"];
        let said = run(network.command_at(&vote).args(["--validator", leaving, "--as", "all"]));
        assert!(said.contains("4 of 5 votes"), "four of seven are not enough: {said}");
        let said = run(command(&joined[0].dir, &vote).args(["--validator", leaving]));
        assert!(said.contains("passed at height"), "{said}");
    }
    wait_until("a committee of five", || committees(&network).last() == Some(&5));
    nodes[0].terminate(Duration::from_secs(60));
    nodes[1].terminate(Duration::from_secs(60));
    let offset = newest_offset(&network);
    wait_until("anchors under five", || newest_offset(&network) > offset);
    let after = receipt(&network, "after.json", newest_offset(&network));

    let published = load.end();
    network.wait_anchored(120);
    assert_eq!(every_record_is_there_once(&network, brokers), published, "each record once, none lost");
    network.audit_is_clean();
    let sizes = committees(&network);
    assert_eq!((sizes.first(), sizes.last()), (Some(&4), Some(&5)), "{sizes:?}");
    assert!(sizes.contains(&7), "{sizes:?}");
    let removed = network.number("SELECT count(*) FROM cairn.validators WHERE status = 'removed' AND position IS NULL");
    assert_eq!(removed, 2);
    // Nothing but the file and the genesis is read.
    let genesis = network.dir().join("genesis.json");
    for file in [before, between, after] {
        let said = run(cairn().arg("verify").arg(&file).arg("--genesis").arg(&genesis));
        assert!(said.contains("VERIFIED"), "{said}");
    }
}

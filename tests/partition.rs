//! A network of four that is cut into two and two: nothing is final meanwhile, nothing forks, and it goes on once healed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::chain::{PATIENCE, Proxy, apis, followed, genesis, height, wait_for_heights};
use common::{Network, Process, cairn};

/// Copies what one operator holds: configuration, genesis and that validator's key alone.
fn own_folder(network: &Network, index: usize) -> PathBuf {
    let dir = network.scratch(&format!("operator-{index}"));
    std::fs::create_dir_all(dir.join("keys")).unwrap();
    std::fs::create_dir_all(dir.join("data")).unwrap();
    for file in ["cairn.toml", "genesis.json", &format!("keys/validator-{index}.key")] {
        std::fs::copy(network.dir().join(file), dir.join(file)).unwrap();
    }
    dir
}

/// From the one with the first index to the one with the second, through a proxy of its own.
struct Link(usize, usize, Proxy);

async fn links(network: &Network) -> Vec<Link> {
    let text = std::fs::read_to_string(network.dir().join("cairn.toml")).unwrap();
    let listeners: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("p2p_listen = ")).collect();
    let mut links = vec![];
    for from in 0..4 {
        for (to, target) in listeners.iter().enumerate() {
            if from != to {
                links.push(Link(from, to, Proxy::new(target.trim_matches('"').to_owned()).await));
            }
        }
    }
    links
}

/// Tells the operator's node to reach the others through the proxies.
fn use_proxies(dir: &Path, index: usize, keys: &[String], links: &[Link]) {
    let file = dir.join("cairn.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    for Link(_, to, proxy) in links.iter().filter(|link| link.0 == index) {
        text.push_str(&format!("\n[[peers]]\npublic_key = \"{}\"\naddress = \"{}\"\n", keys[*to], proxy.address));
    }
    std::fs::write(file, text).unwrap();
}

fn set_open(links: &[Link], open: bool) {
    let side = |index: usize| index / 2;
    links.iter().filter(|link| side(link.0) != side(link.1)).for_each(|link| link.2.set_open(open));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_and_two_make_no_progress_do_not_fork_and_go_on_once_healed() {
    let network = Arc::new(Network::with(&["--heartbeat-ms", "500", "--epoch-blocks", "12", "--absence-epochs", "0"]));
    let genesis = genesis(&network.dir());
    let keys: Vec<_> = genesis.validators.iter().map(|validator| validator.public_key.to_string()).collect();
    let links = links(&network).await;
    let folders: Vec<_> = (0..4).map(|index| own_folder(&network, index)).collect();
    folders.iter().enumerate().for_each(|(index, dir)| use_proxies(dir, index, &keys, &links));
    let nodes = tokio::task::spawn_blocking(move || {
        let start = |dir: &PathBuf| Process::spawn(cairn().arg("node").arg("--dir").arg(dir));
        let mut nodes: Vec<_> = folders.iter().map(start).collect();
        nodes.iter_mut().for_each(|node| node.wait_ready(PATIENCE));
        nodes
    });
    let nodes = nodes.await.unwrap();
    let apis = apis(&network.dir());
    wait_for_heights(&apis, 14).await;

    set_open(&links, false);
    // What was on its way arrives; after that, nobody has more than two votes of three that are needed.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut stalled = vec![];
    for api in &apis {
        stalled.push(height(api).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    for (api, stalled) in apis.iter().zip(&stalled) {
        assert_eq!(height(api).await, Some(*stalled), "{api} made a block with half of the validators");
    }

    set_open(&links, true);
    let goal = stalled.iter().max().unwrap() + 12;
    wait_for_heights(&apis, goal).await;
    // Each of the four, asked alone, has the same block at every height.
    let mut histories = vec![];
    for api in &apis {
        let follower = followed(&network.dir(), api.clone()).await;
        let ledger = follower.ledger();
        histories.push(ledger.blocks()[..=usize::try_from(goal).unwrap()].to_vec());
    }
    for other in &histories[1..] {
        assert_eq!(&histories[0], other);
    }
    tokio::task::spawn_blocking(move || drop(nodes)).await.unwrap();
}

//! The committee grows and shrinks under load, over TCP: no statement is lost, and a verifier can walk from the genesis.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::time::{Duration, Instant};

use cairn_proof::{
    Base64Bytes, Digest,
    block::decode_blocks,
    committee::{Committee, CommitteeChange, walk},
    statement::{Body, Change, Vote},
};
use common::{
    Net,
    city::{INGEST, validator_key},
};

/// Anchors one batch after the other through changing nodes, and remembers them.
struct Load {
    first: u64,
    previous: Digest,
    ids: Vec<String>,
}

impl Load {
    async fn step(&mut self, net: &Net, through: &[usize]) {
        let sequence = self.ids.len() as u64 + 1;
        let (statement, id) = net.city.anchor(INGEST, sequence, 0, self.first, self.previous);
        // What one node accepted may not have come to the next one yet.
        let started = Instant::now();
        loop {
            let (code, answer) = net.submit(through[sequence as usize % through.len()], &statement).await;
            if code == 202 {
                break self.ids.push(id.to_string());
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.first += 10;
        self.previous = id;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each of `voters` votes for the change; returns the votes' ids.
async fn vote(net: &Net, voters: &[usize], change: &Change) -> Vec<String> {
    let expires_epoch = net.metric(voters[0], "cairn_chain_epoch").await + 8;
    let mut ids = Vec::new();
    for index in voters {
        let body = Body::Vote(Vote { expires_epoch, change: change.clone() });
        ids.extend(net.accepted_by_validator(*index, &body).await);
    }
    ids
}

fn committee_of(indices: impl IntoIterator<Item = usize>) -> Committee {
    let mut keys: Vec<_> = indices.into_iter().map(|index| validator_key(index).public()).collect();
    keys.sort();
    Committee::new(keys).unwrap()
}

/// Submits on until the newest block is certified by `committee`.
async fn until_committee(net: &Net, load: &mut Load, through: &[usize], committee: &Committee) {
    let started = Instant::now();
    loop {
        load.step(net, through).await;
        let height = net.height(through[0]).await;
        let block = net.json(through[0], &format!("/v1/blocks/{height}")).await;
        if block["validators_hash"] == committee.hash().to_string() {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(150), "the committee does not change: {block}");
    }
}

/// Walks from the genesis to the newest block of a node as a verifier would, committee by committee; returns their sizes.
async fn walk_committees(net: &Net, index: usize) -> Vec<usize> {
    let genesis = &net.city.genesis;
    let (mut trusted, mut sizes, mut from) = (walk(genesis, &[]).unwrap(), vec![4], 1);
    let height = net.height(index).await;
    while from <= height {
        let bytes = net.bytes(index, &format!("/v1/blocks?from={from}")).await;
        for block in decode_blocks(&bytes, 512).unwrap() {
            let header = block.check().unwrap();
            from = header.height.0 + 1;
            let Some(certificate) = block.certificate else { continue };
            trusted.check(genesis, &header, &certificate).unwrap();
            if header.next_validators_hash != header.validators_hash {
                let subsets = (1..1_usize << 7).map(|set| committee_of((0..7).filter(move |at| set >> at & 1 == 1)));
                let next = subsets.into_iter().find(|next| next.hash() == header.next_validators_hash).unwrap();
                let change = CommitteeChange {
                    header: Base64Bytes(header.encode()),
                    certificate: Base64Bytes(certificate),
                    validators: next.keys().to_vec(),
                };
                trusted = trusted.step(genesis, &change).unwrap();
                sizes.push(next.len());
            }
        }
    }
    sizes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_committee_grows_from_four_to_seven_and_shrinks_to_five_under_load() {
    const EPOCH: u64 = 20;
    let mut net = Net::with_epochs(4, 3, 100, EPOCH);
    // Epochs of a second are shorter than a new node needs to come: its absence is not counted.
    net.city.genesis.parameters.absence_epochs = 0;
    net.start_all().await;
    let stream = net.accepted(0, &net.city.register_stream(1)).await;
    net.finalized(0, &stream).await;
    let mut load = Load { first: 0, previous: Digest::ZERO, ids: Vec::new() };

    // Three nodes whose keys are in no committee, with empty folders. All votes come before the committee has grown.
    for index in 4..7 {
        let address = net.configs[index].p2p_listen.to_string();
        let add = Change::add(&validator_key(index), format!("v{index}"), address, &net.city.genesis.tag());
        vote(&net, &[0, 1, 2, 3], &add).await;
    }
    for index in 4..7 {
        net.start(index).await;
        load.step(&net, &[0, 1, 2, 3]).await;
    }
    until_committee(&net, &mut load, &[0, 1, 2, 3], &committee_of(0..7)).await;
    let height = net.height(0).await;
    for index in 4..7 {
        net.wait_for_height(index, height).await;
        load.step(&net, &[index]).await;
    }
    // They vote at the latest from the epoch on that they see begin.
    net.wait_for_height(4, height + EPOCH).await;
    for index in 4..7 {
        assert!(net.votes(index).await, "validator {index}");
    }

    // Two of the first four leave, one of them already switched off.
    for index in 0..2 {
        let change = Change::RemoveValidator { public_key: validator_key(index).public() };
        vote(&net, &[2, 3, 4, 5, 6], &change).await;
    }
    net.stop(0).await;
    until_committee(&net, &mut load, &[2, 3, 4, 5, 6], &committee_of(2..7)).await;
    // The other one is stopped too: the five do not need it.
    net.stop(1).await;
    for _ in 0..5 {
        load.step(&net, &[2, 3, 4, 5, 6]).await;
    }
    for id in &load.ids {
        net.finalized(6, id).await;
    }
    let height = net.height(6).await;
    let block = net.json(6, &format!("/v1/blocks/{height}")).await;
    for index in 2..6 {
        net.wait_for_height(index, height).await;
        assert_eq!(net.json(index, &format!("/v1/blocks/{height}")).await["id"], block["id"]);
    }
    let head = net.json(5, "/v1/streams/traffic.flow/partitions/0/head").await;
    assert_eq!(head["next"].as_u64(), Some(load.first), "nothing was lost or doubled");
    let sizes = walk_committees(&net, 4).await;
    assert_eq!((sizes.iter().max(), sizes.last()), (Some(&7), Some(&5)), "{sizes:?}");
    net.stop_all().await;
}

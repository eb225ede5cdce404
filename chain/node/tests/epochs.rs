//! Epochs over TCP with a committee that stays: nodes lag, follow, come back, lose what they voted for.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::{collections::BTreeSet, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_proof::{
    Digest,
    block::decode_blocks,
    certificate::Finalization,
    committee::Committee,
    epoch::{epoch_of, is_last},
};
use common::{Net, city::INGEST};

/// Folders of a node's storage whose name begins so.
fn partitions(data_dir: &Path, prefix: &str) -> BTreeSet<String> {
    let folders = std::fs::read_dir(data_dir.join("storage")).unwrap();
    let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// The ids of a node's blocks, each final through a certificate of its own epoch; `committee` certified all of them.
async fn certified_blocks(net: &Net, index: usize, committee: &Committee) -> Vec<Digest> {
    let (genesis, epoch_blocks) = (&net.city.genesis, net.city.genesis.parameters.epoch_blocks);
    let (mut ids, mut uncertified, mut from) = (Vec::new(), None, 1);
    let height = net.height(index).await;
    while from <= height {
        let bytes = net.bytes(index, &format!("/v1/blocks?from={from}")).await;
        let blocks = decode_blocks(&bytes, 512).unwrap();
        assert!(!blocks.is_empty());
        for block in blocks {
            let header = block.check().unwrap();
            assert_eq!(header.epoch, epoch_of(header.height, epoch_blocks), "height {}", header.height);
            ids.push(header.digest());
            from = header.height.0 + 1;
            if let Some(certificate) = &block.certificate {
                let finalization = Finalization::decode(certificate, committee.len()).unwrap();
                finalization.verify(committee.keys(), &genesis.tag()).unwrap();
                assert_eq!((finalization.payload, finalization.epoch), (header.digest(), header.epoch));
                uncertified = None;
            } else {
                assert!(!is_last(header.height, epoch_blocks), "the last block of an epoch has its own certificate");
                uncertified = Some(header.height);
            }
        }
    }
    assert!(uncertified.is_none_or(|at| epoch_of(at, epoch_blocks) == height / epoch_blocks));
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_goes_on_from_epoch_to_epoch_and_leaves_no_old_files() {
    const EPOCH: u64 = 5;
    let mut net = Net::with_epochs(4, 0, 100, EPOCH);
    net.start_all().await;
    let stream = net.accepted(0, &net.city.register_stream(1)).await;
    net.finalized(3, &stream).await;
    let mut previous = Digest::ZERO;
    let mut ids = Vec::new();
    for at in 0..10_u64 {
        let (statement, id) = net.city.anchor(INGEST, 1 + at, 0, at * 10, previous);
        ids.push(net.accepted((at % 4) as usize, &statement).await);
        previous = id;
        net.wait_for_height(0, 3 * at).await;
    }
    for id in &ids {
        net.finalized(2, id).await;
    }
    net.wait_for_height(0, 8 * EPOCH).await;
    let committee = Committee::new(net.city.genesis.validator_keys()).unwrap();
    let blocks = certified_blocks(&net, 0, &committee).await;
    for index in 1..4 {
        net.wait_for_height(index, blocks.len() as u64).await;
        let theirs = certified_blocks(&net, index, &committee).await;
        assert_eq!(theirs[..blocks.len()], blocks, "validator {index}");
        assert!(net.votes(index).await);
    }
    let epoch = net.metric(0, "cairn_chain_epoch").await;
    assert!(epoch >= 8);
    net.stop_all().await;
    for config in &net.configs {
        assert!(partitions(&config.data_dir, "cairn-simplex-").len() <= 2, "the present epoch and the one before");
        assert!(partitions(&config.data_dir, "cairn-following-").is_empty());
        // A dozen folders for each epoch that its cache still holds.
        let caches = partitions(&config.data_dir, "cairn-marshal-cache-");
        let epochs: BTreeSet<_> = caches.iter().filter_map(|name| name.split('-').nth(3)).collect();
        assert!(epochs.len() <= 5, "{epochs:?}");
    }

    // All come back, into the epoch that they were in or a later one, and go on.
    net.start_all().await;
    assert!(net.metric(0, "cairn_chain_epoch").await >= epoch);
    let height = net.height(0).await;
    net.wait_for_height(3, height + 2 * EPOCH).await;
    let (statement, id) = net.city.anchor(INGEST, 11, 0, 100, previous);
    net.accepted(1, &statement).await;
    net.finalized(0, &id.to_string()).await;
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_that_was_away_for_epochs_comes_back_as_a_voter() {
    const EPOCH: u64 = 6;
    let mut net = Net::with_epochs(4, 0, 100, EPOCH);
    net.start_all().await;
    net.stop(3).await;
    let away_since = net.height(0).await;
    net.wait_for_height(0, away_since + 4 * EPOCH).await;
    net.start(3).await;
    let height = net.height(0).await;
    net.wait_for_height(3, height).await;
    // It votes again: without it and one more, two of four would be left.
    net.stop(0).await;
    let height = net.height(1).await;
    net.wait_for_height(3, height + 2 * EPOCH).await;
    assert!(net.votes(3).await);
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_follows_for_ever_and_votes_on_nothing() {
    const EPOCH: u64 = 6;
    let mut net = Net::with_epochs(4, 1, 100, EPOCH);
    let observer = common::peer(&net, 4);
    for index in 0..4 {
        net.configs[index].observers = vec![observer.clone()];
    }
    net.start_all().await;
    net.wait_for_height(0, 3 * EPOCH).await;
    net.start(4).await;
    let height = net.height(0).await;
    net.wait_for_height(4, height + EPOCH).await;
    assert!(!net.votes(4).await);
    // Handed to the observer, a statement reaches the validators.
    let stream = net.accepted(4, &net.city.register_stream(1)).await;
    net.finalized(0, &stream).await;
    net.finalized(4, &stream).await;
    let height = net.height(4).await;
    net.wait_for_height(0, height).await;
    let path = format!("/v1/blocks/{height}");
    assert_eq!(net.json(4, &path).await["state_root"], net.json(0, &path).await["state_root"]);
    let answer = net.json(4, "/v1/certificates/1").await;
    STANDARD.decode(answer["certificate"].as_str().unwrap()).unwrap();
    // It goes and comes back.
    net.stop(4).await;
    let storage = net.configs[4].data_dir.clone();
    assert!(partitions(&storage, "cairn-simplex-").is_empty(), "it has nothing to vote in");
    net.wait_for_height(0, height + 2 * EPOCH).await;
    net.start(4).await;
    let height = net.height(0).await;
    net.wait_for_height(4, height).await;
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_not_let_in() {
    let mut net = Net::with_epochs(1, 1, 100, 6);
    net.start_all().await;
    net.start(1).await;
    net.wait_for_height(0, 12).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(net.height(1).await, 0);
    net.stop_all().await;
}

/// Takes from a validator what it voted for: its voting histories, or everything.
fn lose(data_dir: &Path, everything: bool) {
    if everything {
        return std::fs::remove_dir_all(data_dir).unwrap();
    }
    for name in partitions(data_dir, "cairn-simplex-") {
        std::fs::remove_dir_all(data_dir.join("storage").join(name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_that_lost_what_it_voted_for_waits_for_the_next_epoch() {
    const EPOCH: u64 = 20;
    let mut net = Net::with_epochs(4, 0, 100, EPOCH);
    net.start_all().await;
    for everything in [false, true] {
        // Within an epoch that is not the chain's first, the chain is made to stand still: two of four are stopped.
        loop {
            let height = net.height(3).await;
            if height > EPOCH && (2..EPOCH / 2).contains(&(height % EPOCH)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        net.stop(2).await;
        net.stop(3).await;
        lose(&net.configs[3].data_dir, everything);
        let stalled = net.height(0).await;
        net.start(3).await;
        net.wait_for_height(3, stalled).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!net.votes(3).await, "it must not vote in this epoch again");
        let height = net.height(0).await;
        assert!(height <= stalled + 1, "and so three of four are not reached: {stalled}, {height}");
        // With another one, the chain comes to the next epoch, in which it votes again: without it two would be left.
        net.start(2).await;
        net.wait_for_height(3, stalled + EPOCH).await;
        assert!(net.votes(3).await);
        net.stop(1).await;
        let height = net.height(0).await;
        net.wait_for_height(3, height + 5).await;
        net.start(1).await;
        net.wait_for_height(1, height + 5).await;
    }
    net.stop_all().await;
}

/// Bytes of all files below a folder, as the file system has given room to them; and how many files.
fn disk_usage(folder: &Path) -> (u64, usize) {
    use std::os::unix::fs::MetadataExt as _;
    let (mut bytes, mut files) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        // A journal may be removed meanwhile.
        let Ok(entry) = entry else { continue };
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            let (more, inside) = disk_usage(&entry.path());
            (bytes, files) = (bytes + more, files + inside);
        } else {
            (bytes, files) = (bytes + found.blocks() * 512, files + 1);
        }
    }
    (bytes, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_chain_takes_little_room() {
    const EPOCH: u64 = 10;
    // 25 MB a day at a block in three seconds.
    const BYTES_A_BLOCK_MAX: u64 = 25_000_000 / 28_800;
    let mut net = Net::with_epochs(4, 0, 50, EPOCH);
    net.start_all().await;
    let archives = |net: &Net| -> u64 {
        let storage = net.configs[0].data_dir.join("storage");
        let kept = ["cairn-blocks-", "cairn-finalizations-", "cairn-marshal-application"];
        let names = kept.iter().flat_map(|prefix| partitions(&net.configs[0].data_dir, prefix));
        names.map(|name| disk_usage(&storage.join(name)).0).sum()
    };
    let mut found = Vec::new();
    // At the same place in an epoch; what an epoch takes for itself goes with it.
    // Files grow by whole pages: over many blocks that is little.
    for height in [2 * EPOCH + 5, 27 * EPOCH + 5] {
        net.wait_for_height(0, height).await;
        found.push((net.height(0).await, archives(&net), disk_usage(&net.configs[0].data_dir)));
    }
    net.stop_all().await;
    let [(from, bytes, (all, files)), (to, more_bytes, (more, more_files))] = found[..] else { panic!("{found:?}") };
    let a_block = (more_bytes - bytes) / (to - from);
    println!("{a_block} bytes a block; in all {all} bytes in {files} files, {more} in {more_files}");
    assert!(a_block <= BYTES_A_BLOCK_MAX, "{a_block} bytes a block, {found:?}");
    assert!(more_files <= files + 60, "{found:?}");
}

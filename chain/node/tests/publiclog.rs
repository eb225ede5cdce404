//! The log as the public sees it: checkpoints and tiles of a running network, checked by programs that are not ours.
//!
//! The crates `signed_note` and `tlog_tiles` verify in this process. Go's `sumdb/note` and `sumdb/tlog`, and an outside
//! witness, are programs of `tests/go`; where there is no Go, or its modules cannot be had, those tests say so and pass.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures, clippy::print_stderr)]

mod common;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use cairn_chain_node::Witness;
use cairn_proof::{
    Digest, LeafIndex, TreeSize,
    checkpoint::{self, origin, validator_keys, witnessed},
    note::VerifierKey,
    tree::leaf_hash,
};
use common::{
    Net,
    city::{INGEST, PARTITIONS, validator_key},
};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Hash, Tile, TileHashReader, TileReader};

const ORIGIN: &str = "cairn/test";

/// What was anchored, in the order of the log.
struct Anchors {
    /// Next sequence number of the anchorer.
    sequence: u64,
    heads: Vec<(u64, Digest)>,
    ids: Vec<String>,
}

impl Anchors {
    async fn start(net: &Net) -> Self {
        let stream = net.accepted(0, &net.city.register_stream(1)).await;
        net.finalized(0, &stream).await;
        Self { sequence: 1, heads: vec![(0, Digest::ZERO); PARTITIONS as usize], ids: Vec::new() }
    }

    /// Anchors `count` batches, spread over the partitions, and waits until all are final at every validator.
    async fn add(&mut self, net: &Net, count: usize) {
        for _ in 0..count {
            let partition = self.ids.len() % self.heads.len();
            let (first, previous) = self.heads[partition];
            let (statement, id) = net.city.anchor(INGEST, self.sequence, partition as u32, first, previous);
            self.sequence += 1;
            self.heads[partition] = (first + 10, id);
            self.ids.push(net.accepted(0, &statement).await);
        }
        self.finalized(net, count).await;
    }

    /// Anchors the next batch of every partition in one statement, and waits as well.
    async fn add_together(&mut self, net: &Net) {
        let batches: Vec<_> = (0..).zip(&self.heads).map(|(at, (first, previous))| (at, *first, *previous)).collect();
        let (statement, ids) = net.city.anchors(INGEST, self.sequence, &batches);
        self.sequence += 1;
        for (head, id) in self.heads.iter_mut().zip(&ids) {
            *head = (head.0 + 10, *id);
        }
        net.accepted(0, &statement).await;
        self.ids.extend(ids.iter().map(Digest::to_string));
        // Each is asked for by its own id.
        self.finalized(net, ids.len()).await;
    }

    async fn finalized(&self, net: &Net, count: usize) {
        for validator in 0..net.nodes.len() {
            for id in &self.ids[self.ids.len() - count..] {
                net.finalized(validator, id).await;
            }
        }
    }
}

/// The served checkpoint of a log of `size` entries; waits for it.
async fn checkpoint_of(net: &Net, validator: usize, size: u64) -> String {
    for _ in 0..600 {
        let response = net.http.get(net.url(validator, "/checkpoint")).send().await.unwrap();
        if response.status().is_success() {
            assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
            assert_eq!(response.headers()["cache-control"], "no-cache");
            let text = response.text().await.unwrap();
            if text.lines().nth(1) == Some(&size.to_string()) {
                return text;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("validator {validator} serves no checkpoint of size {size}");
}

async fn tile(net: &Net, validator: usize, path: &str) -> Vec<u8> {
    let response = net.http.get(net.url(validator, path)).send().await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    response.bytes().await.unwrap().to_vec()
}

/// Tiles for the crate that reads them, fetched before: its reader does not wait.
struct Tiles(std::collections::HashMap<String, Vec<u8>>);

impl TileReader for Tiles {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        Ok(tiles.iter().map(|tile| self.0[&tile.path().replace("tile/8/", "tile/")].clone()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

impl Tiles {
    async fn fetch(net: &Net, size: u64) -> Self {
        let mut tiles = std::collections::HashMap::new();
        for tile in Tile::new_tiles(8, 0, size) {
            let path = tile.path().replace("tile/8/", "tile/");
            let bytes = self::tile(net, 2, &format!("/{path}")).await;
            tiles.insert(path, bytes);
        }
        Self(tiles)
    }
}

/// The entries of a bundle.
fn entries(mut bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(entry.to_vec());
        bundle = rest;
    }
    assert!(bundle.is_empty());
    entries
}

/// All entries of the log of `size`, by bundles.
async fn log_entries(net: &Net, size: u64) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for first in (0..size).step_by(256) {
        let width = (size - first).min(256);
        let partial = if width < 256 { format!(".p/{width}") } else { String::new() };
        let bundle = tile(net, 1, &format!("/tile/entries/{:03}{partial}", first / 256)).await;
        all.extend(entries(&bundle));
    }
    all
}

fn vkeys(net: &Net) -> Vec<VerifierKey> {
    net.city.genesis.validator_keys().iter().flat_map(|key| validator_keys(ORIGIN, *key).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_public_and_other_programs_agree() {
    let mut net = Net::new(4, 200);
    net.start_all().await;
    let empty = checkpoint_of(&net, 0, 0).await;
    assert!(checkpoint::verify(ORIGIN, &net.city.genesis.validator_keys(), &empty).unwrap().1.validators.len() >= 3);
    let mut anchors = Anchors::start(&net).await;
    anchors.add(&net, 3).await;
    let older = checkpoint_of(&net, 0, 3).await;
    anchors.add_together(&net).await;
    anchors.add(&net, 297 - PARTITIONS as usize).await;
    let newer = checkpoint_of(&net, 3, 300).await;

    ours_agree(&net, &older, &newer, &anchors).await;
    crates_agree(&net, &older, &newer).await;
    paths_beyond_the_log_are_refused(&net).await;
    go_agrees(&net, &older).await;

    // One that starts again serves what it signed before, and has it signed anew.
    net.stop(3).await;
    net.start(3).await;
    assert_eq!(checkpoint_of(&net, 3, 300).await.lines().nth(2), newer.lines().nth(2));
    net.stop_all().await;
}

async fn ours_agree(net: &Net, older: &str, newer: &str, anchors: &Anchors) {
    assert_eq!(origin(&net.city.genesis.chain_id), ORIGIN);
    let committee = net.city.genesis.validator_keys();
    for text in [older, newer] {
        let (_, cosigned) = checkpoint::verify(ORIGIN, &committee, text).unwrap();
        assert!(cosigned.validators.len() >= 3 && cosigned.others.is_empty(), "{cosigned:?}");
    }
    let height = net.height(1).await;
    let tip = net.json(1, &format!("/v1/blocks/{height}")).await;
    let (newest, _) = checkpoint::verify(ORIGIN, &committee, newer).unwrap();
    assert_eq!((newest.size, newest.root.to_string()), (TreeSize(300), tip["log_root"].as_str().unwrap().to_owned()));
    let all = log_entries(net, 300).await;
    let ids: Vec<String> = all.iter().map(|entry| cairn_proof::statement::statement_id(entry).to_string()).collect();
    assert_eq!(ids, anchors.ids);
    // The same bundle again comes from memory, and partial ones are its beginnings.
    let full = tile(net, 1, "/tile/entries/000").await;
    assert!(full.starts_with(&tile(net, 1, "/tile/entries/000.p/7").await));
    assert_eq!(entries(&full), all[..256]);
    let leaves: Vec<u8> = all[..256].iter().flat_map(|entry| leaf_hash(entry).0).collect();
    assert_eq!(tile(net, 3, "/tile/0/000").await, leaves);
}

async fn crates_agree(net: &Net, older: &str, newer: &str) {
    let mut trees = Vec::new();
    for text in [older, newer] {
        // The crate knows keys of algorithm 1 alone, as Go does.
        let logs = vkeys(net).into_iter().filter(|key| key.name() == ORIGIN);
        let logs = logs.map(|key| Box::new(StandardVerifier::new(&key.to_string()).unwrap()) as Box<_>);
        let note = Note::from_bytes(text.as_bytes()).unwrap();
        let (verified, others) = note.verify(&VerifierList::new(logs.collect())).unwrap();
        assert!(verified.len() >= 3 && others.len() >= 3, "{text}");
        assert!(Note::from_bytes(text.replace("\n3", "\n4").as_bytes()).is_ok_and(|note| {
            let key = StandardVerifier::new(&vkeys(net)[0].to_string()).unwrap();
            note.verify(&VerifierList::new(vec![Box::new(key)])).is_err()
        }));
        let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
        assert_eq!((checkpoint.origin(), checkpoint.extension()), (ORIGIN, ""));
        trees.push((checkpoint.size(), *checkpoint.hash()));
    }
    let [(before, old), (size, root)] = trees[..] else { panic!() };
    let tiles = Tiles::fetch(net, size).await;
    let reader = TileHashReader::new(size, root, &tiles);
    let all = log_entries(net, size).await;
    for index in [0, 1, 255, 256, 299] {
        let path = tlog_tiles::prove_record(size, index, &reader).unwrap();
        let entry = tlog_tiles::record_hash(&all[index as usize]);
        tlog_tiles::check_record(&path, size, root, index, entry).unwrap();
        assert!(tlog_tiles::check_record(&path, size, root, index, Hash([0; 32])).is_err());
        let ours: Vec<Digest> = path.iter().map(|hash| Digest(hash.0)).collect();
        let leaf = leaf_hash(&all[index as usize]);
        cairn_proof::tree::verify_inclusion(&leaf, LeafIndex(index), TreeSize(size), &ours, &Digest(root.0)).unwrap();
    }
    let path = tlog_tiles::prove_tree(size, before, &reader).unwrap();
    tlog_tiles::check_tree(&path, size, root, before, old).unwrap();
}

async fn paths_beyond_the_log_are_refused(net: &Net) {
    for (path, status) in [
        ("/tile/0/001", 404),
        ("/tile/0/001.p/45", 404),
        ("/tile/1/000", 404),
        ("/tile/1/000.p/2", 404),
        ("/tile/2/000.p/1", 404),
        ("/tile/63/000", 404),
        ("/tile/entries/001", 404),
        ("/tile/entries/001.p/45", 404),
        ("/tile/0/x018/x446/x744/x073/x709/x551/615", 404),
        ("/tile/entries/x018/x446/x744/x073/x709/x551/615", 404),
        ("/tile/0/1", 400),
        ("/tile/0/001.p/0", 400),
        ("/tile/64/000", 400),
        ("/tile/0/..%2f..%2fetc", 400),
        ("/tile/0", 400),
    ] {
        let response = net.http.get(net.url(0, path)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        let answer: serde_json::Value = response.json().await.unwrap();
        assert!(answer["code"].is_string() && answer["message"].is_string(), "{path}: {answer}");
    }
    assert_eq!(tile(net, 0, "/tile/1/000.p/1").await.len(), 32);
    assert_eq!(tile(net, 0, "/tile/0/001.p/44").await.len(), 44 * 32);
}

/// A program of `tests/go`, built; `None` where there is no Go or its modules cannot be had, which is said.
fn go_program(name: &str, folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/go").join(name);
    let program = folder.join(name);
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(&source)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .output();
    match built {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // Code that does not compile is a fault of ours; modules that cannot be had are not.
            let unavailable =
                ["no required module", "dial tcp", "lookup ", "403 Forbidden", "requires go >=", "i/o timeout"];
            assert!(unavailable.iter().any(|sign| said.contains(sign)), "tests/go/{name} does not build: {said}");
            eprintln!("SKIPPED: tests/go/{name}: its modules cannot be had: {said}");
            None
        }
        Err(error) => {
            eprintln!("SKIPPED: tests/go/{name}: Go cannot be run: {error}");
            None
        }
    }
}

/// Opens checkpoints with `sumdb/note`, proves inclusion and consistency from tiles with `sumdb/tlog`.
async fn go_agrees(net: &Net, older: &str) {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = go_program("log", folder.path()) else { return };
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let all = log_entries(net, 300).await;
    let keys: Vec<String> = vkeys(net).iter().map(ToString::to_string).collect();
    let (keys, saved) = (file("vkeys", keys.join("\n").as_bytes()), file("older", older.as_bytes()));
    let forged = file("forged", older.replacen("\n3\n", "\n2\n", 1).as_bytes());
    let log = net.url(1, "");
    for (index, anchor, older, holds) in [
        (299, &all[299], &saved, true),
        (17, &all[17], &saved, true),
        (17, &all[18], &saved, false),
        (17, &all[17], &forged, false),
    ] {
        let anchor = file("anchor", anchor);
        let mut run = Command::new(&program);
        run.args(["-log", &log, "-quorum", "3", "-index", &index.to_string(), "-vkeys"]).arg(&keys);
        run.arg("-anchor").arg(anchor).arg("-older").arg(older);
        let output = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), holds, "{said}");
        assert_eq!(said.starts_with("ok size 300"), holds, "{said}");
    }
}

/// An outside witness that runs; ended with the test.
struct Outside {
    child: Child,
    url: String,
    key: VerifierKey,
}

impl Outside {
    fn start(program: &Path, log: &VerifierKey, name: &str) -> Self {
        let mut child = Command::new(program)
            .args(["-log-vkey", &log.to_string(), "-name", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["witness", url, vkey] = words[..] else { panic!("{line:?}") };
        Self { url: url.into(), key: VerifierKey::parse(vkey).unwrap(), child }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_witnesses_cosign() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = go_program("witness", folder.path()) else { return };
    let mut net = Net::new(4, 200);
    // Each node has the witness that knows it, and one that nobody answers for.
    let [log, _] = validator_keys(ORIGIN, validator_key(0).public()).unwrap();
    let outside = Outside::start(&program, &log, "witness.example/outside");
    let [_, absent] = validator_keys("absent.example", validator_key(9).public()).unwrap();
    let nowhere = format!("http://127.0.0.1:{}", common::free_ports(1)[0]);
    for node in [0, 1] {
        net.configs[node].witnesses = vec![
            Witness { vkey: outside.key.to_string(), url: outside.url.clone() },
            Witness { vkey: absent.to_string(), url: nowhere.clone() },
        ];
    }
    net.start_all().await;
    let mut anchors = Anchors::start(&net).await;
    for size in [2, 9] {
        anchors.add(&net, size - anchors.ids.len()).await;
        for node in [0, 1] {
            let text = cosigned(&net, node, size as u64, &outside.key).await;
            let committee = net.city.genesis.validator_keys();
            let (_, cosigned) = checkpoint::verify(ORIGIN, &committee, &text).unwrap();
            assert!(cosigned.validators.len() >= 3);
            assert_eq!(cosigned.others, [(outside.key.name().to_owned(), outside.key.id())]);
        }
    }
    // A node that starts again does not know what the witness cosigned last, and learns it.
    net.stop(0).await;
    net.start(0).await;
    anchors.add(&net, 1).await;
    cosigned(&net, 0, 10, &outside.key).await;
    let metrics = String::from_utf8(net.bytes(0, "/metrics").await).unwrap();
    let counted =
        |outcome: &str| metrics.contains(&format!("outcome=\"{outcome}\",witness=\"witness.example/outside\""));
    assert!(counted("conflict") && counted("cosigned"), "it asked from size 0 first, then from the witness' own");
    net.stop_all().await;
}

/// The served checkpoint of that size with the witness' line; waits for it.
async fn cosigned(net: &Net, node: usize, size: u64, witness: &VerifierKey) -> String {
    for _ in 0..400 {
        let text = checkpoint_of(net, node, size).await;
        if witnessed(witness, &text).unwrap().is_some() {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the checkpoint of size {size} is not cosigned at node {node}");
}

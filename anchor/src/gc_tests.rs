//! What is removed, and what must not be, whatever happens at the same time.

use super::*;
use crate::audit::{ValueDecoder, audit};
use crate::pipeline::{Anchorer, Outcome, Prepared};
use crate::raw::RawBatch;
use crate::seal::DecodedColumns;
use crate::seal::tests::{decode, raw};
use crate::testing::World;
use arrow::array::StringArray;
use cairn_chain_client::FollowerConfig;
use cairn_proof::statement::StreamDefinition;
use cairn_proof::writer_schemas::WriterSchemas;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const ONE: Partition = Partition(1);
const NOW: Options = Options { older_than: Duration::ZERO, dry_run: false };

struct TestDecoder;

impl ValueDecoder for TestDecoder {
    fn decode(
        &self,
        _: &StreamDefinition,
        raw: &RawBatch,
        _: &ChainTag,
        _: &StringArray,
        _: &WriterSchemas,
    ) -> Result<DecodedColumns, String> {
        Ok(decode(raw))
    }
}

/// Writes a batch's files and goes no further, as a process does that is killed there.
async fn left_behind(anchorer: &Anchorer, count: u64, first: u64) -> Prepared {
    let raw = raw(count, first);
    anchorer.prepare(&Arc::new(World::stream()), &raw, &decode(&raw)).await.unwrap()
}

async fn anchor(anchorer: &Anchorer, count: u64, first: u64) {
    let (raw, head) = (raw(count, first), anchorer.head("traffic.flow", ONE).unwrap());
    let outcome = anchorer.anchor(&Arc::new(World::stream()), &raw, &decode(&raw), head.anchor).await.unwrap();
    assert!(matches!(outcome, Outcome::Anchored(_)), "{outcome:?}");
}

async fn gc(world: &World, options: Options) -> Report {
    collect(&world.follower, &world.segments, &world.secrets, options).await.unwrap()
}

/// Files below a folder of the world, in order.
fn files(world: &World, folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &std::path::Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let mut found = Vec::new();
    walk(&world.folder.path().join(folder), &mut found);
    found.sort();
    found
}

fn all_files(world: &World) -> Vec<PathBuf> {
    [files(world, "objects"), files(world, "secrets")].concat()
}

async fn is_sound(world: &World) {
    let decoder = Arc::new(TestDecoder);
    let report = audit(&world.follower, &world.segments, &world.secrets, None, decoder, |_| {}).await.unwrap();
    assert_eq!(report.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_removed_and_all_else_is_kept() {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    anchor(&anchorer, 200, 0).await;
    let anchored = all_files(&world);
    let ahead = left_behind(&anchorer, 50, 200).await;
    let mut kept = all_files(&world);
    // Another batch of offsets that are anchored; and the anchored one sealed once more: the same segment, another secret.
    left_behind(&anchorer, 60, 0).await;
    left_behind(&anchorer, 60, 17).await;
    left_behind(&anchorer, 200, 0).await;
    let folder = |store: &str| world.folder.path().join(store).join("traffic.flow/1");
    let unfinished = [
        world.folder.path().join("objects/segments/traffic.flow/1/.x.parquet.00.tmp"),
        folder("secrets").join(".x.secret.00.tmp"),
    ];
    for path in &unfinished {
        std::fs::write(path, b"half of").unwrap();
        let written = std::time::SystemTime::now() - Duration::from_secs(30 * 60);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
    }
    let root = "ab".repeat(32);
    for foreign in [
        "objects/segments/readme.txt".to_owned(),
        "objects/segments/traffic.flow/1/00000000000000000000-short.parquet".to_owned(),
        format!("objects/segments/traffic.flow/1/0-{root}.parquet"),
        format!("objects/segments/traffic.flow/1/00000000000000000000-{}.parquet", root.to_uppercase()),
        format!("objects/segments/traffic.flow/1/00000000000000000000-{root}.parquet.bak"),
        format!("objects/segments/traffic.flow/1/deeper/00000000000000000000-{root}.parquet"),
        format!("objects/segments/traffic.flow/x/00000000000000000000-{root}.parquet"),
        format!("secrets/traffic.flow/1/00000000000000000000-{root}.secret"),
        format!("secrets/traffic.flow/1/00000000000000000000-{root}.{root}.secret.old"),
    ] {
        let path = world.folder.path().join(foreign);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"not Cairn's").unwrap();
        kept.push(path);
    }
    // A stream and a partition that the chain does not know.
    for unknown in ["other.stream/1", "traffic.flow/77"] {
        let path = world.folder.path().join(format!("objects/segments/{unknown}/00000000000000000000-{root}.parquet"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"of whom?").unwrap();
        kept.push(path);
    }
    kept.sort();

    let before = all_files(&world);
    let young = gc(&world, Options { older_than: OLDER_THAN, ..NOW }).await;
    assert_eq!((young.orphans_total, young.young), (0, 2 * 3 + 1 + 2), "{young:?}");
    let dry = gc(&world, Options { dry_run: true, ..NOW }).await;
    assert_eq!(all_files(&world), before, "nothing is removed");
    let report = gc(&world, NOW).await;
    assert_eq!(Report { dry_run: true, ..report.clone() }, dry, "what was said is what was done");
    assert_eq!((report.anchored, report.foreign, report.young), (3, 9, 0), "{report:?}");
    assert_eq!(report.waiting, 3 + 2, "{report:?}");
    assert_eq!((report.orphans_total, report.orphans.len()), (9, 9), "{report:?}");
    assert_eq!(report.orphans.iter().filter(|orphan| orphan.unfinished).count(), 2);
    assert_eq!(report.orphans.iter().filter(|orphan| orphan.place == Place::Secrets).count(), 4);
    let mut left = all_files(&world);
    left.sort();
    assert_eq!(left, kept);
    assert!(anchored.iter().all(|path| left.contains(path)));
    is_sound(&world).await;

    // What waited can still be anchored.
    let head = anchorer.head("traffic.flow", ONE).unwrap();
    assert!(matches!(anchorer.submit(&ahead, head.anchor).await.unwrap(), Outcome::Anchored(_)));
    is_sound(&world).await;
    let again = gc(&world, NOW).await;
    assert_eq!((again.orphans_total, again.anchored, again.waiting), (0, 6, 2), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_meanwhile_is_kept() {
    let world = World::new().await;
    let (anchorer, done) = (world.anchorer(0), AtomicBool::new(false));
    // The first write marks the store.
    left_behind(&anchorer, 7, 0).await;
    anchor(&anchorer, 10, 0).await;
    let anchoring = async {
        for batch in 1..40 {
            // One orphan for each batch that is anchored.
            left_behind(&anchorer, 7, batch * 10).await;
            anchor(&anchorer, 10, batch * 10).await;
        }
        done.store(true, Ordering::SeqCst);
    };
    let collecting = async {
        let mut removed = 0;
        while !done.load(Ordering::SeqCst) {
            removed += gc(&world, NOW).await.orphans_total;
            tokio::task::yield_now().await;
        }
        removed
    };
    let ((), removed) = tokio::join!(anchoring, collecting);
    is_sound(&world).await;
    let removed = removed + gc(&world, NOW).await.orphans_total;
    assert_eq!(removed, 40 * 3, "segment, hash tree and secret of each");
    assert_eq!(world.follower.ledger().all_anchors().len(), 40);
    is_sound(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_not_followed_yet_spares_more() {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    left_behind(&anchorer, 60, 0).await;
    anchor(&anchorer, 200, 0).await;
    world.node.down.store(true, Ordering::SeqCst);
    let config = FollowerConfig { genesis: Arc::clone(&world.node.genesis), client: world.client.clone() };
    let late = Follower::spawn(config);
    let report = collect(&late, &world.segments, &world.secrets, NOW).await.unwrap();
    assert_eq!((report.waiting, report.orphans_total), (6, 0), "{report:?}");
    is_sound(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_another_chain_is_left_alone() {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    left_behind(&anchorer, 60, 0).await;
    anchor(&anchorer, 200, 0).await;
    let before = all_files(&world);
    let mark = world.folder.path().join("objects").join(crate::store::MARK);
    std::fs::write(&mark, format!("cairn/objects/v1 {}\n", "07".repeat(32))).unwrap();
    let refused = collect(&world.follower, &world.segments, &world.secrets, NOW).await.unwrap_err();
    assert!(refused.to_string().contains(&"07".repeat(32)), "{refused}");
    std::fs::remove_file(&mark).unwrap();
    let refused = collect(&world.follower, &world.segments, &world.secrets, NOW).await.unwrap_err();
    assert!(matches!(&refused, GcError::OtherChain { found, .. } if found.contains("no mark")), "{refused}");
    assert_eq!(all_files(&world).len() + 1, before.len(), "only the mark is gone");
}

#[test]
fn names_are_told_apart() {
    let root = "ab".repeat(32);
    let digest = Digest([0xab; 32]);
    let batch = |root: Option<Digest>| Name::Batch {
        segment: format!("segments/traffic.flow/3/00000000000000000017-{digest}.parquet"),
        root,
        stream: "traffic.flow".into(),
        partition: Partition(3),
        first: Offset(17),
    };
    let path = format!("traffic.flow/3/00000000000000000017-{root}");
    assert_eq!(object_name(&Path::from(format!("segments/{path}.parquet"))), batch(None));
    assert_eq!(object_name(&Path::from(format!("segments/{path}.parquet.obao"))), batch(None));
    assert_eq!(secret_name(&format!("{path}.{root}.secret")), batch(Some(digest)));
    assert_eq!(secret_name("key.id"), Name::Foreign);
}

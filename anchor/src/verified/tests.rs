//! Reads that verify, and every way in which stored bytes can be wrong.

use super::*;
use crate::roots::{outboard_path, segment_path};
use cairn_proof::digest::Digest;
use cairn_proof::{Offset, Partition};
use object_store::memory::InMemory;
use object_store::{GetRange, ObjectStoreExt};
use proptest::prelude::*;
use std::path::PathBuf;
use tempfile::TempDir;

pub(super) const GROUP: usize = GROUP_BYTES as usize;

fn bytes(length: usize, seed: u32) -> Vec<u8> {
    (0..length).map(|i| (i as u32 ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

/// One object of `data`, as an anchor would name it, and its stored tree.
fn anchored(data: &[u8]) -> (Arc<AnchoredObject>, Vec<u8>) {
    let tree = Outboard::of(data).unwrap();
    let (stream, partition, first, blake3) = ("traffic.flow", Partition(1), Offset(10), tree.root());
    let object = AnchoredObject {
        path: segment_path(stream, partition, first, blake3).unwrap(),
        size: data.len() as u64,
        blake3,
        last_modified_ms: 1_700_000_000_000,
        stream: stream.into(),
        partition,
        first,
        last: Offset(19),
    };
    (Arc::new(object), tree.encode())
}

/// One range, as the reading methods take several.
pub(super) fn ranges(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

fn mismatch(fault: &Fault) -> Option<&Mismatch> {
    match fault {
        Fault::Altered(wrong) => Some(wrong),
        _ => None,
    }
}

pub(super) struct Fixture {
    folder: TempDir,
    pub(super) object: Arc<AnchoredObject>,
    pub(super) data: Vec<u8>,
    memory: Arc<InMemory>,
    /// The same object on disk and in memory.
    pub(super) stores: [VerifiedStore; 2],
}

impl Fixture {
    pub(super) async fn new(length: usize) -> Self {
        let data = bytes(length, 1);
        let (object, tree) = anchored(&data);
        let roots = Arc::new(Roots::new());
        roots.insert(Arc::clone(&object));
        let folder = tempfile::tempdir().unwrap();
        let memory = Arc::new(InMemory::new());
        let stores = [
            VerifiedStore::on_disk(folder.path(), Arc::clone(&roots)).unwrap(),
            VerifiedStore::over(Arc::clone(&memory) as Arc<dyn ObjectStore>, roots).unwrap(),
        ];
        let fixture = Self { folder, object, data, memory, stores };
        let data = fixture.data.clone();
        fixture.put(Part::Segment, &data).await;
        fixture.put(Part::Outboard, &tree).await;
        fixture
    }

    fn path(&self, part: Part) -> Path {
        if part == Part::Segment { self.object.path.clone() } else { outboard_path(&self.object.path) }
    }

    fn file(&self, part: Part) -> PathBuf {
        self.folder.path().join(self.path(part).as_ref())
    }

    pub(super) async fn put(&self, part: Part, data: &[u8]) {
        std::fs::create_dir_all(self.file(part).parent().unwrap()).unwrap();
        std::fs::write(self.file(part), data).unwrap();
        self.memory.put(&self.path(part), data.to_vec().into()).await.unwrap();
    }

    async fn remove(&self, part: Part) {
        std::fs::remove_file(self.file(part)).unwrap();
        self.memory.delete(&self.path(part)).await.unwrap();
    }

    /// The store's typed error for reading all of the object through the trait, from fresh stores.
    async fn refusals(&self) -> [VerifyError; 2] {
        let roots = Arc::clone(self.stores[0].roots());
        let disk = VerifiedStore::on_disk(self.folder.path(), Arc::clone(&roots)).unwrap();
        let memory = VerifiedStore::over(Arc::clone(&self.memory) as Arc<dyn ObjectStore>, roots).unwrap();
        let mut errors = Vec::new();
        for store in [disk, memory] {
            let error = store.get_ranges(&self.object.path, &ranges(0..self.object.size)).await.unwrap_err();
            errors.push(VerifyError::find(&error).expect("a typed error").clone());
            assert_eq!(store.counters().failures.get(), 1);
            assert_eq!(store.counters().bytes_asked.get(), 0, "nothing was handed out");
        }
        errors.try_into().unwrap()
    }
}

#[tokio::test]
async fn ranges_come_as_they_were_asked_for() {
    let fixture = Fixture::new(40 * GROUP + 777).await;
    let size = fixture.object.size;
    let asked = [size - 5..size, 3..9, 100..100, 8..20 * GROUP as u64 + 1, 0..1, 30 * GROUP as u64..31 * GROUP as u64];
    for store in &fixture.stores {
        let got = store.get_ranges(&fixture.object.path, &asked).await.unwrap();
        for (range, bytes) in asked.iter().zip(&got) {
            assert_eq!(bytes, &fixture.data[range.start as usize..range.end as usize], "{store} {range:?}");
        }
        // Groups 0 to 20, 30, and 40 were read, each once.
        assert_eq!(store.counters().groups_verified.get(), 23, "{store}");
        assert_eq!(store.counters().bytes_asked.get(), asked.iter().map(|range| range.end - range.start).sum::<u64>());
        assert_eq!(store.counters().trees_loaded.get(), 1);
    }
}

#[tokio::test]
async fn all_ways_to_read_are_verified_and_tell_the_anchors_facts() {
    let fixture = Fixture::new(600 * GROUP + 3).await;
    for store in &fixture.stores {
        let path = &fixture.object.path;
        let head = store.head(path).await.unwrap();
        assert_eq!((head.size, head.last_modified.timestamp_millis()), (fixture.object.size, 1_700_000_000_000));
        let whole = store.get(path).await.unwrap();
        assert!(matches!(whole.payload, GetResultPayload::Stream(_)), "no file may be handed out");
        assert_eq!(whole.bytes().await.unwrap(), fixture.data);
        let suffix = GetOptions { range: Some(GetRange::Suffix(10)), ..Default::default() };
        let suffix = store.get_opts(path, suffix).await.unwrap();
        assert_eq!(suffix.range, fixture.object.size - 10..fixture.object.size);
        assert_eq!(suffix.bytes().await.unwrap(), fixture.data[fixture.data.len() - 10..]);
        assert_eq!(store.get_range(path, 5..9).await.unwrap(), fixture.data[5..9]);
        let changed = GetOptions { if_match: Some("\"other\"".into()), ..Default::default() };
        assert!(matches!(store.get_opts(path, changed).await, Err(Error::Precondition { .. })));
        let beyond = store.get_range(path, fixture.object.size..fixture.object.size + 1).await;
        assert!(beyond.is_err());
        let error = store.get_ranges(path, &ranges(0..fixture.object.size + 1)).await.unwrap_err();
        assert_eq!(VerifyError::find(&error).unwrap().kind(), Kind::Request);
    }
}

#[tokio::test]
async fn listing_shows_anchored_objects_alone_and_writing_is_refused() {
    let fixture = Fixture::new(10).await;
    std::fs::write(fixture.folder.path().join("segments/traffic.flow/1/stray.parquet"), b"x").unwrap();
    for store in &fixture.stores {
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(listed.iter().map(|meta| &meta.location).collect::<Vec<_>>(), [&fixture.object.path]);
        let after: Vec<_> = store.list_with_offset(None, &fixture.object.path).try_collect().await.unwrap();
        assert!(after.is_empty());
        let top = store.list_with_delimiter(Some(&Path::from("segments"))).await.unwrap();
        assert_eq!(top.common_prefixes, [Path::from("segments/traffic.flow")]);
        let leaf = store.list_with_delimiter(Some(&Path::from("segments/traffic.flow/1"))).await.unwrap();
        assert_eq!((leaf.objects.len(), leaf.common_prefixes.len()), (1, 0));
        let stray = Path::from("segments/traffic.flow/1/stray.parquet");
        assert!(matches!(store.get(&stray).await, Err(Error::NotFound { .. })));
        let tree = store.get(&fixture.path(Part::Outboard)).await;
        assert!(matches!(tree, Err(Error::NotFound { .. })), "trees are not served");
        let path = &fixture.object.path;
        let refused = [
            store.put(path, "x".into()).await.err(),
            store.put_multipart(path).await.err(),
            store.delete(path).await.err(),
            store.copy(path, &stray).await.err(),
            store.rename(path, &stray).await.err(),
        ];
        assert!(refused.iter().all(|error| matches!(error, Some(Error::NotImplemented { .. }))), "{refused:?}");
    }
    assert_eq!(std::fs::read(fixture.file(Part::Segment)).unwrap(), fixture.data);
}

#[tokio::test]
async fn a_missing_shortened_or_lengthened_object_is_named() {
    for part in [Part::Segment, Part::Outboard] {
        let fixture = Fixture::new(3 * GROUP + 9).await;
        let whole = std::fs::read(fixture.file(part)).unwrap();
        let size = whole.len() as u64;
        fixture.put(part, &whole[..whole.len() - 1]).await;
        for error in fixture.refusals().await {
            assert_eq!((error.part, &error.fault), (part, &Fault::Size { expected: size, found: size - 1 }));
            assert_eq!(error.path, fixture.path(part).to_string());
        }
        fixture.put(part, &[&whole[..], &[0]].concat()).await;
        let longer = Fault::Size { expected: size, found: size + 1 };
        if part == Part::Outboard {
            assert!(fixture.refusals().await.iter().all(|error| error.fault == longer));
        } else {
            // Elsewhere than on disk this is not noticed, nor need it be: only anchored bytes are asked for and served.
            let [disk, memory] = &fixture.stores;
            let error = disk.get_range(&fixture.object.path, 0..9).await.unwrap_err();
            assert_eq!(VerifyError::find(&error).unwrap().fault, longer);
            assert_eq!(memory.get(&fixture.object.path).await.unwrap().bytes().await.unwrap(), fixture.data);
        }
        fixture.remove(part).await;
        for error in fixture.refusals().await {
            assert_eq!((error.part, &error.fault, error.kind()), (part, &Fault::Missing, Kind::Corrupted));
            assert_eq!((error.stream.as_str(), error.partition), ("traffic.flow", Partition(1)));
            assert_eq!((error.first, error.last), (Offset(10), Offset(19)));
        }
    }
}

#[tokio::test]
async fn head_names_a_missing_or_shortened_segment() {
    let fixture = Fixture::new(GROUP).await;
    std::fs::write(fixture.file(Part::Segment), &fixture.data[1..]).unwrap();
    let error = fixture.stores[0].head(&fixture.object.path).await.unwrap_err();
    let expected = Fault::Size { expected: GROUP_BYTES, found: GROUP_BYTES - 1 };
    assert_eq!(VerifyError::find(&error).unwrap().fault, expected);
    std::fs::remove_file(fixture.file(Part::Segment)).unwrap();
    let error = fixture.stores[0].head(&fixture.object.path).await.unwrap_err();
    assert_eq!(VerifyError::find(&error).unwrap().fault, Fault::Missing);
}

#[tokio::test]
async fn a_tree_that_is_damaged_later_is_noticed_on_disk() {
    let fixture = Fixture::new(3 * GROUP).await;
    let store = &fixture.stores[0];
    store.get_range(&fixture.object.path, 0..1).await.unwrap();
    store.get_range(&fixture.object.path, 1..2).await.unwrap();
    assert_eq!(store.counters().trees_loaded.get(), 1);
    let mut tree = std::fs::read(fixture.file(Part::Outboard)).unwrap();
    tree[100] ^= 1;
    std::fs::remove_file(fixture.file(Part::Outboard)).unwrap();
    std::fs::write(fixture.file(Part::Outboard), tree).unwrap();
    let error = store.get_range(&fixture.object.path, 0..1).await.unwrap_err();
    let error = VerifyError::find(&error).unwrap();
    assert!(matches!(mismatch(&error.fault), Some(Mismatch::OutboardNode { .. })), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn links_and_folders_are_not_followed() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new(100).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = fixture.file(Part::Segment);
    std::fs::rename(&file, elsewhere.path().join("object")).unwrap();
    symlink(elsewhere.path().join("object"), &file).unwrap();
    let read = || async { fixture.stores[0].get_range(&fixture.object.path, 0..1).await.unwrap_err() };
    assert!(read().await.to_string().contains("found a link"), "{}", read().await);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(read().await.to_string().contains("found a folder"), "{}", read().await);
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, &fixture.data).unwrap();
    assert!(fixture.stores[0].get_range(&fixture.object.path, 0..1).await.is_ok());
    let folder = file.parent().unwrap();
    std::fs::rename(folder, elsewhere.path().join("1")).unwrap();
    symlink(elsewhere.path().join("1"), folder).unwrap();
    assert!(read().await.to_string().contains("found a link on the way to it"), "{}", read().await);
}

#[tokio::test]
async fn an_anchor_of_an_impossible_size_takes_no_memory() {
    let fixture = Fixture::new(10).await;
    let (template, _) = anchored(&[1]);
    let huge = Arc::new(AnchoredObject { size: OBJECT_BYTES_MAX + 1, ..(*template).clone() });
    for store in &fixture.stores {
        let error = store.read(&huge, &ranges(0..1)).await.unwrap_err();
        assert!(matches!(mismatch(&error.fault), Some(Mismatch::ObjectTooLarge { .. })), "{error}");
    }
}

#[tokio::test]
async fn an_empty_object_is_served_and_checked() {
    let fixture = Fixture::new(0).await;
    for store in &fixture.stores {
        assert_eq!(store.get(&fixture.object.path).await.unwrap().bytes().await.unwrap(), Bytes::new());
    }
    assert_eq!(fixture.object.blake3, Digest(*blake3::hash(b"").as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn one_flipped_bit_is_refused_where_it_is_read_and_only_there(
        length in 1usize..20 * GROUP, at in 0.0f64..1.0, bit in 0u8..8, part in prop_oneof![Just(Part::Segment), Just(Part::Outboard)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new(length).await;
            let mut stored = std::fs::read(fixture.file(part)).unwrap();
            prop_assume!(!stored.is_empty());
            let at = (at * stored.len() as f64) as usize;
            stored[at] ^= 1 << bit;
            fixture.put(part, &stored).await;
            for error in fixture.refusals().await {
                prop_assert_eq!(error.part, part);
                prop_assert_eq!(error.kind(), Kind::Corrupted);
                match (mismatch(&error.fault), part) {
                    (Some(Mismatch::Data { range, .. }), Part::Segment) => {
                        prop_assert!(range.contains(&(at as u64)));
                    }
                    (Some(Mismatch::OutboardNode { .. }), Part::Outboard) => {}
                    (_, _) => prop_assert!(false, "{}", error),
                }
            }
            if part == Part::Segment {
                // Elsewhere the object stays readable, byte for byte.
                let group = at / GROUP;
                for other in (0..length.div_ceil(GROUP)).filter(|other| *other != group) {
                    let range = other * GROUP..((other + 1) * GROUP).min(length);
                    for store in &fixture.stores {
                        let read = store.get_range(&fixture.object.path, range.start as u64..range.end as u64).await;
                        prop_assert_eq!(&read.unwrap()[..], &fixture.data[range.clone()]);
                    }
                }
            }
            Ok(())
        })?;
    }
}

//! The store with its cache: what is kept, what is not, and what still looks at the stored bytes.

use super::tests::{Fixture, GROUP, ranges};
use super::*;

#[tokio::test]
async fn a_range_that_was_verified_is_read_once() {
    let fixture = Fixture::new(20 * GROUP + 7).await;
    for plain in &fixture.stores {
        let store = plain.clone().with_cache(16 << 20);
        let asked = [5..100, 2 * GROUP as u64..5 * GROUP as u64, 20 * GROUP as u64..20 * GROUP as u64 + 7];
        for _ in 0..3 {
            let found = store.get_ranges(&fixture.object.path, &asked).await.unwrap();
            for (range, bytes) in asked.iter().zip(&found) {
                assert_eq!(bytes, &fixture.data[range.start as usize..range.end as usize]);
            }
        }
        let counters = store.counters();
        assert_eq!(counters.groups_verified.get(), 5, "{store}");
        let bytes: u64 = asked.iter().map(|range| range.end - range.start).sum();
        assert_eq!((counters.bytes_asked.get(), counters.bytes_cached.get()), (3 * bytes, 2 * bytes), "{store}");
        assert!(counters.cache_bytes.get() > 0);
        // A clone shares what is kept; the store that it was made from has no cache.
        store.clone().get_ranges(&fixture.object.path, &asked).await.unwrap();
        assert_eq!(counters.groups_verified.get(), 5);
        plain.get_ranges(&fixture.object.path, &asked).await.unwrap();
        assert_eq!(counters.groups_verified.get(), 10);
    }
}

#[tokio::test]
async fn a_range_that_is_there_in_part_is_read_for_what_is_missing() {
    let fixture = Fixture::new(10 * GROUP).await;
    let store = fixture.stores[0].clone().with_cache(16 << 20);
    let group = GROUP as u64;
    store.get_ranges(&fixture.object.path, &ranges(group..3 * group)).await.unwrap();
    let found =
        store.get_ranges(&fixture.object.path, &[group + 9..2 * group, 7 * group..8 * group, 4..4]).await.unwrap();
    assert_eq!(found[0], fixture.data[GROUP + 9..2 * GROUP]);
    assert_eq!(found[1], fixture.data[7 * GROUP..8 * GROUP]);
    assert!(found[2].is_empty());
    assert_eq!(store.counters().groups_verified.get(), 3);
}

#[tokio::test]
async fn what_does_not_verify_is_not_kept() {
    let fixture = Fixture::new(4 * GROUP).await;
    let stores = fixture.stores.each_ref().map(|store| store.clone().with_cache(16 << 20));
    let mut altered = fixture.data.clone();
    altered[GROUP + 3] ^= 1;
    fixture.put(Part::Segment, &altered).await;
    for store in &stores {
        for _ in 0..2 {
            store.get_ranges(&fixture.object.path, &ranges(0..fixture.object.size)).await.unwrap_err();
        }
        assert_eq!((store.counters().cache_bytes.get(), store.counters().failures.get()), (0, 2), "{store}");
    }
    let data = fixture.data.clone();
    fixture.put(Part::Segment, &data).await;
    for store in &stores {
        let found = store.get_ranges(&fixture.object.path, &ranges(0..fixture.object.size)).await.unwrap();
        assert_eq!(found[0], fixture.data);
    }
}

#[tokio::test]
async fn bytes_in_memory_outlive_a_damaged_object_and_checking_it_does_not_ask_them() {
    let fixture = Fixture::new(4 * GROUP).await;
    for plain in &fixture.stores {
        let store = plain.clone().with_cache(16 << 20);
        let asked = ranges(GROUP as u64..2 * GROUP as u64);
        store.get_ranges(&fixture.object.path, &asked).await.unwrap();
        store.check_whole(&fixture.object).await.unwrap();
        let held = store.counters().cache_bytes.get();
        let mut altered = fixture.data.clone();
        altered[GROUP + 3] ^= 1;
        fixture.put(Part::Segment, &altered).await;
        let found = store.get_ranges(&fixture.object.path, &asked).await.unwrap();
        assert_eq!(found[0], fixture.data[GROUP..2 * GROUP], "the sound bytes, from memory");
        store.get_ranges(&fixture.object.path, &ranges(0..fixture.object.size)).await.unwrap_err();
        let wrong = store.check_whole(&fixture.object).await.unwrap_err();
        assert_eq!(wrong.kind(), Kind::Corrupted);
        assert_eq!(store.counters().cache_bytes.get(), held, "checking keeps nothing");
        let data = fixture.data.clone();
        fixture.put(Part::Segment, &data).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_of_the_same_ranges_get_their_bytes_within_the_limit() {
    let fixture = Fixture::new(64 * GROUP).await;
    let most = 24 * GROUP as u64;
    let store = fixture.stores[0].clone().with_cache(most);
    let data = Arc::new(fixture.data.clone());
    let readers = (0..16_usize).map(|reader| {
        let (store, data, path) = (store.clone(), Arc::clone(&data), fixture.object.path.clone());
        tokio::spawn(async move {
            for round in 0..100 {
                let start = (reader % 4 * 7 + round * 13) % 60 * GROUP;
                let range = start + reader..start + GROUP * (1 + round % 4);
                let asked = ranges(range.start as u64..range.end as u64);
                let found = store.get_ranges(&path, &asked).await.unwrap();
                assert_eq!(found[0], data[range], "reader {reader}, round {round}");
                assert!(store.counters().cache_bytes.get() as u64 <= most);
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    let counters = store.counters();
    assert!(counters.bytes_cached.get() > 0 && counters.cache_evictions.get() > 0);
}

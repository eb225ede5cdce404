//! Altered, shortened and missing objects: refused by name, and the session lives on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{self, City, outboard, stream};
use cairn_query::{Answer, Engine, QueryConfig, QueryError, QueryErrorKind};

/// Reads every column of every row.
const READ_ALL: &str = "SELECT * FROM traffic.flow";

fn refused(result: Result<Answer, QueryError>, what: &str) -> QueryError {
    match result {
        Err(error) => {
            assert_eq!(error.state.0, "XX001", "{what}: {error}");
            assert_eq!(error.kind, QueryErrorKind::Corrupted, "{what}: {error}");
            error
        }
        Ok(answer) => panic!("{what}: {} rows were given", answer.rows()),
    }
}

fn names(error: &QueryError, partition: u32, first: u64, last: u64, object: &Path) {
    let object = object.file_name().unwrap().to_str().unwrap();
    for part in [
        "stream traffic.flow".to_owned(),
        format!("partition {partition}"),
        format!("offsets {first} to {last}"),
        object.to_owned(),
    ] {
        assert!(error.message.contains(&part), "{part:?} is missing in: {error}");
    }
}

async fn others_live(engine: &Engine) {
    let session = engine.session().unwrap();
    let answer = session.sql("SELECT * FROM energy.meter_reading").await.unwrap();
    assert_eq!(answer.rows(), 2, "other streams can be read");
    let answer = session.sql("SELECT * FROM traffic.flow WHERE _partition = 1").await.unwrap();
    assert_eq!(answer.rows(), 2, "other segments of the stream can be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_in_a_segment_is_refused() {
    let city = common::city().await;
    let segment = city.segment("traffic.flow", 0, 0);
    let sound = fs::read(&segment).unwrap();
    for at in (0..sound.len()).step_by((sound.len() / 24).max(1)) {
        let mut altered = sound.clone();
        altered[at] ^= 1 << (at % 8);
        fs::write(&segment, &altered).unwrap();
        let engine = city.engine();
        let error = refused(engine.sql(READ_ALL, None).await, &format!("byte {at}"));
        names(&error, 0, 0, 2, &segment);
        assert!(engine.metrics().refused() > 0);
        assert_eq!(engine.metrics().statements("corrupted"), 1);
        others_live(&engine).await;
    }
    fs::write(&segment, &sound).unwrap();
    assert_eq!(city.engine().sql(READ_ALL, None).await.unwrap().rows(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_hash_tree_is_refused() {
    // Large enough for a tree of more than one group.
    let mut city = City::empty();
    let definition = stream("traffic.flow", &[common::FLOW_V2], 1);
    city.register(definition.clone(), 1);
    let values: Vec<String> = (0..6_000)
        .map(|row| {
            let noise =
                u64::from_be_bytes(cairn_proof::digest::sha256(&[&i32::to_be_bytes(row)]).0[..8].try_into().unwrap());
            format!(r#"{{"detector":"{noise:x}","vehicles":{row}}}"#)
        })
        .collect();
    let rows = common::rows(0, &values.iter().map(String::as_str).collect::<Vec<_>>());
    city.anchor(&definition, 0, 0, 5_999, &rows, 2).await;
    let segment = city.segment("traffic.flow", 0, 0);
    let tree = outboard(&segment);
    let sound = fs::read(&tree).unwrap();
    for at in (0..sound.len()).step_by((sound.len() / 16).max(1)) {
        let mut altered = sound.clone();
        altered[at] ^= 1 << (at % 8);
        fs::write(&tree, &altered).unwrap();
        let error = refused(city.engine().sql(READ_ALL, None).await, &format!("byte {at}"));
        names(&error, 0, 0, 5_999, &segment);
        assert!(error.message.contains("hash tree"), "{error}");
    }
    for (what, shortened) in [("cut", &sound[..sound.len() - 1]), ("empty", &[])] {
        fs::write(&tree, shortened).unwrap();
        names(&refused(city.engine().sql(READ_ALL, None).await, what), 0, 0, 5_999, &segment);
    }
    fs::write(&tree, &sound).unwrap();
    let answer = city.engine().sql("SELECT sum(vehicles) FROM traffic.flow", None).await.unwrap();
    assert_eq!(answer.rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_shortened_and_swapped_objects_are_refused() {
    let city = common::city().await;
    let segment = city.segment("traffic.flow", 0, 3);
    let other = city.segment("traffic.flow", 0, 0);
    let (sound, tree) = (fs::read(&segment).unwrap(), fs::read(outboard(&segment)).unwrap());
    let restore = || {
        fs::write(&segment, &sound).unwrap();
        fs::write(outboard(&segment), &tree).unwrap();
    };
    type Damage<'a> = Box<dyn Fn() + 'a>;
    let cases: Vec<(&str, Damage<'_>)> = vec![
        ("missing segment", Box::new(|| fs::remove_file(&segment).unwrap())),
        ("missing tree", Box::new(|| fs::remove_file(outboard(&segment)).unwrap())),
        ("shortened segment", Box::new(|| fs::write(&segment, &sound[..sound.len() - 1]).unwrap())),
        ("empty segment", Box::new(|| fs::write(&segment, b"").unwrap())),
        ("lengthened segment", Box::new(|| fs::write(&segment, [sound.as_slice(), b"x"].concat()).unwrap())),
        ("lengthened tree", Box::new(|| fs::write(outboard(&segment), [tree.as_slice(), b"x"].concat()).unwrap())),
        (
            "another batch's segment",
            Box::new(|| {
                fs::copy(&other, &segment).unwrap();
            }),
        ),
        (
            "a folder in its place",
            Box::new(|| {
                fs::remove_file(&segment).unwrap();
                fs::create_dir(&segment).unwrap();
            }),
        ),
    ];
    for (what, damage) in cases {
        damage();
        let engine = city.engine();
        let error = refused(engine.sql(READ_ALL, None).await, what);
        names(&error, 0, 3, 4, &segment);
        others_live(&engine).await;
        // Older heights do not need the damaged object.
        let answer = engine.sql("SELECT * FROM traffic.flow AS OF 3", None).await.unwrap();
        assert_eq!(answer.rows(), 3, "{what}");
        if segment.is_dir() {
            fs::remove_dir(&segment).unwrap();
        }
        restore();
        assert_eq!(city.engine().sql(READ_ALL, None).await.unwrap().rows(), 9, "{what}, restored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_records_are_verified_too() {
    let city = common::city().await;
    let segment = city.segment("traffic.flow", 2, 0);
    let mut altered = fs::read(&segment).unwrap();
    let middle = altered.len() / 2;
    altered[middle] ^= 4;
    fs::write(&segment, &altered).unwrap();
    let error = refused(city.engine().sql("SELECT * FROM cairn.quarantine", None).await, "quarantine");
    names(&error, 2, 0, 3, &segment);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_that_names_anothers_object_is_refused() {
    let mut city = common::city().await;
    let foreign = city.entries()[5].anchor.segment.clone();
    city.edit(1, |entry| entry.anchor.segment = foreign);
    let engine = city.engine();
    let error = refused(engine.sql(READ_ALL, None).await, "a foreign object");
    assert!(error.message.contains("stream traffic.flow, partition 0, offsets 3 to 4"), "{error}");
    others_live(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verified_bytes_are_counted() {
    let city = common::city().await;
    let engine = city.engine();
    engine.sql(READ_ALL, None).await.unwrap();
    assert!(engine.metrics().verified_bytes() > 0);
    assert_eq!(engine.metrics().refused(), 0);
    assert_eq!(engine.metrics().statements("ok"), 1);
}

/// Queries go on while bits of the segments that they read are flipped, put right and flipped again. Each answer is
/// either the right rows or an error that says what does not verify; with the cache of verified bytes, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wrong_row_leaves_while_bits_are_flipped() {
    const QUERIES: [&str; 3] = [
        "SELECT * FROM traffic.flow ORDER BY _partition, _offset",
        "SELECT detector, sum(vehicles), avg(speed_kmh) FROM traffic.flow GROUP BY detector ORDER BY detector",
        "SELECT meter['id'], watt_hours, flags FROM energy.meter_reading ORDER BY _offset",
    ];
    const ROUNDS: usize = 40;
    let city = common::city().await;
    let mut expected = Vec::new();
    for query in QUERIES {
        expected.push(city.engine().sql(query, None).await.unwrap().batches);
    }
    let files: Vec<_> = city
        .entries()
        .iter()
        .map(|entry| city.folder.path().join("objects").join(&entry.anchor.segment.path))
        .flat_map(|segment| [outboard(&segment), segment])
        .map(|file| (fs::read(&file).unwrap(), file))
        .filter(|(sound, _)| !sound.is_empty())
        .collect();
    let (right, refused, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    // The files as one writer leaves them; readers take whatever they meet.
    let flips = std::thread::scope(|scope| {
        let runtime = tokio::runtime::Handle::current();
        for reader in 0..3 {
            let (city, expected, stop, right, refused, runtime) =
                (&city, &expected, &stop, &right, &refused, runtime.clone());
            scope.spawn(move || {
                runtime.block_on(async {
                    for round in 0.. {
                        // A new engine now and then: what an old one keeps in memory was verified and is not read again.
                        let cache = u64::from(reader == 0);
                        let config = QueryConfig { verified_cache_mib: cache, ..QueryConfig::default() };
                        let engine = city.engine_with(config);
                        for (query, expected) in QUERIES.iter().zip(expected) {
                            match engine.sql(query, None).await {
                                Ok(answer) => {
                                    assert_eq!(&answer.batches, expected, "a wrong row left: {query}");
                                    right.fetch_add(1, Ordering::Relaxed);
                                }
                                Err(error) => {
                                    let told = [QueryErrorKind::Corrupted, QueryErrorKind::Unavailable];
                                    assert!(told.contains(&error.kind), "{query}: {error}");
                                    refused.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                        if stop.load(Ordering::Relaxed) && round > 2 {
                            break;
                        }
                    }
                });
            });
        }
        let mut flips = 0;
        for round in 0..ROUNDS {
            for (at, (sound, file)) in files.iter().enumerate() {
                if (round + at) % 3 != 0 {
                    continue;
                }
                let mut altered = sound.clone();
                let bit = (round * 7_919 + at * 104_729) % (altered.len() * 8);
                altered[bit / 8] ^= 1 << (bit % 8);
                fs::write(file, &altered).unwrap();
                flips += 1;
            }
            std::thread::sleep(Duration::from_millis(10));
            for (sound, file) in &files {
                fs::write(file, sound).unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        flips
    });
    let (right, refused) = (right.into_inner(), refused.into_inner());
    assert!(flips > 0 && right > 0 && refused > 0, "{flips} bits flipped: {right} answers, {refused} refusals");
    for (query, expected) in QUERIES.iter().zip(&expected) {
        assert_eq!(&city.engine().sql(query, None).await.unwrap().batches, expected, "put right: {query}");
    }
}

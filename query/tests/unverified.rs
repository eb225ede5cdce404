//! Statements that go on without what does not verify, or show it marked as such; and the list of what was found.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{self, City, outboard};
use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use cairn_query::{Answer, QueryErrorKind, Session};

/// The segment of traffic.flow, partition 0, offsets 3 to 4: two of the nine rows.
struct Broken {
    city: City,
    segment: PathBuf,
    sound: Vec<u8>,
    tree: Vec<u8>,
}

impl Broken {
    async fn new() -> Self {
        let city = common::city().await;
        let segment = city.segment("traffic.flow", 0, 3);
        let (sound, tree) = (fs::read(&segment).unwrap(), fs::read(outboard(&segment)).unwrap());
        Self { city, segment, sound, tree }
    }

    fn restore(&self) {
        fs::write(&self.segment, &self.sound).unwrap();
        fs::write(outboard(&self.segment), &self.tree).unwrap();
    }

    fn session(&self, mode: &str) -> Session {
        let session = self.city.engine().session().unwrap();
        session.set("cairn.on_unverified", Some(mode)).unwrap();
        session
    }
}

fn longs(answer: &Answer) -> Vec<i64> {
    answer.batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn one(answer: &Answer) -> i64 {
    assert_eq!(answer.rows(), 1);
    longs(answer)[0]
}

fn names(warnings: &[String], object: &Path) {
    let text = warnings.join("\n");
    let object = object.file_name().unwrap().to_str().unwrap();
    for part in ["stream traffic.flow", "partition 0", "offsets 3 to 4", object] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// What is damaged, the part that `cairn.problems` then names, and how it is done.
type Damage<'a> = (&'static str, &'static str, Box<dyn Fn() + 'a>);

/// Ways to break an object.
fn damages(broken: &Broken) -> Vec<Damage<'_>> {
    let (segment, sound, tree) = (&broken.segment, &broken.sound, &broken.tree);
    let flip = |bytes: &[u8], at: usize| {
        let mut altered = bytes.to_vec();
        altered[at] ^= 8;
        altered
    };
    vec![
        ("a bit of the data", "segment", Box::new(move || fs::write(segment, flip(sound, sound.len() / 3)).unwrap())),
        ("a bit of the footer", "segment", Box::new(move || fs::write(segment, flip(sound, sound.len() - 9)).unwrap())),
        ("a missing segment", "segment", Box::new(move || fs::remove_file(segment).unwrap())),
        ("a shortened segment", "segment", Box::new(move || fs::write(segment, &sound[..sound.len() / 2]).unwrap())),
        ("an empty segment", "segment", Box::new(move || fs::write(segment, b"").unwrap())),
        ("a missing tree", "hash tree", Box::new(move || fs::remove_file(outboard(segment)).unwrap())),
        (
            "a lengthened tree",
            "hash tree",
            Box::new(move || fs::write(outboard(segment), [tree.as_slice(), b"x"].concat()).unwrap()),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_segments_are_left_out_wholly_and_said_to_be() {
    let broken = Broken::new().await;
    for (what, part, damage) in damages(&broken) {
        damage();
        let session = broken.session("exclude");
        for query in
            ["SELECT count(*) FROM traffic.flow", "SELECT count(vehicles) FROM traffic.flow WHERE vehicles >= 0"]
        {
            let answer = session.sql(query).await.unwrap();
            assert_eq!(one(&answer), 7, "{what}: {query}");
            assert!(answer.warnings[0].contains("1 segments with 2 records"), "{what}: {:?}", answer.warnings);
            names(&answer.warnings, &broken.segment);
        }
        let answer = session.sql("SELECT * FROM traffic.flow").await.unwrap();
        assert_eq!(answer.rows(), 7, "{what}");
        let other = session.sql("SELECT * FROM traffic.flow WHERE _partition = 1").await.unwrap();
        assert!(other.warnings.is_empty(), "{what}: what a statement does not read it does not check");

        let listed = session
            .sql("SELECT first_offset, last_offset, times, part, object, block, what FROM cairn.problems")
            .await
            .unwrap();
        assert_eq!(listed.rows(), 1, "{what}");
        let row = &listed.batches[0];
        let long = |at: usize| row.column(at).as_primitive::<Int64Type>().value(0);
        assert_eq!((long(0), long(1), long(2), long(5)), (3, 4, 3, 4), "{what}");
        assert_eq!(row.column(3).as_string::<i32>().value(0), part, "{what}");
        let object = row.column(4).as_string::<i32>().value(0);
        assert!(object.contains(broken.segment.file_name().unwrap().to_str().unwrap()), "{what}: {object}");
        assert!(!row.column(6).as_string::<i32>().value(0).is_empty(), "{what}");

        // The same session refuses again once it is told to.
        session.set("cairn.on_unverified", None).unwrap();
        let error = session.sql("SELECT * FROM traffic.flow").await.unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::Corrupted, "{what}: {error}");
        session.set("cairn.on_unverified", Some("exclude")).unwrap();

        broken.restore();
        let answer = session.sql("SELECT * FROM traffic.flow").await.unwrap();
        assert_eq!((answer.rows(), answer.warnings.len()), (9, 0), "{what}, restored");
        let listed = session.sql("SELECT first_offset FROM cairn.problems").await.unwrap();
        assert_eq!(listed.rows(), 0, "{what}, restored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flagged_rows_say_that_they_are_not_verified() {
    let broken = Broken::new().await;
    let marked = "SELECT _offset FROM traffic.flow WHERE _partition = 0 AND NOT _verified ORDER BY _offset";
    let sound = "SELECT count(*) FROM traffic.flow WHERE _verified";
    for (what, _, damage) in damages(&broken) {
        damage();
        let session = broken.session("flag");
        let answer = session.sql(marked).await.unwrap();
        let found = longs(&answer);
        if what.ends_with("tree") {
            assert_eq!(found, [3, 4], "{what}: the rows themselves can be read");
        }
        if ["a missing segment", "a shortened segment", "an empty segment"].contains(&what) {
            assert!(found.is_empty(), "{what}: {found:?}");
        }
        assert!(found.len() <= 2, "{what}: {found:?}");
        names(&answer.warnings, &broken.segment);
        let told = answer.warnings.join("\n");
        let expected = if found.is_empty() { "left out" } else { "_verified = false" };
        assert!(told.contains(expected), "{what}: {told}");
        assert_eq!(one(&session.sql(sound).await.unwrap()), 7, "{what}");
        broken.restore();
        assert_eq!(session.sql(marked).await.unwrap().rows(), 0, "{what}, restored");
        assert_eq!(one(&session.sql(sound).await.unwrap()), 9, "{what}, restored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flagged_rows_have_the_columns_of_all_others() {
    let broken = Broken::new().await;
    fs::remove_file(outboard(&broken.segment)).unwrap();
    let query = "SELECT vehicles, _block, detector, _verified FROM traffic.flow WHERE _partition = 0 ORDER BY _offset";
    let session = broken.session("flag");
    let answer = session.sql(query).await.unwrap();
    let mut rows = Vec::new();
    for batch in &answer.batches {
        for row in 0..batch.num_rows() {
            rows.push((
                batch.column(0).as_primitive::<Int32Type>().value(row),
                batch.column(1).as_primitive::<Int64Type>().value(row),
                batch.column(2).as_string::<i32>().value(row).to_owned(),
                batch.column(3).as_boolean().value(row),
            ));
        }
    }
    let expected =
        [(10, 2, "D1", true), (20, 2, "D2", true), (30, 2, "D1", true), (40, 4, "D1", false), (50, 4, "D2", false)];
    let expected: Vec<_> = expected.map(|(a, b, c, d)| (a, b, c.to_owned(), d)).into();
    assert_eq!(rows, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_records_of_broken_segments_are_left_out() {
    let broken = Broken::new().await;
    let segment = broken.city.segment("traffic.flow", 2, 0);
    fs::remove_file(&segment).unwrap();
    for mode in ["exclude", "flag"] {
        let session = broken.session(mode);
        let answer = session.sql("SELECT * FROM cairn.quarantine").await.unwrap();
        assert_eq!(answer.rows(), 1, "{mode}");
        assert!(answer.warnings[0].contains("1 segments with 2 records"), "{mode}: {:?}", answer.warnings);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_filled_with_sound_rows() {
    let broken = Broken::new().await;
    let first = broken.city.segment("traffic.flow", 0, 0);
    fs::remove_file(&first).unwrap();
    let session = broken.session("exclude");
    let answer = session.sql("SELECT _offset FROM traffic.flow WHERE _partition = 0 LIMIT 2").await.unwrap();
    assert_eq!(longs(&answer), [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_object_is_left_out_and_never_shown() {
    let mut broken = Broken::new().await;
    let foreign = broken.city.entries()[5].anchor.segment.clone();
    broken.city.edit(1, |entry| entry.anchor.segment = foreign);
    for mode in ["exclude", "flag"] {
        let session = broken.session(mode);
        let answer = session.sql("SELECT * FROM traffic.flow").await.unwrap();
        assert_eq!(answer.rows(), 7, "{mode}");
        let listed = session.sql("SELECT count(*) FROM cairn.problems WHERE part = 'anchor'").await.unwrap();
        assert_eq!(one(&listed), 1, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_lists_the_problem_too() {
    let broken = Broken::new().await;
    fs::remove_file(&broken.segment).unwrap();
    let session = broken.session("refuse");
    session.sql("SELECT * FROM traffic.flow").await.unwrap_err();
    let listed = session.sql("SELECT count(*) FROM cairn.problems WHERE stream = 'traffic.flow' AND block = 4").await;
    assert_eq!(one(&listed.unwrap()), 1);
    let recent = "SELECT count(*) FROM cairn.problems WHERE since <= last_seen AND since > '2020-01-01T00:00:00Z'";
    assert_eq!(one(&session.sql(recent).await.unwrap()), 1);
}

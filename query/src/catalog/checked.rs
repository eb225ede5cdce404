//! Sorts segments into sound and broken ones before any row is given, for statements that go on without the broken.
//!
//! Each segment is checked whole, from its first byte to its last, and is in the answer wholly or not at all: what an
//! answer leaves out must not depend on which columns it happens to read. That reads every segment that the anchors'
//! facts do not rule out, which is why refusing, the default, does not do it. The scan verifies again what it reads, so
//! a segment that is changed in between fails the statement.
//!
//! A store that does not answer says nothing about the bytes: then the statement fails in every mode, to be tried again.

use std::sync::Arc;

use cairn_anchor::verified::{Kind, VerifiedStore};
use cairn_chain_client::AnchorEntry;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use futures::{StreamExt, stream};

use super::facts::valid_records;
use super::segments::own_object;
use crate::problems::{Problem, Problems};
use crate::scope::{OnUnverified, StatementScope};

/// How many segments are checked at a time.
const CHECKED_AT_ONCE: usize = 4;

type Entry = Arc<AnchorEntry>;

/// Segments by what they are.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    pub(crate) sound: Vec<Entry>,
    pub(crate) broken: Vec<(Entry, Problem)>,
}

/// The entries that a table shows which has no column to flag a row with: all of them, or, where the statement asks not to be
/// refused, those that verify; what is left out is told with the number of its `rows`.
pub(crate) async fn shown(
    scope: &Arc<StatementScope>,
    store: &VerifiedStore,
    problems: &Problems,
    entries: Vec<Entry>,
    rows: impl Fn(&AnchorEntry) -> u64,
) -> Result<Vec<Entry>> {
    if scope.on_unverified == OnUnverified::Refuse {
        return Ok(entries);
    }
    let sorted = sort_out(&scope.observing(store), problems, entries, None).await?;
    for (entry, problem) in &sorted.broken {
        scope.left_out(problem, rows(entry));
    }
    Ok(sorted.sound)
}

/// Checks `entries` in their order, and lists what is found. With `enough`, stops once the sound ones hold so many valid
/// records.
pub(crate) async fn sort_out(
    store: &VerifiedStore,
    problems: &Problems,
    entries: Vec<Entry>,
    enough: Option<usize>,
) -> Result<Sorted> {
    let mut sorted = Sorted::default();
    let mut rows = 0_u64;
    let mut checks = stream::iter(entries)
        .map(|entry| {
            let store = store.clone();
            async move {
                let checked = check(&store, &entry).await;
                (entry, checked)
            }
        })
        .buffered(CHECKED_AT_ONCE);
    while enough.is_none_or(|enough| rows < enough as u64) {
        let Some((entry, checked)) = checks.next().await else { break };
        let anchor = &entry.anchor;
        match checked? {
            None => {
                problems.sound(&anchor.stream, anchor.partition.0, anchor.first.0);
                rows = rows.saturating_add(valid_records(anchor));
                sorted.sound.push(entry);
            }
            Some(problem) => {
                problems.met(problem.clone());
                sorted.broken.push((entry, problem));
            }
        }
    }
    Ok(sorted)
}

/// What is wrong with a segment, if anything.
async fn check(store: &VerifiedStore, entry: &Entry) -> Result<Option<Problem>> {
    let block = Some(entry.height);
    let object = match own_object(store, &entry.anchor) {
        Ok(object) => object,
        Err(foreign) => return Ok(Some(Problem::foreign(&foreign, block))),
    };
    match store.check_whole(&object).await {
        Ok(()) => Ok(None),
        Err(refused) if refused.kind() == Kind::Corrupted => Ok(Some(Problem::refused(&refused, block))),
        Err(error) => Err(DataFusionError::External(Box::new(error))),
    }
}

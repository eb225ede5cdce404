//! Removing what a crash or a lost race left in the stores: objects and batch secrets that no anchor names, and never will.
//!
//! Ingest makes a batch durable before it submits the anchor, so at any moment the stores hold objects that no anchor
//! names *yet*. How old they are does not tell them from orphans: a chain out of reach, or a paused process, can hold an
//! anchor back for days. The chain itself tells them apart, exactly:
//!
//! ```text
//! offsets of a partition   0 ──────────────────────────── next ────────────────▶
//! a batch that begins      below `next`                   at or above `next`
//! and that no anchor names can never be anchored (I1):    may be on its way to the chain:
//!                          an orphan                      kept, however old
//! ```
//!
//! An anchor has to begin at its partition's head, and heads only go up. So the verdict on what begins below a head that
//! was final once cannot be overtaken by a later block, and a chain that is followed late can only spare more. Each is
//! given anew, right before the removal, by the newest block followed. What begins above the head becomes an orphan, or is
//! anchored, once ingest has gone on past it.
//!
//! Names alone are judged; nothing is read. Kept besides: what is younger than asked for, and what is named as nothing
//! that Cairn writes. Unfinished files (see `durable`) are no batch's, so their age alone decides, ten minutes at least; a process that slept on
//! one for that long fails to finish it and writes it again.
//!
//! A store of another chain would be judged by the wrong heads: the store's mark has to name this chain (see
//! [`crate::store`]).

use crate::roots::{OUTBOARD_SUFFIX, SEGMENT_SUFFIX, SEGMENTS_FOLDER};
use crate::secrets::{SECRET_SUFFIX, SecretError, SecretStore};
use crate::store::{SegmentStore, StoreError, is_unfinished};
use cairn_chain_client::{Follower, Ledger};
use cairn_proof::statement::{Anchor, ChainTag};
use cairn_proof::{Digest, Height, Offset, Partition};
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use object_store::path::Path;
use serde::Serialize;
use std::collections::HashSet;
use std::time::Duration;

/// Most orphans that a report names; further ones are counted.
pub const ORPHANS_MAX: usize = 1_000;
/// What is younger is spared, unless told otherwise.
pub const OLDER_THAN: Duration = Duration::from_secs(60 * 60);

/// Files that are not finished are spared for so long at least: somebody may be writing them.
const UNFINISHED_OLDER_THAN: TimeDelta = TimeDelta::minutes(10);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Spare what was last changed less than this long ago.
    pub older_than: Duration,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// In which store something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The store of segments and hash trees.
    Objects,
    /// The store of batch secrets.
    Secrets,
}

/// Something that no anchor names and that none will ever name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Where it lies.
    pub place: Place,
    /// Its name there.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it is a file that was never finished.
    pub unfinished: bool,
}

/// What was found, and removed unless it was a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The chain's height when it ended.
    pub height: Height,
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// Objects and secrets that were looked at.
    pub examined: u64,
    /// Those that a finalized anchor names.
    pub anchored: u64,
    /// Those that no anchor names, and that may be on their way to the chain.
    pub waiting: u64,
    /// Those that were spared for their age alone.
    pub young: u64,
    /// Those that Cairn did not name.
    pub foreign: u64,
    /// The orphans, at most [`ORPHANS_MAX`] of them.
    pub orphans: Vec<Orphan>,
    /// How many there were.
    pub orphans_total: u64,
    /// Their bytes.
    pub orphans_bytes: u64,
}

/// Why not everything could be looked at or removed. What was removed until then was an orphan; run it again.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The store holds the objects of another chain, or of none that it names.
    #[error(
        "the store belongs to {found}, this chain is {expected}: only orphans of this chain can be told; an ingest that \
         wrote there for this chain leaves its mark"
    )]
    OtherChain {
        /// What the mark says.
        found: String,
        /// This chain's tag.
        expected: String,
    },
    /// The store of segments.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its listing broke off.
    #[error("the store cannot be listed: {0}")]
    List(#[from] object_store::Error),
    /// The store of secrets.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A task of ours ended before its work.
    #[error("the work on the secrets ended early: {reason}")]
    Ended {
        /// How.
        reason: String,
    },
}

/// What a name says about a stored thing.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// It belongs to the batch that begins there; a secret has the records root too.
    Batch { segment: String, root: Option<Digest>, stream: String, partition: Partition, first: Offset },
    /// A crash left it.
    Unfinished,
    /// It is none of Cairn's.
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Anchored,
    Waiting,
    Young,
    Foreign,
    Orphan { unfinished: bool },
}

/// All that anchors name, by path and by path and records root: besides an anchor's own place in the chain, in case one
/// names an object in a place that is not its own.
struct Named {
    segments: HashSet<String>,
    secrets: HashSet<(String, Digest)>,
}

impl Named {
    fn by(ledger: &Ledger) -> Self {
        let anchors = || ledger.all_anchors().iter().map(|entry| &entry.anchor);
        Self {
            segments: anchors().map(|anchor| anchor.segment.path.clone()).collect(),
            secrets: anchors().map(secret_of).collect(),
        }
    }

    fn has(&self, segment: &str, root: Option<Digest>) -> bool {
        match root {
            None => self.segments.contains(segment),
            Some(root) => self.secrets.contains(&(segment.to_owned(), root)),
        }
    }
}

fn secret_of(anchor: &Anchor) -> (String, Digest) {
    (anchor.segment.path.clone(), anchor.records_root)
}

struct Judge<'a> {
    follower: &'a Follower,
    named: Named,
    /// What was changed after this is spared.
    young_after: DateTime<Utc>,
    /// The same for files that are not finished.
    unfinished_after: DateTime<Utc>,
}

impl Judge<'_> {
    /// The verdict by the newest block that is followed at this moment.
    fn judge(&self, name: &Name, modified: DateTime<Utc>) -> Verdict {
        let Name::Batch { segment, root, stream, partition, first } = name else {
            let young = modified > self.unfinished_after;
            return match name {
                Name::Unfinished if young => Verdict::Young,
                Name::Unfinished => Verdict::Orphan { unfinished: true },
                _ => Verdict::Foreign,
            };
        };
        let ledger = self.follower.ledger();
        let own = ledger.anchor_of(stream, *partition, *first).map(|entry| &entry.anchor);
        let is_own = own.is_some_and(|anchor| {
            anchor.segment.path == *segment && root.is_none_or(|root| root == anchor.records_root)
        });
        if is_own || self.named.has(segment, *root) {
            return Verdict::Anchored;
        }
        // `<` and not `<=`: the next anchor begins at the head.
        let is_past = ledger.state().head(stream, *partition).is_some_and(|head| *first < head.next);
        match is_past {
            false => Verdict::Waiting,
            true if modified > self.young_after => Verdict::Young,
            true => Verdict::Orphan { unfinished: false },
        }
    }
}

impl Report {
    /// Counts a verdict; whether the thing is to be removed.
    fn count(&mut self, verdict: Verdict, place: Place, path: &str, bytes: u64) -> bool {
        self.examined += 1;
        let unfinished = match verdict {
            Verdict::Anchored => {
                self.anchored += 1;
                return false;
            }
            Verdict::Waiting => {
                self.waiting += 1;
                return false;
            }
            Verdict::Young => {
                self.young += 1;
                return false;
            }
            Verdict::Foreign => {
                self.foreign += 1;
                return false;
            }
            Verdict::Orphan { unfinished } => unfinished,
        };
        self.orphans_total += 1;
        self.orphans_bytes += bytes;
        if self.orphans.len() < ORPHANS_MAX {
            self.orphans.push(Orphan { place, path: path.to_owned(), bytes, unfinished });
        }
        !self.dry_run
    }
}

/// Looks at everything in both stores and removes the orphans.
///
/// The follower should have caught up with the chain; one that has not spares more. May run beside any number of ingest
/// processes.
///
/// # Errors
/// [`GcError`]; what was removed until then stays removed, and running it again goes on.
pub async fn collect(
    follower: &Follower,
    segments: &SegmentStore,
    secrets: &SecretStore,
    options: Options,
) -> Result<Report, GcError> {
    let (tag, named) = {
        let ledger = follower.ledger();
        (ledger.genesis().tag(), Named::by(&ledger))
    };
    check_mark(segments, &tag).await?;
    let age = TimeDelta::from_std(options.older_than).unwrap_or(TimeDelta::MAX);
    let young_after = Utc::now().checked_sub_signed(age).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let unfinished_after = young_after.min(Utc::now() - UNFINISHED_OLDER_THAN);
    let judge = Judge { follower, named, young_after, unfinished_after };
    let mut report = Report { dry_run: options.dry_run, ..Report::default() };
    of_objects(segments, &judge, &mut report).await?;
    let report = of_secrets(secrets, judge, report).await?;
    Ok(Report { height: follower.ledger().height(), ..report })
}

async fn check_mark(segments: &SegmentStore, tag: &ChainTag) -> Result<(), GcError> {
    let found = match segments.mark().await? {
        Some(found) if found == *tag => return Ok(()),
        Some(other) => format!("the chain {}", other.0),
        None => "no chain: it has no mark".to_owned(),
    };
    Err(GcError::OtherChain { found, expected: tag.0.to_string() })
}

async fn of_objects(segments: &SegmentStore, judge: &Judge<'_>, report: &mut Report) -> Result<(), GcError> {
    let mut listed = segments.list()?;
    loop {
        let meta = match listed.try_next().await {
            Ok(Some(meta)) => meta,
            // A store without a single segment has no folder yet.
            Ok(None) | Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let verdict = judge.judge(&object_name(&meta.location), meta.last_modified);
        if report.count(verdict, Place::Objects, meta.location.as_ref(), meta.size) {
            segments.remove(&meta.location).await?;
        }
    }
}

async fn of_secrets(secrets: &SecretStore, judge: Judge<'_>, mut report: Report) -> Result<Report, GcError> {
    let (secrets, follower) = (secrets.clone(), judge.follower.clone());
    let Judge { named, young_after, unfinished_after, .. } = judge;
    let task = tokio::task::spawn_blocking(move || {
        let judge = Judge { follower: &follower, named, young_after, unfinished_after };
        secrets.visit(|path, modified, bytes| {
            let verdict = judge.judge(&secret_name(path), modified);
            report.count(verdict, Place::Secrets, path, bytes)
        })?;
        Ok(report)
    });
    task.await.unwrap_or_else(|ended| Err(GcError::Ended { reason: ended.to_string() }))
}

/// `segments/<stream>/<partition>/<first offset>-<BLAKE3>.parquet`, with `.obao` for the hash tree.
fn object_name(path: &Path) -> Name {
    if is_unfinished(path) {
        return Name::Unfinished;
    }
    let segment = path.as_ref().strip_suffix(OUTBOARD_SUFFIX).unwrap_or(path.as_ref());
    let parsed = segment.strip_prefix(SEGMENTS_FOLDER).and_then(|below| below.strip_prefix('/')).and_then(place);
    batch(segment.to_owned(), None, parsed)
}

/// `<stream>/<partition>/<first offset>-<BLAKE3>.<records root>.secret`.
fn secret_name(path: &str) -> Name {
    if is_unfinished(&Path::from(path)) {
        return Name::Unfinished;
    }
    let parts = path.strip_suffix(SECRET_SUFFIX).and_then(|name| name.rsplit_once('.'));
    let Some((segment, root)) = parts.and_then(|(name, root)| Some((name, digest(root)?))) else {
        return Name::Foreign;
    };
    let segment = format!("{segment}{SEGMENT_SUFFIX}");
    let parsed = place(&segment);
    batch(format!("{SEGMENTS_FOLDER}/{segment}"), Some(root), parsed)
}

fn batch(segment: String, root: Option<Digest>, place: Option<(String, Partition, Offset)>) -> Name {
    match place {
        Some((stream, partition, first)) => Name::Batch { segment, root, stream, partition, first },
        None => Name::Foreign,
    }
}

/// Stream, partition and first offset out of a segment's path below the folder of segments.
fn place(below: &str) -> Option<(String, Partition, Offset)> {
    let mut parts = below.split('/');
    let (stream, partition, name) = (parts.next()?, parts.next()?, parts.next()?);
    let (first, hash) = name.strip_suffix(SEGMENT_SUFFIX)?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let whole = parts.next().is_none() && first.len() == 20 && digits(first) && digits(partition);
    let place = (stream.to_owned(), Partition(partition.parse().ok()?), Offset(first.parse().ok()?));
    (whole && digest(hash).is_some()).then_some(place)
}

fn digest(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    // One spelling each: a name in capitals is none that Cairn wrote.
    (hex::encode(digest) == text).then_some(Digest(digest))
}

#[cfg(test)]
#[path = "gc_tests.rs"]
mod tests;

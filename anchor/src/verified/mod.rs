//! An object store that hands out only bytes that a finalized anchor vouches for.
//!
//! [`VerifiedStore`] stands in front of an untrusted store. Names, sizes, times and listings come from the chain
//! ([`Roots`]); each range that is asked for is widened to whole chunk groups, read, hashed, compared with the hash tree
//! whose root the chain holds, and only then handed on. Whatever engine reads through it is verified without knowing.
//!
//! ```text
//! get_ranges(path, ranges)
//!   anchor of the path        ── none: NotFound
//!   bytes verified before     ── from this process's memory, if a cache is wanted (`with_cache`)
//!   hash tree                 ── from a bounded cache, or read and folded to the anchored root
//!   align, sort, merge        ── whole 16 KiB groups, each read once
//!   read, hash, compare       ── one blocking task on a local disk; elsewhere requests for close ranges, then hash
//!   slices of the buffers     ── no copy; the bytes handed out are the bytes that were hashed
//! ```
//!
//! What it is not: a way to write: every write is refused.
//!
//! Whoever caches what was read through it (DataFusion's footer cache) keys by path, size and time, not by store: give
//! that reader a runtime of its own, or an unverified store in the same session would fill the cache for both.

mod cache;
#[cfg(test)]
mod cache_tests;
mod counters;
mod disk;
mod error;
#[cfg(test)]
mod tests;
mod trees;

pub use counters::{Counters, Work};
pub use error::{Fault, Kind, Part, VerifyError};

use crate::outboard::{GROUP_BYTES, Mismatch, OBJECT_BYTES_MAX, Outboard, align, outboard_size};
use crate::roots::{AnchoredObject, Roots};
use async_trait::async_trait;
use bytes::Bytes;
use cache::ByteCache;
use chrono::{DateTime, Utc};
use disk::Disk;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, Result, coalesce_ranges,
};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use trees::{FileStamp, TreeCache};

/// Memory that verified hash trees may take, unless told otherwise: enough for 60 GB of segments.
pub const TREE_CACHE_BYTES: u64 = 256 << 20;
/// An object that is read as a stream is read in pieces of this size.
const PIECE_BYTES: u64 = 4 << 20;
/// Fewer bytes than this are hashed where they arrive; more go to a blocking task.
const INLINE_HASH_BYTES: u64 = 256 << 10;

/// Where the untrusted bytes lie.
#[derive(Debug)]
enum Backend {
    Disk(Disk),
    Remote(Arc<dyn ObjectStore>),
}

#[derive(Debug)]
struct Inner {
    backend: Backend,
    roots: Arc<Roots>,
    trees: TreeCache,
    counters: Counters,
}

/// An [`ObjectStore`] over another one that serves anchored objects alone, and of them verified bytes alone.
///
/// A clone is the same store. Needs a Tokio runtime, as hashing and file access run in its blocking tasks.
#[derive(Debug, Clone)]
pub struct VerifiedStore {
    inner: Arc<Inner>,
    observer: Option<Observer>,
    cache: Option<Arc<ByteCache>>,
}

type Hear = dyn Fn(&AnchoredObject, &Work) + Send + Sync;

/// Hears, for each read, whose bytes were verified and how much work it was.
#[derive(Clone)]
pub struct Observer(Arc<Hear>);

impl Observer {
    /// An observer that is called once a read, before its bytes are handed out.
    pub fn new(hear: impl Fn(&AnchoredObject, &Work) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl fmt::Display for VerifiedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.backend {
            Backend::Disk(disk) => write!(f, "verified({})", disk.root().display()),
            Backend::Remote(store) => write!(f, "verified({store})"),
        }
    }
}

/// Why a verified store could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of objects cannot be entered.
    #[error("the folder of objects {folder} cannot be opened: {source}")]
    Folder {
        /// The folder.
        folder: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A bug: the counters have impossible names.
    #[error("the counters cannot be set up: {0}")]
    Counters(#[from] prometheus::Error),
}

impl VerifiedStore {
    /// Over the files in a folder.
    ///
    /// # Errors
    /// [`OpenError::Folder`], if it does not exist.
    pub fn on_disk(folder: &std::path::Path, roots: Arc<Roots>) -> Result<Self, OpenError> {
        let disk =
            Disk::new(folder).map_err(|source| OpenError::Folder { folder: folder.display().to_string(), source })?;
        Self::with_backend(Backend::Disk(disk), roots)
    }

    /// Over any other store, such as one in a cloud.
    ///
    /// # Errors
    /// Only by a bug.
    pub fn over(store: Arc<dyn ObjectStore>, roots: Arc<Roots>) -> Result<Self, OpenError> {
        Self::with_backend(Backend::Remote(store), roots)
    }

    fn with_backend(backend: Backend, roots: Arc<Roots>) -> Result<Self, OpenError> {
        let (trees, counters) = (TreeCache::new(TREE_CACHE_BYTES), Counters::new()?);
        Ok(Self { inner: Arc::new(Inner { backend, roots, trees, counters }), observer: None, cache: None })
    }

    /// The registry that it reads by.
    pub fn roots(&self) -> &Arc<Roots> {
        &self.inner.roots
    }

    /// What it did so far.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// The same store, whose reads `observer` hears of besides the counters.
    #[must_use]
    pub fn observed_by(&self, observer: Observer) -> Self {
        Self { observer: Some(observer), ..self.clone() }
    }

    /// The same store, keeping up to `bytes_max` of verified bytes in memory for readers that come back for them.
    ///
    /// Clones share what is kept. With 0 nothing is. A range that is kept is answered without a look at the stored
    /// object: what is done to it afterwards shows when other ranges of it are read, and in [`Self::check_whole`].
    #[must_use]
    pub fn with_cache(self, bytes_max: u64) -> Self {
        let Counters { cache_bytes, cache_evictions, .. } = &self.inner.counters;
        let cache =
            (bytes_max > 0).then(|| Arc::new(ByteCache::new(bytes_max, cache_bytes.clone(), cache_evictions.clone())));
        Self { cache, ..self }
    }

    /// Reads an object from its first byte to its last and checks all of it, as it is stored now; nothing is kept.
    ///
    /// # Errors
    /// [`VerifyError`], at the first part that does not verify.
    pub async fn check_whole(&self, object: &Arc<AnchoredObject>) -> Result<(), VerifyError> {
        let (stored, mut at) = (Self { cache: None, ..self.clone() }, 0);
        loop {
            let end = (at + PIECE_BYTES).min(object.size);
            stored.read(object, std::slice::from_ref(&(at..end))).await?;
            at = end;
            if at >= object.size {
                return Ok(());
            }
        }
    }

    /// The stored bytes of an object **as they are, unverified**, at most as many as the anchor says and `most`.
    ///
    /// For showing what stands in the place of an object that was refused, marked as such; for nothing else.
    ///
    /// # Errors
    /// [`VerifyError`], if there is nothing to read.
    pub async fn read_unverified(&self, object: &Arc<AnchoredObject>, most: u64) -> Result<Vec<u8>, VerifyError> {
        let most = most.min(object.size);
        if let Backend::Remote(store) = &self.inner.backend {
            let store = store.as_ref();
            return match get_at_most(store, &object.path, most).await {
                Ok(bytes) => Ok(bytes),
                Err(error) => Err(remote_failure(store, object, Part::Segment, object.size, &error).await),
            };
        }
        let (inner, asked) = (Arc::clone(&self.inner), Arc::clone(object));
        let task = tokio::task::spawn_blocking(move || match &inner.backend {
            Backend::Disk(disk) => {
                disk.read_unverified(&asked.path, most).map_err(|fault| VerifyError::new(&asked, Part::Segment, fault))
            }
            Backend::Remote(_) => {
                Err(VerifyError::new(&asked, Part::Segment, Fault::NotAFile { found: "a remote store" }))
            }
        });
        task.await.unwrap_or_else(|stopped| Err(unreadable(object, Part::Segment, &stopped)))
    }

    /// Verified bytes of an anchored object: one buffer a range, in the order of the ranges.
    ///
    /// The same as `get_ranges`, for callers that want the typed error.
    ///
    /// # Errors
    /// [`VerifyError`]; nothing is handed out unless all of it verified.
    pub async fn read(&self, object: &Arc<AnchoredObject>, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, VerifyError> {
        let result = self.read_uncounted(object, ranges).await;
        match &result {
            Ok(_) => self.inner.counters.bytes_asked.inc_by(ranges.iter().map(|range| range.end - range.start).sum()),
            Err(_) => self.inner.counters.failures.inc(),
        }
        result
    }

    async fn read_uncounted(
        &self,
        object: &Arc<AnchoredObject>,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, VerifyError> {
        let size = object.size;
        if size > OBJECT_BYTES_MAX {
            return Err(VerifyError::new(object, Part::Segment, Mismatch::ObjectTooLarge { size }));
        }
        if let Some(range) = ranges.iter().find(|range| range.start > range.end || range.end > size) {
            let fault = Fault::Range { start: range.start, end: range.end, size };
            return Err(VerifyError::new(object, Part::Segment, fault));
        }
        let known = match &self.cache {
            Some(cache) => cache.get(object, ranges),
            None => vec![None; ranges.len()],
        };
        let bytes_cached = known.iter().flatten().map(|bytes| bytes.len() as u64).sum();
        let missing: Vec<_> =
            ranges.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(range, _)| range.clone()).collect();
        let merged = merge(&missing, size);
        // A read of no bytes still asks for the object's tree, unless all that was asked for is here.
        let (buffers, work) = match missing.is_empty() && !ranges.is_empty() {
            true => (Ok(Vec::new()), Work::default()),
            false => self.read_merged(object, merged.clone()).await,
        };
        let work = Work { bytes_cached, ..work };
        self.inner.counters.add(&work);
        if let Some(Observer(hear)) = &self.observer {
            hear(object, &work);
        }
        let buffers = buffers?;
        self.keep(object, &merged, &buffers);
        let fetched = |range: &Range<u64>| slice(range, &merged, &buffers);
        Ok(ranges.iter().zip(known).map(|(range, known)| known.unwrap_or_else(|| fetched(range))).collect())
    }

    /// Puts what was just verified into the cache, if there is one.
    fn keep(&self, object: &AnchoredObject, merged: &[Range<u64>], buffers: &[Bytes]) {
        let Some(cache) = &self.cache else { return };
        for (range, buffer) in merged.iter().zip(buffers) {
            match &self.inner.backend {
                Backend::Disk(_) => cache.insert(object, range.start, buffer),
                // What another store hands over may be a small part of a large buffer: keep what is counted, no more.
                Backend::Remote(_) => cache.insert(object, range.start, &Bytes::copy_from_slice(buffer)),
            }
        }
    }

    async fn read_merged(
        &self,
        object: &Arc<AnchoredObject>,
        merged: Vec<Range<u64>>,
    ) -> (Result<Vec<Bytes>, VerifyError>, Work) {
        let (inner, object) = (Arc::clone(&self.inner), Arc::clone(object));
        match &self.inner.backend {
            Backend::Remote(store) => {
                let mut work = Work::default();
                (inner.read_remote(store.as_ref(), &object, merged, &mut work).await, work)
            }
            Backend::Disk(_) => {
                let asked = Arc::clone(&object);
                let task = tokio::task::spawn_blocking(move || {
                    let mut work = Work::default();
                    (inner.read_disk(&object, &merged, &mut work), work)
                });
                let failed = |stopped| (Err(unreadable(&asked, Part::Segment, &stopped)), Work::default());
                task.await.unwrap_or_else(failed)
            }
        }
    }

    async fn check_present(&self, object: &Arc<AnchoredObject>) -> Result<(), VerifyError> {
        let (inner, asked) = (Arc::clone(&self.inner), Arc::clone(object));
        if let Backend::Remote(_) = inner.backend {
            // Asking would cost a round trip a file; a missing object shows when it is read.
            return Ok(());
        }
        let task = tokio::task::spawn_blocking(move || match &inner.backend {
            Backend::Disk(disk) => disk.check_present(&asked),
            Backend::Remote(_) => Ok(()),
        });
        let result = task.await.unwrap_or_else(|stopped| Err(unreadable(object, Part::Segment, &stopped)));
        result.inspect_err(|_| self.inner.counters.failures.inc())
    }

    fn lookup(&self, path: &Path) -> Result<Arc<AnchoredObject>> {
        self.inner.roots.get(path).ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "no finalized anchor names this object".into(),
        })
    }

    fn refuse_write(&self, operation: &str) -> Error {
        Error::NotImplemented { operation: operation.to_owned(), implementer: self.to_string() }
    }

    /// The object's bytes of `range` as a stream of verified pieces.
    fn pieces(&self, object: Arc<AnchoredObject>, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        let store = self.clone();
        let starts = (range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES)).map(|piece| piece * PIECE_BYTES);
        stream::iter(starts)
            .then(move |start| {
                let (store, object) = (store.clone(), Arc::clone(&object));
                let piece = start.max(range.start)..(start + PIECE_BYTES).min(range.end);
                async move { Ok(store.read(&object, &[piece]).await?.swap_remove(0)) }
            })
            .boxed()
    }
}

impl Inner {
    fn read_disk(
        &self,
        object: &AnchoredObject,
        merged: &[Range<u64>],
        work: &mut Work,
    ) -> Result<Vec<Bytes>, VerifyError> {
        let Backend::Disk(disk) = &self.backend else {
            return Err(VerifyError::new(object, Part::Segment, Fault::NotAFile { found: "a remote store" }));
        };
        let tree = disk.tree(object, &self.trees, work)?;
        disk.read(object, &tree, merged, work)
    }

    async fn read_remote(
        self: Arc<Self>,
        store: &dyn ObjectStore,
        object: &Arc<AnchoredObject>,
        merged: Vec<Range<u64>>,
        work: &mut Work,
    ) -> Result<Vec<Bytes>, VerifyError> {
        let tree = self.remote_tree(store, object, work).await?;
        if merged.is_empty() {
            return Ok(Vec::new());
        }
        let fetch = |range| get_range_at_most(store, &object.path, range);
        let buffers = match coalesce_ranges(&merged, fetch, OBJECT_STORE_COALESCE_DEFAULT).await {
            Ok(buffers) => buffers,
            Err(error) => return Err(remote_failure(store, object, Part::Segment, object.size, &error).await),
        };
        let total: u64 = merged.iter().map(|range| range.end - range.start).sum();
        if total <= INLINE_HASH_BYTES {
            return check(object, &tree, &merged, buffers, work);
        }
        let (asked, mut done) = (Arc::clone(object), *work);
        let task = tokio::task::spawn_blocking(move || {
            let checked = check(&asked, &tree, &merged, buffers, &mut done);
            (checked, done)
        });
        let (checked, done) =
            task.await.unwrap_or_else(|stopped| (Err(unreadable(object, Part::Segment, &stopped)), *work));
        *work = done;
        checked
    }

    async fn remote_tree(
        &self,
        store: &dyn ObjectStore,
        object: &AnchoredObject,
        work: &mut Work,
    ) -> Result<Arc<Outboard>, VerifyError> {
        let stamp = FileStamp::default();
        if let Some(tree) = self.trees.get(&object.path, stamp) {
            return Ok(tree);
        }
        let refused = |fault| VerifyError::new(object, Part::Outboard, fault);
        let expected = outboard_size(object.size);
        let stored = match get_at_most(store, &object.outboard_path(), expected).await {
            Ok(stored) => stored,
            Err(error) => return Err(remote_failure(store, object, Part::Outboard, expected, &error).await),
        };
        if stored.len() as u64 != expected {
            return Err(refused(Fault::Size { expected, found: stored.len() as u64 }));
        }
        let tree = Outboard::decode(&stored, object.size, object.blake3).map_err(|wrong| refused(wrong.into()))?;
        let tree = Arc::new(tree);
        work.trees_loaded += 1;
        self.trees.insert(&object.path, stamp, &tree);
        Ok(tree)
    }
}

/// Checks buffers that another store handed over, their lengths included.
fn check(
    object: &AnchoredObject,
    tree: &Outboard,
    merged: &[Range<u64>],
    buffers: Vec<Bytes>,
    work: &mut Work,
) -> Result<Vec<Bytes>, VerifyError> {
    let refused = |fault| VerifyError::new(object, Part::Segment, fault);
    if buffers.len() != merged.len() {
        let reason = format!("{} ranges were asked for, {} came", merged.len(), buffers.len());
        return Err(refused(Fault::Unreadable { reason }));
    }
    let started = Instant::now();
    let mut verified = 0;
    for (range, buffer) in merged.iter().zip(&buffers) {
        let found = buffer.len() as u64;
        if found != range.end - range.start {
            return Err(refused(Fault::Size { expected: object.size, found: range.start + found }));
        }
        tree.verify(range.start, buffer).map_err(|wrong| refused(wrong.into()))?;
        verified += found;
    }
    work.hash_nanoseconds += started.elapsed().as_nanos() as u64;
    work.bytes_verified += verified;
    work.groups_verified += verified.div_ceil(GROUP_BYTES);
    Ok(buffers)
}

/// Reads a whole object, and stops one byte after `size`: a store cannot make us take more memory.
pub(crate) async fn get_at_most(store: &dyn ObjectStore, path: &Path, size: u64) -> Result<Vec<u8>> {
    collect_at_most(store.get(path).await?, size).await
}

/// Reads a range of an object, and stops one byte after its end.
async fn get_range_at_most(store: &dyn ObjectStore, path: &Path, range: Range<u64>) -> Result<Bytes> {
    let size = range.end - range.start;
    let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
    Ok(collect_at_most(store.get_opts(path, options).await?, size).await?.into())
}

async fn collect_at_most(found: GetResult, size: u64) -> Result<Vec<u8>> {
    let mut stream = found.into_stream();
    let mut bytes = Vec::with_capacity(size as usize);
    while let Some(piece) = stream.try_next().await? {
        let room = (size + 1 - bytes.len() as u64) as usize;
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if bytes.len() as u64 > size {
            break;
        }
    }
    Ok(bytes)
}

/// Names what is wrong behind an error of another store: stores report a shortened object in many ways, so ask its size.
async fn remote_failure(
    store: &dyn ObjectStore,
    object: &AnchoredObject,
    part: Part,
    expected: u64,
    error: &Error,
) -> VerifyError {
    let path = if part == Part::Segment { object.path.clone() } else { object.outboard_path() };
    let fault = match (error, store.head(&path).await) {
        (Error::NotFound { .. }, _) | (_, Err(Error::NotFound { .. })) => Fault::Missing,
        (_, Ok(meta)) if meta.size != expected => Fault::Size { expected, found: meta.size },
        _ => Fault::Unreadable { reason: error.to_string() },
    };
    VerifyError::new(object, part, fault)
}

fn unreadable(object: &AnchoredObject, part: Part, error: &dyn fmt::Display) -> VerifyError {
    VerifyError::new(object, part, Fault::Unreadable { reason: error.to_string() })
}

/// Widens ranges to whole groups, sorts them, and joins those that overlap or touch. Empty ranges need nothing.
fn merge(ranges: &[Range<u64>], size: u64) -> Vec<Range<u64>> {
    let mut aligned: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).map(|range| align(range, size)).collect();
    aligned.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(aligned.len());
    for range in aligned {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The bytes of `range` out of the merged buffer that covers it.
fn slice(range: &Range<u64>, merged: &[Range<u64>], buffers: &[Bytes]) -> Bytes {
    if range.is_empty() {
        return Bytes::new();
    }
    let at = merged.partition_point(|whole| whole.start <= range.start) - 1;
    let start = merged[at].start;
    buffers[at].slice((range.start - start) as usize..(range.end - start) as usize)
}

/// What a reader is told about an object: the anchor's facts, never the store's.
fn meta(object: &AnchoredObject) -> ObjectMeta {
    ObjectMeta {
        location: object.path.clone(),
        last_modified: DateTime::<Utc>::from_timestamp_millis(object.last_modified_ms)
            .unwrap_or(DateTime::<Utc>::MAX_UTC),
        size: object.size,
        e_tag: Some(format!("\"{}\"", object.blake3)),
        version: None,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)] // A method left to its default could hand out bytes past the check.
impl ObjectStore for VerifiedStore {
    /// `get`, `get_range` and `head` arrive here.
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let object = self.lookup(location)?;
        let meta = meta(&object);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(object.size).map_err(|invalid| Error::Generic {
                store: error::STORE_NAME,
                source: format!("{location}: {invalid}").into(),
            })?,
            None => 0..object.size,
        };
        let payload = if options.head {
            self.check_present(&object).await?;
            stream::empty().boxed()
        } else if range.end - range.start <= PIECE_BYTES {
            let bytes = self.read(&object, std::slice::from_ref(&range)).await?.swap_remove(0);
            stream::once(async move { Ok(bytes) }).boxed()
        } else {
            self.pieces(object, range.clone())
        };
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes: Attributes::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let object = self.lookup(location)?;
        Ok(self.read(&object, ranges).await?)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::iter(self.inner.roots.list(prefix)).map(|object| Ok(meta(&object))).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut objects = self.inner.roots.list(prefix);
        objects.retain(|object| object.path > *offset);
        stream::iter(objects).map(|object| Ok(meta(&object))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.cloned().unwrap_or_default();
        let (mut common_prefixes, mut objects) = (BTreeSet::new(), Vec::new());
        for object in self.inner.roots.list(prefix) {
            let mut below = object.path.prefix_match(&folder).into_iter().flatten();
            match (below.next(), below.next()) {
                (Some(child), Some(_)) => drop(common_prefixes.insert(folder.clone().join(child))),
                (Some(_), None) => objects.push(meta(&object)),
                (None, _) => {}
            }
        }
        Ok(ListResult { common_prefixes: common_prefixes.into_iter().collect(), objects })
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(self.refuse_write("writing"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(self.refuse_write("writing"))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations.map(move |_| Err(store.refuse_write("deleting"))).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(self.refuse_write("copying"))
    }

    async fn rename_opts(&self, _: &Path, _: &Path, _: RenameOptions) -> Result<()> {
        Err(self.refuse_write("renaming"))
    }
}

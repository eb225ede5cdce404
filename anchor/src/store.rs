//! Where segments and their hash trees are written: the object first, then its tree, both durable before they count.
//!
//! Names follow from the content (see [`crate::roots`]), so writing the same batch again changes nothing, and two
//! writers cannot disturb each other. On a disk a file is replaced by one with the right content. Elsewhere objects are
//! only ever made, never replaced (`If-None-Match: *`): one that is there already must hold the same bytes, and one that
//! holds others is refused and left as it is, as evidence, until somebody removes it.
//! An object that no anchor names is an orphan of a lost race or a crash; it is
//! harmless and takes space until somebody removes it.

use crate::durable::{Folder, UNFINISHED_SUFFIX, remove_file};
use crate::roots::{OUTBOARD_SUFFIX, Roots, SEGMENTS_FOLDER, outboard_path};
use crate::s3::{self, S3Config, S3Credentials, S3Error, S3Location};
use crate::seal::Sealed;
use crate::verified::{OpenError, VerifiedStore, get_at_most};
use bytes::Bytes;
use cairn_proof::Digest;
use cairn_proof::statement::ChainTag;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::io::{self, Read as _};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Most characters of what a store said that are passed on.
const REASON_CHARS_MAX: usize = 1_000;

/// What an object could not be written, listed or removed for. The batch is not lost: keep it and try again.
#[derive(Debug, thiserror::Error)]
#[error("{path} in {store}: {reason}")]
pub struct StoreError {
    /// The object.
    pub path: String,
    /// The store.
    pub store: String,
    /// What it said.
    pub reason: String,
}

/// The object that says which chain's records a store holds.
pub const MARK: &str = "chain";
/// What it begins with; the chain's tag in hexadecimal and a newline follow.
const MARK_VERSION: &str = "cairn/objects/v1 ";
const MARK_BYTES: u64 = MARK_VERSION.len() as u64 + 64 + 1;

#[derive(Debug, Clone)]
enum Backend {
    Disk(Arc<Folder>),
    Remote(Arc<dyn ObjectStore>, String),
}

/// The store of segments. A clone is the same store.
#[derive(Debug, Clone)]
pub struct SegmentStore {
    backend: Backend,
    /// The chain whose segments are written, if it is known.
    chain: Option<ChainTag>,
    /// Done once the store is known to be marked with it.
    marked: Arc<OnceCell<()>>,
}

impl SegmentStore {
    /// A folder on a local disk; it is made if need be.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn on_disk(folder: &std::path::Path) -> Result<Self, StoreError> {
        let opened = Folder::open(folder, false).map_err(|error| StoreError {
            path: SEGMENTS_FOLDER.to_owned(),
            store: folder.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self::of(Backend::Disk(Arc::new(opened))))
    }

    /// A bucket of S3, or of a service that speaks its protocol. Nothing is asked of it yet.
    ///
    /// `root_certificate` are PEM certificates that the service is checked by besides those of the system.
    ///
    /// # Errors
    /// [`S3Error`], if it cannot be reached as configured.
    pub fn on_s3(
        location: &S3Location,
        config: &S3Config,
        credentials: &S3Credentials,
        root_certificate: Option<&[u8]>,
    ) -> Result<Self, S3Error> {
        let store = s3::open(location, config, credentials, root_certificate)?;
        Ok(Self::of(Backend::Remote(Arc::new(store), location.to_string())))
    }

    /// Any other store. It must be durable when a put returns, and know puts that only create, as cloud stores do.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        let name = store.to_string();
        Self::of(Backend::Remote(store, name))
    }

    fn of(backend: Backend) -> Self {
        Self { backend, chain: None, marked: Arc::default() }
    }

    /// The same store, for the segments of that chain alone: the first write marks it, and it is not written to if it is
    /// marked with another.
    ///
    /// Names of objects do not tell chains apart, so two chains in one store could take each other's objects for orphans.
    #[must_use]
    pub fn of_chain(self, chain: ChainTag) -> Self {
        Self { chain: Some(chain), marked: Arc::default(), ..self }
    }

    /// The chain that the store is marked with.
    ///
    /// # Errors
    /// If the mark cannot be read, or is none.
    pub async fn mark(&self) -> Result<Option<ChainTag>, StoreError> {
        let path = Path::from(MARK);
        let found = match &self.backend {
            Backend::Disk(folder) => match std::fs::File::open(folder.root().join(MARK)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => read_at_most(opened, MARK_BYTES + 1).map_err(|error| self.failed(&path, &error))?,
            },
            Backend::Remote(store, _) => match get_at_most(store.as_ref(), &path, MARK_BYTES).await {
                Err(Error::NotFound { .. }) => return Ok(None),
                found => found.map_err(|error| self.failed(&path, &error))?,
            },
        };
        let wrong =
            || self.failed(&path, &format!("expected {MARK_VERSION:?} and a chain's tag, found something else"));
        parse_mark(&found).map(Some).ok_or_else(wrong)
    }

    /// Marks the store with the chain it is for, unless it is marked already.
    async fn claim(&self) -> Result<(), StoreError> {
        let Some(chain) = self.chain else { return Ok(()) };
        if self.mark().await?.is_none() {
            let (path, mark) = (Path::from(MARK), Bytes::from(format!("{MARK_VERSION}{}\n", chain.0)));
            match &self.backend {
                Backend::Disk(folder) => {
                    let written = folder.write(std::path::Path::new(""), &[(MARK, &mark)]);
                    written.map_err(|error| self.failed(&path, &error))?;
                }
                Backend::Remote(store, _) => {
                    // Another process may have marked it in between: whose mark it is, is read next.
                    match store.put_opts(&path, PutPayload::from(mark), PutOptions::from(PutMode::Create)).await {
                        Ok(_) | Err(Error::AlreadyExists { .. }) => {}
                        Err(error) => return Err(self.failed(&path, &error)),
                    }
                }
            }
        }
        match self.mark().await? {
            Some(found) if found == chain => Ok(()),
            found => {
                let found = found.map_or_else(|| "none".to_owned(), |found| found.0.to_string());
                let expected = chain.0;
                let reason = format!(
                    "the store is marked with the chain {found}, this one is {expected}: give each chain a folder of its own"
                );
                Err(self.failed(&Path::from(MARK), &reason))
            }
        }
    }

    /// Writes the segment, then its hash tree. When this returns, both are durable.
    ///
    /// # Errors
    /// [`StoreError`]; writing it again later is safe.
    pub async fn put(&self, sealed: &Sealed) -> Result<(), StoreError> {
        self.marked.get_or_try_init(|| self.claim()).await?;
        let path = Path::from(sealed.anchor.segment.path.as_str());
        match &self.backend {
            Backend::Disk(folder) => {
                let (folder, sealed, at) = (Arc::clone(folder), sealed.clone(), path.clone());
                let task = tokio::task::spawn_blocking(move || write_files(&folder, &at, &sealed));
                let result = task.await.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
                result.map_err(|error| self.failed(&path, &error))
            }
            Backend::Remote(store, _) => {
                for (path, bytes) in [(path.clone(), &sealed.segment), (outboard_path(&path), &sealed.outboard)] {
                    create(store.as_ref(), &path, bytes).await.map_err(|reason| self.failed(&path, &reason))?;
                }
                Ok(())
            }
        }
    }

    /// Reading of what finalized anchors name, verified.
    ///
    /// # Errors
    /// If the folder is gone.
    pub fn verified(&self, roots: Arc<Roots>) -> Result<VerifiedStore, OpenError> {
        match &self.backend {
            Backend::Disk(folder) => VerifiedStore::on_disk(folder.root(), roots),
            Backend::Remote(store, _) => VerifiedStore::over(Arc::clone(store), roots),
        }
    }

    /// Everything that lies in the folder of segments, hash trees and unfinished files included, anchored or not.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn list(&self) -> Result<BoxStream<'static, object_store::Result<ObjectMeta>>, StoreError> {
        let folder = Path::from(SEGMENTS_FOLDER);
        Ok(match &self.backend {
            Backend::Remote(store, _) => store.list(Some(&folder)),
            Backend::Disk(root) => {
                let local = object_store::local::LocalFileSystem::new_with_prefix(root.root())
                    .map_err(|error| self.failed(&folder, &error))?;
                local.list(Some(&folder)).boxed()
            }
        })
    }

    /// Removes an object; one that is gone is removed.
    pub(crate) async fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let removed = match &self.backend {
            Backend::Disk(folder) => {
                let file = path.parts().fold(folder.root().to_owned(), |at, part| at.join(part.as_ref()));
                remove_file(&file).map_err(|error| error.to_string())
            }
            Backend::Remote(store, _) => match store.delete(path).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        };
        removed.map_err(|reason| self.failed(path, &reason))
    }

    fn failed(&self, path: &Path, error: &dyn std::fmt::Display) -> StoreError {
        let store = match &self.backend {
            Backend::Disk(folder) => folder.root().display().to_string(),
            Backend::Remote(_, name) => name.clone(),
        };
        let reason = error.to_string().chars().take(REASON_CHARS_MAX).collect();
        StoreError { path: path.to_string(), store, reason }
    }
}

/// Makes an object, or finds it there with the same bytes.
async fn create(store: &dyn ObjectStore, path: &Path, bytes: &Bytes) -> Result<(), String> {
    let options = PutOptions::from(PutMode::Create);
    match store.put_opts(path, PutPayload::from(bytes.clone()), options).await {
        Ok(_) => return Ok(()),
        Err(Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.to_string()),
    }
    let found = get_at_most(store, path, bytes.len() as u64).await;
    let found = found.map_err(|error| format!("it is there already and cannot be compared: {error}"))?;
    if found == *bytes {
        return Ok(());
    }
    let size = bytes.len();
    Err(format!(
        "it is there already with other content than the {size} bytes that belong there; nothing was written over it: \
         find out who changed it, then remove it"
    ))
}

fn parse_mark(bytes: &[u8]) -> Option<ChainTag> {
    let tag = std::str::from_utf8(bytes).ok()?.strip_prefix(MARK_VERSION)?.strip_suffix('\n')?;
    let mut digest = [0; 32];
    hex::decode_to_slice(tag, &mut digest).ok()?;
    Some(ChainTag(Digest(digest)))
}

fn read_at_most(file: io::Result<std::fs::File>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a listed object is what a crash left of a file that was being written.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.starts_with('.') && name.ends_with(UNFINISHED_SUFFIX))
}

fn write_files(folder: &Folder, path: &Path, sealed: &Sealed) -> std::io::Result<()> {
    let (below, name) = path.as_ref().rsplit_once('/').unwrap_or(("", path.as_ref()));
    let tree = format!("{name}{OUTBOARD_SUFFIX}");
    folder.write(std::path::Path::new(below), &[(name, &sealed.segment), (&tree, &sealed.outboard)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::AnchoredObject;
    use crate::seal::tests::sealed;
    use futures::TryStreamExt;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn what_is_written_can_be_read_verified() {
        let temp = tempfile::tempdir().unwrap();
        let stores = [
            SegmentStore::on_disk(&temp.path().join("objects")).unwrap(),
            SegmentStore::over(Arc::new(InMemory::new())),
        ];
        let sealed = sealed(1000, 0);
        for store in stores {
            store.put(&sealed).await.unwrap();
            store.put(&sealed).await.expect("writing the same batch again changes nothing");
            let roots = Arc::new(Roots::new());
            let object = Arc::new(AnchoredObject::from_anchor(&sealed.anchor, 5).unwrap());
            roots.insert(Arc::clone(&object));
            let verified = store.verified(roots).unwrap();
            assert_eq!(verified.get(&object.path).await.unwrap().bytes().await.unwrap(), sealed.segment);
            let listed: Vec<_> = store.list().unwrap().map_ok(|meta| meta.location).try_collect().await.unwrap();
            let mut expected = vec![object.path.clone(), object.outboard_path()];
            expected.sort();
            let mut listed = listed;
            listed.sort();
            assert_eq!(listed, expected);
            for _ in 0..2 {
                store.remove(&object.path).await.expect("what is gone is removed");
            }
            let left: Vec<_> = store.list().unwrap().map_ok(|meta| meta.location).try_collect().await.unwrap();
            assert_eq!(left, [object.outboard_path()]);
        }
    }

    #[tokio::test]
    async fn an_object_with_other_content_is_not_written_over() {
        let memory = Arc::new(InMemory::new());
        let store = SegmentStore::over(Arc::clone(&memory) as Arc<dyn ObjectStore>);
        let sealed = sealed(10, 0);
        let path = Path::from(sealed.anchor.segment.path.as_str());
        let mut other = sealed.segment.to_vec();
        other[7] ^= 1;
        for wrong in [other, vec![], sealed.segment[1..].to_vec(), [&sealed.segment[..], b"x"].concat()] {
            memory.put(&path, wrong.clone().into()).await.unwrap();
            let error = store.put(&sealed).await.unwrap_err();
            assert!(error.path == path.as_ref() && error.reason.contains("with other content"), "{error}");
            assert_eq!(memory.get(&path).await.unwrap().bytes().await.unwrap(), wrong, "it is left as it was");
        }
        memory.delete(&path).await.unwrap();
        store.put(&sealed).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_is_of_one_chain() {
        let temp = tempfile::tempdir().unwrap();
        let (ours, theirs) = (ChainTag(Digest([1; 32])), ChainTag(Digest([2; 32])));
        let folder = temp.path().join("objects");
        for store in [SegmentStore::on_disk(&folder).unwrap(), SegmentStore::over(Arc::new(InMemory::new()))] {
            let sealed = sealed(10, 0);
            assert_eq!(store.mark().await.unwrap(), None);
            store.put(&sealed).await.unwrap();
            assert_eq!(store.mark().await.unwrap(), None, "who writes for no chain in particular leaves no mark");
            store.clone().of_chain(ours).put(&sealed).await.unwrap();
            store.clone().of_chain(ours).put(&sealed).await.unwrap();
            assert_eq!(store.mark().await.unwrap(), Some(ours));
            let error = store.clone().of_chain(theirs).put(&sealed).await.unwrap_err();
            let tags = [ours.0.to_string(), theirs.0.to_string()];
            assert!(error.path == MARK && tags.iter().all(|tag| error.reason.contains(tag)), "{error}");
        }
        let good = std::fs::read(folder.join(MARK)).unwrap();
        assert_eq!(good, format!("cairn/objects/v1 {}\n", "01".repeat(32)).into_bytes());
        for wrong in [&good[1..], &good[..good.len() - 1], b"", &[&good[..], b"x"].concat()] {
            std::fs::write(folder.join(MARK), wrong).unwrap();
            let error = SegmentStore::on_disk(&folder).unwrap().mark().await.unwrap_err();
            assert!(error.reason.contains("cairn/objects/v1"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_written_says_which_object_and_where() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("objects");
        let store = SegmentStore::on_disk(&root).unwrap();
        std::fs::write(root.join(SEGMENTS_FOLDER), b"in the way").unwrap();
        let sealed = sealed(10, 0);
        let error = store.put(&sealed).await.unwrap_err();
        assert_eq!((&error.path, &error.store), (&sealed.anchor.segment.path, &root.display().to_string()));
    }
}

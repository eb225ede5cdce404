//! Where segments and their hash trees are written: the object first, then its tree, both durable before they count.
//!
//! Names follow from the content (see [`crate::roots`]), so writing the same batch again changes nothing, and two
//! writers cannot disturb each other. An object that no anchor names is an orphan of a lost race or a crash; it is
//! harmless and takes space until somebody removes it.

use crate::durable::{Folder, UNFINISHED_SUFFIX};
use crate::roots::{OUTBOARD_SUFFIX, Roots, SEGMENTS_FOLDER, outboard_path};
use crate::seal::Sealed;
use crate::verified::{OpenError, VerifiedStore};
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use std::sync::Arc;

/// Why an object could not be written. The batch is not lost: keep it and try again.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be written to {store}: {reason}")]
pub struct StoreError {
    /// The object.
    pub path: String,
    /// The store.
    pub store: String,
    /// What it said.
    pub reason: String,
}

#[derive(Debug, Clone)]
enum Backend {
    Disk(Arc<Folder>),
    Remote(Arc<dyn ObjectStore>),
}

/// The store of segments. A clone is the same store.
#[derive(Debug, Clone)]
pub struct SegmentStore {
    backend: Backend,
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
        Ok(Self { backend: Backend::Disk(Arc::new(opened)) })
    }

    /// Any other store. It must be durable when a put returns, as cloud stores are.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { backend: Backend::Remote(store) }
    }

    /// Writes the segment, then its hash tree. When this returns, both are durable.
    ///
    /// # Errors
    /// [`StoreError`]; writing it again later is safe.
    pub async fn put(&self, sealed: &Sealed) -> Result<(), StoreError> {
        let path = Path::from(sealed.anchor.segment.path.as_str());
        match &self.backend {
            Backend::Disk(folder) => {
                let (folder, sealed, at) = (Arc::clone(folder), sealed.clone(), path.clone());
                let task = tokio::task::spawn_blocking(move || write_files(&folder, &at, &sealed));
                let result = task.await.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
                result.map_err(|error| self.failed(&path, &error))
            }
            Backend::Remote(store) => {
                for (path, bytes) in [(path.clone(), &sealed.segment), (outboard_path(&path), &sealed.outboard)] {
                    let put = store.put(&path, PutPayload::from(bytes.clone())).await;
                    put.map_err(|error| self.failed(&path, &error))?;
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
            Backend::Remote(store) => VerifiedStore::over(Arc::clone(store), roots),
        }
    }

    /// Everything that lies in the folder of segments, hash trees and unfinished files included, anchored or not.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn list(&self) -> Result<BoxStream<'static, object_store::Result<ObjectMeta>>, StoreError> {
        let folder = Path::from(SEGMENTS_FOLDER);
        Ok(match &self.backend {
            Backend::Remote(store) => store.list(Some(&folder)),
            Backend::Disk(root) => {
                let local = object_store::local::LocalFileSystem::new_with_prefix(root.root())
                    .map_err(|error| self.failed(&folder, &error))?;
                local.list(Some(&folder)).boxed()
            }
        })
    }

    fn failed(&self, path: &Path, error: &dyn std::fmt::Display) -> StoreError {
        let store = match &self.backend {
            Backend::Disk(folder) => folder.root().display().to_string(),
            Backend::Remote(store) => store.to_string(),
        };
        StoreError { path: path.to_string(), store, reason: error.to_string() }
    }
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

//! A bounded cache of verified hash trees, the least recently used one leaving first.

use crate::outboard::Outboard;
use object_store::path::Path;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Which state of a file a tree was read from: a changed file is read again, so that a damaged tree does not go
/// unnoticed for as long as a process lives. Soundness does not hang on it, the tree itself was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FileStamp(pub(super) [i64; 6]);

#[derive(Debug)]
struct Entry {
    tree: Arc<Outboard>,
    stamp: FileStamp,
    used: u64,
}

#[derive(Debug, Default)]
struct Content {
    entries: HashMap<Path, Entry>,
    /// From the time of last use to the path.
    order: BTreeMap<u64, Path>,
    bytes: u64,
    clock: u64,
}

/// Trees by the path of the object they belong to.
#[derive(Debug)]
pub(super) struct TreeCache {
    content: Mutex<Content>,
    bytes_max: u64,
}

impl TreeCache {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { content: Mutex::default(), bytes_max }
    }

    /// The tree of the object at `path`, if it was read from the same state of the file.
    pub(super) fn get(&self, path: &Path, stamp: FileStamp) -> Option<Arc<Outboard>> {
        let mut content = self.lock();
        let Content { entries, order, clock, .. } = &mut *content;
        let entry = entries.get_mut(path).filter(|entry| entry.stamp == stamp)?;
        order.remove(&entry.used);
        *clock += 1;
        entry.used = *clock;
        order.insert(entry.used, path.clone());
        Some(Arc::clone(&entry.tree))
    }

    /// Keeps a verified tree; others leave until the limit holds again. One that is larger than the limit is not kept.
    pub(super) fn insert(&self, path: &Path, stamp: FileStamp, tree: &Arc<Outboard>) {
        let bytes = tree.memory_bytes();
        if bytes > self.bytes_max {
            return;
        }
        let mut content = self.lock();
        content.remove(path);
        while content.bytes + bytes > self.bytes_max {
            let Some((_, oldest)) = content.order.first_key_value() else { break };
            let oldest = oldest.clone();
            content.remove(&oldest);
        }
        content.clock += 1;
        let used = content.clock;
        content.bytes += bytes;
        content.order.insert(used, path.clone());
        content.entries.insert(path.clone(), Entry { tree: Arc::clone(tree), stamp, used });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn remove(&mut self, path: &Path) {
        if let Some(entry) = self.entries.remove(path) {
            self.order.remove(&entry.used);
            self.bytes -= entry.tree.memory_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_tree_leaves_and_the_limit_holds() {
        let tree = Arc::new(Outboard::of(&[1; 100_000]).unwrap());
        let cache = TreeCache::new(tree.memory_bytes() * 2);
        let stamp = FileStamp([1; 6]);
        let path = |name: &str| Path::from(name);
        for name in ["a", "b"] {
            cache.insert(&path(name), stamp, &tree);
        }
        assert!(cache.get(&path("a"), stamp).is_some());
        cache.insert(&path("c"), stamp, &tree);
        let there = ["a", "b", "c"].map(|name| cache.get(&path(name), stamp).is_some());
        assert_eq!(there, [true, false, true]);
        assert!(cache.get(&path("a"), FileStamp([2; 6])).is_none(), "a changed file is read again");
        assert_eq!(cache.lock().bytes, tree.memory_bytes() * 2);
        cache.insert(&path("a"), FileStamp([2; 6]), &tree);
        {
            let content = cache.lock();
            assert_eq!(content.entries.len(), content.order.len());
        }
        let small = TreeCache::new(10);
        small.insert(&path("a"), stamp, &tree);
        assert!(small.get(&path("a"), stamp).is_none());
    }
}

//! Verified reading of plain files under one folder, all of it within one blocking task.
//!
//! The bytes that are hashed are the bytes that are handed out: each is read once into a buffer of this process, and a
//! buffer whose check fails is dropped. What happens to the file in between cannot matter. Reading goes in steps of
//! 256 KiB, so that a step is hashed while it is still in the processor's cache.
//!
//! Links are not followed: a file counts only if its real path is the one below the root folder that its name says.

use super::counters::Work;
use super::error::{Fault, Part, VerifyError};
use super::trees::{FileStamp, TreeCache};
use crate::outboard::{GROUP_BYTES, Outboard, outboard_size};
use crate::roots::AnchoredObject;
use bytes::Bytes;
use object_store::path::Path;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that are read and hashed at a time; steps end on multiples of it, so that large subtrees stay whole.
const STEP_BYTES: u64 = 256 << 10;

/// A folder of objects, by its real path.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
}

impl Disk {
    /// # Errors
    /// If the folder does not exist or cannot be entered.
    pub(super) fn new(root: &std::path::Path) -> io::Result<Self> {
        Ok(Self { root: root.canonicalize()? })
    }

    pub(super) fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// Whether the object is there with the anchored size, without reading it.
    pub(super) fn check_present(&self, object: &AnchoredObject) -> Result<(), VerifyError> {
        let refused = |fault| VerifyError::new(object, Part::Segment, fault);
        let metadata = self.locate(&object.path).and_then(|path| path.metadata().map_err(io_fault)).map_err(refused)?;
        check_size(&metadata, object.size).map_err(refused)
    }

    /// The verified tree of the object, from the cache if the stored one has not changed since.
    pub(super) fn tree(
        &self,
        object: &AnchoredObject,
        cache: &TreeCache,
        work: &mut Work,
    ) -> Result<Arc<Outboard>, VerifyError> {
        let refused = |fault| VerifyError::new(object, Part::Outboard, fault);
        let path = self.locate(&object.outboard_path()).map_err(refused)?;
        let metadata = path.metadata().map_err(|error| refused(io_fault(error)))?;
        let stamp = stamp(&metadata);
        if let Some(tree) = cache.get(&object.path, stamp) {
            return Ok(tree);
        }
        let stored = read_whole(&path, outboard_size(object.size)).map_err(refused)?;
        let tree = Outboard::decode(&stored, object.size, object.blake3).map_err(|wrong| refused(wrong.into()))?;
        let tree = Arc::new(tree);
        work.trees_loaded += 1;
        cache.insert(&object.path, stamp, &tree);
        Ok(tree)
    }

    /// Reads and checks ranges of whole groups, in order, without overlap.
    pub(super) fn read(
        &self,
        object: &AnchoredObject,
        tree: &Outboard,
        ranges: &[Range<u64>],
        work: &mut Work,
    ) -> Result<Vec<Bytes>, VerifyError> {
        let refused = |fault| VerifyError::new(object, Part::Segment, fault);
        let open = || {
            let file = File::open(self.locate(&object.path)?).map_err(io_fault)?;
            check_size(&file.metadata().map_err(io_fault)?, object.size)?;
            Ok(file)
        };
        let mut file = open().map_err(refused)?;
        ranges.iter().map(|range| read_range(&mut file, tree, range, work).map_err(refused)).collect()
    }

    /// The stored bytes as they are, at most `most` of them, unverified.
    pub(super) fn read_unverified(&self, path: &Path, most: u64) -> Result<Vec<u8>, Fault> {
        let file = File::open(self.locate(path)?).map_err(io_fault)?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).map_err(io_fault)?;
        Ok(bytes)
    }

    /// The file that an object's path names, if neither it nor a folder on the way to it is a link.
    fn locate(&self, path: &Path) -> Result<PathBuf, Fault> {
        let file: PathBuf = path.parts().fold(self.root.clone(), |folder, part| folder.join(part.as_ref()));
        let kind = file.symlink_metadata().map_err(io_fault)?.file_type();
        let found = match () {
            () if kind.is_symlink() => "a link",
            () if kind.is_dir() => "a folder",
            () if !kind.is_file() => "a device, pipe or socket",
            () if file.canonicalize().map_err(io_fault)? != file => "a link on the way to it",
            () => return Ok(file),
        };
        Err(Fault::NotAFile { found })
    }
}

fn read_range(file: &mut File, tree: &Outboard, range: &Range<u64>, work: &mut Work) -> Result<Bytes, Fault> {
    file.seek(SeekFrom::Start(range.start)).map_err(io_fault)?;
    let mut buffer = Vec::with_capacity((range.end - range.start) as usize);
    let (mut read_ns, mut hash_ns) = (0, 0);
    let mut at = range.start;
    while at < range.end {
        let end = ((at / STEP_BYTES + 1) * STEP_BYTES).min(range.end);
        let from = buffer.len();
        let started = Instant::now();
        let read = file.by_ref().take(end - at).read_to_end(&mut buffer).map_err(io_fault)?;
        let between = Instant::now();
        if read as u64 != end - at {
            // It was long enough when it was opened: somebody cuts it right now.
            return Err(Fault::Size { expected: tree.size(), found: at + read as u64 });
        }
        tree.verify(at, &buffer[from..])?;
        read_ns += (between - started).as_nanos() as u64;
        hash_ns += between.elapsed().as_nanos() as u64;
        at = end;
    }
    work.read_nanoseconds += read_ns;
    work.hash_nanoseconds += hash_ns;
    work.bytes_verified += range.end - range.start;
    work.groups_verified += (range.end - range.start).div_ceil(GROUP_BYTES);
    Ok(Bytes::from(buffer))
}

/// Reads a file that must have exactly `size` bytes; never takes more memory than that.
fn read_whole(path: &std::path::Path, size: u64) -> Result<Vec<u8>, Fault> {
    let file = File::open(path).map_err(io_fault)?;
    check_size(&file.metadata().map_err(io_fault)?, size)?;
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(size).read_to_end(&mut bytes).map_err(io_fault)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(Fault::Size { expected: size, found: bytes.len() as u64 }) }
}

fn check_size(metadata: &Metadata, expected: u64) -> Result<(), Fault> {
    if metadata.len() == expected { Ok(()) } else { Err(Fault::Size { expected, found: metadata.len() }) }
}

// Taken by value, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
fn io_fault(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Fault::Missing,
        _ => Fault::Unreadable { reason: error.to_string() },
    }
}

#[cfg(unix)]
fn stamp(metadata: &Metadata) -> FileStamp {
    use std::os::unix::fs::MetadataExt;
    FileStamp([
        metadata.dev() as i64,
        metadata.ino() as i64,
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ])
}

#[cfg(not(unix))]
fn stamp(metadata: &Metadata) -> FileStamp {
    let since_1970 = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let nanos = since_1970.map_or(0, |time| time.as_nanos() as i64);
    FileStamp([nanos, metadata.len() as i64, 0, 0, 0, 0])
}

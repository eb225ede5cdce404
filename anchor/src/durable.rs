//! Files that are whole and on disk once writing them has returned, whatever happens to the process or the machine.
//!
//! ```text
//! write  .<name>.<random>.tmp      in the folder where the file will stand
//! fsync  the file                  its bytes are on disk
//! rename to <name>                 readers see all of it or nothing of it
//! fsync  the folder                its name is on disk
//! ```
//!
//! A folder that had to be made is made durable in its parent likewise. What a crash leaves behind is a `.tmp` file that
//! nothing refers to. `object_store`'s own local store does not sync, and cannot be asked to.

use rand::TryRng as _;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What unfinished files end in.
pub(crate) const UNFINISHED_SUFFIX: &str = ".tmp";

/// A folder into which files are written durably.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// Whether nobody but the owner may read: folders 0700, files 0600.
    private: bool,
    /// Folders whose names are known to be on disk.
    ready: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    /// Opens the folder, and makes it if need be.
    pub(crate) fn open(root: &Path, private: bool) -> io::Result<Self> {
        let folder = Self { root: root.to_owned(), private, ready: Mutex::default() };
        if !root.is_dir() {
            if let Some(parent) = root.parent() {
                std::fs::create_dir_all(parent)?;
            }
            folder.make(root)?;
        }
        Ok(folder)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes files into the folder `below` the root, one after the other: when a name is there, all before it are.
    pub(crate) fn write(&self, below: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
        let folder = self.root.join(below);
        let mut unfinished = Vec::with_capacity(files.len());
        let result = self.prepare(below).and_then(|()| self.write_files(&folder, files, &mut unfinished));
        if result.is_err() {
            // Somebody may have removed a folder: the next attempt looks again.
            self.lock().clear();
            for path in &unfinished {
                // Best effort: what stays behind is only a file that nothing refers to.
                let _ = std::fs::remove_file(path);
            }
        }
        result
    }

    fn write_files(&self, folder: &Path, files: &[(&str, &[u8])], unfinished: &mut Vec<PathBuf>) -> io::Result<()> {
        for (name, bytes) in files {
            let mut random = [0; 8];
            rand::rngs::SysRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
            let path = folder.join(format!(".{name}.{}{UNFINISHED_SUFFIX}", hex::encode(random)));
            let mut file = self.options().open(&path)?;
            unfinished.push(path);
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        for ((name, _), path) in files.iter().zip(unfinished.iter()) {
            std::fs::rename(path, folder.join(name))?;
        }
        sync_folder(folder)
    }

    /// Makes the folders on the way to `below`, each durable in its parent.
    fn prepare(&self, below: &Path) -> io::Result<()> {
        let mut folder = self.root.clone();
        for part in below.components() {
            folder.push(part);
            if !self.lock().contains(&folder) {
                self.make(&folder)?;
                self.lock().insert(folder.clone());
            }
        }
        Ok(())
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        match self.create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
            _ => {}
        }
        // Even if it was there: whoever made it may have been stopped before its name was on disk.
        folder.parent().map_or(Ok(()), sync_folder)
    }

    #[cfg(unix)]
    fn create(&self, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(if self.private { 0o700 } else { 0o777 }).create(folder)
    }

    #[cfg(not(unix))]
    fn create(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir(folder)
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if self.private { 0o600 } else { 0o666 });
        options
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a file; one that is gone is removed.
pub(crate) fn remove_file(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts a folder's names on disk.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_whole_and_nothing_is_left_behind() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temp.path().join("a/b"), false).unwrap();
        let below = Path::new("x/y");
        folder.write(below, &[("one", b"1"), ("two", b"22")]).unwrap();
        folder.write(below, &[("one", b"111")]).unwrap();
        let names = |path: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let written = folder.root().join(below);
        assert_eq!(names(&written), ["one", "two"]);
        assert_eq!(std::fs::read(written.join("one")).unwrap(), b"111");
        std::fs::create_dir(written.join("taken")).unwrap();
        assert!(folder.write(below, &[("three", b"3"), ("taken", b"4")]).is_err());
        assert_eq!(names(&written), ["one", "taken", "three", "two"]);
        folder.write(below, &[("one", b"1")]).unwrap();
        std::fs::remove_dir_all(folder.root().join("x")).unwrap();
        assert!(folder.write(below, &[("one", b"1")]).is_err(), "the folder was known to be there");
        folder.write(below, &[("one", b"1")]).expect("and is made again");
    }

    #[cfg(unix)]
    #[test]
    fn a_private_folder_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temp.path().join("secrets"), true).unwrap();
        folder.write(Path::new("s/0"), &[("one", b"1")]).unwrap();
        let mode = |path: &str| folder.root().join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode("s"), mode("s/0"), mode("s/0/one")], [0o700, 0o700, 0o700, 0o600]);
    }
}

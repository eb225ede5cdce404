//! Batch secrets: 32 random bytes per batch from which the salts of its leaves come.
//!
//! They live in a folder of their own, with rights of its own (folders 0700, files 0600), apart from the segments.
//! Whoever destroys a secret makes the leaves of its batch impossible to guess back to records; roots, and receipts that
//! were given before, stay valid.
//!
//! ```text
//! <stream>/<partition>/<first offset>-<BLAKE3>.<records root>.secret
//!   = "cairn/secret/v1" ‖ nonce[24] ‖ XChaCha20-Poly1305(key, nonce, secret, associated data = segment path)[32 + 16]
//!   | "cairn/secret/v1/destroyed"
//! key.id = BLAKE3-derive_key("cairn 2025 secrets store key id v1", key)      tells one key from another, nothing more
//! ```
//!
//! The name holds the records root as well as the segment: a batch that is sealed twice, after a crash or by two workers,
//! gives the same segment but other salts. Whichever of the two the chain takes, its secret is there.
//!
//! The associated data binds a secret to its segment: files cannot be swapped. The key is read by the caller.

use crate::durable::{Folder, remove_file};
use crate::roots::{SEGMENT_SUFFIX, SEGMENTS_FOLDER};
use cairn_proof::Digest;
use cairn_proof::record::BatchSecret;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use chrono::{DateTime, Utc};
use rand::TryRng as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MARK: &[u8] = b"cairn/secret/v1";
const DESTROYED: &[u8] = b"cairn/secret/v1/destroyed";
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const FILE_BYTES: usize = MARK.len() + NONCE_BYTES + 32 + TAG_BYTES;
/// What the name of a secret's file ends in.
pub(crate) const SECRET_SUFFIX: &str = ".secret";
const KEY_ID_FILE: &str = "key.id";
const KEY_ID_CONTEXT: &str = "cairn 2025 secrets store key id v1";

/// Why a batch secret is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It was destroyed on purpose.
    #[error("the secret of {segment} was destroyed: its records can no longer be proved or checked against their root")]
    Destroyed {
        /// The segment's path.
        segment: String,
    },
    /// There is none.
    #[error("there is no secret of {segment} in {folder}")]
    Missing {
        /// The segment's path.
        segment: String,
        /// Where it was looked for.
        folder: String,
    },
    /// The file is not what was written.
    #[error("the secret of {segment} was altered: it does not decrypt as that segment's")]
    Altered {
        /// The segment's path.
        segment: String,
    },
    /// The key is another one than the store was made with.
    #[error("the key does not belong to the secrets in {folder}: use the key file that they were written with")]
    Key {
        /// The folder.
        folder: String,
    },
    /// The path is not one of a segment.
    #[error("{segment:?} is no segment's path: segments/<stream>/<partition>/<offset>-<hash>.parquet is expected")]
    Path {
        /// What was given.
        segment: String,
    },
    /// The folder cannot be read or written: try again.
    #[error("the secrets store {path}: {source}")]
    Io {
        /// Which file or folder.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The store of batch secrets. A clone is the same store.
#[derive(Clone)]
pub struct SecretStore {
    folder: Arc<Folder>,
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretStore").field("folder", &self.folder.root()).finish_non_exhaustive()
    }
}

impl SecretStore {
    /// Opens the store in `folder`, and makes it if need be.
    ///
    /// # Errors
    /// [`SecretError::Key`], if it was made with another key; [`SecretError::Io`].
    pub fn open(folder: &Path, key: &[u8; 32]) -> Result<Self, SecretError> {
        let failed = |source| SecretError::Io { path: folder.display().to_string(), source };
        let opened = Folder::open(folder, true).map_err(failed)?;
        let id = hex::encode(blake3::derive_key(KEY_ID_CONTEXT, key));
        match std::fs::read(folder.join(KEY_ID_FILE)) {
            Ok(found) if found == id.as_bytes() => {}
            Ok(_) => return Err(SecretError::Key { folder: folder.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                opened.write(Path::new(""), &[(KEY_ID_FILE, id.as_bytes())]).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(Self { folder: Arc::new(opened), cipher: XChaCha20Poly1305::new(key.into()) })
    }

    /// Keeps the secret of a batch, durably. Blocks.
    ///
    /// `root` is the records root that the secret's salts lead to.
    ///
    /// # Errors
    /// [`SecretError::Io`]: try again. [`SecretError::Path`].
    pub fn put(&self, segment: &str, root: &Digest, secret: &BatchSecret) -> Result<(), SecretError> {
        let mut nonce = [0; NONCE_BYTES];
        let random = rand::rngs::SysRng.try_fill_bytes(&mut nonce).map_err(io::Error::other);
        random.map_err(|source| SecretError::Io { path: segment.to_owned(), source })?;
        let payload = Payload { msg: &secret.0, aad: segment.as_bytes() };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| SecretError::Altered { segment: segment.to_owned() })?;
        self.write(segment, root, &[MARK, &nonce[..], &sealed[..]].concat())
    }

    /// The secret of the batch with that segment and records root. Blocks.
    ///
    /// # Errors
    /// [`SecretError`], which tells a destroyed secret from a missing and an altered one.
    pub fn get(&self, segment: &str, root: &Digest) -> Result<BatchSecret, SecretError> {
        let altered = || SecretError::Altered { segment: segment.to_owned() };
        let path = self.path(segment, root)?;
        let mut bytes = Vec::with_capacity(FILE_BYTES + 1);
        let read = std::fs::File::open(&path).and_then(|file| file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = self.folder.root().display().to_string();
                return Err(SecretError::Missing { segment: segment.to_owned(), folder });
            }
            Err(source) => return Err(SecretError::Io { path: path.display().to_string(), source }),
        }
        if bytes == DESTROYED {
            return Err(SecretError::Destroyed { segment: segment.to_owned() });
        }
        let sealed = bytes.strip_prefix(MARK).filter(|_| bytes.len() == FILE_BYTES).ok_or_else(altered)?;
        let (nonce, sealed) = sealed.split_at(NONCE_BYTES);
        let payload = Payload { msg: sealed, aad: segment.as_bytes() };
        let secret = self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| altered())?;
        Ok(BatchSecret(<[u8; 32]>::try_from(secret).map_err(|_| altered())?))
    }

    /// Destroys the secret of a batch for good, and leaves a note that it was destroyed. Blocks.
    ///
    /// The file is overwritten before it is replaced; a disk or file system that keeps old versions may still have it.
    ///
    /// # Errors
    /// [`SecretError::Io`], [`SecretError::Path`].
    pub fn destroy(&self, segment: &str, root: &Digest) -> Result<(), SecretError> {
        let path = self.path(segment, root)?;
        let overwrite = || -> io::Result<()> {
            let mut file = std::fs::OpenOptions::new().write(true).open(&path)?;
            io::Write::write_all(&mut file, &[0; FILE_BYTES])?;
            file.sync_all()
        };
        match overwrite() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SecretError::Io { path: path.display().to_string(), source: error })
            }
            _ => self.write(segment, root, DESTROYED),
        }
    }

    /// Shows every file below the folders of streams and partitions, unfinished ones included, by its path in the store,
    /// the time of its last change and its size; and removes those for which `is_orphan` says so. Blocks.
    pub(crate) fn visit(&self, mut is_orphan: impl FnMut(&str, DateTime<Utc>, u64) -> bool) -> Result<(), SecretError> {
        let root = self.folder.root();
        for stream in names_in(root, true)? {
            for partition in names_in(&root.join(&stream), true)? {
                let below = format!("{stream}/{partition}");
                for name in names_in(&root.join(&below), false)? {
                    let (path, file) = (format!("{below}/{name}"), root.join(&below).join(&name));
                    let failed = |source| SecretError::Io { path: file.display().to_string(), source };
                    let known = match file.symlink_metadata() {
                        Ok(metadata) => metadata,
                        // Finished, or removed by somebody else, in between.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(failed(error)),
                    };
                    let modified = known.modified().map_err(failed)?;
                    if is_orphan(&path, modified.into(), known.len()) {
                        remove_file(&file).map_err(failed)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes the secret of a batch that was never submitted. Blocks.
    pub(crate) fn forget(&self, segment: &str, root: &Digest) -> Result<(), SecretError> {
        let path = self.path(segment, root)?;
        remove_file(&path).map_err(|source| SecretError::Io { path: path.display().to_string(), source })
    }

    fn write(&self, segment: &str, root: &Digest, bytes: &[u8]) -> Result<(), SecretError> {
        let (below, name) = names(segment, root)?;
        let written = self.folder.write(Path::new(below), &[(&name, bytes)]);
        written.map_err(|source| SecretError::Io { path: self.folder.root().join(below).display().to_string(), source })
    }

    fn path(&self, segment: &str, root: &Digest) -> Result<PathBuf, SecretError> {
        let (below, name) = names(segment, root)?;
        Ok(self.folder.root().join(below).join(name))
    }
}

/// The names of the folders, or of the plain files, in a folder. Links count as neither.
fn names_in(folder: &Path, folders: bool) -> Result<Vec<String>, SecretError> {
    let failed = |source| SecretError::Io { path: folder.display().to_string(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let wanted = if folders { kind.is_dir() } else { kind.is_file() };
        // A name that is no text is none of ours.
        names.extend(entry.file_name().into_string().ok().filter(|_| wanted));
    }
    Ok(names)
}

/// From a segment's path and a records root to the folder and the name of the secret.
fn names<'s>(segment: &'s str, root: &Digest) -> Result<(&'s str, String), SecretError> {
    let wrong = || SecretError::Path { segment: segment.chars().take(1024).collect() };
    let below = segment.strip_prefix(SEGMENTS_FOLDER).and_then(|rest| rest.strip_prefix('/')).ok_or_else(wrong)?;
    let (below, name) = below.rsplit_once('/').ok_or_else(wrong)?;
    let plain = |part: &str| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
    };
    let name = name.strip_suffix(SEGMENT_SUFFIX).filter(|name| plain(name)).ok_or_else(wrong)?;
    if below.split('/').all(plain) { Ok((below, format!("{name}.{root}{SECRET_SUFFIX}"))) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Digest = Digest([9; 32]);
    const SEGMENT: &str = "segments/traffic.flow/3/00000000000000000017-abcd.parquet";

    fn store() -> (tempfile::TempDir, SecretStore) {
        let temp = tempfile::tempdir().unwrap();
        let store = SecretStore::open(&temp.path().join("secrets"), &[7; 32]).unwrap();
        (temp, store)
    }

    #[test]
    fn a_secret_comes_back_and_its_file_does_not_show_it() {
        let (_temp, store) = store();
        let secret = BatchSecret([42; 32]);
        store.put(SEGMENT, &ROOT, &secret).unwrap();
        assert_eq!(store.get(SEGMENT, &ROOT).unwrap(), secret);
        let file = std::fs::read(store.path(SEGMENT, &ROOT).unwrap()).unwrap();
        assert_eq!(file.len(), FILE_BYTES);
        assert!(!file.windows(4).any(|window| window == [42; 4]));
        assert!(!format!("{store:?}").contains("42"));
    }

    #[test]
    fn a_batch_sealed_twice_keeps_both_secrets() {
        let (_temp, store) = store();
        let (first, second) = (BatchSecret([1; 32]), BatchSecret([2; 32]));
        store.put(SEGMENT, &ROOT, &first).unwrap();
        store.put(SEGMENT, &Digest([8; 32]), &second).unwrap();
        assert_eq!(store.get(SEGMENT, &ROOT).unwrap(), first);
        assert_eq!(store.get(SEGMENT, &Digest([8; 32])).unwrap(), second);
    }

    #[test]
    fn every_changed_bit_is_refused() {
        let (_temp, store) = store();
        store.put(SEGMENT, &ROOT, &BatchSecret([42; 32])).unwrap();
        let path = store.path(SEGMENT, &ROOT).unwrap();
        let file = std::fs::read(&path).unwrap();
        for bit in 0..file.len() * 8 {
            let mut wrong = file.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &wrong).unwrap();
            assert!(matches!(store.get(SEGMENT, &ROOT), Err(SecretError::Altered { .. })), "bit {bit}");
        }
        std::fs::write(&path, &file[1..]).unwrap();
        assert!(matches!(store.get(SEGMENT, &ROOT), Err(SecretError::Altered { .. })));
    }

    #[test]
    fn the_stored_form_stays_what_it_is() {
        let (_temp, store) = store();
        store.put(SEGMENT, &ROOT, &BatchSecret([42; 32])).unwrap();
        let golden = include_str!("../testdata/secret.hex");
        std::fs::write(store.path(SEGMENT, &ROOT).unwrap(), hex::decode(golden.trim()).unwrap()).unwrap();
        assert_eq!(store.get(SEGMENT, &ROOT).unwrap(), BatchSecret([42; 32]));
    }

    #[test]
    fn secrets_cannot_be_swapped() {
        let (_temp, store) = store();
        let other = SEGMENT.replace("abcd", "ef01");
        store.put(SEGMENT, &ROOT, &BatchSecret([1; 32])).unwrap();
        store.put(&other, &ROOT, &BatchSecret([2; 32])).unwrap();
        std::fs::copy(store.path(&other, &ROOT).unwrap(), store.path(SEGMENT, &ROOT).unwrap()).unwrap();
        assert!(matches!(store.get(SEGMENT, &ROOT), Err(SecretError::Altered { .. })));
    }

    #[test]
    fn destroyed_missing_and_foreign_are_told_apart() {
        let (temp, store) = store();
        assert!(matches!(store.get(SEGMENT, &ROOT), Err(SecretError::Missing { .. })));
        store.put(SEGMENT, &ROOT, &BatchSecret([1; 32])).unwrap();
        store.destroy(SEGMENT, &ROOT).unwrap();
        assert!(matches!(store.get(SEGMENT, &ROOT), Err(SecretError::Destroyed { .. })));
        let foreign = SecretStore::open(&temp.path().join("secrets"), &[8; 32]);
        assert!(matches!(foreign, Err(SecretError::Key { .. })));
        assert!(SecretStore::open(&temp.path().join("secrets"), &[7; 32]).is_ok());
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        let (_temp, store) = store();
        let wrong = [
            "",
            "x.parquet",
            "segments/x.parquet",
            "segments/../x.parquet",
            "segments//x.parquet",
            "segments/a/../../x.parquet",
            "segments/a/b",
            "segments/a/.parquet",
            "/segments/a/x.parquet",
        ];
        for path in wrong {
            assert!(matches!(store.get(path, &ROOT), Err(SecretError::Path { .. })), "{path}");
        }
    }
}

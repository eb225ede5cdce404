//! Whether this validator may vote in an epoch: only if it knows all that it has voted for in it.
//!
//! Votes are written to the epoch's voting history before they are sent, so that a validator that starts again does not
//! contradict itself. When that history is gone, the validator must not vote until the next epoch begins. It knows from
//! a small file beside the storage, written before the first vote of an epoch:
//!
//! ```text
//! DATA_DIR/voting   {"since_ms": when this folder was first used, "epoch": the last epoch it voted in, or null}
//!
//! epoch asked for   may vote
//! before `epoch`    never: later votes were cast already
//! `epoch`           if its voting history is still there
//! after `epoch`     if it began after `since_ms`: another folder may have voted with this key before. In the first epoch
//!                   of the chain, when every folder is new: unless the others are epochs ahead.
//! ```
//!
//! What it cannot know: that a folder was copied, put back from a backup, or replaced within the chain's first epoch.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// Name of the file in the data folder.
const FILE: &str = "voting";
/// Bytes of the file, and some.
const BYTES_MAX: u64 = 256;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    since_ms: u64,
    epoch: Option<u64>,
}

/// In which epochs this validator may vote.
#[derive(Clone, Debug)]
pub(crate) struct Voting {
    folder: Option<PathBuf>,
    record: Record,
}

/// What the storage holds of an epoch's voting history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// There is no place for it: it was never begun, or is gone.
    Missing,
    /// There is a place for it, and nothing in it.
    Empty,
    /// There are votes.
    Written,
}

/// An epoch, as far as it decides on voting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) epoch: u64,
    /// Timestamp of the last block of the epoch before.
    pub(crate) at_ms: u64,
    /// Whether a block of the epoch is final here.
    pub(crate) progressed: bool,
    /// Whether others were found epochs ahead when this data folder was new.
    pub(crate) overtaken: bool,
}

impl Voting {
    /// Reads the file in `folder`, or makes it.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged.
    pub(crate) fn open(folder: &Path, now_ms: u64) -> Result<Self, NodeError> {
        let path = folder.join(FILE);
        let failed = |reason: String| NodeError::DataDir { path: path.clone(), reason };
        let read = match fs::metadata(&path) {
            Ok(found) if found.len() > BYTES_MAX => Err(format!("{} bytes", found.len())),
            Ok(_) => fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        let record = read.map_err(|found| {
            failed(format!("cannot be used ({found}); without this file, the validator votes from the next epoch on"))
        })?;
        let fresh = record.is_none();
        let record = record.unwrap_or(Record { since_ms: now_ms, epoch: None });
        let voting = Self { folder: Some(folder.to_owned()), record };
        if fresh {
            voting.write().map_err(|error| failed(format!("cannot be written: {error}")))?;
        }
        Ok(voting)
    }

    /// A record that lasts as long as the process, for simulations.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) const fn in_memory(since_ms: u64) -> Self {
        Self { folder: None, record: Record { since_ms, epoch: None } }
    }

    /// Whether no vote was ever cast from this data folder.
    pub(crate) const fn is_new(&self) -> bool {
        self.folder.is_some() && self.record.epoch.is_none()
    }

    /// Whether votes may be cast in an epoch whose voting history is as found.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn judge(&self, begun: Begun, history: History) -> Result<(), String> {
        match self.record.epoch {
            Some(voted) if begun.epoch < voted => Err(format!("it voted in epoch {voted} before")),
            Some(voted) if begun.epoch == voted => match (history, begun.progressed) {
                (History::Written, _) | (History::Empty, false) => Ok(()),
                _ => Err("its voting history of this epoch is gone".into()),
            },
            _ if begun.epoch == 0 && !begun.overtaken => Ok(()),
            _ if begun.epoch > 0 && begun.at_ms >= self.record.since_ms => Ok(()),
            _ => Err("the epoch began before this data folder was made, so the key may have voted elsewhere".into()),
        }
    }

    /// Notes, durably, that votes are cast in `epoch` from now on.
    ///
    /// # Errors
    /// When it cannot be written: no vote may be cast then.
    pub(crate) fn begin(&mut self, epoch: u64) -> io::Result<()> {
        if self.record.epoch == Some(epoch) {
            return Ok(());
        }
        self.record.epoch = Some(epoch);
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (path, next) = (folder.join(FILE), folder.join("voting.next"));
        let mut file = File::create(&next)?;
        file.write_all(serde_json::to_string(&self.record)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(epoch: u64, at_ms: u64, progressed: bool) -> Begun {
        Begun { epoch, at_ms, progressed, overtaken: false }
    }

    #[test]
    fn votes_are_cast_once_per_epoch_and_never_without_their_history() {
        let folder = tempfile::tempdir().unwrap();
        let mut voting = Voting::open(folder.path(), 1_000).unwrap();
        voting.judge(begun(0, 1, true), History::Missing).unwrap();
        voting.begin(0).unwrap();
        for (history, progressed, may) in [
            (History::Written, true, true),
            (History::Written, false, true),
            (History::Empty, false, true),
            (History::Empty, true, false),
            (History::Missing, false, false),
            (History::Missing, true, false),
        ] {
            assert_eq!(voting.judge(begun(0, 1, progressed), history).is_ok(), may, "{history:?} {progressed}");
        }
        voting.begin(3).unwrap();
        // Everything but the file was lost: no vote in what may have been voted on, but in what follows.
        let again = Voting::open(folder.path(), 9_000).unwrap();
        assert_eq!(again.record, Record { since_ms: 1_000, epoch: Some(3) });
        assert!(again.judge(begun(2, 2_000, true), History::Written).unwrap_err().contains("epoch 3"));
        assert!(again.judge(begun(3, 2_000, true), History::Missing).unwrap_err().contains("gone"));
        again.judge(begun(4, 2_000, false), History::Missing).unwrap();
    }

    #[test]
    fn a_new_folder_does_not_vote_in_an_epoch_that_began_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let voting = Voting::open(folder.path(), 5_000).unwrap();
        assert!(voting.judge(begun(7, 4_999, true), History::Missing).unwrap_err().contains("data folder"));
        voting.judge(begun(8, 5_000, false), History::Missing).unwrap();
        voting.judge(begun(0, 1, true), History::Missing).unwrap();
        let overtaken = Begun { overtaken: true, ..begun(0, 9_000, false) };
        assert!(voting.is_new() && voting.judge(overtaken, History::Missing).unwrap_err().contains("data folder"));
    }

    #[test]
    fn a_damaged_file_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let large = vec![b' '; BYTES_MAX as usize + 1];
        for bytes in [b"".as_slice(), b"{", br#"{"since_ms":1}x"#, br#"{"since_ms":1,"epoch":null,"more":1}"#, &large] {
            fs::write(folder.path().join(FILE), bytes).unwrap();
            let error = Voting::open(folder.path(), 1).unwrap_err().to_string();
            assert!(error.contains("voting") && error.contains("next epoch"), "{error}");
        }
    }
}

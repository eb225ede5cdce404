//! Why stored bytes were not handed out: which object of which records, what was expected, what was found.

use crate::outboard::Mismatch;
use crate::roots::AnchoredObject;
use cairn_proof::{Offset, Partition};
use std::error::Error as StdError;
use std::fmt;

/// The name under which this store shows up in `object_store` errors.
pub(crate) const STORE_NAME: &str = "cairn verified";

/// How deep [`VerifyError::find`] looks; error chains are short, a cycle would be a bug elsewhere.
const SOURCE_DEPTH_MAX: usize = 64;

/// Which of the two stored objects of a segment is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The Parquet object that holds the records.
    Segment,
    /// The hash tree beside it.
    Outboard,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segment => "segment",
            Self::Outboard => "hash tree",
        })
    }
}

/// What is wrong with the object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not in the store.
    #[error("it is missing from the store")]
    Missing,
    /// It has another length.
    #[error("it must have {expected} bytes, it has {found}")]
    Size {
        /// What the anchor says.
        expected: u64,
        /// What the store holds.
        found: u64,
    },
    /// Its bytes are not those that were anchored.
    #[error("{0}")]
    Altered(Box<Mismatch>),
    /// Something else than a plain file stands in its place (a link, a folder, a device), or on the way to it.
    #[error("a plain file is expected, found {found}")]
    NotAFile {
        /// What was found.
        found: &'static str,
    },
    /// The store could not be read; this says nothing about the bytes.
    #[error("it cannot be read: {reason}")]
    Unreadable {
        /// What the store said.
        reason: String,
    },
    /// More was asked for than the object has.
    #[error("bytes {start} to {end} were asked of an object of {size} bytes")]
    Range {
        /// First byte asked for.
        start: u64,
        /// End of the range, exclusive.
        end: u64,
        /// The anchored size.
        size: u64,
    },
}

impl From<Mismatch> for Fault {
    fn from(wrong: Mismatch) -> Self {
        Self::Altered(Box::new(wrong))
    }
}

/// What the caller can do about a [`VerifyError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The stored bytes are wrong or gone: stop, restore the object from a copy.
    Corrupted,
    /// The store did not answer: try again.
    Unavailable,
    /// The request itself was wrong: a bug of the caller.
    Request,
}

/// A stored object that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream}, partition {partition}, offsets {first} to {last}: the {part} {path} is refused: {fault}")]
pub struct VerifyError {
    /// The stream whose records the object holds.
    pub stream: String,
    /// The partition.
    pub partition: Partition,
    /// The first offset that the object covers.
    pub first: Offset,
    /// The last offset that the object covers.
    pub last: Offset,
    /// Which of the two objects.
    pub part: Part,
    /// Its path in the store.
    pub path: String,
    /// What was expected and found.
    pub fault: Fault,
}

impl VerifyError {
    /// About one part of an anchored object.
    pub fn new(object: &AnchoredObject, part: Part, fault: impl Into<Fault>) -> Self {
        let path = match part {
            Part::Segment => object.path.to_string(),
            Part::Outboard => object.outboard_path().to_string(),
        };
        Self {
            stream: object.stream.clone(),
            partition: object.partition,
            first: object.first,
            last: object.last,
            part,
            path,
            fault: fault.into(),
        }
    }

    /// What the caller can do.
    pub fn kind(&self) -> Kind {
        match self.fault {
            Fault::Unreadable { .. } => Kind::Unavailable,
            Fault::Range { .. } => Kind::Request,
            _ => Kind::Corrupted,
        }
    }

    /// Finds a verification error within any error that it passed through on its way up
    /// (`object_store`, `parquet`, `arrow`, `datafusion`).
    pub fn find<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        for _ in 0..SOURCE_DEPTH_MAX {
            let error = next?;
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // A shared error hides its content from `downcast_ref`, an I/O error the one that it carries.
            if let Some(shared) = error.downcast_ref::<std::sync::Arc<object_store::Error>>() {
                next = Some(shared.as_ref());
            } else if let Some(io) = error.downcast_ref::<std::io::Error>() {
                next = io.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or_else(|| io.source());
            } else {
                next = error.source();
            }
        }
        None
    }
}

impl From<VerifyError> for object_store::Error {
    /// Always `Generic`, never `NotFound`: a reader may treat an object that is not found as one that need not exist.
    fn from(error: VerifyError) -> Self {
        Self::Generic { store: STORE_NAME, source: Box::new(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> VerifyError {
        VerifyError {
            stream: "traffic.flow".into(),
            partition: Partition(1),
            first: Offset(5),
            last: Offset(9),
            part: Part::Outboard,
            path: "segments/x.parquet.obao".into(),
            fault: Fault::Missing,
        }
    }

    #[test]
    fn it_names_everything_and_survives_wrapping() {
        let text = error().to_string();
        for part in ["traffic.flow", "partition 1", "offsets 5 to 9", "hash tree", "segments/x.parquet.obao", "missing"]
        {
            assert!(text.contains(part), "{text}");
        }
        let wrapped = parquet::errors::ParquetError::External(Box::new(object_store::Error::from(error())));
        assert_eq!(VerifyError::find(&wrapped), Some(&error()));
        let arrow = arrow_schema::ArrowError::ExternalError(Box::new(wrapped));
        assert_eq!(VerifyError::find(&arrow), Some(&error()));
        let io = std::io::Error::other(arrow);
        assert_eq!(VerifyError::find(&io), Some(&error()));
        assert_eq!(VerifyError::find(&std::io::Error::other("else")), None);
    }

    #[test]
    fn kinds_tell_what_to_do() {
        let kind = |fault| VerifyError { fault, ..error() }.kind();
        assert_eq!(kind(Fault::Missing), Kind::Corrupted);
        assert_eq!(kind(Fault::Unreadable { reason: "timeout".into() }), Kind::Unavailable);
        assert_eq!(kind(Fault::Range { start: 0, end: 9, size: 5 }), Kind::Request);
    }
}

//! Where each epoch's engine keeps its journal, and which of them may go.
//!
//! ```text
//! PREFIX-simplex-EPOCH     voting history: everything this validator voted for in the epoch. Part of the on-disk layout.
//! PREFIX-following-EPOCH   certificates only, of an engine that does not vote
//! ```
//!
//! A node that follows in an epoch never touches a voting history of it. Journals are removed two epochs later, when the
//! blocks of their epoch have long been final and durable.

use commonware_runtime::{Error, Storage};
use tracing::warn;

use crate::{error::NodeError, voting::History};

/// How the journal names the blob of the first view.
const FIRST: [u8; 8] = 1_u64.to_be_bytes();

/// Where the votes of an epoch are written.
pub(crate) fn voting(prefix: &str, epoch: u64) -> String {
    format!("{prefix}-simplex-{epoch}")
}

/// Where an epoch's journal is written by a node that does not vote in it.
pub(crate) fn following(prefix: &str, epoch: u64) -> String {
    format!("{prefix}-following-{epoch}")
}

fn failed(partition: &str) -> impl FnOnce(Error) -> NodeError {
    let partition = partition.to_owned();
    move |error| NodeError::VotingHistory { partition, reason: error.to_string() }
}

/// What there is of a voting history.
///
/// # Errors
/// When it cannot be looked at.
pub(crate) async fn look<E: Storage>(storage: &E, partition: &str) -> Result<History, NodeError> {
    let blobs = match storage.scan(partition).await {
        Ok(blobs) => blobs,
        Err(Error::PartitionMissing(_)) => return Ok(History::Missing),
        Err(error) => return Err(failed(partition)(error)),
    };
    for name in blobs {
        let (_, bytes) = storage.open(partition, &name).await.map_err(failed(partition))?;
        if bytes > 0 {
            return Ok(History::Written);
        }
    }
    Ok(History::Empty)
}

/// Makes the place for an epoch's votes, before it is noted that there are any.
///
/// # Errors
/// When it cannot be made.
pub(crate) async fn begin<E: Storage>(storage: &E, partition: &str) -> Result<(), NodeError> {
    // An empty blob by the name that the journal gives to the votes of the first view.
    storage.open(partition, &FIRST).await.map(|_| ()).map_err(failed(partition))
}

/// Removes the journals of `count` epochs, the newest of which is two before `epoch`.
pub(crate) async fn remove<E: Storage>(storage: &E, prefix: &str, epoch: u64, count: u64) {
    let Some(newest) = epoch.checked_sub(2) else { return };
    for old in newest.saturating_sub(count.saturating_sub(1))..=newest {
        for partition in [voting(prefix, old), following(prefix, old)] {
            match storage.remove(&partition, None).await {
                Ok(()) | Err(Error::PartitionMissing(_)) => {}
                Err(error) => warn!(partition, %error, "an old epoch's journal could not be removed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{Blob as _, Runner as _, WriteOptions, deterministic};

    #[test]
    fn a_history_is_missing_then_empty_then_written_then_removed() {
        deterministic::Runner::default().start(|storage| async move {
            let partition = voting("t", 5);
            assert_eq!(look(&storage, &partition).await.unwrap(), History::Missing);
            begin(&storage, &partition).await.unwrap();
            begin(&storage, &partition).await.unwrap();
            assert_eq!(look(&storage, &partition).await.unwrap(), History::Empty);
            let (blob, _) = storage.open(&partition, &2_u64.to_be_bytes()).await.unwrap();
            blob.write_at(0, b"yes".to_vec(), WriteOptions::default()).await.unwrap();
            blob.sync().await.unwrap();
            drop(blob);
            begin(&storage, &partition).await.unwrap();
            for epoch in [0, 1, 5, 6] {
                remove(&storage, "t", epoch, 64).await;
                assert_eq!(look(&storage, &partition).await.unwrap(), History::Written, "in epoch {epoch}");
            }
            remove(&storage, "t", 8, 1).await;
            assert_eq!(look(&storage, &partition).await.unwrap(), History::Written, "only epoch 6 was asked for");
            remove(&storage, "t", 9, 3).await;
            assert_eq!(look(&storage, &partition).await.unwrap(), History::Missing);
        });
    }
}

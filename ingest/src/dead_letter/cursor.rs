//! What was delivered, in a file that is whole and on disk once it was written.
//!
//! ```json
//! {"format": "cairn/dead-letters/v1", "chain": "5f…", "from": 0, "delivered": {"traffic.flow": 4711}}
//! ```
//!
//! Numbers are places in the log of anchors: all before are delivered. A stream that is not listed begins at `from`, which
//! is where the log ended when the file was made. Only this process writes it; whoever takes it away makes the next start
//! begin where the log ends then, or at the first anchor with `backfill`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_proof::statement::ChainTag;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const FORMAT: &str = "cairn/dead-letters/v1";
/// No file of cursors is larger.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    format: String,
    chain: String,
    from: u64,
    delivered: BTreeMap<String, u64>,
}

/// The cursors of all streams; a clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct Cursors {
    file: PathBuf,
    chain: String,
    /// `None` until there is a file.
    contents: Arc<Mutex<Option<Contents>>>,
}

impl Cursors {
    /// Reads the file, which need not be there.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) when it cannot be read, is another chain's, or is no file of cursors.
    pub(crate) fn open(file: &Path, chain: &ChainTag) -> Result<Self> {
        let chain = chain.0.to_string();
        let contents = read(file).map_err(|error| {
            let what = format!("the cursors of dead letters in {} cannot be read", file.display());
            Error::input(format!("{what}; put the file back, or remove it to begin anew")).because(error)
        })?;
        if let Some(found) = contents.as_ref().filter(|found| found.format != FORMAT || found.chain != chain) {
            return Err(Error::input(format!(
                "{} is of format {:?} and of the chain {}: expected {FORMAT:?} and {chain}; give this chain a file of its own",
                file.display(),
                found.format,
                found.chain
            )));
        }
        Ok(Self { file: file.to_owned(), chain, contents: Arc::new(Mutex::new(contents)) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Contents>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the file if there is none: every stream begins at `from` then.
    pub(crate) async fn begin(&self, from: u64) -> Result<()> {
        if self.lock().is_some() {
            return Ok(());
        }
        let contents = Contents { format: FORMAT.into(), chain: self.chain.clone(), from, delivered: BTreeMap::new() };
        tracing::info!(from, file = %self.file.display(), "dead letters begin");
        self.change(move |kept| *kept = Some(contents)).await
    }

    /// The first place in the log that is not delivered of a stream.
    pub(crate) fn of(&self, stream: &str) -> u64 {
        self.lock().as_ref().map_or(0, |kept| kept.delivered.get(stream).copied().unwrap_or(kept.from))
    }

    /// All of a stream before `to` is delivered.
    pub(crate) async fn advance(&self, stream: &str, to: u64) -> Result<()> {
        let stream = stream.to_owned();
        self.change(move |kept| {
            if let Some(kept) = kept {
                kept.delivered.insert(stream, to);
            }
        })
        .await
    }

    async fn change(&self, change: impl FnOnce(&mut Option<Contents>) + Send + 'static) -> Result<()> {
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            // Held while it is written, so that no older contents overwrite newer ones.
            let mut kept = this.lock();
            let mut changed = kept.clone();
            change(&mut changed);
            write(&this.file, changed.as_ref())?;
            *kept = changed;
            Ok::<_, io::Error>(())
        });
        let outcome = written.await.map_err(|error| Error::bug("writing cursors did not finish").because(error))?;
        outcome.map_err(|error| Error::retry(format!("{} cannot be written", self.file.display())).because(error))
    }
}

fn read(file: &Path) -> io::Result<Option<Contents>> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(io::Error::other(format!("it has {} bytes, at most {FILE_BYTES_MAX}", metadata.len())));
        }
        Ok(_) => {}
    }
    serde_json::from_slice(&fs::read(file)?).map(Some).map_err(io::Error::other)
}

/// Beside the file first, so that a crash leaves the old one or the new one.
fn write(file: &Path, contents: Option<&Contents>) -> io::Result<()> {
    let Some(contents) = contents else { return Ok(()) };
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let unfinished = file.with_extension("tmp");
    let mut out = File::create(&unfinished)?;
    out.write_all(&serde_json::to_vec_pretty(contents).map_err(io::Error::other)?)?;
    out.sync_all()?;
    fs::rename(&unfinished, file)?;
    File::open(folder)?.sync_all()
}

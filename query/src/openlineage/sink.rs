//! Where events end up: lines of a file, or requests to an address.
//!
//! What cannot be written is counted and gone, and the log says so at most once a minute. A file that was moved away
//! is made anew with the next event.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;
use url::Url;

use super::{LineageConfig, LineageTarget, Message, Outcomes};
use crate::engine::StartError;

/// How often the log tells of failures, at most.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// How often a request is tried.
const TRIES: u32 = 2;
/// How long to wait between two.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Takes the lines of events.
pub(super) enum Sink {
    File { path: PathBuf, file: Arc<File> },
    Http { client: reqwest::Client, url: Url, authorization: Option<HeaderValue> },
}

impl Sink {
    pub(super) fn open(config: &LineageConfig) -> Result<Self, StartError> {
        let failed = |target: String, reason: String| StartError::Lineage { target, reason };
        match &config.target {
            LineageTarget::File(path) => {
                let file = open(path).map_err(|error| failed(path.display().to_string(), error.to_string()))?;
                Ok(Self::File { path: path.clone(), file: Arc::new(file) })
            }
            LineageTarget::Http { url, token, root_certificate } => {
                let unusable = |error: &dyn std::fmt::Display| failed(url.to_string(), error.to_string());
                let mut client = reqwest::Client::builder()
                    .timeout(Duration::from_millis(config.timeout_ms))
                    // The token is for this address and no other.
                    .redirect(reqwest::redirect::Policy::none());
                if let Some(pem) = root_certificate {
                    let root = reqwest::Certificate::from_pem(pem).map_err(|error| unusable(&error))?;
                    client = client.add_root_certificate(root);
                }
                let authorization = token.as_ref().map(|token| {
                    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
                    value.set_sensitive(true);
                    Ok::<_, reqwest::header::InvalidHeaderValue>(value)
                });
                Ok(Self::Http {
                    client: client.build().map_err(|error| unusable(&error))?,
                    url: url.clone(),
                    authorization: authorization.transpose().map_err(|error| unusable(&error))?,
                })
            }
        }
    }

    async fn take(&mut self, event: String) -> Result<(), String> {
        match self {
            Self::File { path, file } => {
                let (name, open) = (path.clone(), Arc::clone(file));
                // A disk that hangs holds up nobody but the events behind this one.
                let appended = tokio::task::spawn_blocking(move || append(&name, open, &(event + "\n"))).await;
                *file = appended.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                Ok(())
            }
            Self::Http { client, url, authorization } => {
                let mut failure = String::new();
                for attempt in 0..TRIES {
                    if attempt > 0 {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    let mut request = client.post(url.clone()).header(CONTENT_TYPE, "application/json");
                    if let Some(authorization) = authorization {
                        request = request.header(AUTHORIZATION, authorization.clone());
                    }
                    match request.body(event.clone()).send().await {
                        Ok(answer) if answer.status().is_success() => return Ok(()),
                        // It was understood and refused: once more would be the same.
                        Ok(answer) if answer.status().is_client_error() => {
                            return Err(format!("{url} answered {}", answer.status()));
                        }
                        Ok(answer) => failure = format!("{url} answered {}", answer.status()),
                        Err(error) => failure = error.to_string(),
                    }
                }
                Err(failure)
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    // Statements hold values: nobody else is to read them.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Appends a line in one write, to the file that has the name now, and gives that back.
fn append(path: &Path, file: Arc<File>, line: &str) -> std::io::Result<Arc<File>> {
    let of = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let moved = match std::fs::metadata(path) {
        Ok(there) => of(there) != of(file.metadata()?),
        Err(_) => true,
    };
    let file = if moved { Arc::new(open(path)?) } else { file };
    file.as_ref().write_all(line.as_bytes())?;
    Ok(file)
}

/// Sends events until the last sender is gone.
pub(super) async fn run(mut sink: Sink, mut messages: mpsc::Receiver<Message>, outcomes: Outcomes) {
    let mut told: Option<Instant> = None;
    while let Some(message) = messages.recv().await {
        let event = match message {
            Message::Event(event) => event,
            Message::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        match sink.take(event.to_json()).await {
            Ok(()) => outcomes.count("sent"),
            Err(reason) => {
                outcomes.count("failed");
                if told.is_none_or(|at| at.elapsed() >= LOG_PAUSE) {
                    tracing::warn!(%reason, "query: OpenLineage events cannot be sent; they are counted and lost");
                    told = Some(Instant::now());
                }
            }
        }
    }
}

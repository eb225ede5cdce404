//! Outside witnesses: each checkpoint that a quorum signed is shown to them, and published with what they answer
//! (C2SP `tlog-witness`).
//!
//! ```text
//! assembled ──▶ POST <url>/add-checkpoint   "old " ‖ size it cosigned last ‖ consistency proof ‖ checkpoint
//!                 200  lines by the witness ──▶ verified ──▶ published with them
//!                 409  the size that it cosigned last: asked again from there, or, when it is ahead, not at all
//!                 else or nothing           ──▶ published without it; it is left out for a while, longer each time
//! ```
//!
//! A witness is asked about one checkpoint at a time, and all of them at once, so that a slow one delays a checkpoint by
//! [`ANSWER_TIMEOUT`] at most. What it answers is bounded and verified; it cannot stop the log or change it. The chain does
//! not wait for witnesses: this runs on a thread of its own.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_proof::{
    TreeSize,
    note::{Note, SignatureLine, VerifierKey},
};
use reqwest::{StatusCode, Url, redirect::Policy};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, error, info, warn};

use crate::{
    checkpoints::Assembled,
    config::{NodeConfig, Witness as Configured},
    error::NodeError,
    shared::Shared,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A note with one line of each kind, and room for witnesses that sign with several keys.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Requests about one checkpoint: one to learn the size, one from there, one more when another node was faster.
const REQUESTS_MAX: usize = 3;
/// Lines of log keys that a witness is shown: it needs one that it knows, and some take 16 KiB at most.
const LINES_MAX: usize = 64;
/// A witness that failed is left out for this long at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Starts the thread if the configuration names witnesses.
///
/// # Errors
/// When the thread or its HTTP client cannot be made.
pub(crate) fn spawn_if_any(
    config: &NodeConfig,
    shared: &Arc<Shared>,
    stop: &watch::Receiver<bool>,
) -> Result<(), NodeError> {
    if config.witnesses.is_empty() {
        return Ok(());
    }
    let failed = |reason: String| NodeError::Api { reason: format!("witnesses: {reason}") };
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .redirect(Policy::none())
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let witnesses: Option<Vec<Witness>> = config.witnesses.iter().map(|found| Witness::new(found, &http)).collect();
    let witnesses = witnesses.ok_or_else(|| failed("a key or address that was checked is not one".into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let (shared, mut stop) = (Arc::clone(shared), stop.clone());
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                () = ask_all(&shared, witnesses) => {}
                // The sender lives as long as the node; its end is a stop as well.
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    };
    let thread = thread::Builder::new().name("cairn witnesses".into()).spawn(run);
    thread.map(drop).map_err(|source| NodeError::Thread { what: "witnesses", source })
}

/// Shows every newest checkpoint to every witness, for ever.
async fn ask_all(shared: &Shared, mut witnesses: Vec<Witness>) {
    let mut assembled = shared.checkpoints.subscribe();
    let mut answered: Option<(TreeSize, Vec<Option<SignatureLine>>)> = None;
    loop {
        let newest = assembled.borrow_and_update().clone();
        if let Some(newest) = newest {
            let size = newest.checkpoint.size;
            let (_, mut lines) =
                answered.take().filter(|(of, _)| *of == size).unwrap_or((size, vec![None; witnesses.len()]));
            let missing = witnesses.iter_mut().zip(&mut lines).filter(|(_, line)| line.is_none());
            let newest_one = &newest;
            let asked = missing.map(|(witness, line)| async move { *line = witness.ask(shared, newest_one).await });
            futures::future::join_all(asked).await;
            shared.checkpoints.witnessed(&newest, lines.iter().flatten().cloned().collect());
            answered = Some((size, lines));
        }
        let again = witnesses.iter().filter_map(|witness| witness.pause).map(|(until, _)| until).min();
        let pause = again.map_or(PAUSE_MAX, |until| until.saturating_duration_since(Instant::now()));
        tokio::select! {
            changed = assembled.changed() => if changed.is_err() { return },
            () = sleep(pause.max(PAUSE)) => {}
        }
    }
}

/// What a witness made of a request.
enum Answer {
    /// It cosigned.
    Cosigned(SignatureLine),
    /// It cosigned this size last.
    Size(TreeSize),
}

/// One witness.
struct Witness {
    key: VerifierKey,
    url: Url,
    http: reqwest::Client,
    /// The size that it cosigned last, as far as is known.
    size: TreeSize,
    /// It failed: when to ask it again, and how long to wait if it fails again.
    pause: Option<(Instant, Duration)>,
}

impl Witness {
    fn new(configured: &Configured, http: &reqwest::Client) -> Option<Self> {
        let key = VerifierKey::parse(&configured.vkey).ok()?;
        let url = Url::parse(&format!("{}/add-checkpoint", configured.url.trim_end_matches('/'))).ok()?;
        Some(Self { key, url, http: http.clone(), size: TreeSize(0), pause: None })
    }

    /// Its line below the checkpoint, if it can be had now.
    async fn ask(&mut self, shared: &Shared, assembled: &Assembled) -> Option<SignatureLine> {
        let name = self.key.name().to_owned();
        let count = |outcome| shared.metrics.witnesses.with_label_values(&[name.as_str(), outcome]).inc();
        if self.pause.is_some_and(|(until, _)| until > Instant::now()) {
            return None;
        }
        for _ in 0..REQUESTS_MAX {
            match self.submit(shared, assembled).await {
                Ok(Answer::Cosigned(line)) => {
                    count("cosigned");
                    info!(witness = %name, size = %assembled.checkpoint.size, "checkpoint cosigned");
                    (self.size, self.pause) = (assembled.checkpoint.size, None);
                    return Some(line);
                }
                Ok(Answer::Size(size)) if size > assembled.checkpoint.size => {
                    // Another node has shown it a newer one: so will this one be before long.
                    count("ahead");
                    debug!(witness = %name, %size, "the witness is ahead of this node");
                    (self.size, self.pause) = (size, None);
                    return None;
                }
                Ok(Answer::Size(size)) => {
                    count("conflict");
                    self.size = size;
                }
                Err(reason) => {
                    count("failed");
                    let pause = self.pause.map_or(PAUSE, |(_, pause)| (pause * 2).min(PAUSE_MAX));
                    self.pause = Some((Instant::now() + pause, pause));
                    warn!(witness = %name, url = %self.url, reason, pause_s = pause.as_secs(), "no cosignature");
                    return None;
                }
            }
        }
        None
    }

    async fn submit(&self, shared: &Shared, assembled: &Assembled) -> Result<Answer, String> {
        let checkpoint = &assembled.checkpoint;
        let mut body = format!("old {}\n", self.size);
        if self.size.0 > 0 {
            let path = shared.ledger.consistency(self.size, checkpoint.size).map_err(|error| error.to_string())?;
            for hash in path {
                body.push_str(&STANDARD.encode(hash.0));
                body.push('\n');
            }
        }
        body.push('\n');
        body.push_str(&assembled.for_witnesses(LINES_MAX));
        let request = self.http.post(self.url.clone()).header("content-type", "text/plain; charset=utf-8");
        let mut response = request.body(body).send().await.map_err(|error| error.without_url().to_string())?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
            if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
            }
            answer.extend_from_slice(&chunk);
        }
        let answer = String::from_utf8(answer).map_err(|_| "an answer that is no UTF-8".to_owned())?;
        match response.status() {
            StatusCode::OK => cosignature(&self.key, &checkpoint.text(), &answer).map(Answer::Cosigned),
            StatusCode::CONFLICT => conflict(&answer, self.size).map(Answer::Size),
            StatusCode::UNPROCESSABLE_ENTITY => {
                // Either side may be wrong: this is what witnesses are for.
                error!(witness = self.key.name(), size = %checkpoint.size, old = %self.size,
                    "the witness says that the checkpoint does not continue the one it cosigned");
                Err(format!("422: {}", shown(&answer)))
            }
            status => Err(format!("{status}: {}", shown(&answer))),
        }
    }
}

/// The witness' line out of its answer, verified.
fn cosignature(key: &VerifierKey, text: &str, answer: &str) -> Result<SignatureLine, String> {
    let note = Note::parse(&format!("{text}\n{answer}")).map_err(|error| error.to_string())?;
    let signed = note.verify(std::slice::from_ref(key)).map_err(|error| error.to_string())?;
    let line = signed.first().and_then(|signed| note.signatures().get(signed.line));
    line.cloned().ok_or_else(|| "no line".into())
}

/// The size in a 409; the one that was sent would be asked about for ever.
fn conflict(answer: &str, sent: TreeSize) -> Result<TreeSize, String> {
    let size = answer.strip_suffix('\n').unwrap_or(answer).parse().map(TreeSize);
    match size {
        Ok(size) if size != sent => Ok(size),
        Ok(size) => Err(format!("a conflict with size {size}, which is the one that was sent")),
        Err(_) => Err(format!("a conflict without a size: {}", shown(answer))),
    }
}

/// At most 80 characters of an answer.
fn shown(answer: &str) -> String {
    let cut: String = answer.chars().take(80).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::key;
    use cairn_proof::note::Algorithm;

    const TEXT: &str = "cairn/test\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn only_verified_lines_of_the_witness_are_taken() {
        let witness = VerifierKey::new("w.example", Algorithm::CosignatureV1, key(9).public()).unwrap();
        let other = VerifierKey::new("v.example", Algorithm::CosignatureV1, key(8).public()).unwrap();
        let (mine, others) = (witness.sign(&key(9), TEXT, 5).unwrap(), other.sign(&key(8), TEXT, 5).unwrap());
        let taken = |answer: &str| cosignature(&witness, TEXT, answer);
        assert_eq!(taken(&format!("{mine}\n")), Ok(mine.clone()));
        assert_eq!(taken(&format!("{others}\n{mine}\n")), Ok(mine.clone()));
        let stale = witness.sign(&key(9), &TEXT.replace("\n1\n", "\n2\n"), 5).unwrap();
        for answer in [
            String::new(),
            "\n".into(),
            format!("{mine}"),
            format!("{others}\n"),
            format!("{stale}\n"),
            format!("{mine}\n\n"),
            format!("more\n\n{mine}\n"),
            format!("{mine}\n{stale}\n"),
            format!("{mine}\n").repeat(101),
        ] {
            assert!(taken(&answer).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn a_conflict_names_another_size() {
        assert_eq!(conflict("7\n", TreeSize(0)), Ok(TreeSize(7)));
        for answer in ["3\n", "", "\n", "-1\n", "seven\n", "18446744073709551616\n", "7\n8\n"] {
            assert!(conflict(answer, TreeSize(3)).is_err(), "{answer:?}");
        }
    }
}

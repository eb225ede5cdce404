//! One role as a child process: started, watched, restarted when it ends unasked, told to stop by closing its input.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child as Process, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::home::Home;

/// A role that ends unasked more often than this within the window is given up.
const RESTARTS_MAX: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How long a role may take until it serves: a validator replays its blocks first.
const READY_PATIENCE: Duration = Duration::from_secs(180);
/// Lines of a role's log that an error quotes.
const LOG_TAIL_LINES: usize = 12;

/// What to start.
#[derive(Debug, Clone)]
pub(super) struct ChildSpec {
    name: String,
    arguments: Vec<OsString>,
    log: PathBuf,
}

impl ChildSpec {
    /// The node with that name.
    pub(super) fn node(home: &Home, name: &str) -> Self {
        Self::new(home, name.to_owned(), vec!["node".into(), "--name".into(), name.into()])
    }

    /// A role that there is one of.
    pub(super) fn role(home: &Home, role: &str) -> Self {
        Self::new(home, role.to_owned(), vec![role.into()])
    }

    fn new(home: &Home, name: String, mut arguments: Vec<OsString>) -> Self {
        arguments.extend(["--with-parent".into(), "--dir".into(), home.path().into()]);
        let log = home.logs_dir().join(format!("{name}.log"));
        Self { name, arguments, log }
    }

    fn spawn(&self) -> Result<Process> {
        let program = std::env::current_exe().context("where this program lies")?;
        if let Some(folder) = self.log.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("the log {}", self.log.display()))?;
        Command::new(program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.name))
    }

    /// What an operator has to read when the role fails.
    fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(16 * 1024)..]).into_owned();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n  ");
        format!("{} ended; the end of {}:\n  {tail}", self.name, self.log.display())
    }
}

/// A supervised role.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    stop: watch::Sender<bool>,
    ready: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Child {
    /// Starts the role; what cannot be mended by a restart goes to `report`.
    pub(super) fn start(spec: ChildSpec, report: mpsc::Sender<String>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (tell_ready, ready) = watch::channel(false);
        let name = spec.name.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = supervise(&spec, stopping, &tell_ready).await {
                let _ = report.send(format!("{error:#}")).await;
            }
        });
        Self { name, stop, ready, task }
    }

    /// Waits until the role serves.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let serving = async { self.ready.wait_for(|ready| *ready).await.map(drop) };
        match tokio::time::timeout(READY_PATIENCE, serving).await {
            Ok(Ok(())) => Ok(()),
            // The reason is on its way to the report.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => bail!("{} did not serve within {} s; see its log", self.name, READY_PATIENCE.as_secs()),
        }
    }

    /// Closes the role's input: it ends what it is at, and stops.
    pub(super) fn tell_to_stop(&mut self) {
        self.stop.send_replace(true);
    }

    /// Waits until the role has ended; one that does not is killed.
    pub(super) async fn stopped(&mut self, patience: Duration) {
        if tokio::time::timeout(patience, &mut self.task).await.is_err() {
            tracing::warn!(role = self.name, "did not stop in time and is killed");
            self.task.abort();
        }
    }
}

/// Keeps the role running until it is told to stop.
async fn supervise(spec: &ChildSpec, mut stopping: watch::Receiver<bool>, ready: &watch::Sender<bool>) -> Result<()> {
    let mut ends: Vec<Instant> = vec![];
    loop {
        let mut process = spec.spawn()?;
        // Dropping it tells the role to stop.
        let input = process.stdin.take();
        let output = process.stdout.take().context("the role's output")?;
        let mut lines = BufReader::new(output).lines();
        let reader = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with("ready") {
                    ready.send_replace(true);
                }
            }
            std::future::pending::<()>().await;
        };
        // The guard that a watch hands out must not live on in the arm that waits.
        let told = async { stopping.wait_for(|stop| *stop).await.map(drop) };
        let status = tokio::select! {
            status = process.wait() => status.context("waiting for the role")?,
            () = reader => unreachable_pause().await,
            _ = told => {
                drop(input);
                process.wait().await.context("waiting for the role")?;
                return Ok(());
            }
        };
        if !*ready.borrow() {
            return Err(anyhow!("{} ({status})", spec.log_tail()));
        }
        ends.retain(|end| end.elapsed() < RESTART_WINDOW);
        ends.push(Instant::now());
        if ends.len() > RESTARTS_MAX {
            return Err(anyhow!("{} ({status}), {} times in a minute", spec.log_tail(), ends.len()));
        }
        tracing::warn!(role = spec.name, %status, "ended unasked and is started again");
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// The reader never ends by itself.
async fn unreachable_pause() -> std::process::ExitStatus {
    std::future::pending().await
}

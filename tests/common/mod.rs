//! A real network for tests: the `cairn` binary in processes of its own, in a temporary folder, on free ports.
//!
//! Nothing is mocked. Whatever a test starts ends with it, however it ends.
#![allow(dead_code, unreachable_pub)]

pub mod apache;
pub mod chain;
pub mod s3;
pub mod streams;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Ports that a network of four validators takes.
const PORTS_PER_NETWORK: u16 = 20;
/// Tests in one process take blocks of ports one after the other; processes start at different places.
static NEXT_BLOCK: AtomicU16 = AtomicU16::new(0);

/// A first port such that the whole block is free at this moment.
pub fn free_base_port() -> u16 {
    let start = u16::try_from(std::process::id() % 600).unwrap() * 30;
    for _ in 0..700 {
        let block = NEXT_BLOCK.fetch_add(1, Ordering::Relaxed);
        let base = 10_000 + (start + block * PORTS_PER_NETWORK) % 21_000;
        if (base..base + PORTS_PER_NETWORK).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return base;
        }
    }
    panic!("no free ports");
}

/// The binary under test.
pub fn cairn() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns what it printed; fails the test when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", describe(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Status, standard output and standard error in one text.
pub fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n--- stdout\n{}\n--- stderr\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A process that is killed, with all its children, when it is dropped.
pub struct Process {
    child: Child,
    ready: Receiver<String>,
    errors: Receiver<String>,
}

impl Process {
    /// Starts a role and waits for its line that begins with "ready".
    pub fn start(command: &mut Command, patience: Duration) -> Self {
        let mut process = Self::spawn(command);
        process.wait_ready(patience);
        process
    }

    /// Starts a role.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, ready) = channel();
        let output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.starts_with("ready") {
                    let _ = tell.send(line);
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let (log, errors) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            let _ = log.send(text);
        });
        Self { child, ready, errors }
    }

    /// Waits for the line that begins with "ready".
    pub fn wait_ready(&mut self, patience: Duration) {
        if self.ready.recv_timeout(patience).is_err() {
            self.kill();
            panic!("not ready: {}", self.errors.recv_timeout(Duration::from_secs(5)).unwrap_or_default());
        }
    }

    /// kill -9 of the process and everything that it started, at once.
    pub fn kill(&mut self) {
        let mut doomed = vec![self.child.id()];
        doomed.extend(descendants(self.child.id()));
        for id in doomed {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
    }

    /// kill -9 of the process alone.
    pub fn kill_alone(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, name: &str) {
        Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
    }

    /// SIGTERM, and waits for a clean end.
    pub fn terminate(&mut self, patience: Duration) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "SIGTERM must end it cleanly: {status}");
                return;
            }
            assert!(Instant::now() < deadline, "it did not end within {patience:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ids of all processes below `parent`.
fn descendants(parent: u32) -> Vec<u32> {
    let mut found = vec![];
    let tasks = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    // Children belong to the thread that started them, so every thread is asked.
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().filter_map(Result::ok);
    let mut text = tasks;
    for thread in threads {
        text.push(' ');
        text.push_str(&std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    }
    for id in text.split_whitespace().filter_map(|id| id.parse().ok()) {
        if !found.contains(&id) {
            found.push(id);
            found.extend(descendants(id));
        }
    }
    found
}

/// A network's folder and its commands.
pub struct Network {
    folder: tempfile::TempDir,
}

impl Network {
    /// A new network of four validators. Without the built-in streams unless asked for.
    pub fn new(built_in_streams: bool) -> Self {
        Self::init(built_in_streams, &[])
    }

    /// A new network without streams that uses the given brokers.
    pub fn with_kafka(brokers: &str) -> Self {
        Self::init(false, &["--kafka", brokers])
    }

    /// A new network without streams, made with further arguments of `cairn init`.
    pub fn with(arguments: &[&str]) -> Self {
        Self::init(false, arguments)
    }

    fn init(built_in_streams: bool, arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("cairn-test-").tempdir().unwrap();
        let network = Self { folder };
        let base = free_base_port().to_string();
        let mut command = cairn();
        command.args(["init", "--base-port", &base, "--chain-id", "test"]);
        if !arguments.contains(&"--heartbeat-ms") {
            command.args(["--heartbeat-ms", "1000"]);
        }
        command.args(arguments);
        run(command.arg("--dir").arg(network.dir()));
        if !built_in_streams {
            std::fs::remove_dir_all(network.dir().join("streams")).unwrap();
            std::fs::create_dir(network.dir().join("streams")).unwrap();
        }
        network
    }

    /// The folder.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    /// A scratch file beside the network.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command on this network: `cairn NAME --dir DIR`.
    pub fn command(&self, name: &str) -> Command {
        let mut command = cairn();
        command.arg(name).arg("--dir").arg(self.dir());
        command
    }

    /// A command of two words on this network: `cairn stream add --dir DIR`.
    pub fn command_at(&self, names: &[&str]) -> Command {
        let mut command = cairn();
        command.args(names).arg("--dir").arg(self.dir());
        command
    }

    /// Where Kafka clients connect.
    pub fn brokers(&self) -> String {
        let text = std::fs::read_to_string(self.dir().join("cairn.toml")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("brokers = ")).unwrap();
        line.trim_matches('"').to_owned()
    }

    /// `cairn up`, ready.
    pub fn up(&self) -> Process {
        Process::start(&mut self.command("up"), Duration::from_secs(120))
    }

    /// `cairn node --index N`, ready.
    pub fn node(&self, index: usize) -> Process {
        Process::start(self.command("node").args(["--index", &index.to_string()]), Duration::from_secs(60))
    }

    /// `cairn node --index N`, not ready yet: one validator alone makes no block, but it serves.
    pub fn node_starting(&self, index: usize) -> Process {
        Process::spawn(self.command("node").args(["--index", &index.to_string()]))
    }

    /// `cairn ingest` or `cairn query`, ready.
    pub fn role(&self, name: &str) -> Process {
        Process::start(&mut self.command(name), Duration::from_secs(90))
    }

    /// [`Network::status`] from within a runtime.
    pub async fn status_async(self: &Arc<Self>) -> Value {
        let network = Arc::clone(self);
        tokio::task::spawn_blocking(move || network.status()).await.unwrap()
    }

    /// The answer to a statement, as JSON rows.
    pub fn sql(&self, statement: &str) -> Vec<Value> {
        let text = run(self.command("sql").args(["--format", "json", statement]));
        serde_json::from_str(&text).unwrap()
    }

    /// The one number that a statement answers.
    pub fn number(&self, statement: &str) -> u64 {
        let rows = self.sql(statement);
        let first = rows[0].as_object().unwrap().values().next().unwrap();
        first.as_u64().unwrap_or_else(|| panic!("{statement}: {rows:?}"))
    }

    /// Waits until everything in Kafka is anchored.
    pub fn wait_anchored(&self, seconds: u64) {
        run(self.command("status").args(["--wait-anchored", &seconds.to_string()]));
    }

    /// `cairn status --format json`.
    pub fn status(&self) -> Value {
        serde_json::from_str(&run(self.command("status").args(["--format", "json"]))).unwrap()
    }

    /// `cairn audit`, which must find nothing.
    pub fn audit_is_clean(&self) {
        run(&mut self.command("audit"));
    }

    /// Every stored object, segments and hash trees.
    pub fn objects(&self) -> Vec<PathBuf> {
        files(&self.dir().join("objects/segments"))
    }
}

/// All files below a folder, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

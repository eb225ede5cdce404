//! The roles of a network as processes that can be killed, paused and started again; all end with this process.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cairn_ingest::KafkaConfig;
use cairn_ingest::broker::EmbeddedBroker;
use tempfile::TempDir;

use super::{Kafka, Options, PARTITIONS, SCHEMA, STREAM, tell};
use crate::chain::network::free_ports;

/// How long the network may take until it is there.
const START_WITHIN: Duration = Duration::from_secs(60);
const VALIDATORS: u16 = 4;
/// Ports that a network of four takes.
const PORTS: u16 = 18;

/// A role in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Broker,
    Validator(u16),
    Ingest,
    Query,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker => f.write_str("broker"),
            Self::Validator(_) => f.write_str("validator"),
            Self::Ingest => f.write_str("ingest"),
            Self::Query => f.write_str("query"),
        }
    }
}

/// A network and its broker.
pub(super) struct Network {
    cairn: PathBuf,
    folder: TempDir,
    broker: (Kafka, SocketAddr),
    running: BTreeMap<Role, Child>,
}

/// The program beside this one; cargo builds it if it is not there.
fn program(given: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(given) = given {
        ensure!(given.is_file(), "--cairn {}: there is no such file", given.display());
        return Ok(given.clone());
    }
    let here = std::env::current_exe()?;
    let beside = here.with_file_name("cairn");
    if !beside.is_file() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--package", "cairn-cli"]);
        if here.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        tell("building the program under test");
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().context("running cargo")?;
        ensure!(status.success() && beside.is_file(), "{} was not built: give it with --cairn FILE", beside.display());
    }
    Ok(beside)
}

/// A first port such that all that follow are free at this moment.
fn base_port() -> Result<u16> {
    for _ in 0..100 {
        let base = free_ports(1)?[0];
        if base < 60_000 && (base..base + PORTS).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(base);
        }
    }
    bail!("no {PORTS} free ports in a row were found")
}

fn signal(child: &Child, name: &str) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().context("kill")?;
    ensure!(status.success(), "SIG{name} could not be sent to process {}", child.id());
    Ok(())
}

impl Network {
    /// Makes a network with one stream, and starts all of it.
    pub(super) async fn make(options: &Options) -> Result<Self> {
        let cairn = program(options.cairn.as_ref())?;
        let folder = tempfile::Builder::new().prefix("cairn-chaos-").tempdir()?;
        let port = if options.kafka == Kafka::Apache { kafka_port()? } else { free_ports(1)?[0] };
        let broker = (options.kafka, SocketAddr::from(([127, 0, 0, 1], port)));
        let mut network = Self { cairn, folder, broker, running: BTreeMap::new() };
        if options.kafka == Kafka::Apache {
            let mut make = kafka_script()?;
            make.arg("make").arg(network.folder.path().join("kafka")).args([port.to_string(), "1".into()]);
            let made = make.output().context("running tests/kafka/kafka.sh with bash")?;
            ensure!(made.status.success(), "Apache Kafka: {}", String::from_utf8_lossy(&made.stderr));
        }
        network.start(Role::Broker).await?;
        let (base, brokers) = (base_port()?.to_string(), broker.1.to_string());
        network.run(&["init", "--base-port", &base, "--kafka", &brokers])?;
        for index in 0..VALIDATORS {
            network.start(Role::Validator(index)).await?;
        }
        network.start(Role::Ingest).await?;
        network.start(Role::Query).await?;
        network.add_stream()?;
        Ok(network)
    }

    fn add_stream(&self) -> Result<()> {
        let (schema, file) = (self.folder.path().join("numbers.avsc"), self.folder.path().join("numbers.toml"));
        std::fs::write(&schema, SCHEMA)?;
        let definition = format!(
            "name = \"{STREAM}\"\ntopic = \"{STREAM}\"\npartitions = {PARTITIONS}\nformat = \"avro\"\n\
             schema = \"numbers.avsc\"\nschema_id = 1\nkey_fields = [\"number\"]\n"
        );
        std::fs::write(&file, definition)?;
        let started = Instant::now();
        // The validators may not have found each other yet.
        loop {
            match self.run(&["stream", "add", &file.to_string_lossy()]) {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > START_WITHIN => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn kafka(&self) -> KafkaConfig {
        let mut kafka = KafkaConfig::new(self.broker.1.to_string());
        // A record is tried again for as long as the broker is away.
        kafka.settings.insert("message.timeout.ms".into(), "600000".into());
        kafka
    }

    fn city(&self) -> PathBuf {
        self.folder.path().join("city")
    }

    /// Runs a command of the program to its end.
    pub(super) fn output(&self, arguments: &[&str]) -> Result<Output> {
        let (command, rest) = arguments.split_first().context("a command")?;
        let mut run = Command::new(&self.cairn);
        run.arg(command);
        // `stream add` has its folder after the second word.
        let rest = if *command == "stream" {
            run.arg(rest[0]);
            &rest[1..]
        } else {
            rest
        };
        Ok(run.arg("--dir").arg(self.city()).args(rest).stdin(Stdio::null()).output()?)
    }

    /// As [`Network::output`]; fails when the command does.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cairn {}: {}: {told}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    fn command(&self, role: Role) -> Result<Command> {
        let mut command = match (role, self.broker.0) {
            (Role::Broker, Kafka::Apache) => {
                let mut script = kafka_script()?;
                script.arg("serve").arg(self.folder.path().join("kafka/broker-1"));
                return Ok(script);
            }
            (Role::Broker, Kafka::Embedded) => {
                let mut this = Command::new(std::env::current_exe()?);
                this.arg("embedded-broker").arg(self.folder.path().join("broker")).arg(self.broker.1.to_string());
                return Ok(this);
            }
            _ => Command::new(&self.cairn),
        };
        match role {
            Role::Validator(index) => command.args(["node", "--index", &index.to_string()]),
            Role::Ingest => command.arg("ingest"),
            _ => command.arg("query"),
        };
        command.arg("--dir").arg(self.city()).arg("--with-parent");
        Ok(command)
    }

    /// Starts a role, if it does not run. The broker is waited for.
    pub(super) async fn start(&mut self, role: Role) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join(format!("{role}.log")))?;
        let mut command = self.command(role)?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        self.running.insert(role, child.with_context(|| format!("starting {role}"))?);
        let started = Instant::now();
        while role == Role::Broker && tokio::net::TcpStream::connect(self.broker.1).await.is_err() {
            ensure!(started.elapsed() < START_WITHIN, "the broker does not answer at {}", self.broker.1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Starts again what has ended by itself.
    pub(super) async fn revive(&mut self) -> Result<()> {
        let mut ended = Vec::new();
        for (role, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                tell(&format!("{role} had ended by itself: {status}"));
                ended.push(*role);
            }
        }
        for role in ended {
            self.start(role).await?;
        }
        Ok(())
    }

    /// kill -9. A broker in a script's hands is killed by it when its standard input ends.
    pub(super) fn kill(&mut self, role: Role) -> Result<()> {
        if let Some(mut child) = self.running.remove(&role) {
            if role == Role::Broker && self.broker.0 == Kafka::Apache {
                drop(child.stdin.take());
            } else {
                child.kill()?;
            }
            child.wait()?;
        }
        Ok(())
    }

    pub(super) fn pause(&self, role: Role) -> Result<()> {
        self.running.get(&role).map_or(Ok(()), |child| signal(child, "STOP"))
    }

    pub(super) fn go_on(&self, role: Role) -> Result<()> {
        self.running.get(&role).map_or(Ok(()), |child| signal(child, "CONT"))
    }

    /// Ends everything.
    pub(super) fn stop(&mut self) {
        let roles: Vec<Role> = self.running.keys().copied().collect();
        for role in roles {
            let _ = self.kill(role);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}

fn kafka_script() -> Result<Command> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka/kafka.sh");
    ensure!(script.is_file(), "{} is missing: chaos on Apache Kafka runs where it was built", script.display());
    let mut command = Command::new("bash");
    command.arg(script);
    Ok(command)
}

/// The first of three free ports.
fn kafka_port() -> Result<u16> {
    for _ in 0..100 {
        let port = free_ports(1)?[0];
        if port < 65_000 && (port..port + 3).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(port);
        }
    }
    bail!("no three free ports in a row were found")
}

/// The embedded broker in this process, until standard input ends.
pub(crate) fn embedded_broker(folder: &Path, listen: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = EmbeddedBroker::start(folder, listen).await?;
        tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
        broker.stop().await;
        Ok(())
    })
}

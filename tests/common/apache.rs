//! Apache Kafka for tests: real brokers on loopback, run by `tests/kafka/kafka.sh`.
//!
//! A test that needs it and cannot have it (no Java, no Maven, no registry) says so in one line and passes.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// What the script says by its exit code when something that it needs is not there.
const UNAVAILABLE: i32 = 69;
const PORTS_PER_BROKER: u16 = 3;
const PATIENCE: Duration = Duration::from_secs(90);
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A cluster, which ends with the value.
pub struct Apache {
    folder: PathBuf,
    port: u16,
    brokers: Vec<Option<Child>>,
}

/// One broker for all tests of a process; it ends with the process. Without TLS.
pub fn shared() -> Option<&'static Apache> {
    static SHARED: OnceLock<Option<Apache>> = OnceLock::new();
    SHARED.get_or_init(|| Apache::start_in(1, false, true)).as_ref()
}

impl Apache {
    /// Starts a cluster; nothing, if it cannot be had.
    pub fn start(brokers: u16, secure: bool) -> Option<Self> {
        Self::start_in(brokers, secure, false)
    }

    fn start_in(brokers: u16, secure: bool, shared: bool) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("cairn-kafka-").tempdir().unwrap().keep();
        let port = free_ports(brokers * PORTS_PER_BROKER);
        let mut make = script();
        make.arg("make").arg(&folder).args([port.to_string(), brokers.to_string()]);
        if secure {
            make.arg("secure");
        }
        let made = make.output().unwrap();
        if made.status.code() == Some(UNAVAILABLE) {
            eprintln!("skipped: {}", String::from_utf8_lossy(&made.stderr).trim());
            let _ = std::fs::remove_dir_all(&folder);
            return None;
        }
        assert!(made.status.success(), "{made:?}");
        let mut cluster = Self { folder, port, brokers: vec![] };
        for broker in 0..brokers {
            let child = cluster.spawn(broker, shared);
            cluster.brokers.push(Some(child));
        }
        (0..brokers).for_each(|broker| cluster.wait_for(broker));
        Some(cluster)
    }

    fn spawn(&self, broker: u16, delete: bool) -> Child {
        let mut serve = script();
        serve.arg("serve").arg(self.folder.join(format!("broker-{}", broker + 1)));
        if delete {
            serve.env("CAIRN_KAFKA_DELETE", &self.folder);
        }
        // The script ends the broker when this pipe closes, however this process ends.
        serve.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn wait_for(&self, broker: u16) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port_of(broker)));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let log = self.folder.join(format!("broker-{}/server.log", broker + 1));
            assert!(Instant::now() < deadline, "broker {broker}: {}", std::fs::read_to_string(log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn port_of(&self, broker: u16) -> u16 {
        self.port + PORTS_PER_BROKER * broker
    }

    /// Where plain clients connect.
    pub fn bootstrap(&self) -> String {
        self.addresses(0)
    }

    /// Where clients connect that speak SASL over TLS.
    pub fn secure_bootstrap(&self) -> String {
        self.addresses(2)
    }

    fn addresses(&self, listener: u16) -> String {
        let brokers = 0..u16::try_from(self.brokers.len()).unwrap();
        let addresses = brokers.map(|broker| format!("127.0.0.1:{}", self.port_of(broker) + listener));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The certificate that the brokers' are checked by.
    pub fn root_certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The password of the user `city`.
    pub fn password(&self) -> String {
        std::fs::read_to_string(self.folder.join("password")).unwrap()
    }

    /// kill -9 of one broker, counted from 0.
    pub fn kill(&mut self, broker: u16) {
        if let Some(mut child) = self.brokers[usize::from(broker)].take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }

    /// Starts one broker again on what it had stored.
    pub fn restart(&mut self, broker: u16) {
        let child = self.spawn(broker, false);
        self.brokers[usize::from(broker)] = Some(child);
        self.wait_for(broker);
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        for broker in 0..u16::try_from(self.brokers.len()).unwrap() {
            self.kill(broker);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Java with Kafka's client in its class path.
pub fn java() -> Command {
    let mut command = script();
    command.arg("java");
    command
}

/// The script, with the cache folder beside what cargo builds.
fn script() -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka/kafka.sh");
    let mut command = Command::new("bash");
    command.arg(file).stdin(Stdio::null());
    if std::env::var_os("CAIRN_KAFKA_CACHE").is_none() {
        command.env("CAIRN_KAFKA_CACHE", cache("apache-kafka"));
    }
    command
}

/// A folder in the target folder that outlives a run.
pub fn cache(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    // target/debug/deps/PROGRAM
    program.ancestors().nth(3).unwrap().join(name)
}

/// The first of so many ports that are free at this moment, above those of `free_base_port`.
fn free_ports(count: u16) -> u16 {
    let start = u16::try_from(std::process::id() % 50).unwrap() * 30;
    for _ in 0..100 {
        let base = 31_100 + (start + NEXT.fetch_add(count.max(9), Ordering::Relaxed)) % 1_500;
        if (base..base + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return base;
        }
    }
    panic!("no free ports");
}

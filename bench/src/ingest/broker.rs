//! The broker of a run: Apache Kafka by the project's script, on loopback, or one that runs already.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

/// Heap of the broker: enough for millions of records in its page cache's shadow.
const HEAP: &str = "1g";

/// A broker; one that was started here ends with the value.
pub(super) struct Broker {
    address: String,
    started: Option<(Child, TempDir)>,
}

impl Broker {
    /// One that runs already.
    pub(super) const fn given(address: String) -> Self {
        Self { address, started: None }
    }

    /// Starts Apache Kafka. Needs Java 17, and Maven the first time.
    pub(super) async fn start() -> Result<Self> {
        tokio::task::spawn_blocking(Self::start_now).await?
    }

    fn start_now() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka/kafka.sh");
        ensure!(script.is_file(), "{} is missing: the bench runs where it was built", script.display());
        let folder = tempfile::Builder::new().prefix("cairn-bench-kafka-").tempdir()?;
        let port = crate::chain::network::free_ports(3)?[0];
        let mut child = Command::new("bash")
            .arg(&script)
            .arg("start")
            .arg(folder.path())
            .args([port.to_string(), "1".to_owned()])
            .env("CAIRN_KAFKA_HEAP", HEAP)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting tests/kafka/kafka.sh with bash")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("the script's output")?).read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("ready ") else {
            let status = child.wait()?;
            bail!(
                "Apache Kafka did not start ({status}): needs Java 17 and Maven; or give a broker with --kafka HOST:PORT"
            );
        };
        Ok(Self { address: address.to_owned(), started: Some((child, folder)) })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.started {
            // The script ends the broker when it is told to stop.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

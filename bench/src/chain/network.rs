//! Validators as processes of their own: this program starts itself again for each, and ends them with itself.
//!
//! A validator reads its configuration from a file in a temporary folder and runs until its standard input ends, so
//! that none is left behind however the bench ends.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::Client;
use cairn_chain_node::{Node, NodeConfig};
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::SigningKey;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// How long the network may take until its chain moves.
const START_WITHIN: Duration = Duration::from_secs(60);

/// What one validator's process reads.
#[derive(Debug, Serialize, Deserialize)]
struct ValidatorFile {
    genesis: Genesis,
    config: NodeConfig,
    /// A key of this run alone, which nobody else trusts.
    seed: [u8; 32],
}

/// Running validators.
#[derive(Debug)]
pub(crate) struct Network {
    children: Vec<Option<Child>>,
    api: Vec<SocketAddr>,
    folders: Vec<PathBuf>,
    _folder: TempDir,
}

/// Free ports, all different.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

impl Network {
    /// Starts a process for each of `keys`; `genesis` names them at `ports`.
    pub(crate) fn start(genesis: &Genesis, keys: &[SigningKey], ports: &[u16]) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder for the validators")?;
        let api_ports = free_ports(keys.len())?;
        let (mut children, mut folders) = (Vec::new(), Vec::new());
        for (index, key) in keys.iter().enumerate() {
            let data = folder.path().join(format!("validator-{index}"));
            let config = NodeConfig::new(data.clone(), local(ports[index]), vec![], local(api_ports[index]));
            let file = ValidatorFile { genesis: genesis.clone(), config, seed: key.seed() };
            let path = folder.path().join(format!("validator-{index}.json"));
            fs::write(&path, serde_json::to_vec(&file)?)?;
            let child = Command::new(std::env::current_exe()?)
                .arg("validator")
                .arg(&path)
                .stdin(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting validator {index}"))?;
            children.push(Some(child));
            folders.push(data);
        }
        let api = api_ports.into_iter().map(local).collect();
        Ok(Self { children, api, folders, _folder: folder })
    }

    /// Where validator `index` answers.
    pub(crate) fn url(&self, index: usize) -> String {
        format!("http://{}", self.api[index])
    }

    /// A client of all of them, which asks `first` first.
    pub(crate) fn client(&self, first: usize) -> Result<Client> {
        let order = (0..self.api.len()).map(|offset| (first + offset) % self.api.len());
        let urls = order.map(|index| self.url(index).parse()).collect::<Result<Vec<_>, _>>()?;
        Ok(Client::new(urls)?)
    }

    /// Height at validator `index`.
    pub(crate) async fn height(&self, index: usize) -> Result<u64> {
        let status = self.client(index)?.status_of(&self.url(index).parse()?).await?;
        status["height"].as_u64().context("the status has no height")
    }

    /// Waits until validator `index` is at `height`.
    pub(crate) async fn wait_for_height(&self, index: usize, height: u64, patience: Duration) -> Result<()> {
        let started = Instant::now();
        while self.height(index).await.unwrap_or(0) < height {
            if started.elapsed() > patience {
                bail!("validator {index} did not come to height {height} within {} s", patience.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until all validators follow a chain that moves.
    pub(crate) async fn ready(&self) -> Result<()> {
        for index in 0..self.api.len() {
            self.wait_for_height(index, 2, START_WITHIN).await?;
        }
        Ok(())
    }

    /// Kills a validator at once.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        if let Some(mut child) = self.children[index].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Bytes that validator `index` has on disk (blocks that the file system gave it).
    pub(crate) fn disk_bytes(&self, index: usize) -> Result<u64> {
        folder_bytes(&self.folders[index])
    }

    /// Resident memory of validator `index`, where the system tells.
    pub(crate) fn resident_bytes(&self, index: usize) -> Option<u64> {
        let process = self.children[index].as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // Its standard input ends here as well; a bench needs no orderly stop.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Runs the validator that `file` describes until standard input ends.
pub(crate) fn validator(file: &Path) -> Result<()> {
    let ValidatorFile { genesis, config, seed } = serde_json::from_slice(&fs::read(file)?)?;
    let mut node = Node::start(config, genesis, &SigningKey::from_seed(&seed))?;
    let stop = node.stopper();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        stop();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(node.wait())?;
    Ok(())
}

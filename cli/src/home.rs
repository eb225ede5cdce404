//! The folder of a network: where keys, genesis, configuration and data lie.
//!
//! ```text
//! DIR/cairn.toml            addresses and limits              DIR/keys/validator-N.key  votes
//! DIR/genesis.json          what a verifier needs             DIR/keys/owner.key        registers streams
//! DIR/streams/*.toml        definitions, registered at start  DIR/keys/ingest.key       signs anchors
//! DIR/data/validator-N/     voting history, blocks            DIR/keys/query.key        signs evidence of answers
//! DIR/data/broker/          the embedded broker's records     DIR/keys/secrets.key      encrypts batch secrets
//! DIR/logs/ROLE.log         what each role logs               DIR/objects/              segments
//! DIR/data/dead-letters.json  which were delivered            DIR/secrets/              batch secrets, encrypted
//! ```

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::SigningKey;
use rand::TryRng as _;

use crate::config::Config;

/// The folder of a network, with an absolute path.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// The folder at `dir`, which need not exist.
    pub(crate) fn at(dir: &Path) -> Result<Self> {
        let path =
            std::path::absolute(dir).with_context(|| format!("the folder {} has no absolute path", dir.display()))?;
        Ok(Self(path))
    }

    /// The folder at `dir`, which `cairn init` must have made.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let home = Self::at(dir)?;
        if !home.config_file().is_file() {
            bail!(
                "{} is not a Cairn folder: expected a cairn.toml in it; make one with `cairn init --dir {}`",
                dir.display(),
                dir.display()
            );
        }
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.0.join("cairn.toml")
    }

    pub(crate) fn genesis_file(&self) -> PathBuf {
        self.0.join("genesis.json")
    }

    pub(crate) fn streams_dir(&self) -> PathBuf {
        self.0.join("streams")
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// What the node with that name stores.
    pub(crate) fn node_data(&self, name: &str) -> PathBuf {
        self.0.join("data").join(name)
    }

    pub(crate) fn broker_data(&self) -> PathBuf {
        self.0.join("data/broker")
    }

    /// Which dead letters were delivered.
    pub(crate) fn dead_letters_file(&self) -> PathBuf {
        self.0.join("data/dead-letters.json")
    }

    /// A file that a role holds locked while it runs.
    pub(crate) fn lock_file(&self, role: &str) -> PathBuf {
        self.0.join(format!("data/{role}.lock"))
    }

    pub(crate) fn key_file(&self, name: &str) -> PathBuf {
        self.0.join(format!("keys/{name}.key"))
    }

    /// The configuration, read and checked.
    pub(crate) fn config(&self) -> Result<Config> {
        Config::read(&self.config_file())
    }

    /// The genesis, read and checked.
    pub(crate) fn genesis(&self) -> Result<Genesis> {
        read_genesis(&self.genesis_file())
    }

    /// An Ed25519 key of the folder.
    pub(crate) fn signing_key(&self, name: &str) -> Result<SigningKey> {
        Ok(SigningKey::from_seed(&self.secret(name)?))
    }

    /// 32 secret bytes of a key file, which nobody but its owner may be able to read.
    pub(crate) fn secret(&self, name: &str) -> Result<[u8; 32]> {
        read_secret(&self.key_file(name))
    }

    /// Writes a new key file with mode 0600. Never overwrites one.
    pub(crate) fn write_secret(&self, name: &str, seed: &[u8; 32]) -> Result<()> {
        write_secret_file(&self.key_file(name), seed)
    }

    /// The key file of a name that a person gave: a plain file name, so that nothing outside the folder is written to.
    pub(crate) fn named_key_file(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
            bail!("{name:?} names no key file: expected 1 to 100 of A–Z, a–z, 0–9, '.', '-' and '_'; see --key");
        }
        Ok(self.key_file(name))
    }

    /// The names of all signing keys of the folder, in order. The key of the batch secrets signs nothing.
    pub(crate) fn key_names(&self) -> Result<Vec<String>> {
        let folder = self.0.join("keys");
        let mut names = vec![];
        for entry in fs::read_dir(&folder).with_context(|| format!("the folder {}", folder.display()))? {
            let path = entry.with_context(|| format!("the folder {}", folder.display()))?.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            if path.extension().is_some_and(|extension| extension == "key") {
                names.extend(name.filter(|name| *name != "secrets").map(str::to_owned));
            }
        }
        names.sort();
        Ok(names)
    }
}

/// 32 random bytes of the system.
pub(crate) fn random_seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut seed).context("the system gives no random bytes")?;
    Ok(seed)
}

/// 32 secret bytes of a key file, which nobody but its owner may be able to read.
pub(crate) fn read_secret(file: &Path) -> Result<[u8; 32]> {
    let shown = file.display();
    let metadata = fs::metadata(file).with_context(|| format!("the key file {shown} cannot be read"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("the key file {shown} has mode {mode:04o}: others can read it; expected 0600, do `chmod 600 {shown}`");
    }
    let text = fs::read_to_string(file).with_context(|| format!("the key file {shown} cannot be read"))?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|_| anyhow::anyhow!("the key file {shown}: expected 64 hexadecimal digits, found something else"))?;
    Ok(seed)
}

/// Writes a new key file with mode 0600. Never overwrites one.
pub(crate) fn write_secret_file(file: &Path, seed: &[u8; 32]) -> Result<()> {
    write_new(file, format!("{}\n", hex::encode(seed)).as_bytes(), 0o600)
}

/// Reads and checks a genesis file.
pub(crate) fn read_genesis(file: &Path) -> Result<Genesis> {
    let bytes = fs::read(file).with_context(|| format!("the genesis file {} cannot be read", file.display()))?;
    Genesis::from_json(&bytes).with_context(|| format!("the genesis file {}", file.display()))
}

/// Makes a folder and those above it; the folder itself with the given mode.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("the folder {} cannot be made", path.display()))
}

/// Writes a file that must not exist yet.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("the file {} cannot be made", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        make_dir(&folder.path().join("keys"), 0o700).unwrap();
        home.write_secret("owner", &[7; 32]).unwrap();
        assert_eq!(home.secret("owner").unwrap(), [7; 32]);
        assert!(home.write_secret("owner", &[8; 32]).is_err(), "a key is never overwritten");
        fs::set_permissions(home.key_file("owner"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = home.secret("owner").unwrap_err().to_string();
        assert!(error.contains("0644") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn names_of_keys_stay_in_the_folder() {
        let home = Home::at(Path::new("net")).unwrap();
        assert!(home.named_key_file("meter-7.b").is_ok());
        for bad in ["", "../owner", "a/b", ".hidden", "a b"] {
            assert!(home.named_key_file(bad).unwrap_err().to_string().contains("names no key file"), "{bad}");
        }
    }

    #[test]
    fn the_key_of_the_secrets_is_no_signing_key() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        make_dir(&folder.path().join("keys"), 0o700).unwrap();
        for name in ["secrets", "owner", "ingest"] {
            home.write_secret(name, &[1; 32]).unwrap();
        }
        fs::write(folder.path().join("keys/ingest.key.old"), "").unwrap();
        assert_eq!(home.key_names().unwrap(), ["ingest", "owner"]);
    }

    #[test]
    fn a_folder_without_configuration_names_init() {
        let folder = tempfile::tempdir().unwrap();
        let error = Home::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("cairn init"), "{error}");
    }
}

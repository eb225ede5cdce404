//! `cairn identity rotate`, `revoke`, `expire`: what becomes of an identity after it was registered.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cairn_proof::identity::{PublicKey, SigningKey};
use cairn_proof::statement::{Body, RevokeIdentity, RotateKey, SetExpiry};

use crate::chain::Chain;
use crate::home::{random_seed, read_secret, write_secret_file};
use crate::reference;

/// Give an identity another key. Its id stays; the old key is refused from the next statement on.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn identity rotate --dir city ingest --key ingest --controller-key ingest\n  cairn identity rotate --dir city did:key:z6Mk… --key meter-17\n\nThe new key becomes keys/KEY.key; the old file is kept as keys/KEY.key.old. Restart what signs with it."
)]
pub(crate) struct RotateArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Its id, its did:key, or its name.
    identity: String,
    /// The new key is made in keys/KEY.key, in place of the old one.
    #[arg(long)]
    key: String,
    /// Signs it: keys/NAME.key of the identity itself or of its controller.
    #[arg(long, value_name = "NAME", default_value = "owner")]
    controller_key: String,
}

/// End an identity, for ever: nothing that it signs is taken from then on. What it signed before stays valid.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:\n  cairn identity revoke --dir city meter-17 --reason \"stolen\"\n\nThe reason stands on the chain for ever: no personal data in it."
)]
pub(crate) struct RevokeArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Its id, its did:key, or its name.
    identity: String,
    /// Why, for people, 1 to 256 bytes.
    #[arg(long)]
    reason: String,
    /// Signs it: keys/NAME.key of the identity itself or of its controller.
    #[arg(long, value_name = "NAME", default_value = "owner")]
    controller_key: String,
}

/// Set until when an identity may sign.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn identity expire --dir city meter-17 --at 2030-01-01\n  cairn identity expire --dir city meter-17 --at never"
)]
pub(crate) struct ExpireArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Its id, its did:key, or its name.
    identity: String,
    /// From then on the chain refuses what it signs: a date, a time (RFC 3339), or never.
    #[arg(long, value_name = "TIME")]
    at: String,
    /// Signs it: keys/NAME.key of its controller.
    #[arg(long, value_name = "NAME", default_value = "owner")]
    controller_key: String,
}

/// Runs `cairn identity revoke`.
pub(super) async fn revoke(args: &RevokeArgs) -> Result<()> {
    let chain = Chain::open(&args.dir).await?;
    let submitter = chain.submitter(&args.controller_key)?;
    let entry = reference::identity(&chain.follower.ledger(), &args.identity)?;
    let body = Body::RevokeIdentity(RevokeIdentity { identity: entry.id, reason: args.reason.clone() });
    let done = chain.say(&submitter, &body).await?;
    crate::say!("identity {} ({:?}) is revoked at height {}, for ever", entry.id, entry.name, done.height)
}

/// Runs `cairn identity expire`.
pub(super) async fn expire(args: &ExpireArgs) -> Result<()> {
    let expires_ms = reference::expiry(&args.at).context("--at")?;
    let chain = Chain::open(&args.dir).await?;
    let submitter = chain.submitter(&args.controller_key)?;
    let entry = reference::identity(&chain.follower.ledger(), &args.identity)?;
    let body = Body::SetExpiry(SetExpiry { identity: entry.id, expires_ms });
    let done = chain.say(&submitter, &body).await?;
    let when =
        expires_ms.map_or_else(|| "never expires".to_owned(), |ms| format!("expires at {}", reference::time(ms)));
    crate::say!("identity {} ({:?}) {when}, said at height {}", entry.id, entry.name, done.height)
}

/// Runs `cairn identity rotate`.
///
/// The new key is on disk before it is on the chain, so that a crash in between loses neither: run again, it goes on
/// with the same new key.
pub(super) async fn rotate(args: &RotateArgs) -> Result<()> {
    let chain = Chain::open(&args.dir).await?;
    let entry = reference::identity(&chain.follower.ledger(), &args.identity)?;
    let files = KeyFiles::of(chain.home.named_key_file(&args.key)?);
    files.check(&entry.public_key)?;
    let new = files.new_key()?;
    if entry.public_key != new.public() {
        let submitter = chain.submitter(&args.controller_key)?;
        let body = Body::RotateKey(RotateKey::new(entry.id, &new, &chain.tag()));
        let done = chain.say(&submitter, &body).await?;
        crate::say!("identity {} signs with {} since height {}", entry.id, reference::did(&new.public()), done.height)?;
    }
    files.put_in_place()?;
    crate::say!("the new key is {}; restart what signs with it", files.current.display())
}

/// The files of a rotation: the key in use, the one that comes, the one that was.
struct KeyFiles {
    current: PathBuf,
    new: PathBuf,
    old: PathBuf,
}

impl KeyFiles {
    fn of(current: PathBuf) -> Self {
        let with = |end: &str| PathBuf::from(format!("{}.{end}", current.display()));
        Self { new: with("new"), old: with("old"), current }
    }

    /// A file of that name which holds another identity's key must not be replaced.
    fn check(&self, on_chain: &PublicKey) -> Result<()> {
        if !self.current.exists() {
            return Ok(());
        }
        let found = key_in(&self.current)?.public();
        let finished = self.new.exists() && key_in(&self.new)?.public() == *on_chain;
        if found != *on_chain && !finished {
            bail!("{} holds the key of another identity; choose another --key", self.current.display());
        }
        Ok(())
    }

    /// The key that comes: the one that an interrupted run made, or a fresh one.
    fn new_key(&self) -> Result<SigningKey> {
        if !self.new.exists() {
            write_secret_file(&self.new, &random_seed()?)?;
        }
        key_in(&self.new)
    }

    fn put_in_place(&self) -> Result<()> {
        let renamed = |from: &Path, to: &Path| {
            fs::rename(from, to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))
        };
        if self.current.exists() {
            renamed(&self.current, &self.old)?;
        }
        renamed(&self.new, &self.current)
    }
}

fn key_in(path: &Path) -> Result<SigningKey> {
    Ok(SigningKey::from_seed(&read_secret(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_was_interrupted_goes_on_with_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let files = KeyFiles::of(folder.path().join("meter.key"));
        write_secret_file(&files.current, &[1; 32]).unwrap();
        let old = key_in(&files.current).unwrap().public();
        files.check(&old).unwrap();
        let new = files.new_key().unwrap().public();
        assert_eq!(files.new_key().unwrap().public(), new, "asked again, the same");
        // The chain took it, the file was not put in place yet.
        files.check(&new).unwrap();
        files.put_in_place().unwrap();
        assert_eq!(key_in(&files.current).unwrap().public(), new);
        assert_eq!(key_in(&files.old).unwrap().public(), old);
        let stranger = SigningKey::from_seed(&[9; 32]).public();
        assert!(files.check(&stranger).unwrap_err().to_string().contains("another identity"));
    }
}

//! One followed chain for one command: the folder, its configuration, and the ledger followed from genesis once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::{Finalized, Follower, Submitter};
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{Body, ChainTag};

use crate::config::Config;
use crate::home::Home;
use crate::reference;
use crate::roles::{CHAIN_PATIENCE, follow};

/// How long a command waits until what it says is final.
pub(crate) const FINAL_PATIENCE: Duration = Duration::from_secs(60);

/// A folder and its chain, followed to where it is now.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) home: Home,
    pub(crate) config: Config,
    pub(crate) follower: Follower,
}

impl Chain {
    /// Opens the folder at `dir` and follows its chain to the head.
    pub(crate) async fn open(dir: &Path) -> Result<Self> {
        let home = Home::open(dir)?;
        let config = home.config()?;
        let follower = follow(&home, &config, CHAIN_PATIENCE).await?;
        Ok(Self { home, config, follower })
    }

    /// What signatures are bound to.
    pub(crate) fn tag(&self) -> ChainTag {
        self.follower.ledger().genesis().tag()
    }

    /// Signs as the identity whose key is `keys/NAME.key`.
    pub(crate) fn submitter(&self, name: &str) -> Result<Submitter> {
        let key = self.home.signing_key(name)?;
        self.submitter_of(key).with_context(|| format!("the key file {}", self.home.key_file(name).display()))
    }

    /// Signs as the identity that `key` belongs to now.
    pub(crate) fn submitter_of(&self, key: SigningKey) -> Result<Submitter> {
        let public = key.public();
        let identity = {
            let ledger = self.follower.ledger();
            let owner = ledger.state().identity_of_key(&public).and_then(|id| ledger.state().identity(id));
            let Some(entry) = owner else {
                bail!("{} is no key of an identity on chain {}", reference::did(&public), ledger.genesis().chain_id);
            };
            if entry.public_key != public {
                let now = reference::did(&entry.public_key);
                bail!("identity {} signs with another key by now: {now}; this one was rotated away", entry.id);
            }
            entry.id
        };
        Ok(Submitter::for_identity(self.config.client(&self.home)?, identity, key, self.tag()))
    }

    /// Says `body`, waits until it is final, and follows to its block.
    pub(crate) async fn say(&self, submitter: &Submitter, body: &Body) -> Result<Finalized> {
        let done = submitter.submit(body, FINAL_PATIENCE).await?;
        self.follower.wait_for_height(done.height, FINAL_PATIENCE).await?;
        Ok(done)
    }
}

//! `cairn login`: a short-lived token for the query role, made from a key file, without asking anybody.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use cairn_proof::Digest;
use cairn_proof::identity::{IdentityId, SigningKey};
use cairn_proof::login::{LIFETIME_S_MAX, Login};
use cairn_proof::statement::ChainTag;
use cairn_query::QueryConfig;

use crate::home::{Home, read_genesis, read_secret};

/// Print a login token: the password for the Postgres port, good for a short while.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  PGPASSWORD=$(cairn login --dir city --key city/keys/owner.key) psql -h db.city.example -p 26601\n  cairn login --genesis genesis.json --key traffic.key --for 600"
)]
pub(crate) struct LoginArgs {
    /// Folder of the network, for its genesis.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// The genesis of the chain, in place of that in --dir.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// The identity's key file (mode 0600).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The identity, as 64 hexadecimal digits, if its key was rotated: the id stays that of its first key.
    #[arg(long, value_name = "ID", value_parser = identity_id)]
    identity: Option<IdentityId>,
    /// How long the token is good, in seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=LIFETIME_S_MAX))]
    lifetime_s: u64,
    /// The service that it is for: `[query.postgres] audience`.
    #[arg(long, default_value_t = QueryConfig::default().audience)]
    audience: String,
}

fn identity_id(text: &str) -> Result<IdentityId, String> {
    let mut id = [0; 32];
    hex::decode_to_slice(text, &mut id).map_err(|_| "expected 64 hexadecimal digits".to_owned())?;
    Ok(IdentityId(Digest(id)))
}

/// Runs `cairn login`.
pub(crate) fn login(args: &LoginArgs) -> Result<()> {
    let genesis = match &args.genesis {
        Some(file) => read_genesis(file)?,
        None => Home::at(&args.dir)?.genesis()?,
    };
    let token = token(&args.key, args.identity, genesis.tag(), &args.audience, args.lifetime_s)?;
    crate::say!("{token}")
}

/// A token by the key in a file, good from now on.
pub(crate) fn token(
    key: &Path,
    identity: Option<IdentityId>,
    chain: ChainTag,
    audience: &str,
    lifetime_s: u64,
) -> Result<String> {
    let key = SigningKey::from_seed(&read_secret(key)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the system's clock is before 1970")?.as_secs();
    let login = Login {
        identity: identity.unwrap_or_else(|| key.identity()),
        audience: audience.to_owned(),
        issued_s: now,
        expires_s: now.saturating_add(lifetime_s),
    };
    login.sign(&key, &chain).context("no token was made")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::write_secret_file;
    use cairn_proof::login::SignedLogin;

    #[test]
    fn a_token_is_by_the_key_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.key");
        write_secret_file(&file, &[7; 32]).unwrap();
        let (key, chain) = (SigningKey::from_seed(&[7; 32]), ChainTag(Digest([3; 32])));
        let token = token(&file, None, chain, "cairn-query", 60).unwrap();
        let signed = SignedLogin::parse(&token).unwrap();
        let issued = signed.login().issued_s;
        assert_eq!(signed.verify(&key.public(), &chain, "cairn-query", issued), Ok(()));
        assert_eq!(signed.login().identity, key.identity());
        assert_eq!(signed.login().expires_s, issued + 60);
    }
}

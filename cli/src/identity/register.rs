//! `cairn identity add`: one identity, or as many as a folder has key files.
//!
//! A folder may be registered again after an interruption: keys that the chain knows are passed over.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use cairn_chain_client::Submitter;
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::statement::{Body, RegisterIdentity};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::Kind;
use crate::chain::{Chain, FINAL_PATIENCE};
use crate::home::{make_dir, random_seed, read_secret, write_secret_file};
use crate::reference;

/// Statements on their way at once; a validator's pool holds 1,024 of one signer.
const IN_FLIGHT_MAX: usize = 256;
/// No folder makes or registers more in one command.
const KEYS_MAX: usize = 1_000_000;
/// Failures that are shown one by one.
const FAILURES_SHOWN: usize = 10;

/// Register an identity, or one for each key file of a folder.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn identity add --dir city --kind organisation --name \"Traffic department\" --key traffic\n  cairn identity add --dir city --kind device --keys meters --make 10000 --prefix meter- --expires 2030-01-01\n\nWhat stands on the chain stands there for ever: no personal data in names."
)]
pub(crate) struct AddArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// What it stands for.
    #[arg(long, value_enum)]
    kind: Kind,
    /// A name for people, 1 to 128 bytes.
    #[arg(long, required_unless_present = "keys", conflicts_with = "keys")]
    name: Option<String>,
    /// Its key file is keys/KEY.key, made if it is missing; the name, if left out.
    #[arg(long, conflicts_with = "keys")]
    key: Option<String>,
    /// Register every *.key file of this folder, each named by its file.
    #[arg(long, value_name = "FOLDER")]
    keys: Option<PathBuf>,
    /// First make this many key files in the folder; those that are there already stay.
    #[arg(long, value_name = "COUNT", requires = "keys")]
    make: Option<usize>,
    /// Names of the made files: the prefix and a number.
    #[arg(long, default_value = "device-", requires = "make")]
    prefix: String,
    /// From then on the chain refuses what it signs: a date, a time, or never.
    #[arg(long, default_value = "never", value_name = "TIME")]
    expires: String,
    /// The organisation that registers it, and controls it from then on: keys/NAME.key.
    #[arg(long, value_name = "NAME", default_value = "owner")]
    controller_key: String,
}

/// A key that is to be registered, and its name.
struct Candidate {
    name: String,
    key: SigningKey,
}

/// Runs `cairn identity add`.
pub(super) async fn add(args: &AddArgs) -> Result<()> {
    let expires_ms = reference::expiry(&args.expires).context("--expires")?;
    let chain = Chain::open(&args.dir).await?;
    let submitter = chain.submitter(&args.controller_key)?;
    if let Some(folder) = &args.keys {
        return add_folder(args, folder, &chain, &submitter, expires_ms).await;
    }
    let name = args.name.clone().context("--name is missing")?;
    let file = args.key.as_ref().unwrap_or(&name);
    let path = chain.home.named_key_file(file)?;
    let key = if path.exists() { read_key(&path)? } else { make_key(&path)? };
    let body = registration(&chain, &submitter, Candidate { name, key }, args.kind.into(), expires_ms);
    let done = chain.say(&submitter, &Body::RegisterIdentity(body.clone())).await?;
    let id = cairn_proof::identity::IdentityId::of(&body.public_key);
    crate::say!("identity {id} ({}) registered at height {}", reference::did(&body.public_key), done.height)?;
    crate::say!("its key is {}; whoever has that file signs in its name", path.display())
}

fn registration(
    chain: &Chain,
    submitter: &Submitter,
    candidate: Candidate,
    kind: IdentityKind,
    expires_ms: Option<u64>,
) -> RegisterIdentity {
    let Candidate { name, key } = candidate;
    let body = RegisterIdentity::new(&key, kind, name, submitter.identity(), &chain.tag());
    RegisterIdentity { expires_ms, ..body }
}

fn read_key(path: &Path) -> Result<SigningKey> {
    Ok(SigningKey::from_seed(&read_secret(path)?))
}

fn make_key(path: &Path) -> Result<SigningKey> {
    let seed = random_seed()?;
    write_secret_file(path, &seed)?;
    Ok(SigningKey::from_seed(&seed))
}

async fn add_folder(
    args: &AddArgs,
    folder: &Path,
    chain: &Chain,
    submitter: &Submitter,
    expires_ms: Option<u64>,
) -> Result<()> {
    let made = match args.make {
        Some(count) => make_keys(folder, &args.prefix, count)?,
        None => 0,
    };
    let candidates = read_keys(folder)?;
    let found = candidates.len();
    let new: Vec<_> = {
        let ledger = chain.follower.ledger();
        let unknown = |candidate: &Candidate| ledger.state().identity_of_key(&candidate.key.public()).is_none();
        candidates.into_iter().filter(unknown).collect()
    };
    let known = found - new.len();
    let bar = progress(new.len() as u64);
    let kind = args.kind.into();
    let tasks = new.into_iter().map(|candidate| {
        let name = candidate.name.clone();
        let body = Body::RegisterIdentity(registration(chain, submitter, candidate, kind, expires_ms));
        async move { (name, submitter.submit(&body, FINAL_PATIENCE).await) }
    });
    let mut outcomes = futures::stream::iter(tasks).buffer_unordered(IN_FLIGHT_MAX);
    let (mut done, mut failures) = (0u64, vec![]);
    while let Some((name, outcome)) = outcomes.next().await {
        match outcome {
            Ok(_) => done += 1,
            Err(error) => failures.push(format!("{name}: {error}")),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    crate::say!("{made} keys made, {done} identities registered, {known} were registered already")?;
    if !failures.is_empty() {
        let shown = failures[..failures.len().min(FAILURES_SHOWN)].join("\n  ");
        bail!("{} of {found} keys are not registered; run it again to go on:\n  {shown}", failures.len());
    }
    Ok(())
}

/// Makes key files until the folder has `PREFIX0` to `PREFIX(count − 1)`; returns how many were missing.
fn make_keys(folder: &Path, prefix: &str, count: usize) -> Result<usize> {
    ensure!((1..=KEYS_MAX).contains(&count), "--make {count}: expected 1 to {KEYS_MAX}");
    make_dir(folder, 0o700)?;
    let digits = (count - 1).to_string().len();
    let mut made = 0;
    for number in 0..count {
        let path = folder.join(format!("{prefix}{number:0digits$}.key"));
        if !path.exists() {
            make_key(&path).with_context(|| format!("making key {number} of {count}"))?;
            made += 1;
        }
    }
    Ok(made)
}

/// Every `*.key` file of the folder, in the order of their names.
fn read_keys(folder: &Path) -> Result<Vec<Candidate>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("the folder {}", folder.display()))?;
    let mut files = vec![];
    for entry in entries {
        let path = entry.with_context(|| format!("the folder {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "key") {
            files.push(path);
        }
    }
    ensure!(!files.is_empty(), "{} has no *.key file; --make COUNT makes some", folder.display());
    ensure!(files.len() <= KEYS_MAX, "{} has more than {KEYS_MAX} key files", folder.display());
    files.sort();
    let candidate = |path: &PathBuf| {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Candidate { name, key: read_key(path)? })
    };
    files.iter().map(candidate).collect()
}

fn progress(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("register [{bar:30}] {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_keys_is_made_once_and_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("meters");
        assert_eq!(make_keys(&keys, "meter-", 11).unwrap(), 11);
        let first: Vec<_> = read_keys(&keys).unwrap().into_iter().map(|it| (it.name, it.key.public())).collect();
        assert_eq!(make_keys(&keys, "meter-", 11).unwrap(), 0, "what is there stays");
        let again: Vec<_> = read_keys(&keys).unwrap().into_iter().map(|it| (it.name, it.key.public())).collect();
        assert_eq!(first, again);
        assert_eq!((first[0].0.as_str(), first[10].0.as_str()), ("meter-00", "meter-10"));
        assert!(make_keys(&keys, "meter-", 0).is_err());
        assert!(read_keys(folder.path()).err().unwrap().to_string().contains("--make"));
    }
}

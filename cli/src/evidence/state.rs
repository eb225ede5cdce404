//! Proofs of entries of the chain's state: what is asked about, how a proof is made, and how its value reads.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::Ledger;
use cairn_proof::state_proof::{Proven, StateProof, Subject};
use cairn_proof::{Height, Partition};

use super::ProveArgs;
use crate::chain::{Chain, FINAL_PATIENCE};
use crate::reference;

/// How deep values are shown; those of the state are flat.
const DEPTH_MAX: usize = 8;
/// Until a header has a certificate of its own.
const PAUSE: Duration = Duration::from_millis(200);

/// An entry of the state.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct EntryArgs {
    /// An identity: its id, its did:key, or its name.
    #[arg(long, group = "what", value_name = "IDENTITY")]
    pub(crate) identity: Option<String>,
    /// Whose key this is, or was: 64 hexadecimal digits or a did:key.
    #[arg(long, group = "what", value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// An anchor, by its id.
    #[arg(long, group = "what", value_name = "ID")]
    pub(crate) anchor: Option<String>,
    /// A validator: its public key or its name.
    #[arg(long, group = "what", value_name = "KEY")]
    pub(crate) validator: Option<String>,
    /// A proposal that validators vote on, by its id.
    #[arg(long, group = "what", value_name = "ID")]
    pub(crate) proposal: Option<String>,
    /// The committee that certifies the next block.
    #[arg(long, group = "what")]
    pub(crate) committee: bool,
    /// The parameters in force.
    #[arg(long, group = "what")]
    pub(crate) parameters: bool,
}

/// Makes the proof, checks it as a stranger would, and returns the file.
pub(super) async fn prove(chain: &Chain, args: &ProveArgs) -> Result<Vec<u8>> {
    let subject = subject(&chain.follower.ledger(), args)?;
    let proof = certified(chain, subject).await?;
    let genesis = chain.home.genesis()?;
    let proven = proof.verify(&genesis).context("the proof does not verify; this is a bug")?;
    match (&proven.value, args.absent) {
        (None, false) => {
            bail!("the state has no such entry at height {}; --absent writes the proof of that", proven.header.height)
        }
        (Some(_), true) => bail!("the state has this entry at height {}: it is not absent", proven.header.height),
        _ => Ok(proof.to_json()?),
    }
}

fn subject(ledger: &Ledger, args: &ProveArgs) -> Result<Subject> {
    let id = |flag: &str, text: &str| {
        reference::digest(text).with_context(|| format!("{flag} {text:?}: expected an id of 64 hexadecimal digits"))
    };
    let EntryArgs { identity, key, anchor, validator, proposal, committee, parameters } = &args.entry;
    if let Some(text) = identity {
        let id = match reference::identity_id(ledger, text)? {
            Some(id) => id,
            None => reference::identity(ledger, text)?.id,
        };
        return Ok(Subject::Identity { id });
    }
    if let Some(text) = key {
        return Ok(Subject::Key { key: reference::public_key(text).context("--key")? });
    }
    if let Some(text) = anchor {
        return Ok(Subject::Anchor { id: id("--anchor", text)? });
    }
    if let Some(text) = validator {
        let key = match reference::public_key(text) {
            Ok(key) => key,
            Err(_) => reference::validator(ledger, text)?.public_key,
        };
        return Ok(Subject::Validator { key });
    }
    if let Some(text) = proposal {
        return Ok(Subject::Proposal { id: id("--proposal", text)? });
    }
    if *committee {
        return Ok(Subject::Committee {});
    }
    if *parameters {
        return Ok(Subject::Parameters {});
    }
    match (&args.stream, args.partition) {
        (Some(stream), Some(partition)) => {
            Ok(Subject::Head { stream: stream.clone(), partition: Partition(partition) })
        }
        (Some(stream), None) => Ok(Subject::Stream { name: stream.clone() }),
        (None, _) => bail!("nothing to prove is named; see `cairn prove --help`"),
    }
}

/// A proof against the state after a block whose header has a certificate of its own.
async fn certified(chain: &Chain, subject: Subject) -> Result<StateProof> {
    let deadline = Instant::now() + FINAL_PATIENCE;
    let client = chain.follower.client();
    loop {
        // The path is from the followed state, so the certificate has to be of exactly that height.
        let (height, header, parts, committees) = at_head(&chain.follower.ledger(), &subject);
        match client.certified_header(height).await {
            Ok(found) if found.height == height && found.header.0 == header => {
                return Ok(StateProof::new(subject, parts, committees, header, found.certificate.0));
            }
            Ok(_) => {}
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context("a certificate for the followed height");
            }
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            bail!("no certificate for the header of height {height} within {} s", FINAL_PATIENCE.as_secs());
        }
        // Past an uncertified height, the next one is tried.
        let _ = chain.follower.wait_for_height(height.next(), PAUSE).await;
    }
}

type AtHead =
    (Height, Vec<u8>, cairn_proof::state_proof::StateProofParts, Vec<cairn_proof::committee::CommitteeChange>);

fn at_head(ledger: &Ledger, subject: &Subject) -> AtHead {
    let parts = ledger.state().prove(subject);
    let changes = ledger.committee_changes_before(ledger.header().epoch);
    let committees = changes.iter().map(|change| (**change).clone()).collect();
    (ledger.height(), ledger.header().encode(), parts, committees)
}

/// What a proof that verified says.
pub(super) fn describe(proven: &Proven) -> Vec<String> {
    let Proven { subject, value, header, signed: (signed, of) } = proven;
    let subject = serde_json::to_string(subject).unwrap_or_default();
    let mut lines = vec![
        format!("ok  certificate  {signed} of {of} validators signed the header of height {}", header.height),
        format!("ok  state        the path leads to the state root {}", header.state_root),
        format!("    subject      {subject}"),
    ];
    let after = format!("the state of chain {} after height {}", header.chain_id, header.height);
    match value {
        Some(value) => {
            lines.push(format!("    value        {}", diagnostic(value)));
            lines.push(format!("VERIFIED: it stands in {after}"));
        }
        None => lines.push(format!("VERIFIED: it does not stand in {after}")),
    }
    lines
}

/// Canonical CBOR in the diagnostic notation of RFC 8949, section 8; bytes that are none, in hexadecimal.
fn diagnostic(bytes: &[u8]) -> String {
    let mut rest = bytes;
    match item(&mut rest, 0) {
        Some(text) if rest.is_empty() => text,
        _ => format!("h'{}'", hex::encode(bytes)),
    }
}

fn item(rest: &mut &[u8], depth: usize) -> Option<String> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    let (major, low) = (first >> 5, first & 0x1f);
    if major == 7 {
        let simple = match low {
            20 => "false",
            21 => "true",
            22 => "null",
            _ => return None,
        };
        return Some(simple.to_owned());
    }
    let argument = argument(rest, low)?;
    match major {
        0 => Some(argument.to_string()),
        1 => Some((-1 - i128::from(argument)).to_string()),
        2 => Some(format!("h'{}'", hex::encode(take(rest, argument)?))),
        3 => serde_json::to_string(std::str::from_utf8(take(rest, argument)?).ok()?).ok(),
        4 if depth < DEPTH_MAX => {
            // As many items as there are bytes left, at most: a count alone takes no memory.
            let count = usize::try_from(argument).ok().filter(|count| *count <= rest.len())?;
            let items: Option<Vec<_>> = (0..count).map(|_| item(rest, depth + 1)).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        _ => None,
    }
}

fn argument(rest: &mut &[u8], low: u8) -> Option<u64> {
    let length = match low {
        0..=23 => return Some(u64::from(low)),
        24..=27 => 1u64 << (low - 24),
        _ => return None,
    };
    Some(take(rest, length)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::cbor::Writer;

    #[test]
    fn values_read_in_diagnostic_notation() {
        let mut bytes = vec![];
        let mut writer = Writer::new(&mut bytes);
        writer.array(6);
        writer.text("identity \"x\"");
        writer.bytes(&[1, 171]);
        writer.unsigned(70_000);
        writer.null();
        writer.bool(true);
        writer.array(1);
        writer.signed(-3);
        assert_eq!(diagnostic(&bytes), r#"["identity \"x\"", h'01ab', 70000, null, true, [-3]]"#);
    }

    #[test]
    fn bytes_that_are_no_value_are_shown_as_they_are() {
        for bytes in [&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255][..], &[0x62, b'a'], &[0xff], &[0x81; 40], &[1, 2]]
        {
            assert_eq!(diagnostic(bytes), format!("h'{}'", hex::encode(bytes)));
        }
    }
}

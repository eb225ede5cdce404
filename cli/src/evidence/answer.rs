//! Evidence of an answer on the command line: checking it offline, line by line.

use anyhow::Result;
use cairn_proof::answer::file::{AnswerEvidence, TrustedBy, VerifiedAnswer};
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::PublicKey;

/// A key as it is written everywhere: 64 hexadecimal digits.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "expected a public key: 64 hexadecimal digits".to_owned())?;
    PublicKey::from_bytes(bytes).map_err(|error| error.to_string())
}

/// Checks a file: one line for each step that held, then what was proven.
pub(crate) fn verify(bytes: &[u8], genesis: &Genesis, trusted: &[PublicKey]) -> Result<Vec<String>, String> {
    let file = AnswerEvidence::from_json(bytes).map_err(|error| error.to_string())?;
    let verified = file.verify(genesis, trusted).map_err(|error| match error.step {
        "signer" => format!("{error}; if you know that key for a query node's, name it by --node-key"),
        _ => error.to_string(),
    })?;
    Ok(describe(&file, &verified))
}

fn describe(file: &AnswerEvidence, verified: &VerifiedAnswer) -> Vec<String> {
    let VerifiedAnswer { answer, signer, certified, signed: (signed, of) } = verified;
    let named = match signer {
        TrustedBy::Genesis { name } => format!("the genesis names it {name}"),
        TrustedBy::Verifier => "named by you".to_owned(),
    };
    let read: u64 = answer.segments.iter().map(|segment| segment.bytes_verified).sum();
    let settings: Vec<_> = answer.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let order = match &answer.ordered_root {
        Some(root) => format!(", in this order {root}"),
        None => String::new(),
    };
    let mut lines = vec![
        format!("ok  {:<12} {} bytes", "form", file.answer.0.len()),
        format!("ok  {:<12} signed by {} for this chain", "answer", file.signer),
        format!("ok  {:<12} {named}: identity {}", "signer", answer.node),
        format!(
            "ok  {:<12} block {} at height {}, state root {}, then {} headers to height {}",
            "headers",
            answer.block,
            answer.height,
            answer.state_root,
            file.headers.len() - 1,
            certified.height
        ),
        format!("ok  {:<12} {} changes of the committee", "committees", file.committees.len()),
        format!("ok  {:<12} {signed} of {of} validators certify the last header", "certificate"),
        format!("statement    {}", answer.statement),
    ];
    lines.extend(
        (1..).zip(&answer.parameters).map(|(at, value)| {
            format!("parameter    ${at} {} {}", value.kind, value.text.as_deref().unwrap_or("null"))
        }),
    );
    lines.push(format!("settings     {}", settings.join(", ")));
    lines.push(format!(
        "segments     {} with their roots, {read} bytes read and verified, {} left out, {} flagged",
        answer.segments.len(),
        answer.left_out,
        answer.flagged
    ));
    lines.push(format!(
        "rows         {} in {} columns, root {}{order}",
        answer.rows,
        answer.columns.len(),
        answer.rows_root
    ));
    lines.push(format!("engine       {}, at {} ms by the node's clock", answer.engine, answer.made_ms));
    lines.push(format!(
        "VERIFIED: the node says so, of chain {} at height {}; that it computed rightly, `cairn replay` checks",
        certified.chain_id, answer.height
    ));
    lines
}

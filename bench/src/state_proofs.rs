//! How large a proof about the state is, and what it costs to make and to check, with 100,000 keys and more.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use cairn_chain_state::{BlockTime, SignatureCheck, State};
use cairn_proof::digest::sha256;
use cairn_proof::identity::{PublicKey, SigningKey};
use cairn_proof::state_proof::{StateProof, StateProofParts, Subject};
use cairn_proof::statement::{ChainTag, SignedStatement, statement_id};
use cairn_proof::trie::{PathEnd, verify};
use cairn_proof::{Digest, Height};
use serde_json::{Map, Value, json};

use crate::replay;

/// Each anchor leaves one key; a few belong to the chain itself.
const ANCHORS: u64 = 100_000;
/// Proofs that are made and checked.
const ASKED: usize = 1_000;
/// Bytes of a header, and of a certificate of four validators: the rest of a proof's file.
const HEADER_BYTES: usize = 380;
const CERTIFICATE_BYTES: usize = 239;

/// The state is made here and not judged: signatures are measured by `replay`.
struct Unchecked;

impl SignatureCheck for Unchecked {
    fn holds(&self, _: &SignedStatement, _: &PublicKey, _: &ChainTag) -> bool {
        true
    }
}

/// Memory of this process that is in use, where the system tells (Linux).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn end(parts: &StateProofParts) -> PathEnd {
    match (&parts.value, parts.neighbour) {
        (Some(value), _) => PathEnd::Present { value: sha256(&[value]) },
        (None, Some((key, value))) => PathEnd::Absent { key, value },
        (None, None) => PathEnd::Empty,
    }
}

/// Measures proofs of anchors that are there and of anchors that are not.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn run(rounds: usize) -> Result<Map<String, Value>> {
    let (owner, ingest) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
    let genesis = replay::genesis(&owner, &ingest);
    let mut state = State::genesis(&genesis);
    let at = BlockTime { height: Height(1), timestamp_ms: 2 };
    let envelopes = replay::statements(&genesis, &owner, &ingest, ANCHORS)?;
    let ids: Vec<Digest> = envelopes.iter().map(|envelope| statement_id(envelope)).collect();
    let before = resident_bytes();
    for envelope in &envelopes {
        state.apply(&at, envelope, &Unchecked)?;
    }
    let resident = resident_bytes().zip(before).map(|(after, before)| after.saturating_sub(before) / ANCHORS);
    let step = ids.len() / ASKED;
    let present: Vec<Subject> = ids.iter().skip(1).step_by(step).map(|id| Subject::Anchor { id: *id }).collect();
    let absent: Vec<Subject> =
        ids.iter().skip(1).step_by(step).map(|id| Subject::Anchor { id: sha256(&[&id.0]) }).collect();
    let root = state.root();
    let mut figures = Map::new();
    figures.insert("state_keys".into(), json!(state.entries()));
    figures.insert("state_bytes_per_anchor".into(), json!(resident));
    for (name, subjects) in [("present", present), ("absent", absent)] {
        let proofs: Vec<(Digest, StateProofParts)> =
            subjects.iter().map(|subject| (subject.key(), state.prove(subject))).collect();
        let mut bytes = 0;
        for (subject, (_, parts)) in subjects.iter().zip(&proofs) {
            let file = StateProof::new(
                subject.clone(),
                parts.clone(),
                vec![],
                vec![0; HEADER_BYTES],
                vec![0; CERTIFICATE_BYTES],
            );
            bytes += file.to_json()?.len();
        }
        let mut refused = 0;
        let mut prove = || subjects.iter().for_each(|subject| drop(black_box(state.prove(subject))));
        let mut check = || {
            for (key, parts) in &proofs {
                refused += u64::from(black_box(verify(&root, key, &parts.path, &end(parts))).is_err());
            }
        };
        let times = crate::medians(rounds, &mut [&mut prove, &mut check]);
        (refused == 0).then_some(()).context("a proof was refused")?;
        let each =
            |index: usize| json!((times[index].as_nanos() as f64 / subjects.len() as f64 / 10.0).round() / 100.0);
        let steps = proofs.iter().map(|(_, parts)| parts.path.len()).sum::<usize>() as f64 / proofs.len() as f64;
        figures.insert(format!("{name}_path_steps"), json!((steps * 10.0).round() / 10.0));
        figures.insert(format!("{name}_file_bytes"), json!(bytes / subjects.len()));
        figures.insert(format!("{name}_prove_us"), each(0));
        figures.insert(format!("{name}_verify_path_us"), each(1));
    }
    Ok(figures)
}

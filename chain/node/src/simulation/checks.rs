//! What must hold of everything that was declared final, recomputed from the blocks alone.
//!
//! Nothing here trusts a validator, or shares code with what it checks beyond the formats: contiguity is computed anew
//! from the anchors. Replay uses `chain/state`, as a follower does.

use std::collections::BTreeMap;

use cairn_chain_state::{State, StrictSignatures, execute};
use cairn_proof::{
    Digest, Partition,
    certificate::Finalization,
    epoch::is_last,
    statement::{Anchor, Body, SignedStatement, log_entries, statement_id},
};

use super::{Violation, observed::Observed};

/// What the checks came to.
pub(crate) struct Checked {
    pub(crate) violations: Vec<Violation>,
    /// As far as the blocks replay.
    pub(crate) state: State,
    pub(crate) committee_changes: u64,
}

/// Every check on what was observed.
pub(crate) fn all(observed: &Observed) -> Checked {
    let state = State::genesis(&observed.genesis);
    let mut checked = Checked { violations: observed.forks.clone(), state, committee_changes: 0 };
    checked.violations.extend(contiguity(observed).err());
    let replayed = replay(observed, &mut checked);
    checked.violations.extend(replayed.err());
    checked
}

/// I1: each partition's anchors follow on each other, offset by offset and name by name.
fn contiguity(observed: &Observed) -> Result<(), Violation> {
    let mut heads: BTreeMap<(String, Partition), (u64, Digest)> = BTreeMap::new();
    for (height, block) in &observed.blocks {
        for envelope in &block.block.statements {
            let signed = SignedStatement::decode(envelope)
                .map_err(|error| Violation::new("I1", format!("height {height}: {error}")))?;
            let anchors = match &signed.statement().body {
                Body::Anchor(anchor) => std::slice::from_ref(anchor),
                Body::Anchors(anchors) => anchors,
                _ => continue,
            };
            for (anchor, entry) in anchors.iter().zip(log_entries(envelope)) {
                let id = statement_id(&entry);
                let head = heads.entry((anchor.stream.clone(), anchor.partition)).or_insert((0, Digest::ZERO));
                *head = follows(*head, anchor, id)
                    .map_err(|message| Violation::new("I1", format!("height {height}, anchor {id}: {message}")))?;
            }
        }
    }
    Ok(())
}

fn follows((next, previous): (u64, Digest), anchor: &Anchor, id: Digest) -> Result<(u64, Digest), String> {
    if anchor.first.0 != next {
        return Err(format!("begins at offset {}, the one before ends at {next}", anchor.first));
    }
    if anchor.previous != previous {
        return Err(format!("names {} as the one before, which is {previous}", anchor.previous));
    }
    if anchor.last.0 < anchor.first.0 || anchor.count != anchor.last.0 - anchor.first.0 + 1 {
        return Err(format!("offsets {} to {} do not hold {} records", anchor.first, anchor.last, anchor.count));
    }
    Ok((anchor.last.0 + 1, id))
}

/// Replaying the blocks from genesis gives each header's roots, and the state that each validator holds; certificates
/// hold under the committee that the replayed state names.
fn replay(observed: &Observed, checked: &mut Checked) -> Result<(), Violation> {
    let tag = observed.genesis.tag();
    let epoch_blocks = observed.genesis.parameters.epoch_blocks;
    let (mut header, state) = (observed.genesis.header(), &mut checked.state);
    for (height, block) in &observed.blocks {
        if *height != header.height.0 + 1 {
            let message = format!("nobody has shown the block at height {}", header.height.0 + 1);
            return Err(Violation::new("blocks have no holes", message));
        }
        let committee = state.committee().clone();
        let executed = execute(&header, state, &block.block, &StrictSignatures)
            .map_err(|error| Violation::new("replay from genesis", error.to_string()))?;
        if let Some(certificate) = &block.block.certificate {
            Finalization::decode(certificate, committee.len())
                .and_then(|certificate| certificate.verify_header(&executed.header, committee.keys(), &tag))
                .map_err(|error| Violation::new("certificates verify", format!("height {height}: {error}")))?;
        } else if is_last(executed.header.height, epoch_blocks) {
            let message = format!("height {height} is the last of its epoch, and nobody has a certificate of it");
            return Err(Violation::new("certificates verify", message));
        }
        checked.committee_changes += u64::from(executed.state.committee().hash() != committee.hash());
        (header, *state) = (executed.header, executed.state);
        let root = state.root();
        let other = observed.roots.range((*height, 0)..=(*height, usize::MAX)).find(|(_, held)| **held != root);
        if let Some(((_, index), held)) = other {
            let message = format!("height {height}: validator {index} holds state {held}, replay gives {root}");
            return Err(Violation::new("all states are the replayed one", message));
        }
    }
    let certified = observed.blocks.values().any(|block| block.block.certificate.is_some());
    if !observed.blocks.is_empty() && !certified {
        return Err(Violation::new("certificates verify", "not one of the final blocks has a certificate"));
    }
    Ok(())
}

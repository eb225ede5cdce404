//! What the honest validators have declared final, as far as anyone who asks them sees it.

use std::{collections::BTreeMap, sync::Arc};

use cairn_proof::{Digest, Height, block::SignedBlock, genesis::Genesis};

use super::Violation;
use crate::shared::Shared;

/// A final block.
#[derive(Clone)]
pub(crate) struct Final {
    pub(crate) id: Digest,
    pub(crate) block: SignedBlock,
    /// Who said so first.
    pub(crate) by: usize,
}

/// Everything that was declared final.
pub(crate) struct Observed {
    pub(crate) genesis: Genesis,
    pub(crate) blocks: BTreeMap<u64, Final>,
    /// The state roots that validators hold after a height.
    pub(crate) roots: BTreeMap<(u64, usize), Digest>,
    /// Up to which height each validator was looked at since its last start.
    seen: Vec<u64>,
    /// Blocks at one height that differ.
    pub(crate) forks: Vec<Violation>,
}

impl Observed {
    pub(crate) fn new(genesis: Genesis, validators: usize) -> Self {
        let (blocks, roots) = (BTreeMap::new(), BTreeMap::new());
        Self { genesis, blocks, roots, seen: vec![0; validators], forks: Vec::new() }
    }

    /// The greatest height that anybody declared final.
    pub(crate) fn height(&self) -> u64 {
        self.blocks.last_key_value().map_or(0, |(height, _)| *height)
    }

    /// A validator was started: what it holds is looked at from the beginning.
    pub(crate) fn restarted(&mut self, index: usize) {
        self.seen[index] = 0;
    }

    /// Looks at what a validator has declared final since it was looked at last.
    pub(crate) fn look(&mut self, index: usize, shared: &Arc<Shared>) {
        let top = shared.ledger.height().0;
        for height in self.seen[index] + 1..=top {
            let Some(found) = shared.ledger.recent(Height(height)) else { continue };
            self.add(height, Final { id: found.block.id(), block: found.signed(), by: index });
        }
        if top > self.seen[index] {
            let tip = shared.ledger.tip();
            self.roots.insert((tip.header.height.0, index), tip.state.root());
        }
        self.seen[index] = top;
    }

    /// Takes in that a block was declared final.
    pub(crate) fn add(&mut self, height: u64, found: Final) {
        let Some(known) = self.blocks.get_mut(&height) else {
            self.blocks.insert(height, found);
            return;
        };
        if known.id != found.id {
            let message = format!(
                "height {height}: validator {} holds {}, validator {} holds {}",
                known.by, known.id, found.by, found.id
            );
            let fork = Violation::new("one final block at each height", message);
            if !self.forks.contains(&fork) {
                self.forks.push(fork);
            }
        } else if known.block.certificate.is_none() {
            known.block.certificate = found.block.certificate;
        }
    }
}

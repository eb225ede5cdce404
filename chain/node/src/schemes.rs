//! The committees by epoch, in the form in which consensus asks for them.
//!
//! An epoch is registered when its first block can be made: when the last block of the epoch before is final and
//! executed. What claims to be of an epoch that is not registered is neither believed nor held against its sender.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use commonware_consensus::{simplex::scheme::ed25519::Scheme, types::Epoch};
use commonware_cryptography::certificate::{Provider, Scoped};

/// Epochs that stay known behind the newest: their last blocks may still be on the way to whoever takes them in.
const EPOCHS_KEPT: usize = 16;

/// The committees of recent epochs; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Schemes(Arc<RwLock<BTreeMap<Epoch, Arc<Scheme>>>>);

impl Schemes {
    /// Makes an epoch's committee known, and forgets the oldest ones.
    pub(crate) fn register(&self, epoch: Epoch, scheme: Scheme) {
        let mut schemes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        schemes.insert(epoch, Arc::new(scheme));
        while schemes.len() > EPOCHS_KEPT {
            schemes.pop_first();
        }
    }
}

impl Provider for Schemes {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, epoch: Epoch) -> Option<Scoped<Scheme>> {
        let schemes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // Followers too: what is asked for under this name is whether a payload fits the scheme, not a signature.
        schemes.get(&epoch).cloned().map(Scoped::scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{city::validator_key, network};
    use commonware_utils::ordered::Set;

    #[test]
    fn recent_epochs_are_known_and_no_others() {
        let schemes = Schemes::default();
        let key = network::public_key(&validator_key(0).public()).unwrap();
        assert!(schemes.scoped(Epoch::zero()).is_none());
        for epoch in 0..=EPOCHS_KEPT as u64 {
            schemes.register(Epoch::new(epoch), Scheme::verifier(b"test", Set::from_iter_dedup([key.clone()])));
        }
        assert!(schemes.scoped(Epoch::zero()).is_none(), "the oldest is forgotten");
        assert!((1..=EPOCHS_KEPT as u64).all(|epoch| schemes.scheme(Epoch::new(epoch)).is_some()));
        assert!(schemes.scoped(Epoch::new(EPOCHS_KEPT as u64 + 1)).is_none());
    }
}

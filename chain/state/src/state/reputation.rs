//! How validators do, counted on the chain; and who is suspended for it.
//!
//! Proposals made and missed follow from each block's round. Votes are counted where somebody attests a certificate: a
//! certificate holds a quorum of signatures, so a vote that is not seen proves nothing by itself. A validator that made no
//! proposal in an epoch though it led a view, and of which no vote was seen, was absent in it.

use cairn_proof::certificate::Finalization;
use cairn_proof::epoch;
use cairn_proof::evidence::Equivocation;
use cairn_proof::header::Header;
use cairn_proof::identity::PublicKey;
use cairn_proof::statement::Attest;
use cairn_proof::{Digest, Height};

use super::{BlockTime, State};
use crate::entry::{
    Entry, EpochCounts, EvidenceEntry, IdentityEntry, ValidatorEntry, ValidatorStatus, attested_key, evidence_key,
};
use crate::refusal::{Refusal, RefusalCode};
use crate::rules;

/// The consensus round that a block was proposed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// The epoch.
    pub epoch: u64,
    /// The view within it.
    pub view: u64,
    /// The view of the block's parent; 0 for the first block of an epoch.
    pub parent_view: u64,
    /// Key of the validator that proposed it.
    pub proposer: [u8; 32],
}

impl Round {
    /// The round that a header claims for itself.
    #[must_use]
    pub const fn of(header: &Header) -> Self {
        Self { epoch: header.epoch, view: header.view, parent_view: header.parent_view, proposer: header.proposer }
    }
}

impl State {
    /// Ends the block at `height`, after its statements: counts who proposed and who did not, and at the heights where
    /// that is due fixes the next committee, suspends absentees, and begins the next epoch.
    ///
    /// Whoever builds a block and whoever executes it calls this exactly once, before asking for the root.
    pub fn end_block(&mut self, round: &Round, height: Height) {
        self.count_proposal(round);
        let blocks = self.parameters.epoch_blocks;
        if height == epoch::freeze_of(epoch::epoch_of(height, blocks), blocks) {
            self.freeze();
        }
        if epoch::is_last(height, blocks) {
            self.suspend_absentees(height);
            self.begin_epoch();
        }
    }

    fn count_proposal(&mut self, round: &Round) {
        if let Ok(proposer) = PublicKey::from_bytes(round.proposer) {
            self.change_validator(&proposer, |entry| {
                entry.proposals_made = entry.proposals_made.saturating_add(1);
                entry.running.made = entry.running.made.saturating_add(1);
            });
        }
        for (key, missed) in self.missed(round) {
            self.change_validator(&key, |entry| {
                entry.proposals_missed = entry.proposals_missed.saturating_add(missed);
                entry.running.missed = entry.running.missed.saturating_add(missed);
            });
        }
    }

    /// Who led the views between the parent's and this one, and how many of them. Leaders take turns, so that whole
    /// turns are divided, not walked: a view number is only as large as its certificate makes it, which is checked later.
    fn missed(&self, round: &Round) -> Vec<(PublicKey, u64)> {
        let keys = self.committee.keys();
        let views = round.view.saturating_sub(round.parent_view).saturating_sub(1);
        if views == 0 || keys.is_empty() {
            return vec![];
        }
        let (turns, rest) = (views / keys.len() as u64, views % keys.len() as u64);
        let mut missed = vec![turns; keys.len()];
        for view in (round.parent_view..).skip(1).take(usize::try_from(rest).unwrap_or(0)) {
            missed[epoch::leader(round.epoch, view, keys.len())] += 1;
        }
        keys.iter().copied().zip(missed).filter(|(_, missed)| *missed > 0).collect()
    }

    /// Ends the epoch's counting. Whoever was absent for too many epochs in a row is suspended, as far as
    /// [`rules::absentees_suspended_max`] allows, the longest absent first.
    fn suspend_absentees(&mut self, height: Height) {
        let counted: Vec<ValidatorEntry> = self.all_validators().cloned().collect();
        for mut entry in counted {
            let EpochCounts { made, missed, votes } = entry.running;
            if made > 0 || votes > 0 {
                entry.absent_epochs = 0;
            } else if missed > 0 {
                entry.absent_epochs = entry.absent_epochs.saturating_add(1);
            } else {
                continue;
            }
            entry.running = EpochCounts::default();
            self.put_validator(entry);
        }
        let limit = u64::from(self.parameters.absence_epochs);
        if limit == 0 {
            return;
        }
        let active = || self.all_validators().filter(|entry| entry.status == ValidatorStatus::Active);
        let most = rules::absentees_suspended_max(active().count());
        let mut absent: Vec<_> = active().filter(|entry| entry.absent_epochs >= limit).collect();
        absent.sort_by_key(|entry| (std::cmp::Reverse(entry.absent_epochs), entry.public_key));
        let keys: Vec<_> = absent.into_iter().take(most).map(|entry| entry.public_key).collect();
        for key in keys {
            self.set_status(height, &key, ValidatorStatus::Suspended);
        }
    }

    /// Counts whose votes stand in a certificate of this epoch.
    pub(super) fn attest(&mut self, at: &BlockTime, signer: &IdentityEntry, body: &Attest) -> Result<(), Refusal> {
        self.member(signer, "attests")?;
        let unproven = |message: String| Err(Refusal::new(RefusalCode::Evidence, message));
        let header = match Header::decode(&body.header) {
            Ok(header) => header,
            Err(error) => return unproven(format!("the header does not decode: {error}")),
        };
        let last = self.attested();
        if header.height <= last {
            let message = format!("attested is block {last} already, the statement attests block {}", header.height);
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        let epoch = self.epoch_of(at.height);
        if header.chain_id != *self.chain_id || header.epoch != epoch || header.height >= at.height {
            return unproven(format!(
                "expected a header of chain {}, epoch {epoch}, below height {}; found chain {}, epoch {}, height {}",
                self.chain_id, at.height, header.chain_id, header.epoch, header.height
            ));
        }
        let committee = self.committee.clone();
        let certificate = Finalization::decode(&body.certificate, committee.len()).and_then(|certificate| {
            certificate.verify_header(&header, committee.keys(), &self.chain).map(|()| certificate)
        });
        let certificate = match certificate {
            Ok(certificate) => certificate,
            Err(error) => return unproven(format!("the certificate does not hold: {error}")),
        };
        for (place, _) in &certificate.signatures {
            self.change_validator(&committee.keys()[*place], |entry| {
                entry.votes_seen = entry.votes_seen.saturating_add(1);
                entry.running.votes = entry.running.votes.saturating_add(1);
            });
        }
        self.entries.insert(attested_key(), Entry::Attested(header.height));
        Ok(())
    }

    /// Takes evidence in, once for each view. It suspends the validator unless it is the last one, or the view lies in an
    /// epoch before the one in which it became active: what it was reinstated after is not held against it twice.
    pub(super) fn take_evidence(
        &mut self,
        at: &BlockTime,
        body: &Equivocation,
        statement: Digest,
    ) -> Result<(), Refusal> {
        let Some(validator) = self.validators.get(&body.validator).cloned() else {
            let message = format!("there is no validator with key {}", body.validator);
            return Err(Refusal::new(RefusalCode::UnknownIdentity, message));
        };
        let key = evidence_key(&body.validator, body.epoch, body.view);
        if self.entries.get(&key).is_some() {
            let message = format!(
                "evidence against validator {} for epoch {}, view {} is there already",
                body.validator, body.epoch, body.view
            );
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        body.verify(&self.chain).map_err(|error| Refusal::new(RefusalCode::Evidence, error.to_string()))?;
        self.entries.insert(key, Entry::Evidence(EvidenceEntry { height: at.height, statement }.into()));
        self.change_validator(&body.validator, |entry| entry.equivocations = entry.equivocations.saturating_add(1));
        if validator.status == ValidatorStatus::Active
            && body.epoch >= self.epoch_of(validator.since)
            && rules::somebody_stays(&validator, self.all_validators()).is_ok()
        {
            self.set_status(at.height, &body.validator, ValidatorStatus::Suspended);
        }
        Ok(())
    }
}

//! Signatures of publishers: which records of a batch are authentic, and of the others why not.
//!
//! ```text
//! headers ─▶ form ─▶ the publisher's rights ─▶ path to the run's root ─▶ signatures, in batches ─▶ sequence ─▶ decode
//!              │            │                                                   │                    │
//!              └────────────┴──────────── quarantined, with the reason ─────────┴────────────────────┘
//! ```
//!
//! What is signed is described in [`cairn_proof::signed_record`]. Rights are those of the followed chain at the moment
//! when a batch is checked; they are asked again right before it is submitted, and if they changed it is checked anew
//! ([`CheckedBatch::rights_stand`]). Sequences are a function of the partition's accepted records: the table after a batch
//! is stored in its segment, from where a restart takes it.
//!
//! Nothing here reads Kafka or talks to the chain.

use std::collections::HashMap;

use cairn_anchor::raw::RawBatch;
use cairn_chain_client::Ledger;
use cairn_proof::identity::PublicKey;
use cairn_proof::signed_record::{EntryHasher, RunHead, RunRoots, Sequences, SignedHeaders, verify_heads};
use cairn_proof::statement::{ChainTag, Role, Signatures, StreamDefinition};

use crate::decode::{Reason, ReasonCode};

#[cfg(test)]
mod tests;

/// Reasons that hang on the chain's state or on records before, in front of their text: what an audit takes from the
/// segment and does not recompute.
const STATEFUL: [&str; 6] = [
    "signature by an unknown key",
    "signature by a former key",
    "signature by a revoked identity",
    "signature by an expired identity",
    "signature without the role",
    "signature replayed",
];

/// Whether a stored reason is one that hangs on the chain's state or on records before.
pub(crate) fn is_stateful(reason: &str) -> bool {
    STATEFUL.iter().any(|prefix| reason.starts_with(prefix))
}

/// What a batch's records are, as far as their signatures tell.
#[derive(Debug)]
pub(crate) struct CheckedBatch {
    /// For each record why it is not authentic, if so; empty where nothing speaks against any.
    pub(crate) verdicts: Vec<Option<Reason>>,
    /// The publishers of the batch, and what kept each from publishing.
    rights: Vec<(PublicKey, Option<Reason>)>,
    /// The partition's sequences after the batch.
    pub(crate) sequences: Sequences,
}

impl CheckedBatch {
    /// Whether every publisher of the batch still has the rights that it was checked by.
    pub(crate) fn rights_stand(&self, stream: &StreamDefinition, ledger: &Ledger) -> bool {
        self.rights.iter().all(|(key, refused)| rights(stream, ledger, key).err() == *refused)
    }
}

/// Checks a batch against the followed chain, and the partition's sequences before it.
///
/// `ledger` is locked for as long as the keys of the batch are looked up, and not while signatures are checked.
pub(crate) fn check<L: std::ops::Deref<Target = Ledger>>(
    stream: &StreamDefinition,
    raw: &RawBatch,
    before: &Sequences,
    ledger: impl FnOnce() -> L,
) -> CheckedBatch {
    let mut batch = Batch::read(stream, raw);
    let (rights, chain) = {
        let ledger = ledger();
        let rights: Vec<_> = batch.publishers.iter().map(|key| (*key, rights(stream, &ledger, key).err())).collect();
        (rights, *ledger.state().chain())
    };
    let refused: Vec<Option<Reason>> = rights.iter().map(|(_, refused)| refused.clone()).collect();
    let signed = batch.verify(&chain, stream, raw, &refused);
    let mut sequences = before.clone();
    for (row, publisher, sequence) in signed {
        if let Err(replayed) = sequences.take(publisher.as_bytes(), sequence) {
            let text = format!(
                "signature replayed: sequence {} of key {publisher} is not above {}, the last one in this partition",
                replayed.found, replayed.last
            );
            batch.refuse(row, Reason::coded(ReasonCode::Replayed, text));
        }
    }
    CheckedBatch { verdicts: batch.verdicts, rights, sequences }
}

/// What of a batch's signatures can be told without the chain's state: for each record why it is not authentic, if so.
///
/// A key that has no right to publish, and a sequence that was used before, do not show here.
pub(crate) fn check_offline(stream: &StreamDefinition, raw: &RawBatch, chain: &ChainTag) -> Vec<Option<Reason>> {
    let mut batch = Batch::read(stream, raw);
    let anybody = vec![None; batch.publishers.len()];
    batch.verify(chain, stream, raw, &anybody);
    batch.verdicts
}

/// A signed record of the batch.
struct Row<'a> {
    row: usize,
    publisher: usize,
    headers: SignedHeaders<'a>,
}

struct Batch<'a> {
    verdicts: Vec<Option<Reason>>,
    publishers: Vec<PublicKey>,
    rows: Vec<Row<'a>>,
}

impl<'a> Batch<'a> {
    /// Reads the headers, and finds what is wrong with their form or by the stream's rule.
    fn read(stream: &StreamDefinition, raw: &'a RawBatch) -> Self {
        let mut batch = Self { verdicts: Vec::new(), publishers: Vec::new(), rows: Vec::new() };
        let mut known: HashMap<[u8; 32], Option<usize>> = HashMap::new();
        for row in 0..raw.len() {
            match (SignedHeaders::read(raw.headers(row)), stream.signatures) {
                (Ok(None), Signatures::Optional | Signatures::Refused) => {}
                (Ok(None), Signatures::Required) => {
                    let text = "signature missing: the stream takes signed records alone";
                    batch.refuse(row, Reason::coded(ReasonCode::Unsigned, text));
                }
                (_, Signatures::Refused) => {
                    let text = "signature refused: the stream takes unsigned records alone";
                    batch.refuse(row, Reason::coded(ReasonCode::SignatureRefused, text));
                }
                (Err(error), _) => {
                    let text = format!("signature malformed: {error}");
                    batch.refuse(row, Reason::coded(ReasonCode::SignatureMalformed, text));
                }
                (Ok(Some(headers)), _) => {
                    let publisher = *known.entry(*headers.publisher).or_insert_with(|| {
                        let key = PublicKey::from_bytes(*headers.publisher).ok()?;
                        batch.publishers.push(key);
                        Some(batch.publishers.len() - 1)
                    });
                    match publisher {
                        Some(publisher) => batch.rows.push(Row { row, publisher, headers }),
                        None => {
                            let text = "signature malformed: header cn-key is no usable Ed25519 key";
                            batch.refuse(row, Reason::coded(ReasonCode::SignatureMalformed, text));
                        }
                    }
                }
            }
        }
        if !batch.verdicts.is_empty() {
            batch.verdicts.resize(raw.len(), None);
        }
        batch
    }

    fn refuse(&mut self, row: usize, reason: Reason) {
        if self.verdicts.len() <= row {
            self.verdicts.resize(row + 1, None);
        }
        self.verdicts[row] = Some(reason);
    }

    /// Checks the signatures of those who may publish; returns the records whose signature holds, in order of offsets.
    fn verify(
        &mut self,
        chain: &ChainTag,
        stream: &StreamDefinition,
        raw: &RawBatch,
        refused: &[Option<Reason>],
    ) -> Vec<(usize, PublicKey, u64)> {
        let mut hasher = EntryHasher::new(chain, &stream.name, raw.partition());
        let mut roots = RunRoots::new();
        let mut heads: Vec<RunHead> = Vec::new();
        let mut places: HashMap<RunHead, usize> = HashMap::new();
        let mut waiting = Vec::with_capacity(self.rows.len());
        for Row { row, publisher, headers } in std::mem::take(&mut self.rows) {
            if let Some(reason) = &refused[publisher] {
                self.refuse(row, reason.clone());
                continue;
            }
            let (key, value) = (raw.key(row), raw.value(row));
            let timestamp_ms = raw.timestamps_ms()[row];
            let leaf = hasher.leaf(headers.publisher, headers.sequence, timestamp_ms, key, value);
            let head = RunHead {
                publisher: self.publishers[publisher],
                signature: *headers.signature,
                count: headers.count,
                root: roots.root(&leaf, &headers),
            };
            // Records of one run mostly stand in a row.
            let place = match heads.last() {
                Some(last) if *last == head => heads.len() - 1,
                _ => *places.entry(head).or_insert_with(|| {
                    heads.push(head);
                    heads.len() - 1
                }),
            };
            waiting.push((row, publisher, headers.sequence, place));
        }
        let holds = verify_heads(chain, &heads);
        let mut signed = Vec::with_capacity(waiting.len());
        for (row, publisher, sequence, place) in waiting {
            let key = self.publishers[publisher];
            if holds[place] {
                signed.push((row, key, sequence));
            } else {
                let text =
                    format!("signature bad: it is not by key {key} over this record in this stream and partition");
                self.refuse(row, Reason::coded(ReasonCode::BadSignature, text));
            }
        }
        if !self.verdicts.is_empty() {
            self.verdicts.resize(raw.len(), None);
        }
        signed
    }
}

/// Whether the key's holder may publish to the stream now.
fn rights(stream: &StreamDefinition, ledger: &Ledger, key: &PublicKey) -> Result<(), Reason> {
    let refused = |code, text: String| Err(Reason::coded(code, text));
    let state = ledger.state();
    let Some(identity) = state.identity_of_key(key).and_then(|id| state.identity(id)) else {
        return refused(ReasonCode::UnknownKey, format!("signature by an unknown key: {key} is nobody's on the chain"));
    };
    let id = identity.id;
    if let Some(height) = identity.revoked {
        let text = format!("signature by a revoked identity: {id} was revoked in block {height}");
        return refused(ReasonCode::RevokedKey, text);
    }
    if identity.public_key != *key {
        let text = format!("signature by a former key: {key} of identity {id} was replaced by {}", identity.public_key);
        return refused(ReasonCode::RotatedKey, text);
    }
    if let Some(expires_ms) = identity.expires_ms.filter(|expires_ms| ledger.header().timestamp_ms >= *expires_ms) {
        let text = format!("signature by an expired identity: {id} expired at {expires_ms} ms");
        return refused(ReasonCode::ExpiredKey, text);
    }
    if !state.has_role(&stream.name, Role::Publisher, &id) {
        let text = format!("signature without the role: identity {id} is no publisher of {}", stream.name);
        return refused(ReasonCode::NotPublisher, text);
    }
    Ok(())
}

//! Broken certificates, written byte by byte.

use cairn_proof::certificate::consensus_namespace;
use cairn_proof::genesis::Genesis;
use cairn_proof::header::Header;
use cairn_proof::identity::SigningKey;
use cairn_proof::receipt::{Base64Bytes, StepName};

use super::broken::{Made, with, with_high_s};
use super::chain;

/// The parts of a certificate as they are written.
struct Parts {
    /// Epoch, view, parent view and payload.
    proposal: Vec<u8>,
    validators: u64,
    bitmap: Vec<u8>,
    count: u8,
    signatures: Vec<Vec<u8>>,
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn proposal(header: &Header, [epoch, view, parent_view]: [u64; 3]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [epoch, view, parent_view] {
        varint(number, &mut out);
    }
    out.extend_from_slice(header.digest().as_ref());
    out
}

fn signature(key: &SigningKey, proposal: &[u8], suffix: &[u8], genesis: &Genesis) -> Vec<u8> {
    let domain = [&consensus_namespace(&genesis.tag()), suffix].concat();
    let mut message = Vec::new();
    varint(domain.len() as u64, &mut message);
    message.extend_from_slice(&domain);
    message.extend_from_slice(proposal);
    key.sign(&message).to_vec()
}

/// The four keys of the genesis in their order.
fn ordered() -> Vec<SigningKey> {
    let mut keys = chain::keys(1..=4);
    keys.sort_by_key(SigningKey::public);
    keys
}

fn parts(proposal: Vec<u8>, signers: &[usize]) -> Parts {
    let keys = ordered();
    let sign = |at: &usize| signature(&keys[*at], &proposal, b"_FINALIZE", &chain::genesis());
    Parts {
        validators: 4,
        bitmap: vec![signers.iter().map(|at| 1 << at).sum()],
        count: u8::try_from(signers.len()).unwrap(),
        signatures: signers.iter().map(sign).collect(),
        proposal,
    }
}

impl Parts {
    fn encode(&self) -> Vec<u8> {
        let count = [self.count];
        let head = [&self.proposal[..], &self.validators.to_be_bytes(), &self.bitmap, &count].concat();
        [head, self.signatures.concat()].concat()
    }
}

/// A certificate over the header of `one.json` by three of four, with one part changed.
fn edited(name: &str, step: impl Into<Option<StepName>>, edit: impl FnOnce(&mut Parts, &Header)) -> Made {
    with(&format!("certificate: {name}"), "one.json", step, |receipt| {
        let header = Header::decode(&receipt.header.0).unwrap();
        let mut made = parts(proposal(&header, [header.epoch, header.view, header.parent_view]), &[0, 1, 3]);
        edit(&mut made, &header);
        receipt.certificate = Base64Bytes(made.encode());
    })
}

/// The same for another round, signed as it is.
fn round(name: &str, step: impl Into<Option<StepName>>, change: fn(&Header) -> [u64; 3]) -> Made {
    edited(name, step, |made, header| *made = parts(proposal(header, change(header)), &[0, 1, 3]))
}

pub(crate) fn cases() -> Vec<Made> {
    let step = StepName::Certificate;
    let mut cases = signers();
    cases.extend([
        round("of a later view", None, |h| [h.epoch, h.view + 1, h.parent_view]),
        round("of a view beyond 32 bits", None, |h| [h.epoch, 1 << 40, h.view]),
        round("of an earlier view", step, |h| [h.epoch, h.view - 1, h.parent_view - 1]),
        round("of the same view with another parent", step, |h| [h.epoch, h.view, h.parent_view - 1]),
        round("of another epoch", step, |h| [h.epoch + 1, h.view, h.parent_view]),
        edited("about another header", step, |made, header| {
            let other = Header { timestamp_ms: header.timestamp_ms + 1, ..header.clone() };
            *made = parts(proposal(&other, [header.epoch, header.view, header.parent_view]), &[0, 1, 3]);
        }),
        edited("for another chain", step, |made, _| {
            let other = Genesis { timestamp_ms: 1, ..chain::genesis() };
            let keys = ordered();
            let sign = |at: &usize| signature(&keys[*at], &made.proposal, b"_FINALIZE", &other);
            made.signatures = [0, 1, 3].iter().map(sign).collect();
        }),
        edited("of notarizes", step, |made, _| {
            let keys = ordered();
            let sign = |at: &usize| signature(&keys[*at], &made.proposal, b"_NOTARIZE", &chain::genesis());
            made.signatures = [0, 1, 3].iter().map(sign).collect();
        }),
        edited("a number in a longer form", step, |made, _| {
            made.proposal.splice(0..1, [0x80, 0x00]);
        }),
        with("certificate: a byte more", "one.json", step, |r| r.certificate.0.push(0)),
        with("certificate: a byte less", "one.json", step, |r| {
            r.certificate.0.pop();
        }),
        with("certificate: empty", "one.json", step, |r| r.certificate.0.clear()),
        with("certificate: that of another receipt", "one.json", step, |r| {
            let (_, other) = chain::receipts().swap_remove(1);
            r.certificate = other.certificate;
        }),
    ]);
    cases
}

/// Who signed, and how.
fn signers() -> Vec<Made> {
    let step = StepName::Certificate;
    let by = |name: &str, step: Option<StepName>, signers: &[usize]| {
        edited(name, step, |made, _| *made = parts(std::mem::take(&mut made.proposal), signers))
    };
    vec![
        by("by all four", None, &[0, 1, 2, 3]),
        by("by another three", None, &[1, 2, 3]),
        by("by two of four", Some(step), &[0, 2]),
        by("by nobody", Some(step), &[]),
        edited("one signature twice", step, |made, _| {
            made.bitmap = vec![0b0011];
            made.signatures[2] = made.signatures[1].clone();
        }),
        edited("one signature by a stranger", step, |made, _| {
            made.signatures[1] = signature(&chain::key(5), &made.proposal, b"_FINALIZE", &chain::genesis());
        }),
        edited("signatures in another order", step, |made, _| made.signatures.swap(0, 2)),
        edited("a bit of a signature", step, |made, _| made.signatures[1][40] ^= 4),
        edited("a signature with a high s", step, |made, _| with_high_s(&mut made.signatures[0])),
        edited("a signature of zeros", step, |made, _| made.signatures[2] = vec![0; 64]),
        edited("a signature more than bits", step, |made, _| {
            made.signatures.push(vec![0; 64]);
            made.count = 4;
        }),
        edited("a signature less than bits", step, |made, _| {
            made.signatures.pop();
            made.count = 2;
        }),
        edited("another count than signatures", step, |made, _| made.count = 2),
        edited("a bit for another validator", step, |made, _| made.bitmap = vec![0b0111]),
        edited("a bit beyond the last validator", step, |made, _| made.bitmap = vec![0b1_1001]),
        edited("for three validators", step, |made, _| made.validators = 3),
        edited("for five validators", step, |made, _| made.validators = 5),
        edited("a bitmap of two bytes", step, |made, _| made.bitmap.push(0)),
    ]
}

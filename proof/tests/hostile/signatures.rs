//! Signatures and keys that libraries judge differently, and certificates written in other ways.
//!
//! Signatures are made from the scalars themselves, as their holder can: s = r + h·a, with any R.

use cairn_proof::identity::PublicKey;
use cairn_proof::receipt::{Base64Bytes, Receipt};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha512};

use super::{
    ANCHOR_TYPE, ANCHORER, Certificate, Hostile, anchor_items, array, bad, block, certificate, certify, committee,
    envelope, good, key, octets, payload, plain, proposal, protected, receipt, record_items, sig_structure, varint,
    vote, words,
};

/// The order of the base point, little-endian (RFC 8032, section 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// A point of order 8.
const EIGHTH: &str = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
/// The seed whose scalar is r and whose public key is R.
const NONCE: u8 = 77;

fn secret(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn point(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// What an honest signature is changed to.
#[derive(Clone, Copy)]
pub(super) enum Twist {
    /// The order added to s: the same residue.
    LargerS,
    /// All bits of s set.
    LargestS,
    /// R is the neutral element, s = h·a.
    NeutralR,
    /// R is the neutral element in its second encoding, y = p + 1.
    SecondR,
    /// R is the neutral element with the sign of x set, a third encoding.
    SignedR,
    /// R is of order 8.
    EighthR,
    /// A point of order 8 added to R: holds with cofactor alone.
    Cofactored,
    /// All bytes zero.
    Zero,
}

pub(super) const TWISTS: [(&str, Twist); 8] = [
    ("s beyond the order", Twist::LargerS),
    ("the largest s", Twist::LargestS),
    ("R neutral", Twist::NeutralR),
    ("R neutral, y = p + 1", Twist::SecondR),
    ("R neutral, x negative", Twist::SignedR),
    ("R of order 8", Twist::EighthR),
    ("R beside the subgroup", Twist::Cofactored),
    ("zero", Twist::Zero),
];

/// h = SHA-512(R ‖ A ‖ message), little-endian.
fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> [u8; 64] {
    Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize().into()
}

/// s = r·(1 or 0) + h·a modulo the order, by doubling: `key` may be another encoding or point than that of the scalar a.
fn answer(seed: u8, r: &[u8; 32], with_nonce: bool, key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let (a, nonce) = (secret(seed).to_scalar(), secret(NONCE).to_scalar());
    let mut sum = nonce - secret(NONCE).to_scalar();
    for byte in challenge(r, key, message).iter().rev() {
        for bit in (0..8).rev() {
            sum = sum + sum;
            if byte >> bit & 1 == 1 {
                sum += a;
            }
        }
    }
    if with_nonce { (sum + nonce).to_bytes() } else { sum.to_bytes() }
}

pub(super) fn twisted(seed: u8, message: &[u8], twist: Twist) -> Vec<u8> {
    let public = secret(seed).verifying_key().to_bytes();
    let nonce = secret(NONCE).verifying_key();
    let eighth = VerifyingKey::from_bytes(&point(EIGHTH)).unwrap();
    let neutral = |last: u8, low: u8, middle: u8| {
        let mut r = [middle; 32];
        (r[0], r[31]) = (low, last);
        r
    };
    let (r, with_nonce) = match twist {
        Twist::LargerS | Twist::LargestS => (nonce.to_bytes(), true),
        Twist::NeutralR => (neutral(0, 1, 0), false),
        Twist::SecondR => (neutral(0x7f, 0xee, 0xff), false),
        Twist::SignedR => (neutral(0x80, 1, 0), false),
        Twist::EighthR => (point(EIGHTH), false),
        Twist::Cofactored => ((nonce.to_edwards() + eighth.to_edwards()).compress().to_bytes(), true),
        Twist::Zero => return vec![0; 64],
    };
    let mut s = answer(seed, &r, with_nonce, &public, message);
    match twist {
        Twist::LargerS => {
            let mut carry = 0u16;
            for (byte, more) in s.iter_mut().zip(ORDER) {
                carry += u16::from(*byte) + u16::from(more);
                *byte = carry.to_le_bytes()[0];
                carry >>= 8;
            }
        }
        Twist::LargestS => s = [0xff; 32],
        _ => {}
    }
    [r, s].concat()
}

/// The golden receipt's anchor, signed in another way.
fn with_signature(sign: impl Fn(&[u8]) -> Vec<u8>) -> Receipt {
    let record = array(&record_items());
    let (protected, payload) = (protected(ANCHOR_TYPE), payload(&anchor_items(&record)));
    let signature = sign(&sig_structure(&protected, &payload));
    receipt(record, envelope(&protected, &payload, &signature), &block())
}

fn anchors() -> Vec<Hostile> {
    let public = secret(ANCHORER).verifying_key().to_bytes();
    let nonce = secret(NONCE).verifying_key().to_bytes();
    let by_hand = |message: &[u8]| [nonce, answer(ANCHORER, &nonce, true, &public, message)].concat();
    let mut cases = vec![good("anchor's signature: made by hand", &with_signature(by_hand))];
    for (name, twist) in TWISTS {
        let receipt = with_signature(|message| twisted(ANCHORER, message, twist));
        cases.push(bad("anchor", format!("anchor's signature: {name}"), &receipt));
    }
    cases.push(bad("anchor", "anchor's signature: of another key", &with_signature(|m| key(8).sign(m).to_vec())));
    let record = array(&record_items());
    let (head, body) = (protected(ANCHOR_TYPE), payload(&anchor_items(&record)));
    let structures: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("for another chain", vec![words("Signature1"), octets(&head), octets(&[0; 32]), octets(&body)]),
        ("for no chain", vec![words("Signature1"), octets(&head), octets(&[]), octets(&body)]),
        ("without the chain", vec![words("Signature1"), octets(&head), octets(&body)]),
        (
            "of another context",
            vec![words("CounterSignature"), octets(&head), octets(super::genesis().tag().0.as_ref()), octets(&body)],
        ),
    ];
    for (name, structure) in structures {
        let signature = key(ANCHORER).sign(&array(&structure));
        let receipt = receipt(record.clone(), envelope(&head, &body, &signature), &block());
        cases.push(bad("anchor", format!("anchor's signature: {name}"), &receipt));
    }
    cases.extend(mixed_keys());
    cases
}

/// A key with a part of small order: not of small order itself, so it is usable; without the cofactor its signatures hold
/// where the part vanishes, once in eight times.
fn mixed_keys() -> Vec<Hostile> {
    let eighth = VerifyingKey::from_bytes(&point(EIGHTH)).unwrap();
    let mixed = (secret(ANCHORER).verifying_key().to_edwards() + eighth.to_edwards()).compress().to_bytes();
    let nonce = secret(NONCE).verifying_key().to_bytes();
    let record = array(&record_items());
    let mut seen = [false; 2];
    let mut cases = vec![];
    for sequence in 1..200u64 {
        let mut items = anchor_items(&record);
        items[0] = super::number(sequence);
        let (head, body) = (protected(ANCHOR_TYPE), payload(&items));
        let message = sig_structure(&head, &body);
        let signature = [nonce, answer(ANCHORER, &nonce, true, &mixed, &message)].concat();
        let mut receipt = receipt(record.clone(), envelope(&head, &body, &signature), &block());
        receipt.anchorer = PublicKey::from_bytes(mixed).unwrap();
        let holds = receipt.anchorer.verify(&message, &signature.try_into().unwrap());
        if !std::mem::replace(&mut seen[usize::from(holds)], true) {
            cases.push(if holds {
                good("key of mixed order, its signature holds", &receipt)
            } else {
                bad("anchor", "key of mixed order, its signature holds with cofactor alone", &receipt)
            });
        }
    }
    assert_eq!(seen, [true; 2], "one in eight signatures holds");
    cases
}

/// The plain receipt with a certificate made from the right one.
fn with_certificate(change: impl Fn(&mut Certificate)) -> Receipt {
    let mut changed = plain();
    let mut made = certificate(&block(), &changed.header.0);
    change(&mut made);
    changed.certificate = Base64Bytes(made.bytes());
    changed
}

/// The plain receipt with a certificate by three validators over these numbers as they are written.
fn over(numbers: [&[u8]; 3]) -> Receipt {
    let mut changed = plain();
    let proposal = proposal(numbers, &changed.header.0);
    changed.certificate = Base64Bytes(certify(proposal, &committee(&[1, 2, 3, 4]), &[0, 1, 2]).bytes());
    changed
}

fn certificates() -> Vec<Hostile> {
    let keys = committee(&[1, 2, 3, 4]);
    let first = (1..=4).find(|seed| key(*seed).public() == keys[0].public()).unwrap();
    let (one, view, parent) = (varint(1), varint(300), varint(299));
    let mut cases = vec![
        good("certificate: in a later view", &over([&one, &varint(301), &varint(17)])),
        good("certificate: in the last view", &over([&one, &varint(u64::MAX), &varint(u64::MAX)])),
    ];
    let mut refused =
        |name: &str, receipt: &Receipt| cases.push(bad("certificate", format!("certificate: {name}"), receipt));
    refused("in an earlier view", &over([&one, &varint(299), &varint(298)]));
    refused("with another parent", &over([&one, &view, &varint(298)]));
    refused("of another epoch", &over([&varint(2), &view, &parent]));
    refused("a number of two bytes in three", &over([&one, &[0xac, 0x82, 0x00], &parent]));
    refused("a number of one byte in two", &over([&[0x81, 0x00], &view, &parent]));
    refused("zero in two bytes", &over([&[0x80, 0x00], &view, &parent]));
    refused("a number of 65 bits", &over([&one, &[&[0xff; 9][..], &[0x02]].concat(), &parent]));
    refused("a number of eleven bytes", &over([&one, &[&[0xff; 10][..], &[0x01]].concat(), &parent]));
    refused("a number without an end", &over([&one, &[0xff; 10], &parent]));
    for (name, twist) in TWISTS {
        let receipt =
            with_certificate(|made| made.signatures[0] = twisted(first, &vote(&made.proposal, b"_FINALIZE"), twist));
        refused(&format!("a signature with {name}"), &receipt);
    }
    refused(
        "a vote to notarize",
        &with_certificate(|made| {
            made.signatures[1] = keys[1].sign(&vote(&made.proposal, b"_NOTARIZE")).to_vec();
        }),
    );
    refused("signatures in another order", &with_certificate(|made| made.signatures.swap(0, 1)));
    refused(
        "one signature three times",
        &with_certificate(|made| made.signatures = vec![made.signatures[0].clone(); 3]),
    );
    refused("a signature less", &with_certificate(|made| drop(made.signatures.pop())));
    refused("a signature more", &with_certificate(|made| made.signatures.push(made.signatures[0].clone())));
    refused("a bit less", &with_certificate(|made| made.bitmap = vec![0b0011]));
    refused("a bit more", &with_certificate(|made| made.bitmap = vec![0b1111]));
    refused("the bits of others", &with_certificate(|made| made.bitmap = vec![0b1110]));
    refused("a bit beyond the set", &with_certificate(|made| made.bitmap = vec![0b1_0011]));
    let four: Vec<_> = (0..4).collect();
    for (name, signers) in
        [("a bit beyond the set that no signature has", 3), ("a bit beyond the set and four signatures", 4)]
    {
        let receipt = with_certificate(|made| {
            *made = certify(made.proposal.clone(), &keys, &four[..signers]);
            made.bitmap[0] |= 0b1_0000;
        });
        refused(name, &receipt);
    }
    refused("a wider bitmap", &with_certificate(|made| made.bitmap = vec![0b0111, 0]));
    refused(
        "two of four",
        &with_certificate(|made| {
            (made.bitmap, made.stated) = (vec![0b0011], vec![2]);
            made.signatures.truncate(2);
        }),
    );
    refused(
        "nobody",
        &with_certificate(|made| {
            (made.bitmap, made.stated) = (vec![0], vec![0]);
            made.signatures.clear();
        }),
    );
    refused("another number of signatures", &with_certificate(|made| made.stated = vec![4]));
    refused("a longer number of signatures", &with_certificate(|made| made.stated = vec![0x83, 0x00]));
    refused("a set of three", &with_certificate(|made| made.count = 3u64.to_be_bytes().to_vec()));
    refused("a set of five", &with_certificate(|made| made.count = 5u64.to_be_bytes().to_vec()));
    refused("the set's size backwards", &with_certificate(|made| made.count = 4u64.to_le_bytes().to_vec()));
    refused("the greatest set", &with_certificate(|made| made.count = vec![0xff; 8]));
    refused(
        "over another header",
        &with_certificate(|made| {
            *made = certificate(&block(), b"another header");
        }),
    );
    let whole = plain().certificate.0;
    for length in 0..whole.len() {
        let mut cut = plain();
        cut.certificate = Base64Bytes(whole[..length].to_vec());
        refused(&format!("its first {length} bytes"), &cut);
    }
    let mut longer = plain();
    longer.certificate.0.push(0);
    refused("a byte more", &longer);
    cases
}

pub(super) fn all() -> Vec<Hostile> {
    [anchors(), certificates()].into_iter().flatten().collect()
}

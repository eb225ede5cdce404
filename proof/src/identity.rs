//! Identities: who signs. An Ed25519 key pair (RFC 8032), and a name that outlives its key.
//!
//! An identity's id is the hash of the key it was registered with, so that it stays the same when the key is
//! rotated later. Keys of small order are refused when they are read: with them, one signature would fit many
//! messages. Verification is strict (`verify_strict`). This module keeps no keys and reads no files.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, sha256};

/// Length of a signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

const DID_PREFIX: &str = "did:key:z";
/// `ed25519-pub` in the multicodec table, as an unsigned varint.
const MULTICODEC_ED25519: [u8; 2] = [0xed, 0x01];
const DID_BYTES: usize = 34;

/// An Ed25519 public key that is on the curve and not of small order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// Why bytes are not a usable public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a canonical encoding of a point of the curve.
    #[error("not an Ed25519 public key: expected 32 bytes that encode a point of the curve (RFC 8032, section 5.1.3)")]
    NotAPoint,
    /// A point of small order.
    #[error("an Ed25519 public key of small order: it would verify signatures of messages nobody signed")]
    SmallOrder,
}

impl PublicKey {
    /// Checks and takes the 32 bytes of a key.
    ///
    /// # Errors
    /// When they are no point of the curve, or one of small order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::NotAPoint)?;
        if key.is_weak() {
            return Err(KeyError::SmallOrder);
        }
        // Decoding accepts y ≥ p, a second encoding of a point; encoding the point again tells them apart.
        if key.to_edwards().compress().to_bytes() != bytes {
            return Err(KeyError::NotAPoint);
        }
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` over `message` is by this key, strictly: canonical s, no point of small order.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl PublicKey {
    /// The key as a decentralized identifier: `did:key:z6Mk…` (W3C CCG did:key, Ed25519).
    ///
    /// ```text
    /// "did:key:z" ‖ base58btc(0xed 0x01 ‖ key)        z: multibase, ed01: multicodec ed25519-pub as a varint
    /// ```
    ///
    /// ```
    /// use cairn_proof::identity::PublicKey;
    /// let did = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
    /// assert_eq!(PublicKey::from_did(did)?.did(), did);
    /// # Ok::<(), cairn_proof::identity::DidError>(())
    /// ```
    #[must_use]
    pub fn did(&self) -> String {
        let mut bytes = [0; DID_BYTES];
        bytes[..2].copy_from_slice(&MULTICODEC_ED25519);
        bytes[2..].copy_from_slice(&self.0);
        format!("{DID_PREFIX}{}", bs58::encode(bytes).into_string())
    }

    /// Reads a `did:key` of an Ed25519 key, without a fragment or path.
    ///
    /// # Errors
    /// When it is another method, multibase or kind of key, not the one form of its bytes, or no usable key.
    pub fn from_did(did: &str) -> Result<Self, DidError> {
        let encoded = did.strip_prefix(DID_PREFIX).ok_or(DidError::Prefix)?;
        // 34 bytes are at most 47 digits, so nothing longer is decoded.
        if encoded.len() > 47 {
            return Err(DidError::Length);
        }
        let bytes = bs58::decode(encoded).into_vec().map_err(|_| DidError::Base58)?;
        let key = bytes.strip_prefix(&MULTICODEC_ED25519).ok_or(DidError::Codec)?;
        let key: [u8; 32] = key.try_into().map_err(|_| DidError::Length)?;
        Ok(Self::from_bytes(key)?)
    }
}

/// Why a text is not the `did:key` of an Ed25519 key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DidError {
    /// Another method or multibase.
    #[error("expected {DID_PREFIX:?} at the start: a did:key in base58btc")]
    Prefix,
    /// Other characters than those of base58btc.
    #[error("expected base58btc after {DID_PREFIX:?}")]
    Base58,
    /// Another kind of key.
    #[error("expected an Ed25519 key (multicodec 0xed 0x01)")]
    Codec,
    /// Too short or too long.
    #[error("expected an Ed25519 key of 32 bytes")]
    Length,
    /// Not a usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digest = Digest::deserialize(deserializer)?;
        Self::from_bytes(digest.0).map_err(serde::de::Error::custom)
    }
}

/// Names an identity: SHA-256("cairn/identity/v1" ‖ first public key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityId(pub Digest);

impl IdentityId {
    /// The id of the identity that is registered with `key`.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        Self(sha256(&[b"cairn/identity/v1", key.as_bytes()]))
    }
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an identity stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    /// A department, a company: registers identities and streams.
    Organisation,
    /// A person.
    Person,
    /// A sensor, a meter, a vehicle.
    Device,
    /// A process of the platform: a validator, an ingest node.
    Node,
}

impl IdentityKind {
    /// The number in encodings.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Organisation => 1,
            Self::Person => 2,
            Self::Device => 3,
            Self::Node => 4,
        }
    }

    /// The kind with that number.
    #[must_use]
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Organisation),
            2 => Some(Self::Person),
            3 => Some(Self::Device),
            4 => Some(Self::Node),
            _ => None,
        }
    }

    /// The name in text output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organisation => "organisation",
            Self::Person => "person",
            Self::Device => "device",
            Self::Node => "node",
        }
    }
}

/// An Ed25519 signing key. Shown nowhere; zeroed when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

impl SigningKey {
    /// The key with this 32-byte seed (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, for writing it to a key file.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The id of the identity that is registered with this key.
    #[must_use]
    pub fn identity(&self) -> IdentityId {
        IdentityId::of(&self.public())
    }

    /// Signs a message whose purpose the caller has already bound into it.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, tests 1 to 3.
    #[test]
    fn published_vectors() {
        for (seed, public, message, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let mut bytes = [0; 32];
            hex::decode_to_slice(seed, &mut bytes).unwrap();
            let key = SigningKey::from_seed(&bytes);
            assert_eq!(key.public().to_string(), public);
            let message = hex::decode(message).unwrap();
            let made = key.sign(&message);
            assert_eq!(hex::encode(made), signature);
            assert!(key.public().verify(&message, &made));
            assert!(!key.public().verify(b"another message", &made));
        }
    }

    /// The Ed25519 vectors of the did:key specification: seeds of 31 zero bytes and a number.
    #[test]
    fn published_did_keys() {
        for (number, did) in [
            "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
            "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",
            "did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf",
            "did:key:z6MkvqoYXQfDDJRv8L4wKzxYeuKyVZBfi9Qo6Ro8MiLH3kDQ",
            "did:key:z6MkwW6aqMnjgrhJXFUko3NnZPGzVpkNzhYK7yEhnsibmLwL",
        ]
        .into_iter()
        .enumerate()
        {
            let mut seed = [0; 32];
            seed[31] = u8::try_from(number).unwrap();
            let key = SigningKey::from_seed(&seed).public();
            assert_eq!(key.did(), did);
            assert_eq!(PublicKey::from_did(did), Ok(key));
        }
    }

    #[test]
    fn other_did_keys_are_refused() {
        let good = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
        let of = |bytes: &[u8]| format!("did:key:z{}", bs58::encode(bytes).into_string());
        let key = SigningKey::from_seed(&[0; 32]).public();
        let with = |prefix: &[u8]| of(&[prefix, key.as_bytes()].concat());
        assert_eq!(with(&[0xed, 0x01]), good);
        for (did, want) in [
            (good.replace(":z", ":u"), DidError::Prefix),
            (good.replace("key", "web"), DidError::Prefix),
            (good.to_uppercase(), DidError::Prefix),
            (format!("{good}#{}", &good[8..]), DidError::Length),
            (format!("{good}#"), DidError::Length),
            (good.replace('6', "0"), DidError::Base58),
            (with(&[0xec, 0x01]), DidError::Codec),
            (with(&[0xe7, 0x01]), DidError::Codec),
            (of(&[]), DidError::Codec),
            (of(&[0xed, 0x01]), DidError::Length),
            (of(&[&[0xed, 0x01], &key.as_bytes()[1..]].concat()), DidError::Length),
            (of(&[&[0xed, 0x01][..], &[0; 32]].concat()), DidError::Key(KeyError::SmallOrder)),
            (format!("did:key:z1{}", &good[9..]), DidError::Length),
            (format!("did:key:z{}", "1".repeat(1_000_000)), DidError::Length),
        ] {
            assert_eq!(PublicKey::from_did(&did), Err(want), "{}", did.chars().take(80).collect::<String>());
        }
    }

    #[test]
    fn small_order_and_non_canonical_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(identity), Err(KeyError::SmallOrder));
        assert_eq!(PublicKey::from_bytes([0; 32]), Err(KeyError::SmallOrder));
        // y = p + 3: the same point as a y below p, in a second encoding.
        let mut high = [0xff; 32];
        high[0] = 0xf0;
        high[31] = 0x7f;
        assert!(PublicKey::from_bytes(high).is_err());
    }
}

//! Login tokens: a short-lived proof that somebody holds the key of an identity on the chain.
//!
//! ```text
//! token     = "cairn_login_v1." ‖ base64url(envelope), without padding
//! envelope  = 18([protected, {}, payload, signature])                COSE_Sign1, tagged (RFC 9052, section 4.2)
//! protected = {1: -8 (EdDSA), 3: "application/vnd.cairn.login.v1+cbor", 4: the identity's id, 32 bytes}
//! payload   = {3: audience, 4: expires at, 6: issued at}             claims of a CWT (RFC 8392, section 3.1), seconds
//! signed    = Sig_structure with external_aad = the chain's tag, 32 bytes (RFC 9052, section 4.4)
//! ```
//!
//! The content type keeps it apart from every statement that the same key signs, the chain's tag apart from other
//! chains, the audience apart from other services. Whoever has the token is the identity until it expires, so it goes
//! over encrypted or local connections only. Whether the identity still is what it was is for the chain to say.
//!
//! What this is not: no session, no rights, and no clock: the caller says what time it is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};

use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::identity::{IdentityId, PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::statement::ChainTag;

/// What a token's text begins with.
pub const PREFIX: &str = "cairn_login_v1.";
/// The longest token, in bytes of text.
pub const TOKEN_BYTES_MAX: usize = 1_024;
/// The longest audience, in bytes.
pub const AUDIENCE_BYTES_MAX: usize = 128;
/// The longest time from issue to expiry, in seconds: a day.
pub const LIFETIME_S_MAX: u64 = 86_400;
/// How far the clocks of issuer and service may be apart, in seconds.
pub const CLOCK_SKEW_S: u64 = 60;

const CONTENT_TYPE: &str = "application/vnd.cairn.login.v1+cbor";
const AUDIENCE: u64 = 3;
const EXPIRES: u64 = 4;
const ISSUED: u64 = 6;

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Not a token at all.
    #[error("not a login token: {0}")]
    Form(String),
    /// The payload does not decode.
    #[error("the login token's payload does not decode: {0}")]
    Payload(#[from] CborError),
    /// Its times make no sense.
    #[error(
        "the login token is issued at {issued_s} and expires at {expires_s} (seconds since 1970); it must live 1 to {LIFETIME_S_MAX} s"
    )]
    Lifetime {
        /// When it was issued.
        issued_s: u64,
        /// When it expires.
        expires_s: u64,
    },
    /// It is for another service.
    #[error("the login token is for {found:?}, this is {expected:?}")]
    Audience {
        /// This service.
        expected: String,
        /// What stands in it.
        found: String,
    },
    /// Its time is over.
    #[error("the login token expired at {expires_s}, it is {now_s} (seconds since 1970)")]
    Expired {
        /// When it expired.
        expires_s: u64,
        /// What time it is.
        now_s: u64,
    },
    /// Its time has not come.
    #[error("the login token is issued at {issued_s}, it is {now_s} (seconds since 1970): set the clocks")]
    NotYet {
        /// When it is issued.
        issued_s: u64,
        /// What time it is.
        now_s: u64,
    },
    /// The signature is not by that key over this token on this chain.
    #[error(
        "the login token's signature does not verify for identity {identity}: wrong key, wrong chain, or changed bytes"
    )]
    Signature {
        /// Who is said to have signed.
        identity: IdentityId,
    },
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Who logs in.
    pub identity: IdentityId,
    /// For which service.
    pub audience: String,
    /// When it was issued, in seconds since 1970-01-01 UTC.
    pub issued_s: u64,
    /// From when on it is worth nothing, in seconds since 1970-01-01 UTC.
    pub expires_s: u64,
}

impl Login {
    fn check(&self) -> Result<(), LoginError> {
        let allowed = |c: char| c.is_ascii_graphic();
        if self.audience.is_empty() || self.audience.len() > AUDIENCE_BYTES_MAX || !self.audience.chars().all(allowed) {
            let found: String = self.audience.chars().take(40).collect();
            return Err(LoginError::Form(format!(
                "an audience has 1 to {AUDIENCE_BYTES_MAX} printable ASCII characters without spaces, found {found:?}"
            )));
        }
        match self.expires_s.checked_sub(self.issued_s) {
            Some(1..=LIFETIME_S_MAX) => Ok(()),
            _ => Err(LoginError::Lifetime { issued_s: self.issued_s, expires_s: self.expires_s }),
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        let mut writer = Writer::new(&mut bytes);
        writer.map(3);
        writer.unsigned(AUDIENCE);
        writer.text(&self.audience);
        writer.unsigned(EXPIRES);
        writer.unsigned(self.expires_s);
        writer.unsigned(ISSUED);
        writer.unsigned(self.issued_s);
        bytes
    }

    fn read(identity: IdentityId, payload: &[u8]) -> Result<Self, LoginError> {
        let mut reader = Reader::new(payload);
        reader.map_of(3)?;
        reader.key(AUDIENCE)?;
        let audience = reader.text()?.to_owned();
        reader.key(EXPIRES)?;
        let expires_s = reader.unsigned()?;
        reader.key(ISSUED)?;
        let issued_s = reader.unsigned()?;
        reader.end()?;
        let login = Self { identity, audience, issued_s, expires_s };
        login.check()?;
        Ok(login)
    }

    /// Signs the token and returns its text.
    ///
    /// ```
    /// use cairn_proof::identity::SigningKey;
    /// use cairn_proof::login::{Login, SignedLogin};
    /// use cairn_proof::statement::ChainTag;
    ///
    /// let (key, chain) = (SigningKey::from_seed(&[7; 32]), ChainTag(cairn_proof::Digest([1; 32])));
    /// let login = Login { identity: key.identity(), audience: "query".into(), issued_s: 1_000, expires_s: 1_600 };
    /// let token = login.sign(&key, &chain).unwrap();
    /// let signed = SignedLogin::parse(&token).unwrap();
    /// assert_eq!(signed.verify(&key.public(), &chain, "query", 1_100), Ok(()));
    /// assert!(signed.verify(&key.public(), &chain, "query", 1_600).is_err());
    /// ```
    ///
    /// # Errors
    /// When audience or lifetime are not allowed.
    pub fn sign(&self, key: &SigningKey, chain: &ChainTag) -> Result<String, LoginError> {
        self.check()?;
        let envelope = unsigned(&self.identity, self.payload())
            .create_signature(chain.0.as_ref(), |message| key.sign(message).to_vec())
            .build();
        let bytes = envelope.to_tagged_vec().map_err(|error| LoginError::Form(error.to_string()))?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }
}

fn unsigned(identity: &IdentityId, payload: Vec<u8>) -> CoseSign1Builder {
    let protected = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .content_type(CONTENT_TYPE.to_owned())
        .key_id(identity.0.0.to_vec())
        .build();
    CoseSign1Builder::new().protected(protected).payload(payload)
}

/// A token that was decoded. That it decoded says nothing about who signed it: [`SignedLogin::verify`] does.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedLogin {
    login: Login,
    envelope: CoseSign1,
    signature: [u8; SIGNATURE_BYTES],
}

impl SignedLogin {
    /// Decodes a token's text, strictly: what is not the one encoding of its content is refused.
    ///
    /// # Errors
    /// When it is too long, no token, or says what it may not say.
    pub fn parse(token: &str) -> Result<Self, LoginError> {
        let wrong = |what: &str| LoginError::Form(what.to_owned());
        if token.len() > TOKEN_BYTES_MAX {
            return Err(LoginError::Form(format!("at most {TOKEN_BYTES_MAX} bytes, found {}", token.len())));
        }
        let text = token.strip_prefix(PREFIX).ok_or_else(|| wrong("it must begin with cairn_login_v1."))?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| LoginError::Form(error.to_string()))?;
        let envelope = CoseSign1::from_tagged_slice(&bytes).map_err(|error| LoginError::Form(error.to_string()))?;
        let kid: [u8; 32] = (envelope.protected.header.key_id.as_slice())
            .try_into()
            .map_err(|_| wrong("the key id must be an identity id of 32 bytes"))?;
        let identity = IdentityId(Digest(kid));
        let signature: [u8; SIGNATURE_BYTES] =
            envelope.signature.as_slice().try_into().map_err(|_| wrong("the signature must have 64 bytes"))?;
        let payload = envelope.payload.as_deref().ok_or_else(|| wrong("the payload must be in the envelope"))?;
        // The one encoding: what we would write ourselves. It also refuses other content types, headers, algorithms.
        let again = unsigned(&identity, payload.to_vec()).signature(signature.to_vec()).build();
        if again.to_tagged_vec().ok().as_deref() != Some(bytes.as_slice()) {
            return Err(wrong("another content type, a header that Cairn does not use, or not deterministic CBOR"));
        }
        let login = Login::read(identity, payload)?;
        Ok(Self { login, envelope, signature })
    }

    /// What it says. Not yet verified.
    #[must_use]
    pub const fn login(&self) -> &Login {
        &self.login
    }

    /// Checks that `key` signed it for `chain` and `audience`, and that it counts at `now_s`, in seconds since
    /// 1970-01-01 UTC.
    ///
    /// # Errors
    /// Names what is not so.
    pub fn verify(&self, key: &PublicKey, chain: &ChainTag, audience: &str, now_s: u64) -> Result<(), LoginError> {
        let login = &self.login;
        if !key.verify(&self.envelope.tbs_data(chain.0.as_ref()), &self.signature) {
            return Err(LoginError::Signature { identity: login.identity });
        }
        if login.audience != audience {
            return Err(LoginError::Audience { expected: audience.to_owned(), found: login.audience.clone() });
        }
        if now_s >= login.expires_s {
            return Err(LoginError::Expired { expires_s: login.expires_s, now_s });
        }
        if now_s.saturating_add(CLOCK_SKEW_S) < login.issued_s {
            return Err(LoginError::NotYet { issued_s: login.issued_s, now_s });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: ChainTag = ChainTag(Digest([1; 32]));

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    fn login() -> Login {
        Login { identity: key().identity(), audience: "cairn-query".into(), issued_s: 10_000, expires_s: 13_600 }
    }

    fn verified(token: &str, key: &SigningKey, chain: &ChainTag, audience: &str, now_s: u64) -> Result<(), LoginError> {
        SignedLogin::parse(token)?.verify(&key.public(), chain, audience, now_s)
    }

    #[test]
    fn a_token_is_good_for_its_key_chain_audience_and_time_alone() {
        let token = login().sign(&key(), &CHAIN).unwrap();
        assert!(token.len() <= TOKEN_BYTES_MAX);
        let check =
            |key: &SigningKey, chain: &ChainTag, audience: &str, now| verified(&token, key, chain, audience, now);
        for now in [10_000 - CLOCK_SKEW_S, 10_000, 13_599] {
            assert_eq!(check(&key(), &CHAIN, "cairn-query", now), Ok(()), "{now}");
        }
        let other = SigningKey::from_seed(&[8; 32]);
        assert!(matches!(check(&other, &CHAIN, "cairn-query", 11_000), Err(LoginError::Signature { .. })));
        let elsewhere = ChainTag(Digest([2; 32]));
        assert!(matches!(check(&key(), &elsewhere, "cairn-query", 11_000), Err(LoginError::Signature { .. })));
        assert!(matches!(check(&key(), &CHAIN, "another", 11_000), Err(LoginError::Audience { .. })));
        assert!(matches!(check(&key(), &CHAIN, "cairn-query", 13_600), Err(LoginError::Expired { .. })));
        assert!(matches!(check(&key(), &CHAIN, "cairn-query", 9_000), Err(LoginError::NotYet { .. })));
    }

    #[test]
    fn tokens_that_live_too_long_or_never_are_neither_made_nor_taken() {
        for (issued_s, expires_s) in [(10, 10), (10, 9), (0, LIFETIME_S_MAX + 1), (0, u64::MAX)] {
            let wrong = Login { issued_s, expires_s, ..login() };
            assert!(matches!(wrong.sign(&key(), &CHAIN), Err(LoginError::Lifetime { .. })));
            let envelope = unsigned(&wrong.identity, wrong.payload())
                .create_signature(CHAIN.0.as_ref(), |message| key().sign(message).to_vec())
                .build();
            let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(envelope.to_tagged_vec().unwrap()));
            assert!(matches!(SignedLogin::parse(&token), Err(LoginError::Lifetime { .. })));
        }
        for audience in ["", "with space", "line\nbreak", &"x".repeat(129)] {
            assert!(Login { audience: audience.into(), ..login() }.sign(&key(), &CHAIN).is_err(), "{audience:?}");
        }
    }

    #[test]
    fn every_changed_bit_is_refused() {
        let token = login().sign(&key(), &CHAIN).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[at] ^= 1 << bit;
                let altered = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(altered));
                assert!(verified(&altered, &key(), &CHAIN, "cairn-query", 11_000).is_err(), "byte {at}, bit {bit}");
            }
        }
        for cut in 0..token.len() {
            assert!(SignedLogin::parse(&token[..cut]).is_err(), "{cut}");
        }
        assert!(SignedLogin::parse(&format!("{token}A")).is_err());
        assert!(SignedLogin::parse(&"x".repeat(TOKEN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_statement_is_no_token_and_a_token_no_statement() {
        use crate::statement::SignedStatement;
        let token = login().sign(&key(), &CHAIN).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
        assert!(SignedStatement::decode(&bytes).is_err());
    }
}

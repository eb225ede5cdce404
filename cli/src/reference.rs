//! How people name identities and validators on a command line, and how times are written.
//!
//! An identity is named by its id (64 hexadecimal digits), by the `did:key` of a key that it has or had, or by its name
//! where only one has it. A validator is named by its key or by its name.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::Ledger;
use cairn_chain_state::{IdentityEntry, ValidatorEntry};
use cairn_proof::Digest;
use cairn_proof::identity::{IdentityId, PublicKey};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

/// The `did:key` of a key.
pub(crate) fn did(key: &PublicKey) -> String {
    key.did()
}

/// The identity that `text` names.
pub(crate) fn identity(ledger: &Ledger, text: &str) -> Result<Arc<IdentityEntry>> {
    let state = ledger.state();
    let found = match identity_id(ledger, text)? {
        Some(id) => state.identity(&id).cloned(),
        None => {
            let named: Vec<_> = ledger.identities().values().filter(|entry| entry.name == text).collect();
            if named.len() > 1 {
                let ids: Vec<_> = named.iter().take(8).map(|entry| entry.id.to_string()).collect();
                bail!("{} identities are named {text:?}; use the id of one: {}", named.len(), ids.join(", "));
            }
            named.first().and_then(|entry| state.identity(&entry.id)).cloned()
        }
    };
    found.with_context(|| {
        format!("no identity {text:?}: expected an id, a did:key or a name; `cairn identity list` shows them")
    })
}

/// The id that `text` is or leads to, without asking whether it is registered; none if it can only be a name.
pub(crate) fn identity_id(ledger: &Ledger, text: &str) -> Result<Option<IdentityId>> {
    if text.starts_with("did:") {
        let key = PublicKey::from_did(text).with_context(|| format!("{text:?}"))?;
        let owner = ledger.state().identity_of_key(&key).copied();
        return Ok(Some(owner.unwrap_or_else(|| IdentityId::of(&key))));
    }
    Ok(digest(text).map(IdentityId))
}

/// The validator that `text` names.
pub(crate) fn validator(ledger: &Ledger, text: &str) -> Result<Arc<ValidatorEntry>> {
    let all = ledger.state().validators();
    let named: Vec<_> = match public_key(text) {
        Ok(key) => all.iter().filter(|entry| entry.public_key == key).collect(),
        Err(_) => all.iter().filter(|entry| entry.name == text).collect(),
    };
    match named.as_slice() {
        [one] => Ok(Arc::clone(one)),
        [] => {
            let names: Vec<_> = all.iter().map(|entry| entry.name.as_str()).collect();
            bail!("no validator {text:?}: expected a public key or one of the names {}", names.join(", "))
        }
        several => {
            let keys: Vec<_> = several.iter().map(|entry| entry.public_key.to_string()).collect();
            bail!("{} validators are named {text:?}; use the key of one: {}", several.len(), keys.join(", "))
        }
    }
}

/// A public key: 64 hexadecimal digits, or a `did:key`.
pub(crate) fn public_key(text: &str) -> Result<PublicKey> {
    if text.starts_with("did:") {
        return PublicKey::from_did(text).with_context(|| format!("{text:?}"));
    }
    let bytes = digest(text).with_context(|| format!("{text:?}: expected a public key of 64 hexadecimal digits"))?;
    PublicKey::from_bytes(bytes.0).with_context(|| format!("{text:?}"))
}

/// 64 hexadecimal digits.
pub(crate) fn digest(text: &str) -> Option<Digest> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| Digest(bytes))
}

/// A time on the command line: RFC 3339, or a date (its first moment, UTC), or `never`.
pub(crate) fn expiry(text: &str) -> Result<Option<u64>> {
    if text == "never" {
        return Ok(None);
    }
    let time = match (DateTime::parse_from_rfc3339(text), text.parse::<NaiveDate>()) {
        (Ok(time), _) => time.timestamp_millis(),
        (Err(_), Ok(date)) => date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis(),
        _ => bail!("{text:?}: expected a time such as 2027-01-31, 2027-01-31T12:00:00Z, or never"),
    };
    u64::try_from(time).map(Some).with_context(|| format!("{text:?}: expected a time after 1970"))
}

/// A time as it is shown.
pub(crate) fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_times_dates_or_never() {
        assert_eq!(expiry("never").unwrap(), None);
        assert_eq!(expiry("1970-01-02").unwrap(), Some(86_400_000));
        assert_eq!(expiry("1970-01-01T01:00:00+00:30").unwrap(), Some(1_800_000));
        let error = expiry("tomorrow").unwrap_err().to_string();
        assert!(error.contains("2027-01-31") && error.contains("never"), "{error}");
        assert!(expiry("1969-12-31").is_err());
        assert_eq!(time(86_400_001), "1970-01-02T00:00:00.001Z");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
    }

    #[test]
    fn keys_are_hexadecimal_or_did() {
        let key = cairn_proof::identity::SigningKey::from_seed(&[3; 32]).public();
        assert_eq!(public_key(&key.to_string()).unwrap(), key);
        assert_eq!(public_key(&did(&key)).unwrap(), key);
        let error = public_key("12").unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
        assert!(public_key("did:key:z123").is_err());
    }
}

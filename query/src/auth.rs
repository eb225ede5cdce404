//! Who a connection speaks for: an identity on the chain, by a login token as password, or nobody in particular.
//!
//! ```text
//! startup, or a call's headers ─▶ may this peer do without? ──yes──▶ session of nobody
//!                     └──no──▶ "password, please" ─▶ token: chain, audience, time, signature ─▶ identity active, same key?
//!                                                                                              └▶ session of the identity
//! ```
//!
//! A token is worth as much as the key while it lives, so it is taken over TLS or from this machine alone. Afterwards the
//! chain decides: an identity that is revoked, expired or has another key loses its sessions with the block that says so
//! ([`watch`]), and a statement begins only under an identity that is still good.

use std::net::IpAddr;
use std::time::Duration;

use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::login::SignedLogin;
use cairn_proof::units::Height;

use crate::config::WithoutPassword;
use crate::engine::Engine;
use crate::error::{QueryError, QueryErrorKind, Result, SqlState};
use crate::problems::now_ms;

/// How often a session's identity is looked up, if there is a new block.
const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// An identity that logged in, with the key that it did so with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Principal {
    identity: IdentityId,
    key: PublicKey,
}

/// Where a client is, and whether others can read what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    pub(crate) secure: bool,
}

impl Peer {
    fn is_local(self) -> bool {
        self.ip.to_canonical().is_loopback()
    }
}

/// True if this client needs no password.
pub(crate) fn needs_none(engine: &Engine, peer: Peer) -> bool {
    match engine.config().without_password {
        WithoutPassword::None => false,
        WithoutPassword::Loopback => peer.is_local(),
        WithoutPassword::Any => true,
    }
}

/// Fails before a token is asked for that strangers on the way could read.
pub(crate) fn check_channel(peer: Peer) -> Result<()> {
    if peer.secure || peer.is_local() {
        return Ok(());
    }
    let message = "a login token goes over an encrypted connection only";
    Err(denied(message)
        .with_hint("connect with sslmode=require, or grpc+tls for Flight SQL; the operator sets [query.postgres.tls]"))
}

/// The identity that a password speaks for.
pub(crate) fn login(engine: &Engine, password: &str) -> Result<Principal> {
    let refused = |error: &dyn std::fmt::Display| {
        QueryError::new(QueryErrorKind::NotAllowed, SqlState::INVALID_PASSWORD, error.to_string())
            .with_hint("the password is a login token: cairn login --key FILE")
    };
    let signed = SignedLogin::parse(password).map_err(|error| refused(&error))?;
    let chain = engine.chain().ok_or_else(|| denied("this server knows no chain, so it knows no identities"))?;
    let identity = signed.login().identity;
    let key = good_key(engine, &identity)?;
    let now_s = u64::try_from(now_ms() / 1_000).unwrap_or_default();
    signed.verify(&key, &chain, &engine.config().audience, now_s).map_err(|error| refused(&error))?;
    Ok(Principal { identity, key })
}

/// The key of an identity that may act at the newest block.
fn good_key(engine: &Engine, identity: &IdentityId) -> Result<PublicKey> {
    let catalog = engine.catalog(engine.newest())?;
    let Some(found) = catalog.identity(identity) else {
        return Err(denied(format!("identity {identity} is not registered (as of block {})", catalog.height().0)));
    };
    match found.status {
        "active" => Ok(found.entry.public_key),
        status => {
            let since = found.entry.revoked.map(|Height(block)| format!(" since block {block}")).unwrap_or_default();
            Err(denied(format!("identity {identity} is {status}{since}")))
        }
    }
}

/// Fails once the identity of a session is no longer what it was when it logged in.
pub(crate) fn check(engine: &Engine, principal: &Principal) -> Result<()> {
    if good_key(engine, &principal.identity)? == principal.key {
        return Ok(());
    }
    Err(denied(format!("identity {} has another key now", principal.identity)).with_hint("log in with the new key"))
}

/// Ends with an error when the identity of a session is no longer good, and never otherwise.
pub(crate) async fn watch(engine: &Engine, principal: &Principal) -> QueryError {
    let mut seen = None;
    loop {
        let newest = engine.newest();
        if seen != Some(newest) {
            seen = Some(newest);
            match check(engine, principal) {
                Err(error) if error.state == SqlState::INVALID_AUTHORIZATION => return error,
                _ => {}
            }
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

pub(crate) fn denied(message: impl Into<String>) -> QueryError {
    QueryError::new(QueryErrorKind::NotAllowed, SqlState::INVALID_AUTHORIZATION, message)
}

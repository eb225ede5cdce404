//! Who a call speaks for, and the session that it belongs to.
//!
//! Flight has no session of its own: each call carries its credentials. Here a session is **a connection and a login
//! token**: settings and prepared statements live as long as the connection does, as on the Postgres wire. A proxy that
//! carries several identities over one connection has a session for each.
//!
//! ```text
//! call ─▶ Authorization: Bearer TOKEN | Basic USER:TOKEN | none
//!           └▶ session of this connection and token? ─yes─▶ identity still good? ─▶ go on
//!                                  └no──▶ auth::login ─▶ Session, and a watch that ends it with its identity
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;

use super::prepared::PreparedStatements;
use crate::auth::{self, Peer, Principal};
use crate::engine::Engine;
use crate::error::{QueryError, QueryErrorKind, Result, SqlState};
use crate::session::{Outcome, Session};
use crate::statement::Statement;
use datafusion::common::ParamValues;

/// How many identities one connection may carry.
const SESSIONS_MAX: usize = 16;
/// No login token is longer, and so no credentials are.
const CREDENTIALS_BYTES_MAX: usize = 4_096;

/// One connection, as its calls see it.
pub(super) struct Connection {
    pub(super) engine: Engine,
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    /// There are as many clients as there may be: this one is told so.
    pub(super) full: bool,
    /// A call was let in; until then the connection has only a moment.
    pub(super) begun: AtomicBool,
    /// Ends the connection.
    pub(super) close: CancellationToken,
    sessions: Mutex<HashMap<String, Arc<FlightSession>>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(engine: Engine, peer: SocketAddr, secure: bool, full: bool, close: CancellationToken) -> Self {
        Self { engine, peer, secure, full, begun: AtomicBool::new(false), close, sessions: Mutex::default() }
    }

    /// The session of a call, and the token that it may go on with; nothing of the call is looked at before this.
    pub(super) fn session(&self, headers: &MetadataMap) -> Result<(Arc<FlightSession>, String)> {
        if self.full {
            let most = self.engine.config().connections_max;
            return Err(QueryError::limit(
                SqlState::TOO_MANY_CONNECTIONS,
                format!("there are {most} clients already, as many as connections_max allows"),
            )
            .with_hint("close a connection, or raise connections_max under [query.postgres]"));
        }
        let peer = Peer { ip: self.peer.ip(), secure: self.secure };
        let token = if auth::needs_none(&self.engine, peer) {
            String::new()
        } else {
            auth::check_channel(peer)?;
            credentials(headers)?
        };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get(&token) {
            match session.check() {
                Ok(()) => return Ok((Arc::clone(session), token)),
                Err(error) => {
                    sessions.remove(&token);
                    return Err(error);
                }
            }
        }
        let principal = match token.as_str() {
            "" => None,
            token => Some(auth::login(&self.engine, token)?),
        };
        sessions.retain(|_, session| session.ended.why.get().is_none());
        if sessions.len() >= SESSIONS_MAX {
            return Err(QueryError::limit(
                SqlState::TOO_MANY_CONNECTIONS,
                format!("this connection carries {SESSIONS_MAX} logins already"),
            )
            .with_hint("open another connection"));
        }
        if let Some(principal) = &principal {
            tracing::info!(?principal, peer = %self.peer, "query: an identity logged in over Flight SQL");
        }
        let session = Arc::new(FlightSession::open(&self.engine, principal)?);
        sessions.insert(token.clone(), Arc::clone(&session));
        self.begun.store(true, Ordering::Relaxed);
        Ok((session, token))
    }

    /// Forgets a session: its settings and its prepared statements.
    pub(super) fn forget(&self, token: &str) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }
}

/// The login token in a call's headers: as bearer token, or as the password of whatever user.
fn credentials(headers: &MetadataMap) -> Result<String> {
    let denied = |message: &str| {
        QueryError::new(QueryErrorKind::NotAllowed, SqlState::INVALID_AUTHORIZATION, message)
            .with_hint("send a login token, of cairn login --key FILE, as bearer token or as password")
    };
    let header = headers.get("authorization").ok_or_else(|| denied("this server asks for a login token"))?;
    let header = header.to_str().map_err(|_| denied("the header authorization is not ASCII"))?;
    if header.len() > CREDENTIALS_BYTES_MAX {
        return Err(denied("the header authorization is longer than any login token"));
    }
    let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
    let token = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => value.trim().to_owned(),
        "basic" => {
            let decoded = BASE64_STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.ok_or_else(|| denied("the header authorization is not Basic credentials"))?;
            pair.split_once(':').map(|(_, password)| password.to_owned()).unwrap_or_default()
        }
        _ => return Err(denied("the header authorization is neither Bearer nor Basic")),
    };
    if token.is_empty() {
        return Err(denied("the login token is empty"));
    }
    Ok(token)
}

/// A session's end: once it is cancelled, `why` says why.
#[derive(Debug, Default)]
struct Ended {
    token: CancellationToken,
    why: OnceLock<QueryError>,
}

/// A [`Session`] that several calls share.
pub(super) struct FlightSession {
    pub(super) session: Session,
    pub(super) prepared: PreparedStatements,
    /// A session stands at one height while a statement is planned, so they are planned one after the other.
    planning: tokio::sync::Mutex<()>,
    ended: Arc<Ended>,
    watch: Option<JoinHandle<()>>,
}

impl fmt::Debug for FlightSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FlightSession").field("session", &self.session).finish_non_exhaustive()
    }
}

impl FlightSession {
    fn open(engine: &Engine, principal: Option<Principal>) -> Result<Self> {
        let session = engine.session_for(principal)?;
        let ended = Arc::new(Ended::default());
        let watch = principal.map(|principal| {
            let (engine, ended) = (engine.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                let why = auth::watch(&engine, &principal).await;
                let _ = ended.why.set(why);
                ended.token.cancel();
            })
        });
        Ok(Self {
            session,
            prepared: PreparedStatements::default(),
            planning: tokio::sync::Mutex::default(),
            ended,
            watch,
        })
    }

    /// Fails once the identity is no longer what it was.
    fn check(&self) -> Result<()> {
        if let Some(why) = self.ended.why.get() {
            return Err(why.clone());
        }
        self.session.principal().map_or(Ok(()), |principal| auth::check(self.session.engine(), principal))
    }

    /// Ends when the identity is no longer good, and never for a session that speaks for nobody.
    pub(super) async fn ended(&self) -> QueryError {
        self.ended.token.cancelled().await;
        let why = self.ended.why.get().cloned();
        why.unwrap_or_else(|| QueryError::internal("a session ended without a reason"))
    }

    /// Works on the session alone, for as long as the identity is good.
    pub(super) async fn alone<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let planned = async {
            let _turn = self.planning.lock().await;
            work.await
        };
        tokio::select! {
            biased;
            why = self.ended() => Err(why),
            done = planned => done,
        }
    }

    /// Runs a statement.
    pub(super) async fn execute(&self, statement: &Statement, bound: Option<ParamValues>) -> Result<Outcome> {
        // Boxed, since it is large and every call of a client holds one.
        Box::pin(self.alone(self.session.execute(statement, bound))).await
    }
}

impl Drop for FlightSession {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<String> {
        let mut headers = MetadataMap::new();
        headers.insert("authorization", value.parse().expect("ASCII"));
        credentials(&headers)
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_password() {
        assert_eq!(of("Bearer abc").expect("bearer"), "abc");
        assert_eq!(of("bearer abc").expect("schemes have no case"), "abc");
        assert_eq!(of(&format!("Basic {}", BASE64_STANDARD.encode("analyst:a:b"))).expect("basic"), "a:b");
        for wrong in ["", "Bearer", "Bearer ", "Basic !!!", "Basic eA==", "Digest x"] {
            let error = of(wrong).expect_err(wrong);
            assert_eq!(error.state, SqlState::INVALID_AUTHORIZATION, "{wrong}");
        }
        assert!(of(&format!("Bearer {}", "x".repeat(5_000))).expect_err("too long").message.contains("longer"));
        assert!(credentials(&MetadataMap::new()).is_err());
    }
}

//! How a connection begins, and how a statement is cancelled from another one.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion_postgres::pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::api::{
    ClientInfo, PgWireConnectionState, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::startup::Authentication;
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::{Sink, SinkExt};
use tokio::sync::watch;

use super::errors;
use crate::auth::{self, Peer, Principal};
use crate::engine::Engine;
use crate::error::{QueryError, SqlState};
use crate::session::Session;
use crate::settings::SERVER_VERSION;

/// Settings that a client may give when it connects, besides those in `options`.
const STARTUP_SETTINGS: [&str; 8] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "search_path",
    "statement_timeout",
    "timezone",
];

type ConnectionKey = (i32, Bytes);

/// The running connections by the secret that cancels their statements.
#[derive(Debug, Default)]
pub(super) struct Cancels(Mutex<HashMap<ConnectionKey, watch::Sender<u64>>>);

impl Cancels {
    fn cancel(&self, key: &ConnectionKey) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = known.get(key) {
            sender.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn cancel_all(&self) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in known.values() {
            sender.send_modify(|count| *count += 1);
        }
    }

    fn register(self: &Arc<Self>, key: ConnectionKey) -> Cancellable {
        let (sender, receiver) = watch::channel(0);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), sender);
        Cancellable { receiver, cancels: Arc::clone(self), key }
    }
}

/// A connection's end of a cancel request; forgotten when the connection ends.
#[derive(Debug)]
pub(super) struct Cancellable {
    receiver: watch::Receiver<u64>,
    cancels: Arc<Cancels>,
    key: ConnectionKey,
}

impl Cancellable {
    /// Hears requests that come from now on.
    pub(super) fn heard_from_now(&self) -> watch::Receiver<u64> {
        let mut receiver = self.receiver.clone();
        receiver.mark_unchanged();
        receiver
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.cancels.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[async_trait]
impl CancelHandler for Cancels {
    async fn on_cancel_request(&self, request: CancelRequest) {
        self.cancel(&(request.pid, request.secret_key.to_bytes()));
    }
}

/// Begins connections.
#[derive(Debug)]
pub(super) struct Startup {
    pub(super) engine: Engine,
    pub(super) cancels: Arc<Cancels>,
    /// There are as many clients as there may be: this one is told so.
    pub(super) full: bool,
}

static KEYS: std::sync::LazyLock<RandomPidSecretKeyGenerator> =
    std::sync::LazyLock::new(RandomPidSecretKeyGenerator::default);

impl Startup {
    fn check_room(&self) -> Result<(), QueryError> {
        if self.full {
            let most = self.engine.config().connections_max;
            return Err(QueryError::limit(
                SqlState::TOO_MANY_CONNECTIONS,
                format!("there are {most} clients already, as many as connections_max allows"),
            )
            .with_hint("close a connection, or raise connections_max under [query]"));
        }
        Ok(())
    }

    fn open(&self, parameters: &HashMap<String, String>, principal: Option<Principal>) -> Result<Session, QueryError> {
        let session = self.engine.session_for(principal)?;
        for (name, value) in parameters {
            let name = name.to_ascii_lowercase();
            if STARTUP_SETTINGS.contains(&name.as_str()) {
                session.set(&name, Some(value))?;
            }
        }
        for (name, value) in options(parameters.get("options").map_or("", String::as_str)) {
            session.set(&name.to_ascii_lowercase(), Some(value))?;
        }
        Ok(session)
    }
}

/// The settings in libpq's `options`: `-c name=value`, or `--name=value`.
fn options(text: &str) -> Vec<(String, &str)> {
    let mut words = text.split_whitespace();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word {
            "-c" => words.next(),
            word => word.strip_prefix("--").or_else(|| word.strip_prefix("-c")),
        };
        if let Some((name, value)) = setting.and_then(|setting| setting.split_once('=')) {
            found.push((name.replace('-', "_"), value));
        }
    }
    found
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(startup) => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                self.check_room().map_err(errors::fatal)?;
                let peer = Peer { ip: client.socket_addr().ip(), secure: client.is_secure() };
                if auth::needs_none(&self.engine, peer) {
                    return self.begin(client, None).await;
                }
                auth::check_channel(peer).map_err(errors::fatal)?;
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                client.send(PgWireBackendMessage::Authentication(Authentication::CleartextPassword)).await?;
                Ok(())
            }
            PgWireFrontendMessage::PasswordMessageFamily(family) => {
                let password = family.into_password()?.password;
                let principal = auth::login(&self.engine, &password).map_err(errors::fatal)?;
                tracing::info!(?principal, peer = %client.socket_addr(), "query: an identity logged in");
                self.begin(client, Some(principal)).await
            }
            _ => Err(errors::fatal(QueryError::statement(SqlState("08P01"), "expected a startup or password message"))),
        }
    }
}

impl Startup {
    /// Begins the session of a client that may have one.
    async fn begin<C>(&self, client: &mut C, principal: Option<Principal>) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let session = self.open(client.metadata(), principal).map_err(errors::fatal)?;
        let (pid, secret) = KEYS.generate(&*client);
        client.set_pid_and_secret_key(pid, secret.clone());
        let cancellable = self.cancels.register((pid, secret.to_bytes()));
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = SERVER_VERSION.to_owned();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        parameters.in_hot_standby = false;
        parameters.time_zone = session.settings().time_zone;
        parameters.search_path = session.settings().search_path;
        client.session_extensions().insert(session);
        client.session_extensions().insert(cancellable);
        finish_authentication(client, &parameters).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_in_two_spellings() {
        let found = options("-c cairn.as_of=5 --statement-timeout=3s -csearch_path=traffic nonsense");
        assert_eq!(
            found,
            [
                ("cairn.as_of".to_owned(), "5"),
                ("statement_timeout".to_owned(), "3s"),
                ("search_path".to_owned(), "traffic")
            ]
        );
    }

    #[test]
    fn a_cancel_request_reaches_only_what_runs() {
        let cancels = Arc::new(Cancels::default());
        let key = (7, Bytes::from_static(b"secret"));
        let connection = cancels.register(key.clone());
        cancels.cancel(&key);
        let later = connection.heard_from_now();
        assert!(!later.has_changed().expect("the sender lives"));
        cancels.cancel(&key);
        assert!(later.has_changed().expect("the sender lives"));
        drop(connection);
        cancels.cancel(&key);
        assert!(cancels.0.lock().expect("not poisoned").is_empty());
    }
}

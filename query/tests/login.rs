//! Who may connect: tokens of identities on the chain, over TLS, until the chain says otherwise.

mod flight_sql;

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::{self, CHAIN, City, key};
use cairn_proof::identity::SigningKey;
use cairn_proof::login::Login;
use cairn_proof::statement::ChainTag;
use cairn_proof::{Digest, Height};
use cairn_query::{
    FixedSnapshots, QueryConfig, QueryService, Result, RunningQuery, Snapshot, SnapshotSource, TlsFiles,
    WithoutPassword,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, NoTls, Socket};

/// A chain whose next blocks a test lets come.
#[derive(Debug)]
struct Growing {
    all: FixedSnapshots,
    newest: AtomicU64,
}

impl SnapshotSource for Growing {
    fn newest(&self) -> Height {
        Height(self.newest.load(Ordering::SeqCst))
    }

    fn snapshot(&self, at: Height) -> Result<Arc<Snapshot>> {
        self.all.snapshot(at)
    }

    fn chain(&self) -> Option<ChainTag> {
        self.all.chain()
    }
}

struct Served {
    running: RunningQuery,
    chain: Arc<Growing>,
    _city: City,
}

/// Serves the city as it is after block `newest`.
async fn serve(newest: u64, config: QueryConfig) -> Served {
    let city = common::city().await;
    let chain = Arc::new(Growing { all: city.snapshots(), newest: AtomicU64::new(newest) });
    let engine = city.engine_over(QueryConfig { port: 0, ..config }, Arc::<Growing>::clone(&chain)).unwrap();
    Served { running: QueryService::serve(engine).await.unwrap(), chain, _city: city }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token_of(key: &SigningKey, chain: &ChainTag, audience: &str, issued_s: u64) -> String {
    let login = Login { identity: key.identity(), audience: audience.to_owned(), issued_s, expires_s: issued_s + 600 };
    login.sign(key, chain).unwrap()
}

/// A token of meter-1, which block 6 revokes.
fn token() -> String {
    token_of(&key(20), &CHAIN, "cairn-query", now_s())
}

async fn connect(served: &Served, password: &str) -> std::result::Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(served.running.addr.port()).user("analyst").dbname("cairn").password(password);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn refused(served: &Served, password: &str, state: &str, part: &str) {
    let error = connect(served, password).await.map(drop).expect_err(part);
    let said = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(said.code().code(), state, "{said:?}");
    assert!(said.message().contains(part), "{part:?} is missing in {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_active_identity_is_the_password() {
    let served = serve(5, QueryConfig::default()).await;
    let client = connect(&served, &token()).await.unwrap();
    let row = client.query_one("SELECT count(*) FROM traffic.flow", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 9);

    refused(&served, "secret", "28P01", "not a login token").await;
    refused(&served, &token_of(&key(21), &CHAIN, "cairn-query", now_s()), "28000", "expired").await;
    refused(&served, &token_of(&key(99), &CHAIN, "cairn-query", now_s()), "28000", "not registered").await;
    refused(&served, &token_of(&key(20), &CHAIN, "another", now_s()), "28P01", "is for \"another\"").await;
    refused(&served, &token_of(&key(20), &CHAIN, "cairn-query", now_s() - 3_600), "28P01", "expired").await;
    let other = ChainTag(Digest([8; 32]));
    refused(&served, &token_of(&key(20), &other, "cairn-query", now_s()), "28P01", "does not verify").await;
    // Another key in the name of the identity.
    let login = Login {
        identity: key(20).identity(),
        audience: "cairn-query".into(),
        issued_s: now_s(),
        expires_s: now_s() + 60,
    };
    refused(&served, &login.sign(&key(33), &CHAIN).unwrap(), "28P01", "does not verify").await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_identity_loses_its_sessions_idle_and_running() {
    let served = serve(5, QueryConfig::default()).await;
    let idle = connect(&served, &token()).await.unwrap();
    let busy = connect(&served, &token()).await.unwrap();
    let endless =
        "SELECT count(*) FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE x * y = 7";
    let running = tokio::spawn(async move { busy.simple_query(endless).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!running.is_finished());

    served.chain.newest.store(6, Ordering::SeqCst);
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await.expect("in time").unwrap();
    let error = ended.expect_err("the identity is revoked");
    let said = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(said.code().code(), "28000");
    assert!(said.message().contains("revoked since block 6"), "{said:?}");
    let closed = async {
        while !idle.is_closed() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("idle sessions end too");
    refused(&served, &token(), "28000", "revoked since block 6").await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_needs_no_password_only_if_configured() {
    let served = serve(5, QueryConfig { without_password: WithoutPassword::Loopback, ..QueryConfig::default() }).await;
    connect(&served, "").await.unwrap().simple_query("SELECT 1").await.unwrap();
    served.running.stop().await;
    let served = serve(5, QueryConfig::default()).await;
    refused(&served, "x", "28P01", "not a login token").await;
    served.running.stop().await;
}

/// TLS for the test's client, by the one certificate that it trusts.
#[derive(Clone)]
struct Tls(tokio_rustls::TlsConnector);

struct Encrypted(tokio_rustls::client::TlsStream<Socket>);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _domain: &str) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move { Ok(Encrypted(self.0.connect("localhost".try_into().unwrap(), stream).await?)) })
    }
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A certificate for localhost in `folder`, and a client that trusts it.
fn certificate(folder: &Path) -> (TlsFiles, Tls) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (files, Tls(tokio_rustls::TlsConnector::from(Arc::new(config))))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_ask_for_tls_and_log_in_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let (files, tls) = certificate(folder.path());
    let served = serve(5, QueryConfig { tls: Some(files), ..QueryConfig::default() }).await;
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(served.running.addr.port()).user("analyst").dbname("cairn").password(token());
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(tls).await.unwrap();
    tokio::spawn(connection);
    let row = client.query_one("SELECT count(*) FROM traffic.flow", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 9);
    // Large answers and large statements go through as well.
    let text = "x".repeat(200_000);
    let row = client.query_one("SELECT length($1::text)", &[&text]).await.unwrap();
    assert_eq!(row.len(), 1);
    // Who does not ask for it goes on in plain text.
    connect(&served, &token()).await.unwrap().simple_query("SELECT 1").await.unwrap();
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_says_so_and_bad_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (files, tls) = certificate(folder.path());
    let served = serve(5, QueryConfig::default()).await;
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(served.running.addr.port()).user("analyst").password(token());
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    assert!(config.connect(tls).await.is_err(), "there is no TLS to be had");
    served.running.stop().await;

    std::fs::write(&files.certificate, "nothing").unwrap();
    let city = common::city().await;
    let config = QueryConfig { port: 0, tls: Some(files), ..QueryConfig::default() };
    let error = QueryService::serve(city.engine_with(config)).await.map(drop).expect_err("no certificate");
    assert!(error.to_string().contains("certificate.pem"), "{error}");
}

//! The HTTP API over TLS: the real client against a real node, with certificates made for each case.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use cairn_chain_client::{Client, ClientError};
use cairn_chain_node::{ErrorKind, Node, TlsConfig};
use cairn_proof::{Digest, Partition};
use common::{
    Net,
    city::{INGEST, validator_key},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A city's certificate authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name`, good until the end of `year`.
    fn certify(&self, folder: &Path, name: &str, year: i32) -> TlsConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(year, 12, 31));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = TlsConfig {
            certificate: folder.join(format!("{name}-{year}.pem")),
            key: folder.join(format!("{name}-{year}.key")),
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }
}

async fn serving(tls: TlsConfig) -> Net {
    let mut net = Net::new(1, 200);
    net.configs[0].api.tls = Some(tls);
    net.configs[0].api.head_ms_max = 1_000;
    net.start(0).await;
    net
}

fn port(net: &Net) -> u16 {
    net.nodes[0].as_ref().unwrap().api_addr().port()
}

async fn unreachable(client: &Client) -> String {
    match client.head("traffic.flow", Partition(0)).await.unwrap_err() {
        ClientError::Unreachable { last, .. } => last,
        other => panic!("{other}"),
    }
}

fn client(address: &str, roots: Option<&str>) -> Client {
    Client::with_roots(vec![address.parse().unwrap()], roots.map(str::as_bytes)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_speaks_tls_with_a_node_of_the_right_name() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let mut net = serving(authority.certify(folder.path(), "localhost", 4000)).await;
    let right = client(&format!("https://localhost:{}", port(&net)), Some(&authority.pem));
    let stream = net.city.register_stream(1);
    right.submit(&stream).await.unwrap();
    let (anchor, id) = net.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    let outcomes = right.submit_all(&[anchor.clone(), anchor, b"nonsense".to_vec()]).await.unwrap();
    assert_eq!(outcomes.len(), 3);
    assert_eq!((outcomes[0].as_ref().unwrap(), outcomes[1].as_ref().unwrap()), (&id, &id));
    assert!(matches!(&outcomes[2], Err(ClientError::Refused(refusal)) if refusal.code.name() == "malformed"));
    right.statement(&id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(right.head("traffic.flow", Partition(0)).await.unwrap().anchor, id);

    let wrong_name = client(&format!("https://127.0.0.1:{}", port(&net)), Some(&authority.pem));
    let error = unreachable(&wrong_name).await;
    assert!(error.contains("certificate"), "a name that is not the certificate's: {error}");
    let other = Authority::new();
    for roots in [Some(other.pem.as_str()), None] {
        let error = unreachable(&client(&format!("https://localhost:{}", port(&net)), roots)).await;
        assert!(error.contains("certificate"), "an authority that is not trusted: {error}");
    }
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_not_believed() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let mut net = serving(authority.certify(folder.path(), "localhost", 2001)).await;
    let error = unreachable(&client(&format!("https://localhost:{}", port(&net)), Some(&authority.pem))).await;
    assert!(error.contains("certificate") && error.to_lowercase().contains("expired"), "{error}");
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_a_tls_port_is_told_so_and_silence_ends() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let mut net = serving(authority.certify(folder.path(), "localhost", 4000)).await;
    let response = net.http.get(format!("http://localhost:{}/v1/health", port(&net))).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 400);
    let answer: serde_json::Value = response.json().await.unwrap();
    assert_eq!(answer["code"], "not_tls");
    assert!(answer["message"].as_str().unwrap().contains("https"));

    // A handshake that is never finished, one that is garbage, and none at all: each is closed.
    for begin in [&[0x16, 3, 1][..], &[0x16; 64][..], &[]] {
        let mut stream = TcpStream::connect(("127.0.0.1", port(&net))).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{begin:?} is not closed");
    }
    let ca = reqwest::Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    let https = reqwest::Client::builder().use_rustls_tls().add_root_certificate(ca).build().unwrap();
    let text = https.get(format!("https://localhost:{}/metrics", port(&net))).send().await.unwrap();
    let text = text.text().await.unwrap();
    assert!(text.contains(r#"cairn_api_refused_total{reason="not_tls"} 1"#), "{text}");
    assert!(text.contains(r#"cairn_api_refused_total{reason="tls_handshake"}"#), "{text}");
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_key_that_others_can_read_does_not_start() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let files = authority.certify(folder.path(), "localhost", 4000);
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let mut net = Net::new(1, 200);
    net.configs[0].api.tls = Some(files);
    let (config, genesis) = (net.configs[0].clone(), net.city.genesis.clone());
    let started = tokio::task::spawn_blocking(move || Node::start(config, genesis, &validator_key(0)).map(drop));
    let error = started.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FixInput);
    assert!(error.to_string().contains("chmod 0600"), "{error}");
}

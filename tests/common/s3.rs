//! A real S3 server for tests, on loopback: moto's, run by `tests/s3/s3.sh`. What is stored ends with it.
//!
//! A test that needs it and cannot have it (no Python, no registry) says so in one line and passes.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the script says by its exit code when something that it needs is not there.
const UNAVAILABLE: i32 = 69;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, which ends with the value.
pub struct S3 {
    port: u16,
    child: Child,
}

/// Whether there can be a server; says aloud if not.
pub fn is_available() -> bool {
    let fetched = script().arg("fetch").output().unwrap();
    if fetched.status.code() == Some(UNAVAILABLE) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&fetched.stderr).trim());
        return false;
    }
    assert!(fetched.status.success(), "{fetched:?}");
    true
}

/// A port that is free at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl S3 {
    /// Starts a server with one bucket; nothing, if it cannot be had.
    pub fn start(bucket: &str) -> Option<Self> {
        is_available().then(|| Self::start_at(free_port(), bucket))
    }

    /// Starts a server with one bucket on a port.
    pub fn start_at(port: u16, bucket: &str) -> Self {
        let mut serve = script();
        serve.args(["serve", &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { port, child: serve.spawn().unwrap() };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(server.address()).is_err() {
            assert!(Instant::now() < deadline, "the S3 server does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(100));
        }
        server.request("PUT", bucket, &[]);
        server
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its base address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bytes of an object.
    pub fn get(&self, path: &str) -> Vec<u8> {
        self.request("GET", path, &[])
    }

    /// Puts other bytes in an object's place, as somebody with rights to the bucket can.
    pub fn replace(&self, path: &str, bytes: &[u8]) {
        self.request("PUT", path, bytes);
    }

    /// Sends a signal to the server.
    pub fn signal(&self, name: &str) {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let sent = Command::new("kill").args(["-s", name]).args(children.split_whitespace()).status().unwrap();
        assert!(sent.success(), "{name} to {children:?}");
    }

    /// One request. This server wants a signature to be there, and checks none.
    fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} /{path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=city/20261128/us-east-1/s3/aws4_request, SignedHeaders=host, \
             Signature=00\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {head}");
        answer.split_off(end + 4)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // The script ends the server when this pipe closes, also if it was stopped.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The script, with the cache folder beside what cargo builds.
fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/s3/s3.sh")).stdin(Stdio::null());
    if std::env::var_os("CAIRN_S3_CACHE").is_none() {
        let program = std::env::current_exe().unwrap();
        // target/debug/deps/PROGRAM
        command.env("CAIRN_S3_CACHE", program.ancestors().nth(3).unwrap().join("s3"));
    }
    command
}

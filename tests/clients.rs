//! Clients of others, unchanged, against a real query node over TLS, with login tokens: one client a test.
//!
//! `tests/clients/clients.sh` fetches them; a test whose client cannot be had says so in one line and passes. All of them ask
//! one network, which ends with the last test that holds it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use common::apache::cache;
use common::streams::{STREAM, csv, register};
use common::{Network, Process, describe, run};

/// What the script says by its exit code when something that it needs is not there.
const UNAVAILABLE: i32 = 69;
/// Readings that are published.
const ROWS: u64 = 1000;

/// A network whose query role asks everybody for a login, over TLS.
struct Served {
    network: Network,
    token: String,
    _up: Mutex<Process>,
}

/// The network of the tests that run now.
fn served() -> Arc<Served> {
    static SERVED: Mutex<Weak<Served>> = Mutex::new(Weak::new());
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = served.upgrade() {
        return running;
    }
    let started = Arc::new(Served::start());
    *served = Arc::downgrade(&started);
    started
}

impl Served {
    fn start() -> Self {
        let network = Network::new(true);
        certificates(&network);
        let file = network.dir().join("cairn.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let tls = "without_password = \"none\"\ntls = { certificate = \"query.pem\", key = \"query.key\" }";
        assert!(text.contains("without_password = \"loopback\""), "{text}");
        std::fs::write(&file, text.replace("without_password = \"loopback\"", tls)).unwrap();
        let up = network.up();
        register(&network, "avro");
        run(network.command("publish").args(["--stream", STREAM]).arg(csv(&network, 0..ROWS)));
        run(network.command("simulate").args(["--rate", "200", "--for", "3"]));
        network.wait_anchored(60);
        let token = run(network.command("login").arg("--key").arg(network.dir().join("keys/owner.key")));
        Self { network, token: token.trim().to_owned(), _up: Mutex::new(up) }
    }

    fn port(&self, section: &str, key: &str) -> String {
        let text = std::fs::read_to_string(self.network.dir().join("cairn.toml")).unwrap();
        let section = text.split(&format!("[{section}]")).nth(1).unwrap();
        let line = section.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap();
        line.trim_matches('"').rsplit(':').next().unwrap().to_owned()
    }

    fn root(&self) -> PathBuf {
        self.network.scratch("root.pem")
    }

    /// Tells a client where to go and how to get in. The token is in no command line.
    fn tell(&self, command: &mut Command) {
        let (postgres, flight) = (self.port("query.postgres", "port"), self.port("query.flight", "listen"));
        command
            .stdin(Stdio::null())
            .envs([("CAIRN_POSTGRES_PORT", &postgres), ("CAIRN_FLIGHT_PORT", &flight), ("CAIRN_TOKEN", &self.token)])
            .env("CAIRN_ROWS", ROWS.to_string())
            .env("CAIRN_ROOT", self.root())
            .env("CAIRN_GENESIS", self.network.dir().join("genesis.json"))
            .envs([("PGHOST", "localhost"), ("PGPORT", &postgres), ("PGUSER", "analyst"), ("PGDATABASE", "cairn")])
            .envs([("PGSSLMODE", "verify-full"), ("PGPASSWORD", &self.token)])
            .env("PGSSLROOTCERT", self.root());
    }

    /// Runs a client to its end; gives what it printed.
    fn asked_by(&self, command: &mut Command) -> String {
        self.tell(command);
        run(command)
    }
}

/// A root certificate beside the network, and one for localhost that it signed in the network's folder.
fn certificates(network: &Network) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut root = rcgen::CertificateParams::new(vec![]).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "test root");
    let root_key = rcgen::KeyPair::generate().unwrap();
    let root_certificate = root.self_signed(&root_key).unwrap();
    std::fs::write(network.scratch("root.pem"), root_certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(network.dir().join("query.pem"), certificate.pem()).unwrap();
    let file = network.dir().join("query.key");
    std::fs::write(&file, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients")
}

/// A client that the script knows how to run; nothing, and a line that says so, if it cannot be had.
fn client(kind: &str, program: Option<&Path>) -> Option<Command> {
    let script = || {
        let mut command = Command::new("bash");
        command.arg(folder().join("clients.sh")).stdin(Stdio::null());
        if std::env::var_os("CAIRN_CLIENTS_CACHE").is_none() {
            command.env("CAIRN_CLIENTS_CACHE", cache("clients"));
        }
        command
    };
    let fetched = script().args(["fetch", kind]).output().unwrap();
    if fetched.status.code() == Some(UNAVAILABLE) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&fetched.stderr).trim());
        return None;
    }
    assert!(fetched.status.success(), "{}", describe(&fetched));
    let mut command = script();
    command.arg(kind).args(program);
    Some(command)
}

fn python(program: &str) -> Option<Command> {
    client("python", Some(&folder().join(program)))
}

/// `psql`, if it is here; says aloud if not.
fn psql() -> Option<Command> {
    let here = Command::new("psql").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !here.is_ok_and(|status| status.success()) {
        eprintln!("skipped: psql is not here");
        return None;
    }
    let mut command = Command::new("psql");
    command.args(["-X", "-A", "-t", "-F", "|", "-v", "ON_ERROR_STOP=1"]);
    Some(command)
}

#[test]
fn psql_lists_and_describes_what_there_is() {
    if psql().is_none() {
        return;
    }
    let served = served();
    let ask = |command: &str| served.asked_by(psql().unwrap().args(["-c", command]));
    assert_eq!(ask("SELECT count(*) FROM test.reading"), format!("{ROWS}\n"));
    let columns = ask("\\d test.reading");
    assert!(columns.starts_with("n|bigint|||\nsensor|text|||\nat|timestamp with time zone|||\n"), "{columns}");
    assert!(ask("\\d+ traffic.flow").contains("detector_id|text"));
    let all = ask("\\d");
    assert!(all.contains("traffic|flow|table|") && all.contains("cairn|anchors|view|"), "{all}");
    assert!(ask("\\dt *.*").contains("test|reading|table|"));
    assert!(ask("\\dt+ test.*").contains("test|reading|table|"));
    assert!(ask("\\dn").lines().any(|line| line.starts_with("traffic|")));
    assert!(ask("\\dn+").lines().any(|line| line.starts_with("traffic|")));
    assert!(ask("\\dv cairn.*").contains("cairn|records|view|"));
    assert!(ask("\\l").lines().any(|line| line.starts_with("cairn|")));
    assert!(ask("\\di").is_empty());
    ask("\\du");
    ask("\\df");
    assert!(ask("\\conninfo").contains("SSL"), "the connection is encrypted");
}

#[test]
fn psql_saves_answers_by_copy() {
    let Some(mut command) = psql() else { return };
    let served = served();
    let file = served.network.scratch("copied.csv");
    let sql = "SELECT n, note FROM test.reading WHERE n < 4 ORDER BY n";
    let copy = format!("\\copy ({sql}) TO '{}' WITH (FORMAT csv, HEADER)", file.display());
    served.asked_by(command.args(["-c", &copy]));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "n,note\n0,\"note, 0\"\n1,\n2,\n3,\"note, 3\"\n");
    let text = served.asked_by(psql().unwrap().args(["-c", &format!("\\copy ({sql}) TO STDOUT")]));
    assert_eq!(text, "0\tnote, 0\n1\t\\N\n2\t\\N\n3\tnote, 3\n");
}

#[test]
fn what_grafana_asks_is_answered() {
    let Some(mut command) = psql() else { return };
    let served = served();
    let said = served.asked_by(command.arg("-f").arg(folder().join("grafana.sql")));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["1", "1600"], "{said}");
    for expected in ["test.reading", "traffic.flow", "cairn.anchors", "sensor|text", "at|timestamp with time zone"] {
        assert!(lines.contains(&expected), "{expected:?} is missing in {said}");
    }
    assert!(lines.iter().any(|line| line.starts_with("1700000040")), "{said}");
}

#[test]
fn psycopg_asks() {
    let Some(mut command) = python("psycopg_client.py") else { return };
    served().asked_by(&mut command);
}

#[test]
fn sqlalchemy_lists_and_asks() {
    let Some(mut command) = python("sqlalchemy_client.py") else { return };
    served().asked_by(&mut command);
}

#[test]
fn pgjdbc_asks() {
    let Some(mut command) = client("java", Some(Path::new("Postgres"))) else { return };
    served().asked_by(&mut command);
}

#[test]
fn what_dbeaver_asks_is_answered() {
    let Some(mut command) = client("java", Some(Path::new("Postgres"))) else { return };
    let said = served().asked_by(command.arg(folder().join("dbeaver.sql")));
    assert!(said.lines().count() > 15, "{said}");
    assert!(said.contains("ok 200 rows: SELECT x.* FROM traffic.flow x"), "{said}");
}

#[test]
fn adbc_in_python_asks_by_flight_sql() {
    let Some(mut command) = python("adbc_client.py") else { return };
    served().asked_by(&mut command);
}

#[test]
fn adbc_in_go_asks_by_flight_sql() {
    let Some(mut command) = client("go", None) else { return };
    served().asked_by(&mut command);
}

#[test]
fn the_flight_sql_jdbc_driver_asks() {
    let Some(mut command) = client("java", Some(Path::new("FlightSql"))) else { return };
    served().asked_by(&mut command);
}

/// The script that docs/analyst offers to start from, as it stands there.
#[test]
fn the_analysts_script_runs() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/analyst/start.py");
    let Some(mut command) = client("python", Some(&script)) else { return };
    let said = served().asked_by(&mut command);
    assert!(said.contains("VERIFIED: the record at traffic.flow partition"), "{said}");
}

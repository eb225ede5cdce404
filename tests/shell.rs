//! `cairn sql` without a statement: what a pipe holds, what a person types, and answers as files of columns.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{Array as _, Int64Array, RecordBatch};
use arrow::ipc::reader::FileReader;
use common::streams::{STREAM, csv, register};
use common::{Network, describe, run};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const ROWS: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `cairn sql` over a pipe.
fn piped(network: &Network, arguments: &[&str], text: &str) -> Output {
    let mut command = network.command("sql");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn statements_come_from_a_pipe_and_answers_go_to_files() {
    let network = Network::new(false);
    let _up = network.up();
    register(&network, "avro");
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(&network, 0..ROWS)));
    network.wait_anchored(60);

    a_pipe_is_read_statement_by_statement(&network);
    answers_are_written_as_columns(&network);
    a_person_types(&network);
}

fn a_pipe_is_read_statement_by_statement(network: &Network) {
    let text =
        "-- a report\nSELECT count(*) AS n\nFROM test.reading;\n\\format csv\nSELECT ';' AS a, 1 AS b; SELECT 2 AS c";
    let output = piped(network, &["--format", "json"], text);
    assert!(output.status.success(), "{}", describe(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("\"n\": {ROWS}")) && said.ends_with("a,b\n;,1\nc\n2\n"), "{said}");

    let output =
        piped(network, &["--format", "csv"], "SELECT 1 AS a; SELECT nothing FROM test.reading; SELECT 3 AS c;");
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    let said = describe(&output);
    assert!(said.contains("a\n1\n") && said.contains("42703") && !said.contains("c\n3"), "{said}");

    let file = network.scratch("listed.csv");
    let text = format!(
        "\\o {}\n\\format csv\nSELECT n FROM test.reading WHERE n < 2 ORDER BY n;\n\\o\n\\d test.reading\n",
        file.display()
    );
    let output = piped(network, &[], &text);
    assert!(output.status.success(), "{}", describe(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "n\n0\n1\n");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("sensor,text,") && said.contains("at,timestamp with time zone,"), "{said}");
    let output = piped(network, &[], "\\d test.nothing\n");
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    let nothing = network.command("sql").output().unwrap();
    assert!(nothing.status.success() && nothing.stdout.is_empty(), "{}", describe(&nothing));
}

fn answers_are_written_as_columns(network: &Network) {
    let (parquet, arrow) = (network.scratch("all.parquet"), network.scratch("all.arrow"));
    let sql = "SELECT n, sensor, at, value, note FROM test.reading ORDER BY n";
    let said = run(network.command("sql").arg("--output").arg(&parquet).arg(sql));
    assert!(said.contains(&format!("{ROWS} rows in ")), "{said}");
    run(network.command("sql").arg("--output").arg(&arrow).arg(sql));
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&parquet).unwrap()).unwrap();
    let said = reader.metadata().file_metadata().key_value_metadata().unwrap();
    assert!(said.iter().any(|pair| pair.key == "cairn.height"), "{said:?}");
    let of_parquet: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let reader = FileReader::try_new(std::fs::File::open(&arrow).unwrap(), None).unwrap();
    assert!(reader.schema().metadata().contains_key("cairn.height"));
    let of_arrow: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    for batches in [of_parquet, of_arrow] {
        let numbers: Vec<i64> = batches
            .iter()
            .flat_map(|batch| batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec())
            .collect();
        assert_eq!(numbers, (0..i64::try_from(ROWS).unwrap()).collect::<Vec<_>>());
        assert_eq!(batches.iter().map(|batch| batch.column(3).null_count()).sum::<usize>(), 100);
    }

    // At a block, by the shell's own setting; and an answer that fails leaves what was there.
    let text = format!("SET cairn.as_of = 1;\n\\o {}\nSELECT cairn_height() AS h;\n", arrow.display());
    let output = piped(network, &[], &text);
    assert!(output.status.success(), "{}", describe(&output));
    let mut reader = FileReader::try_new(std::fs::File::open(&arrow).unwrap(), None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert_eq!(batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0), 1);
    let before = std::fs::read(&arrow).unwrap();
    let failed =
        network.command("sql").arg("--output").arg(&arrow).arg("SELECT 1 / (n - 999) FROM test.reading").output();
    let failed = failed.unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", describe(&failed));
    assert_eq!(std::fs::read(&arrow).unwrap(), before);
    let wrong = network.command("sql").args(["--output", "all.txt", "SELECT 1"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", describe(&wrong));
}

/// A terminal of its own, by util-linux's `script`.
struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn open(command: &str, state: &Path) -> Self {
        let mut script = Command::new("script");
        script.args(["-q", "-e", "-c", command, "/dev/null"]).env("XDG_STATE_HOME", state).env("TERM", "xterm");
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut output, into) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Self { child, shown }
    }

    /// Types a line once the shell waits for one: what is typed while it does not is lost.
    fn send(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.waits() {
            assert!(Instant::now() < deadline, "no prompt: {}", self.shown.lock().unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
        self.shown.lock().unwrap().push('\n');
        self.press(text);
    }

    /// Whether the last that is shown, but for what moves the cursor, is a prompt.
    fn waits(&self) -> bool {
        let shown = self.shown.lock().unwrap();
        let last = shown.rsplit('\n').next().unwrap_or_default();
        last.contains("cairn=> ") || last.contains("cairn-> ")
    }

    fn press(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn shows(&self, text: &str) -> bool {
        self.shown.lock().unwrap().contains(text)
    }

    /// Waits for a text, and does something now and then until it is there.
    fn wait_for(&mut self, text: &str, mut meanwhile: impl FnMut(&mut Self)) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shows(text) {
            assert!(Instant::now() < deadline, "{text:?} is not shown: {}", self.shown.lock().unwrap());
            std::thread::sleep(Duration::from_millis(500));
            if !self.shows(text) {
                meanwhile(self);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its shell ends when its terminal does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn a_person_types(network: &Network) {
    if Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("skipped: script(1), which makes a terminal, is not here");
        return;
    }
    let state = network.scratch("state");
    // The terminal that `script` makes has no size.
    let command = format!(
        "stty cols 120 rows 40; exec '{}' sql --dir '{}'",
        env!("CARGO_BIN_EXE_cairn"),
        network.dir().display()
    );
    let mut terminal = Terminal::open(&command, &state);
    terminal.wait_for("cairn=> ", |_| {});
    terminal.send("SELECT 6 *\n");
    terminal.wait_for("cairn-> ", |_| {});
    terminal.send("7 AS answer;\n");
    terminal.wait_for("1 rows", |_| {});
    assert!(terminal.shows("42"), "{}", terminal.shown.lock().unwrap());
    terminal.send("SELECT nothing FROM test.reading;\n");
    terminal.wait_for("SQLSTATE 42703", |_| {});
    terminal.send("\\d test.reading\n");
    terminal.wait_for("timestamp with time zone", |_| {});
    terminal.send("SELECT x FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE x * y = 7 AND x + y < 0;\n");
    terminal.wait_for("SQLSTATE 57014", |terminal| terminal.press("\u{3}"));
    terminal.send("SELECT 'goes ' || 'on' AS still;\n");
    terminal.wait_for("goes on", |_| {});
    terminal.send("\\q\n");
    let deadline = Instant::now() + PATIENCE;
    while terminal.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end: {}", terminal.shown.lock().unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    let history = state.join("cairn/sql_history");
    assert_eq!(std::fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&history).unwrap().contains("SELECT 6 * 7 AS answer;"));
}

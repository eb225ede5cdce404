//! The Postgres port with a real driver: parameters, notices, errors, transactions, limits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common;
use cairn_query::{QueryConfig, QueryService, RunningQuery, StartError, WithoutPassword};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

struct Connected {
    client: Client,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Connected {
    fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap())
    }
}

async fn connect_as(running: &RunningQuery, options: &str) -> Result<Connected, tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={} user=analyst dbname=cairn {options}", running.addr.port());
    let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await?;
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&notices);
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                heard.lock().unwrap().push(format!("{}: {}", notice.severity(), notice.message()));
            }
        }
    });
    Ok(Connected { client, notices })
}

async fn connect(running: &RunningQuery) -> Connected {
    connect_as(running, "").await.unwrap()
}

async fn serve_with(city: &common::City, config: QueryConfig) -> RunningQuery {
    let without_password = WithoutPassword::Loopback;
    QueryService::serve(city.engine_with(QueryConfig { port: 0, without_password, ..config })).await.unwrap()
}

async fn serve(city: &common::City) -> RunningQuery {
    serve_with(city, QueryConfig::default()).await
}

fn state(error: &tokio_postgres::Error) -> SqlState {
    error.code().unwrap_or_else(|| panic!("no SQLSTATE: {error:?}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_parameters_and_types() {
    let city = common::city().await;
    let running = serve(&city).await;
    let db = connect(&running).await;
    let rows = db
        .client
        .query(
            "SELECT detector, vehicles, speed_kmh, _partition, _offset, _block FROM traffic.flow \
             WHERE vehicles > $1 AND detector = $2 ORDER BY vehicles",
            &[&10_i32, &"D1"],
        )
        .await
        .unwrap();
    let found: Vec<(String, i32, Option<f64>, i32, i64, i64)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5))).collect();
    assert_eq!(found, [("D1".into(), 30, None, 0, 2, 2), ("D1".into(), 40, Some(51.5), 0, 3, 4)]);

    let statement =
        db.client.prepare("SELECT count(*) FROM traffic.flow WHERE _offset >= $1 AND speed_kmh < $2").await.unwrap();
    assert_eq!(statement.params(), &[Type::INT8, Type::FLOAT8]);
    for (offset, expected) in [(0_i64, 4_i64), (3, 2), (100, 0)] {
        let row = db.client.query_one(&statement, &[&offset, &75.0_f64]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), expected, "offset {offset}");
    }

    let rows =
        db.client.query("SELECT $1::int8 + 1, $2::text || 'x', $3::bool", &[&41_i64, &"y", &true]).await.unwrap();
    assert_eq!(
        (rows[0].get::<_, i64>(0), rows[0].get::<_, String>(1), rows[0].get::<_, bool>(2)),
        (42, "yx".into(), true)
    );

    let nothing: Option<i32> = None;
    let rows = db.client.query("SELECT vehicles FROM traffic.flow WHERE vehicles = $1", &[&nothing]).await.unwrap();
    assert!(rows.is_empty(), "NULL equals nothing");

    let rows = db
        .client
        .query("SELECT vehicles FROM traffic.flow WHERE vehicles = ANY($1) ORDER BY 1", &[&vec![7_i32, 8, 9]])
        .await
        .unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), [7, 8]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_columns_come_as_composites_arrays_and_json() {
    let city = common::city().await;
    let running = serve(&city).await;
    let db = connect(&running).await;
    let messages = db
        .client
        .simple_query("SELECT meter, flags, registers FROM energy.meter_reading ORDER BY _offset")
        .await
        .unwrap();
    let rows: Vec<Vec<Option<String>>> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..3).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        })
        .collect();
    assert_eq!(rows.len(), 2);
    assert!(rows[0][0].as_deref().unwrap().contains("M1"), "{rows:?}");
    assert_eq!(rows[0][1].as_deref(), Some("{a,b}"));
    assert_eq!(rows[0][2].as_deref(), Some(r#"{"day":1,"night":2}"#));
    let rows =
        db.client.query("SELECT flags, registers FROM energy.meter_reading ORDER BY _offset", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, Vec<String>>(0), ["a", "b"]);
    assert_eq!(rows[1].get::<_, String>(1), "{}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_names_its_height() {
    let city = common::city().await;
    let running = serve(&city).await;
    let db = connect(&running).await;
    db.client.simple_query("SELECT count(*) FROM traffic.flow").await.unwrap();
    assert_eq!(db.notices(), ["NOTICE: cairn: computed at block 6"]);
    db.client.query("SELECT count(*) FROM traffic.flow AS OF 2", &[]).await.unwrap();
    assert_eq!(db.notices(), ["NOTICE: cairn: computed at block 2"]);
    db.client.simple_query("SET cairn.as_of = 3; SELECT max(block) FROM cairn.blocks").await.unwrap();
    assert_eq!(db.notices(), ["NOTICE: cairn: computed at block 3"]);
    let row = db.client.query_one("SELECT cairn_height()", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 3);
    assert_eq!(db.notices(), ["NOTICE: cairn: computed at block 3"]);

    // What does not come from the chain has no height; nor is anyone told who does not want to be.
    db.client.simple_query("SELECT 1; SHOW cairn.as_of; SELECT relname FROM pg_catalog.pg_class").await.unwrap();
    assert!(db.notices().is_empty());
    db.client.simple_query("SET client_min_messages = warning; SELECT count(*) FROM traffic.flow").await.unwrap();
    assert!(db.notices().is_empty());

    let late = connect_as(&running, "options='-c cairn.as_of=4'").await.unwrap();
    let row = late.client.query_one("SELECT count(*) FROM traffic.flow", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 9);
    assert_eq!(late.notices(), ["NOTICE: cairn: computed at block 4"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_codes_and_the_connection_lives() {
    let city = common::city().await;
    let running = serve(&city).await;
    let db = connect(&running).await;
    for (sql, expected) in [
        ("SELECT * FROM traffic.flw", SqlState::UNDEFINED_TABLE),
        ("SELECT vehicle FROM traffic.flow", SqlState::UNDEFINED_COLUMN),
        ("SELECT 1 / 0", SqlState::DIVISION_BY_ZERO),
        ("SELEC 1", SqlState::SYNTAX_ERROR),
        ("DROP TABLE traffic.flow", SqlState::READ_ONLY_SQL_TRANSACTION),
        ("INSERT INTO traffic.flow SELECT * FROM traffic.flow", SqlState::READ_ONLY_SQL_TRANSACTION),
        ("COPY traffic.flow TO '/tmp/x'", SqlState::INSUFFICIENT_PRIVILEGE),
        ("COPY traffic.flow FROM STDIN", SqlState::INSUFFICIENT_PRIVILEGE),
        ("SET cairn.as_of = 7", SqlState::INVALID_PARAMETER_VALUE),
        ("SET datafusion.runtime.memory_limit = '1T'", SqlState::UNDEFINED_OBJECT),
    ] {
        let error = db.client.simple_query(sql).await.expect_err(sql);
        assert_eq!(state(&error), expected, "simple: {sql}");
        let error = db.client.query(sql, &[]).await.expect_err(sql);
        assert_eq!(state(&error), expected, "extended: {sql}");
    }
    let error = db.client.query("SELECT vehicle FROM traffic.flow", &[]).await.expect_err("no such column");
    assert_eq!(error.as_db_error().unwrap().hint(), Some("did you mean vehicles?"));

    // The statements before the failing one are answered.
    let messages = db.client.simple_query("SELECT 1; SELECT 2").await.unwrap();
    assert_eq!(messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count(), 2);
    let error = db.client.simple_query("SELECT 1; SELECT * FROM nowhere.x; SELECT 3").await.expect_err("unknown table");
    assert_eq!(state(&error), SqlState::UNDEFINED_TABLE);

    let row = db.client.query_one("SELECT count(*) FROM traffic.flow", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 9);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_segment_is_an_error_of_the_statement_alone() {
    let city = common::city().await;
    let segment = city.segment("traffic.flow", 0, 0);
    let mut altered = std::fs::read(&segment).unwrap();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    std::fs::write(&segment, altered).unwrap();
    let running = serve(&city).await;
    let db = connect(&running).await;
    for _ in 0..2 {
        let error = db.client.query("SELECT sum(vehicles) FROM traffic.flow", &[]).await.expect_err("altered");
        assert_eq!(state(&error), SqlState::DATA_CORRUPTED);
        let message = error.as_db_error().unwrap().message().to_owned();
        assert!(message.contains("stream traffic.flow, partition 0, offsets 0 to 2"), "{message}");
        let row = db.client.query_one("SELECT count(*) FROM energy.meter_reading", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 2);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_hold_one_height_and_end_after_errors() {
    let city = common::city().await;
    let running = serve(&city).await;
    let mut db = connect(&running).await;
    let transaction = db.client.transaction().await.unwrap();
    assert_eq!(transaction.query("SELECT * FROM traffic.flow", &[]).await.unwrap().len(), 9);
    let portal_statement = transaction.prepare("SELECT vehicles FROM traffic.flow ORDER BY 1").await.unwrap();
    let portal = transaction.bind(&portal_statement, &[]).await.unwrap();
    let mut seen = Vec::new();
    for expected in [4, 4, 1, 0] {
        let rows = transaction.query_portal(&portal, 4).await.unwrap();
        assert_eq!(rows.len(), expected);
        seen.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
    }
    assert_eq!(seen, [1, 2, 7, 8, 10, 20, 30, 40, 50]);
    transaction.commit().await.unwrap();

    let transaction = db.client.transaction().await.unwrap();
    transaction.query("SELECT * FROM nowhere.x", &[]).await.expect_err("unknown table");
    let error = transaction.query("SELECT 1", &[]).await.expect_err("aborted");
    assert_eq!(state(&error), SqlState::IN_FAILED_SQL_TRANSACTION);
    transaction.rollback().await.unwrap();
    db.client.query("SELECT 1", &[]).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_stream() {
    let city = common::city().await;
    let running = serve_with(&city, QueryConfig { answer_mib_max: 1, ..QueryConfig::default() }).await;
    let db = connect(&running).await;
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = db
        .client
        .query_raw("SELECT a.x, b._offset FROM generate_series(1, 20000) a(x) CROSS JOIN traffic.flow b", none)
        .await
        .unwrap();
    let count = rows.try_fold(0_usize, |count, _| async move { Ok(count + 1) }).await.unwrap();
    assert_eq!(count, 180_000);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_end_in_time_or_when_cancelled() {
    let endless =
        "SELECT count(*) FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE x * y = 7";
    let city = common::city().await;
    let running = serve(&city).await;
    let db = connect(&running).await;
    db.client.simple_query("SET statement_timeout = '200ms'").await.unwrap();
    let error = db.client.simple_query(endless).await.expect_err("too long");
    assert_eq!(state(&error), SqlState::QUERY_CANCELED);
    assert!(error.as_db_error().unwrap().message().contains("statement timeout"), "{error:?}");
    db.client.simple_query("RESET statement_timeout").await.unwrap();

    let token = db.client.cancel_token();
    let cancel = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await.unwrap();
    });
    let error = tokio::time::timeout(Duration::from_secs(20), db.client.query(endless, &[]))
        .await
        .expect("cancelled in time")
        .expect_err("cancelled");
    assert_eq!(state(&error), SqlState::QUERY_CANCELED);
    assert!(error.as_db_error().unwrap().message().contains("user request"), "{error:?}");
    cancel.await.unwrap();
    db.client.query("SELECT 1", &[]).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_when_its_client_is_gone() {
    let endless =
        "SELECT count(*) FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE x * y = 7";
    let city = common::city().await;
    let config = QueryConfig { statements_max: 1, ..QueryConfig::default() };
    let running = serve_with(&city, config).await;
    let config = format!("host=127.0.0.1 port={} user=analyst", running.addr.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let socket = tokio::spawn(connection);
    let asked = tokio::time::timeout(Duration::from_millis(500), client.simple_query(endless)).await;
    assert!(asked.is_err(), "it runs");
    // Another one waits for its turn, and is told so when its time is over.
    let other = connect(&running).await;
    other.client.simple_query("SET statement_timeout = '1s'").await.unwrap();
    let error = other.client.simple_query("SELECT 1").await.expect_err("no turn");
    assert_eq!(state(&error).code(), "53000", "{error:?}");
    assert!(error.as_db_error().unwrap().message().contains("statements_max"), "{error:?}");

    // The socket closes without a word.
    socket.abort();
    other.client.simple_query("SET statement_timeout = '30s'").await.unwrap();
    other.client.simple_query("SELECT 1").await.expect("the first statement ended with its client");
    assert_eq!(running.engine().metrics().statements("cancelled"), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_bytes_out_have_bounds() {
    let city = common::city().await;
    let config = QueryConfig { rows_out_max: 100, mib_out_max: 1, ..QueryConfig::default() };
    let running = serve_with(&city, config).await;
    let db = connect(&running).await;
    for (query, key) in [
        ("SELECT * FROM generate_series(1, 101)", "rows_out_max = 100"),
        ("SELECT repeat('x', 20000) FROM generate_series(1, 100)", "mib_out_max = 1"),
    ] {
        let error = db.client.simple_query(query).await.expect_err(query);
        assert_eq!(state(&error), SqlState::PROGRAM_LIMIT_EXCEEDED, "{error:?}");
        assert!(error.as_db_error().unwrap().message().contains(key), "{error:?}");
    }
    let rows = db.client.query("SELECT * FROM generate_series(1, 100)", &[]).await.unwrap();
    assert_eq!(rows.len(), 100);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_said_on_the_wire() {
    let city = common::city().await;
    std::fs::remove_file(city.segment("traffic.flow", 0, 3)).unwrap();
    let running = serve(&city).await;
    let db = connect_as(&running, "options='-c cairn.on_unverified=exclude'").await.unwrap();
    let rows = db.client.query("SELECT * FROM traffic.flow", &[]).await.unwrap();
    assert_eq!(rows.len(), 7);
    let notices = db.notices().join("\n");
    for part in
        ["WARNING: cairn: 1 segments with 2 records", "WARNING: cairn: left out: stream traffic.flow, partition 0"]
    {
        assert!(notices.contains(part), "{part:?} is missing in {notices}");
    }
    let listed = db.client.query("SELECT what, since FROM cairn.problems", &[]).await;
    assert_eq!(listed.unwrap().len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_behind_is_told_by_its_blocks_time() {
    let city = common::city().await;
    let running = serve(&city).await;
    let db = connect(&running).await;
    // The city's newest block is of the new year of 2026.
    db.client.simple_query("SET cairn.max_staleness = '1min'").await.unwrap();
    let error = db.client.simple_query("SELECT count(*) FROM traffic.flow").await.expect_err("an old block");
    assert_eq!(state(&error), SqlState::CANNOT_CONNECT_NOW);
    assert!(error.as_db_error().unwrap().message().contains("cairn.max_staleness allows 60000 ms"), "{error:?}");
    // Who names a height wants that one, however old.
    db.client.simple_query("SELECT count(*) FROM traffic.flow AS OF 4").await.unwrap();
    db.client.simple_query("SET cairn.max_staleness = '100000d'").await.unwrap();
    db.client.simple_query("SELECT count(*) FROM traffic.flow").await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_too_many_is_told_so() {
    let city = common::city().await;
    let running = serve_with(&city, QueryConfig { connections_max: 2, ..QueryConfig::default() }).await;
    let first = connect(&running).await;
    let _second = connect(&running).await;
    let error = connect_as(&running, "").await.err().expect("the third is one too many");
    assert_eq!(state(&error), SqlState::TOO_MANY_CONNECTIONS);
    first.client.query("SELECT 1", &[]).await.unwrap();
    drop(first);
    for _ in 0..100 {
        if connect_as(&running, "").await.is_ok() {
            running.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a place is free once a client is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_what_to_change() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let city = common::city().await;
    let config = QueryConfig { port, bind_retry_ms: 300, ..QueryConfig::default() };
    let error = QueryService::serve(city.engine_with(config.clone())).await.expect_err("the port is taken");
    let text = error.to_string();
    for part in ["query", &format!("127.0.0.1:{port}"), "in use", "[query.postgres] port"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert!(matches!(error, StartError::Listen { .. }));

    // A port that gets free in time is taken.
    let config = QueryConfig { bind_retry_ms: 5_000, ..config };
    let freed = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(taken);
    });
    let running = QueryService::serve(city.engine_with(config)).await.unwrap();
    freed.await.unwrap();
    assert_eq!(running.addr.port(), port);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_connections_and_frees_the_port() {
    let city = common::city().await;
    let running = serve(&city).await;
    let addr = running.addr;
    let db = connect(&running).await;
    tokio::time::timeout(Duration::from_secs(5), running.stop()).await.expect("it stops with clients connected");
    assert!(db.client.query("SELECT 1", &[]).await.is_err());
    tokio::net::TcpListener::bind(addr).await.expect("the port is free");
}

/// psql itself, where it is installed: `\d` in its forms, an error's hint, the notice.
#[tokio::test(flavor = "multi_thread")]
async fn psql_lists_and_describes() {
    let Some(psql) =
        ["/usr/bin/psql", "/usr/local/bin/psql"].into_iter().find(|path| std::path::Path::new(path).exists())
    else {
        println!("SKIPPED: psql is not installed");
        return;
    };
    let city = common::city().await;
    let running = serve(&city).await;
    let port = running.addr.port().to_string();
    let run = async |command: &str| {
        let output = tokio::process::Command::new(psql)
            .args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "analyst", "-d", "cairn", "-c", command])
            .env("PGCONNECT_TIMEOUT", "10")
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let (out, err) = run("\\d").await;
    assert!(err.is_empty(), "{err}");
    let (out_all, err) = run("\\dt *.*").await;
    assert!(err.is_empty(), "{err}");
    for (schema, table) in [("traffic", "flow"), ("energy", "meter_reading"), ("emergency", "incident")] {
        assert!(out_all.lines().any(|line| line.contains(schema) && line.contains(table)), "{out}\n{out_all}");
    }
    let (out, err) = run("\\d traffic.flow").await;
    assert!(err.is_empty(), "{err}");
    for column in ["detector", "vehicles", "speed_kmh", "_offset", "_block", "double precision", "timestamp"] {
        assert!(out.contains(column), "{column}: {out}");
    }
    let (out, err) = run("\\d cairn.anchors").await;
    assert!(err.is_empty() && out.contains("records_root"), "{out}{err}");
    let (out, err) = run("\\dn").await;
    assert!(err.is_empty() && out.contains("traffic") && out.contains("cairn"), "{out}{err}");
    let (out, err) = run("SELECT sum(vehicles) AS s FROM traffic.flow").await;
    assert!(out.contains("168"), "{out}");
    assert_eq!(err.trim(), "NOTICE:  cairn: computed at block 6");
    let (_, err) = run("SELECT vehicle FROM traffic.flow").await;
    assert!(err.contains("does not exist") && err.contains("HINT:  did you mean vehicles?"), "{err}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_copied_out_and_a_copy_that_fails_says_so() {
    let city = common::city().await;
    let running = serve(&city).await;
    let db = connect(&running).await;
    let copied = async |sql: &str| -> Result<String, tokio_postgres::Error> {
        let chunks: Vec<bytes::Bytes> = db.client.copy_out(sql).await?.try_collect().await?;
        Ok(String::from_utf8(chunks.concat()).unwrap())
    };
    let query = "SELECT detector, speed_kmh FROM traffic.flow WHERE _partition = 0 AND _offset > 2 ORDER BY _offset";
    assert_eq!(copied(&format!("COPY ({query}) TO STDOUT")).await.unwrap(), "D1\t51.5\nD2\t\\N\n");
    let csv = copied(&format!("COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER)")).await.unwrap();
    assert_eq!(csv, "detector,speed_kmh\nD1,51.5\nD2,\n");
    let error = copied("COPY (SELECT 1 / (vehicles - 50) FROM traffic.flow) TO STDOUT").await.expect_err("it fails");
    assert_eq!(state(&error), SqlState::DIVISION_BY_ZERO);
    let error = db.client.simple_query("SELECT 1; COPY (SELECT 2) TO STDOUT").await.expect_err("not by itself");
    assert_eq!(state(&error), SqlState::FEATURE_NOT_SUPPORTED);
    assert_eq!(copied("COPY emergency.incident (id) TO STDOUT").await.unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_goes_on_from_a_savepoint() {
    let city = common::city().await;
    let running = serve(&city).await;
    let db = connect(&running).await;
    let outside = db.client.batch_execute("SAVEPOINT a").await.expect_err("no transaction");
    assert_eq!(outside.code().unwrap().code(), "25P01");
    for simple in [true, false] {
        let run = async |sql: &str| match simple {
            true => db.client.simple_query(sql).await.map(drop),
            false => db.client.query(sql, &[]).await.map(drop),
        };
        run("BEGIN").await.unwrap();
        run("SAVEPOINT a").await.unwrap();
        run("SELECT 1 / 0").await.expect_err("an error");
        let aborted = run("SELECT 1").await.expect_err("the transaction failed");
        assert_eq!(aborted.code().unwrap().code(), "25P02");
        run("ROLLBACK TO a").await.unwrap();
        run("SELECT 1").await.unwrap();
        run("RELEASE a").await.unwrap();
        run("COMMIT").await.unwrap();
    }
}

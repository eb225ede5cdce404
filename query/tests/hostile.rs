//! Statements that must never reach files, the network, the store past the catalogue, or the server's memory.

use std::time::Duration;

use crate::common;
use cairn_query::{QueryConfig, QueryErrorKind};

/// Statements that would write, read files, call out, or change the server, in every spelling that the parser knows.
const REFUSED: &[&str] = &[
    // Writes.
    "INSERT INTO traffic.flow VALUES ('D9', 1, 1.0, NULL, 0, 9, now(), 9)",
    "INSERT INTO cairn.anchors SELECT * FROM cairn.anchors",
    "UPDATE traffic.flow SET vehicles = 0",
    "DELETE FROM traffic.flow",
    "TRUNCATE traffic.flow",
    "MERGE INTO traffic.flow USING cairn.anchors ON true WHEN MATCHED THEN DELETE",
    "WITH x AS (DELETE FROM traffic.flow RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO traffic.flow SELECT * FROM traffic.flow RETURNING *) SELECT * FROM x",
    "SELECT * INTO copied FROM traffic.flow",
    "SELECT * FROM traffic.flow FOR UPDATE",
    "EXPLAIN INSERT INTO traffic.flow SELECT * FROM traffic.flow",
    "EXPLAIN ANALYZE DELETE FROM traffic.flow",
    // Definitions.
    "CREATE TABLE t (a int)",
    "CREATE TABLE t AS SELECT * FROM traffic.flow",
    "CREATE TEMP TABLE t (a int)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE INDEX i ON traffic.flow (detector)",
    "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION dblink",
    "CREATE ROLE r",
    "ALTER TABLE traffic.flow ADD COLUMN a int",
    "DROP TABLE traffic.flow",
    "DROP SCHEMA traffic CASCADE",
    "GRANT SELECT ON traffic.flow TO public",
    "COMMENT ON TABLE traffic.flow IS 'x'",
    // Files, programs, network.
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'file:///etc/'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'cairn-verified://segments/'",
    "CREATE UNBOUNDED EXTERNAL TABLE t STORED AS JSON LOCATION 'http://127.0.0.1/'",
    "COPY traffic.flow TO '/tmp/out.csv'",
    "COPY (SELECT 1) TO 'file:///tmp/out.parquet' STORED AS PARQUET",
    "COPY traffic.flow FROM '/etc/passwd'",
    "COPY traffic.flow FROM PROGRAM 'id'",
    "COPY traffic.flow TO STDOUT (FORMAT binary)",
    "COPY (DELETE FROM traffic.flow) TO STDOUT",
    "COPY traffic.flow FROM STDIN",
    "LOAD DATA INPATH '/etc/passwd' INTO TABLE t",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM \"/etc/passwd\"",
    "SELECT * FROM 'file:///etc/passwd'",
    "SELECT * FROM \"segments/traffic.flow/0\"",
    "SELECT * FROM \"cairn-verified://segments/\"",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('segments')",
    "SELECT * FROM parquet_metadata('segments')",
    "SELECT * FROM cairn.public.\"/etc/passwd\"",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT dblink('host=127.0.0.1', 'SELECT 1')",
    "SELECT pg_sleep(1000)",
    "SELECT set_config('cairn.as_of', '1', false)",
    // Settings and session tricks.
    "SET datafusion.runtime.temp_directory = '/'",
    "SET datafusion.runtime.memory_limit = '1T'",
    "SET datafusion.catalog.location = '/etc'",
    "SET datafusion.catalog.default_catalog = 'other'",
    "SET datafusion.execution.parquet.pushdown_filters = true",
    "RESET datafusion.runtime.memory_limit",
    "SHOW datafusion.runtime.temp_directory",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SET default_transaction_read_only = off",
    "SET transaction_read_only = off",
    "BEGIN; SET TRANSACTION READ WRITE",
    "PREPARE p AS DELETE FROM traffic.flow",
    "EXECUTE p",
    "CALL f()",
    "DO $$ BEGIN END $$",
    "LOCK TABLE traffic.flow",
    "VACUUM",
    "ANALYZE traffic.flow",
    "CHECKPOINT",
    "NOTIFY x",
    "KILL 1",
    "USE other",
    "ATTACH DATABASE '/tmp/x' AS x",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA x",
    "DECLARE c CURSOR FOR DELETE FROM traffic.flow",
    "SELECT 1; DROP TABLE traffic.flow",
];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_statements_are_refused_and_the_session_goes_on() {
    let city = common::city().await;
    let before = common_files(&city);
    let session = city.engine().session().unwrap();
    for statement in REFUSED {
        let error = match session.sql(statement).await {
            Err(error) => error,
            Ok(answer) => panic!("{statement}: gave {} rows", answer.rows()),
        };
        assert!(
            matches!(error.kind, QueryErrorKind::Statement | QueryErrorKind::NotAllowed),
            "{statement}: {:?} {error}",
            error.kind
        );
        assert_ne!(error.state.0, "XX000", "{statement}: {error}");
    }
    let answer = session.sql("SELECT count(*) FROM traffic.flow").await.unwrap();
    assert_eq!(answer.rows(), 1);
    assert_eq!(common_files(&city), before, "nothing was written or removed");
}

fn common_files(city: &common::City) -> Vec<(std::path::PathBuf, u64)> {
    fn walk(folder: &std::path::Path, found: &mut Vec<(std::path::PathBuf, u64)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                let length = path.metadata().unwrap().len();
                found.push((path, length));
            }
        }
    }
    let mut found = vec![];
    walk(city.folder.path(), &mut found);
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_have_bounds() {
    let city = common::city().await;
    let config = QueryConfig {
        memory_limit_mib: 16,
        statement_timeout_ms_max: 2_000,
        answer_mib_max: 1,
        statement_bytes_max: 100_000,
        ..QueryConfig::default()
    };
    let cases: &[(&str, String)] = &[
        ("54001", format!("SELECT {}", "1 + ".repeat(5_000) + "1")),
        ("54001", format!("SELECT {}1{}", "(".repeat(40_000), ")".repeat(40_000))),
        ("54001", format!("SELECT '{}'", "x".repeat(100_000))),
        ("54001", "SELECT 1 ".to_owned() + &"UNION ALL SELECT 1 ".repeat(2_000)),
        ("54001", format!("SELECT {}1", "NOT ".repeat(10_000))),
        ("54001", format!("SELECT {}1", "- ".repeat(10_000))),
        (
            "53200",
            "SELECT count(*) FROM (SELECT DISTINCT v * 7919 % 100000007 FROM generate_series(1, 20000000) AS s(v))"
                .to_owned(),
        ),
        (
            "57014",
            "SELECT count(*) FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE x * y = 7"
                .to_owned(),
        ),
        ("54000", "SELECT repeat('x', 1000) FROM generate_series(1, 100000)".to_owned()),
    ];
    for (state, statement) in cases {
        // A pool of its own for each: what a failed statement held is given back soon after its error, not before it.
        let engine = city.engine_with(config.clone());
        let session = engine.session().unwrap();
        let started = std::time::Instant::now();
        let error = session.sql(statement).await.map(|answer| answer.rows()).expect_err(&statement[..40]);
        assert_eq!(&error.state.0, state, "{}: {error}", &statement[..40.min(statement.len())]);
        assert_eq!(error.kind, QueryErrorKind::Limit, "{error}");
        assert!(started.elapsed() < Duration::from_secs(30), "{}", &statement[..40]);
        assert_eq!(session.sql("SELECT 1").await.unwrap().rows(), 1);
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_memory_spills_only_where_the_operator_says() {
    use std::os::unix::fs::PermissionsExt;

    let city = common::city().await;
    let folder = tempfile::tempdir().unwrap();
    let private = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    private(0o700);
    let sorted = "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY t DESC) AS n FROM \
                  (SELECT repeat('x', 20) || v::text AS t FROM generate_series(1, 1200000) AS s(v)))";
    let small = QueryConfig { memory_limit_mib: 40, parallelism: 1, ..QueryConfig::default() };
    let error = city.engine_with(small.clone()).sql(sorted, None).await.expect_err("it does not fit");
    assert_eq!(error.state.0, "53200", "{error}");

    let spilling = QueryConfig { spill_folder: Some(folder.path().to_owned()), ..small };
    let answer = city.engine_with(spilling.clone()).sql(sorted, None).await.unwrap();
    assert_eq!(answer.rows(), 1);
    // The folder itself is bounded too, and one that others can enter is not used at all.
    let bounded = QueryConfig { spill_mib_max: 1, ..spilling.clone() };
    assert!(city.engine_with(bounded).sql(sorted, None).await.is_err());
    private(0o755);
    let refused = city.try_engine_with(spilling).expect_err("others can enter it");
    assert!(refused.to_string().contains("chmod 0700"), "{refused}");
}

//! Which texts become which statements, and which are refused.

use super::*;

fn parse(text: &str) -> Result<Vec<Statement>> {
    StatementParser::new(1 << 20).parse(text)
}

fn one(text: &str) -> Statement {
    let mut statements = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(statements.len(), 1, "{text}");
    statements.remove(0)
}

#[test]
fn as_of_is_cut_out_wherever_it_stands() {
    for (text, kept) in [
        ("SELECT * FROM traffic.flow AS OF 12", "SELECT * FROM traffic.flow "),
        (
            "SELECT * FROM traffic.flow as of block 12 WHERE a = 'as of 3'",
            "SELECT * FROM traffic.flow  WHERE a = 'as of 3'",
        ),
        ("SELECT * FROM traffic.flow FOR VERSION AS OF 12 f", "SELECT * FROM traffic.flow  f"),
        (
            "SELECT *\n  FROM a.b AS OF 12 x\n  JOIN c.d\n AS OF 12 ON true",
            "SELECT *\n  FROM a.b  x\n  JOIN c.d\n  ON true",
        ),
        ("SELECT 'ä€', b FROM a.b AS OF 12", "SELECT 'ä€', b FROM a.b "),
    ] {
        let statement = one(text);
        assert_eq!(statement.as_of, Some(Height(12)), "{text}");
        assert_eq!(statement.text, kept, "{text}");
    }
}

#[test]
fn of_stays_an_ordinary_alias() {
    let statement = one("SELECT a AS of FROM x.y");
    assert_eq!(statement.as_of, None);
    assert_eq!(statement.text, "SELECT a AS of FROM x.y");
}

#[test]
fn two_heights_in_one_statement_are_refused_and_in_two_statements_are_not() {
    let error = parse("SELECT * FROM a.b AS OF 1 JOIN a.b AS OF 2 ON true").expect_err("two heights");
    assert!(error.message.contains("block 1 and block 2"), "{error}");
    let statements = parse("SELECT * FROM a.b AS OF 1; SELECT * FROM a.b AS OF 2;").expect("two statements");
    assert_eq!(statements.iter().map(|s| s.as_of).collect::<Vec<_>>(), [Some(Height(1)), Some(Height(2))]);
}

#[test]
fn a_height_must_be_a_whole_number() {
    for text in [
        "SELECT * FROM a.b FOR VERSION AS OF $1",
        "SELECT * FROM a.b AS OF BLOCK 'x'",
        "SELECT * FROM a.b AS OF 1.5",
        "SELECT * FROM a.b AS OF 99999999999999999999",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn settings_come_in_many_spellings() {
    for (text, name, value) in [
        ("SET cairn.as_of = 5", "cairn.as_of", Some("5")),
        ("SET cairn.as_of TO 'latest'", "cairn.as_of", Some("latest")),
        ("SET SESSION cairn.as_of = 5", "cairn.as_of", Some("5")),
        ("SET cairn.as_of TO DEFAULT", "cairn.as_of", None),
        ("RESET cairn.as_of", "cairn.as_of", None),
        ("SET statement_timeout = '3s'", "statement_timeout", Some("3s")),
        ("SET TIME ZONE 'Europe/Berlin'", "timezone", Some("Europe/Berlin")),
        ("SET search_path TO traffic, public", "search_path", Some("traffic, public")),
        ("SET NAMES 'UTF8'", "client_encoding", Some("UTF8")),
    ] {
        let Action::Set { name: found, value: set } = one(text).action else {
            panic!("{text}");
        };
        assert_eq!((found.as_str(), set.as_deref()), (name, value), "{text}");
    }
}

#[test]
fn what_drivers_send_is_understood() {
    for (text, tag) in [
        ("BEGIN", "BEGIN"),
        ("START TRANSACTION READ ONLY", "BEGIN"),
        ("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ", "BEGIN"),
        ("COMMIT", "COMMIT"),
        ("END", "COMMIT"),
        ("ROLLBACK", "ROLLBACK"),
        ("ABORT", "ROLLBACK"),
        ("DISCARD ALL", "DISCARD ALL"),
        ("DEALLOCATE ALL", "DEALLOCATE"),
        ("UNLISTEN *", "UNLISTEN"),
        ("RESET ALL", "RESET"),
        ("SHOW transaction_isolation", "SHOW"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "SHOW"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR"),
        ("DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT 1", "DECLARE CURSOR"),
        ("FETCH 10 FROM c", "FETCH"),
        ("FETCH FORWARD ALL FROM c", "FETCH"),
        ("CLOSE c", "CLOSE CURSOR"),
        ("EXPLAIN SELECT 1", "SELECT"),
        ("EXPLAIN ANALYZE SELECT 1", "SELECT"),
        ("VALUES (1), (2)", "SELECT"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "SELECT"),
    ] {
        assert_eq!(one(text).action.tag(), tag, "{text}");
    }
}

#[test]
fn a_query_over_records_never_takes_the_catalogues_dialect() {
    // That dialect replaces a correlated subquery in the projection by NULL.
    let text = "SELECT (SELECT max(b.x) FROM t.b WHERE b.y = a.y) FROM t.a";
    let Action::Read(ast) = one(text).action else {
        panic!("a query");
    };
    assert_eq!(ast.to_string(), text);
}

#[test]
fn long_chains_are_refused_before_they_are_planned() {
    let sum = format!("SELECT {}", vec!["1"; 2_000].join(" + "));
    let error = parse(&sum).expect_err("too many operators");
    assert_eq!(error.state, SqlState::TOO_COMPLEX);
    let deep = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let error = parse(&deep).expect_err("too many parentheses");
    assert_eq!(error.state, SqlState::TOO_COMPLEX, "{error}");
    let list = format!("SELECT 1 WHERE 1 IN ({})", vec!["1"; 10_000].join(", "));
    assert_eq!(parse(&list).expect("lists are flat").len(), 1);
}

#[test]
fn empty_texts_have_no_statements() {
    for text in ["", "  ", ";", ";;", "-- nothing\n", "/* nothing */;"] {
        assert_eq!(parse(text).expect(text).len(), 0, "{text:?}");
    }
}

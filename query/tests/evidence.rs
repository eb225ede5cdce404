//! Evidence of answers: what is signed, when there is none, and that a second run signs the same.
//!
//! What it is not: a test of the file with headers and certificate, which needs a chain: `tests/evidence.rs` at the top.

use std::sync::{Arc, Mutex};

use crate::common::{self, CHAIN, City, key};
use cairn_proof::answer::rows::{RowsHasher, float_bytes};
use cairn_proof::answer::{Answer, SignedAnswer};
use cairn_proof::cbor::Writer;
use cairn_proof::digest::sha256;
use cairn_proof::{Digest, Height, tree};
use cairn_query::{
    Engine, Equipment, FlightConfig, FlightSql, QueryConfig, QueryErrorKind, QueryService, Session, WithoutPassword,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_postgres::{AsyncMessage, NoTls};

const NODE: u8 = 40;

fn engine_with(city: &City, config: QueryConfig) -> Engine {
    let equipment = Equipment { signer: Some(Arc::new(key(NODE))), ..Equipment::default() };
    city.engine_with(config).equipped(equipment)
}

fn signing(engine: &Engine) -> Session {
    let session = engine.session().unwrap();
    session.set("cairn.evidence", Some("on")).unwrap();
    session
}

async fn session(city: &City) -> Session {
    signing(&engine_with(city, QueryConfig::default()))
}

/// What was signed last, once it verified.
fn last(session: &Session) -> Answer {
    let envelope = session.signed_answer("last").expect("there is evidence");
    let signed = SignedAnswer::decode(&envelope).unwrap();
    signed.verify(&key(NODE).public(), &CHAIN).unwrap();
    signed.into_answer()
}

/// The roots over rows as a test writes them: independently of the engine.
fn hash(ordered: bool, rows: &[&dyn Fn(&mut Writer<'_>)]) -> (Digest, Option<Digest>) {
    let mut hasher = RowsHasher::new(ordered);
    for row in rows {
        let mut bytes = Vec::new();
        row(&mut Writer::new(&mut bytes));
        hasher.row(&bytes);
    }
    let hash = hasher.finish();
    (hash.rows_root, hash.ordered_root)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_signed_with_all_that_it_follows_from() {
    let city = common::city().await;
    let session = session(&city).await;
    let sql = "SELECT detector, vehicles, speed_kmh FROM traffic.flow AS OF 5 WHERE _partition = 1 ORDER BY vehicles";
    assert_eq!(session.sql(sql).await.unwrap().rows(), 2);
    let answer = last(&session);
    assert_eq!(answer.node, key(NODE).identity());
    assert_eq!(
        answer.statement,
        "SELECT detector, vehicles, speed_kmh FROM traffic.flow  WHERE _partition = 1 ORDER BY vehicles",
        "the height stands beside it"
    );
    assert_eq!((answer.height, answer.block), (Height(5), sha256(&[b"block", &5_u64.to_be_bytes()])));
    let settings: Vec<_> = answer.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(settings, [("cairn.on_unverified", "refuse"), ("search_path", "public"), ("timezone", "UTC")]);
    let columns: Vec<_> = answer.columns.iter().map(|column| (column.name.as_str(), column.kind.as_str())).collect();
    assert_eq!(columns, [("detector", "text"), ("vehicles", "int32"), ("speed_kmh", "float64")]);
    // The one segment of partition 1, as its anchor has it.
    let entry = city.entries().iter().find(|entry| entry.anchor.partition.0 == 1).unwrap();
    let [segment] = answer.segments.as_slice() else { panic!("one segment: {:?}", answer.segments) };
    assert_eq!((&segment.path, segment.blake3), (&entry.anchor.segment.path, entry.anchor.segment.blake3));
    assert_eq!(segment.size, entry.anchor.segment.size);
    assert!(segment.bytes_verified > 0);
    let row = |vehicles: i64, speed: f64| {
        move |writer: &mut Writer<'_>| {
            writer.array(3);
            writer.text("D3");
            writer.signed(vehicles);
            writer.bytes(&float_bytes(speed));
        }
    };
    let (root, ordered) = hash(true, &[&row(1, 30.0), &row(2, 31.0)]);
    assert_eq!((answer.rows, answer.rows_root, answer.ordered_root), (2, root, ordered));
    assert!(answer.engine.starts_with("cairn ") && answer.engine.contains("datafusion "), "{}", answer.engine);
    assert!(answer.made_ms > 1_700_000_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_anchors_answer_names_its_segments_and_verifies_no_byte() {
    let city = common::city().await;
    let session = session(&city).await;
    session.sql("SELECT count(*) FROM traffic.flow WHERE _partition = 0").await.unwrap();
    let answer = last(&session);
    assert_eq!((answer.segments.len(), answer.ordered_root), (2, None));
    assert!(answer.segments.iter().all(|segment| segment.bytes_verified == 0), "{:?}", answer.segments);
    session.sql("SELECT count(*) FROM traffic.flow WHERE _partition = 3").await.unwrap();
    assert_eq!(last(&session).segments, []);
    session.sql("SELECT height FROM cairn.anchors WHERE false").await.unwrap_err();
    session.sql("SELECT * FROM cairn.anchors WHERE false").await.unwrap();
    let answer = last(&session);
    assert_eq!((answer.rows, answer.rows_root), (0, tree::empty_root()));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_evidence_of_what_was_not_answered_whole() {
    let city = common::city().await;
    // Off: nothing is signed.
    let engine = engine_with(&city, QueryConfig { rows_out_max: 3, batch_rows: 64, ..QueryConfig::default() });
    let plain = engine.session().unwrap();
    plain.sql("SELECT count(*) FROM traffic.flow").await.unwrap();
    assert!(plain.signed_answer("last").is_none());
    let session = signing(&engine);
    // Cut short by a limit, failed on the way, of nothing on the chain, only explained.
    let cut = session.sql("SELECT * FROM traffic.flow").await.unwrap_err();
    assert_eq!(cut.kind, QueryErrorKind::Limit);
    session.sql("SELECT 1 / (vehicles - vehicles) FROM traffic.flow").await.unwrap_err();
    session.sql("SELECT 1").await.unwrap();
    session.sql("SHOW cairn.height").await.unwrap();
    session.sql("EXPLAIN SELECT * FROM traffic.flow").await.unwrap();
    assert!(session.signed_answer("last").is_none());
    // A cursor has evidence once it was read to its end.
    session.sql("BEGIN; DECLARE c CURSOR FOR SELECT vehicles FROM traffic.flow WHERE _partition = 1").await.unwrap();
    session.sql("FETCH 1 FROM c").await.unwrap();
    assert!(session.signed_answer("last").is_none());
    session.sql("FETCH ALL FROM c").await.unwrap();
    assert_eq!(last(&session).statement, "SELECT vehicles FROM traffic.flow WHERE _partition = 1");
    // And segments that were altered have none.
    let segment = city.segment("traffic.flow", 1, 2);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let before = session.signed_answer("last");
    let error = session.sql("SELECT detector FROM traffic.flow WHERE _partition = 1").await.unwrap_err();
    assert_eq!(error.kind, QueryErrorKind::Corrupted);
    assert_eq!(session.signed_answer("last"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_verify_is_counted_and_is_not_what_the_answer_is_computed_from() {
    let city = common::city().await;
    let segment = city.segment("traffic.flow", 0, 3);
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 8;
    std::fs::write(&segment, bytes).unwrap();
    let session = session(&city).await;
    session.set("cairn.on_unverified", Some("exclude")).unwrap();
    let answer = session.sql("SELECT vehicles FROM traffic.flow WHERE _partition = 0").await.unwrap();
    assert_eq!(answer.rows(), 3);
    let signed = last(&session);
    assert_eq!((signed.left_out, signed.flagged, signed.segments.len()), (1, 0, 1));
    assert!(segment.to_str().unwrap().contains(&city.entries()[1].anchor.segment.path));
    assert_ne!(signed.segments[0].path, city.entries()[1].anchor.segment.path);
    assert_eq!(signed.settings[0], ("cairn.on_unverified".to_owned(), "exclude".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_statement_at_the_same_height_signs_the_same_on_any_machine() {
    let city = common::city().await;
    // A stream with clean and with mixed segments has two inputs side by side.
    let statements = [
        "SELECT detector, vehicles FROM traffic.flow LIMIT 4",
        "SELECT avg(speed_kmh), sum(speed_kmh / 3) FROM traffic.flow",
        "SELECT detector, count(*), avg(speed_kmh) FROM traffic.flow GROUP BY detector",
        "SELECT * FROM (SELECT detector d FROM traffic.flow UNION ALL SELECT meter['id'] FROM energy.meter_reading) LIMIT 7",
        "SELECT array_agg(vehicles) FROM traffic.flow",
        "SELECT a.detector, b.vehicles FROM traffic.flow a JOIN traffic.flow b ON a._offset = b._offset LIMIT 5",
        "SELECT stream, partition, \"offset\" FROM cairn.records LIMIT 6",
        "SELECT * FROM energy.meter_reading",
    ];
    for sql in statements {
        let mut roots = Vec::new();
        for (parallelism, batch_rows) in [(1, 64), (2, 8_192), (5, 100)] {
            let engine = engine_with(&city, QueryConfig { parallelism, batch_rows, ..QueryConfig::default() });
            for _ in 0..4 {
                let session = signing(&engine);
                session.sql(sql).await.unwrap();
                let answer = last(&session);
                let segments: Vec<_> = answer.segments.iter().map(|segment| segment.path.clone()).collect();
                roots.push((answer.rows, answer.rows_root, segments));
            }
        }
        roots.dedup();
        assert_eq!(roots.len(), 1, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_vary_is_said_and_a_node_without_a_key_says_what_to_do() {
    let city = common::city().await;
    let session = session(&city).await;
    for sql in ["SELECT now() FROM traffic.flow", "SELECT vehicles FROM traffic.flow WHERE random() >= 0"] {
        let answer = session.sql(sql).await.unwrap();
        assert!(answer.warnings.iter().any(|warning| warning.contains("a replay may differ")), "{sql}");
    }
    let fixed = session.sql("SELECT cairn_height(), upper(detector) FROM traffic.flow").await.unwrap();
    assert_eq!(fixed.warnings, Vec::<String>::new());
    let error = session.sql("SELECT cairn_evidence('nonsense')").await.unwrap_err();
    assert!(error.message.contains("\"nonsense\""), "{error}");
    let keyless = city.engine().session().unwrap();
    let error = keyless.sql("SET cairn.evidence = on").await.unwrap_err();
    assert!(error.message.contains("no key"), "{error}");
    assert!(error.hint.unwrap().contains("cairn identity add"));
    assert!(keyless.sql("SET cairn.evidence = off; SELECT count(*) FROM traffic.flow").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_the_rows_counts_as_memory() {
    let city = common::city().await;
    let config = QueryConfig { memory_limit_mib: 16, ..QueryConfig::default() };
    let session = signing(&engine_with(&city, config));
    let tables: Vec<_> =
        ('a'..='g').map(|name| format!("(SELECT vehicles FROM traffic.flow LIMIT 8) {name}")).collect();
    let sql = format!("SELECT a.vehicles FROM {}", tables.join(" CROSS JOIN "));
    let error = session.sql(&sql).await.unwrap_err();
    assert_eq!((error.kind, error.state.0), (QueryErrorKind::Limit, "53200"), "{error}");
    assert!(session.signed_answer("last").is_none());
    session.sql("SELECT vehicles FROM traffic.flow").await.unwrap();
    assert_eq!(last(&session).rows, 9, "what a failed statement held is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_both_wires_hear_the_name_and_parameters_are_signed() {
    let city = common::city().await;
    let config = QueryConfig { port: 0, without_password: WithoutPassword::Loopback, ..QueryConfig::default() };
    let running = QueryService::serve(engine_with(&city, config)).await.unwrap();
    let options = format!("host=127.0.0.1 port={} user=a dbname=cairn", running.addr.port());
    let (client, mut connection) = tokio_postgres::connect(&options, NoTls).await.unwrap();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&notices);
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                heard.lock().unwrap().push(notice.message().to_owned());
            }
        }
    });
    client.batch_execute("SET cairn.evidence = on").await.unwrap();
    assert_eq!(client.query_one("SHOW cairn.evidence", &[]).await.unwrap().get::<_, String>(0), "on");
    let rows = client.query("SELECT vehicles FROM traffic.flow WHERE vehicles > $1", &[&10_i32]).await.unwrap();
    assert_eq!(rows.len(), 4);
    let said = notices.lock().unwrap().join("\n");
    let id = said.split("cairn_evidence('").nth(1).and_then(|rest| rest.split('\'').next()).unwrap().to_owned();
    assert_eq!(id.len(), 24, "{said}");
    // There is no chain here, so no file; but the answer is known, and unknown ones are not.
    let error = client.query(&format!("SELECT cairn_evidence('{id}')"), &[]).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("follows no chain"), "{error:?}");
    let error = client.query("SELECT cairn_evidence('00')", &[]).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("no evidence"), "{error:?}");
    let list = client.query("SELECT vehicles FROM traffic.flow WHERE vehicles = ANY($1)", &[&vec![7_i32]]).await;
    let error = list.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("parameter $1"), "{error:?}");

    let port = FlightConfig::new("127.0.0.1:0".parse().unwrap());
    let flight = FlightSql::serve(running.engine().clone(), &port).await.unwrap();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", flight.addr)).unwrap().connect().await;
    let mut client = arrow_flight::sql::client::FlightSqlServiceClient::new(channel.unwrap());
    client.execute_update("SET cairn.evidence = on".to_owned(), None).await.unwrap();
    let info = client.execute("SELECT detector FROM traffic.flow".to_owned(), None).await.unwrap();
    let rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let batches: Vec<_> = rows.try_collect().await.unwrap();
    let id = batches[0].schema().metadata()["cairn.evidence_id"].clone();
    assert_eq!(id.len(), 24);
    let info = client.execute(format!("SELECT cairn_evidence('{id}')"), None).await.unwrap();
    let rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let error = rows.try_collect::<Vec<_>>().await.unwrap_err().to_string();
    assert!(error.contains("follows no chain"), "{error}");
    flight.stop().await;
    running.stop().await;
}

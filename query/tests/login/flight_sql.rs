//! The Flight SQL port as its clients see it: statements, parameters, catalogue, heights, logins, and what it refuses.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{Action, FlightInfo, Ticket};
use cairn_query::{Engine, FlightConfig, FlightSql, QueryConfig, RunningFlight, WithoutPassword};
use futures::{StreamExt, TryStreamExt};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use super::{Served, serve, token};
use crate::common;

type Client = FlightSqlServiceClient<Channel>;

fn open() -> QueryConfig {
    QueryConfig { without_password: WithoutPassword::Loopback, ..QueryConfig::default() }
}

async fn flight(engine: &Engine) -> RunningFlight {
    FlightSql::serve(engine.clone(), &FlightConfig::new("127.0.0.1:0".parse().unwrap())).await.unwrap()
}

async fn served(newest: u64, config: QueryConfig) -> (Served, RunningFlight) {
    let served = serve(newest, config).await;
    let flight = flight(served.running.engine()).await;
    (served, flight)
}

async fn channel(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

async fn client(addr: SocketAddr) -> Client {
    FlightSqlServiceClient::new(channel(addr).await)
}

async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, String> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let rows = client.do_get(ticket).await.map_err(|error| error.to_string())?;
    rows.try_collect().await.map_err(|error| error.to_string())
}

async fn ask(client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let info = client.execute(sql.to_owned(), None).await.map_err(|error| error.to_string())?;
    fetch(client, info).await
}

fn number(batches: &[RecordBatch]) -> i64 {
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0)
}

fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let mut found = Vec::new();
    for batch in batches {
        let column = batch.column_by_name(column).unwrap().as_any().downcast_ref::<StringArray>().unwrap();
        found.extend(column.iter().map(|text| text.unwrap_or_default().to_owned()));
    }
    found
}

async fn says(client: &mut Client, sql: &str, part: &str) {
    let error = ask(client, sql).await.expect_err(sql);
    assert!(error.contains(part), "{part:?} is missing in {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_names_its_height_and_its_ticket_keeps_it() {
    let (served, flight) = served(4, open()).await;
    let mut client = client(flight.addr).await;
    let info = client.execute("SELECT count(*) FROM traffic.flow".to_owned(), None).await.unwrap();
    assert_eq!(info.app_metadata.as_ref(), b"{\"cairn.height\":4}");
    let schema = Schema::try_from(info.clone()).unwrap();
    assert_eq!(schema.metadata["cairn.height"], "4");
    let at_4 = number(&fetch(&mut client, info.clone()).await.unwrap());
    // A block comes: the ticket stays at its height, a new statement is at the new one.
    served.chain.newest.store(6, Ordering::SeqCst);
    let again = fetch(&mut client, info).await.unwrap();
    assert_eq!(number(&again), at_4);
    assert_eq!(again[0].schema().metadata()["cairn.height"], "4");
    assert_eq!(number(&ask(&mut client, "SELECT cairn_height()::bigint").await.unwrap()), 6);
    assert_eq!(number(&ask(&mut client, "SELECT count(*) FROM traffic.flow AS OF 2").await.unwrap()), 3);
    // What is said of the rows beforehand is what comes: clients compare the two.
    let info =
        client.execute("SELECT cairn_height() AS h, count(*) AS n FROM traffic.flow".to_owned(), None).await.unwrap();
    let said = Schema::try_from(info.clone()).unwrap();
    let come = fetch(&mut client, info).await.unwrap();
    assert_eq!(said.fields(), come[0].schema().fields());
    // Values of every kind come through; views of texts are plain texts.
    let rows = ask(&mut client, "SELECT * FROM energy.meter_reading ORDER BY _offset").await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let flows =
        ask(&mut client, "SELECT detector FROM traffic.flow ORDER BY _partition, _offset LIMIT 2").await.unwrap();
    assert_eq!(texts(&flows, "detector"), ["D1", "D2"]);
    flight.stop().await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_live_with_the_connection_and_what_is_wrong_is_told() {
    let (served, flight) = served(6, open()).await;
    let (mut client, mut other) = (client(flight.addr).await, client(flight.addr).await);
    assert_eq!(client.execute_update("SET cairn.as_of = 2".to_owned(), None).await.unwrap(), 0);
    assert_eq!(number(&ask(&mut client, "SELECT count(*) FROM traffic.flow").await.unwrap()), 3);
    assert!(number(&ask(&mut other, "SELECT count(*) FROM traffic.flow").await.unwrap()) > 3);
    // By a query, as clients do that have nothing else.
    assert!(ask(&mut client, "SET cairn.as_of = latest").await.unwrap().is_empty());
    assert!(number(&ask(&mut client, "SELECT count(*) FROM traffic.flow").await.unwrap()) > 3);
    assert_eq!(texts(&ask(&mut client, "SHOW cairn.as_of").await.unwrap(), "cairn.as_of"), ["latest"]);

    says(&mut client, "SELECT * FROM trafic.flow", "did you mean traffic.flow?").await;
    says(&mut client, "SELEC 1", "SQLSTATE 42601").await;
    says(&mut client, "SELECT 1; SELECT 2", "more than one statement").await;
    says(&mut client, "", "empty").await;
    says(&mut client, "CREATE TABLE t (a int)", "SQLSTATE 25006").await;
    says(&mut client, "COPY traffic.flow TO 'x'", "SQLSTATE").await;
    says(&mut client, "DECLARE c CURSOR FOR SELECT 1", "no cursors").await;
    says(&mut client, "SET cairn.as_of = 99", "not known yet").await;
    let error = client.execute_update("SELECT 1".to_owned(), None).await.unwrap_err();
    assert!(error.to_string().contains("run it as a query"), "{error}");
    flight.stop().await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_take_parameters_as_jdbc_writes_them() {
    let (served, flight) = served(6, open()).await;
    let mut client = client(flight.addr).await;
    let sql = "SELECT count(*) FROM traffic.flow WHERE vehicles > ? AND detector = ?";
    let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    assert_eq!(prepared.dataset_schema().unwrap().fields().len(), 1);
    assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 2);
    let info = prepared.execute().await.unwrap();
    let error = fetch(&mut client, info).await.expect_err("nothing is bound");
    assert!(error.contains("none are bound"), "{error}");
    let fields = vec![Field::new("1", DataType::Int64, true), Field::new("2", DataType::Utf8, true)];
    for (vehicles, expected) in [(10, 2), (30, 1)] {
        let values = RecordBatch::try_new(
            Schema::new(fields.clone()).into(),
            vec![Int64Array::from(vec![vehicles]).into_data_ref(), StringArray::from(vec!["D1"]).into_data_ref()],
        );
        prepared.set_parameters(values.unwrap()).unwrap();
        let info = prepared.execute().await.unwrap();
        assert_eq!(number(&fetch(&mut client, info).await.unwrap()), expected, "{vehicles}");
    }
    let two = RecordBatch::try_new(
        Schema::new(fields).into(),
        vec![Int64Array::from(vec![1, 2]).into_data_ref(), StringArray::from(vec!["a", "b"]).into_data_ref()],
    );
    prepared.set_parameters(two.unwrap()).unwrap();
    let error = prepared.execute().await.expect_err("two rows at once");
    assert!(error.to_string().contains("of one row"), "{error}");
    prepared.close().await.unwrap();
    flight.stop().await;
    served.running.stop().await;
}

/// An array as a column.
trait IntoDataRef {
    fn into_data_ref(self) -> arrow::array::ArrayRef;
}

impl<T: arrow::array::Array + 'static> IntoDataRef for T {
    fn into_data_ref(self) -> arrow::array::ArrayRef {
        std::sync::Arc::new(self)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_schemas_tables_keys_and_abilities() {
    let (served, flight) = served(6, open()).await;
    let mut client = client(flight.addr).await;
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(texts(&fetch(&mut client, info).await.unwrap(), "catalog_name"), ["cairn"]);
    let all = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: None };
    let info = client.get_db_schemas(all).await.unwrap();
    let schemas = texts(&fetch(&mut client, info).await.unwrap(), "db_schema_name");
    assert_eq!(schemas, ["cairn", "emergency", "energy", "traffic"]);
    let tables = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: Some("traf%".to_owned()),
        table_name_filter_pattern: None,
        table_types: vec!["TABLE".to_owned()],
        include_schema: true,
    };
    let info = client.get_tables(tables).await.unwrap();
    let found = fetch(&mut client, info).await.unwrap();
    assert_eq!(texts(&found, "table_name"), ["flow"]);
    let keys = CommandGetPrimaryKeys { catalog: None, db_schema: Some("traffic".to_owned()), table: "flow".to_owned() };
    let info = client.get_primary_keys(keys).await.unwrap();
    assert_eq!(texts(&fetch(&mut client, info).await.unwrap(), "column_name"), ["_partition", "_offset"]);
    let info = client.get_table_types().await.unwrap();
    assert_eq!(texts(&fetch(&mut client, info).await.unwrap(), "table_type"), ["SYSTEM TABLE", "TABLE"]);
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName]).await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].num_rows(), 1);
    let info = client.get_xdbc_type_info(Default::default()).await.unwrap();
    assert!(fetch(&mut client, info).await.unwrap()[0].num_rows() > 5);
    flight.stop().await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_and_a_revoked_identity_loses_statements_that_run() {
    let (served, flight) = served(5, QueryConfig::default()).await;
    let mut stranger = client(flight.addr).await;
    says(&mut stranger, "SELECT 1", "asks for a login token").await;
    stranger.set_token("secret".to_owned());
    says(&mut stranger, "SELECT 1", "SQLSTATE 28P01").await;

    let mut client = client(flight.addr).await;
    let answer = client.handshake("analyst", &token()).await.unwrap();
    assert_eq!(answer, token().as_bytes());
    assert_eq!(number(&ask(&mut client, "SELECT count(*) FROM traffic.flow").await.unwrap()), 9);

    let endless = "SELECT x FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE x * y > 7";
    let info = client.execute(endless.to_owned(), None).await.unwrap();
    let mut running = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    running.next().await.unwrap().unwrap();
    served.chain.newest.store(6, Ordering::SeqCst);
    let error = async {
        loop {
            match running.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("the rows ended as if they were all"),
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), error).await.expect("in time");
    assert!(error.to_string().contains("revoked since block 6"), "{error}");
    says(&mut client, "SELECT 1", "revoked since block 6").await;
    flight.stop().await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_and_counted_and_the_port_lives_on() {
    let config = QueryConfig { message_bytes_max: 20_000, statement_bytes_max: 2_000, ..open() };
    let (served, flight) = served(6, config).await;
    let metrics = served.running.engine().metrics().clone();
    let mut raw = FlightServiceClient::new(channel(flight.addr).await);
    let before = metrics.unreadable("flight");
    for (ticket, part) in [
        (b"\xff\xff\xff".to_vec(), "DecodeError"),
        (TicketStatementQuery { statement_handle: vec![9].into() }.as_any().encode_to_vec(), "ticket"),
        (TicketStatementQuery { statement_handle: vec![2; 12].into() }.as_any().encode_to_vec(), "handle"),
        (vec![0; 30_000], "too large"),
    ] {
        let error = raw.do_get(Ticket::new(ticket)).await.map(drop).expect_err(part);
        assert!(error.message().contains(part), "{part:?} is missing in {error}");
    }
    let error = raw.do_action(Action::new("Nonsense", "")).await.map(drop).expect_err("no such action");
    assert_eq!(error.code(), tonic::Code::Unimplemented);
    assert!(metrics.unreadable("flight") >= before + 5, "{} after {before}", metrics.unreadable("flight"));

    let mut client = client(flight.addr).await;
    says(&mut client, &format!("SELECT '{}'", "x".repeat(3_000)), "at most 2000 are read").await;

    // Neither HTTP nor TLS: closed, and counted.
    let before = metrics.unreadable("flight");
    let mut socket = TcpStream::connect(flight.addr).await.unwrap();
    socket.write_all(b"\x00\x01\x02 this is no HTTP/2 preface, whatever else it is\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await;
    drop((closed.expect("it is closed"), socket));
    tokio::time::timeout(Duration::from_secs(20), async {
        while metrics.unreadable("flight") == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it is counted");
    assert_eq!(number(&ask(&mut client, "SELECT 1::bigint").await.unwrap()), 1);
    flight.stop().await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_too_many_is_told_so_and_a_stream_that_nobody_reads_gives_its_turn_back() {
    let config = QueryConfig { connections_max: 1, statements_max: 1, ..open() };
    let (served, flight) = served(6, config).await;
    let mut first = client(flight.addr).await;
    let endless = "SELECT x FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE x * y > 7";
    let info = first.execute(endless.to_owned(), None).await.unwrap();
    let mut running = first.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    running.next().await.unwrap().unwrap();
    let mut second = client(flight.addr).await;
    says(&mut second, "SELECT 1", "as many as connections_max allows").await;
    // The only turn is the endless statement's until its reader goes.
    drop(running);
    assert_eq!(number(&ask(&mut first, "SELECT 1::bigint").await.unwrap()), 1);
    flight.stop().await;
    served.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_does_not_verify_ends_the_stream_with_an_error() {
    let city = common::city().await;
    let segment = city.segment("traffic.flow", 0, 3);
    let engine = city.engine_with(open());
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let flight = flight(&engine).await;
    let mut client = client(flight.addr).await;
    says(&mut client, "SELECT * FROM traffic.flow", "SQLSTATE XX001").await;
    assert_eq!(number(&ask(&mut client, "SELECT count(*) FROM energy.meter_reading").await.unwrap()), 2);
    flight.stop().await;
}

//! Events about queries, held against the published JSON schemas of OpenLineage; and that they never hold a query up.
//!
//! The schemas lie in `tests/openlineage/`, copied from their project; nothing is fetched.

use std::path::Path;
use std::time::Duration;

use crate::common::{self, City};
use cairn_query::{Engine, Equipment, LineageConfig, LineageTarget, OpenLineage, QueryConfig, Session};
use futures::StreamExt as _;
use jsonschema::{Resource, Validator};
use prometheus::{Encoder as _, Registry, TextEncoder};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const EVENT: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json";
const PATIENCE: Duration = Duration::from_secs(20);

fn read(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The published schemas, by what an event says it keeps to.
struct Schemas(Vec<(String, Value)>);

impl Schemas {
    fn new() -> Self {
        let published = [
            "OpenLineage",
            "SQLJobFacet",
            "SchemaDatasetFacet",
            "ErrorMessageRunFacet",
            "JobTypeJobFacet",
            "ProcessingEngineRunFacet",
            "DatasetVersionDatasetFacet",
        ];
        let published = published.map(|name| read(&format!("tests/openlineage/{name}.json")));
        let own = read("../docs/openlineage/SnapshotRunFacet.json");
        let by_id = |schema: Value| (schema["$id"].as_str().unwrap().to_owned(), schema);
        Self(published.into_iter().chain([own]).map(by_id).collect())
    }

    fn validator(&self, reference: &str) -> Validator {
        let resources = self.0.iter().map(|(id, schema)| (id.clone(), Resource::from_contents(schema.clone())));
        jsonschema::options()
            .with_resources(resources)
            .should_validate_formats(true)
            .build(&serde_json::json!({ "$ref": reference }))
            .unwrap()
    }

    fn check(&self, reference: &str, value: &Value) {
        let errors: Vec<_> = self.validator(reference).iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{reference}: {errors:?} in {value:#}");
    }

    /// The event, and every facet by the schema that it names.
    fn check_event(&self, event: &Value) {
        assert_eq!(event["schemaURL"], format!("{EVENT}#/$defs/RunEvent"));
        self.check(EVENT, event);
        let datasets = event["inputs"].as_array().unwrap().iter();
        let facets =
            [&event["run"]["facets"], &event["job"]["facets"]].into_iter().chain(datasets.map(|it| &it["facets"]));
        let mut checked = 0;
        for facets in facets {
            for (name, facet) in facets.as_object().unwrap() {
                let schema = facet["_schemaURL"].as_str().unwrap();
                self.check(schema, facet);
                let id = schema.split('#').next().unwrap();
                let (_, whole) = self.0.iter().find(|(known, _)| known == id).expect("a schema that lies here");
                assert!(whole["properties"].get(name).is_some(), "{name} is not the name that {id} gives the facet");
                checked += 1;
            }
        }
        assert!(checked >= 4, "{event:#}");
    }
}

fn lineage(target: LineageTarget, queue_max: usize) -> (OpenLineage, Registry) {
    let registry = Registry::new();
    let config = LineageConfig { queue_max, timeout_ms: 300, ..LineageConfig::new("cairn://test", target) };
    (OpenLineage::start(config, &registry).unwrap(), registry)
}

fn engine(city: &City, lineage: &OpenLineage) -> Engine {
    let equipment = Equipment { lineage: Some(lineage.clone()), ..Equipment::default() };
    city.engine_with(QueryConfig { rows_out_max: 9, ..QueryConfig::default() }).equipped(equipment)
}

fn counted(registry: &Registry, outcome: &str) -> u64 {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    let line = format!("cairn_query_openlineage_events_total{{outcome=\"{outcome}\"}} ");
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|at| at.strip_prefix(&line)).unwrap().parse().unwrap()
}

async fn three_ways(session: &Session) {
    session.sql("SELECT detector, meter['id'] FROM traffic.flow, energy.meter_reading LIMIT 3").await.unwrap();
    session.sql("SELECT * FROM traffic.flow, cairn.anchors").await.unwrap_err();
    // Nothing of the chain, nothing to tell.
    session.sql("SELECT 1; SHOW cairn.height; SELECT * FROM pg_catalog.pg_type LIMIT 1").await.unwrap();
    session.sql("SELECT nothing FROM traffic.flow").await.unwrap_err();
    // A cursor that is closed before its end was not wanted.
    session.sql("BEGIN; DECLARE c CURSOR FOR SELECT * FROM traffic.flow; FETCH 1 FROM c; CLOSE c; END").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_keep_to_the_published_schemas() {
    let city = common::city().await;
    let file = city.folder.path().join("lineage.ndjson");
    let (lineage, registry) = lineage(LineageTarget::File(file.clone()), 1_024);
    let session = engine(&city, &lineage).session().unwrap();
    three_ways(&session).await;
    lineage.flush(PATIENCE).await;
    let text = std::fs::read_to_string(&file).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let schemas = Schemas::new();
    events.iter().for_each(|event| schemas.check_event(event));
    let kinds: Vec<_> = events.iter().map(|event| event["eventType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["START", "COMPLETE", "START", "FAIL", "START", "ABORT"]);
    for pair in events.chunks(2) {
        assert_eq!(pair[0]["run"]["runId"], pair[1]["run"]["runId"]);
        assert_eq!(pair[0]["job"], pair[1]["job"]);
        assert_eq!(pair[0]["inputs"], pair[1]["inputs"]);
    }
    let names = |event: &Value| -> Vec<String> {
        event["inputs"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&events[0]), ["energy.meter_reading", "traffic.flow"]);
    assert_eq!(names(&events[2]), ["cairn.anchors", "traffic.flow"]);
    let (first, failed) = (&events[1], &events[3]);
    let query = "SELECT detector, meter['id'] FROM traffic.flow, energy.meter_reading LIMIT 3";
    assert_eq!(first["job"]["facets"]["sql"]["query"], query);
    assert_eq!(first["run"]["facets"]["cairn_snapshot"]["height"], 6);
    assert_eq!(first["inputs"][0]["namespace"], "cairn://test");
    let fields = &first["inputs"][0]["facets"]["schema"]["fields"];
    assert_eq!((&fields[0]["name"], &fields[0]["type"]), (&"meter".into(), &"struct".into()));
    assert_eq!(fields[0]["fields"][0]["name"], "id");
    let reason = failed["run"]["facets"]["errorMessage"]["message"].as_str().unwrap();
    assert!(reason.contains("rows_out_max"), "{reason}");
    assert_eq!((counted(&registry, "sent"), counted(&registry, "dropped")), (6, 0));
    // A file that was moved away is made anew.
    std::fs::rename(&file, file.with_extension("old")).unwrap();
    session.sql("SELECT count(*) FROM traffic.flow").await.unwrap();
    lineage.flush(PATIENCE).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    // The validator does tell.
    let mut wrong = events[0].clone();
    wrong["run"]["runId"] = "not a uuid".into();
    assert!(!schemas.validator(EVENT).is_valid(&wrong));
    wrong = events[0].clone();
    wrong["job"]["facets"]["sql"].as_object_mut().unwrap().remove("_producer");
    assert!(!schemas.validator(EVENT).is_valid(&wrong));
}

/// Takes one request and answers it.
async fn answer(listener: &TcpListener, status: &str) -> (String, Value) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut piece = [0; 4_096];
        let read = socket.read(&mut piece).await.unwrap();
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let length: usize = length.parse().unwrap();
            break (head, length);
        }
    };
    while bytes.len() < length {
        let mut piece = [0; 4_096];
        let read = socket.read(&mut piece).await.unwrap();
        bytes.extend_from_slice(&piece[..read]);
    }
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
    (head, serde_json::from_slice(&bytes).unwrap())
}

async fn listening() -> (TcpListener, LineageTarget) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/v1/lineage", listener.local_addr().unwrap()).parse().unwrap();
    (listener, LineageTarget::Http { url, token: Some("secret".to_owned()), root_certificate: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_posted_and_a_server_that_fails_is_asked_once_more() {
    let city = common::city().await;
    let (listener, target) = listening().await;
    let (lineage, registry) = lineage(target, 1_024);
    let session = engine(&city, &lineage).session().unwrap();
    session.sql("SELECT count(*) FROM traffic.flow").await.unwrap();
    let schemas = Schemas::new();
    let (head, event) = answer(&listener, "201 Created").await;
    assert!(head.starts_with("post /api/v1/lineage http/1.1"), "{head}");
    assert!(head.contains("authorization: bearer secret") && head.contains("content-type: application/json"), "{head}");
    schemas.check_event(&event);
    assert_eq!(event["eventType"], "START");
    let (_, first) = answer(&listener, "503 Service Unavailable").await;
    let (_, again) = answer(&listener, "200 OK").await;
    assert_eq!((&first, &again["eventType"]), (&again, &"COMPLETE".into()));
    session.sql("SELECT count(*) FROM traffic.flow").await.unwrap();
    answer(&listener, "400 Bad Request").await;
    answer(&listener, "200 OK").await;
    lineage.flush(PATIENCE).await;
    assert_eq!((counted(&registry, "sent"), counted(&registry, "failed")), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_go_on_when_nobody_takes_the_events() {
    let city = common::city().await;
    // It listens and never answers.
    let (_listener, target) = listening().await;
    let (lineage, registry) = lineage(target, 2);
    let engine = engine(&city, &lineage);
    let queries = futures::stream::iter(0..20).map(|_| engine.sql("SELECT count(*) FROM traffic.flow", None));
    let answers: Vec<_> = queries.buffer_unordered(4).collect().await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().rows() == 1));
    // Forty events: two wait, one is on its way, and time may have let some fail.
    assert!(counted(&registry, "dropped") >= 20, "{}", counted(&registry, "dropped"));
    assert_eq!(counted(&registry, "sent"), 0);
    // A file that cannot be opened is told at the start, not by queries.
    let file = city.folder.path().join("nowhere/lineage.ndjson");
    let config = LineageConfig::new("cairn://test", LineageTarget::File(file));
    let error = OpenLineage::start(config, &Registry::new()).unwrap_err().to_string();
    assert!(error.contains("nowhere/lineage.ndjson"), "{error}");
}

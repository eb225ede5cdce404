//! The client against a real HTTP server that speaks the registry's API, and against servers that misbehave.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use prometheus::Registry as Metered;
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::testing::one_field;

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// 503 to everything.
    Down,
    /// 200, and the page of a proxy.
    Page,
    /// 200, JSON that is not of the API.
    OtherJson,
    /// 200, a body that ends in the middle.
    Torn,
    /// 404 as a wrong path gives it.
    WrongPath,
    /// 302 to elsewhere.
    Moved,
    /// No answer within the time that is allowed.
    Slow,
}

/// A schema registry of so many schemas on loopback.
pub(crate) struct TestRegistry {
    pub(crate) url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    bodies: Mutex<HashMap<u32, String>>,
    mood: Mutex<Mood>,
    asked: AtomicU64,
    authorization: Mutex<Option<String>>,
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            bodies: Mutex::default(),
            mood: Mutex::new(Mood::Well),
            asked: AtomicU64::new(0),
            authorization: Mutex::default(),
        });
        let router = Router::new().route("/base/schemas/ids/{id}", get(answer)).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, server }
    }

    pub(crate) fn put(&self, id: u32, schema: &str) {
        self.put_body(id, &json!({ "schema": schema }).to_string());
    }

    fn put_body(&self, id: u32, body: &str) {
        self.shared.bodies.lock().unwrap().insert(id, body.to_owned());
    }

    pub(crate) fn feel(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }

    fn client(&self, change: impl FnOnce(&mut RegistryConfig)) -> Registry {
        let mut config = RegistryConfig::new(&self.url);
        config.timeout_ms = 500;
        change(&mut config);
        Registry::new(&config, Metrics::register(&Metered::new()).unwrap()).unwrap()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    *shared.authorization.lock().unwrap() = authorization;
    let mood = *shared.mood.lock().unwrap();
    let reply = |status: u16, content_type: &str, body: String| {
        Response::builder().status(status).header("content-type", content_type).body(Body::from(body)).unwrap()
    };
    let api = "application/vnd.schemaregistry.v1+json";
    match mood {
        Mood::Well => match shared.bodies.lock().unwrap().get(&id) {
            Some(body) => reply(200, api, body.clone()),
            None => {
                reply(404, api, json!({ "error_code": 40403, "message": format!("Schema {id} not found") }).to_string())
            }
        },
        Mood::Down => reply(503, "text/plain", "down".into()),
        Mood::Page => reply(200, "text/html", "<h1>Welcome</h1>".into()),
        Mood::OtherJson => reply(200, api, "[1, 2".into()),
        Mood::Torn => {
            let pieces = [Ok("{\"schema\": ".to_owned()), Err(std::io::Error::other("torn for a test"))];
            let body = Body::from_stream(futures_of(pieces));
            Response::builder().status(200).header("content-type", api).body(body).unwrap()
        }
        Mood::WrongPath => reply(404, api, json!({ "error_code": 404, "message": "HTTP 404 Not Found" }).to_string()),
        Mood::Moved => {
            Response::builder().status(302).header("location", "http://127.0.0.1:9/").body(Body::empty()).unwrap()
        }
        Mood::Slow => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            reply(200, api, String::new())
        }
    }
}

fn futures_of<T: Send + 'static, const N: usize>(items: [T; N]) -> impl futures::Stream<Item = T> + Send {
    futures::stream::iter(items)
}

fn nothing(known: Known) -> String {
    match known {
        Known::Nothing(why) => why,
        Known::Avro(text) => panic!("a schema: {text}"),
    }
}

#[tokio::test]
async fn a_schema_is_fetched_once_and_kept_within_bounds() {
    let server = TestRegistry::start().await;
    let (long, string) = (one_field(r#""long""#), one_field(r#""string""#));
    server.put(1, &long);
    server.put(2, &string);
    let client = server.client(|config| config.cached_schemas_max = 1);
    for _ in 0..3 {
        assert_eq!(client.lookup(1).await.unwrap(), Known::Avro(long.as_str().into()));
    }
    assert_eq!(server.asked(), 1);
    server.feel(Mood::Down);
    assert_eq!(client.lookup(1).await.unwrap(), Known::Avro(long.as_str().into()), "an outage does not matter for it");
    server.feel(Mood::Well);
    assert_eq!(client.lookup(2).await.unwrap(), Known::Avro(string.as_str().into()));
    assert_eq!(client.kept().len(), 1, "the first has left");
    client.lookup(1).await.unwrap();
    assert_eq!(server.asked(), 3);
    let mut aged = server.client(|_| {});
    aged.age_max = Duration::ZERO;
    aged.lookup(1).await.unwrap();
    aged.lookup(1).await.unwrap();
    assert_eq!(server.asked(), 5, "what is old is asked for anew");
}

#[tokio::test]
async fn an_id_that_is_not_there_is_asked_for_each_time() {
    let server = TestRegistry::start().await;
    let client = server.client(|_| {});
    assert_eq!(nothing(client.lookup(7).await.unwrap()), "the registry has no schema id 7");
    server.put(7, &one_field(r#""long""#));
    assert!(matches!(client.lookup(7).await.unwrap(), Known::Avro(_)), "it was registered meanwhile");
}

#[tokio::test]
async fn what_is_no_avro_schema_by_itself_is_of_no_use() {
    let server = TestRegistry::start().await;
    let client = server.client(|_| {});
    server.put_body(1, r#"{"schemaType":"PROTOBUF","schema":"syntax = \"proto3\";"}"#);
    server.put_body(2, r#"{"schema":"\"x.Y\"","references":[{"name":"x.Y","subject":"y","version":1}]}"#);
    server.put(3, &"x".repeat(WRITER_SCHEMA_BYTES_MAX + 1));
    server.put(4, &"x".repeat(2 * WRITER_SCHEMA_BYTES_MAX + BODY_BASE));
    for (id, expected) in
        [(1, "none of Avro"), (2, "refers to others"), (3, "262145 bytes"), (4, "answer has more than")]
    {
        let why = nothing(client.lookup(id).await.unwrap());
        assert!(why.contains(expected), "{id}: {why}");
    }
}

#[tokio::test]
async fn what_says_nothing_about_an_id_is_an_outage() {
    let server = TestRegistry::start().await;
    server.put(1, &one_field(r#""long""#));
    let client = server.client(|_| {});
    for (mood, expected) in [
        (Mood::Down, "status 503"),
        (Mood::Page, "text/html"),
        (Mood::OtherJson, "not of its API"),
        (Mood::Torn, ""),
        (Mood::WrongPath, "code 404, not 40403"),
        (Mood::Moved, "status 302"),
        (Mood::Slow, "no answer in time"),
    ] {
        server.feel(mood);
        let error = client.lookup(1).await.unwrap_err().to_string();
        assert!(error.contains("schema id 1") && error.contains(expected), "{mood:?}: {error}");
    }
    let mut nobody = RegistryConfig::new("http://127.0.0.1:1");
    nobody.timeout_ms = 500;
    let nobody = Registry::new(&nobody, Metrics::register(&Metered::new()).unwrap()).unwrap();
    assert!(nobody.lookup(1).await.is_err());
    server.feel(Mood::Well);
    assert!(matches!(client.lookup(1).await.unwrap(), Known::Avro(_)), "none of that was kept");
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let server = TestRegistry::start().await;
    let password = Credentials::Password { username: "city".into(), password: "hunter2".into() };
    let token = Credentials::Token("hunter2".into());
    for (credentials, expected) in [(password, "Basic Y2l0eTpodW50ZXIy"), (token, "Bearer hunter2")] {
        let mut shown = String::new();
        let client = server.client(|config| {
            config.credentials = Some(credentials);
            shown = format!("{config:?} {}", serde_json::to_string(config).unwrap());
        });
        client.lookup(1).await.unwrap();
        assert_eq!(server.shared.authorization.lock().unwrap().as_deref(), Some(expected));
        assert!(!shown.contains("hunter2") && !format!("{client:?}").contains("hunter2"), "{shown}");
    }
}

#[test]
fn wrong_settings_are_named() {
    for (url, expected) in [
        ("nonsense", "no address"),
        ("ftp://x", "neither http nor https"),
        ("http://city:hunter2@x", "holds credentials"),
        ("http://x/?a=b", "a query"),
    ] {
        let error = RegistryConfig::new(url).check().unwrap_err().to_string();
        assert!(error.contains("registry.url") && error.contains(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let config = RegistryConfig { timeout_ms: 1, ..RegistryConfig::new("http://x") };
    assert!(config.check().unwrap_err().to_string().contains("registry.timeout_ms"));
    let unknown = serde_json::from_str::<RegistryConfig>(r#"{"url":"http://x","password":"hunter2"}"#);
    assert!(unknown.unwrap_err().to_string().contains("password"));
}

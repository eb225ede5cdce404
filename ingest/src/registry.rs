//! The client of a schema registry that speaks Confluent's REST API: `GET /schemas/ids/{id}`, nothing else.
//!
//! An answer either settles what an id is, for good, or says nothing about it:
//!
//! | answer | means |
//! | --- | --- |
//! | 200, JSON with the text of an Avro schema | that schema |
//! | 200, JSON of another type of schema, of one that refers to others, or larger than is taken | known, of no use |
//! | 404, JSON with `error_code` 40403 | there is no such id |
//! | everything else: no connection, too slow, other statuses, other bodies | out of reach: ask again |
//!
//! A 404 without that code comes from a wrong path or a proxy. Were it taken at its word, every record would be quarantined
//! for a mistake in a setting.
//!
//! **Cached** are texts alone, which a registry never changes under their id; bounded by number, bytes and age. What an id
//! is not is never kept beyond one batch: it may be registered in the next moment.
//!
//! **Hostile bytes.** A body is read up to a limit and no further; an answer has its time; no redirect is followed, since
//! credentials would go with it. Not here: what a text means ([`crate::decode`]), and what waits for it (`ingest`).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cairn_proof::writer_schemas::WRITER_SCHEMA_BYTES_MAX;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{StatusCode, redirect};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use url::Url;

use crate::config::in_range;
use crate::error::{Error, Result};
use crate::metrics::Metrics;

/// `error_code` of an id that the registry does not have.
const SCHEMA_NOT_FOUND: u32 = 40_403;
/// The text of a schema stands in JSON as a string; escaping makes it longer. A body may be so many times as long.
const ESCAPED_TIMES: usize = 2;
/// What a body may have besides.
const BODY_BASE: usize = 16 << 10;
/// Requests at a time, over all partitions.
const REQUESTS_MAX: usize = 8;
/// Bytes of texts that are kept.
const CACHE_BYTES_MAX: usize = 32 << 20;
/// Of an answer that is not understood so much is shown.
const SHOWN_MAX: usize = 200;

/// Where the schema registry is, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Base address, `http` or `https`, without credentials.
    pub url: String,
    /// How long one answer may take, 100 to 60,000 ms.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How many schemas are kept in memory, 1 to 65,536, and at most 32 MiB of them.
    #[serde(default = "default_cached_schemas_max")]
    pub cached_schemas_max: usize,
    /// How long a schema is kept, 1 to 604,800 s.
    #[serde(default = "default_cached_age_s_max")]
    pub cached_age_s_max: u64,
    /// What the registry wants to know of its clients. Never read from, nor written to, a file of settings.
    #[serde(skip)]
    pub credentials: Option<Credentials>,
    /// PEM of the authority that the registry's certificate is checked against, besides those of the system.
    #[serde(skip)]
    pub root_certificate: Option<Vec<u8>>,
}

/// What a registry knows its clients by.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// HTTP basic authentication.
    Password {
        /// User, or API key.
        username: String,
        /// Password, or API secret.
        password: String,
    },
    /// A bearer token.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

fn default_timeout_ms() -> u64 {
    5_000
}

fn default_cached_schemas_max() -> usize {
    1_000
}

fn default_cached_age_s_max() -> u64 {
    3_600
}

impl RegistryConfig {
    /// The defaults, for the registry at this address.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            timeout_ms: default_timeout_ms(),
            cached_schemas_max: default_cached_schemas_max(),
            cached_age_s_max: default_cached_age_s_max(),
            credentials: None,
            root_certificate: None,
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input), naming the key, the value and what is allowed.
    pub fn check(&self) -> Result<()> {
        self.base()?;
        in_range("registry.timeout_ms", self.timeout_ms, 100..=60_000)?;
        in_range("registry.cached_schemas_max", self.cached_schemas_max as u64, 1..=65_536)?;
        in_range("registry.cached_age_s_max", self.cached_age_s_max, 1..=604_800)
    }

    fn base(&self) -> Result<Url> {
        // The address itself is not shown where it may hold a password.
        let wrong = |what: &str| Error::input(format!("`registry.url` {what}: expected such as http://127.0.0.1:8081"));
        let mut base = Url::parse(&self.url).map_err(|error| wrong("is no address").because(error))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong("is neither http nor https"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("holds credentials, which belong into a file that only its owner can read"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("holds a query or a fragment"));
        }
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        Ok(base)
    }
}

/// What the registry says an id is, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// An Avro schema.
    Avro(Arc<str>),
    /// Nothing that values can be decoded by, and why.
    Nothing(String),
}

/// The registry did not say what an id is.
#[derive(Debug, thiserror::Error)]
#[error("the schema registry does not say what schema id {id} is: {why}")]
pub(crate) struct OutOfReach {
    id: u32,
    why: String,
}

#[derive(Debug)]
struct Cached {
    text: Arc<str>,
    since: Instant,
}

/// A client of one registry. Bounded in memory, in requests at a time, and in the time that each takes.
#[derive(Debug)]
pub(crate) struct Registry {
    base: Url,
    http: reqwest::Client,
    credentials: Option<Credentials>,
    requests: Semaphore,
    cached: Mutex<HashMap<u32, Cached>>,
    cached_max: usize,
    age_max: Duration,
    metrics: Metrics,
}

/// What is read of an answer with a schema; other fields are the registry's own.
#[derive(Deserialize)]
struct Found {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    references: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Problem {
    error_code: u32,
}

impl Registry {
    pub(crate) fn new(config: &RegistryConfig, metrics: Metrics) -> Result<Self> {
        config.check()?;
        let timeout = Duration::from_millis(config.timeout_ms);
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .user_agent("cairn");
        if let Some(pem) = &config.root_certificate {
            let wrong = |error| Error::input("`registry.root_certificate` is not PEM of certificates").because(error);
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(wrong)?;
            http = certificates.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = http.build().map_err(|error| Error::input("the client of the schema registry").because(error))?;
        Ok(Self {
            base: config.base()?,
            http,
            credentials: config.credentials.clone(),
            requests: Semaphore::new(REQUESTS_MAX),
            cached: Mutex::default(),
            cached_max: config.cached_schemas_max,
            age_max: Duration::from_secs(config.cached_age_s_max),
            metrics,
        })
    }

    /// Says what an id is, from memory or by asking once.
    pub(crate) async fn lookup(&self, id: u32) -> Result<Known, OutOfReach> {
        if let Some(text) = self.recall(id) {
            return Ok(Known::Avro(text));
        }
        let out_of_reach = |why: String| OutOfReach { id, why };
        let _permit = self.requests.acquire().await.map_err(|error| out_of_reach(error.to_string()))?;
        // Another partition may have asked for the same one meanwhile.
        if let Some(text) = self.recall(id) {
            return Ok(Known::Avro(text));
        }
        let answer = self.ask(id).await;
        self.metrics.registry_answer(match &answer {
            Ok(Known::Avro(_)) => "schema",
            Ok(Known::Nothing(_)) => "none",
            Err(_) => "failed",
        });
        let known = answer.map_err(out_of_reach)?;
        if let Known::Avro(text) = &known {
            self.keep(id, text);
        }
        Ok(known)
    }

    async fn ask(&self, id: u32) -> Result<Known, String> {
        let url = self.base.join(&format!("schemas/ids/{id}")).map_err(|error| error.to_string())?;
        let mut request = self.http.get(url).header(ACCEPT, "application/vnd.schemaregistry.v1+json, application/json");
        request = match &self.credentials {
            Some(Credentials::Password { username, password }) => request.basic_auth(username, Some(password)),
            Some(Credentials::Token(token)) => request.bearer_auth(token),
            None => request,
        };
        let mut response = request.send().await.map_err(|error| cause(&error))?;
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json = content_type.is_some_and(|value| value.contains("json"));
        if !is_json || !matches!(status, StatusCode::OK | StatusCode::NOT_FOUND) {
            let shown = content_type.unwrap_or("no content type").chars().take(SHOWN_MAX).collect::<String>();
            return Err(format!("it answers with status {status} and {shown}"));
        }
        let most = WRITER_SCHEMA_BYTES_MAX * ESCAPED_TIMES + BODY_BASE;
        let Some(body) = bounded(&mut response, most).await? else {
            return match status {
                StatusCode::OK => Ok(Known::Nothing(format!("the registry's answer has more than {most} bytes"))),
                _ => Err(format!("it answers with status {status} and more than {most} bytes")),
            };
        };
        understand(status, &body, id)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<u32, Cached>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recall(&self, id: u32) -> Option<Arc<str>> {
        self.kept().get(&id).filter(|cached| cached.since.elapsed() < self.age_max).map(|cached| cached.text.clone())
    }

    fn keep(&self, id: u32, text: &Arc<str>) {
        let mut kept = self.kept();
        kept.insert(id, Cached { text: text.clone(), since: Instant::now() });
        let bytes = |kept: &HashMap<u32, Cached>| kept.values().map(|cached| cached.text.len()).sum::<usize>();
        while kept.len() > self.cached_max || bytes(&kept) > CACHE_BYTES_MAX {
            let oldest = kept.iter().min_by_key(|(_, cached)| cached.since).map(|(id, _)| *id);
            let Some(oldest) = oldest else { return };
            kept.remove(&oldest);
        }
    }
}

/// The whole body, or nothing if it is longer than `most`.
async fn bounded(response: &mut reqwest::Response, most: usize) -> Result<Option<Vec<u8>>, String> {
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
        if body.len() + chunk.len() > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

fn understand(status: StatusCode, body: &[u8], id: u32) -> Result<Known, String> {
    let garbled =
        |error: serde_json::Error| format!("it answers with status {status} and what is not of its API: {error}");
    if status == StatusCode::NOT_FOUND {
        let problem: Problem = serde_json::from_slice(body).map_err(garbled)?;
        return match problem.error_code {
            SCHEMA_NOT_FOUND => Ok(Known::Nothing(format!("the registry has no schema id {id}"))),
            other => Err(format!("it answers with status {status} and code {other}, not {SCHEMA_NOT_FOUND}")),
        };
    }
    let found: Found = serde_json::from_slice(body).map_err(garbled)?;
    Ok(match found.schema_type.as_deref() {
        None | Some("AVRO") => {
            if found.references.is_some_and(|references| !references.is_empty()) {
                Known::Nothing("the registry's schema refers to others".into())
            } else if found.schema.len() > WRITER_SCHEMA_BYTES_MAX {
                let length = found.schema.len();
                Known::Nothing(format!("the registry's schema has {length} bytes, more than {WRITER_SCHEMA_BYTES_MAX}"))
            } else {
                Known::Avro(found.schema.into())
            }
        }
        Some(_) => Known::Nothing("the registry's schema is none of Avro".into()),
    })
}

/// The innermost cause, without the address: what the operator can act on.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
pub(crate) mod tests;

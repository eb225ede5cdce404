//! The object store in a bucket of S3, or of a service that speaks its protocol.
//!
//! What a store has to do, and these do: an object is durable, whole and seen by everyone once its put has returned, and a
//! put with `If-None-Match: *` is refused when the object is there. Nothing here is trusted beyond that: whatever is
//! read is verified (see [`crate::verified`]).
//!
//! What is not here: where credentials come from. Whoever opens the store hands them over; nothing is read from the
//! environment, and no service is asked for them.

use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::Certificate;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, RetryConfig};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Allowed values of [`S3Config::timeout_ms`].
const TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Few: whoever writes tries again by itself, and says so.
const RETRIES: usize = 2;

/// A bucket, and the folder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// The folder below which all objects stand; may be empty.
    pub prefix: String,
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// How the service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// Base address of the service, `https://` or `http://`; that of AWS in the region, if left out.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket stands in the path of an address, not in its host name. By default, if there is an endpoint.
    pub path_style: Option<bool>,
    /// How long a request may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for S3Config {
    fn default() -> Self {
        Self { endpoint: None, region: "us-east-1".to_owned(), path_style: None, timeout_ms: 60_000 }
    }
}

/// Who asks. `Debug` does not show the secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The access key's id.
    pub key_id: String,
    /// The secret access key.
    pub secret_key: String,
    /// The token of a session, for temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Why a bucket cannot be used as configured. Nothing was asked of it yet.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The bucket's name is none.
    #[error("{bucket:?} is no bucket's name: expected 3 to 63 of a–z, 0–9, '-' and '.'")]
    Bucket {
        /// What was given.
        bucket: String,
    },
    /// The folder in the bucket has no usable name.
    #[error("the folder {prefix:?} in the bucket: {reason}")]
    Prefix {
        /// What was given.
        prefix: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The endpoint is no address.
    #[error("endpoint = {endpoint:?}: expected an address such as https://s3.example.org or http://127.0.0.1:9000")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The time limit is out of range.
    #[error("timeout_ms = {timeout_ms}: expected {} to {}", TIMEOUT_MS.start(), TIMEOUT_MS.end())]
    Timeout {
        /// What was given.
        timeout_ms: u64,
    },
    /// A credential is empty.
    #[error("the {what} of the credentials is empty")]
    Credentials {
        /// Which.
        what: &'static str,
    },
    /// The client cannot be set up.
    #[error("the client of the bucket cannot be set up: {0}")]
    Client(#[from] object_store::Error),
}

impl S3Config {
    /// Checks values and their ranges.
    ///
    /// # Errors
    /// [`S3Error`], which names the key.
    pub fn check(&self) -> Result<(), S3Error> {
        if !TIMEOUT_MS.contains(&self.timeout_ms) {
            return Err(S3Error::Timeout { timeout_ms: self.timeout_ms });
        }
        self.endpoint.as_deref().map_or(Ok(()), |endpoint| split(endpoint).map(drop))
    }

    fn endpoint_of(&self, bucket: &str) -> Result<Option<String>, S3Error> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let (scheme, rest) = split(endpoint)?;
        Ok(Some(if self.is_path_style() { endpoint.clone() } else { format!("{scheme}://{bucket}.{rest}") }))
    }

    fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }
}

/// Scheme and the rest of an endpoint.
fn split(endpoint: &str) -> Result<(&str, &str), S3Error> {
    let wrong = || S3Error::Endpoint { endpoint: endpoint.chars().take(200).collect() };
    let (scheme, rest) = endpoint.split_once("://").ok_or_else(wrong)?;
    let plain = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '#'));
    if matches!(scheme, "http" | "https") && plain { Ok((scheme, rest)) } else { Err(wrong()) }
}

/// Sets up a client of the bucket; nothing is asked of it yet.
///
/// `root_certificate` are PEM certificates that the service is checked by besides those of the system.
pub(crate) fn open(
    location: &S3Location,
    config: &S3Config,
    credentials: &S3Credentials,
    root_certificate: Option<&[u8]>,
) -> Result<PrefixStore<AmazonS3>, S3Error> {
    config.check()?;
    check_bucket(&location.bucket)?;
    let prefix = Path::parse(&location.prefix)
        .map_err(|error| S3Error::Prefix { prefix: location.prefix.clone(), reason: error.to_string() })?;
    for (what, value) in [("key id", &credentials.key_id), ("secret key", &credentials.secret_key)] {
        if value.is_empty() {
            return Err(S3Error::Credentials { what });
        }
    }
    let mut options = ClientOptions::new()
        .with_timeout(Duration::from_millis(config.timeout_ms))
        .with_connect_timeout(CONNECT_TIMEOUT)
        // In the open only where the endpoint says so.
        .with_allow_http(config.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://")));
    for certificate in root_certificate.map(Certificate::from_pem_bundle).transpose()?.into_iter().flatten() {
        options = options.with_root_certificate(certificate);
    }
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&location.bucket)
        .with_region(&config.region)
        .with_virtual_hosted_style_request(!config.is_path_style())
        .with_access_key_id(&credentials.key_id)
        .with_secret_access_key(&credentials.secret_key)
        .with_client_options(options)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES,
            retry_timeout: Duration::from_millis(config.timeout_ms),
        });
    if let Some(endpoint) = config.endpoint_of(&location.bucket)? {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(token) = &credentials.session_token {
        builder = builder.with_token(token);
    }
    Ok(PrefixStore::new(builder.build()?, prefix))
}

/// Names become part of a host name or of a path.
fn check_bucket(bucket: &str) -> Result<(), S3Error> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    let ends = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = bucket.as_bytes();
    let fits = (3..=63).contains(&bytes.len()) && bytes.iter().all(|c| plain(*c));
    if fits && ends(bytes.first()) && ends(bytes.last()) && !bucket.contains("..") {
        return Ok(());
    }
    Err(S3Error::Bucket { bucket: bucket.chars().take(100).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(bucket: &str, prefix: &str) -> S3Location {
        S3Location { bucket: bucket.into(), prefix: prefix.into() }
    }

    fn credentials() -> S3Credentials {
        S3Credentials { key_id: "city".into(), secret_key: "hunter2".into(), session_token: Some("hunter3".into()) }
    }

    fn config(endpoint: &str, path_style: Option<bool>) -> S3Config {
        S3Config { endpoint: Some(endpoint.into()), path_style, ..S3Config::default() }
    }

    #[test]
    fn a_bucket_stands_in_the_path_or_in_the_host_name() {
        let endpoint = |config: S3Config| config.endpoint_of("city").unwrap();
        assert_eq!(endpoint(S3Config::default()), None);
        assert!(!S3Config::default().is_path_style());
        let own = "https://s3.example.org:9000";
        assert_eq!(endpoint(config(own, None)).as_deref(), Some(own));
        assert_eq!(endpoint(config(own, Some(false))).as_deref(), Some("https://city.s3.example.org:9000"));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refusal = |location: S3Location, config: S3Config| {
            open(&location, &config, &credentials(), None).unwrap_err().to_string()
        };
        for bucket in ["", "ab", "City", "a/b", "-city", "city.", "a..b", &"x".repeat(64)] {
            let said = refusal(location(bucket, ""), S3Config::default());
            assert!(said.contains("no bucket's name"), "{bucket:?}: {said}");
        }
        let said = refusal(location("city", "a//b"), S3Config::default());
        assert!(said.contains("the folder \"a//b\""), "{said}");
        for endpoint in ["127.0.0.1:9000", "ftp://host", "http://", "http://a b", "http://city:hunter2@host"] {
            let said = refusal(location("city", ""), config(endpoint, None));
            assert!(said.starts_with("endpoint = "), "{endpoint:?}: {said}");
        }
        let said = refusal(location("city", ""), S3Config { timeout_ms: 5, ..S3Config::default() });
        assert!(said.contains("timeout_ms = 5: expected 100 to 600000"), "{said}");
        let nobody = S3Credentials { key_id: String::new(), ..credentials() };
        let said = open(&location("city", ""), &S3Config::default(), &nobody, None).unwrap_err().to_string();
        assert!(said.contains("key id"), "{said}");
    }

    #[test]
    fn nothing_shows_the_secrets() {
        let store = open(&location("city", "a/b"), &S3Config::default(), &credentials(), None).unwrap();
        for shown in [format!("{store:?} {store}"), format!("{:?}", credentials())] {
            assert!(!shown.contains("hunter"), "{shown}");
        }
    }
}

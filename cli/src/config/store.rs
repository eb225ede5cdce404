//! `[store]`: where segments and batch secrets are kept, and how a bucket is reached.
//!
//! ```text
//! objects = "objects"                         a folder, relative to the file
//! objects = "file:///srv/cairn/objects"       a folder
//! objects = "s3://city-records/anchored"      a bucket of S3 or of a service like it, and a folder in it
//! ```
//!
//! Credentials of a bucket come from a file that only its owner can read, or, without one, from the environment variables
//! that every S3 client knows. They never stand in `cairn.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cairn_anchor::s3::{S3Config, S3Credentials, S3Location};
use cairn_anchor::store::SegmentStore;
use serde::{Deserialize, Serialize};
use url::Url;

use super::settings_file;

const KEY_ID: &str = "aws_access_key_id";
const SECRET_KEY: &str = "aws_secret_access_key";
const SESSION_TOKEN: &str = "aws_session_token";

/// Where segments and batch secrets are kept; relative paths start at the folder of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreSection {
    /// Folder or URL of the segments. It need not be trusted.
    pub(crate) objects: String,
    /// Folder of the batch secrets, encrypted under `keys/secrets.key`.
    pub(crate) secrets: PathBuf,
    /// How the bucket of an `s3://` URL is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) s3: Option<S3Section>,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self { objects: "objects".into(), secrets: "secrets".into(), s3: None }
    }
}

/// How a bucket is reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct S3Section {
    /// Base address of the service; AWS, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The region that requests are signed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// Whether the bucket stands in the path of an address rather than in its host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_style: Option<bool>,
    /// How long a request may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_ms: Option<u64>,
    /// PEM file of a root certificate that the service is checked by besides those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root_certificate: Option<PathBuf>,
    /// File of the credentials, one `name=value` a line: nobody but its owner may read it. The environment, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials_file: Option<PathBuf>,
}

/// What `objects` names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Objects {
    /// A folder.
    Folder(PathBuf),
    /// A bucket and a folder in it.
    Bucket(S3Location),
}

impl StoreSection {
    /// Checks all that can be told without reading another file.
    pub(super) fn check(&self) -> Result<()> {
        let objects = self.objects(Path::new("/"))?;
        if self.s3.is_some() && matches!(objects, Objects::Folder(_)) {
            bail!("[store.s3] is for a bucket, and [store] objects = {:?} is a folder", self.objects);
        }
        self.s3().check().context("[store.s3]")
    }

    /// Where the segments are; `folder` is that of `cairn.toml`.
    pub(crate) fn objects(&self, folder: &Path) -> Result<Objects> {
        let given = &self.objects;
        let wrong = || {
            format!(
                "[store] objects = {given:?}: expected a folder, file:///FOLDER, or s3://BUCKET/FOLDER without user, \
                 port, '?' and '#'"
            )
        };
        if !given.contains("://") {
            if given.is_empty() {
                bail!(wrong());
            }
            return Ok(Objects::Folder(folder.join(given)));
        }
        let url = Url::parse(given).with_context(wrong)?;
        let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        let plain = plain && url.password().is_none() && url.port().is_none();
        match url.scheme() {
            "file" if plain => match url.to_file_path() {
                Ok(path) => Ok(Objects::Folder(path)),
                Err(()) => bail!(wrong()),
            },
            "s3" if plain => Ok(Objects::Bucket(S3Location {
                bucket: url.host_str().filter(|host| !host.is_empty()).with_context(wrong)?.to_owned(),
                prefix: url.path().trim_matches('/').to_owned(),
            })),
            _ => bail!(wrong()),
        }
    }

    /// The folder of the segments, for what only works on one.
    pub(crate) fn objects_folder(&self, folder: &Path) -> Result<PathBuf> {
        match self.objects(folder)? {
            Objects::Folder(path) => Ok(path),
            Objects::Bucket(location) => bail!("[store] objects = {location}: expected a folder here"),
        }
    }

    fn s3(&self) -> S3Config {
        let (section, default) = (self.s3.clone().unwrap_or_default(), S3Config::default());
        S3Config {
            endpoint: section.endpoint,
            region: section.region.unwrap_or(default.region),
            path_style: section.path_style,
            timeout_ms: section.timeout_ms.unwrap_or(default.timeout_ms),
        }
    }

    /// The store of the segments; `folder` is that of `cairn.toml`.
    pub(crate) fn open_objects(&self, folder: &Path) -> Result<SegmentStore> {
        let location = match self.objects(folder)? {
            Objects::Folder(path) => return Ok(SegmentStore::on_disk(&path)?),
            Objects::Bucket(location) => location,
        };
        let section = self.s3.clone().unwrap_or_default();
        let credentials = match &section.credentials_file {
            Some(file) => from_file(&folder.join(file))?,
            None => from_environment(|name| std::env::var(name).ok())?,
        };
        let root = section.root_certificate.map(|file| {
            let file = folder.join(file);
            std::fs::read(&file).with_context(|| format!("[store.s3] root_certificate {}", file.display()))
        });
        let opened = SegmentStore::on_s3(&location, &self.s3(), &credentials, root.transpose()?.as_deref());
        opened.with_context(|| format!("[store] objects = {location}"))
    }
}

fn from_file(file: &Path) -> Result<S3Credentials> {
    let key = "[store.s3] credentials_file";
    let mut settings = settings_file::read(key, file)?;
    let mut take = |name: &str| settings.remove(name).filter(|value| !value.is_empty());
    let missing = |name: &str| format!("{key} {}: expected a line {name}=…", file.display());
    let credentials = S3Credentials {
        key_id: take(KEY_ID).with_context(|| missing(KEY_ID))?,
        secret_key: take(SECRET_KEY).with_context(|| missing(SECRET_KEY))?,
        session_token: take(SESSION_TOKEN),
    };
    match settings.keys().find(|name| *name != SESSION_TOKEN) {
        None => Ok(credentials),
        Some(name) => bail!(
            "{key} {}: {name} is not known; expected {KEY_ID}, {SECRET_KEY} and, for temporary credentials, \
             {SESSION_TOKEN}",
            file.display()
        ),
    }
}

fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<S3Credentials> {
    let take = |name: &str| variable(&name.to_ascii_uppercase()).filter(|value| !value.is_empty());
    match (take(KEY_ID), take(SECRET_KEY)) {
        (Some(key_id), Some(secret_key)) => {
            Ok(S3Credentials { key_id, secret_key, session_token: take(SESSION_TOKEN) })
        }
        _ => bail!(
            "the bucket needs credentials: name a file of mode 0600 with {KEY_ID}=… and {SECRET_KEY}=… by [store.s3] \
             credentials_file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn section(objects: &str) -> StoreSection {
        StoreSection { objects: objects.into(), ..StoreSection::default() }
    }

    #[test]
    fn objects_are_a_folder_or_a_url() {
        let objects = |given: &str| section(given).objects(Path::new("/net")).unwrap();
        assert_eq!(objects("objects"), Objects::Folder("/net/objects".into()));
        assert_eq!(objects("/srv/objects"), Objects::Folder("/srv/objects".into()));
        assert_eq!(objects("file:///srv/my%20objects"), Objects::Folder("/srv/my objects".into()));
        let bucket = |bucket: &str, prefix: &str| {
            Objects::Bucket(S3Location { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        };
        assert_eq!(objects("s3://city"), bucket("city", ""));
        assert_eq!(objects("s3://city/a/b/"), bucket("city", "a/b"));
    }

    #[test]
    fn other_urls_are_refused_with_what_is_expected() {
        for wrong in [
            "",
            "gs://city/a",
            "http://host/a",
            "file://host/a",
            "s3://",
            "s3://key:secret@city/a",
            "s3://city/a?region=x",
            "s3://city/a#b",
            "s3://city:9000/a",
        ] {
            let refusal = format!("{:#}", section(wrong).check().unwrap_err());
            assert!(refusal.starts_with("[store] objects = "), "{wrong:?}: {refusal}");
            assert!(refusal.contains("s3://BUCKET/FOLDER"), "{wrong:?}: {refusal}");
        }
        let section = StoreSection { s3: Some(S3Section::default()), ..StoreSection::default() };
        let refusal = section.check().unwrap_err().to_string();
        assert!(refusal.contains("[store.s3] is for a bucket"), "{refusal}");
        let endpoint = Some("localhost:9000".to_owned());
        let section = StoreSection { s3: Some(S3Section { endpoint, ..S3Section::default() }), ..section_of_bucket() };
        let refusal = format!("{:#}", section.check().unwrap_err());
        assert!(refusal.contains("[store.s3]: endpoint = \"localhost:9000\""), "{refusal}");
    }

    fn section_of_bucket() -> StoreSection {
        section("s3://city/records")
    }

    #[test]
    fn credentials_come_from_a_file_that_only_its_owner_reads_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s3.credentials");
        let write = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        let good = "aws_access_key_id = city\naws_secret_access_key = hunter2=\n";
        write(good, 0o600);
        let expected = S3Credentials { key_id: "city".into(), secret_key: "hunter2=".into(), session_token: None };
        assert!(from_file(&file).unwrap() == expected);
        let more = format!("{good}region=hunter2");
        for (text, mode, said) in [
            (good, 0o644, "mode 0644"),
            ("aws_access_key_id=hunter2", 0o600, "expected a line aws_secret_access_key"),
            ("aws_access_key_id=\naws_secret_access_key=hunter2", 0o600, "expected a line aws_access_key_id"),
            ("aws_secret_access_key hunter2", 0o600, "line 1: expected name=value"),
            (more.as_str(), 0o600, "region is not known"),
        ] {
            write(text, mode);
            let refusal = format!("{:#}", from_file(&file).unwrap_err());
            assert!(refusal.contains(said) && !refusal.contains("hunter2"), "{text:?}: {refusal}");
        }
    }

    #[test]
    fn without_a_file_the_environment_is_asked() {
        let variables =
            |names: &'static [&str]| move |name: &str| names.contains(&name).then(|| format!("value of {name}"));
        let found = from_environment(variables(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])).unwrap();
        assert_eq!((found.key_id.as_str(), found.session_token), ("value of AWS_ACCESS_KEY_ID", None));
        let refusal = from_environment(variables(&["AWS_ACCESS_KEY_ID"])).unwrap_err().to_string();
        assert!(refusal.contains("credentials_file") && refusal.contains("AWS_SECRET_ACCESS_KEY"), "{refusal}");
    }
}

//! Where events about queries go: `[query.openlineage]` of `cairn.toml`.
//!
//! ```text
//! # openlineage.properties, mode 0600
//! token=…
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cairn_query::{LineageConfig, LineageTarget};
use serde::{Deserialize, Serialize};

use super::url;

const SECTION: &str = "[query.openlineage]";

/// Events in the form of OpenLineage; relative paths start at the folder of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenLineageSection {
    /// A file that events are appended to, one a line. This or `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// An address that takes events by POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// File of a `token`, sent as bearer token to `url`, that nobody but its owner may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credentials_file: Option<PathBuf>,
    /// PEM file of the authority that the certificate of `url` is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root_certificate: Option<PathBuf>,
    /// The namespace of jobs and datasets; `cairn://CHAIN`, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// How many events may wait; further ones are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue_max: Option<usize>,
    /// How long one request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

impl OpenLineageSection {
    /// What the query role sends events by. Reads the files that it names.
    pub(crate) fn effective(&self, folder: &Path, chain_id: &str) -> Result<LineageConfig> {
        let target = match (&self.file, &self.url) {
            (Some(file), None) if self.credentials_file.is_none() && self.root_certificate.is_none() => {
                LineageTarget::File(folder.join(file))
            }
            (Some(_), None) => bail!("{SECTION}: credentials_file and root_certificate belong to url, found file"),
            (None, Some(address)) => LineageTarget::Http {
                url: url(address).with_context(|| format!("{SECTION} url"))?,
                token: self.credentials_file.as_ref().map(|file| token(&folder.join(file))).transpose()?,
                root_certificate: self.root_certificate.as_ref().map(|file| pem(&folder.join(file))).transpose()?,
            },
            _ => bail!("{SECTION}: expected file or url, one of them"),
        };
        let namespace = self.namespace.clone().unwrap_or_else(|| format!("cairn://{chain_id}"));
        let mut config = LineageConfig::new(namespace, target);
        config.queue_max = self.queue_max.unwrap_or(config.queue_max);
        config.timeout_ms = self.timeout_ms.unwrap_or(config.timeout_ms);
        config.check().context(SECTION)?;
        Ok(config)
    }
}

fn pem(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("{SECTION} root_certificate {}", file.display()))
}

fn token(file: &Path) -> Result<String> {
    let name = format!("{SECTION} credentials_file");
    let mut values = super::settings_file::read(&name, file)?;
    match values.remove("token") {
        Some(token) if values.is_empty() => Ok(token),
        _ => bail!("{name} {}: expected token, and nothing else", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn effective(toml: &str, folder: &Path) -> Result<LineageConfig> {
        toml::from_str::<OpenLineageSection>(toml).unwrap().effective(folder, "city")
    }

    #[test]
    fn a_file_or_an_address_and_the_chain_names_the_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let config = effective("file = 'lineage.ndjson'", folder.path()).unwrap();
        assert_eq!(config.target, LineageTarget::File(folder.path().join("lineage.ndjson")));
        assert_eq!((config.namespace.as_str(), config.queue_max), ("cairn://city", 1_024));
        let secret = folder.path().join("openlineage.properties");
        fs::write(&secret, "token=hunter2").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let toml =
            "url = 'https://lineage:5000/api/v1/lineage'\ncredentials_file = 'openlineage.properties'\nqueue_max = 7";
        let config = effective(toml, folder.path()).unwrap();
        let LineageTarget::Http { url, token, .. } = &config.target else { panic!("{config:?}") };
        assert_eq!((url.path(), token.as_deref(), config.queue_max), ("/api/v1/lineage", Some("hunter2"), 7));
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", effective(toml, folder.path()).unwrap_err());
        assert!(error.contains("mode 0644") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (toml, expected) in [
            ("", "file or url"),
            ("file = 'a'\nurl = 'http://b'", "one of them"),
            ("url = 'ftp://b'", "url"),
            ("url = 'http://user:hunter2@b/'", "credentials_file"),
            ("file = 'a'\ncredentials_file = 'c'", "belong to url"),
            ("file = 'a'\nqueue_max = 0", "queue_max"),
            ("file = 'a'\nnamespace = ''", "namespace"),
        ] {
            let error = format!("{:#}", effective(toml, folder.path()).unwrap_err());
            assert!(error.contains(SECTION) && error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }
}

//! The schema registry that ingest asks: `[ingest.registry]` of `cairn.toml`, and what it wants to know of its clients.
//!
//! ```text
//! # registry.properties, mode 0600: a user and a password, or a token
//! username=city
//! password=correct horse battery staple
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cairn_ingest::RegistryConfig;
use cairn_ingest::registry::Credentials;
use serde::{Deserialize, Serialize};

const FILE: &str = "[ingest.registry] credentials_file";

/// Where schemas of writers are looked up; relative paths start at the folder of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistrySection {
    /// Base address, without credentials.
    url: String,
    /// File of `username` and `password`, or of a `token`, that nobody but its owner may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credentials_file: Option<PathBuf>,
    /// PEM file of the authority that the registry's certificate is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root_certificate: Option<PathBuf>,
    /// How long one answer may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    /// How many schemas are kept in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cached_schemas_max: Option<usize>,
    /// How long a schema is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cached_age_s_max: Option<u64>,
}

impl RegistrySection {
    /// What ingest is started with. Reads the files that it names.
    pub(super) fn effective(&self, folder: &Path) -> Result<RegistryConfig> {
        let mut config = RegistryConfig::new(&self.url);
        config.timeout_ms = self.timeout_ms.unwrap_or(config.timeout_ms);
        config.cached_schemas_max = self.cached_schemas_max.unwrap_or(config.cached_schemas_max);
        config.cached_age_s_max = self.cached_age_s_max.unwrap_or(config.cached_age_s_max);
        if let Some(file) = &self.credentials_file {
            config.credentials = Some(credentials(&folder.join(file))?);
        }
        if let Some(file) = &self.root_certificate {
            let file = folder.join(file);
            let pem = fs::read(&file);
            config.root_certificate =
                Some(pem.with_context(|| format!("[ingest.registry] root_certificate {}", file.display()))?);
        }
        config.check().context("[ingest.registry]")?;
        Ok(config)
    }
}

fn credentials(file: &Path) -> Result<Credentials> {
    let mut values = super::settings_file::read(FILE, file)?;
    let (username, password, token) = (values.remove("username"), values.remove("password"), values.remove("token"));
    match (username, password, token) {
        (Some(username), Some(password), None) if values.is_empty() => Ok(Credentials::Password { username, password }),
        (None, None, Some(token)) if values.is_empty() => Ok(Credentials::Token(token)),
        _ => bail!("{FILE} {}: expected username and password, or token, and nothing else", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn effective(text: &str, mode: u32) -> Result<RegistryConfig> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registry.properties");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let toml = "url = 'https://registry:8081'\ncredentials_file = 'registry.properties'\ntimeout_ms = 700";
        toml::from_str::<RegistrySection>(toml).unwrap().effective(folder.path())
    }

    #[test]
    fn credentials_come_from_a_file_of_their_own() {
        let config = effective("username = city\npassword=a=b\n", 0o600).unwrap();
        let expected = Credentials::Password { username: "city".into(), password: "a=b".into() };
        assert_eq!((config.credentials, config.timeout_ms), (Some(expected), 700));
        let config = effective("token=t", 0o600).unwrap();
        assert_eq!(config.credentials, Some(Credentials::Token("t".into())));
    }

    #[test]
    fn a_file_that_others_can_read_or_that_says_something_else_is_refused_without_showing_it() {
        for (text, mode, expected) in [
            ("token=hunter2", 0o640, "mode 0640"),
            ("password=hunter2", 0o600, "username and password, or token"),
            ("username=u\npassword=hunter2\ntoken=hunter2", 0o600, "and nothing else"),
            ("token=hunter2\nother=hunter2", 0o600, "and nothing else"),
        ] {
            let error = format!("{:#}", effective(text, mode).unwrap_err());
            assert!(error.contains(FILE) && error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_in_the_open_is_refused() {
        let toml = "url = 'http://city:hunter2@registry:8081'";
        let error = toml::from_str::<RegistrySection>(toml).unwrap().effective(Path::new(".")).unwrap_err();
        assert!(format!("{error:#}").contains("holds credentials") && !format!("{error:#}").contains("hunter2"));
        assert!(toml::from_str::<RegistrySection>("url = 'http://x'\npassword = 'hunter2'").is_err());
    }
}

//! The settings of Kafka clients: those of `cairn.toml`, and the secret ones of a file that only its owner can read.
//!
//! ```text
//! # kafka.properties, mode 0600
//! sasl.username=city
//! sasl.password=correct horse battery staple
//! ```
//!
//! See [`settings_file`] for the form of such a file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use cairn_ingest::kafka::is_secret;

use super::{KafkaSection, settings_file};

/// Settings that name a file.
const PATHS: &[&str] = &[
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "https.ca.location",
];

/// All settings of both places; `folder` is that of `cairn.toml`.
pub(super) fn effective_settings(section: &KafkaSection, folder: &Path) -> Result<BTreeMap<String, String>> {
    if let Some(key) = section.settings.keys().find(|key| is_secret(key)) {
        bail!(
            "[kafka.settings] {key} is a secret, and everyone may read this file: put it into a file of mode 0600 and name \
             that with [kafka] settings_file"
        );
    }
    let mut settings = section.settings.clone();
    if let Some(file) = &section.settings_file {
        let file = folder.join(file);
        for (key, value) in settings_file::read("[kafka] settings_file", &file)? {
            if settings.insert(key.clone(), value).is_some() {
                bail!("{key} stands in [kafka.settings] and in {}: expected one of them", file.display());
            }
        }
    }
    for key in PATHS {
        if let Some(value) = settings.get_mut(*key)
            && value.as_str() != "probe"
        {
            *value = folder.join(value.as_str()).to_string_lossy().into_owned();
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn section(settings: &[(&str, &str)], file: Option<&str>) -> KafkaSection {
        KafkaSection {
            brokers: "127.0.0.1:9092".into(),
            embedded: false,
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            settings_file: file.map(Into::into),
            effective: cairn_ingest::KafkaConfig::default(),
        }
    }

    fn write(folder: &Path, text: &str, mode: u32) {
        let file = folder.join("kafka.properties");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn secrets_come_from_a_file_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "# secret\n\nsasl.username = city\nsasl.password= a=b # c \n", 0o600);
        let given =
            section(&[("security.protocol", "sasl_ssl"), ("ssl.ca.location", "ca.pem")], Some("kafka.properties"));
        let settings = effective_settings(&given, folder.path()).unwrap();
        assert_eq!(settings["sasl.password"], "a=b # c");
        assert_eq!(settings["sasl.username"], "city");
        assert_eq!(settings["ssl.ca.location"], folder.path().join("ca.pem").to_string_lossy());
        assert_eq!(settings["security.protocol"], "sasl_ssl");
        let probed = effective_settings(&section(&[("ssl.ca.location", "probe")], None), folder.path()).unwrap();
        assert_eq!(probed["ssl.ca.location"], "probe");
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_wrong_is_refused_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let given = section(&[("sasl.username", "city")], Some("kafka.properties"));
        let refusal = || format!("{:#}", effective_settings(&given, folder.path()).unwrap_err());
        assert!(refusal().contains("cannot be read"), "{}", refusal());
        for (text, mode, expected) in [
            ("sasl.password=hunter2", 0o640, "mode 0640"),
            ("sasl.password=hunter2", 0o604, "chmod 600"),
            ("sasl.password hunter2", 0o600, "line 1: expected name=value"),
            ("sasl.password=hunter2\nsasl.password=hunter2", 0o600, "line 2: sasl.password stands there twice"),
            ("sasl.username=hunter2", 0o600, "sasl.username stands in [kafka.settings] and in"),
        ] {
            write(folder.path(), text, mode);
            assert!(refusal().contains(expected) && !refusal().contains("hunter2"), "{text}: {}", refusal());
        }
    }

    #[test]
    fn secrets_in_the_open_are_refused() {
        let given = section(&[("sasl.password", "hunter2")], None);
        let refusal = format!("{:#}", effective_settings(&given, Path::new(".")).unwrap_err());
        assert!(refusal.contains("sasl.password") && refusal.contains("settings_file"), "{refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

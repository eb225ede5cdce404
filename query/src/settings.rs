//! What a client may `SET` in its session, and what each setting does.
//!
//! | setting | effect |
//! | --- | --- |
//! | `cairn.evidence` | `on`: the node signs what it answers; `cairn_evidence(id)` gives it as a file |
//! | `cairn.as_of` | the height that statements are computed at; `latest` follows the chain |
//! | `cairn.max_staleness` | how old, by its time, the newest block may be for statements without a height of their own; 0 is any |
//! | `cairn.on_unverified` | what to do about segments that do not verify: `refuse`, `exclude` or `flag` |
//! | `statement_timeout` | how long a statement may run, up to the server's limit; 0 is that limit |
//! | `search_path` | the schema of table names without one |
//! | `timezone` | the zone of timestamps without one, and of their text |
//! | `client_min_messages` | `warning` or higher keeps the notice about the height back |
//!
//! What drivers set on their own and what changes nothing here (`application_name`, `datestyle`, …) is accepted and
//! told back by `SHOW`. Everything else is refused, the engine's own options included: some of them name files.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_proof::units::Height;

use crate::config::QueryConfig;
use crate::error::{QueryError, Result, SqlState};
use crate::scope::OnUnverified;

/// Settings that clients send and read back, with their defaults. They change nothing but, at most, the text of values.
const ACCEPTED: [(&str, &str); 24] = [
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("geqo", "on"),
    ("idle_in_transaction_session_timeout", "0"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("jit", "off"),
    ("lc_collate", "C"),
    ("lc_messages", "C"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("row_security", "on"),
    ("server_encoding", "UTF8"),
    ("session_characteristics", ""),
    ("standard_conforming_strings", "on"),
    ("synchronous_commit", "on"),
    ("transaction_isolation", "repeatable read"),
    ("transaction_read_only", "on"),
];

/// Settings that can only be shown.
const READ_ONLY: [&str; 8] = [
    "cairn.height",
    "integer_datetimes",
    "lc_collate",
    "max_identifier_length",
    "server_encoding",
    "server_version",
    "transaction_isolation",
    "session_characteristics",
];

/// The names by which `SHOW TRANSACTION ISOLATION LEVEL` and the like reach a setting.
const ALIASES: [(&str, &str); 3] = [
    ("time.zone", "timezone"),
    ("transaction.isolation.level", "transaction_isolation"),
    ("session.characteristics", "session_characteristics"),
];

/// A session's settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) as_of: Option<Height>,
    pub(crate) evidence: bool,
    pub(crate) max_staleness: Option<Duration>,
    pub(crate) on_unverified: OnUnverified,
    pub(crate) timeout: Option<Duration>,
    pub(crate) search_path: String,
    pub(crate) time_zone: String,
    others: BTreeMap<&'static str, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            as_of: None,
            evidence: false,
            max_staleness: None,
            on_unverified: OnUnverified::Refuse,
            timeout: None,
            search_path: "public".to_owned(),
            time_zone: "UTC".to_owned(),
            others: BTreeMap::new(),
        }
    }
}

fn unknown(name: &str) -> QueryError {
    let error =
        QueryError::statement(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""));
    if name.starts_with("datafusion.") {
        return error.with_hint("the engine's own options are set by the operator, in the configuration file");
    }
    error.with_hint(
        "settings are cairn.as_of, cairn.evidence, cairn.max_staleness, cairn.on_unverified, statement_timeout, search_path, timezone and \
         client_min_messages",
    )
}

fn invalid(name: &str, value: &str, allowed: &str) -> QueryError {
    QueryError::statement(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"{name}\": \"{value}\""),
    )
    .with_hint(allowed.to_owned())
}

/// The setting's usual name.
pub(crate) fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, setting)| setting)
}

impl Settings {
    /// Sets `name`, or resets it to its default without a value.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>, newest: Height) -> Result<()> {
        let name = canonical(name);
        if READ_ONLY.contains(&name) {
            return Err(QueryError::not_allowed(SqlState("55P02"), format!("parameter \"{name}\" cannot be changed")));
        }
        match name {
            "cairn.as_of" => self.as_of = value.map(|value| as_of(value, newest)).transpose()?.flatten(),
            "cairn.evidence" => self.evidence = value.map(evidence).transpose()?.unwrap_or_default(),
            "cairn.max_staleness" => {
                self.max_staleness = value.map(|value| duration(name, value, NO_BOUND)).transpose()?.flatten();
            }
            "cairn.on_unverified" => self.on_unverified = value.map(on_unverified).transpose()?.unwrap_or_default(),
            "statement_timeout" => {
                self.timeout = value.map(|value| duration(name, value, THE_SERVERS)).transpose()?.flatten();
            }
            "search_path" => self.search_path = search_path(value),
            "timezone" => self.time_zone = time_zone(value)?,
            name => {
                let (known, _) = ACCEPTED.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(name))?;
                self.set_other(known, value)?;
            }
        }
        Ok(())
    }

    fn set_other(&mut self, name: &'static str, value: Option<&str>) -> Result<()> {
        let Some(value) = value else {
            self.others.remove(name);
            return Ok(());
        };
        let plain = value.to_ascii_lowercase();
        match name {
            "client_encoding" if !matches!(plain.as_str(), "utf8" | "utf-8" | "unicode") => {
                return Err(invalid(name, value, "texts are UTF-8"));
            }
            "standard_conforming_strings" if !is_on(&plain) => {
                return Err(invalid(name, value, "it is on, as in the SQL standard"));
            }
            "default_transaction_read_only" | "transaction_read_only" if !is_on(&plain) => {
                return Err(QueryError::not_allowed(
                    SqlState::READ_ONLY,
                    "cannot set a transaction to read-write: this server only reads",
                ));
            }
            _ => {}
        }
        if value.len() > 256 {
            return Err(invalid(name, "…", "at most 256 bytes"));
        }
        self.others.insert(name, value.to_owned());
        Ok(())
    }

    /// The value of `name` as text, as `SHOW` gives it.
    pub(crate) fn show(&self, name: &str, config: &QueryConfig, height: Height) -> Result<String> {
        Ok(match canonical(name) {
            "cairn.as_of" => self.as_of.map_or_else(|| "latest".to_owned(), |height| height.0.to_string()),
            "cairn.evidence" => if self.evidence { "on" } else { "off" }.to_owned(),
            "cairn.height" => height.0.to_string(),
            "cairn.max_staleness" => {
                format!("{}ms", self.max_staleness.map_or(0, |staleness| staleness.as_millis()))
            }
            "cairn.on_unverified" => self.on_unverified.name().to_owned(),
            "statement_timeout" => format!("{}ms", self.timeout(config).as_millis()),
            "search_path" => self.search_path.clone(),
            "timezone" => self.time_zone.clone(),
            "server_version" => SERVER_VERSION.to_owned(),
            name => {
                let (known, default) =
                    ACCEPTED.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(name))?;
                self.others.get(known).cloned().unwrap_or_else(|| (*default).to_owned())
            }
        })
    }

    /// The settings that an answer depends on, beside the height that evidence names anyway: by name, ascending.
    pub(crate) fn answer_depends_on(&self) -> Vec<(String, String)> {
        let all = [
            ("cairn.on_unverified", self.on_unverified.name()),
            ("search_path", &self.search_path),
            ("timezone", &self.time_zone),
        ];
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// How long a statement may run.
    pub(crate) fn timeout(&self, config: &QueryConfig) -> Duration {
        let most = config.statement_timeout_max();
        self.timeout.map_or(most, |wanted| wanted.min(most))
    }

    /// True if the client wants to hear notices.
    pub(crate) fn wants_notices(&self) -> bool {
        let level = self.others.get("client_min_messages").map(|level| level.to_ascii_lowercase());
        !matches!(level.as_deref(), Some("warning" | "error" | "fatal" | "panic"))
    }

    /// The first schema of the search path.
    pub(crate) fn default_schema(&self) -> String {
        self.search_path
            .split(',')
            .map(|schema| schema.trim().trim_matches('"'))
            .find(|schema| !schema.is_empty() && *schema != "$user" && *schema != "pg_catalog")
            .unwrap_or("public")
            .to_owned()
    }
}

/// What this server says its version is: a Postgres version, so that clients know what to expect, and our own.
pub(crate) const SERVER_VERSION: &str = concat!("16.6 (Cairn ", env!("CARGO_PKG_VERSION"), ")");

fn is_on(value: &str) -> bool {
    matches!(value, "on" | "true" | "yes" | "1")
}

fn evidence(value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        value if is_on(value) => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(invalid("cairn.evidence", value, "on or off")),
    }
}

fn as_of(value: &str, newest: Height) -> Result<Option<Height>> {
    if matches!(value.to_ascii_lowercase().as_str(), "latest" | "newest" | "") {
        return Ok(None);
    }
    let height =
        value.parse::<u64>().map(Height).map_err(|_| invalid("cairn.as_of", value, "a block height, or latest"))?;
    if height > newest {
        return Err(QueryError::height_not_known(height, newest));
    }
    Ok(Some(height))
}

/// What 0 means for a statement's time, and for the age of blocks.
const THE_SERVERS: &str = "the server's limit";
const NO_BOUND: &str = "no limit";

fn on_unverified(value: &str) -> Result<OnUnverified> {
    OnUnverified::parse(value.trim()).ok_or_else(|| {
        let allowed =
            "refuse (fail), exclude (leave such segments out) or flag (give their rows with _verified = false)";
        invalid("cairn.on_unverified", value, allowed)
    })
}

/// A duration as Postgres writes it: milliseconds, or a number with ms, s, min, h or d. None for 0, "no limit".
fn duration(name: &str, value: &str, zero: &str) -> Result<Option<Duration>> {
    let wrong = || invalid(name, value, &format!("a number with ms, s, min, h or d, such as 30s; 0 is {zero}"));
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let milliseconds = number.checked_mul(factor).ok_or_else(wrong)?;
    Ok((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
}

fn search_path(value: Option<&str>) -> String {
    value.filter(|value| value.len() <= 256).unwrap_or("public").to_owned()
}

fn time_zone(value: Option<&str>) -> Result<String> {
    let value = value.unwrap_or("UTC").trim();
    // The engine and Arrow both know zones by name and by offset; whatever Arrow can parse, both can use.
    let name = if value.eq_ignore_ascii_case("utc") { "UTC" } else { value };
    name.parse::<arrow::array::timezone::Tz>()
        .map(|_| name.to_owned())
        .map_err(|_| invalid("TimeZone", value, "a zone such as UTC, Europe/Berlin or +02:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<Settings> {
        let mut settings = Settings::default();
        settings.set(name, Some(value), Height(10)).map(|()| settings)
    }

    #[test]
    fn a_height_must_be_known() {
        assert_eq!(set("cairn.as_of", "7").expect("7 is known").as_of, Some(Height(7)));
        assert_eq!(set("cairn.as_of", "latest").expect("latest").as_of, None);
        let error = set("cairn.as_of", "11").expect_err("11 is beyond the newest");
        assert_eq!(error.state, SqlState::INVALID_PARAMETER_VALUE);
        assert!(error.message.contains("block 11 is not known yet"), "{error}");
        assert!(set("cairn.as_of", "-1").is_err());
    }

    #[test]
    fn a_timeout_has_units_and_the_servers_limit() {
        let config = QueryConfig { statement_timeout_ms_max: 60_000, ..QueryConfig::default() };
        for (text, milliseconds) in
            [("250", 250), ("250ms", 250), ("3s", 3_000), ("1min", 60_000), ("2h", 60_000), ("0", 60_000)]
        {
            let settings = set("statement_timeout", text).expect(text);
            assert_eq!(settings.timeout(&config), Duration::from_millis(milliseconds), "{text}");
        }
        assert!(set("statement_timeout", "soon").is_err());
        assert!(set("statement_timeout", "18446744073709551615d").is_err());
    }

    #[test]
    fn what_to_do_about_unverified_segments_is_one_of_three() {
        assert_eq!(set("cairn.on_unverified", "Exclude").expect("a mode").on_unverified, OnUnverified::Exclude);
        assert_eq!(set("cairn.on_unverified", "flag").expect("a mode").on_unverified, OnUnverified::Flag);
        let error = set("cairn.on_unverified", "ignore").expect_err("no mode");
        assert_eq!(error.state, SqlState::INVALID_PARAMETER_VALUE);
        assert_eq!(Settings::default().on_unverified, OnUnverified::Refuse);
    }

    #[test]
    fn evidence_is_on_or_off() {
        assert!(set("cairn.evidence", "ON").expect("on").evidence);
        assert!(!set("cairn.evidence", "off").expect("off").evidence);
        assert!(!Settings::default().evidence);
        assert_eq!(set("cairn.evidence", "maybe").expect_err("neither").state, SqlState::INVALID_PARAMETER_VALUE);
        let names: Vec<_> = Settings::default().answer_depends_on().into_iter().map(|(name, _)| name).collect();
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn staleness_is_a_duration() {
        let settings = set("cairn.max_staleness", "30s").expect("a duration");
        assert_eq!(settings.max_staleness, Some(Duration::from_secs(30)));
        assert_eq!(set("cairn.max_staleness", "0").expect("no limit").max_staleness, None);
        assert!(set("cairn.max_staleness", "fresh").is_err());
    }

    #[test]
    fn unknown_settings_are_refused_and_the_engines_own_too() {
        let error =
            set("datafusion.runtime.temp_directory", "/").expect_err("the engine's options are not the client's");
        assert_eq!(error.state, SqlState::UNDEFINED_OBJECT);
        assert!(set("nonsense", "1").is_err());
        assert!(set("transaction_read_only", "off").is_err());
        assert!(set("client_encoding", "LATIN1").is_err());
        assert!(set("application_name", "psql").is_ok());
    }

    #[test]
    fn the_search_path_names_the_default_schema() {
        assert_eq!(set("search_path", "\"$user\", traffic, public").expect("a path").default_schema(), "traffic");
        assert_eq!(Settings::default().default_schema(), "public");
    }
}

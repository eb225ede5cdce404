//! Session options (Flight.proto, "Session management"): a session's settings by another door.
//!
//! `arrow-flight` 59 has no types of these messages, so the few that are needed are declared here, field by field as in
//! `Flight.proto`. An option's name is a setting's name, such as `cairn.as_of`.

use std::collections::HashMap;

use prost::Message;
use tonic::Status;

use super::status::protocol;
use crate::error::SqlState;
use crate::session::Session;

/// The actions, as clients name them.
pub(super) const SET: &str = "SetSessionOptions";
pub(super) const GET: &str = "GetSessionOptions";
pub(super) const CLOSE: &str = "CloseSession";

/// The most options that one request may set.
const OPTIONS_MAX: usize = 64;
/// Settings that `GetSessionOptions` tells.
const TOLD: [&str; 7] = [
    "cairn.as_of",
    "cairn.evidence",
    "cairn.max_staleness",
    "cairn.on_unverified",
    "search_path",
    "statement_timeout",
    "timezone",
];

#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Strings(Strings),
}

#[derive(Clone, PartialEq, Message)]
struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

/// `SetSessionOptionsRequest`, and `GetSessionOptionsResult`, which has the same field.
#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, OptionValue>,
}

/// Why an option was not set: 1 there is none of this name, 2 the value is none of its values, 3 another reason.
#[derive(Clone, PartialEq, Message)]
struct Failure {
    #[prost(int32, tag = "1")]
    value: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, Failure>,
}

#[derive(Clone, PartialEq, Message)]
struct CloseResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Runs `SetSessionOptions`: each option by itself, with a reason for each that is refused.
pub(super) fn set(session: &Session, body: &[u8]) -> Result<Vec<u8>, Status> {
    let request = Options::decode(body).map_err(|error| protocol(format!("{SET}: {error}")))?;
    if request.options.len() > OPTIONS_MAX {
        return Err(protocol(format!("{SET}: {} options; at most {OPTIONS_MAX} at once", request.options.len())));
    }
    let mut errors = HashMap::new();
    for (name, option) in request.options {
        let text = match option.value {
            None => None,
            Some(Value::Text(text)) => Some(text),
            Some(Value::Bool(on)) => Some(if on { "on" } else { "off" }.to_owned()),
            Some(Value::Integer(number)) => Some(number.to_string()),
            Some(Value::Double(number)) => Some(number.to_string()),
            Some(Value::Strings(strings)) => Some(strings.values.join(", ")),
        };
        // Java clients name the catalogue that they want; there is one.
        if name == "catalog" && text.as_deref() == Some(crate::catalog::CATALOG) {
            continue;
        }
        let name_of_setting = if name == "schema" { "search_path" } else { name.as_str() };
        if let Err(error) = session.set(&name_of_setting.to_ascii_lowercase(), text.as_deref()) {
            let value = match error.state {
                SqlState::UNDEFINED_OBJECT => 1,
                SqlState::INVALID_PARAMETER_VALUE => 2,
                _ => 3,
            };
            errors.insert(name, Failure { value });
        }
    }
    Ok(SetResult { errors }.encode_to_vec())
}

/// Runs `GetSessionOptions`.
pub(super) fn get(session: &Session) -> Vec<u8> {
    let settings = session.settings();
    let told = TOLD.iter().filter_map(|name| {
        let value = settings.show(name, session.engine().config(), session.height()).ok()?;
        Some(((*name).to_owned(), OptionValue { value: Some(Value::Text(value)) }))
    });
    Options { options: told.collect() }.encode_to_vec()
}

/// The answer to `CloseSession`: it is closed.
pub(super) fn closed() -> Vec<u8> {
    CloseResult { status: 1 }.encode_to_vec()
}

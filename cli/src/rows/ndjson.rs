//! Rows of newline-delimited JSON: one object in each line ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259)).

use std::collections::BTreeSet;
use std::fmt;
use std::io::BufRead;

use anyhow::Result;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::lines::{LINE_BYTES_MAX, Line, read_line};
use super::mapping::{Place, Plan};
use super::{Cell, Next, Reject};

/// Reads lines and puts their members into the schema's order.
pub(super) struct NdjsonRows {
    reader: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    /// Lines read so far.
    lines: u64,
}

impl NdjsonRows {
    pub(super) fn new(reader: Box<dyn BufRead + Send>) -> Self {
        Self { reader, buffer: Vec::new(), lines: 0 }
    }

    /// The next object; the number of its line is in `line`. Empty lines are passed over.
    ///
    /// # Errors
    /// When the file cannot be read further.
    pub(super) fn next(&mut self, plan: &Plan, line: &mut u64) -> Result<Next> {
        loop {
            let read = read_line(&mut self.reader, &mut self.buffer)?;
            self.lines += 1;
            *line = self.lines;
            match read {
                Line::End => return Ok(Next::End),
                Line::TooLong => {
                    return Ok(bad(None, format!("longer than {LINE_BYTES_MAX} bytes")));
                }
                Line::Whole if self.buffer.iter().all(u8::is_ascii_whitespace) => {}
                Line::Whole => return Ok(self.parse(plan)),
            }
        }
    }

    fn parse(&self, plan: &Plan) -> Next {
        let members = match serde_json::from_slice::<Members>(&self.buffer) {
            Ok(Members(members)) => members,
            Err(error) => return bad(None, format!("{} (character {})", without_place(&error), error.column())),
        };
        let mut filler = Filler { plan, cells: plan.empty_row(), columns: BTreeSet::new(), unknown: Vec::new() };
        let filled = members.into_iter().try_for_each(|(name, value)| filler.put(&name, &name, value));
        if let Err(reject) = filled {
            return Next::Bad(reject);
        }
        let missing = plan.missing(|index| !matches!(filler.cells[index], Cell::Missing));
        let complaint = match (filler.unknown.as_slice(), missing.as_slice()) {
            ([], []) => return Next::Row(filler.cells),
            ([], fields) => format!("nothing for {}", fields.join(", ")),
            (columns, _) => format!("the schema has no field for {}", columns.join(", ")),
        };
        let columns: Vec<String> = filler.columns.into_iter().collect();
        bad(None, format!("{complaint}\n{}", plan.advice(&columns)))
    }
}

fn bad(column: Option<String>, reason: String) -> Next {
    Next::Bad(Reject { column, reason })
}

/// A message of `serde_json` without "at line 1 column N", which is not the file's line.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Puts values into their fields.
struct Filler<'p> {
    plan: &'p Plan,
    cells: Vec<Cell>,
    /// What the line has, for the error message.
    columns: BTreeSet<String>,
    /// Of these, what goes into no field.
    unknown: Vec<String>,
}

impl Filler<'_> {
    /// Puts the value at `path`, which counts as a column called `name`.
    fn put(&mut self, path: &str, name: &str, value: Value) -> Result<(), Reject> {
        let reject = |reason: String| Err(Reject { column: Some(path.to_owned()), reason });
        match (self.plan.place(path, name), value) {
            (Place::Inside, Value::Object(members)) => {
                let lifted = self.plan.is_lifted(path);
                members.into_iter().try_for_each(|(member, value)| {
                    let below = format!("{path}.{member}");
                    let name = if lifted { &member } else { &below };
                    self.put(&below, name, value)
                })
            }
            (Place::Inside, Value::Null) | (Place::Dropped, _) => Ok(()),
            (Place::Inside, other) => reject(format!("{} where an object belongs", kind(&other))),
            (Place::Field(index), value) => {
                self.columns.insert(path.to_owned());
                let cell = if value.is_null() { Cell::Null } else { Cell::Json(value) };
                match std::mem::replace(&mut self.cells[index], cell) {
                    Cell::Missing => Ok(()),
                    _ => reject(format!("the field {} is filled already", self.plan.fields[index].name)),
                }
            }
            (Place::Unknown, _) => {
                self.columns.insert(path.to_owned());
                self.unknown.push(path.to_owned());
                Ok(())
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// An object's members in their order; a name that is there twice is an error.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some(member) = map.next_entry::<String, Value>()? {
                    if members.iter().any(|(name, _)| *name == member.0) {
                        return Err(serde::de::Error::custom(format!("{:?} is there twice", member.0)));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

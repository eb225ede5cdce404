//! Rows from files, for `cairn publish`: CSV and NDJSON, plain or compressed, one at a time.
//!
//! ```text
//! file or - ─▶ source: decompress, count bytes ─▶ csv | ndjson: bounded records ─▶ mapping: by name ─▶ encoder ─▶ Message
//! ```
//!
//! Memory does not grow with the file: one record is held, of at most a mebibyte. A bad record stops the reading with
//! file, line, column and reason, or is counted and passed over ([`ReadOptions::skip_bad`]). What a value means is not
//! decided here but by the [`Encoder`], which knows the types; a row that it refuses is bad like any other.

mod csv;
mod lines;
mod mapping;
mod ndjson;
mod source;

use std::fmt;

use anyhow::{Context, Result, ensure};
use cairn_ingest::encode::{self, Binding, EncodeError, Encoder, Message};
use cairn_proof::statement::StreamDefinition;
use serde_json::Value;

pub(crate) use mapping::Mapping;
pub(crate) use source::{Input, Progress};

use self::csv::CsvRows;
use self::mapping::Plan;
use self::ndjson::NdjsonRows;

/// Bad records that are kept for the summary; all are counted.
const BAD_KEPT_MAX: usize = 20;

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputFormat {
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object in each line.
    Ndjson,
}

/// How to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadOptions {
    /// `None`: NDJSON if the first character is `{`, else CSV.
    pub(crate) format: Option<InputFormat>,
    /// Between the columns of a CSV file.
    pub(crate) delimiter: u8,
    /// Pass over bad records instead of stopping at the first.
    pub(crate) skip_bad: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { format: None, delimiter: b',', skip_bad: false }
    }
}

/// One value of a row, not yet typed.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    /// The file says nothing: the schema's default, or null.
    Missing,
    /// Null.
    Null,
    /// Text of a CSV file or of `--set`, which stands for a value of any type.
    Text(String),
    /// A JSON value.
    Json(Value),
}

impl Cell {
    fn borrowed(&self) -> encode::Cell<'_> {
        match self {
            Self::Missing | Self::Null => encode::Cell::Null,
            Self::Text(text) => encode::Cell::Text(text),
            Self::Json(value) => encode::Cell::Json(value),
        }
    }
}

/// A record that cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRecord {
    /// File.
    pub(crate) file: String,
    /// Line in it, from 1; of a record over several lines the first.
    pub(crate) line: u64,
    /// Column, where it is about one.
    pub(crate) column: Option<String>,
    /// What is wrong.
    pub(crate) reason: String,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file, self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for BadRecord {}

/// Reads the rows of one input as records of a stream.
pub(crate) struct RowReader {
    name: String,
    progress: Progress,
    plan: Plan,
    encoder: Encoder,
    /// Cells are in the order of the schema's fields.
    in_order: Binding,
    rows: Rows,
    skip_bad: bool,
    line: u64,
    good_count: u64,
    bad_count: u64,
    bad: Vec<BadRecord>,
}

enum Rows {
    Csv(Box<CsvRows>),
    Ndjson(NdjsonRows),
    Empty,
}

/// What a format's reader found next.
enum Next {
    Row(Vec<Cell>),
    Bad(Reject),
    End,
}

/// Why a record is bad.
#[derive(Debug)]
struct Reject {
    column: Option<String>,
    reason: String,
}

impl From<EncodeError> for Reject {
    fn from(error: EncodeError) -> Self {
        let why = error.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let reason = format!("expected {}, found {}{why}", error.expected, error.value);
        Self { column: Some(error.column), reason }
    }
}

impl RowReader {
    /// Opens an input whose rows shall become records of `stream`.
    ///
    /// # Errors
    /// When the input cannot be opened or read, the mapping does not fit the schema, or the columns of a CSV file do
    /// not fit it; then the error lists what the file has and what the schema wants.
    pub(crate) fn open(
        input: &Input,
        stream: &StreamDefinition,
        mapping: &Mapping,
        options: &ReadOptions,
    ) -> Result<Self> {
        let schema = stream.table_schema().with_context(|| format!("the stream {} has no schema", stream.name))?;
        let plan = Plan::new(&schema.text, mapping)?;
        let encoder = Encoder::new(stream)?;
        let in_order = encoder.bind(&encoder.fields().collect::<Vec<_>>())?;
        let name = input.name();
        let mut source = source::open(input)?;
        let first = source.reader.fill_buf().with_context(|| format!("cannot read {name}"))?;
        let first = first.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        let rows = match (first, options.format) {
            (None, _) => Rows::Empty,
            (Some(b'{'), None) | (Some(_), Some(InputFormat::Ndjson)) => Rows::Ndjson(NdjsonRows::new(source.reader)),
            (Some(b'['), None) => {
                ensure!(false, "{name} begins with '[': write one JSON object in each line (NDJSON), not an array");
                Rows::Empty
            }
            (Some(_), None | Some(InputFormat::Csv)) => {
                let rows = CsvRows::new(source.reader, options.delimiter, &plan);
                Rows::Csv(Box::new(rows.with_context(|| name.clone())?))
            }
        };
        Ok(Self {
            name,
            progress: source.progress,
            plan,
            encoder,
            in_order,
            rows,
            skip_bad: options.skip_bad,
            line: 0,
            good_count: 0,
            bad_count: 0,
            bad: Vec::new(),
        })
    }

    /// Encodes the next good row into `message`; false at the end.
    ///
    /// # Errors
    /// A bad row, as [`BadRecord`], unless those are passed over; an input that cannot be read further.
    pub(crate) fn next_message(&mut self, message: &mut Message) -> Result<bool> {
        loop {
            let next = match &mut self.rows {
                Rows::Csv(rows) => rows.next(&self.plan, &mut self.line),
                Rows::Ndjson(rows) => rows.next(&self.plan, &mut self.line),
                Rows::Empty => Ok(Next::End),
            };
            match next.with_context(|| format!("cannot read {} after line {}", self.name, self.line))? {
                Next::End => return Ok(false),
                Next::Bad(reject) => self.note(reject)?,
                Next::Row(cells) => {
                    let cells: Vec<encode::Cell<'_>> = cells.iter().map(Cell::borrowed).collect();
                    match self.encoder.encode(&self.in_order, &cells, message) {
                        Ok(()) => {
                            self.good_count += 1;
                            return Ok(true);
                        }
                        Err(error) => self.note(Reject::from(error))?,
                    }
                }
            }
        }
    }

    fn note(&mut self, reject: Reject) -> Result<()> {
        let Reject { column, reason } = reject;
        let bad = BadRecord { file: self.name.clone(), line: self.line, column, reason };
        self.bad_count += 1;
        if !self.skip_bad {
            return Err(bad.into());
        }
        if self.bad.len() < BAD_KEPT_MAX {
            self.bad.push(bad);
        }
        Ok(())
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Good rows so far.
    pub(crate) fn good_count(&self) -> u64 {
        self.good_count
    }

    /// Bad records that were passed over so far.
    pub(crate) fn bad_count(&self) -> u64 {
        self.bad_count
    }

    /// The first of the bad records that were passed over.
    pub(crate) fn bad(&self) -> &[BadRecord] {
        &self.bad
    }
}

#[cfg(test)]
mod tests;

//! Rows of a CSV file ([RFC 4180](https://www.rfc-editor.org/rfc/rfc4180)), whose first line names the columns.

use std::io::BufRead;

use anyhow::{Context, Result, ensure};
use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder, Trim};

use super::lines::{Allowance, LINE_BYTES_MAX};
use super::mapping::{Place, Plan};
use super::{Cell, Next, Reject};

const BUFFER_BYTES: usize = 64 * 1024;
const COLUMNS_MAX: usize = 4096;

/// Reads records and puts their cells into the schema's order.
pub(super) struct CsvRows {
    reader: Reader<Allowance<Box<dyn BufRead + Send>>>,
    columns: Vec<String>,
    places: Vec<Place>,
    record: ByteRecord,
}

impl CsvRows {
    /// Reads the header line and fits it to the schema.
    pub(super) fn new(source: Box<dyn BufRead + Send>, delimiter: u8, plan: &Plan) -> Result<Self> {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(Trim::Headers)
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(Allowance::new(source));
        renew(&mut reader);
        let header = reader.headers().context("the header line cannot be read")?;
        ensure!(header.len() <= COLUMNS_MAX, "{} columns: allowed are at most {COLUMNS_MAX}", header.len());
        let columns: Vec<String> = header.iter().map(str::to_owned).collect();
        let places = plan.header(&columns)?;
        Ok(Self { reader, columns, places, record: ByteRecord::new() })
    }

    /// The next record; its first line's number is in `line`.
    ///
    /// # Errors
    /// When the file cannot be read further.
    pub(super) fn next(&mut self, plan: &Plan, line: &mut u64) -> Result<Next> {
        renew(&mut self.reader);
        let more = match self.reader.read_byte_record(&mut self.record) {
            Ok(more) => more,
            Err(error) => match error.kind() {
                ErrorKind::UnequalLengths { pos, expected_len, len } => {
                    *line = pos.as_ref().map_or(*line, csv::Position::line);
                    let reason = format!("{len} columns, the header has {expected_len}");
                    return Ok(Next::Bad(Reject { column: None, reason }));
                }
                _ => return Err(error.into()),
            },
        };
        if !more {
            return Ok(Next::End);
        }
        *line = self.record.position().map_or(*line, csv::Position::line);
        let mut cells = plan.empty_row();
        for (index, (value, place)) in self.record.iter().zip(&self.places).enumerate() {
            let Place::Field(position) = *place else { continue };
            cells[position] = match std::str::from_utf8(value) {
                Ok("") if plan.fields[position].nullable => Cell::Null,
                Ok(text) => Cell::Text(text.to_owned()),
                Err(_) => {
                    let column = self.columns.get(index).cloned();
                    return Ok(Next::Bad(Reject { column, reason: "not UTF-8 text".to_owned() }));
                }
            };
        }
        Ok(Next::Row(cells))
    }
}

/// One record more may be as long as allowed; what the reader's own buffer reads ahead comes on top.
fn renew(reader: &mut Reader<Allowance<Box<dyn BufRead + Send>>>) {
    reader.get_mut().renew(LINE_BYTES_MAX + BUFFER_BYTES);
}

//! Output for people and for programs: a table, CSV (RFC 4180) or JSON, from the same cells.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

/// How to write a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// With a line of names, as in RFC 4180.
    Csv,
    /// One array of objects.
    Json,
}

/// Named columns and rows.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    names: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(names: &[impl AsRef<str>]) -> Self {
        Self { names: names.iter().map(|name| name.as_ref().to_owned()).collect(), rows: vec![] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Value>) {
        self.rows.push(cells);
    }

    /// How many rows it has.
    pub(crate) const fn len(&self) -> usize {
        self.rows.len()
    }

    /// The texts of its first column.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.rows.iter().filter_map(|row| row.first()).map(plain).collect()
    }

    /// Writes it to standard output.
    pub(crate) fn print(&self, format: Format) -> Result<()> {
        let bytes = self.render(format)?;
        write_out(&bytes)
    }

    /// The bytes of the output.
    pub(crate) fn render(&self, format: Format) -> Result<Vec<u8>> {
        match format {
            Format::Table => Ok(self.text().into_bytes()),
            Format::Csv => self.csv(),
            Format::Json => self.json(),
        }
    }

    fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        if std::io::stdout().is_terminal() {
            table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        }
        table.set_header(&self.names);
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| match cell {
                Value::Number(number) => {
                    comfy_table::Cell::new(number).set_alignment(comfy_table::CellAlignment::Right)
                }
                other => comfy_table::Cell::new(plain(other)),
            }));
        }
        format!("{table}\n")
    }

    fn csv(&self) -> Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(vec![]);
        writer.write_record(&self.names)?;
        for row in &self.rows {
            writer.write_record(row.iter().map(plain))?;
        }
        writer.into_inner().context("CSV")
    }

    fn json(&self) -> Result<Vec<u8>> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| Value::Object(self.names.iter().cloned().zip(row.iter().cloned()).collect::<Map<_, _>>()))
            .collect();
        let mut bytes = serde_json::to_vec_pretty(&rows)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// A cell as text: strings without quotes, null as nothing.
fn plain(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes to standard output; a closed pipe (`| head`) is no failure.
pub(crate) fn write_out(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}

/// One line to standard output.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::output::write_out(format!("{}\n", format_args!($($argument)*)).as_bytes())
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_table_in_three_forms() {
        let mut table = Table::new(&["name", "count"]);
        table.row(vec!["a, b".into(), 3.into()]);
        table.row(vec![Value::Null, 4.into()]);
        assert_eq!(table.render(Format::Csv).unwrap(), b"name,count\n\"a, b\",3\n,4\n");
        let json: Value = serde_json::from_slice(&table.render(Format::Json).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!([{"name": "a, b", "count": 3}, {"name": null, "count": 4}]));
        let text = String::from_utf8(table.render(Format::Table).unwrap()).unwrap();
        assert!(text.contains("a, b") && text.contains("name"));
    }
}

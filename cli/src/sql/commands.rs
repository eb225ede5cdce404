//! The shell's own commands, which begin with a backslash.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum as _;

use crate::output::Format;

/// What `\?` prints.
pub(super) const HELP: &str = "\
\\d                    lists streams and the tables of the chain
\\d NAME               lists the columns of a table
\\format table|csv|json  how answers are written
\\o [FILE]             writes answers to a file (.parquet and .arrow: as columns); without one, here again
\\timing               says how long each statement took, or stops saying so
\\q                    ends (also Ctrl-D)
Statements end with a semicolon. Ctrl-C cancels the one that runs, or drops the one being written.
SET cairn.as_of = 120; stands at block 120, SET cairn.as_of = latest; follows the chain.";

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Quit,
    Timing,
    Tables,
    Columns(String),
    Format(Format),
    Output(Option<PathBuf>),
}

/// Reads a line that begins with a backslash.
pub(super) fn parse(line: &str) -> Result<Command> {
    let line = line.trim().trim_end_matches(';');
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    Ok(match (name, argument) {
        ("\\?" | "\\h" | "\\help", "") => Command::Help,
        ("\\q" | "\\quit", "") => Command::Quit,
        ("\\timing", "") => Command::Timing,
        ("\\d" | "\\dt", "") => Command::Tables,
        ("\\d", name) => Command::Columns(name.to_owned()),
        ("\\format", name) => match Format::from_str(name, true) {
            Ok(format) => Command::Format(format),
            Err(_) => bail!("\\format {name}: expected table, csv or json"),
        },
        ("\\o", "") => Command::Output(None),
        ("\\o", file) => Command::Output(Some(PathBuf::from(file))),
        (name, _) => bail!("there is no command {name} with these arguments; \\? lists those there are"),
    })
}

/// The statement that lists tables.
pub(super) const TABLES: &str = "SELECT table_schema AS schema, table_name AS \"table\", table_type AS kind \
     FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2";

/// The statement that lists the columns of a table, named with its schema or without.
pub(super) fn columns(name: &str) -> String {
    let quoted = |part: &str| {
        let plain = part.strip_prefix('"').and_then(|part| part.strip_suffix('"'));
        let name = plain.map_or_else(|| part.to_ascii_lowercase(), str::to_owned);
        format!("'{}'", name.replace('\'', "''"))
    };
    let (schema, table) = name.split_once('.').map_or((None, name), |(schema, table)| (Some(schema), table));
    let of_schema = schema.map(|schema| format!(" AND table_schema = {}", quoted(schema))).unwrap_or_default();
    format!(
        "SELECT column_name AS \"column\", data_type AS type, is_nullable AS nullable FROM information_schema.columns \
         WHERE table_name = {}{of_schema} ORDER BY table_schema, ordinal_position",
        quoted(table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_and_others_are_told() {
        assert_eq!(parse("\\d traffic.flow;").unwrap(), Command::Columns("traffic.flow".into()));
        assert_eq!(parse(" \\format  CSV ").unwrap(), Command::Format(Format::Csv));
        assert_eq!(parse("\\o a b.csv").unwrap(), Command::Output(Some("a b.csv".into())));
        assert!(parse("\\format yaml").unwrap_err().to_string().contains("expected table"));
        assert!(parse("\\drop x").unwrap_err().to_string().contains("\\?"));
    }

    #[test]
    fn names_are_texts_and_nothing_else() {
        assert!(columns("Traffic.Flow").contains("table_name = 'flow' AND table_schema = 'traffic'"));
        assert!(columns("x' OR '1").contains("'x'' or ''1'"));
        assert!(columns("\"A\"").contains("'A'"));
    }
}

//! Completion in the shell: keywords, tables, columns, functions, settings, and the shell's own commands.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

const WORDS: &[&str] = &[
    "AND",
    "AS OF",
    "ASC",
    "AVG",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COUNT",
    "CROSS JOIN",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "EXISTS",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "FALSE",
    "FROM",
    "GROUP BY",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER JOIN",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "MAX",
    "MIN",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER BY",
    "OVER",
    "PARTITION BY",
    "RESET",
    "SELECT",
    "SET",
    "SHOW",
    "SUM",
    "THEN",
    "TRUE",
    "UNION ALL",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
    "cairn.as_of",
    "cairn.lineage(",
    "cairn.max_staleness",
    "cairn.on_unverified",
    "cairn_height()",
    "cairn_receipt(",
    "statement_timeout",
    "timezone",
];
const COMMANDS: &[&str] = &["\\?", "\\d", "\\format", "\\o", "\\q", "\\timing"];
const FORMATS: &[&str] = &["csv", "json", "table"];

/// What may be completed to.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Tables with their schemas, and columns.
    names: Vec<String>,
}

impl Names {
    /// Takes names in the place of those known so far.
    pub(super) fn replace(&mut self, mut names: Vec<String>) {
        names.sort_unstable();
        names.dedup();
        self.names = names;
    }

    /// Where the word begins that ends at `end`, and what it may become.
    fn candidates(&self, line: &str, end: usize) -> (usize, Vec<String>) {
        let line = &line[..end];
        if line.starts_with('\\') && !line.contains(' ') {
            return (0, matching(COMMANDS.iter().copied(), line));
        }
        let of_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '.');
        let start = line
            .rfind(|character| !of_word(character))
            .map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
        let word = &line[start..];
        if line.starts_with("\\format ") {
            return (start, matching(FORMATS.iter().copied(), word));
        }
        if word.is_empty() {
            return (start, vec![]);
        }
        let known = self.names.iter().map(String::as_str);
        let mut found = matching(known.clone().chain(WORDS.iter().copied()), word);
        if found.is_empty()
            && let Some((_, column)) = word.rsplit_once('.')
        {
            // After the name of a table that the statement gave, or a schema's: a column.
            let start = end - column.len();
            return (start, matching(known.filter(|name| !name.contains('.')), column));
        }
        found.dedup();
        (start, found)
    }
}

/// Those that begin with a word, whatever the case; keywords in the case of the word.
fn matching<'a>(all: impl Iterator<Item = &'a str>, word: &str) -> Vec<String> {
    let keyword = |found: &str| !found.chars().any(char::is_lowercase);
    let lower = !word.chars().any(char::is_uppercase);
    let begins = |candidate: &&str| candidate.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    all.filter(begins)
        .map(|found| if lower && keyword(found) { found.to_lowercase() } else { found.to_owned() })
        .collect()
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, end: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(line, end))
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}
impl Validator for Names {}
impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.replace(["traffic.flow", "vehicle_count", "cairn.anchors"].map(str::to_owned).to_vec());
        names
    }

    fn complete(line: &str) -> (usize, Vec<String>) {
        names().candidates(line, line.len())
    }

    #[test]
    fn words_tables_and_columns_are_completed() {
        assert_eq!(complete("sel"), (0, vec!["select".to_owned()]));
        assert_eq!(complete("SELECT * FROM traf"), (14, vec!["traffic.flow".to_owned()]));
        assert_eq!(complete("SELECT vehi"), (7, vec!["vehicle_count".to_owned()]));
        assert_eq!(complete("SELECT f.vehi"), (9, vec!["vehicle_count".to_owned()]));
        assert_eq!(complete("SELECT 'ä', cairn.anch"), (13, vec!["cairn.anchors".to_owned()]));
        assert_eq!(complete("SELECT "), (7, vec![]));
    }

    #[test]
    fn the_shells_own_commands_are_completed() {
        assert_eq!(complete("\\ti"), (0, vec!["\\timing".to_owned()]));
        assert_eq!(complete("\\format j"), (8, vec!["json".to_owned()]));
    }
}

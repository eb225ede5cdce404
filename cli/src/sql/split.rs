//! Where a statement ends: at a semicolon that stands in no text, name or comment.
//!
//! What it is not: a parser. It knows what Postgres' own lexer must know to find semicolons, and nothing else.

/// The statements that are complete in `text`, without their semicolons, and what is left after the last one.
pub(super) fn statements(text: &str) -> (Vec<&str>, &str) {
    let mut found = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(';') {
            let statement = text[start..at].trim();
            if !is_blank(statement) {
                found.push(statement);
            }
            at += 1;
            start = at;
            continue;
        }
        match token(rest, text[..at].chars().next_back()) {
            Some(length) => at += length,
            // Something begins here that does not end yet.
            None => break,
        }
    }
    (found, &text[start..])
}

/// Whether there is nothing to run: only space and comments.
pub(super) fn is_blank(text: &str) -> bool {
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let comment = rest.starts_with("--") || rest.starts_with("/*");
        match token(rest, None) {
            Some(length) if comment => rest = rest[length..].trim_start(),
            _ => return comment && rest.starts_with("--"),
        }
    }
    true
}

/// How long the token is that `rest` begins with, as far as it matters; none if it does not end in it.
fn token(rest: &str, before: Option<char>) -> Option<usize> {
    let first = rest.chars().next()?;
    match first {
        '\'' => quoted(rest, '\'', matches!(before, Some('E' | 'e'))),
        '"' => quoted(rest, '"', false),
        '-' if rest.starts_with("--") => Some(rest.find('\n').map_or(rest.len(), |end| end + 1)),
        '/' if rest.starts_with("/*") => comment(rest),
        '$' if !before.is_some_and(|character| character.is_alphanumeric() || character == '_') => dollar(rest),
        other => Some(other.len_utf8()),
    }
}

/// A text in quotes; two quotes in a row, or one after a backslash where that counts, do not end it.
fn quoted(rest: &str, quote: char, backslash: bool) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == '\\' && backslash {
            characters.next();
        } else if character == quote {
            return Some(at + 1);
        }
    }
    None
}

/// A comment in strokes and stars, which may hold others.
fn comment(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    None
}

/// A text between dollar signs (`$$…$$`, `$name$…$name$`), or a parameter's sign alone.
fn dollar(rest: &str) -> Option<usize> {
    let name = rest[1..].find('$').map(|end| &rest[..end + 2]);
    let valid = |name: &&str| {
        let inner = &name[1..name.len() - 1];
        inner.chars().all(|character| character.is_alphanumeric() || character == '_')
            && !inner.starts_with(|character: char| character.is_ascii_digit())
    };
    match name.filter(valid) {
        None => Some(1),
        Some(name) => rest[name.len()..].find(name).map(|end| end + 2 * name.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_ends_a_statement_where_it_is_one() {
        let text =
            "SELECT 1; SELECT ';', \";\" -- ;\n FROM a /* ; /* ; */ ; */;\n SELECT $x$ ; $x$, E'\\';'; SELECT $1";
        let (found, rest) = statements(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "SELECT 1");
        assert!(found[1].ends_with("*/") && found[2].ends_with("E'\\';'"), "{found:?}");
        assert_eq!(rest, " SELECT $1");
    }

    #[test]
    fn what_does_not_end_is_left() {
        for open in ["SELECT 'a;", "SELECT \"a;", "/* ;", "SELECT $$ ;", "SELECT 'it''s;"] {
            assert_eq!(statements(open), (vec![], open));
        }
        assert_eq!(statements(" ; ;").0, Vec::<&str>::new());
    }

    #[test]
    fn comments_alone_are_nothing_to_run() {
        for blank in ["", "  \n", "-- a", "-- a\n /* b */ ", "/* a */ -- b"] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for not in ["SELECT 1", "-- a\nSELECT", "/* open"] {
            assert!(!is_blank(not), "{not:?}");
        }
    }
}

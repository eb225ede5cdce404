//! From the text a client sent to statements that may run.
//!
//! ```text
//! text ─▶ tokens ─▶ one slice per statement ─▶ AS OF taken out ─▶ parsed ─▶ allowed? ─▶ Statement
//! ```
//!
//! **Closed by an allow-list.** Only what reads the catalogue or sets a known setting becomes a [`Statement`]; all
//! else is refused here, before any planning, whatever the engine below could do with it. The plan is checked a
//! second time ([`crate::session`]), and the runtime knows no store but the verified one ([`crate::runtime`]).
//!
//! **Two dialects.** Postgres clients send queries over `pg_catalog` that no other engine can run as they stand.
//! `datafusion-pg-catalog` rewrites them, and replaces what it cannot rewrite by NULL. That is good enough for a
//! list of tables and must never touch a query over records, so only statements that read nothing but the system
//! catalogues take that way.
//!
//! **AS OF.** `… AS OF 120`, `… AS OF BLOCK 120` and `… FOR VERSION AS OF 120` after a table, or at the end, name
//! the height of the whole statement. The clause is found in the tokens and cut out of the text, since a statement
//! runs at one height and no dialect's table versions say exactly that.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use cairn_proof::units::Height;
use datafusion::sql::sqlparser::ast::{self, Query, Reset, Set, SetExpr, Statement as Ast, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::PG_CATALOG_TABLES;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_postgres::datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, RewriteArrayAnyAllOperation, SqlStatementRewriteRule,
    StripCallableQualifier,
};

use crate::error::{QueryError, Result, SqlState};

mod catalogue;
mod copy;

pub(crate) use copy::CopyForm;

/// The most tokens a statement may have. A longer one would nest deeper than the planner's stack allows.
const TOKENS_MAX: usize = 50_000;

/// The longest chain of operators, outside of lists, that is planned: each adds a level to the plan's expression.
const OPERATORS_CHAINED_MAX: usize = 512;

/// One statement that may run, and the height it names itself, if any.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) as_of: Option<Height>,
    pub(crate) action: Action,
}

/// What a statement does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Reads the catalogue: SELECT, VALUES, TABLE, WITH, EXPLAIN, DESCRIBE, SHOW TABLES, SHOW COLUMNS.
    Read(Box<Ast>),
    /// `SET name = value`, and `RESET name` with no value.
    Set { name: String, value: Option<String> },
    /// `RESET ALL`, `DISCARD ALL`.
    ResetAll { tag: &'static str },
    /// `SHOW name`.
    Show { name: String },
    /// `BEGIN`: until the end of the transaction all statements see one height.
    Begin,
    /// `COMMIT` or `ROLLBACK`.
    End { tag: &'static str },
    /// `ROLLBACK TO name`: takes nothing back, for there is nothing, but goes on after an error.
    RollbackTo,
    /// `COPY (query) TO STDOUT`.
    Copy { query: Box<Ast>, form: CopyForm },
    /// `DECLARE name CURSOR FOR query`.
    Declare { name: String, query: Box<Ast> },
    /// `FETCH n FROM name`, and `MOVE`.
    Fetch { name: String, rows: Option<u64> },
    /// `CLOSE name`, or all without one.
    Close { name: Option<String> },
    /// Accepted since clients send it, and without effect: `DEALLOCATE`, `LISTEN`, `UNLISTEN`, `DISCARD PLANS`,
    /// `SAVEPOINT`, `RELEASE`.
    Ignored { tag: &'static str },
}

impl Action {
    /// The command tag of a Postgres answer.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Self::Read(_) => "SELECT",
            Self::Set { value: Some(_), .. } => "SET",
            Self::Set { value: None, .. } => "RESET",
            Self::Show { .. } => "SHOW",
            Self::Begin => "BEGIN",
            Self::RollbackTo => "ROLLBACK",
            Self::Copy { .. } => "COPY",
            Self::ResetAll { tag } | Self::End { tag } | Self::Ignored { tag } => tag,
            Self::Declare { .. } => "DECLARE CURSOR",
            Self::Fetch { .. } => "FETCH",
            Self::Close { .. } => "CLOSE CURSOR",
        }
    }
}

/// Turns text into statements. Made once, for it holds the compiled patterns of catalogue queries.
#[derive(Debug)]
pub(crate) struct StatementParser {
    catalogue: PostgresCompatibilityParser,
    bytes_max: usize,
}

impl StatementParser {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { catalogue: PostgresCompatibilityParser::new(), bytes_max }
    }

    /// Splits `text` at semicolons and parses each statement.
    ///
    /// # Errors
    /// The text is too long or deep, is not SQL, or holds a statement that is not allowed: then none is run.
    pub(crate) fn parse(&self, text: &str) -> Result<Vec<Statement>> {
        if text.len() > self.bytes_max {
            return Err(QueryError::limit(
                SqlState::TOO_COMPLEX,
                format!("the statement has {} bytes; at most {} are read", text.len(), self.bytes_max),
            ));
        }
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
            .tokenize_with_location()
            .map_err(|error| QueryError::statement(SqlState::SYNTAX_ERROR, format!("syntax error: {error}")))?;
        let significant: Vec<TokenWithSpan> =
            tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)).collect();
        check_size(&significant)?;
        let lines = LineStarts::of(text);
        significant
            .split(|token| token.token == Token::SemiColon)
            .filter(|tokens| !tokens.is_empty())
            .map(|tokens| {
                let (statement, as_of) = cut_as_of(text, &lines, tokens)?;
                let action = self.action(&statement)?;
                if as_of.is_some() && !matches!(action, Action::Read(_) | Action::Declare { .. } | Action::Copy { .. })
                {
                    return Err(QueryError::statement(
                        SqlState::SYNTAX_ERROR,
                        format!("AS OF belongs to a query; {} has none", action.tag()),
                    ));
                }
                Ok(Statement { text: statement, as_of, action })
            })
            .collect()
    }

    fn action(&self, text: &str) -> Result<Action> {
        if let Some(words) = leading_words(text) {
            if words[0] == "ABORT" {
                return Ok(Action::End { tag: "ROLLBACK" });
            }
            if words[0] == "MOVE" {
                return Err(QueryError::not_allowed(SqlState::FEATURE_NOT_SUPPORTED, "MOVE is not supported")
                    .with_hint("FETCH the rows and skip them"));
            }
        }
        allow(self.ast(text)?)
    }

    /// Parses statements over the system catalogues.
    fn catalogue(&self, text: &str) -> std::result::Result<Vec<Ast>, ParserError> {
        self.catalogue.parse(text).map(catalogue::rewrite)
    }

    /// Parses one statement, by the catalogue's dialect if it reads the system catalogues only.
    fn ast(&self, text: &str) -> Result<Ast> {
        let plain =
            Parser::new(&PostgreSqlDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_statements());
        let statements = match plain {
            Ok(statements) if statements.iter().all(reads_records) => {
                statements.into_iter().map(records_dialect).collect()
            }
            Ok(_) => self.catalogue(text).map_err(syntax_error)?,
            Err(ParserError::RecursionLimitExceeded) => return Err(too_deep()),
            Err(error) if text.to_ascii_lowercase().contains("pg_") => {
                self.catalogue(text).map_err(|_| syntax_error(error))?
            }
            Err(error) => return Err(syntax_error(error)),
        };
        let mut statements = statements.into_iter();
        match (statements.next(), statements.next()) {
            (Some(statement), None) => Ok(statement),
            (None, _) => Err(QueryError::statement(SqlState::SYNTAX_ERROR, "the statement is empty")),
            (Some(_), Some(_)) => {
                Err(QueryError::statement(SqlState::SYNTAX_ERROR, "expected a semicolon between two statements"))
            }
        }
    }
}

fn syntax_error(error: ParserError) -> QueryError {
    match error {
        ParserError::RecursionLimitExceeded => too_deep(),
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => {
            QueryError::statement(SqlState::SYNTAX_ERROR, format!("syntax error: {text}"))
        }
    }
}

fn too_deep() -> QueryError {
    QueryError::limit(SqlState::TOO_COMPLEX, "the statement nests too deep to be planned")
        .with_hint("use fewer levels of parentheses and subqueries")
}

/// Bounds what the planner's recursion will meet: sqlparser bounds nesting itself, but not chains of operators.
fn check_size(tokens: &[TokenWithSpan]) -> Result<()> {
    if tokens.len() > TOKENS_MAX {
        return Err(QueryError::limit(
            SqlState::TOO_COMPLEX,
            format!("the statement has {} words and signs; at most {TOKENS_MAX} are planned", tokens.len()),
        ));
    }
    let mut chained = 0_usize;
    for token in tokens {
        match &token.token {
            Token::Comma | Token::SemiColon => chained = 0,
            token if is_operator(token) => chained += 1,
            _ => {}
        }
        if chained > OPERATORS_CHAINED_MAX {
            return Err(QueryError::limit(
                SqlState::TOO_COMPLEX,
                format!("the statement chains more than {OPERATORS_CHAINED_MAX} operators"),
            )
            .with_hint("use IN (…) or a VALUES list in place of a long chain of OR, AND or UNION"));
        }
    }
    Ok(())
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) if word.quote_style.is_none() => matches!(
            word.value.to_ascii_uppercase().as_str(),
            "AND" | "OR" | "NOT" | "IS" | "LIKE" | "ILIKE" | "UNION" | "EXCEPT" | "INTERSECT" | "JOIN" | "COLLATE"
        ),
        Token::Word(_)
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::Placeholder(_)
        | Token::LParen
        | Token::RParen
        | Token::LBrace
        | Token::RBrace
        | Token::Period
        | Token::EOF
        | Token::Whitespace(_) => false,
        _ => true,
    }
}

/// The first words of `text`, in upper case; none when it does not start with a word.
fn leading_words(text: &str) -> Option<Vec<String>> {
    let words: Vec<String> = text
        .split_whitespace()
        .take(2)
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_uppercase())
        .collect();
    (!words.is_empty()).then_some(words)
}

/// Where each line of a text starts, to turn the tokenizer's places into byte positions.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect())
    }

    /// The byte position of a place, which counts lines and characters from 1.
    fn position(&self, text: &str, place: Location) -> usize {
        let line = usize::try_from(place.line).unwrap_or(usize::MAX).saturating_sub(1);
        let column = usize::try_from(place.column).unwrap_or(usize::MAX).saturating_sub(1);
        let Some(start) = self.0.get(line).copied() else {
            return text.len();
        };
        text[start..].char_indices().nth(column).map_or(text.len(), |(at, _)| start + at)
    }
}

fn is_word(token: Option<&TokenWithSpan>, word: &str) -> bool {
    matches!(token.map(|token| &token.token),
        Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

/// The tokens of one height clause: `[FOR VERSION] AS OF [BLOCK] number`, from `at`; and how many they are.
fn height_clause(tokens: &[TokenWithSpan], at: usize) -> Result<Option<(usize, Height)>> {
    let mut next = at;
    let versioned = is_word(tokens.get(next), "FOR") && is_word(tokens.get(next + 1), "VERSION");
    if versioned {
        next += 2;
    }
    if !(is_word(tokens.get(next), "AS") && is_word(tokens.get(next + 1), "OF")) {
        return Ok(None);
    }
    next += 2;
    let named = is_word(tokens.get(next), "BLOCK");
    if named {
        next += 1;
    }
    match tokens.get(next).map(|token| &token.token) {
        Some(Token::Number(digits, _)) => {
            let height = digits.parse::<u64>().map_err(|_| {
                QueryError::statement(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("AS OF {digits}: a block height is a whole number"),
                )
            })?;
            Ok(Some((next + 1 - at, Height(height))))
        }
        // `AS of` alone is an ordinary alias.
        _ if !versioned && !named => Ok(None),
        found => Err(QueryError::statement(
            SqlState::SYNTAX_ERROR,
            format!(
                "expected a block height after AS OF, found {}",
                found.map_or_else(|| "the end".to_owned(), ToString::to_string)
            ),
        )
        .with_hint("write the height as a number, or use SET cairn.as_of = height")),
    }
}

/// The text of one statement without its height clauses, and the one height that they name.
fn cut_as_of(text: &str, lines: &LineStarts, tokens: &[TokenWithSpan]) -> Result<(String, Option<Height>)> {
    let start = lines.position(text, tokens[0].span.start);
    let end = lines.position(text, tokens[tokens.len() - 1].span.end);
    let mut kept = String::with_capacity(end - start);
    let mut kept_until = start;
    let mut as_of: Option<Height> = None;
    let mut at = 0;
    while at < tokens.len() {
        let Some((length, height)) = height_clause(tokens, at)? else {
            at += 1;
            continue;
        };
        if let Some(other) = as_of
            && other != height
        {
            return Err(QueryError::statement(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("a statement runs at one height; this one names block {} and block {}", other.0, height.0),
            )
            .with_hint("run one statement for each height, or filter by _block"));
        }
        as_of = Some(height);
        kept.push_str(&text[kept_until..lines.position(text, tokens[at].span.start)]);
        kept_until = lines.position(text, tokens[at + length - 1].span.end);
        at += length;
    }
    kept.push_str(&text[kept_until..end]);
    Ok((kept, as_of))
}

/// True for a statement that reads something other than the system catalogues.
fn reads_records(statement: &Ast) -> bool {
    let mut relations = Relations::default();
    let _ = statement.visit(&mut relations);
    let of_records = relations.records.iter().any(|name| !relations.local.contains(name));
    of_records || (relations.functions && !relations.catalogues)
}

/// Functions that make rows of their arguments: beside a catalogue they make no query over records of it.
const ROWS_OF_NOTHING: [&str; 4] = ["generate_series", "generate_subscripts", "string_to_array", "unnest"];

/// The names that a statement reads from, sorted into catalogues and others.
#[derive(Default)]
struct Relations {
    records: BTreeSet<String>,
    local: BTreeSet<String>,
    /// Whether a system catalogue is read.
    catalogues: bool,
    /// Whether rows come from a function that reads nothing.
    functions: bool,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(with) = &query.with {
            for table in &with.cte_tables {
                self.local.insert(table.alias.name.value.to_ascii_lowercase());
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<()> {
        let parts: Vec<String> = relation
            .0
            .iter()
            .map(|part| {
                part.as_ident().map_or_else(|| part.to_string(), |ident| ident.value.clone()).to_ascii_lowercase()
            })
            .collect();
        let catalogue = match parts.as_slice() {
            [name] => PG_CATALOG_TABLES.contains(&name.as_str()),
            [.., schema, _] => matches!(schema.as_str(), "pg_catalog" | "information_schema"),
            [] => true,
        };
        let name = parts.join(".");
        if catalogue {
            self.catalogues = true;
        } else if ROWS_OF_NOTHING.contains(&name.as_str()) {
            self.functions = true;
        } else {
            self.records.insert(name);
        }
        ControlFlow::Continue(())
    }
}

/// The rewrites that change the spelling of a statement and never its meaning.
fn records_dialect(statement: Ast) -> Ast {
    let rules: [&dyn SqlStatementRewriteRule; 3] =
        [&StripCallableQualifier, &CurrentUserVariableToSessionUserFunctionCall, &RewriteArrayAnyAllOperation];
    let statement = rules.iter().fold(statement, |statement, rule| rule.rewrite(statement));
    catalogue::fields(statement)
}

/// The allow-list.
fn allow(statement: Ast) -> Result<Action> {
    match statement {
        Ast::Query(_)
        | Ast::Explain { .. }
        | Ast::ExplainTable { .. }
        | Ast::ShowTables { .. }
        | Ast::ShowColumns { .. } => {
            only_reads(&statement)?;
            Ok(Action::Read(Box::new(statement)))
        }
        Ast::Set(set) => set_action(set),
        Ast::Reset(reset) => Ok(match reset.reset {
            Reset::ALL => Action::ResetAll { tag: "RESET" },
            Reset::ConfigurationParameter(name) => Action::Set { name: setting_name(&name), value: None },
        }),
        Ast::ShowVariable { variable } => Ok(Action::Show {
            name: variable.iter().map(|ident| ident.value.to_ascii_lowercase()).collect::<Vec<_>>().join("."),
        }),
        Ast::StartTransaction { statements, .. } if statements.is_empty() => Ok(Action::Begin),
        Ast::Commit { .. } => Ok(Action::End { tag: "COMMIT" }),
        Ast::Savepoint { .. } => Ok(Action::Ignored { tag: "SAVEPOINT" }),
        Ast::ReleaseSavepoint { .. } => Ok(Action::Ignored { tag: "RELEASE" }),
        Ast::Rollback { savepoint: Some(_), .. } => Ok(Action::RollbackTo),
        Ast::Copy { .. } => copy::action(&statement),
        Ast::Rollback { savepoint: None, .. } => Ok(Action::End { tag: "ROLLBACK" }),
        Ast::Declare { stmts } => declare(stmts),
        Ast::Fetch { name, direction, into: None, .. } => {
            Ok(Action::Fetch { name: name.value, rows: fetch_count(&direction)? })
        }
        Ast::Close { cursor } => Ok(Action::Close {
            name: match cursor {
                ast::CloseCursor::All => None,
                ast::CloseCursor::Specific { name } => Some(name.value),
            },
        }),
        Ast::Discard { object_type } => Ok(match object_type {
            ast::DiscardObject::ALL => Action::ResetAll { tag: "DISCARD ALL" },
            _ => Action::Ignored { tag: "DISCARD" },
        }),
        Ast::Deallocate { .. } => Ok(Action::Ignored { tag: "DEALLOCATE" }),
        Ast::LISTEN { .. } => Ok(Action::Ignored { tag: "LISTEN" }),
        Ast::UNLISTEN { .. } => Ok(Action::Ignored { tag: "UNLISTEN" }),
        other => Err(refusal(&other)),
    }
}

/// The refusal of a statement that is not on the list: with the code that Postgres gives in a read-only session.
fn refusal(statement: &Ast) -> QueryError {
    let text = statement.to_string();
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default().to_ascii_uppercase();
    let verb = match first.as_str() {
        "CREATE" | "DROP" | "ALTER" | "COPY" => words
            .next()
            .map(|word| word.to_ascii_uppercase())
            .filter(|word| word.chars().all(|c| c.is_ascii_uppercase()) && first != "COPY")
            .map_or(first.clone(), |word| format!("{first} {word}")),
        _ => first.clone(),
    };
    let (state, hint) = match first.as_str() {
        "COPY" | "LOAD" | "UNLOAD" | "INSTALL" | "ATTACH" | "DETACH" | "EXPORT" | "LIST" | "REMOVE" | "PRAGMA"
        | "CALL" => (
            SqlState::INSUFFICIENT_PRIVILEGE,
            "no statement reaches files, programs or the network; to save an answer use psql's \\copy (query) TO, or \\g",
        ),
        "PREPARE" | "EXECUTE" => {
            (SqlState::FEATURE_NOT_SUPPORTED, "prepare statements through the driver (the extended protocol)")
        }
        "FETCH" | "START" | "BEGIN" => (SqlState::FEATURE_NOT_SUPPORTED, "write it without further options"),
        _ => (
            SqlState::READ_ONLY,
            "records enter through Kafka and the chain; streams and identities are registered with the cairn command",
        ),
    };
    QueryError::not_allowed(state, format!("cannot execute {verb}: this server only reads")).with_hint(hint)
}

/// Refuses a query that hides a write: `WITH x AS (INSERT …)`, `SELECT … INTO`, `EXPLAIN DELETE`, `FOR UPDATE`.
fn only_reads(statement: &Ast) -> Result<()> {
    struct Writes(Option<QueryError>);
    impl Visitor for Writes {
        type Break = ();

        fn pre_visit_statement(&mut self, statement: &Ast) -> ControlFlow<()> {
            match statement {
                Ast::Query(_)
                | Ast::Explain { .. }
                | Ast::ExplainTable { .. }
                | Ast::ShowTables { .. }
                | Ast::ShowColumns { .. } => ControlFlow::Continue(()),
                other => {
                    self.0 = Some(refusal(other));
                    ControlFlow::Break(())
                }
            }
        }

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.0 = writes_of(query);
            if self.0.is_some() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<()> {
            if select.into.is_some() {
                self.0 = Some(QueryError::not_allowed(
                    SqlState::READ_ONLY,
                    "cannot execute SELECT INTO: this server only reads",
                ));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    let mut writes = Writes(None);
    let _ = statement.visit(&mut writes);
    writes.0.map_or(Ok(()), Err)
}

fn writes_of(query: &Query) -> Option<QueryError> {
    if !query.locks.is_empty() {
        return Some(
            QueryError::not_allowed(
                SqlState::READ_ONLY,
                "cannot execute SELECT FOR UPDATE or FOR SHARE: this server only reads",
            )
            .with_hint("nothing needs a lock: an answer is computed at one block, which never changes"),
        );
    }
    match query.body.as_ref() {
        SetExpr::Insert(statement)
        | SetExpr::Update(statement)
        | SetExpr::Delete(statement)
        | SetExpr::Merge(statement) => Some(refusal(statement)),
        _ => None,
    }
}

fn setting_name(name: &ast::ObjectName) -> String {
    name.0
        .iter()
        .map(|part| part.as_ident().map_or_else(|| part.to_string(), |ident| ident.value.clone()).to_ascii_lowercase())
        .collect::<Vec<_>>()
        .join(".")
}

fn setting_value(expression: &ast::Expr) -> String {
    match expression {
        ast::Expr::Value(value) => value.value.clone().into_string().unwrap_or_else(|| value.to_string()),
        ast::Expr::Identifier(ident) => ident.value.clone(),
        other => other.to_string(),
    }
}

fn set_action(set: Set) -> Result<Action> {
    match set {
        Set::SingleAssignment { scope, variable, values, .. } => {
            if scope == Some(ast::ContextModifier::Local) {
                return Err(QueryError::not_allowed(SqlState::FEATURE_NOT_SUPPORTED, "SET LOCAL is not supported")
                    .with_hint("use SET, and RESET after the transaction"));
            }
            let value = values.iter().map(setting_value).collect::<Vec<_>>().join(", ");
            Ok(Action::Set {
                name: setting_name(&variable),
                value: (!value.eq_ignore_ascii_case("default")).then_some(value),
            })
        }
        Set::SetTimeZone { value, .. } => {
            let value = setting_value(&value);
            Ok(Action::Set {
                name: "timezone".to_owned(),
                value: (!value.eq_ignore_ascii_case("default") && !value.eq_ignore_ascii_case("local"))
                    .then_some(value),
            })
        }
        Set::SetNames { charset_name, .. } => {
            Ok(Action::Set { name: "client_encoding".to_owned(), value: Some(charset_name.value) })
        }
        Set::SetNamesDefault {} => Ok(Action::Set { name: "client_encoding".to_owned(), value: None }),
        Set::SetTransaction { modes, .. } => {
            let writes = modes
                .iter()
                .any(|mode| matches!(mode, ast::TransactionMode::AccessMode(ast::TransactionAccessMode::ReadWrite)));
            if writes {
                return Err(QueryError::not_allowed(
                    SqlState::READ_ONLY,
                    "cannot set a transaction READ WRITE: this server only reads",
                ));
            }
            Ok(Action::Ignored { tag: "SET" })
        }
        other => Err(QueryError::not_allowed(SqlState::FEATURE_NOT_SUPPORTED, format!("{other} is not supported"))),
    }
}

fn declare(statements: Vec<ast::Declare>) -> Result<Action> {
    let unsupported = || {
        QueryError::not_allowed(
            SqlState::FEATURE_NOT_SUPPORTED,
            "only DECLARE name [NO SCROLL] CURSOR [WITH HOLD] FOR query is supported",
        )
    };
    let mut statements = statements.into_iter();
    let (Some(declare), None) = (statements.next(), statements.next()) else {
        return Err(unsupported());
    };
    let cursor = declare.declare_type == Some(ast::DeclareType::Cursor)
        && declare.binary != Some(true)
        && declare.scroll != Some(true);
    match (declare.names.as_slice(), declare.for_query) {
        ([name], Some(query)) if cursor => {
            let query = Ast::Query(query);
            only_reads(&query)?;
            Ok(Action::Declare { name: name.value.clone(), query: Box::new(query) })
        }
        _ => Err(unsupported()),
    }
}

/// How many rows a FETCH asks for; none for all that are left.
fn fetch_count(direction: &ast::FetchDirection) -> Result<Option<u64>> {
    use ast::FetchDirection as Direction;
    let count = |value: &ast::ValueWithSpan| {
        value.to_string().parse::<u64>().map_err(|_| {
            QueryError::statement(SqlState::SYNTAX_ERROR, format!("FETCH {value}: expected a number of rows"))
        })
    };
    match direction {
        Direction::Next | Direction::Forward { limit: None } => Ok(Some(1)),
        Direction::Count { limit } | Direction::Forward { limit: Some(limit) } => count(limit).map(Some),
        Direction::All | Direction::ForwardAll => Ok(None),
        other => Err(QueryError::not_allowed(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("FETCH {other} is not supported: a cursor only moves forward"),
        )),
    }
}

#[cfg(test)]
mod tests;

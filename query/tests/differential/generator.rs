//! Records and statements out of a seed: what the differential runs of the tests and of `bench` compare engines with.
//!
//! The same seed gives the same records and the same statements, on any machine. Statements have one answer whatever the
//! plan: an order before a limit is total, and numbers with a fraction are quarters, whose sums are exact in any order.
//!
//! What it is not: an oracle. Two engines are asked the same, and their rows are compared, sorted.

use std::fmt::Write as _;

use arrow::datatypes::{DataType, Schema};

/// SplitMix64: enough for choices, and the same everywhere.
pub(crate) struct Choices(u64);

impl Choices {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Fraction,
    Time,
    Flag,
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: Kind,
    nullable: bool,
}

/// A stream that statements may name.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Columns of its records.
    columns: Vec<Column>,
}

/// 2026-01-01T00:00:00Z in milliseconds: the time of the record at offset 0. The others follow by a second.
pub(crate) const FIRST_RECORD_MS: i64 = 1_767_225_600_000;
/// Offsets that records of a partition have at most, for filters that rule something out.
const OFFSETS: u64 = 200;
const PARTITIONS: u64 = 4;
const WORDS: [&str; 7] = ["north", "south", "east", "west", "Ring", "", "o'clock"];

impl Table {
    /// A stream by the columns of its table; those whose type is none of the simple ones are left out.
    pub(crate) fn new(name: &str, columns: &Schema) -> Self {
        let columns = columns.fields().iter().filter_map(|field| {
            let kind = match field.data_type() {
                DataType::Utf8 | DataType::Utf8View => Kind::Text,
                DataType::Int32 | DataType::Int64 => Kind::Whole,
                DataType::Float64 => Kind::Fraction,
                DataType::Timestamp(..) => Kind::Time,
                DataType::Boolean => Kind::Flag,
                _ => return None,
            };
            Some(Column { name: field.name().clone(), kind, nullable: field.is_nullable() })
        });
        Self { name: name.to_owned(), columns: columns.collect() }
    }

    /// A record as JSON.
    pub(crate) fn record(&self, choices: &mut Choices) -> String {
        let mut json = String::from("{");
        for column in &self.columns {
            if column.nullable && choices.one_in(5) {
                continue;
            }
            let separator = if json.len() > 1 { "," } else { "" };
            let value = match column.kind {
                Kind::Text => format!("{:?}", choices.of(&WORDS)),
                Kind::Whole => choices.below(40).to_string(),
                Kind::Fraction => quarters(choices),
                Kind::Time => format!("\"{}\"", time(choices.below(OFFSETS * 1_000))),
                Kind::Flag => choices.one_in(2).to_string(),
            };
            let _ = write!(json, "{separator}\"{}\":{value}", column.name);
        }
        json.push('}');
        json
    }
}

fn quarters(choices: &mut Choices) -> String {
    format!("{}.{}", choices.below(400), choices.of(&["0", "25", "5", "75"]))
}

/// A time of the first day, by milliseconds since its begin.
fn time(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1_000, milliseconds % 1_000);
    format!("2026-01-01T{:02}:{:02}:{:02}.{rest:03}Z", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

/// A statement. Where it names a table stands `{name}`, so that each engine can put in its own name for it.
pub(crate) fn statement(choices: &mut Choices, tables: &[Table]) -> String {
    let table = choices.of(tables).clone();
    match choices.below(9) {
        0 | 1 => rows(choices, &table),
        2 | 3 => groups(choices, &table),
        4 => totals(choices, &table),
        5 => join(choices, &table, tables),
        6 => subquery(choices, &table, tables),
        7 => both(choices, &table),
        _ => window(choices, &table),
    }
}

/// Expressions with a name each, since one may come twice.
fn named(expressions: impl IntoIterator<Item = String>) -> String {
    let named = expressions.into_iter().enumerate().map(|(at, expression)| format!("{expression} AS c{at}"));
    named.collect::<Vec<_>>().join(", ")
}

fn rows(choices: &mut Choices, table: &Table) -> String {
    let columns = named((0..=choices.below(3)).map(|_| expression(choices, table, "")));
    let filter = filter(choices, table, "", 3);
    let order = if choices.one_in(2) { "DESC" } else { "ASC" };
    let limit = match choices.below(3) {
        0 => String::new(),
        1 => format!(" LIMIT {}", choices.below(30)),
        _ => format!(" LIMIT {} OFFSET {}", choices.below(30), choices.below(10)),
    };
    format!(
        "SELECT _partition, _offset, {} FROM {{{}}} WHERE {filter} ORDER BY _partition, _offset {order}{limit}",
        columns, table.name
    )
}

fn groups(choices: &mut Choices, table: &Table) -> String {
    let mut keys: Vec<String> = (0..=choices.below(2)).map(|_| group_key(choices, table)).collect();
    keys.sort();
    keys.dedup();
    let all = named((0..=choices.below(3)).map(|_| aggregate(choices, table, "")));
    let having = if choices.one_in(3) { format!(" HAVING count(*) > {}", choices.below(6)) } else { String::new() };
    let filter = filter(choices, table, "", 2);
    let keys = keys.join(", ");
    format!("SELECT {keys}, {all} FROM {{{}}} WHERE {filter} GROUP BY {keys}{having}", table.name)
}

fn totals(choices: &mut Choices, table: &Table) -> String {
    let all = named((0..=choices.below(4)).map(|_| aggregate(choices, table, "")));
    let filter = filter(choices, table, "", 3);
    format!("SELECT {all} FROM {{{}}} WHERE {filter}", table.name)
}

fn join(choices: &mut Choices, left: &Table, tables: &[Table]) -> String {
    let right = choices.of(tables).clone();
    let kind = *choices.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
    let (a, b) = (column(choices, left, Kind::Text), column(choices, &right, Kind::Text));
    let both = named([aggregate(choices, left, "a."), aggregate(choices, &right, "b.")]);
    let narrow = format!("a._offset / 16 = b._offset / 16 AND a._partition = b._partition AND a.{a} = b.{b}");
    let filter = filter(choices, left, "a.", 2);
    format!(
        "SELECT a.{a}, count(*) AS rows, {both} FROM {{{}}} a {kind} {{{}}} b ON {narrow} WHERE {filter} GROUP BY a.{a}",
        left.name, right.name
    )
}

fn subquery(choices: &mut Choices, table: &Table, tables: &[Table]) -> String {
    let other = choices.of(tables).clone();
    let (mine, theirs) = (column(choices, table, Kind::Text), column(choices, &other, Kind::Text));
    let (inner, outer) = (filter(choices, &other, "b.", 2), filter(choices, table, "a.", 1));
    let test = match choices.below(4) {
        0 => format!("a.{mine} IN (SELECT b.{theirs} FROM {{{}}} b WHERE {inner})", other.name),
        1 => format!(
            "a.{mine} NOT IN (SELECT b.{theirs} FROM {{{}}} b WHERE ({inner}) AND b.{theirs} IS NOT NULL)",
            other.name
        ),
        2 => format!("EXISTS (SELECT 1 FROM {{{}}} b WHERE b.{theirs} = a.{mine} AND ({inner}))", other.name),
        _ => format!("a._offset > (SELECT avg(b._offset) FROM {{{}}} b WHERE {inner})", other.name),
    };
    format!("SELECT a._partition, a._offset, a.{mine} FROM {{{}}} a WHERE ({outer}) AND {test}", table.name)
}

fn both(choices: &mut Choices, table: &Table) -> String {
    let set = *choices.of(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT"]);
    let columns = named([group_key(choices, table), "_partition".to_owned()]);
    let (a, b) = (filter(choices, table, "", 2), filter(choices, table, "", 2));
    let name = &table.name;
    format!("SELECT {columns} FROM {{{name}}} WHERE {a} {set} SELECT {columns} FROM {{{name}}} WHERE {b}")
}

fn window(choices: &mut Choices, table: &Table) -> String {
    let key = group_key(choices, table);
    let function = match choices.below(3) {
        0 => "row_number()".to_owned(),
        1 => "count(*)".to_owned(),
        _ => format!("lag({}, 1)", expression(choices, table, "")),
    };
    let filter = filter(choices, table, "", 2);
    format!(
        "SELECT _partition, _offset, {function} OVER (PARTITION BY {key} ORDER BY _partition, _offset) FROM {{{}}} WHERE {filter}",
        table.name
    )
}

/// A column of a kind, or of none if the table has none of it; every table has a text.
fn column(choices: &mut Choices, table: &Table, kind: Kind) -> String {
    let all: Vec<_> = table.columns.iter().filter(|column| column.kind == kind).collect();
    choices.of(&all).name.clone()
}

fn group_key(choices: &mut Choices, table: &Table) -> String {
    let all: Vec<_> = table.columns.iter().filter(|column| matches!(column.kind, Kind::Text | Kind::Flag)).collect();
    match choices.below(4) {
        0 => "_partition".to_owned(),
        1 => "_offset % 5".to_owned(),
        _ => choices.of(&all).name.clone(),
    }
}

fn expression(choices: &mut Choices, table: &Table, of: &str) -> String {
    let column = choices.of(&table.columns).clone();
    let name = format!("{of}{}", column.name);
    match (column.kind, choices.below(3)) {
        (Kind::Text, 0) => format!("upper({name})"),
        (Kind::Text, 1) => format!("coalesce({name}, 'none')"),
        (Kind::Whole, 0) => format!("{name} * 3 - 7"),
        (Kind::Whole, 1) => format!("CASE WHEN {name} > 20 THEN 'many' WHEN {name} IS NULL THEN NULL ELSE 'few' END"),
        (Kind::Fraction, 0) => format!("{name} / 2"),
        (Kind::Time, 0) => format!("date_trunc('minute', {name})"),
        (Kind::Flag, 0) => format!("NOT {name}"),
        _ => name,
    }
}

fn aggregate(choices: &mut Choices, table: &Table, of: &str) -> String {
    let column = choices.of(&table.columns).clone();
    let name = format!("{of}{}", column.name);
    let numeric = matches!(column.kind, Kind::Whole | Kind::Fraction);
    match choices.below(6) {
        0 => "count(*)".to_owned(),
        1 => format!("count({name})"),
        2 => format!("count(DISTINCT {name})"),
        3 if numeric => format!("sum({name})"),
        4 if numeric => format!("avg({name})"),
        _ if column.kind == Kind::Flag => format!("count({name})"),
        5 => format!("max({name})"),
        _ => format!("min({name})"),
    }
}

/// A condition, nested up to `depth` deep.
fn filter(choices: &mut Choices, table: &Table, of: &str, depth: u32) -> String {
    match (depth, choices.below(5)) {
        (0, _) | (_, 0 | 1) => condition(choices, table, of),
        (_, 2) => format!("NOT ({})", filter(choices, table, of, depth - 1)),
        (_, joined) => {
            let word = if joined == 3 { "AND" } else { "OR" };
            let (a, b) = (filter(choices, table, of, depth - 1), filter(choices, table, of, depth - 1));
            format!("({a}) {word} ({b})")
        }
    }
}

fn condition(choices: &mut Choices, table: &Table, of: &str) -> String {
    let comparison = *choices.of(&["=", "<>", "<", "<=", ">", ">="]);
    match choices.below(9) {
        0 => format!("{of}_partition {comparison} {}", choices.below(PARTITIONS)),
        1 => format!("{of}_offset {comparison} {}", choices.below(OFFSETS)),
        2 => {
            let first = choices.below(OFFSETS);
            format!("{of}_offset BETWEEN {first} AND {}", first + choices.below(40))
        }
        3 => format!("{of}_timestamp {comparison} '{}'", time(choices.below(OFFSETS) * 1_000)),
        4 => "true".to_owned(),
        _ => on_column(choices, table, of, comparison),
    }
}

fn on_column(choices: &mut Choices, table: &Table, of: &str, comparison: &str) -> String {
    let column = choices.of(&table.columns).clone();
    let name = format!("{of}{}", column.name);
    if choices.one_in(5) {
        return format!("{name} IS {}NULL", if choices.one_in(2) { "NOT " } else { "" });
    }
    let text = |choices: &mut Choices| format!("'{}'", choices.of(&WORDS).replace('\'', "''"));
    match column.kind {
        Kind::Text if choices.one_in(3) => format!("{name} LIKE '%{}%'", choices.of(&["o", "th", "R", "st"])),
        Kind::Text if choices.one_in(3) => format!("{name} IN ({}, {})", text(choices), text(choices)),
        Kind::Text => format!("{name} {comparison} {}", text(choices)),
        Kind::Whole => format!("{name} {comparison} {}", choices.below(40)),
        Kind::Fraction => format!("{name} {comparison} {}", quarters(choices)),
        Kind::Time => format!("{name} {comparison} '{}'", time(choices.below(OFFSETS * 1_000))),
        Kind::Flag => format!("{name} = {}", choices.one_in(2)),
    }
}

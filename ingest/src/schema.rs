//! A stream's schema as this crate works with it: one tree of [`Type`]s for decoding and encoding alike.
//!
//! The text is Avro schema JSON, whatever the records' format is. What has no plain column is refused here, by field,
//! so that a stream either decodes whole or is refused when it is defined:
//!
//! - unions other than `["null", T]` and `[T, "null"]` (they would become a tagged column that SQL cannot use),
//! - recursive records (no column has that shape),
//! - `null`, empty records and `fixed` of size 0 inside other types: values that take no bytes, of which a short
//!   message could claim billions,
//! - the `duration` and `big-decimal` logical types, and decimals of more than 38 digits,
//! - fields that begin with `_`, which are Cairn's own columns.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_proof::statement::{SchemaVersion, StreamDefinition};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};

/// How many columns a table may have, counted through all nesting.
const FIELDS_MAX: usize = 2_000;
/// Digits of the largest decimal column.
const DECIMAL_DIGITS_MAX: u8 = 38;
/// Bytes of the largest `fixed`.
const FIXED_MAX: usize = 1 << 20;
const NAME_MAX: usize = 255;
/// The length of a field's place in words; it grows with each level of nesting.
const PLACE_MAX: usize = 4_096;

/// A value's type, and whether and how it may be null.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    pub(crate) null: Nullability,
}

/// Where the null stands in the union, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nullability {
    /// Not a union.
    Never,
    /// `["null", T]`: branch 0 is null.
    First,
    /// `[T, "null"]`: branch 1 is null.
    Second,
}

impl Nullability {
    pub(crate) fn allowed(self) -> bool {
        self != Self::Never
    }

    /// The union branch of a null, or of a value.
    pub(crate) fn branch(self, null: bool) -> i64 {
        match self {
            Self::First => i64::from(!null),
            Self::Second | Self::Never => i64::from(null),
        }
    }
}

/// The unit of a timestamp's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    pub(crate) fn per_second(self) -> i64 {
        match self {
            Self::Millis => 1_000,
            Self::Micros => 1_000_000,
            Self::Nanos => 1_000_000_000,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Millis => "milliseconds",
            Self::Micros => "microseconds",
            Self::Nanos => "nanoseconds",
        }
    }
}

/// The shape of a value that is not null.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Date,
    Time(Unit),
    /// An instant (`utc`), or a local date and time without a zone.
    Timestamp {
        unit: Unit,
        utc: bool,
    },
    Uuid,
    Decimal {
        precision: u8,
        scale: u8,
        fixed: Option<usize>,
    },
    Fixed(usize),
    Enum(Arc<EnumKind>),
    Array(Box<Type>),
    Map(Box<Type>),
    Record(Arc<Record>),
}

/// An enum's symbols, and the one that stands for symbols a reader does not know.
#[derive(Debug, PartialEq)]
pub(crate) struct EnumKind {
    pub(crate) symbols: Vec<String>,
    pub(crate) default: Option<usize>,
}

/// A record's fields in order.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// The name without its namespace.
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
    by_name: HashMap<String, usize>,
}

impl Record {
    /// The position of the field with this name.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

/// A record's field.
#[derive(Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) default: Option<Json>,
    pub(crate) ty: Type,
}

impl Kind {
    /// How many columns it takes, itself included.
    pub(crate) fn leaves(&self) -> usize {
        match self {
            Self::Array(inner) | Self::Map(inner) => 1 + inner.kind.leaves(),
            Self::Record(record) => 1 + record.fields.iter().map(|field| field.ty.kind.leaves()).sum::<usize>(),
            _ => 1,
        }
    }

    /// What a person calls it, for error messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Boolean => "boolean".into(),
            Self::Int => "int (a whole number of 32 bits)".into(),
            Self::Long => "long (a whole number of 64 bits)".into(),
            Self::Float => "float".into(),
            Self::Double => "double".into(),
            Self::Bytes => "bytes".into(),
            Self::String => "string".into(),
            Self::Date => "date (2026-01-31, or days since 1970)".into(),
            Self::Time(unit) => format!("time (08:15:00, or {} since midnight)", unit.name()),
            Self::Timestamp { unit, utc: true } => {
                format!("timestamp (2026-01-31T08:15:00Z, or {} since 1970)", unit.name())
            }
            Self::Timestamp { unit, utc: false } => {
                format!("local timestamp (2026-01-31T08:15:00, or {} since 1970)", unit.name())
            }
            Self::Uuid => "uuid".into(),
            Self::Decimal { precision, scale, .. } => format!("decimal({precision}, {scale})"),
            Self::Fixed(size) => format!("fixed of {size} bytes"),
            Self::Enum(kind) => format!("one of {}", kind.symbols.join(", ")),
            Self::Array(_) => "array".into(),
            Self::Map(_) => "map".into(),
            Self::Record(record) => format!("record {}", record.name),
        }
    }
}

/// The record that the rows of a stream's schema version are.
///
/// # Errors
/// As [`parse`].
pub(crate) fn of(definition: &StreamDefinition, version: &SchemaVersion) -> Result<Arc<Record>> {
    let text = cairn_anchor::schema::avro_text(definition.format, &version.text)
        .map_err(|error| Error::input(format!("schema id {}", version.id)).because(error))?;
    parse(&text)
}

/// Parses a schema's text into the record that its rows are.
///
/// # Errors
/// [`Input`](crate::ErrorKind::Input): not an Avro schema, not a record, or something of the list above, with the
/// field's name.
pub(crate) fn parse(text: &str) -> Result<Arc<Record>> {
    // serde_json stops at 128 levels, which bounds every recursion below.
    let schema: Json =
        serde_json::from_str(text).map_err(|error| Error::input("the schema is not JSON").because(error))?;
    let mut parser = Parser { named: HashMap::new(), open: Vec::new() };
    let ty = parser.nullable(&schema, "", "the schema")?;
    match ty {
        Type { kind: Kind::Record(record), null: Nullability::Never } => Ok(record),
        other => {
            Err(Error::input(format!("the schema is {}, but a stream's rows need a record", other.kind.describe())))
        }
    }
}

/// Turns schema JSON into types; see the [Avro specification](https://avro.apache.org/docs/1.12.0/specification/),
/// "Schema Declaration", "Names" and "Logical Types".
struct Parser {
    /// Full name to type, once it is complete.
    named: HashMap<String, Kind>,
    /// Records that are being parsed: meeting one again is a recursion.
    open: Vec<String>,
}

impl Parser {
    fn nullable(&mut self, schema: &Json, namespace: &str, place: &str) -> Result<Type> {
        let Json::Array(branches) = schema else {
            return Ok(Type { kind: self.kind(schema, namespace, place)?, null: Nullability::Never });
        };
        let is_null = |branch: &Json| branch == "null" || branch.get("type").is_some_and(|name| name == "null");
        let (null, inner) = match branches.as_slice() {
            [first, inner] if is_null(first) => (Nullability::First, inner),
            [inner, second] if is_null(second) => (Nullability::Second, inner),
            other => {
                return Err(Error::input(format!(
                    "{place} is a union of {} types; only [\"null\", TYPE] becomes a column",
                    other.len()
                )));
            }
        };
        Ok(Type { kind: self.kind(inner, namespace, place)?, null })
    }

    fn kind(&mut self, schema: &Json, namespace: &str, place: &str) -> Result<Kind> {
        match schema {
            Json::String(name) => self.by_name(name, namespace, place),
            Json::Object(declaration) => self.declared(declaration, namespace, place),
            _ => Err(Error::input(format!("{place} has {schema} where the schema needs a type"))),
        }
    }

    fn by_name(&self, name: &str, namespace: &str, place: &str) -> Result<Kind> {
        Ok(match name {
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            "null" => {
                return Err(Error::input(format!("{place} has the type null alone, which does not become a column")));
            }
            _ => {
                let full = full_name(name, namespace);
                if self.open.contains(&full) {
                    return Err(Error::input(format!(
                        "{place} contains itself (record {full}): no table has that shape"
                    )));
                }
                let known = self.named.get(&full).or_else(|| self.named.get(name));
                known.cloned().ok_or_else(|| {
                    Error::input(format!("{place} has the type {name}, which the schema does not define before it"))
                })?
            }
        })
    }

    fn declared(&mut self, declaration: &Map<String, Json>, namespace: &str, place: &str) -> Result<Kind> {
        let Some(ty) = declaration.get("type") else {
            return Err(Error::input(format!("{place} has a type without `type`")));
        };
        let Json::String(name) = ty else {
            // {"type": {"type": "array", …}}: a declaration inside a declaration.
            return self.kind(ty, namespace, place);
        };
        let logical = declaration.get("logicalType").and_then(Json::as_str).unwrap_or_default();
        Ok(match name.as_str() {
            "record" | "error" => return self.record(declaration, namespace, place),
            "enum" => self.enumeration(declaration, namespace, place)?,
            "fixed" => self.fixed(declaration, namespace, logical, place)?,
            "array" => {
                let items = declaration.get("items").unwrap_or(&Json::Null);
                Kind::Array(Box::new(self.nested(items, namespace, &format!("an item of {place}"))?))
            }
            "map" => {
                let values = declaration.get("values").unwrap_or(&Json::Null);
                Kind::Map(Box::new(self.nested(values, namespace, &format!("a value of {place}"))?))
            }
            _ => match (name.as_str(), logical) {
                ("bytes", "decimal") => decimal(declaration, None, place)?,
                (_, "big-decimal") => {
                    return Err(Error::input(format!("{place} is a big-decimal, which does not become a column")));
                }
                (base, logical) => {
                    logical_kind(base, logical).map_or_else(|| self.by_name(base, namespace, place), Ok)?
                }
            },
        })
    }

    fn nested(&mut self, schema: &Json, namespace: &str, place: &str) -> Result<Type> {
        if place.len() > PLACE_MAX {
            return Err(Error::input("the schema nests too many types into each other"));
        }
        self.nullable(schema, namespace, place)
    }

    fn enumeration(&mut self, declaration: &Map<String, Json>, namespace: &str, place: &str) -> Result<Kind> {
        let (full, _) = declared_name(declaration, namespace, place)?;
        let symbols: Option<Vec<String>> = declaration
            .get("symbols")
            .and_then(Json::as_array)
            .and_then(|symbols| symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned)).collect());
        let Some(symbols) = symbols.filter(|symbols| !symbols.is_empty()) else {
            return Err(Error::input(format!("{place} (enum {full}) has no symbols")));
        };
        if let Some(twice) = symbols.iter().enumerate().find(|(at, symbol)| symbols[..*at].contains(symbol)) {
            return Err(Error::input(format!("{place} (enum {full}) has the symbol {} twice", twice.1)));
        }
        let default = declaration.get("default").and_then(Json::as_str);
        let default = default.and_then(|default| symbols.iter().position(|symbol| symbol == default));
        let kind = Kind::Enum(Arc::new(EnumKind { symbols, default }));
        self.named.insert(full, kind.clone());
        Ok(kind)
    }

    fn fixed(&mut self, declaration: &Map<String, Json>, namespace: &str, logical: &str, place: &str) -> Result<Kind> {
        let (full, _) = declared_name(declaration, namespace, place)?;
        let size = declaration.get("size").and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok());
        let Some(size) = size.filter(|size| (1..=FIXED_MAX).contains(size)) else {
            return Err(Error::input(format!("{place} (fixed {full}) needs a size from 1 to {FIXED_MAX}")));
        };
        let kind = match logical {
            "decimal" => decimal(declaration, Some(size), place)?,
            "duration" => {
                return Err(Error::input(format!("{place} is a duration, which does not become a column")));
            }
            _ => Kind::Fixed(size),
        };
        self.named.insert(full, kind.clone());
        Ok(kind)
    }

    fn record(&mut self, declaration: &Map<String, Json>, namespace: &str, place: &str) -> Result<Kind> {
        let (full, namespace) = declared_name(declaration, namespace, place)?;
        let declared = declaration.get("fields").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        if declared.is_empty() {
            return Err(Error::input(format!("{place} (record {full}) has no fields")));
        }
        self.open.push(full.clone());
        let mut fields = Vec::with_capacity(declared.len().min(FIELDS_MAX));
        let mut by_name = HashMap::new();
        for field in declared {
            let field = self.field(field, &namespace, place, &full)?;
            if by_name.insert(field.name.clone(), fields.len()).is_some() {
                return Err(Error::input(format!("the record {full} has the field {} twice", field.name)));
            }
            fields.push(field);
        }
        self.open.pop();
        let name = full.rsplit('.').next().unwrap_or(&full).to_owned();
        let kind = Kind::Record(Arc::new(Record { name, fields, by_name }));
        self.named.insert(full, kind.clone());
        Self::bounded(&kind)?;
        Ok(kind)
    }

    /// Bounds the width of a table: a type that is named twice counts twice.
    fn bounded(kind: &Kind) -> Result<()> {
        if kind.leaves() > FIELDS_MAX {
            return Err(Error::input(format!("the schema has more than {FIELDS_MAX} fields, nested ones included")));
        }
        Ok(())
    }

    fn field(&mut self, field: &Json, namespace: &str, place: &str, record: &str) -> Result<Field> {
        let name = field.get("name").and_then(Json::as_str).unwrap_or_default();
        let top = self.open.len() == 1;
        if !is_name(name) {
            return Err(Error::input(format!(
                "the record {record} has a field named {name:?}; a name is letters, digits and _, not beginning with a \
                 digit"
            )));
        }
        if top && name.starts_with('_') {
            return Err(Error::input(format!(
                "the field {name} begins with _; those columns are Cairn's own: rename it"
            )));
        }
        let place = if top { format!("the field {name}") } else { format!("{place}.{name}") };
        let ty = self.nested(field.get("type").unwrap_or(&Json::Null), namespace, &place)?;
        let aliases = field.get("aliases").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        Ok(Field {
            name: name.to_owned(),
            aliases: aliases.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
            default: field.get("default").cloned(),
            ty,
        })
    }
}

/// What the logical types of numbers and strings stand for; on another base they are ignored, as Avro wants it.
fn logical_kind(base: &str, logical: &str) -> Option<Kind> {
    Some(match (base, logical) {
        ("int", "date") => Kind::Date,
        ("int", "time-millis") => Kind::Time(Unit::Millis),
        ("long", "time-micros") => Kind::Time(Unit::Micros),
        ("long", "timestamp-millis") => Kind::Timestamp { unit: Unit::Millis, utc: true },
        ("long", "timestamp-micros") => Kind::Timestamp { unit: Unit::Micros, utc: true },
        ("long", "timestamp-nanos") => Kind::Timestamp { unit: Unit::Nanos, utc: true },
        ("long", "local-timestamp-millis") => Kind::Timestamp { unit: Unit::Millis, utc: false },
        ("long", "local-timestamp-micros") => Kind::Timestamp { unit: Unit::Micros, utc: false },
        ("long", "local-timestamp-nanos") => Kind::Timestamp { unit: Unit::Nanos, utc: false },
        ("string", "uuid") => Kind::Uuid,
        _ => return None,
    })
}

fn decimal(declaration: &Map<String, Json>, fixed: Option<usize>, place: &str) -> Result<Kind> {
    let digits = |key: &str| declaration.get(key).and_then(Json::as_u64).and_then(|digits| u8::try_from(digits).ok());
    let scale = if declaration.contains_key("scale") { digits("scale") } else { Some(0) };
    match (digits("precision"), scale) {
        (Some(precision @ 1..=DECIMAL_DIGITS_MAX), Some(scale))
            if scale <= precision && fixed.is_none_or(|size| digits_fit(precision, size)) =>
        {
            Ok(Kind::Decimal { precision, scale, fixed })
        }
        _ => Err(Error::input(format!(
            "{place} is a decimal whose precision or scale is missing or too large; allowed are 1 to \
             {DECIMAL_DIGITS_MAX} digits, and as many as its bytes hold, at most 16"
        ))),
    }
}

/// Whether all numbers of so many digits fit a two's-complement number of so many bytes.
fn digits_fit(precision: u8, bytes: usize) -> bool {
    match bytes {
        0 => false,
        1..16 => 10u128.pow(u32::from(precision)) <= 1 << (8 * bytes - 1),
        _ => bytes == 16,
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    !name.is_empty() && name.len() <= NAME_MAX && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(plain)
}

/// A declaration's full name, and the namespace for what it contains.
fn declared_name(declaration: &Map<String, Json>, namespace: &str, place: &str) -> Result<(String, String)> {
    let name = declaration.get("name").and_then(Json::as_str).unwrap_or_default();
    let namespace = declaration.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
    if !name.split('.').all(is_name) {
        return Err(Error::input(format!("{place} declares a type named {name:?}, which is not a name")));
    }
    let full = full_name(name, namespace);
    let inside = full.rsplit_once('.').map(|(namespace, _)| namespace.to_owned()).unwrap_or_default();
    Ok((full, inside))
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(ty: &str) -> Result<Arc<Record>> {
        parse(&format!(r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{ty}}}]}}"#))
    }

    #[test]
    fn plain_nullable_and_nested_types() {
        let record = parse(
            r#"{"type":"record","name":"R","namespace":"x.y","fields":[
                {"name":"a","type":"long"},
                {"name":"b","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},
                {"name":"c","type":[{"type":"record","name":"S","fields":[{"name":"d","type":"double"}]},"null"]},
                {"name":"e","type":{"type":"array","items":"S"}},
                {"name":"f","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},
                {"name":"g","type":{"type":"enum","name":"E","symbols":["x","y"],"default":"y"}}]}"#,
        )
        .unwrap();
        assert_eq!(record.position("c"), Some(2));
        assert_eq!(record.fields[1].ty.null, Nullability::First);
        assert_eq!(record.fields[1].ty.kind, Kind::Timestamp { unit: Unit::Millis, utc: true });
        assert_eq!(record.fields[2].ty.null, Nullability::Second);
        let Kind::Array(items) = &record.fields[3].ty.kind else { panic!("an array") };
        assert!(matches!(&items.kind, Kind::Record(inner) if inner.fields[0].name == "d"));
        assert_eq!(record.fields[4].ty.kind, Kind::Decimal { precision: 10, scale: 2, fixed: None });
        assert!(matches!(&record.fields[5].ty.kind, Kind::Enum(inner) if inner.default == Some(1)));
    }

    #[test]
    fn what_has_no_column_is_refused_by_field() {
        for (ty, part) in [
            (r#"["null","long","string"]"#, "union of 3"),
            (r#""null""#, "null alone"),
            (r#"{"type":"fixed","name":"F","size":0}"#, "a size from 1"),
            (r#"{"type":"record","name":"E","fields":[]}"#, "no fields"),
            (r#""S""#, "does not define"),
            (r#"7"#, "needs a type"),
            (r#"["null","R"]"#, "contains itself"),
            (r#"{"type":"array","items":{"type":"map","values":"R"}}"#, "contains itself"),
            (r#"{"type":"bytes","logicalType":"decimal","precision":50,"scale":2}"#, "1 to 38 digits"),
        ] {
            let text = one(ty).unwrap_err().to_string();
            assert!(text.contains(part) && text.contains('a'), "{ty}: {text}");
        }
        assert!(parse(r#""string""#).unwrap_err().to_string().contains("record"));
        assert!(parse("{").is_err());
        let mut deep = r#""long""#.to_owned();
        for _ in 0..200 {
            deep = format!(r#"{{"type":"array","items":{deep}}}"#);
        }
        assert!(one(&deep).is_err());
    }
}

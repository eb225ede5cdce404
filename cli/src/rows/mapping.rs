//! Which column of a file goes into which field of a stream's schema.
//!
//! Columns go by name. `--map from=to` renames one, `--map from=` leaves one out, `--map outer.*=*` lifts the members of
//! a nested object to the top, `--set field=text` fills a field that the file does not have. Whatever the file has and
//! nobody asked for is an error, and so is a field that the schema demands and nobody fills: a wrong name would
//! otherwise become a column of nulls that nobody notices.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Cell;

/// How columns get into fields, as the command line says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Column of the file → field of the schema; `None` leaves the column out.
    renames: BTreeMap<String, Option<String>>,
    /// Nested objects whose members count as columns of their own.
    lifted: BTreeSet<String>,
    /// Field → the text that each row gets.
    constants: BTreeMap<String, String>,
    /// Whether columns that nobody asked for are left out in silence.
    ignore_unknown: bool,
}

impl Mapping {
    /// Reads the values of `--map from=to` and `--set field=text`.
    ///
    /// # Errors
    /// When one has no `=`, names nothing, or is there twice.
    pub(crate) fn parse(maps: &[String], constants: &[String], ignore_unknown: bool) -> Result<Self> {
        let mut mapping = Self { ignore_unknown, ..Self::default() };
        for text in maps {
            let (from, to) = text.split_once('=').with_context(|| format!("--map {text}: write it as from=to"))?;
            ensure!(!from.is_empty(), "--map {text}: there is no column before the '='");
            match (from.strip_suffix(".*"), to) {
                (Some(outer), "*") => drop(mapping.lifted.insert(outer.to_owned())),
                (Some(outer), _) => bail!("--map {text}: members are lifted with --map '{outer}.*=*'"),
                (None, _) => {
                    let to = (!to.is_empty()).then(|| to.to_owned());
                    let before = mapping.renames.insert(from.to_owned(), to);
                    ensure!(before.is_none(), "--map {from}=… is there twice");
                }
            }
        }
        for text in constants {
            let (field, value) =
                text.split_once('=').with_context(|| format!("--set {text}: write it as field=text"))?;
            let before = mapping.constants.insert(field.to_owned(), value.to_owned());
            ensure!(before.is_none(), "--set {field}=… is there twice");
        }
        Ok(mapping)
    }
}

/// A field of the schema, as far as mapping needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    /// Null is one of its types.
    pub(super) nullable: bool,
    /// It has a default, or null is allowed: a row may go without it.
    optional: bool,
}

/// The top-level fields of an Avro record schema.
fn fields(schema: &str) -> Result<Vec<Field>> {
    let schema: Value = serde_json::from_str(schema).context("the stream's schema is not JSON")?;
    let fields = schema["fields"].as_array().context("the stream's schema is not an Avro record")?;
    fields
        .iter()
        .map(|field| {
            let name = field["name"].as_str().context("the stream's schema has a field without a name")?;
            let branches = field["type"].as_array();
            let nullable = branches.is_some_and(|branches| branches.iter().any(|branch| branch == "null"));
            let optional = nullable || field.get("default").is_some();
            Ok(Field { name: name.to_owned(), nullable, optional })
        })
        .collect()
}

/// Where a column goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Into the field at this position.
    Field(usize),
    /// Nowhere, as was asked.
    Dropped,
    /// An object to look into.
    Inside,
    /// Nobody said.
    Unknown,
}

/// A mapping that fits a schema.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) fields: Vec<Field>,
    positions: BTreeMap<String, usize>,
    mapping: Mapping,
    /// Objects on the way to a dotted path.
    inside: BTreeSet<String>,
}

impl Plan {
    /// Checks the mapping against the schema.
    pub(super) fn new(schema: &str, mapping: &Mapping) -> Result<Self> {
        let fields = fields(schema)?;
        let positions: BTreeMap<String, usize> =
            fields.iter().enumerate().map(|(index, field)| (field.name.clone(), index)).collect();
        let wants = || fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ");
        let mut filled = BTreeMap::new();
        for (from, to) in &mapping.renames {
            let Some(to) = to else { continue };
            ensure!(positions.contains_key(to), "--map {from}={to}: the schema has no field {to}; it has {}", wants());
            if let Some(before) = filled.insert(to, from) {
                bail!("--map {from}={to}: {to} is filled from {before} already");
            }
        }
        for field in mapping.constants.keys() {
            ensure!(positions.contains_key(field), "--set {field}=…: the schema has no such field; it has {}", wants());
            if let Some(from) = filled.get(field) {
                bail!("--set {field}=…: {field} is filled from the column {from} already");
            }
        }
        let mut inside = BTreeSet::new();
        for path in mapping.renames.keys().chain(&mapping.lifted) {
            inside.extend(path.match_indices('.').map(|(dot, _)| path[..dot].to_owned()));
        }
        inside.extend(mapping.lifted.iter().cloned());
        Ok(Self { fields, positions, mapping: mapping.clone(), inside })
    }

    /// Where the column at `path` goes. `name` is what it is called where it counts as a column: the path, or what is
    /// left of it below a lifted object.
    pub(super) fn place(&self, path: &str, name: &str) -> Place {
        if let Some(to) = self.mapping.renames.get(path) {
            return match to.as_ref().and_then(|to| self.positions.get(to)) {
                Some(position) => Place::Field(*position),
                None => Place::Dropped,
            };
        }
        if self.inside.contains(path) {
            return Place::Inside;
        }
        match self.positions.get(name) {
            Some(position) => Place::Field(*position),
            None if self.mapping.ignore_unknown => Place::Dropped,
            None => Place::Unknown,
        }
    }

    /// Whether the members of the object at `path` count as columns by their own names.
    pub(super) fn is_lifted(&self, path: &str) -> bool {
        self.mapping.lifted.contains(path)
    }

    /// A row before the file's columns are put in: what `--set` says, and nothing else.
    pub(super) fn empty_row(&self) -> Vec<Cell> {
        let mut cells = vec![Cell::Missing; self.fields.len()];
        for (index, text) in self.constants() {
            cells[index] = Cell::Text(text.to_owned());
        }
        cells
    }

    /// Fields that `--set` fills, and with what.
    fn constants(&self) -> impl Iterator<Item = (usize, &str)> {
        self.mapping.constants.iter().filter_map(|(field, text)| Some((*self.positions.get(field)?, text.as_str())))
    }

    /// Names of the fields that a row must have and `filled` does not fill.
    pub(super) fn missing(&self, filled: impl Fn(usize) -> bool) -> Vec<&str> {
        let gap = |(index, field): &(usize, &Field)| !field.optional && !filled(*index);
        self.fields.iter().enumerate().filter(gap).map(|(_, field)| field.name.as_str()).collect()
    }

    /// The columns of a file with a header line, checked as a whole.
    ///
    /// # Errors
    /// Lists what the file has and what the schema wants.
    pub(super) fn header(&self, columns: &[String]) -> Result<Vec<Place>> {
        let places: Vec<Place> = columns.iter().map(|column| self.place(column, column)).collect();
        let mut wrong = Vec::new();
        let mut source = BTreeMap::new();
        for (column, place) in columns.iter().zip(&places) {
            match place {
                Place::Unknown => wrong.push(format!("the schema has no field for the column {column}")),
                Place::Field(index) => {
                    if let Some(before) = source.insert(*index, column) {
                        let field = &self.fields[*index].name;
                        wrong.push(format!("both {before} and {column} would fill {field}"));
                    }
                }
                Place::Dropped | Place::Inside => {}
            }
        }
        for (index, _) in self.constants() {
            if let Some(column) = source.get(&index) {
                wrong.push(format!("both the column {column} and --set would fill {}", self.fields[index].name));
            }
        }
        let constants: BTreeSet<usize> = self.constants().map(|(index, _)| index).collect();
        for field in self.missing(|index| source.contains_key(&index) || constants.contains(&index)) {
            wrong.push(format!("no column for the field {field}, which may not be null"));
        }
        for from in self.mapping.renames.keys().filter(|from| !columns.contains(from)) {
            wrong.push(format!("--map {from}=…: the file has no such column"));
        }
        ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), self.advice(columns));
        Ok(places)
    }

    /// What the file has, what the schema wants, and how to bring them together.
    pub(super) fn advice(&self, columns: &[String]) -> String {
        let demanded = |field: &Field| if field.optional { String::new() } else { "*".to_owned() };
        let wants: Vec<String> = self.fields.iter().map(|field| format!("{}{}", field.name, demanded(field))).collect();
        format!(
            "the file has:     {}\nthe schema wants: {} (* in every row)\nrename with --map column=field, leave out with \
             --map column=, fill with --set field=text",
            columns.join(", "),
            wants.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[
        {"name":"id","type":"string"},
        {"name":"speed","type":["null","double"],"default":null},
        {"name":"source","type":"string","default":"none"}]}"#;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn plan(maps: &[&str], constants: &[&str]) -> Result<Plan> {
        Plan::new(SCHEMA, &Mapping::parse(&strings(maps), &strings(constants), false)?)
    }

    fn refusal(maps: &[&str], constants: &[&str], columns: &[&str]) -> String {
        plan(maps, constants).and_then(|plan| plan.header(&strings(columns))).unwrap_err().to_string()
    }

    #[test]
    fn columns_go_by_name_in_any_order_and_optional_fields_may_be_left_out() {
        let plan = plan(&[], &[]).unwrap();
        assert_eq!(plan.header(&strings(&["speed", "id"])).unwrap(), [Place::Field(1), Place::Field(0)]);
        assert_eq!(plan.header(&strings(&["id"])).unwrap(), [Place::Field(0)]);
        assert!(plan.fields[1].nullable && !plan.fields[2].nullable);
    }

    #[test]
    fn renames_drops_and_constants() {
        let plan = plan(&["v=speed", "note="], &["id=D1"]).unwrap();
        assert_eq!(plan.header(&strings(&["v", "note"])).unwrap(), [Place::Field(1), Place::Dropped]);
        assert_eq!(plan.constants().collect::<Vec<_>>(), [(0, "D1")]);
        let open = Plan::new(SCHEMA, &Mapping::parse(&[], &[], true).unwrap()).unwrap();
        assert_eq!(open.header(&strings(&["id", "x"])).unwrap(), [Place::Field(0), Place::Dropped]);
    }

    #[test]
    fn what_does_not_fit_is_listed_with_both_sides() {
        let text = refusal(&[], &[], &["ident", "speed"]);
        for part in [
            "no field for the column ident",
            "no column for the field id, which may not be null",
            "the file has:     ident, speed",
            "the schema wants: id*, speed, source",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        for (maps, constants, columns, part) in [
            (&["v=speed"][..], &[][..], &["id", "v", "speed"][..], "both v and speed would fill speed"),
            (&["v=speed"], &[], &["id"], "--map v=…: the file has no such column"),
            (&["v=sped"], &[], &["id", "v"], "no field sped; it has id, speed, source"),
            (&["a=id", "b=id"], &[], &["a", "b"], "id is filled from a already"),
            (&["a=id", "a=speed"], &[], &["a"], "there twice"),
            (&["a"], &[], &["a"], "write it as from=to"),
            (&["=id"], &[], &["a"], "no column before"),
            (&["r.*=x"], &[], &["a"], "'r.*=*'"),
            (&[], &["id"], &["a"], "write it as field=text"),
            (&[], &["idd=1"], &["a"], "no such field"),
            (&["a=id"], &["id=1"], &["a"], "filled from the column a already"),
            (&[], &["id=1"], &["id"], "both the column id and --set would fill id"),
            (&[], &["id=1", "id=2"], &["speed"], "there twice"),
        ] {
            let text = refusal(maps, constants, columns);
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn dotted_paths_and_lifted_objects() {
        let plan = plan(&["record.sensor.id=id", "record.*=*"], &[]).unwrap();
        assert_eq!(plan.place("record", "record"), Place::Inside);
        assert!(plan.is_lifted("record") && !plan.is_lifted("record.sensor"));
        assert_eq!(plan.place("record.sensor", "sensor"), Place::Inside);
        assert_eq!(plan.place("record.sensor.id", "record.sensor.id"), Place::Field(0));
        assert_eq!(plan.place("record.speed", "speed"), Place::Field(1));
        assert_eq!(plan.place("record.colour", "colour"), Place::Unknown);
    }
}

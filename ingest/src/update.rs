//! Whether a schema may follow those that a stream has: the rule that an owner's update is checked by before the chain is
//! told, since the chain itself does not read schemas (docs/decisions.md).
//!
//! It is stricter than Avro's resolution, because a record has two readers. Ingest decodes what old writers still publish
//! by the new schema; a query reads what is stored under the old one as the new one has it. Both must say the same of one
//! record, and neither may lose a value without a sign:
//!
//! | change of a field | |
//! | --- | --- |
//! | added | null stands for it before, or its default: a number, a text or a boolean, in `avro-confluent` alone |
//! | left out | its column is gone from then on; the segments keep it |
//! | int to long, float or double; long to float or double; float to double | not within records, arrays and maps |
//! | may be null | not within records, arrays and maps; not taken back |
//! | an enum gets symbols, a decimal more digits before the point | no symbol is taken away |
//! | another name (alias), any other type | refused: add a field, and leave the old one out |

use cairn_anchor::schema::{default_value, table_schema};
use cairn_proof::statement::{Format, SchemaVersion, StreamDefinition};

use crate::decode::StreamDecoder;
use crate::encode::Encoder;
use crate::error::{Error, Result};
use crate::schema::{self, Field, Kind, Record, Type};

/// The definition with one more version, if that reads all that the older ones wrote.
///
/// # Errors
/// [`Input`](crate::ErrorKind::Input), naming the field and what is allowed.
pub fn followed_by(definition: &StreamDefinition, next: SchemaVersion) -> Result<StreamDefinition> {
    if definition.format == Format::Avro {
        return Err(Error::input(format!(
            "the stream {} is of format avro, whose records do not name their schema: it has one for ever; register a \
             stream of format avro-confluent",
            definition.name
        )));
    }
    if matches!(definition.format, Format::Protobuf | Format::ProtobufConfluent) {
        return Err(Error::input(format!(
            "the stream {} is of format {}, whose schema cannot be updated yet: register another stream",
            definition.name,
            definition.format.name()
        )));
    }
    let mut updated = definition.clone();
    updated.schemas.push(next);
    StreamDecoder::new(&updated)?;
    Encoder::new(&updated)?;
    reads_what_was_written(&updated)?;
    Ok(updated)
}

/// The last schema of a definition reads what was written and stored under each of the others, as the table above says.
///
/// # Errors
/// [`Input`](crate::ErrorKind::Input), naming the schema, the field and what is allowed.
pub fn reads_what_was_written(definition: &StreamDefinition) -> Result<()> {
    let Some((last, older)) = definition.schemas.split_last() else { return Ok(()) };
    let new = schema::of(definition, last)?;
    for version in older {
        let old = schema::of(definition, version)?;
        follows(&old, &new, definition).map_err(|error| {
            let name = &definition.name;
            Error::input(format!("schema id {} cannot follow id {} of the stream {name}", last.id, version.id))
                .because(error)
        })?;
    }
    Ok(())
}

fn follows(old: &Record, new: &Record, definition: &StreamDefinition) -> Result<()> {
    for field in &new.fields {
        let kept = old.fields.iter().find(|before| before.name == field.name);
        let allowed = match kept {
            Some(before) => may_become(&before.ty, &field.ty),
            None => may_be_added(field, old, definition),
        };
        allowed.map_err(|error| Error::input(format!("the field {}", field.name)).because(error))?;
    }
    Ok(())
}

fn may_be_added(field: &Field, old: &Record, definition: &StreamDefinition) -> Result<()> {
    if let Some(alias) = field.aliases.iter().find(|alias| old.position(alias).is_some()) {
        return Err(Error::input(format!(
            "it was {alias}: what is stored under that name would not be found; add a field, and leave {alias} out"
        )));
    }
    let Some(default) = field.default.as_ref().filter(|default| !default.is_null()) else { return Ok(()) };
    if definition.format == Format::Json {
        return Ok(());
    }
    let table = table_schema(definition).map_err(|error| Error::input("the schema has no columns").because(error))?;
    let column = table.field_with_name(&field.name).map(|column| column.data_type().clone());
    match column.ok().and_then(|column| default_value(default, &column)) {
        Some(_) => Ok(()),
        None => Err(Error::input(format!(
            "its default is {default}: that of a field that is added must be null, a number, a text or a boolean, and its \
             type one of int, long, double, string, enum and boolean; let the field be null instead"
        ))),
    }
}

/// The type of a column, before and after.
fn may_become(old: &Type, new: &Type) -> Result<()> {
    if old.null.allowed() && !new.null.allowed() {
        return Err(Error::input("it could be null, and may not be any more"));
    }
    match (&old.kind, &new.kind) {
        (Kind::Int, Kind::Long | Kind::Float | Kind::Double)
        | (Kind::Long, Kind::Float | Kind::Double)
        | (Kind::Float, Kind::Double) => Ok(()),
        (Kind::Decimal { precision: from, scale: here, .. }, Kind::Decimal { precision: to, scale: there, .. })
            if here == there && from <= to =>
        {
            Ok(())
        }
        (old, new) => is_the_same(old, new),
    }
}

/// The shape of values within a column, which stays as it is.
fn is_the_same(old: &Kind, new: &Kind) -> Result<()> {
    let nested = |old: &Type, new: &Type| match old.null.allowed() == new.null.allowed() {
        true => is_the_same(&old.kind, &new.kind),
        false => Err(Error::input("whether a part of it may be null does not change")),
    };
    match (old, new) {
        (Kind::Enum(from), Kind::Enum(to)) => match from.symbols.iter().find(|symbol| !to.symbols.contains(symbol)) {
            Some(symbol) => Err(Error::input(format!("the symbol {symbol} was taken away"))),
            None => Ok(()),
        },
        (Kind::Array(from), Kind::Array(to)) | (Kind::Map(from), Kind::Map(to)) => nested(from, to),
        (Kind::Record(from), Kind::Record(to)) => {
            let names = |record: &Record| record.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
            let (before, after) = (names(from), names(to));
            if before != after {
                return Err(Error::input(format!(
                    "the fields within it were {} and are {}: they stay as they are",
                    before.join(", "),
                    after.join(", ")
                )));
            }
            from.fields.iter().zip(&to.fields).try_for_each(|(before, after)| {
                nested(&before.ty, &after.ty)
                    .map_err(|error| Error::input(format!("{} within it", after.name)).because(error))
            })
        }
        (old, new) if old == new => Ok(()),
        (old, new) => Err(Error::input(format!("it was {}, and is {}", old.describe(), new.describe()))),
    }
}

#[cfg(test)]
mod tests;

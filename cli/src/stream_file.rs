//! Stream definitions in files: what `cairn stream add FILE.toml` reads, and the three that are built in.
//!
//! A file is checked whole before anything is sent to the chain: every error names the file, the key, what stands
//! there and what is allowed. The rules of names, counts and limits are those of the statement itself
//! ([`StreamDefinition::check`]) and those of reading and writing its records ([`StreamDecoder`], [`Encoder`]), so that
//! a file that passes here is not refused later for its form. Who may anchor is not in the file: the caller adds it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cairn_ingest::decode::StreamDecoder;
use cairn_ingest::encode::Encoder;
use cairn_ingest::protobuf;
use cairn_proof::Digest;
use cairn_proof::identity::IdentityId;
use cairn_proof::statement::{BatchLimits, Format, SchemaVersion, Signatures, StatementError, StreamDefinition};
use serde::Deserialize;

/// A definition is a few lines; a schema has to fit into one statement with room to spare.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Formats by the name that they have in files.
const FORMATS: [Format; 5] =
    [Format::Avro, Format::AvroConfluent, Format::Json, Format::Protobuf, Format::ProtobufConfluent];
/// The id in Confluent framing where the file names none.
const SCHEMA_ID_DEFAULT: u32 = 1;

/// A stream that every new network knows: the texts of its files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BuiltIn {
    /// The stream's name.
    pub(crate) name: &'static str,
    /// The definition, TOML.
    pub(crate) definition: &'static str,
    /// What the definition calls the schema's file.
    pub(crate) schema_file: &'static str,
    /// The schema, Avro JSON.
    pub(crate) schema: &'static str,
}

/// The built-in city streams.
pub(crate) const BUILT_IN: [BuiltIn; 3] = [
    BuiltIn {
        name: "traffic.flow",
        definition: include_str!("../../schemas/traffic.flow.toml"),
        schema_file: "traffic.flow.avsc",
        schema: include_str!("../../schemas/traffic.flow.avsc"),
    },
    BuiltIn {
        name: "energy.meter_reading",
        definition: include_str!("../../schemas/energy.meter_reading.toml"),
        schema_file: "energy.meter_reading.avsc",
        schema: include_str!("../../schemas/energy.meter_reading.avsc"),
    },
    BuiltIn {
        name: "emergency.incident",
        definition: include_str!("../../schemas/emergency.incident.toml"),
        schema_file: "emergency.incident.avsc",
        schema: include_str!("../../schemas/emergency.incident.avsc"),
    },
];

/// The built-in streams, without anchorers. (A network's own copies of the files are what a role reads.)
#[cfg(test)]
pub(crate) fn built_in() -> Result<Vec<StreamDefinition>> {
    let stream = |built_in: BuiltIn| {
        parse(&format!("{}.toml (built in)", built_in.name), built_in.definition, move |file| {
            ensure!(file == Path::new(built_in.schema_file), "the built-in file is {}", built_in.schema_file);
            Ok(built_in.schema.to_owned())
        })
    };
    BUILT_IN.into_iter().map(stream).collect()
}

/// Reads a stream definition and its schema files, which it names relative to itself. Anchorers are left empty.
///
/// # Errors
/// When a file cannot be read, or holds what it may not hold: names file, key, value and what is allowed.
pub(crate) fn read(path: &Path) -> Result<StreamDefinition> {
    let text = read_text(path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    parse(&path.display().to_string(), &text, move |file| read_text(&folder.join(file)))
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamFile {
    name: String,
    topic: Option<String>,
    partitions: u32,
    format: String,
    schema: Option<PathBuf>,
    schema_id: Option<u32>,
    message: Option<String>,
    schemas: Option<Vec<SchemaEntry>>,
    key_fields: Vec<String>,
    event_time: Option<String>,
    #[serde(default)]
    gaps_allowed: bool,
    #[serde(default)]
    signatures: Signatures,
    #[serde(default)]
    limits: LimitsEntry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaEntry {
    id: u32,
    file: PathBuf,
}

/// Any of the limits may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsEntry {
    records_max: Option<u32>,
    bytes_max: Option<u32>,
    age_ms_max: Option<u32>,
}

/// Parses a definition. `label` names it in errors; `load` gives the text of the schema files that it names.
fn parse(
    label: &str,
    text: &str,
    load: impl Fn(&Path) -> Result<String> + Send + Sync + 'static,
) -> Result<StreamDefinition> {
    let file: StreamFile = toml::from_str(text).map_err(|error| anyhow!("{label}: {error}"))?;
    let format = FORMATS.into_iter().find(|format| format.name() == file.format).ok_or_else(|| {
        let allowed = FORMATS.map(Format::name).join(", ");
        anyhow!("{label}: format = {:?}: allowed are {allowed}", file.format)
    })?;
    let schemas = match format {
        Format::Protobuf | Format::ProtobufConfluent => vec![load_protobuf(label, &file, load)?],
        Format::Avro | Format::AvroConfluent | Format::Json => {
            ensure!(file.message.is_none(), "{label}: message belongs to the formats protobuf and protobuf-confluent");
            load_schemas(label, &file, load)?
        }
    };
    let limits = BatchLimits::default();
    let mut definition = StreamDefinition {
        topic: file.topic.unwrap_or_else(|| file.name.clone()),
        name: file.name,
        partitions: file.partitions,
        format,
        schemas,
        key_fields: file.key_fields,
        event_time: file.event_time,
        limits: BatchLimits {
            records_max: file.limits.records_max.unwrap_or(limits.records_max),
            bytes_max: file.limits.bytes_max.unwrap_or(limits.bytes_max),
            age_ms_max: file.limits.age_ms_max.unwrap_or(limits.age_ms_max),
        },
        gaps_allowed: file.gaps_allowed,
        anchorers: Vec::new(),
        signatures: file.signatures,
    };
    check_form(label, &mut definition)?;
    check_fields(label, &definition)?;
    Ok(definition)
}

/// `schema = FILE` (and `schema_id`), or `[[schemas]]` with several versions.
fn load_schemas(label: &str, file: &StreamFile, load: impl Fn(&Path) -> Result<String>) -> Result<Vec<SchemaVersion>> {
    let load = |id: u32, key: &str, path: &Path| {
        let text = load(path).with_context(|| format!("{label}: {key} = {:?}", path.display().to_string()))?;
        Ok(SchemaVersion { id, text })
    };
    match (&file.schema, &file.schemas) {
        (Some(path), None) => Ok(vec![load(file.schema_id.unwrap_or(SCHEMA_ID_DEFAULT), "schema", path)?]),
        (None, Some(entries)) if file.schema_id.is_none() => {
            entries.iter().map(|entry| load(entry.id, "schemas.file", &entry.file)).collect()
        }
        (None, Some(_)) => bail!("{label}: schema_id belongs to a single schema; each of [[schemas]] has its own id"),
        (Some(_), Some(_)) => bail!("{label}: has both schema and [[schemas]]: keep one of them"),
        (None, None) => bail!("{label}: has no schema: add schema = \"FILE.avsc\", relative to this file"),
    }
}

/// `schema = FILE.proto`, `message` and `schema_id`. What the file imports lies beside the definition too.
fn load_protobuf(
    label: &str,
    file: &StreamFile,
    load: impl Fn(&Path) -> Result<String> + Send + Sync + 'static,
) -> Result<SchemaVersion> {
    let (Some(path), None, Some(message)) = (&file.schema, &file.schemas, &file.message) else {
        bail!("{label}: format {} needs schema = \"FILE.proto\" and message = \"PACKAGE.MESSAGE\"", file.format);
    };
    let name = path.to_str().with_context(|| format!("{label}: schema is no text"))?;
    let by_name = move |name: &str| {
        load(Path::new(name)).map_err(|error| {
            let kind = error.root_cause().downcast_ref::<io::Error>().map_or(io::ErrorKind::Other, io::Error::kind);
            io::Error::new(kind, format!("{error:#}"))
        })
    };
    let text = protobuf::compile(name, message, by_name).map_err(|error| anyhow!("{label}: schema: {error}"))?;
    Ok(SchemaVersion { id: file.schema_id.unwrap_or(SCHEMA_ID_DEFAULT), text })
}

/// What the chain will check, checked here, with somebody standing in for the anchorers.
fn check_form(label: &str, definition: &mut StreamDefinition) -> Result<()> {
    definition.anchorers = vec![IdentityId(Digest::ZERO)];
    let checked = definition.check();
    definition.anchorers.clear();
    checked.map_err(|error| match error {
        StatementError::Field { field, expected, found } => {
            anyhow!("{label}: {field} = {found}: allowed is {expected}")
        }
        other => anyhow!("{label}: {other}"),
    })
}

/// The schema, as those who read and write the records see it.
fn check_fields(label: &str, definition: &StreamDefinition) -> Result<()> {
    let decoder = StreamDecoder::new(definition).map_err(|error| anyhow!("{label}: schema: {error}"))?;
    if !matches!(definition.format, Format::Protobuf | Format::ProtobufConfluent) {
        // Protobuf is read here, and not written.
        Encoder::new(definition).map_err(|error| anyhow!("{label}: schema: {error}"))?;
    }
    for name in &definition.key_fields {
        let nested = decoder.table().field_with_name(name).is_ok_and(|field| field.data_type().is_nested());
        ensure!(!nested, "{label}: key_fields: {name:?} is a record, an array or a map: a key is made of plain fields");
    }
    Ok(())
}

/// A text file of bounded size.
fn read_text(path: &Path) -> Result<String> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {}", name()))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", name()))?;
    ensure!(bytes.len() as u64 <= FILE_BYTES_MAX, "{}: longer than {FILE_BYTES_MAX} bytes", name());
    String::from_utf8(bytes).with_context(|| format!("{}: not UTF-8 text", name()))
}

#[cfg(test)]
mod tests;

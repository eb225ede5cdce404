//! The statement by which a stream's owner adds a version of its schema.
//!
//! ```text
//! {1: sequence, 2: stream, 3: format, 4: versions that the stream has, 5: schema id, 6: schema text}
//! ```
//!
//! It repeats the format and says how many versions there are before it, so that what its signer compared the new schema
//! with is what the chain adds it to: a second owner's key, or a second terminal, cannot slip another version in between.
//! Whether the new schema can read what the old ones wrote is not told here, nor by the chain's state; see
//! `docs/decisions.md`.

use super::StatementError;
use super::stream::{Format, SCHEMAS_MAX, SchemaVersion, check_range, check_schema_bytes, check_stream_name};
use crate::cbor::{CborError, Reader, Writer};
use crate::units::Sequence;

pub(super) const UPDATE: &str = "application/vnd.cairn.update-stream.v1+cbor";

/// Adds a version to a stream's schemas; the table has its columns from then on. Signed by the stream's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateStream {
    /// The stream's name.
    pub stream: String,
    /// The stream's format, which does not change.
    pub format: Format,
    /// How many versions the stream has before this one, 1 to 63.
    pub versions: u32,
    /// The version.
    pub schema: SchemaVersion,
}

impl UpdateStream {
    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(6);
        writer.unsigned(1);
        writer.unsigned(sequence.0);
        writer.unsigned(2);
        writer.text(&self.stream);
        writer.unsigned(3);
        writer.unsigned(self.format.code());
        writer.unsigned(4);
        writer.unsigned(u64::from(self.versions));
        writer.unsigned(5);
        writer.unsigned(u64::from(self.schema.id));
        writer.unsigned(6);
        writer.text(&self.schema.text);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), CborError> {
        reader.map_of(6)?;
        reader.key(1)?;
        let sequence = Sequence(reader.unsigned()?);
        reader.key(2)?;
        let stream = reader.text()?.to_owned();
        reader.key(3)?;
        let format = Format::read(reader)?;
        reader.key(4)?;
        let versions = reader.unsigned32()?;
        reader.key(5)?;
        let id = reader.unsigned32()?;
        reader.key(6)?;
        let schema = SchemaVersion { id, text: reader.text()?.to_owned() };
        Ok((sequence, Self { stream, format, versions, schema }))
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_stream_name(&self.stream)?;
        check_range("versions", u64::from(self.versions), 1, SCHEMAS_MAX as u64 - 1)?;
        check_schema_bytes("schema, bytes", self.schema.text.len())
    }
}

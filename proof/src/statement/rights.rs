//! The statements by which a stream's owner gives and takes rights: roles, and the stream itself.
//!
//! ```text
//! set-role         {1: sequence, 2: stream, 3: identity, 4: role, 5: granted}     role: 1 anchorer, 2 publisher
//! transfer-stream  {1: sequence, 2: stream, 3: new owner}
//! ```

use serde::{Deserialize, Serialize};

use super::StatementError;
use super::stream::check_stream_name;
use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::identity::IdentityId;
use crate::units::Sequence;

pub(super) const ROLE: &str = "application/vnd.cairn.set-role.v1+cbor";
pub(super) const TRANSFER: &str = "application/vnd.cairn.transfer-stream.v1+cbor";

/// What an identity may do with a stream that it does not own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Anchor batches.
    Anchorer,
    /// Publish records to the topic.
    Publisher,
}

impl Role {
    /// The number in encodings.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Anchorer => 1,
            Self::Publisher => 2,
        }
    }

    /// The role with that number.
    #[must_use]
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Anchorer),
            2 => Some(Self::Publisher),
            _ => None,
        }
    }

    /// The name in text output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anchorer => "anchorer",
            Self::Publisher => "publisher",
        }
    }
}

/// Gives or takes a role. Signed by the stream's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRole {
    /// The stream's name.
    pub stream: String,
    /// Whose role it is.
    pub identity: IdentityId,
    /// Which role.
    pub role: Role,
    /// Whether it is given; else it is taken.
    pub granted: bool,
}

impl SetRole {
    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(5);
        write_stream(sequence, &self.stream, writer);
        writer.unsigned(3);
        writer.bytes(self.identity.0.as_ref());
        writer.unsigned(4);
        writer.unsigned(self.role.code());
        writer.unsigned(5);
        writer.bool(self.granted);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), CborError> {
        reader.map_of(5)?;
        let (sequence, stream) = read_stream(reader)?;
        reader.key(3)?;
        let identity = IdentityId(Digest(reader.fixed()?));
        reader.key(4)?;
        let code = reader.unsigned()?;
        let role = Role::from_code(code).ok_or_else(|| reader.error("a role, 1 or 2", code.to_string()))?;
        reader.key(5)?;
        let granted = reader.bool()?;
        Ok((sequence, Self { stream, identity, role, granted }))
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_stream_name(&self.stream)
    }
}

/// Gives a stream to another owner, an organisation. Signed by the owner until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferStream {
    /// The stream's name.
    pub stream: String,
    /// Who owns it from then on.
    pub owner: IdentityId,
}

impl TransferStream {
    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(3);
        write_stream(sequence, &self.stream, writer);
        writer.unsigned(3);
        writer.bytes(self.owner.0.as_ref());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), CborError> {
        reader.map_of(3)?;
        let (sequence, stream) = read_stream(reader)?;
        reader.key(3)?;
        let owner = IdentityId(Digest(reader.fixed()?));
        Ok((sequence, Self { stream, owner }))
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_stream_name(&self.stream)
    }
}

/// Keys 1 and 2 of every statement about one stream.
fn write_stream(sequence: Sequence, stream: &str, writer: &mut Writer<'_>) {
    writer.unsigned(1);
    writer.unsigned(sequence.0);
    writer.unsigned(2);
    writer.text(stream);
}

fn read_stream(reader: &mut Reader<'_>) -> Result<(Sequence, String), CborError> {
    reader.key(1)?;
    let sequence = Sequence(reader.unsigned()?);
    reader.key(2)?;
    Ok((sequence, reader.text()?.to_owned()))
}

//! The statements that put what consensus produced onto the chain: an attestation of a finality certificate, and
//! evidence against a validator.
//!
//! ```text
//! attest    {1: sequence, 2: header, 3: certificate}
//! evidence  {1: sequence, 2: validator's key, 3: epoch, 4: view, 5: first message, 6: second message}
//! message   [1, parent view, payload, signature] notarize | [2, signature] nullify | [3, parent view, payload, signature] finalize
//! ```

use super::{StatementError, read_public_key};
use crate::block::CERTIFICATE_BYTES_MAX;
use crate::cbor::{CborError, Reader, Writer};
use crate::evidence::{Equivocation, SignedMessage};
use crate::header::Header;
use crate::units::Sequence;

pub(super) const ATTEST: &str = "application/vnd.cairn.attest.v1+cbor";
pub(super) const EVIDENCE: &str = "application/vnd.cairn.evidence.v1+cbor";

/// A header and the certificate over it, so that the chain counts whose votes are seen. Signed by any validator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// Canonical bytes of the header.
    pub header: Vec<u8>,
    /// The certificate over it.
    pub certificate: Vec<u8>,
}

impl Attest {
    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(3);
        writer.unsigned(1);
        writer.unsigned(sequence.0);
        writer.unsigned(2);
        writer.bytes(&self.header);
        writer.unsigned(3);
        writer.bytes(&self.certificate);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), CborError> {
        reader.map_of(3)?;
        reader.key(1)?;
        let sequence = Sequence(reader.unsigned()?);
        reader.key(2)?;
        let header = reader.bytes()?.to_vec();
        reader.key(3)?;
        let certificate = reader.bytes()?.to_vec();
        Ok((sequence, Self { header, certificate }))
    }

    /// Checks that the header decodes and the certificate is not too long. Whether it holds, the chain's state tells:
    /// the committee is needed for that.
    pub(super) fn check(&self) -> Result<(), StatementError> {
        if let Err(error) = Header::decode(&self.header) {
            return Err(StatementError::field("header", "a header's canonical bytes", error));
        }
        if self.certificate.len() > CERTIFICATE_BYTES_MAX {
            let expected = format!("at most {CERTIFICATE_BYTES_MAX} bytes");
            return Err(StatementError::field("certificate", expected, self.certificate.len()));
        }
        Ok(())
    }
}

pub(super) fn write_evidence(evidence: &Equivocation, sequence: Sequence, writer: &mut Writer<'_>) {
    writer.map(6);
    writer.unsigned(1);
    writer.unsigned(sequence.0);
    writer.unsigned(2);
    writer.bytes(evidence.validator.as_bytes());
    writer.unsigned(3);
    writer.unsigned(evidence.epoch);
    writer.unsigned(4);
    writer.unsigned(evidence.view);
    writer.unsigned(5);
    evidence.first.write(writer);
    writer.unsigned(6);
    evidence.second.write(writer);
}

pub(super) fn read_evidence(reader: &mut Reader<'_>) -> Result<(Sequence, Equivocation), StatementError> {
    reader.map_of(6)?;
    reader.key(1)?;
    let sequence = Sequence(reader.unsigned()?);
    reader.key(2)?;
    let validator = read_public_key(reader)?;
    reader.key(3)?;
    let epoch = reader.unsigned()?;
    reader.key(4)?;
    let view = reader.unsigned()?;
    reader.key(5)?;
    let first = SignedMessage::read(reader)?;
    reader.key(6)?;
    let second = SignedMessage::read(reader)?;
    Ok((sequence, Equivocation { validator, epoch, view, first, second }))
}

/// Checks that the two messages are a pair that honest software never signs, in their one order.
pub(super) fn check_evidence(evidence: &Equivocation) -> Result<(), StatementError> {
    match evidence.kind() {
        Some(_) => Ok(()),
        None => Err(StatementError::field(
            "messages",
            "two notarizes or two finalizes for different proposals, the lesser first, or a nullify and then a finalize",
            format!("{:?} and {:?}", evidence.first.message, evidence.second.message),
        )),
    }
}

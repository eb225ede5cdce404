//! Evidence of an answer: what a query node says about the answer that it gave, signed, and what ties it to the chain.
//!
//! ```text
//! envelope  = 18([protected, {}, payload, signature])                COSE_Sign1, tagged (RFC 9052, section 4.2)
//! protected = {1: -8 (EdDSA), 3: "application/vnd.cairn.answer.v1+cbor", 4: the node's identity, 32 bytes}
//! payload   = CBOR ["cairn/answer/v1", statement, [[type, text|null]…], [[setting, value]…], height, block, state root,
//!              [[path, BLAKE3 root, size, bytes verified]…], left out, flagged, [[column, type]…], rows, rows root,
//!              ordered root|null, engine, made at]
//! signed    = Sig_structure with external_aad = the chain's tag, 32 bytes (RFC 9052, section 4.4)
//! ```
//!
//! The content type keeps it apart from every statement and login token that the same key signs, the chain's tag apart
//! from other chains. [`rows`] says what the roots are of; [`mod@file`] is the file that proves offline that the block is one
//! that the chain certified.
//!
//! What this is not: a proof that the engine computed the answer rightly. The node vouches for that with its signature,
//! and whoever has the segments can run the statement again at that height and compare the roots.

pub mod file;
pub mod rows;

use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};

use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::identity::{IdentityId, PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::statement::ChainTag;
use crate::units::Height;

/// The mark at the start of a payload.
pub const ANSWER_MARK: &str = "cairn/answer/v1";
/// No envelope is longer: a statement's text and some 100,000 segments.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bound parameters of a statement, which is what the Postgres wire can carry.
pub const PARAMETERS_MAX: usize = 65_535;
/// Most settings that an answer depends on.
pub const SETTINGS_MAX: usize = 64;
/// Most segments that an answer is computed from.
pub const SEGMENTS_MAX: usize = 131_072;
/// Most columns of an answer.
pub const COLUMNS_MAX: usize = 16_384;

const CONTENT_TYPE: &str = "application/vnd.cairn.answer.v1+cbor";
const ITEMS: usize = 16;

/// Why an answer's envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Longer than any.
    #[error("an answer's envelope has at most {ANSWER_BYTES_MAX} bytes, this one {found}")]
    TooLong {
        /// How many it has.
        found: usize,
    },
    /// Not an envelope of ours.
    #[error("not the envelope of an answer: {0}")]
    Envelope(String),
    /// The payload does not decode.
    #[error("the answer's payload does not decode: {0}")]
    Payload(#[from] CborError),
    /// A list is too long, or not in order.
    #[error("the answer's {what}: expected {expected}, found {found}")]
    List {
        /// Which list.
        what: &'static str,
        /// What is allowed.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Somebody else signed it.
    #[error("the answer is not signed by {key} for this chain")]
    Signature {
        /// The key that was said to have signed.
        key: PublicKey,
    },
}

/// A value that was bound to a placeholder of the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its type ([`rows`]).
    pub kind: String,
    /// Its value as text; none for null.
    pub text: Option<String>,
}

/// A segment that the answer is computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerSegment {
    /// Its path in the object store.
    pub path: String,
    /// Its BLAKE3 root, as its anchor names it.
    pub blake3: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How many bytes of it were read and verified for this answer: 0 where the anchor's facts, or bytes that this process
    /// had verified before and kept in its memory, were enough.
    pub bytes_verified: u64,
}

/// A column of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerColumn {
    /// Its name.
    pub name: String,
    /// Its type ([`rows`]).
    pub kind: String,
}

/// What a query node says about an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The node's identity.
    pub node: IdentityId,
    /// The statement's text, without an `AS OF` clause: the height stands beside it.
    pub statement: String,
    /// What was bound to its placeholders, in their order.
    pub parameters: Vec<Parameter>,
    /// The settings that it depends on, by name in strictly ascending order.
    pub settings: Vec<(String, String)>,
    /// The height that it was computed at.
    pub height: Height,
    /// Digest of the header of that height.
    pub block: Digest,
    /// The state's root in that header.
    pub state_root: Digest,
    /// The segments that it is computed from, by path in strictly ascending order.
    pub segments: Vec<AnswerSegment>,
    /// How many segments did not verify and are left out, as the settings asked for.
    pub left_out: u64,
    /// Of how many segments that do not verify rows are given, as the settings asked for.
    pub flagged: u64,
    /// Its columns.
    pub columns: Vec<AnswerColumn>,
    /// How many rows it has.
    pub rows: u64,
    /// Root over its rows, in whatever order they came ([`rows`]).
    pub rows_root: Digest,
    /// Root over its rows in the order in which they came; none where the statement asks for no order.
    pub ordered_root: Option<Digest>,
    /// Which programs computed it.
    pub engine: String,
    /// When, by the node's clock, in milliseconds since 1970-01-01 UTC.
    pub made_ms: u64,
}

impl Answer {
    fn check(&self) -> Result<(), AnswerError> {
        let most = |what, found: usize, most: usize| match found <= most {
            true => Ok(()),
            false => Err(AnswerError::List { what, expected: format!("at most {most}"), found: found.to_string() }),
        };
        most("parameters", self.parameters.len(), PARAMETERS_MAX)?;
        most("settings", self.settings.len(), SETTINGS_MAX)?;
        most("segments", self.segments.len(), SEGMENTS_MAX)?;
        most("columns", self.columns.len(), COLUMNS_MAX)?;
        let order = |what, name: &str| AnswerError::List {
            what,
            expected: "strictly ascending order".to_owned(),
            found: format!("{name:?} out of its place"),
        };
        if let Some(pair) = self.settings.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(order("settings", &pair[1].0));
        }
        match self.segments.windows(2).find(|pair| pair[0].path >= pair[1].path) {
            Some(pair) => Err(order("segments", &pair[1].path)),
            None => Ok(()),
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512 + self.statement.len() + 160 * self.segments.len());
        let mut writer = Writer::new(&mut bytes);
        writer.array(ITEMS);
        writer.text(ANSWER_MARK);
        writer.text(&self.statement);
        writer.array(self.parameters.len());
        for parameter in &self.parameters {
            writer.array(2);
            writer.text(&parameter.kind);
            match &parameter.text {
                Some(text) => writer.text(text),
                None => writer.null(),
            }
        }
        write_pairs(&mut writer, self.settings.iter().map(|(name, value)| (name, value)));
        writer.unsigned(self.height.0);
        writer.bytes(self.block.as_ref());
        writer.bytes(self.state_root.as_ref());
        writer.array(self.segments.len());
        for segment in &self.segments {
            writer.array(4);
            writer.text(&segment.path);
            writer.bytes(segment.blake3.as_ref());
            writer.unsigned(segment.size);
            writer.unsigned(segment.bytes_verified);
        }
        writer.unsigned(self.left_out);
        writer.unsigned(self.flagged);
        write_pairs(&mut writer, self.columns.iter().map(|column| (&column.name, &column.kind)));
        writer.unsigned(self.rows);
        writer.bytes(self.rows_root.as_ref());
        writer.bytes_or_null(self.ordered_root.as_ref().map(AsRef::as_ref));
        writer.text(&self.engine);
        writer.unsigned(self.made_ms);
        bytes
    }

    fn read(node: IdentityId, payload: &[u8]) -> Result<Self, AnswerError> {
        let mut reader = Reader::new(payload);
        reader.array_of(ITEMS)?;
        reader.mark(ANSWER_MARK)?;
        let statement = reader.text()?.to_owned();
        let parameters = read_list(&mut reader, PARAMETERS_MAX, |reader| {
            reader.array_of(2)?;
            let kind = reader.text()?.to_owned();
            let text = if reader.null() { None } else { Some(reader.text()?.to_owned()) };
            Ok(Parameter { kind, text })
        })?;
        let settings = read_list(&mut reader, SETTINGS_MAX, read_pair)?;
        let height = Height(reader.unsigned()?);
        let (block, state_root) = (Digest(reader.fixed()?), Digest(reader.fixed()?));
        let segments = read_list(&mut reader, SEGMENTS_MAX, |reader| {
            reader.array_of(4)?;
            let (path, blake3) = (reader.text()?.to_owned(), Digest(reader.fixed()?));
            Ok(AnswerSegment { path, blake3, size: reader.unsigned()?, bytes_verified: reader.unsigned()? })
        })?;
        let (left_out, flagged) = (reader.unsigned()?, reader.unsigned()?);
        let columns = read_list(&mut reader, COLUMNS_MAX, |reader| {
            read_pair(reader).map(|(name, kind)| AnswerColumn { name, kind })
        })?;
        let (rows, rows_root) = (reader.unsigned()?, Digest(reader.fixed()?));
        let ordered_root = if reader.null() { None } else { Some(Digest(reader.fixed()?)) };
        let (engine, made_ms) = (reader.text()?.to_owned(), reader.unsigned()?);
        reader.end()?;
        let answer = Self {
            node,
            statement,
            parameters,
            settings,
            height,
            block,
            state_root,
            segments,
            left_out,
            flagged,
            columns,
            rows,
            rows_root,
            ordered_root,
            engine,
            made_ms,
        };
        answer.check()?;
        Ok(answer)
    }

    /// Signs it and returns the envelope's bytes.
    ///
    /// # Errors
    /// When a list is too long or out of order, or the whole is too long.
    pub fn sign(&self, key: &SigningKey, chain: &ChainTag) -> Result<Vec<u8>, AnswerError> {
        self.check()?;
        let envelope = unsigned(&self.node, self.payload())
            .create_signature(chain.0.as_ref(), |message| key.sign(message).to_vec())
            .build();
        let bytes = envelope.to_tagged_vec().map_err(|error| AnswerError::Envelope(error.to_string()))?;
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(AnswerError::TooLong { found: bytes.len() });
        }
        Ok(bytes)
    }
}

fn write_pairs<'a>(writer: &mut Writer<'_>, pairs: impl ExactSizeIterator<Item = (&'a String, &'a String)>) {
    writer.array(pairs.len());
    for (first, second) in pairs {
        writer.array(2);
        writer.text(first);
        writer.text(second);
    }
}

fn read_pair(reader: &mut Reader<'_>) -> Result<(String, String), CborError> {
    reader.array_of(2)?;
    Ok((reader.text()?.to_owned(), reader.text()?.to_owned()))
}

/// A list of at most `most` items. Memory grows with what is read, never with what a count says.
fn read_list<T>(
    reader: &mut Reader<'_>,
    most: usize,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, CborError>,
) -> Result<Vec<T>, CborError> {
    let count = reader.array(most)?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}

fn unsigned(node: &IdentityId, payload: Vec<u8>) -> CoseSign1Builder {
    let protected = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .content_type(CONTENT_TYPE.to_owned())
        .key_id(node.0.0.to_vec())
        .build();
    CoseSign1Builder::new().protected(protected).payload(payload)
}

/// An answer's envelope that was decoded. That it decoded says nothing about who signed it: [`SignedAnswer::verify`] does.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedAnswer {
    answer: Answer,
    envelope: CoseSign1,
    signature: [u8; SIGNATURE_BYTES],
}

impl SignedAnswer {
    /// Decodes an envelope, strictly: bytes that are not the one encoding of their content are refused.
    ///
    /// # Errors
    /// When they are too long, no envelope of an answer, or a field holds what it may not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, AnswerError> {
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(AnswerError::TooLong { found: bytes.len() });
        }
        let wrong = |what: &str| AnswerError::Envelope(what.to_owned());
        let envelope = CoseSign1::from_tagged_slice(bytes).map_err(|error| AnswerError::Envelope(error.to_string()))?;
        let kid: [u8; 32] = (envelope.protected.header.key_id.as_slice())
            .try_into()
            .map_err(|_| wrong("the key id must be an identity id of 32 bytes"))?;
        let node = IdentityId(Digest(kid));
        let signature: [u8; SIGNATURE_BYTES] =
            envelope.signature.as_slice().try_into().map_err(|_| wrong("the signature must have 64 bytes"))?;
        let payload = envelope.payload.as_deref().ok_or_else(|| wrong("the payload must be in the envelope"))?;
        // The one encoding: what we would write ourselves. It also refuses other content types, headers, algorithms.
        let again = unsigned(&node, payload.to_vec()).signature(signature.to_vec()).build();
        if again.to_tagged_vec().ok().as_deref() != Some(bytes) {
            return Err(wrong("another content type, a header that Cairn does not use, or not deterministic CBOR"));
        }
        let answer = Answer::read(node, payload)?;
        Ok(Self { answer, envelope, signature })
    }

    /// What is said. Not yet verified.
    #[must_use]
    pub const fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Takes what is said. Not yet verified.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        self.answer
    }

    /// Checks that `key` signed these bytes for `chain`.
    ///
    /// # Errors
    /// When it did not.
    pub fn verify(&self, key: &PublicKey, chain: &ChainTag) -> Result<(), AnswerError> {
        match key.verify(&self.envelope.tbs_data(chain.0.as_ref()), &self.signature) {
            true => Ok(()),
            false => Err(AnswerError::Signature { key: *key }),
        }
    }
}

#[cfg(test)]
mod tests;

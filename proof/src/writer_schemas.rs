//! The schemas of writers that a batch was decoded by and that its stream does not have: kept with the segment.
//!
//! ```text
//! ["cairn/writer-schemas/v1", [[schema id, schema text]…]]      ids strictly ascending, at most 256, 1 MiB of text in all
//! ```
//!
//! They came from a schema registry when the batch was decoded. Whoever decodes the stored bytes again needs no registry,
//! and cannot be given another schema: the segment's hash, which the anchor names, covers them. A framed value whose id
//! is neither here nor among the stream's is quarantined, by ingest and by audit alike.
//!
//! Not here: what the texts mean. They are as the registry gave them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cbor::{CborError, Reader, Writer};

/// The mark at the start of the encoding.
pub const WRITER_SCHEMAS_MARK: &str = "cairn/writer-schemas/v1";
/// Most schemas of one batch.
pub const WRITER_SCHEMAS_MAX: usize = 256;
/// Most bytes of one text.
pub const WRITER_SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Most bytes of all texts of one batch.
pub const WRITER_SCHEMAS_BYTES_MAX: usize = 1 << 20;

/// Schemas by their id in Confluent framing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriterSchemas {
    texts: BTreeMap<u32, Arc<str>>,
    bytes: usize,
}

impl WriterSchemas {
    /// Of a batch that needed none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the batch needed none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Takes one more; says whether there was room. A text of the same id is kept as it was, which is no room either.
    #[must_use]
    pub fn insert(&mut self, id: u32, text: &Arc<str>) -> bool {
        let fits = self.texts.len() < WRITER_SCHEMAS_MAX
            && text.len() <= WRITER_SCHEMA_BYTES_MAX
            && self.bytes + text.len() <= WRITER_SCHEMAS_BYTES_MAX
            && !self.texts.contains_key(&id);
        if fits {
            self.bytes += text.len();
            self.texts.insert(id, Arc::clone(text));
        }
        fits
    }

    /// Ids and texts, ids ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        self.texts.iter().map(|(id, text)| (*id, text))
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + self.bytes + 12 * self.texts.len());
        let mut writer = Writer::new(&mut bytes);
        writer.array(2);
        writer.text(WRITER_SCHEMAS_MARK);
        writer.array(self.texts.len());
        for (id, text) in &self.texts {
            writer.array(2);
            writer.unsigned(u64::from(*id));
            writer.text(text);
        }
        bytes
    }

    /// Reads the encoding.
    ///
    /// # Errors
    /// When it is not the one encoding of schemas that [`insert`](Self::insert) takes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        reader.array_of(2)?;
        reader.mark(WRITER_SCHEMAS_MARK)?;
        let count = reader.array(WRITER_SCHEMAS_MAX)?;
        let mut schemas = Self::new();
        let mut last = None;
        for _ in 0..count {
            reader.array_of(2)?;
            let id = reader.unsigned32()?;
            let text = reader.text()?;
            if last.replace(id).is_some_and(|before| before >= id) {
                return Err(reader.error("ids in ascending order, each once", id.to_string()));
            }
            if !schemas.insert(id, &Arc::from(text)) {
                let most = format!("{WRITER_SCHEMA_BYTES_MAX} bytes a text, {WRITER_SCHEMAS_BYTES_MAX} in all at most");
                return Err(reader.error(most, format!("{} more bytes", text.len())));
            }
        }
        reader.end()?;
        Ok(schemas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_bounded_and_comes_back() {
        let mut schemas = WriterSchemas::new();
        assert!(schemas.is_empty());
        let text: Arc<str> = "x".repeat(WRITER_SCHEMAS_BYTES_MAX / WRITER_SCHEMAS_MAX).into();
        for id in 0..WRITER_SCHEMAS_MAX as u32 {
            assert!(schemas.insert(id * 7, &text));
        }
        assert!(!schemas.insert(1, &"".into()), "one too many");
        assert_eq!(WriterSchemas::decode(&schemas.encode()).unwrap(), schemas);
        let mut few = WriterSchemas::new();
        assert!(!few.insert(1, &"x".repeat(WRITER_SCHEMA_BYTES_MAX + 1).into()), "one text is too long");
        let long: Arc<str> = "x".repeat(WRITER_SCHEMA_BYTES_MAX).into();
        assert!((0..4).all(|id| few.insert(id, &long)));
        assert!(!few.insert(9, &"y".into()), "all are too long together");
        assert!(!few.insert(3, &"".into()), "the id is taken");
        assert_eq!(WriterSchemas::decode(&few.encode()).unwrap().iter().count(), 4);
    }

    #[test]
    fn other_orders_repetitions_and_excess_are_refused() {
        let encoded = |ids: &[u32], text: &str| {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes);
            writer.array(2);
            writer.text(WRITER_SCHEMAS_MARK);
            writer.array(ids.len());
            for id in ids {
                writer.array(2);
                writer.unsigned(u64::from(*id));
                writer.text(text);
            }
            bytes
        };
        assert!(WriterSchemas::decode(&encoded(&[1, 2], "a")).is_ok());
        for (bytes, expected) in [
            (encoded(&[2, 1], "a"), "ascending"),
            (encoded(&[1, 1], "a"), "each once"),
            (encoded(&[1], &"a".repeat(WRITER_SCHEMA_BYTES_MAX + 1)), "bytes a text"),
            (encoded(&(0..257).collect::<Vec<_>>(), ""), "256"),
            (encoded(&[0, 1, 2, 3, 4], &"a".repeat(WRITER_SCHEMA_BYTES_MAX)), "in all"),
        ] {
            let error = WriterSchemas::decode(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

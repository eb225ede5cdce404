//! Schemas of writers that a stream does not have: looked up when a batch is decoded, kept with its segment.
//!
//! A decoder of a stream is never changed by them: each batch has one of its own, that knows the schemas of that batch
//! and no others. So the columns follow from the stored bytes, the stream's definition and the segment's footer alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_anchor::raw::RawBatch;
use cairn_proof::statement::Format;
use cairn_proof::writer_schemas::{WRITER_SCHEMAS_BYTES_MAX, WRITER_SCHEMAS_MAX, WriterSchemas};

use super::{Plan, StreamDecoder, confluent};
use crate::error::Result;
use crate::schema;

/// A batch may name as many ids as it has records: what is noted of each stays short.
const REFUSAL_CHARS_MAX: usize = 200;

/// A decoder for one batch, and the schemas that it has beyond those of the stream.
#[derive(Debug, Clone)]
pub(crate) struct BatchDecoder {
    pub(crate) decoder: StreamDecoder,
    pub(crate) schemas: WriterSchemas,
}

impl BatchDecoder {
    /// Of a batch that needs nothing but the stream's schemas.
    pub(crate) fn plain(decoder: &StreamDecoder) -> Self {
        Self { decoder: decoder.clone(), schemas: WriterSchemas::new() }
    }

    /// Of a batch with the schemas in its segment's footer. One that does not resolve is left out, as when the batch was
    /// decoded first; one under an id of the stream's own says nothing: an anchorer could put it there.
    pub(crate) fn stored(decoder: &StreamDecoder, schemas: &WriterSchemas) -> Self {
        let mut batch = Self::plain(decoder);
        for (id, text) in schemas.iter().filter(|(id, _)| !decoder.plans.contains_key(id)) {
            batch.learn(id, text);
        }
        batch
    }

    /// Takes the schema of an id, if values that were written by it can be decoded; otherwise notes why not.
    pub(crate) fn learn(&mut self, id: u32, text: &Arc<str>) {
        match self.decoder.plan_for(text) {
            Err(error) => self.refuse(id, &format!("schema id {id} does not fit the stream: {error}")),
            Ok(plan) if self.schemas.insert(id, text) => {
                self.decoder.plans.insert(id, Arc::new(plan));
            }
            Ok(_) => self.refuse(
                id,
                &format!(
                    "schema id {id} is one too many: a batch takes {WRITER_SCHEMAS_MAX} of a registry, \
                     {WRITER_SCHEMAS_BYTES_MAX} bytes in all"
                ),
            ),
        }
    }

    /// Notes why values of a schema id cannot be decoded.
    pub(crate) fn refuse(&mut self, id: u32, why: &str) {
        let why = why.chars().take(REFUSAL_CHARS_MAX).collect();
        self.decoder.refused.insert(id, why);
    }
}

impl StreamDecoder {
    /// The schema ids in the framing of a batch's values that the stream does not have.
    pub(crate) fn foreign_schemas(&self, raw: &RawBatch) -> BTreeSet<u32> {
        if self.format != Format::AvroConfluent {
            return BTreeSet::new();
        }
        let values = raw.values().iter().flatten().filter(|value| value.len() <= self.record_bytes_max);
        let ids = values.filter_map(|value| confluent(value).ok()).map(|(id, _)| id);
        let mut last = None;
        // Most values have the id of the one before.
        ids.filter(|id| last.replace(*id) != Some(*id) && !self.plans.contains_key(id)).collect()
    }

    fn plan_for(&self, text: &str) -> Result<Plan> {
        Plan::new(schema::parse(text)?.as_ref(), &self.record)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;
    use cairn_anchor::raw::RawBatchBuilder;
    use cairn_proof::{Offset, Partition};

    use super::*;
    use crate::testing::{definition, one_field};

    fn batch(ids: &[u32]) -> RawBatch {
        let mut builder = RawBatchBuilder::new(Partition(0), Offset(0));
        for (offset, id) in (0..).zip(ids) {
            let value = [&[0], &id.to_be_bytes()[..], &[2]].concat();
            builder.append(Offset(offset), 0, None, Some(&value), &[]).unwrap();
        }
        builder.append(Offset(ids.len() as u64), 0, None, Some(&[1, 2]), &[]).unwrap();
        builder.finish().unwrap()
    }

    fn decoder(format: Format) -> StreamDecoder {
        StreamDecoder::new(&definition(format, &[&one_field(r#""long""#)])).unwrap()
    }

    #[test]
    fn foreign_ids_are_those_of_framed_values_that_the_stream_does_not_have() {
        let raw = batch(&[1, 9, 9, 7, 1, 9]);
        assert_eq!(decoder(Format::AvroConfluent).foreign_schemas(&raw), BTreeSet::from([7, 9]));
        assert!(decoder(Format::Avro).foreign_schemas(&raw).is_empty());
        assert!(decoder(Format::Json).foreign_schemas(&raw).is_empty());
    }

    #[test]
    fn what_is_in_the_footer_never_takes_the_place_of_the_streams_own_schema() {
        let decoder = decoder(Format::AvroConfluent);
        let mut schemas = WriterSchemas::new();
        // By these, the same byte would be another number, or none.
        let other = one_field(r#"{"type":"enum","name":"E","symbols":["a","b"]}"#);
        let renamed = r#"{"type":"record","name":"One","fields":[{"name":"w","type":"long"}]}"#;
        for (id, text) in [(1, renamed), (2, renamed), (3, &other)] {
            assert!(schemas.insert(id, &text.into()));
        }
        let stored = BatchDecoder::stored(&decoder, &schemas);
        let decoded = stored.decoder.decode_batch(&batch(&[1, 2, 3])).unwrap();
        let values = decoded.batch.column(0).as_primitive::<Int64Type>();
        assert_eq!((values.value(0), values.is_null(1)), (1, true), "id 1 is the stream's, id 2 has no such field");
        assert!(decoded.errors.is_null(0) && decoded.errors.is_null(1));
        assert!(decoded.errors.value(2).contains("does not fit the stream"), "{}", decoded.errors.value(2));
    }

    #[test]
    fn a_batch_takes_so_many_schemas_and_says_so_of_the_next() {
        let mut batch = BatchDecoder::plain(&decoder(Format::AvroConfluent));
        let text: Arc<str> = one_field(r#""int""#).into();
        for id in 0..=WRITER_SCHEMAS_MAX as u32 {
            batch.learn(100 + id, &text);
        }
        assert_eq!(batch.schemas.iter().count(), WRITER_SCHEMAS_MAX);
        assert!(batch.decoder.refused[&356].contains("one too many"));
        batch.refuse(8, &"x".repeat(10_000));
        assert!(batch.decoder.refused[&8].len() <= REFUSAL_CHARS_MAX);
    }
}

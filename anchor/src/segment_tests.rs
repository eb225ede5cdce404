//! Segments written and read back; hostile bytes refused.

use super::*;
use crate::seal::tests::{raw, rows, sealed};
use crate::verified::VerifiedStore;
use arrow::array::{Float64Array, Int64Array, StringArray};
use arrow::datatypes::{Field, Schema};
use cairn_proof::Digest;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use std::ops::Range;
use std::sync::Arc;

/// Parquet's way to read, over an object store: as DataFusion's.
struct StoreReader {
    store: Arc<VerifiedStore>,
    object: Arc<crate::roots::AnchoredObject>,
}

impl AsyncFileReader for StoreReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        Box::pin(async move { Ok(self.store.get_range(&self.object.path, range).await?) })
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        Box::pin(async move { Ok(self.store.get_ranges(&self.object.path, &ranges).await?) })
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        Box::pin(async move {
            let size = self.object.size;
            Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?))
        })
    }
}

fn chunks(segment: &Bytes) -> Vec<ColumnChunkMetaData> {
    let metadata = ArrowReaderMetadata::load(segment, ArrowReaderOptions::new()).unwrap();
    metadata.metadata().row_groups().iter().flat_map(|group| group.columns().to_vec()).collect()
}

#[test]
fn the_same_rows_give_the_same_bytes_and_come_back() {
    let rows = rows(3000, 0);
    let segment = write(&rows).unwrap();
    assert_eq!(segment, write(&rows).unwrap());
    assert_eq!(read(segment.clone(), 3000, Columns::All).unwrap(), rows);
    let own = read(segment.clone(), 3000, Columns::Own).unwrap();
    assert_eq!(own.num_columns(), schema::own_columns().len());
    assert_eq!(own.column_by_name(schema::RAW), rows.column_by_name(schema::RAW));
    let fewer = read(segment, 2999, Columns::Own);
    assert!(matches!(fewer, Err(SegmentError::Rows { expected: 2999, found: 3000 })));
}

#[test]
fn row_groups_stay_below_the_limit() {
    let rows = ROW_GROUP_ROWS_MAX + 1;
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let segment = write(&batch).unwrap();
    let metadata = ArrowReaderMetadata::load(&segment, ArrowReaderOptions::new()).unwrap();
    let groups: Vec<_> = metadata.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [ROW_GROUP_ROWS_MAX as i64, 1]);
    assert_eq!(read(segment, rows as u64, Columns::All).unwrap(), batch);
}

#[test]
fn encodings_follow_the_values() {
    let count = 10_000;
    let schema = Schema::new(vec![
        Field::new("status", DataType::Utf8, true),
        Field::new("id", DataType::Utf8, true),
        Field::new("counter", DataType::Int64, true),
        Field::new("reading", DataType::Float64, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..count).map(|i| ["up", "down"][i % 2]))),
        Arc::new(StringArray::from_iter_values((0..count).map(|i| format!("id-{i}")))),
        Arc::new(Int64Array::from_iter_values(0..count as i64)),
        Arc::new(Float64Array::from_iter_values((0..count).map(|i| i as f64 * 0.37))),
    ];
    let segment = write(&RecordBatch::try_new(Arc::new(schema), columns).unwrap()).unwrap();
    let chunks = chunks(&segment);
    let has_dictionary: Vec<_> = chunks.iter().map(|chunk| chunk.dictionary_page_offset().is_some()).collect();
    assert_eq!(has_dictionary, [true, false, false, false]);
    assert!(chunks[2].encodings().any(|encoding| encoding == Encoding::DELTA_BINARY_PACKED));
    let shared = chunks.iter().all(|chunk| matches!(chunk.compression(), Compression::ZSTD(_)));
    assert!(shared && chunks.iter().all(|chunk| chunk.statistics().is_some()));
}

#[test]
fn raw_values_keys_and_headers_carry_no_statistics() {
    let chunks = chunks(&write(&rows(100, 0)).unwrap());
    for chunk in &chunks {
        let name = chunk.column_path().parts()[0].clone();
        let filtered = !matches!(name.as_str(), schema::RAW | schema::KEY | schema::HEADERS);
        assert_eq!(chunk.statistics().is_some(), filtered, "{name}");
        assert!(chunk.bloom_filter_offset().is_none());
    }
    let raw = chunks.iter().find(|chunk| chunk.column_path().parts()[0] == schema::RAW).unwrap();
    assert!(raw.dictionary_page_offset().is_none());
}

#[tokio::test]
async fn bytes_that_are_no_segment_are_an_error_not_a_panic() {
    let segment = write(&rows(500, 0)).unwrap();
    for at in (0..segment.len()).step_by(97) {
        let mut wrong = segment.to_vec();
        wrong[at] ^= 0x40;
        // Only verified bytes get here in earnest; what counts is that a dishonest anchorer cannot stop the process.
        let _ = decode(Bytes::from(wrong), 500, Columns::All).await;
    }
    for text in [&b""[..], b"PAR1", b"PAR1PAR1", &[0; 100]] {
        assert!(decode(Bytes::copy_from_slice(text), 0, Columns::All).await.is_err());
    }
}

#[tokio::test]
async fn parquets_own_reader_works_over_the_verified_store_and_sees_its_refusals() {
    let temp = tempfile::tempdir().unwrap();
    let store = crate::store::SegmentStore::on_disk(temp.path()).unwrap();
    let sealed = sealed(20_000, 0);
    store.put(&sealed).await.unwrap();
    let object = Arc::new(crate::roots::AnchoredObject::from_anchor(&sealed.anchor, 5).unwrap());
    let roots = Arc::new(crate::roots::Roots::new());
    roots.insert(Arc::clone(&object));
    let verified: Arc<VerifiedStore> = Arc::new(store.verified(roots).unwrap());
    let scan = || async {
        let reader = StoreReader { store: Arc::clone(&verified), object: Arc::clone(&object) };
        let stream = ParquetRecordBatchStreamBuilder::new(reader).await?.build()?;
        Ok::<_, ParquetError>(stream.try_collect::<Vec<_>>().await?.iter().map(RecordBatch::num_rows).sum::<usize>())
    };
    assert_eq!(scan().await.unwrap(), 20_000);
    for (path, part) in [(&object.path, "segment"), (&object.outboard_path(), "hash tree")] {
        let file = temp.path().join(path.as_ref());
        let good = std::fs::read(&file).unwrap();
        let mut wrong = good.clone();
        let at = wrong.len() / 2;
        wrong[at] ^= 8;
        std::fs::write(&file, &wrong).unwrap();
        let error = scan().await.unwrap_err();
        let found = crate::verified::VerifyError::find(&error).unwrap_or_else(|| panic!("{error}"));
        assert_eq!((found.part.to_string().as_str(), found.path.as_str()), (part, path.as_ref()));
        std::fs::write(&file, &good).unwrap();
    }
    assert_eq!(scan().await.unwrap(), 20_000);
    assert_ne!(raw(1, 0).leaves("t", &sealed.secret)[0], Digest::ZERO);
}

#[test]
fn schemas_of_writers_stand_in_the_footer_beside_sequences() {
    let mut schemas = cairn_proof::writer_schemas::WriterSchemas::new();
    assert!(schemas.insert(7, &"{}".into()));
    let raw = crate::seal::tests::raw(10, 0);
    let mut sequences = Sequences::new();
    sequences.take(&[1; 32], 5).unwrap();
    let plain = crate::seal::tests::decode(&raw).with_writer_schemas(&Default::default());
    let sealed = |decoded: &crate::seal::DecodedColumns| {
        let secret = cairn_proof::record::BatchSecret([3; 32]);
        crate::seal::seal(&crate::seal::tests::stream(), &raw, decoded, secret, cairn_proof::Digest::ZERO).unwrap()
    };
    assert!(writer_schemas(&sealed(&plain).segment).unwrap().is_empty());
    let kept = sealed(&plain.clone().with_sequences(&sequences).with_writer_schemas(&schemas));
    assert_eq!(writer_schemas(&kept.segment).unwrap(), schemas);
    assert_eq!(super::sequences(&kept.segment).unwrap(), sequences);
    assert_ne!(kept.anchor.segment.blake3, sealed(&plain).anchor.segment.blake3, "the anchor commits to them");
    let mut garbled = plain;
    garbled.batch.schema_metadata_mut().insert(WRITER_SCHEMAS_KEY.to_owned(), "AAAA".into());
    let error = writer_schemas(&sealed(&garbled).segment).unwrap_err().to_string();
    assert!(error.contains(WRITER_SCHEMAS_KEY), "{error}");
}

//! `cairn.lineage('stream/partition/offset')`: the way of one record, from who published it to who finalized it.
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `step` | int4 | the order of the way, from 1 |
//! | `what` | text | `record`, `publisher`, `schema`, `batch`, `segment`, `anchor`, `block`, then a `validator` each |
//! | `id` | text | what names it: an offset, an identity, a hash, a key |
//! | `name` | text | a name for people, where it has one |
//! | `detail` | text | what is known about it, in a sentence |
//! | `block` | int8 | the block that it stands in, where it stands in one |
//!
//! The record's segment is read whole and verified, and a publisher's signature is checked again. No rows where no record
//! is anchored. The validators are the committee that certifies the block: which of them signed is in a receipt.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cairn_anchor::stored::{StoredRecord, stored_record};
use cairn_anchor::verified::VerifiedStore;
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::signed_record::{EntryHasher, RunHead, RunRoots, SignedHeaders};
use cairn_proof::statement::ChainTag;
use cairn_proof::{Height, Offset, Partition};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::{Located, evidence_error, external, locate, place};
use crate::catalog::HeightCatalog;
use crate::catalog::facts::{signed, signed32};
use crate::error::{QueryError, SqlState};
use crate::scope::StatementScope;

/// Its name without the schema, as the engine looks it up.
pub(super) const NAME: &str = "lineage";

/// The function, for one statement.
#[derive(Debug)]
pub(super) struct LineageFunction {
    store: VerifiedStore,
    chain: Option<ChainTag>,
    catalog: Arc<HeightCatalog>,
}

impl LineageFunction {
    pub(super) fn new(store: VerifiedStore, chain: Option<ChainTag>, catalog: Arc<HeightCatalog>) -> Self {
        Self { store, chain, catalog }
    }
}

impl TableFunctionImpl for LineageFunction {
    fn call_with_args(&self, arguments: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _)] = arguments.exprs()
        else {
            return Err(external(expected("found something else")));
        };
        let (stream, partition, offset) = parse(text).map_err(external)?;
        locate(&self.catalog, &stream, partition, offset).map_err(external)?;
        let (store, chain, catalog) = (self.store.clone(), self.chain, Arc::clone(&self.catalog));
        Ok(Arc::new(Lineage { schema: schema(), store, chain, catalog, stream, partition, offset }))
    }
}

fn expected(found: &str) -> QueryError {
    QueryError::statement(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("cairn.lineage takes one text, 'stream/partition/offset' such as 'traffic.flow/0/42'; {found}"),
    )
}

fn parse(text: &str) -> crate::error::Result<(String, Partition, Offset)> {
    let wrong = || expected(&format!("found {:?}", text.chars().take(80).collect::<String>()));
    let mut parts = text.rsplitn(3, '/');
    let (Some(offset), Some(partition), Some(stream)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
    let (partition, offset) = place(number(partition)?, number(offset)?)?;
    Ok((stream.to_owned(), partition, offset))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("step", DataType::Int32, false),
        Field::new("what", DataType::Utf8, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, false),
        Field::new("block", DataType::Int64, true),
    ]))
}

/// The way of one record, as a table.
#[derive(Debug)]
struct Lineage {
    schema: SchemaRef,
    store: VerifiedStore,
    chain: Option<ChainTag>,
    catalog: Arc<HeightCatalog>,
    stream: String,
    partition: Partition,
    offset: Offset,
}

/// A step of the way.
struct Step {
    what: &'static str,
    id: String,
    name: Option<String>,
    detail: String,
    block: Option<Height>,
}

impl Step {
    fn new(what: &'static str, id: &dyn std::fmt::Display, detail: String) -> Self {
        Self { what, id: id.to_string(), name: None, detail, block: None }
    }

    fn named(self, name: Option<&str>) -> Self {
        Self { name: name.map(str::to_owned), ..self }
    }

    fn in_block(self, block: Height) -> Self {
        Self { block: Some(block), ..self }
    }
}

impl Lineage {
    async fn steps(&self, scope: &Arc<StatementScope>) -> Result<Vec<Step>> {
        let located = locate(&self.catalog, &self.stream, self.partition, self.offset).map_err(external)?;
        let Some(located) = located else { return Ok(Vec::new()) };
        if let Some(object) = self.store.roots().named(&located.entry.anchor.segment.path) {
            scope.computed_from(&object);
        }
        let store = scope.observing(&self.store);
        let record = stored_record(&store, located.entry, self.offset).await.map_err(evidence_error)?;
        let Some(record) = record else { return Ok(Vec::new()) };
        let mut steps = vec![self.record(&located, &record), self.publisher(&record)];
        steps.push(self.schema_step(&located));
        steps.extend(self.anchored(&located));
        steps.extend(self.finalized(located.entry.height));
        Ok(steps)
    }

    fn record(&self, located: &Located<'_>, record: &StoredRecord) -> Step {
        let length =
            |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or("none".to_owned(), |b| format!("{} bytes", b.len()));
        let topic = &located.stream.definition.topic;
        let state = match &record.quarantined {
            Some(reason) => format!("quarantined: {reason}"),
            None => "valid".to_owned(),
        };
        let detail = format!(
            "topic {topic}, timestamp {} ms, key {}, value {}, {state}",
            record.timestamp_ms,
            length(&record.key),
            length(&record.value)
        );
        Step::new("record", &format!("{}/{}/{}", self.stream, self.partition, self.offset), detail)
    }

    /// Who published it, as far as a signature says so.
    fn publisher(&self, record: &StoredRecord) -> Step {
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        match SignedHeaders::read(headers) {
            Ok(None) => Step::new("publisher", &"unsigned", "the record is not signed by its publisher".to_owned()),
            Err(error) => Step::new("publisher", &"malformed", format!("no signature can be read: {error}")),
            Ok(Some(signed)) => {
                let key = hex::encode(signed.publisher);
                let holds = self.signature_holds(&signed, record);
                let signature = if holds { "the signature verifies" } else { "THE SIGNATURE DOES NOT VERIFY" };
                let detail = format!("key {key}, sequence {}, {signature}", signed.sequence);
                let known = self.catalog.identity_of_key(signed.publisher);
                match known {
                    Some(identity) => Step::new("publisher", &identity, detail).named(self.name_of(&identity)),
                    None => Step::new("publisher", &"unknown", detail),
                }
            }
        }
    }

    fn signature_holds(&self, signed: &SignedHeaders<'_>, record: &StoredRecord) -> bool {
        let (Some(chain), Ok(publisher)) = (&self.chain, PublicKey::from_bytes(*signed.publisher)) else {
            return false;
        };
        let mut hasher = EntryHasher::new(chain, &self.stream, self.partition);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let leaf = hasher.leaf(signed.publisher, signed.sequence, record.timestamp_ms, key, value);
        let root = RunRoots::new().root(&leaf, signed);
        RunHead { publisher, signature: *signed.signature, count: signed.count, root }.verify(chain)
    }

    fn name_of(&self, id: &IdentityId) -> Option<&str> {
        self.catalog.identity(id).map(|known| known.entry.name.as_str())
    }

    fn schema_step(&self, located: &Located<'_>) -> Step {
        let definition = &located.stream.definition;
        let fingerprint = located.entry.anchor.schema_fingerprint;
        let version = definition.schemas.iter().rposition(|version| version.fingerprint() == fingerprint);
        let detail = match version.and_then(|at| definition.schemas.get(at).map(|version| (at + 1, version.id))) {
            Some((at, id)) => format!("version {at} of {}, schema id {id}", definition.schemas.len()),
            None => "no version of the stream's schema at this height".to_owned(),
        };
        Step::new("schema", &fingerprint, detail).named(Some(&definition.name)).in_block(located.stream.registered)
    }

    fn anchored(&self, located: &Located<'_>) -> [Step; 3] {
        let Located { entry, leaf, .. } = located;
        let anchor = &entry.anchor;
        let range = format!("offsets {} to {}", anchor.first, anchor.last);
        let counts = format!("{} records, {} quarantined", anchor.count, anchor.quarantined);
        let by = format!("by identity {}, entry {} of the log", entry.signer, entry.log_index);
        [
            Step::new("batch", &anchor.records_root, format!("leaf {leaf}; {range}, {counts}")),
            Step::new("segment", &anchor.segment.blake3, format!("{} bytes, verified", anchor.segment.size))
                .named(Some(&anchor.segment.path)),
            Step::new("anchor", &entry.id, by).named(self.name_of(&entry.signer)).in_block(entry.height),
        ]
    }

    fn finalized(&self, height: Height) -> Vec<Step> {
        let Some(block) = self.catalog.block_at(height) else { return Vec::new() };
        let proposer = hex::encode(block.proposer);
        let detail = format!("time {} ms, state root {}, proposed by {proposer}", block.timestamp_ms, block.state_root);
        let mut steps = vec![Step::new("block", &block.digest, detail).in_block(height)];
        for (position, (key, name)) in self.catalog.committee_of(height).into_iter().enumerate() {
            let detail = format!("position {position} of the committee that certifies the block");
            steps.push(Step::new("validator", &key, detail).named(name).in_block(height));
        }
        steps
    }

    fn batch(&self, steps: &[Step]) -> Result<RecordBatch> {
        let texts =
            |of: fn(&Step) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(steps.iter().map(of))) };
        let numbers = (1..).take(steps.len()).map(signed32);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(numbers)),
            texts(|step| step.what),
            texts(|step| &step.id),
            Arc::new(steps.iter().map(|step| step.name.as_deref()).collect::<StringArray>()),
            texts(|step| &step.detail),
            Arc::new(steps.iter().map(|step| step.block.map(|block| signed(block.0))).collect::<Int64Array>()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

#[async_trait]
impl TableProvider for Lineage {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let batch = self.batch(&self.steps(&StatementScope::of(state)).await?)?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], Arc::clone(&self.schema), projection.cloned())?)
    }
}

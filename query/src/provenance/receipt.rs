//! `cairn_receipt(stream, partition, offset)`: the receipt of a record, as `cairn verify` reads it.
//!
//! | there is | the function gives |
//! | --- | --- |
//! | a record, anchored at the statement's height | its receipt: the exact bytes of the file, with the last line end |
//! | no record: the offset is beyond the head, or in a declared gap | NULL |
//! | no such stream or partition | an error |
//! | no batch secret, or stored bytes that do not verify | an error |
//!
//! A receipt reads its record's segment whole and asks a node for a proof; what was given last is kept for the next row,
//! for a constant call is repeated for each. The function is volatile for the planner: it must not run while planning.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray as _, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use cairn_anchor::prove::{ProveError, Sources, prove};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::{evidence_error, external, locate, place};
use crate::catalog::HeightCatalog;
use crate::engine::Engine;
use crate::error::{QueryError, QueryErrorKind, SqlState};

/// How many rows are asked for at a time.
const ROWS_AT_ONCE: usize = 256;
/// Memory for the receipts of so many rows.
const RECEIPT_BYTES_MAX: usize = 128 << 20;

/// The function, for one statement.
#[derive(Debug)]
pub(super) struct ReceiptFunction {
    signature: Signature,
    engine: Engine,
    catalog: Arc<HeightCatalog>,
}

impl ReceiptFunction {
    pub(super) fn new(engine: Engine, catalog: Arc<HeightCatalog>) -> Self {
        let arguments = vec![DataType::Utf8, DataType::Int64, DataType::Int64];
        Self { signature: Signature::exact(arguments, Volatility::Volatile), engine, catalog }
    }

    async fn receipt(&self, stream: &str, partition: i64, offset: i64) -> Result<Option<String>> {
        let (partition, offset) = place(partition, offset).map_err(external)?;
        if locate(&self.catalog, stream, partition, offset).map_err(external)?.is_none() {
            return Ok(None);
        }
        let equipment = self.engine.equipment();
        let (Some(follower), Some(secrets)) = (&equipment.follower, &equipment.secrets) else {
            let missing = QueryError::not_allowed(
                SqlState::FEATURE_NOT_SUPPORTED,
                "this query node gives no receipts: it has no access to the batch secrets",
            );
            return Err(external(missing.with_hint(
                "the operator sets receipts = true under [query], where the node may read them; or use cairn prove",
            )));
        };
        let sources = Sources { follower, store: self.engine.store(), secrets };
        let receipt = prove(sources, stream, partition, offset).await.map_err(prove_error)?;
        let text = receipt.to_json().ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(Some).ok_or_else(|| external(QueryError::internal("a receipt is no text")))
    }
}

fn prove_error(error: ProveError) -> DataFusionError {
    match error {
        ProveError::Evidence(evidence) => evidence_error(evidence),
        ProveError::Chain { .. } => {
            external(QueryError::new(QueryErrorKind::Unavailable, SqlState::NOT_READY, error.to_string()))
        }
        ProveError::Receipt(_) => {
            external(QueryError::new(QueryErrorKind::Unavailable, SqlState::DATA_CORRUPTED, error.to_string()))
        }
        other => external(QueryError::internal(other.to_string())),
    }
}

impl PartialEq for ReceiptFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.catalog, &other.catalog)
    }
}

impl Eq for ReceiptFunction {}

impl Hash for ReceiptFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.catalog).hash(state);
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for ReceiptFunction {
    fn name(&self) -> &'static str {
        "cairn_receipt"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal("cairn_receipt is asynchronous".to_owned()))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for ReceiptFunction {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(ROWS_AT_ONCE)
    }

    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns = arguments.args.iter().map(|argument| argument.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let [streams, partitions, offsets] = columns.as_slice() else {
            return Err(DataFusionError::Internal("cairn_receipt takes three arguments".to_owned()));
        };
        let streams = streams.as_string::<i32>();
        let (partitions, offsets) = (partitions.as_primitive::<Int64Type>(), offsets.as_primitive::<Int64Type>());
        let mut receipts = StringBuilder::new();
        let mut last: Option<((&str, i64, i64), Option<String>)> = None;
        for row in 0..rows {
            if streams.is_null(row) || partitions.is_null(row) || offsets.is_null(row) {
                receipts.append_null();
                continue;
            }
            let asked = (streams.value(row), partitions.value(row), offsets.value(row));
            let known = last.take().filter(|(of, _)| *of == asked);
            let (_, receipt) = match known {
                Some(known) => last.insert(known),
                None => last.insert((asked, self.receipt(asked.0, asked.1, asked.2).await?)),
            };
            if receipts.values_slice().len() + receipt.as_ref().map_or(0, String::len) > RECEIPT_BYTES_MAX {
                return Err(external(
                    QueryError::limit(
                        SqlState::PROGRAM_LIMIT,
                        format!(
                            "the receipts of {ROWS_AT_ONCE} rows together have more than {RECEIPT_BYTES_MAX} bytes"
                        ),
                    )
                    .with_hint("ask for the receipts of fewer rows at a time"),
                ));
            }
            receipts.append_option(receipt.as_deref());
        }
        Ok(ColumnarValue::Array(Arc::new(receipts.finish())))
    }
}

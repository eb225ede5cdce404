//! `cairn_evidence(id)`: the evidence of an answer of this session, as `cairn verify` reads it.
//!
//! | there is | the function gives |
//! | --- | --- |
//! | an answer with that id, or any for `'last'` | its evidence: the exact bytes of the file, with the last line end |
//! | none, or one that was forgotten | an error that says how many are kept |
//! | no node that gives headers | an error: try again |

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray as _, StringBuilder};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::kept::{ANSWERS_MAX, KeptAnswers};
use super::{file, signer};
use crate::engine::Engine;
use crate::error::{QueryError, SqlState};

/// How many rows are asked for at a time: a file may have many MiB.
const ROWS_AT_ONCE: usize = 16;

/// The function, for one session.
#[derive(Debug)]
pub(crate) struct EvidenceFunction {
    signature: Signature,
    engine: Engine,
    kept: Arc<KeptAnswers>,
}

impl EvidenceFunction {
    pub(crate) fn new(engine: Engine, kept: Arc<KeptAnswers>) -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8], Volatility::Volatile), engine, kept }
    }

    async fn evidence(&self, id: &str) -> crate::error::Result<String> {
        let kept = self.kept.get(id).ok_or_else(|| {
            let shown: String = id.chars().take(64).collect();
            QueryError::statement(SqlState::UNDEFINED_OBJECT, format!("this session has no evidence {shown:?}"))
                .with_hint(format!(
                    "SET cairn.evidence = on, run the statement and fetch its rows to the end; the last {ANSWERS_MAX} answers of \
                     a session are kept, and 'last' names the newest"
                ))
        })?;
        let Some(follower) = &self.engine.equipment().follower else {
            return Err(QueryError::not_allowed(
                SqlState::FEATURE_NOT_SUPPORTED,
                "this query node follows no chain, so it has no headers to prove an answer's block with",
            ));
        };
        let (key, _) = signer(&self.engine)?;
        file::evidence(follower, &kept, key.public()).await
    }
}

impl PartialEq for EvidenceFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kept, &other.kept)
    }
}

impl Eq for EvidenceFunction {}

impl Hash for EvidenceFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.kept).hash(state);
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for EvidenceFunction {
    fn name(&self) -> &'static str {
        "cairn_evidence"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal("cairn_evidence is asynchronous".to_owned()))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for EvidenceFunction {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(ROWS_AT_ONCE)
    }

    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [id] = arguments.args.as_slice() else {
            return Err(DataFusionError::Internal("cairn_evidence takes one argument".to_owned()));
        };
        let ids = id.to_array(arguments.number_rows)?;
        let ids = ids.as_string::<i32>();
        let mut files = StringBuilder::new();
        for row in 0..ids.len() {
            if ids.is_null(row) {
                files.append_null();
                continue;
            }
            let file = self.evidence(ids.value(row)).await;
            files.append_value(file.map_err(|error| DataFusionError::External(Box::new(error)))?);
        }
        Ok(ColumnarValue::Array(Arc::new(files.finish())))
    }
}

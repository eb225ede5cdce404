//! SQL functions of Cairn's own.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility, lit};

use crate::catalog::facts::signed;
use crate::session::CurrentCatalog;

/// `cairn_height()`: the block height that the statement is computed at.
///
/// It is made a constant while the statement is planned, when the session stands at the statement's height.
#[derive(Debug)]
pub(crate) struct CairnHeight {
    signature: Signature,
    current: Arc<CurrentCatalog>,
}

impl CairnHeight {
    pub(crate) fn new(current: Arc<CurrentCatalog>) -> Self {
        Self { signature: Signature::nullary(Volatility::Stable), current }
    }

    fn height(&self) -> i64 {
        signed(self.current.get().height().0)
    }
}

impl PartialEq for CairnHeight {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.current, &other.current)
    }
}

impl Eq for CairnHeight {}

impl Hash for CairnHeight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.current).hash(state);
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for CairnHeight {
    fn name(&self) -> &str {
        "cairn_height"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn simplify(&self, _arguments: Vec<Expr>, _context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(lit(self.height())))
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(self.height()))))
    }
}

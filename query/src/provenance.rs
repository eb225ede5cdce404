//! From a row back to where it comes from: `cairn_receipt(…)` and `cairn.lineage('…')`.
//!
//! Both look a record up in the catalogue that their statement is planned at, so that they see the statement's height
//! like everything else in it (I4). They are made for each statement and never registered with a session: a plan that
//! runs on while its session has moved to another height keeps the functions it was planned with.
//!
//! What they say is not kept anywhere: it is read from verified segments and the followed chain each time.

mod lineage;
mod receipt;

use std::sync::Arc;

use cairn_anchor::EvidenceError;
use cairn_anchor::secrets::SecretStore;
use cairn_chain_client::{AnchorEntry, Follower};
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::Anchor;
use cairn_proof::{LeafIndex, Offset, Partition};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::async_udf::AsyncScalarUDF;

use crate::catalog::HeightCatalog;
use crate::engine::Engine;
use crate::error::{QueryError, QueryErrorKind, Result, SqlState};
use crate::evidence::{EvidenceFunction, KeptAnswers};
use crate::openlineage::OpenLineage;
use crate::snapshot::StreamAt;

/// What the query role has beside the chain's facts and the segments. Without it statements are answered all the same;
/// what needs it says so.
#[derive(Debug, Clone, Default)]
pub struct Equipment {
    /// The chain, for proofs that a node has to give.
    pub follower: Option<Follower>,
    /// The batch secrets, for receipts.
    pub secrets: Option<SecretStore>,
    /// The key of this node's identity, for evidence of answers.
    pub signer: Option<Arc<SigningKey>>,
    /// Where events about queries go.
    pub lineage: Option<OpenLineage>,
}

/// Adds the functions that see `catalog`, and those that see a session's last `answers`, to a statement's state.
pub(crate) fn register(
    state: &mut SessionState,
    engine: &Engine,
    catalog: &Arc<HeightCatalog>,
    answers: &Arc<KeptAnswers>,
) -> Result<()> {
    use datafusion::execution::FunctionRegistry as _;
    let failed = |error: DataFusionError| QueryError::internal(error.to_string());
    let evidence = EvidenceFunction::new(engine.clone(), Arc::clone(answers));
    let evidence = AsyncScalarUDF::new(Arc::new(evidence)).into_scalar_udf();
    state.register_udf(Arc::new(evidence)).map_err(failed)?;
    let receipt = receipt::ReceiptFunction::new(engine.clone(), Arc::clone(catalog));
    let receipt = AsyncScalarUDF::new(Arc::new(receipt)).into_scalar_udf();
    state.register_udf(Arc::new(receipt)).map_err(failed)?;
    let lineage = lineage::LineageFunction::new(engine.store().clone(), engine.chain(), Arc::clone(catalog));
    state.register_udtf(lineage::NAME, Arc::new(lineage));
    Ok(())
}

/// A record that an anchor of the statement's height accounts for.
struct Located<'a> {
    stream: &'a StreamAt,
    entry: &'a Arc<AnchorEntry>,
    leaf: LeafIndex,
}

/// Finds a record; `None` where no record is anchored at this height: beyond the head, or in a declared gap.
fn locate<'a>(
    catalog: &'a HeightCatalog,
    name: &str,
    partition: Partition,
    offset: Offset,
) -> Result<Option<Located<'a>>> {
    let stream = catalog.stream(name).ok_or_else(|| {
        let known: Vec<&str> = catalog.stream_names().take(12).collect();
        QueryError::statement(
            SqlState::UNDEFINED_OBJECT,
            format!("stream {name:?} is not registered at block {}", catalog.height().0),
        )
        .with_hint(format!("registered are: {}", known.join(", ")))
    })?;
    if partition.0 >= stream.definition.partitions {
        let last = stream.definition.partitions.saturating_sub(1);
        let message = format!("stream {name} has the partitions 0 to {last}, not {partition}");
        return Err(QueryError::statement(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    // A stream's anchors stand partition by partition, each partition's in the order of offsets.
    let place = |anchor: &Anchor| (anchor.partition, anchor.first);
    let after = stream.anchors.partition_point(|entry| place(&entry.anchor) <= (partition, offset));
    let entry = after.checked_sub(1).and_then(|last| stream.anchors.get(last));
    let covers = |anchor: &Anchor| anchor.partition == partition && anchor.last >= offset;
    Ok(entry.filter(|entry| covers(&entry.anchor)).and_then(|entry| {
        let leaf = entry.anchor.leaf_index(offset)?;
        Some(Located { stream, entry, leaf })
    }))
}

/// A partition and an offset as SQL has them: signed.
fn place(partition: i64, offset: i64) -> Result<(Partition, Offset)> {
    let wrong = |what: &str, found: i64| {
        QueryError::statement(SqlState::INVALID_PARAMETER_VALUE, format!("{what} {found} is not allowed: 0 or more is"))
    };
    let partition = u32::try_from(partition).map_err(|_| wrong("partition", partition))?;
    let offset = u64::try_from(offset).map_err(|_| wrong("offset", offset))?;
    Ok((Partition(partition), Offset(offset)))
}

/// An error of ours on its way through the engine; [`crate::classify`] finds it again.
fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Evidence that is missing or wrong. A refused read keeps its own type, so that it is listed as a problem.
fn evidence_error(error: EvidenceError) -> DataFusionError {
    match error {
        EvidenceError::Verify(refused) => DataFusionError::External(Box::new(refused)),
        EvidenceError::Secret(error) => {
            external(QueryError::new(QueryErrorKind::Unavailable, SqlState::OBJECT_NOT_READY, error.to_string()))
        }
        EvidenceError::Root { .. } | EvidenceError::Segment { .. } | EvidenceError::Rows { .. } => external(
            QueryError::new(QueryErrorKind::Corrupted, SqlState::DATA_CORRUPTED, error.to_string())
                .with_hint("run cairn audit: it recomputes what is stored against the chain"),
        ),
        other => external(QueryError::new(QueryErrorKind::Unavailable, SqlState::IO_ERROR, other.to_string())),
    }
}

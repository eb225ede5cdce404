//! Evidence of an answer: what this node says about an answer that it gave, signed (`cairn_proof::answer`).
//!
//! ```text
//! SET cairn.evidence = on
//! SELECT … ─▶ Pending: statement, settings, height, columns ─▶ rows, hashed in the order in which they leave
//!                └ scope: segments, bytes verified               │ the last one has left
//!                                                                ▼
//!                                            Answer, signed ─▶ the session's last answers
//!                                                                │ SELECT cairn_evidence('id')
//!                                                                ▼
//!                            with headers up to a certified one: the file that `cairn verify` reads
//! ```
//!
//! An answer that failed, was cut short by a limit, or was not fetched to its end has no evidence. Rows are hashed as
//! they come and never kept: 32 bytes stay of each, which count as the statement's memory.
//!
//! **Run again, the same rows.** A statement with evidence is computed in one partition, in batches of one size, and inputs
//! that lie side by side are read one after the other ([`in_order`]). A `LIMIT` then takes the same rows on any machine,
//! and sums of floats add up in one order on those of one architecture. What is left to vary is what the statement itself
//! leaves open: functions such as `now()`, of which the client is warned.

mod canonical;
mod file;
mod function;
mod in_order;
mod kept;
mod parameters;
mod segments;
mod varying;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use cairn_proof::answer::rows::{RowsHash, RowsHasher};
use cairn_proof::answer::{Answer, SEGMENTS_MAX};
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::ChainTag;
use datafusion::common::ParamValues;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::prelude::SessionConfig;

use crate::catalog::HeightCatalog;
use crate::engine::Engine;
use crate::error::{QueryError, QueryErrorKind, Result, SqlState};
use crate::problems::now_ms;
use crate::scope::StatementScope;
use crate::settings::Settings;

pub(crate) use canonical::type_name;
pub(crate) use function::EvidenceFunction;
pub(crate) use in_order::in_order;
pub(crate) use kept::{Kept, KeptAnswers};
pub(crate) use segments::SegmentsRead;
pub(crate) use varying::{is_explained, varying};

/// Which programs compute answers.
fn engine_name() -> String {
    format!("cairn {}, datafusion {}", env!("CARGO_PKG_VERSION"), datafusion::DATAFUSION_VERSION)
}
/// How many rows the engine takes at a time, for statements with evidence.
const BATCH_ROWS: usize = 8_192;
/// Memory for each row: its hash, in a list that doubles when it is full.
const ROW_BYTES: usize = 64;

/// Fails where this node cannot sign answers.
pub(crate) fn check_possible(engine: &Engine) -> Result<()> {
    signer(engine).map(drop)
}

fn signer(engine: &Engine) -> Result<(Arc<SigningKey>, ChainTag)> {
    match (&engine.equipment().signer, engine.chain()) {
        (Some(key), Some(chain)) => Ok((Arc::clone(key), chain)),
        _ => Err(QueryError::not_allowed(
            SqlState::OBJECT_NOT_READY,
            "cairn.evidence cannot be on: this query node has no key to sign answers with",
        )
        .with_hint(
            "the operator makes one with `cairn identity add --dir DIR --kind node --name query` and starts the query role \
             again; networks that `cairn init` makes have it from the start",
        )),
    }
}

/// Has a statement computed in one order whatever the machine and its configuration: a sum of floats depends on how rows
/// are cut into batches, too.
pub(crate) fn fix_order(config: &mut SessionConfig) {
    *config = config.clone().with_target_partitions(1).with_batch_size(BATCH_ROWS);
}

/// What a statement is, for its evidence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Its text, without a height.
    pub(crate) text: &'a str,
    /// Whether it ends with an `ORDER BY`.
    pub(crate) ordered: bool,
}

/// A statement with all that its answer follows from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Of<'a> {
    pub(crate) catalog: &'a HeightCatalog,
    pub(crate) settings: &'a Settings,
    pub(crate) asked: Asked<'a>,
    pub(crate) bound: Option<&'a ParamValues>,
    pub(crate) schema: &'a Schema,
}

/// The evidence of a statement that runs.
#[derive(Debug)]
pub(crate) struct Pending {
    id: String,
    answer: Answer,
    scope: Arc<StatementScope>,
    key: Arc<SigningKey>,
    chain: ChainTag,
    kept: Arc<KeptAnswers>,
}

impl Pending {
    /// Takes down all that is known before the first row.
    ///
    /// # Errors
    /// The node has no key, or the statement has what evidence cannot hold: too many segments, a column or a parameter
    /// of a type without a canonical form.
    pub(crate) fn begin(
        engine: &Engine,
        of: Of<'_>,
        scope: Arc<StatementScope>,
        kept: Arc<KeptAnswers>,
    ) -> Result<Self> {
        let Of { catalog, settings, asked, bound, schema } = of;
        let (key, chain) = signer(engine)?;
        let unfit = |why: String| {
            QueryError::statement(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("there is no evidence of this answer: {why}"),
            )
            .with_hint("cast it to another type, or SET cairn.evidence = off")
        };
        let block = catalog.block().ok_or_else(|| {
            let message =
                format!("block {} is not known here, so there is no evidence of answers at it", catalog.height().0);
            QueryError::new(QueryErrorKind::Unavailable, SqlState::NOT_READY, message)
        })?;
        let segments = scope.segments_read().map_or(0, SegmentsRead::count);
        if segments > SEGMENTS_MAX {
            let message = format!("the answer rests on {segments} segments; evidence names at most {SEGMENTS_MAX}");
            return Err(QueryError::limit(SqlState::PROGRAM_LIMIT, message)
                .with_hint("narrow the statement by _partition, _block or _timestamp, or SET cairn.evidence = off"));
        }
        let answer = Answer {
            node: key.identity(),
            statement: asked.text.trim().to_owned(),
            parameters: bound.map(parameters::bound).transpose().map_err(unfit)?.unwrap_or_default(),
            settings: settings.answer_depends_on(),
            height: catalog.height(),
            block: block.digest,
            state_root: block.state_root,
            segments: Vec::new(),
            left_out: 0,
            flagged: 0,
            columns: canonical::columns(schema).map_err(unfit)?,
            rows: 0,
            rows_root: cairn_proof::tree::empty_root(),
            ordered_root: asked.ordered.then(cairn_proof::tree::empty_root),
            engine: engine_name(),
            made_ms: 0,
        };
        // A name that nobody else's answer has.
        let id = hex::encode(rand::random::<[u8; 12]>());
        Ok(Self { id, answer, scope, key, chain, kept })
    }

    /// What it can be asked for by, once the last row has left.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What hashes the statement's rows.
    pub(crate) fn hashing(&self, context: &TaskContext) -> Hashing {
        let memory = MemoryConsumer::new("evidence").register(context.memory_pool());
        Hashing { rows: RowsHasher::new(self.answer.ordered_root.is_some()), buffer: Vec::new(), memory }
    }

    /// Signs, once all rows have left, and keeps the answer for the session.
    ///
    /// # Errors
    /// The whole is longer than evidence may be.
    pub(crate) fn finish(self, hash: &RowsHash) -> Result<()> {
        let (left_out, flagged) = self.scope.unverified();
        let answer = Answer {
            segments: self.scope.segments_read().map(SegmentsRead::list).unwrap_or_default(),
            left_out,
            flagged,
            rows: hash.rows.0,
            rows_root: hash.rows_root,
            ordered_root: hash.ordered_root,
            made_ms: u64::try_from(now_ms()).unwrap_or_default(),
            ..self.answer
        };
        let envelope = answer.sign(&self.key, &self.chain).map_err(|error| {
            QueryError::limit(SqlState::PROGRAM_LIMIT, format!("there is no evidence of this answer: {error}"))
                .with_hint("narrow the statement, or SET cairn.evidence = off")
        })?;
        self.kept.keep(Kept { id: self.id, height: answer.height, envelope: envelope.into() });
        Ok(())
    }
}

/// Hashes rows as they leave. What it holds counts as the statement's memory.
pub(crate) struct Hashing {
    rows: RowsHasher,
    buffer: Vec<u8>,
    memory: MemoryReservation,
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hashing").finish_non_exhaustive()
    }
}

impl Hashing {
    /// Takes the next rows.
    pub(crate) fn take(&mut self, batch: &RecordBatch) -> datafusion::error::Result<()> {
        self.memory.try_grow(batch.num_rows().saturating_mul(ROW_BYTES))?;
        canonical::hash_rows(batch, &mut self.rows, &mut self.buffer)
    }

    /// The roots over all rows.
    pub(crate) fn finish(self) -> RowsHash {
        self.rows.finish()
    }
}

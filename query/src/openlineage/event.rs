//! One event: run, job and datasets, with the facets that the specification has for them, and one of Cairn's own.
//!
//! | facet | of | what |
//! | --- | --- | --- |
//! | `processing_engine` | run | name and version |
//! | `errorMessage` | run | why it failed |
//! | `cairn_snapshot` | run | Cairn's own: chain height, block and state root that the answer is of |
//! | `sql`, `jobType` | job | the statement's text; that it is a query |
//! | `schema`, `version` | dataset | columns; the height, which is what names the version of a stream |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use cairn_proof::digest::sha256;
use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use serde_json::{Value, json};
use uuid::Uuid;

use super::version;
use crate::catalog::HeightCatalog;

/// Who makes the events.
const PRODUCER: &str = concat!("urn:cairn:query:", env!("CARGO_PKG_VERSION"));
const EVENT_SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
/// The schema of Cairn's own facet: docs/openlineage-snapshot.json.
const SNAPSHOT_SCHEMA: &str = "urn:cairn:openlineage:1-0-0:SnapshotRunFacet";
/// A statement's text is cut to so many bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// So much of why a statement failed is told.
const REASON_BYTES_MAX: usize = 4 * 1024;
/// How many columns of one dataset are told, at any depth.
const COLUMNS_MAX: usize = 2_000;

fn facet(schema: &str) -> String {
    format!("https://openlineage.io/spec/facets/{schema}")
}

/// What is the same in all events of a run.
#[derive(Debug)]
pub(super) struct Told {
    run: Uuid,
    namespace: Arc<str>,
    job: String,
    text: String,
    snapshot: Value,
    version: String,
    inputs: BTreeMap<String, SchemaRef>,
}

impl Told {
    pub(super) fn new(namespace: &Arc<str>, plan: &LogicalPlan, text: &str, catalog: &HeightCatalog) -> Self {
        let name = sha256(&[text.as_bytes()]);
        let block = catalog.block();
        Self {
            run: uuid::Builder::from_random_bytes(rand::random()).into_uuid(),
            namespace: Arc::clone(namespace),
            // The same text is the same job; each time it is asked is a run of it.
            job: format!("sql.{}", hex::encode(&AsRef::<[u8]>::as_ref(&name)[..12])),
            text: shortened(text.trim(), TEXT_BYTES_MAX),
            snapshot: json!({
                "_producer": PRODUCER,
                "_schemaURL": SNAPSHOT_SCHEMA,
                "height": catalog.height().0,
                "block": block.map(|block| block.digest.to_string()),
                "stateRoot": block.map(|block| block.state_root.to_string()),
            }),
            version: version(catalog.height()),
            inputs: inputs(plan),
        }
    }
}

/// How a run stands.
#[derive(Debug)]
pub(super) enum End {
    Start,
    Complete,
    /// Why, in a sentence.
    Fail(String),
    /// Nobody wanted the rows any more.
    Abort,
}

/// An event that waits to be sent. It becomes text where there is time for it.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) told: Arc<Told>,
    pub(super) end: End,
    pub(super) time: DateTime<Utc>,
}

impl Event {
    /// The event as one line of JSON, without its end.
    pub(super) fn to_json(&self) -> String {
        let told = &self.told;
        let inputs: Vec<_> = told.inputs.iter().map(|(name, schema)| told.dataset(name, schema)).collect();
        let mut facets = json!({
            "processing_engine": {
                "_producer": PRODUCER,
                "_schemaURL": facet("1-1-1/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet"),
                "name": "Cairn",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "cairn_snapshot": told.snapshot,
        });
        let kind = match &self.end {
            End::Start => "START",
            End::Complete => "COMPLETE",
            End::Abort => "ABORT",
            End::Fail(reason) => {
                facets["errorMessage"] = json!({
                    "_producer": PRODUCER,
                    "_schemaURL": facet("1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet"),
                    "message": shortened(reason, REASON_BYTES_MAX),
                    "programmingLanguage": "SQL",
                });
                "FAIL"
            }
        };
        json!({
            "eventType": kind,
            "eventTime": self.time.to_rfc3339_opts(SecondsFormat::Millis, true),
            "producer": PRODUCER,
            "schemaURL": EVENT_SCHEMA,
            "run": { "runId": told.run.to_string(), "facets": facets },
            "job": told.job(),
            "inputs": inputs,
            "outputs": [],
        })
        .to_string()
    }
}

impl Told {
    fn job(&self) -> Value {
        json!({
            "namespace": &*self.namespace,
            "name": self.job,
            "facets": {
                "sql": {
                    "_producer": PRODUCER,
                    "_schemaURL": facet("1-1-0/SQLJobFacet.json#/$defs/SQLJobFacet"),
                    "query": self.text,
                    "dialect": "postgres",
                },
                "jobType": {
                    "_producer": PRODUCER,
                    "_schemaURL": facet("2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet"),
                    "processingType": "BATCH",
                    "integration": "CAIRN",
                    "jobType": "QUERY",
                },
            },
        })
    }

    fn dataset(&self, name: &str, schema: &SchemaRef) -> Value {
        let mut left = COLUMNS_MAX;
        json!({
            "namespace": &*self.namespace,
            "name": name,
            "facets": {
                "schema": {
                    "_producer": PRODUCER,
                    "_schemaURL": facet("1-2-0/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet"),
                    "fields": columns(schema.fields().iter().map(AsRef::as_ref), &mut left),
                },
                "version": {
                    "_producer": PRODUCER,
                    "_schemaURL": facet("1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"),
                    "datasetVersion": self.version,
                },
            },
        })
    }
}

/// Columns, and the fields of records within them, up to `left` in all.
fn columns<'a>(fields: impl Iterator<Item = &'a Field>, left: &mut usize) -> Vec<Value> {
    let mut told = Vec::new();
    for (at, field) in (1_u64..).zip(fields) {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let mut column = json!({ "name": field.name(), "type": kind(field.data_type()), "ordinal_position": at });
        if let DataType::Struct(inner) = field.data_type() {
            column["fields"] = columns(inner.iter().map(AsRef::as_ref), left).into();
        }
        told.push(column);
    }
    told
}

/// A type by the name that evidence of answers gives it; Arrow's own where it has none.
fn kind(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(_) => "struct".to_owned(),
        other => crate::evidence::type_name(other).unwrap_or_else(|| other.to_string()),
    }
}

/// The streams and tables that a plan reads, by name.
fn inputs(plan: &LogicalPlan) -> BTreeMap<String, SchemaRef> {
    let mut found = BTreeMap::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(schema) = scan.table_name.schema()
            && !matches!(schema, "pg_catalog" | "information_schema")
        {
            found.insert(format!("{schema}.{}", scan.table_name.table()), scan.source.schema());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn shortened(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes)])
}

//! The catalogues of one session as Postgres clients see them: `pg_catalog` and `information_schema` over streams.
//!
//! One instance lives as long as its session, for it gives tables their object ids: psql's `\d` asks for an id in one
//! statement and uses it in the next, and a block may arrive in between. What it lists follows the session's current
//! height.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::{
    PG_CATALOG_TABLES, PgCatalogSchemaProvider, PgCatalogStaticTables,
};

use crate::catalog::CATALOG;
use crate::information_schema::{INFORMATION_SCHEMA, InformationSchema};
use crate::session::CurrentCatalog;

const PG_CATALOG: &str = "pg_catalog";

/// The one catalogue of a session, as the list that DataFusion asks for.
#[derive(Debug)]
pub(crate) struct SessionCatalogs(Arc<SessionCatalog>);

#[derive(Debug, Clone)]
struct SessionCatalog {
    current: Arc<CurrentCatalog>,
    postgres: Arc<dyn SchemaProvider>,
}

impl SessionCatalogs {
    pub(crate) fn new(current: Arc<CurrentCatalog>, tables: Arc<PgCatalogStaticTables>) -> Result<Self> {
        // Knows the shapes of the pg_catalog tables themselves, which list everything but need not list themselves.
        let shapes = PgCatalogSchemaProvider::try_new(NothingListed, Arc::clone(&tables), EmptyContextProvider)?;
        let listed = Listed { current: Arc::clone(&current), shapes: Arc::new(shapes) };
        let postgres = PgCatalogSchemaProvider::try_new(listed, tables, EmptyContextProvider)?;
        Ok(Self(Arc::new(SessionCatalog { current, postgres: Arc::new(postgres) })))
    }
}

impl CatalogProviderList for SessionCatalogs {
    fn register_catalog(&self, _name: String, catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        // There is one catalogue and no way to add another; the newcomer is handed back.
        Some(catalog)
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::clone(&self.0) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for SessionCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.current.get().schema_names();
        names.push(PG_CATALOG.to_owned());
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == PG_CATALOG {
            return Some(Arc::clone(&self.postgres));
        }
        if name == INFORMATION_SCHEMA {
            // Made when asked for: it holds this catalogue, which cannot hold it.
            return Some(Arc::new(InformationSchema::new(Arc::new(SessionCatalogs(Arc::new(self.clone()))))));
        }
        self.current.get().schema(name)
    }
}

/// What `pg_catalog` lists: the tables at the session's current height, and its own.
#[derive(Debug, Clone)]
struct Listed {
    current: Arc<CurrentCatalog>,
    shapes: Arc<PgCatalogSchemaProvider<NothingListed, EmptyContextProvider>>,
}

#[async_trait]
impl CatalogInfo for Listed {
    async fn catalog_names(&self) -> Result<Vec<String>, DataFusionError> {
        Ok(vec![CATALOG.to_owned()])
    }

    async fn schema_names(&self, _catalog: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        let mut names = self.current.get().schema_names();
        names.push(PG_CATALOG.to_owned());
        Ok(Some(names))
    }

    async fn table_names(&self, _catalog: &str, schema: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        if schema == PG_CATALOG {
            return Ok(Some(PG_CATALOG_TABLES.iter().map(|name| (*name).to_owned()).collect()));
        }
        Ok(self.current.get().schema(schema).map(|schema| schema.table_names()))
    }

    async fn table_schema(
        &self,
        _catalog: &str,
        schema: &str,
        table: &str,
    ) -> Result<Option<SchemaRef>, DataFusionError> {
        if schema == PG_CATALOG {
            return Ok(self.shapes.build_table_by_name(table)?.map(|table| table.schema()));
        }
        match self.current.get().schema(schema) {
            Some(schema) => Ok(schema.table(table).await?.map(|table| table.schema())),
            None => Ok(None),
        }
    }

    async fn table_type(
        &self,
        _catalog: &str,
        schema: &str,
        table: &str,
    ) -> Result<Option<TableType>, DataFusionError> {
        if schema == PG_CATALOG {
            return Ok(Some(TableType::Base));
        }
        match self.current.get().schema(schema) {
            Some(schema) => schema.table_type(table).await,
            None => Ok(None),
        }
    }
}

/// Lists nothing.
#[derive(Debug, Clone)]
struct NothingListed;

#[async_trait]
impl CatalogInfo for NothingListed {
    async fn catalog_names(&self) -> Result<Vec<String>, DataFusionError> {
        Ok(Vec::new())
    }

    async fn schema_names(&self, _catalog: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        Ok(None)
    }

    async fn table_names(&self, _catalog: &str, _schema: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        Ok(None)
    }

    async fn table_schema(
        &self,
        _catalog: &str,
        _schema: &str,
        _table: &str,
    ) -> Result<Option<SchemaRef>, DataFusionError> {
        Ok(None)
    }

    async fn table_type(
        &self,
        _catalog: &str,
        _schema: &str,
        _table: &str,
    ) -> Result<Option<TableType>, DataFusionError> {
        Ok(None)
    }
}

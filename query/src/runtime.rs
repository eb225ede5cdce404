//! The runtime that statements execute in: one store, no files, bounded memory.
//!
//! - **One store.** The registry of stores knows one private URL, that of the verified store. No other URL resolves,
//!   local files included, so that nothing a plan might name is reachable.
//! - **Its own caches.** DataFusion's footer cache is keyed by path and checked by size and time, not by store. This
//!   runtime is used for verified reads alone, so no unverified footer can get into it.
//! - **No spilling.** What does not fit into memory is refused. A temporary file would be records in plain text outside
//!   the store, and reading it back would be reading bytes that nothing verified.

use std::num::NonZeroUsize;
use std::sync::Arc;

use cairn_anchor::verified::VerifiedStore;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use object_store::ObjectStore;

use crate::config::QueryConfig;

/// The scheme and host under which plans name the verified store. It means nothing outside of this process.
const STORE_URL: &str = "cairn-verified://segments";

/// How many memory users an error about memory names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// The URL of the verified store.
pub(crate) fn store_url() -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(STORE_URL)
}

/// Builds the runtime.
pub(crate) fn runtime(config: &QueryConfig, store: VerifiedStore) -> Result<Arc<RuntimeEnv>> {
    let pool = TrackConsumersPool::new(GreedyMemoryPool::new(config.memory_limit_bytes()), CONSUMERS_NAMED);
    RuntimeEnvBuilder::new()
        .with_object_store_registry(Arc::new(OneStore { store: Arc::new(store) }))
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .with_metadata_cache_limit(config.footer_cache_bytes())
        .build_arc()
}

/// A registry that resolves the one URL and takes no other store.
#[derive(Debug)]
struct OneStore {
    store: Arc<VerifiedStore>,
}

impl ObjectStoreRegistry for OneStore {
    fn register_store(&self, _url: &url::Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        // The trait has no way to refuse; handing the newcomer back tells that it was not taken.
        Some(store)
    }

    fn get_store(&self, url: &url::Url) -> Result<Arc<dyn ObjectStore>> {
        let asked = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        if asked == STORE_URL {
            return Ok(Arc::<VerifiedStore>::clone(&self.store));
        }
        Err(DataFusionError::Execution(format!("no store at {asked}: statements reach anchored segments alone")))
    }
}

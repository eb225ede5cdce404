//! The runtime that statements execute in: one store, no files, bounded memory.
//!
//! - **One store.** The registry of stores knows one private URL, that of the verified store. No other URL resolves,
//!   local files included, so that nothing a plan might name is reachable.
//! - **Its own caches.** DataFusion's footer cache is keyed by path and checked by size and time, not by store. This
//!   runtime is used for verified reads alone, so no unverified footer can get into it.
//! - **No spilling, unless the operator gives a folder.** What does not fit into memory is refused. A temporary file is
//!   records in plain text outside the store, and reading it back is reading bytes that nothing verified. With
//!   `spill_folder` sorts, groupings and some joins go on there within `spill_mib_max`; the folder must be closed to
//!   everybody else, since who can write there can change answers.

use std::num::NonZeroUsize;
use std::sync::Arc;

use cairn_anchor::verified::VerifiedStore;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool, TrackConsumersPool};
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
    let (bytes, spill) = (config.memory_limit_bytes(), spill(config)?);
    let pool: Arc<dyn MemoryPool> = match &config.spill_folder {
        None => Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(bytes), CONSUMERS_NAMED)),
        // Those who can spill share what there is, so that none of them starves.
        Some(_) => Arc::new(TrackConsumersPool::new(FairSpillPool::new(bytes), CONSUMERS_NAMED)),
    };
    RuntimeEnvBuilder::new()
        .with_object_store_registry(Arc::new(OneStore { store: Arc::new(store) }))
        .with_memory_pool(pool)
        .with_disk_manager_builder(spill)
        .with_metadata_cache_limit(config.footer_cache_bytes())
        .build_arc()
}

fn spill(config: &QueryConfig) -> Result<DiskManagerBuilder> {
    let Some(folder) = &config.spill_folder else {
        return Ok(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled));
    };
    let refused = |why: &str| {
        let message = format!("[query] spill_folder = {}: {why}", folder.display());
        Err(DataFusionError::Configuration(message))
    };
    match folder.metadata() {
        Err(error) => return refused(&format!("{error}; make the folder, with mode 0700")),
        Ok(found) if !found.is_dir() => return refused("it is no folder"),
        Ok(found) if !is_private(&found) => return refused("others can enter it; chmod 0700 it"),
        Ok(_) => {}
    }
    Ok(DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![folder.clone()]))
        .with_max_temp_directory_size(config.spill_bytes_max()))
}

#[cfg(unix)]
fn is_private(found: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & 0o077 == 0
}

#[cfg(not(unix))]
fn is_private(_found: &std::fs::Metadata) -> bool {
    true
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

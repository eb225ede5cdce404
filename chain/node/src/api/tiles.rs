//! The log in public form (C2SP `tlog-tiles`): its newest signed checkpoint, its hashes and its entries, as files that any
//! client of such logs reads and any cache may keep.
//!
//! Hashes come out of memory: 8 KiB a tile. The anchors of a bundle of entries stand in up to 256 blocks, which are read
//! from the archive when they are not recent. So few bundles are put together at a time, block by block, and full ones are
//! kept for those who ask next: a bundle never changes.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use axum::{
    extract::{Path, State},
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use cairn_proof::{
    statement::log_entries,
    tile::{Kind, TILE_WIDTH, Tile},
    tree::leaf_hash,
};
use tokio::sync::Semaphore;

use super::{
    Api,
    error::{ApiError, Problem},
};

/// Bundles that are put together at a time; others wait.
const BUILDING_MAX: usize = 2;

/// Bytes of full bundles that are kept; one is 16 MiB at most.
const KEPT_BYTES_MAX: usize = 32 << 20;

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Full bundles of entries, the one asked for last at the end.
pub(super) struct Bundles {
    building: Semaphore,
    kept: Mutex<VecDeque<(u64, Bytes)>>,
}

impl Bundles {
    pub(super) fn new() -> Self {
        Self { building: Semaphore::new(BUILDING_MAX), kept: Mutex::default() }
    }

    fn get(&self, index: u64) -> Option<Bytes> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(found, _)| *found == index)?;
        let bundle = kept.remove(at)?;
        kept.push_back(bundle.clone());
        Some(bundle.1)
    }

    fn keep(&self, index: u64, bundle: Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().any(|(found, _)| *found == index) {
            return;
        }
        kept.push_back((index, bundle));
        let mut bytes: usize = kept.iter().map(|(_, bundle)| bundle.len()).sum();
        while bytes > KEPT_BYTES_MAX {
            bytes -= kept.pop_front().map_or(bytes, |(_, oldest)| oldest.len());
        }
    }
}

/// The newest checkpoint that a quorum of validators signed: a signed note (C2SP tlog-checkpoint, tlog-cosignature).
#[utoipa::path(
    get, path = "/checkpoint", tag = "log",
    responses(
        (status = 200, description = "the signed note", body = String, content_type = "text/plain"),
        (status = 404, description = "no_checkpoint", body = Problem),
    )
)]
pub(super) async fn checkpoint(State(api): State<Api>) -> Result<Response, ApiError> {
    let Some(published) = api.shared.checkpoints.published() else {
        let message = "no checkpoint has the signatures of more than two thirds of the validators here yet";
        return Err(ApiError::not_found("no_checkpoint", message));
    };
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, published.note.to_string()).into_response())
}

/// A tile of the log's hashes, or a bundle of its entries (C2SP tlog-tiles).
///
/// The path is `L/N` or `entries/N`, with `.p/W` after it where the tile is partial; N has three digits an element, all but
/// the last with an x in front: `0/x001/234`.
#[utoipa::path(
    get, path = "/tile/{path}", tag = "log", params(("path" = String, Path, description = "L/N[.p/W] or entries/N[.p/W]")),
    responses(
        (status = 200, description = "hashes, or entries with their lengths in front", body = [u8], content_type = "application/octet-stream"),
        (status = 400, description = "no tile's path", body = Problem),
        (status = 404, description = "no_such_tile", body = Problem),
        (status = 503, description = "no_such_block", body = Problem),
    )
)]
pub(super) async fn tile(State(api): State<Api>, Path(path): Path<String>) -> Result<Response, ApiError> {
    let tile = Tile::parse(&format!("tile/{path}")).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let bytes = match tile.kind {
        Kind::Hashes(_) => api.shared.ledger.tile(&tile).map(Bytes::from),
        Kind::Entries => api.entries(&tile).await?,
    };
    let bytes = bytes.ok_or_else(|| {
        let size = api.shared.ledger.tip().header.log_size;
        ApiError::not_found("no_such_tile", format!("the log has not grown to {tile}; it has {size} entries"))
    })?;
    Ok(([(CONTENT_TYPE, "application/octet-stream"), (CACHE_CONTROL, IMMUTABLE)], bytes).into_response())
}

impl Api {
    /// The anchors at a tile's places, each with its length in front; nothing when the log has not grown to them.
    async fn entries(&self, tile: &Tile) -> Result<Option<Bytes>, ApiError> {
        let Some(places) = tile.range() else { return Ok(None) };
        let full = tile.width == TILE_WIDTH;
        let Some(leaves) = self.shared.ledger.leaves(&places) else { return Ok(None) };
        if let Some(bundle) = self.bundles.get(tile.index).filter(|_| full) {
            return Ok(Some(bundle));
        }
        // Never closed, so that a permit comes sooner or later.
        let _building = self.bundles.building.acquire().await.ok();
        if let Some(bundle) = self.bundles.get(tile.index).filter(|_| full) {
            return Ok(Some(bundle));
        }
        let mut wanted = leaves.iter().peekable();
        let mut bundle = Vec::new();
        for height in self.shared.ledger.anchored(&places) {
            let Some(block) = self.block(height).await else { break };
            for entry in block.block.statements().iter().flat_map(|statement| log_entries(statement)) {
                // An entry is no longer than its statement, which has at most 65,535 bytes, so that its length fits.
                let Ok(length) = u16::try_from(entry.len()) else { continue };
                if wanted.next_if(|leaf| **leaf == leaf_hash(&entry)).is_some() {
                    bundle.extend_from_slice(&length.to_be_bytes());
                    bundle.extend_from_slice(&entry);
                }
            }
        }
        if wanted.peek().is_some() {
            // Only where this node's archive has a gap.
            let message = "a block with some of these entries is not here; ask another node";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_such_block", message));
        }
        let bundle = Bytes::from(bundle);
        if full {
            self.bundles.keep(tile.index, bundle.clone());
        }
        Ok(Some(bundle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_kept_up_to_a_bound_and_those_asked_for_longest() {
        let bundles = Bundles::new();
        let bundle = Bytes::from(vec![0; KEPT_BYTES_MAX / 4]);
        for index in 0..4 {
            bundles.keep(index, bundle.clone());
        }
        assert!(bundles.get(0).is_some());
        bundles.keep(4, bundle.clone());
        assert_eq!([0, 1, 2, 3, 4].map(|index| bundles.get(index).is_some()), [true, false, true, true, true]);
        bundles.keep(4, bundle);
        assert_eq!(bundles.kept.lock().unwrap().len(), 4, "a second copy takes no room");
    }
}

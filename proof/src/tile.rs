//! Tiles: the finite set of files as which a log's hashes and entries are served (C2SP `tlog-tiles`).
//!
//! ```text
//! tile/<L>/<N>[.p/<W>]         hashes: W (256 when left out) perfect subtrees of 256^L leaves, from 256·N on
//! tile/entries/<N>[.p/<W>]     entries 256·N … 256·N + W − 1, each as u16 BE(length) ‖ entry
//! <N> = x001/x234/067          three digits an element, all but the last with an x in front
//! ```
//!
//! Pure arithmetic over names and places, used by the node that serves tiles and by the tools that read them. A path has
//! one form: what [`Tile::parse`] takes is what [`Tile`] is shown as.

use std::fmt;

use crate::digest::Digest;
use crate::tree::{self, Subtree};
use crate::units::TreeSize;

/// Hashes or entries of a full tile.
pub const TILE_WIDTH: u64 = 256;
/// Levels of the tree that a tile spans: 2^8 is its width.
const TILE_LEVELS: u32 = 8;
/// Largest level in a path.
const LEVEL_MAX: u8 = 63;
/// Longest path: 20 digits in seven elements.
const PATH_BYTES_MAX: usize = 64;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Hashes of level L.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

/// One tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its place among the tiles of that kind.
    pub index: u64,
    /// How many hashes or entries: 1 to 256; below 256 it is partial.
    pub width: u64,
}

/// A path that names no tile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected tile/<L>/<N>[.p/<W>] or tile/entries/<N>[.p/<W>] (C2SP tlog-tiles), found {found:?}")]
pub struct TileError {
    /// The path, cut to 80 characters.
    pub found: String,
}

impl Tile {
    /// Reads a path without a slash in front, strictly.
    ///
    /// ```
    /// use cairn_proof::tile::Tile;
    /// let tile = Tile::parse("tile/0/x001/x234/067.p/8").unwrap();
    /// assert_eq!((tile.index, tile.width), (1_234_067, 8));
    /// ```
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        let bad = || TileError { found: path.chars().take(80).collect() };
        if path.len() > PATH_BYTES_MAX {
            return Err(bad());
        }
        let rest = path.strip_prefix("tile/").ok_or_else(bad)?;
        let (kind, rest) = rest.split_once('/').ok_or_else(bad)?;
        let kind = match kind {
            "entries" => Kind::Entries,
            level => Kind::Hashes(level.parse().ok().filter(|level| *level <= LEVEL_MAX).ok_or_else(bad)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok().filter(|width| *width < TILE_WIDTH).ok_or_else(bad)?),
            None => (rest, TILE_WIDTH),
        };
        let mut number: u64 = 0;
        for element in index.split('/') {
            let digits = element.strip_prefix('x').unwrap_or(element);
            let part: u64 = digits.parse().ok().filter(|_| digits.len() == 3).ok_or_else(bad)?;
            number = number.checked_mul(1_000).and_then(|number| number.checked_add(part)).ok_or_else(bad)?;
        }
        let tile = Self { kind, index: number, width };
        // Signs, zeroes in front and elements that are too many or lack their x are not the one form.
        if tile.width > 0 && tile.to_string() == path { Ok(tile) } else { Err(bad()) }
    }

    /// The tile of the tree with `size` leaves that holds the subtree, and where in it; `None` when the tree has no such
    /// perfect subtree.
    #[must_use]
    pub fn holding(subtree: Subtree, size: TreeSize) -> Option<(Self, std::ops::Range<usize>)> {
        if subtree.level >= u64::BITS || subtree.index.checked_add(1)? > size.0 >> subtree.level {
            return None;
        }
        let (level, above) = (subtree.level / TILE_LEVELS, subtree.level % TILE_LEVELS);
        // Within the tree, so that neither shift loses a bit.
        let first = subtree.index << above;
        let index = first / TILE_WIDTH;
        let width = ((size.0 >> (level * TILE_LEVELS)) - index * TILE_WIDTH).min(TILE_WIDTH);
        let start = usize::try_from(first % TILE_WIDTH).ok()?;
        let kind = Kind::Hashes(u8::try_from(level).ok()?);
        Some((Self { kind, index, width }, start..start + (1 << above)))
    }

    /// Height of the subtrees whose hashes a tile of level `level` holds; `None` when no tree is that high.
    #[must_use]
    pub fn subtree_level(level: u8) -> Option<u32> {
        Some(u32::from(level) * TILE_LEVELS).filter(|level| *level < u64::BITS)
    }

    /// The first hash or entry that the tile holds, and one beyond the last; `None` beyond 64 bits.
    #[must_use]
    pub fn range(&self) -> Option<std::ops::Range<u64>> {
        let start = self.index.checked_mul(TILE_WIDTH)?;
        Some(start..start.checked_add(self.width)?)
    }
}

/// Root of the perfect subtree over `hashes` of a tile, as [`Tile::holding`] names them.
#[must_use]
pub fn subtree_root(hashes: &[Digest]) -> Digest {
    tree::root(hashes)
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes(level) => write!(f, "tile/{level}/")?,
            Kind::Entries => f.write_str("tile/entries/")?,
        }
        let mut elements = vec![self.index % 1_000];
        let mut rest = self.index / 1_000;
        while rest > 0 {
            elements.push(rest % 1_000);
            rest /= 1_000;
        }
        while let Some(element) = elements.pop() {
            if elements.is_empty() { write!(f, "{element:03}")? } else { write!(f, "x{element:03}/")? }
        }
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{LeafRange, Log, consistency_ranges, inclusion_ranges, leaf_hash};
    use crate::units::LeafIndex;
    use proptest::prelude::*;

    fn log(size: u64) -> Log {
        let mut log = Log::new();
        for entry in 0..size {
            log.append(leaf_hash(&entry.to_be_bytes()));
        }
        log
    }

    /// A hash of a path, from nothing but tiles.
    fn from_tiles(log: &Log, size: TreeSize, range: LeafRange) -> Digest {
        let roots: Vec<Digest> = range
            .subtrees()
            .iter()
            .map(|subtree| {
                let (tile, within) = Tile::holding(*subtree, size).unwrap();
                assert_eq!(Tile::parse(&tile.to_string()).unwrap(), tile);
                let Kind::Hashes(level) = tile.kind else { panic!("{tile}") };
                let start = tile.range().unwrap().start;
                let hashes = log.subtrees(Tile::subtree_level(level).unwrap(), start, tile.width as usize).unwrap();
                subtree_root(&hashes[within])
            })
            .collect();
        tree::fold_subtrees(&roots)
    }

    /// The specification's examples.
    #[test]
    fn published_paths_and_widths() {
        assert_eq!(Tile { kind: Kind::Hashes(0), index: 1_234_067, width: 256 }.to_string(), "tile/0/x001/x234/067");
        let width = |level: u32, index: u64| {
            let subtree = Subtree { level: level * 8, index: index * 256 };
            Tile::holding(subtree, TreeSize(70_000)).map(|(tile, _)| tile.width)
        };
        assert_eq!((width(0, 272), width(0, 273), width(0, 274)), (Some(256), Some(112), None));
        assert_eq!((width(1, 0), width(1, 1), width(1, 2)), (Some(256), Some(17), None));
        assert_eq!((width(2, 0), width(2, 1), width(3, 0)), (Some(1), None, None));
        let (tile, within) = Tile::holding(Subtree { level: 8, index: 0 }, TreeSize(256)).unwrap();
        assert_eq!((tile.to_string(), within), ("tile/1/000.p/1".to_owned(), 0..1));
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/0/1",
            "tile/0/0001",
            "tile/0/x001",
            "tile/0/001/002",
            "tile/0/x000/001",
            "tile/00/001",
            "tile/64/001",
            "tile/+1/001",
            "tile/-1/001",
            "tile/0/+01",
            "tile/0/001.p/",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/0/001.p/+1",
            "tile/0/001.p/1/",
            "tile/0/001/",
            "/tile/0/001",
            "tile/entry/001",
            "tile/Entries/001",
            "tile/0/x0a1/001",
            "tile/0/X001/001",
            "tile/0/001.p/1.p/1",
            "tile/0//001",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/x001/x001/x001/x001/x001/x001/x001/x001/x001/x001/x001/001",
        ] {
            assert!(Tile::parse(path).is_err(), "{path:?}");
        }
        let last = "tile/0/x018/x446/x744/x073/x709/x551/615";
        assert_eq!(Tile::parse(last).unwrap().index, u64::MAX);
        assert_eq!(Tile::parse(last).unwrap().range(), None);
    }

    #[test]
    fn all_proofs_follow_from_tiles() {
        let log = log(700);
        for size in [1u64, 2, 3, 255, 256, 257, 300, 511, 512, 513, 700] {
            let size = TreeSize(size);
            assert_eq!(from_tiles(&log, size, LeafRange { start: 0, width: size.0 }), log.root_at(size).unwrap());
            for index in (0..size.0).step_by(41) {
                let made = inclusion_ranges(LeafIndex(index), size).unwrap();
                let made: Vec<_> = made.iter().map(|range| from_tiles(&log, size, *range)).collect();
                assert_eq!(made, log.inclusion_path(LeafIndex(index), size).unwrap());
            }
            for older in (1..=size.0).step_by(37) {
                let made = consistency_ranges(TreeSize(older), size).unwrap();
                let made: Vec<_> = made.iter().map(|range| from_tiles(&log, size, *range)).collect();
                assert_eq!(made, log.consistency_path(TreeSize(older), size).unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn paths_round_trip(level in 0u8..=63, entries: bool, index: u64, width in 1u64..=256) {
            let kind = if entries { Kind::Entries } else { Kind::Hashes(level) };
            let tile = Tile { kind, index, width };
            prop_assert_eq!(Tile::parse(&tile.to_string()).unwrap(), tile);
        }

        #[test]
        fn any_path_is_refused_or_is_the_one_form(path in "tile/([0-9]{1,2}|entries)(/x?[0-9]{1,4}){1,8}(\\.p/[0-9]{1,3})?") {
            if let Ok(tile) = Tile::parse(&path) {
                prop_assert_eq!(tile.to_string(), path);
            }
        }

        #[test]
        fn any_subtree_has_a_place_or_none(level: u32, index: u64, size: u64) {
            if let Some((tile, within)) = Tile::holding(Subtree { level, index }, TreeSize(size)) {
                prop_assert!(within.end as u64 <= tile.width);
            }
        }
    }
}

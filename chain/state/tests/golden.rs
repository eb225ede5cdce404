//! The golden chain of docs/formats.md, executed. Its state was computed from the description alone, by `proof`'s tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use cairn_chain_state::{State, StrictSignatures, execute};
use cairn_proof::Height;
use cairn_proof::block::decode_blocks;
use cairn_proof::genesis::Genesis;
use cairn_proof::header::Header;

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proof/tests/golden");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn the_golden_chain_has_the_documented_state() {
    let genesis = Genesis::from_json(&golden("city.json")).unwrap();
    let state = State::genesis(&genesis);
    let digests = String::from_utf8(golden("digests.txt")).unwrap();
    let root = digests.lines().find_map(|line| line.strip_prefix("state root of genesis: ")).unwrap();
    assert_eq!(state.root().to_string(), root);

    let text: String = String::from_utf8(golden("blocks.hex")).unwrap().split_whitespace().collect();
    let blocks = decode_blocks(&hex::decode(text).unwrap(), 2).unwrap();
    assert_eq!(Header::decode(&blocks[0].header).unwrap(), genesis.header());
    // The header names the state root, so executing the block compares it.
    let executed = execute(&genesis.header(), &state, &blocks[1], &StrictSignatures).unwrap();
    assert_eq!((executed.header.height, executed.applied.len()), (Height(1), 3));
    let entries = String::from_utf8(golden("state.txt")).unwrap().lines().count();
    assert_eq!(executed.state.entries(), entries as u64);
}

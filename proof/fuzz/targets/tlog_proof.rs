//! Fuzzes tlog-proofs, and their verification against the golden genesis.
#![no_main]

#[path = "../../tests/bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::tlog_proof(bytes);
});

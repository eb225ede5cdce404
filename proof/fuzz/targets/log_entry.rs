//! Fuzzes entries of the log: anchors, alone or out of a statement with several.
#![no_main]

#[path = "../../tests/bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::log_entry(bytes);
});

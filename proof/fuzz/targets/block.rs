//! Fuzzes blocks, one or an array of them, as they travel between nodes and followers.
#![no_main]

#[path = "../../tests/bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::block(bytes);
});

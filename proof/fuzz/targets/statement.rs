//! Fuzzes statements in their COSE envelopes.
#![no_main]

#[path = "../../tests/bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::statement(bytes);
});

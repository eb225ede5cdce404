//! Fuzzes the schemas that a segment was decoded by.
#![no_main]

#[path = "../../tests/bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::writer_schemas(bytes);
});

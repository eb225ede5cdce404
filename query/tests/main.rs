//! The integration tests of this crate, in one binary: each binary of its own would link the whole engine again.
//!
//! What it is not: a place for tests. Each module stands alone; `common` is what they query.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;
mod corruption;
mod differential;
mod evidence;
mod hostile;
mod login;
mod openlineage;
mod plans;
mod slt;
mod unverified;
mod wire;

/// A file that is not named above would be no test: Cargo looks for none beside this one.
#[test]
fn every_file_is_a_module() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let named = include_str!("main.rs");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            assert!(
                named.contains(&format!("\nmod {name};\n")),
                "{} is not run: main.rs does not name it",
                path.display()
            );
        }
    }
}

//! Files of secret settings: one `name=value` a line, mode 0600, bounded.
//!
//! A value is all that follows the first `=`, without spaces around it. Lines that are empty or begin with `#` are passed
//! over. Passwords never stand in `cairn.toml`, which everyone may read, nor on a command line.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// No file of settings is larger.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Reads a file of settings, which nobody but its owner may be able to read. `key` is the one that names it.
pub(super) fn read(key: &str, file: &Path) -> Result<BTreeMap<String, String>> {
    let shown = file.display();
    let metadata = fs::metadata(file).with_context(|| format!("{key} {shown} cannot be read"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("{key} {shown} has mode {mode:04o}: others can read it; expected 0600, do `chmod 600 {shown}`");
    }
    if metadata.len() > FILE_BYTES_MAX {
        bail!("{key} {shown} has {} bytes: expected {FILE_BYTES_MAX} at most", metadata.len());
    }
    let text = fs::read_to_string(file).with_context(|| format!("{key} {shown} cannot be read"))?;
    let mut settings = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself is not shown: it may hold a secret.
        let Some((name, value)) = line.split_once('=') else {
            bail!("{key} {shown}, line {number}: expected name=value");
        };
        if settings.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
            bail!("{key} {shown}, line {number}: {} stands there twice", name.trim());
        }
    }
    Ok(settings)
}

//! JSON files that have exactly one form, so that no bit of them can change unnoticed: receipts and state proofs.
//!
//! The form: UTF-8, fields in the order of the type, two spaces of indentation, one field or array item a line, an empty
//! array as `[]`, LF line ends, one LF at the end. It is what `serde_json` writes pretty; reading compares with it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The file's bytes.
pub(crate) fn write<T: Serialize>(content: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = serde_json::to_vec_pretty(content)?;
    out.push(b'\n');
    Ok(out)
}

/// Reads a file of at most `most` bytes that is what [`write`] makes of its content; else says why it is not.
pub(crate) fn read<T: Serialize + DeserializeOwned>(bytes: &[u8], most: usize, what: &str) -> Result<T, String> {
    if bytes.len() > most {
        return Err(format!("expected at most {most} bytes, found {}", bytes.len()));
    }
    let content: T = serde_json::from_slice(bytes).map_err(|error| format!("not a {what}: {error}"))?;
    let again = write(&content).map_err(|error| error.to_string())?;
    if again != bytes {
        let at = again.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        return Err(format!("not the one form of its content: differs at byte {at}"));
    }
    Ok(content)
}

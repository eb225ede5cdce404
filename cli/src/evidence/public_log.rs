//! The log's public formats on the command line: `.tlog-proof` files out of receipts, checking them, and the outside
//! witnesses that a checkpoint must show.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use cairn_proof::checkpoint::witnessed;
use cairn_proof::genesis::Genesis;
use cairn_proof::note::{Algorithm, Note, VerifierKey};
use cairn_proof::receipt::Receipt;
use cairn_proof::tlog_proof::{Extra, TlogProof, VerifiedAnchor};

/// Longest file with a witness' key.
const KEY_FILE_BYTES_MAX: u64 = 4_096;

/// Writes that the receipt's anchor stands in the log, as C2SP `tlog-proof` has it.
///
/// # Errors
/// When the receipt came without a checkpoint, or the file cannot be written.
pub(super) fn write(file: &Path, receipt: &Receipt) -> Result<()> {
    let Some(checkpoint) = &receipt.checkpoint else {
        bail!("no checkpoint covers the record's anchor yet: validators sign one some seconds after a block; try again")
    };
    let extra = Extra { anchor: receipt.anchor.0.clone(), committees: receipt.committees.clone() };
    let (index, path) = (receipt.log.index, receipt.log.path.clone());
    let proof = TlogProof { extra: Some(extra.encode()), index, path, checkpoint: Note::parse(checkpoint)? };
    fs::write(file, proof.to_text()).with_context(|| format!("writing {}", file.display()))
}

/// Checks a `.tlog-proof` file: one line for each thing that held, and the text of its checkpoint.
pub(super) fn verify(bytes: &[u8], genesis: &Genesis) -> Result<(Vec<String>, String), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("step form: not text: {error}"))?;
    let proof = TlogProof::parse(text).map_err(|error| error.to_string())?;
    let verified = proof.verify(genesis).map_err(|error| error.to_string())?;
    Ok((describe(&verified), proof.checkpoint.to_text()))
}

fn describe(verified: &VerifiedAnchor) -> Vec<String> {
    let VerifiedAnchor { anchor, index, checkpoint, cosigned, committee, .. } = verified;
    vec![
        format!("ok  log          anchor {index} leads to the root {}", checkpoint.root),
        format!("ok  checkpoint   {} of {} validators signed it", cosigned.validators.len(), committee.len()),
        format!(
            "VERIFIED: the anchor of {} partition {}, offsets {} to {}, stands in the log {} of size {}",
            anchor.stream, anchor.partition, anchor.first, anchor.last, checkpoint.origin, checkpoint.size
        ),
    ]
}

/// Outside witnesses whose keys are known, and whether each must have cosigned.
pub(super) struct Witnesses(Vec<(VerifierKey, bool)>);

impl Witnesses {
    /// Takes keys, or files that hold one, and the names or keys of those that are required.
    ///
    /// # Errors
    /// When a key is none of a witness (algorithm 0x04), or a required name has no key.
    pub(super) fn read(known: &[String], required: &[String]) -> Result<Self> {
        let mut all = vec![];
        for given in known {
            all.push((key(given).with_context(|| format!("--witness {given:?}"))?, false));
        }
        for given in required {
            if let Some(of_name) = all.iter_mut().find(|(key, _)| key.name() == given) {
                of_name.1 = true;
            } else if given.contains('+') {
                all.push((key(given).with_context(|| format!("--require-witness {given:?}"))?, true));
            } else {
                let names: Vec<_> = all.iter().map(|(key, _)| key.name()).collect();
                let found = if names.is_empty() { "none was given".to_owned() } else { names.join(", ") };
                bail!(
                    "--require-witness {given:?}: its key is not known: name it with --witness KEY|FILE; keys given: {found}"
                );
            }
        }
        Ok(Self(all))
    }

    /// Holds a checkpoint, whose validators' signatures were checked before, to the witnesses. Their lines go before the
    /// last of `lines`, which says what was proven.
    pub(super) fn check(&self, mut lines: Vec<String>, checkpoint: Option<&str>) -> Result<Vec<String>, String> {
        let proven = lines.pop();
        for (key, required) in &self.0 {
            let name = key.name();
            let cosigned = match checkpoint {
                Some(text) => witnessed(key, text).map_err(|error| format!("step witness: {error}"))?,
                None if *required => {
                    return Err(format!("step witness: expected a checkpoint cosigned by {name}, the file has none"));
                }
                None => None,
            };
            match cosigned {
                Some(seconds) => {
                    let when = crate::reference::time(seconds.saturating_mul(1_000));
                    lines.push(format!("ok  witness      {name} cosigned the checkpoint at {when}"));
                }
                None if *required => return Err(format!("step witness: the checkpoint is not cosigned by {name}")),
                None => {}
            }
        }
        lines.extend(proven);
        Ok(lines)
    }
}

fn key(given: &str) -> Result<VerifierKey> {
    let text = match fs::metadata(given) {
        Ok(file) if file.is_file() && file.len() <= KEY_FILE_BYTES_MAX => fs::read_to_string(given)?,
        Ok(_) => bail!("expected a file of at most {KEY_FILE_BYTES_MAX} bytes"),
        Err(_) => given.to_owned(),
    };
    let key = VerifierKey::parse(text.trim())?;
    if key.algorithm() != Algorithm::CosignatureV1 {
        bail!("expected a witness' key, of algorithm 0x04 (cosignature/v1), found {:?}", key.algorithm());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use cairn_proof::checkpoint::{Checkpoint, origin};
    use cairn_proof::identity::SigningKey;
    use cairn_proof::note::SignatureLine;
    use cairn_proof::{TreeSize, tree};

    use super::*;

    fn witness(seed: u8, name: &str) -> (SigningKey, VerifierKey) {
        let key = SigningKey::from_seed(&[seed; 32]);
        let verifier = VerifierKey::new(name, Algorithm::CosignatureV1, key.public()).unwrap();
        (key, verifier)
    }

    fn checkpoint(lines: impl FnOnce(&str) -> Vec<SignatureLine>) -> String {
        let root = tree::leaf_hash(b"entry");
        let text = Checkpoint { origin: origin("city"), size: TreeSize(1), root, extensions: vec![] }.text();
        Note::new(&text, lines(&text)).unwrap().to_text()
    }

    fn proven() -> Vec<String> {
        vec!["ok".to_owned(), "VERIFIED".to_owned()]
    }

    #[test]
    fn a_required_witness_must_have_cosigned() {
        let ((first, one), (_, two)) = (witness(1, "w.example/one"), witness(2, "w.example/two"));
        let note = checkpoint(|text| vec![one.sign(&first, text, 7).unwrap()]);
        let known = [one.to_string(), two.to_string()];
        let check = |required: &str, note: Option<&str>| {
            Witnesses::read(&known, &[required.to_owned()]).unwrap().check(proven(), note)
        };
        let lines = check("w.example/one", Some(&note)).unwrap();
        assert!(lines[1].starts_with("ok  witness      w.example/one"), "{lines:?}");
        assert_eq!(lines[2], "VERIFIED");
        assert!(check("w.example/two", Some(&note)).unwrap_err().contains("not cosigned by w.example/two"));
        assert!(check("w.example/one", None).unwrap_err().contains("the file has none"));
        assert_eq!(Witnesses::read(&known, &[]).unwrap().check(proven(), None).unwrap(), proven());
        let by_key = Witnesses::read(&[], &[one.to_string()]).unwrap();
        assert_eq!(by_key.check(proven(), Some(&note)).unwrap().len(), 3);
    }

    #[test]
    fn a_forged_line_of_a_known_witness_is_refused_though_nobody_asked_for_it() {
        let ((first, one), (_, two)) = (witness(1, "w.example/one"), witness(2, "w.example/two"));
        let note = checkpoint(|text| {
            let line = one.sign(&first, text, 7).unwrap();
            vec![SignatureLine::new(&two, line.signature().to_vec())]
        });
        let known = Witnesses::read(&[two.to_string()], &[]).unwrap();
        assert!(known.check(proven(), Some(&note)).unwrap_err().starts_with("step witness"));
    }

    #[test]
    fn keys_come_from_the_line_or_a_file_and_names_need_one() {
        let (_, one) = witness(1, "w.example/one");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("witness.vkey");
        fs::write(&file, format!("{one}\n")).unwrap();
        let read = Witnesses::read(&[file.display().to_string()], &["w.example/one".to_owned()]).unwrap();
        assert_eq!(read.0, [(one, true)]);
        let wrong = |known: &str, required: &str| {
            let known: Vec<String> = (!known.is_empty()).then(|| known.to_owned()).into_iter().collect();
            let required: Vec<String> = (!required.is_empty()).then(|| required.to_owned()).into_iter().collect();
            format!("{:#}", Witnesses::read(&known, &required).err().unwrap())
        };
        let log = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        assert!(wrong(log, "").contains("0x04"), "a log's key is no witness'");
        assert!(wrong("nonsense", "").contains("--witness"));
        assert!(wrong("", "w.example/one").contains("none was given"));
    }
}

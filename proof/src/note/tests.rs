//! The specification's own note verifies; other forms, other keys and changed bits are refused.

use super::*;
use proptest::prelude::*;

/// C2SP `signed-note`, section "Example".
const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const NOTE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
/// Documentation of golang.org/x/mod/sumdb/note.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETERS_NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn verifier(name: &str, algorithm: Algorithm, seed: u8) -> VerifierKey {
    VerifierKey::new(name, algorithm, key(seed).public()).unwrap()
}

#[test]
fn published_notes_verify() {
    for (vkey, text) in [(VKEY, NOTE), (PETER, PETERS_NOTE)] {
        let key = VerifierKey::parse(vkey).unwrap();
        assert_eq!(key.to_string(), vkey);
        let note = Note::parse(text).unwrap();
        assert_eq!(note.to_text(), text);
        assert_eq!(note.verify(&[key]).unwrap(), [Signed { line: 0, key: 0, seconds: None }]);
    }
    let stranger = VerifierKey::parse(PETER).unwrap();
    assert_eq!(Note::parse(NOTE).unwrap().verify(&[stranger]), Err(NoteError::Unsigned { lines: 1 }));
}

#[test]
fn any_flipped_bit_of_a_published_note_is_refused() {
    let key = VerifierKey::parse(VKEY).unwrap();
    for bit in 0..NOTE.len() * 8 {
        let mut bytes = NOTE.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let accepted = Note::parse(&text).and_then(|note| note.verify(std::slice::from_ref(&key)));
        assert!(accepted.is_err(), "bit {bit}: {text:?}");
    }
}

#[test]
fn a_cosignature_binds_text_and_time() {
    let cosigner = verifier("witness.example/w1", Algorithm::CosignatureV1, 5);
    let line = cosigner.sign(&key(5), "log\n1\nroot\n", 1_679_315_147).unwrap();
    let note = Note::new("log\n1\nroot\n", vec![line.clone()]).unwrap();
    let signed = note.verify(std::slice::from_ref(&cosigner)).unwrap();
    assert_eq!(signed, [Signed { line: 0, key: 0, seconds: Some(1_679_315_147) }]);
    // What is signed, as the specification writes it.
    let message = "cosignature/v1\ntime 1679315147\nlog\n1\nroot\n";
    let signature: [u8; 64] = line.signature()[8..].try_into().unwrap();
    assert!(key(5).public().verify(message.as_bytes(), &signature));
    // The same key as another algorithm is another key.
    let plain = verifier("witness.example/w1", Algorithm::Ed25519, 5);
    assert_ne!(plain.id(), cosigner.id());
    assert!(matches!(note.verify(&[plain]), Err(NoteError::Unsigned { .. })));
    for at in 0..line.signature.len() {
        let mut changed = line.clone();
        changed.signature[at] ^= 1;
        let note = Note::new(note.text(), vec![changed]).unwrap();
        assert!(matches!(note.verify(std::slice::from_ref(&cosigner)), Err(NoteError::Signature { .. })), "byte {at}");
    }
    assert!(cosigner.sign(&key(5), "x\n", COSIGNATURE_TIME_MAX + 1).is_err());
    assert!(cosigner.sign(&key(6), "x\n", 1).is_err(), "another's secret half");
}

#[test]
fn lines_of_others_are_left_out_and_bad_lines_of_known_keys_are_not() {
    let (mine, other) = (verifier("a", Algorithm::Ed25519, 1), verifier("b", Algorithm::Ed25519, 2));
    let text = "x\n";
    let lines = vec![other.sign(&key(2), text, 0).unwrap(), mine.sign(&key(1), text, 0).unwrap()];
    let note = Note::new(text, lines.clone()).unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&mine)).unwrap(), [Signed { line: 1, key: 0, seconds: None }]);
    let both = note.verify(&[mine.clone(), other.clone()]).unwrap();
    assert_eq!(both.iter().map(|signed| (signed.line, signed.key)).collect::<Vec<_>>(), [(0, 1), (1, 0)]);
    // Over another text, one good line does not save the bad one.
    let wrong = verifier("b", Algorithm::Ed25519, 2).sign(&key(2), "y\n", 0).unwrap();
    let note = Note::new(text, vec![lines[1].clone(), wrong]).unwrap();
    assert!(matches!(note.verify(&[mine, other]), Err(NoteError::Signature { name, .. }) if name == "b"));
}

/// Go's implementation takes the text up to the last empty line, so texts may hold empty lines.
#[test]
fn texts_may_hold_empty_lines() {
    let mine = verifier("a", Algorithm::Ed25519, 1);
    for text in ["\n", "\n\n", "x\n\ny\n", "x\n\n\n"] {
        let note = Note::new(text, vec![mine.sign(&key(1), text, 0).unwrap()]).unwrap();
        let again = Note::parse(&note.to_text()).unwrap();
        assert_eq!(again.text(), text);
        again.verify(std::slice::from_ref(&mine)).unwrap();
    }
}

#[test]
fn hostile_notes_are_refused() {
    let line = "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let many = |count: usize| format!("x\n\n{}", line.repeat(count));
    Note::parse(&many(SIGNATURES_MAX)).unwrap();
    for (why, text) in [
        ("nothing", String::new()),
        ("no empty line", format!("x\n{line}")),
        ("no text", format!("\n{line}")),
        ("no signature", "x\n\n".into()),
        ("an empty signature line", format!("x\n\n{line}\n")),
        ("no newline at the end", format!("x\n\n{}", line.trim_end())),
        ("carriage returns", format!("x\r\n\n{line}")),
        ("a tab in the text", format!("x\ty\n\n{line}")),
        ("a hyphen for the dash", format!("x\n\n{}", line.replace('—', "-"))),
        ("two spaces", format!("x\n\n{}", line.replace("foo ", "foo  "))),
        ("a plus in the name", format!("x\n\n{}", line.replace("foo", "f+o"))),
        ("a space of another kind in the name", format!("x\n\n{}", line.replace("foo", "f\u{2003}o"))),
        ("no name", format!("x\n\n{}", line.replace("example.com/foo", ""))),
        ("a long name", format!("x\n\n{}", line.replace("foo", &"f".repeat(300)))),
        ("base64 without padding", format!("x\n\n{}", line.replace('=', ""))),
        ("base64 with unused bits", format!("x\n\n{}", line.replace("aQM=", "aQN="))),
        ("a key id alone", "x\n\n— a AAAAAA==\n".into()),
        ("too many lines", many(SIGNATURES_MAX + 1)),
        ("too many bytes", format!("{}\n\n{line}", "x".repeat(NOTE_BYTES_MAX))),
    ] {
        assert!(matches!(Note::parse(&text), Err(NoteError::Form { .. })), "{why}");
    }
}

#[test]
fn bad_verifier_keys_are_refused() {
    let weak = {
        let mut bytes = [0; 33];
        (bytes[0], bytes[1]) = (1, 1);
        let hash = sha256(&[b"a\n", &bytes]);
        format!("a+{}+{}", hex::encode(&hash.0[..4]), STANDARD.encode(bytes))
    };
    for (why, text) in [
        ("nothing", String::new()),
        ("no id", "example.com/foo".into()),
        ("another id", VKEY.replace("530d903a", "530d903b")),
        ("upper case", VKEY.replace("530d903a", "530D903A")),
        ("another name", VKEY.replace("foo", "fop")),
        ("a space in the name", VKEY.replace("foo", "f o")),
        ("unpadded base64 of another length", VKEY.replace("U2k", "U2")),
        ("an unknown algorithm", "PeterNeumann+c74f20a3+Bhpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".into()),
        ("a key of small order", weak),
    ] {
        assert!(matches!(VerifierKey::parse(&text), Err(NoteError::Key { .. })), "{why}: {text}");
    }
}

proptest! {
    #[test]
    fn notes_round_trip(text in "[^\\x00-\\x1f]{0,40}(\n[^\\x00-\\x1f]{0,40}){0,4}", names in prop::collection::vec("[!-*,-~]{1,20}", 1..5)) {
        let text = format!("{text}\n");
        let lines = names.iter().enumerate().map(|(at, name)| {
            let algorithm = if at % 2 == 0 { Algorithm::Ed25519 } else { Algorithm::CosignatureV1 };
            verifier(name, algorithm, 1).sign(&key(1), &text, at as u64).unwrap()
        });
        let note = Note::new(&text, lines.collect()).unwrap();
        prop_assert_eq!(&Note::parse(&note.to_text()).unwrap(), &note);
    }

    #[test]
    fn verifier_keys_round_trip(name in "[!-*,-~]{1,40}", seed: u8, cosigner: bool) {
        let algorithm = if cosigner { Algorithm::CosignatureV1 } else { Algorithm::Ed25519 };
        let key = verifier(&name, algorithm, seed);
        prop_assert_eq!(VerifierKey::parse(&key.to_string()).unwrap(), key);
    }

    #[test]
    fn any_text_is_refused_or_is_the_one_form(text in "(.|\n|— |[A-Za-z0-9+/=]{8}){0,60}") {
        if let Ok(note) = Note::parse(&text) {
            prop_assert_eq!(note.to_text(), text);
        }
    }
}

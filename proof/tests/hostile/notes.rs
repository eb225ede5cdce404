//! Checkpoints: lines of every kind that a signed note may hold, and those that it may not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cairn_proof::checkpoint::validator_keys;
use cairn_proof::header::Header;
use cairn_proof::identity::SigningKey;
use cairn_proof::note::{Algorithm, VerifierKey};

use super::signatures::{TWISTS, twisted};
use super::{Hostile, bad, good, key, plain};

const ORIGIN: &str = "cairn/hostile";
const SECONDS: u64 = 1_700_000_000;

fn text() -> String {
    let header = Header::decode(&plain().header.0).unwrap();
    format!("{ORIGIN}\n3\n{}\n", STANDARD.encode(header.log_root.0))
}

fn cosigned(seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{}", text())
}

/// A line by hand.
fn line(name: &str, id: &[u8], signature: &[u8]) -> String {
    format!("— {name} {}\n", STANDARD.encode([id, signature].concat()))
}

fn id(key: &VerifierKey) -> [u8; 4] {
    key.id().0
}

/// The line of a validator as the log.
fn as_log(signer: &SigningKey) -> String {
    let [log, _] = validator_keys(ORIGIN, signer.public()).unwrap();
    line(log.name(), &id(&log), &signer.sign(text().as_bytes()))
}

/// The line of a validator as a cosigner.
fn as_cosigner(signer: &SigningKey, seconds: u64) -> String {
    let [_, cosigner] = validator_keys(ORIGIN, signer.public()).unwrap();
    let signature = signer.sign(cosigned(seconds).as_bytes());
    line(cosigner.name(), &id(&cosigner), &[&seconds.to_be_bytes()[..], &signature].concat())
}

fn stranger(name: &str) -> String {
    line(name, &[1, 2, 3, 4], &[5; 64])
}

fn note(text: &str, lines: &[String]) -> String {
    format!("{text}\n{}", lines.concat())
}

fn right() -> Vec<(String, String)> {
    let (text, signer) = (text(), key(1));
    let ours = as_log(&signer);
    let with = |others: &[String]| note(&text, &[std::slice::from_ref(&ours), others].concat());
    let everybody: Vec<_> = (1..=4).flat_map(|seed| [as_log(&key(seed)), as_cosigner(&key(seed), SECONDS)]).collect();
    let [log, cosigner] = validator_keys(ORIGIN, signer.public()).unwrap();
    let mut cases = vec![
        ("one line as the log", with(&[])),
        ("one line as a cosigner", note(&text, &[as_cosigner(&signer, SECONDS)])),
        ("a cosigner in 1970", note(&text, &[as_cosigner(&signer, 0)])),
        ("a cosigner at the end of time", note(&text, &[as_cosigner(&signer, i64::MAX as u64)])),
        ("everybody in both ways", note(&text, &everybody)),
        ("a line twice", with(std::slice::from_ref(&ours))),
        ("a hundred lines", with(&vec![stranger("witness"); 99])),
        ("a stranger in front", note(&text, &[stranger("witness"), ours.clone()])),
        ("a stranger of the log's name", with(&[stranger(ORIGIN)])),
        ("a stranger of a validator's id", with(&[line("witness", &id(&log), &[5; 64])])),
        ("a stranger with a cosigner's id and the log's name", with(&[line(ORIGIN, &id(&cosigner), &[5; 72])])),
        ("a stranger's short signature", with(&[line("witness", &[1, 2, 3, 4], &[5])])),
        ("a stranger's name of 256 bytes", with(&[stranger(&"w".repeat(256))])),
    ]
    .into_iter()
    .map(|(name, note)| (name.to_owned(), note))
    .collect::<Vec<_>>();
    // What some languages take for a space or for nothing.
    for other in ['\u{feff}', '\u{200b}', '\u{180e}', '\u{2060}', '\u{ad}', '"', '\\', '<', 'ß', '🚦', '—'] {
        cases.push((
            format!("a stranger's name with U+{:04X}", u32::from(other)),
            with(&[stranger(&format!("w{other}"))]),
        ));
    }
    cases.push(("of 262,144 bytes".into(), long(256 * 1024)));
    cases
}

/// A note of this length, most of it a stranger's signature.
fn long(length: usize) -> String {
    let text = text();
    let ours = as_log(&key(1));
    let base = note(&text, &[ours.clone(), stranger("w")]).len() - STANDARD.encode([0; 68]).len();
    // Base64 comes in fours: the name takes what is left.
    let (digits, rest) = ((length - base) / 4 * 4, (length - base) % 4);
    let signature = vec![5; digits / 4 * 3 - 4];
    let whole = note(&text, &[ours, line(&"w".repeat(1 + rest), &[1, 2, 3, 4], &signature)]);
    assert_eq!(whole.len(), length);
    whole
}

fn wrong() -> Vec<(String, String)> {
    let (text, signer) = (text(), key(1));
    let ours = as_log(&signer);
    let with = |others: &[String]| note(&text, &[std::slice::from_ref(&ours), others].concat());
    let right = with(&[]);
    let [log, cosigner] = validator_keys(ORIGIN, signer.public()).unwrap();
    let both = [signer.sign(text.as_bytes()).to_vec(), signer.sign(cosigned(SECONDS).as_bytes()).to_vec()];
    let timed = |seconds: u64, signature: &[u8]| [&seconds.to_be_bytes()[..], signature].concat();
    let beyond = signer.sign(cosigned(1 << 63).as_bytes());
    let no_word = |from: &str, to: &str| right.replacen(from, to, 1);
    let root = text.lines().nth(2).unwrap().to_owned();
    let mut cases = vec![
        ("a hundred and one lines", with(&vec![stranger("witness"); 100])),
        ("262,145 bytes", long(256 * 1024 + 1)),
        ("a time beyond 2^63", note(&text, &[line(cosigner.name(), &id(&cosigner), &timed(1 << 63, &beyond))])),
        ("another time", note(&text, &[line(cosigner.name(), &id(&cosigner), &timed(SECONDS + 1, &both[1]))])),
        ("a cosignature without its time", note(&text, &[line(cosigner.name(), &id(&cosigner), &both[1])])),
        (
            "a log's signature as a cosignature",
            note(&text, &[line(cosigner.name(), &id(&cosigner), &timed(SECONDS, &both[0]))]),
        ),
        ("a cosignature as the log's", note(&text, &[line(log.name(), &id(&log), &timed(SECONDS, &both[1]))])),
        ("a cosignature without its time as the log's", note(&text, &[line(log.name(), &id(&log), &both[1])])),
        ("a right line and a wrong one", with(&[line(log.name(), &id(&log), &both[1])])),
        ("a byte more in a signature", note(&text, &[line(log.name(), &id(&log), &[&both[0][..], &[0]].concat())])),
        ("only a key id", with(&[line("witness", &[1, 2, 3, 4], &[])])),
        ("half a key id", with(&[line("witness", &[1, 2], &[])])),
        ("nothing after the name", with(&["— witness \n".into()])),
        ("no space after the name", with(&["— witness\n".into()])),
        ("no name", with(&["— AQIDBAU=\n".into()])),
        ("two spaces", with(&["—  AQIDBAUF\n".into()])),
        ("an empty name", with(&["—  AQIDBAU=\n".into()])),
        ("a fourth word", with(&["— witness AQIDBAUF AQIDBAUF\n".into()])),
        ("a space at the end", with(&["— witness AQIDBAUF \n".into()])),
        ("trailing bits", with(&["— witness AQIDBAV=\n".into()])),
        ("no padding", with(&["— witness AQIDBAU\n".into()])),
        ("base64 of URLs", with(&["— witness AQIDB-_F\n".into()])),
        ("a hyphen for the dash", no_word("— ", "- ")),
        ("a shorter dash", no_word("— ", "– ")),
        ("no space after the dash", no_word("— ", "—")),
        ("a tab after the dash", no_word("— ", "—\t")),
        ("an empty line between lines", with(&["\n".into(), stranger("witness")])),
        ("no lines", format!("{text}\n")),
        ("an empty line alone", "\n\n".into()),
        ("another letter for the last newline", format!("{}x", right.trim_end())),
        ("a carriage return", no_word("\n\n", "\r\n\r\n")),
        ("a zero byte", no_word("\n\n", "\0\n\n")),
        ("an escape", no_word("hostile", "\u{1b}hostile")),
        ("an empty line in the text", no_word("3\n", "3\n\n")),
        ("an extension", note(&format!("{text}extension\n"), std::slice::from_ref(&ours))),
        ("a line less", note(&text.replacen("3\n", "", 1), std::slice::from_ref(&ours))),
        ("a size with a sign", no_word("\n3\n", "\n+3\n")),
        ("a size with a leading zero", no_word("\n3\n", "\n03\n")),
        ("a size with a space", no_word("\n3\n", "\n3 \n")),
        ("a size in other digits", no_word("\n3\n", "\n٣\n")),
        ("the root without padding", no_word(&root, root.trim_end_matches('='))),
        ("the root in hexadecimal", no_word(&root, &"00".repeat(32))),
        ("another origin", no_word(ORIGIN, "cairn/hostile2")),
        ("a mark of byte order", format!("\u{feff}{right}")),
        ("only strangers", note(&text, &[stranger("witness"), stranger(ORIGIN)])),
        ("a key that is no validator's", note(&text, &[as_log(&key(5))])),
        ("a stranger's name of 257 bytes", with(&[stranger(&"w".repeat(257))])),
    ]
    .into_iter()
    .map(|(name, note)| (name.to_owned(), note))
    .collect::<Vec<_>>();
    let spaces = "\u{9}\u{b}\u{c}\u{1f}+\u{7f}\u{80}\u{85}\u{9f}\u{a0}\u{1680}\u{2000}\u{2005}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";
    for other in spaces.chars() {
        cases.push((format!("a name with U+{:04X}", u32::from(other)), with(&[stranger(&format!("w{other}w"))])));
    }
    for (name, twist) in TWISTS {
        let signature = twisted(1, text.as_bytes(), twist);
        cases.push((format!("a signature with {name}"), note(&text, &[line(log.name(), &id(&log), &signature)])));
        let signature = timed(SECONDS, &twisted(1, cosigned(SECONDS).as_bytes(), twist));
        cases.push((
            format!("a cosignature with {name}"),
            note(&text, &[line(cosigner.name(), &id(&cosigner), &signature)]),
        ));
    }
    assert_eq!((log.algorithm(), cosigner.algorithm()), (Algorithm::Ed25519, Algorithm::CosignatureV1));
    cases
}

pub(super) fn all() -> Vec<Hostile> {
    let of = |note: String| {
        let mut receipt = plain();
        receipt.checkpoint = Some(note);
        receipt
    };
    let right = right().into_iter().map(|(name, note)| good(format!("checkpoint: {name}"), &of(note)));
    let wrong = wrong().into_iter().map(|(name, note)| bad("checkpoint", format!("checkpoint: {name}"), &of(note)));
    right.chain(wrong).collect()
}

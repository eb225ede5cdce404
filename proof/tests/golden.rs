//! Every encoded form against its golden file, and each against truncation and appended bytes.
//!
//! The files in `golden/` are hexadecimal text, 32 bytes a line. A changed file is a change of format: it needs a new
//! mark or content type and a sentence in `docs/formats.md`. `CAIRN_WRITE_GOLDEN=1` writes them anew. `receipt.json`
//! and `genesis.json` are a second, older chain, held by the tests of the receipt module.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures, clippy::type_complexity)]

mod bodies;
mod vectors;

use std::path::{Path, PathBuf};

use cairn_proof::Digest;
use cairn_proof::answer::Answer;
use cairn_proof::answer::file::{AnswerEvidence, TrustedBy};
use cairn_proof::block::SignedBlock;
use cairn_proof::certificate::{CertificateError, Finalization};
use cairn_proof::checkpoint::verify_for;
use cairn_proof::digest::sha256;
use cairn_proof::evidence::EquivocationKind;
use cairn_proof::genesis::Genesis;
use cairn_proof::header::Header;
use cairn_proof::identity::PublicKey;
use cairn_proof::receipt::{Base64Bytes, Receipt};
use cairn_proof::record::RecordHasher;
use cairn_proof::state_proof::StateProof;
use cairn_proof::statement::{LoggedAnchor, SignedStatement, log_entries};
use cairn_proof::tlog_proof::TlogProof;
use cairn_proof::tree;
use cairn_proof::{Height, LeafIndex, TreeSize};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn as_hex(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| hex::encode(line) + "\n").collect()
}

/// The bytes of a golden form.
fn golden(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path(&format!("{name}.hex"))).unwrap();
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// Every file that this test keeps, and what belongs in it.
fn files() -> Vec<(String, String)> {
    let mut files: Vec<_> =
        vectors::forms().into_iter().map(|(name, bytes)| (format!("{name}.hex"), as_hex(&bytes))).collect();
    files.push(("digests.txt".into(), vectors::digests()));
    files.push(("state.txt".into(), vectors::state::text()));
    files.push(("signed-records.json".into(), vectors::signed_record::vectors()));
    files.push(("checkpoint.txt".into(), vectors::checkpoint().to_text()));
    files.push(("login.txt".into(), vectors::login()));
    files.push(("answer.json".into(), String::from_utf8(vectors::answer_evidence().to_json().unwrap()).unwrap()));
    files.push(("anchor.tlog-proof".into(), vectors::tlog_proof().to_text()));
    for (name, proof) in vectors::state_proofs() {
        files.push((name.into(), String::from_utf8(proof.to_json().unwrap()).unwrap()));
    }
    files.push(("city.json".into(), serde_json::to_string_pretty(&vectors::genesis()).unwrap() + "\n"));
    files
}

type Accepts = fn(&[u8]) -> bool;

/// What decodes each form that is decoded; the others are hashed or signed alone.
const DECODED: [(&str, Accepts); 26] = [
    ("record", bodies::record),
    ("record-bare", bodies::record),
    ("register-identity", bodies::statement),
    ("register-stream", bodies::statement),
    ("register-stream-signed", bodies::statement),
    ("sequences", bodies::sequences),
    ("writer-schemas", bodies::writer_schemas),
    ("anchor", bodies::statement),
    ("rotate-key", bodies::statement),
    ("revoke-identity", bodies::statement),
    ("set-expiry", bodies::statement),
    ("set-role", bodies::statement),
    ("transfer-stream", bodies::statement),
    ("update-stream", bodies::statement),
    ("vote-add", bodies::statement),
    ("vote-parameters", bodies::statement),
    ("attest", bodies::statement),
    ("evidence", bodies::statement),
    ("anchors", bodies::statement),
    ("anchors-entry", bodies::log_entry),
    ("header-0", bodies::header),
    ("header", bodies::header),
    ("certificate", bodies::certificate),
    ("block", bodies::block),
    ("blocks", bodies::block),
    ("answer", bodies::answer),
];

#[test]
fn the_golden_files_are_what_the_code_writes() {
    for (name, made) in files() {
        let path = path(&name);
        if std::env::var_os("CAIRN_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(kept, made, "{name}: a changed golden file is a format change: say so in docs/formats.md");
    }
}

#[test]
fn every_form_is_accepted_and_neither_its_beginnings_nor_its_extensions_are() {
    for (name, accepts) in DECODED {
        let whole = golden(name);
        assert!(accepts(&whole), "{name}");
        for length in 0..whole.len() {
            assert!(!accepts(&whole[..length]), "{name}: the first {length} bytes");
        }
        for byte in 0..=u8::MAX {
            assert!(!accepts(&[&whole[..], &[byte]].concat()), "{name}: with 0x{byte:02x} appended");
        }
        assert!(!accepts(&[&whole[..], &whole[..]].concat()), "{name}: twice");
    }
}

#[test]
fn text_forms_are_accepted_and_neither_their_beginnings_nor_their_extensions_are() {
    let genesis_end = |byte: u8| byte.is_ascii_whitespace() && byte != 0x0c;
    let nothing = |_| false;
    let forms: [(&str, Accepts, fn(u8) -> bool); 12] = [
        ("city.json", bodies::genesis, genesis_end),
        ("receipt.json", bodies::receipt, nothing),
        ("receipts/one.json", bodies::receipt, nothing),
        ("receipts/changes.json", bodies::receipt, nothing),
        ("receipts/checkpoint.json", bodies::receipt, nothing),
        ("receipts/several.json", bodies::receipt, nothing),
        ("state-proof-present.json", bodies::state_proof, nothing),
        ("state-proof-absent.json", bodies::state_proof, nothing),
        ("checkpoint.txt", bodies::note, nothing),
        ("anchor.tlog-proof", bodies::tlog_proof, nothing),
        ("login.txt", bodies::login, nothing),
        ("answer.json", bodies::answer_evidence, nothing),
    ];
    for (name, accepts, may_follow) in forms {
        let whole = std::fs::read(path(name)).unwrap();
        assert!(accepts(&whole), "{name}");
        let shortest = whole.trim_ascii_end().len();
        for length in 0..whole.len() {
            let allowed = length >= shortest && may_follow(b'\n');
            // A note is one with fewer signatures, too: whoever counts them says how many it takes.
            let whole_line =
                whole[..length].ends_with(b"\n") && whole[..length].windows(6).any(|w| w == "\n\n— ".as_bytes());
            let allowed = allowed || (!name.ends_with(".json") && whole_line && length < whole.len());
            assert_eq!(accepts(&whole[..length]), allowed, "{name}: the first {length} bytes");
        }
        for byte in 0..=u8::MAX {
            let extended = [&whole[..], &[byte]].concat();
            assert_eq!(accepts(&extended), may_follow(byte), "{name}: with 0x{byte:02x} appended");
        }
    }
}

/// White space in a genesis file does not matter: what is hashed is the CBOR.
#[test]
fn the_chain_tag_is_over_the_canonical_genesis() {
    let genesis = Genesis::from_json(&std::fs::read(path("city.json")).unwrap()).unwrap();
    assert_eq!(genesis.tag().0, sha256(&[&golden("genesis")]));
    assert_eq!(genesis.committee().hash(), sha256(&[&golden("validators")]));
    assert_eq!(genesis.header().encode(), golden("header-0"));
}

#[test]
fn statements_are_signed_over_the_documented_bytes() {
    let genesis = vectors::genesis();
    for (name, seed) in
        [("register-identity", vectors::OWNER), ("register-stream", vectors::OWNER), ("anchor", vectors::INGEST)]
    {
        let signed = SignedStatement::decode(&golden(name)).unwrap();
        signed.verify(&vectors::key(seed).public(), &genesis.tag()).unwrap();
    }
    for (name, seed, _) in vectors::other_statements() {
        let signed = SignedStatement::decode(&golden(name)).unwrap();
        signed.verify(&vectors::key(seed).public(), &genesis.tag()).unwrap();
    }
    let envelope = golden("anchor");
    let (_, signature) = envelope.split_last_chunk::<64>().unwrap();
    assert!(vectors::key(vectors::INGEST).public().verify(&golden("anchor-sig-structure"), signature));
    let device = vectors::register_identity();
    assert!(device.public_key.verify(&golden("possession"), &device.possession));
}

/// Both entries of the log that come out of the statement hold, and their ids are what the next anchors name.
#[test]
fn the_entries_of_several_anchors_hold() {
    let (genesis, statement) = (vectors::genesis(), golden("anchors"));
    let entries = log_entries(&statement);
    assert_eq!(entries[1], golden("anchors-entry"));
    for (entry, anchor) in entries.iter().zip(vectors::anchors()) {
        let logged = LoggedAnchor::decode(entry).unwrap();
        logged.verify(&vectors::key(vectors::INGEST).public(), &genesis.tag()).unwrap();
        assert_eq!((logged.id().0, logged.anchor()), (sha256(&[entry]).0, &anchor));
    }
}

#[test]
fn proposals_and_evidence_hold() {
    let (genesis, vote) = (vectors::genesis(), vectors::vote());
    assert_eq!(vote.proposal_id(), sha256(&[&golden("proposal")]));
    assert!(vote.change.possession_holds(&genesis.tag()));
    let kind = vectors::equivocation().verify(&genesis.tag());
    assert_eq!(kind, Ok(EquivocationKind::NullifyAndFinalize));
}

#[test]
fn the_checkpoint_and_the_tlog_proof_hold() {
    let (genesis, header) = (vectors::genesis(), vectors::header());
    let note = std::fs::read_to_string(path("checkpoint.txt")).unwrap();
    let cosigned = verify_for(&header, genesis.committee().keys(), &note).unwrap();
    assert_eq!((cosigned.validators.len(), cosigned.others.len()), (3, 1));
    let text = std::fs::read_to_string(path("anchor.tlog-proof")).unwrap();
    let verified = TlogProof::parse(&text).unwrap().verify(&genesis).unwrap();
    assert_eq!((verified.anchor, verified.checkpoint.root), (vectors::anchor(), header.log_root));
}

#[test]
fn evidence_of_an_answer_holds_and_no_bit_of_it_can_change() {
    let genesis = vectors::genesis();
    let bytes = std::fs::read(path("answer.json")).unwrap();
    let verified = AnswerEvidence::from_json(&bytes).unwrap().verify(&genesis, &[]).unwrap();
    assert_eq!((verified.answer, verified.signed), (vectors::answer(), (3, 4)));
    assert_eq!(verified.signer, TrustedBy::Genesis { name: "ingest".into() });
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            let verified = AnswerEvidence::from_json(&altered).and_then(|evidence| evidence.verify(&genesis, &[]));
            assert!(verified.is_err(), "byte {at}, bit {bit}");
        }
    }
}

/// Whoever has a key of their own signs what they like: each link is one of its own.
#[test]
fn each_step_of_the_evidence_of_an_answer_can_fail() {
    let (genesis, good) = (vectors::genesis(), vectors::answer_evidence());
    let key = vectors::key;
    let step =
        |evidence: &AnswerEvidence, trusted: &[PublicKey]| evidence.verify(&genesis, trusted).map_err(|e| e.step);
    let stranger = key(99);
    let signed = |answer: Answer, seed: u8| AnswerEvidence {
        answer: Base64Bytes(answer.sign(&key(seed), &genesis.tag()).unwrap()),
        signer: key(seed).public(),
        ..good.clone()
    };
    // By somebody who is no node of the chain, under their own name or under another's.
    let forged = signed(Answer { node: stranger.identity(), rows: 3, ..vectors::answer() }, 99);
    assert_eq!(step(&forged, &[]), Err("signer"));
    assert_eq!(step(&signed(vectors::answer(), 99), &[]), Err("signer"));
    assert_eq!(step(&forged, &[stranger.public()]).unwrap().signer, TrustedBy::Verifier);
    assert_eq!(step(&AnswerEvidence { signer: key(8).public(), ..good.clone() }, &[]), Err("answer"));
    // About another block than the one that is proven.
    for wrong in [
        Answer { height: Height(2), ..vectors::answer() },
        Answer { block: Digest([1; 32]), ..vectors::answer() },
        Answer { state_root: Digest([1; 32]), ..vectors::answer() },
    ] {
        assert_eq!(step(&signed(wrong, vectors::INGEST), &[]), Err("headers"));
    }
    let header = |change: fn(&mut Header)| {
        let mut header = vectors::header();
        change(&mut header);
        Base64Bytes(header.encode())
    };
    let unlinked = vec![good.headers[0].clone(), header(|header| header.height = Height(2))];
    assert_eq!(step(&AnswerEvidence { headers: unlinked, ..good.clone() }, &[]), Err("headers"));
    assert_eq!(step(&AnswerEvidence { headers: vec![], ..good.clone() }, &[]), Err("headers"));
    // A child of the block that nobody certified.
    let mut child = vectors::header();
    (child.height, child.parent) = (Height(2), vectors::header().digest());
    let linked = vec![good.headers[0].clone(), Base64Bytes(child.encode())];
    assert_eq!(step(&AnswerEvidence { headers: linked, ..good.clone() }, &[]), Err("certificate"));
    let certificate = Base64Bytes(vec![0; good.certificate.0.len()]);
    assert_eq!(step(&AnswerEvidence { certificate, ..good.clone() }, &[]), Err("certificate"));
    // One that is certified proves its parent too: the block of height 0, of which there is no certificate.
    let first = genesis.header();
    let answer = Answer { height: Height(0), block: first.digest(), state_root: first.state_root, ..vectors::answer() };
    let headers = vec![Base64Bytes(first.encode()), good.headers[0].clone()];
    let through = AnswerEvidence { headers, ..signed(answer, vectors::INGEST) };
    assert_eq!(step(&through, &[]).unwrap().certified, vectors::header());
}

#[test]
fn state_proofs_hold_and_no_bit_of_them_can_change() {
    let genesis = vectors::genesis();
    for (name, made) in vectors::state_proofs() {
        let good = std::fs::read(path(name)).unwrap();
        let proven = StateProof::from_json(&good).unwrap().verify(&genesis).unwrap();
        assert_eq!(proven.value, made.value.clone().map(|value| value.0), "{name}");
        for bit in 0..good.len() * 8 {
            let mut changed = good.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let accepted = StateProof::from_json(&changed).and_then(|proof| proof.verify(&genesis));
            // Another name may be missing for the same reason; then that is what is proven, and it is true.
            let another = accepted.as_ref().is_ok_and(|other| other.subject != made.subject && other.value.is_none());
            assert!(accepted.is_err() || another, "{name}: bit {} of byte {}", bit % 8, bit / 8);
            if let Ok(other) = accepted {
                assert!(!vectors::state::entries().contains_key(&other.subject.key().0), "{name}");
            }
        }
    }
}

#[test]
fn the_certificate_is_over_the_documented_bytes_and_proves_the_header() {
    let genesis = vectors::genesis();
    let certificate = Finalization::decode(&golden("certificate"), 4).unwrap();
    certificate.verify_header(&vectors::header(), &genesis.validator_keys(), &genesis.tag()).unwrap();
    let keys = genesis.validator_keys();
    for (signer, signature) in &certificate.signatures {
        assert!(keys[*signer].verify(&golden("certificate-signed-bytes"), signature), "validator {signer}");
    }
}

#[test]
fn the_block_holds_what_its_header_says() {
    let block = SignedBlock::decode(&golden("block")).unwrap();
    assert_eq!(block.check().unwrap(), vectors::header());
    assert_eq!(block.certificate, Some(golden("certificate")));
    assert_eq!(vectors::header().parent, sha256(&[&golden("header-0")]));
    let blocks = golden("blocks");
    assert_eq!(blocks[0], 0x82, "an array of two");
    assert!(blocks.ends_with(&golden("block")), "blocks stand one after the other");
}

#[test]
fn the_record_leads_to_the_root_in_the_anchor() {
    let mut hasher = RecordHasher::new("traffic.flow", vectors::record(0).partition, vectors::SECRET);
    for index in 0..5 {
        let record = vectors::record(index);
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let leaf = hasher.leaf(LeafIndex(index), record.offset, record.timestamp_ms, key, value, headers);
        assert_eq!(leaf, vectors::leaves()[index as usize]);
    }
    let leaf = tree::leaf_hash(&golden("record"));
    let path = tree::inclusion_path(&vectors::leaves(), LeafIndex(vectors::SHOWN)).unwrap();
    let root = vectors::anchor().records_root;
    tree::verify_inclusion(&leaf, LeafIndex(vectors::SHOWN), TreeSize(5), &path, &root).unwrap();
}

/// The record does not depend on the chain: the receipt of the other golden chain holds the same bytes.
#[test]
fn the_golden_receipt_is_about_the_golden_record() {
    let receipt = Receipt::from_json(&std::fs::read(path("receipt.json")).unwrap()).unwrap();
    assert_eq!(receipt.record.0, golden("record"));
    let genesis = Genesis::from_json(&std::fs::read(path("genesis.json")).unwrap()).unwrap();
    assert_eq!(receipt.verify(&genesis).unwrap().record, vectors::record(vectors::SHOWN));
}

/// Takes the bytes of one worked example: what stands left of ';' in each line, `@name` for another golden form.
fn worked_example(lines: &str) -> Vec<u8> {
    let words = lines.lines().filter_map(|line| line.split(';').next()).flat_map(str::split_whitespace);
    words.flat_map(|word| word.strip_prefix('@').map_or_else(|| hex::decode(word).unwrap(), golden)).collect()
}

/// Each example in the documentation is a golden file, byte for byte, and each golden form is shown.
#[test]
fn the_worked_examples_are_the_golden_files() {
    let text = std::fs::read_to_string(path("../../../docs/formats.md")).unwrap();
    let mut shown = std::collections::BTreeSet::new();
    for block in text.split("```").skip(1).step_by(2) {
        let Some((name, lines)) = block.strip_prefix("text\n; ").and_then(|rest| rest.split_once(".hex\n")) else {
            continue;
        };
        assert_eq!(
            hex::encode(worked_example(lines)),
            hex::encode(golden(name)),
            "docs/formats.md shows another {name}"
        );
        shown.insert(name.to_owned());
    }
    for (name, _) in vectors::forms() {
        assert!(shown.contains(name), "docs/formats.md does not show {name}");
    }
    for line in vectors::digests().lines().chain(vectors::state::text().lines()) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(text.contains(value), "docs/formats.md does not show {line}");
    }
}

/// A validator that does not keep to RFC 8032 can make signatures that only the wider rules of ZIP-215 accept.
#[test]
fn signatures_beyond_rfc_8032_are_refused() {
    let text = std::fs::read_to_string(path("zip215.txt")).unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        hex::decode(line.unwrap_or_else(|| panic!("zip215.txt has no line {name:?}"))).unwrap()
    };
    let public = PublicKey::from_bytes(value("public key").try_into().unwrap()).unwrap();
    let message = value("message");
    assert_eq!(public, vectors::key(1).public());
    assert!(public.verify(&message, &value("signature by RFC 8032").try_into().unwrap()));
    assert!(!public.verify(&message, &value("signature by ZIP-215 alone").try_into().unwrap()));
}

/// The same among the signatures of a certificate: one is enough to refuse it.
#[test]
fn a_certificate_with_one_wrong_signature_is_refused() {
    let genesis = vectors::genesis();
    let mut bytes = golden("certificate");
    *bytes.last_mut().unwrap() ^= 1;
    let certificate = Finalization::decode(&bytes, 4).unwrap();
    let refused = certificate.verify_header(&vectors::header(), &genesis.validator_keys(), &genesis.tag());
    let validator = genesis.validator_keys()[vectors::SIGNERS[2]];
    assert_eq!(refused, Err(CertificateError::Signature { validator }));
}

//! What is done with bytes that nobody vouches for, one function a format: decode, and encode again.
//!
//! Each returns whether the bytes were accepted, and panics when accepted bytes are not the one encoding of what they
//! decode to. The golden test and the mutation test run these same bodies, and a fuzz target is one call of one of them.

// Each program that includes this file uses a part of it.
#![allow(dead_code)]

use cairn_proof::answer::SignedAnswer;
use cairn_proof::answer::file::AnswerEvidence;
use cairn_proof::block::{SignedBlock, decode_blocks, encode_blocks};
use cairn_proof::cbor::{CborError, Reader, Writer};
use cairn_proof::certificate::Finalization;
use cairn_proof::checkpoint::{Checkpoint, verify};
use cairn_proof::committee::VALIDATORS_MAX;
use cairn_proof::digest::{Digest, sha256};
use cairn_proof::genesis::{GENESIS_MARK, Genesis};
use cairn_proof::header::Header;
use cairn_proof::identity::{PublicKey, SigningKey};
use cairn_proof::login::SignedLogin;
use cairn_proof::note::Note;
use cairn_proof::parameters::Parameters;
use cairn_proof::receipt::Receipt;
use cairn_proof::record::OwnedRecord;
use cairn_proof::signed_record::{RunRoots, Sequences, SignedHeaders};
use cairn_proof::state_proof::StateProof;
use cairn_proof::statement::{ChainTag, LoggedAnchor, SignedStatement, statement_id};
use cairn_proof::tile::Tile;
use cairn_proof::tlog_proof::{Extra, TlogProof};
use cairn_proof::writer_schemas::WriterSchemas;

/// Bytes of an Ed25519 signature, which end an envelope.
const SIGNATURE_BYTES: usize = 64;

/// A record's canonical bytes.
pub(crate) fn record(bytes: &[u8]) -> bool {
    let Ok(record) = OwnedRecord::decode(bytes) else { return false };
    assert_eq!(record.encode(), bytes, "a record has one encoding");
    true
}

/// The headers of a signed record, their values one after the other: key, sequence, signature, place in a run.
pub(crate) fn signed_headers(bytes: &[u8]) -> bool {
    let cut = |at: usize, length: usize| bytes.get(at..at + length);
    let run = bytes.get(104..).filter(|run| !run.is_empty());
    let parts = [("cn-key", cut(0, 32)), ("cn-seq", cut(32, 8)), ("cn-sig", cut(40, 64)), ("cn-run", run)];
    let present = parts.into_iter().filter(|(_, value)| value.is_some());
    let Ok(Some(signed)) = SignedHeaders::read(present) else { return false };
    let again: Vec<u8> = signed.to_headers().into_iter().flat_map(|(_, value)| value).collect();
    assert_eq!(again, bytes, "headers have one encoding");
    let leaf = sha256(&[bytes]);
    let mut roots = RunRoots::new();
    let root = roots.root(&leaf, &signed);
    assert_eq!(roots.root(&leaf, &signed), root, "the same path leads to the same root");
    true
}

/// The last sequence numbers of a partition.
pub(crate) fn sequences(bytes: &[u8]) -> bool {
    let Ok(sequences) = Sequences::decode(bytes) else { return false };
    assert_eq!(sequences.encode(), bytes, "a table has one encoding");
    true
}

/// The schemas that a segment was decoded by.
pub(crate) fn writer_schemas(bytes: &[u8]) -> bool {
    let Ok(schemas) = WriterSchemas::decode(bytes) else { return false };
    assert_eq!(schemas.encode(), bytes, "schemas have one encoding");
    true
}

/// A statement's envelope. Signed again by another key, it differs in the signature alone.
pub(crate) fn statement(bytes: &[u8]) -> bool {
    let Ok(signed) = SignedStatement::decode(bytes) else { return false };
    assert_eq!(signed.id(), statement_id(bytes));
    let (key, chain) = (SigningKey::from_seed(&[77; 32]), ChainTag(Digest([78; 32])));
    assert!(signed.verify(&key.public(), &chain).is_err(), "nobody has signed with this key for this chain");
    let again = signed.into_statement().sign(&key, &chain).expect("what was decoded passed the checks of signing");
    let unsigned = bytes.len() - SIGNATURE_BYTES;
    assert_eq!(again.len(), bytes.len());
    assert_eq!(again[..unsigned], bytes[..unsigned], "a statement has one encoding");
    true
}

/// An anchor's entry in the log. Out of a statement with several it is written a second time here.
pub(crate) fn log_entry(bytes: &[u8]) -> bool {
    let Ok(logged) = LoggedAnchor::decode(bytes) else { return false };
    assert_eq!(logged.id(), statement_id(bytes));
    let (key, chain) = (SigningKey::from_seed(&[77; 32]), ChainTag(Digest([78; 32])));
    assert!(logged.verify(&key.public(), &chain).is_err(), "nobody has signed with this key for this chain");
    let Some(place) = logged.place() else { return statement(bytes) };
    let mut reader = Reader::new(&bytes[2..]);
    let protected = reader.bytes().expect("an entry has a protected header");
    let (payload, signature) = bytes.split_at(bytes.len() - SIGNATURE_BYTES - 2);
    let mut out = bytes[..2].to_vec();
    let mut writer = Writer::new(&mut out);
    writer.bytes(protected);
    writer.map(1);
    writer.signed(-65_538);
    writer.array(3);
    writer.unsigned(place.index.0);
    writer.array(place.path.len());
    place.path.iter().for_each(|hash| writer.bytes(hash.as_ref()));
    writer.bytes(&logged.anchor().encode());
    // The payload holds a sequence of unknown length, a count and a root of 32 bytes.
    assert!(payload.starts_with(&out), "an entry has one encoding");
    let mut rest = Reader::new(&bytes[out.len()..]);
    let summary = rest.bytes().expect("an entry has a payload");
    assert!(summary.ends_with(place.root.as_ref()));
    assert_eq!(rest.bytes(), Ok(&signature[2..]));
    true
}

/// A header.
pub(crate) fn header(bytes: &[u8]) -> bool {
    let Ok(header) = Header::decode(bytes) else { return false };
    assert_eq!(header.encode(), bytes, "a header has one encoding");
    assert_eq!(header.digest(), sha256(&[bytes]));
    true
}

/// One block, or an array of blocks.
pub(crate) fn block(bytes: &[u8]) -> bool {
    let one = SignedBlock::decode(bytes);
    if let Ok(block) = &one {
        assert_eq!(block.encode(), bytes, "a block has one encoding");
        // Header and statements may or may not belong together; telling must do no harm.
        if let Ok(header) = block.check() {
            assert_eq!(header.statements_count, block.statements.len() as u64);
        }
    }
    let many = decode_blocks(bytes, 512);
    if let Ok(blocks) = &many {
        assert_eq!(encode_blocks(blocks), bytes, "an array of blocks has one encoding");
    }
    one.is_ok() || many.is_ok()
}

/// A finality certificate, for a set of whatever size it names.
pub(crate) fn certificate(bytes: &[u8]) -> bool {
    let mut accepted = 0;
    for validators in 1..=VALIDATORS_MAX {
        if let Ok(certificate) = Finalization::decode(bytes, validators) {
            assert_eq!(certificate_bytes(&certificate, validators), bytes, "a certificate has one encoding");
            let keys = [SigningKey::from_seed(&[77; 32]).public(); 4];
            let judged = certificate.verify(&keys, &ChainTag(Digest([78; 32])));
            assert!(judged.is_err(), "nobody has signed with this key for this chain");
            accepted += 1;
        }
    }
    assert!(accepted < 2, "a certificate names the size of its set");
    accepted == 1
}

/// The layout of `docs/formats.md`, written a second time: the crate decodes certificates, validators encode them.
fn certificate_bytes(certificate: &Finalization, validators: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [certificate.epoch, certificate.view, certificate.parent_view] {
        varint(number, &mut out);
    }
    out.extend_from_slice(certificate.payload.as_bytes());
    out.extend_from_slice(&(validators as u64).to_be_bytes());
    let mut bitmap = vec![0; validators.div_ceil(8)];
    for (signer, _) in &certificate.signatures {
        bitmap[signer / 8] |= 1 << (signer % 8);
    }
    out.extend_from_slice(&bitmap);
    varint(certificate.signatures.len() as u64, &mut out);
    for (_, signature) in &certificate.signatures {
        out.extend_from_slice(signature);
    }
    out
}

/// Unsigned LEB128, shortest form.
pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A receipt file.
pub(crate) fn receipt(bytes: &[u8]) -> bool {
    let Ok(receipt) = Receipt::from_json(bytes) else { return false };
    assert_eq!(receipt.to_json().expect("a receipt in memory can be written"), bytes, "a receipt has one form");
    let genesis = Genesis::from_json(include_bytes!("../golden/genesis.json")).expect("the golden genesis is good");
    if let Ok(verified) = receipt.verify(&genesis) {
        assert_eq!(verified.record.encode(), receipt.record.0);
        assert_eq!(verified.header.encode(), receipt.header.0);
    }
    true
}

/// A state proof.
pub(crate) fn state_proof(bytes: &[u8]) -> bool {
    let Ok(proof) = StateProof::from_json(bytes) else { return false };
    assert_eq!(proof.to_json().expect("a proof in memory can be written"), bytes, "a state proof has one form");
    let genesis = Genesis::from_json(include_bytes!("../golden/city.json")).expect("the golden genesis is good");
    if let Ok(proven) = proof.verify(&genesis) {
        assert_eq!(proven.value, proof.value.map(|value| value.0));
        assert_eq!(proven.header.encode(), proof.header.0);
    }
    true
}

/// A signed note, which may be a checkpoint.
pub(crate) fn note(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(note) = Note::parse(text) else { return false };
    assert_eq!(note.to_text(), text, "a note has one form");
    if let Ok(checkpoint) = Checkpoint::parse(note.text()) {
        assert_eq!(checkpoint.text(), note.text(), "a checkpoint has one form");
    }
    let stranger = SigningKey::from_seed(&[77; 32]).public();
    assert!(verify("cairn/golden-city", &[stranger], text).is_err(), "nobody has signed with this key");
    true
}

/// A tlog-proof with Cairn's extra data.
pub(crate) fn tlog_proof(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(proof) = TlogProof::parse(text) else { return false };
    assert_eq!(proof.to_text(), text, "a tlog-proof has one form");
    if let Some(Ok(extra)) = proof.extra.as_deref().map(Extra::decode) {
        assert_eq!(Some(extra.encode()), proof.extra, "extra data has one encoding");
    }
    let genesis = Genesis::from_json(include_bytes!("../golden/city.json")).expect("the golden genesis is good");
    if let Ok(verified) = proof.verify(&genesis) {
        assert!(verified.cosigned.validators.len() >= verified.committee.quorum());
    }
    true
}

/// The path of a tile.
pub(crate) fn tile(bytes: &[u8]) -> bool {
    let Some(tile) = std::str::from_utf8(bytes).ok().and_then(|path| Tile::parse(path).ok()) else { return false };
    assert_eq!(tile.to_string().as_bytes(), bytes, "a tile has one path");
    true
}

/// The text of a `did:key`.
pub(crate) fn did(bytes: &[u8]) -> bool {
    let Some(key) = std::str::from_utf8(bytes).ok().and_then(|text| PublicKey::from_did(text).ok()) else {
        return false;
    };
    assert_eq!(key.did().as_bytes(), bytes, "a key has one did");
    true
}

/// A login token. Signed again by another key, it differs in the signature alone.
pub(crate) fn login(bytes: &[u8]) -> bool {
    let Some(signed) = std::str::from_utf8(bytes).ok().and_then(|text| SignedLogin::parse(text).ok()) else {
        return false;
    };
    let (key, chain) = (SigningKey::from_seed(&[77; 32]), ChainTag(Digest([78; 32])));
    let login = signed.login();
    let verified = signed.verify(&key.public(), &chain, &login.audience, login.issued_s);
    assert!(verified.is_err(), "nobody has signed with this key for this chain");
    let again = login.sign(&key, &chain).expect("what was decoded passed the checks of signing");
    // Base64 puts three bytes into four characters: the signature's last 64 bytes begin within the last 88.
    let unsigned = bytes.len() - 88;
    assert_eq!(again.len(), bytes.len());
    assert_eq!(&again.as_bytes()[..unsigned], &bytes[..unsigned], "a login token has one encoding");
    true
}

/// The envelope of an answer. Signed again by another key, it differs in the signature alone.
pub(crate) fn answer(bytes: &[u8]) -> bool {
    let Ok(signed) = SignedAnswer::decode(bytes) else { return false };
    let (key, chain) = (SigningKey::from_seed(&[77; 32]), ChainTag(Digest([78; 32])));
    assert!(signed.verify(&key.public(), &chain).is_err(), "nobody has signed with this key for this chain");
    let again = signed.into_answer().sign(&key, &chain).expect("what was decoded passed the checks of signing");
    let unsigned = bytes.len() - SIGNATURE_BYTES;
    assert_eq!(again.len(), bytes.len());
    assert_eq!(again[..unsigned], bytes[..unsigned], "an answer has one encoding");
    true
}

/// The file that proves an answer.
pub(crate) fn answer_evidence(bytes: &[u8]) -> bool {
    let Ok(evidence) = AnswerEvidence::from_json(bytes) else { return false };
    assert_eq!(evidence.to_json().expect("evidence in memory can be written"), bytes, "the file has one form");
    answer(&evidence.answer.0);
    true
}

/// A genesis file. Its JSON may be written in many ways; what is hashed is the CBOR, which must say the same.
pub(crate) fn genesis(bytes: &[u8]) -> bool {
    let Ok(genesis) = Genesis::from_json(bytes) else { return false };
    let again = serde_json::to_vec(&genesis).expect("a genesis in memory can be written");
    assert_eq!(Genesis::from_json(&again).as_ref(), Ok(&genesis));
    same_in_cbor(&genesis).expect("the canonical bytes are deterministic CBOR of the documented shape");
    assert_eq!(Header::decode(&genesis.header().encode()), Ok(genesis.header()));
    true
}

fn same_in_cbor(genesis: &Genesis) -> Result<(), CborError> {
    let bytes = genesis.encode();
    let mut reader = Reader::new(&bytes);
    reader.array_of(6)?;
    reader.mark(GENESIS_MARK)?;
    assert_eq!(reader.text()?, genesis.chain_id);
    assert_eq!(reader.unsigned()?, genesis.timestamp_ms);
    reader.array_of(genesis.validators.len())?;
    for validator in &genesis.validators {
        reader.array_of(3)?;
        assert_eq!(reader.text()?, validator.name);
        assert_eq!(&reader.fixed::<32>()?, validator.public_key.as_bytes());
        assert_eq!(reader.text()?, validator.address);
    }
    reader.array_of(genesis.identities.len())?;
    for identity in &genesis.identities {
        reader.array_of(3)?;
        assert_eq!(reader.text()?, identity.name);
        assert_eq!(reader.unsigned()?, identity.kind.code());
        assert_eq!(&reader.fixed::<32>()?, identity.public_key.as_bytes());
    }
    assert_eq!(Parameters::read(&mut reader)?, genesis.parameters);
    reader.end()
}

/// Any sequence of CBOR items: what the reader takes, the writer writes in the same bytes.
pub(crate) fn cbor(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let mut again = Vec::with_capacity(bytes.len());
    while reader.remaining() > 0 {
        let before = again.len();
        if !copy_item(&mut reader, &mut Writer::new(&mut again)) {
            assert_eq!(again.len(), before, "a refused item writes nothing");
            break;
        }
        assert!(again.len() > before, "each item takes a byte");
    }
    let read = bytes.len() - reader.remaining();
    assert_eq!(again, bytes[..read], "an item has one encoding");
    read == bytes.len()
}

/// Copies one item; of an array or a map the head alone, for its items follow.
fn copy_item(reader: &mut Reader<'_>, writer: &mut Writer<'_>) -> bool {
    if reader.null() {
        writer.null();
        return true;
    }
    // A reader that has failed may stand anywhere, so each question is put to a copy.
    let mut ask = reader.clone();
    let mut attempt = |question: &mut dyn FnMut(&mut Reader<'_>) -> bool| {
        let mut copy = reader.clone();
        let held = question(&mut copy);
        if held {
            ask = copy;
        }
        held
    };
    let held = attempt(&mut |r| r.unsigned().map(|value| writer.unsigned(value)).is_ok())
        || attempt(&mut |r| r.signed().map(|value| writer.signed(value)).is_ok())
        || attempt(&mut |r| r.bytes().map(|value| writer.bytes(value)).is_ok())
        || attempt(&mut |r| r.text().map(|value| writer.text(value)).is_ok())
        || attempt(&mut |r| r.bool().map(|value| writer.bool(value)).is_ok())
        || attempt(&mut |r| r.array(usize::MAX).map(|length| writer.array(length)).is_ok())
        || (0..=16).any(|length| attempt(&mut |r| r.map_of(length).map(|()| writer.map(length)).is_ok()));
    if held {
        *reader = ask;
    }
    held
}

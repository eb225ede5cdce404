//! Every way in which a receipt can be wrong that we could think of, and some in which it is unusual and right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cairn_proof::committee::CommitteeChange;
use cairn_proof::header::Header;
use cairn_proof::identity::SigningKey;
use cairn_proof::receipt::{Base64Bytes, Receipt, StepName};
use cairn_proof::statement::{Body, RevokeIdentity, Statement};
use cairn_proof::{Digest, Height, LeafIndex, Sequence};

use super::chain::{self, Place, certify, change, committees, key};

/// The content of one case.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) base: String,
    /// Where this crate stops; `None`: it verifies.
    pub(crate) step: Option<StepName>,
    pub(crate) content: Vec<u8>,
}

fn base(name: &str) -> Receipt {
    chain::receipts().into_iter().find(|(other, _)| *other == name).unwrap().1
}

fn made(name: &str, file: &str, step: Option<StepName>, content: Vec<u8>) -> Made {
    Made { name: name.into(), base: file.into(), step, content }
}

/// The base with another content.
pub(crate) fn with(
    name: &str,
    file: &str,
    step: impl Into<Option<StepName>>,
    change: impl FnOnce(&mut Receipt),
) -> Made {
    let mut receipt = base(file);
    change(&mut receipt);
    made(name, file, step.into(), receipt.to_json().unwrap())
}

/// The base with another text: the first `from` becomes `to`.
fn text(name: &str, file: &str, from: &str, to: &str) -> Made {
    let whole = String::from_utf8(base(file).to_json().unwrap()).unwrap();
    assert!(whole.contains(from) && from != to, "{name}: {file} has no {from:?}, or nothing changes");
    made(name, file, Some(StepName::Form), whole.replacen(from, to, 1).into_bytes())
}

/// The base with another header, certified anew by `by`.
fn header(name: &str, file: &str, step: impl Into<Option<StepName>>, by: &[SigningKey], edit: fn(&mut Header)) -> Made {
    with(name, file, step, |receipt| {
        let mut header = Header::decode(&receipt.header.0).unwrap();
        edit(&mut header);
        receipt.certificate = Base64Bytes(certify(&header, by, 0));
        receipt.header = Base64Bytes(header.encode());
    })
}

pub(crate) fn all() -> Vec<Made> {
    let mut cases = Vec::new();
    for (name, _) in chain::receipts() {
        cases.push(with(&format!("valid: {name}"), name, None, |_| {}));
    }
    cases.extend(forms());
    cases.extend(records());
    cases.extend(anchors());
    cases.extend(super::several::cases());
    cases.extend(logs());
    cases.extend(committee_changes());
    cases.extend(headers());
    cases.extend(super::certificates::cases());
    cases.extend(checkpoints());
    cases
}

/// A file has one form. Each of these says what a valid receipt says, or nearly, in another way.
fn forms() -> Vec<Made> {
    let one = "one.json";
    let whole = String::from_utf8(base(one).to_json().unwrap()).unwrap();
    let file = |name: &str, content: String| made(name, one, Some(StepName::Form), content.into_bytes());
    let record = whole.lines().find(|line| line.contains("\"record\"")).unwrap();
    let anchorer = key(chain::INGEST).public().to_string();
    let mut cases = vec![
        file("form: empty", String::new()),
        file("form: not JSON", "receipt".into()),
        file("form: an array", format!("[{whole}]")),
        file("form: null", "null\n".into()),
        file("form: without the last newline", whole.trim_end().to_owned()),
        file("form: with one newline more", format!("{whole}\n")),
        file("form: with a second value after it", format!("{whole}{{}}\n")),
        file("form: with a byte order mark", format!("\u{feff}{whole}")),
        file("form: CRLF line ends", whole.replace('\n', "\r\n")),
        file("form: on one line", whole.replace('\n', "")),
        file("form: tabs", whole.replace("  ", "\t")),
        file("form: fields in another order", {
            let mut lines: Vec<_> = whole.lines().collect();
            lines.swap(1, 2);
            lines.join("\n") + "\n"
        }),
        file("form: a field twice", whole.replacen(record, &format!("{record}\n{record}"), 1)),
        text("form: an unknown field", one, "  \"record\":", "  \"comment\": \"\",\n  \"record\":"),
        text("form: a space before a colon", one, "\"record\":", "\"record\" :"),
        text("format: version 1", one, "cairn/receipt/v1".replace('1', "2").as_str(), "cairn/receipt/v1"),
        text("format: an escaped letter", one, "cairn/receipt/v2", "\\u0063airn/receipt/v2"),
        text("format: an escaped slash", one, "cairn/receipt/v2", "cairn\\/receipt/v2"),
        text("format: upper case", one, "cairn/receipt/v2", "CAIRN/receipt/v2"),
        text("format: null", one, "\"cairn/receipt/v2\"", "null"),
        text("record: base64 with too much padding", one, record, &record.replace("\",", "=\",")),
        text("record: not base64", one, "\"record\": \"", "\"record\": \"!"),
        text("record: a space in base64", one, "\"record\": \"", "\"record\": \" "),
        text("record: null", one, record, "  \"record\": null,"),
        text("batch: a negative index", one, "\"index\": 0", "\"index\": -0"),
        text("batch: a fraction", one, "\"index\": 0", "\"index\": 0.0"),
        text("batch: an exponent", one, "\"index\": 0", "\"index\": 0e0"),
        text("batch: an index with a leading zero", one, "\"index\": 0", "\"index\": 00"),
        text("batch: an index as text", one, "\"index\": 0", "\"index\": \"0\""),
        text("batch: an index beyond 64 bits", one, "\"index\": 0", "\"index\": 18446744073709551616"),
        text("batch: no path", one, "\"path\": []", "\"path\": null"),
        text("batch: an empty path over two lines", one, "\"path\": []", "\"path\": [\n    ]"),
        text("anchor: a number", one, "\"anchor\": \"", "\"anchor\": 0, \"\": \""),
        text("anchorer: upper case", one, &anchorer, &anchorer.to_uppercase()),
        text("anchorer: one digit less", one, &anchorer, &anchorer[1..]),
        text("anchorer: a key of small order", one, &anchorer, &format!("01{}", "00".repeat(31))),
        text("anchorer: no point of the curve", one, &anchorer, &format!("02{}", "00".repeat(31))),
        text("anchorer: a second encoding of a point", one, &anchorer, &format!("f0{}7f", "ff".repeat(30))),
        text("anchorer: 0x before it", one, &anchorer, &format!("0x{anchorer}")),
        text("committees: null", one, "\"committees\": []", "\"committees\": null"),
        text("committees: an object", one, "\"committees\": []", "\"committees\": {}"),
        text("header: null", one, "\"header\": \"", "\"header\": null, \"\": \""),
        text("certificate: null", one, "\"certificate\": \"", "\"certificate\": null, \"\": \""),
        text("checkpoint: false", one, "\"checkpoint\": null", "\"checkpoint\": false"),
        text("checkpoint: left out", one, ",\n  \"checkpoint\": null", ""),
    ];
    for field in ["record", "batch", "anchor", "anchorer", "log", "committees", "header", "certificate", "checkpoint"] {
        let from = format!("\n  \"{field}\": ");
        cases.push(text(&format!("{field}: misspelt"), one, &from, &format!("\n  \"{field}s\": ")));
    }
    let path_of = |digests: usize| vec![Digest([1; 32]); digests];
    cases.push(with("batch: a path of 65 digests", one, StepName::Form, |r| r.batch.path = path_of(65)));
    cases.push(with("log: a path of 65 digests", one, StepName::Form, |r| r.log.path = path_of(65)));
    let upper = base("thousand.json").log.path[0].to_string();
    cases.push(text("log: a digest in upper case", "thousand.json", &upper, &upper.to_uppercase()));
    cases.extend(paddings());
    cases
}

/// Base64 of the same bytes, written otherwise.
fn paddings() -> Vec<Made> {
    let file = "change.json";
    let whole = String::from_utf8(base(file).to_json().unwrap()).unwrap();
    let field = |name: &str| whole.lines().find(|line| line.starts_with(&format!("  \"{name}\": \""))).unwrap();
    let padded = ["record", "anchor", "header", "certificate"].into_iter().find(|name| field(name).contains('='));
    let name = padded.expect("one of four has a length that asks for padding");
    let line = field(name);
    let end = line.find('=').unwrap();
    // The last digit before the padding, with a bit set that stands for nothing.
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let at = digits.find(&line[end - 1..end]).unwrap();
    let unused = format!("{}{}{}", &line[..end - 1], &digits[at + 1..at + 2], &line[end..]);
    let urls = field("certificate");
    vec![
        text(&format!("{name}: base64 without padding"), file, line, &line.replace('=', "")),
        text(&format!("{name}: base64 with bits that stand for nothing"), file, line, &unused),
        text("certificate: base64 for URLs", file, urls, &urls.replace('+', "-").replace('/', "_")),
    ]
}

fn records() -> Vec<Made> {
    let file = "thousand.json";
    let other = |index| Base64Bytes(chain::record(index).encode());
    vec![
        with("record: empty", file, StepName::Record, |r| r.record.0.clear()),
        with("record: a byte more", file, StepName::Record, |r| r.record.0.push(0)),
        with("record: a byte less", file, StepName::Record, |r| {
            r.record.0.pop();
        }),
        with("record: another mark", file, StepName::Record, |r| r.record.0[15] += 1),
        with("record: a longer head", file, StepName::Record, |r| {
            r.record.0.splice(0..1, [0x98, 9]);
        }),
        with("record: another value", file, StepName::Batch, |r| {
            let mut record = chain::record(617);
            record.value = Some(b"{\"speed_kmh\":999}".to_vec());
            r.record.0 = record.encode();
        }),
        with("record: a null value", file, StepName::Batch, |r| {
            r.record.0 = cairn_proof::record::OwnedRecord { value: None, ..chain::record(617) }.encode();
        }),
        with("record: another salt", file, StepName::Batch, |r| *r.record.0.last_mut().unwrap() ^= 1),
        with("record: another of the same batch", file, StepName::Batch, move |r| r.record = other(616)),
        with("record: another partition", file, StepName::Batch, |r| {
            let partition = cairn_proof::Partition(2);
            r.record.0 = cairn_proof::record::OwnedRecord { partition, ..chain::record(617) }.encode();
        }),
        with("record: an offset in the gap", file, StepName::Batch, |r| {
            let offset = cairn_proof::Offset(102);
            r.record.0 = cairn_proof::record::OwnedRecord { offset, ..chain::record(617) }.encode();
        }),
        with("record: a timestamp outside of the batch", file, StepName::Batch, |r| {
            r.record.0 = cairn_proof::record::OwnedRecord { timestamp_ms: 1, ..chain::record(617) }.encode();
        }),
        with("batch: the next index", file, StepName::Batch, |r| r.batch.index = LeafIndex(618)),
        with("batch: an index beyond the batch", file, StepName::Batch, |r| r.batch.index = LeafIndex(u64::MAX)),
        with("batch: a digest changed", file, StepName::Batch, |r| r.batch.path[4].0[0] ^= 0x80),
        with("batch: the first digest left out", file, StepName::Batch, |r| {
            r.batch.path.remove(0);
        }),
        with("batch: the last digest left out", file, StepName::Batch, |r| {
            r.batch.path.pop();
        }),
        with("batch: a digest more", file, StepName::Batch, |r| r.batch.path.push(Digest::ZERO)),
        with("batch: two digests swapped", file, StepName::Batch, |r| r.batch.path.swap(0, 1)),
        with("batch: a path where one leaf is the root", "one.json", StepName::Batch, |r| {
            r.batch.path.push(Digest::ZERO);
        }),
    ]
}

/// A signature whose s is not below the group's order: another encoding of the same signature.
pub(crate) fn with_high_s(signature: &mut [u8]) {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
}

fn anchors() -> Vec<Made> {
    let file = "thousand.json";
    vec![
        with("anchor: empty", file, StepName::Anchor, |r| r.anchor.0.clear()),
        with("anchor: a bit of the signature", file, StepName::Anchor, |r| *r.anchor.0.last_mut().unwrap() ^= 1),
        with("anchor: a signature with a high s", file, StepName::Anchor, |r| {
            let at = r.anchor.0.len() - 64;
            with_high_s(&mut r.anchor.0[at..]);
        }),
        with("anchor: a bit of the payload", file, StepName::Anchor, |r| {
            let at = r.anchor.0.len() - 70;
            r.anchor.0[at] ^= 1;
        }),
        with("anchor: without the tag", file, StepName::Anchor, |r| {
            r.anchor.0.remove(0);
        }),
        with("anchor: a byte more", file, StepName::Anchor, |r| r.anchor.0.push(0)),
        with("anchor: an unprotected header", file, StepName::Anchor, |r| {
            let at = r.anchor.0.iter().position(|byte| *byte == 0xa0).unwrap();
            r.anchor.0.splice(at..=at, [0xa1, 0x01, 0x27]);
        }),
        with("anchor: signed for another chain", file, StepName::Anchor, |r| {
            let mut other = chain::genesis();
            other.timestamp_ms += 1;
            r.anchor.0 = chain::envelope(chain::anchor(1000), chain::INGEST, &other);
        }),
        with("anchor: another kind of statement", file, StepName::Anchor, |r| {
            let identity = key(chain::INGEST).identity();
            let body = Body::RevokeIdentity(RevokeIdentity { identity, reason: "test".into() });
            let statement = Statement { signer: identity, sequence: Sequence(1), body };
            r.anchor.0 = statement.sign(&key(chain::INGEST), &chain::genesis().tag()).unwrap();
        }),
        with("anchor: another batch, well signed", file, StepName::Batch, |r| {
            r.anchor.0 = chain::envelope(chain::anchor(999), chain::INGEST, &chain::genesis());
        }),
        with("anchor: another segment, well signed", file, StepName::Log, |r| {
            let mut anchor = chain::anchor(1000);
            anchor.segment.size += 1;
            r.anchor.0 = chain::envelope(anchor, chain::INGEST, &chain::genesis());
        }),
        with("anchor: signed with another key", file, StepName::Log, |r| {
            r.anchor.0 = chain::envelope(chain::anchor(1000), chain::ROTATED, &chain::genesis());
            r.anchorer = key(chain::ROTATED).public();
        }),
        with("anchorer: another key", file, StepName::Anchor, |r| r.anchorer = key(1).public()),
        with("anchorer: the first key after a rotation", "rotated.json", StepName::Anchor, |r| {
            r.anchorer = key(chain::INGEST).public();
        }),
    ]
}

fn logs() -> Vec<Made> {
    let file = "thousand.json";
    vec![
        with("log: the next index", file, StepName::Log, |r| r.log.index = LeafIndex(3)),
        with("log: an index beyond the log", file, StepName::Log, |r| r.log.index = LeafIndex(5)),
        with("log: a digest changed", file, StepName::Log, |r| r.log.path[0].0[31] ^= 1),
        with("log: no path", file, StepName::Log, |r| r.log.path.clear()),
        with("log: a digest more", file, StepName::Log, |r| r.log.path.push(Digest::ZERO)),
        with("log: two digests swapped", file, StepName::Log, |r| r.log.path.swap(0, 2)),
    ]
}

fn committee_changes() -> Vec<Made> {
    let [four, seven, five] = committees();
    let file = "changes.json";
    let broken = |name: &str, edit: &dyn Fn(&mut Vec<CommitteeChange>)| {
        with(&format!("committees: {name}"), file, StepName::Committees, |r| edit(&mut r.committees))
    };
    // A first change whose header is another one, certified as it should be.
    let first = |name: &str, edit: fn(&mut Header)| {
        broken(name, &|all| {
            let mut header = chain::header(&Place { height: 19, committee: &four, next: &seven, log: &[] });
            edit(&mut header);
            all[0].certificate = Base64Bytes(certify(&header, &four, 0));
            all[0].header = Base64Bytes(header.encode());
        })
    };
    vec![
        with("committees: all left out", file, StepName::Header, |r| r.committees.clear()),
        with("committees: the last left out", file, StepName::Header, |r| {
            r.committees.pop();
        }),
        broken("the first left out", &|all| {
            all.remove(0);
        }),
        broken("in the wrong order", &|all| all.swap(0, 1)),
        broken("one twice", &|all| all.insert(1, all[0].clone())),
        with("committees: one too many", file, StepName::Header, {
            let (five, seven) = (five.clone(), seven.clone());
            move |r| r.committees.push(change(69, &five, &seven, 0))
        }),
        with("committees: a change that the genesis' validators did not certify", "one.json", StepName::Committees, {
            let strangers = chain::keys(3..=6);
            move |r| r.committees.push(change(19, &strangers, &strangers[1..], 0))
        }),
        with("committees: a change after the header", "thousand.json", StepName::Header, {
            let (four, seven) = (four.clone(), seven.clone());
            move |r| r.committees.push(change(29, &four, &seven, 0))
        }),
        broken("header empty", &|all| all[0].header.0.clear()),
        broken("a bit of a header", &|all| *all[1].header.0.last_mut().unwrap() ^= 1),
        broken("certificate empty", &|all| all[0].certificate.0.clear()),
        broken("a bit of a certificate", &|all| *all[1].certificate.0.last_mut().unwrap() ^= 1),
        broken("certificates swapped", &|all| {
            let other = all[0].certificate.clone();
            all[0].certificate = std::mem::replace(&mut all[1].certificate, other);
        }),
        broken("validators empty", &|all| all[0].validators.clear()),
        broken("validators not ascending", &|all| all[0].validators.swap(2, 3)),
        broken("a validator twice", &|all| {
            let again = all[0].validators[2];
            all[0].validators.insert(2, again);
        }),
        broken("a validator left out", &|all| {
            all[1].validators.pop();
        }),
        broken("a validator more", &|all| {
            let committee = chain::committee(&chain::keys(3..=8));
            all[1].validators = committee.keys().to_vec();
        }),
        broken("the validators of another epoch", &|all| {
            all[0].validators = all[1].validators.clone();
        }),
        broken("129 validators", &|all| {
            let many: Vec<_> = (0..129).map(key).collect();
            let mut keys: Vec<_> = many.iter().map(SigningKey::public).collect();
            keys.sort();
            all[0].validators = keys;
        }),
        first("a header of another chain", |header| header.chain_id = "golden-receipt".into()),
        first("a header that says another epoch", |header| header.epoch = 2),
        first("a header that is not an epoch's last", |header| header.height = Height(18)),
        first("a header of height 0", |header| (header.height, header.epoch) = (Height(0), 0)),
        first("a header that names other validators of its own", |header| header.validators_hash = Digest([9; 32])),
        first("a header that names other validators of the next epoch", |header| {
            header.next_validators_hash = Digest([9; 32]);
        }),
        broken("a change to the same validators", &|all| all[0] = change(19, &four, &four, 0)),
        broken("certified by the next validators", &|all| {
            let header = chain::header(&Place { height: 19, committee: &four, next: &seven, log: &[] });
            all[0].certificate = Base64Bytes(certify(&header, &seven, 0));
        }),
        with("committees: an earlier end of the epoch's views certifies too", file, None, |r| {
            r.committees[1] = change(49, &committees()[1], &committees()[2], 0);
        }),
        text(
            "committees: validators in upper case",
            file,
            &key(5).public().to_string(),
            &key(5).public().to_string().to_uppercase(),
        ),
        text(
            "committees: a field in the wrong place",
            file,
            "\"certificate\": \"",
            "\"comment\": \"\",\n      \"certificate\": \"",
        ),
    ]
}

fn headers() -> Vec<Made> {
    let [four, seven, five] = committees();
    let file = "change.json";
    vec![
        with("header: empty", file, StepName::Log, |r| r.header.0.clear()),
        with("header: a byte more", file, StepName::Log, |r| r.header.0.push(0)),
        with("header: a byte less", file, StepName::Log, |r| {
            r.header.0.pop();
        }),
        with("header: version 1", file, StepName::Log, |r| r.header.0[16] = b'1'),
        header("header: another log root", file, StepName::Log, &seven, |h| h.log_root.0[0] ^= 1),
        header("header: another log size", file, StepName::Log, &seven, |h| h.log_size.0 += 2),
        header("header: another chain", file, StepName::Header, &seven, |h| h.chain_id.push('x')),
        header("header: another epoch", file, StepName::Header, &seven, |h| h.epoch += 1),
        header("header: a height of another epoch", file, StepName::Header, &seven, |h| h.height.0 += 10),
        header("header: of the epoch of the last change", file, StepName::Header, &seven, |h| {
            (h.height, h.epoch) = (Height(12), 1);
        }),
        header("header: other validators", file, StepName::Header, &seven, |h| h.validators_hash.0[3] ^= 1),
        header("header: validators of the genesis", file, StepName::Header, &four, |h| {
            h.validators_hash = chain::committee(&committees()[0]).hash();
        }),
        header("header: validators of a later epoch", file, StepName::Header, &five, |h| {
            h.validators_hash = chain::committee(&committees()[2]).hash();
        }),
        with("header: another timestamp", file, StepName::Certificate, |r| {
            let mut header = Header::decode(&r.header.0).unwrap();
            header.timestamp_ms += 1;
            r.header.0 = header.encode();
        }),
        header("header: another state root, certified", file, None, &seven, |h| h.state_root.0[0] ^= 1),
        header("header: another next committee, certified", file, None, &seven, |h| h.next_validators_hash.0[0] ^= 1),
    ]
}

fn checkpoints() -> Vec<Made> {
    let step = Some(StepName::Checkpoint);
    let note = |name: &str, step, edit: &dyn Fn(String) -> String| {
        with(&format!("checkpoint: {name}"), "checkpoint.json", step, |r| {
            r.checkpoint = r.checkpoint.take().map(edit);
        })
    };
    // The note of another header, by the same validators.
    let of = |name: &str, edit: fn(&mut Header)| {
        with(&format!("checkpoint: {name}"), "checkpoint.json", step, |r| {
            let mut header = Header::decode(&r.header.0).unwrap();
            edit(&mut header);
            r.checkpoint = Some(chain::checkpoint(&header, &committees()[1][1..6]));
        })
    };
    let line = |at: usize, edit: fn(&mut Vec<u8>)| {
        move |text: String| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let (name, encoded) = lines[at].rsplit_once(' ').unwrap();
            let mut bytes = STANDARD.decode(encoded).unwrap();
            edit(&mut bytes);
            lines[at] = format!("{name} {}", STANDARD.encode(bytes));
            lines.join("\n") + "\n"
        }
    };
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let without = |kept: fn(&str) -> bool| {
        move |text: String| text.lines().filter(|line| kept(line)).fold(String::new(), |all, line| all + line + "\n")
    };
    let at = |text: &str| format!("— {text}");
    vec![
        with("checkpoint: null", "checkpoint.json", None, |r| r.checkpoint = None),
        note("empty", step, &|_| String::new()),
        note("text alone", step, &|text| text.split_inclusive('\n').take(3).collect()),
        note("without its last newline", step, &|text| text.trim_end().to_owned()),
        note("with an empty line at its end", step, &|text| text + "\n"),
        note("with a control character", step, &|text| text.replacen("cairn", "cairn\u{1}", 1)),
        note("another dash", step, &|text| text.replacen('—', "-", 1)),
        note("an extension line", step, &|text| text.replacen("\n\n", "\nextension\n\n", 1)),
        note("a size with a leading zero", step, &|text| text.replacen("\n9\n", "\n09\n", 1)),
        of("another size", |header| header.log_size.0 += 1),
        of("another root", |header| header.log_root.0[0] ^= 1),
        of("another log", |header| header.chain_id.push('x')),
        note("a bit of a validator's signature as the log", step, &line(4, flip)),
        note("a bit of a validator's cosignature", step, &line(5, flip)),
        note("another time of a cosignature", step, &line(5, |bytes| bytes[11] ^= 1)),
        note("a signature cut short", step, &line(6, |bytes| bytes.truncate(60))),
        note(
            "by a witness alone",
            step,
            &without(|line| !line.contains("golden-receipts ") && !line.contains("/validator/")),
        ),
        note("by one validator", None, &|text| text.split_inclusive('\n').take(5).collect()),
        note("without the witness", None, &without(|line| !line.contains("witness"))),
        note("a bit of a witness' signature that nobody checks", None, &line(14, flip)),
        note("a line by a stranger", None, &|text| text + &at("stranger.example/log AAAAAAECAwQFBgcICQ==\n")),
        with("checkpoint: of another receipt", "one.json", step, |r| {
            r.checkpoint =
                Some(chain::checkpoint(&Header::decode(&base("thousand.json").header.0).unwrap(), &committees()[0]));
        }),
        with("checkpoint: by validators of another epoch", "checkpoint.json", step, |r| {
            let header = Header::decode(&r.header.0).unwrap();
            r.checkpoint = Some(chain::checkpoint(&header, &chain::keys(11..=14)));
        }),
    ]
}

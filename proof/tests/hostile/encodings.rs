//! Records, anchors and headers: each item in every wrong encoding, and at both ends of its range.

use cairn_proof::receipt::{Base64Bytes, Receipt, TreePath};
use cairn_proof::{Digest, LeafIndex, tree};

use super::{
    ANCHOR_TYPE, Hostile, Items, anchor_items, array, bad, block, certificate, envelope, good, header_items, item, key,
    number, octets, payload, plain, protected, receipt, receipt_over, record_items, sig_structure, signed_envelope,
    words,
};

/// The same item with a head one size longer than it needs.
fn longer_head(item: &[u8]) -> Vec<u8> {
    let (major, info) = (item[0] & 0xe0, item[0] & 0x1f);
    let (value, rest): (u64, usize) = match info {
        0..=23 => (u64::from(info), 1),
        24 => (u64::from(item[1]), 2),
        25 => (u64::from(u16::from_be_bytes([item[1], item[2]])), 3),
        26 => (u64::from(u32::from_be_bytes(item[1..5].try_into().unwrap())), 5),
        _ => panic!("no longer head than that of 64 bits"),
    };
    let wide = value.to_be_bytes();
    let head = match info {
        0..=23 => [vec![major | 24], wide[7..].to_vec()].concat(),
        24 => [vec![major | 25], wide[6..].to_vec()].concat(),
        25 => [vec![major | 26], wide[4..].to_vec()].concat(),
        _ => [vec![major | 27], wide.to_vec()].concat(),
    };
    [head, item[rest..].to_vec()].concat()
}

/// Every item in turn: with a longer head, of other types, missing, twice; and the whole with more or less around it.
fn wrong_items(items: &Items, whole: impl Fn(&[Vec<u8>]) -> Vec<u8>, nullable: &[usize]) -> Vec<(String, Vec<u8>)> {
    let mut wrong = vec![];
    for (place, right) in items.iter().enumerate() {
        let mut with = |what: &str, bytes: Vec<u8>| {
            let mut changed = items.clone();
            changed[place] = bytes;
            wrong.push((format!("item {place} {what}"), whole(&changed)));
        };
        if right[0] & 0x1f != 27 {
            with("with a longer head", longer_head(right));
        }
        if !nullable.contains(&place) {
            with("null", vec![0xf6]);
        }
        with("undefined", vec![0xf7]);
        with("true", vec![0xf5]);
        with("a float", vec![0xf9, 0x3c, 0x00]);
        with("tagged", [&[0xc0][..], right].concat());
        with("a map", vec![0xa0]);
        with("reserved", vec![0x1c]);
        with("of indefinite length", vec![(right[0] & 0xe0) | 0x1f, 0xff]);
        // Of a number, this is a number: not of this kind.
        if right[0] >= 0x40 {
            with("of a length beyond the end", vec![(right[0] & 0xe0) | 27, 0, 0, 0, 1, 0, 0, 0, 0]);
            with("of the greatest length", [vec![(right[0] & 0xe0) | 27], vec![0xff; 8]].concat());
        }
        with("missing", vec![]);
        with("twice", right.repeat(2));
    }
    let right = whole(items);
    for (what, by) in [("the head says one item less", u8::MAX), ("the head says one item more", 1)] {
        let mut changed = right.clone();
        changed[0] = changed[0].wrapping_add(by);
        wrong.push((what.into(), changed));
    }
    wrong.push(("a longer head in front".into(), longer_head(&right)));
    wrong.push(("one item less".into(), whole(&items[..items.len() - 1])));
    wrong.push(("one item more".into(), whole(&[items.clone(), vec![number(0)]].concat())));
    wrong.push(("a byte more".into(), [&right[..], &[0]].concat()));
    wrong.push(("a byte less".into(), right[..right.len() - 1].to_vec()));
    wrong.push(("nothing".into(), vec![]));
    let indefinite = [vec![(right[0] & 0xe0) | 0x1f], right[1..].to_vec(), vec![0xff]].concat();
    wrong.push(("of indefinite length".into(), indefinite));
    wrong
}

/// A receipt of a record that is anchored as it is.
fn of_record(record: Vec<u8>) -> Receipt {
    let anchor = anchor_items(&record);
    receipt_over(record, &anchor)
}

fn with_record(place: usize, value: Vec<u8>) -> Receipt {
    let mut items = record_items();
    items[place] = value;
    of_record(array(&items))
}

fn records() -> Vec<Hostile> {
    let mut cases: Vec<_> = wrong_items(&record_items(), array, &[5, 6])
        .into_iter()
        .map(|(name, bytes)| bad("record", format!("record: {name}"), &of_record(bytes)))
        .collect();
    let headers = |count: usize| array(&vec![array(&[words("n"), vec![0xf6]]); count]);
    let text = |bytes: &[u8]| [item(|w| w.bytes(bytes))[0] | 0x20].into_iter().chain(bytes.iter().copied()).collect();
    let wrong: Vec<(&str, usize, Vec<u8>)> = vec![
        ("another mark", 0, words("cairn/record/v2")),
        ("a topic that is not UTF-8", 1, text(&[0xff])),
        ("a topic with an overlong encoding", 1, text(&[0xc0, 0x80])),
        ("a topic with a surrogate", 1, text(&[0xed, 0xa0, 0x80])),
        ("a topic beyond U+10FFFF", 1, text(&[0xf4, 0x90, 0x80, 0x80])),
        ("a topic that ends within a character", 1, text(&[0xe2, 0x82])),
        ("a topic as bytes", 1, octets(b"traffic.flow")),
        ("a partition of 33 bits", 2, number(1 << 32)),
        ("a negative partition", 2, vec![0x20]),
        ("a negative offset", 3, vec![0x26]),
        ("a timestamp of 2^63", 4, number(1 << 63)),
        ("a timestamp below -2^63", 4, vec![0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("the least number of CBOR", 4, [&[0x3b][..], &[0xff; 8]].concat()),
        ("a key as text", 5, words("key")),
        ("1025 headers", 7, headers(1025)),
        ("a header of three", 7, array(&[array(&[words("n"), vec![0xf6], vec![0xf6]])])),
        ("a header that says that it is of one", 7, [&[0x81, 0x81][..], &words("n"), &[0xf6]].concat()),
        ("a header that says that it is of three", 7, [&[0x81, 0x83][..], &words("n"), &[0xf6]].concat()),
        ("a header's name as bytes", 7, array(&[array(&[octets(b"n"), vec![0xf6]])])),
        ("a header's value as text", 7, array(&[array(&[words("n"), words("v")])])),
        ("headers as a map", 7, [vec![0xa1], words("n"), vec![0xf6]].concat()),
        ("a salt of 15 bytes", 8, octets(&[5; 15])),
        ("a salt of 17 bytes", 8, octets(&[5; 17])),
    ];
    for (name, place, value) in wrong {
        cases.push(bad("record", format!("record: {name}"), &with_record(place, value)));
    }
    let right: Vec<(&str, usize, Vec<u8>)> = vec![
        ("no key", 5, vec![0xf6]),
        ("an empty key", 5, octets(b"")),
        ("no value", 6, vec![0xf6]),
        ("an empty value", 6, octets(b"")),
        ("a long value", 6, octets(&vec![1; 70_000])),
        ("an empty topic", 1, words("")),
        ("a topic with a mark of byte order in front", 1, words("\u{feff}traffic")),
        ("a topic in many letters", 1, words("Straßenverkehr 東京 🚦")),
        ("1024 headers", 7, headers(1024)),
        ("no headers", 7, array(&[])),
    ];
    cases.extend(
        right.into_iter().map(|(name, place, value)| good(format!("record: {name}"), &with_record(place, value))),
    );
    cases
}

/// A receipt whose record and anchor are changed item by item.
fn changed(record: &[(usize, Vec<u8>)], anchor: &[(usize, Vec<u8>)]) -> Receipt {
    let mut items = record_items();
    record.iter().for_each(|(place, value)| items[*place] = value.clone());
    let record = array(&items);
    let mut items = anchor_items(&record);
    anchor.iter().for_each(|(key, value)| items[*key - 1] = value.clone());
    receipt_over(record, &items)
}

fn negative(value: i64) -> Vec<u8> {
    item(|w| w.signed(value))
}

fn gaps(gaps: &[(u64, u64)]) -> Vec<u8> {
    array(&gaps.iter().map(|(first, last)| array(&[number(*first), number(*last)])).collect::<Vec<_>>())
}

fn segment(path: &str) -> Vec<u8> {
    array(&[words(path), number(999), octets(&[3; 32])])
}

fn anchors() -> Vec<Hostile> {
    let record = array(&record_items());
    let mut cases: Vec<_> = wrong_items(&anchor_items(&record), payload, &[])
        .into_iter()
        .map(|(name, bytes)| {
            let envelope = signed_envelope(&protected(ANCHOR_TYPE), &bytes);
            bad("anchor", format!("anchor: {name}"), &receipt(record.clone(), envelope, &block()))
        })
        .collect();
    let long = "a".repeat(63);
    let names = [
        "",
        ".",
        "traffic",
        "traffic.",
        ".flow",
        "a.b.c",
        "Traffic.flow",
        "traffic.Flow",
        "1a.b",
        "a.1b",
        "a.b-c",
        "a.b\n",
        "a b.c",
        "ä.b",
        "cairn.flow",
        "information_schema.flow",
        "pg_catalog.flow",
        "public.flow",
        "datafusion.flow",
    ];
    let mut wrong: Vec<(String, Vec<(usize, Vec<u8>)>)> =
        names.iter().map(|name| (format!("stream {name:?}"), vec![(2, words(name))])).collect();
    wrong.push(("stream of 64 letters".into(), vec![(2, words(&format!("a.{long}b")))]));
    let paths =
        ["", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "a/../b", "a b", "a\\b", "a\n", "ä", "a:b", "%2e/a"];
    wrong.extend(paths.iter().map(|path| (format!("segment {path:?}"), vec![(13, segment(path))])));
    wrong.push(("segment of 513 letters".into(), vec![(13, segment(&"a".repeat(513)))]));
    let top = 1u64 << 63;
    let many: Vec<_> = (0..1025).map(|place| (8 + 2 * place, 8 + 2 * place)).collect();
    let numbers: Vec<(&str, Vec<(usize, Vec<u8>)>)> = vec![
        ("a partition of 33 bits", vec![(3, number(1 << 32))]),
        ("offsets backwards", vec![(4, number(8)), (7, number(0))]),
        ("an offset of 2^63", vec![(5, number(top)), (7, number(top - 6))]),
        ("the greatest offsets", vec![(4, number(u64::MAX)), (5, number(u64::MAX))]),
        ("all numbers as offsets", vec![(4, number(0)), (5, number(u64::MAX)), (7, number(0))]),
        ("too few records", vec![(7, number(0))]),
        ("too many records", vec![(7, number(2))]),
        ("more quarantined than there are", vec![(8, number(2))]),
        ("timestamps backwards", vec![(10, number(1001))]),
        ("a timestamp of 2^63", vec![(11, number(top))]),
        ("a gap in front of the batch", vec![(6, gaps(&[(6, 6)])), (7, number(0))]),
        ("a gap behind the batch", vec![(6, gaps(&[(8, 8)])), (7, number(0))]),
        ("a gap beyond the end", vec![(5, number(9)), (6, gaps(&[(9, 10)])), (7, number(1))]),
        ("a gap backwards", vec![(5, number(12)), (6, gaps(&[(10, 9)])), (7, number(6))]),
        ("gaps that touch", vec![(5, number(12)), (6, gaps(&[(8, 8), (9, 9)])), (7, number(4))]),
        ("gaps that overlap", vec![(5, number(12)), (6, gaps(&[(8, 10), (10, 11)])), (7, number(1))]),
        ("gaps out of order", vec![(5, number(12)), (6, gaps(&[(11, 11), (8, 8)])), (7, number(4))]),
        ("a gap to the greatest number", vec![(6, gaps(&[(8, u64::MAX)]))]),
        ("1025 gaps", vec![(5, number(3000)), (6, gaps(&many)), (7, number(2994 - 1025))]),
        ("a gap of three", vec![(6, array(&[array(&[number(8), number(8), number(8)])]))]),
        ("a gap that says that it is of one", vec![(5, number(8)), (6, vec![0x81, 0x81, 0x08, 0x08])]),
        ("a gap that says that it is of three", vec![(5, number(8)), (6, vec![0x81, 0x83, 0x08, 0x08])]),
        ("a segment that says that it is of two", vec![(13, [&[0x82][..], &segment("a")[1..]].concat())]),
        ("a segment that says that it is of four", vec![(13, [&[0x84][..], &segment("a")[1..]].concat())]),
        ("a segment of two", vec![(13, array(&[words("a"), number(1)]))]),
    ];
    wrong.extend(numbers.into_iter().map(|(name, items)| (name.to_owned(), items)));
    cases
        .extend(wrong.into_iter().map(|(name, items)| bad("anchor", format!("anchor: {name}"), &changed(&[], &items))));
    let last = (1u64 << 63) - 1;
    let right: Vec<(&str, Vec<(usize, Vec<u8>)>, Vec<(usize, Vec<u8>)>)> = vec![
        ("the longest stream name", vec![], vec![(2, words(&format!("{long}.{long}")))]),
        ("the longest segment path", vec![], vec![(13, segment(&"a".repeat(512)))]),
        ("a segment path of all characters", vec![], vec![(13, segment("A0/._-=/.../..a"))]),
        ("a sequence of 64 bits", vec![], vec![(1, number(u64::MAX))]),
        ("the last offset", vec![(3, number(last))], vec![(4, number(last)), (5, number(last))]),
        ("a quarantined record", vec![], vec![(8, number(1))]),
        ("a gap on either side", vec![], vec![(4, number(0)), (5, number(9)), (6, gaps(&[(0, 6), (8, 9)]))]),
        ("the partition of 32 bits", vec![(2, number(u64::from(u32::MAX)))], vec![(3, number(u64::from(u32::MAX)))]),
        (
            "the least timestamp",
            vec![(4, negative(i64::MIN))],
            vec![(10, negative(i64::MIN)), (11, negative(i64::MAX))],
        ),
        ("the greatest timestamp", vec![(4, negative(i64::MAX))], vec![(10, negative(-1)), (11, negative(i64::MAX))]),
        ("a topic that is not the stream's", vec![(1, words("other"))], vec![]),
    ];
    cases.extend(
        right.into_iter().map(|(name, record, anchor)| good(format!("anchor: {name}"), &changed(&record, &anchor))),
    );
    let apart: Vec<(&str, Vec<(usize, Vec<u8>)>, Vec<(usize, Vec<u8>)>)> = vec![
        ("another partition", vec![(2, number(2))], vec![]),
        ("an offset before the batch", vec![(3, number(6))], vec![]),
        ("an offset behind the batch", vec![(3, number(8))], vec![]),
        ("the greatest number as offset", vec![(3, number(u64::MAX))], vec![]),
        ("an offset in a gap", vec![(3, number(8))], vec![(5, number(8)), (6, gaps(&[(8, 8)]))]),
        ("an earlier timestamp", vec![(4, number(999))], vec![]),
        ("a later timestamp", vec![(4, number(1001))], vec![]),
        ("another root", vec![], vec![(9, octets(&[0; 32]))]),
        ("another place", vec![], vec![(4, number(6)), (7, number(2))]),
    ];
    cases.extend(
        apart
            .into_iter()
            .map(|(name, record, anchor)| bad("batch", format!("batch: {name}"), &changed(&record, &anchor))),
    );
    cases.push(in_a_gap());
    cases.extend(envelopes(&record));
    cases
}

/// A record in a gap, whose leaf stands where the one behind the gap belongs.
fn in_a_gap() -> Hostile {
    let mut items = record_items();
    items[3] = number(8);
    let (first, leaf) = (Digest([4; 32]), tree::leaf_hash(&array(&items)));
    let root = octets(tree::node_hash(&first, &leaf).as_ref());
    let anchor = [(5, number(9)), (6, gaps(&[(8, 8)])), (7, number(2)), (9, root)];
    let mut receipt = changed(&[(3, number(8))], &anchor);
    receipt.batch = TreePath { index: LeafIndex(1), path: vec![first] };
    bad("batch", "batch: a leaf for an offset in a gap", &receipt)
}

/// The envelope around a right payload.
fn envelopes(record: &[u8]) -> Vec<Hostile> {
    let payload = payload(&anchor_items(record));
    let right = protected(ANCHOR_TYPE);
    let identity = "application/vnd.cairn.register-identity.v1+cbor";
    let kid = octets(key(9).identity().0.as_ref());
    let kind = words(ANCHOR_TYPE);
    let alg = [0x01, 0x27];
    let headers: Vec<(&str, Vec<u8>)> = vec![
        ("another content type", protected(identity)),
        ("a content type of no kind", protected("application/cbor")),
        ("the content type as a number", [&[0xa3][..], &alg, &[0x03, 0x18, 0x3c, 0x04], &kid].concat()),
        ("another algorithm", [&[0xa3, 0x01, 0x26, 0x03][..], &kind, &[0x04], &kid].concat()),
        ("no algorithm", [&[0xa2, 0x03][..], &kind, &[0x04], &kid].concat()),
        ("no key id", [&[0xa2][..], &alg, &[0x03], &kind].concat()),
        ("a key id of 31 bytes", [&[0xa3][..], &alg, &[0x03], &kind, &[0x04], &octets(&[1; 31])].concat()),
        ("headers in another order", [&[0xa3, 0x03][..], &kind, &alg, &[0x04], &kid].concat()),
        ("a header twice", [&[0xa4][..], &alg, &alg, &[0x03], &kind, &[0x04], &kid].concat()),
        ("a header more", [&[0xa4][..], &alg, &[0x03], &kind, &[0x04], &kid, &[0x05, 0x41, 0x00]].concat()),
        ("a longer head of the map", [&[0xb8, 0x03][..], &right[1..]].concat()),
        ("a longer head of the algorithm", [&[0xa3, 0x01, 0x38, 0x07, 0x03][..], &kind, &[0x04], &kid].concat()),
        ("a map of indefinite length", [&[0xbf][..], &right[1..], &[0xff]].concat()),
        ("an empty map", vec![0xa0]),
        ("nothing", vec![]),
        ("a byte more", [&right[..], &[0]].concat()),
    ];
    let mut cases: Vec<_> = headers
        .into_iter()
        .map(|(name, headers)| (format!("protected: {name}"), signed_envelope(&headers, &payload)))
        .collect();
    let signature = key(9).sign(&sig_structure(&right, &payload));
    let whole = envelope(&right, &payload, &signature);
    let parts = |unprotected: &[u8], payload: &[u8], signature: &[u8]| {
        [&[0xd2, 0x84][..], &octets(&right), unprotected, payload, signature].concat()
    };
    let (p, s) = (octets(&payload), octets(&signature));
    let others: Vec<(&str, Vec<u8>)> = vec![
        ("without the tag", whole[1..].to_vec()),
        ("another tag", [&[0xd1][..], &whole[1..]].concat()),
        ("a longer tag", [&[0xd8, 0x12][..], &whole[1..]].concat()),
        ("the tag twice", [&[0xd2][..], &whole].concat()),
        ("a header that is not protected", parts(&[0xa1, 0x01, 0x27], &p, &s)),
        ("no map of unprotected headers", parts(&[0xf6], &p, &s)),
        ("the payload elsewhere", parts(&[0xa0], &[0xf6], &s)),
        ("the payload as text", parts(&[0xa0], &words("payload"), &s)),
        ("a longer head of the payload", parts(&[0xa0], &longer_head(&p), &s)),
        ("a longer head of the signature", parts(&[0xa0], &p, &longer_head(&s))),
        ("a signature of 63 bytes", parts(&[0xa0], &p, &octets(&signature[..63]))),
        ("a signature of 65 bytes", parts(&[0xa0], &p, &octets(&[&signature[..], &[0]].concat()))),
        ("no signature", parts(&[0xa0], &p, &octets(&[]))),
        ("an array of five", [&[0xd2, 0x85][..], &whole[2..], &[0xf6]].concat()),
        ("an array of indefinite length", [&[0xd2, 0x9f][..], &whole[2..], &[0xff]].concat()),
        ("a byte more", [&whole[..], &[0]].concat()),
        ("a byte less", whole[..whole.len() - 1].to_vec()),
        ("nothing", vec![]),
        ("65,536 bytes", vec![0xd2; 65_536]),
    ];
    cases.extend(others.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)));
    cases
        .into_iter()
        .map(|(name, bytes)| bad("anchor", format!("envelope: {name}"), &receipt(record.to_vec(), bytes, &block())))
        .collect()
}

/// A receipt whose header is these bytes, certified as they are.
fn with_header(bytes: Vec<u8>) -> Receipt {
    let mut changed = plain();
    changed.certificate = Base64Bytes(certificate(&block(), &bytes).bytes());
    changed.header = Base64Bytes(bytes);
    changed
}

/// The root that a leaf at this place leads to, by the path's length alone: siblings are all the same.
fn root_above(leaf: Digest, index: u64, size: u64, path: &[Digest]) -> Digest {
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if at & 1 == 1 || at == last {
            hash = tree::node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = tree::node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    hash
}

/// A receipt of a log of this size, with the anchor at this place.
fn in_a_log_of(index: u64, size: u64) -> Receipt {
    let mut changed = plain();
    let path = vec![Digest([9; 32]); tree::inclusion_path_length(LeafIndex(index), cairn_proof::TreeSize(size))];
    let root = root_above(tree::leaf_hash(&changed.anchor.0), index, size, &path);
    let header = array(&header_items(&block(), root, size));
    changed.log = TreePath { index: LeafIndex(index), path };
    changed.certificate = Base64Bytes(certificate(&block(), &header).bytes());
    changed.header = Base64Bytes(header);
    changed
}

fn headers() -> Vec<Hostile> {
    let log = [tree::leaf_hash(b"another"), tree::leaf_hash(&plain().anchor.0), tree::leaf_hash(b"a third")];
    let items = header_items(&block(), tree::root(&log), 3);
    let mut cases: Vec<_> = wrong_items(&items, array, &[])
        .into_iter()
        .map(|(name, bytes)| bad("log", format!("header: {name}"), &with_header(bytes)))
        .collect();
    let mut with = |step, name: &str, place: usize, value: Vec<u8>| {
        let mut changed = items.clone();
        changed[place] = value;
        cases.push(bad(step, format!("header: {name}"), &with_header(array(&changed))));
    };
    with("log", "the mark of version 1", 0, words("cairn/header/v1"));
    with("log", "a longer name than it may be", 1, words(&"h".repeat(600)));
    with("log", "another log root", 12, octets(&[0; 32]));
    with("log", "an empty log", 13, number(0));
    with("log", "a log of two", 13, number(2));
    with("log", "a log of five", 13, number(5));
    with("header", "another chain", 1, words("hostile2"));
    with("header", "another epoch", 2, number(0));
    with("header", "a height of another epoch", 6, number(20));
    with("header", "another committee", 14, octets(&[0; 32]));
    with("certificate", "another view than the certificate's", 3, number(301));
    with("certificate", "another parent view than the certificate's", 4, number(298));
    let mut twisted = plain();
    twisted.log.path.reverse();
    cases.push(bad("log", "log: the path backwards", &twisted));
    twisted.log.path.pop();
    cases.push(bad("log", "log: a hash less", &twisted));
    let mut longer = plain();
    longer.log.path.push(Digest::ZERO);
    cases.push(bad("log", "log: a hash more", &longer));
    longer.batch.path.push(Digest::ZERO);
    cases.push(bad("batch", "batch: a hash more than none", &longer));
    for (index, size) in [
        (0, 1),
        (2, 3),
        (5, 7),
        (1 << 53, (1 << 53) + 1),
        ((1 << 53) + 1, 1 << 60),
        (u64::MAX - 1, u64::MAX),
        (0, u64::MAX),
        (1 << 63, (1 << 63) + 3),
    ] {
        let receipt = in_a_log_of(index, size);
        cases.push(good(format!("log: place {index} of {size}"), &receipt));
        let mut elsewhere = receipt.clone();
        elsewhere.log.index = LeafIndex(index ^ 1);
        cases.push(bad("log", format!("log: place {index} of {size}, said to be {}", index ^ 1), &elsewhere));
        elsewhere.log.index = LeafIndex(size);
        cases.push(bad("log", format!("log: place {size} of {size}"), &elsewhere));
    }
    cases
}

pub(super) fn all() -> Vec<Hostile> {
    [records(), anchors(), headers()].into_iter().flatten().collect()
}

//! State proofs: every kind of subject, present and absent, at the ends of its numbers and with every kind of letter; and
//! tries and files that are wrong in one point.

use cairn_proof::digest::sha256;
use cairn_proof::state_proof::{StateProof, StateProofParts, Subject};
use cairn_proof::statement::Role;
use cairn_proof::{Digest, Partition, trie};

use super::{Expected, Hostile, array, block, certificate, header_items, key, octets};

/// Key and value of an entry.
type Entry = (Digest, Vec<u8>);

/// The root over sorted entries, and what leads to `key` or to where it would be, from the root down.
fn walk(entries: &[Entry], key: &Digest, path: &mut Vec<(u16, Digest)>) -> Digest {
    let hash = |entry: &Entry| trie::leaf_hash(&entry.0, &sha256(&[&entry.1]));
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return trie::EMPTY_ROOT };
    let Some(bit) = trie::first_difference(&first.0, &last.0) else { return hash(first) };
    let (left, right) = entries.split_at(entries.partition_point(|entry| !trie::bit_of(&entry.0, bit)));
    let place = path.len();
    path.push((bit, Digest::ZERO));
    let mut elsewhere = vec![];
    let on_right = trie::bit_of(key, bit);
    let (left, right) = if on_right {
        (walk(left, key, &mut elsewhere), walk(right, key, path))
    } else {
        (walk(left, key, path), walk(right, key, &mut elsewhere))
    };
    path[place].1 = if on_right { left } else { right };
    trie::branch_hash(bit, &left, &right)
}

/// The proof about a subject in a state of these entries.
fn proof(subject: Subject, mut entries: Vec<Entry>) -> StateProof {
    entries.sort();
    let (key, mut path) = (subject.key(), vec![]);
    let root = walk(&entries, &key, &mut path);
    let on_path = |entry: &&Entry| path.iter().all(|(bit, _)| trie::bit_of(&entry.0, *bit) == trie::bit_of(&key, *bit));
    let end = entries.iter().find(on_path);
    let value = end.filter(|entry| entry.0 == key).map(|entry| entry.1.clone());
    let neighbour = end.filter(|entry| entry.0 != key).map(|entry| (entry.0, sha256(&[&entry.1])));
    let mut items = header_items(&block(), Digest::ZERO, 0);
    items[11] = octets(root.as_ref());
    let header = array(&items);
    let certificate = certificate(&block(), &header).bytes();
    StateProof::new(subject, StateProofParts { value, path, neighbour }, vec![], header, certificate)
}

fn subjects() -> Vec<Subject> {
    let (public, id, digest) = (key(1).public(), key(1).identity(), Digest([7; 32]));
    let stream = "traffic.flow".to_owned();
    let mut subjects = vec![
        Subject::Identity { id },
        Subject::Key { key: public },
        Subject::Sequence { id },
        Subject::Stream { name: stream.clone() },
        Subject::Role { stream: stream.clone(), role: Role::Anchorer, identity: id },
        Subject::Role { stream: stream.clone(), role: Role::Publisher, identity: id },
        Subject::Anchor { id: digest },
        Subject::Validator { key: public },
        Subject::Proposal { id: digest },
        Subject::Committee {},
        Subject::NextCommittee {},
        Subject::Parameters {},
        Subject::NextParameters {},
        Subject::Attested {},
    ];
    subjects
        .extend([0, 1, u32::MAX].map(|number| Subject::Head { stream: stream.clone(), partition: Partition(number) }));
    subjects.extend([(0, 1), (u64::MAX, (1 << 53) + 1), (1 << 63, u64::MAX)].map(|(epoch, view)| Subject::Evidence {
        validator: public,
        epoch,
        view,
    }));
    let texts = [
        "",
        "\"",
        "\\",
        "/",
        "a\"b\\c",
        "\\u2028",
        "\u{2028}\u{2029}",
        "\u{0}\u{1}\u{8}\u{9}\u{a}\u{b}\u{c}\u{d}\u{1f}",
        "\u{7f}",
        "\u{80}\u{85}\u{a0}",
        "<&>",
        "\u{feff}",
        "ß東🚦",
        "\u{e000}\u{fffd}\u{ffff}\u{10ffff}",
        "__proto__",
        "]\n  },\n",
        "\"partition\": 1,",
        "\n    \"partition\": 1,\n",
    ];
    subjects.extend(texts.map(|topic| Subject::Topic { topic: topic.to_owned() }));
    subjects
}

fn case(name: &str, proof: &StateProof, expected: Expected) -> Hostile {
    Hostile { name: format!("state: {name}"), bytes: proof.to_json().unwrap(), expected }
}

fn right() -> Vec<Hostile> {
    let subjects = subjects();
    let entry = |subject: &Subject| (subject.key(), format!("value of {subject:?}").into_bytes());
    let all: Vec<_> = subjects.iter().map(entry).collect();
    let mut cases = vec![];
    for subject in &subjects {
        let without: Vec<_> = all.iter().filter(|entry| entry.0 != subject.key()).cloned().collect();
        let states = [
            ("of all", all.clone()),
            ("of all others", without),
            ("of itself", vec![entry(subject)]),
            ("of nothing", vec![]),
        ];
        for (state, entries) in states {
            cases.push(case(
                &format!("{subject:?} in a state {state}"),
                &proof(subject.clone(), entries),
                Expected::Verified,
            ));
        }
    }
    let empty = (subjects[0].key(), vec![]);
    // The file may have 16 MiB; three bytes of the value are four of it.
    for (length, expected) in [(12_580_000, Expected::Verified), (12_583_000, Expected::Refused("form"))] {
        let value = (subjects[0].key(), vec![1; length]);
        cases.push(case(&format!("a value of {length} bytes"), &proof(subjects[0].clone(), vec![value]), expected));
    }
    cases.push(case("an empty value", &proof(subjects[0].clone(), vec![empty]), Expected::Verified));
    cases
}

fn wrong_tries() -> Vec<Hostile> {
    let subjects = subjects();
    let entry = |subject: &Subject| (subject.key(), b"value".to_vec());
    let (asked, others) = subjects.split_first().unwrap();
    let present = || proof(asked.clone(), subjects.iter().map(entry).collect());
    let absent = || proof(asked.clone(), others.iter().map(entry).collect());
    let nothing = || proof(asked.clone(), vec![]);
    type Change = fn(&mut StateProof);
    let changes: Vec<(&str, StateProof, Change)> = vec![
        ("another value", present(), |p| p.value.as_mut().unwrap().0[0] ^= 1),
        ("no value", present(), |p| p.value = None),
        ("a neighbour too", present(), |p| p.neighbour = Some((Digest::ZERO, Digest::ZERO))),
        ("another subject", present(), |p| p.subject = Subject::Attested {}),
        ("no path", present(), |p| p.path.clear()),
        ("a step less at the root", present(), |p| {
            p.path.remove(0);
        }),
        ("a step less at the leaf", present(), |p| {
            p.path.pop();
        }),
        ("a step more", present(), |p| p.path.push((255, Digest::ZERO))),
        ("a step twice", present(), |p| p.path.insert(0, p.path[0])),
        ("the path upside down", present(), |p| p.path.reverse()),
        ("a bit beyond a key", present(), |p| p.path.last_mut().unwrap().0 = 256),
        ("the greatest bit", present(), |p| p.path.last_mut().unwrap().0 = u16::MAX),
        ("another bit", present(), |p| p.path.last_mut().unwrap().0 += 1),
        ("another sibling", present(), |p| p.path[0].1 = Digest::ZERO),
        ("a value that is not there", absent(), |p| p.value = p.clone().value.or_else(|| Some(p.header.clone()))),
        ("no neighbour", absent(), |p| p.neighbour = None),
        ("the key as its own neighbour", absent(), |p| p.neighbour.as_mut().unwrap().0 = p.subject.key()),
        ("another neighbour", absent(), |p| p.neighbour.as_mut().unwrap().0 = Digest([0xff; 32])),
        ("another value of the neighbour", absent(), |p| p.neighbour.as_mut().unwrap().1 = Digest::ZERO),
        ("a path in an empty state", nothing(), |p| p.path.push((0, Digest::ZERO))),
        ("a neighbour in an empty state", nothing(), |p| p.neighbour = Some((Digest::ZERO, Digest::ZERO))),
        ("a value in an empty state", nothing(), |p| p.value = Some(p.header.clone())),
    ];
    let mut cases: Vec<_> = changes
        .into_iter()
        .map(|(name, mut proof, change)| {
            change(&mut proof);
            case(name, &proof, Expected::Refused("state"))
        })
        .collect();
    let mut long = present();
    long.path = (0..257).map(|bit| (bit, Digest::ZERO)).collect();
    cases.push(case("257 steps", &long, Expected::Refused("form")));
    long.path.pop();
    cases.push(case("256 steps", &long, Expected::Refused("state")));
    let mut header = present();
    header.header.0[20] ^= 1;
    cases.push(case("another header", &header, Expected::Refused("header")));
    let mut certificate = present();
    certificate.certificate.0[80] ^= 1;
    cases.push(case("another certificate", &certificate, Expected::Refused("certificate")));
    cases
}

fn wrong_files() -> Vec<Hostile> {
    let (id, public) = (key(1).identity(), key(1).public());
    let text = |subject: Subject| {
        String::from_utf8(proof(subject, vec![(Digest([1; 32]), vec![1])]).to_json().unwrap()).unwrap()
    };
    let head = text(Subject::Head { stream: "a.b".into(), partition: Partition(1) });
    let evidence = text(Subject::Evidence { validator: public, epoch: 1, view: 2 });
    let role = text(Subject::Role { stream: "a.b".into(), role: Role::Anchorer, identity: id });
    let validator = text(Subject::Validator { key: public });
    let committee = text(Subject::Committee {});
    let neighbour = "\"neighbour\": [\n";
    let hash = format!("\"{}\"", "01".repeat(32));
    let mut cases = vec![];
    let mut replaced = |name: &str, whole: &str, from: &str, to: &str| {
        let changed = whole.replacen(from, to, 1);
        assert_ne!(changed, whole, "{name}");
        let name = format!("state form: {name}");
        cases.push(Hostile { name, bytes: changed.into_bytes(), expected: Expected::Refused("form") });
    };
    replaced("an unknown kind", &head, "\"head\"", "\"tail\"");
    replaced("a kind that objects have", &head, "\"head\"", "\"constructor\"");
    replaced("no kind", &committee, "\"kind\": \"committee\"", "");
    replaced("a number for a kind", &committee, "\"kind\": \"committee\"", "\"kind\": 1");
    replaced("null for a subject", &committee, "{\n    \"kind\": \"committee\"\n  }", "null");
    replaced("a list for a subject", &committee, "{\n    \"kind\": \"committee\"\n  }", "[]");
    replaced("a field more", &committee, "\"committee\"\n", "\"committee\",\n    \"view\": 1\n");
    replaced("a field less", &head, ",\n    \"partition\": 1", "");
    replaced(
        "fields in another order",
        &head,
        "\"kind\": \"head\",\n    \"stream\": \"a.b\"",
        "\"stream\": \"a.b\",\n    \"kind\": \"head\"",
    );
    replaced("a field of another kind", &head, "\"stream\": \"a.b\"", "\"name\": \"a.b\"");
    replaced("a partition of 33 bits", &head, "\"partition\": 1", "\"partition\": 4294967296");
    replaced("a partition as a text", &head, "\"partition\": 1", "\"partition\": \"1\"");
    replaced("a negative partition", &head, "\"partition\": 1", "\"partition\": -1");
    replaced("a partition with a fraction", &head, "\"partition\": 1", "\"partition\": 1.0");
    replaced("a partition with a leading zero", &head, "\"partition\": 1", "\"partition\": 01");
    replaced("an epoch of 65 bits", &evidence, "\"epoch\": 1", "\"epoch\": 18446744073709551616");
    replaced("a view as a text", &evidence, "\"view\": 2", "\"view\": \"2\"");
    replaced("a view with an exponent", &evidence, "\"view\": 2", "\"view\": 2e0");
    replaced("null for a view", &evidence, "\"view\": 2", "\"view\": null");
    replaced("an unknown role", &role, "\"anchorer\"", "\"owner\"");
    replaced("a role that objects have", &role, "\"anchorer\"", "\"toString\"");
    replaced("a role as a number", &role, "\"anchorer\"", "1");
    replaced("upper-case digits", &validator, &public.to_string(), &public.to_string().to_uppercase());
    replaced("an escaped letter", &head, "\"a.b\"", "\"\\u0061.b\"");
    replaced("an escaped line separator", &head, "\"a.b\"", "\"\\u2028\"");
    replaced("an upper-case escape", &head, "\"a.b\"", "\"\\u001F\"");
    replaced("half a pair of surrogates", &head, "\"a.b\"", "\"\\udc00\"");
    replaced("null for a stream", &head, "\"a.b\"", "null");
    replaced("the mark of another version", &head, "state-proof/v1", "state-proof/v2");
    replaced("the mark of a receipt", &head, "cairn/state-proof/v1", "cairn/receipt/v2");
    replaced("null for a path", &head, "\"path\": []", "\"path\": null");
    replaced("a step of one", &head, "\"path\": []", "\"path\": [\n    [\n      1\n    ]\n  ]");
    replaced(
        "a step of three",
        &head,
        "\"path\": []",
        &format!("\"path\": [\n    [\n      1,\n      {hash},\n      1\n    ]\n  ]"),
    );
    replaced("null for a step", &head, "\"path\": []", "\"path\": [\n    null\n  ]");
    replaced(
        "a bit of 17 bits",
        &head,
        "\"path\": []",
        &format!("\"path\": [\n    [\n      65536,\n      {hash}\n    ]\n  ]"),
    );
    replaced(
        "a bit as a text",
        &head,
        "\"path\": []",
        &format!("\"path\": [\n    [\n      \"1\",\n      {hash}\n    ]\n  ]"),
    );
    replaced(
        "a bit with a fraction",
        &head,
        "\"path\": []",
        &format!("\"path\": [\n    [\n      1.0,\n      {hash}\n    ]\n  ]"),
    );
    replaced("a neighbour of one", &head, &format!("{neighbour}    {hash},\n"), neighbour);
    replaced("a neighbour of three", &head, neighbour, &format!("{neighbour}    {hash},\n"));
    replaced("an object for a neighbour", &head, neighbour, "\"neighbour\": {},\n  \"n\": [\n");
    replaced("a checkpoint", &head, "\n}\n", ",\n  \"checkpoint\": null\n}\n");
    for (name, point) in super::forms::unusable_keys() {
        replaced(&format!("key of {name}"), &validator, &public.to_string(), &point);
    }
    cases
}

pub(super) fn all() -> Vec<Hostile> {
    [right(), wrong_tries(), wrong_files()].into_iter().flatten().collect()
}

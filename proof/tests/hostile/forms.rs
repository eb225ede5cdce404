//! The file: every other way to write the same content, and content of the wrong kind.

use super::{Expected, Hostile, good, key, plain};

fn written(name: &str, text: impl Into<Vec<u8>>) -> Hostile {
    Hostile { name: format!("form: {name}"), bytes: text.into(), expected: Expected::Refused("form") }
}

/// Encodings of points of small order, of a second encoding, and of no point of the curve.
pub(crate) fn unusable_keys() -> Vec<(String, String)> {
    let eighth = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03";
    let other_eighth = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc";
    let zeros = "00".repeat(31);
    let ff = "ff".repeat(30);
    let mut keys = vec![
        ("order 1".to_owned(), format!("01{zeros}")),
        ("order 1, x negative".to_owned(), format!("01{}80", "00".repeat(30))),
        ("order 2".to_owned(), format!("ec{ff}7f")),
        ("order 2, x negative".to_owned(), format!("ec{ff}ff")),
        ("order 4".to_owned(), format!("00{zeros}")),
        ("order 4, x negative".to_owned(), format!("00{}80", "00".repeat(30))),
        ("order 8, a".to_owned(), format!("{eighth}7a")),
        ("order 8, b".to_owned(), format!("{eighth}fa")),
        ("order 8, c".to_owned(), format!("{other_eighth}05")),
        ("order 8, d".to_owned(), format!("{other_eighth}85")),
        ("no point of the curve".to_owned(), format!("02{zeros}")),
    ];
    // p is ed ff … ff 7f: these are p to p + 18, each a second encoding of a y below 19.
    keys.extend((0xed..=0xff).flat_map(|low| {
        [("7f", "positive"), ("ff", "negative")]
            .map(|(high, sign)| (format!("y = p + {}, x {sign}", low - 0xed), format!("{low:02x}{ff}{high}")))
    }));
    keys
}

pub(super) fn all() -> Vec<Hostile> {
    let receipt = plain();
    let text = String::from_utf8(receipt.to_json().unwrap()).unwrap();
    let mut cases = vec![good("all is right", &receipt)];
    let mut replaced = |name: &str, from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{name}");
        cases.push(written(name, changed));
    };
    replaced("LF and CR", "\n", "\r\n");
    replaced("tabs", "  \"record\"", "\t\"record\"");
    replaced("no space after a colon", "\": ", "\":");
    replaced("a space before a colon", "\": ", "\" : ");
    replaced("a list that is filled as an empty one", "[]", "[\n  ]");
    replaced("null for a list", "\"committees\": []", "\"committees\": null");
    replaced("null for a path", "\"path\": []", "\"path\": null");
    replaced("null for an index", "\"index\": 1", "\"index\": null");
    replaced("null for bytes", "\"header\": \"", "\"header\": null, \"x\": \"");
    replaced("an index as a text", "\"index\": 1", "\"index\": \"1\"");
    replaced("an index with a leading zero", "\"index\": 1", "\"index\": 01");
    replaced("an index with a fraction", "\"index\": 1", "\"index\": 1.0");
    replaced("an index with an exponent", "\"index\": 1", "\"index\": 1e0");
    replaced("an index below zero", "\"index\": 1", "\"index\": -1");
    replaced("minus zero", "\"index\": 0", "\"index\": -0");
    replaced("an index of 65 bits", "\"index\": 1", "\"index\": 18446744073709551616");
    replaced("an index of many digits", "\"index\": 1", &format!("\"index\": {}", "9".repeat(5000)));
    replaced("an index that is not a number", "\"index\": 1", "\"index\": NaN");
    replaced("an escaped character", "\"format\"", "\"\\u0066ormat\"");
    replaced("an escaped character in the mark", "cairn/receipt", "cairn\\/receipt");
    replaced("an escaped character in base64", "\"certificate\": \"A", "\"certificate\": \"\\u0041");
    replaced("the mark of version 1", "receipt/v2", "receipt/v1");
    replaced("the mark of another format", "cairn/receipt/v2", "cairn/state-proof/v1");
    replaced("another name of a field", "\"log\"", "\"Log\"");
    replaced("a field more", "  \"log\"", "  \"comment\": \"\",\n  \"log\"");
    replaced("a field twice", "  \"log\"", "  \"format\": \"cairn/receipt/v2\",\n  \"log\"");
    replaced("a prototype", "  \"log\"", "  \"__proto__\": {},\n  \"log\"");
    replaced("a number for the checkpoint", "\"checkpoint\": null", "\"checkpoint\": 0");
    replaced("no checkpoint", ",\n  \"checkpoint\": null", "");
    replaced("a list for the checkpoint", "\"checkpoint\": null", "\"checkpoint\": []");
    replaced("half a pair of surrogates", "\"checkpoint\": null", "\"checkpoint\": \"\\ud800\"");
    replaced("an escaped pair of surrogates", "\"checkpoint\": null", "\"checkpoint\": \"\\ud83d\\ude00\"");
    replaced("a raw control character", "\"checkpoint\": null", "\"checkpoint\": \"\u{1}\"");
    replaced("deep nesting", "\"checkpoint\": null", &format!("\"checkpoint\": {}", "[".repeat(100_000)));
    replaced("base64 with a line end", "\"header\": \"", "\"header\": \"\\n");
    replaced("base64 with a space", "\"header\": \"", "\"header\": \" ");
    replaced("base64 without its padding", "=\"", "\"");
    replaced("base64 with more padding", "=\"", "==\"");
    replaced("base64 of URLs", "+", "-");
    let anchorer = key(super::ANCHORER).public().to_string();
    replaced("upper-case digits", &anchorer, &anchorer.to_uppercase());
    replaced("a key of 31 bytes", &anchorer, &anchorer[2..]);
    replaced("a key with a prefix", &anchorer, &format!("0x{}", &anchorer[2..]));
    for (name, point) in unusable_keys() {
        replaced(&format!("key of {name}"), &anchorer, &point);
        let change = format!(
            "\"committees\": [\n    {{\n      \"header\": \"\",\n      \"certificate\": \"\",\n      \"validators\": [\n        \"{point}\"\n      ]\n    }}\n  ]"
        );
        replaced(&format!("validator's key of {name}"), "\"committees\": []", &change);
    }
    let hashes = vec![format!("\"{}\"", "00".repeat(32)); 65].join(",\n      ");
    replaced("a path of 65 hashes", "\"path\": []", &format!("\"path\": [\n      {hashes}\n    ]"));
    cases.extend(trailing_bits(&text));
    cases.extend([
        written("nothing", ""),
        written("null", "null\n"),
        written("a list", "[]\n"),
        written("a text", "\"cairn/receipt/v2\"\n"),
        written("a mark of byte order in front", format!("\u{feff}{text}")),
        written("no LF at the end", text.trim_end()),
        written("two LF at the end", format!("{text}\n")),
        written("more behind the end", format!("{text}{{}}")),
        written("a zero byte at the end", format!("{text}\0")),
        written("half of it", &text.as_bytes()[..text.len() / 2]),
        written("not UTF-8", [text.as_bytes(), &[0xff]].concat()),
        written("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
        written("an overlong encoding", text.replacen("null", "\"??\"", 1).bytes().map(overlong).collect::<Vec<_>>()),
    ]);
    cases
}

fn overlong(byte: u8) -> u8 {
    // Two question marks become 0xc0 0xc0: bytes that UTF-8 never has.
    if byte == b'?' { 0xc0 } else { byte }
}

/// Base64 whose last digit has bits that belong to no byte.
fn trailing_bits(text: &str) -> Vec<Hostile> {
    let mut cases = vec![];
    for (padding, digits) in [("==\"", "AQgw"), ("=\"", "AEIMQUYcgkosw048")] {
        for (at, _) in text.match_indices(padding) {
            let last = text.as_bytes()[at - 1];
            if !digits.as_bytes().contains(&last) {
                continue;
            }
            let mut changed = text.as_bytes().to_vec();
            changed[at - 1] = last + 1;
            cases.push(written(&format!("base64 with trailing bits at byte {at}"), changed));
        }
    }
    assert!(!cases.is_empty(), "some base64 has padding");
    cases
}

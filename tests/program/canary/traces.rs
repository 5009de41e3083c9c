//! What a number looks like wherever somebody may have written it down, and the search for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

/// Something that may hold a number, by name.
pub type Artefacts = Vec<(String, Vec<u8>)>;

/// What of a hash is looked for: a pseudonym may be no more than the beginning of one.
const HASHED: usize = 9;

struct Trace {
    how: &'static str,
    bytes: Vec<u8>,
    /// Only where it stands by itself, and is not the fraction of a second.
    apart: bool,
    /// It may be told to the clerk who typed the number, and to nobody else.
    for_the_clerk: bool,
}

/// What is searched for.
pub struct Hunt {
    traces: Vec<Trace>,
    /// Places in `traces`, by the first two bytes.
    by_start: BTreeMap<[u8; 2], Vec<usize>>,
    starts: Vec<bool>,
}

impl Hunt {
    /// Every trace of these numbers, also their ends: these may stand in a report of many figures by chance.
    pub fn of(numbers: &[&str]) -> Self {
        Self::new(numbers, true)
    }

    /// Every trace of whole numbers.
    pub fn of_whole(numbers: &[&str]) -> Self {
        Self::new(numbers, false)
    }

    fn new(numbers: &[&str], ends: bool) -> Self {
        let mut traces = Vec::new();
        let mut add = |how, bytes: Vec<u8>| {
            traces.push(Trace { how, bytes, apart: how == ENDS, for_the_clerk: how == MASKED });
        };
        for number in numbers {
            written(number, &mut add);
            if ends {
                for digits in [6, 7] {
                    add(ENDS, number.as_bytes()[number.len() - digits..].to_vec());
                }
            }
        }
        for hash in hashes(numbers) {
            add("hash", hash[..8].to_vec());
            add("hash in hex", hex(&hash[..8]).into_bytes());
            add("hash in HEX", hex(&hash[..8]).to_uppercase().into_bytes());
            add("hash in base64", base64(&hash[..HASHED]));
        }
        let (mut by_start, mut starts) = (BTreeMap::<_, Vec<usize>>::new(), vec![false; 1 << 16]);
        for (place, trace) in traces.iter().enumerate() {
            let start = [trace.bytes[0], trace.bytes[1]];
            by_start.entry(start).or_default().push(place);
            starts[usize::from(u16::from_be_bytes(start))] = true;
        }
        Self { traces, by_start, starts }
    }

    /// How the numbers stand in this text.
    pub fn hits(&self, text: &[u8], told_to_the_clerk: bool) -> BTreeSet<&'static str> {
        let mut hits = BTreeSet::new();
        for (at, pair) in text.windows(2).enumerate() {
            let start = [pair[0], pair[1]];
            if !self.starts[usize::from(u16::from_be_bytes(start))] {
                continue;
            }
            for trace in self.by_start[&start].iter().map(|place| &self.traces[*place]) {
                let found = text[at..].starts_with(&trace.bytes)
                    && (!trace.apart || stands_apart(text, at, trace.bytes.len()))
                    && !(trace.for_the_clerk && told_to_the_clerk);
                if found {
                    hits.insert(trace.how);
                }
            }
        }
        hits
    }
}

const ENDS: &str = "last digits";
const MASKED: &str = "birth date and sex";

/// Every way in which a number may have been written down.
fn written(number: &str, add: &mut impl FnMut(&'static str, Vec<u8>)) {
    let bare = number.replace('-', "");
    add("with hyphen", number.into());
    add("without hyphen", bare.clone().into());
    add("URL", number.replace('-', "%2D").into());
    if bare != number {
        add(MASKED, number.as_bytes()[..8].to_vec());
    }
    for text in [number, &bare] {
        add("hex", hex(text.as_bytes()).into_bytes());
        add("HEX", hex(text.as_bytes()).to_uppercase().into_bytes());
        add("UTF-16LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        add("UTF-16BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect());
        add("reversed", text.bytes().rev().collect());
        // As `{:?}` writes bytes.
        let listed: Vec<_> = text.bytes().map(|byte| byte.to_string()).collect();
        add("list of bytes", listed.join(", ").into_bytes());
        // In base64 the same text looks three ways, by where it begins; the ends belong to its neighbours too.
        for offset in 0..3 {
            let encoded = base64(&[&[0; 2][..offset], text.as_bytes()].concat());
            add("base64", encoded[if offset == 0 { 0 } else { 4 }..encoded.len() - 4].to_vec());
        }
    }
    if let Ok(integer) = bare.parse::<u64>() {
        add("integer", integer.to_le_bytes()[..6].to_vec());
        add("integer", integer.to_be_bytes()[2..].to_vec());
        // Two digits a byte, from the first or from a leading zero on, either half first. What is left over may be anything.
        for digits in [bare.clone(), format!("0{bare}")] {
            let pairs = digits.as_bytes()[..12].chunks(2).map(|two| [two[0] - b'0', two[1] - b'0']);
            let packed: Vec<u8> = pairs.map(|[high, low]| high << 4 | low).collect();
            add("BCD", packed.clone());
            add("reversed BCD", packed.iter().map(|byte| byte.rotate_left(4)).collect());
        }
    }
}

/// Plain hashes of the numbers, with hyphen and without: whoever has one has the number, for there are so few.
fn hashes(numbers: &[&str]) -> Vec<Vec<u8>> {
    let texts: Vec<String> = numbers.iter().flat_map(|number| [number.to_string(), number.replace('-', "")]).collect();
    let mut hashes: Vec<Vec<u8>> = texts.iter().map(|text| Sha256::digest(text).to_vec()).collect();
    for program in ["sha1sum", "md5sum"] {
        let line = format!(r#"while read -r text; do printf %s "$text" | {program}; done"#);
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all((texts.join("\n") + "\n").as_bytes()).unwrap();
        let said = String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap();
        let read =
            |line: &str| (0..HASHED).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap()).collect();
        hashes.extend(said.lines().map(read));
    }
    assert_eq!(hashes.len(), 3 * texts.len());
    hashes
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for group in bytes.chunks(3) {
        let three = [group[0], *group.get(1).unwrap_or(&0), *group.get(2).unwrap_or(&0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        text.extend((0..4).map(|place| LETTERS[(bits >> (18 - 6 * place) & 63) as usize]));
    }
    text
}

fn stands_apart(text: &[u8], at: usize, length: usize) -> bool {
    let (before, after) = (at.checked_sub(1).map(|at| text[at]), text.get(at + length).copied());
    let apart = |byte: Option<u8>| !byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    apart(before) && before != Some(b'.') && apart(after)
}

#[test]
fn the_search_finds_what_is_planted() {
    const NUMBER: &str = "770707-1928374";
    let hunt = Hunt::of(&[NUMBER]);
    for trace in &hunt.traces {
        let planted = [b"...(", &trace.bytes[..], b")..."].concat();
        assert!(hunt.hits(&planted, false).contains(trace.how), "{}", trace.how);
    }
    // As others make them, and not this file.
    for (planted, how) in [
        ("id=770707-1928374; quantity=2", "with hyphen"),
        ("DEBUG buyer=Buyer { id: Some(ResidentNumber(\"7707071928374\")) }", "without hyphen"),
        ("/check?number=770707%2D1928374", "URL"),
        ("3737303730372d31393238333734", "hex"),
        ("Some(b\"\\n\\x0e\") [55, 55, 48, 55, 48, 55, 45, 49, 57, 50, 56, 51, 55, 52]", "list of bytes"),
        ("NzcwNzA3LTE5MjgzNzQ=", "base64"),
        ("aWQ9NzcwNzA3LTE5MjgzNzQ7IHF1YW50aXR5PTI=", "base64"),
        ("key=899659f9f7967e056dce44333f34af7d", "hash in hex"),
        ("747f3a1343734055cb160cb4262681632caf00cc", "hash in hex"),
        ("buyer …928374.", ENDS),
        ("(1928374)", ENDS),
        ("770707-1******", MASKED),
    ] {
        assert!(hunt.hits(planted.as_bytes(), false).contains(how), "{planted}: {how}");
    }
    let clean = b"09:00:00.928374Z a928374b 19283745 770707-2 770707";
    assert_eq!(hunt.hits(clean, false), BTreeSet::new());
    assert_eq!(hunt.hits(b"buyer 770707-1******", true), BTreeSet::new(), "who typed it may read it");
}

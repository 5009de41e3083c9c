//! `rationd receipt …`: checks receipts without asking any service, and hands out the key that they are checked with.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::{complain, exit, print};
use crate::config::{Keys, load_receipt_key, save_receipt_key};
use crate::purchase::receipt::{Durability, Receipt, ReceiptKey, Statement, Verdict, verify};

const AFTER_HELP: &str = "\
VALID: a service with the key has given this receipt, with each of its fields as it stands. Not: that the sale still stands; it \
may have been taken back since, which `rationd resolve` tells.

Examples:
  rationd receipt key --out receipt-key.toml
  echo 020101-3000413 | rationd sell --json | rationd receipt verify --key receipt-key.toml
  rationd receipt verify --key receipt-key.toml --key last-years-key.toml --json receipts.jsonl

Exit codes: 0 every receipt is valid; 1 one is not; 2 arguments, or what is read is not JSON; 64 a key file cannot be used.";

/// The commands about receipts.
#[derive(Subcommand)]
pub enum ReceiptCommand {
    /// Checks receipts: has this service given them, as they stand here?
    #[command(after_help = AFTER_HELP)]
    Verify(Verify),
    /// Puts the key of receipts alone into a file, for those who check them
    Key(Hand),
}

/// `receipt verify`
#[derive(Args)]
pub struct Verify {
    /// The file of a receipt key, as `rationd receipt key` makes it; may be given several times, for ledgers with other keys
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Receipts as JSON: as `--json` prints them or the whole answer around them, one, one after the other, or in lists [default: standard input]
    #[arg(value_name = "RECEIPTS")]
    file: Option<PathBuf>,
    /// Prints one JSON object for each receipt
    #[arg(long)]
    json: bool,
}

/// `receipt key`
#[derive(Args)]
pub struct Hand {
    /// The service's key file
    #[arg(long, value_name = "FILE", default_value = "./rationd-data/keys.toml")]
    keys: PathBuf,
    /// Where the key is put, with mode 0600; nothing is overwritten. Whoever has it can check receipts, and could make some
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(command: ReceiptCommand) -> u8 {
    let ran = match command {
        ReceiptCommand::Verify(command) => check(&command),
        ReceiptCommand::Key(command) => hand(&command),
    };
    ran.unwrap_or_else(|(code, message)| {
        complain(message);
        code
    })
}

/// Why a command could not be carried out, and its exit code.
type Trouble = (u8, String);

fn hand(Hand { keys, out }: &Hand) -> Result<u8, Trouble> {
    let unfit = |errors: crate::config::ConfigErrors| (exit::CONFIG, errors.to_string());
    let key = Keys::load(keys).map_err(unfit)?.ring().receipt_key();
    save_receipt_key(out, &key).map_err(unfit)?;
    print(format_args!("{}: the receipt key {}", out.display(), ReceiptKey::new(&key).id()));
    Ok(exit::YES)
}

fn check(Verify { keys, file, json }: &Verify) -> Result<u8, Trouble> {
    let load = |path: &PathBuf| load_receipt_key(path).map(|key| ReceiptKey::new(&key));
    let keys = keys.iter().map(load).collect::<Result<Vec<_>, _>>().map_err(|e| (exit::CONFIG, e.to_string()))?;
    let mut tally = Tally::default();
    let read = each(open(file.as_deref())?, |value| {
        let checked = Checked::of(&value, &keys);
        tally.add(&checked);
        if *json { print(checked.json(tally.checked)) } else { print(&checked) }
    });
    match read {
        Err(error) => Err((exit::USAGE, format!("what follows receipt {} cannot be read: {error}", tally.checked))),
        Ok(()) if tally.checked == 0 => Err((exit::USAGE, "there is no receipt to check".into())),
        Ok(()) => {
            if !json && tally.checked > 1 {
                print(&tally);
            }
            Ok(if tally.valid == tally.checked { exit::YES } else { exit::NO })
        }
    }
}

fn open(file: Option<&Path>) -> Result<Box<dyn Read>, Trouble> {
    let Some(path) = file else { return Ok(Box::new(std::io::stdin().lock())) };
    let unread = |error| (exit::USAGE, format!("{}: cannot be read: {error}", path.display()));
    Ok(Box::new(File::open(path).map_err(unread)?))
}

/// Hands each object of the input to `told` as soon as it is read, so that a list of a million needs the memory of one.
fn each(input: Box<dyn Read>, mut told: impl FnMut(Value)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(input));
    // It is an error for as long as something follows.
    while json.end().is_err() {
        Each(&mut told).deserialize(&mut json)?;
    }
    Ok(())
}

struct Each<'a>(&'a mut dyn FnMut(Value));

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a receipt or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        (self.0)(Value::deserialize(MapAccessDeserializer::new(object))?);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Each(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// What was found of one receipt.
struct Checked {
    /// As far as it can be read.
    request_id: Option<String>,
    found: Result<(Receipt, Verdict), Vec<String>>,
}

impl Checked {
    fn of(value: &Value, keys: &[ReceiptKey]) -> Self {
        let receipt = match value.get("receipt") {
            None => Ok(value),
            Some(inner) if inner.is_object() => Ok(inner),
            Some(_) => Err(vec!["receipt: this answer has none".to_owned()]),
        };
        let shown = receipt.as_ref().copied().unwrap_or(value).get("request_id");
        Self {
            request_id: shown.and_then(Value::as_str).map(str::to_owned),
            found: receipt.and_then(read).map(|receipt| (receipt, verify(&receipt, keys))),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.found {
            Ok((_, Verdict::Valid)) => "VALID",
            Ok((_, Verdict::NotValid)) => "NOT_VALID",
            Ok((_, Verdict::UnknownKey)) => "UNKNOWN_KEY",
            Err(_) => "MALFORMED",
        }
    }

    /// Why it is not valid; nothing where it is.
    fn problems(&self) -> Vec<String> {
        match &self.found {
            Ok((_, Verdict::Valid)) => Vec::new(),
            Ok((Receipt { key_id, .. }, Verdict::NotValid)) => {
                vec![format!("mac: is not that of these fields under key {key_id}: something was changed, or made up")]
            }
            Ok((Receipt { key_id, .. }, Verdict::UnknownKey)) => {
                vec![format!("key_id: {key_id} is none of the given keys; name its file with --key")]
            }
            Err(problems) => problems.clone(),
        }
    }

    fn json(&self, nth: u64) -> Value {
        json!({
            "receipt": nth,
            "verdict": self.verdict(),
            "request_id": self.request_id,
            "problems": self.problems(),
        })
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}", self.verdict())?;
        match &self.found {
            Ok((Receipt { of, .. }, _)) => {
                let Statement { quantity, programme, site, sold_at, request, ledger, .. } = of;
                write!(f, "  {quantity} of {programme} at {site} on {sold_at}, request id {request}, ledger {ledger}")?;
                if of.late {
                    write!(f, "; late: written on paper first")?;
                }
                if of.durability == Durability::Volatile {
                    write!(f, "; VOLATILE STORE: a crash may have lost this sale")?;
                }
                if of.simulated_clock {
                    write!(f, "; SIMULATED CLOCK: worth nothing outside a test")?;
                }
            }
            Err(_) => write!(f, "  request id {}", self.request_id.as_deref().unwrap_or("unreadable"))?,
        }
        for problem in self.problems() {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// How many receipts were checked, and how many were valid.
#[derive(Default)]
struct Tally {
    checked: u64,
    valid: u64,
}

impl Tally {
    fn add(&mut self, checked: &Checked) {
        self.checked += 1;
        self.valid += u64::from(matches!(checked.found, Ok((_, Verdict::Valid))));
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} receipts, {} valid, {} not", self.checked, self.valid, self.checked - self.valid)
    }
}

/// The receipt in a JSON object, or everything that is wrong with it. A field too many is wrong too: nothing may stand beside
/// a verdict that it does not speak of.
fn read(value: &Value) -> Result<Receipt, Vec<String>> {
    let Some(object) = value.as_object() else { return Err(vec!["is no object".to_owned()]) };
    let mut fields = Fields { object, met: Vec::new(), problems: Vec::new() };
    let receipt = receipt(&mut fields);
    let Fields { met, mut problems, .. } = fields;
    let others = object.keys().filter(|name| !met.contains(&name.as_str()));
    problems.extend(others.map(|name| format!("{name}: is no field of a receipt")));
    receipt.filter(|_| problems.is_empty()).ok_or(problems)
}

fn receipt(fields: &mut Fields<'_>) -> Option<Receipt> {
    // Each is looked at before any that is missing ends it.
    let (ledger, request) = (fields.text("ledger_id"), fields.text("request_id"));
    let (programme, site) = (fields.text("programme"), fields.text("site"));
    let quantity = fields.number("quantity", "must be a whole number up to 4294967295");
    let sold_at = fields.take("sold_at", "must be an instant to the millisecond, with its offset", |value| {
        let text = value.as_str()?;
        let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
        let finer = fraction.bytes().take_while(u8::is_ascii_digit).count() > 3;
        text.parse().ok().filter(|_| !finer)
    });
    let durability = fields.take("durability", "must be SYNCED or VOLATILE", |value| {
        // Other clients print the name of the interface.
        match value.as_str()?.trim_start_matches("DURABILITY_") {
            "SYNCED" => Some(Durability::Synced),
            "REPLICATED" => Some(Durability::Replicated),
            "VOLATILE" => Some(Durability::Volatile),
            _ => None,
        }
    });
    let (simulated_clock, late) = (fields.flag("simulated_clock"), fields.flag("late"));
    let partition = fields.number("partition", "must be a whole number up to 255");
    let (key_id, mac) = (fields.text("key_id"), fields.text("mac"));
    let of = Statement {
        ledger: ledger?,
        request: request?,
        programme: programme?,
        site: site?,
        quantity: quantity?,
        sold_at: sold_at?,
        durability: durability?,
        simulated_clock: simulated_clock?,
        late: late?,
        partition: partition?,
    };
    Some(Receipt { of, key_id: key_id?, mac: mac? })
}

/// The fields of an object, the names asked for so far, and the problems found.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    met: Vec<&'static str>,
    problems: Vec<String>,
}

impl Fields<'_> {
    fn take<T>(&mut self, name: &'static str, shape: &str, make: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        self.met.push(name);
        let Some(value) = self.object.get(name) else {
            self.problems.push(format!("{name}: is missing"));
            return None;
        };
        let made = make(value);
        if made.is_none() {
            self.problems.push(format!("{name}: {shape}"));
        }
        made
    }

    fn text<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.take(name, "must be a text", |value| Some(value.as_str()?.to_owned()))?;
        text.parse().map_err(|error| self.problems.push(format!("{name}: {error}"))).ok()
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &'static str, shape: &str) -> Option<T> {
        self.take(name, shape, |value| T::try_from(value.as_u64()?).ok())
    }

    fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.take(name, "must be true or false", Value::as_bool)
    }
}

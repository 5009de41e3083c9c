//! A call of the ledger as data, and its answer in one shape for all verbs, so that stores and model can be compared.

use std::collections::BTreeMap;
use std::time::Duration;

use rationd::buyer::{BuyerKey, KeyMark, Neighbour, Pseudonym, Ring, Side, Turn};
use rationd::ids::{RequestId, SiteId, TerminalId};
use rationd::ledger::{
    Answer, Call, Claim, Claimed, Confirmed, Entered, Entry, Kept, Late, Ledger, LedgerError, Record, RecordKey,
    Released, Resolved, Voided,
};
use rationd::policy::Window;
use rationd::time::Timestamp;

/// One call.
#[derive(Debug, Clone)]
pub struct Step {
    pub key: RecordKey,
    pub call: Call,
    pub verb: Verb,
}

/// Its verb, with what only this verb takes.
#[derive(Debug, Clone)]
pub enum Verb {
    Claim(Claim),
    Confirm,
    Release,
    Void,
    Late(Late),
    Resolve,
}

/// An answer of any verb: the outcome by its name in the table, and the entry that comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub outcome: &'static str,
    pub entry: Option<Entry>,
    pub replayed: bool,
    pub at: Timestamp,
    pub record: Record,
}

/// An outbox event as fields of text.
pub type Told = BTreeMap<String, String>;

fn reply<O>(answer: Answer<O>, name: impl FnOnce(O) -> (&'static str, Option<Entry>)) -> Reply {
    let (outcome, entry) = name(answer.outcome);
    Reply { outcome, entry, replayed: answer.replayed, at: answer.at, record: answer.record }
}

impl Step {
    /// Makes the call, and again while the store has too much to do: such an answer means that nothing was written.
    pub async fn ask_patiently<L: Ledger>(&self, ledger: &L) -> Result<Reply, LedgerError> {
        loop {
            match self.ask(ledger).await {
                Err(LedgerError::Overloaded) => tokio::time::sleep(Duration::from_millis(5)).await,
                answer => return answer,
            }
        }
    }

    /// Makes the call.
    pub async fn ask<L: Ledger>(&self, ledger: &L) -> Result<Reply, LedgerError> {
        let Self { key, call, verb } = self.clone();
        Ok(match verb {
            Verb::Claim(claim) => reply(ledger.claim(key, call, claim).await?, |outcome| match outcome {
                Claimed::Recorded(e) => ("Recorded", Some(e)),
                Claimed::Held(e) => ("Held", Some(e)),
                Claimed::Refused(e) => ("Refused", Some(e)),
                Claimed::Released(e) => ("Released", Some(e)),
                Claimed::HoldExpired(e) => ("HoldExpired", Some(e)),
                Claimed::Voided(e) => ("Voided", Some(e)),
                Claimed::AssessAgain => ("AssessAgain", None),
            }),
            Verb::Confirm => reply(ledger.confirm(key, call).await?, |outcome| match outcome {
                Confirmed::Sold(e) => ("Sold", Some(e)),
                Confirmed::HoldExpired(e) => ("HoldExpired", Some(e)),
                Confirmed::Voided(e) => ("Voided", Some(e)),
                Confirmed::NotFound => ("NotFound", None),
                Confirmed::NotYours => ("NotYours", None),
            }),
            Verb::Release => reply(ledger.release(key, call).await?, |outcome| match outcome {
                Released::Released(e) => ("Released", Some(e)),
                Released::AlreadySold(e) => ("AlreadySold", Some(e)),
                Released::Voided(e) => ("Voided", Some(e)),
                Released::NotFound => ("NotFound", None),
                Released::NotYours => ("NotYours", None),
            }),
            Verb::Void => reply(ledger.void(key, call).await?, |outcome| match outcome {
                Voided::Voided(e) => ("Voided", Some(e)),
                Voided::Released(e) => ("Released", Some(e)),
                Voided::NotFound => ("NotFound", None),
                Voided::NotYours => ("NotYours", None),
            }),
            Verb::Late(late) => reply(ledger.late(key, call, late).await?, |outcome| match outcome {
                Entered::Sold(e) => ("Sold", Some(e)),
                Entered::AlreadyRecorded(e) => ("AlreadyRecorded", Some(e)),
                Entered::AlreadyVoided(e) => ("AlreadyVoided", Some(e)),
            }),
            Verb::Resolve => reply(ledger.resolve(key, call).await?, |outcome| match outcome {
                Resolved::Recorded(e) => ("Recorded", Some(e)),
                Resolved::Held(e) => ("Held", Some(e)),
                Resolved::Released(e) => ("Released", Some(e)),
                Resolved::Voided(e) => ("Voided", Some(e)),
                Resolved::Refused(e) => ("Refused", Some(e)),
                Resolved::NotRecorded => ("NotRecorded", None),
                Resolved::NotYours => ("NotYours", None),
            }),
        })
    }
}

/// Noon of 11 March 2020 in Seoul, and so many milliseconds more.
pub fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_583_895_600_000 + ms)
}

/// So many days after that, where purchases are kept for 15.
pub fn kept(days: u64) -> Kept {
    let span = |days: u64| Duration::from_secs(days * 86_400);
    Kept { now: at(0).plus(span(days)), length: span(15) }
}

/// A buyer in the programme `km`. Different numbers are different buyers; the partition is the number's low byte.
pub fn buyer(number: u64) -> RecordKey {
    let mut pseudonym = [0xA5; 16];
    pseudonym[..8].copy_from_slice(&number.to_le_bytes());
    let buyer = BuyerKey { partition: (number & 0xff) as u8, pseudonym: Pseudonym::from_bytes(pseudonym) };
    RecordKey { programme: "km".parse().unwrap(), buyer, turn: turn() }
}

/// The ring at its first key.
pub fn turn<T>() -> Turn<T> {
    Turn::at(ring(1))
}

/// The ring whose current key has this number.
pub fn ring(id: u32) -> Ring {
    Ring { id, mark: KeyMark::from_bytes((u64::from_be_bytes(*b"of tests") + u64::from(id) - 1).to_be_bytes()) }
}

/// The ring at this key, with a neighbour.
pub fn beside(id: u32, side: Side) -> Turn {
    let other = if side == Side::Next { id + 1 } else { id - 1 };
    Turn { ring: ring(id), neighbour: Some(Neighbour { side, ring: ring(other), makes: () }) }
}

/// The buyer of the ring at its first key, as the ring names them in another turn.
pub fn turned(key: RecordKey, turn: Turn) -> RecordKey {
    let named = |ring: Ring| {
        let mut bytes = *key.buyer.pseudonym.as_bytes();
        bytes[15] ^= (ring.id - 1) as u8;
        bytes[14] ^= ((ring.id - 1) >> 8) as u8;
        Pseudonym::from_bytes(bytes)
    };
    let neighbour = turn.neighbour.map(|it| Neighbour { side: it.side, ring: it.ring, makes: named(it.ring) });
    let buyer = BuyerKey { pseudonym: named(turn.ring), ..key.buyer };
    RecordKey { buyer, turn: Turn { ring: turn.ring, neighbour }, ..key }
}

/// A request id; different numbers are different ids.
pub fn id(number: u64) -> RequestId {
    let mut bytes = [0x11; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    RequestId::from_bytes(bytes).unwrap()
}

/// A site; different numbers are different sites.
pub fn site(number: u64) -> SiteId {
    format!("site-{number}").parse().unwrap()
}

/// A call from a terminal of `site`.
pub fn call(request: u64, at_site: u64, now: Timestamp) -> Call {
    let terminal: TerminalId = format!("counter-{at_site}").parse().unwrap();
    Call { request: id(request), site: site(at_site), terminal, now }
}

/// A window that limits units only.
pub fn units(from: Timestamp, until: Timestamp, max: u32) -> Window {
    Window { from, until, max_units: Some(max), max_purchases: None }
}

/// A week around [`at`]`(0)` with this many units in it.
pub fn week(max: u32) -> Window {
    units(at(-3 * DAY), at(4 * DAY), max)
}

/// Milliseconds of a day.
pub const DAY: i64 = 86_400_000;

/// A claim of a sale that is good for ever.
pub fn sale(quantity: u32, windows: &[Window]) -> Claim {
    let windows = windows.iter().copied().collect();
    Claim { quantity, hold_for: None, windows, good_until: Timestamp::NEVER, stated: String::new() }
}

/// A claim of a hold for so many milliseconds.
pub fn hold(quantity: u32, ms: u64, windows: &[Window]) -> Claim {
    Claim { hold_for: Some(Duration::from_millis(ms)), ..sale(quantity, windows) }
}

/// A sale on paper.
pub fn paper(quantity: u32, sold_at: Timestamp, windows: &[Window]) -> Late {
    Late { quantity, sold_at, windows: windows.to_vec(), stated: String::new() }
}

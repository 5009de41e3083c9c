//! The slow, obvious model: the table of the design, read cell by cell. It was written from the table and not from
//! `ledger/rules.rs`, so that the two can disagree.

use std::collections::{BTreeSet, HashMap};

use rationd::buyer::BuyerKey;
use rationd::ids::ProgrammeCode;
use rationd::ledger::{DEAD_ENTRIES_PER_SITE, Entry, Kind, LedgerError, Record, RecordKey, State};
use rationd::policy::Window;
use rationd::time::Timestamp;

use super::steps::{Reply, Step, Told, Verb};

/// What the design's table says, in its own words: `=` changes nothing; before an arrow stands the state that is
/// written, after it the answer.
#[rustfmt::skip]
const TABLE: [(&str, [&str; 6]); 8] = [
    // entry          claim                     confirm                   release                  void                    late                     resolve
    ("absent",        ["judge",                 "CLOSED → NotFound",      "CLOSED → NotFound",     "CLOSED → NotFound",    "SOLD, within or over",  "CLOSED → NotRecorded"]),
    ("SOLD",          ["= Recorded",            "= Sold",                 "= AlreadySold",         "VOIDED → Voided",      "= AlreadyRecorded",     "= Recorded"]),
    ("HELD, live",    ["= Held",                "SOLD → Sold",            "RELEASED → Released",   "RELEASED → Released",  "SOLD, within or over",  "= Held"]),
    ("HELD, expired", ["RELEASED → HoldExpired", "RELEASED → HoldExpired", "RELEASED → Released",  "RELEASED → Released",  "SOLD, within or over",  "RELEASED → Released"]),
    ("RELEASED",      ["= Released",            "= HoldExpired",          "= Released",            "= Released",           "SOLD, within or over",  "= Released"]),
    ("VOIDED",        ["= Voided",              "= Voided",               "= Voided",              "= Voided",             "= AlreadyVoided",       "= Voided"]),
    ("REFUSED",       ["= Refused",             "= NotFound",             "= NotFound",            "= NotFound",           "SOLD, over",            "= Refused"]),
    ("CLOSED",        ["error",                 "= NotFound",             "= NotFound",            "= NotFound",           "SOLD, within or over",  "= NotRecorded"]),
];

/// Every buyer's entries, and what was told of them by partition.
#[derive(Debug, Default, Clone)]
pub struct Model {
    records: HashMap<RecordKey, Vec<Entry>>,
    told: Vec<(u8, Told)>,
}

/// The rows of the table, by name: the suite goes through them.
pub fn rows() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(row, _)| *row)
}

/// In which row an entry stands at a time.
pub fn row(entry: Option<&Entry>, now: Timestamp) -> &'static str {
    match entry.map(|e| (e.state, e.mark)) {
        None => "absent",
        Some((State::Sold, _)) => "SOLD",
        Some((State::Held, until)) if now < until => "HELD, live",
        Some((State::Held, _)) => "HELD, expired",
        Some((State::Released, _)) => "RELEASED",
        Some((State::Voided, _)) => "VOIDED",
        Some((State::Refused, _)) => "REFUSED",
        Some((State::Closed, _)) => "CLOSED",
    }
}

impl Model {
    /// The record as it stands.
    pub fn record(&self, key: RecordKey) -> Record {
        Record::new(self.records.get(&key).cloned().unwrap_or_default())
    }

    /// Every record of a programme.
    pub fn records(&self, programme: ProgrammeCode) -> HashMap<BuyerKey, Record> {
        let of = self.records.iter().filter(|(key, entries)| key.programme == programme && !entries.is_empty());
        of.map(|(key, entries)| (key.buyer, Record::new(entries.clone()))).collect()
    }

    /// The codes of every programme that was sold under.
    pub fn programmes(&self) -> BTreeSet<ProgrammeCode> {
        self.records.keys().map(|key| key.programme).collect()
    }

    /// The events of a partition, oldest first.
    pub fn told(&self, partition: u8) -> Vec<Told> {
        self.told.iter().filter(|(p, _)| *p == partition).map(|(_, event)| event.clone()).collect()
    }

    /// What a ledger must answer.
    pub fn ask(&mut self, step: &Step) -> Result<Reply, LedgerError> {
        let (key, call) = (step.key, step.call);
        let mut entries = self.records.get(&key).cloned().unwrap_or_default();
        entries.sort_by_key(|e| (e.at, e.request));

        // The later of the service's clock and the newest online entry.
        let mut now = call.now;
        for e in &entries {
            if !e.late && e.at > now {
                now = e.at;
            }
        }

        let old = entries.iter().find(|e| e.request == call.request).copied();
        let column = match &step.verb {
            Verb::Claim(_) => 0,
            Verb::Confirm => 1,
            Verb::Release => 2,
            Verb::Void => 3,
            Verb::Late(_) => 4,
            Verb::Resolve => 5,
        };
        let cell = TABLE.iter().find(|(name, _)| *name == row(old.as_ref(), now)).unwrap().1[column];

        // Same id, other content; another site. A closed id was never used for anything: it has no content to differ from.
        if let Some(old) = old {
            let other_site = old.site != call.site;
            match &step.verb {
                Verb::Claim(claim) => {
                    let kind = if claim.hold_for.is_some() { Kind::Hold } else { Kind::Sale };
                    let other = old.quantity != claim.quantity || other_site || old.kind != kind;
                    if old.state != State::Closed && other {
                        return Err(LedgerError::RequestIdReused);
                    }
                }
                // A hold becomes a sale on paper, so the kind may differ.
                Verb::Late(late) => {
                    let other = old.quantity != late.quantity || other_site;
                    if old.state != State::Closed && other {
                        return Err(LedgerError::RequestIdReused);
                    }
                }
                Verb::Confirm | Verb::Release | Verb::Void | Verb::Resolve => {
                    if other_site {
                        return Ok(self.reply(key, "NotYours", None, true, now));
                    }
                }
            }
        }

        // A claim whose windows may no longer be right is not judged.
        if let (Verb::Claim(claim), None) = (&step.verb, old)
            && now >= claim.good_until
        {
            return Ok(self.reply(key, "AssessAgain", None, false, now));
        }

        // Of paper a site may enter 64 for a buyer.
        if old.is_none() && matches!(step.verb, Verb::Late(_)) {
            let late = entries.iter().filter(|e| e.late && e.site == call.site).count();
            if late >= rationd::ledger::LATE_ENTRIES_PER_SITE {
                return Err(LedgerError::BuyerRecordFull);
            }
        }

        // A site may leave 16 entries that no longer count; then it gets no new id.
        if old.is_none() && !matches!(step.verb, Verb::Late(_)) {
            let dead = entries.iter().filter(|e| e.site == call.site && !counts(e, now)).count();
            if dead >= DEAD_ENTRIES_PER_SITE {
                return Err(LedgerError::BuyerRecordFull);
            }
        }

        let closed = Entry {
            request: call.request,
            state: State::Closed,
            kind: Kind::Sale,
            late: false,
            over: false,
            quantity: 0,
            at: now,
            mark: now,
            site: call.site,
        };

        if cell == "error" {
            return Err(LedgerError::RequestIdClosed);
        }
        if cell == "judge" {
            let Verb::Claim(claim) = &step.verb else { unreachable!() };
            let new = Entry { quantity: claim.quantity, ..closed };
            let fits = claim.windows.iter().all(|w| allowed(w, &entries, now, claim.quantity));
            let (outcome, new, event) = match (fits, claim.hold_for) {
                (false, None) => ("Refused", Entry { state: State::Refused, ..new }, None),
                (false, Some(_)) => ("Refused", Entry { state: State::Refused, kind: Kind::Hold, ..new }, None),
                (true, None) => ("Recorded", Entry { state: State::Sold, ..new }, Some("sold")),
                (true, Some(length)) => {
                    let until = now.plus(length);
                    ("Held", Entry { state: State::Held, kind: Kind::Hold, mark: until, ..new }, Some("held"))
                }
            };
            self.put(step, new, event, &claim.stated);
            for expired in entries.iter().filter(|e| e.state == State::Held && now >= e.mark) {
                self.put(step, given_back(expired, now), Some("released"), "");
            }
            return Ok(self.reply(key, outcome, Some(new), false, now));
        }
        if let Some(what) = cell.strip_prefix("SOLD, ") {
            let Verb::Late(late) = &step.verb else { unreachable!() };
            let mut others = entries.clone();
            others.retain(|e| e.request != call.request);
            // What is judged is whether it fits beside everything that counts now, the entry itself left out.
            let live: Vec<Entry> = others.into_iter().filter(|e| counts(e, now)).collect();
            let fits = late.windows.iter().all(|w| allowed(w, &live, now, late.quantity));
            let over = what == "over" || !fits;
            let new = Entry {
                state: State::Sold,
                // How it was asked for stays, so that a retry of the hold is still the same content.
                kind: old.map_or(Kind::Sale, |old| old.kind),
                late: true,
                over,
                quantity: late.quantity,
                at: late.sold_at,
                mark: now,
                ..closed
            };
            self.put(step, new, Some("late"), &late.stated);
            return Ok(self.reply(key, "Sold", Some(new), false, now));
        }
        if let Some(outcome) = cell.strip_prefix("= ") {
            return Ok(self.reply(key, outcome, old, true, now));
        }
        let (state, outcome) = cell.split_once(" → ").unwrap();
        let (new, event) = match (state, old) {
            ("CLOSED", None) => (closed, None),
            ("SOLD", Some(old)) => (Entry { state: State::Sold, mark: now, ..old }, Some("confirmed")),
            ("RELEASED", Some(old)) => (given_back(&old, now), Some("released")),
            ("VOIDED", Some(old)) => (Entry { state: State::Voided, mark: now, ..old }, Some("voided")),
            _ => unreachable!("{cell}"),
        };
        self.put(step, new, event, "");
        Ok(self.reply(key, outcome, Some(new), false, now))
    }

    /// Removes what was asked for or sold before `before`, unless something came of it since. Says how much.
    pub fn sweep(&mut self, programme: ProgrammeCode, before: Timestamp) -> u64 {
        let mut removed = 0;
        for entries in self.records.iter_mut().filter(|(key, _)| key.programme == programme).map(|(_, e)| e) {
            let was = entries.len();
            entries.retain(|e| !(e.at < before && e.mark < before));
            removed += (was - entries.len()) as u64;
        }
        removed
    }

    fn put(&mut self, step: &Step, new: Entry, event: Option<&str>, stated: &str) {
        let entries = self.records.entry(step.key).or_default();
        entries.retain(|e| e.request != new.request);
        entries.push(new);
        let Some(kind) = event else { return };
        let mut told = Told::from([
            ("kind".to_owned(), kind.to_owned()),
            ("programme".to_owned(), step.key.programme.to_string()),
            ("request".to_owned(), new.request.to_string()),
            ("site".to_owned(), new.site.to_string()),
            ("terminal".to_owned(), step.call.terminal.to_string()),
            ("quantity".to_owned(), new.quantity.to_string()),
            ("at".to_owned(), new.at.as_millis().to_string()),
            ("stated".to_owned(), stated.to_owned()),
        ]);
        if kind == "held" {
            told.insert("until".to_owned(), new.mark.as_millis().to_string());
        }
        self.told.push((step.key.buyer.partition, told));
    }

    fn reply(&self, key: RecordKey, name: &'static str, entry: Option<Entry>, replayed: bool, at: Timestamp) -> Reply {
        let silent = ["NotFound", "NotRecorded", "NotYours", "AssessAgain"].contains(&name);
        let entry = if silent { None } else { entry };
        Reply { outcome: name, entry, replayed, at, record: self.record(key) }
    }
}

/// A sale counts, and a hold that has not expired.
fn counts(e: &Entry, now: Timestamp) -> bool {
    e.state == State::Sold || (e.state == State::Held && now < e.mark)
}

/// A hold that counts no more: since now, or since it ran out.
fn given_back(hold: &Entry, now: Timestamp) -> Entry {
    Entry { state: State::Released, mark: if hold.mark < now { hold.mark } else { now }, ..*hold }
}

fn allowed(window: &Window, entries: &[Entry], now: Timestamp, quantity: u32) -> bool {
    let inside: Vec<&Entry> =
        entries.iter().filter(|e| counts(e, now) && e.at >= window.from && e.at < window.until).collect();
    let used: u64 = inside.iter().map(|e| u64::from(e.quantity)).sum();
    let fits_units = window.max_units.is_none_or(|max| used + u64::from(quantity) <= u64::from(max));
    let fits_purchases = window.max_purchases.is_none_or(|max| (inside.len() as u64) < u64::from(max));
    fits_units && fits_purchases
}

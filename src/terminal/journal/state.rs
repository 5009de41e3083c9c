//! What the facts of a journal come to: a fold that knows no file. Facts that are missing make sales that are asked about or
//! uploaded once more, never sales that are made twice: whatever is sent has the id that it had before.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::{Became, Buyer, Fact, Mark, Marker, Sale, Verdict, WhenAway, millis};
use crate::ids::{LedgerId, ProgrammeId, RequestId};
use crate::time::Timestamp;

/// How long the number of a sale that is settled is kept, so that it can still be taken back after a restart.
const NUMBER_KEPT: Duration = Duration::from_secs(3_600);
/// How long the number of a hold is kept after it has run out: longer than a terminal is left on.
const HELD_KEPT: Duration = Duration::from_secs(86_400);
/// How long a sale is remembered without its number: longer than a week, so that the terminal can warn of it.
const REMEMBERED: Duration = Duration::from_secs(8 * 86_400);

/// All that a journal knows of one sale. It cannot be printed: it may name the buyer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub(in crate::terminal) id: RequestId,
    #[serde(with = "millis")]
    pub(in crate::terminal) at: Timestamp,
    pub(in crate::terminal) programme: ProgrammeId,
    pub(in crate::terminal) quantity: u32,
    mark: Mark,
    masked: String,
    /// `None`: it is settled, and nobody needs the number any more.
    pub(in crate::terminal) sale: Option<Sale>,
    /// It was sent as a purchase, under this ledger.
    pub(in crate::terminal) asked: Option<LedgerId>,
    pub(in crate::terminal) became: Option<Became>,
    was_held: bool,
    /// It was handed over without an answer.
    pub(in crate::terminal) sold_offline: Option<i64>,
    /// The service may have it by an upload.
    pub(in crate::terminal) uploading: bool,
    pub(in crate::terminal) verdict: Option<Verdict>,
    void_wanted: bool,
    voided: bool,
    withdrawn: bool,
}

/// What is still to be done about a sale, once the service can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::terminal) enum Todo {
    /// To ask what became of it.
    Resolve,
    /// To upload it.
    Upload,
    /// To take it back.
    Void,
}

/// How a sale stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// It was sent, and nobody has said yet what became of it.
    Unknown,
    /// The service has said what became of it.
    Became(Became),
    /// It was sold offline, and waits for its upload.
    Waits,
    /// It was sold offline, and the service has said what it makes of it.
    Uploaded(Verdict),
    /// It is to be taken back as soon as the service can be reached.
    Voiding,
    /// It was taken back.
    Voided,
    /// It was sold offline and taken back before anybody was told of it.
    Withdrawn,
}

/// A row of the list of sales.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The sale's id.
    pub id: RequestId,
    /// When it was asked for, or sold offline.
    pub at: Timestamp,
    /// Under which programme.
    pub programme: ProgrammeId,
    /// The buyer's number, with stars.
    pub masked: String,
    /// Units.
    pub quantity: u32,
    /// How it stands.
    pub stands: Stands,
}

/// An earlier sale of this terminal to the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// When.
    pub at: Timestamp,
    /// Units.
    pub quantity: u32,
    /// Whether it was sold for certain: of one that is not, nobody has said yet what became of it, or it was only held.
    pub certain: bool,
}

/// What a journal comes to.
#[derive(Clone)]
pub struct State {
    marker: Marker,
    ledger: Option<LedgerId>,
    when_away: BTreeMap<ProgrammeId, WhenAway>,
    entries: Vec<Entry>,
    places: HashMap<RequestId, usize>,
}

impl Entry {
    pub(in crate::terminal) fn todo(&self) -> Option<Todo> {
        // If the fact that it was sold is lost, there is nothing to upload.
        let is_uploaded_first = self.uploading && self.sold_offline.is_some() && self.verdict.is_none();
        match self {
            Self { voided: true, .. } | Self { withdrawn: true, .. } => None,
            // What may be under way to the service must have arrived before it is taken back, or it would arrive afterwards.
            Self { void_wanted: true, .. } => Some(if is_uploaded_first { Todo::Upload } else { Todo::Void }),
            Self { sold_offline: Some(_), verdict: None, .. } => Some(Todo::Upload),
            Self { sold_offline: None, asked: Some(_), became: None, .. } => Some(Todo::Resolve),
            _ => None,
        }
    }

    /// The ledger under which alone its id means something: what was uploaded is known under it to whoever judged it.
    pub(in crate::terminal) fn asked_only(&self) -> Option<LedgerId> {
        self.asked.filter(|_| self.verdict.is_none())
    }

    /// How it stands.
    pub fn stands(&self) -> Stands {
        match self {
            Self { withdrawn: true, .. } => Stands::Withdrawn,
            Self { voided: true, .. } => Stands::Voided,
            Self { void_wanted: true, .. } => Stands::Voiding,
            Self { sold_offline: Some(_), verdict: Some(verdict), .. } => Stands::Uploaded(verdict.clone()),
            Self { sold_offline: Some(_), verdict: None, .. } => Stands::Waits,
            Self { became: Some(became), .. } => Stands::Became(became.clone()),
            Self { became: None, .. } => Stands::Unknown,
        }
    }

    /// It is to be taken back; who bought it, where it does not say any more.
    pub(in crate::terminal) fn take_back(&mut self, buyer: Option<Buyer>) {
        self.void_wanted = true;
        if let (None, Some(buyer)) = (&self.sale, buyer) {
            self.sale = Some(Sale::in_person(self.programme, buyer, self.quantity));
        }
    }

    /// Whether the buyer has it; `Some(false)`: nobody knows yet, or it is held for the buyer.
    fn is_sold(&self) -> Option<bool> {
        match self.stands() {
            Stands::Waits | Stands::Uploaded(_) | Stands::Became(Became::Sold) => Some(true),
            Stands::Unknown | Stands::Voiding | Stands::Became(Became::Held { .. }) => Some(false),
            Stands::Became(_) | Stands::Voided | Stands::Withdrawn => None,
        }
    }

    /// It is held for somebody who may still come for it, or was of late: then it is asked about when the journal is opened.
    fn is_held(&self, now: Timestamp) -> bool {
        matches!(self.stands(), Stands::Became(Became::Held { until }) if now < until.plus(HELD_KEPT))
    }

    /// Whether it was said once that it is held.
    pub(in crate::terminal) fn was_held(&self) -> bool {
        self.was_held
    }

    /// Nobody could say what it is, so a person must, who needs all of it.
    fn needs_a_person(&self) -> bool {
        matches!(self.stands(), Stands::Uploaded(Verdict::Invalid(_) | Verdict::Quarantined(_)))
    }

    /// Whether it is listed whatever its age.
    fn is_always_listed(&self) -> bool {
        self.needs_a_person() || self.stands() == Stands::Waits
    }

    fn row(&self) -> Row {
        let Self { id, at, programme, quantity, .. } = *self;
        Row { id, at, programme, masked: self.masked.clone(), quantity, stands: self.stands() }
    }
}

impl State {
    pub(super) fn new(marker: Marker) -> Self {
        Self { marker, ledger: None, when_away: BTreeMap::new(), entries: Vec::new(), places: HashMap::new() }
    }

    pub(super) fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Told { ledger, when_away } => {
                self.ledger = Some(ledger);
                self.when_away = when_away.into_iter().collect();
            }
            Fact::Asked { id, at, ledger, sale } => self.entry(id, at, sale).asked = Some(ledger),
            Fact::SoldOffline { id, at, sale } => {
                self.entry(id, at, sale).sold_offline.get_or_insert(at.as_millis());
            }
            Fact::Uploading { ids } => ids.into_iter().for_each(|id| self.known(id, |entry| entry.uploading = true)),
            Fact::Became { id, what, masked } => self.known(id, |entry| {
                entry.was_held |= matches!(what, Became::Held { .. });
                entry.became = Some(what);
                entry.masked = masked.unwrap_or_else(|| std::mem::take(&mut entry.masked));
            }),
            Fact::Judged { id, verdict } => self.known(id, |entry| entry.verdict = Some(verdict)),
            Fact::VoidWanted { id, buyer } => self.known(id, |entry| entry.take_back(buyer)),
            Fact::Confirming { id } => self.known(id, |entry| entry.became = None),
            Fact::Voided { id } => self.known(id, |entry| entry.voided = true),
            Fact::Withdrawn { id } => self.known(id, |entry| entry.withdrawn = true),
            Fact::Kept(entry) => self.add(*entry),
        }
    }

    /// The entry of this id, which is made if it is not there.
    fn entry(&mut self, id: RequestId, at: Timestamp, sale: Sale) -> &mut Entry {
        let place = match self.places.get(&id) {
            Some(place) => *place,
            None => {
                self.add(Entry {
                    id,
                    at,
                    programme: sale.programme,
                    quantity: sale.quantity,
                    mark: self.marker.mark(&sale.buyer),
                    masked: sale.buyer.masked(),
                    sale: Some(sale),
                    asked: None,
                    became: None,
                    was_held: false,
                    sold_offline: None,
                    uploading: false,
                    verdict: None,
                    void_wanted: false,
                    voided: false,
                    withdrawn: false,
                });
                self.entries.len() - 1
            }
        };
        #[expect(clippy::indexing_slicing, reason = "places are those of entries, which are never removed")]
        &mut self.entries[place]
    }

    fn add(&mut self, entry: Entry) {
        self.places.insert(entry.id, self.entries.len());
        self.entries.push(entry);
    }

    /// Of a sale that is not known, because its own fact was lost, nothing can be said.
    fn known(&mut self, id: RequestId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.places.get(&id).and_then(|place| self.entries.get_mut(*place)) {
            change(entry);
        }
    }

    /// The sale of this id.
    pub(in crate::terminal) fn get(&self, id: RequestId) -> Option<&Entry> {
        self.places.get(&id).and_then(|place| self.entries.get(*place))
    }

    /// Whether this is who bought it.
    pub(in crate::terminal) fn was_bought_by(&self, entry: &Entry, buyer: &Buyer) -> bool {
        entry.mark == self.marker.mark(buyer)
    }

    /// What is to be done, in the order in which it came about. About a purchase that was asked for under another ledger nothing
    /// can be asked of this one: there its id means nothing, until it was uploaded to this one.
    pub(in crate::terminal) fn todo(&self) -> impl Iterator<Item = (Todo, &Entry)> {
        let means_something = |entry: &Entry| entry.asked_only().is_none() || entry.asked_only() == self.ledger;
        self.entries
            .iter()
            .filter_map(|entry| entry.todo().map(|todo| (todo, entry)))
            .filter(move |(todo, entry)| *todo == Todo::Upload || means_something(entry))
    }

    /// How many sales wait for their upload.
    pub fn waiting(&self) -> usize {
        self.entries.iter().filter(|entry| entry.todo() == Some(Todo::Upload)).count()
    }

    /// Of how many purchases nobody has said yet what became of them.
    pub fn unresolved(&self) -> usize {
        self.entries.iter().filter(|entry| entry.todo() == Some(Todo::Resolve)).count()
    }

    /// How many uploaded sales the service has not taken as they are, so that a person must look at them.
    pub fn to_mend(&self) -> usize {
        self.entries.iter().filter(|entry| entry.needs_a_person()).count()
    }

    /// What was not taken is uploaded once more: a programme or a word may be known by now, and a day that was to come be there. What was
    /// held and has run out is asked about once more.
    pub(super) fn try_again(&mut self, now: Timestamp) {
        let ledger = self.ledger;
        let ran_out = |entry: &&mut Entry| {
            let can_be_asked = entry.sale.is_some() && entry.asked_only() == ledger;
            can_be_asked && matches!(entry.became, Some(Became::Held { until }) if until < now)
        };
        self.entries.iter_mut().filter(ran_out).for_each(|entry| entry.became = None);
        for entry in self.entries.iter_mut().filter(|entry| entry.needs_a_person() && entry.sale.is_some()) {
            entry.verdict = None;
        }
    }

    /// The ledger of the service that this terminal was let in by last.
    pub fn ledger(&self) -> Option<LedgerId> {
        self.ledger
    }

    /// The latest instant that it speaks of.
    pub(in crate::terminal) fn newest(&self) -> Option<Timestamp> {
        let instants = |entry: &Entry| [Some(entry.at), entry.sold_offline.map(Timestamp::from_millis)];
        self.entries.iter().flat_map(instants).flatten().max()
    }

    /// What is done under a programme while the service is away.
    pub fn when_away(&self, programme: ProgrammeId) -> WhenAway {
        self.when_away.get(&programme).copied().unwrap_or_default()
    }

    /// Whether this has been told before.
    pub(in crate::terminal) fn was_told(&self, ledger: LedgerId, when_away: &[(ProgrammeId, WhenAway)]) -> bool {
        self.ledger == Some(ledger) && self.when_away == when_away.iter().copied().collect()
    }

    /// Sales from an instant on, oldest first, and whatever waits for its upload or for a person.
    pub fn rows(&self, since: Timestamp) -> Vec<Row> {
        let is_listed = |entry: &&Entry| entry.at >= since || entry.is_always_listed();
        self.entries.iter().filter(is_listed).map(Entry::row).collect()
    }

    /// This terminal's own sales to a buyer under a programme, oldest first.
    pub fn earlier(&self, programme: ProgrammeId, buyer: &Buyer) -> Vec<Earlier> {
        let mark = self.marker.mark(buyer);
        let same = self.entries.iter().filter(|entry| entry.mark == mark && entry.programme == programme);
        same.filter_map(|entry| Some(Earlier { at: entry.at, quantity: entry.quantity, certain: entry.is_sold()? }))
            .collect()
    }

    /// What is still needed at this time: all of what is not settled, of the rest no numbers, and nothing that is long past.
    pub(super) fn still_needed(&self, now: Timestamp) -> Self {
        let mut needed =
            Self { ledger: self.ledger, when_away: self.when_away.clone(), ..Self::new(self.marker.clone()) };
        for entry in &self.entries {
            let is_open = entry.todo().is_some() || entry.needs_a_person() || entry.is_held(now);
            let age = now.since(entry.at);
            if is_open || age < REMEMBERED {
                let sale = entry.sale.clone().filter(|_| is_open || age < NUMBER_KEPT);
                needed.add(Entry { sale, ..entry.clone() });
            }
        }
        needed
    }

    /// The facts that come to this.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let when_away = self.when_away.iter().map(|(programme, mode)| (*programme, *mode)).collect();
        let told = self.ledger.map(|ledger| Fact::Told { ledger, when_away });
        told.into_iter().chain(self.entries.iter().cloned().map(|entry| Fact::Kept(Box::new(entry)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit};
    use proptest::prelude::*;

    fn state() -> State {
        State::new(Marker::new(Hmac::new(&[3; 64].into())))
    }

    fn after(facts: impl IntoIterator<Item = Fact>) -> State {
        let mut state = state();
        facts.into_iter().for_each(|fact| state.apply(fact));
        state
    }

    fn id(nth: u8) -> RequestId {
        RequestId::from_bytes([nth + 1; 16]).unwrap()
    }

    fn ledger(nth: u8) -> LedgerId {
        LedgerId::from_bytes([nth + 1; 16]).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_583_884_800_000 + seconds * 1_000)
    }

    fn programme() -> ProgrammeId {
        "kr-public-mask-2020".parse().unwrap()
    }

    fn buyer() -> Buyer {
        Buyer::Resident("770707-1928374".into())
    }

    fn sale() -> Sale {
        Sale::in_person(programme(), buyer(), 2)
    }

    fn told() -> Fact {
        Fact::Told { ledger: ledger(0), when_away: vec![(programme(), WhenAway::SellAndRecord)] }
    }

    fn asked(nth: u8) -> Fact {
        Fact::Asked { id: id(nth), at: at(i64::from(nth)), ledger: ledger(0), sale: sale() }
    }

    fn sold_offline(nth: u8) -> Fact {
        Fact::SoldOffline { id: id(nth), at: at(100 + i64::from(nth)), sale: sale() }
    }

    fn became(nth: u8, what: Became) -> Fact {
        Fact::Became { id: id(nth), what, masked: None }
    }

    fn judged(nth: u8) -> Fact {
        Fact::Judged { id: id(nth), verdict: Verdict::Recorded }
    }

    fn todo(state: &State) -> Vec<(Todo, RequestId)> {
        state.todo().map(|(todo, entry)| (todo, entry.id)).collect()
    }

    fn stands(state: &State) -> Stands {
        state.get(id(0)).unwrap().stands()
    }

    #[test]
    fn a_purchase_is_unresolved_until_the_service_has_said_what_became_of_it() {
        let open = after([told(), asked(0)]);
        assert_eq!((todo(&open), stands(&open)), (vec![(Todo::Resolve, id(0))], Stands::Unknown));
        assert_eq!((open.unresolved(), open.waiting()), (1, 0));
        let sold = after([told(), asked(0), became(0, Became::Sold)]);
        assert_eq!((todo(&sold), stands(&sold)), (vec![], Stands::Became(Became::Sold)));
    }

    #[test]
    fn an_unresolved_purchase_that_was_handed_over_keeps_its_id_and_is_uploaded() {
        let waits = after([told(), asked(0), sold_offline(0)]);
        assert_eq!((todo(&waits), stands(&waits)), (vec![(Todo::Upload, id(0))], Stands::Waits));
        // Also when it was closed before.
        let closed = after([told(), asked(0), became(0, Became::NotRecorded), sold_offline(0)]);
        assert_eq!(todo(&closed), [(Todo::Upload, id(0))]);
        let settled = after([told(), asked(0), sold_offline(0), judged(0)]);
        assert_eq!((todo(&settled), stands(&settled)), (vec![], Stands::Uploaded(Verdict::Recorded)));
    }

    #[test]
    fn nothing_is_asked_of_another_ledger_and_what_was_sold_is_uploaded_to_any() {
        let other = Fact::Told { ledger: ledger(1), when_away: vec![] };
        let moved = after([told(), asked(0), asked(1), sold_offline(1), other]);
        assert_eq!(todo(&moved), [(Todo::Upload, id(1))]);
        assert_eq!(moved.unresolved(), 1, "and is not forgotten");
        let other = || Fact::Told { ledger: ledger(1), when_away: vec![] };
        let wanted = || Fact::VoidWanted { id: id(0), buyer: None };
        assert_eq!(todo(&after([told(), asked(0), other(), wanted()])), []);
        let uploaded = after([told(), asked(0), sold_offline(0), other(), judged(0), wanted()]);
        assert_eq!(todo(&uploaded), [(Todo::Void, id(0))], "what was uploaded to it means something there");
    }

    #[test]
    fn what_may_be_under_way_is_uploaded_before_it_is_taken_back() {
        let wanted = || Fact::VoidWanted { id: id(0), buyer: None };
        let uploading = || Fact::Uploading { ids: vec![id(0)] };
        let before = after([sold_offline(0), uploading(), wanted()]);
        assert_eq!((todo(&before), stands(&before)), (vec![(Todo::Upload, id(0))], Stands::Voiding));
        let judged = after([sold_offline(0), uploading(), wanted(), judged(0)]);
        assert_eq!(todo(&judged), [(Todo::Void, id(0))]);
        let voided = after([sold_offline(0), uploading(), wanted(), self::judged(0), Fact::Voided { id: id(0) }]);
        assert_eq!((todo(&voided), stands(&voided)), (vec![], Stands::Voided));
        // Of one whose sale was lost there is nothing to upload.
        assert_eq!(todo(&after([told(), asked(0), uploading(), wanted()])), [(Todo::Void, id(0))]);
        // A purchase that was only ever asked for needs no upload.
        assert_eq!(todo(&after([told(), asked(0), sold_offline(0), wanted()])), [(Todo::Void, id(0))]);
        let withdrawn = after([sold_offline(0), Fact::Withdrawn { id: id(0) }]);
        assert_eq!((todo(&withdrawn), stands(&withdrawn)), (vec![], Stands::Withdrawn));
    }

    #[test]
    fn the_terminals_own_sales_to_one_number_are_known_however_it_is_written() {
        let state = after([told(), asked(0), became(0, Became::Sold), asked(1), asked(2), sold_offline(3)]);
        let state =
            [became(2, Became::Refused(vec!["QUOTA_EXHAUSTED".into()]))].into_iter().fold(state, |mut state, fact| {
                state.apply(fact);
                state
            });
        let earlier = |number: &str| {
            let found = state.earlier(programme(), &Buyer::Resident(number.into()));
            found.into_iter().map(|earlier| (earlier.at, earlier.certain)).collect::<Vec<_>>()
        };
        let own = [(at(0), true), (at(1), false), (at(103), true)];
        assert_eq!(earlier("770707-1928374"), own);
        assert_eq!(earlier("7707071928374"), own);
        assert!(earlier("770707-1928375").is_empty());
        assert!(state.earlier("weekly-essentials".parse().unwrap(), &buyer()).is_empty());
        let later = state.still_needed(at(100_000));
        assert_eq!(later.earlier(programme(), &buyer()).len(), 3, "also without the number");
    }

    #[test]
    fn numbers_go_with_what_is_settled_and_stay_with_what_is_not() {
        let state = after([told(), asked(0), became(0, Became::Sold), asked(1), sold_offline(2)]);
        let has_number = |state: &State, nth| state.get(id(nth)).map(|entry| entry.sale.is_some());
        let soon = state.still_needed(at(60));
        assert_eq!([0, 1, 2].map(|nth| has_number(&soon, nth)), [Some(true); 3]);
        let later = state.still_needed(at(86_400));
        assert_eq!([0, 1, 2].map(|nth| has_number(&later, nth)), [Some(false), Some(true), Some(true)]);
        assert_eq!(later.rows(Timestamp::EPOCH), state.rows(Timestamp::EPOCH), "the list is the same");
        assert_eq!(later.rows(Timestamp::EPOCH)[0].masked, "770707-1******");
        let long_after = state.still_needed(at(86_400 * 30));
        assert_eq!([0, 1, 2].map(|nth| has_number(&long_after, nth)), [None, Some(true), Some(true)]);
        assert_eq!(after(long_after.facts()).rows(Timestamp::EPOCH), long_after.rows(Timestamp::EPOCH));
    }

    #[test]
    fn what_is_held_keeps_its_number_and_is_asked_about_when_it_has_run_out() {
        let held = || Became::Held { until: at(7_200) };
        let state = after([told(), asked(0), became(0, held())]);
        let has_number = |state: &State| state.get(id(0)).map(|entry| entry.sale.is_some());
        assert_eq!((todo(&state), stands(&state)), (vec![], Stands::Became(held())));
        let [live, of_late, gone] = [7_000, 90_000, 7_200 + 86_400].map(|seconds| state.still_needed(at(seconds)));
        assert_eq!([&live, &of_late, &gone].map(has_number), [Some(true), Some(true), Some(false)]);
        for (mut state, now, open) in
            [(live, 7_000, vec![]), (of_late, 90_000, vec![(Todo::Resolve, id(0))]), (gone, 99_999, vec![])]
        {
            state.try_again(at(now));
            assert_eq!(todo(&state), open, "at {now}");
        }
        // Confirmed without an answer it is asked about, and may be confirmed again.
        let confirming = after([told(), asked(0), became(0, held()), Fact::Confirming { id: id(0) }]);
        assert_eq!((todo(&confirming), stands(&confirming)), (vec![(Todo::Resolve, id(0))], Stands::Unknown));
        assert!(confirming.get(id(0)).unwrap().was_held());
        let sold = [told(), asked(0), became(0, held()), Fact::Confirming { id: id(0) }, became(0, Became::Sold)];
        assert_eq!(todo(&after(sold)), []);
        assert!(!after([told(), asked(0)]).get(id(0)).unwrap().was_held());
        // Of another ledger nothing is asked, nor wanted.
        let other = Fact::Told { ledger: ledger(1), when_away: vec![] };
        let mut moved = after([told(), asked(0), became(0, held()), other]);
        moved.try_again(at(90_000));
        assert_eq!((moved.unresolved(), stands(&moved)), (0, Stands::Became(held())));
    }

    #[test]
    fn what_the_service_has_not_taken_is_never_forgotten_and_uploaded_once_more() {
        let verdicts = [Verdict::Invalid(vec![]), Verdict::Quarantined("it lies in the future".into())];
        for verdict in verdicts {
            let judged = || Fact::Judged { id: id(0), verdict: verdict.clone() };
            let mut state = after([sold_offline(0), Fact::Uploading { ids: vec![id(0)] }, judged()]);
            let long_after = at(86_400 * 30);
            assert_eq!((todo(&state), state.to_mend()), (vec![], 1));
            state = state.still_needed(long_after);
            assert_eq!(state.rows(long_after).len(), 1, "also among the newest");
            state.try_again(long_after);
            assert_eq!((todo(&state), state.to_mend()), (vec![(Todo::Upload, id(0))], 0));
            assert_eq!(state.rows(long_after).len(), 1, "also while it waits");
            state.apply(judged());
            assert_eq!((todo(&state), state.to_mend()), (vec![], 1));
            let taken_back = [Fact::VoidWanted { id: id(0), buyer: None }, Fact::Voided { id: id(0) }];
            taken_back.into_iter().for_each(|fact| state.apply(fact));
            state.try_again(long_after);
            assert_eq!((todo(&state), state.to_mend()), (vec![], 0), "taken back is done with");
            assert_eq!(state.still_needed(long_after).rows(Timestamp::EPOCH).len(), 0);
        }
        let mut taken = after([sold_offline(0), judged(0)]);
        taken.try_again(at(200));
        assert_eq!(todo(&taken), []);
    }

    #[test]
    fn nothing_is_sold_offline_where_nobody_has_said_so() {
        assert_eq!(state().when_away(programme()), WhenAway::Stop);
        assert_eq!(after([told()]).when_away(programme()), WhenAway::SellAndRecord);
        assert_eq!(after([told()]).when_away("weekly-essentials".parse().unwrap()), WhenAway::Stop);
    }

    proptest! {
        /// Any facts may be lost. What is left never uploads or resolves under an id that was not written down, and a sale offline
        /// whose own fact is left is uploaded or was judged, voided or withdrawn.
        #[test]
        fn lost_facts_double_no_sale(kept in prop::collection::vec(any::<bool>(), 8)) {
            let all = [
                told(), asked(0), became(0, Became::NotRecorded), sold_offline(0), sold_offline(1),
                Fact::Uploading { ids: vec![id(0), id(1)] }, judged(0), Fact::Withdrawn { id: id(1) },
            ];
            let is_kept = |nth: usize| kept[nth];
            let left = all.into_iter().enumerate().filter(|(nth, _)| is_kept(*nth)).map(|(_, fact)| fact);
            let state = after(left);
            let uploads: Vec<RequestId> =
                state.todo().filter(|(todo, _)| *todo == Todo::Upload).map(|(_, entry)| entry.id).collect();
            prop_assert_eq!(uploads.contains(&id(0)), is_kept(3) && !is_kept(6));
            prop_assert_eq!(uploads.contains(&id(1)), is_kept(4) && !is_kept(7));
            prop_assert!(state.rows(Timestamp::EPOCH).len() <= 2);
        }
    }
}

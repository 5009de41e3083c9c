//! A programme: one rationed thing with its rules over time, and what they say of one line of a visit at one instant.
//!
//! Knows nothing of the past of a buyer: what has been used is compared with the windows elsewhere.

use std::fmt;
use std::time::Duration;

use smallvec::SmallVec;

use super::calendar::{Day, Weekday, Zone};
use super::channels::Channels;
use super::file::Effect;
use super::foreigners::Foreigners;
use super::offline::Offline;
use super::proxy::{Proxies, WhoseDays};
use super::rotation::{FreeDays, Rotation};
use super::stock::StockLevels;
use super::windows::WindowRule;
use super::{Assessment, Judgement, Line, LineSet, Person, Place, Reason, Refusal, Visit, Window, Windows};
use crate::ids::{Paper, ProgrammeCode, ProgrammeId, Relation};
use crate::time::{Date, Timestamp};

/// What kind of identity a programme's buyers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuyerIds {
    /// Korean resident or foreigner registration numbers, thirteen digits.
    KrResident,
    /// Any text that the programme's own body gives out, with the birth date stated beside it.
    Opaque,
}

/// One rationed thing with its rules over time. A value of this type has been validated as a whole.
#[derive(Debug, Clone)]
pub struct Programme {
    pub(super) id: ProgrammeId,
    pub(super) code: ProgrammeCode,
    pub(super) title: String,
    pub(super) unit: String,
    pub(super) zone: Zone,
    pub(super) buyer_ids: BuyerIds,
    pub(super) check_digit_warning: bool,
    pub(super) demo: bool,
    pub(super) longest_hold: Duration,
    pub(super) offline: Offline,
    pub(super) stock_levels: StockLevels,
    pub(super) other_papers: Vec<Paper>,
    /// Contiguous, by time.
    pub(super) periods: Vec<Period>,
    pub(super) rotation: Option<Rotation>,
    pub(super) free_days: FreeDays,
    pub(super) holidays: FreeDays,
    pub(super) channels: Channels,
    pub(super) whose_days: WhoseDays,
    pub(super) proxies: Proxies,
    pub(super) foreigners: Foreigners,
    /// Every instant at which a rule begins or ends, in order.
    pub(super) instants: Vec<Timestamp>,
}

/// A stretch of time with the same windows.
#[derive(Debug, Clone)]
pub(super) struct Period {
    pub(super) effect: Effect,
    /// Why nothing is checked; `None` where the programme is in force.
    pub(super) not_in_force: Option<String>,
    pub(super) rotation: bool,
    pub(super) holidays_free: bool,
    pub(super) windows: Vec<WindowRule>,
}

/// A relation or a paper was stated that the programme has not declared. The word is not repeated: what was typed into the
/// wrong field may be a buyer's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    /// Which kind of word: "relation" or "paper".
    pub what: &'static str,
    /// The words that the programme knows, in alphabetical order.
    pub known: Vec<String>,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known.is_empty() {
            return write!(f, "this programme knows no {} at all", self.what);
        }
        write!(f, "this programme knows no such {}, but: {}", self.what, self.known.join(", "))
    }
}

/// One line of a visit at one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) visit: &'a Visit,
    pub(super) index: usize,
    pub(super) line: &'a Line,
    pub(super) place: &'a Place,
    pub(super) approved: LineSet,
}

/// Which rules say no.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    channel: bool,
    eligible: bool,
    proxy: bool,
    day: bool,
}

impl Verdict {
    pub(super) fn is_yes(self) -> bool {
        self.channel && self.eligible && self.proxy && self.day
    }
}

impl Programme {
    /// The programme's name.
    pub fn id(&self) -> ProgrammeId {
        self.id
    }

    /// The short code that stands in record keys.
    pub fn code(&self) -> ProgrammeCode {
        self.code
    }

    /// What it is called, for people.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What one unit is: "mask", "mg".
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// The IANA name of the zone in which its days are counted.
    pub fn zone(&self) -> &str {
        self.zone.name()
    }

    /// How its buyers are identified.
    pub fn buyer_ids(&self) -> BuyerIds {
        self.buyer_ids
    }

    /// Whether a failed check digit is told to the clerk.
    pub fn warns_of_check_digit(&self) -> bool {
        self.check_digit_warning
    }

    /// Whether it is for trying out: synthetic numbers may then stand on a command line.
    pub fn is_demo(&self) -> bool {
        self.demo
    }

    /// The longest time for which a hold may be asked.
    pub fn longest_hold(&self) -> Duration {
        self.longest_hold
    }

    /// The longest time, in days of 24 hours, that any of its windows looks back over.
    pub fn longest_window(&self) -> Duration {
        let windows = self.periods.iter().flat_map(|period| &period.windows);
        windows.map(WindowRule::longest).max().unwrap_or_default()
    }

    /// How long a purchase is kept: the longest window and eight days. A client never retries an older request.
    pub fn kept(&self) -> Duration {
        self.longest_window() + Duration::from_secs(8 * 24 * 60 * 60)
    }

    /// The first relation or paper of a line that the programme has not declared. A word is declared by standing in the
    /// programme's file.
    pub fn unknown_word(&self, line: &Line) -> Option<UnknownWord> {
        if let Some(relation) = line.relation
            && !self.proxies.relations().any(|known| known == relation)
        {
            let known = sorted(self.proxies.relations().map(|r: Relation| r.to_string()));
            return Some(UnknownWord { what: "relation", known });
        }
        let undeclared = line.papers.iter().any(|paper| !self.declared_papers().any(|known| known == *paper));
        let known = || sorted(self.declared_papers().map(|paper| paper.to_string()));
        undeclared.then(|| UnknownWord { what: "paper", known: known() })
    }

    /// The words for agents, each once, in the order of the programme's file.
    pub fn relations(&self) -> Vec<Relation> {
        once_each(self.proxies.relations())
    }

    /// The words for papers, each once, in the order of the programme's file: first those that some rule asks for.
    pub fn papers(&self) -> Vec<Paper> {
        once_each(self.declared_papers())
    }

    fn declared_papers(&self) -> impl Iterator<Item = Paper> {
        self.proxies.papers().chain(self.foreigners.papers()).chain(self.other_papers.iter().copied())
    }

    /// The order in which the lines of a visit are claimed: lines that others lean on first, the agent's own line last.
    pub fn order(&self, visit: &Visit) -> SmallVec<[usize; 4]> {
        let is_own = |index: &usize| visit.lines.get(*index).is_some_and(|line| line.relation.is_none());
        let mut order: SmallVec<[usize; 4]> = (0..visit.lines.len()).collect();
        if visit.agent.is_some() {
            order.sort_by_key(is_own);
        }
        order
    }

    /// What the rules say of one line of a visit. `approved` are the lines of the same visit that have been approved
    /// already, which the agent's own line may lean on.
    pub fn assess(&self, visit: &Visit, line: usize, place: &Place, at: Timestamp, approved: LineSet) -> Assessment {
        let Some(period) = self.in_force(at) else { return Assessment::NotRequired(self.why_not_in_force(at)) };
        let day = self.zone.day(at);
        let Some(taker) = visit.lines.get(line) else {
            // Never a yes for a line that is not there.
            let why = "The visit has no such line.".to_owned();
            let refusals = smallvec::smallvec![Reason { refusal: Refusal::NotEligible, why }];
            return Assessment::Judged(Judgement { refusals, windows: SmallVec::new(), good_until: day.ends });
        };
        let question = Question { visit, index: line, line: taker, place, approved };
        let verdict = self.verdict(period, day, question, at);
        let windows: Windows = self.windows(period, day, taker.buyer, at).collect();
        let good_until = self.good_until(&windows, day, at);
        let refusals =
            if verdict.is_yes() { SmallVec::new() } else { self.reasons(verdict, period, day, question, at) };
        Assessment::Judged(Judgement { refusals, windows, good_until })
    }

    /// The fixed windows into which a sale of that time falls; `None` if the programme was not in force then. A rolling
    /// window stands as each of the runs of days that contain the day of sale, so that a sale is over the limit exactly
    /// if one of them is.
    pub fn late_windows(&self, buyer: Person, sold_at: Timestamp) -> Option<Vec<Window>> {
        let period = self.in_force(sold_at)?;
        let day = self.zone.day(sold_at);
        let spans = period.windows.iter().flat_map(|rule| rule.spans_of(&self.zone, sold_at, day, buyer.birth_year));
        Some(spans.collect())
    }

    /// The buyer's own day in the rotation, from that day on the first; `None` where no rotation applies.
    pub fn rotation_day(&self, buyer: Person, at: Timestamp) -> Option<Weekday> {
        let period = self.in_force(at)?;
        let rotation = self.rotation.as_ref().filter(|_| period.rotation)?;
        rotation.own_day(buyer.birth_year, self.zone.day(at).weekday())
    }

    /// The civil date of an instant in the programme's zone.
    pub fn date(&self, at: Timestamp) -> Date {
        self.zone.day(at).date()
    }

    /// The first instant of a civil date in the programme's zone.
    pub fn midnight(&self, date: Date) -> Timestamp {
        self.zone.midnight(date)
    }

    /// What a terminal does while nobody can be asked.
    pub fn offline(&self) -> Offline {
        self.offline
    }

    /// From how many units on a site has plenty, some, few.
    pub fn stock_levels(&self) -> StockLevels {
        self.stock_levels
    }

    /// An instant in the programme's zone: `2020-03-14T00:00:00+09:00`.
    pub fn local(&self, at: Timestamp) -> String {
        self.zone.local(at)
    }

    /// The same without the zone, as the public feed of 2020 wrote it: `2020/03/14 00:00:00`.
    pub fn stamp(&self, at: Timestamp) -> String {
        self.zone.stamp(at)
    }

    pub(super) fn period(&self, at: Timestamp) -> Option<&Period> {
        let nth = self.periods.partition_point(|period| period.effect.from <= at);
        self.periods.get(nth.checked_sub(1)?).filter(|period| period.effect.contains(at))
    }

    pub(super) fn in_force(&self, at: Timestamp) -> Option<&Period> {
        self.period(at).filter(|period| period.not_in_force.is_none())
    }

    pub(super) fn why_not_in_force(&self, at: Timestamp) -> String {
        if let Some(why) = self.period(at).and_then(|period| period.not_in_force.as_deref()) {
            return why.to_owned();
        }
        match self.periods.first() {
            Some(first) if at < first.effect.from => {
                let (day, date) = (self.zone.day(first.effect.from), self.date(first.effect.from));
                format!("The programme begins on {} {}.", day.spoken(), date.year)
            }
            _ => "The programme has ended.".to_owned(),
        }
    }

    pub(super) fn windows(
        &self,
        period: &Period,
        day: Day,
        buyer: Person,
        at: Timestamp,
    ) -> impl Iterator<Item = Window> {
        period.windows.iter().map(move |rule| rule.window(&self.zone, at, day, buyer.birth_year))
    }

    /// The first instant after `at` at which any answer could be another one.
    pub(super) fn good_until(&self, windows: &[Window], day: Day, at: Timestamp) -> Timestamp {
        let nth = self.instants.partition_point(|&instant| instant <= at);
        let ends = windows.iter().map(|window| window.until);
        ends.chain(self.instants.get(nth).copied()).fold(day.ends, Timestamp::min)
    }

    pub(super) fn verdict(&self, period: &Period, day: Day, question: Question<'_>, at: Timestamp) -> Verdict {
        let Question { visit, index, line, place, approved } = question;
        Verdict {
            channel: self.channels.enrolled(place, at),
            eligible: self.foreigners.admits(line, at),
            proxy: line.relation.is_none_or(|relation| {
                (!line.buyer.foreign || self.foreigners.may_be_bought_for(at))
                    && self.proxies.allows(line, relation, at)
            }),
            day: self.is_open_to_all(period, day)
                || self.whose_days.now(at).allows(visit, index, line, approved, |person: Person| {
                    self.rotation.as_ref().is_some_and(|rotation| rotation.has(person.birth_year, day.weekday()))
                }),
        }
    }

    /// Whether anybody may come on this day.
    fn is_open_to_all(&self, period: &Period, day: Day) -> bool {
        let Some(rotation) = self.rotation.as_ref().filter(|_| period.rotation) else { return true };
        rotation.is_always_free(day.weekday())
            || self.free_days.why(day).is_some()
            || (period.holidays_free && self.holidays.why(day).is_some())
    }

    /// Why the day is free for once; `None` for an ordinary day.
    pub(super) fn why_free(&self, period: &Period, day: Day) -> Option<&str> {
        let holiday = self.holidays.why(day).filter(|_| period.holidays_free);
        self.free_days.why(day).or(holiday).filter(|_| period.rotation)
    }

    fn reasons(
        &self,
        verdict: Verdict,
        period: &Period,
        day: Day,
        question: Question<'_>,
        at: Timestamp,
    ) -> SmallVec<[Reason; 1]> {
        let line = question.line;
        let mut reasons = SmallVec::new();
        let mut refuse = |refusal, why| reasons.push(Reason { refusal, why });
        if !verdict.channel {
            refuse(Refusal::ChannelNotEnrolled, self.channels.why(question.place, at, &self.zone));
        }
        if !verdict.eligible {
            refuse(Refusal::NotEligible, self.foreigners.why(at));
        }
        if let Some(relation) = line.relation.filter(|_| !verdict.proxy) {
            let foreigner = line.buyer.foreign && !self.foreigners.may_be_bought_for(at);
            let why = if foreigner {
                "Nobody may buy for a foreigner now.".to_owned()
            } else {
                self.proxies.why(line, relation, at)
            };
            refuse(Refusal::ProxyNotAllowed, why);
        }
        if !verdict.day {
            refuse(Refusal::NotYourDay, self.why_not_the_day(period, day, line.buyer));
        }
        reasons
    }

    fn why_not_the_day(&self, period: &Period, day: Day, buyer: Person) -> String {
        let rotation = self.rotation.as_ref().filter(|_| period.rotation);
        let whose = rotation.and_then(|rotation| rotation.spoken(day.weekday()));
        let own = rotation.and_then(|rotation| rotation.own_day(buyer.birth_year, day.weekday()));
        let whose = whose
            .map_or_else(|| format!("{} is nobody's day", day.spoken()), |w| format!("{} is for {w}", day.spoken()));
        own.map_or_else(|| format!("{whose}."), |own| format!("{whose}; the day for {} is {own}.", buyer.birth_year))
    }
}

fn once_each<T: PartialEq>(words: impl Iterator<Item = T>) -> Vec<T> {
    words.fold(Vec::new(), |mut known, word| {
        if !known.contains(&word) {
            known.push(word);
        }
        known
    })
}

fn sorted(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut words: Vec<String> = words.collect();
    words.sort();
    words.dedup();
    words
}

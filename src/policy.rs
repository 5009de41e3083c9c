//! The rules of programmes, pure: facts about a visit and a civil time go in, windows or the reasons to refuse come out.
//!
//! Knows nothing about who a buyer is (a rule sees a birth year and whether a number is a foreigner's), where claims are
//! recorded, or what time it is now: every instant is an argument. No I/O, no logging, no clock.

mod calendar;
mod chance;
mod channels;
mod explain;
mod file;
mod foreigners;
mod offline;
mod overview;
mod policies;
mod problems;
mod programme;
mod proxy;
mod read;
mod rotation;
mod stock;
mod windows;
mod wording;

pub use calendar::Weekday;
pub use explain::{Ask, Explained, SaidChance, SaidLeft, SaidReason};
pub use offline::Offline;
pub use overview::{Change, Diff, Fact, Shown, Step};
pub use policies::Policies;
pub use problems::{PolicyError, PolicyErrors};
pub use programme::{BuyerIds, Programme, UnknownWord};
pub use stock::StockLevels;
pub use windows::{left, quota_reason, used};

use smallvec::SmallVec;

use crate::ids::{Channel, Paper, Relation};
use crate::time::{Date, Timestamp};

/// What a rule may see of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// Registered year of birth. Rotation and age rules use the year and nothing else.
    pub birth_year: i16,
    /// Whether the number is a foreigner's.
    pub foreign: bool,
}

/// One request at a counter: the lines are the people who take units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Who stands at the counter for others. `None`: one line, bought in person.
    pub agent: Option<Person>,
    /// One line per person who takes units. With an agent, the line without a relation is the agent's own.
    pub lines: SmallVec<[Line; 1]>,
    /// Family members named in the visit who take no units; their day may count.
    pub family: SmallVec<[Person; 1]>,
}

/// One person's share of a visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whose allowance is charged.
    pub buyer: Person,
    /// How the agent stands to the buyer; `None` when the buyer is here in person.
    pub relation: Option<Relation>,
    /// What the seller says was shown for this line.
    pub papers: SmallVec<[Paper; 2]>,
    /// Units asked for.
    pub quantity: u32,
}

/// A set of lines of one visit, by index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineSet(u32);

impl LineSet {
    /// The most lines that a visit may have.
    pub const MAX_LINES: usize = 16;

    /// This set and one line more.
    #[must_use]
    pub fn with(self, line: usize) -> Self {
        Self(self.0 | u32::try_from(line).ok().and_then(|shift| 1u32.checked_shl(shift)).unwrap_or(0))
    }

    /// Whether the line is in the set.
    pub fn contains(self, line: usize) -> bool {
        self != Self(0) && self.with(line) == self
    }
}

/// Where the sale is made, as far as a rule may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The site's channel.
    pub channel: Channel,
    /// The site's region, in the words of the site registry ("Seoul").
    pub region: String,
}

/// Why a programme says no, in order of precedence: the first that applies is the answer's main name
/// (`domain.md` 2.8). `INVALID_BUYER_ID` is not among them because it is an error of the request, and `NOT_REQUIRED` is not
/// because it is a yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The site is not part of the shared check at this time.
    ChannelNotEnrolled,
    /// The person is outside the programme at this time.
    NotEligible,
    /// This agent may not buy for this person at this time.
    ProxyNotAllowed,
    /// The day rule is not met.
    NotYourDay,
    /// A window is closed, or more was asked than is left in it.
    QuotaExhausted,
}

impl Refusal {
    /// Every refusal, in order of precedence.
    pub const ALL: [Self; 5] =
        [Self::ChannelNotEnrolled, Self::NotEligible, Self::ProxyNotAllowed, Self::NotYourDay, Self::QuotaExhausted];

    /// The stable name: the same in JSON, metrics and test vectors.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelNotEnrolled => "CHANNEL_NOT_ENROLLED",
            Self::NotEligible => "NOT_ELIGIBLE",
            Self::ProxyNotAllowed => "PROXY_NOT_ALLOWED",
            Self::NotYourDay => "NOT_YOUR_DAY",
            Self::QuotaExhausted => "QUOTA_EXHAUSTED",
        }
    }
}

/// The name of the reason for `NOT_REQUIRED`.
pub const NOT_IN_FORCE: &str = "PROGRAMME_NOT_IN_FORCE";

/// A refusal with its reason in a sentence that a clerk can read aloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Which rule said no.
    pub refusal: Refusal,
    /// Why, in one English sentence about the rule and never about another person.
    pub why: String,
}

/// A span of time with a limit in units and, optionally, in number of purchases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First instant inside.
    pub from: Timestamp,
    /// First instant after it. A rolling window has no upper end: [`Timestamp::NEVER`].
    pub until: Timestamp,
    /// The most units; `None` where only purchases are limited.
    pub max_units: Option<u32>,
    /// The most purchases; `None` where only units are limited.
    pub max_purchases: Option<u32>,
}

/// What a buyer has used of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Units of sales and live holds.
    pub units: u64,
    /// Number of sales and live holds.
    pub purchases: u32,
}

impl Window {
    /// Whether an instant lies inside: the beginning does, the end does not.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether `units` more, as one more purchase, stay within the limits.
    pub fn allows(&self, used: Used, units: u32) -> bool {
        self.max_units.is_none_or(|max| used.units + u64::from(units) <= u64::from(max))
            && self.max_purchases.is_none_or(|max| used.purchases < max)
    }
}

/// The windows that a claim must fit into, all of them. Nearly always one or two.
pub type Windows = SmallVec<[Window; 2]>;

/// What the rules say of a line, before anybody has looked at the buyer's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assessment {
    /// No check applies: sell freely, record nothing. Holds the reason in a sentence.
    NotRequired(String),
    /// The programme is in force.
    Judged(Judgement),
}

/// The rules' answer for one line at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Reasons to refuse, in order of precedence; empty when only the windows decide.
    pub refusals: SmallVec<[Reason; 1]>,
    /// What a claim must fit into.
    pub windows: Windows,
    /// First instant at which this judgement may no longer be right (a day, a rule or a window ends). A claim that the
    /// ledger would date at or after it must be assessed again.
    pub good_until: Timestamp,
}

/// A purchase of this buyer that counts: a sale, or a hold that is still live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The time at which it counts.
    pub at: Timestamp,
    /// How many units.
    pub units: u32,
    /// When it stops counting unless confirmed; `None` for a sale.
    pub held_until: Option<Timestamp>,
}

/// What is left to a buyer now: the least over all windows. `None` means no limit of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Units left.
    pub units: Option<u32>,
    /// Purchases left.
    pub purchases: Option<u32>,
}

/// When the buyer may next buy with every reason satisfied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    /// First instant of it.
    pub at: Timestamp,
    /// The civil day of that instant in the programme's zone.
    pub date: Date,
}

//! What the screen and whoever speaks with the service say to each other. It names no message of the wire.

use std::fmt;

use super::number::{Number, SHOWN};
use crate::ids::{Paper, Relation, RequestId};
use crate::time::Date;

/// The number of a question. Its answer carries it, so that one that comes late never stands under another buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask(pub(super) u64);

/// What the clerk wants done. Every wish with an [`Ask`] is answered once at least, at the latest when patience with the service ends: the
/// screen waits for it.
pub enum Wish {
    /// Look up what a purchase would be answered.
    Check {
        /// Its number.
        ask: Ask,
        /// Whose, and what.
        purchase: Purchase,
    },
    /// Sell.
    Sell {
        /// Its number.
        ask: Ask,
        /// To whom, and what.
        purchase: Purchase,
    },
    /// Write a sale down that nobody could be asked about.
    SellOffline {
        /// Its number.
        ask: Ask,
        /// To whom, and what.
        purchase: Purchase,
    },
    /// Ask again what became of a purchase.
    Resolve {
        /// Its number.
        ask: Ask,
        /// Which purchase.
        row: RequestId,
    },
    /// The goods of an unresolved purchase were handed over: it is entered late if it was not recorded.
    HandedOver {
        /// Its number.
        ask: Ask,
        /// Which purchase.
        row: RequestId,
    },
    /// They were not, and the buyer has gone: it is taken back if it was recorded.
    NotHandedOver {
        /// Which purchase.
        row: RequestId,
    },
    /// Take a sale back.
    Void {
        /// Which sale.
        row: RequestId,
        /// The number that it was sold to, if somebody who may be that person is being served: it may be kept nowhere any more.
        number: Option<Number>,
    },
    /// Leave.
    Quit,
}

/// What one person is to be sold.
pub struct Purchase {
    /// Whose allowance is charged.
    pub number: Number,
    /// Units, at least 1.
    pub quantity: u32,
    /// Who buys for the person; `None`: the person is here.
    pub proxy: Option<Proxy>,
    /// Papers that were shown, in the programme's words.
    pub papers: Vec<Paper>,
}

/// Who buys for another person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxy {
    /// How the agent stands to the buyer, in the programme's words.
    pub relation: Relation,
    /// The agent's year of birth.
    pub agent_birth_year: i32,
}

/// A number as it may stand on a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked(String);

impl Masked {
    /// From a number in whatever form: of its digits the first seven are kept.
    pub fn of(number: &str) -> Self {
        let mut digits = 0;
        let mask = |c: char| {
            digits += usize::from(c.is_numeric());
            if c.is_numeric() && digits > SHOWN { '*' } else { c }
        };
        Self(number.chars().map(mask).collect())
    }
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A day and a minute where the programme is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The day.
    pub date: Date,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weekday {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

impl Weekday {
    const ALL: [Self; 7] =
        [Self::Monday, Self::Tuesday, Self::Wednesday, Self::Thursday, Self::Friday, Self::Saturday, Self::Sunday];

    /// From its English name.
    pub fn from_english(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|day| format!("{day:?}").eq_ignore_ascii_case(name))
    }

    /// The one of this date (Sakamoto's rule).
    pub(super) fn of(date: Date) -> Self {
        const SHIFT: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = i32::from(date.year) - i32::from(date.month < 3);
        let shift = SHIFT.get(usize::from(date.month).wrapping_sub(1)).copied().unwrap_or_default();
        let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let from_sunday = (year + leaps + shift + i32::from(date.day)).rem_euclid(7);
        let from_monday = usize::try_from((from_sunday + 6) % 7).unwrap_or_default();
        Self::ALL.get(from_monday).copied().unwrap_or(Self::Monday)
    }
}

/// What the screen is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What time it is: at the start, and when another minute begins.
    Clock(Moment),
    /// How the terminal stands with the service.
    Door(Door),
    /// The answer to a question.
    Answer {
        /// Which question.
        ask: Ask,
        /// What was answered.
        answer: Answer,
    },
    /// A row of the list is new, or not as it was. All of today's are told at the start, oldest first.
    Row(Row),
    /// A sale was not taken back.
    NotVoided {
        /// Which sale.
        row: RequestId,
        /// Why.
        why: Failure,
    },
    /// What the journal holds that is not done with.
    Sheets {
        /// Sales that the service has not yet.
        waiting: u32,
        /// Purchases of which nobody knows yet what became of them.
        unresolved: u32,
    },
    /// An upload is over.
    Uploaded(Uploaded),
    /// How the journal is.
    Journal(Journal),
}

/// How the terminal stands with the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// It is being asked.
    Connecting,
    /// In line.
    Waiting {
        /// Absent before it has been counted.
        position: Option<u64>,
        /// Everybody of a lower one goes first.
        rank: u32,
        /// The wait is over within so many seconds, as likely as not.
        seconds: Option<u64>,
    },
    /// The terminal has this seat of its site and sells.
    Open {
        /// From 0.
        slot: u32,
    },
    /// Others hold every seat of the site.
    SiteFull {
        /// How many there are.
        cap: u32,
        /// Which terminals hold them.
        holders: Vec<String>,
    },
    /// Operators let nobody new in at present.
    Shut,
    /// The service is there, and takes no more at present: it is tried again.
    Busy,
    /// The service does not let this terminal in, for this reason.
    TurnedAway(String),
    /// The service cannot be reached.
    Away {
        /// Since when.
        since: Moment,
        /// What the programme says for this.
        offline: Offline,
    },
}

/// What a programme wants where nobody can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offline {
    /// Sell, and write it down.
    SellAndRecord,
    /// Do not sell.
    Stop,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A look-up's yes: nothing is recorded yet.
    MayBuy(Option<Standing>),
    /// Recorded: hand over.
    Sold {
        /// The sale.
        row: RequestId,
        /// What is left.
        standing: Option<Standing>,
    },
    /// No check applies.
    NotRequired {
        /// Why, in one English sentence.
        why: String,
    },
    /// Do not sell.
    Refused {
        /// In order of precedence.
        reasons: Vec<Reason>,
        /// What is left.
        standing: Option<Standing>,
    },
    /// Nobody could be asked, and nothing was sent or written.
    Unasked {
        /// What the programme says for this.
        offline: Offline,
        /// What this terminal itself has sold to the same number that may count in the same window.
        own: Vec<Earlier>,
    },
    /// Written down, and not looked at by anybody: uploaded later.
    WrittenDown {
        /// The sale.
        row: RequestId,
    },
    /// It was sent, and nobody can say yet whether it was recorded.
    Unknown {
        /// The purchase.
        row: RequestId,
        /// What the programme says of goods that are handed over without an answer.
        offline: Offline,
    },
    /// What was unknown is known: it is no sale. The goods may be gone by now, and nobody has said yet whether they are.
    NotSold {
        /// The purchase.
        row: RequestId,
        /// As above.
        offline: Offline,
    },
    /// No decision, and nothing was recorded.
    Failed(Failure),
}

/// Why not to sell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Which rule said no.
    pub refusal: Refusal,
    /// Why, in one English sentence.
    pub why: String,
}

/// The rules that say no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The site is not part of the programme now.
    ChannelNotEnrolled,
    /// The person is outside the programme now.
    NotEligible,
    /// This agent may not buy for this person now.
    ProxyNotAllowed,
    /// The day rule is not met.
    NotYourDay,
    /// A window is closed, or more was asked than is left in it.
    QuotaExhausted,
    /// One of a later service.
    Other,
}

/// What the buyer has left, and when next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Units; `None`: no limit.
    pub units_left: Option<u32>,
    /// Purchases; `None`: no limit.
    pub purchases_left: Option<u32>,
    /// The day of the next chance; `None`: not within a year.
    pub next: Option<Date>,
    /// Purchases that count now, newest last.
    pub earlier: Vec<Earlier>,
    /// The buyer's day in the rotation, where there is one now.
    pub own_day: Option<Weekday>,
}

/// A purchase that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// When.
    pub at: Moment,
    /// Units.
    pub quantity: u32,
    /// Where, in the words of the registry; empty: here.
    pub district: String,
}

/// Why there is no decision. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The terminal has no seat.
    NoSession,
    /// The service sheds load.
    Busy,
    /// The store of the service is away.
    StoreAway,
    /// The site has looked up many more people than it sold to.
    TooManyLookUps,
    /// Another site's, or nothing, stands under this id.
    NotOurs,
    /// What was unknown is known: nothing was recorded.
    NotRecorded,
    /// The number of the sale is kept nowhere any more.
    NumberGone,
    /// The service cannot be reached.
    Unreachable,
    /// Something else, in the service's words.
    Other {
        /// Its name.
        reason: String,
        /// For a person, in English.
        message: String,
    },
}

/// A sale of today's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The purchase's id.
    pub id: RequestId,
    /// When.
    pub at: Moment,
    /// To whom.
    pub number: Masked,
    /// Units.
    pub quantity: u32,
    /// What became of it.
    pub state: RowState,
}

/// What became of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// Recorded when it was made.
    Sold,
    /// To be taken back, and not yet.
    Voiding,
    /// Taken back.
    Voided,
    /// Nobody can say yet whether it was recorded.
    Unknown,
    /// It was unknown and is no sale, and nobody has said whether the goods were handed over.
    Unsettled,
    /// Nothing was recorded, and nothing was handed over.
    NotSold,
    /// Written down; the service has it not yet.
    Waiting,
    /// Entered late, within every limit, or recorded before.
    Late,
    /// Entered late, and more than was allowed.
    OverQuota,
    /// Put aside for a person to look at.
    PutAside,
    /// The service cannot read it: it must be mended.
    ToMend,
}

impl RowState {
    /// Whether somebody must say what became of the goods.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Unknown | Self::Unsettled)
    }

    /// Whether it can be taken back.
    pub(super) fn is_voidable(self) -> bool {
        match self {
            Self::Sold | Self::Waiting | Self::Late | Self::OverQuota => true,
            Self::Voiding
            | Self::Voided
            | Self::Unknown
            | Self::Unsettled
            | Self::NotSold
            | Self::PutAside
            | Self::ToMend => false,
        }
    }
}

/// What became of what was uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uploaded {
    /// Recorded, or recorded before.
    pub recorded: u32,
    /// Recorded, and more than was allowed.
    pub over_quota: u32,
    /// Put aside.
    pub put_aside: u32,
    /// Not readable.
    pub to_mend: u32,
}

/// How the journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Journal {
    /// As it should be.
    Sound,
    /// It can be written, and some of what it held cannot be read any more.
    Damaged {
        /// Sheets that are lost.
        lost: u32,
    },
    /// It cannot be written: nothing may be sold, for what is sold could not be made up for.
    Broken {
        /// Why, for a person.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_hides_what_was_masked_already_and_what_was_not() {
        for number in ["810305-1000112", "810305-1******", "８１０３０５-１０００１１２"] {
            assert!(
                Masked::of(number).to_string().ends_with("-1******")
                    || Masked::of(number).to_string().ends_with("-１******")
            );
        }
        assert_eq!(Masked::of("8103051000112").to_string(), "8103051******");
    }

    #[test]
    fn every_date_has_its_day_of_the_week() {
        let of = |text: &str| Weekday::of(text.parse().unwrap());
        assert_eq!(of("2020-03-09"), Weekday::Monday);
        assert_eq!(of("2020-02-29"), Weekday::Saturday);
        assert_eq!(of("2000-01-01"), Weekday::Saturday);
        assert_eq!(of("1900-03-01"), Weekday::Thursday);
        assert_eq!(Weekday::from_english("wednesday"), Some(Weekday::Wednesday));
        assert_eq!(Weekday::from_english(""), None);
    }
}

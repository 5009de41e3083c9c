//! What a counter tells the program in front of it. Pure.

use std::time::Duration;

use crate::grpc::v1::{self, purchase_result::Outcome};
use crate::ids::RequestId;
use crate::terminal::journal::{Became, Earlier, NotWritten, Stands, WhenAway};
use crate::terminal::{CallError, instant};
use crate::time::Timestamp;

/// How the line to the service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// It is dialled, or the session is opened again.
    Connecting,
    /// The service cannot be reached, or cannot decide.
    Away,
    /// The terminal stands in the line.
    Waiting {
        /// Everybody of a lower rank goes first.
        rank: u32,
        /// The position within the rank, once it has been counted.
        position: Option<u64>,
        /// How long it takes, as likely longer as shorter.
        about: Option<Duration>,
    },
    /// The terminal may sell.
    Selling {
        /// Which seat of the site, from 0.
        slot: u32,
    },
    /// Other terminals have every seat of the site.
    SiteFull {
        /// So many.
        cap: u32,
        /// These.
        holders: Vec<String>,
    },
    /// Operators let nobody new in at present.
    Shut,
    /// The service is there, and takes no more at present.
    Busy,
    /// The service does not let this terminal in, for this reason. A person must look at it.
    TurnedAway(String),
}

impl Line {
    pub(super) fn waiting(waiting: &v1::Waiting) -> Self {
        let about = waiting.estimate.as_ref().and_then(|estimate| estimate.p50.and_then(|p50| p50.try_into().ok()));
        Self::Waiting { rank: waiting.rank, position: waiting.position, about }
    }

    /// Whether the service answers questions, with a seat or without.
    pub(super) fn is_reached(&self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Selling { .. } | Self::SiteFull { .. } | Self::Shut)
    }
}

/// What a screen shows beside the sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// How the line stands.
    pub line: Line,
    /// What was last heard of the service, where it is away: for whoever looks after the terminal.
    pub why: Option<String>,
    /// How many sales wait for their upload.
    pub waiting: usize,
    /// Of how many purchases nobody has said yet what became of them.
    pub unresolved: usize,
    /// How many uploaded sales the service has not taken as they are, so that a person must look at them. Each is uploaded once more
    /// whenever the counter is opened.
    pub to_mend: usize,
    /// Why nothing can be written down, and so nothing is sold.
    pub trouble: Option<String>,
}

/// A recorded sale.
pub struct Approved {
    /// Its id.
    pub id: RequestId,
    /// The proof of it.
    pub receipt: v1::Receipt,
    /// What the buyer has left.
    pub standing: Option<v1::Standing>,
    /// What the clerk compares with the paper.
    pub echo: Option<v1::Echo>,
}

/// Units that are held.
pub struct Held {
    /// The hold's id, which the sale will have.
    pub id: RequestId,
    /// When they come free unless the hold is confirmed.
    pub until: Timestamp,
    /// What the buyer has left.
    pub standing: Option<v1::Standing>,
    /// What the clerk compares with the paper.
    pub echo: Option<v1::Echo>,
}

/// A decision not to sell.
pub struct Refused {
    /// The id that was refused.
    pub id: RequestId,
    /// At least one, in order of precedence.
    pub reasons: Vec<v1::Reason>,
    /// What the buyer has left, and when next.
    pub standing: Option<v1::Standing>,
    /// What the clerk compares with the paper.
    pub echo: Option<v1::Echo>,
}

/// Nobody can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offline {
    /// What the operator has said for this programme.
    pub rule: WhenAway,
    /// What this terminal itself has sold to the number under it, oldest first. Nobody can say here what others have.
    pub earlier: Vec<Earlier>,
}

/// What a clerk who wants to sell is told, or to hold.
pub enum Answer<Yes = Approved> {
    /// It is recorded: sell, or hold.
    Approved(Box<Yes>),
    /// Do not sell.
    Refused(Box<Refused>),
    /// Sell freely: no check applies, and nothing was recorded.
    NotRequired {
        /// The id that was asked with.
        id: RequestId,
        /// Why, in one sentence.
        why: String,
    },
    /// The service cannot be reached, and nothing is recorded there: [`Counter::sell_offline`](super::Counter::sell_offline) or not.
    /// To a confirmation: it is held as before; [`Counter::hand_over`](super::Counter::hand_over) or not.
    Offline(Offline),
    /// It was sent, and nobody can say what became of it: [`Counter::hand_over`](super::Counter::hand_over) or not. It is asked about
    /// by itself.
    Unknown {
        /// The id that it keeps.
        id: RequestId,
        /// As for a sale that was not sent. The sale itself is among the earlier ones, and not certain.
        offline: Offline,
    },
    /// The service is there, and this terminal has no seat.
    NotYet(Line),
    /// The service has not done it, for this reason: nothing is recorded, and what was held still is.
    Failed(CallError),
}

/// What a look-up says.
pub enum Checked {
    /// What a purchase would be answered.
    Answered(Box<v1::PurchaseResult>),
    /// The service cannot be reached.
    Offline(Offline),
    /// The service is there, and does not let this terminal in.
    NotYet(Line),
    /// It did not look, for this reason.
    Failed(CallError),
}

/// What approves.
pub(super) trait Approval: Sized {
    /// `None`: this is no approval.
    fn of(id: RequestId, outcome: Outcome, standing: Option<v1::Standing>, echo: Option<v1::Echo>) -> Option<Self>;
}

impl Approval for Approved {
    fn of(id: RequestId, outcome: Outcome, standing: Option<v1::Standing>, echo: Option<v1::Echo>) -> Option<Self> {
        let Outcome::Approved(v1::Approved { receipt: Some(receipt) }) = outcome else { return None };
        Some(Self { id, receipt, standing, echo })
    }
}

impl Approval for Held {
    fn of(id: RequestId, outcome: Outcome, standing: Option<v1::Standing>, echo: Option<v1::Echo>) -> Option<Self> {
        let Outcome::Held(v1::Held { until: Some(until), .. }) = outcome else { return None };
        Some(Self { id, until: instant(&until), standing, echo })
    }
}

/// Why a sale was not made offline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSold {
    /// It could not be written down.
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
    /// The operator has said that nothing is sold meanwhile.
    #[error("under this programme nothing is sold while the service is away")]
    Stopped,
    /// The service is not away: [`Counter::sell`](super::Counter::sell).
    #[error("the service is not away: ask it")]
    NotAway,
}

/// Why it was not written down that a purchase was handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHandedOver {
    /// It could not be.
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
    /// The operator has said that nothing is sold while nobody can be asked.
    #[error("under this programme nothing is sold while the service is away")]
    Stopped,
    /// There is no purchase of this id.
    #[error("there is no purchase {0} that waits for an answer")]
    NotAsked(RequestId),
    /// It is known by now what became of it.
    #[error("it is known by now what became of it: {0:?}")]
    Known(Stands),
}

/// Why a hold was not made a sale.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotConfirmed {
    /// It could not be written down.
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
    /// This terminal has not held it, or does not remember it.
    #[error("this terminal knows of no hold {0}")]
    NotOurs(RequestId),
    /// Its number is not kept any more: it has run out long ago.
    #[error("the number that it was held for is not kept any more")]
    NumberGone,
    /// It is no hold as far as is known, or none any more.
    #[error("it is not held: {0:?}")]
    NotHeld(Stands),
    /// The service says that it is none any more: do not sell.
    #[error("it is not held any more: {0:?}")]
    Over(Became),
}

/// What became of a wish to take a sale back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is taken back.
    Back,
    /// It was never uploaded, and never will be.
    BackUnseen,
    /// It is written down, and done as soon as the service can be reached.
    BackLater,
}

/// Why a sale was not taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It could not be written down.
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
    /// This terminal has not made it, or does not remember it.
    #[error("this terminal knows of no sale {0}")]
    NotOurs(RequestId),
    /// Its number is not kept any more, and without it no sale is taken back: [`Counter::void_by_number`](super::Counter::void_by_number).
    #[error("the number that it was sold to is not kept any more: type it in again")]
    NumberGone,
    /// It was sold to another number.
    #[error("it was not sold to this number")]
    OtherNumber,
    /// Nothing was sold, or the service will not take it back, for this reason.
    #[error("it cannot be taken back: {0:?}")]
    NotSold(Stands),
}

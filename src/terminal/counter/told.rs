//! What a counter tells the program in front of it. Pure.

use std::time::Duration;

use crate::grpc::v1;
use crate::ids::RequestId;
use crate::terminal::CallError;
use crate::terminal::journal::{Earlier, NotWritten, Stands, WhenAway};

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

/// What a clerk who wants to sell is told.
pub enum Answer {
    /// Sell: it is recorded.
    Approved(Box<Approved>),
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
    /// The service has not done it, for this reason: nothing is recorded.
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

/// Why a sale was not made offline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSold {
    /// It could not be written down.
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
    /// The operator has said that nothing is sold meanwhile.
    #[error("under this programme nothing is sold while the service is away")]
    Stopped,
    /// There is no purchase of this id whose outcome is unknown.
    #[error("there is no purchase {0} that waits for an answer")]
    NotAsked(RequestId),
    /// It is known by now what became of it.
    #[error("it is known by now what became of it: {0:?}")]
    Known(Stands),
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

//! What a journal says, one fact after the other. Pure.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::state::Entry;
use crate::grpc::v1;
use crate::ids::{LedgerId, Paper, ProgrammeId, Relation, RequestId};
use crate::time::Timestamp;

/// Who buys, as the papers name them. It cannot be printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Buyer {
    /// A resident or alien registration number, with or without the hyphen.
    Resident(String),
    /// A programme's own number, and the date of birth as on the card (`1981-03-05`).
    Opaque {
        /// The number.
        id: String,
        /// The date of birth.
        birth_date: String,
    },
}

impl Buyer {
    /// The number as it counts: written in one way only.
    fn canonical(&self) -> String {
        match self {
            Self::Resident(number) => number.chars().filter(char::is_ascii_digit).collect(),
            Self::Opaque { id, .. } => id.trim().to_owned(),
        }
    }

    /// The number as it may be shown: six digits of the date and the century's, or the first quarter of one of a programme's own.
    pub fn masked(&self) -> String {
        let number = self.canonical();
        let shown = |from: usize, count: usize| number.chars().skip(from).take(count).collect::<String>();
        match self {
            Self::Resident(_) => format!("{}-{}******", shown(0, 6), shown(6, 1)),
            Self::Opaque { .. } => format!("{}******", shown(0, number.chars().count() / 4)),
        }
    }
}

impl From<&Buyer> for v1::Buyer {
    fn from(buyer: &Buyer) -> Self {
        let id = match buyer {
            Buyer::Resident(number) => v1::buyer::Id::ResidentNumber(number.clone()),
            Buyer::Opaque { id, birth_date } => {
                v1::buyer::Id::Opaque(v1::OpaqueBuyer { id: id.clone(), birth_date: birth_date.clone() })
            }
        };
        Self { id: Some(id) }
    }
}

/// What somebody wants to buy. It cannot be printed: it names the buyer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// Under which programme.
    pub programme: ProgrammeId,
    /// Whose allowance is charged.
    pub buyer: Buyer,
    /// Units.
    pub quantity: u32,
    /// How the agent stands to the buyer; `None`: the buyer is here in person.
    pub relation: Option<Relation>,
    /// Papers that were shown.
    pub papers: Vec<Paper>,
    /// When the agent was born, where one buys for the buyer.
    pub agent_birth_year: Option<i32>,
}

impl Sale {
    /// Somebody who buys in person.
    pub fn in_person(programme: ProgrammeId, buyer: Buyer, quantity: u32) -> Self {
        Self { programme, buyer, quantity, relation: None, papers: Vec::new(), agent_birth_year: None }
    }
}

/// What a terminal does under a programme while nobody can be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenAway {
    /// Nothing is sold, nor where nobody has said anything.
    #[default]
    Stop,
    /// What is sold is written down, and uploaded afterwards.
    SellAndRecord,
}

/// What became of a purchase that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Became {
    /// Recorded.
    Sold,
    /// Refused, for these reasons in order of precedence (`QUOTA_EXHAUSTED`).
    Refused(Vec<String>),
    /// No check applies: sold freely, and recorded nowhere.
    NotRequired,
    /// Held.
    Held {
        /// When it comes free unless it is confirmed.
        #[serde(with = "millis")]
        until: Timestamp,
    },
    /// A hold that was given back, or ran out.
    Released,
    /// Recorded and taken back.
    Voided,
    /// Nothing was recorded under the id, and nothing can be any more but a sale that was made offline.
    NotRecorded,
    /// It never got as far: the reason that was given for it.
    NotExecuted(String),
    /// The id is another site's.
    NotYours,
}

/// What the service said of a sale that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Recorded, within every limit.
    Recorded,
    /// Recorded, and more than the buyer was allowed, with these earlier ones.
    OverQuota(Vec<EarlierElsewhere>),
    /// It was recorded before.
    AlreadyRecorded {
        /// And taken back meanwhile.
        voided: bool,
        /// And more than was allowed.
        over_quota: bool,
    },
    /// Put aside for a person to look at: why, in words.
    Quarantined(String),
    /// Fields that cannot be accepted, with what is wrong with each. Nothing was kept.
    Invalid(Vec<(String, String)>),
}

/// A purchase that counts in the same windows, as the service tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierElsewhere {
    /// When it counts.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// Units.
    pub quantity: u32,
    /// In which district.
    pub district: String,
}

/// A fact of a journal. The order in which facts are written is that in which they came about.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// What the service said when it let the terminal in.
    Told {
        /// Its ledger.
        ledger: LedgerId,
        /// What is done under each programme while it is away.
        when_away: Vec<(ProgrammeId, WhenAway)>,
    },
    /// This is about to be sent.
    Asked {
        /// The purchase's id.
        id: RequestId,
        /// When.
        #[serde(with = "millis")]
        at: Timestamp,
        /// The ledger under which the id means something.
        ledger: LedgerId,
        /// What.
        sale: Sale,
    },
    /// The service said what became of it.
    Became {
        /// The purchase's id.
        id: RequestId,
        /// What.
        what: Became,
        /// The number, as the service's echo shows it.
        masked: Option<String>,
    },
    /// It was handed over without an answer. All of the sale stands here once more: this is what must not be lost.
    SoldOffline {
        /// That of the purchase that was asked for, or an id of its own.
        id: RequestId,
        /// When.
        #[serde(with = "millis")]
        at: Timestamp,
        /// What.
        sale: Sale,
    },
    /// These are about to be uploaded: from now on the service may have them.
    Uploading {
        /// Their ids.
        ids: Vec<RequestId>,
    },
    /// The service said what it made of an upload.
    Judged {
        /// The sale's id.
        id: RequestId,
        /// What it said.
        verdict: Verdict,
    },
    /// It is to be taken back. The service may have it, so it must be told.
    VoidWanted {
        /// Its id.
        id: RequestId,
        /// Who bought it, where the journal does not say any more.
        buyer: Option<Buyer>,
    },
    /// The service has taken it back, or never had it.
    Voided {
        /// Its id.
        id: RequestId,
    },
    /// It was taken back before anybody was told of it, and nobody will be.
    Withdrawn {
        /// Its id.
        id: RequestId,
    },
    /// All that an earlier file of the journal said of a sale.
    Kept(Box<Entry>),
    /// The hold is about to be made a sale.
    Confirming {
        /// Its id.
        id: RequestId,
    },
}

/// What a buyer's number becomes, so that two sales to one person are known for that after the number is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark([u8; 16]);

/// Makes marks, under a key.
#[derive(Clone)]
pub(super) struct Marker(Hmac<Sha256>);

impl Marker {
    pub(super) fn new(keyed: Hmac<Sha256>) -> Self {
        Self(keyed)
    }

    pub(super) fn mark(&self, buyer: &Buyer) -> Mark {
        let kind: &[u8] = match buyer {
            Buyer::Resident(_) => b"resident",
            Buyer::Opaque { .. } => b"opaque",
        };
        let mac = self.0.clone().chain_update(kind).chain_update(buyer.canonical()).finalize().into_bytes();
        let mut mark = [0; 16];
        for (place, byte) in mark.iter_mut().zip(mac) {
            *place = byte;
        }
        Mark(mark)
    }
}

/// An instant as its milliseconds.
pub(super) mod millis {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::time::Timestamp;

    pub(in super::super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        at.as_millis().serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_millis)
    }
}

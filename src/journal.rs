//! Sales that were made while nobody could be asked: taking them in, and what became of each.
//!
//! ```text
//! AskedSale ──prepare──> LateSale ──take──> the book: is it known?  ──> the ledger: late ──> the book: what became of it ──> Taken
//!                        (no number left)     └ implausible, or entered differently: kept for a person to look at
//! ```
//!
//! A sale that happened is never refused: what is more than was allowed is recorded and marked, and what the ledger cannot hold
//! stands in the site's book. Whatever is sent again is recorded once: by the ledger under its id, and by the book where two have typed
//! one sheet and read it differently.
//!
//! Knows nothing about the wire or about which book it is. Does not know whether goods were handed over: that is what it is told.

pub mod embedded;
mod packed;
pub mod redis;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use crate::ids::{ProgrammeCode, ProgrammeId, RequestId, SiteId};
use crate::ledger::{Ledger, LedgerError};
use crate::policy::Programme;
use crate::purchase::{AskedSale, Caller, Earlier, EnteredLate, Invalid, LateSale, Purchases, Receipt, Stands, Stood};
use crate::time::{Clock, Date, Timestamp};

/// How far the clock of a terminal may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(60);
/// How many rows a site's book has at the most. Forty a day, as in the outage of 2020, make this in three years of nothing else.
pub const ROWS_OF_A_SITE: usize = 50_000;
/// How many conflicts of a sale are told and kept, the oldest.
pub const CONFLICTS_TOLD: usize = 8;

/// What a book keeps of a sale. It names no buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sale {
    /// Its id.
    pub request: RequestId,
    /// Tells two sales that came under one id apart: of whom and how many units, under a key.
    pub mark: [u8; 8],
    /// The programme.
    pub programme: ProgrammeCode,
    /// Units.
    pub quantity: u32,
    /// When it was sold, as was said.
    pub sold_at: Timestamp,
}

/// A line of a book: a sale, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The sale.
    pub sale: Sale,
    /// When it came first.
    pub received: Timestamp,
    /// What became of it then.
    pub verdict: Verdict,
}

/// What became of a sale when it came first. The numbers in `packed` stand in the stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It came, and nobody has said yet.
    Pending,
    /// It is in the ledger, within its windows.
    Recorded,
    /// It is in the ledger, and is too much beside these.
    OverQuota(Vec<Conflict>),
    /// It was in the ledger.
    AlreadyRecorded,
    /// It was in the ledger, and had been taken back.
    AlreadyVoided,
    /// It is not in the ledger.
    Quarantined(Why),
}

/// A purchase that counts in the windows of a late sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// When it counts.
    pub at: Timestamp,
    /// Units.
    pub quantity: u32,
    /// Where it was bought.
    pub site: SiteId,
}

impl From<&Earlier> for Conflict {
    fn from(earlier: &Earlier) -> Self {
        Self { at: earlier.at, quantity: earlier.quantity, site: earlier.site }
    }
}

/// Why a sale was put aside. The numbers stand in the stores and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// It is dated later than now.
    InTheFuture = 1,
    /// It is dated before what the ledger keeps.
    TooOld = 2,
    /// The programme was not in force then.
    NotInForce = 3,
    /// Its id stands for another sale.
    EnteredDifferently = 4,
    /// The site has entered as many sales of this buyer as a record takes.
    TooMany = 5,
}

impl Why {
    /// For whoever looks at the list.
    pub fn advice(self) -> &'static str {
        match self {
            Self::InTheFuture => {
                "it is dated later than now: set the terminal's clock or mend the date, and send it again"
            }
            Self::TooOld => {
                "it is older than what the ledger keeps: nobody can say any more what it did to the buyer's allowance; \
                 mend the date if it is wrong, and otherwise settle it by hand"
            }
            Self::NotInForce => {
                "the programme was not in force then: mend the date or the programme, and send it again"
            }
            Self::EnteredDifferently => {
                "the same id stands for another sale, of somebody else or of other units: compare both with the paper; \
                 if both happened, enter this one under an id of its own"
            }
            Self::TooMany => {
                "the site has entered as many late sales of this buyer as a record takes: see whether they were made, and \
                 settle them by hand"
            }
        }
    }
}

/// What stood under a sale's id when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// Nothing that the ledger may have: it stands there now as it came.
    First,
    /// The same sale, of which was said before, or nobody has said, what became of it.
    Again(Said),
    /// Another sale, which stays there; this one is kept beside it.
    Differently,
    /// The book is full, and this sale is not in it.
    Full,
}

/// What a row says that stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Nothing yet.
    Pending,
    /// It is in the ledger, within its windows.
    Recorded,
    /// It is in the ledger, and too much.
    OverQuota,
    /// It was in the ledger.
    AlreadyRecorded,
    /// It was in the ledger, and had been taken back.
    AlreadyVoided,
    /// It was put aside.
    Quarantined(Why),
}

impl From<&Verdict> for Said {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Pending => Self::Pending,
            Verdict::Recorded => Self::Recorded,
            Verdict::OverQuota(_) => Self::OverQuota,
            Verdict::AlreadyRecorded => Self::AlreadyRecorded,
            Verdict::AlreadyVoided => Self::AlreadyVoided,
            Verdict::Quarantined(why) => Self::Quarantined(*why),
        }
    }
}

/// Where what became of uploaded sales is kept, a book for each site. Gives what is confirmed and nothing else.
pub trait Book: Clone + Send + Sync + 'static {
    /// Puts rows there that have come and are pending or put aside, and says of each what stood under its id. A row of the same sale
    /// stays as it is, unless it was put aside and is pending now: then it was mended. What is put under an id stands no longer beside it.
    fn arrive(&self, site: SiteId, rows: Vec<Row>) -> impl Future<Output = Result<Vec<Arrived>, LedgerError>> + Send;

    /// Writes down what became of rows that are pending, and when they were sold; of others that was said before. When they came is kept.
    fn settle(&self, site: SiteId, rows: Vec<Row>) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// All rows of a site, in any order.
    fn read(&self, site: SiteId) -> impl Future<Output = Result<Vec<Row>, LedgerError>> + Send;
}

/// What becomes of one row that has come, by what stands under its id. The stores do it in one step; the Lua of `redis/` restates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// What is put under the id, and stands beside it no longer; `None`: what stands there stays.
    pub(crate) put: Option<Row>,
    /// What is put beside it, under id and mark.
    pub(crate) aside: Option<Row>,
    /// What is said.
    pub(crate) arrived: Arrived,
}

impl Arrival {
    /// See [`Book::arrive`].
    pub(crate) fn of(row: Row, stood: Option<&Row>) -> Self {
        let is_aside = |row: &Row| matches!(row.verdict, Verdict::Quarantined(_));
        match stood {
            None => Self { put: Some(row), aside: None, arrived: Arrived::First },
            Some(stood) if stood.sale.mark == row.sale.mark && is_aside(stood) && !is_aside(&row) => {
                let mended = Row { received: stood.received, ..row };
                Self { put: Some(mended), aside: None, arrived: Arrived::First }
            }
            Some(stood) if stood.sale.mark == row.sale.mark => {
                Self { put: None, aside: None, arrived: Arrived::Again(Said::from(&stood.verdict)) }
            }
            // Nothing of it is in the ledger: one that may be takes its place.
            Some(stood) if is_aside(stood) => {
                Self { aside: Some(stood.clone()), put: Some(row), arrived: Arrived::First }
            }
            Some(_) => {
                let aside = Row { verdict: Verdict::Quarantined(Why::EnteredDifferently), ..row };
                Self { put: None, aside: Some(aside), arrived: Arrived::Differently }
            }
        }
    }
}

/// What became of a sale that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is in the ledger now.
    Recorded(Receipt),
    /// It is in the ledger now, and too much beside these.
    OverQuota(Receipt, Vec<Earlier>),
    /// It was in the ledger.
    AlreadyRecorded {
        /// And was taken back.
        voided: bool,
        /// And is more than was allowed.
        over: bool,
    },
    /// It stands in the book for a person to look at.
    Quarantined(Why),
    /// The book of the site is full.
    Full,
    /// Nobody can say, or it could not be taken now.
    Failed(LedgerError),
}

impl Taken {
    /// The stable name: the same in metrics and in the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Recorded(_) => "RECORDED",
            Self::OverQuota(..) => "OVER_QUOTA",
            Self::AlreadyRecorded { .. } => "ALREADY_RECORDED",
            Self::Quarantined(_) => "QUARANTINED",
            Self::Full => "BOOK_FULL",
            Self::Failed(LedgerError::Unconfirmed(_) | LedgerError::Corrupt(_)) => "UNKNOWN",
            Self::Failed(_) => "NOT_TAKEN",
        }
    }
}

/// Takes sales in.
#[derive(Clone)]
pub struct Journals<L, C, B> {
    purchases: Purchases<L, C>,
    book: B,
    clock: C,
    pace: Arc<Pace>,
}

impl<L: Ledger, C: Clock, B: Book> Journals<L, C, B> {
    /// Into this ledger and this book, at most so many sales a second.
    pub fn new(purchases: Purchases<L, C>, book: B, clock: C, per_second: u32) -> Self {
        Self { purchases, book, clock, pace: Arc::new(Pace::new(per_second)) }
    }

    /// Checks every field of a sale and makes the pseudonym.
    pub fn prepare(&self, asked: &AskedSale<'_>) -> Result<LateSale, Vec<Invalid>> {
        self.purchases.prepare_late(asked)
    }

    /// Waits until so many sales may be taken: what is taken in must not be felt at the counters.
    pub async fn may(&self, sales: usize) {
        self.pace.wait(sales).await;
    }

    /// Takes sales of a site in, and says of each what became of it, in their order. `tells`: whether the site may be told once more what
    /// somebody had bought before; it is recorded and marked all the same.
    pub async fn take(&self, sales: &[LateSale], caller: &Caller, tells: impl Fn() -> bool + Sync) -> Vec<Taken> {
        let received = self.clock.now();
        let rows: Vec<Row> = sales.iter().map(|sale| arriving(sale, received)).collect();
        let arrived = match self.book.arrive(caller.site, rows.clone()).await {
            Ok(arrived) => arrived,
            Err(error) => return sales.iter().map(|_| Taken::Failed(error.clone())).collect(),
        };
        let each = sales.iter().zip(&rows).zip(arrived);
        let each = each.map(|((sale, row), arrived)| self.became(sale, row, arrived, caller, &tells));
        let (taken, settled): (Vec<Taken>, Vec<Option<Row>>) = join_all(each).await.into_iter().unzip();
        let settled: Vec<Row> = settled.into_iter().flatten().collect();
        if settled.is_empty() {
            return taken;
        }
        match self.book.settle(caller.site, settled).await {
            Ok(()) => taken,
            // Those that are in the ledger are recorded once however often they are sent.
            Err(error) => sales.iter().map(|_| Taken::Failed(LedgerError::Unconfirmed(error.to_string()))).collect(),
        }
    }

    /// One sale: what is said of it, and its row with what became of it, if nobody has said so before.
    async fn became(
        &self,
        sale: &LateSale,
        row: &Row,
        arrived: Arrived,
        caller: &Caller,
        tells: &(impl Fn() -> bool + Sync),
    ) -> (Taken, Option<Row>) {
        match arrived {
            Arrived::Full => (Taken::Full, None),
            Arrived::Differently => (Taken::Quarantined(Why::EnteredDifferently), None),
            Arrived::First => match row.verdict {
                Verdict::Quarantined(why) => (Taken::Quarantined(why), None),
                _ => self.enter(sale, row, caller, tells).await,
            },
            Arrived::Again(Said::Pending) if row.verdict == Verdict::Pending => {
                self.enter(sale, row, caller, tells).await
            }
            // It is not judged again, whatever it is dated now: what was said stands, and the ledger says whether it still does.
            Arrived::Again(said) => self.again(sale, row, said, &row.verdict).await,
        }
    }

    /// A sale of which nobody has said yet what became of it.
    async fn enter(
        &self,
        sale: &LateSale,
        row: &Row,
        caller: &Caller,
        tells: &(impl Fn() -> bool + Sync),
    ) -> (Taken, Option<Row>) {
        let settled = |verdict, at| {
            let sold = Sale { sold_at: at, ..row.sale };
            Some(Row { sale: sold, verdict, ..row.clone() })
        };
        let aside = |why| (Taken::Quarantined(why), settled(Verdict::Quarantined(why), row.sale.sold_at));
        match self.purchases.enter(sale, caller).await {
            Ok(EnteredLate { stands: Stands::Late { receipt, over }, replayed, mut earlier }) => {
                if over && !earlier.is_empty() && !tells() {
                    earlier.clear();
                }
                earlier.truncate(CONFLICTS_TOLD);
                let at = receipt.of.sold_at;
                let verdict = match over {
                    true => Verdict::OverQuota(earlier.iter().map(Conflict::from).collect()),
                    false => Verdict::Recorded,
                };
                let taken = match (replayed, over) {
                    // An earlier upload recorded it, and did not come to write so in the book.
                    (true, over) => Taken::AlreadyRecorded { voided: false, over },
                    (false, true) => Taken::OverQuota(receipt, earlier),
                    (false, false) => Taken::Recorded(receipt),
                };
                (taken, settled(verdict, at))
            }
            Ok(EnteredLate { stands: Stands::Online, .. }) => {
                let taken = Taken::AlreadyRecorded { voided: false, over: false };
                (taken, settled(Verdict::AlreadyRecorded, row.sale.sold_at))
            }
            Ok(EnteredLate { stands: Stands::Voided, .. }) => {
                let taken = Taken::AlreadyRecorded { voided: true, over: false };
                (taken, settled(Verdict::AlreadyVoided, row.sale.sold_at))
            }
            // It stands in the ledger with other units, or as another site's.
            Err(LedgerError::RequestIdReused) => aside(Why::EnteredDifferently),
            Err(LedgerError::BuyerRecordFull) => aside(Why::TooMany),
            Err(error) => (Taken::Failed(error), None),
        }
    }

    /// A sale that came before. What the ledger has forgotten since is not recorded anew.
    async fn again(&self, sale: &LateSale, row: &Row, said: Said, verdict: &Verdict) -> (Taken, Option<Row>) {
        if let Said::Quarantined(why) = said {
            return (Taken::Quarantined(why), None);
        }
        let stands = match self.purchases.stands(sale).await {
            Ok(stands) => stands,
            Err(error) => return (Taken::Failed(error), None),
        };
        let settled = |verdict| Some(Row { verdict, ..row.clone() });
        match (stands, said, verdict) {
            (Some(Stood { voided, over, late }), Said::Pending, _) => {
                let verdict = match (voided, late, over) {
                    (true, ..) => Verdict::AlreadyVoided,
                    (_, false, _) => Verdict::AlreadyRecorded,
                    (_, true, true) => Verdict::OverQuota(Vec::new()),
                    (_, true, false) => Verdict::Recorded,
                };
                (Taken::AlreadyRecorded { voided, over }, settled(verdict))
            }
            (Some(Stood { voided, over, .. }), ..) => (Taken::AlreadyRecorded { voided, over }, None),
            // It never came to the ledger, and cannot any more.
            (None, Said::Pending, Verdict::Quarantined(why)) => {
                (Taken::Quarantined(*why), settled(Verdict::Quarantined(*why)))
            }
            (None, said, _) => {
                let (voided, over) = (said == Said::AlreadyVoided, said == Said::OverQuota);
                (Taken::AlreadyRecorded { voided, over }, None)
            }
        }
    }

    /// A day of sale under this programme.
    pub fn day(&self, programme: ProgrammeId, date: Option<Date>) -> Result<DayOfSale, Invalid> {
        Ok(DayOfSale { programme: self.purchases.programme(programme)?, date })
    }

    /// The rows of a site's book that were sold on this day, by time of sale.
    pub async fn rows(&self, site: SiteId, day: &DayOfSale) -> Result<Vec<Row>, LedgerError> {
        let mut rows = self.book.read(site).await?;
        rows.retain(|row| day.is_of(&row.sale));
        rows.sort_by_key(|row| (row.sale.sold_at, row.sale.request, row.sale.mark));
        Ok(rows)
    }
}

/// A day of sale, or all days, under one programme.
pub struct DayOfSale {
    programme: Arc<Programme>,
    date: Option<Date>,
}

impl DayOfSale {
    fn is_of(&self, sale: &Sale) -> bool {
        let is_day = |date| self.programme.date(sale.sold_at) == date;
        sale.programme == self.programme.code() && self.date.is_none_or(is_day)
    }
}

/// A sale as it comes: pending, or put aside for when it is dated.
fn arriving(sale: &LateSale, received: Timestamp) -> Row {
    let implausible = implausible(sale.sold_at, received, sale.kept(), sale.is_in_force());
    Row {
        sale: Sale {
            request: sale.request(),
            mark: sale.mark(),
            programme: sale.code(),
            quantity: sale.quantity(),
            sold_at: sale.sold_at,
        },
        received,
        verdict: implausible.map_or(Verdict::Pending, Verdict::Quarantined),
    }
}

/// Why a sale of this time cannot be in the ledger.
fn implausible(sold_at: Timestamp, now: Timestamp, kept: Duration, in_force: bool) -> Option<Why> {
    match () {
        () if sold_at > now.plus(AHEAD) => Some(Why::InTheFuture),
        () if sold_at < now.minus(kept) => Some(Why::TooOld),
        () if !in_force => Some(Why::NotInForce),
        () => None,
    }
}

/// How fast sales are taken: one after the other, each at its time.
struct Pace {
    each: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second.max(1), next: Mutex::new(Instant::now()) }
    }

    async fn wait(&self, sales: usize) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            // What was not used before is gone: it does not come in a burst.
            let at = (*next).max(Instant::now());
            *next = at + self.each.saturating_mul(u32::try_from(sales).unwrap_or(u32::MAX));
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn row(id: u8, mark: u8, verdict: Verdict) -> Row {
        Row {
            sale: Sale {
                request: RequestId::from_bytes([id; 16]).unwrap(),
                mark: [mark; 8],
                programme: "km".parse().unwrap(),
                quantity: 2,
                sold_at: Timestamp::from_millis(1_583_887_200_000),
            },
            received: Timestamp::from_millis(1_583_906_400_000),
            verdict,
        }
    }

    #[test]
    fn one_sheet_that_was_typed_twice_is_one_sale() {
        let pending = row(1, 1, Verdict::Pending);
        let first = Arrival::of(pending.clone(), None);
        assert_eq!(first, Arrival { put: Some(pending.clone()), aside: None, arrived: Arrived::First });
        for stood in [Verdict::Pending, Verdict::Recorded, Verdict::OverQuota(Vec::new()), Verdict::AlreadyVoided] {
            let again = Arrival::of(pending.clone(), Some(&row(1, 1, stood.clone())));
            let arrived = Arrived::Again(Said::from(&stood));
            assert_eq!(again, Arrival { put: None, aside: None, arrived }, "{stood:?}");
            let other = Arrival::of(row(1, 2, Verdict::Pending), Some(&row(1, 1, stood)));
            let aside = row(1, 2, Verdict::Quarantined(Why::EnteredDifferently));
            assert_eq!(other, Arrival { put: None, aside: Some(aside), arrived: Arrived::Differently });
        }
    }

    #[test]
    fn what_was_put_aside_can_be_mended_and_is_not_lost() {
        let aside = row(1, 1, Verdict::Quarantined(Why::InTheFuture));
        let later = |row: Row| Row { received: row.received.plus(Duration::from_secs(60)), ..row };
        let mended = Arrival::of(later(row(1, 1, Verdict::Pending)), Some(&aside));
        let put = row(1, 1, Verdict::Pending);
        assert_eq!(
            mended,
            Arrival { put: Some(put), aside: None, arrived: Arrived::First },
            "it came when it came first"
        );
        let again = Arrival::of(aside.clone(), Some(&aside));
        assert_eq!((again.put, again.arrived), (None, Arrived::Again(Said::Quarantined(Why::InTheFuture))));
        let other = row(1, 2, Verdict::Pending);
        let arrival = Arrival::of(other.clone(), Some(&aside));
        assert_eq!(arrival, Arrival { put: Some(other), aside: Some(aside), arrived: Arrived::First });
    }

    #[test]
    fn what_is_dated_outside_of_what_is_kept_is_put_aside() {
        let (now, kept) = (Timestamp::from_millis(10_000_000_000), Duration::from_secs(1_000_000));
        let why = |millis, in_force| implausible(Timestamp::from_millis(millis), now, kept, in_force);
        assert_eq!(why(10_000_060_000, true), None);
        assert_eq!(why(10_000_060_001, true), Some(Why::InTheFuture));
        assert_eq!(why(9_000_000_000, true), None);
        assert_eq!(why(8_999_999_999, true), Some(Why::TooOld));
        assert_eq!(why(9_500_000_000, false), Some(Why::NotInForce));
    }

    #[tokio::test(start_paused = true)]
    async fn sales_are_taken_no_faster_than_they_may() {
        let pace = Pace::new(100);
        let begun = Instant::now();
        for _ in 0..10 {
            pace.wait(16).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 1_440, "the first do not wait");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            pace.wait(16).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 320, "a minute of nothing is no burst");
    }
}

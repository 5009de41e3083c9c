//! The books of late sales in a Redis with replicas: what was said of a sale is there after a failover.

use rationd::journal::redis::{JOURNAL_TAG, RedisBook};
use rationd::journal::{Book, Row, Sale, Verdict};

use super::*;

/// So many sites upload all the time.
const SITES: u32 = 16;

fn site(nth: u32) -> rationd::ids::SiteId {
    format!("S{nth:07}").parse().unwrap()
}

fn row() -> Row {
    let received = SystemClock::real().now();
    let programme = "km".parse().unwrap();
    let sale = Sale { request: RequestId::random(), mark: [1; 8], programme, quantity: 1, sold_at: received };
    Row { sale, received, verdict: Verdict::Pending }
}

/// How far a sale came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nobody can say.
    Unknown,
    /// It is in the book.
    Arrived,
    /// And what became of it.
    Settled,
}

async fn uploaded(book: &RedisBook, site: rationd::ids::SiteId, row: &Row) -> Step {
    if book.arrive(site, vec![row.clone()]).await.is_err() {
        return Step::Unknown;
    }
    let settled = Row { verdict: Verdict::Recorded, ..row.clone() };
    if book.settle(site, vec![settled]).await.is_ok() { Step::Settled } else { Step::Arrived }
}

/// How many sales were said to be in the book, of how many nobody could say, and how many of the first are not there as was said.
async fn struck(allow_volatile: bool) -> (usize, usize, usize) {
    let mut group = Replicas::start(2).await;
    let pool = RedisPool::new(&group.url(), 1).unwrap().for_key(JOURNAL_TAG, 32).unwrap();
    let book = RedisBook::new(pool, allow_volatile);
    let (said, over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
    let mut sites = JoinSet::new();
    for nth in 0..SITES {
        let (book, said, over) = (book.clone(), said.clone(), over.clone());
        sites.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let row = row();
                let step = uploaded(&book, site(nth), &row).await;
                said.lock().unwrap().push((nth, row.sale.request, step));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let settled = async |more: usize| {
        let count = || said.lock().unwrap().iter().filter(|(_, _, step)| *step == Step::Settled).count();
        let (begun, before) = (Instant::now(), count());
        while count() < before + more {
            assert!(begun.elapsed() < Duration::from_secs(40), "no sale is taken in");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    fallen_behind(&mut group, settled, 100).await;
    over.store(true, Ordering::Relaxed);
    sites.join_all().await;
    let mut stands = BTreeMap::new();
    for nth in 0..SITES {
        let rows = book.read(site(nth)).await.unwrap();
        stands.extend(rows.into_iter().map(|row| (row.sale.request, row.verdict)));
    }
    let said = std::mem::take(&mut *said.lock().unwrap());
    let unknown = said.iter().filter(|(_, _, step)| *step != Step::Settled).count();
    let lost = said.iter().filter(|(_, request, step)| match step {
        Step::Unknown => false,
        Step::Arrived => !stands.contains_key(request),
        Step::Settled => stands.get(request) != Some(&Verdict::Recorded),
    });
    (said.len() - unknown, unknown, lost.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_late_sale_that_was_judged_is_lost_by_a_failover() {
    let (said, unknown, lost) = struck(false).await;
    println!("late sales, replicas that lag, then a failover: {said} said, {unknown} unknown, {lost} lost");
    assert!(lost == 0 && unknown > 0);
}

/// Shows that the test above can see a loss.
#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_for_replicas_a_failover_loses_late_sales() {
    let (said, unknown, lost) = struck(true).await;
    println!("the same without waiting for replicas: {said} said, {unknown} unknown, {lost} lost");
    assert!(lost > 0);
}

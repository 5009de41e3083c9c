//! Reports of stock in a Redis with replicas: what was acknowledged, and what was read, is there after a failover.

use rationd::stock::redis::{RedisShelf, STOCK_TAG};
use rationd::stock::{Key, Recorded, Report, Reports, Shelf, What};

use super::support::cluster::Nodes;
use super::*;

/// So many sites report all the time.
const SITES: u32 = 16;

fn shelf_at(url: &str, allow_volatile: bool) -> RedisShelf {
    RedisShelf::new(RedisPool::new(url, 1).unwrap().for_key(STOCK_TAG, 32).unwrap(), allow_volatile)
}

fn report(site: u32) -> Report {
    let received = SystemClock::real().now();
    let key = Key { programme: "km".parse().unwrap(), site: format!("S{site:07}").parse().unwrap() };
    Report { request: RequestId::random(), key, what: What::Delivered(1), at: received, received }
}

/// Sends it until it is answered.
async fn recorded(shelf: &RedisShelf, report: Report) -> bool {
    let begun = Instant::now();
    loop {
        match shelf.record(report).await {
            Ok(Recorded::Stands { replayed, .. }) => return replayed,
            Ok(Recorded::OtherReport) => panic!("it is the same"),
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(40), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What stands after a place; asked for until there is an answer. `None`: gone.
async fn read(shelf: &RedisShelf, place: Place) -> Option<Vec<(Place, Report)>> {
    let begun = Instant::now();
    loop {
        match shelf.after(place, 1_000_000).await {
            Ok(Reports::Next(next)) => return Some(next),
            Ok(Reports::Gone) => return None,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(40), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What came of a strike.
#[derive(Debug, Default)]
struct Came {
    acknowledged: usize,
    unknown: usize,
    /// Acknowledged, and not there.
    lost: usize,
    /// Told to a reader, and not there.
    undone: usize,
}

/// Sites report and somebody reads while a primary whose replicas have fallen behind is killed.
async fn struck(allow_volatile: bool) -> Came {
    let mut group = Replicas::start(2).await;
    let shelf = shelf_at(&group.url(), allow_volatile);
    let (answered, over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
    let mut sites = JoinSet::new();
    for site in 0..SITES {
        let (shelf, answered, over) = (shelf.clone(), answered.clone(), over.clone());
        sites.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let report = report(site);
                let came = shelf.record(report).await;
                answered.lock().unwrap().push((report, came.is_ok()));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let acknowledged = async |more: usize| {
        let count = || answered.lock().unwrap().iter().filter(|(_, is_ok)| *is_ok).count();
        let (begun, before) = (Instant::now(), count());
        while count() < before + more {
            assert!(begun.elapsed() < Duration::from_secs(40), "no report is acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told: Arc<Mutex<Vec<Report>>> = Arc::default();
    let (reader, heard) = (shelf.clone(), told.clone());
    let reading = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut place = Place::BEGINNING;
        // It ends where what it has read last is gone.
        while let Some(next) = read(&reader, place).await {
            place = next.last().map_or(place, |(last, _)| *last);
            heard.lock().unwrap().extend(next.into_iter().map(|(_, report)| report));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }));
    fallen_behind(&mut group, acknowledged, 100).await;
    over.store(true, Ordering::Relaxed);
    sites.join_all().await;
    drop(reading);
    let stands = read(&shelf, Place::BEGINNING).await.expect("nothing was dropped");
    let stands: BTreeSet<RequestId> = stands.into_iter().map(|(_, report)| report.request).collect();
    let answered = std::mem::take(&mut *answered.lock().unwrap());
    let mut came = Came::default();
    for (report, is_acknowledged) in answered {
        match is_acknowledged {
            true => came.acknowledged += 1,
            false => came.unknown += 1,
        }
        came.lost += usize::from(is_acknowledged && !stands.contains(&report.request));
        assert_eq!(recorded(&shelf, report).await, stands.contains(&report.request), "sent again, it tells");
    }
    let told = told.lock().unwrap();
    let once: BTreeSet<RequestId> = told.iter().map(|report| report.request).collect();
    assert!(once.len() == told.len() && told.len() > 100, "{} told", told.len());
    came.undone = once.difference(&stands).count();
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn no_report_that_was_acknowledged_or_read_is_lost_by_a_failover() {
    let came = struck(false).await;
    println!("reports, replicas that lag, then a failover: {came:?}");
    assert_eq!((came.lost, came.undone), (0, 0), "{came:?}");
    assert!(came.unknown > 0, "the strike shows nothing: {came:?}");
}

/// Shows that the test above can see a loss.
#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_for_replicas_a_failover_loses_reports() {
    let came = struck(true).await;
    println!("the same without waiting for replicas: {came:?}");
    assert!(came.lost > 0 && came.undone > 0, "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_lacks_is_neither_acknowledged_nor_told_and_who_finds_nothing_writes_nothing() {
    let mut group = Replicas::start(2).await;
    let shelf = shelf_at(&group.url(), false);
    recorded(&shelf, report(1)).await;
    shelf.keep(vec![7; 200_000]).await.unwrap();
    let first = read(&shelf, Place::BEGINNING).await.unwrap()[0].0;
    let primary = group.primary().await.expect("a primary");
    let barrier = async || group.servers[primary].tell::<u64>(&["GET", "{stock}:barrier"]).await.unwrap();
    let before = barrier().await;
    assert_eq!(shelf.after(first, 9).await, Ok(Reports::Next(Vec::new())));
    assert_eq!(barrier().await, before, "it wrote");

    // One of two that the Sentinels hold to be up: whichever they choose must have it.
    let replica = (0..3).find(|nth| *nth != primary).unwrap();
    group.fronts[primary].cut_off(&[Side::Server(replica)]);
    let waits = report(2);
    let came = shelf.record(waits).await;
    assert!(matches!(&came, Err(LedgerError::Unconfirmed(why)) if why == "1 of 2 replicas have it"), "{came:?}");
    let came = shelf.after(first, 9).await;
    assert!(matches!(&came, Err(LedgerError::StoreUnavailable(_))), "{came:?}");
    assert!(matches!(shelf.keep(vec![8]).await, Err(LedgerError::Unconfirmed(_))));
    assert!(matches!(shelf.kept().await, Err(LedgerError::StoreUnavailable(_))));
    group.fronts[primary].heal();
    assert!(recorded(&shelf, waits).await, "it was there");
    assert_eq!(read(&shelf, first).await.unwrap().len(), 1);
    assert_eq!(shelf.kept().await, Ok(Some(vec![8])));

    // With none at all, also of a server that would write all the same.
    for nth in (0..3).filter(|nth| *nth != primary) {
        group.servers[nth].kill();
    }
    let _: String = group.servers[primary].tell(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await.unwrap();
    let alone = shelf.record(report(3)).await;
    assert!(matches!(&alone, Err(LedgerError::Unconfirmed(_))), "{alone:?}");
    let _: String = group.servers[primary].tell(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await.unwrap();
    let begun = Instant::now();
    while shelf.record(report(4)).await != Err(LedgerError::ReplicasMissing) {
        assert!(begun.elapsed() < Duration::from_secs(20), "not refused");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shelf_of_a_cluster_follows_its_slot() {
    let mut nodes = Nodes::start(1).await;
    let shelf = shelf_at(&nodes.url(), false);
    let first = report(1);
    assert!(!recorded(&shelf, first).await);
    shelf.keep(vec![7; 200_000]).await.unwrap();
    let keeper = nodes.keeper(std::str::from_utf8(STOCK_TAG).unwrap()).await;
    nodes.all[keeper].kill();
    nodes.replaced(keeper).await;
    nodes.all[keeper].start_again();
    assert!(recorded(&shelf, first).await, "it was there");
    assert!(!recorded(&shelf, report(2)).await);
    assert_eq!(read(&shelf, Place::BEGINNING).await.unwrap().len(), 2);
    assert_eq!(shelf.kept().await, Ok(Some(vec![7; 200_000])));
}

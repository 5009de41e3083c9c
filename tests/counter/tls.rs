//! A counter over TLS: it shows its certificate whenever it dials, and says so where it is not let in.

use std::path::Path;

use rationd::terminal::Tls;
use rationd::terminal::counter::{Answer, Counter, Line, NotSold, Settings};
use rationd::terminal::journal::{Became, Stands, Verdict};

use super::scene::{IN_TIME, is_settled, may_sell, sale, settings, site};
use crate::service::{Service, rationd};
use crate::shops::SATURDAY;

/// How a service is started that believes these certificates.
const SERVED: [&str; 6] = [
    "--tls-certificate",
    "rationd-certs/server.pem",
    "--tls-key",
    "rationd-certs/server.key",
    "--tls-client-ca",
    "rationd-certs/ca.pem",
];

/// Made for the site with this code, under an authority of this directory's own.
fn certificates(directory: &Path, of: &str) -> Tls {
    let made = rationd(directory, &["dev-certs", "--site", of], "");
    assert_eq!(made.code, 0, "{made:?}");
    let read = |name: String| std::fs::read(directory.join("rationd-certs").join(name)).unwrap();
    Tls {
        authorities: read("ca.pem".into()),
        identity: Some((read(format!("site-{of}.pem")), read(format!("site-{of}.key")))),
    }
}

const NOT_ACCEPTED: &str = "does not accept the certificate";

fn over_tls(address: &str, journal: &Path, tls: Tls) -> Settings {
    Settings { tls: Some(tls), ..settings(address, journal) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_over_tls_sells_and_makes_up_for_an_outage() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path(), site().as_str());
    let start = |listen: &str| {
        let arguments = [&SERVED[..], &["--clock", SATURDAY, "--listen", listen]].concat();
        Service::start(directory.path(), &arguments, &[])
    };
    let mut service = start("127.0.0.1:0");
    let port = service.address.rsplit(':').next().unwrap().to_owned();
    let settings = over_tls(&service.address, &directory.path().join("counter.journal"), tls);
    let (counter, damage) = Counter::open(settings).await.unwrap();
    assert_eq!(damage, None);
    may_sell(&counter).await;
    let Answer::Approved(sold) = counter.sell(sale(0)).await.unwrap() else { panic!("not sold") };
    service.kill();
    let Answer::Offline(_) = counter.sell(sale(1)).await.unwrap() else { panic!("it is away") };
    let offline = counter.sell_offline(sale(1)).await.unwrap();
    let service = start(&format!("127.0.0.1:{port}"));
    is_settled(&counter).await;
    let stands = |id| counter.today().into_iter().find(|row| row.id == id).unwrap().stands;
    assert_eq!(stands(sold.id), Stands::Became(Became::Sold));
    assert_eq!(stands(offline), Stands::Uploaded(Verdict::Recorded));
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// Another site's certificate, one of another authority, and none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_is_not_let_in_says_so_and_sells_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path(), "11000002");
    let elsewhere = tempfile::tempdir().unwrap();
    let strangers = certificates(elsewhere.path(), site().as_str());
    let strange = Tls { authorities: tls.authorities.clone(), identity: strangers.identity.clone() };
    let nobody = Tls { identity: None, ..tls.clone() };
    let service = Service::start(directory.path(), &[&SERVED[..], &["--clock", SATURDAY]].concat(), &[]);
    for (nth, (tls, words)) in
        [(tls, "SITE_NOT_YOURS"), (strange, NOT_ACCEPTED), (nobody, NOT_ACCEPTED)].into_iter().enumerate()
    {
        let journal = directory.path().join(format!("{nth}.journal"));
        let (counter, _) = Counter::open(over_tls(&service.address, &journal, tls)).await.unwrap();
        let mut shown = counter.shown();
        let said = shown.wait_for(|shown| matches!(shown.line, Line::TurnedAway(_)));
        let said = tokio::time::timeout(IN_TIME, said).await.expect("said in time").unwrap().clone();
        println!("{said:?}");
        assert!(matches!(&said.line, Line::TurnedAway(why) if why.contains(words)), "{words} is not in {said:?}");
        assert!(matches!(counter.sell(sale(0)).await.unwrap(), Answer::NotYet(Line::TurnedAway(_))));
        assert_eq!(counter.sell_offline(sale(0)).await, Err(NotSold::NotAway), "it is not away");
        counter.close().await;
    }
    // Whoever answers and is not believed may be anybody: the service cannot be asked.
    let blind = Tls { authorities: strangers.authorities, identity: strangers.identity };
    let journal = directory.path().join("blind.journal");
    let (counter, _) = Counter::open(over_tls(&service.address, &journal, blind)).await.unwrap();
    let mut shown = counter.shown();
    let told = shown.wait_for(|shown| shown.why.as_deref().is_some_and(|why| why.contains("its authority")));
    assert_eq!(tokio::time::timeout(IN_TIME, told).await.expect("told in time").unwrap().line, Line::Away);
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

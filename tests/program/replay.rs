//! A reply that was lost, asked for again when the rules have moved on.

use super::service::{Ran, Service};

const PROGRAMME: &str = "kr-public-mask-2020";
/// Born in 1981: Monday is the day.
const MONDAY_BUYER: &str = "810305-1000112\n";
const ID: &str = "0190b7a4-0000-4000-8000-00000000002a";

fn sell(service: &Service) -> Ran {
    service.call(&["sell", "--programme", PROGRAMME, "-n", "2", "--json", "--request-id", ID], MONDAY_BUYER)
}

/// The day turns at midnight, and with it the answer to a new question; the answer to the old one stays.
#[test]
fn a_sale_of_yesterday_asked_for_again_has_the_same_receipt() {
    let directory = tempfile::tempdir().unwrap();
    let before = Service::start(directory.path(), &["--clock", "2020-03-09T23:59:30+09:00"], &[]);
    let sold = sell(&before);
    assert_eq!((sold.code, &sold.json()["decision"]), (0, &"APPROVED".into()), "{sold:?}");
    before.stop();
    let after = Service::start(directory.path(), &["--clock", "2020-03-10T00:00:01+09:00"], &[]);
    let again = sell(&after);
    assert_eq!((again.code, &again.json()["decision"]), (0, &"APPROVED".into()), "{again:?}");
    assert_eq!(again.json()["receipt"], sold.json()["receipt"]);
    assert_eq!(again.json()["replayed"], true);
    assert!(again.json()["receipt"]["sold_at"].as_str().unwrap().starts_with("2020-03-09T23:59:"));
    // A new question is judged by the new day.
    let new = after.call(&["sell", "--programme", PROGRAMME, "-n", "2", "--json"], MONDAY_BUYER);
    assert_eq!((new.code, &new.json()["decision"]), (1, &"NOT_YOUR_DAY".into()), "{new:?}");
    after.stop();
}

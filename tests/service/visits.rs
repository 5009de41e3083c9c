//! Visits: an agent and a line per person, each with an outcome of its own, some leaning on others.

use rationd::grpc::v1::{self, purchase_result::Outcome};
use tonic::Code;

use super::harness::*;
use crate::support::lossy::{Loss, LossyRelay};

on_both_stores!(
    the_agents_line_leans_on_the_childs_between_27_april_and_17_may,
    a_refused_line_leaves_the_others_alone,
    a_visit_that_does_not_hang_together_is_refused_whole,
    a_sale_of_another_day_lends_its_day_to_nobody,
);

const REGISTER: &[&str] = &["resident_register"];

/// Born in 1985, whose day is Friday.
fn agent(serial: u32, quantity: u32) -> v1::Line {
    own_line(&number("850505", '1', serial), quantity)
}

/// Born in 2013, whose day is Wednesday.
fn child(serial: u32, quantity: u32) -> v1::Line {
    line(resident(&number("130704", '3', serial)), quantity, "same_household", REGISTER)
}

async fn the_agents_line_leans_on_the_childs_between_27_april_and_17_may(world: World) {
    // A Wednesday.
    let service = world.serve("2020-04-29T10:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;

    let alone = Visit::of(vec![agent(1, 3)]);
    assert_eq!(said(&seller.sell(&alone).await), "NOT_YOUR_DAY", "for himself he needs his own day");
    // The agent's line stands first and is still judged after the child's, in a look-up too.
    let together = Visit::of(vec![agent(1, 3), child(1, 3)]).by(1985);
    assert_eq!(all_said(&seller.check(&together).await.unwrap()), ["MAY_BUY", "MAY_BUY"]);
    let bought = seller.purchase(&together).await.unwrap();
    assert_eq!(all_said(&bought), ["APPROVED", "APPROVED"]);
    assert_eq!(bought[0].request_id, together.lines[0].request_id, "results stand in the order of the lines");
    let again = seller.purchase(&together).await.unwrap();
    assert!(again.iter().zip(&bought).all(|(again, first)| again.replayed && receipt(again) == receipt(first)));

    // The child's week is full: its line is refused, and the agent has nothing to lean on.
    let full = Visit::of(vec![agent(2, 3), child(1, 3)]).by(1985);
    assert_eq!(all_said(&seller.purchase(&full).await.unwrap()), ["NOT_YOUR_DAY", "QUOTA_EXHAUSTED"]);
    // The other way round it takes no approved line: on the agent's Friday the child's fits because the agent is there.
    service.set("2020-05-08T10:00:00+09:00");
    let friday = Visit::of(vec![child(2, 3)]).by(1985);
    assert_eq!(all_said(&seller.purchase(&friday).await.unwrap()), ["APPROVED"]);
    // Held lines may be leaned on as well. 13 May is a Wednesday.
    service.set("2020-05-13T10:00:00+09:00");
    let held = Visit::of(vec![agent(3, 3), child(3, 3)]).by(1985);
    let holding = seller.hold(&held, std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(all_said(&holding), ["HELD", "HELD"]);

    // Before 27 April the beneficiary's day counts alone.
    service.set("2020-04-22T10:00:00+09:00");
    let early = Visit::of(vec![agent(4, 2), child(4, 2)]).by(1985);
    assert_eq!(all_said(&seller.purchase(&early).await.unwrap()), ["NOT_YOUR_DAY", "APPROVED"]);
}

async fn a_refused_line_leaves_the_others_alone(world: World) {
    // 18 to 31 May: any family member of any age, on the day of anybody named. 19 May is a Tuesday.
    let service = world.serve("2020-05-19T10:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let member = |birth: &str, serial, quantity| {
        line(resident(&number(birth, '1', serial)), quantity, "family", &["family_relation_certificate"])
    };
    let spent = Visit { family: vec![1982], ..Visit::of(vec![member("880101", 3, 2)]).by(1985) };
    assert_eq!(said(&seller.sell(&spent).await), "APPROVED", "on the day of somebody who takes no units");

    let no_paper = line(resident(&number("840101", '1', 4)), 1, "family", &[]);
    let (fits, too_many, has_bought) = (member("820101", 1, 3), member("830101", 2, 4), member("880101", 3, 2));
    let visit = Visit::of(vec![agent(5, 3), fits, too_many, has_bought, no_paper]).by(1985);
    let expected = ["APPROVED", "APPROVED", "QUOTA_EXHAUSTED", "QUOTA_EXHAUSTED", "PROXY_NOT_ALLOWED"];
    assert_eq!(all_said(&seller.purchase(&visit).await.unwrap()), expected);
    assert_eq!(all_said(&seller.purchase(&visit).await.unwrap()), expected, "and so again");
    let left: Vec<_> = seller.purchase(&visit).await.unwrap().iter().map(units_left).collect();
    assert_eq!(left, [Some(0), Some(0), Some(3), Some(1), Some(3)], "each is charged to its own person");

    // One line's failure stands in its result: an id used for another quantity.
    let mut reused = visit.anew();
    reused.lines[1] = v1::Line { quantity: 1, ..visit.lines[1].clone() };
    reused.lines[2].quantity = 3;
    let results = seller.purchase(&reused).await.unwrap();
    assert_eq!(all_said(&results)[1..3], ["FAILURE", "APPROVED"]);
    let Some(Outcome::Failure(failure)) = &results[1].outcome else { panic!() };
    assert_eq!((failure.reason.as_str(), failure.outcome_unknown), ("REQUEST_ID_REUSED", false));
    assert_eq!(failure.code, Code::FailedPrecondition as i32);
    let sixteen = (0..16).map(|n| member("820101", 100 + n, 1)).collect();
    let results = seller.purchase(&Visit::of(sixteen).by(1985)).await.unwrap();
    assert_eq!(all_said(&results), ["APPROVED"; 16]);
}

async fn a_visit_that_does_not_hang_together_is_refused_whole(world: World) {
    let service = world.serve("2020-04-29T10:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let before = world.stored().await;
    let same_person = v1::Line { request_id: id(), ..child(1, 1) };
    let same_id = v1::Line { request_id: same_person.request_id.clone(), ..child(2, 1) };
    for (visit, field, remedy) in [
        (Visit::of(vec![]), "lines", "1 to 16 lines"),
        (Visit::of((0..17).map(|n| child(n, 1)).collect()).by(1985), "lines", "1 to 16 lines"),
        (Visit::of(vec![child(1, 1), same_person.clone()]).by(1985), "lines[1].buyer", "one line per person"),
        (Visit::of(vec![same_person, same_id]).by(1985), "lines[1].request_id", "every line has its own"),
        (Visit::of(vec![child(1, 1)]), "agent", "is required when a line has a relation"),
        (Visit::of(vec![agent(1, 1), agent(2, 1)]), "agent", "is required when there are several lines"),
        (Visit::of(vec![agent(1, 1), agent(2, 1)]).by(1985), "lines[1].relation", "must be stated"),
        (Visit::of(vec![agent(1, 1)]).by(1984), "lines[0].relation", "birth year is not the agent's"),
        (Visit::of(vec![child(1, 1)]).by(1799), "agent.birth_year", "1800 to 2200"),
        (Visit::of(vec![child(1, 1)]).by(i32::MIN), "agent.birth_year", "1800 to 2200"),
        (Visit { family: vec![1985, 0], ..Visit::of(vec![child(1, 1)]).by(1985) }, "family_birth_years[1]", "1800 to"),
        (Visit { family: vec![1985; 17], ..Visit::of(vec![child(1, 1)]).by(1985) }, "family_birth_years", "at most 16"),
    ] {
        for answer in [seller.purchase(&visit).await, seller.check(&visit).await] {
            // A look-up has no ids that could stand in two lines.
            let Err(status) = answer else {
                assert_eq!(field, "lines[1].request_id");
                continue;
            };
            let told = told(&status);
            assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
            assert!(told.fields.iter().any(|(path, problem)| path == field && problem.contains(remedy)), "{told:?}");
            assert!(told.message.contains(remedy), "{told:?}");
        }
    }
    assert!(world.stored().await == before, "nothing was recorded");
}

async fn a_sale_of_another_day_lends_its_day_to_nobody(world: World) {
    // A Wednesday, the child's day, and the Wednesday after it: the day fits, but the child takes nothing on it.
    let service = world.serve("2020-04-29T10:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let childs = Visit::of(vec![child(21, 3)]).by(1985);
    assert_eq!(all_said(&seller.purchase(&childs).await.unwrap()), ["APPROVED"]);
    let mut both = Visit::of(vec![agent(21, 3), childs.lines[0].clone()]).by(1985);
    assert_eq!(all_said(&seller.purchase(&both).await.unwrap()), ["APPROVED", "APPROVED"], "the same day it does");
    service.set("2020-05-06T10:00:00+09:00");
    both = Visit::of(vec![agent(22, 3), childs.lines[0].clone()]).by(1985);
    let late = seller.purchase(&both).await.unwrap();
    assert_eq!(all_said(&late), ["NOT_YOUR_DAY", "APPROVED"]);
    assert!(late[1].replayed);
}

/// What is not decided is no reason to refuse: the child's record is full of dead entries, so its line fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_leans_on_a_failed_one_is_not_tried() {
    let world = World::embedded();
    let service = world.serve("2020-04-29T10:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    for _ in 0..16 {
        let asked_about = Visit::of(vec![child(31, 3)]);
        assert_eq!(said(&seller.resolve(&asked_about.known(0)).await.unwrap()), "NOT_RECORDED");
    }
    let visit = Visit::of(vec![agent(31, 3), child(31, 3)]).by(1985);
    let results = seller.purchase(&visit).await.unwrap();
    let failed = |line: usize| match &results[line].outcome {
        Some(Outcome::Failure(failure)) => failure.reason.clone(),
        other => panic!("line {line}: {other:?}"),
    };
    assert_eq!((failed(0).as_str(), failed(1).as_str()), ("NOT_TRIED", "BUYER_RECORD_FULL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_leans_on_an_unknown_outcome_is_not_tried() {
    let world = World::redis();
    let relay = LossyRelay::to(world.redis.as_ref().unwrap().port()).await;
    let url = relay.url();
    let service = world.serve_with("2020-04-29T10:00:00+09:00", &[("STORE", &url)]).await;
    let seller = service.counter(SEJONG).await;
    for (serial, loss) in [(1, Loss::Call), (2, Loss::Reply)] {
        let visit = Visit::of(vec![agent(serial, 3), child(serial, 3)]).by(1985);
        // The first claim is the child's: the agent's leans on it.
        relay.lose(loss, &["EVALSHA", ":km:"]);
        let results = seller.purchase(&visit).await.unwrap();
        let failure = |line: usize| match &results[line].outcome {
            Some(Outcome::Failure(failure)) => (failure.code, failure.reason.as_str(), failure.outcome_unknown),
            other => panic!("line {line}: {other:?}"),
        };
        assert!(relay.has_lost());
        assert_eq!(failure(0), (Code::Unavailable as i32, "NOT_TRIED", false), "{loss:?}");
        assert_eq!(failure(1), (Code::Unavailable as i32, "COMMIT_UNCONFIRMED", true), "{loss:?}");
        let again = seller.purchase(&visit).await.unwrap();
        assert_eq!(all_said(&again), ["APPROVED", "APPROVED"], "{loss:?}");
        assert_eq!((again[0].replayed, again[1].replayed), (false, loss == Loss::Reply), "{loss:?}");
    }
}

//! The published examples of behaviour: sellers at once, repeated ids, look-ups, voids, reading numbers.

use std::sync::Arc;
use std::time::Instant;

use rationd::grpc::v1::{self, purchase_result::Outcome};
use tokio::task::JoinSet;
use tonic::Code;

use super::harness::*;

on_both_stores!(
    f1_of_two_sellers_at_once_one_sells,
    f2_the_same_id_again_is_one_debit_and_one_answer,
    f3_ten_thousand_look_ups_change_nothing,
    f4_a_void_gives_back_once_to_the_week_of_the_sale,
    f7_a_number_is_read_as_the_papers_mean_it,
);

async fn f1_of_two_sellers_at_once_one_sells(world: World) {
    const BUYERS: u32 = 60;
    let service = world.serve("2020-03-14T10:00:00+09:00").await;
    let sellers = [service.counter(SEJONG).await, service.counter(BOM).await];
    for serial in 0..BUYERS {
        let visit = Visit::in_person(&number("810305", '1', serial), 2);
        let (one, other) = (visit.anew(), visit.anew());
        let (one, other) = tokio::join!(sellers[0].sell(&one), sellers[1].sell(&other));
        let (winner, loser) = if said(&one) == "APPROVED" { (&one, &other) } else { (&other, &one) };
        assert_eq!((said(winner), said(loser)), ("APPROVED", "QUOTA_EXHAUSTED"));
        assert_eq!((units_left(winner), units_left(loser)), (Some(0), Some(0)));
        let earlier = &loser.standing.as_ref().unwrap().earlier;
        assert_eq!((earlier.len(), earlier[0].quantity), (1, 2), "the refused buyer is told of the other purchase");
        assert!(["Seoul Jongno-gu", "Seoul Mapo-gu"].contains(&earlier[0].district.as_str()));
    }
    println!("F1 on {}: {BUYERS} pairs of sellers at once, {BUYERS} sales", world.name());
}

async fn f2_the_same_id_again_is_one_debit_and_one_answer(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let seller = Arc::new(service.counter(SEJONG).await);
    let visit = Visit::in_person(&number("900101", '1', 1), 1);
    let mut calls = JoinSet::new();
    for _ in 0..24 {
        let (seller, visit) = (seller.clone(), visit.clone());
        calls.spawn(async move { seller.sell(&visit).await });
    }
    let answers = calls.join_all().await;
    let first = receipt(&answers[0]);
    assert!(answers.iter().all(|answer| receipt(answer) == first && units_left(answer) == Some(2)));
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1, "one of them recorded it");
    assert!(first.simulated_clock && first.durability() == v1::Durability::Synced);
    assert_eq!(first.ledger_id, seller.admitted.ledger_id);

    service.set("2020-06-19T09:00:00+09:00");
    let later = seller.sell(&visit).await;
    assert_eq!((receipt(&later), later.replayed), (first.clone(), true));
    assert_eq!(units_left(&later), Some(9), "what is left is told as of now");
    assert_eq!(receipt(&seller.resolve(&visit.known(0)).await.unwrap()), first);

    // A stored refusal is the answer of its id as well, even when the same would be sold under a new one.
    let greedy = Visit::in_person(&number("900101", '1', 1), 10);
    assert_eq!(said(&seller.sell(&greedy).await), "QUOTA_EXHAUSTED");
    service.set("2020-06-22T09:00:00+09:00");
    let again = seller.sell(&greedy).await;
    assert_eq!((said(&again), again.replayed), ("QUOTA_EXHAUSTED", true));
    assert_eq!(said(&seller.sell(&greedy.anew()).await), "APPROVED");
}

async fn f3_ten_thousand_look_ups_change_nothing(world: World) {
    const CALLERS: u32 = 20;
    const EACH: u32 = 500;
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let known = |serial| Visit::in_person(&number("900101", '1', serial), 2);
    for serial in 0..10 {
        assert_eq!(said(&seller.sell(&known(serial)).await), "APPROVED");
    }
    let before = world.stored().await;
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let terminal = service.caller(BOM, &format!("look{caller}"));
        callers.spawn(async move {
            for n in 0..EACH {
                // Half of them have bought, half are strangers, some ask for too much.
                let visit = Visit::in_person(&number("900101", '1', n % 20), 1 + n % 3);
                let expected = if n % 20 < 10 && n % 3 > 0 { "QUOTA_EXHAUSTED" } else { "MAY_BUY" };
                assert_eq!(said(&terminal.look_up(&visit).await), expected);
            }
        });
    }
    callers.join_all().await;
    let after = world.stored().await;
    assert!(before == after, "{} values were stored before and {} after", before.len(), after.len());
    let count = CALLERS * EACH;
    println!("F3 on {}: {count} look-ups in {:?}, the store is bit-equal", world.name(), started.elapsed());
}

async fn f4_a_void_gives_back_once_to_the_week_of_the_sale(world: World) {
    let service = world.serve("2020-03-09T10:00:00+09:00").await;
    let (seller, other) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let visit = Visit::in_person("810305-1000112", 2);
    let sale = receipt(&seller.sell(&visit).await);

    let foreign = other.void(&visit.known(0)).await.unwrap();
    assert_eq!(said(&foreign), "NOT_YOURS");
    assert_eq!(foreign.standing, None, "another site's business is not shown");
    assert_eq!(receipt(&seller.resolve(&visit.known(0)).await.unwrap()), sale, "and nothing was changed");

    // The next week is bought before the sale of the first is taken back.
    service.set("2020-03-16T10:00:00+09:00");
    let second = visit.anew();
    assert_eq!(said(&other.sell(&second).await), "APPROVED");
    service.set("2020-03-16T11:00:00+09:00");
    // The seller's identity is enough: nobody needs a session to put a sale right.
    let voided = seller.without_session().void(&visit.known(0)).await.unwrap();
    let Some(Outcome::Voided(first)) = voided.outcome.clone() else { panic!("{voided:?}") };
    assert_eq!((instant(first.voided_at), first.voided_by.as_str()), (service_now(&service), SEJONG));
    assert_eq!(units_left(&voided), Some(0), "the week of the void is not credited");
    assert_eq!(said(&other.sell(&visit.anew()).await), "QUOTA_EXHAUSTED");

    service.set("2020-03-17T09:00:00+09:00");
    let again = seller.void(&visit.known(0)).await.unwrap();
    assert_eq!(again.outcome, Some(Outcome::Voided(first.clone())), "it says who voided when");
    assert!(again.replayed);
    assert_eq!(seller.sell(&visit).await.outcome, Some(Outcome::Voided(first)), "and never yields a receipt");

    // Voided in another week, asked about in the week of the sale: credited there, once.
    let visit = Visit::in_person("631120-2162511", 2);
    service.set("2020-03-11T10:00:00+09:00");
    assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
    service.set("2020-03-18T10:00:00+09:00");
    for _ in 0..2 {
        assert_eq!(said(&seller.void(&visit.known(0)).await.unwrap()), "VOIDED");
    }
    service.set("2020-03-14T10:00:00+09:00");
    let credited = seller.look_up(&visit).await;
    assert_eq!((said(&credited), units_left(&credited)), ("MAY_BUY", Some(2)));
    assert_eq!(said(&other.sell(&visit.anew()).await), "APPROVED");
    assert_eq!(said(&seller.sell(&visit.anew()).await), "QUOTA_EXHAUSTED", "given back once");

    let unknown = Visit::in_person("810305-1000112", 2);
    assert_eq!(said(&seller.void(&unknown.known(0)).await.unwrap()), "NOT_FOUND");
}

fn service_now(service: &Service) -> rationd::time::Timestamp {
    use rationd::time::Clock;
    service.clock.now()
}

async fn f7_a_number_is_read_as_the_papers_mean_it(world: World) {
    let service = world.serve("2020-03-14T10:00:00+09:00").await;
    let caller = service.caller(SEJONG, "w1");
    let cards = ["alien_registration_card", "health_insurance_card"];
    for (typed, year, day, warns) in [
        ("810305-1000112", 1981, "Monday", false),
        ("8103051000112", 1981, "Monday", false),
        ("８１０３０５ － １０００１１２", 1981, "Monday", false),
        ("631120-2162511", 1963, "Wednesday", false),
        ("130704-3070126", 2013, "Wednesday", false),
        ("000229-4120317", 2000, "Friday", false),
        ("020101-3000413", 2002, "Tuesday", false),
        ("011231-4000511", 2001, "Monday", false),
        ("400101-2480219", 1940, "Friday", false),
        ("991231-9000131", 1899, "Thursday", false),
        ("890612-5100163", 1989, "Thursday", false),
        ("890612-5100164", 1989, "Thursday", false),
        ("951130-6120183", 1995, "Friday", false),
        ("040315-7200178", 2004, "Thursday", false),
        ("810305-1000113", 1981, "Monday", true),
    ] {
        // On a Saturday everybody may buy, so that the decision does not hang on the number.
        let visit = Visit::of(vec![line(resident(typed), 2, "", &cards)]);
        let result = caller.look_up(&visit).await;
        let echo = result.echo.clone().unwrap();
        assert_eq!(said(&result), "MAY_BUY", "{typed}");
        assert_eq!((echo.birth_year, echo.rotation_day.as_str()), (year, day), "{typed}");
        assert_eq!(echo.check_digit_warning, warns, "{typed}");
        assert!(!echo.masked_number.is_empty() && !echo.masked_number.contains(&typed[typed.len() - 6..]), "{typed}");
    }
    for typed in
        ["010229-3000014", "991301-1000014", "250101-3000016", "810305-100011", "810305-10001122", "810305-10001x2", ""]
    {
        let told = told(&caller.check(&Visit::in_person(typed, 2)).await.unwrap_err());
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{typed:?}");
        assert_eq!(told.fields[0].0, "lines[0].buyer.resident_number", "{told:?}");
        assert!(typed.is_empty() || !told.message.contains(typed), "the number stands in the error: {}", told.message);
    }
}

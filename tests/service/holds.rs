//! Holds: units set aside, confirmed, given back, or run out by the service's clock.

use std::time::Duration;

use rationd::grpc::v1::{self, purchase_result::Outcome};
use tonic::Code;

use super::harness::*;

on_both_stores!(
    a_hold_sets_units_aside_until_it_is_confirmed_or_given_back,
    a_hold_runs_out_by_the_clock,
    a_hold_is_as_long_as_the_programme_allows,
    a_hold_of_yesterday_is_confirmed_under_the_day_it_was_made,
);

const TEN_MINUTES: Duration = Duration::from_secs(600);

async fn a_hold_sets_units_aside_until_it_is_confirmed_or_given_back(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let (seller, other) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let visit = Visit::in_person(&number("900101", '1', 1), 2);
    let held = one(seller.hold(&visit, TEN_MINUTES).await.unwrap());
    let Some(Outcome::Held(hold)) = held.outcome.clone() else { panic!("{held:?}") };
    assert_eq!((instant(hold.until), hold.quantity), (at("2020-06-15T09:10:00+09:00"), 2));
    assert_eq!(units_left(&held), Some(1));

    // It counts for everybody else, and the earlier purchase is told as held.
    let greedy = visit.anew();
    let refused = other.sell(&greedy).await;
    assert_eq!((said(&refused), units_left(&refused)), ("QUOTA_EXHAUSTED", Some(1)));
    assert!(refused.standing.unwrap().earlier[0].held);
    let repeated = one(seller.hold(&visit, TEN_MINUTES).await.unwrap());
    assert_eq!((&repeated.outcome, repeated.replayed), (&held.outcome, true));

    let without = seller.without_session().confirm(&visit.known(0)).await;
    assert_eq!(reason(without, Code::FailedPrecondition), "SESSION_REQUIRED");
    assert_eq!(said(&other.confirm(&visit.known(0)).await.unwrap()), "NOT_YOURS");
    assert_eq!(said(&seller.resolve(&visit.known(0)).await.unwrap()), "HELD", "neither changed it");

    service.set("2020-06-15T09:05:00+09:00");
    let sold = seller.confirm(&visit.known(0)).await.unwrap();
    assert_eq!(instant(receipt(&sold).sold_at), at("2020-06-15T09:00:00+09:00"), "it counts when the hold was made");
    let again = seller.confirm(&visit.known(0)).await.unwrap();
    assert_eq!((receipt(&again), again.replayed), (receipt(&sold), true));
    let not_given_back = seller.release(&visit.known(0)).await.unwrap();
    let Some(Outcome::AlreadySold(proof)) = not_given_back.outcome else { panic!("{not_given_back:?}") };
    assert_eq!(proof.receipt, Some(receipt(&sold)));
    let again = one(seller.hold(&visit, TEN_MINUTES).await.unwrap());
    assert_eq!(receipt(&again), receipt(&sold), "the hold's own id tells what became of it");

    // Given back: free at once, and the id is used up. A void gives a hold back as well.
    for gives_back in ["release", "void"] {
        let visit = Visit::in_person(&number("900202", '1', 2), 3);
        assert_eq!(said(&one(seller.hold(&visit, TEN_MINUTES).await.unwrap())), "HELD");
        let bystander = service.caller(SEJONG, "back-office");
        let given = match gives_back {
            "release" => bystander.release(&visit.known(0)).await.unwrap(),
            _ => bystander.void(&visit.known(0)).await.unwrap(),
        };
        assert_eq!((said(&given), units_left(&given)), ("RELEASED", Some(3)), "{gives_back}");
        assert_eq!(said(&seller.confirm(&visit.known(0)).await.unwrap()), "HOLD_EXPIRED");
        assert_eq!(said(&one(seller.hold(&visit, TEN_MINUTES).await.unwrap())), "RELEASED");
        let next = visit.anew();
        assert_eq!(said(&other.sell(&next).await), "APPROVED");
        assert_eq!(said(&other.void(&next.known(0)).await.unwrap()), "VOIDED");
    }

    // Confirming and releasing what was never held finds nothing, and closes the id against a late copy.
    let never = Visit::in_person(&number("900303", '1', 3), 1);
    assert_eq!(said(&seller.confirm(&never.known(0)).await.unwrap()), "NOT_FOUND");
    assert_eq!(reason(seller.hold(&never, TEN_MINUTES).await, Code::FailedPrecondition), "REQUEST_ID_CLOSED");
}

async fn a_hold_runs_out_by_the_clock(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let (seller, other) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let (visit, passed_over) =
        (Visit::in_person(&number("900101", '1', 1), 3), Visit::in_person(&number("900202", '1', 2), 3));
    for hold in [&visit, &passed_over] {
        assert_eq!(said(&one(seller.hold(hold, TEN_MINUTES).await.unwrap())), "HELD");
    }
    service.set("2020-06-15T09:09:59.999+09:00");
    assert_eq!(said(&other.look_up(&visit).await), "QUOTA_EXHAUSTED");
    assert_eq!(said(&other.look_up(&passed_over).await), "QUOTA_EXHAUSTED");

    // To the millisecond; a claim goes over the hold that has run out.
    service.set("2020-06-15T09:10:00+09:00");
    assert_eq!(said(&other.look_up(&visit).await), "MAY_BUY");
    let sale = passed_over.anew();
    assert_eq!(
        (said(&other.sell(&sale).await), said(&seller.confirm(&visit.known(0)).await.unwrap())),
        ("APPROVED", "HOLD_EXPIRED")
    );
    let late = seller.confirm(&passed_over.known(0)).await.unwrap();
    let Some(Outcome::HoldExpired(expired)) = late.outcome else { panic!("{late:?}") };
    assert_eq!(instant(expired.expired_at), at("2020-06-15T09:10:00+09:00"));
    assert_eq!(units_left(&late), Some(0), "the sale that went over it stands");
    assert_eq!(receipt(&other.sell(&sale).await).quantity, 3);

    // Nobody asked in between: the confirmation itself finds that it is too late, and nothing is sold.
    assert_eq!(said(&seller.resolve(&visit.known(0)).await.unwrap()), "RELEASED");
    assert_eq!(units_left(&seller.look_up(&visit).await), Some(3));
}

async fn a_hold_is_as_long_as_the_programme_allows(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let before = world.stored().await;
    let visit = Visit::in_person(&number("900101", '1', 1), 1);
    let length = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    for (hold_for, remedy) in [
        (None, "is required"),
        (length(0, 0), "from 1 s to 86400 s"),
        (length(0, 999_999_999), "from 1 s to 86400 s"),
        (length(-1, 0), "must not be negative"),
        (length(0, -1), "must not be negative"),
        (length(86_400, 1), "from 1 s to 86400 s"),
        (length(i64::MAX, 999_999_999), "from 1 s to 86400 s"),
        (length(i64::MIN, i32::MIN), "must not be negative"),
    ] {
        let request = v1::HoldPurchaseRequest { hold_for, ..visit.hold(TEN_MINUTES) };
        let told = told(&seller.purchases().hold_purchase(seller.request(request)).await.unwrap_err());
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{hold_for:?}");
        assert_eq!(told.fields.len(), 1, "{told:?}");
        assert_eq!(told.fields[0].0, "hold_for");
        assert!(told.fields[0].1.contains(remedy), "{told:?}");
    }
    assert!(world.stored().await == before, "nothing was recorded");
    for seconds in [1, 86_400] {
        let visit = Visit::in_person(&number("900101", '1', 1), 1);
        assert_eq!(said(&one(seller.hold(&visit, Duration::from_secs(seconds)).await.unwrap())), "HELD", "{seconds} s");
    }
}

async fn a_hold_of_yesterday_is_confirmed_under_the_day_it_was_made(world: World) {
    let service = world.serve("2020-03-09T23:30:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let visit = Visit::in_person("810305-1000112", 2);
    assert_eq!(said(&one(seller.hold(&visit, Duration::from_secs(3_600)).await.unwrap())), "HELD");
    service.set("2020-03-10T00:10:00+09:00");
    let sold = seller.confirm(&visit.known(0)).await.unwrap();
    assert_eq!(instant(receipt(&sold).sold_at), at("2020-03-09T23:30:00+09:00"));
}

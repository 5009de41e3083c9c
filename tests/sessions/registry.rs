//! What an instance serves from memory, and when it asks or refuses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rationd::ids::SiteId;
use rationd::session::registry::GOOD_FOR;
use rationd::session::{
    Admitted, Attachment, Attending, Beat, Changes, Cursor, Door, DoorError, InLine, Kept, Opened, Opening, Place,
    Refused, Registry, Renewal, Seat, Standing, Terms, Tick,
};
use rationd::time::SystemClock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::granted;
use super::stands::{
    EmbeddedStand, LEASE, Plainly, RedisStand, Stand, TestClock, channel, configured, redis_command, redis_door, site,
    terminal,
};

const PAST_GOOD: Duration = GOOD_FOR.saturating_add(Duration::from_millis(1));

/// An instance whose reading is driven by hand.
fn by_hand<D: Door>(door: D) -> (Registry<D, TestClock>, TestClock) {
    let clock = TestClock::default();
    (Registry::new(door, clock.clone(), LEASE, configured(1)), clock)
}

async fn open<D: Door>(registry: &Registry<D, impl rationd::time::Clock>, who: &str) -> Seat {
    match registry.open(site("s"), channel(), terminal(who), Duration::ZERO).await.unwrap() {
        Opened::Granted { seat, .. } => seat,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_session_sells_on_no_instance_after_two_seconds() {
    let stand = RedisStand::start().await;
    let stop = CancellationToken::new();
    let instance = || {
        let registry = Registry::new(redis_door(&stand.server.url(), LEASE), SystemClock::real(), LEASE, configured(1));
        let (running, stop) = (registry.clone(), stop.clone());
        tokio::spawn(async move { running.run(stop).await });
        registry
    };
    let (here, there) = (instance(), instance());
    let mut longest = Duration::ZERO;
    let mut seat = open(&here, "t").await;
    for _ in 0..4 {
        assert_eq!(there.check(&seat).await, Ok(()));
        assert_eq!(here.check(&seat).await, Ok(()));
        let mut stream = there.attach(seat);
        let next = open(&here, "t").await;
        let replaced = Instant::now();
        assert_eq!(here.check(&seat).await, Err(Refused::Replaced), "here it is known at once");
        let refused = loop {
            let asked = replaced.elapsed();
            match there.check(&seat).await {
                Ok(()) => assert!(asked <= GOOD_FOR, "a replaced session still sells after {asked:?}"),
                Err(refused) => break refused,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(refused, Refused::Replaced);
        longest = longest.max(replaced.elapsed());
        let told = tokio::time::timeout(Duration::from_secs(2), stream.ended()).await;
        assert_eq!(told, Ok(Standing::Replaced), "the stream of the other instance is told");
        seat = next;
    }
    println!("a replaced session was refused by another instance after at most {longest:?}");
    assert!(here.close(seat).await.unwrap());
    assert_eq!(here.check(&seat).await, Err(Refused::Lost));
    stop.cancel();
}

#[tokio::test]
async fn an_instance_that_cannot_read_the_changes_asks_again_after_two_seconds() {
    let stand = RedisStand::start().await;
    let (cut_off, clock) = by_hand(redis_door(&stand.server.url(), LEASE));
    let other = redis_door(&stand.server.url(), LEASE);
    let seat = granted(&other, "s", "t", 1).await;
    cut_off.read_changes().await.unwrap();
    assert_eq!(cut_off.check(&seat).await, Ok(()));

    let _ = granted(&other, "s", "t", 1).await;
    clock.advance(GOOD_FOR);
    assert_eq!(cut_off.check(&seat).await, Ok(()), "two seconds are what is promised, and no trip is made in them");
    clock.advance(PAST_GOOD - GOOD_FOR);
    assert_eq!(cut_off.check(&seat).await, Err(Refused::Replaced));
}

#[tokio::test]
async fn a_registry_fails_closed_when_redis_is_away() {
    let mut stand = RedisStand::start().await;
    let (registry, clock) = by_hand(stand.door());
    let unseen = granted(&stand.door(), "t", "t", 1).await;
    registry.read_changes().await.unwrap();
    let seat = open(&registry, "t").await;
    stand.server.kill();
    clock.advance(GOOD_FOR);
    assert_eq!(registry.check(&seat).await, Ok(()), "still good, and asks nobody");
    assert!(matches!(registry.check(&unseen).await, Err(Refused::CannotConfirm(_))));
    assert!(registry.read_changes().await.is_err());
    clock.advance(Duration::from_millis(1));
    assert!(matches!(registry.check(&seat).await, Err(Refused::CannotConfirm(_))), "too old to be trusted");

    stand.server.restart();
    assert_eq!(registry.check(&seat).await, Ok(()), "confirmed by a trip");
    assert_eq!(registry.check(&unseen).await, Ok(()));
    registry.read_changes().await.unwrap();
    assert_eq!(registry.reading_age(), Some(Duration::ZERO));
}

#[tokio::test]
async fn a_gap_in_the_changes_makes_the_registry_forget() {
    let stand = RedisStand::start().await;
    let (registry, _) = by_hand(stand.door());
    let other = redis_door(&stand.server.url(), LEASE);
    let earlier = granted(&other, "x", "t", 1).await;
    assert!(other.close(earlier).await.unwrap());
    registry.read_changes().await.unwrap();
    let seat = open(&registry, "t").await;
    registry.read_changes().await.unwrap();

    // Another history: the same number of changes, and none of them ours.
    redis_command(&stand.server.url(), &["FLUSHALL"]).await;
    let _ = other.ticked().await.unwrap();
    let stranger = granted(&other, "x", "t", 1).await;
    assert!(other.close(stranger).await.unwrap());
    registry.read_changes().await.unwrap();
    assert_eq!(registry.check(&seat).await, Err(Refused::Lost));
}

#[tokio::test]
async fn attachments_hear_of_the_end_and_only_of_their_own() {
    let stand = EmbeddedStand::start().await;
    let (registry, _) = by_hand(stand.door());
    let first = open(&registry, "t").await;
    let mut stream: Attachment = registry.attach(first);
    let second = open(&registry, "t").await;
    assert_eq!(stream.ended().await, Standing::Replaced);
    assert_eq!(registry.attach(first).ended().await, Standing::Replaced, "attached too late");
    let mut stream = registry.attach(second);
    assert_eq!(
        registry.attach(first).ended().await,
        Standing::Replaced,
        "an older grant does not push a newer one out"
    );
    assert!(tokio::time::timeout(Duration::from_millis(20), stream.ended()).await.is_err(), "nothing has ended");
    assert!(registry.close(second).await.unwrap());
    assert_eq!(stream.ended().await, Standing::Lost);
}

/// A real door whose look-ups are answered at once and delivered when the test says so.
#[derive(Clone)]
struct SlowDoor<D> {
    door: D,
    asked: Arc<Semaphore>,
    deliver: Arc<Semaphore>,
}

impl<D: Door> Door for SlowDoor<D> {
    async fn open(&self, opening: Opening, terms: Terms) -> Result<Opened, DoorError> {
        self.door.open(opening, terms).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Standing>, DoorError> {
        self.door.renew(renewals).await
    }

    async fn attend(&self, attending: &[Attending]) -> Result<Vec<Option<Place>>, DoorError> {
        self.door.attend(attending).await
    }

    async fn close(&self, seat: Seat) -> Result<bool, DoorError> {
        self.door.close(seat).await
    }

    async fn leave(&self, place: Place) -> Result<bool, DoorError> {
        self.door.leave(place).await
    }

    async fn look_up(&self, seat: Seat) -> Result<Standing, DoorError> {
        let answer = self.door.look_up(seat).await;
        self.asked.add_permits(1);
        self.deliver.acquire().await.unwrap().forget();
        answer
    }

    async fn changes(&self, after: Cursor) -> Result<Changes, DoorError> {
        self.door.changes(after).await
    }

    async fn line(&self) -> Result<Vec<InLine>, DoorError> {
        self.door.line().await
    }

    async fn admit(&self, terms: Terms) -> Result<Admitted, DoorError> {
        self.door.admit(terms).await
    }

    async fn tick(&self, beat: Beat) -> Result<Tick, DoorError> {
        self.door.tick(beat).await
    }

    async fn trim(&self, caps: &[(SiteId, u16)], version: u64) -> Result<usize, DoorError> {
        self.door.trim(caps, version).await
    }

    async fn live(&self) -> Result<u32, DoorError> {
        self.door.live().await
    }

    async fn occupancy(&self) -> Result<Vec<(SiteId, u16)>, DoorError> {
        self.door.occupancy().await
    }

    async fn switches(&self) -> Result<Kept, DoorError> {
        self.door.switches().await
    }

    async fn switch(&self, version: u64, document: &str, new_ramp: bool) -> Result<bool, DoorError> {
        self.door.switch(version, document, new_ramp).await
    }
}

/// A door that never answers a look-up stands behind the registry, so that a check which makes one does not come back.
async fn nothing_is_looked_up_while_nothing_has_ended<S: Stand>(
    stand: &S,
) -> (Registry<SlowDoor<S::Door>, TestClock>, Seat) {
    let none = || Arc::new(Semaphore::new(0));
    let (registry, _) = by_hand(SlowDoor { door: stand.door(), asked: none(), deliver: none() });
    registry.read_changes().await.unwrap();
    let seat = open(&registry, "t").await;
    for _ in 0..2 {
        registry.read_changes().await.unwrap();
        let checked = tokio::time::timeout(Duration::from_secs(5), registry.check(&seat)).await;
        assert_eq!(checked, Ok(Ok(())), "no seat has ended, and yet the door is asked");
    }
    (registry, seat)
}

#[tokio::test]
async fn a_door_at_which_nothing_has_ended_yet_is_no_gap() {
    let _ = nothing_is_looked_up_while_nothing_has_ended(&EmbeddedStand::start().await).await;
    let stand = RedisStand::start().await;
    let (registry, seat) = nothing_is_looked_up_while_nothing_has_ended(&stand).await;

    // A store that lost everything before anything ended is not taken for the one that was read.
    let door = stand.door();
    for begun_anew in [true, false] {
        let read = door.changes(Cursor::default()).await.unwrap().upto;
        assert!(!door.changes(read).await.unwrap().gap);
        redis_command(&stand.server.url(), &["FLUSHALL"]).await;
        if begun_anew {
            let _ = door.ticked().await.unwrap();
        }
        assert!(door.changes(read).await.unwrap().gap, "begun anew: {begun_anew}");
    }
    registry.read_changes().await.unwrap();
    let asked = tokio::time::timeout(Duration::from_millis(200), registry.check(&seat)).await;
    assert!(asked.is_err(), "what was known must be looked up again: {asked:?}");
}

#[tokio::test]
async fn an_answer_that_a_reading_overtook_is_not_kept() {
    let stand = EmbeddedStand::start().await;
    let (asked, deliver) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (registry, _) = by_hand(SlowDoor { door: stand.door(), asked: asked.clone(), deliver: deliver.clone() });
    let seat = granted(&stand.door(), "s", "t", 1).await;
    registry.read_changes().await.unwrap();
    let checking = tokio::spawn({
        let registry = registry.clone();
        async move { registry.check(&seat).await }
    });
    asked.acquire().await.unwrap().forget();
    let _ = granted(&stand.door(), "s", "t", 1).await;
    registry.read_changes().await.unwrap();
    deliver.add_permits(1);
    assert_eq!(checking.await.unwrap(), Ok(()), "it was live when the door was asked");
    deliver.add_permits(1);
    assert_eq!(registry.check(&seat).await, Err(Refused::Replaced), "the next call asks again");
}

//! How much of something somebody may do: look-ups of operators, look-ups and voids of a site. Pure: time goes in.
//!
//! Where the numbers come from: an untrained seller takes two minutes for a customer and a trained one less than one; a busy
//! pharmacy sold to 50 buyers in an hour and to 200 in a day (March 2020). A person at a counter who looks up everybody before
//! they buy, and as many again who may not, stays far below [`Rules::of`]; a program that tries numbers does not.
//!
//! Each instance counts for itself, and forgets with its end.

use std::collections::HashMap;
use std::time::Duration;

use crate::ids::{OperatorId, SiteId};

/// So many at once, and another one after each such time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    /// At once.
    burst: u32,
    /// How long until one more is there.
    every: Duration,
}

/// A caller with a question a minute, and ten to begin with: nobody who reads what they look up is held up.
const OPERATOR: Rate = Rate { burst: 10, every: Duration::from_secs(60) };
/// How many look-ups a sale gives back.
const LOOK_UPS_FOR_A_SALE: u32 = 4;
/// For how long a site may look up at its rate without waiting: half an hour's worth at once.
const AT_ONCE: Duration = Duration::from_secs(30 * 60);
/// Voids of a site that nobody asks about: ten at once and one an hour, and one more for every [`SALES_FOR_A_VOID`] sales. Nobody
/// has counted how often people err; a number that is too low costs a glance.
const VOIDS: Rate = Rate { burst: 10, every: Duration::from_secs(3_600) };
/// See [`VOIDS`].
const SALES_FOR_A_VOID: u32 = 10;
/// What a site does is told again after this long.
const TOLD: Rate = Rate { burst: 1, every: Duration::from_secs(600) };

/// When all that was spent is there again, by a monotonic clock: the whole state of a [`Rate`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Spent(Duration);

impl Spent {
    /// Takes so many, or says after how long they will be there. More than may be had at once are all of them.
    fn take(&mut self, count: u32, rate: Rate, now: Duration) -> Result<(), Duration> {
        let spent = self.0.max(now) + rate.every * count.min(rate.burst);
        match spent.saturating_sub(now + rate.every * rate.burst) {
            Duration::ZERO => {
                self.0 = spent;
                Ok(())
            }
            early => Err(early),
        }
    }

    fn give(&mut self, span: Duration) {
        self.0 = self.0.saturating_sub(span);
    }
}

/// What of a site's doings somebody should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slowed {
    /// When the look-up may be made.
    pub retry_after: Duration,
    /// Whether it is time to tell of the site (again).
    pub tell: bool,
}

/// How many people a site may look up beside those to whom it sells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    look_ups: Option<Rate>,
}

impl Rules {
    /// So many a minute for each seat of the site; 0: any number.
    pub fn of(a_minute: u32, seats: u16) -> Self {
        let a_minute = a_minute * u32::from(seats.max(1));
        let every = Duration::from_secs(60).checked_div(a_minute);
        let burst = |every: Duration| u32::try_from(AT_ONCE.as_millis() / every.as_millis().max(1)).unwrap_or(u32::MAX);
        Self { look_ups: every.map(|every| Rate { burst: burst(every), every }) }
    }
}

/// What sites have done lately.
#[derive(Debug, Default)]
pub struct Conduct {
    sites: HashMap<SiteId, Site>,
}

/// What operators have done lately.
#[derive(Debug, Default)]
pub struct Operators(HashMap<Option<OperatorId>, Spent>);

#[derive(Debug, Clone, Copy, Default)]
struct Site {
    look_ups: Spent,
    told: Spent,
    voids: Spent,
    voids_told: Spent,
}

impl Conduct {
    /// A site looks so many people up.
    pub fn look_up(&mut self, site: SiteId, people: u32, rules: Rules, now: Duration) -> Result<(), Slowed> {
        let Some(rate) = rules.look_ups else { return Ok(()) };
        let Site { look_ups, told, .. } = self.sites.entry(site).or_default();
        let tell = |retry_after| Slowed { retry_after, tell: told.take(1, TOLD, now).is_ok() };
        look_ups.take(people, rate, now).map_err(tell)
    }

    /// Nobody could tell a site about so many whom it looked up: it is not to pay for that.
    pub fn give_back(&mut self, site: SiteId, people: u32, rules: Rules) {
        if let Some((site, rate)) = self.sites.get_mut(&site).zip(rules.look_ups) {
            site.look_ups.give(rate.every * people.min(rate.burst));
        }
    }

    /// A site has sold so often.
    pub fn sold(&mut self, site: SiteId, sales: u32, rules: Rules) {
        if let Some(site) = self.sites.get_mut(&site) {
            site.look_ups.give(rules.look_ups.map_or(Duration::ZERO, |rate| rate.every * LOOK_UPS_FOR_A_SALE * sales));
            site.voids.give(VOIDS.every / SALES_FOR_A_VOID * sales);
        }
    }

    /// A site has taken a sale back, and with it what the sale gave. Says whether it is time to tell that it does so often.
    pub fn voided(&mut self, site: SiteId, rules: Rules, now: Duration) -> bool {
        let Site { look_ups, voids, voids_told, .. } = self.sites.entry(site).or_default();
        if let Some(rate) = rules.look_ups {
            // What is not there any more cannot be taken back.
            let _ = look_ups.take(LOOK_UPS_FOR_A_SALE, rate, now);
        }
        voids.take(1, VOIDS, now).is_err() && voids_told.take(1, TOLD, now).is_ok()
    }
}

impl Operators {
    /// An operator looks into a record; `None` is whoever is on this machine. `Err`: after how long they may.
    pub fn look(&mut self, operator: Option<OperatorId>, now: Duration) -> Result<(), Duration> {
        self.0.entry(operator).or_default().take(1, OPERATOR, now)
    }

    /// The record could not be read, and the look was none.
    pub fn give_back(&mut self, operator: Option<OperatorId>) {
        if let Some(spent) = self.0.get_mut(&operator) {
            spent.give(OPERATOR.every);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;

    fn site() -> SiteId {
        "11000001".parse().unwrap()
    }

    fn rules() -> Rules {
        Rules::of(4, 1)
    }

    /// Of so many look-ups and sales, evenly over these seconds, how many look-ups are slowed.
    fn slowed(look_ups: u64, sales: u64, seconds: u64, seats: u16) -> usize {
        let mut conduct = Conduct::default();
        let rules = Rules::of(4, seats);
        let at = |nth: u64, of: u64| Duration::from_millis(seconds * 1_000 * nth / of);
        let mut events: Vec<_> = (0..look_ups).map(|n| (at(n, look_ups), true)).collect();
        events.extend((0..sales).map(|n| (at(n, sales), false)));
        events.sort();
        let mut slowed = 0;
        for (now, is_look_up) in events {
            match is_look_up {
                true => slowed += usize::from(conduct.look_up(site(), 1, rules, now).is_err()),
                false => conduct.sold(site(), 1, rules),
            }
        }
        slowed
    }

    #[test]
    fn busy_counters_are_never_slowed() {
        // The busiest hour and the busiest day of March 2020: everybody looked up twice, and three who may not for each who buys.
        assert_eq!(slowed(50 * 5, 50, HOUR, 1), 0);
        assert_eq!(slowed(200 * 5, 200, 8 * HOUR, 1), 0);
        // A trained seller who looks up a customer a minute for a whole day and sells to none of them: sold out, not your day.
        assert_eq!(slowed(12 * 60, 0, 12 * HOUR, 1), 0);
        // Five windows with two a minute each, a tenth of whom buy.
        assert_eq!(slowed(8 * HOUR / 6, 8 * HOUR / 60, 8 * HOUR, 5), 0);
        // A family of sixteen, and another.
        let mut conduct = Conduct::default();
        assert!((0..7).all(|_| conduct.look_up(site(), 16, rules(), Duration::ZERO).is_ok()));
    }

    #[test]
    fn who_tries_numbers_is_held_to_what_a_person_types() {
        let tries = 10 * HOUR;
        let passed = usize::try_from(tries).unwrap() - slowed(tries, 0, HOUR, 1);
        assert!((359..=361).contains(&passed), "half an hour's worth at once and an hour's worth: {passed}");
        // A sale that is taken back buys nothing.
        let (mut conduct, mut passed) = (Conduct::default(), 0);
        for _ in 0..1_000 {
            passed += u32::from(conduct.look_up(site(), 1, rules(), Duration::ZERO).is_ok());
            conduct.sold(site(), 1, rules());
            let _ = conduct.voided(site(), rules(), Duration::ZERO);
        }
        assert!(passed < 500, "{passed}");
        assert_eq!(Conduct::default().look_up(site(), 1, Rules::of(0, 1), Duration::ZERO), Ok(()));
    }

    #[test]
    fn what_nobody_could_tell_costs_nothing_and_buys_nothing() {
        let mut conduct = Conduct::default();
        for _ in 0..1_000 {
            assert_eq!(conduct.look_up(site(), 3, rules(), Duration::ZERO), Ok(()));
            conduct.give_back(site(), 3, rules());
        }
        let passed = (0..1_000).filter(|_| conduct.look_up(site(), 1, rules(), Duration::ZERO).is_ok()).count();
        assert_eq!(passed, 120, "half an hour's worth, as from the beginning");
    }

    #[test]
    fn it_is_told_once_in_a_while_and_says_when_to_come_back() {
        let mut conduct = Conduct::default();
        for _ in 0..120 {
            conduct.look_up(site(), 1, rules(), Duration::ZERO).unwrap();
        }
        let late = |tell| Err(Slowed { retry_after: Duration::from_secs(15), tell });
        assert_eq!(conduct.look_up(site(), 1, rules(), Duration::ZERO), late(true));
        assert_eq!(conduct.look_up(site(), 1, rules(), Duration::ZERO), late(false));
        assert_eq!(conduct.look_up(site(), 1, rules(), Duration::from_secs(15)), Ok(()));
        let other = "11000002".parse().unwrap();
        assert_eq!(conduct.look_up(other, 1, rules(), Duration::ZERO), Ok(()), "another site is another");
    }

    #[test]
    fn unusually_many_voids_are_told_and_those_of_who_sells_much_are_not_unusual() {
        let mut conduct = Conduct::default();
        let told = (0..30).filter(|_| conduct.voided(site(), rules(), Duration::ZERO)).count();
        assert_eq!(told, 1, "after ten, and once");
        let mut conduct = Conduct::default();
        for nth in 0..100 {
            assert!(!conduct.voided(site(), rules(), Duration::ZERO), "{nth}");
            conduct.sold(site(), 20, rules());
        }
    }

    #[test]
    fn an_operator_reads_what_they_look_up() {
        let (mut operators, kim) = (Operators::default(), "kim".parse().ok());
        let at = |seconds| Duration::from_secs(seconds);
        assert!((0..10).all(|_| operators.look(kim, at(0)).is_ok()));
        assert_eq!(operators.look(kim, at(0)), Err(at(60)));
        assert_eq!(operators.look("lee".parse().ok(), at(0)), Ok(()));
        operators.give_back(kim);
        assert_eq!((operators.look(kim, at(0)), operators.look(kim, at(0))), (Ok(()), Err(at(60))));
        assert!((1..=60).all(|minute| operators.look(kim, at(minute * 60)).is_ok()));
    }
}

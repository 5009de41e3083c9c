use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::stock::{Level, Source};

fn programme(nth: u8) -> ProgrammeCode {
    format!("p{nth}").parse().unwrap()
}

fn site(nth: u16) -> SiteId {
    format!("s{nth:05}").parse().unwrap()
}

fn shown(offered: u32) -> Shown {
    Shown {
        level: Level::Plenty,
        offered,
        promised: 0,
        as_of: Timestamp::EPOCH,
        source: Source::Count,
        delivered_at: None,
        counted_at: None,
        stale: false,
        unverified: false,
    }
}

fn at(millis: u64) -> Option<Timestamp> {
    Some(Timestamp::from_millis(i64::try_from(millis).unwrap()))
}

/// What there is, as the follower has it.
type Stocks = BTreeMap<(u8, u16), u32>;

fn publish(board: &Board, stocks: &Stocks, read_until: Option<Timestamp>) {
    let row = |(&(p, s), &units): (&(u8, u16), &u32)| (Key { programme: programme(p), site: site(s) }, shown(units));
    board.publish(stocks.iter().map(row).collect(), read_until);
}

/// Somebody who applies what they are told.
struct Applies {
    watcher: Watcher,
    has: BTreeMap<SiteId, Shown>,
    token: Option<Vec<u8>>,
    anew: Vec<Why>,
    read_until: Option<Timestamp>,
    /// Rows of each message.
    rows: Vec<usize>,
}

impl Applies {
    fn new(watcher: Watcher) -> Self {
        Self { watcher, has: BTreeMap::new(), token: None, anew: Vec::new(), read_until: None, rows: Vec::new() }
    }

    /// Takes a message; whether there was one.
    fn take(&mut self, most: usize, ours: impl Fn(SiteId) -> bool) -> bool {
        match self.watcher.next(most, false, ours) {
            None => return false,
            Some(Next::Anew(why)) => {
                self.has.clear();
                self.token = None;
                self.anew.push(why);
            }
            Some(Next::Changes(rows)) => {
                self.rows.push(rows.len());
                for (site, shown) in rows {
                    match shown {
                        Some(shown) => self.has.insert(site, shown),
                        None => self.has.remove(&site),
                    };
                }
            }
            Some(Next::Reached(read_until)) => {
                self.token = Some(self.watcher.resume("all").to_bytes());
                self.read_until = read_until;
            }
        }
        true
    }

    fn take_all(&mut self) {
        while self.take(256, |_| true) {}
    }
}

fn picture_of(board: &Board, nth: u8) -> BTreeMap<SiteId, Shown> {
    board.picture().of(programme(nth)).iter().map(|(key, shown)| (key.site, *shown)).collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// These stocks become so; `None`: nothing is known of it any more.
    Publish(Vec<((u8, u16), Option<u32>)>),
    /// The watcher takes so many messages of so many rows at most.
    Take(usize, usize),
    /// Its stream breaks, and it comes back.
    Break,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stock = ((0..2_u8, 0..12_u16), proptest::option::of(0..5_u32));
    proptest::collection::vec(
        prop_oneof![
            3 => proptest::collection::vec(stock, 0..9).prop_map(Step::Publish),
            4 => (1..4_usize, 1..5_usize).prop_map(|(times, most)| Step::Take(times, most)),
            1 => Just(Step::Break),
        ],
        0..60,
    )
}

proptest! {
    #[test]
    fn whoever_applies_what_is_told_has_the_picture_whenever_they_have_been_told_all(steps in steps()) {
        let (board, mut stocks, mut published) = (Board::default(), Stocks::new(), 0);
        let mut watch = Applies::new(board.watch(programme(0)));
        for step in steps {
            match step {
                Step::Publish(changed) => {
                    for (key, units) in changed {
                        match units {
                            Some(units) => stocks.insert(key, units),
                            None => stocks.remove(&key),
                        };
                    }
                    published += 1;
                    publish(&board, &stocks, at(published));
                }
                Step::Take(times, most) => {
                    for _ in 0..times {
                        watch.take(most, |_| true);
                    }
                    prop_assert!(watch.rows.iter().all(|rows| (1..=most.max(4)).contains(rows)));
                }
                Step::Break => {
                    let token = watch.token.as_deref().map(|token| Resume::from_bytes(token).unwrap());
                    // What it was told after the token stays with it: rows are told again, and do no harm.
                    watch.watcher = token.map_or_else(|| board.watch(programme(0)), |token| board.watch_from(&token));
                }
            }
        }
        watch.take_all();
        prop_assert_eq!(&watch.has, &picture_of(&board, 0));
        prop_assert!(watch.anew.iter().all(|why| *why == Why::Begins), "a few changes are remembered");
        // With the picture in hand, it is told nothing but what is new.
        watch.rows.clear();
        stocks.insert((1, 3), 77);
        publish(&board, &stocks, at(published + 1));
        watch.take_all();
        prop_assert_eq!((&watch.rows, watch.read_until), (&vec![], at(published + 1)), "another programme's is not theirs");
        stocks.insert((0, 3), 77);
        publish(&board, &stocks, at(published + 2));
        watch.take_all();
        prop_assert_eq!(&watch.rows, &vec![1]);
        prop_assert_eq!(watch.has, picture_of(&board, 0));
    }
}

#[test]
fn whoever_is_too_far_behind_begins_anew_and_all_others_go_on() {
    let (board, mut stocks) = (Board::default(), Stocks::new());
    stocks.insert((0, 0), 0);
    publish(&board, &stocks, None);
    let (mut old, mut resumed) = (Applies::new(board.watch(programme(0))), Applies::new(board.watch(programme(0))));
    old.take_all();
    resumed.take_all();
    let token = Resume::from_bytes(&resumed.token.unwrap()).unwrap();
    let sites = 10_000_u16;
    let rounds = u32::try_from(CHANGES).unwrap() / u32::from(sites) + 2;
    for round in 1..=rounds {
        stocks.extend((0..sites).map(|nth| ((0, nth), round)));
        publish(&board, &stocks, None);
    }
    let changes = board.0.changes.lock().unwrap();
    assert!(changes.count <= CHANGES && changes.kept.len() < rounds as usize && changes.forgotten > 0);
    assert_eq!(changes.count, changes.kept.iter().map(|(_, keys)| keys.len()).sum::<usize>());
    drop(changes);
    old.take_all();
    assert_eq!((old.anew.as_slice(), &old.has), ([Why::Begins, Why::TooOld].as_slice(), &picture_of(&board, 0)));
    let mut resumed = Applies::new(board.watch_from(&token));
    resumed.take_all();
    assert_eq!(resumed.anew, [Why::TooOld]);
    stocks.insert((0, 1), 0);
    publish(&board, &stocks, None);
    old.rows.clear();
    old.take_all();
    assert_eq!((old.anew.len(), &old.rows), (2, &vec![1]), "that one is remembered");
}

#[test]
fn a_publication_larger_than_what_is_remembered_is_told_anew() {
    let (board, mut stocks) = (Board::default(), Stocks::new());
    publish(&board, &stocks, None);
    let mut watch = Applies::new(board.watch(programme(0)));
    watch.take_all();
    let many = u16::try_from(CHANGES / 4).unwrap();
    stocks.extend((0..5).flat_map(|p| (0..many).map(move |nth| ((p, nth), 1))));
    publish(&board, &stocks, None);
    watch.take_all();
    assert_eq!((watch.anew.as_slice(), watch.has.len()), ([Why::Begins, Why::TooOld].as_slice(), usize::from(many)));
}

#[test]
fn pictures_that_change_while_they_are_told_are_told_to_their_end() {
    let (board, mut stocks) = (Board::default(), Stocks::new());
    stocks.extend((0..100).map(|nth| ((0, nth), 1)));
    publish(&board, &stocks, at(1));
    let mut watch = Applies::new(board.watch(programme(0)));
    while watch.token.is_none() {
        watch.take(10, |_| true);
        // Of those that it was told of already, of those to come, and of new ones.
        let nth = u16::try_from(watch.rows.len()).unwrap();
        stocks.insert((0, nth), 7);
        stocks.remove(&(0, nth + 50));
        stocks.insert((0, 300 + nth), 7);
        publish(&board, &stocks, at(2));
        assert!(watch.rows.len() < 100, "one that changes all the time comes to an end");
    }
    assert_eq!(watch.read_until, at(1), "later things may be missing yet");
    watch.take_all();
    assert_eq!((&watch.has, watch.read_until), (&picture_of(&board, 0), at(2)));
}

#[test]
fn publications_beside_a_watcher_lose_it_nothing() {
    let board = Board::default();
    let publisher = std::thread::spawn({
        let board = board.clone();
        move || {
            let mut stocks = Stocks::new();
            for round in 0..3_000_u32 {
                let nth = u16::try_from(round % 50).unwrap();
                if round % 7 == 0 {
                    stocks.remove(&(0, nth))
                } else {
                    stocks.insert((0, nth), round)
                };
                publish(&board, &stocks, None);
            }
        }
    });
    let mut watch = Applies::new(board.watch(programme(0)));
    while !publisher.is_finished() {
        watch.take(3, |_| true);
    }
    publisher.join().unwrap();
    watch.take_all();
    assert_eq!(watch.has, picture_of(&board, 0));
    assert_eq!(watch.anew, [Why::Begins]);
}

#[test]
fn only_ours_are_told_and_how_far_it_is_when_that_is_due() {
    let (board, mut stocks) = (Board::default(), Stocks::new());
    stocks.extend((0..9).map(|nth| ((0, nth), 1)));
    publish(&board, &stocks, at(1));
    let mut watch = Applies::new(board.watch(programme(0)));
    let ours = |of: SiteId| of == site(3) || of == site(5);
    while watch.take(1, ours) {}
    assert_eq!((watch.rows.as_slice(), watch.has.len()), ([1, 1].as_slice(), 2));
    stocks.extend([((0, 4), 2), ((0, 5), 2)]);
    publish(&board, &stocks, at(2));
    while watch.take(1, ours) {}
    assert_eq!((watch.rows.len(), watch.has.get(&site(5))), (3, Some(&shown(2))));
    publish(&board, &stocks, at(9));
    assert_eq!(watch.watcher.next(1, false, ours), None, "nothing has changed");
    assert_eq!(watch.watcher.next(1, true, ours), Some(Next::Reached(at(9))));
    assert_eq!(watch.watcher.next(1, false, ours), None);
}

#[test]
fn a_token_comes_back_as_it_was_and_nothing_else_is_one() {
    let board = Board::default();
    publish(&board, &Stocks::from([((0, 1), 1)]), None);
    let mut watch = Applies::new(board.watch(programme(0)));
    watch.take_all();
    let resume = watch.watcher.resume("Seoul Jongno-gu");
    assert_eq!((resume.programme(), resume.scope()), (programme(0), "Seoul Jongno-gu"));
    let bytes = resume.to_bytes();
    assert_eq!(Resume::from_bytes(&bytes), Some(resume.clone()));
    assert_eq!(Resume::from_bytes(&watch.watcher.resume("").to_bytes()), Some(watch.watcher.resume("")));
    let [mut form, mut scope] = [bytes.clone(), bytes.clone()];
    form[0] += 1;
    scope.push(0xff);
    for wrong in [&bytes[..25], &bytes[..27], &form, &scope, b"", &[b' '; 40]] {
        assert_eq!(Resume::from_bytes(wrong), None, "{wrong:?}");
    }
    let mut resumed = Applies::new(board.watch_from(&resume));
    assert!(!resumed.take(9, |_| true), "nothing is new");
    // Of another process, and of a version that never was.
    for other in [Board::default().watch_from(&resume), board.watch_from(&Resume { version: 2, ..resume })] {
        let mut other = Applies::new(other);
        other.take_all();
        assert_eq!(other.anew, [Why::TooOld]);
    }
}

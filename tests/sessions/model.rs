//! The door as a slow, obvious model, written from the contract and not from the limiter: one flat list of seats. Random
//! operations run on it and on a real door, and every answer and every change must be the same.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use rationd::session::{Cursor, Door, Ended, EndedWhy, Holder, Opened, Seat, SeatKey, Standing};

use super::stands::{EmbeddedStand, LEASE, RedisStand, Stand, redis_command, site, terminal};

#[derive(Debug, Clone)]
enum Operation {
    Open {
        site: u8,
        terminal: u8,
        cap: u16,
    },
    /// Of the seats ever granted, counted from the newest.
    Renew(Vec<usize>),
    Close(usize),
    LookUp(usize),
    Pass,
    ClockStepsBack,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        6 => (0..3u8, 0..5u8, 0..4u16).prop_map(|(site, terminal, cap)| Operation::Open { site, terminal, cap }),
        2 => prop::collection::vec(0..12usize, 1..5).prop_map(Operation::Renew),
        2 => (0..12usize).prop_map(Operation::Close),
        1 => (0..12usize).prop_map(Operation::LookUp),
        6 => Just(Operation::Pass),
        1 => Just(Operation::ClockStepsBack),
    ];
    prop::collection::vec(operation, 1..60)
}

#[derive(Debug, Clone, Copy)]
struct Row {
    seat: Seat,
    granted: Duration,
    renewed: Duration,
}

#[derive(Debug, Default)]
struct Model {
    now: Duration,
    rows: Vec<Row>,
    /// Every grant ever made; a site's fence is how many of them are its own.
    grants: Vec<Seat>,
    ended: Vec<Ended>,
}

impl Model {
    fn end(&mut self, which: impl Fn(&Row) -> bool, why: EndedWhy) {
        let (gone, kept) = self.rows.iter().partition(|row| which(row));
        self.rows = kept;
        self.ended.extend(gone.iter().map(|row: &Row| Ended { seat: row.seat.key, fence: row.seat.fence, why }));
    }

    fn open(&mut self, code: &str, who: &str, cap: u16) -> Opened {
        let (here, who) = (site(code), terminal(who));
        let over = self.now.checked_sub(LEASE.length);
        self.end(
            |row| row.seat.key.site == here && row.seat.terminal != who && over.is_some_and(|over| row.renewed < over),
            EndedWhy::Expired,
        );
        let mut of_site: Vec<Row> = self.rows.iter().filter(|row| row.seat.key.site == here).copied().collect();
        of_site.sort_by_key(|row| row.seat.key.slot);
        let own = of_site.iter().find(|row| row.seat.terminal == who).map(|row| row.seat);
        let others: Vec<u16> = of_site.iter().filter(|r| r.seat.terminal != who).map(|r| r.seat.key.slot).collect();

        let keeps_its_slot = own.is_some_and(|own| own.key.slot < cap);
        if !keeps_its_slot && others.len() >= usize::from(cap) {
            let holder = |row: &Row| Holder {
                terminal: row.seat.terminal,
                slot: row.seat.key.slot,
                held_for: self.now - row.granted,
                free_after: (row.renewed + LEASE.length).saturating_sub(self.now),
            };
            return Opened::SiteFull { holders: of_site.iter().map(holder).collect() };
        }
        let mut slot = 0;
        while others.contains(&slot) {
            slot += 1;
        }
        if keeps_its_slot {
            slot = own.unwrap().key.slot;
        }
        self.end(|row| Some(row.seat) == own, EndedWhy::Replaced);
        let fence = 1 + self.grants.iter().filter(|seat| seat.key.site == here).count() as u64;
        let seat = Seat { key: SeatKey { site: here, slot }, terminal: who, fence };
        self.grants.push(seat);
        self.rows.push(Row { seat, granted: self.now, renewed: self.now });
        Opened::Granted { seat, replaced: own }
    }

    fn standing(&self, seat: Seat) -> Standing {
        if self.rows.iter().any(|row| row.seat == seat) {
            Standing::Live
        } else if self.rows.iter().any(|row| {
            row.seat.key == seat.key || (row.seat.key.site == seat.key.site && row.seat.terminal == seat.terminal)
        }) {
            Standing::Replaced
        } else {
            Standing::Lost
        }
    }

    fn renew(&mut self, seat: Seat) -> Standing {
        for row in self.rows.iter_mut().filter(|row| row.seat == seat) {
            row.renewed = self.now;
        }
        self.standing(seat)
    }

    fn close(&mut self, seat: Seat) -> bool {
        let live = self.standing(seat) == Standing::Live;
        self.end(|row| row.seat == seat, EndedWhy::Closed);
        live
    }

    fn pass(&mut self, step: Duration) -> usize {
        self.now += step;
        let before = self.rows.len();
        if let Some(over) = self.now.checked_sub(LEASE.length) {
            self.end(|row| row.renewed < over, EndedWhy::Expired);
        }
        before - self.rows.len()
    }

    fn grant(&self, back: usize) -> Option<Seat> {
        self.grants.iter().rev().nth(back).copied()
    }
}

/// One history on a door and on the model, compared step by step. Counts the grants and the endings.
async fn compare(stand: &impl Stand, history: &[Operation]) -> (usize, usize) {
    let door = stand.door();
    let mut model = Model::default();
    let mut cursor: Cursor = door.changes(Cursor::default()).await.unwrap().upto;
    let mut endings = 0;
    for operation in history {
        match operation {
            Operation::Open { site: at, terminal: who, cap } => {
                let (at, who) = (format!("s{at}"), format!("t{who}"));
                assert_eq!(door.open(site(&at), terminal(&who), *cap).await.unwrap(), model.open(&at, &who, *cap));
            }
            Operation::Renew(which) => {
                let seats: Vec<Seat> = which.iter().filter_map(|back| model.grant(*back)).collect();
                let expected: Vec<Standing> = seats.iter().map(|seat| model.renew(*seat)).collect();
                assert_eq!(door.renew(&seats).await.unwrap(), expected);
            }
            Operation::Close(back) => {
                let Some(seat) = model.grant(*back) else { continue };
                assert_eq!(door.close(seat).await.unwrap(), model.close(seat));
            }
            Operation::LookUp(back) => {
                let Some(seat) = model.grant(*back) else { continue };
                assert_eq!(door.look_up(seat).await.unwrap(), model.standing(seat));
            }
            Operation::Pass => assert_eq!(stand.pass().await, model.pass(LEASE.max_step)),
            Operation::ClockStepsBack => assert_eq!(stand.clock_steps_back().await, model.pass(Duration::ZERO)),
        }
        // A history may begin before the first change ever, when there is nothing to go on from.
        let changes = door.changes(cursor).await.unwrap();
        let mut expected = std::mem::take(&mut model.ended);
        if cursor != Cursor::default() {
            let mut ended = changes.ended;
            for list in [&mut ended, &mut expected] {
                list.sort_by_key(|ended| (ended.seat, ended.fence));
            }
            assert!(!changes.gap);
            assert_eq!(ended, expected);
        }
        endings += expected.len();
        cursor = changes.upto;
    }
    (model.grants.len(), endings)
}

fn run(name: &str, one: impl Fn(&[Operation]) -> (usize, usize)) {
    let counts = std::cell::Cell::new((0, 0, 0));
    let failures = Box::new(FileFailurePersistence::Direct("tests/sessions/model.proptest-regressions"));
    let config = ProptestConfig { cases: 100, failure_persistence: Some(failures), ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let ran = runner.run(&operations(), |history| {
        let (grants, endings) = one(&history);
        let (cases, all_grants, all_endings) = counts.get();
        counts.set((cases + 1, all_grants + grants, all_endings + endings));
        Ok(())
    });
    let (cases, grants, endings) = counts.get();
    println!("{name} and the model agree on {cases} histories with {grants} grants and {endings} endings");
    if let Err(error) = ran {
        panic!("{name}: {error}");
    }
}

#[test]
fn random_histories_on_redis_agree_with_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stand = runtime.block_on(RedisStand::start());
    run("Redis", |history| {
        runtime.block_on(async {
            redis_command(&stand.server.url(), &["FLUSHALL"]).await;
            let _ = stand.door().tick().await.unwrap();
            compare(&stand, history).await
        })
    });
}

#[test]
fn random_histories_on_the_file_agree_with_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    run("the file", |history| runtime.block_on(async { compare(&EmbeddedStand::start().await, history).await }));
}

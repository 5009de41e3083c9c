//! The conformance suite: every rule of the ledger as calls with the answer that must come, over any store. Each answer,
//! the whole record and every event are also compared with the model.

mod exports;
mod holds;
mod ids;
mod keeping;
mod table;
mod turning;
mod windows;

use rationd::ledger::outbox::Outbox;
use rationd::ledger::{Call, Durability, Health, Ledger, LedgerError, RecordKey};

use super::model::Model;
use super::places;
use super::steps::{Reply, Step, Told, Verb, buyer, sale};

#[tokio::test]
async fn embedded_conforms() {
    let (ledger, _place) = places::embedded().await;
    suite("embedded", &ledger).await;
}

#[tokio::test]
async fn redis_conforms() {
    let (ledger, _place) = places::redis().await;
    suite("redis", &ledger).await;
}

async fn suite<L: Ledger + Outbox>(store: &str, ledger: &L) {
    let mut bench = Bench { ledger, model: Model::default(), buyers: 0, calls: 0 };
    let Health::Serving(id) = ledger.health() else { panic!("{store} does not serve") };
    assert_eq!(ledger.durability(), Durability::Synced);

    let mut summary = Vec::new();
    macro_rules! run {
        ($($module:ident :: $case:ident),* $(,)?) => {$(
            let (buyers, calls) = (bench.buyers, bench.calls);
            $module::$case(&mut bench).await;
            bench.compare_events().await;
            summary.push(format!(
                "  {}: {} buyers, {} calls",
                stringify!($case).replace('_', " "),
                bench.buyers - buyers,
                bench.calls - calls
            ));
        )*};
    }
    run!(
        table::every_cell,
        ids::other_content_is_an_error,
        ids::another_site_is_told_nothing,
        ids::dead_entries_are_bounded,
        windows::two_windows_check_all_then_write_all,
        windows::purchases_are_counted,
        windows::boundaries_are_exact_to_the_millisecond,
        windows::a_void_credits_the_window_of_the_sale,
        windows::paper_is_within_or_over,
        windows::time_never_goes_back,
        windows::stale_windows_are_not_judged,
        holds::an_expired_hold_is_released_by_whoever_passes,
        holds::a_hold_counts_until_its_last_millisecond,
        keeping::one_event_for_each_change,
        keeping::the_sweep_takes_exactly_what_is_past,
        keeping::the_sweep_goes_in_bounded_steps,
        exports::an_export_gives_what_usage_says,
        exports::what_stands_still_is_exported_while_others_come_and_go,
        turning::a_turn_of_the_ring_shows_nowhere,
    );
    assert_eq!(ledger.health(), Health::Serving(id), "the ledger keeps its id");
    println!("{store}: {} cases, {} buyers, {} calls", summary.len(), bench.buyers, bench.calls);
    println!("{}", summary.join("\n"));
}

/// A store beside the model: every call goes to both.
struct Bench<'a, L> {
    ledger: &'a L,
    model: Model,
    buyers: u64,
    calls: usize,
}

impl<L: Ledger + Outbox> Bench<'_, L> {
    /// A buyer that nobody has sold to.
    fn buyer(&mut self) -> RecordKey {
        self.buyers += 1;
        buyer(self.buyers)
    }

    /// Makes the call, and insists on what the model says.
    async fn ask(&mut self, key: RecordKey, call: Call, verb: Verb) -> Result<Reply, LedgerError> {
        let step = Step { key, call, verb };
        let expected = self.model.ask(&step);
        let found = step.ask(self.ledger).await;
        assert_eq!(found, expected, "{step:?}");
        assert_eq!(self.ledger.usage(key).await.unwrap(), self.model.record(key), "after {step:?}");
        self.calls += 1;
        found
    }

    /// Makes the call, and insists on this outcome.
    async fn says(&mut self, outcome: &str, key: RecordKey, call: Call, verb: Verb) -> Reply {
        let context = format!("{call:?} {verb:?}");
        let reply = self.ask(key, call, verb).await.unwrap();
        assert_eq!(reply.outcome, outcome, "{context}");
        reply
    }

    /// Makes the call, and insists on this error and on an untouched record.
    async fn fails(&mut self, error: LedgerError, key: RecordKey, call: Call, verb: Verb) {
        let (before, context) = (self.ledger.usage(key).await.unwrap(), format!("{call:?} {verb:?}"));
        assert_eq!(self.ask(key, call, verb).await, Err(error), "{context}");
        assert_eq!(self.ledger.usage(key).await.unwrap(), before, "{context}");
    }

    /// Sells a unit to each of these buyers, in batches whose calls are all made at once. A batch is as large as there are
    /// partitions, so that the order within an outbox is known.
    async fn sell_to_all(&mut self, keys: &[RecordKey], call: impl Fn(usize) -> Call) {
        for (batch, keys) in keys.chunks(256).enumerate() {
            let sell = |key: &RecordKey| {
                let step = Step { key: *key, call: call(batch), verb: Verb::Claim(sale(1, &[])) };
                self.model.ask(&step).unwrap();
                let ledger = self.ledger.clone();
                tokio::spawn(async move { step.ask_patiently(&ledger).await.unwrap() })
            };
            let asked: Vec<_> = keys.iter().map(sell).collect();
            for answer in asked {
                assert_eq!(answer.await.unwrap().outcome, "Recorded");
            }
        }
        self.calls += keys.len();
    }

    /// Whole outboxes: nothing missing, nothing told twice, in order.
    async fn compare_events(&self) {
        for (partition, told) in (0..=u8::MAX).zip(places::all_told(self.ledger).await) {
            assert_eq!(told, self.model.told(partition), "outbox {partition}");
        }
    }

    /// The events of one buyer's partition from a place on.
    async fn told_since(&self, key: RecordKey, seen: usize) -> Vec<Told> {
        places::told(self.ledger, key.buyer.partition).await.split_off(seen)
    }
}

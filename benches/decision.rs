//! What a decision costs on one core, before any store is asked: `cargo bench --bench decision`. Prints first how often each
//! step asks for memory.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark of texts that are known to be right")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rationd::buyer::{KeyRing, RingKey, SecretKey, parse_kr_resident};
use rationd::policy::{Counted, Line, LineSet, Person, Place, Policies, Visit};
use rationd::time::{Date, Timestamp};
use smallvec::smallvec;

fn visit(birth_year: i16, agent: Option<i16>) -> Visit {
    let line = Line {
        buyer: Person { birth_year, foreign: false },
        relation: agent.map(|_| "same_household".parse().unwrap()),
        papers: agent.map(|_| "resident_register".parse().unwrap()).into_iter().collect(),
        quantity: 2,
    };
    let agent = agent.map(|birth_year| Person { birth_year, foreign: false });
    Visit { agent, lines: smallvec![line], family: smallvec![] }
}

fn assess(c: &mut Criterion) {
    let policies = Policies::built_in();
    let masks = policies.get("kr-public-mask-2020".parse().unwrap()).unwrap();
    let place = Place { channel: "mart".parse().unwrap(), region: "Busan".to_owned() };
    let at: Timestamp = "2020-05-20T10:00:00+09:00".parse().unwrap();
    let mut group = c.benchmark_group("assess");
    group.throughput(Throughput::Elements(1));
    for (name, visit) in [("in person", visit(1988, None)), ("by proxy", visit(1988, Some(1981)))] {
        group.bench_function(name, |b| {
            b.iter(|| masks.assess(black_box(&visit), 0, &place, black_box(at), LineSet::default()));
        });
    }
    let tuesday: Timestamp = "2020-05-19T10:00:00+09:00".parse().unwrap();
    let refused = visit(1988, None);
    group.bench_function("refused, with the reason", |b| {
        b.iter(|| masks.assess(black_box(&refused), 0, &place, black_box(tuesday), LineSet::default()));
    });
    let bought = [Counted { at: tuesday, units: 3, held_until: None }];
    group.bench_function("next chance after a full week", |b| {
        b.iter(|| masks.next_chance(black_box(&refused), 0, &place, black_box(at), &bought));
    });
    group.finish();
}

/// From the number as it was typed to the rules' answer: all that is decided before the one trip to the store.
fn decide(c: &mut Criterion) {
    let policies = Policies::built_in();
    let masks = policies.get("kr-public-mask-2020".parse().unwrap()).unwrap();
    let place = Place { channel: "pharmacy".parse().unwrap(), region: "Busan".to_owned() };
    let at: Timestamp = "2020-03-09T10:00:00+09:00".parse().unwrap();
    let today = Date::new(2020, 3, 9).unwrap();
    let key = |byte| SecretKey::new(Box::new([byte; 32]));
    let ring = KeyRing::new(&key(1), &RingKey { id: 1, key: key(2) }, None);
    let decide = |number: &str| {
        let buyer = parse_kr_resident(number, today, true).unwrap();
        let line = Line {
            buyer: rationd::policy::Person { birth_year: buyer.birth_year, foreign: buyer.foreign },
            relation: None,
            papers: smallvec![],
            quantity: 2,
        };
        let visit = Visit { agent: None, lines: smallvec![line], family: smallvec![] };
        masks.assess(&visit, 0, &place, at, LineSet::default())
    };
    let pseudonym = |number: &str| ring.key_of(&parse_kr_resident(number, today, true).unwrap(), masks.id());
    let typed = "810305-1000112";
    let one = allocation_counter::measure(|| drop(black_box(Box::new(1_u8))));
    assert_eq!(one.count_total, 1, "what says 0 below must be able to say 1");
    for (name, memory) in [
        ("parse and assess", allocation_counter::measure(|| _ = black_box(decide(typed)))),
        ("parse and make the pseudonym", allocation_counter::measure(|| _ = black_box(pseudonym(typed)))),
    ] {
        println!("{name}: {} allocations, {} bytes", memory.count_total, memory.bytes_total);
    }
    let mut group = c.benchmark_group("decision");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse and assess", |b| b.iter(|| decide(black_box(typed))));
    group.bench_function("parse and make the pseudonym", |b| b.iter(|| pseudonym(black_box(typed))));
    group.finish();
}

criterion_group!(benches, decide, assess);
criterion_main!(benches);

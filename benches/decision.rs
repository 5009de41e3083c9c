//! What a decision costs on one core, before any store is asked: `cargo bench --bench decision`.

#![expect(missing_docs, reason = "criterion's macros make undocumented functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark of texts that are known to be right")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rationd::policy::{Counted, Line, LineSet, Person, Place, Policies, Visit};
use rationd::time::Timestamp;
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

criterion_group!(benches, assess);
criterion_main!(benches);

//! One kind of book, two stores: what is kept of late sales, on real files and real servers, against a model written from what
//! [`Book`] promises.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rationd::ids::{RequestId, SiteId};
use rationd::journal::embedded::EmbeddedBook;
use rationd::journal::redis::{JOURNAL_TAG, RedisBook};
use rationd::journal::{Arrived, Book, Conflict, Row, Said, Sale, Verdict, Why};
use rationd::redis_pool::RedisPool;
use rationd::time::Timestamp;

use crate::support::redis::RedisServer;

/// What is done to a book.
#[derive(Debug, Clone)]
enum Act {
    Arrive(Vec<Row>),
    Settle(Vec<Row>),
    /// The store ends without a farewell, and starts again on what it has.
    End,
}

/// Rows that stand under their id, and rows that were put beside one.
#[derive(Default)]
struct Model {
    under: BTreeMap<RequestId, Row>,
    beside: BTreeMap<(RequestId, [u8; 8]), Row>,
}

impl Model {
    /// In the words of `Book::arrive`.
    fn arrive(&mut self, row: &Row) -> Arrived {
        let (id, mark) = (row.sale.request, row.sale.mark);
        let is_aside = |row: &Row| matches!(row.verdict, Verdict::Quarantined(_));
        // Who stands there, and is it the same sale?
        let stood = self.under.get(&id).cloned();
        let same = stood.as_ref().filter(|stood| stood.sale.mark == mark);
        if let Some(same) = same {
            if !is_aside(same) || is_aside(row) {
                return Arrived::Again(Said::from(&same.verdict));
            }
            self.put(Row { received: same.received, ..row.clone() });
            return Arrived::First;
        }
        match stood {
            Some(other) if !is_aside(&other) => {
                let verdict = Verdict::Quarantined(Why::EnteredDifferently);
                self.beside.insert((id, mark), Row { verdict, ..row.clone() });
                Arrived::Differently
            }
            other => {
                if let Some(other) = other {
                    self.beside.insert((id, other.sale.mark), other);
                }
                self.put(row.clone());
                Arrived::First
            }
        }
    }

    fn put(&mut self, row: Row) {
        self.beside.remove(&(row.sale.request, row.sale.mark));
        self.under.insert(row.sale.request, row);
    }

    fn settle(&mut self, row: &Row) {
        if let Some(stood) = self.under.get_mut(&row.sale.request)
            && stood.sale.mark == row.sale.mark
            && stood.verdict == Verdict::Pending
        {
            *stood = Row { received: stood.received, ..row.clone() };
        }
    }

    fn rows(&self) -> Vec<Row> {
        sorted(self.under.values().chain(self.beside.values()).cloned().collect())
    }
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| (row.sale.request, row.sale.mark, format!("{:?}", row.verdict)));
    rows
}

fn site() -> SiteId {
    "11000001".parse().unwrap()
}

/// Its units follow from the mark, as in life, and so does its programme.
fn row(id: u8, mark: u8, received: i64, verdict: Verdict) -> Row {
    let sale = Sale {
        request: RequestId::from_bytes([id; 16]).unwrap(),
        mark: [mark; 8],
        programme: if mark == 1 { "km" } else { "week" }.parse().unwrap(),
        quantity: u32::from(mark),
        // When it was sold is said differently each time.
        sold_at: Timestamp::from_millis(1_583_887_200_000 + received % 7_919),
    };
    Row { sale, received: Timestamp::from_millis(received), verdict }
}

fn arriving() -> impl Strategy<Value = Vec<Row>> {
    let why = prop_oneof![
        3 => Just(Verdict::Pending),
        1 => Just(Verdict::Quarantined(Why::InTheFuture)),
    ];
    let row = (1..5_u8, 1..4_u8, 1_583_900_000_000..1_583_900_009_000_i64, why)
        .prop_map(|(id, mark, received, verdict)| row(id, mark, received, verdict));
    prop::collection::vec(row, 1..6)
}

fn settled() -> impl Strategy<Value = Vec<Row>> {
    let conflict = Conflict { at: Timestamp::from_millis(1_583_884_800_000), quantity: 2, site: site() };
    let verdict = prop::sample::select(vec![
        Verdict::Recorded,
        Verdict::OverQuota(vec![conflict; 2]),
        Verdict::AlreadyRecorded,
        Verdict::AlreadyVoided,
        Verdict::Quarantined(Why::EnteredDifferently),
    ]);
    let row = (1..5_u8, 1..4_u8, verdict)
        .prop_map(|(id, mark, verdict)| row(id, mark, 1_583_900_009_000 + i64::from(id), verdict));
    prop::collection::vec(row, 1..4)
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => arriving().prop_map(Act::Arrive),
        4 => settled().prop_map(Act::Settle),
        1 => Just(Act::End),
    ];
    prop::collection::vec(act, 1..25)
}

/// A book does what the model does, whatever is done to it. `again` begins it anew on what it has.
async fn follows<B: Book>(acts: Vec<Act>, mut book: B, mut again: impl FnMut(B) -> B) {
    let mut model = Model::default();
    for act in &acts {
        match act {
            Act::Arrive(rows) => {
                let expected: Vec<Arrived> = rows.iter().map(|row| model.arrive(row)).collect();
                assert_eq!(book.arrive(site(), rows.clone()).await, Ok(expected), "{acts:?}");
            }
            Act::Settle(rows) => {
                rows.iter().for_each(|row| model.settle(row));
                book.settle(site(), rows.clone()).await.unwrap();
            }
            Act::End => book = again(book),
        }
        assert_eq!(sorted(book.read(site()).await.unwrap()), model.rows(), "{acts:?}");
        let other = "12000001".parse().unwrap();
        assert_eq!(book.read(other).await, Ok(Vec::new()), "books of two sites do not meet");
    }
}

fn histories(count: u32) -> Vec<Vec<Act>> {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    (0..count).map(|_| acts().new_tree(&mut runner).unwrap().current()).collect()
}

#[tokio::test]
async fn embedded_book_follows_the_model() {
    let dir = tempfile::tempdir().unwrap();
    for (nth, acts) in histories(60).into_iter().enumerate() {
        let path = dir.path().join(format!("{nth}.redb"));
        let again = |book| {
            drop(book);
            EmbeddedBook::open(&path).unwrap()
        };
        follows(acts, EmbeddedBook::open(&path).unwrap(), again).await;
    }
}

#[tokio::test]
async fn redis_book_follows_the_model() {
    for acts in histories(60) {
        let server = std::cell::RefCell::new(RedisServer::start());
        let over = |url: &str| RedisBook::new(RedisPool::new(url, 1).unwrap().for_key(JOURNAL_TAG, 4).unwrap(), false);
        let again = |_| {
            let mut server = server.borrow_mut();
            server.kill();
            server.restart();
            over(&server.url())
        };
        let book = over(&server.borrow().url());
        follows(acts, book, again).await;
    }
}

/// As many rows as a book has, and one more.
#[tokio::test]
async fn a_full_book_says_so_and_takes_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let server = RedisServer::start();
    let embedded = EmbeddedBook::open(&dir.path().join("journal.redb")).unwrap();
    fills(embedded).await;
    fills(RedisBook::new(RedisPool::new(&server.url(), 1).unwrap().for_key(JOURNAL_TAG, 4).unwrap(), false)).await;
}

async fn fills<B: Book>(book: B) {
    let of = |number: usize| {
        let request = RequestId::from_bytes((number as u128 + 1).to_be_bytes()).unwrap();
        let like = row(1, 1, 1_583_900_000_000, Verdict::Pending);
        Row { sale: Sale { request, ..like.sale }, ..like }
    };
    let most = rationd::journal::ROWS_OF_A_SITE;
    for begin in (0..most).step_by(1_000) {
        let arrived = book.arrive(site(), (begin..begin + 1_000).map(of).collect()).await.unwrap();
        assert!(arrived.iter().all(|arrived| *arrived == Arrived::First));
    }
    let differently = Row { sale: Sale { mark: [2; 8], ..of(3).sale }, ..of(3) };
    let arrived = book.arrive(site(), vec![of(0), of(most), differently]).await;
    assert_eq!(arrived, Ok(vec![Arrived::Again(Said::Pending), Arrived::Full, Arrived::Full]));
    let other = "12000001".parse().unwrap();
    assert_eq!(book.arrive(other, vec![of(most)]).await, Ok(vec![Arrived::First]), "another's book has room");
    assert_eq!(book.read(site()).await.unwrap().len(), most);
}

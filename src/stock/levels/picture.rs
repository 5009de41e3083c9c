//! A picture of the levels: bytes from which the fold goes on as if it had never stopped.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | [`VERSION`] |
//! | 32 | SHA-256 of [`OURS`], the version and what follows |
//! | the rest | a [`Picture`] in postcard, deflated |
//!
//! The sum is looked at before anything else is believed. Whoever changes a rule of the fold, or a form here, takes the next
//! version: an older picture is then none, and everything is read anew.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{ProgrammeCode, RequestId, SiteId};
use crate::ledger::outbox::Cursor;
use crate::time::Timestamp;

use super::super::{Key, Place};
use super::silence::Heard;
use super::{Count, Levels, Movement, Pause, Promise, Settled, Stock};

const VERSION: u8 = 1;

/// No bytes of another kind have our sum.
const OURS: &[u8] = b"rationd picture of levels";

/// The longest picture that is read. That of a nation's sites with two hours of sales is a hundredth of it.
const MOST_BYTES: usize = 1 << 28;

/// How much room is made at a time while nobody knows how much is needed.
const STEP_BYTES: usize = 1 << 16;

/// A [`Place`].
type Numbers = (u64, u64);

/// A [`Timestamp`] in milliseconds.
type Millis = i64;

#[derive(Serialize, Deserialize)]
struct Picture {
    events: Vec<u8>,
    reports: Numbers,
    missed_until: Option<Millis>,
    settled: Option<Millis>,
    stocks: Vec<OfStock>,
}

#[derive(Serialize, Deserialize)]
struct OfStock {
    programme: ProgrammeCode,
    site: SiteId,
    count: Option<(Millis, Numbers, u32)>,
    pause: Option<(Millis, Numbers, bool)>,
    delivered_at: Option<Millis>,
    sold_at: Option<Millis>,
    moved: i64,
    /// How much later than the one before it, and units: small numbers are short.
    movements: Vec<(Millis, i64)>,
    promises: Vec<(RequestId, Millis, u32)>,
    /// Like the movements.
    sounds: Vec<Millis>,
    heard: (Option<Millis>, i64, Option<Millis>),
}

pub(super) fn write(levels: &Levels, events: &Cursor, reports: Place) -> Vec<u8> {
    let picture = Picture {
        events: events.to_bytes(),
        reports: numbers(reports),
        missed_until: levels.missed_until.map(Timestamp::as_millis),
        settled: levels.settled.0.map(Timestamp::as_millis),
        stocks: levels.stocks.iter().map(|(key, stock)| of_stock(*key, stock)).collect(),
    };
    // Nothing in it is refused: its lists know their lengths. Were it otherwise, no bytes are no picture.
    postcard::to_stdvec(&picture).map(|plain| seal(&plain)).unwrap_or_default()
}

/// `None`: it is no picture, or not a whole one.
pub(super) fn read(bytes: &[u8]) -> Option<(Levels, Cursor, Place)> {
    let plain = unseal(bytes, MOST_BYTES)?;
    let (picture, []) = postcard::take_from_bytes::<Picture>(&plain).ok()? else { return None };
    let levels = Levels {
        stocks: picture.stocks.into_iter().map(stock).collect::<Option<_>>()?,
        missed_until: picture.missed_until.map(Timestamp::from_millis),
        settled: Settled(picture.settled.map(Timestamp::from_millis)),
    };
    Some((levels, Cursor::from_bytes(&picture.events).ok()?, place(picture.reports)))
}

fn of_stock(key: Key, stock: &Stock) -> OfStock {
    let Key { programme, site } = key;
    let Stock { count, pause, delivered_at, sold_at, moved, movements, promises, sounds, heard } = stock;
    let (last, habit_ms, gap_ended) = heard.parts();
    let instants = movements.iter().map(|movement| movement.at);
    OfStock {
        programme,
        site,
        count: count.map(|count| (count.at.as_millis(), numbers(count.place), count.units)),
        pause: pause.map(|pause| (pause.at.as_millis(), numbers(pause.place), pause.is_paused)),
        delivered_at: delivered_at.map(Timestamp::as_millis),
        sold_at: sold_at.map(Timestamp::as_millis),
        moved: *moved,
        movements: steps(instants).zip(movements.iter().map(|movement| movement.units)).collect(),
        promises: promises.iter().map(|(id, promise)| (*id, promise.until.as_millis(), promise.units)).collect(),
        sounds: steps(sounds.iter().copied()).collect(),
        heard: (last.map(Timestamp::as_millis), habit_ms, gap_ended.map(Timestamp::as_millis)),
    }
}

fn stock(of: OfStock) -> Option<(Key, Stock)> {
    let (last, habit_ms, gap_ended) = of.heard;
    let (later, units): (Vec<Millis>, Vec<i64>) = of.movements.into_iter().unzip();
    let promise = |(id, until, units)| (id, Promise { until: Timestamp::from_millis(until), units });
    let stock = Stock {
        count: of.count.map(|(at, numbers, units)| Count {
            at: Timestamp::from_millis(at),
            place: place(numbers),
            units,
        }),
        pause: of.pause.map(|(at, numbers, is_paused)| Pause {
            at: Timestamp::from_millis(at),
            place: place(numbers),
            is_paused,
        }),
        delivered_at: of.delivered_at.map(Timestamp::from_millis),
        sold_at: of.sold_at.map(Timestamp::from_millis),
        moved: of.moved,
        movements: instants(later).zip(units).map(|(at, units)| Movement { at, units }).collect(),
        promises: of.promises.into_iter().map(promise).collect(),
        sounds: instants(of.sounds).collect(),
        heard: Heard::from_parts(last.map(Timestamp::from_millis), habit_ms, gap_ended.map(Timestamp::from_millis))?,
    };
    Some((Key { programme: of.programme, site: of.site }, stock))
}

fn numbers(place: Place) -> Numbers {
    (place.high, place.low)
}

fn place((high, low): Numbers) -> Place {
    Place { high, low }
}

/// How much later each is than the one before it, the first than 1970.
fn steps(instants: impl Iterator<Item = Timestamp>) -> impl Iterator<Item = Millis> {
    instants
        .map(Timestamp::as_millis)
        .scan(0, |before: &mut Millis, at| Some(at.wrapping_sub(std::mem::replace(before, at))))
}

/// What [`steps`] were made of.
fn instants(steps: Vec<Millis>) -> impl Iterator<Item = Timestamp> {
    steps.into_iter().scan(0, |at: &mut Millis, step| {
        *at = at.wrapping_add(step);
        Some(Timestamp::from_millis(*at))
    })
}

pub(super) fn seal(plain: &[u8]) -> Vec<u8> {
    let packed = deflate(plain);
    [&[VERSION], sum(VERSION, &packed).as_slice(), &packed].concat()
}

pub(super) fn unseal(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let (&[VERSION], rest) = bytes.split_first_chunk::<1>()? else { return None };
    let (found, packed) = rest.split_first_chunk::<32>()?;
    if *found == sum(VERSION, packed) { inflate(packed, most) } else { None }
}

fn sum(version: u8, packed: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(OURS).chain_update([version]).chain_update(packed).finalize().into()
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut deflater = Compress::new(Compression::fast(), false);
    let mut packed = Vec::new();
    loop {
        packed.reserve(STEP_BYTES);
        let rest = plain.get(read_by(deflater.total_in())..).unwrap_or_default();
        match deflater.compress_vec(rest, &mut packed, FlushCompress::Finish) {
            Ok(Status::Ok | Status::BufError) => {}
            // It fails on nothing but a wrong use of it.
            Ok(Status::StreamEnd) | Err(_) => return packed,
        }
    }
}

/// `None`: this is not all of something that was deflated and nothing else, or it was larger than `most`.
fn inflate(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut inflater = Decompress::new(false);
    let mut plain = Vec::new();
    loop {
        plain.reserve(STEP_BYTES);
        let before = (inflater.total_in(), plain.len());
        let rest = packed.get(read_by(inflater.total_in())..)?;
        let status = inflater.decompress_vec(rest, &mut plain, FlushDecompress::None).ok()?;
        let now = (inflater.total_in(), plain.len());
        match status {
            _ if plain.len() > most => return None,
            Status::StreamEnd => return (read_by(inflater.total_in()) == packed.len()).then_some(plain),
            // There is room, and nothing comes: the end is missing.
            Status::Ok | Status::BufError if now == before => return None,
            Status::Ok | Status::BufError => {}
        }
    }
}

fn read_by(total: u64) -> usize {
    usize::try_from(total).unwrap_or(usize::MAX)
}

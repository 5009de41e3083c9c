//! The frames of a peer, counted by what they cost and bring.
//!
//! Only the nine bytes before each frame are looked at, in whatever pieces they come. Pure but for the clock that it is given.

use tokio::time::Instant;

use crate::grpc::limits::{FRAME, IDLE_FRAMES, IDLE_FRAMES_EARNED, RESETS, Rate, TINY};
use crate::telemetry::metrics::CutWhy;

/// What every HTTP/2 connection begins with. A server hears nothing before it has it, also not that it should stop.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What stands before every frame: three bytes of length, the type, the flags, and the stream.
const HEAD: usize = 9;

/// Types of frames that are no idle ones, or not always.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
/// Of a frame of data: it ends its stream.
const END_STREAM: u8 = 1;
/// Of a frame of data: some of it is there to be thrown away.
const PADDED: u8 = 8;

/// What is left of a rate.
pub(in crate::grpc) struct Allowance {
    rate: Rate,
    left: u32,
    filled: Instant,
}

impl Allowance {
    pub(in crate::grpc) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.at_once, filled: now }
    }

    /// Takes one, if there is one.
    pub(in crate::grpc) fn take(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let now = now();
        let back = (now - self.filled).as_secs_f64() * f64::from(self.rate.per_second);
        // Less than one is not lost but grows on. The cast saturates.
        if back >= 1.0 {
            self.earn(back as u32);
            self.filled = now;
        }
        let one = self.left.checked_sub(1);
        self.left = one.unwrap_or_default();
        one.is_some()
    }

    /// Whether half of it was taken and has not come back.
    fn is_half_spent(&self, now: Instant) -> bool {
        let back = (now - self.filled).as_secs_f64() * f64::from(self.rate.per_second);
        f64::from(self.left) + back < f64::from(self.rate.at_once) / 2.0
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.rate.at_once);
    }
}

/// Where in a connection's bytes its peer is.
enum At {
    /// So far in the preface.
    Preface(usize),
    /// In the head of a frame, of which so much is there.
    Head([u8; HEAD], usize),
    /// So much of a frame's content is still to come.
    Content(u32),
    /// Nothing that is looked at: it is not HTTP/2.
    Elsewhere,
}

/// Counts the frames of a peer.
pub(in crate::grpc) struct Frames {
    at: At,
    resets: Allowance,
    idle: Allowance,
    /// So many bytes of answers since they earned something last.
    answered: u32,
}

impl Frames {
    pub(in crate::grpc) fn new(now: Instant) -> Self {
        let (resets, idle) = (Allowance::new(RESETS, now), Allowance::new(IDLE_FRAMES, now));
        Self { at: At::Preface(0), resets, idle, answered: 0 }
    }

    /// Takes note of answers that were written: who takes them opens windows, and may have asked only once.
    pub(super) fn answered(&mut self, bytes: usize) {
        let answered = self.answered.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.idle.earn((answered / FRAME).saturating_mul(IDLE_FRAMES_EARNED));
        self.answered = answered % FRAME;
    }

    /// Whether half of what it may overdo at once was taken, and has not come back.
    pub(in crate::grpc) fn are_half_spent(&self, now: Instant) -> bool {
        self.resets.is_half_spent(now) || self.idle.is_half_spent(now)
    }

    /// Takes note of what was read.
    pub(in crate::grpc) fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), CutWhy> {
        while let Some((&next, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Preface(so_far) => {
                    self.at = match PREFACE.get(*so_far) {
                        Some(&expected) if expected != next => At::Elsewhere,
                        _ if *so_far + 1 == PREFACE.len() => At::Head([0; HEAD], 0),
                        _ => At::Preface(*so_far + 1),
                    };
                    bytes = rest;
                }
                At::Head(head, so_far) => {
                    if let Some(byte) = head.get_mut(*so_far) {
                        *byte = next;
                    }
                    *so_far += 1;
                    bytes = rest;
                    if *so_far == HEAD {
                        let [a, b, c, kind, flags, ..] = *head;
                        let length = u32::from_be_bytes([0, a, b, c]);
                        self.at = if length == 0 { At::Head([0; HEAD], 0) } else { At::Content(length) };
                        self.begins(kind, flags, length, &now)?;
                    }
                }
                At::Content(missing) => {
                    let here = bytes.len().min(usize::try_from(*missing).unwrap_or(usize::MAX));
                    bytes = bytes.get(here..).unwrap_or_default();
                    *missing = missing.saturating_sub(u32::try_from(here).unwrap_or(u32::MAX));
                    if *missing == 0 {
                        self.at = At::Head([0; HEAD], 0);
                    }
                }
                At::Elsewhere => return Ok(()),
            }
        }
        Ok(())
    }

    fn begins(&mut self, kind: u8, flags: u8, length: u32, now: impl Fn() -> Instant) -> Result<(), CutWhy> {
        let within = match kind {
            HEADERS => {
                self.idle.earn(IDLE_FRAMES_EARNED);
                true
            }
            DATA if length >= TINY && flags & PADDED == 0 => {
                self.idle.earn(IDLE_FRAMES_EARNED);
                true
            }
            DATA if flags & END_STREAM != 0 => true,
            RST_STREAM => return if self.resets.take(now) { Ok(()) } else { Err(CutWhy::Resets) },
            _ => self.idle.take(now),
        };
        if within { Ok(()) } else { Err(CutWhy::IdleFrames) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PING: u8 = 6;
    const UNKNOWN: u8 = 0xfa;

    fn frame(kind: u8, flags: u8, content: usize) -> Vec<u8> {
        let length = u32::try_from(content).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &vec![0; content]].concat()
    }

    /// How many of these frames are let through at once, in pieces of so many bytes.
    fn let_through(frame: &[u8], piece: usize, at_most: u32) -> Result<(), (u32, CutWhy)> {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        frames.read(PREFACE, || now).unwrap();
        for nth in 0..at_most {
            for piece in frame.chunks(piece) {
                frames.read(piece, || now).map_err(|why| (nth, why))?;
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn frames_that_bring_nothing_are_counted_and_work_is_not() {
        let idle = Err((IDLE_FRAMES.at_once, CutWhy::IdleFrames));
        for piece in [1, 2, 7, 9, 10, 1_000] {
            for (kind, content) in
                [(PING, 8), (UNKNOWN, 300), (2, 5), (4, 0), (4, 6), (8, 4), (9, 20), (DATA, 0), (DATA, 15)]
            {
                assert_eq!(
                    let_through(&frame(kind, 0, content), piece, 5_000),
                    idle,
                    "{kind} of {content}, by {piece}"
                );
            }
            assert_eq!(let_through(&frame(DATA, PADDED, 16), piece, 5_000), idle, "padded, by {piece}");
            assert_eq!(let_through(&frame(RST_STREAM, 0, 4), piece, 5_000), Err((RESETS.at_once, CutWhy::Resets)));
            for (kind, flags, content) in
                [(DATA, 0, 16), (DATA, END_STREAM | PADDED, 5), (HEADERS, 4, 90), (DATA, 0, 16_384)]
            {
                assert_eq!(let_through(&frame(kind, flags, content), piece, 5_000), Ok(()));
            }
            // A client that works and measures its line at every answer.
            let work =
                [frame(HEADERS, 4, 90), frame(PING, 0, 8), frame(8, 0, 4), frame(8, 0, 4), frame(PING, 1, 8)].concat();
            assert_eq!(let_through(&work, piece, 5_000), Ok(()));
            // What gives its calls up earns nothing by having begun them.
            let rapid = [frame(HEADERS, 5, 90), frame(RST_STREAM, 0, 4)].concat();
            assert_eq!(let_through(&rapid, piece, 5_000), Err((RESETS.at_once, CutWhy::Resets)));
        }
    }

    /// As a client does with a window of 64 KiB that it opens again by quarters, on the stream and on the connection.
    #[tokio::test]
    async fn who_reads_a_long_answer_may_open_its_windows() {
        let now = Instant::now();
        let opens = [frame(8, 0, 4), frame(8, 0, 4)].concat();
        let mut frames = Frames::new(now);
        frames.read(PREFACE, || now).unwrap();
        for _ in 0..5_000 {
            for piece in [10_000, 6_384] {
                frames.answered(piece);
            }
            assert_eq!(frames.read(&opens, || now), Ok(()));
        }
        let opened = (0..5_000).take_while(|_| frames.read(&opens, || now).is_ok()).count();
        // Two of them are gone already.
        assert_eq!(opened, 499, "and no more than that");
    }

    #[tokio::test]
    async fn what_is_not_http_2_is_not_looked_at() {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        for _ in 0..5_000 {
            assert_eq!(frames.read(b"PRI * HTTP/1.1 and nine bytes", || now), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_allowance_comes_back_and_is_never_more_than_it_was() {
        let begun = Instant::now();
        let rate = Rate { at_once: 10, per_second: 4 };
        let mut allowance = Allowance::new(rate, begun);
        let mut taken_at = |millis: u64| {
            let now = begun + Duration::from_millis(millis);
            (0..100).take_while(|_| allowance.take(|| now)).count()
        };
        let taken: Vec<_> = [0, 100, 200, 500, 1_500, 60_000, 60_100].into_iter().map(&mut taken_at).collect();
        assert_eq!(taken, [10, 0, 0, 2, 4, 10, 0]);
        allowance.earn(3);
        assert_eq!((0..100).take_while(|_| allowance.take(|| begun + Duration::from_secs(60))).count(), 3);
        allowance.earn(300);
        assert_eq!(allowance.left, 10);
        let now = begun + Duration::from_secs(120);
        let half = (0..6).map(|_| (allowance.take(|| now), allowance.is_half_spent(now)));
        assert_eq!(half.map(|(_, half)| half).collect::<Vec<_>>(), [false, false, false, false, false, true]);
        assert!(!allowance.is_half_spent(now + Duration::from_millis(250)));
    }
}

//! What a peer does on its connection, beyond what HTTP/2 itself forbids: frames that cost work and bring nothing are counted, and
//! so is the time for which it takes no answers. Who does too much is cut off: the next read or write is an error.
//!
//! Where the socket takes something there is no timer: whoever is there answers pings, and is read then; whoever does not is cut
//! off for that. Where it takes nothing neither is read nor pinged, and a timer runs until it does.
//!
//! Knows nothing about what is called.

mod asked;
mod frames;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

pub(super) use asked::Asked;
pub(super) use frames::{Allowance, Frames};

use super::identity::Peer;
use super::lines::Lines;
use super::returns::Returns;
use crate::museum::Mutant;
use crate::telemetry::metrics::{CutWhy, Metrics};

/// About connections that were cut off.
static CUT_OFF: LazyLock<Lines> = LazyLock::new(Lines::new);

/// What all that is read and answered on a connection shares: who is watched, and the answers that wait to be taken.
pub(super) struct Watch {
    pub(super) peer: Peer,
    from: Option<SocketAddr>,
    /// Where it is held against whoever it is.
    returns: Arc<Returns>,
    metrics: Arc<Metrics>,
    /// How long none may be taken while some wait.
    patience: Duration,
    begun: Instant,
    waiting: AtomicU32,
    /// When one was taken last, or was the first to wait: in milliseconds since the beginning.
    moved: AtomicU64,
}

impl Watch {
    pub(super) fn new(
        (peer, from): (Peer, Option<SocketAddr>),
        returns: Arc<Returns>,
        patience: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (waiting, moved) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { peer, from, returns, metrics, patience, begun: Instant::now(), waiting, moved }
    }

    /// Says that the connection is cut off, and why. Who only says nothing is counted and not logged: probes do that.
    pub(super) fn cut(&self, why: CutWhy) {
        self.metrics.connection_cut(why);
        if !matches!(why, CutWhy::Silent | CutWhy::NothingAsked) {
            CUT_OFF.say(|left_out| {
                let from = self.from.map(tracing::field::display);
                tracing::warn!(peer = %self.peer, from, why = why.name(), left_out, "a connection was cut off");
            });
        }
    }

    /// Whoever it is comes back slowly. Not for what a bad line does: to take nothing takes seconds each time.
    pub(super) fn misbehaved(&self) {
        self.returns.cut_off(self.peer, Instant::now());
    }

    fn waits(&self) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.moves();
        }
    }

    fn taken(&self) {
        if self.waiting.fetch_sub(1, Ordering::Relaxed) > 1 {
            self.moves();
        }
    }

    fn moves(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// Whether answers wait, and none was taken for too long.
    fn is_stuck(&self) -> bool {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.waiting.load(Ordering::Relaxed) > 0 && self.begun.elapsed().saturating_sub(moved) > self.patience
    }
}

/// An answer. A part of it that was given waits until the next is asked for, which is when there was room for it.
pub(super) struct Answer<B> {
    body: B,
    watch: Arc<Watch>,
    waits: bool,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, watch: Arc<Watch>) -> Self {
        Self { body, watch, waits: false }
    }

    fn taken(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.watch.taken();
        }
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.taken();
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let answer = self.get_mut();
        answer.taken();
        let frame = Pin::new(&mut answer.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(_))) = frame {
            answer.waits = true;
            answer.watch.waits();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose peer is watched.
pub(super) struct Guarded<S> {
    socket: S,
    frames: Frames,
    watch: Arc<Watch>,
    /// There while nothing can be written; runs out when it is waited for no longer.
    blocked: Option<Pin<Box<Sleep>>>,
    /// So many bytes of the peer are missing until somebody is told that it speaks.
    first_words: Option<(usize, oneshot::Sender<()>)>,
}

impl<S> Guarded<S> {
    /// Tells once that the peer has said as much as an HTTP/2 connection begins with.
    pub(super) fn new(socket: S, watch: Arc<Watch>, speaks: oneshot::Sender<()>) -> Self {
        let frames = Frames::new(Instant::now());
        Self { socket, frames, watch, blocked: None, first_words: Some((frames::PREFACE.len(), speaks)) }
    }

    /// Looks at what was read.
    fn look_at(&mut self, read: &[u8]) -> Result<(), CutWhy> {
        if let Some((missing, told)) = self.first_words.take() {
            match missing.saturating_sub(read.len()) {
                // Nobody may wait for it any more.
                0 => drop(told.send(())),
                missing => self.first_words = Some((missing, told)),
            }
        }
        if Mutant::FramesNotCounted.is_on() {
            return Ok(());
        }
        if self.watch.is_stuck() {
            return Err(CutWhy::TakesNothing);
        }
        self.frames.read(read, Instant::now)
    }

    /// Looks at what became of a write. What TLS keeps for a while counts as taken: it keeps little.
    fn wrote<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() || Mutant::FramesNotCounted.is_on() {
            self.blocked = None;
            return written;
        }
        let patience = self.watch.patience;
        let no_longer = self.blocked.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(no_longer.as_mut().poll(context));
        self.watch.cut(CutWhy::TakesNothing);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, CutWhy::TakesNothing.name())))
    }

    /// The same where it says how much was written: answers are taken by whoever works.
    fn wrote_some(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.answered(bytes);
        }
        self.wrote(written, context)
    }
}

/// Whoever was cut off for what it overdid, and whoever hangs up just before: it would otherwise come back as often as it likes.
impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        if self.frames.are_half_spent(Instant::now()) {
            self.watch.misbehaved();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guarded = self.get_mut();
        let before = into.filled().len();
        let read = Pin::new(&mut guarded.socket).poll_read(context, into);
        match guarded.look_at(into.filled().get(before..).unwrap_or_default()) {
            Ok(()) => read,
            Err(why) => {
                guarded.watch.cut(why);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why.name())))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let guarded = self.get_mut();
        let written = Pin::new(&mut guarded.socket).poll_write(context, bytes);
        guarded.wrote_some(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guarded = self.get_mut();
        let written = Pin::new(&mut guarded.socket).poll_write_vectored(context, parts);
        guarded.wrote_some(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guarded = self.get_mut();
        let written = Pin::new(&mut guarded.socket).poll_flush(context);
        guarded.wrote(written, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guarded = self.get_mut();
        let closed = Pin::new(&mut guarded.socket).poll_shutdown(context);
        guarded.wrote(closed, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn watch() -> Arc<Watch> {
        Arc::new(Watch::new((Peer::Clear, None), Arc::default(), Duration::from_secs(5), Arc::new(Metrics::none())))
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_takes_end_the_connection_and_slow_takers_do_not() {
        let watch = watch();
        let second = || tokio::time::sleep(Duration::from_secs(1));
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let mut answers: Vec<_> =
            ["one", "two"].map(|text| Answer::new(String::from(text), watch.clone())).into_iter().collect();
        for answer in &mut answers {
            assert!(Pin::new(answer).poll_frame(context).is_ready());
        }
        // One of them goes on, seldom but again and again.
        for _ in 0..4 {
            for _ in 0..4 {
                second().await;
                assert!(!watch.is_stuck());
            }
            watch.waits();
            watch.taken();
        }
        for _ in 0..6 {
            second().await;
        }
        assert!(watch.is_stuck());
        // Taken, or given up: both are no burden any more.
        assert!(matches!(Pin::new(&mut answers[0]).poll_frame(context), Poll::Ready(None)));
        drop(answers);
        assert!(!watch.is_stuck());
    }

    #[tokio::test]
    async fn the_first_words_are_told_once_they_are_complete() {
        let (told, mut heard) = oneshot::channel();
        let mut guarded = Guarded::new(&frames::PREFACE[..], watch(), told);
        guarded.read_exact(&mut [0; 23]).await.unwrap();
        assert!(heard.try_recv().is_err());
        guarded.read_exact(&mut [0; 1]).await.unwrap();
        assert!(heard.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_cut_off_although_nobody_hears_from_it() {
        let (socket, mut peer) = tokio::io::duplex(64);
        let mut guarded = Guarded::new(socket, watch(), oneshot::channel().0);
        let begun = Instant::now();
        // One that reads now and then is no such peer.
        let reads = tokio::spawn(async move {
            for _ in 0..5 {
                sleep(Duration::from_secs(4)).await;
                peer.read_exact(&mut [0; 48]).await.unwrap();
            }
            peer
        });
        let error = loop {
            if let Err(error) = guarded.write_all(&[0; 48]).await {
                break error;
            }
        };
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 25));
        drop(reads.await.unwrap());
    }
}

//! A socket that writes once for many answers, when what they tell of is on record.
//!
//! Answers that a lane brings together become ready one after the other, and each one wakes the task of its connection at
//! once, before the next is ready: without this every answer would be a write of its own, which costs more than the rest
//! of the answer. So what is flushed waits until the tasks that are ready now have run, twice over, and then leaves in one
//! piece. There is no timer: where nothing else is to be done it leaves at once.
//!
//! Where there is an audit log, it leaves when the log has written everything that was told until then. Each call has told before its
//! answer came here, so one look stands for all of them.
//!
//! It is closed as TCP wants it: what the peer still sends is read and thrown away until the peer has closed too. A socket
//! that is closed before its peer has stopped sending breaks the peer's next write, and with it a client that has not read
//! its last answers yet.
//!
//! It stands above TLS where there is TLS: what leaves together is encrypted together, in as few records as hold it.
//!
//! Knows nothing about what is written, or through what.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

use crate::audit::Trail;

/// What may wait to be written. Beyond it the connection waits for its peer to read, as it would without this.
const MOST_BYTES: usize = 64 * 1024;

/// How often a flush lets go first what is ready. Once would do with one thread; with more, this one has nothing ready while
/// another is in the midst of the answers that came together.
const TURNS: u8 = 2;

/// How long a peer that was told of the end may take to close: some round trips of the worst line.
const PEER_CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// How much of what it still sends meanwhile is thrown away, before it is thought to send for the sake of sending: several times
/// what any client may send that has not heard of the end.
const THROWN_AWAY: usize = 1024 * 1024;

/// See the module.
pub(super) struct Corked<S> {
    socket: S,
    trail: Trail,
    /// What was written here and not yet to the socket, from `sent` on. It takes no memory while there is nothing.
    waiting: Vec<u8>,
    sent: usize,
    /// Up to where it may leave.
    free: usize,
    /// There while what was written up to some place waits to be on record.
    held: Option<(usize, BoxFuture<'static, ()>)>,
    /// There while a flush waits for its turn.
    turn: Option<Arc<Turn>>,
    /// How many it has had.
    turns: u8,
    /// There once the peer has been told that nothing more comes; runs out when it is waited for no longer.
    closing: Option<Pin<Box<Sleep>>>,
    /// How much it has sent since.
    thrown_away: usize,
}

/// Comes when the tasks that were ready before it have run.
#[derive(Default)]
struct Turn {
    has_come: AtomicBool,
    connection: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Ordering::Release);
        self.connection.wake();
    }
}

impl Turn {
    /// Takes its place behind all that is ready now.
    fn behind_what_is_ready() -> Arc<Self> {
        let turn = Arc::<Self>::default();
        let waker = Waker::from(Arc::clone(&turn));
        // Polled once, it has left the waker to be woken then; who waits for it is the flush and not this future.
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        turn
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.connection.register(context.waker());
        if self.has_come.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Corked<S> {
    pub(super) fn new(socket: S, trail: Trail) -> Self {
        Self {
            socket,
            trail,
            waiting: Vec::new(),
            sent: 0,
            free: 0,
            held: None,
            turn: None,
            turns: 0,
            closing: None,
            thrown_away: 0,
        }
    }

    /// Writes everything that waits to the socket.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            ready!(self.poll_free(context));
            let rest = self.waiting.get(self.sent..self.free).unwrap_or_default();
            match ready!(Pin::new(&mut self.socket).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        // What is encrypted may still be on its way to the socket.
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        (self.waiting, self.sent, self.free, self.turn, self.turns) = (Vec::new(), 0, 0, None, 0);
        Poll::Ready(Ok(()))
    }

    /// Waits until some of it may leave. What is written meanwhile waits for records of its own.
    fn poll_free(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.sent < self.free {
            return Poll::Ready(());
        }
        let held = self.held.take().or_else(|| Some((self.waiting.len(), self.trail.unwritten()?)));
        let Some((upto, mut on_record)) = held else {
            self.free = self.waiting.len();
            return Poll::Ready(());
        };
        if on_record.as_mut().poll(context).is_pending() {
            self.held = Some((upto, on_record));
            return Poll::Pending;
        }
        self.free = upto;
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let corked = self.get_mut();
        if corked.waiting.len() >= MOST_BYTES {
            ready!(corked.poll_out(context))?;
        }
        for part in parts {
            corked.waiting.extend_from_slice(part);
        }
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let corked = self.get_mut();
        if corked.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while corked.turns < TURNS {
            ready!(corked.turn.get_or_insert_with(Turn::behind_what_is_ready).poll(context));
            (corked.turn, corked.turns) = (None, corked.turns + 1);
        }
        corked.poll_out(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let corked = self.get_mut();
        ready!(corked.poll_out(context))?;
        if corked.closing.is_none() {
            ready!(Pin::new(&mut corked.socket).poll_shutdown(context))?;
        }
        let time_up = corked.closing.get_or_insert_with(|| Box::pin(sleep(PEER_CLOSES_WITHIN)));
        if time_up.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut space = [0; 4096];
        while corked.thrown_away < THROWN_AWAY {
            let mut into = ReadBuf::new(&mut space);
            // A peer that has broken off has closed as well as one that says so.
            if ready!(Pin::new(&mut corked.socket).poll_read(context, &mut into)).is_err() || into.filled().is_empty() {
                break;
            }
            corked.thrown_away += into.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(context, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Access, Action, FileTrail};
    use crate::time::{ManualClock, Timestamp};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    async fn pair() -> (Corked<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Corked::new(listener.accept().await.unwrap().0, Trail::Log), peer)
    }

    #[tokio::test]
    async fn what_is_flushed_arrives_without_anything_else_happening() {
        let (mut corked, mut peer) = pair().await;
        corked.write_all(b"answer").await.unwrap();
        corked.flush().await.unwrap();
        let mut read = [0; 6];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"answer");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_byte_arrives_once_and_in_order_also_before_a_slow_reader() {
        let (mut corked, mut peer) = pair().await;
        let bytes: Vec<u8> = (0..8_000_000_u32).map(|n| (n / 251) as u8).collect();
        let expected = bytes.clone();
        let writing = tokio::spawn(async move {
            for (nth, part) in bytes.chunks(70_001).enumerate() {
                corked.write_all(part).await.unwrap();
                if nth % 7 == 0 {
                    corked.flush().await.unwrap();
                }
            }
            // What was not flushed leaves before the end of the stream.
            corked.shutdown().await.unwrap();
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let mut read = Vec::new();
        peer.read_to_end(&mut read).await.unwrap();
        writing.await.unwrap();
        assert!(read == expected, "{} bytes of {}", read.len(), expected.len());
    }

    /// With small buffers: what is sent beyond them, somebody must take.
    async fn narrow_pair() -> (Corked<TcpStream>, TcpStream) {
        let (near, far) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
        near.set_recv_buffer_size(16 * 1024).unwrap();
        far.set_send_buffer_size(16 * 1024).unwrap();
        near.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = near.listen(1).unwrap();
        let peer = far.connect(listener.local_addr().unwrap()).await.unwrap();
        (Corked::new(listener.accept().await.unwrap().0, Trail::Log), peer)
    }

    #[tokio::test]
    async fn a_peer_that_still_sends_gets_its_answer_and_can_send_to_its_end() {
        let (mut corked, peer) = narrow_pair().await;
        let (mut read, mut write) = peer.into_split();
        let serving = tokio::spawn(async move {
            corked.write_all(b"the last answer").await.unwrap();
            corked.shutdown().await.unwrap();
        });
        for _ in 0..60 {
            write.write_all(&[7; 16 * 1024]).await.expect("the peer is not cut off while it sends");
        }
        write.shutdown().await.unwrap();
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"the last answer");
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_sends_without_end_is_not_listened_to_without_end() {
        let (mut corked, mut peer) = narrow_pair().await;
        let serving = tokio::spawn(async move { corked.shutdown().await });
        let mut sent = 0;
        while peer.write_all(&[7; 16 * 1024]).await.is_ok() {
            sent += 16 * 1024;
        }
        serving.await.unwrap().unwrap();
        assert!((THROWN_AWAY..2 * THROWN_AWAY).contains(&sent), "{sent} bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_closes_is_not_waited_for() {
        let (mut corked, _peer) = pair().await;
        let begun = tokio::time::Instant::now();
        corked.shutdown().await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), PEER_CLOSES_WITHIN.as_secs());
    }

    #[tokio::test]
    async fn nothing_leaves_before_it_is_on_record() {
        let directory = tempfile::tempdir().unwrap();
        let log = FileTrail::open(directory.path(), ManualClock::new(Timestamp::EPOCH)).unwrap();
        let (trail, (corked, mut peer)) = (Trail::File(log), pair().await);
        let mut corked = Corked { trail: trail.clone(), ..corked };
        let action = Action::Export { programme: "kr-public-mask-2020".parse().unwrap() };
        let access = Access { at: Timestamp::EPOCH, by: "kim".into(), counter: None, action, result: "ENDED" };
        for told in 1..=100 {
            trail.tell([access.clone()]);
            corked.write_all(b"!").await.unwrap();
            corked.flush().await.unwrap();
            assert_eq!(peer.read_u8().await.unwrap(), b'!');
            let log = std::fs::read_to_string(directory.path().join("000000000001-1970-01.log")).unwrap();
            assert_eq!(log.lines().count(), told + 1);
        }
        trail.close().await;
    }

    #[tokio::test]
    async fn what_becomes_ready_together_leaves_together() {
        let (mut corked, peer) = pair().await;
        corked.write_all(b"one").await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut corked).poll_flush(&mut context).is_pending(), "it waits for its turn");
        assert_eq!(peer.try_read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        corked.write_all(b"two").await.unwrap();
        corked.flush().await.unwrap();
        peer.readable().await.unwrap();
        let mut read = [0; 8];
        assert_eq!((peer.try_read(&mut read).unwrap(), &read[..6]), (6, b"onetwo".as_slice()));
    }
}

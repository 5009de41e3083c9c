//! Log lines: for people or as JSON, written by a thread of their own.
//!
//! Whoever logs puts a line into a bounded queue and goes on. When nobody reads standard error the queue fills, further
//! lines are dropped, and the first line that gets through again says how many.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

/// Lines that may wait to be written.
const QUEUE: usize = 4_096;
/// How long [`Lines::flush`] waits for a reader of standard error, first for room in the queue and then for the writer.
const FLUSH_LIMIT: Duration = Duration::from_millis(250);
/// How often it looks whether there is room.
const LOOK: Duration = Duration::from_millis(5);

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The queue of lines to be written; clones share it.
#[derive(Clone)]
pub struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread that writes to `out`, and its own line about loss as JSON if the others are. It ends with the last
    /// clone.
    pub fn to(out: Box<dyn Write + Send>, json: bool) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(&waiting, &count, out, json))?;
        Ok(Self { queue, dropped })
    }

    /// Waits until what was logged so far is written, or for half a second. For the end of the process only.
    pub fn flush(&self) {
        let (written, done) = sync_channel(1);
        let mut waited = Duration::ZERO;
        while waited < FLUSH_LIMIT {
            match self.queue.try_send(Message::Flush(written.clone())) {
                Ok(()) => {
                    let _ = done.recv_timeout(FLUSH_LIMIT);
                    return;
                }
                Err(_) => std::thread::sleep(LOOK),
            }
            waited += LOOK;
        }
    }

    /// Queues a line, or counts it as dropped. Never waits.
    fn push(&self, line: Vec<u8>) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(waiting: &Receiver<Message>, dropped: &AtomicU64, mut out: Box<dyn Write + Send>, json: bool) {
    while let Ok(message) = waiting.recv() {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let said = format!("{lost} log lines were dropped: nobody read them");
            let _ = match json {
                true => writeln!(out, r#"{{"level":"WARN","message":"{said}"}}"#),
                false => writeln!(out, "WARN {said}"),
            };
        }
        match message {
            // A log that cannot be written cannot be reported either.
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(written) => {
                let _ = out.flush();
                let _ = written.send(());
            }
        }
    }
    let _ = out.flush();
}

/// One line being formatted; queued whole when it is dropped.
pub struct Line<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.lines.push(std::mem::take(&mut self.text));
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, text: Vec::new() }
    }
}

/// Whether a line says something new. OpenTelemetry says of every batch anew that it could not be sent, which is said here once
/// (`exporters`); of what it says by itself, only what it has dropped is left.
pub(super) fn is_news(what: &Metadata<'_>) -> bool {
    !what.target().starts_with("opentelemetry") || what.name().contains("Dropp")
}

/// The layer that formats events. Spans are for traces: written into every line they would cost each call more than the
/// line is worth, and a line names its request itself.
pub fn layer<S>(json: bool, lines: Lines) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(false);
    if json { layer.json().flatten_event(true).with_span_list(false).boxed() } else { layer.boxed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// Standard error that nobody reads until the gate opens.
    struct Gated {
        gate: Receiver<()>,
        seen: Sender<Vec<u8>>,
        open: bool,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.open {
                self.open = self.gate.recv().is_ok();
            }
            let _ = self.seen.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_what_was_lost() {
        let (open, gate) = channel();
        let (seen, read) = channel();
        let lines = Lines::to(Box::new(Gated { gate, seen, open: false }), false).unwrap();
        // The first line is stuck in the writer; QUEUE lines wait; the rest is dropped. All of this must return.
        for _ in 0..QUEUE + 100 {
            lines.push(b"x\n".to_vec());
        }
        assert!(lines.dropped.load(Ordering::Relaxed) >= 99);
        open.send(()).unwrap();
        lines.flush();
        lines.push(b"last\n".to_vec());
        lines.flush();
        drop(lines);
        let text: Vec<u8> = read.iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("log lines were dropped"), "{text}");
        assert!(text.ends_with("last\n"));
    }
}

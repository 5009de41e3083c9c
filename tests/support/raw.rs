//! HTTP/2 frame by frame, for peers that behave as no library would.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// Flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A frame as it travels.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a call, packed without any packing.
pub fn headers(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // A literal without indexing and without Huffman.
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The next frame; `None`: there will be none.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Read> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Read { kind, flags, stream: u32::from_be_bytes(id), payload })
}

/// A peer that says what it is told to.
pub struct Raw<S> {
    pub stream: S,
    /// Why it was told to go away, as a code of HTTP/2.
    pub told: Option<u32>,
    pings: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// With the preface and these settings.
    pub async fn begin(mut stream: S, settings: &[u8]) -> Self {
        let said = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
        stream.write_all(&said).await.unwrap();
        Self { stream, told: None, pings: 0 }
    }

    /// Says this and waits until it has been taken note of. `false`: the connection is gone.
    pub async fn says(&mut self, said: &[u8]) -> bool {
        self.pings += 1;
        let mark = self.pings.to_be_bytes();
        let said = [said, &frame(PING, 0, 0, &mark)].concat();
        if self.stream.write_all(&said).await.is_err() {
            return false;
        }
        while let Some(read) = self.next().await {
            if (read.kind, read.flags) == (PING, ACK) && read.payload == mark {
                return true;
            }
        }
        false
    }

    /// The next frame; pings are answered meanwhile, so that it counts as alive.
    pub async fn next(&mut self) -> Option<Read> {
        let next = read(&mut self.stream).await?;
        match (next.kind, next.flags) {
            (PING, 0) => drop(self.stream.write_all(&frame(PING, ACK, 0, &next.payload)).await),
            // Which stream was the last, and why.
            (GOAWAY, _) => self.told = Some(u32::from_be_bytes(next.payload[4..8].try_into().unwrap())),
            _ => {}
        }
        Some(next)
    }

    /// Answers pings for so long. `false`: the connection is gone.
    pub async fn lives_for(&mut self, span: Duration) -> bool {
        timeout(span, async { while self.next().await.is_some() {} }).await.is_err()
    }
}

/// A connection that has asked for health and will never take the answer: its window is 0 and stays so.
pub struct StuckReader<S>(Raw<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> StuckReader<S> {
    pub async fn begin(stream: S) -> Self {
        // SETTINGS_INITIAL_WINDOW_SIZE = 0
        let mut raw = Raw::begin(stream, &[0, 4, 0, 0, 0, 0]).await;
        let asked = frame(HEADERS, END_HEADERS, 1, &headers(HEALTH));
        // An empty message.
        raw.stream.write_all(&[asked, frame(DATA, END_STREAM, 1, &[0; 5])].concat()).await.unwrap();
        Self(raw)
    }

    /// Answers pings, so that it counts as alive, until it is cut off. Says whether it was told to go away before.
    pub async fn told_to_go(mut self) -> bool {
        while self.0.next().await.is_some() {}
        self.0.told == Some(0)
    }
}

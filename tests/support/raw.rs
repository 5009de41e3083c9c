//! HTTP/2 frame by frame, for peers that behave as no library would.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// Flags.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame as it travels.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection that has asked for health and will never take the answer: its window is 0 and stays so.
pub struct StuckReader<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> StuckReader<S> {
    pub async fn begin(mut stream: S) -> Self {
        let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE = 0
        said.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
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
        said.extend(frame(HEADERS, END_HEADERS, 1, &block));
        // An empty message.
        said.extend(frame(DATA, END_STREAM, 1, &[0; 5]));
        stream.write_all(&said).await.unwrap();
        Self(stream)
    }

    /// Answers pings, so that it counts as alive, until it is cut off. Says whether it was told to go away before.
    pub async fn told_to_go(mut self) -> bool {
        let mut told = false;
        let mut head = [0; 9];
        while self.0.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if self.0.read_exact(&mut payload).await.is_err() {
                break;
            }
            match (head[3], head[4]) {
                (PING, 0) => drop(self.0.write_all(&frame(PING, ACK, 0, &payload)).await),
                // The last eight bytes of the fixed part: which stream was the last, and why. Why: no error.
                (GOAWAY, _) => told |= payload[4..8] == [0; 4],
                _ => {}
            }
        }
        told
    }
}

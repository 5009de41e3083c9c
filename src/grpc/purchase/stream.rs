//! One stream of calls: many under way at once, each answered by itself.
//!
//! Room for its answer is taken before a request is read. So a stream never has more than [`PENDING`] requests under way or
//! answered and not taken, whatever the client does, and while it has so many nothing more is read: HTTP/2 tells the client to
//! wait. Every stream has the same bound, which is what makes them fair to each other.
//!
//! Knows nothing about what a call asks for.

use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::grpc::convert;
use crate::grpc::status::{self, Fault};
use crate::grpc::v1::{PurchaseResult, PurchaseStreamRequest, PurchaseStreamResponse};

/// The most requests of a stream that are under way, or answered and not taken by the client yet.
pub(super) const PENDING: usize = 256;

/// One message to the client; an error ends the stream.
type Answer = Result<PurchaseStreamResponse, Status>;

/// Answers requests by `work` until there are no more, the client has gone or `stop` is cancelled. Whatever was read is worked
/// on to its end. All of it is one task: several answers that become ready together leave in one frame.
pub(super) async fn answer_all<F>(
    mut requests: impl Stream<Item = Result<PurchaseStreamRequest, Status>> + Unpin,
    answers: &mpsc::Sender<Answer>,
    stop: &CancellationToken,
    work: impl Fn(PurchaseStreamRequest) -> F,
) where
    F: Future<Output = Result<Vec<PurchaseResult>, Fault>>,
{
    let mut under_way = FuturesUnordered::new();
    let mut stop = pin!(stop.cancelled());
    let mut room = None;
    let broken_off = loop {
        let read = async {
            if room.is_none() {
                room = answers.reserve().await.ok();
            }
            // No room without anybody who could take an answer.
            if room.is_some() { requests.next().await } else { None }
        };
        let read = tokio::select! {
            biased;
            () = &mut stop => break None,
            Some(()) = under_way.next() => continue,
            read = read => read,
        };
        match (read, room.take()) {
            (Some(Ok(request)), Some(room)) => {
                let call_id = request.call_id;
                let work = AssertUnwindSafe(work(request)).catch_unwind();
                // Combined and not awaited within another block, which would keep the work's own space twice.
                under_way.push(work.map(move |outcome| room.send(Ok(answer(call_id, outcome)))));
            }
            (Some(Err(unread)), Some(room)) => break Some((unread, room)),
            _ => break None,
        }
    };
    while under_way.next().await.is_some() {}
    if let Some((unread, room)) = broken_off {
        room.send(Err(status::unreadable(&unread).into()));
    }
}

/// The answer to one call, whatever became of the work on it: a panic is this call's alone.
fn answer(call_id: u64, outcome: std::thread::Result<Result<Vec<PurchaseResult>, Fault>>) -> PurchaseStreamResponse {
    match outcome.unwrap_or_else(|_| Err(status::broken())) {
        Ok(results) => PurchaseStreamResponse { call_id, results, failure: None },
        Err(fault) => PurchaseStreamResponse { call_id, results: Vec::new(), failure: Some(convert::failure(fault)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_one_call_is_answered_and_harms_no_other() {
        let (answers, mut answered) = mpsc::channel(PENDING);
        let request = |call_id| Ok(PurchaseStreamRequest { call_id, ..Default::default() });
        let work = |request: PurchaseStreamRequest| async move {
            tokio::task::yield_now().await;
            if request.call_id == 2 { panic!("out of paper") } else { Ok(Vec::new()) }
        };
        let requests = tokio_stream::iter([1, 2, 3].map(request));
        answer_all(requests, &answers, &CancellationToken::new(), work).await;
        drop(answers);
        let mut told = Vec::new();
        while let Some(answer) = answered.recv().await {
            let PurchaseStreamResponse { call_id, failure, .. } = answer.unwrap();
            told.push((call_id, failure.map(|failure| (failure.reason, failure.outcome_unknown))));
        }
        told.sort();
        assert_eq!(told, [(1, None), (2, Some(("INTERNAL".into(), true))), (3, None)]);
    }
}

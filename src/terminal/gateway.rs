//! Many terminals' calls over one stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{CALL_TIMEOUT, CallError, Terminal};
use crate::grpc::MAX_MESSAGE;
use crate::grpc::v1::{
    self, PurchaseStreamRequest, PurchaseStreamResponse, purchase_stream_request::Call as StreamCall,
};

/// Calls that may wait for the stream to take them: as many as the service works on at once.
const QUEUE: usize = 256;

/// What became of a call: one result per line, exactly one for the calls that follow a purchase.
type Answered = Result<Vec<v1::PurchaseResult>, CallError>;

/// Any number of calls at once over one stream, for whoever speaks for many terminals. Clones share the stream; it is closed
/// when the last of them and of their calls is gone, and then still brings what is missing.
///
/// ```no_run
/// # use rationd::terminal::{CallError, Session, Terminal};
/// # use rationd::grpc::v1::PurchaseRequest;
/// # async fn sell(terminal: Terminal, session: Session, visits: Vec<PurchaseRequest>) -> Result<(), CallError> {
/// let gateway = terminal.gateway().await?;
/// let calls = visits.into_iter().map(|visit| gateway.call(&session.admitted.session_token, visit));
/// for answer in futures_util::future::join_all(calls).await {
///     println!("{:?}", answer?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gateway {
    requests: mpsc::Sender<PurchaseStreamRequest>,
    waiting: Arc<Mutex<Waiting>>,
}

/// The calls that have no answer yet.
#[derive(Default)]
struct Waiting {
    last_id: u64,
    calls: HashMap<u64, oneshot::Sender<Answered>>,
    /// Why there will be no more answers, once there will be none.
    ended: Option<String>,
}

impl Terminal {
    /// Opens a stream for the calls of many terminals over this one's connection. Calls without a token are made in the name
    /// of this terminal.
    pub async fn gateway(&self) -> Result<Gateway, CallError> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let stream = self.request(ReceiverStream::new(queue))?;
        let answers = self.purchases().purchase_stream(stream).await?.into_inner();
        let waiting = Arc::<Mutex<Waiting>>::default();
        tokio::spawn(hand_out(answers, waiting.clone()));
        Ok(Gateway { requests, waiting })
    }
}

impl Gateway {
    /// Makes a call in the name of the session with this token; empty: in the name of the terminal that opened the stream,
    /// which is enough for what needs no session. Waits its turn while the service takes no more.
    ///
    /// If the stream breaks, the outcome of every call that was not answered is unknown. A call that is given up (its future
    /// dropped) is made all the same if it was begun. One that is larger than the service takes is not sent: it would end the
    /// stream for everybody.
    pub fn call<C: Into<StreamCall>>(&self, token: &str, call: C) -> impl Future<Output = Answered> + Send + use<C> {
        // The longest id there is until the call has its own, so that it is measured at its largest.
        let request =
            PurchaseStreamRequest { call_id: u64::MAX, session_token: token.to_owned(), call: Some(call.into()) };
        let gateway = self.clone();
        async move {
            let answered = tokio::time::timeout(CALL_TIMEOUT, gateway.ask(request)).await;
            answered.unwrap_or_else(|_| Err(CallError::Unknown("no answer in time".into())))
        }
    }

    /// Whether the stream has ended: no call is sent any more, and another gateway is to be opened.
    pub fn has_ended(&self) -> bool {
        self.requests.is_closed() || lock(&self.waiting).ended.is_some()
    }

    async fn ask(&self, mut request: PurchaseStreamRequest) -> Answered {
        let size = request.encoded_len();
        if size > MAX_MESSAGE {
            let message = format!("the call has {size} bytes, and the service takes {MAX_MESSAGE} at the most");
            return Err(CallError::NotExecuted { reason: "MESSAGE_TOO_LARGE".into(), message, retry_after: None });
        }
        let Ok(room) = self.requests.reserve().await else { return Err(lock(&self.waiting).not_sent()) };
        let (answer, answered) = oneshot::channel();
        request.call_id = lock(&self.waiting).add(answer)?;
        room.send(request);
        answered.await.unwrap_or_else(|_| Err(CallError::Unknown("nobody reads the stream any more".into())))
    }
}

impl Waiting {
    fn add(&mut self, answer: oneshot::Sender<Answered>) -> Result<u64, CallError> {
        if self.ended.is_some() {
            return Err(self.not_sent());
        }
        self.last_id += 1;
        self.calls.insert(self.last_id, answer);
        Ok(self.last_id)
    }

    fn not_sent(&self) -> CallError {
        let why = self.ended.as_deref().unwrap_or("it was closed");
        let message = format!("the stream has ended, open another one: {why}");
        CallError::NotExecuted { reason: "STREAM_ENDED".into(), message, retry_after: None }
    }
}

/// Brings each answer to its call until the stream ends.
async fn hand_out(mut answers: Streaming<PurchaseStreamResponse>, waiting: Arc<Mutex<Waiting>>) {
    let ended = loop {
        match answers.message().await {
            Ok(Some(PurchaseStreamResponse { call_id, results, failure })) => {
                let call = lock(&waiting).calls.remove(&call_id);
                // Whoever has given up is not told.
                let _ = call.map(|call| call.send(failure.map_or(Ok(results), |failure| Err(failure.into()))));
            }
            Ok(None) => break "the service ended it".to_owned(),
            Err(status) => break told(&status),
        }
    };
    let calls = {
        let mut waiting = lock(&waiting);
        waiting.ended = Some(ended.clone());
        std::mem::take(&mut waiting.calls)
    };
    for call in calls.into_values() {
        let _ = call.send(Err(CallError::Unknown(format!("the stream ended before the answer came: {ended}"))));
    }
}

fn told(status: &Status) -> String {
    format!("{:?} {}", status.code(), status.message())
}

/// The calls are whole whenever the lock is free.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each request is its own kind of call.
macro_rules! calls {
    ($($request:ident => $call:ident),+ $(,)?) => {
        $(impl From<v1::$request> for StreamCall {
            fn from(request: v1::$request) -> Self {
                Self::$call(request)
            }
        })+
    };
}

calls!(
    CheckPurchaseRequest => CheckPurchase,
    PurchaseRequest => Purchase,
    HoldPurchaseRequest => HoldPurchase,
    ConfirmHoldRequest => ConfirmHold,
    ReleaseHoldRequest => ReleaseHold,
    VoidPurchaseRequest => VoidPurchase,
    GetPurchaseRequest => GetPurchase,
);

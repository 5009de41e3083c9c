//! The load client: terminals that have opened their sessions, each on a connection of its own, and sell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rationd::grpc::v1::{
    OpenSessionRequest, OpenSessionResponse, PurchaseRequest, PurchaseResponse, PurchaseResult, PurchaseStreamRequest,
    open_session_response::Event, purchase_result::Outcome, purchase_service_client::PurchaseServiceClient,
    purchase_stream_request::Call as CallOnStream, session_service_client::SessionServiceClient,
};
use rationd::sites::Sites;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::buyers;
use super::measure::{Measured, Parts, Tally, closed_loop};
use super::offered::{Offered, Tallied};
use super::options::Options;
use crate::Failure;

const SESSION: &str = "rationd-session";

/// How long a service is offered calls before they count.
const WARM_UP: Duration = Duration::from_secs(1);

static NEXT_TERMINAL: AtomicU32 = AtomicU32::new(0);

/// Terminals and what they talk to.
pub struct Counters {
    terminals: Vec<Terminal>,
    in_flight_each: usize,
    on_stream: usize,
}

/// A terminal on a connection of its own.
#[derive(Clone)]
pub struct Terminal {
    pub purchases: PurchaseServiceClient<Channel>,
    pub token: MetadataValue<Ascii>,
    /// The stream that keeps the session.
    _session: Option<Arc<Streaming<OpenSessionResponse>>>,
}

impl Counters {
    /// Terminals whose sessions are open.
    pub async fn open(address: &str, options: &Options) -> Result<Self, Failure> {
        let sites: Vec<String> = Sites::demo().iter().map(|site| site.id.to_string()).collect();
        let mut terminals = Vec::new();
        for site in sites.iter().cycle().take(options.connections) {
            // No two of a run have one name: two services may share a door.
            let name = format!("w{}", NEXT_TERMINAL.fetch_add(1, Ordering::Relaxed));
            terminals.push(Terminal::open(address, site, &name).await?);
        }
        Ok(Self { terminals, in_flight_each: options.in_flight_each(), on_stream: options.on_stream })
    }

    /// One of them, which makes one call after the other.
    pub fn one(&self) -> Self {
        Self { terminals: self.terminals.iter().take(1).cloned().collect(), in_flight_each: 1, on_stream: 1 }
    }

    /// The same without sessions, before a server that has none. The token is of the same length.
    pub async fn bare(address: &str, like: &Self) -> Result<Self, Failure> {
        let mut terminals = Vec::new();
        for terminal in &like.terminals {
            let purchases = PurchaseServiceClient::new(connect(address).await?);
            terminals.push(Terminal { purchases, token: terminal.token.clone(), _session: None });
        }
        Ok(Self { terminals, ..*like })
    }

    /// As [`sell`](Self::sell), over a stream on every connection.
    pub async fn stream(&self, parts: Parts, span: Duration) -> Result<Measured, Failure> {
        let tokens = self.terminals.iter().map(|terminal| terminal.token.to_str().map(str::to_owned));
        let tokens: Arc<[String]> = tokens.collect::<Result<_, _>>()?;
        let in_flight = self.on_stream;
        let callers = self.terminals.iter().cloned().map(|terminal| {
            let tokens = tokens.clone();
            move |tally: Arc<Tally>| terminal.stream_until_over(tally, in_flight, tokens)
        });
        closed_loop(parts, span, callers).await
    }

    /// Calls that begin when they are due, so many a second, whatever becomes of those before them. How long each takes
    /// counts from then, so that a stall is seen by everybody whom it would have met.
    pub async fn sell_open(&self, per_second: f64, span: Duration) -> Result<Offered, Failure> {
        let offered = Arc::new(Tallied::new()?);
        let calls = TaskTracker::new();
        let begun = Instant::now();
        let counted_from = begun + WARM_UP;
        let end = counted_from + span;
        let gap = Duration::from_secs_f64(1.0 / per_second);
        let mut terminals = self.terminals.iter().cycle();
        for number in 0.. {
            let due = begun + gap * number;
            if due >= end {
                break;
            }
            if due > Instant::now() {
                sleep_until(due).await;
            }
            let (offered, terminal) = (offered.clone(), terminals.next().cloned());
            calls.spawn(async move {
                let Some(mut terminal) = terminal else { return };
                let answer = terminal.purchase(buyers::next_sale()).await;
                if due >= counted_from {
                    offered.answered(due, answer);
                }
            });
        }
        calls.close();
        calls.wait().await;
        offered.take(span)
    }

    /// One sale, and what the service answered.
    pub async fn sell_one(&self) -> Result<PurchaseResponse, Failure> {
        let terminal = self.terminals.first().ok_or("no terminal")?;
        let answer = terminal.clone().purchase(buyers::next_sale()).await?;
        approved(&answer)?;
        Ok(answer)
    }

    /// Every terminal has its share of calls under way at all times.
    pub async fn sell(&self, parts: Parts, span: Duration) -> Result<Measured, Failure> {
        let calls = self.terminals.iter().flat_map(|terminal| std::iter::repeat_n(terminal, self.in_flight_each));
        let callers = calls.cloned().map(|terminal| move |tally: Arc<Tally>| terminal.sell_until_over(tally));
        closed_loop(parts, span, callers).await
    }
}

impl Terminal {
    async fn open(address: &str, site: &str, name: &str) -> Result<Self, Failure> {
        let channel = connect(address).await?;
        let mut request = Request::new(OpenSessionRequest { terminal: name.into(), ..Default::default() });
        request.metadata_mut().insert("rationd-site", site.parse()?);
        request.metadata_mut().insert("rationd-terminal", name.parse()?);
        let mut events = SessionServiceClient::new(channel.clone()).open_session(request).await?.into_inner();
        match events.message().await?.and_then(|first| first.event) {
            Some(Event::Admitted(admitted)) => Ok(Self {
                purchases: PurchaseServiceClient::new(channel),
                token: admitted.session_token.parse()?,
                _session: Some(Arc::new(events)),
            }),
            _ => Err(format!("the service did not admit a terminal at {site}").into()),
        }
    }

    pub async fn purchase(&mut self, sale: PurchaseRequest) -> Result<PurchaseResponse, Status> {
        let mut request = Request::new(sale);
        request.metadata_mut().insert(SESSION, self.token.clone());
        Ok(self.purchases.purchase(request).await?.into_inner())
    }

    /// Sells over one stream, with so many calls under way. As a gateway does, it says with every call whose session sells.
    async fn stream_until_over(self, tally: Arc<Tally>, in_flight: usize, tokens: Arc<[String]>) -> Vec<u32> {
        let mut micros = Vec::new();
        if let Err(failure) = self.stream(&tally, in_flight, &tokens, &mut micros).await {
            tally.wrong(failure);
        }
        micros
    }

    async fn stream(
        mut self,
        tally: &Tally,
        in_flight: usize,
        tokens: &[String],
        micros: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let (calls, outgoing) = unbounded_channel();
        let mut begun = vec![Instant::now(); in_flight];
        for (call_id, token) in (0..).zip(tokens.iter().cycle().take(in_flight)) {
            calls.send(sale_on_stream(call_id, token))?;
        }
        let mut under_way = in_flight;
        let mut answers = self.purchases.purchase_stream(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
        while under_way > 0 {
            let answer = answers.message().await?.ok_or("the stream ended before its last answer")?;
            let call_id = answer.call_id;
            let slot = usize::try_from(call_id).ok().and_then(|slot| begun.get_mut(slot));
            let (slot, token) =
                slot.zip(tokens.iter().cycle().nth(usize::try_from(call_id)?)).ok_or("an answer to nobody's call")?;
            match (answer.failure, one_approved(&answer.results)) {
                (None, Ok(())) => tally.right(*slot, micros),
                (Some(failure), _) => tally.wrong(failure.message),
                (None, Err(other)) => tally.wrong(other),
            }
            if tally.is_over() {
                under_way -= 1;
            } else {
                *slot = Instant::now();
                calls.send(sale_on_stream(call_id, token))?;
            }
        }
        Ok(())
    }

    async fn sell_until_over(mut self, tally: Arc<Tally>) -> Vec<u32> {
        let mut micros = Vec::new();
        while !tally.is_over() {
            let sale = buyers::next_sale();
            let begun = Instant::now();
            match self.purchase(sale).await {
                Ok(answer) => match approved(&answer) {
                    Ok(()) => tally.right(begun, &mut micros),
                    Err(other) => tally.wrong(other),
                },
                Err(status) => tally.wrong(status),
            }
        }
        micros
    }
}

async fn connect(address: &str) -> Result<Channel, Failure> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?)
}

fn sale_on_stream(call_id: u64, token: &str) -> PurchaseStreamRequest {
    let call = Some(CallOnStream::Purchase(buyers::next_sale()));
    PurchaseStreamRequest { call_id, session_token: token.to_owned(), call }
}

/// Whether one line was sold.
pub fn approved(answer: &PurchaseResponse) -> Result<(), String> {
    one_approved(&answer.results)
}

fn one_approved(results: &[PurchaseResult]) -> Result<(), String> {
    match results {
        [result] if matches!(result.outcome, Some(Outcome::Approved(_))) => Ok(()),
        [result] => Err(format!("not approved: {:?}", result.outcome)),
        results => Err(format!("{} results instead of one", results.len())),
    }
}

//! `JournalService`: sales that were made while nobody could be asked. Each is converted, handed to the use case in batches, and answered by
//! itself: what is wrong with one is its own verdict.
//!
//! It is the lowest class of work. A batch waits for its turn among all uploads of this instance, and for when it may go on; the
//! service reads no further meanwhile, and HTTP/2 tells the client to wait. Calls at counters wait for none of that.

mod asked;
mod told;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::connections::Link;
use super::identity::{Callers, Credentials, Peer};
use super::limits::{UPLOADS, UPLOADS_OF_A_SITE};
use super::manners::Manners;
use super::status::{self, BadField};
use super::v1::{self, journal_service_server::JournalService};
use crate::audit::{Access, Action, Deed, Trail};
use crate::ids::SiteId;
use crate::journal::{Book, Journals, Taken};
use crate::ledger::Ledger;
use crate::purchase::{Caller, LateSale};
use crate::session::Door;
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;

/// How many sales are taken together. The store does them in one go, and whoever sells waits for no more than that.
const BATCH: usize = 16;
/// Batches under way at once, of all uploads of this instance: while one waits for the store, sales go by.
const BATCHES: usize = 1;
/// How long the next sale of an upload may be late: a client that has no more closes its side.
const NEXT_WITHIN: Duration = Duration::from_secs(30);

/// The service over the books and the ledger.
pub(super) struct JournalEdge<L, D, C, B> {
    pub(super) journals: Journals<L, C, B>,
    pub(super) callers: Arc<Callers<D, C>>,
    pub(super) tasks: TaskTracker,
    pub(super) uploads: Uploads,
    pub(super) batches: Semaphore,
    /// Whoever reads a book reads all of it: one at a time.
    pub(super) readers: Semaphore,
    /// What the sites have done lately: whoever is told what somebody has bought has looked them up.
    pub(super) manners: Arc<Manners<D, C>>,
    /// Where every access is put on record.
    pub(super) trail: Trail,
    pub(super) clock: C,
    pub(super) metrics: Arc<Metrics>,
}

/// Uploads under way.
#[derive(Clone, Default)]
pub(super) struct Uploads(Arc<Mutex<BTreeMap<SiteId, usize>>>);

impl Uploads {
    /// Of batches at once.
    pub(super) fn batches() -> Semaphore {
        Semaphore::new(BATCHES)
    }

    /// One more, for as long as the place is kept; `None`: there are as many as may be, altogether or of this site.
    fn begin(&self, site: SiteId) -> Option<Place> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = uploads.values().sum();
        let of_site = uploads.entry(site).or_default();
        if all >= UPLOADS || *of_site >= UPLOADS_OF_A_SITE {
            return None;
        }
        *of_site += 1;
        Some(Place(self.clone(), site))
    }
}

/// The place of an upload.
struct Place(Uploads, SiteId);

impl Drop for Place {
    fn drop(&mut self) {
        let mut uploads = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut of_site) = uploads.entry(self.1) {
            *of_site.get_mut() -= 1;
            if *of_site.get() == 0 {
                of_site.remove();
            }
        }
    }
}

/// One message to the client; an error ends the stream.
type Answer = Result<v1::UploadSalesResponse, Status>;

impl<L: Ledger, D: Door, C: Clock, B: Book> JournalEdge<L, D, C, B> {
    /// Answers sales until there are no more, nobody takes the answers or the service drains.
    async fn upload(
        &self,
        sales: impl Stream<Item = Result<v1::UploadSalesRequest, Status>> + Unpin,
        answers: &mpsc::Sender<Answer>,
        ending: &CancellationToken,
        (caller, peer): (Caller, Peer),
    ) {
        let mut batches = sales.ready_chunks(BATCH);
        loop {
            let read = tokio::select! {
                biased;
                () = ending.cancelled() => return,
                () = answers.closed() => return,
                read = timeout(NEXT_WITHIN, batches.next()) => read,
            };
            let Ok(Some(batch)) = read else { return };
            let mut sales = Vec::with_capacity(batch.len());
            let mut unreadable = None;
            for read in batch {
                match read {
                    Ok(sale) => sales.push(sale),
                    Err(unread) => unreadable = Some(unread),
                }
            }
            for answer in self.batch(sales, &caller, peer).await {
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            if let Some(unread) = unreadable {
                // Nobody may be there to be told.
                let _ = answers.send(Err(status::unreadable(&unread).into())).await;
                return;
            }
        }
    }

    /// The verdicts of one batch, in the order of its sales. The messages with the numbers in them end here.
    async fn batch(
        &self,
        sales: Vec<v1::UploadSalesRequest>,
        caller: &Caller,
        peer: Peer,
    ) -> Vec<v1::UploadSalesResponse> {
        // It is never closed.
        let _place = self.batches.acquire().await;
        self.journals.may(sales.len()).await;
        let mut verdicts: Vec<v1::UploadSalesResponse> = Vec::with_capacity(sales.len());
        let (mut prepared, mut places) = (Vec::new(), Vec::new());
        for v1::UploadSalesRequest { call_id, sale } in sales {
            let request_id = asked::echo(sale.as_ref());
            let verdict = match self.prepare(sale.as_ref(), caller) {
                Ok(sale) => {
                    places.push(verdicts.len());
                    prepared.push(sale);
                    None
                }
                Err(bad) => {
                    self.metrics.uploaded("INVALID");
                    Some(told::invalid(bad))
                }
            };
            verdicts.push(v1::UploadSalesResponse { call_id, request_id, verdict });
        }
        let taken = self.take(&prepared, caller, peer).await;
        for (place, taken) in places.into_iter().zip(taken) {
            if let Some(verdict) = verdicts.get_mut(place) {
                verdict.verdict = Some(told::verdict(taken, |site| self.callers.district(site)));
            }
        }
        verdicts
    }

    fn prepare(&self, sale: Option<&v1::OfflineSale>, caller: &Caller) -> Result<LateSale, Vec<BadField>> {
        let asked = asked::sale(sale, caller.site)?;
        let bad = |invalid: Vec<_>| invalid.into_iter().map(asked::bad_field).collect();
        self.journals.prepare(&asked).map_err(bad)
    }

    /// What was asked runs to its end whoever still waits, and stands on record as it ended.
    async fn take(&self, sales: &[LateSale], caller: &Caller, peer: Peer) -> Vec<Taken> {
        if sales.is_empty() {
            return Vec::new();
        }
        let (site, channel) = (caller.site, caller.place.channel);
        let tells = || self.manners.looks_up((site, channel), 1).is_ok();
        let taken = self.journals.take(sales, caller, tells).await;
        for (sale, taken) in sales.iter().zip(&taken) {
            self.metrics.uploaded(taken.name());
            if let Taken::Failed(error) = taken {
                tracing::warn!(site = %caller.site, request_id = %sale.request(), %error, "a late sale was not taken");
            }
        }
        if self.trail.is_file() {
            let access = |(sale, taken): (&LateSale, &Taken)| Access {
                at: self.clock.now(),
                by: peer.name(),
                counter: Some((caller.site, caller.terminal)),
                action: Action::Counter { deed: Deed::Enter, programme: sale.programme(), request: sale.request() },
                result: taken.name(),
            };
            self.trail.tell(sales.iter().zip(&taken).map(access));
        }
        taken
    }
}

#[tonic::async_trait]
impl<L: Ledger, D: Door, C: Clock, B: Book> JournalService for Arc<JournalEdge<L, D, C, B>> {
    type UploadSalesStream = ReceiverStream<Answer>;

    async fn upload_sales(
        &self,
        request: Request<Streaming<v1::UploadSalesRequest>>,
    ) -> Result<Response<Self::UploadSalesStream>, Status> {
        let (metadata, extensions, sales) = request.into_parts();
        let who = Credentials::of(&metadata, &extensions);
        let caller = self.callers.site(who)?;
        let peer = who.peer();
        let place = self.uploads.begin(caller.site).ok_or_else(status::too_many_uploads)?;
        let (answers, answered) = mpsc::channel(2 * BATCH);
        let ending = Link::ending(&extensions);
        let edge = Arc::clone(self);
        // On a task of its own: what was read is finished also when the client has gone.
        self.tasks.spawn(async move {
            let _place = place;
            edge.upload(sales, &answers, &ending, (caller, peer)).await;
        });
        Ok(Response::new(ReceiverStream::new(answered)))
    }

    async fn list_uploads(
        &self,
        request: Request<v1::ListUploadsRequest>,
    ) -> Result<Response<v1::ListUploadsResponse>, Status> {
        let (metadata, extensions, wanted) = request.into_parts();
        let site = self.callers.site(Credentials::of(&metadata, &extensions))?.site;
        let wanted = asked::list(&wanted).map_err(status::invalid)?;
        let bad = |invalid| status::invalid(vec![asked::bad_field(invalid)]);
        let day = self.journals.day(wanted.programme, wanted.date).map_err(bad)?;
        // It is never closed.
        let _reader = self.readers.acquire().await;
        let rows = self.journals.rows(site, &day).await.map_err(|error| {
            tracing::warn!(%site, %error, "a site's book could not be read");
            status::book_unread(error)
        })?;
        let (page, next_page_token) = told::page(&rows, &wanted).map_err(status::invalid)?;
        let district = |of: SiteId| if of == site { of.to_string() } else { self.callers.district(of) };
        let sales = page.iter().map(|row| told::row(row, district)).collect();
        Ok(Response::new(v1::ListUploadsResponse { sales, next_page_token }))
    }
}

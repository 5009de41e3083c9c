//! `StockService`: what sites report, and what is known of their stock. Reports are taken where sites call; what is known is told where
//! the public asks, from memory. Each listener says of the other's calls where they are answered.

mod asked;
mod shown;
#[cfg(test)]
mod tests;
mod watching;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::{Extensions, Request, Response, Status};

use super::connections::Link;
use super::convert::instant;
use super::identity::{Callers, Credentials, Peer};
use super::limits::WATCHERS;
use super::status::{self, BadField, Fault};
use super::v1::{self, stock_service_server::StockService};
use crate::ids::{ProgrammeCode, SiteId};
use crate::session::Door;
use crate::stock::intake::{Intake, NotTaken, Stocks};
use crate::stock::{Key, Shelf};
use crate::time::Clock;
use shown::Asker;
use watching::Watching;

/// The setting of the listener where reports are taken.
const COUNTERS: &str = "listen";
/// The setting of the listener where stock is told.
const FEED: &str = "feed.listen";

type Watched = Pin<Box<dyn Stream<Item = Result<v1::WatchStockResponse, Status>> + Send>>;

/// What is served of it where sites call.
pub(super) struct ReportEdge<S, D, C> {
    pub(super) intake: Intake<S, C>,
    pub(super) callers: Arc<Callers<D, C>>,
    pub(super) tasks: TaskTracker,
}

#[tonic::async_trait]
impl<S: Shelf, D: Door, C: Clock> StockService for ReportEdge<S, D, C> {
    type WatchStockStream = Watched;

    async fn report_stock(
        &self,
        request: Request<v1::ReportStockRequest>,
    ) -> Result<Response<v1::ReportStockResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let site = self.callers.site(Credentials::of(&metadata, &extensions))?.site;
        let said = asked::said(site, message).map_err(status::invalid)?;
        // A stop that cannot wait for it says that something was under way.
        let _tracked = self.tasks.token();
        let request = said.request;
        let (report, replayed) = self.intake.take(said).await.map_err(|why| match why {
            NotTaken::Field(field, problem) => status::invalid(vec![BadField::new(field, problem)]),
            NotTaken::Reused => status::report_reused(),
            NotTaken::Shelf(error) => {
                tracing::warn!(%site, request_id = %request, %error, "a report of stock was not taken");
                status::report_not_taken(error)
            }
        })?;
        let (at, received_at) = (Some(instant(report.at)), Some(instant(report.received)));
        Ok(Response::new(v1::ReportStockResponse { at, received_at, replayed }))
    }

    async fn get_stock(&self, _: Request<v1::GetStockRequest>) -> Result<Response<v1::GetStockResponse>, Status> {
        Err(status::other_listener(FEED).into())
    }

    async fn list_stock(&self, _: Request<v1::ListStockRequest>) -> Result<Response<v1::ListStockResponse>, Status> {
        Err(status::other_listener(FEED).into())
    }

    async fn watch_stock(&self, _: Request<v1::WatchStockRequest>) -> Result<Response<Watched>, Status> {
        Err(status::other_listener(FEED).into())
    }
}

/// What is served of it where the public asks.
pub(super) struct StockEdge {
    stocks: Stocks,
    room: Arc<Semaphore>,
    answers: Answers,
}

/// Who is answered, of those who call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// Whoever shows a certificate.
    Certified,
    /// Whoever is on this machine.
    ThisMachine,
    /// Nobody: there are no certificates, and anybody can call.
    Nobody,
}

impl StockEdge {
    pub(super) fn new(stocks: Stocks, answers: Answers) -> Self {
        Self { stocks, room: Arc::new(Semaphore::new(WATCHERS)), answers }
    }

    /// The programme that is asked about, and who asks.
    fn asked(&self, extensions: &Extensions, id: &str) -> Result<(ProgrammeCode, Asker), Fault> {
        let asker = match (self.answers, Peer::of(extensions)) {
            (Answers::Nobody, _) => return Err(status::feed_not_on_loopback()),
            // Pages are told in the clear, too, and on the same listener.
            (Answers::Certified, Peer::Clear) => return Err(status::certificate_required()),
            (Answers::Certified, peer) => Asker::of(*peer)?,
            (Answers::ThisMachine, _) => Asker::All,
        };
        let known = self.stocks.programme(id).map_err(|why| status::invalid(vec![BadField::new("programme", why)]))?;
        Ok((known, asker))
    }
}

#[tonic::async_trait]
impl StockService for StockEdge {
    type WatchStockStream = Watched;

    async fn report_stock(
        &self,
        _: Request<v1::ReportStockRequest>,
    ) -> Result<Response<v1::ReportStockResponse>, Status> {
        Err(status::other_listener(COUNTERS).into())
    }

    async fn get_stock(&self, request: Request<v1::GetStockRequest>) -> Result<Response<v1::GetStockResponse>, Status> {
        let (_, extensions, v1::GetStockRequest { programme: id, site_code }) = request.into_parts();
        let (programme, asker) = self.asked(&extensions, &id)?;
        let site = site_code.parse::<SiteId>().ok().filter(|site| self.stocks.sites().get(*site).is_some());
        let unknown = || status::invalid(vec![BadField::new("site_code", "no site of this code is in the registry")]);
        let site = site.ok_or_else(unknown)?;
        let picture = self.stocks.board.picture();
        let stock = Some(shown::row(&id, site, picture.get(Key { programme, site }), asker));
        Ok(Response::new(v1::GetStockResponse { stock, read_until: picture.read_until.map(instant) }))
    }

    async fn list_stock(
        &self,
        request: Request<v1::ListStockRequest>,
    ) -> Result<Response<v1::ListStockResponse>, Status> {
        let (_, extensions, wanted) = request.into_parts();
        let (programme, asker) = self.asked(&extensions, &wanted.programme)?;
        let (page, next_page_token) = asked::page(&self.stocks, &wanted).map_err(status::invalid)?;
        let picture = self.stocks.board.picture();
        let row = |(site, distance_metres)| v1::StockLevel {
            distance_metres,
            ..shown::row(&wanted.programme, site, picture.get(Key { programme, site }), asker)
        };
        let stocks = page.into_iter().map(row).collect();
        let read_until = picture.read_until.map(instant);
        Ok(Response::new(v1::ListStockResponse { stocks, next_page_token, read_until }))
    }

    async fn watch_stock(&self, request: Request<v1::WatchStockRequest>) -> Result<Response<Watched>, Status> {
        let (_, extensions, wanted) = request.into_parts();
        let ending = Link::ending(&extensions);
        let (programme, asker) = self.asked(&extensions, &wanted.programme)?;
        let watcher = asked::watcher(&self.stocks, programme, &wanted).map_err(status::invalid)?;
        let room = self.room.clone().try_acquire_owned().map_err(|_| status::too_many_watchers())?;
        let watching = Watching::new(self.stocks.clone(), watcher, (wanted, asker), ending, room);
        Ok(Response::new(Box::pin(stream::try_unfold(watching, Watching::next))))
    }
}

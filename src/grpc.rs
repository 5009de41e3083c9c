//! The gRPC edge: one file per service, `convert` between wire and domain, `codec` for the wire's buffers, `status` for errors,
//! `accept` for how connections begin, `connections` for how they live and end, `limits`, `guard`, `crowd`, `returns` and `lines`
//! for what nobody may overdo, `trust` for whose certificates are believed meanwhile, `identity` for who is calling, `roles` for
//! who may make which call, `layers` for what every call passes through.
//!
//! Knows the use cases and the door, never a concrete store and never configuration.

mod accept;
mod codec;
mod connections;
mod convert;
mod corked;
mod crowd;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod guard;
mod health;
mod identity;
mod journal;
mod layers;
pub mod limits;
mod lines;
mod manners;
mod operator;
mod purchase;
mod returns;
mod roles;
mod session;
mod status;
mod stock;
mod trust;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::Layer;

pub use health::Health;
pub use limits::{MAX_ADMIN_CONNECTIONS, MAX_FEED_CONNECTIONS, MAX_FEED_CONNECTIONS_APART};
pub(crate) use status::code_name;
pub use trust::Tls;

use crate::audit::Trail;
use crate::events::Events;
use crate::export::Exports;
use crate::ids::LedgerId;
use crate::journal::{Book, Journals};
use crate::ledger::Ledger;
use crate::ledger::outbox::Outbox;
use crate::purchase::Purchases;
use crate::session::token::DoorKey;
use crate::session::{Door, Registry};
use crate::sites::Sites;
use crate::stock::Shelf;
use crate::stock::intake::{Intake, Stocks};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::scrape::Page;
use crate::time::Clock;
use accept::Speaks;
use connections::Listens;
use crowd::Room;
use identity::Callers;
use journal::{JournalEdge, Uploads};
use layers::OutermostLayer;
use manners::Manners;
use operator::{Accesses, OperatorEdge};
use purchase::PurchaseEdge;
use session::SessionEdge;
use stock::{Answers, ReportEdge, StockEdge};
use v1::journal_service_server::JournalServiceServer;
use v1::operator_service_server::OperatorServiceServer;
use v1::purchase_service_server::PurchaseServiceServer;
use v1::session_service_server::SessionServiceServer;
use v1::stock_service_server::StockServiceServer;

/// The generated types and services of package `rationd.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all, reason = "generated; the comments stand in proto/")]
pub mod v1 {
    tonic::include_proto!("rationd.v1");
}

/// No type of the wire that can hold a buyer's number can be printed: this does not compile otherwise.
mod unprintable {
    use std::fmt::{Debug, Display};
    use std::marker::PhantomData;

    use super::v1;

    struct Printed<T>(PhantomData<T>);

    /// The answer where nothing below says otherwise.
    trait Not {
        const DEBUG: bool = false;
        const DISPLAY: bool = false;
        const SERIALIZE: bool = false;
    }

    impl<T> Not for Printed<T> {}

    impl<T: Debug> Printed<T> {
        const DEBUG: bool = true;
    }

    impl<T: Display> Printed<T> {
        const DISPLAY: bool = true;
    }

    impl<T: serde::Serialize> Printed<T> {
        const SERIALIZE: bool = true;
    }

    // That it can tell: what may be printed is found out.
    const _: () = assert!(Printed::<v1::Receipt>::DEBUG);
    const _: () = assert!(Printed::<String>::DISPLAY && Printed::<String>::SERIALIZE);

    macro_rules! unprintable {
        ($($type:ty)*) => {
            $(const _: () = assert!(!(Printed::<$type>::DEBUG || Printed::<$type>::DISPLAY || Printed::<$type>::SERIALIZE));)*
        };
    }

    // As `build.rs` names them, and what they are made of.
    unprintable! {
        v1::Buyer
        v1::buyer::Id
        v1::OpaqueBuyer
        v1::Line
        v1::CheckPurchaseRequest
        v1::PurchaseRequest
        v1::HoldPurchaseRequest
        v1::ConfirmHoldRequest
        v1::ReleaseHoldRequest
        v1::VoidPurchaseRequest
        v1::GetPurchaseRequest
        v1::PurchaseStreamRequest
        v1::purchase_stream_request::Call
        v1::LookUpBuyerRequest
        v1::VoidForBuyerRequest
        v1::UploadSalesRequest
        v1::OfflineSale
        crate::purchase::Named<'static>
    }
}

/// The descriptors of package `rationd.v1`, as reflection serves them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The name under which health tells whether purchases can be recorded.
pub const PURCHASE_SERVICE: &str = "rationd.v1.PurchaseService";

/// The name under which health tells whether sessions can be opened.
pub const SESSION_SERVICE: &str = "rationd.v1.SessionService";

/// The name under which health tells whether what happens is read into levels of stock.
pub const STOCK_SERVICE: &str = "rationd.v1.StockService";

/// The name under which health tells whether accesses can be put on record, where there is an audit log.
pub const AUDIT_LOG: &str = "rationd.audit";

/// What the client sends no more than, too.
pub(crate) const MAX_MESSAGE: usize = limits::MESSAGE;

/// How long a unary call may take at the most; a client may ask for less.
const LONGEST_CALL: Duration = Duration::from_secs(10);

/// The most streams of waiting terminals that ask the door again at once: a batch for the door's connections.
const MAX_ASKING_AGAIN: usize = 64;

/// The most operator calls that may be waiting for their answer at once.
const MAX_OPERATOR_CALLS: usize = 16;

/// All that the counters' listener serves from.
pub struct Counters<L, D, C, S, B> {
    /// The use cases.
    pub purchases: Purchases<L, C>,
    /// What sites report of their stock.
    pub intake: Intake<S, C>,
    /// Sales that were made while nobody could be asked.
    pub journals: Journals<L, C, B>,
    /// The live sessions.
    pub registry: Arc<Registry<D, C>>,
    /// Whose sites may call.
    pub sites: Arc<ArcSwap<Sites>>,
    /// For session tokens.
    pub door_key: Arc<DoorKey>,
    /// How long a seat outlives a broken stream.
    pub lease: Duration,
    /// The ledger behind the service, once it is known.
    pub ledger: Arc<dyn Fn() -> Option<LedgerId> + Send + Sync>,
    /// Work that must run to its end before the process does.
    pub tasks: TaskTracker,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The clock that calls are measured by.
    pub clock: C,
    /// What is spoken, with every caller's certificate; `None`: nothing is encrypted, and callers are who they say they are.
    pub tls: Option<Tls>,
    /// The most calls under way at once; more are turned away with a time to retry. As many again may be calls of streams.
    pub max_in_flight: usize,
    /// The most connections at once; those beyond them wait in the kernel's queue.
    pub max_connections: usize,
    /// How old a connection becomes, give or take a tenth.
    pub connection_age: Duration,
    /// How many people a site may look up in a minute, for each of its seats, beside those to whom it sells; 0: any number.
    pub look_ups_per_minute: u32,
    /// Where every access is put on record.
    pub trail: Trail,
    /// Whether reflection is served.
    pub reflection: bool,
}

impl<L: Ledger, D: Door, C: Clock, S: Shelf, B: Book> Counters<L, D, C, S, B> {
    /// Serves the counters until `stop`, then lets every connection finish its calls. It does not bound how long that takes.
    pub async fn serve(self, listener: TcpListener, health: Health, stop: CancellationToken) {
        let layer = OutermostLayer::new(self.metrics.clone(), self.clock.clone(), self.max_in_flight);
        let listens = Listens {
            speaks: self.tls.clone().map_or(Speaks::Clear, Speaks::Tls),
            http1: false,
            idle: limits::GREETED_WITHIN,
            room: Room {
                connections: self.max_connections,
                // In the clear one address is everybody.
                of_one_address: self.tls.as_ref().map(|_| limits::CONNECTIONS_OF_ONE_SITE),
                calls: self.max_in_flight,
            },
            patience: limits::TAKEN_WITHIN,
            metrics: self.metrics.clone(),
            age: Some(self.connection_age),
            trail: self.trail.clone(),
        };
        listens.serve(listener, layer.layer(self.routes(health).prepare()), stop).await;
    }

    fn routes(self, health: Health) -> Routes {
        let callers = Arc::new(Callers {
            sites: self.sites,
            registry: self.registry,
            door_key: self.door_key,
            metrics: self.metrics.clone(),
        });
        let report = ReportEdge { intake: self.intake, callers: callers.clone(), tasks: self.tasks.clone() };
        let terms = self.purchases.clone();
        let offline = Arc::new(move || terms.offline().into_iter().map(convert::offline).collect());
        let manners = Arc::new(Manners {
            conduct: Mutex::default(),
            look_ups_per_minute: self.look_ups_per_minute,
            callers: callers.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        });
        let journal = Arc::new(JournalEdge {
            journals: self.journals,
            callers: callers.clone(),
            tasks: self.tasks.clone(),
            uploads: Uploads::default(),
            batches: Uploads::batches(),
            readers: Semaphore::new(1),
            manners: manners.clone(),
            trail: self.trail.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        });
        let purchase = Arc::new(PurchaseEdge {
            purchases: self.purchases,
            callers: callers.clone(),
            tasks: self.tasks,
            streamed: Semaphore::new(self.max_in_flight),
            visits: Arc::new(Semaphore::new(self.max_in_flight)),
            manners: manners.clone(),
            trail: self.trail,
            clock: self.clock,
            metrics: self.metrics.clone(),
        });
        let session = Arc::new(SessionEdge {
            callers,
            lease: self.lease,
            ledger: self.ledger,
            offline,
            metrics: self.metrics,
            asking_again: Semaphore::new(MAX_ASKING_AGAIN),
        });
        let mut routes = Routes::default()
            .add_service(PurchaseServiceServer::new(purchase).max_decoding_message_size(MAX_MESSAGE))
            .add_service(SessionServiceServer::new(session).max_decoding_message_size(MAX_MESSAGE))
            .add_service(StockServiceServer::new(report).max_decoding_message_size(MAX_MESSAGE))
            .add_service(JournalServiceServer::new(journal).max_decoding_message_size(MAX_MESSAGE))
            .add_service(health.server());
        if self.reflection {
            routes = with_reflection(routes);
        }
        routes
    }
}

/// All that the admin listener serves from, beside health and metrics.
pub struct Admin<L, D, C> {
    /// What operators may export.
    pub exports: Exports<L>,
    /// What happened, for whoever follows it.
    pub events: Events<L>,
    /// What they may look up and take back.
    pub purchases: Purchases<L, C>,
    /// Whose sites there are.
    pub sites: Arc<ArcSwap<Sites>>,
    /// Where such accesses are put on record.
    pub trail: Trail,
    /// Work that must run to its end before the process does.
    pub tasks: TaskTracker,
    /// The door, for its switches.
    pub registry: Arc<Registry<D, C>>,
    /// Cancelled when the instance begins to drain.
    pub draining: CancellationToken,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The clock that calls are measured by.
    pub clock: C,
    /// What is spoken beside plain HTTP; an operator's certificate is then asked for. `None`: only plain HTTP.
    pub tls: Option<Tls>,
    /// How old a connection becomes that is not an operator's, give or take a tenth, where operators show certificates.
    pub connection_age: Duration,
}

impl<L: Ledger + Outbox, D: Door, C: Clock> Admin<L, D, C> {
    /// Serves what operators and probes ask: `OperatorService` and health over gRPC and `scrape` over HTTP, on one listener.
    pub async fn serve(self, listener: TcpListener, health: Health, scrape: Page, stop: CancellationToken) {
        let (at, certificates) = (listener.local_addr().ok(), self.tls.is_some());
        let access = Arc::new(Accesses {
            purchases: self.purchases,
            sites: self.sites,
            trail: self.trail.clone(),
            tasks: self.tasks,
            operators: Mutex::default(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        });
        let edge = OperatorEdge::new(self.exports, self.events, access, self.registry, at, certificates, self.draining);
        let service = OperatorServiceServer::new(edge).max_decoding_message_size(limits::OPERATORS_MESSAGE);
        let listens = Listens {
            // In the clear anybody on this machine may be an operator.
            age: self.tls.as_ref().map(|_| self.connection_age),
            speaks: self.tls.map_or(Speaks::Clear, Speaks::Either),
            http1: true,
            idle: limits::GREETED_WITHIN,
            room: Room {
                connections: MAX_ADMIN_CONNECTIONS,
                of_one_address: Some(limits::ADMIN_CONNECTIONS_OF_ONE_ADDRESS),
                calls: MAX_OPERATOR_CALLS,
            },
            patience: limits::TAKEN_WITHIN_BY_OPERATORS,
            metrics: self.metrics.clone(),
            trail: self.trail,
        };
        // Probes and scrapes are no calls: they are neither measured nor turned away.
        let operator = OutermostLayer::new(self.metrics, self.clock, MAX_OPERATOR_CALLS).layer(service);
        let routes = Routes::from(scrape).add_service(health.server()).add_service(operator);
        listens.serve(listener, routes.prepare(), stop).await;
    }
}

/// All that the admin listener of a process serves from that answers no operator.
pub struct Probes {
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Probes {
    /// Serves what probes ask: health over gRPC and `scrape` over HTTP, on one listener.
    pub async fn serve(self, listener: TcpListener, health: Health, scrape: Page, stop: CancellationToken) {
        let listens = Listens {
            age: None,
            speaks: Speaks::Clear,
            http1: true,
            idle: limits::GREETED_WITHIN,
            room: Room {
                connections: MAX_ADMIN_CONNECTIONS,
                of_one_address: Some(limits::ADMIN_CONNECTIONS_OF_ONE_ADDRESS),
                calls: MAX_OPERATOR_CALLS,
            },
            patience: limits::TAKEN_WITHIN_BY_OPERATORS,
            metrics: self.metrics,
            trail: Trail::Log,
        };
        listens.serve(listener, Routes::from(scrape).add_service(health.server()).prepare(), stop).await;
    }
}

/// All that the feed's listener serves from, beside its pages.
pub struct Feed<C> {
    /// What is shown.
    pub stocks: Stocks,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The clock that calls are measured by.
    pub clock: C,
    /// What is spoken beside plain HTTP; calls then need a certificate, and pages none. `None`: only plain HTTP.
    pub tls: Option<Tls>,
    /// The most connections at once; those beyond them wait in the kernel's queue.
    pub max_connections: usize,
    /// How old a connection becomes that is not an operator's, give or take a tenth.
    pub connection_age: Duration,
    /// Whether reflection is served.
    pub reflection: bool,
}

impl<C: Clock> Feed<C> {
    /// Serves what the public asks: its `pages` over HTTP to anybody, and over gRPC what is known of stocks and health, on one
    /// listener.
    pub async fn serve(self, listener: TcpListener, health: Health, pages: Page, stop: CancellationToken) {
        let is_loopback = listener.local_addr().is_ok_and(|at| at.ip().is_loopback());
        let answers = match is_loopback {
            _ if self.tls.is_some() => Answers::Certified,
            true => Answers::ThisMachine,
            false => Answers::Nobody,
        };
        let edge = StockEdge::new(self.stocks, answers);
        let service = StockServiceServer::new(edge).max_decoding_message_size(MAX_MESSAGE);
        let listens = Listens {
            speaks: self.tls.map_or(Speaks::Clear, Speaks::Either),
            http1: true,
            idle: limits::FEED_IDLE,
            room: Room {
                connections: self.max_connections,
                // A proxy that stands before the public opens many, and half of them are left to others.
                of_one_address: Some(self.max_connections.div_ceil(2)),
                calls: limits::FEED_CALLS,
            },
            patience: limits::TAKEN_WITHIN_BY_FEEDS,
            metrics: self.metrics.clone(),
            age: Some(self.connection_age),
            // Nobody's purchases are told here: there is nothing to put on record.
            trail: Trail::Log,
        };
        // Pages are no calls: they are neither measured here nor turned away.
        let stock = OutermostLayer::new(self.metrics, self.clock, limits::FEED_CALLS).layer(service);
        let mut routes = Routes::from(pages).add_service(health.server()).add_service(stock);
        // The whole world need not be told what else there is.
        if self.reflection && is_loopback {
            routes = with_reflection(routes);
        }
        listens.serve(listener, routes.prepare(), stop).await;
    }
}

fn with_reflection(routes: Routes) -> Routes {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = match described().build_v1() {
        Ok(service) => routes.add_service(service.max_decoding_message_size(MAX_MESSAGE)),
        Err(_) => routes,
    };
    match described().build_v1alpha() {
        Ok(service) => routes.add_service(service.max_decoding_message_size(MAX_MESSAGE)),
        Err(_) => routes,
    }
}

/// Serves these routes in the clear as the counters' listener serves its own, without what every call passes through there. For
/// the echo that the benchmark `side_by_side` compares this service with.
#[doc(hidden)]
pub async fn serve_bare(listener: TcpListener, routes: Routes, stop: CancellationToken) {
    let listens = Listens {
        speaks: Speaks::Clear,
        http1: false,
        idle: limits::GREETED_WITHIN,
        room: Room { connections: Semaphore::MAX_PERMITS, of_one_address: None, calls: Semaphore::MAX_PERMITS },
        patience: limits::TAKEN_WITHIN,
        metrics: Arc::new(Metrics::none()),
        age: None,
        trail: Trail::Log,
    };
    listens.serve(listener, routes.prepare(), stop).await;
}

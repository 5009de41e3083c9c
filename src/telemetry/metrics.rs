//! What is counted: one table, and one method for each row of it.
//!
//! A label is an enum or a configured name, so the number of time series is bounded: never a buyer, a terminal, a site or
//! a request id. Names follow OpenTelemetry; Prometheus shows `rationd.decisions` as `rationd_decisions_total` and a
//! duration as `…_seconds`.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider, NoopMeterProvider};

use crate::ids::ProgrammeId;

/// How a row's numbers behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// A number that is true now.
    Gauge,
    /// How long something took, in buckets of [`BUCKETS`].
    Histogram,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// OpenTelemetry's name of the instrument.
    pub name: &'static str,
    /// How its numbers behave.
    pub kind: Kind,
    /// UCUM unit; `s` for seconds, a word in braces for a count of things.
    pub unit: &'static str,
    /// What it says, in one sentence: Prometheus's HELP line.
    pub help: &'static str,
    /// Its labels, in the order in which they are given.
    pub labels: &'static [&'static str],
}

const DECISIONS: Row = Row {
    name: "rationd.decisions",
    kind: Kind::Counter,
    unit: "{decision}",
    help: "Answers given to counters, one for each line of a visit, by the answer's stable name.",
    labels: &["programme", "verb", "outcome"],
};
const NEAR_LIMIT: Row = Row {
    name: "rationd.near_limit",
    kind: Kind::Counter,
    unit: "{sale}",
    help: "Sales after which nothing is left to the buyer for now: an early warning that a limit bites.",
    labels: &["programme"],
};
const RPC_DURATION: Row = Row {
    name: "rpc.server.call.duration",
    kind: Kind::Histogram,
    unit: "s",
    help: "Time from the first byte of a call to the end of its answer.",
    labels: &["rpc.system.name", "rpc.method", "rpc.response.status_code"],
};
const TRIP_DURATION: Row = Row {
    name: "rationd.store.trip.duration",
    kind: Kind::Histogram,
    unit: "s",
    help: "Time that one verb took in the ledger's store, waiting included.",
    labels: &["verb", "outcome"],
};
const LANES_WAIT: Row = Row {
    name: "rationd.lanes.wait.duration",
    kind: Kind::Histogram,
    unit: "s",
    help: "Time that the call of a trip to Redis that waited longest for the trip to begin did so.",
    labels: &[],
};
const DB_DURATION: Row = Row {
    name: "db.client.operation.duration",
    kind: Kind::Histogram,
    unit: "s",
    help: "Time of one trip to Redis, which carries all the calls that waited, from sending to the last answer.",
    labels: &["db.system.name", "db.operation.name"],
};
const OVER_ADMITTED: Row = Row {
    name: "rationd.over_admitted",
    kind: Kind::Counter,
    unit: "{claim}",
    help: "Claims that the store recorded although its own record, counted anew, says they go beyond a limit: must stay 0.",
    labels: &[],
};
const STORE_SERVING: Row = Row {
    name: "rationd.store.serving",
    kind: Kind::Gauge,
    unit: "1",
    help: "1 when claims can be recorded, 0 when the store is away or unfit.",
    labels: &[],
};
const STORE_VOLATILE: Row = Row {
    name: "rationd.store.volatile",
    kind: Kind::Gauge,
    unit: "1",
    help: "1 when receipts are given with weaker durability than production asks for, 0 otherwise.",
    labels: &[],
};
const STOCK_SITES: Row = Row {
    name: "rationd.stock.sites",
    kind: Kind::Gauge,
    unit: "{site}",
    help: "Stocks that are shown, by what is said of them: a level, or that it is stale or unverified besides.",
    labels: &["state"],
};
const STOCK_AGE: Row = Row {
    name: "rationd.stock.age",
    kind: Kind::Gauge,
    unit: "s",
    help: "For how long nothing of what happens could be read into levels of stock.",
    labels: &[],
};
const FEED_DURATION: Row = Row {
    name: "rationd.feed.duration",
    kind: Kind::Histogram,
    unit: "s",
    help: "Time to make an answer of the public feed, by endpoint and HTTP status.",
    labels: &["endpoint", "status"],
};
const SESSIONS_LIVE: Row = Row {
    name: "rationd.sessions.live",
    kind: Kind::Gauge,
    unit: "{session}",
    help: "Sessions whose stream is open on this instance.",
    labels: &[],
};
const SESSIONS_CAPACITY: Row = Row {
    name: "rationd.sessions.capacity",
    kind: Kind::Gauge,
    unit: "{session}",
    help: "Sessions that may be live in the nation, under the switches that this instance goes by.",
    labels: &[],
};
const SESSIONS_WAITING: Row = Row {
    name: "rationd.sessions.waiting",
    kind: Kind::Gauge,
    unit: "{terminal}",
    help: "Terminals that wait in line in the nation, as this instance has read it last.",
    labels: &[],
};
const SESSIONS_OPENED: Row = Row {
    name: "rationd.sessions.opened",
    kind: Kind::Counter,
    unit: "{session}",
    help: "Attempts of terminals to open a session, by what became of them.",
    labels: &["outcome"],
};
const SESSIONS_FOREIGN_TOKENS: Row = Row {
    name: "rationd.sessions.foreign_tokens",
    kind: Kind::Counter,
    unit: "{token}",
    help: "Session tokens shown by somebody to whom they were not given: a token has got into other hands.",
    labels: &[],
};
const POLICY_RELOADS: Row = Row {
    name: "rationd.policy.reloads",
    kind: Kind::Counter,
    unit: "{reload}",
    help: "Readings of the policy files while running, by whether they were taken.",
    labels: &["outcome"],
};
const TLS_RELOADS: Row = Row {
    name: "rationd.tls.reloads",
    kind: Kind::Counter,
    unit: "{reload}",
    help: "Changes of the files of certificates while running, by what they are for and whether they were taken.",
    labels: &["part", "outcome"],
};
const TLS_EXPIRY: Row = Row {
    name: "rationd.tls.certificate.expiry",
    kind: Kind::Gauge,
    unit: "s",
    help: "When the service's own certificate expires, in seconds since 1970.",
    labels: &[],
};
const TLS_REVOKED: Row = Row {
    name: "rationd.tls.revoked",
    kind: Kind::Gauge,
    unit: "{certificate}",
    help: "Certificates on the lists of revoked ones that this instance goes by.",
    labels: &[],
};
const TLS_REFUSED: Row = Row {
    name: "rationd.tls.refused",
    kind: Kind::Counter,
    unit: "{connection}",
    help: "Connections whose certificate was not believed, when they began or while they stood, by why.",
    labels: &["why", "when"],
};
const CONNECTIONS_CUT: Row = Row {
    name: "rationd.connections.cut",
    kind: Kind::Counter,
    unit: "{connection}",
    help: "Connections that this instance cut off because of what their peer did or did not do, by why; the log names who.",
    labels: &["why"],
};
const LOOK_UPS_SLOWED: Row = Row {
    name: "rationd.look_ups.slowed",
    kind: Kind::Counter,
    unit: "{call}",
    help: "Look-ups turned away, and refusals that told no more than no, because their site looks up many people to whom it \
           does not sell; the log names the site.",
    labels: &[],
};
const VOIDS: Row = Row {
    name: "rationd.voids",
    kind: Kind::Counter,
    unit: "{sale}",
    help: "Sales taken back, by whom.",
    labels: &["by"],
};
const VOIDS_UNUSUAL: Row = Row {
    name: "rationd.voids.unusual",
    kind: Kind::Counter,
    unit: "{warning}",
    help: "Warnings of sites that take back unusually many of their sales; the log names the site.",
    labels: &[],
};
const UPLOADED: Row = Row {
    name: "rationd.uploaded",
    kind: Kind::Counter,
    unit: "{sale}",
    help: "Late sales that were uploaded, each time that they were, by what became of them.",
    labels: &["verdict"],
};
const AUDIT_RECORDED: Row = Row {
    name: "rationd.audit.recorded",
    kind: Kind::Counter,
    unit: "{access}",
    help: "Accesses that were put on record in the audit log.",
    labels: &[],
};
const AUDIT_NOT_RECORDED: Row = Row {
    name: "rationd.audit.not_recorded",
    kind: Kind::Counter,
    unit: "{access}",
    help: "Accesses of counters of which there is no record, because the audit log could not take it; its chain says how many.",
    labels: &[],
};
const AUDIT_FAILING: Row = Row {
    name: "rationd.audit.failing",
    kind: Kind::Gauge,
    unit: "1",
    help: "1 when nothing can be put on record: counters sell on, operators are refused. 0 otherwise.",
    labels: &[],
};

/// Every instrument of the service.
pub const TABLE: [Row; 30] = [
    DECISIONS,
    NEAR_LIMIT,
    RPC_DURATION,
    TRIP_DURATION,
    LANES_WAIT,
    DB_DURATION,
    OVER_ADMITTED,
    STORE_SERVING,
    STORE_VOLATILE,
    STOCK_SITES,
    STOCK_AGE,
    FEED_DURATION,
    SESSIONS_LIVE,
    SESSIONS_CAPACITY,
    SESSIONS_WAITING,
    SESSIONS_OPENED,
    SESSIONS_FOREIGN_TOKENS,
    POLICY_RELOADS,
    TLS_RELOADS,
    TLS_EXPIRY,
    TLS_REVOKED,
    TLS_REFUSED,
    CONNECTIONS_CUT,
    LOOK_UPS_SLOWED,
    VOIDS,
    VOIDS_UNUSUAL,
    UPLOADED,
    AUDIT_RECORDED,
    AUDIT_NOT_RECORDED,
    AUDIT_FAILING,
];

/// Upper bounds of the histograms' buckets in seconds: the targets of the service lie between 1 ms and 1 s.
pub const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

macro_rules! label {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $type {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The value as it stands in the label.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

label! {
    /// What a counter asked for.
    Verb {
        /// A look that changes nothing.
        Check = "check",
        /// A sale.
        Purchase = "purchase",
        /// A claim that expires unless confirmed.
        Hold = "hold",
        /// Makes a hold a sale.
        Confirm = "confirm",
        /// Gives a hold back.
        Release = "release",
        /// Takes a sale back.
        Void = "void",
        /// What became of a request id.
        Resolve = "resolve",
        /// A sale that was made on paper.
        Late = "late",
    }
}

label! {
    /// A verb of the ledger.
    StoreVerb {
        /// The atomic check-and-set.
        Claim = "claim",
        /// Makes a hold a sale.
        Confirm = "confirm",
        /// Gives a hold back.
        Release = "release",
        /// Takes a sale back.
        Void = "void",
        /// Records a sale made on paper.
        Late = "late",
        /// What became of an id.
        Resolve = "resolve",
        /// Reads a record.
        Usage = "usage",
        /// Removes old entries.
        Sweep = "sweep",
        /// Reads some records for an export.
        Export = "export",
        /// Events of the outbox are read.
        Events = "events",
    }
}

label! {
    /// How a trip to the store ended.
    TripOutcome {
        /// The store decided.
        Ok = "ok",
        /// The id was used with other content.
        RequestIdReused = "request_id_reused",
        /// The id was closed.
        RequestIdClosed = "request_id_closed",
        /// Too many dead entries of this site.
        BuyerRecordFull = "buyer_record_full",
        /// The store is away or unfit.
        StoreUnavailable = "store_unavailable",
        /// The store has too few replicas.
        ReplicasMissing = "replicas_missing",
        /// The clocks are too far apart.
        ClocksApart = "clocks_apart",
        /// Too much was waiting already.
        Overloaded = "overloaded",
        /// Sent, and no answer came.
        Unconfirmed = "unconfirmed",
        /// The answer cannot be read.
        Corrupt = "corrupt",
    }
}

label! {
    /// What became of an attempt to open a session.
    SessionOutcome {
        /// It has a seat.
        Admitted = "admitted",
        /// It has the seat of its own earlier session.
        Replaced = "replaced",
        /// It has a place in the line.
        Waiting = "waiting",
        /// All slots of the site are taken.
        SiteFull = "site_full",
        /// Operators let nobody new in.
        Shut = "shut",
        /// The site is not known, or may not open sessions.
        Rejected = "rejected",
        /// Nobody could decide.
        Unavailable = "unavailable",
    }
}

label! {
    /// What is said of a stock.
    StockState {
        /// Its level.
        Plenty = "plenty",
        /// Its level.
        Some = "some",
        /// Its level.
        Few = "few",
        /// Its level.
        Empty = "empty",
        /// Its site does not sell for now.
        Paused = "paused",
        /// Besides: nothing was heard for longer than is usual.
        Stale = "stale",
        /// Besides: something may be missing.
        Unverified = "unverified",
    }
}

label! {
    /// What became of a reading of changed files.
    ReloadOutcome {
        /// What they say is in force.
        Applied = "applied",
        /// The files were refused; what was in force stays so.
        Rejected = "rejected",
    }
}

label! {
    /// Who took a sale back.
    VoidedBy {
        /// The site that sold.
        Site = "site",
        /// Somebody who runs the service.
        Operator = "operator",
    }
}

label! {
    /// What files of certificates are for.
    TlsPart {
        /// The service's own certificate and its key.
        Own = "own",
        /// The authorities of its callers and their lists of revoked certificates.
        Clients = "clients",
    }
}

label! {
    /// Why a certificate was not believed.
    RefusedWhy {
        /// None was shown.
        None = "none",
        /// It is on its authority's list.
        Revoked = "revoked",
        /// It has expired.
        Expired = "expired",
        /// Its authority is not one of ours.
        UnknownAuthority = "unknown_authority",
        /// Anything else.
        Other = "other",
    }
}

label! {
    /// When a certificate was not believed.
    RefusedWhen {
        /// When the connection began.
        Greeting = "greeting",
        /// While it stood.
        Standing = "standing",
    }
}

label! {
    /// Why a connection was cut off.
    CutWhy {
        /// Its greeting took too long.
        Greeting = "greeting",
        /// It said nothing.
        Silent = "silent",
        /// It asked for nothing.
        NothingAsked = "nothing_asked",
        /// Its peer, or its address while nobody knew the peer, has too many.
        TooMany = "too_many",
        /// It gave up streams too often.
        Resets = "resets",
        /// It sent too many frames that bring nothing.
        IdleFrames = "idle_frames",
        /// It took no answers.
        TakesNothing = "takes_nothing",
    }
}

/// The instruments. Recording is a few atomic additions and never waits.
pub struct Metrics {
    decisions: Counter<u64>,
    near_limit: Counter<u64>,
    rpc_duration: Histogram<f64>,
    trip_duration: Histogram<f64>,
    lanes_wait: Histogram<f64>,
    db_duration: Histogram<f64>,
    over_admitted: Counter<u64>,
    store_serving: Gauge<u64>,
    store_volatile: Gauge<u64>,
    stock_sites: Gauge<u64>,
    stock_age: Gauge<u64>,
    feed_duration: Histogram<f64>,
    sessions_live: Gauge<u64>,
    sessions_capacity: Gauge<u64>,
    sessions_waiting: Gauge<u64>,
    sessions_opened: Counter<u64>,
    sessions_foreign_tokens: Counter<u64>,
    policy_reloads: Counter<u64>,
    tls_reloads: Counter<u64>,
    tls_expiry: Gauge<u64>,
    tls_revoked: Gauge<u64>,
    tls_refused: Counter<u64>,
    connections_cut: Counter<u64>,
    look_ups_slowed: Counter<u64>,
    voids: Counter<u64>,
    voids_unusual: Counter<u64>,
    uploaded: Counter<u64>,
    audit_recorded: Counter<u64>,
    audit_not_recorded: Counter<u64>,
    audit_failing: Gauge<u64>,
}

impl Metrics {
    /// Instruments that measure nothing, for whoever runs a part of the service alone.
    pub fn none() -> Self {
        Self::new(&NoopMeterProvider::default().meter("rationd"))
    }

    pub(super) fn new(meter: &Meter) -> Self {
        let counter = |row: Row| {
            debug_assert_eq!(row.kind, Kind::Counter);
            meter.u64_counter(row.name).with_unit(row.unit).with_description(row.help).build()
        };
        let gauge = |row: Row| {
            debug_assert_eq!(row.kind, Kind::Gauge);
            meter.u64_gauge(row.name).with_unit(row.unit).with_description(row.help).build()
        };
        let histogram = |row: Row| {
            debug_assert_eq!(row.kind, Kind::Histogram);
            let builder = meter.f64_histogram(row.name).with_unit(row.unit).with_description(row.help);
            builder.with_boundaries(BUCKETS.to_vec()).build()
        };
        let metrics = Self {
            decisions: counter(DECISIONS),
            near_limit: counter(NEAR_LIMIT),
            rpc_duration: histogram(RPC_DURATION),
            trip_duration: histogram(TRIP_DURATION),
            lanes_wait: histogram(LANES_WAIT),
            db_duration: histogram(DB_DURATION),
            over_admitted: counter(OVER_ADMITTED),
            store_serving: gauge(STORE_SERVING),
            store_volatile: gauge(STORE_VOLATILE),
            stock_sites: gauge(STOCK_SITES),
            stock_age: gauge(STOCK_AGE),
            feed_duration: histogram(FEED_DURATION),
            sessions_live: gauge(SESSIONS_LIVE),
            sessions_capacity: gauge(SESSIONS_CAPACITY),
            sessions_waiting: gauge(SESSIONS_WAITING),
            sessions_opened: counter(SESSIONS_OPENED),
            sessions_foreign_tokens: counter(SESSIONS_FOREIGN_TOKENS),
            policy_reloads: counter(POLICY_RELOADS),
            tls_reloads: counter(TLS_RELOADS),
            tls_expiry: gauge(TLS_EXPIRY),
            tls_revoked: gauge(TLS_REVOKED),
            tls_refused: counter(TLS_REFUSED),
            connections_cut: counter(CONNECTIONS_CUT),
            look_ups_slowed: counter(LOOK_UPS_SLOWED),
            voids: counter(VOIDS),
            voids_unusual: counter(VOIDS_UNUSUAL),
            uploaded: counter(UPLOADED),
            audit_recorded: counter(AUDIT_RECORDED),
            audit_not_recorded: counter(AUDIT_NOT_RECORDED),
            audit_failing: gauge(AUDIT_FAILING),
        };
        // It is watched for its 0, which must be there to be seen.
        metrics.over_admitted.add(0, &[]);
        metrics
    }

    /// A line of a visit was answered. `programme` is one that is configured, never what a caller wrote; `outcome` is the
    /// stable name of the answer.
    pub fn decided(&self, programme: ProgrammeId, verb: Verb, outcome: &'static str) {
        self.decisions.add(
            1,
            &[
                KeyValue::new("programme", programme.to_string()),
                KeyValue::new("verb", verb.name()),
                KeyValue::new("outcome", outcome),
            ],
        );
    }

    /// So many accesses were put on record, or could not be, since the last time; and whether none can be now.
    pub fn audited(&self, recorded: u64, not_recorded: u64, failing: bool) {
        self.audit_recorded.add(recorded, &[]);
        self.audit_not_recorded.add(not_recorded, &[]);
        self.audit_failing.record(u64::from(failing), &[]);
    }

    /// A sale left its buyer with nothing for now.
    pub fn near_limit(&self, programme: ProgrammeId) {
        self.near_limit.add(1, &[KeyValue::new("programme", programme.to_string())]);
    }

    /// A call ended. `method` is a fully qualified one of ours (`rationd.v1.PurchaseService/Purchase`) or `_OTHER`, never the
    /// path as sent; `code` is gRPC's name of the status, such as `OK`.
    pub fn called(&self, method: &'static str, code: &'static str, took: Duration) {
        self.rpc_duration.record(
            took.as_secs_f64(),
            &[
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method),
                KeyValue::new("rpc.response.status_code", code),
            ],
        );
    }

    /// The store decided, or did not.
    pub fn tripped(&self, verb: StoreVerb, outcome: TripOutcome, took: Duration) {
        self.trip_duration.record(
            took.as_secs_f64(),
            &[KeyValue::new("verb", verb.name()), KeyValue::new("outcome", outcome.name())],
        );
    }

    /// A trip to Redis is over, with all the calls that it carried.
    pub fn carried(&self, waited: Duration, took: Duration, answered: bool) {
        let failed = (!answered).then(|| KeyValue::new("error.type", "unanswered"));
        let about = [KeyValue::new("db.system.name", "redis"), KeyValue::new("db.operation.name", "PIPELINE")];
        self.lanes_wait.record(waited.as_secs_f64(), &[]);
        self.db_duration.record(took.as_secs_f64(), &about.into_iter().chain(failed).collect::<Vec<_>>());
    }

    /// A claim was recorded that goes beyond a limit.
    pub fn over_admitted(&self) {
        self.over_admitted.add(1, &[]);
    }

    /// Whether claims can be recorded.
    pub fn store_serving(&self, serving: bool) {
        self.store_serving.record(u64::from(serving), &[]);
    }

    /// Whether receipts say `durability=volatile`.
    pub fn store_volatile(&self, volatile: bool) {
        self.store_volatile.record(u64::from(volatile), &[]);
    }

    /// How many stocks are shown of which it is said that they are so.
    pub fn stock_shown(&self, state: StockState, sites: u64) {
        self.stock_sites.record(sites, &[KeyValue::new("state", state.name())]);
    }

    /// For how long nothing could be read into levels of stock.
    pub fn stock_age(&self, age: Duration) {
        self.stock_age.record(age.as_secs(), &[]);
    }

    /// The public feed answered: one of its paths, and how.
    pub fn feed_answered(&self, endpoint: &'static str, status: u16, took: Duration) {
        let labels = [KeyValue::new("endpoint", endpoint), KeyValue::new("status", i64::from(status))];
        self.feed_duration.record(took.as_secs_f64(), &labels);
    }

    /// How many sessions' streams are open on this instance.
    pub fn sessions_live(&self, sessions: u64) {
        self.sessions_live.record(sessions, &[]);
    }

    /// How many terminals wait in line, and how many sessions may be live.
    pub fn line(&self, waiting: u64, capacity: u64) {
        self.sessions_waiting.record(waiting, &[]);
        self.sessions_capacity.record(capacity, &[]);
    }

    /// A terminal tried to open a session.
    pub fn session_opened(&self, outcome: SessionOutcome) {
        self.sessions_opened.add(1, &[KeyValue::new("outcome", outcome.name())]);
    }

    /// A token was shown by somebody to whom it was not given.
    pub fn foreign_token(&self) {
        self.sessions_foreign_tokens.add(1, &[]);
    }

    /// The policy files were read again.
    pub fn policy_reloaded(&self, outcome: ReloadOutcome) {
        self.policy_reloads.add(1, &[KeyValue::new("outcome", outcome.name())]);
    }

    /// Changed files of certificates were read.
    pub fn tls_reloaded(&self, part: TlsPart, outcome: ReloadOutcome) {
        self.tls_reloads.add(1, &[KeyValue::new("part", part.name()), KeyValue::new("outcome", outcome.name())]);
    }

    /// When the service's own certificate expires, since 1970.
    pub fn tls_expires(&self, at: Duration) {
        self.tls_expiry.record(at.as_secs(), &[]);
    }

    /// How many certificates are on the lists of revoked ones.
    pub fn tls_revoked(&self, certificates: usize) {
        self.tls_revoked.record(u64::try_from(certificates).unwrap_or(u64::MAX), &[]);
    }

    /// A certificate was not believed, and its connection is none.
    pub fn certificate_refused(&self, why: RefusedWhy, when: RefusedWhen) {
        self.tls_refused.add(1, &[KeyValue::new("why", why.name()), KeyValue::new("when", when.name())]);
    }

    /// A connection was cut off.
    pub fn connection_cut(&self, why: CutWhy) {
        self.connections_cut.add(1, &[KeyValue::new("why", why.name())]);
    }

    /// A look-up was turned away.
    pub fn look_up_slowed(&self) {
        self.look_ups_slowed.add(1, &[]);
    }

    /// A sale was taken back.
    pub fn voided(&self, by: VoidedBy) {
        self.voids.add(1, &[KeyValue::new("by", by.name())]);
    }

    /// A late sale was uploaded, and this became of it.
    pub fn uploaded(&self, verdict: &'static str) {
        self.uploaded.add(1, &[KeyValue::new("verdict", verdict)]);
    }

    /// A site was warned of.
    pub fn unusual_voids(&self) {
        self.voids_unusual.add(1, &[]);
    }
}

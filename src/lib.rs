//! `rationd` answers one question for every counter in a country, exactly once and fast: *may this person buy this rationed
//! thing here, now?* and records the sale in the same atomic step.
//!
//! # The way of a sale
//!
//! ```text
//! terminal ──gRPC──> grpc/purchase  convert: wire → domain, field path on every bad field
//!                       │
//!                    session      is this terminal's session live? (local registry, no I/O in the usual case)
//!                       │
//!                    purchase     the use case, one screen:
//!                       ├ buyer     parse the number → pseudonym + the few facts a rule may see
//!                       ├ policy    pure: facts + calendar day → windows, or the reasons to refuse
//!                       └ ledger    claim(windows) → recorded | replayed | refused: one script, one trip
//!                                   (refused by policy: one read-only trip instead)
//!                       │
//!                    grpc/convert   domain → wire: receipt or refusal, what is left, when next
//! ```
//!
//! Data goes down once and comes back once. `policy` never learns who the buyer is; `ledger` never learns why a window is
//! what it is; `grpc` never learns where a claim is stored.
//!
//! # Code map
//!
//! Modules in reading order. Imports go downward only; `tests/tidy.rs` holds the table of who may import whom and fails on an
//! edge that is not in it.
//!
//! | place | owns |
//! |---|---|
//! | [`ids`], [`time`], [`sites`], [`tls`] | names, instants and clocks, the site registry, certificates and keys: parsing is validating |
//! | [`museum`] | seeded bugs that the tests must catch; nothing in an ordinary build |
//! | [`buyer`] | numbers and pseudonyms; the only place where a national number exists besides the wire |
//! | [`policy`] | programmes as effective-dated data; windows and refusals; pure |
//! | [`ledger`] | the port, [`ledger::rules`] (the semantics, once), `ledger::redis` and `ledger::embedded` |
//! | [`session`] | seats of terminals and the line in front of them: the limiter, pure; the doors in Redis and redb; the registry of one instance |
//! | [`stock`] | what each site has left, from what happened: [`stock::levels`], the fold, pure; [`stock::board`], from which everybody is answered |
//! | [`purchase`] | the use case; [`purchase::receipt`], what a receipt says and the MAC that it is checked by |
//! | [`journal`] | sales that were made while nobody could be asked: taken in once, marked or put aside; a book of them for each site |
//! | [`events`] | what happened to purchases, for whoever follows it |
//! | [`export`] | the records of a programme, for an audit |
//! | [`audit`] | the audit log: every access, in a chain of records; [`audit::chain`], what a record is; [`audit::verify`] |
//! | [`conduct`] | how much of what somebody may do |
//! | [`feed`] | the public stock feed over HTTP |
//! | [`grpc`] | the services, errors as statuses, who is calling |
//! | `grpc/accept`, `crowd`, `guard`, `returns`, `corked` | a connection from the kernel to its end: how it begins, who has how many, what cuts it off and how it comes back, when its answers leave |
//! | `grpc/limits` | every limit on what a connection may do, in one place |
//! | [`terminal`] | the client library; [`terminal::counter`] for the program at a counter, over the [journal](terminal::journal) that it keeps on its disk |
//! | [`load`] | the load harness and its audit |
//! | [`config`], [`telemetry`], [`redis_pool`], [`drain`] | what their names say |
//! | `buyer/key_ring`, `config/turning`, `ledger/redis/rings` | turning the ring: its keys and what a store under another turn means; the steps on the key file; following it while others sell |
//! | [`certs`] | certificates for development |
//! | [`cli`], [`app`] | the commands; the composition, which alone names concrete stores |
//! | `fuzzing` | whatever is read from outside, each kind by one function; in no build but a test's or a fuzzer's |
//!
//! To find a behaviour: what a clerk is told is in [`purchase`]; why, in [`policy`]; what is stored, in [`ledger::rules`].
//!
//! # Invariants
//!
//! * **One step.** Whether every window allows a claim and its recording are one script in Redis, one transaction in redb. No
//!   code reads a record, decides and then writes.
//! * **A known request id is never judged.** It answers with what became of it, before any rule is looked at, also across a
//!   midnight and a change of rules. Only an entry that is SOLD yields a receipt.
//! * **A receipt is made from the ledger's answer**, never before it, and of nothing that one instance knows and another does not: so
//!   it is the same whoever is asked, and its MAC is too.
//! * **Silence is not an answer.** Only an error of ours with a reason listed as *not executed* means that nothing was written.
//!   Everything else leaves the outcome unknown, and the request id resolves it. An id that was asked about before it was used is
//!   closed, so that a late copy can never become a sale.
//! * **A refusal is a value**, ordered by precedence ([`policy::Refusal`]); an error is a failure. Neither looks like the other.
//! * **Who calls is what the connection has proved.** A certificate is read once, when the connection begins, and bounds what its holder may
//!   do; metadata choose within the bounds, and a session's token is good only with the key to which it was given. In the clear there
//!   are no bounds, and nothing but loopback.
//! * **The service's clock decides**, never the request's, and never one that would date a sale before one that is already in the
//!   record. A judgement that the ledger's time has overtaken is made again.
//! * **Nothing is counted twice in two places.** What is used of a window is the sum over the record; there is no counter beside it.
//! * **A number is unprintable by type** and gone after [`purchase::Purchases::prepare`]. Logs, spans, metrics, errors and stores never
//!   see it, nor a whole pseudonym in text: the audit log makes its own, which are good for a month.
//! * **Nothing is written under a ring that was left.** Every partition says under which turn of the key ring it is written, and whatever
//!   writes compares it in the same step; the ring goes on and never back. So a buyer has one record, however many key files are about.
//! * **An answer leaves after its record.** Where there is an audit log, what it tells a counter is in the hands of the operating system
//!   first, and an operator's on the disk; only a disk that stands still, or is full, lets counters' answers go without, and they are counted.
//! * **The store may be away; then nothing is sold.** The service starts without it, says NOT_SERVING and keeps trying. A store that is
//!   there and may lose sales is refused.

pub mod ids;
pub mod museum;
pub mod sites;
pub mod time;
pub mod tls;

pub mod buyer;
pub mod policy;

pub mod ledger;
pub mod redis_pool;
pub mod session;
pub mod stock;

pub mod audit;
pub mod conduct;
pub mod events;
pub mod export;
pub mod journal;
pub mod purchase;

pub mod feed;
pub mod grpc;
pub mod load;
pub mod terminal;

pub mod app;
pub mod certs;
pub mod cli;
pub mod config;
pub mod drain;
pub mod telemetry;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

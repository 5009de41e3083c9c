//! Every limit on what a connection may do, in one place. Nothing here is left to what a library takes by default: defaults
//! change, and some are none at all.
//!
//! README.md shows them, and a test holds the two together.

use std::time::Duration;

/// How long a greeting may take, and after it the first words, and then the first call: some round trips of the worst line.
pub const GREETED_WITHIN: Duration = Duration::from_secs(5);
/// Greetings under way at once.
pub const GREETINGS: usize = 512;
/// Of them from one address: however many stand still, others are greeted.
pub const GREETINGS_OF_ONE_ADDRESS: usize = 128;
/// Connections of one address that have not been greeted yet; those beyond them are closed.
pub const UNGREETED_OF_ONE_ADDRESS: usize = 1024;
/// Connections of one certificate's site, operator or feed: more than a site has seats. A gateway has half of all.
pub const CONNECTIONS_OF_ONE_SITE: usize = 1024;
/// Whoever was cut off begins its next connections so far apart.
pub const RETURNS_EVERY: Duration = Duration::from_millis(400);
/// The same of a gateway, which speaks for many.
pub const RETURNS_OF_A_GATEWAY_EVERY: Duration = Duration::from_millis(10);
/// How long one of them may wait: less than a call, so that what was asked meanwhile has not been given up.
pub const RETURNS_WITHIN: Duration = Duration::from_secs(2);
/// For how long after the last time.
pub const HELD_AGAINST: Duration = Duration::from_secs(10);
/// Of so many of them it is remembered.
pub const HELD_AT_ONCE: usize = 4096;
/// The most connections to the admin listener: probes, scrapes and operators.
pub const MAX_ADMIN_CONNECTIONS: usize = 64;
/// Of them from one address, of those that no certificate names: however many stand there, probes from another get through.
pub const ADMIN_CONNECTIONS_OF_ONE_ADDRESS: usize = 16;
/// The most connections to the feed's listener beside that of the counters; where the feed is apart as many as there are files.
pub const MAX_FEED_CONNECTIONS: usize = 1024;
/// The same where the feed is apart: what that many idle ones take is a quarter of what a pod has.
pub const MAX_FEED_CONNECTIONS_APART: usize = 4096;
/// How long a connection of HTTP/1.1 to it waits for its next request: longer than proxies keep theirs.
pub const FEED_IDLE: Duration = Duration::from_secs(75);
/// Calls for stock that may wait for their answer at once; watchers are not among them. Each is answered from memory.
pub const FEED_CALLS: usize = 256;
/// The most who watch at once: everything that becomes known is written so many times.
pub const WATCHERS: usize = 1000;

/// The most who upload journals at once: each has some messages of its own in memory, and all of them go through in turn.
pub const UPLOADS: usize = 256;
/// Of them of one site: its terminals, and a clerk who types in paper.
pub const UPLOADS_OF_A_SITE: usize = 4;

/// Calls under way at once on a connection, sessions' streams among them.
pub const STREAMS: u32 = 64;
/// Which part of all calls under way may be those of one certificate's site, operator or feed on all its connections.
pub const CALLS_OF_A_SITE: usize = 16;
/// The same of a gateway, which speaks for many sites.
pub const CALLS_OF_A_GATEWAY: usize = 2;
/// How long the message of a call may take to come, after its headers: meanwhile it takes a place that others want.
pub const MESSAGE_WITHIN: Duration = Duration::from_secs(2);
/// How much a client may send on a stream before the service has taken it.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// The same on all streams of a connection together.
pub const CONNECTION_WINDOW: u32 = 256 * 1024;
/// The largest frame.
pub const FRAME: u32 = 16 * 1024;
/// All headers of a call, unpacked.
pub const HEADERS: u32 = 8 * 1024;
/// The largest message that a call may carry: a visit of sixteen lines fits several times over.
pub const MESSAGE: usize = 16 * 1024;
/// The same of an operator: a document of switches has a line for every site of a country.
pub const OPERATORS_MESSAGE: usize = 1024 * 1024;
/// How much is kept of answers that a stream's client does not take.
pub const UNTAKEN: usize = 64 * 1024;
/// How long a client may take nothing of the answers that wait for it.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// The same of operators, who may be reading.
pub const TAKEN_WITHIN_BY_OPERATORS: Duration = Duration::from_secs(600);
/// The same of those who take the stock to the public: what they do with it may take a while, and they hold nothing meanwhile but what
/// waits for them.
pub const TAKEN_WITHIN_BY_FEEDS: Duration = Duration::from_secs(60);

/// Streams that were given up before anybody looked at them, at once on a connection.
pub const RESETS_PENDING: usize = 20;
/// Streams that the service had to break off for errors of the client, over the life of a connection.
pub const RESETS_PROVOKED: usize = 256;
/// Streams that a client gives up.
pub const RESETS: Rate = Rate { at_once: 256, per_second: 100 };
/// Frames that bring nothing: pings, settings, priorities, windows, continuations, unknown ones and data of a few bytes.
pub const IDLE_FRAMES: Rate = Rate { at_once: 1000, per_second: 200 };
/// So many more of them with every frame that brings something: a client that works opens windows and measures its line.
pub const IDLE_FRAMES_EARNED: u32 = 4;
/// Data below this brings nothing, unless it ends its stream.
pub const TINY: u32 = 16;

/// Lines in the log about greetings that failed, and as many about connections that were cut off: strangers write them.
pub const LINES: Rate = Rate { at_once: 10, per_second: 1 };

/// Headers of a call over HTTP/1.1, which the admin listener speaks, and the feed's.
pub const HTTP1_HEADERS: usize = 64;
/// How much of such a call is kept before it is read.
pub const HTTP1_BUFFER: usize = 16 * 1024;

/// A peer that vanished without a word keeps its streams, and so its seats are renewed, until a ping goes unanswered: this
/// long after its last sign of life at the most. Its seats come free a lease later. Asked more seldom, a seat would be lost for
/// longer than is promised. TCP's own keepalive would say nothing more: it is not set.
pub const PEER_ASKED_EVERY: Duration = Duration::from_secs(3);
/// See [`PEER_ASKED_EVERY`].
pub const PEER_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// So many at once, and so many more in every second.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// As many as there may be after a while without any.
    pub at_once: u32,
    /// How fast they come back.
    pub per_second: u32,
}

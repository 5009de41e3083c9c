//! A Redis Cluster as its nodes tell of it: which primary holds a slot, and which replicas it has. Every node that is known is
//! asked, those of the URL and those that they name.
//!
//! Of two primaries that claim a slot the one with the greater configuration epoch holds it; that is the Cluster's own rule.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::watchers::{ASK_TIMEOUT, Node, Replica, View, client, visit};

/// The port of a node whose port is not named.
const DEFAULT_PORT: u16 = 6_379;
/// Watchers who ask within so long are told the same.
const FRESH: Duration = Duration::from_millis(100);

/// A hash slot, 0 to 16,383.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Where a key is kept: CRC16 (XMODEM) of what stands between its first braces, or of all of it, modulo 16,384
    /// (Redis Cluster specification, "Hash tags").
    pub fn of(key: &[u8]) -> Self {
        let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
            let behind = key.get(open + 1..)?;
            behind.get(..behind.iter().position(|byte| *byte == b'}')?).filter(|tag| !tag.is_empty())
        });
        Self(crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key)) % 16_384)
    }
}

/// The nodes of a Cluster, as far as they are known.
pub struct Cluster {
    /// Those of the URL.
    seeds: BTreeSet<Node>,
    /// How a node is dialled, but for its address.
    server: ConnectionInfo,
    kept: Mutex<HashMap<Node, MultiplexedConnection>>,
    /// What was told last, and when.
    told: Mutex<Option<(Instant, Arc<Vec<Table>>)>>,
    layout: watch::Sender<Arc<Layout>>,
    /// What a node that does not tell last said instead.
    refused: RwLock<Option<String>>,
}

/// Who holds which slots.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// What primaries claim, by epoch and name: of two that claim a slot the later one here holds it.
    claims: BTreeMap<(u64, String), Claim>,
    /// Slots that are on their way from one primary to another.
    moving: BTreeSet<Slot>,
    /// Those whose owner does not know of it.
    half_moved: BTreeSet<Slot>,
}

/// A primary and the slots that it claims.
type Claim = (Node, Vec<RangeInclusive<u16>>);

impl Layout {
    /// The primary that holds a slot, if it can be relied on to know that it does.
    ///
    /// A replica that takes over in the middle of a move does not know of the move (Redis 7.0 keeps that on the primary alone): for
    /// it, whoever has gone over already was never there. Only the other end still tells. Such a slot is nobody's.
    pub fn owner(&self, slot: Slot) -> Option<&Node> {
        if self.half_moved.contains(&slot) { None } else { self.claimant(slot).map(|(_, (node, _))| node) }
    }

    /// Whether any of these is on its way.
    pub fn is_moving(&self, mut slots: impl Iterator<Item = Slot>) -> bool {
        slots.any(|slot| self.moving.contains(&slot))
    }

    fn claimant(&self, slot: Slot) -> Option<(&(u64, String), &Claim)> {
        self.claims.iter().rev().find(|(_, (_, slots))| holds(slots, slot))
    }

    fn of(tables: &[Table]) -> Self {
        let mut layout = Self::default();
        for member in tables.iter().flat_map(|table| &table.members) {
            if !member.slots.is_empty() {
                let claim = layout.claims.entry((member.epoch, member.id.clone()));
                // What one has heard of and another has not.
                claim.or_insert_with(|| (member.node.clone(), Vec::new())).1.extend(member.slots.iter().cloned());
            }
        }
        layout.moving = tables.iter().flat_map(|table| table.leaving.iter().chain(&table.coming)).copied().collect();
        let knows = |slot: Slot| {
            let owner = layout.claimant(slot).map(|((_, id), _)| id);
            tables.iter().any(|table| Some(&table.of) == owner && table.leaving.contains(&slot))
        };
        layout.half_moved =
            tables.iter().flat_map(|table| &table.coming).copied().filter(|slot| !knows(*slot)).collect();
        for (_, slots) in layout.claims.values_mut() {
            slots.sort_by_key(|range| (*range.start(), *range.end()));
            slots.dedup();
        }
        layout
    }
}

fn holds(slots: &[RangeInclusive<u16>], slot: Slot) -> bool {
    slots.iter().any(|range| range.contains(&slot.0))
}

/// What one node says of all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    /// Which node it is.
    of: String,
    members: Vec<Member>,
    /// Slots that it gives to another.
    leaving: BTreeSet<Slot>,
    /// Slots that it gets from another.
    coming: BTreeSet<Slot>,
}

/// The nodes that these name.
fn named(tables: &[Table]) -> impl Iterator<Item = Node> {
    tables.iter().flat_map(|table| &table.members).map(|it| it.node.clone())
}

/// A node as another sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    id: String,
    node: Node,
    /// The primary that it replicates.
    replicates: Option<String>,
    /// A majority of the primaries holds it to be down.
    is_down: bool,
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
}

impl Table {
    /// Reads `CLUSTER NODES` of this node. One that nobody has met yet, or whose address is not known, is left out.
    fn read(text: &str, node: &Node) -> Option<Self> {
        let own = text.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")))?;
        // Only its own line says what is on its way: `[93->-ID]` goes, `[93-<-ID]` comes.
        let on_their_way = |mark: &str| {
            let words = own.split_whitespace().skip(8).filter_map(|word| word.strip_prefix('[')?.split_once(mark));
            words.filter_map(|(slot, _)| slot.parse().ok().map(Slot)).collect()
        };
        Some(Self {
            of: own.split(' ').next()?.to_owned(),
            members: text.lines().filter_map(|line| Member::read(line, node)).collect(),
            leaving: on_their_way("->-"),
            coming: on_their_way("-<-"),
        })
    }

    /// What it says of the primary that holds a slot.
    fn view(&self, slot: Slot) -> Option<View> {
        let primary = self.members.iter().filter(|it| holds(&it.slots, slot)).max_by_key(|it| it.epoch)?;
        let replicas = self.members.iter().filter(|it| it.replicates.as_ref() == Some(&primary.id));
        // One that is gone and was never forgotten has no voice.
        let watchers = self.members.iter().filter(|it| !it.is_down || !it.slots.is_empty()).count();
        Some(View {
            primary: primary.node.clone(),
            epoch: primary.epoch,
            watchers,
            replicas: replicas
                .map(|it| Replica { node: it.node.clone(), is_down: it.is_down, is_one: true, gives_way: false })
                .collect(),
        })
    }
}

impl Member {
    /// `ID HOST:PORT@BUS[,NAME] FLAGS PRIMARY PING PONG EPOCH LINK SLOT…`, in the words of the node `of`.
    fn read(line: &str, of: &Node) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (&[id, address, flags, primary, _, _, epoch, _], slots) = words.split_first_chunk()?;
        let has = |flag| flags.split(',').any(|it| it == flag);
        if has("handshake") || has("noaddr") {
            return None;
        }
        let (host, port) = address.split('@').next()?.rsplit_once(':')?;
        let node = match host {
            // It does not know its own address until another node has told it.
            "" if has("myself") => of.clone(),
            "" => return None,
            host => Node { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? },
        };
        // One that is on its way to or from another node stands in brackets.
        let slots = slots.iter().filter(|slot| !slot.starts_with('[')).map(|slot| {
            let (from, to) = slot.split_once('-').unwrap_or((slot, slot));
            Some(from.parse().ok()?..=to.parse().ok()?)
        });
        Some(Self {
            id: id.to_owned(),
            node,
            replicates: (primary != "-").then(|| primary.to_owned()),
            is_down: has("fail"),
            epoch: epoch.parse().ok()?,
            slots: slots.collect::<Option<_>>()?,
        })
    }
}

impl Cluster {
    /// Reads `redis+cluster://[USER:PASSWORD@]HOST[:PORT],…/`; name and password are those of every node. `rediss+cluster` speaks
    /// TLS. `None`: it is another kind of URL.
    pub(super) fn parse(url: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.strip_suffix("+cluster")?;
        Some(Self::parse_rest(scheme, rest))
    }

    fn parse_rest(scheme: &str, rest: &str) -> Result<Self, String> {
        let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(path, "" | "0") {
            return Err("a Cluster has no database but 0: end it behind the last node".into());
        }
        let info = |host: &str| {
            let at = if user.is_empty() { "" } else { "@" };
            let port =
                if host.ends_with(']') || !host.contains(':') { format!(":{DEFAULT_PORT}") } else { String::new() };
            let url = format!("{scheme}://{user}{at}{host}{port}/");
            url.into_connection_info().map_err(|error| error.to_string())
        };
        let mut seeds = BTreeSet::new();
        for host in hosts.split(',') {
            match info(host)?.addr() {
                ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                    seeds.insert(Node { host: host.clone(), port: *port });
                }
                _ => return Err("a node is named as HOST:PORT".into()),
            }
        }
        Ok(Self {
            seeds,
            server: info(hosts.split(',').next().unwrap_or_default())?,
            kept: Mutex::default(),
            told: Mutex::default(),
            layout: watch::Sender::default(),
            refused: RwLock::default(),
        })
    }

    /// How many nodes are known by the URL.
    pub(super) fn count(&self) -> usize {
        self.seeds.len()
    }

    /// How a node is dialled, but for its address.
    pub(super) fn server(&self) -> &ConnectionInfo {
        &self.server
    }

    /// Who held what when the nodes were last asked.
    pub fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout.borrow())
    }

    /// Tells when that changes.
    pub fn layouts(&self) -> watch::Receiver<Arc<Layout>> {
        self.layout.subscribe()
    }

    /// Asks all nodes who holds what, now. Unless one has answered, what was known stays.
    pub async fn look(&self) {
        self.tables(Duration::ZERO).await;
    }

    /// What each node that answers in time says of the primary that holds a slot.
    pub(super) async fn views(&self, slot: Slot) -> Vec<View> {
        self.tables(FRESH).await.iter().filter_map(|table| table.view(slot)).collect()
    }

    /// What is said when no node knows who holds a slot.
    pub fn nobody_knows(&self) -> String {
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        let refused = refused.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!(
            "no node of the Cluster says who holds every slot{refused}: see that those of the URL are up, and what CLUSTER NODES says \
             there"
        )
    }

    async fn tables(&self, fresh: Duration) -> Arc<Vec<Table>> {
        // Whoever comes while the nodes are asked waits for the same answers.
        let mut told = self.told.lock().await;
        let mut tables = Vec::new();
        let mut asked = BTreeSet::new();
        let mut to_ask = self.seeds.clone();
        match &*told {
            Some((when, tables)) if when.elapsed() < fresh => return Arc::clone(tables),
            Some((_, tables)) => to_ask.extend(named(tables)),
            None => {}
        }
        while !to_ask.is_empty() {
            let tell = to_ask.iter().map(|node| tokio::time::timeout(ASK_TIMEOUT, self.table(node)));
            tables.extend(join_all(tell).await.into_iter().filter_map(|table| table.ok()?.ok()));
            asked.append(&mut to_ask);
            to_ask = named(&tables).filter(|node| !asked.contains(node)).collect();
        }
        // One that was asked under two names speaks once.
        let mut heard = BTreeSet::new();
        tables.retain(|table: &Table| heard.insert(table.of.clone()));
        let tables = Arc::new(tables);
        if !tables.is_empty() {
            let layout = Layout::of(&tables);
            self.layout.send_if_modified(|known| {
                let has_changed = **known != layout;
                if has_changed {
                    *known = Arc::new(layout);
                }
                has_changed
            });
            *told = Some((Instant::now(), Arc::clone(&tables)));
        }
        tables
    }

    async fn table(&self, node: &Node) -> RedisResult<Table> {
        // Taken out: broken off half way, it is not used again.
        let kept = self.kept.lock().await.remove(node);
        let mut connection = match kept {
            Some(connection) => connection,
            None => visit(&client(&self.server, node)?).await?,
        };
        let told: RedisResult<String> = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await;
        let text = told.inspect_err(|error| {
            *self.refused.write().unwrap_or_else(PoisonError::into_inner) = Some(format!("{node}: {error}"));
        })?;
        self.kept.lock().await.insert(node.clone(), connection);
        Table::read(&text, node)
            .ok_or_else(|| (redis::ErrorKind::UnexpectedReturnType, "CLUSTER NODES is not readable").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Node {
        Node { host: "10.0.0.1".into(), port }
    }

    fn slot(number: u16) -> Slot {
        Slot(number)
    }

    const TOLD: &str = "\
        aa 10.0.0.1:1@101,name.example myself,master - 0 0 7 connected 0-5460 5462 [5461->-bb]\n\
        bb :0@0 master,noaddr - 0 0 2 disconnected 5461\n\
        cc 10.0.0.1:3@103 master,fail - 0 0 3 connected 10923-16383\n\
        dd 10.0.0.1:4@104 slave,fail? aa 0 0 7 connected\n\
        ee 10.0.0.1:5@105 slave,fail aa 0 0 7 disconnected\n\
        ff [::1]:6@106 slave cc 0 0 3 connected\n\
        gg 10.0.0.1:7@107 handshake - 0 0 0 connected\n";

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(Slot::of(b"123456789"), slot(0x31c3));
        assert_eq!(Slot::of(b"{7f}:km:0123"), Slot::of(b"7f"));
        assert_eq!(Slot::of(b"foo{}{bar}"), Slot(crc16::State::<crc16::XMODEM>::calculate(b"foo{}{bar}") % 16_384));
        assert_eq!(Slot::of(b"foo{{bar}}zap"), Slot::of(b"{bar"));
    }

    #[test]
    fn what_a_node_says_is_read() {
        let table = Table::read(TOLD, &node(1)).unwrap();
        assert_eq!(table.members.len(), 5, "who has no address or has not been met is left out");
        let view = table.view(slot(5_460)).unwrap();
        assert_eq!((view.primary, view.epoch), (node(1), 7));
        assert_eq!(view.watchers, 4, "a replica that has failed has no voice");
        let replicas: Vec<_> = view.replicas.into_iter().map(|it| (it.node.port, it.is_down)).collect();
        assert_eq!(replicas, [(4, false), (5, true)], "what one node suspects is no decision");
        assert_eq!(table.view(slot(5_462)).unwrap().primary, node(1));
        assert_eq!(table.view(slot(16_383)).unwrap().replicas[0].node, Node { host: "::1".into(), port: 6 });
        assert_eq!(table.view(slot(6_000)), None);
        let alone = Table::read("aa :1@101 myself,master - 0 0 0 connected 0-16383\n", &node(9)).unwrap();
        assert_eq!(alone.view(slot(0)).unwrap().primary, node(9));
    }

    fn table(text: &str) -> Table {
        Table::read(text, &node(9)).unwrap()
    }

    #[test]
    fn the_primary_of_the_greater_epoch_holds_a_slot() {
        let old =
            table("aa 10.0.0.1:1@1 myself,master - 0 0 1 connected 0-9\nbb 10.0.0.1:2@2 slave aa 0 0 1 connected\n");
        let new = table(
            "aa 10.0.0.1:1@1 master,fail - 0 0 1 connected\nbb 10.0.0.1:2@2 myself,master - 0 0 4 connected 0-9\n",
        );
        for tables in [[old.clone(), new.clone()], [new, old]] {
            assert_eq!(Layout::of(&tables).owner(slot(3)), Some(&node(2)));
        }
        assert_eq!(Layout::default().owner(slot(3)), None);
    }

    #[test]
    fn what_only_some_have_heard_of_an_epoch_counts() {
        let (more, less) =
            ("aa 10.0.0.1:1@1 myself,master - 0 0 4 connected 0-9 12", "aa 10.0.0.1:1@1 master - 0 0 4 connected 0-9");
        let less = table(&format!("bb 10.0.0.1:2@2 myself,slave aa 0 0 4 connected\n{less}\n"));
        for tables in [[table(more), less.clone()], [less, table(more)]] {
            assert_eq!(Layout::of(&tables).owner(slot(12)), Some(&node(1)));
        }
    }

    #[test]
    fn a_slot_whose_owner_does_not_know_that_it_is_on_its_way_is_nobodys() {
        let knows = table("aa 10.0.0.1:1@1 myself,master - 0 0 1 connected 0-9 [3->-bb]\n");
        let took_over = table("cc 10.0.0.1:3@3 myself,master - 0 0 5 connected 0-9\n");
        let other = table("bb 10.0.0.1:2@2 myself,master - 0 0 2 connected 10-19 [3-<-aa]\n");
        let whole = Layout::of(&[knows.clone(), other.clone()]);
        assert_eq!((whole.owner(slot(3)), whole.is_moving([slot(3)].into_iter())), (Some(&node(1)), true));
        let torn = Layout::of(&[knows, took_over, other]);
        assert_eq!((torn.owner(slot(3)), torn.owner(slot(4))), (None, Some(&node(3))));
    }

    #[test]
    fn urls_are_read() {
        let read = |url| {
            Cluster::parse(url)
                .map(|read| read.map(|it| it.seeds.iter().map(Node::to_string).collect::<Vec<_>>().join(" ")))
        };
        assert_eq!(read("redis://a:1/"), None);
        assert_eq!(read("redis+sentinel://a:1/store"), None);
        assert_eq!(read("redis+cluster://a:1,b:2,c"), Some(Ok("a:1 b:2 c:6379".into())));
        assert_eq!(read("rediss+cluster://me:pw@[::1]/0"), Some(Ok("::1:6379".into())));
        for bad in ["redis+cluster://a:1,b:x", "redis+cluster:///", "redis+cluster://a:1/3"] {
            assert!(matches!(read(bad), Some(Err(_))), "{bad}");
        }
    }
}

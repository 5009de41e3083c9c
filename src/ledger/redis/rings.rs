//! Following the key ring: every partition is written under one turn of it, and this process moves those that are still under the
//! turn before its own. Where others have turned it to the next key of this process, the first call that is refused for it lets the
//! process follow. Under any other turn nothing is sent: every call would be refused one by one, and health says why.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Pipeline, RedisError, RedisResult};

use crate::buyer::{OtherRing, Turn};
use crate::ledger::terms::{KEYS, TURNED};
use crate::ledger::{Kept, LedgerError, Terms};
use crate::time::Clock;

use super::identity::{NotOurs, identify};
use super::shards::Shard;
use super::{RedisLedger, encode, faults, keys, scripts};

impl<C: Clock> RedisLedger<C> {
    /// What this process works under now.
    pub(super) fn terms(&self) -> Terms {
        let kept = Kept { now: self.clock.now(), ..self.options.terms.kept };
        Terms { turn: *self.turn.borrow(), kept, ..self.options.terms.clone() }
    }

    /// Whether this process may be at a turn that moves nothing on: the ledger stands at it, and needs no key that it lacks.
    pub(super) async fn may_be_at(&self, turn: &Turn, kept: Kept) -> Result<(), LedgerError> {
        let away = |why: &dyn std::fmt::Display| LedgerError::StoreUnavailable(why.to_string());
        let home = self.shards().of(0)?;
        let mut connection = home.pool.connection().await.map_err(|error| away(&error))?;
        let mut ask = redis::cmd("HMGET");
        ask.arg(home.name().key()).arg(KEYS).arg(TURNED);
        let asked = ask.query_async(&mut **connection).await.map_err(|error: RedisError| away(&error))?;
        let (keys, turned): (Option<String>, Option<String>) = asked;
        // A ledger that has not begun will begin under it.
        if let Some(other) = keys.and_then(|keys| kept.refuses(turn, &keys, turned.as_deref())) {
            return Err(LedgerError::OtherRing(other));
        }
        // The key before is not needed, and no programme that keeps purchases longer brings it back.
        if turned.is_some() && home.standing.ledger().is_some() {
            let mut forget = redis::cmd("HDEL");
            forget.arg(home.name().key()).arg(TURNED);
            forget.query_async::<()>(&mut **connection).await.map_err(|error| away(&error))?;
        }
        Ok(())
    }

    /// Moves the partitions of this shard, and its standing to what follows from it.
    pub(super) async fn move_on(&self, shard: &Shard) -> Result<(), LedgerError> {
        shard.standing.alarm.notify_one();
        shard.standing.gate()?;
        if shard.standing.ledger().is_none() {
            // At rest nothing is to be moved.
            return match self.turn.borrow().neighbour {
                None => Ok(()),
                Some(_) => Err(LedgerError::StoreUnavailable("nobody has recognised yet what stands there".into())),
            };
        }
        let connection = shard.pool.connection().await;
        let mut connection = connection.map_err(|away| LedgerError::StoreUnavailable(away.to_string()))?;
        self.follow_ring(shard, &mut connection).await.map_err(|not_ours| {
            LedgerError::StoreUnavailable(match not_ours {
                NotOurs::Failed(error) => error.to_string(),
                NotOurs::Unfit(findings) => findings.join("; "),
                NotOurs::NotNow(why) => why,
            })
        })
    }

    /// Whether every partition of this shard is written under the ring of this process, or is from now on.
    pub(super) async fn follow_ring(
        &self,
        shard: &Shard,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), NotOurs> {
        if self.only_reads {
            return Ok(());
        }
        let turn = *self.turn.borrow();
        let partitions = match shard.first {
            None => (0..=u8::MAX).collect(),
            Some(first) => self.shards().partitions(first),
        };
        let mut ask = redis::pipe();
        for partition in &partitions {
            ask.add_command(encode::get(&keys::ring(*partition)));
        }
        let mut left = encode::load(scripts::ring());
        for (partition, stands) in partitions.iter().zip(rings(connection, &ask).await?) {
            match stands {
                Stands::Elsewhere => {}
                Stands::At(ring) if turn.ring.is(&ring) => {}
                // While the ring is at rest, whoever writes first marks the partition.
                Stands::Nowhere if turn.previous().is_none() => {}
                Stands::At(ring) => {
                    under(&turn, &ring)?;
                    if turn.previous().is_some_and(|previous| previous.ring.is(&ring)) {
                        left.add_command(encode::ring(*partition, &turn));
                    }
                }
                Stands::Nowhere => {
                    left.add_command(encode::ring(*partition, &turn));
                }
            }
        }
        if left.len() > 1 {
            // The first reply is that of the load.
            for stands in rings(connection, &left).await?.into_iter().skip(1) {
                if let Stands::At(ring) = stands {
                    under(&turn, &ring)?;
                }
            }
            tracing::info!(
                key = turn.ring.id,
                partitions = left.len() - 1,
                "partitions are written under this key now"
            );
        }
        if let Some(previous) = turn.previous().filter(|_| shard.is_home()) {
            let key = shard.name().key();
            // Read first: a server that takes no writes for now is told apart by every call, and is not unfit.
            match redis::cmd("HGET").arg(&key).arg(KEYS).query_async::<Option<String>>(connection).await? {
                Some(stands) if previous.ring.is(&stands) => _ = identify(connection, &key, &self.terms()).await?,
                Some(stands) => under(&turn, &stands)?,
                None => {}
            }
        }
        Ok(())
    }
}

/// Under which ring a partition stands.
enum Stands {
    At(String),
    Nowhere,
    /// On another primary, or on its way there.
    Elsewhere,
}

async fn rings(connection: &mut MultiplexedConnection, ask: &Pipeline) -> RedisResult<Vec<Stands>> {
    let replies = connection.req_packed_commands(ask, 0, ask.len()).await?;
    let stands = replies.into_iter().map(|reply| match reply.extract_error() {
        Ok(ring) => {
            let ring: Option<String> = redis::from_redis_value(ring).map_err(RedisError::from)?;
            Ok(ring.map_or(Stands::Nowhere, Stands::At))
        }
        Err(error) if faults::is_elsewhere(&error) => Ok(Stands::Elsewhere),
        Err(error) => Err(error),
    });
    stands.collect()
}

/// Whether a ledger that stands under this ring may be worked with in this turn.
fn under(turn: &Turn, stands: &str) -> Result<(), NotOurs> {
    match turn.refuses(stands) {
        None | Some(OtherRing::Behind { .. }) => Ok(()),
        Some(other) => Err(NotOurs::Unfit(vec![other.to_string()])),
    }
}

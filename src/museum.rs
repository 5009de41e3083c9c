//! The bug museum: seeded bugs, one of them chosen at run time, that the tests must catch. With the `museum` feature
//! off (every build but the museum's own) [`Mutant::is_on`] is `false` for the compiler and nothing of this remains.

/// A seeded bug. The doc of each says what is broken; `tests/museum` lists the test that catches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Changes nothing: the museum must report it alive.
    Control,
    /// The Redis ledger reads the record, decides outside the script and writes in a second command.
    CheckThenWrite,
    /// The sweep removes entries up to thirty days before it may, so also those whose window has not ended.
    SweptTooEarly,
    /// The number of live seats of a site is counted in one command and the seat granted in another.
    CapOutsideScript,
    /// A policy refusal is given without looking whether the request id is already in the ledger.
    PolicyBeforeReplay,
    /// A voided sale asked for again answers with its old receipt.
    VoidedReplaysReceipt,
    /// A claim is answered as soon as it has been put into a lane's queue, as if nobody had bought before.
    AnsweredBeforeReply,
    /// A session token is good in whosever hands it is: the key to which it was given is not compared.
    BearerCheckOnly,
    /// A site's certificate is enough to act for any site.
    SiteActsForAnother,
    /// A seat belongs to the connection that opened it: the terminal that logs in again is not known by its name.
    SeatByConnection,
    /// Logical time takes the whole step that the store's clock makes, however long.
    UnboundedStep,
    /// The line's next number is given out before anybody looks whether the terminal waits already.
    NumberBeforeLook,
    /// The file of the door keeps seats and no places.
    PlacesNotKept,
    /// A terminal is shown the position that this instance counts now, whatever it was shown before.
    PositionAsCounted,
    /// Only present places count for a position.
    AbsentNotCounted,
    /// A seat granted to a terminal that is away ends with its lease, and no place is left of it.
    TurnSpentAway,
    /// Places are admitted in the order of their numbers alone.
    RankIgnored,
    /// Live seats are counted in one command, and the seats granted in another that knows no capacity.
    CapacityOutsideScript,
    /// The count that `WAIT` gives back is not compared with the replicas that were asked for.
    WaitNotCompared,
    /// Which replicas must have a sale is taken from the primary's own view of who is attached.
    ReplicasByPrimary,
    /// `WAIT` stands before the writes of its unit.
    WaitBeforeWrite,
    /// A unit is counted before its calls are made, so that a store may have its count and not what it counts.
    CountedFirst,
    /// One replica is enough, however many there are.
    FixedOneReplica,
    /// A primary of before is not waited for where it calls itself one, although it has been a replica since and was promoted.
    StaysPassedOver,
    /// Nobody compares how far the store has got with what was acknowledged.
    WitnessSkipped,
    /// What was acknowledged is remembered in memory alone, and never written down.
    WitnessNotKept,
    /// A stop waits until every connection has ended by itself, also one that has said nothing yet.
    DrainWaitsForAll,
    /// A connection that is too old is cut where it stands, without a word.
    CutWhenOld,
    /// The client repeats a call as often as its time allows, whatever it has repeated already.
    RepeatsForFree,
    /// Nobody hears of a task that ends before the service does.
    DeathUnnoticed,
    /// Connections may take every file that the process may open.
    NoFilesReserved,
    /// A call's deadline is looked at when the call comes, and never again.
    DeadlineOnEntryOnly,
    /// The MAC of a receipt does not cover how many units were sold.
    ReceiptWithoutQuantity,
    /// Whoever asks about an id that is not recorded is told so, and the id is not closed.
    NotRecordedWithoutClosing,
    /// A certificate is looked at when its connection begins, and never again.
    StandingNotLookedAt,
    /// A trip to Redis that brings no answer is taken for one that did nothing.
    UnknownAsNotExecuted,
    /// The hash of a record of the audit log does not cover its sequence.
    ChainWithoutSequence,
    /// Of HTTP/2's limits nothing is said, as in a builder that was only made.
    LimitsUnset,
    /// Nobody counts what a peer sends, nor looks whether it takes its answers.
    FramesNotCounted,
    /// Who was cut off comes back as often as it likes.
    ReturnsAtOnce,
    /// All calls under way may be those of one caller.
    CallsNotShared,
    /// Whoever reads a request says so in the log, with what it holds.
    RequestPrinted,
    /// A pseudonym is the plain hash of a number, without any key.
    PlainHash,
    /// A client may take up a session again, and shows no certificate then.
    SessionsResumed,
    /// No call is compared with the ring that its partition is written under.
    RingNotCompared,
    /// While the key ring turns, only what stands under the current key counts.
    PreviousNotCounted,
    /// Levels of stock are kept, and where they were read up to is not: what is in them is read again.
    KeptWithoutPlaces,
    /// Whoever was away goes on behind the newest event, and not where it had got.
    SkipsWhileAway,
    /// A late sale that is more than was allowed is answered and not recorded.
    LateOverQuotaDropped,
    /// A terminal sends a purchase, and writes it down when it has the answer.
    JournalWrittenAfterSending,
}

impl Mutant {
    /// Every exhibit, with the name that chooses it.
    pub const ALL: [(Self, &'static str); 50] = [
        (Self::Control, "control"),
        (Self::CheckThenWrite, "check-then-write"),
        (Self::SweptTooEarly, "swept-too-early"),
        (Self::CapOutsideScript, "cap-outside-script"),
        (Self::PolicyBeforeReplay, "policy-before-replay"),
        (Self::VoidedReplaysReceipt, "voided-replays-receipt"),
        (Self::AnsweredBeforeReply, "answered-before-reply"),
        (Self::BearerCheckOnly, "bearer-check-only"),
        (Self::SiteActsForAnother, "site-acts-for-another"),
        (Self::SeatByConnection, "seat-by-connection"),
        (Self::UnboundedStep, "unbounded-step"),
        (Self::NumberBeforeLook, "number-before-look"),
        (Self::PlacesNotKept, "places-not-kept"),
        (Self::PositionAsCounted, "position-as-counted"),
        (Self::AbsentNotCounted, "absent-not-counted"),
        (Self::TurnSpentAway, "turn-spent-away"),
        (Self::RankIgnored, "rank-ignored"),
        (Self::CapacityOutsideScript, "capacity-outside-script"),
        (Self::WaitNotCompared, "wait-not-compared"),
        (Self::ReplicasByPrimary, "replicas-by-primary"),
        (Self::WaitBeforeWrite, "wait-before-write"),
        (Self::CountedFirst, "counted-first"),
        (Self::FixedOneReplica, "fixed-one-replica"),
        (Self::StaysPassedOver, "stays-passed-over"),
        (Self::WitnessSkipped, "witness-skipped"),
        (Self::WitnessNotKept, "witness-not-kept"),
        (Self::DrainWaitsForAll, "drain-waits-for-all"),
        (Self::CutWhenOld, "cut-when-old"),
        (Self::RepeatsForFree, "repeats-for-free"),
        (Self::DeathUnnoticed, "death-unnoticed"),
        (Self::NoFilesReserved, "no-files-reserved"),
        (Self::DeadlineOnEntryOnly, "deadline-on-entry-only"),
        (Self::ReceiptWithoutQuantity, "receipt-without-quantity"),
        (Self::NotRecordedWithoutClosing, "not-recorded-without-closing"),
        (Self::StandingNotLookedAt, "standing-not-looked-at"),
        (Self::UnknownAsNotExecuted, "unknown-as-not-executed"),
        (Self::ChainWithoutSequence, "chain-without-sequence"),
        (Self::LimitsUnset, "limits-unset"),
        (Self::FramesNotCounted, "frames-not-counted"),
        (Self::ReturnsAtOnce, "returns-at-once"),
        (Self::CallsNotShared, "calls-not-shared"),
        (Self::RequestPrinted, "request-printed"),
        (Self::PlainHash, "plain-hash"),
        (Self::SessionsResumed, "sessions-resumed"),
        (Self::RingNotCompared, "ring-not-compared"),
        (Self::PreviousNotCounted, "previous-not-counted"),
        (Self::KeptWithoutPlaces, "kept-without-places"),
        (Self::SkipsWhileAway, "skips-while-away"),
        (Self::LateOverQuotaDropped, "late-over-quota-dropped"),
        (Self::JournalWrittenAfterSending, "journal-written-after-sending"),
    ];

    /// Whether this bug is switched on in this process (`RATIOND_MUTANT=name` in a museum build).
    #[cfg(feature = "museum")]
    pub fn is_on(self) -> bool {
        static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| std::env::var("RATIOND_MUTANT").ok());
        Self::ALL.iter().any(|(mutant, name)| *mutant == self && chosen.as_deref() == Some(*name))
    }

    /// Always `false`: this is not a museum build.
    #[cfg(not(feature = "museum"))]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }
}

/// Resolves when this task is to break off: in a museum build, once the file that `MUSEUM_BREAKS` names holds the task's name.
/// Never in any other build.
pub async fn breaks_off(task: &str) {
    #[cfg(feature = "museum")]
    if let Ok(file) = std::env::var("MUSEUM_BREAKS") {
        while std::fs::read_to_string(&file).is_ok_and(|named| named != task) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        return;
    }
    let _ = task;
    std::future::pending().await
}

//! What the processes of a run hand over: a file with the facts of each one's part and every call of it, as JSON lines; and
//! one whole made of all of them.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::driver::Part;
use super::history::Asked;
use super::run::{Ended, RunFacts};
use super::target::LoadError;

/// A line of the file: the facts first, then the calls.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Facts(Box<RunFacts>),
    Asked(Asked),
}

/// Writes a part's file. It is whole or it is not there under its name.
pub fn write(path: &Path, facts: &RunFacts, history: &[Asked]) -> Result<(), LoadError> {
    let failed = |error: std::io::Error| LoadError::Failed(format!("{}: cannot be written: {error}", path.display()));
    let unfinished = path.with_extension("unfinished");
    let mut file = BufWriter::new(File::create(&unfinished).map_err(failed)?);
    let mut line = |line: &Line| {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n")
    };
    line(&Line::Facts(Box::new(facts.clone()))).map_err(failed)?;
    for asked in history {
        line(&Line::Asked(asked.clone())).map_err(failed)?;
    }
    file.flush().map_err(failed)?;
    std::fs::rename(&unfinished, path).map_err(failed)
}

/// Reads a part's file.
pub fn read(path: &Path) -> Result<(RunFacts, Vec<Asked>), LoadError> {
    let unfit = |what: String| LoadError::Unfit(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| unfit(format!("cannot be read: {error}")))?;
    let (mut facts, mut history) = (None, Vec::new());
    for (nth, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(|error| unfit(format!("cannot be read: {error}")))?;
        match serde_json::from_str(&line) {
            Ok(Line::Facts(found)) => facts = Some(*found),
            Ok(Line::Asked(asked)) => history.push(asked),
            Err(error) => return Err(unfit(format!("line {nth} is no line of a history: {error}"))),
        }
    }
    let facts = facts.ok_or_else(|| unfit("says nothing about its run; name files that --history wrote".into()))?;
    Ok((facts, history))
}

/// Makes sure that every part of a run is there once: the sales of one that is missing would be nobody's, and those of one that
/// is there twice made twice.
pub fn complete(parts: impl Iterator<Item = Part>) -> Result<(), LoadError> {
    let parts: Vec<Part> = parts.collect();
    let of = parts.first().map_or(0, |part| part.of);
    let mut wrong: Vec<String> =
        parts.iter().filter(|part| part.of != of).map(|part| format!("{part} is a part of another run")).collect();
    for part in Part::all(of) {
        match parts.iter().filter(|other| **other == part).count() {
            1 => {}
            0 => wrong.push(format!("{part} is missing")),
            _ => wrong.push(format!("{part} is there more than once")),
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(LoadError::Unfit(format!("{}: name the history of each of the {of} workers once", wrong.join(", "))))
}

/// One run of all its parts; the calls in the order in which they were to be sent. Fails if they are parts of different runs.
pub fn together(parts: Vec<(RunFacts, Vec<Asked>)>) -> Result<(RunFacts, Vec<Asked>), LoadError> {
    let mut parts = parts.into_iter();
    let (mut whole, mut history) = parts.next().ok_or_else(|| LoadError::Unfit("there is no part of a run".into()))?;
    whole.part = Part::WHOLE;
    for (part, calls) in parts {
        let same = (&part.scenario, part.seed, part.programme, part.wire, &part.arrivals, &part.start_at)
            == (&whole.scenario, whole.seed, whole.programme, whole.wire, &whole.arrivals, &whole.start_at);
        if !same {
            let told = |facts: &RunFacts| {
                let begun = facts.start_at.as_deref().unwrap_or("a time of its own");
                format!("{} with seed {}, begun at {begun}", facts.scenario, facts.seed)
            };
            return Err(LoadError::Unfit(format!(
                "these are parts of different runs: {} and {}",
                told(&whole),
                told(&part)
            )));
        }
        if let (Some(one), Some(other)) = (whole.ledger, part.ledger)
            && one != other
        {
            return Err(LoadError::Unfit(format!("the parts sold into different ledgers, {one} and {other}")));
        }
        whole.ledger = whole.ledger.or(part.ledger);
        whole.processes += part.processes;
        whole.sites += part.sites;
        whole.connections += part.connections;
        whole.elapsed = whole.elapsed.max(part.elapsed);
        whole.sessions.wanted += part.sessions.wanted;
        whole.sessions.admitted += part.sessions.admitted;
        whole.sessions.site_full += part.sessions.site_full;
        whole.sessions.failed += part.sessions.failed;
        whole.sessions.lost += part.sessions.lost;
        whole.sessions.opening_ms.extend(part.sessions.opening_ms);
        whole.shortfall.not_sent += part.shortfall.not_sent;
        whole.shortfall.sent_late += part.shortfall.sent_late;
        whole.shortfall.latest = whole.shortfall.latest.max(part.shortfall.latest);
        whole.ended = worse(whole.ended, part.ended);
        history.extend(calls);
    }
    history.sort_by_key(|asked| asked.intended);
    Ok((whole, history))
}

/// What two parts that ended so make of the whole.
fn worse(one: Ended, other: Ended) -> Ended {
    let rank = |ended: &Ended| match ended {
        Ended::Complete => 0,
        Ended::Interrupted => 1,
        Ended::ServiceLost { .. } => 2,
        Ended::HarnessFailed(_) => 3,
    };
    match (one, other) {
        (Ended::ServiceLost { last_answer: a, why }, Ended::ServiceLost { last_answer: b, .. }) => {
            Ended::ServiceLost { last_answer: a.max(b), why }
        }
        (one, other) if rank(&other) > rank(&one) => other,
        (one, _) => one,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn parts_of_two_days_are_no_run() {
        let part = |nth: u32, begun: &str| {
            let (part, start_at) = (Part { index: nth - 1, of: 2 }, Some(begun.to_owned()));
            (RunFacts { part, start_at, ..RunFacts::example(Duration::ZERO) }, Vec::new())
        };
        assert!(together(vec![part(1, "2026-11-23T09:00:00Z"), part(2, "2026-11-23T09:00:00Z")]).is_ok());
        let why =
            together(vec![part(1, "2026-11-23T09:00:00Z"), part(2, "2026-11-24T09:00:00Z")]).unwrap_err().to_string();
        assert!(why.contains("different runs") && why.contains("begun at 2026-11-24T09:00:00Z"), "{why}");
    }

    #[test]
    fn every_part_is_there_once() {
        let check = |parts: &[(u32, u32)], wrong: &str| {
            let parts = parts.iter().map(|(nth, of)| Part { index: nth - 1, of: *of });
            let told = complete(parts).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(told, wrong);
        };
        check(&[(1, 1)], "");
        check(&[(3, 3), (1, 3), (2, 3)], "");
        let each = "name the history of each of the 3 workers once";
        check(&[(1, 3), (3, 3)], &format!("2/3 is missing: {each}"));
        check(&[(1, 3), (2, 3), (3, 3), (2, 3)], &format!("2/3 is there more than once: {each}"));
        check(&[(1, 3), (1, 3), (3, 3)], &format!("1/3 is there more than once, 2/3 is missing: {each}"));
        check(&[(1, 3), (2, 3), (3, 3), (1, 2)], &format!("1/2 is a part of another run: {each}"));
    }
}

//! Which sites are part of the shared check, by date: a channel, and for some channels only certain regions.
//!
//! Knows nothing about opening hours: they are no rule of a purchase.

use super::Place;
use super::calendar::Zone;
use super::file::{Effect, Table};
use super::problems::Problems;
use crate::ids::Channel;
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Enrolment {
    effect: Effect,
    channel: Channel,
    regions: Regions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Regions {
    All,
    Only(Vec<String>),
    Except(Vec<String>),
}

impl Enrolment {
    fn covers(&self, place: &Place) -> bool {
        let lists = |regions: &[String]| regions.iter().any(|region| region.eq_ignore_ascii_case(&place.region));
        self.channel == place.channel
            && match &self.regions {
                Regions::All => true,
                Regions::Only(regions) => lists(regions),
                Regions::Except(regions) => !lists(regions),
            }
    }
}

/// Every enrolment of a programme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Channels(Vec<Enrolment>);

impl Channels {
    pub(super) fn read(tables: Vec<Table<'_>>, zone: &Zone, problems: &mut Problems<'_>) -> Self {
        if tables.is_empty() {
            problems.of_file("no channel is enrolled", "add a [[channels]] table with `from` and `channel`");
        }
        let mut enrolments = Vec::new();
        for mut table in tables {
            let effect = table.effect(problems, zone);
            let channel = table.name::<Channel>(problems, "channel", "\"pharmacy\"");
            let mut list = |key| -> Vec<String> {
                table.texts(problems, key).iter().map(|region| region.value.to_owned()).collect()
            };
            let (only, except) = (list("only_regions"), list("except_regions"));
            if !only.is_empty() && !except.is_empty() {
                let remedy = "write `only_regions` or `except_regions`, not both";
                problems.at(table.byte(), "the regions are given twice", remedy);
            }
            let regions = match (only.is_empty(), except.is_empty()) {
                (false, _) => Regions::Only(only),
                (true, false) => Regions::Except(except),
                (true, true) => Regions::All,
            };
            if let (Some(effect), Some(channel)) = (effect, channel) {
                enrolments.push(Enrolment { effect, channel: channel.value, regions });
            }
            table.close(problems);
        }
        Self(enrolments)
    }

    pub(super) fn enrolled(&self, place: &Place, at: Timestamp) -> bool {
        self.0.iter().any(|enrolment| enrolment.effect.contains(at) && enrolment.covers(place))
    }

    /// Why a site that is not enrolled is not.
    pub(super) fn why(&self, place: &Place, at: Timestamp, zone: &Zone) -> String {
        let joins = self.0.iter().filter(|e| e.covers(place) && at < e.effect.from).map(|e| e.effect.from).min();
        let channel = place.channel.as_str().replace('_', " ");
        match joins {
            Some(from) => format!("Sites of the kind {channel} join the shared check on {}.", zone.day(from).spoken()),
            None if self.0.iter().any(|e| e.channel == place.channel && e.effect.contains(at)) => {
                format!("Sites of the kind {channel} in {} are not part of the shared check.", region(place))
            }
            None => format!("Sites of the kind {channel} are not part of the shared check."),
        }
    }

    pub(super) fn instants(&self) -> impl Iterator<Item = Timestamp> {
        self.0.iter().flat_map(|e| [e.effect.from, e.effect.until])
    }

    /// "pharmacy; mart except in Seoul, Gyeonggi".
    pub(super) fn spoken(&self, at: Timestamp) -> String {
        let now: Vec<String> = self
            .0
            .iter()
            .filter(|e| e.effect.contains(at))
            .map(|e| match &e.regions {
                Regions::All => e.channel.to_string(),
                Regions::Only(regions) => format!("{} in {}", e.channel, regions.join(", ")),
                Regions::Except(regions) => format!("{} except in {}", e.channel, regions.join(", ")),
            })
            .collect();
        if now.is_empty() { "none".to_owned() } else { now.join("; ") }
    }
}

fn region(place: &Place) -> &str {
    if place.region.is_empty() { "this region" } else { &place.region }
}

//! The sites that take part: made up by the scenario, or those of a registry file, for a service that has its own.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::chance::Chance;
use super::scenario::SiteMix;
use crate::ids::{Channel, SiteId};
use crate::sites::Sites;

/// The first line of a registry.
const HEADER: &str = "code,name,channel,region,address,lat,lng\n";

/// The sites of a run. Every process of it has the same, in the same order.
#[derive(Debug, Clone)]
pub struct Places {
    sites: Vec<SiteId>,
    /// The first site of each channel.
    channels: BTreeMap<Channel, SiteId>,
    /// The registry that a service must have for them.
    registry: String,
}

impl Places {
    /// As many as the mix says, with codes of their own.
    pub fn made_up(mix: &SiteMix, seed: u64) -> Self {
        let mut places = Self { sites: Vec::new(), channels: BTreeMap::new(), registry: HEADER.to_owned() };
        for nth in 0..mix.count {
            let mut chance = Chance::of(seed, "channels", nth.into());
            let Some(channel) = weighted(&mut chance, &mix.channels) else { continue };
            places.add(nth, *channel);
        }
        places
    }

    /// So many of each channel, in this order.
    pub(super) fn of_channels(many: &[(Channel, u32)]) -> Self {
        let mut places = Self { sites: Vec::new(), channels: BTreeMap::new(), registry: HEADER.to_owned() };
        let each = many.iter().flat_map(|(channel, many)| std::iter::repeat_n(*channel, *many as usize));
        for (nth, channel) in (0..).zip(each) {
            places.add(nth, channel);
        }
        places
    }

    fn add(&mut self, nth: u32, channel: Channel) {
        let Ok(id) = format!("LOAD{nth:05}").parse::<SiteId>() else { return };
        self.sites.push(id);
        self.channels.entry(channel).or_insert(id);
        // Writing to a String cannot fail.
        let _ = writeln!(self.registry, "{id},Load site {nth},{channel},Load,Load Load-gu {nth},,");
    }

    /// The first sites of a registry, as many as the mix says, or all if there are fewer.
    pub fn of_registry(registry: &Sites, text: String, mix: &SiteMix) -> Self {
        let most = usize::try_from(mix.count).unwrap_or(usize::MAX);
        let (mut sites, mut channels) = (Vec::new(), BTreeMap::new());
        for site in registry.iter().take(most) {
            sites.push(site.id);
            channels.entry(site.channel).or_insert(site.id);
        }
        Self { sites, channels, registry: text }
    }

    /// Their codes.
    pub fn sites(&self) -> &[SiteId] {
        &self.sites
    }

    /// One of each kind: each channel, and the first site of it.
    pub(super) fn channels(&self) -> impl Iterator<Item = (Channel, SiteId)> {
        self.channels.iter().map(|(channel, site)| (*channel, *site))
    }

    /// The registry as CSV.
    pub fn registry(&self) -> &str {
        &self.registry
    }
}

/// One of these, by weight; `None` where no weight is above 0.
pub(super) fn weighted<'a, T>(chance: &mut Chance, choices: &'a [(T, f64)]) -> Option<&'a T> {
    let mut rest = chance.unit() * choices.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut last = None;
    for (choice, weight) in choices.iter().filter(|(_, weight)| *weight > 0.0) {
        last = Some(choice);
        if rest < *weight {
            break;
        }
        rest -= weight;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::scenario::Scenario;

    #[test]
    fn made_up_sites_are_a_registry_that_a_service_can_read() {
        let scenario = Scenario::built_in("morning").unwrap().unwrap();
        let places = Places::made_up(&scenario.sites, scenario.seed);
        let registry = Sites::parse(places.registry(), "made up").unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(registry.len(), places.sites().len());
        let marts = registry.iter().filter(|site| site.channel.as_str() == "mart").count();
        assert!((60..130).contains(&marts), "{marts} of {} are marts", registry.len());
        let few = SiteMix { count: 7, ..scenario.sites };
        assert_eq!(Places::of_registry(&registry, String::new(), &few).sites(), &places.sites()[..7]);
    }
}

//! The sites that take part: made up by the scenario, or those of a registry file, for a service that has its own.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::chance::Chance;
use super::programme::Carried;
use super::scenario::SiteMix;
use super::target::LoadError;
use crate::ids::{Channel, SiteId};
use crate::sites::{Site, Sites};

/// The sites of a run. Every process of it has the same, in the same order.
#[derive(Debug, Clone)]
pub struct Places {
    sites: Vec<SiteId>,
    channels: BTreeSet<Channel>,
    /// The registry that a service must have for them.
    registry: String,
}

impl Places {
    /// As many as the mix says, with codes of their own.
    pub fn made_up(mix: &SiteMix, seed: u64) -> Self {
        let mut registry = String::from("code,name,channel,region,address,lat,lng\n");
        let (mut sites, mut channels) = (Vec::new(), BTreeSet::new());
        for nth in 0..mix.count {
            let Ok(id) = format!("LOAD{nth:05}").parse::<SiteId>() else { continue };
            let mut chance = Chance::of(seed, "channels", nth.into());
            let Some(channel) = weighted(&mut chance, &mix.channels) else { continue };
            sites.push(id);
            channels.insert(*channel);
            // Writing to a String cannot fail.
            let _ = writeln!(registry, "{id},Load site {nth},{channel},Load,Load Load-gu {nth},,");
        }
        Self { sites, channels, registry }
    }

    /// The first sites of a registry, as many as the mix says, or all if there are fewer.
    pub fn of_registry(registry: &Sites, text: String, mix: &SiteMix) -> Self {
        let most = usize::try_from(mix.count).unwrap_or(usize::MAX);
        let first = || registry.iter().take(most);
        let sites = first().map(|site: &std::sync::Arc<Site>| site.id).collect();
        Self { sites, channels: first().map(|site| site.channel).collect(), registry: text }
    }

    /// Makes sure that every site may sell under the programme: one that may not would refuse everybody, and rightly so, which
    /// the audit would take for refusals without a reason.
    pub fn check(&self, programme: &Carried) -> Result<(), LoadError> {
        let enrolled = |channel: &&Channel| programme.channels.contains(&channel.as_str());
        let others: Vec<&str> =
            self.channels.iter().filter(|channel| !enrolled(channel)).map(Channel::as_str).collect();
        if others.is_empty() {
            return Ok(());
        }
        Err(LoadError::Unfit(format!(
            "there are sites of the channel {} and {} sells at {} alone: leave those sites out of the registry, or out of \
             sites.channels in the scenario",
            others.join(", "),
            programme.name,
            programme.channels.join(", ")
        )))
    }

    /// Their codes.
    pub fn sites(&self) -> &[SiteId] {
        &self.sites
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

    #[test]
    fn a_site_whose_channel_is_not_enrolled_is_told_with_the_remedy() {
        let scenario = Scenario::built_in("canonical").unwrap().unwrap();
        let registry = "code,name,channel,region,address,lat,lng\nA,A,mart,Seoul,Seoul,,\nB,B,cafe,Seoul,Seoul,,\n\
                        C,C,bank,Seoul,Seoul,,\nD,D,cafe,Seoul,Seoul,,\n";
        let registry = Sites::parse(registry, "sites.csv").unwrap_or_else(|errors| panic!("{errors}"));
        let check = |count| {
            let mix = SiteMix { count, ..scenario.sites.clone() };
            Places::of_registry(&registry, String::new(), &mix).check(scenario.carried()).map_err(|e| e.to_string())
        };
        let why = check(40).unwrap_err();
        assert!(
            why.contains("the channel bank, cafe and load-canonical sells at pharmacy, post_office, mart"),
            "{why}"
        );
        // What takes no part hurts nobody.
        assert_eq!(check(1), Ok(()));
        assert!(check(2).is_err());
        assert!(Places::made_up(&scenario.sites, 1).check(scenario.carried()).is_ok());
    }
}

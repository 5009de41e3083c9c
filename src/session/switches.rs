//! What operators decide about the door: how many seats there are, of whom, and who may come in. One document in TOML,
//! replaced as a whole under a version, so that two operators cannot undo each other's work without seeing it.
//!
//! ```toml
//! mode = "open"            # or queue_all, first_terminals_only, drain, closed
//! capacity = 40000         # seats in the nation; left out: as configured
//! one_terminal = true      # one seat a site, whatever the caps say
//! [cap_by_channel]
//! post_office = 2
//! [cap_by_site]
//! 11000001 = 5
//! [ramp]
//! channel = "post_office"
//! sites_per_second = 20.0
//! ```
//!
//! Pure: text goes in, a checked document comes out. Knows nothing about the store, or what was configured.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{Channel, SiteId};

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everybody, up to the capacity, in order.
    #[default]
    Open,
    /// Everybody may wait and nobody is admitted.
    QueueAll,
    /// The first terminal of every site is admitted; the others wait.
    FirstTerminalsOnly,
    /// Nobody new is let in, not even to wait. Who has a seat or a place keeps it.
    Drain,
    /// Nobody is let in and every session ends. Who waits keeps the place.
    Closed,
}

impl Mode {
    /// Whether a place of this rank may be admitted.
    pub fn admits(self, slot: u16) -> bool {
        match self {
            Self::Open => true,
            Self::FirstTerminalsOnly => slot == 0,
            Self::QueueAll | Self::Drain | Self::Closed => false,
        }
    }

    /// As it stands in a document and in the store's scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::QueueAll => "queue_all",
            Self::FirstTerminalsOnly => "first_terminals_only",
            Self::Drain => "drain",
            Self::Closed => "closed",
        }
    }

    /// Every mode.
    pub const ALL: [Self; 5] = [Self::Open, Self::QueueAll, Self::FirstTerminalsOnly, Self::Drain, Self::Closed];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| format!("must be one of {}", names()))
    }
}

/// A channel that is let in gradually.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// Which.
    pub channel: Channel,
    /// How many of its sites come in a second, 0.001 to 100,000.
    pub sites_per_second: f64,
}

impl Ramp {
    /// In thousandths of a site a second.
    pub fn millisites(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be 0.001 to 100,000")]
        let rate = (self.sites_per_second * 1_000.0).round() as u32;
        rate
    }
}

/// See the module. The default changes nothing of what is configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switches {
    /// Who may come in.
    pub mode: Mode,
    /// The most seats in the nation, at least 1; `None`: as configured. Lowered below the live number it ends nobody's
    /// session and lets nobody in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// One seat a site, whatever the caps say.
    pub one_terminal: bool,
    /// The most seats of a site of this channel, at least 1, where `cap_by_site` has none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cap_by_channel: BTreeMap<Channel, u16>,
    /// The most seats of this site, at least 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cap_by_site: BTreeMap<SiteId, u16>,
    /// A channel that is let in gradually.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadSwitch {
    /// The field, or "document" where the text as a whole cannot be read.
    pub field: String,
    /// What is wrong there and what would be right.
    pub problem: String,
}

/// Why a document cannot be read, and where; never what stands there: it goes out in an error, and whoever wrote the document may
/// have put a buyer's number in it.
fn unread(document: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim();
    if message.starts_with("missing field ") {
        return message.to_owned();
    }
    let (problem, wanted) = message.rsplit_once(", expected ").map_or((message, None), |(at, it)| (at, Some(it)));
    let problem = problem.split([':', '`', '"', '\n']).next().unwrap_or_default().trim();
    let before = error.span().and_then(|span| document.get(..span.start));
    let line = before.map(|before| format!(" in line {}", before.matches('\n').count() + 1)).unwrap_or_default();
    format!("{problem}{line}{}", wanted.map(|it| format!(", expected {it}")).unwrap_or_default())
}

/// The largest cap: no site has so many windows; a larger number is a slip.
const MAX_CAP: u16 = 1_000;
/// See [`Ramp::sites_per_second`].
const RAMP_RATES: std::ops::RangeInclusive<f64> = 0.001..=100_000.0;

impl Switches {
    /// Reads a document. An empty one is the default.
    pub fn parse(document: &str) -> Result<Self, BadSwitch> {
        let bad = |field: &str, problem: String| BadSwitch { field: field.to_owned(), problem };
        let switches: Self = toml::from_str(document).map_err(|error| bad("document", unread(document, &error)))?;
        if switches.capacity == Some(0) {
            let problem = "must be 1 or more; to let nobody in use mode = \"queue_all\" or \"drain\"";
            return Err(bad("capacity", problem.into()));
        }
        let caps = switches.cap_by_channel.iter().map(|(channel, cap)| (format!("cap_by_channel.{channel}"), *cap));
        let caps = caps.chain(switches.cap_by_site.iter().map(|(site, cap)| (format!("cap_by_site.{site}"), *cap)));
        for (field, cap) in caps {
            if !(1..=MAX_CAP).contains(&cap) {
                return Err(bad(
                    &field,
                    format!("must be 1 to {MAX_CAP}; a site that must not sell leaves the registry"),
                ));
            }
        }
        match &switches.ramp {
            Some(ramp) if !RAMP_RATES.contains(&ramp.sites_per_second) => {
                Err(bad("ramp.sites_per_second", "must be 0.001 to 100000".into()))
            }
            _ => Ok(switches),
        }
    }

    /// As a document that [`Switches::parse`] reads back.
    pub fn document(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The most seats of a site, where `configured` is what it would be without switches.
    pub fn cap(&self, site: SiteId, channel: Channel, configured: u16) -> u16 {
        let own = self.cap_by_site.get(&site).or_else(|| self.cap_by_channel.get(&channel));
        let cap = own.copied().unwrap_or(configured);
        if self.one_terminal { cap.min(1) } else { cap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_back_as_it_was_written() {
        let text = "mode = \"queue_all\"\ncapacity = 40000\none_terminal = true\n\n[cap_by_channel]\npost_office = 2\n\n\
                    [cap_by_site]\n11000001 = 5\n\n[ramp]\nchannel = \"post_office\"\nsites_per_second = 2.5\n";
        let switches = Switches::parse(text).unwrap();
        assert_eq!(switches.document(), text);
        assert_eq!(switches.ramp.unwrap().millisites(), 2_500);
        assert_eq!(Switches::parse("").unwrap(), Switches::default());
        assert_eq!(Switches::parse(&Switches::default().document()).unwrap(), Switches::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, field, part) in [
            ("modus = \"open\"", "document", "unknown field in line 1, expected one of `mode`"),
            ("\nmode = \"shut\"", "document", "unknown variant in line 2, expected one of `open`"),
            ("mode = \"770707`, expected 1`\"", "document", "unknown variant in line 1, expected one of `open`"),
            ("mode = 7707071928374", "document", "wanted string or table in line 1"),
            ("mode = \"open", "document", "in line 1"),
            ("capacity = 0", "capacity", "queue_all"),
            ("capacity = -1", "document", "invalid value in line 1, expected u32"),
            ("[cap_by_channel]\nmart = 0", "cap_by_channel.mart", "1 to 1000"),
            ("[cap_by_site]\n11000001 = 1001", "cap_by_site.11000001", "1 to 1000"),
            ("[cap_by_site]\n\"a b\" = 1", "document", "site code"),
            ("[ramp]\nchannel = \"mart\"\nsites_per_second = 0", "ramp.sites_per_second", "0.001"),
            ("[ramp]\nchannel = \"mart\"\nsites_per_second = nan", "ramp.sites_per_second", "0.001"),
            ("[ramp]\nchannel = \"mart\"", "document", "sites_per_second"),
        ] {
            let bad = Switches::parse(text).unwrap_err();
            assert_eq!(bad.field, field, "{text}: {bad}");
            assert!(bad.problem.contains(part) && !bad.problem.contains("7707"), "{text}: {bad}");
        }
    }

    #[test]
    fn a_site_comes_before_its_channel_and_one_terminal_before_both() {
        let text = "[cap_by_channel]\npost_office = 2\n[cap_by_site]\n11000001 = 5";
        let mut switches = Switches::parse(text).unwrap();
        let (site, other) = ("11000001".parse().unwrap(), "11000002".parse().unwrap());
        let (office, mart) = ("post_office".parse().unwrap(), "mart".parse().unwrap());
        let caps = |s: &Switches| [s.cap(site, office, 9), s.cap(other, office, 9), s.cap(other, mart, 9)];
        assert_eq!(caps(&switches), [5, 2, 9]);
        switches.one_terminal = true;
        assert_eq!(caps(&switches), [1, 1, 1]);
    }
}

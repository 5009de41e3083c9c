//! What `serve` says when it listens: where, what is in force, and a first sale to paste.

use std::fmt;
use std::net::SocketAddr;

use smallvec::{SmallVec, smallvec};

use super::sale::SYNTHETIC;
use crate::config::program;
use crate::ids::SiteId;
use crate::policy::{Assessment, Line, LineSet, Person, Place, Policies, Programme, Visit};
use crate::sites::{Site, Sites};
use crate::time::Timestamp;

/// A service that listens, as far as whoever started it wants to know.
pub struct Greeting<'a> {
    /// Where terminals call; `None`: another process answers them.
    pub counters: Option<SocketAddr>,
    /// Where anybody asks for stock; `None`: another process answers them.
    pub feed: Option<SocketAddr>,
    /// Whether they call over TLS.
    pub encrypted: bool,
    /// Where health and metrics are asked for.
    pub admin: SocketAddr,
    /// Where sales are recorded, without passwords.
    pub store: &'a str,
    /// Whether the store may lose confirmed sales.
    pub volatile: bool,
    /// The programmes.
    pub policies: &'a Policies,
    /// The sites.
    pub sites: &'a Sites,
    /// The service's time.
    pub now: Timestamp,
    /// Whether that time is made up.
    pub simulated: bool,
}

impl fmt::Display for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spoken =
            if self.encrypted { "gRPC for counters, over TLS with their certificates" } else { "gRPC for counters" };
        let version = env!("CARGO_PKG_VERSION");
        match (self.counters, self.feed) {
            (Some(counters), _) => writeln!(f, "rationd {version} listens on {counters} ({spoken})")?,
            (None, Some(feed)) => writeln!(f, "rationd {version} listens on {feed} (the public feed of stock alone)")?,
            (None, None) => writeln!(f, "rationd {version} listens nowhere")?,
        }
        if let Some(feed) = self.feed {
            writeln!(f, "  stock, for anybody  http://{feed}/")?;
        }
        writeln!(f, "  health and metrics  {} (gRPC health; http://{}/metrics)", self.admin, self.admin)?;
        writeln!(f, "  sales recorded in   {}", self.store)?;
        if self.volatile {
            writeln!(f, "  VOLATILE STORE: a crash may lose confirmed sales; every receipt says so")?;
        }
        if self.simulated {
            writeln!(f, "  SIMULATED CLOCK: every receipt says so; never use this with a real ledger")?;
        }
        for programme in self.policies.iter() {
            writeln!(f, "  {:<19} {}", programme.id().as_str(), self.today(programme))?;
        }
        if self.counters.is_none() {
            return write!(f, "Counters are answered by other processes of this store.");
        }
        match self.first_sale() {
            Some(sale) => {
                write!(f, "A first sale, to paste into another shell (once sells, twice shows the refusal):\n  {sale}")
            }
            None => write!(
                f,
                "No programme sells at a demo site now; `rationd policy show --programme ID` says what applies."
            ),
        }
    }
}

impl Greeting<'_> {
    /// Whether a programme is in force, and its own date.
    fn today(&self, programme: &Programme) -> String {
        let date = programme.date(self.now);
        let place = Place { channel: self.channel(), region: String::new() };
        let in_force = match programme.assess(
            &in_person(Person { birth_year: 1980, foreign: false }),
            0,
            &place,
            self.now,
            LineSet::default(),
        ) {
            Assessment::Judged(_) => "in force",
            Assessment::NotRequired(_) => "not in force",
        };
        format!("{in_force} on {date}: {}", programme.title())
    }

    fn channel(&self) -> crate::ids::Channel {
        #[expect(clippy::expect_used, reason = "a literal that parses")]
        self.sites.iter().next().map_or_else(|| "pharmacy".parse().expect("a channel"), |site| site.channel)
    }

    fn first_sale(&self) -> Option<String> {
        let (number, site) = first_sale(self.policies, self.sites, self.now)?;
        let counters = self.counters?;
        let (program, port) = (program(), counters.port());
        let sale = format!("{program} sell --number {number} --quantity 2 --site {site}");
        Some(match (self.encrypted, port) {
            // The name that a certificate for this machine carries; whose certificate it is to be is for the reader to say.
            (true, _) => format!(
                "{sale} --address https://localhost:{port} --tls-ca CA.pem --tls-certificate SITE.pem --tls-key SITE.key"
            ),
            (false, 7420) => sale,
            (false, _) => format!("{sale} --address http://{counters}"),
        })
    }
}

/// A sale under the demo programme that would be approved now: a synthetic person whose day it is, at the first site where it
/// can be bought.
pub(super) fn first_sale(policies: &Policies, sites: &Sites, now: Timestamp) -> Option<(&'static str, SiteId)> {
    let programme = policies.iter().find(|p| p.is_demo())?;
    SYNTHETIC.into_iter().find_map(|number| {
        let person = person(number)?;
        sites.iter().find(|site| may_buy(programme, person, site, now)).map(|site| (number, site.id))
    })
}

fn may_buy(programme: &Programme, buyer: Person, site: &Site, now: Timestamp) -> bool {
    let place = Place { channel: site.channel, region: site.region.clone() };
    let verdict = programme.assess(&in_person(buyer), 0, &place, now, LineSet::default());
    matches!(verdict, Assessment::Judged(judgement) if judgement.refusals.is_empty())
}

/// What the rules see of a synthetic number's owner: the seventh digit names the century and who is a foreigner.
fn person(number: &str) -> Option<Person> {
    let year: i16 = number.get(..2)?.parse().ok()?;
    let (century, foreign) = match number.get(7..8)? {
        "9" | "0" => (1800, false),
        "1" | "2" => (1900, false),
        "3" | "4" => (2000, false),
        "5" | "6" => (1900, true),
        "7" | "8" => (2000, true),
        _ => return None,
    };
    Some(Person { birth_year: century + year, foreign })
}

fn in_person(buyer: Person) -> Visit {
    let line = Line { buyer, relation: None, papers: SmallVec::new(), quantity: 2 };
    Visit { agent: None, lines: smallvec![line], family: SmallVec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_week_has_a_first_sale() {
        let (policies, sites) = (Policies::built_in(), Sites::demo());
        for day in 23..30 {
            let greeting = Greeting {
                counters: Some(SocketAddr::from(([127, 0, 0, 1], 7420))),
                feed: Some(SocketAddr::from(([127, 0, 0, 1], 7422))),
                encrypted: false,
                admin: SocketAddr::from(([127, 0, 0, 1], 7421)),
                store: "embedded:./rationd-data",
                volatile: false,
                policies: &policies,
                sites: &sites,
                now: format!("2026-11-{day}T09:00:00+09:00").parse().unwrap(),
                simulated: false,
            };
            let sale = greeting.first_sale().unwrap_or_else(|| panic!("no sale on 2026-11-{day}"));
            assert!(sale.ends_with("--site 11000001"), "{sale}");
            assert!(greeting.to_string().contains(&sale));
        }
    }
}

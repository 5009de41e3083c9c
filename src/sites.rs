//! The site registry: which pharmacies, post offices and marts there are, with the fields of the public stock feed.
//! Pure: text goes in, validated sites or every problem at once come out.
//!
//! Knows nothing about sessions, rules or where the text came from.

pub mod near;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use csv::StringRecord;

use crate::ids::{Channel, GatewayId, SiteId};

/// The columns of the registry, in this order.
const COLUMNS: [&str; 7] = ["code", "name", "channel", "region", "address", "lat", "lng"];
/// A last column, which may be left out.
const GATEWAY: &str = "gateway";

/// The longest name, region or address in characters: they are read aloud and shown on small screens.
const MAX_TEXT: usize = 200;

/// A place that sells.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its code.
    pub id: SiteId,
    /// What it is called.
    pub name: String,
    /// Which kind of place it is.
    pub channel: Channel,
    /// Its region, in the words that programmes use ("Seoul").
    pub region: String,
    /// Its address, the largest unit first ("Seoul Jongno-gu Saemunan-ro 7").
    pub address: String,
    /// Latitude and longitude in degrees; `None` where nobody has measured them.
    pub position: Option<(f64, f64)>,
    /// The gateway that may act for it; `None`: the site alone may.
    pub gateway: Option<GatewayId>,
}

impl Site {
    /// The first two words of the address: all that a refused buyer is told about where the earlier purchase was.
    pub fn district(&self) -> String {
        let mut words = self.address.split_whitespace();
        [words.next(), words.next()].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// Every site, by code.
#[derive(Debug, Clone, PartialEq)]
pub struct Sites(BTreeMap<SiteId, Arc<Site>>);

/// Everything that is wrong with a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SiteErrors(
    /// In the order of the file, at least one.
    pub Vec<SiteError>,
);

/// One problem to a line.
impl fmt::Display for SiteErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a registry, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {column}: {problem}")]
pub struct SiteError {
    /// The file, as it was named to us.
    pub file: String,
    /// Its line, counted from 1.
    pub line: u64,
    /// The column's name, or "row" or "header" where it is about the whole line.
    pub column: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Sites {
    /// Reads a registry: CSV in UTF-8 with the header `code,name,channel,region,address,lat,lng`, or the same with `,gateway`.
    /// `source` names the file in messages.
    pub fn parse(text: &str, source: &str) -> Result<Self, SiteErrors> {
        let mut parser = Parser { source, errors: Vec::new(), lines: BTreeMap::new(), sites: BTreeMap::new() };
        parser.read(text.strip_prefix('\u{FEFF}').unwrap_or(text));
        if parser.errors.is_empty() { Ok(Self(parser.sites)) } else { Err(SiteErrors(parser.errors)) }
    }

    /// Thirteen invented sites in several regions, so that the service can be tried without a registry.
    #[expect(clippy::expect_used, reason = "the text is part of the program and a test reads it")]
    pub fn demo() -> Self {
        Self::parse(include_str!("sites/demo.csv"), "the demo sites").expect("the demo sites are valid")
    }

    /// The site with this code.
    pub fn get(&self, id: SiteId) -> Option<&Arc<Site>> {
        self.0.get(&id)
    }

    /// Every site, in the order of the codes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.0.values()
    }

    /// How many sites there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a registry without sites is refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

struct Parser<'a> {
    source: &'a str,
    errors: Vec<SiteError>,
    /// Where each code was first seen.
    lines: BTreeMap<SiteId, u64>,
    sites: BTreeMap<SiteId, Arc<Site>>,
}

impl Parser<'_> {
    fn error(&mut self, line: u64, column: &'static str, problem: impl Into<String>) {
        self.errors.push(SiteError { file: self.source.to_owned(), line, column, problem: problem.into() });
    }

    fn read(&mut self, text: &str) {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut records = reader.records();
        let columns = match records.next() {
            Some(Ok(header)) if header.iter().eq(COLUMNS) || header.iter().eq(COLUMNS.into_iter().chain([GATEWAY])) => {
                header.len()
            }
            _ => {
                let columns = COLUMNS.join(",");
                let problem = format!("the first line must be {columns}, or the same with ,{GATEWAY}");
                return self.error(1, "header", problem);
            }
        };
        let mut at = Lines { text, byte: 0, line: 1 };
        let mut rows: u64 = 0;
        for record in records {
            rows += 1;
            match record {
                Ok(record) => self.row(at.line_of(record.position()), &record, columns),
                Err(error) => self.error(at.line_of(error.position()), "row", error.to_string()),
            }
        }
        if rows == 0 {
            self.error(1, "row", "there is no site: write one line per site below the header");
        }
    }

    fn row(&mut self, line: u64, record: &StringRecord, columns: usize) {
        let mut cells: Vec<&str> = record.iter().collect();
        let found = cells.len();
        if columns == COLUMNS.len() {
            cells.push("");
        }
        let (true, [code, name, channel, region, address, lat, lng, gateway]) = (found == columns, &cells[..]) else {
            let problem =
                format!("has {found} fields instead of {columns}; a field with a comma in it stands in double quotes");
            return self.error(line, "row", problem);
        };
        let id = self.id(line, code);
        let channel = match channel.parse::<Channel>() {
            Ok(channel) => Some(channel),
            Err(error) => {
                self.error(line, "channel", format!("{channel:?}: {error}"));
                None
            }
        };
        let name = self.text(line, "name", name);
        let region = self.text(line, "region", region);
        let address = self.text(line, "address", address);
        let position = self.position(line, lat, lng);
        let gateway = self.gateway(line, gateway);
        if let (Some(id), Some(channel), Some(name), Some(region), Some(address), Some(position), Some(gateway)) =
            (id, channel, name, region, address, position, gateway)
        {
            self.sites.insert(id, Arc::new(Site { id, name, channel, region, address, position, gateway }));
        }
    }

    fn id(&mut self, line: u64, code: &str) -> Option<SiteId> {
        let id = match code.parse() {
            Ok(id) => id,
            Err(error) => {
                self.error(line, "code", format!("{code:?}: {error}"));
                return None;
            }
        };
        if let Some(first) = self.lines.get(&id).copied() {
            self.error(line, "code", format!("{code} already stands in line {first}; every site has its own code"));
            return None;
        }
        self.lines.insert(id, line);
        Some(id)
    }

    fn text(&mut self, line: u64, column: &'static str, text: &str) -> Option<String> {
        if text.is_empty() {
            self.error(line, column, "is empty; write what people call it");
        } else if text.chars().count() > MAX_TEXT {
            self.error(line, column, format!("is longer than {MAX_TEXT} characters; shorten it"));
        } else if text.chars().any(char::is_control) {
            self.error(line, column, "holds a line break or another control character; remove it");
        } else {
            return Some(text.to_owned());
        }
        None
    }

    /// The outer `Option` is whether the cells are right, the inner one whether the position is known.
    fn position(&mut self, line: u64, lat: &str, lng: &str) -> Option<Option<(f64, f64)>> {
        match (lat, lng) {
            ("", "") => return Some(None),
            ("", _) => self.error(line, "lat", "is empty although lng is not; write both or neither"),
            (_, "") => self.error(line, "lng", "is empty although lat is not; write both or neither"),
            _ => {
                let lat = self.degrees(line, "lat", lat, 90.0);
                let lng = self.degrees(line, "lng", lng, 180.0);
                return Some(Some((lat?, lng?)));
            }
        }
        None
    }

    /// The outer `Option` is whether the cell is right, the inner one whether there is a gateway.
    fn gateway(&mut self, line: u64, name: &str) -> Option<Option<GatewayId>> {
        match name.parse() {
            _ if name.is_empty() => Some(None),
            Ok(name) => Some(Some(name)),
            Err(error) => {
                self.error(line, GATEWAY, format!("{name:?}: {error}; leave it empty where there is none"));
                None
            }
        }
    }

    fn degrees(&mut self, line: u64, column: &'static str, text: &str, most: f64) -> Option<f64> {
        let degrees = text.parse().ok().filter(|degrees| (-most..=most).contains(degrees));
        if degrees.is_none() {
            self.error(line, column, format!("{text:?}: write degrees from -{most} to {most}, such as 37.5702"));
        }
        degrees
    }
}

/// Counts lines itself: the reader's own position of a record lies before the empty lines that precede it.
struct Lines<'a> {
    text: &'a str,
    byte: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line on which a record begins. Records must come in the order of the file.
    fn line_of(&mut self, record: Option<&csv::Position>) -> u64 {
        let start = record.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(self.byte);
        let rest = self.text.get(start..).unwrap_or_default();
        let start = start + (rest.len() - rest.trim_start_matches(['\r', '\n']).len());
        let passed = self.text.get(self.byte..start).unwrap_or_default();
        self.line += passed.bytes().filter(|byte| *byte == b'\n').fold(0, |lines, _| lines + 1);
        self.byte = start;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "code,name,channel,region,address,lat,lng\n";

    fn errors(rows: &str) -> Vec<String> {
        let errors = Sites::parse(&format!("{HEADER}{rows}"), "sites.csv").unwrap_err();
        assert_eq!(errors.to_string(), errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_demo_sites_are_valid_and_cover_the_rules() {
        let sites = Sites::demo();
        assert_eq!((sites.len(), sites.is_empty()), (13, false));
        let site = sites.get("11000001".parse().unwrap()).unwrap();
        assert_eq!((site.channel.as_str(), site.region.as_str()), ("pharmacy", "Seoul"));
        assert_eq!(site.district(), "Seoul Jongno-gu");
        assert_eq!(site.position, Some((37.5702, 126.9768)));
        assert!(sites.get("99999999".parse().unwrap()).is_none());
        // A mart where the scheme of 2020 sold and one in each region where it never did.
        for (channel, region) in [
            ("mart", "Jeonnam"),
            ("mart", "Seoul"),
            ("mart", "Gyeonggi"),
            ("post_office", "Daegu"),
            ("pharmacy", "Daegu"),
        ] {
            assert!(sites.iter().any(|s| s.channel.as_str() == channel && s.region == region), "{channel} in {region}");
        }
    }

    #[test]
    fn spaces_quotes_and_a_byte_order_mark_do_no_harm() {
        let text = format!("\u{FEFF}{HEADER} 1 ,\"Kim, Lee & Co\", pharmacy ,Seoul,Seoul,,\r\n\n");
        let sites = Sites::parse(&text, "sites.csv").unwrap();
        let site = sites.get("1".parse().unwrap()).unwrap();
        assert_eq!((site.name.as_str(), site.district().as_str(), site.position), ("Kim, Lee & Co", "Seoul", None));
    }

    #[test]
    fn every_problem_is_told_with_its_line_and_column() {
        let rows = "11,One,pharmacy,Seoul,Seoul A,37.5,127\n\
                    11,Two,pharmacy,Seoul,Seoul B,,\n\
                    1 2,,Pharmacy,,\"a\nb\",91,-180.5\n\
                    13,Three,mart,Seoul,Seoul C,37.5,\n\
                    14,Four,mart,Seoul,Seoul D,,127\n\
                    15,Five,mart,Seoul,Seoul E,NaN,east\n\
                    16,Six,mart,Seoul, Seoul, F,1,1\n";
        assert_eq!(
            errors(rows),
            [
                "sites.csv:3: code: 11 already stands in line 2; every site has its own code",
                "sites.csv:4: code: \"1 2\": a site code must be 1 to 16 letters, digits, hyphens or underscores, and no person's number",
                "sites.csv:4: channel: \"Pharmacy\": a channel must be 1 to 24 lower-case letters, digits or underscores",
                "sites.csv:4: name: is empty; write what people call it",
                "sites.csv:4: region: is empty; write what people call it",
                "sites.csv:4: address: holds a line break or another control character; remove it",
                "sites.csv:4: lat: \"91\": write degrees from -90 to 90, such as 37.5702",
                "sites.csv:4: lng: \"-180.5\": write degrees from -180 to 180, such as 37.5702",
                "sites.csv:6: lng: is empty although lat is not; write both or neither",
                "sites.csv:7: lat: is empty although lng is not; write both or neither",
                "sites.csv:8: lat: \"NaN\": write degrees from -90 to 90, such as 37.5702",
                "sites.csv:8: lng: \"east\": write degrees from -180 to 180, such as 37.5702",
                "sites.csv:9: row: has 8 fields instead of 7; a field with a comma in it stands in double quotes",
            ]
        );
        let problem =
            "code: \"?\": a site code must be 1 to 16 letters, digits, hyphens or underscores, and no person's number";
        assert_eq!(
            errors("1,One,mart,Jeju,Jeju A,,\r\n\r\n\n?,Two,mart,Jeju,Jeju A,,\n"),
            [format!("sites.csv:5: {problem}")]
        );
        let long = "x".repeat(MAX_TEXT + 1);
        assert_eq!(
            errors(&format!("1,{long},pharmacy,Seoul,Seoul A,,\n")),
            ["sites.csv:2: name: is longer than 200 characters; shorten it"]
        );
    }

    #[test]
    fn a_site_may_have_a_gateway() {
        let header = HEADER.replace("lng", "lng,gateway");
        let rows = "1,One,mart,Jeju,Jeju A,,,pos-vendor\n2,Two,mart,Jeju,Jeju A,,,\n";
        let sites = Sites::parse(&(header.clone() + rows), "sites.csv").unwrap();
        let gateways: Vec<_> = sites.iter().map(|site| site.gateway.map(|name| name.to_string())).collect();
        assert_eq!(gateways, [Some("pos-vendor".to_owned()), None]);
        assert!(Sites::demo().iter().all(|site| site.gateway.is_some()));
        let rows = "1,One,mart,Jeju,Jeju A,,,pos vendor\n2,Two,mart,Jeju,Jeju A,,\n";
        assert_eq!(
            Sites::parse(&(header + rows), "sites.csv").unwrap_err().to_string(),
            "sites.csv:2: gateway: \"pos vendor\": a gateway's name must be 1 to 32 letters, digits, hyphens or underscores, and no person's number; \
             leave it empty where there is none\n\
             sites.csv:3: row: has 7 fields instead of 8; a field with a comma in it stands in double quotes"
        );
    }

    #[test]
    fn a_file_that_is_no_registry_is_refused() {
        let header = "sites.csv:1: header: the first line must be code,name,channel,region,address,lat,lng, or the same with \
                      ,gateway";
        for text in [
            "",
            "code,name\n",
            "code;name;channel;region;address;lat;lng\n",
            "name,code,channel,region,address,lat,lng\n",
            "code,name,channel,region,address,lat,lng,gate\n",
            "code,name,channel,region,address,lat,lng,gateway,more\n",
        ] {
            assert_eq!(Sites::parse(text, "sites.csv").unwrap_err().to_string(), header, "{text:?}");
        }
        assert_eq!(errors(""), ["sites.csv:1: row: there is no site: write one line per site below the header"]);
    }
}

//! Which sites are near a place: an index over the sphere, so that a radius is a radius everywhere.

use std::sync::Arc;

use rstar::RTree;
use rstar::primitives::GeomWithData;

use super::{Site, Sites};

/// The mean radius of the earth in metres (IUGG).
const EARTH: f64 = 6_371_008.8;

/// The sites that have a position, by where they are.
#[derive(Debug)]
pub struct Map(RTree<GeomWithData<[f64; 3], Arc<Site>>>);

impl Map {
    /// Of these sites. Those without a position are near nothing.
    pub fn of(sites: &Sites) -> Self {
        let placed = |site: &Arc<Site>| {
            let (lat, lng) = site.position?;
            Some(GeomWithData::new(on_sphere(lat, lng), site.clone()))
        };
        Self(RTree::bulk_load(sites.iter().filter_map(placed).collect()))
    }

    /// The sites at most so many metres from this place (degrees), as the crow flies, the nearest first; each with its distance in
    /// metres. Of two that are equally far the one with the smaller code.
    pub fn within(&self, lat: f64, lng: f64, metres: f64) -> Vec<(&Arc<Site>, f64)> {
        // A straight line through the earth is shorter than the way over it, by a known amount.
        let straight = 2.0 * (metres / EARTH / 2.0).min(std::f64::consts::FRAC_PI_2).sin();
        let found = self.0.locate_within_distance(on_sphere(lat, lng), straight * straight);
        let mut near: Vec<_> = found.map(|site| (&site.data, way(on_sphere(lat, lng), *site.geom()))).collect();
        near.sort_by(|(a, far), (b, farther)| far.total_cmp(farther).then_with(|| a.id.cmp(&b.id)));
        near
    }
}

/// A point on a sphere of radius 1.
fn on_sphere(lat: f64, lng: f64) -> [f64; 3] {
    let (lat, lng) = (lat.to_radians(), lng.to_radians());
    [lat.cos() * lng.cos(), lat.cos() * lng.sin(), lat.sin()]
}

/// The way over the earth between two points of that sphere, in metres.
fn way(a: [f64; 3], b: [f64; 3]) -> f64 {
    let straight: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
    2.0 * (straight / 2.0).min(1.0).asin() * EARTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_near_ones_come_with_their_distance_the_nearest_first() {
        let sites = Sites::demo();
        let map = Map::of(&sites);
        let near = map.within(37.5702, 126.9768, 10_000.0);
        let codes: Vec<_> = near.iter().map(|(site, _)| site.id.as_str()).collect();
        assert_eq!(codes.first(), Some(&"11000001"));
        assert!(near.iter().all(|(_, far)| *far <= 10_000.0) && near.is_sorted_by(|a, b| a.1 <= b.1));
        // Sejong to Bom Pharmacy by the haversine formula: 5,041 m or so.
        let bom = near.iter().find(|(site, _)| site.id.as_str() == "11000002").map(|(_, far)| *far);
        assert!(bom.is_some_and(|far| (5_000.0..5_100.0).contains(&far)), "{bom:?}");
        assert!(map.within(37.5702, 126.9768, 0.5).len() == 1);
        assert!(map.within(-37.0, -53.0, 5_000.0).is_empty());
    }

    #[test]
    fn what_an_index_finds_is_what_a_search_through_all_finds() {
        let sites = Sites::demo();
        let map = Map::of(&sites);
        for site in sites.iter() {
            let Some((lat, lng)) = site.position else { continue };
            for metres in [1.0, 700.0, 5_000.0, 300_000.0, 20_100_000.0] {
                let here = on_sphere(lat, lng);
                let all = sites
                    .iter()
                    .filter(|other| other.position.is_some_and(|(lat, lng)| way(here, on_sphere(lat, lng)) <= metres));
                assert_eq!(map.within(lat, lng, metres).len(), all.count(), "{} within {metres} m", site.id);
            }
        }
    }
}

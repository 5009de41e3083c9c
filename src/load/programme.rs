//! The programmes that the harness sells under. They are its own, so that no real sale and no made-up one ever stand in the same
//! windows; a service that is to be loaded must know the one of the scenario.

use super::audit::Rule;
use crate::ids::ProgrammeId;

/// A programme that the harness carries with it.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// Its id.
    pub name: &'static str,
    /// Its file, to be put among the programmes of a service.
    pub text: &'static str,
    units: u32,
    purchases: Option<u32>,
}

/// All of them.
pub const CARRIED: [Carried; 2] = [
    Carried { name: "load-canonical", text: include_str!("programmes/load-canonical.toml"), units: 2, purchases: None },
    Carried { name: "load-morning", text: include_str!("programmes/load-morning.toml"), units: 2, purchases: Some(1) },
];

impl Carried {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CARRIED.iter().find(|programme| programme.name == name)
    }

    /// Its id.
    #[expect(clippy::expect_used, reason = "the names are part of the program and a test reads them")]
    pub fn id(&self) -> ProgrammeId {
        self.name.parse().expect("a programme id")
    }

    /// The file's name.
    pub fn file(&self) -> String {
        format!("{}.toml", self.name)
    }

    /// What it allows, as the audit holds a ledger to it.
    pub fn rule(&self) -> Rule {
        Rule { units_a_week: Some(self.units), purchases_a_week: self.purchases }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Programme;

    #[test]
    fn the_files_are_programmes_that_allow_what_the_audit_expects() {
        for carried in CARRIED {
            let programme = Programme::parse(carried.text, &carried.file()).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(programme.id(), carried.id());
            let limit = format!("units = {}", carried.units);
            assert!(carried.text.contains(&limit), "{}", carried.name);
            let purchases = carried.purchases.map_or(String::new(), |most| format!("purchases = {most}"));
            assert!(carried.text.contains(&purchases), "{}", carried.name);
            assert_eq!(carried.text.contains("purchases ="), carried.purchases.is_some(), "{}", carried.name);
        }
    }

    #[test]
    fn they_stand_beside_the_built_in_ones() {
        let files: Vec<_> = CARRIED.iter().map(|carried| (carried.file(), carried.text.to_owned())).collect();
        let policies = crate::policy::Policies::with_files(&files).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(CARRIED.iter().all(|carried| policies.get(carried.id()).is_some()));
    }
}

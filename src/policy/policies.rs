//! All programmes that an instance knows: those built in, and those of files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::problems::{PolicyError, PolicyErrors};
use super::programme::Programme;
use crate::ids::ProgrammeId;

/// The programmes that come with the binary: name of the file, and its text.
const BUILT_IN: [(&str, &str); 2] = [
    ("built-in kr-public-mask-2020.toml", include_str!("programmes/kr-public-mask-2020.toml")),
    ("built-in weekly-essentials.toml", include_str!("programmes/weekly-essentials.toml")),
];

/// Programmes by id.
#[derive(Debug, Clone, Default)]
pub struct Policies(BTreeMap<ProgrammeId, Arc<Programme>>);

impl Policies {
    /// The programmes built in. A test holds that their files are right.
    pub fn built_in() -> Self {
        Self::with_files(&[]).unwrap_or_default()
    }

    /// The programmes built in, and those of these files (name and text each). A file may replace a programme built in
    /// by taking its id.
    pub fn with_files(files: &[(String, String)]) -> Result<Self, PolicyErrors> {
        let mut errors = Vec::new();
        let mut parse = |source: &str, text: &str| match Programme::parse(text, source) {
            Ok(programme) => Some(programme),
            Err(PolicyErrors(found)) => {
                errors.extend(found);
                None
            }
        };
        let built_in: Vec<_> = BUILT_IN.iter().filter_map(|(source, text)| parse(source, text)).collect();
        let of_files: Vec<_> = files.iter().filter_map(|(source, text)| Some((source, parse(source, text)?))).collect();

        let mut programmes: BTreeMap<ProgrammeId, Arc<Programme>> = BTreeMap::new();
        let mut sources: BTreeMap<ProgrammeId, &str> = BTreeMap::new();
        programmes.extend(built_in.into_iter().map(|programme| (programme.id(), Arc::new(programme))));
        for (source, programme) in of_files {
            let id = programme.id();
            if let Some(other) = sources.insert(id, source) {
                errors.push(of_whole(
                    source,
                    format!("{id} is defined in {other} too"),
                    "give one of the two another `id`",
                ));
            }
            programmes.insert(id, Arc::new(programme));
        }
        let mut codes = BTreeMap::new();
        for (id, programme) in &programmes {
            if let Some(other) = codes.insert(programme.code(), *id) {
                // The one that came from a file is the one that can be changed.
                let source = sources.get(id).or_else(|| sources.get(&other)).copied().unwrap_or("built-in programmes");
                let what = format!("{id} and {other} have the same code, {}", programme.code());
                errors.push(of_whole(source, what, "give one of the two another `code`"));
            }
        }
        if errors.is_empty() { Ok(Self(programmes)) } else { Err(PolicyErrors(errors)) }
    }

    /// For how long purchases are kept, the longest of all programmes.
    pub fn kept(&self) -> Duration {
        self.iter().map(|programme| programme.kept()).max().unwrap_or_default()
    }

    /// The programme of this id.
    pub fn get(&self, id: ProgrammeId) -> Option<&Arc<Programme>> {
        self.0.get(&id)
    }

    /// What to tell whoever names a programme that is not here.
    pub fn not_known(&self) -> String {
        let known: Vec<_> = self.0.keys().map(ProgrammeId::as_str).collect();
        format!("is not known here; known: {}", known.join(", "))
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Programme>> {
        self.0.values()
    }
}

fn of_whole(source: &str, what: String, remedy: &str) -> PolicyError {
    PolicyError { source: source.to_owned(), line: None, what, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_built_in_are_right() {
        let policies = Policies::with_files(&[]).unwrap_or_else(|errors| panic!("{errors}"));
        let ids: Vec<String> = policies.iter().map(|programme| programme.id().to_string()).collect();
        assert_eq!(ids, ["kr-public-mask-2020", "weekly-essentials"]);
    }
}

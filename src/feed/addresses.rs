//! Which sites have an address with these words: an index of the words, so that nobody's search goes through all sites.

use crate::sites::Site;

/// Every address as its words, small letters only.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Of each site, in the order of the sites.
    of: Vec<Vec<Box<str>>>,
    /// Each word and whose address it is in, in the order of the words.
    words: Vec<(Box<str>, usize)>,
}

impl Addresses {
    /// Of these sites.
    pub(super) fn of<'a>(sites: impl Iterator<Item = &'a Site>) -> Self {
        let of: Vec<Vec<_>> = sites.map(|site| words(&site.address).collect()).collect();
        let mut words: Vec<_> =
            of.iter().enumerate().flat_map(|(nth, words)| words.iter().map(move |word| (word.clone(), nth))).collect();
        words.sort_unstable();
        Self { of, words }
    }

    /// Which sites' addresses have words that begin with those of this text, in the same order. Of no words: none.
    pub(super) fn with(&self, text: &str) -> Vec<usize> {
        let asked: Vec<_> = words(text).collect();
        let rarest = asked.iter().map(|word| self.beginning(word)).min_by_key(|found| found.len());
        let mut found: Vec<_> = rarest.unwrap_or_default().iter().map(|(_, nth)| *nth).collect();
        found.sort_unstable();
        found.dedup();
        found.retain(|nth| self.of.get(*nth).is_some_and(|address| has_in_order(address, &asked)));
        found
    }

    fn beginning(&self, with: &str) -> &[(Box<str>, usize)] {
        let begins = self.words.partition_point(|(word, _)| &**word < with);
        let rest = self.words.get(begins..).unwrap_or_default();
        rest.get(..rest.partition_point(|(word, _)| word.starts_with(with))).unwrap_or_default()
    }
}

/// How many words a text has.
pub(super) fn count(text: &str) -> usize {
    words(text).count()
}

/// What stands around a word ("(Nonhyeon-dong)") is not part of it.
fn words(text: &str) -> impl Iterator<Item = Box<str>> {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase().into_boxed_str();
    text.split_whitespace().map(bare).filter(|word| !word.is_empty())
}

fn has_in_order(address: &[Box<str>], asked: &[Box<str>]) -> bool {
    let mut address = address.iter();
    asked.iter().all(|asked| address.any(|word| word.starts_with(&**asked)))
}

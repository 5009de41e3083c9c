//! How many units of a rationed thing are plenty.

use super::file::Table;
use super::problems::Problems;

/// From how many units on a site has plenty, some, few; below them it is empty. Those of the public feed of 2020 unless the
/// programme says otherwise: 100, 30 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StockLevels {
    /// From so many on.
    pub plenty: u32,
    /// From so many on.
    pub some: u32,
    /// From so many on; with fewer nothing can be sold.
    pub few: u32,
}

impl StockLevels {
    pub(super) const OF_2020: Self = Self { plenty: 100, some: 30, few: 2 };

    /// The table `[stock_levels]`; it says all three.
    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let byte = table.byte();
        let mut units = |key| table.integer(problems, key, 1..=1_000_000).and_then(|n| u32::try_from(n.value).ok());
        let (plenty, some, few) = (units("plenty"), units("some"), units("few"));
        table.close(problems);
        let levels = Self { plenty: plenty?, some: some?, few: few? };
        if levels.few < levels.some && levels.some < levels.plenty {
            return Some(levels);
        }
        problems.at(
            byte,
            "these levels do not go down",
            "let `plenty` be more than `some`, and `some` more than `few`",
        );
        None
    }
}

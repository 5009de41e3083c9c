//! What a terminal does while nobody can be asked.

use super::file::Found;
use super::problems::Problems;

/// What a terminal does while the service cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offline {
    /// It sells, writes the sales down and uploads them afterwards, as on the paper of 2020.
    SellAndRecord,
    /// It sells nothing.
    Stop,
}

impl Offline {
    pub(super) fn read(word: &Found<&str>, problems: &mut Problems<'_>) -> Option<Self> {
        match word.value {
            "sell_and_record" => Some(Self::SellAndRecord),
            "stop" => Some(Self::Stop),
            other => {
                problems.at(word.byte, format!("nothing offline is called {other:?}"), "write sell_and_record or stop");
                None
            }
        }
    }
}

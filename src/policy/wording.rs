//! How the words of a rule are said to a person.

use crate::ids::Paper;

/// "the resident register": a paper's name as it is said.
pub(super) fn spoken(paper: Paper) -> String {
    format!("the {}", paper.as_str().replace('_', " "))
}

/// "the a with the b".
pub(super) fn all(set: &[Paper]) -> String {
    set.iter().map(|paper| spoken(*paper)).collect::<Vec<_>>().join(" with ")
}

/// "a, b or c".
pub(super) fn either(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

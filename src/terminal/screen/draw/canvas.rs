//! Writing into cells: by columns and not by letters, so that a wide letter is never cut in half and what stands below another stands there.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::super::texts::{LABEL, Language, Text};
use super::{FAINT, MARGIN};

/// Stands for what did not fit.
const MORE: &str = "..";

/// The cells, and the language that is written into them.
pub(super) struct Canvas<'a> {
    pub(super) buffer: &'a mut Buffer,
    language: Language,
    /// How many of our own texts did not fit.
    pub(super) cut: usize,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, language: Language) -> Self {
        Self { buffer, language, cut: 0 }
    }

    pub(super) fn say(&self, text: Text) -> &'static str {
        text.say(self.language)
    }

    pub(super) fn paint(&mut self, area: Rect, style: Style) {
        self.buffer.set_style(area, style);
    }

    /// Writes a text of ours into a row, from its column `x` on; it should fit.
    pub(super) fn put(&mut self, row: Rect, x: u16, room: u16, text: &str, style: Style) {
        self.cut += usize::from(columns(text) > room);
        self.put_fitted(row, x, room, text, style);
    }

    /// Writes what may be longer than its room.
    pub(super) fn put_fitted(&mut self, row: Rect, x: u16, room: u16, text: &str, style: Style) {
        let room = room.min(row.width.saturating_sub(x));
        if row.height > 0 && room > 0 {
            self.buffer.set_stringn(row.x + x, row.y, fit(text, room), usize::from(room), style);
        }
    }

    /// Writes a text where there is hardly a place, or nothing.
    pub(super) fn put_if_it_fits(&mut self, area: Rect, x: u16, text: &str, style: Style) {
        if columns(text) <= area.width {
            self.put_fitted(area, x, area.width, text, style);
        }
    }

    /// Writes at the right end, and gives the columns that it took.
    pub(super) fn put_right(&mut self, row: Rect, text: &str, style: Style) -> u16 {
        let wide = columns(text);
        let room = row.width.saturating_sub(2 * MARGIN);
        self.put(row, row.width.saturating_sub(MARGIN + wide), room, text, style);
        wide.min(room)
    }

    /// Writes a label, and beside it what it is of.
    pub(super) fn labelled(&mut self, row: Rect, x: u16, label: Text, value: &str, style: Style) {
        let label = self.say(label);
        self.put(row, x, LABEL, label, FAINT);
        let room = row.width.saturating_sub(x + LABEL + MARGIN);
        // What stands at the left ends before what stands at the right begins.
        let room = if x < super::SECOND { room.min(super::SECOND - 1 - x - LABEL) } else { room };
        self.put_fitted(row, x + LABEL, room, value, style);
    }
}

/// The nth row of an area; empty below it.
pub(super) fn row(area: Rect, nth: u16) -> Rect {
    let height = u16::from(nth < area.height);
    Rect { y: area.y + nth.min(area.height), height, ..area }
}

pub(super) fn columns(text: &str) -> u16 {
    u16::try_from(text.width()).unwrap_or(u16::MAX)
}

/// At most so many columns of a text, with a sign where something is missing.
pub(super) fn fit(text: &str, room: u16) -> Cow<'_, str> {
    if columns(text) <= room {
        return text.into();
    }
    let room = usize::from(room).saturating_sub(MORE.len());
    let (fitting, _) = split(text, room);
    format!("{fitting}{MORE}").into()
}

/// A text in rows of so many columns, broken at spaces where there are any.
pub(super) fn wrap(text: &str, room: u16) -> Vec<String> {
    let room = usize::from(room.max(2));
    let mut rows: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut word = word;
        if let Some(row) = rows.last_mut()
            && row.width() + 1 + word.width() <= room
        {
            row.push(' ');
            row.push_str(word);
            continue;
        }
        while word.width() > room {
            let (fitting, rest) = split(word, room);
            rows.push(fitting.to_owned());
            word = rest;
        }
        rows.push(word.to_owned());
    }
    rows
}

/// Where a text must end to have at most so many columns.
fn split(text: &str, room: usize) -> (&str, &str) {
    let mut wide = 0;
    let end = text.char_indices().find(|(_, c)| {
        wide += c.width().unwrap_or(0);
        wide > room
    });
    text.split_at_checked(end.map_or(text.len(), |(at, _)| at)).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wide_letter_is_never_cut_in_half() {
        assert_eq!(["판매 불가", "판매 불", "판매", "판.."].map(|text| fit(text, 9).into_owned())[0], "판매 불가");
        for (room, expected) in [
            (9, "판매 불가"),
            (8, "판매 .."),
            (7, "판매 .."),
            (6, "판매.."),
            (5, "판.."),
            (4, "판.."),
            (3, ".."),
            (2, ".."),
        ] {
            assert_eq!(fit("판매 불가", room), expected, "{room}");
        }
        assert_eq!(wrap("가나다라 마바", 5), ["가나", "다라", "마바"]);
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("  ", 7), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn what_is_fitted_or_wrapped_keeps_to_its_room(text in "\\PC{0,60}", room in 2_u16..40) {
            prop_assert!(columns(&fit(&text, room)) <= room);
            for row in wrap(&text, room) {
                prop_assert!(columns(&row) <= room, "{row:?}");
            }
        }

        #[test]
        fn wrapping_loses_no_letter(text in "[가-힣a-z ]{0,60}", room in 2_u16..40) {
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&wrap(&text, room).concat()), letters(&text));
        }
    }
}

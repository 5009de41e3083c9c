//! Large letters: pictures of the few words that must be read from two steps away, drawn with half blocks.
//!
//! A cell of a terminal is two squares, one above the other. Latin letters are five squares wide and seven high, Korean syllables
//! fourteen each way; a word is drawn as large as its place allows, and letters are at most twice as wide as high or as high as wide.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

/// Rows of cells that a word needs at least.
pub(super) const ROWS: u16 = 7;

/// Draws a word in the middle of an area. A letter that has no picture is a gap.
pub(super) fn draw(word: &str, area: Rect, buffer: &mut Buffer, style: Style) {
    let picture = Picture::of(word);
    let (wide, high) = picture.scale(area);
    let (width, height) = (picture.width * wide, (picture.height * high).div_ceil(2));
    if width > area.width || height > area.height {
        return;
    }
    let (left, top) = (area.x + (area.width - width) / 2, area.y + (area.height - height) / 2);
    for y in 0..height {
        for x in 0..width {
            let is_set = |row: u16| picture.is_set(x / wide, row / high);
            let symbol = match (is_set(2 * y), is_set(2 * y + 1)) {
                (true, true) => "\u{2588}",
                (true, false) => "\u{2580}",
                (false, true) => "\u{2584}",
                (false, false) => continue,
            };
            if let Some(cell) = buffer.cell_mut(Position::new(left + x, top + y)) {
                cell.set_symbol(symbol).set_style(style);
            }
        }
    }
}

/// A word in squares.
struct Picture {
    /// Each letter, and the column at which it begins.
    letters: Vec<(u16, &'static [&'static str])>,
    width: u16,
    height: u16,
}

impl Picture {
    fn of(word: &str) -> Self {
        let height = word.chars().filter_map(glyph).map(length).max().unwrap_or(1);
        // Syllables are twice as large, and so is what lies between them.
        let gap = height.div_ceil(7);
        let (mut letters, mut next) = (Vec::new(), 0);
        for letter in word.chars() {
            let rows = glyph(letter).unwrap_or_default();
            let width = rows.first().map_or(2 * gap, |row| u16::try_from(row.len()).unwrap_or_default());
            letters.push((next, rows));
            next += width + gap;
        }
        Self { letters, width: next.saturating_sub(gap).max(1), height }
    }

    /// How many squares one square becomes, to the right and down.
    fn scale(&self, area: Rect) -> (u16, u16) {
        let (wide, high) = ((area.width / self.width).max(1), (2 * area.height / self.height).max(1));
        (wide.min(2 * high), high.min(2 * wide))
    }

    fn is_set(&self, x: u16, y: u16) -> bool {
        self.letters.iter().any(|(left, rows)| {
            let square = x.checked_sub(*left).and_then(|x| rows.get(usize::from(y))?.as_bytes().get(usize::from(x)));
            square == Some(&b'#')
        })
    }
}

fn length(rows: &[&str]) -> u16 {
    u16::try_from(rows.len()).unwrap_or_default()
}

#[rustfmt::skip]
fn glyph(letter: char) -> Option<&'static [&'static str]> {
    let rows: &'static [&'static str] = match letter {
        'A' => &[
            ".###.",
            "#...#",
            "#...#",
            "#####",
            "#...#",
            "#...#",
            "#...#",
        ],
        'B' => &[
            "####.",
            "#...#",
            "#...#",
            "####.",
            "#...#",
            "#...#",
            "####.",
        ],
        'C' => &[
            ".####",
            "#....",
            "#....",
            "#....",
            "#....",
            "#....",
            ".####",
        ],
        'D' => &[
            "####.",
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            "####.",
        ],
        'E' => &[
            "#####",
            "#....",
            "#....",
            "####.",
            "#....",
            "#....",
            "#####",
        ],
        'H' => &[
            "#...#",
            "#...#",
            "#...#",
            "#####",
            "#...#",
            "#...#",
            "#...#",
        ],
        'I' => &[
            "#####",
            "..#..",
            "..#..",
            "..#..",
            "..#..",
            "..#..",
            "#####",
        ],
        'K' => &[
            "#...#",
            "#..#.",
            "#.#..",
            "##...",
            "#.#..",
            "#..#.",
            "#...#",
        ],
        'L' => &[
            "#....",
            "#....",
            "#....",
            "#....",
            "#....",
            "#....",
            "#####",
        ],
        'M' => &[
            "#...#",
            "##.##",
            "#.#.#",
            "#.#.#",
            "#...#",
            "#...#",
            "#...#",
        ],
        'N' => &[
            "#...#",
            "##..#",
            "##..#",
            "#.#.#",
            "#..##",
            "#..##",
            "#...#",
        ],
        'O' => &[
            ".###.",
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            ".###.",
        ],
        'S' => &[
            ".####",
            "#....",
            "#....",
            ".###.",
            "....#",
            "....#",
            "####.",
        ],
        'T' => &[
            "#####",
            "..#..",
            "..#..",
            "..#..",
            "..#..",
            "..#..",
            "..#..",
        ],
        'U' => &[
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            ".###.",
        ],
        'V' => &[
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            "#...#",
            ".#.#.",
            "..#..",
        ],
        'W' => &[
            "#...#",
            "#...#",
            "#...#",
            "#.#.#",
            "#.#.#",
            "##.##",
            "#...#",
        ],
        'Y' => &[
            "#...#",
            "#...#",
            ".#.#.",
            "..#..",
            "..#..",
            "..#..",
            "..#..",
        ],
        '판' => &[
            "#########.##..",
            "..##.##...##..",
            "..##.##...##..",
            "..##.##...####",
            "..##.##...####",
            "..##.##...##..",
            "#########.##..",
            "..........##..",
            "..........##..",
            "..............",
            "..##..........",
            "..##..........",
            "..##..........",
            "..###########.",
        ],
        '매' => &[
            "............##",
            "........##..##",
            "#######.##..##",
            "##...##.##..##",
            "##...##.##..##",
            "##...##.##..##",
            "##...##.######",
            "##...##.######",
            "##...##.##..##",
            "##...##.##..##",
            "##...##.##..##",
            "#######.##..##",
            "........##..##",
            "............##",
        ],
        '불' => &[
            "...##....##...",
            "...##....##...",
            "...########...",
            "...##....##...",
            "...########...",
            "..............",
            "##############",
            "......##......",
            "......##......",
            "...########...",
            ".........##...",
            "...########...",
            "...##.........",
            "...########...",
        ],
        '가' => &[
            "..........##..",
            "..........##..",
            "########..##..",
            "......##..##..",
            "......##..##..",
            "......##..##..",
            "......##..####",
            ".....##...####",
            ".....##...##..",
            "....##....##..",
            "....##....##..",
            "..##......##..",
            "..##......##..",
            "..........##..",
        ],
        '구' => &[
            "..##########..",
            "..........##..",
            "..........##..",
            "..........##..",
            "..........##..",
            "..........##..",
            "..........##..",
            "..............",
            "##############",
            "......##......",
            "......##......",
            "......##......",
            "......##......",
            "......##......",
        ],
        '능' => &[
            "..##..........",
            "..##..........",
            "..##..........",
            "..##..........",
            "..##########..",
            "..............",
            "##############",
            "..............",
            ".....####.....",
            "...##....##...",
            "...##....##...",
            "...##....##...",
            "...##....##...",
            ".....####.....",
        ],
        '대' => &[
            "............##",
            "........##..##",
            "#######.##..##",
            "##......##..##",
            "##......##..##",
            "##......##..##",
            "##......######",
            "##......######",
            "##......##..##",
            "##......##..##",
            "##......##..##",
            "#######.##..##",
            "........##..##",
            "............##",
        ],
        '기' => &[
            "...........##.",
            "...........##.",
            "#########..##.",
            ".......##..##.",
            ".......##..##.",
            ".......##..##.",
            ".......##..##.",
            "......##...##.",
            "......##...##.",
            "....##.....##.",
            "....##.....##.",
            "..##.......##.",
            "..##.......##.",
            "...........##.",
        ],
        '미' => &[
            "...........##.",
            "...........##.",
            "#########..##.",
            "##.....##..##.",
            "##.....##..##.",
            "##.....##..##.",
            "##.....##..##.",
            "##.....##..##.",
            "##.....##..##.",
            "##.....##..##.",
            "##.....##..##.",
            "#########..##.",
            "...........##.",
            "...........##.",
        ],
        '확' => &[
            "...####....##.",
            "...........##.",
            ".########..##.",
            "....##.....##.",
            "..##..##...###",
            "..##..##...###",
            "....##.....##.",
            "....##.....##.",
            "##########.##.",
            "...........##.",
            "..###########.",
            "...........##.",
            "...........##.",
            "...........##.",
        ],
        '인' => &[
            "...####....##.",
            ".##....##..##.",
            ".##....##..##.",
            ".##....##..##.",
            ".##....##..##.",
            ".##....##..##.",
            ".##....##..##.",
            "...####....##.",
            "...........##.",
            "...........##.",
            "..##..........",
            "..##..........",
            "..##..........",
            "..###########.",
        ],
        '취' => &[
            "...###.....##.",
            "...........##.",
            "#########..##.",
            "...###.....##.",
            "..##.##....##.",
            "##.....##..##.",
            "...........##.",
            "...........##.",
            "##########.##.",
            "....##.....##.",
            "....##.....##.",
            "....##.....##.",
            "....##.....##.",
            "....##.....##.",
        ],
        '소' => &[
            "......##......",
            "......##......",
            "......##......",
            ".....####.....",
            "....##..##....",
            "..##......##..",
            "..............",
            "..............",
            "......##......",
            "......##......",
            "......##......",
            "......##......",
            "##############",
            "##############",
        ],
        _ => return None,
    };
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::super::texts::{Language, Text};
    use super::*;

    const WORDS: [Text; 6] = [Text::Sell, Text::DoNotSell, Text::MayBuy, Text::Wait, Text::Unchecked, Text::TakenBack];

    #[test]
    fn every_large_word_has_its_letters_and_fits_the_smallest_window() {
        for word in WORDS {
            for language in [Language::Korean, Language::English] {
                let word = word.say(language);
                for letter in word.chars().filter(|letter| *letter != ' ') {
                    let rows = glyph(letter).unwrap();
                    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{letter}");
                }
                let picture = Picture::of(word);
                let (wide, high) = picture.scale(Rect::new(0, 0, 76, ROWS));
                assert!(picture.width * wide <= 76 && (picture.height * high).div_ceil(2) <= ROWS, "{word}");
            }
        }
    }

    #[test]
    fn a_word_is_drawn_as_large_as_its_place_allows() {
        let drawn = |word, width, height| {
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            draw(word, buffer.area, &mut buffer, Style::default());
            let rows = (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>());
            rows.collect::<Vec<_>>()
        };
        assert_eq!(drawn("I", 5, 4), ["▀▀█▀▀", "  █  ", "  █  ", "▀▀▀▀▀"]);
        assert_eq!(drawn("I", 12, 7)[..2], [" ██████████ ", "     ██     "], "twice as wide, twice as high");
        assert_eq!(drawn("가", 13, 7).concat().trim(), "", "too narrow: nothing is better than a part");
    }
}

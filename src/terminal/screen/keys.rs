//! Keys as the clerk means them: with the Korean layout on or off, and whatever a scanner sends.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// 0 to 9.
    Digit(u8),
    /// A small letter.
    Letter(char),
    More,
    Less,
    Enter,
    Escape,
    Back,
    Up,
    Down,
    Function(u8),
}

impl Key {
    /// Spaces mean nothing, so that a number may be typed with them; the hyphen means less where there is something to make less.
    pub(super) fn of(event: KeyEvent) -> Option<Self> {
        let held_down = event.kind == KeyEventKind::Repeat && event.code == KeyCode::Enter;
        if event.kind == KeyEventKind::Release || held_down {
            return None;
        }
        if event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            // A line feed from a scanner comes as Ctrl-J.
            return match event.code {
                KeyCode::Char('j') => Some(Self::Enter),
                KeyCode::Char('c') => Some(Self::Function(10)),
                _ => None,
            };
        }
        match event.code {
            KeyCode::Enter => Some(Self::Enter),
            KeyCode::Esc => Some(Self::Escape),
            KeyCode::Backspace | KeyCode::Delete => Some(Self::Back),
            KeyCode::Up | KeyCode::BackTab => Some(Self::Up),
            KeyCode::Down | KeyCode::Tab => Some(Self::Down),
            KeyCode::F(n) => Some(Self::Function(n)),
            KeyCode::Char(c) => Self::of_char(c),
            _ => None,
        }
    }

    fn of_char(c: char) -> Option<Self> {
        // Full-width signs of an East Asian keyboard stand in the order of ASCII.
        let c = match c {
            '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0)?,
            _ => c,
        };
        match c {
            '0'..='9' => c.to_digit(10).and_then(|digit| u8::try_from(digit).ok()).map(Self::Digit),
            '+' | '=' => Some(Self::More),
            '-' | '_' => Some(Self::Less),
            'a'..='z' | 'A'..='Z' => Some(Self::Letter(c.to_ascii_lowercase())),
            _ => on_the_same_key(c).map(Self::Letter),
        }
    }
}

/// The Latin letter on the key of a Korean one.
fn on_the_same_key(jamo: char) -> Option<char> {
    const KOREAN: &str = "ㅁㅠㅊㅇㄷㄹㅎㅗㅑㅓㅏㅣㅡㅜㅐㅔㅂㄱㄴㅅㅕㅍㅈㅌㅛㅋ";
    ('a'..='z').zip(KOREAN.chars()).find(|(_, korean)| *korean == jamo).map(|(latin, _)| latin)
}

/// What a key does where letters are not typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Language,
    Clear,
    Proxy,
    Void,
    Today,
    NotHandedOver,
    HandedOver,
    Quit,
}

impl Command {
    pub(super) fn of(key: Key) -> Option<Self> {
        match key {
            Key::Function(2) | Key::Letter('l') => Some(Self::Language),
            Key::Function(3) | Key::Letter('c') | Key::Escape => Some(Self::Clear),
            Key::Function(4) | Key::Letter('p') => Some(Self::Proxy),
            Key::Function(5) | Key::Letter('v') => Some(Self::Void),
            Key::Function(6) | Key::Letter('t') => Some(Self::Today),
            Key::Function(7) | Key::Letter('n') => Some(Self::NotHandedOver),
            Key::Function(8) | Key::Letter('h') => Some(Self::HandedOver),
            Key::Function(10) | Key::Letter('q') => Some(Self::Quit),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(c: char) -> Option<Key> {
        Key::of(KeyCode::Char(c).into())
    }

    #[test]
    fn a_key_means_the_same_whatever_layout_is_on() {
        assert_eq!([of('7'), of('７')], [Some(Key::Digit(7)); 2]);
        assert_eq!([of('p'), of('P'), of('ㅔ'), of('Ｐ')], [Some(Key::Letter('p')); 4]);
        assert_eq!([of('-'), of('－')], [Some(Key::Less); 2]);
        assert_eq!([of(' '), of('한'), of('\u{1100}')], [None; 3]);
        for (latin, korean) in
            [('q', 'ㅂ'), ('v', 'ㅍ'), ('t', 'ㅅ'), ('l', 'ㅣ'), ('n', 'ㅜ'), ('h', 'ㅗ'), ('c', 'ㅊ')]
        {
            assert_eq!(of(korean), of(latin), "{korean}");
        }
    }

    #[test]
    fn a_line_feed_ends_a_scan_and_other_combinations_mean_nothing() {
        let with = |c, modifiers| Key::of(KeyEvent::new(KeyCode::Char(c), modifiers));
        assert_eq!(with('j', KeyModifiers::CONTROL), Some(Key::Enter));
        assert_eq!(with('c', KeyModifiers::CONTROL), Some(Key::Function(10)));
        assert_eq!(with('1', KeyModifiers::ALT), None);
    }

    #[test]
    fn letting_go_and_holding_down_enter_nothing() {
        let kind = |kind| Key::of(KeyEvent::new_with_kind(KeyCode::Enter, KeyModifiers::NONE, kind));
        assert_eq!(kind(KeyEventKind::Press), Some(Key::Enter));
        assert_eq!([kind(KeyEventKind::Repeat), kind(KeyEventKind::Release)], [None; 2]);
    }
}

//! The loop that owns the terminal: keys and what is told go into the screen, wishes come out, and it is drawn anew when something happened.
//!
//! However it ends, by a wish, an error or a panic, the terminal is what it was before.

use std::io::{self, IsTerminal};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::Screen;
use super::vocabulary::{Told, Wish};
use crate::time::Clock;

/// How long after the end the keyboard is still listened to, at most.
const LISTENS: Duration = Duration::from_millis(100);

/// How often it is looked whether it is.
const LOOKS: Duration = Duration::from_millis(10);

/// What happens to a screen.
enum Happening {
    Key(KeyEvent),
    /// The window is another one.
    Resized,
    Told(Told),
    /// No key can be read any more.
    Mute(io::Error),
    /// It is over, whatever the clerk wants.
    End,
}

/// Tells a screen that is run. Clones tell the same one, from any thread or task; none ever waits.
#[derive(Clone)]
pub struct Teller(Sender<Happening>);

/// What a screen that is run is told, in order.
pub struct Happenings {
    sender: Sender<Happening>,
    receiver: Receiver<Happening>,
}

/// Both ends.
pub fn channel() -> (Teller, Happenings) {
    let (sender, receiver) = mpsc::channel();
    (Teller(sender.clone()), Happenings { sender, receiver })
}

impl Teller {
    /// Tells it. Nobody hears it when the screen has ended.
    pub fn tell(&self, told: Told) {
        let _ = self.0.send(Happening::Told(told));
    }

    /// Ends it, as if the clerk had left but without a wish.
    pub fn end(&self) {
        let _ = self.0.send(Happening::End);
    }
}

/// Runs the screen on this process's terminal until the clerk leaves or it is ended. `wish` hears every wish, [`Wish::Quit`] as the last one, and must
/// not wait. `leave` is called when it has heard the last one, and may: what is typed until it comes back is nobody's, and the terminal is
/// given back after it.
pub fn run(
    screen: &mut Screen,
    happenings: &Happenings,
    clock: &impl Clock,
    wish: impl FnMut(Wish),
    leave: impl FnOnce(),
) -> io::Result<()> {
    let taken = Taken::over()?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let (keys, is_taken) = (happenings.sender.clone(), taken.is_taken.clone());
    let listening = thread::spawn(move || listen(&keys, &is_taken));
    let ended = serve(screen, &mut terminal, &happenings.receiver, || clock.monotonic(), wish);
    leave();
    taken.is_taken.store(false, Ordering::Relaxed);
    // What is typed from now on is for whoever comes next. A terminal that has gone away under it is read for ever: that is not waited
    // for, and ends with the process.
    for _ in 0..LISTENS.as_millis() / LOOKS.as_millis() + 1 {
        if listening.is_finished() {
            break;
        }
        thread::sleep(LOOKS);
    }
    ended?
}

/// Draws, waits until something happens, and goes on. Gives what the keyboard failed with, if it did.
fn serve<B: Backend>(
    screen: &mut Screen,
    terminal: &mut Terminal<B>,
    happenings: &Receiver<Happening>,
    now: impl Fn() -> Duration,
    mut wish: impl FnMut(Wish),
) -> Result<io::Result<()>, B::Error> {
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        let Ok(first) = happenings.recv() else { return Ok(Ok(())) };
        for happening in std::iter::once(first).chain(happenings.try_iter()) {
            match happening {
                Happening::Key(key) => match screen.key(key, now()) {
                    Some(Wish::Quit) => {
                        wish(Wish::Quit);
                        return Ok(Ok(()));
                    }
                    Some(wished) => wish(wished),
                    None => {}
                },
                Happening::Resized => {}
                Happening::Told(told) => screen.told(told),
                Happening::Mute(error) => return Ok(Err(error)),
                Happening::End => return Ok(Ok(())),
            }
        }
    }
}

/// Reads keys until the screen has ended.
fn listen(happenings: &Sender<Happening>, is_taken: &AtomicBool) {
    while is_taken.load(Ordering::Relaxed) {
        let happening =
            match event::poll(LISTENS).and_then(|came| if came { event::read().map(Some) } else { Ok(None) }) {
                Ok(Some(Event::Key(key))) => Happening::Key(key),
                Ok(Some(Event::Resize(..))) => Happening::Resized,
                Ok(_) => continue,
                Err(error) => Happening::Mute(error),
            };
        let is_last = matches!(happening, Happening::Mute(_));
        if happenings.send(happening).is_err() || is_last {
            return;
        }
    }
}

/// The terminal is ours while this lives.
struct Taken {
    is_taken: Arc<AtomicBool>,
}

impl Taken {
    fn over() -> io::Result<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(io::Error::other("the counter program takes a terminal, with a keyboard"));
        }
        let taken = Self { is_taken: Arc::new(AtomicBool::new(true)) };
        enable_raw_mode()?;
        // Clearing by `Terminal::clear` would ask where the cursor is, which not every terminal answers.
        execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        // A panic is told before anything is dropped, and would be told to a screen that is about to go. One of another thread is not the
        // end of this one.
        let (ours, is_taken, tell) = (thread::current().id(), taken.is_taken.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() == ours && is_taken.load(Ordering::Relaxed) {
                give_back();
            }
            tell(info);
        }));
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.is_taken.store(false, Ordering::Relaxed);
        give_back();
    }
}

/// Whatever fails here, there is nobody left to tell.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::{Door, Moment};
    use super::super::{Language, Setup};
    use super::*;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;

    fn screen() -> Screen {
        Screen::new(Setup {
            language: Language::English,
            programme: "Weekly essentials".into(),
            site: "11000001".into(),
            terminal: "window-1".into(),
            usual: 2,
            check_digit: true,
            relations: Vec::new(),
            papers: Vec::new(),
        })
    }

    fn type_in(keys: &Sender<Happening>, text: &str) {
        for c in text.chars() {
            let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
            keys.send(Happening::Key(code.into())).unwrap();
        }
    }

    /// A clock on which every look is so much later than the one before.
    fn ticking() -> impl Fn() -> Duration {
        let now = std::cell::Cell::new(Duration::ZERO);
        move || {
            now.set(now.get() + Duration::from_millis(200));
            now.get()
        }
    }

    #[test]
    fn keys_go_in_wishes_come_out_and_the_last_is_to_leave() {
        let (teller, happenings) = channel();
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let (mut screen, mut wishes) = (screen(), Vec::new());
        teller.tell(Told::Door(Door::Open { slot: 0 }));
        type_in(&happenings.sender, "8103051000112\n\nq\nnobody reads this");
        let ended = serve(&mut screen, &mut terminal, &happenings.receiver, ticking(), |wish| {
            wishes.push(match wish {
                Wish::Check { .. } => "check",
                Wish::Sell { .. } => "sell",
                Wish::Quit => "quit",
                _ => "another",
            });
        });
        assert!(ended.unwrap().is_ok());
        assert_eq!(wishes, ["check", "sell", "quit"]);
    }

    #[test]
    fn it_is_drawn_once_for_all_that_has_happened_and_then_waits() {
        let (teller, happenings) = channel();
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        for minute in 0..50 {
            let date = "2020-03-11".parse().unwrap();
            teller.tell(Told::Clock(Moment { date, hour: 9, minute }));
        }
        happenings.sender.send(Happening::Mute(io::Error::other("the keyboard is gone"))).unwrap();
        let ended = serve(&mut screen(), &mut terminal, &happenings.receiver, ticking(), |_| ()).unwrap();
        assert_eq!(ended.unwrap_err().to_string(), "the keyboard is gone");
        assert_eq!(terminal.draw(|_| ()).unwrap().count, 1, "drawn at the start alone: the end came before the next");
    }
}

//! The screen of the counter program: what a clerk with a queue in front types and sees.
//!
//! A state, what a key or a word of the service makes of it, and how it is drawn. It utters wishes and is told what became of them; it
//! knows no wire, no journal and no clock.
//!
//! * **SELL is the service's word.** It stands there only after a sale was recorded, or where the service says that nothing is. A look-up's
//!   yes is MAY BUY, and what nobody could be asked about is UNCHECKED.
//! * **Nothing is sold but by a key after the Enter on a whole number**, which is Enter; where this terminal knows better, another one.
//! * **A scan is taken whole or not at all.** Digits after a decision are the next number; a third digit of a quantity makes a number of
//!   all three; what is scanned while the screen waits is dropped to its end, so that no decision is wiped away unseen.
//! * **An answer stands under its own buyer only.** Every question has a number, and an answer to another one is not shown.

mod draw;
mod form;
mod keys;
mod letters;
mod number;
mod run;
mod texts;
mod vocabulary;

#[cfg(test)]
mod tests;

use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::KeyEvent;

use form::{Form, Turn};
use keys::{Command, Key};
pub use number::Number;
use number::{Slip, Typed};
pub use run::{Happenings, Teller, channel, run};
pub use texts::Language;
use texts::Text;
pub use vocabulary::{
    Answer, Ask, Door, Earlier, Failure, Journal, Masked, Moment, Offline, Proxy, Purchase, Reason, Refusal, Row,
    RowState, Standing, Told, Uploaded, Weekday, Wish,
};

use crate::ids::{Paper, Relation, RequestId};

/// A second Enter within so long is the first one: scanners send two, and fingers and keys bounce.
const BOUNCE: Duration = Duration::from_millis(150);
/// What was begun while nobody listened is over when so long nothing more has come.
const DEAF: Duration = Duration::from_secs(1);
/// Digits that a quantity may have. One more is no quantity.
const QUANTITY_DIGITS: usize = 2;
/// The most units that + reaches.
const MOST_UNITS: u32 = 99;

/// What does not change while the program runs, but for the language.
pub struct Setup {
    /// What the screen speaks first.
    pub language: Language,
    /// What the programme is called.
    pub programme: String,
    /// The site's code.
    pub site: String,
    /// The terminal's name.
    pub terminal: String,
    /// Units that a customer usually takes: what Enter alone sells.
    pub usual: u32,
    /// Whether the programme wants to be warned of check digits.
    pub check_digit: bool,
    /// The programme's words for agents; the first nine can be chosen.
    pub relations: Vec<Relation>,
    /// The programme's words for papers; the first 26 can be chosen.
    pub papers: Vec<Paper>,
}

/// The state of the screen.
pub struct Screen {
    setup: Setup,
    language: Language,
    clock: Option<Moment>,
    door: Door,
    journal: Journal,
    /// What it was found to have lost: that is so whatever happens to it later.
    lost: Option<u32>,
    waiting: u32,
    unresolved: u32,
    uploaded: Option<Uploaded>,
    /// Oldest first.
    rows: Vec<Row>,
    stage: Stage,
    terms: Terms,
    over: Option<Over>,
    remark: Option<Remark>,
    asked: u64,
    /// The last wish to enter what was handed over, while it has no answer.
    entering: Option<Ask>,
    /// When Enter was pressed last.
    entered: Option<Duration>,
    /// When the last digit came of what is not listened to.
    deaf: Option<Duration>,
}

/// Who buys for the customer, and what was shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Terms {
    proxy: Option<Proxy>,
    papers: Vec<Paper>,
}

/// Where the clerk is.
enum Stage {
    /// A number is typed; `slip` is what the last Enter found.
    Typing { typed: Typed, slip: Option<Slip> },
    /// A customer is served.
    Serving(Customer),
}

struct Customer {
    number: Number,
    quantity: Quantity,
    /// The last question.
    ask: Ask,
    step: Step,
}

struct Quantity {
    set: u32,
    /// What was typed instead, if anything.
    typed: Typed,
}

enum Step {
    LookingUp,
    Selling,
    Told(Answer),
}

/// What lies over the rest and takes the keys first.
enum Over {
    Form(Form),
    /// Which row, counted from the newest.
    List(usize),
    Void(RequestId),
    Quit,
}

/// What is said until the next key.
enum Remark {
    Say(Text),
    NotVoided(Failure),
}

impl Quantity {
    fn of(set: u32) -> Self {
        Self { set, typed: Typed::default() }
    }

    fn value(&self) -> u32 {
        if self.typed.is_empty() { self.set } else { self.typed.value() }
    }

    /// Goes up or down, and to nothing that cannot be sold.
    fn change(&mut self, by: i32) {
        *self = Self::of(self.value().saturating_add_signed(by).clamp(1, MOST_UNITS));
    }
}

impl Stage {
    fn empty() -> Self {
        Self::Typing { typed: Typed::default(), slip: None }
    }
}

impl Answer {
    /// Nothing more is asked or sold after it: the next digit is the next customer's.
    fn is_settled(&self) -> bool {
        match self {
            Self::Sold { .. } | Self::NotRequired { .. } | Self::Refused { .. } | Self::WrittenDown { .. } => true,
            Self::Unasked { offline, .. } => *offline == Offline::Stop,
            Self::MayBuy(_) | Self::Unknown { .. } | Self::NotSold { .. } | Self::Failed(_) => false,
        }
    }

    /// How much of what was asked for may still be bought, where that is less and more than nothing.
    fn less_is_left(&self, asked: u32) -> Option<u32> {
        let Self::Refused { reasons, standing: Some(standing) } = self else { return None };
        let only_too_many = reasons.iter().all(|reason| reason.refusal == Refusal::QuotaExhausted);
        standing.units_left.filter(|left| only_too_many && (1..asked).contains(left))
    }
}

impl Screen {
    /// Empty, and waiting for the first number.
    pub fn new(setup: Setup) -> Self {
        Self {
            language: setup.language,
            setup,
            clock: None,
            door: Door::Connecting,
            journal: Journal::Sound,
            lost: None,
            waiting: 0,
            unresolved: 0,
            uploaded: None,
            rows: Vec::new(),
            stage: Stage::empty(),
            terms: Terms::default(),
            over: None,
            remark: None,
            asked: 0,
            entering: None,
            entered: None,
            deaf: None,
        }
    }

    /// What a key makes of it. `now` only ever goes forward, from wherever it began.
    pub fn key(&mut self, event: KeyEvent, now: Duration) -> Option<Wish> {
        let key = Key::of(event)?;
        if self.is_dropped(key, now) {
            return None;
        }
        self.remark = None;
        if key == Key::Function(2) {
            self.language = self.language.other();
            return None;
        }
        match self.over.take() {
            None => self.base(key),
            Some(Over::Form(form)) => self.form(form, key),
            Some(Over::List(at)) => self.list(at, key),
            Some(Over::Void(row)) if key == Key::Enter => {
                self.remark = Some(Remark::Say(Text::VoidAsked));
                Some(Wish::Void { row, number: self.number_of(row) })
            }
            Some(Over::Quit) if key == Key::Enter => Some(Wish::Quit),
            // A number is never lost to a question that was left open.
            Some(Over::Void(_) | Over::Quit) if matches!(key, Key::Digit(_)) => self.base(key),
            Some(Over::Void(_) | Over::Quit) => None,
        }
    }

    /// The number of whoever is served, if that row may be a sale to it.
    fn number_of(&self, id: RequestId) -> Option<Number> {
        let Stage::Serving(customer) = &self.stage else { return None };
        let row = self.rows.iter().find(|row| row.id == id)?;
        (row.number == customer.number.masked()).then(|| customer.number.clone())
    }

    /// What it is told.
    pub fn told(&mut self, told: Told) {
        match told {
            Told::Clock(at) => self.clock = Some(at),
            Told::Door(door) => self.door = door,
            Told::Answer { ask, answer } => {
                if self.entering == Some(ask) {
                    self.entering = None;
                    self.remark = Some(Remark::Say(Text::of_entering(&answer)));
                }
                self.answered(ask, answer);
            }
            Told::Row(row) => {
                self.learn(row.id, row.state);
                if row.state == RowState::Voided && matches!(self.remark, Some(Remark::Say(Text::VoidAsked))) {
                    self.remark = Some(Remark::Say(Text::TakenBackDo));
                }
                match self.rows.iter_mut().find(|known| known.id == row.id) {
                    Some(known) => *known = row,
                    None => self.rows.push(row),
                }
            }
            Told::NotVoided { why, .. } => self.remark = Some(Remark::NotVoided(why)),
            Told::Sheets { waiting, unresolved } => (self.waiting, self.unresolved) = (waiting, unresolved),
            Told::Uploaded(uploaded) => self.uploaded = Some(uploaded),
            Told::Journal(journal) => {
                if let Journal::Damaged { lost } = journal {
                    self.lost = Some(lost);
                }
                self.journal = match (journal, self.lost) {
                    (Journal::Sound, Some(lost)) => Journal::Damaged { lost },
                    (journal, _) => journal,
                };
            }
        }
    }

    /// Nobody is shown an answer but the customer who waits for it.
    fn answered(&mut self, ask: Ask, answer: Answer) {
        let Stage::Serving(customer) = &mut self.stage else { return };
        if customer.ask != ask {
            return;
        }
        customer.step = Step::Told(answer);
        // It may have become known before the answer was told.
        let known: Vec<_> = self.rows.iter().map(|row| (row.id, row.state)).collect();
        known.into_iter().for_each(|(id, state)| self.learn(id, state));
    }

    /// What was unknown may become known by itself, while the customer still waits. That it is no sale does not answer whether the goods
    /// are gone.
    fn learn(&mut self, id: RequestId, state: RowState) {
        if let Stage::Serving(Customer { step: Step::Told(answer), .. }) = &mut self.stage
            && let Answer::Unknown { row, offline } | Answer::NotSold { row, offline } = *answer
            && row == id
        {
            match state {
                RowState::Sold => *answer = Answer::Sold { row: id, standing: None },
                RowState::Unsettled => *answer = Answer::NotSold { row, offline },
                RowState::NotSold => *answer = Answer::Failed(Failure::NotRecorded),
                RowState::Waiting | RowState::Late | RowState::OverQuota => *answer = Answer::WrittenDown { row: id },
                RowState::Unknown | RowState::Voiding | RowState::Voided | RowState::PutAside | RowState::ToMend => {}
            }
        }
    }

    /// Draws it on the whole frame.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        draw::draw(self, area, frame.buffer_mut());
    }

    /// Whether a key is not listened to: the echo of an Enter, and what is scanned while a sale is under way, to its end.
    fn is_dropped(&mut self, key: Key, now: Duration) -> bool {
        let within = |since: Option<Duration>, span| since.is_some_and(|since| now.saturating_sub(since) < span);
        match key {
            Key::Digit(_) => {
                let why = self.takes_no_number().or(within(self.deaf, DEAF).then_some(Text::NotTaken));
                if let Some(text) = why {
                    self.deaf = Some(now);
                    self.remark = Some(Remark::Say(text));
                }
                why.is_some()
            }
            Key::Enter => {
                let echoes = within(self.entered.replace(now), BOUNCE);
                let ends_a_scan = within(self.deaf.take(), DEAF);
                echoes || ends_a_scan || self.takes_no_number() == Some(Text::NotTaken)
            }
            _ => false,
        }
    }

    /// Whether this terminal may sell, so that nothing is sold unchecked.
    fn is_open(&self) -> bool {
        matches!(self.door, Door::Open { .. })
    }

    /// Why a number is not taken now: a sale is under way, or its outcome is or was unknown and nobody has said what became of the goods.
    fn takes_no_number(&self) -> Option<Text> {
        match &self.stage {
            _ if self.over.is_some() => None,
            Stage::Serving(Customer { step: Step::Selling, .. }) => Some(Text::NotTaken),
            Stage::Serving(Customer { step: Step::Told(Answer::Unknown { .. } | Answer::NotSold { .. }), .. }) => {
                Some(Text::SayFirst)
            }
            Stage::Serving(_) | Stage::Typing { .. } => None,
        }
    }

    fn base(&mut self, key: Key) -> Option<Wish> {
        let command = Command::of(key);
        match command {
            Some(Command::Language) => {
                self.language = self.language.other();
                return None;
            }
            Some(Command::Quit) => {
                self.over = Some(Over::Quit);
                return None;
            }
            _ => {}
        }
        let is_back = self.is_open();
        match &mut self.stage {
            Stage::Typing { typed, slip } => match key {
                Key::Digit(digit) => {
                    // What was found wrong as a whole is not gone on with.
                    if slip.is_some() && typed.length_slip().is_none_or(|length| length == Slip::Long) {
                        *typed = Typed::default();
                    }
                    typed.push(digit);
                    *slip = None;
                    None
                }
                Key::Back => {
                    typed.pop();
                    *slip = None;
                    None
                }
                Key::Enter => self.enter_number(),
                _ => self.aside(command),
            },
            Stage::Serving(customer) => match &customer.step {
                Step::Selling => None,
                Step::Told(Answer::NotSold { .. }) if key == Key::Enter => {
                    self.remark = Some(Remark::Say(Text::SayFirst));
                    None
                }
                Step::Told(Answer::Unknown { row, offline } | Answer::NotSold { row, offline }) => {
                    let (row, offline) = (*row, *offline);
                    self.unknown(row, offline, key)
                }
                // What was true when nobody could be asked is not sold on: the service is there, and is asked.
                Step::Told(Answer::Unasked { .. })
                    if is_back && (key == Key::Enter || command == Some(Command::HandedOver)) =>
                {
                    let (number, quantity) = (customer.number.clone(), customer.quantity.value().max(1));
                    self.look_up(number, quantity)
                }
                Step::Told(answer) if answer.is_settled() => match key {
                    Key::Digit(digit) => self.next_customer([digit]),
                    Key::Less => {
                        let less = answer.less_is_left(customer.quantity.value())?;
                        let number = customer.number.clone();
                        self.look_up(number, less)
                    }
                    _ => self.aside(command),
                },
                Step::LookingUp | Step::Told(_) => match key {
                    Key::Digit(digit) => {
                        let typed = &mut customer.quantity.typed;
                        if typed.count() < QUANTITY_DIGITS {
                            typed.push(digit);
                            return None;
                        }
                        let value = typed.value();
                        let digits = [value / 10, value % 10].map(|digit| u8::try_from(digit).unwrap_or_default());
                        let [first, second] = digits;
                        self.next_customer([first, second, digit])
                    }
                    Key::More => {
                        customer.quantity.change(1);
                        None
                    }
                    Key::Less => {
                        customer.quantity.change(-1);
                        None
                    }
                    Key::Back => {
                        customer.quantity.typed.pop();
                        None
                    }
                    Key::Enter => self.sell(false),
                    _ if command == Some(Command::HandedOver) => self.sell(true),
                    _ => self.aside(command),
                },
            },
        }
    }

    /// What can be done beside serving.
    fn aside(&mut self, command: Option<Command>) -> Option<Wish> {
        match command? {
            Command::Clear => return self.next_customer([]),
            Command::Proxy => {
                let opens = match &self.stage {
                    Stage::Typing { .. } => true,
                    Stage::Serving(customer) => match &customer.step {
                        Step::Told(answer) => !answer.is_settled() || matches!(answer, Answer::Refused { .. }),
                        Step::LookingUp => true,
                        Step::Selling => false,
                    },
                };
                if opens {
                    self.over = Some(Over::Form(Form::new(&self.terms, &self.setup)));
                }
            }
            Command::Void => {
                let last = self.rows.iter().rev().find(|row| row.state.is_voidable()).map(|row| row.id);
                match last {
                    Some(row) => self.over = Some(Over::Void(row)),
                    None => self.remark = Some(Remark::Say(Text::VoidNothing)),
                }
            }
            Command::Today => self.over = Some(Over::List(0)),
            Command::NotHandedOver | Command::HandedOver | Command::Language | Command::Quit => {}
        }
        None
    }

    /// Nobody knows what became of the purchase, or knew: one key says what became of the goods.
    fn unknown(&mut self, row: RequestId, offline: Offline, key: Key) -> Option<Wish> {
        match (key, Command::of(key)) {
            (Key::Enter, _) => Some(Wish::Resolve { ask: self.wait()?, row }),
            (_, Some(Command::HandedOver)) if offline == Offline::Stop => {
                self.remark = Some(Remark::Say(Text::EnteringStopped));
                None
            }
            (_, Some(Command::HandedOver)) => {
                let ask = self.wait()?;
                self.entering = Some(ask);
                Some(Wish::HandedOver { ask, row })
            }
            (_, Some(Command::NotHandedOver)) => {
                self.next_customer([]);
                self.remark = Some(Remark::Say(Text::Noted));
                Some(Wish::NotHandedOver { row })
            }
            _ => {
                self.remark = Some(Remark::Say(Text::SayFirst));
                None
            }
        }
    }

    /// Enter on what was typed: looks the number up if nothing is wrong with it. A doubtful check digit takes a second Enter.
    fn enter_number(&mut self) -> Option<Wish> {
        let Stage::Typing { typed, slip } = &mut self.stage else { return None };
        if typed.is_empty() {
            return None;
        }
        let warned = *slip == Some(Slip::CheckDigit);
        let today = self.clock.map(|at| at.date);
        let Some(number) = typed.whole() else {
            *slip = typed.length_slip();
            return None;
        };
        *slip = number.slip(today, self.setup.check_digit);
        match slip {
            None => self.look_up(number, self.setup.usual.max(1)),
            Some(Slip::CheckDigit) if warned => self.look_up(number, self.setup.usual.max(1)),
            Some(_) => None,
        }
    }

    fn look_up(&mut self, number: Number, quantity: u32) -> Option<Wish> {
        let ask = self.next_ask();
        let quantity = Quantity::of(quantity);
        let customer = Customer { number, quantity, ask, step: Step::LookingUp };
        let purchase = self.purchase(&customer);
        self.stage = Stage::Serving(customer);
        Some(Wish::Check { ask, purchase })
    }

    /// Sells what is asked for, also where the journal is told to be broken: what cannot be written down is not sold by whoever writes it,
    /// and that it can be written again is found out by trying. `all_the_same`: although this terminal has sold to the same number before.
    fn sell(&mut self, all_the_same: bool) -> Option<Wish> {
        let Stage::Serving(customer) = &self.stage else { return None };
        let unasked = match &customer.step {
            Step::Told(Answer::Unasked { own, .. }) => Some(!own.is_empty()),
            Step::LookingUp | Step::Selling | Step::Told(_) => None,
        };
        let hindrance = match unasked {
            _ if customer.quantity.value() == 0 => Some(Text::QuantityZero),
            Some(sold_before) if sold_before && !all_the_same => Some(Text::SoldHereBefore),
            None if all_the_same => return None,
            Some(_) | None => None,
        };
        if let Some(text) = hindrance {
            self.remark = Some(Remark::Say(text));
            return None;
        }
        let purchase = self.purchase(customer);
        let ask = self.wait()?;
        Some(if unasked.is_some() { Wish::SellOffline { ask, purchase } } else { Wish::Sell { ask, purchase } })
    }

    fn purchase(&self, customer: &Customer) -> Purchase {
        let Terms { proxy, papers } = self.terms.clone();
        Purchase { number: customer.number.clone(), quantity: customer.quantity.value(), proxy, papers }
    }

    /// From now on the customer waits for the answer to a new question.
    fn wait(&mut self) -> Option<Ask> {
        let next = self.next_ask();
        let Stage::Serving(customer) = &mut self.stage else { return None };
        customer.step = Step::Selling;
        customer.ask = next;
        Some(next)
    }

    fn next_ask(&mut self) -> Ask {
        self.asked += 1;
        Ask(self.asked)
    }

    /// Begins anew with these digits.
    fn next_customer<const N: usize>(&mut self, digits: [u8; N]) -> Option<Wish> {
        let mut typed = Typed::default();
        digits.into_iter().for_each(|digit| typed.push(digit));
        self.stage = Stage::Typing { typed, slip: None };
        self.terms = Terms::default();
        None
    }

    fn form(&mut self, mut form: Form, key: Key) -> Option<Wish> {
        let this_year = self.clock.map(|at| at.date.year);
        match form.key(key, &self.setup, this_year) {
            Turn::Stay(remark) => {
                self.remark = remark.map(Remark::Say);
                self.over = Some(Over::Form(form));
                None
            }
            Turn::Close => None,
            Turn::Done(terms) => {
                self.terms = terms;
                let Stage::Serving(customer) = &self.stage else { return None };
                let (number, quantity) = (customer.number.clone(), customer.quantity.value().max(1));
                self.look_up(number, quantity)
            }
        }
    }

    fn list(&mut self, at: usize, key: Key) -> Option<Wish> {
        let last = self.today().count().saturating_sub(1);
        self.over = match (key, Command::of(key)) {
            (Key::Up, _) => Some(Over::List(at.saturating_sub(1))),
            (Key::Down, _) => Some(Over::List(at.saturating_add(1).min(last))),
            (_, Some(Command::Void)) => {
                let row = self.today().nth(at).filter(|row| row.state.is_voidable()).map(|row| row.id);
                if row.is_none() {
                    self.remark = Some(Remark::Say(Text::VoidNotThis));
                }
                Some(row.map_or(Over::List(at), Over::Void))
            }
            (_, Some(command @ (Command::HandedOver | Command::NotHandedOver))) => {
                self.over = Some(Over::List(at));
                return self.settle(at, command);
            }
            (_, Some(Command::Language)) => {
                self.language = self.language.other();
                Some(Over::List(at))
            }
            (_, Some(Command::Quit)) => Some(Over::Quit),
            (Key::Digit(_), _) => return self.base(key),
            (_, Some(Command::Today | Command::Clear)) => None,
            _ => Some(Over::List(at)),
        };
        None
    }

    /// Says of a row of the list what became of the goods.
    fn settle(&mut self, at: usize, command: Command) -> Option<Wish> {
        let Some(row) = self.today().nth(at).filter(|row| row.state.is_open()).map(|row| row.id) else {
            self.remark = Some(Remark::Say(Text::SettleNotThis));
            return None;
        };
        if command == Command::NotHandedOver {
            self.remark = Some(Remark::Say(Text::Noted));
            return Some(Wish::NotHandedOver { row });
        }
        let ask = self.next_ask();
        self.entering = Some(ask);
        self.remark = Some(Remark::Say(Text::Entering));
        Some(Wish::HandedOver { ask, row })
    }

    /// Today's rows and those that are not done with, newest first.
    fn today(&self) -> impl Iterator<Item = &Row> {
        let is_open = |row: &Row| row.state.is_open() || matches!(row.state, RowState::Waiting | RowState::ToMend);
        let is_todays = |row: &Row| self.clock.is_none_or(|now| row.at.date == now.date);
        self.rows.iter().rev().filter(move |row| is_open(row) || is_todays(row))
    }
}

//! The clerk's day, key by key; what stands on the screen; and what never does, whatever is pressed and told.

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::Rect;
use ratatui::style::Color;
use unicode_width::UnicodeWidthStr;

use super::texts::Text;
use super::*;
use crate::time::Date;

const BUYER: &str = "810305-1000112";
const OTHER: &str = "631120-2162511";
const BOTH: [Language; 2] = [Language::Korean, Language::English];
const SIZES: [(u16, u16); 2] = [(80, 24), (120, 40)];
/// Between two keys of a hand, and of a scanner.
const HAND: Duration = Duration::from_millis(200);
const SCANNER: Duration = Duration::from_millis(2);

/// A screen, the clock on the wall, and the hands before it.
struct Counter {
    screen: Screen,
    now: Duration,
}

fn moment(text: &str, hour: u8, minute: u8) -> Moment {
    Moment { date: text.parse().unwrap(), hour, minute }
}

fn names<T: std::str::FromStr>(words: &str) -> Vec<T>
where
    T::Err: std::fmt::Debug,
{
    words.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn id(n: u8) -> RequestId {
    RequestId::from_bytes([n.max(1); 16]).unwrap()
}

fn row(n: u8, state: RowState) -> Row {
    let number = Number::new(BUYER).unwrap().masked();
    let at = moment("2020-03-11", 9, n);
    Row { id: id(n), at, number, quantity: 2, state }
}

fn standing(units_left: u32) -> Option<Standing> {
    Some(Standing {
        units_left: Some(units_left),
        purchases_left: Some(units_left.min(1)),
        next: Some("2020-03-16".parse().unwrap()),
        earlier: vec![Earlier { at: moment("2020-03-09", 10, 5), quantity: 1, district: "Seoul Jongno-gu".into() }],
        own_day: Some(Weekday::Monday),
    })
}

fn refused(refusal: Refusal, why: &str, units_left: u32) -> Answer {
    Answer::Refused { reasons: vec![Reason { refusal, why: why.into() }], standing: standing(units_left) }
}

fn unasked(offline: Offline, sold_before: bool) -> Answer {
    let earlier = Earlier { at: moment("2020-03-11", 8, 55), quantity: 2, district: String::new() };
    Answer::Unasked { offline, own: if sold_before { vec![earlier] } else { Vec::new() } }
}

fn unknown(n: u8) -> Answer {
    Answer::Unknown { row: id(n), offline: Offline::SellAndRecord }
}

impl Counter {
    fn new(language: Language) -> Self {
        let mut screen = Screen::new(Setup {
            language,
            programme: "Public masks, South Korea 2020".into(),
            site: "11000001".into(),
            terminal: "window-1".into(),
            usual: 2,
            check_digit: true,
            relations: names("same_household family staff anyone"),
            papers: names("resident_register family_relation_certificate disability_card id_card passport"),
        });
        screen.told(Told::Clock(moment("2020-03-11", 9, 5)));
        screen.told(Told::Door(Door::Open { slot: 0 }));
        Self { screen, now: Duration::from_secs(1) }
    }

    fn key(&mut self, code: KeyCode, after: Duration) -> Option<Wish> {
        self.now += after;
        self.screen.key(code.into(), self.now)
    }

    /// Presses keys by hand; a line feed is Enter, a tilde is Escape. Gives the wish of the last one that has one.
    fn press(&mut self, keys: &str) -> Option<Wish> {
        self.keys(keys, HAND)
    }

    fn scan(&mut self, number: &str) -> Option<Wish> {
        self.now += HAND;
        self.keys(&format!("{number}\n"), SCANNER)
    }

    fn keys(&mut self, keys: &str, each: Duration) -> Option<Wish> {
        let code = |c| match c {
            '\n' => KeyCode::Enter,
            '~' => KeyCode::Esc,
            c => KeyCode::Char(c),
        };
        keys.chars().filter_map(|c| self.key(code(c), each)).last()
    }

    fn function(&mut self, n: u8) -> Option<Wish> {
        self.key(KeyCode::F(n), HAND)
    }

    /// Answers the question that is open. Where nobody could be asked, the service is away.
    fn answer(&mut self, answer: Answer) {
        if let Answer::Unasked { offline, .. } = answer {
            let since = moment("2020-03-11", 9, 1);
            self.screen.told(Told::Door(Door::Away { since, offline }));
        }
        self.screen.told(Told::Answer { ask: Ask(self.screen.asked), answer });
    }

    /// From nothing to the answer of a look-up.
    fn looked_up(language: Language, answer: Answer) -> Self {
        let mut counter = Self::new(language);
        assert!(matches!(counter.scan(BUYER), Some(Wish::Check { .. })));
        counter.answer(answer);
        counter
    }

    /// From nothing to the answer of a sale.
    fn sold(language: Language, answer: Answer) -> Self {
        let mut counter = Self::looked_up(language, Answer::MayBuy(standing(2)));
        assert!(matches!(counter.press("\n"), Some(Wish::Sell { .. })));
        counter.answer(answer);
        counter
    }

    /// The question that is open before the customer.
    fn open(&self) -> Ask {
        match &self.screen.stage {
            Stage::Serving(customer) => customer.ask,
            Stage::Typing { .. } => Ask(self.screen.asked),
        }
    }

    fn buffer(&self, (width, height): (u16, u16)) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| self.screen.draw(frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn rows(&self, size: (u16, u16)) -> Vec<String> {
        rows(&self.buffer(size))
    }

    fn shows(&self, what: &str) -> bool {
        self.rows((80, 24)).iter().any(|row| row.contains(what))
    }

    /// The ground of the large letters.
    fn ground(&self) -> Color {
        self.buffer((80, 24))[(0, 9)].bg
    }
}

/// What stands in each row. The cell behind a wide letter is part of it.
fn rows(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let row = |y| {
        let (mut row, mut x) = (String::new(), 0);
        while x < area.width {
            let symbol = buffer[(x, y)].symbol();
            row.push_str(symbol);
            x += u16::try_from(symbol.width()).unwrap().max(1);
        }
        assert_eq!(x, area.width, "a wide letter goes over the edge: {row}");
        row.trim_end().to_owned()
    };
    (0..area.height).map(row).collect()
}

fn purchase(wish: Option<Wish>) -> Option<Purchase> {
    match wish? {
        Wish::Check { purchase, .. } | Wish::Sell { purchase, .. } | Wish::SellOffline { purchase, .. } => {
            Some(purchase)
        }
        _ => None,
    }
}

#[test]
fn a_scan_and_one_enter_sell_what_is_usual() {
    let mut counter = Counter::new(Language::English);
    let asked = counter.scan(BUYER);
    assert!(matches!(asked, Some(Wish::Check { .. })));
    counter.answer(Answer::MayBuy(standing(2)));
    assert_eq!(counter.ground(), Color::Blue);
    assert!(counter.shows("MAY BUY: Not recorded yet. Enter records the sale of 2."));
    let sold = counter.press("\n");
    assert!(matches!(sold, Some(Wish::Sell { .. })));
    let Purchase { number, quantity, proxy, papers } = purchase(sold).unwrap();
    assert_eq!((number.as_str(), quantity, proxy, papers), ("8103051000112", 2, None, Vec::new()));
    assert_eq!(counter.ground(), Color::Yellow, "a sale under way is no sale");
    counter.answer(Answer::Sold { row: id(1), standing: standing(0) });
    assert_eq!(counter.ground(), Color::Green);
    assert!(counter.shows("SELL: Recorded. Hand over 2."));
    assert!(
        counter.press("\n").is_none() && counter.shows("SELL: Recorded"),
        "the decision stays until the next digit"
    );
    assert!(counter.press("6").is_none() && counter.shows("6_") && !counter.shows("SELL"));
}

/// The hands of a clerk with a scanner press one key a sale, of one without it two beside the digits: at five keys a second, which is
/// slow, that is 0.2 and 0.4 s, and 3 s with all thirteen digits.
#[test]
fn so_many_keys_make_a_sale() {
    let strokes = |keys: &str| {
        let mut counter = Counter::new(Language::Korean);
        keys.chars().position(|c| {
            let wish = counter.press(c.encode_utf8(&mut [0; 4]));
            if matches!(wish, Some(Wish::Check { .. })) {
                counter.answer(Answer::MayBuy(standing(2)));
            }
            matches!(wish, Some(Wish::Sell { .. }))
        })
    };
    assert_eq!(strokes("8103051000112\n\n").map(|at| at + 1), Some(13 + 2));
    assert_eq!(strokes("8103051000112\n1\n").map(|at| at + 1), Some(13 + 3), "with another quantity");
}

#[test]
fn nobody_has_to_wait_for_the_look_up() {
    let mut counter = Counter::new(Language::English);
    counter.scan(BUYER);
    let looked_up = Ask(counter.screen.asked);
    assert!(matches!(counter.press("\n"), Some(Wish::Sell { .. })));
    // The answer of the look-up comes late, and is not that of the sale.
    counter.screen.told(Told::Answer { ask: looked_up, answer: Answer::MayBuy(standing(2)) });
    assert!(counter.shows("WAIT: Recording the sale."));
    counter.answer(refused(Refusal::QuotaExhausted, "Nothing is left.", 0));
    assert_eq!(counter.ground(), Color::Red);
}

#[test]
fn numbers_are_taken_as_they_are_typed() {
    for typed in ["8103051000112\n", "810305-1000112\n", "810305 1000112\n", "８１０３０５－１０００１１２\n"]
    {
        let mut counter = Counter::new(Language::English);
        assert_eq!(purchase(counter.press(typed)).unwrap().number.as_str(), "8103051000112", "{typed}");
    }
    let mut counter = Counter::new(Language::English);
    counter.press("81030510001129");
    counter.key(KeyCode::Backspace, HAND);
    assert_eq!(purchase(counter.press("\n")).unwrap().number.as_str(), "8103051000112");
}

#[test]
fn what_is_wrong_with_a_number_is_said_before_anybody_is_asked() {
    for (typed, said) in [
        ("81030510", "Only 8 of 13 digits"),
        ("81030510001122", "More than 13 digits"),
        ("9913011000014", "There is no such date of birth"),
        ("2501013000016", "The date of birth is yet to come"),
        ("8103051000113", "The last digit does not fit"),
    ] {
        let mut counter = Counter::new(Language::English);
        assert!(counter.scan(typed).is_none(), "{typed}");
        assert!(counter.shows(said), "{typed}: {:#?}", counter.rows((80, 24)));
        // Whatever was found in a whole number, the next scan begins anew.
        if typed.len() >= 13 {
            assert!(matches!(counter.scan(BUYER), Some(Wish::Check { .. })), "{typed}");
        }
    }
}

#[test]
fn a_doubtful_check_digit_takes_a_second_enter_and_no_echo_of_the_first() {
    let mut counter = Counter::new(Language::Korean);
    assert!(counter.scan("810305-1000113\n").is_none(), "the scanner's second Enter is not the clerk's");
    assert!(counter.shows("끝자리가 맞지 않습니다."));
    assert!(matches!(counter.press("\n"), Some(Wish::Check { .. })));
    counter.screen.setup.check_digit = false;
    counter.press("~");
    assert!(matches!(counter.scan("810305-1000113"), Some(Wish::Check { .. })), "the programme does not want it");
}

#[test]
fn a_scanner_that_ends_with_two_enters_sells_nothing() {
    let mut counter = Counter::new(Language::English);
    let wish = counter.scan(&format!("{BUYER}\n"));
    assert!(matches!(wish, Some(Wish::Check { .. })));
    // A key that is held down repeats itself some thirty times a second.
    assert!((0..50).all(|_| counter.key(KeyCode::Enter, Duration::from_millis(33)).is_none()));
    assert!(matches!(counter.press("\n"), Some(Wish::Sell { .. })));
}

#[test]
fn the_quantity_is_typed_or_counted_up_and_down() {
    let sold = |keys: &str| {
        let mut counter = Counter::looked_up(Language::English, Answer::MayBuy(standing(5)));
        purchase(counter.press(keys)).map(|purchase| purchase.quantity)
    };
    assert_eq!(
        [sold("\n"), sold("1\n"), sold("12\n"), sold("+\n"), sold("-\n"), sold("---\n"), sold("5-\n")],
        [Some(2), Some(1), Some(12), Some(3), Some(1), Some(1), Some(4)]
    );
    assert_eq!(sold("0\n"), None);
    let mut counter = Counter::looked_up(Language::English, Answer::MayBuy(standing(5)));
    counter.press("9");
    assert!(counter.shows("More than is left (5)."));
    counter.key(KeyCode::Backspace, HAND);
    counter.press("0\n");
    assert!(counter.shows("The quantity must be at least 1."));
}

#[test]
fn a_number_scanned_where_a_quantity_stands_is_the_next_customer() {
    for number in [OTHER, "000229-4120317"] {
        let mut counter = Counter::looked_up(Language::English, Answer::MayBuy(standing(2)));
        let wish = counter.scan(number);
        assert!(matches!(wish, Some(Wish::Check { .. })));
        let Purchase { number: asked, quantity, .. } = purchase(wish).unwrap();
        assert_eq!((asked.as_str(), quantity), (number.replace('-', "").as_str(), 2));
    }
}

#[test]
fn a_scan_while_a_sale_is_under_way_wipes_no_decision_away() {
    let mut counter = Counter::looked_up(Language::English, Answer::MayBuy(standing(2)));
    counter.press("\n");
    counter.keys("631120-21", SCANNER);
    counter.answer(refused(Refusal::NotYourDay, "Today is Wednesday.", 2));
    assert!(counter.keys("62511\n", SCANNER).is_none());
    assert!(counter.shows("DO NOT SELL") && counter.shows("What was typed while waiting was not taken"));
    assert!(matches!(counter.scan(OTHER), Some(Wish::Check { .. })), "the next scan is taken at once");
}

#[test]
fn a_late_answer_never_stands_under_another_buyer() {
    let mut counter = Counter::new(Language::English);
    counter.scan(BUYER);
    let late = Ask(counter.screen.asked);
    counter.press("~");
    counter.scan(OTHER);
    counter.screen.told(Told::Answer { ask: late, answer: Answer::MayBuy(standing(2)) });
    assert!(counter.shows("631120-2******") && counter.shows("Looking up...") && !counter.shows("MAY BUY"));
}

#[test]
fn a_refusal_says_why_and_when_next() {
    let mut counter = Counter::looked_up(Language::English, refused(Refusal::NotYourDay, "Today is for 3 and 8.", 2));
    assert_eq!(counter.ground(), Color::Red);
    for said in [
        "DO NOT SELL: Do not hand over. Nothing was recorded.",
        "Why        Today is for 3 and 8. (own day: Monday)",
        "Left       2 units, 1 purchase            Next       2020-03-16 Monday",
        "Earlier    2020-03-09 10:05, 1 unit, Seoul Jongno-gu",
    ] {
        assert!(counter.shows(said), "{said}\n{:#?}", counter.rows((80, 24)));
    }
    assert!(counter.press("\n").is_none(), "Enter sells nothing to who was refused");
    counter.function(2);
    for said in ["판매 불가: 판매하지 마세요.", "오늘은 구매 요일이 아닙니다. (구매 요일: 월요일)", "2020-03-16 월요일"]
    {
        assert!(counter.shows(said), "{said}\n{:#?}", counter.rows((80, 24)));
    }
}

#[test]
fn where_less_is_left_minus_asks_for_that() {
    let mut counter = Counter::looked_up(Language::English, refused(Refusal::QuotaExhausted, "1 unit is left.", 1));
    assert!(counter.shows("1 may still be bought: press - to ask for less."));
    let wish = counter.press("-");
    assert!(matches!(wish, Some(Wish::Check { .. })));
    assert_eq!(purchase(wish).unwrap().quantity, 1);
    counter.answer(Answer::MayBuy(standing(1)));
    assert_eq!(purchase(counter.press("\n")).unwrap().quantity, 1);
    let mut nothing = Counter::looked_up(Language::English, refused(Refusal::QuotaExhausted, "Nothing is left.", 0));
    assert!(nothing.press("-").is_none());
    let mut other = Counter::looked_up(Language::English, refused(Refusal::NotYourDay, "Not today.", 1));
    assert!(other.press("-").is_none(), "less does not help against a day");
}

#[test]
fn a_proxy_purchase_is_a_relation_a_year_and_papers() {
    let mut counter = Counter::looked_up(Language::English, refused(Refusal::ProxyNotAllowed, "Not in person.", 2));
    counter.function(4);
    counter.press("21985b");
    assert!(counter.shows("*2 family") && counter.shows("1985_") && counter.shows("*B family relation certificate"));
    let wish = counter.press("\n");
    assert!(matches!(wish, Some(Wish::Check { .. })), "it is looked up anew");
    let Purchase { proxy, papers, .. } = purchase(wish).unwrap();
    assert_eq!(proxy, Some(Proxy { relation: "family".parse().unwrap(), agent_birth_year: 1985 }));
    assert_eq!(papers, names::<Paper>("family_relation_certificate"));
    assert!(counter.shows("by proxy: family, born 1985"));
    counter.answer(Answer::MayBuy(standing(2)));
    assert!(purchase(counter.press("\n")).unwrap().proxy.is_some());
    counter.answer(Answer::Sold { row: id(1), standing: None });
    assert!(purchase(counter.scan(OTHER)).unwrap().proxy.is_none(), "the next customer is another one");
}

#[test]
fn the_form_can_come_first_and_may_be_only_papers() {
    let mut counter = Counter::new(Language::Korean);
    // With the Korean layout on: ㅔ is the key of P, ㅇ that of D.
    counter.press("ㅔㅇ\n\n");
    let Purchase { proxy, papers, .. } = purchase(counter.scan(BUYER)).unwrap();
    assert_eq!((proxy, papers), (None, names::<Paper>("id_card")));
}

#[test]
fn the_form_wants_a_year_and_forgets_on_escape() {
    let mut counter = Counter::looked_up(Language::English, Answer::MayBuy(standing(2)));
    for year in ["", "19", "1030", "20211", "2021"] {
        counter.press("p1");
        assert!(counter.press(&format!("{year}\n")).is_none(), "{year}");
        assert!(counter.shows("Type the agent's year of birth"), "{year}");
        counter.press("~");
    }
    assert!(purchase(counter.press("\n")).unwrap().proxy.is_none());
}

#[test]
fn the_last_sale_is_taken_back_with_one_confirmation() {
    let mut counter = Counter::sold(Language::English, Answer::Sold { row: id(2), standing: standing(0) });
    counter.screen.told(Told::Row(row(1, RowState::Sold)));
    counter.screen.told(Told::Row(row(2, RowState::Sold)));
    assert!(counter.function(5).is_none());
    assert!(counter.shows("Take back 09:02 810305-1******, 2? Enter yes, Esc no"));
    assert!(counter.press("~").is_none() && counter.press("\n").is_none(), "Escape is no");
    counter.press("v");
    assert!(matches!(counter.press("\n"), Some(Wish::Void { row, .. }) if row == id(2)));
    assert!(counter.shows("Being taken back..."));
    counter.screen.told(Told::Row(row(2, RowState::Voided)));
    assert!(counter.shows("VOIDED: The sale was taken back. Get the goods back."), "SELL is no longer true");
    assert!(!counter.shows("Being taken back..."));
    assert_ne!(counter.ground(), Color::Green);
    counter.press("v");
    assert!(matches!(counter.press("\n"), Some(Wish::Void { row, .. }) if row == id(1)), "then the one before it");
    counter.screen.told(Told::NotVoided { row: id(1), why: Failure::NotOurs });
    assert!(counter.shows("Not taken back: Not this site's sale"));
}

#[test]
fn a_sale_is_taken_back_with_the_number_of_who_stands_there() {
    let number = |scanned: &str| {
        let mut counter = Counter::new(Language::English);
        counter.screen.told(Told::Row(row(1, RowState::Sold)));
        counter.scan(scanned);
        match counter.press("v\n") {
            Some(Wish::Void { number, .. }) => number.map(|number| number.as_str().to_owned()),
            _ => panic!("no wish to take it back"),
        }
    };
    assert_eq!(number(BUYER).as_deref(), Some("8103051000112"));
    assert_eq!(number(OTHER), None, "another person's is not tried");
}

#[test]
fn a_scan_confirms_nothing() {
    for key in ["v", "q", "t"] {
        let mut counter = Counter::new(Language::English);
        counter.screen.told(Told::Row(row(1, RowState::Sold)));
        counter.press(key);
        assert!(matches!(counter.scan(BUYER), Some(Wish::Check { .. })), "{key}");
    }
}

#[test]
fn todays_list_shows_what_became_of_each_and_takes_one_back() {
    let mut counter = Counter::new(Language::English);
    let states = [RowState::Voided, RowState::Sold, RowState::Unknown, RowState::OverQuota];
    for (n, state) in (1..).zip(states) {
        counter.screen.told(Told::Row(row(n, state)));
    }
    let yesterday = Row { at: moment("2020-03-10", 9, 9), ..row(9, RowState::Sold) };
    counter.screen.told(Told::Row(yesterday));
    counter.function(6);
    let rows = counter.rows((80, 24));
    assert_eq!(rows[5].trim(), "Today's sales: 4");
    assert_eq!(rows[6], "  Time        Number              Quantity      State");
    assert_eq!(rows[7], "  09:04       810305-1******      2             over the limit");
    assert_eq!(rows[8], "  09:03       810305-1******      2             unknown");
    counter.key(KeyCode::Down, HAND);
    counter.press("v");
    assert!(counter.shows("This one cannot be taken back."));
    counter.key(KeyCode::Down, HAND);
    counter.press("v");
    assert!(matches!(counter.press("\n"), Some(Wish::Void { row, .. }) if row == id(2)));
    counter.press("tl");
    let korean = counter.rows((80, 24));
    // Columns stand where they stood, whatever is written in them.
    let column = |row: &str, what: &str| row.find(what).map(|at| row[..at].width());
    assert_eq!(column(&korean[6], "상태"), column(&rows[6], "State"));
    assert_eq!(column(&korean[8], "결과 미확인"), column(&rows[8], "unknown"));
    counter.press("t");
    assert!(counter.shows("번호를 입력하거나"));
}

#[test]
fn offline_a_sale_is_written_down_and_never_called_the_services() {
    let mut counter = Counter::new(Language::English);
    let away = Door::Away { since: moment("2020-03-11", 9, 1), offline: Offline::SellAndRecord };
    counter.screen.told(Told::Door(away));
    counter.screen.told(Told::Sheets { waiting: 12, unresolved: 1 });
    let row_of_door = &counter.rows((80, 24))[1];
    assert!(row_of_door.starts_with("  OFFLINE since 09:01") && row_of_door.ends_with("12 to be sent  1 unresolved"));
    counter.scan(BUYER);
    counter.answer(unasked(Offline::SellAndRecord, false));
    assert_eq!(counter.ground(), Color::Yellow);
    assert!(counter.shows("UNCHECKED: Nobody could be asked. Policy: sell, write down."));
    let wish = counter.press("\n");
    assert!(matches!(wish, Some(Wish::SellOffline { .. })));
    assert_eq!(purchase(wish).unwrap().number.as_str(), "8103051000112");
    counter.answer(Answer::WrittenDown { row: id(1) });
    assert!(counter.shows("UNCHECKED: Written down, not checked. Hand over 2."));
    assert_eq!(counter.ground(), Color::Yellow);
}

#[test]
fn offline_a_second_sale_to_the_same_number_takes_another_key() {
    for key in [KeyCode::F(8), KeyCode::Char('h'), KeyCode::Char('ㅗ')] {
        let mut counter = Counter::looked_up(Language::English, unasked(Offline::SellAndRecord, true));
        assert!(counter.shows("This counter has sold to this number before."));
        assert!(counter.shows("Earlier    2020-03-11 08:55, 2 units, this counter"));
        assert!(counter.press("\n").is_none());
        assert!(matches!(counter.key(key, HAND), Some(Wish::SellOffline { .. })));
    }
}

#[test]
fn once_the_service_is_back_it_is_asked_and_nothing_is_sold_unchecked() {
    for answer in
        [unasked(Offline::SellAndRecord, false), unasked(Offline::SellAndRecord, true), unasked(Offline::Stop, false)]
    {
        for key in [KeyCode::Enter, KeyCode::F(8)] {
            let mut counter = Counter::looked_up(Language::English, answer.clone());
            counter.screen.told(Told::Door(Door::Open { slot: 0 }));
            assert!(counter.shows("UNCHECKED: The service is back, and was not asked yet."));
            let wish = counter.key(key, HAND);
            assert!(matches!(wish, Some(Wish::Check { .. })));
            assert_eq!(purchase(wish).unwrap().quantity, 2);
            counter.answer(Answer::MayBuy(standing(2)));
            assert!(matches!(counter.press("\n"), Some(Wish::Sell { .. })));
        }
    }
}

#[test]
fn offline_a_programme_may_say_stop() {
    let mut counter = Counter::looked_up(Language::Korean, unasked(Offline::Stop, false));
    assert_eq!(counter.ground(), Color::Red);
    assert!(counter.shows("판매 불가: 조회할 수 없습니다. 방침: 판매 중지."));
    assert!(counter.press("\n").is_none() && counter.function(8).is_none());
}

#[test]
fn a_sale_that_nobody_could_be_asked_about_any_more_is_offered_to_be_written_down() {
    let mut counter = Counter::sold(Language::English, unasked(Offline::SellAndRecord, false));
    assert!(matches!(counter.press("\n"), Some(Wish::SellOffline { .. })));
}

#[test]
fn an_unknown_outcome_is_settled_by_one_key() {
    let unknown = || Counter::sold(Language::English, unknown(3));
    assert_eq!(unknown().ground(), Color::Yellow);
    for said in ["WAIT: No answer: recorded or not", "F8: handed over all the same", "F7: not handed over"] {
        assert!(unknown().shows(said), "{said}");
    }
    let mut counter = unknown();
    assert!(counter.scan(OTHER).is_none(), "its Enter is not the clerk's");
    assert!(counter.press("~").is_none() && counter.shows("First say whether the goods were handed over"));
    assert!(matches!(counter.press("\n"), Some(Wish::Resolve { row, .. }) if row == id(3)));
    counter.answer(Answer::Sold { row: id(3), standing: None });
    assert!(counter.shows("SELL: Recorded"));
    let mut counter = unknown();
    assert!(matches!(counter.press("h"), Some(Wish::HandedOver { row, .. }) if row == id(3)));
    counter.answer(Answer::WrittenDown { row: id(3) });
    assert!(counter.shows("UNCHECKED: Written down"));
    let mut counter = unknown();
    assert!(matches!(counter.function(7), Some(Wish::NotHandedOver { row }) if row == id(3)));
    assert!(counter.shows("Noted: not handed over."));
    assert!(matches!(counter.scan(OTHER), Some(Wish::Check { .. })));
}

#[test]
fn what_was_unknown_may_become_known_by_itself() {
    for (state, said) in [
        (RowState::Sold, "SELL: Recorded. Hand over 2."),
        (RowState::Unsettled, "It is known now: no sale is recorded. Were the goods handed over?"),
        (RowState::NotSold, "It is known now: nothing was recorded."),
        (RowState::Waiting, "UNCHECKED: Written down"),
        (RowState::Unknown, "WAIT: No answer"),
    ] {
        let mut counter = Counter::sold(Language::English, unknown(3));
        counter.screen.told(Told::Row(row(3, state)));
        assert!(counter.shows(said), "{said}");
        counter.screen.told(Told::Row(row(4, RowState::Sold)));
        assert!(counter.shows(said), "another sale says nothing of it");
    }
}

#[test]
fn the_list_settles_what_was_unknown_once_somebody_else_is_served() {
    for state in [RowState::Unknown, RowState::Unsettled] {
        let mut counter = Counter::new(Language::English);
        let yesterday = Row { at: moment("2020-03-10", 9, 9), ..row(3, state) };
        counter.screen.told(Told::Row(yesterday));
        counter.screen.told(Told::Row(row(4, RowState::Sold)));
        counter.scan(OTHER);
        counter.answer(Answer::Sold { row: id(5), standing: None });
        counter.function(6);
        assert!(counter.press("h").is_none() && counter.shows("It is known what became of this one."));
        counter.key(KeyCode::Down, HAND);
        for (answer, said) in [
            (Answer::NotSold { row: id(3), offline: Offline::Stop }, "Not entered: the programme allows no sale"),
            (unknown(3), "Not entered as handed over: try again."),
            (Answer::Sold { row: id(3), standing: None }, "It was recorded: nothing is left to enter."),
            (Answer::WrittenDown { row: id(3) }, "Noted: handed over."),
        ] {
            assert!(matches!(counter.function(8), Some(Wish::HandedOver { row, .. }) if row == id(3)), "{state:?}");
            counter.answer(answer);
            assert!(counter.shows(said), "{said}");
        }
        assert!(matches!(counter.press("n"), Some(Wish::NotHandedOver { row }) if row == id(3)));
        counter.press("t");
        assert!(counter.shows("SELL: Recorded"), "the customer is another one");
    }
}

#[test]
fn what_turned_out_to_be_no_sale_is_still_asked_about() {
    let no_sale = || {
        let mut counter = Counter::sold(Language::English, unknown(3));
        counter.screen.told(Told::Row(row(3, RowState::Unsettled)));
        counter
    };
    let mut counter = no_sale();
    assert!(counter.press("\n").is_none() && counter.scan(OTHER).is_none());
    assert!(counter.shows("First say whether the goods were handed over"));
    assert!(matches!(counter.function(8), Some(Wish::HandedOver { row, .. }) if row == id(3)));
    counter.answer(Answer::WrittenDown { row: id(3) });
    assert!(counter.shows("UNCHECKED: Written down"));
    let mut counter = no_sale();
    assert!(matches!(counter.press("n"), Some(Wish::NotHandedOver { row }) if row == id(3)));
    assert!(matches!(counter.scan(OTHER), Some(Wish::Check { .. })));
    // It may become known before anybody is told that it is not.
    let mut counter = Counter::new(Language::English);
    counter.screen.told(Told::Row(row(3, RowState::Unsettled)));
    counter.scan(BUYER);
    counter.press("\n");
    counter.answer(unknown(3));
    assert!(counter.shows("no sale is recorded") && matches!(counter.press("h"), Some(Wish::HandedOver { .. })));
}

#[test]
fn where_the_programme_says_stop_nothing_is_handed_over_without_an_answer() {
    let mut counter = Counter::sold(Language::English, Answer::Unknown { row: id(3), offline: Offline::Stop });
    assert!(!counter.shows("F8") && counter.shows("Policy: stop selling. Do not hand over, and press F7."));
    assert!(counter.function(8).is_none() && counter.shows("Not entered: the programme allows no sale"));
    assert!(matches!(counter.press("n"), Some(Wish::NotHandedOver { .. })));
    // The service may say so only when it is asked.
    let mut counter = Counter::sold(Language::English, unknown(3));
    assert!(matches!(counter.press("h"), Some(Wish::HandedOver { .. })));
    counter.answer(Answer::Unknown { row: id(3), offline: Offline::Stop });
    assert!(
        counter.shows("Not entered: the programme allows no sale") && counter.shows("Do not hand over, and press F7.")
    );
}

#[test]
fn a_failure_is_no_decision_and_is_tried_again() {
    let mut counter = Counter::sold(Language::English, Answer::Failed(Failure::Busy));
    assert_eq!(counter.ground(), Color::Yellow);
    assert!(counter.shows("WAIT: No decision. Nothing was recorded"));
    assert!(matches!(counter.press("\n"), Some(Wish::Sell { .. })));
}

#[test]
fn where_the_journal_could_not_be_written_a_sale_is_tried_and_nothing_is_sold_unwritten() {
    let mut counter = Counter::looked_up(Language::English, Answer::MayBuy(standing(2)));
    counter.screen.told(Told::Journal(Journal::Broken { why: "the disk is full".into() }));
    assert!(counter.shows("The journal cannot be written, so nothing can be sold: the disk is full"));
    assert!(matches!(counter.press("\n"), Some(Wish::Sell { .. })), "nobody knows otherwise that it can be again");
    counter.answer(Answer::Failed(Failure::Other { reason: "JOURNAL".into(), message: "the disk is full".into() }));
    assert!(counter.shows("WAIT: No decision. Nothing was recorded"));
    counter.screen.told(Told::Journal(Journal::Sound));
    assert!(!counter.shows("nothing can be sold"));
}

#[test]
fn a_journal_that_is_written_again_is_as_damaged_as_before() {
    let mut counter = Counter::new(Language::English);
    for journal in [Journal::Damaged { lost: 7 }, Journal::Broken { why: "the disk is full".into() }, Journal::Sound] {
        counter.screen.told(Told::Journal(journal));
    }
    assert!(counter.shows("Journal damaged: 7 sheets cannot be read.") && !counter.shows("the disk is full"));
}

#[test]
fn it_is_said_how_many_sales_are_to_be_mended() {
    let mut counter = Counter::new(Language::English);
    for (n, state) in (1..).zip([RowState::ToMend, RowState::Sold, RowState::ToMend]) {
        counter.screen.told(Told::Row(row(n, state)));
    }
    counter.screen.told(Told::Uploaded(Uploaded { recorded: 1, ..Uploaded::default() }));
    assert!(counter.rows((80, 24))[2].starts_with("  2 to mend"));
    counter.screen.told(Told::Uploaded(Uploaded { to_mend: 1, ..Uploaded::default() }));
    assert!(counter.rows((80, 24))[2].contains("1 to mend"));
}

#[test]
fn leaving_takes_a_yes_and_says_what_stays() {
    let mut counter = Counter::new(Language::English);
    counter.screen.told(Told::Sheets { waiting: 3, unresolved: 1 });
    counter.function(10);
    assert!(counter.shows("3 to be sent, 1 unresolved are kept. Leave?"));
    assert!(counter.press("~\n").is_none());
    counter.press("q");
    assert!(matches!(counter.press("\n"), Some(Wish::Quit)));
}

#[test]
fn the_line_says_where_the_terminal_stands() {
    for (door, english, korean) in [
        (Door::Connecting, "Connecting...", "접속 중입니다..."),
        (Door::Waiting { position: None, rank: 0, seconds: None }, "In line: being counted", "접속 대기: 순번"),
        (
            Door::Waiting { position: Some(14_210), rank: 1, seconds: Some(90) },
            "In line: position 14210 of rank 1, about 90 s",
            "접속 대기 14210번째 (1순위), 약 90초",
        ),
        (Door::Open { slot: 1 }, "Session open (seat 1)", "접속됨 (좌석 1)"),
        (
            Door::SiteFull { cap: 2, holders: vec!["window-2".into(), "window-3".into()] },
            "All 2 seats of this site are taken: window-2, window-3",
            "좌석 2개가 모두 사용 중: window-2, window-3",
        ),
        (
            Door::TurnedAway("SITE_UNKNOWN".into()),
            "The service turns this counter away: SITE_UNKNOWN",
            "접속을 거절했습니다: SITE_UNKNOWN",
        ),
        (Door::Shut, "Nobody new is let in at present", "지금은 새로 접속할 수 없습니다"),
    ] {
        for (language, said) in [(Language::English, english), (Language::Korean, korean)] {
            let mut counter = Counter::new(language);
            counter.screen.told(Told::Door(door.clone()));
            assert!(counter.rows((80, 24))[1].contains(said), "{said}: {:?}", counter.rows((80, 24))[1]);
        }
    }
}

#[test]
fn the_language_changes_while_it_runs() {
    let mut counter = Counter::new(Language::Korean);
    assert!(counter.shows("번호를 입력하거나 스캔한 뒤 Enter를 누르세요.") && counter.shows("2020-03-11 수요일 09:05"));
    counter.function(2);
    assert!(counter.shows("Type or scan the number, then press Enter.") && counter.shows("2020-03-11 Wednesday 09:05"));
    counter.press("l");
    assert!(counter.shows("번호를 입력하거나"));
}

#[test]
fn what_is_shown_of_a_number_is_masked() {
    let mut counter = Counter::new(Language::English);
    // Digits that stand nowhere else on the screen.
    let number = "770707-1987654";
    counter.screen.setup.check_digit = false;
    let mut seen = String::new();
    for c in number.chars() {
        counter.keys(c.encode_utf8(&mut [0; 4]), SCANNER);
        seen.push_str(&counter.rows((120, 40)).concat());
    }
    assert!(!seen.contains("98"), "two of the hidden digits are never seen together");
    counter.press("\n");
    counter.answer(Answer::MayBuy(standing(2)));
    let shown = counter.rows((120, 40)).concat();
    assert!(shown.contains("770707-1******") && !["9876", "7654", "54"].iter().any(|hidden| shown.contains(hidden)));
}

#[test]
fn a_window_that_is_too_small_says_so() {
    for size in [(79, 24), (80, 23), (20, 5), (12, 1)] {
        let counter = Counter::new(Language::English);
        let rows = counter.rows(size);
        assert_eq!(rows[0], "Needs 80x24");
        assert!(rows[1..].iter().all(String::is_empty));
    }
    assert_eq!(Counter::new(Language::Korean).rows((5, 2)), ["", ""]);
}

/// Every scene, in one language.
fn scenes(language: Language) -> Vec<(&'static str, Counter)> {
    let looked_up = |answer| Counter::looked_up(language, answer);
    let sold = |answer| Counter::sold(language, answer);
    let typed = |number: &str| {
        let mut counter = Counter::new(language);
        counter.scan(number);
        counter
    };
    let told = |told: Told| {
        let mut counter = Counter::new(language);
        counter.screen.told(told);
        counter
    };
    let then = |mut counter: Counter, keys: &str| {
        counter.press(keys);
        counter
    };
    let with_rows = || {
        let mut counter = Counter::new(language);
        let states = [
            RowState::Sold,
            RowState::Voiding,
            RowState::Voided,
            RowState::Unknown,
            RowState::Unsettled,
            RowState::NotSold,
            RowState::Waiting,
            RowState::Late,
            RowState::OverQuota,
            RowState::PutAside,
            RowState::ToMend,
        ];
        for (n, state) in (1..).zip(states) {
            counter.screen.told(Told::Row(row(n, state)));
        }
        counter
    };
    let not_voided = |why| told(Told::NotVoided { row: id(1), why });
    let no_limit = Standing { next: None, own_day: None, ..Standing::default() };
    let tomorrow = |day: u8| {
        let date = Date { year: 2020, month: 3, day };
        Answer::MayBuy(Some(Standing { next: Some(date), purchases_left: Some(2), ..standing(1).unwrap() }))
    };
    let away = |offline| told(Told::Door(Door::Away { since: moment("2020-03-11", 9, 1), offline }));
    let waiting = |rank, seconds| told(Told::Door(Door::Waiting { position: Some(1_421), rank, seconds }));
    let mut busy = away(Offline::SellAndRecord);
    busy.screen.told(Told::Sheets { waiting: 1_234, unresolved: 12 });
    let mut asleep = away(Offline::Stop);
    asleep.screen.told(Told::Sheets { waiting: 1_234, unresolved: 12 });
    let mut leaving = told(Told::Sheets { waiting: 1_234, unresolved: 12 });
    leaving.press("q");
    let mut taken_back = sold(Answer::Sold { row: id(1), standing: standing(0) });
    taken_back.screen.told(Told::Row(row(1, RowState::Voided)));
    let mut crowded = looked_up(Answer::MayBuy(standing(2)));
    crowded.screen.setup.papers = names("a b c d e f g h i");
    let mut deaf = looked_up(Answer::MayBuy(standing(2)));
    deaf.press("\n6");
    let stopped = || Answer::Unknown { row: id(1), offline: Offline::Stop };
    let mut back = looked_up(unasked(Offline::SellAndRecord, true));
    back.screen.told(Told::Door(Door::Open { slot: 0 }));
    let open = || told(Told::Row(row(1, RowState::Unknown)));
    let entered = |answer| {
        let mut counter = then(open(), "th");
        counter.answer(answer);
        counter
    };
    let refusals = [
        Refusal::ChannelNotEnrolled,
        Refusal::NotEligible,
        Refusal::ProxyNotAllowed,
        Refusal::NotYourDay,
        Refusal::QuotaExhausted,
        Refusal::Other,
    ];
    let failures = [
        Failure::NoSession,
        Failure::Busy,
        Failure::StoreAway,
        Failure::TooManyLookUps,
        Failure::NotOurs,
        Failure::NotRecorded,
        Failure::NumberGone,
        Failure::Unreachable,
        Failure::Other { reason: "INVALID_REQUEST".into(), message: "of another service".into() },
    ];
    let mut scenes = vec![
        ("empty", Counter::new(language)),
        ("half typed", then(Counter::new(language), "8103051")),
        ("short", typed("81030510")),
        ("long", typed("81030510001122")),
        ("no such date", typed("991301-1000014")),
        ("not yet born", typed("250101-3000016")),
        ("check digit", typed("810305-1000113")),
        ("looking up", typed(BUYER)),
        ("may buy", looked_up(Answer::MayBuy(standing(2)))),
        ("too many", then(looked_up(Answer::MayBuy(standing(2))), "9")),
        ("no limit", looked_up(Answer::MayBuy(Some(no_limit)))),
        ("quantity zero", then(looked_up(Answer::MayBuy(standing(2))), "0\n")),
        ("selling", then(looked_up(Answer::MayBuy(standing(2))), "\n")),
        ("deaf", deaf),
        ("sold", sold(Answer::Sold { row: id(1), standing: standing(0) })),
        ("taken back", taken_back),
        ("not required", looked_up(Answer::NotRequired { why: "Since 8 July masks are sold freely.".into() })),
        ("less is left", looked_up(refused(Refusal::QuotaExhausted, "1 unit is left.", 1))),
        ("nothing to void", then(Counter::new(language), "v")),
        ("list", then(with_rows(), "t")),
        ("empty list", then(Counter::new(language), "t")),
        ("not this one", then(with_rows(), "tv")),
        ("void", then(with_rows(), "v")),
        ("being voided", then(with_rows(), "v\n")),
        ("form", then(looked_up(Answer::MayBuy(standing(2))), "p21985ab")),
        ("form without year", then(looked_up(Answer::MayBuy(standing(2))), "p2\n")),
        ("form with too many papers", then(crowded, "pabcdefghi")),
        ("proxy", then(looked_up(Answer::MayBuy(standing(2))), "p21985ab\n")),
        ("unasked", looked_up(unasked(Offline::SellAndRecord, false))),
        ("sold before", looked_up(unasked(Offline::SellAndRecord, true))),
        ("stopped", looked_up(unasked(Offline::Stop, false))),
        ("back", back),
        ("written down", sold(Answer::WrittenDown { row: id(1) })),
        ("unknown", sold(unknown(1))),
        ("say first", then(sold(unknown(1)), "6")),
        ("unknown and stopped", sold(stopped())),
        ("must not be handed over", then(sold(stopped()), "h")),
        ("no sale", sold(Answer::NotSold { row: id(1), offline: Offline::SellAndRecord })),
        ("no sale and stopped", sold(Answer::NotSold { row: id(1), offline: Offline::Stop })),
        ("noted", then(sold(unknown(1)), "n")),
        ("no question", then(with_rows(), "th")),
        ("entering", then(open(), "th")),
        ("entered", entered(Answer::WrittenDown { row: id(1) })),
        ("entered before", entered(Answer::Sold { row: id(1), standing: None })),
        ("not entered", entered(unknown(1))),
        ("leaving", then(Counter::new(language), "q")),
        ("leaving something", leaving),
        ("away", busy),
        ("away and stopped", asleep),
        ("connecting", told(Told::Door(Door::Connecting))),
        ("being counted", told(Told::Door(Door::Waiting { position: None, rank: 0, seconds: None }))),
        ("in line", waiting(0, Some(90))),
        ("in line of a rank", waiting(1, None)),
        ("site full", told(Told::Door(Door::SiteFull { cap: 2, holders: vec!["window-2".into()] }))),
        ("service busy", told(Told::Door(Door::Busy))),
        ("turned away", told(Told::Door(Door::TurnedAway("SITE_UNKNOWN".into())))),
        ("shut", told(Told::Door(Door::Shut))),
        ("damaged", told(Told::Journal(Journal::Damaged { lost: 12 }))),
        ("broken", told(Told::Journal(Journal::Broken { why: "the disk is full".into() }))),
        ("sent", told(Told::Uploaded(Uploaded { recorded: 1_234, over_quota: 12, put_aside: 3, to_mend: 1 }))),
    ];
    scenes.extend((9..16).map(|day| ("next", looked_up(tomorrow(day)))));
    scenes.extend(refusals.map(|refusal| ("refused", looked_up(refused(refusal, "", 0)))));
    scenes.extend(failures.clone().map(|why| ("failed", looked_up(Answer::Failed(why)))));
    scenes.extend(failures.map(|why| ("not voided", not_voided(why))));
    scenes
}

#[test]
fn every_text_is_drawn_whole_in_some_scene_and_cut_in_none() {
    let squeezed = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    for language in BOTH {
        let mut all = String::new();
        for (name, counter) in scenes(language) {
            for (width, height) in SIZES {
                let area = Rect::new(0, 0, width, height);
                let mut buffer = Buffer::empty(area);
                assert_eq!(draw::draw(&counter.screen, area, &mut buffer), 0, "{name} {language:?} {width}x{height}");
                all.push_str(&squeezed(&rows(&buffer).concat()));
            }
        }
        all.push_str(&squeezed(&Counter::new(language).rows((30, 2)).concat()));
        for (text, _) in Text::ALL {
            let parts = text.say(language).split(['{', '}']).map(squeezed);
            let longest = parts.max_by_key(String::len).unwrap();
            assert!(all.contains(&longest), "{text:?} {language:?} is drawn in no scene: {longest}");
        }
    }
}

#[test]
fn the_main_scenes_look_like_this() {
    let at = |counter: &Counter, size, row: usize| counter.rows(size)[row].clone();
    let sold = |language| Counter::sold(language, Answer::Sold { row: id(1), standing: standing(0) });
    for size in SIZES {
        let english = sold(Language::English);
        assert!(at(&english, size, 0).starts_with("  Public masks, South Korea 2020  11000001/window-1"));
        assert!(at(&english, size, 0).ends_with("2020-03-11 Wednesday 09:05"));
        assert_eq!(at(&english, size, 1), "  Session open (seat 0)");
        assert_eq!(at(&english, size, 3), "  Number     810305-1******                 Quantity   2");
        assert_eq!(at(&english, size, 4), "  Buyer      in person");
        let korean = sold(Language::Korean);
        assert!(at(&korean, size, 0).ends_with("2020-03-11 수요일 09:05"));
        assert_eq!(at(&korean, size, 3), "  주민번호   810305-1******                 수량       2");
        let last = usize::from(size.1) - 1;
        assert_eq!(
            at(&english, size, last),
            "  F2/L 한국어  F4/P Proxy,papers  F5/V Void last  F6/T Today  F10/Q Quit"
        );
        assert_eq!(
            at(&korean, size, last),
            "  F2/L English  F4/P 대리,서류  F5/V 직전 취소  F6/T 오늘 목록  F10/Q 종료"
        );
    }
    let large = |counter: &Counter| counter.rows((80, 24))[6..13].join("\n");
    assert_eq!(large(&sold(Language::Korean)), SELL_IN_KOREAN.trim_matches('\n'));
    let refused = Counter::looked_up(Language::English, refused(Refusal::NotYourDay, "", 2));
    assert_eq!(large(&refused), DO_NOT_SELL.trim_matches('\n'));
}

const SELL_IN_KOREAN: &str = "
          ▀▀▀▀████▀▀████▀▀▀▀  ████                        ▄▄▄▄    ████
              ████  ████      ████▄▄▄▄    ████▀▀▀▀▀▀████  ████    ████
              ████  ████      ████▀▀▀▀    ████      ████  ████    ████
          ▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀  ████        ████      ████  ████████████
                              ▀▀▀▀        ████      ████  ████    ████
              ████                        ████▄▄▄▄▄▄████  ████    ████
              ████▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄                      ▀▀▀▀    ████
";

const DO_NOT_SELL: &str = "
          ████   ███     █   █  ███  █████     ████ █████ █     █
          █   █ █   █    ██  █ █   █   █      █     █     █     █
          █   █ █   █    ██  █ █   █   █      █     █     █     █
          █   █ █   █    █ █ █ █   █   █       ███  ████  █     █
          █   █ █   █    █  ██ █   █   █          █ █     █     █
          █   █ █   █    █  ██ █   █   █          █ █     █     █
          ████   ███     █   █  ███    █      ████  █████ █████ █████
";

fn some_key() -> impl Strategy<Value = KeyCode> {
    let others =
        [KeyCode::Esc, KeyCode::Backspace, KeyCode::Up, KeyCode::Down, KeyCode::Tab, KeyCode::BackTab, KeyCode::PageUp];
    prop_oneof![
        4 => prop::sample::select("8103051000112".chars().collect::<Vec<_>>()).prop_map(KeyCode::Char),
        4 => Just(KeyCode::Enter),
        2 => prop::sample::select("+-lcpvtnhqabㅔㅍ ?".chars().collect::<Vec<_>>()).prop_map(KeyCode::Char),
        2 => (1_u8..13).prop_map(KeyCode::F),
        1 => prop::sample::select(others.to_vec()),
    ]
}

fn some_answer() -> impl Strategy<Value = Answer> {
    let standings = prop_oneof![Just(None), (0_u32..100).prop_map(standing)];
    let offline = || prop::sample::select(vec![Offline::SellAndRecord, Offline::Stop]);
    let failed = |(reason, message)| Answer::Failed(Failure::Other { reason, message });
    prop_oneof![
        3 => standings.clone().prop_map(Answer::MayBuy),
        2 => (1_u8..5, standings).prop_map(|(n, standing)| Answer::Sold { row: id(n), standing }),
        1 => "\\PC{0,90}".prop_map(|why| Answer::NotRequired { why }),
        1 => ("\\PC{0,190}", 0_u32..4).prop_map(|(why, left)| refused(Refusal::QuotaExhausted, &why, left)),
        1 => Just(Answer::Refused { reasons: Vec::new(), standing: None }),
        2 => (offline(), any::<bool>()).prop_map(|(offline, before)| unasked(offline, before)),
        1 => (1_u8..5).prop_map(|n| Answer::WrittenDown { row: id(n) }),
        1 => (1_u8..5, offline()).prop_map(|(n, offline)| Answer::Unknown { row: id(n), offline }),
        1 => (1_u8..5, offline()).prop_map(|(n, offline)| Answer::NotSold { row: id(n), offline }),
        1 => ("\\PC{0,40}", "\\PC{0,190}").prop_map(failed),
    ]
}

fn some_told() -> impl Strategy<Value = Told> {
    let doors = vec![
        Door::Connecting,
        Door::Waiting { position: Some(u64::MAX), rank: u32::MAX, seconds: Some(u64::MAX) },
        Door::Open { slot: u32::MAX },
        Door::SiteFull { cap: 3, holders: vec!["계산대 하나".repeat(9)] },
        Door::TurnedAway("가나다".repeat(60)),
        Door::Away { since: moment("2020-03-11", 9, 1), offline: Offline::SellAndRecord },
    ];
    let states = vec![
        RowState::Sold,
        RowState::Unsettled,
        RowState::NotSold,
        RowState::Voided,
        RowState::Unknown,
        RowState::Waiting,
    ];
    let journals = vec![Journal::Sound, Journal::Damaged { lost: u32::MAX }, Journal::Broken { why: "가".repeat(200) }];
    prop_oneof![
        prop::sample::select(doors).prop_map(Told::Door),
        (1_u8..60, prop::sample::select(states)).prop_map(|(n, state)| Told::Row(row(n, state))),
        (1_u8..5).prop_map(|n| Told::NotVoided { row: id(n), why: Failure::Busy }),
        any::<(u32, u32)>().prop_map(|(waiting, unresolved)| Told::Sheets { waiting, unresolved }),
        prop::sample::select(journals).prop_map(Told::Journal),
        (1_u8..=28, 0_u8..24).prop_map(|(day, hour)| Told::Clock(moment(&format!("2020-03-{day:02}"), hour, 0))),
    ]
}

/// What may happen to a screen.
#[derive(Debug, Clone)]
enum Happens {
    Key(KeyCode, u64),
    Scan(bool),
    /// The answer to the open question, or to one so much earlier.
    Answer(u64, Answer),
    Told(Told),
    Drawn(u16, u16),
}

fn something() -> impl Strategy<Value = Happens> {
    let pauses = vec![2_u64, 40, 200, 1_200];
    prop_oneof![
        12 => (some_key(), prop::sample::select(pauses)).prop_map(|(key, after)| Happens::Key(key, after)),
        4 => any::<bool>().prop_map(Happens::Scan),
        6 => (0_u64..2, some_answer()).prop_map(|(ago, answer)| Happens::Answer(ago, answer)),
        3 => some_told().prop_map(Happens::Told),
        4 => (1_u16..130, 1_u16..45).prop_map(|(width, height)| Happens::Drawn(width, height)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Nothing panics or goes over an edge; a sale is wished for by Enter alone, or by F8 where this terminal has sold before, to the number
    /// that was looked up last; and the ground is green only by the service's word for the question that is open.
    #[test]
    fn whatever_is_pressed_and_told(korean: bool, happens in prop::collection::vec(something(), 1..120)) {
        let mut counter = Counter::new(if korean { Language::Korean } else { Language::English });
        let mut looked_up: Option<Number> = None;
        let mut said: Option<(Ask, bool)> = None;
        // The purchase that the open question is about, and those of which it was told that they are recorded.
        let (mut unknown, mut recorded) = (None, std::collections::HashSet::new());
        for happening in happens {
            let mut wishes = Vec::new();
            let is_seen = matches!(happening, Happens::Answer(..) | Happens::Drawn(..));
            match happening {
                Happens::Key(code, after) => wishes.push((code, counter.key(code, Duration::from_millis(after)))),
                Happens::Scan(first) => {
                    let number = if first { BUYER } else { OTHER };
                    for code in number.chars().map(KeyCode::Char).chain([KeyCode::Enter]) {
                        wishes.push((code, counter.key(code, SCANNER)));
                    }
                }
                Happens::Answer(ago, answer) => {
                    let ask = Ask(counter.open().0.saturating_sub(ago));
                    if ago == 0 {
                        said = Some((ask, matches!(answer, Answer::Sold { .. } | Answer::NotRequired { .. })));
                        unknown = match answer {
                            Answer::Unknown { row, .. } | Answer::NotSold { row, .. } => Some(row),
                            _ => None,
                        };
                    }
                    counter.screen.told(Told::Answer { ask, answer });
                }
                Happens::Told(told) => {
                    if let Told::Row(Row { id, state: RowState::Sold, .. }) = told {
                        recorded.insert(id);
                    }
                    counter.screen.told(told);
                }
                Happens::Drawn(width, height) => {
                    counter.rows((width, height));
                }
            }
            for (code, wish) in wishes {
                let is_other = matches!(code, KeyCode::F(8) | KeyCode::Char('h'));
                match wish {
                    Some(Wish::Check { purchase, .. }) => {
                        prop_assert!(purchase.quantity >= 1);
                        looked_up = Some(purchase.number);
                    }
                    Some(Wish::Sell { purchase, .. }) => {
                        prop_assert!(code == KeyCode::Enter && purchase.quantity >= 1);
                        prop_assert!(looked_up.as_ref() == Some(&purchase.number));
                    }
                    Some(Wish::SellOffline { purchase, .. }) => {
                        prop_assert!((code == KeyCode::Enter || is_other) && purchase.quantity >= 1);
                        prop_assert!(looked_up.as_ref() == Some(&purchase.number));
                    }
                    Some(Wish::Void { .. } | Wish::Quit | Wish::Resolve { .. }) => prop_assert_eq!(code, KeyCode::Enter),
                    Some(Wish::HandedOver { .. } | Wish::NotHandedOver { .. }) => prop_assert_ne!(code, KeyCode::Enter),
                    None => {}
                }
            }
            let is_green = is_seen && counter.ground() == Color::Green;
            let sells = |sell| sell || unknown.is_some_and(|row| recorded.contains(&row));
            let may_be_green = said.is_some_and(|(ask, sell)| sells(sell) && ask == counter.open());
            prop_assert!(!is_green || may_be_green);
        }
    }
}

//! The decision: in large letters, in colour and in words; then why, what is left and when next.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::texts::{LABEL, Language, Text, fill};
use super::super::vocabulary::{Answer, Earlier, Offline, Reason, Refusal, RowState, Standing, Weekday};
use super::super::{Customer, Screen, Step, letters};
use super::canvas::{Canvas, row, wrap};
use super::{BAD, BOLD, CARE, FAINT, GOOD, MARGIN, NEWS, PLAIN, SECOND, failure, weekday};
use crate::ids::RequestId;

/// Rows of the large letters' ground, at least, and more than what they need.
const GROUND: u16 = letters::ROWS + 2;
/// Rows that what is told of the decision has at least.
const WHY: u16 = 7;
/// The most earlier purchases that are told of.
const EARLIER: usize = 2;

/// What is said in large letters, and on which ground; the words below it.
struct Face {
    large: Option<(Text, Style)>,
    said: String,
}

/// One row of what is told.
struct Told {
    label: Option<Text>,
    said: String,
    style: Style,
    /// Stands at the right of the same row.
    beside: Option<(Text, String)>,
}

impl Told {
    fn new(label: Option<Text>, said: String, style: Style) -> Self {
        Self { label, said, style, beside: None }
    }
}

pub(super) fn draw(screen: &Screen, customer: &Customer, canvas: &mut Canvas<'_>, body: Rect) {
    let spare = body.height.saturating_sub(GROUND + WHY);
    let ground = Rect { height: GROUND + spare.min(letters::ROWS), ..body };
    let below = Rect { y: ground.y + ground.height, height: body.height.saturating_sub(ground.height), ..body };
    let face = face(screen, customer);
    if let Some((word, style)) = face.large {
        canvas.paint(ground, style);
        let inner = Rect {
            x: ground.x + MARGIN,
            width: ground.width.saturating_sub(2 * MARGIN),
            y: ground.y + 1,
            height: ground.height.saturating_sub(2),
        };
        letters::draw(canvas.say(word), inner, canvas.buffer, style);
    }
    let word = face.large.map_or(String::new(), |(word, _)| format!("{}: ", canvas.say(word)));
    let head = Told::new(None, format!("{word}{}", face.said), BOLD);
    let mut next = 0;
    for told in std::iter::once(head).chain(details(screen, customer)) {
        next +=
            draw_told(&told, canvas, Rect { y: below.y + next, height: below.height.saturating_sub(next), ..below });
    }
}

/// Writes one thing into the first rows of what is left, and gives how many it took.
fn draw_told(told: &Told, canvas: &mut Canvas<'_>, left: Rect) -> u16 {
    let at = if told.label.is_some() { MARGIN + LABEL } else { MARGIN };
    let end = if told.beside.is_some() { SECOND } else { left.width.saturating_sub(MARGIN) };
    let room = end.saturating_sub(at);
    if let Some(label) = told.label {
        let label = canvas.say(label);
        canvas.put(row(left, 0), MARGIN, LABEL, label, FAINT);
    }
    if let Some((label, said)) = &told.beside {
        canvas.labelled(row(left, 0), SECOND, *label, said, told.style);
    }
    let rows = wrap(&told.said, room);
    for (nth, text) in (0..).zip(&rows) {
        canvas.put_fitted(row(left, nth), at, room, text, told.style);
    }
    u16::try_from(rows.len()).unwrap_or(u16::MAX).clamp(1, left.height.max(1))
}

fn face(screen: &Screen, customer: &Customer) -> Face {
    let say = |text: Text| text.say(screen.language).to_owned();
    let count = customer.quantity.value();
    let with_count = |text: Text| fill(text.say(screen.language), &[&count]);
    let face = |large, ground, said| Face { large: Some((large, ground)), said };
    let answer = match &customer.step {
        Step::LookingUp => return Face { large: None, said: say(Text::LookingUp) },
        Step::Selling => return face(Text::Wait, CARE, say(Text::Recording)),
        Step::Told(answer) => answer,
    };
    match answer {
        Answer::Sold { row, .. } | Answer::WrittenDown { row } if is_taken_back(screen, row) => {
            face(Text::TakenBack, CARE, say(Text::TakenBackDo))
        }
        Answer::MayBuy(_) => face(Text::MayBuy, NEWS, with_count(Text::MayBuyDo)),
        Answer::Sold { .. } => face(Text::Sell, GOOD, with_count(Text::SoldDo)),
        Answer::NotRequired { .. } => face(Text::Sell, GOOD, say(Text::FreelyDo)),
        Answer::Refused { .. } => face(Text::DoNotSell, BAD, say(Text::RefusedDo)),
        Answer::Unasked { .. } if screen.is_open() => face(Text::Unchecked, CARE, say(Text::BackDo)),
        Answer::Unasked { offline: Offline::Stop, .. } => face(Text::DoNotSell, BAD, say(Text::UnaskedStop)),
        Answer::Unasked { own, .. } if own.is_empty() => face(Text::Unchecked, CARE, with_count(Text::UnaskedDo)),
        Answer::Unasked { .. } => face(Text::Unchecked, CARE, say(Text::SoldHereBefore)),
        Answer::WrittenDown { .. } => face(Text::Unchecked, CARE, with_count(Text::WrittenDownDo)),
        Answer::Unknown { .. } => face(Text::Wait, CARE, say(Text::UnknownDo)),
        Answer::NotSold { .. } => face(Text::Wait, CARE, say(Text::NotSoldDo)),
        Answer::Failed(_) => face(Text::Wait, CARE, say(Text::FailedDo)),
    }
}

fn is_taken_back(screen: &Screen, id: &RequestId) -> bool {
    screen.rows.iter().any(|row| row.id == *id && row.state == RowState::Voided)
}

fn details(screen: &Screen, customer: &Customer) -> Vec<Told> {
    let language = screen.language;
    let Step::Told(answer) = &customer.step else { return Vec::new() };
    let asked = customer.quantity.value();
    let plain = |text: Text| Told::new(None, text.say(language).to_owned(), PLAIN);
    match answer {
        Answer::MayBuy(standing) => {
            let left = standing.as_ref().and_then(|standing| standing.units_left).filter(|left| *left < asked);
            let too_many = left.map(|left| Told::new(None, fill(Text::MoreThanLeft.say(language), &[&left]), CARE));
            too_many.into_iter().chain(standing.iter().flat_map(|standing| told_of(standing, screen))).collect()
        }
        Answer::Sold { standing, .. } => standing.iter().flat_map(|standing| told_of(standing, screen)).collect(),
        Answer::NotRequired { why } => vec![Told::new(Some(Text::Why), why.clone(), FAINT)],
        Answer::Refused { reasons, standing } => {
            let own_day = standing.as_ref().and_then(|standing| standing.own_day);
            let mut told: Vec<Told> = reasons.iter().map(|reason| why(reason, own_day, language)).collect();
            let less = answer.less_is_left(asked);
            told.extend(less.map(|less| Told::new(None, fill(Text::LessIsLeft.say(language), &[&less]), BOLD)));
            // The first reason, what is left and when next are seen in the smallest window; the rest as there is room.
            let others = told.split_off(told.len().min(1));
            told.extend(standing.iter().flat_map(|standing| told_of(standing, screen)));
            told.extend(others);
            told.extend(
                reasons
                    .iter()
                    .filter(|reason| language == Language::Korean && !reason.why.is_empty())
                    .map(|reason| Told::new(Some(Text::Why), reason.why.clone(), FAINT)),
            );
            told
        }
        Answer::Unasked { own, .. } => own.iter().map(|sale| earlier(sale, language)).collect(),
        Answer::WrittenDown { .. } => Vec::new(),
        Answer::Unknown { offline: Offline::Stop, .. } => {
            vec![
                Told::new(None, Text::MayNotHandOver.say(language).to_owned(), CARE),
                plain(Text::UnknownNotHandedOver),
            ]
        }
        Answer::Unknown { .. } => vec![plain(Text::UnknownHandedOver), plain(Text::UnknownNotHandedOver)],
        Answer::NotSold { offline: Offline::Stop, .. } => {
            vec![
                Told::new(None, Text::MayNotHandOver.say(language).to_owned(), CARE),
                plain(Text::NotSoldNotHandedOver),
            ]
        }
        Answer::NotSold { .. } => vec![plain(Text::UnknownHandedOver), plain(Text::NotSoldNotHandedOver)],
        Answer::Failed(why) => vec![Told::new(Some(Text::Why), failure(why, language), PLAIN)],
    }
}

/// In English the service's own sentence, which knows more; in Korean ours.
fn why(reason: &Reason, own_day: Option<Weekday>, language: Language) -> Told {
    let text = match reason.refusal {
        Refusal::ChannelNotEnrolled => Text::ChannelNotEnrolled,
        Refusal::NotEligible => Text::NotEligible,
        Refusal::ProxyNotAllowed => Text::ProxyNotAllowed,
        Refusal::NotYourDay => Text::NotYourDay,
        Refusal::QuotaExhausted => Text::QuotaExhausted,
        Refusal::Other => Text::OtherRefusal,
    };
    let mut said = text.say(language).to_owned();
    if language == Language::English && !reason.why.is_empty() {
        said.clone_from(&reason.why);
    }
    if let Some(day) = own_day.filter(|_| reason.refusal == Refusal::NotYourDay) {
        let day = fill(Text::OwnDay.say(language), &[&weekday(day).say(language)]);
        said = format!("{said} ({day})");
    }
    Told::new(Some(Text::Why), said, BOLD)
}

/// What is left and when next, in one row; then the latest purchases that count.
fn told_of(standing: &Standing, screen: &Screen) -> Vec<Told> {
    let language = screen.language;
    let units = standing.units_left.map_or_else(
        || Text::NoLimit.say(language).to_owned(),
        |units| counted(units, [Text::OneUnit, Text::ManyUnits], language),
    );
    let purchases =
        standing.purchases_left.map(|left| counted(left, [Text::OnePurchase, Text::ManyPurchases], language));
    let left: Vec<String> = std::iter::once(units).chain(purchases).collect();
    let next = match standing.next {
        None => Text::NotInAYear.say(language).to_owned(),
        Some(date) if screen.clock.is_some_and(|now| now.date == date) => Text::Today.say(language).to_owned(),
        Some(date) => format!("{date} {}", weekday(Weekday::of(date)).say(language)),
    };
    let left = Told { beside: Some((Text::Next, next)), ..Told::new(Some(Text::Left), left.join(", "), BOLD) };
    let latest = standing.earlier.iter().rev().take(EARLIER).map(|purchase| earlier(purchase, language));
    std::iter::once(left).chain(latest).collect()
}

fn earlier(purchase: &Earlier, language: Language) -> Told {
    let units = counted(purchase.quantity, [Text::OneUnit, Text::ManyUnits], language);
    let place = if purchase.district.is_empty() { Text::Here.say(language) } else { &purchase.district };
    Told::new(Some(Text::Earlier), format!("{} {}, {units}, {place}", purchase.at.date, purchase.at), PLAIN)
}

fn counted(count: u32, [one, many]: [Text; 2], language: Language) -> String {
    fill(if count == 1 { one } else { many }.say(language), &[&count])
}

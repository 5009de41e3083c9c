//! How the screen is drawn. From the top: who and when, how the terminal stands with the service, trouble, the customer, the decision in
//! large letters and why, a remark, the keys.

mod canvas;
mod lists;
mod serving;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::number::Slip;
use super::texts::{Language, Text, fill, spoken};
use super::vocabulary::{Answer, Door, Failure, Journal, Moment, Offline, RowState, Weekday};
use super::{Over, Remark, Row, Screen, Stage, Step};
use canvas::Canvas;

/// The smallest window.
const SMALLEST: (u16, u16) = (80, 24);
/// Rows above what changes with the customer, and below it.
const HEAD: u16 = 5;
const FOOT: u16 = 3;
/// Columns to the left of everything.
const MARGIN: u16 = 2;
/// Where the second thing of a row begins.
const SECOND: u16 = 44;

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().fg(Color::DarkGray);
const TITLE: Style = Style::new().fg(Color::Black).bg(Color::Gray);
const GOOD: Style = Style::new().fg(Color::Black).bg(Color::Green).add_modifier(Modifier::BOLD);
const BAD: Style = Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD);
const CARE: Style = Style::new().fg(Color::Black).bg(Color::Yellow).add_modifier(Modifier::BOLD);
const NEWS: Style = Style::new().fg(Color::White).bg(Color::Blue).add_modifier(Modifier::BOLD);

/// Draws all of it, and counts what did not fit of our own texts.
pub(super) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) -> usize {
    let mut canvas = Canvas::new(buffer, screen.language);
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = canvas.say(Text::TooSmall);
        canvas.put_if_it_fits(area, 0, text, PLAIN);
        return canvas.cut;
    }
    let [title, door, trouble, number, buyer] = [0, 1, 2, 3, 4].map(|nth| canvas::row(area, nth));
    let body = Rect { y: area.y + HEAD, height: area.height - HEAD - FOOT, ..area };
    let [remark, keys] = [FOOT, FOOT - 1].map(|from_below| canvas::row(area, area.height - from_below));
    let keys = Rect { height: FOOT - 1, ..keys };
    draw_title(screen, &mut canvas, title);
    draw_door(screen, &mut canvas, door);
    draw_trouble(screen, &mut canvas, trouble);
    draw_customer(screen, &mut canvas, number, buyer);
    match (&screen.over, &screen.stage) {
        (Some(Over::Form(form)), _) => lists::draw_form(screen, form, &mut canvas, body),
        (Some(Over::List(at)), _) => lists::draw_list(screen, *at, &mut canvas, body),
        (_, Stage::Typing { slip, .. }) => draw_typing(screen, *slip, &mut canvas, body),
        (_, Stage::Serving(customer)) => serving::draw(screen, customer, &mut canvas, body),
    }
    draw_remark(screen, &mut canvas, remark);
    draw_keys(screen, &mut canvas, keys);
    canvas.cut
}

/// Programme, site and terminal; the day and the time.
fn draw_title(screen: &Screen, canvas: &mut Canvas<'_>, row: Rect) {
    canvas.paint(row, TITLE);
    let setup = &screen.setup;
    let mut room = row.width.saturating_sub(2 * MARGIN);
    if let Some(now) = screen.clock {
        let time = day_and_time(now, screen.language);
        room = room.saturating_sub(canvas.put_right(row, &time, TITLE) + 1);
    }
    let title = format!("{}  {}/{}", setup.programme, setup.site, setup.terminal);
    canvas.put_fitted(row, MARGIN, room, &title, TITLE);
}

/// Whether the service can be asked, and what it does not have yet.
fn draw_door(screen: &Screen, canvas: &mut Canvas<'_>, row: Rect) {
    let style = match &screen.door {
        Door::Open { .. } => Style::new().fg(Color::Green),
        Door::Connecting | Door::Waiting { .. } | Door::Busy => NEWS,
        Door::SiteFull { .. } | Door::Shut | Door::TurnedAway(_) => BAD,
        Door::Away { .. } => CARE,
    };
    canvas.paint(row, style);
    let counted = [(screen.waiting, Text::Sheets), (screen.unresolved, Text::Unresolved)].into_iter();
    let sheets = counted.filter(|(count, _)| *count > 0).map(|(count, text)| fill(canvas.say(text), &[&count]));
    let sheets = sheets.collect::<Vec<_>>().join("  ");
    let taken = canvas.put_right(row, &sheets, style.add_modifier(Modifier::BOLD));
    let room = row.width.saturating_sub(2 * MARGIN + taken + u16::from(taken > 0));
    let said = door(&screen.door, screen.language);
    if matches!(screen.door, Door::SiteFull { .. } | Door::TurnedAway(_)) {
        canvas.put_fitted(row, MARGIN, room, &said, style);
    } else {
        canvas.put(row, MARGIN, room, &said, style);
    }
}

fn door(door: &Door, language: Language) -> String {
    let say = |text: Text| text.say(language);
    match door {
        Door::Connecting => say(Text::Connecting).to_owned(),
        Door::Waiting { position: None, .. } => say(Text::BeingCounted).to_owned(),
        Door::Waiting { position: Some(position), rank, seconds } => {
            let place = if *rank == 0 { Text::InLine } else { Text::InLineOfRank };
            let place = fill(say(place), &[position, rank]);
            match seconds {
                None => place,
                Some(seconds) => format!("{place}, {}", fill(say(Text::Estimate), &[seconds])),
            }
        }
        Door::Open { slot } => fill(say(Text::SessionOpen), &[slot]),
        Door::SiteFull { cap, holders } => fill(say(Text::SiteFull), &[cap, &holders.join(", ")]),
        Door::Shut => say(Text::Shut).to_owned(),
        Door::Busy => say(Text::ServiceBusy).to_owned(),
        Door::TurnedAway(reason) => fill(say(Text::TurnedAway), &[reason]),
        Door::Away { since, offline: Offline::SellAndRecord } => fill(say(Text::AwaySell), &[since]),
        Door::Away { since, offline: Offline::Stop } => fill(say(Text::AwayStop), &[since]),
    }
}

/// What is wrong with the journal, or what became of the last upload.
fn draw_trouble(screen: &Screen, canvas: &mut Canvas<'_>, row: Rect) {
    let room = row.width.saturating_sub(2 * MARGIN);
    let to_mend = screen.rows.iter().filter(|row| row.state == RowState::ToMend).count();
    let (said, style) = match (&screen.journal, &screen.uploaded) {
        (Journal::Broken { why }, _) => {
            let said = fill(canvas.say(Text::JournalBroken), &[why]);
            canvas.paint(row, BAD);
            canvas.put_fitted(row, MARGIN, room, &said, BAD);
            return;
        }
        (Journal::Damaged { lost }, _) => (fill(canvas.say(Text::JournalDamaged), &[lost]), BAD),
        // The last upload's own count is newer than the sum, and stands for it.
        (Journal::Sound, sent) if to_mend > 0 && sent.is_none_or(|sent| sent.to_mend == 0) => {
            (fill(canvas.say(Text::ToMend), &[&to_mend]), CARE)
        }
        (Journal::Sound, Some(sent)) => {
            let counts: [&dyn std::fmt::Display; 4] =
                [&sent.recorded, &sent.over_quota, &sent.put_aside, &sent.to_mend];
            let all_well = [sent.over_quota, sent.put_aside, sent.to_mend] == [0; 3];
            (fill(canvas.say(Text::Sent), &counts), if all_well { NEWS } else { CARE })
        }
        (Journal::Sound, None) => return,
    };
    canvas.paint(row, style);
    canvas.put(row, MARGIN, room, &said, style);
}

/// Whose number, how much, who buys, with which papers.
fn draw_customer(screen: &Screen, canvas: &mut Canvas<'_>, number: Rect, buyer: Rect) {
    match &screen.stage {
        Stage::Typing { typed, .. } => canvas.labelled(number, MARGIN, Text::Number, &typed.shown(), BOLD),
        Stage::Serving(customer) => {
            canvas.labelled(number, MARGIN, Text::Number, &customer.number.masked().to_string(), BOLD);
            canvas.labelled(number, SECOND, Text::Quantity, &customer.quantity.value().to_string(), BOLD);
        }
    }
    let language = screen.language;
    let terms = &screen.terms;
    let who = terms.proxy.map_or_else(
        || canvas.say(Text::InPerson).to_owned(),
        |proxy| {
            let relation = spoken(proxy.relation.as_str(), language);
            fill(canvas.say(Text::ByProxy), &[&relation, &proxy.agent_birth_year])
        },
    );
    canvas.labelled(buyer, MARGIN, Text::Buyer, &who, PLAIN);
    if !terms.papers.is_empty() {
        let papers: Vec<_> = terms.papers.iter().map(|paper| spoken(paper.as_str(), language)).collect();
        canvas.labelled(buyer, SECOND, Text::Papers, &papers.join(", "), PLAIN);
    }
}

/// What is asked for, or what is wrong with what was typed; the last sale.
fn draw_typing(screen: &Screen, slip: Option<Slip>, canvas: &mut Canvas<'_>, body: Rect) {
    let (said, style) = match slip {
        None => (canvas.say(Text::Prompt).to_owned(), NEWS),
        Some(Slip::Short(count)) => (fill(canvas.say(Text::SlipShort), &[&count]), CARE),
        Some(Slip::Long) => (canvas.say(Text::SlipLong).to_owned(), CARE),
        Some(Slip::CheckDigit) => (canvas.say(Text::SlipCheckDigit).to_owned(), CARE),
        Some(Slip::NoSuchDate) => (canvas.say(Text::SlipNoSuchDate).to_owned(), BAD),
        Some(Slip::NotYetBorn) => (canvas.say(Text::SlipNotYetBorn).to_owned(), BAD),
    };
    canvas.paint(Rect { y: body.y + 1, height: 3, ..body }, style);
    canvas.put(canvas::row(body, 2), MARGIN, body.width.saturating_sub(2 * MARGIN), &said, style);
    if let Some(last) = screen.rows.last() {
        let units = fill(canvas.say(Text::ManyUnits), &[&last.quantity]);
        let state = canvas.say(lists::state(last.state));
        let said = format!("{}, {}, {units}, {state}", last.at, last.number);
        canvas.labelled(canvas::row(body, 5), MARGIN, Text::Last, &said, PLAIN);
    }
}

/// A question that is open, or what there is to say until the next key.
fn draw_remark(screen: &Screen, canvas: &mut Canvas<'_>, row: Rect) {
    let said = match (&screen.over, &screen.remark) {
        (Some(Over::Void(id)), _) => {
            let Some(Row { at, number, quantity, .. }) = screen.rows.iter().find(|row| row.id == *id) else { return };
            fill(canvas.say(Text::VoidAsk), &[at, number, quantity])
        }
        (Some(Over::Quit), _) if (screen.waiting, screen.unresolved) != (0, 0) => {
            fill(canvas.say(Text::QuitAskAll), &[&screen.waiting, &screen.unresolved])
        }
        (Some(Over::Quit), _) => canvas.say(Text::QuitAsk).to_owned(),
        (_, Some(Remark::Say(Text::FormPapers))) => fill(canvas.say(Text::FormPapers), &[&super::form::MOST_PAPERS]),
        (_, Some(Remark::Say(text))) => canvas.say(*text).to_owned(),
        (_, Some(Remark::NotVoided(why))) => fill(canvas.say(Text::VoidRefused), &[&failure(why, screen.language)]),
        (_, None) => return,
    };
    canvas.paint(row, CARE);
    canvas.put_fitted(row, MARGIN, row.width.saturating_sub(2 * MARGIN), &said, CARE);
}

fn draw_keys(screen: &Screen, canvas: &mut Canvas<'_>, area: Rect) {
    let room = area.width.saturating_sub(2 * MARGIN);
    let here = match (&screen.over, &screen.stage) {
        (Some(Over::Form(_)), _) => Text::KeysForm,
        (Some(Over::List(_)), _) => Text::KeysList,
        (_, Stage::Typing { .. }) => Text::KeysTyping,
        (_, Stage::Serving(customer)) => match &customer.step {
            Step::Selling => Text::KeysWait,
            Step::Told(Answer::Unknown { offline: Offline::Stop, .. }) => Text::KeysUnknownStop,
            Step::Told(Answer::Unknown { .. }) => Text::KeysUnknown,
            Step::Told(Answer::NotSold { offline: Offline::Stop, .. }) => Text::KeysNotSoldStop,
            Step::Told(Answer::NotSold { .. }) => Text::KeysNotSold,
            Step::Told(Answer::Unasked { .. }) if screen.is_open() => Text::KeysBack,
            Step::Told(Answer::Unasked { offline: Offline::SellAndRecord, own }) if own.is_empty() => Text::KeysUnasked,
            Step::Told(Answer::Unasked { offline: Offline::SellAndRecord, .. }) => Text::KeysSoldHere,
            Step::Told(answer) if answer.less_is_left(customer.quantity.value()).is_some() => Text::KeysRefused,
            Step::Told(answer) if answer.is_settled() => Text::KeysSettled,
            Step::LookingUp | Step::Told(_) => Text::KeysServing,
        },
    };
    for (at, text) in (0..).zip([here, Text::KeysAlways]) {
        let said = canvas.say(text);
        canvas.put(canvas::row(area, at), MARGIN, room, said, PLAIN);
    }
}

/// `2020-03-11 Wednesday 09:05`.
fn day_and_time(at: Moment, language: Language) -> String {
    format!("{} {} {at}", at.date, weekday(Weekday::of(at.date)).say(language))
}

fn weekday(day: Weekday) -> Text {
    match day {
        Weekday::Monday => Text::Monday,
        Weekday::Tuesday => Text::Tuesday,
        Weekday::Wednesday => Text::Wednesday,
        Weekday::Thursday => Text::Thursday,
        Weekday::Friday => Text::Friday,
        Weekday::Saturday => Text::Saturday,
        Weekday::Sunday => Text::Sunday,
    }
}

fn failure(failure: &Failure, language: Language) -> String {
    let text = match failure {
        Failure::NoSession => Text::NoSession,
        Failure::Busy => Text::Busy,
        Failure::StoreAway => Text::StoreAway,
        Failure::TooManyLookUps => Text::TooManyLookUps,
        Failure::NotOurs => Text::NotOurs,
        Failure::NotRecorded => Text::NotRecorded,
        Failure::NumberGone => Text::NumberGone,
        Failure::Unreachable => Text::Unreachable,
        Failure::Other { reason, message } => return format!("{reason}: {message}"),
    };
    text.say(language).to_owned()
}

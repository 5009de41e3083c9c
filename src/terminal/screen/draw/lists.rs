//! Today's list and the form: what stands in columns.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::super::Screen;
use super::super::form::{Field, Form, papers, relations};
use super::super::texts::{CELL, Text, fill, spoken};
use super::super::vocabulary::RowState;
use super::canvas::{Canvas, columns, row};
use super::{BOLD, CARE, FAINT, MARGIN, PLAIN};

/// Where the columns of the list begin, and what stands above them.
const COLUMNS: [(u16, Text); 4] = [(2, Text::Time), (14, Text::Number), (34, Text::Quantity), (48, Text::State)];
/// Columns before what can be chosen, and between it and the next.
const KEY: u16 = 5;

const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

pub(super) fn state(state: RowState) -> Text {
    match state {
        RowState::Sold => Text::StateSold,
        RowState::Voiding => Text::StateVoiding,
        RowState::Voided => Text::StateVoided,
        RowState::Unknown => Text::StateUnknown,
        RowState::Unsettled => Text::StateUnsettled,
        RowState::NotSold => Text::StateNotSold,
        RowState::Waiting => Text::StateWaiting,
        RowState::Late => Text::StateLate,
        RowState::OverQuota => Text::StateOverQuota,
        RowState::PutAside => Text::StatePutAside,
        RowState::ToMend => Text::StateToMend,
    }
}

/// Whether somebody should look at it.
fn wants_care(state: RowState) -> bool {
    match state {
        RowState::Unknown | RowState::Unsettled | RowState::OverQuota | RowState::PutAside | RowState::ToMend => true,
        RowState::Sold
        | RowState::Voiding
        | RowState::Voided
        | RowState::NotSold
        | RowState::Waiting
        | RowState::Late => false,
    }
}

/// Today's sales, newest first, around the chosen one.
pub(super) fn draw_list(screen: &Screen, at: usize, canvas: &mut Canvas<'_>, body: Rect) {
    let rows: Vec<_> = screen.today().collect();
    let title = fill(canvas.say(Text::TodaysSales), &[&rows.len()]);
    canvas.put(row(body, 0), MARGIN, body.width, &title, BOLD);
    if rows.is_empty() {
        let none = canvas.say(Text::NoSales);
        canvas.put(row(body, 2), MARGIN, body.width, none, PLAIN);
        return;
    }
    for (x, head) in COLUMNS {
        let head = canvas.say(head);
        canvas.put(row(body, 1), x, CELL, head, FAINT);
    }
    let seen = usize::from(body.height.saturating_sub(2)).max(1);
    let first = (at + 1).saturating_sub(seen);
    for (nth, sale) in (2..).zip(rows.into_iter().skip(first).take(seen)) {
        let line = row(body, nth);
        let is_chosen = usize::from(nth) - 2 + first == at;
        let style = if is_chosen { CHOSEN } else { PLAIN };
        canvas.paint(line, style);
        let became = canvas.say(state(sale.state));
        let cells = [&sale.at.to_string(), &sale.number.to_string(), &sale.quantity.to_string(), became];
        for ((x, head), cell) in COLUMNS.into_iter().zip(cells) {
            let cares = head == Text::State && wants_care(sale.state);
            canvas.put(line, x, CELL, cell, if cares { CARE } else { style });
        }
    }
}

/// The relations, the year and the papers, each with its key.
pub(super) fn draw_form(screen: &Screen, form: &Form, canvas: &mut Canvas<'_>, body: Rect) {
    let (setup, language) = (&screen.setup, screen.language);
    let in_person = ('0', canvas.say(Text::InPerson).to_owned(), form.relation.is_none());
    let named = ('1'..='9').zip(relations(setup)).map(|(key, relation)| {
        (key, spoken(relation.as_str(), language).into_owned(), form.relation == Some(relation))
    });
    let choices: Vec<_> = std::iter::once(in_person).chain(named).collect();
    label(canvas, row(body, 0), Text::Relation, form.field == Field::Relation);
    let mut next = 1 + draw_choices(&choices, canvas, body, 1);

    label(canvas, row(body, next), Text::AgentBorn, form.field == Field::Year);
    let typed = if form.year.is_empty() { String::new() } else { form.year.value().to_string() };
    let year = if form.relation.is_none() { "-".to_owned() } else { format!("{typed}_") };
    canvas.put_fitted(row(body, next), MARGIN + CELL, CELL, &year, BOLD);
    next += 1;

    label(canvas, row(body, next), Text::Papers, form.field == Field::Papers);
    let choices: Vec<_> = papers(setup)
        .map(|(key, paper)| {
            (key.to_ascii_uppercase(), spoken(paper.as_str(), language).into_owned(), form.papers.contains(&paper))
        })
        .collect();
    draw_choices(&choices, canvas, body, next + 1);
}

fn label(canvas: &mut Canvas<'_>, line: Rect, text: Text, is_here: bool) {
    let label = canvas.say(text);
    canvas.put(line, MARGIN, CELL, label, if is_here { CARE } else { FAINT });
}

/// Writes what can be chosen from the nth row on, and gives the rows that it took.
fn draw_choices(choices: &[(char, String, bool)], canvas: &mut Canvas<'_>, body: Rect, nth: u16) -> u16 {
    let room = body.width.saturating_sub(MARGIN);
    let wide = choices.iter().map(|(_, said, _)| columns(said) + KEY).max().unwrap_or(KEY).min(room);
    let across = usize::from((room / wide).max(1));
    let rows = choices.chunks(across);
    let taken = u16::try_from(rows.len()).unwrap_or(u16::MAX);
    for (down, line) in (nth..).zip(rows) {
        for (x, (key, said, is_chosen)) in (0..).map(|at: u16| MARGIN + at * wide).zip(line) {
            let mark = if *is_chosen { '*' } else { ' ' };
            let style = if *is_chosen { CHOSEN } else { PLAIN };
            canvas.put_fitted(row(body, down), x, wide - 1, &format!("{mark}{key} {said}"), style);
        }
    }
    taken
}

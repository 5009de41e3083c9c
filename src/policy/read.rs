//! From the text of a file to a validated programme, or to everything that is wrong with it.
//!
//! A programme file is TOML. Dates stand without quotes: `2020-03-09` is 00:00 of that day in the programme's zone, and an
//! instant with its offset is possible too. `until` is the first instant that is no longer inside; where it is left out
//! a line has no end.
//!
//! | field or table | holds |
//! |---|---|
//! | `id`, `code`, `title`, `unit`, `zone` | names; the code stands in every record key of the store |
//! | `buyer_id` | `kr_resident` or `opaque` |
//! | `check_digit_warning`, `demo` | `false` unless given |
//! | `max_hold_minutes` | the longest hold that may be asked for |
//! | `offline` | what a terminal does while nobody can be asked: `sell_and_record` (unless given) or `stop` |
//! | `[stock_levels]` | `plenty`, `some`, `few`: from how many units on a site has them; 100, 30 and 2 unless given, as in 2020 |
//! | `other_papers` | papers that may be stated although no rule asks for them |
//! | `[[periods]]` | `from`, `until`; `windows`; `rotation`, `holidays_free`; or `in_force = false` and `why`. Each begins where the one before it ends |
//! | a window | `kind`: `day`, `week` (with `starts`), `month` (all three with `starts_at`), `span` (`from`, `until`), `rolling_days` (`days`); `units`, `units_by_birth_year`, `purchases` |
//! | `[rotation]` | `key`; the digits of `mon` … `sun`; `always_free` |
//! | `[[free_days]]`, `[[holidays]]` | `date`, `why`; holidays are free where the period says so |
//! | `[[channels]]` | `from`, `until`, `channel`, `only_regions` or `except_regions` |
//! | `[[whose_day]]` | `from`, `rule`: `beneficiary`, `beneficiary_or_agent`, `anyone_named`; each replaces the one before |
//! | `[[proxy]]` | `from`, `until`, `group`, `born_from`, `born_until`, `foreign`, `relations`, `papers` (any one of the sets, complete) |
//! | `[[foreigners]]` | `from`, `cards` (any one), `insurance` (beside the card), `proxy`; each replaces the one before |

use std::time::Duration;

use toml::de::DeTable;

use super::calendar::Zone;
use super::channels::Channels;
use super::file::Table;
use super::foreigners::Foreigners;
use super::offline::Offline;
use super::problems::{PolicyErrors, Problems};
use super::programme::{BuyerIds, Period, Programme};
use super::proxy::{Proxies, WhoseDays};
use super::rotation::{FreeDays, Rotation};
use super::stock::StockLevels;
use super::windows::WindowRule;
use crate::time::Timestamp;

/// A hold is for a number ticket or a pick-up, never for longer than a month.
const MAX_HOLD_MINUTES: i64 = 31 * 24 * 60;

impl Programme {
    /// Reads and validates a programme file. `source` names it in what is reported: all problems that can be found in
    /// one go, each with its line and the remedy.
    pub fn parse(text: &str, source: &str) -> Result<Self, PolicyErrors> {
        let mut problems = Problems::new(source, text);
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let programme = read(Table::of_file(document.get_ref()), &mut problems);
            return problems.unless_any(programme);
        }
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            problems.at(at, format!("this is not TOML: {}", error.message()), "see https://toml.io for the notation");
        }
        problems.unless_any(None)
    }
}

fn read(mut file: Table<'_>, problems: &mut Problems<'_>) -> Option<Programme> {
    let id = file.name(problems, "id", "\"kr-public-mask-2020\"");
    let code = file.name(problems, "code", "\"km\"");
    let title = file.text(problems, "title", "\"what it is called\"");
    let unit = file.text(problems, "unit", "\"mask\"");
    let buyer_ids = file.text(problems, "buyer_id", "\"kr_resident\"").and_then(|scheme| match scheme.value {
        "kr_resident" => Some(BuyerIds::KrResident),
        "opaque" => Some(BuyerIds::Opaque),
        other => {
            problems.at(scheme.byte, format!("no such scheme of buyer ids: {other:?}"), "write kr_resident or opaque");
            None
        }
    });
    let check_digit_warning = file.flag(problems, "check_digit_warning", false);
    let demo = file.flag(problems, "demo", false);
    let other_papers = file.names(problems, "other_papers");
    let longest_hold = file.integer(problems, "max_hold_minutes", 1..=MAX_HOLD_MINUTES);
    let offline = match file.optional_text(problems, "offline") {
        None => Some(Offline::SellAndRecord),
        Some(word) => Offline::read(&word, problems),
    };
    let stock_levels = match file.table(problems, "stock_levels") {
        Some(table) => StockLevels::read(table, problems),
        None => Some(StockLevels::OF_2020),
    };
    let rotation = file.table(problems, "rotation").map(|table| Rotation::read(table, problems));
    let free_days = FreeDays::read(file.tables(problems, "free_days"), problems);
    let holidays = FreeDays::read(file.tables(problems, "holidays"), problems);
    let zone = file.text(problems, "zone", "\"Asia/Seoul\"").and_then(|name| {
        let zone = Zone::named(name.value);
        if zone.is_none() {
            problems.at(
                name.byte,
                format!("no such time zone: {:?}", name.value),
                "write an IANA name such as Asia/Seoul",
            );
        }
        zone
    });
    // Dates mean nothing without a zone; to go on, they are read as if in UTC, and the programme is refused all the same.
    let reading_zone = zone.clone().or_else(|| Zone::named("UTC"))?;
    let periods = read_periods(file.tables(problems, "periods"), rotation.is_some(), &reading_zone, problems);
    let channels = Channels::read(file.tables(problems, "channels"), &reading_zone, problems);
    let whose_days = WhoseDays::read(file.tables(problems, "whose_day"), &reading_zone, problems);
    let proxies = Proxies::read(file.tables(problems, "proxy"), &reading_zone, problems);
    let foreigners = Foreigners::read(file.tables(problems, "foreigners"), &reading_zone, problems);
    file.close(problems);

    let mut instants: Vec<Timestamp> = periods.iter().flat_map(|p| [p.effect.from, p.effect.until]).collect();
    instants.extend(
        channels.instants().chain(whose_days.instants()).chain(proxies.instants()).chain(foreigners.instants()),
    );
    instants.retain(|&instant| instant < Timestamp::NEVER);
    instants.sort_unstable();
    instants.dedup();
    Some(Programme {
        id: id?.value,
        code: code?.value,
        title: title?.value.to_owned(),
        unit: unit?.value.to_owned(),
        zone: zone?,
        buyer_ids: buyer_ids?,
        check_digit_warning,
        demo,
        longest_hold: Duration::from_secs(60 * longest_hold?.value.unsigned_abs()),
        offline: offline?,
        stock_levels: stock_levels?,
        other_papers,
        periods,
        rotation,
        free_days,
        holidays,
        channels,
        whose_days,
        proxies,
        foreigners,
        instants,
    })
}

fn read_periods(tables: Vec<Table<'_>>, has_rotation: bool, zone: &Zone, problems: &mut Problems<'_>) -> Vec<Period> {
    if tables.is_empty() {
        problems.of_file("there is no period", "add a [[periods]] table with `from` and `windows`");
    }
    let mut periods: Vec<Period> = Vec::new();
    // After a period that could not be read, a gap or an overlap would be told of the wrong pair.
    let mut previous_is_known = false;
    for mut table in tables {
        let byte = table.byte();
        let effect = table.effect(problems, zone);
        if let (Some(effect), Some(previous), true) = (effect, periods.last(), previous_is_known) {
            let (before, now) = (zone.local(previous.effect.until), zone.local(effect.from));
            if effect.from > previous.effect.until {
                let remedy = "let `from` be the `until` of the period before; a time without rules is a period with \
                              `in_force = false`";
                problems.at(byte, format!("there is a gap from {before} to {now}"), remedy);
            } else if previous.effect.until == Timestamp::NEVER {
                let remedy = "only the last period may lack `until`";
                problems.at(byte, "the period before this one has no end", remedy);
            } else if effect.from < previous.effect.until {
                let remedy = "let `from` be the `until` of the period before";
                problems.at(byte, format!("from {now} to {before} two periods overlap"), remedy);
            }
        }
        previous_is_known = effect.is_some();
        periods.extend(read_period(table, effect, has_rotation, zone, problems));
    }
    periods
}

fn read_period(
    mut table: Table<'_>,
    effect: Option<super::file::Effect>,
    has_rotation: bool,
    zone: &Zone,
    problems: &mut Problems<'_>,
) -> Option<Period> {
    let byte = table.byte();
    let in_force = table.flag(problems, "in_force", true);
    let not_in_force = if in_force {
        None
    } else {
        table
            .text(problems, "why", "\"why nothing is checked, as a clerk would say it\"")
            .map(|why| why.value.to_owned())
    };
    let rotation = table.flag(problems, "rotation", false);
    let holidays_free = table.flag(problems, "holidays_free", false);
    let mut windows = Vec::new();
    let has_windows = table.has("windows");
    for window in table.tables(problems, "windows") {
        let Some((rule, window_byte)) = WindowRule::read(window, zone, problems) else { continue };
        if let (Some(span), Some(effect)) = (rule.explicit(), effect)
            && (effect.from < span.from || span.until < effect.until)
        {
            let remedy = "let the span cover the whole period, or end the period with it";
            problems.at(window_byte, "a part of this period lies outside its window", remedy);
        }
        windows.push(rule);
    }
    if in_force && !has_windows {
        problems.at(
            byte,
            "this period has no window",
            "add `windows = [{ kind = \"week\", … }]`, or `in_force = false`",
        );
    }
    if !in_force && has_windows {
        problems.at(byte, "this period is not in force and has windows", "remove `windows`, or `in_force = false`");
    }
    if rotation && !has_rotation {
        problems.at(byte, "there is no rotation table", "add [rotation], or remove `rotation = true`");
    }
    table.close(problems);
    Some(Period { effect: effect?, not_in_force, rotation, holidays_free, windows })
}

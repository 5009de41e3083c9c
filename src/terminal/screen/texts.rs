//! Every text of the screen, in both languages side by side: one that is missing does not compile.
//!
//! In texts there are letters, digits and ASCII signs, and nothing that some terminals of East Asia draw wide and others narrow. `{0}`
//! stands for what is put in.

use std::borrow::Cow;
use std::fmt::Display;

use super::vocabulary::{Answer, Offline};

/// What the screen speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Korean.
    Korean,
    /// English.
    English,
}

impl Language {
    /// The one of a locale's name, such as `ko_KR.UTF-8`.
    pub fn of_locale(locale: &str) -> Self {
        let language = locale.split(['_', '.', '-', '@']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("ko") { Self::Korean } else { Self::English }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Korean => Self::English,
            Self::English => Self::Korean,
        }
    }
}

/// Columns that a label of a row has.
pub(super) const LABEL: u16 = 11;
/// Columns of a cell of the list, and of a label of the form.
pub(super) const CELL: u16 = 16;
/// Columns of a row between the margins of the smallest window.
#[cfg(test)]
const ROW: u16 = 76;

macro_rules! catalogue {
    ($($key:ident: $room:ident, $korean:literal, $english:literal;)*) => {
        /// What is said.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Text {
            $($key,)*
        }

        impl Text {
            #[cfg(test)]
            pub(super) const ALL: &[(Self, u16)] = &[$((Self::$key, $room)),*];

            pub(super) fn say(self, language: Language) -> &'static str {
                match (self, language) {
                    $((Self::$key, Language::Korean) => $korean,
                    (Self::$key, Language::English) => $english,)*
                }
            }
        }
    };
}

catalogue! {
    // In large letters.
    Sell: CELL, "판매", "SELL";
    DoNotSell: CELL, "판매 불가", "DO NOT SELL";
    MayBuy: CELL, "구매 가능", "MAY BUY";
    Wait: CELL, "대기", "WAIT";
    Unchecked: CELL, "미확인", "UNCHECKED";
    TakenBack: CELL, "취소", "VOIDED";

    // What the clerk does about it.
    Prompt: ROW, "번호를 입력하거나 스캔한 뒤 Enter를 누르세요.", "Type or scan the number, then press Enter.";
    SlipShort: ROW, "13자리 중 {0}자리만 입력되었습니다. 번호를 다시 확인하세요.", "Only {0} of 13 digits: read the number again.";
    SlipLong: ROW, "13자리를 넘었습니다. 번호를 다시 스캔하세요.", "More than 13 digits: scan the number again.";
    SlipNoSuchDate: ROW, "없는 생년월일입니다. 번호를 다시 확인하세요.", "There is no such date of birth: read the number again.";
    SlipNotYetBorn: ROW, "생년월일이 오늘 이후입니다. 번호를 다시 확인하세요.", "The date of birth is yet to come: read the number again.";
    SlipCheckDigit: ROW, "끝자리가 맞지 않습니다. 신분증과 대조하고, 맞으면 Enter를 다시 누르세요.", "The last digit does not fit. If it is what the card says, press Enter again.";
    LookingUp: ROW, "조회 중입니다...", "Looking up...";
    Recording: ROW, "판매 등록 중입니다. 아직 건네지 마세요.", "Recording the sale. Do not hand over yet.";
    MayBuyDo: ROW, "아직 등록되지 않았습니다. Enter를 누르면 {0}개 판매로 등록합니다.", "Not recorded yet. Enter records the sale of {0}.";
    SoldDo: ROW, "등록되었습니다. {0}개를 건네주세요.", "Recorded. Hand over {0}.";
    FreelyDo: ROW, "확인 대상이 아닙니다. 등록 없이 판매하세요.", "No check applies. Sell freely; nothing is recorded.";
    RefusedDo: ROW, "판매하지 마세요. 등록되지 않았습니다.", "Do not hand over. Nothing was recorded.";
    LessIsLeft: ROW, "{0}개까지는 살 수 있습니다. - 키로 수량을 줄이세요.", "{0} may still be bought: press - to ask for less.";
    UnaskedDo: ROW, "조회 불가. 방침: 판매하고 기록. Enter를 누르면 {0}개 판매를 기록합니다.", "Nobody could be asked. Policy: sell, write down. Enter writes down {0}.";
    UnaskedStop: ROW, "조회할 수 없습니다. 방침: 판매 중지.", "Nobody could be asked. Policy: stop selling.";
    SoldHereBefore: ROW, "이 창구에서 같은 번호로 이미 판매했습니다. 그래도 판매하려면 F8을 누르세요.", "This counter has sold to this number before. F8 sells all the same.";
    BackDo: ROW, "다시 접속되었습니다. Enter를 누르면 조회합니다.", "The service is back, and was not asked yet. Enter asks it.";
    WrittenDownDo: ROW, "미확인 판매로 기록했습니다. {0}개를 건네주세요. 연결되면 전송합니다.", "Written down, not checked. Hand over {0}. It is sent later.";
    UnknownDo: ROW, "응답이 없어 등록되었는지 알 수 없습니다. 아직 건네지 마세요.", "No answer: recorded or not, nobody knows. Do not hand over yet.";
    UnknownHandedOver: ROW, "F8: 건넸음. 등록되지 않았으면 나중에 등록합니다.", "F8: handed over all the same. It is entered late.";
    UnknownNotHandedOver: ROW, "F7: 건네지 않음. 등록되었으면 취소합니다.", "F7: not handed over. It is undone if it was recorded.";
    NotSoldDo: ROW, "등록되지 않은 것으로 확인되었습니다. 물건을 건넸나요?", "It is known now: no sale is recorded. Were the goods handed over?";
    NotSoldNotHandedOver: ROW, "F7: 건네지 않음. 취소할 것이 없습니다.", "F7: not handed over. There is nothing to undo.";
    FailedDo: ROW, "판정을 받지 못했습니다. 건네지 마세요. Enter로 다시 시도합니다.", "No decision. Nothing was recorded: do not hand over. Enter tries again.";
    TakenBackDo: ROW, "판매가 취소되었습니다. 물건을 돌려받으세요.", "The sale was taken back. Get the goods back.";

    // Why.
    ChannelNotEnrolled: ROW, "이 판매처는 지금 판매 대상이 아닙니다.", "This site is not part of the programme now.";
    NotEligible: ROW, "지금은 구매 대상자가 아닙니다.", "This person is outside the programme now.";
    ProxyNotAllowed: ROW, "이 대리인은 이분을 위해 구매할 수 없습니다.", "This agent may not buy for this person.";
    NotYourDay: ROW, "오늘은 구매 요일이 아닙니다.", "Today is not this person's day.";
    QuotaExhausted: ROW, "구매 한도를 넘었거나 이미 구매했습니다.", "The allowance is used up, or less is left.";
    OtherRefusal: ROW, "규정에 따라 구매할 수 없습니다.", "A rule does not allow it.";
    NoSession: ROW, "이 창구는 지금 접속되어 있지 않습니다. 위의 접속 상태를 보세요.", "This counter has no session now: see the line above.";
    Busy: ROW, "서비스가 붐빕니다. 잠시 후 다시 시도하세요.", "The service is busy: try again in a moment.";
    StoreAway: ROW, "서비스가 지금 등록할 수 없습니다. 잠시 후 다시 시도하세요.", "The service cannot record now: try again in a moment.";
    TooManyLookUps: ROW, "판매 없는 조회가 너무 많아 잠시 조회가 제한됩니다.", "Too many look-ups without sales: they are limited for a while.";
    NotOurs: ROW, "이 판매처의 판매가 아니거나 기록이 없습니다.", "Not this site's sale, or nothing is recorded.";
    NotRecorded: ROW, "등록되지 않은 것으로 확인되었습니다.", "It is known now: nothing was recorded.";
    NumberGone: ROW, "번호가 남아 있지 않습니다. 번호를 조회한 뒤 취소하세요.", "The number is not kept: look it up first.";
    Unreachable: ROW, "서비스에 연결할 수 없습니다.", "The service cannot be reached.";

    // Labels, and what stands beside them.
    Number: LABEL, "주민번호", "Number";
    Quantity: LABEL, "수량", "Quantity";
    Buyer: LABEL, "구매자", "Buyer";
    Papers: LABEL, "서류", "Papers";
    Why: LABEL, "사유", "Why";
    Left: LABEL, "잔여", "Left";
    Next: LABEL, "다음 구매", "Next";
    Earlier: LABEL, "구매 이력", "Earlier";
    Last: LABEL, "직전 판매", "Last";
    InPerson: CELL, "본인", "in person";
    ByProxy: ROW, "대리: {0}, {1}년생", "by proxy: {0}, born {1}";
    OneUnit: CELL, "{0}개", "{0} unit";
    ManyUnits: CELL, "{0}개", "{0} units";
    OnePurchase: CELL, "{0}회", "{0} purchase";
    ManyPurchases: CELL, "{0}회", "{0} purchases";
    NoLimit: CELL, "제한 없음", "no limit";
    NotInAYear: ROW, "1년 안에는 없음", "not within a year";
    Today: CELL, "오늘", "today";
    OwnDay: ROW, "구매 요일: {0}", "own day: {0}";
    Here: CELL, "이 창구", "this counter";
    Monday: LABEL, "월요일", "Monday";
    Tuesday: LABEL, "화요일", "Tuesday";
    Wednesday: LABEL, "수요일", "Wednesday";
    Thursday: LABEL, "목요일", "Thursday";
    Friday: LABEL, "금요일", "Friday";
    Saturday: LABEL, "토요일", "Saturday";
    Sunday: LABEL, "일요일", "Sunday";

    // How the terminal stands with the service.
    Connecting: ROW, "접속 중입니다...", "Connecting...";
    InLine: ROW, "접속 대기 {0}번째", "In line: position {0}";
    InLineOfRank: ROW, "접속 대기 {0}번째 ({1}순위)", "In line: position {0} of rank {1}";
    BeingCounted: ROW, "접속 대기: 순번을 확인하고 있습니다", "In line: being counted";
    Estimate: ROW, "약 {0}초", "about {0} s";
    SessionOpen: ROW, "접속됨 (좌석 {0})", "Session open (seat {0})";
    SiteFull: ROW, "이 판매처의 좌석 {0}개가 모두 사용 중: {1}", "All {0} seats of this site are taken: {1}";
    Shut: ROW, "지금은 새로 접속할 수 없습니다", "Nobody new is let in at present";
    ServiceBusy: ROW, "서비스가 붐벼 다시 접속을 시도하고 있습니다", "The service is busy: the session is tried again";
    TurnedAway: ROW, "서비스가 이 창구의 접속을 거절했습니다: {0}", "The service turns this counter away: {0}";
    AwaySell: ROW, "오프라인 ({0}부터). 방침: 판매하고 기록", "OFFLINE since {0}. Policy: sell, write down";
    AwayStop: ROW, "오프라인 ({0}부터). 방침: 판매 중지", "OFFLINE since {0}. Policy: stop selling";
    Sheets: ROW, "미전송 {0}건", "{0} to be sent";
    Unresolved: ROW, "결과 미확인 {0}건", "{0} unresolved";
    JournalDamaged: ROW, "기록장 손상: {0}건을 읽을 수 없습니다. 관리자에게 알리세요.", "Journal damaged: {0} sheets cannot be read. Tell your administrator.";
    JournalBroken: ROW, "기록장에 쓸 수 없어 판매할 수 없습니다: {0}", "The journal cannot be written, so nothing can be sold: {0}";
    ToMend: ROW, "수정 필요 {0}건 (F6 목록). 관리자에게 알리세요.", "{0} to mend: the service cannot read them (F6). Tell your administrator.";
    Sent: ROW, "전송 완료: 등록 {0}, 한도 초과 {1}, 보류 {2}, 수정 필요 {3}", "Sent: {0} recorded, {1} over the limit, {2} put aside, {3} to mend";

    // Today's list.
    TodaysSales: ROW, "오늘의 판매: {0}건", "Today's sales: {0}";
    NoSales: ROW, "아직 판매가 없습니다.", "No sales yet.";
    Time: LABEL, "시각", "Time";
    State: CELL, "상태", "State";
    StateSold: CELL, "등록", "recorded";
    StateVoiding: CELL, "취소 예정", "to be voided";
    StateVoided: CELL, "취소", "taken back";
    StateUnknown: CELL, "결과 미확인", "unknown";
    StateUnsettled: CELL, "물건 확인 필요", "not sold, goods?";
    StateNotSold: CELL, "판매 안 됨", "not sold";
    StateWaiting: CELL, "미전송", "to be sent";
    StateLate: CELL, "사후 등록", "entered late";
    StateOverQuota: CELL, "한도 초과 등록", "over the limit";
    StatePutAside: CELL, "보류", "put aside";
    StateToMend: CELL, "수정 필요", "to mend";

    // The form.
    Relation: CELL, "관계", "Relation";
    AgentBorn: CELL, "대리인 출생연도", "Agent born in";
    FormYear: ROW, "대리인의 출생연도 4자리를 입력하세요.", "Type the agent's year of birth, four digits.";
    FormPapers: ROW, "서류는 {0}개까지 고를 수 있습니다.", "No more than {0} papers can be chosen.";

    // Questions and remarks.
    VoidAsk: ROW, "{0} {1} {2}개 판매를 취소할까요? Enter 예, Esc 아니요", "Take back {0} {1}, {2}? Enter yes, Esc no";
    VoidNothing: ROW, "취소할 판매가 없습니다.", "There is no sale to take back.";
    VoidNotThis: ROW, "이 판매는 취소할 수 없습니다.", "This one cannot be taken back.";
    VoidAsked: ROW, "취소를 요청했습니다...", "Being taken back...";
    VoidRefused: ROW, "취소되지 않았습니다: {0}", "Not taken back: {0}";
    QuitAsk: ROW, "종료할까요? Enter 예, Esc 아니요", "Leave? Enter yes, Esc no";
    QuitAskAll: ROW, "미전송 {0}건, 미확인 {1}건이 남습니다. 종료할까요? Enter 예, Esc 아니요", "{0} to be sent, {1} unresolved are kept. Leave? Enter yes, Esc no";
    NotTaken: ROW, "응답을 기다리는 동안의 입력은 무시했습니다. 다시 스캔하세요.", "What was typed while waiting was not taken: scan again.";
    MayNotHandOver: ROW, "방침: 판매 중지. 건네지 말고 F7을 누르세요.", "Policy: stop selling. Do not hand over, and press F7.";
    SayFirst: ROW, "먼저 물건을 건넸는지 F8 또는 F7로 알려 주세요.", "First say whether the goods were handed over: F8 or F7.";
    SettleNotThis: ROW, "결과를 모르는 판매가 아닙니다.", "It is known what became of this one.";
    Entering: ROW, "건넸음으로 기록하고 있습니다...", "Being entered as handed over...";
    Entered: ROW, "건넸음으로 기록했습니다. 나중에 등록합니다.", "Noted: handed over. It is entered late.";
    EnteredBefore: ROW, "이미 등록된 판매입니다.", "It was recorded: nothing is left to enter.";
    EnteringStopped: ROW, "방침: 판매 중지. 응답 없이 건넨 판매는 등록할 수 없습니다.", "Not entered: the programme allows no sale without an answer.";
    NotEntered: ROW, "건넸음으로 기록하지 못했습니다. 다시 시도하세요.", "Not entered as handed over: try again.";
    QuantityZero: ROW, "수량은 1개 이상이어야 합니다.", "The quantity must be at least 1.";
    MoreThanLeft: ROW, "남은 수량({0}개)보다 많습니다.", "More than is left ({0}).";
    Noted: ROW, "건네지 않음으로 기록했습니다. 등록되었으면 취소합니다.", "Noted: not handed over. It is undone if it was recorded.";

    // Keys.
    KeysAlways: ROW, "F2/L English  F4/P 대리,서류  F5/V 직전 취소  F6/T 오늘 목록  F10/Q 종료", "F2/L 한국어  F4/P Proxy,papers  F5/V Void last  F6/T Today  F10/Q Quit";
    KeysTyping: ROW, "0-9 번호   Enter 조회   Backspace 한 자리 지움   Esc 모두 지움", "0-9 number   Enter look up   Backspace one digit   Esc all";
    KeysServing: ROW, "Enter 판매   0-9 +/- 수량   Esc 다음 손님", "Enter sell   0-9 +/- quantity   Esc next customer";
    KeysUnasked: ROW, "Enter 기록하고 판매   0-9 +/- 수량   Esc 다음 손님", "Enter sell and write down   0-9 +/- quantity   Esc next customer";
    KeysSoldHere: ROW, "F8/H 그래도 판매   0-9 +/- 수량   Esc 다음 손님", "F8/H sell all the same   0-9 +/- quantity   Esc next customer";
    KeysBack: ROW, "Enter 조회   Esc 다음 손님", "Enter look up   Esc next customer";
    KeysRefused: ROW, "0-9 다음 손님   - 수량 줄임   Esc 지움", "0-9 next customer   - ask for less   Esc clear";
    KeysSettled: ROW, "0-9 다음 손님   Esc 지움", "0-9 next customer   Esc clear";
    KeysUnknownStop: ROW, "Enter 다시 확인   F7/N 건네지 않음", "Enter ask again   F7/N not handed over";
    KeysUnknown: ROW, "Enter 다시 확인   F8/H 건넸음   F7/N 건네지 않음", "Enter ask again   F8/H handed over   F7/N not handed over";
    KeysNotSoldStop: ROW, "F7/N 건네지 않음", "F7/N not handed over";
    KeysNotSold: ROW, "F8/H 건넸음   F7/N 건네지 않음", "F8/H handed over   F7/N not handed over";
    KeysForm: ROW, "0-9 관계, 출생연도   A-Z 서류   위/아래 이동   Enter 다음   Esc 닫기", "0-9 relation, year   A-Z papers   Up/Down   Enter next   Esc close";
    KeysList: ROW, "위/아래   F5/V 취소   F8/H 건넸음   F7/N 안 건넴   0-9 다음   F6/T 닫기", "Up/Down   F5/V void   F8/H handed over   F7/N not   0-9 next   F6/T close";
    KeysWait: ROW, "기다려 주세요...", "Please wait...";
    TooSmall: CELL, "창 크기: 80x24", "Needs 80x24";
}

impl Text {
    /// What is said when it was to be entered that goods were handed over.
    pub(super) fn of_entering(answer: &Answer) -> Self {
        match answer {
            Answer::WrittenDown { .. } => Self::Entered,
            Answer::Sold { .. } => Self::EnteredBefore,
            Answer::Unknown { offline: Offline::Stop, .. } | Answer::NotSold { offline: Offline::Stop, .. } => {
                Self::EnteringStopped
            }
            _ => Self::NotEntered,
        }
    }
}

/// Puts what is said into a text.
pub(super) fn fill(text: &str, parts: &[&dyn Display]) -> String {
    let put = |text: String, (at, part): (usize, &&dyn Display)| text.replace(&format!("{{{at}}}"), &part.to_string());
    parts.iter().enumerate().fold(text.to_owned(), put)
}

/// The words of programmes that have a Korean name: relations and papers.
const WORDS: &[(&str, &str)] = &[
    ("same_household", "동거 가족"),
    ("family", "가족"),
    ("staff", "시설 직원"),
    ("anyone", "관계 무관"),
    ("id_card", "신분증"),
    ("driving_licence", "운전면허증"),
    ("passport", "여권"),
    ("student_card", "학생증"),
    ("youth_id", "청소년증"),
    ("resident_register", "주민등록등본"),
    ("family_relation_certificate", "가족관계증명서"),
    ("disability_card", "장애인등록증"),
    ("veteran_card", "국가유공자증"),
    ("long_term_care_certificate", "장기요양인정서"),
    ("pregnancy_certificate", "임신확인서"),
    ("admission_certificate", "입원확인서"),
    ("staff_certificate", "재직증명서"),
    ("consent_form", "동의서"),
    ("alien_registration_card", "외국인등록증"),
    ("alien_registration_certificate", "외국인등록사실증명"),
    ("permanent_residence_card", "영주증"),
    ("residence_report_card", "국내거소신고증"),
    ("health_insurance_card", "건강보험증"),
];

/// A word of a programme as it is said.
pub(super) fn spoken(word: &str, language: Language) -> Cow<'static, str> {
    let korean = WORDS.iter().find(|(name, _)| *name == word).map(|(_, korean)| *korean);
    match (language, korean) {
        (Language::Korean, Some(korean)) => korean.into(),
        _ => word.replace('_', " ").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    const BOTH: [Language; 2] = [Language::Korean, Language::English];

    #[test]
    fn every_text_fits_its_room_with_what_is_put_in() {
        for &(text, room) in Text::ALL {
            for language in BOTH {
                // Numbers of four digits, and a time.
                let said = fill(text.say(language), &[&"12:34", &"1234", &"12", &"12"]);
                let tight = !matches!(text, Text::VoidAsk | Text::SiteFull);
                assert!(!tight || said.width() <= usize::from(room), "{text:?} {language:?}: {} columns", said.width());
            }
        }
    }

    #[test]
    fn every_text_is_as_wide_on_every_terminal() {
        let words = WORDS.iter().map(|(_, korean)| *korean);
        let texts = Text::ALL.iter().flat_map(|(text, _)| BOTH.map(|language| text.say(language)));
        for text in texts.chain(words) {
            assert_eq!(text.width(), text.width_cjk(), "{text}");
            assert!(!text.is_empty());
        }
    }

    #[test]
    fn both_languages_say_the_same_parts() {
        for (text, _) in Text::ALL {
            for part in 0..4 {
                let has = |language| text.say(language).contains(&format!("{{{part}}}"));
                assert_eq!(has(Language::Korean), has(Language::English), "{text:?} {{{part}}}");
            }
        }
    }

    #[test]
    fn every_word_of_the_built_in_programmes_has_a_korean_name() {
        let programmes = [
            include_str!("../../policy/programmes/kr-public-mask-2020.toml"),
            include_str!("../../policy/programmes/weekly-essentials.toml"),
        ];
        let keys = ["relations", "papers", "other_papers", "cards", "insurance"];
        for programme in programmes {
            let value: toml::Table = programme.parse().unwrap();
            let mut words = Vec::new();
            collect(&toml::Value::Table(value), false, &keys, &mut words);
            assert!(words.len() > 3);
            for word in words {
                assert!(WORDS.iter().any(|(name, _)| *name == word), "{word}");
            }
        }
    }

    /// Every text under one of these keys.
    fn collect(value: &toml::Value, named: bool, keys: &[&str], words: &mut Vec<String>) {
        match value {
            toml::Value::String(text) if named => words.push(text.clone()),
            toml::Value::Array(all) => all.iter().for_each(|each| collect(each, named, keys, words)),
            toml::Value::Table(table) => {
                table.iter().for_each(|(key, each)| collect(each, keys.contains(&key.as_str()), keys, words));
            }
            _ => {}
        }
    }

    #[test]
    fn a_locale_names_a_language() {
        assert_eq!(["ko_KR.UTF-8", "ko", "KO-kr"].map(Language::of_locale), [Language::Korean; 3]);
        assert_eq!(["en_US.UTF-8", "C", "", "kok_IN"].map(Language::of_locale), [Language::English; 4]);
    }
}

//! Buyers that nobody has seen before, each with a resident number of the real form, and the sale that each asks for.

use std::sync::atomic::{AtomicU64, Ordering};

use rationd::grpc::v1::{Buyer, Line, PurchaseRequest, buyer};
use rationd::ids::RequestId;

/// The programme that everything is sold under: one weekly window, no day rule, so that every day of the year is the same.
pub const PROGRAMME: &str = "side-by-side";
/// Its short code.
pub const CODE: &str = "sb";
/// Its file.
pub const PROGRAMME_FILE: &str = r#"
id = "side-by-side"
code = "sb"
title = "What is sold in the benchmark"
unit = "unit"
zone = "Asia/Seoul"
buyer_id = "kr_resident"
check_digit_warning = true
max_hold_minutes = 60

[[periods]]
from = 2020-01-01
windows = [{ kind = "week", starts = "mon", units = 2 }]

[[channels]]
from = 2020-01-01
channel = "pharmacy"

[[channels]]
from = 2020-01-01
channel = "post_office"

[[channels]]
from = 2020-01-01
channel = "mart"
"#;

/// Weights of the check digit.
const WEIGHTS: [u64; 12] = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5];

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The sale of one unit to the next new buyer.
pub fn next_sale() -> PurchaseRequest {
    let number = resident_number(NEXT.fetch_add(1, Ordering::Relaxed));
    let line = Line {
        request_id: RequestId::random().to_string(),
        buyer: Some(Buyer { id: Some(buyer::Id::ResidentNumber(number)) }),
        quantity: 1,
        relation: String::new(),
        papers: Vec::new(),
    };
    PurchaseRequest {
        programme: PROGRAMME.into(),
        agent: None,
        lines: vec![line],
        family_birth_years: Vec::new(),
        ledger_id: String::new(),
    }
}

/// Another number for every `n` below four thousand million: men and women born from 1940 to 1999.
fn resident_number(n: u64) -> String {
    let (n, serial) = (n / 100_000, n % 100_000);
    let (n, sex) = (n / 2, 1 + n % 2);
    let (n, day) = (n / 28, 1 + n % 28);
    let (n, month) = (n / 12, 1 + n % 12);
    let year = 40 + n % 60;
    let digits = format!("{year:02}{month:02}{day:02}{sex}{serial:05}");
    let sum: u64 = digits.bytes().zip(WEIGHTS).map(|(digit, weight)| u64::from(digit - b'0') * weight).sum();
    let check = (11 - sum % 11) % 10;
    format!("{digits}{check}")
}

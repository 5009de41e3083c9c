//! Sheets of paper, typed in and imported by the command line, and the report of what became of them.

use std::time::Duration;

use super::service::{Ran, Service, rationd};
use super::shops::SATURDAY;

const SITE: &str = "11000001";

fn journal(service: &Service, arguments: &[&str], typed: &str) -> Ran {
    service.call(&[&["journal", arguments[0], "--site", SITE], &arguments[1..]].concat(), typed)
}

#[test]
fn sheets_are_imported_once_however_often_and_by_whomever() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    // Ten at the counter, of whom one has bought already when the paper is typed in.
    let sold = service.call(&["sell", "--site", SITE, "--number", "631120-2162511"], "");
    assert_eq!(sold.code, 0, "{sold:?}");
    let paper = "\
pad,line,sold_at,number,quantity
A-17,1,DAY 08:10,810305-1000112,1
A-17,2,DAY 08:12,631120-2162511,9
A-17,3,DAY 08:13,130704-307,1
A-17,4,DAYT08:14:00+09:00,000229-4120317,1
A-17,5,2001-01-01 08:15,020101-3000413,1
A-17,6,nine o'clock,020101-3000413,1
020101-3000413,7,DAY 08:16,A-17,1
";
    let day = &SATURDAY[..10];
    let file = directory.path().join("paper.csv");
    std::fs::write(&file, paper.replace("DAY", day)).unwrap();
    let file = file.to_str().unwrap();
    let tried = journal(&service, &["import", file, "--dry-run"], "");
    assert_eq!(tried.code, 2, "{tried:?}");
    assert!(tried.out.contains("5 lines can be uploaded, 2 cannot be read"), "{tried:?}");
    assert!(tried.err.contains("line 7: sold_at: must be an instant"), "{tried:?}");

    let ran = journal(&service, &["import", file], "");
    assert_eq!(ran.code, 2, "{ran:?}");
    for line in [
        "pad A-17 line 1: RECORDED",
        "pad A-17 line 2: OVER_QUOTA: beside 1 at ",
        "pad A-17 line 3: INVALID: sale.buyer.resident_number: the number must have 13 digits",
        "pad A-17 line 4: RECORDED",
        "pad A-17 line 5: QUARANTINED: ",
        "1 INVALID, 1 OVER_QUOTA, 1 QUARANTINED, 2 RECORDED, 2 UNREADABLE",
    ] {
        assert!(ran.out.contains(line), "{line} is not in {ran:?}");
    }
    for digits in ["810305", "631120", "130704", "000229", "020101"] {
        assert!(!ran.out.contains(digits) && !ran.err.contains(digits), "no number is shown: {ran:?}");
    }
    let again = journal(&service, &["import", file, "--json"], "");
    assert!(again.out.contains(r#""ALREADY_RECORDED":3"#), "{again:?}");

    // Another clerk types the pad in, misreads one number, and mends a line that could not be read.
    let typed = "1\n08:10\n810305-1000112\n1\n2\n08:12\n400101-2480219\n9\n3\n08:13\n130704-3070126\n1\n.\n";
    let entered = journal(&service, &["enter", "--pad", "a-17", "--date", day], typed);
    assert_eq!(entered.code, 1, "{entered:?}");
    for line in
        ["line 1: ALREADY_RECORDED", "line 2: QUARANTINED: the same id stands for another sale", "line 3: RECORDED"]
    {
        assert!(entered.out.contains(line), "{line} is not in {entered:?}");
    }

    let report = journal(&service, &["report", "--date", day], "");
    assert_eq!(report.code, 1, "{report:?}");
    for words in [
        "1 OVER_QUOTA (9 units), 1 QUARANTINED (9 units), 3 RECORDED (3 units)",
        "2 need somebody",
        "ENTERED_DIFFERENTLY",
    ] {
        assert!(report.out.contains(words), "{words} is not in {report:?}");
    }
    println!("{}", report.out);
    let table = journal(&service, &["report", "--format", "csv"], "");
    assert_eq!(table.out.lines().count(), 1 + 6, "{table:?}");
    assert!(table.out.starts_with("sold_at,request_id,quantity,verdict,reason,received_at,conflicts"), "{table:?}");
    let nothing = journal(&service, &["report", "--date", "2001-01-02"], "");
    assert_eq!((nothing.code, nothing.out.trim()), (0, "nothing was uploaded"), "{nothing:?}");
    let wrong = journal(&service, &["report", "--date", "yesterday"], "");
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.err.contains("date: must be a day such as"), "{wrong:?}");
    service.stop();
}

#[test]
fn sheets_wait_for_a_service_that_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let (address, file) = (service.address.clone(), directory.path().join("paper.csv"));
    let listen = address.trim_start_matches("http://").to_owned();
    let line = format!("A-17,1,{} 08:10,810305-1000112,1\n", &SATURDAY[..10]);
    std::fs::write(&file, format!("pad,line,sold_at,number,quantity\n{line}")).unwrap();
    service.stop();
    let import = |within| {
        let arguments = ["journal", "import", "--site", SITE, "--address", &address, "--within", within];
        rationd(directory.path(), &[&arguments[..], &[file.to_str().unwrap()]].concat(), "")
    };
    let given_up = import("0");
    assert!(given_up.code == 3 && given_up.err.contains("UNREACHABLE"), "{given_up:?}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| import("60"));
        // It finds nobody at first.
        std::thread::sleep(Duration::from_millis(500));
        let service = Service::start(directory.path(), &["--clock", SATURDAY, "--listen", &listen], &[]);
        let imported = waiting.join().unwrap();
        assert!(imported.code == 0 && imported.out.contains("1 RECORDED"), "{imported:?}");
        assert!(imported.err.contains("waiting for 60 s at the most"), "{imported:?}");
        service.stop();
    });
}

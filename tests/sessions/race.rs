//! Many instances at one door: several processes, each with several pools, open and close sessions at a few sites, and no
//! site ever has more live seats than its cap.

use std::process::{Command, Stdio};

use rationd::session::{Door, Opened};

use super::stands::{LEASE, Plainly, redis_command, redis_door, site, terminal};
use super::support::redis::RedisServer;

const PROCESSES: usize = 3;
const CLIENTS: usize = 4;
const ROUNDS: usize = 400;
const SITES: usize = 2;
const CAP: u16 = 2;
/// Says to the test that it is one of the racing processes, and which: `NUMBER URL`.
const RACER: &str = "RATIOND_TEST_RACER";

#[test]
fn the_cap_holds_when_many_processes_race() {
    if let Ok(racer) = std::env::var(RACER) {
        let (number, url) = racer.split_once(' ').expect("NUMBER URL");
        tokio::runtime::Runtime::new().unwrap().block_on(race(number.to_owned(), url.to_owned()));
        return;
    }
    let server = RedisServer::start();
    let racers: Vec<_> = (0..PROCESSES)
        .map(|number| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "race::the_cap_holds_when_many_processes_race", "--nocapture"])
                .env(RACER, format!("{number} {}", server.url()))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for racer in racers {
        let output = racer.wait_with_output().unwrap();
        assert!(output.status.success(), "a racer failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let count = |value| redis::from_redis_value::<i64>(value).expect("a number");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (grants, full) = runtime.block_on(async {
        let url = server.url();
        assert_eq!(redis_command(&url, &["ZCARD", "{door}:renewed"]).await, redis::Value::Int(0), "all are closed");
        (
            count(redis_command(&url, &["SCARD", "test:grants"]).await),
            count(redis_command(&url, &["GET", "test:full"]).await),
        )
    });
    println!("{PROCESSES} processes of {CLIENTS} clients: {grants} grants, {full} times full, never above {CAP}");
    assert_eq!(grants + full, i64::try_from(PROCESSES * CLIENTS * ROUNDS).unwrap());
    assert!(grants > 100 && full > 100, "there was a race");
}

async fn race(process: String, url: String) {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let who = terminal(&format!("p{process}-c{client}"));
        let url = url.clone();
        clients.spawn(async move {
            let door = redis_door(&url, LEASE);
            let mut connection =
                redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.expect("Redis answers");
            for round in 0..ROUNDS {
                let at = format!("s{}", round % SITES);
                let seat = match door.enter(site(&at), who, CAP).await.expect("the door answers") {
                    Opened::Granted { seat, .. } => seat,
                    Opened::SiteFull { .. } => {
                        let _: () = redis::cmd("INCR").arg("test:full").query_async(&mut connection).await.unwrap();
                        continue;
                    }
                    other => panic!("{other:?}"),
                };
                let (new, line): (u8, String) = redis::pipe()
                    .sadd("test:grants", format!("{at} {}", seat.fence))
                    .hget("{door}:sites", &at)
                    .query_async(&mut connection)
                    .await
                    .unwrap();
                assert_eq!(new, 1, "fence {} of {at} was given out twice", seat.fence);
                let live = line.matches(';').count();
                assert!(live <= usize::from(CAP), "{live} live seats at a site with a cap of {CAP}: {line}");
                assert!(door.close(seat).await.unwrap(), "nobody else may end {seat:?}");
            }
        });
    }
    clients.join_all().await;
}

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::NAPTR;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::time::timeout;

use super::*;
use crate::discover::Owner;
use crate::discover::test_server::{Reply, TestServer, address, fqdn};
use crate::discover::{Bounds, Family, Filter, Memory, Transport, Upstream};

fn settings(addr: SocketAddr) -> Settings {
    Settings {
        upstreams: vec![Upstream::Udp(addr)],
        mark: None,
        routes: Vec::new(),
        ca_file: None,
        timeout: Duration::from_millis(500),
        refresh_min: Duration::from_secs(60),
        refresh_max: Duration::from_secs(3600),
        absent_max: Duration::from_secs(24 * 3600),
        queries_per_second: 500,
        concurrency: 4,
    }
}

fn targets(names: &[&str]) -> Vec<Target> {
    let target = |name: &&str| Target {
        name: (*name).into(),
        owners: Arc::default(),
    };
    names.iter().map(target).collect()
}

async fn next(updates: &mut mpsc::Receiver<Update>) -> Update {
    let update = timeout(Duration::from_secs(5), updates.recv()).await;
    update
        .expect("an update within 5 s")
        .expect("a running loop")
}

/// The next `count` updates, as text, sorted.
async fn collect(updates: &mut mpsc::Receiver<Update>, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let update = next(updates).await;
        let family = update.family.as_str();
        texts.push(format!(
            "{} {family} {}",
            update.name,
            update.outcome.as_str()
        ));
    }
    texts.sort();
    texts
}

async fn quiet(updates: &mut mpsc::Receiver<Update>) {
    let update = timeout(Duration::from_millis(100), updates.recv()).await;
    assert!(update.is_err(), "{update:?}");
}

#[tokio::test]
async fn every_name_is_asked_for_both_families() {
    let server = TestServer::start().await;
    server.addresses("a.example", &["8.0.0.1"], 60);
    server.addresses("a.example", &["2a02::1"], 60);
    server.addresses("b.example", &["8.0.0.2"], 60);
    let names = targets(&["a.example", "b.example", "c.example"]);
    let (refresher, mut updates) = Refresher::spawn(settings(server.addr), names.clone()).unwrap();
    let expected = [
        "a.example ipv4 addresses",
        "a.example ipv6 addresses",
        "b.example ipv4 addresses",
        "b.example ipv6 no_data",
        "c.example ipv4 nx_domain",
        "c.example ipv6 nx_domain",
    ];
    assert_eq!(collect(&mut updates, 6).await, expected);
    quiet(&mut updates).await;
    assert_eq!(refresher.stats().names(), 3);
    assert_eq!(refresher.stats().in_flight(), 0);
    // A name that does not exist is not asked for AAAA.
    assert_eq!(refresher.stats().queries(Transport::Udp), 5);
    assert_eq!(
        (refresher.stats().unasked(), refresher.stats().backlog()),
        (0, 0)
    );

    refresher.command(Command::RefreshNow);
    assert_eq!(collect(&mut updates, 6).await, expected);
}

#[tokio::test]
async fn replacing_names_asks_for_the_new_ones_only() {
    let server = TestServer::start().await;
    server.addresses("a.example", &["8.0.0.1"], 60);
    server.addresses("b.example", &["8.0.0.2"], 60);
    let names = targets(&["a.example"]);
    let (refresher, mut updates) = Refresher::spawn(settings(server.addr), names.clone()).unwrap();
    collect(&mut updates, 2).await;
    refresher.command(Command::Replace(
        targets(&["a.example", "b.example"]).into(),
    ));
    let expected = ["b.example ipv4 addresses", "b.example ipv6 no_data"];
    assert_eq!(collect(&mut updates, 2).await, expected);
    quiet(&mut updates).await;
}

#[tokio::test]
async fn names_are_refreshed_by_ttl() {
    let server = TestServer::start().await;
    server.addresses("a.example", &["8.0.0.1"], 0);
    let mut settings = settings(server.addr);
    settings.refresh_min = Duration::from_millis(100);
    let (_refresher, mut updates) = Refresher::spawn(settings, targets(&["a.example"])).unwrap();
    collect(&mut updates, 2).await;
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(next(&mut updates).await.family, Family::V4);
    }
    assert!(start.elapsed() >= Duration::from_millis(3 * 90));
}

#[tokio::test]
async fn other_settings_take_effect_at_once() {
    let (old, new) = (TestServer::start().await, TestServer::start().await);
    old.reply(
        "a.example",
        RecordType::A,
        Reply::Code(ResponseCode::ServFail),
    );
    new.addresses("a.example", &["8.0.0.1"], 60);
    let names = targets(&["a.example"]);
    let (refresher, mut updates) = Refresher::spawn(settings(old.addr), names).unwrap();
    let expected = ["a.example ipv4 servfail", "a.example ipv6 no_data"];
    assert_eq!(collect(&mut updates, 2).await, expected);
    refresher.command(Command::Configure(settings(new.addr)));
    refresher.command(Command::RefreshNow);
    let expected = ["a.example ipv4 addresses", "a.example ipv6 no_data"];
    assert_eq!(collect(&mut updates, 2).await, expected);
    assert_eq!(old.seen().len(), 2);
}

/// What the holder of the memory sees when DNS goes away and comes back.
#[tokio::test]
async fn the_last_known_good_outlives_dns() {
    let server = TestServer::start().await;
    server.addresses("a.example", &["8.0.0.1"], 60);
    let mut settings = settings(server.addr);
    settings.timeout = Duration::from_millis(200);
    let names = [Target {
        name: "a.example".into(),
        owners: Arc::new(BTreeSet::from([Owner {
            plmn: "262-01".parse().ok(),
            country: None,
        }])),
    }];
    let filter = Filter::default();
    let mut memory = Memory::new(Duration::ZERO, Bounds::default());
    memory.set_targets(&names);
    let (refresher, mut updates) = Refresher::spawn(settings, names.to_vec()).unwrap();
    let mut round = async |memory: &mut Memory| {
        for _ in 0..2 {
            let update = next(&mut updates).await;
            memory.apply(&update, &filter);
            memory.expire(update.at);
        }
        let (_, state) = memory.names().next().unwrap();
        let known: Vec<_> = memory
            .known(&filter)
            .map(|k| k.address.to_string())
            .collect();
        (known, state.asked(Family::V4).clone())
    };
    let (known, asked) = round(&mut memory).await;
    assert_eq!((known, asked.failures), (vec!["8.0.0.1".to_owned()], 0));
    let answered = asked.last_success;

    server.reply("a.example", RecordType::A, Reply::Silence);
    for failures in 1..3 {
        refresher.command(Command::RefreshNow);
        let (known, asked) = round(&mut memory).await;
        assert_eq!(
            (known, asked.failures),
            (vec!["8.0.0.1".to_owned()], failures)
        );
        assert_eq!(
            (asked.result, asked.last_success),
            (Some("timeout"), answered)
        );
    }

    server.addresses("a.example", &["8.0.0.2"], 60);
    refresher.command(Command::RefreshNow);
    let (known, asked) = round(&mut memory).await;
    // Nothing is kept here, so the old address yields to the new one.
    assert_eq!((known, asked.failures), (vec!["8.0.0.2".to_owned()], 0));
    assert!(asked.last_success > answered);
}

#[tokio::test]
async fn no_more_than_so_many_at_a_time() {
    let server = TestServer::start().await;
    let names: Vec<String> = (0..6).map(|n| format!("n{n}.example")).collect();
    for name in &names {
        let records = vec![address(name, "8.0.0.1", 60)];
        let reply = Reply::After(Duration::from_millis(100), records);
        server.reply(name, RecordType::A, reply.clone());
        server.reply(name, RecordType::AAAA, reply);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (refresher, mut updates) =
        Refresher::spawn(settings(server.addr), targets(&names)).unwrap();
    let start = Instant::now();
    for _ in 0..12 {
        next(&mut updates).await;
        assert!(refresher.stats().in_flight() <= 4);
    }
    // 12 questions, 4 at a time, 100 ms each.
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn it_ends_with_its_handle_or_its_reader() {
    let server = TestServer::start().await;
    let names = targets(&["a.example"]);
    let (refresher, mut updates) = Refresher::spawn(settings(server.addr), names.clone()).unwrap();
    collect(&mut updates, 2).await;
    drop(refresher);
    assert!(
        timeout(Duration::from_secs(5), updates.recv())
            .await
            .unwrap()
            .is_none()
    );

    let (refresher, updates) = Refresher::spawn(settings(server.addr), names.clone()).unwrap();
    drop(updates);
    let ended = async {
        while !refresher.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), ended).await.unwrap();
    refresher.command(Command::RefreshNow);
}

/// Names that are found where a visited country's name has them, and the root, which is none.
#[tokio::test]
async fn naptr_tells_names() {
    const VISITED: &str = "epdg.epc.mcc262.visited-country.pub.3gppnetwork.org";
    let server = TestServer::start().await;
    let record = |replacement: Name| {
        let empty = || Vec::new().into_boxed_slice();
        let naptr = NAPTR::new(
            10,
            10,
            empty(),
            b"x-3gpp-epdg".as_slice().into(),
            empty(),
            replacement,
        );
        Record::from_rdata(fqdn(VISITED), 300, RData::NAPTR(naptr))
    };
    let records = vec![
        record(fqdn("ePDG.epc.mnc001.mcc262.pub.3gppnetwork.org")),
        record(Name::root()),
        record(fqdn("evil.example")),
    ];
    server.reply(VISITED, RecordType::NAPTR, Reply::Records(records));
    let names = Names::new(
        &targets(&["a.example"]),
        |_| Rank::Configured,
        [(&VISITED.into(), BTreeSet::new())],
        &[],
    );
    let (mut refresher, mut updates) = Refresher::spawn(settings(server.addr), names).unwrap();
    let mut found = refresher.take_found().unwrap();
    assert!(refresher.take_found().is_none());
    let found = timeout(Duration::from_secs(5), found.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&*found.at, VISITED);
    let names = ["epdg.epc.mnc001.mcc262.pub.3gppnetwork.org", "evil.example"];
    assert_eq!(found.names, names);
    // The others get their answers as always.
    collect(&mut updates, 2).await;
    let naptr = refresher
        .stats()
        .questions()
        .find(|(kind, result, _)| (*kind, *result) == (Kind::Naptr, "names"));
    assert_eq!(naptr.unwrap().2, 1);
}

/// While no server answers, next to nothing is sent; when one does, everything is asked for.
#[tokio::test]
async fn an_outage_costs_little_and_ends_at_once() {
    let server = TestServer::start().await;
    let names: Vec<String> = (0..40).map(|n| format!("n{n}.example")).collect();
    for name in &names {
        for kind in [RecordType::A, RecordType::AAAA] {
            server.reply(name, kind, Reply::Silence);
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut settings = settings(server.addr);
    settings.timeout = Duration::from_millis(50);
    let rank = |target: &Target| match &*target.name {
        "n0.example" => Rank::Known,
        _ => Rank::Configured,
    };
    let wanted = Names::new(&targets(&names), rank, [], &[]);
    let (refresher, mut updates) = Refresher::spawn(settings, wanted).unwrap();
    // The one that may be in use is seen to fail.
    let failed = timeout(Duration::from_secs(5), async {
        loop {
            let update = next(&mut updates).await;
            if &*update.name == "n0.example" {
                break update.outcome.as_str();
            }
        }
    });
    assert_eq!(failed.await.unwrap(), "timeout");
    tokio::time::sleep(Duration::from_millis(700)).await;
    let sent = server.seen().len();
    assert!(sent <= 16, "{sent} queries into the void");
    assert!(refresher.stats().backlog() > 20, "the others wait");

    for name in &names {
        server.addresses(name, &["8.0.0.1"], 60);
        server.reply(name, RecordType::AAAA, Reply::Records(Vec::new()));
    }
    let mut left: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let back = timeout(Duration::from_secs(10), async {
        while !left.is_empty() {
            let update = next(&mut updates).await;
            if update.outcome.as_str() == "addresses" {
                left.remove(&*update.name);
            }
        }
    });
    back.await.unwrap();
    assert_eq!(refresher.stats().recoveries(), 1);
}

/// A country's own name is asked for where its operators' names are.
#[test]
fn visited_countries_are_asked_by_their_route() {
    let country = |code: &str| Owner {
        plmn: None,
        country: code.parse().ok(),
    };
    let route = |code: &str| Route {
        operators: Vec::new(),
        countries: vec![code.parse().unwrap()],
        upstreams: vec![Upstream::System],
        mark: None,
    };
    let (here, there): (Arc<str>, Arc<str>) = ("here.example".into(), "there.example".into());
    let visited = [
        (&here, [country("DE")].into()),
        (&there, [country("AT"), country("AU")].into()),
    ];
    let routes = [route("NZ"), route("AU")];
    let Names(wanted) = Names::new([], |_| Rank::Configured, visited, &routes);
    let routes: Vec<_> = wanted.iter().map(|w| (&*w.name, w.route)).collect();
    assert_eq!(routes, [("here.example", 0), ("there.example", 2)]);
}

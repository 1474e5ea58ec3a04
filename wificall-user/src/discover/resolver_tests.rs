use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_server::net::xfer::Protocol;
use tokio::net::UdpSocket;

use super::*;
use crate::discover::test_server::{
    Authority, Liar, Reply, Sent, TestServer, address, cname, fqdn,
};
use crate::discover::{Family, Lie, Route, Transport};

/// Long enough for a busy machine, short enough to be waited for.
const TIMEOUT: Duration = Duration::from_millis(300);

fn settings(upstreams: Vec<Upstream>) -> Settings {
    Settings {
        upstreams,
        mark: None,
        routes: Vec::new(),
        ca_file: None,
        timeout: TIMEOUT,
        refresh_min: Duration::from_secs(60),
        refresh_max: Duration::from_secs(3600),
        absent_max: Duration::from_secs(24 * 3600),
        queries_per_second: 1000,
        concurrency: 8,
    }
}

fn udp(addr: SocketAddr) -> Upstream {
    Upstream::Udp(addr)
}

fn resolver(upstreams: Vec<Upstream>) -> Resolver {
    Resolver::new(&settings(upstreams), Arc::default()).unwrap()
}

fn found(addresses: &[&str], ttl: u64) -> Outcome {
    Outcome::Addresses {
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ttl: Duration::from_secs(ttl),
    }
}

fn kind(outcome: &Outcome) -> FailureKind {
    match outcome {
        Outcome::Failed(failure) => failure.kind,
        other => panic!("{other:?}"),
    }
}

/// A socket that takes queries and never answers.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// How many datagrams wait at a socket.
fn received(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 512];
    std::iter::from_fn(|| socket.try_recv(&mut buffer).ok()).count()
}

#[tokio::test]
async fn addresses_of_both_families() {
    let server = TestServer::start().await;
    server.reply(
        "epdg.example",
        RecordType::A,
        Reply::Records(vec![
            address("epdg.example", "8.0.0.1", 300),
            address("epdg.example", "8.0.0.2", 60),
            address("epdg.example", "8.0.0.1", 300),
        ]),
    );
    server.addresses("epdg.example", &["2a02::1"], 30);
    let resolver = resolver(vec![udp(server.addr)]);
    let v4 = resolver.lookup("epdg.example", Family::V4).await;
    assert_eq!(v4, found(&["8.0.0.1", "8.0.0.2"], 60));
    let v6 = resolver.lookup("EPDG.example.", Family::V6).await;
    assert_eq!(v6, found(&["2a02::1"], 30));
    // Nothing is cached here.
    resolver.lookup("epdg.example", Family::V6).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|s| s.edns && s.protocol == Protocol::Udp));
    assert_eq!(resolver.stats.queries(Transport::Udp), 3);
    let counted = resolver
        .stats
        .questions()
        .filter(|(_, _, count)| *count > 0);
    let (v4, v6) = (Family::V4.into(), Family::V6.into());
    let expected = [(v4, "addresses", 1), (v6, "addresses", 2)];
    assert!(counted.eq(expected));
}

#[tokio::test]
async fn absence_is_no_failure() {
    let server = TestServer::start().await;
    server.addresses("v4.example", &["8.0.0.1"], 60);
    let resolver = resolver(vec![udp(server.addr)]);
    assert_eq!(
        resolver.lookup("v4.example", Family::V6).await,
        Outcome::NoData
    );
    assert_eq!(
        resolver.lookup("none.example", Family::V4).await,
        Outcome::NxDomain
    );
    // No search domain was tried.
    assert_eq!(resolver.lookup("none", Family::V4).await, Outcome::NxDomain);
    let names: Vec<_> = server.seen().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["v4.example.", "none.example.", "none."]);
}

#[tokio::test]
async fn refusals_are_told_apart_and_not_repeated() {
    let server = TestServer::start().await;
    let resolver = resolver(vec![udp(server.addr)]);
    for (name, code, expected) in [
        ("a.example", ResponseCode::ServFail, FailureKind::ServFail),
        ("b.example", ResponseCode::Refused, FailureKind::Refused),
        ("c.example", ResponseCode::NotImp, FailureKind::Other),
    ] {
        server.reply(name, RecordType::A, Reply::Code(code));
        let outcome = resolver.lookup(name, Family::V4).await;
        assert_eq!(kind(&outcome), expected);
        let Outcome::Failed(failure) = outcome else {
            unreachable!()
        };
        assert!(
            failure.detail.starts_with(&server.addr.to_string()),
            "{failure}"
        );
    }
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_again_over_tcp() {
    let server = TestServer::start().await;
    let many: Vec<String> = (0..250)
        .map(|n| format!("8.0.{}.{}", n / 200, n % 200))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    server.addresses("big.example", &many, 60);
    let resolver = resolver(vec![udp(server.addr)]);
    assert_eq!(
        resolver.lookup("big.example", Family::V4).await,
        found(&many, 60)
    );
    let protocols: Vec<_> = server.seen().into_iter().map(|s| s.protocol).collect();
    assert_eq!(protocols, [Protocol::Udp, Protocol::Tcp]);
    assert_eq!(resolver.stats.queries(Transport::Tcp), 1);
}

#[tokio::test]
async fn tcp_alone_if_so_configured() {
    let server = TestServer::start().await;
    server.addresses("epdg.example", &["8.0.0.1"], 60);
    let resolver = resolver(vec![Upstream::Tcp(server.addr)]);
    for _ in 0..2 {
        let outcome = resolver.lookup("epdg.example", Family::V4).await;
        assert_eq!(outcome, found(&["8.0.0.1"], 60));
    }
    assert!(server.seen().iter().all(|s| s.protocol == Protocol::Tcp));
    assert_eq!(resolver.stats.queries(Transport::Udp), 0);
}

#[tokio::test]
async fn silence_is_a_timeout_after_a_second_try() {
    let (socket, addr) = silent().await;
    let resolver = resolver(vec![udp(addr)]);
    let start = Instant::now();
    let outcome = resolver.lookup("epdg.example", Family::V4).await;
    assert_eq!(kind(&outcome), FailureKind::Timeout);
    assert!(start.elapsed() >= TIMEOUT * 2);
    assert_eq!(received(&socket), 2);
    assert_eq!(resolver.stats.queries(Transport::Udp), 2);
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    // Bound and not listening: connections to it are refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    let resolver = resolver(vec![Upstream::Tcp(addr)]);
    let outcome = resolver.lookup("epdg.example", Family::V4).await;
    assert_eq!(kind(&outcome), FailureKind::Unreachable);
}

#[tokio::test]
async fn the_next_server_is_asked_and_remembered() {
    let (socket, dead) = silent().await;
    let server = TestServer::start().await;
    let lame = TestServer::start().await;
    for name in ["a.example", "b.example"] {
        server.addresses(name, &["8.0.0.1"], 60);
        lame.reply(name, RecordType::A, Reply::Code(ResponseCode::ServFail));
    }
    let resolver = resolver(vec![udp(dead), udp(lame.addr), udp(server.addr)]);
    for name in ["a.example", "b.example"] {
        let outcome = resolver.lookup(name, Family::V4).await;
        assert_eq!(outcome, found(&["8.0.0.1"], 60));
    }
    assert_eq!(received(&socket), 1);
    assert_eq!(lame.seen().len(), 1);
    // It does not know this one; the others are asked, and all say their reason.
    server.reply(
        "c.example",
        RecordType::A,
        Reply::Code(ResponseCode::Refused),
    );
    lame.reply(
        "c.example",
        RecordType::A,
        Reply::Code(ResponseCode::ServFail),
    );
    let Outcome::Failed(failure) = resolver.lookup("c.example", Family::V4).await else {
        panic!("answered");
    };
    for addr in [dead, lame.addr, server.addr] {
        assert!(failure.detail.contains(&addr.to_string()), "{failure}");
    }
}

#[tokio::test]
async fn cnames_are_followed_within_an_answer() {
    let server = TestServer::start().await;
    server.reply(
        "epdg.example",
        RecordType::A,
        Reply::Records(vec![
            cname("epdg.example", "gw.example", 500),
            cname("gw.example", "gw1.cdn.example", 20),
            address("gw1.cdn.example", "8.0.0.1", 400),
        ]),
    );
    let resolver = resolver(vec![udp(server.addr)]);
    let outcome = resolver.lookup("epdg.example", Family::V4).await;
    assert_eq!(outcome, found(&["8.0.0.1"], 20));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn cnames_are_followed_across_answers() {
    let server = TestServer::start().await;
    for (name, target, ttl) in [
        ("a.example", "b.example", 40),
        ("b.example", "c.example", 50),
    ] {
        let records = vec![cname(name, target, ttl)];
        server.reply(name, RecordType::A, Reply::Records(records));
    }
    server.addresses("c.example", &["8.0.0.1"], 60);
    let resolver = resolver(vec![udp(server.addr)]);
    let outcome = resolver.lookup("a.example", Family::V4).await;
    assert_eq!(outcome, found(&["8.0.0.1"], 40));
    let queries = server.seen().len() as u64;
    assert!(queries >= 3);
    assert_eq!(resolver.stats.queries(Transport::Udp), queries);
}

#[tokio::test]
async fn names_that_are_none_and_no_resolver_fail() {
    let resolver = resolver(vec![]);
    let outcome = resolver.lookup(&"a".repeat(64), Family::V4).await;
    assert_eq!(kind(&outcome), FailureKind::Other);
    let outcome = resolver.lookup("epdg.example", Family::V4).await;
    assert_eq!(kind(&outcome), FailureKind::Unreachable);
}

/// Every query that arrives counts, also those that hickory sends by itself.
#[tokio::test]
async fn the_rate_is_kept_on_the_wire() {
    const RATE: u32 = 100;
    let server = TestServer::start().await;
    for n in 0..20 {
        let (name, target) = (format!("n{n}.example"), format!("t{n}.example"));
        let records = vec![cname(&name, &target, 60)];
        server.reply(&name, RecordType::A, Reply::Records(records));
        server.addresses(&target, &["8.0.0.1"], 60);
    }
    let mut settings = settings(vec![udp(server.addr)]);
    settings.queries_per_second = RATE;
    // Waiting for slots is no part of it.
    settings.timeout = Duration::from_millis(100);
    let resolver = Resolver::new(&settings, Arc::default()).unwrap();
    let names: Vec<_> = (0..20).map(|n| format!("n{n}.example")).collect();
    let lookups = names.iter().map(|name| resolver.lookup(name, Family::V4));
    let outcomes = futures_util::future::join_all(lookups).await;
    assert!(
        outcomes.iter().all(|o| *o == found(&["8.0.0.1"], 60)),
        "{outcomes:?}"
    );

    let seen = server.seen();
    assert_eq!(seen.len(), 40);
    let interval = Duration::from_secs(1) / RATE;
    let spread = seen[39].at - seen[0].at;
    // They leave 10 ms apart; the last may be taken in early by a little and not by much.
    assert!(spread >= interval * 38, "{spread:?} for 40 queries");
    for window in seen.windows(11) {
        let spread = window[10].at - window[0].at;
        assert!(spread >= interval * 8, "11 queries within {spread:?}");
    }
}

#[tokio::test]
async fn resolv_conf_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let connect = resolver(vec![]).routes[0].connect.clone();
    let mut system = SystemServers::new(&path);
    let mut servers = |text: &str| {
        fs::write(&path, text).unwrap();
        system.update(&connect).unwrap();
        system.servers.clone()
    };
    let first = servers("nameserver 192.0.2.1\n");
    assert_eq!(first[0].upstream.to_string(), "192.0.2.1:53");
    // Unchanged: the same connections.
    let again = servers("nameserver 192.0.2.1\n");
    assert!(Arc::ptr_eq(&first[0], &again[0]));
    let other = servers("nameserver 192.0.2.2\n");
    assert_eq!(other[0].upstream.to_string(), "192.0.2.2:53");
    fs::remove_file(&path).unwrap();
    system.update(&connect).unwrap();
    assert_eq!(system.servers[0].upstream.to_string(), "127.0.0.1:53");
}

/// A server that lies, and what it gains: which lie is counted, and what comes of the question.
#[tokio::test]
async fn lies_are_told_apart_and_gain_nothing() {
    fn truth(query: &Message) -> Message {
        let mut answer = query.clone();
        answer.metadata.message_type = MessageType::Response;
        let name = query.queries[0].name().clone();
        let data = RData::A(Ipv4Addr::new(8, 0, 0, 1).into());
        answer.add_answer(Record::from_rdata(name, 60, data));
        answer
    }
    fn lie(query: &Message, change: impl FnOnce(&mut Message)) -> Sent {
        let mut answer = truth(query);
        answer.answers[0].data = RData::A(Ipv4Addr::new(6, 6, 6, 6).into());
        change(&mut answer);
        (answer.to_vec().unwrap(), false)
    }
    fn then_truth(query: &Message, lie: Sent) -> Vec<Sent> {
        vec![lie, (truth(query).to_vec().unwrap(), false)]
    }
    fn elsewhere(name: &str) -> Record {
        Record::from_rdata(fqdn(name), 60, RData::A(Ipv4Addr::new(6, 6, 6, 6).into()))
    }
    struct Case {
        lie: Lie,
        answers: fn(&Message) -> Vec<Sent>,
        tcp: bool,
        /// `addresses`: the true one alone.
        result: &'static str,
        counted: u64,
    }
    let case = |lie, answers, result| Case {
        lie,
        answers,
        tcp: false,
        result,
        counted: 1,
    };
    for case in [
        // Somebody else guesses identifier and port.
        case(
            Lie::Source,
            |query| then_truth(query, (lie(query, |_| {}).0, true)),
            "addresses",
        ),
        case(
            Lie::Id,
            |query| then_truth(query, lie(query, |a| a.metadata.id ^= 1)),
            "addresses",
        ),
        case(
            Lie::Question,
            |query| {
                let another = lie(query, |a| {
                    a.queries[0].name = fqdn("other.example");
                    a.answers[0].name = fqdn("other.example");
                });
                then_truth(query, another)
            },
            "addresses",
        ),
        Case {
            tcp: true,
            ..case(
                Lie::Question,
                |query| vec![lie(query, |a| a.queries[0].name = fqdn("other.example"))],
                "other",
            )
        },
        case(
            Lie::Class,
            |query| vec![lie(query, |a| a.answers[0].dns_class = DNSClass::CH)],
            "bogus",
        ),
        case(
            Lie::ForeignName,
            |query| {
                let mut answer = truth(query);
                answer.add_answer(elsewhere("victim.example"));
                vec![(answer.to_vec().unwrap(), false)]
            },
            "addresses",
        ),
        // Addresses at the end of CNAMEs of somebody else.
        case(
            Lie::ForeignName,
            |query| {
                let mut answer = truth(query);
                answer.add_answer(cname("victim.example", "evil.example", 60));
                answer.add_answer(elsewhere("evil.example"));
                vec![(answer.to_vec().unwrap(), false)]
            },
            "addresses",
        ),
        case(
            Lie::CnameLoop,
            |query| {
                let asked = query.queries[0].name().to_string();
                let other = if asked.starts_with("epdg") {
                    "b.example"
                } else {
                    "epdg.example"
                };
                let alias = cname(asked.trim_end_matches('.'), other, 60);
                vec![lie(query, |a| a.answers = vec![alias])]
            },
            "bogus",
        ),
        case(
            Lie::CnameLoop,
            |query| {
                let alias = cname("epdg.example", "epdg.example", 60);
                vec![lie(query, |a| a.answers = vec![alias])]
            },
            "bogus",
        ),
        // One alias an answer, for ever.
        case(
            Lie::CnameChain,
            |query| {
                let asked = query.queries[0].name().to_string();
                let asked = asked.trim_end_matches('.');
                let alias = cname(asked, &format!("x{asked}"), 60);
                vec![lie(query, |a| a.answers = vec![alias])]
            },
            "bogus",
        ),
        // As many as fit into a message: 4,000 over TCP. Said once, counted, and no more are
        // taken than a name can have.
        Case {
            tcp: true,
            counted: 4000 - 256,
            ..case(
                Lie::TooMany,
                |query| {
                    let mut answer = truth(query);
                    (answer.answers, answer.edns) = (Vec::new(), None);
                    let mut bytes = answer.to_vec().unwrap();
                    bytes[6..8].copy_from_slice(&4000_u16.to_be_bytes());
                    for n in 0..4000_u32 {
                        // The name of the question, A, IN, TTL, length (RFC 1035 §4.1.3).
                        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                        bytes.extend((0x0800_0001 + n).to_be_bytes());
                    }
                    vec![(bytes, false)]
                },
                "addresses",
            )
        },
    ] {
        let what = case.lie.as_str();
        let liar = Liar::start(case.answers).await;
        let upstream = if case.tcp {
            Upstream::Tcp(liar.addr)
        } else {
            Upstream::Udp(liar.addr)
        };
        let resolver = resolver(vec![upstream]);
        let answer = resolver.ask("epdg.example", Family::V4.into(), 0).await;
        assert_eq!(answer.result(), case.result, "{what}: {answer:?}");
        for other in Lie::ALL {
            let expected = if other == case.lie { case.counted } else { 0 };
            assert_eq!(
                resolver.stats.lies(other),
                expected,
                "{what}: {}",
                other.as_str()
            );
        }
        if let Outcome::Addresses { addresses, .. } = &answer.outcome {
            assert_eq!(addresses[0].to_string(), "8.0.0.1", "{what}");
            let taken = if case.lie == Lie::TooMany { 256 } else { 1 };
            assert_eq!(addresses.len(), taken, "{what}");
        }
        if case.lie == Lie::TooMany {
            assert_eq!(answer.left_out as u64, case.counted);
        }
        // No lie costs more than a few queries.
        let queries: u64 = Transport::ALL
            .iter()
            .map(|t| resolver.stats.queries(*t))
            .sum();
        assert!(queries <= 8, "{what}: {queries} queries");
    }
}

#[tokio::test]
async fn absence_says_for_how_long() {
    let server = TestServer::start().await;
    server.reply("a.example", RecordType::A, Reply::NxDomain(900));
    let resolver = resolver(vec![udp(server.addr)]);
    let answer = resolver.ask("a.example", Family::V4.into(), 0).await;
    assert_eq!(answer.outcome, Outcome::NxDomain);
    assert_eq!(answer.absent_for, Some(Duration::from_secs(900)));
}

#[tokio::test]
async fn a_server_that_is_down_is_left_alone_until_it_answers() {
    let (socket, addr) = silent().await;
    let mut settings = settings(vec![udp(addr)]);
    settings.timeout = Duration::from_millis(50);
    let resolver = Resolver::new(&settings, Arc::default()).unwrap();
    for _ in 0..20 {
        let outcome = resolver.lookup("a.example", Family::V4).await;
        assert_eq!(kind(&outcome), FailureKind::Timeout);
    }
    assert_eq!(received(&socket), 8);
    let Outcome::Failed(failure) = resolver.lookup("a.example", Family::V4).await else {
        panic!("answered");
    };
    assert!(failure.detail.contains("is not asked"), "{failure}");
    let blocked = resolver.blocked(Instant::now());
    assert!(blocked[0].is_some());
    let state = vec![(addr.to_string(), false)];
    assert_eq!(resolver.stats.servers(), state);
    // Another that answers is asked at once.
    let server = TestServer::start().await;
    server.addresses("a.example", &["8.0.0.1"], 60);
    let two = Resolver::new(
        &self::settings(vec![udp(addr), udp(server.addr)]),
        Arc::default(),
    )
    .unwrap();
    for _ in 0..8 {
        two.routes[0].preferred.store(0, Ordering::Relaxed);
        assert_eq!(
            two.lookup("a.example", Family::V4).await,
            found(&["8.0.0.1"], 60)
        );
    }
    assert_eq!(received(&socket), 8);
    assert_eq!(two.blocked(Instant::now()), [None]);
}

#[tokio::test]
async fn a_server_that_answers_again_is_noticed() {
    let server = TestServer::start().await;
    server.reply("a.example", RecordType::A, Reply::Silence);
    server.addresses("b.example", &["8.0.0.1"], 60);
    let mut settings = settings(vec![udp(server.addr)]);
    settings.timeout = Duration::from_millis(50);
    let resolver = Resolver::new(&settings, Arc::default()).unwrap();
    for _ in 0..4 {
        // Two queries each.
        resolver.lookup("a.example", Family::V4).await;
    }
    assert!(resolver.blocked(Instant::now())[0].is_some());
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let outcome = resolver.lookup("b.example", Family::V4).await;
    assert_eq!(outcome, found(&["8.0.0.1"], 60));
    assert_eq!(resolver.stats.recoveries(), 1);
    assert_eq!(resolver.blocked(Instant::now()), [None]);
    assert_eq!(resolver.stats.servers(), [(server.addr.to_string(), true)]);
}

const NAME: &str = "dns.example.net";

fn tls(addr: SocketAddr, name: &str) -> Upstream {
    let name = name.into();
    Upstream::Tls { addr, name }
}

fn trusting(authority: &Authority, upstream: Upstream) -> Resolver {
    let mut settings = settings(vec![upstream]);
    settings.ca_file = Some(authority.file.clone());
    // A handshake of an unoptimised build on a busy machine.
    settings.timeout = Duration::from_secs(5);
    Resolver::new(&settings, Arc::default()).unwrap()
}

#[tokio::test]
async fn over_tls_on_one_connection() {
    let authority = Authority::new();
    let identity = authority.sign(&[NAME, "127.0.0.1"], |_| {});
    let server = TestServer::start_tls(&identity).await;
    server.addresses("epdg.example", &["8.0.0.1"], 60);
    // By name, and by address where no name is given.
    for name in [NAME, "127.0.0.1"] {
        let resolver = trusting(&authority, tls(server.addr, name));
        let lookups = (0..8).map(|_| resolver.lookup("epdg.example", Family::V4));
        for outcome in futures_util::future::join_all(lookups).await {
            assert_eq!(outcome, found(&["8.0.0.1"], 60));
        }
        let outcome = resolver.lookup("none.example", Family::V4).await;
        assert_eq!(outcome, Outcome::NxDomain);
        assert_eq!(resolver.stats.connections(Transport::Tls), 1);
        assert_eq!(resolver.stats.queries(Transport::Udp), 0);
    }
    assert!(server.seen().iter().all(|s| s.protocol == Protocol::Tls));
}

#[tokio::test]
async fn over_https_at_a_path() {
    let authority = Authority::new();
    let identity = authority.sign(&[NAME], |_| {});
    let server = TestServer::start_https(&identity, "/q").await;
    server.addresses("epdg.example", &["8.0.0.1"], 60);
    let https = |path: &str| Upstream::Https {
        addr: server.addr,
        name: NAME.into(),
        path: path.into(),
    };
    let resolver = trusting(&authority, https("/q"));
    for _ in 0..3 {
        let outcome = resolver.lookup("epdg.example", Family::V4).await;
        assert_eq!(outcome, found(&["8.0.0.1"], 60));
    }
    assert_eq!(resolver.stats.connections(Transport::Https), 1);
    assert!(server.seen().iter().all(|s| s.protocol == Protocol::Https));
    let elsewhere = trusting(&authority, https("/dns-query"));
    let outcome = elsewhere.lookup("epdg.example", Family::V4).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
}

/// Each says which server, and what is wrong with it.
#[tokio::test]
async fn who_cannot_be_trusted_is_not_asked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = authority.sign(&[NAME], |_| {});
    let expired = authority.sign(&[NAME], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let cases = [
        (&good, "dns.example.org", "the certificate is for"),
        (&good, "127.0.0.1", "the certificate is for"),
        (&expired, NAME, "expired"),
        (&other.sign(&[NAME], |_| {}), NAME, "no authority"),
    ];
    for (identity, name, reason) in cases {
        let server = TestServer::start_tls(identity).await;
        let resolver = trusting(&authority, tls(server.addr, name));
        let outcome = resolver.lookup("epdg.example", Family::V4).await;
        let Outcome::Failed(failure) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
        let says_server = failure.detail.contains(&server.addr.to_string());
        assert!(says_server && failure.detail.contains(reason), "{failure}");
        assert!(server.seen().is_empty());
        assert_eq!(resolver.stats.queries(Transport::Tls), 0);
    }
    // No TLS at all.
    let plain = TestServer::start().await;
    let resolver = trusting(&authority, tls(plain.addr, NAME));
    let outcome = resolver.lookup("epdg.example", Family::V4).await;
    assert!(outcome.as_str() != "addresses", "{outcome:?}");
}

#[test]
fn without_authorities_there_is_no_tls() {
    let mut settings = settings(vec!["tls://192.0.2.53".parse().unwrap()]);
    for (text, expected) in [
        (None, "read the certificates"),
        (Some("nothing"), "no certificate in"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        settings.ca_file = Some(file);
        let error = Resolver::new(&settings, Arc::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("hint: `ca_file`"), "{error}");
    }
}

/// A server that takes connections and says nothing, or whose packets vanish, costs all that ask
/// it one wait together, and not one after the other.
#[tokio::test]
async fn who_waits_for_a_connection_shares_what_comes_of_it() {
    const ASKERS: u32 = 8;
    let authority = Authority::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = tls(silent.local_addr().unwrap(), NAME);
    let mut settings = settings(vec![upstream]);
    settings.ca_file = Some(authority.file.clone());
    let resolver = Resolver::new(&settings, Arc::default()).unwrap();
    let start = Instant::now();
    let names: Vec<_> = (0..ASKERS).map(|n| format!("{n}.example")).collect();
    let questions = names.iter();
    let questions = questions.map(|name| resolver.lookup(name, Family::V4));
    for outcome in futures_util::future::join_all(questions).await {
        assert_eq!(kind(&outcome), FailureKind::Timeout, "{outcome:?}");
    }
    // A lone server gets a second chance.
    let elapsed = start.elapsed();
    assert!(elapsed >= TIMEOUT && elapsed < TIMEOUT * 4, "{elapsed:?}");
    let connections = resolver.stats.connections(Transport::Tls);
    assert!((1..=2).contains(&connections), "{connections}");
    // What came of it is not for those who ask later: they try for themselves, once it may be asked again.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    resolver.lookup("a.example", Family::V4).await;
    assert!(resolver.stats.connections(Transport::Tls) > connections);
}

#[tokio::test]
async fn connections_count_towards_the_rate() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let mut times = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
            times.push(Instant::now());
            if times.len() == 6 {
                break;
            }
        }
        times
    });
    let mut settings = settings(vec![Upstream::Tcp(addr)]);
    settings.queries_per_second = 50;
    let resolver = Resolver::new(&settings, Arc::default()).unwrap();
    for _ in 0..6 {
        let outcome = resolver.lookup("epdg.example", Family::V4).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }
    let times = accepted.await.unwrap();
    assert!(times[5] - times[0] >= Duration::from_millis(5 * 20 - 10));
}

#[tokio::test]
async fn routes_have_servers_of_their_own_and_share_the_rate() {
    let (home, away) = (TestServer::start().await, TestServer::start().await);
    home.addresses("epdg.example", &["8.0.0.1"], 60);
    away.addresses("epdg.example", &["8.0.0.2"], 60);
    let mut settings = settings(vec![udp(home.addr)]);
    settings.queries_per_second = 100;
    settings.routes = vec![Route {
        operators: vec!["262-01".parse().unwrap()],
        countries: vec!["AU".parse().unwrap()],
        upstreams: vec![udp(away.addr)],
        mark: None,
    }];
    let resolver = Resolver::new(&settings, Arc::default()).unwrap();
    let owner = |plmn: &str, country: &str| Owner {
        plmn: plmn.parse().ok(),
        country: country.parse().ok(),
    };
    let kind = Kind::from(Family::V4);
    let start = Instant::now();
    for _ in 0..5 {
        for (owner, address) in [
            (owner("262-01", "DE"), "8.0.0.2"),
            (owner("505-01", "AU"), "8.0.0.2"),
            (owner("262-02", "DE"), "8.0.0.1"),
        ] {
            let route = resolver.route([&owner]);
            let answer = resolver.ask("epdg.example", kind, route).await;
            assert_eq!(answer.outcome, found(&[address], 60), "{owner:?}");
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(14 * 10 - 10));
    assert_eq!((home.seen().len(), away.seen().len()), (5, 10));
}

/// As root, what is sent bears the mark; otherwise the question says why it is not sent.
#[tokio::test]
async fn a_mark_is_set_or_said_to_be_impossible() {
    let server = TestServer::start().await;
    server.addresses("epdg.example", &["8.0.0.1"], 60);
    let mut settings = settings(vec![udp(server.addr)]);
    settings.mark = Some(0x65);
    let resolver = Resolver::new(&settings, Arc::default()).unwrap();
    match resolver.lookup("epdg.example", Family::V4).await {
        Outcome::Failed(failure) => assert!(failure.detail.contains("0x65"), "{failure}"),
        outcome => assert_eq!(outcome, found(&["8.0.0.1"], 60)),
    }
}

use std::time::Instant;

use hickory_server::net::xfer::Protocol;
use tokio::net::UdpSocket;

use super::*;
use crate::discover::test_server::{Reply, TestServer, address, cname};

/// Long enough for a busy machine, short enough to be waited for.
const TIMEOUT: Duration = Duration::from_millis(300);

fn settings(upstreams: Vec<Upstream>) -> Settings {
    Settings {
        upstreams,
        timeout: TIMEOUT,
        refresh_min: Duration::from_secs(60),
        refresh_max: Duration::from_secs(3600),
        queries_per_second: 1000,
        concurrency: 8,
        mark: None,
    }
}

fn udp(addr: SocketAddr) -> Upstream {
    Upstream::Server {
        addr,
        transport: Transport::Udp,
    }
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
    let expected = [(Family::V4, "addresses", 1), (Family::V6, "addresses", 2)];
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
    let many: Vec<String> = (0..300)
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
    let transport = Transport::Tcp;
    let resolver = resolver(vec![Upstream::Server {
        addr: server.addr,
        transport,
    }]);
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
    let transport = Transport::Tcp;
    let addr = socket.local_addr().unwrap();
    let resolver = resolver(vec![Upstream::Server { addr, transport }]);
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
async fn a_loop_of_cnames_ends() {
    let server = TestServer::start().await;
    for (name, target) in [("a.example", "b.example"), ("b.example", "a.example")] {
        let records = vec![cname(name, target, 60)];
        server.reply(name, RecordType::A, Reply::Records(records));
    }
    let resolver = resolver(vec![udp(server.addr)]);
    let outcome = resolver.lookup("a.example", Family::V4).await;
    assert_eq!(outcome, Outcome::NoData);
    assert!(server.seen().len() < 10);
}

#[tokio::test]
async fn addresses_of_other_names_are_ignored_and_counted() {
    let server = TestServer::start().await;
    server.reply(
        "epdg.example",
        RecordType::A,
        Reply::Records(vec![
            address("epdg.example", "8.0.0.1", 60),
            address("victim.example", "8.0.0.2", 1),
            cname("victim.example", "evil.example", 1),
            address("evil.example", "8.0.0.3", 1),
        ]),
    );
    let resolver = resolver(vec![udp(server.addr)]);
    let outcome = resolver.lookup("epdg.example", Family::V4).await;
    assert_eq!(outcome, found(&["8.0.0.1"], 60));
    assert_eq!(resolver.stats.foreign(), 2);
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

#[test]
fn resolv_conf_is_read_as_the_c_library_does() {
    let servers = |text: &str| -> Vec<String> {
        nameservers(text)
            .iter()
            .map(SocketAddr::to_string)
            .collect()
    };
    assert_eq!(servers(""), ["127.0.0.1:53"]);
    assert_eq!(
        servers("# nameserver 192.0.2.1\nsearch lan\n"),
        ["127.0.0.1:53"]
    );
    assert_eq!(
        servers("search lan\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 \noptions edns0\n"),
        ["192.0.2.1:53", "[2001:db8::1]:53"]
    );
    assert_eq!(servers("nameserver fe80::1%lo"), ["[fe80::1%1]:53"]);
    assert_eq!(servers("nameserver fe80::1%7"), ["[fe80::1%7]:53"]);
    assert_eq!(
        servers("nameserver bogus\nnameserver 192.0.2.1"),
        ["192.0.2.1:53"]
    );
    assert_eq!(servers(&"nameserver 192.0.2.1\n".repeat(5)).len(), 3);
}

#[tokio::test]
async fn resolv_conf_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let connect = resolver(vec![]).connect;
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

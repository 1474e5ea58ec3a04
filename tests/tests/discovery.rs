//! From names to classified packets: a real DNS server that changes its mind, answers
//! nonsense, and fails.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::dns::{Dns, EPDG};
use wificall_tests::lab::{
    EF, EPDG4, EPDG4_BESIDE, EPDG6, LIMIT, Lab, OTHER4, PHONE4, PHONE6, ROUTER_DNS,
};
use wificall_tests::process::wait_for;

/// Asks the lab's DNS server often, and marks what it finds.
fn configuration(discovery: &str) -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
[discovery]
operators = ["001-01"]
resolvers = ["{ROUTER_DNS}"]
refresh_min = "1s"
timeout = "500ms"
{discovery}
[lab]
admit = ["198.18.0.0/16", "2001:db8::/32"]
[[policy]]
name = "marked"
operators = ["001-01"]
mark = "0x65/0xff"
"#
    )
}

fn dns<'a>(lab: &'a Lab, addresses: &[&str]) -> Result<Dns<'a>> {
    Dns::start(&lab.far, &[ROUTER_DNS], 1, &[(EPDG, addresses)])
}

#[test]
fn names_become_classified_packets() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = dns(&lab, &[EPDG4, EPDG6])?;
    let agent = Agent::run(&lab.router, &configuration(""))?;
    lab.wait_treated(PHONE4, EPDG4)?;
    lab.wait_treated(PHONE6, EPDG6)?;
    ensure!(
        lab.probe(PHONE4, EPDG4_BESIDE)?.is_treated(),
        "widened to the /24"
    );
    ensure!(!lab.probe(PHONE4, OTHER4)?.is_treated(), "no ePDG");
    let shown = agent.ask(&["resolve", "001-01"])?;
    ensure!(
        shown.contains(EPDG4) && shown.contains(EPDG6),
        "resolve: {shown}"
    );
    agent.finish()
}

#[test]
fn exact_means_exact() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = dns(&lab, &[EPDG4])?;
    let agent = Agent::run(&lab.router, &configuration("widen = \"exact\""))?;
    lab.wait_treated(PHONE4, EPDG4)?;
    let beside = lab.probe(PHONE4, EPDG4_BESIDE)?;
    ensure!(!beside.marked && beside.dscp == 0, "{beside:?}");
    agent.finish()
}

/// One large carrier's answers rotate within seconds while its tunnels live for hours.
#[test]
fn rotating_answers_keep_the_old_address() -> Result<()> {
    let lab = Lab::new()?;
    let mut dns = dns(&lab, &[EPDG4])?;
    let agent = Agent::run(&lab.router, &configuration("widen = \"exact\""))?;
    lab.wait_treated(PHONE4, EPDG4)?;
    for next in [EPDG4_BESIDE, "198.18.0.201", "198.18.0.202"] {
        if next != EPDG4_BESIDE {
            lab.far.ip(&format!("addr add {next}/32 dev lo"))?;
        }
        dns.set(&[(EPDG, &[next])])?;
        lab.wait_treated(PHONE4, next)?;
        ensure!(
            lab.probe(PHONE4, EPDG4)?.is_treated(),
            "the first address is still known"
        );
    }
    // An answer without addresses empties nothing.
    dns.set(&[])?;
    wait_for_questions(&agent, &["no_data", "nx_domain"])?;
    for address in [EPDG4, EPDG4_BESIDE, "198.18.0.201", "198.18.0.202"] {
        ensure!(lab.probe(PHONE4, address)?.is_treated(), "{address}");
    }
    agent.finish()
}

/// Waits until one more question has had one of these results.
fn wait_for_questions(agent: &Agent<'_>, results: &[&str]) -> Result<()> {
    let count = || -> Result<u64> {
        let status = agent.status()?;
        let questions = status["discovery"]["questions"]
            .as_array()
            .context("questions")?;
        let with = questions
            .iter()
            .filter(|question| results.iter().any(|result| question["result"] == *result));
        Ok(with.filter_map(|question| question["count"].as_u64()).sum())
    };
    let before = count()?;
    wait_for(&format!("questions with {results:?}"), LIMIT, || {
        ensure!(count()? > before, "not yet");
        Ok(())
    })
    .with_context(|| agent.log())
}

/// Loopback, the phones' own network and documentation addresses were all seen in
/// answers; and the router's neighbours must not become ePDGs.
#[test]
fn nonsense_answers_are_refused_and_counted() -> Result<()> {
    let lab = Lab::new()?;
    let nonsense = [
        "10.77.0.1",
        "127.0.0.1",
        "10.77.0.2",
        "198.19.255.2",
        OTHER4,
        "fe80::1",
    ];
    let answers = [&[EPDG4][..], &nonsense].concat();
    let _dns = dns(&lab, &answers)?;
    let agent = Agent::run(&lab.router, &configuration(""))?;
    lab.wait_treated(PHONE4, EPDG4)?;
    for address in ["198.19.255.2", OTHER4] {
        let arrival = lab.probe(PHONE4, address)?;
        ensure!(
            !arrival.marked && arrival.dscp == 0,
            "{address}: {arrival:?}"
        );
    }
    let status = agent.status()?;
    let metrics = agent.metrics()?;
    let refused = status["discovery"]["refused"]
        .as_array()
        .context("refused")?;
    for reason in [
        "own",
        "private",
        "benchmarking",
        "documentation",
        "link_local",
    ] {
        let said = refused
            .iter()
            .any(|entry| entry[0] == reason && entry[1] != 0);
        ensure!(said, "no address refused as {reason}: {refused:?}");
        let counted = metrics.sum(
            "wificall_dns_addresses_refused_total",
            &[("reason", reason)],
        );
        ensure!(counted > 0, "no refusal as {reason} in the metrics");
    }
    agent.finish()
}

/// Also inside a configured prefix.
#[test]
fn local_networks_are_never_endpoints() -> Result<()> {
    let lab = Lab::new()?;
    lab.far.ip("addr add 198.19.7.7/32 dev lo")?;
    let agent = Agent::run(
        &lab.router,
        "[interfaces]\naccess = [\"lan\"]\n[lab]\nadmit = [\"198.18.0.0/16\"]\n\
         [[prefix]]\nprefix = \"198.19.0.0/16\"\noperator = \"001-01\"\n",
    )?;
    let far = lab.probe(PHONE4, "198.19.7.7")?;
    assert_eq!(far.dscp, EF);
    let local = lab.probe(PHONE4, "198.19.255.2")?;
    assert_eq!(local.dscp, 0, "a neighbour of the router within the prefix");
    agent.finish()
}

/// After a restart without DNS, what was known is classified, and both the status and
/// the metrics say that it is old.
#[test]
fn without_dns_the_last_known_good_stays() -> Result<()> {
    let lab = Lab::new()?;
    let server = dns(&lab, &[EPDG4])?;
    let mut agent = Agent::run(&lab.router, &configuration("widen = \"exact\""))?;
    lab.wait_treated(PHONE4, EPDG4)?;
    agent.stop()?;
    // Not the pins, but the state on disk must know.
    agent.ask(&["detach"])?;
    server.stop()?;

    agent.start()?;
    ensure!(
        lab.probe(PHONE4, EPDG4)?.is_treated(),
        "known when ready, before any answer"
    );
    wait_for_questions(&agent, &["timeout", "unreachable", "refused", "other"])?;
    let status = agent.status()?;
    assert_eq!(status["discovery"]["stale"], true, "{status:#}");
    let metrics = agent.metrics()?;
    assert_eq!(metrics.sum("wificall_dns_stale", &[]), 1);
    assert!(
        metrics.sum("wificall_dns_last_success_timestamp_seconds", &[]) > 0,
        "its age"
    );
    ensure!(
        lab.probe(PHONE4, EPDG4)?.is_treated(),
        "and still after failed questions"
    );

    // And as soon as DNS is back, it is asked.
    lab.far.ip("addr add 198.18.0.201/32 dev lo")?;
    let _server = dns(&lab, &["198.18.0.201"])?;
    lab.wait_treated(PHONE4, "198.18.0.201")?;
    agent.finish()
}

/// A server that never answers delays nothing but its own names.
#[test]
fn a_silent_server_does_not_delay_the_start() -> Result<()> {
    const SOON: Duration = Duration::from_secs(5);
    let lab = Lab::new()?;
    // Bound, and never read: queries vanish.
    let _silent = wificall_tests::send::udp(&lab.far, &format!("{ROUTER_DNS}:53"))?;
    let start = std::time::Instant::now();
    let prefix = "\n[[prefix]]\nprefix = \"198.18.0.0/24\"\noperator = \"001-01\"\n";
    let agent = Agent::run(&lab.router, &(configuration("") + prefix))?;
    ensure!(start.elapsed() < SOON, "ready after {:?}", start.elapsed());
    ensure!(lab.probe(PHONE4, EPDG4)?.is_treated(), "the static prefix");
    agent.finish()
}

const RESOLVER_NAME: &str = "dns.example.net";

/// Over TLS and HTTPS, by a resolver whose certificate an authority of ours signed; and not by one
/// whose certificate is for another name.
#[test]
fn encrypted_resolvers_are_asked_if_they_can_be_trusted() -> Result<()> {
    let lab = Lab::new()?;
    let records: &[_] = &[(EPDG, &[EPDG4, EPDG6][..])];
    let dns = Dns::start_encrypted(&lab.far, &[ROUTER_DNS], 1, records, RESOLVER_NAME)?;
    let with = |resolver: &str| {
        configuration(&format!("ca_file = \"{}\"", dns.authority().display())).replace(
            &format!("resolvers = [\"{ROUTER_DNS}\"]"),
            &format!("resolvers = [\"{resolver}\"]"),
        )
    };
    for (transport, resolver) in [
        ("tls", format!("tls://{ROUTER_DNS}#{RESOLVER_NAME}")),
        (
            "https",
            format!("https://{ROUTER_DNS}/dns-query#{RESOLVER_NAME}"),
        ),
    ] {
        let agent = Agent::run(&lab.router, &with(&resolver))?;
        lab.wait_treated(PHONE4, EPDG4)?;
        lab.wait_treated(PHONE6, EPDG6)?;
        let metrics = agent.metrics()?;
        let count = |metric: &str, by: &str| metrics.sum(metric, &[("transport", by)]);
        ensure!(
            count("wificall_dns_queries_total", transport) > 0,
            "{resolver}"
        );
        ensure!(count("wificall_dns_queries_total", "udp") == 0, "in clear");
        ensure!(count("wificall_dns_connections_total", transport) == 1);
        agent.finish()?;
    }
    let agent = Agent::run(
        &lab.router,
        &with(&format!("tls://{ROUTER_DNS}#dns.example.org")),
    )?;
    let output = agent.call(&["resolve", "001-01"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        !output.status.success() && text.contains("the certificate is for"),
        "{text}"
    );
    ensure!(!lab.probe(PHONE4, EPDG4)?.is_treated());
    agent.finish()
}

/// Answers differ by where one asks: an operator's names by its own resolver, marked so that the
/// question takes that operator's way out.
#[test]
fn operators_have_resolvers_of_their_own() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = dns(&lab, &[EPDG4])?;
    // Nobody listens at the default one; the route's packets bear the mark, and are counted by it.
    lab.router.run("nft", "add table inet marks")?;
    lab.router.run(
        "nft",
        "add chain inet marks out { type filter hook output priority 0 ; }",
    )?;
    // A mark of its own, and without one that of the operator's policy.
    for (key, mark) in [("mark = \"0x77\"", "0x77"), ("", "0x65")] {
        lab.router.run("nft", "flush chain inet marks out")?;
        let rule = format!("add rule inet marks out udp dport 53 meta mark {mark} counter");
        lab.router.run("nft", &rule)?;
        let text = configuration("").replace(
            &format!("resolvers = [\"{ROUTER_DNS}\"]"),
            "resolvers = [\"198.18.0.254\"]",
        ) + &format!(
            "[[discovery.upstream]]\noperators = [\"001-01\"]\nresolvers = [\"{ROUTER_DNS}\"]\n{key}\n"
        );
        let agent = Agent::run(&lab.router, &text)?;
        lab.wait_treated(PHONE4, EPDG4)?;
        let counted = lab.router.run("nft", "list chain inet marks out")?;
        ensure!(
            counted.contains("counter packets") && !counted.contains("counter packets 0 "),
            "{mark}: {counted}"
        );
        agent.finish()?;
    }
    Ok(())
}

/// The names that a visited country's own name gives (NAPTR) are looked up; and after a restart
/// without DNS their addresses are still somebody's.
#[test]
fn names_of_visited_countries_are_found_and_kept() -> Result<()> {
    const VISITED: &str = "epdg.epc.mcc262.visited-country.pub.3gppnetwork.org";
    /// Of no operator that the catalogue has.
    const FOUND: &str = "epdg.epc.mnc097.mcc262.pub.3gppnetwork.org";
    const FOREIGN: &str = "epdg.epc.mnc001.mcc505.pub.3gppnetwork.org";
    let lab = Lab::new()?;
    let naptr = [FOUND, FOREIGN].map(|name| format!(r#"NAPTR 10 10 "a" "x-3gpp-epdg" "" {name}."#));
    let naptr = naptr.each_ref().map(String::as_str);
    let records: &[(&str, &[&str])] = &[
        (VISITED, &naptr),
        (FOUND, &[EPDG4]),
        (FOREIGN, &[EPDG4_BESIDE]),
    ];
    let server = Dns::start(&lab.far, &[ROUTER_DNS], 60, records)?;
    let configuration = configuration("widen = \"exact\"\nqueries_per_second = 500\n")
        .replace(
            "operators = [\"001-01\"]\nresolvers",
            "countries = [\"DE\"]\nresolvers",
        )
        .replace("operators = [\"001-01\"]", "operators = [\"262-97\"]");
    let mut agent = Agent::run(&lab.router, &configuration)?;
    lab.wait_treated(PHONE4, EPDG4)?;
    let shown = agent.ask(&["resolve", "DE"])?;
    let given = format!("\n  NAPTR  {FOUND}\n");
    let from = format!("; found at {VISITED})");
    let classified = format!("Would be classified\n  {EPDG4}  262-097 DE\n");
    for text in [given, from, classified] {
        ensure!(shown.contains(&text), "no {text:?} in:\n{shown}");
    }
    agent.stop()?;
    agent.ask(&["detach"])?;
    server.stop()?;

    agent.start()?;
    ensure!(
        lab.probe(PHONE4, EPDG4)?.is_treated(),
        "known when ready, before any answer"
    );
    ensure!(
        !lab.probe(PHONE4, EPDG4_BESIDE)?.is_treated(),
        "not of that country"
    );
    agent.finish()
}

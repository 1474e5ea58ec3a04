//! A report for people.

use std::{collections::BTreeMap, fmt::Write as _};

use super::countries;
use super::metrics::name_state;
use super::{Fate, Group, Interface, Name, Report};

/// The text of `wificall status`. Ages are those at the time of the report.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = head(report);
    section(
        &mut text,
        "Problems",
        report
            .problems
            .iter()
            .map(|problem| format!("  - {}\n", problem.replace('\n', "\n    ")))
            .collect(),
    );
    section(&mut text, "Interfaces", interfaces(report));
    section(&mut text, "Traffic", traffic(&report.groups));
    section(&mut text, "Frames by exit", exits(report));
    section(&mut text, "Other IPsec", other_ipsec(report));
    section(&mut text, "Exits", steering(report));
    section(&mut text, "Tables", tables(report));
    section(&mut text, "DNS", dns(report));
    section(&mut text, "Probes", probes(report));
    section(&mut text, "Countries", countries::text(report));
    section(&mut text, "Seen from clients", snoop(report));
    text
}

fn section(text: &mut String, title: &str, body: String) {
    if !body.is_empty() {
        *text += &format!("\n{title}\n{body}");
    }
}

fn head(report: &Report) -> String {
    let state = match (report.pid, report.ready) {
        (None, _) => "no agent runs",
        (Some(_), true) => "ready",
        (Some(_), false) => "not ready",
    };
    let mut text = format!(
        "wificall {}, instance {}: {state}\n",
        report.version, report.instance
    );
    let mut facts = Vec::new();
    facts.extend(report.pid.map(|pid| format!("process {pid}")));
    facts.extend(
        report
            .started
            .map(|started| format!("up {}", age(report.at.saturating_sub(started)))),
    );
    facts.extend(report.config.clone());
    if report.abi != 0 {
        facts.push(format!("ABI {}", report.abi));
    }
    for (what, count) in [
        ("reloads", report.reloads.done),
        ("refused reloads", report.reloads.refused),
        ("hooks put back", report.repairs),
    ] {
        if count > 0 {
            facts.push(format!("{what}: {count}"));
        }
    }
    if !facts.is_empty() {
        let _ = writeln!(text, "  {}", facts.join(", "));
    }
    text
}

fn interfaces(report: &Report) -> String {
    let hooks = |interface: &Interface| {
        let hooks = interface.hooks.iter();
        let hooks: Vec<_> = hooks
            .map(|hook| {
                format!(
                    "{} ({}, program {})",
                    hook.hook, hook.method, hook.program_id
                )
            })
            .collect();
        match (hooks.is_empty(), &interface.problem) {
            (false, _) => hooks.join(", "),
            (true, None) => "nothing to do here".to_owned(),
            (true, Some(_)) => "see above".to_owned(),
        }
    };
    let mut rows = Vec::new();
    for interface in &report.interfaces {
        let role = if interface.wireless {
            format!("{}, wireless", interface.role)
        } else {
            interface.role.clone()
        };
        rows.push([interface.name.clone(), role, hooks(interface)]);
    }
    let mut text = columns(["<interface", "<role", "<hooks"], &rows);
    if !report.waiting.is_empty() {
        let _ = writeln!(text, "  awaited: {}", report.waiting.join(", "));
    }
    text
}

fn traffic(groups: &[Group]) -> String {
    let mut rows = Vec::new();
    for group in groups {
        let mut classes: Vec<(&str, [[u64; 2]; 2])> = Vec::new();
        for counter in &group.counters {
            let direction = usize::from(counter.direction != "up");
            let index = classes
                .iter()
                .position(|(class, _)| *class == counter.class)
                .unwrap_or_else(|| {
                    classes.push((&counter.class, [[0; 2]; 2]));
                    classes.len() - 1
                });
            classes[index].1[direction] = [counter.packets, counter.bytes];
        }
        for (class, [up, down]) in classes {
            rows.push([
                group.operator.clone(),
                group.country.clone(),
                class.to_owned(),
                up[0].to_string(),
                bytes(up[1]),
                down[0].to_string(),
                bytes(down[1]),
            ]);
        }
    }
    if rows.is_empty() && !groups.is_empty() {
        return "  none yet\n".to_owned();
    }
    columns(
        [
            "<operator",
            "<country",
            "<class",
            ">packets up",
            ">bytes up",
            ">packets down",
            ">bytes down",
        ],
        &rows,
    )
}

fn exits(report: &Report) -> String {
    let exits = &report.exits;
    let mut rows: Vec<[String; 4]> = Vec::new();
    let counted = |hook: &str, name: &str| {
        exits
            .iter()
            .find(|exit| exit.hook == hook && exit.exit == name)
            .map_or(0, |exit| exit.frames)
    };
    for exit in exits.iter().filter(|exit| exit.frames > 0) {
        if rows.iter().all(|[name, ..]| *name != exit.exit) {
            let [ingress, egress, xdp] = ["tc_ingress", "tc_egress", "xdp"]
                .map(|hook| counted(hook, &exit.exit).to_string());
            rows.push([exit.exit.clone(), ingress, egress, xdp]);
        }
    }
    let mut text = columns(["<exit", ">tc_ingress", ">tc_egress", ">xdp"], &rows);
    if report.bleached > 0 {
        let _ = writeln!(
            text,
            "  {} packets were no match and lost the DSCP of voice that their client had set",
            report.bleached
        );
    }
    text
}

fn other_ipsec(report: &Report) -> String {
    let other = &report.other_ipsec;
    if matches!(&*other.action, "" | "pass") {
        return String::new();
    }
    let frames = |name: &str| -> u64 {
        let exits = report.exits.iter().filter(|exit| exit.exit == name);
        exits.map(|exit| exit.frames).sum()
    };
    let state = match (other.arm_at, other.armed) {
        (None, _) => String::new(),
        (Some(arm_at), armed) => format!(
            ", {}: {} authoritative endpoints, arm_at is {arm_at}",
            if armed { "armed" } else { "not armed" },
            other.endpoints
        ),
    };
    let mut text = format!(
        "  {}{state}; {} frames marked, {} audited, {} dropped\n",
        other.action,
        frames("other_marked"),
        frames("other_audited"),
        frames("other_dropped")
    );
    let rows: Vec<_> = other
        .destinations
        .iter()
        .map(|destination| {
            [
                destination.address.clone(),
                destination.packets.to_string(),
                bytes(destination.bytes),
                format!("{} ago", age(report.at.saturating_sub(destination.last))),
            ]
        })
        .collect();
    text += &columns(["<destination", ">packets", ">bytes", ">last"], &rows);
    if other.more > 0 {
        let _ = writeln!(text, "  and {} more", other.more);
    }
    text
}

fn steering(report: &Report) -> String {
    let mut rows = Vec::new();
    for exit in &report.steering {
        let gateways = exit.gateways.iter();
        let gateways: Vec<_> = gateways
            .map(|gateway| format!("{} {}", gateway.gateway, gateway.state))
            .collect();
        let since = exit
            .since
            .map_or("-".to_owned(), |since| age(report.at.saturating_sub(since)));
        rows.push([
            exit.exit.clone(),
            exit.family.clone(),
            exit.mark.clone(),
            exit.table.to_string(),
            exit.gateway.clone().unwrap_or_else(|| exit.state.clone()),
            since,
            exit.failovers.to_string(),
            gateways.join(", "),
        ]);
    }
    let mut text = columns(
        [
            "<exit",
            "<family",
            "<mark",
            ">table",
            "<way",
            ">for",
            ">failovers",
            "<gateways",
        ],
        &rows,
    );
    if report.steering_repairs > 0 {
        let _ = writeln!(
            text,
            "  rules and routes put back after somebody removed them: {}",
            report.steering_repairs
        );
    }
    text
}

fn tables(report: &Report) -> String {
    let mut rows = Vec::new();
    for table in &report.tables {
        rows.push([
            table.name.clone(),
            table.used.to_string(),
            table.size.to_string(),
            match table.left_out {
                0 => String::new(),
                count => format!("{count} left out"),
            },
        ]);
    }
    columns(["<table", ">entries", ">room", "<"], &rows)
}

fn dns(report: &Report) -> String {
    let dns = &report.discovery;
    let total: u64 = dns.name_states.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return String::new();
    }
    let count = |state| {
        let mut counts = dns.name_states.iter();
        counts
            .find(|(name, _)| name == state)
            .map_or(0, |(_, count)| *count)
    };
    let mut text = format!(
        "  {} names: {} with addresses, {} without, {} failed, {} not asked yet; {} addresses remembered\n",
        total,
        count("addresses"),
        count("none"),
        count("failed"),
        count("pending"),
        dns.addresses,
    );
    let last = dns.last_success.map_or("no answer yet".to_owned(), |at| {
        format!("last answer {} ago", age(report.at.saturating_sub(at)))
    });
    let stale = if dns.stale { ", stale" } else { "" };
    let _ = writeln!(
        text,
        "  {last}{stale}; {} queries sent",
        dns.queries.iter().map(|(_, count)| count).sum::<u64>()
    );
    if dns.unasked > 0 || dns.backlog > 0 {
        let _ = writeln!(
            text,
            "  {} names not asked for yet, {} questions wait for their turn",
            dns.unasked, dns.backlog
        );
    }
    for (server, _) in dns.servers.iter().filter(|(_, up)| !up) {
        let _ = writeln!(text, "  {server} does not answer");
    }
    if !dns.not_believed.is_empty() {
        let _ = writeln!(text, "  not believed: {}", counts(&dns.not_believed));
    }
    if !dns.refused.is_empty() {
        let _ = writeln!(text, "  addresses refused: {}", counts(&dns.refused));
    }
    if !dns.nat64.is_empty() {
        let _ = writeln!(text, "  NAT64 behind {}", dns.nat64.join(", "));
    }
    let tier = |tier| dns.known.iter().filter(|known| known.tier == tier).count();
    let (corroborated, observed) = (tier("corroborated"), tier("observed"));
    if corroborated + observed + dns.seen.len() > 0 {
        let _ = writeln!(
            text,
            "  from clients: {} names, {corroborated} addresses confirmed, {observed} only observed",
            dns.seen.len()
        );
    }
    let demoted: u64 = report.demoted.iter().map(|(_, packets)| packets).sum();
    if demoted > 0 {
        let _ = writeln!(
            text,
            "  {demoted} packets were over their client's cap and passed without the DSCP and priority of voice"
        );
    }
    // Most catalogued names do not exist; they are counted above.
    let mut rows = Vec::new();
    for name in &dns.names {
        if !name.addresses.is_empty() || matches!(name_state(name), "addresses" | "failed") {
            rows.push([
                name.name.clone(),
                name.operators.join("+"),
                name.addresses.len().to_string(),
                name.last_success.map_or("-".to_owned(), |at| {
                    format!("{} ago", age(report.at.saturating_sub(at)))
                }),
                result(name),
            ]);
        }
    }
    text + &columns(
        ["<name", "<operator", ">addresses", ">answered", "<result"],
        &rows,
    )
}

fn snoop(report: &Report) -> String {
    let snoop = &report.snoop;
    if !snoop.on {
        return String::new();
    }
    let count = |fates: &[Fate], wanted: &[&str]| -> u64 {
        let found = fates.iter().filter(|f| wanted.contains(&&*f.fate));
        found.map(|fate| fate.count).sum()
    };
    let mut text = format!(
        "  {} clients asked for ePDGs' names; {} answers taken, {} spoofed, {} dropped for the rate\n",
        snoop.clients.len(),
        count(&snoop.heard, &["taken"]),
        count(&snoop.heard, &["spoofed"]),
        count(&snoop.events, &["rate", "client_rate", "full"]),
    );
    // Clients are in full with --json.
    let mut carriers: BTreeMap<String, usize> = BTreeMap::new();
    for client in &snoop.clients {
        *carriers.entry(client.operators.join("+")).or_default() += 1;
    }
    let rows: Vec<_> = carriers
        .into_iter()
        .map(|(operators, clients)| [operators, clients.to_string()])
        .collect();
    text += &columns(["<operator", ">clients"], &rows);
    let rows: Vec<_> = snoop
        .candidates
        .iter()
        .map(|candidate| {
            [
                candidate.address.clone(),
                candidate.country.clone().unwrap_or_else(|| "-".to_owned()),
                candidate.exchanges.to_string(),
                format!("{} ago", age(report.at.saturating_sub(candidate.last))),
            ]
        })
        .collect();
    text + &columns(["<candidate", "<country", ">exchanges", ">answered"], &rows)
}

/// `5 private, 1 own`
fn counts(counts: &[(String, u64)]) -> String {
    let counts: Vec<_> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    counts.join(", ")
}

fn probes(report: &Report) -> String {
    let mut rows = Vec::new();
    for row in &report.probes.operators {
        rows.push([
            row.operator.clone(),
            row.addresses.to_string(),
            row.reachable.to_string(),
            row.rtt_us
                .map_or("-".to_owned(), |rtt| format!("{:.1} ms", rtt as f64 / 1e3)),
            row.last_success.map_or("-".to_owned(), |at| {
                format!("{} ago", age(report.at.saturating_sub(at)))
            }),
            match (row.pending, &row.detail) {
                (0, detail) => detail.clone().unwrap_or_default(),
                (pending, _) => format!("{pending} not probed yet"),
            },
        ]);
    }
    columns(
        [
            "<operator",
            ">addresses",
            ">reachable",
            ">rtt",
            ">answered",
            "<",
        ],
        &rows,
    )
}

fn result(name: &Name) -> String {
    if let Some(error) = &name.error {
        return error.clone();
    }
    let of = |result: &Option<String>| result.clone().unwrap_or_else(|| "-".to_owned());
    format!("A {}, AAAA {}", of(&name.ipv4), of(&name.ipv6))
}

/// A table with two blanks between its columns. A title begins with `<` (left) or `>` (right); nothing without rows.
pub(crate) fn columns<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let title_row = titles.map(|title| title[1..].to_uppercase());
    let mut text = String::new();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(title_row[column].len())
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in std::iter::once(&title_row).chain(rows) {
        let mut line = String::new();
        for ((cell, title), width) in row.iter().zip(titles).zip(widths) {
            let _ = if title.starts_with('>') {
                write!(line, "  {cell:>width$}")
            } else {
                write!(line, "  {cell:<width$}")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A duration in its two largest units: `3 h 12 min`.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Bytes with a decimal prefix, three or four digits.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 10_000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;

    #[test]
    fn a_report_reads_like_this() {
        assert_eq!(text(&sample::report()), EXPECTED.trim_start());
    }

    const EXPECTED: &str = r#"
wificall 0.1.0, instance default: not ready
  process 4242, up 5 h 46 min, /etc/wificall/wificall.toml, ABI 1, reloads: 3, refused reloads: 1, hooks put back: 1

Problems
  - `wlan1` is a port of the bridge `br-lan`
  - DNS has stopped answering: the addresses known before stay in use

Interfaces
  INTERFACE  ROLE              HOOKS
  wlan"0     access, wireless  tc_ingress (tcx, program 17), tc_egress (tcx, program 18)
  wlan1      access            see above
  awaited: usb*

Traffic
  OPERATOR       COUNTRY  CLASS      PACKETS UP  BYTES UP  PACKETS DOWN  BYTES DOWN
  001-01         none     ike                 8    3600 B             0         0 B
  001-01         none     esp_udp          1500    2.0 MB          1400      1.9 MB
  262-01+262-02  DE       keepalive           3      87 B             0         0 B

Frames by exit
  EXIT           TC_INGRESS  TC_EGRESS  XDP
  matched              1511       1400    0
  other_audited           2          0    0
  other_dropped          41          0    0
  12 packets were no match and lost the DSCP of voice that their client had set

Other IPsec
  drop, armed: 104 authoritative endpoints, arm_at is 100; 0 frames marked, 2 audited, 41 dropped
  DESTINATION   PACKETS    BYTES       LAST
  203.0.113.77       40  20.0 kB  3 min ago
  and 1 more

Exits
  EXIT  FAMILY  MARK       TABLE  WAY             FOR  FAILOVERS  GATEWAYS
  au    ipv4    0x65/0xff   1065  192.168.1.3  30 min          1  192.168.1.2 down, 192.168.1.3 up
  au    ipv6    0x65/0xff   1065  block             -          0
  rules and routes put back after somebody removed them: 2

Tables
  TABLE        ENTRIES   ROOM
  ipv4_blocks       12  16384
  hosts           4096   4096  2 left out
  groups             2   2048
  policies           1    256

DNS
  3 names: 1 with addresses, 1 without, 1 failed, 0 not asked yet; 14 addresses remembered
  last answer 3 h 0 min ago, stale; 46 queries sent
  1 names not asked for yet, 7 questions wait for their turn
  192.0.2.53:53 does not answer
  not believed: 2 foreign_name
  addresses refused: 5 private
  NAT64 behind 64:ff9b::/96
  from clients: 1 names, 0 addresses confirmed, 1 only observed
  70 packets were over their client's cap and passed without the DSCP and priority of voice
  NAME                                        OPERATOR  ADDRESSES       ANSWERED  RESULT
  epdg.epc.mnc001.mcc001.pub.3gppnetwork.org  001-01            2  3 h 0 min ago  A addresses, AAAA no_data
  epdg.epc.mnc001.mcc262.pub.3gppnetwork.org  262-01            0              -  192.0.2.53:53: timed out

Probes
  OPERATOR  ADDRESSES  REACHABLE      RTT       ANSWERED
  262-01            2          0  12.3 ms  3 h 0 min ago  198.18.0.1 port 4500 silent

Countries
  /var/lib/GeoIP/country.mmdb, 11 days old: 2 endpoints have their country by it, 1 are not in it
  11 endpoints are in another country by their address than by their operator, which counts
  ENDPOINT    OPERATOR  BY OPERATOR  BY ADDRESS
  198.18.0.1  262-01    DE           AT
  … 10 more; --json has up to a hundred

Seen from clients
  1 clients asked for ePDGs' names; 3 answers taken, 1 spoofed, 2 dropped for the rate
  OPERATOR  CLIENTS
  262-01          1
  CANDIDATE    COUNTRY  EXCHANGES    ANSWERED
  203.0.113.9  JP               4  13 min ago
"#;

    #[test]
    fn an_empty_report_has_a_head_only() {
        let report = Report {
            version: "0.1.0".into(),
            instance: "lab".into(),
            ..Report::default()
        };
        assert_eq!(
            text(&report),
            "wificall 0.1.0, instance lab: no agent runs\n"
        );
    }

    #[test]
    fn ages_and_sizes() {
        let ages = [0, 59, 60, 3599, 3600, 86_399, 86_400, 200_000].map(age);
        assert_eq!(
            ages,
            [
                "0 s",
                "59 s",
                "1 min",
                "59 min",
                "1 h 0 min",
                "23 h 59 min",
                "1 d 0 h",
                "2 d 7 h"
            ]
        );
        let sizes = [
            0,
            9999,
            10_000,
            999_949,
            1_000_000,
            12_345_678_901,
            u64::MAX,
        ]
        .map(bytes);
        assert_eq!(
            sizes,
            [
                "0 B",
                "9999 B",
                "10.0 kB",
                "999.9 kB",
                "1.0 MB",
                "12.3 GB",
                "18446.7 PB"
            ]
        );
    }
}

//! Bad files and the exact messages that they get; good files and what they mean.

use std::path::Path;

use super::*;

/// Parses `source`, completed at its end with the sections that every file needs.
fn complete(source: &str) -> Result<Parsed, Errors> {
    let mut source = source.trim_start().to_owned();
    for (header, section) in [
        ("[interfaces]", "access = [\"wlan0\"]"),
        ("[discovery]", "countries = [\"AU\", \"DE\"]"),
    ] {
        if !source.contains(header.trim_matches(['[', ']'])) {
            source.push_str(&format!("\n{header}\n{section}\n"));
        }
    }
    parse(&source, Path::new("f"))
}

/// Each file with what is said about it.
const BAD: &[(&str, &str)] = &[
    (
        r#"
[agent]
instance = "Main"
bpfs = "/sys/fs/bpf"
run_dir = "run"
listen = 9817
resync = 30
"#,
        r#"
f:2:12: agent.instance: found "Main", expected a name of 1 to 32 characters out of a-z, 0-9, _ and -
f:3:1: agent.bpfs: found an unknown key, expected one of the keys instance, bpffs, run_dir, state_dir, listen, resync
  hint: did you mean `bpffs`?
f:4:11: agent.run_dir: found "run", expected an absolute path
f:5:10: agent.listen: found 9817, expected an address and port such as "127.0.0.1:9817" or "[::1]:9817", or "off"
f:6:10: agent.resync: found 30, expected a duration from 1s to 24h, such as "30s"
  hint: give the unit: "30s"
"#,
    ),
    (
        r#"
[probe]
enabled = "true"
interval = "5m"
spacing = "500ms"
ports = [500, 0]
every = "1h"
"#,
        r#"
f:2:11: probe.enabled: found "true", expected true or false
  hint: without quotes
f:3:12: probe.interval: found "5m", expected a duration from 10m to 168h, such as "30s"
f:4:11: probe.spacing: found "500ms", expected a duration from 1s to 1h, such as "30s"
f:5:15: probe.ports[1]: found 0, expected a number from 1 to 65535
f:6:1: probe.every: found an unknown key, expected one of the keys ports, enabled, interval, spacing
"#,
    ),
    (
        r#"
[agent]
listen = "localhost:80"
resync = "2 weeks"
state_dir = 1979-05-27
"#,
        r#"
f:2:10: agent.listen: found "localhost:80", expected an address and port such as "127.0.0.1:9817" or "[::1]:9817", or "off"
  hint: give the address: "127.0.0.1:80"
f:3:10: agent.resync: found "2 weeks", expected a duration from 1s to 24h, such as "30s"
  hint: the units are ms, s, m, h and d
f:4:13: agent.state_dir: found 1979-05-27, expected an absolute path
"#,
    ),
    (
        r#"
[agent]
listen = "127.0.0.1"
resync = "100ms"
"#,
        r#"
f:2:10: agent.listen: found "127.0.0.1", expected an address and port such as "127.0.0.1:9817" or "[::1]:9817", or "off"
  hint: give the port: "127.0.0.1:9817"
f:3:10: agent.resync: found "100ms", expected a duration from 1s to 24h, such as "30s"
"#,
    ),
    (
        r#"
[agent]
listen = ":80"
resync = "99999999999999999999h"
"#,
        r#"
f:2:10: agent.listen: found ":80", expected an address and port such as "127.0.0.1:9817" or "[::1]:9817", or "off"
  hint: for all addresses: "0.0.0.0:80" or "[::]:80"
f:3:10: agent.resync: found "99999999999999999999h", expected a duration from 1s to 24h, such as "30s"
"#,
    ),
    (
        r#"
[agent]
instance = ""
[agents]
"#,
        r#"
f:2:12: agent.instance: found "", expected a name of 1 to 32 characters out of a-z, 0-9, _ and -
f:3:2: agents: found an unknown key, expected one of the keys discovery, lab, limits, agent, interfaces, snoop, geoip, observed, probe, prefix, defaults, other_ipsec, trust, policy
  hint: did you mean `agent`?
"#,
    ),
    (
        r#"
agent = 3
policy = 4
prefix = [1]
"#,
        r#"
f:1:9: agent: found 3, expected a table, [agent]
f:2:10: policy: found 4, expected an array of tables, each under [[policy]]
f:3:11: prefix[0]: found 1, expected an array of tables, each under [[prefix]]
"#,
    ),
    (
        r#"
[interfaces]
"#,
        r#"
f:1:1: interfaces: found no interface, expected `access`, `uplink` or both in [interfaces]
  hint: name the interfaces towards phones: access = ["wlan*"]
"#,
    ),
    (
        r#"
[interfaces]
access = "wlan0"
"#,
        r#"
f:2:10: interfaces.access: found "wlan0", expected an array of interface names
"#,
    ),
    (
        r#"
[interfaces]
access = ["wlan0", "br-lan", "wlan0", "a name that is too long", 3]
uplink = ["br-lan", "wan", "w*n0"]
xdp = ["wan", "eth0"]
xdp_mode = "nativ"
tc = "tc"
wireles = []
"#,
        r#"
f:2:30: interfaces.access[2]: found "wlan0", expected each interface once
f:2:39: interfaces.access[3]: found "a name that is too long", expected an interface name of at most 15 characters, such as "eth0" or "wlan*"
f:2:66: interfaces.access[4]: found 3, expected an interface name of at most 15 characters, such as "eth0" or "wlan*"
f:3:11: interfaces.uplink[0]: found "br-lan", expected an interface that `access` does not also name
  hint: on a box with one interface for both ways, that is `access`
f:3:28: interfaces.uplink[2]: found "w*n0", expected an interface that `access` does not also name
  hint: on a box with one interface for both ways, that is `access`
f:4:15: interfaces.xdp[1]: found "eth0", expected an interface that is also in `access` or `uplink`
f:5:12: interfaces.xdp_mode: found "nativ", expected "native" or "generic"
  hint: did you mean "native"?
f:6:6: interfaces.tc: found "tc", expected "auto", "tcx" or "clsact"
  hint: did you mean "tcx"?
f:7:1: interfaces.wireles: found an unknown key, expected one of the keys access, uplink, xdp, xdp_mode, tc, wireless
  hint: did you mean `wireless`?
"#,
    ),
    (
        r#"
[discovery]
"#,
        r#"
f:1:1: discovery: found nothing to classify, expected `countries`, `operators`, `world = true`, `names` or `prefixes` in [discovery], or a [[prefix]]
  hint: name the countries of your guests' carriers: countries = ["AU"]; or all: world = true; or learn from what guests ask for: names = true in [snoop]
"#,
    ),
    (
        r#"
[discovery]
countries = ["UK", "au", "XX", "AU", "AU", 61]
operators = ["26201", "262-1", "262-*", "x", 505, "telstra", "262-1000", "000-01", "1262-01", "262-**"]
"#,
        r#"
f:2:14: discovery.countries[0]: found "UK", expected an ISO 3166-1 alpha-2 code in capitals, such as AU
  hint: did you mean "GB"?
f:2:20: discovery.countries[1]: found "au", expected an ISO 3166-1 alpha-2 code in capitals, such as AU
  hint: did you mean "AU"?
f:2:26: discovery.countries[2]: found "XX", expected an ISO 3166-1 alpha-2 code in capitals, such as AU
f:2:38: discovery.countries[4]: found "AU", expected each country once
f:2:44: discovery.countries[5]: found 61, expected an ISO 3166-1 alpha-2 code in capitals, such as AU
f:3:14: discovery.operators[0]: found "26201", expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
  hint: did you mean "262-01"?
f:3:23: discovery.operators[1]: found "262-1", expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
  hint: did you mean "262-01"?
f:3:41: discovery.operators[3]: found "x", expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
f:3:46: discovery.operators[4]: found 505, expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
f:3:51: discovery.operators[5]: found "telstra", expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
  hint: did you mean "505-01" (Telstra, AU)? `wificall operators --search` finds numbers by names
f:3:62: discovery.operators[6]: found "262-1000", expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
  hint: did you mean "262-10"?
f:3:74: discovery.operators[7]: found "000-01", expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
f:3:84: discovery.operators[8]: found "1262-01", expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
  hint: did you mean "262-01"?
f:3:95: discovery.operators[9]: found "262-**", expected MCC-MNC with three and two or three digits, such as 262-01, or MCC-*
  hint: `wificall operators --search 262` lists those of MCC 262 (DE)
"#,
    ),
    (
        r#"
[discovery]
world = "yes"
names = ["epdg", "epdg..example.net", "https://epdg.example.net/", "192.0.2.1", 3, "a b.example", "epdg.example.net", "EPDG.example.net."]
prefixes = ["192.0.2.1", "0.0.0.0/0", "109.237.187.0/24", "109.237.187.0/24"]
"#,
        r#"
f:2:9: discovery.world: found "yes", expected true or false, without quotes
f:3:10: discovery.names[0]: found "epdg", expected a DNS name such as epdg.example.net: two labels or more, of 1 to 63 letters, digits, - and _, and 253 characters at most
f:3:18: discovery.names[1]: found "epdg..example.net", expected a DNS name such as epdg.example.net: two labels or more, of 1 to 63 letters, digits, - and _, and 253 characters at most
  hint: did you mean "epdg.example.net"?
f:3:39: discovery.names[2]: found "https://epdg.example.net/", expected a DNS name such as epdg.example.net: two labels or more, of 1 to 63 letters, digits, - and _, and 253 characters at most
  hint: did you mean "epdg.example.net"?
f:3:68: discovery.names[3]: found "192.0.2.1", expected a DNS name such as epdg.example.net: two labels or more, of 1 to 63 letters, digits, - and _, and 253 characters at most
  hint: an address is no name: write "192.0.2.1/32" in `prefixes`
f:3:81: discovery.names[4]: found 3, expected a DNS name such as epdg.example.net: two labels or more, of 1 to 63 letters, digits, - and _, and 253 characters at most
f:3:84: discovery.names[5]: found "a b.example", expected a DNS name such as epdg.example.net: two labels or more, of 1 to 63 letters, digits, - and _, and 253 characters at most
  hint: did you mean "a-b.example"?
f:3:119: discovery.names[7]: found "EPDG.example.net.", expected each name once
f:4:13: discovery.prefixes[0]: found "192.0.2.1", expected a network such as "192.0.2.0/24" or "2001:db8::/64"
  hint: a single address is "192.0.2.1/32"
f:4:26: discovery.prefixes[1]: found "0.0.0.0/0", expected a network of unicast addresses, not wider than /8 (IPv6: /16)
f:4:59: discovery.prefixes[3]: found "109.237.187.0/24", expected each prefix once
"#,
    ),
    (
        r#"
[discovery]
names = [{ operator = "262-01" }, { name = "epdg.example.net", operater = "262-01" }, { name = "a", country = "UK" }, { name = "b.example", country = "UK", operator = "262" }]
"#,
        r#"
f:2:10: discovery.names[0]: found no `name`, expected a name such as name = "epdg.example.net"
f:2:64: discovery.names[1].operater: found an unknown key, expected one of the keys name, operator, country
  hint: did you mean `operator`?
f:2:96: discovery.names[2].name: found "a", expected a DNS name such as epdg.example.net: two labels or more, of 1 to 63 letters, digits, - and _, and 253 characters at most
f:2:111: discovery.names[2].country: found "UK", expected an ISO 3166-1 alpha-2 code in capitals, such as AU
  hint: did you mean "GB"?
f:2:151: discovery.names[3].country: found "UK", expected an ISO 3166-1 alpha-2 code in capitals, such as AU
  hint: did you mean "GB"?
f:2:168: discovery.names[3].operator: found "262", expected MCC-MNC with three and two or three digits, such as 262-01
  hint: `wificall operators --search 262` lists those of MCC 262 (DE)
"#,
    ),
    (
        r#"
[discovery]
countries = ["AU"]
keep = "1h"
refresh_min = "2h"
refresh_max = "1h"
widen = "blocks"
queries_per_second = 0
concurrency = 1000
timeout = "1m"
nat64_prefix = "64:ff9b::/95"
"#,
        r#"
f:3:8: discovery.keep: found "1h", expected at least 24h
  hint: carriers rotate their answers while tunnels to the old addresses live on; a test set-up may have less once there is a [lab] section
f:5:15: discovery.refresh_max: found "1h", expected `refresh_min` (2h) not above `refresh_max` (1h)
f:6:9: discovery.widen: found "blocks", expected "block" or "exact"
  hint: did you mean "block"?
f:7:22: discovery.queries_per_second: found 0, expected a number from 1 to 10000
f:8:15: discovery.concurrency: found 1000, expected a number from 1 to 256
f:9:11: discovery.timeout: found "1m", expected a duration from 100ms to 30s, such as "30s"
f:10:16: discovery.nat64_prefix: found "64:ff9b::/95", expected "auto", "none", or an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as "64:ff9b::/96"
"#,
    ),
    (
        r#"
[discovery]
countries = ["AU"]
refresh_min = "2h"
resolvers = ["dns.example", "https://dns.example", "192.0.2.1:0", 53]
nat64_prefix = "192.0.2.0/24"
"#,
        r#"
f:3:15: discovery.refresh_min: found "2h", expected `refresh_min` (2h) not above `refresh_max` (1h)
f:4:14: discovery.resolvers[0]: found "dns.example", expected `system`, or an address with an optional port, such as 192.0.2.53, [2001:db8::53]:5353, tcp://192.0.2.53, tls://192.0.2.53#dns.example.net or https://192.0.2.53/dns-query#dns.example.net
  hint: a resolver is given by address, for there is nobody to resolve its name
f:4:29: discovery.resolvers[1]: found "https://dns.example", expected `system`, or an address with an optional port, such as 192.0.2.53, [2001:db8::53]:5353, tcp://192.0.2.53, tls://192.0.2.53#dns.example.net or https://192.0.2.53/dns-query#dns.example.net
  hint: the address comes first, for there is nobody to resolve the name; the name that the certificate must have goes behind #: tls://192.0.2.53#dns.example.net
f:4:52: discovery.resolvers[2]: found "192.0.2.1:0", expected `system`, or an address with an optional port, such as 192.0.2.53, [2001:db8::53]:5353, tcp://192.0.2.53, tls://192.0.2.53#dns.example.net or https://192.0.2.53/dns-query#dns.example.net
f:4:67: discovery.resolvers[3]: found 53, expected `system`, or an address with an optional port, such as 192.0.2.53, [2001:db8::53]:5353, tcp://192.0.2.53, tls://192.0.2.53#dns.example.net or https://192.0.2.53/dns-query#dns.example.net
f:5:16: discovery.nat64_prefix: found "192.0.2.0/24", expected "auto", "none", or an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as "64:ff9b::/96"
"#,
    ),
    (
        r#"
[discovery]
countries = ["AU"]
absent_max = "30m"
[[discovery.upstream]]
resolvers = ["192.0.2.53", "192.0.2.53"]
mark = 101
[[discovery.upstream]]
countries = ["AU"]
mark = "0"
name = "x"
"#,
        r#"
f:3:14: discovery.absent_max: found "30m", expected not below `refresh_max` (1h)
f:4:1: discovery.upstream[0]: found no `operators` or `countries`, expected one of them, or both
f:5:28: discovery.upstream[0].resolvers[1]: found "192.0.2.53", expected each resolver once
f:6:8: discovery.upstream[0].mark: found 101, expected a mark above 0, such as "0x65" or "101", without a mask: all of it is the socket's; or "none"
f:7:1: discovery.upstream[1]: found no `resolvers`, expected the resolvers to ask, such as resolvers = ["192.0.2.53"]
f:9:8: discovery.upstream[1].mark: found "0", expected a mark above 0, such as "0x65" or "101", without a mask: all of it is the socket's; or "none"
f:10:1: discovery.upstream[1].name: found an unknown key, expected one of the keys operators, countries, resolvers, mark
"#,
    ),
    (
        r#"
[discovery]
countries = ["AU"]
nat64_prefix = "64:ff9b:0:0:100::/96"
"#,
        r#"
f:3:16: discovery.nat64_prefix: found "64:ff9b:0:0:100::/96", expected a NAT64 prefix whose bits 64 to 71 are zero (RFC 6052 §2.2)
"#,
    ),
    (
        r#"
[[prefix]]
prefix = "109.237.187.5/24"

[[prefix]]
prefix = "109.237.187.5"
[[prefix]]
operator = "262-01"
[[prefix]]
prefix = "10.0.0.0/8"
operator = "262"
country = "Germany"
"#,
        r#"
f:2:10: prefix[0].prefix: found "109.237.187.5/24", expected a network, without bits after the first 24
  hint: write "109.237.187.0/24" for the network, "109.237.187.5/32" for the address
f:5:10: prefix[1].prefix: found "109.237.187.5", expected a network such as "192.0.2.0/24" or "2001:db8::/64"
  hint: a single address is "109.237.187.5/32"
f:6:1: prefix[2]: found no `prefix`, expected a network such as prefix = "192.0.2.0/24"
f:10:12: prefix[3].operator: found "262", expected MCC-MNC with three and two or three digits, such as 262-01
  hint: `wificall operators --search 262` lists those of MCC 262 (DE)
f:11:11: prefix[3].country: found "Germany", expected an ISO 3166-1 alpha-2 code in capitals, such as AU
  hint: did you mean "DE"?
"#,
    ),
    (
        r#"
[[prefix]]
prefix = "109.237.187.0/24"
operator = "262-01"
[[prefix]]
prefix = "109.237.187.0/24"
operator = "262-02"
[[prefix]]
prefix = "109.237.187.0/24"
operator = "262-001"
[[prefix]]
prefix = "128.0.0.0/7"
[[prefix]]
prefix = "ff02::/16"
"#,
        r#"
f:8:10: prefix[2].prefix: found "109.237.187.0/24", expected each prefix once
  hint: prefix[0] is the same; one prefix may have several owners, but not one of them twice
f:11:10: prefix[3].prefix: found "128.0.0.0/7", expected a network of unicast addresses, not wider than /8 (IPv6: /16)
f:13:10: prefix[4].prefix: found "ff02::/16", expected a network of unicast addresses, not wider than /8 (IPv6: /16)
"#,
    ),
    (
        r#"
[defaults]
dscp = "ef"
priority = "high"
mark = 0x65
"#,
        r#"
f:2:8: defaults.dscp: found "ef", expected "EF", "VA", "CS0" to "CS7", "AF11" to "AF43", "DF", a number from 0 to 63, or "keep"
  hint: write "EF"
f:3:12: defaults.priority: found "high", expected "voice" or "none"
f:4:8: defaults.mark: found 0x65, expected a mark such as "0x65/0xff" (value/mask) or "none"
  hint: write it as a string: "0x65"
"#,
    ),
    (
        r#"
[defaults]
dscp = 64
mark = "0x165/0xff"
"#,
        r#"
f:2:8: defaults.dscp: found 64, expected "EF", "VA", "CS0" to "CS7", "AF11" to "AF43", "DF", a number from 0 to 63, or "keep"
f:3:8: defaults.mark: found "0x165/0xff", expected a value inside its mask
  hint: the mask of this value is at least 0x1ff: write "0x165/0x1ff"
"#,
    ),
    (
        r#"
[defaults]
dscp = "46"
mark = "1/0"
"#,
        r#"
f:2:8: defaults.dscp: found "46", expected "EF", "VA", "CS0" to "CS7", "AF11" to "AF43", "DF", a number from 0 to 63, or "keep"
  hint: write 46 without quotes
f:3:8: defaults.mark: found "1/0", expected a mask with at least one bit
  hint: the mask says which bits of the mark are ours
"#,
    ),
    (
        r#"
[defaults]
dscp = { mode = "default", up = "EF5", down = { default = "EF", ikev2 = "CS5", esp = true }, both = 1 }
mark = "one"
"#,
        r#"
f:2:17: defaults.dscp.mode: found "default", expected "set" or "if-default"
  hint: did you mean "if-default"?
f:2:33: defaults.dscp.up: found "EF5", expected "EF", "VA", "CS0" to "CS7", "AF11" to "AF43", "DF", a number from 0 to 63, or "keep"
f:2:65: defaults.dscp.down.ikev2: found an unknown key, expected one of the keys default, ike, esp_udp, keepalive, esp
f:2:86: defaults.dscp.down.esp: found true, expected "EF", "VA", "CS0" to "CS7", "AF11" to "AF43", "DF", a number from 0 to 63, or "keep"
f:2:94: defaults.dscp.both: found an unknown key, expected one of the keys mode, up, down
f:3:8: defaults.mark: found "one", expected a mark such as "0x65/0xff" (value/mask) or "none"
"#,
    ),
    (
        r#"
[[policy]]
countries = ["AU"]
[[policy]]
name = "a b"
countries = ["DE"]
[[policy]]
name = "empty"
[[policy]]
name = "empty"
operators = []
"#,
        r#"
f:1:1: policy[0]: found no `name`, expected a name such as name = "australia"
f:4:8: policy[1].name: found "a b", expected a name of 1 to 64 characters out of a-z, A-Z, 0-9, _, - and .
f:6:1: policy[2] "empty": found no `operators` or `countries`, expected one of them, or both
f:8:1: policy[3] "empty": found no `operators` or `countries`, expected one of them, or both
f:9:8: policy[3].name: found "empty", expected a name of its own
  hint: policy[2] has the same name
"#,
    ),
    (
        r#"
[[policy]]
name = "australia"
countries = ["AU"]
mark = "0x165/0xff"
[[policy]]
name = "telstra"
operators = ["505-01"]
countries = ["AU"]
dcsp = "EF"
[[policy]]
name = "australia"
countries = ["AU"]
"#,
        r#"
f:4:8: policy[0] "australia": mark: found "0x165/0xff", expected a value inside its mask
  hint: the mask of this value is at least 0x1ff: write "0x165/0x1ff"
f:5:1: policy[1] "telstra": found only what policy[0] "australia" takes first, expected a policy that can match
  hint: the first match wins: put the narrower one first
f:9:1: policy[1] "telstra": dcsp: found an unknown key, expected one of the keys name, operators, countries, dscp, priority, mark, mark_use
  hint: did you mean `dscp`?
f:10:1: policy[2] "australia": found only what policy[0] "australia" takes first, expected a policy that can match
  hint: the first match wins: remove one of them
f:11:8: policy[2].name: found "australia", expected a name of its own
  hint: policy[0] has the same name
"#,
    ),
    (
        r#"
[limits]
blocks = 0
hosts = 1000001
prefixes = "many"
groups = -1
policies = 1.5
fragment = 1024
"#,
        r#"
f:2:10: limits.blocks: found 0, expected a number from 1 to 1000000
f:3:9: limits.hosts: found 1000001, expected a number from 1 to 1000000
f:4:12: limits.prefixes: found "many", expected a number from 1 to 1000000
f:5:10: limits.groups: found -1, expected a number from 1 to 1000000
f:6:12: limits.policies: found 1.5, expected a number from 1 to 1000000
f:7:1: limits.fragment: found an unknown key, expected one of the keys blocks, hosts, prefixes, groups, policies, fragments
  hint: did you mean `fragments`?
"#,
    ),
    (
        r#"
[limits]
policies = 1
[[policy]]
name = "a"
countries = ["AU"]
"#,
        r#"
f:2:12: limits.policies: found 1, expected at least 2, which this file needs
"#,
    ),
    (
        r#"
[lab]
admit = "198.18.0.0/15"
enabled = true
"#,
        r#"
f:2:9: lab.admit: found "198.18.0.0/15", expected an array of networks
f:3:1: lab.enabled: found an unknown key, expected one of the keys admit
"#,
    ),
    (
        r#"
[interfaces]
access = []
[discovery]
operators = []
"#,
        r#"
f:1:1: interfaces: found no interface, expected `access`, `uplink` or both in [interfaces]
  hint: name the interfaces towards phones: access = ["wlan*"]
f:3:1: discovery: found nothing to classify, expected `countries`, `operators`, `world = true`, `names` or `prefixes` in [discovery], or a [[prefix]]
  hint: name the countries of your guests' carriers: countries = ["AU"]; or all: world = true; or learn from what guests ask for: names = true in [snoop]
"#,
    ),
    (
        r#"
discovery = 3
limits = []
[interfaces]
access = ["wlan0"]
"#,
        r#"
f:1:13: discovery: found 3, expected a table, [discovery]
f:2:10: limits: found an array, expected a table, [limits]
"#,
    ),
    (
        r#"
[agent
listen = off
"#,
        r#"
f:1:7: found unclosed table, expected `]`
"#,
    ),
    (
        r#"
a = 1
a = 2
"#,
        r#"
f:2:1: found duplicate key, expected valid TOML
"#,
    ),
    (
        r#"
[agent]
instance = "éé" # é
run_dir = """
x
y"""
"#,
        r#"
f:2:12: agent.instance: found "éé", expected a name of 1 to 32 characters out of a-z, 0-9, _ and -
f:3:11: agent.run_dir: found """…, expected an absolute path
"#,
    ),
];

#[test]
fn bad_files_get_all_their_errors_at_once() {
    for (source, expected) in BAD {
        match complete(source) {
            Ok(parsed) => panic!("accepted: {source}\n{parsed:?}"),
            Err(errors) => assert_eq!(format!("\n{errors}\n"), *expected, "for: {source}"),
        }
    }
}

#[test]
fn what_is_odd_is_a_warning() {
    let source = r#"
[discovery]
operators = ["001-01", "208-85", "998-*"]
countries = ["AX"]
[[prefix]]
prefix = "192.0.2.0/24"
operator = "302-720"
[[policy]]
name = "elsewhere"
countries = ["FR", "CA"]
[[policy]]
name = "other"
operators = ["262-01"]
[[policy]]
name = "neither"
operators = ["208-*"]
countries = ["GB"]
"#;
    let expected = r#"
f:2:24: warning: discovery.operators[1]: found "208-85", expected an operator that the catalogue has
  hint: did you mean 208-86 (SEM@FOR77)? It is used all the same: its standard name may exist
f:2:34: warning: discovery.operators[2]: found "998-*", expected an MCC of which the catalogue has operators
  hint: this resolves nothing: name its operators one by one
f:3:14: warning: discovery.countries[0]: found "AX", expected a country of which the catalogue has operators
  hint: this resolves nothing: name its operators in `operators`
f:10:1: warning: policy[1] "other": found only others, expected operators or countries that [discovery] or a [[prefix]] has
  hint: this policy matches nothing: add them to [discovery]
f:13:1: warning: policy[2] "neither": found only others, expected operators or countries that [discovery] or a [[prefix]] has
  hint: this policy matches nothing: add them to [discovery]
"#;
    let parsed = complete(source).unwrap();
    assert_eq!(format!("\n{}\n", parsed.warnings), expected);
    // In a lab, operators that do not exist are the rule.
    let lab = complete(&format!("{source}\n[lab]\n")).unwrap();
    assert_eq!(lab.warnings.warnings.len(), 2);
    assert_eq!(lab.config.discovery, parsed.config.discovery);
}

#[test]
fn names_that_are_not_seen_are_named() {
    let name = |labels: usize| format!("{}example", "epdg-label.".repeat(labels));
    let source = |more: &str| {
        let (short, long) = (name(10), name(11));
        format!("[discovery]\nnames = [\"{short}\", \"{long}\"]\n{more}")
    };
    let parsed = complete(&source("[snoop]\nnames = true\n")).unwrap();
    let expected = format!(
        "f:2:9: warning: discovery.names: found \"{}\", expected names of at most 126 characters, where [snoop] looks for \
         them\n  hint: it is resolved all the same; clients that ask for it are not seen",
        name(11)
    );
    assert_eq!(parsed.warnings.to_string(), expected);
    // Nobody looks.
    assert_eq!(complete(&source("")).unwrap().warnings.warnings, []);
}

#[test]
fn a_file_of_two_lines_has_the_documented_defaults() {
    let parsed = complete("").unwrap();
    assert_eq!(parsed.warnings.warnings, []);
    let ef = Treatment {
        dscp: Dscp::all(46),
        priority: Priority::Voice,
        mark: None,
        mark_use: MarkUse::Route,
        cap: None,
    };
    let expected = Config {
        snoop: Snoop {
            names: false,
            ike: SnoopIke::Off,
            events_per_second: 500,
        },
        geoip: GeoIp::default(),
        agent: Agent {
            instance: "default".to_owned(),
            bpffs: "/sys/fs/bpf".into(),
            run_dir: "/run/wificall".into(),
            state_dir: "/var/lib/wificall".into(),
            listen: Some("127.0.0.1:9817".parse().unwrap()),
            resync: Duration::from_secs(30),
        },
        interfaces: Interfaces {
            access: vec![Glob::new("wlan0").unwrap()],
            uplink: vec![],
            xdp: vec![],
            xdp_mode: XdpMode::Native,
            tc: TcMode::Auto,
            wireless: vec![],
        },
        discovery: Discovery {
            world: false,
            operators: vec![],
            countries: vec!["AU".parse().unwrap(), "DE".parse().unwrap()],
            names: vec![],
            catalogue: vec![],
            resolvers: vec![Upstream::System],
            routes: Vec::new(),
            ca_file: None,
            refresh_min: Duration::from_secs(60),
            refresh_max: Duration::from_secs(3600),
            absent_max: Duration::from_secs(24 * 3600),
            keep: Duration::from_secs(86400),
            timeout: Duration::from_secs(3),
            widen: Widen::Block,
            queries_per_second: 20,
            concurrency: 8,
            nat64_prefix: Nat64::Auto,
        },
        observed: Observed {
            dscp: true,
            priority: true,
            mark: false,
            cap: NonZeroU32::new(150),
            keep: Duration::from_secs(600),
            longest: Duration::from_secs(4 * 3600),
        },
        other_ipsec: OtherIpsec::default(),
        trust: Trust::default(),
        probe: Probe {
            enabled: false,
            interval: Duration::from_secs(6 * 3600),
            spacing: Duration::from_secs(10),
            ports: vec![500, 4500],
        },
        lab: Lab::default(),
        prefixes: vec![],
        defaults: ef,
        exits: vec![],
        policies: vec![],
        limits: Limits {
            blocks: 16384,
            hosts: 4096,
            prefixes: 4096,
            groups: 2048,
            policies: 256,
            fragments: 1024,
            clients: 4096,
            choices: 65536,
            tunnels: 16384,
        },
        catalogue: Arc::new(crate::catalogue::catalogue().clone()),
    };
    assert_eq!(parsed.config, expected);
    let agent = parsed.config.agent;
    assert_eq!(agent.lock_path(), Path::new("/run/wificall/default/lock"));
    assert_eq!(
        agent.control_socket(),
        Path::new("/run/wificall/default/control.sock")
    );
    assert_eq!(
        agent.state_path(),
        Path::new("/var/lib/wificall/default/state.json")
    );
    assert_eq!(agent.pin_dir(), Path::new("/sys/fs/bpf/wificall/default"));
}

/// A file that has every key.
const FULL: &str = r#"
[agent]
instance = "lab_1"
bpffs = "/tmp/bpf"
run_dir = "/tmp/run"
state_dir = "/tmp/state"
listen = "off"
resync = "5m"

[interfaces]
access = ["wlan*", "br-lan"]
uplink = ["wan"]
xdp = ["wan", "wlan0"]
xdp_mode = "generic"
tc = "clsact"
wireless = ["wlan*"]

[discovery]
operators = ["001-01", "505-*"]
countries = ["DE"]
world = true
names = ["ePDG.example.net.", { name = "vowifi.example.net", operator = "262-01", country = "AT" }]
prefixes = ["109.237.188.0/24"]
catalogue = []
resolvers = ["system", "192.0.2.53", "tcp://[2001:db8::53]:5353"]
ca_file = "/etc/ssl/own.pem"
refresh_min = "1000ms"
refresh_max = "1d"
absent_max = "2d"
keep = "10s"
widen = "exact"
queries_per_second = 1
concurrency = 1
timeout = "1s"
nat64_prefix = "64:ff9b::/96"

[[discovery.upstream]]
operators = ["505-01"]
countries = ["NZ"]
resolvers = ["tls://192.0.2.53#dns.example.net"]
mark = "0x65"

[probe]
enabled = true
interval = "2s"
spacing = "10ms"
ports = [4500]

[lab]
admit = ["198.18.0.0/15", "fd00::/8"]

[[prefix]]
prefix = "109.237.187.0/24"
operator = "262-01"
country = "DE"
[[prefix]]
prefix = "2001:db8:1::/48"

[defaults]
dscp = { mode = "if-default", up = "EF", down = { default = "EF", ike = "CS5", esp_udp = 46, keepalive = "keep", esp = "EF" } }
priority = "none"
mark = "0x100/0xff00"

[[policy]]
name = "australia"
operators = ["505-01", "505-02"]
countries = ["AU"]
dscp = { up = "VA" }
mark = "101"
[[policy]]
name = "germany"
countries = ["DE"]
dscp = "keep"
priority = "voice"
mark = "none"
[[policy]]
name = "rest"
operators = ["505-*"]
dscp = 40

[other_ipsec]
action = "mark"
mark = "0x200/0xf00"
peers = ["10.0.0.0/8", "198.51.100.7"]

[trust]
bleach = true

[limits]
blocks = 1
hosts = 2
prefixes = 3
groups = 0x4
policies = 5
fragments = 1_000_000
"#;

#[test]
fn a_file_with_every_key_means_what_it_says() {
    let parsed = parse(FULL, Path::new("f")).unwrap();
    assert_eq!(parsed.warnings.warnings, []);
    let config = parsed.config;
    assert_eq!(config.agent.listen, None);
    assert_eq!(config.agent.resync, Duration::from_secs(300));
    assert_eq!(config.agent.pin_dir(), Path::new("/tmp/bpf/wificall/lab_1"));
    assert_eq!(
        (config.interfaces.xdp_mode, config.interfaces.tc),
        (XdpMode::Generic, TcMode::Clsact)
    );
    assert_eq!(
        config.discovery.operators,
        ["001-01", "505-*"].map(|text| text.parse().unwrap())
    );
    assert!(config.discovery.world);
    assert_eq!(
        config.discovery.names,
        [
            ExtraName {
                name: "epdg.example.net".to_owned(),
                operator: None,
                country: None,
            },
            ExtraName {
                name: "vowifi.example.net".to_owned(),
                operator: "262-01".parse().ok(),
                country: "AT".parse().ok(),
            },
        ]
    );
    assert!(config.catalogue.owner_of_name("epdg.example.net").is_some());
    let resolvers = ["system", "192.0.2.53", "tcp://[2001:db8::53]:5353"];
    assert_eq!(
        config.discovery.resolvers,
        resolvers.map(|text| text.parse().unwrap())
    );
    let route = &config.discovery.routes[0];
    assert_eq!(
        route.upstreams,
        ["tls://192.0.2.53#dns.example.net".parse().unwrap()]
    );
    assert_eq!(
        (route.operators.len(), route.countries.len(), route.mark),
        (1, 1, Some(0x65))
    );
    assert_eq!(
        config.discovery.ca_file.as_deref(),
        Some(Path::new("/etc/ssl/own.pem"))
    );
    assert_eq!(
        config.discovery.absent_max,
        Duration::from_secs(2 * 24 * 3600)
    );
    assert_eq!(config.discovery.refresh_min, Duration::from_secs(1));
    assert_eq!(config.discovery.keep, Duration::from_secs(10));
    assert_eq!(
        config.discovery.nat64_prefix,
        Nat64::Prefix("64:ff9b::/96".parse().unwrap())
    );
    let probe = Probe {
        enabled: true,
        interval: Duration::from_secs(2),
        spacing: Duration::from_millis(10),
        ports: vec![4500],
    };
    assert_eq!(config.probe, probe);
    assert_eq!(
        config.lab.admit,
        ["198.18.0.0/15", "fd00::/8"].map(|text| text.parse().unwrap())
    );
    let prefix = &config.prefixes[0];
    assert_eq!(prefix.prefix, "109.237.187.0/24".parse().unwrap());
    assert_eq!(
        (prefix.operator, prefix.country),
        ("262-01".parse().ok(), "DE".parse().ok())
    );
    assert_eq!(
        (config.prefixes[1].operator, config.prefixes[1].country),
        (None, None)
    );
    assert_eq!(
        config.prefixes[2].prefix,
        "109.237.188.0/24".parse().unwrap()
    );
    let limits = Limits {
        blocks: 1,
        hosts: 2,
        prefixes: 3,
        groups: 4,
        policies: 5,
        fragments: 1_000_000,
        clients: 4096,
        choices: 65536,
        tunnels: 16384,
    };
    assert_eq!(config.limits, limits);
    let other_ipsec = OtherIpsec {
        action: OtherAction::Mark(Mark {
            value: 0x200,
            mask: 0xf00,
        }),
        peers: ["10.0.0.0/8", "198.51.100.7/32"]
            .map(|peer| peer.parse().unwrap())
            .into(),
    };
    assert_eq!(config.other_ipsec, other_ipsec);
    assert!(config.trust.bleach);
}

#[test]
fn a_policy_takes_from_the_defaults_what_it_does_not_give() {
    let config = parse(FULL, Path::new("f")).unwrap().config;
    let down = [Some(40), Some(46), None, Some(46)];
    let if_default = |up| Dscp {
        mode: DscpMode::IfDefault,
        up: [Some(up); 4],
        down,
    };
    let mark = |value, mask| Some(Mark { value, mask });
    assert_eq!(config.defaults.dscp, if_default(46));
    let treatments: Vec<_> = config
        .policies
        .iter()
        .map(|policy| policy.treatment)
        .collect();
    let expected = [
        (if_default(44), Priority::None, mark(101, u32::MAX)),
        (Dscp::KEEP, Priority::Voice, None),
        (Dscp::all(40), Priority::None, mark(0x100, 0xff00)),
    ];
    assert_eq!(
        treatments,
        expected.map(|(dscp, priority, mark)| Treatment {
            dscp,
            priority,
            mark,
            mark_use: MarkUse::Route,
            cap: None,
        })
    );
}

#[test]
fn dscp_tables_complete_themselves_from_what_they_replace() {
    let dscp = |source: &str| complete(source).unwrap().config.defaults.dscp;
    // A table over `keep` writes what it names and nothing else.
    let policy = "[defaults]\ndscp = \"keep\"\n[[policy]]\nname = \"p\"\ncountries = [\"AU\"]\ndscp = { down = \"EF\" }";
    let expected = Dscp {
        mode: DscpMode::Set,
        up: [None; 4],
        down: [Some(46); 4],
    };
    assert_eq!(
        complete(policy).unwrap().config.policies[0].treatment.dscp,
        expected
    );
    assert_eq!(
        dscp("[defaults]\ndscp = { up = \"keep\", down = \"keep\" }"),
        Dscp::KEEP
    );
    assert_eq!(dscp("[defaults.dscp]\nmode = \"set\"\n"), Dscp::all(46));
    assert_eq!(
        dscp("[defaults.dscp.up]\nesp = 0\n").up,
        [Some(46), Some(46), Some(46), Some(0)]
    );
}

#[test]
fn problems_are_the_same_for_scripts() {
    let errors =
        complete("[[policy]]\nname = \"au\"\ncountries = [\"AU\"]\nmark = \"1/2\"").unwrap_err();
    let expected = serde_json::json!({
        "file": "f",
        "errors": [{
            "line": 4,
            "column": 8,
            "key": "policy[0].mark",
            "name": "au",
            "found": "\"1/2\"",
            "expected": "a value inside its mask",
            "hint": "the mask of this value is at least 0x3: write \"0x1/0x3\"",
        }],
    });
    assert_eq!(serde_json::to_value(errors).unwrap(), expected);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wificall.toml");
    let message = |file: &Path| {
        load(file)
            .unwrap_err()
            .to_string()
            .replace(file.to_str().unwrap(), "f")
    };
    assert_eq!(
        message(&file),
        "f: found No such file or directory (os error 2), expected a file that can be read\n  \
         hint: name another with --config; examples/ has some to start from"
    );
    std::fs::write(&file, b"[agent]\ninstance = \"\xff\"\n").unwrap();
    assert_eq!(
        message(&file),
        "f: found a byte sequence in line 2 that is not UTF-8, expected UTF-8 text\n  hint: save the file as UTF-8"
    );
    std::fs::write(&file, FULL).unwrap();
    assert_eq!(
        load(&file).unwrap().config,
        parse(FULL, &file).unwrap().config
    );
}

/// Catalogue files are read with the configuration: what they add is known to its checks, and their errors come with
/// its own.
#[test]
fn catalogue_files_add_and_err() {
    let files = |path: &Path| match path.to_str().unwrap() {
        "/good" => Ok(b"operator\t998-01\tXK\tNew\nname\t998-01\tepdg.new.example\n".to_vec()),
        "/bad" => Ok(b"operator\t998-01\tUK\tNew\nnam\t998-01\tx\n".to_vec()),
        "/latin1" => Ok(b"# x\noperator\t998-01\tXK\t\xe9\n".to_vec()),
        "/huge" => Ok(vec![b'#'; (8 << 20) + 1]),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let parsed = |catalogue: &str, rest: &str| {
        let source = format!(
            "interfaces.access = [\"wlan0\"]\n[discovery]\noperators = [\"998-*\"]\ncatalogue = {catalogue}\n{rest}"
        );
        parse_with(&source, Path::new("f"), &files)
    };
    let good = parsed(
        r#"["/good"]"#,
        "[[policy]]\nname = \"new\"\ncountries = [\"XK\"]",
    )
    .unwrap();
    assert_eq!(good.warnings.warnings, []);
    let catalogue = &good.config.catalogue;
    assert_eq!(
        catalogue.country_of("998-01".parse().unwrap()),
        "XK".parse().ok()
    );
    let targets = crate::discover::targets(catalogue, &good.config.discovery.selection());
    assert!(
        targets
            .names
            .iter()
            .any(|target| &*target.name == "epdg.new.example")
    );

    let errors = parsed(
        r#"["/bad", "/none", "relative", "/latin1", "/bad", "/huge"]"#,
        "widen = \"x\"\n",
    );
    assert_eq!(
        format!("\n{}\n", errors.unwrap_err()),
        r#"
f:4:22: discovery.catalogue[1]: found /none (entity not found), expected a file that can be read
f:4:31: discovery.catalogue[2]: found "relative", expected an absolute path
f:4:43: discovery.catalogue[3]: found a byte sequence in line 2 that is not UTF-8, expected UTF-8 text
f:4:54: discovery.catalogue[4]: found "/bad", expected each file once
f:4:62: discovery.catalogue[5]: found a file of 8388609 bytes, expected a catalogue file, of at most 8 MiB
f:5:9: discovery.widen: found "x", expected "block" or "exact"
/bad:1:17: found "UK", expected countries such as AU, or AU NZ, or - for none
  hint: did you mean GB?
/bad:2:1: found "nam", expected `operator`, `name`, `prefix` or `mcc`, and a tab after it
  hint: did you mean name?
"#
    );
}

#[test]
fn no_damage_to_a_file_makes_it_panic() {
    // The world would be looked through each time.
    let full = FULL.replace("world = true", "world = false");
    for (at, _) in full.char_indices() {
        let _ = parse(&full[..at], Path::new("f"));
        for damage in ["\"", "[", "=", "é", "0"] {
            let (before, after) = (&full[..at], &full[at + 1..]);
            let _ = parse(&format!("{before}{damage}{after}"), Path::new("f"));
        }
    }
}

#[test]
fn the_examples_are_right() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for name in ["access-point", "bypass-router", "firewall", "operations"] {
        let parsed = load(&directory.join(name).with_extension("toml"))
            .unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(parsed.warnings.warnings, [], "{name}");
    }
}

/// The keys of all tables of the value, without their paths.
fn keys(value: &toml::Value) -> Vec<&str> {
    match value {
        toml::Value::Table(table) => table
            .iter()
            .flat_map(|(key, value)| [vec![key.as_str()], keys(value)].concat())
            .collect(),
        toml::Value::Array(array) => array.iter().flat_map(keys).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_documentation_has_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    for key in keys(&toml::from_str(FULL).unwrap()) {
        let documented = [
            format!("\n| `{key}` |"),
            format!("\n## [{key}]"),
            format!("\n## [[{key}]]"),
            format!("\n## [[discovery.{key}]]"),
        ];
        assert!(
            documented.iter().any(|form| documentation.contains(form)),
            "{key}"
        );
    }
}

/// Where an operator's names are asked for its packets go too, unless the file says otherwise.
#[test]
fn questions_go_by_the_mark_of_the_policy() {
    const POLICIES: &str = "[[policy]]\nname = \"au\"\ncountries = [\"AU\"]\nmark = \"0x65/0xff\"\n\
                            [[policy]]\nname = \"de\"\noperators = [\"262-01\"]\nmark = \"0x66/0xff\"\n\
                            [[policy]]\nname = \"firewall\"\ncountries = [\"ZA\"]\nmark = \"0x67\"\n\
                            mark_use = \"passage\"\n[defaults]\nmark = \"0x70/0xff\"\n";
    let marks = |discovery: &str, upstream: &str| {
        let source = format!(
            "[interfaces]\naccess = [\"lan\"]\n[discovery]\n{discovery}\n\
             [[discovery.upstream]]\nresolvers = [\"192.0.2.53\"]\n{upstream}\n{POLICIES}"
        );
        let parsed = parse(&source, Path::new("f")).unwrap();
        let warned = parsed.warnings.to_string().contains("several marks");
        (parsed.config.discovery.routes[0].mark, warned)
    };
    let world = "world = true";
    let australia = "countries = [\"AU\"]";
    assert_eq!(marks(world, australia), (Some(0x65), false));
    for (mark, expected) in [("0x77", Some(0x77)), ("none", None)] {
        let upstream = format!("{australia}\nmark = \"{mark}\"");
        assert_eq!(marks(world, &upstream), (expected, false));
    }
    assert_eq!(
        marks(world, "operators = [\"262-01\"]"),
        (Some(0x66), false)
    );
    // What no policy is for has the mark of the defaults; a mark for a firewall leads nowhere.
    assert_eq!(marks(world, "countries = [\"NZ\"]"), (Some(0x70), false));
    assert_eq!(marks(world, "countries = [\"ZA\"]"), (None, false));
    // Others of the country have no policy; it matters only if they are asked for.
    let germany = "countries = [\"DE\"]";
    assert_eq!(marks(world, germany), (None, true));
    let one = "operators = [\"262-01\", \"505-01\"]";
    assert_eq!(marks(one, germany), (Some(0x66), false));
    assert_eq!(marks(one, "countries = [\"DE\", \"AU\"]"), (None, true));
    // Names that only clients ask for.
    assert_eq!(
        marks("[snoop]\nnames = true", australia),
        (Some(0x65), false)
    );
}

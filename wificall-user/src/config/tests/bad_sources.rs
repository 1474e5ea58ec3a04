//! Bad files: agent, interfaces, discovery.

/// Each file with what is said about it.
pub(super) const BAD: &[(&str, &str)] = &[
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
f:3:1: agent.bpfs: found an unknown key, expected one of the keys instance, bpffs, run_dir, state_dir, listen, token_file, hosts, resync
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
f:3:2: agents: found an unknown key, expected one of the keys discovery, lab, defaults, limits, agent, interfaces, snoop, telemetry, geoip, observed, probe, prefix, exit, catch_all, policy, other_ipsec, trust
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
];

//! Bad files: prefixes, treatments, policies, limits, and what is no TOML.

/// Each file with what is said about it.
pub(super) const BAD: &[(&str, &str)] = &[
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
f:6:1: policy[2] "empty": found no condition, expected what it is for: one or more of `operators`, `countries`, `names`, `emergency`, `prefixes`, `tiers`, `clients`, `interfaces`
  hint: what is for everything goes into [defaults]
f:8:1: policy[3] "empty": found no condition, expected what it is for: one or more of `operators`, `countries`, `names`, `emergency`, `prefixes`, `tiers`, `clients`, `interfaces`
  hint: what is for everything goes into [defaults]
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
f:9:1: policy[1] "telstra": dcsp: found an unknown key, expected one of the keys name, operators, countries, names, emergency, prefixes, tiers, clients, interfaces, companions, keep, drop, exit, dscp, priority, mark, mark_use, cap
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
f:7:1: limits.fragment: found an unknown key, expected one of the keys blocks, hosts, prefixes, groups, policies, fragments, clients, choices, tunnels, flows
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

//! Strict readers for formats whose programs no test has. Each gives the networks that a text names, in its order, and is
//! itself held against examples of the kind that the manual has.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

use super::set::HostName;

pub type Checked = Result<Vec<String>, String>;

/// Reads each line that is no comment.
fn lines(text: &str, sign: char, mut read: impl FnMut(&str) -> Option<()>) -> Result<(), String> {
    for line in text.lines().filter(|line| !line.starts_with(sign)) {
        read(line).ok_or_else(|| format!("{line:?}"))?;
    }
    Ok(())
}

/// A network without bits past its length.
fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().filter(|net: &IpNet| net.trunc() == *net)
}

fn host(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .map(|address: std::net::IpAddr| IpNet::from(address))
}

fn masked(address: &str, mask: &str) -> Option<IpNet> {
    let net = Ipv4Net::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok()?;
    (net.trunc() == net).then_some(net.into())
}

/// "Address Books and Address Sets", Security Policies User Guide for Security Devices: a name begins with a letter or
/// digit, has letters, digits, `:`, `.`, `-`, `_`, and at most 63 of them; a network has no bits past its prefix; a set is
/// of addresses that the book has.
pub fn junos(text: &str) -> Checked {
    let is_name = |name: &str| {
        let signs = |c: char| c.is_ascii_alphanumeric() || ":.-_".contains(c);
        name.len() <= 63
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(signs)
    };
    let (mut nets, mut book, mut set) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    lines(text, '#', |line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [
                "set",
                "security",
                "address-book",
                _,
                "address",
                name,
                network,
            ] => {
                nets.push(net(network)?.to_string());
                (is_name(name) && book.insert(name.to_owned())).then_some(())
            }
            [
                "set",
                "security",
                "address-book",
                _,
                "address-set",
                of,
                "address",
                name,
            ] => (is_name(of) && book.contains(name) && set.insert(name.to_owned())).then_some(()),
            ["delete", "security", "address-book", _, "address-set", of] => {
                is_name(of).then_some(())
            }
            _ => None,
        }
    })?;
    if set != book {
        return Err("an address is in no set".to_owned());
    }
    Ok(nets)
}

/// "Object Groups for ACLs", Security Configuration Guide: Access Control Lists, Cisco IOS XE: `host` and an address, or an
/// address and its subnet mask; in `v6-network` groups `host` and an address, or a prefix. An empty group is refused.
pub fn cisco_ios(text: &str) -> Checked {
    let (mut nets, mut group, mut members) = (Vec::new(), "", 0);
    lines(text, '!', |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let found = match (group, &words[..]) {
            ("", ["object-group", kind @ ("network" | "v6-network"), name]) if name.len() <= 64 => {
                group = if *kind == "network" { "4" } else { "6" };
                return Some(());
            }
            ("4" | "6", ["", "exit"]) if members > 0 => {
                (group, members) = ("", 0);
                return Some(());
            }
            ("4", ["", "host", address]) => host(address).filter(|net| net.addr().is_ipv4()),
            ("4", ["", address, mask]) => masked(address, mask),
            ("6", ["", "host", address]) => host(address).filter(|net| net.addr().is_ipv6()),
            ("6", ["", prefix]) => net(prefix).filter(|net| net.addr().is_ipv6()),
            _ => None,
        };
        members += 1;
        nets.push(found?.to_string());
        Some(())
    })?;
    match group {
        "" => Ok(nets),
        _ => Err("a group is not ended".to_owned()),
    }
}

/// "Objects for Access Control", Cisco ASA Series Firewall CLI Configuration Guide: `network-object` with `host` and an
/// address, an IPv4 address and mask, or an IPv6 prefix; both families in one group.
pub fn cisco_asa(text: &str) -> Checked {
    let (mut nets, mut group) = (Vec::new(), false);
    lines(text, '!', |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let found = match words[..] {
            ["object-group", "network", name] if !group && name.len() <= 64 => {
                group = true;
                return Some(());
            }
            ["", "network-object", "host", address] if group => host(address),
            ["", "network-object", address, mask] if group => masked(address, mask),
            ["", "network-object", prefix] if group => prefix
                .parse()
                .ok()
                .filter(|net: &Ipv6Net| net.trunc() == *net)
                .map(IpNet::from),
            _ => None,
        };
        nets.push(found?.to_string());
        Some(())
    })?;
    match group && nets.is_empty() {
        true => Err("the group is empty".to_owned()),
        false => Ok(nets),
    }
}

/// "Address-lists" and "Scripting", RouterOS documentation: a menu by its path; `add` and `remove` in it with named values;
/// `/ip` holds IPv4 and `/ipv6` IPv6.
pub fn mikrotik(text: &str) -> Checked {
    let (mut nets, mut v4) = (Vec::new(), None);
    lines(text, '#', |line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["/ip", "firewall", "address-list"] => v4 = Some(true),
            ["/ipv6", "firewall", "address-list"] => v4 = Some(false),
            ["remove", "[find", list] => {
                v4?;
                list.strip_prefix("list=")?
                    .strip_suffix(']')
                    .filter(|list| is_word(list))?;
            }
            ["add", list, address] => {
                list.strip_prefix("list=").filter(|list| is_word(list))?;
                let found = net(address.strip_prefix("address=")?)?;
                (found.addr().is_ipv4() == v4?).then(|| nets.push(found.to_string()))?;
            }
            _ => return None,
        }
        Some(())
    })?;
    Ok(nets)
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A rule without its policy.
fn rule(line: &str, nets: &mut Vec<String>) -> Option<()> {
    let words: Vec<&str> = line.split(',').collect();
    match words[..] {
        ["DOMAIN", name] => name.parse::<HostName>().ok().map(drop),
        ["IP-CIDR", network, "no-resolve"] | ["IP-CIDR6", network, "no-resolve"] => {
            let found = net(network)?;
            nets.push(found.to_string());
            (found.addr().is_ipv4() == (words[0] == "IP-CIDR")).then_some(())
        }
        _ => None,
    }
}

/// "Rule Set" and "IP Rules", Surge manual: a rule a line, without a policy; `#` begins a comment.
pub fn surge(text: &str) -> Checked {
    let mut nets = Vec::new();
    lines(text, '#', |line| rule(line, &mut nets))?;
    Ok(nets)
}

/// "Contents of the rule-providers file", mihomo wiki: `payload`, a sequence of rules without policies; here each in single
/// quotes.
pub fn clash(text: &str) -> Checked {
    let (mut nets, mut payload) = (Vec::new(), None);
    lines(text, '#', |line| match (line, payload) {
        ("payload:", None) => {
            payload = Some(false);
            Some(())
        }
        ("payload: []", None) => {
            payload = Some(true);
            Some(())
        }
        (_, Some(false)) => rule(line.strip_prefix("  - '")?.strip_suffix('\'')?, &mut nets),
        _ => None,
    })?;
    payload.map(|_| nets).ok_or_else(|| "no payload".to_owned())
}

/// "Source Format" and "Headless Rule", sing-box documentation: a version from 1 on and rules, each with one condition at
/// least; unknown keys are refused.
pub fn sing_box(text: &str) -> Checked {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let object = document.as_object().ok_or("no object")?;
    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
    if keys != ["rules", "version"]
        || !object["version"]
            .as_u64()
            .is_some_and(|v| (1..=4).contains(&v))
    {
        return Err(format!("{keys:?}"));
    }
    let mut nets = Vec::new();
    for rule in object["rules"].as_array().ok_or("no rules")? {
        let rule = rule
            .as_object()
            .filter(|rule| !rule.is_empty())
            .ok_or("no rule")?;
        for (key, values) in rule {
            for value in values
                .as_array()
                .filter(|list| !list.is_empty())
                .ok_or("no list")?
            {
                let text = value.as_str().ok_or("no text")?;
                let known = match key.as_str() {
                    "domain" => text.parse::<HostName>().is_ok(),
                    "ip_cidr" => net(text).map(|net| nets.push(net.to_string())).is_some(),
                    _ => false,
                };
                known
                    .then_some(())
                    .ok_or_else(|| format!("{key}: {text}"))?;
            }
        }
    }
    Ok(nets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the kind that the manuals have, and what they say is wrong.
    #[test]
    fn readers_take_examples_and_refuse_what_is_wrong() {
        for (check, good, bad) in [
            (
                junos as fn(&str) -> Checked,
                "set security address-book book1 address a1 203.0.113.0/24\n\
                 set security address-book book1 address a4 2001:db8::/32\n\
                 set security address-book book1 address-set set1 address a1\n\
                 set security address-book book1 address-set set1 address a4\n",
                &[
                    "set security address-book book1 address a1 203.0.113.4/24\n",
                    "set security address-book book1 address-set set1 address a1\n",
                    "set security address-book book1 address a1 203.0.113.0/24\n",
                    "set security address-book book1 address a/1 203.0.113.0/24\n",
                    "reboot\n",
                ][..],
            ),
            (
                cisco_ios,
                "object-group network my-network\n host 10.20.20.1\n 10.20.20.0 255.255.255.0\n exit\n\
                 object-group v6-network my6\n host 2001:db8::1\n 2001:db8:1::/48\n exit\n",
                &[
                    " host 10.20.20.1\n",
                    "object-group network a\n exit\n",
                    "object-group network a\n host 10.20.20.1\n",
                    "object-group network a\n 10.20.20.1 255.255.255.0\n exit\n",
                    "object-group network a\n 10.20.20.0 0.0.0.255.0\n exit\n",
                    "object-group network a\n 2001:db8::/32\n exit\n",
                    "object-group v6-network a\n host 10.1.1.1\n exit\n",
                ],
            ),
            (
                cisco_asa,
                "object-group network admins\n network-object host 10.2.2.4\n network-object 10.1.1.0 255.255.255.0\n \
                 network-object 2001:db8::/32\n",
                &[
                    "object-group network a\n",
                    " network-object host 10.2.2.4\n",
                    "object-group network a\n network-object 10.1.1.0/24\n",
                    "object-group network a\n network-object 10.1.1.4 255.255.255.0\n",
                ],
            ),
            (
                mikrotik,
                "/ip firewall address-list\nremove [find list=blocked]\nadd list=blocked address=198.51.100.0/24\n\
                 /ipv6 firewall address-list\nadd list=trusted_v6 address=2001:db8::/32\n",
                &[
                    "add list=a address=198.51.100.0/24\n",
                    "/ip firewall address-list\nadd list=a address=2001:db8::/32\n",
                    "/ip firewall address-list\nadd list=a b address=198.51.100.0/24\n",
                    "/ip firewall address-list\nremove [find]\n",
                    "/system reboot\n",
                ],
            ),
            (
                surge,
                "# comment\nDOMAIN,captive.apple.com\nIP-CIDR,172.16.0.0/12,no-resolve\n\
                 IP-CIDR6,2001:db8:abcd:8000::/50,no-resolve\n",
                &[
                    "IP-CIDR,2001:db8::/32,no-resolve\n",
                    "IP-CIDR,10.0.0.0/8,DIRECT,no-resolve\n",
                    "DOMAIN,a b.example\n",
                ],
            ),
            (
                clash,
                "payload:\n  - 'DOMAIN,ad.com'\n  - 'IP-CIDR,127.0.0.0/8,no-resolve'\n",
                &[
                    "  - 'DOMAIN,ad.com'\n",
                    "payload:\n  - 'DOMAIN,ad.com\n",
                    "payload: []\n  - 'DOMAIN,ad.com'\n",
                    "",
                ],
            ),
            (
                sing_box,
                r#"{ "version": 3, "rules": [{ "domain": ["test.com"], "ip_cidr": ["10.0.0.0/24"] }] }"#,
                &[
                    r#"{ "rules": [] }"#,
                    r#"{ "version": 9, "rules": [] }"#,
                    r#"{ "version": 1, "rules": [{}] }"#,
                    r#"{ "version": 1, "rules": [{ "ip": ["10.0.0.0/24"] }] }"#,
                    r#"{ "version": 1, "rules": [{ "ip_cidr": ["10.0.0.1/24"] }] }"#,
                    r#"{ "version": 1, "rules": [], "comment": "" }"#,
                ],
            ),
        ] {
            assert!(check(good).is_ok(), "{good}: {:?}", check(good));
            for bad in bad {
                assert!(check(bad).is_err(), "{bad}");
            }
        }
    }
}

//! Reads what a policy asks for: names, prefixes, clients, interfaces.

use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;

use super::reader::{Item, Section};
use super::report::Mismatch;
use super::sections::unplaced;
use super::{Client, Config, Glob, NamePattern, checks, values};

/// The values of one condition, each once.
pub(super) fn condition<'a, T: Eq + Hash>(
    section: &Section<'a>,
    key: &'static str,
    (expected, what): (&str, &str),
    is_known: &mut bool,
    read: impl Fn(&Item<'a>) -> Result<T, Mismatch>,
) -> Vec<T> {
    let Some(item) = section.item(key) else {
        return Vec::new();
    };
    let values = section.list(key, expected, read);
    checks::no_duplicates(&values, what);
    *is_known &= item
        .get()
        .as_array()
        .is_some_and(|array| array.len() == values.len());
    unplaced(values)
}

/// The interfaces that packets are treated at: those towards phones, or else the others.
pub(super) fn treated(config: &Config) -> &[Glob] {
    let interfaces = &config.interfaces;
    if interfaces.access.is_empty() {
        &interfaces.uplink
    } else {
        &interfaces.access
    }
}

pub(super) fn is_treated(glob: Glob, config: &Config) -> Result<Glob, Mismatch> {
    let treated = treated(config);
    if treated.is_empty() || treated.iter().any(|known| known.meets(&glob)) {
        return Ok(glob);
    }
    let (key, hint) = if config.interfaces.access.is_empty() {
        ("uplink", None)
    } else {
        let at_uplink = config.interfaces.uplink.iter().any(|up| up.meets(&glob));
        let hint = "with an access side, nothing is done at the uplink";
        ("access", at_uplink.then(|| hint.to_owned()))
    };
    Err(Mismatch {
        hint,
        ..Mismatch::expected(format!(
            "an interface that `{key}` in [interfaces] can also name"
        ))
    })
}

/// Reads a name, or `*.` and the name that others are below.
pub(super) fn name_pattern(item: &Item) -> Result<NamePattern, Mismatch> {
    const EXPECTED: &str = r#"a name such as "epdg.example.net", or "*.example.net" for all below"#;
    let text = item.string(EXPECTED)?;
    let suffix = text.strip_prefix("*.");
    let refused = |hint: Option<String>| Mismatch {
        hint,
        ..Mismatch::expected(EXPECTED)
    };
    let name = suffix.unwrap_or(text);
    if name.contains('*') {
        return Err(refused(Some(
            "`*` stands for whole labels at the beginning".to_owned(),
        )));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(refused(Some(format!(
            "an address is no name: write \"{}\" in `prefixes`",
            IpNet::from(address)
        ))));
    }
    let name = crate::catalogue::names::host_name(name).map_err(|error| {
        let star = if suffix.is_some() { "*." } else { "" };
        let meant = error.suggestion;
        refused(meant.map(|name| format!("did you mean \"{star}{name}\"?")))
    })?;
    Ok(match suffix {
        Some(_) => NamePattern::Below(name),
        None => NamePattern::Exact(name),
    })
}

/// Reads a network that endpoints can be in; also all of IPv4 or IPv6.
pub(super) fn prefix(item: &Item) -> Result<IpNet, Mismatch> {
    let net = values::network(item)?;
    if !has_unicast(&net) {
        return Err(Mismatch::expected(
            "a network of unicast addresses, in which endpoints can be",
        ));
    }
    Ok(net)
}

/// Reads a network, an address or a link-layer address.
pub(super) fn client(item: &Item) -> Result<Client, Mismatch> {
    const EXPECTED: &str = r#"a network, an address or a link-layer address, such as "192.168.1.0/24" or "02:00:00:00:00:01""#;
    let text = item.string(EXPECTED)?;
    if let Some(mac) = mac(text, ':') {
        let mismatch = Mismatch::expected("the link-layer address of one client");
        return if mac[0] & 1 != 0 {
            Err(mismatch.hint("this one is a group's: the lowest bit of its first byte is set"))
        } else if mac == [0; 6] {
            Err(mismatch)
        } else {
            Ok(Client::Mac(mac))
        };
    }
    if let Some(bytes) = mac(text, '-') {
        let parts = bytes.map(|byte| format!("{byte:02x}"));
        return Err(Mismatch::expected(EXPECTED).hint(format!("write \"{}\"", parts.join(":"))));
    }
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) if text.parse::<IpNet>().is_err() => return Err(Mismatch::expected(EXPECTED)),
        Err(_) => values::network(item)?,
    };
    let link_local = matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
    if link_local || !has_unicast(&net) {
        return Err(Mismatch::expected(
            "a network of unicast addresses, from which clients can reach endpoints",
        ));
    }
    Ok(Client::Network(net))
}

/// Whether others than this box have addresses in it, each for itself.
fn has_unicast(net: &IpNet) -> bool {
    let address = net.addr();
    // 0.0.0.0/8 (RFC 1122 §3.2.1.3), ::/16 with ::1 in it; wider ones have others too.
    let nowhere =
        address.is_unspecified() && net.prefix_len() >= if address.is_ipv4() { 8 } else { 16 };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(nowhere || broadcast || address.is_loopback() || address.is_multicast())
}

/// Six bytes of two hexadecimal digits each.
fn mac(text: &str, separator: char) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(separator);
    for byte in &mut bytes {
        let part = parts.next()?;
        let is_hex = part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| is_hex)?;
    }
    parts.next().is_none().then_some(bytes)
}

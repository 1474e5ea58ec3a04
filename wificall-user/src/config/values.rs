//! Values that are written as strings.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::Glob;
use super::reader::Item;
use super::report::Mismatch;
use crate::catalogue::{
    Country, CountryError, NameError, OperatorPattern, Plmn, PlmnError, catalogue, names,
};
use crate::discover::nat64::{self, Nat64};
use crate::discover::{Upstream, UpstreamError};

/// Reads an interface name or glob.
pub(super) fn glob(item: &Item) -> Result<Glob, Mismatch> {
    const EXPECTED: &str =
        r#"an interface name of at most 15 characters, such as "eth0" or "wlan*""#;
    Glob::new(item.string(EXPECTED)?).ok_or_else(|| Mismatch::expected(EXPECTED))
}

/// Reads the name of one interface.
pub(super) fn device(item: &Item) -> Result<String, Mismatch> {
    const EXPECTED: &str =
        r#"the name of one interface, of at most 15 characters, such as "wg-au""#;
    let name = item.string(EXPECTED)?;
    Glob::new(name)
        .filter(Glob::is_literal)
        .map(|_| name.to_owned())
        .ok_or_else(|| Mismatch::expected(EXPECTED))
}

/// Reads `true` or `false`.
pub(super) fn boolean(item: &Item) -> Result<bool, Mismatch> {
    match item.get() {
        DeValue::Boolean(value) => Ok(*value),
        DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
            Err(Mismatch::expected("true or false").hint("without quotes"))
        }
        _ => Err(Mismatch::expected("true or false")),
    }
}

/// Reads a duration within `range`, such as `"30s"`.
pub(super) fn duration(item: &Item, range: RangeInclusive<Duration>) -> Result<Duration, Mismatch> {
    let refused = || {
        Mismatch::expected(format!(
            "a duration from {} to {}, such as \"30s\"",
            show(*range.start()),
            show(*range.end())
        ))
    };
    let text = match item.get() {
        DeValue::Integer(number) => {
            return Err(refused().hint(format!("give the unit: \"{number}s\"")));
        }
        DeValue::String(text) => text.as_ref(),
        _ => return Err(refused()),
    };
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() < text.len() && unit_of(unit).is_none() {
        return Err(refused().hint("the units are ms, s, m, h and d"));
    }
    parse_duration(text)
        .filter(|duration| range.contains(duration))
        .ok_or_else(refused)
}

/// A duration such as `30s`: a whole number and its unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().ok()?;
    number
        .checked_mul(unit_of(unit)?)
        .map(Duration::from_millis)
}

/// Milliseconds of a unit.
fn unit_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    })
}

/// A duration in the largest unit that holds it whole.
pub(super) fn show(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    [("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find(|(_, size)| milliseconds >= *size && milliseconds.is_multiple_of(*size))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(unit, size)| format!("{}{unit}", milliseconds / size),
        )
}

/// A number in decimal, or in hexadecimal after `0x`.
pub fn parse_number(text: &str) -> Option<u32> {
    // `from_str_radix` takes a sign, which nobody means here.
    let (digits, radix) = text
        .strip_prefix("0x")
        .map_or((text, 10), |digits| (digits, 16));
    digits
        .chars()
        .all(|c| c.is_digit(radix))
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
}

/// Reads an absolute path.
pub(super) fn path(item: &Item) -> Result<PathBuf, Mismatch> {
    const EXPECTED: &str = "an absolute path";
    let path = PathBuf::from(item.string(EXPECTED)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Mismatch::expected(EXPECTED))
    }
}

/// Reads where metrics are written: node_exporter reads files of this ending only.
pub(super) fn textfile(item: &Item) -> Result<PathBuf, Mismatch> {
    const EXPECTED: &str = "an absolute path that ends in .prom";
    let path = path(item).map_err(|_| Mismatch::expected(EXPECTED))?;
    if path
        .extension()
        .is_some_and(|extension| extension == "prom")
    {
        Ok(path)
    } else {
        Err(Mismatch::expected(EXPECTED))
    }
}

/// Reads the name of a host, without a port; in lower case.
pub(super) fn host(item: &Item) -> Result<String, Mismatch> {
    const EXPECTED: &str = r#"the name of a host without a port, such as "ap1.example.net""#;
    let name = item.string(EXPECTED)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if (1..=253).contains(&name.len()) && name.chars().all(allowed) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(Mismatch::expected(EXPECTED))
    }
}

/// Whether an instance can have this name: 1 to 32 characters out of a-z, 0-9, _ and -.
pub(super) fn is_instance(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    (1..=32).contains(&name.len()) && name.chars().all(allowed)
}

/// Reads an instance's name.
pub(super) fn instance(item: &Item) -> Result<String, Mismatch> {
    const EXPECTED: &str = "a name of 1 to 32 characters out of a-z, 0-9, _ and -";
    let name = item.string(EXPECTED)?;
    if is_instance(name) {
        Ok(name.to_owned())
    } else {
        Err(Mismatch::expected(EXPECTED))
    }
}

/// Reads the name of a policy or an exit.
pub(super) fn policy_name(item: &Item) -> Result<String, Mismatch> {
    const EXPECTED: &str = "a name of 1 to 64 characters out of a-z, A-Z, 0-9, _, - and .";
    let name = item.string(EXPECTED)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        Ok(name.to_owned())
    } else {
        Err(Mismatch::expected(EXPECTED))
    }
}

/// Reads where to listen; `None` for `"off"`.
pub(super) fn listen(item: &Item) -> Result<Option<SocketAddr>, Mismatch> {
    const EXPECTED: &str =
        r#"an address and port such as "127.0.0.1:9817" or "[::1]:9817", or "off""#;
    let text = item.string(EXPECTED)?;
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let hint = match (text.parse::<IpAddr>(), text.rsplit_once(':')) {
            (Ok(address), _) => Some(format!(
                "give the port: \"{}\"",
                SocketAddr::new(address, 9817)
            )),
            (Err(_), Some(("localhost", port))) => {
                Some(format!("give the address: \"127.0.0.1:{port}\""))
            }
            (Err(_), Some(("" | "*", port))) => Some(format!(
                "for all addresses: \"0.0.0.0:{port}\" or \"[::]:{port}\""
            )),
            _ => None,
        };
        Mismatch {
            hint,
            ..Mismatch::expected(EXPECTED)
        }
    })
}

/// Reads a resolver.
pub(super) fn upstream(item: &Item) -> Result<Upstream, Mismatch> {
    item.string(UpstreamError::EXPECTED)?
        .parse()
        .map_err(|error: UpstreamError| Mismatch {
            hint: error.hint.map(str::to_owned),
            ..Mismatch::expected(UpstreamError::EXPECTED)
        })
}

/// Reads the fwmark of a socket.
pub(super) fn socket_mark(item: &Item) -> Result<Option<u32>, Mismatch> {
    const EXPECTED: &str = r#"a mark above 0, such as "0x65" or "101", without a mask: all of it is the socket's; or "none""#;
    let text = item.string(EXPECTED)?;
    let mark = parse_number(text).filter(|mark| *mark != 0);
    if mark.is_none() && text != "none" {
        return Err(Mismatch::expected(EXPECTED));
    }
    Ok(mark)
}

/// Reads a network. The host bits must be zero.
pub(super) fn network(item: &Item) -> Result<IpNet, Mismatch> {
    const EXPECTED: &str = r#"a network such as "192.0.2.0/24" or "2001:db8::/64""#;
    let text = item.string(EXPECTED)?;
    let refused = || Mismatch::expected(EXPECTED);
    let net: IpNet = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(address) => refused().hint(format!("a single address is \"{}\"", IpNet::from(address))),
        Err(_) => refused(),
    })?;
    if net == net.trunc() {
        Ok(net)
    } else {
        let length = net.prefix_len();
        Err(
            Mismatch::expected(format!("a network, without bits after the first {length}")).hint(
                format!(
                    "write \"{}\" for the network, \"{}\" for the address",
                    net.trunc(),
                    IpNet::from(net.addr())
                ),
            ),
        )
    }
}

/// Reads a NAT64 prefix (RFC 6052 §2.2).
pub(super) fn nat64(item: &Item) -> Result<Nat64, Mismatch> {
    const EXPECTED: &str = r#""auto", "none", or an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as "64:ff9b::/96""#;
    match item.string(EXPECTED)? {
        "auto" => return Ok(Nat64::Auto),
        "none" => return Ok(Nat64::Off),
        _ => {}
    }
    let IpNet::V6(net) = network(item)? else {
        return Err(Mismatch::expected(EXPECTED));
    };
    if nat64::pref64(net).is_none() {
        return Err(Mismatch::expected(EXPECTED));
    }
    // Bits 64 to 71 are reserved in all of these addresses.
    if net.addr().octets()[8] != 0 {
        return Err(Mismatch::expected(
            "a NAT64 prefix whose bits 64 to 71 are zero (RFC 6052 §2.2)",
        ));
    }
    Ok(Nat64::Prefix(net))
}

/// Reads packets a second; `None` for `"none"`.
pub(super) fn cap(item: &Item) -> Result<Option<NonZeroU32>, Mismatch> {
    const EXPECTED: &str = r#"packets a second from 1 to 1000000, or "none""#;
    match item.get() {
        DeValue::String(text) if text == "none" => Ok(None),
        DeValue::Integer(_) => item.number(1..=1_000_000).map(NonZeroU32::new),
        _ => Err(Mismatch::expected(EXPECTED)),
    }
}

/// Reads an operator or all operators of an MCC.
pub(super) fn operator_pattern(item: &Item) -> Result<OperatorPattern, Mismatch> {
    let expected = format!("{}, or MCC-*", PlmnError::EXPECTED);
    item.string(&expected)?
        .parse()
        .map_err(|error| plmn_mismatch(error, &expected))
}

/// Reads an operator.
pub(super) fn plmn(item: &Item) -> Result<Plmn, Mismatch> {
    item.string(PlmnError::EXPECTED)?
        .parse()
        .map_err(|error| plmn_mismatch(error, PlmnError::EXPECTED))
}

fn plmn_mismatch(error: PlmnError, expected: &str) -> Mismatch {
    let called = || {
        let operator = catalogue().called(&error.found)?;
        let country = operator.countries.first();
        let country = country.map_or(String::new(), |country| format!(", {country}"));
        Some(format!(
            "did you mean \"{}\" ({}{country})? `wificall operators --search` finds numbers by names",
            operator.plmn, operator.name
        ))
    };
    Mismatch {
        hint: match catalogue().meant(&error) {
            Some(plmn) => Some(format!("did you mean \"{plmn}\"?")),
            None => called().or_else(|| of_mcc(&error.found)),
        },
        ..Mismatch::expected(expected)
    }
}

/// A number that begins as those of a country do.
fn of_mcc(found: &str) -> Option<String> {
    let (mcc, rest) = found.split_at_checked(3)?;
    let country = catalogue().countries_of(mcc.parse().ok()?).first()?;
    (!rest.starts_with(|c: char| c.is_ascii_digit())).then(|| {
        format!("`wificall operators --search {mcc}` lists those of MCC {mcc} ({country})")
    })
}

/// Reads a DNS name.
pub(super) fn host_name(item: &Item) -> Result<String, Mismatch> {
    let text = item.string(NameError::EXPECTED)?;
    names::host_name(text).map_err(|error| Mismatch {
        hint: match text.parse::<IpAddr>() {
            Ok(address) => Some(format!(
                "an address is no name: write \"{}\" in `prefixes`",
                IpNet::from(address)
            )),
            Err(_) => error
                .suggestion
                .map(|name| format!("did you mean \"{name}\"?")),
        },
        ..Mismatch::expected(NameError::EXPECTED)
    })
}

/// Reads a country.
pub(super) fn country(item: &Item) -> Result<Country, Mismatch> {
    let code = item.string(CountryError::EXPECTED)?;
    code.parse().map_err(|error: CountryError| Mismatch {
        hint: error
            .suggestion
            .map(|country| format!("did you mean \"{country}\"?")),
        ..Mismatch::expected(CountryError::EXPECTED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_whole_units() {
        for (seconds, text) in [(1, "1s"), (90, "90s"), (120, "2m"), (86400, "24h")] {
            assert_eq!(show(Duration::from_secs(seconds)), text);
        }
        assert_eq!(show(Duration::from_millis(1500)), "1500ms");
    }

    #[test]
    fn numbers_have_no_sign_and_fit() {
        assert_eq!(parse_number("0x65"), Some(0x65));
        assert_eq!(parse_number("101"), Some(101));
        assert_eq!(parse_number("0xffffffff"), Some(u32::MAX));
        for text in ["", "0x", "+1", "-1", "0x+1", "4294967296", "1 ", "ff"] {
            assert_eq!(parse_number(text), None, "{text:?}");
        }
    }
}

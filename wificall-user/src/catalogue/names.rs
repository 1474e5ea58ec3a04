//! Names of ePDGs and N3IWFs: made from an operator's number, and read back.
//!
//! 3GPP TS 23.003 §19.4.2.9 (ePDG), §19.4.2.9A (emergency), §28.3.2.2 (N3IWF), and what carriers
//! make of them.

use super::Plmn;

/// Which of an operator's names a name is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    /// Operator identifier FQDN of the ePDG (TS 23.003 §19.4.2.9.2).
    Operator,
    /// The same with a two-digit MNC label, against §19.2: some carriers publish that.
    Unpadded,
    /// Operator identifier FQDN for emergency calls (TS 23.003 §19.4.2.9A.2).
    Emergency,
    /// Operator identifier FQDN of the N3IWF, the ePDG's successor in 5G (TS 23.003 §28.3.2.2.2).
    N3iwf,
    /// `sos.` before the N3IWF's, as it stands before the ePDG's.
    N3iwfEmergency,
    /// By tracking or location area (TS 23.003 §19.4.2.9.3, §19.4.2.9.4, §28.3.2.2.3).
    Area,
    /// By area, for emergency calls (TS 23.003 §19.4.2.9A).
    AreaEmergency,
    /// Of all operators of the country that the phone is in: NAPTR records with operators' names
    /// (TS 23.003 §19.4.2.9.5, §28.3.2.2.4).
    VisitedCountry,
    /// The same for emergency calls (TS 23.003 §19.4.2.9A).
    VisitedCountryEmergency,
    /// A name of the carrier's own, which its handsets are configured with.
    Carrier,
    /// One of those with a label `sos`.
    CarrierEmergency,
}

impl NameKind {
    /// Whether phones ask for it to make an emergency call.
    #[must_use]
    pub const fn is_emergency(self) -> bool {
        match self {
            Self::Emergency
            | Self::N3iwfEmergency
            | Self::AreaEmergency
            | Self::VisitedCountryEmergency
            | Self::CarrierEmergency => true,
            Self::Operator
            | Self::Unpadded
            | Self::N3iwf
            | Self::Area
            | Self::VisitedCountry
            | Self::Carrier => false,
        }
    }

    /// A stable name, for tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Unpadded => "unpadded",
            Self::Emergency => "emergency",
            Self::N3iwf => "n3iwf",
            Self::N3iwfEmergency => "n3iwf_emergency",
            Self::Area => "area",
            Self::AreaEmergency => "area_emergency",
            Self::VisitedCountry => "visited_country",
            Self::VisitedCountryEmergency => "visited_country_emergency",
            Self::Carrier => "carrier",
            Self::CarrierEmergency => "carrier_emergency",
        }
    }
}

/// A name to ask DNS for, in lower case and without a final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpdgName {
    /// The name.
    pub name: String,
    /// What it is.
    pub kind: NameKind,
}

/// What a name below `3gppnetwork.org` says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ParsedName {
    /// What it is.
    pub kind: NameKind,
    /// Its mobile country code.
    pub mcc: u16,
    /// Whose it is; `None` for names of a visited country.
    pub plmn: Option<Plmn>,
}

/// GSMA's domain; names for the public Internet are below `pub`.
pub(crate) const DOMAIN: &str = "3gppnetwork.org";

/// No DNS name is longer (RFC 1035 §2.3.4).
const LONGEST: usize = 253;

/// The names that are looked up for every operator.
///
/// What is here costs two queries (A and AAAA) an operator and a refresh. These are the ones that
/// phones derive from their SIM alone, and the unpadded one, which several carriers publish. The
/// rest is [`on_demand`].
pub(super) fn standard(plmn: Plmn) -> impl Iterator<Item = EpdgName> {
    let padded = padded(plmn);
    [
        (NameKind::Operator, "epdg.epc"),
        (NameKind::Emergency, "sos.epdg.epc"),
        (NameKind::N3iwf, "n3iwf.5gc"),
    ]
    .into_iter()
    .map(move |(kind, service)| name(kind, service, &padded, true))
    .chain(unpadded(plmn).map(|home| name(NameKind::Unpadded, "epdg.epc", &home, true)))
}

/// Further names that an operator may have, which are recognised but not looked up by default:
/// no public answer to them is known, so for the whole world they would be queries for nothing.
pub(super) fn on_demand(plmn: Plmn) -> impl Iterator<Item = EpdgName> {
    let padded = padded(plmn);
    let emergency = name(NameKind::N3iwfEmergency, "sos.n3iwf.5gc", &padded, true);
    // Inside the operators' own network (GRX) names have no `pub`, and it leaks out.
    let private = [
        (NameKind::Operator, "epdg.epc"),
        (NameKind::Emergency, "sos.epdg.epc"),
        (NameKind::N3iwf, "n3iwf.5gc"),
    ]
    .map(|(kind, service)| name(kind, service, &padded, false));
    let unpadded = unpadded(plmn).into_iter().flat_map(|home| {
        [
            name(NameKind::Emergency, "sos.epdg.epc", &home, true),
            name(NameKind::N3iwf, "n3iwf.5gc", &home, true),
            name(NameKind::Unpadded, "epdg.epc", &home, false),
        ]
    });
    [emergency].into_iter().chain(private).chain(unpadded)
}

/// The names that a phone asks in a country of this code, whoever its operator is. They have
/// NAPTR records; addresses are at the names in those.
#[must_use]
pub fn visited_country(mcc: u16) -> [EpdgName; 4] {
    let home = format!("mcc{mcc:03}.visited-country");
    [
        (NameKind::VisitedCountry, "epdg.epc"),
        (NameKind::VisitedCountryEmergency, "sos.epdg.epc"),
        (NameKind::VisitedCountry, "n3iwf.5gc"),
        (NameKind::VisitedCountryEmergency, "sos.n3iwf.5gc"),
    ]
    .map(|(kind, service)| name(kind, service, &home, true))
}

fn name(kind: NameKind, service: &str, home: &str, public: bool) -> EpdgName {
    let public = if public { "pub." } else { "" };
    EpdgName {
        name: format!("{service}.{home}.{public}{DOMAIN}"),
        kind,
    }
}

/// The MNC has three digits in all names (TS 23.003 §19.2).
fn padded(plmn: Plmn) -> String {
    format!("mnc{:03}.mcc{:03}", plmn.mnc(), plmn.mcc())
}

/// Only where the operator writes its MNC with two digits is there another way to write it.
fn unpadded(plmn: Plmn) -> Option<String> {
    (plmn.mnc_digits() == 2).then(|| format!("mnc{:02}.mcc{:03}", plmn.mnc(), plmn.mcc()))
}

/// Reads a name of an ePDG or N3IWF below `3gppnetwork.org`, with or without `pub`, in any case
/// and with or without a final dot.
///
/// The same labels below any other domain are somebody else's, and `None`.
#[must_use]
pub fn parse(name: &str) -> Option<ParsedName> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let labels: Vec<&str> = name
        .strip_suffix(DOMAIN)?
        .strip_suffix('.')?
        .split('.')
        .collect();
    if !labels.iter().all(|label| is_label(label)) {
        return None;
    }
    let labels = labels.strip_suffix(&["pub"]).unwrap_or(&labels);
    match labels {
        [service @ .., mcc, "visited-country"] => {
            let (emergency, service) = emergency(service);
            matches!(service, ["epdg", "epc"] | ["n3iwf", "5gc"]).then_some(ParsedName {
                kind: if emergency {
                    NameKind::VisitedCountryEmergency
                } else {
                    NameKind::VisitedCountry
                },
                mcc: digits(mcc, "mcc", 3)?,
                plmn: None,
            })
        }
        [service @ .., mnc, mcc] => {
            let mcc = digits(mcc, "mcc", 3)?;
            let mnc_digits: u8 = if mnc.len() == "mnc".len() + 2 { 2 } else { 3 };
            let mnc = digits(mnc, "mnc", mnc_digits.into())?;
            Some(ParsedName {
                kind: kind(service, mnc_digits == 3)?,
                mcc,
                plmn: Some(Plmn::new(mcc, mnc, mnc_digits)?),
            })
        }
        _ => None,
    }
}

/// What the labels before the operator's are.
fn kind(labels: &[&str], padded: bool) -> Option<NameKind> {
    let area_and_service = labels
        .strip_suffix(&["epdg", "epc"])
        .map(|rest| (rest, false))
        .or_else(|| {
            labels
                .strip_suffix(&["n3iwf", "5gc"])
                .map(|rest| (rest, true))
        });
    if let Some((rest, n3iwf)) = area_and_service {
        let (area, emergency) = match rest {
            [area @ .., "sos"] => (area, true),
            area => (area, false),
        };
        match (area, n3iwf, emergency) {
            ([], false, false) if padded => return Some(NameKind::Operator),
            ([], false, false) => return Some(NameKind::Unpadded),
            ([], false, true) => return Some(NameKind::Emergency),
            ([], true, false) => return Some(NameKind::N3iwf),
            ([], true, true) => return Some(NameKind::N3iwfEmergency),
            (area, _, false) if is_area(area) => return Some(NameKind::Area),
            (area, _, true) if is_area(area) => return Some(NameKind::AreaEmergency),
            _ => {}
        }
    }
    // Such as `epdg.ims`, `epdg01.epc`, `ss.epdg.epc.geo`; but not `ims`, `bsf`, `xcap`.
    let own = |label: &&str| label.starts_with("epdg") || *label == "n3iwf";
    labels.iter().any(own).then(|| {
        if labels.contains(&"sos") {
            NameKind::CarrierEmergency
        } else {
            NameKind::Carrier
        }
    })
}

fn emergency<'a, 'l>(labels: &'a [&'l str]) -> (bool, &'a [&'l str]) {
    match labels {
        ["sos", rest @ ..] => (true, rest),
        rest => (false, rest),
    }
}

fn is_area(labels: &[&str]) -> bool {
    match labels {
        [low, high, "tac"] => is_hex(low, "tac-lb", 2) && is_hex(high, "tac-hb", 2),
        [low, middle, high, "5gstac"] => {
            is_hex(low, "tac-lb", 2) && is_hex(middle, "tac-mb", 2) && is_hex(high, "tac-hb", 2)
        }
        [lac] => is_hex(lac, "lac", 4),
        _ => false,
    }
}

fn is_hex(label: &str, prefix: &str, len: usize) -> bool {
    label
        .strip_prefix(prefix)
        .is_some_and(|hex| hex.len() == len && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn digits(label: &str, prefix: &str, len: usize) -> Option<u16> {
    let digits = label.strip_prefix(prefix)?;
    (digits.len() == len && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|number| prefix != "mcc" || *number > 0)
}

/// RFC 1035 §2.3.4, RFC 1123 §2.1; `_` as in practice.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A DNS name, in lower case and without a final dot.
///
/// # Errors
///
/// Why it is none, and what was probably meant.
pub fn host_name(text: &str) -> Result<String, NameError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if is_host_name(&name) && mistaken_number(&name).is_none() {
        Ok(name)
    } else {
        Err(NameError {
            found: text.to_owned(),
            suggestion: suggest(text),
        })
    }
}

fn is_host_name(name: &str) -> bool {
    let mut labels = name.split('.');
    name.len() <= LONGEST
        && labels.clone().count() > 1
        && labels.clone().all(is_label)
        // A name whose last label is a number is an address, well or badly written
        // (RFC 1123 §2.1).
        && !labels.next_back().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
}

/// A text that is no name that could be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a name: expected {}", Self::EXPECTED)]
pub struct NameError {
    /// The text as it was given.
    pub found: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl NameError {
    /// The form that is accepted.
    pub const EXPECTED: &str = "a DNS name such as epdg.example.net: two labels or more, of 1 to 63 \
                                letters, digits, - and _, and 253 characters at most";
}

/// What is around a name in a URL or an e-mail, and dots too many.
fn suggest(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.split_once("://").map_or(&*text, |(_, rest)| rest);
    let text = text.split(['/', '?', '#']).next()?;
    let text = text.rsplit('@').next()?;
    let text = match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => text,
    };
    let labels: Vec<&str> = text
        .split('.')
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let name = labels.join(".").replace(' ', "-");
    let name = mistaken_number(&name).unwrap_or(name);
    is_host_name(&name).then_some(name)
}

/// Below `3gppnetwork.org`, MNC and MCC labels with a wrong number of digits, put right.
fn mistaken_number(name: &str) -> Option<String> {
    let (rest, domain) = match name.strip_suffix(DOMAIN)?.strip_suffix('.')? {
        rest if rest.ends_with(".pub") => (&rest[..rest.len() - 4], "pub."),
        rest => (rest, ""),
    };
    let (rest, mcc) = rest.rsplit_once('.')?;
    let (service, mnc) = rest.rsplit_once('.')?;
    let number = |label: &str, prefix: &str| {
        let digits = label.strip_prefix(prefix)?;
        let number: u16 = digits.parse().ok().filter(|n| *n <= 999)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then_some(number)
    };
    let (mnc_number, mcc_number) = (number(mnc, "mnc")?, number(mcc, "mcc")?);
    let wrong = !(5..=6).contains(&mnc.len()) || mcc.len() != 6;
    wrong.then(|| format!("{service}.mnc{mnc_number:03}.mcc{mcc_number:03}.{domain}{DOMAIN}"))
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;

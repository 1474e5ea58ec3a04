//! What to look for: the names of the configured operators, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use crate::catalogue::{Catalogue, Country, NameKind, OperatorPattern, Plmn, catalogue};

/// Whose an endpoint is. An endpoint has a set of owners: many ePDGs serve several operators, and
/// some several countries.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Owner {
    /// The operator; `None` where only the country is known.
    pub plmn: Option<Plmn>,
    /// The country. Of an operator it is the main one of its MCC, for nothing in its names tells
    /// more; `None` for operators of no country.
    pub country: Option<Country>,
}

impl Owner {
    /// The operator as the catalogue writes it, and its country.
    #[must_use]
    pub fn of(catalogue: &Catalogue, plmn: Plmn) -> Self {
        Self {
            plmn: Some(catalogue.operator(plmn).map_or(plmn, |o| o.plmn)),
            country: catalogue.country_of(plmn),
        }
    }
}

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, in lower case and without a final dot.
    pub name: Arc<str>,
    /// Whose addresses it has.
    pub owners: BTreeSet<Owner>,
}

/// Everything to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Names, sorted, each once.
    pub names: Vec<Target>,
    /// Addresses that carriers give their handsets in place of a name, sorted, each once. They
    /// need no DNS and do not expire.
    pub addresses: Vec<(IpAddr, BTreeSet<Owner>)>,
}

/// The names and addresses of all operators that a pattern names or that belong to a country.
///
/// A pattern of one operator counts whether catalogued or not; `262-*` and a country stand for
/// the catalogued operators.
#[must_use]
pub fn targets(
    catalogue: &Catalogue,
    operators: &[OperatorPattern],
    countries: &[Country],
) -> Targets {
    let mut names: BTreeMap<Arc<str>, BTreeSet<Owner>> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, BTreeSet<Owner>> = BTreeMap::new();
    for plmn in plmns(catalogue, operators, countries) {
        let owner = Owner::of(catalogue, plmn);
        for name in catalogue.names(plmn) {
            names.entry(name.name.into()).or_default().insert(owner);
        }
        for address in catalogue.addresses(plmn) {
            addresses.entry(address).or_default().insert(owner);
        }
    }
    Targets {
        names: names
            .into_iter()
            .map(|(name, owners)| Target { name, owners })
            .collect(),
        addresses: addresses.into_iter().collect(),
    }
}

/// Whose a name is that nobody configured, by its form (TS 23.003 §19.4.2.9, §28.3.2.2) or because
/// the catalogue has it; `None` if nothing says that it is an ePDG's.
///
/// The form counts under `3gppnetwork.org` only: there the GSMA delegates a number's names to its
/// operator, while the same labels under another domain are anybody's.
#[must_use]
pub fn owners_of_name(name: &str) -> Option<Arc<BTreeSet<Owner>>> {
    static DIALLED: LazyLock<BTreeMap<String, Arc<BTreeSet<Owner>>>> = LazyLock::new(|| {
        let mut owners: BTreeMap<String, BTreeSet<Owner>> = BTreeMap::new();
        for operator in catalogue().operators() {
            let owner = Owner::of(catalogue(), operator.plmn);
            for name in catalogue().names(operator.plmn) {
                if name.kind == NameKind::Carrier {
                    owners.entry(name.name.into()).or_default().insert(owner);
                }
            }
        }
        owners
            .into_iter()
            .map(|(name, owners)| (name, Arc::new(owners)))
            .collect()
    });
    if let Some(owners) = DIALLED.get(name) {
        return Some(owners.clone());
    }
    let plmn = standard(name)?;
    Some(Arc::new(BTreeSet::from([Owner::of(catalogue(), plmn)])))
}

/// The operator of a name of standard form.
fn standard(name: &str) -> Option<Plmn> {
    let name = name.strip_suffix(".3gppnetwork.org")?;
    let name = name.strip_suffix(".pub").unwrap_or(name);
    let mut labels = name.rsplit('.');
    let number = |label: &str, prefix: &str, lengths: std::ops::RangeInclusive<usize>| {
        let digits = label.strip_prefix(prefix)?;
        let all = digits.bytes().all(|byte| byte.is_ascii_digit());
        (all && lengths.contains(&digits.len())).then(|| digits.parse::<u16>().ok())?
    };
    let mcc = number(labels.next()?, "mcc", 3..=3)?;
    let label = labels.next()?;
    let mnc = number(label, "mnc", 2..=3)?;
    let (service, system) = (labels.clone().nth(1)?, labels.next()?);
    labels.next();
    // Before the service: what narrows it down (`sos`, `tac-lb…`, a vendor's), at most a few labels.
    let known = matches!((service, system), (service, "epc") if service.starts_with("epdg"))
        || (service, system) == ("n3iwf", "5gc");
    if !known || labels.count() > 4 {
        return None;
    }
    // The label may be padded; the catalogue knows how the operator writes it.
    let digits = if label.len() == "mnc".len() + 2 || mnc < 100 {
        2
    } else {
        3
    };
    Plmn::new(mcc, mnc, digits)
}

fn plmns(
    catalogue: &Catalogue,
    operators: &[OperatorPattern],
    countries: &[Country],
) -> BTreeSet<Plmn> {
    let mut plmns = BTreeSet::new();
    let mut mccs = BTreeSet::new();
    for pattern in operators {
        match *pattern {
            OperatorPattern::Exact(plmn) => {
                plmns.insert(plmn);
            }
            OperatorPattern::AllOf { mcc } => {
                mccs.insert(mcc);
            }
        }
    }
    for country in countries {
        mccs.extend(catalogue.mccs_of(*country));
    }
    for mcc in mccs {
        plmns.extend(catalogue.operators_of(mcc).map(|operator| operator.plmn));
    }
    plmns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(operators: &[&str], countries: &[&str]) -> Targets {
        let operators: Vec<_> = operators.iter().map(|o| o.parse().unwrap()).collect();
        let countries: Vec<_> = countries.iter().map(|c| c.parse().unwrap()).collect();
        targets(catalogue(), &operators, &countries)
    }

    fn owners(target: &Target) -> Vec<String> {
        let owners = target.owners.iter();
        owners
            .map(|o| format!("{} {}", o.plmn.unwrap(), o.country.unwrap()))
            .collect()
    }

    #[test]
    fn one_operator_catalogued_or_not() {
        assert_eq!(find(&["262-01"], &[]).names.len(), 3);
        let unknown = find(&["262-98"], &[]);
        assert_eq!(unknown.names.len(), 3);
        assert_eq!(owners(&unknown.names[0]), ["262-98 DE"]);
        // Written otherwise, shown as the operator writes it.
        assert_eq!(owners(&find(&["262-001"], &[]).names[0]), ["262-01 DE"]);
        assert_eq!(find(&[], &[]), Targets::default());
    }

    #[test]
    fn a_name_of_several_operators_has_all_of_them() {
        let targets = find(&["310-004", "311-480", "204-04"], &[]);
        let shared = targets.names.iter().find(|t| &*t.name == "wo.vzwwo.com");
        assert_eq!(
            owners(shared.unwrap()),
            ["204-04 NL", "310-004 US", "311-480 US"]
        );
    }

    #[test]
    fn a_country_has_the_operators_of_all_its_mccs() {
        let targets = find(&["505-*", "262-*"], &["AU", "US"]);
        let mccs: BTreeSet<_> = targets
            .names
            .iter()
            .flat_map(|t| &t.owners)
            .map(|o| o.plmn.unwrap().mcc())
            .collect();
        assert_eq!(mccs, [262, 310, 311, 312, 313, 314, 315, 316, 505].into());
        assert!(targets.names.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn a_name_counts_by_its_form_or_the_catalogue() {
        for (name, plmn) in [
            ("epdg.epc.mnc001.mcc262.pub.3gppnetwork.org", "262-01"),
            ("epdg.epc.mnc01.mcc262.pub.3gppnetwork.org", "262-01"),
            ("epdg.epc.mnc001.mcc262.3gppnetwork.org", "262-01"),
            ("sos.epdg.epc.mnc260.mcc310.pub.3gppnetwork.org", "310-260"),
            ("ss.epdg.epc.mnc260.mcc310.pub.3gppnetwork.org", "310-260"),
            ("n3iwf.5gc.mnc001.mcc505.pub.3gppnetwork.org", "505-01"),
            (
                "tac-lb01.tac-hb02.tac.epdg.epc.mnc001.mcc505.pub.3gppnetwork.org",
                "505-01",
            ),
            ("epdg.epc.mnc999.mcc999.pub.3gppnetwork.org", "999-999"),
            ("wlan.three.com.hk", "454-03"),
        ] {
            let owners = owners_of_name(name).unwrap_or_else(|| panic!("{name}"));
            let plmn: Plmn = plmn.parse().unwrap();
            assert!(
                owners.iter().any(|o| o.plmn == Some(plmn)),
                "{name}: {owners:?}"
            );
        }
        for name in [
            "",
            "3gppnetwork.org",
            "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org.example",
            "epdg.epc.mnc001.mcc262.pub.3gppnetwork.com",
            "epdg.epc.mnc001.mcc262.pub.evil3gppnetwork.org",
            "epdg.epc.mnc001.mcc2622.pub.3gppnetwork.org",
            "epdg.epc.mnc1.mcc262.pub.3gppnetwork.org",
            "epdg.epc.mnc0o1.mcc262.pub.3gppnetwork.org",
            "epdg.epc.mcc262.mnc001.pub.3gppnetwork.org",
            "epdg.epc.mnc001.mcc000.pub.3gppnetwork.org",
            "ims.mnc001.mcc262.pub.3gppnetwork.org",
            "mnc001.mcc262.pub.3gppnetwork.org",
            "epc.mnc001.mcc262.pub.3gppnetwork.org",
            "a.b.c.d.e.epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
            "wlan.three.com.hk.example",
        ] {
            assert_eq!(owners_of_name(name), None, "{name}");
        }
    }

    #[test]
    fn addresses_need_no_name() {
        let targets = find(&["338-180", "342-600"], &[]);
        let (address, owners) = &targets.addresses[0];
        assert_eq!(address.to_string(), "69.79.196.12");
        assert_eq!(owners.len(), 2);
        assert_eq!(targets.addresses.len(), 1);
    }
}

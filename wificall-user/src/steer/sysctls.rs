//! What a gateway beside the phones needs of the box's sysctls.

use std::collections::BTreeSet;

use super::place::Place;
use super::record::Changed;
use crate::net::{ALL, Sysctl};

/// Loose reverse-path filtering: a source must be reachable, by whichever interface.
const LOOSE: u32 = 2;
const STRICT: u32 = 1;

/// A sysctl that should be another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// What to change.
    pub change: Changed,
    /// The exit's device for which.
    pub device: String,
}

impl Need {
    /// In words, for an exit that may not change it.
    #[must_use]
    pub fn text(&self) -> String {
        let Changed {
            sysctl,
            device,
            before,
            value,
        } = &self.change;
        let why = match sysctl {
            Sysctl::RpFilter => {
                "answers that come back by an exit are dropped where the main table leads to another interface"
            }
            Sysctl::SendRedirects => {
                "phones are told to send to the gateway themselves, past this box"
            }
        };
        let name = sysctl.name();
        format!(
            "net.ipv4.conf.{device}.{name} is {before}: {why} (`{}`)\n  hint: `sysctl -w net.ipv4.conf.{device}.{name}={value}`, \
             or `manage_sysctls = true` in the exit",
            self.device
        )
    }
}

/// What IPv4 by these places needs; `access` are the links towards phones, `read` reads a sysctl of a device.
///
/// The effective reverse-path filter is the maximum of `all` and the device, so the device alone is raised; a redirect is
/// sent if `all` or the device says so, so both are lowered, where packets leave by the link that they came in by.
#[must_use]
pub fn needs(
    places: &[&Place],
    access: &[u32],
    read: impl Fn(Sysctl, &str) -> Option<u32>,
) -> BTreeSet<Need> {
    let mut needs = BTreeSet::new();
    for place in places {
        let device = &place.device;
        let mut need = |sysctl, of: &str, before, value| {
            needs.insert(Need {
                change: Changed {
                    sysctl,
                    device: of.to_owned(),
                    before,
                    value,
                },
                device: device.clone(),
            });
        };
        let of = |of: &str, sysctl| read(sysctl, of).unwrap_or(0);
        let own = of(device, Sysctl::RpFilter);
        if of(ALL, Sysctl::RpFilter).max(own) == STRICT {
            need(Sysctl::RpFilter, device, own, LOOSE);
        }
        if access.contains(&place.ifindex) {
            for scope in [ALL, device] {
                let value = of(scope, Sysctl::SendRedirects);
                if value != 0 {
                    need(Sysctl::SendRedirects, scope, value, 0);
                }
            }
        }
    }
    needs
}

/// The sysctls that these places depend on, whatever they are.
#[must_use]
pub fn governed(places: &[&Place], access: &[u32]) -> BTreeSet<(Sysctl, String)> {
    let mut governed = BTreeSet::new();
    for place in places {
        governed.insert((Sysctl::RpFilter, place.device.clone()));
        if access.contains(&place.ifindex) {
            for scope in [ALL, &place.device] {
                governed.insert((Sysctl::SendRedirects, scope.to_owned()));
            }
        }
    }
    governed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is needed where `all` and the device have these values; one-arm or not.
    fn needed(rp: [u32; 2], redirects: [u32; 2], one_arm: bool) -> Vec<(Sysctl, String, u32, u32)> {
        let place = Place {
            ifindex: 2,
            device: "lan".to_owned(),
            source: None,
            own: None,
            running: true,
        };
        let access: &[u32] = if one_arm { &[2] } else { &[9] };
        let found = needs(&[&place], access, |sysctl, device| {
            let index = usize::from(device == "lan");
            Some(match sysctl {
                Sysctl::RpFilter => rp[index],
                Sysctl::SendRedirects => redirects[index],
            })
        });
        let found = found.into_iter().map(|need| need.change);
        found
            .map(|c| (c.sysctl, c.device, c.before, c.value))
            .collect()
    }

    #[test]
    fn the_reverse_path_filter_is_the_maximum_of_both() {
        let raise = |before| vec![(Sysctl::RpFilter, "lan".to_owned(), before, 2)];
        assert_eq!(needed([1, 0], [0, 0], false), raise(0));
        assert_eq!(needed([0, 1], [0, 0], false), raise(1));
        assert_eq!(needed([1, 1], [0, 0], true), raise(1));
        for fine in [[0, 0], [2, 0], [0, 2], [2, 1], [1, 2]] {
            assert_eq!(needed(fine, [0, 0], true), [], "{fine:?}");
        }
    }

    #[test]
    fn redirects_are_off_where_both_are_and_only_matter_on_one_arm() {
        let lower = |device: &str| (Sysctl::SendRedirects, device.to_owned(), 1, 0);
        assert_eq!(needed([0, 0], [1, 1], false), []);
        assert_eq!(needed([0, 0], [0, 0], true), []);
        assert_eq!(needed([0, 0], [1, 0], true), [lower("all")]);
        assert_eq!(needed([0, 0], [0, 1], true), [lower("lan")]);
        assert_eq!(needed([0, 0], [1, 1], true), [lower("all"), lower("lan")]);
    }
}

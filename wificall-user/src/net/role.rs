//! Which links a role's names select, and which of them stand on each other.

use std::collections::{HashMap, VecDeque};

use super::link::Link;
use crate::config::Glob;

/// Two links of one role that see the same packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The one above: the bridge, the bond, the VLAN.
    pub upper: String,
    /// The one below: the port, the member, the parent.
    pub lower: String,
    /// A sentence that says how they are related and what to do.
    pub why: String,
}

/// The links that a role's names and globs select, in the order of `links`.
pub fn select<'a>(globs: &[Glob], links: &'a [Link]) -> Vec<&'a Link> {
    links
        .iter()
        .filter(|link| globs.iter().any(|glob| glob.matches(&link.name)))
        .collect()
}

/// The names and globs that select no link.
pub fn unmatched<'a>(globs: &'a [Glob], links: &[Link]) -> Vec<&'a Glob> {
    globs
        .iter()
        .filter(|glob| !links.iter().any(|link| glob.matches(&link.name)))
        .collect()
}

/// The pairs among `role` (names of links of one role) of which one stands on the other, directly or through others.
///
/// A packet passes both links of such a pair, so it would be counted and treated twice.
pub fn stacked(links: &[Link], role: &[&str]) -> Vec<Conflict> {
    let by_index: HashMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    let named = |name: &str| role.contains(&name);
    let mut conflicts = Vec::new();
    // Upwards from each link: to its master, and to what has it as parent.
    for lower in links.iter().filter(|link| named(&link.name)) {
        let mut came_from: HashMap<u32, u32> = HashMap::from([(lower.index, lower.index)]);
        let mut queue = VecDeque::from([lower]);
        while let Some(link) = queue.pop_front() {
            let master = link.master.and_then(|index| by_index.get(&index).copied());
            let children = links
                .iter()
                .filter(|child| child.parent == Some(link.index));
            for upper in master.into_iter().chain(children) {
                // Indices seen before are not followed again: a loop among links ends here.
                if came_from.contains_key(&upper.index) {
                    continue;
                }
                came_from.insert(upper.index, link.index);
                queue.push_back(upper);
                if named(&upper.name) {
                    conflicts.push(conflict(upper, lower, &came_from, &by_index));
                }
            }
        }
    }
    conflicts
}

fn conflict(
    upper: &Link,
    lower: &Link,
    came_from: &HashMap<u32, u32>,
    by_index: &HashMap<u32, &Link>,
) -> Conflict {
    let mut relations = Vec::new();
    let mut above = upper;
    while above.index != lower.index {
        let below = by_index[&came_from[&above.index]];
        relations.push(relation(above, below));
        above = below;
    }
    let why = format!(
        "{}; a packet passes both and would be counted and treated twice: name only one of `{}` and `{}` in this role",
        relations.join(", "),
        upper.name,
        lower.name,
    );
    Conflict {
        upper: upper.name.clone(),
        lower: lower.name.clone(),
        why,
    }
}

/// How `above` stands directly on `below`.
fn relation(above: &Link, below: &Link) -> String {
    let kind = above.info_kind.as_deref();
    match (below.master == Some(above.index), kind) {
        (true, Some("bridge")) => {
            format!("`{}` is a port of the bridge `{}`", below.name, above.name)
        }
        (true, Some("bond" | "team")) => {
            format!("`{}` is a member of the bond `{}`", below.name, above.name)
        }
        (true, _) => format!("`{}` is the master of `{}`", above.name, below.name),
        (false, Some("vlan")) => format!(
            "`{}` is the parent of the VLAN `{}`",
            below.name, above.name
        ),
        (false, kind) => format!(
            "`{}` is the parent of the {} `{}`",
            below.name,
            kind.unwrap_or("device"),
            above.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::Kind;
    use super::*;

    fn link(
        index: u32,
        name: &str,
        info_kind: Option<&str>,
        master: Option<u32>,
        parent: Option<u32>,
    ) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: Kind::Ethernet,
            wireless: false,
            master,
            parent,
            up: true,
            running: true,
            mtu: 1500,
            address: None,
            info_kind: info_kind.map(str::to_owned),
        }
    }

    /// eth0 and eth1 in bond0; VLAN bond0.7 on it; that and wlan0 in br-lan; mac0 on br-lan; wan alone.
    fn house() -> Vec<Link> {
        vec![
            link(1, "wan", None, None, None),
            link(2, "eth0", None, Some(4), None),
            link(3, "eth1", None, Some(4), None),
            link(4, "bond0", Some("bond"), None, None),
            link(5, "bond0.7", Some("vlan"), Some(7), Some(4)),
            link(6, "wlan0", None, Some(7), None),
            link(7, "br-lan", Some("bridge"), None, None),
            link(8, "mac0", Some("macvlan"), None, Some(7)),
        ]
    }

    fn pairs(role: &[&str]) -> Vec<(String, String)> {
        stacked(&house(), role)
            .into_iter()
            .map(|conflict| (conflict.upper, conflict.lower))
            .collect()
    }

    fn pair(upper: &str, lower: &str) -> (String, String) {
        (upper.to_owned(), lower.to_owned())
    }

    #[test]
    fn neighbours_are_no_conflict() {
        assert_eq!(pairs(&["wan", "br-lan"]), []);
        assert_eq!(pairs(&["eth0", "eth1", "wlan0"]), []);
        assert_eq!(pairs(&[]), []);
    }

    #[test]
    fn direct_relations_are_named() {
        let sentences: Vec<_> = [
            ["br-lan", "wlan0"],
            ["bond0", "eth1"],
            ["bond0", "bond0.7"],
            ["mac0", "br-lan"],
        ]
        .iter()
        .map(|role| {
            stacked(&house(), role)
                .remove(0)
                .why
                .split(';')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
        assert_eq!(
            sentences,
            [
                "`wlan0` is a port of the bridge `br-lan`",
                "`eth1` is a member of the bond `bond0`",
                "`bond0` is the parent of the VLAN `bond0.7`",
                "`br-lan` is the parent of the macvlan `mac0`",
            ]
        );
    }

    #[test]
    fn relations_through_links_outside_the_role_are_found() {
        assert_eq!(pairs(&["br-lan", "eth0"]), [pair("br-lan", "eth0")]);
        assert_eq!(
            stacked(&house(), &["br-lan", "eth0"])[0].why,
            "`bond0.7` is a port of the bridge `br-lan`, `bond0` is the parent of the VLAN `bond0.7`, \
             `eth0` is a member of the bond `bond0`; a packet passes both and would be counted and treated twice: \
             name only one of `br-lan` and `eth0` in this role"
        );
    }

    #[test]
    fn every_pair_is_told() {
        assert_eq!(
            pairs(&["eth0", "bond0", "br-lan"]),
            [
                pair("bond0", "eth0"),
                pair("br-lan", "eth0"),
                pair("br-lan", "bond0")
            ]
        );
    }

    #[test]
    fn a_loop_ends() {
        let links = [
            link(1, "a", Some("bridge"), Some(2), None),
            link(2, "b", Some("bridge"), Some(1), None),
        ];
        assert_eq!(stacked(&links, &["a", "b"]).len(), 2);
    }

    #[test]
    fn globs_select_and_what_selects_nothing_is_told() {
        let globs = ["eth*", "br-lan", "wlan?", "usb0"].map(|glob| Glob::new(glob).unwrap());
        let links = house();
        let names: Vec<_> = select(&globs, &links)
            .iter()
            .map(|link| link.name.as_str())
            .collect();
        assert_eq!(names, ["eth0", "eth1", "wlan0", "br-lan"]);
        assert_eq!(unmatched(&globs, &links), [&globs[3]]);
    }
}

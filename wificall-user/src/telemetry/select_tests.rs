use std::hash::RandomState;

use wificall_common::{
    abi::{Flow, FlowKey},
    wire::PROTOCOL_UDP,
};

use super::*;

const SECOND: u64 = 1_000_000_000;
const PLMNS: [&str; 3] = ["262-01", "234-10", "505-01"];

fn octets(text: &str) -> [u8; 16] {
    match text.parse().unwrap() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    }
}

/// So many tunnels, each found a second after the one before, of three operators by turns.
fn tracker(tunnels: u32) -> Tracker {
    let mut tracker = Tracker::new(tunnels as usize);
    let owners = PLMNS.map(|plmn| {
        Arc::new(Whose {
            operator: plmn.into(),
            country: "none".into(),
        })
    });
    for number in 0..tunnels {
        // The first is not the one of the lowest address.
        let [.., high, low] = (tunnels - number).to_be_bytes();
        let key = FlowKey {
            client: octets(&format!("10.0.{high}.{low}")),
            endpoint: octets("192.0.2.1"),
            port: 4500,
            protocol: PROTOCOL_UDP,
            reserved: [0; 5],
        };
        let now = (1_000 + u64::from(number)) * SECOND;
        let mut flow = Flow::default();
        flow.control.began = now;
        flow.control.spi_i = u64::from(number + 1).to_be_bytes();
        flow.up.seen = now;
        let owner = &owners[number as usize % owners.len()];
        tracker.read(key, Some(&flow), now, &|_| owner.clone());
    }
    assert_eq!(tracker.tunnels().len(), tunnels as usize);
    tracker
}

fn name(plmn: &str) -> Option<String> {
    let names = ["Telekom", "O2", "Telstra"];
    let place = PLMNS.iter().position(|known| *known == plmn)?;
    Some(names[place].into())
}

fn show(key: &RandomState, clients: bool) -> Show<'_> {
    Show {
        now: 10_000 * SECOND,
        wall: 0,
        clients,
        key,
        operator: &name,
        exit: &|_| None,
        nat_timeout: None,
    }
}

fn first(selection: Selection) -> Wanted {
    Wanted::First(selection)
}

#[test]
fn those_that_come_first_are_told_and_how_many_there_are() {
    let (tracker, key) = (tracker(100), RandomState::new());
    let show = show(&key, true);
    for order in Order::ALL {
        for reverse in [false, true] {
            let selection = |limit| {
                first(Selection {
                    limit,
                    order,
                    reverse,
                    ..Selection::default()
                })
            };
            let all = show.wanted(&tracker, &selection(1_000));
            assert_eq!((all.found, all.tunnels.len()), (100, 100));
            for limit in [0, 1, 7, 99, 100] {
                let some = show.wanted(&tracker, &selection(limit));
                assert_eq!(some.found, 100);
                assert_eq!(
                    some.tunnels,
                    all.tunnels[..limit],
                    "{order:?} {reverse} {limit}"
                );
            }
        }
    }
    let by = |order| {
        let selection = Selection {
            limit: 2,
            order,
            ..Selection::default()
        };
        let found = show.wanted(&tracker, &first(selection)).tunnels;
        found
            .into_iter()
            .map(|tunnel| tunnel.client)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        by(Order::Activity),
        ["10.0.0.1", "10.0.0.2"],
        "the last that changed"
    );
    assert_eq!(by(Order::Client), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(by(Order::Since), ["10.0.0.100", "10.0.0.99"]);
    // O2, the second of three.
    assert_eq!(by(Order::Operator), ["10.0.0.3", "10.0.0.6"]);
}

#[test]
fn words_are_looked_for_in_all_tunnels() {
    let (tracker, key) = (tracker(90), RandomState::new());
    let show = show(&key, true);
    let found = |filter: &str| {
        let selection = Selection {
            limit: 3,
            filter: filter.into(),
            ..Selection::default()
        };
        let found = show.wanted(&tracker, &first(selection));
        let words = Words::new(filter);
        assert!(
            found.tunnels.iter().all(|tunnel| words.are_in(tunnel)),
            "{filter}"
        );
        (found.found, found.tunnels.len())
    };
    assert_eq!(found(""), (90, 3));
    assert_eq!(found("telekom"), (30, 3));
    assert_eq!(found("262-01"), (30, 3));
    assert_eq!(found("10.0.0.77"), (1, 1), "far behind the first ones");
    assert_eq!(found("  192.0.2.1  O2 "), (30, 3));
    assert_eq!(found("telekom o2"), (0, 0));
}

#[test]
fn a_filter_and_an_order_tell_nothing_of_hidden_addresses() {
    let (tracker, key) = (tracker(20), RandomState::new());
    let show = show(&key, false);
    let all = show.wanted(
        &tracker,
        &first(Selection {
            limit: 20,
            ..Selection::default()
        }),
    );
    let hash = &all.tunnels[13].client;
    assert!(hash.starts_with("client-"));
    for (filter, expected) in [("10.0.0.7", 0), (hash, 1)] {
        let selection = Selection {
            limit: 20,
            filter: filter.to_owned(),
            ..Selection::default()
        };
        assert_eq!(
            show.wanted(&tracker, &first(selection)).found,
            expected,
            "{filter}"
        );
    }
    let by_client = Selection {
        limit: 20,
        order: Order::Client,
        ..Selection::default()
    };
    assert_eq!(
        show.wanted(&tracker, &first(by_client)),
        all,
        "as without an order"
    );
}

#[test]
fn one_is_found_by_its_name_and_told_beside_others() {
    let (tracker, key) = (tracker(50), RandomState::new());
    let show = show(&key, true);
    let ids = show.ids(&tracker);
    assert_eq!(ids.len(), 50);
    let these = show.wanted(&tracker, &Wanted::These(ids.clone())).tunnels;
    let in_order = Selection {
        limit: 50,
        ..Selection::default()
    };
    assert_eq!(
        these,
        show.wanted(&tracker, &first(in_order)).tunnels,
        "by activity"
    );
    let gone = Wanted::These(vec![ids[3], 4_711, ids[1]]);
    let left = show.wanted(&tracker, &gone).tunnels;
    assert_eq!(left, [these[3].clone(), these[1].clone()]);
    for tunnel in &these {
        assert_eq!(
            show.wanted(&tracker, &Wanted::One(tunnel.id.clone()))
                .tunnels,
            std::slice::from_ref(tunnel)
        );
    }
    let last = &these[49];
    for (limit, expected) in [(2, 3), (50, 50)] {
        let selection = Selection {
            limit,
            also: last.id.clone(),
            ..Selection::default()
        };
        let found = show.wanted(&tracker, &first(selection));
        assert_eq!((found.found, found.tunnels.len()), (50, expected));
        assert_eq!(found.tunnels.last(), Some(last));
    }
    let short = these[0].id.trim_start_matches(char::is_alphanumeric);
    for nobody in [
        short,
        "0000000000000000",
        "+00000000000000f",
        "no such tunnel",
    ] {
        assert_eq!(
            show.wanted(&tracker, &Wanted::One(nobody.into())),
            Found::default()
        );
    }
}

#[test]
fn a_name_is_that_of_one_number_and_another_ones_under_another_key() {
    let (key, other) = (RandomState::new(), RandomState::new());
    let (show, others) = (show(&key, true), show(&other, true));
    for id in [
        0,
        1,
        2,
        3,
        100_000,
        u64::from(u32::MAX),
        u64::MAX - 1,
        u64::MAX,
    ] {
        let name = show.id(id);
        assert_eq!(show.number(&name), Some(id));
        assert_ne!(others.number(&name), Some(id));
    }
    assert_eq!(
        show.number(&show.id(1).to_uppercase().replace(char::is_numeric, "A")),
        None
    );
}

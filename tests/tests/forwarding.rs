//! That the rigs of the layers `forwarding` and `xdp` work: every packet is counted, every set of rules is about what it
//! should be about, every drop drops. What was sent and what came out is checked by the rigs, which fail if it is not
//! right; times are not looked at.

use std::collections::BTreeSet;

use anyhow::Result;
use wificall_tests::bench::{Row, Scale, forwarding, xdp};

fn variants<'a>(rows: &'a [Row], case: &str) -> BTreeSet<&'a str> {
    rows.iter()
        .filter(|row| row.case == case)
        .map(|row| row.variant.as_str())
        .collect()
}

#[test]
fn every_rule_marks_what_it_should() -> Result<()> {
    let rows = (forwarding::LAYER.measure)(Scale::Quick)?;
    assert_eq!(
        variants(&rows, "Wi-Fi Calling, IPv4"),
        BTreeSet::from([
            "nothing",
            "one empty TCX hook",
            "iptables by port",
            "iptables-legacy by port",
            "iptables + ipset",
            "nft set",
            "nft map by country",
            "wificall, TC",
            "wificall, TC and XDP",
        ])
    );
    for row in &rows {
        assert!(row.value.median > 0.0, "{row}: {:?}", row.value);
        let is_baseline = row.setting.get("over") == Some(&row.variant);
        assert_eq!(row.against.is_none(), is_baseline, "{row}");
    }
    Ok(())
}

#[test]
fn every_place_drops_what_it_should() -> Result<()> {
    let rows = (xdp::LAYER.measure)(Scale::Quick)?;
    assert_eq!(variants(&rows, "other VPN, IPv4: dropped").len(), 6);
    assert_eq!(variants(&rows, "TCP, IPv4: passed").len(), 6);
    let value = |case: &str, variant: &str| {
        rows.iter()
            .find(|row| row.case == case && row.variant == variant)
            .map(|row| row.value.median)
    };
    // What docs/performance.md says of veth, if this kernel's is like those that we know.
    let tso = "peer: tcp-segmentation-offload";
    assert_eq!(value(tso, "no XDP"), Some(1.0));
    assert_eq!(value(tso, "native XDP"), Some(0.0));
    assert_eq!(value(tso, "generic XDP"), Some(1.0));
    let mtu = |variant| value("peer: largest MTU", variant);
    assert_eq!(mtu("no XDP"), Some(65_535.0));
    assert!(mtu("native XDP") < Some(4_096.0), "{:?}", mtu("native XDP"));
    for case in ["TCP from the phone, Gbit/s", "round trip, median, µs"] {
        assert!(value(case, "native XDP") > Some(0.0), "{case}");
    }
    Ok(())
}

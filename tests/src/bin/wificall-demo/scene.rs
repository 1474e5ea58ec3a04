//! The lab of the demonstration: that of the tests, with a DNS server and a second exit.
//!
//! ```text
//!  phone ──── lan  router  wan ───── far: ePDGs of two operators, other hosts
//!                  wificall exit ─── far, packets with the first operator's mark
//!                          exit2 ─── far, packets with the second operator's mark
//!                          dns ───── a DNS server
//! ```

use std::net::IpAddr;

use anyhow::Result;
use wificall_tests::dns::EPDG;
use wificall_tests::lab::{EF, EPDG4, EPDG6, Lab, PHONE4, PHONE6, neighbours};
use wificall_tests::netns::{Netns, veth};

use crate::dns::Server;

/// Where the DNS server answers, for the router and the phone.
pub const DNS: &str = "198.19.255.10";

/// An operator: what the agent shall find out about it, and what its policy says.
pub struct Operator {
    /// MCC and MNC.
    pub plmn: &'static str,
    /// The country of the MCC. MCC 001 is for test networks and belongs to none.
    pub country: &'static str,
    /// Its ePDG (TS 23.003 §19.4.2.9).
    pub name: &'static str,
    /// The addresses of that name, IPv4 and IPv6.
    pub addresses: [&'static str; 2],
    /// The DSCP of its policy, both ways.
    pub dscp: u8,
    /// The mark of its policy, under the mask 0xff.
    pub mark: u32,
    /// Which interface of the far side packets with that mark arrive at.
    pub exit: &'static str,
}

/// Voice-admit (RFC 5865).
pub const VA: u8 = 44;

/// Both operators, which DNS knows and the agent looks up.
pub const OPERATORS: [Operator; 2] = [
    Operator {
        plmn: "001-01",
        country: "none",
        name: EPDG,
        addresses: [EPDG4, EPDG6],
        dscp: EF,
        mark: 0x65,
        exit: "exit0",
    },
    Operator {
        plmn: "262-01",
        country: "DE",
        name: "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
        addresses: ["198.18.1.10", "2001:db8:262::10"],
        dscp: VA,
        mark: 0x66,
        exit: "exit2",
    },
];

/// The configuration of the agent.
pub fn configuration(xdp: bool) -> String {
    let [test, german] = &OPERATORS;
    let xdp = if xdp { "xdp = [\"lan\"]\n" } else { "" };
    format!(
        r#"
[interfaces]
access = ["lan"]
{xdp}
[discovery]
operators = ["{}", "{}"]
resolvers = ["{DNS}"]
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
[[policy]]
name = "test-network"
operators = ["{}"]
dscp = {}
mark = "{:#x}/0xff"
[[policy]]
name = "germany"
countries = ["{}"]
dscp = {}
mark = "{:#x}/0xff"
"#,
        test.plmn,
        german.plmn,
        test.plmn,
        test.dscp,
        test.mark,
        german.country,
        german.dscp,
        german.mark,
    )
}

/// The namespaces, with DNS answering.
pub struct Scene {
    /// Phone, router and far side.
    pub lab: Lab,
    /// Where the DNS server runs.
    pub dns: Netns,
    _server: Server,
}

impl Scene {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// If not root, or `ip` refuses something.
    pub fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let dns = Netns::new("dns")?;
        let Lab { router, far, .. } = &lab;
        for address in OPERATORS[1].addresses {
            far.ip(&format!("addr add {address} dev lo"))?;
        }
        veth((router, "exit2"), (far, "exit2"))?;
        router.address("exit2", &["198.19.255.13/30", "fd00:3::1/64"])?;
        far.address("exit2", &["198.19.255.14/30", "fd00:3::2/64"])?;
        let mark = OPERATORS[1].mark;
        for (family, gateway) in [("-4", "198.19.255.14"), ("-6", "fd00:3::2")] {
            router.ip(&format!(
                "{family} route add default via {gateway} table 102"
            ))?;
            router.ip(&format!(
                "{family} rule add fwmark {mark:#x}/0xff lookup 102"
            ))?;
        }
        neighbours(
            (router, "exit2", &["198.19.255.13", "fd00:3::1"]),
            (far, "exit2", &["198.19.255.14", "fd00:3::2"]),
        )?;

        veth((router, "dns"), (&dns, "eth0"))?;
        router.address("dns", &["198.19.255.9/30"])?;
        dns.address("eth0", &[&format!("{DNS}/30")])?;
        dns.ip("route add default via 198.19.255.9")?;
        neighbours((router, "dns", &["198.19.255.9"]), (&dns, "eth0", &[DNS]))?;
        let server = Server::start(&dns, DNS.parse()?)?;
        Ok(Self {
            lab,
            dns,
            _server: server,
        })
    }
}

/// Whether this is the phone.
pub fn is_phone(address: IpAddr) -> bool {
    [PHONE4, PHONE6].iter().any(|phone| is(address, phone))
}

/// Which operator's ePDG an address is.
pub fn operator(address: IpAddr) -> Option<usize> {
    OPERATORS
        .iter()
        .position(|operator| operator.addresses.iter().any(|epdg| is(address, epdg)))
}

fn is(address: IpAddr, text: &str) -> bool {
    text.parse() == Ok(address)
}

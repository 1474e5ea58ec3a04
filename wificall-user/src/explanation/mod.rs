//! `wificall explain`: what the data plane does with a packet, step by step, and why not something else.
//!
//! The agent answers (`control/explain.rs`): it runs the classifier of the programs over the table that it keeps in the
//! kernel. Here is what crosses the control socket, what is pure, and how it is written for people. A packet's dissection is
//! a description only: nothing is decided by it.

mod dissect;
mod flow;
mod text;

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use wificall_common::{Direction, classify::Link};

use crate::{
    export::set::{Origin, Text},
    observe::Steering,
};

pub use dissect::{Fragment, Parsed, dissect};
pub use flow::{Content, Flow, FlowError};
pub(crate) use text::protocol_name;

/// The longest frame that is explained, in bytes: an IP packet of 65,575, tags and PPPoE before it.
pub const FRAME_MAX: usize = 65_664;

/// A packet to explain, and what is known of it besides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    /// Its bytes.
    pub frame: Text<Hex>,
    /// What it starts with; `None`: what packets at the interface start with, else Ethernet.
    pub link: Option<LinkName>,
    /// Which way it goes; `None`: by which end is an endpoint.
    pub direction: Option<Way>,
    /// Where it is seen.
    pub interface: Option<String>,
    /// The client's link-layer address, if the frame does not tell.
    pub client_mac: Option<Text<Mac>>,
    /// The first fragment of its datagram.
    pub first_fragment: Option<Text<Hex>>,
}

/// What a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LinkName {
    /// An Ethernet header
    Ethernet,
    /// The IP header: tun, ppp, WireGuard
    Bare,
}

impl From<LinkName> for Link {
    fn from(name: LinkName) -> Self {
        match name {
            LinkName::Ethernet => Self::Ethernet,
            LinkName::Bare => Self::Bare,
        }
    }
}

impl From<Link> for LinkName {
    fn from(link: Link) -> Self {
        match link {
            Link::Ethernet => Self::Ethernet,
            Link::Bare => Self::Bare,
        }
    }
}

/// Which way a packet goes, seen from the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// To the endpoint
    Up,
    /// From the endpoint
    Down,
}

impl From<Way> for Direction {
    fn from(way: Way) -> Self {
        match way {
            Way::Up => Self::Up,
            Way::Down => Self::Down,
        }
    }
}

impl From<Direction> for Way {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Up => Self::Up,
            Direction::Down => Self::Down,
        }
    }
}

/// Bytes as two hexadecimal digits each; when read, with blanks, colons, dashes and `0x` anywhere between bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Hex {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        for part in text.split([' ', ':', '-', ',', '\t', '\r', '\n']) {
            let digits = part.strip_prefix("0x").unwrap_or(part);
            if let Some(other) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
                return Err(format!("{other:?} is no hexadecimal digit"));
            }
            if digits.len() % 2 != 0 {
                return Err(format!(
                    "`{}` has an odd number of digits: a byte has two",
                    &digits[..digits.len().min(32)]
                ));
            }
            for at in (0..digits.len()).step_by(2) {
                let byte = u8::from_str_radix(&digits[at..at + 2], 16);
                bytes.push(byte.map_err(|error| error.to_string())?);
            }
        }
        if bytes.is_empty() {
            return Err("there is no byte".to_owned());
        }
        if bytes.len() > FRAME_MAX {
            return Err(format!(
                "{} bytes: no packet has more than {FRAME_MAX}",
                bytes.len()
            ));
        }
        Ok(Self(bytes))
    }
}

/// A link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::config::Client::Mac(self.0).fmt(f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no link-layer address such as 02:00:00:00:00:01");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let is_hex = |c: char| c.is_ascii_hexdigit();
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.chars().all(is_hex));
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(refused)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(refused()),
        }
    }
}

/// What is done with a packet, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who says so.
    pub origin: Origin,
    /// What it is.
    pub parsed: Parsed,
    /// Which way it goes; `None` if neither end is an endpoint and nobody said.
    pub direction: Option<Way>,
    /// Whether it matches: it goes to or comes from an endpoint, and is IPsec.
    pub matches: bool,
    /// The way out of the classifier; that of each program is with its hook.
    pub exit: String,
    /// `ike`, `esp_udp`, `keepalive`, `esp`, `fragment`; `None` if it does not match.
    pub class: Option<String>,
    /// The class whose DSCP it gets: a later fragment's is its first fragment's.
    pub treated_as: Option<String>,
    /// Why it does not match, or that it does.
    pub why: String,
    /// What to do about it.
    pub hints: Vec<String>,
    /// The endpoint, also if the packet does not match for another reason.
    pub endpoint: Option<Endpoint>,
    /// The policies up to the one that matched, in order.
    pub policies: Vec<Tried>,
    /// The policy that matched; `None` if the defaults apply, or nothing does.
    pub policy: Option<String>,
    /// What else decides, in the order in which the programs ask.
    pub steps: Vec<Step>,
    /// The exit that it leaves by.
    pub leaves_by: Option<String>,
    /// The ways that this exit takes, by family; empty if no agent was asked.
    pub ways: Vec<Steering>,
    /// What policies had to go by.
    pub client: Client,
    /// What is done, at each hook that sees it.
    pub hooks: Vec<Treated>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address that was looked up: of one behind NAT64, the IPv4 address that it stands for.
    pub address: Option<Text<IpAddr>>,
    /// `host`, `block` or `prefix`: which table has it.
    pub found_as: String,
    /// The network that it is known as.
    pub network: String,
    /// How far it is trusted.
    pub tier: Option<String>,
    /// Its operators.
    pub operators: Vec<String>,
    /// Its countries.
    pub countries: Vec<String>,
    /// Its country by the GeoIP database.
    pub geoip: Option<String>,
    /// The names that gave it, or addresses in its block; no more than a few.
    pub names: Vec<String>,
    /// The known addresses in the network; no more than a few.
    pub addresses: Vec<String>,
    /// `static`, `catalogue`, `resolver`, ….
    pub sources: Vec<String>,
    /// Whether phones ask for it to make emergency calls.
    pub emergency: bool,
    /// The operators that it is counted under.
    pub counted_operator: String,
    /// The countries that it is counted under.
    pub counted_country: String,
}

/// A policy that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Its name.
    pub policy: String,
    /// Whether it matched.
    pub matched: bool,
    /// The condition that does not hold: the key of the configuration.
    pub condition: Option<String>,
    /// What it asks for; no more than a few values.
    pub wanted: Vec<String>,
    /// What it met; empty if that is nothing, or not known.
    pub found: Vec<String>,
}

/// Something besides endpoint and policy that decides what is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `tunnel`, `companions`, `bleach`, `catch_all`, `other_ipsec`.
    pub part: String,
    /// What comes of it, in a word.
    pub result: String,
    /// The same, and why, in a sentence.
    pub why: String,
    /// The exit that the tunnel began with.
    pub exit: Option<String>,
    /// When it did, in seconds since the Unix epoch.
    pub since: Option<u64>,
    /// The country of the address.
    pub country: Option<String>,
    /// The policy that is to decide.
    pub policy: Option<String>,
}

impl Step {
    /// One without further details.
    #[must_use]
    pub fn new(part: &str, result: &str, why: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            result: result.into(),
            why: why.into(),
            ..Self::default()
        }
    }
}

/// Whose packet it is, and where it is seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Its address.
    pub address: Option<Text<IpAddr>>,
    /// Its link-layer address.
    pub mac: Option<Text<Mac>>,
    /// The interface.
    pub interface: Option<String>,
}

/// What is done at a hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Treated {
    /// The interface.
    pub interface: String,
    /// `access` or `uplink`.
    pub role: String,
    /// `tc_ingress`, `tc_egress`, `xdp`.
    pub hook: String,
    /// The program that runs there.
    pub program: String,
    /// The way out of it, as `wificall_exits_total` counts it.
    pub exit: String,
    /// The packet ends here.
    pub dropped: bool,
    /// The DSCP that it gets; `None`: it keeps its own.
    pub dscp: Option<u8>,
    /// `value/mask` of the mark that it gets.
    pub mark: Option<String>,
    /// `skb->priority` that it gets.
    pub priority: Option<u32>,
    /// Packets a second of one client in one direction beyond which there is neither DSCP nor priority.
    pub cap: Option<u32>,
}

#[cfg(test)]
use crate::observe::SteeringGateway;

/// An answer to a question of tests.
#[cfg(test)]
pub(crate) fn sample(packet: &Packet) -> Explanation {
    let link = packet.link.unwrap_or(LinkName::Ethernet);
    Explanation {
        origin: Origin::Agent,
        parsed: dissect(&packet.frame.0.0, link.into()),
        direction: Some(Way::Up),
        matches: true,
        exit: "matched".into(),
        class: Some("esp_udp".into()),
        treated_as: Some("esp_udp".into()),
        why: "an endpoint, and IPsec".into(),
        hints: Vec::new(),
        endpoint: Some(Endpoint {
            address: "192.0.2.1".parse().ok().map(Text),
            found_as: "block".into(),
            network: "192.0.2.0/24".into(),
            tier: Some("authoritative".into()),
            operators: vec!["262-01".into()],
            countries: vec!["DE".into()],
            geoip: Some("AT".into()),
            names: vec!["epdg.example.net".into()],
            addresses: vec!["192.0.2.9".into()],
            sources: vec!["resolver".into()],
            emergency: false,
            counted_operator: "262-01".into(),
            counted_country: "DE".into(),
        }),
        policies: vec![
            Tried {
                policy: "australia".into(),
                matched: false,
                condition: Some("countries".into()),
                wanted: vec!["AU".into(), "NZ".into()],
                found: vec!["DE".into()],
            },
            Tried {
                policy: "guests".into(),
                matched: false,
                condition: Some("interfaces".into()),
                wanted: vec!["guest*".into()],
                found: Vec::new(),
            },
            Tried {
                policy: "germany".into(),
                matched: true,
                condition: None,
                wanted: Vec::new(),
                found: Vec::new(),
            },
        ],
        policy: Some("germany".into()),
        steps: vec![Step {
            exit: Some("berlin".into()),
            since: Some(1_700_000_000),
            ..Step::new("tunnel", "agrees", "it began with this exit, 25 s ago")
        }],
        leaves_by: Some("berlin".into()),
        ways: [
            ("ipv4", "gateway", Some("10.0.0.9")),
            ("ipv6", "direct", None),
        ]
        .map(|(family, state, gateway)| Steering {
            exit: "berlin".into(),
            family: family.into(),
            mark: "0x65/0xff".into(),
            table: 1065,
            state: state.into(),
            gateway: gateway.map(Into::into),
            gateways: gateway
                .map(|gateway| SteeringGateway {
                    gateway: gateway.into(),
                    state: "up".into(),
                    ..SteeringGateway::default()
                })
                .into_iter()
                .collect(),
            ..Steering::default()
        })
        .into(),
        client: Client {
            address: "10.0.0.2".parse().ok().map(Text),
            mac: Some(Text(Mac([2, 0, 0, 0, 0, 1]))),
            interface: Some("lan".into()),
        },
        hooks: vec![Treated {
            interface: "lan".into(),
            role: "access".into(),
            hook: "tc_ingress".into(),
            program: "in_up".into(),
            exit: "matched".into(),
            dropped: false,
            dscp: Some(46),
            mark: Some("0x65/0xff".into()),
            priority: None,
            cap: Some(150),
        }],
        notes: Vec::new(),
    }
}

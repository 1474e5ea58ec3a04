//! What is compared: the same task, done by what people use today and by us.
//!
//! The task is to give packets from phones to ePDGs a mark before they are routed, and the DSCP EF. Everybody's rules do
//! the least that does it: nothing for the other direction, no native ESP, no counters, no connection tracking.

use std::{fmt::Write as _, net::IpAddr, os::fd::AsFd as _};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, PerCpuArray};
use wificall_common::{
    abi::{Hook, exit_slot},
    exit::Exit,
};

use crate::{
    agent::Agent,
    lab::EF,
    programs::{
        TC_ACT_UNSPEC,
        raw::{At, Attached, Insn, Kind as Program, RawProgram, attach},
    },
    rig::{
        road::Road,
        traffic::{Direction, Kind, MARKS, Traffic, block4, block6, mark, order},
    },
};

/// The mark of rules that know one only.
const MARK: u32 = 0x65;

/// A way to do the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Not at all: the router forwards.
    Nothing,
    /// Not at all, by an empty program at the hooks that ours would have.
    EmptyHook,
    /// A script of two rules by port, as `iptables` of today has them: compiled for nf_tables.
    Iptables,
    /// The same by `iptables-legacy`.
    IptablesLegacy,
    /// A script of two rules by port and address, the addresses in an ipset.
    Ipset,
    /// One rule by port and address, the addresses in an nftables set.
    NftSet,
    /// One rule by port, the mark by address out of an nftables map.
    NftMap,
    /// The agent, by TC.
    Tc,
    /// The agent, by XDP and TC.
    Xdp,
}

/// What rules are to do with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    None,
    Dscp,
    DscpAndMark,
    DscpAndCountry,
}

impl Rules {
    /// As tables call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::EmptyHook => "one empty TCX hook",
            Self::Iptables => "iptables by port",
            Self::IptablesLegacy => "iptables-legacy by port",
            Self::Ipset => "iptables + ipset",
            Self::NftSet => "nft set",
            Self::NftMap => "nft map by country",
            Self::Tc => "wificall, TC",
            Self::Xdp => "wificall, TC and XDP",
        }
    }

    /// Whether these rules are about packets to phones as well.
    #[must_use]
    pub const fn goes_both_ways(self) -> bool {
        matches!(self, Self::Nothing | Self::EmptyHook | Self::Tc | Self::Xdp)
    }

    /// Whether what they are told depends on the number of endpoints.
    #[must_use]
    pub const fn has_endpoints(self) -> bool {
        matches!(
            self,
            Self::Ipset | Self::NftSet | Self::NftMap | Self::Tc | Self::Xdp
        )
    }

    const fn treatment(self, traffic: Traffic) -> Treatment {
        match (self, traffic.direction, traffic.kind) {
            (Self::Nothing | Self::EmptyHook, ..) | (.., Kind::Tcp | Kind::Udp) => Treatment::None,
            // By port alone, any VPN is a call.
            (Self::Iptables | Self::IptablesLegacy, Direction::Up, Kind::Esp | Kind::Vpn)
            | (Self::Ipset | Self::NftSet, Direction::Up, Kind::Esp) => Treatment::DscpAndMark,
            (Self::NftMap | Self::Tc | Self::Xdp, Direction::Up, Kind::Esp) => {
                Treatment::DscpAndCountry
            }
            // A marked packet to a phone would be routed back to the exit.
            (Self::Tc | Self::Xdp, Direction::Down, Kind::Esp) => Treatment::Dscp,
            _ => Treatment::None,
        }
    }

    /// The DSCP with which such packets are to leave the router.
    #[must_use]
    pub fn dscp(self, traffic: Traffic) -> u8 {
        match self.treatment(traffic) {
            Treatment::None => 0,
            Treatment::Dscp | Treatment::DscpAndMark | Treatment::DscpAndCountry => EF,
        }
    }

    /// Each mark that they are to have, with the number of packets, if each endpoint is sent one.
    #[must_use]
    pub fn marks(self, traffic: Traffic, endpoints: u32) -> Vec<(u32, u64)> {
        match self.treatment(traffic) {
            Treatment::None | Treatment::Dscp => Vec::new(),
            Treatment::DscpAndMark => vec![(MARK, endpoints.into())],
            Treatment::DscpAndCountry => (1..=MARKS)
                .map(|country| {
                    let count = order(endpoints).filter(|index| mark(*index) == country);
                    (country, count.count() as u64)
                })
                .collect(),
        }
    }

    /// How many packets are to leave our programs where they come in, if each endpoint is sent one: TC by `matched` and by
    /// `by_xdp`, XDP by `matched`.
    #[must_use]
    pub fn exits(self, traffic: Traffic, endpoints: u32) -> [u64; 3] {
        match (self, traffic.direction, traffic.matches()) {
            (Self::Tc, Direction::Up, true) => [endpoints.into(), 0, 0],
            (Self::Xdp, Direction::Up, true) => [0, endpoints.into(), endpoints.into()],
            _ => [0; 3],
        }
    }

    /// Puts them in place in a router.
    ///
    /// # Errors
    ///
    /// If a tool is missing or the kernel refuses something.
    pub fn put(self, road: &Road, endpoints: u32) -> Result<InPlace<'_>> {
        let mut in_place = InPlace::default();
        match self {
            Self::Nothing => {}
            Self::EmptyHook => {
                let program =
                    RawProgram::load(Program::Tc, &Insn::empty(TC_ACT_UNSPEC.cast_signed()))?;
                let lan = road.router.index("lan")?;
                for at in [At::TcIngress, At::TcEgress] {
                    let attached = road
                        .router
                        .enter(|| attach(program.as_fd(), lan, at))
                        .context("attach an empty program")?;
                    in_place.hooks.push(attached);
                }
            }
            Self::Iptables => iptables(road, "nft", "")?,
            Self::IptablesLegacy => iptables(road, "legacy", "")?,
            Self::Ipset => {
                road.with_file("ipset", "restore -file", &ipset(endpoints)?)?;
                iptables(road, "nft", "-m set --match-set epdg{family} dst")?;
            }
            Self::NftSet => road.nft(&nft_set(endpoints))?,
            Self::NftMap => road.nft(&nft_map(endpoints))?,
            Self::Tc => in_place.agent = Some(agent(road, endpoints, false)?),
            Self::Xdp => in_place.agent = Some(agent(road, endpoints, true)?),
        }
        Ok(in_place)
    }
}

/// What holds rules in place that would not stay of themselves. The others go with their router.
#[derive(Default)]
pub struct InPlace<'a> {
    hooks: Vec<Attached>,
    agent: Option<Agent<'a>>,
}

impl InPlace<'_> {
    /// As [`Rules::exits`] says, so far.
    ///
    /// # Errors
    ///
    /// If the agent's maps cannot be read.
    pub fn exits(&self) -> Result<[u64; 3]> {
        let Some(agent) = &self.agent else {
            return Ok([0; 3]);
        };
        let map = agent.map("EXITS")?;
        let exits: PerCpuArray<_, u64> = Map::PerCpuArray(map).try_into()?;
        let count =
            |hook, exit| -> Result<u64> { Ok(exits.get(&exit_slot(hook, exit), 0)?.iter().sum()) };
        Ok([
            count(Hook::TcIngress, Exit::Matched)?,
            count(Hook::TcIngress, Exit::ByXdp)?,
            count(Hook::Xdp, Exit::Matched)?,
        ])
    }

    /// Removes what is there, and fails if something of the agent is left.
    ///
    /// # Errors
    ///
    /// What is left.
    pub fn remove(self) -> Result<()> {
        drop(self.hooks);
        self.agent.map_or(Ok(()), Agent::finish)
    }
}

/// The real agent, told the endpoints and a mark for each operator. Once all is in the kernel it ends, and its work goes
/// on: a resync would be work of its own.
fn agent(road: &Road, endpoints: u32, xdp: bool) -> Result<Agent<'_>> {
    let mut text = "[interfaces]\naccess = [\"lan\"]\ntc = \"tcx\"\n".to_owned();
    if xdp {
        text += "xdp = [\"lan\"]\n";
    }
    // Room for all of them, whatever map they go to.
    write!(
        text,
        "[lab]\n[limits]\nprefixes = {}\n",
        4_096 + 2 * endpoints
    )?;
    for index in 0..endpoints {
        let operator = mark(index);
        for prefix in [
            format!("{}/24", block4(index)),
            format!("{}/64", block6(index)),
        ] {
            write!(
                text,
                "[[prefix]]\nprefix = \"{prefix}\"\noperator = \"001-{operator:02}\"\n"
            )?;
        }
    }
    for mark in 1..=MARKS {
        write!(
            text,
            "[[policy]]\nname = \"country-{mark}\"\noperators = [\"001-{mark:02}\"]\nmark = \"{mark}/0xff\"\n"
        )?;
    }
    let mut agent = Agent::run(&road.router, &text)?;
    agent.stop()?;
    // Native XDP shows as `xdp`, generic as `xdpgeneric`.
    let link = road.router.ip("-o link show dev lan")?;
    ensure!(
        link.split_whitespace().any(|word| word == "xdp") == xdp,
        "XDP is {} to run on `lan`: {link}",
        if xdp { "" } else { "not" }
    );
    Ok(agent)
}

fn iptables(road: &Road, variant: &str, set: &str) -> Result<()> {
    for (program, family) in [("iptables", "4"), ("ip6tables", "6")] {
        let set = set.replace("{family}", family);
        for target in [
            format!("MARK --set-xmark {MARK:#x}/0xff"),
            "DSCP --set-dscp-class EF".to_owned(),
        ] {
            road.router.run(
                &format!("{program}-{variant}"),
                &format!(
                    "-w -t mangle -A PREROUTING -i lan -p udp -m multiport --dports 500,4500 {set} -j {target}"
                ),
            )?;
        }
    }
    Ok(())
}

fn ipset(endpoints: u32) -> Result<String> {
    let mut text =
        "create epdg4 hash:net family inet\ncreate epdg6 hash:net family inet6\n".to_owned();
    for index in 0..endpoints {
        writeln!(text, "add epdg4 {}/24", block4(index))?;
        writeln!(text, "add epdg6 {}/64", block6(index))?;
    }
    Ok(text)
}

const CHAIN: &str = "type filter hook prerouting priority mangle; policy accept;";

fn nft_set(endpoints: u32) -> String {
    let each = |_: u32, prefix: String| prefix;
    format!(
        "table inet epdg {{
            set epdg4 {{ type ipv4_addr; flags interval; elements = {{ {} }} }}
            set epdg6 {{ type ipv6_addr; flags interval; elements = {{ {} }} }}
            chain calls {{
                {CHAIN}
                udp dport {{ 500, 4500 }} ip daddr @epdg4 meta mark set {MARK:#x} ip dscp set ef
                udp dport {{ 500, 4500 }} ip6 daddr @epdg6 meta mark set {MARK:#x} ip6 dscp set ef
            }}
        }}\n",
        elements4(endpoints, each),
        elements6(endpoints, each),
    )
}

fn nft_map(endpoints: u32) -> String {
    let each = |index: u32, prefix: String| format!("{prefix} : {}", mark(index));
    format!(
        "table inet epdg {{
            map country4 {{ type ipv4_addr : mark; flags interval; elements = {{ {} }} }}
            map country6 {{ type ipv6_addr : mark; flags interval; elements = {{ {} }} }}
            chain calls {{
                {CHAIN}
                udp dport {{ 500, 4500 }} meta mark set ip daddr map @country4 ip dscp set ef
                udp dport {{ 500, 4500 }} meta mark set ip6 daddr map @country6 ip6 dscp set ef
            }}
        }}\n",
        elements4(endpoints, each),
        elements6(endpoints, each),
    )
}

fn elements4(endpoints: u32, each: impl Fn(u32, String) -> String) -> String {
    elements(endpoints, 24, |index| block4(index).into(), each)
}

fn elements6(endpoints: u32, each: impl Fn(u32, String) -> String) -> String {
    elements(endpoints, 64, |index| block6(index).into(), each)
}

fn elements(
    endpoints: u32,
    length: u8,
    block: impl Fn(u32) -> IpAddr,
    each: impl Fn(u32, String) -> String,
) -> String {
    (0..endpoints)
        .map(|index| each(index, format!("{}/{length}", block(index))))
        .collect::<Vec<_>>()
        .join(", ")
}

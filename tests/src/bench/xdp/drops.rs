//! The same drop at six places: UDP 500 or 4500 to a destination that is in none of 250 blocks.
//!
//! All parse as much, look the block up in a table of the kernel's own, and count nothing. Each is first shown to drop
//! what it should, and to pass Wi-Fi Calling and TCP; every timed burst is checked as well.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};

use super::{
    super::{
        Scale,
        row::{Row, Setting, setting},
        turns::{Effort, Turn, turns},
    },
    NAME, PART,
};
use crate::{
    programs::{
        TC_ACT_UNSPEC, XDP_PASS,
        code::{Code, If, Reg, Width},
        raw::{ArrayKind, At, Attached, Kind as Program, RawArray, RawProgram, attach},
    },
    rig::{
        Rig,
        road::Road,
        traffic::{Direction, Family, Kind, Traffic, block4},
    },
};

/// What a dropped packet takes, and how many that is a second.
pub const RATE: &str = "drop rate";
/// Of those.
pub const RATE_UNIT: &str = "Mpackets/s";
/// What the rules add to packets, dropped or passed.
pub const COST: &str = "drop cost";

const XDP_DROP: i32 = 1;
const TC_ACT_SHOT: i32 = 2;
const ENDPOINTS: u32 = 250;

/// Where packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: they are forwarded.
    Nowhere,
    Xdp,
    XdpGeneric,
    Tc,
    NftIngress,
    NftPrerouting,
    NftForward,
}

const PLACES: [Place; 7] = [
    Place::Nowhere,
    Place::Xdp,
    Place::XdpGeneric,
    Place::Tc,
    Place::NftIngress,
    Place::NftPrerouting,
    Place::NftForward,
];

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Nowhere => "not dropped",
            Self::Xdp => "native XDP",
            Self::XdpGeneric => "generic XDP",
            Self::Tc => "TC ingress",
            Self::NftIngress => "nft, ingress",
            Self::NftPrerouting => "nft, prerouting",
            Self::NftForward => "nft, forward",
        }
    }

    fn put(self, road: &Road) -> Result<Option<Dropper>> {
        let (kind, at) = match self {
            Self::Nowhere => return Ok(None),
            Self::Xdp => (Program::Xdp, At::Xdp),
            Self::XdpGeneric => (Program::Xdp, At::XdpGeneric),
            Self::Tc => (Program::Tc, At::TcIngress),
            Self::NftIngress => return nft(road, "netdev", "hook ingress device lan priority 0"),
            Self::NftPrerouting => return nft(road, "ip", "hook prerouting priority raw"),
            Self::NftForward => return nft(road, "ip", "hook forward priority filter"),
        };
        let blocks = RawArray::new(ArrayKind::Hash, 1, ENDPOINTS as usize)?;
        for index in 0..ENDPOINTS {
            // Keys are as the address lies in the packet.
            blocks.set(u32::from_ne_bytes(block4(index).octets()), &[1])?;
        }
        let program = code(kind, &blocks).load_as(kind)?;
        let lan = road.router.index("lan")?;
        let attached = road.router.enter(|| attach(program.as_fd(), lan, at))?;
        Ok(Some(Dropper {
            _attached: attached,
            _program: program,
            _blocks: blocks,
        }))
    }
}

/// Holds a program in its place.
struct Dropper {
    _attached: Attached,
    _program: RawProgram,
    _blocks: RawArray,
}

fn nft(road: &Road, family: &str, hook: &str) -> Result<Option<Dropper>> {
    let blocks: Vec<_> = (0..ENDPOINTS)
        .map(|index| format!("{}/24", block4(index)))
        .collect();
    let text = format!(
        "table {family} epdg {{
            set epdg4 {{ type ipv4_addr; flags interval; elements = {{ {} }} }}
            chain others {{
                type filter {hook}; policy accept;
                udp dport {{ 500, 4500 }} ip daddr != @epdg4 drop
            }}
        }}\n",
        blocks.join(", ")
    );
    road.nft(&text)?;
    Ok(None)
}

/// As `udp dport { 500, 4500 } ip daddr != @epdg4 drop`.
fn code(kind: Program, blocks: &RawArray) -> Code {
    use Reg::{R0, R1, R2, R3, R4, R10};
    // Ethernet, IPv4 without options, ports of UDP.
    const NEEDED: i32 = 14 + 20 + 4;
    let (data, dropped, passed) = match kind {
        Program::Xdp => (0, XDP_DROP, XDP_PASS),
        Program::Tc => (76, TC_ACT_SHOT, TC_ACT_UNSPEC),
    };
    let mut code = Code::new();
    let (ipsec, pass) = (code.label(), code.label());
    code.load(Width::U32, R2, R1, data)
        .load(Width::U32, R3, R1, data + 4)
        .copy(R4, R2)
        .add(R4, NEEDED)
        .jump_if_reg(R4, If::Greater, R3, pass)
        .load(Width::U16, R4, R2, 12)
        .swap16(R4)
        .jump_if(R4, If::NotEqual, 0x0800, pass)
        .load(Width::U8, R4, R2, 14)
        .jump_if(R4, If::NotEqual, 0x45, pass)
        .load(Width::U8, R4, R2, 23)
        .jump_if(R4, If::NotEqual, libc::IPPROTO_UDP, pass)
        // Not a later fragment, which has no ports.
        .load(Width::U16, R4, R2, 20)
        .swap16(R4)
        .and(R4, 0x1fff)
        .jump_if(R4, If::NotEqual, 0, pass)
        .load(Width::U16, R4, R2, 36)
        .swap16(R4)
        .jump_if(R4, If::Equal, 4500, ipsec)
        .jump_if(R4, If::NotEqual, 500, pass)
        .here(ipsec)
        // The /24 of the destination.
        .load(Width::U32, R4, R2, 30)
        .and(R4, i32::from_ne_bytes([255, 255, 255, 0]))
        .store(Width::U32, R10, -4, R4)
        .lookup(blocks, -4)
        .jump_if(R0, If::NotEqual, 0, pass)
        .leave(dropped)
        .here(pass)
        .leave(passed.cast_signed());
    code
}

/// Measures the drops.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let (effort, packets) = match scale {
        Scale::Full => (
            Effort {
                rounds: 31,
                quiet: 21,
                most: 81,
                slack: 1.1,
            },
            50_000,
        ),
        Scale::Quick => (
            Effort {
                rounds: 3,
                quiet: 3,
                most: 3,
                slack: 1.1,
            },
            20_000,
        ),
    };
    let mut rig = Rig::new()?;
    let roads: Vec<_> = PLACES
        .iter()
        .enumerate()
        .map(|(number, _)| rig.road(&format!("drop{number}")))
        .collect::<Result<_>>()?;
    let _droppers: Vec<_> = PLACES
        .iter()
        .zip(&roads)
        .map(|(place, road)| place.put(road).with_context(|| place.name()))
        .collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for kind in [Kind::Vpn, Kind::Esp, Kind::Tcp] {
        let traffic = Traffic {
            direction: Direction::Up,
            kind,
            family: Family::V4,
        };
        let injectors = rig.injectors(&traffic, ENDPOINTS)?;
        let variants = PLACES
            .iter()
            .zip(&roads)
            .map(|(place, road)| {
                let dropped = kind == Kind::Vpn && *place != Place::Nowhere;
                let dscp = if dropped { None } else { Some(0) };
                let (rig, injectors) = (&rig, &injectors[..1]);
                let turn: Turn<'_> =
                    Box::new(move || rig.burst(road, traffic.direction, injectors, packets, dscp));
                (place.name().to_owned(), turn)
            })
            .collect();
        let turns = turns(&effort, variants)?;
        let nowhere = Place::Nowhere.name();
        for place in PLACES {
            let name = place.name();
            if place != Place::Nowhere {
                let case = if kind == Kind::Vpn {
                    "dropped"
                } else {
                    "passed"
                };
                let case = format!("{}: {case}", traffic.name());
                let names = [case.as_str(), name, "ns/packet"];
                rows.push(turns.row(NAME, &part(COST), names, Some(nowhere))?);
            }
            if kind == Kind::Vpn {
                let took = turns.row(NAME, &part(RATE), ["ns", name, "ns/packet"], None)?;
                rows.push(rate(&took));
                rows.push(took);
            }
        }
    }
    Ok(rows)
}

/// The same in packets a second.
fn rate(took: &Row) -> Row {
    let mut row = took.clone();
    row.case = "million a second".to_owned();
    row.unit = RATE_UNIT.to_owned();
    row.value.low = 1e3 / took.value.high;
    row.value.median = 1e3 / took.value.median;
    row.value.high = 1e3 / took.value.low;
    let [least, most] = took.value.sure;
    row.value.sure = [1e3 / most, 1e3 / least];
    row
}

fn part(name: &str) -> Setting {
    setting(&[(PART, name)])
}

//! A crowd of phones: a flow each, to endpoints that they share.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData};
use wificall_common::abi::{Flow, FlowKey};

use crate::{
    bench::{
        policies::with_sequence,
        program::{
            BUDGETED,
            table::{self, Shape, address4, contents},
            traffic::{ESP_IN_UDP, Frames, TRAFFIC},
        },
    },
    packet::checksum,
    programs::{Abi, Kernel},
    scatter::scattered,
    vectors::Setup,
};

/// Endpoints of a crowd, in blocks of their own.
pub const ENDPOINTS: u32 = BUDGETED;
/// The phones' port.
const PORT: u16 = 40_000;
/// The IPv4 header, behind Ethernet.
const IP: usize = 20;

/// Where the crowd's endpoints are.
pub type Far = fn(u32) -> Ipv4Addr;

/// In the table of the layer `program`.
#[must_use]
pub fn in_table(index: u32) -> Ipv4Addr {
    address4(index)
}

/// In 101.0.0.0/8, which an agent takes.
#[must_use]
pub fn for_agent(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(101 << 24 | scattered(index, 16) << 8 | 7)
}

/// The phone of flow `number`.
#[must_use]
pub fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(10 << 24 | 1 << 20 | number)
}

/// The key of flow `number`.
#[must_use]
pub fn key(number: u32, far: Far) -> FlowKey {
    FlowKey {
        client: client(number).to_ipv6_mapped().octets(),
        endpoint: far(number % ENDPOINTS).to_ipv6_mapped().octets(),
        port: PORT,
        protocol: 17,
        reserved: [0; 5],
    }
}

/// ESP in UDP of so many flows, in one direction, with sequence numbers that grow.
///
/// # Errors
///
/// If a packet cannot be made.
pub fn frames(flows: u32, down: bool, far: Far) -> Result<Frames> {
    let esp = TRAFFIC.iter().find(|traffic| traffic.name == ESP_IN_UDP);
    let esp = esp.context("no ESP in UDP among the traffic")?;
    let mut frames = with_sequence(esp.frames(1, down)?);
    let template = std::mem::take(&mut frames.headers);
    let (client_at, far_at) = if down { (16, 12) } else { (12, 16) };
    for number in 0..flows {
        let mut header = template.clone();
        header[client_at..client_at + 4].copy_from_slice(&client(number).octets());
        header[far_at..far_at + 4].copy_from_slice(&far(number % ENDPOINTS).octets());
        header[10..12].fill(0);
        let sum = checksum(&header[..IP]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frames.headers.extend(header);
    }
    let first = &frames.headers[..frames.header];
    frames.frame[14..][..frames.header].copy_from_slice(first);
    Ok(frames)
}

/// The object with the table of a crowd, and room for its flows.
pub struct Crowd {
    /// The programs.
    pub kernel: Kernel,
    /// The map. Open for as long as the programs are not loaded: they know maps by the number of their descriptors.
    pub map: HashMap<MapData, Abi<FlowKey>, Abi<Flow>>,
}

impl Crowd {
    /// One with these features for so many flows, none of which is there yet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn new(features: u32, flows: u32) -> Result<Self> {
        let sizes = [
            // The default limits of the agent.
            ("BLOCKS4", 16_384),
            ("HOSTS", 4_096),
            ("ACTIVITY", ENDPOINTS.max(1_024)),
            ("COUNTERS", table::GROUPS + 1),
            ("POLICIES", table::POLICIES + 1),
            // An LRU map is evicted from before it is full.
            ("FLOWS", (flows + flows / 4).max(8_192)),
        ];
        let setup = Setup {
            features,
            pref64: None,
        };
        let mut kernel = Kernel::load_with(&setup, [1, 2], &sizes)?;
        kernel.fill(&contents(ENDPOINTS, Shape::Blocks)?)?;
        let map = kernel.ebpf.take_map("FLOWS");
        let map = map.context("the object has no map FLOWS")?.try_into()?;
        Ok(Self { kernel, map })
    }

    /// Has so many flows, as if both ends had spoken and nothing had been counted.
    ///
    /// # Errors
    ///
    /// If the map does not take them.
    pub fn begin(&mut self, flows: u32) -> Result<()> {
        for number in 0..flows {
            let key = Abi(key(number, in_table));
            self.map.insert(key, Abi(Flow::default()), 0)?;
        }
        Ok(())
    }
}

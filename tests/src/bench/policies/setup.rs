//! The maps of the measurements: rows, choices by client, tunnels.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key};
use wificall_common::abi::{
    Choice, ChoiceKey, ClientKey, EPOCH_BITS, Features, Flow, FlowKey, Hook, InterfaceKey,
    KEEP_OFF, Policy, StationKey, TIER_TRUSTED, Tunnel, TunnelKey, bleached_slot,
};

use super::{MANY, Variant};
use crate::{
    bench::program::{
        contest::USUAL_FEATURES,
        table::{GROUPS, Shape, contents},
        traffic::{Frames, Traffic},
    },
    packet::checksum,
    programs::{Abi, Kernel},
    vectors::{Contents, MARK, Setup},
};

const PROGRAM: &str = "in_up";
/// Of the numbering of clients, and the set of choices.
const EPOCH: u32 = 1;
const SET: u32 = 1;
/// The routing table of the exit.
const EXIT: u32 = 1065;
/// Row 1 + so many is chosen for the first client.
const CHOSEN: u32 = 1;
/// Bits of the mark that are ours.
const MASK: u32 = 0xffff;
/// The interface of test runs: loopback.
const IFINDEX: u32 = 1;
/// Bits of a client's network.
const CLIENT_NET: u32 = 24;

/// A client, in a network of its own.
fn client(number: u32) -> [u8; 4] {
    let [_, _, high, low] = number.to_be_bytes();
    [10, 64 + high, low, 7]
}

/// Has the frames come from so many clients by turns. By IPv6, and by link-layer address, there is only one client.
pub fn with_clients(mut frames: Frames, clients: u32) -> Frames {
    for (number, header) in (0..).zip(frames.headers.chunks_exact_mut(frames.header)) {
        if header[0] >> 4 == 4 {
            header[12..16].copy_from_slice(&client(number % clients));
            header[10..12].fill(0);
            let sum = checksum(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }
    let first = &frames.headers[..frames.header];
    frames.frame[14..][..frames.header].copy_from_slice(first);
    frames
}

/// Has the sequence number of ESP in UDP grow with each packet of a client, as it does.
pub fn with_sequence(mut frames: Frames) -> Frames {
    // UDP, then SPI and sequence number (RFC 4303 section 2).
    const MORE: usize = 8 + 8;
    let header = frames.header + MORE;
    let more = &frames.frame[14 + frames.header..14 + header];
    let chunks = frames.headers.chunks_exact(frames.header);
    frames.headers = chunks.flat_map(|old| [old, more].concat()).collect();
    frames.header = header;
    frames.counter = Some(header - 4);
    frames
}

/// Counts of one kind of traffic.
pub struct Counted {
    /// Packets that left by its exit.
    pub exit: u64,
    /// Packets that lost their DSCP.
    pub bleached: u64,
}

/// The object set up in one way, with its maps.
pub struct Loaded {
    kernel: Kernel,
    // Open for as long as the programs are not loaded: they know maps by the number of their descriptors.
    tunnels: HashMap<MapData, Abi<TunnelKey>, Abi<Tunnel>>,
    flows: HashMap<MapData, Abi<FlowKey>, Abi<Flow>>,
}

impl Loaded {
    /// One for so many endpoints.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn new(variant: &Variant, endpoints: u32) -> Result<Self> {
        let features = USUAL_FEATURES | variant.features;
        let sizes = [
            // The default limits of the agent.
            ("BLOCKS4", endpoints.max(16_384)),
            ("HOSTS", 4_096),
            ("ACTIVITY", endpoints.max(1_024)),
            ("COUNTERS", GROUPS + 1),
            ("POLICIES", 2 * MANY + 2),
            // An LRU map is evicted from before it is full.
            ("TUNNELS", 8 * endpoints.max(1_024)),
            ("FLOWS", 8 * endpoints.max(1_024)),
        ];
        let setup = Setup {
            features,
            pref64: None,
        };
        let mut kernel = Kernel::load_with(&setup, [1, 2], &sizes)?;
        kernel.fill(&rows(variant, endpoints)?)?;
        if let Some(keep) = variant.keep {
            let map = kernel.ebpf.map_mut("KEEP");
            let mut map: Array<_, u32> = map.context("the object has no map KEEP")?.try_into()?;
            map.set(0, keep, 0)?;
        }
        let tunnels = kernel.ebpf.take_map("TUNNELS");
        let tunnels = tunnels.context("the object has no map TUNNELS")?;
        let tunnels = tunnels.try_into()?;
        let flows = kernel.ebpf.take_map("FLOWS");
        let flows = flows.context("the object has no map FLOWS")?.try_into()?;
        Ok(Self {
            kernel,
            tunnels,
            flows,
        })
    }

    /// The program, once it has been seen to treat the first frame as it should.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it, or the frame got another mark than that of its policy.
    pub fn ready(
        &mut self,
        variant: &Variant,
        traffic: &Traffic,
        frames: &Frames,
    ) -> Result<OwnedFd> {
        if variant.chooses() {
            self.choose(variant, frames)?;
        }
        if variant.features & Features::FLOWS != 0 {
            self.track(frames)?;
        }
        let run = self.kernel.run(PROGRAM, &frames.frame, 1)?;
        let run = run.context("the frame is too short")?;
        let expected = if !traffic.is_match() {
            MARK
        } else if variant.chooses() {
            MARK & !MASK | (1 + CHOSEN)
        } else {
            MARK & !MASK | 1
        };
        ensure!(
            run.mark == expected,
            "{}, {}: the mark is {:#x}, not {expected:#x}",
            traffic.name,
            variant.name,
            run.mark
        );
        self.kernel.descriptor(PROGRAM)
    }

    /// What has been counted so far.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn counted(&self, traffic: &Traffic) -> Result<Counted> {
        let exits = self.kernel.exits(Hook::TcIngress)?;
        let exit = exits.get(&(Hook::TcIngress, traffic.exit(0)));
        Ok(Counted {
            exit: exit.copied().unwrap_or(0),
            bleached: self.kernel.slot(bleached_slot(Hook::TcIngress))?,
        })
    }

    /// That there is a tunnel to each endpoint if its packets ask for them, and none where there is no exit.
    ///
    /// # Errors
    ///
    /// If there is not, or the map cannot be read.
    pub fn check_tunnels(
        &self,
        variant: &Variant,
        traffic: &Traffic,
        endpoints: u32,
    ) -> Result<()> {
        let found = self.tunnels.keys().collect::<Result<Vec<_>, _>>()?.len();
        let expected = match variant.keep {
            Some(KEEP_OFF) if traffic.is_esp() => return Ok(()),
            Some(_) if traffic.is_match() => endpoints as usize,
            _ => 0,
        };
        ensure!(
            found == expected,
            "{}, {}: {found} tunnels, not {expected}",
            traffic.name,
            variant.name
        );
        Ok(())
    }

    /// Has a flow for each frame, as if both ends had spoken.
    fn track(&mut self, frames: &Frames) -> Result<()> {
        for key in self.flows.keys().collect::<Result<Vec<_>, _>>()? {
            self.flows.remove(&key)?;
        }
        for header in frames.headers.chunks_exact(frames.header) {
            let address = |at: usize| -> Result<[u8; 16]> {
                let octets: [u8; 4] = header[at..at + 4].try_into()?;
                Ok(std::net::Ipv4Addr::from(octets).to_ipv6_mapped().octets())
            };
            let [high, low] = [frames.frame[34], frames.frame[35]];
            let key = FlowKey {
                client: address(12)?,
                endpoint: address(16)?,
                port: u16::from_be_bytes([high, low]),
                protocol: 17,
                reserved: [0; 5],
            };
            self.flows.insert(Abi(key), Abi(Flow::default()), 0)?;
        }
        Ok(())
    }

    /// That so many packets were counted in flows that no other was beside.
    ///
    /// # Errors
    ///
    /// If there were others, or the map cannot be read.
    pub fn check_flows(&self, traffic: &Traffic, sent: u64) -> Result<()> {
        let mut seen = 0;
        for flow in self.flows.iter() {
            seen += flow?.1.0.up.packets;
        }
        ensure!(
            seen == sent,
            "{}: {seen} packets counted in flows, not {sent}",
            traffic.name
        );
        Ok(())
    }

    /// Fills the maps by which another row is chosen: a thousand networks, stations and interfaces, of which these packets
    /// meet their client's network, one station and one interface.
    fn choose(&mut self, variant: &Variant, frames: &Frames) -> Result<()> {
        let mac = &frames.frame[6..12];
        let mac = mac.iter().fold(0, |mac, byte| mac << 8 | u64::from(*byte));
        let ebpf = &mut self.kernel.ebpf;
        if variant.features & Features::CLIENTS != 0
            && let Some(map) = ebpf.map_mut("CLIENTS")
        {
            let mut map: LpmTrie<_, Abi<ClientKey>, u32> = map.try_into()?;
            for number in 0..MANY {
                let [a, b, c, _] = client(number);
                let mapped = std::net::Ipv4Addr::new(a, b, c, 0).to_ipv6_mapped();
                let key = ClientKey {
                    epoch: EPOCH.to_ne_bytes(),
                    address: mapped.octets(),
                };
                let bits = u32::from(EPOCH_BITS) + 96 + CLIENT_NET;
                map.insert(&Key::new(bits, Abi(key)), CHOSEN + number, 0)?;
            }
        }
        if variant.features & Features::STATIONS != 0
            && let Some(map) = ebpf.map_mut("STATIONS")
        {
            let mut map: HashMap<_, Abi<StationKey>, u32> = map.try_into()?;
            for number in 0..MANY {
                let key = StationKey {
                    mac: mac + u64::from(number),
                    epoch: EPOCH,
                    reserved: 0,
                };
                map.insert(Abi(key), CHOSEN + number, 0)?;
            }
        }
        if variant.features & Features::INTERFACES != 0
            && let Some(map) = ebpf.map_mut("INTERFACES")
        {
            let mut map: HashMap<_, Abi<InterfaceKey>, u32> = map.try_into()?;
            for number in 0..MANY {
                let key = InterfaceKey {
                    epoch: EPOCH,
                    ifindex: IFINDEX + number,
                };
                map.insert(Abi(key), CHOSEN + number, 0)?;
            }
        }
        let by_client = variant.features & (Features::CLIENTS | Features::STATIONS) != 0;
        let by_interface = variant.features & Features::INTERFACES != 0;
        let map = ebpf
            .map_mut("CHOICES")
            .context("the object has no map CHOICES")?;
        let mut map: HashMap<_, Abi<ChoiceKey>, Abi<Choice>> = map.try_into()?;
        for class in CHOSEN..CHOSEN + MANY {
            // With both, an interface alone chooses a row, and so does a client at the one interface.
            let mut keys = Vec::new();
            if by_interface {
                keys.push((class, 0));
            }
            if by_client {
                keys.push((if by_interface { CHOSEN } else { 0 }, class));
            }
            for (interface, client) in keys {
                let key = ChoiceKey {
                    set: SET,
                    interface,
                    client,
                    reserved: 0,
                };
                let choice = Choice {
                    order: class,
                    policy: 1 + class,
                };
                map.insert(Abi(key), Abi(choice), 0)?;
            }
        }
        Ok(())
    }
}

impl Variant {
    /// Whether another row is chosen than the endpoint's.
    const fn chooses(&self) -> bool {
        self.features & super::BY_CLIENT != 0
    }
}

/// The endpoints, spread over the policies, and the rows: those of the endpoints, or one for them all and one a client.
fn rows(variant: &Variant, endpoints: u32) -> Result<Contents> {
    let mut contents = contents(endpoints, Shape::Blocks)?;
    let policy = |slot: u32| 1 + slot % variant.policies;
    for block in contents.blocks4.values_mut() {
        block.policy = policy(block.slot);
    }
    for block in contents.blocks6.values_mut() {
        block.policy = policy(block.slot);
    }
    let chooses = variant.chooses();
    let rows = if chooses { 1 + MANY } else { variant.policies };
    let row = |index: u32| Policy {
        mark: index,
        mask: MASK,
        dscp: [[46; 4]; 2],
        voice: [1; 2],
        valid: 1,
        tier: TIER_TRUSTED,
        passes: 1,
        // For those whose clients are held to a cap: one that they stay within.
        interval: 1,
        set: if chooses { SET } else { 0 },
        epoch: if chooses { EPOCH } else { 0 },
        exit: if variant.keep.is_some() { EXIT } else { 0 },
        ..Policy::default()
    };
    contents.policies = (1..=rows).map(|index| (index, row(index))).collect();
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::program::traffic::TRAFFIC;

    #[test]
    fn every_header_has_a_client_and_its_checksum() {
        for traffic in &TRAFFIC {
            if !traffic.is_match() || traffic.needs_nat64() || traffic.header() != 20 {
                continue;
            }
            let frames = with_clients(traffic.frames(2_500, false).unwrap(), MANY);
            for (number, header) in frames.headers.chunks_exact(frames.header).enumerate() {
                assert_eq!(
                    header[12..16],
                    client(number as u32 % MANY),
                    "{}",
                    traffic.name
                );
                assert_eq!(checksum(header), 0, "{}", traffic.name);
            }
        }
    }
}

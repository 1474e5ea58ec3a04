//! The report: everything that `status`, `/metrics` and the health checks show, taken at one moment.

use serde::{Deserialize, Serialize};

use super::Surroundings;
use crate::telemetry::histogram::Histogram;

/// An agent's report. Times are seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the agent.
    pub version: String,
    /// ABI version of its data plane.
    pub abi: u32,
    /// Name of the instance.
    pub instance: String,
    /// Process id; `None` if no agent runs and the report was read from the pinned maps.
    pub pid: Option<u32>,
    /// When the agent started.
    pub started: Option<u64>,
    /// The configuration file.
    pub config: Option<String>,
    /// When this was taken.
    pub at: u64,
    /// Whether the tables are filled and every interface that could be attached is.
    pub ready: bool,
    /// What is wrong at the moment, a sentence each.
    pub problems: Vec<String>,
    /// The interfaces that the configuration selects.
    pub interfaces: Vec<Interface>,
    /// Configured names and globs that no interface has.
    pub waiting: Vec<String>,
    /// The maps that can run full.
    pub tables: Vec<Table>,
    /// Counters by group.
    pub groups: Vec<Group>,
    /// Frames by hook and exit.
    pub exits: Vec<Exit>,
    /// Packets over their client's cap, by direction: they passed without the DSCP and priority of voice.
    pub demoted: Vec<(String, u64)>,
    /// Packets that were no match and lost the DSCP of voice that their client had set.
    #[serde(default)]
    pub bleached: u64,
    /// IPsec to other addresses.
    #[serde(default)]
    pub other_ipsec: OtherIpsec,
    /// DNS.
    pub discovery: Discovery,
    /// The agent's round of probes.
    pub probes: Probes,
    /// What clients' own packets tell.
    #[serde(default)]
    pub snoop: Snoop,
    /// What flows tell of tunnels and calls.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Where endpoints are.
    #[serde(default)]
    pub geoip: GeoIp,
    /// The exits that policies send traffic by.
    #[serde(default)]
    pub steering: Vec<Steering>,
    /// Rules and routes of exits put back after someone removed them, since the start.
    #[serde(default)]
    pub steering_repairs: u64,
    /// What is around the hooks.
    #[serde(default)]
    pub surroundings: Surroundings,
    /// Reloads since the start.
    pub reloads: Reloads,
    /// Hooks put back after someone removed them, since the start.
    pub repairs: u64,
}

/// What flows tell of tunnels and calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Whether flows are tracked.
    pub enabled: bool,
    /// By owner, as far as `telemetry.labels` tells them apart.
    pub rows: Vec<TelemetryRow>,
    /// What became of what could have entered the kernel's table, by name.
    pub fates: Vec<(String, u64)>,
    /// Events of flows that were lost, since the maps were made.
    pub events_dropped: u64,
    /// Flows that the agent follows.
    pub flows: u64,
    /// Times that a flow found no room in the agent.
    pub left_out: u64,
}

/// Tunnels and calls of an owner. Sums are since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TelemetryRow {
    /// Operators, such as `262-01`; empty if they are not told apart.
    pub operator: String,
    /// Countries, such as `DE`, or `none`.
    pub country: String,
    /// Tunnels by state.
    pub tunnels: Vec<(String, u64)>,
    /// Calls that go on.
    pub calls: u64,
    /// Those with one direction silent.
    pub one_way: u64,
    /// Calls that began.
    pub calls_total: u64,
    /// Calls that were one-way for a while.
    pub one_way_total: u64,
    /// How long calls lasted that ended, in seconds.
    pub call_seconds: u64,
    /// ESP by half-leg: `client_to_us`, `network_to_us`.
    pub legs: Vec<TelemetryLeg>,
    /// Set-ups by result.
    pub setups: Vec<(String, u64)>,
    /// Distinct clients of the last hour by result.
    pub setup_clients: Vec<(String, u64)>,
    /// Duration of set-ups, in seconds.
    pub setup_seconds: Histogram,
    /// Round trips of the network's side and of the clients', in seconds.
    pub round_trip: [Histogram; 2],
    /// Tunnels whose keepalives come further apart than this host's NAT remembers.
    pub nat_timeout_shorter: u64,
}

/// ESP of a half-leg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TelemetryLeg {
    /// `client_to_us` or `network_to_us`.
    pub half_leg: String,
    /// Packets that came.
    pub received: u64,
    /// Sequence numbers that did not.
    pub lost: u64,
    /// Packets that came behind a later one.
    pub late: u64,
    /// Packets that came again.
    pub duplicate: u64,
    /// Packets whose number nothing confirmed.
    pub stray: u64,
    /// Seconds of calls by jitter, in seconds.
    pub jitter: Histogram,
}

/// An exit, in one family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Steering {
    /// Its name.
    pub exit: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Its mark and mask, as `0x65/0xff`.
    pub mark: String,
    /// Its table.
    pub table: u32,
    /// `gateway`, `direct` or `block`.
    pub state: String,
    /// The gateway in use, or the device; `None` if none is.
    pub gateway: Option<String>,
    /// Since when it takes this way.
    pub since: Option<u64>,
    /// How often another gateway has taken over, or none, since the start.
    pub failovers: u64,
    /// Its gateways in order of preference.
    pub gateways: Vec<SteeringGateway>,
}

/// A gateway of an exit, or its device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SteeringGateway {
    /// Its address, or the device's name.
    pub gateway: String,
    /// The device that it is on, if it is on one.
    pub device: Option<String>,
    /// `up`, `down` or `unknown`.
    pub state: String,
    /// Its Ethernet address.
    pub ethernet: Option<String>,
    /// How long ago it answered last, in milliseconds.
    pub last_answer_ms: Option<u64>,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

/// An interface that the configuration selects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// `access` or `uplink`.
    pub role: String,
    /// Whether its driver reads the WMM user priority from `skb->priority`.
    pub wireless: bool,
    /// What runs there.
    pub hooks: Vec<Hook>,
    /// Why something does not run there that should.
    pub problem: Option<String>,
}

/// A program at a hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// `tc_ingress`, `tc_egress`, `xdp`.
    pub hook: String,
    /// `tcx`, `clsact`, `xdp`, `xdp_generic`.
    pub method: String,
    /// Name of the program in the BPF object.
    pub program: String,
    /// Its id in the kernel.
    pub program_id: u32,
}

/// A map that can run full.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// `ipv4_blocks`, `ipv6_blocks`, `hosts`, `prefixes`, `groups`, `policies`,
    /// `choices`.
    pub name: String,
    /// Entries.
    pub used: u64,
    /// Room, as [limits] sets it.
    pub size: u64,
    /// Entries that found no room.
    pub left_out: u64,
}

/// What was counted for one set of owners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Operators, joined by `+`, or `none`.
    pub operator: String,
    /// Countries, joined by `+`, or `none`.
    pub country: String,
    /// Counters that are not zero.
    pub counters: Vec<Counter>,
}

/// Packets and bytes of one class and direction. Bytes are those of IP packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// `up` or `down`.
    pub direction: String,
    /// `ike`, `esp_udp`, `keepalive`, `esp`, `fragment`.
    pub class: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How often a way out was taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// `tc_ingress`, `tc_egress`, `xdp`.
    pub hook: String,
    /// Name of the exit.
    pub exit: String,
    /// Frames, an aggregate as one.
    pub frames: u64,
}

/// IPsec from clients that is no match, or whose endpoint may not pass a firewall. How many packets were marked, audited
/// and dropped is in the exits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OtherIpsec {
    /// `pass`, `mark`, `audit`, `drop`: what is configured.
    pub action: String,
    /// Whether `drop` drops. If not, it audits.
    pub armed: bool,
    /// Endpoints of the authoritative tier: networks and addresses in the table.
    pub endpoints: u64,
    /// From how many on `drop` drops.
    pub arm_at: Option<u32>,
    /// Where most of it goes, most first.
    pub destinations: Vec<Destination>,
    /// Destinations that are remembered beside those.
    pub more: u64,
}

/// A destination of other IPsec. Whose packets they were is not kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// The address.
    pub address: String,
    /// Packets, about: two at the same moment may count as one.
    pub packets: u64,
    /// Bytes of IP packets, likewise.
    pub bytes: u64,
    /// When the last one came.
    pub last: u64,
}

/// What DNS said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// The names that are looked up, those left out that have no addresses because there are none, or that have not
    /// been asked for.
    pub names: Vec<Name>,
    /// All names, counted by what came of them last: `addresses`, `none`, `failed`, `pending`.
    pub name_states: Vec<(String, u64)>,
    /// Addresses that our own resolver named and that are remembered.
    pub addresses: u64,
    /// The addresses that are endpoints, in order, those of the catalogue and the configuration excluded.
    pub known: Vec<Address>,
    /// Names that clients asked for and the configuration does not select. Their operators and countries are those that
    /// the name claims.
    pub seen: Vec<Name>,
    /// Names and observed addresses that made room for others, since the start.
    pub displaced: u64,
    /// NAT64 prefixes in force.
    pub nat64: Vec<String>,
    /// Questions by what was asked for and result.
    pub questions: Vec<Question>,
    /// Queries sent, by transport; those that are not zero.
    pub queries: Vec<(String, u64)>,
    /// Connections to servers made or tried, by transport; those that are not zero.
    pub connections: Vec<(String, u64)>,
    /// Answers and parts of answers that were not believed, by reason; those that are not zero.
    pub not_believed: Vec<(String, u64)>,
    /// The servers, and whether each answers.
    pub servers: Vec<(String, bool)>,
    /// Names that have not been asked for yet.
    pub unasked: u64,
    /// Questions that are due and wait for their turn.
    pub backlog: u64,
    /// Addresses refused since the start, by reason.
    pub refused: Vec<(String, u64)>,
    /// Addresses that found no room in memory, since the start.
    pub overflow: u64,
    /// When an answer with addresses came last, for any name.
    pub last_success: Option<u64>,
    /// Whether the last attempt of every name that has ever answered failed: the last known good is in use.
    pub stale: bool,
    /// What is wrong with the state on disk.
    pub state_problem: Option<String>,
}

/// An address that is an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: String,
    /// `authoritative`, `corroborated`, `observed`: how far it is trusted, and so what it may get.
    pub tier: String,
    /// Its operators.
    pub operators: Vec<String>,
    /// Its countries.
    pub countries: Vec<String>,
    /// `resolver`, `confirmed`, `client`, `ike`: where it is from, each with the last time.
    pub sources: Vec<(String, u64)>,
    /// When it was named or observed first.
    pub first_seen: u64,
    /// When it was named or observed last.
    pub last_answer: u64,
    /// When traffic was seen at it last.
    pub last_traffic: Option<u64>,
}

/// A name that is looked up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
    /// Its operators.
    pub operators: Vec<String>,
    /// Its countries.
    pub countries: Vec<String>,
    /// The visited country's name whose NAPTR records gave it; `None` for names that are configured or catalogued.
    #[serde(default)]
    pub found_at: Option<String>,
    /// Its addresses in the table.
    pub addresses: Vec<String>,
    /// Result of the last A and AAAA question.
    pub ipv4: Option<String>,
    /// Likewise.
    pub ipv6: Option<String>,
    /// When an answer with addresses came last.
    pub last_success: Option<u64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// Questions to DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// `ipv4`, `ipv6` or `naptr`.
    pub kind: String,
    /// `addresses`, `no_data`, `nx_domain`, `timeout`, ….
    pub result: String,
    /// How many.
    pub count: u64,
}

/// The agent's round of probes: whether the ePDGs still answer from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// Whether there is one.
    pub enabled: bool,
    /// By operator.
    pub operators: Vec<ProbedOperator>,
    /// Addresses beyond those that are probed.
    pub left_out: u64,
    /// Exchanges since the start, by result.
    pub exchanges: Vec<(String, u64)>,
}

/// An operator in the round of probes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbedOperator {
    /// The operator.
    pub operator: String,
    /// Its addresses.
    pub addresses: u64,
    /// Those that agreed to a suite on a port at least, at the last probe.
    pub reachable: u64,
    /// Those that answered anything on a port at least, if only to refuse.
    #[serde(default)]
    pub answering: u64,
    /// Those that were not probed yet.
    pub pending: u64,
    /// Port, result, and of how many addresses it was the last.
    pub results: Vec<(u16, String, u64)>,
    /// When one of them agreed to a suite last.
    pub last_success: Option<u64>,
    /// The shortest round-trip time among the last results, in microseconds.
    pub rtt_us: Option<u64>,
    /// Why one of those that are not reachable is not: if none is, one that answers, if there is one.
    pub detail: Option<String>,
}

/// What clients' own packets tell. Clients' addresses are in reports, and never in metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snoop {
    /// Whether anything is looked at.
    pub on: bool,
    /// What became of the packets that the programs looked at, by kind and fate.
    pub events: Vec<Fate>,
    /// What became of the events that were sent, by kind and fate.
    pub heard: Vec<Fate>,
    /// Questions that wait for their answers.
    pub waiting: u64,
    /// Questions that made room for others, since the start.
    pub displaced: u64,
    /// Clients, and the carriers whose names they asked for.
    pub clients: Vec<Client>,
    /// Unknown addresses that answer IKE.
    pub candidates: Vec<Candidate>,
}

/// How many packets or events of a kind had a fate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fate {
    /// `name_query`, `name_answer`, `ike_request`, `ike_response`; `unknown` for what is none.
    pub kind: String,
    /// What became of them.
    pub fate: String,
    /// How many.
    pub count: u64,
}

/// A client, by the names that it asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Its address.
    pub address: String,
    /// The operators of the names.
    pub operators: Vec<String>,
    /// Their countries.
    pub countries: Vec<String>,
    /// The names.
    pub names: Vec<ClientName>,
}

/// A name that a client asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientName {
    /// The name.
    pub name: String,
    /// When it was asked for first.
    pub first: u64,
    /// When it was asked for last.
    pub last: u64,
}

/// An unknown address that answers IKE.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The address.
    pub address: String,
    /// Its country, by the GeoIP database.
    pub country: Option<String>,
    /// When it answered first.
    pub first: u64,
    /// When it answered last.
    pub last: u64,
    /// Exchanges seen.
    pub exchanges: u64,
}

/// Where endpoints are, by the GeoIP database. Of addresses and static prefixes, each counted once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeoIp {
    /// The file in use; `None` without one.
    pub database: Option<String>,
    /// When it was made.
    pub built: Option<u64>,
    /// Endpoints that have a country by it, which their operators do not have or leave open.
    pub located: u64,
    /// Endpoints that it does not know, or only in parts.
    pub unknown: u64,
    /// Endpoints that it has in another country than those of their operators' codes.
    pub contradictions: u64,
    /// The first of those.
    pub listed: Vec<Contradiction>,
}

/// An endpoint in one country by its operators' codes and in another by its address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contradiction {
    /// The address or network.
    pub network: String,
    /// Its operators.
    pub operators: Vec<String>,
    /// Their countries.
    pub countries: Vec<String>,
    /// The country of the address.
    pub geoip: String,
}

/// Reloads since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reloads {
    /// Done.
    pub done: u64,
    /// Refused, the configuration before staying in force.
    pub refused: u64,
    /// Why the last one was refused, if it was.
    pub problem: Option<String>,
}

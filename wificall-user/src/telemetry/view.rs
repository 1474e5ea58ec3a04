//! What the API, `wificall tunnels --json`, `top`, `trace`, `analyze` and the page show of tunnels and calls.
//!
//! Times of day are milliseconds since 1970-01-01 UTC (`…_ms` of a moment is called `at` or `since`), lengths of time say
//! their unit in their name. Addresses are text. A field that is left out is not known. Fields may be added; none changes
//! its meaning.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// What there is at a glance: `/api/v1/overview`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overview {
    /// When this was so, in milliseconds since 1970-01-01 UTC.
    pub now: u64,
    /// How long the agent has been running, in seconds.
    pub uptime_seconds: u64,
    /// Whether flows are tracked (`telemetry.enabled`); if not, there is nothing below but `health`.
    pub enabled: bool,
    /// Tunnels by their state; every state is there.
    pub tunnels: BTreeMap<State, u64>,
    /// Calls that go on.
    pub calls_active: u64,
    /// Those of them with one direction silent.
    pub calls_one_way: u64,
    /// Calls since the agent started.
    pub calls_total: u64,
    /// By owner of the endpoint, most tunnels first. One whose endpoint serves several operators is in a row of its own.
    pub operators: Vec<Operator>,
    /// The last minutes, oldest first, from the first with a call on: at most fifteen; the last one goes on.
    pub minutes: Vec<Minute>,
    /// On whose side trouble is.
    pub sides: Sides,
    /// Whether this can be believed.
    pub health: Health,
}

/// On whose side trouble is, as far as it can be seen from here, of the last minutes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sides {
    /// This network's: between phones and this box, mostly the air.
    pub client: Side,
    /// The way to the carriers: uplink, Internet.
    pub network: Side,
    /// The carriers.
    pub carrier: Side,
}

/// A side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Side {
    /// Whether there is trouble.
    pub trouble: Trouble,
    /// What speaks for it, for people; empty if nothing does.
    pub why: Vec<String>,
}

/// How much trouble there is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Nothing was seen to judge by.
    #[default]
    Unknown,
    /// Nothing speaks for it.
    None,
    /// Some phones, or a loss from 1 %.
    Some,
    /// All phones of a carrier, one-way calls, or a loss from 3 %.
    Bad,
}

/// An operator, or the several that share endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operator {
    /// The operator's name, or its PLMN if it has none; `several`, `unknown`.
    pub name: String,
    /// MCC and MNC, as `262-01`; empty if there are several or none.
    pub plmn: String,
    /// ISO 3166-1 alpha-2, as `DE`; empty if there are several or none.
    pub country: String,
    /// Tunnels that are there: neither gone nor failed.
    pub tunnels: u64,
    /// Calls that go on.
    pub calls: u64,
    /// Set-ups since the agent started that led to ESP both ways.
    pub setups_ok: u64,
    /// Those that did not, by why.
    pub setups_failed: BTreeMap<Cause, u64>,
    /// Distinct clients that set up successfully in the last hour; an estimate above some thousands.
    pub clients_ok: u64,
    /// Distinct clients that failed and did not succeed in the last hour, likewise.
    pub clients_failed: u64,
}

/// One minute of all calls together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Minute {
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub at: u64,
    /// From clients to this box.
    pub client_to_us: Received,
    /// From the network to this box.
    pub network_to_us: Received,
    /// The most calls at once.
    pub calls: u64,
}

/// What came and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Received {
    /// ESP packets that came.
    pub received: u64,
    /// Sequence numbers that did not come.
    pub lost: u64,
    /// `lost` of both together, in per cent; left out if nothing was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_percent: Option<f64>,
}

impl Received {
    /// With the loss worked out.
    #[must_use]
    pub fn new(received: u64, lost: u64) -> Self {
        let sent = received + lost;
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let loss_percent = (sent != 0).then(|| lost as f64 * 100.0 / sent as f64);
        Self {
            received,
            lost,
            loss_percent,
        }
    }
}

/// Whether what is shown can be believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Whether everything is in order: `/readyz`.
    pub ready: bool,
    /// What is not, for people; empty if all is well.
    pub problems: Vec<String>,
    /// Names that are looked up, by what came of it last: `addresses`, `none`, `failed`, `pending`.
    pub dns: BTreeMap<String, u64>,
    /// Flows in the kernel's table, as the agent knows it.
    pub flows: u64,
    /// Flows that it has room for (`limits.flows`).
    pub flows_limit: u64,
    /// Events of flows that were lost on their way to the agent, since the maps were made.
    pub events_dropped: u64,
    /// Hooks with a program, as `eth0 tc_ingress`.
    pub hooks: Vec<String>,
    /// Interfaces that are configured and not attached.
    pub hooks_missing: u64,
    /// This host's time after which conntrack forgets a silent UDP mapping with traffic both ways
    /// (`nf_conntrack_udp_timeout_stream`), in seconds; left out without conntrack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_timeout_seconds: Option<u64>,
    /// Tunnels whose keepalives come further apart than that.
    pub nat_timeout_shorter: u64,
}

/// What a tunnel is doing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// IKE goes on, there is no ESP both ways yet.
    #[default]
    SettingUp,
    /// The set-up came to nothing; [`Setup::result`] says why.
    Failed,
    /// ESP has come from both ends lately.
    Up,
    /// What looks like a call goes on.
    Call,
    /// Nothing but keepalives and IKE for a while.
    Idle,
    /// Nothing at all for longer than its keepalives are apart.
    Gone,
}

impl State {
    /// All, in the order in which they follow each other.
    pub const ALL: [Self; 6] = [
        Self::SettingUp,
        Self::Failed,
        Self::Up,
        Self::Call,
        Self::Idle,
        Self::Gone,
    ];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SettingUp => "setting_up",
            Self::Failed => "failed",
            Self::Up => "up",
            Self::Call => "call",
            Self::Idle => "idle",
            Self::Gone => "gone",
        }
    }
}

/// Why a set-up failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The endpoint did not answer IKE_SA_INIT.
    NoAnswer,
    /// It answered with a notify that refuses: [`Setup::notify`].
    Refused,
    /// IKE_AUTH was not sent, not answered, or goes on without an end.
    AuthenticationStalled,
    /// Authentication ended, and ESP did not come from both ends.
    EspMissing,
}

impl Cause {
    /// All.
    pub const ALL: [Self; 4] = [
        Self::NoAnswer,
        Self::Refused,
        Self::AuthenticationStalled,
        Self::EspMissing,
    ];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::Refused => "refused",
            Self::AuthenticationStalled => "authentication_stalled",
            Self::EspMissing => "esp_missing",
        }
    }
}

/// Tunnels: `/api/v1/tunnels` has the first ones of those that are asked for, `wificall tunnels --json` all of them, and no
/// `total` and `found`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tunnels {
    /// When this was so, in milliseconds since 1970-01-01 UTC.
    pub now: u64,
    /// Whether flows are tracked (`telemetry.enabled`).
    pub enabled: bool,
    /// Whether phones are shown by their addresses.
    pub clients: Clients,
    /// How many tunnels there are.
    pub total: u64,
    /// How many of them have what was asked for; `tunnels` may be fewer.
    pub found: u64,
    /// The tunnels, calls first, then by what changed last.
    pub tunnels: Vec<Tunnel>,
}

/// How phones are shown to whoever asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clients {
    /// By their addresses.
    #[default]
    Shown,
    /// By keyed hashes; by their addresses to who asks with the token (`agent.token_file`).
    ByToken,
    /// By keyed hashes; there is no token.
    Hashed,
}

/// A tunnel: the flows of one phone to one ePDG that share an IKE SA. `/api/v1/tunnels/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tunnel {
    /// Names it for as long as the agent runs; letters and digits.
    pub id: String,
    /// The phone: its address if whoever asks may know it, else `client-` and a keyed hash, whose key is new with each
    /// start of the agent.
    pub client: String,
    /// The ePDG's address.
    pub endpoint: String,
    /// Whose endpoint it is, as `262-01`.
    pub owners: Vec<String>,
    /// The owner's name; `several`, `unknown`.
    pub operator: String,
    /// ISO 3166-1 alpha-2; empty if there are several or none.
    pub country: String,
    /// What it is doing.
    pub state: State,
    /// Since when, in milliseconds since 1970-01-01 UTC.
    pub since: u64,
    /// When it was first seen, likewise.
    pub began: u64,
    /// When its last packet was seen, likewise.
    pub seen: u64,
    /// The last set-up that was seen; left out for a tunnel that is older than the agent's sight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// What it consists of: one for each NAT mapping, IKE on port 500, native ESP.
    pub flows: Vec<Flow>,
    /// The shortest interval between keepalives of the quiet tunnel, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_ms: Option<u64>,
    /// Whether this host's NAT forgets the mapping before the next keepalive comes.
    pub nat_timeout_shorter: bool,
    /// The last round trip from this box to the phone and back, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_client_ms: Option<f64>,
    /// The last round trip from this box to the ePDG and back, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_network_ms: Option<f64>,
    /// Packets from the phone.
    pub packets_up: u64,
    /// Packets to the phone.
    pub packets_down: u64,
    /// IP bytes from the phone.
    pub bytes_up: u64,
    /// IP bytes to the phone.
    pub bytes_down: u64,
    /// How often the phone's address or port changed under the same IKE SA, or it came back after an absence.
    pub roamed: u64,
    /// The way out of what the phone sends; left out before it was looked up, and of a capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<WayOut>,
    /// Calls, latest first; the first goes on if it has no `ended`. A few only.
    pub calls: Vec<Call>,
}

/// A set-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub began: u64,
    /// What was reached, in order.
    pub milestones: Vec<Milestone>,
    /// What is waited for, if something is: the name of the next milestone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
    /// For how long, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_ms: Option<u64>,
    /// `ok`, or a [`Cause`]'s name; left out while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The last notify in clear that refuses or asks for another way, as `NO_PROPOSAL_CHOSEN`, or its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// From the first IKE_SA_INIT to ESP both ways, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// IKE_AUTH responses.
    pub auth_responses: u64,
    /// Requests that were sent again.
    pub retransmitted: u64,
}

/// A step of a set-up that was reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Milestone {
    /// `init_sent`, `init_answered`, `natt`, `auth_sent`, `auth_answered`, `esp_up`, `esp_down`.
    pub name: String,
    /// After the set-up began, in milliseconds.
    pub after_ms: f64,
}

/// A flow of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// The phone: as in [`Tunnel::client`].
    pub client: String,
    /// The phone's UDP port; 0 for native ESP.
    pub port: u16,
    /// `udp` or `esp`.
    pub protocol: String,
    /// When its last packet was seen, in milliseconds since 1970-01-01 UTC.
    pub seen: u64,
}

/// What is heard of a call.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Voice {
    /// At least one end talks, and the other is heard too.
    #[default]
    Talking,
    /// Comfort noise only.
    Silent,
    /// Only the phone is heard, for some seconds.
    OneWayUp,
    /// Only the network is heard, for some seconds.
    OneWayDown,
}

impl Voice {
    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Talking => "talking",
            Self::Silent => "silent",
            Self::OneWayUp => "one_way_up",
            Self::OneWayDown => "one_way_down",
        }
    }
}

/// What looks like a call, from rate and size of its packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    /// What is heard, or was last.
    pub state: Voice,
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub since: u64,
    /// When it ended, likewise; left out while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// How long it lasted up to now, in seconds.
    pub seconds: u64,
    /// From the phone to this box.
    pub client_to_us: HalfLeg,
    /// From the network to this box.
    pub network_to_us: HalfLeg,
    /// Estimated mean opinion score (ITU-T G.107), 1 to 4.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos: Option<f64>,
    /// Why there is none: `one direction is not seen`, `no round trip is known`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_missing: Option<String>,
    /// The last seconds, oldest first, one a second.
    pub history: Vec<Sample>,
}

/// One half of one direction of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HalfLeg {
    /// ESP packets that came.
    pub received: u64,
    /// Sequence numbers that did not come.
    pub lost: u64,
    /// `lost` of both together, in per cent; left out if nothing was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_percent: Option<f64>,
    /// Packets that came behind a later one.
    pub late: u64,
    /// Packets that came again.
    pub duplicate: u64,
    /// Smoothed deviation from the 20 ms of voice frames (RFC 3550 §6.4.1), in milliseconds; left out if nobody talked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
}

/// A second of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When it ended, in milliseconds since 1970-01-01 UTC.
    pub at: u64,
    /// ESP packets from the phone.
    pub up: u32,
    /// Of these, lost before they came here.
    pub up_lost: u32,
    /// ESP packets to the phone.
    pub down: u32,
    /// Of these, lost before they came here.
    pub down_lost: u32,
}

/// The way out of what a phone sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct WayOut {
    /// The exit's name; left out if there is none: this host's own routes decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// `gateway`, `device`, `direct` (this host's own routes) or `block`.
    pub way: WayKind,
    /// The gateway's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The device that packets leave by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Value and mask of the mark, as `0x65/0xff`; left out if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// What an exit does with a packet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum WayKind {
    /// It sends it to a gateway.
    Gateway,
    /// It sends it out of a device.
    Device,
    /// This host's own routes decide.
    #[default]
    Direct,
    /// It answers that the destination is unreachable.
    Block,
}

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exit {
            Some(exit) => write!(f, "{exit}, ")?,
            None => f.write_str("none, ")?,
        }
        let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
        match self.way {
            WayKind::Gateway => match &self.device {
                Some(device) => write!(f, "by gateway {} on {device}", or(&self.gateway))?,
                None => write!(f, "by gateway {}", or(&self.gateway))?,
            },
            WayKind::Device => write!(f, "by device {}", or(&self.device))?,
            WayKind::Direct if self.exit.is_none() => {
                return match &self.mark {
                    Some(mark) => write!(f, "by this host's routes for mark {mark}"),
                    None => f.write_str("by the ordinary route"),
                };
            }
            WayKind::Direct => f.write_str("no gateway is up: by the ordinary route")?,
            WayKind::Block => f.write_str("no gateway is up: it blocks")?,
        }
        match &self.mark {
            Some(mark) => write!(f, ", mark {mark}"),
            None => Ok(()),
        }
    }
}

/// Something that happened to a tunnel: a line of `wificall trace`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceEvent {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at: u64,
    /// The tunnel's [`id`](Tunnel::id); empty if there is none yet.
    pub tunnel: String,
    /// The phone: as in [`Tunnel::client`].
    pub client: String,
    /// The ePDG's address; empty before it is known.
    pub endpoint: String,
    /// What.
    pub step: Step,
    /// More of it, for people: a notify's name, how long it took, the way out.
    pub detail: String,
    /// After the set-up began, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<f64>,
    /// Of [`Step::Exit`]: the way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<WayOut>,
    /// Of [`Step::Roamed`]: the phone's address before, if that was another; as [`client`](Self::client).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What happened.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The phone asked DNS for an ePDG's name.
    DnsAsked,
    /// It was answered.
    DnsAnswered,
    /// IKE_SA_INIT was sent.
    #[default]
    InitSent,
    /// The ePDG has answered it.
    InitAnswered,
    /// It was answered with a notify that refuses or asks for another way.
    Notify,
    /// A request was sent again.
    Retransmitted,
    /// IKE moved to port 4500.
    Natt,
    /// IKE_AUTH was sent.
    AuthSent,
    /// The first IKE_AUTH was answered.
    AuthAnswered,
    /// The phone has sent ESP.
    EspUp,
    /// The ePDG has sent ESP.
    EspDown,
    /// The tunnel is up: ESP both ways.
    Up,
    /// The set-up failed.
    Failed,
    /// The way out that the tunnel takes: when its set-up begins, when it is up, and whenever that is another.
    Exit,
    /// The phone's address or port changed.
    Roamed,
    /// The IKE SA or ESP has new keys.
    Rekeyed,
    /// A call began.
    CallBegan,
    /// What is heard of a call changed.
    CallChanged,
    /// A call ended.
    CallEnded,
    /// Nothing but keepalives.
    Idle,
    /// Nothing at all any more.
    Gone,
}

impl Step {
    /// The name used in JSON and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DnsAsked => "dns_asked",
            Self::DnsAnswered => "dns_answered",
            Self::InitSent => "init_sent",
            Self::InitAnswered => "init_answered",
            Self::Notify => "notify",
            Self::Retransmitted => "retransmitted",
            Self::Natt => "natt",
            Self::AuthSent => "auth_sent",
            Self::AuthAnswered => "auth_answered",
            Self::EspUp => "esp_up",
            Self::EspDown => "esp_down",
            Self::Up => "up",
            Self::Failed => "failed",
            Self::Exit => "exit",
            Self::Roamed => "roamed",
            Self::Rekeyed => "rekeyed",
            Self::CallBegan => "call_began",
            Self::CallChanged => "call_changed",
            Self::CallEnded => "call_ended",
            Self::Idle => "idle",
            Self::Gone => "gone",
        }
    }
}

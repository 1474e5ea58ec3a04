//! The packet vectors and what a run of one leaves behind; `tests/vectors/` has the data.

mod host;
mod outcome;
mod tables;

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use wificall_common::{
    Class, Direction,
    abi::{Counter, Features, Hook},
    classify::Link,
    exit::Exit,
    wire::nat64::Pref64,
};

use self::tables::parse_prefix;
pub use self::{
    host::Host,
    outcome::{Outcome, PROGRAMS, Program},
    tables::{Contents, contents},
};
use crate::packet::Packet;

/// The files of `tests/vectors/`, embedded: a guest that runs the vectors has no repository.
const FILES: [(&str, &str); 6] = [
    ("classes", include_str!("../vectors/classes.toml")),
    ("endpoints", include_str!("../vectors/endpoints.toml")),
    ("payloads", include_str!("../vectors/payloads.toml")),
    ("headers", include_str!("../vectors/headers.toml")),
    ("fragments", include_str!("../vectors/fragments.toml")),
    ("treatment", include_str!("../vectors/treatment.toml")),
];

/// `skb->mark` before a run: foreign bits in every byte.
pub const MARK: u32 = 0xabcd_0012;
/// `skb->priority` before a run.
pub const PRIORITY: u32 = 3;
/// What every row gets that names no features.
const FEATURES: u32 = Features::DSCP
    | Features::MARK
    | Features::PRIORITY
    | Features::COUNT_ACCESS
    | Features::COUNT_UPLINK
    | Features::PREFIXES;
/// The link headers that a row is run under if it names none; the empty one is a device without a link header.
const LINKS: [&str; 7] = [
    "eth",
    "",
    "eth / vlan 7",
    "eth / svlan 8 / vlan 7",
    "eth / pppoe",
    "eth / vlan 7 / pppoe",
    "eth / svlan 8 / vlan 7 / pppoe",
];

/// A row as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// What is shown when it fails.
    name: String,
    /// The packet, in words (`packet.rs`). If it does not begin with `eth`, it is run under each link.
    packet: String,
    /// The packet afterwards; if not given, `packet` with `dscp`.
    output: Option<String>,
    /// `up` or `down`: the packet as it is written, in the programs of this direction. If not given, as it is
    /// written in the `up` programs, and mirrored in the `down` ones.
    direction: Option<String>,
    /// Link headers to run under.
    links: Option<Vec<String>>,
    /// Where to run: of `host`, `tc`, `xdp`. On the host if not given, and wherever the kernel can.
    hooks: Option<Vec<String>>,
    /// Goes on where the row before it stopped: first fragments are still remembered.
    #[serde(default)]
    continues: bool,
    /// Features switched off.
    #[serde(default)]
    without: Vec<String>,
    /// The NAT64 prefix.
    pref64: Option<String>,
    /// Segments of an aggregate.
    gso_segs: Option<u32>,
    /// The way out; `matched` if a class is given.
    exit: Option<String>,
    /// What it is counted as; `exit` or this.
    class: Option<String>,
    /// The group it is counted under; 1 if not given.
    group: Option<u32>,
    /// The activity slot; the group if not given.
    slot: Option<u32>,
    /// The DSCP afterwards; that of policy 1 if not given.
    dscp: Option<u8>,
    /// The mark of an `up` packet after TC ingress; that of policy 1 if not given.
    mark: Option<u32>,
    /// Whether egress gives it voice priority.
    voice: Option<bool>,
    /// Bytes counted; the length that the IP header states if not given.
    bytes: Option<u64>,
}

/// A vector, checked.
#[derive(Clone, Debug)]
pub struct Vector {
    /// File and name.
    pub name: String,
    /// Load-time constants it needs.
    pub setup: Setup,
    /// Whether it stands after the one before it.
    pub continues: bool,
    /// `gso_segs` of the skb, or 0.
    pub gso_segs: u32,
    /// The frames.
    pub cases: Vec<Case>,
    hooks: Vec<String>,
    expected: Expected,
}

/// One frame of a vector.
#[derive(Clone, Debug)]
pub struct Case {
    /// Direction of the programs that it is for.
    pub direction: Direction,
    /// Link header of those programs.
    pub link: Link,
    /// The frame in words.
    pub words: String,
    /// The frame.
    pub frame: Vec<u8>,
    output: Vec<u8>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    exit: Exit,
    class: Option<Class>,
    group: u32,
    slot: u32,
    mark: u32,
    voice: bool,
}

/// Load-time constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setup {
    /// Bits of [`Features`].
    pub features: u32,
    /// The NAT64 prefix and its length.
    pub pref64: Option<([u8; 16], u8)>,
}

impl Setup {
    /// Everything on that needs no second program, no NAT64.
    pub const DEFAULT: Self = Self {
        features: FEATURES,
        pref64: None,
    };

    /// The NAT64 prefix as the classifier has it.
    #[must_use]
    pub fn pref64(&self) -> Option<Pref64> {
        self.pref64.map(|(prefix, len)| Pref64 { prefix, len })
    }
}

impl Vector {
    /// Whether this case is to be run in this program, and why not if it is not.
    #[must_use]
    pub fn runs_in(&self, case: &Case, program: &Program) -> bool {
        let hook = if program.hook == Hook::Xdp {
            "xdp"
        } else {
            "tc"
        };
        case.direction == program.direction
            && case.link == program.link
            && self.hooks.iter().any(|name| name == hook)
            && !(program.hook == Hook::Xdp && self.gso_segs != 0)
    }

    /// Whether it is run on the host only.
    #[must_use]
    pub fn host_only(&self) -> bool {
        self.hooks == ["host"]
    }

    /// What the row says that this program leaves behind.
    #[must_use]
    pub fn expected(&self, case: &Case, program: &Program) -> Outcome {
        let Expected {
            exit,
            class,
            group,
            slot,
            mark,
            voice,
        } = self.expected;
        let mut outcome = Outcome {
            frame: case.output.clone(),
            mark: MARK,
            priority: PRIORITY,
            exits: BTreeMap::from([((program.hook, exit), 1)]),
            ..Outcome::default()
        };
        let Some(class) = class else {
            return outcome;
        };
        if (program.hook, program.direction) == (Hook::TcIngress, Direction::Up) {
            outcome.mark = mark;
        }
        if program.hook == Hook::TcEgress && voice {
            outcome.priority = if program.wireless { 262 } else { 6 };
        }
        if self.setup.features & program.counting() != 0 {
            let counter = Counter {
                packets: self.gso_segs.max(1).into(),
                bytes: case.bytes,
            };
            outcome
                .counters
                .insert((group, program.direction, class), counter);
            // Whether it counts as active is for the policy to say.
            if exit != Exit::NoPolicy {
                outcome.active.insert(slot);
            }
        }
        outcome
    }
}

/// All vectors, in the order of their files.
///
/// # Errors
///
/// Names the row that is wrong in itself.
pub fn vectors() -> Result<Vec<Vector>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        vector: Vec<Row>,
    }
    let mut all = Vec::new();
    for (file, text) in FILES {
        let File { vector: rows } = toml::from_str(text).with_context(|| format!("{file}.toml"))?;
        for row in rows {
            let name = format!("{file}: {}", row.name);
            all.push(check(row, &name).context(name)?);
        }
    }
    Ok(all)
}

fn check(row: Row, name: &str) -> Result<Vector> {
    let class = row.class.as_deref().map(parse_class).transpose()?;
    let exit = match (&row.exit, class) {
        (Some(exit), _) => parse_exit(exit)?,
        (None, Some(_)) => Exit::Matched,
        (None, None) => bail!("neither class nor exit"),
    };
    let treated = exit == Exit::Matched;
    let dscp = row.dscp.or(treated.then_some(46));
    let mut features = FEATURES;
    for name in &row.without {
        features &= !parse_feature(name)?;
    }
    let group = row.group.unwrap_or(1);
    Ok(Vector {
        name: name.to_owned(),
        setup: Setup {
            features,
            pref64: row.pref64.as_deref().map(parse_pref64).transpose()?,
        },
        continues: row.continues,
        gso_segs: row.gso_segs.unwrap_or(0),
        cases: cases(&row, dscp)?,
        hooks: row
            .hooks
            .unwrap_or_else(|| ["host", "tc", "xdp"].map(str::to_owned).into()),
        expected: Expected {
            exit,
            class,
            group,
            slot: row.slot.unwrap_or(group),
            mark: row.mark.unwrap_or(if treated { 0xabcd_0065 } else { MARK }),
            voice: row.voice.unwrap_or(treated),
        },
    })
}

fn cases(row: &Row, dscp: Option<u8>) -> Result<Vec<Case>> {
    let directions = match row.direction.as_deref() {
        None => vec![(Direction::Up, false), (Direction::Down, true)],
        Some("up") => vec![(Direction::Up, false)],
        Some("down") => vec![(Direction::Down, false)],
        Some(other) => bail!("{other:?} is no direction"),
    };
    let links: Vec<String> = if row.packet.starts_with("eth") {
        ensure!(row.links.is_none(), "both a link header and links");
        vec![String::new()]
    } else {
        row.links
            .clone()
            .unwrap_or_else(|| LINKS.map(str::to_owned).into())
    };
    let mut cases = Vec::new();
    for (direction, mirrored) in directions {
        for link in &links {
            let under = |packet: &str| -> Result<(String, Packet)> {
                let words = if link.is_empty() {
                    packet.to_owned()
                } else {
                    format!("{link} / {packet}")
                };
                let packet: Packet = words.parse()?;
                Ok((words, if mirrored { packet.mirrored() } else { packet }))
            };
            let (words, packet) = under(&row.packet)?;
            let output = match (&row.output, dscp) {
                (Some(output), _) => under(output)?.1,
                (None, Some(dscp)) => packet.with_dscp(dscp),
                (None, None) => packet.clone(),
            };
            cases.push(Case {
                direction,
                link: if words.starts_with("eth") {
                    Link::Ethernet
                } else {
                    Link::Bare
                },
                frame: packet.bytes(),
                output: output.bytes(),
                bytes: row.bytes.unwrap_or_else(|| packet.stated_len()),
                words,
            });
        }
    }
    Ok(cases)
}

fn parse_class(name: &str) -> Result<Class> {
    let found = Class::ALL.into_iter().find(|class| class.name() == name);
    found.with_context(|| format!("{name:?} is no class"))
}

fn parse_exit(name: &str) -> Result<Exit> {
    let found = Exit::ALL.into_iter().find(|exit| exit.name() == name);
    found.with_context(|| format!("{name:?} is no exit"))
}

fn parse_feature(name: &str) -> Result<u32> {
    Ok(match name {
        "dscp" => Features::DSCP,
        "mark" => Features::MARK,
        "priority" => Features::PRIORITY,
        "count_access" => Features::COUNT_ACCESS,
        "count_uplink" => Features::COUNT_UPLINK,
        "prefixes" => Features::PREFIXES,
        _ => bail!("{name:?} is no feature"),
    })
}

fn parse_pref64(text: &str) -> Result<([u8; 16], u8)> {
    let (prefix, len) = parse_prefix(text)?;
    let IpAddr::V6(prefix) = prefix else {
        bail!("{text:?} is no IPv6 prefix");
    };
    Ok((prefix.octets(), len))
}

//! Reads `[[exit]]`, and checks exits against each other and against the marks of others.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Item, Section, nearest};
use super::report::Mismatch;
use super::sections::{MILLISECOND, SECOND, duration};
use super::{Config, Mark, checks, treatment, values};
use crate::steer::{Exit, Gateway, Health, WhenDown, WhenNone};

/// Stands for a mark that could not be read, and is no exit's: it has no bits.
const UNREAD: Mark = Mark { value: 0, mask: 0 };

/// An exit with the places of what others are checked against.
pub(super) struct Placed<'a> {
    pub exit: Exit,
    name: Option<Item<'a>>,
}

pub(super) fn read<'a>(root: &Section<'a>, in_lab: bool) -> Vec<Placed<'a>> {
    let mut exits: Vec<Placed> = Vec::new();
    for (index, section) in (0..).zip(root.sections("exit")) {
        let exit = exit(section, index, in_lab, &exits);
        exits.push(exit);
    }
    exits
}

fn exit<'a>(mut section: Section<'a>, index: u32, in_lab: bool, earlier: &[Placed]) -> Placed<'a> {
    const FIRST_PRIORITY: u32 = 1000;
    // Those of the main table have 32766.
    const LAST_PRIORITY: u32 = 32765;
    let name = section.item("name");
    match &name {
        None => section.require("name", "a name such as name = \"au\""),
        Some(item) => {
            if let Some(name) = item.read(values::policy_name) {
                section.set_name(name);
            }
        }
    }
    let device = section.value("device", None, |item| values::device(item).map(Some));
    let gateways = gateways(&section, device.as_deref());
    if section.lacks("gateways") && section.lacks("device") {
        section.require(
            "gateways` or `device",
            "where packets leave, such as gateways = [\"192.168.1.2\"] or device = \"wg-au\"",
        );
    }
    let table = section.item("table");
    if table.is_none() {
        section.require(
            "table",
            "a routing table that nothing else uses, such as table = 1065",
        );
    }
    let mark = section.item("mark");
    if mark.is_none() {
        section.require(
            "mark",
            "the mark that leads here, such as mark = \"0x65/0xff\"",
        );
    }
    let health = section.value("health", Health::Neighbour, |item| {
        item.choice(&[
            ("neighbour", Health::Neighbour),
            ("ike", Health::Ike),
            ("none", Health::None),
        ])
    });
    let (often, oftenest) = match health {
        // Carriers count half-open SAs by client, and lock out whoever has many.
        Health::Ike if in_lab => (30 * SECOND, 100 * MILLISECOND),
        Health::Ike => (30 * SECOND, 5 * SECOND),
        Health::Neighbour | Health::None => (SECOND, 100 * MILLISECOND),
    };
    const HOUR: Duration = Duration::from_secs(3600);
    const IN_A_ROW: std::ops::RangeInclusive<u32> = 1..=100;
    let (when_down, when_none) = when(&section);
    let exit = Exit {
        name: section.name().to_owned(),
        gateways,
        device,
        table: table
            .as_ref()
            .and_then(|item| item.read(read_table))
            .unwrap_or(0),
        priority: section.value(
            "priority",
            (FIRST_PRIORITY + index).min(LAST_PRIORITY),
            |item| item.number(1..=LAST_PRIORITY),
        ),
        mark: mark
            .as_ref()
            .and_then(|item| item.read(read_mark))
            .unwrap_or(UNREAD),
        when_down,
        when_none,
        health,
        interval: duration(&section, "interval", often, oftenest..=HOUR),
        down_after: section.value("down_after", 3, |item| item.number(IN_A_ROW)),
        up_after: section.value("up_after", 3, |item| item.number(IN_A_ROW)),
        probe: section.value("probe", None, |item| read_probe(item).map(Some)),
        manage_sysctls: section.value("manage_sysctls", false, values::boolean),
    };
    if let Some(item) = section.item("probe")
        && health != Health::Ike
    {
        item.refuse(Mismatch::expected(
            "no `probe` without health = \"ike\", which is who sends it",
        ));
    }
    for (index, Placed { exit: other, .. }) in earlier.iter().enumerate() {
        apart(&exit, other, index, [&name, &table, &mark]);
    }
    section.finish();
    Placed { exit, name }
}

/// What happens when the gateway in use is down, and when all are.
fn when(section: &Section) -> (WhenDown, WhenNone) {
    let when_down = section.value("when_down", WhenDown::Next, |item| {
        item.choice(&[
            ("next", WhenDown::Next),
            ("direct", WhenDown::Direct),
            ("block", WhenDown::Block),
        ])
    });
    let when_none = section.value("when_none", WhenNone::Direct, |item| {
        item.choice(&[("direct", WhenNone::Direct), ("block", WhenNone::Block)])
    });
    let implied = match when_down {
        WhenDown::Next => return (when_down, when_none),
        WhenDown::Direct => WhenNone::Direct,
        WhenDown::Block => WhenNone::Block,
    };
    if let Some(item) = section.item("when_none") {
        item.refuse(
            Mismatch::expected("no `when_none` without when_down = \"next\"")
                .hint("`when_down` already says what happens"),
        );
    }
    (when_down, implied)
}

/// What two exits cannot share. The items are the name, table and mark of the later one.
fn apart(exit: &Exit, other: &Exit, index: usize, [name, table, mark]: [&Option<Item>; 3]) {
    let other_is = format!("exit[{index}] {:?}", other.name);
    if let Some(item) = name
        && exit.name == other.name
        && !exit.name.is_empty()
    {
        item.refuse(
            Mismatch::expected("a name of its own")
                .hint(format!("exit[{index}] has the same name")),
        );
    }
    if let Some(item) = table
        && exit.table == other.table
        && exit.table != 0
    {
        item.refuse(
            Mismatch::expected("a table of its own").hint(format!("{other_is} has the same table")),
        );
    }
    if let Some(item) = mark
        && both_match(exit.mark, other.mark)
    {
        let Mark { value, mask } = other.mark;
        item.refuse(
            Mismatch::expected("a mark that leads to no other exit").hint(format!(
                "{other_is} has {value:#x}/{mask:#x}, and a packet may have both: give them one mask and different values"
            )),
        );
    }
}

/// Whether there are packets that rules for either mark match.
fn both_match(one: Mark, other: Mark) -> bool {
    let common = one.mask & other.mask;
    one != UNREAD && other != UNREAD && (one.value ^ other.value) & common == 0
}

/// The exit of this name.
pub(super) fn named<'e>(item: &Item, exits: &'e [Placed]) -> Result<&'e Exit, Mismatch> {
    let found = item.string("the name of an exit")?;
    let mut known = exits.iter().map(|placed| &placed.exit);
    if let Some(exit) = known.clone().find(|exit| exit.name == found) {
        return Ok(exit);
    }
    let names: Vec<&str> = known
        .by_ref()
        .map(|exit| exit.name.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    let hint = match nearest(found, &names) {
        Some(near) => format!("did you mean {near:?}?"),
        None if names.is_empty() => "there is no [[exit]]".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    Err(Mismatch::expected("the name of an [[exit]]").hint(hint))
}

/// How packets are sent by an exit.
pub(super) const BY_POLICY: &str = "a policy whose packets are to go there says";

/// That a section's own mark does not lead to an exit that it does not name; `by` says who can.
pub(super) fn foreign_mark(section: &Section, exits: &[Placed], by: &str) {
    let Some(item) = section.item("mark") else {
        return;
    };
    // What it refuses has been reported.
    let Ok(Some(mark)) = treatment::read_mark(&item) else {
        return;
    };
    for Placed { exit, .. } in exits {
        let Mark { value, mask } = exit.mark;
        let name = &exit.name;
        if mark.mask & mask == 0 {
            continue;
        }
        let shown = format!("{value:#x}/{mask:#x}");
        if both_match(mark, exit.mark) {
            item.refuse(
                Mismatch::expected(format!(
                    "a mark that does not lead to exit {name:?}, whose is {shown}"
                ))
                .hint(format!("{by} exit = {name:?}")),
            );
        } else if mark.mask != mask {
            item.warn(
                Mismatch::expected(format!(
                    "the mask of exit {name:?}, whose mark is {shown}, or one without bits of it"
                ))
                .hint("the masks overlap: each takes bits that are the other's"),
            );
        }
    }
}

/// Exits that nothing leads to.
pub(super) fn used(exits: &[Placed], config: &Config) {
    for Placed { exit, name } in exits {
        let by_policy = config
            .policies
            .iter()
            .filter_map(|policy| policy.exit.as_ref());
        let mut users = by_policy.chain(&config.catch_all.exit);
        if let Some(item) = name
            && !exit.name.is_empty()
            && !users.any(|user| *user == exit.name)
        {
            item.warn(
                Mismatch::expected("an exit that a policy or [catch_all] names").hint(format!(
                    "nothing takes this exit: write exit = {:?} in a [[policy]]",
                    exit.name
                )),
            );
        }
    }
}

/// Addresses alone, or tables that also say on which device.
fn gateways(section: &Section, device: Option<&str>) -> Vec<Gateway> {
    const EXPECTED: &str = "an array of addresses, or of tables with address and device";
    let mut gateways: Vec<(Item, Gateway)> = Vec::new();
    for item in section.items("gateways", EXPECTED) {
        let gateway = match item.get() {
            DeValue::Table(_) => {
                let table = item.section(EXPECTED);
                let address = table.item("address");
                if address.is_none() {
                    table.require("address", "an address such as address = \"192.168.1.2\"");
                }
                let gateway = Gateway {
                    device: table.value("device", None, |item| values::device(item).map(Some)),
                    address: address
                        .and_then(|item| item.read(router))
                        .unwrap_or(IpAddr::from([0; 4])),
                };
                table.finish();
                (!gateway.address.is_unspecified()).then_some(gateway)
            }
            _ => item.read(router).map(|address| Gateway {
                address,
                device: None,
            }),
        };
        let Some(gateway) = gateway else { continue };
        if let IpAddr::V6(address) = gateway.address
            && address.is_unicast_link_local()
            && gateway.device.is_none()
            && device.is_none()
        {
            item.refuse(
                Mismatch::expected("a device beside a link-local address")
                    .found(format!("\"{address}\" alone"))
                    .hint(format!(
                        "write {{ address = \"{address}\", device = \"lan\" }}: such addresses are on every link"
                    )),
            );
        }
        gateways.push((item, gateway));
    }
    let where_it_is = |gateway: &Gateway| Gateway {
        device: gateway.device.clone().or_else(|| device.map(str::to_owned)),
        ..gateway.clone()
    };
    let (items, gateways): (Vec<Item>, Vec<Gateway>) = gateways.into_iter().unzip();
    let placed: Vec<(Item, Gateway)> = items
        .into_iter()
        .zip(gateways.iter().map(where_it_is))
        .collect();
    checks::no_duplicates(&placed, "gateway");
    gateways
}

/// Reads the address of a router on the same link.
fn router(item: &Item) -> Result<IpAddr, Mismatch> {
    const EXPECTED: &str = r#"a router's address, such as "192.168.1.2" or "fd00::2""#;
    let text = item.string(EXPECTED)?;
    let hint = |hint: String| Mismatch::expected(EXPECTED).hint(hint);
    let address: IpAddr = text.parse().map_err(|_| {
        let scoped = text.split_once('%');
        let alone = text.split_once('/').map(|(address, _)| address);
        match (scoped, alone) {
            (Some((address, device)), _) => hint(format!(
                "write {{ address = \"{address}\", device = \"{device}\" }}"
            )),
            (_, Some(address)) if address.parse::<IpAddr>().is_ok() => {
                hint(format!("a gateway has no prefix: write \"{address}\""))
            }
            _ => Mismatch::expected(EXPECTED),
        }
    })?;
    unicast(address).map_err(hint).map(|()| address)
}

/// Reads the address of somebody who answers IKE.
fn read_probe(item: &Item) -> Result<IpAddr, Mismatch> {
    const EXPECTED: &str = r#"the address of an ePDG, such as "192.0.2.1""#;
    let address: IpAddr = item
        .string(EXPECTED)?
        .parse()
        .map_err(|_| Mismatch::expected(EXPECTED))?;
    match unicast(address) {
        Ok(()) => Ok(address),
        Err(hint) => Err(Mismatch::expected(EXPECTED).hint(hint)),
    }
}

/// Whether somebody else can have the address; or why not.
fn unicast(address: IpAddr) -> Result<(), String> {
    let kind = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "this box itself",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => return Err(format!("write \"{v4}\"")),
            None => return Ok(()),
        },
        IpAddr::V4(_) => return Ok(()),
    };
    Err(format!("{address} is {kind}"))
}

/// Reads the number of a routing table.
fn read_table(item: &Item) -> Result<u32, Mismatch> {
    let table = item.number(1..=u32::MAX)?;
    let reserved = match table {
        253 => "default",
        254 => "main",
        255 => "local",
        _ => return Ok(table),
    };
    Err(
        Mismatch::expected("a routing table that nothing else uses").hint(format!(
            "table {table} is the kernel's own ({reserved}); tables have numbers up to {}",
            u32::MAX
        )),
    )
}

/// Reads the mark that a rule goes by.
fn read_mark(item: &Item) -> Result<Mark, Mismatch> {
    const EXPECTED: &str = r#"a mark such as "0x65/0xff" (value/mask)"#;
    match treatment::read_mark(item)? {
        None => Err(Mismatch::expected(EXPECTED)),
        // Packets that nobody marked have zero under every mask.
        Some(mark) if mark.value == 0 => Err(Mismatch::expected("a value above 0")
            .hint("a rule for 0 would take all packets that have no mark")),
        Some(mark) => Ok(mark),
    }
}

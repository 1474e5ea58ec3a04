//! For scripts, tables, and firewalls that poll a URL.

use std::io::{Result, Write};

use ipnet::IpNet;
use serde::Serialize;

use super::comment;
use super::set::{Dscp, Entry, Kind, Name, Owner, Text, Treatment};
use super::view::{View, joined};
use crate::discover::Tier;

/// A network a line.
///
/// # Errors
///
/// Those of the writer.
pub fn plain(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    lines(view, out)
}

/// The same without a header: what `/list/v4` and `/list/v6` serve.
///
/// # Errors
///
/// Those of the writer.
pub fn lines(view: &View, out: &mut dyn Write) -> Result<()> {
    view.nets.all().try_for_each(|net| writeln!(out, "{net}"))
}

/// A network a row, with whose it is (RFC 4180, which has no comments). No cell needs quotes.
///
/// # Errors
///
/// Those of the writer.
pub fn csv(view: &View, out: &mut dyn Write) -> Result<()> {
    write!(
        out,
        "network,tier,operators,countries,mark,mask,dscp_up,dscp_down\r\n"
    )?;
    for entry in &view.set.entries {
        let (operators, countries) = joined(&entry.owners, " ");
        let Treatment { mark, mask, .. } = entry.treatment;
        let marks = if mask == 0 {
            ",".to_owned()
        } else {
            format!("{mark:#x},{mask:#x}")
        };
        let dscp = |up| {
            let rules = Kind::ALL.map(|kind| dscp(&entry.treatment, up, kind));
            let rules = rules.map(|rule| rule.unwrap_or_else(|| "keep".into()));
            match rules.iter().all(|rule| *rule == rules[0]) {
                true => rules[0].clone(),
                false => rules.join(" "),
            }
        };
        write!(
            out,
            "{},{},{operators},{countries},{marks},{},{}\r\n",
            entry.net.0,
            entry.tier.0,
            dscp(true),
            dscp(false)
        )?;
    }
    Ok(())
}

/// Everything.
///
/// # Errors
///
/// Those of the writer.
pub fn json(view: &View, out: &mut dyn Write) -> Result<()> {
    let document = Document {
        wificall: env!("CARGO_PKG_VERSION"),
        source: view.source(),
        selected: &view.selected,
        time: view.time(),
        networks: view.set.entries.iter().map(Network::of).collect(),
        names: &view.set.names,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[derive(Serialize)]
struct Document<'a> {
    wificall: &'a str,
    source: String,
    selected: &'a str,
    time: String,
    networks: Vec<Network<'a>>,
    names: &'a [Name],
}

#[derive(Serialize)]
struct Network<'a> {
    network: &'a Text<IpNet>,
    tier: &'a Text<Tier>,
    owners: &'a [Owner],
    mark: Option<Mark>,
    dscp: Directions,
}

#[derive(Serialize)]
struct Mark {
    value: u32,
    mask: u32,
}

#[derive(Serialize)]
struct Directions {
    up: Kinds,
    down: Kinds,
}

#[derive(Serialize)]
struct Kinds {
    udp_500: Option<Dscp>,
    udp_4500: Option<Dscp>,
    esp: Option<Dscp>,
}

impl<'a> Network<'a> {
    fn of(entry: &'a Entry) -> Self {
        let Treatment { mark, mask, .. } = entry.treatment;
        let kinds = |up| {
            let [udp_500, udp_4500, esp] = Kind::ALL.map(|kind| entry.treatment.dscp(up, kind));
            Kinds {
                udp_500,
                udp_4500,
                esp,
            }
        };
        Self {
            network: &entry.net,
            tier: &entry.tier,
            owners: &entry.owners,
            mark: (mask != 0).then_some(Mark { value: mark, mask }),
            dscp: Directions {
                up: kinds(true),
                down: kinds(false),
            },
        }
    }
}

/// `46`, or `46?` if only over 0; `None` if the DSCP is left alone.
fn dscp(treatment: &Treatment, up: bool, kind: Kind) -> Option<String> {
    let dscp = treatment.dscp(up, kind)?;
    let mark = if dscp.if_default { "?" } else { "" };
    Some(format!("{}{mark}", dscp.value))
}

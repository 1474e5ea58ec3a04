//! For scripts, tables, and firewalls that poll a URL.

use std::io::{Result, Write};

use serde_json::{Value, json};

use super::comment;
use super::set::{Kind, Treatment};
use super::view::{View, joined};

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
    let networks: Vec<Value> = (view.set.entries.iter())
        .map(|entry| {
            let Treatment { mark, mask, .. } = entry.treatment;
            let mark = (mask != 0).then(|| json!({ "value": mark, "mask": mask }));
            let dscp = |up| {
                let rules = Kind::ALL.map(|kind| entry.treatment.dscp(up, kind));
                json!({ "udp_500": rules[0], "udp_4500": rules[1], "esp": rules[2] })
            };
            json!({
                "network": entry.net,
                "tier": entry.tier,
                "owners": entry.owners,
                "mark": mark,
                "dscp": { "up": dscp(true), "down": dscp(false) },
            })
        })
        .collect();
    let document = json!({
        "wificall": env!("CARGO_PKG_VERSION"),
        "source": view.source(),
        "selected": view.selected,
        "time": view.time(),
        "networks": networks,
        "names": view.set.names,
    });
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

/// `46`, or `46?` if only over 0; `None` if the DSCP is left alone.
fn dscp(treatment: &Treatment, up: bool, kind: Kind) -> Option<String> {
    let dscp = treatment.dscp(up, kind)?;
    let mark = if dscp.if_default { "?" } else { "" };
    Some(format!("{}{mark}", dscp.value))
}

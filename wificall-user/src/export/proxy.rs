//! Proxy programs. They get names too: where they answer phones with made-up addresses, a name is all they see.

use std::io::{Result, Write};

use ipnet::IpNet;
use serde_json::json;

use super::comment;
use super::view::View;

fn rules(view: &View) -> impl Iterator<Item = String> {
    let names = view.names().map(|name| format!("DOMAIN,{name}"));
    let nets = view.nets.all().map(|net| match net {
        IpNet::V4(net) => format!("IP-CIDR,{net},no-resolve"),
        IpNet::V6(net) => format!("IP-CIDR6,{net},no-resolve"),
    });
    names.chain(nets)
}

/// Surge: an external rule set.
///
/// # Errors
///
/// Those of the writer.
pub fn surge(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    rules(view).try_for_each(|rule| writeln!(out, "{rule}"))
}

/// Clash and mihomo: a rule provider of behaviour `classical`, in YAML.
///
/// # Errors
///
/// Those of the writer.
pub fn clash(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    let mut rules = rules(view).peekable();
    if rules.peek().is_none() {
        return writeln!(out, "payload: []");
    }
    writeln!(out, "payload:")?;
    rules.try_for_each(|rule| writeln!(out, "  - '{rule}'"))
}

/// sing-box: a rule set in source form. JSON has no comments.
///
/// # Errors
///
/// Those of the writer.
pub fn sing_box(view: &View, out: &mut dyn Write) -> Result<()> {
    let names: Vec<_> = view.names().map(ToString::to_string).collect();
    let nets: Vec<_> = view.nets.all().map(|net| net.to_string()).collect();
    // A rule without a condition is refused; the conditions of one are alternatives.
    let mut rule = serde_json::Map::new();
    for (key, values) in [("domain", names), ("ip_cidr", nets)] {
        if !values.is_empty() {
            rule.insert(key.to_owned(), json!(values));
        }
    }
    let rules = if rule.is_empty() {
        json!([])
    } else {
        json!([rule])
    };
    serde_json::to_writer_pretty(&mut *out, &json!({ "version": 1, "rules": rules }))?;
    writeln!(out)
}

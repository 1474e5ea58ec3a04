//! `wificall detach`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use wificall_common::abi::Hook;

use super::{Failure, Outcome, print, print_json};
use crate::cli::Instance;
use crate::config::{self, Agent};
use crate::control::lock::Lock;
use crate::control::remove_exits;
use crate::kernel::{self, Inspection, Method, Pins};
use crate::net;
use crate::steer::record::Changed;

/// What was removed.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Removed {
    hooks: Vec<RemovedHook>,
    /// Names of the interfaces whose clsact qdisc we had added.
    qdiscs: Vec<String>,
    /// Policy rules of exits.
    rules: Vec<String>,
    /// Tables whose default routes, by family, were of exits.
    routes: Vec<(u32, net::Family)>,
    /// Sysctls that were set back, and to what.
    sysctls: Vec<(String, u32)>,
    /// The directory of pinned maps and links.
    pins: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Serialize)]
struct RemovedHook {
    /// None if the interface was gone already.
    interface: Option<String>,
    index: u32,
    hook: &'static str,
    method: &'static str,
}

pub(super) async fn run(arguments: &Instance) -> Result<Outcome, Failure> {
    // A file that is no use to an agent is no reason to leave things as they are.
    let agent = match &arguments.instance {
        Some(agent) => agent.clone(),
        None => config::load_agent(&arguments.config)?,
    };
    // Held until the end, so that no agent starts in the middle.
    let lock = Lock::take(&agent.lock_path()).map_err(anyhow::Error::from)?;
    let removed = detach(&agent).await?;
    remove_file(&agent.control_socket())?;
    lock.remove()
        .with_context(|| format!("remove the lock {}", agent.lock_path().display()))?;
    if arguments.json {
        print_json(&removed)?;
    } else {
        print(&text(&agent.instance, &removed))?;
    }
    Ok(Outcome::Done)
}

async fn detach(agent: &Agent) -> anyhow::Result<Removed> {
    let pins = Pins::new(agent.pin_dir());
    let names: BTreeMap<u32, String> = net::links()
        .await
        .context("list the interfaces")?
        .into_iter()
        .map(|link| (link.index, link.name))
        .collect();
    // Only to say what goes: what cannot be read is removed all the same.
    let before = kernel::inspect(&pins).unwrap_or_else(|error| {
        tracing::debug!("before detaching: {error}");
        None
    });
    let existed = pins.exists();
    let own_qdiscs = kernel::detach_all(&pins, |index| names.get(&index).cloned())?;
    let mut removed = Removed {
        hooks: before.map_or_else(Vec::new, |before| hooks(&before, &names)),
        qdiscs: Vec::new(),
        rules: Vec::new(),
        routes: Vec::new(),
        sysctls: Vec::new(),
        pins: existed.then(|| agent.pin_dir()),
    };
    // When nothing is marked any more.
    let exits = remove_exits(&agent.exits_path()).await?;
    removed.rules = exits
        .rules
        .iter()
        .map(|rule| format!("{} {rule}", rule.family))
        .collect();
    let routes = exits.routes.iter();
    removed.routes = routes.map(|route| (route.table, route.family)).collect();
    for changed in exits.sysctls {
        let Changed {
            sysctl,
            device,
            before,
            ..
        } = changed;
        let name = format!("net.ipv4.conf.{device}.{}", sysctl.name());
        removed.sysctls.push((name, before));
    }
    for index in own_qdiscs {
        if let Some(name) = names.get(&index)
            && net::remove_empty_clsact(index)
                .await
                .with_context(|| format!("remove the clsact qdisc of `{name}`"))?
        {
            removed.qdiscs.push(name.clone());
        }
    }
    Ok(removed)
}

fn hooks(before: &Inspection, names: &BTreeMap<u32, String>) -> Vec<RemovedHook> {
    let links = before.links.keys().map(|(hook, index)| {
        let method = match hook {
            Hook::TcIngress | Hook::TcEgress => Method::Tcx,
            Hook::Xdp => Method::XdpNative,
        };
        (hook, index, method)
    });
    let filters = before
        .filters
        .keys()
        .map(|(hook, index)| (hook, index, Method::Clsact));
    links
        .chain(filters)
        .map(|(hook, index, method)| RemovedHook {
            interface: names.get(index).cloned(),
            index: *index,
            hook: hook.name(),
            method: method.name(),
        })
        .collect()
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn text(instance: &str, removed: &Removed) -> String {
    let mut text = String::new();
    for hook in &removed.hooks {
        let place = match &hook.interface {
            Some(name) => format!("from `{name}`"),
            None => format!("of interface number {}, which is gone", hook.index),
        };
        let _ = writeln!(text, "removed {} ({}) {place}", hook.hook, hook.method);
    }
    for name in &removed.qdiscs {
        let _ = writeln!(text, "removed the clsact qdisc of `{name}`");
    }
    for rule in &removed.rules {
        let _ = writeln!(text, "removed the rule {rule}");
    }
    for (table, family) in &removed.routes {
        let _ = writeln!(text, "removed the {family} default route of table {table}");
    }
    for (name, value) in &removed.sysctls {
        let _ = writeln!(text, "set {name} back to {value}");
    }
    if let Some(pins) = &removed.pins {
        let _ = writeln!(text, "removed the maps in {}", pins.display());
    }
    if text.is_empty() {
        text = format!("instance {instance} has nothing in the kernel\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_listed() {
        let hook = |interface: Option<&str>, hook: Hook, method: Method| RemovedHook {
            interface: interface.map(str::to_owned),
            index: 7,
            hook: hook.name(),
            method: method.name(),
        };
        let removed = Removed {
            hooks: vec![
                hook(Some("wlan0"), Hook::TcIngress, Method::Tcx),
                hook(None, Hook::TcEgress, Method::Clsact),
            ],
            qdiscs: vec!["wan".into()],
            rules: vec!["ipv4 1000: from all fwmark 0x65/0xff lookup 1065".into()],
            routes: vec![(1065, net::Family::V4)],
            sysctls: vec![("net.ipv4.conf.lan.rp_filter".into(), 1)],
            pins: Some("/sys/fs/bpf/wificall/lab".into()),
        };
        assert_eq!(
            text("lab", &removed),
            "removed tc_ingress (tcx) from `wlan0`\n\
             removed tc_egress (clsact) of interface number 7, which is gone\n\
             removed the clsact qdisc of `wan`\n\
             removed the rule ipv4 1000: from all fwmark 0x65/0xff lookup 1065\n\
             removed the ipv4 default route of table 1065\n\
             set net.ipv4.conf.lan.rp_filter back to 1\n\
             removed the maps in /sys/fs/bpf/wificall/lab\n"
        );
        assert_eq!(
            text("lab", &Removed::default()),
            "instance lab has nothing in the kernel\n"
        );
    }
}

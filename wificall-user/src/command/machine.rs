//! What on this machine stands in the way of a configuration that is right by itself. Read without touching anything.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::config::{Config, Glob, TcMode};
use crate::control::check_exits;
use crate::net::{self, Kind, Link};
use crate::observe::token::Token;

/// The oldest kernel that wificall supports.
const OLDEST: (u32, u32) = (5, 10);
/// The first kernel with TCX (commit e420bed02507).
const TCX: (u32, u32) = (6, 6);
/// Above this similarity a name is suggested for another.
const SIMILAR: f64 = 0.7;

/// Something about this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Note {
    /// `interfaces`, `exits`, `kernel`, `capabilities`, `bpffs` or `token`.
    pub about: &'static str,
    /// A sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Note {
    fn new(about: &'static str, message: impl Into<String>) -> Self {
        Self {
            about,
            message: message.into(),
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// Logs notes as warnings.
pub(super) fn warn(notes: &[Note]) {
    for note in notes {
        match &note.hint {
            Some(hint) => tracing::warn!(hint, "{}", note.message),
            None => tracing::warn!("{}", note.message),
        }
    }
}

/// All that there is to say about this machine.
pub(super) async fn notes(config: &Config) -> Vec<Note> {
    let mut notes = Vec::new();
    match net::links().await {
        Ok(links) => notes.extend(interfaces(config, &links)),
        Err(error) => notes.push(Note::new(
            "interfaces",
            format!("the interfaces cannot be listed: {error}"),
        )),
    }
    match check_exits(config).await {
        Ok(findings) => {
            let texts = findings.errors.into_iter().chain(findings.warnings);
            notes.extend(texts.map(|text| exit(&text)));
        }
        Err(error) => notes.push(Note::new(
            "exits",
            format!("the exits cannot be checked: {error:#}"),
        )),
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    notes.extend(kernel(
        config.interfaces.tc,
        read("/proc/sys/kernel/osrelease").trim(),
    ));
    let asks = !config.exits.is_empty();
    notes.extend(capabilities(&read("/proc/self/status"), asks));
    notes.extend(bpffs(&config.agent.bpffs, &read("/proc/self/mounts")));
    notes.extend(token(config.agent.token_file.as_deref()));
    notes
}

fn exit(text: &str) -> Note {
    finding("exits", text)
}

/// A finding, which has its hint on a line of its own.
fn finding(about: &'static str, text: &str) -> Note {
    match text.split_once("\n  hint: ") {
        Some((message, hint)) => Note::new(about, message).hint(hint),
        None => Note::new(about, text),
    }
}

/// Why the token's file gives none: an agent would not start.
fn token(path: Option<&Path>) -> Option<Note> {
    let problem = Token::read(path?).err()?;
    Some(finding("token", &problem.to_string()))
}

fn interfaces(config: &Config, links: &[Link]) -> Vec<Note> {
    let mut notes = Vec::new();
    let roles = [
        ("access", &config.interfaces.access),
        ("uplink", &config.interfaces.uplink),
    ];
    for (role, globs) in roles {
        for glob in net::unmatched(globs, links) {
            notes.push(unmatched(role, glob, links));
        }
        let selected = net::select(globs, links);
        for link in &selected {
            if let Kind::Unsupported { arphrd } = link.kind {
                notes.push(
                    Note::new(
                        "interfaces",
                        format!(
                            "`{}` has a link header that the classifier does not read (ARPHRD {arphrd})",
                            link.name
                        ),
                    )
                    .hint("name the interface above or below it"),
                );
            }
        }
        let names: Vec<_> = selected.iter().map(|link| link.name.as_str()).collect();
        for conflict in net::stacked(links, &names) {
            notes.push(Note::new("interfaces", conflict.why));
        }
    }
    notes
}

fn unmatched(role: &str, glob: &Glob, links: &[Link]) -> Note {
    let message = if glob.is_literal() {
        format!("there is no interface `{glob}` ({role}); it is attached when it appears")
    } else {
        format!("no interface matches `{glob}` ({role}); those that appear are attached")
    };
    let names = || {
        links
            .iter()
            .map(|link| link.name.as_str())
            .filter(|name| *name != "lo")
    };
    let nearest = names()
        .map(|name| (strsim::jaro_winkler(name, glob.as_str()), name))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let existing = names().collect::<Vec<_>>().join(", ");
    Note::new("interfaces", message).hint(match nearest {
        Some((_, name)) if glob.is_literal() => {
            format!("did you mean `{name}`? there are: {existing}")
        }
        _ if existing.is_empty() => "there is none but lo".to_owned(),
        _ => format!("there are: {existing}"),
    })
}

fn kernel(tc: TcMode, release: &str) -> Option<Note> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    let version = (number()?, number()?);
    if version < OLDEST {
        let message = format!("Linux {release} is older than {}.{}", OLDEST.0, OLDEST.1);
        Some(Note::new("kernel", message).hint("wificall is not tested on it and may not load"))
    } else if version < TCX && tc == TcMode::Tcx {
        let message = format!("Linux {release} has no TCX: interfaces.tc = \"tcx\" cannot attach");
        Some(
            Note::new("kernel", message)
                .hint("TCX came with Linux 6.6; \"auto\" takes clsact before that"),
        )
    } else {
        None
    }
}

/// By the effective capabilities in a `/proc/<pid>/status` (capabilities(7)).
/// By a `/proc/<pid>/status`. `asks`: gateways are asked by ARP and neighbour solicitations.
fn capabilities(status: &str, asks: bool) -> Option<Note> {
    const NET_ADMIN: u32 = 12;
    const NET_RAW: u32 = 13;
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    let has = |capability: u32| effective >> capability & 1 == 1;
    let finer = [BPF, PERFMON];
    let raw = asks.then_some((NET_RAW, "NET_RAW"));
    let missing: Vec<_> = [(BPF, "BPF"), (NET_ADMIN, "NET_ADMIN"), (PERFMON, "PERFMON")]
        .into_iter()
        .chain(raw)
        // SYS_ADMIN holds what the finer two were made from (Linux 5.8).
        .filter(|(capability, _)| {
            !has(*capability) && (!finer.contains(capability) || !has(SYS_ADMIN))
        })
        .map(|(_, name)| name)
        .collect();
    (!missing.is_empty()).then(|| {
        let message = format!(
            "this process lacks the capabilities that `wificall run` needs: {}",
            missing.join(", ")
        );
        Note::new("capabilities", message)
            .hint("fine for a check; run the agent as root or with these capabilities")
    })
}

/// By a `/proc/<pid>/mounts`: the last mount on the longest path above the directory is the one that holds it.
fn bpffs(directory: &Path, mounts: &str) -> Option<Note> {
    let holder = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mount_point, _)| directory.starts_with(mount_point))
        .max_by_key(|(mount_point, _)| mount_point.len())?;
    (holder.1 != "bpf").then(|| {
        let message = format!("{} is not on a BPF file system", directory.display());
        Note::new("bpffs", message)
            .hint("mount one: `mount -t bpf bpf /sys/fs/bpf`; or set agent.bpffs to where yours is")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn link(index: u32, name: &str, kind: Kind, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind,
            wireless: false,
            master,
            parent: None,
            up: true,
            running: true,
            mtu: 1500,
            address: None,
            info_kind: (name == "br-lan").then(|| "bridge".to_owned()),
        }
    }

    fn told(access: &str) -> Vec<(String, Option<String>)> {
        let source =
            format!("[interfaces]\naccess = [{access}]\n[discovery]\ncountries = [\"DE\"]\n");
        let config = config::parse(&source, Path::new("x.toml")).unwrap().config;
        let links = [
            link(1, "lo", Kind::Ethernet, None),
            link(2, "wlan0", Kind::Ethernet, Some(4)),
            link(3, "wpan0", Kind::Unsupported { arphrd: 804 }, None),
            link(4, "br-lan", Kind::Ethernet, None),
        ];
        interfaces(&config, &links)
            .into_iter()
            .map(|note| (note.message, note.hint))
            .collect()
    }

    #[test]
    fn interfaces_that_are_there_need_no_note() {
        assert_eq!(told("\"wlan*\""), []);
        assert_eq!(told("\"br-lan\""), []);
    }

    #[test]
    fn interfaces_that_are_not_there_are_named_with_those_that_are() {
        assert_eq!(
            told("\"wlan1\", \"eth?\""),
            [
                (
                    "there is no interface `wlan1` (access); it is attached when it appears"
                        .to_owned(),
                    Some("did you mean `wlan0`? there are: wlan0, wpan0, br-lan".to_owned())
                ),
                (
                    "no interface matches `eth?` (access); those that appear are attached"
                        .to_owned(),
                    Some("there are: wlan0, wpan0, br-lan".to_owned())
                ),
            ]
        );
    }

    #[test]
    fn what_cannot_work_is_explained() {
        let notes = told("\"wlan0\", \"br-lan\", \"wpan0\"");
        assert_eq!(notes.len(), 2);
        assert!(notes[0].0.contains("ARPHRD 804"), "{notes:?}");
        assert!(
            notes[1]
                .0
                .contains("`wlan0` is a port of the bridge `br-lan`"),
            "{notes:?}"
        );
    }

    #[test]
    fn kernels() {
        let about = |tc, release| kernel(tc, release).map(|note| note.message);
        assert_eq!(about(TcMode::Tcx, "6.18.5"), None);
        assert_eq!(about(TcMode::Tcx, "6.6.0-13-generic"), None);
        assert_eq!(about(TcMode::Auto, "5.10.0-rc1"), None);
        assert!(
            about(TcMode::Tcx, "6.1.0-28-amd64")
                .unwrap()
                .contains("no TCX")
        );
        assert!(
            about(TcMode::Auto, "4.19.87")
                .unwrap()
                .contains("older than 5.10")
        );
        assert_eq!(about(TcMode::Auto, ""), None);
    }

    #[test]
    fn capabilities_that_are_missing() {
        let about = |mask: u64| {
            let status = format!("Name:\tx\nCapEff:\t{mask:016x}\n");
            capabilities(&status, mask & 1 == 1).map(|note| note.message)
        };
        assert_eq!(about(u64::MAX), None);
        assert_eq!(about(1 << 39 | 1 << 38 | 1 << 12), None);
        assert_eq!(about(1 << 21 | 1 << 12), None);
        assert!(about(0).unwrap().ends_with(": BPF, NET_ADMIN, PERFMON"));
        assert!(about(1 << 21).unwrap().ends_with(": NET_ADMIN"));
        assert!(about(1 << 21 | 1 << 12 | 1).unwrap().ends_with(": NET_RAW"));
        assert_eq!(capabilities("", false), None);
    }

    #[test]
    fn a_bpffs_is_looked_for_where_the_pins_go() {
        let mounts =
            "/dev/sda1 / ext4 rw 0 0\nsysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        let about = |directory: &str, mounts| bpffs(Path::new(directory), mounts);
        assert_eq!(about("/sys/fs/bpf", mounts), None);
        assert_eq!(about("/sys/fs/bpf/below", mounts), None);
        assert!(about("/sys/fs/bpf2", mounts).is_some());
        let without = mounts.replace("bpf /sys/fs/bpf bpf rw 0 0\n", "");
        let note = about("/sys/fs/bpf", &without).unwrap();
        assert_eq!(note.message, "/sys/fs/bpf is not on a BPF file system");
        assert!(note.hint.unwrap().contains("mount -t bpf"));
    }
}

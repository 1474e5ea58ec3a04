//! What each hook does with a packet that is explained.

use wificall_common::{Direction, abi::Hook, exit::Exit, rewrite::Mark};

use super::hooks::{Role, Selected};
use crate::explanation::Treated;

/// What cfg80211 reads as user priority 6, voice.
const PRIORITY_WIRELESS_VOICE: u32 = 256 + 6;
/// TC_PRIO_INTERACTIVE.
const PRIORITY_INTERACTIVE: u32 = 6;

/// What is done with a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed {
    pub direction: Direction,
    /// The way out of the classifier.
    pub exit: Exit,
    /// Its policy drops it.
    pub dropped: bool,
    /// The DSCP that its policy sets, if it is another than it has.
    pub dscp: Option<u8>,
    /// Whether it goes out at voice's priority.
    pub voice: bool,
    /// Nanoseconds between packets under the cap; 0: there is none.
    pub interval: u32,
    /// What is done only where clients' packets come in.
    pub entry: Entry,
}

/// What TC does only where clients' packets come in; of that, XDP drops other IPsec.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// The way out, if that is another than the classifier's.
    pub exit: Option<Exit>,
    /// Whether XDP in front keeps TC from what `exit` says.
    pub not_behind_xdp: bool,
    /// The mark of other IPsec.
    pub other_mark: Mark,
    /// The mark of the policy, or of the tunnel.
    pub mark: Mark,
    /// Whether its DSCP is reset.
    pub bleached: bool,
}

impl Deed {
    /// Of a packet that is no match.
    pub(super) const fn aside(direction: Direction, exit: Exit, entry: Entry) -> Self {
        Self {
            direction,
            exit,
            dropped: false,
            dscp: None,
            voice: false,
            interval: 0,
            entry,
        }
    }

    /// What the programs of an interface do, in the order in which they see the packet.
    pub(super) fn at(&self, selected: &Selected) -> Vec<Treated> {
        let comes_in = match (selected.role, self.direction) {
            (Role::Access, Direction::Up) | (Role::Uplink, Direction::Down) => true,
            (Role::Access, Direction::Down) | (Role::Uplink, Direction::Up) => false,
        };
        let enters = selected.role == Role::Access && self.direction == Direction::Up;
        let mut attachments: Vec<_> = selected
            .attachments
            .iter()
            .filter(|attachment| (attachment.hook != Hook::TcEgress) == comes_in)
            .collect();
        attachments.sort_by_key(|attachment| attachment.hook != Hook::Xdp);
        let by_xdp = attachments
            .iter()
            .any(|attachment| attachment.hook == Hook::Xdp);
        let mut treated = Vec::new();
        for attachment in attachments {
            let hook = attachment.hook;
            // What XDP has done, TC does only where the driver cannot tell it so.
            let first = hook == Hook::Xdp || !by_xdp;
            let entry = self.entry_at(hook, enters, by_xdp);
            let exit = match entry.exit {
                _ if self.dropped => Exit::Dropped,
                Some(exit) => exit,
                None if !first && self.exit == Exit::Matched => Exit::ByXdp,
                None => self.exit,
            };
            let dropped = matches!(exit, Exit::Dropped | Exit::OtherDropped | Exit::Held);
            let mark = self.mark(&entry);
            let priority = if selected.wireless {
                PRIORITY_WIRELESS_VOICE
            } else {
                PRIORITY_INTERACTIVE
            };
            let mut done = Treated {
                interface: selected.link.name.clone(),
                role: selected.role.name().into(),
                hook: hook.name().into(),
                program: attachment.program.into(),
                exit: exit.name().into(),
                dropped,
                ..Treated::default()
            };
            if !dropped {
                let reset = entry.bleached.then_some(0);
                done.dscp = self.dscp.filter(|_| first).or(reset);
                done.mark = written(mark);
                done.priority = (self.voice && hook == Hook::TcEgress).then_some(priority);
                done.cap = 1_000_000_000_u32
                    .checked_div(self.interval)
                    .filter(|_| first);
            }
            treated.push(done);
            if dropped {
                break;
            }
        }
        treated
    }

    /// What is done of `entry` at a hook.
    fn entry_at(&self, hook: Hook, enters: bool, by_xdp: bool) -> Entry {
        let entry = self.entry;
        match hook {
            Hook::TcIngress if enters && by_xdp && entry.not_behind_xdp => Entry {
                exit: entry.exit.filter(|exit| *exit == Exit::OtherDropped),
                other_mark: Mark::default(),
                ..entry
            },
            Hook::TcIngress if enters => entry,
            Hook::Xdp if enters => Entry {
                exit: entry.exit.filter(|exit| *exit == Exit::OtherDropped),
                ..Entry::default()
            },
            _ => Entry::default(),
        }
    }

    /// Both marks, in the order in which the programs set them.
    fn mark(&self, entry: &Entry) -> Mark {
        let (first, last) = match self.exit {
            Exit::Matched => (entry.other_mark, entry.mark),
            _ => (entry.mark, entry.other_mark),
        };
        Mark {
            value: last.over(first.value & first.mask),
            mask: first.mask | last.mask,
        }
    }
}

/// `value/mask`, if it marks anything.
pub(super) fn written(mark: Mark) -> Option<String> {
    let Mark { value, mask } = mark;
    (mask != 0).then(|| format!("{value:#x}/{mask:#x}"))
}

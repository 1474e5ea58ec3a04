//! What is done with a packet that matches: by which policy, and at which hook.

use wificall_common::{
    Class, Direction,
    abi::{Hook, Policy as Row},
    rewrite,
};

use super::{
    desired,
    explain_endpoint::{Found, few},
    hooks::{Role, Selected, Selection},
    policy::{own_row, row},
    policy_match::{Origin, Reason, Subject},
    world::World,
};
use crate::{
    config::{Action, Client, Policy},
    explanation::{Explanation, Packet, Treated, Tried},
};

/// What cfg80211 reads as user priority 6, voice.
const PRIORITY_WIRELESS_VOICE: u32 = 256 + 6;
/// TC_PRIO_INTERACTIVE.
const PRIORITY_INTERACTIVE: u32 = 6;

/// A packet that matches.
pub(super) struct Case<'c> {
    pub world: &'c World,
    pub found: &'c Found<'c>,
    pub direction: Direction,
    /// The class whose DSCP it gets.
    pub class: Class,
}

impl<'c> Case<'c> {
    /// Tries the policies, and says what each hook does that sees the packet.
    pub(super) fn act(
        &self,
        explanation: &mut Explanation,
        packet: &Packet,
        selection: &Selection,
        at: Option<&Selected>,
    ) {
        let Some(row) = self.decide(explanation) else {
            return;
        };
        let parsed = &explanation.parsed;
        let current = parsed.dscp.unwrap_or(0) << 2 | parsed.ecn.unwrap_or(0);
        let rule = rewrite::rule(&row, self.direction, self.class);
        let dscp = rewrite::traffic_class(current, rule).map(|class| class >> 2);
        if let (Some(name), None) = (&packet.interface, at) {
            explanation.notes.push(format!(
                "`{name}` is no interface of the configuration: no program runs there"
            ));
            return;
        }
        let seen = selection.interfaces.iter().filter(|selected| {
            packet
                .interface
                .as_ref()
                .is_none_or(|name| selected.link.name == *name)
        });
        for selected in seen {
            explanation.notes.extend(selected.problem.clone());
            explanation.hooks.extend(self.at(selected, &row, dscp));
        }
        if selection.interfaces.is_empty() {
            explanation
                .notes
                .push("none of the configured interfaces exists here".into());
        }
    }

    /// The row that the packet is treated by; `None` if nothing is known of it.
    fn decide(&self, explanation: &mut Explanation) -> Option<Row> {
        let world = self.world;
        let Some((net, claim, tier)) = self.found.claim else {
            explanation.notes.push(
                "the endpoint is left from an agent before, whose state is lost: what is done is what that one said"
                    .into(),
            );
            return self.found.meaning.map(|meaning| meaning.row);
        };
        let client = &explanation.client;
        let subject = Subject {
            endpoint: desired::endpoint(&net, claim, tier),
            origin: Origin {
                address: client.address.map(|address| address.0),
                mac: client.mac.map(|mac| mac.0.0),
                interface: client.interface.as_deref(),
            },
        };
        if self.is_gateway(&subject) {
            explanation.notes.push(
                "the client is a gateway of an exit: its own traffic is left as it came".into(),
            );
            return Some(own_row(tier));
        }
        let (tried, matched) = self.try_policies(&subject);
        let row = row(&world.config, matched, &subject.endpoint, world.around());
        if self.found.meaning.is_some_and(|meaning| {
            let there = Row {
                set: 0,
                epoch: 0,
                ..meaning.row
            };
            meaning.choices.is_empty() && there != row
        }) {
            explanation.notes.push(
                "the table has it under another policy: the configuration is being changed".into(),
            );
        }
        let exit = matched.and_then(|policy| policy.exit.as_ref());
        if row.exit != 0 {
            explanation.leaves_by = exit.cloned();
            explanation
                .notes
                .push("a tunnel that is up keeps the exit that it began with".into());
        } else if exit.is_some() && claim.emergency {
            explanation
                .notes
                .push("the exit blocks now: emergency calls go their own way".into());
        }
        explanation.policy = matched.map(|policy| policy.name.clone());
        explanation.policies = tried;
        Some(row)
    }

    /// The policies up to the one that matches, and that.
    fn try_policies(&self, subject: &Subject) -> (Vec<Tried>, Option<&'c Policy>) {
        let mut tried = Vec::new();
        for policy in &self.world.config.policies {
            let result = try_policy(policy, subject);
            let matched = result.matched;
            tried.push(result);
            if matched {
                return (tried, Some(policy));
            }
        }
        (tried, None)
    }

    /// Whether the packet is of a gateway of an exit, where a policy sends packets of this endpoint to one.
    fn is_gateway(&self, subject: &Subject) -> bool {
        let origin = &subject.origin;
        let is_own = |own: &Client| match own {
            Client::Network(net) => origin.address.is_some_and(|address| net.contains(&address)),
            Client::Mac(mac) => origin.mac == Some(*mac),
        };
        let mut policies = self.world.config.policies.iter();
        self.world.steering.own.iter().any(is_own)
            && policies.any(|policy| policy.exit.is_some() && policy.takes(&subject.endpoint))
    }

    /// What the programs of an interface do, in the order in which they see the packet.
    fn at(&self, selected: &Selected, row: &Row, dscp: Option<u8>) -> Vec<Treated> {
        let Row {
            mark,
            mask,
            interval,
            ..
        } = *row;
        let comes_in = match (selected.role, self.direction) {
            (Role::Access, Direction::Up) | (Role::Uplink, Direction::Down) => true,
            (Role::Access, Direction::Down) | (Role::Uplink, Direction::Up) => false,
        };
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
            let marks = hook == Hook::TcIngress && self.direction == Direction::Up && mask != 0;
            let voice = hook == Hook::TcEgress && row.voice[self.direction as usize] != 0;
            let priority = if selected.wireless {
                PRIORITY_WIRELESS_VOICE
            } else {
                PRIORITY_INTERACTIVE
            };
            let dropped = row.drop != 0;
            treated.push(Treated {
                interface: selected.link.name.clone(),
                role: selected.role.name().into(),
                hook: hook.name().into(),
                program: attachment.program.into(),
                dropped,
                dscp: dscp.filter(|_| first && !dropped),
                mark: (marks && !dropped).then(|| format!("{mark:#x}/{mask:#x}")),
                priority: (voice && !dropped).then_some(priority),
                cap: 1_000_000_000_u32
                    .checked_div(interval)
                    .filter(|_| first && !dropped),
            });
            if dropped {
                break;
            }
        }
        treated
    }
}

/// Tries one policy.
fn try_policy(policy: &Policy, subject: &Subject) -> Tried {
    let name = policy.name.clone();
    let (condition, contrast) = match policy.mismatch(subject) {
        Some(reason) => (reason.key(), policy.contrast(reason, subject)),
        // Where they can be told apart.
        None if policy.action == Action::Drop && subject.endpoint.emergency => {
            let contrast = policy.contrast(Reason::Emergency, subject);
            ("drop", contrast)
        }
        None => {
            return Tried {
                policy: name,
                matched: true,
                condition: None,
                wanted: Vec::new(),
                found: Vec::new(),
            };
        }
    };
    Tried {
        policy: name,
        matched: false,
        condition: Some(condition.into()),
        wanted: few(contrast.wanted.iter()),
        found: few(contrast.found.iter()),
    }
}

//! What is done with a packet that matches, and by which policy.

use wificall_common::{
    Direction,
    abi::{DSCP_DEMOTE, Policy as Row, Tunnel},
    classify::{Match, begins, tunnel_key},
    exit::Exit,
    other::destination,
    rewrite::{self, Mark},
    tunnel,
    wire::Fragment,
};

use super::{
    desired,
    explain_endpoint::{Found, few},
    explain_hooks::{Deed, Entry},
    explain_live::Live,
    other::Arming,
    policy::{gateway_row, row},
    policy_match::{Origin, Reason, Subject},
    world::World,
};
use crate::{
    config::{Action, Client, OtherAction, Policy},
    explanation::{Explanation, Step, Tried},
};

/// A packet that matches.
pub(super) struct Case<'c> {
    pub world: &'c World,
    /// `None`: no agent was asked.
    pub live: Option<&'c Live>,
    pub arming: Arming,
    pub frame: &'c [u8],
    pub found: &'c Found<'c>,
    pub direction: Direction,
    pub matched: Match,
    /// Whether it comes in where clients are, as far as that is known.
    pub enters: bool,
}

impl<'c> Case<'c> {
    /// Tries the policies; what is done with the packet, `None` if nothing is known of it.
    pub(super) fn act(&self, explanation: &mut Explanation) -> Option<Deed> {
        let row = self.decide(explanation)?;
        let parsed = &explanation.parsed;
        let current = parsed.dscp.unwrap_or(0) << 2 | parsed.ecn.unwrap_or(0);
        let rule = rewrite::rule(&row, self.direction, self.matched.treat_as);
        let dscp = rewrite::traffic_class(current, rule).map(|class| class >> 2);
        let dropped = row.drop != 0;
        if rule & DSCP_DEMOTE == DSCP_DEMOTE && dscp.is_some() {
            explanation.steps.push(Step::new(
                "bleach",
                "reset",
                "it has a DSCP of voice, to which observed endpoints have no right: it is reset to 0",
            ));
        }
        let entry = if self.enters && !dropped && row.own == 0 {
            self.enter(explanation, &row)
        } else {
            Entry::default()
        };
        Some(Deed {
            direction: self.direction,
            exit: Exit::Matched,
            dropped,
            dscp,
            voice: row.voice[self.direction as usize] != 0,
            interval: row.interval,
            entry,
        })
    }

    /// What is done where clients' packets come in.
    fn enter(&self, explanation: &mut Explanation, row: &Row) -> Entry {
        let mut entry = Entry::default();
        let to = destination(self.frame, &self.matched.packet);
        if let Some(to) = to
            && self.world.config.other_ipsec.action != OtherAction::Pass
        {
            let (exit, step) = match row.passes {
                0 => self.world.other_step(to, self.arming),
                _ => (None, passes()),
            };
            explanation.steps.push(step);
            entry.exit = exit;
            // XDP tells TC no more of a later fragment than its mark.
            entry.not_behind_xdp = self.matched.packet.fragment == Fragment::Later;
        }
        if entry.exit == Some(Exit::OtherMarked) {
            entry.other_mark = self.world.other_mark();
        }
        if entry.exit == Some(Exit::OtherDropped) {
            return entry;
        }
        let (mark, exit) = self.tunnel(explanation, row);
        entry.mark = mark;
        explanation.leaves_by = self.world.exit_of(exit).filter(|_| mark.mask != 0);
        entry
    }

    /// The mark, and the exit that it leads to: those of the policy, unless the tunnel began with others. By the steps of
    /// the programs.
    fn tunnel(&self, explanation: &mut Explanation, row: &Row) -> (Mark, u32) {
        let own = (Mark::of(row), row.exit);
        let class = self.matched.treat_as;
        let Some(live) = self.live else {
            if row.exit != 0 {
                explanation.steps.push(Step::new(
                    "tunnel",
                    "unknown",
                    "a tunnel that is up keeps the exit that it began with: a running agent knows which",
                ));
            }
            return own;
        };
        let mut say = |result: &str, why: String, known: Option<&Tunnel>| {
            explanation.steps.push(Step {
                exit: known.and_then(|tunnel| self.world.exit_of(tunnel.exit)),
                since: known.and_then(|tunnel| live.since(tunnel.began)),
                ..Step::new("tunnel", result, why)
            });
        };
        if !live.keeps_exits() {
            return own;
        }
        let Some(key) = tunnel_key(self.frame, &self.matched.packet) else {
            return own;
        };
        let known = live.tunnels.get(&key);
        let name = |table: u32| match (table, self.world.exit_of(table)) {
            (0, _) => "no exit".to_owned(),
            (_, Some(name)) => format!("exit `{name}`"),
            (table, None) => format!("an exit that is no more (table {table})"),
        };
        if !tunnel::asks(class, live.keep) {
            if row.exit != 0 || known.is_some() {
                let why =
                    "no tunnel may be elsewhere than its policy says: nothing is asked for ESP";
                say("by_policy", why.into(), known);
            }
            return own;
        }
        let begins = begins(self.frame, &self.matched, self.direction);
        let new = tunnel::first(row, class, begins, live.keep, live.now);
        let Some(known) = known else {
            if new.exit != row.exit {
                let why = "it may be older than the exits: it stays without one";
                say("kept", why.into(), None);
            } else if row.exit != 0 {
                let why = format!(
                    "none is known between these two: it begins with {}",
                    name(new.exit)
                );
                say("begins", why, None);
            }
            return (tunnel::mark(&new, row), new.exit);
        };
        let ago = live.ago(known.began);
        if known.exit == row.exit {
            if row.exit != 0 {
                say(
                    "agrees",
                    format!("it began with this exit, {ago}"),
                    Some(known),
                );
            }
            return own;
        }
        if begins {
            let (now, before) = (name(row.exit), name(known.exit));
            say(
                "renewed",
                format!("it begins anew, with {now}; it had {before}, since {ago}"),
                Some(known),
            );
            return own;
        }
        let why = format!(
            "it began with {}, {ago}, and keeps it until it begins anew, whatever the policy says now",
            name(known.exit)
        );
        say("kept", why, Some(known));
        (tunnel::mark(known, row), known.exit)
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
        let mut policies = world.config.policies.iter();
        if world.is_gateway(&subject.origin)
            && policies.any(|policy| policy.exit.is_some() && policy.takes(&subject.endpoint))
        {
            explanation.notes.push(
                "the client is a gateway of an exit: its own traffic is left as it came".into(),
            );
            return Some(gateway_row(tier));
        }
        let (tried, matched) = world.try_policies(&subject);
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
        if row.exit == 0 && exit.is_some() && claim.emergency {
            explanation
                .notes
                .push("the exit blocks now: emergency calls go their own way".into());
        }
        explanation.policy = matched.map(|policy| policy.name.clone());
        explanation.policies = tried;
        Some(row)
    }
}

impl World {
    /// The policies up to the one that matches, and that.
    pub(super) fn try_policies(&self, subject: &Subject) -> (Vec<Tried>, Option<&Policy>) {
        let mut tried = Vec::new();
        for policy in &self.config.policies {
            let result = try_policy(policy, subject);
            let matched = result.matched;
            tried.push(result);
            if matched {
                return (tried, Some(policy));
            }
        }
        (tried, None)
    }

    /// Whether a packet comes from a gateway of an exit.
    pub(super) fn is_gateway(&self, origin: &Origin) -> bool {
        let is_own = |own: &Client| match own {
            Client::Network(net) => origin.address.is_some_and(|address| net.contains(&address)),
            Client::Mac(mac) => origin.mac == Some(*mac),
        };
        self.steering.own.iter().any(is_own)
    }

    /// The name of the exit that has a table.
    pub(super) fn exit_of(&self, table: u32) -> Option<String> {
        let mut exits = self.config.exits.iter();
        let exit = exits.find(|exit| exit.table == table)?;
        Some(exit.name.clone())
    }
}

/// Other IPsec is none of this endpoint's.
fn passes() -> Step {
    Step::new(
        "other_ipsec",
        "passes",
        "it is an endpoint that may pass a firewall: of the authoritative tier, or for emergency calls",
    )
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

//! What is done with a packet that is no match: companions, voice's DSCPs, `catch_all`, other IPsec. As the programs ask for
//! them where clients' packets come in.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use wificall_common::{
    Direction,
    abi::EventKind,
    bleach,
    classify::{Link, network, tunnel_key},
    companion,
    exit::Exit,
    other::{destination, look},
    rewrite::Mark,
    snoop,
};

use super::{
    explain_endpoint::few,
    explain_hooks::Entry,
    explain_live::Live,
    other::Arming,
    policy::{companion_row, row},
    policy_match::{Endpoint, Origin, Reason, Subject},
    world::World,
};
use crate::{
    config::{First, Glob, OtherAction, Policy},
    discover::{Owner, Tier},
    explanation::{Client, Explanation, Step, Tried},
};

/// A packet that is no match, and comes in where clients are.
pub(super) struct Aside<'a> {
    pub world: &'a World,
    /// `None`: no agent was asked.
    pub live: Option<&'a Live>,
    pub arming: Arming,
    pub frame: &'a [u8],
    pub link: Link,
    /// As the classifier left it.
    pub exit: Exit,
}

impl Aside<'_> {
    /// Asks all, and says what is done.
    pub(super) fn act(&self, explanation: &mut Explanation) -> Entry {
        let config = &self.world.config;
        let mut entry = Entry::default();
        if self.world.is_gateway(&origin(&explanation.client)) {
            let why = "the client is a gateway of an exit: its own traffic is left as it came";
            explanation.notes.push(why.into());
            return entry;
        }
        if matches!(self.exit, Exit::OtherProtocol | Exit::OtherPort) {
            entry.mark = self.companion(explanation);
            entry.exit = (entry.mark.mask != 0).then_some(Exit::Companion);
        }
        entry.bleached = config.trust.bleach && bleach::find(self.frame, self.link).is_some();
        if entry.bleached {
            explanation.steps.push(Step::new(
                "bleach",
                "reset",
                "it has a DSCP of voice, to which only matches have a right: it is reset to 0",
            ));
        }
        if !matches!(self.exit, Exit::NotEndpoint | Exit::NewIke) {
            return entry;
        }
        if config.catch_all.enabled {
            let (exit, mark) = self.caught(explanation);
            (entry.exit, entry.mark) = (exit, mark);
        }
        if config.other_ipsec.action != OtherAction::Pass {
            self.other(explanation, &mut entry);
        }
        entry
    }

    fn other(&self, explanation: &mut Explanation, entry: &mut Entry) {
        let (exit, step) = match look(self.frame, self.link) {
            Ok(seen) => self.world.other_step(seen.destination, self.arming),
            Err(_) => {
                let why = "a later fragment has no port to know it by: it passes";
                (None, Step::new("other_ipsec", "passes", why))
            }
        };
        explanation.steps.push(step);
        if exit == Some(Exit::OtherMarked) {
            entry.other_mark = self.world.other_mark();
        }
        // What is not known may still not pass a firewall; else who has caught it counts it.
        if exit == Some(Exit::OtherDropped) || entry.exit.is_none() {
            entry.exit = exit;
        }
    }

    /// The mark of a packet to a companion.
    fn companion(&self, explanation: &mut Explanation) -> Mark {
        let world = self.world;
        if world.config.companions().next().is_none() {
            return Mark::default();
        }
        let Some(to) = companion::find(self.frame, self.link) else {
            return Mark::default();
        };
        let say = |explanation: &mut Explanation, result: &str, why: String| {
            explanation.steps.push(Step::new("companions", result, why));
        };
        let address = Ipv6Addr::from(to.address).to_canonical();
        let known = world.memory.companions().addresses();
        let Some(names) = known.get(&address) else {
            let why = format!("{address} is the address of no companion name");
            say(explanation, "unknown", why);
            return Mark::default();
        };
        let shown = few(names.iter()).join(", ");
        let origin = origin(&explanation.client);
        let mut tried = Vec::new();
        let mut matched = None;
        let naming = world.config.policies.iter();
        for policy in naming {
            if policy.leaves_alone() && policy.origin_mismatch(&origin).is_none() {
                let why = format!(
                    "{address} is of {shown}, and policy {:?} before leaves this client alone",
                    policy.name
                );
                explanation.policies = tried;
                say(explanation, "left_alone", why);
                return Mark::default();
            }
            if policy.companions.is_empty() {
                continue;
            }
            let result = try_companion(policy, names, &origin);
            let is_it = result.matched;
            tried.push(result);
            if is_it {
                matched = Some(policy);
                break;
            }
        }
        explanation.policies = tried;
        let Some(policy) = matched else {
            let why = format!("{address} is of {shown}, for which no policy of this client is");
            say(explanation, "not_for_client", why);
            return Mark::default();
        };
        let row = companion_row(&world.config, policy);
        explanation.policy = Some(policy.name.clone());
        explanation.leaves_by = world.exit_of(row.exit);
        let why = format!("{address} is of {shown}: port 443 takes the client's exit");
        say(explanation, "steered", why);
        Mark::of(&row)
    }

    /// What `catch_all` does: the way out and the mark.
    fn caught(&self, explanation: &mut Explanation) -> (Option<Exit>, Mark) {
        const NOTHING: (Option<Exit>, Mark) = (None, Mark { value: 0, mask: 0 });
        let world = self.world;
        let packet = network(self.frame, self.link).ok();
        let to = packet.and_then(|packet| destination(self.frame, &packet));
        let (Some(packet), Some(to)) = (packet, to) else {
            return NOTHING;
        };
        if let Some(why) = world.sparing(to) {
            explanation
                .steps
                .push(Step::new("catch_all", "spared", why));
            return NOTHING;
        }
        let address = world.plain(Ipv6Addr::from(to).to_canonical());
        let prospect = self.prospect(address, &origin(&explanation.client));
        let kind = EventKind::of_ike(Direction::Up);
        let told = self.exit == Exit::NewIke && snoop::look(self.frame, self.link, kind).is_ok();
        let catch_all = &world.config.catch_all;
        let rate = format!(
            "unless more than {} new addresses come in a second",
            catch_all.per_second
        );
        let mut say = |result: &str, why: String| {
            explanation.steps.push(Step {
                result: result.into(),
                why: format!("{why}\n{}", prospect.why),
                ..prospect.clone()
            });
        };
        if catch_all.first == First::Hold {
            if !told {
                say(
                    "passes",
                    "only the IKE_SA_INIT that begins a tunnel is held: it passes".into(),
                );
                return NOTHING;
            }
            say(
                "held",
                format!(
                    "the first IKE_SA_INIT to {address} in ten minutes is dropped, {rate}: IKE sends it again, \
                     and that one passes"
                ),
            );
            return (Some(Exit::Held), Mark::default());
        }
        let mut exits = world.config.exits.iter();
        let Some(exit) = exits.find(|exit| Some(&exit.name) == catch_all.exit.as_ref()) else {
            return NOTHING;
        };
        let key = tunnel_key(self.frame, &packet);
        let tunnel = self
            .live
            .zip(key)
            .and_then(|(live, key)| Some((live, live.tunnels.get(&key)?)));
        let (result, why, table, mark) = match (tunnel, self.live) {
            (Some((live, tunnel)), _) => (
                "kept",
                format!(
                    "its tunnel began with {}, {}, and keeps it",
                    world
                        .exit_of(tunnel.exit)
                        .unwrap_or_else(|| "no exit".into()),
                    live.ago(tunnel.began)
                ),
                tunnel.exit,
                Mark {
                    value: tunnel.mark,
                    mask: tunnel.mask,
                },
            ),
            (None, _) if told => (
                "caught",
                format!(
                    "a tunnel begins: it takes exit {}, {rate}, and stays there",
                    exit.name
                ),
                exit.table,
                Mark {
                    value: exit.mark.value,
                    mask: exit.mark.mask,
                },
            ),
            (None, Some(_)) => (
                "passes",
                "no tunnel is known that it belongs to, and it begins none: it passes".into(),
                0,
                Mark::default(),
            ),
            (None, None) => (
                "unknown",
                format!(
                    "if its tunnel began with exit {}, it keeps that: a running agent knows",
                    exit.name
                ),
                0,
                Mark::default(),
            ),
        };
        say(result, why);
        explanation.leaves_by = world.exit_of(table).filter(|_| mark.mask != 0);
        ((mark.mask != 0).then_some(Exit::CaughtFirst), mark)
    }

    /// What follows from the country of an address that is no endpoint yet.
    fn prospect(&self, address: IpAddr, origin: &Origin) -> Step {
        let world = self.world;
        let country = world.geo.country(address);
        let mut step = Step {
            country: country.map(|country| country.to_string()),
            ..Step::new("catch_all", "", "")
        };
        let stays = |why: String| format!("{why}: it stays no endpoint");
        if world.filter().check(address).is_err() {
            step.why = stays(format!("{address} is of a kind that is never an endpoint"));
            return step;
        }
        let Some(country) = country else {
            step.why = stays(format!("the GeoIP database has no country of {address}"));
            return step;
        };
        if !world.config.is_for(country) {
            step.why = stays(format!("{address} is in {country}, which no policy is for"));
            return step;
        }
        let owners = BTreeSet::from([Owner {
            plmn: None,
            country: Some(country),
        }]);
        let subject = Subject {
            endpoint: Endpoint {
                owners: &owners,
                names: &BTreeSet::new(),
                emergency: false,
                net: IpNet::from(address),
                tier: Tier::Observed,
            },
            origin: *origin,
        };
        let (_, policy) = world.try_policies(&subject);
        let row = row(&world.config, policy, &subject.endpoint, world.around());
        let wants = policy.is_some_and(|policy| policy.treatment.mark.is_some());
        let lacks = if wants && row.mask == 0 {
            "; without a mark, which [observed] does not give"
        } else {
            ""
        };
        let by = policy.map_or("[defaults]".into(), |policy| {
            format!("policy {:?}", policy.name)
        });
        step.why =
            format!("{address} is in {country}: once it is known as observed, {by} decides{lacks}");
        step.policy = policy.map(|policy| policy.name.clone());
        step
    }
}

fn origin(client: &Client) -> Origin<'_> {
    Origin {
        address: client.address.map(|address| address.0),
        mac: client.mac.map(|mac| mac.0.0),
        interface: client.interface.as_deref(),
    }
}

/// Tries a policy with companions on a client's packet to an address of `names`.
fn try_companion(policy: &Policy, names: &BTreeSet<&str>, origin: &Origin) -> Tried {
    let mut own = policy.companions.iter();
    let named = own.any(|name| names.contains(name.as_str()));
    let mut tried = Tried {
        policy: policy.name.clone(),
        matched: false,
        condition: None,
        wanted: Vec::new(),
        found: Vec::new(),
    };
    if !named {
        tried.condition = Some("companions".into());
        tried.wanted = few(policy.companions.iter());
        tried.found = few(names.iter());
        return tried;
    }
    let Some(reason) = policy.origin_mismatch(origin) else {
        tried.matched = true;
        return tried;
    };
    tried.condition = Some(reason.key().into());
    match reason {
        Reason::Interfaces => {
            tried.wanted = few(policy.interfaces.iter().map(Glob::as_str));
            tried.found = few(origin.interface.iter());
        }
        _ => {
            tried.wanted = few(policy.clients.iter());
            tried.found = few(origin.address.iter());
        }
    }
    tried
}

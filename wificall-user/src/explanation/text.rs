//! An explanation for people.

use std::fmt::Write as _;

use super::{Client, Endpoint, Explanation, Parsed, Treated, Tried, Way};
use crate::export::set::Origin;

impl Explanation {
    /// The text of `wificall explain`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |title: &str, body: &str| {
            let mut lines = body.lines();
            let _ = writeln!(text, "{title:<10} {}", lines.next().unwrap_or_default());
            for further in lines {
                let _ = writeln!(text, "{:<10} {further}", "");
            }
        };
        line("Packet", &packet(&self.parsed));
        if let Some(way) = self.direction {
            line("Direction", direction(way));
        }
        if let Some(endpoint) = &self.endpoint {
            line("Endpoint", &endpoint_text(endpoint));
        }
        let verdict = match (&self.class, &self.treated_as) {
            (Some(class), Some(treated)) if class != treated => {
                format!("it matches: {class}, treated as {treated}")
            }
            (Some(class), _) => format!("it matches: {class}"),
            (None, _) => format!("no match ({}): {}", self.exit, self.why),
        };
        line("Verdict", &verdict);
        if self.matches || !self.policies.is_empty() {
            let client = client(&self.client);
            if !client.is_empty() {
                line("Client", &client);
            }
            line("Policy", &self.policies());
        }
        for step in &self.steps {
            line(title(&step.part), &step.why);
        }
        if let Some(exit) = &self.leaves_by {
            line("Exit", &self.exit(exit));
        }
        line("Result", &self.hooks());
        if self.origin == Origin::Offline {
            line(
                "Note",
                "from the configuration and the state on disk: no agent was asked",
            );
        }
        for note in &self.notes {
            line("Note", note);
        }
        for hint in &self.hints {
            line("Hint", hint);
        }
        text
    }

    fn policies(&self) -> String {
        let mut lines: Vec<String> = self
            .policies
            .iter()
            .filter(|tried| !tried.matched)
            .map(|tried| format!("not {:?}: {}", tried.policy, why_not(tried)))
            .collect();
        lines.push(match &self.policy {
            Some(name) => format!("{name:?} matches"),
            None if !self.matches => "none matches".to_owned(),
            None if self.policies.is_empty() => "there are none: [defaults] applies".to_owned(),
            None => "none matches: [defaults] applies".to_owned(),
        });
        lines.join("\n")
    }

    /// The exit, and which way it takes.
    fn exit(&self, name: &str) -> String {
        if self.ways.is_empty() {
            return format!("{name}: which gateway is in use is not known without an agent");
        }
        let ways = self.ways.iter().map(|way| {
            let family = match way.family.as_str() {
                "ipv4" => "IPv4",
                "ipv6" => "IPv6",
                other => other,
            };
            match (way.state.as_str(), &way.gateway) {
                ("block", _) => {
                    format!("{family} is blocked: no gateway is up, its traffic is refused")
                }
                (_, Some(gateway)) => {
                    let mut gateways = way.gateways.iter();
                    let state = gateways
                        .find(|it| it.gateway == *gateway)
                        .map_or("unknown", |it| &it.state);
                    format!("{family} by {gateway} ({state})")
                }
                (_, None) => format!("{family} direct: it goes the box's own way"),
            }
        });
        format!("{name}: {}", ways.collect::<Vec<_>>().join("; "))
    }

    fn hooks(&self) -> String {
        let is_nothing = |done: &Treated| done.exit == self.exit && changes(done).is_empty();
        if !self.matches && self.hooks.iter().all(is_nothing) {
            return "it passes untouched".to_owned();
        }
        if self.hooks.is_empty() {
            return "nothing: no program sees it".to_owned();
        }
        let lines = self.hooks.iter().map(|done| {
            // What goes without saying.
            let usual = [self.exit.as_str(), "by_xdp", "dropped"];
            let counted = match done.exit.as_str() {
                exit if usual.contains(&exit) => String::new(),
                exit => format!(" (counted as {exit})"),
            };
            let mut changes = changes(done);
            if changes.is_empty() {
                changes.push("nothing is changed".to_owned());
            }
            changes.extend(done.cap.map(|cap| {
                format!(
                    "neither DSCP nor priority of voice beyond {cap} packets a second of a client"
                )
            }));
            let changes = changes.join(", ");
            format!("{} {}: {changes}{counted}", done.interface, done.hook)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// What the part of the configuration is called that a step is about.
fn title(part: &str) -> &str {
    match part {
        "tunnel" => "Tunnel",
        "companions" => "Companion",
        "bleach" => "Bleach",
        "catch_all" => "Catch-all",
        "other_ipsec" => "Other",
        other => other,
    }
}

/// What a hook changes of a packet.
fn changes(done: &Treated) -> Vec<String> {
    if done.dropped {
        return vec!["dropped".to_owned()];
    }
    let mut parts = Vec::new();
    parts.extend(done.dscp.map(|dscp| format!("DSCP {}", dscp_name(dscp))));
    parts.extend(done.mark.as_ref().map(|mark| format!("mark {mark}")));
    let priority = done.priority;
    parts.extend(priority.map(|priority| format!("priority {priority}")));
    parts
}

fn packet(parsed: &Parsed) -> String {
    let mut parts = Vec::new();
    let mut link = format!("{} bytes, ", parsed.frame_bytes);
    link += match parsed.link {
        super::LinkName::Ethernet => "Ethernet",
        super::LinkName::Bare => "no link header",
    };
    if let (Some(source), Some(destination)) = (&parsed.source_mac, &parsed.destination_mac)
        && (source.0.0, destination.0.0) != ([0; 6], [0; 6])
    {
        let _ = write!(link, " {} → {}", source.0, destination.0);
    }
    parts.push(link);
    parts.extend(parsed.vlans.iter().map(|id| format!("VLAN {id}")));
    parts.extend(
        parsed
            .pppoe_session
            .map(|session| format!("PPPoE session {session}")),
    );
    let Some(version) = parsed.ip_version else {
        parts.extend(
            parsed
                .ethertype
                .map(|ethertype| format!("EtherType {ethertype:#06x}")),
        );
        return parts.join(", ");
    };
    let mut text = parts.join(", ");
    let _ = write!(text, "\nIPv{version}");
    if let (Some(source), Some(destination)) = (&parsed.source, &parsed.destination) {
        let _ = write!(text, " {} → {}", source.0, destination.0);
    }
    if let Some(bytes) = parsed.ip_bytes {
        let _ = write!(text, ", {bytes} bytes");
    }
    if let (Some(dscp), Some(ecn)) = (parsed.dscp, parsed.ecn) {
        let _ = write!(text, ", DSCP {}, ECN {ecn}", dscp_name(dscp));
    }
    if parsed.ipv4_options > 0 {
        let _ = write!(text, ", {} bytes of options", parsed.ipv4_options);
    }
    if !parsed.extensions.is_empty() {
        let _ = write!(
            text,
            ", extension headers: {}",
            parsed.extensions.join(", ")
        );
    }
    if let Some(fragment) = parsed.fragment {
        let more = if fragment.more { ", more follow" } else { "" };
        let _ = write!(
            text,
            ", fragment at {} of datagram {}{more}",
            fragment.offset, fragment.id
        );
    }
    if let Some(protocol) = parsed.protocol {
        let _ = write!(text, "\n{}", protocol_name(protocol));
    }
    if let (Some(source), Some(destination)) = (parsed.source_port, parsed.destination_port) {
        let _ = write!(text, " {source} → {destination}");
    }
    if let Some(payload) = &parsed.payload {
        let _ = write!(text, ": {payload}");
    }
    text
}

fn direction(way: Way) -> &'static str {
    match way {
        Way::Up => "up: its destination is the far end",
        Way::Down => "down: its source is the far end",
    }
}

fn endpoint_text(endpoint: &Endpoint) -> String {
    let mut text = String::new();
    if let Some(address) = &endpoint.address {
        let _ = write!(text, "{} ", address.0);
    }
    let _ = match endpoint.found_as.as_str() {
        "host" => write!(text, "is an endpoint by itself"),
        found_as => write!(
            text,
            "is an endpoint by the {found_as} {}",
            endpoint.network
        ),
    };
    if let Some(tier) = &endpoint.tier {
        let _ = write!(text, ", {tier}");
    }
    let or_none = |values: &[String]| match values {
        [] => "none known".to_owned(),
        values => values.join(", "),
    };
    let _ = write!(text, "\noperators: {}", or_none(&endpoint.operators));
    let _ = write!(text, "; countries: {}", or_none(&endpoint.countries));
    if let Some(geoip) = &endpoint.geoip {
        let _ = write!(text, "; by address (GeoIP): {geoip}");
    }
    if !endpoint.names.is_empty() {
        let _ = write!(text, "\nnames: {}", endpoint.names.join(", "));
    }
    if endpoint.found_as != "host" && !endpoint.addresses.is_empty() {
        let _ = write!(text, "\nknown there: {}", endpoint.addresses.join(", "));
    }
    if !endpoint.sources.is_empty() {
        let _ = write!(text, "\nknown by: {}", endpoint.sources.join(", "));
    }
    if endpoint.emergency {
        text += "\nphones ask for it to make emergency calls";
    }
    text
}

fn client(client: &Client) -> String {
    let mut parts = Vec::new();
    parts.extend(client.address.map(|address| address.0.to_string()));
    parts.extend(client.mac.map(|mac| mac.0.to_string()));
    parts.extend(client.interface.as_ref().map(|name| format!("at {name}")));
    parts.join(", ")
}

/// Why a policy did not match.
fn why_not(tried: &Tried) -> String {
    let wanted = tried.wanted.join(", ");
    let found = tried.found.join(", ");
    let known = !tried.found.is_empty();
    let condition = tried.condition.as_deref().unwrap_or_default();
    match (condition, known) {
        ("operators" | "countries", false) => {
            format!("it is for {condition} {wanted}, and the endpoint's are not known")
        }
        ("operators" | "countries", true) => {
            format!("it is for {condition} {wanted}, and the endpoint's are {found}")
        }
        ("operators and countries", _) => {
            format!(
                "it is for operators and countries {wanted} of one owner, and the endpoint has {found}"
            )
        }
        ("names", false) => format!("it is for names {wanted}, and the endpoint is known by none"),
        ("names", true) => format!("it is for names {wanted}, and the endpoint's are {found}"),
        ("emergency", _) if wanted == "true" => {
            "it is for emergency calls, and the endpoint is not for them alone".to_owned()
        }
        ("emergency", _) => "it is not for emergency calls, and the endpoint is".to_owned(),
        ("prefixes", _) => format!("it is for prefixes {wanted}, and {found} is in none"),
        ("tiers", _) => format!("it is for the tiers {wanted}, and the endpoint is {found}"),
        ("clients", false) => format!("it is for clients {wanted}, and the client is not known"),
        ("clients", true) => format!("it is for clients {wanted}, and this one is {found}"),
        ("interfaces", false) => format!(
            "it is for interfaces {wanted}, and the packet's is not known: give --interface"
        ),
        ("interfaces", true) => format!("it is for interfaces {wanted}, and this is {found}"),
        ("companions", _) => {
            format!("its companion names are {wanted}, and the address is of {found}")
        }
        ("drop", _) => "it drops, and emergency calls are not dropped".to_owned(),
        (other, _) => format!("{other}: {wanted}, not {found}"),
    }
}

/// A DSCP with its name, if it has one (RFC 2474, RFC 2597, RFC 3246, RFC 5865).
fn dscp_name(dscp: u8) -> String {
    match dscp {
        46 => "46 (EF)".to_owned(),
        44 => "44 (VA)".to_owned(),
        _ if dscp.is_multiple_of(8) && dscp > 0 => format!("{dscp} (CS{})", dscp / 8),
        10..=38 if dscp.is_multiple_of(2) && dscp / 8 <= 4 && !dscp.is_multiple_of(8) => {
            format!("{dscp} (AF{}{})", dscp / 8, dscp % 8 / 2)
        }
        _ => dscp.to_string(),
    }
}

/// A protocol with its name, if it is one of the usual ones.
pub(crate) fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        47 => "GRE".to_owned(),
        50 => "ESP".to_owned(),
        51 => "AH".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;

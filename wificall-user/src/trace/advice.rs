//! What a step that does not come means, and what to try.

use serde::Serialize;

/// The answer to "how do I test it".
pub const GUIDE: &str = "\
To test Wi-Fi calling: join a phone whose carrier has it to this box's Wi-Fi, with Wi-Fi calling on in its settings.
Then, on the phone: airplane mode on, and Wi-Fi alone on again. Each step is printed as it is seen here. Ctrl-C ends.
";

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// DNS's answer.
    DnsAnswer,
    /// An answer of DNS with an address, after one without.
    DnsAddress,
    /// The phone's IKE_SA_INIT, now that it has addresses.
    Init,
    /// The reply to IKE_SA_INIT.
    InitAnswer,
    /// The same again in another way, as the ePDG has asked for: with a cookie, of another group, elsewhere.
    Detour,
    /// Another try, after a refusal.
    Refused,
    /// IKE_AUTH, on port 4500 where there is a NAT.
    Auth,
    /// The reply to IKE_AUTH.
    AuthAnswer,
    /// The end of the authentication, and ESP.
    Esp,
    /// ESP from the phone, while the ePDG's is seen.
    EspUp,
    /// ESP from the ePDG, while the phone's is seen.
    EspDown,
}

/// What is put into an advice; what is empty is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The phone's address.
    pub client: &'a str,
    /// The ePDG's.
    pub endpoint: &'a str,
    /// The name that the phone has asked DNS for.
    pub name: &'a str,
}

/// What a stall means, and what to try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What does not come.
    pub missing: &'static str,
    /// What that may mean.
    pub means: &'static str,
    /// What to try, in this order. `{client}`, `{endpoint}` and `{name}` were put in.
    pub tries: Vec<String>,
}

impl Wait {
    /// What to say of it, with the addresses put in.
    #[must_use]
    pub fn advice(self, about: About<'_>) -> Advice {
        let (missing, means, tries): (_, _, &[&str]) = match self {
            Self::DnsAnswer => (
                "the answer of DNS",
                "The phone asks for its ePDG, and nobody answers: its resolver does not, or the answer does not come back through this box.",
                &[
                    "ask that resolver for another name from the phone's network: if that is not answered either, it is down or filtered (UDP 53)",
                    "`wificall resolve` asks this box's own resolvers: if those answer, give phones one of them by DHCP",
                ],
            ),
            Self::DnsAddress => (
                "an answer of DNS that has an address",
                "The phone's resolver answers, and has no address for the ePDG: a DNS filter takes it away, or the carrier publishes none under this name, or none of the phone's family (A for IPv4, AAAA for IPv6).",
                &[
                    "`wificall resolve {name}` asks this box's own resolvers: if those have addresses, the phone's resolver filters them: exempt `3gppnetwork.org` there, or give phones another resolver by DHCP",
                    "if those have none either: the carrier has no ePDG of this name; look whether it is the SIM's carrier, and whether it offers Wi-Fi calling",
                    "if those have IPv4 addresses only, or IPv6 only: give the phone an address of that family",
                ],
            ),
            Self::Init => (
                "IKE_SA_INIT to one of the addresses",
                "The phone knows its ePDG and does not begin: it has chosen not to, or what it sends is not seen as Wi-Fi calling.",
                &[
                    "airplane mode on, then Wi-Fi alone: with a cell most phones stay there; then look at its settings: Wi-Fi calling on, emergency address given",
                    "`wificall explain {client} ADDRESS udp 500 500` with an address of the answer: whether it is an endpoint here",
                ],
            ),
            Self::InitAnswer => (
                "the reply to IKE_SA_INIT",
                "The phone asks and nobody answers: UDP 500 is blocked behind this box or on the way back, or the carrier does not answer from here.",
                &[
                    "`wificall probe {endpoint}` asks from this box: if that is answered, this box's own firewall is in the way (forwarding of UDP 500 and 4500)",
                    "`wificall explain {client} {endpoint} udp 500 500`: by which exit it leaves; a silent one may be the wrong country for this carrier",
                    "if nothing answers by any exit: UDP 500 is blocked upstream, or the carrier ignores addresses like yours",
                ],
            ),
            Self::Detour => (
                "the try that the ePDG has asked for",
                "The ePDG has answered, and wants the same once more in another way, as is usual; the phone does not go on: that answer may not have reached it, or where it was sent to is none of the known endpoints, so not seen here.",
                &[
                    "look whether the answer leaves towards the phone: `tcpdump -ni INTERFACE host {client} and udp port 500`",
                    "after REDIRECT, look where the phone goes on: `tcpdump -ni INTERFACE udp and host {client}`, and `wificall explain {client} ADDRESS udp 500 500`",
                    "`wificall probe {endpoint}` goes the same way from this box, and says how it ends",
                ],
            ),
            Self::Refused => (
                "a try that is not refused",
                "The ePDG answers and refuses: packets get there and back, so this network is not to blame.",
                &[
                    "restart the phone and update its carrier settings",
                    "`wificall probe {endpoint}` shows what the ePDG agrees to, and whether it refuses this box as well",
                    "if other exits are configured: some carriers refuse addresses of other countries",
                ],
            ),
            Self::Auth => (
                "IKE_AUTH",
                "The ePDG has answered, and the phone does not go on: the reply may not have reached it, or UDP 4500 is blocked between the phone and this box.",
                &[
                    "look for a firewall or client isolation between the phone and this box that lets UDP 500 through and not 4500",
                    "look whether the reply leaves towards the phone: `tcpdump -ni INTERFACE host {client} and udp port 500`",
                ],
            ),
            Self::AuthAnswer => (
                "the reply to IKE_AUTH",
                "IKE_SA_INIT was answered and IKE_AUTH is not: UDP 4500 is blocked behind this box, or large packets are lost (IKE_AUTH is often fragmented), or the carrier does not answer this SIM.",
                &[
                    "`wificall probe {endpoint}`: if it is answered on port 500 and not on 4500, UDP 4500 is blocked",
                    "look for what drops fragments, and at the MTU of the uplink",
                    "try the SIM in another Wi-Fi: if it fails there too, Wi-Fi calling may not be provisioned for it",
                ],
            ),
            Self::Esp => (
                "ESP",
                "IKE_AUTH was answered, and no tunnel follows. Most likely the ePDG has refused the SIM, which is encrypted, so not seen here; or EAP waits for the phone's SIM or the carrier's network, which may yet answer.",
                &[
                    "try the SIM in another Wi-Fi: if it fails there too, Wi-Fi calling is not provisioned for it: ask the carrier",
                    "if it works elsewhere: some carriers refuse by the country of the address: another exit",
                ],
            ),
            Self::EspUp => (
                "ESP from the phone",
                "The ePDG sends into the tunnel and the phone does not: its packets are lost before this box, or it does not use the tunnel.",
                &[
                    "look for a firewall between the phone and this box that lets IKE through and not ESP (IP protocol 50, or UDP 4500 with large packets)",
                    "airplane mode on and off once more",
                ],
            ),
            Self::EspDown => (
                "ESP from the ePDG",
                "The phone sends into the tunnel and nothing comes back: what returns is blocked behind this box, or the phone's packets are.",
                &[
                    "look for a firewall or NAT that lets replies to IKE through and not ESP: IP protocol 50 where there is no NAT, UDP 4500 where there is one",
                    "look at the MTU of the uplink and for lost fragments",
                    "`wificall explain {endpoint} {client} esp --direction down`: what this box does with it",
                ],
            ),
        };
        let put = |text: &&str| {
            let or = |value: &str, name: &str| match value {
                "" => name.to_owned(),
                value => value.to_owned(),
            };
            text.replace("{client}", &or(about.client, "CLIENT"))
                .replace("{endpoint}", &or(about.endpoint, "ADDRESS"))
                .replace("{name}", &or(about.name, "NAME"))
        };
        Advice {
            missing,
            means,
            tries: tries.iter().map(put).collect(),
        }
    }
}

/// What a refusal says, by the notify's name, where more can be said.
#[must_use]
pub fn refused(notify: &str) -> Option<&'static str> {
    Some(match notify {
        "NO_PROPOSAL_CHOSEN" => {
            "the ePDG takes none of the phone's algorithms: its carrier settings are old, or not this carrier's"
        }
        "INVALID_KE_PAYLOAD" => "the ePDG wants another group: the phone asks again with it",
        "COOKIE" => {
            "the ePDG is under load or attack, and wants to see the phone twice: it asks again"
        }
        "REDIRECT" => "the ePDG sends the phone to another one",
        "TEMPORARY_FAILURE" | "CONGESTION" => "the ePDG is overloaded: try later",
        "PLMN_NOT_ALLOWED" => {
            "the carrier does not allow Wi-Fi calling from this network or country"
        }
        _ => return None,
    })
}

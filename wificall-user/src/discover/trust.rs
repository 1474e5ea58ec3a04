//! Trust decides privilege: what may be done to the packets of an endpoint, by how it became known.
//!
//! This is the only place that says so. Whoever compiles a policy for an endpoint asks
//! [`Observed::allows`], and a test goes through every source and every action.
//!
//! An endpoint has the tier of its best source, and its owners are those that its best sources
//! name: what is less trusted adds nothing to what is trusted more. So a client that has its own
//! DNS answers forged can neither relabel nor reroute the endpoints of the configured operators.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// How far an endpoint is trusted. Ordered: more is greater.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Somebody on the access side, or on the way to a resolver, could have made it up.
    Observed,
    /// A client asked for the name, and our own resolver said what addresses it has.
    Corroborated,
    /// The administrator or the catalogue vouches for the name or the address.
    Authoritative,
}

impl Tier {
    /// All, the least trusted first.
    pub const ALL: [Self; 3] = [Self::Observed, Self::Corroborated, Self::Authoritative];

    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Corroborated => "corroborated",
            Self::Authoritative => "authoritative",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How an endpoint became known. An endpoint may have several sources.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A `[[prefix]]` of the configuration.
    Static,
    /// An address that the catalogue has.
    Catalogue,
    /// Our own resolver's answer for a name that the configuration selects.
    Resolver,
    /// Our own resolver's answer for a name that was seen from a client.
    Confirmed,
    /// An answer that a client got, not confirmed.
    Client,
    /// An IKE_SA_INIT that was answered.
    Ike,
    /// A client's IKE_SA_INIT, to an address in a country that a policy is for (`catch_all`).
    Caught,
}

impl Source {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Static,
        Self::Catalogue,
        Self::Resolver,
        Self::Confirmed,
        Self::Client,
        Self::Ike,
        Self::Caught,
    ];

    /// How far an endpoint of this source alone is trusted.
    #[must_use]
    pub const fn tier(self) -> Tier {
        match self {
            Self::Static | Self::Catalogue | Self::Resolver => Tier::Authoritative,
            Self::Confirmed => Tier::Corroborated,
            Self::Client | Self::Ike | Self::Caught => Tier::Observed,
        }
    }

    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Catalogue => "catalogue",
            Self::Resolver => "resolver",
            Self::Confirmed => "confirmed",
            Self::Client => "client",
            Self::Ike => "ike",
            Self::Caught => "caught",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is done to the packets of an endpoint.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Set the DSCP.
    Dscp,
    /// Set the priority.
    Priority,
    /// Set a mark.
    Mark,
    /// Set a mark by which a route is chosen.
    Route,
    /// Set a mark by which a firewall lets packets pass that it would otherwise stop.
    FirewallPassage,
}

impl Action {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Dscp,
        Self::Priority,
        Self::Mark,
        Self::Route,
        Self::FirewallPassage,
    ];
}

/// `[observed]`: what the least trusted tier gets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Whether it gets the DSCP of its policy.
    pub dscp: bool,
    /// Whether it gets the priority of its policy.
    pub priority: bool,
    /// Whether it gets the mark of its policy, and with it the route that goes by that mark.
    pub mark: bool,
    /// Packets a second of one client in one direction that get DSCP and priority; `None`: all.
    pub cap: Option<NonZeroU32>,
    /// How long an endpoint stays without being observed again or answering.
    pub keep: Duration,
    /// How long one may stay at all, and how long it is then not observed again.
    pub longest: Duration,
}

/// Two calls and their signalling: a call is 50 packets a second each way (20 ms frames), so 100;
/// the rest is for what accompanies calls: registering and call set-up (SIP in the tunnel, some
/// tens of packets), RTCP, IKE, and frames that jitter bunched together.
const CAP: NonZeroU32 = NonZeroU32::new(150).unwrap();

impl Default for Observed {
    fn default() -> Self {
        Self {
            dscp: true,
            priority: true,
            mark: false,
            cap: Some(CAP),
            keep: Duration::from_secs(10 * 60),
            longest: Duration::from_secs(4 * 3600),
        }
    }
}

impl Observed {
    /// Whether an endpoint of this tier may have this done to its packets.
    #[must_use]
    pub const fn allows(&self, tier: Tier, action: Action) -> bool {
        match (tier, action) {
            (Tier::Authoritative, _) => true,
            (
                Tier::Corroborated,
                Action::Dscp | Action::Priority | Action::Mark | Action::Route,
            ) => true,
            (Tier::Observed, Action::Dscp) => self.dscp,
            (Tier::Observed, Action::Priority) => self.priority,
            (Tier::Observed, Action::Mark | Action::Route) => self.mark,
            (Tier::Observed | Tier::Corroborated, Action::FirewallPassage) => false,
        }
    }

    /// Packets a second that DSCP and priority of this tier are limited to, by client and
    /// direction.
    #[must_use]
    pub const fn cap(&self, tier: Tier) -> Option<NonZeroU32> {
        match tier {
            Tier::Observed => self.cap,
            Tier::Corroborated | Tier::Authoritative => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By source, then action, in the order of `ALL`: by the defaults, and with everything that
    /// the configuration can give the observed tier.
    #[test]
    fn source_by_action() {
        const YES: bool = true;
        const NO: bool = false;
        let table: [(Source, [bool; 5], [bool; 5]); 7] = [
            (Source::Static, [YES; 5], [YES; 5]),
            (Source::Catalogue, [YES; 5], [YES; 5]),
            (Source::Resolver, [YES; 5], [YES; 5]),
            (
                Source::Confirmed,
                [YES, YES, YES, YES, NO],
                [YES, YES, YES, YES, NO],
            ),
            (
                Source::Client,
                [YES, YES, NO, NO, NO],
                [YES, YES, YES, YES, NO],
            ),
            (
                Source::Ike,
                [YES, YES, NO, NO, NO],
                [YES, YES, YES, YES, NO],
            ),
            (
                Source::Caught,
                [YES, YES, NO, NO, NO],
                [YES, YES, YES, YES, NO],
            ),
        ];
        let by_default = Observed::default();
        let generous = Observed {
            mark: true,
            ..by_default
        };
        let mean = Observed {
            dscp: false,
            priority: false,
            ..by_default
        };
        assert_eq!(table.map(|(source, ..)| source), Source::ALL);
        for (source, expected, at_most) in table {
            let tier = source.tier();
            let allowed =
                |observed: &Observed| Action::ALL.map(|action| observed.allows(tier, action));
            assert_eq!(allowed(&by_default), expected, "{source}");
            assert_eq!(allowed(&generous), at_most, "{source}");
            let nothing = tier == Tier::Observed;
            assert_eq!(allowed(&mean).contains(&true), !nothing, "{source}");
            let capped = (tier == Tier::Observed).then_some(CAP);
            assert_eq!(by_default.cap(tier), capped, "{source}");
        }
    }

    #[test]
    fn more_trust_is_never_less_privilege() {
        for observed in [
            Observed::default(),
            Observed {
                mark: true,
                ..Observed::default()
            },
        ] {
            for action in Action::ALL {
                let allowed = Tier::ALL.map(|tier| observed.allows(tier, action));
                assert!(allowed.is_sorted(), "{action:?}: {allowed:?}");
            }
        }
    }
}

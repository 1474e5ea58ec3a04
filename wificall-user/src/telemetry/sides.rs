//! On whose side trouble is, by what can be seen from here: this network's, the way to the carrier, or the carrier.
//!
//! What comes from beyond the box is the way's where it meets all carriers, and a carrier's where others do well. With one
//! carrier in sight nobody can tell these apart, and that is said.

use std::collections::{BTreeMap, BTreeSet};

use wificall_common::flow::Milestone;

use super::view::{Cause, Minute, Received, Side, Sides, Trouble, Voice};

/// Minutes that count.
pub const MINUTES: usize = 5;
/// Loss from which a call is heard to suffer, and from which it is bad, in per cent.
const LOSS: [f64; 2] = [1.0, 3.0];

/// What a tunnel says for or against a side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Whose endpoint it is.
    pub owner: String,
    /// Whether it is up.
    pub works: bool,
    /// Why its set-up failed lately, and what was waited for.
    pub failed: Option<(Cause, Option<Milestone>)>,
    /// What is heard of the call that goes on.
    pub voice: Option<Voice>,
    /// What of that call came from the network, or of one that ended in the minutes that count.
    pub network_to_us: Received,
    /// Whether this host's NAT forgets it between two keepalives.
    pub nat_timeout_shorter: bool,
}

/// What speaks for trouble beyond the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Loss,
    OneWay,
    NoAnswer,
    NoAuth,
    NoEsp,
}

impl Sign {
    const fn words(self) -> &'static str {
        match self {
            Self::Loss => "packets of calls are lost before they come here",
            Self::OneWay => "calls in which nothing comes from the network",
            Self::NoAnswer => "IKE_SA_INIT that is not answered",
            Self::NoAuth => "authentication that does not end",
            Self::NoEsp => "tunnels without ESP from the ePDG",
        }
    }
}

/// Judges the sides by the last minutes of calls and what tunnels say.
#[must_use]
pub fn judge(minutes: &[Minute], tunnels: &[Evidence]) -> Sides {
    let last = &minutes[minutes.len().saturating_sub(MINUTES)..];
    let sum = |of: fn(&Minute) -> Received| {
        let all = last.iter().map(of);
        all.fold(Received::default(), |sum, one| {
            Received::new(sum.received + one.received, sum.lost + one.lost)
        })
    };
    let mut sides = Sides {
        client: client(sum(|minute| minute.client_to_us), tunnels),
        ..Sides::default()
    };
    beyond(&mut sides, sum(|minute| minute.network_to_us), tunnels);
    sides
}

/// The side of the phones.
fn client(loss: Received, tunnels: &[Evidence]) -> Side {
    let mut side = Side::default();
    if loss.received > 0 || tunnels.iter().any(|tunnel| tunnel.works) {
        side.note(Trouble::None);
    }
    if let Some((trouble, percent)) = of_loss(loss) {
        side.say(
            trouble,
            format!(
                "{percent:.1} % of what phones sent in calls did not come here, in {MINUTES} min"
            ),
        );
    }
    let mut count = |trouble, words: &str, is: &dyn Fn(&Evidence) -> bool| {
        let many = tunnels.iter().filter(|tunnel| is(tunnel)).count();
        if many > 0 {
            side.say(trouble, format!("{many} × {words}"));
        }
    };
    count(
        Trouble::Bad,
        "a call in which nothing comes from the phone",
        &|tunnel| tunnel.voice == Some(Voice::OneWayDown),
    );
    count(
        Trouble::Some,
        "a phone that was answered and did not go on: the answer may not reach it",
        &|tunnel| tunnel.failed == Some((Cause::AuthenticationStalled, Some(Milestone::AuthSent))),
    );
    count(
        Trouble::Some,
        "a tunnel without ESP from the phone",
        &|tunnel| tunnel.failed == Some((Cause::EspMissing, Some(Milestone::EspUp))),
    );
    count(
        Trouble::Some,
        "a tunnel that this box's NAT forgets between two keepalives: calls to that phone do not arrive",
        &|tunnel| tunnel.nat_timeout_shorter,
    );
    side
}

/// The way to the carriers, and the carriers.
fn beyond(sides: &mut Sides, loss: Received, tunnels: &[Evidence]) {
    if loss.received > 0 {
        sides.network.note(Trouble::None);
    }
    let mut working: BTreeSet<&str> = BTreeSet::new();
    let mut signs: BTreeMap<Sign, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
    for tunnel in tunnels {
        let owner = tunnel.owner.as_str();
        if tunnel.works {
            working.insert(owner);
        }
        if tunnel
            .failed
            .is_some_and(|(cause, _)| cause == Cause::Refused)
        {
            *refused.entry(owner).or_default() += 1;
        }
        for sign in signs_of(tunnel) {
            *signs.entry(sign).or_default().entry(owner).or_default() += 1;
        }
    }
    if !working.is_empty() {
        sides.network.note(Trouble::None);
        sides.carrier.note(Trouble::None);
    }
    for (owner, many) in refused {
        let trouble = how_bad(&working, owner);
        let words = format!("{owner}: {many} × refused (packets get there and back)");
        sides.carrier.say(trouble, words);
    }
    if let Some((trouble, percent)) = of_loss(loss) {
        let words = format!(
            "{percent:.1} % of what the network sent in calls did not come here, in {MINUTES} min"
        );
        sides.network.say(trouble, words);
    }
    for (sign, owners) in signs {
        let words = sign.words();
        let fine = |owner: &&str| !owners.contains_key(*owner);
        let others = working.iter().copied().filter(|owner| fine(owner));
        let others: Vec<_> = others.collect();
        for (owner, many) in &owners {
            let trouble = how_bad(&working, owner);
            if !others.is_empty() {
                let why = format!("{owner}: {many} × {words}, not with {}", others.join(", "));
                sides.carrier.say(trouble, why);
            } else if sign != Sign::Loss {
                let trouble = if sign == Sign::OneWay {
                    Trouble::Bad
                } else {
                    trouble
                };
                sides
                    .network
                    .say(trouble, format!("{owner}: {many} × {words}"));
            }
        }
        if let ([owner], true) = (&owners.keys().collect::<Vec<_>>()[..], others.is_empty()) {
            let why =
                format!("perhaps {owner}: {words}; no other carrier is in use to compare with");
            sides.carrier.say(Trouble::Some, why);
        }
    }
}

/// Where phones of the same carrier do well, what fails is less than all.
fn how_bad(working: &BTreeSet<&str>, owner: &str) -> Trouble {
    if working.contains(owner) {
        Trouble::Some
    } else {
        Trouble::Bad
    }
}

fn signs_of(tunnel: &Evidence) -> Vec<Sign> {
    let mut signs = Vec::new();
    if of_loss(tunnel.network_to_us).is_some() {
        signs.push(Sign::Loss);
    }
    if tunnel.voice == Some(Voice::OneWayUp) {
        signs.push(Sign::OneWay);
    }
    match tunnel.failed {
        Some((Cause::NoAnswer, _)) => signs.push(Sign::NoAnswer),
        Some((Cause::AuthenticationStalled, next)) if next != Some(Milestone::AuthSent) => {
            signs.push(Sign::NoAuth);
        }
        Some((Cause::EspMissing, next)) if next != Some(Milestone::EspUp) => {
            signs.push(Sign::NoEsp);
        }
        _ => {}
    }
    signs
}

fn of_loss(received: Received) -> Option<(Trouble, f64)> {
    let percent = received.loss_percent?;
    let [some, bad] = LOSS;
    if percent >= bad {
        Some((Trouble::Bad, percent))
    } else if percent >= some {
        Some((Trouble::Some, percent))
    } else {
        None
    }
}

impl Side {
    fn note(&mut self, trouble: Trouble) {
        self.trouble = self.trouble.max(trouble);
    }

    fn say(&mut self, trouble: Trouble, why: String) {
        self.note(trouble);
        self.why.push(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(owner: &str) -> Evidence {
        Evidence {
            owner: owner.into(),
            works: true,
            ..Evidence::default()
        }
    }

    fn failed(owner: &str, cause: Cause, next: Milestone) -> Evidence {
        Evidence {
            owner: owner.into(),
            failed: Some((cause, Some(next))),
            ..Evidence::default()
        }
    }

    fn troubles(minutes: &[Minute], tunnels: &[Evidence]) -> [Trouble; 3] {
        let sides = judge(minutes, tunnels);
        [sides.client, sides.network, sides.carrier].map(|side| {
            let explained = !side.why.is_empty();
            assert_eq!(explained, side.trouble >= Trouble::Some, "{side:?}");
            side.trouble
        })
    }

    #[test]
    fn nothing_seen_is_not_all_well() {
        assert_eq!(troubles(&[], &[]), [Trouble::Unknown; 3]);
        assert_eq!(troubles(&[], &[up("A")]), [Trouble::None; 3]);
    }

    #[test]
    fn loss_is_the_sides_that_it_was_seen_on() {
        let minute = |up, down| Minute {
            client_to_us: Received::new(1_000, up),
            network_to_us: Received::new(1_000, down),
            ..Minute::default()
        };
        let tunnels = [up("A"), up("B")];
        let one = [minute(50, 0)];
        assert_eq!(
            troubles(&one, &tunnels),
            [Trouble::Bad, Trouble::None, Trouble::None]
        );
        let one = [minute(0, 15)];
        assert_eq!(
            troubles(&one, &tunnels),
            [Trouble::None, Trouble::Some, Trouble::None]
        );
        // What is long over counts no more.
        let mut minutes = vec![minute(500, 500)];
        minutes.extend(vec![minute(0, 0); MINUTES]);
        assert_eq!(troubles(&minutes, &tunnels), [Trouble::None; 3]);
    }

    #[test]
    fn what_meets_one_carrier_of_several_is_that_carriers() {
        let silent = failed("A", Cause::NoAnswer, Milestone::InitAnswered);
        let both = [silent.clone(), up("B")];
        assert_eq!(
            troubles(&[], &both),
            [Trouble::None, Trouble::None, Trouble::Bad]
        );
        let sides = judge(&[], &both);
        assert_eq!(
            sides.carrier.why,
            ["A: 1 × IKE_SA_INIT that is not answered, not with B"]
        );
        // All of them: it is the way there.
        let other = failed("B", Cause::NoAnswer, Milestone::InitAnswered);
        assert_eq!(
            troubles(&[], &[silent.clone(), other]),
            [Trouble::Unknown, Trouble::Bad, Trouble::Unknown]
        );
        // One alone: nobody can tell, which is said.
        let sides = judge(&[], &[silent]);
        assert_eq!(sides.network.trouble, Trouble::Bad);
        assert_eq!(sides.carrier.trouble, Trouble::Some);
        assert!(
            sides.carrier.why[0].contains("no other carrier"),
            "{sides:?}"
        );
    }

    #[test]
    fn each_cause_has_its_side() {
        let by = |cause, next| troubles(&[], &[failed("A", cause, next), up("A"), up("B")]);
        let [none, some] = [Trouble::None, Trouble::Some];
        for (cause, next, expected) in [
            (Cause::Refused, Milestone::InitAnswered, [none, none, some]),
            (
                Cause::AuthenticationStalled,
                Milestone::AuthSent,
                [some, none, none],
            ),
            (
                Cause::AuthenticationStalled,
                Milestone::AuthAnswered,
                [none, none, some],
            ),
            (Cause::EspMissing, Milestone::EspUp, [some, none, none]),
            (Cause::EspMissing, Milestone::EspDown, [none, none, some]),
        ] {
            assert_eq!(by(cause, next), expected, "{cause:?} {next:?}");
        }
        let call = |voice| Evidence {
            voice: Some(voice),
            ..up("A")
        };
        assert_eq!(troubles(&[], &[call(Voice::OneWayDown)])[0], Trouble::Bad);
        assert_eq!(troubles(&[], &[call(Voice::OneWayUp)])[1], Trouble::Bad);
        let forgotten = Evidence {
            nat_timeout_shorter: true,
            ..up("A")
        };
        assert_eq!(troubles(&[], &[forgotten]), [some, none, none]);
    }
}

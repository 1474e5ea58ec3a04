//! A set-up: how far it has come, where it stalls, how it ended.

use wificall_common::{
    abi::{Control, MILESTONES},
    flow::Milestone,
};

use super::{notify, view::Cause};

/// Silence after which a set-up is over, in nanoseconds: phones send a request again after 0.5, 1, 2, 4 and 8 s (AOSP
/// defaults), and give up.
pub const PATIENCE: u64 = 30_000_000_000;
/// A refusal in clear may be forged (RFC 7296 §2.21.1): the set-up may go on for so long after it, in nanoseconds.
const REFUSED_AFTER: u64 = 3_000_000_000;
/// EAP-AKA takes three IKE_AUTH exchanges (3GPP TS 33.402 §8.2.2): identity, challenge, AUTH. Fewer is no success.
const AUTH_RESPONSES: u16 = 3;

/// How a set-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// ESP came from both ends.
    Ok,
    /// It was asked to go on in another way, and may have: neither a success nor a failure.
    Detour,
    /// It came to nothing.
    Failed(Cause),
}

impl Outcome {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::Detour,
        Self::Failed(Cause::NoAnswer),
        Self::Failed(Cause::Refused),
        Self::Failed(Cause::AuthenticationStalled),
        Self::Failed(Cause::EspMissing),
    ];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Detour => "detour",
            Self::Failed(cause) => cause.name(),
        }
    }
}

/// A set-up. Times are nanoseconds of the monotonic clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setup {
    /// SPI of the IKE SA's initiator.
    pub spi_i: [u8; 8],
    /// When it began.
    pub began: u64,
    /// When each milestone was reached.
    pub reached: [Option<u64>; MILESTONES],
    /// When something of it was seen last.
    pub seen: u64,
    /// The phone's port in the question, if that was seen.
    pub asked_from: Option<u16>,
    /// The last notify in clear; 0: none.
    pub notify: u16,
    /// When that came.
    pub notified: u64,
    /// IKE_AUTH responses.
    pub auth_responses: u16,
    /// Whether a request of the phone waits for its response.
    pub waits: bool,
    /// Requests that were sent again.
    pub retransmitted: u32,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

impl Setup {
    /// One of which only the question was seen, from this port of the phone's.
    #[must_use]
    pub fn asked(spi_i: [u8; 8], port: u16, now: u64) -> Self {
        let mut setup = Self {
            spi_i,
            asked_from: Some(port),
            began: now,
            seen: now,
            waits: true,
            ..Self::default()
        };
        setup.reach(Milestone::InitSent, now);
        setup
    }

    /// Whether IKE messages of a flow tell of a set-up: of a tunnel that is older they do not.
    #[must_use]
    pub fn is_told_by(control: &Control) -> bool {
        let of_setup = Milestone::InitSent.bit()
            | Milestone::InitAnswered.bit()
            | Milestone::AuthSent.bit()
            | Milestone::AuthAnswered.bit();
        control.milestones & of_setup != 0
    }

    /// When it was reached.
    #[must_use]
    pub fn at(&self, milestone: Milestone) -> Option<u64> {
        self.reached[milestone as usize]
    }

    /// Notes that a milestone was reached; whether that is new.
    pub(super) fn reach(&mut self, milestone: Milestone, at: u64) -> bool {
        let known = &mut self.reached[milestone as usize];
        let is_new = known.is_none();
        if known.is_none_or(|known| at < known) {
            *known = Some(at);
        }
        is_new
    }

    /// Takes in what a flow of it tells, whose last IKE message was seen at `seen`; the milestones that are new.
    pub fn take(&mut self, control: &Control, seen: u64) -> Vec<Milestone> {
        let mut new = Vec::new();
        let at = |milestone: Milestone| {
            control.began + u64::from(control.reached[milestone as usize]) * 1_000
        };
        let has = |milestone: Milestone| control.milestones & milestone.bit() != 0;
        if self.spi_i == [0; 8] {
            self.spi_i = control.spi_i;
            self.began = control.began;
        }
        for milestone in Milestone::ALL {
            if has(milestone) && self.reach(milestone, at(milestone)) {
                new.push(milestone);
            }
        }
        if has(Milestone::InitSent) {
            self.began = self.began.min(control.began);
        }
        if control.notify != 0 && control.notify != self.notify {
            self.notified = seen;
        }
        // Flows without a word of IKE_SA_INIT say nothing of its notify.
        if has(Milestone::InitSent) {
            self.notify = control.notify;
        }
        self.auth_responses = self.auth_responses.max(control.auth_responses);
        self.retransmitted = self
            .retransmitted
            .max(control.retransmitted.map(u32::from).into_iter().sum());
        self.waits = control.requests[0].at != 0;
        self.seen = self.seen.max(seen);
        new
    }

    /// Notes ESP that a flow has carried whose own milestones are of a set-up before. At most a second too late.
    pub fn carries(&mut self, milestone: Milestone, at: u64) -> bool {
        self.at(Milestone::AuthAnswered).is_some()
            && self.at(milestone).is_none()
            && self.reach(milestone, at)
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn judge(&self, now: u64) -> Option<Outcome> {
        let quiet = now.saturating_sub(self.seen);
        let answered = self.at(Milestone::InitAnswered).is_some()
            || self.at(Milestone::AuthAnswered).is_some();
        if self.at(Milestone::EspUp).is_some() && self.at(Milestone::EspDown).is_some() {
            return Some(Outcome::Ok);
        }
        let refused = self.notify != 0 && !answered;
        if refused
            && !notify::is_detour(self.notify)
            && now.saturating_sub(self.notified.max(self.seen)) >= REFUSED_AFTER
        {
            return Some(Outcome::Failed(Cause::Refused));
        }
        (quiet >= PATIENCE).then(|| self.failed())
    }

    /// How it ended if nothing follows.
    #[must_use]
    pub fn failed(&self) -> Outcome {
        let has = |milestone| self.at(milestone).is_some();
        if !has(Milestone::InitAnswered) && !has(Milestone::AuthAnswered) {
            return match self.notify {
                0 if has(Milestone::AuthSent) => Outcome::Failed(Cause::AuthenticationStalled),
                0 => Outcome::Failed(Cause::NoAnswer),
                notify::REDIRECT => Outcome::Detour,
                _ => Outcome::Failed(Cause::Refused),
            };
        }
        let authenticated = has(Milestone::EspUp)
            || has(Milestone::EspDown)
            || (self.auth_responses >= AUTH_RESPONSES && !self.waits);
        Outcome::Failed(if authenticated {
            Cause::EspMissing
        } else {
            Cause::AuthenticationStalled
        })
    }

    /// How it ended if its phone has begun another one.
    #[must_use]
    pub fn superseded(&self) -> Outcome {
        let answered = self.at(Milestone::InitAnswered).is_some();
        if !answered && notify::is_detour(self.notify) {
            return Outcome::Detour;
        }
        self.failed()
    }

    /// The milestone that is waited for; `None` if all were reached. Native ESP and IKE that stays on port 500 have no
    /// [`Natt`](Milestone::Natt).
    #[must_use]
    pub fn next(&self) -> Option<Milestone> {
        let last = (0..MILESTONES).rev().find(|n| self.reached[*n].is_some());
        let mut missing = Milestone::ALL
            .into_iter()
            .filter(|milestone| self.at(*milestone).is_none())
            .filter(|milestone| *milestone != Milestone::Natt);
        missing.find(|milestone| {
            // What was passed by has been, unseen; ESP comes in either order.
            let number = *milestone as usize;
            number >= Milestone::EspUp as usize || last.is_none_or(|last| number > last)
        })
    }

    /// When ESP had come from both ends.
    #[must_use]
    pub fn up(&self) -> Option<u64> {
        let up = self.at(Milestone::EspUp)?;
        let down = self.at(Milestone::EspDown)?;
        Some(up.max(down))
    }

    /// From the first question to ESP both ways, in nanoseconds.
    #[must_use]
    pub fn took(&self) -> Option<u64> {
        self.at(Milestone::InitSent)?;
        Some(self.up()?.saturating_sub(self.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Milestone::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_000 * SECOND;

    fn control(reached: &[(Milestone, u32)]) -> Control {
        let mut control = Control {
            began: START,
            spi_i: [1; 8],
            ..Control::default()
        };
        for (milestone, ms) in reached {
            control.milestones |= milestone.bit();
            control.reached[*milestone as usize] = ms * 1_000;
        }
        control
    }

    fn after(control: &Control) -> Setup {
        let mut setup = Setup::default();
        let _ = setup.take(control, START);
        setup
    }

    #[test]
    fn a_question_without_an_answer_is_no_answer_when_patience_ends() {
        let setup = Setup::asked([1; 8], 500, START);
        assert_eq!(setup.judge(START + PATIENCE - 1), None);
        assert_eq!(setup.next(), Some(InitAnswered));
        assert_eq!(
            setup.judge(START + PATIENCE),
            Some(Outcome::Failed(Cause::NoAnswer))
        );
    }

    #[test]
    fn two_flows_make_one_set_up() {
        let mut setup = after(&control(&[(InitSent, 0), (InitAnswered, 40)]));
        // Port 4500: its first packet, IKE_AUTH, is where it began.
        let second = Control {
            began: START + SECOND / 10,
            ..control(&[
                (Natt, 0),
                (AuthSent, 0),
                (AuthAnswered, 20),
                (EspUp, 300),
                (EspDown, 350),
            ])
        };
        let new = setup.take(&second, START + SECOND);
        assert_eq!(new, [Natt, AuthSent, AuthAnswered, EspUp, EspDown]);
        let at = Milestone::ALL.map(|milestone| setup.at(milestone).unwrap() - START);
        assert_eq!(
            at.map(|ns| ns / 1_000_000),
            [0, 40, 100, 100, 120, 400, 450]
        );
        assert_eq!(setup.judge(START), Some(Outcome::Ok));
        assert_eq!(setup.took(), Some(450_000_000));
        assert_eq!(setup.next(), None);
    }

    #[test]
    fn a_refusal_counts_when_nothing_follows_it() {
        let refused = Control {
            notify: 14,
            ..control(&[(InitSent, 0)])
        };
        let mut setup = after(&refused);
        assert_eq!(setup.judge(START + SECOND), None);
        let outcome = Some(Outcome::Failed(Cause::Refused));
        assert_eq!(setup.judge(START + 3 * SECOND), outcome);
        // It was forged: the true answer came too.
        let _ = setup.take(&control(&[(InitSent, 0), (InitAnswered, 50)]), START);
        assert_eq!(setup.judge(START + 3 * SECOND), None);
    }

    #[test]
    fn a_detour_that_is_taken_is_no_failure() {
        for notify in [notify::COOKIE, notify::INVALID_KE_PAYLOAD, notify::REDIRECT] {
            let asked = Control {
                notify,
                ..control(&[(InitSent, 0)])
            };
            let setup = after(&asked);
            assert_eq!(setup.superseded(), Outcome::Detour);
            assert_eq!(setup.judge(START + 4 * SECOND), None, "it may yet go on");
        }
        let cookie = Control {
            notify: notify::COOKIE,
            ..control(&[(InitSent, 0)])
        };
        assert_eq!(after(&cookie).failed(), Outcome::Failed(Cause::Refused));
    }

    #[test]
    fn authentication_that_stalls_is_told_from_esp_that_is_missing() {
        let mut stalled = control(&[(InitSent, 0), (InitAnswered, 9), (AuthSent, 20)]);
        assert_eq!(after(&stalled).next(), Some(AuthAnswered));
        let is = |control: &Control, cause| {
            let outcome = after(control).judge(START + PATIENCE);
            assert_eq!(outcome, Some(Outcome::Failed(cause)));
        };
        is(&stalled, Cause::AuthenticationStalled);
        stalled.milestones |= AuthAnswered.bit();
        stalled.auth_responses = 1;
        is(&stalled, Cause::AuthenticationStalled);
        stalled.auth_responses = 3;
        is(&stalled, Cause::EspMissing);
        stalled.requests[0].at = START;
        is(&stalled, Cause::AuthenticationStalled);
        stalled.milestones |= EspUp.bit();
        is(&stalled, Cause::EspMissing);
    }

    #[test]
    fn a_tunnel_that_is_older_tells_of_no_set_up() {
        assert!(!Setup::is_told_by(&control(&[
            (Natt, 0),
            (EspUp, 1),
            (EspDown, 2)
        ])));
        assert!(Setup::is_told_by(&control(&[(AuthAnswered, 0)])));
    }
}

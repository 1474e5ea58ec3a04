//! Calls, suspected from the rhythm and size of ESP packets: once a second, what came in both directions.

use std::collections::VecDeque;

use super::{
    leg::Leg,
    mos::{self, Conditions},
    view::Voice,
};

const SECOND: u64 = 1_000_000_000;

/// A direction with so many intervals of 20 ms in a second talks: a fifth of a talker's 50, so that loss and pauses between
/// words do not end it.
const TALKS: f64 = 10.0;
/// No call has more packets of a voice frame's size in a second: 50, and as many again after a dropout.
const VOICE_MOST: f64 = 120.0;
/// Of a call's packets so many at least have a voice frame's size; the rest is signalling.
const VOICE_SHARE: f64 = 0.6;
/// A direction with so many packets of that size is heard: comfort noise is 6.25 a second (3GPP TS 26.193).
const HEARD: f64 = 2.0;
/// Seconds of talking that make a call.
const BEGINS: u32 = 3;
/// Silence of both directions that ends one, in nanoseconds.
const ENDS: u64 = 8 * SECOND;
/// One direction talks and the other sends nothing for so long, in nanoseconds: then it is told.
pub const ONE_WAY: u64 = 5 * SECOND;
/// Comfort noise of both for so long, likewise.
const SILENT: u64 = 2 * SECOND;
/// Seconds of a call that are kept.
const HISTORY: usize = 120;

/// A second, or about one, of both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// When it ended, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// How long it was, in nanoseconds.
    pub length: u64,
    /// What came of it, from the phone and to it.
    pub legs: [Leg; 2],
}

/// A call. Times are nanoseconds of the monotonic clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// When it began.
    pub began: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// What is heard, or was last.
    pub voice: Voice,
    /// What came, from the phone and to it.
    pub legs: [Leg; 2],
    /// Jitter of both directions, in nanoseconds; 0: nobody talked.
    pub jitter: [u32; 2],
    /// The last seconds.
    pub history: VecDeque<Look>,
    /// When something was heard last.
    heard: u64,
    /// Since when each direction sends nothing while the other talks.
    mute: [Option<u64>; 2],
    /// Since when nobody talks.
    hush: Option<u64>,
}

/// What has happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has begun.
    Began,
    /// What is heard of it has changed.
    Changed,
    /// It has ended.
    Ended,
}

/// Looks for a call in what a tunnel carries. Most tunnels have none, and it is small then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detector {
    /// What may become one.
    begins: Option<Box<Beginning>>,
    /// The call that goes on.
    pub call: Option<Box<Call>>,
}

/// A call that has not lasted long enough to be one.
#[derive(Clone, Debug, Default, PartialEq)]
struct Beginning {
    /// Looks in a row with somebody talking.
    talking: u32,
    /// When they began.
    first: Option<u64>,
    /// What they saw.
    pending: [Leg; 2],
    /// What came before anybody looked each second.
    prelude: [Leg; 2],
    history: VecDeque<Look>,
}

/// What a direction does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Talk,
    Hum,
    /// Something that is no voice.
    Other,
    Nothing,
}

fn does(leg: &Leg, length: u64) -> Does {
    #[expect(clippy::cast_precision_loss, reason = "rates of a second")]
    let rate = |count: u64| count as f64 * SECOND as f64 / length.max(1) as f64;
    let voice = rate(leg.voice);
    if leg.received == 0 {
        Does::Nothing
    } else if voice > VOICE_MOST || voice < VOICE_SHARE * rate(leg.received) {
        Does::Other
    } else if rate(leg.talk) >= TALKS {
        Does::Talk
    } else if voice >= HEARD {
        Does::Hum
    } else {
        Does::Other
    }
}

impl Detector {
    /// Whether a look each second is worth it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let talks = |begins: &Beginning| begins.talking > 0;
        self.call.is_some() || self.begins.as_deref().is_some_and(talks)
    }

    /// Takes in what came while nobody looked each second: if a call is about to begin, its first packets are among it.
    pub fn before(&mut self, legs: [Leg; 2]) {
        if let Some(call) = &mut self.call {
            for (sum, leg) in call.legs.iter_mut().zip(&legs) {
                sum.add(leg);
            }
            return;
        }
        self.begins = None;
        // A direction in which nobody talks does not belong to a call.
        if legs.iter().any(|leg| leg.talk > 0) {
            let begins = self.begins.get_or_insert_default();
            begins.prelude = legs;
        }
    }

    /// Takes a look in. `jitter` is that of both directions, in nanoseconds.
    pub fn look(&mut self, look: Look, jitter: [u32; 2]) -> Option<Turn> {
        let does = look.legs.map(|leg| does(&leg, look.length));
        let talks = does.contains(&Does::Talk);
        let Some(call) = &mut self.call else {
            return self.wait(look, talks, jitter);
        };
        call.take(look, jitter);
        if talks || does.contains(&Does::Hum) {
            call.heard = look.at;
        }
        if look.at.saturating_sub(call.heard) >= ENDS {
            return Some(Turn::Ended);
        }
        call.listen(look, does).then_some(Turn::Changed)
    }

    /// While there is no call.
    fn wait(&mut self, look: Look, talks: bool, jitter: [u32; 2]) -> Option<Turn> {
        if !talks {
            self.begins = None;
            return None;
        }
        let begins = self.begins.get_or_insert_default();
        begins.talking += 1;
        begins
            .first
            .get_or_insert(look.at.saturating_sub(look.length));
        for (sum, leg) in begins.pending.iter_mut().zip(&look.legs) {
            sum.add(leg);
        }
        begins.history.push_back(look);
        if begins.talking < BEGINS {
            return None;
        }
        let begins = *self.begins.take()?;
        let mut legs = begins.pending;
        for (sum, leg) in legs.iter_mut().zip(&begins.prelude) {
            if leg.talk > 0 {
                sum.add(leg);
            }
        }
        self.call = Some(Box::new(Call {
            began: begins.first.unwrap_or(look.at),
            ended: None,
            voice: Voice::Talking,
            legs,
            jitter,
            history: begins.history,
            heard: look.at,
            mute: [None; 2],
            hush: None,
        }));
        Some(Turn::Began)
    }

    /// The call is over, or its tunnel is.
    pub fn end(&mut self) -> Option<Call> {
        self.begins = None;
        let mut call = *self.call.take()?;
        call.ended = Some(call.heard);
        Some(call)
    }
}

impl Call {
    fn take(&mut self, look: Look, jitter: [u32; 2]) {
        for (sum, leg) in self.legs.iter_mut().zip(&look.legs) {
            sum.add(leg);
        }
        self.jitter = jitter;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(look);
    }

    /// What is heard; whether that has changed.
    fn listen(&mut self, look: Look, does: [Does; 2]) -> bool {
        let began = look.at.saturating_sub(look.length);
        for (way, mute) in self.mute.iter_mut().enumerate() {
            let alone = does[way] == Does::Nothing && does[way ^ 1] == Does::Talk;
            *mute = alone.then(|| mute.unwrap_or(began));
        }
        let hush = !does.contains(&Does::Talk) && does.contains(&Does::Hum);
        self.hush = hush.then(|| self.hush.unwrap_or(began));
        let lasts = |since: Option<u64>, long| since.is_some_and(|since| look.at - since >= long);
        let voice = if lasts(self.mute[0], ONE_WAY) {
            Voice::OneWayDown
        } else if lasts(self.mute[1], ONE_WAY) {
            Voice::OneWayUp
        } else if lasts(self.hush, SILENT) {
            Voice::Silent
        } else if !does.contains(&Does::Talk) || does.contains(&Does::Nothing) {
            // Not for long enough yet to be anything else than before.
            return false;
        } else {
            Voice::Talking
        };
        std::mem::replace(&mut self.voice, voice) != voice
    }

    /// How long it has lasted, in nanoseconds.
    #[must_use]
    pub fn lasted(&self, now: u64) -> u64 {
        self.ended.unwrap_or(now).saturating_sub(self.began)
    }

    /// The estimated mean opinion score, or why there is none. Round trips are those of the client's side and the network's,
    /// in microseconds, 0: unknown.
    ///
    /// # Errors
    ///
    /// What is missing, for people.
    pub fn mos(&self, round_trips: [u32; 2]) -> Result<f64, &'static str> {
        if self.legs.iter().any(|leg| leg.received == 0) {
            return Err("one direction is not seen");
        }
        if matches!(self.voice, Voice::OneWayUp | Voice::OneWayDown) {
            return Err("one direction is not heard");
        }
        if round_trips == [0; 2] {
            return Err("no round trip is known");
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let loss = |leg: &Leg| {
            let missing = leg.missing.max(0) as f64;
            missing / (missing + leg.received as f64)
        };
        let worse = |values: [f64; 2]| values[0].max(values[1]);
        Ok(mos::estimate(Conditions {
            loss: worse(self.legs.each_ref().map(loss)),
            round_trip_ms: round_trips.map(f64::from).iter().sum::<f64>() / 1e3,
            jitter_ms: worse(self.jitter.map(|jitter| f64::from(jitter) / 1e6)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALK: Leg = leg(50, 50, 49, 0);
    const HUM: Leg = leg(6, 6, 0, 6);
    const NOTHING: Leg = leg(0, 0, 0, 0);
    /// A download: full packets, and acknowledgements of a voice frame's size.
    const FULL: Leg = leg(800, 0, 0, 0);
    const ACKS: Leg = leg(400, 400, 399, 0);

    const fn leg(received: u64, voice: u64, talk: u64, pause: u64) -> Leg {
        Leg {
            packets: received,
            bytes: received * 144,
            received,
            missing: 0,
            lost: 0,
            late: 0,
            duplicate: 0,
            stray: 0,
            voice,
            talk,
            pause,
        }
    }

    /// Looks at seconds one after the other; what has happened, with the second.
    fn run(detector: &mut Detector, from: u64, legs: &[([Leg; 2], u64)]) -> Vec<(u64, Turn)> {
        let mut turns = Vec::new();
        let mut now = from;
        for (legs, times) in legs {
            for _ in 0..*times {
                now += 1;
                let look = Look {
                    at: now * SECOND,
                    length: SECOND,
                    legs: *legs,
                };
                if let Some(turn) = detector.look(look, [0; 2]) {
                    turns.push((now, turn));
                }
            }
        }
        turns
    }

    #[test]
    fn three_seconds_of_talk_are_a_call_and_eight_of_nothing_its_end() {
        let mut detector = Detector::default();
        let turns = run(
            &mut detector,
            100,
            &[([NOTHING; 2], 5), ([TALK, HUM], 10), ([NOTHING; 2], 20)][..2],
        );
        assert_eq!(turns, [(108, Turn::Began)]);
        let turns = run(&mut detector, 115, &[([NOTHING; 2], 8)]);
        assert_eq!(turns, [(123, Turn::Ended)]);
        let call = detector.end().unwrap();
        assert_eq!(call.began / SECOND, 105);
        assert_eq!(call.ended, Some(115 * SECOND));
        assert_eq!(call.legs[0].received, 500, "also before it was one");
        assert_eq!(call.lasted(999 * SECOND), 10 * SECOND);
    }

    #[test]
    fn a_short_burst_and_a_download_are_no_calls() {
        let mut detector = Detector::default();
        let looks = [
            ([TALK, NOTHING], 2),
            ([NOTHING; 2], 1),
            ([ACKS, FULL], 30),
            ([HUM; 2], 30),
        ];
        assert_eq!(run(&mut detector, 0, &looks), []);
        assert!(!detector.is_busy());
    }

    #[test]
    fn a_gap_of_seconds_does_not_end_a_call() {
        let mut detector = Detector::default();
        let looks = [([TALK, HUM], 5), ([NOTHING; 2], 7), ([HUM, TALK], 5)];
        let turns = run(&mut detector, 0, &looks);
        assert!(
            !turns.iter().any(|(_, turn)| *turn == Turn::Ended),
            "{turns:?}"
        );
    }

    #[test]
    fn one_direction_that_sends_nothing_for_five_seconds_is_one_way() {
        for (legs, voice) in [
            ([TALK, NOTHING], Voice::OneWayUp),
            ([NOTHING, TALK], Voice::OneWayDown),
        ] {
            let mut detector = Detector::default();
            let turns = run(&mut detector, 0, &[([TALK, HUM], 5), (legs, 6)]);
            assert_eq!(turns, [(3, Turn::Began), (10, Turn::Changed)]);
            assert_eq!(detector.call.as_ref().unwrap().voice, voice);
            // Comfort noise is enough to be heard.
            let turns = run(&mut detector, 11, &[([TALK, HUM], 1)]);
            assert_eq!(turns, [(12, Turn::Changed)]);
            assert_eq!(detector.call.unwrap().voice, Voice::Talking);
        }
    }

    #[test]
    fn a_listener_who_hums_is_not_one_way_and_two_are_silent() {
        let mut detector = Detector::default();
        let looks = [([TALK, HUM], 60), ([HUM, HUM], 3)];
        let turns = run(&mut detector, 0, &looks);
        assert_eq!(turns, [(3, Turn::Began), (62, Turn::Changed)]);
        assert_eq!(detector.call.unwrap().voice, Voice::Silent);
    }

    #[test]
    fn no_score_is_given_of_what_is_not_seen() {
        let mut detector = Detector::default();
        let _ = run(&mut detector, 0, &[([TALK, NOTHING], 5)]);
        let call = detector.call.take().unwrap();
        assert_eq!(call.mos([1, 1]), Err("one direction is not seen"));
        let _ = run(&mut detector, 0, &[([TALK; 2], 5)]);
        let call = detector.call.unwrap();
        assert_eq!(call.mos([0; 2]), Err("no round trip is known"));
        assert!(call.mos([20_000, 30_000]).unwrap() > 4.0);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut detector = Detector::default();
        let _ = run(&mut detector, 0, &[([TALK; 2], 1_000)]);
        assert_eq!(detector.call.unwrap().history.len(), HISTORY);
    }
}

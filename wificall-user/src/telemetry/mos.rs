//! What a call may sound like: the E-model (ITU-T G.107), in its wideband form (G.107.1), for a codec that is assumed.
//!
//! What is assumed: AMR-WB at 12.65 kbit/s, one frame of 20 ms a packet, loss at random, no echo, default noise and levels.
//! Loss and jitter beyond this box are not seen, so the estimate is an upper bound.

/// Basic signal-to-noise ratio of wideband speech with all parameters at their defaults (G.107.1 §7.2).
const R0: f64 = 129.0;
/// Equipment impairment of AMR-WB at 12.65 kbit/s, on the wideband scale (G.113 Appendix IV).
const IE: f64 = 13.0;
/// Its packet-loss robustness, likewise.
const BPL: f64 = 4.3;
/// What G.107.1 calls 95 in Ie,eff: the most that loss impairs.
const IE_MOST: f64 = 95.0;
/// From the wideband scale to that of G.107 (G.107.1 Annex A).
const WIDEBAND: f64 = 1.29;
/// Coding (frame and look-ahead of AMR-WB, 3GPP TS 26.190), in milliseconds.
const CODING: f64 = 25.0;
/// The least that a jitter buffer holds, in milliseconds: two frames.
const BUFFER: f64 = 40.0;

/// What is known of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Loss of the direction that is worse, 0 to 1.
    pub loss: f64,
    /// Round trips to both ends together, in milliseconds.
    pub round_trip_ms: f64,
    /// Jitter of the direction that is worse, in milliseconds.
    pub jitter_ms: f64,
}

/// The estimated mean opinion score, 1 to 4.5.
#[must_use]
pub fn estimate(conditions: Conditions) -> f64 {
    let buffer = BUFFER.max(2.0 * conditions.jitter_ms);
    let delay = conditions.round_trip_ms / 2.0 + buffer + CODING;
    let r = R0 - delay_impairment(delay) - loss_impairment(IE, BPL, conditions.loss);
    score(r / WIDEBAND)
}

/// Idd: impairment by too long an absolute delay, in milliseconds, with sT = 1 and mT = 100 (G.107 §7.4, equation 7-27).
fn delay_impairment(delay: f64) -> f64 {
    if delay <= 100.0 {
        return 0.0;
    }
    let x = (delay / 100.0).log2();
    let part = |x: f64| (1.0 + x.powi(6)).powf(1.0 / 6.0);
    25.0 * (part(x) - 3.0 * part(x / 3.0) + 2.0)
}

/// Ie,eff: effective equipment impairment by random loss, 0 to 1 (G.107 §7.5, equation 7-29, BurstR = 1).
fn loss_impairment(ie: f64, bpl: f64, loss: f64) -> f64 {
    let percent = loss * 100.0;
    ie + (IE_MOST - ie) * percent / (percent + bpl)
}

/// MOS of a rating R (G.107 Annex B, equation B-4).
fn score(r: f64) -> f64 {
    if r <= 0.0 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is_near(value: f64, expected: f64, within: f64) {
        assert!(
            (value - expected).abs() <= within,
            "{value}, not {expected}"
        );
    }

    #[test]
    fn ratings_have_the_scores_of_table_b1() {
        // G.107 Table B.1: the lower limits of its categories. 93.2 is R with all defaults.
        for (r, mos) in [
            (90.0, 4.34),
            (80.0, 4.03),
            (70.0, 3.60),
            (60.0, 3.10),
            (50.0, 2.58),
            (93.2, 4.41),
        ] {
            is_near(score(r), mos, 0.01);
        }
        is_near(score(-3.0), 1.0, 0.0);
        is_near(score(110.0), 4.5, 0.0);
    }

    #[test]
    fn delay_costs_what_equation_7_27_says() {
        is_near(delay_impairment(100.0), 0.0, 0.0);
        is_near(delay_impairment(150.0), 0.16, 0.01);
        is_near(delay_impairment(400.0), 24.07, 0.02);
    }

    #[test]
    fn loss_costs_what_equation_7_29_says() {
        // G.729A with VAD: Ie 11, Bpl 19 (G.113 Appendix I).
        is_near(loss_impairment(11.0, 19.0, 0.0), 11.0, 1e-9);
        is_near(loss_impairment(11.0, 19.0, 0.02), 19.0, 1e-9);
        is_near(loss_impairment(0.0, 25.1, 0.05), 15.78, 0.01);
    }

    #[test]
    fn a_clean_call_is_good_and_a_lossy_one_bad() {
        let clean = Conditions {
            loss: 0.0,
            round_trip_ms: 40.0,
            jitter_ms: 2.0,
        };
        is_near(estimate(clean), 4.34, 0.01);
        let lossy = estimate(Conditions {
            loss: 0.05,
            ..clean
        });
        let late = estimate(Conditions {
            round_trip_ms: 800.0,
            ..clean
        });
        assert!((2.0..3.2).contains(&lossy), "{lossy}");
        assert!((3.0..4.0).contains(&late), "{late}");
    }
}

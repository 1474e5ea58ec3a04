//! An analysis as text.

use std::fmt::Write as _;

use super::report::{Analysis, FlowReport, Leg};
use crate::export::rfc3339;
use crate::telemetry::view::{Call, State, Step, Tunnel};
use crate::top::words;

/// Gaps of a tunnel that are shown; JSON has all.
const GAPS_SHOWN: usize = 20;
/// Lines of the timeline likewise.
const EVENTS_SHOWN: usize = 200;
const MS_PER_S: u64 = 1_000;

/// A line; writing to a string cannot fail.
macro_rules! line {
    ($out:expr) => { $out.push('\n') };
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

impl Analysis {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.head(&mut out);
        for (index, tunnel) in self.tunnels.iter().enumerate() {
            self.tunnel(&mut out, index + 1, tunnel);
        }
        self.timeline(&mut out);
        out
    }

    /// After the first frame, as `+12.345`.
    fn after(&self, at: u64) -> String {
        let after = at.saturating_sub(self.first.unwrap_or(at));
        format!("+{}.{:03}", after / MS_PER_S, after % MS_PER_S)
    }

    fn head(&self, out: &mut String) {
        let _ = write!(out, "{} frames", self.frames);
        if let (Some(first), Some(last)) = (self.first, self.last) {
            let long = last.saturating_sub(first);
            let _ = write!(
                out,
                ", from {} on, {}.{:03} s",
                rfc3339(first / MS_PER_S),
                long / MS_PER_S,
                long % MS_PER_S
            );
        }
        line!(out);
        if let Some(stopped) = &self.stopped {
            line!(out, "stopped: {stopped}");
        }
        for note in &self.notes {
            line!(out, "note: {note}");
        }
        if !self.matched.is_empty() {
            line!(out, "\n{:<12}{:>10}{:>10}", "packets", "up", "down");
            for (class, both) in &self.matched {
                line!(
                    out,
                    "{class:<12}{:>10}{:>10}",
                    both.up.packets,
                    both.down.packets
                );
            }
        }
        let other: u64 = self.other.values().sum();
        if other > 0 {
            line!(out, "{:<12}{other:>10}", "other");
        }
        if !self.endpoints.is_empty() {
            line!(out, "\nendpoints");
        }
        for endpoint in &self.endpoints {
            let mut owners = endpoint.owners.join(" ");
            if !owners.is_empty() {
                owners.insert_str(0, ", ");
            }
            line!(
                out,
                "  {:<40} {:>8} packets, {}{owners}",
                endpoint.address,
                endpoint.packets,
                endpoint.source.text()
            );
        }
    }

    fn tunnel(&self, out: &mut String, number: usize, tunnel: &Tunnel) {
        let whose = match tunnel.operator.as_str() {
            "" | "unknown" => String::new(),
            operator => format!(" ({operator})"),
        };
        line!(
            out,
            "\ntunnel {number}: {} to {}{whose}: {} since {}",
            tunnel.client,
            tunnel.endpoint,
            tunnel.state.name(),
            self.after(tunnel.since)
        );
        self.setup(out, tunnel);
        sides(out, tunnel);
        let flows: Vec<&FlowReport> = self.flows_of(tunnel).collect();
        line!(
            out,
            "  {:<14}{:>9}{:>7}{:>8}{:>6}{:>6}{:>7}{:>10}{:>10}",
            "half-leg",
            "ESP",
            "lost",
            "loss",
            "late",
            "twice",
            "stray",
            "anchored",
            "jitter"
        );
        let legs = |of: fn(&FlowReport) -> &Leg| sum(flows.iter().map(|flow| of(flow)));
        leg(out, "client to us", &legs(|flow| &flow.client_to_us));
        leg(out, "network to us", &legs(|flow| &flow.network_to_us));
        for (index, call) in tunnel.calls.iter().rev().enumerate() {
            self.call(out, index + 1, call);
        }
        self.gaps(out, &flows);
    }

    fn setup(&self, out: &mut String, tunnel: &Tunnel) {
        let Some(setup) = &tunnel.setup else {
            line!(out, "  set-up: before the capture began");
            return;
        };
        let result = setup.result.as_deref().unwrap_or("goes on");
        let mut text = format!("  set-up {}: {result}", self.after(setup.began));
        if let Some(took) = setup.took_ms {
            let _ = write!(text, " in {took:.1} ms");
        }
        if let Some(notify) = &setup.notify {
            let _ = write!(text, ", {notify}");
        }
        if let Some(stalled) = &setup.stalled {
            let _ = write!(text, ", no {stalled}");
            if let Some(ms) = setup.stalled_ms {
                let _ = write!(text, " for {ms} ms");
            }
        }
        if setup.retransmitted > 0 {
            let _ = write!(text, ", {} requests sent again", setup.retransmitted);
        }
        line!(out, "{text}");
        let milestones = setup
            .milestones
            .iter()
            .map(|it| format!("{} {:.1}", it.name, it.after_ms));
        if !setup.milestones.is_empty() {
            line!(out, "    ms: {}", Vec::from_iter(milestones).join(", "));
        }
    }

    fn call(&self, out: &mut String, number: usize, call: &Call) {
        let mut text = format!(
            "  call {number} {}: {} s, {}{}",
            self.after(call.since),
            call.seconds,
            call.state.name(),
            if call.ended.is_some() {
                ""
            } else {
                ", goes on"
            }
        );
        match (call.mos, &call.mos_missing) {
            (Some(mos), _) => {
                let _ = write!(text, ", MOS about {mos:.1}");
            }
            (None, Some(why)) => {
                let _ = write!(text, ", no MOS: {why}");
            }
            (None, None) => {}
        }
        line!(out, "{text}");
        for (name, half) in [
            ("client to us", &call.client_to_us),
            ("network to us", &call.network_to_us),
        ] {
            let jitter = half
                .jitter_ms
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
            line!(
                out,
                "    {name:<14}{} received, {} lost, {} late, {} twice, jitter {jitter}",
                half.received,
                half.lost,
                half.late,
                half.duplicate
            );
        }
    }

    fn gaps(&self, out: &mut String, flows: &[&FlowReport]) {
        let mut gaps: Vec<_> = flows.iter().flat_map(|flow| &flow.gaps).collect();
        gaps.sort_by_key(|gap| gap.at);
        for gap in gaps.iter().take(GAPS_SHOWN) {
            let leg = gap.half_leg.replace('_', " ");
            line!(
                out,
                "  gap {} {leg}: {} lost in {} ms",
                self.after(gap.at),
                gap.lost,
                gap.silence_ms
            );
        }
        let left_out: u64 = flows.iter().map(|flow| flow.gaps_left_out).sum();
        let more = gaps.len().saturating_sub(GAPS_SHOWN) as u64 + left_out;
        if more > 0 {
            line!(out, "  and {more} gaps more (--json)");
        }
    }

    fn timeline(&self, out: &mut String) {
        if self.timeline.is_empty() {
            return;
        }
        line!(out, "\ntimeline");
        for event in self.timeline.iter().take(EVENTS_SHOWN) {
            let mut detail = match (event.step, event.detail.as_str()) {
                (_, "") => String::new(),
                (Step::Failed, detail) => format!(" {}", words::failure(detail)),
                (_, detail) => format!(" {detail}"),
            };
            if let Some(from) = &event.from {
                detail = format!(" from {from}{detail}");
            }
            let line = format!(
                "  {:>10} {:<16} {:<14}{detail}",
                self.after(event.at),
                event.client,
                step(event.step)
            );
            line!(out, "{}", line.trim_end());
        }
        if self.timeline.len() > EVENTS_SHOWN {
            let more = self.timeline.len() - EVENTS_SHOWN;
            line!(out, "  and {more} more (--json)");
        }
    }

    /// The flows that a tunnel consists of.
    fn flows_of<'a>(&'a self, tunnel: &'a Tunnel) -> impl Iterator<Item = &'a FlowReport> {
        self.flows.iter().filter(move |flow| {
            flow.endpoint == tunnel.endpoint
                && tunnel.flows.iter().any(|it| {
                    (&it.client, it.port, &it.protocol) == (&flow.client, flow.port, &flow.protocol)
                })
        })
    }
}

/// Its name in JSON.
fn step(step: Step) -> String {
    let name = serde_json::to_value(step).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}

fn sides(out: &mut String, tunnel: &Tunnel) {
    let mut parts = Vec::new();
    if let Some(ms) = tunnel.keepalive_ms {
        parts.push(format!("keepalive every {ms} ms"));
    }
    if let Some(ms) = tunnel.round_trip_client_ms {
        parts.push(format!("round trip to the phone {ms:.1} ms"));
    }
    if let Some(ms) = tunnel.round_trip_network_ms {
        parts.push(format!("round trip to the ePDG {ms:.1} ms"));
    }
    if tunnel.roamed > 0 {
        parts.push(format!("roamed {} times", tunnel.roamed));
    }
    if tunnel.state == State::Gone {
        parts.push("gone".to_owned());
    }
    if !parts.is_empty() {
        line!(out, "  {}", parts.join(", "));
    }
}

/// Several flows' legs as one; the jitter is the worst.
fn sum<'a>(legs: impl Iterator<Item = &'a Leg>) -> Leg {
    let mut sum = Leg::default();
    for leg in legs {
        sum.esp.received += leg.esp.received;
        sum.esp.lost += leg.esp.lost;
        sum.esp.late += leg.esp.late;
        sum.esp.duplicate += leg.esp.duplicate;
        sum.esp.jitter_ms = match (sum.esp.jitter_ms, leg.esp.jitter_ms) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        sum.stray += leg.stray;
        sum.anchored += leg.anchored;
    }
    let received = crate::telemetry::view::Received::new(sum.esp.received, sum.esp.lost);
    sum.esp.loss_percent = received.loss_percent;
    sum
}

fn leg(out: &mut String, name: &str, leg: &Leg) {
    let percent = leg
        .esp
        .loss_percent
        .map_or_else(|| "-".to_owned(), |it| format!("{it:.2} %"));
    let jitter = leg
        .esp
        .jitter_ms
        .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"));
    line!(
        out,
        "  {name:<14}{:>9}{:>7}{percent:>8}{:>6}{:>6}{:>7}{:>10}{jitter:>10}",
        leg.esp.received,
        leg.esp.lost,
        leg.esp.late,
        leg.esp.duplicate,
        leg.stray,
        leg.anchored
    );
}

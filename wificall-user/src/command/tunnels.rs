//! `wificall tunnels`

use std::fmt::Write as _;
use std::path::Path;

use anyhow::anyhow;

use super::{Failure, Outcome, instance, print};
use crate::cli::Instance;
use crate::control::socket::{Answer, Question, ask};
use crate::telemetry::{
    select::Wanted,
    tracker::Id,
    view::{Call, Setup, Tunnel, Tunnels},
};
use crate::top::words;

/// Tunnels that are asked for at a time: the agent does nothing else meanwhile.
const AT_ONCE: usize = 100;

pub(super) async fn run(arguments: &Instance) -> Result<Outcome, Failure> {
    let (agent, _) = instance(arguments)?;
    let socket = agent.control_socket();
    let ids = match ask(&socket, Question::TunnelIds).await {
        Ok(Answer::TunnelIds(ids)) => ids,
        Ok(answer) => return Err(other(&answer).into()),
        Err(error) => return Err(anyhow::Error::from(error).into()),
    };
    // Whether they are tracked at all is said with the first ones, be there none.
    let first = some(&socket, ids.iter().take(AT_ONCE)).await?;
    let mut page = if arguments.json {
        Page::json(&first)?
    } else {
        Page::text(&first)
    };
    page.tunnels(&first)?;
    print(&page.take())?;
    for some_ids in ids.get(AT_ONCE..).unwrap_or_default().chunks(AT_ONCE) {
        page.tunnels(&some(&socket, some_ids.iter()).await?)?;
        print(&page.take())?;
    }
    page.end();
    print(&page.take())?;
    Ok(Outcome::Done)
}

/// These tunnels, as far as they are still there.
async fn some(socket: &Path, ids: impl Iterator<Item = &Id>) -> anyhow::Result<Tunnels> {
    let wanted = Wanted::These(ids.copied().collect());
    match ask(socket, Question::Tunnels(wanted)).await? {
        Answer::Tunnels(tunnels) => Ok(*tunnels),
        answer => Err(other(&answer)),
    }
}

fn other(answer: &Answer) -> anyhow::Error {
    anyhow!("the agent answered something else: {answer:?}")
}

/// What is printed, as far as it is known.
struct Page {
    text: String,
    json: bool,
    /// Whether a tunnel is in it.
    begun: bool,
}

impl Page {
    fn text(first: &Tunnels) -> Self {
        let text = match first.enabled {
            false => "flows are not tracked (`telemetry.enabled`)\n",
            true if first.total == 0 => "no tunnels\n",
            true => "",
        };
        Self {
            text: text.to_owned(),
            json: false,
            begun: false,
        }
    }

    /// The beginning of an object whose list is filled bit by bit.
    fn json(first: &Tunnels) -> anyhow::Result<Self> {
        let clients = serde_json::to_string(&first.clients)?;
        let Tunnels { now, enabled, .. } = first;
        let text = format!(
            "{{\n  \"now\": {now},\n  \"enabled\": {enabled},\n  \"clients\": {clients},\n  \"tunnels\": ["
        );
        Ok(Self {
            text,
            json: true,
            begun: false,
        })
    }

    fn tunnels(&mut self, some: &Tunnels) -> anyhow::Result<()> {
        for tunnel in &some.tunnels {
            if self.json {
                self.text += if self.begun { ",\n    " } else { "\n    " };
                // Within a string a line's end is written otherwise.
                let one = serde_json::to_string_pretty(tunnel)?;
                self.text += &one.replace('\n', "\n    ");
            } else {
                about(&mut self.text, tunnel, some.now);
            }
            self.begun = true;
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.json {
            self.text += if self.begun { "\n  ]\n}\n" } else { "]\n}\n" };
        }
    }

    /// What is to be printed now.
    fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

fn about(text: &mut String, tunnel: &Tunnel, now: u64) {
    let lasted = words::lasted(now.saturating_sub(tunnel.since) / 1_000);
    let Tunnel {
        id,
        client,
        endpoint,
        operator,
        country,
        state,
        ..
    } = tunnel;
    let country = match country.as_str() {
        "" => String::new(),
        country => format!(", {country}"),
    };
    let state = words::state(*state);
    let _ = writeln!(
        text,
        "{client} - {endpoint} ({operator}{country}): {state} for {lasted}; id {id}"
    );
    let _ = writeln!(
        text,
        "  up {} packets, {} bytes; down {} packets, {} bytes",
        tunnel.packets_up, tunnel.bytes_up, tunnel.packets_down, tunnel.bytes_down
    );
    let _ = writeln!(text, "  set-up: {}", words::setup(tunnel.setup.as_ref()));
    if let Some(steps) = tunnel.setup.as_ref().and_then(steps) {
        let _ = writeln!(text, "    {steps}");
    }
    let sides = [
        ("network", tunnel.round_trip_network_ms),
        ("client", tunnel.round_trip_client_ms),
    ];
    for (side, ms) in sides {
        if ms.is_some() {
            let _ = writeln!(text, "  round trip, {side} side: {} ms", words::millis(ms));
        }
    }
    if let Some(ms) = tunnel.keepalive_ms {
        let shorter = if tunnel.nat_timeout_shorter {
            ": this host's NAT forgets the mapping sooner"
        } else {
            ""
        };
        let _ = writeln!(text, "  keepalives every {} s{shorter}", ms / 1_000);
    }
    if let Some(exit) = &tunnel.exit {
        let _ = writeln!(text, "  exit taken: {exit}");
    }
    if tunnel.roamed > 0 {
        let _ = writeln!(text, "  moved: {} times", tunnel.roamed);
    }
    for heard in &tunnel.calls {
        call(text, heard);
    }
}

/// What was reached, and when.
fn steps(setup: &Setup) -> Option<String> {
    let reached = setup.milestones.iter().map(|milestone| {
        let after = words::millis(Some(milestone.after_ms));
        format!("{} {after} ms", words::milestone(&milestone.name))
    });
    let steps = reached.collect::<Vec<_>>().join(", ");
    (!steps.is_empty()).then_some(steps)
}

fn call(text: &mut String, call: &Call) {
    let over = if call.ended.is_some() { ", over" } else { "" };
    let _ = writeln!(
        text,
        "  call: {}, {}{over}",
        words::voice(call.state),
        words::lasted(call.seconds)
    );
    let legs = [
        ("phone to here", &call.client_to_us),
        ("network to here", &call.network_to_us),
    ];
    for (name, leg) in legs {
        let _ = writeln!(text, "    {name}: {}", words::half_leg(leg));
    }
    if call.mos.is_some() || call.mos_missing.is_some() {
        let _ = writeln!(text, "    MOS, estimated, at best: {}", words::mos(call));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::view::{
        Clients, HalfLeg, Milestone, Received, State, Voice, WayKind, WayOut,
    };

    fn leg(received: u64, lost: u64) -> HalfLeg {
        HalfLeg {
            received,
            lost,
            loss_percent: Received::new(received, lost).loss_percent,
            jitter_ms: Some(2.25),
            ..HalfLeg::default()
        }
    }

    fn in_a_call() -> Tunnel {
        Tunnel {
            id: "00c0ffee00c0ffee".into(),
            client: "192.0.2.7".into(),
            endpoint: "198.51.100.1".into(),
            operator: "Example".into(),
            country: "DE".into(),
            state: State::Call,
            since: 80_000,
            setup: Some(Setup {
                milestones: vec![Milestone {
                    name: "init_sent".into(),
                    after_ms: 0.0,
                }],
                stalled: Some("init_answered".into()),
                stalled_ms: Some(9_100),
                ..Setup::default()
            }),
            keepalive_ms: Some(20_000),
            nat_timeout_shorter: true,
            round_trip_network_ms: Some(31.4),
            roamed: 2,
            exit: Some(WayOut {
                exit: Some("de".into()),
                way: WayKind::Gateway,
                gateway: Some("192.0.2.254".into()),
                mark: Some("0x65/0xff".into()),
                ..WayOut::default()
            }),
            calls: vec![Call {
                state: Voice::OneWayUp,
                seconds: 79,
                client_to_us: leg(4_998, 2),
                network_to_us: leg(950, 50),
                mos_missing: Some("one direction is not seen".into()),
                ..Call::default()
            }],
            ..Tunnel::default()
        }
    }

    fn tunnels(tunnels: Vec<Tunnel>) -> Tunnels {
        Tunnels {
            now: 100_000,
            enabled: true,
            clients: Clients::Shown,
            total: tunnels.len() as u64,
            found: tunnels.len() as u64,
            tunnels,
        }
    }

    fn text(first: &Tunnels) -> String {
        let mut page = Page::text(first);
        page.tunnels(first).unwrap();
        page.end();
        page.take()
    }

    #[test]
    fn a_call_is_shown_with_its_half_legs() {
        assert_eq!(
            text(&tunnels(vec![in_a_call()])),
            "192.0.2.7 - 198.51.100.1 (Example, DE): call for 20s; id 00c0ffee00c0ffee\n  \
             up 0 packets, 0 bytes; down 0 packets, 0 bytes\n  \
             set-up: waits 9s for IKE_SA_INIT answered\n    \
             IKE_SA_INIT sent 0.0 ms\n  \
             round trip, network side: 31 ms\n  \
             keepalives every 20 s: this host's NAT forgets the mapping sooner\n  \
             exit taken: de, by gateway 192.0.2.254, mark 0x65/0xff\n  \
             moved: 2 times\n  \
             call: one-way: only the phone is heard, 1m19s\n    \
             phone to here: 4998 received, 2 lost (0.04%), 0 late, 0 twice, jitter 2.2 ms\n    \
             network to here: 950 received, 50 lost (5.0%), 0 late, 0 twice, jitter 2.2 ms\n    \
             MOS, estimated, at best: none: one direction is not seen\n"
        );
        assert_eq!(
            text(&Tunnels::default()),
            "flows are not tracked (`telemetry.enabled`)\n"
        );
        assert_eq!(text(&tunnels(Vec::new())), "no tunnels\n");
    }

    #[test]
    fn json_that_is_printed_bit_by_bit_is_as_if_it_were_printed_at_once() {
        #[derive(serde::Serialize)]
        struct Whole {
            now: u64,
            enabled: bool,
            clients: Clients,
            tunnels: Vec<Tunnel>,
        }
        let odd = Tunnel {
            operator: "two\nlines".into(),
            ..Tunnel::default()
        };
        for all in [
            Vec::new(),
            vec![odd.clone()],
            vec![in_a_call(), odd, in_a_call()],
        ] {
            let mut page = Page::json(&tunnels(Vec::new())).unwrap();
            let mut printed = page.take();
            for some in all.chunks(2) {
                page.tunnels(&tunnels(some.to_vec())).unwrap();
                printed += &page.take();
            }
            page.end();
            printed += &page.take();
            let whole = Whole {
                now: 100_000,
                enabled: true,
                clients: Clients::Shown,
                tunnels: all,
            };
            assert_eq!(
                printed,
                serde_json::to_string_pretty(&whole).unwrap() + "\n"
            );
        }
    }
}

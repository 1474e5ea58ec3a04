//! `wificall tunnels`

use std::fmt::Write as _;

use super::{Failure, Outcome, instance, print, print_json};
use crate::cli::Instance;
use crate::control::socket::{Answer, Question, ask};
use crate::telemetry::view::{Call, HalfLeg, Setup, Tunnel, Tunnels};

pub(super) async fn run(arguments: &Instance) -> Result<Outcome, Failure> {
    let (agent, _) = instance(arguments)?;
    let tunnels = match ask(&agent.control_socket(), Question::Tunnels).await {
        Ok(Answer::Tunnels(tunnels)) => tunnels,
        Ok(answer) => {
            return Err(anyhow::anyhow!("the agent answered something else: {answer:?}").into());
        }
        Err(error) => return Err(anyhow::Error::from(error).into()),
    };
    if arguments.json {
        print_json(&tunnels)?;
    } else {
        print(&text(&tunnels))?;
    }
    Ok(Outcome::Done)
}

fn text(tunnels: &Tunnels) -> String {
    if !tunnels.enabled {
        return "flows are not tracked (`telemetry.enabled`)\n".to_owned();
    }
    if tunnels.tunnels.is_empty() {
        return "no tunnels\n".to_owned();
    }
    let mut text = String::new();
    for tunnel in &tunnels.tunnels {
        one(&mut text, tunnel, tunnels.now);
    }
    text
}

fn one(text: &mut String, tunnel: &Tunnel, now: u64) {
    let seconds = now.saturating_sub(tunnel.since) / 1_000;
    let Tunnel {
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
    let state = state.name();
    let _ = writeln!(
        text,
        "{client} - {endpoint} ({operator}{country}): {state} for {seconds} s"
    );
    let _ = writeln!(
        text,
        "  up {} packets, {} bytes; down {} packets, {} bytes",
        tunnel.packets_up, tunnel.bytes_up, tunnel.packets_down, tunnel.bytes_down
    );
    if let Some(setup) = &tunnel.setup {
        let _ = writeln!(text, "  set-up: {}", set_up(setup));
    }
    let sides = [
        ("network", tunnel.round_trip_network_ms),
        ("client", tunnel.round_trip_client_ms),
    ];
    for (side, ms) in sides {
        if let Some(ms) = ms {
            let _ = writeln!(text, "  round trip, {side} side: {ms:.1} ms");
        }
    }
    if let Some(ms) = tunnel.keepalive_ms {
        let shorter = if tunnel.nat_timeout_shorter {
            ": this host's NAT forgets the mapping sooner"
        } else {
            ""
        };
        let _ = writeln!(text, "  keepalives every {ms} ms{shorter}");
    }
    for heard in &tunnel.calls {
        call(text, heard);
    }
}

fn set_up(setup: &Setup) -> String {
    let mut parts: Vec<String> = setup
        .milestones
        .iter()
        .map(|milestone| format!("{} {:.0} ms", milestone.name, milestone.after_ms))
        .collect();
    if let (Some(next), Some(ms)) = (&setup.stalled, setup.stalled_ms) {
        parts.push(format!("waits for {next} for {ms} ms"));
    }
    parts.extend(setup.notify.clone());
    match &setup.result {
        Some(result) => format!("{result}: {}", parts.join(", ")),
        None => parts.join(", "),
    }
}

fn call(text: &mut String, call: &Call) {
    let over = if call.ended.is_some() { ", over" } else { "" };
    let _ = writeln!(
        text,
        "  call: {}, {} s{over}",
        call.state.name(),
        call.seconds
    );
    let legs = [
        ("client to us", &call.client_to_us),
        ("network to us", &call.network_to_us),
    ];
    for (name, leg) in legs {
        let _ = writeln!(text, "    {name}: {}", half_leg(leg));
    }
    match (call.mos, &call.mos_missing) {
        (Some(mos), _) => {
            let _ = writeln!(text, "    estimated MOS, at best: {mos:.1}");
        }
        (None, Some(why)) => {
            let _ = writeln!(text, "    no MOS: {why}");
        }
        (None, None) => {}
    }
}

fn half_leg(leg: &HalfLeg) -> String {
    let loss = (leg.loss_percent).map_or_else(String::new, |percent| format!(" ({percent:.1} %)"));
    let jitter = (leg.jitter_ms).map_or_else(String::new, |ms| format!(", jitter {ms:.1} ms"));
    format!(
        "{} received, {} lost{loss}, {} late, {} twice{jitter}",
        leg.received, leg.lost, leg.late, leg.duplicate
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::view::{Clients, Milestone, State, Voice};

    #[test]
    fn a_call_is_shown_with_its_half_legs() {
        let leg = |lost| HalfLeg {
            received: 950,
            lost,
            loss_percent: Some(5.0),
            jitter_ms: Some(2.25),
            ..HalfLeg::default()
        };
        let tunnels = Tunnels {
            now: 100_000,
            enabled: true,
            clients: Clients::Shown,
            tunnels: vec![Tunnel {
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
                    stalled_ms: Some(900),
                    ..Setup::default()
                }),
                keepalive_ms: Some(20_000),
                nat_timeout_shorter: true,
                calls: vec![Call {
                    state: Voice::OneWayUp,
                    seconds: 19,
                    client_to_us: leg(50),
                    network_to_us: leg(0),
                    mos_missing: Some("one direction is not seen".into()),
                    ..Call::default()
                }],
                ..Tunnel::default()
            }],
        };
        assert_eq!(
            text(&tunnels),
            "192.0.2.7 - 198.51.100.1 (Example, DE): call for 20 s\n  \
             up 0 packets, 0 bytes; down 0 packets, 0 bytes\n  \
             set-up: init_sent 0 ms, waits for init_answered for 900 ms\n  \
             keepalives every 20000 ms: this host's NAT forgets the mapping sooner\n  \
             call: one_way_up, 19 s\n    \
             client to us: 950 received, 50 lost (5.0 %), 0 late, 0 twice, jitter 2.2 ms\n    \
             network to us: 950 received, 0 lost (5.0 %), 0 late, 0 twice, jitter 2.2 ms\n    \
             no MOS: one direction is not seen\n"
        );
        assert_eq!(
            text(&Tunnels::default()),
            "flows are not tracked (`telemetry.enabled`)\n"
        );
    }
}

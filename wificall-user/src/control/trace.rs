//! What happens, for the log and for whoever follows it: published once, and forgotten where nobody listens or someone is
//! too slow.

use std::{hash::RandomState, net::IpAddr, sync::Arc, time::SystemTime};

use tokio::sync::broadcast::{Receiver, Sender, channel};

use super::{
    agent::Agent,
    event_log::{self, Pace},
};
use crate::{
    config::Telemetry,
    observe::Report,
    telemetry::{
        show,
        view::{Step, TraceEvent},
    },
};

/// Events that wait for a reader: it loses the oldest when there are more, and is told how many.
const ROOM: usize = 1_024;

/// Whoever follows what happens, and the log.
pub(super) struct Traces {
    sender: Sender<Told>,
    pace: Pace,
    /// The key of what stands for clients, and of tunnels' names.
    pub key: RandomState,
}

/// What a follower gets.
#[derive(Debug)]
pub struct Following {
    /// Whether flows are tracked: if not, nothing comes but names.
    pub tracked: bool,
    /// Whether phones' questions to DNS are seen (`snoop.names`).
    pub names: bool,
    /// What happens from now on.
    pub events: Receiver<Told>,
}

/// What is told to whoever follows.
#[derive(Clone, Debug)]
pub enum Told {
    /// An event.
    Event(Arc<TraceEvent>),
    /// So many events of flows, of whatever phones, found no way out of the kernel.
    Lost(u64),
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            sender: channel(ROOM).0,
            pace: Pace::default(),
            key: RandomState::new(),
        }
    }
}

impl Traces {
    /// Tells followers, if there are some, and the log. `event` has the client's address; `whose`: operator and country.
    pub(super) fn tell(
        &mut self,
        settings: &Telemetry,
        step: Step,
        whose: (&str, &str),
        event: impl FnOnce() -> TraceEvent,
    ) {
        let followed = self.sender.receiver_count() > 0;
        let logged = event_log::is_logged(settings, step);
        if !followed && !logged {
            return;
        }
        let event = event();
        if logged {
            let name = |client: &str| match settings.log_clients {
                true => client.to_owned(),
                false => self.stands_for(client),
            };
            let (client, from) = (name(&event.client), event.from.as_deref().map(name));
            let clients = (&*client, from.as_deref());
            let second = event.at / 1_000;
            event_log::log(&mut self.pace, settings, &event, clients, whose, second);
        }
        if followed {
            // Who has just left needs no telling.
            let _ = self.sender.send(Told::Event(Arc::new(event)));
        }
    }

    /// Tells followers, if there are some, that so many events of flows were lost.
    pub(super) fn lost(&self, events: u64) {
        if events > 0 {
            let _ = self.sender.send(Told::Lost(events));
        }
    }

    /// What is said instead of a client's address: the same as the API says.
    fn stands_for(&self, client: &str) -> String {
        let octets = match client.parse() {
            Ok(IpAddr::V4(v4)) => v4.to_ipv6_mapped().octets(),
            Ok(IpAddr::V6(v6)) => v6.octets(),
            Err(_) => return "unknown".to_owned(),
        };
        show::stands_for(&self.key, octets)
    }

    /// A report without clients' addresses.
    pub(super) fn hide_clients(&self, mut report: Report) -> Report {
        for client in &mut report.snoop.clients {
            client.address = self.stands_for(&client.address);
        }
        report
    }

    /// Says how many events were not logged, if some were not.
    pub(super) fn tell_left_out(&mut self, settings: &Telemetry) {
        event_log::tell_left_out(&mut self.pace, settings);
    }

    /// Tells that a client asked for a name, or what it was answered, and when.
    pub(super) fn name(
        &mut self,
        settings: &Telemetry,
        at: SystemTime,
        step: Step,
        client: IpAddr,
        name: &str,
        addresses: Option<&[IpAddr]>,
    ) {
        self.tell(settings, step, ("", ""), || {
            let detail = match addresses {
                None => name.to_owned(),
                Some([]) => format!("{name}: no address"),
                Some(addresses) => {
                    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                    format!("{name}: {}", all.join(", "))
                }
            };
            let at = at.duration_since(SystemTime::UNIX_EPOCH);
            TraceEvent {
                at: at.map_or(0, |at| at.as_millis() as u64),
                client: client.to_string(),
                endpoint: String::new(),
                step,
                detail,
                ..TraceEvent::default()
            }
        });
    }
}

impl Agent {
    /// For one who begins to follow.
    pub(super) fn following(&self) -> Following {
        Following {
            tracked: self.world.config.telemetry.enabled,
            names: self.world.config.snoop.names,
            events: self.traces.sender.subscribe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex, time::Duration};

    use serde_json::Value;
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;
    use crate::config::{EventLog, LabelProfile};
    use crate::observe;
    use crate::telemetry::view::WayOut;

    fn settings(log: EventLog) -> Telemetry {
        Telemetry {
            enabled: true,
            flows_per_second: 8,
            events_per_second: 8,
            labels: LabelProfile::Small,
            textfile: None,
            textfile_interval: Duration::from_secs(15),
            log,
            log_clients: false,
            log_per_second: 3,
        }
    }

    /// What is logged meanwhile, an object a line.
    fn logged(act: impl FnOnce()) -> Vec<Value> {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn event(step: Step, at: u64) -> TraceEvent {
        TraceEvent {
            at,
            tunnel: "1a".into(),
            client: "192.0.2.7".into(),
            endpoint: "198.51.100.1".into(),
            step,
            detail: "a detail".into(),
            after_ms: Some(7.5),
            exit: (step == Step::Exit).then(|| WayOut {
                exit: Some("au".into()),
                gateway: Some("192.0.2.254".into()),
                ..WayOut::default()
            }),
            from: (step == Step::Roamed).then(|| "192.0.2.6".into()),
        }
    }

    #[test]
    fn an_event_is_a_line_of_fields_without_the_clients_address() {
        let mut traces = Traces::default();
        let mut settings = settings(EventLog::Results);
        let whose = ("505-01", "AU");
        let lines = logged(|| {
            for step in [Step::Exit, Step::AuthSent, Step::Failed] {
                traces.tell(&settings, step, whose, || event(step, 1_000));
            }
        });
        // A step on the way is a detail.
        assert_eq!(lines.len(), 2, "{lines:?}");
        let pseudonym = traces.stands_for("192.0.2.7");
        assert!(pseudonym.starts_with("client-"), "{pseudonym}");
        for (field, value) in [
            ("target", "wificall::events"),
            ("level", "INFO"),
            ("message", "exit taken"),
            ("event", "exit"),
            ("client", &*pseudonym),
            ("tunnel", "1a"),
            ("endpoint", "198.51.100.1"),
            ("operator", "505-01"),
            ("country", "AU"),
            ("exit", "au"),
            ("gateway", "192.0.2.254"),
            ("detail", "a detail"),
        ] {
            assert_eq!(lines[0][field], value, "{field}: {}", lines[0]);
        }
        assert_eq!(lines[0]["after_ms"], 7.5);
        assert_eq!(
            (&lines[1]["level"], &lines[1]["event"]),
            (&"WARN".into(), &"failed".into())
        );
        assert!(!format!("{lines:?}").contains("192.0.2.7"));

        let roams = || {
            traces.tell(&settings, Step::Roamed, whose, || {
                event(Step::Roamed, 9_000)
            });
        };
        let lines = logged(roams);
        assert_eq!(lines[0]["from"], traces.stands_for("192.0.2.6"));
        assert!(!format!("{lines:?}").contains("192.0.2.6"), "{lines:?}");
        settings.log_clients = true;
        let lines = logged(|| traces.tell(&settings, Step::Up, whose, || event(Step::Up, 2_000)));
        assert_eq!(lines[0]["client"], "192.0.2.7");
        settings.log = EventLog::Off;
        let lines = logged(|| traces.tell(&settings, Step::Up, whose, || unreachable!()));
        assert!(lines.is_empty(), "{lines:?}");
    }

    #[test]
    fn more_events_than_the_rate_are_counted_and_followers_get_them_all() {
        let mut traces = Traces::default();
        let settings = settings(EventLog::All);
        let mut follower = traces.sender.subscribe();
        let lines = logged(|| {
            for _ in 0..10 {
                let event = || event(Step::AuthSent, 5_000);
                traces.tell(&settings, Step::AuthSent, ("", ""), event);
            }
            traces.tell_left_out(&settings);
            traces.tell_left_out(&settings);
        });
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[3]["events"], 7);
        assert!(lines[0].get("operator").is_none(), "{}", lines[0]);
        assert_eq!(std::iter::from_fn(|| follower.try_recv().ok()).count(), 10);
    }

    #[test]
    fn a_report_names_clients_as_the_api_does() {
        let traces = Traces::default();
        let mut report = Report::default();
        let client = |address: &str| observe::Client {
            address: address.into(),
            ..observe::Client::default()
        };
        report.snoop.clients = vec![client("192.0.2.7"), client("2001:db8::7")];
        let hidden = traces.hide_clients(report);
        let names: Vec<_> = hidden.snoop.clients.iter().map(|c| &*c.address).collect();
        assert_eq!(
            names,
            ["192.0.2.7", "2001:db8::7"].map(|client| traces.stands_for(client))
        );
    }

    #[test]
    fn a_slow_follower_loses_the_oldest_and_learns_how_many() {
        let mut traces = Traces::default();
        let settings = settings(EventLog::Off);
        // Nobody listens: nothing is even made.
        traces.tell(&settings, Step::Up, ("", ""), || unreachable!());
        let mut slow = traces.sender.subscribe();
        for number in 0..ROOM + 7 {
            let event = || TraceEvent {
                at: number as u64,
                ..TraceEvent::default()
            };
            traces.tell(&settings, Step::Up, ("", ""), event);
        }
        assert!(matches!(slow.try_recv(), Err(TryRecvError::Lagged(7))));
        let next = slow.try_recv().unwrap();
        assert!(
            matches!(&next, Told::Event(event) if event.at == 7),
            "{next:?}"
        );
    }

    #[test]
    fn what_dns_said_is_told_with_its_addresses() {
        let mut traces = Traces::default();
        let settings = settings(EventLog::Results);
        let mut follower = traces.sender.subscribe();
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(7);
        let addresses = ["198.51.100.1", "2001:db8::1"].map(|a| a.parse().unwrap());
        traces.name(&settings, at, Step::DnsAsked, client, "epdg.example", None);
        traces.name(
            &settings,
            at,
            Step::DnsAnswered,
            client,
            "epdg.example",
            Some(&addresses),
        );
        traces.name(
            &settings,
            at,
            Step::DnsAnswered,
            client,
            "epdg.example",
            Some(&[]),
        );
        let details: Vec<_> = std::iter::from_fn(|| match follower.try_recv().ok()? {
            Told::Event(event) => {
                assert_eq!(event.at, 7);
                Some(event.detail.clone())
            }
            Told::Lost(events) => Some(format!("{events} lost")),
        })
        .collect();
        assert_eq!(
            details,
            [
                "epdg.example",
                "epdg.example: 198.51.100.1, 2001:db8::1",
                "epdg.example: no address"
            ]
        );
    }
}

//! What happens, for whoever follows it: published once, and forgotten where nobody listens or someone is too slow.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use tokio::sync::broadcast::{Receiver, Sender, channel};

use super::agent::Agent;
use crate::telemetry::view::{Step, TraceEvent};

/// Events that wait for a reader: it loses the oldest when there are more, and is told how many.
const ROOM: usize = 1_024;

/// Whoever follows what happens.
pub(super) struct Traces(Sender<Arc<TraceEvent>>);

/// What a follower gets.
#[derive(Debug)]
pub struct Following {
    /// Whether flows are tracked: if not, nothing comes but names.
    pub tracked: bool,
    /// Whether phones' questions to DNS are seen (`snoop.names`).
    pub names: bool,
    /// What happens from now on.
    pub events: Receiver<Arc<TraceEvent>>,
}

impl Default for Traces {
    fn default() -> Self {
        Self(channel(ROOM).0)
    }
}

impl Traces {
    /// Tells followers, if there are some.
    pub(super) fn publish(&self, event: impl FnOnce() -> TraceEvent) {
        if self.0.receiver_count() > 0 {
            // Who has just left needs no telling.
            let _ = self.0.send(Arc::new(event()));
        }
    }

    /// Tells that a client asks for a name, or what it was answered.
    pub(super) fn name(
        &self,
        step: Step,
        client: IpAddr,
        name: &str,
        addresses: Option<&[IpAddr]>,
    ) {
        self.publish(|| {
            let detail = match addresses {
                None => name.to_owned(),
                Some([]) => format!("{name}: no address"),
                Some(addresses) => {
                    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                    format!("{name}: {}", all.join(", "))
                }
            };
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            TraceEvent {
                at: now.map_or(0, |now| now.as_millis() as u64),
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
            events: self.traces.0.subscribe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;

    #[test]
    fn a_slow_follower_loses_the_oldest_and_learns_how_many() {
        let traces = Traces::default();
        // Nobody listens: nothing is even made.
        traces.publish(|| unreachable!());
        let mut slow = traces.0.subscribe();
        for number in 0..ROOM + 7 {
            let event = || TraceEvent {
                at: number as u64,
                ..TraceEvent::default()
            };
            traces.publish(event);
        }
        assert!(matches!(slow.try_recv(), Err(TryRecvError::Lagged(7))));
        assert_eq!(slow.try_recv().unwrap().at, 7);
    }

    #[test]
    fn what_dns_said_is_told_with_its_addresses() {
        let traces = Traces::default();
        let mut follower = traces.0.subscribe();
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        let addresses = ["198.51.100.1", "2001:db8::1"].map(|a| a.parse().unwrap());
        traces.name(Step::DnsAsked, client, "epdg.example", None);
        traces.name(Step::DnsAnswered, client, "epdg.example", Some(&addresses));
        traces.name(Step::DnsAnswered, client, "epdg.example", Some(&[]));
        let details: Vec<_> =
            std::iter::from_fn(|| Some(follower.try_recv().ok()?.detail.clone())).collect();
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

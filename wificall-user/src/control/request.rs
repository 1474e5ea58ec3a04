//! What others may ask of the agent's loop. It alone holds the data plane; so it answers, between two changes.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::trace::Following;
use crate::{
    explanation::{Explanation, Packet},
    export::Set,
    observe::Report,
    telemetry::{
        select::Wanted,
        tracker::Id,
        view::{Overview, Tunnels},
    },
};

/// A question or an order.
#[derive(Debug)]
pub enum Request {
    /// Report.
    Report {
        /// Whether it has clients' addresses; else keyed hashes.
        clients: bool,
        /// Who asks.
        asker: oneshot::Sender<Report>,
    },
    /// Tell the endpoint set.
    Endpoints(oneshot::Sender<Set>),
    /// Tell the numbers of all tunnels, by activity.
    TunnelIds(oneshot::Sender<Vec<Id>>),
    /// Tell tunnels. Views are made between two changes, so those who want all ask for a few at a time.
    Tunnels {
        /// Which.
        wanted: Wanted,
        /// Whether clients' addresses may be told.
        clients: bool,
        /// Who asks.
        asker: oneshot::Sender<Tunnels>,
    },
    /// Tell what happens from now on.
    Trace(oneshot::Sender<Following>),
    /// Tell what there is at a glance.
    Overview(oneshot::Sender<Overview>),
    /// Explain what is done with a packet.
    Explain(Box<Packet>, oneshot::Sender<Explanation>),
    /// Read the configuration again; answers when it is in force, or with why it is not.
    Reload(oneshot::Sender<Result<(), Refused>>),
}

/// Why a reload was refused. What was in force before still is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For people.
    pub message: String,
    /// Whether the configuration is to blame, and not the kernel.
    pub configuration: bool,
}

/// The way to the loop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Requests(mpsc::Sender<Request>);

impl Requests {
    /// A way to the loop that reads the other end.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    /// Asks for a report, with clients' addresses or without; `None` if the agent is going down.
    pub async fn report(&self, clients: bool) -> Option<Report> {
        let (asker, answered) = oneshot::channel();
        let request = Request::Report { clients, asker };
        self.0.send(request).await.ok()?;
        answered.await.ok()
    }

    /// Asks for the endpoint set; `None` if the agent is going down.
    pub async fn endpoints(&self) -> Option<Set> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Request::Endpoints(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Asks for the numbers of all tunnels; `None` if the agent is going down.
    pub async fn tunnel_ids(&self) -> Option<Vec<Id>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Request::TunnelIds(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Asks for tunnels, with clients' addresses or without; `None` if the agent is going down.
    pub async fn tunnels(&self, wanted: Wanted, clients: bool) -> Option<Tunnels> {
        let (asker, answered) = oneshot::channel();
        let request = Request::Tunnels {
            wanted,
            clients,
            asker,
        };
        self.0.send(request).await.ok()?;
        answered.await.ok()
    }

    /// Asks to be told what happens from now on; `None` if the agent is going down.
    pub async fn trace(&self) -> Option<Following> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Request::Trace(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Asks what there is at a glance; `None` if the agent is going down.
    pub async fn overview(&self) -> Option<Overview> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Request::Overview(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Asks what is done with a packet; `None` if the agent is going down.
    pub async fn explain(&self, packet: Packet) -> Option<Explanation> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Explain(Box::new(packet), answer);
        self.0.send(request).await.ok()?;
        answered.await.ok()
    }

    /// Orders a reload.
    ///
    /// # Errors
    ///
    /// Why the new configuration is not in force.
    pub async fn reload(&self) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        let gone = || Refused {
            message: "the agent is going down".to_owned(),
            configuration: false,
        };
        self.0
            .send(Request::Reload(answer))
            .await
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

//! Connections to a DNS server, on which every query waits for its slot and is counted.
//!
//! hickory sends more queries than it is asked to: it asks again over TCP and after a connection
//! was closed. A rate is only kept if it is kept here, where each query leaves.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use hickory_resolver::config::{ConnectionConfig, ProtocolConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::h2::HttpsClientStream;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::tls::tls_exchange;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, DnsRequestSender, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::{ConnectionProvider, PoolContext};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::answer::Lie;
use super::pace::Pacer;
use super::socket::Sockets;
use super::{Stats, Transport, Upstream};

/// Connects to one server.
#[derive(Clone)]
pub(super) struct Paced(Arc<Server>);

struct Server {
    upstream: Upstream,
    addr: SocketAddr,
    timeout: Duration,
    pacer: Arc<Pacer>,
    stats: Arc<Stats>,
    sockets: Sockets,
    tls: Option<Arc<ClientConfig>>,
    /// The one connection. A client should not have more to a server (RFC 7766 §6.2.1).
    connection: std::sync::Mutex<Option<Link>>,
    /// Held while it is being made. Whoever needs it meanwhile waits, and what came of it is theirs
    /// too: when the last attempt failed, and why.
    connecting: Mutex<Option<(Instant, NetError)>>,
    /// What went wrong last. hickory's pool tells of all that went wrong with connections only
    /// that there are none.
    failure: std::sync::Mutex<Option<NetError>>,
}

type Link = Arc<DnsExchange<Sockets>>;

fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Paced {
    /// `timeout` is that of one query, from its slot to its answer, and of making a connection.
    /// `tls` is needed where the upstream is `tls` or `https`.
    pub(super) fn new(
        upstream: Upstream,
        addr: SocketAddr,
        timeout: Duration,
        pacer: Arc<Pacer>,
        sockets: Sockets,
        tls: Option<Arc<ClientConfig>>,
        stats: Arc<Stats>,
    ) -> Self {
        Self(Arc::new(Server {
            upstream,
            addr,
            timeout,
            pacer,
            stats,
            sockets,
            tls,
            connection: std::sync::Mutex::default(),
            connecting: Mutex::default(),
            failure: std::sync::Mutex::default(),
        }))
    }

    /// What went wrong last.
    pub(super) fn failure(&self) -> Option<NetError> {
        locked(&self.0.failure).clone()
    }
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Paced({})", self.0.upstream)
    }
}

impl ConnectionProvider for Paced {
    type Conn = PacedExchange;
    type FutureConn = std::future::Ready<Result<PacedExchange, NetError>>;
    type RuntimeProvider = Sockets;

    fn new_connection(
        &self,
        _server: IpAddr,
        config: &ConnectionConfig,
        _context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let transport = match config.protocol {
            ProtocolConfig::Udp => Transport::Udp,
            ProtocolConfig::Tls { .. } => Transport::Tls,
            ProtocolConfig::Https { .. } => Transport::Https,
            _ => Transport::Tcp,
        };
        // Nothing is connected before there is a query to send.
        let server = self.0.clone();
        Ok(std::future::ready(Ok(PacedExchange { server, transport })))
    }

    fn runtime_provider(&self) -> &Sockets {
        &self.0.sockets
    }
}

/// A way to a server.
#[derive(Clone)]
pub(super) struct PacedExchange {
    server: Arc<Server>,
    transport: Transport,
}

impl DnsHandle for PacedExchange {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = Sockets;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let this = self.clone();
        Box::pin(stream::once(async move {
            let answer = this.server.ask(this.transport, request).await;
            if let Err(error) = &answer {
                *locked(&this.server.failure) = Some(error.clone());
            }
            answer
        }))
    }
}

impl Server {
    /// Sends a query in its slot and waits for its answer.
    async fn ask(
        &self,
        transport: Transport,
        request: DnsRequest,
    ) -> Result<DnsResponse, NetError> {
        let asked = request.queries.clone();
        let answer = if transport == Transport::Udp {
            // Each query has a socket of its own with a random port, and is sent once: here, and
            // not by another task that gets to run some time after the slot.
            let sockets = self.sockets.clone();
            let mut sender = UdpClientStream::builder(self.addr, sockets)
                .with_timeout(Some(self.timeout))
                .with_max_retries(1)
                .build();
            self.pacer.slot().await;
            self.stats.add_query(transport);
            sender.send_message(request).first_answer().await
        } else {
            let link = self.link(transport).await?;
            self.pacer.slot().await;
            self.stats.add_query(transport);
            let answer = link.send(request).first_answer().await;
            if answer.is_err() {
                self.forget(&link);
            }
            answer
        }?;
        if answer.queries != asked {
            self.stats.add_lie(Lie::Question, 1);
            return Err(NetError::from("the answer is to another question"));
        }
        Ok(answer)
    }

    /// The connection, made if there is none.
    async fn link(&self, transport: Transport) -> Result<Link, NetError> {
        let since = Instant::now();
        if let Some(link) = &*locked(&self.connection) {
            return Ok(link.clone());
        }
        let mut last = self.connecting.lock().await;
        if let Some(link) = &*locked(&self.connection) {
            return Ok(link.clone());
        }
        if let Some((at, error)) = &*last
            && *at >= since
        {
            return Err(error.clone());
        }
        // A server that refuses connections must not be tried faster than it would be asked.
        self.pacer.slot().await;
        self.stats.add_connection(transport);
        let made = timeout(self.timeout, self.connect(transport)).await;
        let made = made.unwrap_or(Err(NetError::Timeout)).map(Arc::new);
        match &made {
            Ok(link) => *locked(&self.connection) = Some(link.clone()),
            Err(error) => *last = Some((Instant::now(), error.clone())),
        }
        made
    }

    /// The connection failed: the next query makes another.
    fn forget(&self, link: &Link) {
        let mut place = locked(&self.connection);
        if place.as_ref().is_some_and(|other| Arc::ptr_eq(other, link)) {
            *place = None;
        }
    }

    async fn connect(&self, transport: Transport) -> Result<DnsExchange<Sockets>, NetError> {
        let (addr, sockets) = (self.addr, self.sockets.clone());
        let tls = || {
            self.tls
                .clone()
                .ok_or(NetError::Message("TLS is not set up"))
        };
        match (transport, &self.upstream) {
            (Transport::Tls, Upstream::Tls { name, .. }) => {
                let name = ServerName::try_from(&**name)
                    .map_err(|_| NetError::Message("not a name that a certificate can have"))?
                    .to_owned();
                let config = (*tls()?).clone();
                tls_exchange(addr, name, config, self.timeout, None, sockets).await
            }
            (Transport::Https, Upstream::Https { name, path, .. }) => {
                let mut builder = HttpsClientStream::builder(tls()?, sockets);
                builder.request_timeout(self.timeout);
                builder.exchange(addr, name.clone(), path.clone()).await
            }
            _ => TcpClientStream::exchange(addr, None, self.timeout, None, sockets).await,
        }
    }
}

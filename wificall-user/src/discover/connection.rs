//! Connections to a DNS server, on which every query waits for its slot and is counted.
//!
//! hickory sends more queries than it is asked to: it resends datagrams, asks again over TCP and
//! follows CNAMEs. A rate is only kept if it is kept here, where each query leaves.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use hickory_resolver::config::{ConnectionConfig, ProtocolConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::{ConnectionProvider, PoolContext};

use super::pace::Pacer;
use super::{Stats, Transport};

/// Connects to one server.
#[derive(Clone)]
pub(super) struct Paced {
    server: SocketAddr,
    timeout: Duration,
    pacer: Arc<Pacer>,
    stats: Arc<Stats>,
    runtime: TokioRuntimeProvider,
}

impl Paced {
    /// `timeout` is that of one query, from its slot to its answer, and of a TCP connection.
    pub(super) fn new(
        server: SocketAddr,
        timeout: Duration,
        pacer: Arc<Pacer>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            server,
            timeout,
            pacer,
            stats,
            runtime: TokioRuntimeProvider::default(),
        }
    }
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Paced({})", self.server)
    }
}

impl ConnectionProvider for Paced {
    type Conn = PacedExchange;
    type FutureConn = Pin<Box<dyn Future<Output = Result<PacedExchange, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        _server: IpAddr,
        config: &ConnectionConfig,
        _context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let transport = match config.protocol {
            ProtocolConfig::Tcp => Transport::Tcp,
            _ => Transport::Udp,
        };
        let this = self.clone();
        Ok(Box::pin(async move {
            let exchange = match transport {
                // Each query has a socket of its own with a random port, and is sent once.
                Transport::Udp => UdpClientStream::builder(this.server, this.runtime)
                    .with_timeout(Some(this.timeout))
                    .with_max_retries(1)
                    .exchange(),
                Transport::Tcp => {
                    TcpClientStream::exchange(this.server, None, this.timeout, None, this.runtime)
                        .await?
                }
            };
            Ok(PacedExchange {
                exchange,
                transport,
                pacer: this.pacer,
                stats: this.stats,
            })
        }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.runtime
    }
}

/// A connection to a server.
#[derive(Clone)]
pub(super) struct PacedExchange {
    exchange: DnsExchange<TokioRuntimeProvider>,
    transport: Transport,
    pacer: Arc<Pacer>,
    stats: Arc<Stats>,
}

impl DnsHandle for PacedExchange {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let this = self.clone();
        Box::pin(stream::once(async move {
            this.pacer.slot().await;
            this.stats.add_query(this.transport);
            this.exchange.send(request).first_answer().await
        }))
    }
}

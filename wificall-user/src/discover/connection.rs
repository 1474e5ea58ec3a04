//! Connections to a DNS server, on which every query waits for its slot and is counted.
//!
//! hickory sends more queries than it is asked to: it resends datagrams, asks again over TCP and
//! follows CNAMEs. A rate is only kept if it is kept here, where each query leaves.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use hickory_resolver::config::{ConnectionConfig, ProtocolConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{
    RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::{ConnectionProvider, PoolContext};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::pace::Pacer;
use super::{Stats, Transport};

/// Connects to one server.
#[derive(Clone)]
pub(super) struct Paced {
    server: SocketAddr,
    timeout: Duration,
    pacer: Arc<Pacer>,
    stats: Arc<Stats>,
    runtime: Marked,
}

impl Paced {
    /// `timeout` is that of one query, from its slot to its answer, and of a TCP connection; `mark`
    /// is the fwmark of what is sent.
    pub(super) fn new(
        server: SocketAddr,
        timeout: Duration,
        mark: Option<u32>,
        pacer: Arc<Pacer>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            server,
            timeout,
            pacer,
            stats,
            runtime: Marked {
                mark,
                tokio: TokioRuntimeProvider::default(),
            },
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
    type RuntimeProvider = Marked;

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

    fn runtime_provider(&self) -> &Marked {
        &self.runtime
    }
}

/// A connection to a server.
#[derive(Clone)]
pub(super) struct PacedExchange {
    exchange: DnsExchange<Marked>,
    transport: Transport,
    pacer: Arc<Pacer>,
    stats: Arc<Stats>,
}

impl DnsHandle for PacedExchange {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = Marked;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let this = self.clone();
        Box::pin(stream::once(async move {
            this.pacer.slot().await;
            this.stats.add_query(this.transport);
            this.exchange.send(request).first_answer().await
        }))
    }
}

/// Tokio's sockets, marked before anything leaves: the box's rules choose the route by the mark.
#[derive(Clone)]
pub(super) struct Marked {
    mark: Option<u32>,
    tokio: TokioRuntimeProvider,
}

impl Marked {
    fn set<'s>(mark: Option<u32>, socket: impl Into<SockRef<'s>>) -> io::Result<()> {
        match mark {
            Some(mark) => socket.into().set_mark(mark).map_err(|error| {
                let why = format!("set the mark {mark:#x}: {error} (it needs CAP_NET_ADMIN)");
                io::Error::new(error.kind(), why)
            }),
            None => Ok(()),
        }
    }
}

impl RuntimeProvider for Marked {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        wait_for: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        if self.mark.is_none() {
            return self.tokio.connect_tcp(server, bind, wait_for);
        }
        let mark = self.mark;
        Box::pin(async move {
            let socket = match server {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            Self::set(mark, &socket)?;
            if let Some(bind) = bind {
                socket.bind(bind)?;
            }
            socket.set_nodelay(true)?;
            // hickory always says how long to wait: its own connections have a timeout.
            let connected = match wait_for {
                Some(wait_for) => timeout(wait_for, socket.connect(server)).await?,
                None => socket.connect(server).await,
            };
            connected.map(AsyncIoTokioAsStd)
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let (mark, bound) = (self.mark, self.tokio.bind_udp(local, server));
        Box::pin(async move {
            let socket = bound.await?;
            Self::set(mark, &socket)?;
            Ok(socket)
        })
    }
}

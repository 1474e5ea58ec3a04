//! One server: connects to it, asks it, follows the aliases that it tells of, and notes whether it
//! answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequestOptions, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use rustls::ClientConfig;
use tracing::warn;

use super::answer::{Chain, Lie, Read};
use super::connection::Paced;
use super::health::Health;
use super::pace::Pacer;
use super::resolver::{Answer, failed};
use super::schedule::Kind;
use super::socket::Sockets;
use super::tls;
use super::{Failure, FailureKind, Family, Outcome, Stats, Upstream};

/// A server.
pub(super) struct Server {
    pub(super) upstream: Upstream,
    pool: NameServerPool<Paced>,
    paced: Paced,
    health: Mutex<Health>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.upstream)
    }
}

/// What a connection to a server needs.
#[derive(Clone, Debug)]
pub(super) struct Connect {
    pub(super) timeout: Duration,
    pub(super) mark: Option<u32>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) pacer: Arc<Pacer>,
    pub(super) stats: Arc<Stats>,
}

impl Server {
    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn not_asked(&self) -> Failure {
        let down = self.health().down_for(Instant::now()).unwrap_or_default();
        Failure {
            kind: FailureKind::Timeout,
            detail: format!(
                "{}: has not answered for {} s and is not asked",
                self.upstream,
                down.as_secs()
            ),
        }
    }

    /// Asks this server, and again for each alias that it says there is.
    pub(super) async fn ask(&self, name: &Name, kind: Kind, stats: &Stats) -> Answer {
        let record_type = match kind {
            Kind::Addresses(Family::V4) => RecordType::A,
            Kind::Addresses(Family::V6) => RecordType::AAAA,
            Kind::Naptr => RecordType::NAPTR,
        };
        let mut chain = Chain::new(name.clone());
        loop {
            let asked = chain.last().clone();
            let query = Query::query(asked, record_type);
            let answer = self.pool.lookup(query, DnsRequestOptions::default());
            let (read, absent_for) = match answer.first_answer().await {
                Ok(answer) => {
                    let absent_for = answer.negative_ttl();
                    match chain.read(&answer, record_type) {
                        Ok((read, foreign)) => {
                            stats.add_lie(Lie::ForeignName, foreign);
                            (read, absent_for)
                        }
                        Err(lie) => {
                            stats.add_lie(lie, 1);
                            let what = match lie {
                                Lie::CnameLoop => "CNAMEs that lead in a circle",
                                _ => "more CNAMEs than a name has",
                            };
                            let detail = format!("{}: {what}: {}", self.upstream, chain.text());
                            return Answer::of(failed(FailureKind::Bogus, detail));
                        }
                    }
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                    response_code,
                    negative_ttl,
                    ..
                }))) => match response_code {
                    ResponseCode::NXDomain => (Read::NoName, negative_ttl),
                    _ => (Read::NoRecord, negative_ttl),
                },
                Err(error) => return Answer::of(self.failure(&error, stats)),
            };
            let mut answer = Answer::of(Outcome::NoData);
            answer.canonical = chain.canonical();
            answer.absent_for = absent_for.map(|ttl| Duration::from_secs(ttl.into()));
            match read {
                Read::Alias => continue,
                Read::NoRecord => {}
                Read::NoName => answer.outcome = Outcome::NxDomain,
                Read::Replacements { names, ttl } => answer.replacements = Some((names, ttl)),
                Read::Addresses {
                    addresses,
                    ttl,
                    left_out,
                } => {
                    if left_out > 0 && stats.add_lie(Lie::TooMany, left_out) == 0 {
                        warn!(
                            server = %self.upstream, %name, left_out,
                            "more addresses in an answer than a name has: the rest is ignored, \
                             here and from now on"
                        );
                    }
                    answer.left_out = left_out;
                    answer.outcome = Outcome::Addresses { addresses, ttl };
                }
            }
            return answer;
        }
    }

    fn failure(&self, error: &NetError, stats: &Stats) -> Outcome {
        let name = match &self.upstream {
            Upstream::Tls { name, .. } | Upstream::Https { name, .. } => &**name,
            _ => "",
        };
        let behind = self
            .paced
            .failure()
            .filter(|_| matches!(error, NetError::NoConnections));
        let (kind, what) = match behind.as_ref().unwrap_or(error) {
            NetError::Timeout => (FailureKind::Timeout, "no answer in time".to_owned()),
            NetError::Dns(DnsError::ResponseCode(code)) => {
                let kind = match code {
                    ResponseCode::ServFail => FailureKind::ServFail,
                    ResponseCode::Refused => FailureKind::Refused,
                    _ => FailureKind::Other,
                };
                (kind, format!("it answers {code}"))
            }
            NetError::ForeignClassRecord { .. } => {
                stats.add_lie(Lie::Class, 1);
                (FailureKind::Bogus, error.to_string())
            }
            error => match tls::explain(error, name) {
                Some(what) => (FailureKind::Tls, what),
                None if tls::is_io(error) => (FailureKind::Unreachable, plain(error)),
                None => (FailureKind::Other, error.to_string()),
            },
        };
        failed(kind, format!("{}: {what}", self.upstream))
    }
}

impl Connect {
    /// A server; `None` for those of the system.
    pub(super) fn server(&self, upstream: &Upstream) -> Result<Option<Server>, NetError> {
        let addr = match *upstream {
            Upstream::System => return Ok(None),
            Upstream::Udp(addr)
            | Upstream::Tcp(addr)
            | Upstream::Tls { addr, .. }
            | Upstream::Https { addr, .. } => addr,
        };
        self.connect(upstream.clone(), addr).map(Some)
    }

    pub(super) fn connect(&self, upstream: Upstream, addr: SocketAddr) -> Result<Server, NetError> {
        let connections = match &upstream {
            Upstream::System | Upstream::Udp(_) => {
                vec![ConnectionConfig::udp(), ConnectionConfig::tcp()]
            }
            Upstream::Tcp(_) => vec![ConnectionConfig::tcp()],
            Upstream::Tls { name, .. } => vec![ConnectionConfig::tls(name.clone())],
            Upstream::Https { name, path, .. } => {
                vec![ConnectionConfig::https(name.clone(), Some(path.clone()))]
            }
        };
        // The address here is only hickory's name for the server: `Paced` knows where to connect,
        // port and IPv6 scope included.
        let config = NameServerConfig::new(addr.ip(), true, connections);
        let sockets = Sockets::new(self.mark, self.stats.clone());
        let paced = Paced::new(
            upstream.clone(),
            addr,
            self.timeout,
            self.pacer.clone(),
            sockets,
            self.tls.clone(),
            self.stats.clone(),
        );
        // `Paced` has its own; this one is for connections that hickory would make.
        let context = PoolContext::new(options(), TlsConfig::new()?);
        Ok(Server {
            upstream,
            pool: NameServerPool::from_config([config], Arc::new(context), paced.clone()),
            paced,
            health: Mutex::default(),
        })
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    // This one would include the wait for a slot; `Paced` times what happens after it.
    options.timeout = Duration::from_secs(24 * 3600);
    options
}

/// An error without what hickory says before it.
fn plain(error: &NetError) -> String {
    match error {
        NetError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

//! Asks DNS for the addresses of a name.
//!
//! The asking is hickory's; around it stays what a classifier needs: no cache and no hosts file
//! (what DNS says now is what counts), no search domains, each query on the wire paced and
//! counted, failures told apart from absence, and addresses only of the name asked for.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tracing::debug;

use super::connection::Paced;
use super::pace::Pacer;
use super::{Failure, FailureKind, Family, Outcome, Settings, Stats, Transport, Upstream};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// No more servers are taken from `resolv.conf`, as by the C library (`MAXNS`).
const SYSTEM_SERVERS_MAX: usize = 3;

/// Names in a chain of CNAMEs that count; hickory follows no more than 8 across answers.
const CHAIN_MAX: usize = 16;

type Client = hickory_resolver::Resolver<Paced>;

/// Asks the configured servers, one after the other until one knows.
#[derive(Debug)]
pub struct Resolver {
    upstreams: Vec<UpstreamState>,
    connect: Connect,
    /// The server that answered last is asked first, lest a dead one costs every question its
    /// timeout.
    preferred: AtomicUsize,
    stats: Arc<Stats>,
}

#[derive(Debug)]
enum UpstreamState {
    System(Mutex<SystemServers>),
    Server(Arc<Server>),
}

/// The servers of `resolv.conf`, and its text when they were read.
#[derive(Debug)]
struct SystemServers {
    path: PathBuf,
    text: Vec<u8>,
    servers: Vec<Arc<Server>>,
}

#[derive(Debug)]
struct Server {
    upstream: Upstream,
    client: Client,
}

/// What a connection to a server needs.
#[derive(Clone, Debug)]
struct Connect {
    timeout: Duration,
    mark: Option<u32>,
    pacer: Arc<Pacer>,
    stats: Arc<Stats>,
}

impl Resolver {
    /// Makes a resolver. Nothing is sent before the first [`lookup`](Self::lookup).
    ///
    /// # Errors
    ///
    /// If hickory refuses its options.
    pub fn new(settings: &Settings, stats: Arc<Stats>) -> Result<Self, NetError> {
        let pacer = Arc::new(Pacer::new(settings.queries_per_second));
        Self::with(settings, pacer, stats)
    }

    /// A resolver of other settings that counts where this one does. Until the last question of
    /// this one is answered, both share one rate.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn reconfigured(&self, settings: &Settings) -> Result<Self, NetError> {
        let pacer = self.connect.pacer.clone();
        let resolver = Self::with(settings, pacer.clone(), self.stats.clone())?;
        pacer.set_rate(settings.queries_per_second);
        Ok(resolver)
    }

    fn with(settings: &Settings, pacer: Arc<Pacer>, stats: Arc<Stats>) -> Result<Self, NetError> {
        let connect = Connect {
            timeout: settings.timeout,
            mark: settings.mark,
            pacer,
            stats: stats.clone(),
        };
        let upstreams = settings.upstreams.iter().map(|upstream| match *upstream {
            Upstream::System => Ok(UpstreamState::System(Mutex::new(SystemServers::new(
                RESOLV_CONF,
            )))),
            Upstream::Server { addr, transport } => {
                let server = connect.server(addr, transport)?;
                Ok(UpstreamState::Server(Arc::new(server)))
            }
        });
        Ok(Self {
            upstreams: upstreams.collect::<Result<_, NetError>>()?,
            connect,
            preferred: AtomicUsize::new(0),
            stats,
        })
    }

    /// Asks for the addresses of one family of `name`, which is taken as fully qualified.
    pub async fn lookup(&self, name: &str, family: Family) -> Outcome {
        let outcome = self.ask(name, family).await;
        self.stats.add_question(family, &outcome);
        outcome
    }

    async fn ask(&self, name: &str, family: Family) -> Outcome {
        let mut fqdn = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => return failed(FailureKind::Other, format!("not a name: {error}")),
        };
        fqdn.set_fqdn(true);
        let servers = match self.servers() {
            Ok(servers) if !servers.is_empty() => servers,
            Ok(_) => return failed(FailureKind::Unreachable, "no resolver is configured".into()),
            Err(failure) => return Outcome::Failed(failure),
        };
        let first = self.preferred.load(Ordering::Relaxed) % servers.len();
        // A datagram may be lost: a lone server gets a second chance, several get one each.
        let attempts = servers.len().max(2);
        let mut failures: Vec<Failure> = Vec::new();
        for attempt in 0..attempts {
            let index = (first + attempt) % servers.len();
            let server = &servers[index];
            match self.ask_server(server, &fqdn, family).await {
                Outcome::Failed(failure) => {
                    debug!(%name, %failure, "lookup failed");
                    let lost = failure.kind == FailureKind::Timeout;
                    failures.push(failure);
                    if servers.len() == 1 && !lost {
                        break;
                    }
                }
                outcome => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
        Outcome::Failed(summary(failures))
    }

    async fn ask_server(&self, server: &Server, name: &Name, family: Family) -> Outcome {
        let record_type = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        match server.client.lookup(name.clone(), record_type).await {
            Ok(lookup) => {
                let (outcome, foreign) = addresses(&lookup, name);
                self.stats.add_foreign(foreign);
                outcome
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))) => {
                match response_code {
                    ResponseCode::NXDomain => Outcome::NxDomain,
                    _ => Outcome::NoData,
                }
            }
            Err(error) => {
                let kind = match &error {
                    NetError::Timeout => FailureKind::Timeout,
                    NetError::Io(_) | NetError::NoConnections => FailureKind::Unreachable,
                    NetError::Dns(DnsError::ResponseCode(code)) => match code {
                        ResponseCode::ServFail => FailureKind::ServFail,
                        ResponseCode::Refused => FailureKind::Refused,
                        _ => FailureKind::Other,
                    },
                    _ => FailureKind::Other,
                };
                failed(kind, format!("{}: {error}", server.upstream))
            }
        }
    }

    fn servers(&self) -> Result<Vec<Arc<Server>>, Failure> {
        let mut servers = Vec::with_capacity(self.upstreams.len());
        for upstream in &self.upstreams {
            match upstream {
                UpstreamState::Server(server) => servers.push(server.clone()),
                UpstreamState::System(system) => {
                    let mut system = system.lock().unwrap_or_else(PoisonError::into_inner);
                    system.update(&self.connect)?;
                    servers.extend(system.servers.iter().cloned());
                }
            }
        }
        Ok(servers)
    }
}

impl SystemServers {
    fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            text: Vec::new(),
            servers: Vec::new(),
        }
    }

    /// Reads `resolv.conf` anew: DHCP clients and VPNs rewrite it. A missing file means the
    /// defaults, as for the C library.
    fn update(&mut self, connect: &Connect) -> Result<(), Failure> {
        let text = fs::read(&self.path).unwrap_or_default();
        if text == self.text && !self.servers.is_empty() {
            return Ok(());
        }
        let servers = nameservers(&String::from_utf8_lossy(&text))
            .into_iter()
            .map(|addr| connect.server(addr, Transport::Udp).map(Arc::new));
        self.servers = servers.collect::<Result<_, _>>().map_err(|error| Failure {
            kind: FailureKind::Other,
            detail: format!("{}: {error}", self.path.display()),
        })?;
        self.text = text;
        Ok(())
    }
}

/// The servers of a `resolv.conf` (resolv.conf(5)); without any, the one of this host.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let servers: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            nameserver(words.next()?)
        })
        .take(SYSTEM_SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        return vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)];
    }
    servers
}

/// An address; a link-local one with the interface it is on (`fe80::1%eth0`).
fn nameserver(text: &str) -> Option<SocketAddr> {
    match text.split_once('%') {
        None => Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)),
        Some((address, interface)) => {
            let index = interface.parse().ok().or_else(|| {
                let path = format!("/sys/class/net/{interface}/ifindex");
                fs::read_to_string(path).ok()?.trim().parse().ok()
            })?;
            let address = address.parse().ok()?;
            Some(SocketAddrV6::new(address, 53, 0, index).into())
        }
    }
}

impl Connect {
    fn server(&self, addr: SocketAddr, transport: Transport) -> Result<Server, NetError> {
        let connections = match transport {
            Transport::Udp => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
            Transport::Tcp => vec![ConnectionConfig::tcp()],
        };
        // The address here is only hickory's name for the server: `Paced` knows where to connect,
        // port and IPv6 scope included.
        let config = NameServerConfig::new(addr.ip(), true, connections);
        let (pacer, stats) = (self.pacer.clone(), self.stats.clone());
        let paced = Paced::new(addr, self.timeout, self.mark, pacer, stats);
        let config = ResolverConfig::from_name_servers(vec![config]);
        let mut builder = Client::builder_with_config(config, paced);
        *builder.options_mut() = options();
        Ok(Server {
            upstream: Upstream::Server { addr, transport },
            client: builder.build()?,
        })
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = true;
    // Several attempts are `Resolver::ask`'s.
    options.attempts = 0;
    options.num_concurrent_reqs = 1;
    // `addresses` follows the CNAMEs itself.
    options.preserve_intermediates = true;
    // This one would include the wait for a slot; `Paced` times what happens after it.
    options.timeout = Duration::from_secs(24 * 3600);
    options
}

/// The addresses of `name` in an answer, and how many were for names that its CNAMEs do not lead
/// to.
fn addresses(lookup: &Lookup, name: &Name) -> (Outcome, usize) {
    let mut chain = vec![name];
    let mut ttl = u32::MAX;
    while let Some(last) = chain.last().copied()
        && chain.len() < CHAIN_MAX
        && let Some((target, record)) = lookup.answers().iter().find_map(|record| {
            let RData::CNAME(target) = &record.data else {
                return None;
            };
            (record.name == *last).then_some((&target.0, record))
        })
        && !chain.contains(&target)
    {
        ttl = ttl.min(record.ttl);
        chain.push(target);
    }
    let mut addresses = Vec::new();
    let mut foreign = 0;
    for record in lookup.answers() {
        let address = match &record.data {
            RData::A(address) => IpAddr::V4(address.0),
            RData::AAAA(address) => IpAddr::V6(address.0),
            _ => continue,
        };
        if !chain.contains(&&record.name) {
            foreign += 1;
        } else if record.record_type() == lookup.query().query_type()
            && !addresses.contains(&address)
        {
            ttl = ttl.min(record.ttl);
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return (Outcome::NoData, foreign);
    }
    let ttl = Duration::from_secs(ttl.into());
    (Outcome::Addresses { addresses, ttl }, foreign)
}

fn failed(kind: FailureKind, detail: String) -> Outcome {
    Outcome::Failed(Failure { kind, detail })
}

/// One failure for all attempts: the kind of the last, the details of all different ones.
fn summary(failures: Vec<Failure>) -> Failure {
    let kind = failures.last().map_or(FailureKind::Other, |last| last.kind);
    let mut details: Vec<String> = failures.into_iter().map(|f| f.detail).collect();
    details.dedup();
    Failure {
        kind,
        detail: details.join("; "),
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;

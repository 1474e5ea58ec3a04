//! Asks DNS for the addresses of a name.
//!
//! The asking is hickory's; around it stays what a classifier needs: no cache and no hosts file
//! (what DNS says now is what counts), no search domains, each query on the wire paced and
//! counted, servers that do not answer left alone, failures told apart from absence, and
//! addresses only of the name asked for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::Name;
use thiserror::Error;
use tracing::{debug, info, warn};

use super::pace::Pacer;
use super::schedule::Kind;
use super::server::{Connect, Server};
use super::system::{RESOLV_CONF, SystemServers};
use super::tls::{self, TlsError};
use super::upstream::route_of;
use super::{Failure, FailureKind, Family, Outcome, Owner, Settings, Stats, Upstream};

/// Which servers to ask: an index, 0 for those that answer for everything else.
pub type RouteIndex = u16;

/// Asks the configured servers, one after the other until one knows.
#[derive(Debug)]
pub struct Resolver {
    /// The first is for whatever no other is for.
    routes: Vec<Servers>,
    pacer: Arc<Pacer>,
    stats: Arc<Stats>,
    settings: Settings,
}

/// The servers of a route.
#[derive(Debug)]
struct Servers {
    upstreams: Vec<UpstreamState>,
    connect: Connect,
    /// The server that answered last is asked first.
    preferred: AtomicUsize,
}

#[derive(Debug)]
enum UpstreamState {
    System(Mutex<SystemServers>),
    Server(Arc<Server>),
}

/// Why there is no resolver.
#[derive(Debug, Error)]
pub enum ResolverError {
    /// An upstream needs TLS, and nobody can be trusted.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// hickory refuses its options.
    #[error("set up the resolver: {0}")]
    Hickory(#[from] NetError),
}

/// What came of a question, with what only the schedule and people want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub outcome: Outcome,
    /// Replacement names, if the question was for NAPTR, and how long they hold.
    pub replacements: Option<(Vec<String>, Duration)>,
    /// How long the name, or the record, may be taken not to exist (RFC 2308 §5).
    pub absent_for: Option<Duration>,
    /// The name that the name asked for is an alias of.
    pub canonical: Option<String>,
    /// Addresses beyond as many as are taken from one answer.
    pub left_out: usize,
}

impl Answer {
    /// Whether there is what was asked for.
    #[must_use]
    pub fn found(&self) -> bool {
        self.replacements.is_some() || matches!(self.outcome, Outcome::Addresses { .. })
    }

    /// A stable name of the result, for metrics and JSON.
    #[must_use]
    pub fn result(&self) -> &'static str {
        match &self.replacements {
            Some(_) => "names",
            None => self.outcome.as_str(),
        }
    }

    /// An answer that says no more than this.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            replacements: None,
            absent_for: None,
            canonical: None,
            left_out: 0,
        }
    }
}

impl Resolver {
    /// Makes a resolver. Nothing is sent before the first question.
    ///
    /// # Errors
    ///
    /// If an upstream needs TLS and there is nobody to trust.
    pub fn new(settings: &Settings, stats: Arc<Stats>) -> Result<Self, ResolverError> {
        let pacer = Arc::new(Pacer::new(settings.queries_per_second));
        Self::with(settings, pacer, stats)
    }

    /// A resolver of other settings that counts where this one does. Until the last question of
    /// this one is answered, both share one rate.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn reconfigured(&self, settings: &Settings) -> Result<Self, ResolverError> {
        let resolver = Self::with(settings, self.pacer.clone(), self.stats.clone())?;
        self.pacer.set_rate(settings.queries_per_second);
        Ok(resolver)
    }

    fn with(
        settings: &Settings,
        pacer: Arc<Pacer>,
        stats: Arc<Stats>,
    ) -> Result<Self, ResolverError> {
        let others = settings.routes.iter().map(|r| (&r.upstreams, r.mark));
        let all = std::iter::once((&settings.upstreams, settings.mark)).chain(others);
        let encrypted = all
            .clone()
            .flat_map(|(upstreams, _)| upstreams)
            .any(|u| matches!(u, Upstream::Tls { .. } | Upstream::Https { .. }));
        let tls = encrypted
            .then(|| tls::config(settings.ca_file.as_deref()))
            .transpose()?;
        let routes = all.map(|(upstreams, mark)| {
            let connect = Connect {
                timeout: settings.timeout,
                mark,
                tls: tls.clone(),
                pacer: pacer.clone(),
                stats: stats.clone(),
            };
            Servers::new(upstreams, connect)
        });
        let resolver = Self {
            routes: routes.collect::<Result<_, NetError>>()?,
            pacer,
            stats,
            settings: settings.clone(),
        };
        resolver.report();
        Ok(resolver)
    }

    /// Which servers are asked for a name with these owners: those of the first route that is for
    /// one of them.
    pub fn route<'a>(&self, owners: impl IntoIterator<Item = &'a Owner> + Clone) -> RouteIndex {
        route_of(&self.settings.routes, owners)
    }

    /// Asks for the addresses of one family of `name`, which is taken as fully qualified.
    pub async fn lookup(&self, name: &str, family: Family) -> Outcome {
        self.ask(name, family.into(), 0).await.outcome
    }

    /// Asks the servers of a route.
    pub async fn ask(&self, name: &str, kind: Kind, route: RouteIndex) -> Answer {
        let route = self.routes.get(usize::from(route));
        let answer = match route.or(self.routes.first()) {
            Some(servers) => servers.ask(self, name, kind).await,
            None => Answer::of(no_server()),
        };
        self.stats.add_question(kind, &answer);
        answer
    }

    /// For each route whose servers are all down, when one of them may be asked.
    #[must_use]
    pub fn blocked(&self, now: Instant) -> Vec<Option<Instant>> {
        let until = |servers: &Servers| {
            let servers = servers.servers().ok()?;
            let until = servers.iter().map(|s| s.health().blocked_until(now));
            until.collect::<Option<Vec<_>>>()?.into_iter().min()
        };
        self.routes.iter().map(until).collect()
    }

    /// Tells the statistics which servers answer.
    fn report(&self) {
        let mut states = Vec::new();
        for servers in &self.routes {
            for server in servers.servers().unwrap_or_default() {
                let up = server.health().down_for(Instant::now()).is_none();
                states.push((server.upstream.to_string(), up));
            }
        }
        self.stats.set_servers(states);
    }
}

impl Servers {
    fn new(upstreams: &[Upstream], connect: Connect) -> Result<Self, NetError> {
        let upstreams = upstreams.iter().map(|upstream| {
            Ok(match connect.server(upstream)? {
                Some(server) => UpstreamState::Server(Arc::new(server)),
                None => UpstreamState::System(Mutex::new(SystemServers::new(RESOLV_CONF))),
            })
        });
        Ok(Self {
            upstreams: upstreams.collect::<Result<_, NetError>>()?,
            connect,
            preferred: AtomicUsize::new(0),
        })
    }

    async fn ask(&self, resolver: &Resolver, name: &str, kind: Kind) -> Answer {
        let mut fqdn = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => {
                return Answer::of(failed(FailureKind::Other, format!("not a name: {error}")));
            }
        };
        fqdn.set_fqdn(true);
        let servers = match self.servers() {
            Ok(servers) if !servers.is_empty() => servers,
            Ok(_) => return Answer::of(no_server()),
            Err(failure) => return Answer::of(Outcome::Failed(failure)),
        };
        let first = self.preferred.load(Ordering::Relaxed) % servers.len();
        // A datagram may be lost: a lone server gets a second chance, several get one each.
        let attempts = servers.len().max(2);
        let mut failures: Vec<Failure> = Vec::new();
        for attempt in 0..attempts {
            let index = (first + attempt) % servers.len();
            let server = &servers[index];
            if !server.health().may_ask(Instant::now()) {
                if attempt < servers.len() {
                    failures.push(server.not_asked());
                }
                continue;
            }
            let answer = server.ask(&fqdn, kind, &resolver.stats).await;
            let Outcome::Failed(failure) = answer.outcome else {
                self.note(server, false, resolver);
                self.preferred.store(index, Ordering::Relaxed);
                return answer;
            };
            debug!(%name, %failure, "lookup failed");
            let kind = failure.kind;
            failures.push(failure);
            self.note(server, kind.is_silence(), resolver);
            if servers.len() == 1 && kind != FailureKind::Timeout {
                break;
            }
        }
        Answer::of(Outcome::Failed(summary(failures)))
    }

    /// Takes down whether a server answered.
    fn note(&self, server: &Server, lost: bool, resolver: &Resolver) {
        let now = Instant::now();
        let changed = if lost {
            server.health().failed(now)
        } else {
            server.health().answered()
        };
        if !changed {
            return;
        }
        if lost {
            warn!(server = %server.upstream, "the DNS server does not answer");
        } else {
            info!(server = %server.upstream, "the DNS server answers again");
            resolver.stats.add_recovery();
        }
        resolver.report();
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

pub(super) fn failed(kind: FailureKind, detail: String) -> Outcome {
    Outcome::Failed(Failure { kind, detail })
}

fn no_server() -> Outcome {
    failed(
        FailureKind::Unreachable,
        "no resolver is configured".to_owned(),
    )
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

//! `wificall run`: start, then one event at a time until told to end.

use std::{
    future::Future,
    path::PathBuf,
    pin::pin,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::MissedTickBehavior,
};
use tracing::{error, info, warn};

use super::{
    Failure, Request, Requests,
    agent::{Agent, discovery},
    lock::Lock,
    snoop, socket, telemetry,
};
use crate::{
    config,
    discover::{Command, Refresher, Update},
    export::set::Origin,
    net::{self, Change},
    observe::{self, token::Token},
};

/// How often tunnels that begin anew by another exit are looked for, while there may be some: phones send their next message
/// again within two seconds (RFC 7296 §2.1).
const MOVING: Duration = Duration::from_secs(1);
/// Updates taken in at once.
const BATCH: usize = 64;

/// Runs the agent until SIGTERM or SIGINT. The kernel goes on with what it knows.
///
/// # Errors
///
/// If the configuration is wrong, or something that the agent cannot be without fails. Nothing was attached then, or what
/// an agent before had attached is as it was.
pub async fn run(path: PathBuf) -> Result<(), Failure> {
    let parsed = config::load(&path).map_err(Failure::Configuration)?;
    for warning in parsed.warnings.to_string().lines() {
        warn!("{warning}");
    }
    let config = parsed.config;
    let lock = Lock::take(&config.agent.lock_path())?;
    let (requests, requested) = Requests::channel();
    let token = (config.agent.token_file.as_deref())
        .map(Token::read)
        .transpose()
        .map_err(anyhow::Error::from)?;
    // Whether it can listen is known before anything is attached.
    let http = match config.agent.listen {
        Some(address) => Some(observe::http::bind(address).await?),
        None => None,
    };
    let control = socket::bind(&config.agent.control_socket())?;
    let hosts = config.agent.hosts.clone();
    let socket_path = config.agent.control_socket();
    let agent = serve(path, config, requested);
    let side = async {
        let control = socket::serve(control, requests.clone());
        let http = async {
            match http {
                Some(listener) => {
                    observe::http::serve(listener, requests.clone(), hosts, token).await
                }
                None => std::future::pending().await,
            }
        };
        either(pin!(control), pin!(http)).await
    };
    let result = tokio::select! {
        result = agent => result,
        result = side => result,
    };
    // The next agent makes its own; one that is left behind would only look alive.
    let _ = std::fs::remove_file(socket_path);
    drop(lock);
    result.map_err(Failure::Other)
}

/// Whichever ends first.
async fn either<T>(
    first: impl Future<Output = T> + Unpin,
    second: impl Future<Output = T> + Unpin,
) -> T {
    tokio::select! {
        result = first => result,
        result = second => result,
    }
}

async fn serve(
    path: PathBuf,
    config: config::Config,
    mut requested: mpsc::Receiver<Request>,
) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("handle SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    // Subscribed before anything is read, so that no change falls in between.
    let mut watch = net::watch().context("subscribe to changes of the network")?;
    let mut resync = tokio::time::interval(config.agent.resync);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    resync.reset();
    let mut moving = tokio::time::interval(MOVING);
    moving.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looking = tokio::time::interval(telemetry::EVERY);
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reading_on = tokio::time::interval(telemetry::SOON);
    reading_on.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writing = tokio::time::interval(config.telemetry.textfile_interval);
    writing.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let settings = discovery(&config);
    let mut agent = Agent::start(path, config).await?;
    let (mut refresher, mut updates) =
        Refresher::spawn(settings, agent.world.names()).context("start the resolver")?;
    agent.stats = refresher.stats().clone();
    agent.prober.resolve_by(refresher.resolver());
    let mut found = refresher
        .take_found()
        .context("what was found is told once")?;
    info!(
        instance = agent.world.config.agent.instance,
        interfaces = agent.selection.interfaces.len(),
        names = agent.world.targets.names.len(),
        addresses = agent.world.memory.len(),
        "running"
    );
    give_back_memory();
    follow(&mut watch, &mut agent).await?;
    let mut batch: Vec<Update> = Vec::with_capacity(BATCH);
    loop {
        let result = tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                // The refusal is logged and reported where it is decided.
                let _ = agent.reload(&refresher).await;
                follow(&mut watch, &mut agent).await?;
                continue;
            }
            request = requested.recv() => match request {
                Some(request) => {
                    answer(&mut agent, &refresher, request).await;
                    follow(&mut watch, &mut agent).await?;
                    continue;
                }
                None => break,
            },
            change = watch.next() => match change {
                Ok(Change::Links | Change::Addresses) => agent.follow_network().await,
                Ok(Change::Qdiscs { ifindex }) => agent.follow_qdisc(ifindex).await,
                Ok(Change::Rules | Change::Routes | Change::Neighbours) => agent.look_after_exits().await,
                Ok(Change::Overflow) => agent.resync(SystemTime::now()).await,
                Err(problem) => return Err(problem).context("watch the network"),
            },
            _ = updates.recv_many(&mut batch, BATCH) => {
                let result = agent.learn(&batch).await;
                batch.clear();
                result
            }
            heard = snoop::heard(&mut agent.events) => match heard {
                Ok(()) => agent.hear().await,
                Err(problem) => return Err(problem).context("wait for what the programs tell"),
            },
            heard = agent.exits.next() => agent.hear_of_gateway(heard).await,
            Some(found) = found.recv() => {
                agent.find(&found, &refresher);
                continue;
            }
            _ = moving.tick(), if agent.may_move() => agent.follow_moved().await,
            _ = looking.tick(), if agent.tracks() => agent.tick_flows(),
            _ = reading_on.tick(), if agent.lags() => agent.read_on(),
            _ = writing.tick(), if agent.world.config.telemetry.textfile.is_some() => {
                let every = agent.world.config.telemetry.textfile_interval;
                if writing.period() != every {
                    writing = tokio::time::interval(every);
                    writing.reset();
                }
                agent.look_around().await;
                agent.write_textfile();
                continue;
            }
            _ = resync.tick() => {
                let result = agent.resync(SystemTime::now()).await;
                give_back_memory();
                result
            }
        };
        agent.table_problem = result.err().map(|problem| {
            error!("{problem:#}");
            format!("{problem:#}")
        });
        if std::mem::take(&mut agent.questions_changed) {
            refresher.command(Command::Replace(agent.world.names()));
        }
    }
    agent.save_now(SystemTime::now());
    info!(
        "ending; the kernel goes on classifying with what it knows (`wificall detach` removes that)"
    );
    Ok(())
}

/// Has the subscription tell of what the exits need. What changed before it did is looked for once more.
async fn follow(watch: &mut net::Watch, agent: &mut Agent) -> Result<()> {
    if let Some((tables, gateways)) = agent.exits.newly_followed() {
        watch
            .follow(&tables, gateways)
            .context("subscribe to changes of rules and routes")?;
        if let Err(problem) = agent.look_after_exits().await {
            error!("{problem:#}");
        }
    }
    Ok(())
}

/// Gives the kernel back what the C library keeps for later: reading the kernel's BTF takes ten megabytes for a moment,
/// a sweep of the world's names some more.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

async fn answer(agent: &mut Agent, refresher: &Refresher, request: Request) {
    match request {
        Request::Report { clients, asker } => {
            agent.look_around().await;
            match agent.report() {
                // Whoever no longer waits need not be answered.
                Ok(report) if clients => drop(asker.send(report)),
                Ok(report) => drop(asker.send(agent.traces.hide_clients(report))),
                Err(problem) => error!("{problem:#}"),
            }
        }
        Request::Endpoints(asker) => match agent.world.endpoints(Origin::Agent) {
            Ok(set) => drop(asker.send(set)),
            Err(problem) => error!("{problem:#}"),
        },
        Request::Explain(packet, asker) => match agent.explain(&packet) {
            Ok(explanation) => drop(asker.send(explanation)),
            Err(problem) => error!("{problem:#}"),
        },
        Request::TunnelIds(asker) => drop(asker.send(agent.tunnel_ids())),
        Request::Tunnels {
            wanted,
            clients,
            asker,
        } => drop(asker.send(agent.tunnels_view(&wanted, clients))),
        Request::Trace(asker) => drop(asker.send(agent.following())),
        Request::Overview(asker) => match agent.overview() {
            Ok(overview) => drop(asker.send(overview)),
            Err(problem) => error!("{problem:#}"),
        },
        Request::Reload(asker) => {
            let result = agent.reload(refresher).await;
            drop(asker.send(result));
        }
    }
}

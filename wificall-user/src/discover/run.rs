//! The refresh loop: asks what the schedule says is due, and reports what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::schedule::{Kind, Question, Rank, Refresh, Schedule, Wanted};
use super::upstream::route_of;
use super::{
    Answer, Outcome, Owner, Resolver, ResolverError, Route, Settings, Stats, Target, Update,
};

/// How many updates wait for their reader before the loop stops asking.
const UPDATES: usize = 64;

/// What to look up, in which order, and where.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<Wanted>);

impl Names {
    /// The names of targets, as important as `rank` says; and names that are asked for the names
    /// that stand for them (NAPTR).
    pub fn new<'a>(
        targets: impl IntoIterator<Item = &'a Target>,
        rank: impl Fn(&Target) -> Rank,
        visited: impl IntoIterator<Item = (&'a Arc<str>, BTreeSet<Owner>)>,
        routes: &[Route],
    ) -> Self {
        let targets = targets.into_iter().map(|target| Wanted {
            name: target.name.clone(),
            naptr: false,
            rank: rank(target),
            route: route_of(routes, &*target.owners),
        });
        let visited = visited.into_iter().map(|(name, owners)| Wanted {
            name: name.clone(),
            naptr: true,
            rank: Rank::Configured,
            route: route_of(routes, &owners),
        });
        Self(targets.chain(visited).collect())
    }
}

impl From<Vec<Target>> for Names {
    fn from(targets: Vec<Target>) -> Self {
        Self::new(&targets, |_| Rank::Configured, [], &[])
    }
}

/// What NAPTR records said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name that has them.
    pub at: Arc<str>,
    /// The names that they give, as they were given.
    pub names: Vec<String>,
}

/// What the loop may be told.
#[derive(Debug)]
pub enum Command {
    /// Look these names up from now on. Those that stay keep their schedule.
    Replace(Names),
    /// Ask so from now on. Questions on their way end as they began. Where names are asked for is
    /// part of [`Names`].
    Configure(Settings),
    /// Ask for everything now, at the configured rate.
    RefreshNow,
}

/// A running refresh loop. It ends when this is dropped.
#[derive(Debug)]
pub struct Refresher {
    commands: mpsc::UnboundedSender<Command>,
    found: Option<mpsc::UnboundedReceiver<Found>>,
    stats: Arc<Stats>,
    resolver: watch::Receiver<Arc<Resolver>>,
    task: JoinHandle<()>,
}

impl Refresher {
    /// Starts a loop on the current tokio runtime. Updates come through the channel.
    ///
    /// # Errors
    ///
    /// If the resolver cannot be made.
    pub fn spawn(
        settings: Settings,
        names: impl Into<Names>,
    ) -> Result<(Self, mpsc::Receiver<Update>), ResolverError> {
        let stats = Arc::new(Stats::default());
        // Unbounded, so that the reader of the updates can command without waiting for a loop
        // that waits for it. Commands are rare.
        let (commands, commands_out) = mpsc::unbounded_channel();
        let (updates, updates_out) = mpsc::channel(UPDATES);
        // There are a few in an hour.
        let (found, found_out) = mpsc::unbounded_channel();
        let mut state = Loop {
            resolver: watch::Sender::new(Arc::new(Resolver::new(&settings, stats.clone())?)),
            schedule: Schedule::new(refresh(&settings), Instant::now().into_std()),
            concurrency: settings.concurrency.max(1),
            recoveries: 0,
            found,
            stats: stats.clone(),
        };
        state.replace(names.into());
        let resolver = state.resolver.subscribe();
        let task = tokio::spawn(run(state, commands_out, updates));
        let refresher = Self {
            commands,
            found: Some(found_out),
            stats,
            resolver,
            task,
        };
        Ok((refresher, updates_out))
    }

    /// Tells the loop. Does not wait.
    pub fn command(&self, command: Command) {
        if self.commands.send(command).is_err() {
            warn!("the refresh loop has ended and takes no commands");
        }
    }

    /// Where it tells what NAPTR records said; `None` for whoever asks second.
    pub fn take_found(&mut self) -> Option<mpsc::UnboundedReceiver<Found>> {
        self.found.take()
    }

    /// Its resolver, which others may ask too: all share one rate. Another one comes in its place
    /// when the loop is [configured](Command::Configure) anew.
    #[must_use]
    pub fn resolver(&self) -> watch::Receiver<Arc<Resolver>> {
        self.resolver.clone()
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Loop {
    resolver: watch::Sender<Arc<Resolver>>,
    schedule: Schedule,
    concurrency: usize,
    /// Of servers, as far as the schedule knows of them.
    recoveries: u64,
    found: mpsc::UnboundedSender<Found>,
    stats: Arc<Stats>,
}

type Asked = (Question, Answer);

async fn run(
    mut state: Loop,
    mut commands: mpsc::UnboundedReceiver<Command>,
    updates: mpsc::Sender<Update>,
) {
    let mut asking: FuturesUnordered<BoxFuture<'static, Asked>> = FuturesUnordered::new();
    loop {
        let due = state.ask_what_is_due(&mut asking);
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => state.obey(command),
                None => return,
            },
            Some((question, answer)) = asking.next() => {
                for update in state.finish(question, answer) {
                    if updates.send(update).await.is_err() {
                        return;
                    }
                }
            }
            () = wait_until(due) => {}
        }
    }
}

async fn ask(resolver: Arc<Resolver>, question: Question) -> Asked {
    let Question { name, kind, route } = &question;
    let answer = resolver.ask(name, *kind, *route).await;
    (question, answer)
}

async fn wait_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(Instant::from_std(due)).await,
        None => std::future::pending().await,
    }
}

impl Loop {
    /// Starts as many questions as may be on their way. Returns when there may be another, if that
    /// is not for an answer to say.
    fn ask_what_is_due(
        &mut self,
        asking: &mut FuturesUnordered<BoxFuture<'static, Asked>>,
    ) -> Option<std::time::Instant> {
        let now = Instant::now().into_std();
        let recoveries = self.stats.recoveries();
        if std::mem::replace(&mut self.recoveries, recoveries) != recoveries {
            self.schedule.retry_failed(now);
        }
        let resolver = self.resolver.borrow().clone();
        let blocked = resolver.blocked(now);
        let is_blocked = |route| blocked.get(usize::from(route)).is_some_and(Option::is_some);
        while asking.len() < self.concurrency
            && let Some(question) = self.schedule.take_due(now, is_blocked)
        {
            asking.push(ask(resolver.clone(), question).boxed());
        }
        self.stats.set_in_flight(asking.len());
        self.stats.set_backlog(self.schedule.backlog());
        self.stats.set_unasked(self.schedule.unasked());
        // With all places taken, the next question waits for an answer and not for its time.
        if asking.len() >= self.concurrency {
            return None;
        }
        let unblocked = blocked.iter().flatten().min().copied();
        let unblocked = unblocked.filter(|_| self.schedule.backlog() > 0);
        self.schedule.next_new().into_iter().chain(unblocked).min()
    }

    /// Takes in what came of a question: what there is to tell.
    fn finish(&mut self, question: Question, answer: Answer) -> Vec<Update> {
        let now = Instant::now().into_std();
        let implied = self.schedule.finish(&question, &answer, now);
        let at = SystemTime::now();
        let result = answer.result();
        debug!(name = %question.name, kind = question.kind.as_str(), result, "asked");
        if let Some((names, _)) = answer.replacements {
            let at = question.name.clone();
            // Whoever does not listen does not want to know.
            let _ = self.found.send(Found { at, names });
        }
        let implied = implied.map(|question| (question, Outcome::NxDomain));
        std::iter::once((question, answer.outcome))
            .chain(implied)
            .filter_map(|(question, outcome)| match question.kind {
                Kind::Addresses(family) => Some(Update {
                    name: question.name,
                    family,
                    outcome,
                    at,
                }),
                Kind::Naptr => None,
            })
            .collect()
    }

    fn replace(&mut self, Names(wanted): Names) {
        self.schedule.replace(wanted, Instant::now().into_std());
        self.stats.set_names(self.schedule.names());
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now().into_std();
        match command {
            Command::Replace(names) => self.replace(names),
            Command::RefreshNow => self.schedule.refresh_now(now),
            Command::Configure(settings) => {
                let reconfigured = self.resolver.borrow().reconfigured(&settings);
                match reconfigured {
                    Ok(resolver) => drop(self.resolver.send_replace(Arc::new(resolver))),
                    Err(error) => warn!("keeping the old resolvers: {error}"),
                }
                self.concurrency = settings.concurrency.max(1);
                self.schedule.set_refresh(refresh(&settings), now);
            }
        }
    }
}

fn refresh(settings: &Settings) -> Refresh {
    Refresh {
        min: settings.refresh_min,
        max: settings.refresh_max,
        absent_max: settings.absent_max,
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;

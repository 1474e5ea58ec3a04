//! The refresh loop: asks what the schedule says is due, and reports what came of it.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use hickory_resolver::net::NetError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::schedule::{Question, Schedule};
use super::{Outcome, Resolver, Settings, Stats, Target, Update};

/// How many updates wait for their reader before the loop stops asking.
const UPDATES: usize = 64;

/// What the loop may be told.
#[derive(Debug)]
pub enum Command {
    /// Look these names up from now on. Those that stay keep their schedule.
    Replace(Vec<Target>),
    /// Ask so from now on. Questions on their way end as they began.
    Configure(Settings),
    /// Ask for everything now, at the configured rate.
    RefreshNow,
}

/// A running refresh loop. It ends when this is dropped.
#[derive(Debug)]
pub struct Refresher {
    commands: mpsc::UnboundedSender<Command>,
    stats: Arc<Stats>,
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
        targets: &[Target],
    ) -> Result<(Self, mpsc::Receiver<Update>), NetError> {
        let stats = Arc::new(Stats::default());
        // Unbounded, so that the reader of the updates can command without waiting for a loop
        // that waits for it. Commands are rare.
        let (commands, commands_out) = mpsc::unbounded_channel();
        let (updates, updates_out) = mpsc::channel(UPDATES);
        let mut state = Loop {
            resolver: Arc::new(Resolver::new(&settings, stats.clone())?),
            schedule: Schedule::new(settings.refresh_min, settings.refresh_max),
            concurrency: settings.concurrency.max(1),
            stats: stats.clone(),
        };
        state.replace(targets);
        let task = tokio::spawn(run(state, commands_out, updates));
        let refresher = Self {
            commands,
            stats,
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
    resolver: Arc<Resolver>,
    schedule: Schedule,
    concurrency: usize,
    stats: Arc<Stats>,
}

type Answer = (Question, Outcome);

async fn run(
    mut state: Loop,
    mut commands: mpsc::UnboundedReceiver<Command>,
    updates: mpsc::Sender<Update>,
) {
    let mut asking: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
    loop {
        while asking.len() < state.concurrency
            && let Some(question) = state.schedule.take_due(Instant::now().into_std())
        {
            asking.push(ask(state.resolver.clone(), question).boxed());
        }
        state.stats.set_in_flight(asking.len());
        // With all places taken, the next question waits for an answer and not for its time.
        let due = (asking.len() < state.concurrency)
            .then(|| state.schedule.next_due())
            .flatten();
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => state.obey(command),
                None => return,
            },
            Some((question, outcome)) = asking.next() => {
                state.schedule.finish(&question, &outcome, Instant::now().into_std());
                let Question { name, family } = question;
                let at = SystemTime::now();
                debug!(%name, family = family.as_str(), result = outcome.as_str(), "asked");
                if updates.send(Update { name, family, outcome, at }).await.is_err() {
                    return;
                }
            }
            () = wait_until(due) => {}
        }
    }
}

async fn ask(resolver: Arc<Resolver>, question: Question) -> Answer {
    let outcome = resolver.lookup(&question.name, question.family).await;
    (question, outcome)
}

async fn wait_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(Instant::from_std(due)).await,
        None => std::future::pending().await,
    }
}

impl Loop {
    fn replace(&mut self, targets: &[Target]) {
        let names = targets.iter().map(|target| &target.name);
        self.schedule.replace(names, Instant::now().into_std());
        self.stats.set_names(self.schedule.names());
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now().into_std();
        match command {
            Command::Replace(targets) => self.replace(&targets),
            Command::RefreshNow => self.schedule.refresh_now(now),
            Command::Configure(settings) => {
                match self.resolver.reconfigured(&settings) {
                    Ok(resolver) => self.resolver = Arc::new(resolver),
                    Err(error) => warn!(%error, "keeping the old resolvers"),
                }
                self.concurrency = settings.concurrency.max(1);
                let (min, max) = (settings.refresh_min, settings.refresh_max);
                self.schedule.set_refresh(min, max, now);
            }
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;

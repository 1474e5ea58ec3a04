//! Asks gateways whether they are there, each at its own interval, and ePDGs through the gateways in use.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::machine::{Question, Trial};
use crate::net::{Answer, Solicitor};
use crate::probe::{self, Group, Keys, Source, Timing, VerdictKind};

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Whether a gateway has answered ARP or neighbour discovery.
    Gateway {
        /// The exit's table.
        table: u32,
        /// The gateway.
        gateway: IpAddr,
        /// Its answer, with its Ethernet address if it says so; `None` if there was none in time.
        answer: Option<Option<[u8; 6]>>,
    },
    /// Whether an ePDG has answered through a gateway.
    Tried {
        /// What was tried.
        trial: Trial,
        /// Whether it was answered.
        answered: bool,
    },
}

/// Of one IKE probe: it is sent at 0, 0.5 and 1.5 s.
const IKE_TIMING: Timing = Timing {
    timeout: Duration::from_millis(2500),
    retries: 2,
};
const IKE_PORT: u16 = 500;

/// The tasks that ask, one for each gateway. They end when this is dropped.
#[derive(Debug)]
pub struct Prober {
    gateways: BTreeMap<(u32, IpAddr), (Question, Task)>,
    trials: BTreeMap<(Trial, IpAddr), Task>,
    keys: Option<Arc<Keys>>,
    tell: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Default for Prober {
    fn default() -> Self {
        let (tell, heard) = mpsc::channel(64);
        Self {
            gateways: BTreeMap::new(),
            trials: BTreeMap::new(),
            keys: None,
            tell,
            heard,
        }
    }
}

impl Prober {
    /// Asks these from now on. Those that stay keep their pace.
    pub fn ask(&mut self, questions: Vec<Question>) {
        let mut before = std::mem::take(&mut self.gateways);
        for question in questions {
            let key = (question.table, question.gateway);
            let running = before.remove(&key).filter(|(same, _)| *same == question);
            let running = running.unwrap_or_else(|| {
                let task = tokio::spawn(ask(question.clone(), self.tell.clone()));
                (question, Task(task))
            });
            self.gateways.insert(key, running);
        }
    }

    /// Tries these from now on, each with the ePDG beside it.
    pub fn attempt(&mut self, trials: BTreeSet<(Trial, IpAddr)>) {
        self.trials.retain(|trial, _| trials.contains(trial));
        for key in trials {
            if !self.trials.contains_key(&key) {
                let keys = self
                    .keys
                    .get_or_insert_with(|| Arc::new(Keys::new(probe::system_random)));
                let (trial, to) = key.clone();
                let task = tokio::spawn(attempt(trial, to, keys.clone(), self.tell.clone()));
                self.trials.insert(key, Task(task));
            }
        }
    }

    /// Whom IKE is tried with.
    pub fn attempts(&self) -> impl Iterator<Item = &(Trial, IpAddr)> {
        self.trials.keys()
    }

    /// Waits for the next result. Cancel-safe.
    pub async fn next(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            // Never: `tell` is here.
            None => std::future::pending().await,
        }
    }
}

async fn ask(question: Question, tell: mpsc::Sender<Heard>) {
    let Question {
        table,
        gateway,
        ref place,
        interval: every,
    } = question;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut solicitor = None;
    let mut known = None;
    loop {
        ticks.tick().await;
        let answer = match once(&question, &mut solicitor, known).await {
            Ok(answer) => answer,
            Err(error) => {
                debug!(%gateway, device = place.device, "ask a gateway: {error}");
                // Its link may have gone and come back.
                solicitor = None;
                None
            }
        };
        // Whom it was known by may be the reason: everybody is asked next.
        known = answer.and_then(|answer| answer.address);
        let heard = Heard::Gateway {
            table,
            gateway,
            answer: answer.map(|answer| answer.address),
        };
        if tell.send(heard).await.is_err() {
            return;
        }
    }
}

/// Asks once and waits half the interval: so a gateway that dies is found out after `interval × down_after`, give or take
/// half an interval.
async fn once(
    question: &Question,
    solicitor: &mut Option<Solicitor>,
    known: Option<[u8; 6]>,
) -> io::Result<Option<Answer>> {
    let place = &question.place;
    let Some(own) = place.own else {
        return Ok(None);
    };
    let solicitor = match solicitor {
        Some(solicitor) => solicitor,
        None => solicitor.insert(Solicitor::open(
            place.ifindex,
            &place.device,
            own,
            place.source,
            question.gateway,
        )?),
    };
    solicitor.ask(known)?;
    match timeout(question.interval / 2, solicitor.answer()).await {
        Ok(answer) => answer.map(Some),
        Err(_) => Ok(None),
    }
}

async fn attempt(trial: Trial, to: IpAddr, keys: Arc<Keys>, tell: mpsc::Sender<Heard>) {
    loop {
        let start = Instant::now();
        let source = Source {
            mark: Some(trial.mark),
        };
        let remote = SocketAddr::new(to, IKE_PORT);
        let finding = probe::probe(remote, source, Group::Modp2048, IKE_TIMING, None, &keys).await;
        let kind = finding.verdict.kind();
        debug!(gateway = trial.gateway, %to, result = kind.as_str(), "IKE through a gateway");
        // Whatever comes from the ePDG itself has been there and back.
        let answered = !matches!(
            kind,
            VerdictKind::Silent | VerdictKind::Unreachable | VerdictKind::Failed
        );
        let heard = Heard::Tried {
            trial: trial.clone(),
            answered,
        };
        if tell.send(heard).await.is_err() {
            return;
        }
        // After a failure at once, for it is to be found out soon; what failed has taken its time.
        let pause = if answered {
            trial.interval
        } else {
            trial.interval.min(Duration::from_secs(1))
        };
        tokio::time::sleep(pause.saturating_sub(start.elapsed())).await;
    }
}

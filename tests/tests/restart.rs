//! The agent is killed and started again under load, and upgraded to a build with
//! another ABI: no packet notices, and the counters go on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::{Agent, next_abi_binary};
use wificall_tests::capture::Capture;
use wificall_tests::lab::{EF, EPDG4, LIMIT, Lab, MARKED, PHONE4, Watch};
use wificall_tests::process::wait_until;
use wificall_tests::send::{self, NATT, Stream};
use wificall_tests::view::View;

const RESTARTS: u32 = 20;
const UP_RATE: u32 = 10_000;
const DOWN_RATE: u32 = 1_000;
/// Packets that pass while no agent runs, each time.
const ORPHANED: u64 = 500;

/// Two at once would be more than two cores send and capture without a loss.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn restart_and_upgrade_with_tcx() -> Result<()> {
    restart_and_upgrade("tcx")
}

#[test]
fn restart_and_upgrade_with_clsact() -> Result<()> {
    restart_and_upgrade("clsact")
}

fn restart_and_upgrade(method: &str) -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let next = next_abi_binary()?;
    let lab = Lab::new()?;
    let mut agent = Agent::run(
        &lab.router,
        &format!("[interfaces]\naccess = [\"lan\"]\ntc = \"{method}\"\n{MARKED}"),
    )?;
    let attached = agent.wait_hooks("lan", 2)?;
    ensure!(
        attached.sum("wificall_hooks_attached", &[("method", method)]) == 2,
        "the hooks are not attached by {method}"
    );

    let traffic = Traffic::start(&lab)?;
    let mut metrics = agent.metrics()?;
    let mut check = |agent: &Agent<'_>| -> Result<()> {
        let now = agent.metrics()?;
        let gone = now.gone_back(&metrics);
        ensure!(gone.is_empty(), "counters went back: {gone:?}");
        ensure!(
            now.packets(&[]) > metrics.packets(&[]),
            "the counters stand still"
        );
        metrics = now;
        Ok(())
    };
    for number in 1..=RESTARTS {
        agent.kill()?;
        traffic.wait_for_more(ORPHANED)?;
        agent.start()?;
        check(&agent).with_context(|| format!("restart {number}"))?;
    }

    agent.kill()?;
    kill_while_starting(&mut agent)?;
    agent
        .start()
        .context("start after deaths in the middle of it")?;
    check(&agent)?;

    agent.kill()?;
    make_abi_1(&agent.pin_dir())?;
    traffic.wait_for_more(ORPHANED)?;
    agent.start().context("upgrade from ABI 1")?;
    check(&agent).context("upgrade from ABI 1")?;
    let old = generations(&agent.pin_dir())?;
    ensure!(
        old.len() == 1 && !old.iter().any(|name| name.starts_with("abi1-")),
        "ABI 1 was not migrated: {old:?}"
    );

    agent.kill()?;
    agent.use_binary(next);
    traffic.wait_for_more(ORPHANED)?;
    kill_while_starting(&mut agent)?;
    agent.start().context("upgrade")?;
    check(&agent).context("upgrade")?;
    let new = generations(&agent.pin_dir())?;
    ensure!(
        old.len() == 1 && new.len() == 1 && old != new,
        "the pins were not migrated: {old:?} before, {new:?} after"
    );
    traffic.wait_for_more(ORPHANED)?;

    let (up, down) = traffic.finish()?;
    let metrics = agent.metrics()?;
    let counted = |direction| metrics.packets(&[("class", "esp_udp"), ("direction", direction)]);
    println!(
        "{method}: {RESTARTS} restarts and an upgrade; {up} packets up, all marked and EF; \
         {down} down, all EF; counted {} and {}",
        counted("up"),
        counted("down")
    );
    assert_eq!(
        (counted("up"), counted("down")),
        (up, down),
        "counted (left), sent (right)"
    );
    assert_eq!(metrics.packets(&[]), up + down, "in all");
    agent.finish()
}

/// Starts the agent and kills it again before it is ready, each time a little later: at no step may it leave something
/// that the next one does not know of. What it left would handle packets twice, or still be there after `detach`.
fn kill_while_starting(agent: &mut Agent<'_>) -> Result<()> {
    for step in 0..15 {
        agent.spawn()?;
        // The moment is what is tested; there is no condition to wait for.
        sleep(Duration::from_millis(step * 12));
        agent.kill()?;
    }
    Ok(())
}

/// Makes what is pinned what an agent of ABI 1 would have left: it had other maps of blocks, which a later agent does not
/// read, and all else as it is in ABI 2.
fn make_abi_1(pins: &Path) -> Result<()> {
    for name in generations(pins)? {
        let (_, number) = name.split_once('-').context("a generation has a number")?;
        let path = pins.join(format!("abi1-{number}"));
        fs::rename(pins.join(&name), &path).context("rename the pinned maps")?;
        for map in ["BLOCKS4", "BLOCKS6", "SPILLED4", "SPILLED6", "MEMBERS"] {
            fs::remove_file(path.join(map)).with_context(|| format!("unpin {map}"))?;
        }
    }
    Ok(())
}

/// The generations of maps that are pinned: directories called `abi<version>.<number>`.
fn generations(pins: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(pins).with_context(|| pins.display().to_string())?;
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with("abi")).collect())
}

/// Matching packets both ways, without a pause, and what became of them.
struct Traffic {
    up: Stream,
    down: Stream,
    far: Watch,
    phone: Capture<(Option<u32>, u8)>,
}

impl Traffic {
    fn start(lab: &Lab) -> Result<Self> {
        let far = Watch::start(&lab.far)?;
        let phone = Capture::start(&lab.phone, "eth0", |frame| {
            let view = View::of(frame)?;
            (!frame.outgoing && view.ports?.0 == NATT)
                .then(|| (send::esp_sequence(view.payload), view.dscp()))
        })?;
        let phone_socket = send::udp(&lab.phone, &format!("{PHONE4}:{NATT}"))?;
        let far_socket = send::udp(&lab.far, &format!("{EPDG4}:{NATT}"))?;
        Ok(Self {
            up: Stream::start(phone_socket, send::address(EPDG4, NATT)?, UP_RATE, 160),
            down: Stream::start(far_socket, send::address(PHONE4, NATT)?, DOWN_RATE, 160),
            far,
            phone,
        })
    }

    /// Waits until so many more packets have arrived at the far side.
    fn wait_for_more(&self, count: u64) -> Result<()> {
        self.far.wait(self.far.arrived() + count)
    }

    /// Ends it; how many packets were sent up and down, every one of which arrived
    /// once and as it should.
    fn finish(self) -> Result<(u64, u64)> {
        let (up, down) = (self.up.finish()?, self.down.finish()?);
        self.far.wait(up.into())?;
        wait_until("packets down", LIMIT, || {
            (self.phone.kept() >= u64::from(down)).then_some(())
        })?;
        let arrivals = self.far.finish()?;
        let untreated: Vec<_> = arrivals
            .iter()
            .filter(|arrival| !arrival.is_treated())
            .collect();
        ensure!(
            untreated.is_empty(),
            "{} of {up} packets were not treated: {:?} …",
            untreated.len(),
            &untreated[..untreated.len().min(5)]
        );
        // Sorted, because a sender that changes its CPU may overtake itself.
        let mut order: Vec<_> = arrivals.iter().map(|arrival| arrival.sequence).collect();
        order.sort_unstable();
        ensure!(
            order.into_iter().eq(1..=up),
            "packets up were lost or doubled"
        );
        let mut received = self.phone.finish()?;
        received.sort_unstable();
        let expected = (1..=down).map(|number| (Some(number), EF));
        ensure!(
            received.into_iter().eq(expected),
            "packets down were lost, doubled or not EF"
        );
        Ok((up.into(), down.into()))
    }
}

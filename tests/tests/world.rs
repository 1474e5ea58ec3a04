//! The whole world's names, swept: by the agent and by `wificall resolve --world`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::lab::{LIMIT, Lab, ROUTER_DNS};
use wificall_tests::process::{Process, output_within, wait_for};
use wificall_tests::world::{Arrival, World, most_within, name, resolving};

/// Queries a second. A realistic sweep takes a quarter of an hour: `WIFICALL_SWEEP_RATE=20`.
const RATE: u32 = 2000;

/// DESIGN's budget for the agent with the world, which is for what users run. A build without
/// optimisation is larger, and is only to show when something grows without bound.
const RSS_MAX: u64 = 20 << 20;
const UNOPTIMISED_MAX: u64 = 64 << 20;

fn rate() -> Result<u32> {
    match std::env::var("WIFICALL_SWEEP_RATE") {
        Ok(rate) => rate.parse().context("WIFICALL_SWEEP_RATE"),
        Err(_) => Ok(RATE),
    }
}

fn configuration(rate: u32) -> String {
    format!(
        "[interfaces]\naccess = [\"lan\"]\n[discovery]\nworld = true\nnat64_prefix = \"none\"\n\
         resolvers = [\"{ROUTER_DNS}\"]\nqueries_per_second = {rate}\nconcurrency = 64\n\
         [lab]\nadmit = [\"198.18.0.0/16\"]\n"
    )
}

/// The countries of operators, by MCC, from the data.
fn countries() -> BTreeMap<u16, BTreeSet<String>> {
    let rows = include_str!("../../data/mcc_country.tsv").lines();
    let mut countries = BTreeMap::<u16, BTreeSet<String>>::new();
    for row in rows.filter(|row| !row.starts_with('#')) {
        let mut fields = row.split('\t');
        if let (Some(Ok(mcc)), Some(list)) = (fields.next().map(str::parse), fields.next()) {
            let list = list.split([',', '/', ' ']).filter(|c| c.len() == 2);
            countries
                .entry(mcc)
                .or_default()
                .extend(list.map(str::to_owned));
        }
    }
    countries
}

/// That in no window more arrived than the rate allows.
fn check_rate(arrivals: &[Arrival], rate: u32) -> Result<()> {
    let second = most_within(arrivals, Duration::from_secs(1));
    let tenth = most_within(arrivals, Duration::from_millis(100));
    println!("at most {second} queries in 1 s and {tenth} in 100 ms, of {rate} a second");
    ensure!(second <= rate as usize, "{second} in a second, of {rate}");
    ensure!(
        tenth <= rate.div_ceil(10) as usize,
        "{tenth} in 100 ms, of {rate} a second"
    );
    Ok(())
}

/// That every operator whose name resolves was found, in its country.
fn check_found(found: &BTreeMap<String, (Vec<String>, Vec<String>)>) -> Result<()> {
    let countries = countries();
    for plmn in resolving().into_keys() {
        let name = name(plmn);
        let (addresses, of) = found
            .get(&name)
            .with_context(|| format!("{name}: not found"))?;
        let address = resolving()[&plmn].to_string();
        ensure!(
            *addresses == [address.clone()],
            "{name}: {addresses:?}, not {address}"
        );
        // Those that its MCC serves; an operator may serve others beside them.
        let expected = countries.get(&plmn.0).cloned().unwrap_or_default();
        ensure!(
            expected.is_empty() || of.iter().any(|country| expected.contains(country)),
            "{name}: in {of:?}, not in {expected:?}"
        );
    }
    ensure!(
        found.len() == resolving().len(),
        "{} names have addresses, not {}",
        found.len(),
        resolving().len()
    );
    Ok(())
}

fn memory(pid: u64, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field));
    let kilobytes = line
        .and_then(|line| line.split_whitespace().nth(1))
        .context("memory")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

fn strings(value: &serde_json::Value) -> Vec<String> {
    let values = value.as_array().into_iter().flatten();
    values
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}

#[test]
fn the_agent_sweeps_the_world_within_its_rate() -> Result<()> {
    let lab = Lab::new()?;
    let mut world = World::start(&lab, 3600)?;
    let rate = rate()?;
    let start = Instant::now();
    let agent = Agent::run(&lab.router, &configuration(rate))?;
    let limit = LIMIT + Duration::from_secs(60_000 / u64::from(rate.min(60_000)));
    let metrics = wait_for("the end of the sweep", limit, || {
        std::thread::sleep(Duration::from_millis(200));
        let metrics = agent.metrics()?;
        let left = metrics.sum("wificall_dns_names_unasked", &[])
            + metrics.sum("wificall_dns_backlog", &[])
            + metrics.sum("wificall_dns_names", &[("state", "pending")]);
        ensure!(left == 0, "{left} left");
        Ok(metrics)
    })?;
    let elapsed = start.elapsed();
    let arrivals = world.take()?;
    let names = metrics.sum("wificall_dns_names", &[]);
    let with = metrics.sum("wificall_dns_names", &[("state", "addresses")]);
    println!(
        "{names} names, {with} with addresses, {} queries in {:.1} s",
        arrivals.len(),
        elapsed.as_secs_f64()
    );
    check_rate(&arrivals, rate)?;
    // What the agent says that it sent is what arrived; and no name is asked twice for nothing.
    ensure!(arrivals.len() as u64 == metrics.sum("wificall_dns_queries_total", &[]));
    ensure!(names > 4000, "{names} names are not the world");
    ensure!(
        arrivals.len() as u64 == names + with,
        "A of all, AAAA of those there are"
    );

    let status = agent.status()?;
    let pid = status["pid"].as_u64().context("pid")?;
    let optimised = !cfg!(debug_assertions) || std::env::var_os("WIFICALL_BIN").is_some();
    let most = if optimised { RSS_MAX } else { UNOPTIMISED_MAX };
    // What only the sweep needed is given back with the next resync.
    wait_for("little memory", LIMIT, || {
        let (rss, own) = (memory(pid, "VmRSS:")?, memory(pid, "RssAnon:")?);
        ensure!(rss <= most, "{rss} bytes resident, not {most}");
        println!("{rss} bytes resident, {own} of them its own");
        Ok(())
    })?;
    let mut found = BTreeMap::new();
    for name in status["discovery"]["names"].as_array().context("names")? {
        let addresses = strings(&name["addresses"]);
        if !addresses.is_empty() {
            let text = name["name"].as_str().context("name")?.to_owned();
            found.insert(text, (addresses, strings(&name["countries"])));
        }
    }
    check_found(&found)?;
    // And the kernel has them: each block of 200 in use, beside those of addresses that the catalogue has.
    let blocks = metrics.sum("wificall_endpoints", &[("kind", "ipv4_blocks")]);
    ensure!(
        blocks as usize >= resolving().len().div_ceil(200),
        "{blocks} blocks"
    );
    agent.finish()
}

#[test]
fn resolve_world_shows_how_far_it_is_and_stops_when_told() -> Result<()> {
    let lab = Lab::new()?;
    let mut world = World::start(&lab, 3600)?;
    let rate = rate()?;
    let agent = Agent::new(&lab.router, &configuration(rate))?;
    let start = Instant::now();
    let limit = LIMIT + Duration::from_secs(60_000 / u64::from(rate.min(60_000)));
    let output = output_within(&mut agent.command(&["resolve", "--world", "--json"]), limit)?;
    let elapsed = start.elapsed();
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let arrivals = world.take()?;
    println!(
        "{} queries in {:.1} s",
        arrivals.len(),
        elapsed.as_secs_f64()
    );
    check_rate(&arrivals, rate)?;
    let resolved: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(resolved["queries"].as_u64() == Some(arrivals.len() as u64));
    let mut found = BTreeMap::new();
    for name in resolved["names"].as_array().context("names")? {
        let addresses = strings(&name["ipv4"]["addresses"]);
        if !addresses.is_empty() {
            let text = name["name"].as_str().context("name")?.to_owned();
            found.insert(text, (addresses, strings(&name["countries"])));
        }
    }
    check_found(&found)?;

    // Slowly, and interrupted: meanwhile how far it is, and then what there is.
    agent.configure(&configuration(50))?;
    let mut command = agent.command(&["resolve", "--world"]);
    let directory = tempfile::tempdir()?;
    let mut sweep = Process::spawn(
        {
            command.stdin(std::process::Stdio::null());
            command
        },
        "sweep",
        directory.path(),
    )?;
    // Where there is no terminal, a line every ten seconds.
    let is_progress = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse::<usize>().ok();
        let (done, total) = (number(0).unwrap_or(0), number(2).unwrap_or(0));
        done > 20 && done < total && line.contains(" names, ") && line.contains(" s left; ")
    };
    wait_for("its progress", LIMIT, || {
        let log = sweep.log();
        ensure!(log.lines().any(is_progress), "{log}");
        Ok(())
    })
    .or_else(|error| sweep.check_running().and(Err(error)))?;
    sweep.signal(libc::SIGINT)?;
    let status = sweep.wait_exit(LIMIT)?;
    let text = sweep.log();
    ensure!(status.code() == Some(1), "{status}: {text}");
    ensure!(
        text.contains("interrupted: ") && text.contains(" names asked, "),
        "{text}"
    );
    Ok(())
}

//! `health = "ike"`: a gateway that answers ARP while no ePDG answers through it.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::bypass::{AU, Bypass, COUNTRIES, DE, FAST, US, basis, nft};
use wificall_tests::lab::LIMIT;
use wificall_tests::send::IKE;

use crate::call::begins;
use crate::failover::wait_routes;

const FIRST: usize = 0;
const SECOND: usize = 1;
/// How long a gateway is left alone that has failed for the first time (docs/exits.md), and what it takes to find out.
const TURN: Duration = Duration::from_secs(30 + 20);

/// An ePDG that refuses every proposal: it is there.
struct Epdg {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Epdg {
    fn start(scene: &Bypass, address: &str) -> Result<Self> {
        let socket = scene.internet.enter(|| UdpSocket::bind((address, IKE)))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((28.., from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let mut answer = buffer[..8].to_vec();
                answer.extend([0; 8]);
                // A notify in an answer of IKE_SA_INIT, 36 octets: NO_PROPOSAL_CHOSEN (RFC 7296 §3.1, §3.10).
                answer.extend([41, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 36]);
                answer.extend([0, 0, 0, 8, 0, 0, 0, 14]);
                // The prober will tell that nothing came.
                let _ = socket.send_to(&answer, from);
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Epdg {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A gateway's provider drops IPsec.
fn breaks(scene: &Bypass, gateway: usize) -> Result<()> {
    nft(
        &scene.gateways[gateway],
        &[
            "add table inet broken",
            "add chain inet broken way { type filter hook forward priority 0 ; }",
            "add rule inet broken way udp dport { 500, 4500 } drop",
        ],
    )
}

fn works(scene: &Bypass, gateway: usize) -> Result<()> {
    nft(&scene.gateways[gateway], &["delete table inet broken"])
}

fn all_begin(scene: &Bypass, place: usize) -> Result<()> {
    for epdg in DE.epdg {
        let at = begins(scene, 0, epdg)?;
        ensure!(at == Some(place), "{epdg}: {at:?}");
    }
    Ok(())
}

#[test]
fn a_gateway_through_which_no_epdg_answers_is_left_and_tried_again_after_the_others() -> Result<()>
{
    let scene = Bypass::new()?;
    let _epdgs = [
        Epdg::start(&scene, DE.epdg[0])?,
        Epdg::start(&scene, DE.epdg[1])?,
    ];
    // Whom to ask: addresses, for nobody knows who in a network is one.
    let hosts = DE.epdg.map(|epdg| {
        let length = if epdg.contains(':') { 128 } else { 32 };
        let operator = DE.operator;
        format!("[[prefix]]\nprefix = \"{epdg}/{length}\"\noperator = \"{operator}\"\n")
    });
    let exit = DE.exit("health = \"ike\"\ninterval = \"1s\"\nwhen_none = \"block\"");
    let others = [AU, US].map(|country| country.exit(FAST)).concat();
    let policies = COUNTRIES.map(|country| country.by(&country)).concat();
    let agent = Agent::run(
        &scene.router,
        &(basis() + &hosts.concat() + &exit + &others + &policies),
    )?;
    Bypass::wait_gateways(&agent, 0)?;
    all_begin(&scene, FIRST).context("while it works")?;

    breaks(&scene, FIRST)?;
    wait_routes(&scene, DE.gateways[SECOND], LIMIT).context("the first is broken")?;
    scene
        .router
        .run("ping", &format!("-c 1 {}", DE.gateways[FIRST][0]))?;
    Bypass::wait_gateways(&agent, 2).context("it answers ARP, and is down")?;
    all_begin(&scene, SECOND).context("the first is broken")?;

    // ARP says nothing of it; only being used shows that it works again, and there is no need to try.
    works(&scene, FIRST)?;
    thread::sleep(Duration::from_secs(5));
    all_begin(&scene, SECOND).context("the first works again")?;

    breaks(&scene, SECOND)?;
    wait_routes(&scene, DE.gateways[FIRST], TURN).context("the second is broken")?;
    all_begin(&scene, FIRST).context("the second is broken")?;
    Bypass::wait_gateways(&agent, 2).context("the first is up, the second is down")?;
    agent.finish()
}

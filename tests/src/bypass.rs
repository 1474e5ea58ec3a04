//! The job of a bypass router: three countries, two gateways each, all on the phones' own network.
//!
//! ```text
//!  phone a ─┐                       ┌─ wan ────────┐
//!  phone b ─┼─ switch ── lan router ┘              │
//!  de1 de2 ─┤                                      ├─ internet: all ePDGs
//!  au1 au2 ─┤   each gateway: eth0 ── wan ─────────┘
//!  us1 us2 ─┘
//! ```
//!
//! The Internet answers through the link by which it was asked. `de1`, `de2` and `au1` translate addresses, so that only
//! their own connection tracking knows whose an answer is; the others are plain routers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::Agent;
use crate::capture::{Capture, Frame};
use crate::lab::LIMIT;
use crate::netns::{Netns, veth};
use crate::process::wait_until;
use crate::send::{self, NATT};
use crate::view::View;

/// The phones' addresses.
pub const PHONES: [[&str; 2]; 2] = [["10.77.0.2", "fd77::2"], ["10.77.0.3", "fd77::3"]];
/// The router's on their network.
pub const ROUTER: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// A far host that is no ePDG, IPv4 and IPv6.
pub const OTHER: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
/// How often a gateway is asked in these labs, so that a dead one is found in about 300 ms.
pub const FAST: &str = "interval = \"100ms\"";
/// How many places there are: six gateways, and the router's own way.
pub const PLACES: usize = 7;
/// The place that is no gateway: where packets arrive that the router sends out of `wan`.
pub const DIRECT: usize = 6;

/// A country, its ePDG, its two gateways and its exit.
#[derive(Clone, Copy, Debug)]
pub struct Country {
    /// Name of its exit and policy, and of its gateways' namespaces.
    pub name: &'static str,
    /// Its code (ISO 3166-1 alpha-2).
    pub code: &'static str,
    /// Its operator.
    pub operator: &'static str,
    /// Its ePDG.
    pub epdg: [&'static str; 2],
    /// The addresses of its gateways on the phones' network.
    pub gateways: [[&'static str; 2]; 2],
    /// Table, and mark, of its exit.
    pub table: u32,
}

/// The three, in the order of their places: the gateways of country `n` are places `2n` and `2n + 1`.
pub const COUNTRIES: [Country; 3] = [
    Country {
        name: "de",
        code: "DE",
        operator: "262-01",
        epdg: ["198.18.1.10", "2001:db8:1801::10"],
        gateways: [["10.77.0.11", "fd77::11"], ["10.77.0.12", "fd77::12"]],
        table: 1065,
    },
    Country {
        name: "au",
        code: "AU",
        operator: "505-01",
        epdg: ["198.18.2.10", "2001:db8:1802::10"],
        gateways: [["10.77.0.21", "fd77::21"], ["10.77.0.22", "fd77::22"]],
        table: 1066,
    },
    Country {
        name: "us",
        code: "US",
        operator: "310-260",
        epdg: ["198.18.3.10", "2001:db8:1803::10"],
        gateways: [["10.77.0.31", "fd77::31"], ["10.77.0.32", "fd77::32"]],
        table: 1067,
    },
];
/// Germany.
pub const DE: &Country = &COUNTRIES[0];
/// Australia.
pub const AU: &Country = &COUNTRIES[1];
/// The United States.
pub const US: &Country = &COUNTRIES[2];

/// What a place is called in tables.
pub const NAMES: [&str; PLACES] = ["de1", "de2", "au1", "au2", "us1", "us2", "direct"];
/// The gateways that translate addresses.
const TRANSLATING: [usize; 3] = [0, 1, 2];

/// Interfaces, and the ePDGs with their owners.
#[must_use]
pub fn basis() -> String {
    let mut text = String::from(
        "[interfaces]\naccess = [\"lan\"]\n[discovery]\nnat64_prefix = \"none\"\n[lab]\nadmit = [\"198.18.0.0/15\", \"2001:db8::/32\"]\n",
    );
    for (index, country) in COUNTRIES.iter().enumerate() {
        let number = index + 1;
        for prefix in [
            format!("198.18.{number}.0/24"),
            format!("2001:db8:180{number}::/64"),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "[[prefix]]\nprefix = \"{prefix}\"\noperator = \"{}\"",
                country.operator
            );
        }
    }
    text
}

impl Country {
    /// Its exit, with further keys.
    #[must_use]
    pub fn exit(&self, keys: &str) -> String {
        self.exit_by(&self.gateways.concat(), keys)
    }

    /// Its exit with other gateways.
    #[must_use]
    pub fn exit_by(&self, gateways: &[&str], keys: &str) -> String {
        let Self { name, table, .. } = self;
        let mark = table - 1000;
        format!(
            "[[exit]]\nname = \"{name}\"\ngateways = {gateways:?}\ntable = {table}\nmark = \"0x{mark}/0xff\"\n{keys}\n"
        )
    }

    /// A policy that sends it by the exit of a country, its own or another's.
    #[must_use]
    pub fn by(&self, exit: &Self) -> String {
        let Self { name, code, .. } = self;
        format!(
            "[[policy]]\nname = \"{name}\"\ncountries = [\"{code}\"]\nexit = \"{}\"\n",
            exit.name
        )
    }
}

/// The whole job: each country by its own exit, all of which have these further keys.
#[must_use]
pub fn configuration(keys: &str) -> String {
    let exits = COUNTRIES.map(|country| country.exit(keys)).concat();
    let policies = COUNTRIES.map(|country| country.by(&country)).concat();
    basis() + &exits + &policies
}

/// The namespaces, connected and routing.
pub struct Bypass {
    /// The phones; interface `eth0`.
    pub phones: [Netns; 2],
    /// The router; interfaces `lan` and `wan`.
    pub router: Netns,
    /// In the order of [`NAMES`]; interfaces `eth0` and `wan`.
    pub gateways: [Netns; DIRECT],
    /// All ePDGs and [`OTHER`]; interfaces `g0` to `g6`, in the order of [`NAMES`].
    pub internet: Netns,
    switch: Netns,
}

impl Bypass {
    /// Builds them.
    ///
    /// # Errors
    ///
    /// If not root, or nftables is missing.
    pub fn new() -> Result<Self> {
        let gateway = |place: usize| Netns::new(NAMES[place]);
        let scene = Self {
            phones: [Netns::new("a")?, Netns::new("b")?],
            router: Netns::new("router")?,
            gateways: [
                gateway(0)?,
                gateway(1)?,
                gateway(2)?,
                gateway(3)?,
                gateway(4)?,
                gateway(5)?,
            ],
            internet: Netns::new("internet")?,
            switch: Netns::new("switch")?,
        };
        // Before there are interfaces, which take over what is set: no redirects, or phones would go to gateways by themselves.
        for router in scene
            .gateways
            .iter()
            .chain([&scene.router, &scene.internet])
        {
            router.forward()?;
        }
        scene.lan()?;
        scene.links()?;
        scene.internet()?;
        Ok(scene)
    }

    fn lan(&self) -> Result<()> {
        let Self { router, switch, .. } = self;
        let mut ports = Vec::new();
        let mut join = |host: &Netns, device: &str, port: String, [v4, v6]: [&str; 2]| {
            veth((host, device), (switch, &port))?;
            host.address(device, &[&format!("{v4}/24"), &format!("{v6}/64")])?;
            ports.push(port);
            Ok::<_, anyhow::Error>(())
        };
        join(router, "lan", "router".into(), ROUTER)?;
        for (index, phone) in self.phones.iter().enumerate() {
            join(phone, "eth0", format!("phone{index}"), PHONES[index])?;
            for via in ROUTER {
                phone.ip(&format!("route add default via {via}"))?;
            }
        }
        for (place, gateway) in self.gateways.iter().enumerate() {
            let address = COUNTRIES[place / 2].gateways[place % 2];
            join(gateway, "eth0", port(place), address)?;
        }
        let ports: Vec<_> = ports.iter().map(String::as_str).collect();
        switch.bridge("br0", &ports)
    }

    fn links(&self) -> Result<()> {
        for (place, router) in self
            .gateways
            .iter()
            .chain(std::iter::once(&self.router))
            .enumerate()
        {
            let device = format!("g{place}");
            veth((router, "wan"), (&self.internet, &device))?;
            for (host, device, end) in [(router, "wan", 1), (&self.internet, &device[..], 2)] {
                let [v4, v6] = wan(place, end);
                host.address(device, &[&format!("{v4}/30"), &format!("{v6}/64")])?;
            }
            for (via, lan) in wan(place, 2).iter().zip(["10.77.0.0/24", "fd77::/64"]) {
                router.ip(&format!("route add default via {via}"))?;
                // Who has lost the phones' network does not look for it elsewhere.
                router.ip(&format!("route add blackhole {lan} metric 9999"))?;
            }
            if TRANSLATING.contains(&place) {
                masquerade(router, "wan")?;
            }
        }
        Ok(())
    }

    /// Routes what is answered by the link that the question came by.
    fn internet(&self) -> Result<()> {
        let internet = &self.internet;
        let hosts = COUNTRIES.iter().flat_map(|country| country.epdg);
        let hosts: Vec<_> = hosts.chain(OTHER).collect();
        internet.address("lo", &hosts)?;
        nft(
            internet,
            &[
                "add table inet back",
                "add chain inet back in { type filter hook prerouting priority -150 ; }",
                "add chain inet back out { type route hook output priority -150 ; }",
                "add rule inet back out meta mark set ct mark",
            ],
        )?;
        for place in 0..PLACES {
            let (mark, table) = (place + 1, 100 + place);
            nft(
                internet,
                &[&format!(
                    "add rule inet back in iifname g{place} ct direction original ct mark set {mark}"
                )],
            )?;
            for (family, via) in ["-4", "-6"].iter().zip(wan(place, 1)) {
                internet.ip(&format!(
                    "{family} route add default via {via} table {table}"
                ))?;
                internet.ip(&format!("{family} rule add fwmark {mark} lookup {table}"))?;
            }
        }
        for via in wan(DIRECT, 1) {
            internet.ip(&format!("route add default via {via}"))?;
        }
        Ok(())
    }

    /// Nothing comes from a gateway any more, as if its power had gone; nobody else's link changes.
    ///
    /// # Errors
    ///
    /// If `ip` refuses.
    pub fn kill(&self, place: usize) -> Result<()> {
        let port = port(place);
        self.switch.ip(&format!("link set {port} down")).map(drop)
    }

    /// It comes back.
    ///
    /// # Errors
    ///
    /// If `ip` refuses.
    pub fn revive(&self, place: usize) -> Result<()> {
        let port = port(place);
        self.switch.ip(&format!("link set {port} up")).map(drop)
    }

    /// Counts, from now on, what comes in from the phones' network with a mark.
    ///
    /// # Errors
    ///
    /// If nftables is missing.
    pub fn count_marks(&self) -> Result<()> {
        nft(
            &self.router,
            &[
                "add table inet marks",
                "add counter inet marks marked",
                "add chain inet marks pre { type filter hook prerouting priority -300 ; }",
                "add rule inet marks pre iifname lan meta mark != 0 counter name marked",
            ],
        )
    }

    /// How many there were.
    ///
    /// # Errors
    ///
    /// If they are not counted.
    pub fn marks(&self) -> Result<u64> {
        let text = self.router.run("nft", "list counter inet marks marked")?;
        let mut words = text
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        let count = words.nth(1).context("no count of packets")?;
        Ok(count.parse()?)
    }

    /// Waits until all gateways but `down` of them are known to be up.
    ///
    /// # Errors
    ///
    /// If they are not in time.
    pub fn wait_gateways(agent: &Agent<'_>, down: u64) -> Result<()> {
        let what = format!("{down} gateways down");
        let metrics = agent.wait_metrics(&what, |metrics| {
            let known = metrics.select("wificall_exit_gateway_up", &[]).count() as u64;
            let up = metrics.sum("wificall_exit_gateway_up", &[]);
            ensure!(up + down == known, "{up} of {known} are up");
            Ok(())
        });
        metrics.map(drop)
    }
}

fn port(place: usize) -> String {
    format!("gateway{place}")
}

/// The address of an end of the link to the Internet: 1 is the router's, 2 the Internet's.
#[must_use]
pub fn wan(place: usize, end: usize) -> [String; 2] {
    [
        format!("198.19.{place}.{end}"),
        format!("fd00:{place}::{end}"),
    ]
}

/// Runs nft commands.
///
/// # Errors
///
/// If one is refused.
pub fn nft(namespace: &Netns, commands: &[&str]) -> Result<()> {
    for command in commands {
        namespace.run("nft", command)?;
    }
    Ok(())
}

/// Masquerades what leaves by `device`, IPv4 and IPv6.
///
/// # Errors
///
/// If nftables is missing.
pub fn masquerade(namespace: &Netns, device: &str) -> Result<()> {
    nft(
        namespace,
        &[
            "add table inet nat",
            "add chain inet nat post { type nat hook postrouting priority 100 ; }",
            &format!("add rule inet nat post oifname {device} masquerade"),
        ],
    )
}

/// A packet that arrived at a place to be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where: an index of [`NAMES`].
    pub place: usize,
    /// When.
    pub time: Duration,
    /// Its source.
    pub from: IpAddr,
    /// Its destination.
    pub to: IpAddr,
    /// Its protocol; of an IPv6 fragment that of the fragment header.
    pub protocol: u8,
    /// Its ports, if it has any and is no later fragment.
    pub ports: Option<(u16, u16)>,
    /// Its DSCP.
    pub dscp: u8,
    /// Octets behind the UDP header, or else the IP header.
    pub length: usize,
    /// Its number, if it goes to port 4500 and is as [`send::esp`] makes it; not of IKE.
    pub number: Option<u32>,
}

impl Arrival {
    fn of(frame: &Frame<'_>, place: usize) -> Option<Self> {
        let view = View::of(frame)?;
        let to_natt = view.ports.is_some_and(|(_, to)| to == NATT);
        view.is_traffic().then(|| Self {
            place,
            time: frame.time,
            from: view.source,
            to: view.destination,
            protocol: view.protocol,
            ports: view.ports,
            dscp: view.dscp(),
            length: view.payload.len(),
            // Behind an SPI of zero is IKE.
            number: (to_natt && !view.payload.starts_with(&[0; 4]))
                .then(|| send::esp_sequence(view.payload))
                .flatten(),
        })
    }
}

/// Captures at all places at once: what each gateway is given on the phones' network, by its Ethernet address, and what
/// the router sends out of `wan`.
pub struct Watch(Vec<Capture<Arrival>>);

impl Watch {
    /// Watches everything that is forwarded.
    ///
    /// # Errors
    ///
    /// If AF_PACKET is not permitted.
    pub fn start(scene: &Bypass) -> Result<Self> {
        Self::of(scene, |_| true)
    }

    /// Watches what `keep` says.
    ///
    /// # Errors
    ///
    /// If AF_PACKET is not permitted.
    pub fn of(
        scene: &Bypass,
        keep: impl Fn(&Arrival) -> bool + Clone + Send + 'static,
    ) -> Result<Self> {
        let mut captures = Vec::new();
        for place in 0..PLACES {
            let keep = keep.clone();
            let (host, device) = match scene.gateways.get(place) {
                Some(gateway) => (gateway, "eth0"),
                None => (&scene.internet, "g6"),
            };
            // A switch that does not know a host any more floods what is for it.
            let own = host.mac(device)?;
            captures.push(Capture::start(host, device, move |frame| {
                let target = frame
                    .bytes
                    .get(..6)?
                    .iter()
                    .map(|octet| format!("{octet:02x}"));
                let is_own = target.collect::<Vec<_>>().join(":") == own;
                let arrival = Arrival::of(frame, place)?;
                (is_own && !frame.outgoing && keep(&arrival)).then_some(arrival)
            })?);
        }
        Ok(Self(captures))
    }

    /// How many have arrived at a place.
    #[must_use]
    pub fn at(&self, place: usize) -> u64 {
        self.0[place].kept()
    }

    /// How many have arrived anywhere.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.0.iter().map(Capture::kept).sum()
    }

    /// Waits until so many more have arrived at a place.
    ///
    /// # Errors
    ///
    /// If they do not.
    pub fn wait_more(&self, place: usize, count: u64) -> Result<()> {
        let due = self.at(place) + count;
        let what = format!("{count} more packets at {}", NAMES[place]);
        wait_until(&what, LIMIT, || (self.at(place) >= due).then_some(()))
    }

    /// What arrived, by time.
    ///
    /// # Errors
    ///
    /// If a capture lost a frame.
    pub fn finish(self) -> Result<Vec<Arrival>> {
        let mut all = Vec::new();
        for capture in self.0 {
            all.extend(capture.finish()?);
        }
        all.sort_by_key(|arrival| arrival.time);
        Ok(all)
    }
}

/// How many arrived at each place.
#[must_use]
pub fn by_place(arrivals: &[Arrival]) -> [u64; PLACES] {
    let mut counts = [0; PLACES];
    for arrival in arrivals {
        counts[arrival.place] += 1;
    }
    counts
}

/// Waits until `count` have arrived in all, and a moment more for one too many.
///
/// # Errors
///
/// If they do not.
pub fn settle(watch: &Watch, count: u64) -> Result<()> {
    const MOMENT: Duration = Duration::from_millis(50);
    let waited = wait_until("packets", LIMIT, || (watch.all() >= count).then_some(()));
    if let Err(error) = waited {
        let places = (0..PLACES).map(|place| (NAMES[place], watch.at(place)));
        let places: BTreeMap<_, _> = places.collect();
        return Err(error.context(format!("{count} were expected, there are {places:?}")));
    }
    thread::sleep(MOMENT);
    Ok(())
}

//! What becomes of other traffic over a veth pair when XDP is attached to one end of it.
//!
//! A phone, a router and a host far away, with sockets and the kernel's TCP. The XDP program, at the router's end of the
//! link to the phone, passes everything and does nothing else.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        Scale,
        row::{Row, setting},
        turns::{Effort, Turn, turns},
    },
    NAME, PART,
};
use crate::{
    lab::{Lab, OTHER4, PHONE4},
    netns::Netns,
    programs::{
        XDP_PASS,
        raw::{At, Attached, Insn, Kind, RawProgram, attach},
    },
};

/// Offloads and limits.
pub const FEATURES: &str = "features";
/// Throughput and latency, compared.
pub const TRAFFIC: &str = "traffic";
/// The baseline of these.
pub const PLAIN: &str = "traffic without XDP";

/// How XDP is attached.
const MODES: [(&str, Option<At>); 3] = [
    ("no XDP", None),
    ("native XDP", Some(At::Xdp)),
    ("generic XDP", Some(At::XdpGeneric)),
];

/// Measures.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let program = RawProgram::load(Kind::Xdp, &Insn::empty(XDP_PASS.cast_signed()))?;
    let labs: Vec<_> = MODES.iter().map(|_| Lab::new()).collect::<Result<_>>()?;
    let _attached: Vec<Option<Attached>> = MODES
        .iter()
        .zip(&labs)
        .map(|((name, at), lab)| {
            let lan = lab.router.index("lan")?;
            at.map(|at| lab.router.enter(|| attach(program.as_fd(), lan, at)))
                .transpose()
                .context(*name)
        })
        .collect::<Result<_>>()?;
    let mut rows = features(&labs)?;
    let (effort, time, pings) = match scale {
        Scale::Full => (effort(11, 7, 17), Duration::from_millis(500), 4_000),
        Scale::Quick => (effort(3, 3, 3), Duration::from_millis(100), 500),
    };
    type Measure = fn(&Lab, Duration, u32) -> Result<f64>;
    let cases: [(&str, &str, Measure); 3] = [
        ("TCP from the phone, Gbit/s", "Gbit/s", |lab, time, _| {
            throughput(&lab.phone, (&lab.far, OTHER4), time)
        }),
        ("TCP to the phone, Gbit/s", "Gbit/s", |lab, time, _| {
            throughput(&lab.far, (&lab.phone, PHONE4), time)
        }),
        ("round trip, median, µs", "µs", |lab, _, pings| {
            round_trip(lab, pings)
        }),
    ];
    for (case, unit, measure) in cases {
        let variants = MODES
            .iter()
            .zip(&labs)
            .map(|((name, _), lab)| {
                let turn: Turn<'_> = Box::new(move || measure(lab, time, pings));
                ((*name).to_owned(), turn)
            })
            .collect();
        let turns = turns(&effort, variants)?;
        let plain = MODES[0].0;
        let names = |name| [case, name, unit];
        rows.push(turns.row(NAME, &setting(&[(PART, PLAIN)]), names(plain), None)?);
        for (name, _) in &MODES[1..] {
            rows.push(turns.row(NAME, &setting(&[(PART, TRAFFIC)]), names(name), Some(plain))?);
        }
    }
    Ok(rows)
}

const fn effort(rounds: usize, quiet: usize, most: usize) -> Effort {
    Effort {
        rounds,
        quiet,
        most,
        // The first variant is a rate as well as a time: its spread is wide, and no round is left out for being fast.
        slack: f64::INFINITY,
    }
}

/// What differs between the modes of `ethtool -k` at both ends, and the largest MTU that the phone's end takes.
fn features(labs: &[Lab]) -> Result<Vec<Row>> {
    let mut found: Vec<BTreeMap<String, f64>> = Vec::new();
    for lab in labs {
        let mut all = BTreeMap::new();
        for (namespace, device, whose) in [
            (&lab.router, "lan", "interface"),
            (&lab.phone, "eth0", "peer"),
        ] {
            for line in namespace.run("ethtool", &format!("-k {device}"))?.lines() {
                let Some((name, state)) = line.trim().split_once(": ") else {
                    continue;
                };
                let on = if state.starts_with("on") { 1.0 } else { 0.0 };
                all.insert(format!("{whose}: {name}"), on);
            }
        }
        all.insert("peer: largest MTU".to_owned(), largest_mtu(lab)?);
        found.push(all);
    }
    let names: Vec<_> = found[0].keys().cloned().collect();
    ensure!(names.len() > 2, "`ethtool -k` says nothing");
    let mut rows = Vec::new();
    for name in names {
        let values: Vec<_> = found.iter().filter_map(|all| all.get(&name)).collect();
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        for ((mode, _), value) in MODES.iter().zip(values) {
            let names = [name.as_str(), mode, "state"];
            rows.push(Row::alone(
                NAME,
                &setting(&[(PART, FEATURES)]),
                names,
                [*value],
            ));
        }
    }
    Ok(rows)
}

fn largest_mtu(lab: &Lab) -> Result<f64> {
    let takes = |mtu: u32| lab.phone.ip(&format!("link set eth0 mtu {mtu}")).is_ok();
    let (mut low, mut high) = (1_500, 65_536);
    while high - low > 1 {
        let middle = u32::midpoint(low, high);
        if takes(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    ensure!(takes(1_500), "an MTU of 1,500 is refused");
    Ok(low.into())
}

/// Gbit a second that one TCP connection carries.
fn throughput(from: &Netns, to: (&Netns, &str), time: Duration) -> Result<f64> {
    let listener = to.0.enter(|| TcpListener::bind((to.1, 0)))?;
    let address = listener.local_addr()?;
    let mut sender = from.enter(|| TcpStream::connect(address))?;
    let (mut receiver, _) = listener.accept()?;
    let reading = thread::spawn(move || -> Result<f64> {
        let mut buffer = vec![0; 1 << 18];
        let start = Instant::now();
        let mut bytes = 0u64;
        loop {
            let count = receiver.read(&mut buffer)?;
            if count == 0 {
                return Ok(bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9);
            }
            bytes += count as u64;
        }
    });
    let buffer = vec![0; 1 << 17];
    let start = Instant::now();
    while start.elapsed() < time {
        sender.write_all(&buffer)?;
    }
    drop(sender);
    reading.join().expect("the receiver does not panic")
}

/// Median of the times, in microseconds, from a packet of the phone to the answer.
fn round_trip(lab: &Lab, pings: u32) -> Result<f64> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let echo = lab.far.enter(|| UdpSocket::bind((OTHER4, 0)))?;
    let phone = lab.phone.enter(|| UdpSocket::bind((PHONE4, 0)))?;
    for socket in [&echo, &phone] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    phone.connect(echo.local_addr()?)?;
    let answering = thread::spawn(move || -> Result<()> {
        let mut buffer = [0; 256];
        for _ in 0..pings {
            let (length, from) = echo.recv_from(&mut buffer)?;
            echo.send_to(&buffer[..length], from)?;
        }
        Ok(())
    });
    let mut times = Vec::new();
    let mut buffer = [0; 256];
    for _ in 0..pings {
        let start = Instant::now();
        phone.send(&[0; 160])?;
        phone.recv(&mut buffer).context("no answer")?;
        times.push(start.elapsed());
    }
    answering.join().expect("the echo does not panic")?;
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

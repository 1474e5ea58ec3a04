//! Companion names: which packets to port 443 of their addresses are steered, in every program.

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use wificall_common::{
    Direction,
    abi::{EndpointRef, Features, Hook},
    classify::Link,
    exit::Exit,
};
use wificall_tests::{
    packet::Packet,
    programs::{Kernel, pass},
    vectors::{MARK, Program, Setup, contents},
};

use crate::{assert_more, each_program};

/// The row with mark 0x65/0xff.
const POLICY: u32 = 1;
const MARKED: u32 = (MARK & !0xff) | 0x65;

const LINKS: [&str; 7] = [
    "",
    "eth",
    "eth / vlan 7",
    "eth / svlan 8 / vlan 7",
    "eth / pppoe",
    "eth / vlan 7 / pppoe",
    "eth / svlan 8 / vlan 7 / pppoe",
];
const STEERED: [&str; 4] = [
    "ip4 198.18.0.2 > 192.0.2.200 / tcp 40000 > 443 / bytes 100",
    "ip4 198.18.0.2 > 192.0.2.200 / udp 40000 > 443 / bytes 100",
    "ip6 2001:db8:ffff::2 > 2001:db8:9::9 / tcp 40000 > 443 / bytes 100",
    "ip6 2001:db8:ffff::2 > 2001:db8:9::9 / udp 40000 > 443 / bytes 100",
];
/// Nobody's HTTPS has options, extension headers or fragments: docs/security.md says that they pass.
const NOT: [&str; 6] = [
    "ip4 198.18.0.2 > 192.0.2.200 opts=12 / tcp 40000 > 443 / bytes 100",
    "ip6 2001:db8:ffff::2 > 2001:db8:9::9 / hop 0 / tcp 40000 > 443 / bytes 100",
    "ip4 198.18.0.2 > 192.0.2.200 off=100 id=7 proto=6 / bytes 100",
    "ip4 198.18.0.2 > 192.0.2.200 / tcp 443 > 80 / bytes 100",
    "ip4 198.18.0.2 > 192.0.2.201 / tcp 40000 > 443 / bytes 100",
    "ip4 198.18.0.2 > 192.0.2.200 proto=1 / bytes 100",
];

/// [`EndpointRef`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw(EndpointRef);
// SAFETY: four integers.
unsafe impl Pod for Raw {}

fn load(features: u32) -> Kernel {
    let setup = Setup {
        features: Setup::DEFAULT.features | features,
        pref64: None,
    };
    let mut kernel = Kernel::load(&setup).unwrap();
    kernel.fill(&contents().unwrap()).unwrap();
    let hosts = kernel.ebpf.map_mut("COMPANION_HOSTS").unwrap();
    let mut hosts: HashMap<&mut MapData, [u8; 16], Raw> = hosts.try_into().unwrap();
    let host = EndpointRef {
        group: 1,
        policy: POLICY,
        slot: 0,
        reserved: 0,
    };
    for address in ["::ffff:192.0.2.200", "2001:db8:9::9"] {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        hosts.insert(address.octets(), Raw(host), 0).unwrap();
    }
    kernel
}

fn run(kernel: &mut Kernel, program: &Program, words: &str) -> (Exit, u32) {
    let frame = words.parse::<Packet>().unwrap().bytes();
    let run = kernel.run(program.name, &frame, 0).unwrap().unwrap();
    assert_eq!(
        (run.verdict, &run.frame),
        (pass(program), &frame),
        "{words}"
    );
    let outcome = kernel.outcome(&run, program.hook).unwrap();
    let exits: Vec<_> = outcome.exits.iter().collect();
    let [((_, exit), 1)] = exits[..] else {
        panic!("{words}: one exit: {exits:?}");
    };
    let exit = *exit;
    kernel.clear(&outcome).unwrap();
    (exit, run.mark)
}

#[test]
fn port_443_of_companions_is_steered_where_clients_packets_come_in() {
    let mut kernel = load(Features::COMPANIONS);
    let mut without = load(0);
    let steered = STEERED.iter().map(|row| (row, true));
    let rows = steered.chain(NOT.iter().map(|row| (row, false)));
    let mut runs = 0;
    for (packet, is_steered) in rows {
        for (link, program) in LINKS
            .iter()
            .flat_map(|link| each_program().map(move |program| (link, program)))
        {
            if link.is_empty() != (program.link == Link::Bare) {
                continue;
            }
            let words = match *link {
                "" => (*packet).to_owned(),
                link => format!("{link} / {packet}"),
            };
            let name = format!("{words} in {}", program.name);
            let here = program.hook == Hook::TcIngress && program.direction == Direction::Up;
            let (exit, mark) = run(&mut kernel, program, &words);
            let expected = is_steered && here;
            assert_eq!(exit == Exit::Companion, expected, "{name}: {exit:?}");
            if program.hook != Hook::Xdp {
                assert_eq!(mark, if expected { MARKED } else { MARK }, "{name}");
            }
            let (exit, mark) = run(&mut without, program, &words);
            assert!(exit != Exit::Companion, "{name}: switched off");
            assert!(program.hook == Hook::Xdp || mark == MARK, "{name}");
            runs += 1;
        }
    }
    assert_more(runs, 100);
}

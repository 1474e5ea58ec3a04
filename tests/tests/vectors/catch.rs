//! `[catch_all]`: IPsec to addresses that are no endpoints, in every shape, in every program.

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use wificall_common::{
    Direction,
    abi::{Features, Hook, Tunnel, TunnelKey},
    classify::Link,
    exit::Exit,
};
use wificall_tests::{
    packet::Packet,
    programs::{CATCH_EXIT, Kernel, TC_ACT_SHOT, pass},
    vectors::{MARK, PROGRAMS, Program, Setup, contents},
};

const LINKS: [&str; 7] = [
    "",
    "eth",
    "eth / vlan 7",
    "eth / svlan 8 / vlan 7",
    "eth / pppoe",
    "eth / vlan 7 / pppoe",
    "eth / svlan 8 / vlan 7 / pppoe",
];
/// IP headers of packets between the same two, by family.
const HEADERS: [(&str, &str); 5] = [
    ("4", "ip4 198.18.0.2 > 192.0.2.200"),
    ("4", "ip4 198.18.0.2 > 192.0.2.200 opts=12"),
    ("6", "ip6 2001:db8:ffff::2 > 2001:db8:9::9"),
    ("6", "ip6 2001:db8:ffff::2 > 2001:db8:9::9 / hop 0"),
    ("6", "ip6 2001:db8:ffff::2 > 2001:db8:9::9 / dst 0"),
];
const INIT: &str = "udp 500 > 500 / ike 300";
const INIT_BEHIND_MARKER: &str = "udp 4500 > 4500 / marker / ike 300";
const AUTH: &str = "udp 4500 > 4500 / marker / ike 300 exchange=35";
const ESP: &str = "udp 4500 > 4500 / esp 136";
const KEEPALIVE: &str = "udp 4500 > 4500 / hex ff";

/// [`TunnelKey`] and [`Tunnel`] as aya wants them.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);
// SAFETY: integers without padding.
unsafe impl Pod for Raw<TunnelKey> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Tunnel> {}

struct Catcher {
    kernel: Kernel,
    held: HashMap<MapData, [u8; 16], u64>,
    tunnels: HashMap<MapData, Raw<TunnelKey>, Raw<Tunnel>>,
}

impl Catcher {
    fn new(features: u32) -> Self {
        let setup = Setup {
            features: Setup::DEFAULT.features | Features::SNOOP_IKE | features,
            pref64: None,
        };
        let mut kernel = Kernel::load(&setup).unwrap();
        kernel.fill(&contents().unwrap()).unwrap();
        let held = kernel.ebpf.take_map("HELD").unwrap().try_into().unwrap();
        let tunnels = kernel.ebpf.take_map("TUNNELS").unwrap().try_into().unwrap();
        Self {
            kernel,
            held,
            tunnels,
        }
    }

    /// Runs a program; its verdict, its exit, and the mark.
    fn run(&mut self, program: &Program, words: &str) -> (u32, Exit, u32) {
        let frame = words.parse::<Packet>().unwrap().bytes();
        let run = self.kernel.run(program.name, &frame, 0).unwrap().unwrap();
        assert_eq!(run.frame, frame, "{words}: changed");
        let outcome = self.kernel.outcome(&run, program.hook).unwrap();
        let exits: Vec<_> = outcome.exits.iter().collect();
        let [((_, exit), 1)] = exits[..] else {
            panic!("{words}: one exit: {exits:?}");
        };
        let exit = *exit;
        self.kernel.clear(&outcome).unwrap();
        (run.verdict, exit, run.mark)
    }

    /// Forgets what it has caught.
    fn forget(&mut self) -> Vec<Tunnel> {
        for key in self.held.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.held.remove(&key).unwrap();
        }
        let mut tunnels = Vec::new();
        for key in self.tunnels.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            tunnels.push(self.tunnels.get(&key, 0).unwrap().0);
            self.tunnels.remove(&key).unwrap();
        }
        tunnels
    }
}

fn words(link: &str, header: &str, rest: &str) -> String {
    match link {
        "" => format!("{header} / {rest}"),
        _ => format!("{link} / {header} / {rest}"),
    }
}

/// TC programs where clients' packets come in, with the links that they are for.
fn places() -> impl Iterator<Item = (&'static Program, &'static str)> {
    let programs = PROGRAMS
        .iter()
        .filter(|it| it.direction == Direction::Up && it.hook == Hook::TcIngress);
    programs.flat_map(|program| {
        let links = LINKS.into_iter();
        let links = links.filter(|link| link.is_empty() == (program.link == Link::Bare));
        links.map(move |link| (program, link))
    })
}

#[test]
fn the_first_packet_to_an_address_is_held_in_every_shape() {
    let mut catcher = Catcher::new(Features::CATCH_HOLD);
    let mut runs = 0;
    for (program, link) in places() {
        for (_, header) in HEADERS {
            for init in [INIT, INIT_BEHIND_MARKER] {
                let name = format!("{} {link} {header} {init}", program.name);
                for rest in [AUTH, ESP, KEEPALIVE] {
                    let passed = catcher.run(program, &words(link, header, rest));
                    assert_eq!(passed, (pass(program), Exit::NotEndpoint, MARK), "{name}");
                }
                let init = words(link, header, init);
                let first = catcher.run(program, &init);
                assert_eq!((first.0, first.1), (TC_ACT_SHOT, Exit::Held), "{name}");
                for _ in 0..2 {
                    let again = catcher.run(program, &init);
                    assert_eq!(again, (pass(program), Exit::NewIke, MARK), "{name}");
                }
                assert!(catcher.forget().is_empty(), "{name}: a tunnel");
                runs += 1;
            }
        }
    }
    assert!(runs > 100, "{runs}");
}

#[test]
fn a_tunnel_is_marked_from_its_first_packet_on_in_every_shape() {
    let [exit, value, mask] = CATCH_EXIT;
    let marked = (MARK & !mask) | value;
    let mut catcher = Catcher::new(Features::CATCH_MARK);
    for (program, link) in places() {
        for (family, header) in HEADERS {
            let name = format!("{} {link} {header}", program.name);
            let caught = (pass(program), Exit::CaughtFirst, marked);
            for rest in [AUTH, ESP, KEEPALIVE] {
                let passed = catcher.run(program, &words(link, header, rest));
                assert_eq!(passed, (pass(program), Exit::NotEndpoint, MARK), "{name}");
            }
            for rest in [INIT, AUTH, KEEPALIVE] {
                assert_eq!(
                    catcher.run(program, &words(link, header, rest)),
                    caught,
                    "{name}"
                );
            }
            let later = match family {
                "4" => format!("{header} off=100 id=7 proto=17 / bytes 100"),
                _ => format!("{header} / frag off=100 id=7 proto=17 / bytes 100"),
            };
            let later = match link {
                "" => later,
                _ => format!("{link} / {later}"),
            };
            assert_eq!(catcher.run(program, &later), caught, "{name}: a fragment");
            let noted = catcher.forget();
            assert_eq!(noted.len(), 1, "{name}");
            assert_eq!(
                (noted[0].exit, noted[0].mark, noted[0].mask, noted[0].esp),
                (exit, value, mask, 0),
                "{name}: nothing is carried yet"
            );
            catcher.run(program, &words(link, header, INIT));
            for esp in [ESP, "esp 136"] {
                assert_eq!(
                    catcher.run(program, &words(link, header, esp)),
                    caught,
                    "{name}"
                );
            }
            assert_ne!(catcher.forget()[0].esp, 0, "{name}: it carries something");
        }
    }
}

/// Elsewhere nothing is caught, nor what is local.
#[test]
fn only_what_clients_send_far_away_is_caught() {
    for feature in [Features::CATCH_HOLD, Features::CATCH_MARK] {
        let mut catcher = Catcher::new(feature);
        let elsewhere = PROGRAMS
            .iter()
            .filter(|it| it.hook != Hook::TcIngress || it.direction != Direction::Up);
        let mut runs = 0;
        for program in elsewhere {
            let link = if program.link == Link::Bare {
                ""
            } else {
                "eth"
            };
            for (_, header) in HEADERS {
                let (verdict, exit, mark) = catcher.run(program, &words(link, header, INIT));
                assert_eq!(verdict, pass(program), "{}", program.name);
                assert!(!matches!(exit, Exit::Held | Exit::CaughtFirst));
                assert!(program.hook == Hook::Xdp || mark == MARK);
                runs += 1;
            }
        }
        assert!(runs > 20, "{runs}");
        assert!(catcher.forget().is_empty());
    }
}

//! Where vectors are run, and what a run leaves behind.

use std::collections::{BTreeMap, BTreeSet};

use wificall_common::{
    Class, Direction,
    abi::{Counter, Features, Hook},
    classify::Link,
    exit::Exit,
};

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The hook it counts under.
    pub hook: Hook,
    /// The direction it looks in.
    pub direction: Direction,
    /// What its frames start with.
    pub link: Link,
    /// Whether it sets the priority of wireless devices.
    pub wireless: bool,
}

impl Program {
    /// The feature without which it does not count: up at ingress and down at egress is an access interface.
    #[must_use]
    pub const fn counting(&self) -> u32 {
        match (self.hook, self.direction) {
            (Hook::TcIngress | Hook::Xdp, Direction::Up) | (Hook::TcEgress, Direction::Down) => {
                Features::COUNT_ACCESS
            }
            _ => Features::COUNT_UPLINK,
        }
    }
}

const fn program(name: &'static str, hook: Hook, direction: Direction) -> Program {
    Program {
        name,
        hook,
        direction,
        link: Link::Ethernet,
        wireless: false,
    }
}

const fn bare(program: Program) -> Program {
    Program {
        link: Link::Bare,
        ..program
    }
}

const fn wireless(program: Program) -> Program {
    Program {
        wireless: true,
        ..program
    }
}

/// Every program of the object. Those behind XDP see no metadata in a test run, and must
/// then do as those without it do.
pub const PROGRAMS: [Program; 14] = [
    program("in_up", Hook::TcIngress, Direction::Up),
    program("in_up_xdp", Hook::TcIngress, Direction::Up),
    bare(program("in_up_bare", Hook::TcIngress, Direction::Up)),
    program("in_down", Hook::TcIngress, Direction::Down),
    program("in_down_xdp", Hook::TcIngress, Direction::Down),
    bare(program("in_down_bare", Hook::TcIngress, Direction::Down)),
    program("out_up", Hook::TcEgress, Direction::Up),
    bare(program("out_up_bare", Hook::TcEgress, Direction::Up)),
    wireless(program("out_up_wifi", Hook::TcEgress, Direction::Up)),
    program("out_down", Hook::TcEgress, Direction::Down),
    bare(program("out_down_bare", Hook::TcEgress, Direction::Down)),
    wireless(program("out_down_wifi", Hook::TcEgress, Direction::Down)),
    program("xdp_up", Hook::Xdp, Direction::Up),
    program("xdp_down", Hook::Xdp, Direction::Down),
];

/// What a run leaves behind: all of it, so that nothing else can have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The frame.
    pub frame: Vec<u8>,
    /// `skb->mark`; not of XDP.
    pub mark: u32,
    /// `skb->priority`; not of XDP.
    pub priority: u32,
    /// Exits that are not zero.
    pub exits: BTreeMap<(Hook, Exit), u64>,
    /// Counters that are not zero, by group, direction and class.
    pub counters: BTreeMap<(u32, Direction, Class), Counter>,
    /// Activity slots that are not zero.
    pub active: BTreeSet<u32>,
}

impl Outcome {
    /// The parts in which two outcomes differ, in words.
    #[must_use]
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(at) = first_difference(&self.frame, &expected.frame) {
            found.push(format!(
                "frame: {} bytes, expected {}; from byte {at} {:02x?}, expected {:02x?}",
                self.frame.len(),
                expected.frame.len(),
                excerpt(&self.frame, at),
                excerpt(&expected.frame, at)
            ));
        }
        macro_rules! compare {
            ($($part:ident as $form:literal),*) => {
                $(if self.$part != expected.$part {
                    let name = stringify!($part);
                    let (is, wanted) = (&self.$part, &expected.$part);
                    found.push(format!(
                        concat!("{}: ", $form, ", expected ", $form),
                        name, is, wanted
                    ));
                })*
            };
        }
        compare!(
            mark as "{:#x}",
            priority as "{}",
            exits as "{:?}",
            counters as "{:?}",
            active as "{:?}"
        );
        found
    }
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let common = one.len().min(other.len());
    let within = (0..common).find(|&at| one[at] != other[at]);
    within.or((one.len() != other.len()).then_some(common))
}

fn excerpt(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at..bytes.len().min(at + 12)]
}

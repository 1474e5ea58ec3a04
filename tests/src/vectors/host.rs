//! The vectors on the host: the classifier and the rewriting of `wificall-common` over maps in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::discriminant,
};

use wificall_common::{
    Class, Direction,
    abi::{Cell, Counter, EndpointRef, Features, FragmentKey, Hook, Members},
    classify::{Match, Tables, classify, fragment_key},
    endpoint::Table,
    exit::Exit,
    rewrite::{self, Mark},
    wire::{Fragment, Version, nat64::Pref64},
};

use super::{Contents, MARK, Outcome, PRIORITY, Program, Setup};

/// The maps and load-time constants of a data plane on the host.
pub struct Host<'a> {
    contents: &'a Contents,
    setup: Setup,
    fragments: HashMap<[u8; 40], Class>,
}

impl<'a> Host<'a> {
    /// One that has seen no packet yet.
    #[must_use]
    pub fn new(contents: &'a Contents, setup: Setup) -> Self {
        Self {
            contents,
            setup,
            fragments: HashMap::new(),
        }
    }

    /// Does to a frame what `program` does in the kernel: its hook's actions on the classifier's verdict.
    pub fn run(&mut self, program: &Program, frame: &[u8], gso_segs: u32) -> Outcome {
        let mut outcome = Outcome {
            frame: frame.to_vec(),
            mark: MARK,
            priority: PRIORITY,
            ..Outcome::default()
        };
        let exit = match classify(frame, &*self, program.link, program.direction) {
            Ok(found) => self.act(program, &found, gso_segs, &mut outcome),
            Err(exit) => exit,
        };
        outcome.exits = BTreeMap::from([((program.hook, exit), 1)]);
        outcome
    }

    /// First fragments it remembers.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.fragments.len()
    }

    fn act(
        &mut self,
        program: &Program,
        found: &Match,
        gso_segs: u32,
        outcome: &mut Outcome,
    ) -> Exit {
        let direction = program.direction;
        if self.on(program.counting()) {
            self.record(found, direction, u64::from(gso_segs.max(1)), outcome);
        }
        let Some(policy) = self.contents.policies.get(&found.endpoint.policy) else {
            return Exit::NoPolicy;
        };
        if self.on(program.counting()) {
            outcome.active = BTreeSet::from([found.endpoint.slot]);
        }
        if (program.hook, direction) == (Hook::TcIngress, Direction::Up) && self.on(Features::MARK)
        {
            outcome.mark = Mark::of(policy).over(outcome.mark);
        }
        if program.hook == Hook::TcEgress
            && self.on(Features::PRIORITY)
            && policy.voice[direction as usize] != 0
        {
            outcome.priority = if program.wireless { 262 } else { 6 };
        }
        if self.on(Features::DSCP) {
            let rule = rewrite::rule(policy, direction, found.treat_as);
            let at = &mut outcome.frame[found.packet.offset..];
            match found.packet.version {
                Version::V4 => replace(at, |head| rewrite::ipv4(head, rule)),
                Version::V6 => replace(at, |head| rewrite::ipv6(head, rule)),
            }
        }
        Exit::Matched
    }

    fn record(
        &mut self,
        found: &Match,
        direction: Direction,
        segments: u64,
        outcome: &mut Outcome,
    ) {
        if discriminant(&found.packet.fragment) == discriminant(&Fragment::First)
            && let Some(key) = fragment_key(&outcome.frame[..], &found.packet)
        {
            self.fragments.insert(key_bytes(&key), found.class);
        }
        let counter = Counter {
            packets: segments,
            bytes: found.packet.total_len as u64 + (segments - 1) * found.segment_headers as u64,
        };
        let group = found.endpoint.group;
        outcome.counters = BTreeMap::from([((group, direction, found.class), counter)]);
    }

    fn on(&self, feature: u32) -> bool {
        self.setup.features & feature != 0
    }
}

fn replace<const N: usize>(at: &mut [u8], change: impl FnOnce([u8; N]) -> Option<[u8; N]>) {
    let head = at.first_chunk_mut().expect("the header was parsed");
    if let Some(new) = change(*head) {
        *head = new;
    }
}

fn key_bytes(key: &FragmentKey) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..16].copy_from_slice(&key.source);
    bytes[16..32].copy_from_slice(&key.destination);
    bytes[32..36].copy_from_slice(&key.id.to_ne_bytes());
    bytes[36] = key.protocol;
    bytes
}

impl Table for Host<'_> {
    fn block4(&self, key: u32) -> Cell {
        let block = self.contents.blocks4.get(&key.to_be_bytes());
        block.map_or(Cell::NONE, |block| Cell::of4(key, block))
    }

    fn members(&self, key: u32) -> Option<&Members> {
        Some(&self.contents.blocks4.get(&key.to_be_bytes())?.members)
    }

    fn block6(&self, key: u64) -> Cell {
        let block = self.contents.blocks6.get(&key.to_be_bytes());
        block.map_or(Cell::NONE, |block| Cell::of6(key, block))
    }

    fn host(&self, address: u128) -> Option<&EndpointRef> {
        self.contents.hosts.get(&address.to_be_bytes())
    }

    fn prefix(&self, address: u128) -> Option<&EndpointRef> {
        if !self.on(Features::PREFIXES) {
            return None;
        }
        self.contents
            .prefixes
            .iter()
            .rev() // the longest first: the length leads the key
            .find(|((bits, prefix), _)| {
                let difference = address ^ u128::from_be_bytes(*prefix);
                difference.leading_zeros() >= *bits
            })
            .map(|(_, entry)| entry)
    }

    fn pref64(&self, index: usize) -> Option<Pref64> {
        self.setup.pref64().filter(|_| index == 0)
    }
}

impl Tables for Host<'_> {
    fn first_fragment(&self, key: &FragmentKey) -> Option<Class> {
        self.fragments.get(&key_bytes(key)).copied()
    }

    fn snoops_names(&self) -> bool {
        self.on(Features::SNOOP_NAMES)
    }

    fn snoops_ike(&self) -> bool {
        self.on(Features::SNOOP_IKE)
    }
}

//! The blocks of the endpoint table where they collide: in lines that are full.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use wificall::config::{self, Limits};
use wificall::kernel::{Entry, Key, Pins, Plane, Settings, detach_all};
use wificall_common::abi::{
    ABI_VERSION, Block4, Block6, CELLS_PER_LINE, FLAG_HOSTS, FLAG_WHOLE, Hook, Policy, line_of,
    line_shift, lines,
};
use wificall_common::exit::Exit;
use wificall_tests::home::Home;
use wificall_tests::packet::Packet;
use wificall_tests::programs::Kernel;
use wificall_tests::vectors::{Contents, Setup};

/// Blocks in the table, and in a line of it.
const BLOCKS: u32 = 64;
const TOGETHER: usize = CELLS_PER_LINE + 3;

/// The first few /24s (their second and third byte) that have one line in a table for `BLOCKS`, and a stranger to them
/// there.
fn neighbours() -> Vec<u16> {
    let shift = line_shift(lines(BLOCKS));
    let line = |number: &u16| line_of(u64::from(address4(*number)), shift);
    let all: Vec<_> = (0..u16::MAX)
        .filter(|number| line(number) == line(&0))
        .take(TOGETHER + 1)
        .collect();
    assert_eq!(all.len(), TOGETHER + 1);
    all
}

fn address4(number: u16) -> u32 {
    let [b, c] = number.to_be_bytes();
    u32::from_be_bytes([101, b, c, 0])
}

/// Likewise of /64s.
fn neighbours6() -> Vec<u16> {
    let shift = line_shift(lines(BLOCKS));
    let line = |number: &u16| line_of(address6(*number), shift);
    let all: Vec<_> = (0..u16::MAX)
        .filter(|number| line(number) == line(&0))
        .take(TOGETHER + 1)
        .collect();
    assert_eq!(all.len(), TOGETHER + 1);
    all
}

fn address6(number: u16) -> u64 {
    0x2001_0db8_0000_0000 | u64::from(number)
}

/// Blocks that do not fit into their line are found, the members of each with a gap and without, and nobody else is.
#[test]
fn a_full_line_spills() -> Result<()> {
    let mut contents = Contents::default();
    let policy = Policy {
        valid: 1,
        ..Policy::default()
    };
    contents.policies.insert(1, policy);
    let (numbers, numbers6) = (neighbours(), neighbours6());
    for (index, number) in (1..).zip(&numbers[..TOGETHER]) {
        let mut members = [0; 8];
        // 7 is one; in every other block 9 is, too.
        members[0] = if index % 2 == 0 {
            1 << 7
        } else {
            1 << 7 | 1 << 9
        };
        let block = Block4 {
            group: index,
            policy: 1,
            slot: 1,
            flags: 0,
            members,
        };
        contents
            .blocks4
            .insert(address4(*number).to_be_bytes(), block);
    }
    for (index, number) in (1..).zip(&numbers6[..TOGETHER]) {
        let block = Block6 {
            group: index,
            policy: 1,
            slot: 1,
            flags: FLAG_WHOLE,
        };
        contents
            .blocks6
            .insert(address6(*number).to_be_bytes(), block);
    }
    let mut kernel = Kernel::load_with(&Setup::DEFAULT, [1, 2], &[("BLOCKS4", BLOCKS)])?;
    kernel.fill(&contents)?;
    let mut group = |program: &str, hook, address: &str| -> Result<Option<u32>> {
        let packet: Packet =
            format!("eth / {address} / udp 40000 > 4500 sum=0 / esp 100").parse()?;
        let run = kernel
            .run(program, &packet.bytes(), 0)?
            .context("the frame is long enough")?;
        let outcome = kernel.outcome(&run, hook)?;
        kernel.clear(&outcome)?;
        let group = outcome.counters.keys().next().map(|key| key.0);
        let exit = if group.is_some() {
            Exit::Matched
        } else {
            Exit::NotEndpoint
        };
        ensure!(
            outcome.exits == BTreeMap::from([((hook, exit), 1)]),
            "{address}: {:?}",
            outcome.exits
        );
        Ok(group)
    };
    for (program, hook) in [("in_up", Hook::TcIngress), ("xdp_up", Hook::Xdp)] {
        for (index, number) in (1..).zip(&numbers) {
            let known = (index as usize <= TOGETHER).then_some(index);
            let [a, b, c, _] = address4(*number).to_be_bytes();
            for (last, expected) in [
                (6, None),
                (7, known),
                (8, None),
                (9, known.filter(|index| index % 2 == 1)),
            ] {
                let address = format!("ip4 10.9.8.7 > {a}.{b}.{c}.{last}");
                assert_eq!(group(program, hook, &address)?, expected, "{address}");
            }
        }
        for (index, number) in (1..).zip(&numbers6) {
            let known = (index as usize <= TOGETHER).then_some(index);
            let address = format!("ip6 fd00::7 > 2001:db8:0:{number:x}::7");
            assert_eq!(group(program, hook, &address)?, known, "{address}");
        }
    }
    Ok(())
}

/// What the agent writes it reads again, however full a line is and whatever leaves it.
#[test]
fn what_is_written_is_read() -> Result<()> {
    let instance = Instance::new()?;
    let mut plane = instance.plane()?;
    let (numbers, numbers6) = (neighbours(), neighbours6());
    let mut keys: Vec<_> = numbers
        .iter()
        .map(|number| Key::Block4(address4(*number).to_be_bytes()))
        .collect();
    keys.extend(
        numbers6
            .iter()
            .map(|number| Key::Block6(address6(*number).to_be_bytes())),
    );
    let mut model: BTreeMap<Key, Entry> = BTreeMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for step in 0..2_000_u32 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = keys[random as usize % keys.len()];
        if random >> 32 & 1 == 0 {
            plane.remove_entry(key)?;
            model.remove(&key);
        } else {
            let mut entry = Entry {
                group: 1 + step % 100,
                policy: step % 7,
                slot: step % 50,
                flags: if step % 3 == 0 { FLAG_HOSTS } else { 0 },
                members: [0; 8],
            };
            match key {
                // All, a range, one with gaps.
                Key::Block4(_) if step % 5 == 0 => entry.members = [u32::MAX; 8],
                Key::Block4(_) if step % 5 < 3 => entry.members[1] = 0xff0,
                Key::Block4(_) => entry.members = [5; 8],
                _ if step % 2 == 0 => entry.flags |= FLAG_WHOLE,
                _ => {}
            }
            plane.set_entry(key, &entry)?;
            model.insert(key, entry);
        }
        assert_eq!(plane.entries()?, model, "step {step}, {key:?}");
    }
    for key in keys {
        plane.remove_entry(key)?;
    }
    assert!(plane.entries()?.is_empty());
    Ok(())
}

/// A program may be between a cell's key and its meaning: what was a block's is not another's a moment later.
#[test]
fn a_cell_that_is_given_up_rests() -> Result<()> {
    /// Longer than a cell rests.
    const RESTED: Duration = Duration::from_millis(1100);
    let instance = Instance::new()?;
    let mut plane = instance.plane()?;
    let numbers = neighbours();
    let key = |index: usize| Key::Block4(address4(numbers[index]).to_be_bytes());
    let entry = |group| Entry {
        group,
        members: [u32::MAX; 8],
        ..Entry::default()
    };
    let lines = MapData::from_pin(
        instance
            .pins
            .root()
            .join(format!("abi{ABI_VERSION}-0/BLOCKS4")),
    )?;
    let lines: Array<_, [u64; 8]> = Map::Array(lines).try_into()?;
    let line = line_of(u64::from(address4(numbers[0])), line_shift(lines.len()));
    // Of each cell, which of the neighbours it is of and what it says.
    let cells = || -> Result<Vec<(Option<usize>, u64)>> {
        let words = lines.get(&line, 0)?;
        let cells = words.chunks_exact(2).map(|cell| {
            let block = (cell[0] >> 32) as u32;
            let of = |number: &u16| cell[0] != 0 && address4(*number) == block;
            (numbers.iter().position(of), cell[1])
        });
        Ok(cells.collect())
    };
    let groups = |plane: &Plane| -> Result<Vec<u32>> {
        Ok(plane.entries()?.values().map(|entry| entry.group).collect())
    };
    // A full line, of which one block goes while another is spilled.
    for index in 0..CELLS_PER_LINE + 1 {
        plane.set_entry(key(index), &entry(1 + index as u32))?;
    }
    let (_, first) = cells()?[0];
    plane.remove_entry(key(0))?;
    plane.set_entry(key(5), &entry(6))?;
    assert_eq!(cells()?[0], (Some(0), 0));
    assert_eq!(groups(&plane)?, [2, 3, 4, 5, 6]);
    // Its own block need not wait, and its rest is over.
    plane.set_entry(key(0), &entry(1))?;
    assert_eq!(cells()?[0], (Some(0), first));
    thread::sleep(RESTED);
    plane.remove_entry(key(0))?;
    plane.remove_entry(key(1))?;
    assert_eq!(cells()?[..2], [(Some(0), 0), (Some(1), 0)]);
    // After that, spilled blocks move in.
    thread::sleep(RESTED);
    plane.remove_entry(key(2))?;
    let cells_now = cells()?;
    let mut moved: Vec<_> = cells_now[..2].iter().map(|cell| cell.0).collect();
    moved.sort();
    assert_eq!(moved, [Some(4), Some(5)]);
    assert!(cells_now[..2].iter().all(|cell| cell.1 != 0));
    assert_eq!((cells_now[2], cells_now[3].0), ((Some(2), 0), Some(3)));
    assert_eq!(groups(&plane)?, [4, 5, 6]);
    // And what nobody waits for is free; also what an agent before this one has left.
    drop(plane);
    let mut plane = instance.plane()?;
    thread::sleep(RESTED);
    plane.remove_entry(key(3))?;
    assert_eq!(cells()?[2], (None, 0));
    assert_eq!(groups(&plane)?, [5, 6]);
    Ok(())
}

fn limits() -> Result<Limits> {
    let source = format!(
        "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"262-01\"]\n[limits]\nblocks = {BLOCKS}\n"
    );
    match config::parse(&source, "blocks.toml".as_ref()) {
        Ok(parsed) => Ok(parsed.config.limits),
        Err(errors) => anyhow::bail!("{errors:?}"),
    }
}

/// Pins of this test alone, removed with it.
struct Instance {
    pins: Pins,
    _home: Home,
}

impl Instance {
    fn new() -> Result<Self> {
        let home = Home::new()?;
        let pins = Pins::new(home.bpffs().join("blocks"));
        Ok(Self { pins, _home: home })
    }

    fn plane(&self) -> Result<Plane> {
        let settings = Settings {
            features: 0,
            pref64: [None; 4],
            events_per_second: 100,
            other_mark: [0; 2],
            catch_per_second: 20,
            catch_exit: [0; 3],
            flows_per_second: 500,
            flow_events_per_second: 500,
        };
        Ok(Plane::open(self.pins.clone(), settings, limits()?)?)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = detach_all(&self.pins, |_| None) {
            eprintln!("{error}");
        }
    }
}

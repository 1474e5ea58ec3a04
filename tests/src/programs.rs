//! The programs in the kernel, run by `BPF_PROG_TEST_RUN`.

pub mod code;
pub mod driver;
pub mod instructions;
pub mod raw;
mod run;
pub mod verifier;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues, lpm_trie::Key},
    programs::{Program as AyaProgram, ProgramError},
    util::nr_cpus,
};
use wificall_common::{
    Class, Direction,
    abi::{
        Cell, Choice, ChoiceKey, ClientKey, Counter, Counters, EXIT_SLOTS, EndpointRef, Flow,
        FlowKey, FragmentKey, FragmentValue, Hook, InterfaceKey, Line, Members, Policy, StationKey,
        Tunnel, TunnelKey, exit_slot, line_of, line_shift, lines,
    },
    exit::Exit,
};

pub use self::run::Run;
use self::run::{run_tc, run_xdp};
use crate::vectors::{Contents, Outcome, PRIORITY, Program, Setup};

/// The committed object, embedded: a guest that runs the vectors has no repository.
const OBJECT: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../wificall-user/bpf/wificall.bpf.o"
));
/// Names another object, when the tests run.
const OVERRIDE: &str = "WIFICALL_BPF_OBJECT";
/// Entries of the maps indexed by group, policy and slot: few, as all of them are read after each run.
pub const ROWS: u32 = 10;
/// Blocks of each family that there is room for unless a test says otherwise.
const BLOCKS: u32 = 1_024;
/// What every TC program returns: others go on.
pub const TC_ACT_UNSPEC: u32 = u32::MAX;
/// What every XDP program returns.
pub const XDP_PASS: u32 = 2;
/// What a program returns that drops.
pub const TC_ACT_SHOT: u32 = 2;
/// Likewise in XDP.
pub const XDP_DROP: u32 = 1;
/// Value and mask of other IPsec's mark.
pub const OTHER_MARK: [u32; 2] = [0x200, 0xf00];
/// The exit of what is caught: routing table, value and mask of its mark.
pub const CATCH_EXIT: [u32; 3] = [7, 0x300, 0xf00];
/// Test runs may refuse frames that end inside the network header: before 6.18 those below 14 bytes, since then more.
const SHORT_FRAME: usize = 14 + 40;

/// A type of the ABI as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Abi<T>(pub T);

macro_rules! pods {
    ($($type:ty),*) => {
        $(
            // SAFETY: `repr(C)`, without padding (its size is asserted where it is defined), any bytes are valid.
            unsafe impl Pod for Abi<$type> {}
        )*
    };
}
pods!(
    Cell,
    Choice,
    ChoiceKey,
    ClientKey,
    Counters,
    EndpointRef,
    Flow,
    FlowKey,
    FragmentKey,
    FragmentValue,
    InterfaceKey,
    Line,
    Policy,
    StationKey,
    Tunnel,
    TunnelKey
);

/// The object to test.
///
/// # Errors
///
/// Fails if the environment names one that cannot be read.
pub fn object() -> Result<Cow<'static, [u8]>> {
    match env::var_os(OVERRIDE) {
        Some(path) => fs::read(&path)
            .map(Cow::Owned)
            .with_context(|| format!("read {}", Path::new(&path).display())),
        None => Ok(Cow::Borrowed(OBJECT)),
    }
}

/// Whether the object to test is the committed one.
///
/// # Errors
///
/// As [`object`].
pub fn is_committed() -> Result<bool> {
    Ok(object()? == OBJECT)
}

/// Lifts the limit on locked memory, which kernels before 5.11 charge maps to. Where that is refused and mattered,
/// making a map fails and says so.
pub fn lift_memlock() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `limit` outlives the call.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// A loaded object with its maps.
pub struct Kernel {
    /// The object.
    pub ebpf: Ebpf,
    blocks4: Array<MapData, Abi<Line>>,
    blocks6: Array<MapData, Abi<Line>>,
    spilled4: HashMap<MapData, [u8; 4], Abi<Cell>>,
    spilled6: HashMap<MapData, [u8; 8], Abi<Cell>>,
    members: HashMap<MapData, [u8; 4], Members>,
    hosts: HashMap<MapData, [u8; 16], Abi<EndpointRef>>,
    prefixes: LpmTrie<MapData, [u8; 16], Abi<EndpointRef>>,
    policies: Array<MapData, Abi<Policy>>,
    counters: PerCpuArray<MapData, Abi<Counters>>,
    exits: PerCpuArray<MapData, u64>,
    fragments: HashMap<MapData, Abi<FragmentKey>, Abi<FragmentValue>>,
    activity: Array<MapData, u32>,
}

impl Kernel {
    /// Loads the object with these constants. Programs are verified when they are first used.
    ///
    /// # Errors
    ///
    /// Says what could not be loaded or found.
    pub fn load(setup: &Setup) -> Result<Self> {
        Self::load_with(setup, [0x1111_2222, 0x3333_4444], &[])
    }

    /// Likewise, with a nonce, and with other sizes of some maps. That of `BLOCKS4` is in blocks, as the limits of the
    /// configuration are, and makes `BLOCKS6` and what belongs to them.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(setup: &Setup, nonce: [u32; 2], sizes: &[(&str, u32)]) -> Result<Self> {
        Self::load_at_rates(setup, nonce, sizes, [1, 1])
    }

    /// Likewise, with nanoseconds between events of one kind and of one client.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_at_rates(
        setup: &Setup,
        nonce: [u32; 2],
        sizes: &[(&str, u32)],
        [event_gap, client_gap]: [u64; 2],
    ) -> Result<Self> {
        lift_memlock();
        let (prefix, len) = setup.pref64.unwrap_or_default();
        let mut loader = EbpfLoader::new();
        for map in ["COUNTERS", "GROUPS", "CARRIED", "POLICIES", "ACTIVITY"] {
            loader.map_max_entries(map, ROWS);
        }
        let blocks = sizes.iter().find(|(map, _)| *map == "BLOCKS4");
        let blocks = blocks.map_or(BLOCKS, |(_, blocks)| *blocks);
        for (map, size) in sizes {
            loader.map_max_entries(map, *size);
        }
        for map in ["BLOCKS4", "BLOCKS6"] {
            loader.map_max_entries(map, lines(blocks));
        }
        for map in ["SPILLED4", "SPILLED6", "MEMBERS"] {
            loader.map_max_entries(map, blocks);
        }
        let mut ebpf = loader
            .override_global("FEATURES", &setup.features, true)
            .override_global("LINE_SHIFT", &line_shift(lines(blocks)), true)
            .override_global("PREF64", &prefix, true)
            .override_global("PREF64_LEN", &len, true)
            .override_global("NONCE", &nonce, true)
            .override_global("OTHER_MARK", &OTHER_MARK, true)
            .override_global("CATCH_GAP", &1_u32, true)
            .override_global("CATCH_EXIT", &CATCH_EXIT, true)
            .override_global("EVENT_GAP", &event_gap, true)
            .override_global("CLIENT_GAP", &client_gap, true)
            .load(&object()?)
            .context("load the BPF object")?;
        macro_rules! take {
            ($name:literal) => {
                ebpf.take_map($name)
                    .context(concat!("the object has no map ", $name))?
                    .try_into()
                    .context(concat!("map ", $name))?
            };
        }
        Ok(Self {
            blocks4: take!("BLOCKS4"),
            blocks6: take!("BLOCKS6"),
            spilled4: take!("SPILLED4"),
            spilled6: take!("SPILLED6"),
            members: take!("MEMBERS"),
            hosts: take!("HOSTS"),
            prefixes: take!("PREFIXES"),
            policies: take!("POLICIES"),
            counters: take!("COUNTERS"),
            exits: take!("EXITS"),
            fragments: take!("FRAGMENTS"),
            activity: take!("ACTIVITY"),
            ebpf,
        })
    }

    /// Fills the endpoint table and the policies.
    ///
    /// # Errors
    ///
    /// Fails if a map does not take an entry.
    pub fn fill(&mut self, contents: &Contents) -> Result<()> {
        for (key, value) in &contents.blocks4 {
            let address = u32::from_be_bytes(*key);
            let cell = Cell::of4(address, value);
            if cell.is_partial() {
                self.members.insert(key, value.members, 0)?;
            }
            if !place(&mut self.blocks4, address.into(), cell)? {
                self.spilled4.insert(key, Abi(cell), 0)?;
            }
        }
        for (key, value) in &contents.blocks6 {
            let address = u64::from_be_bytes(*key);
            let cell = Cell::of6(address, value);
            if !place(&mut self.blocks6, address, cell)? {
                self.spilled6.insert(key, Abi(cell), 0)?;
            }
        }
        for (key, value) in &contents.hosts {
            self.hosts.insert(key, Abi(*value), 0)?;
        }
        for ((bits, prefix), value) in &contents.prefixes {
            self.prefixes
                .insert(&Key::new(*bits, *prefix), Abi(*value), 0)?;
        }
        self.fill_policies(contents)
    }

    /// Fills the policies only.
    ///
    /// # Errors
    ///
    /// As [`fill`](Self::fill).
    pub fn fill_policies(&mut self, contents: &Contents) -> Result<()> {
        for (index, value) in &contents.policies {
            self.policies.set(*index, Abi(*value), 0)?;
        }
        Ok(())
    }

    /// What a slot of `EXITS` has counted, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Fails if the map cannot be read.
    pub fn slot(&self, slot: u32) -> Result<u64> {
        Ok(self.exits.get(&slot, 0)?.iter().sum())
    }

    /// Loads a program unless it is loaded already.
    ///
    /// # Errors
    ///
    /// Fails with the verifier's log.
    pub fn program(&mut self, name: &str) -> Result<&mut AyaProgram> {
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no program {name}"))?;
        let loaded = match program {
            AyaProgram::Xdp(xdp) => xdp.fd().is_ok() || xdp.load().map(|()| true)?,
            AyaProgram::SchedClassifier(tc) => tc.fd().is_ok() || tc.load().map(|()| true)?,
            _ => bail!("{name} is neither a TC nor an XDP program"),
        };
        ensure!(loaded);
        Ok(program)
    }

    /// Loads a program unless it is loaded already, and gives another descriptor of it.
    ///
    /// # Errors
    ///
    /// As [`program`](Self::program).
    pub fn descriptor(&mut self, name: &str) -> Result<OwnedFd> {
        let fd = match self.program(name)? {
            AyaProgram::Xdp(program) => program.fd()?.as_fd(),
            AyaProgram::SchedClassifier(program) => program.fd()?.as_fd(),
            _ => bail!("neither TC nor XDP"),
        };
        Ok(fd.try_clone_to_owned()?)
    }

    /// Runs a program on a frame once; `None` if the kernel's test runs refuse so short a frame.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses the program or the run.
    pub fn run(&mut self, program: &str, frame: &[u8], gso_segs: u32) -> Result<Option<Run>> {
        self.run_at_priority(program, frame, gso_segs, PRIORITY)
    }

    /// The same with another `skb->priority` than [`PRIORITY`].
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_at_priority(
        &mut self,
        program: &str,
        frame: &[u8],
        gso_segs: u32,
        priority: u32,
    ) -> Result<Option<Run>> {
        let run = match self.program(program)? {
            AyaProgram::Xdp(xdp) => run_xdp(xdp, frame),
            AyaProgram::SchedClassifier(tc) => run_tc(tc, frame, gso_segs, priority),
            _ => bail!("neither TC nor XDP"),
        };
        match run {
            Err(ProgramError::SyscallError(error))
                if frame.len() < SHORT_FRAME
                    && error.io_error.raw_os_error() == Some(libc::EINVAL) =>
            {
                Ok(None)
            }
            run => run
                .map(Some)
                .with_context(|| format!("run {program} on {} bytes", frame.len())),
        }
    }

    /// What the maps say since they were last cleared, together with what a run at `hook` returned. What another hook
    /// had counted stays, and is found when that one runs.
    ///
    /// # Errors
    ///
    /// Fails if a map cannot be read.
    pub fn outcome(&self, run: &Run, hook: Hook) -> Result<Outcome> {
        Ok(Outcome {
            frame: run.frame.clone(),
            mark: run.mark,
            priority: run.priority,
            exits: self.exits(hook)?,
            counters: self.counters()?,
            active: self.active()?,
        })
    }

    /// Exits of a hook that are not zero, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Fails if the map cannot be read.
    pub fn exits(&self, hook: Hook) -> Result<BTreeMap<(Hook, Exit), u64>> {
        let mut found = BTreeMap::new();
        for exit in Exit::ALL {
            let count: u64 = self.exits.get(&exit_slot(hook, exit), 0)?.iter().sum();
            if count != 0 {
                found.insert((hook, exit), count);
            }
        }
        Ok(found)
    }

    /// Counters that are not zero, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Fails if the map cannot be read.
    pub fn counters(&self) -> Result<BTreeMap<(u32, Direction, Class), Counter>> {
        let mut found = BTreeMap::new();
        for group in 0..ROWS {
            let cpus = self.counters.get(&group, 0)?;
            for direction in Direction::ALL {
                for class in Class::ALL {
                    let mut sum = Counter::default();
                    for cpu in cpus.iter() {
                        let cell = cpu.0.cells[direction as usize][class as usize];
                        sum.packets += cell.packets;
                        sum.bytes += cell.bytes;
                    }
                    if sum != Counter::default() {
                        found.insert((group, direction, class), sum);
                    }
                }
            }
        }
        Ok(found)
    }

    fn active(&self) -> Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for slot in 0..ROWS {
            if self.activity.get(&slot, 0)? != 0 {
                found.insert(slot);
            }
        }
        Ok(found)
    }

    /// Sets counters, exits and activity to zero where `outcome` has found something.
    ///
    /// # Errors
    ///
    /// Fails if a map cannot be written.
    pub fn clear(&mut self, outcome: &Outcome) -> Result<()> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        for (hook, exit) in outcome.exits.keys() {
            let zeros = PerCpuValues::try_from(vec![0; cpus])?;
            self.exits.set(exit_slot(*hook, *exit), zeros, 0)?;
        }
        for (group, _, _) in outcome.counters.keys() {
            let zeros = PerCpuValues::try_from(vec![Abi(Counters::default()); cpus])?;
            self.counters.set(*group, zeros, 0)?;
        }
        for slot in &outcome.active {
            self.activity.set(*slot, 0, 0)?;
        }
        Ok(())
    }

    /// Whether no slot outside those of known hooks and exits has counted anything.
    ///
    /// # Errors
    ///
    /// Fails if the map cannot be read.
    pub fn no_stray_exits(&self) -> Result<bool> {
        let known: BTreeSet<u32> = Hook::ALL
            .into_iter()
            .flat_map(|hook| Exit::ALL.map(|exit| exit_slot(hook, exit)))
            .collect();
        for slot in (0..EXIT_SLOTS).filter(|slot| !known.contains(slot)) {
            if self.exits.get(&slot, 0)?.iter().any(|count| *count != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Forgets all first fragments and says how many there were.
    ///
    /// # Errors
    ///
    /// Fails if the map cannot be changed.
    pub fn forget_fragments(&mut self) -> Result<usize> {
        let keys = self.fragments.keys().collect::<Result<Vec<_>, _>>()?;
        for key in &keys {
            self.fragments.remove(key)?;
        }
        Ok(keys.len())
    }
}

/// Puts a cell of a new block into its line, if that has room.
fn place(map: &mut Array<MapData, Abi<Line>>, address: u64, cell: Cell) -> Result<bool> {
    let index = line_of(address, line_shift(map.len()));
    let Abi(mut line) = map.get(&index, 0)?;
    let Some(free) = line.cells.iter_mut().find(|cell| cell.key == 0) else {
        return Ok(false);
    };
    *free = cell;
    map.set(index, Abi(line), 0)?;
    Ok(true)
}

/// What a program returns when it lets a packet pass.
#[must_use]
pub fn pass(program: &Program) -> u32 {
    if program.hook == Hook::Xdp {
        XDP_PASS
    } else {
        TC_ACT_UNSPEC
    }
}

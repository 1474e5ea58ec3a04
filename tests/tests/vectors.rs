//! The packet vectors, three ways: on the host, in XDP and in TC.

#[path = "vectors/bleach.rs"]
mod bleach;
#[path = "vectors/cap.rs"]
mod cap;
#[path = "vectors/catch.rs"]
mod catch;
#[path = "vectors/companion.rs"]
mod companion;
#[path = "vectors/flows.rs"]
mod flows;
#[path = "vectors/other.rs"]
mod other;
#[path = "vectors/snoop.rs"]
mod snoop;

use std::collections::{BTreeMap, BTreeSet};

use wificall_common::abi::Features;
use wificall_tests::{
    programs::{
        self, Kernel,
        instructions::{self, Instructions},
        pass, verifier,
    },
    vectors::{Contents, Host, Outcome, PROGRAMS, Program, Setup, Vector, contents, vectors},
};

/// Vectors that stand together: the first, and those that continue it.
fn sequences(all: &[Vector]) -> Vec<&[Vector]> {
    let mut sequences = Vec::new();
    let mut start = 0;
    for index in 1..=all.len() {
        if all.get(index).is_none_or(|vector| !vector.continues) {
            sequences.push(&all[start..index]);
            start = index;
        }
    }
    sequences
}

/// Runs every sequence in every program that it is for, under every link header, and compares.
fn run_all(
    all: &[Vector],
    mut start: impl FnMut(&Setup),
    mut run: impl FnMut(&Vector, &Program, &[u8]) -> Option<Outcome>,
) -> (usize, usize) {
    let (mut runs, mut skipped) = (0, 0);
    let mut failures = Vec::new();
    for sequence in sequences(all) {
        for (index, first) in sequence[0].cases.iter().enumerate() {
            for program in &PROGRAMS {
                if !sequence[0].runs_in(first, program) && !sequence[0].host_only() {
                    continue;
                }
                start(&sequence[0].setup);
                for vector in sequence {
                    let case = &vector.cases[index];
                    if case.direction != program.direction || case.link != program.link {
                        continue;
                    }
                    let Some(outcome) = run(vector, program, &case.frame) else {
                        skipped += 1;
                        continue;
                    };
                    runs += 1;
                    let expected = vector.expected(case, program);
                    for difference in outcome.differences(&expected) {
                        failures.push(format!(
                            "{} in {} ({}): {difference}",
                            vector.name, program.name, case.words
                        ));
                    }
                }
            }
        }
    }
    let shown = failures.len().min(20);
    assert!(
        failures.is_empty(),
        "{} differences:\n{}",
        failures.len(),
        failures[..shown].join("\n")
    );
    (runs, skipped)
}

#[test]
fn on_the_host() {
    let (all, contents) = (vectors().unwrap(), contents().unwrap());
    let host = std::cell::RefCell::new(Host::new(&contents, Setup::DEFAULT));
    let (runs, _) = run_all(
        &all,
        |setup| *host.borrow_mut() = Host::new(&contents, *setup),
        |vector, program, frame| Some(host.borrow_mut().run(program, frame, vector.gso_segs)),
    );
    println!("{} vectors, {runs} runs on the host", all.len());
}

#[test]
fn in_the_kernel() {
    let (all, contents) = (vectors().unwrap(), contents().unwrap());
    let all: Vec<_> = all
        .into_iter()
        .filter(|vector| !vector.host_only())
        .collect();
    let kernels = std::cell::RefCell::new(BTreeMap::new());
    let (runs, skipped) = run_all(
        &all,
        |setup| {
            let mut kernels = kernels.borrow_mut();
            let kernel = kernels
                .entry(*setup)
                .or_insert_with(|| kernel(setup, &contents));
            kernel.forget_fragments().unwrap();
        },
        |vector, program, frame| {
            let mut kernels = kernels.borrow_mut();
            let kernel = kernels.get_mut(&vector.setup).expect("started");
            let run = kernel.run(program.name, frame, vector.gso_segs).unwrap()?;
            assert_eq!(run.verdict, pass(program), "{}", vector.name);
            let outcome = kernel.outcome(&run, program.hook).unwrap();
            kernel.clear(&outcome).unwrap();
            Some(outcome)
        },
    );
    for kernel in kernels.borrow().values() {
        assert!(kernel.no_stray_exits().unwrap());
    }
    println!(
        "{} vectors, {runs} runs in {} programs; {skipped} runs on frames that are too short for a test run skipped",
        all.len(),
        PROGRAMS.len()
    );
}

/// The vectors' frames with bytes changed, by a generator whose seed is fixed: host, TC and XDP agree on whatever that
/// makes of them, and so remember the same first fragments.
#[test]
fn host_and_kernel_agree_on_changed_frames() {
    let (all, contents) = (vectors().unwrap(), contents().unwrap());
    let setup = Setup::DEFAULT;
    let mut kernel = kernel(&setup, &contents);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut runs, mut matches) = (0, 0);
    for vector in all.iter().filter(|vector| vector.setup == setup) {
        let Some(case) = vector.cases.get(random.below(vector.cases.len())) else {
            continue;
        };
        for program in &PROGRAMS {
            if !vector.runs_in(case, program) {
                continue;
            }
            let mut host = Host::new(&contents, setup);
            for _ in 0..3 {
                let frame = random.changed(&case.frame);
                let Some(run) = kernel.run(program.name, &frame, 0).unwrap() else {
                    continue;
                };
                let outcome = kernel.outcome(&run, program.hook).unwrap();
                kernel.clear(&outcome).unwrap();
                let expected = host.run(program, &frame, 0);
                let differences = outcome.differences(&expected);
                assert!(
                    differences.is_empty(),
                    "{frame:02x?} in {}: {differences:?}",
                    program.name
                );
                runs += 1;
                matches += outcome.counters.len();
            }
            assert_eq!(kernel.forget_fragments().unwrap(), host.remembered());
        }
    }
    println!("{runs} runs on changed frames, {matches} of them matches");
    assert!(matches > runs / 10);
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }

    /// One to three bytes changed, mostly those of headers; sometimes cut short.
    fn changed(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        if frame.is_empty() {
            return frame;
        }
        for _ in 0..=self.below(3) {
            let at = self.below(frame.len().min(80));
            frame[at] = self.below(256) as u8;
        }
        if self.below(8) == 0 {
            frame.truncate(self.below(frame.len()));
        }
        frame
    }
}

fn kernel(setup: &Setup, contents: &Contents) -> Kernel {
    let mut kernel = Kernel::load(setup).unwrap();
    kernel.fill(contents).unwrap();
    kernel
}

/// Set where the verifier is too slow to be asked about everything: under emulation.
const EMULATED: &str = "WIFICALL_EMULATED";

fn is_emulated() -> bool {
    std::env::var_os(EMULATED).is_some()
}

/// The programs that a test of one feature goes through: all, and under emulation one of each kind, that with the most in it.
/// There the vectors themselves go through all.
fn each_program() -> impl Iterator<Item = &'static Program> {
    let emulated = is_emulated();
    (PROGRAMS.iter())
        .filter(move |it| !emulated || ["in_up", "out_down", "xdp_up"].contains(&it.name))
}

/// That a test went through more than `least` cases, of those of all programs.
fn assert_more(runs: usize, least: usize) {
    let least = if is_emulated() { least / 6 } else { least };
    assert!(runs > least, "{runs}");
}

/// The verifier looks at what is left of a program when features are off: each by itself with those that it needs, and all
/// but each. Under emulation only the first.
#[test]
fn every_feature_loads_without_the_others() {
    let emulated = is_emulated();
    let wanted = |name: &str| each_program().any(|program| program.name == name);
    let mut refused = Vec::new();
    for bit in 0..Features::ALL.count_ones() {
        let feature = 1 << bit;
        let usual = Features::DSCP | Features::MARK | Features::COUNT_ACCESS;
        let sets = [feature | usual, feature, Features::ALL & !feature];
        for &features in &sets[..if emulated { 1 } else { sets.len() }] {
            let setup = Setup {
                features,
                pref64: None,
            };
            if let Err(error) = verifier::efforts_of(&setup, wanted) {
                refused.push(format!("{features:#x}: {error:#}"));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// How much of its million instructions (`BPF_COMPLEXITY_LIMIT_INSNS`) the verifier needs, so that a change that blows it
/// up is seen before an older kernel refuses it. What one feature needs is less than what all need. And that neither the
/// programs nor the verifier's way through them have grown unseen: the numbers are recorded.
#[test]
fn instruction_counts() {
    let here = Instructions::here().unwrap();
    assert_eq!(here.object.len(), PROGRAMS.len());
    let (release, verified) = here.verified.first_key_value().unwrap();
    println!(
        "Linux {release}\n{:<14} {:>12} {:>12} {:>12}",
        "program", "instructions", "verified", "features off"
    );
    for (program, [all, none]) in verified {
        println!(
            "{program:<14} {:>12} {all:>12} {none:>12}",
            here.object[program]
        );
        assert!(*all < 500_000, "{program}: {all}");
    }
    println!(
        "\n{:<14} {:>27} {:>24}",
        "[none, usual, all]", "instructions left", "bytes of machine code"
    );
    for (program, translated) in &here.translated[release] {
        let jited = here.jited[release][program];
        println!(
            "{program:<14} {:>31} {:>24}",
            format!("{translated:?}"),
            format!("{jited:?}")
        );
    }
    if std::env::var_os("WIFICALL_RECORD_INSTRUCTIONS").is_some() {
        println!("recorded: {}", serde_json::to_string(&here).unwrap());
    } else if programs::is_committed().unwrap() {
        let recorded = Instructions::recorded().unwrap();
        let known = here.is_known(&recorded);
        // Of the kernels that this runs under in QEMU, one that nothing is known of is an error: nobody would look.
        assert!(
            known || std::env::var_os("WIFICALL_COMPARE_INSTRUCTIONS").is_none(),
            "nothing is recorded of Linux {release}\n{}",
            instructions::HINT
        );
        if !known {
            println!("nothing is recorded of Linux {release}: only the object is compared");
        }
        let differences = here.differences(&recorded);
        assert!(
            differences.is_empty(),
            "{}\n{}",
            differences.join("\n"),
            instructions::HINT
        );
    } else {
        println!("another object than the committed one: compared with nothing");
    }
}

/// The list of programs here is the object's.
#[test]
fn every_program_is_run() {
    let kernel = Kernel::load(&Setup::DEFAULT).unwrap();
    let object: BTreeSet<_> = kernel.ebpf.programs().map(|(name, _)| name).collect();
    let listed: BTreeSet<_> = PROGRAMS.iter().map(|program| program.name).collect();
    assert_eq!(object, listed);
}

//! The packet vectors, three ways: on the host, in XDP and in TC.

use std::collections::{BTreeMap, BTreeSet};

use wificall_common::abi::Features;
use wificall_tests::{
    programs::{Kernel, pass, verifier},
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
            let outcome = kernel.outcome(&run).unwrap();
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

fn kernel(setup: &Setup, contents: &Contents) -> Kernel {
    let mut kernel = Kernel::load(setup).unwrap();
    kernel.fill(contents).unwrap();
    kernel
}

/// How much of its million instructions (`BPF_COMPLEXITY_LIMIT_INSNS`) the verifier needs, so that a change that blows it
/// up is seen before an older kernel refuses it. What one feature needs is less than what all need.
#[test]
fn instruction_counts() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let all = Setup {
        features: Setup::DEFAULT.features | Features::HANDOVER,
        pref64: Some(([0; 16], 96)),
    };
    let none = Setup {
        features: 0,
        pref64: None,
    };
    let (all, none) = (
        verifier::efforts(&all).unwrap(),
        verifier::efforts(&none).unwrap(),
    );
    assert_eq!(all.len(), PROGRAMS.len());
    println!(
        "Linux {}\n{:<14} {:>12} {:>12} {:>12}",
        release.trim(),
        "program",
        "instructions",
        "verified",
        "features off"
    );
    for (full, bare) in all.iter().zip(&none) {
        println!(
            "{:<14} {:>12} {:>12} {:>12}",
            full.program, full.instructions, full.verified, bare.verified
        );
        assert!(full.verified < 500_000, "{}: {}", full.program, full.line);
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

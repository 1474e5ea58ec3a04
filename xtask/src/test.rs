//! `cargo xtask test`: everything, as root, with what it needs installed first.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Component},
    bench, ebpf, instructions,
    kernel::Kernel,
    qemu::{self, Guest, Outcome},
    toolchain::Toolchain,
    workspace::{TestProgram, cargo, executable, output, root, run, show, target, test_programs},
};

const COMPONENTS: [Component<'_>; 9] = [
    Component {
        name: "network namespaces",
        packages: &["iproute2", "iputils-ping", "nftables"],
    },
    Component {
        name: "the IPsec peer",
        packages: &[
            "charon-systemd",
            "strongswan-swanctl",
            "libcharon-extra-plugins",
            "libstrongswan-standard-plugins",
            "libstrongswan-extra-plugins",
        ],
    },
    Component {
        name: "DNS",
        packages: &["unbound", "bind9-dnsutils"],
    },
    Component {
        name: "exports",
        packages: &["dnsmasq-base", "busybox-static"],
    },
    Component {
        name: "dashboards and alerts",
        packages: &["prometheus"],
    },
    Component {
        name: "captures",
        packages: &["tshark"],
    },
    Component {
        name: "the live page",
        packages: &["chromium", "fonts-dejavu-core"],
    },
    bench::FORWARDING,
    qemu::COMPONENT,
];

/// A nightly of rustup, for Miri alone.
const NIGHTLY: &str = "nightly";

/// Integration tests that measure, or hold something to a time: nothing runs beside them.
const MEASURING: [&str; 9] = [
    "bypass",
    "conversations",
    "costs",
    "forwarding",
    "load",
    "many",
    "snoop",
    "telemetry",
    "world",
];

/// The vectors take seven minutes on two cores that are not busy: loading programs is slow under emulation.
const GUEST_TIMEOUT: Duration = Duration::from_secs(2400);

#[derive(clap::Args)]
pub struct Args {
    /// Run the tests whose names contain this
    filter: Option<String>,
    /// Fail if something is missing instead of installing it
    #[arg(long)]
    no_install: bool,
    /// Kernel lines to run the packet vectors under, in QEMU
    #[arg(
        long,
        value_name = "VERSIONS",
        value_delimiter = ',',
        default_value = "5.10"
    )]
    kernels: Vec<String>,
}

/// Entry point of the task; whether all passed.
pub fn test(args: &Args) -> Result<bool> {
    // SAFETY: getuid has no preconditions and cannot fail.
    if unsafe { libc::getuid() } != 0 {
        bail!(
            "the tests load BPF programs and make network namespaces\nhint: run `cargo xtask test` as root"
        );
    }
    let mut report = Report::default();
    report.step("packages", || {
        apt::ensure(&COMPONENTS, !args.no_install)?;
        Ok(Counts::default())
    });
    if report.failed() {
        // Nothing after this could tell anything.
        return Ok(report.finish());
    }
    report.step("unit tests", || {
        let packages = [
            "--workspace",
            "--exclude",
            "wificall-ebpf",
            "--exclude",
            "wificall-tests",
        ];
        libtest(cargo().arg("test").args(packages), args)
    });
    report.step("Miri", || miri(args));
    let next_abi = target().join("next-abi/wificall");
    report.step("build of the next ABI", || build_next_abi(&next_abi, args));
    report.step("integration tests", || {
        run(cargo().args(["build", "--quiet", "--package", "wificall"]))?;
        integration(&next_abi, args)
    });
    for version in &args.kernels {
        report.step(&format!("vectors on Linux {version}"), || {
            vectors_under(version, args)
        });
    }
    Ok(report.finish())
}

/// Results of tests.
#[derive(Clone, Copy, Default)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Adds what a line `test result: ok. 3 passed; 0 failed; 1 ignored; …` of libtest says.
    fn add_line(&mut self, line: &str) {
        let Some((_, numbers)) = line
            .split_once("test result: ")
            .and_then(|(_, rest)| rest.split_once(". "))
        else {
            return;
        };
        for part in numbers.split(';') {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u32>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.skipped += count,
                _ => {}
            }
        }
    }

    /// What ended badly without a failed test, or ran no test although all were asked for, failed.
    fn checked(mut self, success: bool, what: &str, args: &Args) -> Self {
        if !success && self.failed == 0 {
            eprintln!("{what} failed outside of its tests");
            self.failed += 1;
        }
        if self.passed + self.failed == 0 && args.filter.is_none() {
            eprintln!("{what} ran no test");
            self.failed += 1;
        }
        self
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(
            formatter,
            "{passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}

/// The steps so far.
#[derive(Default)]
struct Report {
    steps: Vec<(String, Duration, Counts)>,
}

impl Report {
    fn step(&mut self, name: &str, action: impl FnOnce() -> Result<Counts>) {
        println!("\n== {name}");
        let start = Instant::now();
        let counts = action().unwrap_or_else(|error| {
            eprintln!("error: {name}: {error:#}");
            Counts {
                failed: 1,
                ..Counts::default()
            }
        });
        self.steps.push((name.to_owned(), start.elapsed(), counts));
    }

    fn total(&self) -> Counts {
        let mut total = Counts::default();
        for (_, _, counts) in &self.steps {
            total.add(*counts);
        }
        total
    }

    fn failed(&self) -> bool {
        self.total().failed > 0
    }

    /// Prints the table and, as the last line of standard output, the sums.
    fn finish(&self) -> bool {
        println!(
            "\n{:<28} {:>8} {:>8} {:>8} {:>8}",
            "step", "seconds", "passed", "failed", "skipped"
        );
        for (
            name,
            time,
            Counts {
                passed,
                failed,
                skipped,
            },
        ) in &self.steps
        {
            println!(
                "{name:<28} {:>8.1} {passed:>8} {failed:>8} {skipped:>8}",
                time.as_secs_f64()
            );
        }
        println!("\n{}", self.total());
        !self.failed()
    }
}

/// Runs `cargo test`, showing and counting what it prints.
fn libtest(command: &mut Command, args: &Args) -> Result<Counts> {
    command.args(["--no-fail-fast", "--"]).args(&args.filter);
    let (counts, success) = counted(command, |line| println!("{line}"))?;
    Ok(counts.checked(success, &show(command), args))
}

/// Runs what prints results of tests, giving its lines of either stream to `show_line`; whether it succeeded.
fn counted(command: &mut Command, mut show_line: impl FnMut(&str)) -> Result<(Counts, bool)> {
    let (lines, writer) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let started = command.spawn();
    let mut child = started.with_context(|| format!("start {}", show(command)))?;
    // The pipe ends with the child only if nobody here can write to it.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut counts = Counts::default();
    for line in BufReader::new(lines).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        show_line(&line);
        counts.add_line(&line);
    }
    let status = child.wait()?;
    Ok((counts, status.success()))
}

/// The crate `tests`: a program for each CPU at once, each its tests in turn, then those that measure one after another.
fn integration(next_abi: &Path, args: &Args) -> Result<Counts> {
    let build = ["test", "--package", "wificall-tests", "--no-run"];
    let mut programs = test_programs(cargo().args(build))?;
    // Its verifying takes longest: begun last, it would be alone at the end.
    programs.sort_by_key(|program| program.name != "vectors");
    let missing = MEASURING
        .into_iter()
        .find(|name| programs.iter().all(|program| program.name != *name));
    if let Some(name) = missing {
        bail!("no integration test is called {name}");
    }
    let run = |program: &TestProgram, show_line: &mut dyn FnMut(&str)| {
        let mut command = Command::new(&program.path);
        // Where cargo runs them.
        command
            .current_dir(root().join("tests"))
            .args(["--test-threads", "1"])
            .args(&args.filter)
            .env("WIFICALL_NEXT_ABI_AGENT", next_abi);
        let (mut counts, success) = counted(&mut command, show_line)?;
        if !success && counts.failed == 0 {
            eprintln!("{} failed outside of its tests", program.name);
            counts.failed += 1;
        }
        anyhow::Ok(counts)
    };
    let (measuring, others): (Vec<_>, Vec<_>) = programs
        .into_iter()
        .partition(|program| MEASURING.contains(&program.name.as_str()));
    let total = Mutex::new(Counts::default());
    let add = |counts| total.lock().unwrap().add(counts);
    let queue = Mutex::new(others.into_iter());
    let work = || {
        while let Some(program) = { queue.lock().unwrap().next() } {
            println!("begins: {}", program.name);
            let mut text = String::new();
            let counts = run(&program, &mut |line| text.extend([line, "\n"]))?;
            // At once, or the lines of two would be mixed.
            print!("\n     Running {}\n{text}", program.name);
            add(counts);
        }
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    for program in &measuring {
        println!("\n     Running {}", program.name);
        add(run(program, &mut |line| println!("{line}"))?);
    }
    let counts = *total.lock().unwrap();
    Ok(counts.checked(true, "the integration tests", args))
}

/// The only test that may be skipped: a machine may have no nightly toolchain, and no way to one.
fn miri(args: &Args) -> Result<Counts> {
    let toolchain = Toolchain::Rustup(NIGHTLY.to_owned());
    if let Err(error) = ensure_miri(&toolchain, !args.no_install) {
        println!("Miri skipped, it cannot be had: {error:#}");
        return Ok(Counts {
            skipped: 1,
            ..Counts::default()
        });
    }
    libtest(
        toolchain
            .cargo()
            .current_dir(root())
            .args(["miri", "test", "--package", "wificall-common"])
            .arg("--target-dir")
            .arg(target()),
        args,
    )
}

fn ensure_miri(toolchain: &Toolchain, install: bool) -> Result<()> {
    let present = |toolchain: &Toolchain| output(toolchain.cargo().args(["miri", "--version"]));
    if present(toolchain).is_err() && install {
        println!("rustup: {NIGHTLY} with miri and rust-src");
        let arguments = [
            "toolchain",
            "install",
            NIGHTLY,
            "--profile",
            "minimal",
            "--no-self-update",
        ];
        let components = [
            "component",
            "add",
            "miri",
            "rust-src",
            "--toolchain",
            NIGHTLY,
        ];
        // A toolchain that is there already is completed, not replaced by another night's.
        output(Command::new("rustup").args(components)).or_else(|_| {
            output(
                Command::new("rustup")
                    .args(arguments)
                    .args(["--component", "miri,rust-src"]),
            )
        })?;
    }
    present(toolchain).map(drop)
}

/// Builds the agent whose data plane has the next ABI number: what an upgrade goes to.
fn build_next_abi(agent: &PathBuf, args: &Args) -> Result<Counts> {
    let dir = agent.parent().context("the agent has a directory")?;
    let object = dir.join("wificall.bpf.o");
    ebpf::build_to(&object, "next-abi", !args.no_install)?;
    let mut build = cargo();
    build
        .args(["build", "--package", "wificall", "--features", "next-abi"])
        .env("WIFICALL_BPF_OBJECT", &object);
    // The same target directory shares the dependencies; the next build puts the ordinary agent back.
    let built = executable(&mut build, "wificall")?;
    std::fs::copy(&built, agent)
        .with_context(|| format!("copy {} to {}", built.display(), agent.display()))?;
    Ok(Counts::default())
}

/// The packet vectors, with every program loaded, by another kernel.
fn vectors_under(version: &str, args: &Args) -> Result<Counts> {
    let arguments: Vec<_> = args.filter.iter().cloned().collect();
    let mut environment = vec![
        ("RUST_BACKTRACE", "1".to_owned()),
        ("WIFICALL_EMULATED", "1".to_owned()),
    ];
    // A newer build of a line that is recorded is not to go by unseen.
    if instructions::knows(version)? {
        environment.push((instructions::COMPARE, "1".to_owned()));
    }
    let (release, outcome) = run_vectors(version, &arguments, &environment)?;
    println!("Linux {release}");
    let mut counts = Counts::default();
    for line in outcome.log.lines() {
        println!("{line}");
        counts.add_line(line);
    }
    let success = outcome.success();
    if let Err(error) = &success {
        eprintln!("{error:#}");
    }
    Ok(counts.checked(success.is_ok(), "the guest", args))
}

/// Runs the test binary `vectors` under a kernel of a line; that kernel's release and what the guest said.
pub fn run_vectors(
    version: &str,
    arguments: &[String],
    environment: &[(&str, String)],
) -> Result<(String, Outcome)> {
    let kernel = Kernel::fetch(version)?;
    let build = [
        "test",
        "--package",
        "wificall-tests",
        "--test",
        "vectors",
        "--no-run",
    ];
    let program = executable(cargo().args(build), "vectors")?;
    let data = root().join("tests/vectors");
    let outcome = Guest {
        program: &program,
        arguments,
        files: data
            .exists()
            .then_some(&data)
            .map(std::slice::from_ref)
            .unwrap_or_default(),
        environment,
        timeout: GUEST_TIMEOUT,
    }
    .run(&kernel)?;
    Ok((kernel.release, outcome))
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn counts_are_those_of_libtest() {
        let mut counts = Counts::default();
        counts.add_line("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s");
        counts.add_line(
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        counts.add_line("test prints_a_result ... ok");
        assert_eq!(counts.to_string(), "14 passed, 3 failed, 1 skipped");
    }
}

//! `cargo xtask`: what building and testing need beyond cargo. One file a task.

mod apt;
mod bench;
mod bpf;
mod catalogue;
mod demo;
mod ebpf;
mod fuzz;
mod instructions;
mod kernel;
mod prologue;
mod qemu;
#[path = "../../wificall-user/bpf/sources.rs"]
mod sources;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Measure what wificall costs beside what people use today, as root
    Bench(bench::Args),
    /// Build the agent's table of operators from data/, or check the committed one
    Catalogue(catalogue::Args),
    /// Show the agent at work in a lab of network namespaces, as root
    Demo(demo::Args),
    /// Build the BPF object that the agent embeds, or check the committed one
    Ebpf(ebpf::Args),
    /// Fuzz what reads packets and captures, by libFuzzer
    Fuzz(fuzz::Args),
    /// Check that no TC program of the object writes the packet directly
    Prologue(prologue::Args),
    /// Run a program of this machine under another kernel, in QEMU
    Qemu(qemu::Args),
    /// Run every test, as root; installs what the tests need
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Bench(args) => match bench::bench(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Task::Demo(args) => match demo::demo(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Task::Catalogue(args) => catalogue::catalogue(&args),
        Task::Ebpf(args) => ebpf::ebpf(&args),
        Task::Fuzz(args) => fuzz::fuzz(&args),
        Task::Prologue(args) => prologue::prologue(&args),
        Task::Qemu(args) => qemu::qemu(&args),
        // Its last line is the sums of the tests, also if some failed.
        Task::Test(args) => match test::test(&args) {
            Ok(false) => return ExitCode::FAILURE,
            other => other.map(drop),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

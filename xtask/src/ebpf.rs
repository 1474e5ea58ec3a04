//! `cargo xtask ebpf`: builds the BPF object, or checks the committed one.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    sources,
    toolchain::{Toolchain, linker_version},
    workspace::{cargo, root, run, target},
};

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";

/// Where the committed object lies, and beside it what it was built from and with.
const OBJECT: &str = "wificall-user/bpf/wificall.bpf.o";
const MANIFEST: &str = "wificall-user/bpf/wificall.bpf.toml";

#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail unless the committed object is the one that the sources give
    #[arg(long, conflicts_with_all = ["out", "features"])]
    check: bool,
    /// Run clippy on the programs instead, with warnings denied
    #[arg(long, conflicts_with_all = ["check", "out"])]
    clippy: bool,
    /// Write the object to FILE alone, and no record of its sources
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Features of wificall-ebpf; needs --out
    #[arg(long, value_name = "FEATURES", requires = "out")]
    features: Option<String>,
    /// `debian` for the distribution's packages (the reference), or the name of a rustup toolchain
    #[arg(long, value_name = "NAME", default_value = "debian")]
    toolchain: String,
    /// Fail if something is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// Entry point of the task.
pub fn ebpf(args: &Args) -> Result<()> {
    let toolchain = Toolchain::named(&args.toolchain);
    if args.clippy {
        return clippy(&toolchain, !args.no_install);
    }
    if args.check {
        return check(&toolchain, !args.no_install);
    }
    let built = build(&toolchain, args.features.as_deref(), !args.no_install)?;
    match &args.out {
        Some(path) => write(path, &built.object),
        None => commit(&built),
    }
}

/// Builds the object and writes it to `path`.
pub fn build_to(path: &Path, features: &str, install: bool) -> Result<()> {
    write(
        path,
        &build(&Toolchain::Debian, Some(features), install)?.object,
    )
}

/// The committed object.
pub fn committed() -> PathBuf {
    root().join(OBJECT)
}

/// An object and what its bytes depend on beside the sources.
struct Built {
    object: Vec<u8>,
    rustc: String,
    linker: String,
}

fn build(toolchain: &Toolchain, features: Option<&str>, install: bool) -> Result<Built> {
    toolchain.ensure(install)?;
    let linker = toolchain.linker(install)?;
    let mut command = toolchain.cargo();
    command
        .arg("build")
        .args(target_arguments())
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?.join("\x1f"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        .current_dir(root());
    if let Some(features) = features {
        command.args(["--features", features]);
    }
    run(&mut command)?;
    let object = target_dir()
        .join(TARGET)
        .join(PROFILE)
        .join("wificall-ebpf");
    Ok(Built {
        object: fs::read(&object).with_context(|| format!("read {}", object.display()))?,
        rustc: toolchain.version()?,
        linker: linker_version(&linker)?,
    })
}

fn clippy(toolchain: &Toolchain, install: bool) -> Result<()> {
    toolchain.ensure(install)?;
    run(toolchain
        .clippy(install)?
        .args(target_arguments())
        .args(["--", "-D", "warnings"])
        .current_dir(root()))
}

/// Apart from the host's, which cargo of another version would keep rebuilding.
fn target_dir() -> PathBuf {
    target().join("bpf")
}

fn target_arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["--quiet", "--locked", "--package", "wificall-ebpf"]
        .into_iter()
        .chain([
            "-Z",
            "build-std=core",
            "--target",
            TARGET,
            "--profile",
            PROFILE,
            "--target-dir",
        ])
        .map(Into::into)
        .collect();
    arguments.push(target_dir().into());
    arguments
}

/// Flags that make the bytes independent of where the checkout, the registry and the compiler lie and of the machine
/// that builds.
fn flags(toolchain: &Toolchain) -> Result<Vec<String>> {
    // aya-ebpf takes the architecture for its `pt_regs` from the host unless told; no program here reads registers.
    // Packet fields lie anywhere and are arrays of bytes here, which would be moved byte by byte. All kernels that this is
    // for allow unaligned access to packets and maps (`HAVE_EFFICIENT_UNALIGNED_ACCESS`: x86-64, arm64, ARMv7). bpf-linker
    // knows the feature where it is built with LLVM 22 or later.
    let mut flags = vec![
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
    ];
    let home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let mut paths = [
        (toolchain.sysroot()?, "/rust"),
        (home, "/cargo"),
        (root().to_path_buf(), "/wificall"),
    ];
    // rustc applies the last prefix that fits, which has to be the most specific.
    paths.sort_by_key(|(path, _)| path.as_os_str().len());
    for (path, name) in paths {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    Ok(flags)
}

fn commit(built: &Built) -> Result<()> {
    let manifest = format!(
        "# Written by `cargo xtask ebpf`; read by build.rs, which refuses an object older than its sources.\n\
         sources = \"{}\"\n\
         object = \"{}\"\n\
         rustc = \"{}\"\n\
         linker = \"{}\"\n",
        sources::hash(root()).context("hash the sources of the BPF programs")?,
        sources::digest(&built.object),
        built.rustc,
        built.linker,
    );
    write(&root().join(OBJECT), &built.object)?;
    write(&root().join(MANIFEST), manifest.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    eprintln!("{}: {} bytes", path.display(), bytes.len());
    Ok(())
}

/// The source hash always; then the bytes, where the compiler and the linker are those of the committed object;
/// otherwise the rebuilt object has to load and pass the vectors.
fn check(toolchain: &Toolchain, install: bool) -> Result<()> {
    let hint = "hint: run `cargo xtask ebpf` and commit wificall-user/bpf";
    let manifest = fs::read_to_string(root().join(MANIFEST))
        .with_context(|| format!("read {MANIFEST}\n{hint}"))?;
    let recorded = |key| sources::value(&manifest, key).unwrap_or_default();
    let object = fs::read(committed()).with_context(|| format!("read {OBJECT}\n{hint}"))?;
    if sources::digest(&object) != recorded("object") {
        bail!("{OBJECT} is not the object that {MANIFEST} describes\n{hint}");
    }
    if sources::hash(root())? != recorded("sources") {
        bail!("{OBJECT} is older than its sources\n{hint}");
    }
    let built = build(toolchain, None, install)?;
    if built.object == object {
        eprintln!("{OBJECT}: rebuilt, the same {} bytes", object.len());
        return Ok(());
    }
    if built.rustc == recorded("rustc") && built.linker == recorded("linker") {
        bail!(
            "the sources give another object than {OBJECT} with the same toolchain ({})\n{hint}",
            built.rustc
        );
    }
    eprintln!(
        "{OBJECT} was built with {} and {}; this is {} and {}: running the vectors on the rebuilt object",
        recorded("rustc"),
        recorded("linker"),
        built.rustc,
        built.linker
    );
    let rebuilt = target_dir().join("rebuilt.bpf.o");
    write(&rebuilt, &built.object)?;
    run(cargo()
        .args([
            "test",
            "--quiet",
            "--package",
            "wificall-tests",
            "--test",
            "vectors",
        ])
        .env("WIFICALL_BPF_OBJECT", rebuilt))
}

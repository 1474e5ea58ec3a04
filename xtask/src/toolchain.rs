//! The two ways to a compiler for the BPF target.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Component},
    workspace::{cargo, is_of_this_run, output, run, target},
};

const LINKER_VERSION: &str = "0.13.0";

const DEBIAN: Component<'_> = Component {
    name: "the BPF toolchain",
    packages: &["rustc-web", "cargo-web", "rust-web-src"],
};

const CLIPPY: Component<'_> = Component {
    name: "lints of the BPF programs",
    packages: &["rust-web-clippy"],
};

/// A rustc with the sources of `core`.
#[derive(Clone, Debug, PartialEq)]
pub enum Toolchain {
    /// The distribution's packages, in `/usr/bin`: the reference, because every Debian machine can have it.
    Debian,
    /// A nightly of rustup, by name.
    Rustup(String),
}

impl Toolchain {
    /// `debian`, or the name of a rustup toolchain.
    pub fn named(name: &str) -> Self {
        if name == "debian" {
            Self::Debian
        } else {
            Self::Rustup(name.to_owned())
        }
    }

    /// Installs what is missing, or fails naming it.
    pub fn ensure(&self, install: bool) -> Result<()> {
        match self {
            Self::Debian => apt::ensure(&[DEBIAN], install),
            Self::Rustup(name) => {
                let sources = self.sysroot()?.join("lib/rustlib/src/rust/library/core");
                if sources.is_dir() {
                    return Ok(());
                }
                let arguments = ["component", "add", "rust-src", "--toolchain", name];
                if !install {
                    bail!(
                        "toolchain {name} has no rust-src\nhint: rustup {}",
                        arguments.join(" ")
                    );
                }
                run(Command::new("rustup").args(arguments))
            }
        }
    }

    /// `cargo` of this toolchain.
    pub fn cargo(&self) -> Command {
        self.tool("cargo")
    }

    /// `cargo clippy` of this toolchain.
    pub fn clippy(&self, install: bool) -> Result<Command> {
        if *self == Self::Debian {
            apt::ensure(&[CLIPPY], install)?;
        }
        // Asked for `clippy`, cargo looks in rustup's directory first.
        let mut command = self.tool("cargo-clippy");
        command.arg("clippy");
        Ok(command)
    }

    /// First line of `rustc --version`.
    pub fn version(&self) -> Result<String> {
        Ok(output(self.tool("rustc").arg("--version"))?
            .trim()
            .to_owned())
    }

    /// The directory that holds `lib/rustlib`.
    pub fn sysroot(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(
            output(self.tool("rustc").args(["--print", "sysroot"]))?.trim(),
        ))
    }

    /// A `bpf-linker` for this compiler's LLVM: from the cache below `target`, else built into it, else, for a
    /// rustup toolchain whose LLVM Debian does not have, the one in `PATH`.
    pub fn linker(&self, install: bool) -> Result<PathBuf> {
        let llvm = self.llvm_major()?;
        let cache = target().join(format!("tools/bpf-linker-{LINKER_VERSION}-llvm-{llvm}"));
        let linker = cache.join("bin/bpf-linker");
        if linker.is_file() {
            return Ok(linker);
        }
        if let (Self::Rustup(_), Some(found)) = (self, in_path("bpf-linker")) {
            return Ok(found);
        }
        build_linker(&cache, llvm, install)
            .with_context(|| format!("build bpf-linker {LINKER_VERSION} for LLVM {llvm}"))?;
        Ok(linker)
    }

    /// A program of this toolchain, with nothing of the surrounding build in its environment.
    fn tool(&self, name: &str) -> Command {
        let mut command = match self {
            Self::Debian => Command::new(format!("/usr/bin/{name}")),
            Self::Rustup(_) => Command::new(name),
        };
        for (variable, _) in env::vars_os() {
            if steers_a_build(&variable.to_string_lossy()) {
                command.env_remove(variable);
            }
        }
        match self {
            Self::Debian => command
                .env("CARGO", "/usr/bin/cargo")
                .env("RUSTC", "/usr/bin/rustc"),
            Self::Rustup(name) => command.env("RUSTUP_TOOLCHAIN", name),
        };
        // `-Z build-std` on a compiler that is not called a nightly.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }

    fn llvm_major(&self) -> Result<u32> {
        let verbose = output(self.tool("rustc").arg("-vV"))?;
        verbose
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .and_then(|version| version.split('.').next()?.parse().ok())
            .with_context(|| format!("no LLVM version in {verbose:?}"))
    }
}

/// Whether a variable makes cargo or rustc build with another tool or in another way.
fn steers_a_build(name: &str) -> bool {
    const PREFIXES: [&str; 7] = [
        "RUSTC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_PROFILE_",
        "CARGO_BUILD_",
        "CARGO_TARGET_",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_of_this_run(name)
}

/// `bpf-linker --version`.
pub fn linker_version(linker: &Path) -> Result<String> {
    Ok(output(Command::new(linker).arg("--version"))?
        .trim()
        .to_owned())
}

fn build_linker(cache: &Path, llvm: u32, install: bool) -> Result<()> {
    let libraries = format!("llvm-{llvm}-dev");
    let packages = [&*libraries, "zlib1g-dev", "libzstd-dev"];
    apt::ensure(
        &[Component {
            name: "bpf-linker",
            packages: &packages,
        }],
        install,
    )?;
    eprintln!(
        "building bpf-linker {LINKER_VERSION} into {}",
        cache.display()
    );
    fs::create_dir_all(cache)?;
    run(cargo()
        .args([
            "install",
            "--quiet",
            "--locked",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .arg("--root")
        .arg(cache)
        .arg("--target-dir")
        .arg(target().join("tools/build"))
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}")))
}

fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

//! Finds the BPF object that the agent embeds and refuses one that is not built from the sources beside it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::exit,
};

#[path = "bpf/sources.rs"]
mod sources;

/// Names another object, by absolute path, which is taken as it is.
const OVERRIDE: &str = "WIFICALL_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    match object() {
        Ok(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            println!(
                "cargo::rustc-env=WIFICALL_BPF_OBJECT_PATH={}",
                path.display()
            );
        }
        Err(message) => {
            // `cargo:error` prints without the noise of a panic.
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            exit(1);
        }
    }
}

fn object() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os(OVERRIDE).map(PathBuf::from) {
        if !path.is_absolute() || !path.is_file() {
            return Err(format!(
                "{OVERRIDE}={} is not the absolute path of a file",
                path.display()
            ));
        }
        return Ok(path);
    }
    if env::var_os("CARGO_FEATURE_NEXT_ABI").is_some() {
        return Err(format!(
            "the feature `next-abi` needs an object built with it\n\
             hint: `cargo xtask ebpf --features next-abi --out FILE`, then {OVERRIDE}=FILE"
        ));
    }
    let package =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?);
    let path = package.join("bpf/wificall.bpf.o");
    let manifest = package.join("bpf/wificall.bpf.toml");
    println!("cargo::rerun-if-changed={}", manifest.display());
    let object =
        fs::read(&path).map_err(|error| stale(&format!("read {}: {error}", path.display())))?;
    let recorded = fs::read_to_string(&manifest)
        .map_err(|error| stale(&format!("read {}: {error}", manifest.display())))?;
    if sources::value(&recorded, "object") != Some(sources::digest(&object).as_str()) {
        return Err(stale(&format!(
            "{} is not the object that {} describes",
            path.display(),
            manifest.display()
        )));
    }
    check_sources(&package, &recorded)?;
    Ok(path)
}

/// A published crate has no sources beside it; in a clone of the repository they must be those of the object.
fn check_sources(package: &Path, recorded: &str) -> Result<(), String> {
    let Some(workspace) = package.parent() else {
        return Ok(());
    };
    if !sources::ROOTS
        .iter()
        .all(|root| workspace.join(root).exists())
    {
        return Ok(());
    }
    for root in sources::ROOTS {
        println!("cargo::rerun-if-changed={}", workspace.join(root).display());
    }
    println!(
        "cargo::rerun-if-changed={}",
        workspace.join("Cargo.lock").display()
    );
    let hash = sources::hash(workspace)
        .map_err(|error| format!("hash the sources of the BPF programs: {error}"))?;
    if sources::value(recorded, "sources") == Some(hash.as_str()) {
        return Ok(());
    }
    Err(stale(
        "the committed BPF object is older than its sources (wificall-common, wificall-ebpf)",
    ))
}

fn stale(what: &str) -> String {
    format!("{what}\nhint: run `cargo xtask ebpf` and commit wificall-user/bpf")
}

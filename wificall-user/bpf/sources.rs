//! What the committed BPF object was built from.
//!
//! Compiled into `build.rs` of the agent and into `xtask`, so that the hash has one definition. Plain `std` and
//! `sha2` only: this runs on every machine that builds the agent.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// The sources of the data plane, relative to the root of the workspace.
pub const ROOTS: [&str; 4] = [
    "wificall-common/Cargo.toml",
    "wificall-common/src",
    "wificall-ebpf/Cargo.toml",
    "wificall-ebpf/src",
];

/// Crates of the lock file that end up in the object.
const LOCKED: [&str; 3] = ["aya-ebpf", "aya-log-ebpf", "aya-log-common"];

/// SHA-256, in hexadecimal, over the sorted relative paths and contents of [`ROOTS`] and the locked versions of the
/// crates that the programs link.
///
/// # Errors
///
/// Returns the error of the first file that cannot be read.
pub fn hash(workspace: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    for file in files(workspace)? {
        let contents = fs::read(workspace.join(&file))?;
        hasher.update(file.as_bytes());
        hasher.update([0]);
        // The length keeps the boundary between two files from moving unnoticed.
        hasher.update((contents.len() as u64).to_le_bytes());
        hasher.update(contents);
    }
    for line in locked(&fs::read_to_string(workspace.join("Cargo.lock"))?) {
        hasher.update(line.as_bytes());
    }
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of `bytes`, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The value of `key` in the file beside the object, whose lines are `key = "value"`.
pub fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    })
}

/// Relative paths, `/` between the parts, sorted. Hidden files are an editor's, not ours.
fn files(workspace: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> = ROOTS.iter().map(PathBuf::from).collect();
    while let Some(path) = pending.pop() {
        let full = workspace.join(&path);
        if !full.is_dir() {
            found.push(path.to_string_lossy().replace('\\', "/"));
            continue;
        }
        for entry in fs::read_dir(full)? {
            let name = entry?.file_name();
            if !name.to_string_lossy().starts_with('.') {
                pending.push(path.join(name));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `name version` of each crate of the lock file whose name starts with one of [`LOCKED`], in the file's order
/// (cargo sorts it).
fn locked(lock: &str) -> Vec<String> {
    lock.split("[[package]]")
        .filter_map(|package| {
            let name = value(package, "name")?;
            let version = value(package, "version")?;
            LOCKED
                .iter()
                .any(|prefix| name.starts_with(prefix))
                .then(|| format!("{name} {version}\n"))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

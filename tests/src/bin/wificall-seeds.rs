//! Writes what fuzzing begins with: `wificall-seeds DIRECTORY`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use wificall_tests::seeds::seeds;

fn main() -> Result<()> {
    let directory = env::args_os().nth(1).context("no directory is given")?;
    for target in ["capture", "analysis", "ike", "flow"] {
        let directory = PathBuf::from(&directory).join(target);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        for (name, bytes) in seeds(target)? {
            let path = directory.join(name);
            fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

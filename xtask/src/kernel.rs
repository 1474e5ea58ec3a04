//! Debian's kernels of other releases, fetched with the machine's own mirror and keyring.
//!
//! apt is given a configuration of its own below `target`; the system's is read, never written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{output, run, target};

/// Signs all releases, also those that are no longer supported.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel line and the Debian release that carries it.
#[derive(Clone, Copy)]
pub struct Line {
    pub version: &'static str,
    suite: &'static str,
}

/// The lines that the harness can boot, oldest first.
pub const LINES: [Line; 3] = [
    Line {
        version: "5.10",
        suite: "bullseye",
    },
    Line {
        version: "6.1",
        suite: "bookworm",
    },
    Line {
        version: "6.12",
        suite: "trixie",
    },
];

/// An unpacked kernel package.
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The image that boots.
    pub image: PathBuf,
    /// `lib/modules/<release>`.
    modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel of a line below `target`, or downloads and unpacks it.
    pub fn fetch(version: &str) -> Result<Self> {
        let line = LINES
            .iter()
            .find(|line| line.version == version)
            .with_context(|| {
                let known: Vec<_> = LINES.iter().map(|line| line.version).collect();
                format!("no kernel line {version}; there are {}", known.join(", "))
            })?;
        let dir = target().join("qemu").join(line.version);
        let unpacked = dir.join("kernel");
        if !unpacked.is_dir() {
            download(line, &dir, &unpacked)
                .with_context(|| format!("fetch Debian's Linux {version}"))?;
        }
        Self::unpacked(&unpacked)
    }

    fn unpacked(dir: &Path) -> Result<Self> {
        // Releases since trixie have a merged /usr also inside the package.
        let modules = [dir.join("lib/modules"), dir.join("usr/lib/modules")]
            .into_iter()
            .find(|path| path.is_dir())
            .with_context(|| format!("{} has no modules", dir.display()))?;
        let entry = fs::read_dir(&modules)?
            .next()
            .context("the package has no modules")??;
        let release = entry.file_name().to_string_lossy().into_owned();
        Ok(Self {
            image: dir.join(format!("boot/vmlinuz-{release}")),
            modules: entry.path(),
            release,
        })
    }

    /// The contents of these modules and of all that they depend on, each after its dependencies. What is built into
    /// the image is left out.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let builtin = fs::read_to_string(self.modules.join("modules.builtin"))?;
        let builtin: Vec<_> = builtin.lines().map(module_name).collect();
        let available = fs::read_to_string(self.modules.join("modules.order"))?;
        let mut loaded = Vec::new();
        for name in names {
            self.add_module(&canonical(name), &builtin, &available, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn add_module(
        &self,
        name: &str,
        builtin: &[String],
        available: &str,
        loaded: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        if builtin.iter().any(|other| other == name)
            || loaded.iter().any(|(other, _)| other == name)
        {
            return Ok(());
        }
        let path = available
            .lines()
            .find(|path| module_name(path) == name)
            .with_context(|| format!("Linux {} has no module {name}", self.release))?;
        let contents = self.read_module(path)?;
        for dependency in dependencies(&contents) {
            self.add_module(&dependency, builtin, available, loaded)?;
        }
        loaded.push((name.to_owned(), contents));
        Ok(())
    }

    fn read_module(&self, path: &str) -> Result<Vec<u8>> {
        let plain = self.modules.join(path);
        if plain.exists() {
            return fs::read(&plain).with_context(|| format!("read {}", plain.display()));
        }
        let packed = self.modules.join(format!("{path}.xz"));
        let unpacked = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(&packed)
            .output()?;
        if !unpacked.status.success() {
            bail!(
                "unpack {}: {}",
                packed.display(),
                String::from_utf8_lossy(&unpacked.stderr).trim()
            );
        }
        Ok(unpacked.stdout)
    }
}

/// `kernel/net/sched/cls_bpf.ko` is `cls_bpf`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split('.').next().unwrap_or(file))
}

/// The kernel does not tell `-` from `_` in a module's name.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The `depends` field of a module's `.modinfo` section: strings that end in NUL. Packages lack `modules.dep`, which
/// `depmod` writes at installation.
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(start) = module.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let list = module[start + key.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

fn download(line: &Line, dir: &Path, unpacked: &Path) -> Result<()> {
    let apt = Apt::new(&dir.join("apt"), line)?;
    eprintln!("fetching Debian's Linux {}", line.version);
    run(apt.command("apt-get").args(["-qq", "update"]))?;
    let package = apt.image_package()?;
    run(apt.command("apt-get").args(["-qq", "download", &package]))?;
    let archive = fs::read_dir(&apt.dir)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no archive of {package}"))?;
    // Renamed when complete: an interrupted run must not leave half a kernel in the cache.
    let partial = dir.join("partial");
    run(Command::new("dpkg").arg("-x").arg(&archive).arg(&partial))?;
    fs::rename(&partial, unpacked).with_context(|| format!("rename to {}", unpacked.display()))?;
    fs::remove_dir_all(&apt.dir).with_context(|| format!("remove {}", apt.dir.display()))
}

/// apt with its own sources, lists and cache.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(dir: &Path, line: &Line) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part))?;
        }
        fs::write(dir.join("status"), "")?;
        fs::write(dir.join("sources.list"), sources(line.suite)?)?;
        Ok(Self {
            dir: dir.to_path_buf(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir);
        for (key, path) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command
                .arg("-o")
                .arg(format!("{key}={}", self.dir.join(path).display()));
        }
        for option in [
            "Dir::Etc::sourceparts=/dev/null",
            "APT::Sandbox::User=root",
            // A release past its support is signed all the same, and no longer renewed.
            "Acquire::Check-Valid-Until=false",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ] {
            command.args(["-o", option]);
        }
        command
    }

    /// The package that the metapackage depends on: the full kernel, not the `cloud` one, which has no veth.
    fn image_package(&self) -> Result<String> {
        let record = output(self.command("apt-cache").args([
            "show",
            "--no-all-versions",
            "linux-image-amd64",
        ]))?;
        record
            .lines()
            .find_map(|line| line.strip_prefix("Depends: ")?.split_whitespace().next())
            .map(str::to_owned)
            .context("linux-image-amd64 depends on nothing")
    }
}

/// Source lines for `suite` and its security updates, at the addresses that the machine itself uses.
fn sources(suite: &str) -> Result<String> {
    let mut targets = index_targets()?;
    if targets.is_empty() {
        // A machine that has never asked for the lists.
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        targets = index_targets()?;
    }
    let address = |label: &str| {
        targets.lines().find_map(|line| {
            let (name, address) = line.split_once(' ')?;
            (name == label).then(|| address.trim_end_matches('/'))
        })
    };
    let main =
        address("Debian").context("the machine's apt has no Debian mirror among its sources")?;
    let mut lines = format!("deb [signed-by={KEYRING}] {main} {suite} main\n");
    if let Some(security) = address("Debian-Security") {
        lines.push_str(&format!(
            "deb [signed-by={KEYRING}] {security} {suite}-security main\n"
        ));
    }
    Ok(lines)
}

/// `label address` of each package list that apt has.
fn index_targets() -> Result<String> {
    output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]))
}

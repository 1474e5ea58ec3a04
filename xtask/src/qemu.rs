//! Runs a program of this machine under another kernel, in QEMU without KVM.
//!
//! The guest is an initramfs of busybox, the program with its shared libraries, and the modules it needs. It says on
//! the serial console how the program ended.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Component},
    kernel::Kernel,
    workspace::{output, show, target},
};

/// What the harness needs on the machine.
pub const COMPONENT: Component<'_> = Component {
    name: "other kernels in QEMU",
    packages: &["qemu-system-x86", "busybox-static", "xz-utils"],
};

/// TC with cls_bpf on veth, and tun for devices without a link header.
const MODULES: [&str; 4] = ["veth", "sch_ingress", "cls_bpf", "tun"];

/// Mitigations cost a third of the time under emulation, and the verifier asks root for none of them.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet loglevel=3 mitigations=off";

/// Printed by the guest before the exit status.
const SENTINEL: &str = "guest-exit-status:";

#[derive(clap::Args)]
pub struct Args {
    /// Kernel line: 5.10, 6.1 or 6.12
    #[arg(long, value_name = "VERSION", default_value = "5.10")]
    kernel: String,
    /// Seconds after which the guest is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Fail if something is missing instead of installing it
    #[arg(long)]
    no_install: bool,
    /// File or directory that the guest has at the same absolute path; may be repeated
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Variable of the program's environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Program of this machine, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

/// Entry point of the task.
pub fn qemu(args: &Args) -> Result<()> {
    apt::ensure(&[COMPONENT], !args.no_install)?;
    let kernel = Kernel::fetch(&args.kernel)?;
    let (program, arguments) = args.command.split_first().context("no program")?;
    let program = fs::canonicalize(program).with_context(|| format!("find {program}"))?;
    let files = args
        .files
        .iter()
        .map(|file| fs::canonicalize(file).with_context(|| format!("find {}", file.display())))
        .collect::<Result<Vec<_>>>()?;
    let environment: Vec<_> = args
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    let guest = Guest {
        program: &program,
        arguments,
        files: &files,
        environment: &environment,
        timeout: Duration::from_secs(args.timeout),
    };
    let outcome = guest.run(&kernel)?;
    print!("{}", outcome.log);
    outcome.success()
}

fn variable(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A program to run under another kernel.
pub struct Guest<'a> {
    pub program: &'a Path,
    pub arguments: &'a [String],
    /// Files and directories that the guest has at the same paths.
    pub files: &'a [PathBuf],
    pub environment: &'a [(&'a str, String)],
    pub timeout: Duration,
}

/// What a guest said.
pub struct Outcome {
    pub log: String,
    log_file: PathBuf,
    status: Option<i32>,
}

impl Outcome {
    /// An error unless the program ended with 0.
    pub fn success(&self) -> Result<()> {
        match self.status {
            Some(0) => Ok(()),
            Some(status) => bail!(
                "the guest's program ended with {status}; see {}",
                self.log_file.display()
            ),
            None => bail!(
                "the guest ended without the program's status; see {}",
                self.log_file.display()
            ),
        }
    }
}

impl Guest<'_> {
    /// Boots, runs, powers off.
    pub fn run(&self, kernel: &Kernel) -> Result<Outcome> {
        let dir = target().join("qemu/run");
        fs::create_dir_all(&dir)?;
        let work = tempfile::Builder::new()
            .prefix(&kernel.release)
            .tempdir_in(&dir)?;
        let initrd = self.initramfs(kernel, work.path())?;
        let log_file = dir.join(format!("{}.log", kernel.release));
        self.boot(kernel, &initrd, &log_file)?;
        let raw = fs::read(&log_file).with_context(|| format!("read {}", log_file.display()))?;
        let log = String::from_utf8_lossy(&raw).replace('\r', "");
        let status = log
            .lines()
            .rev()
            .find_map(|line| line.split_once(SENTINEL)?.1.trim().parse().ok());
        Ok(Outcome {
            log,
            log_file,
            status,
        })
    }

    fn boot(&self, kernel: &Kernel, initrd: &Path, log_file: &Path) -> Result<()> {
        let log =
            File::create(log_file).with_context(|| format!("create {}", log_file.display()))?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args("-accel tcg,thread=multi -cpu max -smp 2 -m 1024".split(' '))
            .args("-display none -monitor none -serial stdio -nic none -no-reboot".split(' '))
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", COMMAND_LINE])
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log);
        let child = command
            .spawn()
            .with_context(|| format!("start {}", show(&command)))?;
        let status = Machine(child).wait(self.timeout).with_context(|| {
            format!(
                "Linux {} in QEMU; see {}",
                kernel.release,
                log_file.display()
            )
        })?;
        if !status.success() {
            bail!(
                "{} failed: {status}; see {}",
                show(&command),
                log_file.display()
            );
        }
        Ok(())
    }

    fn initramfs(&self, kernel: &Kernel, work: &Path) -> Result<PathBuf> {
        let root = work.join("root");
        for dir in [
            "bin", "proc", "sys", "dev", "tmp", "run", "modules", "var", "root",
        ] {
            fs::create_dir_all(root.join(dir))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).context("copy busybox")?;
        for file in libraries(self.program)?.iter().chain(self.files) {
            copy(file, &root)?;
        }
        fs::create_dir(root.join("test"))?;
        fs::copy(self.program, root.join("test").join(self.name()?))?;
        let mut load = String::new();
        for (name, contents) in kernel.modules(&MODULES)? {
            fs::write(root.join("modules").join(&name), contents)?;
            load.push_str(&format!("insmod /modules/{name}\n"));
        }
        let init = root.join("init");
        fs::write(&init, self.init(&load)?)?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        pack(&root, &work.join("initrd"))
    }

    /// The program keeps its name: busybox, for one, goes by it.
    fn name(&self) -> Result<&OsStr> {
        self.program.file_name().context("the program has no name")
    }

    fn init(&self, load_modules: &str) -> Result<String> {
        let exports: String = self
            .environment
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
            .collect();
        let arguments: Vec<_> = self
            .arguments
            .iter()
            .map(|argument| quoted(argument))
            .collect();
        Ok(format!(
            "#!/bin/busybox sh\n\
             /bin/busybox --install -s /bin\n\
             export PATH=/bin HOME=/root\n\
             mount -t proc proc /proc\n\
             mount -t sysfs sysfs /sys\n\
             mount -t devtmpfs devtmpfs /dev\n\
             mount -t tmpfs tmpfs /tmp\n\
             mount -t tmpfs tmpfs /run\n\
             mount -t bpf bpf /sys/fs/bpf\n\
             {load_modules}\
             ip link set lo up\n\
             {exports}\
             /test/{} {}\n\
             echo \"{SENTINEL}$?\"\n\
             reboot -f\n",
            quoted(&self.name()?.to_string_lossy()),
            arguments.join(" ")
        ))
    }
}

/// Ends QEMU if its run ends early.
struct Machine(Child);

impl Machine {
    fn wait(mut self, timeout: Duration) -> Result<std::process::ExitStatus> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("not finished after {} s", timeout.as_secs());
            }
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The shared libraries of a program, the loader among them, by absolute path.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let result = Command::new("ldd")
        .arg(program)
        .output()
        .context("start ldd")?;
    // A static program: ldd fails, and there is nothing to copy.
    Ok(String::from_utf8_lossy(&result.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect())
}

/// Copies a file, or a directory with all below it, to the same path under `root`.
fn copy(path: &Path, root: &Path) -> Result<()> {
    let to = root.join(
        path.strip_prefix("/")
            .with_context(|| format!("{} is relative", path.display()))?,
    );
    let parent = to.parent().context("the root directory cannot be copied")?;
    fs::create_dir_all(parent)?;
    output(
        Command::new("cp")
            .args(["--recursive", "--dereference"])
            .arg(path)
            .arg(to),
    )
    .map(drop)
}

fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let names = output(Command::new("find").arg(".").current_dir(root))?;
    let mut cpio = Command::new("/bin/busybox")
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(File::create(archive)?)
        .stderr(Stdio::null())
        .spawn()
        .context("start busybox cpio")?;
    cpio.stdin
        .take()
        .context("cpio has no input")?
        .write_all(names.as_bytes())?;
    let status = cpio.wait()?;
    if !status.success() {
        bail!("pack the initramfs: {status}");
    }
    Ok(archive.to_path_buf())
}

/// One word for the shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

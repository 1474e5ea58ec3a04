//! Network namespaces, the links between them, and commands inside them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::process::output;

const PREFIX: &str = "wfct-";
const DIRECTORY: &str = "/run/netns";

/// A network namespace, deleted when dropped. Loopback is up.
pub struct Netns {
    name: String,
    handle: File,
}

impl Netns {
    /// Creates a namespace whose name ends in `label`. The name holds this
    /// process's id and a counter, so it is unique on the machine.
    ///
    /// # Errors
    ///
    /// If `ip netns add` fails: most likely not root.
    pub fn new(label: &str) -> Result<Self> {
        static STALE: Once = Once::new();
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        STALE.call_once(remove_stale);

        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]))
            .context("hint: these tests need root and the package iproute2")?;
        let path = Path::new(DIRECTORY).join(&name);
        let handle = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let namespace = Self { name, handle };
        // Duplicate address detection would delay the first packet by seconds.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file to enter it by, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// A command that will run in this namespace.
    ///
    /// It enters only the network namespace: `ip netns exec` would mount
    /// another `/sys` as well, and a bpffs with it would be out of sight. The
    /// child dies with the thread that spawns it, so a killed test leaves no
    /// processes behind.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let handle = self.handle.as_raw_fd();
        let mut command = Command::new(program);
        // SAFETY: the closure runs between fork and exec; setns and prctl are
        // plain system calls, and the descriptor, close-on-exec, is still open
        // there because `self.handle` outlives the spawn or, if it was dropped,
        // setns fails.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(handle, libc::CLONE_NEWNET) != 0
                    || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
                {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    /// Runs `ip` here with the words of `arguments`; its standard output.
    ///
    /// # Errors
    ///
    /// With the command and its standard error if it fails.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.run("ip", arguments)
    }

    /// Runs `program` here with the words of `arguments`; its standard output.
    ///
    /// # Errors
    ///
    /// With the command and its standard error if it fails.
    pub fn run(&self, program: &str, arguments: &str) -> Result<String> {
        output(self.command(program).args(arguments.split_whitespace()))
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs `f` on a thread of its own inside this namespace. What it opens
    /// there (a socket, say) belongs to the namespace and works anywhere.
    ///
    /// # Panics
    ///
    /// If the namespace cannot be entered, or `f` panics.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let handle = self.handle.as_raw_fd();
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    // SAFETY: a system call on a descriptor that outlives the scope; it
                    // changes only this new thread.
                    let entered = unsafe { libc::setns(handle, libc::CLONE_NEWNET) };
                    assert_eq!(entered, 0, "setns: {}", io::Error::last_os_error());
                    f()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn join(&self) -> Result<()> {
        // SAFETY: a system call on a descriptor that is open; it changes only this thread.
        if unsafe { libc::setns(self.handle.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("enter the namespace {}", self.name));
        }
        Ok(())
    }

    /// Sets a sysctl of this namespace; `key` in dots, as in `net.ipv4.ip_forward`.
    ///
    /// # Errors
    ///
    /// If it does not exist or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| fs::write(&path, value))
            .with_context(|| format!("set {key}={value} in namespace {}", self.name))
    }

    /// Makes this namespace a router: forwarding on, no redirects, no
    /// reverse-path filter.
    ///
    /// # Errors
    ///
    /// If a sysctl is refused.
    pub fn forward(&self) -> Result<()> {
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            self.sysctl(key, "1")?;
        }
        for scope in ["all", "default"] {
            self.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
            self.sysctl(&format!("net.ipv4.conf.{scope}.send_redirects"), "0")?;
        }
        Ok(())
    }

    /// Adds the addresses (with their prefix lengths) to `device` and sets it up.
    ///
    /// # Errors
    ///
    /// If `ip` refuses one.
    pub fn address(&self, device: &str, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            // Usable at once: otherwise tentative until the kernel gets round to it.
            let at_once = if address.contains(':') { "nodad" } else { "" };
            self.ip(&format!("addr add {address} dev {device} {at_once}"))?;
        }
        self.ip(&format!("link set {device} up")).map(drop)
    }

    /// Adds a bridge over `ports`, all set up, without spanning tree or
    /// multicast snooping (whose queries would be packets of their own).
    ///
    /// # Errors
    ///
    /// If `ip` refuses.
    pub fn bridge(&self, name: &str, ports: &[&str]) -> Result<()> {
        self.ip(&format!(
            "link add {name} type bridge stp_state 0 mcast_snooping 0"
        ))?;
        for port in ports {
            self.ip(&format!("link set {port} master {name} up"))?;
        }
        self.ip(&format!("link set {name} up")).map(drop)
    }

    /// The link-layer address of the interface `name`, as `ip` prints it.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or it has no such address.
    pub fn mac(&self, name: &str) -> Result<String> {
        let shown = self.ip(&format!("-o link show dev {name}"))?;
        let mut words = shown
            .split_whitespace()
            .skip_while(|word| *word != "link/ether");
        words
            .nth(1)
            .map(str::to_owned)
            .with_context(|| format!("no MAC address: {shown}"))
    }

    /// The index of the interface `name` in this namespace.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn index(&self, name: &str) -> Result<u32> {
        let path = std::ffi::CString::new(name)?;
        // SAFETY: a system call that reads a NUL-terminated name which outlives it.
        let index = self.enter(|| unsafe { libc::if_nametoindex(path.as_ptr()) });
        if index == 0 {
            return Err(anyhow!("no interface `{name}` in namespace {}", self.name));
        }
        Ok(index)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the next run removes it.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Makes a veth pair with one end in each namespace, under the given names,
/// both down.
///
/// # Errors
///
/// If `ip` refuses, a name being taken for example.
pub fn veth(a: (&Netns, &str), b: (&Netns, &str)) -> Result<()> {
    let created = Command::new("ip")
        .args(["link", "add", a.1, "netns", a.0.name(), "type", "veth"])
        .args(["peer", "name", b.1, "netns", b.0.name()])
        .output()?;
    if !created.status.success() {
        return Err(anyhow!(
            "veth {} – {}: {}",
            a.1,
            b.1,
            String::from_utf8_lossy(&created.stderr)
        ));
    }
    Ok(())
}

/// The process that a name made by this module belongs to.
pub(crate) fn owner(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split('-').next()?.parse().ok()
}

/// Whether a name such as `wfct-1234-0-phone` was made by a process that has gone.
pub(crate) fn is_stale(name: &str, prefix: &str) -> bool {
    owner(name, prefix).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Removes namespaces left by test processes that were killed.
fn remove_stale() {
    remove(|name| is_stale(name, PREFIX));
}

/// Removes the namespaces that a process has left.
pub(crate) fn remove_of(process: u32) {
    remove(|name| owner(name, PREFIX) == Some(process));
}

fn remove(which: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(&which) {
            let _ = Command::new("ip")
                .args(["netns", "del"])
                .arg(&name)
                .output();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_process() {
        let own = format!("wfct-{}-0-phone", std::process::id());
        assert!(!is_stale(&own, PREFIX));
        assert!(is_stale("wfct-4194999-0-phone", PREFIX));
        assert!(!is_stale("somebody-else", PREFIX));
        assert!(!is_stale("wfct-x-0", PREFIX));
    }
}

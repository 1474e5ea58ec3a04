//! A real IPsec peer: strongSwan (`charon-systemd`) with ESP in user space, as a
//! phone or as an ePDG, one per namespace.
//!
//! The kernel needs no ESP for this: the plugin `kernel-libipsec` carries the
//! tunnel's packets over a tun device. It always puts ESP into UDP, also where there
//! is no NAT (it makes the peers believe in one), so native ESP (IP protocol 50)
//! cannot come from here.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::lab::LIMIT;
use crate::netns::Netns;
use crate::process::{Process, output};

/// Seconds between a phone's NAT keepalives: far below the 20 s of real ones, so
/// that a test need not wait.
const KEEPALIVE_SECONDS: u32 = 1;

/// A running charon.
pub struct Swan {
    process: Process,
    directory: TempDir,
}

impl Swan {
    /// Starts one in `namespace` with `connections`, the text of a `swanctl.conf`.
    /// With `dns`, names are resolved by that server.
    ///
    /// # Errors
    ///
    /// With its log, if it is missing or does not take the configuration.
    pub fn start(namespace: &Netns, connections: &str, dns: Option<&str>) -> Result<Self> {
        Self::start_with(namespace, connections, dns, "")
    }

    /// As [`start`](Self::start), with more `settings` of the daemon, lines of its section in `strongswan.conf`.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub fn start_with(
        namespace: &Netns,
        connections: &str,
        dns: Option<&str>,
        settings: &str,
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("wificall-swan-")?;
        let at = |name: &str| directory.path().join(name);
        fs::write(at("strongswan.conf"), daemon(&directory, settings))?;
        fs::write(at("swanctl.conf"), connections)?;

        let mut command = namespace.command("charon-systemd");
        command.env("STRONGSWAN_CONF", at("strongswan.conf"));
        if let Some(server) = dns {
            fs::write(at("resolv.conf"), format!("nameserver {server}\n"))?;
            resolve_by(&mut command, &at("resolv.conf"))?;
        }
        let process = Process::spawn(command, "charon", directory.path())?;
        let configuration = at("swanctl.conf").display().to_string();
        let mut swan = Self { process, directory };
        let mut load = swan.swanctl(&["--load-all", "--file", &configuration]);
        // Fails until the daemon listens on its socket.
        swan.process.wait_ready(LIMIT, || output(&mut load))?;
        Ok(swan)
    }

    /// Sets up the connection of child `name`: IKE_SA_INIT, IKE_AUTH and the tunnel.
    ///
    /// # Errors
    ///
    /// With swanctl's account of the exchange, if it fails.
    pub fn initiate(&self, name: &str) -> Result<String> {
        output(&mut self.swanctl(&["--initiate", "--timeout", "15", "--child", name]))
    }

    /// Begins to set up the connection of child `name`, and leaves that to the daemon after a second.
    ///
    /// # Errors
    ///
    /// With swanctl's account of the exchange, if it has failed by then, or goes on.
    pub fn begin(&self, name: &str) -> Result<String> {
        output(&mut self.swanctl(&["--initiate", "--timeout", "1", "--child", name]))
    }

    /// Closes the IKE_SA `name`, telling the peer.
    ///
    /// # Errors
    ///
    /// With swanctl's account of the exchange, if it fails.
    pub fn terminate(&self, name: &str) -> Result<String> {
        output(&mut self.swanctl(&["--terminate", "--timeout", "15", "--ike", name]))
    }

    /// Rekeys the child `name`: a CREATE_CHILD_SA exchange and new SPIs.
    ///
    /// # Errors
    ///
    /// With swanctl's account of the exchange, if it fails.
    pub fn rekey(&self, name: &str) -> Result<String> {
        output(&mut self.swanctl(&["--rekey", "--child", name]))
    }

    /// The established SAs, as swanctl lists them.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub fn sas(&self) -> Result<String> {
        output(&mut self.swanctl(&["--list-sas"]))
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn swanctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("swanctl");
        command
            .args(arguments)
            .arg("--uri")
            .arg(socket(&self.directory));
        // It looks there for certificates, and says for each kind that it has none.
        command.env("SWANCTL_DIR", self.directory.path());
        command
    }
}

fn socket(directory: &TempDir) -> String {
    format!("unix://{}/vici", directory.path().display())
}

/// No roaming: the tunnel's own device would be taken for a new network, and MOBIKE
/// would now and then move the tunnel from IPv4 to IPv6.
fn daemon(directory: &TempDir, settings: &str) -> String {
    format!(
        "charon-systemd {{
  load = random nonce openssl kdf kernel-libipsec kernel-netlink socket-default vici
  keep_alive = {KEEPALIVE_SECONDS}s
  {settings}
  plugins {{
    vici {{
      socket = {}
    }}
    kernel-netlink {{
      roam_events = no
    }}
  }}
  journal {{ default = -1 }}
  filelog {{ stderr {{ default = 1 }} }}
}}
",
        socket(directory)
    )
}

/// Gives the command a mount namespace in which `file` is `/etc/resolv.conf`.
fn resolve_by(command: &mut Command, file: &std::path::Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let file = std::ffi::CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: the closure runs between fork and exec and makes system calls only, with
    // NUL-terminated strings that it owns or that are static.
    unsafe {
        command.pre_exec(move || {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let none = std::ptr::null();
            if libc::unshare(libc::CLONE_NEWNS) != 0
                || libc::mount(none, c"/".as_ptr(), none, private, none.cast()) != 0
                || libc::mount(
                    file.as_ptr(),
                    c"/etc/resolv.conf".as_ptr(),
                    none,
                    libc::MS_BIND,
                    none.cast(),
                ) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(())
}

/// A phone's connection to an ePDG. Its child has the same name.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// A name of the test's choice.
    pub name: &'a str,
    /// The phone's address, which decides between IPv4 and IPv6.
    pub local: &'a str,
    /// The ePDG's name or address.
    pub remote: &'a str,
    /// What is reached through the tunnel: an address within [`INSIDE`].
    pub inside: &'a str,
}

/// What the ePDG lets phones reach through their tunnels.
pub const INSIDE: &str = "10.98.0.0/16";

const SECRETS: &str = "secrets {\n  ike-all { secret = \"not a secret\" }\n}\n";

/// A phone's `swanctl.conf`.
#[must_use]
pub fn phone(connections: &[Connection<'_>]) -> String {
    let connections: String = connections
        .iter()
        .map(
            |Connection {
                 name,
                 local,
                 remote,
                 inside,
             }| {
                format!(
                    "  {name} {{
    version = 2
    local_addrs = {local}
    remote_addrs = {remote}
    vips = 0.0.0.0
    local {{
      auth = psk
      id = {name}@phone.lab
    }}
    remote {{
      auth = psk
      id = epdg@lab
    }}
    children {{
      {name} {{
        remote_ts = {inside}/32
      }}
    }}
  }}
"
                )
            },
        )
        .collect();
    format!("connections {{\n{connections}}}\n{SECRETS}")
}

/// An ePDG's `swanctl.conf`: answers whoever comes, and gives each an address.
#[must_use]
pub fn epdg() -> String {
    format!(
        "connections {{
  phones {{
    version = 2
    pools = inner
    local {{
      auth = psk
      id = epdg@lab
    }}
    remote {{
      auth = psk
    }}
    children {{
      phones {{
        local_ts = {INSIDE}
      }}
    }}
  }}
}}
pools {{
  inner {{
    addrs = 10.99.0.0/24
  }}
}}
{SECRETS}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Capture;
    use crate::dns::{Dns, EPDG};
    use crate::lab::{DNS, EPDG4, EPDG6, Lab, PHONE4, PHONE6};
    use crate::process::wait_until;
    use crate::send::{IKE, KEEPALIVE, NATT};
    use crate::view::View;

    /// Without an agent: name, IKE on 500, NAT found, 4500, ESP both ways,
    /// keepalives, over IPv4 behind a NAT and over IPv6.
    #[test]
    fn a_phone_connects_by_name_through_a_nat() -> Result<()> {
        let lab = Lab::new()?;
        lab.masquerade()?;
        lab.far.ip("addr add 10.98.0.1/32 dev lo")?;
        lab.far.ip("addr add 10.98.0.2/32 dev lo")?;
        let records: &[(&str, &[&str])] = &[(EPDG, &[EPDG4, EPDG6])];
        let _dns = Dns::start(&lab.far, &[DNS], 60, records)?;
        let capture = Capture::start(&lab.far, "eth0", |frame| {
            let view = View::of(frame)?;
            let (source, destination) = view.ports?;
            let to = view.destination.to_string();
            let up = to == EPDG4 || to == EPDG6;
            let port = if up { destination } else { source };
            let class = match view.payload {
                _ if port == IKE => "ike",
                [0, 0, 0, 0, ..] if port == NATT => "ike",
                payload if port == NATT && *payload == KEEPALIVE => "keepalive",
                _ if port == NATT => "esp_udp",
                _ => return None,
            };
            Some((view.source.is_ipv4(), up, class))
        })?;
        let keepalives = Capture::start(&lab.far, "eth0", |frame| {
            (View::of(frame)?.payload == KEEPALIVE).then_some(())
        })?;
        let _epdg = Swan::start(&lab.far, &epdg(), None)?;
        let phone = Swan::start(
            &lab.phone,
            &phone(&[
                Connection {
                    name: "four",
                    local: PHONE4,
                    remote: EPDG,
                    inside: "10.98.0.1",
                },
                Connection {
                    name: "six",
                    local: PHONE6,
                    remote: EPDG,
                    inside: "10.98.0.2",
                },
            ]),
            Some(DNS),
        )?;
        for (name, inside) in [("four", "10.98.0.1"), ("six", "10.98.0.2")] {
            phone.initiate(name)?;
            lab.phone.run("ping", &format!("-c5 -i0.01 -W5 {inside}"))?;
        }
        wait_until("keepalives", LIMIT, || {
            (keepalives.kept() >= 2).then_some(())
        })?;
        for name in ["four", "six"] {
            phone.terminate(name)?;
        }
        let seen = capture.finish()?;
        let count = |packet| seen.iter().filter(|seen| **seen == packet).count();
        for four in [true, false] {
            // IKE_SA_INIT, IKE_AUTH, and the INFORMATIONAL that deletes the SA; MOBIKE
            // may add some. Each request has its response.
            let requests = count((four, true, "ike"));
            assert!(
                requests >= 3,
                "{requests} requests\n{}",
                phone.process.log()
            );
            assert_eq!(count((four, false, "ike")), requests);
            assert_eq!(count((four, true, "esp_udp")), 5, "{four}");
            assert_eq!(count((four, false, "esp_udp")), 5, "{four}");
        }
        // Only who is behind a NAT keeps its mapping alive.
        assert!(count((true, true, "keepalive")) >= 2);
        assert_eq!(count((false, true, "keepalive")), 0);
        Ok(())
    }
}

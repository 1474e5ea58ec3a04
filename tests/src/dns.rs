//! A real DNS server (unbound) with the zone a test gives it.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::netns::Netns;
use crate::process::Process;

/// The ePDG name of the test operator 001-01 (TS 23.003 §19.4.2.9).
pub const EPDG: &str = "epdg.epc.mnc001.mcc001.pub.3gppnetwork.org";

/// One name and its addresses.
pub type Record<'a> = (&'a str, &'a [&'a str]);

/// unbound, authoritative for `3gppnetwork.org` as far as the test is concerned:
/// a name without a record does not exist, and nothing is asked upstream.
pub struct Dns {
    process: Process,
    directory: TempDir,
    addresses: Vec<IpAddr>,
    ttl: u32,
    namespace: PathBuf,
}

impl Dns {
    /// Starts it on `addresses` of `namespace`; answers live for `ttl` seconds.
    ///
    /// # Errors
    ///
    /// If unbound is missing or does not answer.
    pub fn start(
        namespace: &Netns,
        addresses: &[&str],
        ttl: u32,
        records: &[Record<'_>],
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("wificall-dns-")?;
        let config = directory.path().join("unbound.conf");
        let addresses = addresses
            .iter()
            .map(|a| a.parse())
            .collect::<Result<Vec<_>, _>>()?;
        fs::write(&config, configuration(&directory, &addresses, ttl, records))?;
        let mut command = namespace.command("unbound");
        command.arg("-d").arg("-p").arg("-c").arg(&config);
        let process = Process::spawn(command, "unbound", directory.path())?;
        let mut dns = Self {
            process,
            directory,
            addresses,
            ttl,
            namespace: namespace.path(),
        };
        dns.wait_ready(namespace)?;
        Ok(dns)
    }

    /// Answers with other records from now on.
    ///
    /// # Errors
    ///
    /// If it does not answer any more.
    pub fn set(&mut self, namespace: &Netns, records: &[Record<'_>]) -> Result<()> {
        ensure!(
            namespace.path() == self.namespace,
            "the server runs in another namespace"
        );
        let config = self.directory.path().join("unbound.conf");
        fs::write(
            &config,
            configuration(&self.directory, &self.addresses, self.ttl, records),
        )?;
        self.process.signal(libc::SIGHUP)?;
        self.wait_ready(namespace)
    }

    /// Stops answering, for good.
    ///
    /// # Errors
    ///
    /// If the process cannot be reaped.
    pub fn stop(mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    fn wait_ready(&mut self, namespace: &Netns) -> Result<()> {
        let address = *self
            .addresses
            .first()
            .context("the server has no address")?;
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = crate::send::udp(namespace, any)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let server = SocketAddr::new(address, 53);
        self.process
            .wait_ready(Duration::from_secs(10), || asks(&socket, server))
    }
}

/// Asks for the root's NS records; any answer will do.
fn asks(socket: &UdpSocket, server: SocketAddr) -> Result<()> {
    const QUERY: [u8; 17] = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    socket.send_to(&QUERY, server)?;
    let mut answer = [0; 512];
    let (length, _) = socket.recv_from(&mut answer)?;
    ensure!(length >= 12 && answer[..2] == QUERY[..2], "not an answer");
    Ok(())
}

fn configuration(
    directory: &TempDir,
    listen: &[IpAddr],
    ttl: u32,
    records: &[Record<'_>],
) -> String {
    let directory = directory.path().display();
    let mut text = format!(
        r#"server:
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: "{directory}/pid"
  use-syslog: no
  num-threads: 1
  module-config: "iterator"
  local-zone: "." refuse
  local-zone: "3gppnetwork.org." static
"#
    );
    for address in listen {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  interface: {address}");
    }
    for (name, addresses) in records {
        for address in *addresses {
            let kind = if address.contains(':') { "AAAA" } else { "A" };
            let _ = writeln!(text, "  local-data: \"{name}. {ttl} {kind} {address}\"");
        }
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u8 = 1;
    const AAAA: u8 = 28;
    const NXDOMAIN: u8 = 3;

    /// The answer to a question for the ePDG's name; its record's data is at the end.
    fn ask(namespace: &Netns, kind: u8) -> Result<Vec<u8>> {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in EPDG.split('.') {
            query.push(u8::try_from(label.len())?);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, kind, 0, 1]);
        let socket = crate::send::udp(namespace, "127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send_to(&query, ("127.0.0.1", 53))?;
        let mut answer = vec![0; 512];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }

    #[test]
    fn answers_and_changes() -> Result<()> {
        let namespace = Netns::new("dns")?;
        let mut dns = Dns::start(&namespace, &["127.0.0.1"], 60, &[(EPDG, &["198.18.0.10"])])?;
        let last = |kind, length| {
            ask(&namespace, kind).map(|answer| answer[answer.len() - length..].to_vec())
        };
        assert_eq!(last(A, 4)?, [198, 18, 0, 10]);
        dns.set(&namespace, &[(EPDG, &["198.18.0.11", "2001:db8::1"])])?;
        assert_eq!(last(A, 4)?, [198, 18, 0, 11]);
        let address: std::net::Ipv6Addr = "2001:db8::1".parse()?;
        assert_eq!(last(AAAA, 16)?, address.octets());
        dns.set(&namespace, &[])?;
        assert_eq!(ask(&namespace, A)?[3] & 0x0f, NXDOMAIN);
        Ok(())
    }
}

//! A real DNS server (unbound) with the zone a test gives it.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::lab::LIMIT;
use crate::netns::Netns;
use crate::process::Process;

/// The ePDG name of the test operator 001-01 (TS 23.003 §19.4.2.9).
pub const EPDG: &str = "epdg.epc.mnc001.mcc001.pub.3gppnetwork.org";

const A: u8 = 1;
/// A name that nobody but this module asks for.
const GENERATION: &str = "generation.lab.3gppnetwork.org";

/// One name and its addresses; or other data, with the type before it: `NAPTR 10 10 "a" "" "" epdg.example.`
pub type Record<'a> = (&'a str, &'a [&'a str]);

/// What a server is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `3gppnetwork.org`; refuses what else it is asked.
    Zone,
    /// The same, also over TLS and HTTPS.
    Encrypted,
    /// The root, thus everything.
    Whole,
}

/// unbound, authoritative for `3gppnetwork.org` as far as the test is concerned:
/// a name without a record does not exist, and nothing is asked upstream.
pub struct Dns<'a> {
    namespace: &'a Netns,
    process: Process,
    directory: TempDir,
    addresses: Vec<IpAddr>,
    ttl: u32,
    kind: Kind,
    /// The last octet of [`GENERATION`]'s address, which tells when a change is in force.
    generation: u8,
}

impl<'a> Dns<'a> {
    /// Starts it on `addresses` of `namespace`; answers live for `ttl` seconds.
    ///
    /// # Errors
    ///
    /// If unbound is missing or does not answer.
    pub fn start(
        namespace: &'a Netns,
        addresses: &[&str],
        ttl: u32,
        records: &[Record<'_>],
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("wificall-dns-")?;
        Self::start_in(directory, namespace, addresses, ttl, records, Kind::Zone)
    }

    /// Starts it so that it is authoritative for everything: no other name exists at all, for an
    /// hour, says the SOA of the root.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_whole(
        namespace: &'a Netns,
        addresses: &[&str],
        ttl: u32,
        records: &[Record<'_>],
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("wificall-dns-")?;
        Self::start_in(directory, namespace, addresses, ttl, records, Kind::Whole)
    }

    /// Starts it so that it also answers over TLS (port 853) and HTTPS (port 443), with a
    /// certificate for `name` that [`authority`](Self::authority) signed.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_encrypted(
        namespace: &'a Netns,
        addresses: &[&str],
        ttl: u32,
        records: &[Record<'_>],
        name: &str,
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("wificall-dns-")?;
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let signed = CertificateParams::new(vec![name.to_owned()])?
            .signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;
        for (file, text) in [
            ("ca.pem", ca.self_signed(&ca_key)?.pem()),
            ("server.pem", signed.pem()),
            ("server.key", key.serialize_pem()),
        ] {
            fs::write(directory.path().join(file), text)?;
        }
        Self::start_in(
            directory,
            namespace,
            addresses,
            ttl,
            records,
            Kind::Encrypted,
        )
    }

    /// The file with the certificate of who signed its own.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    fn start_in(
        directory: TempDir,
        namespace: &'a Netns,
        addresses: &[&str],
        ttl: u32,
        records: &[Record<'_>],
        kind: Kind,
    ) -> Result<Self> {
        let config = directory.path().join("unbound.conf");
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .map(|address| address.parse())
            .collect::<Result<_, _>>()?;
        fs::write(
            &config,
            configuration(&directory, &addresses, ttl, 1, records, kind),
        )?;
        let mut command = namespace.command("unbound");
        command.arg("-d").arg("-p").arg("-c").arg(&config);
        let process = Process::spawn(command, "unbound", directory.path())?;
        let mut dns = Self {
            namespace,
            process,
            directory,
            addresses,
            ttl,
            kind,
            generation: 1,
        };
        dns.wait_ready()?;
        Ok(dns)
    }

    /// Answers with other records from now on.
    ///
    /// # Errors
    ///
    /// If it does not answer any more.
    pub fn set(&mut self, records: &[Record<'_>]) -> Result<()> {
        self.generation = self.generation.wrapping_add(1);
        let (addresses, generation) = (&self.addresses, self.generation);
        let (directory, ttl) = (&self.directory, self.ttl);
        let text = configuration(directory, addresses, ttl, generation, records, self.kind);
        fs::write(self.directory.path().join("unbound.conf"), text)?;
        self.process.signal(libc::SIGHUP)?;
        self.wait_ready()
    }

    /// Stops answering, for good.
    ///
    /// # Errors
    ///
    /// If the process cannot be reaped.
    pub fn stop(mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let address = *self
            .addresses
            .first()
            .context("the server has no address")?;
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = crate::send::udp(self.namespace, any)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (server, generation) = (SocketAddr::new(address, 53), self.generation);
        self.process.wait_ready(LIMIT, || {
            let answer = ask(&socket, server, GENERATION, A)?;
            ensure!(
                answer.last() == Some(&generation),
                "the change is not in force yet"
            );
            Ok(())
        })
    }
}

/// Asks for the records of `kind` (RFC 1035 §3.2.2); the whole answer, at whose end is
/// the data of its last record.
fn ask(socket: &UdpSocket, server: SocketAddr, name: &str, kind: u8) -> Result<Vec<u8>> {
    // One question, recursion desired, class IN (RFC 1035 §4.1).
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, kind, 0, 1]);
    socket.send_to(&query, server)?;
    let mut answer = vec![0; 512];
    let (length, _) = socket.recv_from(&mut answer)?;
    answer.truncate(length);
    ensure!(
        length >= query.len() && answer[..2] == query[..2],
        "not an answer"
    );
    Ok(answer)
}

fn configuration(
    directory: &TempDir,
    listen: &[IpAddr],
    ttl: u32,
    generation: u8,
    records: &[Record<'_>],
    kind: Kind,
) -> String {
    let directory = directory.path().display();
    let encrypted = kind == Kind::Encrypted;
    let zones = match kind {
        Kind::Whole => "  local-zone: \".\" static\n  local-data: \". 3600 SOA . . 1 1 1 1 3600\"",
        Kind::Zone | Kind::Encrypted => {
            "  local-zone: \".\" refuse\n  local-zone: \"3gppnetwork.org.\" static"
        }
    };
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
{zones}
  local-data: "{GENERATION}. 0 A 0.0.0.{generation}"
"#
    );
    for address in listen {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  interface: {address}");
        if encrypted {
            let _ = writeln!(
                text,
                "  interface: {address}@853\n  interface: {address}@443"
            );
        }
    }
    if encrypted {
        let _ = writeln!(
            text,
            "  tls-service-pem: \"{directory}/server.pem\"\n  tls-service-key: \"{directory}/server.key\"\n  \
             tls-port: 853\n  https-port: 443\n  http-endpoint: \"/dns-query\""
        );
    }
    for (name, addresses) in records {
        for address in *addresses {
            let kind = match address.parse() {
                Ok(IpAddr::V4(_)) => "A ",
                Ok(IpAddr::V6(_)) => "AAAA ",
                Err(_) => "",
            };
            let _ = writeln!(text, "  local-data: '{name}. {ttl} {kind}{address}'");
        }
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const AAAA: u8 = 28;
    const NXDOMAIN: u8 = 3;

    #[test]
    fn answers_and_changes() -> Result<()> {
        let namespace = Netns::new("dns")?;
        let mut dns = Dns::start(&namespace, &["127.0.0.1"], 60, &[(EPDG, &["198.18.0.10"])])?;
        let socket = crate::send::udp(&namespace, "127.0.0.1:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        let asked = |kind| ask(&socket, "127.0.0.1:53".parse()?, EPDG, kind);
        let last =
            |kind, length| asked(kind).map(|answer| answer[answer.len() - length..].to_vec());
        assert_eq!(last(A, 4)?, [198, 18, 0, 10]);
        dns.set(&[(EPDG, &["198.18.0.11", "2001:db8::1"])])?;
        assert_eq!(last(A, 4)?, [198, 18, 0, 11]);
        let address: std::net::Ipv6Addr = "2001:db8::1".parse()?;
        assert_eq!(last(AAAA, 16)?, address.octets());
        dns.set(&[])?;
        assert_eq!(asked(A)?[3] & 0x0f, NXDOMAIN);
        Ok(())
    }
}

//! How long this host's connection tracking remembers UDP (Documentation/networking/nf_conntrack-sysctl.rst).

use std::{fs, path::Path};

/// Timeouts of connection tracking, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpTimeouts {
    /// Without packets both ways.
    pub unreplied: u64,
    /// With packets both ways for longer than two seconds.
    pub stream: u64,
}

/// Reads them; `None` if this host tracks no connections.
#[must_use]
pub fn udp_timeouts() -> Option<UdpTimeouts> {
    read(Path::new("/proc/sys/net/netfilter"))
}

fn read(directory: &Path) -> Option<UdpTimeouts> {
    let number = |name: &str| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        text.trim().parse().ok()
    };
    Some(UdpTimeouts {
        unreplied: number("nf_conntrack_udp_timeout")?,
        stream: number("nf_conntrack_udp_timeout_stream")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_their_absence_is_no_conntrack() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), None);
        fs::write(directory.path().join("nf_conntrack_udp_timeout"), "30\n").unwrap();
        assert_eq!(read(directory.path()), None);
        let stream = directory.path().join("nf_conntrack_udp_timeout_stream");
        fs::write(stream, "120\n").unwrap();
        let expected = UdpTimeouts {
            unreplied: 30,
            stream: 120,
        };
        assert_eq!(read(directory.path()), Some(expected));
    }
}

//! Sysctls of a device for IPv4, as the kernel combines them with those of `all` (Documentation/networking/ip-sysctl.rst).

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Whose sysctl.
pub const ALL: &str = "all";

/// A sysctl that steering by a gateway depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sysctl {
    /// Reverse-path filter (RFC 3704): 0 off, 1 strict, 2 loose; the maximum of `all` and the device counts.
    RpFilter,
    /// Whether ICMP redirects are sent; on if `all` or the device has it on.
    SendRedirects,
}

impl Sysctl {
    /// Its name in `net.ipv4.conf.<device>`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RpFilter => "rp_filter",
            Self::SendRedirects => "send_redirects",
        }
    }

    /// Its value for a device, or [`ALL`]; `None` if there is no such device.
    ///
    /// # Errors
    ///
    /// The OS error of reading it.
    pub fn read(self, device: &str) -> io::Result<Option<u32>> {
        match fs::read_to_string(self.path(device)) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets it.
    ///
    /// # Errors
    ///
    /// The OS error of writing it.
    pub fn write(self, device: &str, value: u32) -> io::Result<()> {
        fs::write(self.path(device), value.to_string())
    }

    fn path(self, device: &str) -> PathBuf {
        // A link's name has no slash (dev_valid_name in net/core/dev.c).
        ["/proc/sys/net/ipv4/conf", device, self.name()]
            .iter()
            .collect()
    }
}

/// Whether a device has IPv6.
#[must_use]
pub fn has_ipv6(device: &str) -> bool {
    let path: PathBuf = ["/proc/sys/net/ipv6/conf", device, "disable_ipv6"]
        .iter()
        .collect();
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, ip};
    use super::*;

    #[test]
    fn root_sysctls_are_read_and_set() {
        in_namespace(|_| {
            ip("link add lan.0 type veth peer name far0");
            for sysctl in [Sysctl::RpFilter, Sysctl::SendRedirects] {
                for value in [0, 1] {
                    sysctl.write("lan.0", value).unwrap();
                    assert_eq!(sysctl.read("lan.0").unwrap(), Some(value));
                }
                assert!(sysctl.read(ALL).unwrap().is_some());
                assert_eq!(sysctl.read("none").unwrap(), None);
            }
            assert!(has_ipv6("lan.0") && !has_ipv6("none"));
            fs::write("/proc/sys/net/ipv6/conf/lan.0/disable_ipv6", "1").unwrap();
            assert!(!has_ipv6("lan.0"));
        });
    }
}

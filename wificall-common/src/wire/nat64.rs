//! IPv4 addresses inside IPv6 ones (RFC 6052 §2.2).

/// A Pref64: the prefix under which a NAT64 shows IPv4 hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pref64 {
    /// The prefix, network order, zero beyond its length.
    pub prefix: [u8; 16],
    /// Its length in bits: 32, 40, 48, 56, 64 or 96.
    pub len: u8,
}

impl Pref64 {
    /// The IPv4 address embedded in `address`, if it lies in the prefix and its bits 64 to 71 are zero as they must be.
    #[inline(always)]
    #[must_use]
    pub fn extract(&self, address: &[u8; 16]) -> Option<[u8; 4]> {
        let a = address;
        // One arm a length: constant indices suit the verifier, and the other arms vanish at load time.
        let (bytes, embedded) = match self.len {
            32 => (4, [a[4], a[5], a[6], a[7]]),
            40 => (5, [a[5], a[6], a[7], a[9]]),
            48 => (6, [a[6], a[7], a[9], a[10]]),
            56 => (7, [a[7], a[9], a[10], a[11]]),
            64 => (8, [a[9], a[10], a[11], a[12]]),
            96 => (12, [a[12], a[13], a[14], a[15]]),
            _ => return None,
        };
        // RFC 6052 §2.2: with a 96-bit prefix these bits belong to the prefix, which is compared below.
        if self.len != 96 && a[8] != 0 {
            return None;
        }
        let pairs = address.iter().zip(&self.prefix).take(bytes);
        let difference = pairs.fold(0, |sum, (a, b)| sum | (a ^ b));
        (difference == 0).then_some(embedded)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;

    /// The table of RFC 6052 §2.4: 192.0.2.33 under each length.
    #[test]
    fn rfc_6052_table() {
        let rows = [
            ("2001:db8::", 32, "2001:db8:c000:221::"),
            ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
            ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::", 96, "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::", 96, "64:ff9b::192.0.2.33"),
        ];
        for (prefix, len, address) in rows {
            let prefix: Ipv6Addr = prefix.parse().unwrap();
            let address: Ipv6Addr = address.parse().unwrap();
            let pref64 = Pref64 {
                prefix: prefix.octets(),
                len,
            };
            assert_eq!(
                pref64.extract(&address.octets()),
                Some([192, 0, 2, 33]),
                "{address}"
            );
            let other: Ipv6Addr = "2001:db9:122:344::1".parse().unwrap();
            assert_eq!(pref64.extract(&other.octets()), None, "{other} in /{len}");
        }
    }

    #[test]
    fn bits_64_to_71_must_be_zero() {
        let pref64 = Pref64 {
            prefix: "2001:db8::".parse::<Ipv6Addr>().unwrap().octets(),
            len: 32,
        };
        let address: Ipv6Addr = "2001:db8:c000:221:100::".parse().unwrap();
        assert_eq!(pref64.extract(&address.octets()), None);
    }
}

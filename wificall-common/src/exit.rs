//! Every way out of a program.

/// Why a program let go of a packet. Each run of a program ends in exactly one of these and is counted under it,
/// per hook: the sum over all exits is the number of frames that the hook saw.
///
/// New exits are appended, never inserted: the number is the slot in the `EXITS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Matched an endpoint and was treated by its policy.
    Matched = 0,
    /// Neither IPv4 nor IPv6: ARP, LLDP, PPPoE discovery, PPP control, ….
    NotIp = 1,
    /// IP, but neither UDP nor ESP.
    OtherProtocol = 2,
    /// UDP, but the far end's port is neither 500 nor 4500.
    OtherPort = 3,
    /// The port or protocol agrees, but the far end is not a known endpoint.
    NotEndpoint = 4,
    /// Endpoint and port agree, but the payload is neither IKEv2, nor ESP, nor a keepalive.
    NotIpsec = 5,
    /// A later fragment (UDP or ESP) whose first fragment did not match, or was not seen first.
    UnknownFragment = 6,
    /// The frame ends before its headers say it does.
    Truncated = 7,
    /// A header contradicts itself or its standard.
    Malformed = 8,
    /// More than two VLAN tags.
    VlanDepth = 9,
    /// More IPv6 extension headers than are followed.
    ExtensionDepth = 10,
    /// Already classified by our XDP program on this interface; only the mark was left to do.
    ByXdp = 11,
    /// Matched, but the kernel could not make the packet writable: marked and counted, DSCP unchanged.
    RewriteFailed = 12,
    /// Matched, but the endpoint names a policy that is not in the table: counted, otherwise untouched.
    NoPolicy = 13,
    /// Matched in XDP, but the driver has no room for a verdict: passed on untouched, for TC to classify.
    NoMetadata = 14,
    /// UDP 53 at the far end: passed on, and looked at for the name that is asked for. Only where that is configured.
    Dns = 15,
    /// IKE_SA_INIT with an address that is no endpoint: passed on, and looked at. Only where that is configured.
    NewIke = 16,
    /// Matched, and its policy says to drop it.
    Dropped = 17,
    /// IPsec to an address that is no endpoint, or to an endpoint that may not pass a firewall, marked as configured
    /// (`other_ipsec`).
    OtherMarked = 18,
    /// Likewise, passed on: it would have been dropped.
    OtherAudited = 19,
    /// Likewise, dropped.
    OtherDropped = 20,
    /// The first IKE_SA_INIT to an address that is no endpoint, dropped while its country is looked up (`catch_all`).
    Held = 21,
    /// Likewise, given the default mark instead.
    CaughtFirst = 22,
    /// Port 443 of a companion name, steered by its client's policy.
    Companion = 23,
}

impl Exit {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 24] = [
        Self::Matched,
        Self::NotIp,
        Self::OtherProtocol,
        Self::OtherPort,
        Self::NotEndpoint,
        Self::NotIpsec,
        Self::UnknownFragment,
        Self::Truncated,
        Self::Malformed,
        Self::VlanDepth,
        Self::ExtensionDepth,
        Self::ByXdp,
        Self::RewriteFailed,
        Self::NoPolicy,
        Self::NoMetadata,
        Self::Dns,
        Self::NewIke,
        Self::Dropped,
        Self::OtherMarked,
        Self::OtherAudited,
        Self::OtherDropped,
        Self::Held,
        Self::CaughtFirst,
        Self::Companion,
    ];

    /// The name used in metrics, JSON and packet vectors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::NotIp => "not_ip",
            Self::OtherProtocol => "other_protocol",
            Self::OtherPort => "other_port",
            Self::NotEndpoint => "not_endpoint",
            Self::NotIpsec => "not_ipsec",
            Self::UnknownFragment => "unknown_fragment",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::VlanDepth => "vlan_depth",
            Self::ExtensionDepth => "extension_depth",
            Self::ByXdp => "by_xdp",
            Self::RewriteFailed => "rewrite_failed",
            Self::NoPolicy => "no_policy",
            Self::NoMetadata => "no_metadata",
            Self::Dns => "dns",
            Self::NewIke => "new_ike",
            Self::Dropped => "dropped",
            Self::OtherMarked => "other_marked",
            Self::OtherAudited => "other_audited",
            Self::OtherDropped => "other_dropped",
            Self::Held => "held",
            Self::CaughtFirst => "caught_first",
            Self::Companion => "companion",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions() {
        for (position, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(exit as usize, position);
        }
    }
}

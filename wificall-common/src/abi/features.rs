//! Load-time constants: what is switched off is pruned by the verifier.

/// Bits of the global `FEATURES`, set when the programs are loaded.
pub struct Features;

impl Features {
    /// Set DSCPs.
    pub const DSCP: u32 = 1;
    /// Set the mark of `up` packets at TC ingress.
    pub const MARK: u32 = 1 << 1;
    /// Set the priority at TC egress.
    pub const PRIORITY: u32 = 1 << 2;
    /// Count, remember fragments and activity in the programs of access interfaces.
    pub const COUNT_ACCESS: u32 = 1 << 3;
    /// Likewise in those of uplink interfaces.
    pub const COUNT_UPLINK: u32 = 1 << 4;
    /// Look into the LPM trie: irregular prefixes are configured.
    pub const PREFIXES: u32 = 1 << 5;
    /// TC stands behind XDP, which tells it in metadata what it did.
    pub const HANDOVER: u32 = 1 << 6;
    /// Look at DNS messages: the names that clients ask for.
    pub const SNOOP_NAMES: u32 = 1 << 7;
    /// Look at IKE_SA_INIT with addresses that are no endpoints.
    pub const SNOOP_IKE: u32 = 1 << 8;
    /// Hold clients to the caps of policies.
    pub const CAP: u32 = 1 << 9;
    /// Choose policies by the client's network.
    pub const CLIENTS: u32 = 1 << 10;
    /// Policies that drop.
    pub const DROP: u32 = 1 << 11;
    /// Tunnels keep their exit.
    pub const EXITS: u32 = 1 << 12;
    /// Give IPsec with other addresses a mark.
    pub const OTHER_MARK: u32 = 1 << 13;
    /// Count what [`OTHER_DROP`](Self::OTHER_DROP) would drop.
    pub const OTHER_AUDIT: u32 = 1 << 14;
    /// Drop IPsec to other addresses.
    pub const OTHER_DROP: u32 = 1 << 15;
    /// Reset the DSCPs of voice on what is no match.
    pub const BLEACH: u32 = 1 << 16;
    /// Hold the first IKE_SA_INIT to an unknown address back while its country is looked up.
    pub const CATCH_HOLD: u32 = 1 << 17;
    /// Give it the default mark instead.
    pub const CATCH_MARK: u32 = 1 << 18;
    /// Steer port 443 of companion names.
    pub const COMPANIONS: u32 = 1 << 19;
    /// Choose policies by the client's link-layer address.
    pub const STATIONS: u32 = 1 << 20;
    /// Choose policies by interface.
    pub const INTERFACES: u32 = 1 << 21;
    /// Exits have gateways on access links, whose own IPsec is nobody's business.
    pub const GATEWAYS: u32 = 1 << 22;
    /// Track flows where packets are counted.
    pub const FLOWS: u32 = 1 << 23;
    /// All of them.
    pub const ALL: u32 = (1 << 24) - 1;
}

/// NAT64 prefixes that the programs have room for.
pub const PREF64S: usize = 4;

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
    /// Hold clients to the caps of policies.
    pub const CAP: u32 = 1 << 9;
}

/// NAT64 prefixes that the programs have room for.
pub const PREF64S: usize = 4;

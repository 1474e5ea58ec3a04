//! What the kernel and the agent share: packet formats, map layouts, the classifier.
//!
//! `no_std`, no I/O, no allocation, no panics on any input. The BPF programs and the host compile it
//! unchanged, so that a test on a laptop exercises the code that runs in the kernel.
//!
//! All multi-byte packet fields are in network byte order; all integers in `abi` are in host order, and the
//! hosts are little-endian.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod bleach;
pub mod classify;
pub mod client;
pub mod companion;
pub mod endpoint;
pub mod exit;
pub mod flow;
pub mod frame;
pub mod other;
pub mod rewrite;
pub mod snoop;
pub mod tunnel;
pub mod wire;

#[cfg(not(target_endian = "little"))]
compile_error!("wificall supports little-endian targets only");

/// Which way a packet goes, seen from the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// The destination is the endpoint.
    Up = 0,
    /// The source is the endpoint.
    Down = 1,
}

impl Direction {
    /// Both, in the order of [`abi`] arrays.
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What a matching packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// IKEv2: UDP 500, or UDP 4500 behind the non-ESP marker.
    Ike = 0,
    /// ESP in UDP 4500 (RFC 3948).
    EspUdp = 1,
    /// NAT keepalive in UDP 4500 (RFC 3948 §2.3).
    Keepalive = 2,
    /// Native ESP, IP protocol 50 (RFC 4303).
    Esp = 3,
    /// A later IP fragment whose first fragment matched.
    Fragment = 4,
}

impl Class {
    /// All, in the order of [`abi`] arrays.
    pub const ALL: [Self; 5] = [
        Self::Ike,
        Self::EspUdp,
        Self::Keepalive,
        Self::Esp,
        Self::Fragment,
    ];

    /// The name used in metrics, JSON and the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ike => "ike",
            Self::EspUdp => "esp_udp",
            Self::Keepalive => "keepalive",
            Self::Esp => "esp",
            Self::Fragment => "fragment",
        }
    }

    /// The class with this number in a map, if there is one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ike),
            1 => Some(Self::EspUdp),
            2 => Some(Self::Keepalive),
            3 => Some(Self::Esp),
            4 => Some(Self::Fragment),
            _ => None,
        }
    }
}

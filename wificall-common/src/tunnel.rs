//! A tunnel keeps its exit.

use crate::{
    Class,
    abi::{KEEP_OFF, KEEP_UNKNOWN, Policy, Tunnel},
    frame::Frame,
    rewrite::Mark,
    wire::{Fragment, PROTOCOL_ESP, Packet, natt, udp},
};

/// Whether `TUNNELS` is to be asked about a packet. ESP is most of all packets, and has to ask only while tunnels may be
/// elsewhere than their policy says.
#[inline(always)]
#[must_use]
pub const fn asks(treat_as: Class, keep: u32) -> bool {
    keep != KEEP_OFF || !is_esp(treat_as)
}

/// What is noted of a tunnel that is not known yet; `begins` if this is its first packet.
#[inline(always)]
#[must_use]
pub const fn first(row: &Policy, treat_as: Class, begins: bool, keep: u32, seen: u32) -> Tunnel {
    let older_than_exits = keep == KEEP_UNKNOWN && !begins;
    let (exit, mark, mask) = if older_than_exits {
        (0, 0, 0)
    } else {
        (row.exit, row.mark, row.mask)
    };
    Tunnel {
        exit,
        mark,
        mask,
        seen,
        began: if older_than_exits { 0 } else { seen },
        esp: if is_esp(treat_as) { seen } else { 0 },
    }
}

/// The mark of a tunnel's packet. That of an exit may have been changed since it began: the exit counts, and not its mark.
#[inline(always)]
#[must_use]
pub const fn mark(tunnel: &Tunnel, row: &Policy) -> Mark {
    if tunnel.exit == row.exit {
        return Mark::of(row);
    }
    Mark {
        value: tunnel.mark,
        mask: tunnel.mask,
    }
}

/// Whether a packet carries what is inside the tunnel.
#[must_use]
pub const fn is_esp(class: Class) -> bool {
    matches!(class, Class::EspUdp | Class::Esp)
}

/// Whether a packet to an address that is no endpoint carries what is inside a tunnel, as far as its headers tell.
#[inline(always)]
pub fn carries<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> bool {
    if packet.protocol == PROTOCOL_ESP {
        return true;
    }
    let payload = packet.offset + packet.header_len;
    let Ok(header) = udp::parse(frame, payload) else {
        return false;
    };
    let first = frame.read(payload + udp::HEADER_LEN);
    !matches!(packet.fragment, Fragment::Later)
        && header.destination == udp::PORT_NATT
        && header.len > udp::HEADER_LEN + natt::MARKER_LEN
        && first.unwrap_or([0; natt::MARKER_LEN]) != [0; natt::MARKER_LEN]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::KEEP_ON;

    const ROW: Policy = Policy {
        exit: 7,
        mark: 0x65,
        mask: 0xff,
        dscp: [[0; 4]; 2],
        voice: [0; 2],
        valid: 1,
        tier: 0,
        interval: 0,
        set: 0,
        epoch: 0,
        drop: 0,
        passes: 1,
        own: 0,
        reserved: 0,
    };

    #[test]
    fn esp_asks_only_while_tunnels_may_be_elsewhere() {
        for class in Class::ALL {
            let is_esp = [Class::EspUdp, Class::Esp].contains(&class);
            assert_eq!(asks(class, KEEP_OFF), !is_esp, "{class:?}");
            assert!(asks(class, KEEP_ON) && asks(class, KEEP_UNKNOWN));
        }
    }

    #[test]
    fn what_is_older_than_the_exits_stays_where_it_is() {
        let noted = |class, begins, keep| {
            let first = first(&ROW, class, begins, keep, 9);
            (first.exit, first.began)
        };
        for class in Class::ALL {
            assert_eq!(noted(class, false, KEEP_UNKNOWN), (0, 0), "{class:?}");
            assert_eq!(noted(class, false, KEEP_ON), (7, 9), "{class:?}");
        }
        assert_eq!(noted(Class::Ike, true, KEEP_UNKNOWN), (7, 9));
        let old = first(&ROW, Class::EspUdp, false, KEEP_UNKNOWN, 1);
        assert_eq!(mark(&old, &ROW), Mark::default());
    }

    #[test]
    fn a_tunnel_has_the_mark_of_its_exit_as_that_is_now() {
        let began = first(&ROW, Class::Ike, true, KEEP_OFF, 1);
        let remarked = Policy { mark: 0x66, ..ROW };
        assert_eq!(mark(&began, &remarked).value, 0x66);
        let moved = Policy {
            exit: 8,
            mark: 0x70,
            ..ROW
        };
        assert_eq!(mark(&began, &moved), Mark::of(&ROW));
    }
}

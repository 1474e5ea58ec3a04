//! Which row a match is treated by, and where its tunnel goes.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use wificall_common::{
    Direction,
    abi::{Features, MOVED, Policy, SEEN_SHIFT, Tunnel},
    classify::{Link, Match, begins, client, tunnel_key},
    client::{Client, choose},
    companion::To,
    frame::Frame,
    rewrite::Mark,
    tunnel,
    wire::Packet,
};

use crate::{
    account::At,
    maps::{KEEP, KernelTables, POLICIES, TUNNELS},
    settings,
};

/// What may choose another row than the endpoint's.
const BY_CLIENT: u32 = Features::CLIENTS | Features::STATIONS | Features::INTERFACES;

/// The row that the policies have for a match, if it is in the table.
#[inline(always)]
pub fn row<F: Frame>(frame: &F, found: &Match, at: At, ifindex: u32) -> Option<&'static Policy> {
    let row = get(found.endpoint.policy)?;
    if !settings::any(BY_CLIENT) || row.set == 0 {
        return Some(row);
    }
    let At {
        direction,
        link,
        faces_clients,
        ..
    } = at;
    let Packet {
        version, offset, ..
    } = found.packet;
    let client = client(
        frame,
        (version, offset),
        link,
        faces_clients,
        direction,
        ifindex,
    );
    chosen(row, client)
}

/// The row that takes the place of `row` for this client.
#[inline(always)]
fn chosen(row: &'static Policy, client: Option<Client>) -> Option<&'static Policy> {
    match client.and_then(|client| choose(&KernelTables, row, &client)) {
        // A choice names a row that is written before it.
        Some(choice) => get(choice.policy),
        None => Some(row),
    }
}

/// The row that the policies have for an `up` packet to a companion, at an access interface.
#[inline(always)]
pub fn of_companion<F: Frame>(
    frame: &F,
    to: &To,
    link: Link,
    index: u32,
    ifindex: u32,
) -> Option<&'static Policy> {
    let row = get(index)?;
    let at = (to.version, to.offset);
    chosen(row, client(frame, at, link, true, Direction::Up, ifindex))
}

#[inline(always)]
fn get(index: u32) -> Option<&'static Policy> {
    POLICIES.get(index).filter(|row| row.valid != 0)
}

/// The mark of an `up` packet: that of its row, unless its tunnel began with another exit.
#[inline(always)]
pub fn mark<F: Frame>(frame: &F, found: &Match, row: &Policy) -> Mark {
    let own = Mark::of(row);
    // What a gateway forwards may be a packet of a tunnel of ours.
    if !settings::on(Features::EXITS) || row.own != 0 {
        return own;
    }
    let keep = KEEP.get(0).map_or(0, |keep| {
        // SAFETY: an aligned word of a map value, which the agent changes.
        unsafe { core::ptr::from_ref(keep).read_volatile() }
    });
    if !tunnel::asks(found.treat_as, keep) {
        return own;
    }
    let Some(key) = tunnel_key(frame, &found.packet) else {
        return own;
    };
    // SAFETY: no precondition.
    let now = (unsafe { bpf_ktime_get_ns() } >> SEEN_SHIFT) as u32;
    let begins = begins(frame, found, Direction::Up);
    let new = tunnel::first(row, found.treat_as, begins, keep, now);
    let Some(known) = TUNNELS.get_ptr_mut(key) else {
        // A full table forgets who was quiet longest.
        let _ = TUNNELS.insert(key, new, 0);
        return tunnel::mark(&new, row);
    };
    // SAFETY: a map value. Packets of one tunnel race to write the same; an entry that is given to another tunnel
    // meanwhile costs that one its exit until it begins anew.
    unsafe {
        if begins {
            let moved = if (*known).exit == row.exit { 0 } else { MOVED };
            *known = Tunnel {
                began: new.began | moved,
                ..new
            };
        } else if (*known).seen != now {
            (*known).seen = now;
        }
        if tunnel::is_esp(found.treat_as) && (*known).esp != now {
            (*known).esp = now;
        }
        tunnel::mark(&*known, row)
    }
}

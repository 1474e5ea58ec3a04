//! What hangs at a link's clsact qdisc, and its removal (`linux/rtnetlink.h`, `linux/pkt_cls.h`).

use std::io;

use netlink_packet_core::NlaBuffer;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::{attribute, attributes, dump, get, string, u32_at};

/// The state of a link's clsact qdisc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClsactState {
    /// The link has a clsact qdisc.
    pub qdisc: bool,
    /// The link has an old `ingress` qdisc instead. It holds clsact's place: `tc qdisc del dev … ingress` makes room.
    pub ingress_qdisc: bool,
    /// The filters of both directions, in the order in which the kernel runs them.
    pub filters: Vec<Filter>,
}

/// A filter at a clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// At ingress; otherwise at egress.
    pub ingress: bool,
    /// The classifier: `bpf`, `u32`, `flower`…
    pub kind: String,
    /// Lower runs first.
    pub priority: u16,
    /// With the priority, the filter's identity.
    pub handle: u32,
    /// The name that was given when a BPF filter was attached.
    pub bpf_name: Option<String>,
    /// The kernel's id of the BPF program.
    pub bpf_id: Option<u32>,
}

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// Bytes of `struct tcmsg`: family and padding, ifindex, handle, parent, info (4 each).
const TCMSG: usize = 20;
const TC_H_CLSACT: u32 = 0xFFFF_FFF1;
const TC_H_MIN_INGRESS: u32 = 0xFFFF_FFF2;
const TC_H_MIN_EGRESS: u32 = 0xFFFF_FFF3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// Reads the clsact qdisc of the link with this index, and its filters. A link that does not exist has none.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn clsact_state(ifindex: u32) -> io::Result<ClsactState> {
    let mut state = ClsactState::default();
    // The kernel ignores the ifindex in this request and answers for all links.
    for message in dump(NETLINK_ROUTE, RTM_GETQDISC, &tcmsg(ifindex, 0)).await? {
        if message.kind == RTM_NEWQDISC && u32_at(&message.payload, 4) == Some(ifindex) {
            match find(&message.payload, TCMSG, TCA_KIND)
                .map(|kind| string(kind.value()))
                .as_deref()
            {
                Some("clsact") => state.qdisc = true,
                Some("ingress") => state.ingress_qdisc = true,
                _ => {}
            }
        }
    }
    if state.qdisc {
        for (parent, ingress) in [(TC_H_MIN_INGRESS, true), (TC_H_MIN_EGRESS, false)] {
            let answer = dump(NETLINK_ROUTE, RTM_GETTFILTER, &tcmsg(ifindex, parent)).await?;
            let messages = answer
                .iter()
                .filter(|message| message.kind == RTM_NEWTFILTER);
            state
                .filters
                .extend(messages.filter_map(|message| parse_filter(&message.payload, ingress)));
        }
    }
    Ok(state)
}

/// Removes the clsact qdisc of the link with this index, and with it whatever filters hang there. An old `ingress` qdisc
/// stays.
///
/// # Errors
///
/// The kernel's answer as an OS error: `ENOENT` if there is none, `ENODEV` if there is no such link.
async fn delete_clsact(ifindex: u32) -> io::Result<()> {
    let mut request = tcmsg(ifindex, TC_H_CLSACT);
    // The kernel compares the kind with what is there.
    request.extend(attribute(TCA_KIND, b"clsact\0"));
    get(NETLINK_ROUTE, RTM_DELQDISC, &request).await.map(drop)
}

/// Removes a link's clsact qdisc unless there are filters on it, whoever's; whether it was removed.
///
/// # Errors
///
/// As [`clsact_state`] and [`delete_clsact`].
pub async fn remove_empty_clsact(ifindex: u32) -> io::Result<bool> {
    let state = clsact_state(ifindex).await?;
    if !state.qdisc || !state.filters.is_empty() {
        return Ok(false);
    }
    delete_clsact(ifindex).await.map(|()| true)
}

fn tcmsg(ifindex: u32, parent: u32) -> Vec<u8> {
    let mut request = vec![0; 4];
    for field in [ifindex, 0, parent, 0] {
        request.extend(field.to_ne_bytes());
    }
    request
}

/// Reads an `RTM_NEWTFILTER` message.
/// `None` for the message with handle 0 that precedes the filters of each priority, and for one cut short.
fn parse_filter(payload: &[u8], ingress: bool) -> Option<Filter> {
    let handle = u32_at(payload, 8).filter(|&handle| handle != 0)?;
    let priority = (u32_at(payload, 16)? >> 16) as u16;
    let kind = string(find(payload, TCMSG, TCA_KIND)?.value());
    let mut filter = Filter {
        ingress,
        kind,
        priority,
        handle,
        bpf_name: None,
        bpf_id: None,
    };
    if filter.kind == "bpf"
        && let Some(options) = find(payload, TCMSG, TCA_OPTIONS)
    {
        filter.bpf_name = find(options.value(), 0, TCA_BPF_NAME).map(|name| string(name.value()));
        filter.bpf_id = find(options.value(), 0, TCA_BPF_ID).and_then(|id| u32_at(id.value(), 0));
    }
    Some(filter)
}

fn find(payload: &[u8], skip: usize, kind: u16) -> Option<NlaBuffer<&[u8]>> {
    attributes(payload, skip).find(|attribute| attribute.kind() == kind)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::namespace::{in_namespace, index, ip, run};
    use super::*;

    /// Attaches a classic BPF program that returns -1 ("unspecified") at once.
    fn attach(place: &str) {
        let mut words: Vec<&str> = "filter add dev"
            .split(' ')
            .chain(place.split(' '))
            .collect();
        words.extend(["bpf", "bytecode", "1,6 0 0 4294967295"]);
        assert!(Command::new("tc").args(words).status().unwrap().success());
    }

    #[test]
    fn root_only_a_clsact_qdisc_is_deleted() {
        in_namespace(|runtime| {
            ip("link add lan0 type veth peer name far0");
            let lan0 = index("lan0");
            let delete = || runtime.block_on(delete_clsact(lan0));
            let state = || runtime.block_on(clsact_state(lan0)).unwrap();
            assert_eq!(
                delete().unwrap_err().raw_os_error(),
                Some(libc::ENOENT),
                "nothing there"
            );
            run("tc", "qdisc add dev lan0 ingress");
            assert!(delete().is_err());
            assert!(state().ingress_qdisc);
            run("tc", "qdisc del dev lan0 ingress");

            run("tc", "qdisc add dev lan0 clsact");
            run("tc", "qdisc add dev far0 clsact");
            delete().unwrap();
            assert!(!state().qdisc);
            let far0 = runtime.block_on(clsact_state(index("far0"))).unwrap();
            assert!(far0.qdisc);
        });
    }

    #[test]
    fn root_clsact_and_its_filters_are_read_back() {
        in_namespace(|runtime| {
            ip("link add lan0 type veth peer name far0");
            let state = || runtime.block_on(clsact_state(index("lan0"))).unwrap();
            let none = ClsactState::default();
            assert_eq!(state(), none);

            run("tc", "qdisc add dev lan0 ingress");
            assert!(state().ingress_qdisc && !state().qdisc);
            run("tc", "qdisc del dev lan0 ingress");

            run("tc", "qdisc add dev lan0 clsact");
            run("tc", "qdisc add dev far0 clsact");
            attach("far0 ingress");
            assert_eq!(
                state(),
                ClsactState {
                    qdisc: true,
                    ..none.clone()
                }
            );

            attach("lan0 ingress prio 49152 handle 7");
            attach("lan0 egress prio 3 handle 9");
            run("tc", "filter add dev lan0 ingress prio 1 u32 match u8 0 0");
            let found: Vec<_> = state()
                .filters
                .into_iter()
                .map(|f| (f.ingress, f.kind, f.priority, f.handle))
                .collect();
            // u32 numbers its hash table (800:) and the entry in it (800::800).
            let u32_filter = |handle| (true, "u32".to_owned(), 1, handle);
            let bpf = |ingress, priority, handle| (ingress, "bpf".to_owned(), priority, handle);
            assert_eq!(
                found,
                [
                    u32_filter(0x8000_0000),
                    u32_filter(0x8000_0800),
                    bpf(true, 49152, 7),
                    bpf(false, 3, 9)
                ]
            );

            run("tc", "qdisc del dev lan0 clsact");
            assert_eq!(state(), none);
            assert_eq!(runtime.block_on(clsact_state(9999)).unwrap(), none);
        });
    }

    #[test]
    fn a_bpf_filter_gives_its_program() {
        let mut payload = tcmsg(4, TC_H_MIN_INGRESS);
        payload[8..12].copy_from_slice(&7u32.to_ne_bytes());
        payload[16..20].copy_from_slice(&(49152u32 << 16 | 3).to_ne_bytes());
        let mut options = attribute(TCA_BPF_NAME, b"wificall\0");
        options.extend(attribute(TCA_BPF_ID, &42u32.to_ne_bytes()));
        payload.extend(attribute(TCA_KIND, b"bpf\0"));
        payload.extend(attribute(TCA_OPTIONS, &options));
        let expected = Filter {
            ingress: true,
            kind: "bpf".to_owned(),
            priority: 49152,
            handle: 7,
            bpf_name: Some("wificall".to_owned()),
            bpf_id: Some(42),
        };
        assert_eq!(parse_filter(&payload, true), Some(expected));
        payload[8..12].fill(0);
        assert_eq!(parse_filter(&payload, true), None);
        assert_eq!(parse_filter(&payload[..12], true), None);
    }
}

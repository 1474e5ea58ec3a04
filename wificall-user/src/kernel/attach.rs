//! Hooks: which program runs where, and how it got there.

use std::{collections::BTreeSet, thread};

use aya::{
    Ebpf,
    programs::{
        Link as _, LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, Xdp,
        XdpMode as AyaXdpMode,
        links::{FdLink, PinnedLink},
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        },
        xdp::XdpLink,
    },
    sys::SyscallError,
};
use tracing::debug;
use wificall_common::abi::{Hook, HookKey, HookRecord};

use super::{
    Attached,
    error::{Context as _, KernelError},
    maps::Maps,
    pins::Pins,
};

/// Priority of our clsact filters: before the kernel's own choice (49152 downwards), after hand-set single digits.
const FILTER_PRIORITIES: std::ops::Range<u16> = 50..60;

/// A hook of one interface and the program that is to run there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// Interface index.
    pub ifindex: u32,
    /// TC ingress, TC egress or XDP.
    pub hook: Hook,
    /// Interface name, for the kernel calls that take one and for messages.
    pub interface: String,
    /// Name of the program in the BPF object.
    pub program: &'static str,
    /// How to attach it.
    pub method: Method,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// TCX link, Linux 6.6 and later.
    Tcx,
    /// A cls_bpf filter on the clsact qdisc.
    Clsact,
    /// XDP in the driver.
    XdpNative,
    /// XDP on skbs.
    XdpGeneric,
}

impl Method {
    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdp_generic",
        }
    }
}

/// Loads programs that are not loaded yet, at once. What fails is left to [`attach`].
pub(super) fn load(ebpf: &mut Ebpf, programs: &BTreeSet<&str>) {
    thread::scope(|scope| {
        for (name, program) in ebpf.programs_mut() {
            if !programs.contains(name) {
                continue;
            }
            scope.spawn(move || {
                let loaded = match program {
                    Program::SchedClassifier(program) if program.fd().is_err() => program.load(),
                    Program::Xdp(program) if program.fd().is_err() => program.load(),
                    _ => Ok(()),
                };
                if let Err(problem) = loaded {
                    debug!(program = name, %problem, "not loaded at once with the others");
                }
            });
        }
    });
}

/// Attaches or replaces a program.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    maps: &mut Maps,
    pins: &Pins,
    wanted: &Attachment,
) -> Result<Attached, KernelError> {
    let Attachment {
        interface, program, ..
    } = wanted;
    let program = ebpf
        .program_mut(program)
        .ok_or_else(|| KernelError::new(format!("find program {program} in the BPF object")))?;
    let loading = || format!("load program {}", wanted.program);
    let (made, info) = match (program, wanted.method) {
        (Program::SchedClassifier(program), Method::Tcx | Method::Clsact) => {
            if program.fd().is_err() {
                program.load().doing(loading)?;
            }
            // What is left from a time when this instance used the other method goes last: a packet handled twice is
            // better than one not at all.
            let made = if wanted.method == Method::Tcx {
                let made = attach_tcx(program, pins, wanted)?;
                detach_filter(maps, wanted.hook, wanted.ifindex, interface)?;
                made
            } else {
                let made = attach_filter(program, maps, wanted)?;
                unpin(pins, wanted.hook, wanted.ifindex)?;
                made
            };
            (made, program.info())
        }
        (Program::Xdp(program), Method::XdpNative | Method::XdpGeneric) => {
            if program.fd().is_err() {
                program.load().doing(loading)?;
            }
            (attach_xdp(program, pins, wanted)?, program.info())
        }
        _ => {
            return Err(KernelError::new(format!(
                "attach {} to `{interface}` by {}: the program is of another kind",
                wanted.program,
                wanted.method.name()
            )));
        }
    };
    let info = info.doing(|| format!("read the id of program {}", wanted.program))?;
    Ok(Attached {
        program_id: info.id(),
        made,
    })
}

fn doing(wanted: &Attachment) -> String {
    format!(
        "attach {} to `{}` by {}",
        wanted.hook.name(),
        wanted.interface,
        wanted.method.name()
    )
}

/// Updates the pinned link; makes a new one, and says so, if there is none or its interface went away (ENOLINK).
fn attach_tcx(
    program: &mut SchedClassifier,
    pins: &Pins,
    wanted: &Attachment,
) -> Result<bool, KernelError> {
    let path = pins.link(wanted.hook, wanted.ifindex);
    if let Some(link) = pinned(&path)? {
        let link = SchedClassifierLink::try_from(FdLink::from(link)).doing(|| doing(wanted))?;
        match program.attach_to_link(link) {
            // The pin keeps the link; our handle of it may go.
            Ok(id) => {
                drop(program.take_link(id).doing(|| doing(wanted))?);
                return Ok(false);
            }
            Err(error) if interface_gone(&error) => unpin(pins, wanted.hook, wanted.ifindex)?,
            Err(error) => return Err(error).doing(|| doing(wanted)),
        }
    }
    // First in the chain: whoever stands before us may end it with a verdict of their own.
    let id = program
        .attach_with_options(
            &wanted.interface,
            attach_type(wanted.hook),
            TcAttachOptions::TcxOrder(LinkOrder::first()),
        )
        .doing(|| doing(wanted))?;
    let link = program.take_link(id).doing(|| doing(wanted))?;
    FdLink::try_from(link)
        .doing(|| doing(wanted))?
        .pin(&path)
        .map(|_pinned| true)
        .doing(|| format!("pin the link {}", path.display()))
}

fn attach_xdp(program: &mut Xdp, pins: &Pins, wanted: &Attachment) -> Result<bool, KernelError> {
    let generic = wanted.method == Method::XdpGeneric;
    let path = pins.xdp(wanted.ifindex, generic);
    // A link keeps the mode that it was made with: one of the other mode makes room.
    unpin_path(&pins.xdp(wanted.ifindex, !generic))?;
    if let Some(link) = pinned(&path)? {
        let link = XdpLink::try_from(FdLink::from(link)).doing(|| doing(wanted))?;
        match program.attach_to_link(link) {
            Ok(id) => {
                drop(program.take_link(id).doing(|| doing(wanted))?);
                return Ok(false);
            }
            Err(error) if interface_gone(&error) => unpin_path(&path)?,
            Err(error) => return Err(error).doing(|| doing(wanted)),
        }
    }
    let mode = if generic {
        AyaXdpMode::Skb
    } else {
        AyaXdpMode::Driver
    };
    let id = program
        .attach_to_if_index(wanted.ifindex, mode)
        .map_err(|error| {
            let hint = match code(&error) {
                Some(libc::EBUSY) => "another XDP program holds the slot: take the interface out of interfaces.xdp",
                Some(libc::EOPNOTSUPP) => {
                    "the driver has no native XDP: take the interface out of interfaces.xdp; TC is enough"
                }
                _ => "take the interface out of interfaces.xdp; TC is enough",
            };
            KernelError::new(format!("{}: {error}", doing(wanted))).hint(hint)
        })?;
    // aya falls back to netlink where links are missing (before 5.9); such an attachment cannot be pinned and goes with
    // this handle.
    let link = program.take_link(id).doing(|| doing(wanted))?;
    FdLink::try_from(link)
        .doing(|| doing(wanted))?
        .pin(&path)
        .map(|_pinned| true)
        .doing(|| format!("pin the link {}", path.display()))
}

/// Replaces our filter in place, or adds it, with its qdisc if that is missing; whether it was added.
///
/// What is about to be made is recorded first, under a handle of our own choice: an agent that dies in between leaves no
/// filter that nobody knows of.
fn attach_filter(
    program: &mut SchedClassifier,
    maps: &mut Maps,
    wanted: &Attachment,
) -> Result<bool, KernelError> {
    let key = HookKey {
        ifindex: wanted.ifindex,
        hook: wanted.hook as u32,
    };
    let record = maps.hooks()?.into_iter().find(|(known, _)| *known == key);
    if let Some((_, record)) = record {
        let link = filter(&record, wanted.hook, &wanted.interface)?;
        match program.attach_to_link(link) {
            Ok(id) => {
                keep(program.take_link(id).doing(|| doing(wanted))?);
                return Ok(false);
            }
            Err(error) if filter_gone(&error) => maps.remove_hook(key)?,
            Err(error) => return Err(error).doing(|| doing(wanted)),
        }
    }
    // Ours if the filter of the other direction brought it along.
    let inherited = maps
        .hooks()?
        .iter()
        .any(|(known, record)| known.ifindex == wanted.ifindex && record.own_qdisc != 0);
    let mut record = HookRecord {
        handle: own_handle()?,
        priority: FILTER_PRIORITIES.start,
        own_qdisc: 1,
        reserved: 0,
    };
    maps.set_hook(key, record)?;
    let own_qdisc = match qdisc_add_clsact(&wanted.interface) {
        Ok(()) => true,
        Err(TcError::AlreadyAttached) => inherited,
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            inherited
        }
        Err(error) => {
            maps.remove_hook(key)?;
            return Err(error).doing(|| format!("add a clsact qdisc to `{}`", wanted.interface));
        }
    };
    record.own_qdisc = u8::from(own_qdisc);
    let mut failure = None;
    for priority in FILTER_PRIORITIES {
        record.priority = priority;
        maps.set_hook(key, record)?;
        let options = NlOptions {
            priority,
            handle: TcHandle::from(record.handle),
            classid: None,
        };
        match program.attach_with_options(
            &wanted.interface,
            attach_type(wanted.hook),
            TcAttachOptions::Netlink(options),
        ) {
            Ok(id) => {
                keep(program.take_link(id).doing(|| doing(wanted))?);
                return Ok(true);
            }
            // The priority may be taken by a filter of another kind.
            Err(error) => failure = Some(error),
        }
    }
    maps.remove_hook(key)?;
    match failure {
        Some(error) => Err(KernelError::new(format!("{}: {error}", doing(wanted))).hint(
            "if the interface has an `ingress` qdisc, it stands where clsact has to: `tc qdisc show` tells; \
             clsact serves its filters as well",
        )),
        None => Ok(false),
    }
}

/// A filter handle that nobody else will have chosen.
fn own_handle() -> Result<u32, KernelError> {
    // cls_bpf takes handles of 31 bits, and 0 for one of its own choice (net/sched/cls_bpf.c).
    Ok((super::random()? as u32 & 0x7fff_ffff) | 1)
}

/// Whether an update failed because the filter, its qdisc or its interface is gone.
fn filter_gone(error: &ProgramError) -> bool {
    let code = match error {
        ProgramError::TcError(TcError::NetlinkError(error)) | ProgramError::NetlinkError(error) => {
            error.raw_os_error()
        }
        _ => None,
    };
    matches!(code, Some(libc::ENOENT | libc::EINVAL | libc::ENODEV))
}

/// Keeps a filter in the kernel: dropping aya's handle would remove it.
fn keep(link: SchedClassifierLink) {
    std::mem::forget(link);
}

fn filter(
    record: &HookRecord,
    hook: Hook,
    interface: &str,
) -> Result<SchedClassifierLink, KernelError> {
    SchedClassifierLink::attached(
        interface,
        attach_type(hook),
        record.priority,
        TcHandle::from(record.handle),
        None,
    )
    .doing(|| format!("find the filter on `{interface}`"))
}

/// Removes our filter from a hook, if it has one.
pub(super) fn detach_filter(
    maps: &mut Maps,
    hook: Hook,
    ifindex: u32,
    interface: &str,
) -> Result<(), KernelError> {
    let key = HookKey {
        ifindex,
        hook: hook as u32,
    };
    if let Some((_, record)) = maps.hooks()?.iter().find(|(known, _)| *known == key) {
        remove_filter(record, hook, interface)?;
        maps.remove_hook(key)?;
    }
    Ok(())
}

/// Removes a filter. One that is gone with its interface or qdisc is gone as well as removed.
pub(super) fn remove_filter(
    record: &HookRecord,
    hook: Hook,
    interface: &str,
) -> Result<(), KernelError> {
    let Ok(link) = filter(record, hook, interface) else {
        return Ok(());
    };
    match link.detach() {
        Err(error) if !filter_gone(&error) => {
            Err(error).doing(|| format!("remove the filter from {} of `{interface}`", hook.name()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes the pin of a hook's link, and with it the link.
pub(super) fn unpin(pins: &Pins, hook: Hook, ifindex: u32) -> Result<(), KernelError> {
    if hook == Hook::Xdp {
        unpin_path(&pins.xdp(ifindex, true))?;
    }
    unpin_path(&pins.link(hook, ifindex))
}

fn unpin_path(path: &std::path::Path) -> Result<(), KernelError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("unpin {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn pinned(path: &std::path::Path) -> Result<Option<PinnedLink>, KernelError> {
    if !path.exists() {
        return Ok(None);
    }
    PinnedLink::from_pin(path)
        .map(Some)
        .doing(|| format!("open the link {}", path.display()))
}

const fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::TcIngress | Hook::Xdp => TcAttachType::Ingress,
        Hook::TcEgress => TcAttachType::Egress,
    }
}

fn code(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        _ => None,
    }
}

fn interface_gone(error: &ProgramError) -> bool {
    code(error) == Some(libc::ENOLINK)
}

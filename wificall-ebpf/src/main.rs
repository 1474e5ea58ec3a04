//! The BPF programs: one classifier, run at TC ingress, TC egress and XDP.
//!
//! A program stands at one hook of one kind of device and looks in one direction; these are constants of its entry
//! point, so nothing is asked per packet. What the configuration switches off is a load-time constant (`settings`) and
//! is pruned by the verifier.

#![no_std]
#![no_main]

mod account;
mod bleach;
mod catch;
mod companion;
mod direct;
mod flows;
mod gateway;
mod maps;
mod other;
mod policy;
mod settings;
mod snoop;
mod tc;
mod whole;
mod xdp;

/// The kernel lends some helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; a build in which something could is refused by the linker or the verifier.
    loop {}
}

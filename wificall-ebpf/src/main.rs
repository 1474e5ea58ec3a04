#![no_std]
#![no_main]
//! x
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }

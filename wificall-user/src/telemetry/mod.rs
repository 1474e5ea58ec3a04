//! Tunnels and calls, as their flows tell. Everything but `view` is pure: no I/O, `now` is an argument.

pub mod view;

//! What a bypass router is for: each country's tunnels by that country's gateway, everything else as ever, and calls that
//! go on while gateways die, policies change and the agent crashes. Who went where is what captures at each gateway say.

mod call;
mod emergency;
mod failover;
mod forwarded;
mod health;
mod real;
mod reload;
mod translation;
mod who;

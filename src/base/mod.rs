//! L0, the ground floor: time, identities, the stored number, threads, system calls.
//!
//! Nothing here knows about hosts, charts or sockets of the agent.

pub mod time;
pub mod ids;
pub mod number;
pub mod quantity;
pub mod pattern;
pub mod json;
pub mod intern;
pub mod threads;
pub mod sys;
pub mod stats;
pub mod log;
pub mod features;

/// What we tell peers, scrapers and `-V`: the generation whose behaviour we offer, then our own version.
pub const VERSION: &str = concat!("v1.37.1-rs", env!("CARGO_PKG_VERSION"));

/// The program name peers see in the `User-Agent` of a stream.
pub const PROGRAM: &str = "netdata";

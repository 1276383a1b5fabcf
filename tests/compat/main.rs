//! The same behaviour with Debian's real netdata 1.37.1 on either side, and its plugins under our agent.
//!
//! Where it is not installed (`tests/peer.sh` gets it), a test says `skipped:` on standard error and passes.

#[cfg(test)]
#[path = "../daemon/harness.rs"]
mod harness;

#[cfg(test)]
#[path = "../daemon/certificates.rs"]
mod certificates;

#[cfg(test)]
mod api;
#[cfg(test)]
mod health;
#[cfg(test)]
mod nothing_missing;
#[cfg(test)]
mod plugins;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod transport;
#[cfg(test)]
#[path = "../daemon/wire.rs"]
mod wire;

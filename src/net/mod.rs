//! L1: `bind to` and `destination` grammar, dialling, listening, connections.

pub mod connection;
pub mod listen;
pub mod accept;

pub use connection::{Closer, Connection, Peer};

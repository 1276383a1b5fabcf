//! L1: `bind to` and `destination` grammar, dialling, listening, connections.

pub mod buffers;
pub mod connection;
pub mod listen;
pub mod accept;
pub mod destination;
pub mod dial;
pub mod usage;
pub mod tls;

pub use connection::{Closer, Connection, Health, Peer};
pub use destination::{Destination, parse_destinations};
pub use dial::{DialError, dial};
pub use usage::Usage;

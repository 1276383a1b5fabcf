//! L5: receiver sessions, senders with their outbox, choice of parent, streaming status.

pub mod uplink;
pub mod parents;
pub mod path;

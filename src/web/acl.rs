//! Who may do what: the rights a port grants and the lists of netdata.conf that say who gets them.

use bitflags::bitflags;

bitflags! {
    /// What a connection may ask for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        const DASHBOARD = 1;
        const REGISTRY = 2;
        const BADGES = 4;
        const MANAGEMENT = 8;
        const STREAMING = 16;
        const NETDATA_CONF = 32;
    }
}

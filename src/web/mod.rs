//! L6: listeners, HTTP, routes, API, formatters, static files.
//!
//! [`Agent`] is what all of it looks at. Every connection has a thread of its own (`WEB_SERVER[n]`), so a handler may take
//! its time; it never holds a lock while it writes to a client.

use std::sync::Arc;

use crate::base::time::Clock;
use crate::metrics::Hosts;

pub mod http;
pub mod acl;
pub mod api;

/// What handlers see of the running agent.
pub struct Agent {
    pub hosts: Arc<Hosts>,
    pub clock: Clock,
}

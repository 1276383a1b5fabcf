//! L6: listeners, HTTP, routes, API, formatters, static files.

pub mod http;
pub mod acl;

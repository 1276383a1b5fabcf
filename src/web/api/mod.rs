//! The API: which endpoint answers which command, and what every handler gets.
//!
//! A handler is a plain function from a [`Call`] to a [`Response`]; it runs on the thread of its connection, reads only, and
//! takes its locks one after another. Adding an endpoint is one line in a table.

use std::sync::Arc;

use crate::base::time::UnixSeconds;
use crate::metrics::Host;
use crate::wire::http::Query;

use super::Agent;
use super::acl::Rights;
use super::http::{Request, Response};

pub mod many;
pub mod openapi;
pub mod v1;
pub mod v2;
pub mod v3;

/// One request to one endpoint.
pub struct Call<'a> {
    pub agent: &'a Agent,
    /// The host that the path names, else this machine.
    pub host: &'a Arc<Host>,
    pub request: &'a Request,
}

impl Call<'_> {
    pub fn query(&self) -> &Query {
        &self.request.query
    }

    /// Below `/host/X`: only that host is meant. Slashes in front count as one, as they do where the path is taken apart.
    pub fn is_below_host(&self) -> bool {
        self.request.path.trim_start_matches('/').starts_with("host/")
    }

    pub fn now(&self) -> UnixSeconds {
        self.agent.clock.now_seconds()
    }
}

pub type Handler = fn(&Call<'_>) -> Response;

/// A command of the API.
pub struct Endpoint {
    /// The whole rest of the path.
    pub name: &'static str,
    /// The client needs one of these; none at all are needed when empty (the handler checks by itself).
    pub needs: Rights,
    pub handler: Handler,
}

/// An endpoint for whoever may see the dashboard.
pub const fn read(name: &'static str, handler: Handler) -> Endpoint {
    Endpoint { name, needs: Rights::DASHBOARD, handler }
}

/// Whether a path is that of an endpoint; a part of its name in braces stands for anything.
fn is_of(endpoint: &str, path: &str) -> bool {
    if !endpoint.contains('{') {
        return endpoint == path;
    }
    let (mut parts, mut found) = (endpoint.split('/'), path.split('/'));
    loop {
        match (parts.next(), found.next()) {
            (None, None) => return true,
            (Some(part), Some(found)) if part == found => {}
            (Some(part), Some(found)) if part.starts_with('{') && !found.is_empty() => {}
            _ => return false,
        }
    }
}

/// Finds a command and runs it; `None` when there is none of that name.
pub fn dispatch(tables: &[&[Endpoint]], name: &str, call: &Call<'_>) -> Option<Response> {
    let mut all = tables.iter().flat_map(|table| table.iter());
    let endpoint = all.find(|endpoint| is_of(endpoint.name, name))?;
    if !endpoint.needs.is_empty() && !endpoint.needs.intersects(call.request.rights) {
        return Some(Response::forbidden());
    }
    Some((endpoint.handler)(call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_in_braces_stands_for_anything() {
        assert!(is_of("a/{x}/b", "a/c/b") && is_of("a/b", "a/b"));
        for path in ["a/b", "a//b", "a/c/b/", "a/c/d", "a/c/b/d", ""] {
            assert!(!is_of("a/{x}/b", path), "{path}");
        }
    }
}

//! From a path to whoever answers: the API, another host's view, the effective configuration, or a file.
//!
//! Paths are taken apart at slashes, several of them counting as one; what is left for an endpoint's name must match exactly.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::metrics::Host;
use crate::wire::http::{Method, escape_html};

use super::Agent;
use super::acl::Rights;
use super::api::{self, Call, Endpoint, v1, v2, v3};
use super::http::{Kind, Request, Response};
use super::static_files::{self, Known};

/// Whoever has none of these gets nothing but refusals.
const WEB: Rights = Rights::DASHBOARD
    .union(Rights::REGISTRY)
    .union(Rights::BADGES)
    .union(Rights::MANAGEMENT)
    .union(Rights::NETDATA_CONF);

/// A child asks this before it connects, also on a port that only streams.
const STREAM_INFO: &str = "/api/v3/stream_info";

const MANAGE: &str = "/api/v1/manage/health";

pub fn answer(agent: &Agent, request: &Request) -> Response {
    let child_asks = request.rights.contains(Rights::STREAMING)
        && matches!(request.path.as_str(), STREAM_INFO | v1::write::PATH);
    if !request.rights.intersects(WEB) && !child_asks {
        return Response::forbidden();
    }
    if request.method == Method::Options {
        let mut response = Response::text("OK");
        response.kind = Kind::Options;
        return response;
    }
    // What manages has a token of its own.
    if !request.may_read && !child_asks && request.path != MANAGE {
        return Response::token_wanted();
    }
    if request.do_not_track && request.path.ends_with("/api/v1/registry") {
        return Response::error(
            400,
            "Your web browser is sending 'DNT: 1' (Do Not Track). The registry requires persistent cookies on your browser to work.",
        );
    }
    route(agent, agent.hosts.local(), request, &request.path, Depth::Top)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Top,
    /// Below `/host/X`.
    Host,
}

fn route(agent: &Agent, host: &Arc<Host>, request: &Request, path: &str, depth: Depth) -> Response {
    let (first, rest) = segment(path);
    match first {
        "api" => api(&Call { agent, host, request }, rest.unwrap_or("")),
        "host" if depth == Depth::Host => Response::error(400, "Nesting of hosts is not allowed."),
        "host" => of_host(agent, request, rest.unwrap_or("")),
        "netdata.conf" => effective_configuration(agent, request),
        _ => file(agent, request, path),
    }
}

/// The first part of a path, and what follows the slash after it, if there is one.
fn segment(path: &str) -> (&str, Option<&str>) {
    let path = path.trim_start_matches('/');
    match path.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    }
}

fn of_host(agent: &Agent, request: &Request, path: &str) -> Response {
    let (name, rest) = segment(path);
    let found = if name.is_empty() { None } else { agent.hosts.find(name) };
    let Some(host) = found else {
        let message = "This netdata does not maintain a database for host: ";
        return Response::error_about(404, message, name).html();
    };
    match rest {
        Some(rest) => route(agent, &host, request, rest, Depth::Host),
        None => with_a_slash(request),
    }
}

/// Relative links of a page only work below a directory.
fn with_a_slash(request: &Request) -> Response {
    let scheme = if request.https { "https" } else { "http" };
    let origin = request.host.as_ref().map(|host| format!("{scheme}://{host}")).unwrap_or_default();
    let location = match request.target.split_once('?') {
        Some((path, query)) => format!("{origin}{path}/?{query}"),
        None => format!("{origin}{}/", request.target),
    };
    Response::new(308, super::http::ContentType::Html, "Permanent redirect")
        .header("Location", location)
}

fn effective_configuration(agent: &Agent, request: &Request) -> Response {
    if !request.rights.contains(Rights::NETDATA_CONF) {
        return Response::forbidden();
    }
    Response::text(agent.config.render()).public()
}

fn file(agent: &Agent, request: &Request, path: &str) -> Response {
    if !request.rights.contains(Rights::DASHBOARD) {
        return Response::forbidden();
    }
    if path.trim_start_matches('/').is_empty() {
        agent.usage.used.dashboard.fetch_add(1, Ordering::Relaxed);
    }
    let known =
        Known { tags: request.known_tags.as_deref(), since: request.known_since.as_deref() };
    static_files::serve(&agent.options.directory, path, known)
}

fn api(call: &Call<'_>, path: &str) -> Response {
    let (version, rest) = segment(path);
    // The rest has to be a command's name to the last character, with no slash before it.
    let command = rest.unwrap_or("");
    let posted = call.request.method == Method::Post;
    let tables = if posted { v1::WRITES } else { v1::TABLES };
    match version {
        "" => Response::error(400, "Which API version?"),
        "openapi.json" if rest.is_none() => description(call),
        "v1" if command.is_empty() => Response::error(400, "Which API v1 command?"),
        "v1" => api::dispatch(tables, command, call)
            .unwrap_or_else(|| Response::error_about(404, "Unsupported v1 API command: ", command)),
        "v2" | "v3" if command.is_empty() => Response::error(400, "Which API command?"),
        "v2" => api::dispatch(v2::TABLES, command, call)
            .unwrap_or_else(|| no_command(v2::TABLES, command)),
        "v3" => api::dispatch(v3::TABLES, command, call)
            .unwrap_or_else(|| no_command(v3::TABLES, command)),
        other => Response::error_about(404, "Unsupported API version: ", other).html(),
    }
}

/// The interface, for whoever may see what it gives.
fn description(call: &Call<'_>) -> Response {
    if !call.request.rights.contains(Rights::DASHBOARD) {
        return Response::forbidden();
    }
    api::openapi::document()
}

/// Release 2 tells a command it does not know from one that has no parts.
fn no_command(tables: &[&[Endpoint]], path: &str) -> Response {
    let (first, rest) = segment(path);
    let known = tables.iter().flat_map(|table| table.iter()).any(|endpoint| endpoint.name == first);
    if known && rest.is_some() && !path.starts_with('/') {
        let name = escape_html(first);
        let text = format!("API command '{name}' does not support subpaths.");
        return Response::error(400, text);
    }
    Response::error_about(404, "Unsupported API command: ", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_in_front_count_as_one() {
        assert_eq!(segment("//api/v1"), ("api", Some("v1")));
        assert_eq!(segment("api"), ("api", None));
        assert_eq!(segment("/host/"), ("host", Some("")));
        assert_eq!(segment(""), ("", None));
    }
}

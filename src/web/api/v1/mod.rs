//! `/api/v1`: the interface of every dashboard, scraper and script written for Netdata.

use super::{Endpoint, read};
use crate::web::acl::Rights;
use crate::web::management;

pub mod info;
pub mod data;
pub mod charts;
pub mod contexts;
pub mod allmetrics;
pub mod badge;
pub mod weights;
pub mod registry;
pub mod alarms;
pub mod functions;
pub mod write;
pub mod prometheus;
mod rest;

/// Where a command is looked for, in this order.
pub const TABLES: &[&[Endpoint]] = &[AGENT, READS, prometheus::ENDPOINTS];

/// What takes a body. It is no part of the description, which is about reading.
pub const WRITES: &[&[Endpoint]] = &[
    &[Endpoint { name: "write", needs: Rights::STREAMING, handler: write::write }],
    prometheus::ENDPOINTS,
];

/// The agent's own commands.
const AGENT: &[Endpoint] = &[
    read("info", info::info),
    Endpoint {
        name: "registry",
        needs: Rights::DASHBOARD.union(Rights::REGISTRY),
        handler: registry::registry,
    },
    read("alarms", alarms::alarms),
    read("alarms_values", alarms::alarms_values),
    read("alarm_count", alarms::alarm_count),
    read("alarm_log", alarms::alarm_log),
    read("alarm_variables", alarms::alarm_variables),
    Endpoint { name: "manage/health", needs: Rights::MANAGEMENT, handler: management::health },
    read("functions", functions::functions),
    read("function", functions::function),
    read("aclk", rest::aclk),
    read("dbengine_stats", rest::dbengine_stats),
    read("archivedcharts", rest::archived_charts),
];

/// Commands that read samples and charts: `charts`, `chart`, `data`, `contexts`, `context`, `allmetrics`, `badge.svg`, `weights`, …
const READS: &[Endpoint] = &[
    read("data", data::data),
    read("charts", charts::charts),
    read("chart", charts::chart),
    read("contexts", contexts::contexts),
    read("context", contexts::context),
    read("allmetrics", allmetrics::allmetrics),
    read("weights", weights::weights),
    read("metric_correlations", weights::metric_correlations),
    Endpoint {
        name: "badge.svg",
        needs: Rights::DASHBOARD.union(Rights::BADGES),
        handler: badge::badge,
    },
];

#[cfg(test)]
pub(crate) mod samples {
    //! Requests to endpoints without a server, about a host with a short past.

    use std::sync::Arc;

    use crate::base::time::{Clock, UnixMicros};
    use crate::metrics::Hosts;
    use crate::net::Peer;
    use crate::query::run::samples::{T0, host};
    use crate::web::Agent;
    use crate::web::acl::Rights;
    use crate::web::api::{Call, Handler};
    use crate::web::http::{Request, Response};
    use crate::wire::http::{Method, Query};

    /// The answer of `handler` to `query`, asked 5000 seconds after the first sample.
    pub(crate) fn ask(handler: Handler, query: &str) -> Response {
        ask_at(handler, query, 5000)
    }

    pub(crate) fn ask_at(handler: Handler, query: &str, second: i64) -> Response {
        ask_with(handler, query, second, |_| {})
    }

    /// The same of an agent that is changed before.
    pub(crate) fn ask_with(
        handler: Handler,
        query: &str,
        second: i64,
        change: impl FnOnce(&mut Agent),
    ) -> Response {
        let mut agent = agent(second);
        change(&mut agent);
        ask_of(handler, &agent, query, |_| {})
    }

    /// An agent so many seconds after its first sample.
    pub(crate) fn agent(second: i64) -> Agent {
        let clock = Clock::manual(UnixMicros((T0 + second) * 1_000_000));
        Agent::sample(Hosts::new(host()), clock)
    }

    /// The answer of such an agent to a request that is changed before.
    pub(crate) fn ask_of(
        handler: Handler,
        agent: &Agent,
        query: &str,
        change: impl FnOnce(&mut Request),
    ) -> Response {
        handle(handler, agent, "/api/v1/x", query, change)
    }

    /// The same below that path, without a question.
    pub(crate) fn ask_below(handler: Handler, path: &str) -> Response {
        let clock = Clock::manual(UnixMicros(T0 * 1_000_000));
        handle(handler, &Agent::sample(Hosts::new(host()), clock), path, "", |_| {})
    }

    fn handle(
        handler: Handler,
        agent: &Agent,
        path: &str,
        query: &str,
        change: impl FnOnce(&mut Request),
    ) -> Response {
        let mut request = Request {
            method: Method::Get,
            path: path.into(),
            query: Query::parse(query.as_bytes()).unwrap(),
            target: "/api/v1/x".into(),
            peer: Peer::unix(),
            rights: Rights::all(),
            may_read: true,
            host: None,
            https: false,
            auth_token: None,
            do_not_track: false,
            known_tags: None,
            known_since: None,
            person: None,
            accept: None,
            authorization: None,
            content_type: None,
            body: Vec::new(),
            client: None,
        };
        change(&mut request);
        let host = Arc::clone(agent.hosts.local());
        handler(&Call { agent, host: &host, request: &request })
    }

    pub(crate) fn text(response: &Response) -> String {
        String::from_utf8(response.body.bytes().to_vec()).unwrap()
    }

    /// The document of a 200.
    #[track_caller]
    pub(crate) fn json(response: &Response) -> serde_json::Value {
        assert_eq!(response.status, 200, "{}", text(response));
        serde_json::from_slice(&response.body.bytes()).unwrap()
    }
}

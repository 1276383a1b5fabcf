//! `/api/v2`, whose commands `/api/v3` has too: questions about all hosts at once, answered in one envelope.

use super::{Endpoint, read, v1};
use crate::web::acl::Rights;

pub mod envelope;
pub mod standing;
pub mod nodes;
pub mod instances;
pub mod contexts;
pub mod data;
pub mod rest;
pub mod transitions;

pub use self::instances::handshake;

pub const TABLES: &[&[Endpoint]] = &[COMMANDS];

pub const COMMANDS: &[Endpoint] = &[
    read("info", instances::info),
    read("nodes", nodes::nodes),
    read("node_instances", instances::node_instances),
    read("contexts", contexts::contexts),
    read("q", contexts::search),
    read("data", data::data),
    read("functions", rest::functions),
    read("function", v1::functions::function),
    read("alerts", rest::alerts),
    read("alert_transitions", transitions::alert_transitions),
    read("versions", rest::versions),
    read("weights", v1::weights::weights),
];

/// What only `/api/v3` has beside them.
pub const LATER: &[Endpoint] = &[
    read("stream_path", nodes::stream_path),
    read("allmetrics", v1::allmetrics::allmetrics),
    Endpoint {
        name: "badge.svg",
        needs: Rights::DASHBOARD.union(Rights::BADGES),
        handler: v1::badge::badge,
    },
];

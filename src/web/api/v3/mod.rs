//! `/api/v3`: what newer agents and dashboards ask. So far what a child of release 2 asks before it connects.

use super::Endpoint;
use crate::web::acl::Rights;

pub mod stream_info;

pub const TABLES: &[&[Endpoint]] = &[&[
    // No list and no port keeps a child from asking.
    Endpoint { name: "stream_info", needs: Rights::empty(), handler: stream_info::stream_info },
]];

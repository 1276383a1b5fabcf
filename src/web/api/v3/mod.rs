//! `/api/v3`: what agents and dashboards of release 2 ask: the commands of `/api/v2`, and what a child asks before it connects.

use super::{Endpoint, v2};
use crate::web::acl::Rights;

pub mod stream_info;

pub const TABLES: &[&[Endpoint]] = &[OWN, v2::COMMANDS, v2::LATER];

const OWN: &[Endpoint] = &[
    // No list and no port keeps a child from asking.
    Endpoint { name: "stream_info", needs: Rights::empty(), handler: stream_info::stream_info },
];

//! `/api/v1`: the interface of every dashboard, scraper and script written for Netdata.

use super::{Endpoint, read};

pub mod info;

/// The agent's own commands.
pub const AGENT: &[Endpoint] = &[read("info", info::info)];

/// Commands that read samples and charts: `charts`, `chart`, `data`, `contexts`, `context`, `allmetrics`, `badge.svg`, `weights`, …
pub const READS: &[Endpoint] = &[];

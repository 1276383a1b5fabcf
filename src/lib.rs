//! netdata-rs: metrics streaming, storage and serving, as one synchronous, thread-per-connection agent.
//!
//! The directories are the layers; a module imports only from layers below its own
//! (`tests/architecture.rs` fails otherwise). From top to bottom:
//!
//! | layer | module | job |
//! |---|---|---|
//! | L7 | [`daemon`] | command line, start and stop order, signals, identity, `netdatacli` |
//! | L6 | [`web`] | listeners, HTTP, routes, API, formatters, static files |
//! | L5 | [`stream`] | receivers, senders, choice of parent, streaming status |
//! | L5 | [`health`] | alarms |
//! | L5 | [`exporting`] | our samples in other databases |
//! | L5 | [`promql`] | expressions over all samples, as Prometheus answers them |
//! | L4 | [`ingest`] | the one executor of PLUGINSD commands, plugin processes, internal collectors |
//! | L4 | [`query`] | reads samples: time grouping, points, selection |
//! | L3 | [`metrics`] | hosts, charts, dimensions, collection arithmetic |
//! | L2 | [`storage`] | where samples live |
//! | L1 | [`wire`], [`net`], [`config`] | bytes to values, sockets, options |
//! | L0 | [`base`] | time, ids, numbers, patterns, threads, log |
//!
//! `docs/ARCHITECTURE.md` has the thread map, the lock table and the invariants.

pub mod base;

pub mod config;
pub mod net;
pub mod wire;

pub mod storage;
pub mod metrics;

pub mod ingest;
pub mod query;

pub mod stream;
pub mod health;
pub mod exporting;
pub mod promql;

pub mod web;

pub mod daemon;

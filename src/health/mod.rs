//! L5: alarms. Files of health.d become definitions, definitions become alarms of charts, alarms change their status and
//! somebody is told.
//!
//! [`grammar`] and [`expression`] read, [`alarm`] decides, all three without a thread, a clock or a chart; [`linked`] ties them
//! to the charts of a host; [`engine`] evaluates, on thread `HEALTH`; [`notify`] runs programs, on thread `HEALTH[notify]`;
//! [`log`] keeps what happened. Samples are read through `query`, and nothing here makes a collector wait.

pub mod expression;
pub mod grammar;
pub mod alarm;
pub mod linked;
pub mod silencers;
pub mod log;
pub mod notify;
pub mod text;
pub mod engine;
pub mod check;
#[cfg(test)]
mod tests;

pub use self::engine::{Cluster, Health, Options, Presence, Watched};

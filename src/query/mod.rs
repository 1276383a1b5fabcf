//! L4: reads samples: selection, grouping over time, points. Never writes, never waits for a collector.
//!
//! A query is resolved in pure steps: which metrics ([`select`]), which rows ([`window`]), how the samples of a row
//! become a number ([`group`], [`rows`]). Only [`run`] touches storage. Everything a client can ask for is bounded.

pub mod options;
pub mod window;
pub mod tiers;
pub mod group;
pub mod rows;
pub mod answer;
pub mod select;
pub mod run;
pub mod lookup;
pub mod weights;
pub mod raw;

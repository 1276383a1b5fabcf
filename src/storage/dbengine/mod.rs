//! Engine `dbengine`: all hosts of an agent in one store, compressed, tiered, safe against crashes.
//!
//! A sample goes into a row of a mapped hot block ([`hot`]), or, when its row is closed already, into the late log
//! ([`late`]). Sealed blocks and late samples become segments ([`segment`]), pages of one metric each, which are merged
//! into larger ones as they grow in number and deleted, oldest first, when a tier holds too much ([`store`]). Higher
//! tiers are derived from the tier below whenever a span of it is written ([`derive`], [`tiers`]), so a hole that is filled later is
//! filled on every tier. The catalog ([`catalog`]) says what the numbers stand for, so a copy of the directories is a
//! complete store. Nothing here assumes that time goes forward.
//!
//! Every file is described byte by byte in `docs/formats/dbengine.md`, with its recovery rule.
//!
//! Threads: `DBENGINE[seal]` seals rows and hands late samples to the kernel; `DBENGINE[sync]` puts what is written on the
//! disk, however long that takes; `DBENGINE[flush]` makes, merges and deletes segments. Writers and readers run on their callers' threads and wait for neither.

mod backfill;
pub mod codec;
pub mod catalog;
pub mod files;
mod fresh;
mod hot;
mod late;
mod late_log;
pub(crate) mod names;
mod runs;
mod segment;
mod store;
mod derive;
mod tiers;

pub use self::store::{Settings, Store, StoreError, TierSettings, TierStats};

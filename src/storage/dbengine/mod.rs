//! Engine `dbengine`: all hosts of an agent in one store, compressed, tiered, safe against crashes.

pub mod codec;
pub mod catalog;
pub mod files;
mod segment;
mod hot;

//! L1: bytes to values and back. No sockets, no clock, no threads.
//!
//! Readers borrow from the bytes they are given and never allocate on the data path; writers append to a buffer the
//! caller keeps. Everything read here comes from peers: bounded, and never a reason to panic.

pub mod words;
pub mod numbers;
pub mod caps;
pub mod compression;
pub mod handshake;
pub mod pluginsd;
pub mod json;
pub mod http;
pub mod remote_write;
pub mod write_request;

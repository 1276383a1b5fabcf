//! Functions: what a host offers to be asked, and who answers.
//!
//! A plugin or a connected child registers a [`Function`] with the [`FunctionProvider`] that can run it. Calling is
//! asynchronous: the provider takes the call and gives the answer to its callback, from whatever thread has it.

use std::sync::Arc;
use std::time::Duration;

/// Functions one host may offer.
pub const FUNCTIONS_MAX: usize = 4096;

pub struct Function {
    pub name: Arc<str>,
    /// The chart it belongs to; `None` = the whole host.
    pub chart: Option<Arc<str>>,
    pub help: Arc<str>,
    pub tags: Arc<str>,
    pub timeout: Duration,
    /// Permission bitmap as announced.
    pub access: u32,
    pub priority: i64,
    pub version: u32,
    pub provider: Arc<dyn FunctionProvider>,
}

pub struct FunctionCall {
    /// Name and parameters as typed.
    pub command: String,
    pub timeout: Duration,
    /// Called exactly once.
    pub answer: Box<dyn FnOnce(FunctionAnswer) + Send>,
}

pub struct FunctionAnswer {
    /// HTTP status.
    pub code: u16,
    pub content_type: String,
    /// Unix seconds until which the answer may be kept; in the past = not at all.
    pub expires: i64,
    pub body: Vec<u8>,
}

pub trait FunctionProvider: Send + Sync {
    fn call(&self, call: FunctionCall);

    /// False once the plugin or child behind it is gone.
    fn is_alive(&self) -> bool;
}

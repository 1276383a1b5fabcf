//! L5: PromQL: expressions over all samples this agent keeps, as Prometheus answers them.
//!
//! A query is parsed ([`parse`]), then walked from its leaves up, every part of it at all steps at once ([`eval`]). A selector asks its
//! [`Source`] for series and reads one after the other, so that no more than one series' samples are in memory beside the values at
//! the steps. [`store`] is the source that reads the hosts of this agent; which names and labels their series have is said in
//! [`crate::exporting`], as remote write sends the same. Semantics are those of Prometheus 2: windows are closed at both ends.
//!
//! No threads, no locks of its own. Everything is bounded ([`Limits`]): text, series, samples read, time, values held by a query and
//! by all queries ([`budget`]).

pub mod labels;
pub mod parse;
pub mod budget;
pub mod value;
pub mod eval;
pub mod store;
pub mod calendar;
mod aggregate;
mod binary;
mod functions;
mod histogram;
mod windows;

use promql_parser::label::Matcher;

use self::budget::{BUDGET, Budget};
use self::labels::Labels;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The query is wrong.
    #[error("{0}")]
    Parse(String),
    /// The query cannot be answered with these samples, or asks for too much.
    #[error("{0}")]
    Execution(String),
    #[error("query timed out in expression evaluation")]
    TimedOut,
    #[error("other queries hold as much as all together may, ask again")]
    Busy,
}

impl Error {
    pub(crate) fn execution(text: impl Into<String>) -> Error {
        Error::Execution(text.into())
    }

    pub(crate) fn same_labels() -> Error {
        Error::execution("vector cannot contain metrics with the same labelset")
    }
}

/// What a query may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Series of one selector.
    pub series: usize,
    /// Samples read, all selectors together.
    pub samples: u64,
    /// Values held at once by all parts of the expression, and samples of one series.
    pub values: usize,
    /// What all queries together may hold.
    pub budget: &'static Budget,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { series: 50_000, samples: 200_000_000, values: 8_000_000, budget: &BUDGET }
    }
}

/// Matchers that all have to hold; a series is selected when those of any alternative do.
pub type Alternatives = Vec<Vec<Matcher>>;

pub fn matches(alternatives: &Alternatives, labels: &Labels) -> bool {
    let holds = |matcher: &Matcher| matcher.is_match(labels.get(&matcher.name));
    alternatives.iter().any(|all| all.iter().all(holds))
}

/// The samples of one series.
pub trait Samples {
    /// Adds those of `from..=to`, in milliseconds and in order of time.
    fn read(&self, from_ms: i64, to_ms: i64, out: &mut Vec<(i64, f64)>);
}

/// A series that may have samples in the time asked for.
pub struct Stored {
    pub labels: Labels,
    pub samples: Box<dyn Samples>,
    /// It was said to be over: after this time its last sample stands for nothing.
    pub over_ms: Option<i64>,
}

/// Where series come from.
pub trait Source {
    /// Series with samples in `from..=to` (milliseconds), in the order of their labels, no two with the same.
    fn select(
        &self,
        wanted: &Alternatives,
        span_ms: (i64, i64),
        limits: &Limits,
        expired: &dyn Fn() -> bool,
    ) -> Result<Vec<Stored>, Error>;
}

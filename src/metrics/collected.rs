//! What an internal collector holds for one of its charts: set values, then `done`; nothing is allocated or looked up
//! in between.

use std::sync::Arc;

use super::chart::{Chart, ChartSpec};
use super::collect::{SinceLast, Staged};
use super::dimension::{Algorithm, DimensionSpec};
use super::host::Host;
use crate::base::time::UnixMicros;

/// A dimension of a [`Collected`] chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim(u32);

pub struct Collected {
    chart: Arc<Chart>,
    staged: Vec<Staged>,
}

impl Collected {
    /// Defines the chart; `None`, with an error line, when the host cannot take another one.
    pub fn new(host: &Host, spec: &ChartSpec<'_>) -> Option<Collected> {
        match host.define_chart(spec) {
            Ok(chart) => Some(Collected { chart, staged: Vec::new() }),
            Err(error) => {
                log::error!("cannot collect chart '{}': {error}", spec.id);
                None
            }
        }
    }

    pub fn dimension(
        &mut self,
        id: &str,
        algorithm: Algorithm,
        multiplier: i64,
        divisor: i64,
    ) -> Dim {
        self.define(&DimensionSpec::plain(id, algorithm, multiplier, divisor))
    }

    pub fn define(&mut self, spec: &DimensionSpec<'_>) -> Dim {
        match self.chart.define_dimension(spec) {
            Ok(index) => {
                let wanted = index as usize + 1;
                if self.staged.capacity() < wanted {
                    self.staged.reserve_exact(wanted - self.staged.len());
                }
                Dim(index)
            }
            Err(error) => {
                log::error!(
                    "cannot collect dimension '{}' of '{}': {error}",
                    spec.id,
                    self.chart.id()
                );
                Dim(u32::MAX)
            }
        }
    }

    pub fn set(&mut self, dim: Dim, value: i64) {
        self.staged.push(Staged { dim: dim.0, value });
    }

    /// Sets the first dimensions, in the order in which they were defined.
    pub fn set_first(&mut self, values: &[i64]) {
        self.staged.extend(values.iter().zip(0u32..).map(|(&value, dim)| Staged { dim, value }));
    }

    /// Ends the collection of this tick at `now`.
    pub fn done(&mut self, now: UnixMicros) {
        self.chart.complete(&self.staged, SinceLast::Clock, now);
        self.staged.clear();
    }

    /// As [`Collected::done`], where the collector measured the time since its last tick itself.
    pub fn done_after(&mut self, since_us: i64, now: UnixMicros) {
        self.chart.complete(&self.staged, SinceLast::Plugin(since_us), now);
        self.staged.clear();
    }

    pub fn chart(&self) -> &Arc<Chart> {
        &self.chart
    }

    /// The thing behind the chart is gone.
    pub fn obsolete(&self) {
        self.chart.mark_obsolete();
    }
}

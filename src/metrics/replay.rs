//! Replicated samples: slots that a peer stored earlier, put into the past of a chart.
//!
//! They go to the dimensions' writers alone, never to the host's [`super::Tap`]: a chart is passed on upstream only after its
//! own past is complete here, and then from what is stored. Runs on the caller's thread under the chart's lock.

use super::chart::{Chart, ChartState};
use super::collect::Point;
use crate::base::number::Sample;
use crate::base::time::{UnixMicros, UnixSeconds};

/// How a dimension stood at the child after the last replicated slot, so that raw values may go on from there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DimensionReplay {
    /// Index into the chart's dimensions.
    pub dim: u32,
    /// Microseconds since 1970; 0 = never.
    pub last_collected_us: i64,
    pub last_collected: i64,
    pub last_calculated: f64,
}

impl Chart {
    /// Stores one replicated slot.
    pub fn store_replicated(&self, point: &Point<'_>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        self.change_update_every(state, point.every);
        let end = point.end.floor_to(point.every);
        for set in point.values {
            let Some(dim) = state.dims.get_mut(set.dim as usize) else { continue };
            let sample = Sample::pack(set.value, set.flags);
            if !sample.is_empty() {
                dim.writer.store(end, sample);
            }
            if end >= state.last_updated {
                dim.latest = set.value;
            }
        }
        state.counter += 1;
        state.counter_done += 1;
        if end > state.last_updated {
            state.last_updated = end;
            state.last_collected = end.micros();
        }
    }

    /// Takes over how a dimension stood, if that is newer than what is known.
    pub fn restore_dimension(&self, replay: &DimensionReplay) {
        let mut state = self.lock();
        if let Some(dim) = state.dims.get_mut(replay.dim as usize)
            && replay.last_collected_us > dim.last_collected_us
        {
            dim.last_collected_us = replay.last_collected_us;
            dim.collected = replay.last_collected;
            dim.last_collected = replay.last_collected;
            dim.collected_max = dim.collected_max.max(replay.last_collected.unsigned_abs());
            dim.last_calculated = replay.last_calculated;
            dim.collections = dim.collections.max(2);
        }
    }

    /// Takes over when the chart was collected and stored last, if that is newer than what is known.
    pub fn restore_times(&self, last_collected: UnixMicros, last_updated: UnixSeconds) {
        let mut state = self.lock();
        if last_collected > state.last_collected {
            state.last_collected = last_collected;
        }
        if last_updated > state.last_updated {
            state.last_updated = last_updated;
        }
        if state.last_collected.0 > 0 {
            state.sync_clock = false;
        }
    }
}

impl ChartState {
    /// First and last slot a parent may ask for, `(0, 0)` if there is none. `now` bounds the last.
    pub fn offered(&self, now: UnixSeconds) -> (UnixSeconds, UnixSeconds) {
        let never = UnixSeconds(0);
        let (first, last) = self.retention().unwrap_or((never, self.last_updated));
        let last = last.max(self.last_updated).min(now);
        if last == never {
            return (never, never);
        }
        let first = if first == never || first >= last {
            last - self.meta.update_every.seconds()
        } else {
            first
        };
        (first, last)
    }
}

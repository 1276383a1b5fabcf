//! Replicated samples: slots that a peer stored earlier, put into the past of a chart.
//!
//! They go to the dimensions' writers alone: a chart is passed on upstream only after its own past is complete here, and then
//! from what is stored. Where nothing is stored the parent's requests are passed on to the child, and the answers go up
//! through the host's [`super::Tap`]. Runs on the caller's thread under the chart's lock.

use super::chart::{Chart, ChartState, Neighbour, Relayed};
use super::collect::Point;
use crate::base::number::Sample;
use crate::base::time::{UnixMicros, UnixSeconds};
use crate::wire::pluginsd::ReplayEnd;

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
    /// Stores one replicated slot. `raw`: what is live of the chart are collected values, which go on from where it stands,
    /// so that a slot that comes while it is live must not move it. False when the slot has no place, being of a time when the
    /// chart had another interval.
    pub fn store_replicated(&self, point: &Point<'_>, raw: bool) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.replicating || state.last_updated.0 == 0 {
            self.change_update_every(state, point.every);
        } else if state.meta.update_every != point.every {
            // It cannot stand among those of now.
            return false;
        }
        let end = point.end.floor_to(point.every);
        // What is older than the newest collection changes nothing about where the chart stands.
        let stands = raw && !state.replicating && state.last_updated.0 != 0;
        let newest = !stands && end > state.last_updated && end.micros() > state.last_collected;
        for set in point.values {
            let Some(dim) = state.dims.get_mut(set.dim as usize) else { continue };
            let sample = Sample::pack(set.value, set.flags);
            if !sample.is_empty() {
                dim.writer.store(end, sample);
            }
            if newest {
                dim.latest = set.value;
            }
        }
        state.counter += 1;
        state.counter_done += 1;
        state.past_version += 1;
        if newest {
            state.last_updated = end;
            state.last_collected = end.micros();
        }
        if state.upstream.relaying
            && let Some(tap) = self.host.tap()
        {
            tap.relayed(self, state, Relayed::Slot(point));
        }
        true
    }

    /// A block of replicated slots is complete.
    pub fn end_replication(&self, end: &ReplayEnd) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let caught_up = end.start && std::mem::replace(&mut state.replicating, false);
        // An answer to a node that keeps nothing says nothing of what is held: what the definition said stays.
        if state.downstream.is_some() && end.last != 0 {
            state.downstream = Some((UnixSeconds(end.first), UnixSeconds(end.last)));
        }
        let Some(tap) = self.host.tap() else { return };
        if std::mem::replace(&mut state.upstream.relaying, false) {
            tap.relayed(self, state, Relayed::End(end));
        }
        if caught_up {
            tap.caught_up(self, state);
        }
    }

    /// The past of the chart is as complete as that peer can make it; `brought`: something was added to it.
    pub fn end_filling(&self, from: Neighbour, brought: bool) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.filling.set(from, false);
        let Some(tap) = self.host.tap() else { return };
        tap.caught_up(self, state);
        if brought {
            tap.filled(self, state);
        }
    }

    /// Takes over how a dimension stood, if that is newer than what is known and nothing is live of it yet.
    pub fn restore_dimension(&self, replay: &DimensionReplay) {
        let mut state = self.lock();
        if state.replicating
            && let Some(dim) = state.dims.get_mut(replay.dim as usize)
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

    /// The same of when the chart was collected and stored last.
    pub fn restore_times(&self, last_collected: UnixMicros, last_updated: UnixSeconds) {
        let mut state = self.lock();
        if !state.replicating {
            return;
        }
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
    /// Where what is held begins and ends, `(0, 0)` if there is nothing. The beginning is that of the first slot, not its
    /// end: a parent asks for what comes after it.
    pub fn held(&self) -> (UnixSeconds, UnixSeconds) {
        let never = UnixSeconds(0);
        let every = self.meta.update_every.seconds();
        let (first, last) = match self.downstream {
            Some((first, last)) if first != never => (first, last),
            _ => match self.retention() {
                Some((first, last)) => (first - every, last),
                None => (never, never),
            },
        };
        let last = last.max(self.last_updated);
        if last == never {
            return (never, never);
        }
        if first == never || first >= last { (last - every, last) } else { (first, last) }
    }

    /// What a parent is told of that: nobody has samples of the future.
    pub fn offered(&self, now: UnixSeconds) -> (UnixSeconds, UnixSeconds) {
        let (first, last) = self.held();
        if last <= now {
            return (first, last);
        }
        let every = self.meta.update_every.seconds();
        (first.min(now - every), now)
    }
}

//! From collected values to slots: the arithmetic of the databases specification, section 3.
//!
//! Two ways in. [`Chart::complete`] takes the raw values of one BEGIN..END round, computes each dimension's value and
//! interpolates it onto whole slots. [`Chart::store_point`] takes a slot's final values as a peer interpolated them and
//! stores them untouched. Either way the samples end in the dimensions' writers and the host's [`Tap`].
//!
//! Runs on the caller's thread under the chart's lock; asks no clock; allocates nothing.

use super::chart::{Chart, ChartOptions, ChartState};
use super::dimension::{Algorithm, Dimension, DimensionOptions};
use crate::base::number::{Sample, SampleFlags};
use crate::base::stats::STATS;
use crate::base::time::{UnixMicros, UnixSeconds, UpdateEvery};

/// A value waiting for its END.
#[derive(Clone, Copy, Debug)]
pub struct Staged {
    /// Index into the chart's dimensions.
    pub dim: u32,
    pub value: i64,
}

/// Time since the previous collection of a chart, as BEGIN gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinceLast {
    /// Not given: the clock decides.
    Clock,
    /// Microseconds from a plugin: used unless the clock says they cannot be right.
    Plugin(i64),
    /// Microseconds from a streaming child: used as they are.
    Stream(i64),
}

/// One slot with final values.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// End of the slot.
    pub end: UnixSeconds,
    pub every: UpdateEvery,
    pub values: &'a [PointValue],
}

#[derive(Clone, Copy, Debug)]
pub struct PointValue {
    /// Index into the chart's dimensions.
    pub dim: u32,
    /// The last raw value behind it.
    pub collected: i64,
    /// NaN = an explicit gap.
    pub value: f64,
    pub flags: SampleFlags,
}

/// A counter that falls by more than this share of its range was reset; by less, it wrapped.
const WRAP_PERCENT: u64 = 10;

/// Without a ring to measure against, a jump over this many slots starts the chart afresh.
const JUMP_SLOTS_MAX: i64 = 1024;

/// A plugin's duration is believed unless the chart is more than this many intervals behind the clock.
const BELIEVE_INTERVALS: i64 = 5;

impl Chart {
    /// Ends one collection: applies `staged`, computes, stores the slots that are now complete.
    pub fn complete(&self, staged: &[Staged], since: SinceLast, now: UnixMicros) {
        let mut state = self.lock();
        self.stage(&mut state, staged);
        self.finish(&mut state, since, now);
    }

    /// Keeps values for the next END without ending the collection.
    pub fn stage(&self, state: &mut ChartState, staged: &[Staged]) {
        for set in staged {
            let Some(dim) = state.dims.get_mut(set.dim as usize) else { continue };
            dim.collected = set.value;
            dim.collected_max = dim.collected_max.max(set.value.unsigned_abs());
            dim.collections = dim.collections.saturating_add(1);
            dim.updated = true;
        }
    }

    fn finish(&self, state: &mut ChartState, since: SinceLast, now: UnixMicros) {
        let every = state.meta.update_every;
        let slot_us = every.micros();
        let store_first = state.meta.options.contains(ChartOptions::STORE_FIRST);
        self.revive(state);

        // Where this collection and the one before it lie in time.
        let mut first_entry = false;
        let mut from_us;
        let since_us;
        if state.last_collected.0 == 0 {
            let aligned = now.seconds().floor_to(every).micros();
            state.last_collected = if store_first { aligned } else { aligned + 500_000 };
            since_us = slot_us;
            from_us = state.last_collected.0 - slot_us;
            first_entry = true;
        } else {
            since_us = state.elapsed(since, now);
            from_us = state.last_collected.0;
            state.last_collected = state.last_collected + since_us;
            let limit = match self.host.engine.entries() {
                entries @ 6.. => i64::from(entries),
                _ => JUMP_SLOTS_MAX,
            } * slot_us;
            let behind = state.last_collected - state.last_updated.micros();
            if since_us > limit || (state.last_updated.0 != 0 && behind > limit) {
                log::info!(
                    "host '{}', chart '{}': too old data (last updated at {}, last collected at {}). Resetting it. Will not store the next entry.",
                    self.host.hostname(),
                    self.id(),
                    state.last_updated,
                    state.last_collected.seconds()
                );
                state.forget_collections();
                first_entry = true;
            }
        }
        if state.last_updated.0 == 0 {
            let aligned = state.last_collected.seconds().floor_to(every);
            state.last_updated = if store_first { aligned - every.seconds() } else { aligned };
            first_entry = true;
        }
        let mut store_this = !first_entry;
        let mut next = state.last_updated.floor_to(every) + every.seconds();
        if state.counter_done == 0 && store_first {
            store_this = true;
            from_us = next.micros().0 - slot_us;
        }
        state.counter_done += 1;

        let reset_seen = state.calculate();

        // Store every slot that ends at or before this collection.
        let until_us = state.last_collected.0;
        let mut remaining = if next.micros().0 <= until_us {
            (until_us - next.micros().0) / slot_us + 1
        } else {
            0
        };
        let empty_from = self.host.gap_when_lost + 2;
        if remaining >= empty_from {
            // All of these are gaps: spend their share at once and leave the holes to the writers.
            let skipped = remaining - (empty_from - 1);
            let last_skipped = next + (skipped - 1) * every.seconds();
            for dim in &mut state.dims {
                dim.spend(last_skipped, from_us, until_us);
            }
            state.counter += skipped.unsigned_abs();
            from_us = last_skipped.micros().0;
            state.last_updated = last_skipped;
            next = last_skipped + every.seconds();
            remaining -= skipped;
        }
        let tap = self.host.tap.read();
        let mut reset_here = reset_seen;
        while remaining > 0 {
            for dim in &mut state.dims {
                let value = dim.value_at(next, from_us, until_us, remaining == 1, every);
                let stored = store_this && dim.updated && dim.collections > 1;
                dim.latest = if stored { value } else { f64::NAN };
                dim.current = if stored {
                    let reset = reset_here && dim.algorithm_resets();
                    Sample::pack(value, SampleFlags { anomalous: false, reset })
                } else {
                    Sample::EMPTY
                };
                // Nothing is a slot too: all dimensions of a chart begin at the same time.
                dim.writer.store(next, dim.current);
            }
            reset_here = false;
            STATS.points_stored.add(state.dims.len() as u64);
            state.counter += 1;
            state.last_updated = next;
            if let Some(tap) = &*tap {
                tap.slot(self, state, next);
            }
            from_us = next.micros().0;
            next = next + every.seconds();
            remaining -= 1;
        }
        if let Some(tap) = &*tap {
            tap.collected(self, state, since_us);
        }
        drop(tap);

        let collected_at = state.last_collected.0;
        for dim in state.dims.iter_mut().filter(|dim| dim.updated) {
            dim.last_collected = dim.collected;
            dim.last_collected_us = collected_at;
            dim.last_calculated = match dim.algorithm {
                Algorithm::Incremental if first_entry => dim.last_calculated,
                Algorithm::Incremental => dim.last_calculated + dim.calculated,
                _ => dim.calculated,
            };
            dim.calculated = 0.0;
            dim.updated = false;
        }
    }

    /// Stores one slot of final values as they are; slots may come in any order of time. Dimensions not named keep a gap.
    pub fn store_point(&self, point: &Point<'_>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        self.change_update_every(state, point.every);
        self.revive_chart(state);
        let end = point.end.floor_to(point.every);
        let end_us = end.micros();
        let newer = end > state.last_updated;
        let newest = end >= state.last_updated;
        for dim in &mut state.dims {
            dim.current = Sample::EMPTY;
            if newer {
                dim.latest = f64::NAN;
            }
        }
        let mut revived = false;
        for set in point.values {
            let Some(dim) = state.dims.get_mut(set.dim as usize) else { continue };
            if newest {
                dim.latest = set.value;
            }
            dim.current = dim.packed(set.value, set.flags);
            dim.collected = set.collected;
            dim.last_collected = set.collected;
            dim.last_collected_us = dim.last_collected_us.max(end_us.0);
            dim.collections = dim.collections.saturating_add(1).max(2);
            dim.updated = true;
            revived |= dim.revive();
            dim.writer.store(end, dim.current);
        }
        if revived {
            state.touch();
        }
        STATS.points_stored.add(point.values.len() as u64);
        // Unknown after a start: whoever is told so takes its own clock.
        let is_known = state.last_collected.0 != 0;
        let since_us = if is_known { end_us - state.last_collected } else { 0 };
        state.counter += 1;
        state.counter_done += 1;
        state.sync_clock = false;
        if newer {
            state.last_updated = end;
            state.last_collected = end_us;
        }
        {
            let tap = self.host.tap.read();
            if let Some(tap) = &*tap {
                tap.slot(self, state, end);
                if newer {
                    tap.collected(self, state, since_us);
                }
            }
        }
        for set in point.values {
            if let Some(dim) = state.dims.get_mut(set.dim as usize) {
                dim.updated = false;
            }
        }
    }

    /// Data for an obsolete chart and its dimensions brings them back.
    fn revive(&self, state: &mut ChartState) {
        self.revive_chart(state);
        let mut revived = false;
        for dim in &mut state.dims {
            revived |= dim.updated && dim.revive();
        }
        if revived {
            state.touch();
        }
    }

    fn revive_chart(&self, state: &mut ChartState) {
        if state.is_obsolete() {
            log::error!(
                "Host '{}': chart '{}' is obsolete, but it is collected again: it is no longer obsolete.",
                self.host.hostname(),
                self.id()
            );
            state.meta.options.remove(ChartOptions::OBSOLETE);
            state.touch();
        }
    }
}

impl ChartState {
    /// Microseconds to move `last_collected` by; may first move it when it lies in the future.
    fn elapsed(&mut self, since: SinceLast, now: UnixMicros) -> i64 {
        let slot_us = self.meta.update_every.micros();
        let by_clock = now - self.last_collected;
        // The first collection was put at half a second; only the second one tells where in the second they come.
        let sync = std::mem::take(&mut self.sync_clock);
        let given = match since {
            SinceLast::Stream(us) if us > 0 && !sync => return us,
            SinceLast::Plugin(us) if us > 0 && !sync => Some(us),
            _ => None,
        };
        if by_clock < 0 {
            self.last_collected = now + -slot_us;
            return slot_us;
        }
        match given {
            Some(us) if by_clock <= BELIEVE_INTERVALS * slot_us => us,
            _ => by_clock,
        }
    }

    /// Starts collecting afresh, as after a very long silence.
    fn forget_collections(&mut self) {
        self.last_updated = UnixSeconds(0);
        self.counter = 0;
        self.counter_done = 0;
        for dim in &mut self.dims {
            dim.collections = u32::from(dim.updated);
            dim.calculated = 0.0;
            dim.last_calculated = 0.0;
            dim.last_collected = 0;
        }
    }

    /// Computes each dimension's `calculated`; true when a counter was reset or wrapped.
    fn calculate(&mut self) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "the reference computes in doubles too")]
        let total: f64 =
            self.dims.iter().filter(|dim| dim.updated).map(|dim| dim.collected as f64).sum();
        let last_total = self.last_collected_total;
        let mut reset_seen = false;
        for dim in &mut self.dims {
            dim.calculated =
                if dim.updated { dim.calculate(total, last_total, &mut reset_seen) } else { 0.0 };
        }
        self.last_collected_total = total;
        reset_seen
    }
}

#[expect(clippy::cast_precision_loss, reason = "collected integers become doubles by definition")]
impl Dimension {
    fn algorithm_resets(&self) -> bool {
        matches!(self.algorithm, Algorithm::Incremental | Algorithm::PercentageOfIncrementalRow)
    }

    fn calculate(&mut self, total: f64, last_total: f64, reset_seen: &mut bool) -> f64 {
        let scale = |n: f64, dim: &Dimension| n * dim.multiplier as f64 / dim.divisor as f64;
        match self.algorithm {
            Algorithm::Absolute => scale(self.collected as f64, self),
            Algorithm::PercentageOfAbsoluteRow if total == 0.0 => 0.0,
            Algorithm::PercentageOfAbsoluteRow => 100.0 * self.collected as f64 / total,
            _ if self.collections <= 1 => 0.0,
            Algorithm::Incremental => {
                let (new, last) =
                    (self.collected.cast_unsigned(), self.last_collected.cast_unsigned());
                if last <= new {
                    return scale((new - last) as f64, self);
                }
                if !self.options.contains(DimensionOptions::NO_RESET) {
                    *reset_seen = true;
                }
                let cap = if self.collected_max > u64::from(u32::MAX) {
                    u64::MAX
                } else {
                    u64::from(u32::MAX)
                };
                let delta = cap.wrapping_sub(last).wrapping_add(new);
                if delta < cap / 100 * WRAP_PERCENT { scale(delta as f64, self) } else { 0.0 }
            }
            Algorithm::PercentageOfIncrementalRow => {
                if self.last_collected > self.collected {
                    if !self.options.contains(DimensionOptions::NO_RESET) {
                        *reset_seen = true;
                    }
                    self.last_collected = self.collected;
                }
                if total == last_total {
                    return 0.0;
                }
                100.0 * self.collected.wrapping_sub(self.last_collected) as f64
                    / (total - last_total)
            }
        }
    }

    /// The value of the slot ending at `end`, of a round that reaches from `from_us` to `until_us`.
    fn value_at(
        &mut self,
        end: UnixSeconds,
        from_us: i64,
        until_us: i64,
        last: bool,
        every: UpdateEvery,
    ) -> f64 {
        match self.algorithm {
            Algorithm::Incremental => self.spend(end, from_us, until_us) / every.seconds() as f64,
            _ if last => self.calculated,
            _ => {
                (self.calculated - self.last_calculated) * share(end, from_us, until_us)
                    + self.last_calculated
            }
        }
    }

    /// Takes the part up to `end` out of what an incremental dimension has gathered.
    fn spend(&mut self, end: UnixSeconds, from_us: i64, until_us: i64) -> f64 {
        if self.algorithm != Algorithm::Incremental {
            return 0.0;
        }
        let part = self.calculated * share(end, from_us, until_us);
        self.calculated -= part;
        part + std::mem::take(&mut self.last_calculated)
    }

    /// True when it was obsolete.
    #[inline]
    fn revive(&mut self) -> bool {
        let was_obsolete = self.is_obsolete();
        if was_obsolete {
            self.options.remove(DimensionOptions::OBSOLETE);
        }
        was_obsolete
    }

    /// Packs a final value; a value like the one before costs a comparison.
    fn packed(&mut self, value: f64, flags: SampleFlags) -> Sample {
        if self.packed_from == value.to_bits() && flags == SampleFlags::default() {
            return self.packed;
        }
        let sample = Sample::pack(value, flags);
        if flags == SampleFlags::default() {
            self.packed_from = value.to_bits();
            self.packed = sample;
        }
        sample
    }
}

/// Which share of the time from `from_us` to `until_us` has passed at `end`.
#[expect(clippy::cast_precision_loss, reason = "spans of microseconds are far below 2^53")]
fn share(end: UnixSeconds, from_us: i64, until_us: i64) -> f64 {
    let whole = until_us - from_us;
    if whole <= 0 {
        return 1.0;
    }
    ((end.micros().0 - from_us) as f64 / whole as f64).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::chart::ChartSpec;
    use super::super::dimension::DimensionSpec;
    use super::super::host::{Host, HostInfo, HostKind, HostSettings};
    use super::*;
    use crate::base::ids::MachineGuid;
    use crate::storage::Mode;
    use crate::storage::ring::RingEngine;

    const T0: i64 = 1_700_000_000;

    fn chart(spec: &ChartSpec<'_>) -> (Arc<Host>, Arc<Chart>) {
        let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
        let info = HostInfo::named("h");
        let host = Host::new(
            MachineGuid::random(),
            HostKind::Local,
            info,
            engine,
            HostSettings::default(),
        );
        let chart = host.define_chart(spec).unwrap();
        (host, chart)
    }

    fn spec(options: ChartOptions) -> ChartSpec<'static> {
        ChartSpec { id: "t.c", options: Some(options), ..ChartSpec::default() }
    }

    fn stored(chart: &Chart, dim: usize) -> Vec<(i64, Option<f64>)> {
        let reader = Arc::clone(&chart.lock().dims[dim].reader);
        let mut seen = Vec::new();
        reader.read(UnixSeconds(0), UnixSeconds(T0 * 2), &mut |at, sample| {
            seen.push((at.0 - T0, sample.value().map(|v| (v * 10.0).round() / 10.0)));
        });
        seen
    }

    /// Collections 0.25 s after each second of `seconds`, an absolute value of ten times the second and a counter of a
    /// hundred per second.
    fn run(seconds: &[i64]) -> (Arc<Host>, Arc<Chart>) {
        let (host, chart) = chart(&spec(ChartOptions::empty()));
        let a =
            chart.define_dimension(&DimensionSpec::plain("a", Algorithm::Absolute, 1, 1)).unwrap();
        let c = chart
            .define_dimension(&DimensionSpec::plain("c", Algorithm::Incremental, 1, 1))
            .unwrap();
        for &second in seconds {
            let staged =
                [Staged { dim: a, value: second * 10 }, Staged { dim: c, value: second * 100 }];
            let now = UnixMicros((T0 + second) * 1_000_000 + 250_000);
            chart.complete(&staged, SinceLast::Clock, now);
        }
        (host, chart)
    }

    #[test]
    fn the_first_collection_is_never_stored() {
        let (_host, chart) = run(&[1, 2, 3, 4]);
        assert_eq!(stored(&chart, 0)[0], (2, Some(20.0)));
    }

    #[test]
    fn a_jump_keeps_two_slots_and_leaves_gaps_before_them() {
        let (_host, chart) = run(&[1, 2, 3, 4, 5, 8, 9, 10, 11, 15, 16, 17, 18, 23]);
        let absolute = stored(&chart, 0);
        let at =
            |series: &[(i64, Option<f64>)], t: i64| series.iter().find(|(s, _)| *s == t).unwrap().1;
        assert_eq!([6, 7, 8].map(|t| at(&absolute, t)), [None, Some(63.3), Some(80.0)]);
        assert_eq!(
            [12, 13, 14, 15].map(|t| at(&absolute, t)),
            [None, None, Some(127.8), Some(150.0)]
        );
        assert_eq!(
            [19, 20, 21, 22, 23].map(|t| at(&absolute, t)),
            [None, None, None, Some(202.2), Some(230.0)]
        );
        let counter = stored(&chart, 1);
        assert_eq!([6, 7, 8].map(|t| at(&counter, t)), [None, Some(100.0), Some(100.0)]);
        assert_eq!([22, 23].map(|t| at(&counter, t)), [Some(100.0), Some(100.0)]);
    }

    #[test]
    fn store_first_keeps_the_first_value() {
        let (_host, chart) = chart(&spec(ChartOptions::STORE_FIRST));
        let d = chart
            .define_dimension(&DimensionSpec::plain("d", Algorithm::Incremental, 1, 1))
            .unwrap();
        chart.complete(
            &[Staged { dim: d, value: 7 }],
            SinceLast::Clock,
            UnixMicros(T0 * 1_000_000),
        );
        assert_eq!(stored(&chart, 0), [(0, Some(7.0))]);
    }

    #[test]
    fn a_wrapped_32_bit_counter_goes_on_and_a_reset_one_restarts_at_zero() {
        let check = |before: i64, after: i64, expected: f64| {
            let (_host, chart) = chart(&spec(ChartOptions::empty()));
            let d = chart
                .define_dimension(&DimensionSpec::plain("d", Algorithm::Incremental, 1, 1))
                .unwrap();
            for (second, value) in [(1, before), (2, before), (3, before), (4, after)] {
                let now = UnixMicros((T0 + second) * 1_000_000);
                chart.complete(&[Staged { dim: d, value }], SinceLast::Clock, now);
            }
            let total: f64 = stored(&chart, 0).iter().filter_map(|(_, v)| *v).sum();
            let carry = chart.lock().dims[0].last_calculated;
            assert!(
                (total + carry - expected).abs() < 1.0,
                "{before} -> {after}: {total} + {carry}"
            );
        };
        check(4_294_967_290, 10, 15.0);
        check(4_294_967_290, 3_000_000_000, 0.0);
        check(1000, 0, 0.0);
    }

    #[test]
    fn percentages_of_a_row_add_up_to_a_hundred() {
        let (_host, chart) = chart(&spec(ChartOptions::empty()));
        let algorithm = Algorithm::PercentageOfIncrementalRow;
        let a = chart.define_dimension(&DimensionSpec::plain("a", algorithm, 1, 1)).unwrap();
        let b = chart.define_dimension(&DimensionSpec::plain("b", algorithm, 1, 1)).unwrap();
        for second in 1..6 {
            let staged =
                [Staged { dim: a, value: second * 25 }, Staged { dim: b, value: second * 75 }];
            chart.complete(&staged, SinceLast::Clock, UnixMicros((T0 + second) * 1_000_000));
        }
        assert_eq!(stored(&chart, 0).last().unwrap().1, Some(25.0));
        assert_eq!(stored(&chart, 1).last().unwrap().1, Some(75.0));
    }

    #[test]
    fn final_points_are_stored_as_they_come_in_any_order() {
        let (_host, chart) = chart(&spec(ChartOptions::empty()));
        let d = chart
            .define_dimension(&DimensionSpec::plain("d", Algorithm::Incremental, 1, 1))
            .unwrap();
        let value =
            |value| [PointValue { dim: d, collected: 5, value, flags: SampleFlags::default() }];
        for (second, v) in [(10, 1.5), (12, 2.5), (11, f64::NAN), (9, -3.0)] {
            let values = value(v);
            let end = UnixSeconds(T0 + second);
            chart.store_point(&Point { end, every: UpdateEvery::SECOND, values: &values });
        }
        assert_eq!(
            stored(&chart, 0),
            [(9, Some(-3.0)), (10, Some(1.5)), (11, None), (12, Some(2.5))]
        );
        assert_eq!(chart.lock().last_updated, UnixSeconds(T0 + 12));
    }

    #[test]
    fn the_second_collection_is_timed_by_the_clock_whatever_it_says() {
        let (_host, chart) = chart(&spec(ChartOptions::empty()));
        let d = chart
            .define_dimension(&DimensionSpec::plain("d", Algorithm::Incremental, 1, 1))
            .unwrap();
        for second in 0..4 {
            let now = UnixMicros((T0 + second) * 1_000_000 + 250_000);
            let staged = [Staged { dim: d, value: second * 120 }];
            chart.complete(&staged, SinceLast::Plugin(1_000_000), now);
        }
        assert_eq!(stored(&chart, 0), [(1, Some(80.0)), (2, Some(130.0)), (3, Some(120.0))]);
        assert_eq!(chart.lock().last_collected.subsecond(), 250_000);
    }

    #[test]
    fn a_plugin_that_lies_about_time_is_corrected_by_the_clock() {
        let (_host, chart) = chart(&spec(ChartOptions::empty()));
        let d =
            chart.define_dimension(&DimensionSpec::plain("d", Algorithm::Absolute, 1, 1)).unwrap();
        let mut now = UnixMicros(T0 * 1_000_000);
        for _ in 0..3 {
            now = now + 1_000_000;
            chart.complete(&[Staged { dim: d, value: 1 }], SinceLast::Plugin(1_000_000), now);
        }
        now = now + 60_000_000;
        chart.complete(&[Staged { dim: d, value: 1 }], SinceLast::Plugin(1_000_000), now);
        assert_eq!(chart.lock().last_collected, now);
    }
}

//! Replicated samples: blocks of final values that a child sends because it was asked for them.
//!
//! `RBEGIN chart`, then for each slot `RBEGIN '' start end wall` and its `RSET` lines, then perhaps how dimensions and chart
//! stand (`RDSTATE`, `RSSTATE`), then `REND`. Values are stored as they come. What to ask for next is not decided here but by
//! the session's [`Hooks`](super::Hooks).

use super::commands::{TIME_MAX, number_flags, start};
use super::{Executor, Offer, Replayed, Violation};
use crate::base::stats::{STATS, count};
use crate::base::time::{UnixMicros, UnixSeconds, UpdateEvery};
use crate::metrics::{DimensionReplay, Point, PointValue};
use crate::wire::caps::Capabilities;
use crate::wire::numbers;
use crate::wire::pluginsd::ReplayEnd;
use crate::wire::words::Words;

/// The slot being filled.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) end: UnixSeconds,
    pub(super) every: UpdateEvery,
    /// Its times cannot be: its values are read and dropped.
    pub(super) impossible: bool,
}

/// Slots may lie this many intervals and seconds ahead of the clock they come with.
const AHEAD_OF_CHILD: i64 = 1;
const AHEAD_OF_US: i64 = 5;

impl Executor {
    pub(super) fn definition_end(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let chart = self.scope("CHART_DEFINITION_END", "CHART")?;
        let [first, last, wall] = words.take_words();
        let number = |word: Option<&[u8]>| word.and_then(numbers::integer).unwrap_or(0);
        let offer = Offer { first: number(first), last: number(last), wall: number(wall) };
        let asked_before = std::mem::replace(&mut chart.lock().replicating, true);
        let host = self.session.host.clone();
        if asked_before {
            self.hooks.defined_again(&host, &chart, offer);
        } else {
            self.hooks.defined(&host, &chart, offer);
        }
        Ok(())
    }

    pub(super) fn replay_begin(
        &mut self,
        mut words: Words<'_>,
        now: UnixMicros,
    ) -> Result<(), Violation> {
        self.store_slot();
        let mut ahead = words.clone();
        self.take_slot(&mut ahead, "RBEGIN")?;
        if ahead.next().is_some_and(|id| !id.is_empty()) {
            let chart = match self.named_chart(&mut words, "RBEGIN") {
                Ok(chart) => chart,
                // It may have been archived here since it was asked for.
                Err(_) if self.agreed(Capabilities::SPANS) => {
                    self.leave();
                    self.skips_block = true;
                    return Ok(());
                }
                Err(violation) => return Err(violation),
            };
            self.skips_block = false;
            self.enter(chart);
            self.replay_slots = 0;
            self.replay_newest = 0;
        } else if self.skips_block {
            return Ok(());
        } else {
            words = ahead;
            self.scope("RBEGIN", "RBEGIN")?;
        }
        let [start, end, wall] = words.take_words();
        let number = |word: Option<&[u8]>| word.and_then(numbers::integer).unwrap_or(0);
        self.begin_slot(number(start), number(end), number(wall), now);
        Ok(())
    }

    /// The slot of the chart in scope that ends then; without times none begins.
    pub(super) fn begin_slot(&mut self, start: i64, end: i64, wall: i64, now: UnixMicros) {
        if start == 0 && end == 0 {
            return;
        }
        let every = self
            .session
            .chart(self.chart)
            .map_or(1, |known| known.chart.lock().meta.update_every.seconds());
        let latest = if wall > 0 {
            wall.saturating_add(every + AHEAD_OF_CHILD)
        } else {
            now.seconds().0 + every + AHEAD_OF_US
        };
        // Further ahead of us than a wrong clock explains, `self.latest`, is what a child stored before its clock was set
        // right: it is asked for no such samples, and what it sends of them ends nothing.
        let latest = latest.min(self.latest.saturating_add(1));
        let impossible = start <= 0 || end <= start || end > TIME_MAX || end >= latest;
        if impossible {
            let chart = self
                .session
                .chart(self.chart)
                .map_or_else(String::new, |known| known.chart.id().to_string());
            log::error!(
                "PLUGINSD REPLAY ERROR: 'host:{}/chart:{chart}' got a RBEGIN from {start} to {end}, but its clock is {wall}. Ignoring it.",
                self.hostname()
            );
        }
        self.point.clear();
        self.replay = Some(Block {
            end: UnixSeconds(end),
            every: UpdateEvery::clamped(end.saturating_sub(start)),
            impossible,
        });
    }

    pub(super) fn replay_set(
        &mut self,
        line: &[u8],
        mut words: Words<'_>,
    ) -> Result<(), Violation> {
        if self.skips_block {
            return Ok(());
        }
        let Some(dim) = self.replayed_dimension(&mut words, "RSET")? else { return Ok(()) };
        self.learn(dim, start(line, b"RSET ", &words));
        let [value, flags] = words.take_words();
        let value = value.and_then(numbers::double).unwrap_or(f64::NAN);
        let (value, mut flags) = number_flags(value, flags.unwrap_or(b""));
        if !self.agreed(Capabilities::INTERPOLATED) {
            // Such children do not know the mark of a normal sample.
            flags.anomalous = false;
        }
        if self.replay.is_some() {
            self.point.push(PointValue { dim, collected: 0, value, flags });
        }
        Ok(())
    }

    /// The dimension a line names; none if it was archived here since its chart was asked for.
    fn replayed_dimension(
        &mut self,
        words: &mut Words<'_>,
        command: &'static str,
    ) -> Result<Option<u32>, Violation> {
        match self.named_dimension(words, command, "RBEGIN") {
            Err(Violation::UnknownDimension { .. }) if self.agreed(Capabilities::SPANS) => Ok(None),
            named => named.map(Some),
        }
    }

    pub(super) fn replay_dimension(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        self.store_slot();
        if self.skips_block {
            return Ok(());
        }
        let Some(dim) = self.replayed_dimension(&mut words, "RDSTATE")? else { return Ok(()) };
        let [collected_us, collected, calculated, _stored] = words.take_words();
        let number = |word: Option<&[u8]>| word.and_then(numbers::integer).unwrap_or(0);
        let calculated =
            calculated.and_then(numbers::double).filter(|value| value.is_finite()).unwrap_or(0.0);
        let replay = DimensionReplay {
            dim,
            last_collected_us: number(collected_us),
            last_collected: number(collected),
            last_calculated: calculated,
        };
        if !self.agreed(Capabilities::INTERPOLATED) {
            self.scope("RDSTATE", "RBEGIN")?.restore_dimension(&replay);
        }
        Ok(())
    }

    pub(super) fn replay_state(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        self.store_slot();
        if self.skips_block {
            return Ok(());
        }
        let chart = self.scope("RSSTATE", "RBEGIN")?;
        let [collected_us, updated_us] = words.take_words();
        let number = |word: Option<&[u8]>| word.and_then(numbers::integer).unwrap_or(0);
        if !self.agreed(Capabilities::INTERPOLATED) {
            let updated = UnixMicros(number(updated_us)).seconds();
            chart.restore_times(UnixMicros(number(collected_us)), updated);
        }
        Ok(())
    }

    pub(super) fn replay_end(
        &mut self,
        mut words: Words<'_>,
        now: UnixMicros,
    ) -> Result<(), Violation> {
        self.store_slot();
        if std::mem::take(&mut self.skips_block) {
            return Ok(());
        }
        let chart = self.scope("REND", "RBEGIN")?;
        let [every, first, last, start, after, before, wall] = words.take_words();
        let (Some(every), Some(first), Some(last), Some(start), Some(after), Some(before)) =
            (every, first, last, start, after, before)
        else {
            return Err(self.malformed("REND", "with words missing"));
        };
        let number = |word: &[u8]| numbers::integer(word).unwrap_or(0);
        let end = ReplayEnd {
            every: number(every),
            first: number(first),
            last: number(last),
            start: start == b"true",
            after: number(after),
            before: number(before),
            wall: wall.map_or(now.seconds().0, number),
        };
        let newest = std::mem::take(&mut self.replay_newest);
        let is_whole = self.agreed(Capabilities::INTERPOLATED)
            || newest.saturating_add(end.every) >= end.before;
        let reached = if is_whole { end.before } else { newest.max(end.after).min(end.before) };
        let block = Replayed {
            offer: Offer { first: end.first, last: end.last, wall: end.wall },
            start: end.start,
            after: end.after,
            before: end.before,
            slots: std::mem::take(&mut self.replay_slots),
            reached,
        };
        let host = self.session.host.clone();
        self.replayed += 1;
        // Before the chart counts as caught up: whoever is above must not take it for complete if it is not.
        self.hooks.replayed(&host, &chart, block);
        chart.end_replication(&end);
        self.leave();
        Ok(())
    }

    /// The slot under way is complete.
    pub(super) fn store_slot(&mut self) {
        let Some(block) = self.replay.take() else { return };
        if !block.impossible
            && let Some(known) = self.session.chart(self.chart)
        {
            let point = Point { end: block.end, every: block.every, values: &self.point };
            let raw = !self.agreed(Capabilities::INTERPOLATED);
            if !known.chart.store_replicated(&point, raw) {
                count(&STATS.streams.past_foreign);
                if !std::mem::replace(&mut self.said_foreign, true) {
                    let every = known.chart.lock().meta.update_every;
                    log::info!(
                        "STREAM {}: older samples of '{}' have an interval of {} s, which is {} s now: such samples are not stored, of this chart and of others.",
                        self.hostname(),
                        known.chart.id(),
                        block.every.seconds(),
                        every.seconds()
                    );
                }
            }
            self.replay_slots += 1;
            self.replay_newest = self.replay_newest.max(block.end.0);
        }
        self.point.clear();
        // Its dimensions may begin with any.
        if let Some(known) = self.session.chart(self.chart) {
            self.dim = known.first();
        }
        self.dim_before = super::NONE;
    }
}

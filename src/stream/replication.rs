//! Replication, decided: what a parent asks a child for, and what a child answers. Values in, values out; no socket,
//! thread or clock.
//!
//! The rules are those of the streaming specification, section 5.2 for the parent and 5.3 for the child. A parent asks for
//! the holes in what it holds, then for what is newer, in steps; a child answers any request, at any time.

use std::collections::VecDeque;

use crate::base::number::{Sample, SampleFlags};
use crate::base::time::UnixSeconds;
use crate::ingest::executor::{Offer, Replayed};
use crate::metrics::{Chart, ChartState, Relayed};
use crate::wire::caps::Capabilities;
use crate::wire::pluginsd::{self, Dialect, DimensionState, ReplayEnd};

/// How far and how fast a parent asks back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enabled: bool,
    /// Seconds: `seconds to replicate`.
    pub period: i64,
    /// Seconds: `seconds per replication step`.
    pub step: i64,
}

/// A `REPLAY_CHART` request: samples with `after < time <= before`, and whether live ones may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub start: bool,
    pub after: i64,
    pub before: i64,
}

impl Ask {
    /// Nothing is wanted but what comes next.
    pub const LIVE: Ask = Ask { start: true, after: 0, before: 0 };
}

/// What a parent knows of a chart when it decides.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its own last sample; 0 = none.
    pub local_last: i64,
    pub has_dimensions: bool,
    /// What the last answer covered; zeros = there was none.
    pub after: i64,
    pub before: i64,
    pub now: i64,
}

/// The next request for a chart.
pub fn next_request(offer: Offer, standing: Standing, policy: Policy) -> Ask {
    let now = standing.now;
    let clock = if offer.wall > 0 { offer.wall } else { now };
    let child_last = offer.last.min(clock);
    let local_last = standing.local_last.min(now);
    let nothing = !policy.enabled
        || !standing.has_dimensions
        || offer.last <= 0
        || offer.first <= 0
        || offer.first > child_last;
    // A child that answered without starting is asked again for what it may have since.
    let in_round = standing.after != 0 && standing.before != 0;
    if nothing || (local_last >= child_last && !in_round) {
        return Ask::LIVE;
    }
    let from = match (standing.after, standing.before) {
        (after, before) if after != 0 && before != 0 => before,
        _ if local_last > 0 => local_last,
        _ => now - policy.period,
    };
    let step = policy.step.max(1);
    let after = from.max(offer.first);
    let before = if now - after > step { after + step } else { now }.min(child_last);
    if after > before {
        return Ask::LIVE;
    }
    Ask { start: now - after <= step || before >= child_last, after, before }
}

/// Answers in a row that neither start nor bring anything new, until a parent asks for live samples alone.
const IDLE_MAX: u32 = 8;
/// Holes of one chart that are asked for on one connection.
const HOLES_MAX: usize = 1024;

/// What is still to be asked for of one chart: the holes before its last sample first, oldest first, then the tail.
#[derive(Debug, Default)]
pub struct Pull {
    holes: VecDeque<(i64, i64)>,
    idle: u32,
    started: bool,
}

impl Pull {
    pub fn new(holes: Vec<(i64, i64)>) -> Pull {
        Pull { holes: holes.into(), idle: 0, started: false }
    }

    /// The first request for a chart.
    pub fn first(&mut self, offer: Offer, standing: Standing, policy: Policy) -> Ask {
        self.hole(offer, policy).unwrap_or_else(|| next_request(offer, standing, policy))
    }

    /// The request after an answer; `None` when nothing is left to ask.
    pub fn next(&mut self, answer: Replayed, standing: Standing, policy: Policy) -> Option<Ask> {
        self.started |= answer.start;
        let was_hole = !self.holes.is_empty();
        // What was answered is not asked for again, whether it held samples or not.
        while let Some(hole) = self.holes.front_mut() {
            if answer.before == 0 || hole.0 >= answer.before {
                break;
            }
            hole.0 = answer.before;
            if hole.0 < hole.1 {
                break;
            }
            self.holes.pop_front();
        }
        if let Some(ask) = self.hole(answer.offer, policy) {
            return Some(ask);
        }
        if self.started {
            return None;
        }
        self.idle = if standing.local_last >= answer.offer.last { self.idle + 1 } else { 0 };
        if self.idle > IDLE_MAX {
            return Some(Ask::LIVE);
        }
        // The tail begins where our own samples end, not where the last hole did.
        let standing =
            if was_hole { Standing { after: 0, before: 0, ..standing } } else { standing };
        Some(next_request(answer.offer, standing, policy))
    }

    fn hole(&self, offer: Offer, policy: Policy) -> Option<Ask> {
        let &(after, before) = self.holes.front()?;
        let after = after.max(offer.first);
        let before = before.min(after + policy.step.max(1)).min(offer.last);
        (policy.enabled && after < before).then_some(Ask { start: false, after, before })
    }
}

/// The holes of a chart between two times: spans of slots in which no dimension has a sample. At most [`HOLES_MAX`], the
/// newest ones.
pub fn holes(state: &ChartState, after: i64, until: i64) -> Vec<(i64, i64)> {
    /// Dimensions looked at: a chart's dimensions are nearly always collected together.
    const DIMENSIONS: usize = 3;
    let every = state.meta.update_every.seconds();
    let (first, last) = (after.div_euclid(every) + 1, until.div_euclid(every));
    let Ok(count) = usize::try_from(last - first + 1) else { return Vec::new() };
    let mut held = vec![false; count];
    let mut missing = count;
    for dim in state.dims.iter().take(DIMENSIONS) {
        dim.reader.read(UnixSeconds(after), UnixSeconds(until), &mut |at, sample| {
            let slot =
                usize::try_from(at.0.div_euclid(every) - first).ok().and_then(|i| held.get_mut(i));
            if let Some(slot) = slot.filter(|slot| !**slot)
                && !sample.is_empty()
            {
                *slot = true;
                missing -= 1;
            }
        });
        if missing == 0 {
            return Vec::new();
        }
    }
    let mut spans: Vec<(i64, i64)> = Vec::new();
    for (slot, ordinal) in held.iter().zip(first..) {
        if *slot {
            continue;
        }
        match spans.last_mut() {
            Some(span) if span.1 == (ordinal - 1) * every => span.1 = ordinal * every,
            _ => spans.push(((ordinal - 1) * every, ordinal * every)),
        }
    }
    let surplus = spans.len().saturating_sub(HOLES_MAX);
    spans.split_off(surplus)
}

/// What became of a request at the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Live samples follow this block.
    pub start: bool,
}

/// Where and how an answer is written.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    pub agreed: Capabilities,
    pub dialect: Dialect,
    /// The chart's number on the connection.
    pub slot: u32,
    pub now: UnixSeconds,
    /// A block that would become longer is cut at a slot; the parent asks for the rest.
    pub bytes_max: usize,
}

/// Slots looked at for one block at most; more are left for the next request.
const SLOTS_MAX: i64 = 1 << 16;

/// Appends the answer to `ask` to `out`. Called with the chart's lock held, so that no sample falls between this block and
/// the live ones.
pub fn answer(
    out: &mut Vec<u8>,
    chart: &Chart,
    state: &ChartState,
    ask: Ask,
    how: &Answering,
) -> Answered {
    let Answering { dialect, slot, now, .. } = *how;
    let (first, last) = state.offered(now);
    let every = state.meta.update_every.seconds();
    pluginsd::replay_begin(out, dialect, slot, chart.id());
    let mut end = ReplayEnd {
        every,
        first: first.0,
        last: last.0,
        start: true,
        after: ask.after,
        before: ask.before,
        wall: now.0,
    };
    if ask.after == 0 || ask.before == 0 || last.0 == 0 {
        (end.after, end.before) = (0, 0);
        if ask.after != 0 && ask.before != 0 {
            (end.after, end.before) = (ask.after, ask.before);
        } else {
            (end.first, end.last) = (0, 0);
        }
    } else {
        let (mut after, mut before) = (ask.after.min(ask.before), ask.after.max(ask.before));
        after = after.max(first.0);
        before = before.min(last.0);
        if ask.start {
            before = last.0;
        }
        let wanted = before;
        before = before.min(after.saturating_add(SLOTS_MAX * every));
        let covered = put_slots(out, state, after, before, how);
        let cut = covered < wanted;
        end.start = !cut && (ask.start || before >= last.0);
        end.after = ask.after;
        end.before = if cut { covered } else { before.max(ask.after.min(ask.before)) };
    }
    if end.start {
        put_state(out, state, dialect);
    }
    pluginsd::replay_end(out, dialect, &end);
    Answered { start: end.start }
}

/// The answer for a chart that is not there.
pub fn answer_unknown(out: &mut Vec<u8>, id: &str, dialect: Dialect, now: UnixSeconds) {
    pluginsd::replay_begin(out, dialect, 0, id);
    let end =
        ReplayEnd { every: 0, first: 0, last: 0, start: true, after: 0, before: 0, wall: now.0 };
    pluginsd::replay_end(out, dialect, &end);
}

/// Writes the slots with `after < time <= before`; gives the time up to which they were written.
fn put_slots(
    out: &mut Vec<u8>,
    state: &ChartState,
    after: i64,
    before: i64,
    how: &Answering,
) -> i64 {
    let every = state.meta.update_every.seconds();
    let first = after.div_euclid(every) * every + every;
    if first > before {
        return before;
    }
    let count = usize::try_from((before - first) / every + 1).unwrap_or(0);
    let dims = state.dims.len();
    // Row by row, as they go out.
    let mut rows = vec![Sample::EMPTY; count * dims];
    for (column, dim) in state.dims.iter().enumerate() {
        dim.reader.read(UnixSeconds(after), UnixSeconds(before), &mut |at, sample| {
            let row = usize::try_from((at.0 - first) / every).unwrap_or(usize::MAX);
            if let Some(cell) = row.checked_mul(dims).and_then(|start| rows.get_mut(start + column))
            {
                *cell = sample;
            }
        });
    }
    let start = out.len();
    let interpolated = how.agreed.contains(Capabilities::INTERPOLATED);
    for (row, end) in
        rows.chunks_exact(dims.max(1)).zip((first..).step_by(usize::try_from(every).unwrap_or(1)))
    {
        if row.iter().all(|sample| sample.is_empty()) {
            continue;
        }
        if out.len() - start > how.bytes_max {
            return end - every;
        }
        pluginsd::replay_point(out, how.dialect, how.slot, end - every, end, how.now.0);
        for ((sample, dim), number) in row.iter().zip(&state.dims).zip(1u32..) {
            if sample.is_empty() {
                continue;
            }
            let flags = SampleFlags { anomalous: sample.is_anomalous(), reset: sample.is_reset() };
            let flags = flag_word(flags, interpolated);
            pluginsd::replay_set(out, how.dialect, number, &dim.id, sample.unpack(), flags);
        }
    }
    before
}

fn flag_word(flags: SampleFlags, interpolated: bool) -> &'static str {
    match (flags.anomalous, flags.reset) {
        (false, false) if interpolated => "A",
        (false, true) if interpolated => "AR",
        (_, true) => "R",
        _ => "",
    }
}

/// Appends a part of a child's answer as it came, its head first when `out` is empty.
pub fn relay(
    out: &mut Vec<u8>,
    chart: &Chart,
    state: &ChartState,
    part: Relayed<'_>,
    how: &Answering,
) {
    let Answering { dialect, slot, now, .. } = *how;
    let interpolated = how.agreed.contains(Capabilities::INTERPOLATED);
    if out.is_empty() {
        pluginsd::replay_begin(out, dialect, slot, chart.id());
    }
    match part {
        Relayed::Slot(point) => {
            let end = point.end.0;
            let start = end - point.every.seconds();
            pluginsd::replay_point(out, dialect, slot, start, end, now.0.max(end));
            for set in point.values.iter().filter(|set| set.value.is_finite()) {
                if let Some(dim) = state.dims.get(set.dim as usize) {
                    let flags = flag_word(set.flags, interpolated);
                    pluginsd::replay_set(out, dialect, set.dim + 1, &dim.id, set.value, flags);
                }
            }
        }
        Relayed::End(end) => {
            if end.start {
                put_state(out, state, dialect);
            }
            pluginsd::replay_end(out, dialect, end);
        }
    }
}

/// Where raw values go on from.
fn put_state(out: &mut Vec<u8>, state: &ChartState, dialect: Dialect) {
    for (dim, number) in state.dims.iter().zip(1u32..) {
        let line = DimensionState {
            id: &dim.id,
            last_collected_us: dim.last_collected_us,
            last_collected: dim.last_collected,
            last_calculated: dim.last_calculated,
            last_stored: dim.current.value().unwrap_or(0.0),
        };
        pluginsd::replay_dimension_state(out, dialect, number, &line);
    }
    pluginsd::replay_chart_state(
        out,
        dialect,
        state.last_collected.0,
        state.last_updated.micros().0,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { enabled: true, period: 86_400, step: 600 };

    fn standing(local_last: i64) -> Standing {
        Standing { local_last, has_dimensions: true, after: 0, before: 0, now: 100_000 }
    }

    fn offer(first: i64, last: i64) -> Offer {
        Offer { first, last, wall: 100_000 }
    }

    #[track_caller]
    fn check(offer: Offer, standing: Standing, start: bool, after: i64, before: i64) {
        assert_eq!(next_request(offer, standing, POLICY), Ask { start, after, before });
    }

    #[test]
    fn a_parent_asks_from_its_last_sample_in_steps() {
        check(offer(50_000, 99_999), standing(98_000), false, 98_000, 98_600);
        let next = Standing { after: 98_000, before: 99_800, ..standing(98_600) };
        check(offer(50_000, 99_999), next, true, 99_800, 99_999);
    }

    #[test]
    fn a_new_chart_is_asked_for_as_far_back_as_the_period() {
        check(offer(1_000, 99_999), standing(0), false, 13_600, 14_200);
        check(offer(99_900, 99_999), standing(0), true, 99_900, 99_999);
    }

    #[test]
    fn nothing_is_asked_for_where_there_is_nothing_to_get() {
        for (offer, standing) in [
            (offer(0, 0), standing(0)),
            (offer(99_000, 99_999), standing(99_999)),
            (offer(99_000, 99_999), Standing { has_dimensions: false, ..standing(0) }),
            (offer(99_999, 99_000), standing(0)),
        ] {
            check(offer, standing, true, 0, 0);
        }
    }

    #[test]
    fn a_child_in_the_future_is_believed_up_to_its_own_clock() {
        let ahead = Offer { first: 99_500, last: 200_000, wall: 100_010 };
        check(ahead, standing(0), true, 99_500, 100_000);
    }

    #[test]
    fn an_empty_stretch_is_stepped_over() {
        let next = Standing { after: 50_000, before: 50_600, ..standing(40_000) };
        check(offer(1_000, 99_999), next, false, 50_600, 51_200);
    }

    #[test]
    fn holes_come_first_and_are_asked_for_once() {
        let mut pull = Pull::new(vec![(10_000, 11_000), (20_000, 20_010)]);
        let mut asked = vec![pull.first(offer(5_000, 99_999), standing(99_000), POLICY)];
        let mut local_last = 99_000;
        while let Some(ask) = asked.last().copied()
            && asked.len() < 10
        {
            let start = ask.before >= 99_999;
            local_last = local_last.max(ask.before);
            let answer = Replayed {
                offer: offer(5_000, 99_999),
                start,
                after: ask.after,
                before: ask.before,
            };
            let standing =
                Standing { after: ask.after, before: ask.before, ..standing(local_last) };
            match pull.next(answer, standing, POLICY) {
                Some(next) => asked.push(next),
                None => break,
            }
        }
        let spans: Vec<_> = asked.iter().map(|ask| (ask.after, ask.before)).collect();
        assert_eq!(spans[..3], [(10_000, 10_600), (10_600, 11_000), (20_000, 20_010)]);
        assert_eq!(*spans.last().unwrap(), (99_600, 99_999));
    }
}

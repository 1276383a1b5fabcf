//! Replication, decided: which spans are missing, and what a request is answered. Values in, values out; no socket,
//! thread or clock.
//!
//! The rules are those of the streaming specification, section 5.3. Whoever is asked answers any request, at any time;
//! what is asked for, and when, is decided in [`super::pulls`].

use std::sync::Arc;

use crate::base::number::{Sample, SampleFlags};
use crate::base::time::UnixSeconds;
use crate::metrics::{Chart, ChartState, Relayed};
use crate::storage::Reader;
use crate::wire::caps::Capabilities;
use crate::wire::numbers;
use crate::wire::pluginsd::{self, Dialect, DimensionState, ReplayEnd};
use crate::wire::words::Words;

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

/// The words of a `REPLAY_CHART` line.
pub fn read_ask(mut words: Words<'_>) -> Option<(String, Ask)> {
    let [id, start, after, before] = words.take_words();
    let number = |word: Option<&[u8]>| numbers::integer(word.unwrap_or(b"")).unwrap_or(0);
    let ask = Ask {
        start: start == Some(b"true"),
        after: number(after).max(0),
        before: number(before).max(0),
    };
    let id = String::from_utf8_lossy(id.unwrap_or(b"")).into_owned();
    (!id.is_empty()).then_some((id, ask))
}

/// What a node knows of a chart when it decides what to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its own last sample; 0 = none.
    pub local_last: i64,
    pub has_dimensions: bool,
    pub now: i64,
}

/// Holes of one span that are asked for at once.
const HOLES_MAX: usize = 1024;

/// What is stored of a chart, to be read without its lock.
#[derive(Clone)]
pub struct View {
    pub every: i64,
    /// Ids and readers, in the order of the chart.
    pub dims: Vec<(Arc<str>, Arc<dyn Reader>)>,
    /// As [`ChartState::held`] gives it: samples from a clock ahead of ours are samples too.
    pub first: i64,
    pub last: i64,
}

impl View {
    pub fn of(state: &ChartState) -> View {
        let (first, last) = state.held();
        let dims = state.dims.iter().map(|dim| (Arc::clone(&dim.id), Arc::clone(&dim.reader)));
        View {
            every: state.meta.update_every.seconds(),
            dims: dims.collect(),
            first: first.0,
            last: last.0,
        }
    }
}

/// The holes of a chart between two times: spans of slots in which no dimension has a sample. At most [`HOLES_MAX`], the
/// oldest ones: whoever looks goes on behind them.
pub fn holes(view: &View, after: i64, until: i64) -> Vec<(i64, i64)> {
    /// Dimensions looked at: a chart's dimensions are nearly always collected together.
    const DIMENSIONS: usize = 3;
    let every = view.every;
    let (first, last) = (after.div_euclid(every) + 1, until.div_euclid(every));
    let Ok(count) = usize::try_from(last - first + 1) else { return Vec::new() };
    let mut held = vec![false; count];
    let mut missing = count;
    for (_, reader) in view.dims.iter().take(DIMENSIONS) {
        reader.read(UnixSeconds(after), UnixSeconds(until), &mut |at, sample| {
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
    if missing == count {
        return vec![(after, until)];
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
    if let Some(&(_, end)) = spans.last()
        && spans.len() > HOLES_MAX
    {
        spans.truncate(HOLES_MAX);
        if let Some(last) = spans.last_mut() {
            last.1 = end;
        }
    }
    spans
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
    let view = View::of(state);
    let View { every, first, last, .. } = view;
    pluginsd::replay_begin(out, dialect, slot, chart.id());
    let mut end = ReplayEnd {
        every,
        first,
        last,
        start: true,
        after: ask.after,
        before: ask.before,
        wall: now.0,
    };
    if ask.after == 0 || ask.before == 0 || last == 0 {
        (end.after, end.before) = (0, 0);
        if ask.after != 0 && ask.before != 0 {
            (end.after, end.before) = (ask.after, ask.before);
        } else {
            (end.first, end.last) = (0, 0);
        }
    } else {
        let (mut after, mut before) = (ask.after.min(ask.before), ask.after.max(ask.before));
        after = after.max(first);
        before = before.min(last);
        if ask.start {
            before = last;
        }
        let wanted = before;
        before = before.min(after.saturating_add(SLOTS_MAX * every));
        let covered = put_slots(out, &view, after, before, how);
        let cut = covered < wanted;
        end.start = !cut && (ask.start || before >= last);
        end.after = ask.after;
        end.before = if cut { covered } else { before.max(ask.after.min(ask.before)) };
    }
    if end.start {
        put_state(out, state, dialect);
    }
    pluginsd::replay_end(out, dialect, &end);
    Answered { start: end.start }
}

/// The answer to a request about the past alone: whatever is collected meanwhile has nothing to do with it, so no lock
/// is needed.
pub fn answer_past(out: &mut Vec<u8>, id: &str, view: &View, ask: Ask, how: &Answering) {
    let Answering { dialect, slot, now, .. } = *how;
    let (after, before) = (ask.after.min(ask.before), ask.after.max(ask.before));
    pluginsd::replay_begin(out, dialect, slot, id);
    let from = after.max(view.first);
    let until = before.min(view.last).min(from.saturating_add(SLOTS_MAX * view.every));
    let covered = put_slots(out, view, from, until, how);
    // Beyond what is held there is nothing to come back for.
    let before = if covered < before.min(view.last) { covered } else { before };
    let end = ReplayEnd {
        every: view.every,
        first: view.first,
        last: view.last,
        start: false,
        after,
        before,
        wall: now.0,
    };
    pluginsd::replay_end(out, dialect, &end);
}

/// The answer for a chart that is not there.
pub fn answer_unknown(
    out: &mut Vec<u8>,
    id: &str,
    dialect: Dialect,
    now: UnixSeconds,
    start: bool,
) {
    pluginsd::replay_begin(out, dialect, 0, id);
    let end = ReplayEnd { every: 0, first: 0, last: 0, start, after: 0, before: 0, wall: now.0 };
    pluginsd::replay_end(out, dialect, &end);
}

/// Writes the slots with `after < time <= before`; gives the time up to which they were written.
fn put_slots(out: &mut Vec<u8>, view: &View, after: i64, before: i64, how: &Answering) -> i64 {
    let every = view.every;
    let first = after.div_euclid(every) * every + every;
    if first > before {
        return before;
    }
    let count = usize::try_from((before - first) / every + 1).unwrap_or(0);
    let dims = view.dims.len();
    // Row by row, as they go out.
    let mut rows = vec![Sample::EMPTY; count * dims];
    for (column, (_, reader)) in view.dims.iter().enumerate() {
        reader.read(UnixSeconds(after), UnixSeconds(before), &mut |at, sample| {
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
        pluginsd::replay_point(out, how.dialect, how.slot, end - every, end, how.now.0.max(end));
        for ((sample, (id, _)), number) in row.iter().zip(&view.dims).zip(1u32..) {
            if sample.is_empty() {
                continue;
            }
            let flags = SampleFlags { anomalous: sample.is_anomalous(), reset: sample.is_reset() };
            let flags = flag_word(flags, interpolated);
            pluginsd::replay_set(out, how.dialect, number, id, sample.unpack(), flags);
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
    use crate::base::ids::MachineGuid;
    use crate::base::time::UpdateEvery;
    use crate::storage::ring::RingEngine;
    use crate::storage::{MetricKey, Mode, StorageEngine};

    /// A chart of one dimension that holds the given times.
    fn view(every: i64, times: &[i64]) -> View {
        let key =
            MetricKey { host: MachineGuid::random(), chart: "t.a".into(), dimension: "x".into() };
        let engine = RingEngine::in_memory(Mode::Ram, 3600);
        let mut metric = engine.open(&key, UpdateEvery::clamped(every)).unwrap();
        for at in times {
            metric.writer.store(UnixSeconds(*at), Sample::normal(1.0));
        }
        let (first, last) = (times[0] - every, times[times.len() - 1]);
        View { every, dims: vec![("x".into(), metric.reader)], first, last }
    }

    #[test]
    fn holes_are_the_spans_between_what_is_held() {
        let view = view(2, &[1002, 1004, 1010, 1012]);
        assert_eq!(holes(&view, 1000, 1012), [(1004, 1008)]);
        assert_eq!(holes(&view, 990, 1014), [(990, 1000), (1004, 1008), (1012, 1014)]);
        assert_eq!(holes(&view, 1004, 1008), [(1004, 1008)]);
        assert!(holes(&view, 1000, 1004).is_empty());
    }

    #[test]
    fn of_too_many_holes_none_is_forgotten() {
        let every_other: Vec<i64> = (0..1500).map(|n| 1000 + 2 * n).collect();
        let view = view(1, &every_other);
        let found = holes(&view, 1000, 1000 + 2 * 1499);
        assert_eq!(found.len(), HOLES_MAX);
        assert_eq!(found[0], (1000, 1001));
        assert_eq!(found[HOLES_MAX - 1], (1000 + 2 * 1023, 1000 + 2 * 1498 + 1));
    }

    #[test]
    fn an_answer_about_the_past_is_cut_at_a_slot_and_says_where() {
        let times: Vec<i64> = (1001..=1100).collect();
        let view = view(1, &times);
        let how = Answering {
            agreed: Capabilities::empty(),
            dialect: Dialect::of(Capabilities::empty()),
            slot: 0,
            now: UnixSeconds(1200),
            bytes_max: 1000,
        };
        let text = |ask: Ask| {
            let mut out = Vec::new();
            answer_past(&mut out, "t.a", &view, ask, &how);
            String::from_utf8(out).unwrap()
        };
        let cut = text(Ask { start: false, after: 1010, before: 1090 });
        let slots = cut.matches("RSET").count();
        assert!(slots > 5 && slots < 80, "{slots}");
        let covered = i64::try_from(1010 + slots).unwrap();
        let last = cut.lines().last().unwrap();
        assert!(last.contains(&format!("false 1010 {covered} 1200")), "{last}");
        let beyond = text(Ask { start: false, after: 1100, before: 1150 });
        assert!(beyond.lines().last().unwrap().contains("false 1100 1150 1200"), "{beyond}");
    }
}

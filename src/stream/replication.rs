//! Replication, decided: which spans are missing, and what a request is answered. Values in, values out; no socket,
//! thread or clock.
//!
//! The rules are those of the streaming specification, section 5.3. Whoever is asked answers any request, at any time;
//! what is asked for, and when, is decided in [`super::pulls`].

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::base::number::{Sample, SampleFlags};
use crate::base::time::UnixSeconds;
use crate::ingest::executor::latest_believed;
use crate::metrics::{Chart, ChartState, Relayed};
use crate::storage::Reader;
use crate::wire::caps::Capabilities;
use crate::wire::numbers;
use crate::wire::pluginsd::{self, Dialect, DimensionState, ReplayEnd, ReplayFlags};
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
    /// [`ChartState::past_version`]; none where nobody would count it.
    pub version: Option<u64>,
}

impl View {
    pub fn of(state: &ChartState) -> View {
        View::with(state, state.held())
    }

    /// The same where it is known what is held.
    pub fn with(state: &ChartState, (first, last): (UnixSeconds, UnixSeconds)) -> View {
        let dims = state.dims.iter().map(|dim| (Arc::clone(&dim.id), Arc::clone(&dim.reader)));
        View {
            every: state.meta.update_every.seconds(),
            dims: dims.collect(),
            first: first.0,
            last: last.0,
            version: Some(state.past_version),
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

/// Rows of charts that were read from the storage and not sent yet: blocks are short, for the sake of slow links, and the
/// next one begins where the last one ended. One for each link, used by whoever answers there.
///
/// Rows of a chart whose past has changed since are not used, nor any for long: what comes in order of time is behind them.
pub struct Ahead {
    charts: FxHashMap<Box<str>, Rows>,
    cells: usize,
    cells_max: usize,
    /// Where blocks are made, to be used again.
    pub block: Vec<u8>,
}

/// A link's, lent to whoever answers there.
pub type AheadOfLink = Mutex<Ahead>;

/// For so many seconds rows may wait.
const AHEAD_S: i64 = 2;
/// Samples read at once at most, whatever is asked for.
const READ_CELLS: i64 = 64 * 1024;
/// Reading ends where pages of the database may end.
const READ_SLOTS: i64 = 7_200;

/// Consecutive slots of a chart, row by row, as they go out.
struct Rows {
    dims: Vec<Arc<str>>,
    every: i64,
    /// Time of the first row.
    first: i64,
    cells: Vec<Sample>,
    read_at: i64,
    held: (UnixSeconds, UnixSeconds),
    version: Option<u64>,
}

impl Ahead {
    /// Keeps so many bytes at most.
    pub fn new(bytes_max: usize) -> Ahead {
        let cells_max = bytes_max / size_of::<Sample>();
        Ahead { charts: FxHashMap::default(), cells: 0, cells_max, block: Vec::new() }
    }

    /// What was held of a chart when its rows were read, not long ago, and the version of its past then.
    pub fn held(&self, id: &str, now: UnixSeconds) -> Option<(u64, (UnixSeconds, UnixSeconds))> {
        let rows = self.charts.get(id)?;
        let fresh = (0..=AHEAD_S).contains(&(now.0 - rows.read_at));
        fresh.then_some((rows.version?, rows.held))
    }

    /// Rows from `first` on, from an earlier reading or a new one, up to `before` or further.
    fn rows(
        &mut self,
        (id, view): (&str, &View),
        chart: Option<&Chart>,
        first: i64,
        before: i64,
        now: i64,
    ) -> Rows {
        let mut room = Vec::new();
        if let Some(rows) = self.charts.remove(id) {
            self.cells -= rows.cells.len();
            if rows.serves(view, first, now) {
                return rows;
            }
            room = rows.cells;
        }
        let every = view.every;
        let width = i64::try_from(view.dims.len().max(1)).unwrap_or(i64::MAX);
        let most = (READ_CELLS / width).max(1);
        let ordinal = first.div_euclid(every);
        let page = (ordinal - 1).div_euclid(READ_SLOTS) * READ_SLOTS + READ_SLOTS;
        let has_room = view.version.is_some()
            && self.cells + READ_CELLS.unsigned_abs() as usize <= self.cells_max;
        let wanted = if has_room { page } else { before.div_euclid(every).min(page) };
        let last = wanted.min(view.last.div_euclid(every)).min(ordinal + most - 1);
        let mut rows = Rows::read(view, first, last.max(ordinal) * every, now, room);
        if let Some(chart) = chart {
            rows.mend(view, chart);
        }
        rows
    }

    /// Gives back what nobody came back for, when there is nothing else.
    pub fn rest(&mut self, now: UnixSeconds) {
        let is_fresh = |rows: &Rows| (0..=AHEAD_S).contains(&(now.0 - rows.read_at));
        if !self.charts.values().any(is_fresh) && self.charts.capacity() > 0 {
            self.charts = FxHashMap::default();
            self.cells = 0;
            self.block = Vec::new();
        }
    }

    /// What was not sent is kept, if there is room.
    fn keep(&mut self, id: &str, rows: Rows) {
        if self.cells + rows.cells.len() > self.cells_max {
            // What nobody came back for.
            self.charts.retain(|_, kept| (0..=AHEAD_S).contains(&(rows.read_at - kept.read_at)));
            self.cells = self.charts.values().map(|kept| kept.cells.len()).sum();
        }
        if rows.version.is_some() && self.cells + rows.cells.len() <= self.cells_max {
            self.cells += rows.cells.len();
            self.charts.insert(id.into(), rows);
        }
    }
}

impl Rows {
    /// Where they are kept, `cells`, may have been others' before.
    fn read(view: &View, first: i64, last: i64, now: i64, mut cells: Vec<Sample>) -> Rows {
        let every = view.every;
        let count = usize::try_from((last - first) / every + 1).unwrap_or(0);
        cells.clear();
        cells.resize(count * view.dims.len(), Sample::EMPTY);
        let dims = view.dims.iter().map(|(id, _)| Arc::clone(id)).collect();
        let held = (UnixSeconds(view.first), UnixSeconds(view.last));
        let mut rows =
            Rows { dims, every, first, cells, read_at: now, held, version: view.version };
        rows.fill(view, first, last);
        rows
    }

    /// Reads the slots from one to another, both included.
    fn fill(&mut self, view: &View, from: i64, to: i64) {
        let (every, first, width) = (self.every, self.first, view.dims.len());
        let row_of = |at: i64| usize::try_from((at - first) / every).unwrap_or(usize::MAX);
        for (column, (_, reader)) in view.dims.iter().enumerate() {
            let place_of = |at: i64| row_of(at).saturating_mul(width).saturating_add(column);
            // Most readers give slot after slot: the next row is known without a division.
            let (mut expected, mut next) = (from, place_of(from));
            reader.read(UnixSeconds(from - every), UnixSeconds(to), &mut |at, sample| {
                let place = if at.0 == expected { next } else { place_of(at.0) };
                if let Some(cell) = self.cells.get_mut(place) {
                    *cell = sample;
                }
                (expected, next) = (at.0.saturating_add(every), place.saturating_add(width));
            });
        }
    }

    /// A slot that was stored while it was read, dimension by dimension, may have been read in part. Whoever asked would take that
    /// for all there is of it, so such slots are read again while nobody stores.
    fn mend(&mut self, view: &View, chart: &Chart) {
        if self.version.is_none_or(|version| chart.lock().past_version == version) {
            return;
        }
        let is_torn = |row: &[Sample]| {
            row.iter().any(|sample| sample.is_empty()) && !row.iter().all(|s| s.is_empty())
        };
        let rows = self.cells.chunks_exact(view.dims.len().max(1)).zip(0i64..);
        let mut torn = rows.filter(|(row, _)| is_torn(row)).map(|(_, number)| number);
        let Some(oldest) = torn.next() else { return };
        let newest = torn.last().unwrap_or(oldest);
        let at = |number: i64| self.first + number * self.every;
        let (from, to) = (at(oldest), at(newest));
        let _nobody_stores = chart.lock();
        self.fill(view, from, to);
    }

    fn end(&self) -> i64 {
        self.first + (self.cells.len() / self.dims.len().max(1)) as i64 * self.every
    }

    /// They are rows of this view, from `first` on, and fresh.
    fn serves(&self, view: &View, first: i64, now: i64) -> bool {
        (0..=AHEAD_S).contains(&(now - self.read_at))
            && self.version == view.version
            && self.every == view.every
            && (self.first..self.end()).contains(&first)
            && (first - self.first) % self.every == 0
            && self.dims.len() == view.dims.len()
            && self.dims.iter().zip(&view.dims).all(|(a, (b, _))| Arc::ptr_eq(a, b) || a == b)
    }
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
            // A clock that was set back leaves samples of a future that nobody believes.
            before = last.min(latest_believed(now.0).max(before));
        }
        let wanted = before;
        before = before.min(after.saturating_add(SLOTS_MAX * every));
        let ahead = &mut Ahead::new(0);
        let what = (chart.id().as_ref(), &view);
        // Nobody stores meanwhile.
        let covered = put_slots(out, what, None, (after, before), how, ahead);
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

/// The answer to a request about the past alone: whatever is collected meanwhile has nothing to do with it, so it is read
/// without a lock. What is put into the past of `chart` meanwhile is there or not, slot by slot; that of a chart that is not
/// live does not change.
pub fn answer_past(
    out: &mut Vec<u8>,
    (id, view): (&str, &View),
    chart: Option<&Chart>,
    ask: Ask,
    how: &Answering,
    ahead: &mut Ahead,
) {
    let Answering { dialect, slot, now, .. } = *how;
    let (after, before) = (ask.after.min(ask.before), ask.after.max(ask.before));
    pluginsd::replay_begin(out, dialect, slot, id);
    let from = after.max(view.first);
    let until = before.min(view.last).min(from.saturating_add(SLOTS_MAX * view.every));
    let covered = put_slots(out, (id, view), chart, (from, until), how, ahead);
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
fn put_slots(
    out: &mut Vec<u8>,
    (id, view): (&str, &View),
    chart: Option<&Chart>,
    (after, before): (i64, i64),
    how: &Answering,
    ahead: &mut Ahead,
) -> i64 {
    let every = view.every;
    let mut next = after.div_euclid(every) * every + every;
    let width = view.dims.len();
    if next > before || width == 0 {
        return before;
    }
    let start = out.len();
    let interpolated = how.agreed.contains(Capabilities::INTERPOLATED);
    // A seed parent never passes on, and in rings loses, the first slot it stores of a chart: that is an empty one.
    let leads = !interpolated && next - every == view.first && next > 2 * every;
    let heads = pluginsd::ReplayHeads::of(how.dialect, view.dims.iter().map(|(id, _)| &**id));
    while next <= before {
        let rows = ahead.rows((id, view), chart, next, before, how.now.0);
        let skipped = usize::try_from((next - rows.first) / every).unwrap_or(0) * width;
        for row in rows.cells[skipped..].chunks_exact(width) {
            let is_full = out.len() - start > how.bytes_max;
            if next > before || is_full {
                ahead.keep(id, rows);
                return if is_full && next <= before { next - every } else { before };
            }
            let end = next;
            next += every;
            if row.iter().all(|sample| sample.is_empty()) {
                continue;
            }
            let wall = how.now.0.max(end);
            if leads && end - every == view.first {
                pluginsd::replay_point(
                    out,
                    how.dialect,
                    how.slot,
                    end - 2 * every,
                    end - every,
                    wall,
                );
                for (id, number) in view.dims.iter().map(|(id, _)| id).zip(1u32..) {
                    pluginsd::replay_set(out, how.dialect, number, id, f64::NAN, "E");
                }
            }
            pluginsd::replay_point(out, how.dialect, how.slot, end - every, end, wall);
            for (number, sample) in row.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
                let flags =
                    SampleFlags { anomalous: sample.is_anomalous(), reset: sample.is_reset() };
                heads.put(out, number, sample.unpack(), flags_of(flags, interpolated));
            }
        }
    }
    before
}

fn flags_of(flags: SampleFlags, interpolated: bool) -> ReplayFlags {
    match (flags.anomalous, flags.reset) {
        (false, false) if interpolated => ReplayFlags::Normal,
        (false, true) if interpolated => ReplayFlags::NormalReset,
        (_, true) => ReplayFlags::Reset,
        _ => ReplayFlags::None,
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
                    let flags = flags_of(set.flags, interpolated).word();
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
    use crate::metrics::{Point, PointValue};
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
        View { every, dims: vec![("x".into(), metric.reader)], first, last, version: Some(7) }
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
    fn what_was_read_ahead_is_what_is_held_and_gets_old() {
        let times: Vec<i64> = (1001..=1400).filter(|at| at % 7 != 0).collect();
        let view = view(1, &times);
        let how = |now| Answering {
            agreed: Capabilities::empty(),
            dialect: Dialect::of(Capabilities::empty()),
            slot: 0,
            now: UnixSeconds(now),
            bytes_max: 900,
        };
        let rest = |ahead: &mut Ahead, now| {
            let (mut text, mut after) = (Vec::new(), 1010);
            while after < 1390 {
                let mut block = Vec::new();
                let ask = Ask { start: false, after, before: 1390 };
                answer_past(&mut block, ("t.a", &view), None, ask, &how(now), ahead);
                let block = String::from_utf8(block).unwrap();
                let end = block.lines().last().unwrap().split(' ').nth(6).unwrap();
                assert!(end.parse::<i64>().unwrap() > after, "it goes on: {block}");
                after = end.parse().unwrap();
                text.extend(block.lines().filter(|l| !l.starts_with("REND")).map(str::to_owned));
            }
            text
        };
        let mut ahead = Ahead::new(1 << 20);
        let told = rest(&mut ahead, 2000);
        assert_eq!(told, rest(&mut Ahead::new(0), 2000), "with and without");
        let held = ahead.held("t.a", UnixSeconds(2000));
        assert_eq!(held, Some((7, (UnixSeconds(view.first), UnixSeconds(view.last)))));
        let changed = View { version: Some(8), ..view.clone() };
        assert!(!ahead.charts["t.a"].serves(&changed, 1391, 2000), "its past has changed");
        assert_eq!(ahead.held("t.a", UnixSeconds(2000 + AHEAD_S + 1)), None);
        let rows = ahead.rows(("t.a", &view), None, 1391, 1395, 2000 + AHEAD_S + 1);
        assert_eq!((rows.first, rows.read_at), (1391, 2000 + AHEAD_S + 1), "read anew");
        assert_eq!(ahead.cells, 0);
        ahead.keep("t.a", rows);
        ahead.rest(UnixSeconds(2000 + AHEAD_S + 1));
        assert!(ahead.cells > 0, "somebody may come back for it");
        ahead.rest(UnixSeconds(2000 + 2 * AHEAD_S + 2));
        assert_eq!((ahead.cells, ahead.charts.capacity(), ahead.block.capacity()), (0, 0, 0));
    }

    #[test]
    fn what_a_seed_peer_gets_of_a_chart_begins_with_an_empty_slot() {
        let view = view(2, &[1002, 1004, 1006]);
        let slots = |agreed: Capabilities, after: i64| {
            let how = Answering {
                agreed,
                dialect: Dialect::of(agreed),
                slot: 0,
                now: UnixSeconds(1010),
                bytes_max: 10_000,
            };
            let (mut out, ask) = (Vec::new(), Ask { start: false, after, before: 1006 });
            answer_past(&mut out, ("t.a", &view), None, ask, &how, &mut Ahead::new(0));
            let text = String::from_utf8(out).unwrap();
            let lines: Vec<_> = text.lines().filter(|line| !line.contains("REND")).collect();
            lines[1..].join(" ")
        };
        let oldest = slots(Capabilities::empty(), 1000);
        let lead = "RBEGIN '' 998 1000 1010 RSET \"x\" nan \"E\" RBEGIN '' 1000 1002 1010 RSET";
        assert!(oldest.starts_with(lead), "{oldest}");
        assert!(slots(Capabilities::empty(), 900).starts_with(lead));
        let later = slots(Capabilities::empty(), 1002);
        assert!(later.starts_with("RBEGIN '' 1002 1004") && !later.contains("nan"), "{later}");
        let new = slots(Capabilities::INTERPOLATED, 1000);
        assert!(new.starts_with("RBEGIN '' 1000 1002") && !new.contains("nan"), "{new}");
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
            answer_past(&mut out, ("t.a", &view), None, ask, &how, &mut Ahead::new(0));
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

    /// Samples of a dimension that are stored right after they were looked for.
    struct StoredMeanwhile {
        reader: Arc<dyn Reader>,
        chart: Arc<Chart>,
        /// Once.
        times: parking_lot::Mutex<Vec<i64>>,
    }

    impl Reader for StoredMeanwhile {
        fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)> {
            self.reader.retention()
        }

        fn read(
            &self,
            after: UnixSeconds,
            before: UnixSeconds,
            visit: &mut dyn FnMut(UnixSeconds, Sample),
        ) {
            self.reader.read(after, before, visit);
            for at in self.times.lock().drain(..) {
                let set = |dim| PointValue {
                    dim,
                    collected: at,
                    value: 7.0,
                    flags: SampleFlags::default(),
                };
                let values = &[set(0), set(1)];
                let every = UpdateEvery::clamped(1);
                assert!(
                    self.chart
                        .store_replicated(&Point { end: UnixSeconds(at), every, values }, false)
                );
            }
        }
    }

    #[test]
    fn a_slot_that_is_stored_while_it_is_read_is_whole_or_not_there() {
        let host = crate::query::run::samples::host();
        let chart = host.chart("t.abs").unwrap();
        let t0 = crate::query::run::samples::T0;
        // Before all that is held, as a past comes; all at once, so that the span is known.
        let past = |at: i64| {
            let set =
                PointValue { dim: 0, collected: at, value: 1.0, flags: SampleFlags::default() };
            let every = UpdateEvery::clamped(1);
            let point = Point { end: UnixSeconds(at), every, values: &[set] };
            assert!(chart.store_replicated(&point, false));
        };
        past(t0 - 100);
        let mut view = View::of(&chart.lock());
        view.dims.truncate(2);
        let times = parking_lot::Mutex::new((t0 - 60..t0 - 40).collect());
        let reader = Arc::clone(&view.dims[0].1);
        view.dims[0].1 = Arc::new(StoredMeanwhile { reader, chart: Arc::clone(&chart), times });
        let how = Answering {
            agreed: Capabilities::empty(),
            dialect: Dialect::of(Capabilities::empty()),
            slot: 0,
            now: UnixSeconds(t0 + 2000),
            bytes_max: 100_000,
        };
        let (mut out, ask) = (Vec::new(), Ask { start: false, after: t0 - 80, before: t0 - 20 });
        answer_past(&mut out, ("t.abs", &view), Some(&chart), ask, &how, &mut Ahead::new(1 << 20));
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("RBEGIN ''").count(), 20, "{text}");
        assert_eq!(text.matches("RSET").count(), 40, "{text}");
    }
}

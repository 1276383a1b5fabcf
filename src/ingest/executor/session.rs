//! What a session knows of one host: its charts and their dimensions, in the order the peer uses them.
//!
//! Peers repeat themselves to the byte: after the line of a dimension comes that of the one that followed last time, and it
//! starts as it did then. So each entry keeps how its line starts ([`Known::text`]) and who follows, and recognising a line
//! costs one comparison: no word is taken apart, no id looked up. Equal bytes are equal words, so this gives what the
//! general rules give. Whatever differs is read by them, and learned.
//!
//! No lock is taken unless something is not known yet.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::metrics::{Chart, Host};

/// "None of them" for indexes into charts and dimensions.
pub(super) const NONE: u32 = u32::MAX;

/// Slot numbers a peer may use for charts or dimensions; larger ones are a violation.
pub(super) const SLOT_MAX: u64 = 1 << 24;

/// Starts longer than this are not kept; their lines are read by the general rules.
const START_MAX: usize = u8::MAX as usize;

/// Dimensions tried after the expected one: senders leave out those without a value.
const NEAR: usize = 8;

pub(super) struct Session {
    pub(super) host: Arc<Host>,
    charts: Vec<Known>,
    by_id: FxHashMap<Arc<str>, u32>,
    by_slot: FxHashMap<u32, u32>,
    /// The chart begun last.
    last: u32,
}

/// A chart as the session sees it.
pub(super) struct Known {
    pub(super) chart: Arc<Chart>,
    /// The starts of its lines, one after the other.
    text: Vec<u8>,
    begin: Start,
    /// By index of the chart's own dimensions.
    dims: Vec<KnownDim>,
    /// The chart that followed last time.
    next: u32,
    /// The dimension that came first last time.
    first: u32,
    /// 0 = none.
    slot: u32,
}

#[derive(Clone, Copy)]
struct KnownDim {
    start: Start,
    /// The dimension that followed last time.
    next: u32,
    /// 0 = none.
    slot: u32,
}

/// How the line of a dimension or chart starts: all that stands between the keyword's blank and the value. A place in
/// [`Known::text`]; empty = not known.
#[derive(Clone, Copy, Default)]
struct Start {
    at: u32,
    length: u8,
}

impl Start {
    #[inline]
    fn range(self) -> Range<usize> {
        self.at as usize..self.at as usize + usize::from(self.length)
    }
}

impl Session {
    pub(super) fn new(host: Arc<Host>) -> Session {
        Session {
            host,
            charts: Vec::new(),
            by_id: FxHashMap::default(),
            by_slot: FxHashMap::default(),
            last: NONE,
        }
    }

    #[inline]
    pub(super) fn chart(&self, index: u32) -> Option<&Known> {
        self.charts.get(index as usize)
    }

    #[inline]
    pub(super) fn chart_mut(&mut self, index: u32) -> Option<&mut Known> {
        self.charts.get_mut(index as usize)
    }

    /// The expected chart and what follows the start of its line, if `text` starts so.
    #[inline]
    pub(super) fn expect<'a>(&self, text: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let index = self.chart(self.last).map_or(0, |last| last.next);
        let known = self.chart(index)?;
        let rest = known.after(known.begin, text)?;
        (!known.chart.is_retired()).then_some((index, rest))
    }

    pub(super) fn by_slot(&self, slot: u64) -> Option<u32> {
        self.by_slot.get(&u32::try_from(slot).ok()?).copied()
    }

    /// The chart of that id, asking the host for one that is new here or was replaced there.
    pub(super) fn by_id(&mut self, id: &str) -> Option<u32> {
        if let Some(&index) = self.by_id.get(id)
            && !self.charts[index as usize].chart.is_retired()
        {
            return Some(index);
        }
        let chart = self.host.chart(id)?;
        self.adopt(chart)
    }

    /// Makes a chart of the host known. `None` when the session has too many.
    pub(super) fn adopt(&mut self, chart: Arc<Chart>) -> Option<u32> {
        if let Some(&index) = self.by_id.get(chart.id()) {
            let known = &mut self.charts[index as usize];
            if !Arc::ptr_eq(&known.chart, &chart) {
                *known = Known { slot: known.slot, ..Known::new(chart, known.next) };
            }
            known.look();
            return Some(index);
        }
        let index = u32::try_from(self.charts.len()).ok().filter(|index| *index < NONE)?;
        self.by_id.insert(Arc::clone(chart.id()), index);
        let mut known = Known::new(chart, index + 1);
        known.look();
        self.charts.push(known);
        Some(index)
    }

    /// `index` is the chart in scope now: what came before it will expect it next time.
    #[inline]
    pub(super) fn follow(&mut self, index: u32) {
        if let Some(last) = self.charts.get_mut(self.last as usize)
            && last.next != index
        {
            last.next = index;
        }
        self.last = index;
    }

    /// Binds `slot` to a chart; the chart that had it loses it.
    pub(super) fn bind(&mut self, index: u32, slot: u32) {
        let before = std::mem::replace(&mut self.charts[index as usize].slot, slot);
        if before == slot {
            return;
        }
        self.charts[index as usize].forget_starts();
        if before != 0 {
            self.by_slot.remove(&before);
        }
        if slot != 0
            && let Some(loser) = self.by_slot.insert(slot, index)
        {
            self.charts[loser as usize].slot = 0;
            self.charts[loser as usize].forget_starts();
        }
    }
}

/// Whether two texts of one length are the same; those of common length in two steps instead of a call.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    const HALF: usize = 16;
    let (Some(a_first), Some(b_first)) = (a.first_chunk::<HALF>(), b.first_chunk::<HALF>()) else {
        return a == b;
    };
    if a.len() > 2 * HALF {
        return a == b;
    }
    a_first == b_first && a.last_chunk::<HALF>() == b.last_chunk::<HALF>()
}

impl Known {
    fn new(chart: Arc<Chart>, next: u32) -> Known {
        Known {
            chart,
            text: Vec::new(),
            begin: Start::default(),
            dims: Vec::new(),
            next,
            first: 0,
            slot: 0,
        }
    }

    /// What follows `start` in `text`, if that is how it starts.
    #[inline]
    fn after<'a>(&self, start: Start, text: &'a [u8]) -> Option<&'a [u8]> {
        let start = &self.text[start.range()];
        let (head, rest) = text.split_at_checked(start.len())?;
        (same(head, start) && !start.is_empty()).then_some(rest)
    }

    /// The dimension expected at the start of a round.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// Takes over dimensions the chart has gained.
    pub(super) fn look(&mut self) {
        let count = self.chart.lock().dims.len();
        self.dims.reserve_exact(count.saturating_sub(self.dims.len()));
        for index in self.dims.len()..count {
            let next = u32::try_from(index + 1).unwrap_or(NONE);
            self.dims.push(KnownDim { start: Start::default(), next, slot: 0 });
        }
    }

    /// The dimension whose line `text` is, if it is the `expected` one or one soon after; what follows the start of its
    /// line; and the dimension to expect next.
    #[inline]
    pub(super) fn expect<'a>(&self, expected: u32, text: &'a [u8]) -> Option<(u32, &'a [u8], u32)> {
        let dim = self.dims.get(expected as usize)?;
        match self.after(dim.start, text) {
            Some(rest) => Some((expected, rest, dim.next)),
            None => self.expect_near(expected, text),
        }
    }

    #[inline(never)]
    fn expect_near<'a>(&self, expected: u32, text: &'a [u8]) -> Option<(u32, &'a [u8], u32)> {
        let near = self.dims.iter().zip(0u32..).skip(expected as usize + 1).take(NEAR);
        let mut found =
            near.map(|(dim, index)| Some((index, self.after(dim.start, text)?, dim.next)));
        found.find_map(|found| found)
    }

    pub(super) fn by_slot(&self, slot: u64) -> Option<u32> {
        let mut dims = self.dims.iter().zip(0u32..);
        dims.find(|(dim, _)| slot != 0 && u64::from(dim.slot) == slot).map(|(_, index)| index)
    }

    pub(super) fn by_id(&mut self, id: &str) -> Option<u32> {
        let index = self.chart.lock().dimension_index(id)?;
        if index as usize >= self.dims.len() {
            self.look();
        }
        Some(index)
    }

    /// `index` came after `before` ([`NONE`]: first of its round). Gives the dimension to expect next.
    pub(super) fn follow(&mut self, before: u32, index: u32) -> u32 {
        match self.dims.get_mut(before as usize) {
            Some(dim) => dim.next = index,
            None => self.first = index,
        }
        self.dims.get(index as usize).map_or(NONE, |dim| dim.next)
    }

    pub(super) fn bind(&mut self, index: u32, slot: u32) {
        if index as usize >= self.dims.len() {
            self.look();
        }
        if let Some(dim) = self.dims.get_mut(index as usize) {
            dim.slot = slot;
        }
    }

    pub(super) fn unbind_dimensions(&mut self) {
        if self.dims.iter().any(|dim| dim.slot != 0) {
            self.dims.iter_mut().for_each(|dim| dim.slot = 0);
            self.forget_starts();
        }
    }

    // --- starts of lines -------------------------------------------------------------------------

    /// Lines of the chart itself start with `start`.
    pub(super) fn learn_begin(&mut self, start: &[u8]) {
        self.begin = self.keep(self.begin, start);
    }

    /// Lines of dimension `index` start with `start`.
    pub(super) fn learn(&mut self, index: u32, start: &[u8]) {
        if let Some(&dim) = self.dims.get(index as usize) {
            let start = self.keep(dim.start, start);
            self.dims[index as usize].start = start;
        }
    }

    /// Puts `start` where `before` was if it fits, else at the end.
    fn keep(&mut self, before: Start, start: &[u8]) -> Start {
        let Ok(length) = u8::try_from(start.len()) else { return before };
        if length <= before.length {
            let at = before.at as usize;
            self.text[at..at + start.len()].copy_from_slice(start);
            return Start { at: before.at, length };
        }
        // A peer that changes its ways again and again does not make the text grow.
        if self.text.len() > START_MAX * (self.dims.len() + 1) {
            self.forget_starts();
        }
        let Ok(at) = u32::try_from(self.text.len()) else { return Start::default() };
        self.text.reserve_exact(start.len());
        self.text.extend_from_slice(start);
        Start { at, length }
    }

    /// Slots changed their meaning: the next line of each is read anew.
    fn forget_starts(&mut self) {
        self.text.clear();
        self.begin = Start::default();
        self.dims.iter_mut().for_each(|dim| dim.start = Start::default());
    }
}

//! What a session knows of one host: its charts and their dimensions, in the order the peer uses them.
//!
//! Peers repeat themselves: after a chart comes the one that came after it last time, and so with dimensions. Each entry
//! therefore remembers its successor, so a BEGIN or SET costs one comparison of its id; slots lead straight to their entry.
//! Whatever differs is looked up, and learned. No lock is taken unless something is not known yet.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::metrics::{Chart, Host};

/// "None of them" for indexes into charts and dimensions.
pub(super) const NONE: u32 = u32::MAX;

/// Slot numbers a peer may use for charts or dimensions; larger ones are a violation.
pub(super) const SLOT_MAX: u64 = 1 << 24;

/// Entries looked at before a full search: senders mostly leave out a few.
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
    id: Arc<str>,
    /// By index of the chart's own dimensions.
    dims: Vec<KnownDim>,
    /// The chart that followed last time.
    next: u32,
    /// The dimension that came first last time.
    first: u32,
    /// 0 = none.
    slot: u32,
    spelling: Spelling,
}

struct KnownDim {
    id: Arc<str>,
    /// The dimension that followed last time.
    next: u32,
    /// 0 = none; the spelling in the two top bits.
    slot_and_spelling: u32,
}

/// In which forms a word can be compared as it stands, without taking quotes and backslashes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spelling(u8);

impl Spelling {
    const QUOTED: u8 = 1;
    const BARE: u8 = 2;

    fn of(id: &str) -> Spelling {
        let odd = |b| matches!(b, b'"' | b'\'' | b'\\');
        if id.is_empty() || id.starts_with("SLOT:") || id.bytes().any(odd) {
            return Spelling(0);
        }
        let bare =
            !id.bytes().any(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'=' | 0x0b | 0x0c));
        Spelling(if bare { Spelling::QUOTED | Spelling::BARE } else { Spelling::QUOTED })
    }
}

impl KnownDim {
    const SLOT: u32 = (1 << 30) - 1;

    fn new(id: &Arc<str>, index: u32) -> KnownDim {
        let spelling = u32::from(Spelling::of(id).0) << 30;
        KnownDim { id: Arc::clone(id), next: index + 1, slot_and_spelling: spelling }
    }

    fn slot(&self) -> u32 {
        self.slot_and_spelling & KnownDim::SLOT
    }

    fn set_slot(&mut self, slot: u32) {
        self.slot_and_spelling = self.slot_and_spelling & !KnownDim::SLOT | slot & KnownDim::SLOT;
    }

    fn spelling(&self) -> Spelling {
        Spelling((self.slot_and_spelling >> 30) as u8)
    }
}

/// What follows the word `id` and the byte that ends it, if `text` begins with just that word.
#[inline]
fn after_word<'a>(text: &'a [u8], id: &str, spelling: Spelling) -> Option<&'a [u8]> {
    if let [quote @ (b'"' | b'\''), inside @ ..] = text {
        let [end, rest @ ..] = inside.strip_prefix(id.as_bytes())? else { return None };
        return (end == quote && spelling.0 & Spelling::QUOTED != 0).then_some(rest);
    }
    if spelling.0 & Spelling::BARE == 0 {
        return None;
    }
    match text.strip_prefix(id.as_bytes())? {
        [] => Some(&[]),
        [b' ' | b'\t' | b'=', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// What follows a quoted word without backslashes, whatever the word.
#[inline]
fn after_any_quoted(text: &[u8]) -> Option<&[u8]> {
    let [quote @ (b'"' | b'\''), inside @ ..] = text else { return None };
    let end = inside.iter().position(|b| b == quote || *b == b'\\')?;
    (inside[end] == *quote).then(|| &inside[end + 1..])
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

    fn expected(&self) -> u32 {
        self.chart(self.last).map_or(0, |last| last.next)
    }

    /// The expected chart and what follows its id, if `text` begins with that.
    #[inline]
    pub(super) fn expect<'a>(&self, text: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let index = self.expected();
        let known = self.chart(index)?;
        let rest = after_word(text, &known.id, known.spelling)?;
        (!known.chart.is_retired()).then_some((index, rest))
    }

    /// The chart bound to `slot` and what follows the id in `text`.
    #[inline]
    pub(super) fn expect_slot<'a>(&self, slot: u64, text: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let rest = after_any_quoted(text)?;
        let index = self.by_slot(slot)?;
        (!self.chart(index)?.chart.is_retired()).then_some((index, rest))
    }

    #[inline]
    pub(super) fn by_slot(&self, slot: u64) -> Option<u32> {
        let index = self.expected();
        match self.chart(index) {
            Some(known) if slot != 0 && u64::from(known.slot) == slot => Some(index),
            _ => self.by_slot.get(&u32::try_from(slot).ok()?).copied(),
        }
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
                known.chart = chart;
                known.dims.clear();
                known.first = 0;
            }
            known.look();
            return Some(index);
        }
        let index = u32::try_from(self.charts.len()).ok().filter(|index| *index < NONE)?;
        let id = Arc::clone(chart.id());
        let spelling = Spelling::of(&id);
        self.by_id.insert(Arc::clone(&id), index);
        let mut known =
            Known { chart, id, dims: Vec::new(), next: index + 1, first: 0, slot: 0, spelling };
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
        self.unbind(index);
        if slot == 0 {
            return;
        }
        if let Some(before) = self.by_slot.insert(slot, index) {
            self.charts[before as usize].slot = 0;
        }
        self.charts[index as usize].slot = slot;
    }

    pub(super) fn unbind(&mut self, index: u32) {
        let slot = std::mem::take(&mut self.charts[index as usize].slot);
        if slot != 0 {
            self.by_slot.remove(&slot);
        }
    }
}

impl Known {
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The dimension expected at the start of a round.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// Takes over dimensions the chart has gained.
    pub(super) fn look(&mut self) {
        let state = self.chart.lock();
        if self.dims.len() < state.dims.len() {
            self.dims.reserve_exact(state.dims.len() - self.dims.len());
            for (dim, index) in state.dims.iter().zip(0u32..).skip(self.dims.len()) {
                self.dims.push(KnownDim::new(&dim.id, index));
            }
        }
    }

    /// What follows the id of the `expected` dimension, if `text` begins with that; and the dimension after it.
    #[inline]
    pub(super) fn expect<'a>(&self, expected: u32, text: &'a [u8]) -> Option<(&'a [u8], u32)> {
        let dim = self.dims.get(expected as usize)?;
        Some((after_word(text, &dim.id, dim.spelling())?, dim.next))
    }

    /// What follows the id in `text` if the `expected` dimension has `slot`; and the dimension after it.
    #[inline]
    pub(super) fn expect_slot<'a>(
        &self,
        expected: u32,
        slot: u64,
        text: &'a [u8],
    ) -> Option<(&'a [u8], u32)> {
        let dim = self.dims.get(expected as usize)?;
        if slot == 0 || u64::from(dim.slot()) != slot {
            return None;
        }
        Some((after_any_quoted(text)?, dim.next))
    }

    pub(super) fn by_slot(&self, expected: u32, slot: u64) -> Option<u32> {
        self.search(expected, |dim| slot != 0 && u64::from(dim.slot()) == slot)
    }

    pub(super) fn by_id(&mut self, expected: u32, id: &str) -> Option<u32> {
        let near = self.near(expected, |dim| *dim.id == *id);
        if near.is_some() {
            return near;
        }
        let index = self.chart.lock().dimension_index(id)?;
        if index as usize >= self.dims.len() {
            self.look();
        }
        Some(index)
    }

    fn near(&self, expected: u32, wanted: impl Fn(&KnownDim) -> bool) -> Option<u32> {
        let near = self.dims.iter().zip(0u32..).skip(expected as usize).take(NEAR);
        near.into_iter().find(|(dim, _)| wanted(dim)).map(|(_, index)| index)
    }

    fn search(&self, expected: u32, wanted: impl Fn(&KnownDim) -> bool) -> Option<u32> {
        let all = || self.dims.iter().zip(0u32..);
        self.near(expected, &wanted)
            .or_else(|| all().find(|(dim, _)| wanted(dim)).map(|(_, index)| index))
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
            dim.set_slot(slot);
        }
    }

    pub(super) fn unbind_dimensions(&mut self) {
        for dim in &mut self.dims {
            dim.set_slot(0);
        }
    }
}

//! What a node holds of a host beside what flows on a link: told to the peer, and answered from. The same at both ends.
//!
//! Used by the replication threads. Charts that are archived are read from the metadata database one at a time, so their
//! number costs no memory but that of their ids. Lock order: a chart's is never taken while one of these is held.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use super::replication::{self, AheadOfLink, Answering, Ask, View};
use super::verify::{self, Digest, Question};
use crate::base::time::{Clock, UnixSeconds};
use crate::metrics::{
    Chart, ChartHead, ChartOptions, ChartState, Dimension, DimensionOptions, Host,
};
use crate::storage::Mode;
use crate::wire::caps::Capabilities;
use crate::wire::pluginsd::{self, ChartLine, Dialect, DimensionLine};

/// Charts of one host that are offered on one link.
const OFFERED_MAX: usize = 1 << 18;

enum Item {
    /// A chart that does not flow.
    Chart(Arc<str>),
    /// What a chart that flows had earlier.
    Dimensions(Arc<str>),
}

#[derive(Default)]
struct Told {
    rest: Option<VecDeque<Item>>,
    /// Charts whose earlier dimensions the peer knows.
    with_older: FxHashSet<Arc<str>>,
    complete: bool,
}

pub struct Shelf {
    host: Arc<Host>,
    clock: Clock,
    agreed: Capabilities,
    told: Mutex<Told>,
}

impl Shelf {
    pub fn new(host: Arc<Host>, clock: Clock, agreed: Capabilities) -> Shelf {
        Shelf { host, clock, agreed, told: Mutex::default() }
    }

    /// Everything was offered.
    pub fn is_told(&self) -> bool {
        self.told.lock().complete
    }

    /// Appends the offer of the next chart that does not flow (`flows` says which do); false when nothing is left.
    pub fn tell(&self, out: &mut Vec<u8>, flows: &dyn Fn(&Chart) -> bool) -> bool {
        let mut told = self.told.lock();
        if told.complete {
            return false;
        }
        if told.rest.is_none() {
            drop(told);
            let items = self.items(flows);
            told = self.told.lock();
            told.rest = Some(items);
        }
        let Some(item) = told.rest.as_mut().and_then(VecDeque::pop_front) else {
            told.complete = true;
            told.rest = None;
            return false;
        };
        if let Item::Dimensions(id) = &item {
            told.with_older.insert(Arc::clone(id));
        }
        drop(told);
        self.offer(out, &item);
        true
    }

    fn items(&self, flows: &dyn Fn(&Chart) -> bool) -> VecDeque<Item> {
        let mut items = VecDeque::new();
        if self.host.settings().mode == Mode::None {
            return items;
        }
        for chart in self.host.charts() {
            let id = Arc::clone(chart.id());
            if !flows(&chart) {
                items.push_back(Item::Chart(id));
            } else if chart.has_older_dimensions() {
                items.push_back(Item::Dimensions(id));
            }
        }
        let mut note = |head: &ChartHead<'_>| {
            if items.len() < OFFERED_MAX && self.host.chart(head.id).is_none() {
                items.push_back(Item::Chart(head.id.into()));
            }
            false
        };
        self.host.archived_charts(&mut note, &mut |_| {});
        items
    }

    fn offer(&self, out: &mut Vec<u8>, item: &Item) {
        let now = self.clock.now_seconds();
        match item {
            Item::Chart(id) => {
                let Some(chart) = self.host.find_any_chart(id) else { return };
                let state = chart.lock();
                let (first, last) = state.held();
                put_archived(out, &chart, &state, state.dims.iter(), first, last, now);
            }
            Item::Dimensions(id) => {
                let Some(chart) = self.host.chart(id) else { return };
                let older = self.host.archived_dimensions(&chart);
                let state = chart.lock();
                let every = state.meta.update_every.seconds();
                let spans = older.iter().filter_map(|dim| dim.reader.retention());
                let Some((first, last)) =
                    spans.reduce(|(first, last), (f, l)| (first.min(f), last.max(l)))
                else {
                    return;
                };
                put_archived(out, &chart, &state, older.iter(), first - every, last, now);
            }
        }
    }

    /// What can be read of a chart, live or archived, as far as the peer knows its dimensions.
    pub fn view(&self, id: &str) -> Option<View> {
        let chart = self.host.find_any_chart(id)?;
        if **chart.id() != *id {
            return None;
        }
        let mut view = View::of(&chart.lock());
        if self.host.chart(id).is_none() {
            view.version = None;
        }
        if self.told.lock().with_older.contains(id) {
            for dim in self.host.archived_dimensions(&chart) {
                if let Some((first, last)) = dim.reader.retention() {
                    view.first = view.first.min(first.0 - view.every);
                    view.last = view.last.max(last.0);
                }
                view.dims.push((dim.id, dim.reader));
            }
        }
        Some(view)
    }

    /// What a span comes to, of all that is held.
    pub fn digest(&self, question: &Question) -> Digest {
        let Question { after, before, .. } = *question;
        let view = whole_view(&self.host, &question.chart);
        view.map_or_else(Digest::default, |view| {
            verify::digest(&view, after, before, question.dim.as_deref())
        })
    }

    /// The peer was told of dimensions of this chart that do not flow.
    pub fn has_more_of(&self, id: &str) -> bool {
        self.told.lock().with_older.contains(id)
    }

    /// The answer to a request about the past, without slots: those of the link are for what flows.
    pub fn answer(
        &self,
        out: &mut Vec<u8>,
        id: &str,
        ask: Ask,
        bytes_max: usize,
        ahead: &AheadOfLink,
    ) {
        let dialect = Dialect { slots: false, ..Dialect::of(self.agreed) };
        let now = self.clock.now_seconds();
        let Some(view) = self.view(id) else {
            // It is gone since it was offered: whoever asked need not wait.
            return replication::answer_unknown(out, id, dialect, now, false);
        };
        let how = Answering { agreed: self.agreed, dialect, slot: 0, now, bytes_max };
        let chart = self.host.chart(id);
        let (what, chart) = ((id, &view), chart.as_deref());
        replication::answer_past(out, what, chart, ask, &how, &mut ahead.lock());
    }

    /// Appends what is held of a chart that flows, or did.
    pub fn put_offer(&self, out: &mut Vec<u8>, chart: &Chart) {
        let (first, last) = chart.lock().held();
        if last.0 > 0 {
            let wall = self.clock.now_seconds().max(last);
            pluginsd::offer(out, chart.id(), first.0, last.0, wall.0);
        }
    }
}

/// Everything that can be read of a chart, live or archived.
pub fn whole_view(host: &Host, id: &str) -> Option<View> {
    let chart = host.find_any_chart(id).filter(|chart| **chart.id() == *id)?;
    let mut view = View::of(&chart.lock());
    for dim in host.archived_dimensions(&chart) {
        view.dims.push((dim.id, dim.reader));
    }
    Some(view)
}

fn put_archived<'a>(
    out: &mut Vec<u8>,
    chart: &Chart,
    state: &ChartState,
    dims: impl Iterator<Item = &'a Dimension>,
    first: UnixSeconds,
    last: UnixSeconds,
    now: UnixSeconds,
) {
    if last.0 <= 0 {
        return;
    }
    let meta = &state.meta;
    let name = if *meta.name == **chart.id() {
        ""
    } else {
        meta.name.split_once('.').map_or(&*meta.name, |(_, name)| name)
    };
    let line = ChartLine {
        id: chart.id(),
        name,
        title: &meta.title,
        units: &meta.units,
        family: &meta.family,
        context: &meta.context,
        chart_type: meta.chart_type.name(),
        priority: meta.priority,
        update_every: meta.update_every.seconds(),
        obsolete: false,
        detail: meta.options.contains(ChartOptions::DETAIL),
        store_first: meta.options.contains(ChartOptions::STORE_FIRST),
        hidden: meta.options.contains(ChartOptions::HIDDEN),
        plugin: &meta.plugin,
        module: &meta.module,
    };
    pluginsd::archived(out, &line);
    for dim in dims {
        let line = DimensionLine {
            id: &dim.id,
            name: &dim.name,
            algorithm: dim.algorithm.name(),
            multiplier: dim.multiplier,
            divisor: dim.divisor,
            obsolete: false,
            hidden: dim.is_hidden(),
            noreset: dim.options.contains(DimensionOptions::NO_RESET),
        };
        pluginsd::archived_dimension(out, &line);
    }
    pluginsd::offer(out, chart.id(), first.0, last.0, now.max(last).0);
}

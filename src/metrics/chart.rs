//! A chart: its definition, its dimensions and its place in time, behind one lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitflags::bitflags;
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use super::collect::Point;
use super::dimension::{Algorithm, Dimension, DimensionOptions, DimensionSpec};
use super::host::HostLink;
use super::labels::{LabelSource, Labels};
use crate::base::ids::MachineGuid;
use crate::base::intern::intern;
use crate::base::time::{UnixMicros, UnixSeconds, UpdateEvery};
use crate::storage::{MetricKey, StorageError};
use crate::wire::pluginsd::ReplayEnd;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChartType {
    #[default]
    Line,
    Area,
    Stacked,
    Heatmap,
}

impl ChartType {
    /// Lower case only; everything else is a line.
    pub fn parse(word: &str) -> ChartType {
        match word {
            "area" => ChartType::Area,
            "stacked" => ChartType::Stacked,
            "heatmap" => ChartType::Heatmap,
            _ => ChartType::Line,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            ChartType::Line => "line",
            ChartType::Area => "area",
            ChartType::Stacked => "stacked",
            ChartType::Heatmap => "heatmap",
        }
    }
}

bitflags! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ChartOptions: u8 {
        const OBSOLETE = 1;
        const DETAIL = 2;
        /// The first collection is stored too.
        const STORE_FIRST = 4;
        const HIDDEN = 8;
    }
}

impl ChartOptions {
    /// Looks for the option words as substrings, as every agent does.
    pub fn parse(words: &str) -> ChartOptions {
        let mut options = ChartOptions::empty();
        options.set(ChartOptions::OBSOLETE, words.contains("obsolete"));
        options.set(ChartOptions::DETAIL, words.contains("detail"));
        options.set(ChartOptions::STORE_FIRST, words.contains("store_first"));
        options.set(ChartOptions::HIDDEN, words.contains("hidden"));
        options
    }
}

/// What a CHART line says.
#[derive(Clone, Copy, Debug)]
pub struct ChartSpec<'a> {
    /// `type.id`; the executor has checked that both halves are there.
    pub id: &'a str,
    /// Without its `type.`; empty means none of its own.
    pub name: &'a str,
    pub title: &'a str,
    pub units: &'a str,
    /// Empty means the type.
    pub family: &'a str,
    /// Empty means the id.
    pub context: &'a str,
    pub chart_type: ChartType,
    pub priority: i64,
    pub update_every: UpdateEvery,
    /// `None`: not said. Then a chart loses all its options but `hidden`.
    pub options: Option<ChartOptions>,
    pub plugin: &'a str,
    pub module: &'a str,
}

impl Default for ChartSpec<'_> {
    fn default() -> Self {
        ChartSpec {
            id: "",
            name: "",
            title: "",
            units: "",
            family: "",
            context: "",
            chart_type: ChartType::Line,
            priority: 1000,
            update_every: UpdateEvery::SECOND,
            options: None,
            plugin: "",
            module: "",
        }
    }
}

/// The definition of a chart as it stands.
#[derive(Clone, Debug)]
pub struct ChartMeta {
    /// Full name, `type.name`; the id where it has no name of its own.
    pub name: Arc<str>,
    pub title: Arc<str>,
    pub units: Arc<str>,
    pub family: Arc<str>,
    pub context: Arc<str>,
    pub plugin: Arc<str>,
    pub module: Arc<str>,
    pub chart_type: ChartType,
    pub options: ChartOptions,
    pub priority: i64,
    pub update_every: UpdateEvery,
}

/// Called for every collection, with the chart's lock held: the host's link to its parent.
pub trait Tap: Send + Sync {
    /// A slot ending at `end` has just been stored; every dimension's `current` holds its sample.
    fn slot(&self, chart: &Chart, state: &mut ChartState, end: UnixSeconds);

    /// A collection (BEGIN..END) is complete; dimensions with `updated` set hold their raw value in `collected`.
    /// `since_us` is the time since the collection before it.
    fn collected(&self, chart: &Chart, state: &mut ChartState, since_us: i64);

    /// The definition of a chart changed outside a collection (obsolete, labels). Called without data following.
    fn redefined(&self, chart: &Chart, state: &mut ChartState);

    /// The chart is live here, or its past is complete: the parent may hear of it. Called without data following.
    fn caught_up(&self, chart: &Chart, state: &mut ChartState) {
        let _ = (chart, state);
    }

    /// Older samples were added to a chart: a parent that has looked already should look again.
    fn filled(&self, chart: &Chart, state: &mut ChartState) {
        let _ = (chart, state);
    }

    /// A part of the child's answer to what the parent asked for; only while [`Upstream::relaying`] is set, or, for its
    /// end, just was.
    fn relayed(&self, chart: &Chart, state: &mut ChartState, part: Relayed<'_>) {
        let _ = (chart, state, part);
    }

    /// A batch of collections is through: now is the time to wake whoever sends. Called without any chart lock.
    fn flush(&self);

    /// What leaves here is compressed, on the connection that stands now.
    fn is_compressed(&self) -> bool {
        false
    }
}

/// Of a block of replicated samples that is passed on as it comes.
#[derive(Clone, Copy, Debug)]
pub enum Relayed<'a> {
    Slot(&'a Point<'a>),
    End(&'a ReplayEnd),
}

/// What the sender keeps per chart; its meaning is the sender's own (`stream::sender`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Upstream {
    /// The connection whose parent knows this chart; 0 = none does.
    pub connection: u32,
    /// The chart's number on that connection.
    pub slot: u32,
    /// [`ChartState::version`] as the parent knows it.
    pub version: u32,
    /// Wall-clock second after which a peer without replication is sent true durations.
    pub resync_until: i64,
    /// Fingerprint of the chart's variables as the parent knows them.
    pub variables: u32,
    /// Whether the host's filter lets this chart through: unknown, no, yes.
    pub wanted: Option<bool>,
    /// The parent has what was stored before; live samples may follow.
    pub streaming: bool,
    /// The parent's request was passed on to the child; what the child answers goes up.
    pub relaying: bool,
}

pub struct Chart {
    id: Arc<str>,
    /// Length of the part before the first dot.
    type_len: usize,
    pub(super) host: HostLink,
    /// The metadata database may know dimensions that are not here.
    pub(super) older_dims: AtomicBool,
    /// Gone from its host: whoever still holds it looks it up again.
    retired: AtomicBool,
    state: Mutex<ChartState>,
}

/// Which neighbour on the way of a host's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    Child,
    Parent,
}

/// From which neighbours older samples of a chart are still arriving. Each end of a link speaks for its own only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filling {
    child: bool,
    parent: bool,
}

impl Filling {
    pub fn is_any(self) -> bool {
        self.child || self.parent
    }

    pub fn set(&mut self, from: Neighbour, is_filling: bool) {
        match from {
            Neighbour::Child => self.child = is_filling,
            Neighbour::Parent => self.parent = is_filling,
        }
    }
}

/// Everything of a chart that changes.
pub struct ChartState {
    pub meta: ChartMeta,
    pub labels: Labels,
    /// Custom variables for alarm expressions.
    pub variables: Vec<(Arc<str>, f64)>,
    pub dims: Vec<Dimension>,
    /// Only once there are too many dimensions to look through.
    by_id: Option<Box<FxHashMap<Arc<str>, u32>>>,

    /// Grows whenever the definition, a dimension or a label changes; never 0.
    pub version: u32,
    /// The version that the metadata database has; 0 = none.
    pub(super) noted: u32,
    host: HostLink,
    pub upstream: Upstream,
    /// Its past is still arriving from the child: nothing of it goes upstream yet.
    pub replicating: bool,
    /// It is live, and older samples are still arriving.
    pub filling: Filling,
    /// What the child holds of it (see [`ChartState::offered`]), where this agent keeps nothing itself.
    pub downstream: Option<(UnixSeconds, UnixSeconds)>,

    /// Slots stored, ever.
    pub counter: u64,
    /// Collections of this run.
    pub counter_done: u64,
    /// Grows with every replicated slot, so that what was read of the past before is known to be old.
    pub past_version: u64,
    /// Time of the last collection; 0 = never.
    pub last_collected: UnixMicros,
    /// End of the last stored slot; 0 = never.
    pub last_updated: UnixSeconds,
    /// Discard the next given duration and use the clock.
    pub sync_clock: bool,
    pub(super) last_collected_total: f64,
    /// When anybody last asked for this chart's data; obsolete charts that are looked at stay.
    pub last_accessed: UnixSeconds,
}

/// From this many dimensions on a chart keeps an index of them.
const INDEX_FROM: usize = 16;

/// Dimensions one chart may have; more are refused, so a broken plugin cannot eat all memory.
pub const DIMENSIONS_MAX: usize = 65_535;

/// Why a dimension could not be added.
#[derive(Debug, thiserror::Error)]
pub enum DimensionError {
    #[error("chart '{chart}' has {DIMENSIONS_MAX} dimensions already")]
    TooMany { chart: Arc<str> },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Chart {
    pub(super) fn new(id: Arc<str>, host: HostLink, meta: ChartMeta) -> Chart {
        let type_len = id.find('.').unwrap_or(id.len());
        let mut labels = Labels::new();
        let or_none =
            |text: &str| if text.is_empty() { "[none]".to_owned() } else { text.to_owned() };
        labels.set("_collect_plugin", &or_none(&meta.plugin), LabelSource::AUTO);
        labels.set("_collect_module", &or_none(&meta.module), LabelSource::AUTO);
        let state = ChartState {
            host: Arc::clone(&host),
            meta,
            labels,
            variables: Vec::new(),
            dims: Vec::new(),
            by_id: None,
            version: 1,
            noted: 0,
            upstream: Upstream::default(),
            replicating: false,
            filling: Filling::default(),
            downstream: None,
            counter: 0,
            counter_done: 0,
            past_version: 0,
            last_collected: UnixMicros(0),
            last_updated: UnixSeconds(0),
            sync_clock: true,
            last_collected_total: 0.0,
            last_accessed: UnixSeconds(0),
        };
        Chart {
            id,
            type_len,
            older_dims: AtomicBool::new(host.is_remembered()),
            host,
            retired: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// A chart for reading alone, that is no part of its host.
    pub(super) fn archived(
        id: Arc<str>,
        host: &HostLink,
        meta: ChartMeta,
        labels: Labels,
        dims: Vec<Dimension>,
    ) -> Chart {
        let mut chart = Chart::new(id, Arc::clone(host), meta);
        chart.older_dims = AtomicBool::new(false);
        let state = chart.state.get_mut();
        state.labels = labels;
        state.dims = dims;
        chart
    }

    /// `type.id`
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The host it belongs to.
    pub fn host_guid(&self) -> MachineGuid {
        self.host.guid
    }

    /// The part before the first dot.
    pub fn type_part(&self) -> &str {
        &self.id[..self.type_len]
    }

    /// The part after the first dot.
    pub fn id_part(&self) -> &str {
        self.id.get(self.type_len + 1..).unwrap_or("")
    }

    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, ChartState> {
        self.state.lock()
    }

    #[inline]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Lets go of everything: its writers and readers end with it.
    pub(super) fn retire(&self, state: &mut ChartState) {
        self.retired.store(true, Ordering::Release);
        state.dims = Vec::new();
        state.by_id = None;
    }

    /// The chart that goes on in place of this one, without the dimensions that are `over`: indexes into a chart's
    /// dimensions never change, so it has to be another chart. This one is retired.
    pub(super) fn succeed(
        &self,
        state: &mut ChartState,
        over: &dyn Fn(&Dimension) -> bool,
    ) -> Chart {
        let mut heir = Chart::new(Arc::clone(&self.id), Arc::clone(&self.host), state.meta.clone());
        let new = heir.state.get_mut();
        std::mem::swap(new, state);
        new.dims.retain(|dim| !over(dim));
        new.by_id = None;
        new.index_dimensions();
        new.touch();
        heir.older_dims.store(self.host.is_remembered(), Ordering::Release);
        self.retired.store(true, Ordering::Release);
        heir
    }

    /// Adds a dimension or updates it; gives its index, which stays valid as long as the chart lives.
    pub fn define_dimension(&self, spec: &DimensionSpec<'_>) -> Result<u32, DimensionError> {
        self.define_dimension_locked(&mut self.lock(), spec)
    }

    pub fn define_dimension_locked(
        &self,
        state: &mut ChartState,
        spec: &DimensionSpec<'_>,
    ) -> Result<u32, DimensionError> {
        let or_one = |n: i64| if n == 0 { 1 } else { n };
        let name = if spec.name.is_empty() { spec.id } else { spec.name };
        if let Some(index) = state.dimension_index(spec.id) {
            let dim = &mut state.dims[index as usize];
            let (multiplier, divisor) = (or_one(spec.multiplier), or_one(spec.divisor));
            let changed = *dim.name != *name
                || dim.algorithm != spec.algorithm
                || dim.multiplier != multiplier
                || dim.divisor != divisor
                || dim.options != spec.options;
            if changed {
                if *dim.name != *name {
                    dim.name = intern(name);
                }
                dim.algorithm = spec.algorithm;
                dim.multiplier = multiplier;
                dim.divisor = divisor;
                dim.options = spec.options;
                state.touch();
            }
            return Ok(index);
        }
        if state.dims.len() >= DIMENSIONS_MAX {
            return Err(DimensionError::TooMany { chart: Arc::clone(&self.id) });
        }
        let id = intern(spec.id);
        let key = MetricKey {
            host: self.host.guid,
            chart: Arc::clone(&self.id),
            dimension: Arc::clone(&id),
        };
        let metric = self.host.engine.open(&key, state.meta.update_every)?;
        let index = u32::try_from(state.dims.len()).unwrap_or(u32::MAX);
        if state.dims.len() == state.dims.capacity() {
            // Charts mostly have few dimensions and get them all at once: doubling from zero would waste more.
            state.dims.reserve_exact(state.dims.len().clamp(1, 64));
        }
        let store_first = state.meta.options.contains(ChartOptions::STORE_FIRST);
        let name = if name == spec.id { Arc::clone(&id) } else { intern(name) };
        let dim = Dimension::new(id, name, spec, metric);
        state.dims.push(Dimension { collections: u32::from(store_first), ..dim });
        if let Some(by_id) = &mut state.by_id {
            by_id.insert(Arc::clone(&state.dims[index as usize].id), index);
        } else {
            state.index_dimensions();
        }
        state.touch();
        Ok(index)
    }

    /// Marks the chart, and with it all its dimensions, as no longer collected.
    pub fn mark_obsolete(&self) {
        let mut state = self.lock();
        if !state.meta.options.contains(ChartOptions::OBSOLETE) {
            state.meta.options.insert(ChartOptions::OBSOLETE);
            state.touch();
            self.announce(&mut state);
        }
    }

    /// Tells the parent of a change that no collection will carry.
    pub fn announce(&self, state: &mut ChartState) {
        if let Some(tap) = self.host.tap() {
            tap.redefined(self, state);
        }
    }

    /// Adopts another interval: samples of the old one cannot share a ring with those of the new.
    pub(super) fn change_update_every(&self, state: &mut ChartState, every: UpdateEvery) {
        if state.meta.update_every == every {
            return;
        }
        state.meta.update_every = every;
        for dim in &mut state.dims {
            let key = MetricKey {
                host: self.host.guid,
                chart: Arc::clone(&self.id),
                dimension: Arc::clone(&dim.id),
            };
            match self.host.engine.open(&key, every) {
                Ok(metric) => {
                    dim.writer = metric.writer;
                    dim.reader = metric.reader;
                }
                Err(error) => log::error!(
                    "cannot follow chart '{}' to update every {}: {error}",
                    self.id,
                    every.seconds()
                ),
            }
        }
        state.touch();
    }
}

impl ChartState {
    /// The definition changed: the parent must hear of it before the next data.
    pub fn touch(&mut self) {
        self.version = self.version.wrapping_add(1).max(1);
        self.host.definitions_changed();
    }

    fn index_dimensions(&mut self) {
        if self.dims.len() > INDEX_FROM {
            let all = self.dims.iter().zip(0u32..).map(|(dim, i)| (Arc::clone(&dim.id), i));
            self.by_id = Some(Box::new(all.collect()));
        }
    }

    pub fn dimension_index(&self, id: &str) -> Option<u32> {
        if let Some(by_id) = &self.by_id {
            return by_id.get(id).copied();
        }
        self.dims.iter().zip(0u32..).find(|(dim, _)| *dim.id == *id).map(|(_, index)| index)
    }

    pub fn dimension(&self, id: &str) -> Option<&Dimension> {
        self.dimension_index(id).map(|index| &self.dims[index as usize])
    }

    /// The metadata database has this version.
    pub fn is_noted(&self) -> bool {
        self.noted == self.version
    }

    pub(super) fn forget_noted(&mut self) {
        self.noted = 0;
    }

    pub fn is_obsolete(&self) -> bool {
        self.meta.options.contains(ChartOptions::OBSOLETE)
    }

    /// Sets a custom variable; true when its value changed.
    pub fn set_variable(&mut self, name: &str, value: f64) -> bool {
        let before = self.variables.len();
        let changed = super::host::set_variable(&mut self.variables, name, value);
        if self.variables.len() > before {
            self.host.definitions_changed();
        }
        changed
    }

    /// First and last slot that any dimension still holds.
    pub fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)> {
        self.dims
            .iter()
            .filter_map(|dim| dim.reader.retention())
            .reduce(|(first, last), (f, l)| (first.min(f), last.max(l)))
    }

    pub(super) fn update_meta(&mut self, meta: ChartMeta) -> bool {
        let old = &self.meta;
        let same = old.name == meta.name
            && old.title == meta.title
            && old.units == meta.units
            && old.family == meta.family
            && old.context == meta.context
            && old.plugin == meta.plugin
            && old.module == meta.module
            && old.chart_type == meta.chart_type
            && old.options == meta.options
            && old.priority == meta.priority;
        if !same {
            self.meta = ChartMeta { update_every: self.meta.update_every, ..meta };
            self.touch();
        }
        !same
    }
}

impl DimensionSpec<'_> {
    /// A dimension of an internal collector.
    pub fn plain<'a>(
        id: &'a str,
        algorithm: Algorithm,
        multiplier: i64,
        divisor: i64,
    ) -> DimensionSpec<'a> {
        DimensionSpec {
            id,
            name: "",
            algorithm,
            multiplier,
            divisor,
            options: DimensionOptions::empty(),
        }
    }
}

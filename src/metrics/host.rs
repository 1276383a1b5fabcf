//! A host: identity, facts about the machine, labels, variables, functions and the index of its charts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::chart::{Chart, ChartMeta, ChartOptions, ChartSpec, ChartState, Tap};
use super::dimension::Dimension;
use super::functions::{FUNCTIONS_MAX, Function};
use super::labels::Labels;
use crate::base::ids::MachineGuid;
use crate::base::intern::intern;
use crate::base::time::UnixSeconds;
use crate::storage::metadata::Database;
use crate::storage::{Mode, StorageEngine};

/// Charts one host may have; more are refused.
pub const CHARTS_MAX: usize = 1_000_000;

/// Variables one host or chart may have; more are ignored.
pub const VARIABLES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// This machine.
    Local,
    /// Streamed to us.
    Child,
    /// Made by a plugin of ours.
    Virtual,
}

/// Whether a host's alarms are evaluated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HealthPolicy {
    Off = 0,
    On = 1,
    WhileConnected = 2,
}

/// `NETDATA_…` facts about a machine, by variable name, as system-info.sh and STREAM requests give them.
pub type SystemInfo = BTreeMap<String, String>;

/// What a host says about itself; replaced as a whole when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostInfo {
    pub hostname: String,
    pub registry_hostname: String,
    pub os: String,
    pub timezone: String,
    pub abbrev_timezone: String,
    /// Seconds east of UTC.
    pub utc_offset: i64,
    pub tags: String,
    pub program_name: String,
    pub program_version: String,
    /// Seconds.
    pub update_every: i64,
    /// Distance from the origin: 0 for the local host, 1 for a child connected directly.
    pub hops: i64,
    pub system: SystemInfo,
    pub ml_capable: bool,
    pub ml_enabled: bool,
    pub mc_version: i64,
    pub claim_id: Option<String>,
    pub node_id: Option<String>,
}

impl HostInfo {
    pub fn named(hostname: &str) -> HostInfo {
        HostInfo {
            hostname: hostname.to_owned(),
            registry_hostname: hostname.to_owned(),
            update_every: 1,
            ..HostInfo::default()
        }
    }
}

/// How this agent keeps a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    pub mode: Mode,
    /// Entries asked for, before rounding.
    pub history: i64,
    pub health_enabled: bool,
    /// `gap when lost iterations above`.
    pub gap_when_lost: i64,
    /// `is ephemeral node`: it may be forgotten when it stays away.
    pub ephemeral: bool,
}

impl Default for HostSettings {
    fn default() -> Self {
        HostSettings {
            mode: Mode::Ram,
            history: 3600,
            health_enabled: false,
            gap_when_lost: 1,
            ephemeral: false,
        }
    }
}

/// What charts need of their host on the hot path.
pub(super) struct Shared {
    pub(super) guid: MachineGuid,
    pub(super) engine: Arc<dyn StorageEngine>,
    pub(super) gap_when_lost: i64,
    pub(super) tap: RwLock<Option<Arc<dyn Tap>>>,
    info: RwLock<Arc<HostInfo>>,
    /// Where charts that are not live are looked up, and whatever is defined is remembered.
    database: OnceLock<Arc<Database>>,
    /// A chart's definition changed since the database was told.
    redefined: AtomicBool,
    /// Grows with every change of a chart's definition, and with charts, dimensions and variables that come and go.
    definitions: AtomicU64,
    /// The database may know charts that are not live.
    older_charts: AtomicBool,
}

pub(super) type HostLink = Arc<Shared>;

impl Shared {
    pub(super) fn hostname(&self) -> String {
        self.info.read().hostname.clone()
    }

    pub(super) fn tap(&self) -> Option<Arc<dyn Tap>> {
        self.tap.read().clone()
    }

    pub(super) fn definitions_changed(&self) {
        self.redefined.store(true, Ordering::Release);
        self.definitions.fetch_add(1, Ordering::Release);
    }

    /// Its charts have a place in the metadata database.
    pub(super) fn is_remembered(&self) -> bool {
        self.database.get().is_some()
    }
}

#[derive(Default)]
struct ChartIndex {
    by_id: FxHashMap<Arc<str>, Arc<Chart>>,
    /// Only charts with a name of their own.
    by_name: FxHashMap<Arc<str>, Arc<Chart>>,
    in_order: Vec<Arc<Chart>>,
}

pub struct Host {
    shared: HostLink,
    kind: HostKind,
    settings: HostSettings,
    charts: RwLock<ChartIndex>,
    labels: RwLock<Arc<Labels>>,
    /// Grows with every change of labels, so senders can tell.
    labels_version: AtomicI64,
    variables: RwLock<Vec<(Arc<str>, f64)>>,
    functions: RwLock<Vec<Arc<Function>>>,
    connected: AtomicBool,
    connected_at: AtomicI64,
    disconnected_at: AtomicI64,
    /// Known from an earlier time alone: it has no live charts.
    archived: bool,
    /// Somebody is about to connect.
    expected: AtomicBool,
    /// A [`HealthPolicy`].
    health: AtomicU8,
    /// Seconds after a connection before alarms are evaluated.
    health_postponed: AtomicI64,
    /// The connection whose charts were looked through for those that did not come back, by its time.
    pub(super) looked_through: AtomicI64,
}

/// Why a chart could not be defined.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    #[error("'{0}' is not of the form type.id")]
    NotTypeDotId(String),
    #[error("the host has {CHARTS_MAX} charts already")]
    TooMany,
}

impl Host {
    pub fn new(
        guid: MachineGuid,
        kind: HostKind,
        info: HostInfo,
        engine: Arc<dyn StorageEngine>,
        settings: HostSettings,
    ) -> Arc<Host> {
        Arc::new(Host::build(guid, kind, info, engine, settings, false))
    }

    /// A host of which only the past is known.
    pub fn archived(
        guid: MachineGuid,
        info: HostInfo,
        engine: Arc<dyn StorageEngine>,
        settings: HostSettings,
    ) -> Arc<Host> {
        Arc::new(Host::build(guid, HostKind::Child, info, engine, settings, true))
    }

    fn build(
        guid: MachineGuid,
        kind: HostKind,
        info: HostInfo,
        engine: Arc<dyn StorageEngine>,
        settings: HostSettings,
        archived: bool,
    ) -> Host {
        let shared = Shared {
            guid,
            engine,
            gap_when_lost: settings.gap_when_lost.max(1),
            tap: RwLock::new(None),
            info: RwLock::new(Arc::new(info)),
            database: OnceLock::new(),
            redefined: AtomicBool::new(false),
            definitions: AtomicU64::new(1),
            older_charts: AtomicBool::new(false),
        };
        let health = if settings.health_enabled { HealthPolicy::On } else { HealthPolicy::Off };
        Host {
            shared: Arc::new(shared),
            kind,
            settings,
            charts: RwLock::default(),
            labels: RwLock::default(),
            labels_version: AtomicI64::new(0),
            variables: RwLock::default(),
            functions: RwLock::default(),
            connected: AtomicBool::new(kind != HostKind::Child),
            connected_at: AtomicI64::new(0),
            disconnected_at: AtomicI64::new(0),
            archived,
            expected: AtomicBool::new(false),
            health: AtomicU8::new(health as u8),
            health_postponed: AtomicI64::new(0),
            looked_through: AtomicI64::new(0),
        }
    }

    pub fn guid(&self) -> MachineGuid {
        self.shared.guid
    }

    pub fn kind(&self) -> HostKind {
        self.kind
    }

    pub fn settings(&self) -> &HostSettings {
        &self.settings
    }

    pub fn engine(&self) -> &Arc<dyn StorageEngine> {
        &self.shared.engine
    }

    pub fn hostname(&self) -> String {
        self.shared.hostname()
    }

    pub fn info(&self) -> Arc<HostInfo> {
        Arc::clone(&self.shared.info.read())
    }

    /// Changes what is known about the host. `change` runs under a lock: it only edits its argument.
    pub fn update_info(&self, change: impl FnOnce(&mut HostInfo)) {
        let mut info = self.shared.info.write();
        change(Arc::make_mut(&mut info));
    }

    // --- connection ------------------------------------------------------------------------------

    /// The host's samples arrive now (always so for the local one).
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    pub fn set_connected(&self, connected: bool, at: UnixSeconds) {
        self.connected.store(connected, Ordering::Release);
        self.expected.store(false, Ordering::Release);
        let when = if connected { &self.connected_at } else { &self.disconnected_at };
        when.store(at.0, Ordering::Release);
    }

    pub fn connected_at(&self) -> UnixSeconds {
        UnixSeconds(self.connected_at.load(Ordering::Acquire))
    }

    /// When its connection was lost; 0 = never had one.
    pub fn disconnected_at(&self) -> UnixSeconds {
        UnixSeconds(self.disconnected_at.load(Ordering::Acquire))
    }

    /// Whether alarms of the host are evaluated here, and how many seconds after it connects they begin to be.
    pub fn set_health(&self, policy: HealthPolicy, postponed_s: i64) {
        self.health_postponed.store(postponed_s.max(0), Ordering::Release);
        self.health.store(policy as u8, Ordering::Release);
    }

    pub fn health(&self) -> HealthPolicy {
        match self.health.load(Ordering::Acquire) {
            0 => HealthPolicy::Off,
            1 => HealthPolicy::On,
            _ => HealthPolicy::WhileConnected,
        }
    }

    pub fn health_postponed_s(&self) -> i64 {
        self.health_postponed.load(Ordering::Acquire)
    }

    /// Somebody is about to connect: the host is not to go away. Until [`Host::set_connected`].
    pub(super) fn expect(&self) {
        self.expected.store(true, Ordering::Release);
    }

    /// Goes on from what is known of an archived host, as far as its new connection has not said it yet.
    pub(super) fn take_over(&self, archived: &Host) {
        let before = archived.info();
        self.update_info(|info| {
            info.claim_id = info.claim_id.take().or_else(|| before.claim_id.clone());
            info.node_id = info.node_id.take().or_else(|| before.node_id.clone());
        });
        if self.labels().is_empty() {
            self.set_labels((*archived.labels()).clone());
        }
    }

    /// Neither connected nor about to be.
    pub(super) fn is_left(&self) -> bool {
        !self.is_connected() && !self.expected.load(Ordering::Acquire)
    }

    /// Known from an earlier time alone: it has no live charts, and has not been here in this run, or long ago.
    pub fn is_archived(&self) -> bool {
        self.archived
    }

    /// It may be forgotten when it stays away, as configuration here or at the host itself says.
    pub fn is_ephemeral(&self) -> bool {
        self.settings.ephemeral || self.labels().get("_is_ephemeral") == Some("true")
    }

    // --- what is not live ------------------------------------------------------------------------

    /// Links the host to the metadata database. Once, before it has charts.
    pub fn remember_in(&self, database: &Arc<Database>) {
        if self.settings.mode.persists() && self.shared.database.set(Arc::clone(database)).is_ok() {
            self.shared.older_charts.store(true, Ordering::Release);
            self.shared.definitions_changed();
        }
    }

    pub fn database(&self) -> Option<&Arc<Database>> {
        self.shared.database.get()
    }

    /// Whether the database may know charts that are not live.
    pub fn has_older_charts(&self) -> bool {
        self.shared.older_charts.load(Ordering::Acquire)
    }

    pub(super) fn set_older_charts(&self, older: bool) {
        self.shared.older_charts.store(older, Ordering::Release);
    }

    /// Another number after every change of definitions, whoever asks.
    pub fn definitions_version(&self) -> u64 {
        self.shared.definitions.load(Ordering::Acquire)
    }

    /// Whether a definition changed since this was asked last.
    pub(super) fn take_redefined(&self) -> bool {
        self.shared.redefined.swap(false, Ordering::AcqRel)
    }

    pub(super) fn definitions_changed(&self) {
        self.shared.definitions_changed();
    }

    pub(super) fn link(&self) -> &HostLink {
        &self.shared
    }

    // --- tap -------------------------------------------------------------------------------------

    /// Links all charts, present and future, to a sender; `None` cuts the link.
    pub fn set_tap(&self, tap: Option<Arc<dyn Tap>>) {
        *self.shared.tap.write() = tap;
    }

    pub fn tap(&self) -> Option<Arc<dyn Tap>> {
        self.shared.tap()
    }

    /// A batch of collections is through; wakes the sender, if there is one.
    pub fn flush(&self) {
        if let Some(tap) = self.shared.tap() {
            tap.flush();
        }
    }

    // --- charts ----------------------------------------------------------------------------------

    pub fn chart(&self, id: &str) -> Option<Arc<Chart>> {
        self.charts.read().by_id.get(id).cloned()
    }

    pub fn chart_by_name(&self, name: &str) -> Option<Arc<Chart>> {
        self.charts.read().by_name.get(name).cloned()
    }

    /// By id, else by name.
    pub fn find_chart(&self, id_or_name: &str) -> Option<Arc<Chart>> {
        let index = self.charts.read();
        index.by_id.get(id_or_name).or_else(|| index.by_name.get(id_or_name)).cloned()
    }

    /// All charts in order of creation.
    pub fn charts(&self) -> Vec<Arc<Chart>> {
        self.charts.read().in_order.clone()
    }

    pub fn charts_count(&self) -> usize {
        self.charts.read().in_order.len()
    }

    /// Adds a chart, or updates the one of that id: its metadata change, its history stays, "obsolete" is cleared
    /// unless the definition says otherwise.
    pub fn define_chart(&self, spec: &ChartSpec<'_>) -> Result<Arc<Chart>, ChartError> {
        let Some((type_part, id_part)) = spec.id.split_once('.') else {
            return Err(ChartError::NotTypeDotId(spec.id.to_owned()));
        };
        if type_part.is_empty() || id_part.is_empty() {
            return Err(ChartError::NotTypeDotId(spec.id.to_owned()));
        }
        let mut index = self.charts.write();
        let existing = index.by_id.get(spec.id).cloned();
        if existing.is_none() && index.in_order.len() >= CHARTS_MAX {
            return Err(ChartError::TooMany);
        }
        let name = index.choose_name(spec, type_part, existing.is_none());
        let or = |text: &str, default: &str| intern(if text.is_empty() { default } else { text });
        let mut meta = ChartMeta {
            name,
            title: intern(spec.title),
            units: intern(spec.units),
            family: or(spec.family, type_part),
            context: or(spec.context, spec.id),
            plugin: intern(spec.plugin),
            module: intern(spec.module),
            chart_type: spec.chart_type,
            options: spec.options.unwrap_or_default(),
            priority: spec.priority,
            update_every: spec.update_every,
        };
        if let Some(chart) = existing {
            let mut state = chart.lock();
            if spec.options.is_none() {
                meta.options |= state.meta.options & ChartOptions::HIDDEN;
            }
            let renamed = state.meta.name != meta.name;
            let old_name = Arc::clone(&state.meta.name);
            let new_name = Arc::clone(&meta.name);
            state.update_meta(meta);
            chart.change_update_every(&mut state, spec.update_every);
            if state.is_obsolete() {
                chart.announce(&mut state);
            }
            drop(state);
            if renamed {
                if index.by_name.get(&old_name).is_some_and(|named| Arc::ptr_eq(named, &chart)) {
                    index.by_name.remove(&old_name);
                }
                if new_name != *chart.id() {
                    index.by_name.insert(new_name, Arc::clone(&chart));
                }
            }
            return Ok(chart);
        }
        let id = intern(spec.id);
        let named = (meta.name != id).then(|| Arc::clone(&meta.name));
        let chart = Arc::new(Chart::new(Arc::clone(&id), Arc::clone(&self.shared), meta));
        index.by_id.insert(id, Arc::clone(&chart));
        if let Some(name) = named {
            index.by_name.insert(name, Arc::clone(&chart));
        }
        index.in_order.push(Arc::clone(&chart));
        self.shared.definitions_changed();
        Ok(chart)
    }

    /// Takes the charts that are `over` out of the host, and gives them; whoever holds one sees
    /// [`Chart::is_retired`].
    pub fn retire_charts(&self, over: &dyn Fn(&Chart, &ChartState) -> bool) -> Vec<Arc<Chart>> {
        let mut index = self.charts.write();
        let mut gone = Vec::new();
        index.in_order.retain(|chart| {
            let mut state = chart.lock();
            let over = over(chart, &state);
            if over {
                chart.retire(&mut state);
                gone.push(Arc::clone(chart));
            }
            !over
        });
        for chart in &gone {
            index.by_id.remove(chart.id());
        }
        if !gone.is_empty() {
            index.by_name.retain(|_, named| !named.is_retired());
            self.shared.definitions_changed();
        }
        gone
    }

    /// Takes the dimensions that are `over` out of a chart, and gives their ids and names. The chart is replaced.
    pub fn retire_dimensions(
        &self,
        chart: &Arc<Chart>,
        over: &dyn Fn(&ChartState, &Dimension) -> bool,
    ) -> Vec<(Arc<str>, Arc<str>)> {
        let mut index = self.charts.write();
        let mut state = chart.lock();
        let gone = state.dims.iter().filter(|dim| over(&state, dim));
        let gone: Vec<_> = gone.map(|dim| (Arc::clone(&dim.id), Arc::clone(&dim.name))).collect();
        if gone.is_empty() || chart.is_retired() {
            return Vec::new();
        }
        let heir =
            Arc::new(chart.succeed(&mut state, &|dim| gone.iter().any(|(id, _)| *id == dim.id)));
        drop(state);
        let places = index.by_name.values_mut().filter(|named| Arc::ptr_eq(named, chart));
        places.for_each(|named| *named = Arc::clone(&heir));
        let places = index.in_order.iter_mut().filter(|other| Arc::ptr_eq(other, chart));
        places.for_each(|other| *other = Arc::clone(&heir));
        index.by_id.insert(Arc::clone(heir.id()), heir);
        gone
    }

    // --- labels, variables, functions --------------------------------------------------------------

    pub fn labels(&self) -> Arc<Labels> {
        Arc::clone(&self.labels.read())
    }

    pub fn set_labels(&self, labels: Labels) {
        let mut current = self.labels.write();
        if **current != labels {
            *current = Arc::new(labels);
            self.labels_version.fetch_add(1, Ordering::Release);
        }
    }

    pub fn labels_version(&self) -> i64 {
        self.labels_version.load(Ordering::Acquire)
    }

    /// Host variables in order of creation.
    pub fn variables(&self) -> Vec<(Arc<str>, f64)> {
        self.variables.read().clone()
    }

    /// Sets a host variable; true when its value changed.
    pub fn set_variable(&self, name: &str, value: f64) -> bool {
        let mut variables = self.variables.write();
        let before = variables.len();
        let changed = set_variable(&mut variables, name, value);
        if variables.len() > before {
            self.shared.definitions_changed();
        }
        changed
    }

    pub fn variable(&self, name: &str) -> Option<f64> {
        self.variables.read().iter().find(|(known, _)| **known == *name).map(|(_, value)| *value)
    }

    pub fn functions(&self) -> Vec<Arc<Function>> {
        self.functions.read().clone()
    }

    /// Registers a function; one of the same name and chart is replaced. False when there are too many.
    pub fn add_function(&self, function: Function) -> bool {
        let mut functions = self.functions.write();
        let function = Arc::new(function);
        if let Some(same) =
            functions.iter_mut().find(|f| f.name == function.name && f.chart == function.chart)
        {
            *same = function;
            return true;
        }
        if functions.len() >= FUNCTIONS_MAX {
            return false;
        }
        functions.push(function);
        true
    }

    /// Forgets the functions whose provider is gone.
    pub fn drop_dead_functions(&self) {
        self.functions.write().retain(|function| function.provider.is_alive());
    }
}

pub(super) fn set_variable(variables: &mut Vec<(Arc<str>, f64)>, name: &str, value: f64) -> bool {
    if let Some((_, old)) = variables.iter_mut().find(|(known, _)| **known == *name) {
        let changed = old.to_bits() != value.to_bits();
        *old = value;
        return changed;
    }
    if variables.len() >= VARIABLES_MAX {
        return false;
    }
    variables.push((intern(name), value));
    true
}

impl ChartIndex {
    /// The full name a chart gets: its own, made safe; its id where it has none or the name is taken.
    fn choose_name(&self, spec: &ChartSpec<'_>, type_part: &str, new: bool) -> Arc<str> {
        let taken = |name: &str| {
            self.by_name.get(name).is_some_and(|chart| **chart.id() != *spec.id)
                || (name != spec.id && self.by_id.contains_key(name))
        };
        let own = spec
            .name
            .strip_prefix(type_part)
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(spec.name);
        if own.is_empty() || own.eq_ignore_ascii_case("null") || own.eq_ignore_ascii_case("(null)")
        {
            if new && taken(spec.id) {
                let numbered =
                    (1..1000).map(|n| format!("{}_{n}", spec.id)).find(|name| !taken(name));
                return intern(&numbered.unwrap_or_else(|| spec.id.to_owned()));
            }
            return intern(spec.id);
        }
        let full = format!("{type_part}.{}", clean_chart_name(own));
        if taken(&full) { intern(spec.id) } else { intern(&full) }
    }
}

/// Everything but letters, digits, `.` and `-` becomes `_`, one per byte.
pub fn clean_chart_name(name: &str) -> String {
    name.bytes()
        .map(
            |b| {
                if b.is_ascii_alphanumeric() || b == b'.' || b == b'-' {
                    char::from(b)
                } else {
                    '_'
                }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::none::NoneEngine;

    fn host() -> Arc<Host> {
        let engine = Arc::new(NoneEngine::new());
        Host::new(
            MachineGuid::random(),
            HostKind::Local,
            HostInfo::named("h"),
            engine,
            HostSettings::default(),
        )
    }

    fn named<'a>(id: &'a str, name: &'a str) -> ChartSpec<'a> {
        ChartSpec { id, name, ..ChartSpec::default() }
    }

    #[test]
    fn names_are_cleaned_prefixed_and_found() {
        let host = host();
        let chart = host.define_chart(&named("disk_util.sda", "disk_util.my disk")).unwrap();
        assert_eq!(&*chart.lock().meta.name, "disk_util.my_disk");
        assert!(Arc::ptr_eq(&host.chart_by_name("disk_util.my_disk").unwrap(), &chart));
    }

    #[test]
    fn a_name_that_is_taken_is_not_used_twice() {
        let host = host();
        host.define_chart(&named("t.a", "x")).unwrap();
        let second = host.define_chart(&named("t.b", "x")).unwrap();
        assert_eq!(&*second.lock().meta.name, "t.b");
        let third = host.define_chart(&named("t.x", "")).unwrap();
        assert_eq!(&*third.lock().meta.name, "t.x_1");
    }

    #[test]
    fn defining_again_updates_and_raises_the_version() {
        let host = host();
        let chart = host.define_chart(&named("t.a", "")).unwrap();
        let before = chart.lock().version;
        host.define_chart(&named("t.a", "")).unwrap();
        assert_eq!(chart.lock().version, before);
        host.define_chart(&ChartSpec { title: "new", ..named("t.a", "") }).unwrap();
        assert_ne!(chart.lock().version, before);
    }

    #[test]
    fn ids_need_both_halves() {
        for id in ["", "a", ".", "a.", ".b"] {
            assert!(host().define_chart(&named(id, "")).is_err(), "{id}");
        }
    }
}

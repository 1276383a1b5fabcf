//! The alarms of one host: which definitions apply to which of its charts, and what the names in expressions stand for.
//!
//! Linking follows the host's definitions: whenever those changed, charts that are new or other are looked at again, and
//! names are resolved anew where they are used next. Between such changes nothing here allocates.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::alarm::{State, Status};
use super::expression::Expression;
use super::grammar::{Book, Definition, Kind, Pattern, Repeat};
use super::log::Remembered;
use crate::base::intern::intern;
use crate::base::pattern::SimplePattern;
use crate::base::time::MICROS;
use crate::metrics::{Chart, ChartState, Host};
use crate::query::lookup::{Found, Lane};

/// Alarms one host may have; more are not linked.
const ALARMS_MAX: usize = 200_000;
/// Alarms of charts that are gone, whose numbers are kept should they come back; beyond that all are forgotten.
const REMEMBERED_MAX: usize = 20_000;
/// Separators of the dimensions of `foreach`.
const LIST: &[u8] = b",|";

/// Definitions, and where each may apply.
#[derive(Default)]
pub struct Rules {
    pub book: Book,
    alarms: FxHashMap<Arc<str>, Vec<u32>>,
    templates: FxHashMap<Arc<str>, Vec<u32>>,
}

impl Rules {
    pub fn new(book: Book) -> Rules {
        let mut rules = Rules { book, ..Rules::default() };
        for (definition, index) in rules.book.definitions.iter().zip(0u32..) {
            let map = match definition.kind {
                Kind::Alarm => &mut rules.alarms,
                Kind::Template => &mut rules.templates,
            };
            map.entry(Arc::clone(&definition.on)).or_default().push(index);
        }
        rules
    }

    /// Those that are about a host, one flag for each definition. Of several alarms for one chart, and of several templates
    /// for the same families, of one name the first counts; `report` hears of the others.
    fn for_host(&self, host: &Host, report: &mut dyn FnMut(&Definition)) -> Box<[bool]> {
        let (info, labels) = (host.info(), host.labels());
        let mut seen = FxHashSet::default();
        let flags = self.book.definitions.iter().map(|definition| {
            if !definition.is_for_host(&info.os, &info.hostname, &labels) {
                return false;
            }
            let place = match definition.kind {
                Kind::Alarm => &*definition.on,
                Kind::Template => definition.families.as_ref().map_or("", |p| &p.text),
            };
            let first = seen.insert((definition.kind == Kind::Alarm, &*definition.name, place));
            if !first {
                report(definition);
            }
            first
        });
        flags.collect()
    }
}

/// What a name in an expression stands for.
#[derive(Clone)]
enum Meaning {
    Nothing,
    This,
    Status,
    Now,
    After,
    Before,
    Number(f64),
    /// A dimension's last stored value.
    Last(Arc<Chart>, u32),
    /// Its last collected value.
    Raw(Arc<Chart>, u32),
    /// When that was.
    CollectedAt(Arc<Chart>, u32),
    ChartCollectedAt(Arc<Chart>),
    ChartVariable(Arc<Chart>, u32),
    HostVariable,
    /// The value of another alarm.
    Alarm(u32),
}

/// An alarm of a chart.
pub struct Alarm {
    pub definition: Arc<Definition>,
    pub chart: Arc<Chart>,
    /// The definition's, with the dimension's after it where there is an alarm for each.
    pub name: Arc<str>,
    /// That dimension's name.
    pub only: Option<Arc<str>>,
    pub id: i64,
    pub state: State,
    /// The last event and how many there were.
    pub last_event: i64,
    pub events: i64,
    pub found: Found,
    pub disabled: bool,
    pub silenced: bool,
    pub(super) repeat: Repeat,
    /// For the version of the chart that is noted; 0 = for none.
    pub(super) lanes: Box<[Lane]>,
    pub(super) lanes_version: u32,
    /// Of the variables of calc, then of warn, then of crit.
    meanings: Box<[Meaning]>,
    /// The version of all definitions that the meanings are of.
    meant_at: u64,
    /// This pass evaluates it.
    pub(super) due: bool,
    silencers_seen: u64,
}

/// Which of an alarm's expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Calc,
    Warn,
    Crit,
}

impl Alarm {
    pub(super) fn expression(&self, which: Which) -> Option<&Expression> {
        let definition = &*self.definition;
        match which {
            Which::Calc => definition.calc.as_ref(),
            Which::Warn => definition.warn.as_ref(),
            Which::Crit => definition.crit.as_ref(),
        }
    }

    fn first_meaning(&self, which: Which) -> usize {
        let count = |which| self.expression(which).map_or(0, |e| e.variables().len());
        match which {
            Which::Calc => 0,
            Which::Warn => count(Which::Calc),
            Which::Crit => count(Which::Calc) + count(Which::Warn),
        }
    }

    /// The value of green or red of the definition; NaN without.
    fn limit(&self, name: &str) -> f64 {
        if name == "green" { self.definition.green } else { self.definition.red }
    }

    /// Another number after every change of silencers: whether it has to be asked again.
    pub(super) fn ask_silencers(&mut self, version: u64) -> bool {
        std::mem::replace(&mut self.silencers_seen, version) != version
    }
}

/// All alarms of a host.
pub struct HostAlarms {
    pub alarms: Vec<Alarm>,
    rules: Arc<Rules>,
    applies: Box<[bool]>,
    labels_seen: i64,
    definitions_seen: u64,
    /// Grows with the alarms that come and go.
    links: u64,
    /// Charts that were looked at, as they were then.
    charts: FxHashMap<Arc<str>, (u32, usize)>,
    /// From the log: alarms of earlier runs by chart and name.
    remembered: FxHashMap<(String, String), Remembered>,
    next_alarm: i64,
    default_repeat: Repeat,
}

impl HostAlarms {
    pub(super) fn new(
        remembered: Vec<Remembered>,
        first_id: i64,
        default_repeat: Repeat,
    ) -> HostAlarms {
        let newest = remembered.iter().map(|alarm| alarm.alarm_id).max();
        let by_name = remembered.into_iter().map(|r| ((r.chart.clone(), r.name.clone()), r));
        HostAlarms {
            alarms: Vec::new(),
            rules: Arc::default(),
            applies: Box::default(),
            labels_seen: -1,
            definitions_seen: 0,
            links: 1,
            charts: FxHashMap::default(),
            remembered: by_name.collect(),
            next_alarm: newest.map_or(first_id, |id| id + 1),
            default_repeat,
        }
    }

    pub fn of_chart<'a>(&'a self, chart: &'a str) -> impl Iterator<Item = &'a Alarm> {
        self.alarms.iter().filter(move |alarm| **alarm.chart.id() == *chart)
    }

    /// Brings the alarms up to date with the rules and the host's charts; gives those that are no more.
    pub(super) fn link(&mut self, host: &Host, rules: &Arc<Rules>, report: bool) -> Vec<Alarm> {
        let (version, labels) = (host.definitions_version(), host.labels_version());
        let other_rules = !Arc::ptr_eq(&self.rules, rules);
        if !other_rules && labels == self.labels_seen && version == self.definitions_seen {
            return Vec::new();
        }
        if other_rules || labels != self.labels_seen {
            self.rules = Arc::clone(rules);
            self.applies = rules.for_host(host, &mut |definition| {
                if report && other_rules && definition.kind == Kind::Template {
                    log::info!(
                        "Health configuration template '{}' already exists for host '{}'.",
                        definition.name,
                        host.hostname()
                    );
                } else if report && other_rules {
                    log::error!(
                        "Health alarm '{}.{}' already exists in host '{}'.",
                        definition.on,
                        definition.name,
                        host.hostname()
                    );
                }
            });
            self.charts.clear();
        }
        self.labels_seen = labels;
        self.definitions_seen = version;
        let charts = host.charts();
        let mut others = Vec::new();
        for chart in &charts {
            let state = chart.lock();
            let now = (state.version, Arc::as_ptr(chart) as usize);
            if self.charts.get(chart.id()) != Some(&now) {
                let wanted = self.wanted(chart, &state);
                others.push((Arc::clone(chart), wanted));
                self.charts.insert(Arc::clone(chart.id()), now);
            }
        }
        let live: FxHashSet<*const Chart> = charts.iter().map(Arc::as_ptr).collect();
        if self.charts.len() > charts.len() {
            let ids: FxHashSet<&str> = charts.iter().map(|chart| &**chart.id()).collect();
            self.charts.retain(|id, _| ids.contains(&**id));
        }
        let mut gone = self.unlink_gone(host, &live);
        for (chart, wanted) in others {
            self.relink(&chart, wanted, &mut gone);
        }
        if !gone.is_empty() {
            self.links += 1;
        }
        gone
    }

    /// Takes out the alarms whose chart is no more; one that goes on as another is followed.
    fn unlink_gone(&mut self, host: &Host, live: &FxHashSet<*const Chart>) -> Vec<Alarm> {
        let mut gone = Vec::new();
        if self.alarms.iter().all(|alarm| live.contains(&Arc::as_ptr(&alarm.chart))) {
            return gone;
        }
        let mut kept = Vec::with_capacity(self.alarms.len());
        for mut alarm in std::mem::take(&mut self.alarms) {
            if !live.contains(&Arc::as_ptr(&alarm.chart)) {
                match host.chart(alarm.chart.id()) {
                    Some(heir) => {
                        alarm.chart = heir;
                        alarm.lanes_version = 0;
                    }
                    None => {
                        gone.push(alarm);
                        continue;
                    }
                }
            }
            kept.push(alarm);
        }
        self.alarms = kept;
        self.links += 1;
        gone
    }

    /// Definitions for a chart, with the dimension where there is an alarm for each.
    fn wanted(&self, chart: &Chart, state: &ChartState) -> Vec<(u32, Option<Arc<str>>)> {
        let of = |map: &FxHashMap<Arc<str>, Vec<u32>>, key: &str| map.get(key).cloned();
        let meta = &state.meta;
        let mut candidates = of(&self.rules.alarms, chart.id()).unwrap_or_default();
        if meta.name != *chart.id() {
            candidates.extend(of(&self.rules.alarms, &meta.name).unwrap_or_default());
        }
        // An alarm for the chart goes before a template of its name.
        candidates.extend(of(&self.rules.templates, &meta.context).unwrap_or_default());
        let mut wanted: Vec<(u32, Option<Arc<str>>)> = Vec::new();
        let mut names = FxHashSet::default();
        for index in candidates {
            let Some(definition) = self.rules.book.definitions.get(index as usize) else {
                continue;
            };
            if self.applies.get(index as usize) != Some(&true)
                || !is_for_chart(definition, chart, state)
                || !names.insert(&*definition.name)
            {
                continue;
            }
            let Some(list) = &definition.foreach else {
                wanted.push((index, None));
                continue;
            };
            let pattern = SimplePattern::with_separators(list, LIST);
            let dims = state.dims.iter().filter(|dim| !dim.is_hidden() && !dim.is_obsolete());
            let dims = dims.filter(|dim| pattern.matches(&dim.name) || pattern.matches(&dim.id));
            wanted.extend(dims.map(|dim| (index, Some(Arc::clone(&dim.name)))));
        }
        wanted
    }

    /// Gives a chart exactly the alarms that are wanted; those that it has go on.
    fn relink(
        &mut self,
        chart: &Arc<Chart>,
        wanted: Vec<(u32, Option<Arc<str>>)>,
        gone: &mut Vec<Alarm>,
    ) {
        if wanted.is_empty() && !self.alarms.iter().any(|alarm| Arc::ptr_eq(&alarm.chart, chart)) {
            return;
        }
        self.links += 1;
        let mut old = Vec::new();
        let mut index = 0;
        while index < self.alarms.len() {
            if Arc::ptr_eq(&self.alarms[index].chart, chart) {
                old.push(self.alarms.remove(index));
            } else {
                index += 1;
            }
        }
        for (index, only) in wanted {
            let Some(definition) = self.rules.book.definitions.get(index as usize) else {
                continue;
            };
            let definition = Arc::clone(definition);
            let name = match &only {
                Some(only) => intern(&format!("{}_{only}", definition.name)),
                None => Arc::clone(&definition.name),
            };
            let mut fresh = self.fresh(definition, chart, name, only);
            if let Some(at) = old.iter().position(|alarm| alarm.name == fresh.name) {
                let before = old.swap_remove(at);
                (fresh.id, fresh.state) = (before.id, before.state);
                (fresh.last_event, fresh.events) = (before.last_event, before.events);
                (fresh.disabled, fresh.silenced) = (before.disabled, before.silenced);
            } else {
                if self.alarms.len() >= ALARMS_MAX {
                    continue;
                }
                self.identify(&mut fresh);
            }
            self.alarms.push(fresh);
        }
        gone.append(&mut old);
    }

    fn fresh(
        &self,
        definition: Arc<Definition>,
        chart: &Arc<Chart>,
        name: Arc<str>,
        only: Option<Arc<str>>,
    ) -> Alarm {
        let variables = [&definition.calc, &definition.warn, &definition.crit];
        let count = variables.iter().filter_map(|e| e.as_ref()).map(|e| e.variables().len()).sum();
        Alarm {
            repeat: definition.repeat.unwrap_or(self.default_repeat),
            definition,
            chart: Arc::clone(chart),
            name,
            only,
            id: 0,
            state: State::default(),
            last_event: 0,
            events: 0,
            found: Found::NOTHING,
            disabled: false,
            silenced: false,
            lanes: Box::default(),
            lanes_version: 0,
            meanings: vec![Meaning::Nothing; count].into_boxed_slice(),
            meant_at: 0,
            due: false,
            silencers_seen: 0,
        }
    }

    /// The number an alarm had before, or a new one.
    fn identify(&mut self, alarm: &mut Alarm) {
        let key = (alarm.chart.id().to_string(), alarm.name.to_string());
        match self.remembered.remove(&key) {
            Some(known) => {
                alarm.id = known.alarm_id;
                (alarm.last_event, alarm.events) = (known.last_event, known.events);
                alarm.state.told = known.told;
            }
            None => {
                alarm.id = self.next_alarm;
                self.next_alarm += 1;
            }
        }
    }

    /// Keeps what has to be known of an alarm should its chart come back.
    pub(super) fn remember(&mut self, alarm: &Alarm) {
        let (chart, name) = (alarm.chart.id().to_string(), alarm.name.to_string());
        let known = Remembered {
            chart: chart.clone(),
            name: name.clone(),
            alarm_id: alarm.id,
            last_event: alarm.last_event,
            events: alarm.events,
            told: alarm.state.told,
        };
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        self.remembered.insert((chart, name), known);
    }

    // --- expressions -----------------------------------------------------------------------------

    /// The result of an alarm's expression; `None` without one, or when it is no number.
    pub(super) fn evaluate(
        &mut self,
        index: usize,
        which: Which,
        host: &Host,
        now: i64,
    ) -> Option<f64> {
        self.alarms[index].expression(which)?;
        self.resolve(index, host);
        let alarm = &self.alarms[index];
        let expression = alarm.expression(which)?;
        let first = alarm.first_meaning(which);
        let value = |variable: usize| {
            let meaning = alarm.meanings.get(first + variable)?;
            self.value_of(meaning, alarm, expression.variables().get(variable)?, host, now)
        };
        expression.evaluate(&mut { value })
    }

    /// Names and values of an expression's variables, as notifications tell them.
    pub(super) fn explain(&self, index: usize, which: Which, host: &Host, now: i64) -> String {
        let alarm = &self.alarms[index];
        let Some(expression) = alarm.expression(which) else { return String::new() };
        let first = alarm.first_meaning(which);
        let mut out = String::new();
        for (n, name) in expression.variables().iter().enumerate() {
            let meaning = alarm.meanings.get(first + n);
            let value = meaning.and_then(|m| self.value_of(m, alarm, name, host, now));
            let text = value.map_or_else(|| "nan".to_owned(), |value| format!("{value}"));
            out.push_str(&format!("[ ${name} = {text} ] "));
        }
        out
    }

    fn value_of(
        &self,
        meaning: &Meaning,
        alarm: &Alarm,
        name: &str,
        host: &Host,
        now: i64,
    ) -> Option<f64> {
        let time = |at: i64| if at == 0 { f64::NAN } else { at as f64 };
        Some(match meaning {
            Meaning::Nothing => return None,
            Meaning::This => alarm.state.value,
            Meaning::Status => alarm.state.status.number() as f64,
            Meaning::Now => now as f64,
            Meaning::After => time(alarm.found.after),
            Meaning::Before => time(alarm.found.before),
            Meaning::Number(number) => *number,
            Meaning::Last(chart, dim) => chart.lock().dims.get(*dim as usize)?.latest,
            Meaning::Raw(chart, dim) => chart.lock().dims.get(*dim as usize)?.last_collected as f64,
            Meaning::CollectedAt(chart, dim) => {
                (chart.lock().dims.get(*dim as usize)?.last_collected_us / MICROS) as f64
            }
            Meaning::ChartCollectedAt(chart) => (chart.lock().last_collected.0 / MICROS) as f64,
            Meaning::ChartVariable(chart, at) => chart.lock().variables.get(*at as usize)?.1,
            Meaning::HostVariable => host.variable(name)?,
            Meaning::Alarm(other) => self.alarms.get(*other as usize)?.state.value,
        })
    }

    /// Finds out what the names of an alarm's expressions stand for, unless that is known.
    fn resolve(&mut self, index: usize, host: &Host) {
        let version = self.definitions_seen.wrapping_mul(1 << 20).wrapping_add(self.links);
        let alarm = &self.alarms[index];
        if alarm.meant_at == version {
            return;
        }
        let family = Arc::clone(&alarm.chart.lock().meta.family);
        let charts = host.charts();
        let mut meanings = Vec::with_capacity(alarm.meanings.len());
        for which in [Which::Calc, Which::Warn, Which::Crit] {
            for name in alarm.expression(which).map(Expression::variables).unwrap_or_default() {
                meanings.push(self.meaning(&alarm.chart, &family, &charts, host, name));
            }
        }
        let alarm = &mut self.alarms[index];
        alarm.meanings = meanings.into_boxed_slice();
        alarm.meant_at = version;
    }

    fn meaning(
        &self,
        chart: &Arc<Chart>,
        family: &str,
        charts: &[Arc<Chart>],
        host: &Host,
        name: &str,
    ) -> Meaning {
        match name {
            "this" => return Meaning::This,
            "status" => return Meaning::Status,
            "now" => return Meaning::Now,
            "after" => return Meaning::After,
            "before" => return Meaning::Before,
            _ => {}
        }
        if let Some(status) = Status::ALL.into_iter().find(|status| status.name() == name) {
            return Meaning::Number(status.number() as f64);
        }
        self.in_chart(chart, name)
            .or_else(|| self.in_family(family, charts, name))
            .or_else(|| host.variable(name).map(|_| Meaning::HostVariable))
            .or_else(|| self.in_host(host, name))
            .unwrap_or(Meaning::Nothing)
    }

    /// Dimensions by id, then by name; then what a chart has beside them, and its alarms.
    fn in_chart(&self, chart: &Arc<Chart>, name: &str) -> Option<Meaning> {
        let state = chart.lock();
        if let Some(found) = in_dimensions(chart, &state, name) {
            return Some(found);
        }
        match name {
            "last_collected_t" => return Some(Meaning::ChartCollectedAt(Arc::clone(chart))),
            "update_every" => {
                return Some(Meaning::Number(state.meta.update_every.seconds() as f64));
            }
            _ => {}
        }
        let at = state.variables.iter().position(|(known, _)| **known == *name);
        drop(state);
        if let Some(at) = at.and_then(|at| u32::try_from(at).ok()) {
            return Some(Meaning::ChartVariable(Arc::clone(chart), at));
        }
        let here = || self.alarms.iter().zip(0u32..).filter(|(a, _)| Arc::ptr_eq(&a.chart, chart));
        if matches!(name, "green" | "red") {
            let limit = here().map(|(alarm, _)| alarm.limit(name)).find(|limit| !limit.is_nan());
            return Some(Meaning::Number(limit.unwrap_or(f64::NAN)));
        }
        here().find(|(alarm, _)| *alarm.name == *name).map(|(_, index)| Meaning::Alarm(index))
    }

    /// The first chart of the family that has it; also `CONTEXT.NAME`, `CHARTID.NAME` and `CHARTNAME.NAME`.
    fn in_family(&self, family: &str, charts: &[Arc<Chart>], name: &str) -> Option<Meaning> {
        charts.iter().find_map(|chart| {
            let prefixes = {
                let state = chart.lock();
                if *state.meta.family != *family {
                    return None;
                }
                if let Some(found) = in_dimensions(chart, &state, name) {
                    return Some(found);
                }
                [
                    Arc::clone(&state.meta.context),
                    Arc::clone(chart.id()),
                    Arc::clone(&state.meta.name),
                ]
            };
            let inner =
                prefixes.iter().find_map(|prefix| name.strip_prefix(&**prefix)?.strip_prefix('.'));
            match inner {
                Some(inner) => self.in_chart(chart, inner),
                None => {
                    let mut alarms = self.alarms.iter().zip(0u32..);
                    alarms
                        .find(|(a, _)| Arc::ptr_eq(&a.chart, chart) && *a.name == *name)
                        .map(|(_, index)| Meaning::Alarm(index))
                }
            }
        })
    }

    /// `CHARTID.NAME` or `CHARTNAME.NAME` of any chart; both parts may hold dots.
    fn in_host(&self, host: &Host, name: &str) -> Option<Meaning> {
        name.rmatch_indices('.').find_map(|(dot, _)| {
            let chart = host.find_chart(&name[..dot])?;
            self.in_chart(&chart, &name[dot + 1..])
        })
    }
}

fn in_dimensions(chart: &Arc<Chart>, state: &ChartState, name: &str) -> Option<Meaning> {
    let find = |name: &str| {
        state.dimension_index(name).or_else(|| {
            state.dims.iter().zip(0u32..).find(|(dim, _)| *dim.name == *name).map(|(_, at)| at)
        })
    };
    if let Some(dim) = find(name) {
        return Some(Meaning::Last(Arc::clone(chart), dim));
    }
    if let Some(dim) = name.strip_suffix("_raw").and_then(find) {
        return Some(Meaning::Raw(Arc::clone(chart), dim));
    }
    let dim = name.strip_suffix("_last_collected_t").and_then(find)?;
    Some(Meaning::CollectedAt(Arc::clone(chart), dim))
}

fn is_for_chart(definition: &Definition, chart: &Chart, state: &ChartState) -> bool {
    let allows =
        |pattern: &Option<Pattern>, text: &str| pattern.as_ref().is_none_or(|p| p.matches(text));
    let meta = &state.meta;
    allows(&definition.plugin, &meta.plugin)
        && allows(&definition.module, &meta.module)
        && allows(&definition.families, &meta.family)
        && (allows(&definition.charts, chart.id()) || allows(&definition.charts, &meta.name))
}

//! Charts as collectors declare them, and the rows of values that make them live.
//!
//! A [`ChartDef`] is a constant. A [`Row`] is one instance of it: it creates its chart the first time there is
//! something to show and from then on only hands values over.

use std::sync::Arc;

use crate::base::sys;
use crate::base::time::{UnixMicros, UpdateEvery};
use crate::config::OnDemand;
use crate::metrics::host::clean_chart_name;
use crate::metrics::{
    Algorithm, ChartOptions, ChartSpec, ChartType, Collected, DimensionOptions, DimensionSpec,
    Host, LabelSource,
};

/// A dimension of a [`ChartDef`].
#[derive(Clone, Copy, Debug)]
pub struct DimDef {
    pub id: &'static str,
    /// Empty: the id.
    pub name: &'static str,
    /// What the kernel calls the value, where tables look it up. Empty: the id.
    pub key: &'static str,
    pub algorithm: Algorithm,
    pub multiplier: i64,
    pub divisor: i64,
    pub hidden: bool,
    /// The value counts pages of memory, the chart shows KiB.
    pub pages: bool,
}

const fn dimension(id: &'static str, algorithm: Algorithm) -> DimDef {
    let (multiplier, divisor) = (1, 1);
    DimDef { id, name: "", key: "", algorithm, multiplier, divisor, hidden: false, pages: false }
}

/// A dimension that shows the value itself.
pub const fn absolute(id: &'static str) -> DimDef {
    dimension(id, Algorithm::Absolute)
}

/// A dimension that shows the growth of a counter per second.
pub const fn incremental(id: &'static str) -> DimDef {
    dimension(id, Algorithm::Incremental)
}

/// A dimension that shows its share of the growth of all counters of the chart.
pub const fn share(id: &'static str) -> DimDef {
    dimension(id, Algorithm::PercentageOfIncrementalRow)
}

impl DimDef {
    pub const fn named(self, name: &'static str) -> DimDef {
        DimDef { name, ..self }
    }

    pub const fn key(self, key: &'static str) -> DimDef {
        DimDef { key, ..self }
    }

    pub const fn scaled(self, multiplier: i64, divisor: i64) -> DimDef {
        DimDef { multiplier, divisor, ..self }
    }

    /// Shown below the axis: what goes out, is written or is dropped.
    pub const fn negative(self) -> DimDef {
        DimDef { multiplier: -self.multiplier, ..self }
    }

    pub const fn hidden(self) -> DimDef {
        DimDef { hidden: true, ..self }
    }

    pub const fn in_pages(self) -> DimDef {
        DimDef { divisor: 1024, pages: true, ..self }
    }

    pub fn spec(&self) -> DimensionSpec<'static> {
        let mut options = DimensionOptions::empty();
        options.set(DimensionOptions::HIDDEN, self.hidden);
        DimensionSpec {
            id: self.id,
            name: self.name,
            algorithm: self.algorithm,
            multiplier: self.multiplier * if self.pages { sys::page_size() } else { 1 },
            divisor: self.divisor,
            options,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ChartDef {
    /// `type.id`; for charts of many instances the type alone.
    pub id: &'static str,
    pub title: &'static str,
    pub units: &'static str,
    pub family: &'static str,
    /// Empty: the id.
    pub context: &'static str,
    pub chart_type: ChartType,
    pub priority: i64,
    pub detail: bool,
    pub dims: &'static [DimDef],
    /// How many of the first dimensions decide that there is something to show; 0 means all.
    pub deciding: usize,
}

/// What declarations start from.
pub const CHART: ChartDef = ChartDef {
    id: "",
    title: "",
    units: "",
    family: "",
    context: "",
    chart_type: ChartType::Line,
    priority: 1000,
    detail: false,
    dims: &[],
    deciding: 0,
};

/// Dimensions a declared chart has at most, so that rows of values fit on the stack.
pub const DECLARED_DIMS_MAX: usize = 24;

/// When a chart comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// Once there is a value that is not zero.
    NonZero,
    Never,
}

impl When {
    pub fn of(option: OnDemand, zero_metrics: bool) -> When {
        match option {
            OnDemand::Yes => When::Always,
            OnDemand::Auto if zero_metrics => When::Always,
            OnDemand::Auto => When::NonZero,
            OnDemand::No => When::Never,
        }
    }

    pub fn switch(on: bool) -> When {
        if on { When::Always } else { When::Never }
    }
}

/// Where a collector's charts go and what they say about their origin.
#[derive(Clone)]
pub struct Site {
    pub host: Arc<Host>,
    pub every: UpdateEvery,
    pub plugin: &'static str,
    pub module: &'static str,
}

/// What tells one of many charts of the same kind from the others.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    pub id: String,
    /// The name after the type; empty: the id.
    pub name: String,
    pub family: String,
    pub labels: Vec<(&'static str, String)>,
    /// Added to the priority of the declaration.
    pub shift: i64,
}

/// One collection: whose, of what and when.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub site: &'a Site,
    pub instance: Option<&'a Instance>,
    pub now: UnixMicros,
}

impl<'a> At<'a> {
    pub fn new(site: &'a Site, now: UnixMicros) -> At<'a> {
        At { site, instance: None, now }
    }

    pub fn of(self, instance: &'a Instance) -> At<'a> {
        At { instance: Some(instance), ..self }
    }
}

impl ChartDef {
    /// Creates the chart without its dimensions.
    pub fn create(&self, at: At<'_>) -> Option<Collected> {
        let mut options = ChartOptions::empty();
        options.set(ChartOptions::DETAIL, self.detail);
        let mut spec = ChartSpec {
            id: self.id,
            name: "",
            title: self.title,
            units: self.units,
            family: self.family,
            context: self.context,
            chart_type: self.chart_type,
            priority: self.priority,
            update_every: at.site.every,
            options: Some(options),
            plugin: at.site.plugin,
            module: at.site.module,
        };
        let Some(instance) = at.instance else {
            return Collected::new(&at.site.host, &spec);
        };
        let id = format!("{}.{}", self.id, clean_id(&instance.id));
        let family = presentable(&instance.family);
        spec.id = &id;
        spec.name = if instance.name == instance.id { "" } else { &instance.name };
        if !family.is_empty() {
            spec.family = &family;
        }
        spec.priority += instance.shift;
        let collected = Collected::new(&at.site.host, &spec)?;
        let mut state = collected.chart().lock();
        let mut changed = false;
        for (name, value) in &instance.labels {
            changed |= state.labels.set(name, value, LabelSource::AUTO);
        }
        if changed {
            state.touch();
        }
        drop(state);
        Some(collected)
    }
}

/// What a chart id may hold, of a name that may hold anything.
fn clean_id(name: &str) -> String {
    clean_chart_name(&name.replace(',', "."))
}

/// Text that reads the same on every hop, quotes and line ends being what separates it there.
fn presentable(text: &str) -> String {
    let safe = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(safe).collect()
}

/// A chart with declared dimensions.
pub struct Row {
    def: &'static ChartDef,
    when: When,
    live: Option<Collected>,
}

impl Row {
    pub fn new(def: &'static ChartDef, when: When) -> Row {
        debug_assert!(def.dims.len() <= DECLARED_DIMS_MAX, "BUG: {} has too many dims", def.id);
        Row { def, when, live: None }
    }

    /// Hands over the values of this tick, in the order of the declaration. Fewer values than dimensions leave the last
    /// dimensions out of the chart. True when the chart is there.
    pub fn collect(&mut self, at: At<'_>, values: &[i64]) -> bool {
        if self.live.is_none() && !self.create(at, values) {
            return false;
        }
        let Some(chart) = &mut self.live else { return false };
        chart.set_first(values);
        chart.done(at.now);
        true
    }

    /// Whether [`Row::collect`] with these values would show them.
    pub fn would_show(&self, values: &[i64]) -> bool {
        match self.when {
            _ if self.live.is_some() => true,
            When::Always => true,
            When::Never => false,
            When::NonZero => {
                let deciding = match self.def.deciding {
                    0 => values,
                    n => &values[..n.min(values.len())],
                };
                deciding.iter().any(|&value| value != 0)
            }
        }
    }

    /// Creates the chart with the next values, whatever they are: it goes with another that shows something.
    pub fn want(&mut self) {
        if self.when == When::NonZero {
            self.when = When::Always;
        }
    }

    #[cold]
    fn create(&mut self, at: At<'_>, values: &[i64]) -> bool {
        if !self.would_show(values) {
            return false;
        }
        let Some(mut chart) = self.def.create(at) else {
            self.when = When::Never;
            return false;
        };
        for dim in &self.def.dims[..values.len().min(self.def.dims.len())] {
            chart.define(&dim.spec());
        }
        self.live = Some(chart);
        true
    }

    pub fn chart(&self) -> Option<&Collected> {
        self.live.as_ref()
    }

    /// Sets a variable of the chart for alarms.
    pub fn set_variable(&self, name: &str, value: f64) {
        if let Some(chart) = &self.live {
            let mut state = chart.chart().lock();
            if state.set_variable(name, value) {
                state.touch();
            }
        }
    }

    /// What the chart is about is gone.
    pub fn obsolete(&self) {
        if let Some(chart) = &self.live {
            chart.obsolete();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_things_become_ids_as_the_original_makes_them() {
        assert_eq!(clean_id("_mnt_a:b@c+d"), "_mnt_a_b_c_d");
        assert_eq!(clean_id("_mnt_e=f,g;h"), "_mnt_e_f.g_h");
        assert_eq!(clean_id("x-y.z"), "x-y.z");
        assert_eq!(presentable("/mnt/k\"l\\m\nn"), "/mnt/k'l/m n");
    }
}

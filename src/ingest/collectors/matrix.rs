//! Files with a line per event and a column per processor: /proc/interrupts and /proc/softirqs.
//!
//! One chart shows the sums, one per processor its column. A line becomes a dimension when it first counts anything.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::chart::{At, ChartDef, Instance, When};
use super::procfile::{lines, number, words, words_and_colons};
use crate::base::time::UnixMicros;
use crate::metrics::{Algorithm, Collected, Dim, DimensionOptions, DimensionSpec};

/// Columns looked at; the file of a larger machine shows the sums of these only.
const CORES_MAX: usize = 4096;

pub struct Matrix {
    total: Bars,
    /// By column; empty when charts per processor are not wanted.
    cores: Vec<Bars>,
    core: &'static ChartDef,
    per_core: When,
    /// Appended to `cpu0` to make the id of a processor's chart.
    suffix: &'static str,
    name: NameOf,
    /// Hash of the tag of each line, in the order of the file.
    tags: Vec<u64>,
    /// Of the line that names the processors.
    head: u64,
    columns: usize,
    /// The columns of one line, kept to be reused.
    values: Vec<i64>,
}

/// The name of a dimension from its tag and what stands after the columns.
pub type NameOf = fn(tag: &str, rest: &[u8]) -> String;

/// A chart with a dimension for each line that ever counted.
struct Bars {
    def: &'static ChartDef,
    instance: Option<Instance>,
    chart: Option<Collected>,
    refused: bool,
    /// By line.
    dims: Vec<Option<Dim>>,
}

impl Bars {
    fn new(def: &'static ChartDef, instance: Option<Instance>, lines: usize) -> Bars {
        Bars { def, instance, chart: None, refused: false, dims: vec![None; lines] }
    }

    #[inline]
    fn set(&mut self, line: usize, value: i64, new: impl FnOnce(&mut Bars) -> Option<Dim>) {
        if self.dims[line].is_none() && value != 0 {
            self.dims[line] = new(self);
        }
        if let (Some(dim), Some(chart)) = (self.dims[line], &mut self.chart) {
            chart.set(dim, value);
        }
    }

    /// Adds a dimension, and the chart if it is the first one.
    fn add(&mut self, at: At<'_>, tag: &str, name: &str) -> Option<Dim> {
        if self.refused {
            return None;
        }
        if self.chart.is_none() {
            let at = At { instance: self.instance.as_ref(), ..at };
            self.chart = self.def.create(at);
            self.refused = self.chart.is_none();
        }
        let spec = DimensionSpec {
            id: tag,
            name,
            algorithm: Algorithm::Incremental,
            multiplier: 1,
            divisor: 1,
            options: DimensionOptions::empty(),
        };
        self.chart.as_mut().map(|chart| chart.define(&spec))
    }

    fn done(&mut self, now: UnixMicros) {
        if let Some(chart) = &mut self.chart {
            chart.done(now);
        }
    }
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(text);
    hasher.finish()
}

impl Matrix {
    pub fn new(
        total: &'static ChartDef,
        core: &'static ChartDef,
        per_core: When,
        suffix: &'static str,
        name: NameOf,
    ) -> Matrix {
        Matrix {
            total: Bars::new(total, None, 0),
            cores: Vec::new(),
            core,
            per_core,
            suffix,
            name,
            tags: Vec::new(),
            head: 0,
            columns: 0,
            values: Vec::new(),
        }
    }

    pub fn collect(&mut self, at: At<'_>, text: &[u8]) {
        let mut lines = lines(text);
        let Some(head) = lines.next() else { return };
        if hash(head) != self.head || self.columns == 0 {
            self.learn_columns(head);
        }
        let mut expected = 0;
        for line in lines {
            let mut words = words_and_colons(line);
            let Some(tag) = words.next() else { continue };
            let line = self.line_of(expected, tag);
            expected = line + 1;
            self.values.clear();
            let mut rest = words.clone();
            for word in words.take(self.columns) {
                if !word.first().is_some_and(u8::is_ascii_digit) {
                    break;
                }
                self.values.push(number(word));
                rest.next();
            }
            let sum = self.values.iter().fold(0i64, |sum, value| sum.wrapping_add(*value));
            if sum == 0 && self.total.dims[line].is_none() {
                continue;
            }
            let named = |bars: &mut Bars, name: NameOf, rest: &[u8]| {
                let tag = String::from_utf8_lossy(tag);
                bars.add(at, &tag, &name(&tag, rest))
            };
            let (name, rest) = (self.name, rest.rest());
            self.total.set(line, sum, |bars| named(bars, name, rest));
            for (core, &value) in self.cores.iter_mut().zip(&self.values) {
                core.set(line, value, |bars| named(bars, name, rest));
            }
        }
        self.total.done(at.now);
        for core in &mut self.cores {
            core.done(at.now);
        }
    }

    /// The index of the line with that tag. Lines keep their order; new ones may come anywhere.
    fn line_of(&mut self, expected: usize, tag: &[u8]) -> usize {
        let tag = hash(tag);
        if self.tags.get(expected) == Some(&tag) {
            return expected;
        }
        if let Some(ahead) = self.tags.iter().position(|&known| known == tag) {
            return ahead;
        }
        let at = expected.min(self.tags.len());
        self.tags.insert(at, tag);
        self.total.dims.insert(at, None);
        for core in &mut self.cores {
            core.dims.insert(at, None);
        }
        at
    }

    /// Processors went on or off line: the columns mean others now.
    fn learn_columns(&mut self, head: &[u8]) {
        self.head = hash(head);
        let mut old = std::mem::take(&mut self.cores);
        self.columns = 0;
        for word in words(head).take(CORES_MAX) {
            self.columns += 1;
            if self.per_core == When::Never {
                continue;
            }
            let number = number(word.strip_prefix(b"CPU").unwrap_or_default());
            let id = format!("cpu{number}{}", self.suffix);
            let same = |bars: &Bars| bars.instance.as_ref().is_some_and(|known| known.id == id);
            self.cores.push(match old.iter().position(same) {
                Some(at) => old.swap_remove(at),
                None => {
                    let labels = vec![("cpu", format!("cpu{number}"))];
                    let instance = Instance { id, labels, shift: number, ..Instance::default() };
                    Bars::new(self.core, Some(instance), self.tags.len())
                }
            });
        }
    }
}

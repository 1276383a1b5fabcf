//! What a query gives: the columns it computed and what a formatter has to know of them.
//!
//! Percentages, absolute values and zeros for nothing are applied here, row by row, so every format shows the same.

use std::sync::Arc;

use super::options::Options;
use super::rows::Column;
use super::window::{Held, Window};

/// One computed dimension.
#[derive(Debug)]
pub struct Series {
    /// Index into [`Answer::charts`].
    pub chart: usize,
    pub id: Arc<str>,
    pub name: Arc<str>,
    /// The value stored last, NaN when the newest slot is a gap.
    pub latest: f64,
    /// Part of the answer; others only count for totals and extremes.
    pub shown: bool,
    pub column: Column,
}

/// A chart that takes part.
#[derive(Debug)]
pub struct ChartRef {
    pub id: Arc<str>,
    pub name: Arc<str>,
    /// The values of the label keys that were asked for, in their order.
    pub labels: Vec<Option<Arc<str>>>,
}

#[derive(Debug)]
pub struct Answer {
    pub window: Window,
    pub held: Held,
    /// Those asked for, and what became of them.
    pub options: Options,
    /// The method's name.
    pub group: &'static str,
    pub charts: Vec<ChartRef>,
    pub series: Vec<Series>,
    pub points_per_tier: Vec<u64>,
    /// With `all-dimensions`.
    pub full: Option<FullLists>,
}

/// Everything the contexts of a query have, selected or not.
#[derive(Debug, Default)]
pub struct FullLists {
    /// (id, name)
    pub dimensions: Vec<(Arc<str>, Arc<str>)>,
    /// (id, name)
    pub charts: Vec<(Arc<str>, Arc<str>)>,
    /// (key, value)
    pub labels: Vec<(Arc<str>, Arc<str>)>,
}

/// One row, as shown.
#[derive(Debug, Default)]
pub struct Row {
    /// NaN where there is nothing to show.
    pub values: Vec<f64>,
}

impl Answer {
    pub fn shown(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| series.shown)
    }

    /// Rows that a formatter writes; none when no dimension is left.
    pub fn rows(&self) -> usize {
        if self.shown().next().is_some() { self.window.rows } else { 0 }
    }

    /// The end of a row, counted from the oldest.
    pub fn time(&self, row: usize) -> i64 {
        let after_first = i64::try_from(self.window.rows - row).unwrap_or(0) - 1;
        self.window.before - after_first * self.window.every
    }

    /// Row numbers in the order in which they are written: newest first unless flipped.
    pub fn order(&self) -> impl Iterator<Item = usize> {
        self.order_of(self.rows())
    }

    /// The same for formats that write a row even when no dimension is left.
    pub fn order_of_all(&self) -> impl Iterator<Item = usize> {
        self.order_of(self.window.rows)
    }

    fn order_of(&self, rows: usize) -> impl Iterator<Item = usize> {
        let flip = self.options.contains(Options::FLIP);
        (0..rows).map(move |at| if flip { at } else { rows - 1 - at })
    }

    /// The shown values of a row.
    pub fn fill(&self, row: usize, out: &mut Row) {
        self.filler()(row, &mut out.values);
    }

    /// What gives the shown values of one row after another.
    pub fn filler(&self) -> impl Fn(usize, &mut Vec<f64>) + Sync + '_ {
        let columns: Vec<&[f64]> =
            self.shown().map(|series| series.column.values.as_slice()).collect();
        let absolute = self.options.contains(Options::ABSOLUTE);
        let nothing = if self.options.contains(Options::NULL2ZERO) { 0.0 } else { f64::NAN };
        let percentage = self.options.contains(Options::PERCENTAGE);
        let as_stored = !absolute && nothing.is_nan() && !percentage;
        move |row, out| {
            out.clear();
            if as_stored {
                out.extend(columns.iter().map(|values| values[row]));
                return;
            }
            let total = percentage.then(|| self.total(row));
            out.extend(columns.iter().map(|values| {
                let value = values[row];
                if value.is_nan() {
                    return nothing;
                }
                let value = if absolute { value.abs() } else { value };
                total.map_or(value, |total| value * 100.0 / total)
            }));
        }
    }

    /// What the percentages of a row are of: everything computed, shown or not; never 0.
    fn total(&self, row: usize) -> f64 {
        let absolute = self.options.contains(Options::ABSOLUTE);
        let total: f64 = self
            .series
            .iter()
            .map(|series| series.column.values[row])
            .filter(|value| !value.is_nan())
            .map(|value| if absolute { value.abs() } else { value })
            .sum();
        if total == 0.0 { 1.0 } else { total }
    }

    /// One number for a whole row: the sum of what is shown, or the distance of its extremes; NaN when all is null.
    pub fn one_number(&self, row: usize, scratch: &mut Row) -> f64 {
        self.fill(row, scratch);
        let known = || scratch.values.iter().filter(|value| !value.is_nan());
        if known().next().is_none() {
            let zero = self.options.contains(Options::NULL2ZERO);
            return if zero { 0.0 } else { f64::NAN };
        }
        if !self.options.contains(Options::MIN2MAX) {
            return known().sum();
        }
        let first = scratch.values.first().copied().unwrap_or(0.0);
        let (mut min, mut max) = if first > 0.0 { (0.0, first) } else { (first.min(0.0), 0.0) };
        for value in known() {
            min = value.min(min);
            max = value.max(max);
        }
        max - min
    }

    /// Smallest and largest number over all rows and dimensions computed, nulls counting as 0. With percentages: of
    /// those shown in the row that is written last, as the original does.
    pub fn extremes(&self) -> Extremes {
        let mut extremes = Extremes::default();
        if self.options.contains(Options::PERCENTAGE)
            && let Some(row) = self.order().last()
        {
            let mut shown = Row::default();
            self.fill(row, &mut shown);
            shown.values.iter().filter(|v| !v.is_nan()).for_each(|value| extremes.add(*value));
        } else {
            for series in &self.series {
                series.column.values.iter().for_each(|value| extremes.add(*value));
            }
        }
        extremes
    }

    /// Percent of anomalous samples of each shown dimension in a row.
    pub fn anomaly_rates(&self, row: usize) -> impl Iterator<Item = f64> {
        self.shown().map(move |series| series.column.anomaly_rates.get(row).copied().unwrap_or(0.0))
    }

    /// A counter was reset within the row.
    pub fn has_reset(&self, row: usize) -> bool {
        self.shown().any(|series| series.column.resets.get(row) == Some(&true))
    }
}

/// Running smallest and largest number; nulls count as 0.
#[derive(Debug, Default)]
pub struct Extremes(Option<(f64, f64)>);

impl Extremes {
    pub fn add(&mut self, value: f64) {
        let value = if value.is_nan() { 0.0 } else { value };
        self.0 = Some(match self.0 {
            Some((min, max)) => (value.min(min), value.max(max)),
            None => (value, value),
        });
    }

    /// Zeros when nothing was added.
    pub fn get(&self) -> (f64, f64) {
        self.0.unwrap_or((0.0, 0.0))
    }
}

#[cfg(test)]
pub mod samples {
    //! An answer to look at, for tests of formatters too.

    use super::*;

    /// Two rows, ending at 1700000107 and 1700000108, of three dimensions.
    pub fn answer(options: &str) -> Answer {
        let series = |id: &str, name: &str, values: [f64; 2], shown| Series {
            chart: 0,
            id: id.into(),
            name: name.into(),
            latest: values[1],
            shown,
            column: Column {
                values: values.to_vec(),
                anomaly_rates: vec![0.0, 50.0],
                resets: vec![false, true],
                nonzero: true,
                points_read: 2,
            },
        };
        Answer {
            window: Window {
                after: 1_700_000_107,
                before: 1_700_000_108,
                rows: 2,
                group: 1,
                granularity: 1,
                every: 1,
                amount_divisor: None,
                natural: true,
            },
            held: Held { every: 1, first: 1_700_000_001, last: 1_700_000_900 },
            options: Options::parse(options),
            group: "average",
            charts: vec![ChartRef { id: "t.c".into(), name: "t.named".into(), labels: Vec::new() }],
            series: vec![
                series("up", "up", [7.0, 8.0], true),
                series("mix", "Mix \"Name\"", [-2.5, f64::NAN], true),
                series("hid", "hid", [1.0, -4.0], false),
            ],
            points_per_tier: vec![6],
            full: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::answer;
    use super::*;

    #[track_caller]
    fn check(options: &str, old: [f64; 2], new: [f64; 2]) {
        let answer = answer(options);
        for (row, want) in [old, new].iter().enumerate() {
            let mut got = Row::default();
            answer.fill(row, &mut got);
            let same =
                got.values.iter().zip(want).all(|(g, w)| g == w || (g.is_nan() && w.is_nan()));
            assert!(same, "{options}, row {row}: {:?} instead of {want:?}", got.values);
        }
    }

    #[test]
    fn values_are_shown_as_the_options_say() {
        check("", [7.0, -2.5], [8.0, f64::NAN]);
        check("abs,null2zero", [7.0, 2.5], [8.0, 0.0]);
        check("percentage", [7.0 * 100.0 / 5.5, -2.5 * 100.0 / 5.5], [200.0, f64::NAN]);
        check(
            "percentage,abs",
            [7.0 * 100.0 / 10.5, 2.5 * 100.0 / 10.5],
            [8.0 * 100.0 / 12.0, f64::NAN],
        );
    }

    #[test]
    fn a_row_is_one_number_for_formats_that_have_one() {
        let mut scratch = Row::default();
        assert_eq!(answer("").one_number(0, &mut scratch), 4.5);
        assert_eq!(answer("min2max").one_number(0, &mut scratch), 9.5);
        assert_eq!(answer("min2max").one_number(1, &mut scratch), 8.0);
    }

    #[test]
    fn extremes_count_hidden_dimensions_and_nulls() {
        assert_eq!(answer("").extremes().get(), (-4.0, 8.0));
        assert_eq!(answer("percentage,flip").extremes().get(), (200.0, 200.0));
    }

    #[test]
    fn rows_are_written_newest_first_unless_flipped() {
        let times = |options: &str| {
            let a = answer(options);
            a.order().map(|row| a.time(row) - 1_700_000_000).collect::<Vec<_>>()
        };
        assert_eq!(times(""), [108, 107]);
        assert_eq!(times("reverse"), [107, 108]);
        let mut none = answer("");
        none.series.iter_mut().for_each(|s| s.shown = false);
        assert_eq!(none.rows(), 0);
    }
}

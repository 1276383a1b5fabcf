//! From stored points to rows: the walk over one dimension.
//!
//! A point covers the time from its start to its end. Every point joins the row in which it ends, and the point that
//! covers the end of a row joins it too, at the value it has there: between two adjacent points that is a line. So a
//! chart with a sample every five seconds can be asked for every second. Fed point by point; no allocation per point.

use super::group::{Grouping, Method};
use super::window::Window;
use crate::base::number::Sample;
use crate::storage::TierPoint;

/// Which of a point's numbers a query is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Facet {
    Average,
    Sum,
    Min,
    Max,
    AnomalyRate,
}

impl Facet {
    pub fn of(method: Method) -> Facet {
        match method {
            Method::Sum => Facet::Sum,
            Method::Min => Facet::Min,
            Method::Max => Facet::Max,
            _ => Facet::Average,
        }
    }

    /// NaN for a gap.
    fn value(self, point: &TierPoint) -> f64 {
        if point.count == 0 {
            return f64::NAN;
        }
        match self {
            Facet::Average => point.sum / f64::from(point.count),
            Facet::Sum => point.sum,
            Facet::Min => point.min,
            Facet::Max => point.max,
            Facet::AnomalyRate => rate(point.anomalous, point.count),
        }
    }
}

/// Percent of anomalous samples.
fn rate(anomalous: u32, count: u32) -> f64 {
    if count == 0 { 0.0 } else { f64::from(anomalous) * 100.0 / f64::from(count) }
}

/// The rows of one dimension, oldest first.
#[derive(Debug, Default)]
pub struct Column {
    /// NaN where a row has no value.
    pub values: Vec<f64>,
    /// Percent of anomalous samples per row; empty unless asked for.
    pub anomaly_rates: Vec<f64>,
    /// Whether a counter was reset within the row; empty unless asked for.
    pub resets: Vec<bool>,
    /// A sample other than zero went into a row.
    pub nonzero: bool,
    pub points_read: u64,
}

/// What to note beside the values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notes {
    pub anomaly_rates: bool,
    pub resets: bool,
}

/// Makes a [`Column`] of points fed in time order.
pub struct Walk<'a> {
    facet: Facet,
    notes: Notes,
    grouping: &'a mut Grouping,
    column: Column,
    rows: usize,
    every: i64,
    /// As many rows are wanted as there are points.
    is_point_per_row: bool,
    /// Points that end before this are not part of the row at hand.
    row_start: i64,
    row_end: i64,
    /// End and value of the point before; NaN where it is a gap.
    last_end: i64,
    last_value: f64,
    /// Of the row at hand, gaps included.
    points: u32,
    rates: f64,
    reset: bool,
}

impl<'a> Walk<'a> {
    pub fn new(
        window: &Window,
        facet: Facet,
        notes: Notes,
        grouping: &'a mut Grouping,
    ) -> Walk<'a> {
        Walk::reusing(window, facet, notes, grouping, Column::default())
    }

    /// The same, into the memory of an earlier column.
    pub fn reusing(
        window: &Window,
        facet: Facet,
        notes: Notes,
        grouping: &'a mut Grouping,
        mut column: Column,
    ) -> Walk<'a> {
        grouping.restart();
        column.values.clear();
        column.anomaly_rates.clear();
        column.resets.clear();
        (column.nonzero, column.points_read) = (false, 0);
        column.values.reserve_exact(window.rows);
        column.anomaly_rates.reserve_exact(if notes.anomaly_rates { window.rows } else { 0 });
        column.resets.reserve_exact(if notes.resets { window.rows } else { 0 });
        let row_start = window.after - window.granularity;
        Walk {
            facet,
            notes,
            grouping,
            column,
            rows: window.rows,
            every: window.every,
            is_point_per_row: window.group == 1,
            row_start,
            row_end: row_start + window.every,
            last_end: 0,
            last_value: f64::NAN,
            points: 0,
            rates: 0.0,
            reset: false,
        }
    }

    pub fn points_read(&self) -> u64 {
        self.column.points_read
    }

    /// Whether more points can change anything.
    pub fn is_complete(&self) -> bool {
        self.column.values.len() == self.rows
    }

    /// Whether points of so many seconds are rows as they stand: [`feed_row`](Walk::feed_row) takes them then.
    pub fn takes_rows(&self, every: i64) -> bool {
        self.every == every
            && self.row_end.rem_euclid(every) == 0
            && self.grouping.keeps_single_values()
            && self.is_point_per_row
            && !self.notes.anomaly_rates
            && !self.notes.resets
            && self.facet != Facet::AnomalyRate
    }

    /// The next sample, of a slot that is a row.
    #[inline]
    pub fn feed_row(&mut self, end: i64, sample: Sample) {
        self.column.points_read += 1;
        self.last_end = end;
        self.last_value = sample.reading();
        if end == self.row_end && !self.is_complete() {
            self.put_row();
        } else {
            self.feed_row_apart(end);
        }
    }

    /// It is not the row that was to come.
    #[cold]
    fn feed_row_apart(&mut self, end: i64) {
        if end < self.row_end {
            return;
        }
        while self.row_end < end && !self.is_complete() {
            self.close_row();
        }
        if !self.is_complete() {
            self.put_row();
        }
    }

    #[inline]
    fn put_row(&mut self) {
        self.column.nonzero |= self.last_value.abs() > 0.0;
        self.column.values.push(self.last_value);
        self.row_start = self.row_end;
        self.row_end += self.every;
    }

    /// The next sample, of the slot that ends at `end`, after the one before.
    #[inline]
    pub fn feed_sample(&mut self, end: i64, every: i64, sample: Sample) {
        let anomaly_rate = if sample.is_anomalous() { 100.0 } else { 0.0 };
        let value = match self.facet {
            Facet::AnomalyRate if !sample.is_empty() => anomaly_rate,
            _ => sample.reading(),
        };
        self.step(end - every, end, value, anomaly_rate, sample.is_reset());
    }

    /// The next point of a higher tier, which covers `every` seconds and ends after the one before.
    #[inline]
    pub fn feed(&mut self, point: &TierPoint, every: i64) {
        let (value, rate) = (self.facet.value(point), rate(point.anomalous, point.count));
        self.step(point.end.0 - every, point.end.0, value, rate, false);
    }

    /// Before any point: nothing is known up to `end`. Without it the first point is the one that ends rows before it, and
    /// joins none after that.
    pub fn feed_gap(&mut self, end: i64) {
        while self.row_end <= end && !self.is_complete() {
            self.close_row();
        }
        (self.last_end, self.last_value) = (end, f64::NAN);
    }

    #[inline(always)]
    fn step(&mut self, start: i64, end: i64, value: f64, anomaly_rate: f64, reset: bool) {
        self.column.points_read += 1;
        if end < self.row_end {
            if end >= self.row_start {
                self.add(value, anomaly_rate, reset);
            }
        } else {
            while self.row_end <= end && !self.is_complete() {
                if self.row_end > start {
                    let value = self.value_at(self.row_end, (start, end), value);
                    self.add(value, anomaly_rate, reset);
                }
                self.close_row();
            }
        }
        self.last_end = end;
        self.last_value = value;
    }

    /// The value at `now` within a point: on the line from the one before, where that is adjacent and both are known.
    #[inline(always)]
    fn value_at(&self, now: i64, (start, end): (i64, i64), value: f64) -> f64 {
        if now == end || self.last_end != start {
            return value;
        }
        if value.is_nan() || self.last_value.is_nan() {
            return value;
        }
        let passed = 1.0 - (end - now) as f64 / (end - start) as f64;
        self.last_value + (value - self.last_value) * passed
    }

    #[inline(always)]
    fn add(&mut self, value: f64, anomaly_rate: f64, reset: bool) {
        if self.notes.anomaly_rates {
            self.points += 1;
            self.rates += anomaly_rate;
        }
        if !value.is_nan() {
            self.column.nonzero |= value != 0.0;
            self.reset |= reset;
            self.grouping.add(value);
        }
    }

    #[inline]
    fn close_row(&mut self) {
        self.column.values.push(self.grouping.row());
        if self.notes.anomaly_rates {
            let rate = if self.points == 0 { 0.0 } else { self.rates / f64::from(self.points) };
            self.column.anomaly_rates.push(rate);
            (self.points, self.rates) = (0, 0.0);
        }
        if self.notes.resets {
            self.column.resets.push(self.reset);
        }
        self.reset = false;
        self.row_start = self.row_end;
        self.row_end += self.every;
    }

    /// The column; rows after the last point hold what is left and then nothing.
    pub fn finish(mut self) -> Column {
        while !self.is_complete() {
            self.close_row();
        }
        self.column
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::query::options::Options;
    use crate::query::window::{self, Asked, Held};

    /// Samples as storage gives them: from the last one that ends by `after` to the first that ends at `before` or later.
    fn feed(series: &[(i64, Option<f64>)], every: i64, window: &Window, walk: &mut Walk<'_>) {
        let first = series.first().unwrap().0;
        let from = (window.after - window.after.rem_euclid(every)).max(first);
        for (end, value) in series.iter().filter(|(end, _)| *end >= from) {
            walk.feed_sample(*end, every, Sample::normal(value.unwrap_or(f64::NAN)));
            if *end >= window.before {
                break;
            }
        }
    }

    fn parameter(query: &str, name: &str) -> String {
        let text =
            query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('=')).unwrap_or("");
        percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
    }

    fn near(got: f64, want: f64) -> bool {
        (got - want).abs() <= 2e-6 * want.abs().max(1.0)
    }

    /// Queries recorded from the original with the series they were asked of. Medians of an even count are ours to
    /// choose (2.x and we take the middle two), so those words are checked where the count is odd only.
    #[test]
    fn recorded_queries_of_the_original_give_the_same_rows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/data-query-vectors.json");
        let vectors: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let (mut checked, mut medians) = (0, 0);
        for case in vectors["cases"].as_array().unwrap() {
            let query = case["query"].as_str().unwrap();
            let chart = &vectors["charts"][parameter(query, "chart").as_str()];
            let every = chart["update_every"].as_i64().unwrap();
            let wanted = parameter(query, "dimensions");
            let series: Vec<_> = chart["dimensions"]
                .as_array()
                .unwrap()
                .iter()
                .find(|d| d["id"] == wanted.as_str() || d["name"] == wanted.as_str())
                .unwrap()["points"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| (p[0].as_i64().unwrap(), p[1].as_f64()))
                .collect();
            let number = |name| parameter(query, name).parse::<i64>().unwrap_or(0);
            let asked = Asked {
                after: number("after"),
                before: number("before"),
                points: number("points"),
                gtime: number("gtime"),
                options: Options::parse(&parameter(query, "options")),
                forced_every: None,
            };
            let held = Held { every, first: series[0].0, last: series[series.len() - 1].0 };
            let w =
                window::resolve(&asked, held, vectors["now"].as_i64().unwrap(), window::ROWS_MAX);
            let expect = &case["expect"];
            assert_eq!(expect["view_update_every"], w.every, "{query}");
            assert_eq!(expect["after"], w.after, "{query}");
            assert_eq!(expect["before"], w.before, "{query}");
            assert_eq!(expect["points"], w.rows, "{query}");

            let (method, _) = Method::parse(&parameter(query, "group"));
            let option = parameter(query, "group_options");
            let mut grouping = Grouping::new(method, &option, &w);
            let mut walk = Walk::new(&w, Facet::of(method), Notes::default(), &mut grouping);
            feed(&series, every, &w, &mut walk);
            let column = walk.finish();
            let rows = expect["data"].as_array().unwrap();
            assert_eq!(rows.len(), column.values.len(), "{query}");
            let same = rows.iter().zip(&column.values).all(|(row, got)| match row[1].as_f64() {
                Some(want) => near(*got, want),
                None => got.is_nan(),
            });
            if matches!(method, Method::Median(_)) && !same {
                medians += 1;
                continue;
            }
            assert!(same, "{query}\nwant {:?}\n got {:?}", expect["data"], column.values);
            checked += 1;
        }
        assert!(
            checked > 150 && medians < 20,
            "{checked} checked, {medians} medians of an even count"
        );
    }

    /// The seconds 1 to 40 in four rows.
    const FOUR_TENS: Window = Window {
        after: 1,
        before: 40,
        rows: 4,
        group: 10,
        granularity: 1,
        every: 10,
        amount_divisor: None,
        natural: true,
    };

    /// A dimension whose first sample comes after others of its chart counts it in the row it lies in.
    #[test]
    fn the_first_sample_after_a_gap_counts() {
        let w = FOUR_TENS;
        let mut grouping = Grouping::new(Method::Sum, "", &w);
        let mut walk = Walk::new(&w, Facet::Sum, Notes::default(), &mut grouping);
        walk.feed_gap(21);
        for end in 22..=40 {
            walk.feed_sample(end, 1, Sample::normal(1.0));
        }
        let column = walk.finish();
        assert!(column.values[0].is_nan() && column.values[1].is_nan());
        assert_eq!((column.values[2], column.values[3], column.points_read), (9.0, 10.0, 19));
    }

    /// The short way of rows that are samples gives what the long one gives.
    #[test]
    fn samples_that_are_rows_stand_as_they_are() {
        for (first, after, before) in
            [(1, 1, 40), (10, 1, 40), (1, 11, 25), (30, 2, 29), (7, 3, 90)]
        {
            for every in [1, 5] {
                for word in
                    ["average", "sum", "min", "max", "median", "percentile", "stddev", "ses"]
                {
                    let w = Window {
                        after: after * every,
                        before: before * every,
                        rows: (before - after + 1) as usize,
                        group: 1,
                        granularity: every,
                        every,
                        amount_divisor: None,
                        natural: true,
                    };
                    let columns = [true, false].map(|short| {
                        let mut grouping = Grouping::new(Method::parse(word).0, "", &w);
                        let facet = Facet::of(Method::parse(word).0);
                        let mut walk = Walk::new(&w, facet, Notes::default(), &mut grouping);
                        assert_eq!(walk.takes_rows(every), !matches!(word, "stddev" | "ses"));
                        let short = short && walk.takes_rows(every);
                        assert!(!walk.takes_rows(every + 1));
                        for n in first.max(after)..=60 {
                            let sample =
                                if n % 7 == 3 { Sample::EMPTY } else { Sample::normal(n as f64) };
                            if short {
                                walk.feed_row(n * every, sample);
                            } else {
                                walk.feed_sample(n * every, every, sample);
                            }
                        }
                        let column = walk.finish();
                        (
                            column.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                            column.nonzero,
                            column.points_read,
                        )
                    });
                    assert_eq!(columns[0], columns[1], "{word} {first} {after} {before} {every}");
                }
            }
        }
    }

    #[test]
    fn gaps_shorter_than_a_row_vanish_and_longer_ones_are_null() {
        let series: Vec<_> =
            (1..=40).map(|t| (t, (!(11..=29).contains(&t)).then_some(t as f64))).collect();
        let w = FOUR_TENS;
        let mut grouping = Grouping::new(Method::Sum, "", &w);
        let mut walk =
            Walk::new(&w, Facet::Sum, Notes { anomaly_rates: true, resets: true }, &mut grouping);
        feed(&series, 1, &w, &mut walk);
        assert!(walk.is_complete());
        let column = walk.finish();
        assert_eq!(column.values[0], 55.0);
        assert!(column.values[1].is_nan());
        assert!(near(column.values[2], 30.0) && near(column.values[3], 355.0));
        assert_eq!(
            (column.resets.len(), column.anomaly_rates.len(), column.points_read),
            (4, 4, 40)
        );
    }
}

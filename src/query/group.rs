//! Grouping over time: how the samples of one row become one number.
//!
//! Pure and without a look at times. What a method is called, which options it takes and every corner of its arithmetic
//! follow the HTTP specification, section 7.5; results equal the original's to the last printed digit, except the
//! median of an even count, which is the mean of the two middle values as in 2.x.

use super::window::Window;

/// Values a sorting method keeps for one row. Beyond that every second one is dropped, so that a row over years costs
/// bounded memory.
const KEPT_MAX: usize = 1 << 22;
/// `ses max window` and `des max window` unless configured.
pub const SMOOTHING_WINDOW: i64 = 15;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    Average,
    Sum,
    Min,
    Max,
    IncrementalSum,
    /// Percent cut off at either end of the range of values.
    Median(u8),
    /// Percent of the values left out at either end.
    TrimmedMean(u8),
    /// The mean of the lowest so many percent.
    Percentile(u8),
    Stddev,
    Cv,
    Ses,
    Des,
    CountIf,
}

/// Every `group` word with the name that answers report.
const WORDS: &[(&str, &str, Method)] = &[
    ("average", "average", Method::Average),
    ("mean", "average", Method::Average),
    ("sum", "sum", Method::Sum),
    ("min", "min", Method::Min),
    ("max", "max", Method::Max),
    ("incremental_sum", "incremental_sum", Method::IncrementalSum),
    ("incremental-sum", "incremental_sum", Method::IncrementalSum),
    ("median", "median", Method::Median(0)),
    ("trimmed-median", "trimmed-median5", Method::Median(5)),
    ("trimmed-median1", "trimmed-median1", Method::Median(1)),
    ("trimmed-median2", "trimmed-median2", Method::Median(2)),
    ("trimmed-median3", "trimmed-median3", Method::Median(3)),
    ("trimmed-median5", "trimmed-median5", Method::Median(5)),
    ("trimmed-median10", "trimmed-median10", Method::Median(10)),
    ("trimmed-median15", "trimmed-median15", Method::Median(15)),
    ("trimmed-median20", "trimmed-median20", Method::Median(20)),
    ("trimmed-median25", "trimmed-median25", Method::Median(25)),
    ("trimmed-mean", "trimmed-mean5", Method::TrimmedMean(5)),
    ("trimmed-mean1", "trimmed-mean1", Method::TrimmedMean(1)),
    ("trimmed-mean2", "trimmed-mean2", Method::TrimmedMean(2)),
    ("trimmed-mean3", "trimmed-mean3", Method::TrimmedMean(3)),
    ("trimmed-mean5", "trimmed-mean5", Method::TrimmedMean(5)),
    ("trimmed-mean10", "trimmed-mean10", Method::TrimmedMean(10)),
    ("trimmed-mean15", "trimmed-mean15", Method::TrimmedMean(15)),
    ("trimmed-mean20", "trimmed-mean20", Method::TrimmedMean(20)),
    ("trimmed-mean25", "trimmed-mean25", Method::TrimmedMean(25)),
    ("percentile", "percentile95", Method::Percentile(95)),
    ("percentile25", "percentile25", Method::Percentile(25)),
    ("percentile50", "percentile50", Method::Percentile(50)),
    ("percentile75", "percentile75", Method::Percentile(75)),
    ("percentile80", "percentile80", Method::Percentile(80)),
    ("percentile90", "percentile90", Method::Percentile(90)),
    ("percentile95", "percentile95", Method::Percentile(95)),
    ("percentile97", "percentile97", Method::Percentile(97)),
    ("percentile98", "percentile98", Method::Percentile(98)),
    ("percentile99", "percentile99", Method::Percentile(99)),
    ("stddev", "stddev", Method::Stddev),
    ("cv", "cv", Method::Cv),
    ("rsd", "cv", Method::Cv),
    ("ses", "ses", Method::Ses),
    ("ema", "ses", Method::Ses),
    ("ewma", "ses", Method::Ses),
    ("des", "des", Method::Des),
    ("countif", "countif", Method::CountIf),
];

impl Method {
    /// The method of a word and the name that answers give it; an unknown word means the average.
    pub fn parse(word: &str) -> (Method, &'static str) {
        WORDS
            .iter()
            .find(|(known, ..)| *known == word)
            .map_or((Method::Average, "average"), |(_, name, method)| (*method, name))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Test {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer words stand before the shorter ones they begin with.
const TESTS: &[(&str, Test)] = &[
    ("!=", Test::NotEqual),
    ("!:", Test::NotEqual),
    ("<>", Test::NotEqual),
    ("<=", Test::LessOrEqual),
    ("<:", Test::LessOrEqual),
    (">=", Test::GreaterOrEqual),
    (">:", Test::GreaterOrEqual),
    ("=", Test::Equal),
    (":", Test::Equal),
    ("!", Test::NotEqual),
    ("<", Test::Less),
    (">", Test::Greater),
];

/// What a row's values go through.
#[derive(Debug)]
enum Kind {
    Average { divisor: Option<f64> },
    Sum,
    Min,
    Max,
    IncrementalSum { first: f64 },
    Median { cut: f64 },
    Share { share: f64, from_middle: bool },
    Spread { relative: bool },
    Ses { alpha: f64, seen: bool },
    Des { alpha: f64, trend: f64, seen: u8 },
    CountIf { test: Test, target: f64, hits: u64 },
}

/// Collects the values of one dimension row by row.
#[derive(Debug)]
pub struct Grouping {
    kind: Kind,
    /// Values of this row so far.
    count: u64,
    /// Sum, extreme, last value, mean or smoothed level, as the kind needs.
    state: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
    kept: Vec<f64>,
    /// Only every so-many-th value is kept, see [`KEPT_MAX`].
    stride: u64,
}

impl Grouping {
    /// `options` is the text of `group_options`; a text that is empty or no use leaves the method's own default.
    pub fn new(method: Method, options: &str, window: &Window) -> Grouping {
        Grouping::reusing(method, options, window, Vec::new())
    }

    /// The same, in memory of an earlier one that [`Grouping::into_memory`] gave.
    pub fn reusing(method: Method, options: &str, window: &Window, mut kept: Vec<f64>) -> Grouping {
        kept.clear();
        let percent = |default: u8, most: f64| {
            if options.is_empty() {
                f64::from(default)
            } else {
                lenient_number(options).clamp(0.0, most)
            }
        };
        let alpha = || {
            let rows = i64::try_from(window.rows).unwrap_or(i64::MAX);
            let span = if window.group == 1 { rows } else { window.group };
            2.0 / (span.min(SMOOTHING_WINDOW) as f64 + 1.0)
        };
        let kind = match method {
            Method::Average => Kind::Average { divisor: window.amount_divisor },
            Method::Sum => Kind::Sum,
            Method::Min => Kind::Min,
            Method::Max => Kind::Max,
            Method::IncrementalSum => Kind::IncrementalSum { first: 0.0 },
            Method::Median(default) => Kind::Median { cut: percent(default, 50.0) / 100.0 },
            Method::TrimmedMean(default) => {
                Kind::Share { share: 1.0 - percent(default, 50.0) / 100.0 * 2.0, from_middle: true }
            }
            Method::Percentile(default) => {
                Kind::Share { share: percent(default, 100.0) / 100.0, from_middle: false }
            }
            Method::Stddev => Kind::Spread { relative: false },
            Method::Cv => Kind::Spread { relative: true },
            Method::Ses => Kind::Ses { alpha: alpha(), seen: false },
            Method::Des => Kind::Des { alpha: alpha(), trend: 0.0, seen: 0 },
            Method::CountIf => {
                let (test, target) = parse_test(options);
                Kind::CountIf { test, target, hits: 0 }
            }
        };
        if matches!(kind, Kind::Median { .. } | Kind::Share { .. }) {
            // one more than a row holds: an interpolated value may join its own samples
            kept.reserve(usize::try_from(window.group + 1).map_or(1024, |n| n.min(4096)));
        }
        Grouping { kind, count: 0, state: 0.0, squares: 0.0, kept, stride: 1 }
    }

    pub fn into_memory(self) -> Vec<f64> {
        self.kept
    }

    /// Forgets everything, smoothed levels too: the next value belongs to another dimension.
    pub fn restart(&mut self) {
        self.next_row();
        self.state = 0.0;
        match &mut self.kind {
            Kind::Ses { seen, .. } => *seen = false,
            Kind::Des { seen, trend, .. } => (*seen, *trend) = (0, 0.0),
            _ => {}
        }
    }

    fn next_row(&mut self) {
        self.count = 0;
        match &mut self.kind {
            Kind::Ses { .. } | Kind::Des { .. } => {}
            Kind::Median { .. } | Kind::Share { .. } => {
                self.kept.clear();
                self.stride = 1;
            }
            Kind::Spread { .. } => (self.state, self.squares) = (0.0, 0.0),
            Kind::CountIf { hits, .. } => *hits = 0,
            _ => self.state = 0.0,
        }
    }

    /// Whether nothing is gathered and a row made of one value is that value.
    pub fn keeps_single_values(&self) -> bool {
        self.count == 0
            && matches!(
                self.kind,
                Kind::Average { divisor: None }
                    | Kind::Sum
                    | Kind::Min
                    | Kind::Max
                    | Kind::Median { .. }
                    | Kind::Share { .. }
            )
    }

    /// Adds a value, which must be a number.
    #[inline(always)]
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let first_of_row = self.count == 1;
        match &mut self.kind {
            Kind::Average { .. } | Kind::Sum => self.state += value,
            Kind::Min => {
                if first_of_row || value.abs() < self.state.abs() {
                    self.state = value;
                }
            }
            Kind::Max => {
                if first_of_row || value.abs() > self.state.abs() {
                    self.state = value;
                }
            }
            Kind::IncrementalSum { first } => {
                if first_of_row {
                    *first = value;
                }
                self.state = value;
            }
            Kind::Median { .. } | Kind::Share { .. } => self.keep(value),
            Kind::Spread { .. } => {
                let distance = value - self.state;
                self.state += distance / self.count as f64;
                self.squares += distance * (value - self.state);
            }
            Kind::Ses { alpha, seen } => {
                self.state =
                    if *seen { *alpha * value + (1.0 - *alpha) * self.state } else { value };
                *seen = true;
            }
            Kind::Des { alpha, trend, seen } => {
                if *seen == 0 {
                    (self.state, *trend) = (value, value);
                } else {
                    if *seen == 1 {
                        (*trend, self.state) = (value - *trend, value);
                    }
                    let before = self.state;
                    self.state = *alpha * value + (1.0 - *alpha) * (before + *trend);
                    *trend = *alpha * (self.state - before) + (1.0 - *alpha) * *trend;
                }
                *seen = (*seen + 1).min(2);
            }
            Kind::CountIf { test, target, hits } => {
                let hit = match test {
                    Test::Equal => value == *target,
                    Test::NotEqual => value != *target,
                    Test::Less => value < *target,
                    Test::LessOrEqual => value <= *target,
                    Test::Greater => value > *target,
                    Test::GreaterOrEqual => value >= *target,
                };
                *hits += u64::from(hit);
            }
        }
    }

    fn keep(&mut self, value: f64) {
        if self.stride > 1 && !self.count.is_multiple_of(self.stride) {
            return;
        }
        if self.kept.len() == KEPT_MAX {
            let mut nth = 0;
            self.kept.retain(|_| {
                nth += 1;
                nth % 2 == 0
            });
            self.stride *= 2;
        }
        self.kept.push(value);
    }

    /// The number of the row, NaN when it has none; the next value starts another row.
    #[inline]
    pub fn row(&mut self) -> f64 {
        let value = match &self.kind {
            Kind::Ses { seen: true, .. } => self.state,
            Kind::Des { seen, .. } if *seen > 0 => self.state,
            _ if self.count == 0 => f64::NAN,
            Kind::Average { divisor: Some(divisor) } => self.state / divisor,
            Kind::Average { divisor: None } => self.state / self.count as f64,
            Kind::Sum | Kind::Min | Kind::Max | Kind::Ses { .. } | Kind::Des { .. } => self.state,
            Kind::IncrementalSum { first } => self.state - first,
            Kind::Median { cut } => median(&mut self.kept, *cut),
            Kind::Share { share, from_middle } => {
                mean_of_share(&mut self.kept, *share, *from_middle)
            }
            Kind::Spread { .. } if self.count == 1 => 0.0,
            Kind::Spread { relative } => {
                let deviation = (self.squares / (self.count - 1) as f64).sqrt();
                if *relative { 100.0 * deviation / self.state.abs() } else { deviation }
            }
            Kind::CountIf { hits, .. } => 100.0 * *hits as f64 / self.count as f64,
        };
        self.next_row();
        if value.is_finite() { value } else { f64::NAN }
    }
}

/// The median of the values within the inner part of their range; `cut` of the range is left out at either end.
fn median(values: &mut [f64], cut: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let (Some(&smallest), Some(&largest)) = (values.first(), values.last()) else {
        return f64::NAN;
    };
    let mut inner = &values[..];
    if cut > 0.0 && values.len() > 1 {
        let delta = (largest - smallest) * cut;
        let (low, high) = (smallest + delta, largest - delta);
        let from = values.partition_point(|v| *v < low).min(values.len() - 1);
        let to = values.partition_point(|v| *v <= high).max(from + 1);
        inner = &values[from..to];
    }
    let middle = inner.len() / 2;
    if inner.len() % 2 == 1 { inner[middle] } else { (inner[middle - 1] + inner[middle]) / 2.0 }
}

/// The mean of `share` of the sorted values, from the low end or around the middle, with a part of the next value so
/// that the result does not jump with their number. Negative values turn the walk round: it starts at the top.
fn mean_of_share(values: &mut [f64], share: f64, from_middle: bool) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let (Some(&smallest), Some(&largest)) = (values.first(), values.last()) else {
        return f64::NAN;
    };
    if smallest == largest {
        return smallest;
    }
    let count = values.len();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the count, which is a size"
    )]
    let kept = ((count as f64 * share) as usize).clamp(1, count);
    let used = kept as f64 / count as f64;
    let part =
        if share > used { (share - used) / ((kept + 1) as f64 / count as f64 - used) } else { 0.0 };
    let offset = if from_middle { (count - kept) / 2 } else { 0 };
    if smallest < 0.0 {
        values.reverse();
    }
    let mut sum: f64 = values[offset..offset + kept].iter().sum();
    let mut n = kept;
    if part > 0.0
        && let Some(next) = values.get(offset + kept)
    {
        sum += next * part + values[offset + kept - 1] * (1.0 - part);
        n += 1;
    }
    sum / n as f64
}

fn parse_test(options: &str) -> (Test, f64) {
    let text = options.trim_start();
    TESTS
        .iter()
        .find_map(|(word, test)| text.strip_prefix(word).map(|rest| (*test, lenient_number(rest))))
        .unwrap_or((Test::Equal, 0.0))
}

/// The number a text begins with, after blanks; 0 when there is none.
pub fn lenient_number(text: &str) -> f64 {
    let text = text.trim_start();
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let sign = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let mut end = sign + digits(sign);
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let length = bytes.get(exponent..).map_or(0, |_| digits(exponent));
        if length > 0 {
            end = exponent + length;
        }
    }
    text[..end].parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROW1: [f64; 9] = [1.0, 5.0, 2.0, 8.0, 3.0, 9.0, 4.0, 7.0, 6.0];
    const ROW2: [f64; 10] = [0.0, -4.0, 12.0, 2.0, -1.0, -6.0, 8.0, -2.0, 4.5, 0.0];

    fn window() -> Window {
        Window {
            after: 1,
            before: 20,
            rows: 2,
            group: 10,
            granularity: 1,
            every: 10,
            amount_divisor: None,
            natural: true,
        }
    }

    /// The word, its options, the name it has in answers, and the rows of [`ROW1`] and [`ROW2`].
    #[track_caller]
    fn check(word: &str, options: &str, name: &str, one: f64, two: f64) {
        let (method, known_as) = Method::parse(word);
        let mut grouping = Grouping::new(method, options, &window());
        let rows = [&ROW1[..], &ROW2].map(|row| {
            row.iter().for_each(|v| grouping.add(*v));
            grouping.row()
        });
        assert_eq!(known_as, name);
        for (got, want) in rows.iter().zip([one, two]) {
            assert!(
                (got - want).abs() <= 2e-7 * want.abs().max(1.0),
                "{rows:?} instead of {one}, {two}"
            );
        }
    }

    #[test]
    fn simple_methods() {
        check("average", "7", "average", 5.0, 1.35);
        check("mean", "", "average", 5.0, 1.35);
        check("bogus", "", "average", 5.0, 1.35);
        check("sum", "", "sum", 45.0, 13.5);
        check("min", "", "min", 1.0, 0.0);
        check("max", "", "max", 9.0, 12.0);
        check("incremental-sum", "", "incremental_sum", 5.0, 0.0);
        check("stddev", "", "stddev", 2.738_612_8, 5.487_612_3);
        check("rsd", "", "cv", 54.772_255_8, 406.489_800_9);
        check("ewma", "", "ses", 4.826_101_9, 1.814_458_2);
        check("des", "", "des", 15.401_437, 1.451_353_7);
    }

    #[test]
    fn medians_cut_off_the_ends_of_the_range() {
        check("median", "", "median", 5.0, 0.0);
        check("median", "30", "median", 5.0, 1.0);
        check("trimmed-median", "", "trimmed-median5", 5.0, 0.0);
        check("trimmed-median10", "", "trimmed-median10", 5.0, 0.0);
        check("trimmed-median25", "", "trimmed-median25", 5.0, 0.0);
        check("trimmed-median", "40", "trimmed-median5", 5.0, 3.25);
    }

    #[test]
    fn shares_take_a_part_of_the_next_value() {
        check("trimmed-mean", "", "trimmed-mean5", 4.9, 2.166_666_7);
        check("trimmed-mean1", "", "trimmed-mean1", 4.98, 1.39);
        check("trimmed-mean10", "", "trimmed-mean10", 5.4, 0.9375);
        check("trimmed-mean25", "", "trimmed-mean25", 4.9, 1.1);
        check("trimmed-mean", "30", "trimmed-mean5", 5.4, 0.25);
        check("trimmed-mean", "90", "trimmed-mean5", 5.0, 0.0);
        check("percentile", "", "percentile95", 4.95, 1.45);
        check("percentile25", "", "percentile25", 1.75, 8.75);
        check("percentile75", "", "percentile75", 3.964_285_7, 3.0);
        check("percentile", "60", "percentile95", 3.4, 4.416_666_7);
        check("percentile", "0", "percentile95", 1.0, 12.0);
        check("percentile", "150", "percentile95", 5.0, 1.35);
        check("percentile", "x", "percentile95", 1.0, 12.0);
    }

    #[test]
    fn countif_is_a_percentage() {
        check("countif", "", "countif", 0.0, 20.0);
        check("countif", "4", "countif", 0.0, 20.0);
        check("countif", ">4", "countif", 55.555_555_6, 30.0);
        check("countif", ">:4", "countif", 66.666_666_7, 30.0);
        check("countif", "> 4.5", "countif", 55.555_555_6, 20.0);
        check("countif", "<>4", "countif", 88.888_888_9, 100.0);
        check("countif", ":4", "countif", 11.111_111_1, 0.0);
        check("countif", "<=4", "countif", 44.444_444_4, 70.0);
    }

    #[test]
    fn rows_without_values_are_null_but_smoothing_goes_on() {
        for word in ["average", "sum", "median", "percentile", "stddev", "countif", "ses", "des"] {
            let mut grouping = Grouping::new(Method::parse(word).0, "", &window());
            assert!(grouping.row().is_nan(), "{word}");
            grouping.add(3.0);
            grouping.row();
            assert_eq!(grouping.row().is_nan(), !matches!(word, "ses" | "des"), "{word}");
            grouping.restart();
            assert!(grouping.row().is_nan(), "{word}");
        }
    }

    #[test]
    fn a_number_ends_where_it_stops_being_one() {
        for (text, want) in [
            ("", 0.0),
            (" 12.5abc", 12.5),
            ("-3e2x", -300.0),
            ("1e", 1.0),
            (".5", 0.5),
            ("-", 0.0),
            ("é", 0.0),
        ] {
            assert_eq!(lenient_number(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_values_make_a_method_fail(
            values in proptest::collection::vec(-1e15f64..1e15, 0..50), word in 0..WORDS.len(), options in "[<>=!:]{0,2}[0-9.x-]{0,3}",
        ) {
            let mut grouping = Grouping::new(WORDS[word].2, &options, &window());
            values.iter().for_each(|v| grouping.add(*v));
            let row = grouping.row();
            prop_assert!(row.is_finite() || values.is_empty() || WORDS[word].2 == Method::Cv, "{} of {values:?}: {row}", WORDS[word].0);
        }
    }
}

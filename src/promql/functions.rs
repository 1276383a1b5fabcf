//! Functions, by name.

use promql_parser::label::MatchOp;
use promql_parser::parser::{Call, Expr};

use super::eval::{Evaluator, alternatives};
use super::labels::{Labels, NAME, is_label_name};
use super::value::{Series, VALUE_BYTES, Value, merged};
use super::windows::{Kind, Per, Window};
use super::{Error, calendar, histogram, parse};

/// A label that a function makes may be this long, …
const LABEL_BYTES_MAX: usize = 8192;
/// … and what it is made of.
const EXPANDED_BYTES_MAX: usize = 1 << 20;

fn too_long() -> Error {
    Error::execution(format!("a label would be longer than {LABEL_BYTES_MAX} bytes"))
}

pub(super) fn eval(evaluator: &Evaluator<'_>, call: &Call, times: &[i64]) -> Result<Value, Error> {
    let name = call.func.name;
    let arguments = Arguments { evaluator, call, times };
    if let Some(of) = of_each(name) {
        return arguments.each(|value, _| Some(of(value)));
    }
    if let Some(part) = calendar::part(name) {
        let of =
            |seconds: f64| if seconds.is_finite() { part(seconds as i64) as f64 } else { f64::NAN };
        if call.args.args.is_empty() {
            let points = times.iter().map(|at| Some(of(*at as f64 / 1000.0))).collect();
            return Ok(Value::Vector(vec![Series { labels: Labels::default(), points }]));
        }
        return arguments.each(|value, _| Some(of(value)));
    }
    if let Some(of) = of_window(name) {
        let labels = if matches!(name, "last_over_time" | "first_over_time") {
            Names::Kept
        } else {
            Names::Dropped
        };
        return arguments.windows(0, labels, &mut |window, _| of(window));
    }
    match name {
        "time" => Ok(Value::Scalar(times.iter().map(|at| *at as f64 / 1000.0).collect())),
        "pi" => Ok(Value::Scalar(vec![std::f64::consts::PI; times.len()])),
        "vector" => {
            let points = arguments.scalar(0)?.into_iter().map(Some).collect();
            Ok(Value::Vector(vec![Series { labels: Labels::default(), points }]))
        }
        "scalar" => {
            let series = arguments.vector(0)?;
            let only = |step: usize| {
                let mut here = series.iter().filter_map(|one| one.points[step]);
                here.next().filter(|_| here.next().is_none()).unwrap_or(f64::NAN)
            };
            Ok(Value::Scalar((0..times.len()).map(only).collect()))
        }
        "timestamp" => arguments.timestamps(),
        "round" => {
            let to = match call.args.args.len() {
                1 => vec![1.0; times.len()],
                _ => arguments.scalar(1)?,
            };
            arguments.each(|value, step| {
                let inverse = 1.0 / to[step];
                Some((value * inverse + 0.5).floor() / inverse)
            })
        }
        "clamp" => {
            let (least, most) = (arguments.scalar(1)?, arguments.scalar(2)?);
            arguments.each(|value, step| {
                let (least, most) = (least[step], most[step]);
                (most >= least || least.is_nan() || most.is_nan())
                    .then(|| larger(least, smaller(most, value)))
            })
        }
        "clamp_max" => {
            let most = arguments.scalar(1)?;
            arguments.each(|value, step| Some(smaller(most[step], value)))
        }
        "clamp_min" => {
            let least = arguments.scalar(1)?;
            arguments.each(|value, step| Some(larger(least[step], value)))
        }
        "sort" => arguments.sorted(|a, b| a.total_cmp(&b)),
        "sort_desc" => arguments.sorted(|a, b| b.total_cmp(&a)),
        "absent" => {
            let series = arguments.vector(0)?;
            Ok(arguments.absent(&series))
        }
        "absent_over_time" => {
            let seen = &mut |_: &Window<'_>, _: usize| Some(1.0);
            let series = evaluator.windows(arguments.expr(0)?, times, seen)?;
            Ok(arguments.absent(&series))
        }
        "quantile_over_time" => {
            let q = arguments.scalar(0)?;
            arguments.windows(1, Names::Dropped, &mut |window, step| Some(window.quantile(q[step])))
        }
        "predict_linear" => {
            let ahead = arguments.scalar(1)?;
            arguments.windows(0, Names::Dropped, &mut |window, step| {
                let (slope, now) = window.line(window.moment.at_ms)?;
                Some(slope * ahead[step] + now)
            })
        }
        "double_exponential_smoothing" | "holt_winters" => {
            let (smoothing, trend) = (arguments.scalar(1)?, arguments.scalar(2)?);
            let valid =
                |factors: &[f64]| factors.iter().all(|factor| *factor > 0.0 && *factor < 1.0);
            if !valid(&smoothing) || !valid(&trend) {
                return Err(Error::execution(
                    "invalid smoothing or trend factor. Expected: 0 < factor < 1",
                ));
            }
            arguments.windows(0, Names::Dropped, &mut |window, step| {
                window.smoothed(smoothing[step], trend[step])
            })
        }
        "histogram_quantile" => {
            Ok(Value::Vector(histogram::quantiles(&arguments.scalar(0)?, arguments.vector(1)?)?))
        }
        "label_replace" => arguments.label_replace(),
        "label_join" => arguments.label_join(),
        _ => Err(Error::execution(format!("the function '{name}' is not supported"))),
    }
}

/// Functions of one value.
fn of_each(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => |v| v * 180.0 / std::f64::consts::PI,
        "rad" => |v| v * std::f64::consts::PI / 180.0,
        _ => return None,
    })
}

/// Functions of one window and nothing else.
fn of_window(name: &str) -> Option<fn(&Window<'_>) -> Option<f64>> {
    Some(match name {
        "rate" => |w| w.extrapolated(Kind::Counter, Per::Second),
        "increase" => |w| w.extrapolated(Kind::Counter, Per::Window),
        "delta" => |w| w.extrapolated(Kind::Gauge, Per::Window),
        "irate" => |w| w.instant(Kind::Counter, Per::Second),
        "idelta" => |w| w.instant(Kind::Gauge, Per::Window),
        "deriv" => |w| w.derivative(),
        "changes" => |w| Some(w.changes()),
        "resets" => |w| Some(w.resets()),
        "avg_over_time" => |w| Some(w.average()),
        "sum_over_time" => |w| Some(w.sum()),
        "count_over_time" => |w| Some(w.count()),
        "min_over_time" => |w| w.extreme(|a, b| a < b),
        "max_over_time" => |w| w.extreme(|a, b| a > b),
        "stdvar_over_time" => |w| Some(w.variance()),
        "stddev_over_time" => |w| Some(w.variance().sqrt()),
        "last_over_time" => |w| w.last(),
        "first_over_time" => |w| Some(w.samples.first()?.1),
        "present_over_time" => |_| Some(1.0),
        _ => return None,
    })
}

/// What is not a number stays so, unlike in Rust's own.
fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Whether the result is still of the metric that was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Kept,
    Dropped,
}

struct Arguments<'a> {
    evaluator: &'a Evaluator<'a>,
    call: &'a Call,
    times: &'a [i64],
}

impl Arguments<'_> {
    fn expr(&self, n: usize) -> Result<&Expr, Error> {
        let missing = || Error::Parse(format!("'{}' takes more arguments", self.call.func.name));
        self.call.args.args.get(n).map(|expr| &**expr).ok_or_else(missing)
    }

    fn vector(&self, n: usize) -> Result<Vec<Series>, Error> {
        self.evaluator.vector(self.expr(n)?, self.times)
    }

    fn scalar(&self, n: usize) -> Result<Vec<f64>, Error> {
        self.evaluator.scalar(self.expr(n)?, self.times)
    }

    fn text(&self, n: usize) -> Result<String, Error> {
        self.evaluator.text(self.expr(n)?)
    }

    /// Each value of the first argument by itself.
    fn each(&self, of: impl Fn(f64, usize) -> Option<f64>) -> Result<Value, Error> {
        let out = self.vector(0)?.into_iter().map(|one| {
            let points = one.points.into_iter().enumerate();
            let points = points.map(|(step, value)| of(value?, step)).collect();
            Series { labels: one.labels.nameless(), points }
        });
        Ok(Value::Vector(merged(out.collect())?))
    }

    fn windows(
        &self,
        n: usize,
        names: Names,
        of: &mut dyn FnMut(&Window<'_>, usize) -> Option<f64>,
    ) -> Result<Value, Error> {
        let mut series = self.evaluator.windows(self.expr(n)?, self.times, of)?;
        if names == Names::Dropped {
            for one in &mut series {
                one.labels.remove(NAME);
            }
        }
        Ok(Value::Vector(merged(series)?))
    }

    /// Of a selector the times of its samples, of everything else that of the step.
    fn timestamps(&self) -> Result<Value, Error> {
        let mut expr = self.expr(0)?;
        while let Expr::Paren(inner) = expr {
            expr = &inner.expr;
        }
        let Expr::VectorSelector(selector) = expr else {
            return self.each(|_, step| Some(self.times[step] as f64 / 1000.0));
        };
        let mut series =
            self.evaluator.instants(selector, self.times, |(at, _)| *at as f64 / 1000.0)?;
        series.iter_mut().for_each(|one| one.labels.remove(NAME));
        Ok(Value::Vector(merged(series)?))
    }

    /// In the order of the values, where there is one step; numbers first.
    fn sorted(&self, compare: impl Fn(f64, f64) -> std::cmp::Ordering) -> Result<Value, Error> {
        let mut series = self.vector(0)?;
        if self.times.len() == 1 {
            let value = |one: &Series| one.points[0].unwrap_or(f64::NAN);
            series.sort_by(|a, b| match (value(a), value(b)) {
                (a, b) if a.is_nan() || b.is_nan() => a.is_nan().cmp(&b.is_nan()),
                (a, b) => compare(a, b),
            });
        }
        Ok(Value::Vector(series))
    }

    /// 1 where no series is, with the labels that the selector is sure of.
    fn absent(&self, series: &[Series]) -> Value {
        let here = |step: usize| series.iter().any(|one| one.points[step].is_some());
        let points: Vec<_> =
            (0..self.times.len()).map(|step| (!here(step)).then_some(1.0)).collect();
        if points.iter().all(Option::is_none) {
            return Value::Vector(Vec::new());
        }
        let selector = match self.expr(0) {
            Ok(Expr::VectorSelector(selector)) => Some(selector),
            Ok(Expr::MatrixSelector(matrix)) => Some(&matrix.vs),
            _ => None,
        };
        let mut labels = Labels::default();
        let mut sure: Vec<&str> = Vec::new();
        let all = selector.map(|selector| alternatives(None, &selector.matchers));
        let all = all.filter(|all| all.len() == 1).unwrap_or_default().concat();
        for matcher in all.iter().filter(|matcher| matcher.name != NAME) {
            if matches!(matcher.op, MatchOp::Equal) && !sure.contains(&matcher.name.as_str()) {
                labels.set(&matcher.name, &matcher.value);
                sure.push(&matcher.name);
            } else {
                labels.remove(&matcher.name);
            }
        }
        Value::Vector(vec![Series { labels, points }])
    }

    fn label_replace(&self) -> Result<Value, Error> {
        let (to, replacement) = (self.text(1)?, self.text(2)?);
        let (from, pattern) = (self.text(3)?, self.text(4)?);
        let regex = parse::pattern(&pattern).map_err(|_| {
            Error::execution(format!("invalid regular expression in label_replace(): {pattern}"))
        })?;
        if !is_label_name(&to) {
            return Err(Error::execution(format!(
                "invalid destination label name in label_replace(): {to}"
            )));
        }
        let (mut out, mut texts) = (self.vector(0)?, 0);
        for one in &mut out {
            let Some(found) = regex.captures(one.labels.get(&from)) else { continue };
            let long = found.get_match().len().max(1).saturating_mul(replacement.len());
            if long > EXPANDED_BYTES_MAX {
                return Err(too_long());
            }
            let mut value = String::new();
            found.expand(&replacement, &mut value);
            self.add_text(&value, &mut texts)?;
            one.labels.set(&to, &value);
        }
        Ok(Value::Vector(merged(out)?))
    }

    /// A value of a label more that is held.
    fn add_text(&self, value: &str, all: &mut usize) -> Result<(), Error> {
        if value.len() > LABEL_BYTES_MAX {
            return Err(too_long());
        }
        *all += value.len();
        self.evaluator.room_for(1, *all / VALUE_BYTES)
    }

    fn label_join(&self) -> Result<Value, Error> {
        let (to, separator) = (self.text(1)?, self.text(2)?);
        let from = (3..self.call.args.args.len()).map(|n| self.text(n));
        let from = from.collect::<Result<Vec<_>, _>>()?;
        let bad = std::iter::once(&to).chain(&from).find(|name| !is_label_name(name));
        if let Some(name) = bad {
            return Err(Error::execution(format!("invalid label name in label_join(): {name}")));
        }
        let (mut out, mut texts) = (self.vector(0)?, 0);
        for one in &mut out {
            let values: Vec<&str> = from.iter().map(|name| one.labels.get(name)).collect();
            let long = values.iter().map(|value| value.len() + separator.len()).sum::<usize>();
            if long > EXPANDED_BYTES_MAX {
                return Err(too_long());
            }
            let value = values.join(&separator);
            self.add_text(&value, &mut texts)?;
            one.labels.set(&to, &value);
        }
        Ok(Value::Vector(merged(out)?))
    }
}

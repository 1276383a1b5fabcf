//! The series of this agent's hosts: what it collected or was streamed, named as remote write of ours names it, and what came by remote
//! write, under the names it came with.
//!
//! Runs on the thread of the query. A chart's lock is held for a copy of its names and readers, never while samples are read.

use std::cell::RefCell;
use std::sync::Arc;

use promql_parser::label::MatchOp;

use super::labels::{Labels, NAME};
use super::{Alternatives, Error, Limits, Samples, Source, Stored, matches};
use crate::config::DataSource;
use crate::exporting;
use crate::ingest::remote_write as received;
use crate::metrics::{Chart, Dimension, Host};
use crate::query::raw;
use crate::storage::{Mode, Reader};

/// The series that tells who a host is has a sample every so many seconds.
const INFO_EVERY_S: i64 = 10;
/// Charts that say since when there is anything of a host.
const CHARTS_ASKED: usize = 8;

/// What a series stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described<'a> {
    pub metric: &'a str,
    pub kind: &'static str,
    pub help: &'a str,
    pub unit: &'a str,
}

pub struct Store<'a> {
    pub hosts: Vec<Arc<Host>>,
    /// What names of our own series begin with.
    pub prefix: &'a str,
    /// Charts and dimensions are called by name rather than by id.
    pub names: bool,
    pub now_s: i64,
}

impl Source for Store<'_> {
    fn select(
        &self,
        wanted: &Alternatives,
        (from_ms, to_ms): (i64, i64),
        limits: &Limits,
        expired: &dyn Fn() -> bool,
    ) -> Result<Vec<Stored>, Error> {
        let span = (from_ms.div_euclid(1000), to_ms.div_euclid(1000) + 1);
        let find = Find { store: self, wanted, name: name_of(wanted), span, values: limits.values };
        let mut found = Vec::new();
        for host in &self.hosts {
            find.of_host(host, limits, expired, &mut found)?;
        }
        Ok(joined(found, limits.values))
    }
}

/// A series that was found, perhaps one of several with the same labels.
struct Candidate {
    stored: Stored,
    /// The second of its last sample.
    last: i64,
}

/// One series of all with the same labels, in the order of these. At one time the sample of whoever has the newest counts, and of
/// those who have what was found first: what is live comes before what is archived.
fn joined(mut found: Vec<Candidate>, limit: usize) -> Vec<Stored> {
    found.sort_by(|a, b| a.stored.labels.cmp(&b.stored.labels).then(b.last.cmp(&a.last)));
    let mut out = Vec::with_capacity(found.len());
    let mut rest = found.into_iter().map(|candidate| candidate.stored).peekable();
    while let Some(mut first) = rest.next() {
        let mut all = Vec::new();
        while let Some(other) = rest.next_if(|other| other.labels == first.labels) {
            first.over_ms = first.over_ms.zip(other.over_ms).map(|(a, b)| a.max(b));
            all.push(other.samples);
        }
        if !all.is_empty() {
            all.insert(0, first.samples);
            first.samples = Box::new(Several { all, limit });
        }
        out.push(first);
    }
    out
}

/// Those who have samples of one series, whose samples count first.
struct Several {
    all: Vec<Box<dyn Samples>>,
    limit: usize,
}

impl Samples for Several {
    fn read(&self, from_ms: i64, to_ms: i64, out: &mut Vec<(i64, f64)>) {
        let begin = out.len();
        let mut other = Vec::new();
        for one in &self.all {
            other.clear();
            one.read(from_ms, to_ms, &mut other);
            let known = out.split_off(begin);
            let (mut known, mut other) = (known.into_iter().peekable(), other.iter().peekable());
            // Whoever asked sees that there are more.
            while out.len() <= self.limit {
                let next = match (known.peek(), other.peek()) {
                    (Some((at, _)), Some((time, _))) if at > time => other.next().copied(),
                    (Some((at, _)), Some((time, _))) => {
                        if at == time {
                            other.next();
                        }
                        known.next()
                    }
                    (Some(_), None) => known.next(),
                    (None, _) => other.next().copied(),
                };
                match next {
                    Some(sample) => out.push(sample),
                    None => break,
                }
            }
        }
    }
}

impl Store<'_> {
    /// Calls `visit` for every metric, some more than once.
    pub fn metrics(&self, visit: &mut dyn FnMut(Described<'_>)) {
        for host in &self.hosts {
            for chart in host.charts() {
                let state = chart.lock();
                let meta = &state.meta;
                if received::is_received(meta) {
                    let metric = received::metric_of(&state);
                    let kind = if received::is_counter(&metric) { "counter" } else { "gauge" };
                    visit(Described { metric: &metric, kind, help: "", unit: "" });
                } else if !state.dims.is_empty() {
                    let metric = self.metric(&meta.context, &meta.units);
                    let (help, unit) = (&*meta.title, &*meta.units);
                    visit(Described { metric: &metric, kind: "gauge", help, unit });
                }
            }
        }
    }

    fn metric(&self, context: &str, units: &str) -> String {
        exporting::metric_name(self.prefix, DataSource::Average, context, units)
    }
}

/// The one name that is asked for, if it is one.
fn name_of(wanted: &Alternatives) -> Option<&str> {
    let [all] = &wanted[..] else { return None };
    let name = all.iter().find(|m| m.name == NAME && matches!(m.op, MatchOp::Equal))?;
    Some(&name.value)
}

/// One selection.
struct Find<'a> {
    store: &'a Store<'a>,
    wanted: &'a Alternatives,
    name: Option<&'a str>,
    /// Seconds.
    span: (i64, i64),
    /// Samples of one series at most.
    values: usize,
}

impl Find<'_> {
    fn of_host(
        &self,
        host: &Arc<Host>,
        limits: &Limits,
        expired: &dyn Fn() -> bool,
        found: &mut Vec<Candidate>,
    ) -> Result<(), Error> {
        if host.engine().mode() == Mode::None {
            return Ok(());
        }
        let check = |found: &Vec<Candidate>| match () {
            () if found.len() > limits.series => Err(Error::execution(format!(
                "a selector of the query finds more than {} series",
                limits.series
            ))),
            () if expired() => Err(Error::TimedOut),
            () => Ok(()),
        };
        self.info(host, found);
        let hostname = host.hostname();
        for chart in host.charts() {
            check(found)?;
            self.of_chart(host, &hostname, &chart, found);
        }
        let mut result = Ok(());
        host.archived_charts(&mut |head| self.may_be(head.context), &mut |chart| {
            if result.is_ok() {
                result = check(found);
                self.of_chart(host, &hostname, chart, found);
            }
        });
        result?;
        check(found)
    }

    /// Whether a chart of that context can have a series of the name that is asked for.
    fn may_be(&self, context: &str) -> bool {
        let Some(name) = self.name else { return true };
        let own = self.store.metric(context, "");
        let own = own.trim_end_matches("_average");
        name.starts_with(own) || received::may_be_metric(context, name)
    }

    fn of_chart(
        &self,
        host: &Host,
        hostname: &str,
        chart: &Arc<Chart>,
        found: &mut Vec<Candidate>,
    ) {
        let state = chart.lock();
        let meta = &state.meta;
        let over_ms = state.is_obsolete().then_some(state.last_updated.0 * 1000);
        if received::is_received(meta) {
            let labels = Labels::of(received::labels_of(&state));
            // Patterns may take their time, which nobody is to wait for.
            drop(state);
            if !matches(self.wanted, &labels) {
                return;
            }
            let state = chart.lock();
            let mut dims: Vec<(Arc<str>, Arc<dyn Reader>)> = state
                .dims
                .iter()
                .map(|dim| (Arc::clone(&dim.id), Arc::clone(&dim.reader)))
                .collect();
            drop(state);
            let older = host.archived_dimensions(chart);
            dims.extend(older.iter().map(|dim| (Arc::clone(&dim.id), Arc::clone(&dim.reader))));
            let reader =
                |id: &str| dims.iter().find(|(own, _)| **own == *id).map(|(_, r)| Arc::clone(r));
            let parts = received::parts(&|id| dims.iter().any(|(own, _)| **own == *id));
            if let Some(first) = reader(parts.0)
                && let Some(last) = self.overlaps(&*first)
            {
                let held = Held {
                    first,
                    rest: reader(parts.1),
                    limit: self.values,
                    other: RefCell::default(),
                };
                let stored = Stored { labels, samples: Box::new(held), over_ms };
                found.push(Candidate { stored, last });
            }
            return;
        }
        let metric = self.store.metric(&meta.context, &meta.units);
        if self.name.is_some_and(|name| name != metric) {
            return;
        }
        let names = self.store.names;
        let chart_name = if names { Arc::clone(&meta.name) } else { Arc::clone(chart.id()) };
        let family = Arc::clone(&meta.family);
        let copied = |dim: &Dimension| {
            (Arc::clone(if names { &dim.name } else { &dim.id }), Arc::clone(&dim.reader))
        };
        let mut dims: Vec<_> = state.dims.iter().map(copied).collect();
        drop(state);
        dims.extend(host.archived_dimensions(chart).iter().map(copied));
        for (dimension, reader) in dims {
            let labels = Labels::of(exporting::series_labels(
                &metric,
                &chart_name,
                &dimension,
                &family,
                hostname,
            ));
            if matches(self.wanted, &labels)
                && let Some(last) = self.overlaps(&*reader)
            {
                let held = Held {
                    first: reader,
                    rest: None,
                    limit: self.values,
                    other: RefCell::default(),
                };
                let stored = Stored { labels, samples: Box::new(held), over_ms };
                found.push(Candidate { stored, last });
            }
        }
    }

    /// The last second of what has samples in the time asked for.
    fn overlaps(&self, reader: &dyn Reader) -> Option<i64> {
        let within = |(first, last): &(i64, i64)| *first <= self.span.1 && *last >= self.span.0;
        raw::span(reader).filter(within).map(|(_, last)| last)
    }

    /// The series that tells who a host is: it is there from its first sample on.
    fn info(&self, host: &Host, found: &mut Vec<Candidate>) {
        if self.name.is_some_and(|name| name != "netdata_info") || received::is_writer(host) {
            return;
        }
        let labels = exporting::host_labels(host, true, false);
        let labels = Labels::of(exporting::info_series(&host.hostname(), &host.info(), &labels));
        if !matches(self.wanted, &labels) {
            return;
        }
        let begun = host.charts().into_iter().take(CHARTS_ASKED).filter_map(|chart| {
            let readers: Vec<_> =
                chart.lock().dims.iter().map(|dim| Arc::clone(&dim.reader)).collect();
            readers.iter().filter_map(|reader| raw::span(&**reader)).map(|(first, _)| first).min()
        });
        let Some(first) = begun.min() else { return };
        let last = if host.is_connected() { self.store.now_s } else { host.disconnected_at().0 };
        let samples = Box::new(Always { first, last, limit: self.values });
        found.push(Candidate { stored: Stored { labels, samples, over_ms: None }, last });
    }
}

/// A metric of the store; what a sample of it could not hold is in another one.
struct Held {
    first: Arc<dyn Reader>,
    rest: Option<Arc<dyn Reader>>,
    limit: usize,
    other: RefCell<Vec<(i64, f64)>>,
}

impl Samples for Held {
    fn read(&self, from_ms: i64, to_ms: i64, out: &mut Vec<(i64, f64)>) {
        let (from, to) = (-(-from_ms).div_euclid(1000), to_ms.div_euclid(1000));
        let begin = out.len();
        raw::read(&*self.first, from, to, &mut |at, value| {
            // Whoever asked sees that there are more.
            if out.len() <= self.limit {
                out.push((at * 1000, value));
            }
        });
        let Some(rest) = &self.rest else { return };
        let mut other = self.other.borrow_mut();
        other.clear();
        raw::read(&**rest, from, to, &mut |at, value| {
            if other.len() <= self.limit {
                other.push((at * 1000, value));
            }
        });
        let mut next = other.iter().peekable();
        for (at, value) in &mut out[begin..] {
            while next.next_if(|(time, _)| time < at).is_some() {}
            if let Some((_, more)) = next.next_if(|(time, _)| time == at) {
                *value += more;
            }
        }
    }
}

/// 1 at all times.
struct Always {
    first: i64,
    last: i64,
    limit: usize,
}

impl Samples for Always {
    fn read(&self, from_ms: i64, to_ms: i64, out: &mut Vec<(i64, f64)>) {
        let from = (-(-from_ms).div_euclid(1000)).max(self.first);
        let to = to_ms.div_euclid(1000).min(self.last);
        let mut at = from + (-from).rem_euclid(INFO_EVERY_S);
        while at <= to && out.len() <= self.limit {
            out.push((at * 1000, 1.0));
            at += INFO_EVERY_S;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made(Vec<(i64, f64)>);

    impl Samples for Made {
        fn read(&self, from_ms: i64, to_ms: i64, out: &mut Vec<(i64, f64)>) {
            let within = |(at, _): &&(i64, f64)| (from_ms..=to_ms).contains(at);
            out.extend(self.0.iter().filter(within));
        }
    }

    fn candidate(name: &str, samples: &[(i64, f64)], over_ms: Option<i64>) -> Candidate {
        let labels = Labels::of([(NAME, name)]);
        let last = samples.last().unwrap().0;
        let stored = Stored { labels, samples: Box::new(Made(samples.to_vec())), over_ms };
        Candidate { stored, last }
    }

    fn read(stored: &Stored) -> Vec<(i64, f64)> {
        let mut out = vec![(-1, 0.5)];
        stored.samples.read(1, 9, &mut out);
        assert_eq!(out.remove(0), (-1, 0.5));
        out
    }

    #[test]
    fn series_of_equal_labels_are_one_and_the_newest_counts() {
        let found = vec![
            candidate("y", &[(1, 10.0), (2, 20.0), (4, 40.0)], Some(4)),
            candidate("x", &[(2, 1.0)], None),
            candidate("y", &[(0, 0.0), (2, 21.0), (3, 31.0), (6, 61.0), (10, 101.0)], Some(10)),
            candidate("y", &[(3, 32.0), (5, 52.0)], Some(5)),
        ];
        let all = joined(found, 100);
        assert_eq!(all.len(), 2);
        assert_eq!((read(&all[0]), all[0].over_ms), (vec![(2, 1.0)], None));
        let want = [(1, 10.0), (2, 21.0), (3, 31.0), (4, 40.0), (5, 52.0), (6, 61.0)];
        assert_eq!((read(&all[1]), all[1].over_ms), (want.to_vec(), Some(10)));
    }

    #[test]
    fn a_series_lives_while_any_of_its_hosts_has_it() {
        let all = joined(
            vec![candidate("y", &[(9, 1.0)], Some(9)), candidate("y", &[(2, 2.0)], None)],
            9,
        );
        assert_eq!(all[0].over_ms, None);
    }

    #[test]
    fn of_equal_ones_what_was_found_first_counts_and_no_more_is_read_than_may_be() {
        let samples: Vec<(i64, f64)> = (1..9).map(|at| (at, 1.0)).collect();
        let other: Vec<(i64, f64)> = (1..9).map(|at| (at, 2.0)).collect();
        let all = joined(vec![candidate("y", &samples, None), candidate("y", &other, None)], 3);
        // One was there before.
        assert_eq!(read(&all[0]), samples[..3]);
    }
}

//! Prometheus text: averages and sums since a server's last visit, or values as collected.
//!
//! What a server has been told already is kept per server and host in [`Scrapers`], bounded. Layout and odd corners
//! follow the HTTP specification, section 9.3; clients depend on the names.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::ids::MachineGuid;
use crate::base::json::{push_fixed, push_integer};
use crate::base::pattern::SimplePattern;
use crate::base::time::{UnixMicros, UnixSeconds};
use crate::config::{DataSource, PrometheusOptions};
use crate::exporting::{Units, push_label, push_sanitized, push_units, sanitized};
use crate::ingest::remote_write::is_part;
use crate::metrics::{Algorithm, ChartState, Host, HostKind, LabelSource};
use crate::storage::{Mode, Reader};
use crate::web::api::v1::charts::version_of;
use crate::web::api::{Call, many};

/// Servers remembered, one entry per host they ask about; the one away for longest is forgotten.
pub const SCRAPERS_MAX: usize = 1024;
/// A server's name is kept up to here.
const SERVER_BYTES_MAX: usize = 256;

/// When each server last asked about each host.
#[derive(Default)]
pub struct Scrapers(Mutex<Vec<Visit>>);

struct Visit {
    server: String,
    host: MachineGuid,
    at: i64,
}

impl Scrapers {
    /// Notes a visit; gives the time of the one before, `None` for the first.
    fn visit(&self, server: &str, host: MachineGuid, at: i64) -> Option<i64> {
        let mut end = server.len().min(SERVER_BYTES_MAX);
        while !server.is_char_boundary(end) {
            end -= 1;
        }
        let server = &server[..end];
        let mut visits = self.0.lock();
        if let Some(visit) = visits.iter_mut().find(|v| v.host == host && v.server == server) {
            return Some(std::mem::replace(&mut visit.at, at));
        }
        if visits.len() >= SCRAPERS_MAX {
            let oldest = visits.iter().enumerate().min_by_key(|(_, v)| v.at).map(|(n, _)| n);
            if let Some(oldest) = oldest {
                visits.swap_remove(oldest);
            }
        }
        visits.push(Visit { server: server.to_owned(), host, at });
        None
    }
}

/// A request for Prometheus text.
struct Scrape<'a> {
    source: DataSource,
    prefix: String,
    server: &'a str,
    filter: Option<&'a SimplePattern>,
    /// `[prometheus:exporter]`
    options: &'a PrometheusOptions,
    charts: SimplePattern,
    help: bool,
    types: bool,
    names: bool,
    timestamps: bool,
    variables: bool,
    old_units: bool,
    hide_units: bool,
    /// Name the host in every series.
    instance: bool,
    now: UnixMicros,
}

impl<'a> Scrape<'a> {
    fn of(call: &'a Call<'_>, filter: Option<&'a SimplePattern>, instance: bool) -> Scrape<'a> {
        let query = call.query();
        let flag = |name, default| {
            query.get(name).map_or(default, |word| matches!(word, "yes" | "1" | "true"))
        };
        let source = query.get_any(&[
            "source",
            "data",
            "data source",
            "data-source",
            "data_source",
            "datasource",
        ]);
        let options = &call.agent.prometheus;
        let asked = |word| DataSource::parse(word).unwrap_or(DataSource::Average);
        Scrape {
            source: source.map_or(options.source, asked),
            prefix: sanitized(query.get("prefix").unwrap_or(&options.prefix)),
            options,
            charts: SimplePattern::new(&options.charts),
            server: query.get("server").unwrap_or(&call.request.peer.ip),
            filter,
            help: flag("help", false),
            types: flag("types", false),
            names: flag("names", options.send_names),
            timestamps: flag("timestamps", true),
            variables: flag("variables", false),
            old_units: flag("oldunits", false),
            hide_units: flag("hideunits", false),
            instance,
            now: call.agent.clock.now(),
        }
    }
}

/// Which lines there are besides samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comments {
    /// `help` and `types` say it.
    AsAsked,
    Types,
}

pub(super) fn body(
    call: &Call<'_>,
    filter: Option<&SimplePattern>,
    all_hosts: bool,
    comments: Comments,
) -> Vec<String> {
    let mut scrape = Scrape::of(call, filter, all_hosts);
    if comments == Comments::Types {
        (scrape.help, scrape.types) = (false, true);
    }
    let mut out = Vec::new();
    if all_hosts {
        // What is archived has no current values.
        let wanted = SimplePattern::new(&scrape.options.hosts);
        for host in call.agent.hosts.all().iter().filter(|host| !host.is_archived()) {
            let name = match host.kind() {
                HostKind::Local => "localhost".to_owned(),
                _ => host.hostname(),
            };
            if wanted.matches(&name) {
                scrape.host(call, host, &mut out);
            }
        }
    } else {
        scrape.host(call, call.host, &mut out);
    }
    out
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What the series of a chart have in common. One for many charts: it keeps its memory.
#[derive(Default)]
struct Series {
    /// `prefix_context…`, with units and suffix where all have the same.
    name: String,
    /// `{chart="…",family="…",dimension="`
    labels: String,
    /// Those whose samples are read.
    dims: Vec<Stored>,
}

struct Stored {
    name: Arc<str>,
    reader: Arc<dyn Reader>,
    /// The last second it holds.
    last: Option<i64>,
}

impl Series {
    /// Of one dimension up to its value; `behind` follows the dimension's name.
    #[inline]
    fn push(&self, out: &mut String, suffix: &str, dimension: &str, behind: &str) {
        out.push_str(&self.name);
        out.push_str(suffix);
        out.push_str(&self.labels);
        push_label(out, dimension);
        out.push_str(behind);
    }
}

impl Scrape<'_> {
    fn host(&self, call: &Call<'_>, host: &Arc<Host>, pieces: &mut Vec<String>) {
        let mut head = String::with_capacity(1024);
        let out = &mut head;
        let now = self.now.seconds().0;
        let before = call.agent.scrapers.visit(self.server, host.guid(), now);
        let after = before.unwrap_or(now - self.options.update_every);
        let hostname = host.hostname();
        if self.help {
            let (first, seen) = match before {
                Some(before) => ("", format!("{} seconds ago", now - before)),
                None => ("FIRST SEEN ", "0 never".to_owned()),
            };
            let _ = write!(
                out,
                "# COMMENT netdata \"{}\" to {first}prometheus \"{}\", source \"{}\", last seen {seen}, time range {after} to {now}\n\n",
                one_line(&hostname),
                one_line(self.server),
                self.source.name()
            );
        }
        self.info(host, &hostname, out);
        if self.variables {
            for (name, value) in host.variables() {
                let _ = write!(out, "{}_{} ", self.prefix, sanitized(&name));
                push_fixed(out, value);
                self.end(out, now * 1000);
            }
        }
        pieces.push(head);
        if host.engine().mode() == Mode::None {
            return;
        }
        let mut behind = "\"".to_owned();
        if self.instance {
            behind.push_str(",instance=\"");
            push_label(&mut behind, &hostname);
            behind.push('"');
        }
        behind.push_str("} ");
        let charts = host.charts();
        pieces.extend(many::pieces(&charts, |chart, series: &mut Series, out| {
            let state = chart.lock();
            let meta = &state.meta;
            if state.is_obsolete()
                || state.dims.is_empty()
                || !self.filter.is_none_or(|f| f.matches(&meta.name))
                || !(self.charts.matches(chart.id()) || self.charts.matches(&meta.name))
            {
                return;
            }
            let Series { name, labels, .. } = series;
            name.clear();
            name.push_str(&self.prefix);
            name.push('_');
            push_sanitized(name, &meta.context);
            labels.clear();
            labels.push_str("{chart=\"");
            push_label(labels, if self.names { &meta.name } else { chart.id() });
            labels.push_str("\",family=\"");
            push_label(labels, &meta.family);
            labels.push_str("\",dimension=\"");
            if self.help {
                let _ = write!(
                    out,
                    "\n# COMMENT homogeneous chart \"{}\", context \"{}\", family \"{}\", units \"{}\"\n",
                    one_line(&meta.name),
                    one_line(&meta.context),
                    one_line(&meta.family),
                    one_line(&meta.units)
                );
            }
            if self.source == DataSource::AsCollected {
                return self.collected(&state, series, &behind, after, out);
            }
            // Samples are read without the chart's lock: a collector must not wait for a scrape.
            let dims = state.dims.iter();
            let dims = dims.filter(|dim| !dim.is_obsolete() && !is_part(meta, dim));
            series.dims.extend(dims.map(|dim| {
                let name = if self.names { &dim.name } else { &dim.id };
                let last = dim.reader.retention().map(|(_, last)| last.0);
                Stored { name: Arc::clone(name), reader: Arc::clone(&dim.reader), last }
            }));
            let every = meta.update_every.seconds();
            let units = Arc::clone(&meta.units);
            drop(state);
            self.stored(series, every, &units, &behind, after, out);
            series.dims.clear();
        }));
    }

    /// The line that says who the host is.
    fn info(&self, host: &Host, hostname: &str, out: &mut String) {
        let info = host.info();
        let program = if info.program_name.is_empty() {
            crate::base::PROGRAM
        } else {
            info.program_name.as_str()
        };
        out.push_str("netdata_info{instance=\"");
        push_label(out, hostname);
        out.push_str("\",application=\"");
        push_label(out, program);
        out.push_str("\",version=\"");
        push_label(out, &version_of(host));
        out.push('"');
        let labels = host.labels();
        let always = |name: &str| matches!(name, "_is_ephemeral" | "_has_unstable_connection");
        let configured = labels
            .iter()
            .filter(|label| label.source == LabelSource::CONFIG && self.options.configured_labels);
        let automatic = labels.iter().filter(|label| {
            let wanted = match always(&label.name) {
                true => self.options.configured_labels,
                false => self.options.automatic_labels,
            };
            label.source != LabelSource::CONFIG && wanted
        });
        for label in configured.chain(automatic) {
            let _ = write!(out, ",{}=\"", sanitized(&label.name));
            push_label(out, &label.value);
            out.push('"');
        }
        out.push_str("} 1");
        self.end(out, self.now.0 / 1000);
    }

    fn end(&self, out: &mut String, at_ms: i64) {
        if self.timestamps {
            out.push(' ');
            push_integer(out, at_ms);
        }
        out.push('\n');
    }

    /// Averages or sums of what was stored since the server's last visit.
    fn stored(
        &self,
        series: &mut Series,
        every: i64,
        units: &str,
        behind: &str,
        after: i64,
        out: &mut String,
    ) {
        let settled = |t: i64| {
            let t = t - 2 * every;
            t - t.rem_euclid(every)
        };
        let before = settled(self.now.seconds().0) - every;
        // A chart whose samples come a few seconds late is told up to its last one, not left out.
        let newest = series.dims.iter().filter_map(|dim| dim.last);
        let before = match newest.max() {
            Some(newest) if newest + self.options.update_every.max(2 * every) > before => {
                before.min(newest)
            }
            _ => before,
        };
        let from = settled(after).min(before);
        let is_sum = self.source == DataSource::Sum;
        if !is_sum && !self.hide_units {
            push_units(
                &mut series.name,
                units,
                if self.old_units { Units::Old } else { Units::New },
            );
        }
        series.name.push_str(if is_sum { "_sum" } else { "_average" });
        for Stored { name: dimension, reader, last } in &series.dims {
            let (mut sum, mut count) = (0.0, 0.0);
            reader.read(UnixSeconds(from - 1), UnixSeconds(before), &mut |_, sample| {
                if !sample.is_empty() {
                    sum += sample.reading();
                    count += 1.0;
                }
            });
            if count == 0.0 {
                continue;
            }
            let (name, last) = (&series.name, last.map_or(before, |last| before.min(last)));
            if self.help {
                let _ = writeln!(
                    out,
                    "# COMMENT {name}: dimension \"{}\", value is {}, gauge, dt {after} to {last} inclusive",
                    one_line(dimension),
                    one_line(units)
                );
            }
            if self.types {
                let _ = writeln!(out, "# TYPE {name} gauge");
            }
            series.push(out, "", dimension, behind);
            push_fixed(out, if is_sum { sum } else { sum / count });
            self.end(out, last * 1000);
        }
    }

    /// The integers that collectors gave, for dimensions collected since the server's last visit.
    fn collected(
        &self,
        state: &ChartState,
        series: &Series,
        behind: &str,
        after: i64,
        out: &mut String,
    ) {
        let meta = &state.meta;
        let from_prometheus = &*meta.module == "prometheus";
        for dim in &state.dims {
            let at = UnixMicros(dim.last_collected_us);
            if !dim.was_collected() || dim.is_obsolete() || at.seconds().0 < after {
                continue;
            }
            let counter = matches!(
                dim.algorithm,
                Algorithm::Incremental | Algorithm::PercentageOfIncrementalRow
            );
            let total = if counter && !from_prometheus { "_total" } else { "" };
            let kind = if counter { "counter" } else { "gauge" };
            if self.help {
                let _ = writeln!(
                    out,
                    "# COMMENT {}{total}: chart \"{}\", context \"{}\", family \"{}\", dimension \"{}\", value * {} / {} {} {} ({kind})",
                    series.name,
                    one_line(&meta.name),
                    one_line(&meta.context),
                    one_line(&meta.family),
                    one_line(&dim.name),
                    dim.multiplier,
                    dim.divisor,
                    if counter { "delta gives" } else { "gives" },
                    one_line(&meta.units)
                );
            }
            if self.types {
                let _ = writeln!(out, "# TYPE {} {kind}", series.name);
            }
            series.push(out, total, if self.names { &dim.name } else { &dim.id }, behind);
            if from_prometheus {
                let scale = dim.multiplier as f64 / dim.divisor as f64;
                push_fixed(out, dim.last_collected as f64 * scale);
            } else {
                push_integer(out, dim.last_collected);
            }
            self.end(out, at.0 / 1000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::run::samples::T0;
    use crate::web::api::v1::allmetrics::allmetrics;
    use crate::web::api::v1::samples::{ask_at, text};

    /// The lines of a scrape right after the last sample.
    fn scrape(query: &str) -> Vec<String> {
        let body = text(&ask_at(allmetrics, &format!("format=prometheus&{query}"), 900));
        body.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn check(query: &str, line: &str) {
        let lines = scrape(query);
        assert!(lines.iter().any(|l| l == line), "no {line}\nin {}", lines.join("\n"));
    }

    #[test]
    fn a_first_visit_gets_the_average_of_ten_seconds() {
        let at = (T0 + 897) * 1000;
        check(
            "",
            &format!(
                "netdata_t_ctx_things_persec_average{{chart=\"t.absname\",family=\"t\",dimension=\"up\"}} 92.5000000 {at}"
            ),
        );
        check(
            "",
            &format!(
                "netdata_t_slow_things_persec_average{{chart=\"t.slow\",family=\"t\",dimension=\"s\"}} 882.5000000 {}",
                (T0 + 885) * 1000
            ),
        );
        check(
            "source=sum&names=no&timestamps=no&prefix=nd",
            "nd_t_ctx_sum{chart=\"t.abs\",family=\"t\",dimension=\"zero\"} 0.0000000",
        );
        check("hideunits=yes&types=1", "# TYPE netdata_t_ctx_average gauge");
    }

    /// The last sample of those charts is of second 900.
    #[test]
    fn a_chart_that_lags_is_told_up_to_its_last_sample_and_a_dead_one_not_at_all() {
        let told = |clock: i64, chart: &str| {
            let call = &format!("format=prometheus&hideunits=yes&filter={chart}");
            let visit = || text(&ask_at(allmetrics, call, clock));
            let line =
                visit().lines().find(|line| line.contains("dimension=\"up\"")).map(str::to_owned);
            line.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
        };
        let at = |second: i64| Some(((T0 + second) * 1000).to_string());
        assert_eq!(told(902, "t.two"), at(899));
        assert_eq!(told(908, "t.two"), at(900));
        assert_eq!(told(912, "t.two"), at(900));
        assert_eq!(told(940, "t.two"), None);
    }

    #[test]
    fn values_as_collected_are_the_newest_integers() {
        let at = (T0 + 900) * 1000;
        check(
            "source=raw",
            &format!("netdata_t_ctx{{chart=\"t.two\",family=\"t\",dimension=\"up\"}} 900 {at}"),
        );
        let all = text(&ask_at(allmetrics, "format=prometheus_all_hosts&source=as+collected", 900));
        assert!(all.contains("dimension=\"up\",instance=\"node\"} 900"), "{all}");
    }

    #[test]
    fn help_says_who_asked_for_what() {
        let lines = scrape("help=yes&server=p1&filter=t.slow");
        let (now, after) = (T0 + 900, T0 + 890);
        assert_eq!(
            lines[0],
            format!(
                "# COMMENT netdata \"node\" to FIRST SEEN prometheus \"p1\", source \"average\", last seen 0 never, time range {after} to {now}"
            )
        );
        assert!(lines[2].starts_with(
            "netdata_info{instance=\"node\",application=\"netdata\",version=\"v1.37.1"
        ));
        assert_eq!(
            lines[4],
            "# COMMENT homogeneous chart \"t.slow\", context \"t.slow\", family \"t\", units \"things/s\""
        );
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn the_file_says_what_those_get_who_ask_for_nothing() {
        let conf = "[prometheus:exporter]\ndata source = sum\nprefix = own\nsend names instead of ids = no\n\
                    send charts matching = t.a*\n";
        let options = crate::config::ExportingConf::from_text(conf).prometheus();
        let asked = |query: &str| {
            let options = options.clone();
            let answer = crate::web::api::v1::samples::ask_with(allmetrics, query, 900, |agent| {
                agent.prometheus = options;
            });
            text(&answer)
        };
        let told = asked("format=prometheus");
        assert!(
            told.contains("own_t_ctx_sum{chart=\"t.abs\",family=\"t\",dimension=\"zero\"}"),
            "{told}"
        );
        assert!(!told.contains("t.two") && !told.contains("t.slow"), "{told}");
        let told = asked("format=prometheus_all_hosts&source=average&names=yes&prefix=p");
        assert!(told.contains("p_t_ctx_things_persec_average{chart=\"t.absname\""), "{told}");
    }

    #[test]
    fn servers_are_remembered_but_not_without_end() {
        let scrapers = Scrapers::default();
        let host = MachineGuid::random();
        assert_eq!(scrapers.visit("a", host, 1000), None);
        assert_eq!(scrapers.visit("a", host, 1010), Some(1000));
        for n in 0..2 * SCRAPERS_MAX {
            scrapers.visit(&format!("s{n}"), host, 2000);
        }
        assert_eq!(scrapers.0.lock().len(), SCRAPERS_MAX);
        assert_eq!(scrapers.visit("a", host, 3000), None);
        scrapers.visit(&"é".repeat(1000), host, 3000);
    }
}

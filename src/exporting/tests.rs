//! Whole lines and requests beside those of the original, recorded in `tests/fixtures/exporting`.

use std::sync::Arc;

use super::body::Body;
use super::gather::{self, Past, Span};
use super::http::RequestHead;
use crate::base::ids::MachineGuid;
use crate::base::number::SampleFlags;
use crate::base::pattern::SimplePattern;
use crate::base::time::{UnixSeconds, UpdateEvery};
use crate::config::{Config, DataSource, ExportingConf, InstanceOptions};
use crate::metrics::{
    Algorithm, ChartSpec, DimensionSpec, Host, HostInfo, HostKind, HostSettings, LabelSource,
    Labels, Point, PointValue,
};
use crate::storage::Mode;
use crate::storage::ring::RingEngine;
use crate::wire::write_request::Version;

/// Times of batches in the recordings.
const LOCAL_RAW: i64 = 1_795_333_569;
const LOCAL: i64 = 1_795_333_579;
const CHILD: i64 = 1_795_333_639;

fn recorded(name: &str) -> String {
    let path = format!("{}/tests/fixtures/exporting/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).skip_while(|l| l.is_empty());
    lines.map(|line| line.replace("<CR>", "\r") + "\n").collect()
}

fn options(kind: &str, more: &str) -> InstanceOptions {
    let text = format!("[{kind}:n]\nenabled = yes\n{more}\n");
    ExportingConf::from_text(&text).instances(&Config::new()).remove(0)
}

/// Dimensions of the charts in the recordings, with the values of successive slots.
struct Values {
    raw: [i64; 8],
    of: [Vec<f64>; 8],
}

const DIMS: [(&str, &str, &str, Algorithm, i64, i64); 8] = [
    ("lab.gauge", "a", "dim a", Algorithm::Absolute, 1, 1),
    ("lab.gauge", "b", "", Algorithm::Absolute, 1, 10),
    ("lab.counter", "in", "", Algorithm::Incremental, 1, 1),
    ("lab.counter", "out", "", Algorithm::Incremental, -1, 1),
    ("lab.pct", "x", "", Algorithm::PercentageOfAbsoluteRow, 1, 1),
    ("lab.pct", "y", "", Algorithm::PercentageOfAbsoluteRow, 1, 1),
    ("lab.pdiff", "x", "", Algorithm::PercentageOfIncrementalRow, 1, 1),
    ("lab.pdiff", "y", "", Algorithm::PercentageOfIncrementalRow, 1, 1),
];

/// A host whose slots end at `first` and the seconds after it.
fn host(name: &str, kind: HostKind, first: i64, values: &Values) -> Arc<Host> {
    let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
    let settings = HostSettings::default();
    let host = Host::new(MachineGuid::random(), kind, HostInfo::named(name), engine, settings);
    let mut labels = Labels::new();
    labels.set("_os", "linux", LabelSource::AUTO);
    for label in ["_is_ephemeral", "_has_unstable_connection"] {
        labels.set(label, "false", LabelSource::CONFIG);
    }
    if kind == HostKind::Local {
        labels.set("region", "eu west", LabelSource::CONFIG);
        labels.set("quoted", "\"a b;c~d\"", LabelSource::CONFIG);
    }
    host.set_labels(labels);
    for (id, chart_name, units, family) in [
        ("lab.gauge", "my_gauge", "units", "fam 1"),
        ("lab.counter", "", "KiB/s", "fam.2"),
        ("lab.pct", "", "percentage", "fam2"),
        ("lab.pdiff", "", "%", "fam2"),
    ] {
        let context = format!("{id}_ctx");
        let spec = ChartSpec {
            id,
            name: chart_name,
            units,
            family,
            context: &context,
            ..ChartSpec::default()
        };
        let chart = host.define_chart(&spec).unwrap();
        let dims: Vec<_> = DIMS.iter().zip(0..).filter(|(dim, _)| dim.0 == id).collect();
        for ((_, id, name, algorithm, multiplier, divisor), _) in &dims {
            let plain = DimensionSpec::plain(id, *algorithm, *multiplier, *divisor);
            chart.define_dimension(&DimensionSpec { name, ..plain }).unwrap();
        }
        for slot in 0..values.of[0].len() {
            let row: Vec<_> = dims
                .iter()
                .zip(0..)
                .map(|((_, n), dim): (&(_, usize), u32)| PointValue {
                    dim,
                    collected: values.raw[*n],
                    value: values.of[*n][slot],
                    flags: SampleFlags::default(),
                })
                .collect();
            let end = UnixSeconds(first + slot as i64);
            chart.store_point(&Point { end, every: UpdateEvery::SECOND, values: &row });
        }
    }
    host
}

fn series(slots: usize, begin: f64, step: f64) -> Vec<f64> {
    (0..slots).map(|n| begin + step * n as f64).collect()
}

/// So many times one value, then the others.
fn mostly(value: f64, times: usize, rest: &[f64]) -> Vec<f64> {
    [vec![value; times], rest.to_vec()].concat()
}

fn shares(slots: usize) -> [Vec<f64>; 4] {
    [30.0, 70.0, 25.0, 75.0].map(|share| vec![share; slots])
}

/// The local host at its first batch, whose window it has lived through for eight slots only.
fn local() -> Arc<Host> {
    let [px, py, dx, dy] = shares(8);
    let values = Values {
        raw: [2, 6, 200, 100, 30, 70, 2, 6],
        of: [
            series(8, 2.0, 1.0),
            series(8, 0.6, 0.3),
            mostly(100.0, 7, &[79.956_23]),
            mostly(-50.0, 7, &[-39.978_11]),
            px,
            py,
            dx,
            dy,
        ],
    };
    host("parent", HostKind::Local, LOCAL - 10, &values)
}

/// A minute later.
fn local_later() -> Arc<Host> {
    let [px, py, dx, dy] = shares(10);
    let values = Values {
        raw: [0; 8],
        of: [
            series(10, 32.0, 1.0),
            series(10, 9.6, 0.3),
            mostly(100.0, 9, &[100.010_59]),
            mostly(-50.0, 9, &[-50.005_32]),
            px,
            py,
            dx,
            dy,
        ],
    };
    host("parent", HostKind::Local, CHILD - 12, &values)
}

fn child() -> Arc<Host> {
    let [px, py, dx, dy] = shares(10);
    let values = Values {
        raw: [70, 210, 7000, 3500, 30, 70, 70, 210],
        of: [
            series(10, 58.0, 1.0),
            series(10, 17.4, 0.3),
            mostly(100.000_18, 4, &[100.000_19; 6]),
            mostly(-50.000_09, 8, &[-50.0001; 2]),
            px,
            py,
            dx,
            dy,
        ],
    };
    host("child", HostKind::Child, CHILD - 12, &values)
}

fn batch(options: &InstanceOptions, hosts: &[(&Arc<Host>, i64)]) -> String {
    let all = SimplePattern::new("*");
    let mut body = Body::new(options);
    for (host, at) in hosts {
        let text = body.host(host, options);
        if options.source == DataSource::AsCollected {
            for chart in host.charts() {
                gather::collected(&chart, &all, at - 10, &text, &mut body);
            }
            continue;
        }
        let span =
            Span { after: at - 10, ends: &[*at], source: options.source, past: Past::LiveOnly };
        for chart in host.charts() {
            span.stored(host, &chart, &all, &text, &mut body);
        }
    }
    String::from_utf8(body.take().0).unwrap()
}

/// The recordings of lines end in the middle of the child's batch.
#[track_caller]
fn check_lines(kind: &str, source: &str, name: &str) {
    let options = options(kind, &format!("data source = {source}"));
    let text = match options.source {
        DataSource::AsCollected => {
            let values = |raw| Values { raw, of: std::array::from_fn(|_| vec![1.0]) };
            let local =
                host("parent", HostKind::Local, LOCAL_RAW, &values([2, 6, 200, 100, 30, 70, 2, 6]));
            let child = host(
                "child",
                HostKind::Child,
                CHILD,
                &values([70, 210, 7000, 3500, 30, 70, 70, 210]),
            );
            batch(&options, &[(&local, LOCAL_RAW), (&child, CHILD)])
        }
        _ => batch(&options, &[(&local(), LOCAL), (&child(), CHILD)]),
    };
    let recorded = recorded(name);
    assert_eq!(recorded.lines().count(), 12, "{name}");
    for (ours, theirs) in text.lines().zip(recorded.lines()) {
        assert_eq!(ours, theirs, "{name}");
    }
    assert!(text.starts_with(&recorded), "{name}");
}

#[test]
fn lines_are_those_of_the_original() {
    check_lines("graphite", "average", "graphite-avg");
    check_lines("graphite:plaintext", "sum", "graphite-sum");
    check_lines("graphite", "as collected", "graphite-raw");
    check_lines("opentsdb", "average", "opentsdb-telnet-avg");
    check_lines("opentsdb:telnet", "raw", "opentsdb-telnet-raw");
    check_lines("json", "average", "json-avg");
    check_lines("json:plaintext", "ascollected", "json-raw");
}

/// Whole requests, but for the empty first one, which is not sent, and a line of the head that the original ends with
/// LF alone.
#[track_caller]
fn check_http(kind: &str, name: &str) {
    let recorded = recorded(name).replace("dTE6cDE=\n", "dTE6cDE=\r\n");
    let at = recorded.rfind("POST").unwrap();
    let first = recorded[4..at].find("POST").unwrap() + 4;
    let (first, second) = (&recorded[first..at], &recorded[at..]);
    let host = first.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
    let options = options(kind, &format!("destination = {host}\nusername = u1\npassword = p1"));
    let head = RequestHead::new(&options);
    let request = |body: String| head.text(host, body.len(), Version::One) + &body;
    assert_eq!(
        request(batch(&options, &[(&local(), LOCAL)])),
        first.trim_end_matches('\n').to_owned() + "\n"
    );
    let both = batch(&options, &[(&local_later(), CHILD), (&child(), CHILD)]);
    assert_eq!(request(both), second);
}

#[test]
fn requests_are_those_of_the_original() {
    check_http("graphite:http", "graphite-http");
    check_http("opentsdb:http", "opentsdb-http");
    check_http("json:http", "json-http");
}

#[test]
fn ids_and_host_names_can_be_chosen() {
    let line = |more: &str| {
        let options = options("graphite", more);
        batch(&options, &[(&local(), LOCAL)]).lines().next().unwrap().to_owned()
    };
    assert_eq!(
        line(
            "send names instead of ids = no\nprefix = p\nhostname = h\nsend configured labels = no"
        ),
        "p.h.lab.gauge.a 5.5000000 1795333576"
    );
    assert_eq!(
        line("send configured labels = no\nsend automatic labels = yes"),
        "netdata.parent.lab.my_gauge.dim_a;_os=linux 5.5000000 1795333576"
    );
}

#[test]
fn json_stays_json_whatever_names_hold() {
    let host = local();
    host.update_info(|info| info.hostname = "a\"b\\c\nd".to_owned());
    for kind in ["json:http", "opentsdb:http"] {
        let text = batch(&options(kind, ""), &[(&host, LOCAL)]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 8);
        let name = json[0].get("hostname").unwrap_or(&json[0]["tags"]["host"]);
        assert_eq!(name, "a\"b\\c\nd");
    }
}

#[test]
fn several_batches_at_once_are_the_same_as_one_after_the_other() {
    let (host, options, all) = (child(), options("graphite", ""), SimplePattern::new("*"));
    let lines = |spans: &[(i64, Vec<i64>)]| {
        let mut body = Body::new(&options);
        let text = body.host(&host, &options);
        for (after, ends) in spans {
            let span =
                Span { after: *after, ends, source: options.source, past: Past::WithArchived };
            for chart in host.charts() {
                span.stored(&host, &chart, &all, &text, &mut body);
            }
        }
        let text = String::from_utf8(body.take().0).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let ends: Vec<i64> = (1..=6).map(|n| CHILD - 15 + 3 * n).collect();
    let apart: Vec<_> = ends.iter().map(|end| (end - 3, vec![*end])).collect();
    assert_eq!(lines(&[(CHILD - 15, ends)]), lines(&apart));
    assert!(lines(&apart).len() > 8);
}

/// Metrics and their labels, in the order of the request.
fn remote_write(options: &InstanceOptions, host: &Arc<Host>, at: i64) -> Vec<String> {
    let all = SimplePattern::new("*");
    let mut body = Body::new(options);
    let text = body.host(host, options);
    body.about_host(&text, &[("a var".into(), 2.5)], at * 1000);
    let span = Span { after: at - 10, ends: &[at], source: options.source, past: Past::LiveOnly };
    for chart in host.charts() {
        match options.source {
            DataSource::AsCollected => {
                gather::collected(&chart, &all, at - 10, &text, &mut body);
            }
            _ => span.stored(host, &chart, &all, &text, &mut body),
        }
    }
    let plain = snap::raw::Decoder::new().decompress_vec(&body.take().0).unwrap();
    let mut lines = Vec::new();
    crate::wire::remote_write::read(&plain, &mut |series| {
        let labels: Vec<_> = series.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let samples: Vec<_> = series.samples.iter().map(|(at, v)| format!("{v} {at}")).collect();
        lines.push(format!("{} {}", labels.join(","), samples.join(",")));
    })
    .unwrap();
    lines
}

#[test]
fn remote_write_has_the_names_of_a_scrape() {
    let kind = "prometheus_remote_write";
    let lines = remote_write(&options(kind, ""), &local(), LOCAL);
    assert_eq!(
        lines[0],
        format!(
            "__name__=netdata_info,_has_unstable_connection=false,_is_ephemeral=false,application=netdata,instance=parent,\
             quoted=_a b:c_d_,region=eu west,version={} 1 1795333579000",
            crate::base::VERSION
        )
    );
    assert_eq!(lines[1], "__name__=netdata_a_var,instance=parent 2.5 1795333579000");
    assert_eq!(
        lines[2],
        "__name__=netdata_lab_gauge_ctx_units_average,chart=lab.my_gauge,dimension=dim a,family=fam 1,instance=parent 5.5 1795333576000"
    );
    assert!(
        lines[4].starts_with("__name__=netdata_lab_counter_ctx_KiB_persec_average,"),
        "{}",
        lines[4]
    );
    assert!(
        lines[8].starts_with("__name__=netdata_lab_pdiff_ctx_percent_average,"),
        "{}",
        lines[8]
    );
    let lines = remote_write(
        &options(kind, "data source = sum\nexternal labels = dimension=x zone=z"),
        &local(),
        LOCAL,
    );
    assert_eq!(
        lines[2],
        "__name__=netdata_lab_gauge_ctx_sum,chart=lab.my_gauge,dimension=dim a,family=fam 1,instance=parent,zone=z 44 1795333576000"
    );
    let lines = remote_write(&options(kind, "data source = raw"), &local(), LOCAL);
    assert_eq!(
        lines[4],
        "__name__=netdata_lab_counter_ctx_total,chart=lab.counter,dimension=in,family=fam.2,instance=parent 200 1795333576000"
    );
    assert!(lines[2].starts_with("__name__=netdata_lab_gauge_ctx,"), "{}", lines[2]);
    assert!(lines[9].starts_with("__name__=netdata_lab_pdiff_ctx_total,"), "{}", lines[9]);
}

/// A server that answers before it has read what it does not want, and hangs up.
#[test]
fn an_early_answer_is_heard() {
    use std::io::{Read as _, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = crate::base::threads::spawn("server", move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 1024]).unwrap();
        socket.write_all(b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let options = options("graphite:http", &format!("destination = 127.0.0.1:{port}"));
    let mut link = super::link::Link::new(&options, crate::base::threads::StopToken::new());
    let delivery = link.deliver(&vec![b'x'; 32 << 20], Version::One);
    assert!(matches!(delivery, super::link::Delivery::TooLarge), "{delivery:?}");
    server.unwrap().join().unwrap();
}

#[test]
fn bodies_of_every_language_can_be_halved() {
    let host = local();
    for kind in ["graphite:http", "json:http", "opentsdb:http", "prometheus_remote_write:http"] {
        let options = options(kind, "destination = h:1\nupdate every = 10");
        let mut body = Body::new(&options);
        let text = body.host(&host, &options);
        let span = Span {
            after: LOCAL - 10,
            ends: &[LOCAL],
            source: options.source,
            past: Past::LiveOnly,
        };
        for chart in gather::charts_of(&host, &SimplePattern::new("*"), Past::LiveOnly) {
            span.stored(&host, &chart, &SimplePattern::new("*"), &text, &mut body);
        }
        let (whole, samples) = body.take();
        let [(first, one), (second, other)] = body.halves(&whole, body.version()).unwrap();
        assert_eq!(one + other, samples, "{kind}");
        assert!(one.abs_diff(other) <= 1 && !first.is_empty() && !second.is_empty(), "{kind}");
        // Down to the last thing in it.
        let (mut rest, mut single) = (vec![first, second], 0);
        while let Some(part) = rest.pop() {
            match body.halves(&part, body.version()) {
                Some([(first, _), (second, _)]) => rest.extend([first, second]),
                None => single += 1,
            }
        }
        assert_eq!(single, samples, "{kind}");
    }
}

//! Exporting to databases that answer, refuse, stall and die: what the store holds arrives, once, with one value.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netdata_rs::base::threads;
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};
use parking_lot::Mutex;

use crate::certificates::Files;
use crate::harness::*;

/// Collections are counted by dimension `a`; its average over any window is told from its samples.
const CHART: &str = "own.load";

// --- a database by hand -----------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Http,
    Https,
    /// Takes connections and nothing else.
    Stalled,
}

#[derive(Default)]
struct Got {
    /// Heads and bodies; of lines, whatever came.
    requests: Mutex<Vec<(String, Vec<u8>)>>,
    /// What is answered next; 200 when there is nothing.
    answers: Mutex<VecDeque<String>>,
    /// Nothing is read any more.
    frozen: AtomicBool,
}

struct Sink {
    port: u16,
    got: Arc<Got>,
    dead: Arc<AtomicBool>,
}

impl Sink {
    fn new(kind: Kind) -> Sink {
        Sink::at(0, kind, Arc::default(), None)
    }

    fn at(port: u16, kind: Kind, got: Arc<Got>, files: Option<&Files>) -> Sink {
        let listener = wait_for("the port is free again", 10, || {
            let address = (std::net::Ipv4Addr::LOCALHOST, port);
            TcpListener::bind(address).ok()
        });
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let dead = Arc::new(AtomicBool::new(false));
        let acceptor = files.map(|files| {
            let mut builder = SslAcceptor::mozilla_intermediate(SslMethod::tls()).unwrap();
            builder.set_private_key_file(files.path("good.key"), SslFiletype::PEM).unwrap();
            builder.set_certificate_chain_file(files.path("good.pem")).unwrap();
            Arc::new(builder.build())
        });
        let sink = Sink { port, got: Arc::clone(&got), dead: Arc::clone(&dead) };
        let accepting = move || {
            let mut stalled = Vec::new();
            while !dead.load(Ordering::Acquire) {
                let Ok((socket, _)) = listener.accept() else {
                    pause(Duration::from_millis(5));
                    continue;
                };
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let (got, dead, acceptor) = (Arc::clone(&got), Arc::clone(&dead), acceptor.clone());
                match kind {
                    Kind::Stalled => stalled.push(socket),
                    Kind::Lines => {
                        threads::spawn("sink", move || lines(socket, &got, &dead)).unwrap();
                    }
                    Kind::Http => {
                        threads::spawn("sink", move || http(socket, &got, &dead)).unwrap();
                    }
                    Kind::Https => {
                        let serve = move || {
                            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                            if let Ok(stream) = acceptor.unwrap().accept(socket) {
                                let short = Some(Duration::from_millis(20));
                                stream.get_ref().set_read_timeout(short).unwrap();
                                http(stream, &got, &dead);
                            }
                        };
                        threads::spawn("sink", serve).unwrap();
                    }
                }
            }
        };
        threads::spawn("sink", accepting).unwrap();
        sink
    }

    /// Ends at once: what was sent and not read is gone.
    fn kill(&self) {
        self.dead.store(true, Ordering::Release);
        // Nobody is let in any more once the listener is closed.
        wait_for("the sink is gone", 10, || {
            dial(self.port, Duration::from_millis(100)).is_err().then_some(())
        });
    }

    fn answer(&self, answers: &[&str]) {
        self.got.answers.lock().extend(answers.iter().map(|answer| (*answer).to_owned()));
    }

    fn requests(&self) -> usize {
        self.got.requests.lock().len()
    }

    /// All text that came.
    fn text(&self) -> String {
        let requests = self.got.requests.lock();
        let all: Vec<u8> = requests.iter().flat_map(|(_, body)| body.clone()).collect();
        String::from_utf8(all).unwrap()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.dead.store(true, Ordering::Release);
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Keeps whole lines only, as such a database does.
fn lines(mut socket: TcpStream, got: &Got, dead: &AtomicBool) {
    let (mut buffer, mut text) = ([0; 4096], Vec::new());
    while !dead.load(Ordering::Acquire) {
        if got.frozen.load(Ordering::Acquire) {
            pause(Duration::from_millis(20));
            continue;
        }
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) if is_patience(&error) => continue,
            Err(_) => return,
        }
        if let Some(end) = text.iter().rposition(|b| *b == b'\n') {
            let whole = text.drain(..=end).collect();
            got.requests.lock().push((String::new(), whole));
        }
    }
}

fn http(mut socket: impl Read + Write, got: &Got, dead: &AtomicBool) {
    let (mut buffer, mut bytes) = (vec![0; 65_536], Vec::new());
    while !dead.load(Ordering::Acquire) {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) if is_patience(&error) => continue,
            Err(_) => return,
        }
        while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.unwrap().parse().unwrap();
            if bytes.len() < end + 4 + length {
                break;
            }
            let body = bytes[end + 4..end + 4 + length].to_vec();
            bytes.drain(..end + 4 + length);
            let answer = got.answers.lock().pop_front();
            if answer.as_ref().is_none_or(|answer| answer.starts_with("HTTP/1.1 2")) {
                got.requests.lock().push((head, body));
            }
            let answer = answer.unwrap_or_else(|| "HTTP/1.1 204 No Content\r\n\r\n".to_owned());
            if socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

// --- what was sent, and what should have been -------------------------------------------------------------------------

/// Values by metric and time.
pub(crate) type Series = BTreeMap<String, BTreeMap<i64, f64>>;

/// Fails when anything came twice with another value.
#[track_caller]
pub(crate) fn add(series: &mut Series, metric: &str, at: i64, value: f64) {
    let before = series.entry(metric.to_owned()).or_default().insert(at, value);
    assert!(
        before.is_none_or(|before| before == value),
        "{metric} at {at}: {before:?}, then {value}"
    );
}

/// Of graphite's lines, without tags.
#[track_caller]
fn graphite(text: &str) -> Series {
    let mut series = Series::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let metric = words.next().unwrap().split(';').next().unwrap();
        let value = words.next().and_then(|word| word.parse().ok()).expect(line);
        let at = words.next().and_then(|word| word.parse().ok()).expect(line);
        add(&mut series, metric, at, value);
    }
    series
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

enum Field<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    Double(f64),
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_at(8);
                bytes = rest;
                Field::Double(f64::from_le_bytes(number.try_into().unwrap()))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (inside, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(inside)
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

/// Of remote write; a metric is its name and labels in the order in which they came.
#[track_caller]
fn remote_write(sink: &Sink) -> Series {
    let mut series = Series::new();
    for (_, body) in sink.got.requests.lock().iter() {
        let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        for (_, one) in fields(&plain) {
            let Field::Bytes(one) = one else { panic!("a series is a message") };
            let (mut metric, mut names, mut points) = (String::new(), Vec::new(), Vec::new());
            for (number, part) in fields(one) {
                let Field::Bytes(part) = part else { panic!("labels and samples are messages") };
                let part = fields(part);
                if number == 1 {
                    let text = |n: usize| match part[n].1 {
                        Field::Bytes(text) => std::str::from_utf8(text).unwrap(),
                        _ => panic!("labels are text"),
                    };
                    names.push(text(0).to_owned());
                    metric += &format!("{}={} ", text(0), text(1));
                } else {
                    let (Field::Double(value), Field::Number(at)) = (&part[0].1, &part[1].1) else {
                        panic!("a sample is a value and a time")
                    };
                    points.push((i64::try_from(*at).unwrap(), *value));
                }
            }
            assert!(names.is_sorted(), "{names:?}");
            for (at_ms, value) in points {
                assert_eq!(at_ms % 1000, 0);
                add(&mut series, metric.trim_end(), at_ms / 1000, value);
            }
        }
    }
    series
}

/// Every window of `every` seconds of own.load between its first and its last exported one is there, with the average
/// of the samples that the agent holds. Windows without any sample are not.
#[track_caller]
pub(crate) fn check(
    agent: &Agent,
    host: &str,
    exported: &BTreeMap<i64, f64>,
    dimension: &str,
    every: i64,
    least: usize,
) {
    let (first, last) = (*exported.keys().next().unwrap(), *exported.keys().last().unwrap());
    let samples = agent.samples(host, CHART, 1, first - every, last);
    let mut want = BTreeMap::new();
    let mut at = first;
    while at <= last {
        let inside = samples.range(at - every + 1..=at);
        let values: Vec<f64> =
            inside.filter_map(|(_, row)| row.get(dimension)?.parse().ok()).collect();
        if !values.is_empty() {
            want.insert(at, values.iter().sum::<f64>() / values.len() as f64);
        }
        at += every;
    }
    assert!(want.len() >= least, "only {} windows to compare", want.len());
    let missing: Vec<_> = want.keys().filter(|at| !exported.contains_key(at)).collect();
    let more: Vec<_> = exported.keys().filter(|at| !want.contains_key(at)).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing {missing:?}, unexpected {more:?}");
    for (at, value) in &want {
        let got = exported[at];
        assert!((got - value).abs() <= value.abs() * 1e-6, "at {at}: {got}, should be {value}");
    }
}

pub(crate) fn instance(kind: &str, port: u16, more: &str) -> String {
    format!(
        "[{kind}:i]\nenabled = yes\ndestination = 127.0.0.1:{port}\nupdate every = 2\n\
         send charts matching = own.load\n{more}\n"
    )
}

pub(crate) fn agent(conf: &str) -> Agent {
    Agent::new("exporter").plugin("own", COUNTING).file("etc/exporting.conf", conf, 0o644)
}

/// Waits for `count` more windows of dimension `a`.
#[track_caller]
pub(crate) fn wait_windows(series: impl Fn() -> Series, metric: &str, count: usize) {
    let now_there = || series().get(metric).map_or(0, BTreeMap::len);
    let before = now_there();
    wait_for("more windows arrive", 60, || (now_there() >= before + count).then_some(()));
}

// --- tests ------------------------------------------------------------------------------------------------------------

#[test]
fn a_database_of_lines_misses_nothing_that_happened_while_it_was_dead() {
    let sink = Sink::new(Kind::Lines);
    let agent = agent(&instance("graphite", sink.port, "")).start();
    let metric = "netdata.exporter.own.load.a";
    wait_windows(|| graphite(&sink.text()), metric, 4);
    let mut sink = sink;
    for _ in 0..2 {
        sink.kill();
        agent.wait_log(&format!("EXPORTING: failed to update '127.0.0.1:{}'", sink.port), 20);
        pause(Duration::from_secs(7));
        sink = Sink::at(sink.port, Kind::Lines, Arc::clone(&sink.got), None);
        wait_windows(|| graphite(&sink.text()), metric, 5);
    }
    let series = graphite(&sink.text());
    check(&agent, "", &series[metric], "a", 2, 14);
    check(&agent, "", &series["netdata.exporter.own.load.b"], "b", 2, 14);
    // Its charts tell of it.
    let charts = agent.charts("");
    for name in ["metrics", "bytes", "ops", "thread_cpu", "behind"] {
        assert!(charts.contains_key(&format!("netdata.exporting_i_{name}")), "{name}");
    }
    assert_eq!(agent.json("/api/v1/info")["exporting-connectors"], "graphite");
}

/// What it had not read when it died was confirmed by the kernel long before.
#[test]
fn lines_that_a_database_did_not_live_to_read_come_again() {
    let sink = Sink::new(Kind::Lines);
    let agent = agent(&instance("graphite", sink.port, "")).start();
    let metric = "netdata.exporter.own.load.a";
    wait_windows(|| graphite(&sink.text()), metric, 3);
    sink.got.frozen.store(true, Ordering::Release);
    pause(Duration::from_secs(6));
    sink.kill();
    sink.got.frozen.store(false, Ordering::Release);
    let sink = Sink::at(sink.port, Kind::Lines, Arc::clone(&sink.got), None);
    wait_windows(|| graphite(&sink.text()), metric, 7);
    check(&agent, "", &graphite(&sink.text())[metric], "a", 2, 10);
}

#[test]
fn an_http_server_that_cannot_take_it_now_gets_it_later_and_one_that_will_not_is_left_alone() {
    let sink = Sink::new(Kind::Http);
    let busy = "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n";
    let later = "HTTP/1.1 429 x\r\nRetry-After: 3\r\nContent-Length: 5\r\n\r\nlater";
    sink.answer(&[busy, later, busy]);
    let agent = agent(&instance("graphite:http", sink.port, "")).start();
    let metric = "netdata.exporter.own.load.a";
    wait_windows(|| graphite(&sink.text()), metric, 6);
    agent.wait_log("instance 'i' is told to wait: HTTP 429 'later'", 1);
    check(&agent, "", &graphite(&sink.text())[metric], "a", 2, 6);
    let (head, _) = sink.got.requests.lock()[0].clone();
    assert!(head.starts_with("POST /api/put HTTP/1.1\r\nHost: 127.0.0.1:"), "{head}");
    sink.answer(&["HTTP/1.1 400 x\r\nContent-Length: 14\r\n\r\nbad line\nmore\n"]);
    agent.wait_log("loses 3 values, which the server refused: HTTP 400 'bad line'", 20);
    wait_windows(|| graphite(&sink.text()), metric, 2);
}

#[test]
fn a_server_that_does_not_know_us_or_wants_less_at_a_time_gets_all_of_it() {
    let sink = Sink::new(Kind::Http);
    let refused = |status: u16| format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\nno: x");
    let answers = [401, 401, 404].map(refused);
    sink.answer(&answers.each_ref().map(String::as_str));
    let agent = agent(&instance("prometheus_remote_write", sink.port, "")).start();
    let metric = "__name__=netdata_own_load_units_average chart=own.load dimension=a family=own instance=exporter";
    wait_windows(|| remote_write(&sink), metric, 3);
    sink.answer(&[&refused(413)]);
    wait_windows(|| remote_write(&sink), metric, 5);
    check(&agent, "", &remote_write(&sink)[metric], "a", 2, 8);
    for (line, times) in [
        ("is told HTTP 401 'no: x': check destination", 1),
        ("is told HTTP 404 'no: x': check destination", 1),
        ("sends less at a time", 1),
        ("loses", 0),
    ] {
        assert_eq!(agent.log().matches(line).count(), times, "{line}: {}", agent.log_end());
    }
}

#[test]
fn a_restart_of_the_agent_loses_nothing_that_its_store_holds() {
    let sink = Sink::new(Kind::Http);
    let conf = instance("graphite:http", sink.port, "");
    let mut agent = agent(&conf).mode("dbengine").start();
    let metric = "netdata.exporter.own.load.a";
    wait_windows(|| graphite(&sink.text()), metric, 3);
    sink.kill();
    pause(Duration::from_secs(8));
    assert_eq!(agent.stop().code, Some(0), "{}", agent.log_end());
    let before = graphite(&sink.text())[metric].len();
    agent.begin();
    pause(Duration::from_secs(4));
    let sink = Sink::at(sink.port, Kind::Http, Arc::clone(&sink.got), None);
    wait_windows(|| graphite(&sink.text()), metric, 8);
    let exported = graphite(&sink.text())[metric].clone();
    assert!(exported.len() > before + 5);
    check(&agent, "", &exported, "a", 2, 9);
    // A kill leaves at most what was sent last to be sent again, with the same values.
    agent.kill();
    agent.begin();
    wait_windows(|| graphite(&sink.text()), metric, 4);
    check(&agent, "", &graphite(&sink.text())[metric], "a", 2, 12);
}

#[test]
fn a_database_that_stalls_delays_nobody_else() {
    let (stalled, good) = (Sink::new(Kind::Stalled), Sink::new(Kind::Lines));
    let conf = format!(
        "{}{}",
        instance("json:http", stalled.port, "timeout ms = 2000").replace(":i]", ":stalled]"),
        instance("graphite", good.port, "")
    );
    let mut agent = agent(&conf).start();
    let metric = "netdata.exporter.own.load.a";
    wait_windows(|| graphite(&good.text()), metric, 5);
    agent.wait_log("no answer within 2000 ms", 20);
    check(&agent, "", &graphite(&good.text())[metric], "a", 2, 5);
    let stopped = agent.stop();
    assert!(stopped.code == Some(0) && stopped.after < Duration::from_secs(5), "{stopped:?}");
}

#[test]
fn remote_write_is_what_prometheus_reads() {
    let files = Files::new();
    let sink = Sink::at(0, Kind::Https, Arc::default(), Some(&files));
    let more = format!(
        "remote write URL path = /api/v1/write\nCAfile = {}\nexternal labels = site=eu-1 chart=never\n",
        files.path("ca.pem").display()
    );
    let conf = instance("prometheus_remote_write:https", sink.port, &more);
    let agent = agent(&conf).option("host labels", "region", "eu west").start();
    let metric = "__name__=netdata_own_load_units_average chart=own.load dimension=a family=own instance=exporter site=eu-1";
    wait_windows(|| remote_write(&sink), metric, 5);
    let series = remote_write(&sink);
    check(&agent, "", &series[metric], "a", 2, 5);
    let info = series.keys().find(|metric| metric.starts_with("__name__=netdata_info ")).unwrap();
    for part in ["application=netdata", "instance=exporter", "region=eu west", "version="] {
        assert!(info.contains(part), "{info}");
    }
    let (head, _) = sink.got.requests.lock()[0].clone();
    for line in [
        "POST /api/v1/write HTTP/1.1",
        "Content-Encoding: snappy",
        "Content-Type: application/x-protobuf",
        "X-Prometheus-Remote-Write-Version: 0.1.0",
    ] {
        assert!(head.lines().any(|l| l == line), "no '{line}' in {head}");
    }
}

/// A child streams to a parent that keeps nothing, or everything; its values arrive either way.
#[test]
fn children_are_exported_as_collected_even_where_nothing_is_kept() {
    let (raw, average) = (Sink::new(Kind::Lines), Sink::new(Kind::Http));
    let conf = format!(
        "{}{}",
        instance("graphite", raw.port, "data source = as collected\nsend configured labels = no"),
        instance("json:http", average.port, "").replace(":i]", ":kept]")
    );
    let parent = Agent::new("parent")
        .takes_children_with("none", "")
        .file("etc/exporting.conf", &conf, 0o644)
        .start();
    let child = Agent::new("kid").plugin("own", COUNTING).streams_to(&[parent.port]).start();
    let metric = "netdata.kid.own.load.a";
    wait_windows(|| graphite(&raw.text()), metric, 5);
    let series = graphite(&raw.text());
    let samples = child.samples("", CHART, 1, now() - 100, now());
    for (at, value) in &series[metric] {
        // Collected at that second: the sample of it is at most a second later, and of a counter that grows by one.
        let near: f64 = samples[at]["a"].parse().unwrap();
        assert!((value - near).abs() <= 2.0, "at {at}: {value}, its sample is {near}");
    }
    assert_eq!(average.requests(), 0, "{}", average.text());
    parent.wait_log("enabled exporting of host 'kid' for instance 'i'", 1);
}

#[test]
fn what_a_child_replicates_after_an_outage_is_exported_too() {
    let sink = Sink::new(Kind::Http);
    let port = free_port();
    let conf = instance("graphite:http", sink.port, "send hosts matching = kid");
    let mut parent = Agent::new("parent")
        .port(port)
        .mode("dbengine")
        .takes_children_with("dbengine", "")
        .file("etc/exporting.conf", &conf, 0o644)
        .start();
    let child = Agent::new("kid").plugin("own", COUNTING).streams_to(&[port]).start();
    let metric = "netdata.kid.own.load.a";
    wait_windows(|| graphite(&sink.text()), metric, 3);
    parent.stop();
    pause(Duration::from_secs(10));
    parent.begin();
    wait_windows(|| graphite(&sink.text()), metric, 12);
    let exported = graphite(&sink.text())[metric].clone();
    check(&child, "", &exported, "a", 2, 14);
}

/// What remote write of ours sends is called the same where it is asked for here.
#[test]
fn series_are_called_as_they_are_exported() {
    let sink = Sink::new(Kind::Http);
    let conf = instance("prometheus_remote_write", sink.port, "send variables = no")
        .replace("matching = own.load", "matching = *");
    let agent = agent(&conf).collecting().option("host labels", "region", "eu \"west\"").start();
    wait_for("everything was exported some times", 60, || {
        let series = remote_write(&sink);
        (series.len() > 100 && series.values().any(|points| points.len() > 4)).then_some(())
    });
    let listed = agent.json("/api/v1/prometheus/api/v1/series?match[]={__name__!=\"\"}");
    let text = |one: &serde_json::Value| {
        let labels = one.as_object().unwrap().iter();
        let labels: BTreeMap<_, _> =
            labels.map(|(name, value)| (name, value.as_str().unwrap())).collect();
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let there: std::collections::BTreeSet<String> =
        listed["data"].as_array().unwrap().iter().map(text).collect();
    let missing: Vec<_> =
        remote_write(&sink).into_keys().filter(|metric| !there.contains(metric)).collect();
    assert!(missing.is_empty(), "{missing:?}\nare not among\n{there:?}");
}

// --- the other way round ----------------------------------------------------------------------------------------------

/// One of ours exports to another of ours: what arrives is what was sent.
#[test]
fn remote_write_is_taken_as_it_is_sent() {
    let parent = Agent::new("parent").takes_children().start();
    let tried = |key: &str| {
        let more = format!(
            "remote write URL path = /api/v1/write\nhttp headers = Authorization: Bearer {key}"
        );
        instance("prometheus_remote_write", parent.port, &more)
    };
    let conf = format!(
        "{}{}",
        tried(KEY),
        tried("99999999-2222-3333-4444-555555555555").replace(":i]", ":unknown]")
    );
    let child = agent(&conf).start();
    child.wait_log("EXPORTING: instance 'unknown' is told HTTP 403", 30);
    parent.wait_log("key '99999999' may not write here", 1);
    let chart = "prometheus.netdata_own_load_units_average-own_load-a-own";
    let find = || {
        let charts = parent.charts("exporter");
        charts.keys().find(|id| id.starts_with(chart)).cloned()
    };
    let id = wait_for("the series is a chart of the parent's", 30, find);
    wait_for("it holds samples", 30, || {
        (parent.samples("exporter", &id, 2, now() - 60, now()).len() > 5).then_some(())
    });
    let there = parent.samples("exporter", &id, 2, now() - 60, now());
    let exported = there.iter().map(|(at, row)| (*at, row["value"].parse().unwrap())).collect();
    check(&child, "", &exported, "a", 2, 5);
    assert_eq!(parent.charts("exporter")[&id]["chart_labels"]["dimension"], "a");
    // Everything else that is posted is refused as ever.
    let post = b"POST /api/v1/info HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
    let answer = talk(parent.port, post, Duration::from_secs(5)).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    let plain = format!(
        "POST /api/v1/write HTTP/1.1\r\nX-Auth-Token: {KEY}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    );
    let answer = talk(parent.port, plain.as_bytes(), Duration::from_secs(5)).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}

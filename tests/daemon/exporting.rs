//! Exporting to databases that answer, refuse, stall and die: what the store holds arrives, once, with one value.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    /// Remote write 2.0 is understood; else such a request is one of 1.0 without series.
    knows_2: AtomicBool,
    /// So many connections more are cut off within a body.
    cuts: AtomicUsize,
    /// Before an answer.
    delay_ms: AtomicU64,
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
    let less = |cuts: usize| cuts.checked_sub(1);
    if got.cuts.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok() {
        let _ = socket.read(&mut buffer[..16]);
        return;
    }
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
            let (is_2, knows_2) = (is_version_2(&head), got.knows_2.load(Ordering::Acquire));
            if answer.as_ref().is_none_or(|answer| answer.starts_with("HTTP/1.1 2"))
                && (!is_2 || knows_2)
            {
                got.requests.lock().push((head, body));
            }
            pause(Duration::from_millis(got.delay_ms.load(Ordering::Acquire)));
            // As many as there can be: who knows 1.0 alone does not say.
            let written = match is_2 && knows_2 {
                true => "X-Prometheus-Remote-Write-Samples-Written: 1000000\r\n",
                false => "",
            };
            let answer =
                answer.unwrap_or_else(|| format!("HTTP/1.1 204 No Content\r\n{written}\r\n"));
            if socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn is_version_2(head: &str) -> bool {
    head.lines().any(|line| line == "X-Prometheus-Remote-Write-Version: 2.0.0")
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
    for (head, body) in sink.got.requests.lock().iter() {
        let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        if is_version_2(head) {
            remote_write_2(&plain, &mut series);
            continue;
        }
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

/// The same of a request of 2.0.
#[track_caller]
fn remote_write_2(plain: &[u8], series: &mut Series) {
    let mut symbols: Vec<&str> = Vec::new();
    for (number, field) in fields(plain) {
        let Field::Bytes(inside) = field else { panic!("symbols and series have lengths") };
        if number == 4 {
            symbols.push(std::str::from_utf8(inside).unwrap());
            continue;
        }
        assert_eq!((number, symbols[0]), (5, ""));
        let (mut names, mut points) = (Vec::new(), Vec::new());
        for (number, part) in fields(inside) {
            let Field::Bytes(mut part) = part else { panic!("numbers come in one piece") };
            if number == 1 {
                while !part.is_empty() {
                    names.push(symbols[usize::try_from(varint(&mut part)).unwrap()]);
                }
                continue;
            }
            let part = fields(part);
            let (Field::Double(value), Field::Number(at)) = (&part[0].1, &part[1].1) else {
                panic!("a sample is a value and a time")
            };
            points.push((i64::try_from(*at).unwrap() / 1000, *value));
        }
        let pairs: Vec<_> =
            names.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect();
        assert!(pairs.is_sorted(), "{pairs:?}");
        points.iter().for_each(|(at, value)| add(series, &pairs.join(" "), *at, *value));
    }
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
    agent.wait_log("instance 'i' sends remote write 1.0", 1);
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

/// A server that knows 2.0, then one in its place that reads such a request as one of 1.0 without series, then one that refuses it.
#[test]
fn remote_write_2_is_spoken_where_it_is_known_and_nothing_is_lost_where_it_is_not() {
    let sink = Sink::new(Kind::Http);
    sink.got.knows_2.store(true, Ordering::Release);
    let agent = agent(&instance("prometheus_remote_write", sink.port, "")).start();
    let metric = "__name__=netdata_own_load_units_average chart=own.load dimension=a family=own instance=exporter";
    let spoken = |sink: &Sink| {
        let requests = sink.got.requests.lock();
        let last = requests.last().is_some_and(|(head, _)| is_version_2(head));
        (requests.len(), last)
    };
    wait_windows(|| remote_write(&sink), metric, 4);
    assert!(spoken(&sink).1, "{:?}", sink.got.requests.lock().last());
    sink.got.knows_2.store(false, Ordering::Release);
    wait_windows(|| remote_write(&sink), metric, 3);
    assert!(!spoken(&sink).1);
    // After an outage it is asked anew.
    sink.got.knows_2.store(true, Ordering::Release);
    sink.answer(&["HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"]);
    wait_windows(|| remote_write(&sink), metric, 3);
    assert!(spoken(&sink).1);
    sink.got.knows_2.store(false, Ordering::Release);
    sink.answer(&["HTTP/1.1 415 x\r\nContent-Length: 0\r\n\r\n"]);
    wait_windows(|| remote_write(&sink), metric, 3);
    assert!(!spoken(&sink).1);
    check(&agent, "", &remote_write(&sink)[metric], "a", 2, 13);
    for (line, times) in
        [("sends remote write 2.0", 2), ("sends remote write 1.0", 2), ("loses", 0)]
    {
        assert_eq!(agent.log().matches(line).count(), times, "{line}: {}", agent.log_end());
    }
}

/// Where 2.0 is what the file says, nothing else is sent, and nothing counts as taken that the server does not confirm.
#[test]
fn a_version_of_remote_write_that_is_not_known_is_a_mistake_that_loses_nothing() {
    let sink = Sink::new(Kind::Http);
    let conf = instance("prometheus_remote_write", sink.port, "remote write version = 2");
    let agent = agent(&conf).start();
    agent.wait_log("is told HTTP 204 'no word that remote write of this version is taken'", 30);
    pause(Duration::from_secs(5));
    assert_eq!(sink.requests(), 0);
    sink.got.knows_2.store(true, Ordering::Release);
    let metric = "__name__=netdata_own_load_units_average chart=own.load dimension=a family=own instance=exporter";
    wait_windows(|| remote_write(&sink), metric, 8);
    check(&agent, "", &remote_write(&sink)[metric], "a", 2, 8);
}

#[test]
fn connections_that_end_within_a_body_lose_nothing() {
    let sink = Sink::new(Kind::Http);
    sink.got.cuts.store(3, Ordering::Release);
    let agent = agent(&instance("graphite:http", sink.port, "")).start();
    let metric = "netdata.exporter.own.load.a";
    wait_windows(|| graphite(&sink.text()), metric, 4);
    // Another one, in the middle of its life.
    sink.got.cuts.store(1, Ordering::Release);
    sink.answer(&["HTTP/1.1 503 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"]);
    wait_windows(|| graphite(&sink.text()), metric, 5);
    assert_eq!(sink.got.cuts.load(Ordering::Acquire), 0);
    check(&agent, "", &graphite(&sink.text())[metric], "a", 2, 9);
}

#[test]
fn a_slow_database_delays_nobody_else() {
    let (slow, fast) = (Sink::new(Kind::Http), Sink::new(Kind::Http));
    slow.got.delay_ms.store(7_000, Ordering::Release);
    let conf = format!(
        "{}{}",
        instance("graphite:http", slow.port, "").replace(":i]", ":slow]"),
        instance("graphite:http", fast.port, "").replace(":i]", ":fast]")
    );
    let agent = agent(&conf).start();
    let metric = "netdata.exporter.own.load.a";
    wait_windows(|| graphite(&fast.text()), metric, 3);
    let began = now();
    wait_windows(|| graphite(&slow.text()), metric, 8);
    wait_windows(|| graphite(&fast.text()), metric, 1);
    for sink in [&slow, &fast] {
        check(&agent, "", &graphite(&sink.text())[metric], "a", 2, 8);
    }
    let behind = |name: &str| {
        let chart = format!("netdata.exporting_{name}_behind");
        let samples = agent.samples("", &chart, 2, began, now());
        samples.values().filter_map(|row| row["behind"].parse().ok()).fold(0.0, f64::max)
    };
    let (of_slow, of_fast) = (behind("slow"), behind("fast"));
    assert!(of_fast <= 4.0 && of_slow >= 6.0, "slow {of_slow} s, fast {of_fast} s behind");
}

/// Half a minute in which nothing moves between a child and its parent, which the connection survives.
#[test]
fn a_link_that_stalls_and_goes_on_leaves_no_hole() {
    let sink = Sink::new(Kind::Http);
    let conf = instance("graphite:http", sink.port, "send hosts matching = kid");
    let parent =
        Agent::new("parent").takes_children().file("etc/exporting.conf", &conf, 0o644).start();
    let relay = Relay::to(parent.port);
    let child = Agent::new("kid").plugin("own", COUNTING).streams_to(&[relay.port]).start();
    let metric = "netdata.kid.own.load.a";
    wait_windows(|| graphite(&sink.text()), metric, 4);
    let stalled_at = now();
    relay.stalled.store(true, Ordering::Release);
    pause(Duration::from_secs(15));
    let newest = |sink: &Sink| *graphite(&sink.text())[metric].keys().last().unwrap();
    assert!(newest(&sink) <= stalled_at, "nothing of the stall was made");
    relay.stalled.store(false, Ordering::Release);
    wait_windows(|| graphite(&sink.text()), metric, 12);
    check(&child, "", &graphite(&sink.text())[metric], "a", 2, 16);
    assert!(newest(&sink) > stalled_at + 15);
}

/// A child that was away brings its past in pieces, more slowly than the exporter would wait for one that brings nothing.
#[test]
fn a_past_that_comes_slowly_is_exported_whole() {
    let sink = Sink::new(Kind::Http);
    let conf = instance("graphite:http", sink.port, "send hosts matching = kid");
    let parent =
        Agent::new("parent").takes_children().file("etc/exporting.conf", &conf, 0o644).start();
    let guid = uuid::Uuid::new_v4().to_string();
    let metric = "netdata.kid.own.load.a";
    let begin = now();
    let define = |wall: i64| {
        format!(
            "CHART own.load '' 'Own load' units own own.load line 1 1 '' p m\nDIMENSION a a absolute 1 1\n\
             CHART_DEFINITION_END {begin} {wall} {wall}\n"
        )
    };
    let row = |at: i64| format!("RBEGIN '' {} {at} {}\nRSET \"a\" {}\n", at - 1, now(), at % 97);
    // Whether live samples may follow what was asked for.
    let answer = |child: &mut FakeChild, until: i64, asked: &str, slowly: Duration| {
        let words: Vec<&str> = asked.split_whitespace().collect();
        let (after, before): (i64, i64) = (words[3].parse().unwrap(), words[4].parse().unwrap());
        let start = words[2].trim_matches('"');
        assert!(child.send("RBEGIN \"own.load\"\n"));
        for at in after + 1..=before {
            assert!(child.send(&row(at)));
            if at % 10 == 0 {
                pause(slowly);
            }
        }
        let wall = now();
        assert!(child.send(&format!("REND 1 {begin} {until} {start} {after} {before} {wall}\n")));
        start == "true"
    };
    // Brings its past, ten samples at a time; then lives on for a while.
    let session = |slowly: Duration, live: i64| {
        let mut child = FakeChild::connect(parent.port, "kid", &guid, 15352).unwrap();
        let until = now();
        assert!(child.send(&define(until)));
        loop {
            let asked = child.link.expect("REPLAY_CHART \"own.load\"", 30);
            if answer(&mut child, until, &asked, slowly) {
                break;
            }
        }
        for at in until + 1..=now() + live {
            while at > now() {
                if let Line::Text(asked) = child.link.line(Duration::from_millis(200))
                    && asked.starts_with("REPLAY_CHART")
                {
                    answer(&mut child, until, &asked, Duration::ZERO);
                }
            }
            let a = at % 97;
            assert!(child.send(&format!("BEGIN \"own.load\" 1000000\nSET \"a\" = {a}\nEND\n")));
        }
        child
    };
    drop(session(Duration::ZERO, 24));
    wait_for("it was exported", 30, || graphite(&sink.text()).contains_key(metric).then_some(()));
    pause(Duration::from_secs(30));
    let child = session(Duration::from_secs(5), 15);
    let mut exported = wait_for("everything is exported", 60, || {
        let series = graphite(&sink.text())[metric].clone();
        (series.keys().last()? > &(now() - 20) && series.len() >= 35).then_some(series)
    });
    drop(child);
    // Before its first live sample there is a second that it is asked for when it comes back, after that window was made.
    let exported = exported.split_off(&(begin + 6));
    check(&parent, "kid", &exported, "a", 2, 30);
}

/// Carries what comes either way, while it is not stalled.
struct Relay {
    port: u16,
    stalled: Arc<AtomicBool>,
}

impl Relay {
    fn to(port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay { port: listener.local_addr().unwrap().port(), stalled: Arc::default() };
        let stalled = Arc::clone(&relay.stalled);
        let accepting = move || {
            while let Ok((child, _)) = listener.accept() {
                let parent = dial(port, Duration::from_secs(10)).unwrap();
                parent.set_read_timeout(None).unwrap();
                let ends =
                    [(child.try_clone().unwrap(), parent.try_clone().unwrap()), (parent, child)];
                for (from, to) in ends {
                    let stalled = Arc::clone(&stalled);
                    threads::spawn("relay", move || carry(from, to, &stalled)).unwrap();
                }
            }
        };
        threads::spawn("relay", accepting).unwrap();
        relay
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, stalled: &AtomicBool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        while stalled.load(Ordering::Acquire) {
            pause(Duration::from_millis(20));
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
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
    let old = tried(KEY).replace(":i]", ":old]") + "remote write version = 1\nprefix = old\n";
    let conf = format!(
        "{}{old}{}",
        tried(KEY),
        tried("99999999-2222-3333-4444-555555555555").replace(":i]", ":unknown]")
    );
    let child = agent(&conf).start();
    child.wait_log("EXPORTING: instance 'i' sends remote write 2.0", 30);
    child.wait_log("EXPORTING: instance 'unknown' is told HTTP 403", 30);
    parent.wait_log("key '99999999' may not write here", 1);
    // By 2.0, and by 1.0.
    for prefix in ["netdata", "old"] {
        let chart = format!("prometheus.{prefix}_own_load_units_average-own_load-a-own");
        let find = || {
            let charts = parent.charts("exporter");
            charts.keys().find(|id| id.starts_with(&chart)).cloned()
        };
        let id = wait_for("the series is a chart of the parent's", 30, find);
        wait_for("it holds samples", 30, || {
            (parent.samples("exporter", &id, 2, now() - 60, now()).len() > 5).then_some(())
        });
        let there = parent.samples("exporter", &id, 2, now() - 60, now());
        let exported = there.iter().map(|(at, row)| (*at, row["value"].parse().unwrap())).collect();
        check(&child, "", &exported, "a", 2, 5);
        assert_eq!(parent.charts("exporter")[&id]["chart_labels"]["dimension"], "a");
    }
    assert!(!child.log().contains("which the server says that it has not written"));
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

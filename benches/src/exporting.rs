//! Exporting by remote write: what the thread of an instance takes for a million values, what the agent takes in memory for it, and whether
//! samples that are collected meanwhile are later than without it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use netdata_rs::wire::remote_write;

use crate::agent::{Agent, Setup};
use crate::client::Client;
use crate::load::{FakeChild, Form, Shape, now};
use crate::{Figure, Goal, Programs};

/// A hundred thousand dimensions, a sample of each per second, a value of each every ten.
const SHAPE: Shape = Shape { charts: 1_000, dimensions: 100 };
const EVERY: u64 = 10;
const BATCHES: u64 = 4;
/// Children whose samples are waited for, spread over the second.
const WATCHED: u32 = 5;

/// A database that takes everything and keeps nothing.
struct Database {
    port: u16,
    got: Arc<Got>,
}

#[derive(Default)]
struct Got {
    values: AtomicU64,
    bytes: AtomicU64,
}

impl Database {
    fn start() -> io::Result<Database> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (port, got) = (listener.local_addr()?.port(), Arc::new(Got::default()));
        let counted = Arc::clone(&got);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let got = Arc::clone(&counted);
                thread::spawn(move || serve(socket, &got));
            }
        });
        Ok(Database { port, got })
    }

    fn values(&self) -> u64 {
        self.got.values.load(Ordering::Acquire)
    }
}

fn serve(socket: TcpStream, got: &Got) -> io::Result<()> {
    let mut socket = BufReader::with_capacity(1 << 16, socket);
    loop {
        let (mut length, mut is_2) = (0, false);
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if let Some(text) = line.strip_prefix("Content-Length: ") {
                length = text.parse().map_err(io::Error::other)?;
            }
            is_2 |= line == "X-Prometheus-Remote-Write-Version: 2.0.0";
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body)?;
        let plain = snap::raw::Decoder::new().decompress_vec(&body).map_err(io::Error::other)?;
        let mut values = 0;
        let mut count = |series: remote_write::Series<'_>| values += series.samples.len() as u64;
        let read = match is_2 {
            true => remote_write::read_2(&plain, &mut count),
            false => remote_write::read(&plain, &mut count),
        };
        read.map_err(io::Error::other)?;
        got.values.fetch_add(values, Ordering::AcqRel);
        got.bytes.fetch_add(length as u64, Ordering::AcqRel);
        let answer = format!(
            "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: {values}\r\n\r\n"
        );
        socket.get_mut().write_all(answer.as_bytes())?;
    }
}

#[derive(Default)]
struct Measured {
    /// Of the instance's thread, for a million values.
    cpu: f64,
    bytes_per_value: f64,
    private: u64,
    /// From a sample's way to the agent until it tells of it.
    median_ms: f64,
    worst_ms: f64,
}

fn measure(programs: &Programs, version: Option<&str>) -> io::Result<Measured> {
    let database = Database::start()?;
    let mut setup = Setup::default().dbengine();
    if let Some(version) = version {
        setup.exporting = format!(
            "[prometheus_remote_write:x]\n enabled = yes\n destination = 127.0.0.1:{}\n update every = {EVERY}\n \
             remote write version = {version}\n",
            database.port
        );
    }
    let agent = Agent::start(&programs.ours, "exporter", &setup)?;
    let over = AtomicBool::new(false);
    let mut big = FakeChild::connect(agent.address(), 1, Form::V2, SHAPE, now())?;
    thread::scope(|scope| {
        let feed = scope.spawn(|| -> io::Result<()> {
            while !over.load(Ordering::Relaxed) {
                big.tick()?;
                until_next_second();
            }
            Ok(())
        });
        let watched: Vec<_> = (0..WATCHED)
            .map(|n| {
                let (agent, over) = (&agent, &over);
                scope.spawn(move || watch(agent, n, over))
            })
            .collect();
        let measured = (|| {
            let counts = || {
                let bytes = database.got.bytes.load(Ordering::Acquire);
                (database.values(), bytes, agent.cpu_of_thread("EXPORTING[x]"))
            };
            // However long it takes: on a busy machine the load itself is late.
            let wait_for = |values: u64| -> io::Result<()> {
                let began = Instant::now();
                while version.is_some() && database.values() < values {
                    if began.elapsed() > Duration::from_secs(300) {
                        let text = format!("too little is exported:\n{}", agent.log_end());
                        return Err(io::Error::other(text));
                    }
                    thread::sleep(Duration::from_millis(100));
                }
                Ok(())
            };
            wait_for(SHAPE.samples())?;
            let before = counts();
            let end = Instant::now() + Duration::from_secs(EVERY * BATCHES);
            wait_for(before.0 + SHAPE.samples() * BATCHES)?;
            thread::sleep(end.saturating_duration_since(Instant::now()));
            let after = counts();
            let values = (after.0 - before.0).max(1) as f64;
            Ok(Measured {
                cpu: (after.2 - before.2) / values * 1e6,
                bytes_per_value: (after.1 - before.1) as f64 / values,
                private: agent.memory().1,
                ..Measured::default()
            })
        })();
        over.store(true, Ordering::Relaxed);
        let panicked = |_| io::Error::other("a child panicked");
        feed.join().map_err(panicked)??;
        let mut lags = Vec::new();
        for child in watched {
            lags.extend(child.join().map_err(panicked)??);
        }
        lags.sort_by(f64::total_cmp);
        let at = |n: usize| lags.get(n).copied().unwrap_or(f64::NAN);
        let (median_ms, worst_ms) = (at(lags.len() / 2), at(lags.len().wrapping_sub(1)));
        measured.map(|measured| Measured { median_ms, worst_ms, ..measured })
    })
}

fn until_next_second() {
    let into = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_micros());
    thread::sleep(Duration::from_micros(u64::from(1_000_000 - into)));
}

/// A small child, a sample every second in its own part of it: how many milliseconds each takes to be there.
fn watch(agent: &Agent, number: u32, over: &AtomicBool) -> io::Result<Vec<f64>> {
    const ONE: Shape = Shape { charts: 1, dimensions: 1 };
    let name = 2 + number;
    let first = now();
    let mut child = FakeChild::connect(agent.address(), name, Form::V2, ONE, first)?;
    let mut client = Client::connect(agent.address())?;
    let path = format!("/host/load{name}/api/v1/chart?chart=load.chart1");
    let (mut lags, mut at) = (Vec::new(), first);
    child.tick()?;
    thread::sleep(Duration::from_secs(2));
    while !over.load(Ordering::Relaxed) {
        until_next_second();
        thread::sleep(Duration::from_millis(u64::from(100 + number * 1000 / WATCHED)));
        let sent = Instant::now();
        child.tick()?;
        at += 1;
        while sent.elapsed() < Duration::from_secs(5) {
            let answer: serde_json::Value =
                serde_json::from_slice(&client.body(&path)?).map_err(io::Error::other)?;
            if answer["last_entry"].as_i64().is_some_and(|last| last >= at) {
                break;
            }
            thread::sleep(Duration::from_micros(200));
        }
        lags.push(sent.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(lags)
}

pub fn row(programs: &Programs) -> io::Result<Vec<Figure>> {
    let without = measure(programs, None)?;
    let mut figures = Vec::new();
    let mut add = |what: String, unit: &'static str, ours: f64, goal: Goal| {
        figures.push(Figure { row: "exporting", what, unit, real: None, ours, goal });
    };
    let lag = |m: &Measured| [("median", m.median_ms), ("worst", m.worst_ms)];
    for (what, ours) in lag(&without) {
        add(format!("a live sample, without exporting: {what}"), "ms", ours, Goal::None);
    }
    for version in ["1", "2"] {
        let with = measure(programs, Some(version))?;
        let name = format!("remote write {version}.0");
        let unit = "CPU s per million values";
        add(format!("{name}: its thread"), unit, with.cpu, Goal::AtMost(0.4));
        add(format!("{name}: a value"), "bytes of body", with.bytes_per_value, Goal::None);
        let more = with.private as f64 - without.private as f64;
        add(format!("{name}: private memory beside none"), "MB", more / 1e6, Goal::None);
        for (what, ours) in lag(&with) {
            let goal = if what == "worst" { Goal::AtMost(100.0) } else { Goal::None };
            add(format!("{name}: a live sample, {what}"), "ms", ours, goal);
        }
    }
    Ok(figures)
}

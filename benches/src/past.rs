//! Rows about replication: what sending the past and taking it cost, and whether live samples wait for it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::agent::{Agent, Setup};
use crate::load::{FakeChild, Form, Shape, now};
use crate::{Figure, Goal, Programs, pause};

/// A thousand dimensions with an hour behind them.
const SHAPE: Shape = Shape { charts: 100, dimensions: 10 };
const SECONDS: i64 = 3_600;
/// What parents of 1.37.1 ask for at a time, by default.
const STEP: i64 = 600;
/// Charts that are asked for at once, as parents of ours do.
const AT_ONCE: u32 = 16;

/// Some number that is no whole one.
fn value(number: usize, at: i64) -> Option<f64> {
    let mixed = (number as i64).wrapping_mul(7_919).wrapping_add(at.wrapping_mul(1_664_525));
    Some((mixed.rem_euclid(1_000_000) + 1) as f64 / 1000.0)
}

/// `MODE=ram` measures one of the two alone.
fn modes() -> Vec<&'static str> {
    let wanted = std::env::var("MODE").unwrap_or_default();
    ["ram", "dbengine"].into_iter().filter(|mode| wanted.is_empty() || *mode == wanted).collect()
}

fn keeps(mode: &str) -> Setup {
    if mode == "dbengine" {
        return Setup::default().dbengine();
    }
    let setup = Setup::default().option("db", "seconds to replicate", "31536000");
    let mut setup = setup.option("db", "retention", "4000").takes_children(mode);
    setup.stream = setup.stream.replace("default history = 600", "default history = 4000");
    setup
}

// --- a parent that asks -----------------------------------------------------------------------------------------------

/// Agrees to stream, and asks for the past of one host; what other hosts send is thrown away.
struct Asker {
    listener: TcpListener,
    port: u16,
    caps: u32,
}

/// The stream of the host that is asked.
struct Asked {
    socket: TcpStream,
    lines: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Asker {
    fn listen(form: Form) -> io::Result<Asker> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        Ok(Asker { listener, port, caps: form.caps() | Form::Past.caps() })
    }

    /// The stream of the host of that name, all of whose charts are defined.
    fn accept(&self, hostname: &str, charts: u32) -> io::Result<Asked> {
        let wanted = format!("&hostname={hostname}&");
        let socket = loop {
            let (mut socket, _) = self.listener.accept()?;
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte)? == 1 {
                head.push(byte[0]);
            }
            if !head.starts_with(b"STREAM ") {
                let refusal =
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                socket.write_all(refusal)?;
                continue;
            }
            let head = String::from_utf8_lossy(&head).replace("STREAM key=", "&key=");
            let ver = head.split("&ver=").nth(1).and_then(|rest| rest.split(['&', ' ']).next());
            let offered: u32 = ver.and_then(|v| v.parse().ok()).unwrap_or(0);
            let agreed = offered & self.caps & !0b11_1000;
            let answer = format!("Hit me baby, push them over with the version={agreed}");
            socket.write_all(answer.as_bytes())?;
            if head.contains(&wanted) {
                break socket;
            }
            thread::spawn(move || io::copy(&mut socket, &mut io::sink()));
        };
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let lines = BufReader::with_capacity(1 << 20, socket.try_clone()?);
        let mut asked = Asked { socket, lines, line: Vec::new() };
        let mut defined = 0;
        while defined < charts {
            defined += u32::from(asked.next()?.starts_with(b"CHART_DEFINITION_END"));
        }
        Ok(asked)
    }
}

/// A number of a line, in either form.
fn number(word: &str) -> Option<i64> {
    let Some(digits) = word.strip_prefix('#') else { return word.parse().ok() };
    let digit = |byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    digits.bytes().try_fold(0, |all, byte| Some(all * 64 + i64::from(digit(byte)?)))
}

impl Asked {
    fn next(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        match self.lines.read_until(b'\n', &mut self.line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(&self.line),
        }
    }

    /// Asks for what all charts have with `after < time <= before`, a step of some of them at a time; gives the samples that
    /// came.
    fn pull(&mut self, charts: u32, after: i64, before: i64) -> io::Result<u64> {
        let mut next = vec![after; charts as usize];
        let mut left = charts;
        let ask = |socket: &mut TcpStream, chart: usize, from: i64| {
            let until = before.min(from + STEP);
            let line =
                format!("REPLAY_CHART \"load.chart{}\" \"false\" {from} {until}\n", chart + 1);
            socket.write_all(line.as_bytes())
        };
        let mut begun = charts.min(AT_ONCE);
        for chart in 0..begun as usize {
            ask(&mut self.socket, chart, after)?;
        }
        let (mut samples, mut chart) = (0, 0);
        while left > 0 {
            let line = self.next()?;
            match line {
                [b'R', b'S', b'E', b'T', ..] => samples += 1,
                [b'R', b'B', ..] => {
                    let text = String::from_utf8_lossy(line);
                    let id = text.split("load.chart").nth(1);
                    let digits = id.and_then(|id| id.split(|c: char| !c.is_ascii_digit()).next());
                    if let Some(number) = digits.and_then(|digits| digits.parse::<usize>().ok()) {
                        chart = number - 1;
                    }
                }
                [b'R', b'E', b'N', b'D', ..] => {
                    // `REND every first last start after before wall`: what was left out is asked for again.
                    let text = String::from_utf8_lossy(line);
                    let covered = text.split_ascii_whitespace().nth(6).and_then(number);
                    next[chart] = covered.unwrap_or(before).max(next[chart] + 1);
                    if next[chart] < before {
                        ask(&mut self.socket, chart, next[chart])?;
                    } else {
                        left -= 1;
                        if begun < charts {
                            ask(&mut self.socket, begun as usize, after)?;
                            begun += 1;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(samples)
    }
}

/// Samples per processor second of the threads that answer, in millions; and of the whole process.
fn sending(program: &std::path::Path, mode: &str, form: Form) -> io::Result<(f64, f64)> {
    /// The same is asked for again: what an agent has to find out once does not count for much.
    const ROUNDS: u32 = 4;
    let asker = Asker::listen(form)?;
    let agent = Agent::start(program, "sender", &keeps(mode).streams_to(asker.port))?;
    let end = now();
    let mut child = FakeChild::connect(agent.address(), 1, Form::Past, SHAPE, end)?;
    child.past(end - SECONDS, end, &mut value)?;
    // Charts are told to a parent once something live of them comes while it is there.
    let is_told = AtomicBool::new(false);
    let with_log = |error| io::Error::other(format!("{error}:\n{}", agent.log_end()));
    let mut asked = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_told.load(Ordering::Relaxed) && child.tick().is_ok() {
                pause(1);
            }
        });
        let asked = asker.accept("load1", SHAPE.charts);
        is_told.store(true, Ordering::Relaxed);
        asked.map_err(with_log)
    })?;
    asked.pull(SHAPE.charts, end - SECONDS, end).map_err(with_log)?;
    pause(2);
    let (threads, process) = (agent.cpu_of_threads_named("REPL"), agent.cpu_of_threads());
    let mut samples = 0;
    for _ in 0..ROUNDS {
        samples += asked.pull(SHAPE.charts, end - SECONDS, end)?;
    }
    let threads = agent.cpu_of_threads_named("REPL") - threads;
    let process = agent.cpu_of_threads() - process;
    let all = SHAPE.samples() * SECONDS as u64 * u64::from(ROUNDS);
    if samples < all / 2 || threads <= 0.0 {
        return Err(io::Error::other(format!(
            "{samples} samples came of {all}, in {threads} s:\n{}",
            agent.log_end()
        )));
    }
    let millions = samples as f64 / 1e6;
    Ok((millions / threads, millions / process))
}

pub fn send(programs: &Programs) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut figure = |what: String, real, ours, goal| {
        let unit = "CPU s per million";
        figures.push(Figure { row: "past-send", what, unit, real, ours, goal });
    };
    for mode in modes() {
        let (ours, real) =
            programs.both(|program, is_ours| sending(program, mode, crate::newest(is_ours)))?;
        let eighth = Goal::AtMostOfReal(1.0 / 8.0);
        let what = format!("past of 1,000 dims sent, {mode}: threads REPL…");
        figure(what, real.map(|r| 1.0 / r.0), 1.0 / ours.0, eighth);
        let what = format!("the same, {mode}: the whole process");
        figure(what, real.map(|r| 1.0 / r.1), 1.0 / ours.1, Goal::None);
        let ours = sending(&programs.ours, mode, Form::V1)?;
        let what = format!("the same, {mode}: threads REPL…, old form");
        figure(what, real.map(|r| 1.0 / r.0), 1.0 / ours.0, Goal::None);
    }
    Ok(figures)
}

// --- taking it --------------------------------------------------------------------------------------------------------

/// Processor seconds per million samples until all are taken; with a database on the disk until they are written there.
fn taking(program: &std::path::Path, mode: &str, form: Form) -> io::Result<(f64, f64)> {
    let mut agent = Agent::start(program, "parent", &keeps(mode))?;
    let idle = agent.cpu();
    let end = now();
    let mut child = FakeChild::connect(agent.address(), 1, form, SHAPE, end)?;
    pause(1);
    let before = agent.cpu();
    child.past(end - SECONDS, end, &mut value)?;
    child.finish()?;
    let taken = agent.cpu() - before;
    let whole = if mode == "dbengine" {
        crate::stored::settle(&agent);
        agent.stop()? - idle
    } else {
        taken
    };
    let millions = SHAPE.samples() as f64 * SECONDS as f64 / 1e6;
    Ok((taken / millions, whole / millions))
}

pub fn take(programs: &Programs) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut figure = |what: String, real, ours, goal| {
        let unit = "CPU s per million";
        figures.push(Figure { row: "past-take", what, unit, real, ours, goal });
    };
    for (mode, share) in [("ram", 0.25), ("dbengine", 1.0 / 3.0)]
        .into_iter()
        .filter(|(mode, _)| modes().contains(mode))
    {
        let (ours, real) = programs.both(|program, is_ours| {
            taking(program, mode, if is_ours { Form::NewPast } else { Form::Past })
        })?;
        let what = format!("past of 1,000 dims taken, {mode}");
        figure(what, real.map(|r| r.0), ours.0, Goal::AtMostOfReal(share));
        let old = taking(&programs.ours, mode, Form::Past)?;
        let what = format!("the same, {mode}, old form");
        figure(what, real.map(|r| r.0), old.0, Goal::None);
        if mode == "dbengine" {
            let what = "the same, dbengine, written and merged too".to_owned();
            figure(what, real.map(|r| r.1), ours.1, Goal::None);
        }
    }
    Ok(figures)
}

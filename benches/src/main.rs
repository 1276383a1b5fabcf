//! Our release binary and the real netdata 1.37.1 on the same work, in one run. See README.md.

mod agent;
mod client;
mod exporting;
mod load;
mod past;
mod series;
mod sink;
mod stored;
mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent::{Agent, Setup};
use client::Client;
use load::{FakeChild, Form, Shape, now};
use sink::Sink;

/// What a figure must be, next to the real one's.
#[derive(Clone, Copy)]
enum Goal {
    AtMost(f64),
    AtMostOfReal(f64),
    /// Only reported.
    None,
}

struct Figure {
    row: &'static str,
    what: String,
    unit: &'static str,
    real: Option<f64>,
    ours: f64,
    goal: Goal,
}

impl Figure {
    fn passes(&self) -> Option<bool> {
        match self.goal {
            Goal::AtMost(most) => Some(self.ours <= most),
            Goal::AtMostOfReal(share) => self.real.map(|real| self.ours <= real * share),
            Goal::None => None,
        }
    }

    fn print(&self) {
        let number = |n: f64| if n >= 100.0 { format!("{n:.0}") } else { format!("{n:.3}") };
        let real = self.real.map_or("-".to_owned(), number);
        let ratio = self
            .real
            .filter(|_| self.ours > 0.0)
            .map_or("-".to_owned(), |real| format!("1/{:.1}", real / self.ours));
        let goal = match self.goal {
            Goal::AtMost(most) => format!("<= {}", number(most)),
            Goal::AtMostOfReal(share) if share > 0.25 && share != 0.5 && share < 1.0 => {
                format!("<= {share:.2} of real")
            }
            Goal::AtMostOfReal(share) => format!("<= 1/{:.0} of real", 1.0 / share),
            Goal::None => "-".to_owned(),
        };
        let verdict = match self.passes() {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "-",
        };
        println!(
            "{:<12} {:<46} {:>10} {:>10} {:>8}  {:<18} {:<5} {}",
            self.row,
            self.what,
            real,
            number(self.ours),
            ratio,
            goal,
            verdict,
            self.unit
        );
    }
}

struct Programs {
    ours: PathBuf,
    real: Option<PathBuf>,
}

type Row = fn(&Programs) -> io::Result<Vec<Figure>>;

const ROWS: &[(&str, Row)] = &[
    ("child", child),
    ("flood-v2", flood_v2),
    ("flood-v1", flood_v1),
    ("paced", paced),
    ("proxy", proxy),
    ("wire", wire::wire),
    ("dimension", dimension),
    ("scaling", scaling),
    ("query", query),
    ("health", health),
    ("disk", stored::disk),
    ("disk-own", stored::disk_own),
    ("ingest-flood", stored::ingest_flood),
    ("ingest-paced", stored::ingest_paced),
    ("query-db", stored::query),
    ("start", stored::start),
    ("codec", stored::codec),
    ("past-send", past::send),
    ("past-take", past::take),
    ("latency", latency),
    ("exporting", exporting::row),
];

/// Rows that take more than an hour: only where they are asked for.
const LONG: &[&str] = &["disk-own"];

impl Programs {
    /// The same measurement of both.
    fn both<T>(
        &self,
        measure: impl Fn(&Path, bool) -> io::Result<T>,
    ) -> io::Result<(T, Option<T>)> {
        let ours = measure(&self.ours, true)?;
        let real = match &self.real {
            Some(real) => Some(measure(real, false)?),
            None => None,
        };
        Ok((ours, real))
    }
}

/// The newest form a program has.
fn newest(is_ours: bool) -> Form {
    if is_ours { Form::V2 } else { Form::V1 }
}

fn pause(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
}

// --- rows -------------------------------------------------------------------------------------------------------------

fn child(programs: &Programs) -> io::Result<Vec<Figure>> {
    const WARM: u64 = 10;
    const SECONDS: u64 = 30;
    let (ours, real) = programs.both(|program, _| {
        let sink = Sink::start(Form::V2.caps())?;
        let setup = Setup::default().option("db", "mode", "none").option("web", "mode", "none");
        let setup = setup.option("plugins", "proc", "yes").streams_to(sink.port);
        let agent = Agent::start(program, "child", &setup)?;
        let end = Instant::now() + Duration::from_secs(30);
        while sink.bytes() == 0 {
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "the child does not stream:\n{}",
                    agent.log_end()
                )));
            }
            thread::sleep(Duration::from_millis(50));
        }
        pause(WARM);
        let (bytes, cpu) = (sink.bytes(), agent.cpu_of_threads());
        pause(SECONDS);
        let cpu = (agent.cpu_of_threads() - cpu) / SECONDS as f64 * 100.0;
        if sink.bytes() == bytes {
            return Err(io::Error::other("the child stopped streaming"));
        }
        let (resident, private) = agent.memory();
        Ok((resident as f64 / 1e6, private as f64 / 1e6, cpu))
    })?;
    let figure = |what: &str, unit, ours, real, goal| Figure {
        row: "child",
        what: what.to_owned(),
        unit,
        real,
        ours,
        goal,
    };
    Ok(vec![
        figure(
            "headless child: resident memory",
            "MB",
            ours.0,
            real.map(|r| r.0),
            Goal::AtMost(6.0),
        ),
        figure(
            "headless child: private memory",
            "MB",
            ours.1,
            real.map(|r| r.1),
            Goal::AtMostOfReal(0.5),
        ),
        figure(
            "headless child: processor",
            "% of a core",
            ours.2,
            real.map(|r| r.2),
            Goal::AtMostOfReal(0.5),
        ),
    ])
}

/// Processor seconds per million samples of a parent that takes them as fast as it can.
fn flood(program: &Path, form: Form, ticks: u32) -> io::Result<f64> {
    const SHAPE: Shape = Shape { charts: 100, dimensions: 10 };
    let parent = Agent::start(program, "parent", &Setup::default().takes_children("ram"))?;
    let mut child =
        FakeChild::connect(parent.address(), 1, form, SHAPE, now() - i64::from(ticks) - 200)?;
    // the definitions, and the memory the first samples touch, are no part of the work
    for _ in 0..100 {
        child.tick()?;
    }
    pause(1);
    let cpu = parent.cpu();
    for _ in 0..ticks {
        child.tick()?;
    }
    child.finish()?;
    Ok((parent.cpu() - cpu) / (SHAPE.samples() as f64 * f64::from(ticks) / 1e6))
}

fn flood_v2(programs: &Programs) -> io::Result<Vec<Figure>> {
    let (ours, real) = programs.both(|program, is_ours| {
        flood(program, newest(is_ours), if is_ours { 10_000 } else { 3_000 })
    })?;
    let what = "parent, ram, 1 × 100 × 10 flood: new form".to_owned();
    Ok(vec![Figure {
        row: "flood-v2",
        what,
        unit: "CPU s per million (real: old form)",
        real,
        ours,
        goal: Goal::AtMostOfReal(1.0 / 6.0),
    }])
}

fn flood_v1(programs: &Programs) -> io::Result<Vec<Figure>> {
    let (ours, real) = programs
        .both(|program, is_ours| flood(program, Form::V1, if is_ours { 10_000 } else { 3_000 }))?;
    let what = "parent, ram, 1 × 100 × 10 flood: old form".to_owned();
    Ok(vec![Figure {
        row: "flood-v1",
        what,
        unit: "CPU s per million",
        real,
        ours,
        goal: Goal::AtMostOfReal(0.25),
    }])
}

/// One tick of all children per real second; processor seconds per million samples.
fn ticking(agent: &Agent, form: Form, seconds: u64) -> io::Result<f64> {
    const SHAPE: Shape = Shape { charts: 500, dimensions: 4 };
    const CHILDREN: u32 = 10;
    const WARM: u64 = 5;
    let mut children = Vec::new();
    for number in 1..=CHILDREN {
        children.push(FakeChild::connect(agent.address(), number, form, SHAPE, now())?);
    }
    let mut cpu = 0.0;
    let started = Instant::now();
    for tick in 0..WARM + seconds {
        if tick == WARM {
            cpu = agent.cpu();
        }
        for child in &mut children {
            child.tick()?;
        }
        thread::sleep(
            (started + Duration::from_secs(tick + 1)).saturating_duration_since(Instant::now()),
        );
    }
    let samples = SHAPE.samples() * u64::from(CHILDREN) * seconds;
    Ok((agent.cpu() - cpu) / (samples as f64 / 1e6))
}

const PACED_SECONDS: u64 = 25;

fn paced(programs: &Programs) -> io::Result<Vec<Figure>> {
    let (ours, real) = programs.both(|program, is_ours| {
        let parent = Agent::start(program, "parent", &Setup::default().takes_children("ram"))?;
        ticking(&parent, newest(is_ours), PACED_SECONDS)
    })?;
    let what = "parent, ram, 10 × 500 × 4, one tick per second".to_owned();
    Ok(vec![Figure {
        row: "paced",
        what,
        unit: "CPU s per million (real: old form)",
        real,
        ours,
        goal: Goal::AtMostOfReal(1.0 / 6.0),
    }])
}

fn proxy(programs: &Programs) -> io::Result<Vec<Figure>> {
    let (ours, real) = programs.both(|program, is_ours| {
        let form = newest(is_ours);
        let sink = Sink::start(form.caps())?;
        let setup = Setup::default()
            .option("db", "mode", "none")
            .streams_to(sink.port)
            .takes_children("none");
        let proxy = Agent::start(program, "proxy", &setup)?;
        let cost = ticking(&proxy, form, PACED_SECONDS)?;
        // it did pass them on: a sample is never shorter than its line's fixed part
        let least = 10 * 500 * 4 * (PACED_SECONDS - 1) * 10;
        if sink.bytes() < least {
            return Err(io::Error::other(format!(
                "the proxy passed on {} bytes only:\n{}",
                sink.bytes(),
                proxy.log_end()
            )));
        }
        Ok(cost)
    })?;
    let what = "proxy without database, the same load".to_owned();
    Ok(vec![Figure {
        row: "proxy",
        what,
        unit: "CPU s per million (real: old form)",
        real,
        ours,
        goal: Goal::AtMostOfReal(1.0 / 6.0),
    }])
}

fn dimension(programs: &Programs) -> io::Result<Vec<Figure>> {
    const SHAPE: Shape = Shape { charts: 2_000, dimensions: 10 };
    let (ours, real) = programs.both(|program, is_ours| {
        let parent = Agent::start(
            program,
            "parent",
            &Setup::default().option("db", "mode", "none").takes_children("none"),
        )?;
        let small = Shape { charts: 1, dimensions: 1 };
        let mut first = FakeChild::connect(parent.address(), 1, newest(is_ours), small, now())?;
        first.tick()?;
        pause(2);
        let (before, _) = parent.memory();
        let mut child = FakeChild::connect(parent.address(), 2, newest(is_ours), SHAPE, now())?;
        for _ in 0..5 {
            child.tick()?;
            pause(1);
        }
        let (after, _) = parent.memory();
        Ok(after.saturating_sub(before) as f64 / SHAPE.samples() as f64)
    })?;
    let what = "parent, none: memory per dimension (10 a chart)".to_owned();
    Ok(vec![Figure {
        row: "dimension",
        what,
        unit: "bytes",
        real,
        ours,
        goal: Goal::AtMost(600.0),
    }])
}

/// 100,000 dimensions, one sample of each per second, of so many children, whose ticks are spread over the second.
fn spread(program: &Path, form: Form, children: u32) -> io::Result<f64> {
    const DIMENSIONS: u32 = 10;
    const WARM: u32 = 4;
    const SECONDS: u32 = 10;
    let shape = Shape { charts: SPREAD_CHARTS / children, dimensions: DIMENSIONS };
    let parent = Agent::start(program, "parent", &Setup::default().takes_children("ram"))?;
    let mut all = Vec::new();
    for number in 1..=children {
        all.push(FakeChild::connect(parent.address(), number, form, shape, now())?);
    }
    pause(2);
    let started = Instant::now();
    let mut cpu = 0.0;
    for second in 0..WARM + SECONDS {
        if second == WARM {
            cpu = parent.cpu_of_threads();
        }
        for (n, child) in all.iter_mut().enumerate() {
            let due = f64::from(second) + n as f64 / f64::from(children);
            let due = started + Duration::from_secs_f64(due);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            child.tick()?;
        }
    }
    let end = started + Duration::from_secs(u64::from(WARM + SECONDS));
    thread::sleep(end.saturating_duration_since(Instant::now()));
    let samples = f64::from(SPREAD_CHARTS * DIMENSIONS * SECONDS);
    Ok((parent.cpu_of_threads() - cpu) / (samples / 1e6))
}

/// Of all children together: a thousand have 300 dimensions each, as a small machine has.
const SPREAD_CHARTS: u32 = 30_000;

fn scaling(programs: &Programs) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let (mut least, mut most) = (f64::MAX, 0.0_f64);
    for children in [1, 10, 100, 1_000] {
        let (ours, real) =
            programs.both(|program, is_ours| spread(program, newest(is_ours), children))?;
        (least, most) = (least.min(ours), most.max(ours));
        let what = format!("parent, ram, 300,000 samples/s of {children} children");
        let goal = Goal::None;
        figures.push(Figure {
            row: "scaling",
            what,
            unit: "CPU s per million (real: old form)",
            real,
            ours,
            goal,
        });
    }
    let what = "parent, ram: the dearest above the cheapest".to_owned();
    figures.push(Figure {
        row: "scaling",
        what,
        unit: "times",
        real: None,
        ours: most / least,
        goal: Goal::AtMost(1.5),
    });
    Ok(figures)
}

/// 1,000 hosts with 50 alarms each, a look-up of a minute every ten seconds: what thread `HEALTH` costs, and memory beside an
/// agent without alarms. (The real one has a thread per host; the row is about ours.)
fn health(programs: &Programs) -> io::Result<Vec<Figure>> {
    const HOSTS: u32 = 1_000;
    const SHAPE: Shape = Shape { charts: 50, dimensions: 1 };
    const WARM: u64 = 90;
    const SECONDS: u64 = 30;
    let measure = |enabled: &str| -> io::Result<(f64, usize)> {
        let mut setup = Setup::default().option("health", "enabled", enabled);
        setup = setup.option("health", "script to execute on alarm", "/bin/true");
        setup = setup.takes_children("ram");
        setup.stream = setup.stream.replace(
            "health enabled by default = no",
            &format!("health enabled by default = {enabled}\n default postpone alarms on connect seconds = 0"),
        );
        setup.health =
            "template: bench\non: load.chart\nlookup: average -1m unaligned\nevery: 10s\n\
            warn: $this > (($status >= $WARNING) ? (1e9) : (2e9))\ncrit: $this > 3e9\nto: silent\n"
                .to_owned();
        let parent = Agent::start(&programs.ours, "parent", &setup)?;
        let mut children = Vec::new();
        for number in 1..=HOSTS {
            children.push(FakeChild::connect(parent.address(), number, Form::V2, SHAPE, now())?);
        }
        let (started, mut cpu) = (Instant::now(), 0.0);
        for second in 0..WARM + SECONDS {
            if second == WARM {
                cpu = parent.cpu_of_thread("HEALTH");
            }
            for child in &mut children {
                child.tick()?;
            }
            thread::sleep(
                (started + Duration::from_secs(second + 1))
                    .saturating_duration_since(Instant::now()),
            );
        }
        let seconds = started.elapsed().as_secs_f64() - WARM as f64;
        let cpu = (parent.cpu_of_thread("HEALTH") - cpu) / seconds.max(1.0) * 100.0;
        if enabled == "yes" {
            // The alarms of the last child are evaluated indeed.
            let path = format!("/host/load{HOSTS}/api/v1/alarm_count?status=CLEAR");
            let count = Client::connect(parent.address())?.body(&path)?;
            if count != format!("[{}]", SHAPE.charts).into_bytes() {
                let count = String::from_utf8_lossy(&count).into_owned();
                return Err(io::Error::other(format!("alarms that are clear: {count}")));
            }
        }
        Ok((cpu, parent.memory().1 as usize))
    };
    let (cpu, with) = measure("yes")?;
    let (_, without) = measure("no")?;
    let alarms = f64::from(HOSTS * SHAPE.charts);
    let figure = |what: &str, unit, ours, goal| Figure {
        row: "health",
        what: what.to_owned(),
        unit,
        real: None,
        ours,
        goal,
    };
    Ok(vec![
        figure("1,000 hosts × 50 alarms: thread HEALTH", "% of a core", cpu, Goal::AtMost(5.0)),
        figure(
            "1,000 hosts × 50 alarms: memory per alarm",
            "bytes",
            with.saturating_sub(without) as f64 / alarms,
            Goal::AtMost(1024.0),
        ),
    ])
}

/// Processor milliseconds of one `/api/v1/data` over a kept connection: 6,000 values (half a minute of 200 dimensions).
fn query(programs: &Programs) -> io::Result<Vec<Figure>> {
    const SHAPE: Shape = Shape { charts: 1, dimensions: 200 };
    const SECONDS: u64 = 32;
    const QUERIES: u32 = 2_000;
    const KINDS: [(&str, &str); 3] = [
        ("every sample", "after=-30&options=unaligned"),
        ("3 rows, average", "after=-30&points=3&options=unaligned"),
        ("1 row, percentile", "after=-30&points=1&group=percentile&options=unaligned"),
    ];
    let (ours, real) = programs.both(|program, _| {
        let parent = Agent::start(program, "parent", &Setup::default().takes_children("ram"))?;
        let mut child = FakeChild::connect(parent.address(), 1, Form::V1, SHAPE, now())?;
        let started = Instant::now();
        for tick in 0..SECONDS {
            child.tick()?;
            let due = started + Duration::from_secs(tick + 1);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let mut costs = Vec::new();
        for (_, asked) in KINDS {
            let mut client = Client::connect(parent.address())?;
            let path = format!("/host/load1/api/v1/data?chart=load.chart1&{asked}");
            client.get(&path)?;
            let cpu = parent.cpu();
            for _ in 0..QUERIES {
                client.get(&path)?;
            }
            costs.push((parent.cpu() - cpu) * 1000.0 / f64::from(QUERIES));
        }
        Ok(costs)
    })?;
    let figure = |n: usize| Figure {
        row: "query",
        what: format!("data, json, 6,000 samples: {}", KINDS[n].0),
        unit: "CPU ms per query",
        real: real.as_ref().map(|costs| costs[n]),
        ours: ours[n],
        goal: Goal::AtMostOfReal(1.0),
    };
    Ok((0..KINDS.len()).map(figure).collect())
}

/// A parent in mode ram that keeps an hour of the first child, which has a past.
fn takes_an_hour() -> Setup {
    let mut setup = Setup::default().takes_children("ram");
    setup.stream += &format!("[{}]\n enabled = yes\n history = 3700\n", load::guid(1));
    setup
}

/// Milliseconds from request to the end of the answer, of one client and of sixteen at once.
fn latency(programs: &Programs) -> io::Result<Vec<Figure>> {
    const BIG: Shape = Shape { charts: 5_000, dimensions: 20 };
    const HOUR: Shape = Shape { charts: 1, dimensions: 10 };
    const WORKS: [(&str, &str, u32); 3] = [
        (
            "data, 10 dimensions, 1 h at 1 s",
            "/host/load1/api/v1/data?chart=load.chart1&after=-3600",
            400,
        ),
        ("charts, 5,000 of them", "/host/load2/api/v1/charts", 32),
        ("allmetrics, 100,000 dimensions", "/host/load2/api/v1/allmetrics?format=prometheus", 16),
    ];
    const CLIENTS: u32 = 16;
    let (ours, real) = programs.both(|program, _| {
        let parent = Agent::start(program, "parent", &takes_an_hour())?;
        let mut past = FakeChild::with_a_past(parent.address(), 1, HOUR, 3_600)?;
        let mut big = FakeChild::connect(parent.address(), 2, Form::V1, BIG, now())?;
        let started = Instant::now();
        for tick in 0..5 {
            past.tick()?;
            big.tick()?;
            let due = started + Duration::from_secs(tick + 1);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        // Of a child that has gone silent 1.37.1 soon has nothing to tell Prometheus, and answers at once.
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let feed = scope.spawn(|| -> io::Result<()> {
                while !over.load(Ordering::Relaxed) {
                    past.tick()?;
                    big.tick()?;
                    pause(1);
                }
                Ok(())
            });
            let mut times = Vec::new();
            let measured = (|| {
                for (_, path, requests) in WORKS {
                    times.push([
                        median_ms(&parent, path, requests)?,
                        mean_ms(&parent, path, CLIENTS)?,
                    ]);
                }
                io::Result::Ok(())
            })();
            over.store(true, Ordering::Relaxed);
            feed.join().map_err(|_| io::Error::other("the feed panicked"))??;
            measured.map(|()| times)
        })
    })?;
    let mut figures = Vec::new();
    for (n, (what, _, _)) in WORKS.iter().enumerate() {
        let of_16 = format!("{what}; {CLIENTS} at once");
        for (m, what, unit) in [(0, (*what).to_owned(), "ms, median"), (1, of_16, "ms, mean")] {
            figures.push(Figure {
                row: "latency",
                what,
                unit,
                real: real.as_ref().map(|times| times[n][m]),
                ours: ours[n][m],
                goal: Goal::AtMostOfReal(0.5),
            });
        }
    }
    let (ours, real) =
        programs.both(|program, is_ours| lag_while_asked(program, newest(is_ours)))?;
    for (n, what) in ["median", "worst"].into_iter().enumerate() {
        figures.push(Figure {
            row: "latency",
            what: format!("a live sample passed on while 16 clients ask, {what}"),
            unit: "ms",
            real: real.map(|lags| lags[n]),
            ours: ours[n],
            goal: Goal::AtMost(100.0),
        });
    }
    Ok(figures)
}

/// Milliseconds from a child's sample to the parent behind the agent, while sixteen clients ask for all they can: median
/// and worst of so many seconds.
fn lag_while_asked(program: &Path, form: Form) -> io::Result<[f64; 2]> {
    const SECONDS: usize = 20;
    const HOUR: Shape = Shape { charts: 1, dimensions: 10 };
    const ONE: Shape = Shape { charts: 1, dimensions: 1 };
    const PATHS: [&str; 3] = [
        "/host/load1/api/v1/data?chart=load.chart1&after=-3600",
        "/host/load1/api/v1/charts",
        "/api/v1/allmetrics?format=prometheus_all_hosts",
    ];
    let sink = Sink::watching(form.caps(), "load3")?;
    let agent = Agent::start(program, "asked", &takes_an_hour().streams_to(sink.port))?;
    let mut past = FakeChild::with_a_past(agent.address(), 1, HOUR, 3_600)?;
    past.tick()?;
    let mut child = FakeChild::connect(agent.address(), 3, form, ONE, now())?;
    let over = AtomicBool::new(false);
    let ask = |first: usize| -> io::Result<u64> {
        let (mut client, mut asked) = (Client::connect(agent.address())?, 0);
        while !over.load(Ordering::Relaxed) {
            client.get(PATHS[(first + asked) % PATHS.len()])?;
            asked += 1;
        }
        Ok(asked as u64)
    };
    thread::scope(|scope| {
        // Its connection and that of its host have to stand.
        let began = Instant::now();
        while sink.arrival(began).is_none() {
            if began.elapsed() > Duration::from_secs(60) {
                let text = format!("no sample is passed on:\n{}", agent.log_end());
                return Err(io::Error::other(text));
            }
            child.tick()?;
            pause(1);
        }
        let ask = &ask;
        let clients: Vec<_> = (0..16).map(|n| scope.spawn(move || ask(n))).collect();
        pause(2);
        let mut lags = Vec::new();
        let measured = (|| {
            for _ in 0..SECONDS {
                let sent = Instant::now();
                child.tick()?;
                thread::sleep(
                    (sent + Duration::from_secs(1)).saturating_duration_since(Instant::now()),
                );
                let came = sink.arrival(sent).unwrap_or_else(Instant::now);
                lags.push((came - sent).as_secs_f64() * 1000.0);
            }
            io::Result::Ok(())
        })();
        over.store(true, Ordering::Relaxed);
        for client in clients {
            let asked = client.join().map_err(|_| io::Error::other("a client panicked"))??;
            if asked == 0 {
                return Err(io::Error::other("a client was never answered"));
            }
        }
        measured?;
        lags.sort_by(f64::total_cmp);
        Ok([lags[lags.len() / 2], lags[lags.len() - 1]])
    })
}

/// Milliseconds from request to the end of the answer, the median of so many requests of one client.
fn median_ms(agent: &Agent, path: &str, requests: u32) -> io::Result<f64> {
    let mut client = Client::connect(agent.address())?;
    client.get(path)?;
    let mut times = Vec::new();
    for _ in 0..requests {
        let began = Instant::now();
        client.get(path)?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// What a request of one of so many clients takes on average when all of them ask for all they can. Counted, not timed one
/// by one: an agent that serves some clients and lets others wait would look good in a median.
fn mean_ms(agent: &Agent, path: &'static str, clients: u32) -> io::Result<f64> {
    const SECONDS: f64 = 6.0;
    let address = agent.address();
    Client::connect(address)?.get(path)?;
    let began = Instant::now();
    let ask = move || -> io::Result<f64> {
        let (mut client, mut answers, mut at) = (Client::connect(address)?, 0.0, 0.0);
        loop {
            client.get(path)?;
            let end = began.elapsed().as_secs_f64();
            if end >= SECONDS {
                // Of the last one what lies within the time.
                return Ok(answers + (SECONDS - at) / (end - at));
            }
            (answers, at) = (answers + 1.0, end);
        }
    };
    let asking: Vec<_> = (0..clients).map(|_| thread::spawn(ask)).collect();
    let mut answers = 0.0;
    for thread in asking {
        answers += thread.join().map_err(|_| io::Error::other("a client panicked"))??;
    }
    Ok(f64::from(clients) * SECONDS * 1000.0 / answers)
}

// --- the run ----------------------------------------------------------------------------------------------------------

fn main() -> ExitCode {
    let mut ours = None;
    let mut real = Some(PathBuf::from("/usr/sbin/netdata")).filter(|p| p.exists());
    let mut wanted = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--ours" => ours = args.next().map(PathBuf::from),
            "--real" => real = args.next().map(PathBuf::from).filter(|p| p.exists()),
            name if ROWS.iter().any(|(row, _)| *row == name) => wanted.push(name.to_owned()),
            other => {
                let names: Vec<_> = ROWS.iter().map(|(row, _)| *row).collect();
                eprintln!("'{other}' is no row; there are {}", names.join(", "));
                return ExitCode::from(2);
            }
        }
    }
    let Some(ours) = ours.and_then(|p| p.canonicalize().ok()) else {
        eprintln!("usage: netdata-benches --ours PROGRAM [--real PROGRAM] [ROW ...]");
        return ExitCode::from(2);
    };
    if real.is_none() {
        println!(
            "there is no real netdata on this machine (packaging/deps.sh bench installs it): only ours is measured"
        );
    }
    let programs = Programs { ours, real };
    println!(
        "{:<12} {:<46} {:>10} {:>10} {:>8}  {:<18} {:<5} unit",
        "row", "work", "real", "ours", "ratio", "goal", "is"
    );
    let (mut passed, mut failed, mut open) = (0, 0, 0);
    let is_wanted = |name: &str| match wanted.as_slice() {
        [] => !LONG.contains(&name),
        wanted => wanted.iter().any(|wanted| wanted == name),
    };
    for (name, row) in ROWS.iter().filter(|(name, _)| is_wanted(name)) {
        match row(&programs) {
            Ok(figures) => {
                for figure in figures {
                    figure.print();
                    match figure.passes() {
                        Some(true) => passed += 1,
                        Some(false) => failed += 1,
                        None => open += 1,
                    }
                }
            }
            Err(error) => {
                println!("{name:<12} could not be measured: {error}");
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed, {open} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! Rows about the dbengine: what it takes on the disk, of the processor and of memory, how fast it answers and starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Setup};
use crate::client::Client;
use crate::load::{FakeChild, Form, Shape, guid, now};
use crate::series::{self, Kind, MIX, Recording, Series};
use crate::{Figure, Goal, Programs, newest, pause};

const DAY: i64 = 86_400;
const TIERS: [&str; 3] = ["dbengine", "dbengine-tier1", "dbengine-tier2"];

/// Recorded samples: `RECORDED=file`; every eighth of its series is enough.
const RECORDED_NTH: usize = 8;

// --- bytes ------------------------------------------------------------------------------------------------------------

/// Bytes of the files of each tier.
fn weigh(cache: &Path) -> [u64; 3] {
    TIERS.map(|tier| files(&cache.join(tier)).iter().map(|(_, size)| size).sum())
}

fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
        .collect();
    files.sort();
    files
}

/// Waits until the store has done what it does by itself: for some seconds no file has changed and nobody was at work.
pub fn settle(agent: &Agent) {
    /// Of a core; above it the agent is at work.
    const IDLE: f64 = 0.05;
    const LOOK: Duration = Duration::from_millis(250);
    let cache = agent.cache();
    let all = || TIERS.map(|tier| files(&cache.join(tier)));
    let end = Instant::now() + Duration::from_secs(90);
    let (mut known, mut since) = (all(), Instant::now());
    while since.elapsed() < Duration::from_secs(4) && Instant::now() < end {
        let cpu = agent.cpu_of_threads();
        thread::sleep(LOOK);
        let seen = all();
        if seen != known || agent.cpu_of_threads() - cpu > IDLE * LOOK.as_secs_f64() {
            (known, since) = (seen, Instant::now());
        }
    }
}

/// How many of the samples of so many seconds the agent's store gives back.
fn held(agent: &Agent, shape: Shape, (after, before): (i64, i64)) -> io::Result<u64> {
    let mut client = Client::connect(agent.address())?;
    let mut held = 0;
    for chart in 1..=shape.charts {
        for from in (after..before).step_by(DAY as usize) {
            let to = before.min(from + DAY);
            let path = format!(
                "/host/load1/api/v1/data?chart=load.chart{chart}&format=csv&after={from}&before={to}&points={}&options=unaligned",
                to - from
            );
            let text = client.body(&path)?;
            let rows = text.split(|&byte| byte == b'\n').skip(1);
            let cells = rows.flat_map(|row| row.split(|&byte| byte == b',').skip(1));
            held +=
                cells.filter(|cell| cell.first().is_some_and(|&byte| byte != b'n')).count() as u64;
        }
    }
    Ok(held)
}

/// Bytes per sample that it holds, and per point of each tier above, after a clean stop, of so many seconds of the past of
/// a child.
fn bytes_per(
    program: &Path,
    shape: Shape,
    seconds: i64,
    value: &mut dyn FnMut(usize, i64) -> Option<f64>,
) -> io::Result<[f64; 3]> {
    let mut parent = Agent::start(program, "parent", &Setup::default().dbengine())?;
    let end = now();
    let mut child = FakeChild::connect(parent.address(), 1, Form::Past, shape, end)?;
    child.past(end - seconds, end, value)?;
    child.finish()?;
    settle(&parent);
    let samples = shape.samples() as f64 * seconds as f64;
    let held = held(&parent, shape, (end - seconds, end))? as f64;
    if held < 0.98 * samples {
        let of = program.display();
        println!("{of} holds {:.1} % of the {samples} samples it was sent", 100.0 * held / samples);
    }
    parent.stop()?;
    let bytes = weigh(&parent.cache());
    if bytes.contains(&0) {
        return Err(io::Error::other(format!("a tier is empty:\n{}", parent.log_end())));
    }
    let per = |tier: usize, held: f64| bytes[tier] as f64 / held;
    Ok([per(0, held), per(1, samples / 60.0), per(2, samples / 3600.0)])
}

fn made(
    program: &Path,
    charts: u32,
    seconds: i64,
    kind: impl Fn(usize) -> Kind,
) -> io::Result<[f64; 3]> {
    let shape = Shape { charts, dimensions: 10 };
    let mut all: Vec<_> =
        (0..shape.samples() as usize).map(|number| Series::new(kind(number), number)).collect();
    bytes_per(program, shape, seconds, &mut |number, _| Some(all[number].next()))
}

fn repeated(program: &Path, recording: &Recording, seconds: i64) -> io::Result<[f64; 3]> {
    // A chart of ten series each, so none is missing; the last ones of an odd number are left out.
    let shape = Shape { charts: (recording.len() / 10) as u32, dimensions: 10 };
    bytes_per(program, shape, seconds, &mut |number, at| {
        let series = &recording[number];
        series[at.rem_euclid(series.len() as i64) as usize]
    })
}

pub fn disk(programs: &Programs) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut figure = |what: &str, real: Option<f64>, ours, goal| {
        let (what, unit) = (what.to_owned(), "bytes");
        figures.push(Figure { row: "disk", what, unit, real, ours, goal });
    };
    let (ours, real) =
        programs.both(|program, _| made(program, 1, 20 * DAY, |number| MIX[number % 10]))?;
    let of = |tier: usize| real.map(|real| real[tier]);
    figure("a sample: mix, 10 dims, 20 days", of(0), ours[0], Goal::AtMostOfReal(0.55));
    figure("a point of tier 1: the same", of(1), ours[1], Goal::AtMost(4.0));
    figure("a point of tier 2: the same", of(2), ours[2], Goal::AtMost(6.0));
    for (kind, most) in
        [(Kind::Constant, 0.05), (Kind::Counter, 1.6), (Kind::Walk, 2.0), (Kind::Noise, 2.8)]
    {
        let (ours, real) = programs.both(|program, _| made(program, 2, DAY, |_| kind))?;
        let what = format!("a sample: {}, 20 dims, a day", format!("{kind:?}").to_lowercase());
        figure(&what, real.map(|real| real[0]), ours[0], Goal::AtMost(most));
    }
    match std::env::var_os("RECORDED").map(PathBuf::from).filter(|path| path.exists()) {
        Some(path) => {
            let recording = series::recorded(&path, RECORDED_NTH)?;
            let (ours, real) = programs.both(|program, _| repeated(program, &recording, DAY))?;
            let what = format!("a sample: recorded, {} dims, a day", recording.len() / 10 * 10);
            figure(&what, real.map(|real| real[0]), ours[0], Goal::AtMostOfReal(0.4));
        }
        None => println!("disk       recorded samples: skipped, RECORDED names no file"),
    }
    Ok(figures)
}

/// Of this machine's own metrics, as long as that takes.
pub fn disk_own(programs: &Programs) -> io::Result<Vec<Figure>> {
    // OWN_SECONDS: a shorter look
    let seconds = std::env::var("OWN_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3600u64);
    // OWN_FILE: where the recording is kept, or taken from when it is there, so that the same hour can be measured again
    let file = std::env::var_os("OWN_FILE").map(PathBuf::from);
    let recording = match &file {
        Some(path) if path.exists() => series::recorded(path, 1)?,
        _ => record(&programs.ours, seconds)?,
    };
    if let Some(path) = file.filter(|path| !path.exists()) {
        series::keep(&path, &recording)?;
    }
    let (ours, real) = programs.both(|program, _| repeated(program, &recording, seconds as i64))?;
    let dims = recording.len() / 10 * 10;
    Ok(vec![Figure {
        row: "disk-own",
        what: format!("a sample: this machine, {dims} dims, {seconds} s"),
        unit: "bytes",
        real: real.map(|real| real[0]),
        ours: ours[0],
        goal: Goal::AtMostOfReal(0.5),
    }])
}

/// What an agent collects of this machine, every dimension of every chart.
fn record(program: &Path, seconds: u64) -> io::Result<Recording> {
    let setup = Setup::default().option("plugins", "proc", "yes");
    let setup = setup.option("db", "retention", &(seconds + 60).to_string());
    let agent = Agent::start(program, "own", &setup)?;
    println!("recording this machine for {seconds} s");
    pause(seconds + 8);
    let mut client = Client::connect(agent.address())?;
    let json =
        |body: Vec<u8>| -> io::Result<serde_json::Value> { Ok(serde_json::from_slice(&body)?) };
    let charts = json(client.body("/api/v1/charts")?)?;
    let ids: Vec<String> =
        charts["charts"].as_object().into_iter().flatten().map(|(id, _)| id.clone()).collect();
    let mut recording = Recording::new();
    for id in ids {
        let path = format!(
            "/api/v1/data?chart={id}&after=-{seconds}&before=-2&format=json&options=unaligned&dimensions=*"
        );
        let Ok(body) = client.body(&path) else {
            client = Client::connect(agent.address())?;
            continue;
        };
        let data = json(body)?;
        let rows: Vec<&Vec<serde_json::Value>> = data["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|row| row.as_array())
            .collect();
        let Some(width) = rows.first().map(|row| row.len()).filter(|_| rows.len() > 30) else {
            continue;
        };
        for column in 1..width {
            recording.push(rows.iter().rev().map(|row| row[column].as_f64()).collect());
        }
    }
    if recording.len() < 10 {
        return Err(io::Error::other(format!("nothing is collected:\n{}", agent.log_end())));
    }
    Ok(recording)
}

// --- processor and memory ---------------------------------------------------------------------------------------------

const CPU: &str = "CPU s per million (real: old form)";

/// Processor seconds per million samples of a parent that takes them as fast as it can, its last write included.
fn flood(program: &Path, is_ours: bool) -> io::Result<f64> {
    const SHAPE: Shape = Shape { charts: 100, dimensions: 10 };
    let ticks: u32 = if is_ours { 10_000 } else { 3_000 };
    let mut parent = Agent::start(program, "parent", &Setup::default().dbengine())?;
    let idle = parent.cpu();
    let begin = now() - i64::from(ticks) - 200;
    let mut child = FakeChild::connect(parent.address(), 1, newest(is_ours), SHAPE, begin)?;
    for _ in 0..ticks {
        child.tick()?;
    }
    child.finish()?;
    settle(&parent);
    let cpu = parent.stop()? - idle;
    Ok(cpu / (SHAPE.samples() as f64 * f64::from(ticks) / 1e6))
}

/// A tick a second of 20,000 dimensions: processor seconds per million samples with the last write, bytes per dimension.
fn paced(program: &Path, is_ours: bool) -> io::Result<(f64, f64)> {
    const SHAPE: Shape = Shape { charts: 2_000, dimensions: 10 };
    const SECONDS: u64 = 300;
    const PAST: i64 = 1_100;
    let mut parent = Agent::start(program, "parent", &Setup::default().dbengine())?;
    let form = newest(is_ours);
    let small = Shape { charts: 1, dimensions: 1 };
    let mut first = FakeChild::connect(parent.address(), 1, form, small, now())?;
    first.tick()?;
    pause(2);
    let (before, _) = parent.memory();
    // What a store holds in memory after some time of service: the real one keeps a page of each metric and tier.
    let begin = now();
    let mut past = FakeChild::connect(parent.address(), 2, Form::Past, SHAPE, begin)?;
    past.past(begin - PAST, begin, &mut |number, at| Some((number as i64 + at % 100) as f64))?;
    past.finish()?;
    settle(&parent);
    let mut child = FakeChild::connect(parent.address(), 2, form, SHAPE, now())?;
    let idle = parent.cpu();
    let started = Instant::now();
    for tick in 0..SECONDS {
        child.tick()?;
        let due = started + Duration::from_secs(tick + 1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let (after, _) = parent.memory();
    child.finish()?;
    let cpu = parent.stop()? - idle;
    let samples = SHAPE.samples() as f64 * SECONDS as f64;
    Ok((cpu / (samples / 1e6), after.saturating_sub(before) as f64 / SHAPE.samples() as f64))
}

const THIRD: Goal = Goal::AtMostOfReal(1.0 / 3.0);

fn ingested(
    row: &'static str,
    what: &str,
    unit: &'static str,
    (ours, real): (f64, Option<f64>),
    goal: Goal,
) -> Figure {
    Figure { row, what: what.to_owned(), unit, real, ours, goal }
}

pub fn ingest_flood(programs: &Programs) -> io::Result<Vec<Figure>> {
    let what = "parent, dbengine, 1 × 100 × 10 flood";
    Ok(vec![ingested("ingest-flood", what, CPU, programs.both(flood)?, THIRD)])
}

pub fn ingest_paced(programs: &Programs) -> io::Result<Vec<Figure>> {
    let row = "ingest-paced";
    let (ours, real) = programs.both(paced)?;
    let (cpu, memory) = ((ours.0, real.map(|real| real.0)), (ours.1, real.map(|real| real.1)));
    let eighth = Goal::AtMostOfReal(1.0 / 8.0);
    Ok(vec![
        ingested(row, "parent, dbengine, 1 × 2,000 × 10, 300 s paced", CPU, cpu, THIRD),
        ingested(row, "the same: memory per dimension", "bytes", memory, eighth),
    ])
}

// --- queries ----------------------------------------------------------------------------------------------------------

pub fn query(programs: &Programs) -> io::Result<Vec<Figure>> {
    const DAYS: i64 = 30;
    const QUERIES: usize = 31;
    const WIDE: Shape = Shape { charts: 100, dimensions: 10 };
    let one = "/host/load1/api/v1/data?chart=load.chart1&format=json";
    let all = "/host/load2/api/v1/data?context=load.chart&format=json";
    let kinds = [
        ("10 dims, 24 h raw", format!("{one}&after=-86400&before=END"), Some(1.0 / 3.0)),
        (
            "10 dims, 24 h, 300 averages",
            format!("{one}&after=-86400&before=END&points=300"),
            Some(0.25),
        ),
        ("10 dims, 1 h raw", format!("{one}&after=-3600&before=END"), Some(0.5)),
        (
            "10 dims, 30 days, 300 averages",
            format!("{one}&after=-2591000&before=END&points=300"),
            None,
        ),
        ("1,000 dims, 1 h, 60 averages", format!("{all}&after=-3600&before=END&points=60"), None),
    ];
    let (ours, real) = programs.both(|program, _| {
        let parent = Agent::start(program, "parent", &Setup::default().dbengine())?;
        let end = now();
        let shape = Shape { charts: 1, dimensions: 10 };
        let mut narrow = FakeChild::connect(parent.address(), 1, Form::Past, shape, end)?;
        let mut series: Vec<_> = (0..10).map(|n| Series::new(MIX[n], n)).collect();
        narrow.past(end - DAYS * DAY, end, &mut |number, _| Some(series[number].next()))?;
        let mut wide = FakeChild::connect(parent.address(), 2, Form::Past, WIDE, end)?;
        let mut series: Vec<_> = (0..1000).map(|n| Series::new(MIX[n % 10], n)).collect();
        wide.past(end - 4000, end, &mut |number, _| Some(series[number].next()))?;
        // All of it has arrived once both are closed by the other side.
        narrow.finish()?;
        wide.finish()?;
        settle(&parent);
        let mut p50s = Vec::new();
        for (what, path, _) in &kinds {
            let mut client = Client::connect(parent.address())?;
            let path = path.replace("END", &end.to_string());
            let rows = client.body(&path)?.iter().filter(|byte| **byte == b'\n').count();
            let mut times = Vec::new();
            for _ in 0..QUERIES {
                let begun = Instant::now();
                client.get(&path)?;
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
            times.sort_by(f64::total_cmp);
            if rows < 30 {
                return Err(io::Error::other(format!("{what}: {rows} rows only")));
            }
            p50s.push(times[QUERIES / 2]);
        }
        Ok(p50s)
    })?;
    let figure = |n: usize| Figure {
        row: "query-db",
        what: format!("dbengine: {}", kinds[n].0),
        unit: "ms, p50",
        real: real.as_ref().map(|p50s| p50s[n]),
        ours: ours[n],
        goal: kinds[n].2.map_or(Goal::None, Goal::AtMostOfReal),
    };
    Ok((0..kinds.len()).map(figure).collect())
}

// --- start ------------------------------------------------------------------------------------------------------------

/// Seconds until the web server answers, until a chart of the store is answered for, and resident bytes then.
fn started(program: &Path, cache: Option<PathBuf>) -> io::Result<(f64, f64, f64)> {
    let mut setup = Setup::default().dbengine();
    setup.cache = cache;
    let agent = Agent::start(program, "parent", &setup)?;
    let mut client = Client::connect(agent.address())?;
    client.get("/api/v1/info")?;
    let ready = agent.born.elapsed().as_secs_f64();
    // A child brings the chart's definition; its past is in the store.
    let shape = Shape { charts: 1, dimensions: 10 };
    let mut child = FakeChild::connect(agent.address(), 1, Form::V2, shape, now())?;
    child.tick()?;
    let path = "/host/load1/api/v1/data?chart=load.chart1&points=10&options=unaligned";
    let end = Instant::now() + Duration::from_secs(20);
    while client.get(path).is_err() {
        client = Client::connect(agent.address())?;
        if Instant::now() > end {
            return Err(io::Error::other(format!("no answer:\n{}", agent.log_end())));
        }
        thread::sleep(Duration::from_millis(2));
    }
    let first = agent.born.elapsed().as_secs_f64();
    pause(3);
    Ok((ready, first, agent.memory().0 as f64 / 1e6))
}

pub fn start(programs: &Programs) -> io::Result<Vec<Figure>> {
    const METRICS: &str = "1000000";
    let directory = std::env::temp_dir().join(format!("nd-bench-{}-store", std::process::id()));
    fs::create_dir_all(&directory)?;
    let builder = std::env::current_exe()?.with_file_name("storage");
    let built = std::process::Command::new(builder)
        .args(["build", METRICS, &guid(1)])
        .arg(&directory)
        .status()?;
    let best = |cache: Option<&PathBuf>| -> io::Result<(f64, f64, f64)> {
        let mut best = started(&programs.ours, cache.cloned())?;
        for _ in 0..4 {
            let again = started(&programs.ours, cache.cloned())?;
            best = (best.0.min(again.0), best.1.min(again.1), best.2.min(again.2));
        }
        Ok(best)
    };
    let measured = if built.success() {
        best(None).and_then(|empty| Ok((empty, best(Some(&directory))?)))
    } else {
        Err(io::Error::other("the store cannot be built"))
    };
    let _ = fs::remove_dir_all(&directory);
    let (empty, full) = measured?;
    let figure = |what: &str, unit, ours, goal| Figure {
        row: "start",
        what: what.to_owned(),
        unit,
        real: None,
        ours,
        goal,
    };
    Ok(vec![
        figure(
            "1 million metrics × 3 tiers: ready, above empty",
            "s",
            full.0 - empty.0,
            Goal::AtMost(0.15),
        ),
        figure("the same: first query answered", "s from start", full.1, Goal::AtMost(1.0)),
        figure("the same: resident, above empty", "MB", full.2 - empty.2, Goal::AtMost(2.0)),
    ])
}

// --- codecs -----------------------------------------------------------------------------------------------------------

/// Prints the table of codecs; there is nothing to compare it with.
pub fn codec(_: &Programs) -> io::Result<Vec<Figure>> {
    let program = std::env::current_exe()?.with_file_name("storage");
    let recorded = std::env::var_os("RECORDED").filter(|path| Path::new(path).exists());
    let done = std::process::Command::new(program).arg("codec").args(recorded).status()?;
    if done.success() { Ok(Vec::new()) } else { Err(io::Error::other("the codecs fail")) }
}

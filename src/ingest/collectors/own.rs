//! The agent about itself: charts `netdata.*`, from what is counted in [`crate::base::stats`] and by the web server.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::chart::{At, CHART, ChartDef, DimDef, Row, Site, When, absolute, incremental};
use super::lanes::{After, Task, Tick};
use super::procfile::ProcFile;
use super::setup::{Parts, Setup};
use crate::base::stats::STATS;
use crate::base::sys;
use crate::base::time::UnixMicros;
use crate::metrics::ChartType;
use crate::net::Usage;
use crate::net::usage::read;
use crate::storage::dbengine::Store;

static CPU: ChartDef = ChartDef {
    id: "netdata.server_cpu",
    title: "Processor time of the agent",
    units: "milliseconds/s",
    family: "netdata",
    chart_type: ChartType::Stacked,
    priority: 130_000,
    dims: &[incremental("user").scaled(1, 1000), incremental("system").scaled(1, 1000)],
    ..CHART
};

static UPTIME: ChartDef = ChartDef {
    id: "netdata.uptime",
    title: "Time since the agent was started",
    units: "seconds",
    family: "netdata",
    priority: 130_100,
    dims: &[absolute("uptime")],
    ..CHART
};

static CLIENTS: ChartDef = ChartDef {
    id: "netdata.clients",
    title: "Connections to the web server",
    units: "connected clients",
    family: "api",
    priority: 130_200,
    dims: &[absolute("clients")],
    ..CHART
};

static REQUESTS: ChartDef = ChartDef {
    id: "netdata.requests",
    title: "Requests to the web server",
    units: "requests/s",
    family: "api",
    priority: 130_300,
    dims: &[incremental("requests")],
    ..CHART
};

/// Ours alone: a flood of connections or requests shows here.
static REFUSED: ChartDef = ChartDef {
    id: "netdata.web_refused",
    title: "What the web server turned away",
    units: "events/s",
    family: "api",
    chart_type: ChartType::Stacked,
    priority: 130_350,
    dims: &[
        incremental("too_many"),
        incremental("not_allowed"),
        incremental("not_understood"),
        incremental("too_slow"),
    ],
    ..CHART
};

static TRAFFIC: ChartDef = ChartDef {
    id: "netdata.net",
    title: "Traffic of the web server",
    units: "kilobits/s",
    family: "api",
    chart_type: ChartType::Area,
    priority: 130_400,
    dims: &[incremental("in").scaled(8, 1000), incremental("out").scaled(8, 1000).negative()],
    ..CHART
};

static RESPONSE_TIME: ChartDef = ChartDef {
    id: "netdata.response_time",
    title: "Time from request to answer",
    units: "milliseconds/request",
    family: "api",
    priority: 130_500,
    dims: &[absolute("average").scaled(1, 1000), absolute("max").scaled(1, 1000)],
    ..CHART
};

static COMPRESSION: ChartDef = ChartDef {
    id: "netdata.compression_ratio",
    title: "What compression saved of the answers",
    units: "percentage",
    family: "api",
    priority: 130_600,
    dims: &[absolute("savings").scaled(1, 1000)],
    ..CHART
};

/// In the order of [`crate::base::stats::QueryBy`].
const QUERY_DIMS: &[DimDef] = &[
    incremental("/api/v1/data"),
    incremental("/api/v1/weights"),
    incremental("/api/v1/badge"),
    incremental("health"),
    incremental("ml"),
    incremental("exporters"),
    incremental("backfill"),
    incremental("replication"),
];

static QUERIES: ChartDef = ChartDef {
    id: "netdata.queries",
    title: "Series read, by who asked",
    units: "queries/s",
    family: "queries",
    chart_type: ChartType::Stacked,
    priority: 131_000,
    dims: QUERY_DIMS,
    ..CHART
};

static POINTS_READ: ChartDef = ChartDef {
    id: "netdata.db_points_read",
    title: "Samples read, by who asked",
    units: "points/s",
    family: "queries",
    chart_type: ChartType::Stacked,
    priority: 131_001,
    dims: QUERY_DIMS,
    ..CHART
};

static POINTS_STORED: ChartDef = ChartDef {
    id: "netdata.db_points_stored",
    title: "Samples stored",
    units: "points/s",
    family: "queries",
    chart_type: ChartType::Stacked,
    priority: 131_003,
    dims: &[incremental("tier0")],
    ..CHART
};

static STREAMS: ChartDef = ChartDef {
    id: "netdata.streams",
    title: "Hosts streamed to and from this agent",
    units: "connections",
    family: "streaming",
    priority: 130_700,
    dims: &[absolute("children"), absolute("parents")],
    ..CHART
};

static STREAM_TRAFFIC: ChartDef = ChartDef {
    id: "netdata.streams_net",
    title: "Traffic of streams",
    units: "kilobits/s",
    family: "streaming",
    chart_type: ChartType::Area,
    priority: 130_710,
    dims: &[incremental("in").scaled(8, 1000), incremental("out").scaled(8, 1000).negative()],
    ..CHART
};

static CHILDREN_REFUSED: ChartDef = ChartDef {
    id: "netdata.streams_children",
    title: "Children turned away, replaced or cut off",
    units: "events/s",
    family: "streaming",
    chart_type: ChartType::Stacked,
    priority: 130_720,
    dims: &[
        incremental("forbidden"),
        incremental("busy"),
        incremental("duplicate"),
        incremental("own"),
        incremental("taken_over"),
        incremental("violation"),
        incremental("undecodable"),
        incremental("silent"),
        incremental("line_cut"),
    ],
    ..CHART
};

static PARENTS_LOST: ChartDef = ChartDef {
    id: "netdata.streams_parents",
    title: "Parents that did not take what was sent",
    units: "events/s",
    family: "streaming",
    chart_type: ChartType::Stacked,
    priority: 130_730,
    dims: &[
        incremental("unreachable"),
        incremental("refused"),
        incremental("lost"),
        incremental("overflow"),
    ],
    ..CHART
};

static PARENTS_TRIED: ChartDef = ChartDef {
    id: "netdata.streams_attempts",
    title: "Connections to parents that were tried",
    units: "attempts/s",
    family: "streaming",
    priority: 130_735,
    dims: &[incremental("attempts")],
    ..CHART
};

static PAST: ChartDef = ChartDef {
    id: "netdata.streams_past",
    title: "Requests for samples of the past, made and answered, the slots that came, and those of another interval",
    units: "events/s",
    family: "streaming",
    priority: 130_745,
    dims: &[
        incremental("asked"),
        incremental("answered"),
        incremental("slots"),
        incremental("other_interval"),
    ],
    ..CHART
};

static QUEUES: ChartDef = ChartDef {
    id: "netdata.streams_queues",
    title: "What waits to be sent to parents and children",
    units: "KiB",
    family: "streaming",
    chart_type: ChartType::Stacked,
    priority: 130_740,
    dims: &[absolute("to_parents").scaled(1, 1024), absolute("to_children").scaled(1, 1024)],
    ..CHART
};

static FULLEST: ChartDef = ChartDef {
    id: "netdata.streams_fullest_queue",
    title: "How full the fullest queue to a parent is",
    units: "percentage",
    family: "streaming",
    priority: 130_741,
    dims: &[absolute("fullest")],
    ..CHART
};

static BEHIND: ChartDef = ChartDef {
    id: "netdata.streams_behind",
    title: "Children whose past is not complete yet",
    units: "children",
    family: "streaming",
    priority: 130_746,
    dims: &[absolute("children")],
    ..CHART
};

static BEHIND_FOR: ChartDef = ChartDef {
    id: "netdata.streams_behind_for",
    title: "How long the past of a child has not been complete, at most",
    units: "seconds",
    family: "streaming",
    priority: 130_747,
    dims: &[absolute("longest")],
    ..CHART
};

static SKEW: ChartDef = ChartDef {
    id: "netdata.streams_clock_skew",
    title: "How far the clock of a child is from ours, at most",
    units: "seconds",
    family: "streaming",
    priority: 130_748,
    dims: &[absolute("largest")],
    ..CHART
};

static FUNCTIONS: ChartDef = ChartDef {
    id: "netdata.functions",
    title: "Calls of functions of plugins and children",
    units: "calls/s",
    family: "functions",
    priority: 130_750,
    dims: &[
        incremental("calls"),
        incremental("refused"),
        incremental("timed_out"),
        incremental("cancelled"),
    ],
    ..CHART
};

static THREADS: ChartDef = ChartDef {
    id: "netdata.threads",
    title: "Threads of the agent",
    units: "threads",
    family: "netdata",
    priority: 130_110,
    dims: &[absolute("threads")],
    ..CHART
};

/// Threads by what their name begins with, as docs/ARCHITECTURE.md lists them; the last is all others.
const ROLES: &[&str; 12] = &[
    "MAIN",
    "WEB_SERVER",
    "STREAM_RECEIVER",
    "STREAM_SENDER",
    "REPLICATION",
    "PLUGINSD",
    "PLUGIN",
    "HEALTH",
    "EXPORTING",
    "DBENGINE",
    "METADATA",
    "other",
];

static THREADS_CPU: ChartDef = ChartDef {
    id: "netdata.threads_cpu",
    title: "Processor time of the agent, by what its threads are for",
    units: "milliseconds/s",
    family: "netdata",
    chart_type: ChartType::Stacked,
    priority: 130_115,
    dims: &[
        absolute("MAIN"),
        absolute("WEB_SERVER"),
        absolute("STREAM_RECEIVER"),
        absolute("STREAM_SENDER"),
        absolute("REPLICATION"),
        absolute("PLUGINSD"),
        absolute("PLUGIN"),
        absolute("HEALTH"),
        absolute("EXPORTING"),
        absolute("DBENGINE"),
        absolute("METADATA"),
        absolute("other"),
    ],
    ..CHART
};

static MEMORY: ChartDef = ChartDef {
    id: "netdata.memory",
    title: "Memory of the agent",
    units: "KiB",
    family: "netdata",
    priority: 130_120,
    dims: &[absolute("resident")],
    ..CHART
};

static STORE_SPACE: ChartDef = ChartDef {
    id: "netdata.dbengine_disk",
    title: "Disk space of the store, by tier",
    units: "KiB",
    family: "dbengine",
    chart_type: ChartType::Stacked,
    priority: 131_100,
    dims: TIER_DIMS_KIB,
    ..CHART
};

static STORE_FILES: ChartDef = ChartDef {
    id: "netdata.dbengine_files",
    title: "Segments of the store, by tier",
    units: "files",
    family: "dbengine",
    chart_type: ChartType::Stacked,
    priority: 131_110,
    dims: TIER_DIMS,
    ..CHART
};

static STORE_METRICS: ChartDef = ChartDef {
    id: "netdata.dbengine_metrics",
    title: "Metrics that the store knows",
    units: "metrics",
    family: "dbengine",
    priority: 131_120,
    dims: &[absolute("metrics")],
    ..CHART
};

static STORE_ROOM: ChartDef = ChartDef {
    id: "netdata.dbengine_room",
    title: "Space left on the store's disk, and what the store may still take of it",
    units: "KiB",
    family: "dbengine",
    priority: 131_130,
    dims: &[absolute("free").scaled(1, 1024), absolute("wanted").scaled(1, 1024)],
    ..CHART
};

static STORE_TROUBLE: ChartDef = ChartDef {
    id: "netdata.dbengine_trouble",
    title: "What of the store was found damaged since the start, and kinds of work that the disk refuses now",
    units: "events",
    family: "dbengine",
    priority: 131_140,
    dims: &[absolute("damaged"), absolute("refused")],
    ..CHART
};

/// As many as there can be.
const TIERS: usize = 5;
const TIER_DIMS: &[DimDef; TIERS] = &[
    absolute("tier0"),
    absolute("tier1"),
    absolute("tier2"),
    absolute("tier3"),
    absolute("tier4"),
];
const TIER_DIMS_KIB: &[DimDef; TIERS] = &[
    absolute("tier0").scaled(1, 1024),
    absolute("tier1").scaled(1, 1024),
    absolute("tier2").scaled(1, 1024),
    absolute("tier3").scaled(1, 1024),
    absolute("tier4").scaled(1, 1024),
];

/// The store's figures change slowly and cost a look at every segment.
const STORE_EVERY_S: i64 = 10;
/// Those of threads cost a look at every one; in between, what they came to the last time stands.
const THREADS_EVERY_S: i64 = 10;
/// Those of children cost a look at all of their charts.
const CHILDREN_EVERY_S: i64 = 10;

/// What is known of the store, as of a while ago.
#[derive(Clone, Copy, Default)]
struct StoreFigures {
    bytes: [i64; TIERS],
    files: [i64; TIERS],
    metrics: i64,
    /// Free on its disk, and wanted by it.
    room: Option<[i64; 2]>,
}

impl StoreFigures {
    fn of(store: &Store) -> StoreFigures {
        let mut figures = StoreFigures::default();
        for (tier, stats) in store.stats().iter().enumerate().take(TIERS) {
            figures.bytes[tier] = stats.bytes.cast_signed();
            figures.files[tier] = stats.files as i64;
            figures.metrics = i64::from(stats.metrics);
        }
        figures.room = store.room().map(|(free, wanted)| [free, wanted].map(u64::cast_signed));
        figures
    }
}

/// Charts about what only some agents have.
struct Inner {
    parts: Parts,
    tried: Row,
    queues: Row,
    fullest: Row,
    functions: Row,
    threads: Row,
    threads_cpu: Row,
    memory: Row,
    space: Row,
    files: Row,
    metrics: Row,
    room: Row,
    trouble: Row,
    behind: Row,
    behind_for: Row,
    skew: Row,
    /// Of this process, kept open.
    stat: Option<ProcFile>,
    buffer: Vec<u8>,
    page_kib: i64,
    thread_times: ThreadTimes,
    store_at: i64,
    store: Option<StoreFigures>,
    children_at: i64,
    children: [i64; 3],
}

impl Inner {
    fn new(parts: Parts) -> Inner {
        let row = |def| Row::new(def, When::Always);
        Inner {
            parts,
            tried: row(&PARENTS_TRIED),
            queues: row(&QUEUES),
            fullest: row(&FULLEST),
            functions: row(&FUNCTIONS),
            threads: row(&THREADS),
            threads_cpu: row(&THREADS_CPU),
            memory: row(&MEMORY),
            space: row(&STORE_SPACE),
            files: row(&STORE_FILES),
            metrics: row(&STORE_METRICS),
            room: row(&STORE_ROOM),
            trouble: row(&STORE_TROUBLE),
            behind: row(&BEHIND),
            behind_for: row(&BEHIND_FOR),
            skew: row(&SKEW),
            stat: ProcFile::open("/proc/self/stat".into()),
            buffer: Vec::new(),
            page_kib: sys::page_size() / 1024,
            thread_times: ThreadTimes::default(),
            store_at: 0,
            store: None,
            children_at: 0,
            children: [0; 3],
        }
    }

    fn collect(&mut self, at: At<'_>, now: i64) {
        let now_of = |count| read(count).cast_signed();
        self.tried.collect(at, &[now_of(&STATS.streams.attempts)]);
        if let Some(queues) = &self.parts.queues {
            let [parents, fullest, children] = queues().map(|n| n as i64);
            self.queues.collect(at, &[parents, children]);
            self.fullest.collect(at, &[fullest]);
        }
        if let Some(children) = &self.parts.children {
            if now - self.children_at >= CHILDREN_EVERY_S || now < self.children_at {
                (self.children, self.children_at) = (children(), now);
            }
            let [behind, longest, skew] = self.children;
            self.behind.collect(at, &[behind]);
            self.behind_for.collect(at, &[longest]);
            self.skew.collect(at, &[skew]);
        }
        let f = &STATS.functions;
        self.functions.collect(at, &[&f.calls, &f.refused, &f.timed_out, &f.cancelled].map(now_of));
        let stat = self.stat.as_mut().and_then(|file| file.read(&mut self.buffer));
        if let Some((threads, resident)) = stat.and_then(|stat| size_of(stat, self.page_kib)) {
            self.threads.collect(at, &[threads]);
            self.memory.collect(at, &[resident]);
        }
        if let Some(times) = self.thread_times.look("/proc/self/task", now) {
            self.threads_cpu.collect(at, times);
        }
        let store = self.parts.engines.as_ref().and_then(|engines| engines.open_store());
        let Some(store) = store else { return };
        if self.store.is_none() || now - self.store_at >= STORE_EVERY_S {
            self.store = Some(StoreFigures::of(&store));
            self.store_at = now;
        }
        self.trouble.collect(at, &[now_of(&STATS.store_damaged), store.refused_chores().into()]);
        if let Some(figures) = &self.store {
            self.space.collect(at, &figures.bytes);
            self.files.collect(at, &figures.files);
            self.metrics.collect(at, &[figures.metrics]);
            if let Some(room) = &figures.room {
                self.room.collect(at, room);
            }
        }
    }
}

/// Threads and resident KiB of a process, from its `stat` file: fields 20 and 24, counted from behind the name.
fn size_of(stat: &[u8], page_kib: i64) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(stat).ok()?;
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let threads = fields.nth(17)?.parse().ok()?;
    let pages: i64 = fields.nth(3)?.parse().ok()?;
    Some((threads, pages * page_kib))
}

/// What the threads of each role cost.
#[derive(Default)]
struct ThreadTimes {
    looked_at: i64,
    /// By thread: clock ticks it had used at the last look.
    known: FxHashMap<u64, u64>,
    /// Milliseconds per second between the last two looks.
    rates: Option<[i64; ROLES.len()]>,
}

impl ThreadTimes {
    fn look(&mut self, tasks: &str, now: i64) -> Option<&[i64; ROLES.len()]> {
        let elapsed = now - self.looked_at;
        if (0..THREADS_EVERY_S).contains(&elapsed) {
            return self.rates.as_ref();
        }
        let mut ticks = [0u64; ROLES.len()];
        let mut known = FxHashMap::default();
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let Some(id) = task.file_name().to_str().and_then(|id| id.parse().ok()) else {
                continue;
            };
            // It may have ended meanwhile.
            let Ok(stat) = std::fs::read(task.path().join("stat")) else { continue };
            let Some((role, used)) = time_of(&stat) else { continue };
            ticks[role] += used.saturating_sub(self.known.get(&id).copied().unwrap_or(0));
            known.insert(id, used);
        }
        // What a first look finds is of an unknown time.
        self.rates = (!self.known.is_empty() && elapsed > 0).then(|| {
            let ticks_per_s = sys::clock_ticks().max(1);
            ticks.map(|ticks| ticks.cast_signed() * 1000 / ticks_per_s / elapsed)
        });
        (self.known, self.looked_at) = (known, now);
        self.rates.as_ref()
    }
}

/// The role of a thread and the ticks it has used, from its `stat` file: fields 2, 14 and 15.
fn time_of(stat: &[u8]) -> Option<(usize, u64)> {
    let text = String::from_utf8_lossy(stat);
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let name = text.get(open + 1..close)?;
    // The first thread has the name of the program.
    let name = if name == "netdata" { "MAIN" } else { name.split('[').next().unwrap_or(name) };
    let mut fields = text.get(close + 1..)?.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let used = ticks()? + ticks()?;
    let role = ROLES.iter().position(|role| *role == name).unwrap_or(ROLES.len() - 1);
    Some((role, used))
}

struct Own {
    site: Site,
    started: UnixMicros,
    usage: Arc<Usage>,
    cpu: Row,
    uptime: Row,
    clients: Row,
    requests: Row,
    refused: Row,
    traffic: Row,
    response_time: Row,
    compression: Row,
    queries: Row,
    points_read: Row,
    points_stored: Row,
    streams: Row,
    stream_traffic: Row,
    children_refused: Row,
    parents_lost: Row,
    inner: Inner,
    past: Row,
    last: Last,
}

/// Counters at the last tick.
#[derive(Clone, Copy, Default)]
struct Last {
    requests: u64,
    micros: u64,
    plain: u64,
    compressed: u64,
    average_us: i64,
    savings: i64,
}

pub fn task(setup: &Setup) -> Box<dyn Task> {
    let row = |def| Row::new(def, When::Always);
    Box::new(Own {
        site: setup.site("netdata", "stats"),
        started: setup.clock.now(),
        usage: Arc::clone(&setup.usage),
        cpu: row(&CPU),
        uptime: row(&UPTIME),
        clients: row(&CLIENTS),
        requests: row(&REQUESTS),
        refused: row(&REFUSED),
        traffic: row(&TRAFFIC),
        response_time: row(&RESPONSE_TIME),
        compression: row(&COMPRESSION),
        queries: row(&QUERIES),
        points_read: row(&POINTS_READ),
        points_stored: row(&POINTS_STORED),
        streams: row(&STREAMS),
        stream_traffic: row(&STREAM_TRAFFIC),
        children_refused: row(&CHILDREN_REFUSED),
        parents_lost: row(&PARENTS_LOST),
        inner: Inner::new(setup.parts.clone()),
        past: row(&PAST),
        last: Last::default(),
    })
}

impl Task for Own {
    fn name(&self) -> Arc<str> {
        "netdata monitoring".into()
    }

    fn run(&mut self, tick: &mut Tick<'_>) -> After {
        let at = At::new(&self.site, tick.now);
        let signed = |n: u64| n.cast_signed();
        let (user_us, system_us) = sys::process_times_us();
        self.cpu.collect(at, &[user_us, system_us]);
        self.uptime.collect(at, &[(tick.now - self.started) / 1_000_000]);
        let usage = &self.usage;
        self.clients.collect(at, &[signed(read(&usage.clients))]);
        self.requests.collect(at, &[signed(read(&usage.requests))]);
        let refused = [&usage.refused, &usage.denied, &usage.malformed, &usage.timed_out];
        self.refused.collect(at, &refused.map(|count| signed(read(count))));
        let traffic = [&usage.received_bytes, &usage.sent_bytes].map(|bytes| signed(read(bytes)));
        self.traffic.collect(at, &traffic);
        self.last.update(usage);
        let slowest = signed(usage.take_longest_us()).max(self.last.average_us);
        self.response_time.collect(at, &[self.last.average_us, slowest]);
        self.compression.collect(at, &[self.last.savings]);
        self.queries.collect(at, &STATS.queries().map(signed));
        self.points_read.collect(at, &STATS.points_read().map(signed));
        self.points_stored.collect(at, &[signed(STATS.points_stored.get())]);
        let s = &STATS.streams;
        let now = |count| signed(read(count));
        self.streams.collect(at, &[&s.children, &s.parents].map(now));
        self.stream_traffic.collect(at, &[&s.received_bytes, &s.sent_bytes].map(now));
        let children = [
            &s.forbidden,
            &s.busy,
            &s.duplicate,
            &s.own,
            &s.taken_over,
            &s.violation,
            &s.undecodable,
            &s.silent,
            &s.cut,
        ];
        self.children_refused.collect(at, &children.map(now));
        let parents = [&s.unreachable, &s.refused, &s.lost, &s.overflow];
        self.parents_lost.collect(at, &parents.map(now));
        self.inner.collect(at, tick.now.seconds().0);
        let past = [&s.past_asked, &s.past_answered, &s.past_slots, &s.past_foreign];
        self.past.collect(at, &past.map(now));
        After::Again
    }
}

impl Last {
    /// Averages over the requests since the last tick; without any, those before stand.
    fn update(&mut self, usage: &Usage) {
        let requests = read(&usage.requests);
        let micros = read(&usage.response_us);
        let (new, time) = (requests.wrapping_sub(self.requests), micros.wrapping_sub(self.micros));
        if let Some(average) = time.checked_div(new) {
            self.average_us = average.cast_signed();
        }
        (self.requests, self.micros) = (requests, micros);
        let (plain, compressed) = (read(&usage.plain_bytes), read(&usage.compressed_bytes));
        let (before, after) =
            (plain.wrapping_sub(self.plain), compressed.wrapping_sub(self.compressed));
        if let Some(thousandths) = after.saturating_mul(100_000).checked_div(before) {
            self.savings = 100_000 - thousandths.min(100_000).cast_signed();
        }
        (self.plain, self.compressed) = (plain, compressed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_apart_by_what_they_are_for() {
        let names: Vec<_> = THREADS_CPU.dims.iter().map(|dim| dim.id).collect();
        assert_eq!(names, ROLES);
        let stat = |name: &str| format!("7 ({name}) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14 15 16 42\n");
        let of = |name| time_of(stat(name).as_bytes()).map(|(role, used)| (ROLES[role], used));
        assert_eq!(of("WEB_SERVER[12]"), Some(("WEB_SERVER", 42)));
        assert_eq!(of("STREAM_RECEIVER"), Some(("STREAM_RECEIVER", 42)));
        assert_eq!(of("netdata"), Some(("MAIN", 42)));
        assert_eq!(of("a (b) c"), Some(("other", 42)));
        assert_eq!(time_of(b"7 (a) S 1"), None);

        let tasks = tempfile::tempdir().unwrap();
        let set = |thread: &str, name: &str, ticks: u64| {
            let dir = tasks.path().join(thread);
            std::fs::create_dir_all(&dir).unwrap();
            let text = format!("{thread} ({name}) S 1 2 3 4 5 6 7 8 9 10 {ticks} 0 13 14 15\n");
            std::fs::write(dir.join("stat"), text).unwrap();
        };
        let path = tasks.path().to_str().unwrap();
        let mut times = ThreadTimes::default();
        let second = sys::clock_ticks().cast_unsigned();
        set("1", "MAIN", 5 * second);
        assert_eq!(times.look(path, 1000), None);
        set("1", "MAIN", 6 * second);
        set("2", "WEB_SERVER[0]", 2 * second);
        set("3", "WEB_SERVER[1]", second);
        assert_eq!(times.look(path, 1005), None, "not yet");
        let rates = times.look(path, 1010).unwrap();
        assert_eq!(rates[..3], [100, 300, 0]);
        // Threads end and others take their numbers.
        set("2", "PLUGIN[proc]", second / 2);
        assert_eq!(times.look(path, 1020).unwrap().iter().sum::<i64>(), 0);
        assert!(times.look("/no/such", 1040).unwrap().iter().all(|rate| *rate == 0));
    }

    #[test]
    fn the_size_of_a_process_is_read_behind_its_name() {
        let stat = b"7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 42 18 19 20 300 22\n";
        assert_eq!(size_of(stat, 4), Some((42, 1200)));
        assert_eq!(size_of(b"7 (a) S 1", 4), None);
        let own = std::fs::read("/proc/self/stat").unwrap();
        let (threads, resident) = size_of(&own, sys::page_size() / 1024).unwrap();
        assert!(threads >= 1 && resident > 1000);
    }
}

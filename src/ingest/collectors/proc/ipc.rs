//! System V IPC: semaphores, shared memory and message queues.

use std::path::PathBuf;

use super::Source;
use crate::base::sys;
use crate::base::time::UpdateEvery;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Row, Site, When, absolute};
use crate::ingest::collectors::lanes::{After, Pace, Tick};
use crate::ingest::collectors::procfile::{ProcFile, lines, number, read_once, words};
use crate::ingest::collectors::setup::Setup;
use crate::metrics::{Algorithm, ChartType, Collected, Dim};

pub const NAME: &str = "ipc";
const SECTION: &str = "plugin:proc:ipc";

/// Queues shown since the start, those gone included: dimensions stay, so a program that makes queues again and again
/// must not fill the memory.
const QUEUES_MAX: usize = 1000;

/// The limits hardly ever change.
const LIMITS_EVERY: i64 = 60;

static SEMAPHORES: ChartDef = ChartDef {
    id: "system.ipc_semaphores",
    title: "Semaphores there are",
    units: "semaphores",
    family: "ipc semaphores",
    chart_type: ChartType::Area,
    priority: 1203,
    dims: &[absolute("semaphores")],
    ..CHART
};

static ARRAYS: ChartDef = ChartDef {
    id: "system.ipc_semaphore_arrays",
    title: "Arrays of semaphores there are",
    units: "arrays",
    family: "ipc semaphores",
    chart_type: ChartType::Area,
    priority: 1204,
    dims: &[absolute("arrays")],
    ..CHART
};

static SEGMENTS: ChartDef = ChartDef {
    id: "system.shared_memory_segments",
    title: "Segments of shared memory there are",
    units: "segments",
    family: "ipc shared memory",
    chart_type: ChartType::Stacked,
    priority: 1205,
    dims: &[absolute("segments")],
    ..CHART
};

static SEGMENT_BYTES: ChartDef = ChartDef {
    id: "system.shared_memory_bytes",
    title: "Shared memory",
    units: "bytes",
    family: "ipc shared memory",
    chart_type: ChartType::Stacked,
    priority: 1206,
    dims: &[absolute("bytes")],
    ..CHART
};

static MESSAGES: ChartDef = ChartDef {
    id: "system.message_queue_messages",
    title: "Messages in queues",
    units: "messages",
    family: "ipc message queues",
    chart_type: ChartType::Stacked,
    priority: 1201,
    ..CHART
};

static MESSAGE_BYTES: ChartDef = ChartDef {
    id: "system.message_queue_bytes",
    title: "Bytes in message queues",
    units: "bytes",
    family: "ipc message queues",
    chart_type: ChartType::Stacked,
    priority: 1202,
    ..CHART
};

struct Ipc {
    site: Site,
    semaphores: Option<(Row, Row)>,
    limits: PathBuf,
    limits_pace: Pace,
    segments: Option<(ProcFile, Row, Row)>,
    messages: Option<Messages>,
}

struct Messages {
    file: ProcFile,
    /// Beyond this many queues none is shown.
    most: usize,
    charts: Option<(Collected, Collected)>,
    queues: Vec<Queue>,
}

struct Queue {
    id: i64,
    dims: (Dim, Dim),
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let config = &setup.config;
    let wanted = |option| config.boolean(SECTION, option, true);
    let (messages, semaphores, segments) =
        (wanted("message queues"), wanted("semaphore totals"), wanted("shared memory totals"));
    let messages_file = setup.path(SECTION, "msg filename to monitor", "/proc/sysvipc/msg");
    let segments_file = setup.path(SECTION, "shm filename to monitor", "/proc/sysvipc/shm");
    let most = config.number(SECTION, "max dimensions in memory allowed", 50);
    let always = |def| Row::new(def, When::Always);
    let open = |wanted: bool, path| wanted.then(|| ProcFile::open(path)).flatten();
    let ipc = Ipc {
        site: setup.proc_site(NAME),
        semaphores: (semaphores && sys::semaphores_in_use().is_ok())
            .then(|| (always(&SEMAPHORES), always(&ARRAYS))),
        limits: PathBuf::from(setup.prefixed("/proc/sys/kernel/sem")),
        limits_pace: Pace::new(UpdateEvery::clamped(LIMITS_EVERY)),
        segments: open(segments, segments_file)
            .map(|file| (file, always(&SEGMENTS), always(&SEGMENT_BYTES))),
        messages: open(messages, messages_file).map(|file| Messages {
            file,
            most: usize::try_from(most).unwrap_or(0),
            charts: None,
            queues: Vec::new(),
        }),
    };
    let nothing = ipc.semaphores.is_none() && ipc.segments.is_none() && ipc.messages.is_none();
    if nothing { None } else { Some(Box::new(ipc)) }
}

impl Source for Ipc {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let at = At::new(&self.site, tick.now);
        if let Some((semaphores, arrays)) = &mut self.semaphores {
            if let Ok(used) = sys::semaphores_in_use() {
                semaphores.collect(at, &[used.semaphores]);
                arrays.collect(at, &[used.arrays]);
            }
            if self.limits_pace.due(tick.now)
                && let Ok(length) = read_once(&self.limits, tick.buffer)
            {
                // Semaphores per array, semaphores, operations per call, arrays.
                let mut limits = words(&tick.buffer[..length]);
                let most = [(); 4].map(|()| limits.number());
                #[expect(clippy::cast_precision_loss, reason = "numbers of semaphores")]
                for (name, value) in
                    [("ipc_semaphores_max", most[1]), ("ipc_semaphores_arrays_max", most[3])]
                {
                    self.site.host.set_variable(name, value as f64);
                }
            }
        }
        if let Some(messages) = &mut self.messages {
            messages.collect(at, tick.buffer);
        }
        if let Some((file, segments, bytes)) = &mut self.segments
            && let Some(text) = file.read(tick.buffer)
        {
            let (mut count, mut sum) = (0i64, 0i64);
            for line in lines(text).skip(1) {
                // key shmid perms size
                if let Some(size) = words(line).nth(3) {
                    count += 1;
                    sum = sum.wrapping_add(number(size));
                }
            }
            segments.collect(at, &[count]);
            bytes.collect(at, &[sum]);
        }
        After::Again
    }
}

impl Messages {
    /// The columns are `key msqid perms cbytes qnum …`.
    fn collect(&mut self, at: At<'_>, buffer: &mut Vec<u8>) {
        let Some(text) = self.file.read(buffer) else { return };
        let count = lines(text).skip(1).count();
        if count == 0 && self.charts.is_none() || count > self.most {
            return;
        }
        // The newest queues come first, as the original lists them.
        let mut fresh: Vec<i64> = Vec::new();
        for line in lines(text).skip(1) {
            let id = words(line).nth(1).map_or(0, number);
            if !self.queues.iter().any(|queue| queue.id == id) {
                fresh.push(id);
            }
        }
        let room = QUEUES_MAX.saturating_sub(self.queues.len());
        for id in fresh.into_iter().rev().take(room) {
            self.add(at, id);
        }
        let Some((messages, bytes)) = &mut self.charts else { return };
        for line in lines(text).skip(1) {
            let mut words = words(line).skip(1);
            let mut next = || words.next().map_or(0, number);
            let (id, _, size, number) = (next(), next(), next(), next());
            if let Some(queue) = self.queues.iter().find(|queue| queue.id == id) {
                messages.set(queue.dims.0, number);
                bytes.set(queue.dims.1, size);
            }
        }
        messages.done(at.now);
        bytes.done(at.now);
    }

    fn add(&mut self, at: At<'_>, id: i64) {
        if self.charts.is_none() {
            self.charts = MESSAGES.create(at).zip(MESSAGE_BYTES.create(at));
        }
        if let Some((messages, bytes)) = &mut self.charts {
            let name = id.to_string();
            let dims = (
                messages.dimension(&name, Algorithm::Absolute, 1, 1),
                bytes.dimension(&name, Algorithm::Absolute, 1, 1),
            );
            self.queues.push(Queue { id, dims });
        }
    }
}

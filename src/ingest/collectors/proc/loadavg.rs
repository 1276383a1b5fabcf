//! /proc/loadavg: load averages, and how many tasks there are.

use std::path::PathBuf;

use super::Source;
use crate::base::time::UpdateEvery;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Row, Site, absolute};
use crate::ingest::collectors::lanes::{After, Pace, Tick};
use crate::ingest::collectors::procfile::{ProcFile, fixed_point, number, read_once, words};
use crate::ingest::collectors::setup::Setup;

pub const NAME: &str = "/proc/loadavg";
const SECTION: &str = "plugin:proc:/proc/loadavg";

/// The kernel computes the averages this often.
const LOAD_EVERY: i64 = 5;

/// How often the largest process id is read; it hardly ever changes.
const PID_MAX_EVERY: i64 = 60;

static LOAD: ChartDef = ChartDef {
    id: "system.load",
    title: "Tasks that run or want to, on average of 1, 5 and 15 minutes",
    units: "load",
    family: "load",
    priority: 100,
    dims: &[
        absolute("load1").scaled(1, 1000),
        absolute("load5").scaled(1, 1000),
        absolute("load15").scaled(1, 1000),
    ],
    ..CHART
};

static ACTIVE: ChartDef = ChartDef {
    id: "system.active_processes",
    title: "Tasks there are",
    units: "processes",
    family: "processes",
    priority: 750,
    dims: &[absolute("active")],
    ..CHART
};

struct LoadAvg {
    site: Site,
    file: ProcFile,
    load_site: Site,
    load_pace: Pace,
    load: Row,
    active: Row,
    pid_max: PathBuf,
    pid_max_pace: Pace,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let site = setup.proc_site(NAME);
    let every = UpdateEvery::clamped(setup.every.seconds().max(LOAD_EVERY));
    Some(Box::new(LoadAvg {
        load_site: Site { every, ..site.clone() },
        site,
        file,
        load_pace: Pace::new(every),
        load: Row::new(&LOAD, setup.switch(SECTION, "enable load average")),
        active: Row::new(&ACTIVE, setup.switch(SECTION, "enable total processes")),
        pid_max: PathBuf::from(setup.prefixed("/proc/sys/kernel/pid_max")),
        pid_max_pace: Pace::new(UpdateEvery::clamped(PID_MAX_EVERY)),
    }))
}

impl Source for LoadAvg {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        let mut words = words(text);
        let loads = [(); 3].map(|()| words.next().map_or(0, |word| fixed_point(word, 3)));
        let tasks = words.next().unwrap_or_default();
        let total =
            tasks.iter().position(|&b| b == b'/').map_or(0, |slash| number(&tasks[slash + 1..]));
        if self.load_pace.due(tick.now) {
            self.load.collect(At::new(&self.load_site, tick.now), &loads);
        }
        if self.active.collect(At::new(&self.site, tick.now), &[total])
            && self.pid_max_pace.due(tick.now)
            && let Ok(length) = read_once(&self.pid_max, tick.buffer)
        {
            #[expect(clippy::cast_precision_loss, reason = "at most 2^22")]
            self.active.set_variable("pidmax", number(&tick.buffer[..length]) as f64);
        }
        After::Again
    }
}

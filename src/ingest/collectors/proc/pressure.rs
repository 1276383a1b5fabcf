//! /proc/pressure: time in which tasks stalled for want of processor, memory or disk.

use super::Source;
use crate::base::time::UpdateEvery;
use crate::ingest::collectors::chart::{
    At, CHART, ChartDef, DimDef, Row, Site, absolute, incremental,
};
use crate::ingest::collectors::lanes::{After, Pace, Tick};
use crate::ingest::collectors::procfile::{ProcFile, fixed_point, lines, number, words};
use crate::ingest::collectors::setup::Setup;

pub const NAME: &str = "/proc/pressure";
const SECTION: &str = "plugin:proc:/proc/pressure";

/// The kernel updates its averages this often.
const EVERY: i64 = 2;

const SOME: &[DimDef] = &[
    absolute("some 10").scaled(1, 100),
    absolute("some 60").scaled(1, 100),
    absolute("some 300").scaled(1, 100),
];

const FULL: &[DimDef] = &[
    absolute("full 10").scaled(1, 100),
    absolute("full 60").scaled(1, 100),
    absolute("full 300").scaled(1, 100),
];

const TIME: &[DimDef] = &[incremental("time")];

const fn averages(
    id: &'static str,
    title: &'static str,
    family: &'static str,
    priority: i64,
    dims: &'static [DimDef],
) -> ChartDef {
    ChartDef { id, title, units: "percentage", family, priority, dims, ..CHART }
}

const fn stalled(
    id: &'static str,
    title: &'static str,
    family: &'static str,
    priority: i64,
) -> ChartDef {
    ChartDef { id, title, units: "ms", family, priority, dims: TIME, ..CHART }
}

/// Word of the options and file name, then averages and stall time of `some` and of `full`.
static RESOURCES: [(&str, [ChartDef; 4]); 3] = [
    (
        "cpu",
        [
            averages(
                "system.cpu_some_pressure",
                "Some tasks waited for a processor",
                "cpu",
                140,
                SOME,
            ),
            stalled(
                "system.cpu_some_pressure_stall_time",
                "Time in which some tasks waited for a processor",
                "cpu",
                145,
            ),
            averages(
                "system.cpu_full_pressure",
                "All tasks waited for a processor",
                "cpu",
                150,
                FULL,
            ),
            stalled(
                "system.cpu_full_pressure_stall_time",
                "Time in which all tasks waited for a processor",
                "cpu",
                155,
            ),
        ],
    ),
    (
        "memory",
        [
            averages(
                "system.memory_some_pressure",
                "Some tasks waited for memory",
                "ram",
                240,
                SOME,
            ),
            stalled(
                "system.memory_some_pressure_stall_time",
                "Time in which some tasks waited for memory",
                "ram",
                245,
            ),
            averages(
                "system.memory_full_pressure",
                "All tasks waited for memory",
                "ram",
                250,
                FULL,
            ),
            stalled(
                "system.memory_full_pressure_stall_time",
                "Time in which all tasks waited for memory",
                "ram",
                255,
            ),
        ],
    ),
    (
        "io",
        [
            averages("system.io_some_pressure", "Some tasks waited for a disk", "disk", 190, SOME),
            stalled(
                "system.io_some_pressure_stall_time",
                "Time in which some tasks waited for a disk",
                "disk",
                195,
            ),
            averages("system.io_full_pressure", "All tasks waited for a disk", "disk", 200, FULL),
            stalled(
                "system.io_full_pressure_stall_time",
                "Time in which all tasks waited for a disk",
                "disk",
                205,
            ),
        ],
    ),
];

struct Pressure {
    site: Site,
    pace: Pace,
    resources: Vec<Resource>,
}

struct Resource {
    file: ProcFile,
    some: (Row, Row),
    full: (Row, Row),
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let base = setup.path(SECTION, "base path of pressure metrics", NAME);
    let mut resources = Vec::new();
    for (word, [some, some_time, full, full_time]) in &RESOURCES {
        let some_when = setup.switch(SECTION, &format!("enable {word} some pressure"));
        let full_when = setup.switch(SECTION, &format!("enable {word} full pressure"));
        if let Some(file) = ProcFile::open(base.join(word)) {
            resources.push(Resource {
                file,
                some: (Row::new(some, some_when), Row::new(some_time, some_when)),
                full: (Row::new(full, full_when), Row::new(full_time, full_when)),
            });
        }
    }
    if resources.is_empty() {
        return None;
    }
    let every = UpdateEvery::clamped(setup.every.seconds().max(EVERY));
    let site = Site { every, ..setup.proc_site(NAME) };
    Some(Box::new(Pressure { site, pace: Pace::new(every), resources }))
}

impl Source for Pressure {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        if !self.pace.due(tick.now) {
            return After::Again;
        }
        let at = At::new(&self.site, tick.now);
        for resource in &mut self.resources {
            let Some(text) = resource.file.read(tick.buffer) else { continue };
            for line in lines(text) {
                let mut words = words(line);
                let (averages, time) = match words.next() {
                    Some(b"some") => &mut resource.some,
                    Some(b"full") => &mut resource.full,
                    _ => continue,
                };
                // avg10=0.00 avg60=0.00 avg300=0.00 total=0
                let mut values = words.map(|word| {
                    let equals = word.iter().position(|&b| b == b'=').unwrap_or(0);
                    word.get(equals + 1..).unwrap_or_default()
                });
                let shares = [(); 3].map(|()| values.next().map_or(0, |word| fixed_point(word, 2)));
                let total_us = values.next().map_or(0, number);
                averages.collect(at, &shares);
                time.collect(at, &[total_us / 1000]);
            }
        }
        After::Again
    }
}

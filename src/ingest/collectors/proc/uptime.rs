//! /proc/uptime: how long the machine has been up.

use super::Source;
use crate::base::sys;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Row, Site, When, absolute};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::procfile::{ProcFile, fixed_point, words};
use crate::ingest::collectors::setup::Setup;

pub const NAME: &str = "/proc/uptime";
const SECTION: &str = "plugin:proc:/proc/uptime";

/// When the file and the clock differ by more, they tell of different machines: a container with its own file.
const SAME_WITHIN_MS: i64 = 1000;

static UPTIME: ChartDef = ChartDef {
    id: "system.uptime",
    title: "Time since the machine was started",
    units: "seconds",
    family: "uptime",
    priority: 1000,
    dims: &[absolute("uptime").scaled(1, 1000)],
    ..CHART
};

struct Uptime {
    site: Site,
    row: Row,
    /// `None`: the clock of the kernel says the same and is cheaper to ask.
    file: Option<ProcFile>,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let mut file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let in_file = read(&mut file, &mut Vec::new())?;
    let apart = sys::uptime_ms().map(|clock| (clock - in_file).abs());
    let file = match apart {
        Some(apart) if apart <= SAME_WITHIN_MS => {
            log::info!("Using now_boottime_usec() for uptime (dt is {apart} ms)");
            None
        }
        apart => {
            log::info!("Using /proc/uptime for uptime (dt is {} ms)", apart.unwrap_or_default());
            Some(file)
        }
    };
    let row = Row::new(&UPTIME, When::Always);
    Some(Box::new(Uptime { site: setup.proc_site(NAME), row, file }))
}

fn read(file: &mut ProcFile, buffer: &mut Vec<u8>) -> Option<i64> {
    words(file.read(buffer)?).next().map(|word| fixed_point(word, 3))
}

impl Source for Uptime {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let uptime = match &mut self.file {
            Some(file) => read(file, tick.buffer),
            None => sys::uptime_ms(),
        };
        if let Some(uptime) = uptime {
            self.row.collect(At::new(&self.site, tick.now), &[uptime]);
        }
        After::Again
    }
}

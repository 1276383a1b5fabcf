//! /proc/sys/kernel/random/entropy_avail: what the kernel's pool of randomness holds.

use super::Source;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Row, Site, When, absolute};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::procfile::{ProcFile, number};
use crate::ingest::collectors::setup::Setup;

pub const NAME: &str = "/proc/sys/kernel/random/entropy_avail";
const SECTION: &str = "plugin:proc:/proc/sys/kernel/random/entropy_avail";

static ENTROPY: ChartDef = ChartDef {
    id: "system.entropy",
    title: "Randomness at hand",
    units: "entropy",
    family: "entropy",
    priority: 1000,
    dims: &[absolute("entropy")],
    ..CHART
};

struct Entropy {
    site: Site,
    file: ProcFile,
    row: Row,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let row = Row::new(&ENTROPY, When::Always);
    Some(Box::new(Entropy { site: setup.proc_site(NAME), file, row }))
}

impl Source for Entropy {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        self.row.collect(At::new(&self.site, tick.now), &[number(text)]);
        After::Again
    }
}

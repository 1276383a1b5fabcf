//! /proc/vmstat: paging, swapping, page faults, processes killed for memory.

use super::Source;
use crate::config::OnDemand;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Row, Site, incremental};
use crate::ingest::collectors::keyed::{Keys, LineLayout};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::procfile::ProcFile;
use crate::ingest::collectors::setup::Setup;
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/vmstat";
const SECTION: &str = "plugin:proc:/proc/vmstat";

const KEYS: &[&str] =
    &["pswpin", "pswpout", "pgpgin", "pgpgout", "pgfault", "pgmajfault", "oom_kill"];
const SWAPPED_IN: usize = 0;
const SWAPPED_OUT: usize = 1;
const PAGED_IN: usize = 2;
const PAGED_OUT: usize = 3;
const FAULTS: usize = 4;
const MAJOR_FAULTS: usize = 5;
const KILLS: usize = 6;

static SWAP: ChartDef = ChartDef {
    id: "system.swapio",
    title: "Memory moved to and from swap",
    units: "KiB/s",
    family: "swap",
    chart_type: ChartType::Area,
    priority: 250,
    dims: &[incremental("in").in_pages(), incremental("out").in_pages().negative()],
    ..CHART
};

static PAGING: ChartDef = ChartDef {
    id: "system.pgpgio",
    title: "Memory paged from and to disks",
    units: "KiB/s",
    family: "disk",
    chart_type: ChartType::Area,
    priority: 151,
    dims: &[incremental("in"), incremental("out").negative()],
    ..CHART
};

static PAGE_FAULTS: ChartDef = ChartDef {
    id: "mem.pgfaults",
    title: "Accesses to pages that were not in place",
    units: "faults/s",
    family: "system",
    priority: 1040,
    detail: true,
    dims: &[incremental("minor"), incremental("major").negative()],
    ..CHART
};

static OOM_KILLS: ChartDef = ChartDef {
    id: "mem.oom_kill",
    title: "Processes killed for want of memory",
    units: "kills/s",
    family: "system",
    priority: 1020,
    detail: true,
    dims: &[incremental("kills")],
    ..CHART
};

struct VmStat {
    site: Site,
    file: ProcFile,
    keys: Keys,
    layout: LineLayout,
    swap: Row,
    paging: Row,
    faults: Row,
    kills: Row,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    Some(Box::new(VmStat {
        site: setup.proc_site(NAME),
        file,
        keys: Keys::new(KEYS),
        layout: LineLayout::default(),
        swap: Row::new(&SWAP, setup.when(SECTION, "swap i/o", OnDemand::Auto)),
        paging: Row::new(&PAGING, setup.switch(SECTION, "disk i/o")),
        faults: Row::new(&PAGE_FAULTS, setup.switch(SECTION, "memory page faults")),
        kills: Row::new(&OOM_KILLS, setup.switch(SECTION, "out of memory kills")),
    }))
}

impl Source for VmStat {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        self.layout.read(text, &mut self.keys);
        let at = At::new(&self.site, tick.now);
        let keys = &self.keys;
        self.swap.collect(at, &[keys.get(SWAPPED_IN), keys.get(SWAPPED_OUT)]);
        self.paging.collect(at, &[keys.get(PAGED_IN), keys.get(PAGED_OUT)]);
        self.faults.collect(at, &[keys.get(FAULTS), keys.get(MAJOR_FAULTS)]);
        if let Some(kills) = keys.find(KILLS) {
            self.kills.collect(at, &[kills]);
        }
        After::Again
    }
}

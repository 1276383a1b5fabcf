//! /proc/softirqs: soft interrupts by kind, and by processor.

use super::Source;
use crate::config::OnDemand;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Site};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::matrix::Matrix;
use crate::ingest::collectors::procfile::ProcFile;
use crate::ingest::collectors::setup::Setup;
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/softirqs";
const SECTION: &str = "plugin:proc:/proc/softirqs";

static TOTAL: ChartDef = ChartDef {
    id: "system.softirqs",
    title: "Soft interrupts by kind",
    units: "softirqs/s",
    family: "softirqs",
    chart_type: ChartType::Stacked,
    priority: 950,
    ..CHART
};

static CORE: ChartDef = ChartDef {
    id: "cpu",
    title: "Soft interrupts of one processor by kind",
    units: "softirqs/s",
    family: "softirqs",
    context: "cpu.softirqs",
    chart_type: ChartType::Stacked,
    priority: 3000,
    ..CHART
};

struct SoftIrqs {
    site: Site,
    file: ProcFile,
    matrix: Matrix,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let per_core = setup.when(SECTION, "interrupts per core", OnDemand::Auto);
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let matrix = Matrix::new(&TOTAL, &CORE, per_core, "_softirqs", |tag, _| tag.to_owned());
    Some(Box::new(SoftIrqs { site: setup.proc_site(NAME), file, matrix }))
}

impl Source for SoftIrqs {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        if let Some(text) = self.file.read(tick.buffer) {
            self.matrix.collect(At::new(&self.site, tick.now), text);
        }
        After::Again
    }
}

//! /proc/net/softnet_stat: what the network's soft interrupts did, per processor.

use super::Source;
use crate::ingest::collectors::chart::{
    At, CHART, ChartDef, DimDef, Instance, Row, Site, When, incremental,
};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::procfile::{ProcFile, hexadecimal, lines, words};
use crate::ingest::collectors::setup::Setup;

pub const NAME: &str = "/proc/net/softnet_stat";
const SECTION: &str = "plugin:proc:/proc/net/softnet_stat";

/// Columns of the file that make the dimensions; older kernels lack the last ones.
const COLUMNS: [usize; 5] = [0, 1, 2, 9, 10];

const DIMS: &[DimDef] = &[
    incremental("processed"),
    incremental("dropped"),
    incremental("squeezed"),
    incremental("received_rps"),
    incremental("flow_limit_count"),
];

static TOTAL: ChartDef = ChartDef {
    id: "system.softnet_stat",
    title: "Network packets handled by soft interrupts",
    units: "events/s",
    family: "softnet_stat",
    priority: 955,
    dims: DIMS,
    ..CHART
};

static CORE: ChartDef = ChartDef {
    id: "cpu",
    title: "Network packets handled by soft interrupts of one processor",
    units: "events/s",
    family: "softnet_stat",
    context: "cpu.softnet_stat",
    priority: 4101,
    dims: DIMS,
    ..CHART
};

struct SoftNet {
    site: Site,
    file: ProcFile,
    total: Row,
    per_core: When,
    cores: Vec<(Instance, Row)>,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let per_core = setup.switch(SECTION, "softnet_stat per core");
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let total = Row::new(&TOTAL, When::Always);
    let site = setup.proc_site(NAME);
    Some(Box::new(SoftNet { site, file, total, per_core, cores: Vec::new() }))
}

impl Source for SoftNet {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        let at = At::new(&self.site, tick.now);
        let mut sums = [0; COLUMNS.len()];
        let mut known = 0;
        for (number, line) in lines(text).enumerate() {
            let mut values = [0; COLUMNS.len()];
            known = 0;
            for (column, word) in words(line).enumerate() {
                if known < COLUMNS.len() && column == COLUMNS[known] {
                    values[known] = hexadecimal(word);
                    sums[known] += values[known];
                    known += 1;
                }
            }
            if self.per_core == When::Never {
                continue;
            }
            if number == self.cores.len() {
                let id = format!("cpu{number}_softnet_stat");
                let shift = i64::try_from(number).unwrap_or(0);
                let instance = Instance { id, shift, ..Instance::default() };
                self.cores.push((instance, Row::new(&CORE, When::Always)));
            }
            let (instance, row) = &mut self.cores[number];
            row.collect(at.of(instance), &values[..known]);
        }
        if known > 0 {
            self.total.collect(at, &sums[..known]);
        }
        After::Again
    }
}

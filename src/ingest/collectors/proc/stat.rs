//! /proc/stat: time of the processors, interrupts, context switches, processes.

use super::Source;
use crate::ingest::collectors::chart::{
    At, CHART, ChartDef, DimDef, Instance, Row, Site, When, absolute, incremental, share,
};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::procfile::{ProcFile, lines, unsigned, words};
use crate::ingest::collectors::setup::Setup;
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/stat";
const SECTION: &str = "plugin:proc:/proc/stat";

const CPU_DIMS: &[DimDef] = &[
    share("guest_nice"),
    share("guest"),
    share("steal"),
    share("softirq"),
    share("irq"),
    share("user"),
    share("system"),
    share("nice"),
    share("iowait"),
    share("idle").hidden(),
];

static CPU: ChartDef = ChartDef {
    id: "system.cpu",
    title: "Time of all processors, by what they did",
    units: "percentage",
    family: "cpu",
    chart_type: ChartType::Stacked,
    priority: 100,
    dims: CPU_DIMS,
    ..CHART
};

static CORE: ChartDef = ChartDef {
    id: "cpu",
    title: "Time of one processor, by what it did",
    units: "percentage",
    family: "utilization",
    context: "cpu.cpu",
    chart_type: ChartType::Stacked,
    priority: 1001,
    dims: CPU_DIMS,
    ..CHART
};

static INTERRUPTS: ChartDef = ChartDef {
    id: "system.intr",
    title: "Interrupts served",
    units: "interrupts/s",
    family: "interrupts",
    priority: 900,
    detail: true,
    dims: &[incremental("interrupts")],
    ..CHART
};

static SWITCHES: ChartDef = ChartDef {
    id: "system.ctxt",
    title: "Switches between tasks",
    units: "context switches/s",
    family: "processes",
    priority: 800,
    dims: &[incremental("switches")],
    ..CHART
};

static FORKS: ChartDef = ChartDef {
    id: "system.forks",
    title: "Processes and threads started",
    units: "processes/s",
    family: "processes",
    priority: 700,
    detail: true,
    dims: &[incremental("started")],
    ..CHART
};

static PROCESSES: ChartDef = ChartDef {
    id: "system.processes",
    title: "Tasks that run or wait for a disk",
    units: "processes",
    family: "processes",
    priority: 600,
    dims: &[absolute("running"), absolute("blocked").negative()],
    ..CHART
};

struct Stat {
    site: Site,
    file: ProcFile,
    cpu: Row,
    per_core: When,
    cores: Vec<Core>,
    /// Processors seen at the last reading.
    online: usize,
    interrupts: Row,
    switches: Row,
    forks: Row,
    processes: Row,
}

struct Core {
    number: u64,
    instance: Instance,
    row: Row,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let switch = |option| setup.switch(SECTION, option);
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    Some(Box::new(Stat {
        site: setup.proc_site(NAME),
        file,
        cpu: Row::new(&CPU, switch("cpu utilization")),
        per_core: switch("per cpu core utilization"),
        cores: Vec::new(),
        online: 0,
        interrupts: Row::new(&INTERRUPTS, switch("cpu interrupts")),
        switches: Row::new(&SWITCHES, switch("context switches")),
        forks: Row::new(&FORKS, switch("processes started")),
        processes: Row::new(&PROCESSES, switch("processes running")),
    }))
}

impl Source for Stat {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        let at = At::new(&self.site, tick.now);
        let mut cores = 0;
        let (mut running, mut blocked) = (0, 0);
        for line in lines(text) {
            let mut words = words(line);
            let Some(key) = words.next() else { continue };
            match key {
                b"cpu" => {
                    self.cpu.collect(at, &times(words));
                }
                [b'c', b'p', b'u', number @ ..] => {
                    cores += 1;
                    if self.per_core == When::Always {
                        let core = core(&mut self.cores, cores - 1, unsigned(number));
                        core.row.collect(at.of(&core.instance), &times(words));
                    }
                }
                b"intr" => {
                    self.interrupts.collect(at, &[words.number()]);
                }
                b"ctxt" => {
                    self.switches.collect(at, &[words.number()]);
                }
                b"processes" => {
                    self.forks.collect(at, &[words.number()]);
                }
                b"procs_running" => running = words.number(),
                b"procs_blocked" => blocked = words.number(),
                _ => {}
            }
        }
        self.processes.collect(at, &[running, blocked]);
        if cores != self.online {
            self.online = cores;
            #[expect(clippy::cast_precision_loss, reason = "a count of processors")]
            self.site.host.set_variable("active_processors", cores as f64);
        }
        After::Again
    }
}

/// The values of [`CPU_DIMS`] from the columns of the kernel, which counts time of guests twice.
fn times(mut words: crate::ingest::collectors::procfile::Words<'_>) -> [i64; 10] {
    let [user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice] =
        [(); 10].map(|()| words.number());
    let (user, nice) = (user.wrapping_sub(guest), nice.wrapping_sub(guest_nice));
    [guest_nice, guest, steal, softirq, irq, user, system, nice, iowait, idle]
}

/// The processor of a number; the file lists them in order, with holes where some are off line.
fn core(cores: &mut Vec<Core>, expected: usize, number: u64) -> &mut Core {
    let at = match cores.get(expected) {
        Some(core) if core.number == number => expected,
        _ => cores.partition_point(|core| core.number < number),
    };
    if cores.get(at).is_none_or(|core| core.number != number) {
        let instance = Instance {
            id: format!("cpu{number}"),
            shift: number.cast_signed(),
            ..Instance::default()
        };
        cores.insert(at, Core { number, instance, row: Row::new(&CORE, When::Always) });
    }
    &mut cores[at]
}

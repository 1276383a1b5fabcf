//! /proc/meminfo: what memory and swap are used for.

use super::Source;
use crate::config::OnDemand;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, DimDef, Row, Site, absolute};
use crate::ingest::collectors::keyed::{Keys, LineLayout};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::procfile::{ProcFile, lines, words};
use crate::ingest::collectors::setup::Setup;
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/meminfo";
const SECTION: &str = "plugin:proc:/proc/meminfo";

/// Statistics of the ZFS cache, which the kernel counts as used though it gives way like other caches.
const ARC: &str = "/proc/spl/kstat/zfs/arcstats";
const SECTION_ARC: &str = "plugin:proc:/proc/spl/kstat/zfs/arcstats";

/// The values wanted, in the order of [`KEYS`].
#[derive(Clone, Copy)]
enum Key {
    Total,
    Free,
    Available,
    Buffers,
    Cached,
    Shared,
    Reclaimable,
    Unreclaimable,
    SwapTotal,
    SwapFree,
    Committed,
    Dirty,
    Writeback,
    FuseWriteback,
    NfsWriteback,
    Bounce,
    Slab,
    Stacks,
    PageTables,
    Vmalloc,
    PerCpu,
}

const KEYS: &[&str] = &[
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "Shmem",
    "SReclaimable",
    "SUnreclaim",
    "SwapTotal",
    "SwapFree",
    "Committed_AS",
    "Dirty",
    "Writeback",
    "WritebackTmp",
    "NFS_Unstable",
    "Bounce",
    "Slab",
    "KernelStack",
    "PageTables",
    "VmallocUsed",
    "Percpu",
];

/// The kernel counts kilobytes, charts show MiB.
const fn mib(id: &'static str) -> DimDef {
    absolute(id).scaled(1, 1024)
}

static RAM: ChartDef = ChartDef {
    id: "system.ram",
    title: "Memory by use",
    units: "MiB",
    family: "ram",
    chart_type: ChartType::Stacked,
    priority: 200,
    dims: &[mib("free"), mib("used"), mib("cached"), mib("buffers")],
    ..CHART
};

static MEM_AVAILABLE: ChartDef = ChartDef {
    id: "mem.available",
    title: "Memory programs could have without swapping",
    units: "MiB",
    family: "system",
    chart_type: ChartType::Area,
    priority: 1010,
    dims: &[mib("MemAvailable").named("avail")],
    ..CHART
};

static SWAP: ChartDef = ChartDef {
    id: "system.swap",
    title: "Swap by use",
    units: "MiB",
    family: "swap",
    chart_type: ChartType::Stacked,
    priority: 201,
    detail: true,
    dims: &[mib("free"), mib("used")],
    ..CHART
};

static COMMITTED_MEMORY: ChartDef = ChartDef {
    id: "mem.committed",
    title: "Memory promised to programs",
    units: "MiB",
    family: "system",
    chart_type: ChartType::Area,
    priority: 1030,
    detail: true,
    dims: &[mib("Committed_AS")],
    ..CHART
};

static WRITEBACK_MEMORY: ChartDef = ChartDef {
    id: "mem.writeback",
    title: "Memory waiting to be written",
    units: "MiB",
    family: "kernel",
    priority: 1100,
    detail: true,
    dims: &[
        mib("Dirty"),
        mib("Writeback"),
        mib("FuseWriteback"),
        mib("NfsWriteback"),
        mib("Bounce"),
    ],
    ..CHART
};

static KERNEL: ChartDef = ChartDef {
    id: "mem.kernel",
    title: "Memory of the kernel",
    units: "MiB",
    family: "kernel",
    chart_type: ChartType::Stacked,
    priority: 1101,
    detail: true,
    dims: &[mib("Slab"), mib("KernelStack"), mib("PageTables"), mib("VmallocUsed"), mib("Percpu")],
    ..CHART
};

static SLABS: ChartDef = ChartDef {
    id: "mem.slab",
    title: "Memory of the kernel's small objects",
    units: "MiB",
    family: "slab",
    chart_type: ChartType::Stacked,
    priority: 1200,
    detail: true,
    dims: &[mib("reclaimable"), mib("unreclaimable")],
    ..CHART
};

struct MemInfo {
    site: Site,
    file: ProcFile,
    keys: Keys,
    layout: LineLayout,
    /// Only where ZFS is loaded.
    arc: Option<ProcFile>,
    ram: Row,
    available: Row,
    swap: Row,
    committed: Row,
    writeback: Row,
    kernel: Row,
    slabs: Row,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let row = |def, option| Row::new(def, setup.switch(SECTION, option));
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let arc = setup.path(SECTION_ARC, "filename to monitor", ARC);
    Some(Box::new(MemInfo {
        site: setup.proc_site(NAME),
        file,
        keys: Keys::new(KEYS),
        layout: LineLayout::default(),
        arc: ProcFile::open_if_there(arc),
        ram: row(&RAM, "system ram"),
        available: row(&MEM_AVAILABLE, "system ram"),
        swap: Row::new(&SWAP, setup.when(SECTION, "system swap", OnDemand::Auto)),
        committed: row(&COMMITTED_MEMORY, "committed memory"),
        writeback: row(&WRITEBACK_MEMORY, "writeback memory"),
        kernel: row(&KERNEL, "kernel memory"),
        slabs: row(&SLABS, "slab memory"),
    }))
}

impl Source for MemInfo {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let evictable = self.arc.as_mut().and_then(|file| file.read(tick.buffer)).map_or(0, arc_kb);
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        self.layout.read(text, &mut self.keys);
        let at = At::new(&self.site, tick.now);
        let kb = |key: Key| self.keys.get(key as usize);

        let cached = kb(Key::Cached) + kb(Key::Reclaimable) - kb(Key::Shared);
        let (free, buffers) = (kb(Key::Free), kb(Key::Buffers));
        let used = kb(Key::Total) - free - cached - buffers;
        self.ram.collect(at, &[free, used - evictable, cached + evictable, buffers]);
        if let Some(available) = self.keys.find(Key::Available as usize) {
            self.available.collect(at, &[available]);
        }
        let swap_free = kb(Key::SwapFree);
        self.swap.collect(at, &[swap_free, kb(Key::SwapTotal) - swap_free]);
        self.committed.collect(at, &[kb(Key::Committed)]);
        let writeback =
            [Key::Dirty, Key::Writeback, Key::FuseWriteback, Key::NfsWriteback, Key::Bounce];
        self.writeback.collect(at, &writeback.map(kb));
        let kernel = [Key::Slab, Key::Stacks, Key::PageTables, Key::Vmalloc, Key::PerCpu].map(kb);
        // Older kernels do not tell the last one.
        let known = 4 + usize::from(self.keys.find(Key::PerCpu as usize).is_some());
        self.kernel.collect(at, &kernel[..known]);
        self.slabs.collect(at, &[kb(Key::Reclaimable), kb(Key::Unreclaimable)]);
        After::Again
    }
}

/// Kilobytes of the ZFS cache above the size it never gives up. Lines are `name type bytes`.
fn arc_kb(text: &[u8]) -> i64 {
    let (mut size, mut least) = (0, 0);
    for line in lines(text) {
        let mut words = words(line);
        let target = match words.next() {
            Some(b"size") => &mut size,
            Some(b"c_min") => &mut least,
            _ => continue,
        };
        words.next();
        *target = words.number();
    }
    (size - least).max(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zfs_cache_counts_above_its_minimum() {
        let text = b"9 1 0x01\nname type data\nc_min 4 1048576\nsize 4 3145728\nc 4 9\n";
        assert_eq!(arc_kb(text), 2048);
        assert_eq!(arc_kb(b"size 4 10\nc_min 4 20\n"), 0);
    }
}

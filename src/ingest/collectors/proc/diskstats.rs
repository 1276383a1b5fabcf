//! /proc/diskstats: operations, traffic and load of disks.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Source;
use crate::base::pattern::SimplePattern;
use crate::base::sys;
use crate::config::OnDemand;
use crate::ingest::collectors::chart::{
    At, CHART, ChartDef, DimDef, Instance, Row, Site, When, absolute, incremental,
};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::mounts;
use crate::ingest::collectors::procfile::{ProcFile, lines, read_once, unsigned, words};
use crate::ingest::collectors::setup::{Setup, fill};
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/diskstats";
const SECTION: &str = "plugin:proc:/proc/diskstats";

/// Disks followed; more are not looked at.
const DISKS_MAX: usize = 16_384;

/// The kernel counts in sectors of this size, whatever the disk has.
const SECTOR: i64 = 512;

static TOTAL: ChartDef = ChartDef {
    id: "system.io",
    title: "Traffic of all physical disks",
    units: "KiB/s",
    family: "disk",
    chart_type: ChartType::Area,
    priority: 150,
    dims: &[incremental("in"), incremental("out").negative()],
    ..CHART
};

const READS_WRITES: &[DimDef] = &[incremental("reads"), incremental("writes").negative()];

const DISCARDS_FLUSHES: &[DimDef] = &[incremental("discards"), incremental("flushes")];

const fn area(
    id: &'static str,
    title: &'static str,
    units: &'static str,
    context: &'static str,
    priority: i64,
    dims: &'static [DimDef],
) -> ChartDef {
    ChartDef { id, title, units, context, priority, chart_type: ChartType::Area, dims, ..CHART }
}

const fn line(
    id: &'static str,
    title: &'static str,
    units: &'static str,
    context: &'static str,
    priority: i64,
    dims: &'static [DimDef],
) -> ChartDef {
    ChartDef { id, title, units, context, priority, detail: true, dims, ..CHART }
}

static IO: ChartDef = area(
    "disk",
    "Traffic",
    "KiB/s",
    "disk.io",
    2000,
    &[
        incremental("reads").scaled(SECTOR, 1024),
        incremental("writes").scaled(SECTOR, 1024).negative(),
    ],
);

static EXT_IO: ChartDef = area(
    "disk_ext",
    "Traffic of discards",
    "KiB/s",
    "disk_ext.io",
    2001,
    &[incremental("discards").scaled(SECTOR, 1024)],
);

static OPS: ChartDef =
    line("disk_ops", "Operations completed", "operations/s", "disk.ops", 2010, READS_WRITES);

static EXT_OPS: ChartDef = line(
    "disk_ext_ops",
    "Discards and flushes completed",
    "operations/s",
    "disk_ext.ops",
    2011,
    DISCARDS_FLUSHES,
);

static QUEUED: ChartDef = line(
    "disk_qops",
    "Operations under way",
    "operations",
    "disk.qops",
    2015,
    &[absolute("operations")],
);

static BACKLOG: ChartDef = ChartDef {
    detail: true,
    ..area(
        "disk_backlog",
        "Time that operations under way have waited",
        "milliseconds",
        "disk.backlog",
        2020,
        &[incremental("backlog")],
    )
};

static BUSY: ChartDef = ChartDef {
    detail: true,
    ..area(
        "disk_busy",
        "Time with operations under way",
        "milliseconds",
        "disk.busy",
        2030,
        &[incremental("busy")],
    )
};

static UTIL: ChartDef = ChartDef {
    detail: true,
    ..area(
        "disk_util",
        "Share of time with operations under way",
        "% of time working",
        "disk.util",
        2040,
        &[absolute("utilization")],
    )
};

static AWAIT: ChartDef = line(
    "disk_await",
    "Time an operation took, from request to completion",
    "milliseconds/operation",
    "disk.await",
    2050,
    &[absolute("reads"), absolute("writes").negative()],
);

static EXT_AWAIT: ChartDef = line(
    "disk_ext_await",
    "Time a discard or flush took, from request to completion",
    "milliseconds/operation",
    "disk_ext.await",
    2051,
    &[absolute("discards"), absolute("flushes")],
);

static SIZE: ChartDef = ChartDef {
    detail: true,
    ..area(
        "disk_avgsz",
        "Size of an operation",
        "KiB/operation",
        "disk.avgsz",
        2060,
        &[
            absolute("reads").scaled(SECTOR, 1024),
            absolute("writes").scaled(SECTOR, 1024).negative(),
        ],
    )
};

static EXT_SIZE: ChartDef = ChartDef {
    detail: true,
    ..area(
        "disk_ext_avgsz",
        "Size of a discard",
        "KiB/operation",
        "disk_ext.avgsz",
        2060,
        &[absolute("discards").scaled(SECTOR, 1024)],
    )
};

static SERVICE: ChartDef = line(
    "disk_svctm",
    "Busy time per operation",
    "milliseconds/operation",
    "disk.svctm",
    2070,
    &[absolute("svctm")],
);

static MERGED: ChartDef = line(
    "disk_mops",
    "Operations merged with others",
    "merged operations/s",
    "disk.mops",
    2080,
    READS_WRITES,
);

static EXT_MERGED: ChartDef = line(
    "disk_ext_mops",
    "Discards merged with others",
    "merged operations/s",
    "disk_ext.mops",
    2081,
    &[incremental("discards")],
);

static IO_TIME: ChartDef = line(
    "disk_iotime",
    "Time of all operations added up",
    "milliseconds/s",
    "disk.iotime",
    2090,
    READS_WRITES,
);

static EXT_IO_TIME: ChartDef = line(
    "disk_ext_iotime",
    "Time of all discards and flushes added up",
    "milliseconds/s",
    "disk_ext.iotime",
    2091,
    DISCARDS_FLUSHES,
);

/// Groups of charts that are switched, and come into being, together.
#[derive(Clone, Copy)]
enum Group {
    Io,
    Ops,
    Merged,
    IoTime,
    Queued,
    Util,
    Ext,
    Backlog,
}

/// Options of the groups, for all disks and for one, in the order of [`Group`].
const GROUPS: [(&str, &str); 8] = [
    ("bandwidth for all disks", "bandwidth"),
    ("operations for all disks", "operations"),
    ("merged operations for all disks", "merged operations"),
    ("i/o time for all disks", "i/o time"),
    ("queued operations for all disks", "queued operations"),
    ("utilization percentage for all disks", "utilization percentage"),
    ("extended operations for all disks", "extended operations"),
    ("backlog for all disks", "backlog"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Physical,
    Partition,
    Virtual,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Unknown => "unknown",
            Kind::Physical => "physical",
            Kind::Partition => "partition",
            Kind::Virtual => "virtual",
        }
    }
}

/// One line of the file: the columns after the name. Older kernels leave the last ones out.
#[derive(Clone, Copy, Default)]
struct Counters {
    reads: i64,
    merged_reads: i64,
    read_sectors: i64,
    read_ms: i64,
    writes: i64,
    merged_writes: i64,
    written_sectors: i64,
    write_ms: i64,
    queued: i64,
    busy_ms: i64,
    backlog_ms: i64,
    discards: i64,
    merged_discards: i64,
    discarded_sectors: i64,
    discard_ms: i64,
    flushes: i64,
    flush_ms: i64,
}

struct DiskStats {
    setup: Setup,
    site: Site,
    file: ProcFile,
    options: Options,
    disks: Vec<Disk>,
    total: Row,
}

struct Options {
    block_path: String,
    virtual_path: String,
    infos_path: String,
    mapper_dir: PathBuf,
    label_dir: PathBuf,
    id_dir: PathBuf,
    veritas_dir: PathBuf,
    names_by_id: bool,
    preferred_ids: SimplePattern,
    excluded: SimplePattern,
    new_disks: bool,
    physical: OnDemand,
    virtuals: OnDemand,
    partitions: OnDemand,
    groups: [OnDemand; 8],
    obsolete_removed: bool,
}

struct Disk {
    device: Box<[u8]>,
    seen: bool,
    is_physical: bool,
    /// `None`: switched off.
    live: Option<Box<Live>>,
}

struct Live {
    instance: Instance,
    io: Row,
    ext_io: Row,
    ops: Row,
    ext_ops: Row,
    merged: Row,
    ext_merged: Row,
    time: Row,
    ext_time: Row,
    queued: Row,
    backlog: Row,
    busy: Row,
    util: Row,
    wait: Row,
    ext_wait: Row,
    size: Row,
    ext_size: Row,
    service: Row,
    last: Option<Counters>,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let config = &setup.config;
    let file = setup.path(SECTION, "filename to monitor", NAME);
    let auto = |option| config.on_demand(SECTION, option, OnDemand::Auto);
    let template = |option, default| setup.template(SECTION, option, default);
    let dir = |option, default: &str| config.path(SECTION, option, default);
    let options = Options {
        new_disks: config.boolean(SECTION, "enable new disks detected at runtime", true),
        physical: auto("performance metrics for physical disks"),
        virtuals: auto("performance metrics for virtual disks"),
        partitions: config.on_demand(SECTION, "performance metrics for partitions", OnDemand::No),
        groups: GROUPS.map(|(option, _)| auto(option)),
        obsolete_removed: config.boolean(SECTION, "remove charts of removed disks", true),
        block_path: template("path to get block device", "/sys/block/%s"),
        virtual_path: template("path to get virtual block device", "/sys/devices/virtual/block/%s"),
        infos_path: template("path to get block device infos", "/sys/dev/block/%lu:%lu/%s"),
        mapper_dir: dir("path to device mapper", "/dev/mapper"),
        label_dir: dir("path to /dev/disk/by-label", "/dev/disk/by-label"),
        id_dir: dir("path to /dev/disk/by-id", "/dev/disk/by-id"),
        veritas_dir: dir("path to /dev/vx/dsk", "/dev/vx/dsk"),
        names_by_id: config.boolean(SECTION, "name disks by id", false),
        preferred_ids: SimplePattern::new(&config.string(SECTION, "preferred disk ids", "*")),
        excluded: SimplePattern::new(&config.string(SECTION, "exclude disks", "loop* ram*")),
    };
    let total = Row::new(&TOTAL, When::of(options.groups[Group::Io as usize], setup.zero_metrics));
    Some(Box::new(DiskStats {
        setup: setup.clone(),
        site: setup.proc_site(NAME),
        file: ProcFile::open(file)?,
        options,
        disks: Vec::new(),
        total,
    }))
}

impl Source for DiskStats {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        let at = At::new(&self.site, tick.now);
        for disk in &mut self.disks {
            disk.seen = false;
        }
        let (mut kb_in, mut kb_out) = (0i64, 0i64);
        let mut expected = 0;
        for line in lines(text) {
            let mut words = words(line);
            let (Some(major), Some(minor), Some(device)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let known = match self.disks.get(expected) {
                Some(disk) if *disk.device == *device => Some(expected),
                _ => self.disks.iter().position(|disk| *disk.device == *device),
            };
            let index = match known {
                Some(index) => index,
                None if self.disks.len() >= DISKS_MAX => continue,
                None => {
                    let numbers = (unsigned(major), unsigned(minor));
                    let disk = self.options.disk(&self.setup, numbers, device);
                    let index = expected.min(self.disks.len());
                    self.disks.insert(index, disk);
                    index
                }
            };
            expected = index + 1;
            let disk = &mut self.disks[index];
            disk.seen = true;
            let Some(live) = &mut disk.live else { continue };
            let [
                reads,
                merged_reads,
                read_sectors,
                read_ms,
                writes,
                merged_writes,
                written_sectors,
                write_ms,
                queued,
                busy_ms,
                backlog_ms,
                discards,
                merged_discards,
                discarded_sectors,
                discard_ms,
                flushes,
                flush_ms,
            ] = [(); 17].map(|()| words.number());
            let counters = Counters {
                reads,
                merged_reads,
                read_sectors,
                read_ms,
                writes,
                merged_writes,
                written_sectors,
                write_ms,
                queued,
                busy_ms,
                backlog_ms,
                discards,
                merged_discards,
                discarded_sectors,
                discard_ms,
                flushes,
                flush_ms,
            };
            if disk.is_physical {
                kb_in += read_sectors.wrapping_mul(SECTOR) / 1024;
                kb_out += written_sectors.wrapping_mul(SECTOR) / 1024;
            }
            live.collect(at, &counters);
        }
        if self.disks.iter().any(|disk| !disk.seen) {
            let remove = self.options.obsolete_removed;
            self.disks.retain(|disk| {
                if let (false, true, Some(live)) = (disk.seen, remove, &disk.live) {
                    live.rows().into_iter().for_each(Row::obsolete);
                }
                disk.seen
            });
        }
        self.total.collect(at, &[kb_in, kb_out]);
        After::Again
    }
}

impl Options {
    /// Asks for the options of a disk that has just come.
    fn disk(&self, setup: &Setup, numbers: (u64, u64), bytes: &[u8]) -> Disk {
        let device = String::from_utf8_lossy(bytes).into_owned();
        let config = &setup.config;
        let kind = self.kind(numbers, &device);
        let name = self.name(numbers, &device);
        let section = format!("{SECTION}:{device}");
        let excluded = self.excluded.matches(&device) || self.excluded.matches(&name);
        let enabled = config.boolean(&section, "enable", self.new_disks && !excluded);
        let live = enabled.then(|| {
            let major = format!("performance metrics for disks with major {}", numbers.0);
            let of_kind = match kind {
                _ if !config.boolean(SECTION, &major, true) => OnDemand::No,
                Kind::Physical | Kind::Unknown => self.physical,
                Kind::Virtual => self.virtuals,
                Kind::Partition => self.partitions,
            };
            let wanted = of_kind != OnDemand::No;
            let wanted = config.boolean(&section, "enable performance metrics", wanted);
            let mut whens = [When::Never; 8];
            for (i, (_, option)) in GROUPS.iter().enumerate() {
                let default = if wanted { self.groups[i] } else { OnDemand::No };
                whens[i] = setup.when(&section, option, default);
            }
            let point = mount_point(setup, numbers);
            let instance = Instance {
                labels: vec![
                    ("device", device.clone()),
                    ("mount_point", point.clone().unwrap_or_default()),
                    ("device_type", kind.name().to_owned()),
                ],
                family: point.unwrap_or_else(|| name.clone()),
                id: device.clone(),
                name,
                shift: 0,
            };
            Box::new(Live::new(instance, |group| whens[group as usize]))
        });
        Disk { device: bytes.into(), seen: false, is_physical: kind == Kind::Physical, live }
    }

    fn kind(&self, (major, minor): (u64, u64), device: &str) -> Kind {
        // The kernel writes the slashes of names like cciss/c0d0 as exclamation marks there.
        let device = device.replace('/', "!");
        let info = |file: &str| {
            let path = self.infos_path.replacen("%lu", &major.to_string(), 1);
            fill(&path.replacen("%lu", &minor.to_string(), 1), file)
        };
        if fill(&self.block_path, &device).exists() {
            match fill(&self.virtual_path, &device).exists() {
                true => Kind::Virtual,
                false => Kind::Physical,
            }
        } else if info("partition").exists() {
            Kind::Partition
        } else {
            Kind::Unknown
        }
    }

    /// The name of the device mapper or of Veritas, the label or id where there is one, else that of the device.
    fn name(&self, numbers: (u64, u64), device: &str) -> String {
        let own = find_device(&self.mapper_dir, numbers, &SimplePattern::new("*"))
            .or_else(|| find_device(&self.label_dir, numbers, &SimplePattern::new("*")))
            .or_else(|| {
                let by_id = self.names_by_id.then_some(&self.preferred_ids)?;
                find_device(&self.id_dir, numbers, by_id)
            })
            .or_else(|| find_veritas(&self.veritas_dir, numbers));
        own.map_or_else(|| device.to_owned(), |name| name.replace('/', "_"))
    }
}

/// Where the file system of a device is mounted, if it is.
fn mount_point(setup: &Setup, (major, minor): (u64, u64)) -> Option<String> {
    let mut buffer = Vec::new();
    let path = setup.prefixed("/proc/self/mountinfo");
    let length = read_once(Path::new(&path), &mut buffer).ok()?;
    let mounts = mounts::parse(&buffer[..length]);
    let here = |mount: &&mounts::Mount| (mount.major, mount.minor) == (major, minor);
    let found = mounts.iter().find(here)?;
    Some(found.point.to_string_lossy().into_owned())
}

/// The entry of a directory that leads to the block device of these numbers.
fn find_device(dir: &Path, (major, minor): (u64, u64), wanted: &SimplePattern) -> Option<String> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let Ok(about) = fs::metadata(entry.path()) else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if about.file_type().is_block_device()
            && sys::device_numbers(about.rdev()) == (major, minor)
            && wanted.matches(&name)
        {
            return Some(name);
        }
    }
    None
}

/// Veritas keeps its devices in a directory per group.
fn find_veritas(dir: &Path, numbers: (u64, u64)) -> Option<String> {
    for group in fs::read_dir(dir).ok()?.flatten() {
        if let Some(name) = find_device(&group.path(), numbers, &SimplePattern::new("*")) {
            return Some(format!("{}_{name}", group.file_name().to_string_lossy()));
        }
    }
    None
}

impl Live {
    fn new(instance: Instance, when: impl Fn(Group) -> When) -> Live {
        // Charts of discards and flushes come with those of reads and writes.
        let both = |group| if when(Group::Ext) == When::Never { When::Never } else { when(group) };
        let derived = |a: Group, b: Group| match (when(a), when(b)) {
            (When::Never, _) | (_, When::Never) => When::Never,
            _ => When::Always,
        };
        let derived_ext = |a, b| match when(Group::Ext) {
            When::Never => When::Never,
            _ => derived(a, b),
        };
        Live {
            instance,
            io: Row::new(&IO, when(Group::Io)),
            ext_io: Row::new(&EXT_IO, both(Group::Io)),
            ops: Row::new(&OPS, when(Group::Ops)),
            ext_ops: Row::new(&EXT_OPS, both(Group::Ops)),
            merged: Row::new(&MERGED, when(Group::Merged)),
            ext_merged: Row::new(&EXT_MERGED, both(Group::Merged)),
            time: Row::new(&IO_TIME, when(Group::IoTime)),
            ext_time: Row::new(&EXT_IO_TIME, both(Group::IoTime)),
            queued: Row::new(&QUEUED, when(Group::Queued)),
            backlog: Row::new(&BACKLOG, when(Group::Backlog)),
            busy: Row::new(&BUSY, when(Group::Util)),
            util: Row::new(&UTIL, when(Group::Util)),
            wait: Row::new(&AWAIT, derived(Group::Ops, Group::IoTime)),
            ext_wait: Row::new(&EXT_AWAIT, derived_ext(Group::Ops, Group::IoTime)),
            size: Row::new(&SIZE, derived(Group::Ops, Group::Io)),
            ext_size: Row::new(&EXT_SIZE, derived_ext(Group::Ops, Group::Io)),
            service: Row::new(&SERVICE, derived(Group::Ops, Group::Util)),
            last: None,
        }
    }

    fn collect(&mut self, at: At<'_>, now: &Counters) {
        let every = at.site.every.seconds();
        let at = at.of(&self.instance);
        let last = self.last.replace(*now);
        let grown = |of: fn(&Counters) -> i64| {
            last.as_ref().map_or(0, |last| of(now).wrapping_sub(of(last)).max(0))
        };

        let sectors = [now.read_sectors, now.written_sectors, now.discarded_sectors];
        let io = both(at, &mut self.io, &mut self.ext_io, &sectors[..2], &sectors[2..]);
        let ops = [now.reads, now.writes, now.discards, now.flushes];
        let ops = both(at, &mut self.ops, &mut self.ext_ops, &ops[..2], &ops[2..]);
        self.queued.collect(at, &[now.queued]);
        self.backlog.collect(at, &[now.backlog_ms]);
        // A disk that never was busy has no utilization to show either.
        let busy = self.busy.collect(at, &[now.busy_ms]);
        if busy {
            self.util.want();
        }
        let percent = grown(|c| c.busy_ms) / (10 * every);
        self.util.collect(at, &[percent.min(100)]);
        let merged = [now.merged_reads, now.merged_writes, now.merged_discards];
        both(at, &mut self.merged, &mut self.ext_merged, &merged[..2], &merged[2..]);
        let times = [now.read_ms, now.write_ms, now.discard_ms, now.flush_ms];
        let time = both(at, &mut self.time, &mut self.ext_time, &times[..2], &times[2..]);

        // The charts below compare two readings.
        if last.is_none() {
            return;
        }
        let reads = grown(|c| c.reads);
        let writes = grown(|c| c.writes);
        let discards = grown(|c| c.discards);
        let flushes = grown(|c| c.flushes);
        let per = |amount: i64, count: i64| if count == 0 { 0 } else { amount / count };
        if time && ops {
            let (read_ms, write_ms) = (grown(|c| c.read_ms), grown(|c| c.write_ms));
            let (discard_ms, flush_ms) = (grown(|c| c.discard_ms), grown(|c| c.flush_ms));
            self.wait.collect(at, &[per(read_ms, reads), per(write_ms, writes)]);
            self.ext_wait.collect(at, &[per(discard_ms, discards), per(flush_ms, flushes)]);
        }
        if io && ops {
            let (read, written) = (grown(|c| c.read_sectors), grown(|c| c.written_sectors));
            self.size.collect(at, &[per(read, reads), per(written, writes)]);
            self.ext_size.collect(at, &[per(grown(|c| c.discarded_sectors), discards)]);
        }
        if busy && ops {
            self.service.collect(at, &[per(grown(|c| c.busy_ms), reads + writes)]);
        }
    }

    fn rows(&self) -> [&Row; 17] {
        [
            &self.io,
            &self.ext_io,
            &self.ops,
            &self.ext_ops,
            &self.merged,
            &self.ext_merged,
            &self.time,
            &self.ext_time,
            &self.queued,
            &self.backlog,
            &self.busy,
            &self.util,
            &self.wait,
            &self.ext_wait,
            &self.size,
            &self.ext_size,
            &self.service,
        ]
    }
}

/// Two charts of which one has something to show as soon as the other has.
fn both(at: At<'_>, row: &mut Row, ext: &mut Row, values: &[i64], ext_values: &[i64]) -> bool {
    if (row.chart().is_none() || ext.chart().is_none())
        && (row.would_show(values) || ext.would_show(ext_values))
    {
        row.want();
        ext.want();
    }
    let shown = row.collect(at, values);
    ext.collect(at, ext_values);
    shown
}

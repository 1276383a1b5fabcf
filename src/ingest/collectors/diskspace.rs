//! diskspace.plugin: how full the mounted file systems are.
//!
//! One task looks for mounts now and then; each mount is a task of its own, as asking a file system on another machine
//! may take for ever (see [`super::lanes`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::chart::{At, CHART, ChartDef, DimDef, Instance, Row, Site, absolute};
use super::lanes::{After, Pace, Pool, Task, Tick};
use super::mounts::{self, Mount};
use super::procfile::ProcFile;
use super::setup::Setup;
use crate::base::pattern::SimplePattern;
use crate::base::sys;
use crate::base::time::UpdateEvery;
use crate::config::OnDemand;
use crate::metrics::{Algorithm, ChartType, Collected, Dim, DimensionOptions, DimensionSpec};

const SECTION: &str = "plugin:proc:diskspace";

static SPACE: ChartDef = ChartDef {
    id: "disk_space",
    title: "Space of the file system",
    units: "GiB",
    context: "disk.space",
    chart_type: ChartType::Stacked,
    priority: 2023,
    ..CHART
};

static INODES: ChartDef = ChartDef {
    id: "disk_inodes",
    title: "Files the file system has and could have",
    units: "inodes",
    context: "disk.inodes",
    chart_type: ChartType::Stacked,
    priority: 2024,
    dims: INODE_DIMS,
    ..CHART
};

const INODE_DIMS: &[DimDef] = &[
    absolute("avail"),
    absolute("used"),
    absolute("reserved_for_root").named("reserved for root"),
];

const GIB: i64 = 1 << 30;

/// Finds mounts and makes a task for each.
struct Scan {
    setup: Setup,
    pool: Weak<Pool>,
    file: Option<ProcFile>,
    site: Site,
    pace: Pace,
    options: Options,
    mounts: BTreeMap<PathBuf, Followed>,
}

struct Options {
    excluded_paths: SimplePattern,
    excluded_kinds: SimplePattern,
    space: OnDemand,
    inodes: OnDemand,
    obsolete_unmounted: bool,
}

struct Followed {
    mount: Mount,
    gone: Arc<AtomicBool>,
}

/// Gives a pool the task that looks for mounts.
pub fn add_to(pool: &Arc<Pool>, setup: &Setup) {
    let config = &setup.config;
    let every = config.number(SECTION, "update every", 1).max(setup.every.seconds());
    let every = UpdateEvery::clamped(every);
    let auto = |option| config.on_demand(SECTION, option, OnDemand::Auto);
    let scan = Scan {
        pool: Arc::downgrade(pool),
        file: None,
        site: Site { every, ..setup.site("diskspace.plugin", "") },
        pace: Pace::new(UpdateEvery::clamped(
            config.number(SECTION, "check for new mount points every", 15).max(every.seconds()),
        )),
        options: Options {
            obsolete_unmounted: config.boolean(SECTION, "remove charts of unmounted disks", true),
            excluded_paths: SimplePattern::new(&config.string(
                SECTION,
                "exclude space metrics on paths",
                "/proc/* /sys/* /var/run/user/* /run/user/* /snap/* /var/lib/docker/*",
            )),
            excluded_kinds: SimplePattern::new(&config.string(
                SECTION,
                "exclude space metrics on filesystems",
                "*gvfs *gluster* *s3fs *ipfs *davfs2 *httpfs *sshfs *gdfs *moosefs fusectl autofs",
            )),
            space: auto("space usage for all disks"),
            inodes: auto("inodes usage for all disks"),
        },
        mounts: BTreeMap::new(),
        setup: setup.clone(),
    };
    pool.add(Box::new(scan));
}

impl Task for Scan {
    fn name(&self) -> Arc<str> {
        "mount points".into()
    }

    fn run(&mut self, tick: &mut Tick<'_>) -> After {
        if !self.pace.due(tick.now) {
            return After::Again;
        }
        if self.file.is_none() {
            let path = PathBuf::from(self.setup.prefixed("/proc/self/mountinfo"));
            self.file = ProcFile::open(path).map(ProcFile::with_long_lines);
        }
        let Some(file) = &mut self.file else { return After::Never };
        let Some(text) = file.read(tick.buffer) else { return After::Again };
        let now = mounts::parse(text);
        let (mounts, options) = (&mut self.mounts, &self.options);
        mounts.retain(|point, followed| {
            let still = now.iter().any(|mount| *mount == followed.mount && mount.point == *point);
            followed.gone.store(!still, Ordering::Relaxed);
            still
        });
        for mount in now {
            if mount.is_empty_kind || mounts.contains_key(&mount.point) {
                continue;
            }
            let gone = Arc::new(AtomicBool::new(false));
            if let Some(task) = options.task(&self.setup, &self.site, &mount, &gone)
                && let Some(pool) = self.pool.upgrade()
            {
                pool.add(Box::new(task));
            }
            mounts.insert(mount.point.clone(), Followed { mount, gone });
        }
        After::Again
    }
}

impl Options {
    fn task(
        &self,
        setup: &Setup,
        site: &Site,
        mount: &Mount,
        gone: &Arc<AtomicBool>,
    ) -> Option<MountTask> {
        let point = mount.point.to_string_lossy().into_owned();
        let excluded =
            self.excluded_paths.matches(&point) || self.excluded_kinds.matches(&mount.kind);
        let default = |wanted| if excluded { OnDemand::No } else { wanted };
        let section = format!("{SECTION}:{point}");
        let space = setup.when(&section, "space usage", default(self.space));
        let inodes = setup.when(&section, "inodes usage", default(self.inodes));
        let never = super::chart::When::Never;
        // What cannot be written to does not fill up.
        if mount.read_only || (space, inodes) == (never, never) {
            return None;
        }
        let id = point.clone();
        Some(MountTask {
            site: site.clone(),
            point: mount.point.clone(),
            instance: Instance {
                name: id.clone(),
                id,
                family: point.clone(),
                labels: vec![
                    ("mount_point", point.clone()),
                    ("filesystem", mount.kind.clone()),
                    ("mount_root", mount.root.to_string_lossy().into_owned()),
                ],
                shift: 0,
            },
            name: point.into(),
            space: Space { when: space, live: None },
            inodes: Row::new(&INODES, inodes),
            gone: Arc::clone(gone),
            pace: Pace::new(site.every),
            obsolete: self.obsolete_unmounted,
            checked: false,
            complained: false,
        })
    }
}

/// One file system.
struct MountTask {
    name: Arc<str>,
    site: Site,
    point: PathBuf,
    instance: Instance,
    space: Space,
    inodes: Row,
    gone: Arc<AtomicBool>,
    pace: Pace,
    obsolete: bool,
    /// It was seen to be a directory.
    checked: bool,
    complained: bool,
}

/// The chart of space counts in the file system's own unit, so its dimensions cannot be constants.
struct Space {
    when: super::chart::When,
    live: Option<(Collected, [Dim; 3], i64)>,
}

impl Task for MountTask {
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn may_be_slow(&self) -> bool {
        true
    }

    fn run(&mut self, tick: &mut Tick<'_>) -> After {
        if self.gone.load(Ordering::Relaxed) {
            if self.obsolete {
                self.inodes.obsolete();
                if let Some((chart, ..)) = &self.space.live {
                    chart.obsolete();
                }
            }
            return After::Never;
        }
        if !self.pace.due(tick.now) {
            return After::Again;
        }
        if !self.checked {
            // A single file can be a mount point too; its file system is shown elsewhere.
            if !self.point.is_dir() {
                return After::Never;
            }
            self.checked = true;
        }
        let usage = match sys::disk_usage(&self.point) {
            Ok(usage) => usage,
            Err(error) => {
                if !self.complained {
                    self.complained = true;
                    let errno = super::procfile::errno(&error);
                    log::error!("DISKSPACE: cannot ask the file system at '{}'{errno}", self.name);
                }
                return After::Again;
            }
        };
        self.complained = false;
        let at = At::new(&self.site, tick.now).of(&self.instance);
        let sys::DiskUsage { unit, blocks, free, available, files, free_files, available_files } =
            usage;
        let space = [available, blocks - free, free - available];
        self.space.collect(at, space, unit);
        let inodes = [available_files, files - free_files, free_files - available_files];
        self.inodes.collect(at, &inodes);
        After::Again
    }
}

impl Space {
    fn collect(&mut self, at: At<'_>, values: [i64; 3], unit: i64) {
        use super::chart::When;
        let shows = match self.when {
            When::Never => false,
            When::Always => true,
            When::NonZero => values.iter().any(|&value| value != 0),
        };
        if self.live.as_ref().is_none_or(|(.., known)| *known != unit) {
            if !(shows || self.live.is_some()) {
                return;
            }
            let Some(mut chart) = SPACE.create(at) else {
                self.when = When::Never;
                return;
            };
            let mut define = |id, name| {
                chart.define(&DimensionSpec {
                    id,
                    name,
                    algorithm: Algorithm::Absolute,
                    multiplier: unit,
                    divisor: GIB,
                    options: DimensionOptions::empty(),
                })
            };
            let dims = [
                define("avail", "avail"),
                define("used", "used"),
                define("reserved_for_root", "reserved for root"),
            ];
            self.live = Some((chart, dims, unit));
        }
        if let Some((chart, dims, _)) = &mut self.live {
            for (dim, value) in dims.iter().zip(values) {
                chart.set(*dim, value);
            }
            chart.done(at.now);
        }
    }
}

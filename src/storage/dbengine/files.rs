//! The names of everything the store puts on disk, and how a finished file comes into being.
//!
//! | name | what |
//! |---|---|
//! | `dbengine/`, `dbengine-tier1/`, `dbengine-tier2/` … | one directory a tier, below the cache directory |
//! | `store.lock` | held by the agent that has the store open |
//! | `catalog.log` | names of hosts, charts and metrics |
//! | `hot-EVERY-GROUP-BLOCK.cells` | samples of the last minutes, one row a slot |
//! | `catalog.index` | a hash table over it, made anew when in doubt |
//! | `late-NUMBER.log` | samples that came too late for their row |
//! | `EVERY-FROM-SEQUENCE-LEVEL.segment` | finished, immutable pages |
//! | `derived` | in a higher tier: what it was derived as |
//! | `*.tmp` | being written; removed at start |
//! | `*.damaged` | set aside: could not be read |

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::base::stats::{STATS, count};

pub(super) const LOCK: &str = "store.lock";
pub(super) const DERIVED: &str = "derived";
pub(super) const CATALOG: &str = "catalog.log";
pub(super) const CATALOG_INDEX: &str = "catalog.index";

/// The directory of a tier below the cache directory, as operators know it.
pub fn tier_directory(cache: &Path, tier: usize) -> PathBuf {
    if tier == 0 { cache.join("dbengine") } else { cache.join(format!("dbengine-tier{tier}")) }
}

/// What a segment's name says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    /// Seconds between slots.
    pub(super) every: u32,
    /// Number of the time window all of its pages lie in.
    pub(super) window: u32,
    /// Later ones win over earlier ones where both have a sample.
    pub(super) sequence: u64,
    /// How many of its like it was merged from, in doublings: 0 = as flushed.
    pub(super) level: u8,
}

impl SegmentName {
    pub(super) fn file_name(&self) -> String {
        format!("{}-{}-{}-{}.segment", self.every, self.window, self.sequence, self.level)
    }

    pub(super) fn parse(name: &str) -> Option<SegmentName> {
        let mut parts = name.strip_suffix(".segment")?.split('-');
        let parsed = SegmentName {
            every: parts.next()?.parse().ok().filter(|&every| every > 0)?,
            window: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
            level: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(parsed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HotName {
    pub(super) every: u32,
    pub(super) group: u32,
    pub(super) block: u32,
}

impl HotName {
    pub(super) fn file_name(&self) -> String {
        format!("hot-{}-{}-{}.cells", self.every, self.group, self.block)
    }

    pub(super) fn parse(name: &str) -> Option<HotName> {
        let mut parts = name.strip_prefix("hot-")?.strip_suffix(".cells")?.split('-');
        let parsed = HotName {
            every: parts.next()?.parse().ok().filter(|&every| every > 0)?,
            group: parts.next()?.parse().ok()?,
            block: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(parsed)
    }
}

pub(super) fn late_name(number: u64) -> String {
    format!("late-{number}.log")
}

pub(super) fn late_number(name: &str) -> Option<u64> {
    name.strip_prefix("late-")?.strip_suffix(".log")?.parse().ok()
}

/// Creates a new file nobody else may read.
pub(super) fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes a finished temporary file permanent: its bytes first, then its name.
pub(super) fn publish(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    file.sync_data()?;
    fs::rename(temporary, path)?;
    sync_directory(path)
}

/// Makes the names in a file's directory survive a power cut.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Moves an unreadable file out of the way, keeping its bytes for whoever wants to look.
pub(super) fn set_aside(path: &Path, why: &dyn std::fmt::Display) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let moved = fs::rename(path, &aside);
    count(&STATS.store_damaged);
    log::error!(
        "DBENGINE: '{}' is damaged ({why}): {}",
        path.display(),
        match moved {
            Ok(()) => "set aside as .damaged, its samples are lost".to_owned(),
            Err(error) => format!("cannot set it aside: {error}"),
        }
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_inside() {
        let name = SegmentName { every: 1, window: 236_111, sequence: 42, level: 0 };
        assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
        let hot = HotName { every: 10, group: 0, block: 7 };
        assert_eq!(HotName::parse(&hot.file_name()), Some(hot));
        for strange in [
            "",
            "1-2-3.segment",
            "0-1-1-1.segment",
            "1-2-3-4-5.segment",
            "hot-1-2.cells",
            "1-2-3-4.segment.damaged",
        ] {
            assert_eq!(
                (SegmentName::parse(strange), HotName::parse(strange)),
                (None, None),
                "{strange}"
            );
        }
    }
}

//! Which windows the higher tiers still have to be derived for: all that tier 0 holds, when a tier is new, points of it
//! have another length than before, or a file of it was lost.
//!
//! Beside its segments a tier keeps a small file, `derived`, that says what it was derived as: written when all windows
//! are through, compared when the store is opened, removed when the tier is out of use. Thread `DBENGINE[flush]` derives
//! one window a round, newest first. Interrupted, it begins again; a point that is there already does no harm.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::files::{self, DERIVED, tier_directory};

/// Tiers a store of any configuration may have.
const TIERS_MAX: usize = 5;

pub(super) struct Backfill {
    todo: Mutex<Todo>,
}

#[derive(Default)]
struct Todo {
    /// `(every, window)`, the next one last.
    windows: Vec<(u32, u32)>,
    /// What is to be written where when no window is left.
    marks: Vec<(PathBuf, String)>,
}

impl Backfill {
    /// Compares the tiers below `cache`, of which tier 1 and above group so many slots, with what they were. `windows`
    /// lists those of tier 0, in order of time.
    pub(super) fn plan(
        cache: &Path,
        groupings: &[u32],
        windows: impl FnOnce() -> Vec<(u32, u32)>,
    ) -> Backfill {
        for unused in groupings.len().max(1)..TIERS_MAX {
            // Should it be used again, it lacks what came meanwhile.
            let _ = fs::remove_file(tier_directory(cache, unused).join(DERIVED));
        }
        let mut marks = Vec::new();
        for (tier, grouping) in groupings.iter().enumerate().skip(1) {
            let directory = tier_directory(cache, tier);
            let mark = format!("{grouping} {}\n", lost_files(&directory));
            let path = directory.join(DERIVED);
            if fs::read_to_string(&path).ok().as_ref() != Some(&mark) {
                marks.push((path, mark));
            }
        }
        let windows = if marks.is_empty() { Vec::new() } else { windows() };
        if !windows.is_empty() {
            log::info!("DBENGINE: deriving the higher tiers for {} spans of time.", windows.len());
        }
        Backfill { todo: Mutex::new(Todo { windows, marks }) }
    }

    pub(super) fn next(&self) -> Option<(u32, u32)> {
        self.todo.lock().windows.last().copied()
    }

    /// The window that [`Backfill::next`] gave is derived.
    pub(super) fn done(&self) -> io::Result<()> {
        self.todo.lock().windows.pop();
        self.mark_when_complete()
    }

    /// Says on the disk that nothing is left, once, if so.
    pub(super) fn mark_when_complete(&self) -> io::Result<()> {
        let marks = {
            let mut todo = self.todo.lock();
            if !todo.windows.is_empty() || todo.marks.is_empty() {
                return Ok(());
            }
            std::mem::take(&mut todo.marks)
        };
        let result = marks.iter().try_for_each(|(path, mark)| {
            let temporary = path.with_extension("tmp");
            let mut file = files::create(&temporary)?;
            file.write_all(mark.as_bytes())?;
            files::publish(&file, &temporary, path)
        });
        if result.is_err() {
            self.todo.lock().marks = marks;
        }
        result
    }
}

/// How many files of a tier were set aside.
fn lost_files(directory: &Path) -> usize {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().contains(".segment.damaged")).count()
}

//! What a process needs to be a good daemon: its directories and their locks, its user, its priority, its pid file and
//! the marks by which the next start knows how the last run ended.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::settings::{Directories, ProcessSettings};
use crate::base::sys::{self, Scheduling, User};

/// Files we make are not for strangers.
pub(super) const UMASK: u32 = 0o007;
const DIRECTORY_MODE: u32 = 0o770;

/// Held while an agent runs; a second one on the same directory finds it taken.
const LOCK_FILE: &str = ".netdata-rs.lock";

const CRASH_FILE: &str = ".agent_crash";
const INCOMPLETE_FILE: &str = ".agent_incomplete_shutdown";

/// Locks on directories, given back when dropped.
pub(super) struct Locks {
    _files: Vec<File>,
}

/// Makes the directories we write to, clears the lock directory and makes sure that no other agent uses them.
pub(super) fn prepare_directories(directories: &Directories) -> anyhow::Result<Locks> {
    let cloud = directories.lib.join("cloud.d");
    for dir in [&directories.cache, &directories.lib, &directories.registry, &cloud] {
        make_directory(dir);
    }
    let mut files = Vec::new();
    for dir in [&directories.lib, &directories.cache] {
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path);
        let file =
            file.with_context(|| format!("cannot write to directory '{}'", dir.display()))?;
        match sys::lock(&file) {
            Ok(true) => files.push(file),
            Ok(false) => bail!("another agent is already using directory '{}'", dir.display()),
            // Some network file systems have no locks: then nobody can tell.
            Err(error) => log::error!("cannot lock '{}': {error}", path.display()),
        }
    }
    make_directory(&directories.lock);
    clear_lock_directory(&directories.lock);
    Ok(Locks { _files: files })
}

fn make_directory(dir: &Path) {
    if dir.is_dir() {
        return;
    }
    if let Err(error) = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir) {
        log::error!("Cannot create directory '{}': {error}", dir.display());
    }
}

/// What plugins left there belongs to a run that is over.
fn clear_lock_directory(dir: &Path) {
    if is_link(dir) {
        return;
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Err(error) = fs::remove_file(entry.path())
        {
            log::error!("Cannot remove '{}': {error}", entry.path().display());
        }
    }
}

/// Hands what we must be able to write over to `name` and becomes that user. Stays root if that cannot be.
pub(super) fn drop_root(name: &str, directories: &Directories, pid_file: Option<&Path>) {
    if !sys::is_root() || name == "root" || name.is_empty() {
        return;
    }
    let Some(user) = sys::user(name) else {
        log::error!(
            "User '{name}' is not known. Cannot become user '{name}'. Continuing as we are."
        );
        return;
    };
    if let Some(file) = pid_file {
        give(file, &user);
    }
    let Directories { cache, lib, lock, registry, log, .. } = directories;
    for dir in [cache, lib, lock, registry, log, &lib.join("cloud.d")] {
        give(dir, &user);
        give_files(dir, &user);
    }
    if let Err(error) = sys::become_user(&user) {
        log::error!("Cannot become user '{name}'. Continuing as we are. ({error})");
    }
}

/// The regular files of a directory that we may have made as root a moment ago.
fn give_files(dir: &Path, user: &User) {
    if is_link(dir) {
        return;
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            give(&entry.path(), user);
        }
    }
}

/// Whoever we become may have made the link: as root nothing is done to where it points.
fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_symlink())
}

fn give(path: &Path, user: &User) {
    if let Err(error) = lchown(path, Some(user.uid), Some(user.gid))
        && error.kind() != io::ErrorKind::NotFound
    {
        log::error!("Cannot chown '{}' to user '{}': {error}", path.display(), user.name);
    }
}

/// Tells the kernel how much we matter. Nothing here is worth not starting for.
pub(super) fn set_priority(settings: &ProcessSettings) {
    if settings.oom_score != "keep" {
        let file = "/proc/self/oom_score_adj";
        let now = fs::read_to_string(file).unwrap_or_default();
        let wanted = crate::config::number(&settings.oom_score).clamp(-1000, 1000).to_string();
        if now.trim() != wanted
            && let Err(error) = fs::write(file, &wanted)
        {
            log::info!("Cannot set the out of memory score to {wanted}: {error}");
        }
    }
    let priority = i32::try_from(settings.priority.clamp(1, 99)).unwrap_or(1);
    let scheduling = match settings.policy.as_str() {
        "batch" => Scheduling::Batch,
        "idle" => Scheduling::Idle,
        "other" | "nice" => Scheduling::Other,
        "rr" => Scheduling::RoundRobin(priority),
        "fifo" => Scheduling::Fifo(priority),
        // `keep` and `none` leave all as it is.
        _ => return,
    };
    if let Err(error) = sys::set_scheduling(scheduling) {
        log::info!("Cannot adjust scheduling policy to '{}': {error}", settings.policy);
    }
    let nice = i32::try_from(settings.nice.clamp(-20, 19)).unwrap_or(19);
    let with_nice = matches!(scheduling, Scheduling::Batch | Scheduling::Other);
    if with_nice && let Err(error) = sys::set_nice(nice) {
        log::info!("Cannot set the nice level to {nice}: {error}");
    }
}

/// The pid file, removed when the agent ends as it should.
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn write(path: &Path) -> Option<PidFile> {
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(path)
            .and_then(|mut file| {
                file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            });
        match written {
            Ok(()) => Some(PidFile(path.to_owned())),
            Err(error) => {
                log::error!("Cannot write pid file '{}': {error}", path.display());
                None
            }
        }
    }

    pub(super) fn remove(self) {
        log::info!("EXIT: removing netdata PID file '{}'...", self.0.display());
    }
}

impl Drop for PidFile {
    /// Also when the start fails half-way.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            log::error!("EXIT: cannot remove pid file '{}': {error}", self.0.display());
        }
    }
}

/// The file that says a run is not over; what it is called says how far the end got.
pub(super) struct RunMark {
    lib: PathBuf,
}

impl RunMark {
    /// Reads how the last run ended, then marks this one.
    pub(super) fn begin(lib: &Path) -> RunMark {
        if lib.join(CRASH_FILE).exists() {
            log::error!("The last run of this agent did not end: it crashed or was killed.");
        } else if lib.join(INCOMPLETE_FILE).exists() {
            log::error!("The last run of this agent was killed while it was shutting down.");
        }
        let _ = fs::remove_file(lib.join(INCOMPLETE_FILE));
        if let Err(error) = File::create(lib.join(CRASH_FILE)) {
            log::error!("Cannot create '{}': {error}", lib.join(CRASH_FILE).display());
        }
        RunMark { lib: lib.to_owned() }
    }

    pub(super) fn shutting_down(&self) {
        let _ = fs::rename(self.lib.join(CRASH_FILE), self.lib.join(INCOMPLETE_FILE));
    }

    pub(super) fn end(self) {
        let _ = fs::remove_file(self.lib.join(INCOMPLETE_FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(root: &Path) -> Directories {
        Directories {
            config: root.join("etc"),
            stock_config: root.join("stock"),
            log: root.join("log"),
            web: root.join("web"),
            cache: root.join("cache"),
            lib: root.join("lib"),
            home: root.into(),
            lock: root.join("lib/lock"),
            registry: root.join("lib/registry"),
            plugins: vec![root.join("plugins.d")],
        }
    }

    #[test]
    fn a_second_agent_finds_the_directories_taken() {
        let root = tempfile::tempdir().unwrap();
        let dirs = directories(root.path());
        let locks = prepare_directories(&dirs).unwrap();
        let Err(error) = prepare_directories(&dirs) else { panic!("locked twice") };
        assert!(error.to_string().starts_with("another agent is already using directory"));
        drop(locks);
        fs::write(dirs.lock.join("left"), "x").unwrap();
        prepare_directories(&dirs).unwrap();
        assert!(!dirs.lock.join("left").exists());
    }

    #[test]
    fn the_mark_of_a_run_goes_with_its_end() {
        let root = tempfile::tempdir().unwrap();
        let mark = RunMark::begin(root.path());
        assert!(root.path().join(CRASH_FILE).exists());
        mark.shutting_down();
        assert!(!root.path().join(CRASH_FILE).exists());
        assert!(root.path().join(INCOMPLETE_FILE).exists());
        mark.end();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_pid_file_is_a_number_and_a_line_end() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        file.remove();
        assert!(!path.exists());
    }
}

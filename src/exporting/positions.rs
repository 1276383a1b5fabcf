//! How far each host has been taken by one database, in a small file that survives restarts.
//!
//! The layout is in `docs/formats/exporting-positions.md`. The file is replaced as a whole, so what is there is always
//! complete; one that cannot be read counts as none, and exporting begins anew from now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::base::ids::MachineGuid;

const FIRST_LINE: &str = "exporting positions 1";
/// Below the lib directory.
const DIRECTORY: &str = "exporting";
/// A file is read up to here: more than all hosts there can be.
const BYTES_MAX: u64 = 16 << 20;
/// A host that has been away for so long is forgotten.
const KEPT_S: i64 = 90 * 86_400;
/// Between two attempts to write where writing fails.
const PATIENCE_S: i64 = 60;

pub(super) struct Positions {
    path: PathBuf,
    /// Seconds: the time of the last batch that was taken.
    of: BTreeMap<MachineGuid, i64>,
    changed: bool,
    /// No attempt to write before, since the last one failed.
    patience: i64,
}

impl Positions {
    pub(super) fn open(lib: &Path, instance: &str) -> Positions {
        let name = utf8_percent_encode(instance, NON_ALPHANUMERIC);
        let path = lib.join(DIRECTORY).join(format!("{name}.positions"));
        let of = match read(&path) {
            Ok(Some(of)) => of,
            Ok(None) => {
                log::error!(
                    "EXPORTING: '{}' is damaged; instance '{instance}' goes on from now",
                    path.display()
                );
                BTreeMap::new()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                log::error!(
                    "EXPORTING: cannot read '{}': {error}; instance '{instance}' goes on from now",
                    path.display()
                );
                BTreeMap::new()
            }
        };
        Positions { path, of, changed: false, patience: 0 }
    }

    pub(super) fn get(&self, host: MachineGuid) -> Option<i64> {
        self.of.get(&host).copied()
    }

    pub(super) fn set(&mut self, host: MachineGuid, at: i64) {
        self.changed |= self.of.insert(host, at) != Some(at);
    }

    /// Puts what has changed on the disk.
    pub(super) fn save(&mut self, now: i64) {
        if !self.changed || now < self.patience {
            return;
        }
        self.of.retain(|_, at| *at > now - KEPT_S);
        match write(&self.path, &text(&self.of)) {
            Ok(()) => self.changed = false,
            Err(error) => {
                self.patience = now + PATIENCE_S;
                log::error!(
                    "EXPORTING: cannot write '{}': {error}; what was sent since its last writing is sent again after a restart",
                    self.path.display()
                );
            }
        }
    }
}

fn text(of: &BTreeMap<MachineGuid, i64>) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    for (host, at) in of {
        let _ = writeln!(text, "{host} {at}");
    }
    let sum = crc32fast::hash(text.as_bytes());
    let _ = writeln!(text, "crc32 {sum:08x}");
    text
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// `None`: damaged.
fn read(path: &Path) -> io::Result<Option<BTreeMap<MachineGuid, i64>>> {
    if fs::metadata(path)?.len() > BYTES_MAX {
        return Ok(None);
    }
    Ok(parse(&fs::read(path)?))
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<MachineGuid, i64>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let at = text.rfind("crc32 ")?;
    let (body, sum) = text.split_at(at);
    let sum = u32::from_str_radix(sum.strip_prefix("crc32 ")?.trim_end(), 16).ok()?;
    if crc32fast::hash(body.as_bytes()) != sum {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    lines
        .map(|line| {
            let (host, at) = line.split_once(' ')?;
            Some((host.parse().ok()?, at.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (MachineGuid::random(), MachineGuid::random());
        let mut positions = Positions::open(dir.path(), "a/b c");
        assert_eq!(positions.get(a), None);
        positions.set(a, 1000);
        positions.set(b, 100 * 86_400);
        positions.save(100 * 86_400);
        let file = dir.path().join("exporting/a%2Fb%20c.positions");
        let again = Positions::open(dir.path(), "a/b c");
        assert_eq!((again.get(a), again.get(b)), (None, Some(100 * 86_400)));
        let mut bytes = fs::read(&file).unwrap();
        // The line end after the sum is all that may be anything.
        for n in 0..bytes.len() - 1 {
            bytes[n] ^= 1;
            assert_ne!(parse(&bytes), Some(again.of.clone()), "byte {n}");
            bytes[n] ^= 1;
        }
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(Positions::open(dir.path(), "a/b c").get(b), None);
    }
}

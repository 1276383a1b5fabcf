//! What happens to the files while no agent runs: power cuts, and damage.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::Random;
use crate::agent::Places;

const PAGE: usize = 4096;

fn tiers(places: &Places) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(places.below("cache"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir() && name_of(path).starts_with("dbengine"))
        .collect();
    found.sort();
    Ok(found)
}

pub fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// As the shim names files: inode and time of birth.
fn key_of(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    let born = metadata.created()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(format!("{}-{}-{}", metadata.ino(), born.as_secs(), born.subsec_nanos()))
}

/// The power fails: of every file and every directory there is left what was synced, and of what was not any part.
pub fn power_cut(places: &Places, random: &mut Random) -> io::Result<()> {
    for tier in tiers(places)? {
        let listing = places.below("shadow/d").join(name_of(&tier));
        let listing = fs::read_to_string(listing).unwrap_or_default();
        let durable: BTreeMap<String, String> = listing
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, key)| (name.to_owned(), key.to_owned()))
            .collect();
        let mut current = BTreeMap::new();
        let mut by_key = BTreeMap::new();
        for entry in fs::read_dir(&tier)? {
            let path = entry?.path();
            let key = key_of(&path)?;
            by_key.insert(key.clone(), path.clone());
            current.insert(name_of(&path), key);
        }
        let names = if random.one_in(2) { &durable } else { &current };
        let after = places.below("after");
        let _ = fs::remove_dir_all(&after);
        fs::create_dir_all(&after)?;
        for (name, key) in names {
            let synced = places.below("shadow/c").join(key);
            let written = by_key.get(key);
            let to = after.join(name);
            match (synced.exists(), written) {
                // Finished and synced, and nothing was written since.
                (true, _) if name.ends_with(".segment") => fs::hard_link(&synced, &to)?,
                (true, None) => {
                    fs::copy(&synced, &to)?;
                }
                (true, Some(written)) => {
                    mixed(&fs::read(&synced)?, &fs::read(written)?, &to, random)?
                }
                (false, Some(written)) => {
                    let written = fs::read(written)?;
                    let nothing =
                        if random.one_in(2) { Vec::new() } else { vec![0; written.len()] };
                    mixed(&nothing, &written, &to, random)?;
                }
                (false, None) => fs::write(&to, "")?,
            }
        }
        fs::remove_dir_all(&tier)?;
        fs::rename(&after, &tier)?;
    }
    fs::write(places.below("boot"), format!("boot {}\n", random.next()))?;
    // From now on all of it has always been there.
    let shadow = places.below("shadow");
    fs::remove_dir_all(&shadow)?;
    fs::create_dir_all(shadow.join("c"))?;
    fs::create_dir_all(shadow.join("d"))?;
    for tier in tiers(places)? {
        let mut listing = String::new();
        for entry in fs::read_dir(&tier)? {
            let path = entry?.path();
            let (name, key) = (name_of(&path), key_of(&path)?);
            let to = shadow.join("c").join(&key);
            if name.ends_with(".segment") {
                fs::hard_link(&path, &to)?;
            } else {
                fs::copy(&path, &to)?;
            }
            listing += &format!("{name} {key}\n");
        }
        fs::write(shadow.join("d").join(name_of(&tier)), listing)?;
    }
    Ok(())
}

/// Each page as it was synced or as it was written since, the length one of both.
fn mixed(synced: &[u8], written: &[u8], to: &Path, random: &mut Random) -> io::Result<()> {
    let length = if random.one_in(2) { synced.len() } else { written.len() };
    let odds = 1 + random.below(4);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = bytes.len();
        let end = (at + PAGE).min(length);
        let (first, second) =
            if random.one_in(odds) { (synced, written) } else { (written, synced) };
        let page = first.get(at..first.len().min(end)).unwrap_or(&[]);
        bytes.extend_from_slice(page);
        // What is beyond the end of that one: of the other if it was in there, else zeros.
        let rest = second.get(bytes.len()..second.len().min(end)).unwrap_or(&[]);
        bytes.extend_from_slice(rest);
        bytes.resize(end, 0);
    }
    // Holes where there are zeros, as the file had them.
    let file = File::create(to)?;
    file.set_len(length as u64)?;
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().any(|&byte| byte != 0) {
            file.write_all_at(page, (number * PAGE) as u64)?;
        }
    }
    Ok(())
}

/// Spoils one file, and says which and how; `None` if there is nothing to spoil.
pub fn damage(places: &Places, random: &mut Random) -> io::Result<Option<(String, String)>> {
    let mut files = Vec::new();
    for tier in tiers(places)? {
        for entry in fs::read_dir(&tier)? {
            let path = entry?.path();
            let name = name_of(&path);
            let kinds = [".segment", ".cells", ".log", ".index"];
            if kinds.iter().any(|kind| name.ends_with(kind)) && fs::metadata(&path)?.len() > 0 {
                files.push(path);
            }
        }
    }
    files.sort();
    if files.is_empty() {
        return Ok(None);
    }
    // Few kinds of files are many; each kind gets its share.
    let kind = [".segment", ".cells", "late-", "catalog"][random.below(4) as usize];
    let of_kind: Vec<_> = files.iter().filter(|path| name_of(path).contains(kind)).collect();
    let Some(path) = of_kind.get(random.below(of_kind.len().max(1) as u64) as usize) else {
        return Ok(None);
    };
    let name = name_of(path);
    let mut bytes = fs::read(path)?;
    let length = bytes.len() as u64;
    let at = random.below(length) as usize;
    // Rows of hot blocks that are open (of the last half second) are believed as they are.
    let open = |at: usize| {
        const FIRST_ROW: usize = 3072 * 4;
        let row = at / PAGE * PAGE;
        name.ends_with(".cells")
            && at >= FIRST_ROW
            && bytes.get(row).is_none_or(|&state| state & 3 != 2)
    };
    let how = match random.below(4) {
        0 if !open(at) => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit of byte {at}")
        }
        1 if !open(at) => {
            bytes[at] = random.next() as u8;
            format!("byte {at}")
        }
        2 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        3 => {
            let end = (at + random.below(3 * PAGE as u64) as usize).min(bytes.len());
            if (at..end).any(open) {
                return Ok(None);
            }
            bytes[at..end].fill(0);
            format!("zeros from {at} to {end}")
        }
        _ => return Ok(None),
    };
    // A file of its own: the shadow may have the same one under another name.
    fs::remove_file(path)?;
    fs::write(path, &bytes)?;
    let key = key_of(path)?;
    fs::write(places.below("shadow/c").join(&key), &bytes)?;
    let listing = places.below("shadow/d").join(name_of(path.parent().unwrap_or(path)));
    let listed = fs::read_to_string(&listing).unwrap_or_default();
    let mut lines: Vec<String> = listed
        .lines()
        .filter(|line| !line.starts_with(&format!("{name} ")))
        .map(str::to_owned)
        .collect();
    lines.push(format!("{name} {key}"));
    fs::write(&listing, lines.join("\n") + "\n")?;
    Ok(Some((name, how)))
}

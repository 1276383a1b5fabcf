//! Files that version 1 of the formats wrote, kept for ever in `tests/fixtures/store-v1`, each compressed by zstd since a
//! hot block is mostly zeros. Tests read them back; with `WRITE_FIXTURES=1` they write them anew, which is right only
//! before a format is released: afterwards another format gets a directory of its own beside it.

use std::fs;
use std::path::{Path, PathBuf};

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1").join(name)
}

/// Keeps the files below `from`, if this run is to write fixtures.
pub(super) fn keep(name: &str, from: &Path) {
    if std::env::var_os("WRITE_FIXTURES").is_none() {
        return;
    }
    let _ = fs::remove_dir_all(place(name));
    for file in files_below(from) {
        let bytes = fs::read(&file).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let inside = file.strip_prefix(from).unwrap().to_str().unwrap();
        let to = place(name).join(format!("{inside}.zst"));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, zstd::bulk::compress(&bytes, 19).unwrap()).unwrap();
    }
}

/// Puts the files where a store or a ring looks for them.
pub(super) fn unpack(name: &str, to: &Path) {
    let from = place(name);
    let files = files_below(&from);
    assert!(!files.is_empty(), "no fixtures in '{}'", from.display());
    for file in files {
        let inside = file.strip_prefix(&from).unwrap().to_str().unwrap();
        let to = to.join(inside.strip_suffix(".zst").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let bytes = zstd::bulk::decompress(&fs::read(&file).unwrap(), 8 << 20).unwrap();
        fs::write(to, bytes).unwrap();
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { todo.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

//! The layers hold: imports run downwards only, and every module says what it is for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot read the sources has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each top-level module; a module may import from strictly lower layers and from itself.
const LAYERS: &[(&str, u8)] = &[
    ("base", 0),
    ("config", 1),
    ("net", 1),
    ("wire", 1),
    ("storage", 2),
    ("metrics", 3),
    ("ingest", 4),
    ("query", 4),
    ("stream", 5),
    ("health", 5),
    ("exporting", 5),
    ("promql", 5),
    ("web", 6),
    ("daemon", 7),
];

/// Same-layer imports that are part of the design: (from, to).
const SIDEWAYS: &[(&str, &str)] = &[("config", "wire"), ("net", "wire"), ("promql", "exporting")];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    assert!(found.len() > 10, "the sources are not where this test looks for them");
    found
}

fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next()?.as_os_str().to_str()?.to_owned();
    let name = first.trim_end_matches(".rs").to_owned();
    layer(&name).map(|_| name)
}

#[test]
fn imports_run_downwards_only() {
    let mut wrong = Vec::new();
    for path in sources() {
        let Some(from) = module_of(&path) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for piece in line.split("crate::").skip(1) {
                let to: String =
                    piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(below) = layer(&to) else { continue };
                let sideways = SIDEWAYS.contains(&(from.as_str(), to.as_str()));
                if to != from && !sideways && layer(&from).unwrap() <= below {
                    wrong.push(format!("{}:{}: {from} imports {to}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "upward imports:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "modules without a //! doc: {silent:?}");
}

#[test]
fn unsafe_stays_in_the_modules_named_for_it() {
    let allowed = ["src/base/sys.rs", "src/storage/map.rs"];
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|path| !allowed.iter().any(|a| path.ends_with(a)))
        .filter(|path| {
            fs::read_to_string(path).unwrap().lines().any(|line| {
                let code = line.split("//").next().unwrap_or("");
                code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
            })
        })
        .collect();
    assert!(wrong.is_empty(), "unsafe outside {allowed:?}: {wrong:?}");
}

/// The text of docs/ARCHITECTURE.md between one second-level heading and the next.
fn chapter(title: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let text = fs::read_to_string(path).unwrap();
    let from = text.find(&format!("\n## {title}\n")).map_or(0, |at| at + 1);
    let rest = &text[from..];
    rest[..rest[2..].find("\n## ").map_or(rest.len(), |end| end + 2)].to_owned()
}

/// The code of a source file: without comments and without the tests at its bottom.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect()
}

fn is_test_only(path: &Path) -> bool {
    ["tests.rs", "trial.rs"].iter().any(|name| path.ends_with(name))
}

#[test]
fn every_thread_stands_in_the_table() {
    let table = chapter("Threads");
    let mut missing = Vec::new();
    for path in sources().into_iter().filter(|path| !is_test_only(path)) {
        let code = code(&path);
        for call in ["spawn(", "rename(&"] {
            for argument in code.split(call).skip(1) {
                let argument = argument.trim_start().trim_start_matches("format!(").trim_start();
                let Some(name) = argument.strip_prefix('"').and_then(|rest| rest.split('"').next())
                else {
                    continue;
                };
                // `WEB_SERVER[{slot}]` stands as `WEB_SERVER[…`
                let stem = name.split('{').next().unwrap();
                let family = name.split('[').next().unwrap();
                let exact = table.contains(&format!("`{stem}"));
                if !exact && !table.contains(&format!("`{family}[…]`")) {
                    missing.push(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "threads missing in docs/ARCHITECTURE.md: {missing:#?}");
}

#[test]
fn every_lock_stands_in_the_table() {
    let table = chapter("Locks");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut missing = Vec::new();
    for path in sources().into_iter().filter(|path| !is_test_only(path)) {
        let file = path.strip_prefix(&root).unwrap().display().to_string();
        let row: String = table.lines().filter(|row| row.contains(&format!("`{file}`"))).collect();
        for line in
            code(&path).lines().filter(|line| !line.contains("fn ") && !line.contains("use "))
        {
            let Some(at) = line.find("Mutex<").or_else(|| line.find("RwLock<")) else { continue };
            // `name: Mutex<…>`, `static NAME: …`, `struct Name(Mutex<…>)`: the last word before the lock's type
            let before = line[..at].trim_end_matches(|c: char| !c.is_alphanumeric());
            let name =
                before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
            let known =
                row.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
            if !known && !name.is_empty() {
                missing.push(format!("{file}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "locks missing in docs/ARCHITECTURE.md: {missing:#?}");
}

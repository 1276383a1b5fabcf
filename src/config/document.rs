//! The options of one file with their bookkeeping: where a value came from and whether anybody asked for it.
//!
//! Every getter names its default and the default is remembered, so [`Config::render`] can show the whole effective
//! configuration, in the order in which the program asked. One lock, held for a look-up; nothing is called under it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::ini;
use super::options::{Alias, Known, State};
use super::values::{self, OnDemand, SizeUnit, TimeUnit};

/// A configuration file larger than this is refused: it is something else.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The file could not be used at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read '{}'", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("'{}' is larger than {MAX_FILE_BYTES} bytes", .path.display())]
    TooLarge { path: PathBuf },
}

/// The options of a file that were set, by section and name.
pub type Snapshot = BTreeMap<(String, String), String>;

/// What a loaded value does to one that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    Replace,
    Keep,
}

fn read_file(path: &Path) -> Result<String, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(read)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The options of one configuration file. Shared by all threads.
#[derive(Default)]
pub struct Config {
    sections: Mutex<Sections>,
}

#[derive(Default)]
struct Sections {
    list: Vec<Section>,
    index: FxHashMap<Box<str>, usize>,
}

#[derive(Default)]
struct Section {
    name: Box<str>,
    list: Vec<Entry>,
    index: FxHashMap<Box<str>, usize>,
}

struct Entry {
    name: Box<str>,
    value: String,
    /// From a file or from the command line, or changed by the program: shown without `#`.
    set: bool,
    /// The program asked for it.
    used: bool,
}

impl Sections {
    fn get(&self, name: &str) -> Option<&Section> {
        self.index.get(name).map(|&at| &self.list[at])
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Section> {
        self.index.get(name).map(|&at| &mut self.list[at])
    }

    fn get_or_add(&mut self, name: &str) -> &mut Section {
        let at = *self.index.entry(name.into()).or_insert_with(|| {
            self.list.push(Section { name: name.into(), ..Section::default() });
            self.list.len() - 1
        });
        &mut self.list[at]
    }
}

impl Section {
    fn get(&self, name: &str) -> Option<&Entry> {
        self.index.get(name).map(|&at| &self.list[at])
    }

    fn get_or_add(&mut self, name: &str, value: impl FnOnce() -> String) -> &mut Entry {
        let at = *self.index.entry(name.into()).or_insert_with(|| {
            let entry = Entry { name: name.into(), value: value(), set: false, used: false };
            self.list.push(entry);
            self.list.len() - 1
        });
        &mut self.list[at]
    }

    fn take(&mut self, name: &str) -> Option<Entry> {
        let at = self.index.remove(name)?;
        let entry = self.list.remove(at);
        for (at, entry) in self.list.iter().enumerate().skip(at) {
            if let Some(index) = self.index.get_mut(&entry.name) {
                *index = at;
            }
        }
        Some(entry)
    }
}

impl Config {
    pub fn new() -> Self {
        Config::default()
    }

    /// Reads `path` into the options. Bad lines are logged and skipped.
    pub fn load(&self, path: &Path, present: Present) -> Result<(), LoadError> {
        let text = read_file(path)?;
        self.load_text(&text, &path.to_string_lossy(), present);
        Ok(())
    }

    /// A file of which every line has to make sense; else what is wrong with it.
    pub fn load_whole(path: &Path) -> Result<Config, Vec<String>> {
        let text = read_file(path).map_err(|error| match &error {
            LoadError::Read { source, .. } => vec![format!("{error}: {source}")],
            LoadError::TooLarge { .. } => vec![error.to_string()],
        })?;
        let file = path.to_string_lossy();
        let (_, bad) = ini::read(&text);
        if !bad.is_empty() {
            return Err(bad.iter().map(|line| line.name(&file)).collect());
        }
        let config = Config::new();
        config.load_text(&text, &file, Present::Replace);
        Ok(config)
    }

    /// The options of a file that was read before, without another word about what is wrong with it.
    pub fn load_again(path: &Path) -> Config {
        let config = Config::new();
        if let Ok(text) = read_file(path) {
            config.put(&ini::read(&text).0, Present::Replace);
        }
        config
    }

    /// As [`Config::load`], from text; `file` is the name for complaints.
    pub fn load_text(&self, text: &str, file: &str, present: Present) {
        let (document, bad) = ini::read(text);
        for line in bad {
            log::error!("{}", line.describe(file));
        }
        self.put(&document, present);
    }

    fn put(&self, document: &ini::Document, present: Present) {
        let mut sections = self.sections.lock();
        for (name, options) in document {
            let Some(name) = name else { continue };
            let section = sections.get_or_add(name);
            for (name, value) in options.iter() {
                let entry = section.get_or_add(name, String::new);
                if present == Present::Replace || !entry.set {
                    value.clone_into(&mut entry.value);
                }
                entry.set = true;
            }
        }
    }

    /// The text of an option; `default` when nobody set it. Set to nothing is set.
    pub fn string(&self, section: &str, name: &str, default: &str) -> String {
        self.look(section, name, || default.to_owned(), str::to_owned)
    }

    pub fn path(&self, section: &str, name: &str, default: impl AsRef<Path>) -> PathBuf {
        let default = || default.as_ref().to_string_lossy().into_owned();
        self.look(section, name, default, |text| PathBuf::from(text))
    }

    pub fn number(&self, section: &str, name: &str, default: i64) -> i64 {
        self.look(section, name, || default.to_string(), values::number)
    }

    pub fn boolean(&self, section: &str, name: &str, default: bool) -> bool {
        let shown = if default { "yes" } else { "no" };
        self.look(section, name, || shown.to_owned(), values::boolean)
    }

    /// A text that is none of the legal words leaves the default in force.
    pub fn on_demand(&self, section: &str, name: &str, default: OnDemand) -> OnDemand {
        let shown = || default.as_str().to_owned();
        self.look(section, name, shown, OnDemand::parse).unwrap_or(default)
    }

    /// A time; a number without a unit counts `native` units, as does the default when it is shown.
    pub fn duration(
        &self,
        section: &str,
        name: &str,
        default: Duration,
        native: TimeUnit,
    ) -> Duration {
        let shown = || values::show_duration(default, native);
        self.look(section, name, shown, |text| values::duration(text, native))
    }

    /// The commonest of all: an option named in seconds, which may be given with any unit.
    pub fn seconds(&self, section: &str, name: &str, default: i64) -> i64 {
        let default = Duration::from_secs(u64::try_from(default).unwrap_or(0));
        let time = self.duration(section, name, default, TimeUnit::Seconds);
        i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
    }

    /// Bytes; a number without a unit counts `native` units, as does the default when it is shown.
    pub fn size(&self, section: &str, name: &str, default: u64, native: SizeUnit) -> u64 {
        let shown = || values::show_size(default, native);
        self.look(section, name, shown, |text| values::size(text, native))
    }

    /// Finds or makes an option, marks it used and reads its value.
    fn look<T>(
        &self,
        section: &str,
        name: &str,
        default: impl FnOnce() -> String,
        read: impl FnOnce(&str) -> T,
    ) -> T {
        let mut sections = self.sections.lock();
        let entry = sections.get_or_add(section).get_or_add(name, default);
        entry.used = true;
        read(&entry.value)
    }

    /// The value in force if there is one, without asking for it: the option stays as used or unused as it was.
    pub fn peek(&self, section: &str, name: &str) -> Option<String> {
        let sections = self.sections.lock();
        sections.get(section)?.get(name).map(|entry| entry.value.clone())
    }

    /// True when a file, the command line or the program gave the option a value.
    pub fn is_set(&self, section: &str, name: &str) -> bool {
        let sections = self.sections.lock();
        sections.get(section).and_then(|section| section.get(name)).is_some_and(|entry| entry.set)
    }

    /// True when the section was named in a file or asked for.
    pub fn has_section(&self, section: &str) -> bool {
        self.sections.lock().get(section).is_some()
    }

    /// The names of all sections, in the order of their appearance.
    pub fn sections(&self) -> Vec<String> {
        self.sections.lock().list.iter().map(|section| section.name.to_string()).collect()
    }

    /// All options of a section that were set, now used: for sections whose names are the user's own.
    pub fn take_all(&self, section: &str) -> Vec<(String, String)> {
        let mut sections = self.sections.lock();
        let section = sections.get_or_add(section);
        let set = section.list.iter_mut().filter(|entry| entry.set);
        set.map(|entry| {
            entry.used = true;
            (entry.name.to_string(), entry.value.clone())
        })
        .collect()
    }

    /// Puts a value in force, from the command line or because the one given could not be used.
    pub fn set(&self, section: &str, name: &str, value: &str) {
        let mut sections = self.sections.lock();
        let entry = sections.get_or_add(section).get_or_add(name, String::new);
        value.clone_into(&mut entry.value);
        entry.set = true;
    }

    /// Takes an option out of force: whoever asks for it next gets the default.
    pub fn unset(&self, section: &str, name: &str) {
        let mut sections = self.sections.lock();
        if let Some(section) = sections.get_mut(section) {
            section.take(name);
        }
    }

    /// What is set now.
    pub fn snapshot(&self) -> Snapshot {
        let sections = self.sections.lock();
        let of = |section: &Section| {
            let name = section.name.to_string();
            let set = section.list.iter().filter(|entry| entry.set);
            set.map(|entry| ((name.clone(), entry.name.to_string()), entry.value.clone()))
                .collect::<Vec<_>>()
        };
        sections.list.iter().flat_map(of).collect()
    }

    /// Options that have these values and nothing else.
    pub fn from_snapshot(snapshot: &Snapshot) -> Config {
        let config = Config::new();
        for ((section, name), value) in snapshot {
            config.set(section, name, value);
        }
        config
    }

    /// As [`Config::set`], but a text that already means `value` stays as the user typed it.
    pub fn set_number(&self, section: &str, name: &str, value: i64) {
        let same = self.peek(section, name).is_some_and(|text| values::number(&text) == value);
        if !same {
            self.set(section, name, &value.to_string());
        }
    }

    /// Moves options from their older places to where the program looks for them. A new place that is already set wins
    /// and the old one remains, unused. Says what was moved, for the log that is not open yet.
    pub fn migrate(&self, table: &[Known]) -> Vec<Alias> {
        let mut sections = self.sections.lock();
        let mut moved = Vec::new();
        for known in table {
            for &(section, name) in known.was {
                let wins = sections
                    .get(known.section)
                    .and_then(|section| section.get(known.name))
                    .is_some_and(|entry| entry.set);
                let Some(old) = sections.get_mut(section).filter(|_| !wins) else { continue };
                let Some(entry) = old.take(name) else { continue };
                let new = sections.get_or_add(known.section).get_or_add(known.name, String::new);
                new.value = entry.value;
                new.set = true;
                moved.push(Alias { section, name, known: (known.section, known.name) });
            }
        }
        moved
    }

    /// Asks for the options that are known but do nothing yet, so that they are shown with their defaults; returns
    /// those that somebody set to something else.
    pub fn touch_later(&self, table: &[Known]) -> Vec<(&'static str, &'static str)> {
        let mut set = Vec::new();
        for known in table {
            let State::Later { default } = known.state else { continue };
            let value = self.peek(known.section, known.name);
            if value.is_some_and(|value| Some(value.as_str()) != default) {
                set.push((known.section, known.name));
            }
            if let Some(default) = default {
                self.string(known.section, known.name, default);
            }
        }
        set
    }

    /// Sets aside the sections whose name `rename` gives another form of; the first of a name stays.
    pub(super) fn rename_sections(&self, rename: impl Fn(&str) -> Option<String>) {
        let mut sections = self.sections.lock();
        let old = std::mem::take(&mut *sections);
        for section in old.list {
            let name = rename(&section.name).unwrap_or_else(|| section.name.to_string());
            let into = sections.get_or_add(&name);
            for entry in section.list {
                let same = into.get_or_add(&entry.name, String::new);
                *same = entry;
            }
        }
    }

    /// The options of a section that somebody asked for.
    #[cfg(test)]
    pub(super) fn asked(&self, section: &str) -> Vec<String> {
        let sections = self.sections.lock();
        let list = sections.get(section).map_or(&[][..], |section| &section.list);
        list.iter().filter(|entry| entry.used).map(|entry| entry.name.to_string()).collect()
    }

    /// The effective configuration as text: `GET /netdata.conf`. Fed back as a file it gives the same agent.
    pub fn render(&self) -> String {
        let sections = self.sections.lock();
        let mut text = String::with_capacity(16 << 10);
        text.push_str(BANNER);
        for name in FIRST {
            if *name == "host labels" && sections.get(name).is_none_or(|s| s.list.is_empty()) {
                text.push_str("\n[host labels]\n\t# name = value\n");
            } else if let Some(section) = sections.get(name) {
                section.render(&mut text);
            }
        }
        let unknown = |name: &str| {
            !FIRST.contains(&name) && !LAST.contains(&name) && !name.starts_with("plugin:")
        };
        for section in sections.list.iter().filter(|section| unknown(&section.name)) {
            section.render(&mut text);
        }
        for section in LAST.iter().filter_map(|name| sections.get(name)) {
            section.render(&mut text);
        }
        for section in sections.list.iter().filter(|s| s.name.starts_with("plugin:")) {
            section.render(&mut text);
        }
        text
    }
}

impl Section {
    fn render(&self, text: &mut String) {
        if self.list.is_empty() {
            return;
        }
        let used = self.list.iter().any(|entry| entry.used);
        text.push('\n');
        // Writing to a string cannot fail.
        if !used {
            let _ = writeln!(text, "# section '{}' is not used.", self.name);
        }
        let _ = writeln!(text, "[{}]", self.name);
        for entry in &self.list {
            if used && !entry.used {
                let _ = writeln!(text, "\n\t# option '{}' is not used.", entry.name);
            }
            let mark = if entry.set { "" } else { "# " };
            let _ = writeln!(text, "\t{mark}{} = {}", entry.name, entry.value);
        }
    }
}

const BANNER: &str = "\
# netdata configuration
#
# This is what the agent runs with now. To keep a copy of it:
#
#  curl -o /etc/netdata/netdata.conf http://localhost:19999/netdata.conf
# or
#  wget -O /etc/netdata/netdata.conf http://localhost:19999/netdata.conf
#
# A line that begins with # shows a default; take the # away to set the option.
# Comments have their own lines: text after a value belongs to the value.
#

# global netdata configuration
";

/// Sections shown first, in this order …
const FIRST: &[&str] = &[
    "global",
    "db",
    "directories",
    "logs",
    "environment variables",
    "host labels",
    "sqlite",
    "cloud",
    "ml",
    "health",
    "web",
];

/// … then those nobody knows, then these, then all of `plugin:*`.
const LAST: &[&str] = &["registry", "global statistics", "plugins", "statsd"];

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Config {
        let config = Config::new();
        config.load_text(text, "test.conf", Present::Replace);
        config
    }

    const TABLE: &[Known] = &[
        Known {
            section: "db",
            name: "mode",
            state: State::Now,
            was: &[("db", "db"), ("global", "memory mode")],
        },
        Known {
            section: "db",
            name: "later",
            state: State::Later { default: Some("7") },
            was: &[],
        },
    ];

    #[test]
    fn a_default_is_remembered_and_shown_as_a_comment() {
        let config = loaded("[db]\nmode = ram\n");
        assert_eq!(config.string("db", "mode", "save"), "ram");
        assert_eq!(config.number("db", "update every", 1), 1);
        let text = config.render();
        assert!(text.contains("\n[db]\n\tmode = ram\n\t# update every = 1\n"), "{text}");
    }

    #[test]
    fn what_nobody_asked_for_is_marked() {
        let config = loaded("[db]\nmode = ram\nodd = x\n[unheard of]\no = v\n");
        config.string("db", "mode", "save");
        let text = config.render();
        assert!(text.contains("\n\n\t# option 'odd' is not used.\n\todd = x\n"), "{text}");
        assert!(text.contains("\n\n# section 'unheard of' is not used.\n[unheard of]\n\to = v\n"));
        assert!(text.contains("\n[host labels]\n\t# name = value\n"));
    }

    #[test]
    fn sections_come_in_the_known_order() {
        let config =
            loaded("[plugin:x]\na=1\n[plugins]\na=1\n[odd]\na=1\n[web]\na=1\n[global]\na=1\n");
        let text = config.render();
        let at = |name| text.find(name).unwrap();
        let order =
            ["\n[global]", "\n[host labels]", "\n[web]", "\n[odd]", "\n[plugins]", "\n[plugin:x]"];
        assert!(order.is_sorted_by_key(at), "{text}");
    }

    #[test]
    fn a_value_that_is_not_the_default_but_means_it_stays_as_typed() {
        let config = loaded("[db]\nretention = 0x1000\n");
        config.set_number("db", "retention", 4096);
        assert_eq!(config.peek("db", "retention").as_deref(), Some("0x1000"));
        config.set_number("db", "retention", 5120);
        assert_eq!(config.peek("db", "retention").as_deref(), Some("5120"));
    }

    #[test]
    fn an_old_place_moves_to_the_new_one() {
        let config = loaded("[global]\nmemory mode = ram\nhostname = h\n");
        let moved = config.migrate(TABLE);
        assert_eq!(moved[0].to_string(), "[global] 'memory mode' is read as [db] 'mode'");
        assert_eq!(config.string("db", "mode", "save"), "ram");
        assert!(!config.is_set("global", "memory mode"));
        assert_eq!(config.string("global", "hostname", ""), "h");
    }

    #[test]
    fn the_new_place_wins_over_the_old() {
        let config = loaded("[global]\nmemory mode = ram\n[db]\nmode = none\n");
        assert!(config.migrate(TABLE).is_empty());
        assert_eq!(config.string("db", "mode", "save"), "none");
        assert!(config.is_set("global", "memory mode"));
    }

    #[test]
    fn options_for_later_are_shown_and_reported_when_set() {
        let config = loaded("");
        assert!(config.touch_later(TABLE).is_empty());
        assert!(config.render().contains("\t# later = 7\n"));
        let config = loaded("[db]\nlater = 8\n");
        assert_eq!(config.touch_later(TABLE), [("db", "later")]);
    }

    #[test]
    fn the_command_line_keeps_its_values_when_a_default_file_follows() {
        let config = Config::new();
        config.set("web", "default port", "1");
        config.load_text("[web]\ndefault port = 2\nmode = none\n", "f", Present::Keep);
        assert_eq!(config.number("web", "default port", 0), 1);
        assert_eq!(config.string("web", "mode", ""), "none");
        config.load_text("[web]\ndefault port = 2\n", "f", Present::Replace);
        assert_eq!(config.number("web", "default port", 0), 2);
    }

    #[test]
    fn typed_getters_read_units_and_words() {
        let config = loaded("[s]\nt = 10m\nz = 1GiB\nd = maybe\ne =\nb = on\n");
        assert_eq!(config.seconds("s", "t", 1), 600);
        assert_eq!(config.size("s", "z", 0, SizeUnit::Mebibytes), 1 << 30);
        assert_eq!(config.on_demand("s", "d", OnDemand::Auto), OnDemand::Auto);
        assert_eq!(config.string("s", "e", "default"), "");
        assert!(config.boolean("s", "b", false));
        assert_eq!(config.seconds("s", "other", 60), 60);
        assert_eq!(config.size("s", "size", 32 << 20, SizeUnit::Mebibytes), 32 << 20);
        assert!(config.render().contains("\t# size = 32\n"));
    }

    #[test]
    fn what_is_served_loads_back_the_same() {
        let config = loaded("[global]\na b = =x\n[ s ]\nempty =\n[plugin:p]\nq = \"x\"\n");
        config.string("global", "other", "default");
        let again = loaded(&config.render());
        again.string("global", "other", "default");
        assert_eq!(again.render(), config.render());
    }
}

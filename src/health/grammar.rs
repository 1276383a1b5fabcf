//! Files of health.d to definitions of alarms. Every mistake is named with its file and line, and costs only itself.
//!
//! `key : value` lines; `alarm:` or `template:` begins a definition. Only [`load`] and [`read_file`] touch the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::alarm::{Delay, Status};
use super::expression::Expression;
use crate::base::intern::intern;
use crate::base::pattern::SimplePattern;
use crate::metrics::Labels;
use crate::query::group::Method;
use crate::query::lookup::Lookup;
use crate::query::options::Options;

/// Bytes of one file that are read.
const FILE_MAX: u64 = 4 << 20;
/// Bytes of one line, continued ones included.
const LINE_MAX: usize = 4096;
/// Definitions of all files together.
const DEFINITIONS_MAX: usize = 20_000;
/// Mistakes that are kept; a binary file in health.d has many.
const MISTAKES_MAX: usize = 1000;
const DIRECTORY_DEPTH: usize = 3;
const SUFFIX: &str = ".conf";
pub const DEFAULT_RECIPIENT: &str = "root";
pub const UNKNOWN: &str = "Unknown";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One chart, by id or name.
    Alarm,
    /// Every chart of a context.
    Template,
}

/// A list of words, and the text it came from.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: Arc<str>,
    compiled: SimplePattern,
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        Pattern { text: intern(text), compiled: SimplePattern::new(text) }
    }

    pub fn matches(&self, subject: &str) -> bool {
        self.compiled.matches(subject)
    }
}

/// `warning DURATION critical DURATION`, in seconds; 0 = never again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeat {
    pub warning: i64,
    pub critical: i64,
}

impl Repeat {
    pub fn is_on(self) -> bool {
        self.warning > 0 || self.critical > 0
    }

    /// Whether it is repetition that tells of this status.
    pub fn tells(self, status: Status) -> bool {
        match status {
            Status::Warning => self.warning > 0,
            Status::Critical => self.critical > 0,
            _ => false,
        }
    }
}

/// An alarm or template as a file defines it.
#[derive(Clone, Debug)]
pub struct Definition {
    pub kind: Kind,
    pub name: Arc<str>,
    pub on: Arc<str>,
    pub class: Arc<str>,
    pub component: Arc<str>,
    pub type_: Arc<str>,
    pub os: Option<Pattern>,
    pub hosts: Option<Pattern>,
    pub host_labels: Option<Pattern>,
    pub plugin: Option<Pattern>,
    pub module: Option<Pattern>,
    pub families: Option<Pattern>,
    pub charts: Option<Pattern>,
    pub lookup: Option<Lookup>,
    /// Dimensions that get an alarm each.
    pub foreach: Option<Arc<str>>,
    pub calc: Option<Expression>,
    pub warn: Option<Expression>,
    pub crit: Option<Expression>,
    pub every: i64,
    /// NaN where not given.
    pub green: f64,
    pub red: f64,
    pub exec: Option<Arc<str>>,
    pub to: Arc<str>,
    pub units: Option<Arc<str>>,
    pub info: Arc<str>,
    pub delay: Delay,
    /// `None`: what netdata.conf says.
    pub repeat: Option<Repeat>,
    pub no_clear: bool,
    pub line: u32,
    pub file: Arc<str>,
}

impl Definition {
    /// `LINE@FILE`
    pub fn source(&self) -> String {
        format!("{}@{}", self.line, self.file)
    }

    /// Whether it is about a host of that operating system, name and labels.
    pub fn is_for_host(&self, os: &str, hostname: &str, labels: &Labels) -> bool {
        let allows = |pattern: &Option<Pattern>, text: &str| {
            pattern.as_ref().is_none_or(|p| p.matches(text))
        };
        allows(&self.os, os)
            && allows(&self.hosts, hostname)
            && self.host_labels.as_ref().is_none_or(|pattern| {
                labels
                    .iter()
                    .any(|label| pattern.matches(&format!("{}={}", label.name, label.value)))
            })
    }
}

/// Something in a file that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub file: Arc<str>,
    pub line: u32,
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of file '{}': {}", self.line, self.file, self.text)
    }
}

/// What files came to.
#[derive(Debug, Default)]
pub struct Book {
    pub definitions: Vec<Arc<Definition>>,
    pub mistakes: Vec<Mistake>,
    /// Things worth saying that are no mistakes.
    pub remarks: Vec<Mistake>,
}

impl Book {
    fn mistake(&mut self, file: &Arc<str>, line: u32, text: String) {
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(Mistake { file: Arc::clone(file), line, text });
        }
    }
}

// --- files ------------------------------------------------------------------------------------------

/// Reads both directories: a file of the user replaces the stock file of its name, a directory of the user the stock one.
pub fn load(user: &Path, stock: Option<&Path>) -> Book {
    let mut files = BTreeMap::new();
    if let Some(stock) = stock.filter(|stock| *stock != user) {
        find(stock, Path::new(""), user, 0, &mut files);
    }
    let mut own = BTreeMap::new();
    find(user, Path::new(""), Path::new(""), 0, &mut own);
    files.retain(|name, _| !own.contains_key(name));
    let mut book = Book::default();
    for path in own.values().chain(files.values()) {
        read_file(path, &mut book);
    }
    book
}

/// Files below `root`, by their path in it. Directories that `hiding` has too are left out, below the top.
fn find(
    root: &Path,
    inside: &Path,
    hiding: &Path,
    depth: usize,
    files: &mut BTreeMap<PathBuf, PathBuf>,
) {
    let Ok(entries) = fs::read_dir(root.join(inside)) else { return };
    for entry in entries.flatten() {
        let name = inside.join(entry.file_name());
        let path = root.join(&name);
        // A link counts as what it leads to.
        let Ok(about) = fs::metadata(&path) else { continue };
        let text = entry.file_name();
        let text = text.to_string_lossy();
        if about.is_dir() && depth < DIRECTORY_DEPTH && !text.starts_with('.') {
            if hiding.as_os_str().is_empty() || !hiding.join(&name).is_dir() {
                find(root, &name, hiding, depth + 1, files);
            }
        } else if about.is_file() && text.len() > SUFFIX.len() && text.ends_with(SUFFIX) {
            files.insert(name, path);
        }
    }
}

/// Adds what a file defines.
pub fn read_file(path: &Path, book: &mut Book) {
    let name: Arc<str> = intern(&path.to_string_lossy());
    let mut bytes = Vec::new();
    let read = match fs::metadata(path) {
        // A pipe would make us wait for whoever writes it.
        Ok(about) if !about.is_file() => Err(io::Error::other("it is no regular file")),
        _ => fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes)),
    };
    match read {
        Ok(_) => read_text(&String::from_utf8_lossy(&bytes), &name, book),
        Err(error) => book.mistake(&name, 0, format!("cannot read it: {error}")),
    }
}

/// Adds what a text defines.
pub fn read_text(text: &str, file: &Arc<str>, book: &mut Book) {
    let mut draft: Option<Draft> = None;
    let mut lines = text.lines().zip(1u32..);
    while let Some((first, number)) = lines.next() {
        let mut line = first.trim().to_owned();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        while let Some(head) = line.strip_suffix('\\') {
            let head = head.trim_end().to_owned();
            let Some((next, _)) = lines.next() else {
                line = head;
                break;
            };
            line = format!("{head} {}", next.trim());
            if line.len() > LINE_MAX {
                break;
            }
        }
        if line.len() > LINE_MAX {
            book.mistake(file, number, format!("it is longer than {LINE_MAX} bytes. Ignoring it."));
            continue;
        }
        let Some((key, value)) = line.split_once(':') else {
            book.mistake(file, number, format!("there is no ':' in '{line}'. Ignoring it."));
            continue;
        };
        let (key, value) = (collapse(key).to_ascii_lowercase(), collapse(value));
        if key.is_empty() || value.is_empty() {
            let what = if key.is_empty() { "a name" } else { "a value" };
            book.mistake(file, number, format!("'{line}' lacks {what}. Ignoring it."));
            continue;
        }
        let kind = match key.as_str() {
            "alarm" => Some(Kind::Alarm),
            "template" => Some(Kind::Template),
            _ => None,
        };
        if let Some(kind) = kind {
            if let Some(done) = draft.take() {
                done.finish(book);
            }
            draft = Some(Draft::new(kind, &value, number, file, book));
        } else if let Some(draft) = &mut draft {
            if let Err(text) = draft.take(&key, &value, number, book) {
                let name = Arc::clone(&draft.definition.name);
                book.mistake(file, number, format!("alarm '{name}': {text}"));
            }
        } else {
            book.mistake(
                file,
                number,
                format!("'{key}' stands before any alarm or template. Ignoring it."),
            );
        }
    }
    if let Some(done) = draft {
        done.finish(book);
    }
}

/// White space at the ends goes, runs of it become one blank.
fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unquoted(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '"' | '\'') { ' ' } else { c }).collect()
}

// --- definitions ------------------------------------------------------------------------------------

struct Draft {
    definition: Definition,
    /// From `every`; otherwise the look-up's own.
    every: Option<i64>,
    lookup_every: i64,
    given: Vec<(String, String)>,
}

impl Draft {
    fn new(kind: Kind, name: &str, line: u32, file: &Arc<str>, book: &mut Book) -> Draft {
        let clean: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '_' })
            .collect();
        if clean != name {
            book.remarks.push(Mistake {
                file: Arc::clone(file),
                line,
                text: format!("alarm name '{name}' renamed to '{clean}'"),
            });
        }
        let unknown = intern(UNKNOWN);
        Draft {
            definition: Definition {
                kind,
                name: intern(&clean),
                on: intern(""),
                class: Arc::clone(&unknown),
                component: Arc::clone(&unknown),
                type_: unknown,
                os: None,
                hosts: None,
                host_labels: None,
                plugin: None,
                module: None,
                families: None,
                charts: None,
                lookup: None,
                foreach: None,
                calc: None,
                warn: None,
                crit: None,
                every: 0,
                green: f64::NAN,
                red: f64::NAN,
                exec: None,
                to: intern(DEFAULT_RECIPIENT),
                units: None,
                info: intern(""),
                delay: Delay::default(),
                repeat: None,
                no_clear: false,
                line,
                file: Arc::clone(file),
            },
            every: None,
            lookup_every: 0,
            given: Vec::new(),
        }
    }

    fn take(&mut self, key: &str, value: &str, line: u32, book: &mut Book) -> Result<(), String> {
        if let Some((_, before)) = self.given.iter().find(|(known, _)| known == key)
            && before != value
        {
            let text = format!(
                "'{key}' is given twice, with '{before}' and with '{value}'. Using '{value}'."
            );
            book.mistake(&self.definition.file, line, text);
        }
        let d = &mut self.definition;
        match key {
            "on" => d.on = intern(value),
            "class" => d.class = intern(&unquoted(value)),
            "component" => d.component = intern(&unquoted(value)),
            "type" => d.type_ = intern(&unquoted(value)),
            "os" => d.os = Some(Pattern::new(value)),
            "hosts" => d.hosts = Some(Pattern::new(value)),
            "host labels" => {
                let joined = value.replace(" =", "=").replace("= ", "=");
                d.host_labels = Some(Pattern::new(&joined));
            }
            "plugin" => d.plugin = Some(Pattern::new(value)),
            "module" => d.module = Some(Pattern::new(value)),
            "families" if d.kind == Kind::Template => d.families = Some(Pattern::new(value)),
            "charts" if d.kind == Kind::Template => d.charts = Some(Pattern::new(value)),
            "lookup" => {
                let (lookup, foreach, every) = lookup(value)?;
                (d.lookup, d.foreach, self.lookup_every) = (Some(lookup), foreach, every);
            }
            "calc" | "warn" | "crit" => {
                let expression = Expression::parse(value).map_err(|mistake| {
                    format!("cannot parse {key} expression '{value}': {mistake}")
                })?;
                if expression.is_read_differently() {
                    book.remarks.push(Mistake {
                        file: Arc::clone(&d.file),
                        line,
                        text: format!(
                            "alarm '{}': {key} '{value}' means '{}' here; Netdata 1.x reads it in another way, \
                             parentheses make both read the same",
                            d.name,
                            expression.parsed()
                        ),
                    });
                }
                let place = match key {
                    "calc" => &mut d.calc,
                    "warn" => &mut d.warn,
                    _ => &mut d.crit,
                };
                *place = Some(expression);
            }
            "every" => {
                let every = duration(value).ok_or_else(|| not_a_duration(key, value))?;
                self.every = Some(every.max(0));
            }
            "green" | "red" => {
                let number =
                    value.parse::<f64>().map_err(|_| format!("'{key}' is no number: '{value}'"))?;
                *(if key == "green" { &mut d.green } else { &mut d.red }) = number;
            }
            "exec" => d.exec = Some(intern(value)),
            "to" => d.to = intern(value),
            "units" => d.units = Some(intern(&unquoted(value))),
            "info" => d.info = intern(&unquoted(value)),
            "delay" => d.delay = delay(value)?,
            "repeat" => d.repeat = Some(repeat(value)?),
            "options" => {
                for word in value.split(' ') {
                    if matches!(word, "no-clear-notification" | "no-clear") {
                        d.no_clear = true;
                    } else {
                        return Err(format!("unknown option '{word}'"));
                    }
                }
            }
            _ => return Err(format!("unknown key '{key}'. Ignoring it.")),
        }
        self.given.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    fn finish(self, book: &mut Book) {
        let mut d = self.definition;
        d.every = self.every.filter(|every| *every > 0).unwrap_or(self.lookup_every);
        let refusal = if d.on.is_empty() {
            Some("does not say what it is on (parameter 'on'). Ignoring it.")
        } else if d.lookup.is_none() && d.calc.is_none() && d.warn.is_none() && d.crit.is_none() {
            Some(
                "is useless (no db lookup, no calculation, no warning and no critical expressions)",
            )
        } else if d.every <= 0 {
            Some("has no frequency (parameter 'every'). Ignoring it.")
        } else if book.definitions.len() >= DEFINITIONS_MAX {
            Some("is one too many. Ignoring it.")
        } else {
            None
        };
        match refusal {
            Some(text) => {
                let (file, line) = (Arc::clone(&d.file), d.line);
                book.mistake(&file, line, format!("alarm '{}' {text}", d.name));
            }
            None => book.definitions.push(Arc::new(d)),
        }
    }
}

fn not_a_duration(key: &str, value: &str) -> String {
    format!("'{key}' is no duration: '{value}'")
}

/// Seconds of `10m`, `-1.5h`, `never`; a number without a unit, or with an unknown one, is seconds.
pub fn duration(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("never") {
        return Some(0);
    }
    let length = text
        .char_indices()
        .take_while(|(at, c)| {
            c.is_ascii_digit() || *c == '.' || (*at == 0 && matches!(c, '-' | '+'))
        })
        .count();
    let (number, unit) = text.split_at(length);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.chars().next() {
        Some('Y') => 365.0 * 86_400.0,
        Some('M') => 30.0 * 86_400.0,
        Some('w') => 7.0 * 86_400.0,
        Some('d') => 86_400.0,
        Some('h') => 3600.0,
        Some('m') => 60.0,
        _ => 1.0,
    };
    // Ten years are enough for any alarm.
    const MOST: f64 = 10.0 * 365.0 * 86_400.0;
    #[expect(clippy::cast_possible_truncation, reason = "bounded by MOST")]
    let seconds = (number * factor).round().clamp(-MOST, MOST) as i64;
    Some(seconds)
}

/// The look-up, the dimensions that get an alarm each, and how often it runs unless that is said elsewhere.
fn lookup(text: &str) -> Result<(Lookup, Option<Arc<str>>, i64), String> {
    let mut words = text.split(' ');
    let word = words.next().unwrap_or("").to_ascii_lowercase();
    let (method, name) = Method::parse(&word);
    if name == "average" && !matches!(word.as_str(), "average" | "mean") {
        return Err(format!("lookup has an unknown method '{word}'"));
    }
    let after = words.next().unwrap_or("");
    let after = duration(after)
        .ok_or_else(|| format!("lookup needs a duration after '{word}', not '{after}'"))?;
    let mut lookup = Lookup {
        method,
        name,
        after,
        before: 0,
        options: Options::empty(),
        dimensions: intern(""),
    };
    let mut every = after.abs();
    let mut foreach = None;
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_str() {
            "at" => {
                let text = words.next().unwrap_or("");
                lookup.before = duration(text).ok_or_else(|| not_a_duration("lookup at", text))?;
            }
            "every" => {
                let text = words.next().unwrap_or("");
                every = duration(text).ok_or_else(|| not_a_duration("lookup every", text))?;
            }
            kind @ ("of" | "foreach") => {
                let mut rest: Vec<&str> = words.by_ref().collect();
                if kind == "of"
                    && let Some(at) =
                        rest.iter().position(|word| word.eq_ignore_ascii_case("foreach"))
                {
                    foreach = Some(rest[at + 1..].join(" "));
                    rest.truncate(at);
                }
                let list = rest.join(" ");
                if kind == "of" {
                    if !list.eq_ignore_ascii_case("all") {
                        lookup.dimensions = intern(&list);
                    }
                } else {
                    foreach = Some(list);
                }
            }
            option => match option_of(option) {
                Some(option) => lookup.options |= option,
                None => return Err(format!("lookup has an unknown option '{word}'")),
            },
        }
    }
    let foreach = foreach.filter(|list| !list.is_empty()).map(|list| intern(&list));
    Ok((lookup, foreach, every))
}

fn option_of(word: &str) -> Option<Options> {
    const KNOWN: &[&str] = &[
        "absolute",
        "abs",
        "absolute_sum",
        "absolute-sum",
        "min2max",
        "null2zero",
        "percentage",
        "unaligned",
        "anomaly-bit",
        "match-ids",
        "match_ids",
        "match-names",
        "match_names",
    ];
    KNOWN.contains(&word).then(|| Options::parse(word))
}

/// `[up D] [down D] [multiplier M] [max D]`
fn delay(text: &str) -> Result<Delay, String> {
    let mut delay = Delay::default();
    let mut most = None;
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("delay lacks a value after '{word}'"))?;
        let seconds = || duration(value).ok_or_else(|| not_a_duration("delay", value));
        match word.to_ascii_lowercase().as_str() {
            "up" => delay.up = seconds()?.max(0),
            "down" => delay.down = seconds()?.max(0),
            "max" => most = Some(seconds()?),
            "multiplier" => {
                delay.multiplier = value
                    .parse::<f64>()
                    .ok()
                    .filter(|m| m.is_finite() && *m > 0.0)
                    .ok_or_else(|| format!("delay has a multiplier that is none: '{value}'"))?;
            }
            _ => return Err(format!("delay has an unknown word '{word}'")),
        }
    }
    let longest = delay.times(delay.up).max(delay.times(delay.down));
    delay.max = most.filter(|most| *most > 0).unwrap_or(longest);
    Ok(delay)
}

/// `off`, or `warning D critical D`.
fn repeat(text: &str) -> Result<Repeat, String> {
    let mut repeat = Repeat::default();
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("off") {
            return Ok(Repeat::default());
        }
        let value = words.next().ok_or_else(|| format!("repeat lacks a value after '{word}'"))?;
        let seconds = duration(value).ok_or_else(|| not_a_duration("repeat", value))?.max(0);
        match word.to_ascii_lowercase().as_str() {
            "warning" => repeat.warning = seconds,
            "critical" => repeat.critical = seconds,
            _ => return Err(format!("repeat has an unknown word '{word}'")),
        }
    }
    Ok(repeat)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Book {
        let mut book = Book::default();
        read_text(text, &"f.conf".into(), &mut book);
        book
    }

    #[test]
    fn a_definition_has_every_key() {
        let book = read(
            "# a comment\n ALARM: my alarm\n  on: t.c\n class: A \"b\"\n type: T\n component: C\n os: linux\n hosts: *\n\
             host labels: _os = lin* b=c\n plugin: p\n module: m\n\
             lookup: Average -1m at -5s every 20s unaligned percentage of a,b c foreach x*\n calc: $this \\\n + 1\n\
             warn: $this > 1\n crit: $this > 2\n green: 1\n red: 2.5\n exec: /x\n to: sysadmin me\n units: a'b\n\
             info: some: text\n delay: up 10s down 1m multiplier 1.5 max 1h\n repeat: warning 1h critical 10m\n\
             options: no-clear\n",
        );
        assert_eq!(book.mistakes, []);
        assert_eq!(book.remarks.len(), 1, "the name");
        let d = &book.definitions[0];
        assert_eq!((&*d.name, &*d.on, d.kind, d.every), ("my_alarm", "t.c", Kind::Alarm, 20));
        assert_eq!((&*d.class, &*d.type_, &*d.component), ("A  b ", "T", "C"));
        assert_eq!(&*d.host_labels.as_ref().unwrap().text, "_os=lin* b=c");
        let l = d.lookup.as_ref().unwrap();
        assert_eq!((l.after, l.before, l.name, &*l.dimensions), (-60, -5, "average", "a,b c"));
        assert_eq!(l.options, Options::UNALIGNED | Options::PERCENTAGE);
        assert_eq!(d.foreach.as_deref(), Some("x*"));
        assert_eq!(d.calc.as_ref().unwrap().source(), "$this + 1");
        assert_eq!(
            (d.green, d.red, &*d.to, d.units.as_deref()),
            (1.0, 2.5, "sysadmin me", Some("a b"))
        );
        assert_eq!(&*d.info, "some: text");
        assert_eq!((d.delay.up, d.delay.down, d.delay.max), (10, 60, 3600));
        assert_eq!(d.repeat, Some(Repeat { warning: 3600, critical: 600 }));
        assert!(d.no_clear);
        assert_eq!(d.source(), "2@f.conf");
    }

    #[test]
    fn mistakes_are_named_and_cost_only_themselves() {
        let book = read(
            "units: x\nalarm: a\non: t.c\nnonsense\nwhat: ever\nunits:\ncalc: 1 +\nwarn: $x > 1\nlookup: guess -1m\n\
             lookup: sum soon\nevery: 5s\nfamilies: x\nevery: 5s\nevery: 6s\ndelay: sideways 1s\n\
             template: useless\non: c\nevery: 1s\ntemplate: never\non: c\nwarn: 1\nalarm: nowhere\nwarn: 1\nevery: 1s\n",
        );
        let lines: Vec<u32> = book.mistakes.iter().map(|m| m.line).collect();
        assert_eq!(lines, [1, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 19, 22]);
        assert_eq!(book.definitions.len(), 1);
        let d = &book.definitions[0];
        assert_eq!((d.every, d.calc.is_none(), d.warn.is_some()), (6, true, true));
        assert!(book.mistakes[0].to_string().starts_with("line 1 of file 'f.conf': "));
    }

    #[test]
    fn durations_have_one_letter() {
        for (text, want) in [
            ("10", 10),
            ("5s", 5),
            ("-10m", -600),
            ("1.5h", 5400),
            ("2d", 172_800),
            ("1w", 604_800),
            ("1M", 2_592_000),
            ("1Y", 31_536_000),
            ("never", 0),
            ("7x", 7),
        ] {
            assert_eq!(duration(text), Some(want), "{text}");
        }
        assert_eq!(duration("soon"), None);
        assert_eq!(duration(""), None);
    }

    #[test]
    fn the_longest_delay_follows_from_the_others() {
        let d = delay("up 10s down 1m multiplier 2").unwrap();
        assert_eq!((d.up, d.down, d.max, d.multiplier), (10, 60, 120, 2.0));
    }

    #[test]
    fn user_files_replace_stock_files_of_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let alarm = |name: &str| format!("alarm: {name}\non: t.x\nevery: 1s\nwarn: 1\n");
        for file in ["a.conf", "b.conf", "c.conf", "sub/x.conf", "deep/1/2/3/4.conf", ".conf"] {
            put(&format!("stock/{file}"), &alarm(&format!("stock_{}", file.replace('/', "_"))));
        }
        put("user/b.conf", &alarm("user_b"));
        put("user/c.conf", "");
        put("user/sub/e.conf", &alarm("user_e"));
        put("user/f.txt", &alarm("user_f"));
        std::os::unix::fs::symlink("/dev/null", dir.path().join("user/a.conf")).unwrap();
        let book = load(&dir.path().join("user"), Some(&dir.path().join("stock")));
        let mut names: Vec<String> = book.definitions.iter().map(|d| d.name.to_string()).collect();
        names.sort();
        assert_eq!(names, ["stock_a.conf", "user_b", "user_e"]);
        assert_eq!(load(&dir.path().join("user"), None).definitions.len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(alarm|template|lookup|calc|every|delay|repeat|on|[a-z ]{0,5}|\\\\|:|\n|[ -~]{0,12}){0,30}") {
            read(&text);
        }
    }
}

//! The logs an operator reads: error.log, access.log, health.log and debug.log, in the layout of 1.37.
//!
//! Everybody logs through the `log` crate; `env_logger` calls back here for the layout. error.log is whatever
//! descriptor 2 is and debug.log whatever descriptor 1 is, so plugins that inherit them write to the same files and
//! reopening is one atomic replacement. Every line is written by one `write` to a file opened for appending, so lines of
//! several processes do not mix.
//!
//! A message that repeats too often is held back by its place in the sources, not the whole process: a node that is
//! flooded by one fault still reports the others.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use log::{Level, LevelFilter, Record};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use super::time::Clock;
use super::{PROGRAM, sys, threads};

/// Lines of one message that pass per period however low the limit, while starting, stopping or reloading.
const LINES_WHILE_CHANGING: u32 = 10_000;

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Nowhere,
    File(PathBuf),
    Stdout,
    Stderr,
    Syslog,
}

impl Target {
    /// The words of `[logs]`; anything else is a path.
    pub fn parse(text: &str) -> Target {
        match text {
            "none" | "off" | "/dev/null" | "" => Target::Nowhere,
            "stdout" => Target::Stdout,
            "stderr" => Target::Stderr,
            "syslog" | "system" => Target::Syslog,
            path => Target::File(PathBuf::from(path)),
        }
    }
}

/// What `[logs]` asks for.
#[derive(Clone, Debug)]
pub struct Options {
    pub error: Target,
    pub access: Target,
    pub health: Target,
    pub debug: Target,
    /// A word of syslog, `daemon` or `local0` for instance.
    pub facility: String,
    /// Zero turns the protection off.
    pub flood_period: Duration,
    /// Lines of one message per period; zero lets nothing through.
    pub flood_lines: u32,
    /// Write debug.log at all.
    pub debugging: bool,
}

static STATE: LazyLock<State> = LazyLock::new(State::default);
static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::system);

#[derive(Default)]
struct State {
    options: Mutex<Option<Options>>,
    access: RwLock<Sink>,
    health: RwLock<Sink>,
    /// Set when error.log is syslog.
    error: RwLock<Option<Syslog>>,
    flood: Mutex<Flood>,
}

#[derive(Default)]
enum Sink {
    #[default]
    Nowhere,
    File(File),
    Stdout,
    Stderr,
    Syslog(Syslog),
}

/// Takes over the `log` crate. Until [`open`] is called, lines go to standard error.
pub fn start() {
    let installed = env_logger::Builder::new()
        .filter_level(LevelFilter::Trace)
        .write_style(env_logger::WriteStyle::Never)
        .target(env_logger::Target::Pipe(Box::new(ErrorLog)))
        .format(|line, record| {
            let text = render(record);
            if record.level() > Level::Info {
                return io::stdout().write_all(text.as_bytes());
            }
            let verdict = STATE.flood.lock().judge(record, CLOCK.monotonic_us() / 1_000_000);
            match verdict {
                Verdict::Pass => line.write_all(text.as_bytes()),
                Verdict::PassAfter(notice) => write!(line, "{notice}{text}"),
                Verdict::Hold => Ok(()),
                Verdict::HoldAfter(notice) => line.write_all(notice.as_bytes()),
            }
        })
        .try_init();
    // A second start, as tests do it, keeps the first.
    if installed.is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Opens all logs. One that cannot be opened stays where it was, with an error line that says so.
pub fn open(options: Options) {
    STATE.flood.lock().limit(options.flood_period, options.flood_lines);
    log::set_max_level(if options.debugging { LevelFilter::Trace } else { LevelFilter::Info });
    *STATE.options.lock() = Some(options);
    reopen();
}

/// Opens the files anew, after somebody renamed them.
pub fn reopen() {
    let Some(options) = STATE.options.lock().clone() else { return };
    let facility = facility(&options.facility);
    redirect(&options.debug, Standard::Out);
    // Lines of the others about a file that cannot be opened belong into the new error.log.
    *STATE.error.write() = (options.error == Target::Syslog).then(|| Syslog::new(facility));
    redirect(&options.error, Standard::Error);
    for (target, sink) in [(&options.access, &STATE.access), (&options.health, &STATE.health)] {
        let opened = match target {
            Target::Nowhere => Sink::Nowhere,
            Target::Stdout => Sink::Stdout,
            Target::Stderr => Sink::Stderr,
            Target::Syslog => Sink::Syslog(Syslog::new(facility)),
            Target::File(path) => match append_to(path) {
                Ok(file) => Sink::File(file),
                Err(error) => {
                    log::error!("Cannot open file '{}'{}", path.display(), Errno(&error));
                    continue;
                }
            },
        };
        *sink.write() = opened;
    }
}

#[derive(Clone, Copy)]
enum Standard {
    Out,
    Error,
}

fn redirect(target: &Target, standard: Standard) {
    let path = match target {
        Target::Nowhere | Target::Syslog => Path::new("/dev/null"),
        Target::File(path) => path,
        Target::Stdout | Target::Stderr => return,
    };
    let done = append_to(path).and_then(|file| match standard {
        Standard::Out => sys::replace_stdout(&file),
        Standard::Error => sys::replace_stderr(&file),
    });
    if let Err(error) = done {
        log::error!(
            "Cannot open file '{}'. Leaving its log as it was.{}",
            path.display(),
            Errno(&error)
        );
    }
}

/// Opens a log for appending; the umask decides who else may read it.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o664).open(path)
}

/// Starting, stopping and reloading say much at once; the flood protection lets it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Changing,
    Steady,
}

pub fn phase(phase: Phase) {
    STATE.flood.lock().phase = Some(phase);
}

/// A line of access.log; use it through [`crate::access_log!`].
pub fn access(message: fmt::Arguments<'_>) {
    write_to(&STATE.access, message);
}

/// A line of health.log.
pub fn health(message: fmt::Arguments<'_>) {
    write_to(&STATE.health, message);
}

/// Writes a formatted line to access.log.
#[macro_export]
macro_rules! access_log {
    ($($text:tt)*) => { $crate::base::log::access(format_args!($($text)*)) };
}

/// Says why the process cannot go on. The caller ends it.
pub fn fatal(message: fmt::Arguments<'_>) {
    let text = layout("FATAL", message);
    let _ = ErrorLog.write_all(text.as_bytes());
}

fn write_to(sink: &RwLock<Sink>, message: fmt::Arguments<'_>) {
    let sink = sink.read();
    if matches!(*sink, Sink::Nowhere) {
        return;
    }
    LINE.with_borrow_mut(|line| {
        line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(line, "{}: {}", Now, OneLine(message));
        // A log that cannot be written has nobody to tell.
        let _ = match &*sink {
            Sink::Nowhere => Ok(()),
            Sink::File(file) => (&mut &*file).write_all(line.as_bytes()),
            Sink::Stdout => io::stdout().write_all(line.as_bytes()),
            Sink::Stderr => io::stderr().write_all(line.as_bytes()),
            Sink::Syslog(syslog) => {
                syslog.send(Level::Info, line);
                Ok(())
            }
        };
    });
}

thread_local! {
    /// Lines are put together here, so that writing one allocates nothing.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Takes finished lines for error.log.
struct ErrorLog;

impl io::Write for ErrorLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.is_empty() {
            return Ok(0);
        }
        if let Some(syslog) = &*STATE.error.read() {
            let text = String::from_utf8_lossy(line);
            let bad = text.contains(" ERROR : ") || text.contains(" FATAL : ");
            syslog.send(if bad { Level::Error } else { Level::Info }, &text);
            return Ok(line.len());
        }
        io::stderr().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn render(record: &Record<'_>) -> String {
    match record.level() {
        Level::Error | Level::Warn => layout("ERROR", *record.args()),
        Level::Info => layout("INFO ", *record.args()),
        Level::Debug | Level::Trace => layout(
            "DEBUG",
            format_args!(
                "({:04}@{}:{}): {}",
                record.line().unwrap_or(0),
                short_path(record.file().unwrap_or("?")),
                record.module_path().unwrap_or("?"),
                record.args()
            ),
        ),
    }
}

fn layout(level: &str, message: fmt::Arguments<'_>) -> String {
    threads::with_name(|tag| format!("{Now}: {PROGRAM} {level} : {tag} : {}\n", OneLine(message)))
}

fn short_path(file: &str) -> &str {
    file.strip_prefix("src/").unwrap_or(file)
}

/// The local time of a line.
struct Now;

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = sys::local_time(CLOCK.now_seconds());
        write!(
            f,
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            t.year, t.month, t.day, t.hour, t.minute, t.second
        )
    }
}

/// A message without line ends, so that nobody whose text we log can write lines of their own.
struct OneLine<'a>(fmt::Arguments<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Filter<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Filter<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for (number, piece) in text.split(['\n', '\r', '\0', '\x1b']).enumerate() {
                    if number > 0 {
                        self.0.write_char(' ')?;
                    }
                    self.0.write_str(piece)?;
                }
                Ok(())
            }
        }
        Filter(f).write_fmt(self.0)
    }
}

/// ` (errno 111, Connection refused)`, or nothing for an error that did not come from the system.
pub struct Errno<'a>(pub &'a io::Error);

impl fmt::Display for Errno<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => {
                let text = self.0.to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                write!(f, " (errno {number}, {text})")
            }
            None => write!(f, " ({})", self.0),
        }
    }
}

// ------------------------------------------------------------------ flood protection

/// How often each message came. A message is a place in the sources.
#[derive(Default)]
struct Flood {
    period_s: i64,
    lines: u32,
    phase: Option<Phase>,
    sites: FxHashMap<(&'static str, u32), Site>,
}

#[derive(Default)]
struct Site {
    since_s: i64,
    lines: u32,
    held: u32,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Pass,
    PassAfter(String),
    Hold,
    HoldAfter(String),
}

impl Flood {
    fn limit(&mut self, period: Duration, lines: u32) {
        self.period_s = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
        self.lines = lines;
        self.sites.clear();
    }

    fn judge(&mut self, record: &Record<'_>, now_s: i64) -> Verdict {
        let place = (record.file_static().unwrap_or(""), record.line().unwrap_or(0));
        self.count(place, now_s)
    }

    fn count(&mut self, place: (&'static str, u32), now_s: i64) -> Verdict {
        if self.period_s == 0 {
            return Verdict::Pass;
        }
        if self.lines == 0 {
            return Verdict::Hold;
        }
        let limit = match self.phase {
            Some(Phase::Steady) => self.lines,
            _ => self.lines.saturating_mul(10).max(LINES_WHILE_CHANGING),
        };
        let (period_s, threshold) = (self.period_s, self.lines);
        let site = self.sites.entry(place).or_default();
        let mut resumed = None;
        if site.lines == 0 {
            site.since_s = now_s;
        } else if now_s - site.since_s >= period_s {
            let (held, over) = (site.held, now_s - site.since_s);
            resumed = (held > 0).then(|| {
                notice(format_args!(
                    "resuming logging from process '{PROGRAM}' (prevented {held} logs in the last {over} seconds)."
                ))
            });
            *site = Site { since_s: now_s, ..Site::default() };
        }
        site.lines = site.lines.saturating_add(1);
        if site.lines <= limit {
            return resumed.map_or(Verdict::Pass, Verdict::PassAfter);
        }
        site.held = site.held.saturating_add(1);
        if site.held > 1 {
            return Verdict::Hold;
        }
        let (over, left) = (now_s - site.since_s, period_s - (now_s - site.since_s));
        Verdict::HoldAfter(notice(format_args!(
            "too many logs ({} logs in {over} seconds, threshold is set to {threshold} logs in {period_s} seconds). \
             Preventing more logs from process '{PROGRAM}' for {left} seconds. Only the lines of {}:{} are held back.",
            site.lines,
            short_path(place.0),
            place.1
        )))
    }
}

fn notice(text: fmt::Arguments<'_>) -> String {
    format!("{Now}: {PROGRAM} LOG FLOOD PROTECTION {text}\n")
}

// ------------------------------------------------------------------ syslog

struct Syslog {
    socket: Option<UnixDatagram>,
    facility: u8,
}

impl Syslog {
    const SOCKET: &str = "/dev/log";

    fn new(facility: u8) -> Syslog {
        let socket = UnixDatagram::unbound().ok();
        // A syslog that is full or gone must not hold the agent up.
        let socket = socket.filter(|s| s.set_nonblocking(true).is_ok());
        Syslog { socket, facility }
    }

    /// Sends a finished line without its own date, which syslog adds.
    fn send(&self, level: Level, line: &str) {
        let Some(socket) = &self.socket else { return };
        let severity = if level == Level::Error { 3 } else { 6 };
        let text = line.splitn(4, ": ").last().unwrap_or(line).trim_end();
        let packet =
            format!("<{}>{PROGRAM}[{}]: {text}", self.facility * 8 + severity, std::process::id());
        // Nobody is left to tell.
        let _ = socket.send_to(packet.as_bytes(), Self::SOCKET);
    }
}

fn facility(word: &str) -> u8 {
    match word {
        "user" => 1,
        "mail" => 2,
        "auth" => 4,
        "syslog" => 5,
        "lpr" => 6,
        "news" => 7,
        "uucp" => 8,
        "cron" => 9,
        "authpriv" => 10,
        "ftp" => 11,
        _ => match word.strip_prefix("local").and_then(|n| n.parse::<u8>().ok()) {
            Some(n) if n < 8 => 16 + n,
            _ => 3,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_paths_are_targets() {
        for (text, want) in [
            ("none", Target::Nowhere),
            ("/dev/null", Target::Nowhere),
            ("stderr", Target::Stderr),
            ("stdout", Target::Stdout),
            ("syslog", Target::Syslog),
            ("/x/error.log", Target::File("/x/error.log".into())),
        ] {
            assert_eq!(Target::parse(text), want);
        }
    }

    #[test]
    fn a_line_has_the_layout_that_people_grep() {
        let line =
            threads::spawn("STREAM_SENDER[child]", || layout("INFO ", format_args!("one\ntwo")))
                .unwrap()
                .join()
                .unwrap();
        let (date, rest) = line.split_at(19);
        assert!(date.as_bytes()[4] == b'-' && date.as_bytes()[13] == b':', "{line}");
        assert_eq!(rest, ": netdata INFO  : STREAM_SENDER[child] : one two\n");
    }

    #[test]
    fn an_error_number_is_named() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(Errno(&refused).to_string(), " (errno 111, Connection refused)");
    }

    fn flood(period: u64, lines: u32) -> Flood {
        let mut flood = Flood { phase: Some(Phase::Steady), ..Flood::default() };
        flood.limit(Duration::from_secs(period), lines);
        flood
    }

    #[test]
    fn a_message_that_repeats_is_held_back_and_comes_again_after_the_period() {
        let mut flood = flood(100, 2);
        let place = ("src/a.rs", 1);
        assert_eq!(flood.count(place, 10), Verdict::Pass);
        assert_eq!(flood.count(place, 11), Verdict::Pass);
        let Verdict::HoldAfter(notice) = flood.count(place, 20) else { panic!("not held") };
        assert!(
            notice.ends_with(
                "netdata LOG FLOOD PROTECTION too many logs (3 logs in 10 seconds, threshold is set to 2 logs in 100 \
                 seconds). Preventing more logs from process 'netdata' for 90 seconds. Only the lines of a.rs:1 are \
                 held back.\n"
            ),
            "{notice}"
        );
        assert_eq!(flood.count(place, 109), Verdict::Hold);
        let Verdict::PassAfter(notice) = flood.count(place, 110) else { panic!("not resumed") };
        assert!(notice.contains("(prevented 2 logs in the last 100 seconds)."), "{notice}");
        assert_eq!(flood.count(place, 111), Verdict::Pass);
    }

    #[test]
    fn another_message_still_passes() {
        let mut flood = flood(100, 1);
        assert_eq!(flood.count(("a", 1), 0), Verdict::Pass);
        assert!(matches!(flood.count(("a", 1), 0), Verdict::HoldAfter(_)));
        assert_eq!(flood.count(("a", 2), 0), Verdict::Pass);
    }

    #[test]
    fn no_period_lets_all_pass_and_no_lines_lets_none() {
        let mut off = flood(0, 1);
        assert!((0..10).all(|_| off.count(("a", 1), 0) == Verdict::Pass));
        assert_eq!(flood(100, 0).count(("a", 1), 0), Verdict::Hold);
    }

    #[test]
    fn a_start_may_say_much() {
        let mut flood = flood(100, 1);
        flood.phase = None;
        assert!((0..10_000).all(|_| flood.count(("a", 1), 0) == Verdict::Pass));
    }

    #[test]
    fn facilities_have_their_numbers() {
        assert_eq!((facility("daemon"), facility("local7"), facility("odd")), (3, 23, 3));
    }
}

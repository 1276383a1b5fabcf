//! The command line: options are taken from left to right into the configuration, as the original takes them, and
//! what only prints something is done on the spot.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::buildinfo;
use super::settings::{STOCK_CONFIG_DIR, USER_CONFIG_DIR};
use crate::base::VERSION;
use crate::base::number::Sample;
use crate::base::pattern::{SimplePattern, Wildcarded};
use crate::config::{Config, NETDATA_CONF, Present};

/// What the command line asks for.
pub(super) enum Wish {
    Run(CommandLine),
    /// Everything is said; this is the exit code.
    Done(u8),
}

/// How to run, with the configuration as far as the command line and its `-c` gave it.
pub(super) struct CommandLine {
    pub(super) config: Config,
    /// The file that was loaded, `-c` or a default one.
    pub(super) file: Option<PathBuf>,
    pub(super) foreground: bool,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) keep_descriptors: bool,
    /// The options of `cloud.conf` that `-W set2 cloud` gave; nothing reads them.
    cloud: Config,
}

/// Reads the arguments after the program's name.
pub(super) fn read(
    arguments: impl Iterator<Item = String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Wish {
    let mut line = CommandLine {
        config: Config::new(),
        file: None,
        foreground: false,
        pid_file: None,
        keep_descriptors: false,
        cloud: Config::new(),
    };
    let mut words =
        Words { rest: arguments.collect::<Vec<_>>().into_iter(), cluster: String::new() };
    while let Some(option) = words.next_option() {
        let done = match option {
            Letter::Flag('D') => {
                line.foreground = true;
                None
            }
            Letter::Flag('d') => {
                line.foreground = false;
                None
            }
            Letter::Flag('h') => {
                say(out, HELP);
                Some(0)
            }
            Letter::Flag('v' | 'V') => {
                say(out, &format!("netdata {VERSION}\n"));
                Some(0)
            }
            Letter::Value('c', file) => line.load(Path::new(&file)).err(),
            Letter::Value('P', file) => {
                line.pid_file = Some(file.into());
                None
            }
            Letter::Value('i', ip) => line.set("web", "bind to", &ip),
            Letter::Value('p', port) => line.set("web", "default port", &port),
            Letter::Value('s', prefix) => line.set("global", "host access prefix", &prefix),
            Letter::Value('t', seconds) => line.set("db", "update every", &seconds),
            Letter::Value('u', user) => line.set("global", "run as user", &user),
            Letter::Value('W', word) => line.advanced(&word, &mut words, out, err),
            Letter::Flag(letter) | Letter::Value(letter, _) => {
                say(err, &format!("Unknown parameter '-{letter}'\n{HELP}"));
                Some(1)
            }
            Letter::MissingValue(letter) => {
                say(err, &format!("Unknown parameter: '-{letter}' needs a value\n{HELP}"));
                Some(1)
            }
            Letter::Stray(word) => {
                say(err, &format!("Unknown parameter '{word}'\n{HELP}"));
                Some(1)
            }
        };
        if let Some(code) = done {
            return Wish::Done(code);
        }
    }
    line.load_default();
    Wish::Run(line)
}

impl CommandLine {
    fn set(&mut self, section: &str, name: &str, value: &str) -> Option<u8> {
        self.config.set(section, name, value);
        None
    }

    fn load(&mut self, path: &Path) -> Result<(), u8> {
        match self.config.load(path, Present::Replace) {
            Ok(()) => {
                self.file = Some(path.to_owned());
                Ok(())
            }
            Err(error) => {
                log::error!("CONFIG: {error}");
                log::error!("CONFIG: cannot load config file '{}'.", path.display());
                Err(1)
            }
        }
    }

    /// Without `-c`: the user's file, else the stock one, else built-in defaults. The command line keeps its values.
    fn load_default(&mut self) {
        if self.file.is_some() {
            return;
        }
        let tries = [
            (USER_CONFIG_DIR, "user", "Will try the stock version."),
            (STOCK_CONFIG_DIR, "stock", "Running with internal defaults."),
        ];
        for (dir, kind, next) in tries {
            let path = Path::new(dir).join("netdata.conf");
            if self.config.load(&path, Present::Keep).is_ok() {
                self.file = Some(path);
                return;
            }
            log::info!("CONFIG: cannot load {kind} config '{}'. {next}", path.display());
        }
    }

    /// `-W WORD …`
    fn advanced(
        &mut self,
        word: &str,
        words: &mut Words,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Option<u8> {
        match word {
            "set" => {
                let Some([section, name, value]) = words.take() else {
                    return usage(err, "-W set SECTION NAME VALUE");
                };
                self.set(&section, &name, &value)
            }
            "set2" => {
                let Some([file, section, name, value]) = words.take() else {
                    return usage(err, "-W set2 FILE SECTION NAME VALUE");
                };
                match file.as_str() {
                    "cloud" => self.cloud.set(&section, &name, &value),
                    "netdata" => self.config.set(&section, &name, &value),
                    _ => return usage(err, "-W set2 FILE …, where FILE is netdata or cloud"),
                }
                None
            }
            "get" => {
                let Some([section, name, default]) = words.take() else {
                    return usage(err, "-W get SECTION NAME DEFAULT");
                };
                self.get("netdata", &section, &name, &default, out, err)
            }
            "get2" => {
                let Some([file, section, name, default]) = words.take() else {
                    return usage(err, "-W get2 FILE SECTION NAME DEFAULT");
                };
                self.get(&file, &section, &name, &default, out, err)
            }
            "simple-pattern" => {
                let Some([pattern, subject]) = words.take() else {
                    return usage(err, "-W simple-pattern PATTERN STRING");
                };
                Some(simple_pattern(&pattern, &subject, out))
            }
            "buildinfo" => {
                say(out, &buildinfo::text());
                Some(0)
            }
            "buildinfojson" => {
                say(out, &buildinfo::json());
                Some(0)
            }
            "unittest" => Some(self_test(out)),
            "keepopenfds" => {
                self.keep_descriptors = true;
                None
            }
            _ => self.advanced_assignment(word, err),
        }
    }

    fn advanced_assignment(&mut self, word: &str, err: &mut dyn Write) -> Option<u8> {
        if let Some(bytes) = word.strip_prefix("stacksize=") {
            return self.set("global", "pthread stack size", bytes);
        }
        if let Some(flags) = word.strip_prefix("debug_flags=") {
            return self.set("logs", "debug flags", flags);
        }
        let (name, _) = word.split_once(['=', ' ']).unwrap_or((word, ""));
        const ELSEWHERE: &[&str] = &[
            "sqlite-check",
            "sqlite-fix",
            "sqlite-compact",
            "createdataset",
            "stresstest",
            "claim",
        ];
        let text = if ELSEWHERE.contains(&name) {
            format!("-W {name} belongs to a part of Netdata that this agent does not have.\n")
        } else {
            format!("Unknown -W parameter '{word}'\n{HELP}")
        };
        say(err, &text);
        Some(1)
    }

    /// Prints the value in force.
    fn get(
        &mut self,
        file: &str,
        section: &str,
        name: &str,
        default: &str,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Option<u8> {
        let config = match file {
            "cloud" => &self.cloud,
            "netdata" => {
                if self.file.is_none() {
                    say(
                        err,
                        "warning: no configuration file has been loaded. Use -c CONFIG_FILE, before -W get. \
                         Using default config.\n",
                    );
                    self.load_default();
                }
                self.config.migrate(NETDATA_CONF);
                &self.config
            }
            _ => return usage(err, "-W get2 FILE …, where FILE is netdata or cloud"),
        };
        say(out, &format!("{}\n", config.string(section, name, default)));
        Some(0)
    }
}

fn simple_pattern(pattern: &str, subject: &str, out: &mut dyn Write) -> u8 {
    let mut taken = Wildcarded::new();
    let matched = SimplePattern::new(pattern).matches_taking(subject, &mut taken);
    let taken = String::from_utf8_lossy(&taken);
    let (verdict, verb, code) =
        if matched { ("MATCHED", "matches", 0) } else { ("NOT MATCHED", "does not match", 1) };
    say(
        out,
        &format!(
            "RESULT: {verdict} - pattern '{pattern}' {verb} '{subject}', wildcarded '{taken}'\n"
        ),
    );
    code
}

/// A look at the parts everything rests on, on the machine it runs on. The real tests come with the sources.
fn self_test(out: &mut dyn Write) -> u8 {
    let numbers = [0.0, 1.0, -1.0, 0.1, 16_777_215.0, 1e9]
        .iter()
        .all(|&value: &f64| (Sample::normal(value).unpack() - value).abs() <= value.abs() * 1e-4);
    let patterns =
        SimplePattern::new("!a* *").matches("b") && !SimplePattern::new("a").matches("ab");
    let passed = numbers && patterns;
    say(out, if passed { "all tests passed\n" } else { "tests failed\n" });
    u8::from(!passed)
}

fn usage(err: &mut dyn Write, text: &str) -> Option<u8> {
    say(err, &format!("USAGE: {text}\n"));
    Some(1)
}

/// A closed terminal is nobody to complain to.
fn say(to: &mut dyn Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
    let _ = to.flush();
}

/// One option as `getopt` finds it.
#[derive(Debug, PartialEq)]
enum Letter {
    Flag(char),
    Value(char, String),
    MissingValue(char),
    Stray(String),
}

/// The arguments, with letters that share a dash taken apart.
struct Words {
    rest: std::vec::IntoIter<String>,
    cluster: String,
}

impl Words {
    const WITH_VALUE: &str = "cPipstuW";

    fn next_option(&mut self) -> Option<Letter> {
        if self.cluster.is_empty() {
            let word = self.rest.next()?;
            match word.strip_prefix('-') {
                Some(letters) if !letters.is_empty() => letters.clone_into(&mut self.cluster),
                _ => return Some(Letter::Stray(word)),
            }
        }
        let letter = self.cluster.remove(0);
        if !Words::WITH_VALUE.contains(letter) {
            return Some(Letter::Flag(letter));
        }
        let value = if self.cluster.is_empty() {
            self.rest.next()
        } else {
            Some(std::mem::take(&mut self.cluster))
        };
        Some(value.map_or(Letter::MissingValue(letter), |value| Letter::Value(letter, value)))
    }

    /// The next words, whatever they look like.
    fn take<const N: usize>(&mut self) -> Option<[String; N]> {
        let words: Vec<String> = self.rest.by_ref().take(N).collect();
        words.try_into().ok()
    }
}

const HELP: &str = "
netdata-rs: collects, streams, keeps and serves metrics; a drop-in for Netdata's agent.

Usage: netdata [options]

  -c filename     Load this configuration file.
                  Default: /etc/netdata/netdata.conf, else the stock one.
  -D              Stay in the foreground.
  -d              Go to the background. This is the default.
  -P filename     Keep the process id in this file while running.
  -i IP           Listen on this address. Default: all addresses.
  -p port         Listen on this port. Default: 19999.
  -s path         Where the host's /proc and /sys are mounted, inside a container.
  -t seconds      Collect every so many seconds. Default: 1.
  -u username     Run as this user when started as root. Default: netdata.
  -v, -V          Print the version and exit.
  -h              Print this and exit.

  -W set section option value
                  Set an option of netdata.conf. Wins over the files named before it.
  -W get section option default
                  Print the value in force and exit.
  -W set2 file section option value, -W get2 file section option default
                  The same for one of the files netdata and cloud.
  -W simple-pattern pattern string
                  Say whether the pattern matches the string and exit.
  -W buildinfo    Print version and features and exit.
  -W buildinfojson
                  The same as JSON.
  -W stacksize=N  Accepted; the stacks of threads have fixed sizes.
  -W debug_flags=N
                  Write debug.log when N is not 0.
  -W unittest     A quick look at the basics, then exit.

Signals: HUP reopens the log files, USR1 saves the databases, USR2 reloads health,
TERM, INT and QUIT end the agent; a second one ends it at once.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &[&str]) -> (Wish, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let wish = read(words.iter().map(|w| (*w).to_owned()), &mut out, &mut err);
        (wish, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[track_caller]
    fn check_done(words: &[&str], code: u8, out: &str) {
        let (wish, said, err) = read_words(words);
        assert!(matches!(wish, Wish::Done(c) if c == code), "{words:?}: {err}");
        assert_eq!(said, out);
    }

    #[track_caller]
    fn check_run(words: &[&str]) -> CommandLine {
        match read_words(words) {
            (Wish::Run(line), ..) => line,
            (Wish::Done(code), _, err) => panic!("exits {code}: {err}"),
        }
    }

    #[test]
    fn letters_may_share_a_dash_and_touch_their_value() {
        let line = check_run(&["-Dp19998", "-P", "/run/x.pid", "-i127.0.0.1"]);
        assert!(line.foreground);
        assert_eq!(line.pid_file.as_deref(), Some(Path::new("/run/x.pid")));
        assert_eq!(line.config.number("web", "default port", 0), 19998);
        assert_eq!(line.config.string("web", "bind to", "*"), "127.0.0.1");
    }

    #[test]
    fn values_set_here_can_be_asked_for() {
        check_done(&["-W", "set", "a", "b", "-c", "-W", "get", "a", "b", "d"], 0, "-c\n");
        check_done(&["-W", "get", "a", "b", "d"], 0, "d\n");
        check_done(
            &["-W", "set2", "cloud", "a", "b", "c", "-W", "get2", "cloud", "a", "b", "d"],
            0,
            "c\n",
        );
    }

    #[test]
    fn the_later_of_file_and_option_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("netdata.conf");
        std::fs::write(&file, "[s]\na = file\n").unwrap();
        let file = file.to_str().unwrap();
        check_done(
            &["-W", "set", "s", "a", "x", "-c", file, "-W", "get", "s", "a", "d"],
            0,
            "file\n",
        );
        check_done(&["-c", file, "-W", "set", "s", "a", "x", "-W", "get", "s", "a", "d"], 0, "x\n");
    }

    #[test]
    fn mistakes_are_named() {
        for (words, text) in [
            (&["-Z"] as &[&str], "Unknown parameter '-Z'"),
            (&["-W", "nonsense"], "Unknown -W parameter 'nonsense'"),
            (&["-W", "set", "a"], "USAGE: -W set"),
            (&["stray"], "Unknown parameter 'stray'"),
            (&["-p"], "Unknown parameter: '-p' needs a value"),
        ] {
            let (wish, _, err) = read_words(words);
            assert!(matches!(wish, Wish::Done(1)) && err.contains(text), "{words:?}: {err}");
        }
    }

    #[test]
    fn the_self_test_passes() {
        check_done(&["-W", "unittest"], 0, "all tests passed\n");
    }
}

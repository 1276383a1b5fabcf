//! What `manage/health` silences or disables, kept in a file over restarts.
//!
//! One lock, held for a comparison with few patterns or a change.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::base::json::push_string;
use crate::base::pattern::SimplePattern;
use crate::wire::json::Value;

/// Longest file.
const FILE_MAX: usize = 10_000;
/// Sets of patterns that can be told apart; more are refused.
const SELECTORS_MAX: usize = 256;

/// The names a selector may have, in the order in which they are written.
pub const KEYS: [&str; 5] = ["alarm", "chart", "context", "hosts", "families"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    None,
    Disable,
    Silence,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::None => "None",
            Action::Disable => "DISABLE",
            Action::Silence => "SILENCE",
        }
    }
}

/// Patterns that all have to match; `None` matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
struct Selector([Option<(String, SimplePattern)>; KEYS.len()]);

impl Selector {
    fn of(given: &[(&str, &str)]) -> Option<Selector> {
        let mut selector = Selector::default();
        for (key, list) in given {
            if let Some(place) = KEYS.iter().position(|known| known == key) {
                selector.0[place] = Some(((*list).to_owned(), SimplePattern::new(list)));
            }
        }
        selector.0.iter().any(Option::is_some).then_some(selector)
    }

    fn matches(&self, about: &About<'_>) -> bool {
        let subjects: [&[&str]; KEYS.len()] = [
            &[about.alarm],
            &[about.chart_id, about.chart_name],
            &[about.context],
            &[about.host],
            &[about.family],
        ];
        self.0.iter().zip(subjects).all(|(pattern, subjects)| match pattern {
            Some((_, pattern)) => subjects.iter().any(|subject| pattern.matches(subject)),
            None => true,
        })
    }
}

/// An alarm, as selectors see it.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub alarm: &'a str,
    pub chart_id: &'a str,
    pub chart_name: &'a str,
    pub context: &'a str,
    pub host: &'a str,
    pub family: &'a str,
}

#[derive(Debug, Default)]
struct Rules {
    all: bool,
    action: Action,
    /// The newest first.
    selectors: Vec<Selector>,
}

pub struct Silencers {
    path: PathBuf,
    rules: Mutex<Rules>,
    version: AtomicU64,
}

impl Silencers {
    pub fn load(path: &Path) -> Silencers {
        let mut rules = Rules::default();
        match fs::read(path) {
            Ok(bytes) if bytes.len() <= FILE_MAX => match Value::parse(&bytes) {
                Some(value) => rules = Rules::of(&value),
                None => log::error!(
                    "HEALTH: cannot understand '{}'. Nothing is silenced.",
                    path.display()
                ),
            },
            Ok(_) => log::error!(
                "HEALTH: '{}' is longer than {FILE_MAX} bytes. Nothing is silenced.",
                path.display()
            ),
            Err(_) => {}
        }
        Silencers { path: path.to_owned(), rules: Mutex::new(rules), version: AtomicU64::new(1) }
    }

    /// Another number after every change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether an alarm's evaluation is disabled, and whether its notifications are silenced.
    pub fn verdict(&self, about: &About<'_>) -> (bool, bool) {
        let rules = self.rules.lock();
        let caught = rules.all || rules.selectors.iter().any(|selector| selector.matches(about));
        match rules.action {
            _ if !caught => (false, false),
            Action::None => (false, false),
            Action::Disable => (true, false),
            Action::Silence => (false, true),
        }
    }

    /// Does what the parameters of a request ask for, in their order, and gives the answer's text.
    pub fn manage(&self, parameters: &[(&str, &str)]) -> String {
        let mut answer = String::new();
        let mut rules = self.rules.lock();
        let mut commanded = false;
        for (_, command) in parameters.iter().filter(|(key, _)| *key == "cmd") {
            let text = match *command {
                "SILENCE ALL" => {
                    (rules.all, rules.action) = (true, Action::Silence);
                    "All alarm notifications are silenced\n"
                }
                "DISABLE ALL" => {
                    (rules.all, rules.action) = (true, Action::Disable);
                    "All health checks are disabled\n"
                }
                "SILENCE" => {
                    (commanded, rules.action) = (true, Action::Silence);
                    "Alarm notifications silenced for alarms matching the selectors\n"
                }
                "DISABLE" => {
                    (commanded, rules.action) = (true, Action::Disable);
                    "Health checks disabled for alarms matching the selectors\n"
                }
                "RESET" => {
                    *rules = Rules::default();
                    "All health checks and notifications are enabled\n"
                }
                _ => "",
            };
            answer.push_str(text);
        }
        let given: Vec<(&str, &str)> =
            parameters.iter().copied().filter(|(_, list)| !list.is_empty()).collect();
        if let Some(selector) = Selector::of(&given) {
            if rules.selectors.len() < SELECTORS_MAX {
                rules.selectors.insert(0, selector);
                answer.push_str("Alarm selector added\n");
            } else {
                answer.push_str(
                    "WARNING: There are too many alarm selectors, this one is not added.\n",
                );
            }
            if rules.action == Action::None {
                answer.push_str(
                    "WARNING: Added alarm selector to silence/disable alarms without a SILENCE or DISABLE command.\n",
                );
            }
        } else if commanded && rules.selectors.is_empty() {
            answer.push_str(
                "WARNING: SILENCE or DISABLE command is ineffective without defining any alarm selectors.\n",
            );
        }
        let text = rules.text();
        self.version.fetch_add(1, Ordering::Release);
        let new = self.path.with_extension("new");
        if text.len() > FILE_MAX {
            log::error!(
                "HEALTH: the silencers need more than {FILE_MAX} bytes, they are not saved."
            );
        } else if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path))
        {
            log::error!("HEALTH: cannot save silencers to '{}': {error}", self.path.display());
        }
        drop(rules);
        answer
    }

    /// As the file has it and LIST shows it.
    pub fn list(&self) -> String {
        self.rules.lock().text()
    }
}

impl Rules {
    fn of(value: &Value) -> Rules {
        let action = match value.get("type").and_then(Value::string) {
            Some("DISABLE") => Action::Disable,
            Some("SILENCE") => Action::Silence,
            _ => Action::None,
        };
        let selectors = value.get("silencers").and_then(Value::array).unwrap_or_default();
        let selectors = selectors.iter().filter_map(|selector| {
            let given: Vec<(&str, &str)> =
                KEYS.iter().filter_map(|key| Some((*key, selector.get(key)?.string()?))).collect();
            Selector::of(&given)
        });
        Rules {
            all: value.get("all") == Some(&Value::Bool(true)),
            action,
            selectors: selectors.take(SELECTORS_MAX).collect(),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            "{{\n\t\"all\": {},\n\t\"type\": \"{}\",\n\t\"silencers\": [",
            self.all,
            self.action.name()
        );
        for (n, selector) in self.selectors.iter().enumerate() {
            out.push_str(if n == 0 { "\n\t\t{" } else { ",\n\t\t{" });
            let mut first = true;
            for (key, pattern) in KEYS.iter().zip(&selector.0) {
                let Some((list, _)) = pattern else { continue };
                out.push_str(if first { "\n\t\t\t" } else { ",\n\t\t\t" });
                first = false;
                push_string(&mut out, key);
                out.push_str(": ");
                push_string(&mut out, list);
            }
            out.push_str("\n\t\t}");
        }
        out.push_str(if self.selectors.is_empty() { "]\n}\n" } else { "\n\t]\n}\n" });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'_> = About {
        alarm: "cpu_hot",
        chart_id: "t.c",
        chart_name: "t.named",
        context: "t.ctx",
        host: "box",
        family: "fam",
    };

    #[test]
    fn commands_and_selectors_do_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("health.silencers.json");
        let s = Silencers::load(&path);
        assert_eq!(s.verdict(&ABOUT), (false, false));
        assert!(s.manage(&[("cmd", "SILENCE")]).contains("ineffective without"));
        assert_eq!(s.verdict(&ABOUT), (false, false));
        s.manage(&[("cmd", "RESET")]);
        assert!(
            s.manage(&[("alarm", "cpu_*"), ("context", "t.*")])
                .contains("without a SILENCE or DISABLE")
        );
        assert_eq!(s.verdict(&ABOUT), (false, false));
        s.manage(&[("cmd", "SILENCE"), ("chart", "t.named"), ("hosts", "other")]);
        assert_eq!(s.verdict(&ABOUT), (false, true));
        assert_eq!(s.verdict(&About { context: "x", ..ABOUT }), (false, false));
        assert_eq!(s.verdict(&About { context: "x", host: "other", ..ABOUT }), (false, true));
        // kept over a restart
        let again = Silencers::load(&path);
        assert_eq!((again.list(), again.verdict(&ABOUT)), (s.list(), (false, true)));
        assert_eq!(s.manage(&[("cmd", "DISABLE ALL")]), "All health checks are disabled\n");
        assert_eq!(s.verdict(&About { context: "x", ..ABOUT }), (true, false));
        s.manage(&[("cmd", "RESET")]);
        assert!(s.list().contains("\"silencers\": []"));
        assert_eq!(s.manage(&[("cmd", "DANCE")]), "");
    }

    #[test]
    fn a_file_that_is_none_silences_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        for text in ["", "{", "[1]", "{\"all\":1}", &"x".repeat(20_000)] {
            fs::write(&path, text).unwrap();
            assert_eq!(Silencers::load(&path).verdict(&ABOUT), (false, false));
        }
    }
}

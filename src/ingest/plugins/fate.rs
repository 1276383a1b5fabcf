//! What becomes of a plugin after a run: started again, soon or later, or never (plugins specification, section 4.3).
//!
//! Pure: an exit and the plugin's history in, a decision and its log line out.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use log::Level;

use crate::ingest::executor::Verdict;

/// Runs in a row without a sample that a plugin may have.
const FAILURES_MAX: u32 = 10;

/// Intervals to wait before a plugin that failed is started again: ten whole ones after the one it failed in.
const PATIENCE_INTERVALS: u32 = 11;

const SIGTERM: i32 = 15;

/// How a process ended, as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// With 0, or because we ended it.
    Success,
    Code(i32),
    /// By somebody else's signal.
    Killed,
    /// With a memory image.
    Crashed,
}

impl Exit {
    /// `by_us`: we had to use force.
    pub(super) fn of(status: ExitStatus, by_us: bool) -> Exit {
        match (status.code(), status.signal()) {
            (Some(0), _) => Exit::Success,
            (Some(code), _) => Exit::Code(code),
            _ if by_us => Exit::Success,
            (None, Some(SIGTERM)) => Exit::Success,
            _ if status.core_dumped() => Exit::Crashed,
            _ => Exit::Killed,
        }
    }

    fn code(self) -> i32 {
        match self {
            Exit::Success => 0,
            Exit::Code(code) => code,
            Exit::Killed => -1,
            Exit::Crashed => -2,
        }
    }
}

/// A plugin over all its runs.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Successful collections, ever.
    collections: u64,
    /// Runs in a row without any.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Again, after so many of its intervals.
    After(u32),
    Never,
}

pub(super) struct Decision {
    pub(super) next: Next,
    pub(super) line: Option<(Level, String)>,
}

impl History {
    /// Judges a run that ended with `exit` after `collections`, by a line with `verdict` if there was one. `who` is the
    /// plugin in log lines: its file and process.
    pub(super) fn judge(
        &mut self,
        exit: Exit,
        collections: u64,
        verdict: Option<Verdict>,
        who: &str,
    ) -> Decision {
        self.collections += collections;
        self.failures = if collections > 0 { 0 } else { self.failures + 1 };
        let disabled = verdict == Some(Verdict::Disable);
        let (times, tries, code) = (self.collections, self.failures, exit.code());
        let ever = times > 0;
        let again = tries <= FAILURES_MAX;
        let (next, level, text) = match exit {
            Exit::Success if ever => (Next::After(1), Level::Info, String::new()),
            Exit::Success if again => {
                let then = if disabled {
                    "Will not start it again - it is now disabled."
                } else {
                    "Waiting a bit before starting it again."
                };
                let text = format!(
                    "does not generate useful output but it reports success (exits with 0). {then}."
                );
                (Next::After(PATIENCE_INTERVALS), Level::Info, text)
            }
            Exit::Success => {
                let text = format!(
                    "does not generate useful output, although it reports success (exits with 0). It was tried {tries} times. Disabling it."
                );
                (Next::Never, Level::Error, text)
            }
            Exit::Killed => {
                (Next::Never, Level::Info, "was killed with SIGTERM. Disabling it.".to_owned())
            }
            _ if !ever => {
                let text = format!(
                    "exited with error code {code} and haven't collected any data. Disabling it."
                );
                (Next::Never, Level::Error, text)
            }
            _ if again => {
                let text = format!(
                    "exited with error code {code}, but has given useful output in the past ({times} times). Waiting a bit before starting it again."
                );
                (Next::After(PATIENCE_INTERVALS), Level::Error, text)
            }
            _ => {
                let text = format!(
                    "exited with error code {code}, but has given useful output in the past ({times} times). It was tried {tries} times since. Disabling it."
                );
                (Next::Never, Level::Error, text)
            }
        };
        let line = (!text.is_empty()).then(|| (level, format!("{who} {text}")));
        Decision { next: if disabled { Next::Never } else { next }, line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(history: &mut History, exit: Exit, collections: u64) -> (Next, String) {
        let decision = history.judge(exit, collections, None, "it");
        (
            decision.next,
            decision.line.map(|(level, text)| format!("{level} {text}")).unwrap_or_default(),
        )
    }

    #[test]
    fn success_with_data_starts_again_at_once() {
        let mut history = History::default();
        assert_eq!(judge(&mut history, Exit::Success, 1), (Next::After(1), String::new()));
        assert_eq!(judge(&mut history, Exit::Success, 0), (Next::After(1), String::new()));
    }

    #[test]
    fn success_without_data_is_tried_ten_times() {
        let mut history = History::default();
        for _ in 0..10 {
            let line = "INFO it does not generate useful output but it reports success (exits with 0). Waiting a bit before starting it again..";
            assert_eq!(
                judge(&mut history, Exit::Success, 0),
                (Next::After(PATIENCE_INTERVALS), line.to_owned())
            );
        }
        let (next, line) = judge(&mut history, Exit::Success, 0);
        assert!(next == Next::Never && line.starts_with("ERROR") && line.contains("11 times"));
    }

    #[test]
    fn failure_without_data_is_the_end() {
        let line =
            "ERROR it exited with error code 3 and haven't collected any data. Disabling it.";
        let seen = judge(&mut History::default(), Exit::Code(3), 0);
        assert_eq!(seen, (Next::Never, line.to_owned()));
    }

    #[test]
    fn failure_after_data_waits_and_may_fail_ten_times() {
        let mut history = History::default();
        let line = "ERROR it exited with error code 7, but has given useful output in the past (1 times). Waiting a bit before starting it again.";
        assert_eq!(
            judge(&mut history, Exit::Code(7), 1),
            (Next::After(PATIENCE_INTERVALS), line.to_owned())
        );
        for _ in 0..10 {
            assert_eq!(judge(&mut history, Exit::Crashed, 0).0, Next::After(PATIENCE_INTERVALS));
        }
        assert_eq!(judge(&mut history, Exit::Code(7), 0).0, Next::Never);
    }

    #[test]
    fn whoever_was_killed_stays_dead() {
        let line = "INFO it was killed with SIGTERM. Disabling it.";
        let seen = judge(&mut History::default(), Exit::Killed, 5);
        assert_eq!(seen, (Next::Never, line.to_owned()));
    }

    #[test]
    fn a_bad_line_disables_whatever_the_exit() {
        let mut history = History::default();
        let decision = history.judge(Exit::Success, 3, Some(Verdict::Disable), "it");
        assert_eq!(decision.next, Next::Never);
        let decision = history.judge(Exit::Success, 3, Some(Verdict::Stop), "it");
        assert_eq!(decision.next, Next::After(1));
        let decision = History::default().judge(Exit::Success, 0, Some(Verdict::Disable), "it");
        assert!(
            decision.line.unwrap().1.ends_with("Will not start it again - it is now disabled..")
        );
    }

    #[test]
    fn our_own_signals_count_as_success() {
        assert_eq!(Exit::of(ExitStatus::from_raw(0), false), Exit::Success);
        assert_eq!(Exit::of(ExitStatus::from_raw(3 << 8), true), Exit::Code(3));
        assert_eq!(Exit::of(ExitStatus::from_raw(15), false), Exit::Success);
        assert_eq!(Exit::of(ExitStatus::from_raw(9), false), Exit::Killed);
        assert_eq!(Exit::of(ExitStatus::from_raw(9), true), Exit::Success);
        assert_eq!(Exit::of(ExitStatus::from_raw(11 | 0x80), false), Exit::Crashed);
    }
}

//! The status of one alarm over time: a machine that is given the time and what its expressions say.
//!
//! Pure. What has to be told to somebody comes back as a [`Change`]; who is told, and whether, is [`wants_notice`]'s.

/// As the API and notifications name them; their order is that of their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Removed = -2,
    Undefined = -1,
    #[default]
    Uninitialized = 0,
    Clear = 1,
    Raised = 2,
    Warning = 3,
    Critical = 4,
}

impl Status {
    pub const ALL: [Status; 7] = [
        Status::Removed,
        Status::Undefined,
        Status::Uninitialized,
        Status::Clear,
        Status::Raised,
        Status::Warning,
        Status::Critical,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Status::Removed => "REMOVED",
            Status::Undefined => "UNDEFINED",
            Status::Uninitialized => "UNINITIALIZED",
            Status::Clear => "CLEAR",
            Status::Raised => "RAISED",
            Status::Warning => "WARNING",
            Status::Critical => "CRITICAL",
        }
    }

    pub fn parse(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name().eq_ignore_ascii_case(word))
    }

    pub fn number(self) -> i64 {
        self as i64
    }

    pub fn from_number(number: i64) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.number() == number)
    }

    pub fn is_raised(self) -> bool {
        self >= Status::Raised
    }
}

/// How long a notification is held back, in case the status changes again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay {
    pub up: i64,
    pub down: i64,
    pub multiplier: f64,
    pub max: i64,
}

impl Default for Delay {
    fn default() -> Self {
        Delay { up: 0, down: 0, multiplier: 1.0, max: 0 }
    }
}

impl Delay {
    /// A delay, multiplied, in whole seconds.
    pub fn times(&self, delay: i64) -> i64 {
        // Delays are below ten years and saturate.
        (delay as f64 * self.multiplier) as i64
    }
}

/// What expressions say: nothing, when there is none or it has no value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub warn: Option<bool>,
    pub crit: Option<bool>,
}

impl Verdict {
    pub fn status(self) -> Status {
        match (self.warn, self.crit) {
            (_, Some(true)) => Status::Critical,
            (Some(true), _) => Status::Warning,
            (Some(false), _) | (None, Some(false)) => Status::Clear,
            (None, None) => Status::Undefined,
        }
    }
}

/// What an alarm remembers between evaluations.
#[derive(Clone, Debug)]
pub struct State {
    pub status: Status,
    pub value: f64,
    pub old_value: f64,
    pub last_change: i64,
    pub last_updated: i64,
    pub next_update: i64,
    pub delay_up: i64,
    pub delay_down: i64,
    pub delay_last: i64,
    pub delay_until: i64,
    /// When it began to be WARNING or CRITICAL; 0 = it is not.
    pub raised_since: i64,
    /// The status somebody was told of last.
    pub told: Option<Status>,
    pub last_repeat: i64,
    pub times_repeat: u32,
}

impl Default for State {
    fn default() -> Self {
        State {
            status: Status::Uninitialized,
            value: f64::NAN,
            old_value: f64::NAN,
            last_change: 0,
            last_updated: 0,
            next_update: 0,
            delay_up: 0,
            delay_down: 0,
            delay_last: 0,
            delay_until: 0,
            raised_since: 0,
            told: None,
            last_repeat: 0,
            times_repeat: 0,
        }
    }
}

/// A change of status, as it is logged and told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub old: Status,
    pub new: Status,
    pub when: i64,
    /// Seconds of the status before.
    pub duration: i64,
    /// Seconds of WARNING and CRITICAL that ended or go on.
    pub non_clear: i64,
    /// Held back for so long.
    pub delay: i64,
}

impl State {
    /// Takes the status that was found at `now`; a change when it is another one.
    pub fn become_(&mut self, new: Status, now: i64, delay: &Delay) -> Option<Change> {
        if new == self.status {
            return None;
        }
        let old = self.status;
        if now > self.delay_until {
            (self.delay_up, self.delay_down) = (delay.up, delay.down);
        } else {
            self.delay_up = delay.times(self.delay_up).min(delay.max);
            self.delay_down = delay.times(self.delay_down).min(delay.max);
        }
        let held = if new > old { self.delay_up } else { self.delay_down };
        self.delay_last = held;
        self.delay_until = now + held;
        let duration = if self.last_change == 0 { 0 } else { (now - self.last_change).max(0) };
        let non_clear = if self.raised_since == 0 { 0 } else { (now - self.raised_since).max(0) };
        if !new.is_raised() {
            self.raised_since = 0;
        } else if self.raised_since == 0 {
            self.raised_since = now;
        }
        self.status = new;
        self.last_change = now;
        Some(Change { old, new, when: now, duration, non_clear, delay: held })
    }

    /// Whether a repeating alarm has to be told again, as it is every `interval` seconds while raised. Notes that it is.
    pub fn repeats(&mut self, interval: i64, now: i64) -> bool {
        if !self.status.is_raised() || interval <= 0 {
            return false;
        }
        let due = self.last_repeat == 0 || now >= self.last_repeat + interval;
        if due {
            self.last_repeat = now;
            self.times_repeat = self.times_repeat.saturating_add(1);
        }
        due
    }
}

/// Why nobody is told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    Internal,
    NoClear,
    Same,
    NeverRaised,
    Silenced,
}

/// Whether somebody is told that an alarm is `new`, who was told of `told` last.
pub fn wants_notice(
    new: Status,
    told: Option<Status>,
    no_clear: bool,
    silenced: bool,
) -> Result<(), Quiet> {
    if new < Status::Clear {
        return Err(Quiet::Internal);
    }
    if new == Status::Clear && no_clear {
        return Err(Quiet::NoClear);
    }
    if told == Some(new) {
        return Err(Quiet::Same);
    }
    if new == Status::Clear && told.is_none() {
        return Err(Quiet::NeverRaised);
    }
    if silenced { Err(Quiet::Silenced) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_verdict_is_a_status() {
        for (warn, crit, want) in [
            (None, None, Status::Undefined),
            (Some(false), None, Status::Clear),
            (None, Some(false), Status::Clear),
            (Some(true), Some(false), Status::Warning),
            (Some(true), None, Status::Warning),
            (Some(false), Some(true), Status::Critical),
            (Some(true), Some(true), Status::Critical),
            (None, Some(true), Status::Critical),
        ] {
            assert_eq!(Verdict { warn, crit }.status(), want);
        }
    }

    #[test]
    fn delays_grow_while_the_status_flaps() {
        let delay = Delay { up: 10, down: 20, multiplier: 1.5, max: 40 };
        let mut state = State::default();
        let mut at = |now, new| state.become_(new, now, &delay).map(|c| c.delay);
        assert_eq!(at(100, Status::Clear), Some(10));
        assert_eq!(at(101, Status::Clear), None);
        // still held back: both grow
        assert_eq!(at(105, Status::Warning), Some(15));
        assert_eq!(at(110, Status::Clear), Some(40));
        assert_eq!(at(120, Status::Critical), Some(33));
        // long past the last one: as configured
        assert_eq!(at(1000, Status::Clear), Some(20));
    }

    #[test]
    fn times_of_a_change() {
        let mut state = State::default();
        let delay = Delay::default();
        let first = state.become_(Status::Warning, 100, &delay).unwrap();
        assert_eq!((first.duration, first.non_clear, first.old), (0, 0, Status::Uninitialized));
        let second = state.become_(Status::Critical, 130, &delay).unwrap();
        assert_eq!((second.duration, second.non_clear), (30, 30));
        let third = state.become_(Status::Clear, 150, &delay).unwrap();
        assert_eq!((third.duration, third.non_clear), (20, 50));
        assert_eq!(state.become_(Status::Warning, 160, &delay).unwrap().non_clear, 0);
    }

    #[test]
    fn who_is_told() {
        use Status::{Clear, Critical, Undefined, Warning};
        for (new, told, no_clear, silenced, want) in [
            (Warning, None, false, false, Ok(())),
            (Undefined, None, false, false, Err(Quiet::Internal)),
            (Clear, None, false, false, Err(Quiet::NeverRaised)),
            (Clear, Some(Warning), false, false, Ok(())),
            (Clear, Some(Warning), true, false, Err(Quiet::NoClear)),
            (Warning, Some(Warning), false, false, Err(Quiet::Same)),
            (Warning, Some(Critical), false, false, Ok(())),
            (Critical, Some(Warning), false, true, Err(Quiet::Silenced)),
        ] {
            assert_eq!(wants_notice(new, told, no_clear, silenced), want, "{new:?} {told:?}");
        }
    }

    #[test]
    fn a_raised_alarm_repeats() {
        let mut state = State::default();
        assert!(!state.repeats(10, 5));
        state.become_(Status::Warning, 10, &Delay::default());
        let times: Vec<i64> = (10..45).filter(|now| state.repeats(10, *now)).collect();
        assert_eq!((times, state.times_repeat), (vec![10, 20, 30, 40], 4));
    }

    proptest! {
        /// However it flaps, a notification is never held back longer than the longest delay.
        #[test]
        fn a_delay_never_exceeds_its_maximum(
            (up, down, max) in (0i64..100, 0i64..100, 100i64..1000),
            steps in proptest::collection::vec((0i64..50, 1usize..7), 1..60),
        ) {
            let delay = Delay { up, down, multiplier: 1.7, max };
            let mut state = State::default();
            let mut now = 1000;
            for (step, status) in steps {
                now += step;
                if let Some(change) = state.become_(Status::ALL[status], now, &delay) {
                    prop_assert!((0..=max).contains(&change.delay));
                    prop_assert!(change.non_clear >= 0 && change.duration >= 0);
                }
            }
        }
    }
}

//! Who was cut off for asking too much is not let in again at once: a child that is broken comes back as fast as it can.
//!
//! Pure; time comes with each call. The time doubles with each fault, and is forgotten by whoever behaved for an hour. It holds
//! for a machine at an address: whoever says to be another one does not lock that one out from elsewhere.

use rustc_hash::FxHashMap;

use crate::base::ids::MachineGuid;

/// A line that is too long may be a plugin's, now and then: so many of them are forgiven.
const LINES_FORGIVEN: u32 = 3;
const FIRST_S: i64 = 60;
const LONGEST_S: i64 = 3600;
/// Who is remembered; beyond it those whose time is over first make room, then none is added.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Default)]
pub struct Penalties(FxHashMap<Who, Penalty>);

/// A machine, and the text of its address.
pub type Who = (MachineGuid, String);

/// What a connection was cut off for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It asked for more than any machine does.
    Excess,
    /// A line was too long, and what was left of it made no sense.
    Line,
}

struct Penalty {
    lines: u32,
    /// 0 = forgiven so far.
    seconds: i64,
    until: i64,
}

impl Penalties {
    /// A connection was cut off; gives for how many seconds nobody takes its place.
    pub fn add(&mut self, who: Who, fault: Fault, now: i64) -> i64 {
        let is_recent = |penalty: &Penalty| now - penalty.until < LONGEST_S;
        if self.0.len() >= REMEMBERED_MAX {
            self.0.retain(|_, penalty| is_recent(penalty));
        }
        let before = self.0.get(&who).filter(|penalty| is_recent(penalty));
        let (lines, seconds) = before.map_or((0, 0), |before| (before.lines, before.seconds));
        let lines = lines + u32::from(fault == Fault::Line);
        let is_forgiven = fault == Fault::Line && lines <= LINES_FORGIVEN;
        let seconds = match seconds {
            seconds if is_forgiven => seconds,
            0 => FIRST_S,
            seconds => (seconds * 2).min(LONGEST_S),
        };
        let until = if is_forgiven { now } else { now + seconds };
        if before.is_some() || self.0.len() < REMEMBERED_MAX {
            self.0.insert(who, Penalty { lines, seconds, until });
        }
        until - now
    }

    /// Seconds until it may come back; `None` lets it in.
    pub fn left(&self, who: &Who, now: i64) -> Option<i64> {
        let penalty = self.0.get(who)?;
        // Never for longer than it was meant: the clock may have been set back.
        Some(penalty.until - now).filter(|left| (1..=penalty.seconds).contains(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_doubles_the_time_until_an_hour_was_good() {
        let mut penalties = Penalties::default();
        let who = (MachineGuid::random(), "10.0.0.1".to_owned());
        assert_eq!(penalties.left(&who, 1000), None);
        assert_eq!(penalties.add(who.clone(), Fault::Excess, 1000), 60);
        assert_eq!(penalties.left(&who, 1010), Some(50));
        assert_eq!(penalties.left(&who, 1060), None);
        assert_eq!(penalties.add(who.clone(), Fault::Excess, 1100), 120);
        let mut now = 1100;
        for _ in 0..10 {
            now += 7300;
            penalties.add(who.clone(), Fault::Excess, now);
        }
        assert_eq!(penalties.left(&who, now), Some(60), "forgotten in between");
        for _ in 0..10 {
            now += 10;
            penalties.add(who.clone(), Fault::Excess, now);
        }
        assert_eq!(penalties.left(&who, now), Some(3600));
        assert_eq!(penalties.left(&who, 500), None, "the clock was set back");
        assert_eq!(penalties.left(&(who.0, "10.0.0.2".to_owned()), now), None);
    }

    #[test]
    fn a_few_long_lines_are_forgiven() {
        let mut penalties = Penalties::default();
        let who = (MachineGuid::random(), "10.0.0.1".to_owned());
        for now in [1000, 1001, 1002] {
            assert_eq!(penalties.add(who.clone(), Fault::Line, now), 0);
            assert_eq!(penalties.left(&who, now), None);
        }
        assert_eq!(penalties.add(who.clone(), Fault::Line, 1003), 60);
        assert_eq!(penalties.add(who.clone(), Fault::Line, 1100), 120);
        assert_eq!(penalties.add(who, Fault::Line, 100_000), 0, "forgotten in between");
    }
}

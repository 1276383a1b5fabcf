//! Who was cut off for asking too much is not let in again at once: a child that is broken comes back as fast as it can.
//!
//! Pure; time comes with each call. The time doubles with each fault, and is forgotten by whoever behaved for an hour. It holds
//! for a machine at an address: whoever says to be another one does not lock that one out from elsewhere.

use rustc_hash::FxHashMap;

use crate::base::ids::MachineGuid;

const FIRST_S: i64 = 60;
const LONGEST_S: i64 = 3600;
/// Who is remembered; beyond it those whose time is over first make room, then none is added.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Default)]
pub struct Penalties(FxHashMap<Who, Penalty>);

/// A machine, and the text of its address.
pub type Who = (MachineGuid, String);

struct Penalty {
    seconds: i64,
    until: i64,
}

impl Penalties {
    /// A connection was cut off; gives for how many seconds nobody takes its place.
    pub fn add(&mut self, who: Who, now: i64) -> i64 {
        if self.0.len() >= REMEMBERED_MAX {
            self.0.retain(|_, penalty| now - penalty.until < LONGEST_S);
        }
        let before = self.0.get(&who).filter(|penalty| now - penalty.until < LONGEST_S);
        let seconds = before.map_or(FIRST_S, |penalty| (penalty.seconds * 2).min(LONGEST_S));
        if before.is_some() || self.0.len() < REMEMBERED_MAX {
            self.0.insert(who, Penalty { seconds, until: now + seconds });
        }
        seconds
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
        assert_eq!(penalties.add(who.clone(), 1000), 60);
        assert_eq!(penalties.left(&who, 1010), Some(50));
        assert_eq!(penalties.left(&who, 1060), None);
        assert_eq!(penalties.add(who.clone(), 1100), 120);
        let mut now = 1100;
        for _ in 0..10 {
            now += 7300;
            penalties.add(who.clone(), now);
        }
        assert_eq!(penalties.left(&who, now), Some(60), "forgotten in between");
        for _ in 0..10 {
            now += 10;
            penalties.add(who.clone(), now);
        }
        assert_eq!(penalties.left(&who, now), Some(3600));
        assert_eq!(penalties.left(&who, 500), None, "the clock was set back");
        assert_eq!(penalties.left(&(who.0, "10.0.0.2".to_owned()), now), None);
    }
}

//! Fencing: which of two sessions of one machine GUID stays.
//!
//! A plain decision. The newest authenticated session wins over one that is gone or silent, so that nobody is locked out
//! by their own ghost. A session that comes a shorter way from the host wins over one that comes a longer way: a child that
//! changes its parent is there before its old path has been taken down. Two that are alive at the same distance are two
//! machines with one GUID: the first one stays, which does not flap.

use crate::base::time::MICROS;

/// A session that comes a longer way takes the place of a silent one only after this.
const LONGER_WAY_US: i64 = 30 * MICROS;

/// The distance of a session that only compares what was stored earlier: everybody else comes first.
pub const PAST_HOPS: i64 = i64::MAX;

/// Farther than any chain of parents: whoever says more is not believed, and has no number that another could not exceed.
pub const HOPS_MAX: i64 = 64;

/// How far from the host a peer says to be, as far as it is believed.
pub fn believed_hops(said: Option<i64>) -> i64 {
    said.unwrap_or(1).clamp(1, HOPS_MAX)
}

/// The session that is there already.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Distance from the host; 1 = the host itself is connected.
    pub hops: i64,
    /// Its connection is known to be over.
    pub gone: bool,
    /// It should have spoken by now.
    pub silent: bool,
    /// Since it spoke last.
    pub age_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The new one takes its place.
    Replace,
    /// The old one stays.
    Refuse,
}

pub fn decide(old: &Session, new_hops: i64) -> Verdict {
    let replace = old.gone
        || new_hops < old.hops
        || (old.silent && (new_hops == old.hops || old.age_us > LONGER_WAY_US));
    if replace { Verdict::Replace } else { Verdict::Refuse }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ghosts_and_detours_make_room_and_the_living_stay() {
        let alive = Session { hops: 2, gone: false, silent: false, age_us: MICROS };
        let silent = Session { silent: true, age_us: 4 * MICROS, ..alive };
        for (old, hops, verdict) in [
            (alive, 2, Verdict::Refuse),
            (alive, 3, Verdict::Refuse),
            (alive, 1, Verdict::Replace),
            (silent, 2, Verdict::Replace),
            (silent, 3, Verdict::Refuse),
            (Session { age_us: 31 * MICROS, ..silent }, 3, Verdict::Replace),
            (Session { gone: true, ..alive }, 3, Verdict::Replace),
        ] {
            assert_eq!(decide(&old, hops), verdict, "{old:?} {hops}");
        }
    }

    #[test]
    fn nobody_is_farther_away_than_a_chain_is_long() {
        let said = [None, Some(i64::MIN), Some(0), Some(3), Some(65), Some(i64::MAX)];
        assert_eq!(said.map(believed_hops), [1, 1, 1, 3, HOPS_MAX, HOPS_MAX]);
    }
}

//! Which parent a host tries next: the list of destinations with what became of each.
//!
//! A plain state machine. It is given the time and events and says what to try and what to log; the sender's thread does
//! both. The order is that of 1.37: list order, a destination that accepts the TCP connection goes to the end of the
//! list, one that refuses us is put off for a time that depends on how and, as in 2.x, on chance. Who refused us for a
//! reason that may have passed is tried all the same when nobody else takes us, so nobody waits for a parent that is there.

use std::fmt;
use std::time::Duration;

use crate::net::Destination;
use crate::wire::handshake::Refusal;

/// Why a destination did not take us, or no longer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NotUnderstood,
    Localhost,
    AlreadyStreaming,
    Denied,
    SendTimeout,
    NoResponse,
    Certificate,
    Tls,
    Busy,
    InternalError,
    Initializing,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Localhost => Failure::Localhost,
            Refusal::AlreadyStreaming => Failure::AlreadyStreaming,
            Refusal::NotPermitted => Failure::Denied,
            Refusal::Busy => Failure::Busy,
            Refusal::InternalError => Failure::InternalError,
            Refusal::Initializing => Failure::Initializing,
        }
    }
}

impl Failure {
    /// The number logs and statuses show.
    pub fn code(self) -> i32 {
        match self {
            Failure::NotUnderstood => -1,
            Failure::Localhost => -2,
            Failure::AlreadyStreaming => -3,
            Failure::Denied => -4,
            Failure::SendTimeout => -5,
            Failure::NoResponse => -6,
            Failure::Certificate => -7,
            Failure::Tls => -8,
            Failure::Busy => -10,
            Failure::InternalError => -11,
            Failure::Initializing => -12,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Failure::NotUnderstood => "remote node response is not understood, is it Netdata?",
            Failure::Localhost => {
                "remote server rejected this stream, the host we are trying to stream is its localhost"
            }
            Failure::AlreadyStreaming => {
                "remote server rejected this stream, the host we are trying to stream is already streamed to it"
            }
            Failure::Denied => {
                "remote server denied access, probably we don't have the right API key?"
            }
            Failure::SendTimeout => "timeout while sending request",
            Failure::NoResponse => "timeout while expecting first response",
            Failure::Certificate => "invalid SSL certificate",
            Failure::Tls => "SSL error",
            Failure::Busy => "remote server is currently busy, we should try later",
            Failure::InternalError => {
                "remote server is encountered an internal error, we should try later"
            }
            Failure::Initializing => "remote server is initializing, we should try later",
        }
    }

    /// The word of `/api/v2/node_instances`.
    pub fn reason(self) -> &'static str {
        match self {
            Failure::NotUnderstood => "BAD HANDSHAKE",
            Failure::Localhost => "LOCALHOST",
            Failure::AlreadyStreaming => "ALREADY CONNECTED",
            Failure::Denied => "DENIED",
            Failure::SendTimeout => "SEND TIMEOUT",
            Failure::NoResponse => "RECEIVE TIMEOUT",
            Failure::Certificate => "INVALID CERTIFICATE",
            Failure::Tls => "SSL ERROR",
            Failure::Busy => "BUSY TRY LATER",
            Failure::InternalError => "INTERNAL ERROR",
            Failure::Initializing => "REMOTE IS INITIALIZING",
        }
    }

    /// What may be over at any moment: a parent that starts or ends, a way of our samples that has ended.
    fn may_have_passed(self) -> bool {
        matches!(
            self,
            Failure::AlreadyStreaming
                | Failure::NoResponse
                | Failure::Busy
                | Failure::InternalError
                | Failure::Initializing
        )
    }

    /// For how long that destination is left alone at most, in seconds.
    fn postpone_s(self) -> i64 {
        match self {
            Failure::NotUnderstood | Failure::Denied | Failure::SendTimeout => 60,
            Failure::Localhost => 3600,
            Failure::AlreadyStreaming | Failure::Busy => 120,
            Failure::NoResponse | Failure::Initializing => 30,
            Failure::InternalError | Failure::Certificate | Failure::Tls => 300,
        }
    }
}

/// A destination that is believed to refuse us is asked all the same after so many seconds at most.
const STAND_BY_S: i64 = 120;
/// A destination that refused us is left alone for so many seconds at least.
const POSTPONE_LEAST_S: i64 = 5;

/// One destination and its past.
#[derive(Clone, Debug)]
pub struct Parent {
    pub destination: Destination,
    pub attempts: u32,
    pub last_failure: Option<Failure>,
    /// Unix seconds of the last attempt; 0 = never.
    pub last_attempt: i64,
    /// Unix seconds until which it is left alone.
    pub postponed_until: i64,
    /// That it is left alone was said.
    is_said: bool,
}

impl Parent {
    fn new(destination: Destination) -> Parent {
        Parent {
            destination,
            attempts: 0,
            last_failure: None,
            last_attempt: 0,
            postponed_until: 0,
            is_said: false,
        }
    }
}

/// The list, in the order in which it is tried.
#[derive(Clone, Debug, Default)]
pub struct Parents {
    list: Vec<Parent>,
    default_port: u16,
    chance: u64,
}

/// A destination that is left out of a pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Skipped {
    pub destination: String,
    pub default_port: u16,
    pub failure: Failure,
    pub seconds: i64,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Skipped { destination, default_port, failure, seconds } = self;
        write!(
            f,
            "skipping destination '{destination}' (default port: {default_port}) due to last error (code: {}, {}), will retry it in {seconds} seconds",
            failure.code(),
            failure.text()
        )
    }
}

impl Parents {
    /// `chance` is where its random numbers begin.
    pub fn new(destinations: Vec<Destination>, default_port: u16, chance: u64) -> Parents {
        Parents { list: destinations.into_iter().map(Parent::new).collect(), default_port, chance }
    }

    /// How long to wait for the next pass when nobody took us: `reconnect delay seconds` at most, so that the children of a
    /// parent that comes back do not come all at once.
    pub fn pause(&mut self, most: Duration) -> Duration {
        let most_ms = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
        Duration::from_millis(self.between(most_ms / 2, most_ms).unsigned_abs())
    }

    fn between(&mut self, least: i64, most: i64) -> i64 {
        // SplitMix64.
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let width = most.saturating_sub(least).max(0).unsigned_abs() + 1;
        least.saturating_add_unsigned((z ^ (z >> 31)) % width)
    }

    /// Another list: who stands in both keeps its past, and unless it `forgives`, its failures. The order is that of the new
    /// one where that differs in more than the order.
    pub fn replace(&mut self, destinations: Vec<Destination>, default_port: u16, forgives: bool) {
        self.default_port = default_port;
        let is_known = |one: &Destination| self.list.iter().any(|p| p.destination == *one);
        let same = destinations.len() == self.list.len() && destinations.iter().all(is_known);
        if !same {
            let mut old = std::mem::take(&mut self.list);
            let mut kept = |destination: Destination| {
                let at = old.iter().position(|parent| parent.destination == destination);
                at.map_or_else(|| Parent::new(destination), |at| old.remove(at))
            };
            self.list = destinations.into_iter().map(&mut kept).collect();
        }
        if forgives {
            for parent in &mut self.list {
                parent.last_failure = None;
                parent.postponed_until = 0;
            }
        }
    }

    pub fn list(&self) -> &[Parent] {
        &self.list
    }

    pub fn default_port(&self) -> u16 {
        self.default_port
    }

    /// What one pass over the list tries, in order, and what it is the first one to leave out since that failed.
    pub fn pass(&mut self, now: i64) -> (Vec<Destination>, Vec<Skipped>) {
        let (mut tries, mut skipped) = (Vec::new(), Vec::new());
        for parent in &mut self.list {
            match parent.last_failure {
                // Never for longer than it was meant: the clock may have been set back.
                Some(failure)
                    if (1..=failure.postpone_s()).contains(&(parent.postponed_until - now)) =>
                {
                    if !std::mem::replace(&mut parent.is_said, true) {
                        skipped.push(Skipped {
                            destination: parent.destination.text.clone(),
                            default_port: self.default_port,
                            failure,
                            seconds: parent.postponed_until - now,
                        });
                    }
                }
                _ => tries.push(parent.destination.clone()),
            }
        }
        (tries, skipped)
    }

    /// Whom to try when nobody of a pass takes us: those that refused us for what may have passed. Our samples came to them
    /// another way, which has ended if it led over one that cannot be reached; or they were about to start or to end.
    pub fn last_resort(&self, now: i64) -> Vec<Destination> {
        let refused = |parent: &&Parent| {
            parent.last_failure.is_some_and(Failure::may_have_passed)
                && parent.postponed_until > now
        };
        self.list.iter().filter(refused).map(|parent| parent.destination.clone()).collect()
    }

    /// `destination` is about to be dialled.
    pub fn trying(&mut self, destination: &Destination, now: i64) {
        if let Some(parent) = self.find(destination) {
            parent.attempts = parent.attempts.saturating_add(1);
            parent.last_attempt = now;
        }
    }

    /// The TCP connection stands: the others get their turn first next time, whatever comes of it.
    pub fn reached(&mut self, destination: &Destination) {
        if let Some(at) = self.list.iter().position(|p| p.destination == *destination) {
            self.list[at..].rotate_left(1);
        }
    }

    /// The parent took us.
    pub fn accepted(&mut self, destination: &Destination) {
        if let Some(parent) = self.find(destination) {
            parent.last_failure = None;
            parent.postponed_until = 0;
        }
    }

    /// The parent did not take us.
    pub fn failed(&mut self, destination: &Destination, failure: Failure, now: i64) {
        let seconds = self.between(POSTPONE_LEAST_S, failure.postpone_s());
        if let Some(parent) = self.find(destination) {
            parent.last_failure = Some(failure);
            parent.postponed_until = now.saturating_add(seconds);
            parent.is_said = false;
        }
    }

    /// The parent is known not to take us, without being asked; true where that is news.
    pub fn stands_by(&mut self, destination: &Destination, failure: Failure, now: i64) -> bool {
        let seconds = self.between(STAND_BY_S / 2, STAND_BY_S);
        let Some(parent) = self.find(destination) else { return false };
        let news = parent.last_failure != Some(failure);
        if news {
            parent.last_failure = Some(failure);
            parent.postponed_until = now.saturating_add(seconds);
            parent.is_said = true;
        }
        news
    }

    /// It was left alone long enough.
    pub fn is_to_be_asked(&self, destination: &Destination, now: i64) -> bool {
        let mut list = self.list.iter().filter(|parent| parent.destination == *destination);
        list.any(|parent| parent.last_failure.is_some() && parent.postponed_until <= now)
    }

    fn find(&mut self, destination: &Destination) -> Option<&mut Parent> {
        self.list.iter_mut().find(|parent| parent.destination == *destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::parse_destinations;

    fn parents(list: &str) -> Parents {
        Parents::new(parse_destinations(list, 19999), 19999, 1)
    }

    fn tries(parents: &mut Parents, now: i64) -> Vec<String> {
        parents.pass(now).0.into_iter().map(|destination| destination.text).collect()
    }

    #[test]
    fn whoever_is_reached_goes_to_the_end() {
        let mut parents = parents("a b c");
        let b = parents.list()[1].destination.clone();
        parents.reached(&b);
        assert_eq!(tries(&mut parents, 0), ["a", "c", "b"]);
        let a = parents.list()[0].destination.clone();
        parents.reached(&a);
        assert_eq!(tries(&mut parents, 0), ["c", "b", "a"]);
    }

    #[test]
    fn another_list_keeps_what_is_known_of_those_in_both() {
        let mut known = parents("a b");
        let list = |text: &str| parse_destinations(text, 19999);
        let b = known.list()[1].destination.clone();
        known.failed(&b, Failure::Denied, 1000);
        known.replace(list("c b"), 19999, false);
        assert_eq!(tries(&mut known, 1001), ["c"]);
        known.replace(list("c b"), 19999, true);
        assert_eq!(tries(&mut known, 1001), ["c", "b"]);
        let c = known.list()[0].destination.clone();
        known.reached(&c);
        known.replace(list("c b"), 19999, false);
        assert_eq!(tries(&mut known, 1001), ["b", "c"], "the same list keeps its order");
    }

    #[test]
    fn whoever_refuses_is_left_alone_for_a_while() {
        let mut parents = parents("host:19999 b");
        let first = parents.list()[0].destination.clone();
        parents.failed(&first, Failure::Denied, 1000);
        let seconds = parents.list()[0].postponed_until - 1004;
        let (tries, skipped) = parents.pass(1004);
        assert_eq!(tries.len(), 1);
        assert_eq!(
            skipped[0].to_string(),
            format!(
                "skipping destination 'host:19999' (default port: 19999) due to last error (code: -4, remote server denied access, probably we don't have the right API key?), will retry it in {seconds} seconds"
            )
        );
        assert_eq!(parents.pass(1004).1, [], "it is said once");
        assert!(parents.last_resort(1004).is_empty());
        assert_eq!(parents.pass(1060).0.len(), 2);
        for failure in [Failure::AlreadyStreaming, Failure::NoResponse, Failure::Initializing] {
            parents.failed(&first, failure, 1000);
            assert_eq!(parents.pass(1004).0.len(), 1);
            assert_eq!(parents.last_resort(1004), std::slice::from_ref(&first), "{failure:?}");
        }
        parents.failed(&first, Failure::NoResponse, 90_000);
        assert_eq!(parents.pass(1000).0.len(), 2, "the clock was set back");
        parents.failed(&first, Failure::Localhost, 1000);
        parents.accepted(&first);
        assert_eq!(parents.pass(1001).0.len(), 2);
        assert!(parents.stands_by(&first, Failure::Localhost, 1000));
        assert!(!parents.stands_by(&first, Failure::Localhost, 1001));
        assert_eq!((parents.list()[0].attempts, parents.pass(1004).1.len()), (0, 0));
        assert!(!parents.is_to_be_asked(&first, 1059));
        assert!(parents.is_to_be_asked(&first, 1000 + STAND_BY_S));
    }

    #[test]
    fn for_how_long_is_left_to_chance_within_bounds() {
        let mut parents = parents("a");
        let first = parents.list()[0].destination.clone();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            parents.failed(&first, Failure::Initializing, 1000);
            seen.insert(parents.list()[0].postponed_until - 1000);
            let pause = parents.pause(Duration::from_secs(5));
            assert!((2500..=5000).contains(&pause.as_millis()), "{pause:?}");
        }
        assert_eq!(seen, (POSTPONE_LEAST_S..=30).collect());
        assert_eq!(parents.pause(Duration::ZERO), Duration::ZERO);
    }
}
